/*
 * page_alloc.c - allocating and freeing pages: zone order, watermarks, the slow path.
 *
 * Owns: the order in which a request's possibilities are tried; the high-atomic reserve.
 * Invariants:
 *   I1  a unit that leaves here is PAGE_USED with its order and the caller's type, refs 1; or PAGE_FROZEN, refs 0.
 *   I2  blocks of MIGRATE_HIGHATOMIC cover at most 1% of the zone (one block in a small zone).
 *   I3  no lock is held while a hook runs or a page is cleared.
 *   I4  every step of a request takes from the zones of its list alone, so a node mask holds in the slow path, in reclaim and in fallbacks too.
 * Lock order: ring lock, per-CPU list lock, zone lock (pcp.c).
 * Why: a kernel page in a block of movable pages keeps that block from ever being whole again, so
 *   it is the last thing tried: before it come a whole free block, clearing one by migration,
 *   the other kernel type and the reserve.  A movable page in a kernel block can be moved out
 *   again (a tenant), but costs a copy, so it comes after reclaim.
 * Cost: the fast path is one per-CPU list operation.
 */
#include "page_alloc.h"
#include "buddy.h"
#include "fragmentation.h"
#include "pageblock.h"
#include "pcp.h"
#include "frameshift/assert.h"

#define SLOW_TRIES 8u

enum migratetype gfp_migratetype(gfp_t gfp)
{
    if (gfp & __GFP_MOVABLE) {
        return MIGRATE_MOVABLE;
    }
    if (gfp & __GFP_RECLAIMABLE) {
        return MIGRATE_RECLAIMABLE;
    }
    return gfp & __GFP_ACCOUNT ? MIGRATE_ACCOUNTED : MIGRATE_UNMOVABLE;
}

enum zone_kind gfp_zone_class(gfp_t gfp)
{
    if (gfp & __GFP_DMA) {
        return ZONE_DMA;
    }
    return (gfp & (__GFP_MOVABLE | __GFP_HIGHMEM)) == (__GFP_MOVABLE | __GFP_HIGHMEM) ? ZONE_MOVABLE : ZONE_NORMAL;
}

/* One request on its way. */
struct request {
    gfp_t gfp;
    unsigned order;
    enum migratetype type;
    enum zone_kind class;
    enum page_state state;              /* PAGE_USED, or PAGE_FROZEN */
    uint32_t node;
    const uint8_t *zonelist;
};

static struct zone *request_zone(const struct mm *mm, const struct request *r, unsigned i)
{
    struct zone *z;

    if (i >= MM_ZONES_MAX || r->zonelist[i] == 0xff) {
        return NULL;
    }
    z = &mm->zones[r->zonelist[i]];
    return (r->gfp & __GFP_THISNODE) && z->node != r->node ? NULL : z;
}

/* From the lists of the request's own type. */
static struct page *try_own(struct mm *mm, const struct request *r, enum watermark mark)
{
    struct zone *z;

    for (unsigned i = 0; (z = request_zone(mm, r, i)) != NULL; i++) {
        struct page *p = NULL;

        if (pcp_serves(r->order, r->type)) {
            p = pcp_alloc(mm, z, r->order, r->type, mark, r->class, r->gfp);
        } else if (zone_watermark_ok(z, r->order, 1, mark, r->class, r->gfp)) {
            zone_lock(z);
            p = buddy_alloc(mm, z, r->order, r->type);
            zone_unlock(z);
        }
        if (fs_likely(p != NULL)) {
            return p;
        }
    }
    return NULL;
}

/* Hold the block of a served high-order atomic request back for the next ones (I2). */
static void highatomic_reserve(struct mm *mm, struct zone *z, struct page *p)
{
    uint64_t limit = (z->managed_pages / 100) >> PAGEBLOCK_ORDER;

    zone_lock(z);
    if (z->blocks_of[MIGRATE_HIGHATOMIC] < (limit > 1 ? limit : 1)
        && (pageblock_type(mm, page_block(p)) == MIGRATE_UNMOVABLE || pageblock_type(mm, page_block(p)) == MIGRATE_ACCOUNTED)) {
        pageblock_set_type(mm, z, page_block(p), MIGRATE_HIGHATOMIC);
        zone_count(z, ZC_highatomic_reserve, 1);
    }
    zone_unlock(z);
    pcp_drain(mm, z);
}

