/*
 * seedtest.h - the two tests of thread 002's mail (the compaction series), each without compaction and with it.
 */
#ifndef TESTS_SITUATIONS_SEEDTEST_H
#define TESTS_SITUATIONS_SEEDTEST_H

#include "situations.h"

#define SEED_CREATORS 16u

/* A: memory full of files of 128 pages by parallel creators, a walk over all metadata meanwhile (updatedb), every second file deleted; then huge
 * pages in steps of 5%. mib: of memory, a multiple of 128. */
bool seed_test_files(uint64_t mib, uint64_t seed, bool vanilla, struct huge_result *out);

struct stress_result {
    uint64_t total_pages, attempted, got, faults;
    uint64_t moved, reclaimed, compact_runs, stalls, swapped_out;
    struct series ns, moves;            /* of every attempt, had or not */
};
/* B: 90% of memory as huge pages, one at a time, under a pressured mix of unmovable and movable allocations. */
bool seed_test_stress(uint64_t mib, uint64_t seed, bool vanilla, struct stress_result *out);

#endif
