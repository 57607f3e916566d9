/*
 * be_control.c - pause, suspend, limits, and what must not move.
 *
 * Owns: nothing; changes a domain's run state.
 * Invariants: I1 pauses are counted and outlive the tool that made them;
 * I2 after a timed-out suspend the request is withdrawn and the guest runs.
 * Rules: unpausing a running domain is EINVAL; set_max_pages below what the domain has is
 * allowed (only later allocations fail); resume of a running domain changes nothing.
 * The oracles answer what Xen itself reads from the pages that it holds (debug keys
 * q and e on real Xen): a page that was moved under Xen's feet is not what they read.
 * Xen's own event traffic goes on while a domain is paused: a pause may change
 * event pages, as timers do.
 * Lock order: the machine's lock during each call.
 * Cost: O(1), specials O(grants).
 */
#include <stdlib.h>

#include "emb_backend.h"
#include "emb_core.h"

#include <xen/xen.h>
#include <xen/sched.h>
#include <xen/grant_table.h>

#define STOP_NS 10000000000ull          /* a host thread that does not stop in ten seconds is a bug */

/* A core domain may run again: tables that a tool changed meanwhile show in its direct map first. */
static void wake_up(struct emb_machine *m, struct emb_domain *d)
{
    if (d->core) {
        emb_tlb_flush(d, UINT64_MAX);
        emb_direct_sync(m, d);
    }
}

fs_status_t emb_op_pause(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_pause, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    if (d->kind == HV_DOMAIN_CONTROL) {
        s = emb_refused(d, -EINVAL, err, "pausing the domain that we run in");
    } else {
        __atomic_add_fetch(&d->pause_count, 1, __ATOMIC_SEQ_CST);
        emb_runstate_sync(c.m, d);
        emb_vcpus_kick(d);
        emb_xen_events(c.m, d, (uint32_t)(emb_random(&c.m->rng) % 3));
        emb_charge(c.m, 50000);
    }
    emb_leave(&c);
    if (s == FS_OK && d->core && !emb_core_wait(c.m, d, emb_vcpus_stopped, STOP_NS)) {
        s = fs_fail(err, FS_TIMEOUT, "domain %u: a vCPU does not stop", domid);
    }
    return s;
}

fs_status_t emb_op_unpause(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_unpause, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    if (d->pause_count == 0) {
        s = emb_refused(d, -EINVAL, err, "unpausing");
    } else {
        emb_xen_events(c.m, d, (uint32_t)(emb_random(&c.m->rng) % 3));
        wake_up(c.m, d);
        __atomic_sub_fetch(&d->pause_count, 1, __ATOMIC_SEQ_CST);
        emb_runstate_sync(c.m, d);
        emb_vcpus_wake(d);
    }
    emb_leave(&c);
    return s;
}

static bool is_suspended(const struct emb_domain *d)
{
    return d->shutdown && d->shutdown_reason == SHUTDOWN_suspend && emb_vcpus_stopped(d);
}

/* Ask a core domain and wait; the machine is unlocked. */
static fs_status_t suspend_core(struct emb_machine *m, struct emb_domain *d, uint64_t timeout_ns, struct fs_error *err)
{
    emb_lock(m);
    d->core->wants_suspend = true;
    emb_unlock(m);
    if (emb_core_wait(m, d, is_suspended, timeout_ns) && d->shutdown && !d->dying) {
        return FS_OK;
    }
    emb_lock(m);
    bool late = is_suspended(d);
    d->core->wants_suspend = late;
    emb_unlock(m);
    return late ? FS_OK : fs_fail(err, d->dying ? FS_GUEST_GONE : FS_TIMEOUT, "domain %u did not suspend", d->domid);
}

