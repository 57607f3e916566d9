/*
 * test_mempolicy.c - policies: what is one, who has which, and where pages go.
 *
 * Four nodes; CPU n is on node n.  What a page's node should be is worked out here from the address, not asked of the core.
 */
#include "cache_check.h"
#include "arch_hosted.h"
#include "guest_fault.h"
#include "hugetlb.h"
#include "mempolicy.h"
#include "mempolicy_fsck.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#define NODES      4u
#define NODE_PAGES 4096u
#define RAM_PAGES  (NODES * NODE_PAGES)
#define VA         0x20000000ull
#define PAGE       ((uint64_t)FS_PAGE_BYTES)

static struct guest g;
static struct mm_struct *mm;

static int setup(void **state)
{
    (void)state;
    guest_init_nodes(&g, RAM_PAGES, NODES, 2048, NODES, 0);
    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arch_hosted_set_cpu(0);
    check_caches(&g, 0);
    mm_put(mm);
    guest_free(&g);
    return 0;
}

static void map(struct mm_struct *of, uint64_t va, uint64_t pages, unsigned flags, struct address_space *file, uint64_t index)
{
    assert_int_equal(vm_mmap(of, &va, pages * PAGE, flags, file, index), MM_OK);
}

static void touch(struct mm_struct *of, uint64_t va)
{
    unsigned char byte = 1;

    assert_int_equal(vm_user_write(of, va, &byte, 1), MM_OK);
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

static void set_policy(struct mm_struct *of, uint64_t va, uint64_t pages, enum mpol_mode mode, nodemask_t nodes)
{
    struct mempolicy *p;

    assert_int_equal(mpol_new(&g.vm, mode, nodes, &p), MM_OK);
    assert_int_equal(vm_set_range_policy(of, va, pages * PAGE, p), MM_OK);
    mpol_put(&g.vm, p);
}

static uint64_t policies(void)
{
    return kmem_cache_used(g.vm.policy_cache);
}

/* ---- what is a policy ---- */

static void test_check(void **state)
{
    static const struct { enum mpol_mode mode; nodemask_t nodes; enum mpol_refusal refusal; mm_status_t status; uint32_t node; } cases[] = {
        { MPOL_DEFAULT, 0, MPOL_FINE, MM_OK, 0 },
        { MPOL_LOCAL, 0, MPOL_FINE, MM_OK, 0 },
        { MPOL_PREFERRED, 0x8, MPOL_FINE, MM_OK, 0 },
        { MPOL_BIND, 0xf, MPOL_FINE, MM_OK, 0 },
        { MPOL_INTERLEAVE, 0x5, MPOL_FINE, MM_OK, 0 },
        { MPOL_MODES, 1, MPOL_BAD_MODE, MM_EINVAL, 0 },
        { (enum mpol_mode)77, 1, MPOL_BAD_MODE, MM_EINVAL, 0 },
        { MPOL_DEFAULT, 1, MPOL_NODES_GIVEN, MM_EINVAL, 0 },
        { MPOL_LOCAL, 1, MPOL_NODES_GIVEN, MM_EINVAL, 0 },
        { MPOL_BIND, 0, MPOL_NO_NODES, MM_EINVAL, 0 },
        { MPOL_INTERLEAVE, 0, MPOL_NO_NODES, MM_EINVAL, 0 },
        { MPOL_PREFERRED, 0, MPOL_NO_NODES, MM_EINVAL, 0 },
        { MPOL_PREFERRED, 3, MPOL_MANY_NODES, MM_EINVAL, 0 },
        { MPOL_BIND, 0x11, MPOL_NO_SUCH_NODE, MM_ENODEV, 4 },
        { MPOL_INTERLEAVE, 0x80000001u, MPOL_NO_SUCH_NODE, MM_ENODEV, 31 },
    };
    struct mempolicy *p;
    uint64_t managed;
    uint32_t node;

    (void)state;
    for (size_t i = 0; i < FS_ARRAY_SIZE(cases); i++) {
        node = 0;
        assert_int_equal(mpol_check(&g.f.mm, cases[i].mode, cases[i].nodes, &node), cases[i].refusal);
        assert_int_equal(node, cases[i].node);
        assert_int_equal(mpol_refusal_status(cases[i].refusal), cases[i].status);
        assert_int_equal(mpol_new(&g.vm, cases[i].mode, cases[i].nodes, &p), cases[i].status);
        assert_true((p != NULL) == (cases[i].status == MM_OK && cases[i].mode != MPOL_DEFAULT));
        mpol_put(&g.vm, p);
        assert_int_equal(vm_set_mempolicy(mm, cases[i].mode, cases[i].nodes), cases[i].status);
    }
    assert_int_equal(vm_set_mempolicy(mm, MPOL_DEFAULT, 0), MM_OK);
    assert_int_equal(policies(), 0);
    managed = g.f.mm.zones[2].managed_pages;            /* as if its pages were offline */
    g.f.mm.zones[2].managed_pages = 0;
    assert_int_equal(g.f.mm.zones[2].node, 2);
    assert_int_equal(mpol_check(&g.f.mm, MPOL_BIND, 0x6, &node), MPOL_EMPTY_NODE);
    assert_int_equal(node, 2);
    assert_int_equal(vm_set_mempolicy(mm, MPOL_BIND, 0x6), MM_ENODEV);
    g.f.mm.zones[2].managed_pages = managed;
    for (unsigned r = 0; r <= MPOL_REFUSALS; r++) {
        assert_non_null(mpol_refusal_text((enum mpol_refusal)r));
    }
}

/* ---- where new pages go ---- */

static void test_anonymous(void **state)
{
    (void)state;
    map(mm, VA, 64, VM_ACCESS, NULL, 0);
    for (unsigned cpu = 0; cpu < NODES; cpu++) {       /* default: where the CPU is */
        arch_hosted_set_cpu(cpu);
        touch(mm, VA + cpu * PAGE);
        assert_int_equal(node_of(mm, VA + cpu * PAGE), cpu);
    }
    arch_hosted_set_cpu(0);
    set_policy(mm, VA + 8 * PAGE, 8, MPOL_PREFERRED, 1u << 3);
    set_policy(mm, VA + 16 * PAGE, 8, MPOL_BIND, 0x6);
    set_policy(mm, VA + 24 * PAGE, 16, MPOL_INTERLEAVE, 0xb);
    assert_int_equal(mm->vma_count, 5);
    for (uint64_t i = 64; i-- > 8;) {                   /* in whatever order */
        arch_hosted_set_cpu((unsigned)(i % NODES));
        touch(mm, VA + i * PAGE);
    }
    for (uint64_t i = 8; i < 64; i++) {
        static const int nth[3] = { 0, 1, 3 };
        int node = node_of(mm, VA + i * PAGE), cpu = (int)(i % NODES);

        if (i < 16) {
            assert_int_equal(node, 3);
        } else if (i < 24) {
            assert_int_equal(node, cpu == 1 || cpu == 2 ? cpu : 1);    /* the CPU's own where it is one of them */
        } else if (i < 40) {
            assert_int_equal(node, nth[(VA / PAGE + i) % 3]);
        } else {
            assert_int_equal(node, cpu);
        }
    }
    assert_true(vm_counter(&g.vm, VMC_policy_hit) == 32 && vm_counter(&g.vm, VMC_policy_miss) == 0);
}

/* The process's own policy comes where the vma has none; local in a vma is not none. */
static void test_process(void **state)
{
    struct mm_struct *child;
    enum mpol_mode mode;
    nodemask_t nodes;

    (void)state;
    map(mm, VA, 32, VM_ACCESS, NULL, 0);
    set_policy(mm, VA + 8 * PAGE, 8, MPOL_LOCAL, 0);
    set_policy(mm, VA + 16 * PAGE, 8, MPOL_BIND, 0x2);
    assert_int_equal(vm_set_mempolicy(mm, MPOL_INTERLEAVE, 0xc), MM_OK);
    assert_int_equal(mm_fork(mm, &child), MM_OK);      /* inherits all of it */
    assert_int_equal(vm_set_mempolicy(mm, MPOL_PREFERRED, 0x1), MM_OK);
    for (uint64_t i = 0; i < 32; i++) {
        int cpu = (int)(i % NODES);

        arch_hosted_set_cpu((unsigned)cpu);
        touch(mm, VA + i * PAGE);
        touch(child, VA + i * PAGE);
        assert_int_equal(node_of(mm, VA + i * PAGE), i / 8 == 1 ? cpu : i / 8 == 2 ? 1 : 0);
        assert_int_equal(node_of(child, VA + i * PAGE), i / 8 == 1 ? cpu : i / 8 == 2 ? 1 : (int)(2 + (VA / PAGE + i) % 2));
    }
    assert_int_equal(vm_get_mempolicy(child, VA, &mode, &nodes), MM_OK);
    assert_true(mode == MPOL_INTERLEAVE && nodes == 0xc);
    assert_int_equal(vm_get_mempolicy(child, VA + 9 * PAGE, &mode, &nodes), MM_OK);
    assert_true(mode == MPOL_LOCAL && nodes == 0);
    assert_int_equal(vm_get_mempolicy(child, VA + 17 * PAGE, &mode, &nodes), MM_OK);
    assert_true(mode == MPOL_BIND && nodes == 2);
    assert_int_equal(vm_get_mempolicy(child, VA + 33 * PAGE, &mode, &nodes), MM_EFAULT);
    assert_int_equal(policies(), 4);
    mm_put(child);
    assert_int_equal(policies(), 3);
}

/* Copies of shared pages, and pages that come back from swap, follow the policy too. */
static void test_copies(void **state)
{
    struct mm_struct *child;

    (void)state;
    map(mm, VA, 16, VM_ACCESS, NULL, 0);
    for (uint64_t i = 0; i < 16; i++) {
        touch(mm, VA + i * PAGE);
    }
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    set_policy(child, VA, 16, MPOL_INTERLEAVE, 0xe);
    for (uint64_t i = 0; i < 16; i++) {
        touch(child, VA + i * PAGE);
        assert_int_equal(node_of(child, VA + i * PAGE), 1 + (VA / PAGE + i) % 3);
        assert_int_equal(node_of(mm, VA + i * PAGE), 0);
    }
    set_policy(mm, VA, 16, MPOL_INTERLEAVE, 0xc);
    for (uint64_t i = 0; i < 16; i++) {
        struct page *page = follow_page(mm, VA + i * PAGE);
        swp_entry_t slot;

        page_lock(page);
        assert_int_equal(swap_alloc(&g.swap, &slot), MM_OK);
        assert_int_equal(swapcache_add(&g.swap, page, slot), MM_OK);
        assert_int_equal(try_to_unmap(&g.vm, page, UNMAP_SWAP), MM_OK);
        assert_int_equal(swapcache_write_page(&g.swap, page), MM_OK);
        assert_true(swapcache_reclaim(&g.swap, page, 1));
        page_unlock(page);
        page_put(&g.f.mm, page);
        assert_int_equal(node_of(mm, VA + i * PAGE), -1);
        touch(mm, VA + i * PAGE);
        assert_int_equal(node_of(mm, VA + i * PAGE), 2 + (VA / PAGE + i) % 2);
    }
    mm_put(child);
}

/* ---- vmas ---- */

static void test_split_and_merge(void **state)
{
    (void)state;
    map(mm, VA, 32, VM_ACCESS, NULL, 0);
    set_policy(mm, VA + 8 * PAGE, 16, MPOL_BIND, 0x3);
    assert_int_equal(mm->vma_count, 3);
    assert_int_equal(vm_mprotect(mm, VA + 12 * PAGE, 4 * PAGE, VM_READ), MM_OK);        /* cut inside: both parts have it */
    assert_int_equal(mm->vma_count, 5);
    for (struct vm_area *v = mm->first; v != NULL; v = v->next) {
        assert_true((v->policy != NULL) == (v->start >= VA + 8 * PAGE && v->end <= VA + 24 * PAGE));
    }
    assert_int_equal(vm_mprotect(mm, VA + 12 * PAGE, 4 * PAGE, VM_ACCESS), MM_OK);
    assert_int_equal(mm->vma_count, 3);
    set_policy(mm, VA, 8, MPOL_BIND, 0x3);              /* equal to its neighbour's, though another one */
    assert_int_equal(mm->vma_count, 2);
    set_policy(mm, VA + 4 * PAGE, 4, MPOL_BIND, 0x1);
    assert_int_equal(mm->vma_count, 4);
    assert_int_equal(vm_munmap(mm, VA + 6 * PAGE, 10 * PAGE), MM_OK);
    assert_int_equal(mm->vma_count, 4);
    assert_int_equal(vm_set_range_policy(mm, VA, 20 * PAGE, NULL), MM_EFAULT);           /* a hole: nothing is changed */
    assert_int_equal(mm->vma_count, 4);
    assert_int_equal(vm_set_range_policy(mm, VA, 6 * PAGE, NULL), MM_OK);
    assert_int_equal(vm_set_range_policy(mm, VA + 16 * PAGE, 16 * PAGE, NULL), MM_OK);
    assert_int_equal(mm->vma_count, 2);
    assert_int_equal(policies(), 0);
    assert_int_equal(vm_set_range_policy(mm, VA + 1, PAGE, NULL), MM_EINVAL);
    assert_int_equal(vm_set_range_policy(mm, VA, 0, NULL), MM_EINVAL);
}

/* ---- objects ---- */

/* A naive model: the policy of each index. */
static void test_shared_ranges(void **state)
{
    uint64_t seed = test_seed(11);
    struct rng r = { seed };
    struct shared_policy s = { .count = 0 };
    struct mempolicy *p[4] = { NULL }, *at[64] = { NULL };
    struct policy_range *spare;

    (void)state;
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal(mpol_new(&g.vm, MPOL_BIND, i, &p[i]), MM_OK);
    }
    for (unsigned step = 0; step < 4000; step++) {
        uint64_t first = rng_below(&r, 64), end = first + 1 + rng_below(&r, 64 - first);
        struct mempolicy *policy = p[rng_below(&r, 4)];
        uint32_t ranges = 0;

        assert_int_equal(policy_ranges_new(&g.vm, POLICY_RANGES_A_SET, &spare), MM_OK);
        shared_policy_set(&g.vm, &s, first, end, policy, &spare);
        policy_ranges_free(&g.vm, spare);
        for (uint64_t i = 0; i < 64; i++) {
            struct mempolicy *got = shared_policy_get(&s, i);

            at[i] = i >= first && i < end ? policy : at[i];
            assert_ptr_equal(got, at[i]);
            mpol_put(&g.vm, got);
            ranges += at[i] != NULL && (i == 0 || at[i] != at[i - 1]);
        }
        assert_int_equal(s.count, ranges);
        assert_int_equal(kmem_cache_used(g.vm.policy_range_cache), ranges);
    }
    shared_policy_destroy(&g.vm, &s);
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal(p[i]->refs, 1);
        mpol_put(&g.vm, p[i]);
    }
    assert_int_equal(policies(), 0);
}

