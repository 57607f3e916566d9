/*
 * after.c - what can be made of the memory that a replay leaves.
 *
 * Owns: the trials; the world is the caller's and stays as it was.
 * Invariants: I1  a trial ends with world_check(), and its faults are part of the result.
 * Lock order: none.
 * Why: the baseline saved the machine and started every test from the saved state; a forked child
 *   is the same for a process.
 * Cost: one fork a trial; pages are copied as they are written.
 */
#include "after.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "isolation.h"
#include "pageblock.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

typedef void (*trial_fn)(struct world *w, const void *argument, void *out);

static bool write_all(int fd, const char *data, size_t bytes)
{
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes);

        if (n <= 0 && errno != EINTR) {
            return false;
        }
        data += n > 0 ? n : 0;
        bytes -= n > 0 ? (size_t)n : 0;
    }
    return true;
}

static bool in_child(struct world *w, trial_fn fn, const void *argument, void *out, size_t bytes)
{
    int fds[2], status = -1;
    size_t have = 0;
    pid_t child;

    fflush(NULL);
    if (pipe(fds) != 0) {
        return false;
    }
    child = fork();
    if (child == 0) {
        fn(w, argument, out);
        _exit(write_all(fds[1], out, bytes) ? 0 : 1);
    }
    close(fds[1]);
    while (child > 0 && have < bytes) {
        ssize_t n = read(fds[0], (char *)out + have, bytes - have);

        if (n <= 0) {
            break;
        }
        have += (size_t)n;
    }
    close(fds[0]);
    return child > 0 && waitpid(child, &status, 0) == child && status == 0 && have == bytes;
}

/* ---- compaction alone ---- */

static int by_number(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* Sum of the used pages of the emptiest blocks that hold nothing immovable: no fewer moves make so many blocks. */
static uint64_t least_moves(const struct mm *mm, uint64_t blocks)
{
    uint32_t *used = calloc(mm->end_pfn >> PAGEBLOCK_ORDER, sizeof(*used)), n = 0;
    uint64_t sum = 0;

    for (uint32_t b = 0; used != NULL && b < mm->end_pfn >> PAGEBLOCK_ORDER; b++) {
        if (mm_pfn_valid(mm, block_pfn(b)) && mm_block(mm, b)->free_pages != PAGEBLOCK_PAGES && block_immovable_page(mm, b) == NULL) {
            used[n++] = PAGEBLOCK_PAGES - mm_block(mm, b)->free_pages;
        }
    }
    if (n > 0) {
        qsort(used, n, sizeof(*used), by_number);
    }
    for (uint64_t i = 0; i < blocks && i < n; i++) {
        sum += used[i];
    }
    free(used);
    return sum;
}

static struct compact_result compact_by_pfn(struct mm *mm)
{
    struct compact_request request = { .order = COMPACT_BY_PFN, .targets = TARGET_MOVABLE, .blocks_wanted = UINT32_MAX, .mode = COMPACT_SYNC,
                                       .ignore_hints = true };
    struct compact_result sum = { .blocks_made = 0 };

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        struct compact_result r;

        if (compact_zone(mm, &mm->zones[i], &request, &r) == MM_OK) {
            sum.migrated_pages += r.migrated_pages;
            sum.failed_pages += r.failed_pages;
            sum.migrate_scanned += r.migrate_scanned;
            sum.free_scanned += r.free_scanned;
        }
    }
    return sum;
}

static void do_compact(struct world *w, const void *argument, void *result)
{
    const unsigned *targets = argument;
    struct compact_trial *out = result;
    uint64_t start;
    struct block_figures blocks;
    struct free_figures f;
    struct compact_result r;

    figures_free(&w->mm, &f);
    *out = (struct compact_trial){ .free_pages = f.free_pages, .free_huge_before = f.free_huge, .unusable_before = f.unusable[PAGEBLOCK_ORDER],
                                   .blocks_possible = f.free_pages / PAGEBLOCK_PAGES };
    start = arch_time_ns();
    r = *targets == TRIAL_BY_PFN ? compact_by_pfn(&w->mm) : compact_all(&w->mm, (enum compact_targets)*targets);
    out->ns = arch_time_ns() - start;
    mm_drain(&w->mm);
    figures_free(&w->mm, &f);
    figures_blocks(&w->mm, &blocks);
    out->free_huge_after = f.free_huge;
    out->unusable_after = f.unusable[PAGEBLOCK_ORDER];
    out->migrated = r.migrated_pages;
    out->failed = r.failed_pages;
    out->migrate_scanned = r.migrate_scanned;
    out->free_scanned = r.free_scanned;
    out->polluted_after = blocks.polluted - blocks.polluted_boot;
    out->faults = world_check(w);
}

