/* test_compaction.c - compaction reaches what is possible with the fewest moves; claim policies; all under a model. */
#include "compact_fixture.h"
#include "isolation.h"
#include "pageblock.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static void test_reaches_the_limit(void **state)
{
    static const unsigned shares[] = { 2, 5, 20, 50, 80 };

    (void)state;
    for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
        uint64_t seed = test_seed(40 + i), free, before, least;
        struct rng r = { seed };
        struct compact_result result;
        struct fixture f;
        struct owners o;

        compact_setup(&f, &o, 32768, CLAIM_CLEAR_FIRST, seed);
        compact_age(&o, shares[i], 0, &r);
        free = mm_free_pages(&f.mm);
        before = compact_whole_blocks(&f.mm);
        least = compact_least_moves(&f.mm, free / PAGEBLOCK_PAGES - before);
        result = compact_all(&f.mm, TARGET_MOVABLE);
        assert_int_equal(compact_whole_blocks(&f.mm), free / PAGEBLOCK_PAGES);      /* nothing more is possible */
        assert_int_equal(result.migrated_pages, least);                     /* with not one move too many */
        assert_int_equal(o.moves, least);
        assert_int_equal(mm_free_pages(&f.mm), free);
        owners_check(&o);
        check_mm(&f.mm, seed);
        compact_teardown(&f, &o);
    }
}

static void test_mixed_orders_and_refusals(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 10; i++) {
        uint64_t seed = test_seed(70 + i), free, before;
        struct rng r = { seed };
        struct compact_result result;
        struct compact_request by_pfn = { .order = COMPACT_BY_PFN, .blocks_wanted = UINT32_MAX };
        struct fixture f;
        struct owners o;

        compact_setup(&f, &o, 16384, CLAIM_CLEAR_FIRST, seed);
        compact_age(&o, 10 + (unsigned)rng_below(&r, 60), 4, &r);
        o.refuse_one_in = i % 2 == 0 ? 0 : 50;
        page_set_flags(o.page_of[rng_below(&r, o.count)], PG_PINNED);
        free = mm_free_pages(&f.mm);
        before = compact_whole_blocks(&f.mm);
        if (i % 3 == 2) {
            assert_int_equal(compact_zone(&f.mm, &f.mm.zones[0], &by_pfn, &result), MM_OK);
        } else {
            result = compact_all(&f.mm, TARGET_MOVABLE);
        }
        mm_drain(&f.mm);
        assert_int_equal(compact_whole_blocks(&f.mm), before + result.blocks_made);
        assert_true(result.blocks_made > 0);
        assert_int_equal(result.migrated_pages, o.moves);
        assert_int_equal(mm_free_pages(&f.mm), free);
        owners_check(&o);
        check_mm(&f.mm, seed);
        compact_teardown(&f, &o);
    }
}

/* Memory with kernel pages, of which only some are left: movable memory is full but for a few holes. Returns the kernel pages held. */
static unsigned age_with_kernel(struct owners *o, struct page **kernel, unsigned most, unsigned free_percent, struct rng *r)
{
    static const gfp_t kinds[] = { GFP_KERNEL | __GFP_MEMALLOC, GFP_KERNEL | __GFP_RECLAIMABLE | __GFP_MEMALLOC, GFP_KERNEL | __GFP_ACCOUNT | __GFP_MEMALLOC };
    uint64_t total = o->mm->zones[0].managed_pages;
    unsigned n = 0, goal;

    for (; n < most; n++) {
        kernel[n] = alloc_pages(o->mm, kinds[rng_below(r, 3)], 0);
        assert_non_null(kernel[n]);
    }
    compact_age(o, 0, 0, r);
    goal = n / 3 + (unsigned)rng_below(r, n / 3);
    while (n > goal && mm_free_pages(o->mm) < total * free_percent / 200) {         /* half of what is free lies beside kernel pages */
        unsigned i = (unsigned)rng_below(r, n);
        page_put(o->mm, kernel[i]);
        kernel[i] = kernel[--n];
    }
    while (mm_free_pages(o->mm) < total * free_percent / 100) {
        owners_put(o, (uint32_t)rng_below(r, o->count));
    }
    mm_drain(o->mm);
    return n;
}

