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

static inline struct pcp *pcp_this(const struct mm *mm, const struct zone *z)
{
    unsigned cpu = arch_cpu_id();

    return &z->pcp[cpu < mm->cpus ? cpu : 0];
}
/* Of n units of order 0, how many of this kind, and at most so many whole blocks. Kernel types keep a quarter: what is
 * reused from here is not in the lowest block. */
static inline uint32_t pcp_scaled(uint32_t n, unsigned order, enum migratetype type, uint32_t blocks)
{
    if (fs_unlikely(order == PAGEBLOCK_ORDER)) {
        return n >= blocks ? blocks : n;
    }
    n >>= type == MIGRATE_MOVABLE ? (order < 2 ? order : 2) : order + 2;
    return n > 0 ? n : 1;
}

/* What a list is refilled with and gives back at once, and how many units it holds at most. Where a batch is 32 pages there is so much memory
 * that twice the blocks may wait. */
static inline uint32_t pcp_batch(const struct mm *mm, unsigned order, enum migratetype type)
{
    return pcp_scaled(mm->pcp_batch, order, type, mm->pcp_batch < 32 ? PCP_BLOCKS_BATCH : 2 * PCP_BLOCKS_BATCH);
}
static inline uint32_t pcp_high(const struct mm *mm, unsigned order, enum migratetype type)
{
    return pcp_scaled(mm->pcp_high, order, type, mm->pcp_batch < 32 ? PCP_BLOCKS_HIGH : 2 * PCP_BLOCKS_HIGH);
}

/* A unit that waits on this CPU, PAGE_PCP still; NULL: none does. pre: pcp_serves(order, type), no lock held */
static inline struct page *pcp_pop(const struct mm *mm, const struct zone *z, unsigned order, enum migratetype type)
{
    struct pcp *pcp = pcp_this(mm, z);
    struct pcp_list *l = &pcp->lists[pcp_index(order)][type];
    struct page *p = NULL;

    spin_lock(&pcp->lock);
    if (fs_likely(l->count > 0)) {
        p = l->pages[--l->count];
    }
    spin_unlock(&pcp->lock);
    return p;
}
/* The same; an empty list is refilled from the zone where the zone stays above mark. */
struct page *pcp_alloc(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, enum watermark mark,
                       enum zone_kind class, gfp_t gfp);
/* pre: refs 0, pcp_serves(order, the type that it was allocated for), no lock held */
void pcp_free(struct mm *mm, struct zone *z, struct page *p, unsigned order);
void pcp_free_many(struct mm *mm, struct zone *z, struct page *const *pages, uint32_t n, unsigned order);
/* A frozen unit of order < PCP_ORDERS; it waits in this CPU's ring as PAGE_FROZEN before it gets to a list. pre: no lock held */
void pcp_free_frozen(struct mm *mm, pfn_t pfn);
/* What waits in this CPU's ring goes to the lists. pre: no lock held */
void pcp_settle(struct mm *mm);
/* Give all units of all CPUs, rings included, back to the zone. */
void pcp_drain(struct mm *mm, struct zone *z);
/* Pages on the zone's lists and in rings; exact only while nobody allocates. */
uint64_t pcp_pages(const struct mm *mm, const struct zone *z);

#endif
