/*
 * mm_fsck.c - recompute everything from the memmap and compare.
 *
 * Owns: nothing; it only reads.
 * Invariants checked: page.c I1 I2, pageblock.c I1 to I5, buddy.c I1 I2, pcp.c I1 to I3, zone.c I1 to I3, claim.c I3,
 *   memmap.c I2.
 * Lock order: takes no lock; the caller keeps everybody out.
 * Why: the memmap and the free maps are the ground truth, and each page is in exactly one of the two.  Counts, masks,
 *   area bits and counters are caches of them, and each is recomputed from them page by page, never from another cache.
 * Cost: one pass over the memmap, one over the area bits.
 */
#include "mm_fsck.h"
#include "memmap.h"
#include "pageblock.h"

struct walk {
    const struct mm *mm;
    mm_fault_fn report;
    void *ctx;
    uint64_t faults;
    /* of the zone at hand */
    uint64_t free, isolated, units[FREE_ORDERS][MIGRATE_TYPES], blocks[MIGRATE_TYPES];
    uint64_t reserved, holes, pcp_pages, pages, tenants, lent;
    uint64_t unsettled[FREE_ORDERS];
};

static void fault(struct walk *w, enum mm_fault f, uint64_t pfn, uint64_t is, uint64_t should_be)
{
    w->faults++;
    if (w->report != NULL) {
        w->report(w->ctx, f, pfn_make(pfn), is, should_be);
    }
}

static void expect(struct walk *w, enum mm_fault f, uint64_t pfn, uint64_t is, uint64_t should_be)
{
    if (is != should_be) {
        fault(w, f, pfn, is, should_be);
    }
}

/* What one pass over a block's pages finds. */
struct block_count {
    uint32_t free_units[FREE_ORDERS];
    uint32_t free, reserved, holes, pcp;
};

static void check_refs(struct walk *w, const struct page *p, enum page_state s)
{
    int32_t refs = atomic_load_explicit(&p->refs, memory_order_relaxed);
    bool held = s == PAGE_USED || s == PAGE_RESERVED;

    if (held ? refs < 1 : refs != 0) {
        fault(w, MM_FAULT_REFS, p->pfn, (uint64_t)(int64_t)refs, held);
    }
}

/* The rest of a unit has no state and is not free. */
static void check_tails(struct walk *w, const struct page *p, uint32_t pages)
{
    for (uint32_t k = 1; k < pages; k++) {
        if (page_state(p + k) != PAGE_NONE) {
            fault(w, MM_FAULT_STATE, p->pfn + k, page_state(p + k), PAGE_NONE);
        }
        if (page_is_free(w->mm, p + k)) {
            fault(w, MM_FAULT_FREE_MAP, p->pfn + k, 1, 0);
        }
        check_refs(w, p + k, PAGE_NONE);
    }
}

/* Account one head; returns the pages to skip to the next head. */
static uint32_t count_unit(struct walk *w, struct block_count *c, const struct page *p)
{
    uint32_t word = page_word(p);
    enum page_state s = word_state(word);
    unsigned order = word_order(word);
    uint32_t i = page_block_index(p), pages;
    bool single = s == PAGE_RESERVED || s == PAGE_HOLE;

    if (order > (state_in_use(s) ? MAX_ORDER : single ? 0 : PAGEBLOCK_ORDER) || (p->pfn & ((1ull << order) - 1)) != 0) {
        fault(w, MM_FAULT_ALIGN, p->pfn, order, 0);
        return 1;
    }
    if (word_type(word) >= MIGRATE_PCP_TYPES) {
        fault(w, MM_FAULT_TYPE, p->pfn, word_type(word), 0);
    }
    if (page_is_free(w->mm, p)) {
        fault(w, MM_FAULT_FREE_MAP, p->pfn, 1, 0);
    }
    check_refs(w, p, s);
    pages = order > PAGEBLOCK_ORDER ? PAGEBLOCK_PAGES - i : 1u << order;
    c->pcp += s == PAGE_PCP ? pages : 0;
    c->reserved += s == PAGE_RESERVED;
    c->holes += s == PAGE_HOLE;
    check_tails(w, p, pages);
    return pages;
}