bool trial_compact(struct world *w, unsigned targets, struct compact_trial *out)
{
    if (!in_child(w, do_compact, &targets, out, sizeof(*out))) {
        return false;
    }
    out->moves_least = least_moves(&w->mm, (out->free_huge_after - out->free_huge_before) / PAGEBLOCK_PAGES);
    return true;
}

/* ---- the kernel's holes as a loan ---- */

static uint64_t polluting_fallbacks(const struct mm *mm)
{
    return mm_counter(mm, ZC_fallback_fragmenting) - mm_counter(mm, ZC_fallback_kernel) - mm_counter(mm, ZC_fallback_tenant);
}

static void do_loan(struct world *w, const void *argument, void *result)
{
    const bool *compact = argument;
    struct loan_trial *out = result;
    struct block_figures f;
    uint64_t polluting = polluting_fallbacks(&w->mm), migrated, spare = 0;

    figures_blocks(&w->mm, &f);
    *out = (struct loan_trial){ .blocks_before = f.with_non_movable };
    if (*compact) {
        (void)compact_all(&w->mm, TARGET_DEFAULT);
    }
    migrated = w->migrated;
    for (uint32_t z = 0; z < w->mm.zone_count; z++) {
        uint64_t free = zone_free_pages(&w->mm.zones[z]), high = w->mm.zones[z].watermark[WMARK_HIGH];

        spare += free > high ? free - high : 0;
    }
    out->pages = spare < f.kernel_blocks_free ? spare : f.kernel_blocks_free;           /* as much as its holes were */
    for (uint64_t i = 0; i < out->pages; i++) {
        out->failed += alloc_pages(&w->mm, i % 3 != 0 ? GFP_KERNEL : GFP_KERNEL | __GFP_RECLAIMABLE, 0) == NULL;
        world_background(w);
    }
    mm_drain(&w->mm);
    figures_blocks(&w->mm, &f);
    out->blocks = f.with_non_movable;
    out->polluted = f.polluted - f.polluted_boot;
    out->polluting = polluting_fallbacks(&w->mm) - polluting;
    out->migrated = w->migrated - migrated;
    out->faults = world_check(w);
}

bool trial_loan(struct world *w, bool compact, struct loan_trial *out)
{
    return in_child(w, do_loan, &compact, out, sizeof(*out));
}

/* ---- huge pages ---- */

/* Clean page cache, as the recording kernel's own flags tell it. */
static bool droppable(const struct object *o)
{
    return o->page != NULL && o->type == MIGRATE_MOVABLE && o->kind == KIND_LRU;
}

static uint64_t drop_cache(struct world *w, uint64_t first_pfn, uint64_t end_pfn, uint64_t most)
{
    uint64_t dropped = 0;

    for (uint32_t id = OBJECT_FIRST; id < w->object_count && dropped < most; id++) {
        const struct object *o = &w->objects[id];

        if (droppable(o) && o->page->pfn >= first_pfn && o->page->pfn < end_pfn) {
            dropped += 1ull << o->order;
            world_free_object(w, id);
        }
    }
    return dropped;
}

/* No allocator could make more blocks: those without an immovable page, and not more than there is free memory
 * (and clean page cache, where that may be dropped). */
static uint64_t theory(const struct world *w, bool reclaim)
{
    const struct mm *mm = &w->mm;
    uint64_t blocks = 0, free = 0;

    for (uint32_t id = OBJECT_FIRST; reclaim && id < w->object_count; id++) {
        free += droppable(&w->objects[id]) ? 1ull << w->objects[id].order : 0;
    }
    for (uint32_t b = 0; b < mm->end_pfn >> PAGEBLOCK_ORDER; b++) {
        if (mm_pfn_valid(mm, block_pfn(b))) {
            blocks += block_immovable_page(mm, b) == NULL;
            free += mm_block(mm, b)->free_pages;
        }
    }
    return blocks < free / PAGEBLOCK_PAGES ? blocks : free / PAGEBLOCK_PAGES;
}

