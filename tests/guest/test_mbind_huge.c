/*
 * test_mbind_huge.c - policies and huge pages: placed and moved as units; split where the node has no whole block, and then page by page.
 */
#include "cache_check.h"
#include "arch_hosted.h"
#include "mempolicy_fsck.h"
#include "move_pages.h"
#include "thp.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#define NODES      4u
#define NODE_PAGES 8192u
#define RAM_PAGES  (NODES * NODE_PAGES)
#define VA         0x40000000ull
#define PAGE       ((uint64_t)FS_PAGE_BYTES)
#define UNITS      6u

static struct guest g;
static struct mm_struct *mm;

static int setup(void **state)
{
    (void)state;
    guest_init_nodes(&g, RAM_PAGES, NODES, 4096, NODES, 0);
    thp_set_policy(&g.vm, THP_ALWAYS);
    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arch_hosted_set_cpu(0);
    check_caches(&g, 0);
    mm_put(mm);
    guest_free(&g);
    return 0;
}

static void map(uint64_t units, unsigned flags)
{
    uint64_t va = VA;

    assert_int_equal(vm_mmap(mm, &va, units * HUGE_BYTES, VM_ACCESS | flags, NULL, 0), MM_OK);
}

static uint64_t word_of(uint64_t page) { return (page + 1) * 0x9e3779b97f4a7c15ull; }

static void fill(uint64_t units)
{
    for (uint64_t i = 0; i < units * HUGE_PAGES; i++) {
        uint64_t word = word_of(i);

        assert_int_equal(vm_user_write(mm, VA + i * PAGE, &word, sizeof(word)), MM_OK);
    }
}

static void check(uint64_t units)
{
    for (uint64_t i = 0; i < units * HUGE_PAGES; i++) {
        uint64_t word = 0;

        assert_int_equal(vm_user_read(mm, VA + i * PAGE, &word, sizeof(word)), MM_OK);
        assert_int_equal(word, word_of(i));
    }
    check_caches(&g, 0);
}

/* The node of a page, and whether it is part of a huge one; without splitting it. */
static uint32_t node_of(uint64_t page, bool *huge)
{
    uint64_t pages;
    struct page *p = follow_unit(mm, VA + page * PAGE, &pages);
    uint32_t node;

    assert_non_null(p);
    node = page_node(&g.f.mm, p);
    *huge = page_order(p) == HUGE_ORDER;
    page_put(&g.f.mm, p);
    return node;
}

static void expect_units(uint64_t units, const uint32_t *nodes)
{
    bool huge;

    for (uint64_t i = 0; i < units; i++) {
        assert_int_equal(node_of(i * HUGE_PAGES + 77, &huge), nodes[i]);
        assert_true(huge);
    }
}

/* No whole block is left on the node, but a few single pages in each. */
static uint32_t fragment(uint32_t node, struct page **held)
{
    uint32_t n = 0, kept = 0;

    while ((held[n] = alloc_pages_nodemask(&g.f.mm, node, 1u << node, GFP_KERNEL | __GFP_MOVABLE | __GFP_HIGH, 0)) != NULL) {
        page_set_flags(held[n++], PG_PINNED);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (i % 3 != 0) {
            page_clear_flags(held[i], PG_PINNED);
            page_put(&g.f.mm, held[i]);
        } else {
            held[kept++] = held[i];
        }
    }
    return kept;
}

static void release(struct page **held, uint32_t n)
{
    while (n > 0) {
        page_clear_flags(held[--n], PG_PINNED);
        page_put(&g.f.mm, held[n]);
    }
}

static void bind(uint64_t units, enum mpol_mode mode, nodemask_t nodes, struct node_moves *moves)
{
    assert_int_equal(vm_mbind(mm, VA, units * HUGE_BYTES, mode, nodes, MPOL_MF_MOVE | MPOL_MF_STRICT, moves), MM_OK);
    assert_int_equal(mempolicy_fsck(&g.vm, MPOL_FSCK_PLACES, NULL, NULL), 0);
}

