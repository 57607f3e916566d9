/* test_shrink.c - memory goes to the machine: sections first, then blocks, the highest first; never below the marks; and it comes back. */
#include "guest_fixture.h"
#include "compaction.h"
#include "pageblock.h"
#include "shrink.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SECTION ((uint64_t)SECTION_PAGES)

struct host { bool *has; uint64_t pages, calls, fail_at, extents; };
struct world { struct fixture f; struct owners o; struct host h; struct hotplug_ops ops; };

static mm_status_t change(struct host *h, pfn_t pfn, unsigned order, bool give)
{
    if (h->fail_at != 0 && ++h->calls == h->fail_at) {
        return MM_EAGAIN;
    }
    for (uint64_t i = pfn.n; i < pfn.n + (1ull << order); i++) {
        assert_int_equal(h->has[i], give);
        h->has[i] = !give;
    }
    h->extents += give && order > 0;
    return MM_OK;
}
static mm_status_t host_give(void *ctx, pfn_t pfn, unsigned order) { return change(ctx, pfn, order, true); }
static mm_status_t host_take(void *ctx, pfn_t pfn, unsigned order) { return change(ctx, pfn, order, false); }

static void make(struct world *w, uint64_t pages)
{
    struct mm_range ram = { pfn_make(0), pfn_make(pages), 0 };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .cpus = 1, .policy = CLAIM_CLEAR_FIRST };

    fixture_init_config(&w->f, &config, 0);
    assert_int_equal(compaction_init(&w->f.mm, &config), MM_OK);
    owners_init(&w->o, &w->f.mm, (uint32_t)pages, 1);
    w->h = (struct host){ .has = malloc(pages), .pages = pages };
    for (uint64_t i = 0; i < pages; i++) {
        w->h.has[i] = true;
    }
    w->ops = (struct hotplug_ops){ .give = host_give, .take = host_take, .ctx = &w->h, .machine_extents = &w->h.extents };
}

static void end(struct world *w)
{
    owners_free(&w->o);
    free(w->h.has);
    fixture_free(&w->f);
}

static uint64_t has_pages(const struct world *w)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < w->h.pages; i++) {
        n += w->h.has[i];
    }
    return n;
}

static void check(const struct world *w)
{
    for (uint32_t i = 0; i < w->o.count; i++) {
        assert_true(w->h.has[w->o.page_of[i]->pfn]);
    }
    owners_check(&w->o);
    check_mm(&w->f.mm, 0);
}

/* Fill memory with movable pages, then free all but some in each block: every block is in use, and nearly empty. */
static void scatter(struct world *w, uint64_t fill, uint32_t keep_one_in)
{
    struct rng rng = { 7 };

    while (w->o.count < fill) {
        assert_non_null(owners_alloc(&w->o, GFP_HIGH_MOVABLE, 0));
    }
    for (uint32_t i = w->o.count; i-- > 0;) {
        if (rng_below(&rng, keep_one_in) != 0) {
            owners_put(&w->o, i);
        }
    }
    mm_drain(&w->f.mm);
}

static void test_sections_first(void **state)
{
    struct world w;
    struct shrink_result r;
    struct page *kernel;

    (void)state;
    make(&w, 4 * SECTION);
    /* A kernel page in the highest section: it cannot be emptied, and the two below it can. */
    kernel = mm_page(&w.f.mm, pfn_make(4 * SECTION - 512));
    scatter(&w, 4 * SECTION * 9 / 10, 20);
    for (uint32_t i = 0; i < 2000; i++) {
        assert_non_null(alloc_pages(&w.f.mm, GFP_KERNEL, 0));
    }
    zone_lock(&w.f.mm.zones[0]);
    pageblock_set_type(&w.f.mm, &w.f.mm.zones[0], page_block(kernel), MIGRATE_UNMOVABLE);
    zone_unlock(&w.f.mm.zones[0]);
    shrink_pages(&w.f.mm, SECTION + 512, &w.ops, &r);
    assert_int_equal(r.pages, SECTION + 512);
    assert_int_equal(r.blocks, 65);
    assert_int_equal(r.machine_extents, 65);
    assert_int_equal(r.sections, 1);
    assert_int_equal(r.single_pages + r.residual_blocks, 0);
    for (uint64_t pfn = 0; pfn < 4 * SECTION; pfn++) {
        bool gone = (pfn >= 2 * SECTION && pfn < 3 * SECTION) || (pfn >= 2 * SECTION - 512 && pfn < 2 * SECTION);

        assert_int_equal(w.h.has[pfn], !gone);
    }
    check(&w);
    /* No more than is asked for: less than a block, while blocks can go, is nothing. */
    shrink_pages(&w.f.mm, 511, &w.ops, &r);
    assert_int_equal(r.pages, 0);
    grow_pages(&w.f.mm, 511, &w.ops, &r);
    assert_int_equal(r.pages, 0);
    grow_pages(&w.f.mm, 10 * SECTION, &w.ops, &r);
    assert_int_equal(r.pages, SECTION + 512);
    assert_int_equal(r.sections, 1);
    assert_int_equal(has_pages(&w), 4 * SECTION);
    check(&w);
    end(&w);
}

