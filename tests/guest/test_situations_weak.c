/*
 * test_situations_weak.c - a weaker core, a wrong byte, a host that loses count: each is told by a verdict.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "../situations/situations.h"
#include "../../guest/mm/isolation.h"
#include "../../guest/mm/page_alloc.h"

static struct aged a;

static struct aged_config config(unsigned situation)
{
    struct aged_config c = aged_for(situation, 1, true);

    c.events = c.ager.grow_events = 4000;
    return c;
}

static void make(const struct aged_config *c)
{
    assert_true(aged_make(&a, c));
}

/* Kernel pages into movable blocks, nothing moved away for them. */
static void test_policy_largest(void **state)
{
    struct atomic_result r;
    struct aged_config c = aged_for(1, 3, true);
    struct verdict v;

    (void)state;
    c.site.policy = CLAIM_LARGEST_LOWEST;
    make(&c);
    situation_atomic(&a, ATOMIC_BURSTS, &r);
    judge_atomic(&r, &v);
    assert_false(v.pass);
    assert_true(r.by[HELPER_MOVABLE] > 0 && r.polluted_after > r.polluted_before);
    assert_int_equal(r.faults, 0);
    assert_int_equal(aged_end(&a), 0);
}

/* Clearing blocks without sending tenants home is enough for every criterion here. */
static void test_policy_next(void **state)
{
    static struct leave_result left;
    struct aged_config c = config(3);
    struct verdict v;

    (void)state;
    c.site.policy = CLAIM_NEXT_BLOCK;
    make(&c);
    situation_leave(&a, 3, &left);
    judge_leave(&left, &v);
    assert_true(v.pass);
    assert_int_equal(aged_end(&a), 0);
}

/* A node of four sections has room for all its kernel pages in one: where they lie decides how many leave wholly. */
static struct leave_result sections_leave(enum claim_policy policy, struct verdict *v)
{
    static struct leave_result left;
    struct aged_config c = config(3);

    c.seed = 2;
    c.site.policy = policy;
    c.site.nodes = 1;
    c.site.node_sections = 4;
    make(&c);
    situation_leave(&a, 3, &left);
    judge_leave(&left, v);
    assert_int_equal(left.count, 4);
    assert_int_equal(left.packed_ranges, 1);
    assert_int_equal(left.faults, 0);
    assert_int_equal(aged_end(&a), 0);
    return left;
}

static void test_policy_sections(void **state)
{
    struct leave_result left;
    struct verdict v;

    (void)state;
    left = sections_leave(CLAIM_LARGEST_LOWEST, &v);
    assert_false(v.pass);
    assert_true(left.gone < 3 && left.failed == 0);
    left = sections_leave(CLAIM_CLEAR_FIRST, &v);
    assert_true(v.pass);
    assert_int_equal(left.gone, 3);
}

/* Neither grouping nor compaction; then grouping alone. */
static void test_baselines(void **state)
{
    static struct leave_result left;
    struct aged_config c = config(2);
    struct huge_result r;
    struct verdict v;

    (void)state;
    c.site.alike = true;
    make(&c);
    situation_huge(&a, HUGE_MISSES, &r);
    judge_huge(&r, &v);
    assert_false(v.pass);
    assert_true(r.got < r.packed / 4);
    situation_leave(&a, 3, &left);                  /* kernel pages lie about in every section, and nobody can tell them from others */
    judge_leave(&left, &v);
    assert_false(v.pass);
    assert_int_equal(left.failed, left.count);
    assert_int_equal(left.faults, 0);
    assert_int_equal(aged_end(&a), 0);
    c.site.alike = false;
    c.site.lumpy = true;
    make(&c);
    situation_huge(&a, HUGE_MISSES, &r);
    judge_huge(&r, &v);                             /* it may get them all, by throwing out what others had in memory */
    assert_true(r.moved == 0 && r.reclaimed > r.got * PAGEBLOCK_PAGES * 3 / 4);
    assert_int_equal(aged_end(&a), 0);
}

/* ---- planted: a mover that refuses, a host that loses count, a byte, a range that is not kept isolated ---- */

static mm_status_t (*real_move)(void *ctx, struct page *from, struct page *to);

static mm_status_t lazy_move(void *ctx, struct page *from, struct page *to)
{
    return from->pfn % 97 == 0 ? MM_EAGAIN : real_move(ctx, from, to);
}

static mm_status_t forgetful_give(void *ctx, pfn_t pfn, unsigned order)
{
    (void)ctx, (void)pfn, (void)order;
    return MM_OK;
}

static void leave_and_fail(struct leave_result *r)
{
    struct verdict v;

    situation_leave(&a, 4, r);
    judge_leave(r, &v);
    assert_false(v.pass);
}

static void test_planted(void **state)
{
    static struct leave_result r;
    struct aged_config c = config(4);
    struct hotplug_ops host;
    struct verdict v;
    unsigned char *byte;

    (void)state;
    c.events = c.ager.grow_events = 500;
    make(&c);
    real_move = a.site.mm->migrate.move;
    a.site.mm->migrate.move = lazy_move;
    leave_and_fail(&r);
    assert_true(r.failed > 0);
    a.site.mm->migrate.move = real_move;

    host = a.site.host;
    a.site.host.give = forgetful_give;
    a.site.host.take = forgetful_give;
    leave_and_fail(&r);
    assert_true(r.miscounted > 0 && r.failed == 0);
    a.site.host = host;

    a.isolation_undone = true;
    leave_and_fail(&r);
    assert_true(r.came > 0);
    a.isolation_undone = false;

    situation_leave(&a, 4, &r);                     /* and with all of them taken away again it is well */
    judge_leave(&r, &v);
    assert_true(v.pass);

    byte = (unsigned char *)arch_page_address(page_pfn(a.ager.lasting[3].page)) + 1234;
    *byte ^= 4;
    leave_and_fail(&r);
    assert_true(r.faults > 0);
    *byte ^= 4;
    a.ager.wrong = 0;
    assert_int_equal(aged_end(&a), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policy_largest), cmocka_unit_test(test_policy_next), cmocka_unit_test(test_policy_sections),
        cmocka_unit_test(test_baselines), cmocka_unit_test(test_planted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
