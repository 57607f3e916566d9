/*
 * mark.c - page_offline operations in bulk, and cutting a free block at a frame.
 *
 * Owns: the multicall, the meaning of a status word, cuts.
 * Invariants:
 *  I1  a cut leaves every frame that it marked as it was: what was offline or pending
 *      before is not touched, the rest is given back.
 *  I2  a cut marks in descending order of address only, and stops at the first frame that
 *      Xen would refuse (its own image).
 * How a cut works: let e(j) be the end of the aligned block of order j that holds
 * frame `end`.  Marking frame e(j)-1 takes the last frame of whatever free block holds it,
 * provided that no free block larger than order j straddles `end`; what is left of that
 * block are aligned halves.  So after step j no free block that straddles `end` is larger than
 * order j-1, and after the last step none is left.
 * Why a multicall: a hypercall from a process of a PV dom0 goes through the kernel and back, which under
 * software emulation takes twenty times as long as the marking of one frame.
 * Cost: three hypercalls for a cut; one for MARK_MULTI_MAX frames.
 */
#include "mark.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"

struct multi {
    struct multicall_entry call[MARK_MULTI_MAX];
    struct xen_sysctl ctl[MARK_MULTI_MAX];
    uint32_t status[MARK_MULTI_MAX];
};
_Static_assert(sizeof(struct multi) <= XEN_HBUF_PAGES * 4096u, "one multicall fits");

fs_status_t mark_multi(struct xen_be *x, uint32_t cmd, const uint64_t *list, size_t count, uint32_t *status, int *errnos,
                       struct fs_error *err)
{
    struct multi *m = x->hbuf;
    ASSERT_CMP(count, <=, MARK_MULTI_MAX);
    if (count == 0) {
        return FS_OK;
    }
    for (size_t i = 0; i < count; i++) {
        if (list[i] > UINT32_MAX) {             /* the interface has 32-bit frame numbers: 16 TiB */
            return fs_fail(err, FS_UNSUPPORTED, "frame %#llx is beyond what Xen's interface can mark", (unsigned long long)list[i]);
        }
        m->status[i] = XEN_OFFLINE_UNTRIED;
        m->ctl[i] = (struct xen_sysctl){ .cmd = XEN_SYSCTL_page_offline_op, .interface_version = XEN_SYSCTL_INTERFACE_VERSION };
        m->ctl[i].u.page_offline.cmd = cmd;
        m->ctl[i].u.page_offline.start = m->ctl[i].u.page_offline.end = (uint32_t)list[i];
        set_xen_guest_handle_raw(m->ctl[i].u.page_offline.status, &m->status[i]);
        m->call[i] = (struct multicall_entry){ .op = __HYPERVISOR_sysctl, .args = { (xen_ulong_t)(uintptr_t)&m->ctl[i] } };
    }
    if (xencall2(x->xcall, __HYPERVISOR_multicall, (uint64_t)(uintptr_t)m->call, count) != 0) {
        return xen_fail(err, errno, "cannot ask Xen about %zu frames from %#llx", count, (unsigned long long)list[0]);
    }
    for (size_t i = 0; i < count; i++) {
        long result = (long)m->call[i].result;
        status[i] = m->status[i];
        errnos[i] = result < 0 ? (int)-result : 0;
    }
    return FS_OK;
}

