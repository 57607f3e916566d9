/* test_reclaim.c - which pages go, which stay, and that no byte is lost: processes, files, shared memory under pressure. */
#include "cache_check.h"
#include "guest_fault.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "reclaim.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RAM_PAGES 3072u

static struct guest g;
static struct world w;

static int setup(void **state)
{
    (void)state;
    page_alloc_fail_nth(0);
    guest_init(&g, RAM_PAGES, 4, 6000);
    reclaim_init(&g.vm);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arch_hosted_set_cpu(0);
    guest_free(&g);
    return 0;
}

/* ---- the world under pressure ---- */

/* Pages that cannot move until only so many are free; most of the boot block, where kernel pages have a place of their own, first. */
static uint32_t squeeze(struct page **held, uint64_t leave)
{
    uint32_t n = 0;

    while (mm_free_pages(&g.f.mm) > leave && n < RAM_PAGES) {
        held[n] = alloc_pages(&g.f.mm, n < 400 ? 0 : __GFP_MOVABLE | __GFP_HIGHMEM, 0);
        if (held[n] == NULL) {
            break;
        }
        page_set_flags(held[n++], PG_PINNED);
    }
    return n;
}

static void reclaim_step(struct world *at)
{
    struct zone *z = &g.f.mm.zones[0];
    uint64_t block = rng_below(&at->r, RAM_PAGES / PAGEBLOCK_PAGES);

    switch (rng_below(&at->r, 6)) {
    case 0:
        (void)reclaim_range(&g.vm, block_pfn((uint32_t)block), block_pfn((uint32_t)block + 1), 0);
        break;
    case 1:
        (void)compact_all(&g.f.mm, TARGET_MOVABLE);
        break;
    case 2:
        (void)reclaim_zone(&g.vm, z, rng_below(&at->r, 200), GFP_KERNEL);
        break;
    default:
        (void)reclaim_background(&g.vm, z);
        break;
    }
}

static void test_world(void **state)
{
    static struct page *held[RAM_PAGES];
    uint64_t seed = test_seed(61);
    uint32_t n;

    (void)state;
    n = squeeze(held, 650);
    world_init(&w, &g, seed, 0, 4, WORLD_FILES);
    for (uint32_t step = 0; step < 60000; step++) {
        world_step(&w);
        if (step % 40 == 0) {
            reclaim_step(&w);
        }
        if (step % 3000 == 0) {
            check_caches(&g, seed);
        }
    }
    check_caches(&g, seed);
    world_check_all(&w);
    assert_true(lru_counter(&g.lru, LC_pswpin) > 1000 && lru_counter(&g.lru, LC_pgpgout) > 100);
    assert_true(lru_counter(&g.lru, LC_pgsteal_direct) > 1000 && lru_counter(&g.lru, LC_pgsteal_kswapd) > 100
                && lru_counter(&g.lru, LC_pgsteal_lumpy) > 100);
    world_free(&w);
    while (n > 0) {
        page_put(&g.f.mm, held[--n]);
    }
}

/* Allocations fail at random points of a world that reclaims: what is refused has changed nothing. */
static void test_world_fails(void **state)
{
    uint64_t seed = test_seed(62);

    (void)state;
    world_init(&w, &g, seed, 0, 1, WORLD_FILES);
    w.may_fail = true;
    for (uint32_t n = 1; n <= 1200; n++) {
        if (rng_below(&w.r, 3) == 0) {
            (void)reclaim_range(&g.vm, pfn_make(0), pfn_make(RAM_PAGES), 0);
        }
        page_alloc_fail_nth(1 + n % 13);
        for (uint32_t i = 0; i < 12; i++) {
            world_step(&w);
        }
        page_alloc_fail_nth(0);
        if (n % 100 == 0) {
            check_caches(&g, seed);
            world_check_all(&w);
        }
    }
    assert_true(w.refused > 50);
    world_free(&w);
}

/* ---- what goes and what stays ---- */

static struct mm_struct *process_with(uint64_t pages, uint64_t *va, unsigned flags, struct address_space *as)
{
    struct mm_struct *mm;

    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    *va = 0;
    assert_int_equal(vm_mmap(mm, va, pages * FS_PAGE_BYTES, flags, as, 0), MM_OK);
    return mm;
}

static void fill(struct mm_struct *mm, uint64_t va, uint64_t pages, uint64_t salt)
{
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t word = i * 0x9e3779b97f4a7c15ull ^ salt;

        assert_int_equal(vm_user_write(mm, va + i * FS_PAGE_BYTES + i % 500 * 8, &word, 8), MM_OK);
    }
}

