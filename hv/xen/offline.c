/*
 * offline.c - taking frames out of Xen's heap, and giving them back.
 *
 * Owns: mark_offline(), mark_owned(), mark_online(), query_offline(), and the order in
 * which frames are marked.
 * Invariants:
 *  I1  no frame is marked from physical CPU 0 (cpu.h).
 *  I2  at the moment at which a frame is taken out of a free block, no frame above it
 *      in that block stays free: Xen rebuilds what follows the frame into blocks
 *      that are not aligned to their size, and later merges of those panic.
 *      Inside the range the descending order gives this: everything above was marked
 *      before.  At the range's end, and above every frame that Xen refuses, a cut (mark.h)
 *      gives it.
 *  I3  a frame outside the range is marked for the length of a cut only, and only if it
 *      was neither offline nor pending before.
 *  I4  a pending frame right below an odd end must not have a free neighbour above: their
 *      merge, when the frame is let go, would break I2.  Such a frame is given back, and counts
 *      as HV_MARK_FAILED.
 * Why owned frames take the same descending path in mark_offline(): a guest may free one
 * between the look and the mark; marked top down, it meets no free frame above it.
 * Cost: one hypercall per MARK_MULTI_MAX frames in mark_offline(), one per 1024 in the others.
 */
#include "cpu.h"
#include "mark.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"

int xen_page_offline_op(struct xen_be *x, uint32_t cmd, uint64_t start, uint64_t pages, uint32_t *status)
{
    ASSERT_CMP(pages, <=, XEN_OFFLINE_BATCH);
    ASSERT_CMP(pages, >, 0);
    if (start + pages > UINT32_MAX) {           /* the interface has 32-bit frame numbers: 16 TiB */
        errno = EOPNOTSUPP;
        return -1;
    }
    uint32_t *buffer = x->hbuf;
    for (uint64_t i = 0; i < pages; i++) {
        buffer[i] = XEN_OFFLINE_UNTRIED;
    }
    struct xen_sysctl ctl = { .cmd = XEN_SYSCTL_page_offline_op };
    ctl.u.page_offline.cmd = cmd;
    ctl.u.page_offline.start = (uint32_t)start;
    ctl.u.page_offline.end = (uint32_t)(start + pages - 1);
    set_xen_guest_handle_raw(ctl.u.page_offline.status, buffer);
    int rc = xc_sysctl(x->xch, &ctl);
    memcpy(status, buffer, (size_t)pages * sizeof *status);
    return rc;
}

/* ---- marking a range, top down ---- */

struct descent {
    struct xen_be *x;
    struct mfn_range range;
    struct hv_mark_result *out;
    struct fs_error *err;
    bool open;                          /* the frame above the next one may be free, and in one block with it */
};

static struct hv_mark_result *slot(const struct descent *d, uint64_t mfn)
{
    return &d->out[mfn - d->range.start.n];
}

static fs_status_t mark_list(const struct descent *d, const uint64_t *list, size_t count)
{
    uint32_t status[MARK_MULTI_MAX];
    int errnos[MARK_MULTI_MAX];
    fs_status_t s = mark_multi(d->x, sysctl_page_offline, list, count, status, errnos, d->err);
    for (size_t i = 0; i < count && s == FS_OK; i++) {
        *slot(d, list[i]) = mark_result(status[i], errnos[i]);
    }
    return s;
}

/* I4: the frame above, which is outside the range, is free if marking takes it out of the heap.  Marking it is safe: the pair's
 * lower frame is not free, so the upper one is a block of its own. */
static fs_status_t check_odd_end(const struct descent *d, uint64_t end)
{
    uint64_t list[2] = { end, end - 1 };
    uint32_t status[2] = { 0 };
    int errnos[2] = { 0 };
    fs_status_t s = mark_multi(d->x, sysctl_query_page_offline, list, 1, status, errnos, d->err);
    if (s != FS_OK || errnos[0] || status[0]) {
        return s;                       /* offline or pending already: it will not be a free neighbour */
    }
    s = mark_multi(d->x, sysctl_page_offline, list, 1, status, errnos, d->err);
    if (s != FS_OK) {
        return s;
    }
    bool was_free = mark_result(status[0], errnos[0]).mark == HV_MARK_OFFLINED;
    if (was_free) {
        slot(d, end - 1)->mark = HV_MARK_FAILED;
    }
    return mark_multi(d->x, sysctl_page_online, list, was_free ? 2 : 1, status, errnos, d->err);
}

