/*
 * shrunk.h - which guests were shrunk, and what they had before: STATE_DIR/shrunk.
 *
 * Owns: that file.  An entry holds as long as the domain lives and its limit is the one that we set; whoever sets another (xl mem-max, a
 * reboot of the guest) has decided anew, and the entry is forgotten.
 */
#ifndef FRAMESHIFT_HV_SHRUNK_H
#define FRAMESHIFT_HV_SHRUNK_H

#include "backend.h"

struct shrunk {
    uint64_t max_pages;                 /* the limit before the first shrink */
    uint64_t tot_pages;                 /* what it had then: with so many again it is as it was */
    uint64_t back_pages;                /* what it had before it made room for an evacuation, and shall have again; 0: it made none */
};

/* The domain's entry; where there is none, what it has and may have now. pre: the journal's lock is held, in all of these */
fs_status_t shrunk_find(const char *state_dir, const struct hv_domain *dom, struct shrunk *out, struct fs_error *err) FS_MUST_CHECK;
/* The domain's limit is limit_pages now; entry NULL: it is as it was, forget it. Entries of domains that are gone are forgotten, too. */
fs_status_t shrunk_set(const char *state_dir, struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pages, const struct shrunk *entry,
                       struct fs_error *err) FS_MUST_CHECK;

#endif
