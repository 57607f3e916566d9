/*
 * shrink.c - memory of the guest given to the machine, as much as is asked for, and taken again.
 *
 * Layer: L5
 * Owns: the order in which blocks go and come back.
 * Invariants:
 *   I1  a call can stop after any block: what is gone is whole, and calling again goes on from there.
 *   I2  never more than was asked for; single pages go only where a whole block was wanted and none can go.
 *   I3  what is free above the high watermarks is given, never what is below, nor the 2 MiB with which a section that left could return.
 * Lock order: none of its own (hotplug.c, isolation.c, compaction.c, reclaim.c).
 * Why sections first: their struct pages can go with them.  Why the highest first: kernel pages live low, so high blocks
 *   hold what can move, and the machine gets extents that lie together.  What comes back fills sections that are here before it
 *   begins one that is not: that costs 2 MiB of struct pages.
 * Cost: a free block is one call of give(); the others as hotplug.c says.  Each pass looks once at each block's record.
 */
#include "shrink.h"
#include "isolation.h"
#include "lru.h"
#include "memmap.h"
#include "pageblock.h"
#include "swap.h"
#include "frameshift/assert.h"

#define RECLAIM_TRIES 8u

/* Then some memory is kept for the struct pages with which one comes back: a guest that gave all it could must be able to take it again. */
static bool any_section_gone(const struct mm *mm)
{
    for (uint32_t s = 0; s < mm->section_count; s++) {
        if (memmap_known(mm, s * SECTION_BLOCKS) && !mm_pfn_valid(mm, block_pfn(s * SECTION_BLOCKS))) {
            return true;
        }
    }
    return false;
}

static uint64_t least_free(const struct mm *mm)
{
    uint64_t pages = 0;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        pages += mm->zones[i].watermark[WMARK_HIGH];
    }
    return pages + (any_section_gone(mm) ? MEMMAP_PAGES : 0);
}

uint64_t shrink_possible(const struct mm *mm)
{
    uint64_t pages = mm_free_pages(mm), keep = least_free(mm);

    if (mm->vm != NULL && mm->vm->lru != NULL && mm->hooks.reclaim != NULL) {
        uint64_t anon = lru_pages_all(mm->vm->lru, LRU_INACTIVE_ANON) + lru_pages_all(mm->vm->lru, LRU_ACTIVE_ANON);
        uint64_t slots = mm->vm->swap != NULL ? swap_free_slots(mm->vm->swap) : 0;

        pages += lru_pages_all(mm->vm->lru, LRU_INACTIVE_FILE) + lru_pages_all(mm->vm->lru, LRU_ACTIVE_FILE) + (anon < slots ? anon : slots);
    }
    return pages > keep ? pages - keep : 0;
}

/* I3: is there so much to spare, if need be after some reclaim? */
static bool make_spare(struct mm *mm, uint64_t pages)
{
    for (unsigned i = 0; i < RECLAIM_TRIES && mm_free_pages(mm) < least_free(mm) + pages; i++) {
        uint64_t got = 0;

        for (uint32_t z = 0; mm->hooks.reclaim != NULL && z < mm->zone_count; z++) {
            got += mm->hooks.reclaim(mm, &mm->zones[z], 0, GFP_HIGH_MOVABLE);
        }
        if (got == 0) {
            break;
        }
    }
    return mm_free_pages(mm) >= least_free(mm) + pages;
}

/* ---- away ---- */

static bool section_present(const struct mm *mm, uint32_t section)
{
    return mm_pfn_valid(mm, block_pfn(section * SECTION_BLOCKS));
}

static bool block_here(const struct mm *mm, uint32_t b)
{
    return mm_pfn_valid(mm, block_pfn(b)) && !mm_block(mm, b)->offline;
}

/* A guess: nothing of the section's blocks is boot memory, given in part, or of a kernel type. */
static bool section_may_empty(const struct mm *mm, uint32_t section)
{
    for (uint32_t i = 0; i < SECTION_BLOCKS; i++) {
        const struct pageblock *pb = &mm->sections[section].blocks[i];
        enum migratetype type = (enum migratetype)atomic_load_explicit(&pb->type, memory_order_relaxed);

        if (!pb->offline && (pb->reserved_pages != 0 || pb->flags & PB_RESIDUAL || migratetype_is_kernel(type))) {
            return false;
        }
    }
    return true;
}

static bool section_given(const struct mm *mm, uint32_t section)
{
    for (uint32_t i = 0; i < SECTION_BLOCKS; i++) {
        if (!mm->sections[section].blocks[i].offline) {
            return false;
        }
    }
    return true;
}

