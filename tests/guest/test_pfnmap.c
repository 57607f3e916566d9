/*
 * test_pfnmap.c - a device's memory in processes: frames that have no struct page, moved by the device's own migrate().
 *
 * The device has 16 frames a node behind the memory that the memmap describes; index i begins on frame i.
 */
#include "cache_check.h"
#include "arch_hosted.h"
#include "move_pages.h"
#include "pfnmap.h"
#include "pgtable.h"
#include <stdarg.h>
#include <setjmp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define NODES      4u
#define NODE_PAGES 2048u
#define RAM_PAGES  (NODES * NODE_PAGES)
#define A_NODE     16u
#define FRAMES     (NODES * A_NODE)
#define INDICES    32u
#define VA         0x20000000ull
#define PAGE       ((uint64_t)FS_PAGE_BYTES)

static struct guest g;
static struct mm_struct *mm, *child;

static struct device {
    struct spinlock lock;
    uint32_t frame_of[INDICES];
    bool used[FRAMES], moving[INDICES];
    bool busy;                                  /* migrate() says so */
    _Atomic uint64_t moves;
} device;
static struct address_space as;

static mm_status_t frame(struct address_space *of, uint64_t index, pfn_t *pfn)
{
    struct device *d = pfnmap_device(of);
    mm_status_t status = MM_EINVAL;

    if (index < INDICES) {
        spin_lock(&d->lock);
        *pfn = pfn_make(RAM_PAGES + d->frame_of[index]);
        status = d->moving[index] ? MM_EAGAIN : MM_OK;
        spin_unlock(&d->lock);
    }
    return status;
}

static uint32_t node(struct address_space *of, uint64_t index)
{
    struct device *d = pfnmap_device(of);
    uint32_t n;

    spin_lock(&d->lock);
    n = index < INDICES ? d->frame_of[index] / A_NODE : 0;
    spin_unlock(&d->lock);
    return n;
}

static mm_status_t migrate(struct address_space *of, uint64_t index, nodemask_t nodes)
{
    struct device *d = pfnmap_device(of);
    uint32_t from, to = FRAMES;

    if (index >= INDICES || d->busy) {
        return MM_EBUSY;
    }
    spin_lock(&d->lock);
    from = d->frame_of[index];
    if ((nodes >> from / A_NODE & 1) || d->moving[index]) {
        spin_unlock(&d->lock);
        return nodes >> from / A_NODE & 1 ? MM_OK : MM_EBUSY;
    }
    for (uint32_t i = 0; i < FRAMES && to == FRAMES; i++) {
        to = (nodes >> i / A_NODE & 1) && !d->used[i] ? i : FRAMES;
    }
    if (to < FRAMES) {
        d->used[to] = d->moving[index] = true;
    }
    spin_unlock(&d->lock);
    if (to == FRAMES) {
        return MM_ENOMEM;
    }
    pfnmap_unmap(of, index, index + 1);
    memcpy(arch_page_address(pfn_make(RAM_PAGES + to)), arch_page_address(pfn_make(RAM_PAGES + from)), FS_PAGE_BYTES);
    memset(arch_page_address(pfn_make(RAM_PAGES + from)), 0xee, FS_PAGE_BYTES);         /* whoever still uses it will see */
    spin_lock(&d->lock);
    d->frame_of[index] = to;
    d->used[from] = d->moving[index] = false;
    spin_unlock(&d->lock);
    atomic_fetch_add(&d->moves, 1);
    return MM_OK;
}

static const struct vma_ops ops = { frame, node, migrate };

static uint64_t word_of(uint64_t index) { return (index + 1) * 0x9e3779b97f4a7c15ull; }

static int setup(void **state)
{
    (void)state;
    guest_init_nodes(&g, RAM_PAGES, NODES, 64, NODES, FRAMES);
    device = (struct device){ .busy = false };
    for (uint32_t i = 0; i < INDICES; i++) {
        device.frame_of[i] = i;
        device.used[i] = true;
    }
    assert_int_equal(pfnmap_init(&g.vm, &as, &ops, &device), MM_OK);
    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    child = NULL;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    check_caches(&g, 0);
    if (child != NULL) {
        mm_put(child);
    }
    mm_put(mm);
    address_space_destroy(&as);
    guest_free(&g);
    return 0;
}

