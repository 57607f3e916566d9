/*
 * groups.h - blockers by owner and reason, and what a person can do about each.
 *
 * Owns: the grouping that both the text and the JSON report show.
 */
#ifndef FRAMESHIFT_TOOLS_GROUPS_H
#define FRAMESHIFT_TOOLS_GROUPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "hv.h"

#define GROUP_FIRST_MAX 4

struct blocker_group {
    uint16_t domid;
    uint8_t reason;                 /* enum fs_reason, as it came: may be out of the enum */
    uint64_t frames;
    mfn_t first[GROUP_FIRST_MAX];   /* the lowest ones */
    unsigned first_count;
};

struct blocker_groups {
    struct blocker_group *groups;   /* sorted by frames, most first; then by domid and reason */
    size_t count;
};

/* pre: blockers sorted by mfn.  FS_NO_MEMORY leaves *out empty. */
fs_status_t groups_make(const struct fs_blocker *blockers, size_t count, struct blocker_groups *out) FS_MUST_CHECK;
/* The same of a plan: frames of domains that will not be moved at all are in no list, only in the domain's count; they
 * become groups without first mfns. */
fs_status_t groups_make_plan(const struct hv_plan *plan, struct blocker_groups *out) FS_MUST_CHECK;
void groups_free(struct blocker_groups *g);
/* Frames of all groups; of one domain's. */
uint64_t groups_frames(const struct blocker_groups *g);
uint64_t groups_frames_of(const struct blocker_groups *g, uint16_t domid);

/* How such a frame can be made to go, in a few words; never NULL. */
const char *reason_advice(unsigned reason);
/* Whether saving and restoring the owner (--evict) takes the frame away. */
bool reason_is_evictable(unsigned reason);
/* "done", "not-needed", "later", "never", "unknown" */
const char *verdict_name(enum fs_verdict v);

#endif
