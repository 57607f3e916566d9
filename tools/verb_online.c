/*
 * verb_online.c - `frameshift online TARGET`: give a range back to Xen's heap.
 *
 * Owns: nothing. Invariant: I1 with --json the last line is one "online", or an "error".
 */
#include "tool.h"

#include "feed.h"
#include "json.h"
#include "text.h"

#include <string.h>

fs_status_t verb_online(struct tool *tool)
{
    struct fs_error err = { "" };
    uint64_t onlined_pages = 0;

    tool_guard_signals(tool);
    fs_status_t s = tool_feed(tool, false, &err);
    if (s == FS_OK) {
        s = tool_open(tool, &err);
    }
    if (s == FS_OK) {
        s = hv_online(tool->hv, tool->opt->argument, &onlined_pages, &err);
    }
    if (s != FS_OK && s != FS_PARTIAL) {
        return tool_fail(tool, s, &err);
    }
    if (tool->feed) {
        feed_pause(tool->feed);
    }
    if (tool->text) {
        char name[200];
        text_clean(name, sizeof(name), tool->opt->argument, strlen(tool->opt->argument), 0);
        fprintf(tool->out, "%s: %s frames (%s) are in use again%s\n", name, text_count(onlined_pages).s, text_size(onlined_pages).s,
                s == FS_PARTIAL ? "; some were refused, see --debug" : "");
    }
    if (tool->json) {
        s = tool_told(tool, json_online(tool->json, tool->opt->argument, onlined_pages, s), s);
    }
    if (tool->feed) {
        feed_resume(tool->feed);
    }
    return s;
}
