/* test_vmstat.c - counts by name are what the lists, caches and slots hold; LRU lists do what their calls say. */
#include "cache_check.h"
#include "reclaim.h"
#include "vmstat.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct guest g;

static uint64_t value(const char *name)
{
    uint64_t v = 0;

    if (!vmstat_value(&g.vm, name, &v)) {
        fail_msg("no value %s", name);
    }
    return v;
}

static struct { const char *names[400]; uint32_t count; } told;

static void collect(void *ctx, const char *name, uint64_t v)
{
    (void)ctx;
    (void)v;
    for (uint32_t i = 0; i < told.count; i++) {
        assert_string_not_equal(told.names[i], name);
    }
    assert_true(told.count < FS_ARRAY_SIZE(told.names));
    told.names[told.count++] = name;
}

static void test_values(void **state)
{
    struct store store = { calloc(100, FS_PAGE_BYTES), 100 };
    static struct address_space file;
    struct mm_struct *mm;
    uint64_t va = 0, no, word = 3;

    (void)state;
    assert_non_null(store.bytes);
    guest_init(&g, 4096, 2, 500);
    reclaim_init(&g.vm);
    vmstat(&g.vm, collect, NULL);
    assert_true(told.count > 60);
    assert_false(vmstat_value(&g.vm, "nr_free_page", &no));
    assert_false(vmstat_value(&g.vm, "nr_free_pagess", &no));
    assert_int_equal(value("nr_free_pages"), mm_free_pages(&g.f.mm));
    assert_int_equal(address_space_init(&g.vm, &file, GFP_HIGH_MOVABLE, &store_ops, &store), MM_OK);
    for (uint64_t i = 0; i < 100; i++) {
        struct page *page;

        assert_int_equal(pagecache_get(&file, i, &page), MM_OK);
        if (i < 30) {
            pagecache_dirty(page);
        }
        if (i < 20) {
            assert_int_equal(pagecache_get(&file, i, &page), MM_OK);        /* twice more: active */
            page_put(&g.f.mm, page);
            assert_int_equal(pagecache_get(&file, i, &page), MM_OK);
            page_put(&g.f.mm, page);
        }
        page_put(&g.f.mm, page);
    }
    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    assert_int_equal(vm_mmap(mm, &va, 50 * FS_PAGE_BYTES, VM_ACCESS, NULL, 0), MM_OK);
    for (uint64_t i = 0; i < 50; i++) {
        assert_int_equal(vm_user_write(mm, va + i * FS_PAGE_BYTES, &word, 8), MM_OK);
    }
    assert_int_equal(vm_mlock(mm, va, 7 * FS_PAGE_BYTES), MM_OK);
    assert_int_equal(value("nr_file_pages"), 100);
    assert_int_equal(value("nr_dirty"), 30);
    assert_int_equal(value("nr_active_file"), 20);
    assert_int_equal(value("nr_inactive_file"), 80);
    assert_int_equal(value("nr_active_anon") + value("nr_inactive_anon"), 43);
    assert_int_equal(value("nr_unevictable"), 7);
    assert_int_equal(value("nr_processes"), 1);
    assert_int_equal(value("nr_swap_free_slots"), 500);
    assert_int_equal(value("pgpgin"), 100);
    assert_int_equal(value("fault_zero"), 50);
    assert_int_equal(value("nr_slab_reclaimable"), kmem_pages(&g.f.mm, true));
    assert_true(value("nr_slab_reclaimable") > 0 && value("nr_slab_unreclaimable") > 0);
    assert_int_equal(reclaim_range(&g.vm, pfn_make(0), pfn_make(4096), 0), 143);
    assert_int_equal(value("nr_file_pages") + value("nr_dirty"), 0);
    assert_int_equal(value("nr_swap_free_slots"), 457);
    assert_int_equal(value("pswpout"), 43);
    assert_int_equal(value("pgpgout"), 30);
    assert_int_equal(value("pgsteal_lumpy"), 143);
    check_caches(&g, 0);
    mm_put(mm);
    address_space_destroy(&file);
    guest_free(&g);
    free(store.bytes);
}

/* Order, isolation and the way back. */
static void test_lists(void **state)
{
    struct page *p[10];
    struct page_list list = { .count = 0 };
    struct lru *l = &g.lru;
    struct zone *z;

    (void)state;
    guest_init(&g, 4096, 2, 0);
    z = &g.f.mm.zones[0];
    for (unsigned i = 0; i < 10; i++) {
        p[i] = alloc_pages(&g.f.mm, GFP_HIGH_MOVABLE, 0);
        assert_non_null(p[i]);
        p[i]->mapping = NULL;
        lru_add(l, p[i]);
        lru_add(l, p[i]);                           /* once is enough */
    }
    assert_int_equal(lru_pages(l, z, LRU_INACTIVE_FILE), 10);
    /* The oldest come first, in order; who is isolated is put nowhere by anybody else. */
    assert_int_equal(lru_isolate_oldest(l, z, LRU_INACTIVE_FILE, 4, &list), 4);
    lru_add(l, p[2]);
    lru_activate(l, p[2]);
    lru_del(l, p[1]);
    assert_int_equal(lru_pages_all(l, LRU_INACTIVE_FILE) + lru_pages_all(l, LRU_ACTIVE_FILE), 6);
    for (unsigned i = 0; i < 4; i++) {
        assert_ptr_equal(page_list_pop(&list), p[i]);
        assert_int_equal(page_refs(p[i]), 2);
        assert_false(lru_isolate(l, p[i]));
        lru_putback(l, p[i]);
        assert_int_equal(page_refs(p[i]), 1);
    }
    assert_null(page_list_pop(&list));
    assert_int_equal(lru_pages(l, z, LRU_ACTIVE_FILE), 1);
    /* Where flags send a page. */
    page_set_flags(p[5], PG_SWAPBACKED);
    lru_update(l, p[5]);
    assert_int_equal(lru_pages(l, z, LRU_INACTIVE_ANON), 1);
    page_set_flags(p[5], PG_MLOCKED);
    lru_update(l, p[5]);
    assert_int_equal(lru_pages(l, z, LRU_UNEVICTABLE), 1);
    assert_int_equal(lru_counter(l, LC_pgculled), 1);
    page_clear_flags(p[5], PG_MLOCKED);
    lru_update(l, p[5]);
    assert_int_equal(lru_counter(l, LC_pgrescued), 1);
    lru_mark_accessed(l, p[6]);
    assert_int_equal(lru_pages(l, z, LRU_ACTIVE_FILE), 1);
    lru_mark_accessed(l, p[6]);
    assert_int_equal(lru_pages(l, z, LRU_ACTIVE_FILE), 2);
    /* A page that is freed leaves its list by itself. */
    for (unsigned i = 0; i < 10; i++) {
        page_put(&g.f.mm, p[i]);
    }
    for (unsigned i = 0; i < LRU_LISTS; i++) {
        assert_int_equal(lru_pages_all(l, (enum lru_list)i), 0);
    }
    check_caches(&g, 0);
    guest_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_lists),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
