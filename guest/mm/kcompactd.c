/*
 * kcompactd.c - compaction that nobody waits for.
 *
 * Layer: L4
 * Owns: what the background does for a zone when it is woken, and for a node from time to time; mm.proactive_defer.
 * Invariants:
 *   I1  nothing is compacted unless a mark is passed: no whole block is near the kernel's; an order was missing and the zone's
 *       fragmentation index for it is above extfrag_threshold; the node's fragmentation score is above the high mark.
 *   I2  movable holes only: the background makes no tenants.
 *   I3  a proactive run that did not lower the score is followed by PROACTIVE_DEFER_TICKS ticks without one.
 * Lock order: zone lock, for looking only.
 * Why: whoever cannot sleep finds a block only if somebody made it before.  Huge pages are wanted in bursts: the score says how much of what
 *   is free could serve none, and two marks ten percent apart keep the work in portions.
 * Cost: a look takes the zone's counters; the rest is compact_zone().
 */
#include "compaction_priv.h"
#include "fragmentation.h"

#define LEND_LOW_PAGES        64u                       /* movable free pages under which a block is lent */
#define HOME_ROOM_PAGES       256u                      /* tenants go home only while so much room stays */
#define PROACTIVE_DEFER_TICKS 63u
#define SCORE_BAND            10u
#define SCORE_LEAST           5u

/* An order that somebody went without. */
static uint64_t make_wanted_order(struct mm *mm, struct zone *z)
{
    unsigned order = atomic_exchange_explicit(&z->wanted_order, 0, memory_order_relaxed);
    struct compact_request request = { .targets = TARGET_MOVABLE, .mode = COMPACT_SYNC_LIGHT, .blocks_wanted = order > PAGEBLOCK_ORDER ? UINT32_MAX : 1,
                                       .until_pair = order > PAGEBLOCK_ORDER };
    struct compact_result r;
    bool wanted;

    if (order == 0) {
        return 0;
    }
    zone_lock(z);
    wanted = zone_extfrag_index(z, order) > (int)mm->extfrag_threshold && zone_watermark_ok(z, order, 1, WMARK_LOW, ZONE_NORMAL, 0);     /* I1 */
    zone_unlock(z);
    return wanted && compact_zone(mm, z, &request, &r) == MM_OK ? r.migrated_pages : 0;
}

/* A type of kernel pages that has tenants in its blocks and is about to claim another block takes some of its room back, even if
 * that costs a whole block: the block is a movable one then. */
static uint64_t send_home(struct mm *mm, struct zone *z)
{
    enum migratetype type;

    if (z->tenant_blocks == 0 || mm->policy != CLAIM_CLEAR_FIRST) {
        return 0;
    }
    zone_lock(z);
    type = zone_wants_home(z);
    zone_unlock(z);
    return (type != MIGRATE_TYPES ? claim_tenants_home(mm, z, type, 0, PAGEBLOCK_PAGES / 2, true) : 0)
           + claim_tenants_home(mm, z, MIGRATE_TYPES, HOME_ROOM_PAGES, UINT64_MAX, false);
}

/* The next run looks at everything again, if a full pass has ended. */
static void come_to_rest(struct zone *z)
{
    zone_lock(z);
    if (z->skip_stale) {
        compact_hints_reset(z);
    }
    zone_unlock(z);
}

uint64_t compaction_background(struct mm *mm, struct zone *z)
{
    uint64_t whole, room, moved = 0;
    bool spare;

    zone_lock(z);
    whole = z->free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE];
    room = movable_room(z);
    spare = zone_wants_spare(z, mm->claim_window);
    zone_unlock(z);
    zone_count_unlocked(z, ZC_compact_daemon_wake, 1);
    if (whole == 0 && room < LEND_LOW_PAGES) {
        (void)claim_lend(mm, z);
    }
    if (mm->migrate.move != NULL) {
        moved += spare ? claim_spare(mm, z) : 0;
        moved += make_wanted_order(mm, z);
        moved += send_home(mm, z);
        moved += claim_take_back(mm, z);
    }
    come_to_rest(z);
    zone_count_unlocked(z, ZC_compact_daemon_moved, moved);
    return moved;
}

/* ---- proactive ---- */

unsigned compaction_score_mark(uint32_t proactiveness, bool low)
{
    unsigned mark = proactiveness > 100 - SCORE_LEAST ? SCORE_LEAST : 100 - proactiveness;

    return low ? mark : mark + SCORE_BAND < 100 ? mark + SCORE_BAND : 100;
}

static unsigned score_of(struct mm *mm, uint32_t node)
{
    return node_fragmentation_score(mm, node);
}

static uint64_t compact_to_score(struct mm *mm, uint32_t node, unsigned low)
{
    struct compact_request request = { .targets = TARGET_MOVABLE, .mode = COMPACT_SYNC_LIGHT, .blocks_wanted = UINT32_MAX, .score = low };   /* I2 */
    struct compact_result r;
    uint64_t moved = 0;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        struct zone *z = &mm->zones[i];

        if (z->node == node && compact_zone(mm, z, &request, &r) == MM_OK) {
            zone_count_unlocked(z, ZC_compact_proactive, 1);
            zone_count_unlocked(z, ZC_compact_daemon_moved, r.migrated_pages);
            moved += r.migrated_pages;
            come_to_rest(z);
        }
    }
    return moved;
}

static struct zone *first_zone(struct mm *mm, uint32_t node)
{
    for (uint32_t i = 0; i < mm->zone_count; i++) {
        if (mm->zones[i].node == node) {
            return &mm->zones[i];
        }
    }
    return NULL;
}

uint64_t compaction_proactive(struct mm *mm, uint32_t node)
{
    uint32_t eager = mm->compaction_proactiveness;
    unsigned before = score_of(mm, node);
    struct zone *first = first_zone(mm, node);
    uint64_t moved;

    if (first == NULL || eager == 0 || mm->migrate.move == NULL || before <= compaction_score_mark(eager, false)) {      /* I1 */
        return 0;
    }
    if (mm->proactive_defer[node] > 0) {
        mm->proactive_defer[node]--;
        zone_count_unlocked(first, ZC_compact_proactive_deferred, 1);
        return 0;
    }
    moved = compact_to_score(mm, node, compaction_score_mark(eager, true));
    if (score_of(mm, node) >= before) {
        mm->proactive_defer[node] = PROACTIVE_DEFER_TICKS;              /* I3 */
    }
    return moved;
}
