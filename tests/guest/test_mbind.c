/*
 * test_mbind.c - pages that move to where a policy, or a list, wants them: mbind(), migrate_pages() of a process, move_pages().
 *
 * Four nodes; where a page should be is worked out here from its address.  Contents are checked after every move.
 */
#include "cache_check.h"
#include "arch_hosted.h"
#include "guest_fault.h"
#include "mbind.h"
#include "move_pages.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define NODES      4u
#define NODE_PAGES 4096u
#define RAM_PAGES  (NODES * NODE_PAGES)
#define VA         0x20000000ull
#define PAGE       ((uint64_t)FS_PAGE_BYTES)
#define PAGES      200u

static struct guest g;
static struct mm_struct *mm, *child;

static int setup(void **state)
{
    (void)state;
    guest_init_nodes(&g, RAM_PAGES, NODES, 4096, NODES, 0);
    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    child = NULL;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arch_hosted_set_cpu(0);
    check_caches(&g, 0);
    if (child != NULL) {
        mm_put(child);
    }
    mm_put(mm);
    assert_int_equal(kmem_cache_used(g.vm.policy_cache), 0);
    guest_free(&g);
    return 0;
}

static void map(struct mm_struct *of, uint64_t va, uint64_t pages, unsigned flags, struct address_space *file)
{
    assert_int_equal(vm_mmap(of, &va, pages * PAGE, flags, file, 0), MM_OK);
}

static uint64_t word_of(uint64_t va) { return (va / PAGE + 1) * 0x9e3779b97f4a7c15ull; }

static void write_page(struct mm_struct *of, uint64_t va)
{
    uint64_t word = word_of(va);

    assert_int_equal(vm_user_write(of, va, &word, sizeof(word)), MM_OK);
}

static void check_page(struct mm_struct *of, uint64_t va)
{
    uint64_t word = 0;

    assert_int_equal(vm_user_read(of, va, &word, sizeof(word)), MM_OK);
    assert_int_equal(word, word_of(va));
}

static int node_of(struct mm_struct *of, uint64_t va)
{
    struct page *p = follow_page(of, va);
    int node = p != NULL ? (int)(p->pfn / NODE_PAGES) : -1;

    if (p != NULL) {
        page_put(&g.f.mm, p);
    }
    return node;
}

/* Out of memory, or (cached) only out of the tables. */
static void swap_out(struct mm_struct *of, uint64_t va, bool cached)
{
    struct page *page = follow_page(of, va);
    swp_entry_t slot;

    assert_non_null(page);
    page_lock(page);
    assert_int_equal(swap_alloc(&g.swap, &slot), MM_OK);
    assert_int_equal(swapcache_add(&g.swap, page, slot), MM_OK);
    assert_int_equal(try_to_unmap(&g.vm, page, UNMAP_SWAP), MM_OK);
    if (!cached) {
        assert_int_equal(swapcache_write_page(&g.swap, page), MM_OK);
        assert_true(swapcache_reclaim(&g.swap, page, 1));
    }
    page_unlock(page);
    page_put(&g.f.mm, page);
}

/* ---- mbind ---- */

