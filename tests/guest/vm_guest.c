/*
 * vm_guest.c - a guest with everything: memory, slab, LRU lists, page cache, swap, processes, migration.
 *
 * Owns: struct guest.
 * Invariants: I1  at the end every page is free again.
 * Why: tests of processes need all of it together.
 * Cost: pages are mapped and not touched.
 */
#include "vm_world.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "reclaim.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static mm_status_t swap_read(void *ctx, uint32_t slot, void *bytes)
{
    const struct guest *g = ctx;

    memcpy(bytes, g->swap_bytes + slot * (size_t)FS_PAGE_BYTES, FS_PAGE_BYTES);
    return MM_OK;
}

static mm_status_t swap_write(void *ctx, uint32_t slot, const void *bytes)
{
    struct guest *g = ctx;

    memcpy(g->swap_bytes + slot * (size_t)FS_PAGE_BYTES, bytes, FS_PAGE_BYTES);
    return MM_OK;
}

static const struct swap_backing swap_ops = { swap_read, swap_write };

static mm_status_t store_read(void *ctx, uint64_t index, void *bytes)
{
    const struct store *s = ctx;

    if (index >= s->pages) {
        return MM_EIO;
    }
    memcpy(bytes, s->bytes + index * FS_PAGE_BYTES, FS_PAGE_BYTES);
    return MM_OK;
}

static mm_status_t store_write(void *ctx, uint64_t index, const void *bytes)
{
    struct store *s = ctx;

    if (index >= s->pages) {
        return MM_EIO;
    }
    memcpy(s->bytes + index * FS_PAGE_BYTES, bytes, FS_PAGE_BYTES);
    return MM_OK;
}

const struct backing_ops store_ops = { store_read, store_write };

void guest_init(struct guest *g, uint64_t pages, unsigned cpus, uint32_t swap_slots)
{
    guest_init_nodes(g, pages, cpus, swap_slots, 1, 0);
}

void guest_init_nodes(struct guest *g, uint64_t pages, unsigned cpus, uint32_t swap_slots, uint32_t nodes, uint64_t more_frames)
{
    struct mm_config config = { .cpus = cpus };

    *g = (struct guest){ .swap_bytes = NULL };
    memory_init_nodes(&g->f, pages, 64, cpus, nodes, more_frames);
    config.boot_alloc = fixture_boot_alloc;
    config.boot_ctx = &g->f;
    assert_int_equal(compaction_init(&g->f.mm, &config), MM_OK);
    assert_int_equal(vm_init(&g->vm, &g->f.mm), MM_OK);
    lru_init(&g->lru, &g->f.mm);
    g->vm.lru = &g->lru;
    assert_int_equal(pagecache_init(&g->pagecache, &g->vm), MM_OK);
    swap_init(&g->swap, &g->vm);
    if (swap_slots != 0) {
        g->swap_bytes = malloc(swap_slots * (size_t)FS_PAGE_BYTES);
        assert_non_null(g->swap_bytes);
        assert_int_equal(swap_add_area(&g->swap, swap_slots, &swap_ops, g), MM_OK);
    }
    vm_install_migrate(&g->vm);
    reclaim_init(&g->vm);
    hugetlb_init(&g->hugetlb, &g->vm);
}

/* Slots whose page was locked when its last owner left: reclaim would find them. */
static void drop_swap_cache(struct guest *g)
{
    for (uint64_t pfn = 0; pfn < g->f.mm.end_pfn; pfn++) {
        struct page *p = mm_page(&g->f.mm, pfn_make(pfn));

        if (page_state(p) == PAGE_USED && page_test(p, PG_SWAPCACHE) && page_try_get(p)) {
            page_lock(p);
            assert_true(swapcache_try_free(&g->swap, p));
            page_unlock(p);
            page_put(&g->f.mm, p);
        }
    }
}

void guest_free(struct guest *g)
{
    assert_int_equal(g->vm.mm_count, 0);
    drop_swap_cache(g);
    hugetlb_destroy(&g->hugetlb);
    swap_destroy(&g->swap);
    pagecache_destroy(&g->pagecache);
    vm_destroy(&g->vm);
    memory_check_all_free(&g->f);
    assert_int_equal(arch_hosted_tables(), 0);
    memory_free(&g->f);
    free(g->swap_bytes);
}

static void print_fault(void *ctx, enum vm_fsck_fault fault, const struct vm_fsck_place *place, uint64_t is, uint64_t should_be)
{
    print_error("seed %llu: %s at va %#llx pfn %#llx: %s (is %#llx, should be %#llx)\n", *(unsigned long long *)ctx, vm_fsck_name(fault),
                (unsigned long long)place->va, (unsigned long long)place->pfn.n, vm_fsck_text(fault), (unsigned long long)is,
                (unsigned long long)should_be);
}

void guest_check(struct guest *g, uint64_t seed)
{
    unsigned long long s = seed;
    uint64_t faults = vm_fsck(&g->vm, print_fault, &s);

    assert_int_equal(faults, 0);
    check_mm(&g->f.mm, seed);
    check_slab(&g->f.mm, seed);
}