/* Two processes map the object at different places and touch its pages in turn: one pattern, by the object's index. */
static void test_shared_memory(void **state)
{
    struct address_space shm;
    struct mm_struct *other;
    uint64_t va2 = VA + 0x1000000 + 5 * PAGE;

    (void)state;
    assert_int_equal(address_space_init(&g.vm, &shm, GFP_HIGH_MOVABLE, NULL, NULL), MM_OK);
    assert_int_equal(mm_create(&g.vm, &other), MM_OK);
    map(mm, VA, 32, VM_ACCESS | VM_SHARED, &shm, 0);
    map(other, va2, 24, VM_ACCESS | VM_SHARED, &shm, 8);
    set_policy(mm, VA + 8 * PAGE, 8, MPOL_INTERLEAVE, 0xf);
    set_policy(other, va2 + 8 * PAGE, 8, MPOL_BIND, 0x4);       /* indices 16 .. 23 */
    assert_int_equal(vm_set_mempolicy(other, MPOL_PREFERRED, 0x8), MM_OK);
    for (uint64_t i = 0; i < 32; i++) {
        bool mine = i % 2 == 0 || i < 8;

        touch(mine ? mm : other, mine ? VA + i * PAGE : va2 + (i - 8) * PAGE);
        touch(mm, VA + i * PAGE);
        if (i >= 8 && i < 16) {
            assert_int_equal(node_of(mm, VA + i * PAGE), i % 4);
        } else if (i >= 16 && i < 24) {
            assert_int_equal(node_of(mm, VA + i * PAGE), 2);
        } else {
            assert_int_equal(node_of(mm, VA + i * PAGE), mine ? 0 : 3);        /* of the process that came first */
        }
    }
    assert_true(find_vma(mm, VA)->policy == NULL && mm->vma_count == 1);       /* the object has it, not the vma */
    mm_put(other);
    assert_int_equal(vm_munmap(mm, VA, 32 * PAGE), MM_OK);
    address_space_destroy(&shm);
    assert_int_equal(policies(), 0);
}