/* From any start: pages on any node, some in swap, some only in the swap cache, some mlocked, some not there. */
static void exact_after_move(uint64_t seed)
{
    static const nodemask_t masks[] = { 0xf, 0x3, 0xc, 0x7, 0xb, 0x9, 0x1 };
    struct rng r = { seed };
    struct node_moves moves;

    map(mm, VA, PAGES, VM_ACCESS, NULL);
    for (unsigned round = 0; round < 12; round++) {
        nodemask_t mask = masks[rng_below(&r, FS_ARRAY_SIZE(masks))];
        uint32_t nth[MM_NODES_MAX], n = 0;

        for (uint32_t node = 0; node < NODES; node++) {
            if (mask >> node & 1) {
                nth[n++] = node;
            }
        }
        for (uint64_t i = 0; i < PAGES; i++) {
            arch_hosted_set_cpu((unsigned)rng_below(&r, NODES));
            if (rng_below(&r, 8) != 0) {
                write_page(mm, VA + i * PAGE);
                if (rng_below(&r, 6) == 0 && (i < 40 || i >= 60)) {
                    swap_out(mm, VA + i * PAGE, rng_below(&r, 2) == 0);
                }
            }
        }
        assert_int_equal(vm_mlock(mm, VA + 40 * PAGE, 20 * PAGE), MM_OK);
        assert_int_equal(vm_mbind(mm, VA, PAGES * PAGE, MPOL_INTERLEAVE, mask, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves), MM_OK);
        assert_true(moves.failed == 0 && moves.shared == 0 && (round > 0 || moves.moved > 0));
        for (uint64_t i = 0; i < PAGES; i++) {
            int node = node_of(mm, VA + i * PAGE);

            if (i >= 40 && i < 60) {
                assert_true(node >= 0);                 /* mlocked pages have moved too, and were never out */
            }
            write_page(mm, VA + i * PAGE);              /* whatever was not there comes to the right place now */
            assert_int_equal(node_of(mm, VA + i * PAGE), nth[(VA / PAGE + i) % n]);
            assert_true(node == -1 || node == (int)nth[(VA / PAGE + i) % n]);
            check_page(mm, VA + i * PAGE);
        }
        check_caches(&g, seed);
        assert_int_equal(vm_munlock(mm, VA + 40 * PAGE, 20 * PAGE), MM_OK);
        if (rng_below(&r, 3) == 0) {
            map(mm, VA, PAGES, VM_ACCESS, NULL);        /* begin anew */
        }
    }
}

static void test_interleave_exact(void **state)
{
    (void)state;
    exact_after_move(test_seed(21));
}

static void test_bind_and_preferred(void **state)
{
    struct node_moves moves;

    (void)state;
    map(mm, VA, 32, VM_ACCESS, NULL);
    for (uint64_t i = 0; i < 32; i++) {
        arch_hosted_set_cpu((unsigned)(i % NODES));
        write_page(mm, VA + i * PAGE);
    }
    assert_int_equal(vm_mbind(mm, VA, 32 * PAGE, MPOL_BIND, 0x6, MPOL_MF_MOVE, &moves), MM_OK);
    assert_true(moves.moved == 16 && moves.failed == 0);        /* half of them lay right */
    for (uint64_t i = 0; i < 32; i++) {
        int node = node_of(mm, VA + i * PAGE);

        assert_true(node == 1 || node == 2);
        assert_true(i % NODES == 0 || i % NODES == 3 || node == (int)(i % NODES));
    }
    assert_int_equal(vm_mbind(mm, VA + 4 * PAGE, 8 * PAGE, MPOL_PREFERRED, 0x8, MPOL_MF_MOVE, &moves), MM_OK);
    assert_int_equal(moves.moved, 8);
    for (uint64_t i = 0; i < 32; i++) {
        int node = node_of(mm, VA + i * PAGE);

        assert_true(i >= 4 && i < 12 ? node == 3 : node == 1 || node == 2);
        check_page(mm, VA + i * PAGE);
    }
    /* Default and local want nothing of pages that are there. */
    assert_int_equal(vm_mbind(mm, VA, 32 * PAGE, MPOL_LOCAL, 0, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves), MM_OK);
    assert_int_equal(moves.moved, 0);
    assert_int_equal(vm_mbind(mm, VA, 32 * PAGE, MPOL_DEFAULT, 0, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves), MM_OK);
    assert_true(moves.moved == 0 && mm->vma_count == 1 && mm->first->policy == NULL);
}

