/*
 * test_vm_threads.c - processes on several CPUs at once, under migration, compaction and offlining.
 *
 * Workers have worlds of their own (processes, files, a model of every byte), and one process that all of them share, whose pages each
 * writes at his own places.  Others move pages all the time.  Run it under the thread sanitizer as well.
 */
#include "vm_world.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "guest_fault.h"
#include "hotplug.h"
#include "pageblock.h"
#include "reclaim.h"
#include <stdarg.h>
#include <setjmp.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define RAM_PAGES   8192u
#define PRESSED_PAGES 2048u
#define HUGE_RAM_PAGES 24576u
#define WORKERS     3u
#define STEPS       3000u
#define MOVED_LEAST 500u
#define SHARED_PAGES 64u
#define SHARED_VA   0x10000000ull
#define HOT_PAGES   4u
#define HOT_STEPS   4000u
#define HOT_SECONDS 100u
#define HOT_WAITS   20u                 /* faults that met a page on its way, at least */

static struct guest g;
static struct world worlds[WORKERS];
static struct mm_struct *shared_mm;
static _Atomic bool stop;
static uint64_t ram_pages;              /* PRESSED_PAGES: the worlds want more than there is */
static bool huge;                       /* huge pages too, and a background that makes them */
static _Atomic uint64_t wrong, moved, stops;

/* ---- the process that all share: 64 bytes of each page are each worker's own ---- */

struct stripe { uint64_t words[SHARED_PAGES]; };

static void stripe_step(struct stripe *s, unsigned me, uint32_t pages, struct rng *r)
{
    uint32_t page = (uint32_t)rng_below(r, pages);
    uint64_t va = SHARED_VA + page * (uint64_t)FS_PAGE_BYTES + me * 64, word;

    if (vm_user_read(shared_mm, va, &word, sizeof(word)) != MM_OK || word != s->words[page]) {
        atomic_fetch_add(&wrong, 1);
    }
    s->words[page] = rng_next(r);
    if (vm_user_write(shared_mm, va, &s->words[page], sizeof(word)) != MM_OK) {
        atomic_fetch_add(&wrong, 1);
    }
}

/* A snapshot by fork: each worker's word is one that he wrote, and stays what it was. */
static void fork_step(const struct stripe *s, unsigned me)
{
    struct mm_struct *child;
    uint64_t before, after;

    if (mm_fork(shared_mm, &child) != MM_OK) {
        return;
    }
    for (uint32_t page = 0; page < SHARED_PAGES; page++) {
        uint64_t va = SHARED_VA + page * (uint64_t)FS_PAGE_BYTES, other = va + (me + 1) % WORKERS * 64;

        if (vm_user_read(child, va + me * 64, &before, 8) != MM_OK || before != s->words[page]) {
            atomic_fetch_add(&wrong, 1);
        }
        if (vm_user_read(child, other, &before, 8) != MM_OK || vm_user_read(child, other, &after, 8) != MM_OK || before != after) {
            atomic_fetch_add(&wrong, 1);
        }
    }
    mm_put(child);
}

static void *worker(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    struct world *w = &worlds[me];
    struct stripe stripe = { { 0 } };

    arch_hosted_cpu_online(me);
    for (unsigned step = 0; step < (huge ? STEPS / 4 : STEPS) || (step < STEPS * 50 && atomic_load(&moved) < MOVED_LEAST); step++) {
        world_step(w);
        stripe_step(&stripe, me, SHARED_PAGES, &w->r);
        if (step % 300 == 299) {
            fork_step(&stripe, me);
        }
        if (step % 500 == 499) {
            world_check_all(w);
        }
    }
    world_check_all(w);
    for (uint32_t page = 0; page < SHARED_PAGES; page++) {
        uint64_t word;

        if (vm_user_read(shared_mm, SHARED_VA + page * (uint64_t)FS_PAGE_BYTES + me * 64, &word, 8) != MM_OK || word != stripe.words[page]) {
            atomic_fetch_add(&wrong, 1);
        }
    }
    arch_hosted_cpu_offline();
    return NULL;
}

/* ---- those who move pages ---- */

static mm_status_t give(void *ctx, pfn_t pfn, unsigned order)
{
    (void)ctx;
    memset(arch_page_address(pfn), 0xee, (size_t)FS_PAGE_BYTES << order);
    return MM_OK;
}

static const struct hotplug_ops hotplug = { .give = give, .take = give, .ctx = NULL };

