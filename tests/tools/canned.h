/*
 * canned.h - plans, reports and hosts with known contents, for tests of the CLI.
 *
 * Owns: nothing at run time; each call fills a struct that the hv_*_free functions of
 * the engine can free.  The numbers add up as the engine's do.
 */
#ifndef FRAMESHIFT_TESTS_CANNED_H
#define FRAMESHIFT_TESTS_CANNED_H

#include "hv.h"

/* NODE1, 262,144 frames: pv1 (1), a guest with a hostile name (2), hvm1 (3), dom0. 18 blockers of guests are listed; dom0's
 * 1000 frames are only counted, as the engine does with domains that it leaves alone. */
void canned_plan(struct hv_plan *p);
/* What came of that plan: everything movable moved; every frame that stays is listed. */
void canned_report(struct hv_report *r);
void canned_topology(struct hv_topology *t);
void canned_status(struct hv_status_report *s);
void canned_fsck(struct hv_fsck_report *r, bool paused);

/* pv1 of 65,536 frames, shrunk to to_pages or grown to them. */
void canned_meminfo(struct hv_meminfo *m);
void canned_shrink(struct hv_shrink_report *r, bool grow, uint64_t to_pages);

/* The evacuation of a DIMM with a hostile name, in a drill. */
void canned_drill_step(struct hv_drill_step *s, bool corrupt);
void canned_drill(struct hv_drill_report *r, bool corrupt);

#define CANNED_HOSTILE_NAME "evil\x1b[2J\xff\xe2\x80\xae\"\\name"
#define CANNED_DOM0_FRAMES 1000u
#define CANNED_GUEST_BLOCKERS 18u

#endif