/* Pages of a block that are neither free nor clean page cache. */
static uint32_t stubborn_pages(const struct world *w, uint32_t block)
{
    const struct page *first = mm_block_page(&w->mm, block);
    uint32_t n = 0;

    for (uint32_t i = 0; i < PAGEBLOCK_PAGES; i++) {
        if (page_state(first + i) == PAGE_USED && !droppable(&w->objects[first[i].private])) {
            n += 1u << page_order(first + i);
        }
    }
    return n;
}

/* Empty the block that needs the fewest migrations by dropping what is clean in it and moving the rest. */
static bool reclaim_block(struct world *w, uint64_t *dropped)
{
    uint32_t best = BLOCK_NONE, least = UINT32_MAX;
    struct compact_result r;
    mm_status_t status;

    for (uint32_t b = 0; b < w->mm.end_pfn >> PAGEBLOCK_ORDER; b++) {
        if (mm_pfn_valid(&w->mm, block_pfn(b)) && pageblock_type(&w->mm, b) == MIGRATE_MOVABLE
            && mm_block(&w->mm, b)->free_pages != PAGEBLOCK_PAGES && block_immovable_page(&w->mm, b) == NULL) {
            /* of blocks with equally few, the one with the most free pages: the least is dropped */
            uint32_t cost = stubborn_pages(w, b) * PAGEBLOCK_PAGES + PAGEBLOCK_PAGES - mm_block(&w->mm, b)->free_pages;

            if (cost < least) {
                least = cost;
                best = b;
            }
        }
    }
    if (best == BLOCK_NONE || isolate_range(&w->mm, block_pfn(best), block_pfn(best + 1), 0, NULL) != MM_OK) {
        return false;
    }
    *dropped += drop_cache(w, block_pfn(best).n, block_pfn(best + 1).n, UINT64_MAX);
    status = evacuate_range(&w->mm, block_pfn(best), block_pfn(best + 1), &r);
    return isolate_undo(&w->mm, block_pfn(best), block_pfn(best + 1)) == MM_OK && status == MM_OK;
}

/* One huge page, by compaction where none is there. */
static struct page *get_huge(struct world *w, enum huge_mode mode, uint64_t *dropped)
{
    gfp_t gfp = GFP_HIGHUSER | __GFP_MEMALLOC | __GFP_COMP | __GFP_MOVABLE;
    struct page *p = alloc_pages(&w->mm, gfp, PAGEBLOCK_ORDER);

    if (p == NULL && mode == HUGE_RECLAIM && reclaim_block(w, dropped)) {
        p = alloc_pages(&w->mm, gfp, PAGEBLOCK_ORDER);
    }
    for (unsigned targets = TARGET_MOVABLE; p == NULL && targets <= TARGET_ANY; targets++) {
        struct compact_request request = { .targets = (enum compact_targets)targets, .blocks_wanted = 1, .mode = COMPACT_SYNC, .ignore_hints = true };
        struct compact_result r;

        for (uint32_t z = 0; z < w->mm.zone_count && p == NULL; z++) {
            if (compact_zone(&w->mm, &w->mm.zones[z], &request, &r) == MM_OK && r.blocks_made > 0) {
                p = alloc_pages(&w->mm, gfp, PAGEBLOCK_ORDER);
            }
        }
    }
    if (p != NULL) {
        page_set_flags(p, PG_PINNED);           /* a pool page stays where it is */
    }
    return p;
}

static void do_huge(struct world *w, const void *argument, void *result)
{
    const enum huge_mode *mode = argument;
    struct huge_trial *out = result;
    uint64_t begin, migrated_before = w->migrated, missed = 0;

    *out = (struct huge_trial){ .dropped = *mode == HUGE_DROP ? drop_cache(w, 0, UINT64_MAX, UINT64_MAX) : 0 };
    mm_drain(&w->mm);
    for (uint32_t z = 0; z < w->mm.zone_count; z++) {
        out->total_pages += w->mm.zones[z].managed_pages;
    }
    out->possible = theory(w, *mode == HUGE_RECLAIM);
    begin = arch_time_ns();
    for (uint32_t i = 1; i <= HUGE_STEPS && missed < 3; i++) {
        struct huge_step *s = &out->step[out->steps++];
        uint64_t start = arch_time_ns(), migrated = w->migrated;

        s->wanted = out->total_pages * 5 * i / 100 / PAGEBLOCK_PAGES;
        while (out->got < s->wanted && get_huge(w, *mode, &out->dropped) != NULL) {
            out->got++;
        }
        s->got = out->got;
        s->migrated = w->migrated - migrated;
        s->ns = arch_time_ns() - start;
        missed += s->got < s->wanted;
        out->last_step_met = s->got >= s->wanted ? 5 * i : out->last_step_met;
    }
    out->ns = arch_time_ns() - begin;
    out->migrated = w->migrated - migrated_before;
    out->faults = world_check(w);
}

