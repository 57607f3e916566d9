/* test_page_alloc.c - the allocator against a naive model, with mm_fsck() at each step. */
#include "guest_fixture.h"
#include "arch_hosted.h"
#include "isolation.h"
#include "pageblock.h"
#include "pcp.h"
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define UNITS_MAX 6000

struct unit { struct page *page; unsigned order; bool frozen; };
struct run {
    struct fixture f;
    struct model model;
    struct rng rng;
    struct unit units[UNITS_MAX];
    size_t count;
};

static gfp_t random_gfp(struct rng *r)
{
    static const gfp_t kinds[] = { GFP_KERNEL, GFP_HIGH_MOVABLE, GFP_KERNEL | __GFP_RECLAIMABLE, GFP_ATOMIC,
                                   GFP_KERNEL | __GFP_ACCOUNT };
    return kinds[rng_below(r, 5)] | __GFP_MEMALLOC;
}

static unsigned random_order(struct rng *r)
{
    uint64_t x = rng_below(r, 100);
    return x < 70 ? 0 : x < 90 ? (unsigned)rng_below(r, 4) : (unsigned)rng_below(r, MAX_ORDER + 1);
}

static void step_alloc(struct run *t)
{
    unsigned order = random_order(&t->rng);
    bool frozen = rng_below(&t->rng, 3) == 0;
    struct page *p;

    if (t->count == UNITS_MAX) {
        return;
    }
    p = frozen ? alloc_frozen_pages(&t->f.mm, random_gfp(&t->rng), order) : alloc_pages(&t->f.mm, random_gfp(&t->rng), order);
    if (p == NULL) {
        /* Nothing may fail that the model can place: every list was drained by now. */
        assert_false(model_has_run(&t->model, order));
        return;
    }
    assert_int_equal(page_state(p), frozen ? PAGE_FROZEN : PAGE_USED);
    assert_int_equal(page_refs(p), frozen ? 0 : 1);
    assert_int_equal(page_order(p), order);
    model_take(&t->model, p, order);
    t->units[t->count++] = (struct unit){ p, order, frozen };
}

static void give_back(struct run *t, struct unit u)
{
    if (u.frozen) {
        free_frozen_pages(&t->f.mm, page_pfn(u.page), u.order);
    } else {
        page_put(&t->f.mm, u.page);
    }
}

static void step_free(struct run *t)
{
    size_t i;

    if (t->count == 0) {
        return;
    }
    i = rng_below(&t->rng, t->count);
    if (t->units[i].order > 0 && !t->units[i].frozen && rng_below(&t->rng, 4) == 0 && t->count + (1u << t->units[i].order) < UNITS_MAX) {
        struct unit u = t->units[i];

        page_split(u.page, 0);
        t->units[i].order = 0;
        for (uint32_t k = 1; k < 1u << u.order; k++) {
            t->units[t->count++] = (struct unit){ u.page + k, 0, false };
        }
        return;
    }
    model_give(&t->model, t->units[i].page, t->units[i].order);
    give_back(t, t->units[i]);
    t->units[i] = t->units[--t->count];
}

/* Some units go in one call; a few of them are held by somebody else too and stay. */
static void step_free_together(struct run *t)
{
    struct page *pages[200], *held[200];
    uint32_t n = 0, holds = 0;

    while (n < 1 + rng_below(&t->rng, 200) && t->count > 0) {
        size_t i = rng_below(&t->rng, t->count);

        if (t->units[i].frozen) {
            break;
        }
        pages[n++] = t->units[i].page;
        if (rng_below(&t->rng, 8) == 0) {
            page_get(t->units[i].page);
            held[holds++] = t->units[i].page;
        } else {
            model_give(&t->model, t->units[i].page, t->units[i].order);
        }
        t->units[i] = t->units[--t->count];
    }
    page_put_many(&t->f.mm, pages, n);
    for (uint32_t i = 0; i < holds; i++) {
        assert_int_equal(page_state(held[i]), PAGE_USED);
        assert_int_equal(page_refs(held[i]), 1);
        model_give(&t->model, held[i], page_order(held[i]));
        page_put(&t->f.mm, held[i]);
    }
}

