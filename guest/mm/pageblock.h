/*
 * pageblock.h - the free lists of one pageblock, and its migratetype.
 *
 * Owns: the lists of free units inside a block and the zone's free area bits for it.
 * pre of everything here but pageblock_init(): the zone lock is held (or nobody else runs yet).
 */
#ifndef GUEST_MM_PAGEBLOCK_H
#define GUEST_MM_PAGEBLOCK_H

#include "zone.h"

/* An empty block of movable type, offline. */
void pageblock_init(struct pageblock *pb);
void pageblock_count_reserved(struct mm *mm, uint32_t block);

/* Put the unit (which nobody holds) on its block's list; no merging. Counts free pages. */
void pageblock_link(struct mm *mm, struct zone *z, struct page *p, unsigned order);
/* Take a free unit off its list; its word becomes PAGE_NONE. */
void pageblock_unlink(struct mm *mm, struct zone *z, struct page *p, unsigned order);
/* Change the block's type; its free units go along. */
void pageblock_set_type(struct mm *mm, struct zone *z, uint32_t block, enum migratetype type);
static inline enum migratetype pageblock_type(const struct mm *mm, uint32_t block)
{
    return (enum migratetype)atomic_load_explicit(&mm_block(mm, block)->type, memory_order_relaxed);
}
/* The head of the first free unit of order in the block. pre: order_mask has it */
struct page *pageblock_first(const struct mm *mm, uint32_t block, unsigned order);
/* The head of the unit that the pfn lies in. pre: valid pfn */
struct page *page_head(const struct mm *mm, struct page *p);

#endif
