/*
 * pageblock.h - the free lists of one pageblock, and its migratetype.
 *
 * Owns: the lists of free units inside a block and the zone's free area bits for it.
 * pre of everything here but pageblock_init(): the zone lock is held (or nobody else runs yet).
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
static inline void zone_count_free(struct zone *z, enum migratetype type, uint64_t pages, bool more)
{
    uint64_t free = zone_free_pages(z);

    if (type == MIGRATE_ISOLATE) {
        z->isolated_free_pages = more ? z->isolated_free_pages + pages : z->isolated_free_pages - pages;
    } else {
        /* Only written under the zone lock; atomic for the readers. */
        atomic_store_explicit(&z->free_pages, more ? free + pages : free - pages, memory_order_relaxed);
    }
}

/* Put the unit (which nobody holds) on its block's list; no merging. Counts free pages. */
static inline void pageblock_link(struct mm *mm, struct zone *z, struct page *p, unsigned order)
{
    uint32_t block = page_block(p);
    struct pageblock *pb = mm_block(mm, block);
    enum migratetype type = pageblock_type(mm, block);

    page_set_word(p, PAGE_WORD(PAGE_FREE, order, 0, 0));
    if (order < PAGEBLOCK_ORDER) {
        uint16_t self = (uint16_t)page_block_index(p), next = pb->head[order];
        struct page_link *links = mm_block_links(mm, block);

        links[self] = (struct page_link){ next, PAGE_LINK_NONE };
        if (next != PAGE_LINK_NONE) {
            links[next].prev = self;
        }
        pb->head[order] = self;
    }
    if (!(pb->order_mask & (1u << order))) {
        pb->order_mask = (uint16_t)(pb->order_mask | (1u << order));
        blockmap_set(&z->area[order][type], block_position(z, block));
    }
    pb->free_pages = (uint16_t)(pb->free_pages + (1u << order));
    z->free_units[order][type]++;
    zone_count_free(z, type, 1ull << order, true);
}

/* Take a free unit off its list; its word becomes PAGE_NONE. */
static inline void pageblock_unlink(struct mm *mm, struct zone *z, struct page *p, unsigned order)
{
    uint32_t block = page_block(p);
    struct pageblock *pb = mm_block(mm, block);
    enum migratetype type = pageblock_type(mm, block);
    bool last = true;

    ASSERT_CMP(page_word(p) & 0xffu, ==, PAGE_WORD(PAGE_FREE, order, 0, 0));
    page_set_word(p, PAGE_WORD(PAGE_NONE, 0, 0, 0));
    if (order < PAGEBLOCK_ORDER) {
        struct page_link *links = mm_block_links(mm, block), self = links[page_block_index(p)];

        if (self.prev != PAGE_LINK_NONE) {
            links[self.prev].next = self.next;
        } else {
            pb->head[order] = self.next;
        }
        if (self.next != PAGE_LINK_NONE) {
            links[self.next].prev = self.prev;
        }
        last = pb->head[order] == PAGE_LINK_NONE;
    }
    if (last) {
        pb->order_mask = (uint16_t)(pb->order_mask & ~(1u << order));
        blockmap_clear(&z->area[order][type], block_position(z, block));
    }
    pb->free_pages = (uint16_t)(pb->free_pages - (1u << order));
    z->free_units[order][type]--;
    zone_count_free(z, type, 1ull << order, false);
}

/* The head of the first free unit of order in the block. pre: order_mask has it */
struct page *pageblock_first(const struct mm *mm, uint32_t block, unsigned order);
/* The head of the unit that the pfn lies in. pre: valid pfn */
struct page *page_head(const struct mm *mm, struct page *p);

#endif
