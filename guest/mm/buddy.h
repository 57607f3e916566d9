/*
 * buddy.h - units of 2^order pages, split and merged, by migratetype.
 *
 * pre of all: the zone lock is held.  A unit that comes back is PAGE_NONE with refs 0: the
 * caller makes it PAGE_USED or PAGE_PCP before it lets the lock go.
 */
#ifndef GUEST_MM_BUDDY_H
#define GUEST_MM_BUDDY_H

#include "zone.h"

/* From blocks of the type itself; where it has none, from a block that is free as a whole, which then
 * changes to the type (kernel types).  NULL: neither exists. */
struct page *buddy_alloc(struct mm *mm, struct zone *z, unsigned order, enum migratetype type);

/* Up to n units at once, as PAGE_PCP, each as buddy_alloc() would choose it; returns how many. pre: order < PCP_ORDERS */
uint32_t buddy_alloc_bulk(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, uint32_t n, struct page **out);

/* Up to n whole blocks for movable pages at once, as PAGE_PCP, each as buddy_alloc() would choose it; returns how many. */
uint32_t buddy_alloc_whole_bulk(struct mm *mm, struct zone *z, uint32_t n, struct page **out);

/* Which foreign blocks a request may take from, in this order. */
#define FALLBACK_KERNEL  0x1u       /* one kernel type from another */
#define FALLBACK_TENANT  0x2u       /* movable from kernel blocks */
#define FALLBACK_MOVABLE 0x4u       /* kernel types from movable blocks: pollutes */
/* From the largest free unit of a foreign block. */
struct page *buddy_alloc_fallback(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, unsigned allowed);

/* A free unit of at least order in this block (the smallest), cut to order; NULL if it has none. */
struct page *buddy_alloc_block(struct mm *mm, struct zone *z, uint32_t block, unsigned order);

/* Give a unit back: it merges with its free buddies inside its pageblock. pre: refs 0, on no list, order <= MAX_ORDER */
void buddy_free(struct mm *mm, struct zone *z, struct page *p, unsigned order);
/* The same for n units of one order <= PAGEBLOCK_ORDER; neighbours in the list that share a block are cheaper. */
void buddy_free_bulk(struct mm *mm, struct zone *z, struct page *const *units, uint32_t n, unsigned order);

/* For cpu_blocks.c, without the zone's lock but with that of own, and uncounted. Of a batch, up to n movable units out of an own block. */
uint32_t buddy_alloc_own(struct mm *mm, struct zone *z, struct cpu_blocks *own, uint32_t block, unsigned order, uint32_t n, uint32_t batch,
                         struct page **out);
/* The first pages of n that are of this own block are free; how many these are. pre: the first one is */
struct free_sum;
uint32_t buddy_free_own(struct mm *mm, struct zone *z, struct cpu_blocks *own, uint32_t block, struct page *const *pages, uint32_t n,
                        struct free_sum *sum);

/* A movable page is about to live in this kernel block. */
void buddy_mark_tenants(struct mm *mm, struct zone *z, uint32_t block);

/* The first block of zone that is free as a whole and belongs to nobody, from a position on; BLOCK_NONE if there is none. */
uint32_t buddy_whole_block(const struct zone *z, uint32_t position);

#endif