static void property_run(uint64_t seed, uint64_t pages, uint64_t reserved, unsigned steps, bool movable_low, bool cpu_blocks)
{
    unsigned owned = 0;
    struct run *t = calloc(1, sizeof(*t));
    struct mm_range ram = { pfn_make(0), pfn_make(pages), 0 };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .cpus = 2, .movable_low = movable_low };
    unsigned bias = 60;

    t->rng.state = seed;
    fixture_init_config(&t->f, &config, reserved);
    model_init(&t->model, &t->f.mm);
    for (unsigned i = 0; i < steps; i++) {
        arch_hosted_set_cpu((unsigned)rng_below(&t->rng, 2));
        if (cpu_blocks) {
            want_cpu_blocks(&t->f.mm);
        }
        owned += atomic_load(&t->f.mm.zones[0].owned_blocks) > 1;
        if (i % 200 == 0) {
            bias = 20 + (unsigned)rng_below(&t->rng, 70);
        }
        if (rng_below(&t->rng, 100) < bias) {
            step_alloc(t);
        } else if (rng_below(&t->rng, 64) == 0) {
            step_free_together(t);
        } else {
            step_free(t);
        }
        if (i % 8 == 0) {
            check_mm(&t->f.mm, seed);
            assert_int_equal(mm_free_pages(&t->f.mm) + pcp_pages(&t->f.mm, t->f.mm.zones), model_free_pages(&t->model));
        }
    }
    assert_true(cpu_blocks ? owned > steps / 4 : owned == 0);
    while (t->count > 0) {
        give_back(t, t->units[--t->count]);
    }
    mm_drain(&t->f.mm);
    check_mm(&t->f.mm, seed);
    assert_int_equal(mm_free_pages(&t->f.mm), pages - reserved);        /* the balance at exit */
    model_free(&t->model);
    fixture_free(&t->f);
    free(t);
    arch_hosted_set_cpu(0);
}

static void test_property(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 12; i++) {
        property_run(test_seed(1000 + i), 4096 + i % 3 * 1024, i % 2 * 700, 3000, i % 4 == 3, false);
        property_run(test_seed(1000 + i), 12288 + i % 3 * 4096, i % 2 * 700, 2000, i % 4 == 3, true);
    }
}

/* Several nodes, all zone kinds, holes: every unit comes from a zone that may serve the request. */
static void test_property_zones(void **state)
{
    static const gfp_t kinds[] = { GFP_KERNEL, GFP_HIGH_MOVABLE, GFP_DMA, GFP_KERNEL | __GFP_RECLAIMABLE, GFP_KERNEL | __GFP_ACCOUNT,
                                   GFP_ATOMIC, GFP_USER | __GFP_MOVABLE };
    struct mm_range ram[] = {
        { pfn_make(0), pfn_make(600), 0 }, { pfn_make(700), pfn_make(9000), 0 }, { pfn_make(33000), pfn_make(36000), 0 },
        { pfn_make(40960), pfn_make(49152), 1 }, { pfn_make(70000), pfn_make(75000), 2 },
    };

    (void)state;
    for (uint64_t i = 0; i < 8; i++) {
        struct mm_config config = { .ram = ram, .ram_count = 5, .cpus = 3, .dma_pages = 2048, .kernelcore_pages = i % 2 * 12000 };
        struct run *t = calloc(1, sizeof(*t));
        uint64_t seed = test_seed(2000 + i), pages;

        t->rng.state = seed;
        fixture_init_config(&t->f, &config, 300);
        model_init(&t->model, &t->f.mm);
        pages = mm_free_pages(&t->f.mm);
        assert_int_equal(pages, model_free_pages(&t->model));
        for (unsigned step = 0; step < 2500; step++) {
            arch_hosted_set_cpu((unsigned)rng_below(&t->rng, 3));
            if (i >= 4) {
                want_cpu_blocks(&t->f.mm);
            }
            if (rng_below(&t->rng, 100) < 70 && t->count < UNITS_MAX) {
                uint32_t node = (uint32_t)rng_below(&t->rng, 3);
                gfp_t gfp = kinds[rng_below(&t->rng, 7)] | (rng_below(&t->rng, 4) == 0 ? __GFP_THISNODE : 0);
                unsigned order = random_order(&t->rng);
                struct page *p = alloc_pages_node(&t->f.mm, node, gfp, order);
                const struct zone *z;

                if (p == NULL) {
                    continue;
                }
                z = mm_block_zone(&t->f.mm, page_block(p));
                assert_true(z->kind <= gfp_zone_class(gfp));
                assert_true(!(gfp & __GFP_THISNODE) || z->node == node);
                model_take(&t->model, p, order);
                t->units[t->count++] = (struct unit){ p, order, false };
            } else {
                step_free(t);
            }
            if (step % 50 == 0) {
                check_mm(&t->f.mm, seed);
            }
        }
        while (t->count > 0) {
            page_put(&t->f.mm, t->units[--t->count].page);
        }
        mm_drain(&t->f.mm);
        check_mm(&t->f.mm, seed);
        assert_int_equal(mm_free_pages(&t->f.mm), pages);
        model_free(&t->model);
        fixture_free(&t->f);
        free(t);
    }
    arch_hosted_set_cpu(0);
}

