/*
 * after.h - what can be made of the memory that a replay leaves: compaction, huge pages, offlining.
 *
 * Each trial starts from the same end state: it runs in a child process, on its copy of the memory.
 */
#ifndef BENCH_AFTER_H
#define BENCH_AFTER_H

#include "figures.h"
#include "world.h"

struct compact_trial {
    uint64_t faults, ns;
    uint64_t free_pages, free_huge_before, free_huge_after;
    uint64_t blocks_possible;           /* floor(free / 512) */
    uint64_t migrated, failed;
    uint64_t moves_least;               /* for the blocks made: the used pages of the emptiest blocks that could be emptied */
    uint64_t migrate_scanned, free_scanned;
    uint64_t polluted_after;            /* without blocks that hold memory from before the trace */
    double unusable_before, unusable_after;
};
/* targets: enum compact_targets, or TRIAL_BY_PFN: movable holes only, with the classic scanners. */
#define TRIAL_BY_PFN 3u
bool trial_compact(struct world *w, unsigned targets, struct compact_trial *out);

/* After the end state, and explicit compaction or not, the kernel asks for pages, the background at work. */
struct loan_trial {
    uint64_t faults;
    uint64_t pages, failed, polluting;  /* asked for; refused; those that went to a movable block */
    uint64_t blocks_before, blocks, polluted;   /* with a non-movable page, before and after; with movable ones too (boot memory aside) */
    uint64_t migrated;                  /* meanwhile */
};
bool trial_loan(struct world *w, bool compact, struct loan_trial *out);

#define HUGE_STEPS 20
struct huge_step { uint64_t wanted, got, migrated; uint64_t ns; };
struct huge_trial {
    uint64_t faults;
    uint64_t total_pages;               /* MemTotal's counterpart: managed pages */
    uint64_t dropped;                   /* clean page cache pages dropped, before or meanwhile */
    uint64_t possible;                  /* what the pages that cannot move allow: see theory() */
    uint64_t got, migrated, ns;
    uint32_t steps, last_step_met;      /* percent */
    struct huge_step step[HUGE_STEPS];
};
enum huge_mode {
    HUGE_MIGRATE,                       /* migration alone */
    HUGE_RECLAIM,                       /* the clean page cache of a block is dropped where a huge page is missing */
    HUGE_DROP,                          /* all clean page cache is dropped first, then migration alone */
};
bool trial_huge(struct world *w, enum huge_mode mode, struct huge_trial *out);

#define OFFLINE_BLOCKS_MAX 64
enum offline_result { OFFLINE_DONE, OFFLINE_RESIDUAL, OFFLINE_NO_ROOM };
struct offline_block {
    uint32_t section;
    enum offline_result result;
    bool core;                          /* holds pages that cannot move */
    uint64_t migrated, dropped, residual_pages, given_back_blocks, ns;
};
struct offline_trial {
    uint64_t faults;
    uint32_t count, offlined, residual;
    struct offline_block block[OFFLINE_BLOCKS_MAX];
};
/* Each block of 128 MiB, from the highest to the lowest, brought back before the next. */
bool trial_offline(struct world *w, struct offline_trial *out);

#endif
