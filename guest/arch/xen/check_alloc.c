/*
 * check_alloc.c - every order, migratetype, zone, per-CPU list and reserve of the allocator, on real pages.
 *
 * Owns: nothing.
 * Invariants: I1  a request that may use every reserve fails only where no aligned run of free pages is left in the zones that
 *   may serve it, told by the memmap and not by the allocator's lists.
 * Lock order: none (one vCPU).
 * Why: as in the hosted tests, but with contents: check_reserves() holds all of memory at once, so that two pages that are
 *   the same frame cannot both read back right.
 * Cost: check_reserves() writes and reads every free page once; the others a few thousand pages each.
 */
#include "check.h"
#include "../../mm/pageblock.h"
#include "../../mm/pcp.h"

#define SPARSE 64u                          /* one word of 64 where contents are not the point */

/* gfp for a migratetype of callers. */
static const gfp_t type_gfp[MIGRATE_PCP_TYPES] = {
    [MIGRATE_UNMOVABLE] = GFP_KERNEL, [MIGRATE_MOVABLE] = GFP_USER | __GFP_MOVABLE,
    [MIGRATE_RECLAIMABLE] = GFP_KERNEL | __GFP_RECLAIMABLE, [MIGRATE_ACCOUNTED] = GFP_KERNEL | __GFP_ACCOUNT,
};

static bool run_is_free(const struct mm *mm, uint64_t start, unsigned order, enum zone_kind class)
{
    uint64_t pfn = start, end = start + (1ull << order);

    while (pfn < end) {
        struct page *p = mm_page(mm, pfn_make(pfn));

        if (!page_is_free(mm, p) || mm_block_zone(mm, page_block(p))->kind > class) {
            return false;
        }
        pfn++;
    }
    return true;
}

static bool has_run(const struct mm *mm, unsigned order, enum zone_kind class)
{
    for (uint64_t pfn = 0; pfn + (1ull << order) <= mm->end_pfn && pfn + (1ull << order) <= boot_memory.pages; pfn += 1ull << order) {
        if (run_is_free(mm, pfn, order, class)) {
            return true;
        }
    }
    return false;
}

static void orders_of(struct check *c, gfp_t gfp)
{
    for (unsigned order = 0; order <= MAX_ORDER; order++) {
        uint64_t units = order < 7 ? 128u >> order << 1 : 2;

        for (uint64_t i = 0; i < units; i++) {
            gfp_t zero = i % 2 == 0 && order < 6 ? __GFP_ZERO : 0;

            if (unit_take(c, gfp | zero, order, order < 4 ? 1 : SPARSE) == NULL) {
                mm_drain(&c->mm);
                CHECK(!has_run(&c->mm, order, gfp_zone_class(gfp)), "a request failed although memory is there; order", order);
            }
        }
        while (c->count > 0) {
            unit_give(c, c->count - 1, c->units[c->count - 1].order < 4 ? 1 : SPARSE);
        }
    }
}

void check_orders(struct check *c)
{
    for (unsigned type = 0; type < MIGRATE_PCP_TYPES; type++) {
        orders_of(c, type_gfp[type] | __GFP_MEMALLOC);
        orders_of(c, type_gfp[type] | __GFP_MEMALLOC | __GFP_DMA);
        check_fsck(c, "faults between two types");
    }
    orders_of(c, GFP_HIGH_MOVABLE | __GFP_MEMALLOC);
    orders_of(c, GFP_TRANSHUGE | __GFP_MEMALLOC);
}

static uint64_t percpu_pages(const struct check *c)
{
    uint64_t pages = 0;

    for (uint32_t i = 0; i < c->mm.zone_count; i++) {
        pages += pcp_pages(&c->mm, &c->mm.zones[i]);
    }
    return pages;
}