/* The largest aligned run of free pages that begins at page i of the block. */
static unsigned free_order(const struct walk *w, const struct page *first, uint32_t i)
{
    for (unsigned order = PAGEBLOCK_ORDER; order > 0; order--) {
        uint32_t k = 0;

        while (i % (1u << order) == 0 && k < 1u << order && page_is_free(w->mm, first + i + k)) {
            k++;
        }
        if (k == 1u << order) {
            return order;
        }
    }
    return 0;
}

/* Account a free unit: its pages have no state. */
static uint32_t count_free(struct walk *w, struct block_count *c, const struct page *first, uint32_t i)
{
    unsigned order = free_order(w, first, i);

    for (uint32_t k = i; k < i + (1u << order); k++) {
        if (page_state(first + k) != PAGE_NONE) {
            fault(w, MM_FAULT_FREE_MAP, first[k].pfn, page_state(first + k), PAGE_NONE);
        }
        check_refs(w, first + k, PAGE_NONE);
    }
    c->free += 1u << order;
    c->free_units[order]++;
    return 1u << order;
}

static void count_pages(struct walk *w, struct block_count *c, uint32_t block)
{
    const struct page *first = mm_block_page(w->mm, block);
    uint32_t i = 0;

    for (uint32_t k = 0; k < PAGEBLOCK_PAGES; k++) {
        expect(w, MM_FAULT_PFN, block_pfn(block).n + k, first[k].pfn, block_pfn(block).n + k);
    }
    if (block % 2 != 0 && page_state(first) == PAGE_NONE && mm_pfn_valid(w->mm, block_pfn(block - 1))
        && state_in_use(page_state(mm_block_page(w->mm, block - 1)))
        && page_order(mm_block_page(w->mm, block - 1)) == MAX_ORDER) {
        check_tails(w, first - 1, PAGEBLOCK_PAGES + 1);         /* the second half of a unit of MAX_ORDER */
        return;
    }
    while (i < PAGEBLOCK_PAGES) {
        enum page_state s = page_state(first + i);

        if (s == PAGE_NONE && page_is_free(w->mm, first + i)) {
            i += count_free(w, c, first, i);
            continue;
        }
        if (s == PAGE_NONE || s >= PAGE_STATES) {
            fault(w, s == PAGE_NONE ? MM_FAULT_ORPHAN : MM_FAULT_STATE, first[i].pfn, s, 0);
            i++;
            continue;
        }
        i += count_unit(w, c, first + i);
    }
}

/* The block's bits in the areas follow when its CPU settles. */
static bool is_dirty(const struct zone *z, uint32_t block)
{
    bool dirty = false;

    for (unsigned cpu = 0; cpu < z->cpus; cpu++) {
        dirty |= blockmap_test(&z->cpu_blocks[cpu].dirty, block_position(z, block));
    }
    return dirty;
}

static void check_block(struct walk *w, const struct zone *z, uint32_t block)
{
    const struct pageblock *pb = mm_block(w->mm, block);
    enum migratetype type = pageblock_type(w->mm, block);
    struct block_count c = { .free = 0 };
    uint64_t pfn = block_pfn(block).n;
    uint32_t mask = 0;

    expect(w, MM_FAULT_BLOCK_ZONE, pfn, pb->zone, z->id);
    if (type >= MIGRATE_TYPES) {
        fault(w, MM_FAULT_TYPE, pfn, type, 0);
        return;
    }
    count_pages(w, &c, block);
    for (unsigned o = 0; o < FREE_ORDERS; o++) {
        if (o < PAGEBLOCK_ORDER) {
            expect(w, MM_FAULT_BLOCK_UNITS, pfn, pb->units[o], c.free_units[o]);
        }
        mask |= c.free_units[o] != 0 ? 1u << o : 0;
        w->units[o][type] += c.free_units[o];
        for (unsigned t = 0; t < MIGRATE_TYPES && !is_dirty(z, block); t++) {
            expect(w, MM_FAULT_AREA, pfn, blockmap_test(&z->area[o][t], block_position(z, block)), t == type && c.free_units[o] != 0);
        }
    }
    expect(w, MM_FAULT_ORDER_MASK, pfn, pb->order_mask, mask);
    expect(w, MM_FAULT_BLOCK_FREE, pfn, pb->free_pages, c.free);
    expect(w, MM_FAULT_BLOCK_RESERVED, pfn, pb->reserved_pages, c.reserved + c.holes);
    if (c.free == PAGEBLOCK_PAGES && migratetype_is_kernel(type)) {
        fault(w, MM_FAULT_WHOLE_TYPE, pfn, type, MIGRATE_MOVABLE);
    }
    if ((pb->isolations != 0) != (type == MIGRATE_ISOLATE)) {
        fault(w, MM_FAULT_ISOLATION, pfn, pb->isolations, type == MIGRATE_ISOLATE);
    }
    w->free += type != MIGRATE_ISOLATE ? c.free : 0;
    w->isolated += type == MIGRATE_ISOLATE ? c.free : 0;
    w->blocks[type]++;
    w->reserved += c.reserved;
    w->holes += c.holes;
    w->pcp_pages += c.pcp;
    w->pages += PAGEBLOCK_PAGES;
}

