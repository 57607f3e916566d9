/*
 * fragmentation.h - the two indices of the compaction series.
 *
 * Layer: L1.
 */
#ifndef GUEST_MM_FRAGMENTATION_H
#define GUEST_MM_FRAGMENTATION_H

#include "zone.h"

/* Free units of an order as an observer counts them: aligned pairs of free blocks are units of MAX_ORDER. */
uint64_t zone_free_units(const struct zone *z, unsigned order, enum migratetype type);
/* Share of free memory that cannot serve order, in 1/1000. */
unsigned zone_unusable_index(const struct zone *z, unsigned order);
/* -1000: a request of order would succeed; else toward 0 lack of memory, toward 1000 fragmentation. */
int zone_extfrag_index(const struct zone *z, unsigned order);

/* Which of the two can help a request of order: compaction above the threshold (or where a unit is there, but in blocks of another type),
 * reclaim at or below it. */
bool zone_compaction_helps(const struct zone *z, unsigned order, uint32_t threshold);
/* How fragmented free memory is for huge pages, in percent: the unusable index of a pageblock; that of a node weighs its zones by
 * their memory, and takes the zone locks. What kcompactd's marks are compared with. pre of the first: zone lock */
unsigned zone_fragmentation_score(const struct zone *z);
unsigned node_fragmentation_score(const struct mm *mm, uint32_t node);

#endif
