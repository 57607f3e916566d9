/*
 * suspend.c - stopping a PV guest with its own consent, and letting it go on.
 *
 * Owns: suspend(), resume().
 * Invariants:
 *  I1  after FS_TIMEOUT the guest runs and no request of ours is left in its control node: it
 *      is taken back in a transaction, which fails if the guest has just read it.
 *  I2  a guest that took the request is waited for until it has either stopped or had the
 *      time in which it must have given up (its kernel's own limit for freezing
 *      processes is 20 s): otherwise it would stop later, with nobody there to resume it.
 *  I3  when suspend() returns FS_OK every vCPU is off its CPU and its state is in memory: Xen's shutdown
 *      does not wait for that, a pause does; the pause itself is taken back at once, since the
 *      shutdown keeps the vCPUs down.
 *  I4  resume() on a guest that is not suspended is FS_OK and changes nothing: it may be
 *      called again after a crash.
 * Why the answer "cancelled": the guest keeps its event channels and grants, as
 * nothing of them changed.
 * Cost: the guest's own way to its suspend call; then 1 ms of delay at most.
 */
#include "cpu.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xen/sched.h>

#define POLL_MS           1
#define READ_AGAIN_NS     50000000ull
#define GUEST_GIVES_UP_NS 25000000000ull

enum seen { SEEN_STOPPED, SEEN_RUNNING, SEEN_DOWN, SEEN_GONE };

static enum seen look(struct xen_be *x, uint16_t domid, uint32_t *reason)
{
    xc_domaininfo_t info;
    if (!xen_domain_info(x, domid, &info) || (info.flags & XEN_DOMINF_dying)) {
        return SEEN_GONE;
    }
    if (!(info.flags & XEN_DOMINF_shutdown)) {
        return SEEN_RUNNING;
    }
    *reason = (info.flags >> XEN_DOMINF_shutdownshift) & XEN_DOMINF_shutdownmask;
    return *reason == SHUTDOWN_suspend ? SEEN_STOPPED : SEEN_DOWN;
}

static fs_status_t write_request(struct xen_be *x, const char *path, struct fs_error *err)
{
    if (!xs_write(x->xsh, XBT_NULL, path, "suspend", 7)) {
        return fs_fail(err, FS_REFUSED, "cannot write %s: %s", path, strerror(errno));
    }
    return FS_OK;
}

enum node { NODE_PENDING, NODE_TAKEN, NODE_OTHER };

static enum node read_request(struct xen_be *x, xs_transaction_t t, const char *path)
{
    unsigned bytes = 0;
    char *text = xs_read(x->xsh, t, path, &bytes);
    enum node n = !text || bytes == 0 ? NODE_TAKEN : strcmp(text, "suspend") == 0 ? NODE_PENDING : NODE_OTHER;
    free(text);
    return n;
}

/* I1. True: the request is gone and the guest never saw it. */
static bool withdraw(struct xen_be *x, const char *path)
{
    for (;;) {
        xs_transaction_t t = xs_transaction_start(x->xsh);
        if (t == XBT_NULL) {
            return false;
        }
        bool ours = read_request(x, t, path) == NODE_PENDING && xs_write(x->xsh, t, path, "", 0);
        if (xs_transaction_end(x->xsh, t, !ours)) {
            return ours;
        }
        if (errno != EAGAIN) {
            return false;
        }
    }
}

/* Waits for a change in the store (true), or POLL_MS: the shutdown itself reaches us by the watch as well. */
static bool wait_a_little(struct xen_be *x)
{
    struct pollfd p = { .fd = xs_fileno(x->xsh), .events = POLLIN };
    if (poll(&p, 1, POLL_MS) <= 0) {
        return false;
    }
    free(xs_check_watch(x->xsh));
    return true;
}