struct hv_mark_result mark_result(uint32_t status, int errno_value)
{
    struct hv_mark_result r = { .mark = HV_MARK_FAILED, .domid = FS_DOMID_NONE };
    if (status == XEN_OFFLINE_UNTRIED) {
        r.mark = errno_value == 0 ? HV_MARK_UNTRIED : errno_value == EINVAL ? HV_MARK_NOT_RAM : HV_MARK_FAILED;
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

bool mark_refused(const struct hv_mark_result *r)
{
    return r->mark == HV_MARK_XEN_IMAGE || r->mark == HV_MARK_FAILED || r->mark == HV_MARK_UNTRIED;
}

bool mark_in_image(const struct xen_be *x, uint64_t mfn)
{
    return mfn_range_contains(x->image, mfn_make(mfn));
}

/* ---- cuts ---- */

/* Where helpers go, in descending order; stops before a frame that Xen would refuse (I2). */
static size_t helper_places(struct xen_be *x, uint64_t end, uint64_t *places, unsigned *orders, unsigned *refused_order)
{
    size_t n = 0;
    *refused_order = 0;
    for (unsigned j = MARK_HEAP_ORDER_MAX; j >= 1 && (end & ((1ull << j) - 1)); j--) {
        uint64_t last = end | ((1ull << j) - 1);
        if (last >= x->max_mfn || !mfn_set_contains(&x->ram, mfn_make(last))) {
            continue;                           /* no block of order j can exist there */
        }
        if (mark_in_image(x, last)) {
            *refused_order = j;
            break;
        }
        places[n] = last;
        orders[n++] = j;
    }
    return n;
}

fs_status_t mark_cut_begin(struct xen_be *x, uint64_t end, struct mark_cut *c, struct fs_error *err)
{
    uint64_t places[MARK_HEAP_ORDER_MAX], todo[MARK_HEAP_ORDER_MAX];
    unsigned orders[MARK_HEAP_ORDER_MAX], todo_orders[MARK_HEAP_ORDER_MAX];
    uint32_t status[MARK_HEAP_ORDER_MAX];
    int errnos[MARK_HEAP_ORDER_MAX];
    *c = (struct mark_cut){ 0 };
    size_t n = helper_places(x, end, places, orders, &c->refused_order), k = 0;
    fs_status_t s = mark_multi(x, sysctl_query_page_offline, places, n, status, errnos, err);
    if (s != FS_OK) {
        return s;
    }
    for (size_t i = 0; i < n; i++) {
        if (errnos[i] == 0 && status[i] == 0) { /* I1: neither offline, pending nor broken */
            todo[k] = places[i];
            todo_orders[k++] = orders[i];
        }
    }
    /* One by one where the image's place is not known: a refusal must stop the descent. */
    size_t step = mfn_range_pages(x->image) ? k : 1;
    for (size_t at = 0; at < k && !c->refused_order; at += step) {
        s = mark_multi(x, sysctl_page_offline, &todo[at], step, status, errnos, err);
        if (s != FS_OK) {
            mark_cut_end(x, c);
            return s;
        }
        for (size_t i = 0; i < step; i++) {
            struct hv_mark_result r = mark_result(status[i], errnos[i]);
            if (mark_refused(&r)) {
                c->refused_order = c->refused_order ? c->refused_order : todo_orders[at + i];
            } else if (r.mark != HV_MARK_NOT_RAM && r.mark != HV_MARK_BROKEN) {
                c->helper[c->count++] = todo[at + i];
            }
        }
    }
    return FS_OK;
}

/* A frame that Xen does not take back stays offline: one frame is lost, nothing else. */
static void give_back(struct xen_be *x, const uint64_t *list, size_t count)
{
    uint32_t status[MARK_HEAP_ORDER_MAX];
    int errnos[MARK_HEAP_ORDER_MAX];
    struct fs_error ignored;
    if (mark_multi(x, sysctl_page_online, list, count, status, errnos, &ignored) != FS_OK) {
        return;
    }
}

void mark_cut_end(struct xen_be *x, struct mark_cut *c)
{
    give_back(x, c->helper, c->count);
    c->count = 0;
}

void mark_cut_cleanup(struct xen_be *x, uint64_t end)
{
    uint64_t places[MARK_HEAP_ORDER_MAX];
    unsigned orders[MARK_HEAP_ORDER_MAX], refused;
    size_t n = helper_places(x, end, places, orders, &refused);
    for (size_t i = 0; i < n; i++) {
        if (places[i] - 1 < end || places[i] + 1 >= x->max_mfn) {
            continue;
        }
        const uint64_t three[3] = { places[i] - 1, places[i], places[i] + 1 };
        uint32_t s[3] = { 0 };
        int e[3];
        struct fs_error ignored;
        if (mark_multi(x, sysctl_query_page_offline, three, 3, s, e, &ignored) == FS_OK && !e[0] && !e[1] && !e[2] &&
            s[1] == PG_OFFLINE_STATUS_OFFLINED && s[0] == 0 && s[2] == 0) {
            give_back(x, &places[i], 1);        /* alone, offline, at a helper's place: ours */
        }
    }
}