static uint64_t report_pages(const struct hotplug_report *r)
{
    return r->extents * PAGEBLOCK_PAGES + r->single_pages;
}

static void add_report(struct shrink_result *out, const struct hotplug_report *r)
{
    out->pages += report_pages(r);
    out->blocks += r->extents;
    out->single_pages += r->single_pages;
    out->migrated_pages += r->migrated_pages;
    out->memmap_pages += r->memmap_pages;
    out->residual_blocks += r->residual_blocks;
}

/* Of so many blocks, how many can be spared as memory is? At least one: that was made sure of. */
static uint32_t spare_blocks(const struct mm *mm, uint32_t blocks)
{
    uint64_t free = mm_free_pages(mm), keep = least_free(mm), spare = free > keep ? (free - keep) / PAGEBLOCK_PAGES : 0;

    return spare < 1 ? 1 : spare < blocks ? (uint32_t)spare : blocks;
}

/* The block, and with it those before it that are free as a whole, at most most; *n: so many were dealt with. False: there is no memory to spare. */
static bool give_some(struct mm *mm, uint32_t b, uint32_t most, const struct hotplug_ops *ops, struct shrink_result *out, uint32_t *n)
{
    struct hotplug_report report = { 0 };
    struct page *blocking = NULL;

    *n = 1;
    if (!block_here(mm, b) || mm_block(mm, b)->reserved_pages != 0 || mm_block(mm, b)->flags & PB_RESIDUAL) {
        return true;
    }
    if (!make_spare(mm, PAGEBLOCK_PAGES)) {
        out->low = true;
        return false;
    }
    if (memory_offline_free(mm, b + 1, spare_blocks(mm, most), ops, &report) == MM_EBUSY && mm->migrate.move != NULL && block_immovable_page(mm, b) == NULL
        && memory_offline(mm, block_pfn(b), block_pfn(b + 1), 0, ops, &report, &blocking) != MM_OK) {
        /* what it gave before it failed is given */
    }
    add_report(out, &report);
    if (report.extents > 0) {
        *n = (uint32_t)report.extents;
        out->sections += section_given(mm, b / SECTION_BLOCKS);
    }
    return true;
}

static void give_wholes(struct mm *mm, uint64_t want, bool sections, const struct hotplug_ops *ops, struct shrink_result *out)
{
    for (uint32_t s = mm->section_count; s-- > 0;) {
        if (!section_present(mm, s) || (sections && !section_may_empty(mm, s))) {
            continue;
        }
        for (uint32_t i = SECTION_BLOCKS, n = 1; i > 0; i -= n) {
            uint64_t most = want > out->pages ? (want - out->pages) / PAGEBLOCK_PAGES : 0;      /* I2 */

            if (most == 0 || !give_some(mm, s * SECTION_BLOCKS + i - 1, (uint32_t)(most < i ? most : i), ops, out, &n)) {
                return;
            }
        }
    }
}

static enum shrink_stays why_it_stays(uint32_t w)
{
    if (word_state(w) == PAGE_RESERVED) {
        return SHRINK_STAYS_boot;
    }
    if (word_flags(w) & PG_DMA) {
        return SHRINK_STAYS_dma;
    }
    if (word_flags(w) & PG_TABLE) {
        return SHRINK_STAYS_table;
    }
    return word_type(w) == MIGRATE_MOVABLE ? SHRINK_STAYS_busy : SHRINK_STAYS_kernel;
}

/* stays may be NULL. The pages of the block that are in use. */
static uint64_t count_used(struct mm *mm, uint32_t b, bool movable_too, uint64_t stays[SHRINK_STAYS])
{
    unsigned walk = mm_walk_begin(mm);
    uint64_t used = 0;

    for (uint32_t i = 0; i < PAGEBLOCK_PAGES && block_here(mm, b);) {
        const struct page *p = mm_block_page(mm, b) + i;
        uint32_t w = page_word(p), n = word_state(w) == PAGE_NONE ? 1 : 1u << word_order(w);
        bool in_use = state_in_use(word_state(w)) || word_state(w) == PAGE_RESERVED;

        n = n > PAGEBLOCK_PAGES - i ? PAGEBLOCK_PAGES - i : n;
        if (in_use && (movable_too || !page_may_move(p))) {
            used += n;
            if (stays != NULL) {
                stays[why_it_stays(w)] += n;
            }
        }
        i += n;
    }
    mm_walk_end(mm, walk);
    return used;
}

