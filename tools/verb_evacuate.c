/*
 * verb_evacuate.c - `frameshift evacuate TARGET`: empty a DIMM under running guests.
 *
 * Owns: one evacuation's options, its plan on the screen, its report.
 * Invariants:
 *  I1 with --json the last line is one "report", whatever happened, also where the
 *     machine could not be opened: who waits for it never waits in vain;
 *  I2 the plan is shown once, before anything is changed, or not at all (--quiet);
 *  I3 nothing is written to a stream from the engine's callbacks but the plan, and the
 *     engine calls for that before the first change (feed.c has the rest).
 * Cost: that of the engine; text and JSON are written while every guest runs.
 */
#include "tool.h"

#include "feed.h"
#include "json.h"
#include "report.h"
#include "show.h"

struct run {
    struct tool *tool;
    bool plan_shown;
    struct hv_report report;
    uint16_t exclude[OPTS_EXCLUDE_MAX];
};

static void show_plan(struct run *run, const struct hv_plan *plan)
{
    const struct tool_options *o = run->tool->opt;

    run->plan_shown = true;
    if (o->quiet) {
        return;
    }
    if (run->tool->json) {
        (void)json_plan(run->tool->json, plan);     /* a stream that failed is told at the end, by main() */
    }
    if (run->tool->text) {
        report_plan_text(run->tool->out, plan);
        (void)fflush(run->tool->out);
    }
}

static void on_plan(void *arg, const struct hv_plan *plan)
{
    struct run *run = arg;

    feed_plan(run->tool->feed, plan);
    feed_pause(run->tool->feed);
    show_plan(run, plan);
    feed_resume(run->tool->feed);
}

static fs_status_t find_excluded(struct run *run, struct fs_error *err)
{
    const struct tool_options *o = run->tool->opt;

    for (size_t i = 0; i < o->exclude_count; i++) {
        fs_status_t s = hv_domain_find(run->tool->hv, o->exclude[i], &run->exclude[i], err);
        if (s != FS_OK) {
            return s;
        }
    }
    return FS_OK;
}

static fs_status_t run_engine(struct run *run, struct fs_error *err)
{
    const struct tool_options *o = run->tool->opt;
    struct hv_evacuate_options options = {
        .target = o->argument, .dry_run = o->dry_run, .verify = o->verify, .evict = o->evict, .make_room = o->make_room, .evict_dir = o->evict_dir,
        .max_blackout_ns = o->max_blackout_ns, .max_pause_ns = o->max_pause_ns, .suspend_timeout_ns = o->suspend_timeout_ns,
        .exclude = run->exclude, .exclude_count = o->exclude_count, .crash_at = o->crash_at,
        .on_plan = on_plan, .plan_arg = run,
    };
    fs_status_t s = tool_feed(run->tool, true, err);

    if (s == FS_OK) {
        s = tool_open(run->tool, err);
    }
    if (s == FS_OK) {
        s = find_excluded(run, err);
    }
    if (s == FS_OK) {
        s = hv_evacuate(run->tool->hv, &options, &run->report, err);
    }
    return s;
}

static fs_status_t tell(struct run *run, fs_status_t status, const struct fs_error *err)
{
    const struct tool_options *o = run->tool->opt;
    struct hv_report *r = &run->report;
    FILE *out = run->tool->out;
    const char *error = "";

    /* A plan that cannot run is a failure of the dry run too: scripts ask it "would this work?". */
    if (status == FS_OK && o->dry_run && r->plan.refusal_status != FS_OK) {
        status = r->plan.refusal_status;
    }
    if (status != FS_OK && status != FS_PARTIAL) {
        error = err->text[0] ? err->text : r->plan.refusal[0] ? r->plan.refusal : fs_status_text(status);
    }
    bool planned = r->plan.counts.total > 0 || r->plan.ranges.count > 0;
    if (planned && !run->plan_shown) {
        show_plan(run, &r->plan);
    }
    if (run->tool->json) {
        struct json_report_info info = { o->argument, status, error, o->dry_run, o->verify, o->evict };
        status = tool_told(run->tool, json_report(run->tool->json, r, &info), status);
    }
    for (size_t i = 0; i < r->made_room_count && run->tool->text; i++) {
        fputs(i == 0 ? "\nRoom was made:\n" : "", out);
        show_shrink(out, &r->made_room[i], o->quiet);
    }
    if (run->tool->text && planned) {
        struct report_info info = { o->argument, status, o->verify, o->evict, o->quiet, false };
        if (!o->dry_run) {
            report_text(out, r, &info);
        } else {
            report_dry_run_text(out, &r->plan, &info);
        }
    }
    if (error[0] != '\0') {
        (void)fflush(out);              /* the error comes last, also where both go to one file */
        tool_print_error(run->tool, status, error);
    }
    return status;
}

fs_status_t verb_evacuate(struct tool *tool)
{
    struct run run = { .tool = tool };
    struct fs_error err = { "" };

    tool_guard_signals(tool);
    fs_status_t s = run_engine(&run, &err);
    feed_stop(tool->feed);              /* the last events go before the report */
    tool->feed = NULL;
    s = tell(&run, s, &err);
    hv_report_free(&run.report);
    return s;
}
