/*
 * test_situations.c - the five situations of thread 000 in short form, each with its verdict; movable nodes.
 *
 * FRAMESHIFT_SEED: another system. That a verdict can be FAIL is test_situations_weak.c's, threads 002 and 004 are
 * test_situations_tables.c's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "../situations/situations.h"
#include "../../guest/mm/page_alloc.h"

static struct aged a;

static uint64_t seed(void)
{
    const char *text = getenv("FRAMESHIFT_SEED");

    return text != NULL ? strtoull(text, NULL, 0) : 1;
}

static void make(unsigned situation)
{
    struct aged_config c = aged_for(situation, seed(), true);

    c.events = c.ager.grow_events = 4000;
    assert_true(aged_make(&a, &c));
    assert_true(a.before.free < a.before.pages / 10);           /* memory is full, and of everything */
    assert_true(a.before.fixed > a.before.pages / 20 && a.before.movable > a.before.pages / 2);
    assert_true(a.before.stays[STAYS_SLAB] > 200 && a.before.stays[STAYS_TABLE] > 20 && a.before.stays[STAYS_DMA] > 20);
    assert_true(a.before.polluted * 100 <= a.before.blocks);
}

static void finish(const struct verdict *v)
{
    assert_int_equal(aged_end(&a), 0);
    if (!v->pass) {
        fail_msg("seed %llu: situation %u: must be: %s; is: %s", (unsigned long long)seed(), v->situation, v->criterion, v->is);
    }
    print_message("%u: %s\n", v->situation, v->is);
}

static void test_atomic(void **state)
{
    struct atomic_result r;
    struct verdict v;

    (void)state;
    make(1);
    situation_atomic(&a, 120, &r);
    judge_atomic(&r, &v);
    assert_true(r.free_least < a.before.pages / 20);            /* under pressure */
    assert_true(r.by[HELPER_WHOLE] > 0 && r.by[HELPER_PCP] > 0);
    finish(&v);
}

static void test_huge(void **state)
{
    struct huge_result r;
    struct verdict v;

    (void)state;
    make(2);
    situation_huge(&a, HUGE_MISSES, &r);
    judge_huge(&r, &v);
    assert_true(r.moved > 5000 && r.reclaimed > 5000 && r.compact_runs > 50);
    /* Most of what it takes is moved, not thrown out. */
    assert_true(r.reclaimed < r.got * PAGEBLOCK_PAGES / 2);
    finish(&v);
}

static void leaves(unsigned situation, uint32_t ranges)
{
    struct leave_result r;
    struct verdict v;

    make(situation);
    situation_leave(&a, situation, &r);
    judge_leave(&r, &v);
    assert_int_equal(r.count, ranges);
    assert_true(r.leave[0].migrated > 500 && r.leave[0].extents > 30);
    finish(&v);
}

static void test_section(void **state)
{
    (void)state;
    leaves(3, 4);
}

static void test_dimm(void **state)
{
    (void)state;
    leaves(4, 2);
}

static void test_node(void **state)
{
    (void)state;
    leaves(5, 1);
}

/* ---- movable nodes ---- */

static void test_movable_node_config(void **state)
{
    struct site_config c = { .nodes = 2, .node_sections = 1, .boot_pages = 64, .cpus = 2, .movable_nodes = 2 };
    static struct site s;
    struct page *p[64];

    (void)state;
    assert_true(site_open(&s, &c, 1));
    assert_int_equal(s.mm->zone_count, 2);
    assert_int_equal(s.mm->zones[1].kind, ZONE_MOVABLE);
    assert_int_equal(s.mm->zones[1].managed_pages, SECTION_PAGES);
    for (unsigned i = 0; i < FS_ARRAY_SIZE(p); i++) {
        bool user = i % 2 == 0;

        p[i] = alloc_pages_node(s.mm, 1, user ? GFP_HIGH_MOVABLE : GFP_KERNEL, 0);
        assert_non_null(p[i]);
        assert_int_equal(p[i]->pfn >= SECTION_PAGES, user);     /* kernel pages go to the next node */
    }
    assert_null(alloc_pages_node(s.mm, 1, GFP_KERNEL | __GFP_THISNODE, 0));
    for (unsigned i = 0; i < FS_ARRAY_SIZE(p); i++) {
        page_put(s.mm, p[i]);
    }
    assert_int_equal(site_close(&s), 0);
    for (uint32_t bad = 1; bad <= 4; bad += 3) {                /* the first node; one that is not there */
        static struct site refused;

        c.movable_nodes = bad;
        assert_false(site_open(&refused, &c, 1));
        site_abandon(&refused);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_atomic), cmocka_unit_test(test_huge), cmocka_unit_test(test_section), cmocka_unit_test(test_dimm),
        cmocka_unit_test(test_node), cmocka_unit_test(test_movable_node_config),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
