/*
 * hotplug.c - taking ranges of memory away from the guest and giving them back.
 *
 * Owns: pageblock.offline after boot, given, PB_RESIDUAL, the flag PG_GIVEN of holes.
 * Invariants:
 *   I1  a page that was given is PAGE_HOLE with PG_GIVEN, on no list and in no count but reserved_pages.
 *   I2  an offline block is in no free area and in no count of its zone; all its pages are given, and its first page
 *       says so for all of them (the others are PAGE_NONE, as in a free block).
 *   I3  a residual block is isolated; its pages in use stay valid and may be freed: they stay inside.
 *   I4  a section of which every block is offline has no struct pages where they lie in the guest's memory (memmap.h);
 *       pageblock.given says of its blocks what I2 said.
 *   I5  from when a whole block is off its list until it is offline or back, it is PB_LEAVING: an isolation that began in between
 *       would end with the block.
 * Lock order: mm.hotplug_lock throughout; zone lock, never across give(), take() or migration.
 * Why: hot-remove as other kernels have it fails for a whole range because of one page.  Here that page
 *   stays, the rest leaves, and since the guest's frame numbers are only pseudo-physical, the one frame is
 *   moved underneath.
 * Cost: the moves, and a few stores and one call an extent: a block that is free is not walked.
 */
#include "hotplug.h"
#include "buddy.h"
#include "compaction.h"
#include "isolation.h"
#include "memmap.h"
#include "pageblock.h"
#include "frameshift/assert.h"

#define EVACUATE_TRIES 3u

/* ---- away ---- */

/* Is there anything left of the block to take? */
static bool block_present(const struct mm *mm, uint32_t block)
{
    return mm_pfn_valid(mm, block_pfn(block)) && !mm_block(mm, block)->offline;
}

/* Make a unit that is on no list a hole. pre: zone lock; one page, or a whole block (I2) */
static void pages_to_holes(struct mm *mm, struct zone *z, struct page *first, uint32_t pages)
{
    page_set_word(first, PAGE_WORD(PAGE_HOLE, 0, MIGRATE_UNMOVABLE, PG_GIVEN));
    z->managed_pages -= pages;
    z->present_pages -= pages;
    mm_block(mm, page_block(first))->reserved_pages = (uint16_t)(mm_block(mm, page_block(first))->reserved_pages + pages);
}

/* All of the block's frames are gone. pre: zone lock */
static void block_leaves(struct mm *mm, struct zone *z, uint32_t block)
{
    struct pageblock *pb = mm_block(mm, block);

    pageblock_set_type(mm, z, block, MIGRATE_MOVABLE);
    z->blocks_of[MIGRATE_MOVABLE]--;
    pb->isolations = 0;
    z->lent_blocks -= (pb->flags & PB_LENT) != 0;
    pb->flags = 0;
    pb->given = 1;
    pb->offline = 1;
}

/* The reverse of pages_to_holes() for pages that were to be given and were not. */
static void unit_back(struct mm *mm, struct zone *z, struct page *p, unsigned order)
{
    zone_lock(z);
    buddy_free(mm, z, p, order);
    zone_unlock(z);
}

/* The same for a whole block. pre: zone lock */
static void whole_back(struct mm *mm, struct zone *z, struct page *p)
{
    mm_block(mm, page_block(p))->flags &= (uint8_t)~PB_LEAVING;
    buddy_free(mm, z, p, PAGEBLOCK_ORDER);
}

/* Has somebody else (compaction, a claim) isolated it too? Then it is not ours to give. pre: zone lock */
static bool others_isolate(const struct pageblock *pb)
{
    return pb->isolations > 1u + ((pb->flags & PB_RESIDUAL) != 0);
}

/* Take one free unit of an isolated block off its list; NULL if there is none. */
static struct page *take_unit(struct mm *mm, struct zone *z, uint32_t block, unsigned *order)
{
    struct page *p = NULL;

