/*
 * movable.c - one workload with mobility grouping only, with movable zones, with movable nodes.
 *
 * Owns: nothing.
 * Invariants:
 *   I1  all variants have the same memory, seed and mix; they differ in where kernel pages may lie, and in nothing else.
 *   I2  what was refused is counted by who asked.
 * Lock order: none.
 * Why: thread 004: with a movable zone "metadata intensive workloads will not be able to use all of memory", and a process may not get
 *   the page tables for what it maps; without it nothing guarantees that memory can leave.  Both are measured here, on each variant.
 * Cost: an aged system each, every section and node out and back, then memory filled twice.
 */
#include "movable.h"
#include <stdlib.h>
#include "../../guest/mm/fault.h"
#include "../../guest/mm/page_alloc.h"
#include "../../guest/mm/vma.h"

#define STRIDE (512ull * FS_PAGE_BYTES)     /* what one page table maps */

const struct movable_variant movable_variants[MOVABLE_VARIANTS] = {
    { "mobility grouping only", 0, false },
    { "kernelcore=50 %", 500, false },
    { "kernelcore=25 %", 250, false },
    { "kernelcore=12.5 %", 125, false },
    { "kernelcore=10 %", 100, false },
    { "all nodes but the first are movable", 0, true },
};

/* A load of metadata: kernel pages, as many as half of memory. */
static void kernel_load(struct aged *a, struct movable_result *r)
{
    struct page **pages;

    r->kernel_wanted = r->total_pages / 2;
    pages = calloc(r->kernel_wanted, sizeof(struct page *));
    for (uint64_t i = 0; pages != NULL && i < r->kernel_wanted; i++) {
        site_any_cpu(&a->site);
        pages[i] = alloc_pages(a->site.mm, GFP_KERNEL | __GFP_NORETRY, 0);
        if (pages[i] == NULL) {
            break;
        }
        r->kernel_got++;
        if (i % 64 == 0) {
            (void)site_background(&a->site);
        }
    }
    for (uint64_t i = 0; i < r->kernel_got; i++) {
        page_put(a->site.mm, pages[i]);
    }
    free(pages);
}

/* A process that touches one page of each 2 MiB of a large mapping. */
static void sparse_process(struct aged *a, struct movable_result *r)
{
    struct mm_struct *mm = NULL;
    uint64_t va = 0;

    r->sparse_wanted = r->total_pages / 4;
    if (mm_create(a->site.vm, &mm) != MM_OK) {
        return;
    }
    if (vm_mmap(mm, &va, r->sparse_wanted * STRIDE, VM_ACCESS, NULL, 0) == MM_OK) {
        for (uint64_t i = 0; i < r->sparse_wanted; i++) {
            site_any_cpu(&a->site);
            if (vm_user_write(mm, va + i * STRIDE, &i, sizeof(i)) != MM_OK) {
                break;
            }
            r->sparse_got++;
            if (i % 64 == 0) {
                (void)site_background(&a->site);
            }
        }
        for (uint64_t i = 0, is = 0; i < r->sparse_got; i++) {
            r->faults += vm_user_read(mm, va + i * STRIDE, &is, sizeof(is)) == MM_OK && is != i;    /* refused: no memory to bring it back */
        }
    }
    mm_put(mm);
}

bool movable_measure(const struct movable_variant *variant, uint64_t seed, bool small, struct movable_result *r)
{
    static struct aged a;
    struct aged_config c = aged_for(3, seed, small);
    uint64_t pages = (uint64_t)c.site.nodes * c.site.node_sections * SECTION_PAGES;

    *r = (struct movable_result){ .variant = variant };
    c.events = c.ager.grow_events = small ? 4000 : c.events;
    c.site.kernelcore_pages = pages * variant->core_permille / 1000;
    c.site.movable_nodes = variant->nodes ? ((1u << c.site.nodes) - 1) & ~1u : 0;
    if (!aged_make(&a, &c)) {
        return false;
    }
    r->built = true;
    for (uint32_t z = 0; z < a.site.mm->zone_count; z++) {
        r->total_pages += a.site.mm->zones[z].managed_pages;
        r->kernel_zone_pages += a.site.mm->zones[z].kind != ZONE_MOVABLE ? a.site.mm->zones[z].managed_pages : 0;
    }
    r->aged = ager_refused(&a.ager);
    r->cached = atomic_load(&a.site.pagecache->pages);
    situation_leave(&a, 3, &r->sections);
    situation_leave(&a, 5, &r->nodes);
    r->faults = r->sections.faults + r->nodes.faults;
    kernel_load(&a, r);
    r->faults += a.site.fsck(&a.site, stderr);
    sparse_process(&a, r);
    r->faults += aged_end(&a);
    return true;
}