fs_status_t emb_op_suspend(struct hv_backend *be, uint16_t domid, uint64_t timeout_ns, uint64_t *stopped_ns, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_suspend, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    if (d->kind != HV_DOMAIN_PV || d->shutdown || d->dying) {
        s = emb_refused(d, -EINVAL, err, "suspending");
    } else if (d->core) {
        emb_leave(&c);
        s = suspend_core(c.m, d, timeout_ns, err);
        if (s == FS_OK) {
            *stopped_ns = emb_op_clock_ns(be);
        }
        return s;
    } else if (d->config.wont_suspend || d->pause_count > 0 || d->config.suspend_ns > timeout_ns) {
        emb_charge(c.m, timeout_ns);
        s = fs_fail(err, FS_TIMEOUT, "domain %u did not suspend in %llu ms; the request was withdrawn", domid,
                    (unsigned long long)(timeout_ns / 1000000));
    } else {
        emb_charge(c.m, d->config.suspend_ns);
        emb_pv_pre_suspend(c.m, d);
        d->shutdown = true;
        d->shutdown_reason = SHUTDOWN_suspend;
    }
    emb_leave(&c);
    if (s == FS_OK) {
        *stopped_ns = emb_op_clock_ns(be);
    }
    return s;
}

fs_status_t emb_op_resume(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_resume, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    if (d->dying || (d->shutdown && d->shutdown_reason != SHUTDOWN_suspend)) {
        s = emb_refused(d, -EINVAL, err, "resuming a domain that did not suspend");
    } else if (d->shutdown) {
        wake_up(c.m, d);
        d->shutdown_reason = 0;
        __atomic_store_n(&d->shutdown, false, __ATOMIC_SEQ_CST);
        emb_runstate_sync(c.m, d);
        emb_vcpus_wake(d);
        emb_guest_wakes(c.m, d);
    }
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_monitor_hold(struct hv_backend *be, uint16_t domid, uint32_t *held, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_monitor_hold, domid, &c, &d, err);
    if (s == FS_OK) {
        d->monitors_held = 1;
        *held = 1;
        emb_leave(&c);
    }
    return s;
}

fs_status_t emb_op_monitor_release(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_monitor_release, domid, &c, &d, err);
    if (s == FS_OK) {
        d->monitors_held = 0;
        emb_leave(&c);
    }
    return s;
}

fs_status_t emb_op_set_max_pages(struct hv_backend *be, uint16_t domid, uint64_t pages, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_set_max_pages, domid, &c, &d, err);
    if (s == FS_OK) {
        d->max_pages = pages;
        emb_leave(&c);
    }
    return s;
}

/* ---- what must not move -------------------------------------------------- */

static bool is_ring(const struct emb_held *h, uint8_t *kind)
{
    switch ((enum emb_held_kind)h->kind) {
    case EMB_HELD_STORE: *kind = HV_SPECIAL_XENSTORE; return true;
    case EMB_HELD_CONSOLE: *kind = HV_SPECIAL_CONSOLE; return true;
    case EMB_HELD_IOREQ: *kind = HV_SPECIAL_IOREQ; return true;
    default: return false;
    }
}

/* What the shared table of a core domain says: a guest's word, and so only the frames that exist. */
static size_t core_grants(struct emb_machine *m, struct emb_domain *d, struct hv_special *out)
{
    size_t n = 0;
    for (uint32_t ref = 0; d->core && ref < d->core->gnttab.frames * EMB_GNT_FRAME_REFS; ref++) {
        uint64_t mfn;
        uint32_t flags;
        if (emb_gnt_offers(m, d, ref, &mfn, &flags) && mfn < m->max_mfn) {
            uint8_t kind = flags & (GTF_reading | GTF_writing) ? HV_SPECIAL_GRANT_MAPPED : HV_SPECIAL_GRANT_OFFERED;
            out[n++] = (struct hv_special){ .gfn = FS_FRAME_NONE, .mfn = mfn_make(mfn), .grant_ref = ref, .kind = kind };
        }
    }
    return n;
}

