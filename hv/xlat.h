/*
 * xlat.h - old frame to new frame, for the frames of a range set.
 *
 * Owns: struct xlat, 4 bytes a frame of the range, and 4 more a moved frame where the way back is asked for.  Both
 * directions: forward by array index, backward through an index made on demand.
 */
#ifndef FRAMESHIFT_HV_XLAT_H
#define FRAMESHIFT_HV_XLAT_H

#include "frameshift/frame.h"
#include "frameshift/status.h"

#define XLAT_NONE UINT32_MAX
#define XLAT_FRAME_LIMIT (UINT32_MAX - 1ull)    /* frames below it have numbers here: 16 TiB */

struct xlat {
    const struct mfn_range_set *ranges;     /* borrowed; outlives the xlat */
    uint64_t *offsets;                      /* first index of each range */
    uint32_t *to;                           /* new mfn by index; XLAT_NONE: stays */
    uint64_t pages;
    size_t moved;
    uint32_t *by_new;                       /* indices, ascending by their new frames; NULL until xlat_index_begin(), when it takes the place of to */
    const uint32_t *news;                   /* borrowed: the new frames, ascending */
    size_t indexed;
    uint64_t first, end;                    /* hull of the ranges: quick rejection */
};

/* pre: every range lies below 2^32 frames, as does every new frame (callers check XLAT_FRAME_LIMIT once for the machine). */
fs_status_t xlat_init(struct xlat *x, const struct mfn_range_set *ranges) FS_MUST_CHECK;
void xlat_free(struct xlat *x);             /* accepts a zeroed struct */
/* pre: old lies in the ranges; new does not. */
void xlat_set(struct xlat *x, mfn_t old, mfn_t new_mfn);
/* The new frame of m, or m itself where it stays. */
mfn_t xlat_get(const struct xlat *x, mfn_t m);          /* pre: not turned round, as for xlat_moves() */
bool xlat_moves(const struct xlat *x, mfn_t m);
/* Turn it round: begin, then add every moved frame, ascending by its new one; news[i] is the new frame of the i-th (borrowed).  From then on
 * there is xlat_back() and nothing else: the memory is the same, so this cannot fail. */
void xlat_index_begin(struct xlat *x, const uint32_t *news);
void xlat_index_add(struct xlat *x, mfn_t old);
mfn_t xlat_back(const struct xlat *x, mfn_t m);     /* pre: all added */

#endif
