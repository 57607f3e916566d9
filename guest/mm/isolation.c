/*
 * isolation.c - taking a range of pageblocks out of use.
 *
 * Owns: pageblock.isolations, saved_type.
 * Invariants:
 *   I1  isolations > 0 exactly while the type is MIGRATE_ISOLATE.
 *   I2  a request that fails leaves every block as it was.
 *   I3  after isolate_range() no unit of the range is on a per-CPU list, and none comes onto one.
 * Lock order: per-CPU list lock, then zone lock; one zone at a time.
 * Why: hot-remove, huge contiguous ranges and compaction all need "hands off this range" first.
 *   As a state of the block it costs nothing in the allocator: an isolated block's free
 *   units are on the free area of a type that nobody asks for.
 * Cost: one pass over the heads of the range, one drain of the per-CPU lists of each zone touched.
 */
#include "isolation.h"
#include "buddy.h"
#include "pageblock.h"
#include "pcp.h"

bool page_may_move(const struct page *p)
{
    uint32_t w = page_word(p);

    switch (word_state(w)) {
    case PAGE_RESERVED:
    case PAGE_HOLE:
    case PAGE_FROZEN:
        return false;
    case PAGE_USED:
        return word_type(w) == MIGRATE_MOVABLE && (word_flags(w) & (PG_PINNED | PG_DMA)) == 0;
    default:
        return true;
    }
}

struct page *block_immovable_page(const struct mm *mm, uint32_t block)
{
    struct page *first = mm_block_page(mm, block);
    uint32_t i = 0;

    if (block % 2 != 0 && page_state(first) == PAGE_NONE) {
        struct page *head = mm_pfn_valid(mm, block_pfn(block - 1)) ? mm_block_page(mm, block - 1) : NULL;

        if (head != NULL && state_in_use(page_state(head)) && page_order(head) == MAX_ORDER) {
            return page_may_move(head) ? NULL : head;
        }
    }
    while (i < PAGEBLOCK_PAGES) {
        uint32_t w = page_word(first + i);

        if (!page_may_move(first + i)) {
            return first + i;
        }
        i += word_state(w) == PAGE_NONE ? 1 : 1u << word_order(w);
    }
    return NULL;
}

static bool range_valid(const struct mm *mm, pfn_t start, pfn_t end)
{
    if (start.n >= end.n || end.n > mm->end_pfn || ((start.n | end.n) & (PAGEBLOCK_PAGES - 1)) != 0) {
        return false;
    }
    for (uint32_t b = pfn_block(start); b < pfn_block(end); b++) {
        if (!mm_pfn_valid(mm, block_pfn(b)) || mm_block(mm, b)->offline) {
            return false;
        }
    }
    return true;
}

/* pre: zone lock held */
static void block_isolate(struct mm *mm, struct zone *z, uint32_t b)
{
    struct pageblock *pb = mm_block(mm, b);

    if (pb->isolations++ == 0) {
        pb->saved_type = (uint8_t)pageblock_type(mm, b);
        pageblock_set_type(mm, z, b, MIGRATE_ISOLATE);
    }
    zone_count(z, ZC_isolate, 1);
}

/* pre: zone lock held, isolations > 0 */
static void block_release(struct mm *mm, struct zone *z, uint32_t b)
{
    struct pageblock *pb = mm_block(mm, b);

    if (--pb->isolations == 0) {
        enum migratetype type = (enum migratetype)pb->saved_type;
        bool nobodys = pb->free_pages == PAGEBLOCK_PAGES && type != MIGRATE_HIGHATOMIC;

        pageblock_set_type(mm, z, b, nobodys ? MIGRATE_MOVABLE : type);
        pb->flags &= (uint8_t)~PB_RESIDUAL;
    }
    zone_count(z, ZC_isolate_undo, 1);
}

static void drain_zones(struct mm *mm, pfn_t start, pfn_t end)
{
    struct zone *last = NULL;

    for (uint32_t b = pfn_block(start); b < pfn_block(end); b++) {
        struct zone *z = mm_block_zone(mm, b);

        if (z != last) {
            pcp_drain(mm, z);
            last = z;
        }
    }
}

