/*
 * test_vm.c - processes against a naive model of every byte: mmap, faults, fork, copy-on-write, mlock, files, migration,
 * compaction and offlining at random times.
 */
#include "vm_world.h"
#include "arch_hosted.h"
#include "cache_check.h"
#include "compaction.h"
#include "guest_fault.h"
#include "hotplug.h"
#include "pageblock.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RAM_PAGES 8192u
#define PRESSED_PAGES 1024u

static struct guest g;
static struct world w;
static uint64_t huge_counts[VM_COUNTERS];

static mm_status_t give(void *ctx, pfn_t pfn, unsigned order)
{
    (void)ctx;
    memset(arch_page_address(pfn), 0xee, (size_t)FS_PAGE_BYTES << order);   /* whoever still uses it will see */
    return MM_OK;
}

static mm_status_t take(void *ctx, pfn_t pfn, unsigned order)
{
    (void)ctx;
    memset(arch_page_address(pfn), 0xdd, (size_t)FS_PAGE_BYTES << order);
    return MM_OK;
}

static const struct hotplug_ops hotplug = { .give = give, .take = take, .ctx = NULL };

/* Take four blocks away and bring them back. */
static uint64_t offline_some(void)
{
    uint32_t last = (uint32_t)(g.f.mm.end_pfn / PAGEBLOCK_PAGES) - 4;        /* movable pages live at the end */
    uint32_t block = rng_below(&w.r, 2) == 0 ? last : (uint32_t)rng_below(&w.r, last);
    struct hotplug_report out, back;
    mm_status_t status = memory_offline(&g.f.mm, block_pfn(block), block_pfn(block + 4), OFFLINE_RESIDUAL_OK, &hotplug, &out, NULL);

    assert_true(status == MM_OK || status == MM_EAGAIN);
    for (unsigned i = 0; i < 20; i++) {
        world_step(&w);
    }
    assert_int_equal(memory_online(&g.f.mm, block_pfn(block), block_pfn(block + 4), &hotplug, &back), MM_OK);
    assert_true(out.extents == back.extents && back.single_pages == out.single_pages);
    return out.migrated_pages;
}

static void run(uint64_t seed, unsigned steps, unsigned files)
{
    uint64_t offlined = 0, compacted = 0;

    guest_init(&g, RAM_PAGES, 4, 4096);
    world_init(&w, &g, seed, 0, 4, files);
    for (unsigned step = 0; step < steps; step++) {
        world_step(&w);
        if (step % 64 == 63) {
            check_caches(&g, seed);
        }
        if (step % 256 == 255) {
            compacted += compact_all(&g.f.mm, TARGET_MOVABLE).migrated_pages;
            world_check_all(&w);
            offlined += offline_some();
            check_caches(&g, seed);
        }
    }
    world_check_all(&w);
    world_free(&w);
    check_caches(&g, seed);
    if (getenv("FRAMESHIFT_VERBOSE") != NULL) {
        for (enum vm_counter c = 0; c < VM_COUNTERS; c++) {
            print_message("%-16s %llu\n", vm_counter_name(c), (unsigned long long)vm_counter(&g.vm, c));
        }
        print_message("compacted %llu offlined %llu swapped out %llu dropped %llu\n", (unsigned long long)compacted,
                      (unsigned long long)offlined, (unsigned long long)w.swapped_out, (unsigned long long)w.dropped);
    }
    assert_true(steps < 2000 || (offlined > 0 && vm_counter(&g.vm, VMC_fault_cow) > 0 && vm_counter(&g.vm, VMC_fault_reuse) > 0
                                 && vm_counter(&g.vm, VMC_migrate_success) > 0 && vm_counter(&g.vm, VMC_fork) > 0
                                 && vm_counter(&g.vm, VMC_fault_swapin) > 0 && w.swapped_out > 0 && (files == 0 || w.dropped > 0)));
    guest_free(&g);
}

/* Hardly more memory than the processes want: allocations reclaim on their own time, and some are refused. */
static void run_pressed(uint64_t seed, unsigned steps)
{
    guest_init(&g, PRESSED_PAGES, 4, 4096);
    world_init(&w, &g, seed, 0, 4, WORLD_FILES);
    w.may_fail = true;
    for (unsigned step = 0; step < steps; step++) {
        world_step(&w);
        if (step % 128 == 127) {
            check_caches(&g, seed);
            world_check_all(&w);
        }
        if (step % 512 == 511) {
            (void)compact_all(&g.f.mm, TARGET_MOVABLE);
        }
    }
    world_check_all(&w);
    assert_true(vm_counter(&g.vm, VMC_fault_swapin) > 100 && vm_counter(&g.vm, VMC_unmap_swap) > 100);
    if (getenv("FRAMESHIFT_VERBOSE") != NULL) {
        for (enum vm_counter c = 0; c < VM_COUNTERS; c++) {
            print_message("%-16s %llu\n", vm_counter_name(c), (unsigned long long)vm_counter(&g.vm, c));
        }
        print_message("refused %llu reclaimed %llu\n", (unsigned long long)w.refused, (unsigned long long)w.reclaimed);
    }
    world_free(&w);
    check_caches(&g, seed);
    guest_free(&g);
}

