/*
 * test_mempolicy_threads.c - policies and moves on several CPUs at once: with faults, fork, exit, compaction and reclaim.
 *
 * Workers have worlds of their own (with policies in them), and one process that all share, which two others bind, move page by page, move as
 * a whole, and fork.  At the end, at rest, the pattern is exact.  Run it under the thread sanitizer as well.
 */
#include "vm_world.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "mbind.h"
#include "mempolicy_fsck.h"
#include "move_pages.h"
#include "reclaim.h"
#include <stdarg.h>
#include <setjmp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <cmocka.h>

#define NODES        4u
#define RAM_PAGES    (NODES * 4096u)
#define WORKERS      2u
#define MOVERS       2u
#define CPUS         (WORKERS + MOVERS + 1)
#define STEPS        1200u
#define SHARED_PAGES 64u
#define SHARED_VA    0x10000000ull
#define PAGE         ((uint64_t)FS_PAGE_BYTES)
#define MOVED_LEAST  500u

static struct guest g;
static struct world worlds[WORKERS];
static struct mm_struct *shared_mm;
static _Atomic bool stop;
static _Atomic uint64_t wrong, moved, statuses[MM_STATUSES];

static void expect(bool good)
{
    if (!good) {
        atomic_fetch_add(&wrong, 1);
    }
}

/* ---- workers ---- */

static void *worker(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    struct world *w = &worlds[me];
    uint64_t words[SHARED_PAGES] = { 0 };

    arch_hosted_cpu_online(me);
    for (unsigned step = 0; step < STEPS || (step < STEPS * 50 && atomic_load(&moved) < MOVED_LEAST); step++) {
        uint32_t page = (uint32_t)rng_below(&w->r, SHARED_PAGES);
        uint64_t va = SHARED_VA + page * PAGE + me * 64, word = 0;

        world_step(w);
        world_policy_step(w);
        expect(vm_user_read(shared_mm, va, &word, sizeof(word)) == MM_OK && word == words[page]);
        words[page] = rng_next(&w->r);
        expect(vm_user_write(shared_mm, va, &words[page], sizeof(word)) == MM_OK);
        if (step % 400 == 399) {
            world_check_all(w);
        }
    }
    world_check_all(w);
    for (uint32_t page = 0; page < SHARED_PAGES; page++) {
        uint64_t word;

        expect(vm_user_read(shared_mm, SHARED_VA + page * PAGE + me * 64, &word, sizeof(word)) == MM_OK && word == words[page]);
    }
    arch_hosted_cpu_offline();
    return NULL;
}

/* ---- movers ---- */

static void move_list(struct mm_struct *mm, struct rng *r)
{
    uint64_t at[40];
    int32_t nodes[40], status[40];

    for (unsigned i = 0; i < 40; i++) {
        at[i] = SHARED_VA + rng_below(r, SHARED_PAGES + 4) * PAGE;
        nodes[i] = (int32_t)rng_below(r, NODES);
    }
    expect(vm_move_pages(mm, 40, at, rng_below(r, 8) == 0 ? NULL : nodes, status, rng_below(r, 2) == 0 ? MPOL_MF_MOVE : MPOL_MF_MOVE_ALL) == MM_OK);
    for (unsigned i = 0; i < 40; i++) {
        bool hole = at[i] >= SHARED_VA + SHARED_PAGES * PAGE;

        expect(status[i] < (int32_t)NODES && (status[i] == MOVE_EFAULT) == hole);
        atomic_fetch_add(&statuses[status[i] >= 0 ? 0 : -status[i]], 1);
        atomic_fetch_add(&moved, status[i] >= 0);
    }
}

static void bind(struct mm_struct *mm, struct rng *r)
{
    uint32_t first = (uint32_t)rng_below(r, SHARED_PAGES), pages = 1 + (uint32_t)rng_below(r, SHARED_PAGES - first);
    enum mpol_mode mode = rng_below(r, 2) == 0 ? MPOL_BIND : MPOL_INTERLEAVE;
    struct node_moves moves;
    mm_status_t status = vm_mbind(mm, SHARED_VA + first * PAGE, pages * PAGE, mode, 1 + (nodemask_t)rng_below(r, 15),
                                  MPOL_MF_MOVE_ALL | (rng_below(r, 2) == 0 ? MPOL_MF_STRICT : 0), &moves);

    expect(status == MM_OK || status == MM_EIO);
    atomic_fetch_add(&moved, moves.moved);
}