static void test_strict_and_errors(void **state)
{
    struct node_moves moves;
    enum mpol_mode mode;
    nodemask_t nodes;
    struct page *held;

    (void)state;
    map(mm, VA, 16, VM_ACCESS, NULL);
    for (uint64_t i = 0; i < 16; i++) {
        write_page(mm, VA + i * PAGE);
    }
    /* STRICT alone: nothing is changed where a page is elsewhere. */
    assert_int_equal(vm_mbind(mm, VA, 16 * PAGE, MPOL_BIND, 0x2, MPOL_MF_STRICT, &moves), MM_EIO);
    assert_true(moves.misplaced == 16 && moves.moved == 0);
    assert_int_equal(vm_get_mempolicy(mm, VA, &mode, &nodes), MM_OK);
    assert_int_equal(mode, MPOL_DEFAULT);
    assert_int_equal(vm_mbind(mm, VA, 16 * PAGE, MPOL_BIND, 0x3, MPOL_MF_STRICT, &moves), MM_OK);
    assert_int_equal(moves.misplaced, 0);
    /* No flag: the policy, and pages stay. */
    assert_int_equal(vm_mbind(mm, VA, 16 * PAGE, MPOL_BIND, 0x2, 0, NULL), MM_OK);
    assert_int_equal(node_of(mm, VA), 0);
    /* With MOVE: what somebody has in his hands stays, is told, and STRICT makes it an error; the policy holds. */
    held = follow_page(mm, VA + 5 * PAGE);
    assert_int_equal(vm_mbind(mm, VA, 16 * PAGE, MPOL_BIND, 0x2, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves), MM_EIO);
    assert_true(moves.moved == 15 && moves.failed == 1 && moves.status == MM_EAGAIN);
    page_set_flags(held, PG_PINNED);
    assert_int_equal(vm_mbind(mm, VA, 16 * PAGE, MPOL_BIND, 0x2, MPOL_MF_MOVE, &moves), MM_OK);
    assert_true(moves.moved == 0 && moves.failed == 1 && moves.status == MM_EBUSY);
    page_clear_flags(held, PG_PINNED);
    page_put(&g.f.mm, held);
    assert_int_equal(vm_mbind(mm, VA, 16 * PAGE, MPOL_BIND, 0x2, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves), MM_OK);
    assert_int_equal(moves.moved, 1);
    /* What is wrong is told, and changes nothing. */
    assert_int_equal(vm_mbind(mm, VA, 16 * PAGE, MPOL_BIND, 0x2, 0x8, NULL), MM_EINVAL);
    assert_int_equal(vm_mbind(mm, VA, 16 * PAGE, MPOL_MODES, 0x2, 0, NULL), MM_EINVAL);
    assert_int_equal(vm_mbind(mm, VA, 16 * PAGE, MPOL_BIND, 0, MPOL_MF_MOVE, NULL), MM_EINVAL);
    assert_int_equal(vm_mbind(mm, VA, 16 * PAGE, MPOL_BIND, 0x12, MPOL_MF_MOVE, NULL), MM_ENODEV);
    assert_int_equal(vm_mbind(mm, VA, 17 * PAGE, MPOL_BIND, 0x1, MPOL_MF_MOVE, NULL), MM_EFAULT);
    assert_int_equal(vm_mbind(mm, VA + 1, PAGE, MPOL_BIND, 0x1, MPOL_MF_MOVE, NULL), MM_EINVAL);
    assert_int_equal(vm_mbind(mm, VA, UINT64_MAX - PAGE + 1, MPOL_BIND, 0x1, MPOL_MF_STRICT, NULL), MM_EINVAL);
    assert_int_equal(node_of(mm, VA), 1);
    assert_int_equal(mm->vma_count, 1);
}

