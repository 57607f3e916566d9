/*
 * verb_version.c - `frameshift version`: this program's version and the machine's.
 *
 * Owns: nothing. Read-only. Invariant: I1 it succeeds without a machine too, and says
 * why there is none: it is the first thing that a report of a problem holds.
 */
#include "tool.h"

#include "json.h"
#include "text.h"

fs_status_t verb_version(struct tool *tool)
{
    char version[256] = "", clean[4 * sizeof(version)];
    struct fs_error err = { "" };
    fs_status_t s = tool_open(tool, &err), status = FS_OK;

    if (s == FS_OK) {
        s = hv_version(tool->hv, version, sizeof(version), &err);
    }
    if (tool->json) {
        bool ok = json_version(tool->json, FRAMESHIFT_VERSION, tool->opt->machine, s == FS_OK ? version : NULL, err.text);
        status = tool_told(tool, ok, FS_OK);
    }
    if (!tool->text) {
        return status;
    }
    fprintf(tool->out, "frameshift %s\n", FRAMESHIFT_VERSION);
    if (s == FS_OK) {
        text_clean(clean, sizeof(clean), version, sizeof(version), 0);
        fprintf(tool->out, "%s\n", clean);
    } else {
        text_clean_lines(clean, sizeof(clean), err.text[0] ? err.text : fs_status_text(s), sizeof(err.text));
        fprintf(tool->out, "no machine: %s\n", clean);
    }
    return status;
}
