/*
 * figures.c - block contents and free memory, recomputed from the memmap.
 *
 * Owns: nothing.
 * Invariants: I1  every figure comes from the pages themselves, none from the allocator's counters.
 * Lock order: none; nobody allocates meanwhile.
 * Why: an allocator must not be its own witness.
 * Cost: one pass over the memmap.
 */
#include "figures.h"
#include "pageblock.h"

struct content { uint32_t type[MIGRATE_PCP_TYPES], boot, hole, free; };

static void count_block(const struct mm *mm, uint32_t block, struct content *c)
{
    const struct page *first = mm_block_page(mm, block);
    uint32_t i = 0;

    if (block % 2 != 0 && page_state(first) == PAGE_NONE && !page_is_free(mm, first)) {
        c->type[page_type(mm_block_page(mm, block - 1))] = PAGEBLOCK_PAGES;     /* second half of a unit of MAX_ORDER */
        return;
    }
    while (i < PAGEBLOCK_PAGES) {
        const struct page *p = first + i;
        uint32_t pages = page_order(p) > PAGEBLOCK_ORDER ? PAGEBLOCK_PAGES : 1u << page_order(p);

        switch (page_state(p)) {
        case PAGE_USED:
        case PAGE_FROZEN:
            c->type[page_type(p)] += pages;
            break;
        case PAGE_RESERVED:
            c->boot += pages;
            break;
        case PAGE_HOLE:
            c->hole += pages;
            break;
        default:
            c->free += pages;
            break;
        }
        i += pages;
    }
}

static void sort_block(const struct content *c, struct block_figures *f)
{
    uint64_t unmovable = c->type[MIGRATE_UNMOVABLE] + c->type[MIGRATE_ACCOUNTED], movable = c->type[MIGRATE_MOVABLE];
    uint64_t reclaimable = c->type[MIGRATE_RECLAIMABLE];
    uint64_t fixed = unmovable + reclaimable + c->boot;

    f->live_unmovable += unmovable;
    f->live_movable += movable;
    f->live_reclaimable += reclaimable;
    f->live_boot += c->boot;
    f->with_boot += c->boot != 0;
    f->with_non_movable += fixed != 0;
    f->kernel_blocks_free += fixed != 0 ? c->free : 0;
    if (fixed == 0 && movable == 0) {
        f->empty++;
    } else if (fixed == 0) {
        f->movable_only++;
    } else if (movable != 0) {
        f->polluted++;
        f->polluted_boot += c->boot != 0;
    } else if (reclaimable != 0 && unmovable == 0 && c->boot == 0) {
        f->reclaimable_only++;
    } else if (reclaimable != 0) {
        f->kernel_mixed++;
    } else {
        f->unmovable_only++;
    }
}

void figures_blocks(const struct mm *mm, struct block_figures *f)
{
    uint64_t room = 0, kernel;

    *f = (struct block_figures){ .empty = 0 };
    for (uint32_t b = 0; b < mm->end_pfn >> PAGEBLOCK_ORDER; b++) {
        struct content c = { .boot = 0 };

        if (mm_pfn_valid(mm, block_pfn(b))) {
            count_block(mm, b, &c);
            sort_block(&c, f);
            room += c.boot != 0 ? PAGEBLOCK_PAGES - c.boot - c.hole : 0;
        }
    }
    kernel = f->live_unmovable + f->live_reclaimable;
    f->needed_if_packed = (kernel + f->live_boot + PAGEBLOCK_PAGES - 1) / PAGEBLOCK_PAGES;
    f->best_possible = f->with_boot + (kernel > room ? (kernel - room + PAGEBLOCK_PAGES - 1) / PAGEBLOCK_PAGES : 0);
}

static void free_units(const struct mm *mm, uint32_t block, struct free_figures *f)
{
    const struct page *first = mm_block_page(mm, block);
    enum migratetype type = (enum migratetype)mm_block(mm, block)->type;

    for (uint32_t i = 0; i < PAGEBLOCK_PAGES;) {
        uint32_t pages = 1;

        if (page_is_free(mm, first + i)) {
            unsigned order = page_free_order(mm, first + i);

            pages = 1u << order;
            f->per_order[order][type]++;
            f->free_pages += pages;
        }
        i += pages;
    }
}

/* Two free blocks side by side are what the baseline counts as one unit of order 10. */
static void pair_up(const struct mm *mm, struct free_figures *f)
{
    for (uint32_t b = 0; b + 1 < mm->end_pfn >> PAGEBLOCK_ORDER; b += 2) {
        if (mm_pfn_valid(mm, block_pfn(b)) && mm_pfn_valid(mm, block_pfn(b + 1)) && mm_block(mm, b)->free_pages == PAGEBLOCK_PAGES
            && mm_block(mm, b + 1)->free_pages == PAGEBLOCK_PAGES && mm_block(mm, b)->type == mm_block(mm, b + 1)->type) {
            f->per_order[PAGEBLOCK_ORDER][mm_block(mm, b)->type] -= 2;
            f->per_order[MAX_ORDER][mm_block(mm, b)->type]++;
        }
    }
}

void figures_free(const struct mm *mm, struct free_figures *f)
{
    uint64_t units[MAX_ORDER + 1] = { 0 }, total = 0, suitable = 0;

    *f = (struct free_figures){ .free_pages = 0 };
    for (uint32_t b = 0; b < mm->end_pfn >> PAGEBLOCK_ORDER; b++) {
        if (mm_pfn_valid(mm, block_pfn(b))) {
            free_units(mm, b, f);
        }
    }
    pair_up(mm, f);
    for (unsigned o = 0; o <= MAX_ORDER; o++) {
        for (unsigned t = 0; t < MIGRATE_TYPES; t++) {
            units[o] += f->per_order[o][t];
        }
        total += units[o];
        f->free_huge += o >= PAGEBLOCK_ORDER ? units[o] << o : 0;
    }
    for (unsigned o = MAX_ORDER + 1; o-- > 0;) {
        suitable += units[o] << o;
        f->unusable[o] = f->free_pages != 0 ? 1.0 - (double)suitable / (double)f->free_pages : 1.0;
    }
    if (f->free_huge != 0 || total == 0) {
        f->extfrag_huge = f->free_huge != 0 ? -1.0 : 0.0;
    } else {
        f->extfrag_huge = 1.0 - (1.0 + (double)f->free_pages / PAGEBLOCK_PAGES) / (double)total;
    }
}