    zone_lock(z);
    if (mm_block(mm, block)->order_mask != 0 && !others_isolate(mm_block(mm, block))) {
        *order = 63 - fs_clz64(mm_block(mm, block)->order_mask);
        p = pageblock_first(mm, block, *order);
        pageblock_unlink(mm, z, p, *order);
        mm_block(mm, block)->flags |= *order == PAGEBLOCK_ORDER ? PB_LEAVING : 0;
    }
    zone_unlock(z);
    return p;
}

static mm_status_t give_whole(struct mm *mm, struct zone *z, uint32_t block, struct page *p, const struct hotplug_ops *ops,
                              struct hotplug_report *report)
{
    mm_status_t status = ops->give(ops->ctx, block_pfn(block), PAGEBLOCK_ORDER);

    zone_lock(z);
    if (status != MM_OK) {
        whole_back(mm, z, p);
        zone_unlock(z);
        return MM_EAGAIN;
    }
    pages_to_holes(mm, z, p, PAGEBLOCK_PAGES);
    block_leaves(mm, z, block);
    zone_unlock(z);
    report->extents++;
    return MM_OK;
}

/* Give the free pages of a block that is not free as a whole. */
static mm_status_t give_pages(struct mm *mm, struct zone *z, struct page *p, unsigned order, const struct hotplug_ops *ops,
                              struct hotplug_report *report)
{
    for (uint32_t i = 0; i < 1u << order; i++) {
        if (ops->give(ops->ctx, page_pfn(p + i), 0) != MM_OK) {
            for (; i < 1u << order; i++) {
                unit_back(mm, z, p + i, 0);
            }
            return MM_EAGAIN;
        }
        zone_lock(z);
        pages_to_holes(mm, z, p + i, 1);
        zone_unlock(z);
        report->single_pages++;
    }
    return MM_OK;
}

static bool page_given(const struct page *p)
{
    uint32_t w = page_word(p);

    return word_state(w) == PAGE_HOLE && (word_flags(w) & PG_GIVEN);
}

/* Did the last page of a residual block go, after all the others? Then it is like a block that went as a whole (I2). */
static bool last_page_went(struct mm *mm, struct zone *z, uint32_t block)
{
    struct page *first = mm_block_page(mm, block);
    uint32_t given = 0;

    zone_lock(z);
    while (given < PAGEBLOCK_PAGES && page_given(first + given)) {
        given++;
    }
    if (given == PAGEBLOCK_PAGES && !others_isolate(mm_block(mm, block))) {
        for (uint32_t i = 1; i < PAGEBLOCK_PAGES; i++) {
            page_set_word(first + i, PAGE_WORD(PAGE_NONE, 0, 0, 0));
        }
        block_leaves(mm, z, block);
    }
    zone_unlock(z);
    return mm_block(mm, block)->offline;
}

/* Give what is free of an isolated block; it stays isolated unless it is gone. */
static mm_status_t give_block(struct mm *mm, uint32_t block, const struct hotplug_ops *ops, struct hotplug_report *report)
{
    struct zone *z = mm_block_zone(mm, block);
    mm_status_t status = MM_OK;
    unsigned order = 0;
    struct page *p;

    while (status == MM_OK && !mm_block(mm, block)->offline && (p = take_unit(mm, z, block, &order)) != NULL) {
        status = order == PAGEBLOCK_ORDER ? give_whole(mm, z, block, p, ops, report) : give_pages(mm, z, p, order, ops, report);
    }
    if (mm_block(mm, block)->offline || last_page_went(mm, z, block)) {
        return status;
    }
    zone_lock(z);
    if (status == MM_OK && others_isolate(mm_block(mm, block))) {
        status = MM_EAGAIN;
    } else if (status == MM_OK) {
        mm_block(mm, block)->flags |= PB_RESIDUAL;
    }
    zone_unlock(z);
    for (uint32_t i = 0; i < PAGEBLOCK_PAGES;) {
        uint32_t w = page_word(mm_block_page(mm, block) + i);
        bool held = state_in_use(word_state(w)) || word_state(w) == PAGE_RESERVED;
        uint32_t pages = word_state(w) == PAGE_NONE ? 1 : 1u << word_order(w);

        report->residual_pages += held ? pages : 0;
        i += pages;
    }
    report->residual_blocks++;
    return status;
}