static void check_pcp_list(struct walk *w, const struct pcp_list *l, unsigned order, unsigned type)
{
    for (uint32_t i = 0; i < l->count && i < PCP_CAPACITY; i++) {
        const struct page *p = l->pages[i];
        bool twice = false;

        for (uint32_t k = 0; k < i; k++) {
            twice |= l->pages[k] == p;
        }
        if (twice || page_state(p) != PAGE_PCP || page_order(p) != order) {
            fault(w, MM_FAULT_PCP_MEMBER, p->pfn, page_word(p), order);
        } else if ((unsigned)pageblock_type(w->mm, page_block(p)) != type
                   && !(migratetype_is_kernel((enum migratetype)type) && migratetype_is_kernel(pageblock_type(w->mm, page_block(p))))) {
            fault(w, MM_FAULT_PCP_TYPE, p->pfn, pageblock_type(w->mm, page_block(p)), type);
        }
    }
}

/* Each is frozen still, of an order that has lists, and there once. */
static void check_ring(struct walk *w, const struct free_ring *r)
{
    uint32_t n = atomic_load_explicit(&r->count, memory_order_relaxed);

    for (uint32_t i = 0; i < n && i < FREE_RING; i++) {
        pfn_t pfn = pfn_make(r->pfns[i]);
        bool wrong = !mm_pfn_valid(w->mm, pfn) || page_state(mm_page(w->mm, pfn)) != PAGE_FROZEN || page_order(mm_page(w->mm, pfn)) >= PCP_ORDERS;

        for (uint32_t k = 0; k < i; k++) {
            wrong |= r->pfns[k] == r->pfns[i];
        }
        if (wrong) {
            fault(w, MM_FAULT_RING_MEMBER, pfn.n, i, n);
        }
    }
    if (n >= FREE_RING) {
        fault(w, MM_FAULT_RING_MEMBER, FS_FRAME_NONE, n, FREE_RING);
    }
}

/* The block at a position, whose it is, and whether it lies where its owner looks for it. */
static void check_owner(struct walk *w, const struct zone *z, uint32_t position)
{
    uint32_t block = position_block(z, position), owners = 0;
    uint64_t pfn = block_pfn(block).n;

    for (unsigned cpu = 0; cpu < z->cpus; cpu++) {
        const struct cpu_blocks *c = &z->cpu_blocks[cpu];
        bool own = blockmap_test(&c->own, position), avail = blockmap_test(&c->avail, position);

        owners += own;
        if (!own && blockmap_test(&c->dirty, position)) {
            fault(w, MM_FAULT_CPU_BLOCKS_DIRTY, pfn, 1, 0);
        }
        if (!own && avail) {
            fault(w, MM_FAULT_CPU_BLOCKS_AVAIL, pfn, 1, 0);
        } else if (own && (!mm_pfn_valid(w->mm, block_pfn(block)) || mm_block(w->mm, block)->offline)) {
            fault(w, MM_FAULT_CPU_BLOCKS_TYPE, pfn, MIGRATE_TYPES, MIGRATE_MOVABLE);
        } else if (own) {
            uint32_t n = mm_block(w->mm, block)->free_pages;

            expect(w, MM_FAULT_CPU_BLOCKS_TYPE, pfn, pageblock_type(w->mm, block), MIGRATE_MOVABLE);
            if (avail ? n == 0 : n != 0 && n != PAGEBLOCK_PAGES) {
                fault(w, MM_FAULT_CPU_BLOCKS_AVAIL, pfn, avail, n);
            }
        }
    }
    expect(w, MM_FAULT_CPU_BLOCKS_OWNER, pfn, owners, blockmap_test(&z->owned, position));
}

