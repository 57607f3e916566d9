/*
 * drill.h - the drill over any rig, for tests that spoil one on purpose.
 */
#ifndef FRAMESHIFT_HV_DRILL_H
#define FRAMESHIFT_HV_DRILL_H

#include "hv.h"
#include "rig.h"

/* As hv_drill(), on a rig of the caller's. */
fs_status_t drill_run(const struct rig_ops *rig, const struct hv_drill_options *options, struct hv_drill_report *out,
                      struct fs_error *err) FS_MUST_CHECK;
/* The machine that options describe; FS_USAGE says which word is wrong. */
fs_status_t drill_config(const struct rig_ops *rig, const struct hv_drill_options *options, struct rig_config *out, struct fs_error *err) FS_MUST_CHECK;

#endif