static struct page *try_highatomic(struct mm *mm, const struct request *r)
{
    struct zone *z;

    for (unsigned i = 0; (z = request_zone(mm, r, i)) != NULL; i++) {
        struct page *p = NULL;

        zone_lock(z);
        if (zone_watermark_ok(z, r->order, 1, WMARK_MIN, r->class, r->gfp)) {
            p = buddy_alloc(mm, z, r->order, MIGRATE_HIGHATOMIC);
        }
        zone_unlock(z);
        if (p != NULL) {
            return p;
        }
    }
    return NULL;
}

/* Turn high-atomic blocks back into kernel blocks; true if there was one. */
static bool highatomic_release(struct mm *mm, struct zone *z)
{
    bool any = false;

    zone_lock(z);
    for (uint32_t b = z->first_block; b < z->end_block && z->blocks_of[MIGRATE_HIGHATOMIC] > 0; b++) {
        if (mm_pfn_valid(mm, block_pfn(b)) && pageblock_type(mm, b) == MIGRATE_HIGHATOMIC) {
            bool whole = mm_block(mm, b)->free_pages == PAGEBLOCK_PAGES;

            pageblock_set_type(mm, z, b, whole ? MIGRATE_MOVABLE : MIGRATE_UNMOVABLE);
            zone_count(z, ZC_highatomic_release, 1);
            any = true;
        }
    }
    zone_unlock(z);
    return any;
}

static struct page *try_foreign(struct mm *mm, const struct request *r, unsigned allowed)
{
    struct zone *z;

    for (unsigned i = 0; (z = request_zone(mm, r, i)) != NULL; i++) {
        struct page *p = NULL;
        bool claimed = false;

        zone_lock(z);
        if (zone_watermark_ok(z, r->order, 1, WMARK_MIN, r->class, r->gfp)) {
            p = buddy_alloc_fallback(mm, z, r->order, r->type, allowed);
            claimed = p != NULL && mm_block(mm, page_block(p))->flags & PB_CLAIMED;
        }
        zone_unlock(z);
        if (claimed) {
            pcp_drain(mm, z);           /* the block changed its type with pages on the lists */
        }
        if (p != NULL) {
            return p;
        }
    }
    return NULL;
}

/* Is the zone's trouble a lack of memory (and not that it lies in pieces)? The same marks and the same index for everybody: thread 002. */
static bool memory_short(const struct mm *mm, struct zone *z, const struct request *r, bool enough)
{
    bool is_short = !enough;

    if (enough && r->order > 0) {
        zone_lock(z);
        is_short = !zone_compaction_helps(z, r->order, mm->extfrag_threshold);
        zone_unlock(z);
    }
    return is_short;
}

/* Make room on the caller's own time; true if something was gained. *captured: what it came for, or NULL. */
static bool make_room(struct mm *mm, const struct request *r, struct page **captured)
{
    struct zone *z;

    for (unsigned i = 0; (z = request_zone(mm, r, i)) != NULL; i++) {
        bool enough = zone_watermark_ok(z, r->order, 1, WMARK_MIN, r->class, r->gfp);

        if (enough && r->type != MIGRATE_MOVABLE && r->order <= PAGEBLOCK_ORDER && mm->hooks.clear_block != NULL
            && mm->hooks.clear_block(mm, z, r->order, r->type, captured)) {
            return true;
        }
        if (enough && r->order > 0 && mm->hooks.compact != NULL && mm->hooks.compact(mm, z, r->order, r->type, r->gfp, captured)) {
            return true;
        }
        if ((r->type == MIGRATE_MOVABLE || memory_short(mm, z, r, enough)) && mm->hooks.reclaim != NULL
            && mm->hooks.reclaim(mm, z, r->order, r->gfp) > 0) {
            return true;
        }
    }
    return false;
}

