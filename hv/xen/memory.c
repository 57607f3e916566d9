/*
 * memory.c - frames into and out of a domain, and under another gfn.
 *
 * Owns: increase(), increase_extents(), decrease(), populate(), depopulate(), remap(), gfn_limit().
 * Invariants:
 *  I1  *done counts a prefix of the list: the calls below stop at the first
 *      refused extent, and remap(), whose call would run on, is split so that it cannot.
 *  I2  frames that Xen hands out are below max_mfn, or the call fails: what is
 *      returned may index tables.
 *  I3  new frames come from the asked node only (XENMEMF_exact_node): any other
 *      could be one of those that are being given up.
 * Why lists of XEN_RESERVE_BATCH: libxenctrl copies each list into locked memory, and a
 * hypercall of that length is preempted by Xen itself anyway.
 * Cost: one hypercall per 4096 extents; remap() adds one look per 1024.
 */
#include "xen_priv.h"

#include <errno.h>
#include <string.h>

#include <xen/memory.h>

#include "frameshift/assert.h"

/* count extents of that order; I1 to I3. */
static fs_status_t increase(struct hv_backend *be, uint16_t domid, uint32_t node, unsigned order, size_t count, mfn_t *out, size_t *done,
                            struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    *done = 0;
    while (*done < count) {
        size_t n = count - *done < XEN_RESERVE_BATCH ? count - *done : XEN_RESERVE_BATCH;
        xen_pfn_t list[XEN_RESERVE_BATCH] = { 0 };
        int got = xc_domain_increase_reservation(x->xch, domid, n, order, XENMEMF_exact_node(node), list);
        if (got < 0) {
            return xen_fail_domain(x, domid, err, errno, "cannot give domain %u frames of node %u", domid, node);
        }
        for (int i = 0; i < got; i++) {
            out[*done + (size_t)i] = mfn_make(list[i]);
        }
        *done += (size_t)got;
        for (int i = 0; i < got; i++) {
            if (list[i] + (1ull << order) > x->max_mfn) {   /* I2; the frames are counted, so that the caller gives them back */
                return fs_fail(err, FS_BAD_INPUT, "Xen gave frame %#llx, above the machine's end", (unsigned long long)list[i]);
            }
        }
        if ((size_t)got < n) {
            return fs_fail(err, FS_NO_ROOM, "node %u gave %zu of %zu %s to domain %u (node full%s, or the domain's limit reached)",
                           node, *done, count, order == 0 ? "frames" : "2 MiB extents", domid, order == 0 ? "" : " or fragmented");
        }
    }
    return FS_OK;
}

fs_status_t xen_increase(struct hv_backend *be, uint16_t domid, uint32_t node, size_t count, mfn_t *out, size_t *done, struct fs_error *err)
{
    return increase(be, domid, node, 0, count, out, done, err);
}

fs_status_t xen_increase_extents(struct hv_backend *be, uint16_t domid, uint32_t node, size_t count, mfn_t *out, size_t *done, struct fs_error *err)
{
    return increase(be, domid, node, FS_SP_ORDER, count, out, done, err);
}

fs_status_t xen_decrease(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, size_t *done, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    *done = 0;
    while (*done < count) {
        size_t n = count - *done < XEN_RESERVE_BATCH ? count - *done : XEN_RESERVE_BATCH;
        xen_pfn_t list[XEN_RESERVE_BATCH];
        memcpy(list, &mfns[*done], n * sizeof *list);
        int got = xc_domain_decrease_reservation(x->xch, domid, n, 0, list);
        if (got < 0) {
            return xen_fail_domain(x, domid, err, errno, "cannot take frame %#llx from domain %u",
                                   (unsigned long long)mfns[*done].n, domid);
        }
        *done += (size_t)got;
        if ((size_t)got < n) {
            return fs_fail(err, FS_REFUSED, "Xen did not take frame %#llx from domain %u",
                           (unsigned long long)mfns[*done].n, domid);
        }
    }
    return FS_OK;
}

fs_status_t xen_populate(struct hv_backend *be, uint16_t domid, uint32_t node, unsigned order, const gfn_t *gfns, size_t count,
                         size_t *done, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    *done = 0;
    while (*done < count) {
        size_t n = count - *done < XEN_RESERVE_BATCH ? count - *done : XEN_RESERVE_BATCH;
        xen_pfn_t list[XEN_RESERVE_BATCH];
        memcpy(list, &gfns[*done], n * sizeof *list);
        int got = xc_domain_populate_physmap(x->xch, domid, n, order, XENMEMF_exact_node(node), list);
        if (got < 0) {
            return xen_fail_domain(x, domid, err, errno, "cannot populate gfn %#llx of domain %u (order %u, node %u)",
                                   (unsigned long long)gfns[*done].n, domid, order, node);
        }
        *done += (size_t)got;
        if ((size_t)got < n) {
            return fs_fail(err, FS_NO_ROOM, "node %u gave %zu of %zu extents of order %u to domain %u (node full or fragmented, or the "
                           "domain's limit reached)", node, *done, count, order, domid);
        }
    }
    return FS_OK;
}

