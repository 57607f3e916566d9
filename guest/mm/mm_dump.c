/*
 * mm_dump.c - the state of memory in lines.
 *
 * Owns: nothing; it only reads, without locks: numbers of a running system may be a moment apart.
 * Invariants: none of its own.
 * Lock order: none.
 * Why: an allocator whose state cannot be looked at cannot be trusted.  The indices are the ones
 *   of the compaction series: the unusable index says how bad it is for an order, the
 *   fragmentation index says which of reclaim and compaction can help.
 * Cost: the counters only; mm_dump_blocks one pass over the pageblocks.
 */
#include "mm_dump.h"
#include "pageblock.h"
#include "../lib/text.h"

static void zone_title(struct text *t, const struct zone *z)
{
    text_clear(t);
    text_word(t, "Node ");
    text_number(t, z->node);
    text_word(t, ", zone ");
    text_word(t, zone_kind_name((enum zone_kind)z->kind));
}

void mm_dump_buddyinfo(const struct mm *mm, mm_line_fn out, void *ctx)
{
    struct text t;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        zone_title(&t, &mm->zones[i]);
        text_pad(&t, 24);
        for (unsigned o = 0; o <= MAX_ORDER; o++) {
            uint64_t n = 0;

            for (unsigned type = 0; type < MIGRATE_TYPES; type++) {
                n += zone_free_units(&mm->zones[i], o, (enum migratetype)type);
            }
            text_column(&t, n, 7);
        }
        out(ctx, t.line);
    }
}

void mm_dump_pagetypeinfo(const struct mm *mm, mm_line_fn out, void *ctx)
{
    struct text t;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        const struct zone *z = &mm->zones[i];

        for (unsigned type = 0; type < MIGRATE_TYPES; type++) {
            zone_title(&t, z);
            text_word(&t, ", type ");
            text_word(&t, migratetype_name((enum migratetype)type));
            text_pad(&t, 42);
            for (unsigned o = 0; o <= MAX_ORDER; o++) {
                text_column(&t, zone_free_units(z, o, (enum migratetype)type), 7);
            }
            text_word(&t, "  blocks ");
            text_number(&t, z->blocks_of[type]);
            out(ctx, t.line);
        }
    }
}

void mm_dump_vmstat(const struct mm *mm, mm_line_fn out, void *ctx)
{
    struct text t;

    text_clear(&t);
    text_word(&t, "nr_free_pages ");
    text_number(&t, mm_free_pages(mm));
    out(ctx, t.line);
    for (unsigned c = 0; c < ZONE_COUNTERS; c++) {
        text_clear(&t);
        text_word(&t, zone_counter_name((enum zone_counter)c));
        text_word(&t, " ");
        text_number(&t, mm_counter(mm, (enum zone_counter)c));
        out(ctx, t.line);
    }
}

void mm_dump_cpu_blocks(const struct mm *mm, mm_line_fn out, void *ctx)
{
    struct text t;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        const struct zone *z = &mm->zones[i];

        for (unsigned cpu = 0; cpu < z->cpus; cpu++) {
            const struct cpu_blocks *c = &z->cpu_blocks[cpu];
            int64_t n = atomic_load_explicit(&c->free_pages, memory_order_relaxed);

            zone_title(&t, z);
            text_word(&t, ", cpu ");
            text_number(&t, cpu);
            text_word(&t, ": own ");
            text_number(&t, c->own.count);
            text_word(&t, ", with free pages ");
            text_number(&t, c->avail.count);
            text_word(&t, ", unsettled ");
            text_number(&t, c->dirty.count);
            text_word(&t, n < 0 ? ", pages -" : ", pages ");
            text_number(&t, (uint64_t)(n < 0 ? -n : n));
            out(ctx, t.line);
        }
    }
}

static char block_char(const struct mm *mm, uint32_t block)
{
    const struct pageblock *pb;

    if (!mm_pfn_valid(mm, block_pfn(block)) || mm_block(mm, block)->offline) {
        return '-';
    }
    pb = mm_block(mm, block);
    if (pb->reserved_pages == PAGEBLOCK_PAGES) {
        return '#';
    }
    return (pb->free_pages == PAGEBLOCK_PAGES ? "UMRAHI" : "umrahi")[pageblock_type(mm, block)];
}

void mm_dump_blocks(const struct mm *mm, mm_line_fn out, void *ctx)
{
    uint32_t end = (uint32_t)(mm->end_pfn >> PAGEBLOCK_ORDER);
    struct text t;

    for (uint32_t b = 0; b < end; b += 64) {
        text_clear(&t);
        text_hex(&t, block_pfn(b).n);
        text_pad(&t, 12);
        for (uint32_t k = b; k < b + 64 && k < end; k++) {
            char c[2] = { block_char(mm, k), '\0' };
            text_word(&t, c);
        }
        out(ctx, t.line);
    }
}
