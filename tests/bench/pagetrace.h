/*
 * pagetrace.h - reading PAGETRACE 1 files: what a page allocator was asked for, and what lay where at the end.
 *
 * Everything in a file is hostile until checked: no field is used as an index or a
 * length before it was compared with what there is.
 */
#ifndef BENCH_PAGETRACE_H
#define BENCH_PAGETRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "frameshift/compiler.h"

#define PAGETRACE_PFNS_MAX (1u << 26)               /* 256 GiB */
#define PAGETRACE_ZONES_MAX 8

enum trace_kind {
    TRACE_ALLOC, TRACE_FREE, TRACE_MIGRATE, TRACE_ALLOC_FAIL, TRACE_EXTFRAG, TRACE_COMPACT_TAKE, TRACE_COMPACT_BEGIN,
    TRACE_COMPACT_END, TRACE_RECLAIM_BEGIN, TRACE_RECLAIM_END, TRACE_MARK, TRACE_KSWAPD_WAKE, TRACE_KSWAPD_SLEEP,
    TRACE_KINDS
};
#define TRACE_FREE_MOVED   1u                       /* frees only the old copy of a migrated page */
#define TRACE_FREE_UNUSED  2u                       /* a migration target that was not used */

struct trace_record {
    enum trace_kind kind;
    uint8_t order, cpu, type, flags;
    uint64_t time_us;
    uint64_t pfn;                                   /* [pfn, pfn + 2^order) is checked to be below pfns */
    uint64_t other_pfn;                             /* TRACE_MIGRATE: the destination, checked as well */
    uint32_t gfp;                                   /* the recorded kernel's bits */
    uint8_t found_order;                            /* TRACE_EXTFRAG */
};

struct trace_run { uint64_t first_pfn, pages; };
struct trace_zone { char name[16]; uint64_t start_pfn, spanned, present, managed, min, low, high; };

struct pagetrace {
    char name[64];
    uint64_t memory_mib, pfns, records_expected;
    uint64_t counts_expected[TRACE_KINDS];
    bool complete;
    struct trace_run *init_runs, *hole_runs;
    size_t init_count, hole_count;
    struct trace_zone zones[PAGETRACE_ZONES_MAX];
    size_t zone_count;
    uint32_t *gfp_table;
    size_t gfp_count;
    /* reading position */
    uint8_t *data;
    size_t bytes, at;
    uint64_t time_us, last_pfn[2], record;
    uint64_t counts[TRACE_KINDS];
};

/* On failure error says what and where (file offset or record); false. */
bool pagetrace_open(struct pagetrace *t, const char *path, char *error, size_t error_bytes) FS_MUST_CHECK;
/* 1: a record; 0: the end, and the counts agree with the header; -1: error. */
int pagetrace_next(struct pagetrace *t, struct trace_record *r, char *error, size_t error_bytes) FS_MUST_CHECK;
void pagetrace_close(struct pagetrace *t);

/* What each frame held when the recording ended. */
enum page_kind { KIND_UNKNOWN, KIND_FREE, KIND_SLAB, KIND_PGTABLE, KIND_ANON, KIND_THP, KIND_LRU, KIND_UNEVICT, KIND_HUGETLB,
                 KIND_RESV, KIND_HOLE, KIND_OTHER, KIND_COUNT };
/* *out has pfns entries (malloc'd). */
bool pagekinds_read(const char *path, uint64_t pfns, uint8_t **out, char *error, size_t error_bytes) FS_MUST_CHECK;

/* A whole .zst (or plain) file in memory, at most 4 GiB; *out is malloc'd and zero-terminated. */
bool read_compressed(const char *path, uint8_t **out, size_t *bytes, char *error, size_t error_bytes) FS_MUST_CHECK;

#endif
