/*
 * hotplug.h - taking ranges of memory away from the guest and giving them back.
 *
 * What leaves is handed to a callback in whole pageblocks (2 MiB extents) where a block is free as a whole,
 * and in single pages from blocks that stay residual: there a few pages that cannot move remain in use, and everything
 * around them is gone.  The frames under those few are the hypervisor side's to move.
 *
 * A section (128 MiB) of which every block left needs no struct pages: their 2 MiB go to the allocator, and are taken again before its first
 * block comes back (memmap.h).  One range leaves or returns at a time; others wait.
 */
#ifndef GUEST_MM_HOTPLUG_H
#define GUEST_MM_HOTPLUG_H

#include "zone.h"

#define HOTPLUG_BLOCKS 16u
struct hotplug_ops {
    /* The pages [pfn, pfn + 2^order) have no owner any more: give their frames back. order: PAGEBLOCK_ORDER or 0.
     * MM_OK: they are gone. Anything else: they are still there. */
    mm_status_t (*give)(void *ctx, pfn_t pfn, unsigned order);
    /* The same for blocks whole pageblocks from pfn on, at most HOTPLUG_BLOCKS: how many of the first of them are gone, the others are still
     * there. NULL: give() one by one. */
    uint32_t (*give_blocks)(void *ctx, pfn_t pfn, uint32_t blocks);
    /* Put frames under the pages again. MM_OK: they may be used; contents undefined. */
    mm_status_t (*take)(void *ctx, pfn_t pfn, unsigned order);
    void *ctx;
    const uint64_t *machine_extents;    /* counted by give(): blocks that went as one 2 MiB extent of the machine; NULL: it does not tell */
};

struct hotplug_report {
    uint64_t extents, single_pages;     /* given or taken: whole blocks, and pages of residual blocks */
    uint64_t migrated_pages;
    uint64_t residual_blocks, residual_pages;   /* blocks that stay, and the pages in use in them */
    uint64_t memmap_pages;              /* pages of struct pages that went to the allocator, or were taken from it */
};

#define OFFLINE_RESIDUAL_OK 0x1u        /* pages that cannot move may stay */

/* Take [start, end) away. MM_EINVAL: not pageblocks of memory throughout; blocks that are gone already are passed over.
 * MM_EBUSY: *blocking cannot move (and OFFLINE_RESIDUAL_OK is not set): nothing was changed.
 * MM_EAGAIN: no room for what would have to move, somebody else has isolated a block of it just now, or give() said no: what was given stays
 * given and is in the report, the rest is in use as before; calling again goes on from there. */
mm_status_t memory_offline(struct mm *mm, pfn_t start, pfn_t end, unsigned flags, const struct hotplug_ops *ops,
                           struct hotplug_report *report, struct page **blocking) FS_MUST_CHECK;
/* Take the block before end away and those before it, as far as they are free as a whole, lie in its section and zone, and at most most of them,
 * of which it takes HOTPLUG_BLOCKS at once. MM_EBUSY: the first is not free; MM_EAGAIN: give() said no to some. The caller sets the watermarks. */
mm_status_t memory_offline_free(struct mm *mm, uint32_t end, uint32_t most, const struct hotplug_ops *ops, struct hotplug_report *report) FS_MUST_CHECK;
/* Bring back what memory_offline() took from [start, end). MM_EAGAIN: take() said no; MM_ENOMEM: no 2 MiB for the struct pages of a section that
 * left wholly. The report tells how far it came; nothing of the block, or section, that was refused has changed. */
mm_status_t memory_online(struct mm *mm, pfn_t start, pfn_t end, const struct hotplug_ops *ops, struct hotplug_report *report) FS_MUST_CHECK;

#endif
