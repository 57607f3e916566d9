/*
 * mm_dump.h - the state of memory in lines that a person can read, and its indices.
 *
 * The tables have the shape of /proc/buddyinfo, pagetypeinfo and vmstat.  Read-only.
 */
#ifndef GUEST_MM_DUMP_H
#define GUEST_MM_DUMP_H

#include "fragmentation.h"

typedef void (*mm_line_fn)(void *ctx, const char *line);       /* without newline */

void mm_dump_buddyinfo(const struct mm *mm, mm_line_fn out, void *ctx);
void mm_dump_pagetypeinfo(const struct mm *mm, mm_line_fn out, void *ctx);
void mm_dump_vmstat(const struct mm *mm, mm_line_fn out, void *ctx);
/* A line a zone and CPU: its own blocks (cpu_blocks.h), and by how much the tables above lag behind because of them. */
void mm_dump_cpu_blocks(const struct mm *mm, mm_line_fn out, void *ctx);
/* One character a pageblock, 64 a line: u m r a h i by type, upper case where it is free as a whole, # all reserved,
 * - a hole. */
void mm_dump_blocks(const struct mm *mm, mm_line_fn out, void *ctx);

#endif
