/* test_pagecache.c - files and shared memory against arrays of bytes: reads, writes, sync, drop, reclaim, migration, failing stores. */
#include "vm_world.h"
#include "guest_fault.h"
#include "cache_check.h"
#include "arch_hosted.h"
#include "reclaim.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define SPACES      4u                          /* the last two are shared memory */
#define PAGES       300u

/* A store that can be told to fail. */
struct flaky { struct store store; uint64_t fail_in; };     /* the n-th call fails; 0: none does */

static struct guest g;
static struct flaky flaky[SPACES];
static struct address_space as[SPACES];
static unsigned char *model[SPACES];

static bool fails(struct flaky *s)
{
    return s->fail_in != 0 && --s->fail_in == 0;
}

static mm_status_t flaky_read(void *ctx, uint64_t index, void *bytes)
{
    struct flaky *s = ctx;

    return fails(s) ? MM_EIO : store_ops.read(&s->store, index, bytes);
}

static mm_status_t flaky_write(void *ctx, uint64_t index, const void *bytes)
{
    struct flaky *s = ctx;

    return fails(s) ? MM_EIO : store_ops.write(&s->store, index, bytes);
}

static const struct backing_ops flaky_ops = { flaky_read, flaky_write };

static uint64_t index_of(uint32_t i)            /* some are far away: more levels */
{
    return i < 250 ? i : 1ull << (i - 240);
}

/* The store holds index_of(i) at i. */
static mm_status_t mapped_read(void *ctx, uint64_t index, void *bytes);
static mm_status_t mapped_write(void *ctx, uint64_t index, const void *bytes);
static const struct backing_ops mapped_ops = { mapped_read, mapped_write };

static uint32_t number_of(uint64_t index)
{
    uint32_t i = index < 250 ? (uint32_t)index : 240 + fs_ctz64(index);

    assert_int_equal(index_of(i), index);
    return i;
}

static mm_status_t mapped_read(void *ctx, uint64_t index, void *bytes)
{
    return flaky_ops.read(ctx, number_of(index), bytes);
}

static mm_status_t mapped_write(void *ctx, uint64_t index, const void *bytes)
{
    return flaky_ops.write(ctx, number_of(index), bytes);
}

static int setup(void **state)
{
    struct rng r = { 5 };

    (void)state;
    guest_init(&g, 4096, 4, 1500);
    reclaim_init(&g.vm);
    page_alloc_fail_nth(0);
    for (unsigned s = 0; s < SPACES; s++) {
        bool file = s + 2 < SPACES;

        flaky[s] = (struct flaky){ .store = { calloc(PAGES, FS_PAGE_BYTES), PAGES } };
        model[s] = calloc(PAGES, FS_PAGE_BYTES);
        assert_true(flaky[s].store.bytes != NULL && model[s] != NULL);
        for (size_t i = 0; file && i < PAGES * (size_t)FS_PAGE_BYTES; i += 8) {
            uint64_t x = rng_next(&r);

            memcpy(model[s] + i, &x, 8);
        }
        memcpy(flaky[s].store.bytes, model[s], PAGES * (size_t)FS_PAGE_BYTES);
        assert_int_equal(address_space_init(&g.vm, &as[s], GFP_HIGH_MOVABLE, file ? &mapped_ops : NULL, &flaky[s]), MM_OK);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned s = 0; s < SPACES; s++) {
        address_space_destroy(&as[s]);
        free(flaky[s].store.bytes);
        free(model[s]);
    }
    guest_free(&g);
    return 0;
}

/* Read or write one page through the cache; checks every byte first. False: refused. */
static bool touch(unsigned s, uint32_t i, bool write, struct rng *r)
{
    unsigned char *should = model[s] + i * (size_t)FS_PAGE_BYTES;
    struct page *page = NULL;
    mm_status_t status = pagecache_get(&as[s], index_of(i), &page);

    if (status != MM_OK) {
        return false;
    }
    assert_true(page_test(page, PG_UPTODATE) && !page_test(page, PG_LOCKED));
    assert_memory_equal(arch_page_address(page_pfn(page)), should, FS_PAGE_BYTES);
    if (write) {
        uint64_t x = rng_next(r);

        memcpy(should + x % 500 * 8, &x, 8);
        memcpy((unsigned char *)arch_page_address(page_pfn(page)) + x % 500 * 8, &x, 8);
        pagecache_dirty(page);
    }
    page_put(&g.f.mm, page);
    return true;
}

static void check_store(unsigned s)
{
    assert_int_equal(pagecache_sync(&as[s]), MM_OK);
    assert_int_equal(as[s].dirty, 0);
    assert_memory_equal(flaky[s].store.bytes, model[s], PAGES * (size_t)FS_PAGE_BYTES);
}

