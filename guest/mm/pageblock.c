/*
 * pageblock.c - the free map of one pageblock, and its migratetype.
 *
 * Owns: section.free_maps; pageblock.units, order_mask, free_pages, type; the
 *   zone's area bits, free_units and free page counters.
 * Invariants (between two edits of a block):
 *   I1  the free units of a block are the largest aligned runs of its free map, so two free buddies
 *       cannot exist side by side; units[o] counts those of order o.
 *   I2  bit o of order_mask is set exactly when the block has a free unit of order o.
 *   I3  bit (position of block) of area[o][t] is set exactly when the block has type t and
 *       bit o of order_mask.
 *   I4  free_pages counts the map's bits; free_units[o][t] counts units by zone.
 *   I5  zone.free_pages leaves out blocks of MIGRATE_ISOLATE; isolated_free_pages has them.
 * Lock order: the zone lock is held by the caller.
 * Why: a page that is freed in random order costs the cache lines that freeing touches.  Lists through the
 *   pages, or states in them, take the buddies' and the neighbours' lines as well as its own; the map is one line for
 *   512 pages.  And changing a block's type cannot leave a page on the wrong list.
 * Cost: the map's line and the block (32 bytes); an area bit only when the first unit of an order is there at the
 *   end of an edit, or the last one gone.  A change of type moves at most ten bits.
 */
#include "pageblock.h"

void pageblock_init(struct pageblock *pb)
{
    *pb = (struct pageblock){ .type = MIGRATE_MOVABLE, .saved_type = MIGRATE_MOVABLE, .offline = 1 };
}

void pageblock_count_reserved(struct mm *mm, uint32_t block)
{
    struct page *first = mm_block_page(mm, block);
    unsigned n = 0;

    for (uint32_t i = 0; i < PAGEBLOCK_PAGES; i++) {
        enum page_state s = page_state(first + i);
        n += s == PAGE_RESERVED || s == PAGE_HOLE;
    }
    mm_block(mm, block)->reserved_pages = (uint16_t)n;
}

void pageblock_set_type(struct mm *mm, struct zone *z, uint32_t block, enum migratetype type)
{
    struct pageblock *pb = mm_block(mm, block);
    enum migratetype old = pageblock_type(mm, block);

    if (old == type) {
        return;
    }
    pageblock_changes(z, block);
    for (unsigned o = 0; o < FREE_ORDERS; o++) {
        if (pb->order_mask & (1u << o)) {
            uint64_t units = o < PAGEBLOCK_ORDER ? pb->units[o] : 1;

            blockmap_clear(&z->area[o][old], block_position(z, block));
            blockmap_set(&z->area[o][type], block_position(z, block));
            z->free_units[o][old] -= units;
            z->free_units[o][type] += units;
        }
    }
    zone_count_free(z, old, -(int64_t)pb->free_pages);
    zone_count_free(z, type, pb->free_pages);
    z->blocks_of[old]--;
    z->blocks_of[type]++;
    atomic_store_explicit(&pb->type, (uint8_t)type, memory_order_relaxed);
    if (pb->flags & PB_TENANTS && type == MIGRATE_MOVABLE) {
        z->tenant_blocks--;                     /* movable pages are at home in it now */
        pb->flags &= (uint8_t)~PB_TENANTS;
    }
    pb->flags &= (uint8_t)~PB_CLAIMED;
}

#define LANE(o) (1ull << (16 * (o) % 64))
#define LANES_03 (LANE(0) + LANE(1) + LANE(2) + LANE(3))

const struct unit_lanes merge_lanes[6] = {
    { { LANE(0), 0 } },
    { { LANE(1) - LANE(0), 0 } },
    { { LANE(2) - LANE(1) - LANE(0), 0 } },
    { { LANE(3) - LANE(2) - LANE(1) - LANE(0), 0 } },
    { { 0 - LANES_03, LANE(4) } },
    { { 0 - LANES_03, LANE(5) - LANE(4) } },
};

void free_sum_units(uint64_t (*free_units)[MIGRATE_TYPES], enum migratetype type, struct free_sum *sum)
{
    for (unsigned o = 0; o < FS_ARRAY_SIZE(merge_lanes); o++) {
        uint64_t *lanes = &sum->units.of[o / 4];
        int16_t n = (int16_t)*lanes;

        free_units[o][type] += (uint64_t)(int64_t)n;
        *lanes = (*lanes - (uint64_t)(int64_t)n) >> 16;     /* what is above takes back what n borrowed from it */
    }
}

void free_sum_add(struct zone *z, enum migratetype type, struct free_sum *sum)
{
    free_sum_units(z->free_units, type, sum);
    zone_count_free(z, type, sum->pages);
    *sum = (struct free_sum){ .pages = 0 };
}

