/* test_isolation.c - isolation of ranges: states, overlaps, undo, refusals that name the page. */
#include "guest_fixture.h"
#include "isolation.h"
#include "compaction.h"
#include "pageblock.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

static pfn_t block(uint32_t b) { return block_pfn(b); }

static void test_free_range(void **state)
{
    struct fixture f;
    struct page *p;

    (void)state;
    fixture_init(&f, 8192, 0, 1);
    assert_int_equal(isolate_range(&f.mm, block(2), block(6), 0, NULL), MM_OK);
    assert_int_equal(isolate_test(&f.mm, block(2), block(6), NULL), MM_OK);
    assert_int_equal(mm_free_pages(&f.mm), 8192 - 4 * 512);
    check_mm(&f.mm, 0);
    while ((p = alloc_pages(&f.mm, GFP_KERNEL | __GFP_MEMALLOC, 0)) != NULL) {
        assert_false(page_block(p) >= 2 && page_block(p) < 6);
    }
    assert_int_equal(isolate_undo(&f.mm, block(2), block(6)), MM_OK);
    assert_int_equal(mm_free_pages(&f.mm), 4 * 512);
    assert_non_null(alloc_pages(&f.mm, GFP_KERNEL | __GFP_MEMALLOC, 9));
    check_mm(&f.mm, 0);
    fixture_free(&f);
}

static void test_overlaps_are_merged(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, 8192, 0, 1);
    assert_int_equal(isolate_range(&f.mm, block(2), block(6), 0, NULL), MM_OK);
    assert_int_equal(isolate_range(&f.mm, block(4), block(9), 0, NULL), MM_OK);
    assert_int_equal(isolate_undo(&f.mm, block(2), block(6)), MM_OK);
    assert_int_equal(pageblock_type(&f.mm, 3), MIGRATE_MOVABLE);
    assert_int_equal(isolate_test(&f.mm, block(4), block(9), NULL), MM_OK);    /* 4 and 5 are still the other's */
    assert_int_equal(isolate_undo(&f.mm, block(2), block(6)), MM_EINVAL);       /* 2 and 3 are not isolated */
    assert_int_equal(isolate_test(&f.mm, block(4), block(9), NULL), MM_OK);
    assert_int_equal(isolate_undo(&f.mm, block(4), block(9)), MM_OK);
    assert_int_equal(mm_free_pages(&f.mm), 8192);
    check_mm(&f.mm, 0);
    fixture_free(&f);
}

static void test_refusals(void **state)
{
    struct mm_range ram[] = { { pfn_make(0), pfn_make(4096), 0 }, { pfn_make(98304), pfn_make(102400), 0 } };
    struct mm_config config = { .ram = ram, .ram_count = 2, .cpus = 1 };
    struct page *stuck = NULL, *kernel, *pinned;
    struct fixture f;

    (void)state;
    fixture_init_config(&f, &config, 0);
    assert_int_equal(isolate_range(&f.mm, block(2), block(2), 0, NULL), MM_EINVAL);
    assert_int_equal(isolate_range(&f.mm, block(3), block(2), 0, NULL), MM_EINVAL);
    assert_int_equal(isolate_range(&f.mm, pfn_make(100), block(2), 0, NULL), MM_EINVAL);
    assert_int_equal(isolate_range(&f.mm, block(0), pfn_make(1025), 0, NULL), MM_EINVAL);
    assert_int_equal(isolate_range(&f.mm, block(64), block(128), 0, NULL), MM_EINVAL);  /* a hole without memmap */
    assert_int_equal(isolate_range(&f.mm, block(0), block(100000), 0, NULL), MM_EINVAL);
    kernel = alloc_pages(&f.mm, GFP_KERNEL, 0);
    assert_int_equal(page_block(kernel), 0);
    assert_int_equal(isolate_range(&f.mm, block(0), block(4), 0, &stuck), MM_EBUSY);
    assert_ptr_equal(stuck, kernel);
    pinned = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 2);
    page_set_flags(pinned, PG_PINNED);
    assert_int_equal(isolate_range(&f.mm, block(page_block(pinned) - 2), block(page_block(pinned) + 1), 0, &stuck), MM_EBUSY);
    assert_ptr_equal(stuck, pinned);
    assert_int_equal(mm_free_pages(&f.mm) < 8192, true);
    for (uint32_t b = 0; b < 8; b++) {
        assert_int_not_equal(pageblock_type(&f.mm, b), MIGRATE_ISOLATE);        /* nothing is left behind */
    }
    page_clear_flags(pinned, PG_PINNED);
    assert_int_equal(isolate_range(&f.mm, block(page_block(pinned)), block(page_block(pinned) + 1), 0, &stuck), MM_OK);
    assert_int_equal(isolate_test(&f.mm, block(page_block(pinned)), block(page_block(pinned) + 1), &stuck), MM_EBUSY);
    assert_ptr_equal(stuck, pinned);
    /* Residual: what cannot leave is no obstacle. */
    assert_int_equal(isolate_range(&f.mm, block(0), block(4), ISOLATE_RESIDUAL, &stuck), MM_OK);
    check_mm(&f.mm, 0);
    fixture_free(&f);
}