/* Mark the frame below a boundary above which frames may be free.  *stop: frames from there up must stay untouched. */
static fs_status_t mark_at_boundary(const struct descent *d, uint64_t m, uint64_t *stop)
{
    struct mark_cut c;
    *stop = UINT64_MAX;
    fs_status_t s = mark_cut_begin(d->x, m + 1, &c, d->err);
    if (s != FS_OK) {
        return s;
    }
    if (c.refused_order) {
        *stop = m & ~((1ull << c.refused_order) - 1);
    } else {
        s = mark_list(d, &m, 1);
    }
    mark_cut_end(d->x, &c);
    if (s == FS_OK && !c.refused_order && ((m + 1) & 1u) && slot(d, m)->mark != HV_MARK_OFFLINED && !mark_refused(slot(d, m))) {
        s = check_odd_end(d, m + 1);
    }
    return s;
}

/* Frames from m down that can go in one call: RAM, outside Xen's image. */
static size_t gather(const struct descent *d, uint64_t m, uint64_t *list)
{
    /* Where the image's place is not known, a refusal must be seen before the next frame is marked. */
    size_t most = mfn_range_pages(d->x->image) ? MARK_MULTI_MAX : 1, n = 0;
    while (n < most && m - n >= d->range.start.n && mfn_set_contains(&d->x->ram, mfn_make(m - n)) && !mark_in_image(d->x, m - n)) {
        list[n] = m - n;
        n++;
    }
    return n;
}

static fs_status_t descend(struct descent *d)
{
    uint64_t stop = UINT64_MAX;         /* after a refused cut: frames from here up stay untouched */
    for (uint64_t m = d->range.end.n; m-- > d->range.start.n;) {
        if (!mfn_set_contains(&d->x->ram, mfn_make(m))) {
            slot(d, m)->mark = HV_MARK_NOT_RAM;
            d->open = false;            /* no heap block crosses a hole */
            continue;
        }
        if (mark_in_image(d->x, m)) {
            *slot(d, m) = (struct hv_mark_result){ .mark = HV_MARK_XEN_IMAGE, .domid = FS_DOMID_XEN };
            d->open = true;             /* parts of the image that only booting needed are in the heap */
            continue;
        }
        if (stop != UINT64_MAX && m >= stop) {
            slot(d, m)->mark = HV_MARK_FAILED;
            d->open = true;
            continue;
        }
        uint64_t list[MARK_MULTI_MAX];
        size_t n = 1;
        fs_status_t s;
        stop = UINT64_MAX;
        if (d->open) {
            s = mark_at_boundary(d, m, &stop);
        } else {
            n = gather(d, m, list);
            s = mark_list(d, list, n);
        }
        if (s != FS_OK) {
            return s;
        }
        if (stop != UINT64_MAX) {
            slot(d, m)->mark = HV_MARK_FAILED;
            continue;
        }
        m -= n - 1;
        d->open = mark_refused(slot(d, m));
    }
    return FS_OK;
}

/* May the frame above the range be free?  Even one that is owned now may be let go this moment: only what is no RAM is certain. */
static bool may_be_free(struct xen_be *x, uint64_t mfn)
{
    return mfn_set_contains(&x->ram, mfn_make(mfn));
}

fs_status_t xen_mark_offline(struct hv_backend *be, struct mfn_range range, struct hv_mark_result *out, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    for (uint64_t i = 0; i < mfn_range_pages(range); i++) {
        out[i] = (struct hv_mark_result){ .mark = HV_MARK_UNTRIED, .domid = FS_DOMID_NONE };
    }
    fs_status_t s = xen_ram_load(x, err);
    if (s != FS_OK || mfn_range_pages(range) == 0) {
        return s;
    }
    s = xen_cpu_hold(x, err);
    if (s != FS_OK) {
        return s;
    }
    xen_scrub_wait(x);
    struct descent d = { .x = x, .range = range, .out = out, .err = err, .open = may_be_free(x, range.end.n) };
    return descend(&d);
}

/* ---- lists and ranges of owned frames ---- */

