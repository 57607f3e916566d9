/*
 * domains.c - who lives on the machine.
 *
 * Owns: domains(), domain(), the kind of a domain, xenstore reads with strict
 * parsing, pause/unpause and the page limit.
 * Invariants:
 *  I1  a name that comes from xenstore holds no control character and ends in
 *      NUL: a guest's administrator may have written anything there.
 *  I2  a domain is HV_DOMAIN_PV or HV_DOMAIN_HAP only where a mover for it exists;
 *      whatever cannot be told for sure is HV_DOMAIN_OTHER.
 *      So is a guest that still has populate-on-demand entries (started with less memory than
 *      its maximum, its balloon not yet inflated): looking at such a gfn populates it.
 *  I3  pause() returns with the vCPUs off their CPUs and their state saved: Xen's
 *      pause by the control domain waits for that.
 * Why one list call for many domains: the answer of one call is of one moment.
 * Cost: one hypercall per 256 domains, two more and one xenstore read for each.
 */
#include "xen_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_STEP 256u

bool xen_domain_info(struct xen_be *x, uint16_t domid, xc_domaininfo_t *info)
{
    /* The list starts at the first domain at or after domid: another one means that this one is gone. */
    int n = xc_domain_getinfolist(x->xch, domid, 1, info);
    if (n < 0) {
        return false;
    }
    if (n == 0 || info->domain != domid) {
        errno = ESRCH;
        return false;
    }
    return true;
}

char *xen_store_read(struct xen_be *x, const char *path)
{
    unsigned bytes = 0;
    char *text = xs_read(x->xsh, XBT_NULL, path, &bytes);
    if (text && memchr(text, '\0', bytes)) {    /* a node may hold binary: not a text then */
        free(text);
        errno = 0;
        return NULL;
    }
    return text;
}

bool xen_parse_u64(const char *text, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    if (!*text) {
        return false;
    }
    for (const char *p = text; *p; p++) {
        if (*p < '0' || *p > '9') {
            return false;
        }
        uint64_t digit = (uint64_t)(*p - '0');
        if (v > max / 10 || v * 10 > max - digit) {
            return false;
        }
        v = v * 10 + digit;
    }
    *out = v;
    return true;
}

bool xen_domain_has_pod(struct xen_be *x, uint16_t domid)
{
    uint64_t tot = 0, cache = 0, entries = 0;
    return xc_domain_get_pod_target(x->xch, domid, &tot, &cache, &entries) == 0 && entries > 0;
}

uint8_t xen_domain_kind(struct xen_be *x, const xc_domaininfo_t *info)
{
    if (info->domain == x->self) {
        return HV_DOMAIN_CONTROL;
    }
    if (info->flags & XEN_DOMINF_xs_domain) {
        return HV_DOMAIN_OTHER;         /* the xenstore domain cannot be asked to suspend: the asking goes through it */
    }
    if (info->flags & XEN_DOMINF_hvm_guest) {
        return (info->flags & XEN_DOMINF_hap) && !xen_domain_has_pod(x, info->domain) ? HV_DOMAIN_HAP : HV_DOMAIN_OTHER;
    }
    unsigned width = 0;
    if (xc_domain_get_guest_width(x->xch, info->domain, &width) != 0) {
        return HV_DOMAIN_OTHER;
    }
    return width == 8 ? HV_DOMAIN_PV : width == 4 ? HV_DOMAIN_PV32 : HV_DOMAIN_OTHER;
}

static void load_name(struct xen_be *x, uint16_t domid, char *out, size_t bytes)
{
    char path[64];
    snprintf(path, sizeof path, "/local/domain/%u/name", domid);
    char *text = xen_store_read(x, path);
    size_t n = 0;
    for (const char *p = text; p && *p && n + 1 < bytes; p++) {
        unsigned char c = (unsigned char)*p;
        out[n++] = (c < 0x20 || c == 0x7f) ? '?' : (char)c;     /* I1 */
    }
    out[n] = '\0';
    free(text);
}

