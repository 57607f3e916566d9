/*
 * shrink.h - what recover.c and evacuate.c need of shrink.c.
 */
#ifndef FRAMESHIFT_HV_SHRINK_H
#define FRAMESHIFT_HV_SHRINK_H

#include "hv_priv.h"
#include "shrunk.h"

/* The record JR_SHRINK. */
struct shrink_record { uint64_t grow, plan_pages, pages_before; struct shrunk was; };

/* Is one of the journal's records [first, last) a JR_SHRINK? */
bool shrink_recorded(const struct journal *j, size_t first, size_t last);
/* A shrink or grow that was killed: the guest is made idle, and its limit is what it has. */
fs_status_t shrink_recover(const struct mover_ctx *ctx, const char *state_dir, uint16_t domid, size_t first, size_t last, struct hv_recover_report *out,
                           struct fs_error *err) FS_MUST_CHECK;
/* As hv_shrink(), under a lock that the caller holds; journal records are the caller's journal's. */
fs_status_t shrink_run(struct hv *hv, struct journal *journal, const struct hv_shrink_options *options, struct hv_shrink_report *out,
                       struct fs_error *err) FS_MUST_CHECK;

#endif