/* Isolate the blocks of [start, end) that are still there; they need not be adjacent. */
static mm_status_t isolate_present(struct mm *mm, pfn_t start, pfn_t end, unsigned flags, struct page **blocking)
{
    for (uint32_t b = pfn_block(start); b < pfn_block(end); b++) {
        mm_status_t status = MM_OK;

        if (block_present(mm, b)) {
            status = isolate_range(mm, block_pfn(b), block_pfn(b + 1), flags & OFFLINE_RESIDUAL_OK ? ISOLATE_RESIDUAL : 0, blocking);
        }
        if (status != MM_OK) {
            while (b-- > pfn_block(start)) {
                if (block_present(mm, b) && isolate_undo(mm, block_pfn(b), block_pfn(b + 1)) != MM_OK) {
                    ASSERT(false);              /* it was isolated just now */
                }
            }
            return status;
        }
    }
    return MM_OK;
}

/* Reclaim so many pages, from whichever zone has them; returns how many came. */
static uint64_t reclaim_pages(struct mm *mm, uint64_t wanted)
{
    uint64_t total = 0, round = 1;

    while (mm->hooks.reclaim != NULL && total < wanted && round > 0) {
        round = 0;
        for (uint32_t i = 0; i < mm->zone_count && total + round < wanted; i++) {
            round += mm->hooks.reclaim(mm, &mm->zones[i], PAGEBLOCK_ORDER, GFP_HIGH_MOVABLE);
        }
        total += round;
    }
    return total;
}

static mm_status_t evacuate_present(struct mm *mm, pfn_t start, pfn_t end, struct hotplug_report *report)
{
    mm_status_t status = MM_OK;

    for (unsigned tries = 0; tries < EVACUATE_TRIES; tries++) {
        uint64_t failed = 0;

        status = MM_OK;
        for (uint32_t b = pfn_block(start); b < pfn_block(end); b++) {
            struct compact_result r = { .blocks_made = 0 };

            if (block_present(mm, b) && evacuate_range(mm, block_pfn(b), block_pfn(b + 1), &r) != MM_OK) {
                status = MM_EAGAIN;
            }
            report->migrated_pages += r.migrated_pages;
            failed += r.failed_pages;
        }
        /* Room for all that is left, and a little for those who allocate meanwhile. */
        if (status == MM_OK || reclaim_pages(mm, failed + failed / 8) == 0) {
            break;
        }
    }
    return status;
}

static bool range_ok(const struct mm *mm, pfn_t start, pfn_t end)
{
    return start.n < end.n && end.n <= mm->end_pfn && ((start.n | end.n) & (PAGEBLOCK_PAGES - 1)) == 0;
}

/* I4: of the sections of a range that has left, or that has not come back after all. */
static void drop_memmaps(struct mm *mm, pfn_t start, pfn_t end, struct hotplug_report *report)
{
    for (uint64_t s = start.n >> SECTION_SHIFT; s <= (end.n - 1) >> SECTION_SHIFT; s++) {
        report->memmap_pages += memmap_known(mm, (uint32_t)s * SECTION_BLOCKS) ? memmap_leave(mm, (uint32_t)s) : 0;
    }
}

/* pre: hotplug_lock */
static mm_status_t offline_locked(struct mm *mm, pfn_t start, pfn_t end, unsigned flags, const struct hotplug_ops *ops,
                                  struct hotplug_report *report, struct page **blocking)
{
    mm_status_t status;

