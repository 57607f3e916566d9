/*
 * probe.c - which frames does somebody else hold?
 *
 * Owns: probe_held().
 * The question put to a PV domain's frames: an exchange of 2^k frames for one block of order k
 * that cannot exist (its addresses would need 13 bits).  Xen first takes
 * every input from the domain, which works only for a frame whose sole reference is the
 * domain's own; then fails to find the block, and gives the inputs back.
 *      ENOMEM: all were exclusive.   EINVAL: some frame was not; halve and ask again.
 * For a translated domain Xen refuses the exchange.  There the reference count itself is
 * asked for (refs.c), a frame a line of Xen's log: exact as well, but slower.
 * Invariants:
 *  I1  a frame is reported free of others (held == false) only by an ENOMEM of a call that
 *      named it, or by a count of one; anything unexpected fails the whole probe.
 *  I2  no exchange can succeed: k >= 1 always, so the block would span two frames, and
 *      addresses of 13 bits hold no such block outside the first two frames of
 *      the machine, which Xen keeps from its heap.  A single frame is asked about as one of a pair,
 *      with a frame that is known to be exclusive.
 *  I3  ENOMEM comes from Xen: the call's arguments lie in memory taken beforehand.
 * Why bisection: held frames are few (about 4 + 2 per vCPU of tens of thousands), so
 * a call per 2^k frames plus k calls per held frame is near the least possible.
 * Cost: n/2^12 + 13 * held calls; each call walks its frames twice inside Xen.
 */
#include "xen_priv.h"

#include <errno.h>
#include <string.h>

#include <xen/memory.h>

#include "frameshift/assert.h"

struct probe {
    struct xen_be *x;
    void *buffer;                       /* this probe's own: probes of disjoint frames may run side by side */
    uint16_t domid;
    mfn_t spare;
    unsigned order_max;
    bool *held;
    uint64_t *calls;
    struct fs_error *err;
};

enum answer { ALL_EXCLUSIVE, SOME_HELD, TOO_LARGE, FAILED };

/* The layout of the scratch memory for one call: arguments, one output, then the inputs. */
struct call {
    struct xen_memory_exchange exch;
    xen_pfn_t out;
    xen_pfn_t in[];
};
#define CALL_BYTES (sizeof(struct call) + (sizeof(xen_pfn_t) << XEN_EXCHANGE_ORDER))

static enum answer ask(struct probe *p, const mfn_t *mfns, unsigned order, bool with_spare)
{
    struct call *c = p->buffer;
    size_t n = (size_t)1 << order;
    ASSERT_CMP(order, >=, 1);                                           /* I2 */
    *c = (struct call){ .exch = {
        .in = { .nr_extents = n, .extent_order = 0, .domid = p->domid },
        .out = { .nr_extents = 1, .extent_order = order, .domid = p->domid, .mem_flags = XENMEMF_address_bits(13) },
    } };
    if (with_spare) {
        c->in[0] = mfns[0].n;
        c->in[1] = p->spare.n;
    } else {
        memcpy(c->in, mfns, n * sizeof c->in[0]);
    }
    set_xen_guest_handle_raw(c->exch.in.extent_start, c->in);
    set_xen_guest_handle_raw(c->exch.out.extent_start, &c->out);
    ++*p->calls;
    long rc = xen_memory_op(p->x, XENMEM_exchange, c);
    int e = errno;
    if (rc < 0 && e == ENOMEM) {
        return ALL_EXCLUSIVE;
    }
    if (rc < 0 && e == EINVAL) {
        return SOME_HELD;
    }
    if (rc < 0 && e == EPERM && order > 1) {
        return TOO_LARGE;
    }
    (void)xen_fail_domain(p->x, p->domid, p->err, rc < 0 ? e : EPROTO, "the ownership probe of domain %u from frame %#llx",
                          p->domid, (unsigned long long)mfns[0].n);
    return FAILED;
}

