/*
 * offline.c - taking frames out of Xen's heap, and giving them back.
 *
 * Owns: mark_offline(), mark_owned(), mark_online(), the order in which frames are marked.
 * Invariants:
 *  I1  no frame is marked from physical CPU 0 (cpu.h).
 *  I2  at the moment at which a frame is taken out of a free block, no frame above it
 *      in that block stays free: Xen rebuilds what follows the frame into blocks
 *      that are not aligned to their size, and later merges of those panic.
 *      Inside the range the descending order gives this: everything above was marked
 *      before, one frame a call.  At the range's end cut() gives it.
 *  I3  a frame outside the range is marked for the length of cut() only, and only if it
 *      was neither offline nor pending before.
 *  I4  an even end, where the frame above may be free: a range that ends on an odd frame shares its last pair with the
 *      outside, and the pair's merge at a later release would break I2.
 * How cut() works: let e(j) be the end of the aligned block of order j that holds the
 * range's end.  Marking frame e(j)-1 for j from the largest order down takes, each time, the
 * last frame of whatever free block holds it, which leaves aligned halves.  After
 * step j no free block that straddles the range's end is larger than order j-1; after the
 * last one none is left.  Then the range's last frame can be marked, and the helper frames
 * are given back: they merge again with their own side only.
 * Why owned frames take the same descending path in mark_offline(): a guest may free one
 * between the look and the mark; marked top down, it meets no free frame above it.
 * Cost: one hypercall a frame in mark_offline(), one per 1024 in the others.
 */
#include "cpu.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"

#define HEAP_ORDER_MAX 20u      /* the largest block of Xen's heap on x86: 4 GiB */

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

/* ---- one frame ---- */

static struct hv_mark_result mark_of_status(uint32_t status, int rc, int errno_value)
{
    struct hv_mark_result r = { .mark = HV_MARK_FAILED, .domid = FS_DOMID_NONE };
    if (status == XEN_OFFLINE_UNTRIED) {
        r.mark = rc == 0 ? HV_MARK_UNTRIED : errno_value == EINVAL ? HV_MARK_NOT_RAM : HV_MARK_FAILED;
    } else if (status & PG_OFFLINE_NOT_CONV_RAM) {
        r.mark = HV_MARK_NOT_RAM;
    } else if (status & (PG_OFFLINE_BROKEN | PG_OFFLINE_AGAIN)) {
        r.mark = HV_MARK_BROKEN;
    } else if (status & PG_OFFLINE_OFFLINED) {
        r.mark = HV_MARK_OFFLINED;
    } else if (status & PG_OFFLINE_OWNED) {
        r.mark = HV_MARK_PENDING_OWNED;
        r.domid = (uint16_t)(status >> PG_OFFLINE_OWNER_SHIFT);
    } else if (status & PG_OFFLINE_XENPAGE) {
        r.mark = status & PG_OFFLINE_FAILED ? HV_MARK_XEN_IMAGE : HV_MARK_PENDING_XEN;
        r.domid = FS_DOMID_XEN;
    } else if (status & PG_OFFLINE_ANONYMOUS) {
        r.mark = HV_MARK_ANON;
    }
    return r;
}

static struct hv_mark_result mark_one(struct xen_be *x, uint64_t mfn)
{
    uint32_t status = XEN_OFFLINE_UNTRIED;
    int rc = xen_page_offline_op(x, sysctl_page_offline, mfn, 1, &status);
    return mark_of_status(status, rc, errno);
}

static bool mark_refused(const struct hv_mark_result *r)
{
    return r->mark == HV_MARK_XEN_IMAGE || r->mark == HV_MARK_FAILED || r->mark == HV_MARK_UNTRIED;
}

/* ---- I2 at an end ---- */

struct cut {
    uint64_t helper[HEAP_ORDER_MAX];
    size_t count;
    unsigned refused_order;             /* 0: none; else a free block up to this order may straddle the end */
};

