/*
 * compact_fixture.c - aged memory for the tests of compaction.
 *
 * Owns: nothing.
 * Invariants: none of its own.
 * Lock order: none; nobody else runs while figures are taken.
 * Why: the figures are computed from the pages themselves, not from the allocator's counters.
 * Cost: a pass over the memmap.
 */
#include "compact_fixture.h"
#include "isolation.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

void compact_setup(struct fixture *f, struct owners *o, uint64_t pages, enum claim_policy policy, uint64_t seed)
{
    struct mm_range ram = { pfn_make(0), pfn_make(pages), 0 };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .cpus = 1, .policy = policy };

    fixture_init_config(f, &config, 0);
    assert_int_equal(compaction_init(&f->mm, &config), MM_OK);
    owners_init(o, &f->mm, (uint32_t)pages, seed);
}

void compact_teardown(struct fixture *f, struct owners *o)
{
    owners_free(o);
    fixture_free(f);
}

void compact_age(struct owners *o, unsigned free_percent, unsigned largest_order, struct rng *r)
{
    uint64_t total = o->mm->zones[0].managed_pages;

    while (owners_alloc(o, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, (unsigned)rng_below(r, largest_order + 1)) != NULL) {
    }
    while (owners_alloc(o, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0) != NULL) {
    }
    while (mm_free_pages(o->mm) < total * free_percent / 100) {
        owners_put(o, (uint32_t)rng_below(r, o->count));
    }
    mm_drain(o->mm);
}

static int by_number(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

uint64_t compact_least_moves(const struct mm *mm, uint64_t blocks)
{
    static uint32_t used[4096];
    uint32_t n = 0;
    uint64_t sum = 0;

    for (uint32_t b = 0; b < mm->end_pfn >> PAGEBLOCK_ORDER; b++) {
        if (mm_block(mm, b)->free_pages != PAGEBLOCK_PAGES && block_immovable_page(mm, b) == NULL) {
            used[n++] = PAGEBLOCK_PAGES - mm_block(mm, b)->free_pages;
        }
    }
    qsort(used, n, sizeof(used[0]), by_number);
    for (uint32_t i = 0; i < blocks && i < n; i++) {
        sum += used[i];
    }
    return sum;
}

uint64_t compact_whole_blocks(const struct mm *mm)
{
    return mm->zones[0].free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE];
}

uint64_t compact_kernel_blocks(const struct mm *mm, uint64_t *mixed)
{
    uint64_t blocks = 0;

    *mixed = 0;
    for (uint32_t b = 0; b < mm->end_pfn >> PAGEBLOCK_ORDER; b++) {
        const struct page *first = mm_block_page(mm, b);
        bool movable = false, kernel = false;

        for (uint32_t i = 0; i < PAGEBLOCK_PAGES; i++) {
            if (page_state(first + i) == PAGE_USED) {
                movable |= page_type(first + i) == MIGRATE_MOVABLE;
                kernel |= page_type(first + i) != MIGRATE_MOVABLE;
            }
        }
        blocks += kernel;
        *mixed += kernel && movable;
    }
    return blocks;
}
