/*
 * report.h - what a replay and its trials found.
 */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include <jansson.h>
#include "world.h"

/* All of it; trials: with what can be made of the end state. NULL: a trial did not run to its end. *faults grows by what the checks found. */
json_t *report_build(struct world *w, const struct pagetrace *t, uint64_t ns, bool trials, uint64_t *faults);
/* The same for one of several policies: the replay, the blocks and explicit compaction only. */
json_t *report_policy(struct world *w, const struct pagetrace *t, uint64_t *faults);
/* The reports of all traces and policies compared: "policies" has each policy's sums over the traces, "best" the one that comes first by
 * requests refused, pages in the wrong place, blocks, and work, in this order; the default if it is as good. Takes reports over. */
json_t *report_compare(json_t *reports);
/* Every leaf as "path value". */
void report_text(json_t *report);
/* One row of a Markdown table; its head on stderr. */
void report_row(json_t *report);
void report_compare_rows(json_t *comparison);
const char *report_policy_name(enum claim_policy policy);

#endif