static void migrate_one(unsigned s, uint32_t i)
{
    struct migrate_item item = { .from = pagecache_find(&as[s], index_of(i)) };
    struct migrate_result result;

    if (item.from != NULL) {
        item.to = alloc_pages(&g.f.mm, GFP_HIGH_MOVABLE, 0);
        assert_non_null(item.to);
        assert_int_equal(migrate_pages(&g.vm, &item, 1, NULL, NULL, MIGRATE_SYNC, &result), MM_OK);
    }
}

static void test_random(void **state)
{
    uint64_t seed = test_seed(51);
    struct rng r = { seed };

    (void)state;
    for (uint32_t step = 0; step < 60000; step++) {
        unsigned s = (unsigned)rng_below(&r, SPACES);
        uint32_t i = (uint32_t)rng_below(&r, PAGES);

        arch_hosted_set_cpu((unsigned)rng_below(&r, 4));
        switch (rng_below(&r, 100)) {
        case 0:
            if (s + 2 < SPACES) {
                check_store(s);
            }
            break;
        case 1:
            (void)pagecache_drop(&as[s], index_of(i));
            break;
        case 2:
            migrate_one(s, i);
            break;
        case 3:
            (void)reclaim_zone(&g.vm, &g.f.mm.zones[0], rng_below(&r, 60), GFP_KERNEL);
            break;
        case 4:
            i = (uint32_t)rng_below(&r, 8);
            (void)reclaim_range(&g.vm, block_pfn(i), block_pfn(i + 1), (unsigned)rng_below(&r, 2));
            break;
        default:
            assert_true(touch(s, i, rng_below(&r, 3) == 0, &r));
            break;
        }
        if (step % 2000 == 0) {
            check_caches(&g, seed);
        }
    }
    arch_hosted_set_cpu(0);
    assert_true(lru_counter(&g.lru, LC_pswpout) > 100 && lru_counter(&g.lru, LC_pswpin) > 100 && lru_counter(&g.lru, LC_pgpgout) > 100);
    for (unsigned s = 0; s < SPACES; s++) {
        for (uint32_t i = 0; i < PAGES; i++) {
            assert_true(touch(s, i, false, &r));
        }
    }
    check_store(0);
    check_store(1);
    check_caches(&g, seed);
}

/* Dropping: what is clean and nobody's goes, and nothing else. */
static void test_drop(void **state)
{
    struct rng r = { 3 };
    struct page *page;

    (void)state;
    assert_int_equal(pagecache_drop(&as[0], 9), MM_OK);
    assert_true(touch(0, 9, false, &r));
    assert_int_equal(as[0].pages, 1);
    page = pagecache_find(&as[0], 9);
    assert_int_equal(pagecache_drop(&as[0], 9), MM_EBUSY);
    page_put(&g.f.mm, page);
    assert_true(touch(0, 9, true, &r));
    assert_int_equal(pagecache_drop(&as[0], 9), MM_EBUSY);
    assert_int_equal(pagecache_sync(&as[0]), MM_OK);
    assert_int_equal(pagecache_drop(&as[0], 9), MM_OK);
    assert_int_equal(as[0].pages, 0);
    assert_null(pagecache_find(&as[0], 9));
    /* Reclaim of clean pages only leaves the dirty one. */
    assert_true(touch(0, 1, true, &r) && touch(0, 2, false, &r) && touch(2, 2, true, &r));
    assert_int_equal(reclaim_range(&g.vm, pfn_make(0), pfn_make(4096), RECLAIM_CLEAN_ONLY), 1);
    assert_int_equal(as[0].pages, 1);
    assert_int_equal(as[2].pages, 1);
    assert_int_equal(reclaim_range(&g.vm, pfn_make(0), pfn_make(4096), 0), 2);
    assert_int_equal(as[0].pages + as[2].pages, 0);
    assert_int_equal(as[2].swapped, 1);
    assert_int_equal(swap_free_slots(&g.swap), 1499);
    assert_true(touch(2, 2, false, &r));
    assert_int_equal(swap_free_slots(&g.swap), 1500);
    check_caches(&g, 0);
}

/* A store that fails: a read leaves nothing behind; a write leaves the page dirty, and the next sync writes it. */
static void test_store_fails(void **state)
{
    struct rng r = { 4 };

    (void)state;
    flaky[1].fail_in = 1;
    assert_false(touch(1, 7, false, &r));
    assert_int_equal(as[1].pages, 0);
    check_caches(&g, 0);
    assert_true(touch(1, 7, true, &r));
    for (uint64_t n = 1; n <= 4; n++) {
        assert_true(touch(1, 7, true, &r) && touch(1, 70, true, &r) && touch(1, 290, true, &r));
        flaky[1].fail_in = n;
        assert_int_equal(pagecache_sync(&as[1]), n < 4 ? MM_EIO : MM_OK);
        assert_int_equal(as[1].dirty, n < 4);
        check_caches(&g, n);
        flaky[1].fail_in = 0;
        check_store(1);
    }
    /* The same in reclaim. */
    assert_true(touch(1, 7, true, &r));
    flaky[1].fail_in = 1;
    assert_int_equal(reclaim_range(&g.vm, pfn_make(0), pfn_make(4096), 0), 2);
    assert_int_equal(as[1].pages, 1);
    assert_int_equal(reclaim_range(&g.vm, pfn_make(0), pfn_make(4096), 0), 1);
    assert_true(touch(1, 7, false, &r));
    assert_int_equal(lru_counter(&g.lru, LC_io_error), 5);
}

