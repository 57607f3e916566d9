/*
 * claim.c - keeping kernel pages together: which block they get next, and how it is cleared.
 *
 * Layer: L4
 * Owns: hooks.clear_block; the flag PB_TENANTS is taken off here.
 * Invariants:
 *   I1  nothing is moved while the policy is CLAIM_LARGEST_LOWEST.
 *   I2  a block is cleared only if what it holds fits elsewhere.
 *   I3  PB_TENANTS is taken off a block only when no movable page is in it; zone.tenant_blocks counts the flags.
 * Lock order: zone lock; none while the mover runs.
 * Why: a kernel page among movable ones keeps a block from being whole for as long as it lives.  So what movable pages hold of
 *   kernel blocks (tenants) is taken back before another block is claimed, and the block that is claimed is the next one: cleared
 *   by migration if need be.
 * Cost: a pass over the blocks below the limit; one move a page.
 */
#include "compaction_priv.h"
#include "buddy.h"
#include "isolation.h"
#include "pageblock.h"
#include "pcp.h"

#define LEND_FREE_PAGES (PAGEBLOCK_PAGES * 3u / 4)
#define HOME_BATCH      (PAGEBLOCK_PAGES / 8)

uint64_t movable_room(const struct zone *z)
{
    uint64_t room = 0;

    for (unsigned o = 0; o < PAGEBLOCK_ORDER; o++) {
        room += z->free_units[o][MIGRATE_MOVABLE] << o;
    }
    return room;
}

static uint64_t whole_pages(const struct zone *z)
{
    return z->free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE] << PAGEBLOCK_ORDER;
}

static uint64_t room_for_tenants(struct zone *z, bool whole)
{
    uint64_t room;

    zone_lock(z);
    room = movable_room(z) + (whole ? whole_pages(z) : 0);
    zone_unlock(z);
    return room;
}

/* One that waits on a CPU's list of movable pages counts: it will be somebody's. */
static bool block_has_movable(const struct mm *mm, uint32_t block)
{
    const struct page *first = mm_block_page(mm, block);

    for (uint32_t i = 0; i < PAGEBLOCK_PAGES; i++) {
        enum page_state state = page_state(first + i);

        if ((state == PAGE_USED || state == PAGE_PCP) && page_type(first + i) == MIGRATE_MOVABLE) {
            return true;
        }
    }
    return false;
}

/* The first block from a position on that may have tenants, of one type or of any (MIGRATE_TYPES); BLOCK_NONE. */
static uint32_t tenant_block(struct mm *mm, struct zone *z, enum migratetype type, uint32_t position)
{
    uint32_t found = BLOCK_NONE;

    zone_lock(z);
    for (uint32_t i = position; i < z->end_block - z->first_block && found == BLOCK_NONE; i++) {
        uint32_t b = position_block(z, i);

        if (mm_pfn_valid(mm, block_pfn(b)) && mm_block(mm, b)->flags & PB_TENANTS
            && (type == MIGRATE_TYPES || pageblock_type(mm, b) == type)) {
            found = b;
        }
    }
    zone_unlock(z);
    return found;
}

uint64_t claim_tenants_home(struct mm *mm, struct zone *z, enum migratetype type, uint64_t keep, uint64_t most, bool whole)
{
    struct empty_how how = { .target = movable_target, .ctx = mm, .mode = COMPACT_SYNC_LIGHT, .stop = true, .until_order = MAX_ORDER };
    struct compact_result r = { .blocks_made = 0 };
    unsigned walk;
    uint32_t b;

    if (z->tenant_blocks == 0) {
        return 0;
    }
    walk = mm_walk_begin(mm);
    for (b = tenant_block(mm, z, type, 0); b != BLOCK_NONE; b = tenant_block(mm, z, type, block_position(z, b) + 1)) {
        if (room_for_tenants(z, whole) < keep + HOME_BATCH || r.migrated_pages >= most) {
            break;
        }
        (void)empty_block(mm, z, b, &how, &r);
        zone_lock(z);
        if (!block_has_movable(mm, b) && mm_block(mm, b)->flags & PB_TENANTS) {      /* I3 */
            mm_block(mm, b)->flags &= (uint8_t)~PB_TENANTS;
            z->tenant_blocks--;
        }
        zone_unlock(z);
    }
    mm_walk_end(mm, walk);
    return r.migrated_pages;
}

