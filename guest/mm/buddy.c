/*
 * buddy.c - units of 2^order pages, split and merged, by migratetype.
 *
 * Owns: the choice of the block and the unit that serves a request.
 * Invariants:
 *   I1  the pages of a free unit say PAGE_NONE with refs 0; only the map knows that they are free.
 *   I2  a block that is free as a whole is of movable type (it belongs to nobody), unless it
 *       is isolated or held for high-order atomic requests.
 *   I3  merging never crosses a pageblock, so it never mixes types.
 * Lock order: the zone lock is held by the caller.
 * Why: kernel types take the lowest block that can serve them and movable pages the highest, so
 *   that the free blocks gather between the two, where the next kernel block is then claimed:
 *   it is whole, and it is next to its own kind.  Only a request that finds no whole block
 *   looks at foreign ones (buddy_alloc_fallback), largest unit first.
 * Cost: a bit scan per order that has units (at most nine), then the block's line and its map's.
 */
#include "buddy.h"
#include "pageblock.h"
#include "frameshift/assert.h"

/* Cut a unit of order `have` to `want`; the upper halves stay free. */
static struct page *cut(struct mm *mm, struct zone *z, struct page *p, unsigned have, unsigned want)
{
    struct block_edit e = block_edit_begin(mm, z, page_block(p));

    block_edit_take(&e, page_block_index(p), have, want);
    block_edit_end(&e);
    zone_count(z, ZC_alloc, 1);
    return p;
}

struct page *buddy_alloc_block(struct mm *mm, struct zone *z, uint32_t block, unsigned order)
{
    uint32_t mask = (uint32_t)mm_block(mm, block)->order_mask >> order << order;

    if (order > PAGEBLOCK_ORDER || mask == 0) {
        return NULL;
    }
    return cut(mm, z, pageblock_first(mm, block, fs_ctz64(mask)), fs_ctz64(mask), order);
}

/* The block of the type that should serve order from units below a whole block: the lowest
 * one (the highest for movable pages, unless movable_low). */
static uint32_t partial_block(const struct mm *mm, const struct zone *z, unsigned order, enum migratetype type)
{
    bool low = type != MIGRATE_MOVABLE || mm->movable_low;
    uint32_t best = BLOCKMAP_NONE;

    for (unsigned o = order; o < PAGEBLOCK_ORDER; o++) {
        uint32_t b;

        if (z->free_units[o][type] == 0) {
            continue;
        }
        b = low ? blockmap_first(&z->area[o][type], 0) : blockmap_last(&z->area[o][type], UINT32_MAX);
        if (best == BLOCKMAP_NONE || (low ? b < best : b > best)) {
            best = b;
        }
    }
    return best;
}

uint32_t buddy_whole_block(const struct zone *z, uint32_t position)
{
    uint32_t i = blockmap_first(&z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE], position);

    return i == BLOCKMAP_NONE ? BLOCK_NONE : position_block(z, i);
}

/* Two free blocks side by side, the first one even. */
static struct page *alloc_pair(struct mm *mm, struct zone *z, enum migratetype type)
{
    uint32_t b = buddy_whole_block(z, 0);

    for (; b != BLOCK_NONE; b = buddy_whole_block(z, block_position(z, b) + 1)) {
        if (b % 2 == 0 && b + 1 < z->end_block
            && blockmap_test(&z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE], block_position(z, b + 1))) {
            struct page *p = mm_block_page(mm, b);

            pageblock_unlink(mm, z, p, PAGEBLOCK_ORDER);
            pageblock_unlink(mm, z, mm_block_page(mm, b + 1), PAGEBLOCK_ORDER);
            pageblock_set_type(mm, z, b, type);
            pageblock_set_type(mm, z, b + 1, type);
            zone_count(z, ZC_alloc, 1);
            return p;
        }
    }
    return NULL;
}

#define ADOPT_FREE_PAGES  (PAGEBLOCK_PAGES * 3u / 4)
#define ADOPT_ORDER       4u         /* such a block has a run of this order; cheap to look for */
#define ADOPT_LOOK_BLOCKS 64u

/* Unmovable and reclaimable pages may follow each other in a block: neither leaves on request, so a block that one of
 * them has mostly left is no worse for the other than for itself, and a whole free block is saved. */
