/*
 * verb_meminfo.c - `frameshift meminfo GUEST [--set NAME=VALUE]`: a guest's memory as its own kernel sees it.
 *
 * Owns: nothing.
 * Invariants: I1 with --json one "meminfo" line, or one "error" line.
 */
#include "tool.h"

#include "json.h"
#include "show.h"

fs_status_t verb_meminfo(struct tool *tool)
{
    const struct tool_options *o = tool->opt;
    struct hv_meminfo_want wants[OPTS_SETS_MAX];
    struct hv_meminfo info = { .domid = FS_DOMID_NONE };
    struct fs_error err = { "" };

    for (size_t i = 0; i < o->set_count; i++) {
        wants[i] = (struct hv_meminfo_want){ o->sets[i].name, o->sets[i].value };
    }
    tool_guard_signals(tool);
    fs_status_t s = tool_open(tool, &err);
    if (s == FS_OK) {
        s = hv_meminfo(tool->hv, o->argument, wants, o->set_count, &info, &err);
    }
    if (s != FS_OK) {
        s = tool_fail(tool, s, &err);
        goto out;
    }
    if (tool->text) {
        show_meminfo(tool->out, &info, o->quiet);
    }
    if (tool->json) {
        s = tool_told(tool, json_meminfo(tool->json, &info), s);
    }
out:
    hv_meminfo_free(&info);
    return s;
}