static void map(struct mm_struct *of, uint64_t va, uint64_t first, uint64_t pages, unsigned flags)
{
    assert_int_equal(vm_mmap(of, &va, pages * PAGE, flags, &as, first), MM_OK);
}

static void fill(struct mm_struct *of, uint64_t va, uint64_t first, uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t word = word_of(first + i);

        assert_int_equal(vm_user_write(of, va + i * PAGE, &word, sizeof(word)), MM_OK);
    }
}

static void check(struct mm_struct *of, uint64_t va, uint64_t first, uint64_t pages)
{
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t word = 0;

        assert_int_equal(vm_user_read(of, va + i * PAGE, &word, sizeof(word)), MM_OK);
        assert_int_equal(word, word_of(first + i));
    }
}

/* ---- mapping ---- */

static void test_mapping(void **state)
{
    static const struct vma_ops half = { frame, NULL, migrate };
    struct address_space other;
    uint64_t va = VA;
    uint64_t word = 7;

    (void)state;
    assert_int_equal(pfnmap_init(&g.vm, &other, &half, NULL), MM_EINVAL);
    assert_int_equal(vm_mmap(mm, &va, PAGE, VM_ACCESS, &as, 0), MM_EINVAL);             /* a private copy of what has no page? */
    map(mm, VA, 0, INDICES, VM_ACCESS | VM_SHARED);
    assert_true(mm->first->flags & VM_PFNMAP);
    fill(mm, VA, 0, INDICES);
    assert_int_equal(mm->rss, 0);                                                        /* no page of ours is mapped */
    assert_null(follow_page(mm, VA));
    check_caches(&g, 0);
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    check(child, VA, 0, INDICES);
    assert_int_equal(vm_user_write(child, VA, &word, sizeof(word)), MM_OK);             /* it is shared */
    assert_int_equal(vm_user_read(mm, VA, &word, sizeof(word)), MM_OK);
    assert_int_equal(word, 7);
    fill(mm, VA, 0, 1);
    /* Rights, cuts, locks. */
    assert_int_equal(vm_mprotect(mm, VA + 4 * PAGE, 4 * PAGE, VM_READ), MM_OK);
    assert_int_equal(vm_user_write(mm, VA + 5 * PAGE, &word, sizeof(word)), MM_EINVAL);
    check(mm, VA, 0, INDICES);
    check_caches(&g, 0);
    assert_int_equal(vm_mprotect(mm, VA + 4 * PAGE, 4 * PAGE, 0), MM_OK);
    assert_int_equal(vm_user_read(mm, VA + 5 * PAGE, &word, sizeof(word)), MM_EINVAL);
    check_caches(&g, 0);
    assert_int_equal(vm_mprotect(mm, VA + 4 * PAGE, 4 * PAGE, VM_ACCESS), MM_OK);
    assert_int_equal(mm->vma_count, 1);
    fill(mm, VA + 4 * PAGE, 4, 4);
    assert_int_equal(vm_mlock(mm, VA, 8 * PAGE), MM_OK);
    assert_int_equal(vm_munlock(mm, VA, 8 * PAGE), MM_OK);
    assert_int_equal(vm_munmap(mm, VA + 8 * PAGE, 8 * PAGE), MM_OK);
    assert_int_equal(vm_user_read(mm, VA + 9 * PAGE, &word, sizeof(word)), MM_EINVAL);
    check(child, VA, 0, INDICES);
    /* Beyond the device. */
    map(mm, VA + 64 * PAGE, INDICES - 1, 4, VM_ACCESS | VM_SHARED);
    check(mm, VA + 64 * PAGE, INDICES - 1, 1);
    assert_int_equal(vm_user_read(mm, VA + 65 * PAGE, &word, sizeof(word)), MM_EINVAL);
}

/* ---- the hook ---- */

