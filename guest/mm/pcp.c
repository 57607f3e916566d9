/*
 * pcp.c - per-CPU lists of free units of order 0 to 3, and of whole movable blocks.
 *
 * Owns: struct pcp, struct free_ring.
 * Invariants:
 *   I1  a unit on a list is PAGE_PCP, has refs 0, and its block has the list's type or both are kernel
 *       types: any other change of a block that is not free as a whole is followed by pcp_drain().
 *   I2  no unit of an isolated or a high-atomic block stays on a list or in a ring.
 *   I3  count <= PCP_CAPACITY, and <= high of its order between calls.
 *   I4  a unit in a ring is PAGE_FROZEN still: to everybody but its last owner it is in use, until it settles on a list.
 * Lock order: ring lock, pcp lock, zone lock; cpu_blocks.c has what comes under that.
 * Why: the common allocation touches one lock that no other CPU wants and one struct page.
 *   The lists are short on purpose: pages that wait here cannot merge, and a kernel page that is
 *   reused from here is not the lowest one.
 *   Frozen units wait in a ring first, by number: who frees one asks for its struct page and its block and goes on; what
 *   must be written there is written when the lines have come.  Nobody can wait for a reference count in that way.
 * Cost: hit: one uncontended exchange.  Every batch-th call takes the zone lock, or only that of the CPU's own blocks (cpu_blocks.c).
 */
#include "pcp.h"
#include "buddy.h"
#include "cpu_blocks.h"
#include "pageblock.h"
#include "frameshift/assert.h"

/* Up to a batch of units, as far as the zone stays above mark. True if there is work for the background. pre: pcp lock held */
FS_NOINLINE static bool refill(struct mm *mm, struct zone *z, struct pcp_list *l, unsigned order, enum migratetype type,
                               enum watermark mark, enum zone_kind class, gfp_t gfp)
{
    /* What a request takes from the reserve is for itself alone. */
    uint32_t batch = mark == WMARK_MIN || (gfp & __GFP_MEMALLOC) ? 1 : pcp_batch(mm, order, type);

    struct cpu_blocks *c = cpu_blocks_this(z);
    bool wanted = false;

    if (fs_unlikely(cpu_blocks_wanted(c)) && type == MIGRATE_MOVABLE && order < PCP_ORDERS) {
        l->count = cpu_blocks_alloc(mm, z, c, order, batch, mark, class, gfp, l->pages, &wanted);
        if (l->count > 0) {
            return wanted;
        }
    }
    zone_lock_outside(z, c);
    zone_lock_rest(z);
    while (batch > 0 && !zone_watermark_ok(z, order, batch, mark, class, gfp)) {
        batch /= 2;
    }
    l->count = order < PAGEBLOCK_ORDER ? buddy_alloc_bulk(mm, z, order, type, batch, l->pages) : buddy_alloc_whole_bulk(mm, z, batch, l->pages);
    zone_count(z, ZC_pcp_refill, 1);
    wanted = zone_wants_spare(z, mm->claim_window) || zone_wants_home(z) != MIGRATE_TYPES;
    zone_unlock(z);
    return wanted;
}

struct page *pcp_alloc(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, enum watermark mark,
                       enum zone_kind class, gfp_t gfp)
{
    struct pcp *pcp = pcp_this(mm, z);
    struct pcp_list *l = &pcp->lists[pcp_index(order)][type];
    struct page *p = NULL;
    bool wanted = false;

    pcp_settle(mm);                             /* what comes back goes out first */
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

static bool any_owned(const struct zone *z, struct page *const *pages, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (blockmap_test(&z->owned, block_position(z, page_block(pages[i])))) {
            return true;
        }
    }
    return false;
}

/* A batch of units goes to its blocks. The array is used up. */
static void give_back(struct mm *mm, struct zone *z, struct page **pages, uint32_t n, unsigned order)
{
    struct cpu_blocks *c = cpu_blocks_this(z);
    bool own = order == 0 && fs_unlikely(cpu_blocks_wanted(c));

    if (own) {
        n = cpu_blocks_free(mm, z, c, pages, n);
        if (n == 0) {
            return;
        }
    }
    zone_lock_outside(z, c);
    if (fs_unlikely(atomic_load_explicit(&z->owned_blocks, memory_order_relaxed) != 0) && any_owned(z, pages, n)) {
        cpu_blocks_hold(z);
    }
    buddy_free_bulk(mm, z, pages, n, order);
    zone_count(z, ZC_pcp_flush, 1);
    if (own) {
        cpu_blocks_let_go(z);
        cpu_blocks_adopt(mm, z, c, pages, n);
    }
    zone_unlock(z);
}

/* Give the oldest n units of a list back. pre: pcp lock held */
FS_NOINLINE static void flush(struct mm *mm, struct zone *z, struct pcp_list *l, unsigned order, uint32_t n)
{
    give_back(mm, z, l->pages, n, order);
    for (uint32_t i = n; i < l->count; i++) {
        l->pages[i - n] = l->pages[i];
    }
    l->count -= n;
}

