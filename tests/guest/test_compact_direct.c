/* test_compact_direct.c - who compacts gets what he made; hints; asynchronous and synchronous runs; reclaim or compaction by index. */
#include "compact_fixture.h"
#include "fragmentation.h"
#include "isolation.h"
#include "pageblock.h"
#include <pthread.h>
#include <sched.h>
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

    compact_setup(&f, &o, 16384, CLAIM_CLEAR_FIRST, seed);
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

/* ---- capture ---- */

/* Every kind and order of request gets its unit out of the block that was emptied for it. */
static void test_capture(void **state)
{
    static const struct { gfp_t gfp; unsigned order; } requests[] = {
        { GFP_TRANSHUGE, PAGEBLOCK_ORDER }, { GFP_HIGH_MOVABLE, 5 }, { GFP_KERNEL, 3 }, { GFP_KERNEL, PAGEBLOCK_ORDER },
        { GFP_KERNEL | __GFP_RECLAIMABLE, 2 }, { GFP_HIGH_MOVABLE, MAX_ORDER }, { GFP_KERNEL, 0 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        uint64_t free;
        struct page *p;

        aged(30, 9 + i);
        free = mm_free_pages(&f.mm);
        p = alloc_pages(&f.mm, requests[i].gfp, requests[i].order);
        assert_non_null(p);
        assert_int_equal(mm_counter(&f.mm, ZC_compact_captured), 1);
        assert_int_equal(mm_counter(&f.mm, ZC_fallback_fragmenting), 0);
        assert_int_equal(page_state(p), PAGE_USED);
        assert_int_equal(page_order(p), requests[i].order);
        assert_int_equal(page_refs(p), 1);
        assert_int_equal(p->pfn & ((1u << requests[i].order) - 1), 0);
        mm_drain(&f.mm);
        assert_int_equal(mm_free_pages(&f.mm), free - (1ull << requests[i].order));
        check_mm(&f.mm, i);
        page_put(&f.mm, p);
        mm_drain(&f.mm);
        assert_int_equal(mm_free_pages(&f.mm), free);
        done(i);
    }
}

/* A movable request of middle order ends as soon as its unit is there: it needs no whole block. */
static void test_capture_of_part(void **state)
{
    (void)state;
    aged(10, 3);
    assert_non_null(alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 6));
    assert_int_equal(mm_counter(&f.mm, ZC_compact_captured), 1);
    assert_true(o.moves < PAGEBLOCK_PAGES / 2);
    done(3);
}

/* Taken while it is still isolated: it is on no list that anybody else allocates from, and an isolation of somebody else's stays. */
static void test_undo_and_take(void **state)
{
    struct page *p;

    (void)state;
    compact_setup(&f, &o, 8192, CLAIM_CLEAR_FIRST, 1);
    assert_int_equal(isolate_range(&f.mm, block_pfn(3), block_pfn(4), 0, NULL), MM_OK);
    assert_int_equal(isolate_range(&f.mm, block_pfn(2), block_pfn(5), 0, NULL), MM_OK);
    assert_null(isolate_undo_take(&f.mm, 3, 4, MIGRATE_MOVABLE));           /* somebody else has it isolated */
    assert_int_equal(pageblock_type(&f.mm, 3), MIGRATE_ISOLATE);
    p = isolate_undo_take(&f.mm, 3, 4, MIGRATE_UNMOVABLE);
    assert_ptr_equal(p, mm_block_page(&f.mm, 3));
    assert_int_equal(pageblock_type(&f.mm, 3), MIGRATE_UNMOVABLE);
    assert_int_equal(page_state(p), PAGE_PCP);
    page_set_word(p, PAGE_WORD(PAGE_USED, 4, MIGRATE_UNMOVABLE, 0));
    atomic_store(&p->refs, 1);
    assert_int_equal(isolate_range(&f.mm, block_pfn(7), block_pfn(8), 0, NULL), MM_OK);
    assert_non_null(alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 0));
    assert_int_equal(isolate_undo(&f.mm, block_pfn(2), block_pfn(3)), MM_OK);
    assert_int_equal(isolate_undo(&f.mm, block_pfn(4), block_pfn(5)), MM_OK);
    assert_int_equal(isolate_undo(&f.mm, block_pfn(7), block_pfn(8)), MM_OK);
    page_put(&f.mm, p);
    done(1);
}

/* ---- hints ---- */

static struct compact_result run(enum compact_mode mode, uint32_t blocks, bool ignore_hints)
{
    struct compact_request q = { .mode = mode, .blocks_wanted = blocks, .ignore_hints = ignore_hints };
    struct compact_result r;

    assert_int_equal(compact_zone(&f.mm, &f.mm.zones[0], &q, &r), MM_OK);
    return r;
}

static bool block_whole_now(uint32_t block)
{
    return mm_block(&f.mm, block)->free_pages == PAGEBLOCK_PAGES;
}