void check_percpu(struct check *c)
{
    static const unsigned orders[PCP_LISTS] = { 0, 1, 2, 3, PAGEBLOCK_ORDER };
    uint32_t high = c->mm.pcp_high;

    c->mm.pcp_high = PCP_CAPACITY;              /* so that a unit of every order and type stays */
    for (unsigned type = 0; type < MIGRATE_PCP_TYPES; type++) {
        for (unsigned i = 0; i < PCP_LISTS; i++) {
            struct unit *u;
            struct page *p;

            if (!pcp_serves(orders[i], (enum migratetype)type)) {
                continue;
            }
            mm_drain(&c->mm);
            CHECK(percpu_pages(c) == 0, "a drained per-CPU list has pages", percpu_pages(c));
            u = unit_take(c, type_gfp[type] | __GFP_MEMALLOC, orders[i], SPARSE);
            if (u == NULL) {
                CHECK(!has_run(&c->mm, orders[i], ZONE_NORMAL), "a per-CPU request failed; order", orders[i]);
                continue;
            }
            p = u->page;
            unit_give(c, 0, SPARSE);
            CHECK(page_state(p) == PAGE_PCP, "a freed unit is not on its per-CPU list", p->pfn);
            CHECK(percpu_pages(c) >= 1ull << orders[i], "a per-CPU list does not count its pages", percpu_pages(c));
            u = unit_take(c, type_gfp[type] | __GFP_MEMALLOC, orders[i], SPARSE);
            CHECK(u != NULL && u->page == p, "a per-CPU list does not serve what was freed last", p->pfn);
            unit_give(c, 0, SPARSE);
        }
    }
    c->mm.pcp_high = high;
}

static uint64_t take_all(struct check *c, gfp_t gfp, unsigned order)
{
    uint64_t units = 0;

    while (unit_take(c, gfp, order, 1) != NULL) {
        units++;
    }
    return units;
}

/* Memory is used up step by step: each kind of caller finds what was kept for it. Then all of it is held, and right. */
void check_reserves(struct check *c)
{
    uint64_t normal = take_all(c, GFP_KERNEL, 0), left, high_order, atomic, last, held = 0;

    left = mm_free_pages(&c->mm);
    CHECK(normal > 0 && left > 0, "ordinary requests took everything", normal);
    high_order = take_all(c, GFP_ATOMIC, 3);
    CHECK(high_order == 0 || mm_counter(&c->mm, ZC_highatomic_reserve) > 0, "no block was reserved for high-order atomic requests", high_order);
    atomic = take_all(c, GFP_ATOMIC, 0);
    CHECK(high_order * 8 + atomic > 0, "atomic requests found no reserve", left);
    last = take_all(c, GFP_KERNEL | __GFP_MEMALLOC, 0);
    CHECK(last > 0, "the last reserve was empty", left);
    take_all(c, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0);
    CHECK(mm_free_pages(&c->mm) == 0 && percpu_pages(c) == 0, "memory is free that nobody gets", mm_free_pages(&c->mm));
    for (uint64_t i = 0; i < c->count; i++) {
        unit_verify(c, &c->units[i], 1);
        held += 1ull << c->units[i].order;
    }
    CHECK(held == c->start_free, "not every free page could be had", held);
    check_fsck(c, "faults while all memory is held");
    units_give_all(c, 1);
}

static gfp_t mixed_gfp(struct check *c)
{
    static const gfp_t kinds[] = { GFP_KERNEL, GFP_HIGH_MOVABLE, GFP_KERNEL | __GFP_RECLAIMABLE, GFP_ATOMIC, GFP_KERNEL | __GFP_ACCOUNT,
                                   GFP_USER | __GFP_MOVABLE, GFP_KERNEL | __GFP_DMA };

    return kinds[check_random(c, FS_ARRAY_SIZE(kinds))] | (check_random(c, 8) == 0 ? __GFP_ZERO : 0);
}

/* Random requests and frees; one unit in a while is split and freed in parts. */
void check_mixed(struct check *c)
{
    uint64_t steps = option_number("steps", 20000), limit = c->start_free / 4;

    for (uint64_t i = 0; i < steps; i++) {
        uint64_t x = check_random(c, 100);
        unsigned order = x < 70 ? 0 : x < 92 ? (unsigned)check_random(c, 4) : x < 98 ? (unsigned)check_random(c, 7)
                         : (unsigned)check_random(c, MAX_ORDER + 1);

        if (c->count < limit && check_random(c, 100) < (i / 1000 % 2 == 0 ? 75 : 40)) {
            if (unit_take(c, mixed_gfp(c), order, SPARSE) != NULL) {
                continue;
            }
        }
        if (c->count > 0) {
            unit_give(c, check_random(c, c->count), SPARSE);
        }
        if (i % 4096 == 0) {
            check_fsck(c, "faults among mixed requests");
        }
    }
    check_fsck(c, "faults after mixed requests");
    units_give_all(c, SPARSE);
}