bool trial_huge(struct world *w, enum huge_mode mode, struct huge_trial *out)
{
    return in_child(w, do_huge, &mode, out, sizeof(*out));
}

/* ---- offlining ---- */

static uint64_t immovable_pages(const struct mm *mm, uint64_t first, uint64_t end)
{
    uint64_t n = 0;

    for (uint64_t pfn = first; pfn < end;) {
        const struct page *p = mm_page(mm, pfn_make(pfn));
        uint64_t pages = page_state(p) == PAGE_NONE ? 1 : 1ull << page_order(p);

        n += page_state(p) != PAGE_HOLE && !page_may_move(p) ? pages : 0;
        pfn += pages;
    }
    return n;
}

static void offline_section(struct world *w, uint32_t section, struct offline_block *out)
{
    pfn_t start = pfn_make((uint64_t)section * SECTION_PAGES), end = pfn_make(start.n + SECTION_PAGES);
    uint64_t begin = arch_time_ns();
    struct page *stuck = NULL;
    struct compact_result r;
    mm_status_t status;

    end.n = end.n < w->mm.end_pfn ? end.n : w->mm.end_pfn;
    *out = (struct offline_block){ .section = section };
    status = isolate_range(&w->mm, start, end, 0, &stuck);
    if (status == MM_EBUSY) {
        out->core = true;
        status = isolate_range(&w->mm, start, end, ISOLATE_RESIDUAL, NULL);
    }
    if (status != MM_OK) {
        out->result = OFFLINE_NO_ROOM;
        return;
    }
    status = evacuate_range(&w->mm, start, end, &r);
    out->migrated = r.migrated_pages;
    if (status != MM_OK) {
        /* No room left outside: what is clean can be read again from its file. */
        out->dropped = drop_cache(w, start.n, end.n, UINT64_MAX);
        status = evacuate_range(&w->mm, start, end, &r);
        out->migrated += r.migrated_pages;
    }
    if (status != MM_OK) {
        /* Then outside, as much as is still in the way. */
        uint64_t need = r.failed_pages + PAGEBLOCK_PAGES;

        out->dropped += drop_cache(w, 0, start.n, need);
        out->dropped += drop_cache(w, end.n, UINT64_MAX, need);
        mm_drain(&w->mm);
        status = evacuate_range(&w->mm, start, end, &r);
        out->migrated += r.migrated_pages;
    }
    out->residual_pages = immovable_pages(&w->mm, start.n, end.n);
    for (uint32_t b = pfn_block(start); b < pfn_block(end); b++) {
        out->given_back_blocks += mm_block(&w->mm, b)->free_pages == PAGEBLOCK_PAGES;
    }
    if (status != MM_OK) {
        out->result = OFFLINE_NO_ROOM;
    } else if (out->core) {
        out->result = OFFLINE_RESIDUAL;
    } else {
        out->result = isolate_test(&w->mm, start, end, &stuck) == MM_OK ? OFFLINE_DONE : OFFLINE_NO_ROOM;
    }
    if (isolate_undo(&w->mm, start, end) != MM_OK) {
        out->result = OFFLINE_NO_ROOM;
    }
    out->ns = arch_time_ns() - begin;
}

static void do_offline(struct world *w, const void *argument, void *result)
{
    struct offline_trial *out = result;

    (void)argument;
    *out = (struct offline_trial){ .count = 0 };
    for (uint32_t s = w->mm.section_count; s-- > 0 && out->count < OFFLINE_BLOCKS_MAX;) {
        struct offline_block *b = &out->block[out->count];

        if (w->mm.sections[s].map != NULL) {
            offline_section(w, s, b);
            out->count++;
            out->offlined += b->result == OFFLINE_DONE;
            out->residual += b->result == OFFLINE_RESIDUAL;
        }
    }
    mm_drain(&w->mm);
    out->faults = world_check(w);
}

bool trial_offline(struct world *w, struct offline_trial *out)
{
    return in_child(w, do_offline, NULL, out, sizeof(*out));
}
