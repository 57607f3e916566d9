/*
 * verb_drill.c - `frameshift drill`: the main job, rehearsed on the machine inside this program.
 *
 * Owns: a drill's options, its progress on the screen, its report as text; JSON and HTML are written elsewhere from the same
 * callbacks.
 * Invariants:
 *  I1 with --json the last line is one "drill", whatever happened, or an "error" where nothing was begun;
 *  I2 plans and reports are shown for a single drill; where there are many, one line each;
 *  I3 --html FILE is opened before anything is done: a drill that cannot be told of is not held.
 * Why the exit code is not that of the evacuations: theirs is PARTIAL as long as rings stay, which is right and no fault.
 */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include "drill/coop_rig.h"
#include "feed.h"
#include "html.h"
#include "json.h"
#include "report.h"
#include "text.h"

#define MACHINE "embedded"

struct run {
    struct tool *tool;
    bool many;
    FILE *html_file;
    struct html *html;
    uint64_t seed;                      /* of the line under way, where there are many */
    uint64_t moved, pages, ns, faults;
    const char *plan_dimm;
};

static bool wordy(const struct run *run) { return run->tool->text && !run->tool->opt->quiet; }

static void on_plan(void *arg, const struct hv_plan *plan)
{
    struct run *run = arg;
    const struct tool_options *o = run->tool->opt;

    feed_plan(run->tool->feed, plan);
    feed_pause(run->tool->feed);
    if (run->tool->json && !o->quiet) {
        (void)json_plan(run->tool->json, plan);
    }
    if (wordy(run) && !run->many) {
        fputc('\n', run->tool->out);
        report_plan_text(run->tool->out, plan);
        fputc('\n', run->tool->out);
        (void)fflush(run->tool->out);
    }
    feed_resume(run->tool->feed);
}

static void on_report(void *arg, const char *dimm, const struct hv_report *r, fs_status_t status, const char *error)
{
    struct run *run = arg;

    feed_pause(run->tool->feed);
    if (run->tool->json && !run->tool->opt->quiet) {
        struct json_report_info info = { dimm, status, error, false, true, run->tool->opt->evict };
        (void)json_report(run->tool->json, r, &info);
    }
    if (wordy(run) && !run->many) {
        struct report_info info = { .target = dimm, .status = status, .verify = true, .evict = run->tool->opt->evict, .in_drill = true };
        report_text(run->tool->out, r, &info);
        fputc('\n', run->tool->out);
    }
    html_report(run->html, dimm, r, status);
    feed_resume(run->tool->feed);
}

static void step_text(FILE *f, const struct hv_drill_step *s)
{
    char what[96], words[4 * sizeof(s->text)];

    (void)snprintf(what, sizeof(what), "%s%s%.40s", s->name, s->dimm[0] ? " " : "", s->dimm);
    fprintf(f, "%-18s %9s  ", what, text_time(s->ns).s);
    if (strcmp(s->name, "evacuate") == 0) {
        fprintf(f, "%s frames moved, %s of guests stay (%s in other hands); ", text_count(s->frames_moved).s, text_count(s->frames_left).s,
                text_count(s->frames_bound).s);
    } else if (s->frames_given > 0 || s->frames_taken > 0) {
        fprintf(f, "%s frames %s; ", text_count(s->frames_given + s->frames_taken).s, s->frames_given > 0 ? "given to the machine" : "taken again");
    } else if (strcmp(s->name, "online") == 0) {
        fprintf(f, "%s frames in use again; ", text_count(s->frames_onlined).s);
    }
    fprintf(f, "%s pages written, %s checked, %s\n", text_count(s->writes).s, text_count(s->pages_checked).s,
            s->faults == 0 ? "no fault" : s->faults == 1 ? "1 FAULT" : "FAULTS");
    if (s->injected) {
        fputs("                   a call failed on purpose\n", f);
    }
    if (s->text[0] != '\0') {
        text_clean_lines(words, sizeof(words), s->text, sizeof(s->text));
        fprintf(f, "                   %s\n", words);
    }
    (void)fflush(f);
}

/* One line for each of many drills: told at its last step, or when the next one begins. */
static void seed_text(struct run *run)
{
    if (run->seed != 0) {
        fprintf(run->tool->out, "seed %-8" PRIu64 " %9s  %s frames moved, %s pages checked, %s\n", run->seed, text_time(run->ns).s,
                text_count(run->moved).s, text_count(run->pages).s, run->faults == 0 ? "no fault" : "FAULTS");
        (void)fflush(run->tool->out);
    }
    run->seed = run->moved = run->pages = run->ns = run->faults = 0;
}

static void on_step(void *arg, const struct hv_drill_step *s)
{
    struct run *run = arg;

    feed_pause(run->tool->feed);
    if (run->tool->json) {
        (void)json_step(run->tool->json, s);
    }
    if (run->many) {
        if (s->seed != run->seed && wordy(run)) {
            seed_text(run);
        }
        run->seed = s->seed;
        run->moved += s->frames_moved;
        run->pages += s->pages_checked;
        run->ns += s->ns + s->judge_ns;
        run->faults += s->faults;
    } else if (wordy(run)) {
        step_text(run->tool->out, s);
    }
    html_step(run->html, s);
    feed_resume(run->tool->feed);
}

