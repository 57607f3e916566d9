/*
 * verb_fsck.c - `frameshift fsck [DOMAIN]`: do p2m, M2P, types and owners agree?
 *
 * Owns: nothing. Read-only; --pause stops each domain while it is looked at, which is
 * why signals are guarded.
 * Invariants: I1 a fault found is FS_CORRUPT to the caller, whether exact or not: the
 * text says which.
 */
#include "tool.h"

#include "feed.h"
#include "json.h"
#include "show.h"

#define FAULTS_SHOWN 50

fs_status_t verb_fsck(struct tool *tool)
{
    const struct tool_options *o = tool->opt;
    struct hv_fsck_report report = { 0 };
    struct fs_error err = { "" };
    uint16_t domid = FS_DOMID_NONE;

    if (o->pause) {
        tool_guard_signals(tool);
    }
    fs_status_t s = tool_open(tool, &err);
    if (s == FS_OK && o->argument) {
        s = hv_domain_find(tool->hv, o->argument, &domid, &err);
    }
    if (s == FS_OK) {
        s = hv_fsck(tool->hv, domid, o->pause, &report, &err);
    }
    if (s != FS_OK && s != FS_CORRUPT) {
        s = tool_fail(tool, s, &err);
        goto out;
    }
    s = report.fault_count > 0 ? FS_CORRUPT : s;        /* I1 */
    if (tool->text && (!o->quiet || s != FS_OK)) {
        show_fsck(tool->out, &report, FAULTS_SHOWN);
    }
    if (tool->json) {
        s = tool_told(tool, json_fsck(tool->json, &report, s), s);
    }
out:
    hv_fsck_free(&report);
    return s;
}