/* MOVE leaves what others map, MOVE_ALL takes it along; swapped out and not there: neither is a reason to fail. */
static void test_shared_pages(void **state)
{
    struct node_moves moves;

    (void)state;
    map(mm, VA, 16, VM_ACCESS, NULL);
    for (uint64_t i = 0; i < 16; i++) {
        write_page(mm, VA + i * PAGE);
    }
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    write_page(mm, VA);
    write_page(child, VA + PAGE);                       /* pages 0 and 1 have one owner each now */
    assert_int_equal(vm_mbind(mm, VA, 16 * PAGE, MPOL_BIND, 0x4, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves), MM_EIO);
    assert_true(moves.moved == 2 && moves.shared == 14 && moves.failed == 0);
    assert_true(node_of(mm, VA) == 2 && node_of(mm, VA + PAGE) == 2 && node_of(mm, VA + 2 * PAGE) == 0 && node_of(child, VA) == 0);
    assert_int_equal(vm_mbind(mm, VA, 16 * PAGE, MPOL_BIND, 0x4, MPOL_MF_MOVE_ALL | MPOL_MF_STRICT, &moves), MM_OK);
    assert_int_equal(moves.moved, 14);
    for (uint64_t i = 0; i < 16; i++) {
        assert_int_equal(node_of(mm, VA + i * PAGE), 2);
        assert_int_equal(node_of(child, VA + i * PAGE), i < 2 ? 0 : 2);
        check_page(child, VA + i * PAGE);
        check_page(mm, VA + i * PAGE);
    }
}

/* An object: pages that this process does not map, or that are in swap, belong to the range too. */
static void test_shared_memory(void **state)
{
    struct address_space shm;
    struct node_moves moves;

    (void)state;
    assert_int_equal(address_space_init(&g.vm, &shm, GFP_HIGH_MOVABLE, NULL, NULL), MM_OK);
    map(mm, VA, 64, VM_ACCESS | VM_SHARED, &shm);
    assert_int_equal(mm_create(&g.vm, &child), MM_OK);
    map(child, VA, 64, VM_ACCESS | VM_SHARED, &shm);
    for (uint64_t i = 0; i < 64; i++) {
        write_page(i % 2 == 0 ? mm : child, VA + i * PAGE);
    }
    mm_put(child);                                      /* every other page is mapped by nobody now */
    child = NULL;
    assert_int_equal(vm_mbind(mm, VA, 64 * PAGE, MPOL_INTERLEAVE, 0xf, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves), MM_OK);
    assert_true(moves.moved == 48 && moves.failed == 0);
    for (uint64_t i = 0; i < 64; i++) {
        struct page *page = pagecache_find(&shm, i);

        assert_int_equal(page->pfn / NODE_PAGES, i % 4);
        page_put(&g.f.mm, page);
        check_page(mm, VA + i * PAGE);
    }
    assert_int_equal(vm_munmap(mm, VA, 64 * PAGE), MM_OK);
    address_space_destroy(&shm);
}

#define ROOM 700u                        /* free pages that are not in kernel blocks must be some */

/* Two nodes almost full of each other's pages change them, a few at a time. */
static void test_full_nodes_change(void **state)
{
    struct node_moves moves;
    uint64_t pages = 0, n;

    (void)state;
    map(mm, VA, 2 * NODE_PAGES, VM_ACCESS, NULL);
    for (uint64_t i = 0; i < 2 * NODE_PAGES; i++) {     /* everything on the wrong one of the two */
        struct mempolicy *p;

        assert_int_equal(mpol_new(&g.vm, MPOL_BIND, (VA / PAGE + i) % 2 == 0 ? 0x2 : 0x1, &p), MM_OK);
        assert_int_equal(vm_set_range_policy(mm, VA + i * PAGE, PAGE, p), MM_OK);
        mpol_put(&g.vm, p);
        n = g.f.mm.zones[(VA / PAGE + i) % 2 == 0 ? 1 : 0].free_pages;
        if (n < g.f.mm.zones[0].watermark[WMARK_HIGH] + ROOM) {
            break;
        }
        write_page(mm, VA + i * PAGE);
        pages++;
    }
    assert_true(pages > NODE_PAGES && vm_counter(&g.vm, VMC_unmap_swap) == 0);
    assert_int_equal(vm_mbind(mm, VA, pages * PAGE, MPOL_INTERLEAVE, 0x3, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves), MM_OK);
    assert_int_equal(moves.moved, pages);
    for (uint64_t i = 0; i < pages; i++) {
        assert_int_equal(node_of(mm, VA + i * PAGE), (VA / PAGE + i) % 2);
        check_page(mm, VA + i * PAGE);
    }
    assert_int_equal(vm_counter(&g.vm, VMC_unmap_swap), 0);
}