static void describe(struct xen_be *x, const xc_domaininfo_t *info, struct hv_domain *out)
{
    *out = (struct hv_domain){
        .domid = info->domain,
        .kind = xen_domain_kind(x, info),
        .paused = (info->flags & XEN_DOMINF_paused) != 0,
        .shutdown = (info->flags & XEN_DOMINF_shutdown) != 0,
        .dying = (info->flags & XEN_DOMINF_dying) != 0,
        .tot_pages = info->tot_pages,
        .max_pages = info->max_pages,
        .vcpus = info->max_vcpu_id == XEN_INVALID_MAX_VCPU_ID ? 0 : info->max_vcpu_id + 1,
        .vcpus_online = info->nr_online_vcpus,
        .shared_info = MFN_NONE,
    };
    if (out->shutdown) {
        out->shutdown_reason = (info->flags >> XEN_DOMINF_shutdownshift) & XEN_DOMINF_shutdownmask;
    }
    _Static_assert(sizeof out->uuid == sizeof info->handle, "a handle is a UUID");
    memcpy(out->uuid, info->handle, sizeof out->uuid);
    load_name(x, out->domid, out->name, sizeof out->name);
    if (!(info->flags & XEN_DOMINF_hvm_guest) && info->shared_info_frame < x->max_mfn) {
        out->shared_info = mfn_make(info->shared_info_frame);
    }
    uint64_t bytes = 0;
    if (out->kind == HV_DOMAIN_HAP && xc_get_paging_mempool_size(x->xch, out->domid, &bytes) == 0) {
        out->paging_pages = bytes >> FS_PAGE_SHIFT;
    }
}

static int by_domid(const void *a, const void *b)
{
    return (int)((const struct hv_domain *)a)->domid - (int)((const struct hv_domain *)b)->domid;
}

fs_status_t xen_domains(struct hv_backend *be, struct hv_domain **out, size_t *count, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    fs_status_t s = FS_OK;
    struct hv_domain *list = NULL;
    size_t n = 0;
    xc_domaininfo_t *step = calloc(LIST_STEP, sizeof *step);
    if (!step) {
        return fs_fail(err, FS_NO_MEMORY, "no memory for the list of domains");
    }
    uint32_t first = 0;
    for (;;) {
        int got = xc_domain_getinfolist(x->xch, first, LIST_STEP, step);
        if (got < 0) {
            s = xen_fail(err, errno, "cannot list the domains");
            goto out;
        }
        if (got == 0) {
            break;
        }
        struct hv_domain *more = realloc(list, (n + (size_t)got) * sizeof *list);
        if (!more) {
            s = fs_fail(err, FS_NO_MEMORY, "no memory for the list of domains");
            goto out;
        }
        list = more;
        for (int i = 0; i < got; i++) {
            describe(x, &step[i], &list[n++]);
        }
        first = (uint32_t)step[got - 1].domain + 1;
        if ((unsigned)got < LIST_STEP) {
            break;
        }
    }
    if (n) {
        qsort(list, n, sizeof *list, by_domid);
    }
    *out = list;
    *count = n;
    list = NULL;
out:
    free(list);
    free(step);
    return s;
}

fs_status_t xen_domain(struct hv_backend *be, uint16_t domid, struct hv_domain *out, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    xc_domaininfo_t info;
    if (!xen_domain_info(x, domid, &info)) {
        return errno == ESRCH ? fs_fail(err, FS_GUEST_GONE, "domain %u does not exist", domid)
                              : xen_fail(err, errno, "cannot ask about domain %u", domid);
    }
    describe(x, &info, out);
    return FS_OK;
}

fs_status_t xen_pause(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    if (xc_domain_pause(x->xch, domid) != 0) {
        return xen_fail_domain(x, domid, err, errno, "cannot pause domain %u", domid);
    }
    return FS_OK;
}

fs_status_t xen_unpause(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    if (xc_domain_unpause(x->xch, domid) != 0) {
        return xen_fail_domain(x, domid, err, errno, "cannot unpause domain %u", domid);
    }
    return FS_OK;
}

fs_status_t xen_set_max_pages(struct hv_backend *be, uint16_t domid, uint64_t pages, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    if (xc_domain_setmaxmem(x->xch, domid, pages << (FS_PAGE_SHIFT - 10)) != 0) {      /* the call counts KiB */
        return xen_fail_domain(x, domid, err, errno, "cannot set the limit of domain %u to %llu pages", domid,
                               (unsigned long long)pages);
    }
    return FS_OK;
}
