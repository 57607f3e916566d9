/*
 * grants.h - the watch over one domain's grants (grants.c).
 */
#ifndef FRAMESHIFT_HV_XEN_GRANTS_H
#define FRAMESHIFT_HV_XEN_GRANTS_H

#include "backend.h"

fs_status_t xen_grants_begin(struct hv_backend *be, uint16_t domid, struct hv_grants **out, struct fs_error *err);
fs_status_t xen_grants_read(struct hv_backend *be, struct hv_grants *g, const uint64_t **gfns, size_t *count, struct fs_error *err);
void xen_grants_end(struct hv_backend *be, struct hv_grants *g);

#endif
