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
    uint32_t last = RAM_PAGES / PAGEBLOCK_PAGES - 4;        /* movable pages live at the end */
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
