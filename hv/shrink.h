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
/* ---- make_room.c ---- */
struct room_guest { uint16_t domid; char name[HV_NAME_BYTES]; uint64_t pages, possible_pages, give_pages; };
struct room_plan { struct room_guest *guests; size_t count; uint64_t possible_pages; bool enough; };
/* Which guests could give how much, and how much of missing_pages each would; no guests where they cannot be asked now. */
void room_ask(struct hv *hv, const struct survey *survey, const struct hv_evacuate_options *o, uint64_t missing_pages, struct room_plan *out);
void room_plan_text(const struct room_plan *p, char *out, size_t bytes);        /* "mail by 120 MiB, db by 64 MiB" */
void room_plan_free(struct room_plan *p);
/* They shrink. FS_NO_ROOM: one did not give what was planned, and everything was given back. *list: malloc'd in any case. */
fs_status_t room_make(struct hv *hv, const struct room_plan *p, struct hv_shrink_report **list, size_t *count, struct fs_error *err) FS_MUST_CHECK;
/* As far as it can be done now. */
void room_give_back(struct hv *hv, struct hv_shrink_report *list, size_t count);

/* As hv_shrink(), under a lock that the caller holds; journal records are the caller's journal's. */
fs_status_t shrink_run(struct hv *hv, struct journal *journal, const struct hv_shrink_options *options, struct hv_shrink_report *out,
                       struct fs_error *err) FS_MUST_CHECK;

#endif
