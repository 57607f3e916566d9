/*
 * pageblock.h - the free map of one pageblock, and its migratetype.
 *
 * Owns: which pages inside a block are free and the zone's free area bits for it.
 * pre of everything here but pageblock_init() and page_free_order(): the zone lock is held (or nobody else runs yet).
 */
#ifndef GUEST_MM_PAGEBLOCK_H
#define GUEST_MM_PAGEBLOCK_H

#include "cpu_blocks.h"
#include "zone.h"
#include "frameshift/assert.h"

/* An empty block of movable type, offline. */
void pageblock_init(struct pageblock *pb);
void pageblock_count_reserved(struct mm *mm, uint32_t block);

/* Change the block's type; its free units go along. */
void pageblock_set_type(struct mm *mm, struct zone *z, uint32_t block, enum migratetype type);
static inline enum migratetype pageblock_type(const struct mm *mm, uint32_t block)
{
    return (enum migratetype)atomic_load_explicit(&mm_block(mm, block)->type, memory_order_relaxed);
}
static inline void zone_count_free(struct zone *z, enum migratetype type, int64_t pages)
{
    if (type == MIGRATE_ISOLATE) {
        z->isolated_free_pages += (uint64_t)pages;
    } else {
        /* Only written under the zone lock; atomic for the readers. */
        atomic_store_explicit(&z->free_pages, zone_settled_pages(z) + (uint64_t)pages, memory_order_relaxed);
    }
}

/* ---- the map ---- */

static inline uint64_t free_map_word(const struct free_map *m, uint32_t w)
{
    return atomic_load_explicit(&m->word[w], memory_order_relaxed);
}
/* The bits of a unit of order < 6 that begins at page i, in i's word. */
static inline uint64_t free_map_bits(uint32_t i, unsigned order) { return (~0ull >> (64 - (1u << order))) << (i % 64); }

/* Is every page of the aligned run [i, i + 2^order) free? */
static inline bool free_map_has(const struct free_map *m, uint32_t i, unsigned order)
{
    if (order < 6) {
        uint64_t bits = free_map_bits(i, order);
        return (free_map_word(m, i / 64) & bits) == bits;
    }
    for (uint32_t w = i / 64; w < (i + (1u << order)) / 64; w++) {
        if (free_map_word(m, w) != ~0ull) {
            return false;
        }
    }
    return true;
}
/* Turn an aligned run of order around, so that it is free, or is not. pre: all of it was the other */
static inline void free_map_turn(struct free_map *m, uint32_t i, unsigned order, bool is_free)
{
    if (order < 6) {
        atomic_store_explicit(&m->word[i / 64], free_map_word(m, i / 64) ^ free_map_bits(i, order), memory_order_relaxed);
        return;
    }
    for (uint32_t w = i / 64; w < (i + (1u << order)) / 64; w++) {
        atomic_store_explicit(&m->word[w], is_free ? ~0ull : 0, memory_order_relaxed);
    }
}
/* The units of exactly order < 6 that lie in word w: a bit at the first page of each. */
uint64_t free_map_units(const struct free_map *m, uint32_t w, unsigned order);
/* The order of the free unit that the page lies in; a snapshot unless the zone lock is held. pre: page_is_free() */
unsigned page_free_order(const struct mm *mm, const struct page *p);

/* ---- changing it ---- */

/* A block whose map is being changed: order_mask, the area bits and the counts of free pages follow at the end, so
 * that what comes and goes meanwhile costs nothing. */
struct block_edit {
    struct zone *z;
    struct cpu_blocks *own;                     /* whose block it is, if only its lock is held; else NULL */
    uint64_t (*free_units)[MIGRATE_TYPES];      /* the zone's counts, or the CPU's */
    struct pageblock *pb;
    struct free_map *map;
    uint32_t block;
    enum migratetype type;
    uint32_t mask;
    int32_t pages;                              /* more free than before */
};

static inline struct block_edit block_edit_begin(struct mm *mm, struct zone *z, uint32_t block)
{
    struct pageblock *pb = mm_block(mm, block);

    return (struct block_edit){ .z = z, .free_units = z->free_units, .pb = pb, .map = mm_block_free_map(mm, block), .block = block,
                                .type = pageblock_type(mm, block), .mask = pb->order_mask };
}
/* The same for a block of own. pre: own's lock is held, and not the zone's */
static inline struct block_edit block_edit_begin_own(struct mm *mm, struct zone *z, struct cpu_blocks *own, uint32_t block)
{
    struct block_edit e = block_edit_begin(mm, z, block);

    e.own = own;
    e.free_units = own->free_units;
    return e;
}
/* n more units of order (less, if it is negative). */
static inline void block_edit_units(struct block_edit *e, unsigned order, int32_t n)
{
    bool any = n > 0;

    if (order < PAGEBLOCK_ORDER) {
        e->pb->units[order] = (uint16_t)(e->pb->units[order] + n);
        any = e->pb->units[order] != 0;
    }
    e->mask = (e->mask & ~(1u << order)) | (uint32_t)any << order;
    e->free_units[order][e->type] += (uint64_t)(int64_t)n;
}
/* The unit becomes free and merges with its buddies. pre: none of its pages is free, every word of it is PAGE_NONE */
static inline void block_edit_free(struct block_edit *e, uint32_t i, unsigned order)
{
    ASSERT_CMP(i & ((1u << order) - 1), ==, 0);
    ASSERT_CMP((free_map_word(e->map, i / 64) >> (i % 64)) & 1u, ==, 0);
    free_map_turn(e->map, i, order, true);
    e->pages += 1 << order;
    while (order < PAGEBLOCK_ORDER && free_map_has(e->map, i ^ (1u << order), order)) {
        block_edit_units(e, order, -1);
        i &= ~(1u << order);
        order++;
    }
    block_edit_units(e, order, 1);
}
/* The order of the free unit that page i lies in, as far as its word tells: at most 6. pre: i's bit is set */
static inline unsigned word_unit_order(uint64_t bits, uint32_t i)
{
    uint64_t r1 = bits & bits >> 1, r2 = r1 & r1 >> 2, r3 = r2 & r2 >> 4, r4 = r3 & r3 >> 8, r5 = r4 & r4 >> 16;

    return (unsigned)((r1 >> (i & 62u) & 1) + (r2 >> (i & 60u) & 1) + (r3 >> (i & 56u) & 1) + (r4 >> (i & 48u) & 1) + (r5 >> (i & 32u) & 1)
                      + (bits == ~0ull));
}