static void *compactor(void *argument)
{
    struct rng r = { 77 };

    (void)argument;
    arch_hosted_cpu_online(WORKERS);
    while (!atomic_load(&stop)) {
        uint32_t block = (uint32_t)(ram_pages / PAGEBLOCK_PAGES) - 4 - (uint32_t)rng_below(&r, 3);
        struct hotplug_report out, back;

        arch_cpu_relax();                       /* where there is nothing to move nothing else lets the machine be stopped */
        atomic_fetch_add(&moved, compact_all(&g.f.mm, TARGET_MOVABLE).migrated_pages);
        if (huge) {
            (void)khugepaged_scan(&g.vm, 4);
        }
        if (ram_pages == PRESSED_PAGES) {       /* the background of reclaim instead: there is no room to take memory away */
            (void)reclaim_background(&g.vm, &g.f.mm.zones[0]);
            continue;
        }
        if (memory_offline(&g.f.mm, block_pfn(block), block_pfn(block + 4), OFFLINE_RESIDUAL_OK, &hotplug, &out, NULL) == MM_EINVAL
            || memory_online(&g.f.mm, block_pfn(block), block_pfn(block + 4), &hotplug, &back) != MM_OK) {
            atomic_fetch_add(&wrong, 1);
        }
        atomic_fetch_add(&moved, out.migrated_pages);
    }
    arch_hosted_cpu_offline();
    return NULL;
}

static struct page *new_target(void *ctx, struct page *from, size_t i)
{
    (void)ctx;
    (void)i;
    return alloc_pages(&g.f.mm, page_order(from) != 0 ? GFP_TRANSHUGE : GFP_HIGH_MOVABLE, page_order(from));
}

static void stand_still(void *arg)
{
    atomic_fetch_add((_Atomic uint64_t *)arg, 1);
}

/* Pages by frame, whoever they belong to: no process is known here, and they may exit at any time. */
static void *migrator(void *argument)
{
    struct rng r = { 99 };

    (void)argument;
    arch_hosted_cpu_online(WORKERS + 1);
    while (!atomic_load(&stop)) {
        struct migrate_item items[32];
        struct migrate_result result;
        size_t n = 0;
        uint64_t pfn = rng_below(&r, ram_pages - 512);

        for (; n < 32 && pfn < ram_pages; pfn++) {
            struct page *p = mm_page(&g.f.mm, pfn_make(pfn));

            if (page_state(p) == PAGE_USED && page_type(p) == MIGRATE_MOVABLE && (huge || page_order(p) == 0) && page_try_get(p)) {
                items[n++] = (struct migrate_item){ .from = p };
            }
        }
        if (migrate_pages(&g.vm, items, n, new_target, NULL, rng_below(&r, 2) == 0 ? MIGRATE_SYNC : MIGRATE_ASYNC, &result) == MM_EINVAL) {
            atomic_fetch_add(&wrong, 1);
        }
        for (size_t i = 0; i < n; i++) {
            if (items[i].status != MM_OK) {
                page_put(&g.f.mm, items[i].from);
            }
        }
        atomic_fetch_add(&moved, result.moved);
        if (rng_below(&r, 16) == 0) {
            arch_stop_machine(stand_still, &stops);
        }
    }
    arch_hosted_cpu_offline();
    return NULL;
}

static void run_threads(uint64_t seed, uint64_t ram)
{
    uint64_t va = SHARED_VA;
    pthread_t threads[WORKERS + 2];

    ram_pages = ram;
    atomic_store(&stop, false);
    atomic_store(&moved, 0);
    atomic_store(&stops, 0);
    guest_init(&g, ram, WORKERS + 2, 8192);
    for (unsigned i = 0; i < WORKERS; i++) {
        world_init(&worlds[i], &g, seed + i, i, 1, WORLD_FILES);
        worlds[i].may_fail = ram == PRESSED_PAGES || huge;
    }
    if (huge) {
        thp_set_policy(&g.vm, seed % 2 == 0 ? THP_ALWAYS : THP_MADVISE);
        assert_int_equal(hugetlb_set_pool(&g.vm, 0, WORKERS * POOL_UNITS), WORKERS * POOL_UNITS);
        hugetlb_set_overcommit(&g.vm, WORKERS * POOL_UNITS * 2);
        for (unsigned i = 0; i < WORKERS; i++) {
            world_huge(&worlds[i], true);
        }
    }
    assert_int_equal(mm_create(&g.vm, &shared_mm), MM_OK);
    assert_int_equal(vm_mmap(shared_mm, &va, SHARED_PAGES * (uint64_t)FS_PAGE_BYTES, VM_ACCESS, NULL, 0), MM_OK);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, worker, (void *)(uintptr_t)i), 0);
    }
    assert_int_equal(pthread_create(&threads[WORKERS], NULL, compactor, NULL), 0);
    assert_int_equal(pthread_create(&threads[WORKERS + 1], NULL, migrator, NULL), 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    atomic_store(&stop, true);
    pthread_join(threads[WORKERS], NULL);
    pthread_join(threads[WORKERS + 1], NULL);
    assert_int_equal(atomic_load(&wrong), 0);
    assert_true(atomic_load(&moved) >= MOVED_LEAST && atomic_load(&stops) > 0);
    guest_check(&g, seed);
    if (getenv("FRAMESHIFT_VERBOSE") != NULL) {
        for (enum vm_counter c = 0; c < VM_COUNTERS; c++) {
            print_message("%-16s %llu\n", vm_counter_name(c), (unsigned long long)vm_counter(&g.vm, c));
        }
        print_message("moved %llu stops %llu\n", (unsigned long long)atomic_load(&moved), (unsigned long long)atomic_load(&stops));
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        world_free(&worlds[i]);
    }
    mm_put(shared_mm);
    guest_check(&g, seed);
    guest_free(&g);
}