/* A node without room: what does not fit stays, is told, and every byte is right. */
static void test_no_room(void **state)
{
    static struct page *held[NODE_PAGES];
    struct node_moves moves;
    uint32_t n = 0;

    (void)state;
    swap_destroy(&g.swap);                              /* with it, what is on the node would go there to make room */
    map(mm, VA, 400, VM_ACCESS, NULL);
    for (uint64_t i = 0; i < 400; i++) {
        write_page(mm, VA + i * PAGE);
    }
    while ((held[n] = alloc_pages_nodemask(&g.f.mm, 2, 0x4, GFP_NOWAIT, 0)) != NULL) {
        n++;
    }
    for (unsigned i = 0; i < 100; i++) {
        page_put(&g.f.mm, held[--n]);
    }
    assert_int_equal(vm_mbind(mm, VA, 400 * PAGE, MPOL_BIND, 0x4, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves), MM_EIO);
    assert_true(moves.moved > 0 && moves.no_memory == moves.failed && moves.status == MM_ENOMEM && moves.moved + moves.failed == 400);
    for (uint64_t i = 0; i < 400; i++) {
        check_page(mm, VA + i * PAGE);
    }
    while (n > 0) {
        page_put(&g.f.mm, held[--n]);
    }
    assert_int_equal(vm_mbind(mm, VA, 400 * PAGE, MPOL_BIND, 0x4, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves), MM_OK);
    swap_init(&g.swap, &g.vm);
}

/* Every page and object is refused once, on the way of mbind and of move_pages: what moved has moved, the rest is where it was. */
static void test_refused(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 120; n++) {
        bool objects = n % 2 == 0;
        struct node_moves moves;
        mm_status_t status;

        map(mm, VA, 40, VM_ACCESS, NULL);
        for (uint64_t i = 0; i < 40; i++) {
            write_page(mm, VA + i * PAGE);
        }
        (objects ? object_alloc_fail_nth : page_alloc_fail_nth)((n + 1) / 2);
        status = vm_mbind(mm, VA + 4 * PAGE, 32 * PAGE, MPOL_INTERLEAVE, 0x6, MPOL_MF_MOVE | MPOL_MF_STRICT, &moves);
        object_alloc_fail_nth(0);
        page_alloc_fail_nth(0);
        check_caches(&g, n);
        assert_true(status == MM_OK || status == MM_ENOMEM || (status == MM_EIO && moves.failed > 0));
        for (uint64_t i = 0; i < 40; i++) {
            bool in = i >= 4 && i < 36;

            check_page(mm, VA + i * PAGE);
            assert_true(status == MM_EIO || node_of(mm, VA + i * PAGE) == (in && status == MM_OK ? (int)(1 + (VA / PAGE + i) % 2) : 0));
        }
    }
}

/* ---- a whole process ---- */

static void check_nodes(uint64_t pages, const int *of)
{
    for (uint64_t i = 0; i < pages; i++) {
        assert_int_equal(node_of(mm, VA + i * PAGE), of[i % NODES]);
        check_page(mm, VA + i * PAGE);
    }
}

static void spread(uint64_t pages)
{
    map(mm, VA, pages, VM_ACCESS, NULL);
    for (uint64_t i = 0; i < pages; i++) {
        arch_hosted_set_cpu((unsigned)(i % NODES));
        write_page(mm, VA + i * PAGE);
    }
}