fs_status_t xen_mark_owned(struct hv_backend *be, const mfn_t *mfns, size_t count, struct hv_mark_result *out, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    for (size_t i = 0; i < count; i++) {
        out[i] = (struct hv_mark_result){ .mark = HV_MARK_UNTRIED, .domid = FS_DOMID_NONE };
        ASSERT(i == 0 || mfns[i].n > mfns[i - 1].n);
    }
    fs_status_t s = xen_cpu_hold(x, err);
    for (size_t at = 0; at < count && s == FS_OK;) {
        uint64_t list[MARK_MULTI_MAX];
        uint32_t status[MARK_MULTI_MAX];
        int errnos[MARK_MULTI_MAX];
        size_t n = 1, run = 0;
        while (at + n < count && n < XEN_OFFLINE_BATCH && mfns[at + n].n == mfns[at].n + n) {
            n++;
        }
        if (n >= 16) {                  /* a run: one operation for all of it */
            uint32_t statuses[XEN_OFFLINE_BATCH];
            int rc = xen_page_offline_op(x, sysctl_page_offline, mfns[at].n, n, statuses);
            int e = rc ? errno : 0;
            while (run < n && statuses[run] != XEN_OFFLINE_UNTRIED) {
                out[at + run] = mark_result(statuses[run], 0);
                run++;
            }
            if (rc != 0 && run < n && (run == 0 || !mark_refused(&out[at + run - 1]))) {
                out[at + run] = mark_result(XEN_OFFLINE_UNTRIED, e);            /* refused before it got a status */
                run++;
            }
            if (run == 0) {
                s = xen_fail(err, e ? e : EPROTO, "Xen did not mark frame %#llx", (unsigned long long)mfns[at].n);
            }
            at += run;
            continue;
        }
        n = count - at < MARK_MULTI_MAX ? count - at : MARK_MULTI_MAX;
        for (size_t i = 0; i < n; i++) {
            list[i] = mfns[at + i].n;
        }
        s = mark_multi(x, sysctl_page_offline, list, n, status, errnos, err);
        for (size_t i = 0; i < n && s == FS_OK; i++) {
            out[at + i] = mark_result(status[i], errnos[i]);
        }
        at += n;
    }
    return s;
}

fs_status_t xen_mark_online(struct hv_backend *be, struct mfn_range range, uint64_t *onlined_pages, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    *onlined_pages = 0;
    fs_status_t s = xen_ram_load(x, err);
    for (uint64_t m = range.start.n; m < range.end.n && s == FS_OK;) {
        uint64_t n = 0;
        while (n < XEN_OFFLINE_BATCH && m + n < range.end.n && mfn_set_contains(&x->ram, mfn_make(m + n))) {
            n++;
        }
        if (n == 0) {
            m++;
            continue;
        }
        uint32_t status[XEN_OFFLINE_BATCH];
        int rc = xen_page_offline_op(x, sysctl_page_online, m, n, status);
        int e = errno;
        uint64_t done = 0;
        while (done < n && status[done] != XEN_OFFLINE_UNTRIED) {
            *onlined_pages += (status[done] & PG_ONLINE_ONLINED) != 0;
            done++;
        }
        if (rc != 0 && done == 0 && e != EINVAL) {
            s = xen_fail(err, e, "cannot bring frame %#llx online", (unsigned long long)m);
        }
        m += done + (done == 0);        /* a broken frame ends the call with its status set */
    }
    if (s == FS_OK && mfn_range_pages(range)) {
        mark_cut_cleanup(x, range.end.n);
    }
    return s;
}

fs_status_t xen_query_offline(struct hv_backend *be, struct mfn_range range, uint8_t *flags, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    fs_status_t s = xen_ram_load(x, err);
    if (s != FS_OK) {
        return s;
    }
    memset(flags, 0, (size_t)mfn_range_pages(range));
    for (uint64_t m = range.start.n; m < range.end.n;) {
        uint64_t n = 0;
        while (n < XEN_OFFLINE_BATCH && m + n < range.end.n && mfn_set_contains(&x->ram, mfn_make(m + n))) {
            n++;
        }
        if (n == 0) {
            m++;
            continue;
        }
        uint32_t status[XEN_OFFLINE_BATCH];
        int rc = xen_page_offline_op(x, sysctl_query_page_offline, m, n, status);
        if (rc != 0 && errno != EINVAL) {
            return xen_fail(err, errno, "cannot ask for the state of frame %#llx", (unsigned long long)m);
        }
        uint64_t done = 0;
        for (; done < n && status[done] != XEN_OFFLINE_UNTRIED; done++) {
            flags[m - range.start.n + done] = (uint8_t)(((status[done] & PG_OFFLINE_STATUS_OFFLINED) ? 1 : 0) |
                                                        ((status[done] & PG_OFFLINE_STATUS_OFFLINE_PENDING) ? 2 : 0) |
                                                        ((status[done] & PG_OFFLINE_STATUS_BROKEN) ? 4 : 0));
        }
        m += done < n ? done + 1 : n;           /* a frame that Xen does not know as RAM ends the call: skip it */
    }
    return FS_OK;
}