    for (uint32_t b = pfn_block(start); b < pfn_block(end); b++) {
        if (!memmap_known(mm, b)) {
            return MM_EINVAL;
        }
    }
    status = isolate_present(mm, start, end, flags, blocking);
    if (status != MM_OK) {
        return status;
    }
    status = evacuate_present(mm, start, end, report);
    for (uint32_t b = pfn_block(start); b < pfn_block(end) && status == MM_OK; b++) {
        status = block_present(mm, b) ? give_block(mm, b, ops, report) : MM_OK;
    }
    /* A block that an earlier call left residual was isolated before: one request for each block is enough. And after
     * a failure nothing of what is left stays isolated but what was residual before. */
    for (uint32_t b = pfn_block(start); b < pfn_block(end); b++) {
        bool keep = status == MM_OK && mm_block(mm, b)->isolations == 1;

        if (block_present(mm, b) && !keep && isolate_undo(mm, block_pfn(b), block_pfn(b + 1)) != MM_OK) {
            ASSERT(false);
        }
    }
    drop_memmaps(mm, start, end, report);
    mm_setup_watermarks(mm);
    return status;
}

mm_status_t memory_offline(struct mm *mm, pfn_t start, pfn_t end, unsigned flags, const struct hotplug_ops *ops,
                           struct hotplug_report *report, struct page **blocking)
{
    mm_status_t status;

    *report = (struct hotplug_report){ .extents = 0 };
    if (!range_ok(mm, start, end)) {
        return MM_EINVAL;
    }
    spin_lock(&mm->hotplug_lock);
    status = offline_locked(mm, start, end, flags, ops, report, blocking);
    spin_unlock(&mm->hotplug_lock);
    return status;
}

/* Take blocks that are free as a whole off their lists, from the one before end downwards; how many. pre: zone lock */
static uint32_t unlink_whole(struct mm *mm, struct zone *z, uint32_t end, uint32_t most)
{
    uint32_t n = 0;

    for (uint32_t b = end - 1; n < most; b--) {
        struct pageblock *pb = mm_block(mm, b);

        if (pb->offline || pb->zone != z->id || pb->order_mask != 1u << PAGEBLOCK_ORDER || pageblock_type(mm, b) != MIGRATE_MOVABLE) {
            break;
        }
        pageblock_unlink(mm, z, mm_block_page(mm, b), PAGEBLOCK_ORDER);
        pb->flags |= PB_LEAVING;
        n++;
        if (b % SECTION_BLOCKS == 0) {
            break;
        }
    }
    return n;
}

/* Blocks [first, first + n) are on no list. */
static mm_status_t give_wholes(struct mm *mm, struct zone *z, uint32_t first, uint32_t n, const struct hotplug_ops *ops, struct hotplug_report *report)
{
    uint32_t gone = 0;

    if (ops->give_blocks != NULL) {
        gone = ops->give_blocks(ops->ctx, block_pfn(first), n);
    } else {
        while (gone < n && ops->give(ops->ctx, block_pfn(first + gone), PAGEBLOCK_ORDER) == MM_OK) {
            gone++;
        }
    }
    zone_lock(z);
    for (uint32_t b = first; b < first + n; b++) {
        if (b < first + gone) {
            pages_to_holes(mm, z, mm_block_page(mm, b), PAGEBLOCK_PAGES);
            block_leaves(mm, z, b);
        } else {
            whole_back(mm, z, mm_block_page(mm, b));
        }
    }
    zone_unlock(z);
    report->extents += gone;
    return gone == n ? MM_OK : MM_EAGAIN;
}

mm_status_t memory_offline_free(struct mm *mm, uint32_t end, uint32_t most, const struct hotplug_ops *ops, struct hotplug_report *report)
{
    struct zone *z = mm_block_zone(mm, end - 1);
    mm_status_t status = MM_EBUSY;
    uint32_t n;

    spin_lock(&mm->hotplug_lock);
    zone_lock(z);
    n = unlink_whole(mm, z, end, most < HOTPLUG_BLOCKS ? most : HOTPLUG_BLOCKS);
    zone_unlock(z);
    if (n > 0) {
        status = give_wholes(mm, z, end - n, n, ops, report);
        drop_memmaps(mm, block_pfn(end - n), block_pfn(end), report);
    }
    spin_unlock(&mm->hotplug_lock);
    return status;
}

/* ---- and back ---- */