/* What a page that becomes free and merges to a unit of some order < 6 adds to the counts of units of orders 0 to 3 and 4 to 7: one more
 * of that order, one less of each below. 16 bits each; a borrow goes into the next one, but not out of the sum with counts that are true. */
struct unit_lanes { uint64_t of[2]; };
extern const struct unit_lanes merge_lanes[6];

/* Which of four counts below 2^15 are not zero, a bit each. */
static inline uint32_t lanes_any(uint64_t lanes)
{
    return (uint32_t)(((lanes + 0x7fff7fff7fff7fffull) >> 15 & 0x0001000100010001ull) * 0x0001000200040008ull >> 48) & 15u;
}

/* Somebody who holds the zone has changed the block: it is no CPU's any more. */
static inline void pageblock_changes(struct zone *z, uint32_t block)
{
    if (fs_unlikely(atomic_load_explicit(&z->owned_blocks, memory_order_relaxed) != 0)) {
        cpu_blocks_disown(z, block);
    }
}

/* The orders that a block has units of, and its bits in the zone's areas. */
void pageblock_set_mask(struct zone *z, struct pageblock *pb, uint32_t block, uint32_t mask);
/* What pages that are freed together add to the zone's counts of one type. */
struct free_sum {
    struct unit_lanes units;
    uint32_t pages;
};
/* A page becomes free and merges with its buddies, with no branch on how far: pages that come back in no order would mispredict it each
 * time. The zone's counts go to *sum; order_mask and the area bits must be made true by pageblock_end_pages().
 * False, and nothing is done: it fills its word, and the words beside it count. pre: as block_edit_free() */
static inline bool pageblock_free_page(struct pageblock *pb, struct free_map *map, uint32_t i, struct free_sum *sum)
{
    uint64_t bits = free_map_word(map, i / 64), bit = 1ull << (i % 64);
    unsigned order = word_unit_order(bits | bit, i);

    ASSERT_CMP(bits & bit, ==, 0);
    if (fs_unlikely(order == 6)) {
        return false;
    }
    atomic_store_explicit(&map->word[i / 64], bits | bit, memory_order_relaxed);
    for (unsigned k = 0; k < 2; k++) {
        pb->lanes[k] += merge_lanes[order].of[k];
        sum->units.of[k] += merge_lanes[order].of[k];
    }
    pb->free_pages++;
    sum->pages++;
    return true;
}
static inline uint32_t pageblock_mask(const struct pageblock *pb)
{
    return (pb->order_mask & ~0xffu) | lanes_any(pb->lanes[0]) | lanes_any(pb->lanes[1]) << 4;
}
/* pre: it is no CPU's own */
static inline void pageblock_end_pages(struct zone *z, struct pageblock *pb, uint32_t block)
{
    uint32_t mask = pageblock_mask(pb);

    if (fs_unlikely(mask != pb->order_mask)) {
        pageblock_set_mask(z, pb, block, mask);
    }
}
/* Add the units of *sum, of at most 2^14 pages, to counts of that type. */
void free_sum_units(uint64_t (*free_units)[MIGRATE_TYPES], enum migratetype type, struct free_sum *sum);
/* Count *sum in the zone, and begin anew. */
void free_sum_add(struct zone *z, enum migratetype type, struct free_sum *sum);

/* The first 2^order pages of the free unit at i, of order have, are not free any more; the rest is. */
static inline void block_edit_take(struct block_edit *e, uint32_t i, unsigned have, unsigned order)
{
    ASSERT_CMP((free_map_word(e->map, i / 64) >> (i % 64)) & 1u, ==, 1);
    free_map_turn(e->map, i, order, false);
    e->pages -= 1 << order;
    block_edit_units(e, have, -1);
    while (have > order) {
        block_edit_units(e, --have, 1);
    }
}
/* Make order_mask, area bits and counts true. A block that became free as a whole keeps its type. */
void block_edit_end(struct block_edit *e);

/* A block of movable type becomes free as a whole, or stops being so. pre: all of it was the other */
void pageblock_turn_whole(struct mm *mm, struct zone *z, uint32_t block, bool is_free);
/* Take a whole free unit. */
void pageblock_unlink(struct mm *mm, struct zone *z, struct page *p, unsigned order);
/* The head of a free unit of exactly order in the block: the highest (on the six traces fewer pages then move than with the
 * lowest). pre: order_mask has it */
struct page *pageblock_first(const struct mm *mm, uint32_t block, unsigned order);
/* The head of the unit that the page lies in; NULL: it is free, or its unit is being cut. */
struct page *page_head(const struct mm *mm, struct page *p);

#endif