static uint32_t hints(void)
{
    uint32_t n = 0;

    for (uint32_t b = 0; b < 32; b++) {
        n += compact_hint_valid(&f.mm, &f.mm.zones[0], b);
    }
    return n;
}

/* Blocks whose pages were busy are passed over, until pages are freed in them, or somebody ignores hints, or a full pass has ended. */
static void test_hints(void **state)
{
    struct compact_result r;
    uint32_t block, pinned, valid, owner = 0;

    (void)state;
    aged(20, 5);
    o.refuse_one_in = 1;
    r = run(COMPACT_SYNC_LIGHT, UINT32_MAX, false);
    assert_true(r.blocks_made == 0 && r.failed_pages == 32 && r.scanners_met);
    mm_drain(&f.mm);                                                        /* targets that were not used come back: to one block */
    valid = hints();
    assert_true(valid >= 31);
    r = run(COMPACT_SYNC_LIGHT, UINT32_MAX, false);
    assert_int_equal(r.blocks_skipped, valid);
    assert_int_equal(r.failed_pages, 32 - valid);
    mm_drain(&f.mm);
    valid = hints();
    o.refuse_one_in = 0;
    while (!compact_hint_valid(&f.mm, &f.mm.zones[0], page_block(o.page_of[owner]))) {
        owner++;
    }
    block = page_block(o.page_of[owner]);
    owners_put(&o, owner);                                                  /* memory is freed in one that has a hint */
    mm_drain(&f.mm);
    assert_int_equal(hints(), valid - 1);
    assert_false(compact_hint_valid(&f.mm, &f.mm.zones[0], block));
    r = run(COMPACT_SYNC_LIGHT, UINT32_MAX, false);
    assert_true(r.blocks_skipped >= valid - 1 && r.blocks_made >= 1);
    assert_true(block_whole_now(block));
    assert_true(f.mm.zones[0].skip_stale);
    (void)compaction_background(&f.mm, &f.mm.zones[0]);
    assert_int_equal(hints(), 0);                                           /* a pass has ended, and kcompactd came to rest */
    pinned = 11;
    block = page_block(o.page_of[pinned]);
    page_set_flags(o.page_of[pinned], PG_PINNED);
    r = run(COMPACT_SYNC_LIGHT, UINT32_MAX, false);
    assert_true(r.failed_pages == 0 || !block_whole_now(block));
    page_clear_flags(o.page_of[pinned], PG_PINNED);
    r = run(COMPACT_SYNC, UINT32_MAX, true);
    assert_int_equal(r.blocks_skipped, 0);
    assert_int_equal(hints(), 0);
    done(5);
}

/* ---- asynchronous, synchronous ---- */

static void test_async_is_bounded(void **state)
{
    struct compact_result r;
    uint64_t before;

    (void)state;
    aged(50, 6);
    r = run(COMPACT_ASYNC, UINT32_MAX, false);
    assert_true(r.stopped && !r.scanners_met);
    assert_true(r.migrated_pages >= 1024 && r.migrated_pages < 1024 + PAGEBLOCK_PAGES);
    assert_int_equal(mm_counter(&f.mm, ZC_compact_async_stop), 1);
    before = compact_whole_blocks(&f.mm);
    r = run(COMPACT_SYNC_LIGHT, UINT32_MAX, false);
    assert_true(!r.stopped && r.scanners_met);
    assert_true(compact_whole_blocks(&f.mm) > before);
    done(6);
}

static mm_status_t (*owners_mover)(void *ctx, struct page *from, struct page *to);

static void *let_go(void *arg)
{
    for (unsigned i = 0; i < 1000; i++) {
        sched_yield();
    }
    spin_unlock(arg);
    return NULL;
}

/* An asynchronous run gives up at a lock that is held; a synchronous one waits for it. */
static void test_async_gives_up_on_a_lock(void **state)
{
    struct compact_result r;
    pthread_t thread;

    (void)state;
    aged(30, 7);
    spin_lock(&f.mm.zones[0].lock);
    r = run(COMPACT_ASYNC, 1, false);
    assert_true(r.stopped && !r.scanners_met && r.blocks_made == 0);
    assert_int_equal(o.moves, 0);
    assert_int_equal(mm_counter(&f.mm, ZC_compact_async_stop), 1);
    assert_int_equal(pthread_create(&thread, NULL, let_go, &f.mm.zones[0].lock), 0);
    r = run(COMPACT_SYNC_LIGHT, 1, false);
    pthread_join(thread, NULL);
    assert_true(!r.stopped && r.blocks_made == 1);
    done(7);
}

static unsigned busy_for;
static uint64_t tried;
static mm_status_t move_busy(void *ctx, struct page *from, struct page *to)
{
    if (busy_for > 0) {
        busy_for--;
        tried++;
        return MM_EAGAIN;
    }
    return owners_mover(ctx, from, to);
}

