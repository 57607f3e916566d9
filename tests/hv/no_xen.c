/*
 * no_xen.c - unit tests run without libxenctrl: opening real Xen says so.
 */
#include "backend.h"

fs_status_t hv_xen_open(struct hv_backend **out, struct fs_error *err)
{
    *out = NULL;
    return fs_fail(err, FS_NO_XEN, "this program is built without Xen");
}
