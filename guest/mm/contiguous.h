/*
 * contiguous.h - regions for drivers: pages whose machine frames lie together (Layer: L2).
 *
 * A pfn range is contiguous for the kernel only; what a device is told are machine addresses, and these may be scattered. As Linux's
 * xen_create_contiguous_region(), one implementation for every machine: arch_frames_exchange() is all that it asks.
 */
#ifndef GUEST_MM_CONTIGUOUS_H
#define GUEST_MM_CONTIGUOUS_H

#include "gfp.h"
#include "zone.h"

struct contiguous {
    struct page *page;              /* NULL: none; the head of 2^order pages, PG_DMA */
    unsigned order;                 /* 0 to PAGEBLOCK_ORDER */
    unsigned address_bits;          /* every machine address is below 2^this; 0: no limit. At least FS_PAGE_SHIFT + order else */
    mfn_t frame;                    /* the first of 2^order frames, a multiple of their number */
    bool exchanged;                 /* the machine gave it for single frames: destroy gives it back */
};

/* Pages of our own over one piece of machine memory; contents are zero. The mover leaves them (FS_ABI_ENTRY_DMA). May sleep as gfp says;
 * gfp: no __GFP_MOVABLE. MM_EINVAL: no such order or address_bits. MM_ENOMEM: no such pages. MM_EAGAIN: the machine has no such piece now, or
 * somebody holds one of the frames that would have to go. On any error out->page is NULL and nothing was changed. */
mm_status_t contiguous_create(struct mm *mm, gfp_t gfp, unsigned order, unsigned address_bits, struct contiguous *out) FS_MUST_CHECK;
/* The device knows it no more: the pages are freed. The piece goes back to the machine for single frames, where create had it exchanged and the
 * machine has as many; else it stays under the pages. True: it went, or there was nothing to exchange. pre: r->page != NULL; NULL afterwards. */
bool contiguous_destroy(struct mm *mm, struct contiguous *r);
/* After a restore other frames are under the pages: a new piece, contents zero. MM_EAGAIN: there is none; contents stay, and the region
 * is none until it is destroyed. */
mm_status_t contiguous_restored(struct contiguous *r) FS_MUST_CHECK;
/* By the p2m: are the frames adjacent, aligned and below the limit, and the first one r->frame? */
bool contiguous_valid(const struct contiguous *r);

#endif
