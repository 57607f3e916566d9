/*
 * show.h - topology, status, fsck and recover as text.  Pure: only f is written.
 */
#ifndef FRAMESHIFT_TOOLS_SHOW_H
#define FRAMESHIFT_TOOLS_SHOW_H

#include <stdio.h>
#include "hv.h"

void show_topology(FILE *f, const struct hv_topology *t);
/* machine: as on the command line. */
void show_status(FILE *f, const struct hv_status_report *s, const char *machine);
/* at_most: faults to print; 0: all. */
void show_fsck(FILE *f, const struct hv_fsck_report *r, size_t at_most);
/* quiet: the first line only. */
void show_shrink(FILE *f, const struct hv_shrink_report *r, bool quiet);
void show_recover(FILE *f, const struct hv_recover_report *r, fs_status_t status);

/* A guest's memory: tables as in Linux's /proc; quiet: the settings made only. */
void show_meminfo(FILE *f, const struct hv_meminfo *m, bool quiet);

#endif