static void *mover(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    struct rng r = { me };

    arch_hosted_cpu_online(WORKERS + me);
    while (!atomic_load(&stop)) {
        struct node_moves moves;
        struct mm_struct *child;

        switch (rng_below(&r, 6)) {
        case 0:
            bind(shared_mm, &r);
            break;
        case 1:
            expect(vm_migrate_nodes(shared_mm, 1 + (nodemask_t)rng_below(&r, 15), 1 + (nodemask_t)rng_below(&r, 15), MPOL_MF_MOVE_ALL, &moves)
                   != MM_EINVAL);
            atomic_fetch_add(&moved, moves.moved);
            break;
        case 2:                                         /* a family: moved while it is there, and gone */
            if (mm_fork(shared_mm, &child) == MM_OK) {
                move_list(child, &r);
                bind(child, &r);
                mm_put(child);
            }
            break;
        case 3:
            expect(vm_set_mempolicy(shared_mm, MPOL_INTERLEAVE, 1 + (nodemask_t)rng_below(&r, 15)) == MM_OK);
            break;
        default:
            move_list(shared_mm, &r);
            break;
        }
        arch_cpu_relax();
    }
    arch_hosted_cpu_offline();
    return NULL;
}

static void *background(void *argument)
{
    struct rng r = { 7 };

    (void)argument;
    arch_hosted_cpu_online(WORKERS + MOVERS);
    while (!atomic_load(&stop)) {
        uint32_t block = (uint32_t)rng_below(&r, RAM_PAGES / PAGEBLOCK_PAGES - 2);

        (void)compact_all(&g.f.mm, TARGET_MOVABLE);
        (void)reclaim_range(&g.vm, block_pfn(block), block_pfn(block + 2), 0);
        arch_cpu_relax();
    }
    arch_hosted_cpu_offline();
    return NULL;
}

static void print_fault(void *ctx, enum mpol_fsck_fault fault, const struct mm_struct *mm, uint64_t va, uint64_t is, uint64_t should_be)
{
    (void)ctx;
    (void)mm;
    print_error("%s at va %#llx: %s (is %#llx, should be %#llx)\n", mpol_fsck_name(fault), (unsigned long long)va, mpol_fsck_text(fault),
                (unsigned long long)is, (unsigned long long)should_be);
}

static void test_threads(void **state)
{
    uint64_t seed = test_seed(700), va = SHARED_VA, faults;
    pthread_t threads[CPUS];
    struct node_moves moves;

    (void)state;
    guest_init_nodes(&g, RAM_PAGES, CPUS, 8192, NODES, 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        world_init(&worlds[i], &g, seed + i, i, 1, WORLD_FILES);
        worlds[i].others = true;
    }
    assert_int_equal(mm_create(&g.vm, &shared_mm), MM_OK);
    assert_int_equal(vm_mmap(shared_mm, &va, SHARED_PAGES * PAGE, VM_ACCESS, NULL, 0), MM_OK);
    for (unsigned i = 0; i < CPUS; i++) {
        void *(*fn)(void *) = i < WORKERS ? worker : i < WORKERS + MOVERS ? mover : background;

        assert_int_equal(pthread_create(&threads[i], NULL, fn, (void *)(uintptr_t)(i < WORKERS ? i : i - WORKERS)), 0);
    }
    for (unsigned i = 0; i < CPUS; i++) {
        if (i == WORKERS) {
            atomic_store(&stop, true);
        }
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&wrong), 0);
    assert_true(atomic_load(&moved) >= MOVED_LEAST && statuses[0] > 0 && statuses[MM_EFAULT] > 0);
    assert_int_equal(vm_mbind(shared_mm, SHARED_VA, SHARED_PAGES * PAGE, MPOL_INTERLEAVE, 0xf, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves), MM_OK);
    for (uint32_t page = 0; page < SHARED_PAGES; page++) {
        struct page *p = follow_page(shared_mm, SHARED_VA + page * PAGE);

        if (p != NULL) {
            assert_int_equal(page_node(&g.f.mm, p), (SHARED_VA / PAGE + page) % NODES);
            page_put(&g.f.mm, p);
        }
    }
    faults = mempolicy_fsck(&g.vm, 0, print_fault, NULL);
    assert_int_equal(faults, 0);
    guest_check(&g, seed);
    for (unsigned i = 0; i < WORKERS; i++) {
        world_free(&worlds[i]);
    }
    mm_put(shared_mm);
    assert_int_equal(kmem_cache_used(g.vm.policy_cache) + kmem_cache_used(g.vm.policy_range_cache), 0);
    guest_check(&g, seed);
    guest_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
