/*
 * tool.h - what the verbs share: options, streams, the open machine, signals.
 *
 * Owns: struct tool and the functions of session.c.  A verb returns the status that
 * decides the exit code, after it has told the user everything.
 */
#ifndef FRAMESHIFT_TOOLS_TOOL_H
#define FRAMESHIFT_TOOLS_TOOL_H

#include <stdio.h>
#include "hv.h"
#include "opts.h"

struct feed;

struct tool {
    const struct tool_options *opt;
    FILE *out, *err;                /* text: results, and what went wrong */
    FILE *json;                     /* JSON lines, or NULL; may be out */
    bool text;                      /* results as text on out */
    struct hv *hv;
    struct feed *feed;
};

/* Opens the file of --json=FILE, if any: before anything is done that it should tell of. */
fs_status_t tool_begin(struct tool *tool, struct fs_error *err) FS_MUST_CHECK;
/* Opens the machine of the options. */
fs_status_t tool_open(struct tool *tool, struct fs_error *err) FS_MUST_CHECK;
void tool_close(struct tool *tool);
/* For verbs that change the machine or stop a guest: signals ask the engine to stop instead of killing the tool, and the
 * tool cannot be stopped (^Z) or killed by a closed pipe while a guest waits for it.  Call it before tool_open(). */
void tool_guard_signals(struct tool *tool);
/* Not 0 once such a signal came: for calls that have no struct hv to interrupt. */
const volatile int *tool_interrupted(void);
/* Events and progress as the options ask; progress only where that makes sense for the verb. */
fs_status_t tool_feed(struct tool *tool, bool progress, struct fs_error *err) FS_MUST_CHECK;

/* Tells of a failure (text on stderr; with --json an error line too) and returns status. */
fs_status_t tool_fail(struct tool *tool, fs_status_t status, const struct fs_error *err);
/* After a JSON line: ok says whether it was written. A stream that failed is main()'s to tell once the verb is done;
 * what is left is memory. Returns the status to go on with. */
fs_status_t tool_told(struct tool *tool, bool ok, fs_status_t status);
/* The text part only: for verbs whose JSON line carries the error. */
void tool_print_error(struct tool *tool, fs_status_t status, const char *text);

fs_status_t verb_topology(struct tool *tool);
fs_status_t verb_status(struct tool *tool);
fs_status_t verb_evacuate(struct tool *tool);
fs_status_t verb_online(struct tool *tool);
fs_status_t verb_fsck(struct tool *tool);
fs_status_t verb_recover(struct tool *tool);
fs_status_t verb_version(struct tool *tool);
fs_status_t verb_drill(struct tool *tool);
fs_status_t verb_shrink(struct tool *tool);
fs_status_t verb_grow(struct tool *tool);
fs_status_t verb_meminfo(struct tool *tool);

#endif