/* Kernel pages go low, movable pages high, and they never meet while whole blocks are left. */
static void test_two_ends(void **state)
{
    struct fixture f;
    uint64_t highest_kernel = 0, lowest_movable = UINT64_MAX;

    (void)state;
    fixture_init(&f, 16384, 0, 1);
    for (unsigned i = 0; i < 4000; i++) {
        struct page *k = alloc_pages(&f.mm, i % 3 == 0 ? GFP_KERNEL | __GFP_RECLAIMABLE : GFP_KERNEL, i % 3);
        struct page *m = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 0);

        assert_non_null(k);
        assert_non_null(m);
        highest_kernel = k->pfn > highest_kernel ? k->pfn : highest_kernel;
        lowest_movable = m->pfn < lowest_movable ? m->pfn : lowest_movable;
    }
    assert_true(highest_kernel < lowest_movable);
    assert_int_equal(mm_counter(&f.mm, ZC_fallback_fragmenting), 0);
    check_mm(&f.mm, 0);
    fixture_free(&f);
}

/* A request from a foreign block takes the largest unit there is, and whole blocks come first. */
static void test_fallback_takes_largest(void **state)
{
    struct fixture f;
    struct page *p[8192], *k;
    unsigned n = 0;

    (void)state;
    fixture_init(&f, 4096, 0, 1);
    while ((p[n] = alloc_pages(&f.mm, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0)) != NULL) {
        n++;
    }
    assert_int_equal(n, 4096);
    for (unsigned i = 0; i < n; i++) {                  /* a hole of 8 pages in one block, of 32 in another */
        if ((p[i]->pfn >= 1024 + 64 && p[i]->pfn < 1024 + 72) || (p[i]->pfn >= 2048 + 128 && p[i]->pfn < 2048 + 160)) {
            page_put(&f.mm, p[i]);
        }
    }
    mm_drain(&f.mm);
    k = alloc_pages(&f.mm, GFP_NOWAIT | __GFP_MEMALLOC, 0);
    assert_int_equal(k->pfn, 2048 + 128);
    assert_int_equal(mm_counter(&f.mm, ZC_fallback_fragmenting), 1);
    assert_int_equal(pageblock_type(&f.mm, page_block(k)), MIGRATE_MOVABLE);    /* mostly movable: it keeps its type */
    check_mm(&f.mm, 0);
    fixture_free(&f);
}

static void test_watermarks_and_atomic_reserve(void **state)
{
    struct fixture f;
    uint64_t left_kernel, left_high, left_atomic;

    (void)state;
    fixture_init(&f, 8192, 0, 1);
    assert_true(f.mm.zones[0].watermark[WMARK_MIN] > 100);
    while (alloc_pages(&f.mm, GFP_KERNEL, 0) != NULL) {
    }
    left_kernel = mm_free_pages(&f.mm);
    while (alloc_pages(&f.mm, GFP_KERNEL | __GFP_HIGH, 0) != NULL) {
    }
    left_high = mm_free_pages(&f.mm);
    while (alloc_pages(&f.mm, GFP_ATOMIC, 0) != NULL) {
    }
    left_atomic = mm_free_pages(&f.mm);
    assert_true(left_kernel >= f.mm.zones[0].watermark[WMARK_MIN]);
    assert_true(left_kernel > left_high && left_high > left_atomic && left_atomic > 0);
    assert_non_null(alloc_pages(&f.mm, GFP_KERNEL | __GFP_MEMALLOC, 0));
    assert_null(alloc_pages(&f.mm, GFP_KERNEL, 0));
    check_mm(&f.mm, 0);
    fixture_free(&f);
}