static void cut_begin(struct xen_be *x, uint64_t end, struct cut *c)
{
    *c = (struct cut){ 0 };
    for (unsigned j = HEAP_ORDER_MAX; j >= 1; j--) {
        uint64_t size = 1ull << j;
        if ((end & (size - 1)) == 0) {
            break;                                      /* the end is aligned to j: nothing of it straddles */
        }
        uint64_t last = (end | (size - 1));
        if (last >= x->max_mfn || !mfn_set_contains(&x->ram, mfn_make(last))) {
            continue;                                   /* no block of order j can exist there */
        }
        uint32_t state = 0;
        if (xen_page_offline_op(x, sysctl_query_page_offline, last, 1, &state) == 0 &&
            (state & (PG_OFFLINE_STATUS_OFFLINED | PG_OFFLINE_STATUS_OFFLINE_PENDING | PG_OFFLINE_STATUS_BROKEN))) {
            continue;                                   /* not free, and not ours (I3) */
        }
        struct hv_mark_result r = mark_one(x, last);
        if (mark_refused(&r)) {
            c->refused_order = c->refused_order ? c->refused_order : j;
        } else if (r.mark != HV_MARK_NOT_RAM && r.mark != HV_MARK_BROKEN) {
            c->helper[c->count++] = last;
        }
    }
}

/* A frame that Xen does not take back stays offline: one frame is lost, nothing else. */
static void give_back(struct xen_be *x, uint64_t mfn)
{
    uint32_t status;
    if (xen_page_offline_op(x, sysctl_page_online, mfn, 1, &status) != 0) {
        return;
    }
}

static void cut_end(struct xen_be *x, struct cut *c)
{
    while (c->count) {
        give_back(x, c->helper[--c->count]);
    }
}

/* Mark frame end-1, the uppermost of what comes below end, without breaking I2. */
static struct hv_mark_result mark_last(struct xen_be *x, uint64_t end, unsigned *refused_order)
{
    struct cut c;
    cut_begin(x, end, &c);
    struct hv_mark_result r = { .mark = HV_MARK_FAILED, .domid = FS_DOMID_NONE };
    if (!c.refused_order) {
        r = mark_one(x, end - 1);
    }
    cut_end(x, &c);
    *refused_order = c.refused_order;
    return r;
}

/* A helper frame that a killed run left offline: alone, at the place where cut() puts one (I3). */
static void drop_leftover_helpers(struct xen_be *x, uint64_t end)
{
    for (unsigned j = HEAP_ORDER_MAX; j >= 1 && (end & ((1ull << j) - 1)); j--) {
        uint64_t last = end | ((1ull << j) - 1);
        if (last + 1 >= x->max_mfn || last - 1 < end) {
            continue;
        }
        uint32_t s[3] = { 0 };
        if (xen_page_offline_op(x, sysctl_query_page_offline, last - 1, 3, s) == 0 && s[1] == PG_OFFLINE_STATUS_OFFLINED &&
            s[0] == 0 && s[2] == 0) {
            give_back(x, last);
        }
    }
}

/* ---- members ---- */

/* May the frame right above the range be free?  One that is owned, offline, broken or no RAM bounds every free block. */
static fs_status_t end_is_open(struct xen_be *x, uint64_t end, bool *open, struct fs_error *err)
{
    struct hv_frame above;
    *open = false;
    if (!mfn_set_contains(&x->ram, mfn_make(end))) {
        return FS_OK;
    }
    fs_status_t s = xen_frames(&x->be, (struct mfn_range){ mfn_make(end), mfn_make(end + 1) }, &above, err);
    *open = s == FS_OK && above.owner == HV_FRAME_UNOWNED;
    return s;
}

