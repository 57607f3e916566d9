/*
 * test_hugetlb.c - the pool of huge pages: its size, promises, surplus, and that its pages are in nobody's way.
 */
#include "cache_check.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "guest_fault.h"
#include "hotplug.h"
#include "vmstat.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RAM_PAGES 16384u
#define PAGE      ((uint64_t)FS_PAGE_BYTES)

static struct guest g;

static struct hugetlb_stats stats(void)
{
    return hugetlb_stats(&g.vm, HUGETLB_ALL_NODES);
}

static void expect(uint64_t nr, uint64_t free, uint64_t reserved, uint64_t surplus)
{
    struct hugetlb_stats s = stats();

    assert_int_equal(s.nr, nr);
    assert_int_equal(s.free, free);
    assert_int_equal(s.reserved, reserved);
    assert_int_equal(s.surplus, surplus);
    if (reserved == 0) {
        guest_check(&g, 0);
    } else {
        check_mm(&g.f.mm, 0);                   /* vm_fsck() asks whose promises these are: the test's own */
    }
}

static uint64_t value(const char *name)
{
    uint64_t v = UINT64_MAX;

    assert_true(vmstat_value(&g.vm, name, &v));
    return v;
}

static void test_size(void **state)
{
    uint64_t free;

    (void)state;
    guest_init(&g, RAM_PAGES, 2, 0);
    mm_drain(&g.f.mm);
    free = mm_free_pages(&g.f.mm);
    assert_int_equal(hugetlb_set_pool(&g.vm, 0, 5), 5);
    expect(5, 5, 0, 0);
    assert_int_equal(hugetlb_set_pool(&g.vm, HUGETLB_ALL_NODES, 5), 5);
    assert_int_equal(value("nr_hugepages"), 5);
    assert_int_equal(value("nr_hugepages_free"), 5);
    assert_int_equal(value("hugetlb_alloc"), 5);
    assert_int_equal(hugetlb_set_pool(&g.vm, HUGETLB_ALL_NODES, 2), 2);
    expect(2, 2, 0, 0);
    /* More than there is: what can be had is had, and every page of it is given back later. */
    assert_true(hugetlb_set_pool(&g.vm, 0, 1000) >= RAM_PAGES / HUGE_PAGES - 3);
    assert_int_equal(value("hugetlb_alloc_fail"), 1);
    assert_int_equal(hugetlb_set_pool(&g.vm, 0, 0), 0);
    expect(0, 0, 0, 0);
    mm_drain(&g.f.mm);
    assert_int_equal(mm_free_pages(&g.f.mm), free);
    guest_free(&g);
}

/* Memory with a page in use here and there: the pool grows by compaction as far as there is room. */
static void test_growth_compacts(void **state)
{
    static struct page *held[RAM_PAGES];
    uint32_t n = 0, kept = 0;
    uint64_t got;
    struct mm_struct *mm;
    uint64_t va = 0;

    (void)state;
    guest_init(&g, RAM_PAGES, 1, 0);
    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    assert_int_equal(vm_mmap(mm, &va, 12000 * PAGE, VM_ACCESS, NULL, 0), MM_OK);
    for (uint64_t i = 0; i < 12000; i++) {
        assert_int_equal(vm_user_write(mm, va + i * PAGE, &i, sizeof(i)), MM_OK);
    }
    for (uint64_t i = 0; i < 12000; i++) {              /* nine of ten go, all over memory */
        if (i % 10 != 3) {
            assert_int_equal(vm_munmap(mm, va + i * PAGE, PAGE), MM_OK);
        } else {
            kept++;
        }
    }
    got = hugetlb_set_pool(&g.vm, 0, 1000);
    assert_true(got >= RAM_PAGES / HUGE_PAGES - 3 - (kept + HUGE_PAGES - 1) / HUGE_PAGES - 1);
    assert_true(mm_counter(&g.f.mm, ZC_pgmigrate_success) > 0);
    assert_int_equal(mm_counter(&g.f.mm, ZC_compact_captured), mm_counter(&g.f.mm, ZC_compact_success));    /* each block went to who made it */
    for (uint64_t i = 3; i < 12000; i += 10) {
        uint64_t word;

        assert_int_equal(vm_user_read(mm, va + i * PAGE, &word, sizeof(word)), MM_OK);
        assert_int_equal(word, i);
    }
    expect(got, got, 0, 0);
    while ((held[n] = alloc_pages(&g.f.mm, GFP_NOWAIT, 0)) != NULL) {       /* nobody else gets at them */
        n++;
    }
    expect(got, got, 0, 0);
    while (n > 0) {
        page_put(&g.f.mm, held[--n]);
    }
    mm_put(mm);
    guest_free(&g);
}

