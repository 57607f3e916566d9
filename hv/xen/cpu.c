/*
 * cpu.c - keeping the calling thread off physical CPU 0.
 *
 * Owns: xen_cpu_hold() and xen_cpu_release().
 * Invariants:
 *  I1  between hold and release every hypercall of the calling thread runs on a
 *      physical CPU other than 0: the thread may run on one virtual CPU only, and
 *      that one may run anywhere but on 0.
 *  I2  hold proves it rather than trusting the order: Xen refuses a vCPU that
 *      asks for its own context (EINVAL), which tells that the thread is on that
 *      vCPU, and getvcpuinfo, executed there, names the physical CPU.
 *  I3  release puts back what hold changed; a hold that fails has changed nothing.
 * Why: for a PV domain Xen never initialises the populate-on-demand lock, all of
 * whose bytes are zero; marking an owned frame takes it.  To CPU 0 the lock seems to
 * be held by itself (recursively), and its release leaves it held for ever: the
 * next owned frame spins.  Any other CPU takes and releases it in order.
 * Why held over many calls: an evacuation marks in hundreds of runs; it is let go before
 * anything that takes long (a suspend, a save) and at the session's end.
 * Cost: about ten hypercalls each way, plus a scheduling round of one vCPU; two when held already.
 */
#include "cpu.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SETTLE_NS 2000000000ull

struct xen_cpu {
    int vcpu;                   /* the vCPU we are tied to; -1 none */
    bool changed;               /* its hard affinity was changed */
    xc_cpumap_t hard;           /* its hard affinity before */
    cpu_set_t thread;           /* our own affinity before */
};

static bool on_vcpu(struct xen_be *x, int vcpu)
{
    vcpu_guest_context_any_t *ctx = calloc(1, sizeof *ctx);
    bool here = ctx && xc_vcpu_getcontext(x->xch, x->self, (uint32_t)vcpu, ctx) != 0 && errno == EINVAL;
    free(ctx);
    return here;
}

static bool map_has_other_than_0(xc_cpumap_t map, int bits)
{
    for (int i = 1; i < bits; i++) {
        if (xc_cpumap_testcpu(i, map)) {
            return true;
        }
    }
    return false;
}

/* Move our thread to that vCPU, and that vCPU off pCPU 0; false: nothing is changed. */
static bool settle(struct xen_be *x, struct xen_cpu *c, int vcpu, int bits)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((unsigned)vcpu, &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) {
        return false;
    }
    bool changed = false;
    xc_cpumap_t hard = xc_cpumap_alloc(x->xch);
    if (!hard || !on_vcpu(x, vcpu)) {
        goto undo;
    }
    if (xc_cpumap_testcpu(0, c->hard)) {
        memcpy(hard, c->hard, (size_t)xc_get_cpumap_size(x->xch));
        xc_cpumap_clearcpu(0, hard);
        if (!map_has_other_than_0(hard, bits)) {
            for (int i = 1; i < bits; i++) {
                xc_cpumap_setcpu(i, hard);
            }
        }
        if (xc_vcpu_setaffinity(x->xch, x->self, vcpu, hard, NULL, XEN_VCPUAFFINITY_HARD) != 0) {
            goto undo;
        }
        changed = true;
    }
    uint64_t limit = xen_clock_ns(NULL) + SETTLE_NS;
    for (;;) {
        xc_vcpuinfo_t info;
        if (xc_vcpu_getinfo(x->xch, x->self, (uint32_t)vcpu, &info) != 0) {
            goto undo;
        }
        if (info.cpu != 0 && on_vcpu(x, vcpu)) {        /* I2 */
            c->vcpu = vcpu;
            c->changed = changed;
            free(hard);
            return true;
        }
        if (xen_clock_ns(NULL) > limit) {
            goto undo;
        }
        nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
    }
undo:
    if (changed) {
        (void)xc_vcpu_setaffinity(x->xch, x->self, vcpu, c->hard, NULL, XEN_VCPUAFFINITY_HARD);
    }
    free(hard);
    (void)sched_setaffinity(0, sizeof c->thread, &c->thread);
    return false;
}

