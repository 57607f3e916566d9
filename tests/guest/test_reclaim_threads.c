/*
 * test_reclaim_threads.c - processes on several CPUs under reclaim, compaction and migration at once, with too little memory.
 *
 * Workers have worlds of their own, with a model of every byte.  Others reclaim, whole blocks too, and move pages; slab objects are given
 * back in between.  Run it under the thread sanitizer as well.
 */
#include "cache_check.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "guest_fault.h"
#include "reclaim.h"
#include <stdarg.h>
#include <setjmp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RAM_PAGES   5120u
#define WORKERS     3u
#define STEPS       4000u
#define LEAST       300u

static struct guest g;
static struct world worlds[WORKERS];
static struct address_space common;
static struct store common_store;
static _Atomic bool stop;
static _Atomic uint64_t wrong;

static bool enough(void)
{
    return lru_counter(&g.lru, LC_pswpin) > LEAST && lru_counter(&g.lru, LC_pgsteal_kswapd) > LEAST
        && lru_counter(&g.lru, LC_pgsteal_lumpy) > LEAST && lru_counter(&g.lru, LC_pgpgout) > LEAST;
}

/* A file that all write, each at his own place of each page, through the page cache. */
static void common_step(unsigned me, uint64_t *words, struct rng *r)
{
    uint64_t i = rng_below(r, FILE_PAGES);
    unsigned char *at;
    struct page *page;

    if (pagecache_get(&common, i, &page) != MM_OK) {
        return;
    }
    at = (unsigned char *)arch_page_address(page_pfn(page)) + me * 64;
    if (memcmp(at, &words[i], 8) != 0) {
        atomic_fetch_add(&wrong, 1);
    }
    words[i] = rng_next(r);
    __atomic_store_n((uint64_t *)(void *)at, words[i], __ATOMIC_RELAXED);
    pagecache_dirty(page);
    page_put(&g.f.mm, page);
}

static void *worker(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    struct world *w = &worlds[me];
    uint64_t words[FILE_PAGES] = { 0 };

    arch_hosted_cpu_online(me);
    for (unsigned step = 0; step < STEPS || (step < STEPS * 50 && !enough()); step++) {
        world_step(w);
        common_step(me, words, &w->r);
        if (step % 500 == 499) {
            world_check_all(w);
        }
    }
    world_check_all(w);
    for (uint64_t i = 0; i < FILE_PAGES; i++) {
        struct page *page;

        if (pagecache_get(&common, i, &page) != MM_OK) {
            atomic_fetch_add(&wrong, 1);
            continue;
        }
        if (memcmp((unsigned char *)arch_page_address(page_pfn(page)) + me * 64, &words[i], 8) != 0) {
            atomic_fetch_add(&wrong, 1);
        }
        page_put(&g.f.mm, page);
    }
    arch_hosted_cpu_offline();
    return NULL;
}

static void *reclaimer(void *argument)
{
    struct rng r = { 5 };

    (void)argument;
    arch_hosted_cpu_online(WORKERS);
    while (!atomic_load(&stop)) {
        struct zone *z = &g.f.mm.zones[0];
        uint32_t block = (uint32_t)rng_below(&r, RAM_PAGES / PAGEBLOCK_PAGES);

        arch_cpu_relax();
        (void)reclaim_background(&g.vm, z);
        switch (rng_below(&r, 8)) {
        case 0:
            (void)reclaim_range(&g.vm, block_pfn(block), block_pfn(block + 1), rng_below(&r, 2) == 0 ? RECLAIM_CLEAN_ONLY : 0);
            break;
        case 1:
            (void)pagecache_sync(&common);
            break;
        case 2:
            (void)kmem_shrink_caches(&g.f.mm, 1, 2);
            break;
        default:
            break;
        }
    }
    arch_hosted_cpu_offline();
    return NULL;
}

static void *compactor(void *argument)
{
    (void)argument;
    arch_hosted_cpu_online(WORKERS + 1);
    while (!atomic_load(&stop)) {
        arch_cpu_relax();
        (void)compact_all(&g.f.mm, TARGET_MOVABLE);
    }
    arch_hosted_cpu_offline();
    return NULL;
}

static void test_threads(void **state)
{
    static struct page *held[RAM_PAGES];
    uint64_t seed = test_seed(700), n = 0;
    pthread_t threads[WORKERS + 2];

    (void)state;
    page_alloc_fail_nth(0);
    guest_init(&g, RAM_PAGES, WORKERS + 2, 8192);
    reclaim_init(&g.vm);
    common_store = (struct store){ calloc(FILE_PAGES, FS_PAGE_BYTES), FILE_PAGES };
    assert_non_null(common_store.bytes);
    assert_int_equal(address_space_init(&g.vm, &common, GFP_HIGH_MOVABLE, &store_ops, &common_store), MM_OK);
    for (unsigned i = 0; i < WORKERS; i++) {
        world_init(&worlds[i], &g, seed + i, i, 1, WORLD_FILES);
    }
    while (mm_free_pages(&g.f.mm) > 2400 && (held[n] = alloc_pages(&g.f.mm, GFP_NOWAIT, 0)) != NULL) {
        n++;
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, worker, (void *)(uintptr_t)i), 0);
    }
    assert_int_equal(pthread_create(&threads[WORKERS], NULL, reclaimer, NULL), 0);
    assert_int_equal(pthread_create(&threads[WORKERS + 1], NULL, compactor, NULL), 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    atomic_store(&stop, true);
    pthread_join(threads[WORKERS], NULL);
    pthread_join(threads[WORKERS + 1], NULL);
    assert_int_equal(atomic_load(&wrong), 0);
    assert_true(enough());
    check_caches(&g, seed);
    for (unsigned i = 0; i < WORKERS; i++) {
        world_free(&worlds[i]);
    }
    while (n > 0) {
        page_put(&g.f.mm, held[--n]);
    }
    address_space_destroy(&common);
    check_caches(&g, seed);
    guest_free(&g);
    free(common_store.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