/* The block to claim next: of the movable ones at positions below limit the emptiest whose contents fit elsewhere. */
static uint32_t next_claim(struct mm *mm, struct zone *z, uint32_t limit)
{
    uint32_t found = BLOCK_NONE, most_free = 0;
    uint64_t room;

    zone_lock(z);
    room = movable_room(z) + whole_pages(z);
    for (uint32_t i = z->boot_blocks; i < limit && room >= PAGEBLOCK_PAGES; i++) {      /* I2 */
        uint32_t b = position_block(z, i);

        /* used + free = a block's pages, and room counts its own free ones */
        if (mm_pfn_valid(mm, block_pfn(b)) && !mm_block(mm, b)->offline && pageblock_type(mm, b) == MIGRATE_MOVABLE
            && mm_block(mm, b)->reserved_pages == 0 && (found == BLOCK_NONE || mm_block(mm, b)->free_pages > most_free)
            && mm_block(mm, b)->free_pages < PAGEBLOCK_PAGES && block_immovable_page(mm, b) == NULL) {
            found = b;
            most_free = mm_block(mm, b)->free_pages;
        }
    }
    zone_unlock(z);
    return found;
}

/* Move everything out of the block that is to be claimed next; captured as hooks.clear_block has it, or NULL: leave it whole. */
static bool clear_walking(struct mm *mm, struct zone *z, uint32_t limit, unsigned order, enum migratetype type, struct page **captured,
                          struct compact_result *r)
{
    struct empty_how how = { .target = movable_target, .ctx = mm, .mode = COMPACT_SYNC_LIGHT, .stop = true, .until_order = MAX_ORDER };
    uint32_t block = next_claim(mm, z, limit);
    bool whole;

    if (block == BLOCK_NONE || isolate_range(mm, block_pfn(block), block_pfn(block + 1), 0, NULL) != MM_OK) {
        return false;
    }
    (void)empty_block(mm, z, block, &how, r);
    whole = block_whole(mm, z, block);
    if (whole && captured != NULL) {
        *captured = isolate_undo_take(mm, block, order, type);
        zone_count_unlocked(z, ZC_compact_captured, *captured != NULL);
    } else if (isolate_undo(mm, block_pfn(block), block_pfn(block + 1)) != MM_OK) {
        return false;
    }
    if (whole) {
        zone_lock(z);
        zone_count(z, ZC_block_cleared, 1);
        zone_unlock(z);
    }
    return whole;
}

static bool clear_next(struct mm *mm, struct zone *z, uint32_t limit, unsigned order, enum migratetype type, struct page **captured,
                       struct compact_result *r)
{
    unsigned walk = mm_walk_begin(mm);
    bool whole = clear_walking(mm, z, limit, order, type, captured, r);

    mm_walk_end(mm, walk);
    return whole;
}

static uint32_t claim_limit(const struct mm *mm, struct zone *z)
{
    uint32_t limit;

    zone_lock(z);
    limit = zone_claim_limit(z, mm->claim_window);
    zone_unlock(z);
    return limit;
}

bool claim_clear_block(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, struct page **captured)
{
    struct compact_result r = { .blocks_made = 0 };

    if (mm->policy == CLAIM_LARGEST_LOWEST || mm->migrate.move == NULL) {       /* I1 */
        return false;
    }
    if (mm->policy == CLAIM_CLEAR_FIRST && claim_tenants_home(mm, z, type, 0, UINT64_MAX, false) > 0) {
        return true;
    }
    return clear_next(mm, z, claim_limit(mm, z), order, type, captured, &r)
           || clear_next(mm, z, z->end_block - z->first_block, order, type, captured, &r);
}

uint64_t claim_spare(struct mm *mm, struct zone *z)
{
    struct compact_result r = { .blocks_made = 0 };
    bool none;

    if (mm->policy == CLAIM_LARGEST_LOWEST || mm->migrate.move == NULL) {       /* I1 */
        return 0;
    }
    zone_lock(z);
    none = whole_pages(z) == 0;
    zone_unlock(z);
    if (!clear_next(mm, z, claim_limit(mm, z), 0, MIGRATE_MOVABLE, NULL, &r) && none) {
        (void)clear_next(mm, z, z->end_block - z->first_block, 0, MIGRATE_MOVABLE, NULL, &r);
    }
    return r.migrated_pages;
}

/* An accounted block's few pages leave with their process; then nothing is mixed any more. */
bool claim_lend(struct mm *mm, struct zone *z)
{
    uint32_t best = BLOCK_NONE, most = LEND_FREE_PAGES;

    zone_lock(z);
    for (uint32_t i = z->boot_blocks; i < z->end_block - z->first_block; i++) {
        uint32_t b = position_block(z, i);

        if (mm_pfn_valid(mm, block_pfn(b)) && migratetype_is_kernel(pageblock_type(mm, b))) {
            uint32_t free = mm_block(mm, b)->free_pages + (pageblock_type(mm, b) == MIGRATE_ACCOUNTED ? PAGEBLOCK_PAGES / 8 : 0u);

            if (free >= most) {
                most = free;
                best = b;
            }
        }
    }
    if (best != BLOCK_NONE) {
        pageblock_set_type(mm, z, best, MIGRATE_MOVABLE);
        /* It may be marked from an earlier loan: it went free as a whole, and the kernel claimed it. */
        z->lent_blocks += (mm_block(mm, best)->flags & PB_LENT) == 0;
        mm_block(mm, best)->flags |= PB_LENT;
        zone_count(z, ZC_block_lent, 1);
    }
    zone_unlock(z);
    if (best != BLOCK_NONE) {
        pcp_drain(mm, z);
    }
    return best != BLOCK_NONE;
}

