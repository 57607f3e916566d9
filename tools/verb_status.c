/*
 * verb_status.c - `frameshift status`: what every DIMM holds, as numbers and a map.
 *
 * Owns: nothing. Read-only. Invariants: I1 what was filled is freed on every way out;
 * I2 a recovery that is due is said, and is no failure of this verb.
 */
#include "tool.h"

#include "json.h"
#include "show.h"

fs_status_t verb_status(struct tool *tool)
{
    struct hv_status_report status = { 0 };
    struct fs_error err = { "" };
    fs_status_t s = tool_open(tool, &err);

    if (s == FS_OK) {
        s = hv_status(tool->hv, &status, &err);
    }
    if (s != FS_OK) {
        s = tool_fail(tool, s, &err);
        goto out;
    }
    if (tool->text) {
        show_status(tool->out, &status, tool->opt->machine);
    }
    if (tool->json) {
        s = tool_told(tool, json_status(tool->json, &status), s);
    }
out:
    hv_status_free(&status);
    return s;
}
