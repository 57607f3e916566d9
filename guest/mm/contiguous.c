/*
 * contiguous.c - regions for drivers: pages whose machine frames lie together.
 *
 * Layer: L2
 * Owns: struct contiguous.
 * Invariants:
 *   I1  a region's pages are PG_DMA from before its frame is told to anybody until nobody needs it: no mover touches them.
 *   I2  frames are exchanged all or none: a refusal leaves frames and contents as they were.
 *   I3  a region never shows what was in its frames before: pages are zeroed when the frames are there.
 * Lock order: none; the pages are the caller's.
 * Why the exchange is the last way: a builder takes 2 MiB pieces where it can, so most pages lie right already; an exchange cuts such a
 *   block, which then leaves page by page at a shrink.
 * Cost: create: a look at 2^order p2m entries, and one exchange where they are not right.
 */
#include "contiguous.h"
#include "page_alloc.h"
#include "frameshift/assert.h"

static uint64_t region_pages(const struct contiguous *r)
{
    return 1ull << r->order;
}

static bool lies_right(const struct contiguous *r)
{
    uint64_t pages = region_pages(r), first = arch_pfn_mfn(page_pfn(r->page)).n;

    for (uint64_t i = 1; i < pages; i++) {
        if (arch_pfn_mfn(pfn_make(r->page->pfn + i)).n != first + i) {
            return false;
        }
    }
    return first % pages == 0 && (r->address_bits == 0 || first + pages <= 1ull << (r->address_bits - FS_PAGE_SHIFT));
}

/* One piece under the pages, zeroed. (I2, I3) */
static mm_status_t settle(struct contiguous *r)
{
    if (!lies_right(r)) {
        if (!arch_frames_exchange(page_pfn(r->page), r->order, true, r->address_bits)) {
            return MM_EAGAIN;
        }
        r->exchanged = true;
        ASSERT(lies_right(r));
    }
    r->frame = arch_pfn_mfn(page_pfn(r->page));
    for (uint64_t i = 0; i < region_pages(r); i++) {
        arch_page_clear(pfn_make(r->page->pfn + i));
    }
    return MM_OK;
}

mm_status_t contiguous_create(struct mm *mm, gfp_t gfp, unsigned order, unsigned address_bits, struct contiguous *out)
{
    struct contiguous r = { .order = order, .address_bits = address_bits, .frame = MFN_NONE };
    mm_status_t status;

    *out = (struct contiguous){ .frame = MFN_NONE };
    if (order > PAGEBLOCK_ORDER || (address_bits != 0 && (address_bits < FS_PAGE_SHIFT + order || address_bits > 63)) || (gfp & __GFP_MOVABLE) != 0) {
        return MM_EINVAL;
    }
    r.page = alloc_pages(mm, gfp | (order > 0 ? __GFP_COMP : 0u), order);
    if (r.page == NULL) {
        return MM_ENOMEM;
    }
    page_set_flags(r.page, PG_DMA);                         /* I1 */
    status = settle(&r);
    if (status != MM_OK) {
        page_clear_flags(r.page, PG_DMA);
        page_put(mm, r.page);
        return status;
    }
    *out = r;
    return MM_OK;
}

bool contiguous_destroy(struct mm *mm, struct contiguous *r)
{
    bool back = !r->exchanged || r->order == 0 || !lies_right(r) || arch_frames_exchange(page_pfn(r->page), r->order, false, 0);

    page_clear_flags(r->page, PG_DMA);
    page_put(mm, r->page);
    *r = (struct contiguous){ .frame = MFN_NONE };
    return back;
}

mm_status_t contiguous_restored(struct contiguous *r)
{
    r->exchanged = false;
    return settle(r);
}

bool contiguous_valid(const struct contiguous *r)
{
    return lies_right(r) && mfn_eq(arch_pfn_mfn(page_pfn(r->page)), r->frame);
}
