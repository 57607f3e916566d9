/*
 * situations.h - the five situations of thread 000, each with a verdict.
 *
 *   1  order-3 allocations of a caller that cannot sleep (a network card's buffers), under pressure
 *   2  the pool of huge pages grows on a system that has been running
 *   3  a section leaves        4  a DIMM's worth of sections leaves        5  a node leaves
 *
 * A verdict rests on what the drill itself counted (what it asked for, what the host was given), on census.h and on every fsck; counters
 * of the core are shown and judge nothing.
 */
#ifndef TESTS_SITUATIONS_SITUATIONS_H
#define TESTS_SITUATIONS_SITUATIONS_H

#include "ager.h"
#include "census.h"

#define SITUATIONS 5u
const char *situation_text(unsigned number);

struct verdict {
    unsigned situation;
    bool pass;
    char criterion[240];            /* what had to be so */
    char is[240];                   /* what was so */
};

struct aged_config {
    struct site_config site;
    struct ager_config ager;
    uint64_t seed, events;
    uint32_t pool_permille;         /* of memory: free pages of the huge page pool, which have to leave like others */
};
/* A system for a situation, in the size of `make test`, or in the usual one. Huge pages that a task keeps in place, and tasks whose memory is
 * bound to nodes, are in the mix of situations 1 and 2; in the others the pool has some instead, and no node is promised while nodes leave. */
struct aged_config aged_for(unsigned situation, uint64_t seed, bool small);

struct aged {
    struct aged_config config;
    struct site site;
    struct ager ager;
    struct census before;           /* when ageing was over */
    uint64_t faults;                /* fsck and bytes, up to now */
    bool isolation_undone;          /* planted by a test: what is left of a range that left is not kept isolated */
};
/* A site that has been running. False: it could not be built (said on stderr). */
bool aged_make(struct aged *a, const struct aged_config *config);
/* Checks and ends everything; the faults of its whole life. */
uint64_t aged_end(struct aged *a);
/* All checks and every byte now; adds to faults and returns them. */
uint64_t aged_check(struct aged *a);

/* ---- 1 ---- */

/* X(name, text): where a buffer came from */
#define HELPER_LIST(X)                                                        \
    X(PCP,       "per-CPU list, or a refill of it from own blocks")         \
    X(WHOLE,     "a whole free block was claimed")                          \
    X(RESERVE,   "high-atomic reserve")                                     \
    X(SLOW,      "own blocks, below the low mark")                          \
    X(KERNEL,    "a block of another kernel type")                          \
    X(MOVABLE,   "a block of movable pages: polluted")
enum helper {
#define X(name, text) HELPER_##name,
    HELPER_LIST(X)
#undef X
    HELPERS
};
const char *helper_name(enum helper h);
const char *helper_text(enum helper h);

struct atomic_result {
    uint64_t bursts, asked, got, by[HELPERS];
    uint64_t blocks, polluted_before, polluted_after;   /* census */
    struct mixed_block mixed[CENSUS_NAMED];             /* the first of the polluted ones afterwards */
    uint64_t with_fixed_before, with_fixed_after;       /* blocks that hold a page which cannot leave */
    uint64_t migrated, reclaimed;                       /* in the background, while it went on */
    struct series ns;
    uint64_t free_least, free_most;                     /* pages, at the bursts */
    uint64_t faults;
};
#define ATOMIC_BURSTS 400u
void situation_atomic(struct aged *a, uint64_t bursts, struct atomic_result *out);
void judge_atomic(const struct atomic_result *r, struct verdict *v);

/* ---- 2, and the first test of thread 002 ---- */

#define HUGE_STEP_COUNT 20u
#define HUGE_MISSES 3u
struct huge_step { uint64_t wanted, got, moved, reclaimed, compact_runs; struct series ns; };
struct huge_result {
    uint64_t total_pages, attempted, got;
    uint64_t possible, packed;                          /* by blocks without a page that cannot leave; if those pages lay together */
    uint64_t moved, reclaimed, compact_runs, stalls, swapped_out;
    struct series ns, moves;                            /* of each page that was had */
    uint32_t steps;
    struct huge_step step[HUGE_STEP_COUNT];
    uint64_t recounted;                                 /* the pool's pages in the memmap */
    uint64_t faults;
};
/* misses: steps that may be missed before it is over (the traces' baseline: 3). */
void situation_huge(struct aged *a, unsigned misses, struct huge_result *out);
void judge_huge(const struct huge_result *r, struct verdict *v);

/* ---- 3, 4, 5 ---- */

#define LEAVES_MAX 64u
struct leave {
    uint64_t start, end;                                /* pfns */
    mm_status_t status;
    uint64_t fixed_before;                              /* census: pages that could not leave by migration */
    uint64_t given, extents;                            /* what the host has now; whole 2 MiB extents that it was given */
    struct census after;                                /* of the range: fixed pages are the residual ones, by reason */
    uint64_t migrated, reclaimed, ns;
    uint32_t calls;                                     /* of memory_offline(): again while a device has a user page pinned for the moment */
    bool back;                                          /* and it came back whole */
};
struct leave_result {
    unsigned situation;
    uint32_t count, gone, residual, failed;             /* ranges: gone: nothing is left in them */
    uint32_t movable_stayed;                            /* ranges with a page that could have left */
    uint32_t came;                                      /* ranges that got pages while they were away */
    uint32_t miscounted;                                /* given + residual is not the range, or more stays than before */
    uint64_t ranges_with_fixed;                         /* before, each by itself */
    uint64_t residual_pages;
    uint64_t packed_ranges;                             /* ranges that all the fixed pages would fill, packed in each node */
    struct leave leave[LEAVES_MAX];
    uint64_t faults;
};
/* Each section (DIMM's worth, node) from the highest, one at a time, and back before the next. Node 0 holds the core: situation 5
 * leaves it out. */
void situation_leave(struct aged *a, unsigned situation, struct leave_result *out);
void judge_leave(const struct leave_result *r, struct verdict *v);

#endif
