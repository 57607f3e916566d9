/*
 * report.c - what a replay and its trials found, as JSON, as lines, as a row of a table.
 *
 * Owns: the names of the report's members.
 * Invariants: I1  a trial that did not run to its end makes no report.
 * Lock order: none.
 * Why: side by side with what the recorded kernel did in the same run (linux_baseline.c).
 * Cost: that of the trials.
 */
#include "report.h"
#include "after.h"
#include "compaction.h"
#include "linux_baseline.h"
#include "mm_dump.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *number(uint64_t n) { return json_integer((json_int_t)n); }

static void put(json_t *o, const char *key, uint64_t n)
{
    json_object_set_new(o, key, number(n));
}

static void put_real(json_t *o, const char *key, double x)
{
    json_object_set_new(o, key, json_real(x));
}

const char *report_policy_name(enum claim_policy policy)
{
    static const char *const names[] = { "largest", "next", "clear" };

    return (unsigned)policy < FS_ARRAY_SIZE(names) ? names[policy] : "bad";
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
    put(o, "compact_daemon_wake", mm_counter(&w->mm, ZC_compact_daemon_wake));
    put(o, "compact_proactive", mm_counter(&w->mm, ZC_compact_proactive));
    put(o, "compact_proactive_deferred", mm_counter(&w->mm, ZC_compact_proactive_deferred));
    put(o, "compact_captured", mm_counter(&w->mm, ZC_compact_captured));
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
    put_real(o, "times_least", t.moves_least != 0 ? (double)t.migrated / (double)t.moves_least : 1.0);
    json_object_set_new(o, "least_is", json_string("the used pages of as many blocks as were made: of the emptiest without an immovable page"));
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
    uint64_t left = 0;

    if (t != NULL && trial_offline(w, t)) {
        o = json_object();
        *faults += t->faults;
        put(o, "blocks", t->count);
        put(o, "offlined", t->offlined);
        put(o, "residual", t->residual);
        for (uint32_t i = 0; i < t->count; i++) {
            const struct offline_block *b = &t->block[i];

            left += b->residual_pages;
            json_array_append_new(list, json_pack("{s:i,s:s,s:b,s:I,s:I,s:I,s:I,s:I}", "block", (int)b->section, "result", results[b->result],
                                                  "core", b->core, "migrated", (json_int_t)b->migrated, "dropped", (json_int_t)b->dropped,
                                                  "residual_pages", (json_int_t)b->residual_pages, "superpages_given_back",
                                                  (json_int_t)b->given_back_blocks, "ns", (json_int_t)b->ns));
        }
        put(o, "residual_frames", left);
        json_object_set(o, "each", list);
    }
    json_decref(list);
    free(t);
    return o;
}

/* The kernel wants pages after explicit compaction, and without it: what does the loan of its holes cost? */
static json_t *report_loan(struct world *w, uint64_t *faults)
{
    json_t *o = json_object();

    for (unsigned compact = 0; compact < 2; compact++) {
        struct loan_trial t;

        if (!trial_loan(w, compact != 0, &t)) {
            json_decref(o);
            return NULL;
        }
        *faults += t.faults;
        json_object_set_new(o, compact != 0 ? "after_compaction" : "without",
                            json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "kernel_pages", (json_int_t)t.pages, "failed", (json_int_t)t.failed,
                            "fallbacks_polluting", (json_int_t)t.polluting, "with_non_movable_before", (json_int_t)t.blocks_before,
                            "with_non_movable", (json_int_t)t.blocks, "polluted", (json_int_t)t.polluted, "pages_migrated", (json_int_t)t.migrated));
    }
    return o;
}

/* False: a trial did not run to its end. */
static bool put_part(json_t *o, const char *name, json_t *part)
{
    if (part != NULL) {
        json_object_set_new(o, name, part);
    }
    return part != NULL;
}

