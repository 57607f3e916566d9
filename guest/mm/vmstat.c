/*
 * vmstat.c - every count and counter of a vm by name.
 *
 * Layer: L6
 * Owns: the names of counts; counters bring theirs along (X-lists in zone.h, lru.h, vm.h).
 * Invariants: I1 a name is told once.
 * Lock order: those of slab's lists, one at a time.
 * Why: whoever watches a guest, a drill or a test, wants one list, not five structures.
 * Cost: a few hundred loads, and the locks of each slab cache.
 */
#include "vmstat.h"
#include "hugetlb.h"
#include "lru.h"
#include "memmap.h"
#include "pagecache.h"
#include "slab.h"
#include "swap.h"

/* Guest pages that hold struct pages, by node and in sum. */
static void memmap_counts(const struct mm *mm, vmstat_fn fn, void *ctx)
{
    static const char *const names[MM_NODES_MAX] = {
        "nr_memmap_pages_node0", "nr_memmap_pages_node1", "nr_memmap_pages_node2", "nr_memmap_pages_node3",
        "nr_memmap_pages_node4", "nr_memmap_pages_node5", "nr_memmap_pages_node6", "nr_memmap_pages_node7",
    };
    for (uint32_t n = 0; n < mm->node_count; n++) {
        fn(ctx, names[n], atomic_load(&mm->memmap_pages[n]));
    }
    fn(ctx, "nr_memmap_pages", memmap_pages(mm));
}

static void counts(struct vm *vm, vmstat_fn fn, void *ctx)
{
    static const char *const lists[LRU_LISTS] = {
        "nr_inactive_anon", "nr_active_anon", "nr_inactive_file", "nr_active_file", "nr_unevictable",
    };
    uint64_t slab = kmem_pages(vm->mm, false), reclaimable = kmem_pages(vm->mm, true);
    struct hugetlb_stats huge = hugetlb_stats(vm, HUGETLB_ALL_NODES);

    fn(ctx, "nr_free_pages", mm_free_pages(vm->mm));
    memmap_counts(vm->mm, fn, ctx);
    for (unsigned l = 0; l < LRU_LISTS; l++) {
        fn(ctx, lists[l], vm->lru != NULL ? lru_pages_all(vm->lru, (enum lru_list)l) : 0);
    }
    fn(ctx, "nr_file_pages", vm->pagecache != NULL ? atomic_load(&vm->pagecache->pages) : 0);
    fn(ctx, "nr_dirty", vm->pagecache != NULL ? atomic_load(&vm->pagecache->dirty) : 0);
    fn(ctx, "nr_swapcached", vm->swap != NULL ? vm->swap->cached : 0);
    fn(ctx, "nr_swap_free_slots", vm->swap != NULL ? swap_free_slots(vm->swap) : 0);
    fn(ctx, "nr_slab_reclaimable", reclaimable);
    fn(ctx, "nr_slab_unreclaimable", slab - reclaimable);
    fn(ctx, "nr_processes", vm->mm_count);
    fn(ctx, "nr_hugepages", huge.nr);
    fn(ctx, "nr_hugepages_free", huge.free);
    fn(ctx, "nr_hugepages_reserved", huge.reserved);
    fn(ctx, "nr_hugepages_surplus", huge.surplus);
}

void vmstat(struct vm *vm, vmstat_fn fn, void *ctx)
{
    counts(vm, fn, ctx);
    for (unsigned c = 0; c < ZONE_COUNTERS; c++) {
        fn(ctx, zone_counter_name((enum zone_counter)c), mm_counter(vm->mm, (enum zone_counter)c));
    }
    for (unsigned c = 0; c < LRU_COUNTERS && vm->lru != NULL; c++) {
        fn(ctx, lru_counter_name((enum lru_counter)c), lru_counter(vm->lru, (enum lru_counter)c));
    }
    for (unsigned c = 0; c < VM_COUNTERS; c++) {
        fn(ctx, vm_counter_name((enum vm_counter)c), vm_counter(vm, (enum vm_counter)c));
    }
}

struct wanted { const char *name; uint64_t value; bool found; };

static void match(void *ctx, const char *name, uint64_t value)
{
    struct wanted *w = ctx;
    size_t i = 0;

    while (name[i] != '\0' && name[i] == w->name[i]) {
        i++;
    }
    if (name[i] == w->name[i]) {
        w->value = value;
        w->found = true;
    }
}

bool vmstat_value(struct vm *vm, const char *name, uint64_t *value)
{
    struct wanted w = { .name = name };

    vmstat(vm, match, &w);
    *value = w.value;
    return w.found;
}