/* pre: pcp lock held */
FS_ALWAYS_INLINE static inline void push(struct mm *mm, struct zone *z, struct pcp *pcp, struct page *p, unsigned order)
{
    enum migratetype type = pageblock_type(mm, page_block(p));      /* under the lock: I2 */
    struct pcp_list *l;

    if (fs_unlikely(type >= MIGRATE_PCP_TYPES || !pcp_serves(order, type))) {
        zone_lock(z);
        buddy_free(mm, z, p, order);
        zone_unlock(z);
        return;
    }
    l = &pcp->lists[pcp_index(order)][type];
    page_set_word(p, PAGE_WORD(PAGE_PCP, order, type, 0));
    l->pages[l->count++] = p;
    if (fs_unlikely(l->count >= pcp_high(mm, order, type))) {
        uint32_t batch = pcp_batch(mm, order, type);

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

/* There is a batch of pages of order 0 already: more of them go to the zone at once, and not by way of a list that would have to be flushed. */
static inline bool list_is_full(const struct mm *mm, const struct pcp *pcp, enum migratetype type)
{
    return type >= MIGRATE_PCP_TYPES || pcp->lists[0][type].count >= pcp_batch(mm, 0, type);
}

/* The oldest n units of a ring. pre: the ring's lock held, no other */
FS_NOINLINE static void settle(struct mm *mm, struct free_ring *r, uint32_t n)
{
    uint32_t left = atomic_load_explicit(&r->count, memory_order_relaxed) - n, i = 0;

    while (i < n) {
        struct zone *z = mm_block_zone(mm, pfn_block(pfn_make(r->pfns[i])));
        struct pcp *pcp = pcp_this(mm, z);

        struct page *back[FREE_RING];
        uint32_t backs = 0;

        spin_lock(&pcp->lock);
        do {
            struct page *p = mm_page(mm, pfn_make(r->pfns[i++]));
            uint32_t w = page_word(p);

            ASSERT_CMP(word_state(w), ==, PAGE_FROZEN);         /* freed twice, or not frozen */
            if (word_order(w) == 0 && list_is_full(mm, pcp, pageblock_type(mm, page_block(p)))) {
                back[backs++] = p;
            } else {
                push(mm, z, pcp, p, word_order(w));
            }
        } while (i < n && mm_block_zone(mm, pfn_block(pfn_make(r->pfns[i]))) == z);
        if (backs > 0) {
            give_back(mm, z, back, backs, 0);
        }
        spin_unlock(&pcp->lock);
    }
    for (i = 0; i < left; i++) {
        r->pfns[i] = r->pfns[n + i];
    }
    atomic_store_explicit(&r->count, (uint8_t)left, memory_order_relaxed);
}

static inline struct free_ring *ring_this(const struct mm *mm)
{
    unsigned cpu = arch_cpu_id();

    return &mm->rings[cpu < mm->cpus ? cpu : 0];
}

void pcp_settle(struct mm *mm)
{
    struct free_ring *r = ring_this(mm);

    if (atomic_load_explicit(&r->count, memory_order_relaxed) != 0) {
        spin_lock(&r->lock);
        settle(mm, r, atomic_load_explicit(&r->count, memory_order_relaxed));
        spin_unlock(&r->lock);
    }
}

/* A block that does not keep pages on lists (I2). The ring's lock is held: whoever gave it that type drains the ring after us. */
FS_NOINLINE static void free_past_ring(struct mm *mm, struct free_ring *r, struct page *p)
{
    struct zone *z = mm_block_zone(mm, page_block(p));

    ASSERT_CMP(page_state(p), ==, PAGE_FROZEN);
    spin_unlock(&r->lock);
    pcp_free(mm, z, p, page_order(p));
}

/* The older half was asked for when it was the younger one. All at once, because the lock of the next call waits for what is still on
 * its way through the TLB. */
FS_NOINLINE static void ring_full(struct mm *mm, struct free_ring *r)
{
    for (uint32_t i = FREE_RING / 2; i < FREE_RING; i++) {
        __builtin_prefetch(mm_page(mm, pfn_make(r->pfns[i])), 1);
    }
    settle(mm, r, FREE_RING / 2);
}

void pcp_free_frozen(struct mm *mm, pfn_t pfn)
{
    struct free_ring *r = ring_this(mm);
    struct page *p = mm_page(mm, pfn);
    struct pageblock *pb = mm_block(mm, pfn_block(pfn));
    uint32_t n;

    __builtin_prefetch(pb);
    spin_lock(&r->lock);
    if (fs_unlikely(atomic_load_explicit(&pb->type, memory_order_relaxed) >= MIGRATE_PCP_TYPES)) {
        free_past_ring(mm, r, p);
        return;
    }
    n = atomic_load_explicit(&r->count, memory_order_relaxed);
    r->pfns[n] = (uint32_t)pfn.n;
    atomic_store_explicit(&r->count, (uint8_t)(n + 1), memory_order_relaxed);
    if (fs_unlikely(n + 1 == FREE_RING)) {
        ring_full(mm, r);
    }
    spin_unlock(&r->lock);
}

void pcp_drain(struct mm *mm, struct zone *z)
{
    for (unsigned cpu = 0; cpu < mm->cpus; cpu++) {
        spin_lock(&mm->rings[cpu].lock);        /* even if it is empty: its CPU may be about to add what it saw before (I2) */
        settle(mm, &mm->rings[cpu], atomic_load_explicit(&mm->rings[cpu].count, memory_order_relaxed));          /* onto this CPU's lists */
        spin_unlock(&mm->rings[cpu].lock);
    }
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
        const struct free_ring *r = &mm->rings[cpu];

        for (unsigned i = 0; i < atomic_load_explicit(&r->count, memory_order_relaxed); i++) {
            pfn_t pfn = pfn_make(r->pfns[i]);

            n += mm_block_zone(mm, pfn_block(pfn)) == z ? 1ull << page_order(mm_page(mm, pfn)) : 0;
        }
        for (unsigned i = 0; i < PCP_LISTS; i++) {
            for (unsigned t = 0; t < MIGRATE_PCP_TYPES; t++) {
                n += (uint64_t)z->pcp[cpu].lists[i][t].count << pcp_list_order(i);
            }
        }
    }
    return n;
}