/* The n-th page allocation of a fixed run fails, or all from the n-th on, for every n: refused or done, nothing lost. */
static uint64_t run(uint64_t n, bool all, unsigned *refused)
{
    struct rng r = { 6 };
    uint64_t calls;

    (all ? page_alloc_fail_from : page_alloc_fail_nth)(n);
    for (uint32_t i = 0; i < PAGES; i += 9) {
        for (unsigned s = 0; s < SPACES; s++) {
            *refused += !touch(s, i, i % 2 == 0, &r);
        }
        if (i % 90 == 0) {
            (void)reclaim_range(&g.vm, pfn_make(0), pfn_make(4096), 0);
        }
    }
    calls = page_alloc_calls();
    page_alloc_fail_nth(0);
    check_caches(&g, n);
    for (uint32_t i = 0; i < PAGES; i += 9) {
        for (unsigned s = 0; s < SPACES; s++) {
            assert_true(touch(s, i, false, &r));
        }
    }
    (void)reclaim_range(&g.vm, pfn_make(0), pfn_make(4096), 0);
    (void)kmem_shrink_caches(&g.f.mm, 1, 1);
    return calls;
}

static void test_every_allocation_fails(void **state)
{
    uint64_t calls = 1;
    unsigned refused = 0;

    (void)state;
    for (uint64_t n = 1; n <= calls; n++) {
        uint64_t now = run(n, false, &refused);

        calls = now > calls ? now : calls;
        (void)run(n, true, &refused);
    }
    assert_true(calls > 100 && refused > 100);
    check_store(0);
    check_store(1);
}

/* Swap is full: shared memory stays where it is; a slot is used again when it is free. */
static void test_swap_full(void **state)
{
    struct rng r = { 8 };
    swp_entry_t slots[1500];

    (void)state;
    for (unsigned i = 0; i < 1498; i++) {
        assert_int_equal(swap_alloc(&g.swap, &slots[i]), MM_OK);
    }
    for (uint32_t i = 0; i < 10; i++) {
        assert_true(touch(2, i, true, &r));
    }
    assert_int_equal(reclaim_range(&g.vm, pfn_make(0), pfn_make(4096), 0), 2);
    assert_int_equal(as[2].swapped, 2);
    assert_int_equal(swap_alloc(&g.swap, &slots[1498]), MM_ENOMEM);
    assert_int_equal(reclaim_range(&g.vm, pfn_make(0), pfn_make(4096), 0), 0);
    for (uint32_t i = 0; i < 10; i++) {
        assert_true(touch(2, i, false, &r));
    }
    assert_int_equal(swap_alloc(&g.swap, &slots[1498]), MM_OK);
    for (unsigned i = 0; i < 1499; i++) {
        assert_int_equal(swap_count(&g.swap, slots[i]), 1);
        assert_int_equal(swap_dup(&g.swap, slots[i]), MM_OK);
        swap_free(&g.swap, slots[i]);
        swap_free(&g.swap, slots[i]);
        assert_int_equal(swap_count(&g.swap, slots[i]), 0);
    }
    assert_int_equal(swap_free_slots(&g.swap), 1500);
    /* Entries that somebody has made up. */
    assert_int_equal(swap_count(&g.swap, swp_entry(0, 1500)), UINT32_MAX);
    assert_int_equal(swap_count(&g.swap, swp_entry(1, 0)), UINT32_MAX);
    assert_int_equal(swap_count(&g.swap, (swp_entry_t){ UINT64_MAX }), UINT32_MAX);
    /* A count that is at its end. */
    assert_int_equal(swap_alloc(&g.swap, &slots[0]), MM_OK);
    for (unsigned i = 1; i < SWAP_COUNT_MAX; i++) {
        assert_int_equal(swap_dup(&g.swap, slots[0]), MM_OK);
    }
    assert_int_equal(swap_dup(&g.swap, slots[0]), MM_EBUSY);
    for (unsigned i = 0; i < SWAP_COUNT_MAX; i++) {
        swap_free(&g.swap, slots[0]);
    }
    check_caches(&g, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_random, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop, setup, teardown),
        cmocka_unit_test_setup_teardown(test_store_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_allocation_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_swap_full, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