static void check_cpu_blocks(struct walk *w, const struct zone *z)
{
    bool summaries = blockmap_check(&z->owned);
    uint64_t pfn = block_pfn(z->first_block).n;

    for (unsigned cpu = 0; cpu < z->cpus; cpu++) {
        const struct cpu_blocks *c = &z->cpu_blocks[cpu];

        summaries &= blockmap_check(&c->own) && blockmap_check(&c->avail) && blockmap_check(&c->dirty);
        for (unsigned o = 0; o < FREE_ORDERS; o++) {
            w->unsettled[o] += c->free_units[o][MIGRATE_MOVABLE];
            if (c->own.count == 0) {
                expect(w, MM_FAULT_CPU_BLOCKS_COUNT, pfn, c->free_units[o][MIGRATE_MOVABLE], 0);
            }
        }
        if (c->own.count == 0) {
            expect(w, MM_FAULT_CPU_BLOCKS_COUNT, pfn, (uint64_t)atomic_load_explicit(&c->free_pages, memory_order_relaxed), 0);
        }
    }
    for (uint32_t i = 0; i < z->end_block - z->first_block; i++) {
        check_owner(w, z, i);
    }
    expect(w, MM_FAULT_AREA_SUMMARY, pfn, summaries, true);
    expect(w, MM_FAULT_CPU_BLOCKS_OWNER, pfn, atomic_load_explicit(&z->owned_blocks, memory_order_relaxed), z->owned.count);
    expect(w, MM_FAULT_CPU_BLOCKS_HELD, pfn, z->held, 0);
}

static void check_zone(struct walk *w, const struct zone *z)
{
    uint64_t listed = 0;

    check_cpu_blocks(w, z);

    for (unsigned o = 0; o < FREE_ORDERS; o++) {
        for (unsigned t = 0; t < MIGRATE_TYPES; t++) {
            expect(w, MM_FAULT_ZONE_UNITS, block_pfn(z->first_block).n, z->free_units[o][t] + (t == MIGRATE_MOVABLE ? w->unsettled[o] : 0), w->units[o][t]);
            if (!blockmap_check(&z->area[o][t])) {
                fault(w, MM_FAULT_AREA_SUMMARY, block_pfn(z->first_block).n, o, t);
            }
        }
    }
    for (unsigned t = 0; t < MIGRATE_TYPES; t++) {
        expect(w, MM_FAULT_ZONE_BLOCKS, block_pfn(z->first_block).n, z->blocks_of[t], w->blocks[t]);
    }
    for (unsigned cpu = 0; cpu < w->mm->cpus; cpu++) {
        for (unsigned i = 0; i < PCP_LISTS; i++) {
            for (unsigned t = 0; t < MIGRATE_PCP_TYPES; t++) {
                check_pcp_list(w, &z->pcp[cpu].lists[i][t], pcp_list_order(i), t);
                listed += (uint64_t)z->pcp[cpu].lists[i][t].count << pcp_list_order(i);
            }
        }
    }
    expect(w, MM_FAULT_PCP_COUNT, block_pfn(z->first_block).n, listed, w->pcp_pages);
    expect(w, MM_FAULT_ZONE_FREE, block_pfn(z->first_block).n, zone_free_pages(z), w->free);
    expect(w, MM_FAULT_ZONE_FREE, block_pfn(z->first_block).n, z->isolated_free_pages, w->isolated);
    expect(w, MM_FAULT_ZONE_TENANTS, block_pfn(z->first_block).n, z->tenant_blocks, w->tenants);
    expect(w, MM_FAULT_ZONE_LENT, block_pfn(z->first_block).n, z->lent_blocks, w->lent);
    expect(w, MM_FAULT_ZONE_MANAGED, block_pfn(z->first_block).n, z->managed_pages, w->pages - w->reserved - w->holes);
    if (z->watermark[WMARK_MIN] > z->watermark[WMARK_LOW] || z->watermark[WMARK_LOW] > z->watermark[WMARK_HIGH]) {
        fault(w, MM_FAULT_WATERMARK, FS_FRAME_NONE, z->watermark[WMARK_MIN], z->watermark[WMARK_HIGH]);
    }
}