static void verify(struct mm_struct *mm, uint64_t va, uint64_t pages, uint64_t salt)
{
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t word = 0;

        assert_int_equal(vm_user_read(mm, va + i * FS_PAGE_BYTES + i % 500 * 8, &word, 8), MM_OK);
        assert_int_equal(word, i * 0x9e3779b97f4a7c15ull ^ salt);
    }
}

/* More memory than there is: everything is served, nothing is lost, and most of it goes through swap. */
static void test_more_than_memory(void **state)
{
    struct mm_struct *mm;
    uint64_t va;

    (void)state;
    mm = process_with(5000, &va, VM_ACCESS, NULL);
    fill(mm, va, 5000, 1);
    assert_true(lru_counter(&g.lru, LC_pswpout) >= 5000 - RAM_PAGES && lru_counter(&g.lru, LC_allocstall) > 0);
    check_caches(&g, 0);
    verify(mm, va, 5000, 1);
    verify(mm, va, 5000, 1);
    assert_true(lru_counter(&g.lru, LC_pswpin) > 0);
    check_caches(&g, 0);
    mm_put(mm);
    assert_int_equal(swap_free_slots(&g.swap), 6000);
}

/* Mlocked pages stay, move to the unevictable list, and come back when they are unlocked. */
static void test_mlocked(void **state)
{
    struct mm_struct *mm, *other;
    uint64_t va, other_va, in = 0;

    (void)state;
    mm = process_with(300, &va, VM_ACCESS, NULL);
    fill(mm, va, 300, 2);
    assert_int_equal(vm_mlock(mm, va, 300 * FS_PAGE_BYTES), MM_OK);
    other = process_with(4000, &other_va, VM_ACCESS, NULL);
    fill(other, other_va, 4000, 3);
    (void)reclaim_range(&g.vm, pfn_make(0), pfn_make(RAM_PAGES), 0);
    assert_int_equal(lru_pages_all(&g.lru, LRU_UNEVICTABLE), 300);
    for (uint64_t i = 0; i < 300; i++) {
        struct page *page = follow_page(mm, va + i * FS_PAGE_BYTES);

        assert_non_null(page);                  /* never left */
        page_put(&g.f.mm, page);
    }
    check_caches(&g, 0);
    assert_int_equal(vm_munlock(mm, va, 300 * FS_PAGE_BYTES), MM_OK);
    assert_int_equal(lru_pages_all(&g.lru, LRU_UNEVICTABLE), 0);
    (void)reclaim_range(&g.vm, pfn_make(0), pfn_make(RAM_PAGES), 0);
    for (uint64_t i = 0; i < 300; i++) {
        struct page *page = follow_page(mm, va + i * FS_PAGE_BYTES);

        if (page != NULL) {
            in++;
            page_put(&g.f.mm, page);
        }
    }
    assert_int_equal(in, 0);
    verify(mm, va, 300, 2);
    verify(other, other_va, 4000, 3);
    mm_put(mm);
    mm_put(other);
}

/* A file that is read again and again stays, a file that is read once goes first. */
static void test_used_twice(void **state)
{
    enum { HOT = 300, COLD = 1500 };
    static struct address_space hot, cold;
    struct store stores[2] = { { calloc(HOT, FS_PAGE_BYTES), HOT }, { calloc(COLD, FS_PAGE_BYTES), COLD } };

    (void)state;
    assert_int_equal(address_space_init(&g.vm, &hot, GFP_HIGH_MOVABLE, &store_ops, &stores[0]), MM_OK);
    assert_int_equal(address_space_init(&g.vm, &cold, GFP_HIGH_MOVABLE, &store_ops, &stores[1]), MM_OK);
    for (uint64_t i = 0; i < COLD; i++) {
        struct page *page;

        assert_int_equal(pagecache_get(&cold, i, &page), MM_OK);
        page_put(&g.f.mm, page);
        assert_int_equal(pagecache_get(&hot, i % HOT, &page), MM_OK);
        page_put(&g.f.mm, page);
    }
    assert_int_equal(lru_pages_all(&g.lru, LRU_ACTIVE_FILE), HOT);
    assert_true(reclaim_zone(&g.vm, &g.f.mm.zones[0], 1200, GFP_KERNEL) >= 1200);
    assert_true(hot.pages >= HOT * 9 / 10);
    assert_true(cold.pages <= COLD - 1170);
    check_caches(&g, 0);
    address_space_destroy(&hot);
    address_space_destroy(&cold);
    free(stores[0].bytes);
    free(stores[1].bytes);
}