static void wake_zones(struct mm *mm, const struct request *r)
{
    struct zone *z;

    if (!(r->gfp & __GFP_KSWAPD_RECLAIM) || mm->hooks.wake == NULL) {
        return;
    }
    for (unsigned i = 0; (z = request_zone(mm, r, i)) != NULL; i++) {
        if (r->order > atomic_load_explicit(&z->wanted_order, memory_order_relaxed)) {
            atomic_store_explicit(&z->wanted_order, r->order, memory_order_relaxed);    /* a race loses a hint */
        }
        mm->hooks.wake(mm, z);
    }
}

void mm_drain(struct mm *mm)
{
    for (uint32_t i = 0; i < mm->zone_count; i++) {
        pcp_drain(mm, &mm->zones[i]);
        highatomic_release(mm, &mm->zones[i]);
    }
}

FS_NOINLINE static struct page *alloc_slow(struct mm *mm, const struct request *r)
{
    bool can_wait = (r->gfp & __GFP_DIRECT_RECLAIM) && !(r->gfp & __GFP_MEMALLOC);
    bool reserve = (r->gfp & __GFP_HIGH) && r->order > 0 && (r->type == MIGRATE_UNMOVABLE || r->type == MIGRATE_ACCOUNTED);
    struct zone *first = request_zone(mm, r, 0);
    struct page *p;

    if (first == NULL) {
        return NULL;
    }
    zone_count_unlocked(first, ZC_alloc_slow, 1);
    wake_zones(mm, r);
    p = try_own(mm, r, WMARK_MIN);
    if (p == NULL && reserve) {
        p = try_highatomic(mm, r);
    }
    for (unsigned tries = 0; p == NULL && can_wait && tries < SLOW_TRIES && make_room(mm, r, &p); tries++) {
        p = p != NULL ? p : try_own(mm, r, WMARK_MIN);
    }
    if (p == NULL) {
        mm_drain(mm);
        p = try_own(mm, r, WMARK_MIN);
    }
    if (p == NULL) {
        p = try_foreign(mm, r, FALLBACK_KERNEL | FALLBACK_TENANT);
    }
    if (p == NULL) {
        p = try_foreign(mm, r, FALLBACK_MOVABLE);
    }
    if (p == NULL) {
        zone_count_unlocked(first, ZC_alloc_fail, 1);
    } else if (reserve) {
        highatomic_reserve(mm, mm_block_zone(mm, page_block(p)), p);
    }
    return p;
}

FS_NOINLINE static void clear_pages(const struct page *p, unsigned order)
{
    for (uint64_t i = 0; i < 1ull << order; i++) {
        arch_page_clear(pfn_make(p->pfn + i));
    }
}

/* A unit that was free becomes the caller's (I1). */
static inline struct page *hand_over(struct page *p, enum page_state state, enum migratetype type, gfp_t gfp, unsigned order)
{
    page_set_word(p, PAGE_WORD(state, order, type, gfp & __GFP_COMP ? PG_COMP : 0));
    p->mapping = NULL;                          /* whoever finds it by frame sees that nobody's mapping has it yet */
    if (state == PAGE_USED) {
        atomic_store_explicit(&p->refs, 1, memory_order_release);
    }
    if (fs_unlikely(gfp & __GFP_ZERO)) {
        clear_pages(p, order);
    }
    return p;
}

struct page *alloc_captured(struct page *captured, gfp_t gfp)
{
    ASSERT_CMP(page_state(captured), ==, PAGE_PCP);
    return hand_over(captured, PAGE_USED, gfp_migratetype(gfp), gfp, page_order(captured));
}

