/*
 * verb_shrink.c - `frameshift shrink GUEST --to SIZE` and `frameshift grow GUEST --to SIZE`.
 *
 * Owns: nothing.
 * Invariants: I1 with --json the last line is one "shrink" or "grow", whatever happened; I2 what is told about memory that came or went is the
 *   machine's count, what the guest says is called so.
 */
#include "tool.h"

#include <string.h>
#include "feed.h"
#include "json.h"
#include "show.h"

static fs_status_t run(struct tool *tool, bool grow)
{
    struct hv_shrink_options options = { .guest = tool->opt->argument, .to_pages = tool->opt->to_pages, .grow = grow, .dry_run = tool->opt->dry_run,
                                         .timeout_ns = tool->opt->suspend_timeout_ns, .crash_at = tool->opt->crash_at };
    struct hv_shrink_report report = { .grow = grow, .dry_run = options.dry_run, .asked_pages = options.to_pages };
    struct fs_error err = { "" };

    tool_guard_signals(tool);
    fs_status_t s = tool_feed(tool, true, &err);
    if (s == FS_OK) {
        s = tool_open(tool, &err);
    }
    if (s == FS_OK) {
        s = hv_shrink(tool->hv, &options, &report, &err);
    }
    feed_stop(tool->feed);              /* the last events go before the report */
    tool->feed = NULL;
    report.status = s;
    if (report.name[0] == '\0') {
        (void)snprintf(report.name, sizeof(report.name), "%.*s", (int)sizeof(report.name) - 1, options.guest);
    }
    if (s != FS_OK) {
        (void)snprintf(report.error, sizeof(report.error), "%s", err.text[0] ? err.text : fs_status_text(s));
    }
    if (tool->json) {
        s = tool_told(tool, json_shrink(tool->json, &report), s);
    }
    if (tool->text && (report.requests > 0 || s == FS_OK)) {
        show_shrink(tool->out, &report, tool->opt->quiet);
    }
    if (s != FS_OK) {
        (void)fflush(tool->out);        /* the error comes last, also where both go to one file */
        tool_print_error(tool, s, report.error);
    }
    return s;
}

fs_status_t verb_shrink(struct tool *tool) { return run(tool, false); }
fs_status_t verb_grow(struct tool *tool) { return run(tool, true); }
