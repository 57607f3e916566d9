/*
 * compact_direct.c - compaction for a request of high order that fails although enough is free.
 *
 * Layer: L4
 * Owns: hooks.compact; when it is not tried (zone.compact_order_failed, _considered, _defer_shift).
 * Invariants:
 *   I1  it runs only where the fragmentation index is above extfrag_threshold: at or below it memory is short, and
 *       reclaim's turn it is (page_alloc.c).
 *   I2  the unit that it made is its requester's (compact_request.capture).
 * Lock order: zone lock, for its own numbers only.
 * Why: an asynchronous run first: in most cases a block is emptied without waiting for anybody.  Only a request that may take longer
 *   (no __GFP_NORETRY) tries busy pages again.  After a failure the next requests are turned away, twice as many each time:
 *   what is in the way now is in the way in a moment, too.
 * Cost: as compact_zone(); a request that is turned away costs one lock.
 */
#include "compaction_priv.h"
#include "fragmentation.h"

#define DEFER_SHIFT_MAX 6u

/* pre: zone lock held */
static bool deferred(struct zone *z, unsigned order)
{
    if (z->compact_order_failed == 0 || order < z->compact_order_failed) {
        return false;
    }
    if (++z->compact_considered < 1u << z->compact_defer_shift) {
        return true;
    }
    z->compact_considered = 0;
    if (z->compact_defer_shift == DEFER_SHIFT_MAX && z->skip_stale) {
        compact_hints_reset(z);                 /* it begins anew */
    }
    return false;
}

static void note_outcome(struct zone *z, unsigned order, bool success)
{
    zone_lock(z);
    if (success) {
        z->compact_order_failed = order >= z->compact_order_failed ? 0 : z->compact_order_failed;
        z->compact_defer_shift = z->compact_order_failed == 0 ? 0 : z->compact_defer_shift;
    } else {
        z->compact_considered = 0;
        z->compact_defer_shift = z->compact_defer_shift < DEFER_SHIFT_MAX ? z->compact_defer_shift + 1 : DEFER_SHIFT_MAX;
        if (z->compact_order_failed == 0 || order < z->compact_order_failed) {
            z->compact_order_failed = order;
        }
    }
    zone_unlock(z);
}

/* Is it compaction that can help, and is it worth trying? */
static bool suitable(const struct mm *mm, struct zone *z, unsigned order)
{
    bool memory_short, later;

    zone_lock(z);
    memory_short = !zone_compaction_helps(z, order, mm->extfrag_threshold);     /* I1 */
    later = !memory_short && deferred(z, order);
    zone_unlock(z);
    zone_count_unlocked(z, ZC_compact_not_suitable, memory_short);
    zone_count_unlocked(z, ZC_compact_deferred, later);
    return !memory_short && !later;
}

bool direct_compact(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, gfp_t gfp, struct page **captured)
{
    struct compact_request request = { .targets = TARGET_MOVABLE, .blocks_wanted = order > PAGEBLOCK_ORDER ? UINT32_MAX : 1,
                                       .until_pair = order > PAGEBLOCK_ORDER, .mode = COMPACT_ASYNC, .capture = true,
                                       .unit_order = order, .unit_type = type };
    struct compact_result r = { .blocks_made = 0 };
    bool made = false;

    if (mm->migrate.move == NULL || !suitable(mm, z, order)) {
        return false;
    }
    while (!made) {
        if (compact_zone(mm, z, &request, &r) != MM_OK) {
            return false;                       /* somebody else is at it: no failure of ours */
        }
        *captured = r.captured;
        made = r.captured != NULL || r.blocks_made > 0;
        if (request.mode != COMPACT_ASYNC || (gfp & __GFP_NORETRY)) {
            break;
        }
        request.mode = COMPACT_SYNC_LIGHT;
    }
    zone_count_unlocked(z, ZC_compact_fail, !made);
    if (made || !r.stopped) {
        note_outcome(z, order, made);
    }
    return made;
}
