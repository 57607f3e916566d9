/*
 * test_workload.c - the verifying tasks: on one CPU with a seeded scheduler, on several, with memory that is short or refused; and that each
 * of them finds what is wrong.
 */
#include "cache_check.h"
#include "guest_fault.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "hotplug.h"
#include "move_pages.h"
#include "reclaim.h"
#include "../../guest/workload/workload_priv.h"
#include <stdarg.h>
#include <setjmp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define RAM_PAGES 8192u

static struct guest g;
static struct workload w;
static struct workload_wrong first;
static _Atomic uint64_t reported;
static bool quiet;

static void record(void *ctx, const struct workload_wrong *wrong)
{
    (void)ctx;
    if (!quiet) {
        print_error("%s task %u: %s: page %llu byte %llu is %#llx should be %#llx\n", workload_name(wrong->kind), wrong->task,
                    workload_fault_name(wrong->fault), (unsigned long long)wrong->page, (unsigned long long)wrong->byte,
                    (unsigned long long)wrong->is, (unsigned long long)wrong->should_be);
    }
    if (atomic_fetch_add(&reported, 1) == 0) {
        first = *wrong;
    }
}

static struct workload_config config(unsigned kinds, uint32_t tasks, uint32_t pages, uint64_t seed)
{
    return (struct workload_config){ .vm = &g.vm, .seed = seed, .kinds = kinds, .tasks = tasks, .pages = pages, .frames_stay = true,
                                     .regions = true, .wrong = record };
}

