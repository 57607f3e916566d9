/*
 * verb_recover.c - `frameshift recover`: finish or undo what a killed run left.
 *
 * Owns: nothing. Invariant: I1 with --json the last line is one "recover", also where it
 * failed: what was done so far is in it.
 */
#include "tool.h"

#include "feed.h"
#include "json.h"
#include "show.h"

fs_status_t verb_recover(struct tool *tool)
{
    struct hv_recover_report report = { 0 };
    struct fs_error err = { "" };

    tool_guard_signals(tool);
    fs_status_t s = tool_feed(tool, true, &err);
    if (s == FS_OK) {
        s = tool_open(tool, &err);
    }
    if (s != FS_OK) {
        return tool_fail(tool, s, &err);
    }
    s = hv_recover(tool->hv, &report, &err);
    feed_stop(tool->feed);
    tool->feed = NULL;
    if (tool->text && (!tool->opt->quiet || s != FS_OK)) {
        show_recover(tool->out, &report, s);
    }
    if (tool->json) {
        s = tool_told(tool, json_recover(tool->json, &report, s), s);
    }
    if (s != FS_OK) {
        (void)fflush(tool->out);
        tool_print_error(tool, s, err.text);
    }
    return s;
}