/* After one high-order atomic request under pressure, its block is held for the next ones. */
static void test_highatomic(void **state)
{
    struct fixture f;
    struct page *p;

    (void)state;
    fixture_init(&f, 65536, 0, 1);
    while (mm_free_pages(&f.mm) > f.mm.zones[0].watermark[WMARK_LOW] + 600) {
        assert_non_null(alloc_pages(&f.mm, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0));
    }
    while (alloc_pages(&f.mm, GFP_NOWAIT, 0) != NULL) {
    }
    p = alloc_pages(&f.mm, GFP_ATOMIC, 3);
    assert_non_null(p);
    assert_true(f.mm.zones[0].blocks_of[MIGRATE_HIGHATOMIC] <= 1);
    assert_int_equal(mm_counter(&f.mm, ZC_highatomic_reserve), 1);
    assert_int_equal(pageblock_type(&f.mm, page_block(p)), MIGRATE_HIGHATOMIC);
    check_mm(&f.mm, 0);
    page_put(&f.mm, p);
    mm_drain(&f.mm);
    assert_int_equal(f.mm.zones[0].blocks_of[MIGRATE_HIGHATOMIC], 0);
    check_mm(&f.mm, 0);
    fixture_free(&f);
}

static void test_zones_and_nodes(void **state)
{
    struct mm_range ram[] = {
        { pfn_make(0), pfn_make(160), 0 }, { pfn_make(256), pfn_make(40000), 0 },
        { pfn_make(98304), pfn_make(131072), 1 },
    };
    struct mm_config config = { .ram = ram, .ram_count = 3, .cpus = 2, .dma_pages = 4096, .kernelcore_pages = 20000 };
    struct fixture f;
    struct page *p;

    (void)state;
    fixture_init_config(&f, &config, 0);
    assert_int_equal(f.mm.zone_count, 5);
    assert_int_equal(f.mm.node_count, 2);
    assert_null(f.mm.sections[2].map);                  /* a section without RAM has no memmap */
    p = alloc_pages(&f.mm, GFP_DMA, 0);
    assert_int_equal(mm_block_zone(&f.mm, page_block(p))->kind, ZONE_DMA);
    p = alloc_pages(&f.mm, GFP_KERNEL, 0);
    assert_int_equal(mm_block_zone(&f.mm, page_block(p))->kind, ZONE_NORMAL);
    p = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 0);
    assert_int_equal(mm_block_zone(&f.mm, page_block(p))->kind, ZONE_MOVABLE);
    arch_hosted_set_cpu(1);
    p = alloc_pages(&f.mm, GFP_KERNEL, 0);
    assert_int_equal(mm_block_zone(&f.mm, page_block(p))->node, 1);
    arch_hosted_set_cpu(0);
    p = alloc_pages_node(&f.mm, 1, GFP_KERNEL | __GFP_THISNODE, 2);
    assert_int_equal(mm_block_zone(&f.mm, page_block(p))->node, 1);
    while ((p = alloc_pages(&f.mm, GFP_KERNEL, 0)) != NULL) {
        assert_int_not_equal(mm_block_zone(&f.mm, page_block(p))->kind, ZONE_MOVABLE);
    }
    check_mm(&f.mm, 0);
    fixture_free(&f);
}

