/*
 * unused.h - frames that a PV domain owns and that its p2m does not lead to: what a round leaves behind.
 *
 * Owns: struct frame_set, a growing list of frames.
 */
#ifndef FRAMESHIFT_HV_UNUSED_H
#define FRAMESHIFT_HV_UNUSED_H

#include "backend.h"

struct frame_set { mfn_t *list; size_t count, capacity; };
void frame_set_free(struct frame_set *s);
fs_status_t frame_set_add(struct frame_set *s, mfn_t m) FS_MUST_CHECK;
void frame_set_sort(struct frame_set *s);
bool frame_set_has(const struct frame_set *s, mfn_t m);     /* pre: sorted */

/* Every frame that the domain's p2m names now, sorted. The answer is true while the domain neither runs nor moves pages. */
fs_status_t unused_read_p2m(struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns, struct frame_set *used, struct fs_error *err) FS_MUST_CHECK;
/* Those of list that the domain owns and that are not in used. */
fs_status_t unused_of(struct hv_backend *be, uint16_t domid, const mfn_t *list, size_t count, const struct frame_set *used,
                      struct frame_set *out, struct fs_error *err) FS_MUST_CHECK;
/* Frames of the whole machine outside ranges that the domain owns, that are no table, and that neither used nor the M2P names. */
fs_status_t unused_search(struct hv_backend *be, const struct hv_domain *dom, const struct mfn_range_set *ranges, const struct frame_set *used,
                          struct frame_set *out, struct fs_error *err) FS_MUST_CHECK;

#endif
