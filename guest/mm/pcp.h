/*
 * pcp.h - per-CPU lists of free units of order 0 to 3, and of whole movable blocks.
 *
 * Units here are PAGE_PCP: free, but on no block's list.  They belong to no one and are
 * given back by pcp_drain().
 */
#ifndef GUEST_MM_PCP_H
#define GUEST_MM_PCP_H

#include "zone.h"

/* Are there lists for it? */
static inline bool pcp_serves(unsigned order, enum migratetype type)
{
    return order < PCP_ORDERS || (order == PAGEBLOCK_ORDER && type == MIGRATE_MOVABLE);
}

/* A unit of the type, refilled from the zone where the zone stays above mark; NULL else. It is PAGE_PCP still.
 * pre: pcp_serves(order, type), no lock held */
struct page *pcp_alloc(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, enum watermark mark,
                       enum zone_kind class, gfp_t gfp);
/* pre: refs 0, pcp_serves(order, the type that it was allocated for), no lock held */
void pcp_free(struct mm *mm, struct zone *z, struct page *p, unsigned order);
/* Give all units of all CPUs back to the zone. */
void pcp_drain(struct mm *mm, struct zone *z);
/* Pages on the zone's lists; exact only while nobody allocates. */
uint64_t pcp_pages(const struct mm *mm, const struct zone *z);

#endif
