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
#include "frameshift/status.h"

#define GROUP_FIRST_MAX 4

struct blocker_group {
    uint16_t domid;
    uint8_t reason;                 /* enum fs_reason, as it came: may be out of the enum */
    uint64_t frames;
    mfn_t first[GROUP_FIRST_MAX];   /* the lowest ones; min(frames, GROUP_FIRST_MAX) of them */
};

struct blocker_groups {
    struct blocker_group *groups;   /* sorted by frames, most first; then by domid and reason */
    size_t count;
};

/* pre: blockers sorted by mfn.  FS_NO_MEMORY leaves *out empty. */
fs_status_t groups_make(const struct fs_blocker *blockers, size_t count, struct blocker_groups *out) FS_MUST_CHECK;
void groups_free(struct blocker_groups *g);

/* How such a frame can be made to go, in a few words; never NULL. */
const char *reason_advice(unsigned reason);
/* Whether saving and restoring the owner (--evict) takes the frame away. */
bool reason_is_evictable(unsigned reason);
/* "done", "not-needed", "later", "never", "unknown" */
const char *verdict_name(enum fs_verdict v);

#endif