static void test_migrate_nodes(void **state)
{
    struct node_moves moves;
    struct page *held;

    (void)state;
    spread(80);
    assert_int_equal(vm_migrate_nodes(mm, 0x3, 0xc, MPOL_MF_MOVE, &moves), MM_OK);             /* 0 to 2, 1 to 3 */
    assert_int_equal(moves.moved, 40);
    check_nodes(80, (const int[]){ 2, 3, 2, 3 });
    spread(80);
    assert_int_equal(vm_migrate_nodes(mm, 0x7, 0xe, MPOL_MF_MOVE, &moves), MM_OK);             /* a chain: 0 to 1, 1 to 2, 2 to 3 */
    assert_int_equal(moves.moved, 60);
    check_nodes(80, (const int[]){ 1, 2, 3, 3 });
    spread(80);
    assert_int_equal(vm_migrate_nodes(mm, 0x7, 0x6, MPOL_MF_MOVE, &moves), MM_OK);             /* 0 to 1, and a ring: 1 to 2, 2 to 1 */
    assert_int_equal(moves.moved, 60);
    check_nodes(80, (const int[]){ 1, 2, 1, 3 });
    spread(80);
    held = follow_page(mm, VA + 5 * PAGE);              /* one of the ring stays: nobody else goes round twice for it */
    assert_int_equal(vm_migrate_nodes(mm, 0x6, 0x6, MPOL_MF_MOVE, &moves), MM_OK);             /* each to itself: no ring */
    assert_int_equal(moves.looked, 0);
    assert_int_equal(vm_migrate_nodes(mm, 0x7, 0x6, MPOL_MF_MOVE, &moves), MM_EAGAIN);
    assert_true(moves.moved == 59 && moves.failed == 1 && node_of(mm, VA + 5 * PAGE) == 1 && node_of(mm, VA + 9 * PAGE) == 2);
    page_put(&g.f.mm, held);
    spread(80);
    assert_int_equal(vm_migrate_nodes(mm, 0xf, 0x4, MPOL_MF_MOVE, &moves), MM_OK);             /* all to one; what is there stays */
    assert_int_equal(moves.moved, 60);
    check_nodes(80, (const int[]){ 2, 2, 2, 2 });
    assert_int_equal(vm_migrate_nodes(mm, 0x4, 0x4, MPOL_MF_MOVE, &moves), MM_OK);
    assert_int_equal(moves.looked, 0);
    assert_int_equal(vm_migrate_nodes(mm, 0, 0x4, MPOL_MF_MOVE, &moves), MM_EINVAL);
    assert_int_equal(vm_migrate_nodes(mm, 0x4, 0, MPOL_MF_MOVE, &moves), MM_EINVAL);
    assert_int_equal(vm_migrate_nodes(mm, 0x4, 0x1, 0, &moves), MM_EINVAL);
    assert_int_equal(vm_migrate_nodes(mm, 0x4, 0x1, MPOL_MF_STRICT | MPOL_MF_MOVE, &moves), MM_EINVAL);
    assert_int_equal(vm_migrate_nodes(mm, 0x4, 0x10, MPOL_MF_MOVE, &moves), MM_ENODEV);
    assert_int_equal(vm_migrate_nodes(mm, 0x14, 0x1, MPOL_MF_MOVE, &moves), MM_ENODEV);
}