static fs_status_t begin(struct xen_be *x, struct xen_cpu *c, struct fs_error *err)
{
    *c = (struct xen_cpu){ .vcpu = -1 };
    xc_physinfo_t phys = { 0 };
    if (xc_physinfo(x->xch, &phys) != 0) {
        return xen_fail(err, errno, "cannot ask Xen for its CPUs");
    }
    if (phys.nr_cpus < 2) {
        return fs_fail(err, FS_UNSUPPORTED, "this host has one physical CPU: marking a PV guest's frame on CPU 0 hangs Xen; "
                       "a second CPU is needed (remove maxcpus=1 or nosmp from Xen's command line)");
    }
    int bits = (int)phys.max_cpu_id + 1;
    xc_domaininfo_t self;
    if (!xen_domain_info(x, x->self, &self)) {
        return xen_fail(err, errno, "cannot ask about our own domain");
    }
    c->hard = xc_cpumap_alloc(x->xch);
    if (!c->hard || sched_getaffinity(0, sizeof c->thread, &c->thread) != 0) {
        free(c->hard);
        c->hard = NULL;
        return fs_fail(err, FS_NO_MEMORY, "cannot read our own CPU affinity");
    }
    int top = self.max_vcpu_id < CPU_SETSIZE ? (int)self.max_vcpu_id : CPU_SETSIZE - 1;
    /* First a vCPU that never runs on CPU 0 anyway; then one that we must keep off it. */
    for (int forced = 0; forced <= 1; forced++) {
        for (int v = top; v >= 0; v--) {
            xc_vcpuinfo_t info;
            if (xc_vcpu_getinfo(x->xch, x->self, (uint32_t)v, &info) != 0 || !info.online ||
                xc_vcpu_getaffinity(x->xch, x->self, v, c->hard, NULL, XEN_VCPUAFFINITY_HARD) != 0) {
                continue;
            }
            if ((xc_cpumap_testcpu(0, c->hard) != 0) == (forced == 1) && settle(x, c, v, bits)) {
                return FS_OK;
            }
        }
    }
    free(c->hard);
    c->hard = NULL;
    return fs_fail(err, FS_UNSUPPORTED, "no virtual CPU of dom0 can be kept off physical CPU 0, on which marking a PV guest's frame "
                   "hangs Xen; give dom0 a vCPU that may run elsewhere (xl vcpu-pin, dom0_max_vcpus, cpupools)");
}

static void end(struct xen_be *x, struct xen_cpu *c)
{
    if (c->vcpu >= 0) {
        if (c->changed) {
            (void)xc_vcpu_setaffinity(x->xch, x->self, c->vcpu, c->hard, NULL, XEN_VCPUAFFINITY_HARD);
        }
        (void)sched_setaffinity(0, sizeof c->thread, &c->thread);
    }
    free(c->hard);
    *c = (struct xen_cpu){ .vcpu = -1 };
}

/* Somebody else may pin dom0's vCPUs, or our thread, meanwhile. */
static bool still_held(struct xen_be *x, const struct xen_cpu *c)
{
    xc_vcpuinfo_t info;
    xc_cpumap_t hard = xc_cpumap_alloc(x->xch);
    bool good = hard && sched_getcpu() == c->vcpu && xc_vcpu_getinfo(x->xch, x->self, (uint32_t)c->vcpu, &info) == 0 && info.cpu != 0 &&
                xc_vcpu_getaffinity(x->xch, x->self, c->vcpu, hard, NULL, XEN_VCPUAFFINITY_HARD) == 0 && !xc_cpumap_testcpu(0, hard);
    free(hard);
    return good;
}

fs_status_t xen_cpu_hold(struct xen_be *x, struct fs_error *err)
{
    if (x->cpu && still_held(x, x->cpu)) {
        return FS_OK;
    }
    xen_cpu_release(x);
    struct xen_cpu *c = calloc(1, sizeof *c);
    if (!c) {
        return fs_fail(err, FS_NO_MEMORY, "no memory to keep our CPU affinity");
    }
    fs_status_t s = begin(x, c, err);
    if (s != FS_OK) {
        free(c);
        return s;
    }
    x->cpu = c;
    return FS_OK;
}

void xen_cpu_release(struct xen_be *x)
{
    if (x->cpu) {
        end(x, x->cpu);
        free(x->cpu);
        x->cpu = NULL;
    }
}