/* Give a unit that has frames again to the allocator: one page, or a whole block. pre: zone lock */
static void unit_returns(struct mm *mm, struct zone *z, struct page *p, unsigned order)
{
    struct pageblock *pb = mm_block(mm, page_block(p));

    z->managed_pages += 1ull << order;
    z->present_pages += 1ull << order;
    pb->reserved_pages = (uint16_t)(pb->reserved_pages - (1u << order));
    page_set_word(p, PAGE_WORD(PAGE_NONE, 0, 0, 0));
    buddy_free(mm, z, p, order);
}

static mm_status_t online_whole(struct mm *mm, struct zone *z, uint32_t block, const struct hotplug_ops *ops, struct hotplug_report *report)
{
    struct page *first = mm_block_page(mm, block);

    if (ops->take(ops->ctx, block_pfn(block), PAGEBLOCK_ORDER) != MM_OK) {
        return MM_EAGAIN;
    }
    zone_lock(z);
    mm_block(mm, block)->offline = 0;
    mm_block(mm, block)->given = 0;
    z->blocks_of[MIGRATE_MOVABLE]++;
    unit_returns(mm, z, first, PAGEBLOCK_ORDER);
    zone_unlock(z);
    report->extents++;
    return MM_OK;
}

static mm_status_t online_residual(struct mm *mm, struct zone *z, uint32_t block, const struct hotplug_ops *ops, struct hotplug_report *report)
{
    struct page *first = mm_block_page(mm, block);

    for (uint32_t i = 0; i < PAGEBLOCK_PAGES; i++) {
        if (!page_given(first + i)) {
            continue;
        }
        if (ops->take(ops->ctx, page_pfn(first + i), 0) != MM_OK) {
            return MM_EAGAIN;
        }
        zone_lock(z);
        unit_returns(mm, z, first + i, 0);
        zone_unlock(z);
        report->single_pages++;
    }
    /* After an offline that failed half-way there may be given pages in a block that is in use. */
    return mm_block(mm, block)->flags & PB_RESIDUAL ? isolate_undo(mm, block_pfn(block), block_pfn(block + 1)) : MM_OK;
}

/* Is the block here, and may something of it be gone? */
static bool block_in_part(struct mm *mm, uint32_t block)
{
    const struct pageblock *pb = mm_block(mm, block);
    struct zone *z = mm_block_zone(mm, block);
    bool part;

    zone_lock(z);
    part = !pb->offline && (pb->reserved_pages != 0 || pb->flags & PB_RESIDUAL);
    zone_unlock(z);
    return part;
}

/* A block that left: the struct pages of its section first, if these left too. */
static mm_status_t online_given(struct mm *mm, uint32_t block, const struct hotplug_ops *ops, struct hotplug_report *report)
{
    mm_status_t status = MM_OK;

    if (!mm_pfn_valid(mm, block_pfn(block))) {
        status = memmap_return(mm, block / SECTION_BLOCKS);
        report->memmap_pages += status == MM_OK ? MEMMAP_PAGES : 0;
    }
    return status == MM_OK ? online_whole(mm, mm_block_zone(mm, block), block, ops, report) : status;
}

mm_status_t memory_online(struct mm *mm, pfn_t start, pfn_t end, const struct hotplug_ops *ops, struct hotplug_report *report)
{
    struct hotplug_report dropped = { .extents = 0 };
    mm_status_t status = MM_OK;

    *report = (struct hotplug_report){ .extents = 0 };
    if (!range_ok(mm, start, end)) {
        return MM_EINVAL;
    }
    spin_lock(&mm->hotplug_lock);
    for (uint32_t b = pfn_block(start); b < pfn_block(end) && status == MM_OK; b++) {
        if (!memmap_known(mm, b)) {
            continue;
        }
        if (mm_block(mm, b)->given) {
            status = online_given(mm, b, ops, report);
        } else if (block_in_part(mm, b)) {
            /* Of a residual block that was full nothing was given: it is only isolated. */
            status = online_residual(mm, mm_block_zone(mm, b), b, ops, report);
        }
    }
    drop_memmaps(mm, start, end, &dropped);             /* take() said no at once */
    report->memmap_pages -= dropped.memmap_pages;
    mm_setup_watermarks(mm);
    spin_unlock(&mm->hotplug_lock);
    return status;
}