static void test_pressed(void **state)
{
    uint64_t seed = test_seed(1);

    (void)state;
    for (uint64_t s = seed; s < seed + 4; s++) {
        run_pressed(s, 3000);
    }
}

/* ---- huge pages ---- */

/* Both kinds of machine: a leaf of level 2, and 512 entries. */
static void run_huge(uint64_t seed, unsigned steps, bool leaf, bool pressed)
{
    uint64_t offlined = 0;

    arch_hosted_set_leaf(leaf);
    guest_init(&g, pressed ? 6 * PAGEBLOCK_PAGES : 2 * RAM_PAGES, 4, 16384);
    thp_set_policy(&g.vm, seed % 2 == 0 ? THP_ALWAYS : THP_MADVISE);
    if (!pressed) {
        assert_int_equal(hugetlb_set_pool(&g.vm, 0, POOL_UNITS), POOL_UNITS);
        hugetlb_set_overcommit(&g.vm, WORLD_PROCESSES * POOL_UNITS * 2);
    }
    world_init(&w, &g, seed, 0, 4, WORLD_FILES);
    w.may_fail = true;                          /* a child's copy of a page of the pool may find none */
    world_huge(&w, !pressed);
    for (unsigned step = 0; step < steps; step++) {
        world_step(&w);
        if (step % 32 == 31) {
            check_caches(&g, seed);
        }
        if (step % 128 == 127) {
            (void)compact_all(&g.f.mm, TARGET_MOVABLE);
            w.collapsed += khugepaged_scan(&g.vm, 2);
            check_caches(&g, seed);
        }
        if (step % 512 == 511) {
            world_check_all(&w);
        }
        if (step % 256 == 255 && !pressed) {
            offlined += offline_some();
            check_caches(&g, seed);
        }
    }
    world_check_all(&w);
    world_free(&w);
    check_caches(&g, seed);
    if (getenv("FRAMESHIFT_VERBOSE") != NULL) {
        for (enum vm_counter c = 0; c < VM_COUNTERS; c++) {
            print_message("%-18s %llu\n", vm_counter_name(c), (unsigned long long)vm_counter(&g.vm, c));
        }
        print_message("collapsed %llu refused %llu offlined %llu\n", (unsigned long long)w.collapsed, (unsigned long long)w.refused,
                      (unsigned long long)offlined);
    }
    for (enum vm_counter c = 0; c < VM_COUNTERS; c++) {
        huge_counts[c] += vm_counter(&g.vm, c);
    }
    guest_free(&g);
    arch_hosted_set_leaf(true);
}

static void run_huge_seeds(bool leaf, bool pressed)
{
    static const enum vm_counter wanted[] = { VMC_thp_fault_alloc, VMC_thp_split, VMC_thp_collapse };
    static const enum vm_counter room[] = { VMC_thp_cow, VMC_thp_migrate, VMC_thp_migrate_split, VMC_hugetlb_fault, VMC_hugetlb_cow, VMC_hugetlb_migrate };
    static const enum vm_counter short_of[] = { VMC_thp_fault_fallback, VMC_thp_cow_fallback, VMC_thp_collapse_fail };
    uint64_t seed = test_seed(1);

    memset(huge_counts, 0, sizeof(huge_counts));
    for (uint64_t s = seed; s < seed + 4; s++) {
        run_huge(s, 1500, leaf, pressed);
    }
    if (getenv("FRAMESHIFT_SEED") != NULL) {
        return;                                 /* what must have happened is known of the seeds at hand; rare events need not come with others */
    }
    for (size_t i = 0; i < FS_ARRAY_SIZE(wanted); i++) {
        assert_true(huge_counts[wanted[i]] > 0);
    }
    for (size_t i = 0; i < FS_ARRAY_SIZE(room) && !pressed; i++) {
        assert_true(huge_counts[room[i]] > 0);
    }
    for (size_t i = 0; i < FS_ARRAY_SIZE(short_of) && pressed; i++) {
        assert_true(huge_counts[short_of[i]] > 0);
    }
}

static void test_huge_leaf(void **state)
{
    (void)state;
    run_huge_seeds(true, false);
}

static void test_huge_by_pages(void **state)
{
    (void)state;
    run_huge_seeds(false, false);
}

static void test_huge_pressed(void **state)
{
    (void)state;
    run_huge_seeds(true, true);
    run_huge_seeds(false, true);
}

static void test_anonymous(void **state)
{
    uint64_t seed = test_seed(1);

    (void)state;
    for (uint64_t s = seed; s < seed + 8; s++) {
        run(s, 3000, 0);
    }
}

static void test_files(void **state)
{
    uint64_t seed = test_seed(1);

    (void)state;
    for (uint64_t s = seed; s < seed + 8; s++) {
        run(s, 3000, WORLD_FILES);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_anonymous),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_pressed),
        cmocka_unit_test(test_huge_leaf),
        cmocka_unit_test(test_huge_by_pages),
        cmocka_unit_test(test_huge_pressed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
