/*
 * replay.c - replay a page allocator trace on the guest memory core and report what the baseline reports.
 *
 * Owns: the command line and the report.
 * Invariants: I1  the exit status is 0 only if every record was replayed and every check found no fault.
 * Lock order: none.
 * Why: side by side with what the recorded kernel did in the same run.
 * Cost: about a third of a second for a million records, and a few trials.
 */
#include "after.h"
#include "arch_hosted.h"
#include "mm_dump.h"
#include <argp.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arguments {
    const char *trace, *kinds;
    bool json, table, dump, no_trials;
    struct world_options world;
};

static const struct argp_option options[] = {
    { "trace", 't', "FILE", 0, "The trace (PAGETRACE 1, .zst or plain)", 0 },
    { "kinds", 'k', "FILE", 0, "What each frame held at the end; needed to drop clean page cache", 0 },
    { "json", 'j', NULL, 0, "Report as one JSON object", 0 },
    { "table", 'T', NULL, 0, "Report as one row of a Markdown table (its head on stderr)", 0 },
    { "kernelcore", 'c', "MIB", 0, "A MOVABLE zone above so much memory, as kernelcore= makes it", 0 },
    { "policy", 'p', "largest|next|clear", 0, "Where kernel pages get blocks from (default: clear)", 0 },
    { "movable-low", 'l', NULL, 0, "Movable pages from the lowest block too", 0 },
    { "window", 'w', "N", 0, "Keep a whole block ready within N blocks behind the kernel's; 0: none", 0 },
    { "fsck-every", 'f', "N", 0, "Check everything after every N records", 0 },
    { "dump", 'd', NULL, 0, "Print the memory's tables at the end", 0 },
    { "no-trials", 'n', NULL, 0, "Replay only", 0 },
    { 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    static const char *const policies[] = { "largest", "next", "clear" };
    struct arguments *a = state->input;
    char *end = NULL;

    switch (key) {
    case 't':
        a->trace = arg;
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
        for (unsigned i = 0; i < FS_ARRAY_SIZE(policies); i++) {
            if (strcmp(arg, policies[i]) == 0) {
                a->world.policy = (enum claim_policy)i;
                return 0;
            }
        }
        argp_error(state, "no policy is called %s", arg);
        return EINVAL;
    case 'l':
        a->world.movable_low = true;
        return 0;
    case 'c':
    case 'w':
    case 'f': {
        unsigned long n = strtoul(arg, &end, 10);

        if (*arg == '\0' || *end != '\0' || (key == 'w' && n > 1u << 20)) {
            argp_error(state, "%s is not a number", arg);
            return EINVAL;
        }
        if (key == 'w') {
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
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument %s", arg);
        return EINVAL;
    case ARGP_KEY_END:
        if (a->trace == NULL) {
            argp_error(state, "--trace is missing");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- report ---- */

static json_t *number(uint64_t n) { return json_integer((json_int_t)n); }

static void put(json_t *o, const char *key, uint64_t n)
{
    json_object_set_new(o, key, number(n));
}

static void put_real(json_t *o, const char *key, double x)
{
    json_object_set_new(o, key, json_real(x));
}

static json_t *report_replay(const struct world *w, const struct pagetrace *t, uint64_t ns)
{
    json_t *o = json_object();

    put(o, "records", t->record);
    put(o, "allocations", w->allocs);
    put(o, "frees", w->frees);
    put(o, "allocations_failed", w->alloc_failed);
    put(o, "allocations_below_watermark", w->below_watermark);
    put(o, "live_pages_peak", w->live_peak);
    put(o, "free_pages_least", w->free_least);
    put(o, "fallbacks", mm_counter(&w->mm, ZC_fallback));
    put(o, "fallbacks_fragmenting", mm_counter(&w->mm, ZC_fallback_fragmenting));
    put(o, "fallbacks_whole_block_changed_owner", mm_counter(&w->mm, ZC_fallback_claim));
    put(o, "kernel_blocks_adopted", mm_counter(&w->mm, ZC_block_adopted));
    put(o, "kernel_blocks_lent", mm_counter(&w->mm, ZC_block_lent));
    put(o, "blocks_cleared", mm_counter(&w->mm, ZC_block_cleared));
    put(o, "pages_migrated", w->migrated);
    put(o, "replay_ns", ns);
    return o;
}

static json_t *report_blocks(const struct world *w)
{
    struct block_figures f;
    json_t *o = json_object();

    figures_blocks(&w->mm, &f);
    put(o, "empty", f.empty);
    put(o, "movable_only", f.movable_only);
    put(o, "unmovable_only", f.unmovable_only);
    put(o, "reclaimable_only", f.reclaimable_only);
    put(o, "unmovable_and_reclaimable", f.kernel_mixed);
    put(o, "polluted", f.polluted);
    put(o, "polluted_with_boot_memory", f.polluted_boot);
    put(o, "with_non_movable", f.with_non_movable);
    put(o, "needed_if_packed", f.needed_if_packed);
    put(o, "needed_if_packed_around_boot_memory", f.best_possible);
    put_real(o, "times_packed", (double)f.with_non_movable / (double)(f.needed_if_packed != 0 ? f.needed_if_packed : 1));
    put(o, "free_pages_in_non_movable_blocks", f.kernel_blocks_free);
    put(o, "live_unmovable", f.live_unmovable);
    put(o, "live_movable", f.live_movable);
    put(o, "live_reclaimable", f.live_reclaimable);
    put(o, "live_from_before_the_trace", f.live_boot);
    return o;
}

static json_t *report_free(const struct world *w)
{
    struct free_figures f;
    json_t *o = json_object(), *per_order = json_object(), *unusable = json_array();

    figures_free(&w->mm, &f);
    put(o, "free_pages", f.free_pages);
    put(o, "free_pages_in_order_9_and_up", f.free_huge);
    for (unsigned type = 0; type < MIGRATE_TYPES; type++) {
        json_t *row = json_array();

        for (unsigned order = 0; order <= MAX_ORDER; order++) {
            json_array_append_new(row, number(f.per_order[order][type]));
        }
        json_object_set_new(per_order, migratetype_name((enum migratetype)type), row);
    }
    json_object_set_new(o, "units_per_order", per_order);
    for (unsigned order = 0; order <= MAX_ORDER; order++) {
        json_array_append_new(unusable, json_real(f.unusable[order]));
    }
    json_object_set_new(o, "unusable_index", unusable);
    put_real(o, "extfrag_index_order_9", f.extfrag_huge);
    return o;
}

static json_t *report_compact(struct world *w, unsigned targets, uint64_t *faults)
{
    struct compact_trial t;
    json_t *o;

    if (!trial_compact(w, targets, &t)) {
        return NULL;
    }
    o = json_object();
    *faults += t.faults;
    put(o, "free_pages", t.free_pages);
    put(o, "free_in_order_9_before", t.free_huge_before);
    put(o, "free_in_order_9_after", t.free_huge_after);
    put(o, "blocks_after", t.free_huge_after / PAGEBLOCK_PAGES);
    put(o, "blocks_possible", t.blocks_possible);
    put_real(o, "share_of_possible", t.blocks_possible != 0 ? (double)t.free_huge_after / PAGEBLOCK_PAGES / (double)t.blocks_possible : 1.0);
    put(o, "pages_migrated", t.migrated);
    put(o, "pages_migrated_least", t.moves_least);
    put(o, "migrate_scanned", t.migrate_scanned);
    put(o, "free_scanned", t.free_scanned);
    put(o, "polluted_after", t.polluted_after);
    put_real(o, "unusable_index_before", t.unusable_before);
    put_real(o, "unusable_index_after", t.unusable_after);
    put(o, "ns", t.ns);
    return o;
}

static json_t *report_huge(struct world *w, enum huge_mode mode, uint64_t *faults)
{
    struct huge_trial t;
    json_t *o, *steps = json_array();

    if (!trial_huge(w, mode, &t)) {
        json_decref(steps);
        return NULL;
    }
    o = json_object();
    *faults += t.faults;
    put(o, "total_pages", t.total_pages);
    put(o, "dropped_pages", t.dropped);
    put(o, "got", t.got);
    put(o, "possible", t.possible);
    put_real(o, "share_of_possible", t.possible != 0 ? (double)t.got / (double)t.possible : 1.0);
    put_real(o, "percent_of_total", 100.0 * (double)t.got * PAGEBLOCK_PAGES / (double)t.total_pages);
    put(o, "last_step_met_percent", t.last_step_met);
    put(o, "pages_migrated", t.migrated);
    put_real(o, "migrated_per_huge_page", t.got != 0 ? (double)t.migrated / (double)t.got : 0.0);
    put(o, "ns", t.ns);
    for (uint32_t i = 0; i < t.steps; i++) {
        json_array_append_new(steps, json_pack("{s:i,s:I,s:I,s:I,s:I}", "percent", (int)(i + 1) * 5, "wanted", (json_int_t)t.step[i].wanted,
                                               "got", (json_int_t)t.step[i].got, "migrated", (json_int_t)t.step[i].migrated, "ns",
                                               (json_int_t)t.step[i].ns));
    }
    json_object_set_new(o, "steps", steps);
    return o;
}

static json_t *report_offline(struct world *w, uint64_t *faults)
{
    static const char *const results[] = { "offlined", "residual", "no-room" };
    struct offline_trial *t = calloc(1, sizeof(*t));
    json_t *o = NULL, *list = json_array();

    if (t != NULL && trial_offline(w, t)) {
        o = json_object();
        *faults += t->faults;
        put(o, "blocks", t->count);
        put(o, "offlined", t->offlined);
        put(o, "residual", t->residual);
        for (uint32_t i = 0; i < t->count; i++) {
            const struct offline_block *b = &t->block[i];

            json_array_append_new(list, json_pack("{s:i,s:s,s:b,s:I,s:I,s:I,s:I,s:I}", "block", (int)b->section, "result", results[b->result],
                                                  "core", b->core, "migrated", (json_int_t)b->migrated, "dropped", (json_int_t)b->dropped,
                                                  "residual_pages", (json_int_t)b->residual_pages, "superpages_given_back",
                                                  (json_int_t)b->given_back_blocks, "ns", (json_int_t)b->ns));
        }
        json_object_set(o, "each", list);
    }
    json_decref(list);
    free(t);
    return o;
}

/* NULL where a trial did not run to its end. */
static json_t *build_report(struct world *w, const struct pagetrace *t, uint64_t ns, bool trials, uint64_t *faults)
{
    static const char *const policies[] = { "largest", "next", "clear" };
    json_t *o = json_object(), *part;

    json_object_set_new(o, "trace", json_string(t->name));
    json_object_set_new(o, "policy", json_string(policies[w->mm.policy]));
    put(o, "memory_mib", t->memory_mib);
    json_object_set_new(o, "replay", report_replay(w, t, ns));
    json_object_set_new(o, "blocks", report_blocks(w));
    json_object_set_new(o, "free", report_free(w));
    if (trials) {
        static const char *const names[] = { "compact", "compact_boot_targets", "compact_any_targets", "compact_by_pfn" };
        static const char *const huge_names[] = { "huge", "huge_reclaim", "huge_cache_dropped" };

        for (unsigned targets = 0; targets <= TRIAL_BY_PFN; targets++) {
            part = report_compact(w, targets, faults);
            if (part == NULL) {
                goto fail;
            }
            json_object_set_new(o, names[targets], part);
        }
        for (unsigned mode = HUGE_MIGRATE; mode <= HUGE_DROP; mode++) {
            part = report_huge(w, (enum huge_mode)mode, faults);
            if (part == NULL) {
                goto fail;
            }
            json_object_set_new(o, huge_names[mode], part);
        }
        part = report_offline(w, faults);
        if (part == NULL) {
            goto fail;
        }
        json_object_set_new(o, "offline_128_mib", part);
    }
    put(o, "faults", *faults);
    return o;
fail:
    json_decref(o);
    return NULL;
}

/* Every leaf as "path value", for people. */
static void print_text(const char *path, json_t *o)
{
    const char *key;
    json_t *v;
    size_t i;

    if (json_is_object(o)) {
        json_object_foreach(o, key, v) {
            char longer[256];

            snprintf(longer, sizeof(longer), "%s%s%s", path, *path != '\0' ? "." : "", key);
            print_text(longer, v);
        }
        return;
    }
    if (json_is_array(o)) {
        json_array_foreach(o, i, v) {
            char longer[256];

            if (json_is_object(v)) {
                char *line = json_dumps(v, JSON_COMPACT);

                printf("%s[%zu] %s\n", path, i, line);
                free(line);
                continue;
            }
            snprintf(longer, sizeof(longer), "%s[%zu]", path, i);
            print_text(longer, v);
        }
        return;
    }
    {
        char *line = json_dumps(o, JSON_ENCODE_ANY | JSON_REAL_PRECISION(5));

        printf("%-50s %s\n", path, line);
        free(line);
    }
}

static double leaf(json_t *o, const char *part, const char *key)
{
    return json_number_value(json_object_get(json_object_get(o, part), key));
}

/* One row: what the comparison with the recorded kernel is about. */
static void print_row(json_t *o)
{
    json_t *offline = json_object_get(json_object_get(o, "offline_128_mib"), "each"), *each;
    double residual = 0;
    size_t i;

    json_array_foreach(offline, i, each) {
        residual += json_number_value(json_object_get(each, "residual_pages"));
    }
    fprintf(stderr, "| trace | fragmenting fallbacks | failed | migrated | lent | polluted | non-movable blocks / packed "
                    "| compaction: blocks / possible (moves / least) | filling kernel holes too | huge, migration only "
                    "| huge, with reclaim | huge, cache dropped first | 128 MiB offlined + residual of all (frames left) |\n"
                    "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    printf("| %s | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f / %.0f = %.3f |", json_string_value(json_object_get(o, "trace")),
           leaf(o, "replay", "fallbacks_fragmenting"), leaf(o, "replay", "allocations_failed"), leaf(o, "replay", "pages_migrated"),
           leaf(o, "replay", "kernel_blocks_lent"), leaf(o, "blocks", "polluted") - leaf(o, "blocks", "polluted_with_boot_memory"),
           leaf(o, "blocks", "with_non_movable"), leaf(o, "blocks", "needed_if_packed"), leaf(o, "blocks", "times_packed"));
    for (unsigned k = 0; k < 2; k++) {
        const char *part = k == 0 ? "compact" : "compact_any_targets";

        printf(" %.0f / %.0f (%.0f / %.0f) |", leaf(o, part, "blocks_after"), leaf(o, part, "blocks_possible"),
               leaf(o, part, "pages_migrated"), leaf(o, part, "pages_migrated_least"));
    }
    for (unsigned k = 0; k < 3; k++) {
        static const char *const parts[] = { "huge", "huge_reclaim", "huge_cache_dropped" };

        printf(" %.0f / %.0f, %.1f moves each |", leaf(o, parts[k], "got"), leaf(o, parts[k], "possible"),
               leaf(o, parts[k], "migrated_per_huge_page"));
    }
    printf(" %.0f + %.0f of %.0f (%.0f) |\n", leaf(o, "offline_128_mib", "offlined"), leaf(o, "offline_128_mib", "residual"),
           leaf(o, "offline_128_mib", "blocks"), residual);
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

int main(int argc, char **argv)
{
    static const struct argp argp = { options, parse, NULL, "Replay a page allocator trace on the guest memory core.", NULL, NULL, NULL };
    struct arguments a = { .world = { .policy = CLAIM_CLEAR_FIRST, .claim_window = -1 } };
    char error[512] = "";
    struct pagetrace t = { .data = NULL };
    struct world *w = calloc(1, sizeof(*w));
    uint8_t *kinds = NULL;
    uint64_t faults = 0, start;
    json_t *report = NULL;
    int exit_code = 1;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (w == NULL || !pagetrace_open(&t, a.trace, error, sizeof(error))
        || (a.kinds != NULL && !pagekinds_read(a.kinds, t.pfns, &kinds, error, sizeof(error)))
        || !world_init(w, &t, &a.world, error, sizeof(error))) {
        goto out;
    }
    start = arch_time_ns();
    if (!replay(w, &t, error, sizeof(error), &faults)) {
        goto out;
    }
    start = arch_time_ns() - start;
    if (kinds != NULL) {
        world_set_kinds(w, kinds);
    }
    if (a.dump) {
        mm_dump_blocks(&w->mm, print_line, stderr);
        mm_dump_pagetypeinfo(&w->mm, print_line, stderr);
        mm_dump_vmstat(&w->mm, print_line, stderr);
    }
    report = build_report(w, &t, start, !a.no_trials, &faults);
    if (report == NULL) {
        snprintf(error, sizeof(error), "%s: a trial did not run to its end", t.name);
        goto out;
    }
    if (a.table) {
        print_row(report);
    } else if (a.json) {
        json_dumpf(report, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
        putchar('\n');
    } else {
        print_text("", report);
    }
    exit_code = faults != 0;
out:
    if (*error != '\0') {
        fprintf(stderr, "replay: %s\n", error);
    }
    json_decref(report);
    free(kinds);
    if (w != NULL) {
        world_free(w);
    }
    free(w);
    pagetrace_close(&t);
    return exit_code;
}
