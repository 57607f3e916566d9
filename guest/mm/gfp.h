/*
 * gfp.h - what a caller says about the page it asks for.
 *
 * Owns: gfp_t.  The allocator never guesses a caller's use: whoever can move or
 * reclaim what it puts into the page says so here, and a mapping carries its own mask.
 */
#ifndef GUEST_MM_GFP_H
#define GUEST_MM_GFP_H

#include <stdint.h>

typedef uint32_t gfp_t;

#define __GFP_DMA            0x0001u   /* from the DMA zone only */
#define __GFP_HIGHMEM        0x0002u   /* with __GFP_MOVABLE: the MOVABLE zone may serve */
#define __GFP_MOVABLE        0x0004u   /* can be migrated */
#define __GFP_RECLAIMABLE    0x0008u   /* a shrinker gives it back */
#define __GFP_HIGH           0x0010u   /* may use half of the reserve below min */
#define __GFP_ATOMIC         0x0020u   /* cannot sleep: may use a quarter of the rest too */
#define __GFP_DIRECT_RECLAIM 0x0040u   /* may reclaim and migrate on its own time */
#define __GFP_KSWAPD_RECLAIM 0x0080u   /* may wake the background threads */
#define __GFP_ZERO           0x0100u
#define __GFP_COMP           0x0200u   /* one unit, never split */
#define __GFP_MEMALLOC       0x0400u   /* below every watermark: it frees memory soon */
#define __GFP_THISNODE       0x0800u
#define __GFP_NORETRY        0x1000u
#define __GFP_ACCOUNT        0x2000u   /* charged to a process, freed at its end at the latest */

#define GFP_NOWAIT       (__GFP_KSWAPD_RECLAIM)
#define GFP_ATOMIC       (__GFP_HIGH | __GFP_ATOMIC | __GFP_KSWAPD_RECLAIM)
#define GFP_KERNEL       (__GFP_DIRECT_RECLAIM | __GFP_KSWAPD_RECLAIM)
#define GFP_DMA          (__GFP_DMA)
#define GFP_USER         GFP_KERNEL
#define GFP_HIGHUSER     (GFP_USER | __GFP_HIGHMEM)
#define GFP_HIGH_MOVABLE (GFP_HIGHUSER | __GFP_MOVABLE)
#define GFP_TRANSHUGE    (GFP_HIGH_MOVABLE | __GFP_COMP | __GFP_NORETRY)

#endif