/* pre: r has node and zonelist */
FS_NOINLINE static struct page *alloc_request(struct mm *mm, const struct request *r)
{
    struct page *p = try_own(mm, r, WMARK_LOW);

    if (fs_unlikely(p == NULL)) {
        p = alloc_slow(mm, r);
    }
    return p != NULL ? hand_over(p, r->state, r->type, r->gfp, r->order) : NULL;
}

static inline struct request request_make(const struct mm *mm, uint32_t node, gfp_t gfp, unsigned order, enum page_state state)
{
    ASSERT_CMP(order, <=, MAX_ORDER);
    ASSERT_CMP(node, <, mm->node_count);
    ASSERT((gfp & (__GFP_MOVABLE | __GFP_RECLAIMABLE)) != (__GFP_MOVABLE | __GFP_RECLAIMABLE));
    return (struct request){ .gfp = gfp, .order = order, .type = gfp_migratetype(gfp), .class = gfp_zone_class(gfp), .state = state,
                             .node = node, .zonelist = mm->zonelist[node][gfp_zone_class(gfp)] };
}

FS_NOINLINE static struct page *alloc_from_node(struct mm *mm, uint32_t node, gfp_t gfp, unsigned order, enum page_state state)
{
    struct request r = request_make(mm, node, gfp, order, state);

    return alloc_request(mm, &r);
}

static inline struct page *alloc_unit(struct mm *mm, uint32_t node, gfp_t gfp, unsigned order, enum page_state state)
{
    enum migratetype type = gfp_migratetype(gfp);
    uint8_t first = node < MM_NODES_MAX ? mm->zonelist[node][gfp_zone_class(gfp)][0] : 0xff;

    /* What waits on this CPU comes without a request. The first zone is the node's own unless it has none of that kind. */
    if (fs_likely(pcp_serves(order, type) && first < mm->zone_count && mm->zones[first].node == node)) {
        struct page *p = pcp_pop(mm, &mm->zones[first], order, type);

        if (fs_likely(p != NULL)) {
            return hand_over(p, state, type, gfp, order);
        }
    }
    return alloc_from_node(mm, node, gfp, order, state);
}

struct page *alloc_pages_node(struct mm *mm, uint32_t node, gfp_t gfp, unsigned order)
{
    return alloc_unit(mm, node, gfp, order, PAGE_USED);
}

struct page *alloc_pages_nodemask(struct mm *mm, uint32_t node, nodemask_t nodes, gfp_t gfp, unsigned order)
{
    struct request r = request_make(mm, node, gfp & ~__GFP_THISNODE, order, PAGE_USED);
    uint8_t list[MM_ZONES_MAX];                 /* the node's, without what the mask leaves out (I4) */
    unsigned n = 0;

    for (unsigned i = 0; i < MM_ZONES_MAX && r.zonelist[i] != 0xff; i++) {
        if (nodes >> mm->zones[r.zonelist[i]].node & 1) {
            list[n++] = r.zonelist[i];
        }
    }
    if (n < MM_ZONES_MAX) {
        list[n] = 0xff;
    }
    r.zonelist = list;
    return alloc_request(mm, &r);
}

uint32_t mm_local_node(const struct mm *mm)
{
    unsigned cpu = mm->node_count > 1 ? arch_cpu_id() : 0;

    return mm->cpu_node[cpu < mm->cpus ? cpu : 0];
}

struct page *alloc_pages(struct mm *mm, gfp_t gfp, unsigned order)
{
    return alloc_pages_node(mm, mm_local_node(mm), gfp, order);
}

struct page *alloc_frozen_pages(struct mm *mm, gfp_t gfp, unsigned order)
{
    return alloc_unit(mm, mm_local_node(mm), gfp, order, PAGE_FROZEN);
}

/* Drop a reference; true if it was the last one and the unit, whose word is *w, is to be freed. */
static inline bool put_last(struct mm *mm, struct page *p, uint32_t *w)
{
    int32_t refs = atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel);

    ASSERT_CMP(refs, >, 0);
    if (refs > 1) {
        return false;
    }
    *w = page_word(p);                                  /* nobody else changes it any more */
    ASSERT_CMP(word_state(*w), ==, PAGE_USED);
    return fs_likely(!(word_flags(*w) & PG_RELEASE)) || mm->hooks.release(mm, p);
}