static int setup(void **state)
{
    (void)state;
    page_alloc_fail_nth(0);
    guest_init(&g, RAM_PAGES, 4, 8192);
    reclaim_init(&g.vm);
    quiet = false;
    atomic_store(&reported, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arch_hosted_set_cpu(0);
    guest_free(&g);
    return 0;
}

/* ---- one CPU, a seeded scheduler ---- */

static mm_status_t give(void *ctx, pfn_t pfn, unsigned order)
{
    unsigned char *at = arch_page_address(pfn);

    (void)ctx;
    for (uint64_t i = 0; i < FS_PAGE_BYTES << order; i += 64) {
        at[i] = 0xee;                               /* nobody has anything to look for there */
    }
    return MM_OK;
}

static const struct hotplug_ops hotplug = { .give = give, .take = give, .ctx = NULL };

static void disturb(struct rng *r)
{
    uint32_t block = (uint32_t)rng_below(r, RAM_PAGES / PAGEBLOCK_PAGES - 4);
    struct hotplug_report out, back;

    switch (rng_below(r, 12)) {
    case 0:
        (void)compact_all(&g.f.mm, TARGET_MOVABLE);
        break;
    case 1:
        (void)reclaim_range(&g.vm, block_pfn(block), block_pfn(block + 2), 0);
        break;
    case 2:
        if (memory_offline(&g.f.mm, block_pfn(block), block_pfn(block + 4), OFFLINE_RESIDUAL_OK, &hotplug, &out, NULL) == MM_EINVAL) {
            fail();
        }
        assert_int_equal(memory_online(&g.f.mm, block_pfn(block), block_pfn(block + 4), &hotplug, &back), MM_OK);
        break;
    case 3:
        (void)reclaim_zone(&g.vm, &g.f.mm.zones[0], rng_below(r, 300), GFP_KERNEL);
        break;
    default:
        (void)reclaim_background(&g.vm, &g.f.mm.zones[0]);
        break;
    }
}

static struct workload_stats run(uint64_t seed, uint32_t steps, uint32_t pages)
{
    struct workload_config c = config(WORKLOAD_ALL, 2, pages, seed);
    struct workload_stats total;
    struct rng r = { seed };

    assert_int_equal(workload_start(&w, &c), MM_OK);
    assert_int_equal(w.count, 2 * WORKLOAD_KINDS);
    for (uint32_t i = 0; i < steps; i++) {
        arch_hosted_set_cpu((unsigned)rng_below(&r, 4));
        assert_int_equal(workload_step(&w, (uint32_t)rng_below(&r, w.count)), 0);
        if (i % 100 == 0) {
            disturb(&r);
        }
        if (i % 10000 == 0) {
            check_caches(&g, seed);
            assert_int_equal(workload_verify_all(&w), 0);
        }
    }
    check_caches(&g, seed);
    assert_int_equal(workload_verify_all(&w), 0);
    total = workload_total(&w);
    for (uint32_t i = 0; i < w.count; i++) {
        struct workload_stats s = workload_task_stats(&w, i);

        assert_true(s.steps > steps / 40 && s.bytes_verified > 0);
        assert_true(s.bytes_written > 0 || s.steps < 1000);     /* a task of few huge pages may read only for that long */
    }
    workload_stop(&w);
    check_caches(&g, seed);
    return total;
}

static void test_one_cpu(void **state)
{
    struct workload_stats s = run(test_seed(71), 40000, 500);

    (void)state;
    assert_int_equal(s.wrong, 0);
    assert_true(s.bytes_verified > 100u << 20);
    /* It was no walk in the park: swap, migration and write-back all had their part. */
    assert_true(lru_counter(&g.lru, LC_pswpin) > 100 && lru_counter(&g.lru, LC_pgpgout) > 100);
    assert_true(vm_counter(&g.vm, VMC_migrate_success) > 1000 && vm_counter(&g.vm, VMC_fault_cow) > 100);
    assert_true(vm_counter(&g.vm, VMC_thp_fault_alloc) > 0 && vm_counter(&g.vm, VMC_thp_split) > 0 && vm_counter(&g.vm, VMC_hugetlb_fault) > 0);
}

/* The same seed does the same. */
static void test_same_again(void **state)
{
    struct workload_stats a, b;

    a = run(test_seed(72), 3000, 64);
    assert_int_equal(teardown(state), 0);
    assert_int_equal(setup(state), 0);
    b = run(test_seed(72), 3000, 64);
    assert_int_equal(a.bytes_verified, b.bytes_verified);
    assert_int_equal(a.bytes_written, b.bytes_written);
    assert_int_equal(a.refused, b.refused);
}

/* Every page allocation of the start fails once: nothing is left behind. Then failures on the way: no byte is wrong for that. */
static void test_refused(void **state)
{
    struct workload_config c = config(WORKLOAD_ALL, 1, 64, 5);
    struct rng r = { test_seed(73) };
    mm_status_t status;
    uint64_t n = 0;

    (void)state;
    do {
        page_alloc_fail_nth(++n);
        status = workload_start(&w, &c);
        page_alloc_fail_nth(0);
        if (status != MM_OK) {
            assert_int_equal(status, MM_ENOMEM);
            assert_int_equal(g.vm.mm_count, 0);
            check_caches(&g, n);
        }
    } while (status != MM_OK && n < 1000);
    assert_true(n > 30 && n < 1000);
    for (uint32_t i = 0; i < 20000; i++) {
        page_alloc_fail_nth(1 + rng_below(&r, 4));
        assert_int_equal(workload_step(&w, (uint32_t)rng_below(&r, w.count)), 0);
        page_alloc_fail_nth(0);
        if (i % 100 == 0) {
            disturb(&r);
        }
    }
    assert_true(workload_total(&w).refused > 100);
    assert_int_equal(workload_verify_all(&w), 0);
    check_caches(&g, 0);
    workload_stop(&w);
    c.pages = 8;
    assert_int_equal(workload_start(&w, &c), MM_EINVAL);
    c = config(1u << WORKLOAD_KINDS, 1, 64, 1);
    assert_int_equal(workload_start(&w, &c), MM_EINVAL);
}

/* ---- what is wrong is found ---- */

static void warm_up(enum workload_kind kind)
{
    struct workload_config c = config(1u << kind, 1, kind == WORKLOAD_HUGE ? 512 : 64, 9);

    assert_int_equal(workload_start(&w, &c), MM_OK);
    for (uint32_t i = 0; i < 3000; i++) {
        assert_int_equal(workload_step(&w, 0), 0);
    }
    assert_int_equal(workload_verify_all(&w), 0);
    quiet = true;
}

static void expect_found(enum workload_fault fault)
{
    uint64_t before = atomic_load(&reported);

    assert_true(workload_verify_all(&w) > 0);
    assert_true(atomic_load(&reported) > before);
    assert_int_equal(first.fault, fault);
    assert_int_equal(workload_total(&w).wrong, atomic_load(&reported));
    quiet = false;
    workload_stop(&w);
    atomic_store(&reported, 0);
}

static void flip(pfn_t pfn, uint64_t byte)
{
    ((unsigned char *)arch_page_address(pfn))[byte] ^= 0x10;
}

static void flip_user(struct mm_struct *mm, uint64_t va)
{
    struct page *p = follow_page(mm, va);

    assert_non_null(p);
    flip(page_pfn(p), 777);
    page_put(&g.f.mm, p);
}

/* A device with a region that was written to. */
static void warm_up_region(void)
{
    warm_up(WORKLOAD_DMA);
    while (w.tasks[0]->u.unit.region.region.page == NULL || w.tasks[0]->u.unit.region.version == 0) {
        assert_int_equal(workload_step(&w, 0), 0);
    }
}

static void test_found(void **state)
{
    static const enum workload_kind users[] = { WORKLOAD_ANON, WORKLOAD_FORK, WORKLOAD_SHM, WORKLOAD_MLOCK };
    struct workload_task *t;

    (void)state;
    for (unsigned i = 0; i < FS_ARRAY_SIZE(users); i++) {
        warm_up(users[i]);
        flip_user(w.tasks[0]->u.user.mm[0], w.tasks[0]->u.user.va + 5 * FS_PAGE_BYTES);
        expect_found(WORKLOAD_BYTES);
    }
    warm_up(WORKLOAD_ANON);                     /* a page that should not be there any more, and one that should */
    w.tasks[0]->u.user.expected[0].at[3 * LINES] = VERSION_HOLE;
    expect_found(WORKLOAD_GONE);
    warm_up(WORKLOAD_ANON);
    assert_int_equal(vm_munmap(w.tasks[0]->u.user.mm[0], w.tasks[0]->u.user.va, FS_PAGE_BYTES), MM_OK);
    expect_found(WORKLOAD_GONE);
    warm_up(WORKLOAD_MLOCK);                    /* not locked any more, and out */
    t = w.tasks[0];
    assert_int_equal(vm_munlock(t->u.user.mm[0], t->u.user.va + 5 * FS_PAGE_BYTES, FS_PAGE_BYTES), MM_OK);
    assert_true(reclaim_range(&g.vm, pfn_make(0), pfn_make(RAM_PAGES), 0) > 0);
    expect_found(WORKLOAD_GONE);
    warm_up(WORKLOAD_FILE);
    flip_user(w.tasks[0]->u.file.mm, w.tasks[0]->u.file.va + 6 * FS_PAGE_BYTES);
    expect_found(WORKLOAD_BYTES);
    warm_up(WORKLOAD_FILE);                     /* a line that never reached the store */
    assert_int_equal(workload_verify_all(&w), 0);
    w.tasks[0]->u.file.stored.at[9]++;
    expect_found(WORKLOAD_STORE);
    warm_up(WORKLOAD_FILE);                     /* the store is given what nobody has written */
    t = w.tasks[0];
    struct page *p = NULL;
    assert_int_equal(pagecache_get(&t->u.file.as, 3, &p), MM_OK);
    flip(page_pfn(p), 5);
    pagecache_dirty(p);
    page_put(&g.f.mm, p);
    assert_int_equal(pagecache_sync(&t->u.file.as), MM_OK);
    p = pagecache_find(&t->u.file.as, 3);
    flip(page_pfn(p), 5);
    page_put(&g.f.mm, p);
    expect_found(WORKLOAD_STORE);
    warm_up(WORKLOAD_SLAB);
    w.tasks[0]->u.slab.ring->words[3] ^= 1;
    expect_found(WORKLOAD_BYTES);
    warm_up(WORKLOAD_SLAB);
    struct node *ring = w.tasks[0]->u.slab.ring, *next = ring->next;
    ring->next = next->next;
    assert_true(workload_verify_all(&w) > 0 && first.fault == WORKLOAD_LINK);
    ring->next = next;
    workload_stop(&w);
    atomic_store(&reported, 0);
    warm_up(WORKLOAD_HUGE);
    flip(pfn_make(w.tasks[0]->u.unit.units[0].page->pfn + 300), 4000);
    expect_found(WORKLOAD_BYTES);
    warm_up(WORKLOAD_DMA);
    uint32_t slot = 0;
    while (w.tasks[0]->u.unit.units[slot].page == NULL) {
        slot++;
    }
    w.tasks[0]->u.unit.units[slot].frame.n++;
    workload_restored(&w);                          /* then another frame is no fault */
    assert_int_equal(workload_verify_all(&w), 0);
    w.tasks[0]->u.unit.units[slot].frame.n++;
    expect_found(WORKLOAD_FRAME);
    warm_up_region();
    w.tasks[0]->u.unit.region.region.frame.n++;
    expect_found(WORKLOAD_FRAME);
    warm_up_region();
    flip(page_pfn(w.tasks[0]->u.unit.region.region.page), 77);
    expect_found(WORKLOAD_BYTES);
    warm_up(WORKLOAD_DMA);
    assert_int_equal(vm_mprotect(w.tasks[0]->u.unit.mm, w.tasks[0]->u.unit.va, 16 * FS_PAGE_BYTES, 0), MM_OK);
    expect_found(WORKLOAD_GONE);
}

static void test_huge_found(void **state)
{
    static const enum workload_kind kinds[] = { WORKLOAD_THP, WORKLOAD_POOL };
    struct workload_task *t;

    (void)state;
    for (unsigned i = 0; i < FS_ARRAY_SIZE(kinds); i++) {
        warm_up(kinds[i]);
        t = w.tasks[0];
        flip_user(t->u.huge.mm[0], t->u.huge.va + 300 * FS_PAGE_BYTES);
        expect_found(WORKLOAD_BYTES);
        warm_up(kinds[i]);
        t = w.tasks[0];
        assert_int_equal(vm_munmap(t->u.huge.mm[0], t->u.huge.va, HUGE_BYTES), MM_OK);
        expect_found(WORKLOAD_GONE);
    }
}

/* A TLB that was not flushed shows: the tasks are there to find that. */
static void test_forgotten_flush(void **state)
{
    struct workload_config c = config(1u << WORKLOAD_ANON | 1u << WORKLOAD_FORK, 2, 64, 11);
    struct rng r = { 3 };
    uint64_t found = 0;

    (void)state;
    assert_int_equal(workload_start(&w, &c), MM_OK);
    for (uint32_t i = 0; i < 2000; i++) {
        assert_int_equal(workload_step(&w, (uint32_t)rng_below(&r, w.count)), 0);
    }
    quiet = true;
    (void)arch_hosted_drop_flushes(UINT64_MAX);
    for (uint32_t i = 0; i < 2000 && found == 0; i++) {
        found += workload_step(&w, (uint32_t)rng_below(&r, w.count));
        if (i % 50 == 0) {
            (void)reclaim_range(&g.vm, pfn_make(0), pfn_make(RAM_PAGES), 0);
        }
    }
    (void)arch_hosted_drop_flushes(0);
    assert_true(found > 0);
    workload_stop(&w);
}

/* ---- four nodes: placement as well as bytes ---- */

#define NODES 4u

static int setup_nodes(void **state)
{
    (void)state;
    page_alloc_fail_nth(0);
    guest_init_nodes(&g, RAM_PAGES, NODES, 8192, NODES, 0);
    reclaim_init(&g.vm);
    quiet = false;
    atomic_store(&reported, 0);
    return 0;
}

/* A node of four blocks may have given all of them to kernel types: hundreds of pages free, but a movable page goes to another node before
 * it becomes a tenant of theirs (page_alloc.c). */
static bool some_node_has_no_movable(void)
{
    for (uint32_t i = 0; i < g.f.mm.zone_count; i++) {
        uint64_t units = 0;

        for (unsigned o = 0; o < FREE_ORDERS; o++) {
            units += g.f.mm.zones[i].free_units[o][MIGRATE_MOVABLE];
        }
        if (units == 0) {
            return true;
        }
    }
    return false;
}

/* Beside a family and a file; with memory to spare everything is exact, and nobody had to go elsewhere. Reading everything back at the end
 * brings in all that reclaim took, so there need not be any to spare then. */
static void test_nodes(void **state)
{
    struct workload_config c = config(1u << WORKLOAD_POLICY | 1u << WORKLOAD_FORK | 1u << WORKLOAD_FILE, 2, 200, test_seed(75));
    struct rng r = { test_seed(75) };
    struct workload_stats s;

    (void)state;
    assert_int_equal(workload_start(&w, &c), MM_OK);
    for (uint32_t i = 0; i < 12000; i++) {
        arch_hosted_set_cpu((unsigned)rng_below(&r, NODES));
        assert_int_equal(workload_step(&w, (uint32_t)rng_below(&r, w.count)), 0);
        if (i % 200 == 0) {
            (void)compact_all(&g.f.mm, TARGET_MOVABLE);
            (void)reclaim_range(&g.vm, pfn_make(0), pfn_make(RAM_PAGES), 0);
        }
    }
    assert_true(vm_counter(&g.vm, VMC_policy_miss) == 0 || some_node_has_no_movable());
    assert_int_equal(workload_verify_all(&w), 0);
    check_caches(&g, 75);
    s = workload_total(&w);
    assert_true(s.places_verified > 4000 && vm_counter(&g.vm, VMC_policy_hit) > 1000);
    assert_true(vm_counter(&g.vm, VMC_policy_miss) == 0 || some_node_has_no_movable());
    workload_stop(&w);
}

/* With too little of it on every node: bind holds all the same. */
static void test_nodes_pressed(void **state)
{
    struct workload_config c = config(1u << WORKLOAD_POLICY | 1u << WORKLOAD_ANON, 2, 2000, test_seed(76));
    struct rng r = { test_seed(76) };

    (void)state;
    assert_int_equal(workload_start(&w, &c), MM_OK);
    for (uint32_t i = 0; i < 12000; i++) {
        arch_hosted_set_cpu((unsigned)rng_below(&r, NODES));
        assert_int_equal(workload_step(&w, (uint32_t)rng_below(&r, w.count)), 0);
        if (i % 100 == 0) {
            (void)reclaim_background(&g.vm, &g.f.mm.zones[rng_below(&r, NODES)]);
        }
    }
    assert_int_equal(workload_verify_all(&w), 0);
    check_caches(&g, 76);
    assert_true(lru_counter(&g.lru, LC_pswpin) > 100);
    workload_stop(&w);
}

/* A page on the wrong node, in each part. */
static void test_place_found(void **state)
{
    (void)state;
    for (unsigned part = 0; part < 2; part++) {
        struct mempolicy *none = NULL;
        int32_t status;
        uint64_t at;

        warm_up(WORKLOAD_POLICY);
        struct policy_task *u = &w.tasks[0]->u.policy;
        uint32_t page = part * (64 / 3) + 3;

        at = u->va + page * (uint64_t)FS_PAGE_BYTES;
        assert_int_equal(vm_mbind(u->mm, u->va, 64 * (uint64_t)FS_PAGE_BYTES, part == 0 ? MPOL_INTERLEAVE : MPOL_BIND, 0x3,
                                  MPOL_MF_MOVE | MPOL_MF_STRICT, NULL), MM_OK);
        u->nodes[0] = u->nodes[1] = part == 0 ? 0 : 0x3;
        u->nodes[part] = 0x3;
        u->misses = vm_counter(&g.vm, VMC_policy_miss);
        u->away[0] = u->away[1] = mm_counter(&g.f.mm, ZC_evacuate_away);
        task_user_write(w.tasks[0], u->mm, u->va, w.tasks[0]->key, &u->expected, page, 0);
        if (part == 1) {
            u->nodes[0] = 0;
        }
        assert_int_equal(workload_verify_all(&w), 0);
        assert_int_equal(vm_set_range_policy(u->mm, at, FS_PAGE_BYTES, none), MM_OK);
        assert_int_equal(vm_move_pages(u->mm, 1, &at, (const int32_t[]){ 2 }, &status, MPOL_MF_MOVE), MM_OK);
        assert_int_equal(status, 2);
        expect_found(WORKLOAD_PLACE);
    }
    warm_up(WORKLOAD_POLICY);
    flip_user(w.tasks[0]->u.policy.mm, w.tasks[0]->u.policy.va + 50 * FS_PAGE_BYTES);
    expect_found(WORKLOAD_BYTES);
    warm_up(WORKLOAD_POLICY);                   /* the device's memory: no page of the process's */
    assert_null(follow_page(w.tasks[0]->u.policy.mm, w.tasks[0]->u.policy.device_va));
    flip(page_pfn(w.tasks[0]->u.policy.device.pages[2]), 100);
    expect_found(WORKLOAD_BYTES);
}

/* ---- several CPUs ---- */

#define THREADS 3u
static _Atomic bool stop;
static _Atomic uint32_t running;

static void *stepper(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;

    arch_hosted_cpu_online(me);
    for (uint32_t i = 0; i < 6000; i++) {
        (void)workload_step(&w, (i * THREADS + me) % (w.count / THREADS * THREADS));
    }
    arch_hosted_cpu_offline();
    atomic_fetch_sub(&running, 1);
    return NULL;
}

static void *disturber(void *argument)
{
    struct rng r = { 8 };

    (void)argument;
    arch_hosted_cpu_online(THREADS);
    while (!atomic_load(&stop)) {
        arch_cpu_relax();
        disturb(&r);
    }
    arch_hosted_cpu_offline();
    return NULL;
}

static void test_several_cpus(void **state)
{
    struct workload_config c = config(WORKLOAD_ALL, 3, 300, test_seed(74));
    pthread_t threads[THREADS + 1];

    (void)state;
    assert_int_equal(workload_start(&w, &c), MM_OK);
    assert_int_equal(w.count % THREADS, 0);        /* a task is always the same CPU's */
    atomic_store(&stop, false);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, stepper, (void *)(uintptr_t)i), 0);
    }
    assert_int_equal(pthread_create(&threads[THREADS], NULL, disturber, NULL), 0);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    atomic_store(&stop, true);
    pthread_join(threads[THREADS], NULL);
    assert_int_equal(workload_total(&w).wrong, 0);
    assert_int_equal(workload_verify_all(&w), 0);
    check_caches(&g, 74);
    workload_stop(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_cpu, setup, teardown),
        cmocka_unit_test_setup_teardown(test_same_again, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_huge_found, setup, teardown),
        cmocka_unit_test_setup_teardown(test_forgotten_flush, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nodes, setup_nodes, teardown),
        cmocka_unit_test_setup_teardown(test_nodes_pressed, setup_nodes, teardown),
        cmocka_unit_test_setup_teardown(test_place_found, setup_nodes, teardown),
        cmocka_unit_test_setup_teardown(test_several_cpus, setup, teardown),
        cmocka_unit_test_setup_teardown(test_several_cpus, setup_nodes, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
