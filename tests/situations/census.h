/*
 * census.h - what is where, recounted from the memmap: the witness of every verdict.
 */
#ifndef TESTS_SITUATIONS_CENSUS_H
#define TESTS_SITUATIONS_CENSUS_H

#include "site.h"

/* X(name, text): why a page in use cannot leave by migration */
#define STAYS_LIST(X)                                               \
    X(BOOT,     "boot memory")                                      \
    X(KERNEL,   "unmovable kernel page")                            \
    X(PROCESS,  "kernel page charged to a process")                 \
    X(SLAB,     "slab")                                             \
    X(TABLE,    "page table")                                       \
    X(DMA,      "a device holds its frame")                         \
    X(HUGE,     "huge page that its owner does not move")           \
    X(PINNED,   "pinned user page")
enum stays {
#define X(name, text) STAYS_##name,
    STAYS_LIST(X)
#undef X
    STAYS_REASONS
};
const char *stays_name(enum stays why);
const char *stays_text(enum stays why);

#define CENSUS_NAMED 8u
/* A block with both a kernel page and a movable one, by what is in it. */
struct mixed_block { uint32_t block; uint8_t type, flags; uint64_t movable, free, stays[STAYS_REASONS]; };

struct census {
    uint64_t pages, free, absent, movable, fixed;   /* pages; absent: holes, or given; fixed: the sum of stays */
    uint64_t stays[STAYS_REASONS];
    uint64_t blocks, whole;                         /* pageblocks with memory; free as a whole */
    uint64_t with_fixed;                            /* with a page that cannot leave */
    uint64_t polluted, loans;                       /* with both a kernel page (boot memory aside) and a movable one; loans: kernel blocks that
                                                     * have movable tenants, which are known and go home */
    struct mixed_block mixed[CENSUS_NAMED];         /* the first of the polluted ones */
    uint64_t packed;                                /* blocks that the fixed pages would fill, packed */
};

/* pre: start and end are pageblocks; pages on per-CPU lists count as free */
void census_range(const struct mm *mm, uint64_t start, uint64_t end, struct census *out);
void census_node(const struct mm *mm, uint32_t node, struct census *out);
void census_all(const struct mm *mm, struct census *out);
/* First and one past the last pfn of a node. */
void node_span(const struct mm *mm, uint32_t node, uint64_t *start, uint64_t *end);

#endif
