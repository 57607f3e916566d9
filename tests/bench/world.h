/*
 * world.h - a replay: the objects of a trace, living in our memory core.
 *
 * An object is one allocation of the trace.  The trace's frame numbers are only names: a table leads from
 * them to objects, and each object knows the unit that our allocator gave it.
 */
#ifndef BENCH_WORLD_H
#define BENCH_WORLD_H

#include "page_alloc.h"
#include "pagetrace.h"

#define OBJECT_NONE 0u
#define OBJECT_BOOT 1u              /* memory from before the trace: it stays at the trace's own frame */
#define OBJECT_LOST 2u              /* its allocation failed here */
#define OBJECT_FIRST 3u

struct object {
    struct page *page;              /* ours; page->private is the object's number */
    uint32_t trace_pfn;
    uint8_t order, type, kind;      /* kind: enum page_kind at the end, where known */
    bool pinned;
    uint32_t next_free;
};

struct world_options {
    enum claim_policy policy;
    bool movable_low;
    uint64_t kernelcore_pages;      /* 0: no MOVABLE zone */
    uint32_t pcp_batch, pcp_high;   /* 0: the allocator's defaults */
    int claim_window;               /* < 0: the default */
    int proactiveness;              /* < 0: the default */
    uint64_t fsck_every;            /* records; 0: only at the end */
};

struct world {
    struct mm mm;
    struct world_options options;
    uint64_t pfns, boot_pages_left;
    uint32_t *object_of;            /* by trace pfn */
    struct object *objects;
    uint32_t object_count, object_capacity, object_free;
    void **boot;
    size_t boot_count;
    /* figures of the replay */
    uint64_t allocs, frees, alloc_failed, below_watermark, migrated, live_peak, live_pages, free_least;
    bool woken;
    uint64_t next_tick_us;          /* kcompactd looks at the scores */
};

bool world_init(struct world *w, const struct pagetrace *t, const struct world_options *options, char *error, size_t error_bytes) FS_MUST_CHECK;
/* Do one record. */
bool world_step(struct world *w, const struct trace_record *r, char *error, size_t error_bytes) FS_MUST_CHECK;
/* The background threads get their turn, if they were woken. */
void world_background(struct world *w);
/* Number of mm_fsck() faults plus objects whose unit is not theirs. Prints them to stderr. */
uint64_t world_check(struct world *w);
/* Give every object its kind (from the frame that the trace left it in). */
void world_set_kinds(struct world *w, const uint8_t *kinds);
void world_free_object(struct world *w, uint32_t id);
void world_free(struct world *w);

gfp_t gfp_from_linux(uint32_t bits);

#endif