/* A private mapping of a file: copies are the vma's, pages of the file are the object's. */
static void test_private_file(void **state)
{
    struct store store = { calloc(16, FS_PAGE_BYTES), 16 };
    struct address_space file;
    unsigned char byte;

    (void)state;
    assert_int_equal(address_space_init(&g.vm, &file, GFP_HIGH_MOVABLE, &store_ops, &store), MM_OK);
    map(mm, VA, 16, VM_ACCESS, &file, 0);
    map(mm, VA + 64 * PAGE, 16, VM_READ | VM_SHARED, &file, 0);
    set_policy(mm, VA, 16, MPOL_INTERLEAVE, 0xc);
    set_policy(mm, VA + 64 * PAGE, 16, MPOL_BIND, 0x2);
    for (uint64_t i = 0; i < 16; i++) {
        assert_int_equal(vm_user_read(mm, VA + i * PAGE, &byte, 1), MM_OK);
        assert_int_equal(node_of(mm, VA + i * PAGE), 1);
        touch(mm, VA + i * PAGE);
        assert_int_equal(node_of(mm, VA + i * PAGE), 2 + i % 2);
    }
    assert_int_equal(vm_munmap(mm, VA, 80 * PAGE), MM_OK);
    address_space_destroy(&file);
    free(store.bytes);
}

