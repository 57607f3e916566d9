/*
 * mark.h - many frames' offline state in one hypercall, and cuts of free blocks (see mark.c, offline.c).
 */
#ifndef FRAMESHIFT_HV_XEN_MARK_H
#define FRAMESHIFT_HV_XEN_MARK_H

#include "xen_priv.h"

#define MARK_MULTI_MAX 448u

/* One page_offline operation for each of list (any order, at most MARK_MULTI_MAX), in that order, in one hypercall.
 * errnos[i]: 0 or Xen's error for that frame; status[i] as Xen left it. */
fs_status_t mark_multi(struct xen_be *x, uint32_t cmd, const uint64_t *list, size_t count, uint32_t *status, int *errnos,
                       struct fs_error *err) FS_MUST_CHECK;
struct hv_mark_result mark_result(uint32_t status, int errno_value);
/* The frame was left as it was: free, perhaps. */
bool mark_refused(const struct hv_mark_result *r);
bool mark_in_image(const struct xen_be *x, uint64_t mfn);

/* Frames outside a range that are marked for a moment; see offline.c. */
#define MARK_HEAP_ORDER_MAX 20u         /* the largest block of Xen's heap on x86: 4 GiB */
struct mark_cut {
    uint64_t helper[MARK_HEAP_ORDER_MAX];
    size_t count;
    unsigned refused_order;             /* 0: none; else a free block up to this order may still straddle the end */
};
/* post: no free block straddles end, unless refused_order tells of one. */
fs_status_t mark_cut_begin(struct xen_be *x, uint64_t end, struct mark_cut *c, struct fs_error *err) FS_MUST_CHECK;
void mark_cut_end(struct xen_be *x, struct mark_cut *c);
/* Helper frames that a killed run left behind at that end. */
void mark_cut_cleanup(struct xen_be *x, uint64_t end);

#endif