static mm_status_t isolate_walking(struct mm *mm, pfn_t start, pfn_t end, unsigned flags, struct page **blocking)
{
    if (!range_valid(mm, start, end)) {
        return MM_EINVAL;
    }
    for (uint32_t b = pfn_block(start); b < pfn_block(end); b++) {
        struct zone *z = mm_block_zone(mm, b);
        struct page *stuck = NULL;
        mm_status_t status = MM_OK;

        zone_lock(z);
        if (mm_block(mm, b)->offline) {                 /* since we looked */
            status = MM_EINVAL;
        } else if (mm_block(mm, b)->flags & PB_LEAVING) {
            stuck = mm_block_page(mm, b);
        } else if (!(flags & ISOLATE_RESIDUAL)) {
            stuck = block_immovable_page(mm, b);
        }
        status = stuck != NULL ? MM_EBUSY : status;
        if (status == MM_OK) {
            block_isolate(mm, z, b);
        }
        zone_unlock(z);
        if (status != MM_OK) {
            while (b-- > pfn_block(start)) {        /* I2 */
                z = mm_block_zone(mm, b);
                zone_lock(z);
                block_release(mm, z, b);
                zone_unlock(z);
            }
            if (blocking != NULL && stuck != NULL) {
                *blocking = stuck;
            }
            return status;
        }
    }
    drain_zones(mm, start, end);
    return MM_OK;
}

mm_status_t isolate_range(struct mm *mm, pfn_t start, pfn_t end, unsigned flags, struct page **blocking)
{
    unsigned walk = mm_walk_begin(mm);
    mm_status_t status = isolate_walking(mm, start, end, flags, blocking);

    mm_walk_end(mm, walk);
    return status;
}

static bool isolated_throughout(const struct mm *mm, pfn_t start, pfn_t end)
{
    if (!range_valid(mm, start, end)) {
        return false;
    }
    for (uint32_t b = pfn_block(start); b < pfn_block(end); b++) {
        if (pageblock_type(mm, b) != MIGRATE_ISOLATE) {
            return false;
        }
    }
    return true;
}

mm_status_t isolate_undo(struct mm *mm, pfn_t start, pfn_t end)
{
    if (!isolated_throughout(mm, start, end)) {
        return MM_EINVAL;
    }
    for (uint32_t b = pfn_block(start); b < pfn_block(end); b++) {
        struct zone *z = mm_block_zone(mm, b);

        zone_lock(z);
        block_release(mm, z, b);
        zone_unlock(z);
    }
    return MM_OK;
}

/* pre: zone lock held */
static struct page *take(struct mm *mm, struct zone *z, uint32_t block, unsigned order, enum migratetype type)
{
    bool whole = mm_block(mm, block)->free_pages == PAGEBLOCK_PAGES;

    if (pageblock_type(mm, block) != MIGRATE_MOVABLE || ((type != MIGRATE_MOVABLE || order > PAGEBLOCK_ORDER) && !whole)) {
        return NULL;
    }
    if (order > PAGEBLOCK_ORDER) {
        return buddy_alloc(mm, z, order, type);             /* the lock is still held: any pair will do */
    }
    if (type != MIGRATE_MOVABLE) {
        pageblock_set_type(mm, z, block, type);             /* nothing of it is on a per-CPU list: it was isolated */
        zone_count(z, ZC_fallback, 1);
        zone_count(z, ZC_fallback_claim, 1);
    }
    return buddy_alloc_block(mm, z, block, order);
}

struct page *isolate_undo_take(struct mm *mm, uint32_t block, unsigned order, enum migratetype type)
{
    struct zone *z = mm_block_zone(mm, block);
    struct page *p = NULL;

    ASSERT_CMP(type, <, MIGRATE_PCP_TYPES);
    zone_lock(z);
    ASSERT_CMP(pageblock_type(mm, block), ==, MIGRATE_ISOLATE);
    block_release(mm, z, block);
    p = take(mm, z, block, order, type);
    if (p != NULL) {
        page_set_word(p, PAGE_WORD(PAGE_PCP, order, type, 0));
    }
    zone_unlock(z);
    return p;
}

static mm_status_t test_walking(struct mm *mm, pfn_t start, pfn_t end, struct page **blocking)
{
    if (!isolated_throughout(mm, start, end)) {
        return MM_EINVAL;
    }
    for (uint32_t b = pfn_block(start); b < pfn_block(end); b++) {
        struct zone *z = mm_block_zone(mm, b);
        struct page *first = mm_block_page(mm, b), *in_use = NULL;

        zone_lock(z);
        for (uint32_t i = 0; i < PAGEBLOCK_PAGES && mm_block(mm, b)->free_pages != PAGEBLOCK_PAGES && in_use == NULL;) {
            /* A tail that no head of this block covers belongs to a larger unit that begins before. */
            in_use = page_head(mm, first + i);
            i += in_use == NULL && page_is_free(mm, first + i) ? 1u << page_free_order(mm, first + i) : 1;
        }
        zone_unlock(z);
        if (in_use != NULL) {
            if (blocking != NULL) {
                *blocking = in_use;
            }
            return MM_EBUSY;
        }
    }
    return MM_OK;
}

mm_status_t isolate_test(struct mm *mm, pfn_t start, pfn_t end, struct page **blocking)
{
    unsigned walk = mm_walk_begin(mm);
    mm_status_t status = test_walking(mm, start, end, blocking);

    mm_walk_end(mm, walk);
    return status;
}