FS_NOINLINE static void free_to_zone(struct mm *mm, struct zone *z, struct page *p, unsigned order)
{
    zone_lock(z);
    buddy_free(mm, z, p, order);
    zone_unlock(z);
}

void page_put(struct mm *mm, struct page *p)
{
    struct zone *z;
    uint32_t w;

    if (!put_last(mm, p, &w)) {
        return;
    }
    z = mm_block_zone(mm, page_block(p));
    if (fs_likely(pcp_serves(word_order(w), word_type(w)))) {
        pcp_free(mm, z, p, word_order(w));
    } else {
        free_to_zone(mm, z, p, word_order(w));
    }
}

/* An order above those of the ring: its struct page is looked at now. */
FS_NOINLINE static void free_frozen_now(struct mm *mm, struct page *p, unsigned order)
{
    struct zone *z = mm_block_zone(mm, page_block(p));
    uint32_t w = page_word(p);

    ASSERT_CMP(word_state(w), ==, PAGE_FROZEN);
    ASSERT_CMP(word_order(w), ==, order);
    if (pcp_serves(order, word_type(w))) {
        pcp_free(mm, z, p, order);
    } else {
        free_to_zone(mm, z, p, order);
    }
}

void free_frozen_pages(struct mm *mm, pfn_t pfn, unsigned order)
{
    if (fs_likely(order < PCP_ORDERS)) {
        pcp_free_frozen(mm, pfn);
    } else {
        free_frozen_now(mm, mm_page(mm, pfn), order);
    }
}

#define PUT_AHEAD 8u
#define PUT_BATCH 32u

/* Units of one zone and order on their way to the per-CPU list. */
struct put_batch {
    struct zone *z;
    unsigned order;
    uint32_t count;
    struct page *pages[PUT_BATCH];
};

static void put_batch_flush(struct mm *mm, struct put_batch *b)
{
    if (b->count != 0) {
        pcp_free_many(mm, b->z, b->pages, b->count, b->order);
        b->count = 0;
    }
}

void page_put_many(struct mm *mm, struct page *const *pages, uint32_t n)
{
    struct put_batch b;

    b.count = 0;
    for (uint32_t i = 0; i < n && i < PUT_AHEAD; i++) {
        __builtin_prefetch(pages[i], 1);
    }
    for (uint32_t i = 0; i < n; i++) {
        struct page *p = pages[i];
        struct zone *z;
        uint32_t w;

        if (i + PUT_AHEAD < n) {
            __builtin_prefetch(pages[i + PUT_AHEAD], 1);
        }
        if (!put_last(mm, p, &w)) {
            continue;
        }
        z = mm_block_zone(mm, page_block(p));
        if (fs_unlikely(!pcp_serves(word_order(w), word_type(w)))) {
            free_to_zone(mm, z, p, word_order(w));
            continue;
        }
        if (b.count == PUT_BATCH || (b.count > 0 && (b.z != z || b.order != word_order(w)))) {
            put_batch_flush(mm, &b);
        }
        b.z = z;
        b.order = word_order(w);
        b.pages[b.count++] = p;
    }
    put_batch_flush(mm, &b);
}

void page_split(struct page *p, unsigned order)
{
    uint32_t w = page_word(p);
    unsigned have = word_order(w);

    ASSERT_CMP(word_state(w), ==, PAGE_USED);
    ASSERT_CMP(order, <, have);
    ASSERT_CMP(word_flags(w) & PG_COMP, ==, 0);
    for (uint32_t i = 0; i < 1u << have; i += 1u << order) {
        page_set_word(p + i, PAGE_WORD(PAGE_USED, order, word_type(w), word_flags(w)));
        if (i != 0) {
            atomic_store_explicit(&p[i].refs, 1, memory_order_release);     /* the head's may be held by a scanner too */
        }
    }
}
