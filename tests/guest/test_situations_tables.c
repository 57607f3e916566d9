/*
 * test_situations_tables.c - the comparison of thread 004 and the seed tests of thread 002, on small machines.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>
#include "../situations/movable.h"
#include "../situations/seedtest.h"

static uint64_t seed(void)
{
    const char *text = getenv("FRAMESHIFT_SEED");

    return text != NULL ? strtoull(text, NULL, 0) : 1;
}

static void test_movable_zones(void **state)
{
    static struct movable_result grouping, small_core, nodes;

    (void)state;
    assert_true(movable_measure(&movable_variants[0], seed(), true, &grouping));
    assert_true(movable_measure(&movable_variants[3], seed(), true, &small_core));
    assert_true(movable_measure(&movable_variants[5], seed(), true, &nodes));
    assert_int_equal(grouping.faults + small_core.faults + nodes.faults, 0);
    /* What the zone costs: the kernel and its page tables may not use the rest. */
    assert_int_equal(grouping.aged.pages + grouping.aged.objects, 0);
    assert_int_equal(grouping.kernel_got, grouping.kernel_wanted);
    assert_true(small_core.kernel_got < grouping.kernel_got / 2 && small_core.sparse_got < grouping.sparse_got);
    /* What it gives: the memory in it leaves, always. */
    assert_int_equal(nodes.nodes.gone, 1);
    assert_int_equal(grouping.nodes.gone, 0);
    assert_true(nodes.sections.gone >= grouping.sections.gone);
}

static void test_seed_files(void **state)
{
    static struct huge_result vanilla, compaction;

    (void)state;
    assert_true(seed_test_files(128, seed(), true, &vanilla));
    assert_true(seed_test_files(128, seed(), false, &compaction));
    assert_int_equal(vanilla.faults + compaction.faults, 0);
    assert_true(compaction.got >= vanilla.got && compaction.got * 100 >= compaction.attempted * 85);
    assert_true(compaction.reclaimed < vanilla.reclaimed && compaction.moved > 0);
    assert_int_equal(vanilla.moved, 0);
}

static void test_seed_stress(void **state)
{
    static struct stress_result vanilla, compaction;

    (void)state;
    assert_true(seed_test_stress(128, seed(), true, &vanilla));
    assert_true(seed_test_stress(128, seed(), false, &compaction));
    assert_int_equal(vanilla.faults + compaction.faults, 0);
    assert_true(compaction.got + 2 >= vanilla.got && compaction.got * 100 >= compaction.attempted * 80);
    assert_true(compaction.reclaimed * 2 < vanilla.reclaimed && vanilla.moved == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_movable_zones), cmocka_unit_test(test_seed_files), cmocka_unit_test(test_seed_stress),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