/* Kernel pages that come afterwards, with the background at work; returns the blocks that hold kernel pages then. */
static uint64_t kernel_comes_back(struct owners *o, struct page **kernel, unsigned n, unsigned most, struct rng *r)
{
    struct mm *mm = o->mm;
    uint64_t mixed, polluting = mm_counter(mm, ZC_fallback_fragmenting) - mm_counter(mm, ZC_fallback_kernel) - mm_counter(mm, ZC_fallback_tenant);

    while (n < most && mm_free_pages(mm) > 700) {
        kernel[n] = alloc_pages(mm, GFP_KERNEL | (rng_below(r, 2) != 0 ? __GFP_RECLAIMABLE : 0), 0);
        assert_non_null(kernel[n++]);
        (void)compaction_background(mm, &mm->zones[0]);
    }
    assert_int_equal(mm_counter(mm, ZC_fallback_fragmenting) - mm_counter(mm, ZC_fallback_kernel) - mm_counter(mm, ZC_fallback_tenant), polluting);
    return compact_kernel_blocks(mm, &mixed);
}

/* One run: memory ages, is compacted or not, and the kernel wants its holes back. Returns the blocks with kernel pages at the end. */
static uint64_t explicit_run(uint64_t seed, unsigned free_percent, bool compact)
{
    static struct page *kernel[6000];
    struct rng r = { seed };
    struct compact_result result;
    struct fixture f;
    struct owners o;
    uint64_t free, before, least, mixed, blocks;
    unsigned n;

    compact_setup(&f, &o, 65536, CLAIM_CLEAR_FIRST, seed);
    f.mm.claim_window = 0;
    n = age_with_kernel(&o, kernel, 6000, free_percent, &r);
    free = mm_free_pages(&f.mm);
    before = compact_whole_blocks(&f.mm);
    blocks = compact_kernel_blocks(&f.mm, &mixed);
    assert_true(mixed <= 3);                            /* the last block of each type, filled up */
    if (compact) {
        least = compact_least_moves(&f.mm, free / PAGEBLOCK_PAGES - before);
        result = compact_all(&f.mm, TARGET_DEFAULT);
        assert_true(compact_whole_blocks(&f.mm) * 100 >= free / PAGEBLOCK_PAGES * 95);
        assert_int_equal(compact_whole_blocks(&f.mm), before + result.blocks_made);
        assert_true(result.migrated_pages * 2 <= least * 3);
        assert_int_equal(compact_kernel_blocks(&f.mm, &mixed), blocks);
        check_mm(&f.mm, seed);
        owners_check(&o);
    }
    blocks = kernel_comes_back(&o, kernel, n, 6000, &r);
    check_mm(&f.mm, seed);
    owners_check(&o);
    compact_teardown(&f, &o);
    return blocks;
}

/* The target: 95 % of what is free into whole blocks, where 2 % of memory is free or more, beside kernel pages too, with at most 1.5 times
 * the least number of moves. And the loan is paid back: kernel pages that come afterwards take as many blocks as without it. */
static void test_explicit_beside_kernel_pages(void **state)
{
    static const unsigned shares[] = { 2, 3, 5, 10, 25 };

    (void)state;
    for (unsigned i = 0; i < 10; i++) {
        uint64_t seed = test_seed(500 + i), with = explicit_run(seed, shares[i / 2], true), without = explicit_run(seed, shares[i / 2], false);

        if (with > without + 1) {
            print_message("seed %llu, %u %% free: %llu blocks with kernel pages, %llu without compaction\n", (unsigned long long)seed, shares[i / 2],
                          (unsigned long long)with, (unsigned long long)without);
        }
        assert_true(with <= without + 1);
    }
}

/* Whatever the n-th move is that fails, for each n: nothing is lost, and what was made is counted. */
static void test_every_move_fails_once(void **state)
{
    (void)state;
    for (uint64_t n = 1, left = 0; left == 0; n += n < 40 ? 1 : 37) {
        struct rng r = { 31 };
        struct compact_result result;
        struct fixture f;
        struct owners o;
        uint64_t free, before;

        compact_setup(&f, &o, 8192, CLAIM_CLEAR_FIRST, 31);
        compact_age(&o, 20, 3, &r);
        free = mm_free_pages(&f.mm);
        before = compact_whole_blocks(&f.mm);
        o.refuse_nth = n;
        result = compact_all(&f.mm, TARGET_MOVABLE);
        mm_drain(&f.mm);
        left = o.refuse_nth;                            /* there were not so many */
        assert_true(left == 0 || n > 100);
        assert_int_equal(compact_whole_blocks(&f.mm), before + result.blocks_made);
        assert_int_equal(mm_free_pages(&f.mm), free);
        owners_check(&o);
        check_mm(&f.mm, n);
        compact_teardown(&f, &o);
    }
}

