/*
 * memmap.h - the struct pages of a section: how they come into being, leave and return.  Layer: L1
 *
 * A section of which the last block left needs no struct pages.  They lie in 2 MiB of the guest's own memory, which go back to the
 * allocator then; before such a section comes back, 2 MiB are taken for it again.  Blocks and free maps (6 KiB a section) stay for good.
 *
 * What makes a struct page safe to look at, now that it can be gone, is one of three things:
 *   - a reference on a page of its section: what is in use keeps it;
 *   - the zone lock, with the block seen under it not to be offline (only then may a block's struct pages be looked at);
 *   - a walk (zone.h, mm_walk_begin()), begun before mm_pfn_valid() was asked: whoever takes the struct pages away waits for
 *     every walk that may have seen them.  A walk may sleep and may nest; it must not offline or online memory.
 */
#ifndef GUEST_MM_MEMMAP_H
#define GUEST_MM_MEMMAP_H

#include "zone.h"

#define MEMMAP_PAGES ((uint32_t)(SECTION_PAGES * sizeof(struct page) / FS_PAGE_BYTES))     /* 512: a pageblock */

/* Boot memory for the struct pages of every section with RAM, all of them PAGE_HOLE. MM_ENOMEM: boot_alloc said no.
 * MM_EINVAL: config.direct_map is set and boot memory does not lie in it, upwards. */
mm_status_t memmap_boot(struct mm *mm, const struct mm_config *c) FS_MUST_CHECK;
/* The allocator gets what boot_alloc skipped to align the maps; and the maps are counted where they lie. For mm_boot_done(). */
void memmap_boot_done(struct mm *mm);

/* Every block of the section is offline: its struct pages go to the allocator. Returns how many pages came free; 0: it is not wholly gone, or they
 * do not lie in the guest's memory. pre: hotplug's lock, and no other */
uint64_t memmap_leave(struct mm *mm, uint32_t section);
/* Struct pages for a section without: its blocks stay offline. MM_ENOMEM: no 2 MiB block could be had, nothing has changed. May sleep.
 * pre: as above */
mm_status_t memmap_return(struct mm *mm, uint32_t section) FS_MUST_CHECK;

/* Is the block's section one that has RAM, whether it is here or gone? */
static inline bool memmap_known(const struct mm *mm, uint32_t block)
{
    return block / SECTION_BLOCKS < mm->section_count && mm->sections[block / SECTION_BLOCKS].blocks != NULL;
}
/* The page of the guest's memory in which struct page p lies. pre: mm->direct is set */
static inline pfn_t memmap_pfn(const struct mm *mm, const struct page *p)
{
    return pfn_make(((uintptr_t)p - (uintptr_t)mm->direct) / FS_PAGE_BYTES);
}
/* Pages of the guest that hold struct pages. */
static inline uint64_t memmap_pages(const struct mm *mm)
{
    uint64_t sum = 0;

    for (uint32_t n = 0; n < MM_NODES_MAX; n++) {
        sum += atomic_load_explicit(&mm->memmap_pages[n], memory_order_relaxed);
    }
    return sum;
}
/* Does a map of boot memory, of a section that has one still, reach into this page? */
bool memmap_boot_uses(const struct mm *mm, pfn_t pfn);

#endif