static bool put_trials(json_t *o, struct world *w, uint64_t *faults)
{
    /* What explicit compaction does comes first; then, to compare, with fewer kinds of holes and in the classic order. */
    static const struct { const char *name; unsigned targets; } compactions[] = {
        { "compaction", TARGET_DEFAULT }, { "compaction_movable_holes", TARGET_MOVABLE }, { "compaction_boot_holes", TARGET_BOOT },
        { "compaction_by_pfn", TRIAL_BY_PFN },
    };
    static const char *const huge_names[] = { "huge", "huge_reclaim", "huge_cache_dropped" };
    bool ok = true;

    for (size_t i = 0; ok && i < FS_ARRAY_SIZE(compactions); i++) {
        ok = put_part(o, compactions[i].name, report_compact(w, compactions[i].targets, faults));
    }
    ok = ok && put_part(o, "kernel_demand", report_loan(w, faults));
    for (unsigned mode = HUGE_MIGRATE; ok && mode <= HUGE_DROP; mode++) {
        ok = put_part(o, huge_names[mode], report_huge(w, (enum huge_mode)mode, faults));
    }
    return ok && put_part(o, "offline_128_mib", report_offline(w, faults));
}

static json_t *report_head(const struct world *w, const struct pagetrace *t, uint64_t ns)
{
    json_t *o = json_object();

    json_object_set_new(o, "trace", json_string(t->name));
    json_object_set_new(o, "policy", json_string(report_policy_name(w->mm.policy)));
    put(o, "memory_mib", t->memory_mib);
    json_object_set_new(o, "replay", report_replay(w, t, ns));
    json_object_set_new(o, "blocks", report_blocks(w));
    json_object_set_new(o, "free", report_free(w));
    return o;
}

json_t *report_build(struct world *w, const struct pagetrace *t, uint64_t ns, bool trials, uint64_t *faults)
{
    json_t *o = report_head(w, t, ns), *linux_row = linux_baseline(t->name);

    if (trials && !put_trials(o, w, faults)) {
        json_decref(o);
        json_decref(linux_row);
        return NULL;
    }
    if (linux_row != NULL) {
        json_object_set_new(o, "linux", linux_row);
    }
    put(o, "faults", *faults);
    return o;
}

static double leaf(json_t *o, const char *part, const char *key)
{
    return json_number_value(json_object_get(json_object_get(o, part), key));
}

/* ---- policies ---- */

json_t *report_policy(struct world *w, const struct pagetrace *t, uint64_t *faults)
{
    json_t *o = report_head(w, t, 0);

    if (!put_part(o, "compaction", report_compact(w, TARGET_DEFAULT, faults))) {
        json_decref(o);
        return NULL;
    }
    put(o, "faults", *faults);
    return o;
}

/* What the policies are compared by: what cannot be undone counts before what costs work. */
static const char *const criteria[][2] = {
    { "replay", "allocations_failed" }, { "replay", "fallbacks_fragmenting" }, { "blocks", "polluted" }, { "blocks", "with_non_movable" },
    { "replay", "pages_migrated" },
};

static json_t *sums_of(json_t *reports, const char *policy)
{
    json_t *sums = json_object(), *each;
    size_t i;

    json_object_set_new(sums, "policy", json_string(policy));
    for (size_t c = 0; c < FS_ARRAY_SIZE(criteria); c++) {
        double sum = 0;

        json_array_foreach(reports, i, each) {
            bool same = strcmp(json_string_value(json_object_get(each, "policy")), policy) == 0;
            sum += same ? leaf(each, criteria[c][0], criteria[c][1]) : 0;
        }
        put(sums, criteria[c][1], (uint64_t)sum);
    }
    return sums;
}

static bool better(json_t *a, json_t *b)
{
    for (size_t c = 0; c < FS_ARRAY_SIZE(criteria); c++) {
        json_int_t x = json_integer_value(json_object_get(a, criteria[c][1])), y = json_integer_value(json_object_get(b, criteria[c][1]));

        if (x != y) {
            return x < y;
        }
    }
    return false;
}

