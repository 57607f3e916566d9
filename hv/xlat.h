/*
 * xlat.h - old frame to new frame, for the frames of a range set.
 *
 * Owns: struct xlat, 8 bytes a frame of the range.  Both directions: forward by
 * array index, backward through a sorted copy made on demand.
 */
#ifndef FRAMESHIFT_HV_XLAT_H
#define FRAMESHIFT_HV_XLAT_H

#include "frameshift/frame.h"
#include "frameshift/status.h"

struct xlat_pair { mfn_t old, new; };

struct xlat {
    const struct mfn_range_set *ranges;     /* borrowed; outlives the xlat */
    uint64_t *offsets;                      /* first index of each range */
    uint64_t *to;                           /* new mfn by index; FS_FRAME_NONE: stays */
    uint64_t pages;
    size_t moved;
    struct xlat_pair *by_new;               /* sorted by new; NULL until xlat_index_new() */
    uint64_t first, end;                    /* hull of the ranges: quick rejection */
};

fs_status_t xlat_init(struct xlat *x, const struct mfn_range_set *ranges) FS_MUST_CHECK;
void xlat_free(struct xlat *x);             /* accepts a zeroed struct */
/* pre: old lies in the ranges; new does not. */
void xlat_set(struct xlat *x, mfn_t old, mfn_t new_mfn);
/* The new frame of m, or m itself where it stays. */
mfn_t xlat_get(const struct xlat *x, mfn_t m);
bool xlat_moves(const struct xlat *x, mfn_t m);
/* Prepare xlat_back(). */
fs_status_t xlat_index_new(struct xlat *x) FS_MUST_CHECK;
mfn_t xlat_back(const struct xlat *x, mfn_t m);

#endif
