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

/* Those of list that the domain owns and that its p2m does not name; limit_pfns as for pv_p2m_read().  The answer is true while the
 * domain neither runs nor moves pages.  pre: list is sorted. */
fs_status_t unused_of(struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns, const struct frame_set *list,
                      struct frame_set *out, struct fs_error *err) FS_MUST_CHECK;
/* Those of list that the domain owns at all. */
fs_status_t unused_owned(struct hv_backend *be, uint16_t domid, const struct frame_set *list, struct frame_set *out, struct fs_error *err) FS_MUST_CHECK;
/* Frames of the whole machine outside ranges that the domain owns, that are no table, and that the M2P does not name: whether the
 * p2m does is still to be asked. */
fs_status_t unused_search(struct hv_backend *be, const struct hv_domain *dom, const struct mfn_range_set *ranges,
                          struct frame_set *out, struct fs_error *err) FS_MUST_CHECK;

#endif