/* In a ring a page that the process maps twice moves once; what others map stays with MOVE. */
static void test_migrate_nodes_twice_mapped(void **state)
{
    struct address_space shm;
    struct node_moves moves;

    (void)state;
    assert_int_equal(address_space_init(&g.vm, &shm, GFP_HIGH_MOVABLE, NULL, NULL), MM_OK);
    map(mm, VA, 40, VM_ACCESS | VM_SHARED, &shm);
    map(mm, VA + 64 * PAGE, 40, VM_ACCESS | VM_SHARED, &shm);
    for (uint64_t i = 0; i < 40; i++) {
        arch_hosted_set_cpu(1 + i % 2);
        write_page(mm, VA + i * PAGE);
        assert_int_equal(vm_populate(mm, VA + (64 + i) * PAGE), MM_OK);
    }
    assert_int_equal(vm_migrate_nodes(mm, 0x7, 0x6, MPOL_MF_MOVE, &moves), MM_OK);
    assert_true(moves.moved == 40 && moves.looked == 40);
    for (uint64_t i = 0; i < 40; i++) {
        assert_int_equal(node_of(mm, VA + i * PAGE), 2 - i % 2);
        assert_int_equal(node_of(mm, VA + (64 + i) * PAGE), 2 - i % 2);
    }
    assert_int_equal(mm_create(&g.vm, &child), MM_OK);
    map(child, VA, 20, VM_ACCESS | VM_SHARED, &shm);
    for (uint64_t i = 0; i < 20; i++) {
        check_page(child, VA + i * PAGE);
    }
    assert_int_equal(vm_migrate_nodes(mm, 0x6, 0x1, MPOL_MF_MOVE, &moves), MM_EAGAIN);
    assert_true(moves.moved == 20 && moves.shared == 20);
    assert_int_equal(vm_migrate_nodes(mm, 0x6, 0x1, MPOL_MF_MOVE_ALL, &moves), MM_OK);
    assert_true(moves.moved == 20 && node_of(child, VA) == 0);
    mm_put(child);
    child = NULL;
    assert_int_equal(vm_munmap(mm, VA, 128 * PAGE), MM_OK);
    address_space_destroy(&shm);
}

/* ---- move_pages ---- */

/* Each status at least once, in one call. */
static void test_statuses(void **state)
{
    enum { GOOD, THERE, SHARED, PINNED, UNTOUCHED, SWAPPED, HOLE, BEYOND, NEGATIVE, TOO_LARGE, ABSENT, ODD, FULL, CASES };
    static struct page *held[NODE_PAGES];
    int32_t status[CASES], nodes[CASES];
    uint64_t at[CASES];
    struct page *pinned;
    uint32_t n = 0;

    (void)state;
    map(mm, VA, 32, VM_ACCESS, NULL);
    for (uint64_t i = 0; i < 32; i++) {
        if (i != UNTOUCHED) {
            write_page(mm, VA + i * PAGE);
        }
    }
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    for (uint64_t i = 0; i < CASES; i++) {
        if (i != SHARED && i != UNTOUCHED) {
            write_page(mm, VA + i * PAGE);
        }
        at[i] = VA + i * PAGE;
        nodes[i] = 2;
        status[i] = 99;
    }
    swap_out(mm, VA + SWAPPED * PAGE, false);
    pinned = follow_page(mm, VA + PINNED * PAGE);
    page_set_flags(pinned, PG_PINNED);
    nodes[THERE] = 0;
    at[HOLE] = VA + 40 * PAGE;
    at[BEYOND] = UINT64_MAX;
    nodes[NEGATIVE] = -1;
    nodes[TOO_LARGE] = 1 << 20;
    nodes[ABSENT] = 5;
    at[ODD] += 123;                                     /* any address of the page */
    nodes[FULL] = 3;
    while ((held[n] = alloc_pages_nodemask(&g.f.mm, 3, 0x8, GFP_KERNEL | __GFP_HIGH | __GFP_ATOMIC, 0)) != NULL) {
        n++;
    }
    assert_int_equal(vm_move_pages(mm, CASES, at, nodes, status, MPOL_MF_MOVE), MM_OK);
    assert_int_equal(status[GOOD], 2);
    assert_int_equal(status[THERE], 0);
    assert_int_equal(status[SHARED], MOVE_EACCES);
    assert_int_equal(status[PINNED], MOVE_EBUSY);
    assert_int_equal(status[UNTOUCHED], MOVE_ENOENT);
    assert_int_equal(status[SWAPPED], MOVE_ENOENT);
    assert_int_equal(status[HOLE], MOVE_EFAULT);
    assert_int_equal(status[BEYOND], MOVE_EFAULT);
    assert_int_equal(status[NEGATIVE], MOVE_EINVAL);
    assert_int_equal(status[TOO_LARGE], MOVE_EINVAL);
    assert_int_equal(status[ABSENT], MOVE_ENODEV);
    assert_int_equal(status[ODD], 2);
    assert_int_equal(status[FULL], MOVE_ENOMEM);
    assert_true(node_of(mm, VA + GOOD * PAGE) == 2 && node_of(mm, VA + ODD * PAGE) == 2 && node_of(mm, VA + FULL * PAGE) == 0);
    while (n > 0) {
        page_put(&g.f.mm, held[--n]);
    }
    page_clear_flags(pinned, PG_PINNED);
    page_put(&g.f.mm, pinned);
    assert_int_equal(vm_move_pages(mm, CASES, at, nodes, status, MPOL_MF_MOVE_ALL), MM_OK);
    assert_true(status[SHARED] == 2 && status[PINNED] == 2 && status[FULL] == 3 && node_of(child, VA + SHARED * PAGE) == 2);
    for (uint64_t i = 0; i < 32; i++) {
        if (i != UNTOUCHED) {
            check_page(mm, VA + i * PAGE);
            check_page(child, VA + i * PAGE);
        }
    }
    /* Questions only. */
    assert_int_equal(vm_move_pages(mm, CASES, at, NULL, status, 0), MM_OK);
    assert_true(status[GOOD] == 2 && status[THERE] == 0 && status[UNTOUCHED] == MOVE_ENOENT && status[HOLE] == MOVE_EFAULT && status[NEGATIVE] == 0);
    assert_int_equal(vm_move_pages(mm, CASES, at, nodes, status, 0), MM_EINVAL);
    assert_int_equal(vm_move_pages(mm, CASES, at, nodes, status, MPOL_MF_MOVE | MPOL_MF_STRICT), MM_EINVAL);
    assert_string_equal(move_status_name(MOVE_EACCES), "EACCES");
    assert_string_equal(move_status_name(3), "node");
    assert_string_equal(move_status_name(-77), "bad");
}