fs_status_t xen_depopulate(struct hv_backend *be, uint16_t domid, unsigned order, const gfn_t *gfns, size_t count, size_t *done, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    *done = 0;
    while (*done < count) {
        size_t n = count - *done < XEN_RESERVE_BATCH ? count - *done : XEN_RESERVE_BATCH;
        xen_pfn_t list[XEN_RESERVE_BATCH];
        memcpy(list, &gfns[*done], n * sizeof *list);
        int got = xc_domain_decrease_reservation(x->xch, domid, n, order, list);
        if (got < 0) {
            return xen_fail_domain(x, domid, err, errno, "cannot empty gfn %#llx of domain %u (order %u)",
                                   (unsigned long long)gfns[*done].n, domid, order);
        }
        *done += (size_t)got;
        if ((size_t)got < n) {
            return fs_fail(err, FS_REFUSED, "Xen did not empty gfn %#llx of domain %u (order %u)",
                           (unsigned long long)gfns[*done].n, domid, order);
        }
    }
    return FS_OK;
}

/* I1: leading entries whose source is populated; the call goes on after an entry that is not. */
static fs_status_t populated_prefix(struct xen_be *x, uint16_t domid, const gfn_t *from, size_t count, size_t *prefix, struct fs_error *err)
{
    uint64_t info[XEN_INFO_BATCH];
    memcpy(info, from, count * sizeof *info);
    *prefix = 0;
    if (xen_page_info(x, domid, info, count) != 0) {
        return xen_fail_domain(x, domid, err, errno, "cannot look at gfn %#llx of domain %u", (unsigned long long)from[0].n, domid);
    }
    while (*prefix < count && (info[*prefix] & XEN_DOMCTL_PFINFO_LTAB_MASK) != XEN_DOMCTL_PFINFO_XTAB) {
        ++*prefix;
    }
    return FS_OK;
}

fs_status_t xen_remap(struct hv_backend *be, uint16_t domid, const gfn_t *from, const gfn_t *to, size_t count, size_t *done, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    *done = 0;
    while (*done < count) {
        size_t n = count - *done < XEN_INFO_BATCH ? count - *done : XEN_INFO_BATCH, prefix = 0;
        fs_status_t s = populated_prefix(x, domid, &from[*done], n, &prefix, err);
        if (s != FS_OK) {
            return s;
        }
        if (prefix == 0) {
            return fs_fail(err, FS_REFUSED, "gfn %#llx of domain %u is empty: nothing to remap",
                           (unsigned long long)from[*done].n, domid);
        }
        xen_ulong_t idx[XEN_INFO_BATCH];
        xen_pfn_t gpfn[XEN_INFO_BATCH];
        int errs[XEN_INFO_BATCH];
        memcpy(idx, &from[*done], prefix * sizeof *idx);
        memcpy(gpfn, &to[*done], prefix * sizeof *gpfn);
        memset(errs, 0, sizeof errs);
        if (xc_domain_add_to_physmap_batch(x->xch, domid, 0, XENMAPSPACE_gmfn, (unsigned)prefix, idx, gpfn, errs) < 0) {
            return xen_fail_domain(x, domid, err, errno, "cannot remap gfn %#llx of domain %u", (unsigned long long)from[*done].n, domid);
        }
        for (size_t i = 0; i < prefix; i++) {
            if (errs[i] != 0) {
                return xen_fail_domain(x, domid, err, -errs[i], "cannot remap gfn %#llx to %#llx in domain %u; look at the rest of its "
                                       "batch", (unsigned long long)from[*done].n, (unsigned long long)to[*done].n, domid);
            }
            ++*done;
        }
    }
    return FS_OK;
}

fs_status_t xen_gfn_limit(struct hv_backend *be, uint16_t domid, uint64_t *limit, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    xen_pfn_t top = 0;
    if (xc_domain_maximum_gpfn(x->xch, domid, &top) < 0) {
        return xen_fail_domain(x, domid, err, errno, "cannot ask for the address space of domain %u", domid);
    }
    if (top >= 1ull << (52 - FS_PAGE_SHIFT)) {          /* a PV guest tells this number itself */
        return fs_fail(err, FS_BAD_INPUT, "domain %u says that its highest frame is %#llx", domid, (unsigned long long)top);
    }
    *limit = (uint64_t)top + 1;
    return FS_OK;
}