static fs_status_t await_stop(struct xen_be *x, uint16_t domid, const char *path, uint64_t timeout_ns, struct fs_error *err)
{
    uint64_t start = xen_clock_ns(NULL), taken_at = 0, read_at = 0;
    bool stirred = true;                /* asking the store each time would slow down the very guest that we wait for */
    for (;;) {
        uint32_t reason = 0;
        switch (look(x, domid, &reason)) {
        case SEEN_STOPPED:
            return FS_OK;
        case SEEN_GONE:
            return fs_fail(err, FS_GUEST_GONE, "domain %u went away while it was asked to suspend", domid);
        case SEEN_DOWN:
            return fs_fail(err, FS_GUEST_GONE, "domain %u shut down (reason %u) instead of suspending", domid, reason);
        case SEEN_RUNNING:
            break;
        }
        uint64_t now = xen_clock_ns(NULL);
        if (taken_at == 0 && (stirred || now - read_at > READ_AGAIN_NS)) {
            read_at = now;
            taken_at = read_request(x, XBT_NULL, path) == NODE_TAKEN ? now : 0;
        }
        bool late = now - start > timeout_ns;
        if (taken_at == 0 && late) {
            if (withdraw(x, path)) {
                return fs_fail(err, FS_TIMEOUT, "domain %u did not take the request to suspend in %llu ms (no PV driver for it, or hung)",
                               domid, (unsigned long long)(timeout_ns / 1000000));
            }
            taken_at = now;                             /* it took it this moment */
        }
        if (taken_at != 0 && now - taken_at > GUEST_GIVES_UP_NS) {          /* I2 */
            if (late) {
                return fs_fail(err, FS_TIMEOUT, "domain %u took the request to suspend but did not stop in %llu ms (its kernel could not "
                               "freeze its processes, or a driver refused)", domid, (unsigned long long)((now - start) / 1000000));
            }
            fs_status_t s = write_request(x, path, err);
            if (s != FS_OK) {
                return s;
            }
            taken_at = 0;
        }
        stirred = wait_a_little(x);
    }
}

fs_status_t xen_suspend(struct hv_backend *be, uint16_t domid, uint64_t timeout_ns, uint64_t *stopped_ns, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    char path[64];
    xen_cpu_release(x);
    snprintf(path, sizeof path, "/local/domain/%u/control/shutdown", domid);
    uint32_t reason = 0;
    enum seen before = look(x, domid, &reason);
    if (before == SEEN_GONE || before == SEEN_DOWN) {
        return fs_fail(err, FS_GUEST_GONE, "domain %u is gone or has shut down", domid);
    }
    fs_status_t s = FS_OK;
    if (before == SEEN_RUNNING) {
        if (read_request(x, XBT_NULL, path) != NODE_TAKEN) {
            return fs_fail(err, FS_REFUSED, "domain %u has an unanswered request in %s already", domid, path);
        }
        /* Watches only shorten the wait: without them the loop polls. */
        bool watching = xs_watch(x->xsh, "@releaseDomain", "frameshift") && xs_watch(x->xsh, path, "frameshift");
        s = write_request(x, path, err);
        if (s == FS_OK) {
            s = await_stop(x, domid, path, timeout_ns, err);
        }
        if (watching) {
            (void)xs_unwatch(x->xsh, path, "frameshift");
        }
        (void)xs_unwatch(x->xsh, "@releaseDomain", "frameshift");
    }
    if (s != FS_OK) {
        return s;
    }
    *stopped_ns = xen_clock_ns(be);
    if (xc_domain_pause(x->xch, domid) != 0 || xc_domain_unpause(x->xch, domid) != 0) {         /* I3 */
        return xen_fail_domain(x, domid, err, errno, "cannot wait for the vCPUs of domain %u to leave their CPUs", domid);
    }
    return FS_OK;
}

fs_status_t xen_resume(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    uint32_t reason = 0;
    switch (look(x, domid, &reason)) {
    case SEEN_GONE:
    case SEEN_DOWN:
        return fs_fail(err, FS_GUEST_GONE, "domain %u is gone or has shut down: it cannot be resumed", domid);
    case SEEN_RUNNING:
        return FS_OK;                                   /* I4 */
    case SEEN_STOPPED:
        break;
    }
    fs_status_t s = xen_vcpu_set_cancelled(x, domid, err);
    if (s != FS_OK) {
        return s;
    }
    struct xen_domctl ctl = { .cmd = XEN_DOMCTL_resumedomain, .domain = domid };
    if (xc_domctl(x->xch, &ctl) != 0) {
        return xen_fail_domain(x, domid, err, errno, "cannot resume domain %u", domid);
    }
    /* xenstored noted the shutdown; it must see the domain as alive to report its next one. */
    if (!xs_resume_domain(x->xsh, domid)) {
        return fs_fail(err, FS_IO, "domain %u runs, but xenstored was not told: %s", domid, strerror(errno));
    }
    return FS_OK;
}