static void test_mbind(void **state)
{
    struct node_moves moves;

    (void)state;
    map(mm, VA, 4, 24, VM_ACCESS | VM_SHARED);
    fill(mm, VA, 4, 24);
    assert_int_equal(vm_mbind(mm, VA, 24 * PAGE, MPOL_INTERLEAVE, 0xf, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves), MM_OK);
    assert_true(moves.moved > 0 && moves.moved == device.moves && moves.looked == 24);
    for (uint64_t i = 0; i < 24; i++) {
        assert_int_equal(node(&as, 4 + i), (4 + i) % 4);        /* by the object's index: exact */
    }
    check(mm, VA, 4, 24);
    check_caches(&g, 0);
    assert_int_equal(vm_mbind(mm, VA, 24 * PAGE, MPOL_BIND, 0x8, MPOL_MF_MOVE, &moves), MM_OK);
    assert_true(moves.no_memory == 24 - 16 && moves.moved == 16 - 6);           /* it has 16 frames, 6 were there */
    assert_int_equal(vm_mbind(mm, VA, 24 * PAGE, MPOL_BIND, 0xc, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves), MM_OK);
    assert_int_equal(vm_mbind(mm, VA, 24 * PAGE, MPOL_BIND, 0x3, MPOL_MF_STRICT, &moves), MM_EIO);
    assert_int_equal(moves.misplaced, 24);
    check(mm, VA, 4, 24);
    device.busy = true;
    assert_int_equal(vm_mbind(mm, VA, 24 * PAGE, MPOL_BIND, 0x3, MPOL_MF_STRICT | MPOL_MF_MOVE, &moves), MM_EIO);
    assert_true(moves.failed == 24 && moves.status == MM_EBUSY);
    device.busy = false;
    /* Another process has it too. */
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    assert_int_equal(vm_mbind(mm, VA, 24 * PAGE, MPOL_BIND, 0x3, MPOL_MF_STRICT | MPOL_MF_MOVE, &moves), MM_EIO);
    assert_int_equal(moves.shared, 24);
    assert_int_equal(vm_mbind(mm, VA, 24 * PAGE, MPOL_BIND, 0x3, MPOL_MF_STRICT | MPOL_MF_MOVE_ALL, &moves), MM_OK);
    check(child, VA, 4, 24);
    check(mm, VA, 4, 24);
}

static void test_move_pages(void **state)
{
    uint64_t at[4] = { VA, VA + PAGE, VA + 2 * PAGE, VA + 20 * PAGE };
    int32_t nodes[4] = { 3, 0, 5, 2 }, status[4];
    struct node_moves moves;

    (void)state;
    map(mm, VA, 0, INDICES, VM_ACCESS | VM_SHARED);
    map(mm, VA + 64 * PAGE, 0, INDICES, VM_ACCESS | VM_SHARED);
    fill(mm, VA, 0, INDICES);
    assert_int_equal(vm_move_pages(mm, 4, at, nodes, status, MPOL_MF_MOVE), MM_OK);
    assert_true(status[0] == 3 && status[1] == 0 && status[2] == MOVE_ENODEV && status[3] == 2);
    assert_int_equal(vm_move_pages(mm, 4, at, NULL, status, MPOL_MF_MOVE), MM_OK);
    assert_true(status[0] == 3 && status[1] == 0 && status[2] == 0 && status[3] == 2);
    device.busy = true;
    nodes[0] = 1;
    assert_int_equal(vm_move_pages(mm, 1, at, nodes, status, MPOL_MF_MOVE), MM_OK);
    assert_int_equal(status[0], MOVE_EBUSY);
    device.busy = false;
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    assert_int_equal(vm_move_pages(mm, 1, at, nodes, status, MPOL_MF_MOVE), MM_OK);
    assert_int_equal(status[0], MOVE_EACCES);
    assert_int_equal(vm_move_pages(mm, 1, at, nodes, status, MPOL_MF_MOVE_ALL), MM_OK);
    assert_int_equal(status[0], 1);
    /* A whole process, in a ring, mapped twice: once each. */
    device.moves = 0;
    assert_int_equal(vm_migrate_nodes(mm, 0x7, 0x3, MPOL_MF_MOVE_ALL, &moves), MM_OK);  /* 2 goes to 0 */
    assert_int_equal(device.moves, 1);
    check(mm, VA, 0, INDICES);
    check(mm, VA + 64 * PAGE, 0, INDICES);
    check(child, VA, 0, INDICES);
}