/* Pages that are freed or wait on per-CPU lists end up isolated. */
static void test_frees_stay_inside(void **state)
{
    struct fixture f;
    struct page *p[600];
    uint32_t b;

    (void)state;
    fixture_init(&f, 8192, 0, 2);
    for (unsigned i = 0; i < 600; i++) {
        p[i] = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 0);
    }
    page_put(&f.mm, p[100]);                            /* waits on a per-CPU list */
    b = page_block(p[100]);
    assert_int_equal(isolate_range(&f.mm, block(b), block(b + 1), 0, NULL), MM_OK);
    check_mm(&f.mm, 0);
    for (unsigned i = 0; i < 600; i++) {
        if (i != 100 && page_block(p[i]) == b) {
            page_put(&f.mm, p[i]);
        }
    }
    assert_int_equal(isolate_test(&f.mm, block(b), block(b + 1), NULL), MM_OK);
    check_mm(&f.mm, 0);
    assert_int_equal(isolate_undo(&f.mm, block(b), block(b + 1)), MM_OK);
    check_mm(&f.mm, 0);
    fixture_free(&f);
}

static void test_evacuate(void **state)
{
    struct mm_range ram = { pfn_make(0), pfn_make(65536), 0 };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .cpus = 1 };
    struct compact_result r;
    struct fixture f;
    struct owners o;

    (void)state;
    fixture_init_config(&f, &config, 0);
    owners_init(&o, &f.mm, 60000, 1);
    for (unsigned i = 0; i < 20000; i++) {
        assert_non_null(owners_alloc(&o, GFP_HIGH_MOVABLE, i % 16 == 0 ? 3 : 0));
    }
    /* A whole section: 128 MiB, in use. */
    assert_int_equal(isolate_range(&f.mm, pfn_make(32768), pfn_make(65536), 0, NULL), MM_OK);
    assert_int_equal(evacuate_range(&f.mm, pfn_make(32768), pfn_make(65536), &r), MM_OK);
    assert_int_equal(isolate_test(&f.mm, pfn_make(32768), pfn_make(65536), NULL), MM_OK);
    assert_true(r.migrated_pages >= 20000);
    assert_int_equal(r.migrated_pages, o.moves);
    owners_check(&o);
    check_mm(&f.mm, 0);
    /* No room: the second section cannot follow, and says so. */
    assert_int_equal(isolate_range(&f.mm, pfn_make(0), pfn_make(32768), 0, NULL), MM_OK);
    assert_int_equal(evacuate_range(&f.mm, pfn_make(0), pfn_make(32768), &r), MM_EAGAIN);
    assert_int_equal(r.migrated_pages, 0);
    owners_check(&o);
    check_mm(&f.mm, 0);
    owners_free(&o);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_free_range),
        cmocka_unit_test(test_overlaps_are_merged),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_frees_stay_inside),
        cmocka_unit_test(test_evacuate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