/* ---- memory that is short ---- */

static void test_bind_never_leaves(void **state)
{
    uint64_t mapped = 0, free_elsewhere;
    unsigned char byte = 1;
    mm_status_t status = MM_OK;

    (void)state;
    swap_destroy(&g.swap);                              /* nothing can be swapped out */
    map(mm, VA, 3 * NODE_PAGES, VM_ACCESS, NULL, 0);
    set_policy(mm, VA, 3 * NODE_PAGES, MPOL_BIND, 0x6);
    while (status == MM_OK) {
        status = vm_user_write(mm, VA + mapped * PAGE, &byte, 1);
        mapped += status == MM_OK;
    }
    assert_int_equal(status, MM_ENOMEM);
    assert_true(mapped > 2 * NODE_PAGES * 9 / 10 && mapped <= 2 * NODE_PAGES);
    for (uint64_t i = 0; i < mapped; i++) {
        int node = node_of(mm, VA + i * PAGE);

        assert_true(node == 1 || node == 2);
    }
    assert_true(vm_counter(&g.vm, VMC_policy_refused) > 0 && vm_counter(&g.vm, VMC_policy_miss) == 0);
    free_elsewhere = mm_free_pages(&g.f.mm);
    assert_true(free_elsewhere > NODE_PAGES);
    /* Preferred and interleave go elsewhere instead. */
    set_policy(mm, VA + mapped * PAGE, 64, MPOL_PREFERRED, 0x2);
    touch(mm, VA + mapped * PAGE);
    assert_true(node_of(mm, VA + mapped * PAGE) == 3);
    set_policy(mm, VA + mapped * PAGE, 64, MPOL_INTERLEAVE, 0x6);
    touch(mm, VA + (mapped + 1) * PAGE);
    assert_true(node_of(mm, VA + (mapped + 1) * PAGE) == 3);
    assert_int_equal(vm_counter(&g.vm, VMC_policy_miss), 2);
    assert_int_equal(vm_munmap(mm, VA, 3 * NODE_PAGES * PAGE), MM_OK);
    swap_init(&g.swap, &g.vm);
}

