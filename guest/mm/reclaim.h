/*
 * reclaim.h - getting pages back: page cache, swap, slabs.
 *
 * Layer: L4.  The same watermarks as the allocator's: below low the background works until high, and movable blocks
 * keep their share of that; who finds nothing above min reclaims himself.
 */
#ifndef GUEST_MM_RECLAIM_H
#define GUEST_MM_RECLAIM_H

#include "vm.h"

#define RECLAIM_CLEAN_ONLY 0x1u     /* only what costs nothing to drop: clean page cache that nobody maps */
#define RECLAIM_NO_SLAB    0x2u

#define RECLAIM_SWAPPINESS 60u      /* of 200: how much harder file pages are looked at than anonymous ones */

/* Sets mm->hooks.reclaim. pre: vm->lru, vm->pagecache; vm->swap may come later, or never */
void reclaim_init(struct vm *vm);

/* What kswapd does when it is woken for a zone: nothing above low, else as much as brings it above high (or all that can be had).
 * Returns pages. May sleep. */
uint64_t reclaim_background(struct vm *vm, struct zone *z);
/* Is there work for it? */
bool reclaim_wanted(struct zone *z);
/* Reclaim at least so many pages of a zone if they can be had; returns how many. May sleep. */
uint64_t reclaim_zone(struct vm *vm, struct zone *z, uint64_t pages, gfp_t gfp);
/* Lumpy: everything in [start, end) that can go, however often it is used; returns pages. */
uint64_t reclaim_range(struct vm *vm, pfn_t start, pfn_t end, unsigned flags);

#endif
