/*
 * test_mempolicy_world.c - policies against a model, beside everything else that processes do; memory short on one node; every allocation refused.
 */
#include "cache_check.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "guest_fault.h"
#include "mbind.h"
#include "mempolicy_fsck.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#define NODES      4u
#define RAM_PAGES  (NODES * 4096u)

static struct guest g;
static struct world w;
static uint64_t statuses[MM_STATUSES];

static void print_fault(void *ctx, enum mpol_fsck_fault fault, const struct mm_struct *mm, uint64_t va, uint64_t is, uint64_t should_be)
{
    (void)mm;
    print_error("seed %llu: %s at va %#llx: %s (is %#llx, should be %#llx)\n", *(unsigned long long *)ctx, mpol_fsck_name(fault),
                (unsigned long long)va, mpol_fsck_text(fault), (unsigned long long)is, (unsigned long long)should_be);
}

static void check(uint64_t seed)
{
    unsigned long long s = seed;
    uint64_t faults = mempolicy_fsck(&g.vm, 0, print_fault, &s);

    assert_int_equal(faults, 0);
    check_caches(&g, seed);
}

/* What has a policy is bound once more to the same, now with everything that is there. (Vmas may join by that: go by address.) */
static void bind_again(struct mm_struct *mm)
{
    uint64_t va = 0;

    for (const struct vm_area *v; (v = find_vma(mm, va)) != NULL;) {
        struct mempolicy *p = v->flags & VM_SHARED ? NULL : mpol_get(vma_policy(v));
        uint64_t start = v->start > va ? v->start : va;

        va = v->end;
        if (p != NULL) {
            assert_int_equal(vm_mbind(mm, start, va - start, p->mode, p->nodes, MPOL_MF_MOVE_ALL | MPOL_MF_STRICT, NULL), MM_OK);
            mpol_put(&g.vm, p);
        }
    }
}

/* At the end every page of the last process and of every file is put in place, and is there. (Members of a family share pages, and may want
 * them on different nodes.) */
static void check_places(uint64_t seed)
{
    unsigned long long s = seed;
    uint64_t faults;

    for (unsigned i = 1; i < WORLD_PROCESSES; i++) {
        world_end(&w, i);
    }
    bind_again(w.processes[0].mm);
    for (unsigned f = 0; f < w.files; f++) {            /* one pattern for each whole file */
        struct mm_struct *mm;
        uint64_t va = 0x10000000;

        assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
        assert_int_equal(vm_mmap(mm, &va, FILE_PAGES * (uint64_t)FS_PAGE_BYTES, VM_READ | VM_SHARED, &w.as[f], 0), MM_OK);
        assert_int_equal(vm_mbind(mm, va, FILE_PAGES * (uint64_t)FS_PAGE_BYTES, MPOL_INTERLEAVE, 0xf >> f, MPOL_MF_MOVE_ALL | MPOL_MF_STRICT, NULL), MM_OK);
        mm_put(mm);
    }
    faults = mempolicy_fsck(&g.vm, MPOL_FSCK_PLACES, print_fault, &s);
    assert_int_equal(faults, 0);
}

static void run(uint64_t seed, unsigned steps)
{
    guest_init_nodes(&g, RAM_PAGES, NODES, 4096, NODES, 0);
    world_init(&w, &g, seed, 0, NODES, WORLD_FILES);
    for (unsigned step = 0; step < steps; step++) {
        world_step(&w);
        world_policy_step(&w);
        if (step % 64 == 63) {
            check(seed);
        }
        if (step % 512 == 511) {
            (void)compact_all(&g.f.mm, TARGET_MOVABLE);
            world_check_all(&w);
        }
    }
    world_check_all(&w);
    if (getenv("FRAMESHIFT_VERBOSE") != NULL) {
        print_message("moved %llu places %llu misses %llu\n", (unsigned long long)w.pages_moved, (unsigned long long)w.places_checked,
                      (unsigned long long)vm_counter(&g.vm, VMC_policy_miss));
        for (unsigned i = 0; i < MM_STATUSES; i++) {
            print_message("status %u: %llu\n", i, (unsigned long long)w.statuses[i]);
        }
    }
    assert_true(w.pages_moved > 500 && w.places_checked > 50 && vm_counter(&g.vm, VMC_policy_miss) == 0);
    for (unsigned i = 0; i < MM_STATUSES; i++) {
        statuses[i] += w.statuses[i];
    }
    check_places(seed);
    check(seed);
    world_free(&w);
    assert_int_equal(kmem_cache_used(g.vm.policy_cache) + kmem_cache_used(g.vm.policy_range_cache), 0);
    guest_free(&g);
}