/* Where struct pages lie: reserved since boot, or a unit of their own. */
static void check_memmaps(struct walk *w)
{
    const struct mm *mm = w->mm;
    uint64_t pages[MM_NODES_MAX] = { 0 };

    for (uint64_t pfn = 0; mm->direct != NULL && pfn < mm->end_pfn; pfn++) {
        if (mm_pfn_valid(mm, pfn_make(pfn)) && memmap_boot_uses(mm, pfn_make(pfn))) {
            expect(w, MM_FAULT_MEMMAP, pfn, page_state(mm_page(mm, pfn_make(pfn))), PAGE_RESERVED);
            pages[page_node(mm, mm_page(mm, pfn_make(pfn)))]++;
        }
    }
    for (uint32_t s = 0; mm->direct != NULL && s < mm->section_count; s++) {
        const struct section *sec = &mm->sections[s];
        pfn_t pfn = pfn_make(sec->map_pfn);

        if (!mm_pfn_valid(mm, block_pfn(s * SECTION_BLOCKS)) || sec->boot_map) {
            continue;
        }
        if (!mm_pfn_valid(mm, pfn) || memmap_pfn(mm, atomic_load(&sec->map)).n != pfn.n) {
            fault(w, MM_FAULT_MEMMAP, pfn.n, memmap_pfn(mm, atomic_load(&sec->map)).n, pfn.n);
            continue;
        }
        expect(w, MM_FAULT_MEMMAP, pfn.n, page_word(mm_page(mm, pfn)) & 0xfffu, PAGE_WORD(PAGE_USED, PAGEBLOCK_ORDER, MIGRATE_UNMOVABLE, 0));
        pages[page_node(mm, mm_page(mm, pfn))] += MEMMAP_PAGES;
    }
    for (uint32_t n = 0; n < mm->node_count; n++) {
        expect(w, MM_FAULT_MEMMAP_COUNT, FS_FRAME_NONE, atomic_load(&mm->memmap_pages[n]), pages[n]);
    }
}

uint64_t mm_fsck(const struct mm *mm, mm_fault_fn report, void *ctx)
{
    struct walk maps = { .mm = mm, .report = report, .ctx = ctx };
    struct walk rings = { .mm = mm, .report = report, .ctx = ctx };
    uint64_t faults;

    for (unsigned cpu = 0; cpu < mm->cpus; cpu++) {
        check_ring(&rings, &mm->rings[cpu]);
    }
    faults = rings.faults;
    for (uint32_t i = 0; i < mm->zone_count; i++) {
        const struct zone *z = &mm->zones[i];
        struct walk w = { .mm = mm, .report = report, .ctx = ctx };

        for (uint32_t b = z->first_block; b < z->end_block; b++) {
            if (!mm_pfn_valid(mm, block_pfn(b))) {
                continue;
            }
            w.tenants += (mm_block(mm, b)->flags & PB_TENANTS) != 0;    /* one that is offline has none */
            w.lent += (mm_block(mm, b)->flags & PB_LENT) != 0;
            if (!mm_block(mm, b)->offline) {
                check_block(&w, z, b);
            }
        }
        check_zone(&w, z);
        faults += w.faults;
    }
    check_memmaps(&maps);
    return faults + maps.faults;
}

const char *mm_fault_name(enum mm_fault fault_id)
{
    static const char *const names[MM_FAULTS] = {
#define X(name, text) #name,
        MM_FAULT_LIST(X)
#undef X
    };
    return (unsigned)fault_id < MM_FAULTS ? names[fault_id] : "bad";
}

const char *mm_fault_text(enum mm_fault fault_id)
{
    static const char *const texts[MM_FAULTS] = {
#define X(name, text) text,
        MM_FAULT_LIST(X)
#undef X
    };
    return (unsigned)fault_id < MM_FAULTS ? texts[fault_id] : "bad";
}
