/*
 * json.h - JSON lines; doc/JSON.md is the schema.
 *
 * Owns: the spelling of every member.  Each function writes exactly one line that is
 * one whole JSON object with a "type", and flushes it.
 * Errors: false where memory ran out or the stream failed; a line is then either
 * whole or, on a stream error, cut.
 */
#ifndef FRAMESHIFT_TOOLS_JSON_H
#define FRAMESHIFT_TOOLS_JSON_H

#include <stdbool.h>
#include <stdio.h>
#include "hv.h"

/* One event; name is its domain's, or NULL. */
bool json_event(FILE *f, const struct fs_event *event, const char *name);
/* Events that were not written because the reader was too slow. */
bool json_events_dropped(FILE *f, uint64_t events);
bool json_plan(FILE *f, const struct hv_plan *plan);

struct json_report_info {
    const char *target;                     /* as on the command line; used where the plan has none */
    fs_status_t status;                     /* of the whole command; decides the exit code */
    const char *error;                      /* "" or NULL: none */
    bool dry_run, verify, evict;
};
bool json_report(FILE *f, const struct hv_report *report, const struct json_report_info *info);

bool json_topology(FILE *f, const struct hv_topology *t);
bool json_status(FILE *f, const struct hv_status_report *s);
bool json_fsck(FILE *f, const struct hv_fsck_report *r, fs_status_t status);
bool json_recover(FILE *f, const struct hv_recover_report *r, fs_status_t status);
bool json_shrink(FILE *f, const struct hv_shrink_report *r);        /* "shrink", or "grow" */
bool json_meminfo(FILE *f, const struct hv_meminfo *m);
bool json_online(FILE *f, const char *target, uint64_t onlined_pages, const struct hv_shrink_report *grown, size_t grown_count, fs_status_t status);
/* machine_version NULL: the machine was not reached, error tells why. */
bool json_version(FILE *f, const char *version, const char *machine, const char *machine_version, const char *error);
bool json_step(FILE *f, const struct hv_drill_step *s);
/* threads false: times are modelled. */
bool json_drill(FILE *f, const struct hv_drill_report *r, bool threads, fs_status_t status, const char *error);
bool json_error(FILE *f, const char *verb, fs_status_t status, const char *text);

const char *json_cell_name(unsigned cell);  /* of enum hv_map_cell */

#endif