static void test_bad_config(void **state)
{
    struct mm_range twice[] = { { pfn_make(0), pfn_make(1000), 0 }, { pfn_make(900), pfn_make(2000), 0 } };
    struct mm_range shared[] = { { pfn_make(0), pfn_make(1000), 0 }, { pfn_make(1001), pfn_make(2000), 1 } };
    struct mm_range empty = { pfn_make(5), pfn_make(5), 0 };
    struct mm_range fine = { pfn_make(0), pfn_make(70000), 0 };
    struct mm_config c = { .cpus = 1 };
    struct fixture f = { .boot = NULL };

    (void)state;
    assert_int_equal(fixture_try_init(&f, &c), MM_EINVAL);
    c = (struct mm_config){ .cpus = 1, .ram = twice, .ram_count = 2 };
    assert_int_equal(fixture_try_init(&f, &c), MM_EINVAL);
    c = (struct mm_config){ .cpus = 1, .ram = shared, .ram_count = 2 };
    assert_int_equal(fixture_try_init(&f, &c), MM_EINVAL);
    c = (struct mm_config){ .cpus = 1, .ram = &empty, .ram_count = 1 };
    assert_int_equal(fixture_try_init(&f, &c), MM_EINVAL);
    c = (struct mm_config){ .cpus = 0, .ram = &fine, .ram_count = 1 };
    assert_int_equal(fixture_try_init(&f, &c), MM_EINVAL);
    assert_int_equal(f.boot_count, 0);
    for (size_t n = 1;; n++) {                          /* every boot allocation fails once */
        mm_status_t status;

        f.boot_fail_at = n;
        c = (struct mm_config){ .cpus = 1, .ram = &fine, .ram_count = 1 };
        status = fixture_try_init(&f, &c);
        fixture_free(&f);
        if (status == MM_OK) {
            assert_true(n > 50);
            break;
        }
        assert_int_equal(status, MM_ENOMEM);
    }
}

static void test_zeroing(void **state)
{
    static unsigned char memory[1024 * FS_PAGE_BYTES] FS_ALIGNED(4096);
    struct fixture f;
    struct page *p;

    (void)state;
    fixture_init(&f, 1024, 0, 1);
    memset(memory, 0xaa, sizeof(memory));
    arch_hosted_set_memory(memory, 1024);
    p = alloc_pages(&f.mm, GFP_KERNEL | __GFP_ZERO, 1);
    for (size_t i = 0; i < 2 * FS_PAGE_BYTES; i++) {
        assert_int_equal(memory[(size_t)p->pfn * FS_PAGE_BYTES + i], 0);
    }
    p = alloc_pages(&f.mm, GFP_KERNEL, 0);
    assert_int_equal(memory[(size_t)p->pfn * FS_PAGE_BYTES], 0xaa);
    p = alloc_zeroed_page(&f.mm, GFP_HIGH_MOVABLE);
    assert_int_equal(memory[(size_t)p->pfn * FS_PAGE_BYTES + 4095], 0);
    arch_hosted_set_memory(NULL, 0);
    fixture_free(&f);
}

/* ---- frozen units ---- */

static uint64_t pages_free(const struct fixture *f)
{
    return mm_free_pages(&f->mm) + pcp_pages(&f->mm, f->mm.zones);
}

/* Nobody gets a reference, nobody moves it; given back, it is counted at once, waits as in use, and a drain of whichever CPU settles it. */
static void test_frozen(void **state)
{
    struct mm_range ram = { pfn_make(0), pfn_make(8192), 0 };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .cpus = 2 };
    struct fixture f;
    struct page *p[FREE_RING - 1];
    uint64_t before;

    (void)state;
    fixture_init_config(&f, &config, 0);
    before = pages_free(&f);
    for (unsigned i = 0; i < FREE_RING - 1; i++) {
        p[i] = alloc_frozen_pages(&f.mm, i % 2 == 0 ? GFP_HIGH_MOVABLE : GFP_KERNEL, i % PCP_ORDERS);
        assert_non_null(p[i]);
        assert_false(page_try_get(p[i]));
        assert_false(page_may_move(p[i]));
    }
    check_mm(&f.mm, 0);
    for (unsigned i = 0; i < FREE_RING - 1; i++) {
        free_frozen_pages(&f.mm, page_pfn(p[i]), i % PCP_ORDERS);
        assert_int_equal(page_state(p[i]), PAGE_FROZEN);
    }
    assert_int_equal(pages_free(&f), before);
    check_mm(&f.mm, 0);
    arch_hosted_set_cpu(1);
    mm_drain(&f.mm);
    arch_hosted_set_cpu(0);
    check_mm(&f.mm, 0);
    assert_int_equal(mm_free_pages(&f.mm), 8192);
    for (unsigned i = 0; i < FREE_RING - 1; i++) {
        assert_true(page_is_free(&f.mm, p[i]));
    }
    fixture_free(&f);
}