json_t *report_compare(json_t *reports)
{
    json_t *policies = json_array(), *best, *each;
    size_t i;

    for (unsigned p = 0; p <= CLAIM_CLEAR_FIRST; p++) {
        json_array_append_new(policies, sums_of(reports, report_policy_name((enum claim_policy)p)));
    }
    best = json_array_get(policies, CLAIM_CLEAR_FIRST);
    json_array_foreach(policies, i, each) {
        best = better(each, best) ? each : best;
    }
    return json_pack("{s:s,s:s,s:o,s:o}", "default", report_policy_name(CLAIM_CLEAR_FIRST), "best", json_string_value(json_object_get(best, "policy")),
                     "policies", policies, "runs", reports);
}

void report_compare_rows(json_t *comparison)
{
    json_t *each;
    size_t i;

    fprintf(stderr, "| trace | policy | fragmenting fallbacks | allocations that failed | blocks cleared | pages migrated | polluted "
                    "| blocks with a non-movable page / packed | compaction: blocks / possible (moves / least) |\n|---|---|---|---|---|---|---|---|---|\n");
    json_array_foreach(json_object_get(comparison, "runs"), i, each) {
        printf("| %s | %s | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f / %.0f | %.0f / %.0f (%.0f / %.0f) |\n",
               json_string_value(json_object_get(each, "trace")), json_string_value(json_object_get(each, "policy")),
               leaf(each, "replay", "fallbacks_fragmenting"), leaf(each, "replay", "allocations_failed"), leaf(each, "replay", "blocks_cleared"),
               leaf(each, "replay", "pages_migrated"), leaf(each, "blocks", "polluted") - leaf(each, "blocks", "polluted_with_boot_memory"),
               leaf(each, "blocks", "with_non_movable"), leaf(each, "blocks", "needed_if_packed"), leaf(each, "compaction", "blocks_after"),
               leaf(each, "compaction", "blocks_possible"), leaf(each, "compaction", "pages_migrated"), leaf(each, "compaction", "pages_migrated_least"));
    }
    printf("best: %s (default: %s)\n", json_string_value(json_object_get(comparison, "best")), json_string_value(json_object_get(comparison, "default")));
}

/* ---- for people ---- */

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

/* One row: what the comparison with the recorded kernel is about. */
void report_row(json_t *o)
{
    json_t *offline = json_object_get(json_object_get(o, "offline_128_mib"), "each"), *each;
    double residual = 0;
    size_t i;

    json_array_foreach(offline, i, each) {
        residual += json_number_value(json_object_get(each, "residual_pages"));
    }
    fprintf(stderr, "| trace | fragmenting fallbacks | failed | migrated | lent | polluted | non-movable blocks / packed "
                    "| compaction: blocks / possible (moves / least) | movable holes only | huge, migration only "
                    "| huge, with reclaim | huge, cache dropped first | 128 MiB offlined + residual of all (frames left) |\n"
                    "|---|---|---|---|---|---|---|---|---|---|---|---|---|\n");
    printf("| %s | %.0f | %.0f | %.0f | %.0f | %.0f | %.0f / %.0f = %.3f |", json_string_value(json_object_get(o, "trace")),
           leaf(o, "replay", "fallbacks_fragmenting"), leaf(o, "replay", "allocations_failed"), leaf(o, "replay", "pages_migrated"),
           leaf(o, "replay", "kernel_blocks_lent"), leaf(o, "blocks", "polluted") - leaf(o, "blocks", "polluted_with_boot_memory"),
           leaf(o, "blocks", "with_non_movable"), leaf(o, "blocks", "needed_if_packed"), leaf(o, "blocks", "times_packed"));
    for (unsigned k = 0; k < 2; k++) {
        const char *part = k == 0 ? "compaction" : "compaction_movable_holes";

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


void report_text(json_t *report)
{
    print_text("", report);
}
