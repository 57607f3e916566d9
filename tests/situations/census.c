/*
 * census.c - what is where, recounted from the memmap.
 *
 * Owns: nothing.
 * Invariants: I1  nothing is taken from a counter or a free list of the allocator: each figure is the sum over page states.
 * Lock order: none; nobody allocates meanwhile.
 * Why: an allocator must not be its own witness.
 * Cost: one pass over the heads of units.
 */
#include "census.h"
#include "../../guest/mm/isolation.h"

const char *stays_name(enum stays why)
{
    static const char *const names[] = {
#define X(name, text) #name,
        STAYS_LIST(X)
#undef X
    };
    return (unsigned)why < STAYS_REASONS ? names[why] : "bad";
}

const char *stays_text(enum stays why)
{
    static const char *const texts[] = {
#define X(name, text) text,
        STAYS_LIST(X)
#undef X
    };
    return (unsigned)why < STAYS_REASONS ? texts[why] : "bad";
}

/* The allocator's word for a page's type is not enough where every request says it is movable (site.h: alike): who can move has a mapping, or
 * waits on a list of reclaim, or in the pool of huge pages. */
static bool can_leave(const struct page *p)
{
    return page_may_move(p) && !page_test(p, PG_SLAB | PG_TABLE)
           && (page_test(p, PG_LRU | PG_ANON | PG_SWAPCACHE | PG_ISOLATED | PG_HUGE) || p->mapping != NULL);
}

static enum stays reason(const struct page *p)
{
    if (page_state(p) == PAGE_RESERVED) {
        return STAYS_BOOT;
    }
    if (page_test(p, PG_DMA)) {
        return STAYS_DMA;
    }
    if (page_test(p, PG_PINNED)) {
        return page_order(p) >= PAGEBLOCK_ORDER ? STAYS_HUGE : STAYS_PINNED;
    }
    if (page_test(p, PG_SLAB)) {
        return STAYS_SLAB;
    }
    if (page_test(p, PG_TABLE)) {
        return STAYS_TABLE;
    }
    return page_type(p) == MIGRATE_ACCOUNTED ? STAYS_PROCESS : STAYS_KERNEL;
}

static void census_block(const struct mm *mm, uint32_t block, struct census *c)
{
    const struct page *first = mm_block_page(mm, block);
    uint64_t fixed = c->fixed, movable = c->movable, free = c->free, boot = c->stays[STAYS_BOOT], pages = 0;
    uint64_t pinned = c->stays[STAYS_HUGE] + c->stays[STAYS_PINNED], before[STAYS_REASONS];

    for (unsigned k = 0; k < STAYS_REASONS; k++) {
        before[k] = c->stays[k];
    }
    if (mm_block(mm, block)->offline) {
        c->absent += PAGEBLOCK_PAGES;
        return;
    }
    for (uint32_t i = 0; i < PAGEBLOCK_PAGES; i += (uint32_t)pages) {
        const struct page *p = first + i;

        /* A block that is the second half of a unit has no head of its own. */
        if (page_state(p) == PAGE_NONE && i == 0 && block % 2 != 0 && mm_pfn_valid(mm, block_pfn(block - 1))
            && page_state(p - PAGEBLOCK_PAGES) != PAGE_NONE && page_order(p - PAGEBLOCK_PAGES) > PAGEBLOCK_ORDER) {
            p -= PAGEBLOCK_PAGES;
        }
        pages = page_state(p) == PAGE_NONE ? 1 : 1ull << page_order(p);
        pages = pages < PAGEBLOCK_PAGES - i ? pages : PAGEBLOCK_PAGES - i;
        if (page_state(p) == PAGE_HOLE) {
            c->absent += pages;
        } else if (!state_in_use(page_state(p)) && page_state(p) != PAGE_RESERVED) {
            c->free += pages;
        } else if (can_leave(p)) {
            c->movable += pages;
        } else {
            c->fixed += pages;
            c->stays[reason(p)] += pages;
        }
    }
    c->blocks++;
    c->whole += c->free - free == PAGEBLOCK_PAGES;
    c->with_fixed += c->fixed > fixed;
    pinned = c->stays[STAYS_HUGE] + c->stays[STAYS_PINNED] - pinned;
    if (c->movable > movable && c->stays[STAYS_BOOT] == boot && c->fixed - fixed > pinned) {
        /* Movable pages that were lent room in a kernel block are written down there, and sent home when the room is wanted. */
        bool loan = mm_block(mm, block)->flags & PB_TENANTS && migratetype_is_kernel((enum migratetype)mm_block(mm, block)->type);

        c->loans += loan;
        if (!loan && c->polluted < CENSUS_NAMED) {
            struct mixed_block *m = &c->mixed[c->polluted];

            *m = (struct mixed_block){ .block = block, .type = mm_block(mm, block)->type, .flags = mm_block(mm, block)->flags,
                                       .movable = c->movable - movable, .free = c->free - free };
            for (unsigned k = 0; k < STAYS_REASONS; k++) {
                m->stays[k] = c->stays[k] - before[k];
            }
        }
        c->polluted += !loan;
    }
}

static void add_range(const struct mm *mm, uint64_t start, uint64_t end, struct census *out)
{
    for (uint32_t b = (uint32_t)(start >> PAGEBLOCK_ORDER); b < end >> PAGEBLOCK_ORDER; b++) {
        if (mm_pfn_valid(mm, block_pfn(b))) {
            census_block(mm, b, out);
        }
    }
    out->pages = out->free + out->absent + out->movable + out->fixed;
    out->packed = (out->fixed + PAGEBLOCK_PAGES - 1) / PAGEBLOCK_PAGES;
}

void census_range(const struct mm *mm, uint64_t start, uint64_t end, struct census *out)
{
    *out = (struct census){ .pages = 0 };
    add_range(mm, start, end, out);
}

void node_span(const struct mm *mm, uint32_t node, uint64_t *start, uint64_t *end)
{
    *start = UINT64_MAX;
    *end = 0;
    for (uint32_t i = 0; i < mm->zone_count; i++) {
        const struct zone *z = &mm->zones[i];

        if (z->node == node) {
            *start = block_pfn(z->first_block).n < *start ? block_pfn(z->first_block).n : *start;
            *end = block_pfn(z->end_block).n > *end ? block_pfn(z->end_block).n : *end;
        }
    }
}

void census_node(const struct mm *mm, uint32_t node, struct census *out)
{
    uint64_t start, end;

    node_span(mm, node, &start, &end);
    census_range(mm, start, end, out);
}

void census_all(const struct mm *mm, struct census *out)
{
    census_range(mm, 0, mm->end_pfn, out);
}