/* The background does nothing above low, and below it works until high. */
static void test_watermarks(void **state)
{
    struct zone *z = &g.f.mm.zones[0];
    static struct address_space file;
    struct store store = { calloc(RAM_PAGES, FS_PAGE_BYTES), RAM_PAGES };
    uint64_t i;

    (void)state;
    assert_non_null(store.bytes);
    assert_int_equal(address_space_init(&g.vm, &file, GFP_HIGH_MOVABLE, &store_ops, &store), MM_OK);
    assert_int_equal(reclaim_background(&g.vm, z), 0);
    assert_int_equal(lru_counter(&g.lru, LC_kswapd_run), 0);
    for (i = 0; i < RAM_PAGES && !reclaim_wanted(z); i++) {
        struct page *page;

        assert_int_equal(pagecache_get(&file, i, &page), MM_OK);
        page_put(&g.f.mm, page);
    }
    assert_true(reclaim_wanted(z));
    assert_int_equal(lru_counter(&g.lru, LC_allocstall), 0);
    assert_true(reclaim_background(&g.vm, z) > 0);
    assert_true(zone_free_pages(z) >= z->watermark[WMARK_HIGH]);
    assert_false(reclaim_wanted(z));
    assert_true(lru_counter(&g.lru, LC_pgsteal_kswapd) < 2 * z->watermark[WMARK_HIGH]);     /* and not much further */
    assert_int_equal(reclaim_background(&g.vm, z), 0);
    assert_int_equal(lru_counter(&g.lru, LC_kswapd_run), 1);
    address_space_destroy(&file);
    free(store.bytes);
}

/* Lumpy: a block is free as a whole afterwards, however much its pages are used; its neighbours keep theirs. */
static void test_lumpy(void **state)
{
    struct mm_struct *mm;
    uint64_t va, blocks = 0;

    (void)state;
    mm = process_with(1500, &va, VM_ACCESS, NULL);
    fill(mm, va, 1500, 4);
    for (uint32_t b = 0; b < RAM_PAGES / PAGEBLOCK_PAGES; b++) {
        uint64_t used = 0, before = mm->rss;

        for (uint32_t i = 0; i < PAGEBLOCK_PAGES; i++) {
            used += page_test(mm_block_page(&g.f.mm, b) + i, PG_LRU);
        }
        if (used < 400) {
            continue;
        }
        verify(mm, va, 0, 4);
        assert_int_equal(reclaim_range(&g.vm, block_pfn(b), block_pfn(b + 1), 0), used);
        assert_int_equal(mm->rss, before - used);
        mm_drain(&g.f.mm);
        assert_int_equal(mm_block(&g.f.mm, b)->free_pages, PAGEBLOCK_PAGES);
        blocks++;
    }
    assert_true(blocks >= 2);
    verify(mm, va, 1500, 4);
    check_caches(&g, 0);
    mm_put(mm);
}

/* Without swap anonymous memory stays, and a request that cannot be served is refused, with everybody's bytes intact. */
static void test_no_swap(void **state)
{
    struct mm_struct *mm;
    uint64_t va, word = 7, i = 0;

    (void)state;
    while (swap_free_slots(&g.swap) > 0) {
        swp_entry_t e;

        assert_int_equal(swap_alloc(&g.swap, &e), MM_OK);
    }
    mm = process_with(5000, &va, VM_ACCESS, NULL);
    while (i < 5000 && vm_user_write(mm, va + i * FS_PAGE_BYTES, &word, 8) == MM_OK) {
        i++;
    }
    assert_true(i > 2000 && i < RAM_PAGES);
    assert_int_equal(lru_counter(&g.lru, LC_pswpout), 0);
    while (i-- > 0) {
        uint64_t is = 0;

        assert_int_equal(vm_user_read(mm, va + i * FS_PAGE_BYTES, &is, 8), MM_OK);
        assert_int_equal(is, 7);
    }
    for (uint32_t slot = 0; slot < 6000; slot++) {
        swap_free(&g.swap, swp_entry(0, slot));
    }
    check_caches(&g, 0);
    mm_put(mm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_world, setup, teardown),
        cmocka_unit_test_setup_teardown(test_world_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_more_than_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mlocked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_used_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watermarks, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lumpy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_swap, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
