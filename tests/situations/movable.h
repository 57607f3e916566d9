/*
 * movable.h - the objection of thread 004 to movable zones, in numbers: one workload with mobility grouping only, with movable zones, with movable nodes.
 */
#ifndef TESTS_SITUATIONS_MOVABLE_H
#define TESTS_SITUATIONS_MOVABLE_H

#include "situations.h"

struct movable_variant { const char *name; unsigned core_permille; bool nodes; };  /* kernelcore= of memory (0: no zone), or all nodes but the first */
#define MOVABLE_VARIANTS 6u
extern const struct movable_variant movable_variants[MOVABLE_VARIANTS];

struct movable_result {
    const struct movable_variant *variant;
    uint64_t total_pages, kernel_zone_pages;        /* managed; of them in zones that serve kernel requests */
    bool built;                                     /* false: not even the tasks could be started */
    struct ager_refused aged;                       /* while it aged */
    uint64_t cached;                                /* pages of the page cache when it was over */
    struct leave_result sections, nodes;
    uint64_t kernel_wanted, kernel_got;             /* then: unmovable pages, as a load of metadata wants them (half of memory) */
    uint64_t sparse_wanted, sparse_got;             /* and pages of a process, one each 2 MiB: each needs a page table */
    uint64_t faults;
};
/* False: no host memory. */
bool movable_measure(const struct movable_variant *variant, uint64_t seed, bool small, struct movable_result *out);

#endif