/* What lies around pages that cannot move. */
static void give_around(struct mm *mm, uint64_t want, const struct hotplug_ops *ops, struct shrink_result *out)
{
    for (uint32_t b = (uint32_t)(mm->end_pfn / PAGEBLOCK_PAGES); b-- > 0 && out->pages < want && !out->low;) {
        struct hotplug_report report = { 0 };
        struct page *blocking = NULL;
        uint64_t pages;

        if (!block_here(mm, b) || mm_block(mm, b)->reserved_pages != 0 || mm_block(mm, b)->flags & PB_RESIDUAL || mm->migrate.move == NULL) {
            continue;
        }
        pages = PAGEBLOCK_PAGES - count_used(mm, b, false, NULL);
        if (pages == 0 || pages > want - out->pages) {                      /* I2 */
            continue;
        }
        if (!make_spare(mm, pages)) {
            out->low = true;
            return;
        }
        if (memory_offline(mm, block_pfn(b), block_pfn(b + 1), OFFLINE_RESIDUAL_OK, ops, &report, &blocking) != MM_OK) {
            /* as above */
        }
        add_report(out, &report);
        if (report.residual_blocks > 0) {
            (void)count_used(mm, b, true, out->stays);
        }
    }
}

void shrink_pages(struct mm *mm, uint64_t want, const struct hotplug_ops *ops, struct shrink_result *out)
{
    uint64_t extents = ops->machine_extents != NULL ? *ops->machine_extents : 0;

    *out = (struct shrink_result){ 0 };
    give_wholes(mm, want, true, ops, out);
    if (!out->low) {
        give_wholes(mm, want, false, ops, out);
    }
    if (!out->low && out->pages == 0 && want >= PAGEBLOCK_PAGES) {           /* I2 */
        give_around(mm, want, ops, out);
    }
    mm_setup_watermarks(mm);
    out->machine_extents = ops->machine_extents != NULL ? *ops->machine_extents - extents : 0;
}

/* ---- and back ---- */

static bool block_given(const struct mm *mm, uint32_t b)
{
    return memmap_known(mm, b) && mm_block(mm, b)->given;
}

static uint64_t given_in_part(struct mm *mm, uint32_t b)
{
    unsigned walk = mm_walk_begin(mm);
    uint64_t pages = 0;

    for (uint32_t i = 0; i < PAGEBLOCK_PAGES && block_here(mm, b) && mm_block(mm, b)->reserved_pages != 0; i++) {
        uint32_t w = page_word(mm_block_page(mm, b) + i);

        pages += word_state(w) == PAGE_HOLE && (word_flags(w) & PG_GIVEN) != 0;
    }
    mm_walk_end(mm, walk);
    return pages;
}

/* Of the sections that have their struct pages, or of those that have not. */
static mm_status_t take_blocks(struct mm *mm, uint64_t want, bool present, const struct hotplug_ops *ops, struct shrink_result *out)
{
    uint32_t blocks = (uint32_t)(mm->end_pfn / PAGEBLOCK_PAGES), n = 1;
    mm_status_t status = MM_OK;

    for (uint32_t b = 0; b < blocks && out->pages < want && status == MM_OK; b += n) {
        struct hotplug_report report = { 0 };
        uint64_t left = want - out->pages, part;

        if (section_present(mm, b / SECTION_BLOCKS) != present) {
            n = SECTION_BLOCKS - b % SECTION_BLOCKS;
            continue;
        }
        for (n = 0; b + n < blocks && block_given(mm, b + n) && left >= (n + 1ull) * PAGEBLOCK_PAGES && (b + n) / SECTION_BLOCKS == b / SECTION_BLOCKS; n++) {
        }
        part = n == 0 ? given_in_part(mm, b) : 0;
        if (n > 0 || (part > 0 && part <= left)) {
            bool was_gone = n > 0 && section_given(mm, b / SECTION_BLOCKS);

            n = n > 0 ? n : 1;
            status = memory_online(mm, block_pfn(b), block_pfn(b + n), ops, &report);
            add_report(out, &report);
            out->sections += was_gone && report.extents > 0;
        }
        n = n > 0 ? n : 1;
    }
    return status;
}

void grow_pages(struct mm *mm, uint64_t want, const struct hotplug_ops *ops, struct shrink_result *out)
{
    *out = (struct shrink_result){ 0 };
    if (take_blocks(mm, want, true, ops, out) == MM_OK) {
        out->low = take_blocks(mm, want, false, ops, out) == MM_ENOMEM;
    }
}