struct lent { uint32_t block; uint64_t movable; enum migratetype type; };

/* What lives in a lent block: how many movable pages, and which type the kernel's are (MIGRATE_MOVABLE: there are none). */
static struct lent lent_contents(const struct mm *mm, uint32_t block)
{
    struct lent l = { .block = block, .type = MIGRATE_MOVABLE };
    const struct page *first = mm_block_page(mm, block);

    for (uint32_t i = 0; i < PAGEBLOCK_PAGES; i++) {
        if (!state_in_use(page_state(first + i))) {
            continue;
        }
        if (page_type(first + i) == MIGRATE_MOVABLE) {
            l.movable += 1u << page_order(first + i);
        } else {
            l.type = page_type(first + i);
        }
    }
    return l;
}

/* pre: zone lock held */
static void lent_no_more(struct mm *mm, struct zone *z, uint32_t block)
{
    if (mm_block(mm, block)->flags & PB_LENT) {
        mm_block(mm, block)->flags &= (uint8_t)~PB_LENT;
        z->lent_blocks--;
    }
}

/* The first lent block with kernel pages in it whose movable pages have room elsewhere; BLOCK_NONE. Forgets those that are no more. */
static struct lent find_lent(struct mm *mm, struct zone *z)
{
    struct lent found = { .block = BLOCK_NONE };
    uint64_t room;

    zone_lock(z);
    room = movable_room(z) + (whole_pages(z) > PAGEBLOCK_PAGES ? whole_pages(z) - PAGEBLOCK_PAGES : 0);
    for (uint32_t i = 0; i < z->end_block - z->first_block && found.block == BLOCK_NONE && z->lent_blocks > 0; i++) {
        uint32_t b = position_block(z, i);
        struct lent l;

        if (!mm_pfn_valid(mm, block_pfn(b)) || !(mm_block(mm, b)->flags & PB_LENT) || pageblock_type(mm, b) == MIGRATE_ISOLATE) {
            continue;
        }
        l = lent_contents(mm, b);
        if (pageblock_type(mm, b) != MIGRATE_MOVABLE || l.type == MIGRATE_MOVABLE) {
            lent_no_more(mm, z, b);             /* its kernel pages went, or the kernel has it already */
        } else if (l.movable + mm_block(mm, b)->free_pages + LEND_FREE_PAGES / 2 <= room) {     /* room holds its own free pages */
            found = l;
        }
    }
    zone_unlock(z);
    return found;
}

static uint64_t take_back_walking(struct mm *mm, struct zone *z)
{
    struct empty_how how = { .target = movable_target, .ctx = mm, .mode = COMPACT_SYNC_LIGHT, .stop = true, .until_order = MAX_ORDER };
    struct compact_result r = { .blocks_made = 0 };
    struct lent l;

    l = find_lent(mm, z);
    if (l.block == BLOCK_NONE || isolate_range(mm, block_pfn(l.block), block_pfn(l.block + 1), ISOLATE_RESIDUAL, NULL) != MM_OK) {
        return 0;
    }
    (void)empty_block(mm, z, l.block, &how, &r);
    if (isolate_undo(mm, block_pfn(l.block), block_pfn(l.block + 1)) != MM_OK) {
        return r.migrated_pages;
    }
    zone_lock(z);
    if (pageblock_type(mm, l.block) == MIGRATE_MOVABLE && !block_has_movable(mm, l.block)) {
        lent_no_more(mm, z, l.block);
        l = lent_contents(mm, l.block);
        if (l.type != MIGRATE_MOVABLE) {
            pageblock_set_type(mm, z, l.block, l.type);
            zone_count(z, ZC_block_returned, 1);
        }
    }
    zone_unlock(z);
    pcp_drain(mm, z);
    return r.migrated_pages;
}

uint64_t claim_take_back(struct mm *mm, struct zone *z)
{
    uint64_t moved;
    unsigned walk;

    if (z->lent_blocks == 0 || mm->policy == CLAIM_LARGEST_LOWEST) {            /* I1 */
        return 0;
    }
    walk = mm_walk_begin(mm);
    moved = take_back_walking(mm, z);
    mm_walk_end(mm, walk);
    return moved;
}