static fs_status_t mark_descending(struct xen_be *x, struct mfn_range range, bool end_open, struct hv_mark_result *out,
                                   struct fs_error *err)
{
    bool at_end = end_open;             /* the frame above was not marked by us: it may be free */
    uint64_t skip_above = UINT64_MAX;   /* frames from here up to the last boundary stay untouched */
    for (uint64_t m = range.end.n; m-- > range.start.n;) {
        struct hv_mark_result *r = &out[m - range.start.n];
        *r = (struct hv_mark_result){ .mark = HV_MARK_NOT_RAM, .domid = FS_DOMID_NONE };
        if (!mfn_set_contains(&x->ram, mfn_make(m))) {
            at_end = false;             /* no heap block crosses a hole */
            continue;
        }
        if (skip_above != UINT64_MAX && m >= skip_above) {
            r->mark = HV_MARK_FAILED;
            continue;
        }
        unsigned refused = 0;
        *r = at_end || skip_above != UINT64_MAX ? mark_last(x, m + 1, &refused) : mark_one(x, m);
        skip_above = UINT64_MAX;
        if (refused) {
            /* A block up to that order may reach over the boundary, and its last frame cannot be taken. */
            skip_above = m & ~((1ull << refused) - 1);
            r->mark = HV_MARK_FAILED;
            continue;
        }
        if (r->mark == HV_MARK_UNTRIED) {
            return fs_fail(err, FS_REFUSED, "Xen did not mark frame %#llx", (unsigned long long)m);
        }
        at_end = mark_refused(r);
    }
    return FS_OK;
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
    bool open;
    s = end_is_open(x, range.end.n, &open, err);
    if (s != FS_OK) {
        return s;
    }
    if (open && (range.end.n & 1u)) {                                           /* I4 */
        return fs_fail(err, FS_BAD_RANGE, "the range ends on odd frame %#llx; end it on an even one", (unsigned long long)range.end.n);
    }
    struct xen_cpu cpu;
    s = xen_cpu_begin(x, &cpu, err);
    if (s == FS_OK) {
        s = mark_descending(x, range, open, out, err);
    }
    xen_cpu_end(x, &cpu);
    return s;
}

fs_status_t xen_mark_owned(struct hv_backend *be, const mfn_t *mfns, size_t count, struct hv_mark_result *out, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    for (size_t i = 0; i < count; i++) {
        out[i] = (struct hv_mark_result){ .mark = HV_MARK_UNTRIED, .domid = FS_DOMID_NONE };
        ASSERT(i == 0 || mfns[i].n > mfns[i - 1].n);
    }
    struct xen_cpu cpu;
    fs_status_t s = xen_cpu_begin(x, &cpu, err);
    for (size_t at = 0; at < count && s == FS_OK;) {
        size_t n = 1;
        while (at + n < count && n < XEN_OFFLINE_BATCH && mfns[at + n].n == mfns[at].n + n) {
            n++;
        }
        uint32_t status[XEN_OFFLINE_BATCH];
        int rc = xen_page_offline_op(x, sysctl_page_offline, mfns[at].n, n, status);
        int e = errno;
        size_t done = 0;
        while (done < n && status[done] != XEN_OFFLINE_UNTRIED) {
            out[at + done] = mark_of_status(status[done], 0, 0);
            done++;
        }
        if (rc != 0 && done < n && (done == 0 || !mark_refused(&out[at + done - 1]))) {
            out[at + done] = mark_of_status(XEN_OFFLINE_UNTRIED, rc, e);    /* refused before it got a status */
            done++;
        }
        if (done == 0) {
            s = xen_fail(err, e, "Xen did not mark frame %#llx", (unsigned long long)mfns[at].n);
        }
        at += done;
    }
    xen_cpu_end(x, &cpu);
    return s;
}

fs_status_t xen_mark_online(struct hv_backend *be, struct mfn_range range, uint64_t *onlined_pages, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    *onlined_pages = 0;
    fs_status_t s = xen_ram_load(x, err);
    for (uint64_t m = range.start.n; m < range.end.n && s == FS_OK;) {
        if (!mfn_set_contains(&x->ram, mfn_make(m))) {
            m++;
            continue;
        }
        uint64_t n = 1;
        while (n < XEN_OFFLINE_BATCH && m + n < range.end.n && mfn_set_contains(&x->ram, mfn_make(m + n))) {
            n++;
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
        m += done + (rc != 0 && done == 0);     /* a broken frame ends the call with its status set */
    }
    if (s == FS_OK && mfn_range_pages(range)) {
        drop_leftover_helpers(x, range.end.n);
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
