/*
 * progress.h - how far an evacuation is, from its events.
 *
 * Owns: struct progress.  Pure: no clock, no output; the caller passes times.
 */
#ifndef FRAMESHIFT_TOOLS_PROGRESS_H
#define FRAMESHIFT_TOOLS_PROGRESS_H

#include <stddef.h>
#include <stdint.h>
#include "frameshift/trace.h"

struct progress {
    uint64_t total_frames;          /* movable, by the plan; 0: not known yet */
    uint64_t settled_frames;        /* of domains and stops that are over */
    uint64_t swap_frames, extent_frames, copy_frames;   /* of the domain at work */
    uint64_t shown_frames;          /* highest that was shown: never goes back */
    uint64_t begin_ns;              /* when the first frame was on its way; 0: none yet */
    enum fs_event_id last;          /* the last event that says what is going on */
    uint16_t domid;                 /* the domain at work */
};

void progress_event(struct progress *p, const struct fs_event *e, uint64_t now_ns);
/* One line without newline, at most bytes - 1 long; name is the domain at work's, clean, or "". */
void progress_line(struct progress *p, const char *name, uint64_t now_ns, char *line, size_t bytes);

#endif