static mm_status_t give(void *ctx, pfn_t pfn, unsigned order)
{
    (void)ctx, (void)pfn, (void)order;
    return MM_OK;
}
static const struct hotplug_ops hotplug = { .give = give, .take = give, .ctx = NULL };

/* The blocks under the pool's free pages are taken away: its pages move. */
static void test_free_pages_move(void **state)
{
    struct hotplug_report report;
    uint32_t taken = 0;

    (void)state;
    guest_init(&g, RAM_PAGES, 1, 0);
    assert_int_equal(hugetlb_set_pool(&g.vm, 0, 8), 8);
    for (uint32_t i = 0; i < 8; i++) {
        struct page *p = g.hugetlb.nodes[0].first;
        uint32_t block = page_block(p);

        assert_int_equal(memory_offline(&g.f.mm, block_pfn(block), block_pfn(block + 1), 0, &hotplug, &report, NULL), MM_OK);
        assert_int_equal(report.extents, 1);
        taken++;
        expect(8, 8, 0, 0);
        for (struct page *q = g.hugetlb.nodes[0].first; q != NULL; q = q->lru_next) {
            assert_true(page_block(q) != block);
        }
        assert_int_equal(memory_online(&g.f.mm, block_pfn(block), block_pfn(block + 1), &hotplug, &report), MM_OK);
    }
    assert_int_equal(value("hugetlb_migrate"), taken);
    guest_free(&g);
}

static void test_promises(void **state)
{
    struct page *a, *b;

    (void)state;
    guest_init(&g, RAM_PAGES, 1, 0);
    assert_int_equal(hugetlb_set_pool(&g.vm, 0, 3), 3);
    assert_int_equal(hugetlb_reserve(&g.vm, 4), MM_ENOMEM);
    expect(3, 3, 0, 0);
    assert_int_equal(hugetlb_reserve(&g.vm, 2), MM_OK);
    assert_int_equal(hugetlb_reserve(&g.vm, 2), MM_ENOMEM);
    a = hugetlb_alloc(&g.vm, false, NULL);
    assert_non_null(a);
    assert_null(hugetlb_alloc(&g.vm, false, NULL));           /* the rest is promised */
    b = hugetlb_alloc(&g.vm, true, NULL);
    assert_non_null(b);
    expect(3, 1, 1, 0);
    assert_int_equal(hugetlb_set_pool(&g.vm, 0, 0), 0); /* what is in use and what is promised stays, as surplus */
    expect(3, 1, 1, 3);
    page_put(&g.f.mm, a);
    expect(2, 1, 1, 2);
    assert_int_equal(hugetlb_set_pool(&g.vm, 0, 1), 1);
    expect(2, 1, 1, 1);
    hugetlb_unreserve(&g.vm, 1);
    expect(1, 0, 0, 0);
    page_put(&g.f.mm, b);
    expect(1, 1, 0, 0);
    guest_free(&g);
}

static void test_overcommit(void **state)
{
    struct page *a;

    (void)state;
    guest_init(&g, RAM_PAGES, 1, 0);
    assert_int_equal(hugetlb_set_pool(&g.vm, 0, 1), 1);
    hugetlb_set_overcommit(&g.vm, 2);
    assert_int_equal(hugetlb_reserve(&g.vm, 4), MM_ENOMEM);
    expect(1, 1, 0, 0);
    assert_int_equal(hugetlb_reserve(&g.vm, 2), MM_OK);
    expect(2, 2, 2, 1);
    a = hugetlb_alloc(&g.vm, false, NULL);
    assert_non_null(a);
    expect(3, 2, 2, 2);
    assert_null(hugetlb_alloc(&g.vm, false, NULL));
    page_put(&g.f.mm, a);
    expect(2, 2, 2, 1);
    page_alloc_fail_from(1);
    assert_int_equal(hugetlb_reserve(&g.vm, 1), MM_ENOMEM);
    page_alloc_fail_nth(0);
    expect(2, 2, 2, 1);
    hugetlb_unreserve(&g.vm, 2);
    expect(1, 1, 0, 0);
    guest_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_growth_compacts),
        cmocka_unit_test(test_free_pages_move),
        cmocka_unit_test(test_promises),
        cmocka_unit_test(test_overcommit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