/* An entry that names another frame than the device says. */
static void test_fsck(void **state)
{
    struct pte_ref at;
    uint64_t was;

    (void)state;
    map(mm, VA, 0, 4, VM_ACCESS | VM_SHARED);
    fill(mm, VA, 0, 4);
    assert_true(pgtable_find(mm, VA, &at));
    was = pte_read(&at);
    for (unsigned i = 0; i < 3; i++) {
        uint64_t wrong = i == 0 ? arch_pte_make(pfn_make(RAM_PAGES + 9), was & 0xfff) : i == 1 ? was & ~PTE_SPECIAL : pte_soft_make(PTE_SWAP, 1, false);

        ((uint64_t *)arch_page_address(page_pfn(at.table)))[at.slot] = wrong;
        assert_true(vm_fsck(&g.vm, NULL, NULL) > 0);
        ((uint64_t *)arch_page_address(page_pfn(at.table)))[at.slot] = was;
        check_caches(&g, 0);
    }
    mm->first->flags &= ~VM_PFNMAP;
    assert_true(vm_fsck(&g.vm, NULL, NULL) > 0);
    mm->first->flags |= VM_PFNMAP;
}

/* ---- several CPUs: one writes and reads, one moves, one forks ---- */

static _Atomic bool stop;
static _Atomic uint64_t wrong;

static void *mover(void *arg)
{
    struct rng r = { 5 };

    (void)arg;
    arch_hosted_cpu_online(1);
    while (!atomic_load(&stop)) {
        (void)migrate(&as, rng_below(&r, INDICES), 1u << rng_below(&r, NODES));
        arch_cpu_relax();
    }
    arch_hosted_cpu_offline();
    return NULL;
}

static void *forker(void *arg)
{
    (void)arg;
    arch_hosted_cpu_online(2);
    while (!atomic_load(&stop)) {
        struct mm_struct *other;
        uint64_t word;

        if (mm_fork(mm, &other) != MM_OK) {
            atomic_fetch_add(&wrong, 1);
            break;
        }
        for (uint64_t i = 0; i < INDICES; i++) {
            if (vm_user_read(other, VA + i * PAGE + 8, &word, sizeof(word)) != MM_OK || word != word_of(i)) {
                atomic_fetch_add(&wrong, 1);
            }
        }
        mm_put(other);
        arch_cpu_relax();
    }
    arch_hosted_cpu_offline();
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[2];
    struct rng r = { 6 };
    uint64_t words[INDICES] = { 0 };

    (void)state;
    map(mm, VA, 0, INDICES, VM_ACCESS | VM_SHARED);
    fill(mm, VA, 0, INDICES);
    fill(mm, VA + 8, 0, INDICES);
    atomic_store(&stop, false);
    arch_hosted_cpu_online(0);
    assert_int_equal(pthread_create(&threads[0], NULL, mover, NULL), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, forker, NULL), 0);
    for (uint64_t i = 0; i < INDICES; i++) {
        words[i] = word_of(i);
    }
    for (unsigned step = 0; step < 20000 || (step < 2000000 && atomic_load(&device.moves) < 500); step++) {
        uint64_t i = rng_below(&r, INDICES), word;

        if (vm_user_read(mm, VA + i * PAGE, &word, sizeof(word)) != MM_OK || word != words[i]) {
            atomic_fetch_add(&wrong, 1);
        }
        words[i] = rng_next(&r);
        if (vm_user_write(mm, VA + i * PAGE, &words[i], sizeof(word)) != MM_OK) {
            atomic_fetch_add(&wrong, 1);
        }
    }
    arch_hosted_cpu_offline();
    atomic_store(&stop, true);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    assert_int_equal(atomic_load(&wrong), 0);
    assert_true(device.moves >= 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_mapping, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mbind, setup, teardown),
        cmocka_unit_test_setup_teardown(test_move_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fsck, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
