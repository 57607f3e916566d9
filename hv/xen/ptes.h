/*
 * ptes.h - which machine frame a translated domain's gfn leads to, exactly and without effect (see ptes.c).
 */
#ifndef FRAMESHIFT_HV_XEN_PTES_H
#define FRAMESHIFT_HV_XEN_PTES_H

#include "xen_priv.h"

/* mfns[i]: the frame under gfn i, FS_FRAME_NONE where it could not be mapped.
 * FS_UNSUPPORTED: our own page tables cannot be found (one vCPU in dom0). */
fs_status_t xen_gfns_to_mfns(struct xen_be *x, uint16_t domid, const uint64_t *gfns, size_t count, uint64_t *mfns,
                             struct fs_error *err) FS_MUST_CHECK;

#endif