static void test_threads(void **state)
{
    (void)state;
    run_threads(test_seed(500), RAM_PAGES);
}

static void test_threads_pressed(void **state)
{
    (void)state;
    run_threads(test_seed(600), PRESSED_PAGES);
}

/* Huge pages are made, cut, copied, moved and collapsed on all CPUs, on both kinds of machine. */
static void test_threads_huge(void **state)
{
    (void)state;
    huge = true;
    run_threads(test_seed(700), HUGE_RAM_PAGES);
    arch_hosted_set_leaf(false);
    run_threads(test_seed(701), HUGE_RAM_PAGES);
    arch_hosted_set_leaf(true);
    huge = false;
}

/* ---- a few pages that everybody writes all the time, and that are moved all the time ---- */

/* Whoever wants the page while it is on its way gets the time to ask for it. */
static void linger(void *ctx, pfn_t to, pfn_t from)
{
    static _Atomic unsigned copies;

    (void)ctx;
    (void)to;
    (void)from;
    if (atomic_fetch_add(&copies, 1) % 8 == 0) {
        usleep(20);
    }
}

static void *hot_worker(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    struct stripe stripe = { { 0 } };
    struct rng r = { me };
    uint64_t end = arch_time_ns() + HOT_SECONDS * 1000000000ull;

    arch_hosted_cpu_online(me);
    /* On a busy host the mover may get its turn late. */
    for (unsigned step = 0; step < HOT_STEPS || (arch_time_ns() < end && vm_counter(&g.vm, VMC_fault_migration) < HOT_WAITS); step++) {
        stripe_step(&stripe, me, HOT_PAGES, &r);
        if (step % 32 == 31) {
            sched_yield();
        }
    }
    for (uint32_t page = HOT_PAGES; page < SHARED_PAGES; page++) {
        stripe.words[page] = 0;
    }
    fork_step(&stripe, me);
    arch_hosted_cpu_offline();
    return NULL;
}

static void *hot_mover(void *argument)
{
    struct rng r = { 4 };

    (void)argument;
    arch_hosted_cpu_online(WORKERS);
    while (!atomic_load(&stop)) {
        struct page *page = follow_page(shared_mm, SHARED_VA + rng_below(&r, HOT_PAGES) * FS_PAGE_BYTES);
        struct migrate_item item = { .from = page };
        struct migrate_result result;
        struct mm_struct *child;

        if (page != NULL && migrate_pages(&g.vm, &item, 1, new_target, NULL, MIGRATE_SYNC, &result) != MM_OK) {
            page_put(&g.f.mm, page);
        }
        if (rng_below(&r, 64) == 0 && mm_fork(shared_mm, &child) == MM_OK) {
            mm_put(child);
        }
    }
    arch_hosted_cpu_offline();
    return NULL;
}

static void test_hot_pages(void **state)
{
    pthread_t threads[WORKERS + 1];
    uint64_t va = SHARED_VA;

    (void)state;
    atomic_store(&stop, false);
    arch_hosted_on_copy(linger, NULL);
    guest_init(&g, RAM_PAGES, WORKERS + 1, 0);
    assert_int_equal(mm_create(&g.vm, &shared_mm), MM_OK);
    assert_int_equal(vm_mmap(shared_mm, &va, SHARED_PAGES * (uint64_t)FS_PAGE_BYTES, VM_ACCESS, NULL, 0), MM_OK);
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, hot_worker, (void *)(uintptr_t)i), 0);
    }
    assert_int_equal(pthread_create(&threads[WORKERS], NULL, hot_mover, NULL), 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    atomic_store(&stop, true);
    pthread_join(threads[WORKERS], NULL);
    assert_int_equal(atomic_load(&wrong), 0);
    assert_true(vm_counter(&g.vm, VMC_fault_migration) >= HOT_WAITS);
    guest_check(&g, 0);
    mm_put(shared_mm);
    guest_free(&g);
    arch_hosted_on_copy(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_threads_pressed),
        cmocka_unit_test(test_threads_huge),
        cmocka_unit_test(test_hot_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
