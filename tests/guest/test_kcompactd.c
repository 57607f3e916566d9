/* test_kcompactd.c - what is compacted without anybody waiting: marks, scores, backing off, what somebody went without. */
#include "compact_fixture.h"
#include "fragmentation.h"
#include "pageblock.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

static struct fixture f;
static struct owners o;

static void aged(unsigned free_percent, uint64_t seed)
{
    struct rng r = { seed };

    compact_setup(&f, &o, 32768, CLAIM_CLEAR_FIRST, seed);
    f.mm.claim_window = 0;
    compact_age(&o, free_percent, 0, &r);
    assert_int_equal(compact_whole_blocks(&f.mm), 0);
}

static void done(uint64_t seed)
{
    mm_drain(&f.mm);
    owners_check(&o);
    check_mm(&f.mm, seed);
    compact_teardown(&f, &o);
}

static void test_marks(void **state)
{
    static const struct { uint32_t eager; unsigned low, high; } cases[] = { { 1, 99, 100 }, { 20, 80, 90 }, { 90, 10, 20 }, { 95, 5, 15 }, { 100, 5, 15 } };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(compaction_score_mark(cases[i].eager, true), cases[i].low);
        assert_int_equal(compaction_score_mark(cases[i].eager, false), cases[i].high);
    }
}

/* Above the high mark it works until the low one, and not again until the high one is passed. */
static void test_works_between_marks(void **state)
{
    static const uint32_t eager[] = { 20, 50, 90 };
    uint64_t moved, before = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(eager) / sizeof(eager[0]); i++) {
        unsigned low = compaction_score_mark(eager[i], true);

        aged(40, 1);
        f.mm.compaction_proactiveness = eager[i];
        assert_int_equal(node_fragmentation_score(&f.mm, 0), 100);
        moved = compaction_proactive(&f.mm, 0);
        assert_true(node_fragmentation_score(&f.mm, 0) <= low);
        assert_true(node_fragmentation_score(&f.mm, 0) + 6 > low);          /* one block is 4 % of what is free here */
        assert_int_equal(moved, o.moves);
        assert_true(moved > before);                                        /* the more eager the more work */
        before = moved;
        assert_int_equal(compaction_proactive(&f.mm, 0), 0);
        assert_int_equal(mm_counter(&f.mm, ZC_compact_proactive), 1);
        assert_int_equal(mm_counter(&f.mm, ZC_compact_daemon_moved), moved);
        done(1);
    }
}

/* 0 turns it off; where nothing can be gained, 63 ticks are left out, then it is tried once more. */
static void test_off_and_backing_off(void **state)
{
    (void)state;
    aged(40, 2);
    f.mm.compaction_proactiveness = 0;
    assert_int_equal(compaction_proactive(&f.mm, 0), 0);
    assert_int_equal(mm_counter(&f.mm, ZC_compact_run), 0);
    f.mm.compaction_proactiveness = 20;
    for (uint32_t i = 0; i < o.count; i++) {
        page_set_flags(o.page_of[i], PG_PINNED);
    }
    for (unsigned tick = 0; tick < 129; tick++) {
        assert_int_equal(compaction_proactive(&f.mm, 0), 0);
    }
    assert_int_equal(mm_counter(&f.mm, ZC_compact_run), 3);                 /* ticks 0, 64, 128 */
    assert_int_equal(mm_counter(&f.mm, ZC_compact_proactive_deferred), 126);
    for (uint32_t i = 0; i < o.count; i++) {
        page_clear_flags(o.page_of[i], PG_PINNED);
    }
    for (unsigned tick = 0; tick < 64; tick++) {
        (void)compaction_proactive(&f.mm, 0);
    }
    assert_true(node_fragmentation_score(&f.mm, 0) <= 80);
    done(2);
}

/* A request that cannot sleep fails and leaves its order behind; the background makes it, if the index says that this can help. */
static void test_makes_what_was_missing(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        static const unsigned orders[] = { PAGEBLOCK_ORDER, PAGEBLOCK_ORDER, MAX_ORDER };

        aged(40, 3);
        f.mm.hooks.wake = NULL;
        f.mm.compaction_proactiveness = 0;
        assert_null(alloc_pages(&f.mm, GFP_NOWAIT | __GFP_MOVABLE, orders[i]));
        f.mm.extfrag_threshold = i == 1 ? 1000 : 500;
        f.mm.zones[0].wanted_order = orders[i];                             /* as wake_zones() leaves it, with a hook */
        (void)compaction_background(&f.mm, &f.mm.zones[0]);
        assert_int_equal(f.mm.zones[0].wanted_order, 0);
        assert_int_equal(mm_counter(&f.mm, ZC_compact_run), i != 1);
        if (i != 1) {
            assert_non_null(alloc_pages(&f.mm, GFP_NOWAIT | __GFP_MOVABLE, orders[i]));
        } else {
            assert_null(alloc_pages(&f.mm, GFP_NOWAIT | __GFP_MOVABLE, orders[i]));
        }
        (void)compaction_background(&f.mm, &f.mm.zones[0]);
        assert_int_equal(mm_counter(&f.mm, ZC_compact_run), i != 1);        /* nobody asked again */
        done(3);
    }
}

