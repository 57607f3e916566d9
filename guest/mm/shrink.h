/*
 * shrink.h - memory of the guest given to the machine, as much as is asked for, and taken again (Layer: L5).
 *
 * Whole sections first, then whole pageblocks, then the pages around what cannot move; always the highest first.
 */
#ifndef GUEST_MM_SHRINK_H
#define GUEST_MM_SHRINK_H

#include "hotplug.h"

/* X(name): why a page stays in a block of which everything else went. */
#define SHRINK_STAYS_LIST(X)                                                        \
    X(dma)      /* a device has its frame */                                        \
    X(boot)     /* there since boot: text, struct pages, the p2m */                 \
    X(table)    /* a page table */                                                  \
    X(kernel)   /* slab, stacks and whatever else the kernel has no reverse map of */ \
    X(busy)     /* movable, and held by somebody for the moment */
enum shrink_stays {
#define X(name) SHRINK_STAYS_##name,
    SHRINK_STAYS_LIST(X)
#undef X
    SHRINK_STAYS
};

struct shrink_result {
    uint64_t pages;                     /* given or taken */
    uint64_t blocks, single_pages;      /* of them: whole pageblocks, and pages of others */
    uint64_t machine_extents;           /* of the blocks: gone as one 2 MiB extent of the machine */
    uint64_t sections;                  /* of which the last page went, or of which all came back */
    uint64_t migrated_pages;
    uint64_t memmap_pages;              /* of struct pages: free in the guest because their sections went, or taken because they came */
    uint64_t residual_blocks;           /* left behind with the pages that stay */
    uint64_t stays[SHRINK_STAYS];       /* pages in them */
    bool low;                           /* more would have taken what the guest lives on */
};

/* Pages that could be given now: what is free above the watermarks, and what reclaim may get. A guess. */
uint64_t shrink_possible(const struct mm *mm);
/* Give want pages, or as many as can be; up to a pageblock less where that would leave single pages behind. May sleep. */
void shrink_pages(struct mm *mm, uint64_t want, const struct hotplug_ops *ops, struct shrink_result *out);
/* Take want of those pages again; fewer: none are left to take, or the machine has none, or (low) a section that left wholly would have to
 * come back and there are no 2 MiB for its struct pages. */
void grow_pages(struct mm *mm, uint64_t want, const struct hotplug_ops *ops, struct shrink_result *out);

#endif
