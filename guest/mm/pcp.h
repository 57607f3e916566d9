/*
 * pcp.h - per-CPU lists of free units of order 0 to 3.
 *
 * Units here are PAGE_PCP: free, but on no block's list.  They belong to no one and are
 * given back by pcp_drain().
 */
#ifndef GUEST_MM_PCP_H
#define GUEST_MM_PCP_H

#include "zone.h"

/* A unit of the type, refilled from the zone where the zone stays above mark; NULL else. It is PAGE_PCP still.
 * pre: order < PCP_ORDERS, type < MIGRATE_PCP_TYPES, no lock held */
struct page *pcp_alloc(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, enum watermark mark,
                       enum zone_kind class, gfp_t gfp);
/* pre: refs 0, no lock held */
void pcp_free(struct mm *mm, struct zone *z, struct page *p, unsigned order);
/* Give all units of all CPUs back to the zone. */
void pcp_drain(struct mm *mm, struct zone *z);
/* Pages on the zone's lists; exact only while nobody allocates. */
uint64_t pcp_pages(const struct mm *mm, const struct zone *z);

#endif