static struct page *adopt(struct mm *mm, struct zone *z, unsigned order, enum migratetype type)
{
    enum migratetype from = type == MIGRATE_UNMOVABLE ? MIGRATE_RECLAIMABLE : MIGRATE_UNMOVABLE;
    const struct blockmap *area = &z->area[order > ADOPT_ORDER ? order : ADOPT_ORDER][from];
    uint32_t i = blockmap_first(area, 0);

    for (unsigned looked = 0; i != BLOCKMAP_NONE && looked < ADOPT_LOOK_BLOCKS; looked++, i = blockmap_first(area, i + 1)) {
        uint32_t block = position_block(z, i);

        if (mm_block(mm, block)->free_pages >= ADOPT_FREE_PAGES) {
            pageblock_set_type(mm, z, block, type);
            zone_count(z, ZC_block_adopted, 1);
            return buddy_alloc_block(mm, z, block, order);
        }
    }
    return NULL;
}

static struct page *alloc_whole(struct mm *mm, struct zone *z, unsigned order, enum migratetype type)
{
    const struct blockmap *free = &z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE];
    uint32_t b = type != MIGRATE_MOVABLE || mm->movable_low ? blockmap_first(free, 0) : blockmap_last(free, UINT32_MAX);

    if (b == BLOCKMAP_NONE) {
        return NULL;
    }
    b = position_block(z, b);
    if (type != MIGRATE_MOVABLE) {
        pageblock_set_type(mm, z, b, type);
        zone_count(z, ZC_fallback, 1);
        zone_count(z, ZC_fallback_claim, 1);
    }
    return cut(mm, z, mm_block_page(mm, b), PAGEBLOCK_ORDER, order);
}

struct page *buddy_alloc(struct mm *mm, struct zone *z, unsigned order, enum migratetype type)
{
    uint32_t b;

    ASSERT_CMP(order, <=, MAX_ORDER);
    if (order > PAGEBLOCK_ORDER) {
        return alloc_pair(mm, z, type);
    }
    b = partial_block(mm, z, order, type);
    if (b != BLOCKMAP_NONE) {
        return buddy_alloc_block(mm, z, position_block(z, b), order);
    }
    if (type == MIGRATE_HIGHATOMIC || type == MIGRATE_ISOLATE) {
        return NULL;
    }
    if (order < PAGEBLOCK_ORDER && (type == MIGRATE_UNMOVABLE || type == MIGRATE_RECLAIMABLE)) {
        struct page *p = adopt(mm, z, order, type);

        if (p != NULL) {
            return p;
        }
    }
    return alloc_whole(mm, z, order, type);
}

static void hand_out(struct page *unit, unsigned order, enum migratetype type, struct page **out)
{
    page_set_word(unit, PAGE_WORD(PAGE_PCP, order, type, 0));
    *out = unit;
}

/* Units of exactly order < 6: a word of the map gives all of its own at once. */
FS_ALWAYS_INLINE static inline uint32_t bulk_exact(struct block_edit *e, struct page *first, unsigned order, enum migratetype type, uint32_t n,
                                                   struct page **out)
{
    uint32_t got = 0;

    for (uint32_t w = 0; got < n && w < PAGEBLOCK_PAGES / 64; w++) {
        uint64_t units = free_map_word(e->map, w) != 0 ? free_map_units(e->map, w, order) : 0;

        for (; units != 0 && got < n; units &= units - 1) {
            uint32_t i = w * 64 + fs_ctz64(units);

            free_map_turn(e->map, i, order, false);
            hand_out(first + i, order, type, &out[got++]);
        }
    }
    block_edit_units(e, order, -(int32_t)got);
    e->pages -= (int32_t)(got << order);
    return got;
}

/* A larger unit is cut once, not once a piece; what is left of it stays free in the largest aligned units. */
FS_ALWAYS_INLINE static inline uint32_t bulk_cut(struct block_edit *e, struct page *p, unsigned have, unsigned order, enum migratetype type,
                                                 uint32_t n, struct page **out)
{
    uint32_t pieces = 1u << (have - order), got = 0, left;

    block_edit_units(e, have, -1);
    for (; got < pieces && got < n; got++) {
        struct page *unit = p + ((uint64_t)got << order);

        free_map_turn(e->map, page_block_index(unit), order, false);
        hand_out(unit, order, type, &out[got]);
    }
    for (left = got; left < pieces; left += left & -left) {
        block_edit_units(e, order + fs_ctz64(left), 1);
    }
    e->pages -= (int32_t)(got << order);
    return got;
}