/* With swap, bind makes room on its own nodes. */
static void test_bind_reclaims(void **state)
{
    (void)state;
    map(mm, VA, NODE_PAGES + 500, VM_ACCESS, NULL, 0);
    set_policy(mm, VA, NODE_PAGES + 500, MPOL_BIND, 0x2);
    for (uint64_t i = 0; i < NODE_PAGES + 500; i++) {
        touch(mm, VA + i * PAGE);
        assert_int_equal(node_of(mm, VA + i * PAGE), 1);
    }
    assert_true(vm_counter(&g.vm, VMC_unmap_swap) >= 500);
    assert_true(mm_free_pages(&g.f.mm) > 2 * NODE_PAGES);
}

/* The allocator by itself: no order, type or urgency leaves the mask. */
static void test_nodemask(void **state)
{
    static const gfp_t kinds[] = { GFP_KERNEL, GFP_HIGH_MOVABLE, GFP_ATOMIC, GFP_KERNEL | __GFP_RECLAIMABLE, GFP_KERNEL | __GFP_ACCOUNT, GFP_NOWAIT };
    static struct { struct page *page; unsigned order; } held[RAM_PAGES];
    struct rng r = { test_seed(12) };
    uint32_t n = 0, refused = 0;

    (void)state;
    assert_null(alloc_pages_nodemask(&g.f.mm, 0, 0, GFP_KERNEL, 0));
    while (refused < 2000) {
        nodemask_t nodes = 0x5;
        unsigned order = (unsigned)rng_below(&r, 5) == 0 ? (unsigned)rng_below(&r, MAX_ORDER + 1) : 0;
        struct page *p = alloc_pages_nodemask(&g.f.mm, (uint32_t)rng_below(&r, NODES), nodes, kinds[rng_below(&r, FS_ARRAY_SIZE(kinds))], order);

        if (p == NULL) {
            refused++;
            continue;
        }
        assert_true(p->pfn / NODE_PAGES == 0 || p->pfn / NODE_PAGES == 2);
        held[n].page = p;
        held[n++].order = order;
    }
    assert_null(alloc_pages_nodemask(&g.f.mm, 0, 0x5, GFP_ATOMIC, 0));
    while (n > 0) {
        page_put(&g.f.mm, held[--n].page);
    }
}