void pageblock_set_mask(struct zone *z, struct pageblock *pb, uint32_t block, uint32_t mask)
{
    enum migratetype type = (enum migratetype)atomic_load_explicit(&pb->type, memory_order_relaxed);

    for (uint32_t changed = mask ^ pb->order_mask; changed != 0; changed &= changed - 1) {
        unsigned o = fs_ctz64(changed);

        if (mask & (1u << o)) {
            blockmap_set(&z->area[o][type], block_position(z, block));
        } else {
            blockmap_clear(&z->area[o][type], block_position(z, block));
        }
    }
    pb->order_mask = (uint16_t)mask;
}

void block_edit_end(struct block_edit *e)
{
    if (fs_unlikely(e->own != NULL)) {
        cpu_blocks_edit_end(e->own, e->pb, block_position(e->z, e->block), e->mask, e->pages);
        return;
    }
    pageblock_changes(e->z, e->block);
    pageblock_set_mask(e->z, e->pb, e->block, e->mask);
    e->pb->free_pages = (uint16_t)(e->pb->free_pages + e->pages);
    zone_count_free(e->z, e->type, e->pages);
}

void pageblock_turn_whole(struct mm *mm, struct zone *z, uint32_t block, bool is_free)
{
    struct pageblock *pb = mm_block(mm, block);
    struct free_map *map = mm_block_free_map(mm, block);
    struct blockmap *area = &z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE];

    ASSERT_CMP(pb->free_pages, ==, is_free ? 0 : PAGEBLOCK_PAGES);
    pageblock_changes(z, block);
    free_map_turn(map, 0, PAGEBLOCK_ORDER, is_free);
    pb->free_pages = is_free ? PAGEBLOCK_PAGES : 0;
    pb->order_mask = (uint16_t)(is_free ? 1u << PAGEBLOCK_ORDER : 0);
    if (is_free) {
        blockmap_set(area, block_position(z, block));
    } else {
        blockmap_clear(area, block_position(z, block));
    }
    z->free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE] += is_free ? 1 : UINT64_MAX;
    zone_count_free(z, MIGRATE_MOVABLE, is_free ? (int64_t)PAGEBLOCK_PAGES : -(int64_t)PAGEBLOCK_PAGES);
}

void pageblock_unlink(struct mm *mm, struct zone *z, struct page *p, unsigned order)
{
    struct block_edit e = block_edit_begin(mm, z, page_block(p));

    block_edit_take(&e, page_block_index(p), order, order);
    block_edit_end(&e);
}

/* A bit at the first page of each aligned run of 2^order set bits; order <= 6. */
static uint64_t runs(uint64_t bits, unsigned order)
{
    static const uint64_t starts[7] = { ~0ull, 0x5555555555555555ull, 0x1111111111111111ull, 0x0101010101010101ull,
                                        0x0001000100010001ull, 0x0000000100000001ull, 1 };

    for (unsigned o = 0; o < order; o++) {
        bits &= bits >> (1u << o);              /* bit i: 2^(o+1) bits are set from i on */
    }
    return bits & starts[order];
}

static uint64_t exact(uint64_t bits, unsigned order)
{
    uint64_t larger = runs(bits, order + 1);

    return runs(bits, order) & ~(larger | larger << (1u << order));
}

uint64_t free_map_units(const struct free_map *m, uint32_t w, unsigned order)
{
    return exact(free_map_word(m, w), order);
}

struct page *pageblock_first(const struct mm *mm, uint32_t block, unsigned order)
{
    const struct free_map *m = mm_block_free_map(mm, block);
    struct page *first = mm_block_page(mm, block);
    uint64_t full = 0;

    if (order == PAGEBLOCK_ORDER) {
        return first;
    }
    for (uint32_t w = PAGEBLOCK_PAGES / 64; w-- > 0;) {
        uint64_t bits = free_map_word(m, w), units = order < 6 && bits != 0 ? exact(bits, order) : 0;

        if (units != 0) {
            return first + w * 64 + 63 - fs_clz64(units);
        }
        full |= (uint64_t)(bits == ~0ull) << w;
    }
    ASSERT_CMP(order, >=, 6);
    full = exact(full, order - 6);              /* the same over words */
    ASSERT_CMP(full, !=, 0);
    return first + (63 - fs_clz64(full)) * 64;
}

unsigned page_free_order(const struct mm *mm, const struct page *p)
{
    const struct free_map *m = mm_block_free_map(mm, page_block(p));
    unsigned order = 0;

    while (order < PAGEBLOCK_ORDER && free_map_has(m, page_block_index(p) & ~((2u << order) - 1), order + 1)) {
        order++;
    }
    return order;
}

struct page *page_head(const struct mm *mm, struct page *p)
{
    for (unsigned order = 0; order <= MAX_ORDER && !page_is_free(mm, p); order++) {
        uint64_t head_pfn = p->pfn & ~((1ull << order) - 1);
        struct page *head = mm_pfn_valid(mm, pfn_make(head_pfn)) ? mm_page(mm, pfn_make(head_pfn)) : NULL;

        if (head != NULL && page_state(head) != PAGE_NONE) {
            return page_order(head) >= order ? head : NULL;
        }
    }
    return NULL;
}
