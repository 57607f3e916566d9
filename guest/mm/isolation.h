/*
 * isolation.h - taking a range of pageblocks out of use.
 *
 * Isolation is a state of the pageblock (MIGRATE_ISOLATE): its free pages are not handed out, and what is
 * freed in it stays free.  Requests that overlap are merged by counting: a block is back in use
 * when the last request for it is undone.
 */
#ifndef GUEST_MM_ISOLATION_H
#define GUEST_MM_ISOLATION_H

#include "zone.h"

#define ISOLATE_RESIDUAL 0x1u       /* pages that cannot move are no obstacle: the range is to be left residual */

/* Isolate every block of [start, end). MM_EINVAL: empty, not aligned to pageblocks, or not memory of zones throughout.
 * MM_EBUSY: *blocking is the first page that can never leave, or the first of a block whose frames are being given back; nothing is isolated.
 * blocking may be NULL.
 * Pages of movable types stay where they are: moving them out is the caller's next step. */
mm_status_t isolate_range(struct mm *mm, pfn_t start, pfn_t end, unsigned flags, struct page **blocking) FS_MUST_CHECK;
/* Undo one isolate_range() of exactly this range. MM_EINVAL: it is not isolated throughout; nothing is changed. */
mm_status_t isolate_undo(struct mm *mm, pfn_t start, pfn_t end) FS_MUST_CHECK;
/* Undo one isolation of a block and, before anybody else can, take a unit of order for type out of it: PAGE_PCP, refs 0. NULL: somebody else
 * isolates it still, or it has no such unit (for kernel types, and units larger than a block: unless it is free as a whole; then it
 * becomes theirs). pre: the block is isolated */
struct page *isolate_undo_take(struct mm *mm, uint32_t block, unsigned order, enum migratetype type);
/* MM_OK: everything in the range is free and isolated. MM_EBUSY: *blocking is the first page in use.
 * MM_EINVAL as above, or not isolated. */
mm_status_t isolate_test(struct mm *mm, pfn_t start, pfn_t end, struct page **blocking) FS_MUST_CHECK;

/* Can the unit be migrated, as far as its state tells? p is a head of any state; free units can. */
bool page_may_move(const struct page *p);
/* The first unit of the block that cannot leave by migration, or NULL. A hint unless the block is isolated. */
struct page *block_immovable_page(const struct mm *mm, uint32_t block);

#endif