/* What is free above the marks is given, and nothing below; what is in use lives on. */
static void test_down_to_the_marks(void **state)
{
    struct world w;
    struct shrink_result r;
    uint64_t given = 0, possible;

    (void)state;
    make(&w, 2 * SECTION);
    scatter(&w, 2 * SECTION * 9 / 10, 4);
    possible = shrink_possible(&w.f.mm);
    while (shrink_pages(&w.f.mm, 8192, &w.ops, &r), r.pages > 0) {
        given += r.pages;
        check(&w);
    }
    assert_true(r.low);
    assert_true(given + 1024 > possible && given <= possible + 1024);       /* the marks fall with the memory */
    assert_int_equal(has_pages(&w), 2 * SECTION - given);
    assert_true(mm_free_pages(&w.f.mm) >= w.f.mm.zones[0].watermark[WMARK_HIGH]);
    assert_non_null(owners_alloc(&w.o, GFP_HIGH_MOVABLE, 0));
    grow_pages(&w.f.mm, UINT64_MAX, &w.ops, &r);
    assert_int_equal(r.pages, given);
    check(&w);
    end(&w);
}

/* Pages that cannot move, one in each block: what lies around them goes last, and the reasons are told. */
static void test_around_what_stays(void **state)
{
    struct world w;
    struct shrink_result r;
    uint64_t given = 0, stays = 0;

    (void)state;
    make(&w, SECTION);
    while (owners_alloc(&w.o, GFP_HIGH_MOVABLE, 0) != NULL) {
    }
    for (uint32_t i = w.o.count; i-- > 0;) {
        struct page *p = w.o.page_of[i];

        if (p->pfn % 512 == 77) {
            page_set_flags(p, p->pfn % 1024 == 77 ? PG_DMA : PG_PINNED);
        } else {
            owners_put(&w.o, i);
        }
    }
    mm_drain(&w.f.mm);
    do {
        shrink_pages(&w.f.mm, 4096, &w.ops, &r);
        given += r.pages;
        stays += r.stays[SHRINK_STAYS_dma] + r.stays[SHRINK_STAYS_busy];
        assert_int_equal(r.stays[SHRINK_STAYS_boot] + r.stays[SHRINK_STAYS_kernel] + r.stays[SHRINK_STAYS_table], 0);
        assert_int_equal(r.blocks, 0);
        assert_int_equal(r.stays[SHRINK_STAYS_dma] + r.stays[SHRINK_STAYS_busy], r.residual_blocks);
        check(&w);
    } while (r.pages > 0);
    assert_true(r.low);
    assert_true(stays > 40 && given == stays * 511);
    grow_pages(&w.f.mm, given, &w.ops, &r);
    assert_int_equal(r.pages, given);
    assert_int_equal(has_pages(&w), SECTION);
    check(&w);
    end(&w);
}

/* The n-th call of the machine fails, for every n: what is gone is told, and another call goes on. */
static void test_each_call_fails(void **state)
{
    bool more = true;

    (void)state;
    for (uint64_t n = 1; more; n++) {
        struct world w;
        struct shrink_result r;
        uint64_t given = 0;

        make(&w, SECTION);
        scatter(&w, SECTION / 2, 16);
        w.h.fail_at = n;
        for (unsigned i = 0; i < 3 && given < 40 * 512; i++) {
            shrink_pages(&w.f.mm, 40 * 512 - given, &w.ops, &r);
            given += r.pages;
            assert_int_equal(has_pages(&w), SECTION - given);
            check(&w);
        }
        assert_int_equal(given, 40 * 512);
        more = w.h.calls >= n;
        w.h.calls = 0;
        for (unsigned i = 0; i < 3 && given > 0; i++) {
            grow_pages(&w.f.mm, given, &w.ops, &r);
            given -= r.pages;
            assert_int_equal(has_pages(&w), SECTION - given);
            check(&w);
        }
        assert_int_equal(given, 0);
        end(&w);
    }
}

