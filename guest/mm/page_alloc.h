/*
 * page_alloc.h - allocating and freeing pages.
 *
 * Source of the terms: Linux's page allocator.  A unit is 2^order pages, aligned to its size.
 */
#ifndef GUEST_MM_PAGE_ALLOC_H
#define GUEST_MM_PAGE_ALLOC_H

#include "zone.h"

/* A used unit with refs 1, or NULL. pre: order <= MAX_ORDER; not both __GFP_MOVABLE and __GFP_RECLAIMABLE. With
 * __GFP_DIRECT_RECLAIM it may migrate and reclaim; without, it never sleeps and calls no hook but wake.
 * __GFP_ZERO clears the pages. */
struct page *alloc_pages(struct mm *mm, gfp_t gfp, unsigned order);
struct page *alloc_pages_node(struct mm *mm, uint32_t node, gfp_t gfp, unsigned order);
/* The same from the nodes of the mask and no others, whatever happens: first from node (if it is one of them), then those around it. */
struct page *alloc_pages_nodemask(struct mm *mm, uint32_t node, nodemask_t nodes, gfp_t gfp, unsigned order);
/* The node of this CPU. */
uint32_t mm_local_node(const struct mm *mm);
static inline struct page *alloc_zeroed_page(struct mm *mm, gfp_t gfp) { return alloc_pages(mm, gfp | __GFP_ZERO, 0); }

/* What compaction captured (compact_result.captured) becomes the caller's, as if alloc_pages() had returned it. */
struct page *alloc_captured(struct page *captured, gfp_t gfp);

/* Drop one reference of a used unit's head; the last one frees the unit. */
void page_put(struct mm *mm, struct page *p);
/* The same for n units, each of whose lines is fetched while those before it are put: where pages are let go together and
 * in no order, as when a process ends, most of the time would be waiting for them. */
void page_put_many(struct mm *mm, struct page *const *pages, uint32_t n);
/* Frozen: for an owner who is alone and stays so. No reference can be taken (page_try_get() says no), so nobody moves the pages but by
 * their frames, and to free them needs no count: who frees does not wait for the struct page. As alloc_pages() and its last page_put(),
 * but pfn and order are the owner's to remember. A unit that is freed twice, or is not frozen, is noticed, but for orders below 4 up to
 * FREE_RING calls later. Flags of PG_RELEASE are not for frozen pages. */
struct page *alloc_frozen_pages(struct mm *mm, gfp_t gfp, unsigned order);
void free_frozen_pages(struct mm *mm, pfn_t pfn, unsigned order);
/* Cut a used unit into units of order, each with a reference of the owner's. pre: not PG_COMP, order < its order; the
 * owner keeps migrate_ops.move() off the unit meanwhile (it looks at the order again). */
void page_split(struct page *p, unsigned order);

enum migratetype gfp_migratetype(gfp_t gfp);
enum zone_kind gfp_zone_class(gfp_t gfp);

/* Give pages of per-CPU lists and of unused high-atomic blocks back. */
void mm_drain(struct mm *mm);

#endif