/* count == 2^order, at first */
static bool bisect(struct probe *p, const mfn_t *mfns, unsigned order, bool *held)
{
    size_t n = (size_t)1 << order;
    enum answer a = order == 0 ? ask(p, mfns, 1, true) : order > p->order_max ? TOO_LARGE : ask(p, mfns, order, false);
    switch (a) {
    case ALL_EXCLUSIVE:
        memset(held, 0, n * sizeof *held);
        return true;
    case FAILED:
        return false;
    case SOME_HELD:
        if (order == 0) {
            held[0] = true;
            return true;
        }
        break;
    case TOO_LARGE:
        p->order_max = order - 1 < p->order_max ? order - 1 : p->order_max;
        break;
    }
    return bisect(p, mfns, order - 1, held) && bisect(p, mfns + n / 2, order - 1, held + n / 2);
}

static fs_status_t probe_translated(struct xen_be *x, uint16_t domid, const mfn_t *mfns, size_t count, bool *held, uint64_t *calls,
                                    struct fs_error *err)
{
    enum { STEP = 64 };
    for (size_t at = 0; at < count; at += STEP) {
        size_t n = count - at < STEP ? count - at : STEP;
        struct xen_refs refs[STEP];
        fs_status_t s = xen_refs_query(x, &mfns[at], n, refs, err);
        if (s != FS_OK) {
            return s;
        }
        ++*calls;
        for (size_t i = 0; i < n; i++) {
            /* Not its own frame any more, or Xen's own page: somebody else's in any case. */
            held[at + i] = !refs[i].known || refs[i].domid != domid || refs[i].xen_heap || refs[i].count != 1;
        }
    }
    return FS_OK;
}

static fs_status_t probe_pv(struct probe *p, const mfn_t *mfns, size_t count, const mfn_t spare[2])
{
    /* The spare pair must prove itself before it can vouch for others. */
    switch (ask(p, spare, 1, false)) {
    case ALL_EXCLUSIVE:
        p->spare = spare[0];
        break;
    case FAILED:
        return FS_REFUSED;
    default:
        return fs_fail(p->err, FS_REFUSED, "the spare frames %#llx and %#llx of domain %u are held by others: the probe has nothing to "
                       "compare with", (unsigned long long)spare[0].n, (unsigned long long)spare[1].n, p->domid);
    }
    for (size_t at = 0; at < count;) {
        unsigned order = XEN_EXCHANGE_ORDER;
        while (((size_t)1 << order) > count - at) {
            order--;
        }
        if (!bisect(p, &mfns[at], order, &p->held[at])) {
            xc_domaininfo_t now;
            return xen_domain_info(p->x, p->domid, &now) && !(now.flags & XEN_DOMINF_dying) ? FS_REFUSED : FS_GUEST_GONE;
        }
        at += (size_t)1 << order;
    }
    return FS_OK;
}

fs_status_t xen_probe_held(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, const mfn_t spare[2],
                           bool *held, uint64_t *calls, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    *calls = 0;
    xc_domaininfo_t info;
    if (!xen_domain_info(x, domid, &info)) {
        return xen_fail_domain(x, domid, err, errno, "cannot ask about domain %u", domid);
    }
    if (info.flags & XEN_DOMINF_hvm_guest) {
        return probe_translated(x, domid, mfns, count, held, calls, err);
    }
    for (size_t i = 0; i < count; i++) {
        held[i] = true;                                                 /* I1 */
    }
    struct probe p = { .x = x, .domid = domid, .order_max = XEN_EXCHANGE_ORDER, .held = held, .calls = calls, .err = err,
                       .buffer = xencall_alloc_buffer(x->xcall, CALL_BYTES) };
    if (!p.buffer) {
        return fs_fail(err, FS_NO_MEMORY, "no hypercall memory for the ownership probe");
    }
    fs_status_t s = probe_pv(&p, mfns, count, spare);
    xencall_free_buffer(x->xcall, p.buffer);
    return s;
}
