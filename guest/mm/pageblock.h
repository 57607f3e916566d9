/*
 * pageblock.h - the free map of one pageblock, and its migratetype.
 *
 * Owns: which pages inside a block are free and the zone's free area bits for it.
 * pre of everything here but pageblock_init() and page_free_order(): the zone lock is held (or nobody else runs yet).
 */
#ifndef GUEST_MM_PAGEBLOCK_H
#define GUEST_MM_PAGEBLOCK_H

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
        atomic_store_explicit(&z->free_pages, zone_free_pages(z) + (uint64_t)pages, memory_order_relaxed);
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

    return (struct block_edit){ .z = z, .pb = pb, .map = mm_block_free_map(mm, block), .block = block,
                                .type = pageblock_type(mm, block), .mask = pb->order_mask };
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
    e->z->free_units[order][e->type] += (uint64_t)(int64_t)n;
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

/* Take a whole free unit. */
void pageblock_unlink(struct mm *mm, struct zone *z, struct page *p, unsigned order);
/* The head of a free unit of exactly order in the block: the highest (on the six traces fewer pages then move than with the
 * lowest). pre: order_mask has it */
struct page *pageblock_first(const struct mm *mm, uint32_t block, unsigned order);
/* The head of the unit that the page lies in; NULL: it is free, or its unit is being cut. */
struct page *page_head(const struct mm *mm, struct page *p);

#endif
