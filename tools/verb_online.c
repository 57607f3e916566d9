/*
 * verb_online.c - `frameshift online TARGET`: give a range back to Xen's heap.
 *
 * Owns: nothing. Invariant: I1 with --json the last line is one "online", or an "error".
 */
#include "tool.h"

#include "feed.h"
#include "json.h"
#include "show.h"
#include "text.h"

#include <stdlib.h>
#include <string.h>

fs_status_t verb_online(struct tool *tool)
{
    struct hv_shrink_report *grown = NULL;
    size_t grown_count = 0;
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
    if (tool->opt->grow_back) {
        fs_status_t g = hv_grow_back(tool->hv, &grown, &grown_count, &err);
        s = g != FS_OK ? g : s;
        if (g != FS_OK) {
            tool_print_error(tool, g, err.text);
        }
    }
    if (tool->feed) {
        feed_pause(tool->feed);
    }
    if (tool->text) {
        char name[200];
        text_clean(name, sizeof(name), tool->opt->argument, strlen(tool->opt->argument), 0);
        fprintf(tool->out, "%s: %s frames (%s) are in use again%s\n", name, text_count(onlined_pages).s, text_size(onlined_pages).s,
                s == FS_PARTIAL ? "; some were refused, see --debug" : "");
        for (size_t i = 0; i < grown_count; i++) {
            show_shrink(tool->out, &grown[i], tool->opt->quiet);
        }
        if (tool->opt->grow_back && grown_count == 0) {
            fputs("No guest has memory to take again.\n", tool->out);
        }
    }
    if (tool->json) {
        s = tool_told(tool, json_online(tool->json, tool->opt->argument, onlined_pages, grown, grown_count, s), s);
    }
    if (tool->feed) {
        feed_resume(tool->feed);
    }
    free(grown);
    return s;
}