/* A device's pages, as many as there can be: all of them in the core region, and every section above it can go. */
static void test_core_region(void **state)
{
    struct world w = { .f = { .boot = NULL } };   /* the first two never begin */
    struct mm_range ram = { pfn_make(0), pfn_make(4 * SECTION), 0 };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .cpus = 1, .policy = CLAIM_CLEAR_FIRST, .core_percent = 101 };
    struct shrink_result r;
    struct page *p;
    uint64_t core = (4 * SECTION * 10 / 100 + 511) / 512 * 512, dma = 0;

    (void)state;
    assert_int_equal(fixture_try_init(&w.f, &config), MM_EINVAL);
    fixture_free(&w.f);
    config.core_percent = 10;
    config.dma_pages = 512;
    assert_int_equal(fixture_try_init(&w.f, &config), MM_EINVAL);
    fixture_free(&w.f);
    config.dma_pages = 0;
    fixture_init_config(&w.f, &config, 0);
    assert_int_equal(compaction_init(&w.f.mm, &config), MM_OK);
    owners_init(&w.o, &w.f.mm, (uint32_t)(4 * SECTION), 1);
    w.h = (struct host){ .has = malloc(4 * SECTION), .pages = 4 * SECTION };
    memset(w.h.has, true, 4 * SECTION);
    w.ops = (struct hotplug_ops){ .give = host_give, .take = host_take, .ctx = &w.h, .machine_extents = &w.h.extents };
    assert_int_equal(w.f.mm.dma_pages, core);
    while ((p = alloc_pages(&w.f.mm, GFP_KERNEL | __GFP_DMA | __GFP_MEMALLOC, dma % 4)) != NULL || dma % 4 != 0) {
        dma += p != NULL ? 0 : 1;
        if (p != NULL) {
            assert_true(p->pfn + (1u << page_order(p)) <= core);
            page_set_flags(p, PG_DMA);
            dma += 1;
        }
    }
    assert_true(mm_free_pages(&w.f.mm) >= 4 * SECTION - core);
    shrink_pages(&w.f.mm, 3 * SECTION, &w.ops, &r);
    assert_int_equal(r.pages, 3 * SECTION);
    assert_int_equal(r.sections, 3);
    assert_int_equal(r.single_pages + r.residual_blocks, 0);
    check_mm(&w.f.mm, 0);
    end(&w);
}

/* A host that takes several blocks at once, and not all of them: what it did not take is in use as before, and asked for again. */
static uint32_t host_give_blocks(void *ctx, pfn_t pfn, uint32_t blocks)
{
    struct host *h = ctx;
    uint32_t n = 0;

    assert_true(blocks >= 1 && blocks <= HOTPLUG_BLOCKS);
    assert_int_equal(pfn.n / SECTION, (pfn.n + blocks * PAGEBLOCK_PAGES - 1) / SECTION);
    while (n < blocks && (h->calls++ % 5 != 3) && change(h, pfn_make(pfn.n + n * PAGEBLOCK_PAGES), PAGEBLOCK_ORDER, true) == MM_OK) {
        n++;
    }
    return n;
}

static void test_blocks_at_once(void **state)
{
    struct world w;
    struct shrink_result r;
    uint64_t gone = 0;

    (void)state;
    make(&w, 2 * SECTION);
    scatter(&w, SECTION / 4, 2);
    w.ops.give_blocks = host_give_blocks;
    for (unsigned i = 0; i < 20; i++) {
        shrink_pages(&w.f.mm, 9 * PAGEBLOCK_PAGES, &w.ops, &r);
        gone += r.pages;
        assert_true(r.pages <= 9 * PAGEBLOCK_PAGES);
        assert_int_equal(has_pages(&w), 2 * SECTION - gone);
        check(&w);
    }
    assert_true(gone > SECTION);
    grow_pages(&w.f.mm, 2 * SECTION, &w.ops, &r);
    assert_int_equal(r.pages, gone);
    assert_int_equal(has_pages(&w), 2 * SECTION);
    check(&w);
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sections_first),
        cmocka_unit_test(test_down_to_the_marks),
        cmocka_unit_test(test_around_what_stays),
        cmocka_unit_test(test_each_call_fails), cmocka_unit_test(test_core_region),
        cmocka_unit_test(test_blocks_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
