/*
 * verb_topology.c - `frameshift topology`: the DIMMs and their frames.
 *
 * Owns: nothing. Read-only. Invariant: I1 what was filled is freed on every way out.
 */
#include "tool.h"

#include "json.h"
#include "show.h"

fs_status_t verb_topology(struct tool *tool)
{
    struct hv_topology topology = { 0 };
    struct fs_error err = { "" };
    fs_status_t s = tool_open(tool, &err);

    if (s == FS_OK) {
        s = hv_topology(tool->hv, &topology, &err);
    }
    if (s != FS_OK) {
        s = tool_fail(tool, s, &err);
        goto out;
    }
    if (tool->text) {
        show_topology(tool->out, &topology);
    }
    if (tool->json) {
        s = tool_told(tool, json_topology(tool->json, &topology), s);
    }
out:
    hv_topology_free(&topology);
    return s;
}