/* Setting up fails cleanly at whichever allocation is refused. */
static void test_init_without_memory(void **state)
{
    struct mm_range ram = { pfn_make(0), pfn_make(4096), 0 };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .cpus = 1 };

    (void)state;
    for (unsigned n = 1; n <= 3; n++) {
        struct fixture f;

        fixture_init_config(&f, &config, 0);
        f.boot_fail_at = f.boot_count + n;
        assert_int_equal(compaction_init(&f.mm, &config), n <= 2 ? MM_ENOMEM : MM_OK);
        fixture_free(&f);
    }
}

/* What the mail thread's three options do when a kernel request finds no whole block. */
static void test_claim_policies(void **state)
{
    static const enum claim_policy policies[] = { CLAIM_LARGEST_LOWEST, CLAIM_NEXT_BLOCK, CLAIM_CLEAR_FIRST };
    uint64_t polluted[3], cleared[3];

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct rng r = { 5 };
        struct fixture f;
        struct owners o;

        compact_setup(&f, &o, 32768, policies[i], 5);
        f.mm.claim_window = 0;
        compact_age(&o, 10, 0, &r);
        assert_int_equal(compact_whole_blocks(&f.mm), 0);
        for (unsigned n = 0; n < 1500; n++) {
            assert_non_null(alloc_pages(&f.mm, GFP_KERNEL | __GFP_HIGH, 0));
        }
        polluted[i] = mm_counter(&f.mm, ZC_fallback_fragmenting);
        cleared[i] = mm_counter(&f.mm, ZC_block_cleared);
        owners_check(&o);
        check_mm(&f.mm, 5);
        compact_teardown(&f, &o);
    }
    assert_true(polluted[0] > 1000 && cleared[0] == 0);
    assert_true(polluted[1] == 0 && cleared[1] == 3);
    assert_true(polluted[2] == 0 && cleared[2] == 3);
}

/* Movable pages that had to go into kernel blocks are sent home before another block is claimed. */
static void test_tenants_go_home(void **state)
{
    struct fixture f;
    struct owners o;
    struct page *kernel[1024];
    uint64_t tenants, claimed;
    unsigned n = 0;

    (void)state;
    compact_setup(&f, &o, 8192, CLAIM_CLEAR_FIRST, 1);
    f.mm.claim_window = 0;
    for (; n < 1024; n++) {
        kernel[n] = alloc_pages(&f.mm, GFP_KERNEL, 0);
    }
    for (unsigned i = 0; i < 1024; i += 2) {
        page_put(&f.mm, kernel[i]);
    }
    while (owners_alloc(&o, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0) != NULL) {
    }
    tenants = mm_counter(&f.mm, ZC_fallback_tenant);
    assert_true(tenants > 400);
    assert_true(f.mm.zones[0].tenant_blocks > 0);
    for (uint32_t i = 0; i < o.count; i += 6) {                 /* room in movable blocks again, but no whole one */
        if (pageblock_type(&f.mm, page_block(o.page_of[i])) == MIGRATE_MOVABLE) {
            owners_put(&o, i);
        }
    }
    mm_drain(&f.mm);
    claimed = mm_counter(&f.mm, ZC_fallback_claim);
    for (unsigned i = 0; i < 300; i++) {
        struct page *p = alloc_pages(&f.mm, GFP_KERNEL | __GFP_HIGH, 0);
        assert_true(p->pfn < 1024 + 512);
    }
    assert_true(o.moves > 0);
    assert_int_equal(mm_counter(&f.mm, ZC_fallback_claim), claimed);
    owners_check(&o);
    check_mm(&f.mm, 0);
    compact_teardown(&f, &o);
}