static unsigned wakes;
static void wake(struct mm *mm, struct zone *z)
{
    (void)mm, (void)z;
    wakes++;
}

/* The order is left behind by the request itself, for each zone of its list. */
static void test_order_is_left_behind(void **state)
{
    (void)state;
    aged(40, 4);
    f.mm.hooks.wake = wake;
    wakes = 0;
    assert_null(alloc_pages(&f.mm, GFP_NOWAIT | __GFP_MOVABLE, PAGEBLOCK_ORDER));
    assert_int_equal(f.mm.zones[0].wanted_order, PAGEBLOCK_ORDER);
    assert_null(alloc_pages(&f.mm, GFP_NOWAIT | __GFP_MOVABLE, PAGEBLOCK_ORDER));
    assert_true(wakes >= 2);
    (void)compaction_background(&f.mm, &f.mm.zones[0]);
    assert_non_null(alloc_pages(&f.mm, GFP_NOWAIT | __GFP_MOVABLE, PAGEBLOCK_ORDER));
    done(4);
}

/* Several zones and nodes: each node's score is that of its own memory. */
static void test_nodes(void **state)
{
    struct mm_range ram[] = { { pfn_make(0), pfn_make(16384), 0 }, { pfn_make(16384), pfn_make(32768), 1 } };
    struct mm_config config = { .ram = ram, .ram_count = 2, .cpus = 1 };
    struct rng r = { 5 };

    (void)state;
    fixture_init_config(&f, &config, 0);
    assert_int_equal(compaction_init(&f.mm, &config), MM_OK);
    owners_init(&o, &f.mm, 32768, 5);
    f.mm.claim_window = 0;
    while (owners_alloc(&o, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0) != NULL) {
    }
    while (mm_free_pages(&f.mm) < 13000) {
        owners_put(&o, (uint32_t)rng_below(&r, o.count));
    }
    mm_drain(&f.mm);
    assert_int_equal(node_fragmentation_score(&f.mm, 0), 100);
    assert_true(compaction_proactive(&f.mm, 0) > 0);
    assert_true(node_fragmentation_score(&f.mm, 0) <= 80);
    assert_int_equal(node_fragmentation_score(&f.mm, 1), 100);
    assert_true(compact_node(&f.mm, 1, TARGET_DEFAULT).blocks_made > 0);
    assert_true(node_fragmentation_score(&f.mm, 1) < 10);
    assert_true(node_fragmentation_score(&f.mm, 0) > 50);                   /* the other one's business */
    done(5);
}

/* Movable lists run dry: the kernel block that is mostly free is lent. When there is room again, it goes back, with nothing mixed. */
static void test_lent_blocks_return(void **state)
{
    static struct page *kernel[1024];
    uint64_t mixed;

    (void)state;
    compact_setup(&f, &o, 16384, CLAIM_CLEAR_FIRST, 6);
    f.mm.claim_window = 0;
    f.mm.compaction_proactiveness = 0;
    for (unsigned i = 0; i < 1024; i++) {
        kernel[i] = alloc_pages(&f.mm, GFP_KERNEL, 0);
        assert_non_null(kernel[i]);
    }
    while (f.mm.zones[0].free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE] > 0 || mm_free_pages(&f.mm) > 8) {
        assert_non_null(owners_alloc(&o, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0));
        mm_drain(&f.mm);
    }
    for (unsigned i = 0; i < 1024; i++) {
        if (i % 512 >= 50) {
            page_put(&f.mm, kernel[i]);
        }
    }
    mm_drain(&f.mm);
    (void)compaction_background(&f.mm, &f.mm.zones[0]);
    assert_int_equal(mm_counter(&f.mm, ZC_block_lent), 1);
    assert_int_equal(f.mm.zones[0].lent_blocks, 1);
    for (unsigned i = 0; i < 200; i++) {
        assert_non_null(owners_alloc(&o, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0));
    }
    mm_drain(&f.mm);
    (void)compact_kernel_blocks(&f.mm, &mixed);
    assert_int_equal(mixed, 1);
    check_mm(&f.mm, 6);
    for (uint32_t i = 0; i < o.count; i += 8) {                            /* room again, and no whole block */
        if (page_block(o.page_of[i]) > 2) {
            owners_put(&o, i);
        }
    }
    mm_drain(&f.mm);
    assert_true(compaction_background(&f.mm, &f.mm.zones[0]) > 150);
    assert_int_equal(mm_counter(&f.mm, ZC_block_returned), 1);
    assert_int_equal(f.mm.zones[0].lent_blocks, 0);
    (void)compact_kernel_blocks(&f.mm, &mixed);
    assert_int_equal(mixed, 0);
    done(6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_marks),
        cmocka_unit_test(test_works_between_marks),
        cmocka_unit_test(test_off_and_backing_off),
        cmocka_unit_test(test_makes_what_was_missing),
        cmocka_unit_test(test_order_is_left_behind),
        cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_lent_blocks_return),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
