/*
 * mm_dump.h - the state of memory in lines that a person can read, and its indices.
 *
 * The tables have the shape of /proc/buddyinfo, pagetypeinfo and vmstat.  Read-only.
 */
#ifndef GUEST_MM_DUMP_H
#define GUEST_MM_DUMP_H

#include "zone.h"

typedef void (*mm_line_fn)(void *ctx, const char *line);       /* without newline */

void mm_dump_buddyinfo(const struct mm *mm, mm_line_fn out, void *ctx);
void mm_dump_pagetypeinfo(const struct mm *mm, mm_line_fn out, void *ctx);
void mm_dump_vmstat(const struct mm *mm, mm_line_fn out, void *ctx);
/* One character a pageblock, 64 a line: u m r a h i by type, upper case where it is free as a whole, # all reserved,
 * - a hole. */
void mm_dump_blocks(const struct mm *mm, mm_line_fn out, void *ctx);

/* Free units of an order as an observer counts them: aligned pairs of free blocks are units of MAX_ORDER. */
uint64_t zone_free_units(const struct zone *z, unsigned order, enum migratetype type);
/* Share of free memory that cannot serve order, in 1/1000. */
unsigned zone_unusable_index(const struct zone *z, unsigned order);
/* -1000: a request of order would succeed; else toward 0 lack of memory, toward 1000 fragmentation. */
int zone_extfrag_index(const struct zone *z, unsigned order);

#endif