/* Of an isolated block none waits: what was in the ring leaves it with the drain, what is given back later goes past it. */
static void test_frozen_isolated(void **state)
{
    struct fixture f;
    struct page *early, *late;
    pfn_t start;

    (void)state;
    fixture_init(&f, 8192, 0, 1);
    early = alloc_frozen_pages(&f.mm, GFP_HIGH_MOVABLE, 0);
    late = alloc_frozen_pages(&f.mm, GFP_HIGH_MOVABLE, 0);
    start = block_pfn(page_block(early));
    assert_int_equal(page_block(late), page_block(early));
    assert_int_equal(isolate_range(&f.mm, start, pfn_make(start.n + PAGEBLOCK_PAGES), 0, NULL), MM_EBUSY);     /* they cannot leave */
    free_frozen_pages(&f.mm, page_pfn(early), 0);
    assert_int_equal(isolate_range(&f.mm, start, pfn_make(start.n + PAGEBLOCK_PAGES), ISOLATE_RESIDUAL, NULL), MM_OK);
    assert_true(page_is_free(&f.mm, early));
    assert_int_equal(isolate_test(&f.mm, start, pfn_make(start.n + PAGEBLOCK_PAGES), NULL), MM_EBUSY);
    free_frozen_pages(&f.mm, page_pfn(late), 0);
    assert_true(page_is_free(&f.mm, late));
    assert_int_equal(isolate_test(&f.mm, start, pfn_make(start.n + PAGEBLOCK_PAGES), NULL), MM_OK);
    assert_int_equal(isolate_undo(&f.mm, start, pfn_make(start.n + PAGEBLOCK_PAGES)), MM_OK);
    check_mm(&f.mm, 0);
    fixture_free(&f);
}

static bool dies(struct fixture *f, void (*mistake)(struct mm *mm))
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        if (freopen("/dev/null", "w", stderr) != NULL) {
            mistake(&f->mm);
        }
        _exit(0);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void no_mistake(struct mm *mm)
{
    free_frozen_pages(mm, page_pfn(alloc_frozen_pages(mm, GFP_KERNEL, 0)), 0);
    mm_drain(mm);
}

static void free_twice(struct mm *mm)
{
    struct page *p = alloc_frozen_pages(mm, GFP_KERNEL, 0);

    free_frozen_pages(mm, page_pfn(p), 0);
    free_frozen_pages(mm, page_pfn(p), 0);
    mm_drain(mm);
}

/* It is on a list, or free, when it comes again. */
static void free_again(struct mm *mm)
{
    struct page *p = alloc_frozen_pages(mm, GFP_KERNEL, 0);

    free_frozen_pages(mm, page_pfn(p), 0);
    pcp_settle(mm);
    free_frozen_pages(mm, page_pfn(p), 0);
    pcp_settle(mm);
}

static void free_block_twice(struct mm *mm)
{
    struct page *p = alloc_frozen_pages(mm, GFP_HIGH_MOVABLE, PAGEBLOCK_ORDER);

    free_frozen_pages(mm, page_pfn(p), PAGEBLOCK_ORDER);
    free_frozen_pages(mm, page_pfn(p), PAGEBLOCK_ORDER);
}

static void free_counted(struct mm *mm)
{
    free_frozen_pages(mm, page_pfn(alloc_pages(mm, GFP_KERNEL, 0)), 0);
    pcp_settle(mm);
}

static void put_frozen(struct mm *mm)
{
    page_put(mm, alloc_frozen_pages(mm, GFP_KERNEL, 0));
}

static void test_frozen_mistakes(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, 8192, 0, 1);
    assert_false(dies(&f, no_mistake));
    assert_true(dies(&f, free_twice));
    assert_true(dies(&f, free_again));
    assert_true(dies(&f, free_block_twice));
    assert_true(dies(&f, free_counted));
    assert_true(dies(&f, put_frozen));
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_property),
        cmocka_unit_test(test_property_zones),
        cmocka_unit_test(test_two_ends),
        cmocka_unit_test(test_fallback_takes_largest),
        cmocka_unit_test(test_watermarks_and_atomic_reserve),
        cmocka_unit_test(test_highatomic),
        cmocka_unit_test(test_zones_and_nodes),
        cmocka_unit_test(test_bad_config),
        cmocka_unit_test(test_zeroing),
        cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_frozen_isolated),
        cmocka_unit_test(test_frozen_mistakes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
