/*
 * pageblock.c - the free lists of one pageblock, and its migratetype.
 *
 * Owns: pageblock.head, order_mask, free_pages, type; section.links; the
 *   zone's area bits, free_units and free page counters.
 * Invariants:
 *   I1  a PAGE_FREE head of order < PAGEBLOCK_ORDER is on head[order] of its own block; one of
 *       PAGEBLOCK_ORDER is its block as a whole.
 *   I2  bit o of order_mask is set exactly when the block has a free unit of order o.
 *   I3  bit (position of block) of area[o][t] is set exactly when the block has type t and
 *       bit o of order_mask.
 *   I4  free_pages is the sum over the block's free units; free_units[o][t] counts them by zone.
 *   I5  zone.free_pages leaves out blocks of MIGRATE_ISOLATE; isolated_free_pages has them.
 * Lock order: the zone lock is held by the caller.
 * Why: with the lists inside the block, changing a block's type cannot leave a page on
 *   the wrong list: nothing is moved but the block's bits.
 * Cost: link and unlink touch the page, one neighbour and the block (32 bytes); a bit only
 *   when the first unit of an order comes or the last one goes.  A change of type moves at most
 *   ten bits and counts the block's units once (at most 256).
 */
#include "pageblock.h"

void pageblock_init(struct pageblock *pb)
{
    *pb = (struct pageblock){ .type = MIGRATE_MOVABLE, .saved_type = MIGRATE_MOVABLE, .offline = 1 };
    for (unsigned o = 0; o < PAGEBLOCK_ORDER; o++) {
        pb->head[o] = PAGE_LINK_NONE;
    }
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

static uint64_t units_of(const struct mm *mm, uint32_t block, unsigned order)
{
    const struct pageblock *pb = mm_block(mm, block);
    uint64_t n = 0;

    if (order == PAGEBLOCK_ORDER) {
        return 1;
    }
    for (uint16_t i = pb->head[order]; i != PAGE_LINK_NONE; i = mm_block_links(mm, block)[i].next) {
        n++;
    }
    return n;
}

void pageblock_set_type(struct mm *mm, struct zone *z, uint32_t block, enum migratetype type)
{
    struct pageblock *pb = mm_block(mm, block);
    enum migratetype old = pageblock_type(mm, block);

    if (old == type) {
        return;
    }
    for (unsigned o = 0; o < FREE_ORDERS; o++) {
        if (pb->order_mask & (1u << o)) {
            uint64_t units = units_of(mm, block, o);

            blockmap_clear(&z->area[o][old], block_position(z, block));
            blockmap_set(&z->area[o][type], block_position(z, block));
            z->free_units[o][old] -= units;
            z->free_units[o][type] += units;
        }
    }
    zone_count_free(z, old, pb->free_pages, false);
    zone_count_free(z, type, pb->free_pages, true);
    z->blocks_of[old]--;
    z->blocks_of[type]++;
    atomic_store_explicit(&pb->type, (uint8_t)type, memory_order_relaxed);
    if (pb->flags & PB_TENANTS && !migratetype_is_kernel(type) && type != MIGRATE_ISOLATE) {
        z->tenant_blocks--;                     /* movable pages are at home in it now */
        pb->flags &= (uint8_t)~PB_TENANTS;
    }
    pb->flags &= (uint8_t)~PB_CLAIMED;
}

struct page *pageblock_first(const struct mm *mm, uint32_t block, unsigned order)
{
    struct page *first = mm_block_page(mm, block);

    return order == PAGEBLOCK_ORDER ? first : first + mm_block(mm, block)->head[order];
}

struct page *page_head(const struct mm *mm, struct page *p)
{
    for (unsigned order = 0; order <= MAX_ORDER; order++) {
        uint64_t head_pfn = p->pfn & ~((1ull << order) - 1);
        struct page *head = mm_pfn_valid(mm, pfn_make(head_pfn)) ? mm_page(mm, pfn_make(head_pfn)) : NULL;

        if (head != NULL && page_state(head) != PAGE_NONE) {
            return page_order(head) >= order ? head : NULL;
        }
    }
    return NULL;
}