static void test_units(void **state)
{
    struct node_moves moves;

    (void)state;
    map(UNITS, 0);
    fill(UNITS);
    expect_units(UNITS, (const uint32_t[]){ 0, 0, 0, 0, 0, 0 });
    bind(UNITS, MPOL_BIND, 0x4, &moves);
    assert_int_equal(moves.moved, UNITS);
    expect_units(UNITS, (const uint32_t[]){ 2, 2, 2, 2, 2, 2 });
    check(UNITS);
    bind(UNITS, MPOL_INTERLEAVE, 0xf, &moves);          /* unit by unit */
    expect_units(UNITS, (const uint32_t[]){ 0, 1, 2, 3, 0, 1 });
    check(UNITS);
    assert_int_equal(vm_migrate_nodes(mm, 0x3, 0xc, MPOL_MF_MOVE, &moves), MM_OK);
    expect_units(UNITS, (const uint32_t[]){ 2, 3, 2, 3, 2, 3 });
    check(UNITS);
    map(UNITS, 0);                                      /* new ones, where the process's policy says */
    assert_int_equal(vm_set_mempolicy(mm, MPOL_INTERLEAVE, 0x6), MM_OK);
    fill(UNITS);
    expect_units(UNITS, (const uint32_t[]){ 1, 2, 1, 2, 1, 2 });
    assert_int_equal(vm_counter(&g.vm, VMC_thp_migrate_split), 0);
}

/* No whole block where they should go: split, and every part arrives; by range and one by one. */
static void test_split(void **state)
{
    static struct page *held[NODE_PAGES];
    uint64_t at[2] = { VA + 3 * PAGE, VA + HUGE_BYTES + 400 * PAGE };
    int32_t nodes[2] = { 3, 2 }, status[2];
    uint32_t kept;
    bool huge;

    (void)state;
    map(2, 0);
    fill(2);
    kept = fragment(3, held);
    assert_int_equal(vm_move_pages(mm, 2, at, nodes, status, MPOL_MF_MOVE), MM_OK);
    assert_true(status[0] == 3 && status[1] == 2);
    assert_true(node_of(3, &huge) == 3 && !huge);       /* the part that was asked for ... */
    assert_true(node_of(4, &huge) == 0 && !huge);
    assert_true(node_of(HUGE_PAGES + 400, &huge) == 2 && huge);         /* ... and the unit that found a block */
    check(2);
    release(held, kept);
}

/* The same by range. */
static void test_split_range(void **state)
{
    static struct page *held[NODE_PAGES];
    struct node_moves moves;
    uint32_t kept;
    bool huge;

    (void)state;
    map(2, 0);
    fill(2);
    kept = fragment(3, held);
    bind(2, MPOL_BIND, 0x8, &moves);
    for (uint64_t i = 0; i < 2 * HUGE_PAGES; i++) {
        assert_int_equal(node_of(i, &huge), 3);
        assert_false(huge);
    }
    assert_true(moves.moved >= 2 * HUGE_PAGES && vm_counter(&g.vm, VMC_thp_migrate_split) == 2);
    check(2);
    release(held, kept);
}

/* move_pages: any address of a huge page moves all of it, the last one says where. */
static void test_move_pages(void **state)
{
    uint64_t at[4] = { VA, VA + 511 * PAGE, VA + HUGE_BYTES + 9 * PAGE, VA + 2 * HUGE_BYTES };
    int32_t nodes[4] = { 1, 3, 2, 7 }, status[4];

    (void)state;
    map(3, 0);
    fill(3);
    assert_int_equal(vm_move_pages(mm, 4, at, nodes, status, MPOL_MF_MOVE), MM_OK);
    assert_true(status[0] == 1 && status[1] == 3 && status[2] == 2 && status[3] == MOVE_ENODEV);
    expect_units(3, (const uint32_t[]){ 3, 2, 0 });
    check(3);
}

/* Pages of the pool move as units too, and the pool of the node has them afterwards. */
static void test_pool(void **state)
{
    struct node_moves moves;

    (void)state;
    assert_int_equal(hugetlb_set_pool(&g.vm, 0, 3), 3);
    map(3, VM_HUGETLB);
    fill(3);
    expect_units(3, (const uint32_t[]){ 0, 0, 0 });
    bind(3, MPOL_BIND, 0x2, &moves);
    assert_int_equal(moves.moved, 3);
    expect_units(3, (const uint32_t[]){ 1, 1, 1 });
    assert_true(hugetlb_stats(&g.vm, 0).nr == 0 && hugetlb_stats(&g.vm, 1).nr == 3);
    check(3);
    assert_int_equal(vm_munmap(mm, VA, 3 * HUGE_BYTES), MM_OK);
    assert_int_equal(hugetlb_stats(&g.vm, 1).free, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_units, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split_range, setup, teardown),
        cmocka_unit_test_setup_teardown(test_move_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pool, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