static void test_world(void **state)
{
    uint64_t seed = test_seed(1);

    (void)state;
    for (uint64_t s = seed; s < seed + 4; s++) {
        run(s, 2000);
    }
    /* Each that comes by itself: a node, and these. (EBUSY and ENOMEM: test_mbind.c) */
    assert_true(statuses[MM_OK] > 0 && statuses[MM_EINVAL] > 0 && statuses[MM_ENOENT] > 0 && statuses[MM_EACCES] > 0 && statuses[MM_ENODEV] > 0
                && statuses[MM_EFAULT] > 0);
}

/* One node has hardly anything: what binds to it reclaims, or is refused; no byte suffers. */
static void test_short_node(void **state)
{
    static struct page *held[4096];
    uint64_t seed = test_seed(50);
    uint32_t n = 0;

    (void)state;
    guest_init_nodes(&g, RAM_PAGES, NODES, 4096, NODES, 0);
    while (n < 3950 && (held[n] = alloc_pages_nodemask(&g.f.mm, 1, 0x2, GFP_KERNEL | __GFP_HIGH, 0)) != NULL) {
        n++;
    }
    assert_true(n > 3000);
    world_init(&w, &g, seed, 0, NODES, WORLD_FILES);
    w.may_fail = true;
    for (unsigned step = 0; step < 4000; step++) {
        world_step(&w);
        world_policy_step(&w);
        if (step % 128 == 127) {
            check(seed);
        }
    }
    world_check_all(&w);
    if (getenv("FRAMESHIFT_VERBOSE") != NULL) {
        print_message("held %u misses %llu moved %llu swapped %llu refused %llu\n", n, (unsigned long long)vm_counter(&g.vm, VMC_policy_miss),
                      (unsigned long long)w.pages_moved, (unsigned long long)vm_counter(&g.vm, VMC_unmap_swap), (unsigned long long)w.refused);
    }
    assert_true(vm_counter(&g.vm, VMC_policy_miss) > 0 && w.pages_moved > 0);
    world_free(&w);
    check(seed);
    while (n > 0) {
        page_put(&g.f.mm, held[--n]);
    }
    guest_free(&g);
}

/* ---- every page and object refused once ---- */

static uint64_t run_refused(void (*fail_nth)(uint64_t), uint64_t (*calls)(void), uint64_t seed, uint64_t n)
{
    uint64_t made;

    guest_init_nodes(&g, RAM_PAGES, NODES, 256, NODES, 0);
    world_init(&w, &g, seed, 0, NODES, WORLD_FILES);
    w.may_fail = true;
    fail_nth(n);
    for (unsigned step = 0; step < 120; step++) {
        world_step(&w);
        world_policy_step(&w);
    }
    made = calls();
    fail_nth(0);
    check(seed);
    world_check_all(&w);
    world_free(&w);
    check(seed);
    guest_free(&g);
    return made;
}

static void every_one(void (*fail_nth)(uint64_t), uint64_t (*calls)(void), uint64_t seed)
{
    uint64_t made = run_refused(fail_nth, calls, seed, 0), told = 0;

    assert_int_equal(w.refused, 0);
    assert_true(made > 10);
    for (uint64_t n = 1; n <= made; n++) {
        (void)run_refused(fail_nth, calls, seed, n);
        told += w.refused != 0;
    }
    assert_true(told > made / 10);
}

static void test_refused(void **state)
{
    (void)state;
    every_one(page_alloc_fail_nth, page_alloc_calls, test_seed(60));
    every_one(object_alloc_fail_nth, object_alloc_calls, test_seed(61));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_world),
        cmocka_unit_test(test_short_node),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