/* Every page and object that setting a policy needs is refused once: nothing has changed then. */
static void test_refused(void **state)
{
    struct address_space shm;
    uint64_t n;

    (void)state;
    assert_int_equal(address_space_init(&g.vm, &shm, GFP_HIGH_MOVABLE, NULL, NULL), MM_OK);
    map(mm, VA, 16, VM_ACCESS, NULL, 0);
    map(mm, VA + 16 * PAGE, 16, VM_ACCESS | VM_SHARED, &shm, 0);
    map(mm, VA + 32 * PAGE, 16, VM_ACCESS, NULL, 0);
    for (n = 1; n < 100; n++) {
        struct mempolicy *p;
        mm_status_t status;

        object_alloc_fail_nth(n);
        status = mpol_new(&g.vm, MPOL_BIND, 0x2, &p);
        if (status == MM_OK) {
            status = vm_set_range_policy(mm, VA + 4 * PAGE, 40 * PAGE, p);
            mpol_put(&g.vm, p);
        }
        object_alloc_fail_nth(0);
        check_caches(&g, n);
        if (status == MM_OK) {
            break;
        }
        assert_int_equal(status, MM_ENOMEM);
        assert_true(mm->vma_count == 3 && policies() == 0 && shm.policy.count == 0);
        object_alloc_fail_nth(1);
        assert_int_equal(vm_set_mempolicy(mm, MPOL_LOCAL, 0), MM_ENOMEM);
        object_alloc_fail_nth(0);
        assert_null(mm->policy);
    }
    assert_true(n > 4 && n < 100);
    assert_true(mm->vma_count == 5 && policies() == 1 && shm.policy.count == 1);
    assert_int_equal(vm_munmap(mm, VA, 48 * PAGE), MM_OK);
    address_space_destroy(&shm);
}

