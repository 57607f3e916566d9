/*
 * fragmentation.c - the two indices of the compaction series.
 *
 * Layer: L1.
 * Owns: nothing; it only reads.
 * Invariants: none of its own.
 * Lock order: the zone lock, or numbers that may be a moment apart.
 * Why: the unusable index says how bad it is for an order; the fragmentation index says whether a failure
 *   comes from fragmentation (toward 1000: compaction helps) or from lack of memory (toward 0: reclaim helps).
 * Cost: the counters; the pairs of whole blocks are counted one by one.
 */
#include "fragmentation.h"

uint64_t zone_free_units(const struct zone *z, unsigned order, enum migratetype type)
{
    const struct blockmap *whole = &z->area[PAGEBLOCK_ORDER][type];
    uint64_t pairs = 0;

    if (order < PAGEBLOCK_ORDER) {
        return z->free_units[order][type];
    }
    for (uint32_t i = blockmap_first(whole, 0); i != BLOCKMAP_NONE; i = blockmap_first(whole, i + 1)) {
        uint32_t b = position_block(z, i);
        pairs += b % 2 == 0 && b + 1 < z->end_block && blockmap_test(whole, block_position(z, b + 1));
    }
    return order == MAX_ORDER ? pairs : whole->count - 2 * pairs;
}

/* Free pages, and those in units of at least order. */
static uint64_t suitable_pages(const struct zone *z, unsigned order, uint64_t *units)
{
    uint64_t pages = 0;

    *units = 0;
    for (unsigned o = 0; o <= MAX_ORDER; o++) {
        for (unsigned t = 0; t < MIGRATE_ISOLATE; t++) {
            uint64_t n = zone_free_units(z, o, (enum migratetype)t);

            *units += n;
            pages += o >= order ? n << o : 0;
        }
    }
    return pages;
}

unsigned zone_unusable_index(const struct zone *z, unsigned order)
{
    uint64_t units, free = zone_free_pages(z), suitable = suitable_pages(z, order, &units);

    return free == 0 ? 1000 : (unsigned)((free - suitable) * 1000 / free);
}

int zone_extfrag_index(const struct zone *z, unsigned order)
{
    uint64_t units, suitable = suitable_pages(z, order, &units), free = zone_free_pages(z);

    if (suitable > 0) {
        return -1000;
    }
    return units == 0 ? 0 : (int)(1000 - (1000 + (free * 1000 >> order)) / units);
}

unsigned zone_fragmentation_score(const struct zone *z)
{
    return zone_free_pages(z) == 0 ? 0 : zone_unusable_index(z, PAGEBLOCK_ORDER) / 10;
}

unsigned node_fragmentation_score(const struct mm *mm, uint32_t node)
{
    uint64_t present = 0, sum = 0;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        struct zone *z = &mm->zones[i];

        if (z->node == node) {
            zone_lock(z);
            present += z->present_pages;
            sum += z->present_pages * zone_fragmentation_score(z);
            zone_unlock(z);
        }
    }
    return present == 0 ? 0 : (unsigned)(sum / present);
}

bool zone_compaction_helps(const struct zone *z, unsigned order, uint32_t threshold)
{
    int index = zone_extfrag_index(z, order);

    return index < 0 || index > (int)threshold;
}
