/*
 * figures.h - what a memory looks like, in the figures that the traces' baseline uses.
 */
#ifndef BENCH_FIGURES_H
#define BENCH_FIGURES_H

#include "zone.h"

struct block_figures {
    /* Pageblocks by what they hold; pages from before the trace are not movable. */
    uint64_t empty, movable_only, unmovable_only, reclaimable_only, kernel_mixed, polluted;
    uint64_t polluted_boot;             /* of the polluted: those that hold pages from before the trace */
    uint64_t with_non_movable, needed_if_packed;
    uint64_t with_boot;
    uint64_t live_unmovable, live_movable, live_reclaimable, live_boot;
    uint64_t kernel_blocks_free;        /* free pages inside blocks with a non-movable page */
    uint64_t best_possible;             /* blocks with non-movable pages if packed around the boot pages, which cannot move */
};
void figures_blocks(const struct mm *mm, struct block_figures *out);

struct free_figures {
    uint64_t free_pages, free_huge;     /* in units of order >= 9 */
    uint64_t per_order[MAX_ORDER + 1][MIGRATE_TYPES];
    double unusable[MAX_ORDER + 1];
    double extfrag_huge;                /* fragmentation index at order 9 */
};
/* pre: mm_drain() was called */
void figures_free(const struct mm *mm, struct free_figures *out);

#endif