fs_status_t emb_op_specials(struct hv_backend *be, uint16_t domid, struct hv_special **out, size_t *count, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    *out = NULL;
    *count = 0;
    fs_status_t s = emb_enter_domain(be, EMB_OP_specials, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    bool pv = d->kind != HV_DOMAIN_HAP;
    size_t refs = d->core ? d->core->gnttab.frames * EMB_GNT_FRAME_REFS : 0;
    struct hv_special *list = calloc(2 * EMB_HELD_MAX + EMB_GRANTS_MAX + refs, sizeof(*list));
    if (!list) {
        s = fs_fail(err, FS_NO_MEMORY, "domain %u: no memory for its special frames", domid);
        goto out;
    }
    for (uint32_t i = 0; i < d->held_count; i++) {
        const struct emb_held *h = &d->held[i];
        uint8_t kind;
        if (is_ring(h, &kind)) {
            struct hv_special ring = { .gfn = h->gfn, .mfn = pv ? mfn_make(h->mfn) : MFN_NONE, .kind = kind };
            list[(*count)++] = ring;
            ring.kind = HV_SPECIAL_GRANT_MAPPED;        /* the daemons map their ring by a reserved grant */
            ring.grant_ref = h->kind == EMB_HELD_STORE;
            list[(*count)++] = ring;
        }
    }
    for (uint32_t i = 0; i < d->grant_count; i++) {
        const struct emb_grant *g = &d->grants[i];
        if (g->in_use) {
            list[(*count)++] = (struct hv_special){ .gfn = pv ? FS_FRAME_NONE : g->gfn, .mfn = pv ? mfn_make(g->gfn) : MFN_NONE,
                                                    .grant_ref = i + 8, .kind = g->mapped ? HV_SPECIAL_GRANT_MAPPED : HV_SPECIAL_GRANT_OFFERED };
        }
    }
    *count += core_grants(c.m, d, list + *count);
    *out = list;
out:
    emb_leave(&c);
    return s;
}

/* ---- Xen's own eyes ------------------------------------------------------ */

fs_status_t emb_op_vcpu_upcall_state(struct hv_backend *be, uint16_t domid, uint8_t *out, size_t count, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_vcpu_upcall_state, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    memset(out, 0, count);
    for (uint32_t i = 0; c.m->contents && i < d->held_count; i++) {
        const struct emb_held *h = &d->held[i];
        if (h->kind != EMB_HELD_VCPU_INFO || h->vcpu >= count) {
            continue;
        }
        const uint8_t *info = emb_bytes(c.m, h->mfn) + h->offset;
        out[h->vcpu] = (uint8_t)((info[0] & 1) | (info[1] & 1) << 1 | (info[0] >> 1 & 0x1f) << 2 | 0x80);
    }
    emb_leave(&c);
    return FS_OK;
}

fs_status_t emb_op_evtchn_state(struct hv_backend *be, uint16_t domid, uint8_t *state, size_t count, size_t *ports, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    *ports = 0;
    fs_status_t s = emb_enter_domain(be, EMB_OP_evtchn_state, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    memset(state, 0, count);
    const struct emb_held *array = NULL;        /* none: two-level channels, whose bits are in shared_info */
    for (uint32_t i = 0; i < d->held_count && !array; i++) {
        array = d->held[i].kind == EMB_HELD_EVT_ARRAY ? &d->held[i] : NULL;
    }
    if (c.m->contents && d->guest) {
        *ports = EMB_PORT_FIRST + EMB_PORTS_PER_VCPU * (size_t)d->vcpu_count;
    }
    for (size_t port = EMB_PORT_FIRST; port < *ports && port < count; port++) {
        uint32_t word = 0;
        if (array) {
            memcpy(&word, emb_bytes(c.m, array->mfn) + port * 4, sizeof(word));
        }
        uint32_t kind = port % EMB_PORTS_PER_VCPU == 0 ? 5 : port % EMB_PORTS_PER_VCPU == 1 ? 6 : 3;   /* virq, ipi, interdomain */
        state[port] = (uint8_t)(word >> 31 | (word >> 30 & 1) << 1 | (array ? 1u << 2 : 0) | kind << 4 | 0x80u);
    }
    emb_leave(&c);
    return FS_OK;
}
