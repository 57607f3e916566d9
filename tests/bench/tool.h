/*
 * tool.h - the tool on an embedded machine, as the benches use it: a state directory for the run, evacuate, online; any failure ends the program.
 */
#ifndef TESTS_BENCH_TOOL_H
#define TESTS_BENCH_TOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "hv_priv.h"

struct emb_machine;

/* program: a static text, for messages. The directory is in memory: the journal's syncs are not what is measured. */
void tool_begin(const char *program);
void tool_end(void);
/* Exit status 2. */
_Noreturn void tool_die(const char *what);

/* A handle of this process; hv_close(). on_event may be NULL. */
struct hv *tool_handle(struct emb_machine *m, hv_event_fn on_event, void *arg);
/* r is the caller's, hv_report_free(). */
void tool_evacuate(struct emb_machine *m, const char *target, bool dry_run, bool verify, struct hv_report *r);
void tool_online(struct emb_machine *m, const char *target);

/* For qsort() of uint64_t. */
int compare_u64(const void *a, const void *b);

#endif