/* So many of n need not be there, if a larger unit would be cut for them: one of the size of a batch serves the next call as a whole, but
 * once it is cut for one page every later call finds its rest in six sizes. Not for kernel types: where their pages lie counts more. */
static inline uint32_t bulk_spared(enum migratetype type, uint32_t n) { return type == MIGRATE_MOVABLE ? n / 8 : 0; }

/* Take units out of one block, smallest free unit first. */
FS_ALWAYS_INLINE static inline uint32_t bulk_from_block(struct mm *mm, struct block_edit *e, unsigned order, enum migratetype type, uint32_t n,
                                                        uint32_t spared, struct page **out)
{
    struct page *first = mm_block_page(mm, e->block);
    uint32_t got = 0;

    while (got < n && e->mask >> order != 0) {
        unsigned have = fs_ctz64(e->mask >> order << order);

        if (have > order && got > 0 && n - got <= spared) {
            break;
        }
        got += have == order ? bulk_exact(e, first, order, type, n - got, out + got)
                             : bulk_cut(e, pageblock_first(mm, e->block, have), have, order, type, n - got, out + got);
    }
    block_edit_end(e);
    return got;
}

uint32_t buddy_alloc_own(struct mm *mm, struct zone *z, struct cpu_blocks *own, uint32_t block, unsigned order, uint32_t n, uint32_t batch,
                         struct page **out)
{
    struct block_edit e = block_edit_begin_own(mm, z, own, block);

    return e.mask >> order == 0 ? 0 : bulk_from_block(mm, &e, order, MIGRATE_MOVABLE, n, bulk_spared(MIGRATE_MOVABLE, batch), out);
}

uint32_t buddy_alloc_bulk(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, uint32_t n, struct page **out)
{
    uint32_t got = 0, spared = bulk_spared(type, n);

    ASSERT_CMP(order, <, PCP_ORDERS);
    while (got < n && (got == 0 || n - got > spared)) {
        uint32_t at = partial_block(mm, z, order, type), cut;
        struct block_edit e;

        if (at == BLOCKMAP_NONE) {
            struct page *p = buddy_alloc(mm, z, order, type);      /* adopts or claims a block for the rest */

            if (p == NULL) {
                break;
            }
            page_set_word(p, PAGE_WORD(PAGE_PCP, order, type, 0));
            out[got++] = p;
            continue;
        }
        e = block_edit_begin(mm, z, position_block(z, at));
        cut = bulk_from_block(mm, &e, order, type, n - got, spared, out + got);
        zone_count(z, ZC_alloc, cut);
        got += cut;
    }
    return got;
}

uint32_t buddy_alloc_whole_bulk(struct mm *mm, struct zone *z, uint32_t n, struct page **out)
{
    const struct blockmap *whole = &z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE];
    uint32_t got = 0;

    while (got < n) {
        uint32_t at = mm->movable_low ? blockmap_first(whole, 0) : blockmap_last(whole, UINT32_MAX);

        if (at == BLOCKMAP_NONE) {
            break;
        }
        pageblock_turn_whole(mm, z, position_block(z, at), false);
        hand_out(mm_block_page(mm, position_block(z, at)), PAGEBLOCK_ORDER, MIGRATE_MOVABLE, &out[got++]);
    }
    zone_count(z, ZC_alloc, got);
    return got;
}

/* The largest unit of at least order in blocks of type from; of those the one in the lowest block
 * (for a movable request: the highest). */
static uint32_t largest_unit(const struct zone *z, unsigned order, enum migratetype from, bool low, unsigned *found)
{
    for (unsigned o = PAGEBLOCK_ORDER; o-- > order;) {
        if (z->free_units[o][from] != 0) {
            *found = o;
            return position_block(z, low ? blockmap_first(&z->area[o][from], 0) : blockmap_last(&z->area[o][from], UINT32_MAX));
        }
    }
    return BLOCK_NONE;
}

/* A kernel page comes to a block with movable ones: they are known from now on, and go when there is room (claim.c). */
static void mark_mixed(struct mm *mm, struct zone *z, uint32_t block)
{
    struct pageblock *pb = mm_block(mm, block);

    if (pageblock_type(mm, block) != MIGRATE_MOVABLE) {
        buddy_mark_tenants(mm, z, block);
    } else if (!(pb->flags & PB_LENT)) {
        pb->flags |= PB_LENT;
        z->lent_blocks++;
    }
}

static struct page *take_foreign(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, enum migratetype from)
{
    unsigned found = 0;
    uint32_t b = largest_unit(z, order, from, type != MIGRATE_MOVABLE, &found);

