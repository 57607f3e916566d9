/*
 * pcp.c - per-CPU lists of free units of order 0 to 3, and of whole movable blocks.
 *
 * Owns: struct pcp.
 * Invariants:
 *   I1  a unit on a list is PAGE_PCP, has refs 0, and its block has the list's type or both are kernel
 *       types: any other change of a block that is not free as a whole is followed by pcp_drain().
 *   I2  no unit of an isolated or a high-atomic block stays on a list.
 *   I3  count <= PCP_CAPACITY, and <= high of its order between calls.
 * Lock order: pcp lock, then zone lock.
 * Why: the common allocation touches one lock that no other CPU wants and one struct page.
 *   The lists are short on purpose: pages that wait here cannot merge, and a kernel page that is
 *   reused from here is not the lowest one.
 * Cost: hit: one uncontended exchange.  Every batch-th call takes the zone lock.
 */
#include "pcp.h"
#include "buddy.h"
#include "pageblock.h"
#include "frameshift/assert.h"

/* Up to a batch of units, as far as the zone stays above mark. True if there is work for the background. pre: pcp lock held */
FS_NOINLINE static bool refill(struct mm *mm, struct zone *z, struct pcp_list *l, unsigned order, enum migratetype type,
                               enum watermark mark, enum zone_kind class, gfp_t gfp)
{
    /* What a request takes from the reserve is for itself alone. */
    uint32_t batch = mark == WMARK_MIN || (gfp & __GFP_MEMALLOC) ? 1 : pcp_scaled(mm->pcp_batch, order, type, PCP_BLOCKS_BATCH);

    bool wanted;

    spin_lock(&z->lock);
    while (batch > 0 && !zone_watermark_ok(z, order, batch, mark, class, gfp)) {
        batch /= 2;
    }
    if (fs_likely(order < PAGEBLOCK_ORDER)) {
        l->count = buddy_alloc_bulk(mm, z, order, type, batch, l->pages);
    }
    for (struct page *p; order == PAGEBLOCK_ORDER && l->count < batch && (p = buddy_alloc(mm, z, order, type)) != NULL;) {
        page_set_word(p, PAGE_WORD(PAGE_PCP, order, type, 0));
        l->pages[l->count++] = p;
    }
    zone_count(z, ZC_pcp_refill, 1);
    wanted = zone_wants_spare(z, mm->claim_window) || zone_wants_home(z) != MIGRATE_TYPES;
    spin_unlock(&z->lock);
    return wanted;
}

struct page *pcp_alloc(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, enum watermark mark,
                       enum zone_kind class, gfp_t gfp)
{
    struct pcp *pcp = pcp_this(mm, z);
    struct pcp_list *l = &pcp->lists[pcp_index(order)][type];
    struct page *p = NULL;
    bool wanted = false;

    spin_lock(&pcp->lock);
    if (fs_unlikely(l->count == 0)) {
        wanted = refill(mm, z, l, order, type, mark, class, gfp);
    }
    if (fs_likely(l->count > 0)) {
        p = l->pages[--l->count];
    }
    spin_unlock(&pcp->lock);
    if (fs_unlikely(wanted) && mm->hooks.wake != NULL) {
        mm->hooks.wake(mm, z);
    }
    return p;
}

/* Give the oldest n units of a list back. pre: pcp lock held */
FS_NOINLINE static void flush(struct mm *mm, struct zone *z, struct pcp_list *l, unsigned order, uint32_t n)
{
    spin_lock(&z->lock);
    buddy_free_bulk(mm, z, l->pages, n, order);
    zone_count(z, ZC_pcp_flush, 1);
    spin_unlock(&z->lock);
    for (uint32_t i = n; i < l->count; i++) {
        l->pages[i - n] = l->pages[i];
    }
    l->count -= n;
}

/* pre: pcp lock held */
static inline void push(struct mm *mm, struct zone *z, struct pcp *pcp, struct page *p, unsigned order)
{
    enum migratetype type = pageblock_type(mm, page_block(p));      /* under the lock: I2 */
    struct pcp_list *l;

    if (fs_unlikely(type >= MIGRATE_PCP_TYPES || !pcp_serves(order, type))) {
        spin_lock(&z->lock);
        buddy_free(mm, z, p, order);
        spin_unlock(&z->lock);
        return;
    }
    l = &pcp->lists[pcp_index(order)][type];
    page_set_word(p, PAGE_WORD(PAGE_PCP, order, type, 0));
    l->pages[l->count++] = p;
    if (fs_unlikely(l->count >= pcp_scaled(mm->pcp_high, order, type, PCP_BLOCKS_HIGH))) {
        uint32_t batch = pcp_scaled(mm->pcp_batch, order, type, PCP_BLOCKS_BATCH);

        flush(mm, z, l, order, l->count < batch ? l->count : batch);
    }
}

void pcp_free(struct mm *mm, struct zone *z, struct page *p, unsigned order)
{
    struct pcp *pcp = pcp_this(mm, z);

    spin_lock(&pcp->lock);
    push(mm, z, pcp, p, order);
    spin_unlock(&pcp->lock);
}

void pcp_free_many(struct mm *mm, struct zone *z, struct page *const *pages, uint32_t n, unsigned order)
{
    struct pcp *pcp = pcp_this(mm, z);

    spin_lock(&pcp->lock);
    for (uint32_t i = 0; i < n; i++) {
        push(mm, z, pcp, pages[i], order);
    }
    spin_unlock(&pcp->lock);
}

void pcp_drain(struct mm *mm, struct zone *z)
{
    for (unsigned cpu = 0; cpu < mm->cpus; cpu++) {
        struct pcp *pcp = &z->pcp[cpu];

        spin_lock(&pcp->lock);
        for (unsigned i = 0; i < PCP_LISTS; i++) {
            for (unsigned t = 0; t < MIGRATE_PCP_TYPES; t++) {
                if (pcp->lists[i][t].count != 0) {
                    flush(mm, z, &pcp->lists[i][t], pcp_list_order(i), pcp->lists[i][t].count);
                }
            }
        }
        spin_unlock(&pcp->lock);
    }
}

uint64_t pcp_pages(const struct mm *mm, const struct zone *z)
{
    uint64_t n = 0;

    for (unsigned cpu = 0; cpu < mm->cpus; cpu++) {
        for (unsigned i = 0; i < PCP_LISTS; i++) {
            for (unsigned t = 0; t < MIGRATE_PCP_TYPES; t++) {
                n += (uint64_t)z->pcp[cpu].lists[i][t].count << pcp_list_order(i);
            }
        }
    }
    return n;
}