/* Lists longer than a batch, at random, with addresses that come twice and a page that is mapped twice: the last word holds. */
static void test_lists(void **state)
{
    static uint64_t at[300];
    static int32_t nodes[300], status[300], last[PAGES];
    struct rng r = { test_seed(22) };
    struct address_space shm;

    (void)state;
    assert_int_equal(address_space_init(&g.vm, &shm, GFP_HIGH_MOVABLE, NULL, NULL), MM_OK);
    map(mm, VA, PAGES, VM_ACCESS | VM_SHARED, &shm);
    map(mm, VA + PAGES * PAGE, PAGES, VM_ACCESS | VM_SHARED, &shm);
    for (uint64_t i = 0; i < PAGES; i++) {
        write_page(mm, VA + i * PAGE);
        assert_int_equal(vm_populate(mm, VA + (PAGES + i) * PAGE), MM_OK);
        last[i] = 0;
    }
    for (unsigned round = 0; round < 20; round++) {
        size_t n = 1 + rng_below(&r, FS_ARRAY_SIZE(at));

        for (size_t i = 0; i < n; i++) {
            uint64_t page = rng_below(&r, rng_below(&r, 2) == 0 ? 2 * PAGES : 10);

            at[i] = VA + page * PAGE + rng_below(&r, PAGE);
            nodes[i] = (int32_t)rng_below(&r, NODES);
            last[page % PAGES] = nodes[i];
        }
        assert_int_equal(vm_move_pages(mm, n, at, nodes, status, MPOL_MF_MOVE), MM_OK);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(status[i], nodes[i]);
        }
        for (uint64_t i = 0; i < PAGES; i++) {
            assert_int_equal(node_of(mm, VA + i * PAGE), last[i]);
            check_page(mm, VA + i * PAGE);
        }
    }
    assert_int_equal(vm_munmap(mm, VA, 2 * PAGES * PAGE), MM_OK);
    address_space_destroy(&shm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_interleave_exact, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bind_and_preferred, setup, teardown),
        cmocka_unit_test_setup_teardown(test_strict_and_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shared_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shared_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_nodes_change, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_room, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_migrate_nodes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_migrate_nodes_twice_mapped, setup, teardown),
        cmocka_unit_test_setup_teardown(test_statuses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lists, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