    if (b == BLOCK_NONE) {
        return NULL;
    }
    zone_count(z, ZC_fallback, 1);
    zone_count(z, ZC_fallback_fragmenting, 1);
    if (migratetype_is_kernel(type) && !migratetype_is_kernel(from) && mm_block(mm, b)->free_pages >= PAGEBLOCK_PAGES / 2) {
        /* Most of it is free: better one mixed block that is ours than many. */
        pageblock_set_type(mm, z, b, type);
        mm_block(mm, b)->flags |= PB_CLAIMED;
        zone_count(z, ZC_fallback_claim, 1);
    }
    if (migratetype_is_kernel(type) && from == MIGRATE_MOVABLE && mm->policy != CLAIM_LARGEST_LOWEST) {
        mark_mixed(mm, z, b);
    }
    if (type == MIGRATE_MOVABLE) {
        buddy_mark_tenants(mm, z, b);
    }
    return cut(mm, z, pageblock_first(mm, b, found), found, order);
}

void buddy_mark_tenants(struct mm *mm, struct zone *z, uint32_t block)
{
    if (!(mm_block(mm, block)->flags & PB_TENANTS)) {
        mm_block(mm, block)->flags |= PB_TENANTS;
        z->tenant_blocks++;
    }
}

struct page *buddy_alloc_fallback(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, unsigned allowed)
{
    /* Which kernel blocks to ask, by the type asked for: first those whose pages stay about as long. */
    static const enum migratetype kernel_types[MIGRATE_PCP_TYPES][3] = {
        [MIGRATE_UNMOVABLE]   = { MIGRATE_RECLAIMABLE, MIGRATE_ACCOUNTED, MIGRATE_UNMOVABLE },
        [MIGRATE_MOVABLE]     = { MIGRATE_ACCOUNTED, MIGRATE_RECLAIMABLE, MIGRATE_UNMOVABLE },
        [MIGRATE_RECLAIMABLE] = { MIGRATE_UNMOVABLE, MIGRATE_ACCOUNTED, MIGRATE_RECLAIMABLE },
        [MIGRATE_ACCOUNTED]   = { MIGRATE_UNMOVABLE, MIGRATE_RECLAIMABLE, MIGRATE_ACCOUNTED },
    };
    bool movable = type == MIGRATE_MOVABLE;
    struct page *p = NULL;

    if (order >= PAGEBLOCK_ORDER) {
        return NULL;
    }
    if (allowed & (movable ? FALLBACK_TENANT : FALLBACK_KERNEL)) {
        for (unsigned i = 0; i < 3 && p == NULL; i++) {
            p = kernel_types[type][i] != type ? take_foreign(mm, z, order, type, kernel_types[type][i]) : NULL;
        }
        zone_count(z, movable ? ZC_fallback_tenant : ZC_fallback_kernel, p != NULL);
    }
    if (p == NULL && !movable && (allowed & FALLBACK_MOVABLE)) {
        p = take_foreign(mm, z, order, type, MIGRATE_MOVABLE);
    }
    return p;
}

static void end_free(struct mm *mm, struct block_edit *e)
{
    block_edit_end(e);
    if (e->pb->free_pages == PAGEBLOCK_PAGES && migratetype_is_kernel(e->type)) {
        pageblock_set_type(mm, e->z, e->block, MIGRATE_MOVABLE);        /* I2: it belongs to nobody now */
    }
}

static inline void unit_freed(struct page *p)
{
    ASSERT_CMP(atomic_load_explicit(&p->refs, memory_order_relaxed), ==, 0);
    page_set_word(p, PAGE_WORD(PAGE_NONE, 0, 0, 0));
}

/* A page that fills a word of the map. */
FS_NOINLINE static void free_word_full(struct mm *mm, struct zone *z, const struct page *p)
{
    struct block_edit e = block_edit_begin(mm, z, page_block(p));

    block_edit_free(&e, page_block_index(p), 0);
    end_free(mm, &e);
}

/* The next pages of one block; how many. */
static inline uint32_t free_pages_of_block(struct mm *mm, struct zone *z, struct pageblock *pb, struct page *const *pages, uint32_t n,
                                           struct free_sum *sum)
{
    uint32_t block = page_block(pages[0]), i = 0;
    struct free_map *map = mm_block_free_map(mm, block);

