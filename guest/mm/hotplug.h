/*
 * hotplug.h - taking ranges of memory away from the guest and giving them back.
 *
 * What leaves is handed to a callback in whole pageblocks (2 MiB extents) where a block is free as a whole,
 * and in single pages from blocks that stay residual: there a few pages that cannot move remain in use, and everything
 * around them is gone.  The frames under those few are the hypervisor side's to move.
 */
#ifndef GUEST_MM_HOTPLUG_H
#define GUEST_MM_HOTPLUG_H

#include "zone.h"

struct hotplug_ops {
    /* The pages [pfn, pfn + 2^order) have no owner any more: give their frames back. order: PAGEBLOCK_ORDER or 0.
     * MM_OK: they are gone. Anything else: they are still there. */
    mm_status_t (*give)(void *ctx, pfn_t pfn, unsigned order);
    /* Put frames under the pages again. MM_OK: they may be used; contents undefined. */
    mm_status_t (*take)(void *ctx, pfn_t pfn, unsigned order);
    void *ctx;
    const uint64_t *machine_extents;    /* counted by give(): blocks that went as one 2 MiB extent of the machine; NULL: it does not tell */
};

struct hotplug_report {
    uint64_t extents, single_pages;     /* given or taken: whole blocks, and pages of residual blocks */
    uint64_t migrated_pages;
    uint64_t residual_blocks, residual_pages;   /* blocks that stay, and the pages in use in them */
};

#define OFFLINE_RESIDUAL_OK 0x1u        /* pages that cannot move may stay */

/* Take [start, end) away. MM_EINVAL: not pageblocks of memory throughout; blocks that are gone already are passed over.
 * MM_EBUSY: *blocking cannot move (and OFFLINE_RESIDUAL_OK is not set): nothing was changed.
 * MM_EAGAIN: no room for what would have to move, or give() said no: what was given stays given and is in the report, the
 * rest is in use as before; calling again goes on from there. */
mm_status_t memory_offline(struct mm *mm, pfn_t start, pfn_t end, unsigned flags, const struct hotplug_ops *ops,
                           struct hotplug_report *report, struct page **blocking) FS_MUST_CHECK;
/* Take one block away if it is free as a whole; MM_EBUSY: it is not. MM_EAGAIN: give() said no. The caller sets the watermarks. */
mm_status_t memory_offline_free(struct mm *mm, uint32_t block, const struct hotplug_ops *ops, struct hotplug_report *report) FS_MUST_CHECK;
/* Bring back what memory_offline() took from [start, end). MM_EAGAIN: take() said no; the report tells how far it came. */
mm_status_t memory_online(struct mm *mm, pfn_t start, pfn_t end, const struct hotplug_ops *ops, struct hotplug_report *report) FS_MUST_CHECK;

#endif
