/*
 * report.h - plans and reports as text.
 *
 * Owns: what a person reads before and after an evacuation.  Pure: only f is written.
 */
#ifndef FRAMESHIFT_TOOLS_REPORT_H
#define FRAMESHIFT_TOOLS_REPORT_H

#include <stdbool.h>
#include <stdio.h>
#include "hv.h"

void report_plan_text(FILE *f, const struct hv_plan *plan);

struct report_info {
    const char *target;             /* as on the command line */
    fs_status_t status;             /* of the whole command */
    bool verify, evict;
    bool quiet;                     /* one line only */
    bool in_drill;                  /* no advice about what to do next: the drill does it */
};
void report_text(FILE *f, const struct hv_report *report, const struct report_info *info);
/* After --dry-run: what to do next. */
void report_dry_run_text(FILE *f, const struct hv_plan *plan, const struct report_info *info);

#define REPORT_OWNER_BYTES 48
struct report_owner { char s[REPORT_OWNER_BYTES]; };
/* "pv1 (3)", "dom0", "Xen", "domain 7", "no owner"; clean for a terminal. */
struct report_owner report_owner_name(const struct hv_plan_domain *domains, size_t count, uint16_t domid);
/* "mfn 0x40000-0x80000, 0x100000-0x140000"; at most max ranges, then "and 3 more". */
void report_ranges_text(FILE *f, const struct mfn_range_set *set, size_t max);

#endif