/* A request of high order compacts on its own time; where that cannot help, it is not tried again and again. */
static void test_direct_compaction(void **state)
{
    struct rng r = { 9 };
    struct fixture f;
    struct owners o;
    uint64_t runs, deferred;

    (void)state;
    compact_setup(&f, &o, 16384, CLAIM_CLEAR_FIRST, 9);
    f.mm.claim_window = 0;
    compact_age(&o, 30, 0, &r);
    assert_int_equal(compact_whole_blocks(&f.mm), 0);
    assert_non_null(alloc_pages(&f.mm, GFP_TRANSHUGE, PAGEBLOCK_ORDER));
    assert_int_equal(mm_counter(&f.mm, ZC_compact_run), 1);
    assert_int_equal(mm_counter(&f.mm, ZC_fallback_fragmenting), 0);
    assert_null(alloc_pages(&f.mm, GFP_NOWAIT | __GFP_MOVABLE, PAGEBLOCK_ORDER));      /* cannot sleep */
    assert_int_equal(mm_counter(&f.mm, ZC_compact_run), 1);
    owners_check(&o);
    check_mm(&f.mm, 9);
    for (uint32_t i = 0; i < o.count; i++) {            /* nothing can move any more */
        page_set_flags(o.page_of[i], PG_PINNED);
    }
    for (unsigned i = 0; i < 200; i++) {
        assert_null(alloc_pages(&f.mm, GFP_TRANSHUGE, PAGEBLOCK_ORDER));
    }
    runs = mm_counter(&f.mm, ZC_compact_run) - 1;
    deferred = mm_counter(&f.mm, ZC_compact_deferred);
    assert_true(runs >= 2 && runs < 20 && deferred > 150);
    check_mm(&f.mm, 9);
    compact_teardown(&f, &o);
}

/* Random allocation, freeing, compaction, isolation and background work, fsck at each step, all policies. */
static void test_property(void **state)
{
    (void)state;
    for (uint64_t run = 0; run < 9; run++) {
        uint64_t seed = test_seed(300 + run);
        struct rng r = { seed };
        struct fixture f;
        struct owners o;
        struct page *kernel[4000];
        unsigned kernel_count = 0;

        compact_setup(&f, &o, 8192, (enum claim_policy)(run % 3), seed);
        o.refuse_one_in = 20;
        for (unsigned step = 0; step < 6000; step++) {
            uint64_t what = rng_below(&r, 1000);

            if (what < 400) {
                (void)owners_alloc(&o, GFP_HIGH_MOVABLE, (unsigned)rng_below(&r, 3));
            } else if (what < 500 && kernel_count < 4000) {
                gfp_t gfp = rng_below(&r, 2) != 0 ? GFP_KERNEL : GFP_KERNEL | __GFP_RECLAIMABLE;
                kernel[kernel_count] = alloc_pages(&f.mm, gfp, (unsigned)rng_below(&r, 4));
                kernel_count += kernel[kernel_count] != NULL;
            } else if (what < 850 && o.count > 0) {
                owners_put(&o, (uint32_t)rng_below(&r, o.count));
            } else if (what < 980 && kernel_count > 0) {
                unsigned i = (unsigned)rng_below(&r, kernel_count);
                page_put(&f.mm, kernel[i]);
                kernel[i] = kernel[--kernel_count];
            } else if (what < 985) {
                (void)compact_all(&f.mm, (enum compact_targets)rng_below(&r, 3));
            } else if (what < 990) {
                uint32_t b = (uint32_t)rng_below(&r, 14);
                if (isolate_range(&f.mm, block_pfn(b), block_pfn(b + 2), ISOLATE_RESIDUAL, NULL) == MM_OK) {
                    struct compact_result result;
                    mm_status_t status = evacuate_range(&f.mm, block_pfn(b), block_pfn(b + 2), &result);
                    assert_true(status == MM_OK || status == MM_EAGAIN);
                    check_mm(&f.mm, seed);
                    assert_int_equal(isolate_undo(&f.mm, block_pfn(b), block_pfn(b + 2)), MM_OK);
                }
            } else {
                (void)compaction_background(&f.mm, &f.mm.zones[0]);
                (void)compaction_proactive(&f.mm, 0);
            }
            if (step % 16 == 0 || what >= 980) {
                check_mm(&f.mm, seed);
                owners_check(&o);
            }
        }
        while (o.count > 0) {
            owners_put(&o, 0);
        }
        while (kernel_count > 0) {
            page_put(&f.mm, kernel[--kernel_count]);
        }
        mm_drain(&f.mm);
        assert_int_equal(mm_free_pages(&f.mm), 8192);
        assert_int_equal(compact_whole_blocks(&f.mm), 16);
        check_mm(&f.mm, seed);
        compact_teardown(&f, &o);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reaches_the_limit),
        cmocka_unit_test(test_mixed_orders_and_refusals),
        cmocka_unit_test(test_explicit_beside_kernel_pages),
        cmocka_unit_test(test_every_move_fails_once),
        cmocka_unit_test(test_init_without_memory),
        cmocka_unit_test(test_claim_policies),
        cmocka_unit_test(test_tenants_go_home),
        cmocka_unit_test(test_direct_compaction),
        cmocka_unit_test(test_property),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
