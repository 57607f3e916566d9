/*
 * dirty.c - which pages of a translated guest were written since the last look.
 *
 * Owns: dirty_enable(), dirty_read(), dirty_disable().
 * Invariants:
 *  I1  every bit at or above limit in the caller's bitmap's last word is zero, and
 *      dirty_pages counts exactly the set bits: Xen's own counter also counts pages above.
 * Why no PV: Debian's Xen has no shadow paging; it says EOPNOTSUPP, which is FS_UNSUPPORTED here.
 * Cost: enabling takes a pass over the p2m's top; reading is one hypercall, and a
 * clean read write-protects what it found.
 */
#include "xen_priv.h"

#include <errno.h>
#include <string.h>

fs_status_t xen_dirty_enable(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    if (xc_shadow_control(x->xch, domid, XEN_DOMCTL_SHADOW_OP_ENABLE_LOGDIRTY, NULL, 0) != 0) {
        return xen_fail_domain(x, domid, err, errno, "cannot log the writes of domain %u", domid);
    }
    return FS_OK;
}

fs_status_t xen_dirty_disable(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    if (xc_shadow_control(x->xch, domid, XEN_DOMCTL_SHADOW_OP_OFF, NULL, 0) != 0) {
        return xen_fail_domain(x, domid, err, errno, "cannot stop logging the writes of domain %u", domid);
    }
    return FS_OK;
}

fs_status_t xen_dirty_read(struct hv_backend *be, uint16_t domid, uint64_t *bitmap, uint64_t limit, bool clean, uint64_t *dirty_pages, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    size_t words = (size_t)((limit + 63) / 64);
    size_t pages = (words * sizeof *bitmap + FS_PAGE_BYTES - 1) / FS_PAGE_BYTES;
    *dirty_pages = 0;
    if (limit == 0) {
        return FS_OK;
    }
    DECLARE_HYPERCALL_BUFFER(uint64_t, bits);
    bits = xc_hypercall_buffer_alloc_pages(x->xch, bits, (int)pages);
    if (!bits) {
        return fs_fail(err, FS_NO_MEMORY, "no hypercall memory for a dirty map of %llu pages", (unsigned long long)limit);
    }
    memset(bits, 0, pages * FS_PAGE_BYTES);
    fs_status_t s = FS_OK;
    unsigned op = clean ? XEN_DOMCTL_SHADOW_OP_CLEAN : XEN_DOMCTL_SHADOW_OP_PEEK;
    if (xc_logdirty_control(x->xch, domid, op, HYPERCALL_BUFFER(bits), (unsigned long)limit, 0, NULL) < 0) {
        s = xen_fail_domain(x, domid, err, errno, "cannot read the dirty map of domain %u", domid);
        goto out;
    }
    memcpy(bitmap, bits, words * sizeof *bitmap);
    if (limit % 64) {
        bitmap[words - 1] &= (1ull << (limit % 64)) - 1;        /* I1 */
    }
    for (size_t i = 0; i < words; i++) {
        *dirty_pages += (uint64_t)__builtin_popcountll(bitmap[i]);
    }
out:
    xc_hypercall_buffer_free_pages(x->xch, bits, (int)pages);
    return s;
}
