/*
 * range.h - sets of machine-frame ranges.
 *
 * Owns: struct mfn_range_set's operations: sorted, disjoint, coalesced (I1).
 * A zeroed set is empty and valid.  Errors: FS_NO_MEMORY; FS_BAD_RANGE where start > end.
 */
#ifndef FRAMESHIFT_HV_RANGE_H
#define FRAMESHIFT_HV_RANGE_H

#include "frameshift/frame.h"
#include "frameshift/status.h"

fs_status_t mfn_set_add(struct mfn_range_set *set, struct mfn_range r) FS_MUST_CHECK;      /* union; an empty r is no change */
fs_status_t mfn_set_remove(struct mfn_range_set *set, struct mfn_range r) FS_MUST_CHECK;
fs_status_t mfn_set_copy(struct mfn_range_set *to, const struct mfn_range_set *from) FS_MUST_CHECK;
fs_status_t mfn_set_intersect(struct mfn_range_set *set, const struct mfn_range_set *with) FS_MUST_CHECK;
bool mfn_set_contains(const struct mfn_range_set *set, mfn_t m);                            /* O(log n) */
bool mfn_set_overlaps(const struct mfn_range_set *a, const struct mfn_range_set *b);
uint64_t mfn_set_pages(const struct mfn_range_set *set);
void mfn_set_free(struct mfn_range_set *set);                                               /* leaves it empty and valid */
bool mfn_set_check(const struct mfn_range_set *set);                                        /* I1 */

#endif