static fs_status_t html_open(struct run *run, struct fs_error *err)
{
    const char *path = run->tool->opt->html_file;

    if (!path) {
        return FS_OK;
    }
    run->html_file = fopen(path, "we");
    if (!run->html_file) {
        return fs_fail(err, FS_IO, "cannot write %s: %s; nothing was done", path, strerror(errno));
    }
    run->html = html_begin(run->html_file);
    return run->html ? FS_OK : fs_fail(err, FS_NO_MEMORY, "out of memory");
}

static fs_status_t html_close(struct run *run, const struct hv_drill_report *r, fs_status_t status, struct fs_error *err)
{
    if (!run->html_file) {
        return status;
    }
    html_end(run->html, r, status, err->text);
    bool ok = fflush(run->html_file) == 0 && !ferror(run->html_file);
    ok = fclose(run->html_file) == 0 && ok;
    if (ok || status != FS_OK) {
        return status;
    }
    return fs_fail(err, FS_IO, "%s could not be written", run->tool->opt->html_file);
}

static fs_status_t run_drill(struct run *run, struct hv_drill_report *report, struct fs_error *err)
{
    const struct tool_options *o = run->tool->opt;
    struct hv_drill_options options = {
        .seed = o->seed, .seeds = o->seeds, .dimms = o->dimms, .dimm_mib = o->dimm_mib, .guests = o->guests, .guest_count = o->guest_count,
        .kernel = coop_rig_ops(),
        .threads = o->threads, .evict = o->evict, .max_blackout_ns = o->max_blackout_ns, .max_pause_ns = o->max_pause_ns,
        .fail_call = o->fail_call, .state_dir = o->state_dir, .interrupted = tool_interrupted(),
        .on = { .arg = run, .on_plan = on_plan, .on_report = on_report, .on_step = on_step },
    };
    if (o->map_file) {
        return fs_fail(err, FS_USAGE, "the drill's machine has a DIMM for each of its nodes; leave --map out");
    }
    if (o->machine_given && strcmp(o->machine, MACHINE) != 0) {
        return fs_fail(err, FS_USAGE, "a drill is held on the machine inside this program; leave --machine out and describe it with --dimms and --guest");
    }
    fs_status_t s = html_open(run, err);
    if (s == FS_OK) {
        s = tool_feed(run->tool, false, err);
    }
    if (s == FS_OK) {
        options.on_event = feed_event;
        options.event_arg = run->tool->feed;
        s = hv_drill(&options, report, err);
    }
    return s;
}

static void tell_text(const struct run *run, const struct hv_drill_report *r, fs_status_t s)
{
    FILE *f = run->tool->out;
    const char *modelled = run->tool->opt->threads ? "" : " (modelled; --threads measures)";

    if (!run->tool->opt->quiet) {
        fputc('\n', f);
    }
    fprintf(f, "Drill: %s. %s drill%s, %s evacuations, %s frames moved, %s pages compared, %s faults; %s\n",
            s == FS_OK ? "passed" : s == FS_INTERRUPTED ? "stopped" : "FAILED", text_count(r->seeds).s, r->seeds == 1 ? "" : "s",
            text_count(r->evacuations).s, text_count(r->frames_moved).s, text_count(r->pages_checked).s, text_count(r->faults).s, text_time(r->ns).s);
    if (!run->tool->opt->quiet && r->longest_blackout_ns > 0) {
        fprintf(f, "Longest stop of a guest: %s%s. Free frames at the end: %s of %s.\n", text_time(r->longest_blackout_ns).s, modelled,
                text_count(r->free_pages).s, text_count(r->expected_free_pages).s);
    }
    if (r->seeds_failed > 0) {
        fprintf(f, "Failed: %s; the first one repeats with --seed %" PRIu64 "\n", text_count(r->seeds_failed).s, r->first_failed_seed);
    }
}

fs_status_t verb_drill(struct tool *tool)
{
    struct run run = { .tool = tool, .many = tool->opt->seeds > 1 };
    struct hv_drill_report report = { 0 };
    struct fs_error err = { "" };

    tool_guard_signals(tool);
    fs_status_t s = run_drill(&run, &report, &err);
    feed_stop(tool->feed);
    tool->feed = NULL;
    s = html_close(&run, &report, s, &err);
    if (report.steps == 0 && s != FS_OK) {
        return tool_fail(tool, s, &err);
    }
    if (run.many && wordy(&run)) {
        seed_text(&run);
    }
    if (tool->text) {
        tell_text(&run, &report, s);
    }
    if (tool->json) {
        s = tool_told(tool, json_drill(tool->json, &report, tool->opt->threads, s, err.text), s);
    }
    if (s != FS_OK) {
        (void)fflush(tool->out);
        tool_print_error(tool, s, err.text);
    }
    return s;
}