/* ---- the pool ---- */

#define POOL_BYTES (4 * HUGE_BYTES)

/* Two pages of the pool on each node: a fault takes the one that the policy wants; a promise is kept all the same when that node has none. */
static void test_pool(void **state)
{
    struct hugetlb_file f;
    uint64_t at = VA;

    (void)state;
    for (uint32_t n = 0; n < NODES; n++) {
        assert_int_equal(hugetlb_set_pool(&g.vm, n, 2), 2);
    }
    assert_int_equal(vm_mmap(mm, &at, POOL_BYTES, VM_ACCESS | VM_HUGETLB, NULL, 0), MM_OK);
    set_policy(mm, VA, POOL_BYTES / PAGE, MPOL_INTERLEAVE, 0xa);
    for (unsigned i = 0; i < 4; i++) {
        touch(mm, VA + i * HUGE_BYTES);
    }
    assert_true(node_of(mm, VA) == node_of(mm, VA + 2 * HUGE_BYTES) && node_of(mm, VA + HUGE_BYTES) == node_of(mm, VA + 3 * HUGE_BYTES));
    assert_int_equal(node_of(mm, VA) + node_of(mm, VA + HUGE_BYTES), 1 + 3);
    assert_int_equal(vm_munmap(mm, VA, POOL_BYTES), MM_OK);

    assert_int_equal(vm_mmap(mm, &at, POOL_BYTES, VM_ACCESS | VM_HUGETLB, NULL, 0), MM_OK);
    set_policy(mm, VA, POOL_BYTES / PAGE, MPOL_BIND, 0x4);
    for (unsigned i = 0; i < 4; i++) {
        touch(mm, VA + i * HUGE_BYTES);
        assert_int_equal(node_of(mm, VA + i * HUGE_BYTES) == 2, i < 2);         /* promised to the last two */
    }
    assert_int_equal(vm_counter(&g.vm, VMC_policy_miss), 2);
    assert_int_equal(vm_munmap(mm, VA, POOL_BYTES), MM_OK);

    assert_int_equal(hugetlb_file_create(&g.vm, &f, 2), MM_OK);
    assert_int_equal(vm_mmap(mm, &at, 2 * HUGE_BYTES, VM_ACCESS | VM_HUGETLB | VM_SHARED, &f.as, 0), MM_OK);
    assert_int_equal(vm_set_mempolicy(mm, MPOL_PREFERRED, 0x8), MM_OK);         /* the process's, where the object has none */
    touch(mm, VA + HUGE_BYTES);
    assert_int_equal(node_of(mm, VA + HUGE_BYTES), 3);
    set_policy(mm, VA, HUGE_BYTES / PAGE, MPOL_BIND, 0x2);
    touch(mm, VA);
    assert_int_equal(node_of(mm, VA), 1);
    check_caches(&g, 0);
    assert_int_equal(mempolicy_fsck(&g.vm, 0, NULL, NULL), 0);
    assert_int_equal(vm_munmap(mm, VA, 2 * HUGE_BYTES), MM_OK);
    hugetlb_file_destroy(&f);
    assert_int_equal(vm_set_mempolicy(mm, MPOL_DEFAULT, 0), MM_OK);
    assert_int_equal(policies(), 0);
    assert_int_equal(hugetlb_set_pool(&g.vm, HUGETLB_ALL_NODES, 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pool, setup, teardown),
        cmocka_unit_test_setup_teardown(test_check, setup, teardown),
        cmocka_unit_test_setup_teardown(test_anonymous, setup, teardown),
        cmocka_unit_test_setup_teardown(test_process, setup, teardown),
        cmocka_unit_test_setup_teardown(test_copies, setup, teardown),
        cmocka_unit_test_setup_teardown(test_split_and_merge, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shared_ranges, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shared_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_private_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bind_never_leaves, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bind_reclaims, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nodemask, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
