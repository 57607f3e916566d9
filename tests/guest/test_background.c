/* test_background.c - the poll for kswapd, kcompactd and khugepaged: who is woken is served once, who is not costs nothing, ticks, a clock that goes back. */
#include "cache_check.h"
#include "background.h"
#include "compaction.h"
#include "reclaim.h"
#include "thp.h"
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#define RAM_PAGES 8192u
#define VA        0x40000000ull
#define PAGE      ((uint64_t)FS_PAGE_BYTES)

static struct guest g;

static int start(void **state)
{
    (void)state;
    guest_init(&g, RAM_PAGES, 1, 8192);
    background_init(&g.f.mm);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    check_caches(&g, 1);
    guest_free(&g);
    return 0;
}

static uint64_t counted(enum zone_counter c) { return mm_counter(&g.f.mm, c); }

/* One mark, one turn; and again after the next one. */
static void serves_who_was_woken(void **state)
{
    struct zone *z = &g.f.mm.zones[0];
    uint64_t now = 1;

    (void)state;
    g.f.mm.compaction_proactiveness = 0;
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(counted(ZC_compact_daemon_wake), i);
        assert_false(background_poll(&g.f.mm, &g.vm, now++));
        g.f.mm.hooks.wake(&g.f.mm, z);
        g.f.mm.hooks.wake(&g.f.mm, z);
        assert_true(background_poll(&g.f.mm, &g.vm, now++));
        assert_false(background_poll(&g.f.mm, &g.vm, now++));
        assert_int_equal(counted(ZC_compact_daemon_wake), i + 1);
    }
}

/* An allocation below low wakes by itself; the poll reclaims up to high, then nothing is wanted any more. */
static void reclaims_below_low(void **state)
{
    struct zone *z = &g.f.mm.zones[0];
    struct mm_struct *mm;
    uint64_t va = VA, at = VA;

    (void)state;
    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    assert_int_equal(vm_mmap(mm, &va, RAM_PAGES * PAGE, VM_ACCESS, NULL, 0), MM_OK);
    assert_int_equal(va, VA);
    while (!reclaim_wanted(z)) {
        assert_int_equal(vm_user_write(mm, at, &at, sizeof(at)), MM_OK);
        at += PAGE;
        assert_true(at < VA + RAM_PAGES * PAGE);
    }
    for (unsigned i = 0; i < 128; i++, at += PAGE) {            /* lists of a CPU have no need of the zone */
        assert_int_equal(vm_user_write(mm, at, &at, sizeof(at)), MM_OK);
    }
    assert_true(reclaim_wanted(z));
    assert_true(background_poll(&g.f.mm, &g.vm, 1));
    assert_false(reclaim_wanted(z));
    for (uint64_t word; at > VA;) {
        at -= PAGE;
        assert_int_equal(vm_user_read(mm, at, &word, sizeof(word)), MM_OK);
        assert_int_equal(word, at);
    }
    mm_put(mm);
}

/* Every second page of memory is free: one look in half a second, also when the clock has gone back. */
static void ticks(void **state)
{
    static struct page *pages[RAM_PAGES];
    uint64_t late = 1000 * KCOMPACTD_TICK_NS;
    unsigned n = 0;

    (void)state;
    while (n < RAM_PAGES && (pages[n] = alloc_pages(&g.f.mm, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0)) != NULL) {
        page_set_flags(pages[n++], PG_PINNED);                  /* nobody can move them: the run gains nothing, the next 63 ticks are left out */
    }
    for (unsigned i = 0; i < n; i += 2) {
        page_put(&g.f.mm, pages[i]);
    }
    mm_drain(&g.f.mm);
    (void)background_poll(&g.f.mm, &g.vm, late);
    assert_int_equal(counted(ZC_compact_proactive), 1);
    (void)background_poll(&g.f.mm, &g.vm, late + KCOMPACTD_TICK_NS - 1);
    assert_int_equal(counted(ZC_compact_proactive_deferred), 0);
    (void)background_poll(&g.f.mm, &g.vm, late + KCOMPACTD_TICK_NS);
    assert_int_equal(counted(ZC_compact_proactive_deferred), 1);
    (void)background_poll(&g.f.mm, &g.vm, 5);                   /* another machine's clock */
    assert_int_equal(counted(ZC_compact_proactive_deferred), 2);
    (void)background_poll(&g.f.mm, &g.vm, 6);
    assert_int_equal(counted(ZC_compact_proactive_deferred), 2);
    for (unsigned i = 1; i < n; i += 2) {
        page_put(&g.f.mm, pages[i]);
    }
}

/* Ranges that want to be huge become so, a bounded number a tick, in turn over all processes; none with THP_NEVER; none for a minute where memory is out. */
static void collapses_a_part_each_tick(void **state)
{
    enum { UNITS = 6, ALL = 8 };
    struct mm_struct *mm[2];
    uint64_t now = 1, ticks = 0, before = 0;

    (void)state;
    g.f.mm.compaction_proactiveness = 0;
    for (unsigned m = 0; m < 2; m++) {
        uint64_t va = VA;

        assert_int_equal(mm_create(&g.vm, &mm[m]), MM_OK);
        assert_int_equal(vm_mmap(mm[m], &va, UNITS * HUGE_BYTES, VM_ACCESS, NULL, 0), MM_OK);
        for (uint64_t u = 0; u < UNITS; u++) {
            for (uint64_t i = 0; i < THP_COLLAPSE_PRESENT; i++) {
                uint64_t at = va + u * HUGE_BYTES + i * PAGE;

                assert_int_equal(vm_user_write(mm[m], at, &at, sizeof(at)), MM_OK);
            }
        }
    }
    assert_false(background_poll(&g.f.mm, &g.vm, now += KCOMPACTD_TICK_NS));       /* madvise, and nobody said so */
    for (unsigned m = 0; m < 2; m++) {
        assert_int_equal(vm_madvise(mm[m], VA, UNITS * HUGE_BYTES, MADV_HUGEPAGE), MM_OK);
    }
    thp_set_policy(&g.vm, THP_NEVER);
    assert_false(background_poll(&g.f.mm, &g.vm, now += KCOMPACTD_TICK_NS));
    thp_set_policy(&g.vm, THP_MADVISE);
    while (vm_counter(&g.vm, VMC_thp_collapse) < 2 * UNITS) {
        (void)background_poll(&g.f.mm, &g.vm, now += KCOMPACTD_TICK_NS);
        assert_false(background_poll(&g.f.mm, &g.vm, now));                         /* once a tick */
        assert_true(vm_counter(&g.vm, VMC_thp_collapse) - before <= ALL);
        before = vm_counter(&g.vm, VMC_thp_collapse);
        assert_true(++ticks < 8);
    }
    assert_true(ticks > 1);
    for (unsigned m = 0; m < 2; m++) {
        for (uint64_t u = 0; u < UNITS; u++) {
            uint64_t at = VA + u * HUGE_BYTES + 5 * PAGE, word;

            assert_int_equal(vm_user_read(mm[m], at, &word, sizeof(word)), MM_OK);
            assert_int_equal(word, at);
        }
        mm_put(mm[m]);
    }
    assert_false(background_poll(&g.f.mm, &g.vm, now += KCOMPACTD_TICK_NS));       /* it remembers a process that is gone */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(serves_who_was_woken, start, stop),
        cmocka_unit_test_setup_teardown(reclaims_below_low, start, stop),
        cmocka_unit_test_setup_teardown(ticks, start, stop),
        cmocka_unit_test_setup_teardown(collapses_a_part_each_tick, start, stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