/* A page that is busy once: an asynchronous run leaves it, a light one tries again, a synchronous one waits for it. */
static void test_modes_and_busy_pages(void **state)
{
    static const struct { enum compact_mode mode; unsigned busy; uint64_t tries; bool made; } cases[] = {
        { COMPACT_ASYNC, 1, 1, false }, { COMPACT_SYNC_LIGHT, 2, 2, true }, { COMPACT_SYNC_LIGHT, 3, 3, false }, { COMPACT_SYNC, 3, 3, true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct compact_result r;

        aged(30, 8);
        owners_mover = f.mm.migrate.move;
        f.mm.migrate.move = move_busy;
        f.mm.migrate.move_wait = owners_mover;
        busy_for = cases[i].busy;
        tried = 0;
        r = run(cases[i].mode, 1, false);
        assert_int_equal(tried, cases[i].tries);
        assert_int_equal(r.failed_pages == 0, cases[i].made);
        assert_int_equal(r.blocks_made, 1);
        done(8);
    }
}

/* ---- reclaim or compaction ---- */

static uint64_t reclaims;
static uint64_t count_reclaim(struct mm *mm, struct zone *z, unsigned order, gfp_t gfp)
{
    (void)mm, (void)z, (void)order, (void)gfp;
    reclaims++;
    return 0;
}

/* Above the threshold compaction's, at or below it reclaim's turn, and the marks are the same for both. */
static void test_index_decides(void **state)
{
    struct page *p;
    int index;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        aged(30, 10);
        f.mm.hooks.reclaim = count_reclaim;
        f.mm.hooks.clear_block = NULL;
        reclaims = 0;
        index = zone_extfrag_index(&f.mm.zones[0], 8);
        assert_true(index > 500);
        f.mm.extfrag_threshold = i == 0 ? 500 : (uint32_t)index;
        p = alloc_pages(&f.mm, GFP_KERNEL | __GFP_NORETRY, 8);
        assert_int_equal(reclaims > 0, i == 1);
        assert_int_equal(mm_counter(&f.mm, ZC_compact_run) > 0, i == 0);
        assert_int_equal(mm_counter(&f.mm, ZC_compact_not_suitable) > 0, i == 1);
        assert_int_equal(p != NULL && mm_counter(&f.mm, ZC_compact_captured) == 1, i == 0);
        done(10);
    }
    aged(1, 11);                                        /* 163 pages free, below min: nobody compacts, whatever the index says */
    f.mm.hooks.reclaim = count_reclaim;
    f.mm.hooks.clear_block = NULL;
    f.mm.extfrag_threshold = 0;
    reclaims = 0;
    assert_null(alloc_pages(&f.mm, GFP_KERNEL, 3));
    assert_true(reclaims > 0);
    assert_int_equal(mm_counter(&f.mm, ZC_compact_run), 0);
    done(11);
}

/* The two indices against their definitions, computed from the pages. */
static void test_indices(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 8; i++) {
        struct rng r = { 60 + i };
        uint64_t units[MAX_ORDER + 1] = { 0 }, total = 0, free = 0;

        compact_setup(&f, &o, 16384, CLAIM_CLEAR_FIRST, 60 + i);
        compact_age(&o, 3 + 10 * i, i % 4, &r);
        for (uint64_t pfn = 0; pfn < 16384; pfn++) {
            const struct page *p = mm_page(&f.mm, pfn_make(pfn));

            if (page_is_free(&f.mm, p) && pfn % (1u << page_free_order(&f.mm, p)) == 0) {
                units[page_free_order(&f.mm, p)]++;
                total++;
                free += 1ull << page_free_order(&f.mm, p);
            }
        }
        assert_int_equal(units[PAGEBLOCK_ORDER], 0);
        for (unsigned order = 0; order <= PAGEBLOCK_ORDER; order++) {
            uint64_t suitable = 0;
            int expected;

            for (unsigned k = order; k <= PAGEBLOCK_ORDER; k++) {
                suitable += units[k] << k;
            }
            assert_int_equal(zone_unusable_index(&f.mm.zones[0], order), (free - suitable) * 1000 / free);
            expected = suitable > 0 ? -1000 : (int)(1000 - (1000 + free * 1000 / (1u << order)) / total);
            assert_int_equal(zone_extfrag_index(&f.mm.zones[0], order), expected);
            assert_int_equal(zone_compaction_helps(&f.mm.zones[0], order, 500), expected < 0 || expected > 500);
        }
        assert_int_equal(zone_fragmentation_score(&f.mm.zones[0]), 100);
        done(60 + i);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_capture),
        cmocka_unit_test(test_capture_of_part),
        cmocka_unit_test(test_undo_and_take),
        cmocka_unit_test(test_hints),
        cmocka_unit_test(test_async_is_bounded),
        cmocka_unit_test(test_async_gives_up_on_a_lock),
        cmocka_unit_test(test_modes_and_busy_pages),
        cmocka_unit_test(test_index_decides),
        cmocka_unit_test(test_indices),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
