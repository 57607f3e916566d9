/*
 * replay.c - replay a page allocator trace on the guest memory core and report what the baseline reports.
 *
 * Owns: the command line.
 * Invariants: I1  the exit status is 0 only if every record was replayed and every check found no fault: 1 faults were found, 2 a file
 *   cannot be read or is no good, or memory is out, 64 the command line.
 * Lock order: none.
 * Why: side by side with what the recorded kernel did in the same run.
 * Cost: about a third of a second for a million records, and a few trials.
 */
#include "report.h"
#include "arch_hosted.h"
#include "mm_dump.h"
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRACES_MAX 64u

struct arguments {
    const char *traces[TRACES_MAX], *trace, *kinds;     /* trace: the one at hand */
    unsigned trace_count;
    bool json, table, dump, no_trials, policies;
    struct world_options world;
};

static const struct argp_option options[] = {
    { "trace", 't', "FILE", 0, "The trace (PAGETRACE 1, .zst or plain)", 0 },
    { "kinds", 'k', "FILE", 0, "What each frame held at the end; needed to drop clean page cache", 0 },
    { "json", 'j', NULL, 0, "Report as one JSON object", 0 },
    { "table", 'T', NULL, 0, "Report as one row of a Markdown table (its head on stderr)", 0 },
    { "kernelcore", 'c', "MIB", 0, "A MOVABLE zone above so much memory, as kernelcore= makes it", 0 },
    { "policy", 'p', "largest|next|clear", 0, "Where kernel pages get blocks from (default: clear)", 0 },
    { "policies", 'P', NULL, 0, "Replay each trace (there may be several) with each of the three policies, and compare", 0 },
    { "proactiveness", 'a', "N", 0, "How early kcompactd works without being asked, 0 to 100 (20)", 0 },
    { "movable-low", 'l', NULL, 0, "Movable pages from the lowest block too", 0 },
    { "window", 'w', "N", 0, "Keep a whole block ready within N blocks behind the kernel's; 0: none", 0 },
    { "fsck-every", 'f', "N", 0, "Check everything after every N records", 0 },
    { "dump", 'd', NULL, 0, "Print the memory's tables at the end", 0 },
    { "no-trials", 'n', NULL, 0, "Replay only", 0 },
    { 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;
    char *end = NULL;

    switch (key) {
    case 't':
    case ARGP_KEY_ARG:
        if (a->trace_count == TRACES_MAX) {
            argp_error(state, "more than %u traces", TRACES_MAX);
            return EINVAL;
        }
        a->traces[a->trace_count++] = arg;
        return 0;
    case 'k':
        a->kinds = arg;
        return 0;
    case 'j':
        a->json = true;
        return 0;
    case 'T':
        a->table = true;
        return 0;
    case 'p':
        for (unsigned i = 0; i <= CLAIM_CLEAR_FIRST; i++) {
            if (strcmp(arg, report_policy_name((enum claim_policy)i)) == 0) {
                a->world.policy = (enum claim_policy)i;
                return 0;
            }
        }
        argp_error(state, "no policy is called %s", arg);
        return EINVAL;
    case 'l':
        a->world.movable_low = true;
        return 0;
    case 'P':
        a->policies = true;
        return 0;
    case 'a':
    case 'c':
    case 'w':
    case 'f': {
        unsigned long n = strtoul(arg, &end, 10);

        if (*arg == '\0' || *end != '\0' || (key == 'w' && n > 1u << 20) || (key == 'a' && n > 100)) {
            argp_error(state, "%s is no number that this option takes", arg);
            return EINVAL;
        }
        if (key == 'a') {
            a->world.proactiveness = (int)n;
        } else if (key == 'w') {
            a->world.claim_window = (int)n;
        } else if (key == 'c') {
            a->world.kernelcore_pages = n << 8;
        } else {
            a->world.fsck_every = n;
        }
        return 0;
    }
    case 'd':
        a->dump = true;
        return 0;
    case 'n':
        a->no_trials = true;
        return 0;
    case ARGP_KEY_END:
        if (a->trace_count == 0) {
            argp_error(state, "--trace is missing");
        } else if (a->trace_count > 1 && !a->policies) {
            argp_error(state, "one trace at a time, but with --policies");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void print_line(void *ctx, const char *line)
{
    fprintf(ctx, "%s\n", line);
}

static bool replay(struct world *w, struct pagetrace *t, char *error, size_t error_bytes, uint64_t *faults)
{
    struct trace_record r;
    uint64_t n = 0;
    int more;

    while ((more = pagetrace_next(t, &r, error, error_bytes)) == 1) {
        if (!world_step(w, &r, error, error_bytes)) {
            return false;
        }
        if (w->options.fsck_every != 0 && ++n % w->options.fsck_every == 0) {
            *faults += world_check(w);
        }
    }
    arch_hosted_set_cpu(0);
    mm_drain(&w->mm);
    *faults += world_check(w);
    return more == 0;
}

/* Open, replay, report; NULL and an error where that does not work. */
static json_t *run(const struct arguments *a, struct world *w, char *error, size_t error_bytes, uint64_t *faults)
{
    struct pagetrace t = { .data = NULL };
    uint8_t *kinds = NULL;
    json_t *report = NULL;
    uint64_t start;

    if (!pagetrace_open(&t, a->trace, error, error_bytes) || (a->kinds != NULL && !pagekinds_read(a->kinds, t.pfns, &kinds, error, error_bytes))
        || !world_init(w, &t, &a->world, error, error_bytes)) {
        goto out;
    }
    start = arch_time_ns();
    if (!replay(w, &t, error, error_bytes, faults)) {
        goto out;
    }
    start = arch_time_ns() - start;
    if (kinds != NULL) {
        world_set_kinds(w, kinds);
    }
    if (a->dump) {
        mm_dump_blocks(&w->mm, print_line, stderr);
        mm_dump_pagetypeinfo(&w->mm, print_line, stderr);
        mm_dump_vmstat(&w->mm, print_line, stderr);
        mm_dump_cpu_blocks(&w->mm, print_line, stderr);
    }
    report = a->policies ? report_policy(w, &t, faults) : report_build(w, &t, start, !a->no_trials, faults);
    if (report == NULL) {
        snprintf(error, error_bytes, "%s: a trial did not run to its end", t.name);
    }
out:
    free(kinds);
    world_free(w);
    pagetrace_close(&t);
    return report;
}

/* Each trace with each policy. */
static json_t *run_policies(struct arguments *a, struct world *w, char *error, size_t error_bytes, uint64_t *faults)
{
    json_t *reports = json_array();

    for (unsigned i = 0; i < a->trace_count; i++) {
        a->trace = a->traces[i];
        for (unsigned p = 0; p <= CLAIM_CLEAR_FIRST; p++) {
            json_t *report;

            a->world.policy = (enum claim_policy)p;
            report = run(a, w, error, error_bytes, faults);
            if (report == NULL) {
                json_decref(reports);
                return NULL;
            }
            json_array_append_new(reports, report);
        }
    }
    return report_compare(reports);
}

static void print(const struct arguments *a, json_t *report)
{
    if (a->table && a->policies) {
        report_compare_rows(report);
    } else if (a->table) {
        report_row(report);
    } else if (a->json) {
        json_dumpf(report, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        putchar('\n');
    } else {
        report_text(report);
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = { options, parse, "[FILE...]",
        "Replay a page allocator trace on the guest memory core.\vExit status: 0; 1 a check found faults; 2 a file cannot be read or is no good, "
        "or memory is out; 64 a mistake on the command line.", NULL, NULL, NULL };
    struct arguments a = { .world = { .policy = CLAIM_CLEAR_FIRST, .claim_window = -1, .proactiveness = -1 } };
    struct world *w = calloc(1, sizeof(*w));
    char error[512] = "";
    uint64_t faults = 0;
    json_t *report = NULL;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    a.trace = a.traces[0];
    if (w == NULL) {
        snprintf(error, sizeof(error), "out of memory");
    } else {
        report = a.policies ? run_policies(&a, w, error, sizeof(error), &faults) : run(&a, w, error, sizeof(error), &faults);
    }
    if (report != NULL) {
        print(&a, report);
    } else {
        bool named = strstr(error, a.trace) != NULL || (a.kinds != NULL && strstr(error, a.kinds) != NULL);

        fprintf(stderr, "replay: %s%s%s\n", named ? "" : a.trace, named ? "" : ": ", error);
    }
    free(w);
    if (report == NULL) {
        return 2;
    }
    json_decref(report);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "replay: the report cannot be written\n");
        return 2;
    }
    return faults != 0;
}