    do {
        struct page *p = pages[i];

        unit_freed(p);
        if (fs_unlikely(!pageblock_free_page(pb, map, page_block_index(p), sum))) {
            pageblock_end_pages(z, pb, block);
            if (pb->free_pages == PAGEBLOCK_PAGES - 1) {
                free_sum_add(z, pageblock_type(mm, block), sum);        /* the counts are true when a block changes hands */
            }
            free_word_full(mm, z, p);
            return i + 1;
        }
        i++;
    } while (i < n && page_block(pages[i]) == block);
    pageblock_end_pages(z, pb, block);
    return i;
}

/* A page of an own block that fills a word of the map. */
FS_NOINLINE static void free_word_full_own(struct mm *mm, struct zone *z, struct cpu_blocks *own, const struct page *p)
{
    struct block_edit e = block_edit_begin_own(mm, z, own, page_block(p));

    e.mask = pageblock_mask(e.pb);
    block_edit_free(&e, page_block_index(p), 0);
    block_edit_end(&e);
}

uint32_t buddy_free_own(struct mm *mm, struct zone *z, struct cpu_blocks *own, uint32_t block, struct page *const *pages, uint32_t n,
                        struct free_sum *sum)
{
    struct pageblock *pb = mm_block(mm, block);
    struct free_map *map = mm_block_free_map(mm, block);
    bool was_full = pb->free_pages == 0;
    uint32_t i = 0, mask;

    do {
        struct page *p = pages[i++];

        unit_freed(p);
        if (fs_unlikely(!pageblock_free_page(pb, map, page_block_index(p), sum))) {
            free_word_full_own(mm, z, own, p);
            return i;
        }
    } while (i < n && page_block(pages[i]) == block);
    mask = pageblock_mask(pb);
    if (fs_unlikely(was_full || mask != pb->order_mask)) {
        cpu_blocks_edit_end(own, pb, block_position(z, block), mask, 0);
    }
    return i;
}

static void free_single_pages(struct mm *mm, struct zone *z, struct page *const *pages, uint32_t n)
{
    struct free_sum sum = { .pages = 0 };
    enum migratetype sum_of = MIGRATE_MOVABLE;

    for (uint32_t i = 0; fs_unlikely(z->held != 0) && i < n; i++) {
        cpu_blocks_disown(z, page_block(pages[i]));             /* if it was a CPU's, it is not any more */
    }
    for (uint32_t i = 0; i < n;) {
        struct pageblock *pb = mm_block(mm, page_block(pages[i]));
        enum migratetype type = (enum migratetype)atomic_load_explicit(&pb->type, memory_order_relaxed);

        if (fs_unlikely(type != sum_of)) {
            free_sum_add(z, sum_of, &sum);
            sum_of = type;
        }
        i += free_pages_of_block(mm, z, pb, pages + i, n - i, &sum);
    }
    free_sum_add(z, sum_of, &sum);
}

static void free_units(struct mm *mm, struct zone *z, struct page *const *units, uint32_t n, unsigned order)
{
    uint32_t i = 0;

    if (order == 0) {
        free_single_pages(mm, z, units, n);
        return;
    }
    for (; order == PAGEBLOCK_ORDER && i < n && pageblock_type(mm, page_block(units[i])) == MIGRATE_MOVABLE; i++) {
        unit_freed(units[i]);
        pageblock_turn_whole(mm, z, page_block(units[i]), true);
    }
    while (i < n) {
        struct block_edit e = block_edit_begin(mm, z, page_block(units[i]));

        do {
            struct page *p = units[i++];

            unit_freed(p);
            block_edit_free(&e, page_block_index(p), order);
        } while (i < n && page_block(units[i]) == e.block);
        end_free(mm, &e);
    }
}

void buddy_free_bulk(struct mm *mm, struct zone *z, struct page *const *units, uint32_t n, unsigned order)
{
    ASSERT_CMP(order, <=, PAGEBLOCK_ORDER);
    free_units(mm, z, units, n, order);
    zone_count(z, ZC_free, n);
}

void buddy_free(struct mm *mm, struct zone *z, struct page *p, unsigned order)
{
    struct page *halves[2] = { p, p + PAGEBLOCK_PAGES };

    ASSERT_CMP(order, <=, MAX_ORDER);
    free_units(mm, z, halves, order > PAGEBLOCK_ORDER ? 2 : 1, order > PAGEBLOCK_ORDER ? PAGEBLOCK_ORDER : order);
    zone_count(z, ZC_free, 1);
}
