/*
 * hc_vcpu.c - vcpu_op of a core domain (public/vcpu.h).
 *
 * Owns: nothing; vcpu.c holds contexts, runstate.c time.
 * Rules: initialise takes roots and GDT from a vcpu_guest_context, once (EEXIST); the vCPU is up if the context says so
 * (VGCF_online), else it waits for up.  Up needs a state (EINVAL).  Down of the last vCPU that is up is the domain's power-off.
 * register_vcpu_info once for each vCPU, aligned, within a page, of itself or a vCPU that is down; that frame is then held for ever.
 * A single-shot timer is set and stopped by its own vCPU (EINVAL else); a time that has passed posts at once; VCPU_SSHOTTMR_future is
 * ignored, as vcpu.h allows.  Periods are 1 ms to 2^62 ns (EINVAL else).
 * A runstate area lies in the direct map (EFAULT), where Xen takes any address of the guest; NULL ends it.
 * A vCPU that is not of the domain: ENOENT.
 * Lock order: the machine's lock is held.
 * Source: common/domain.c common_vcpu_op(); arch/x86/domain.c do_vcpu_op(), arch_initialise_vcpu().
 * Why ENOSYS for NMIs, physical ids and time areas: a kernel here has no traps, no CPUs to pin to, and asks emb_core_time_ns().
 * Cost: O(vCPUs).
 */
#include "emb_core.h"

#include <stdlib.h>

#include <xen/xen.h>
#include <xen/sched.h>
#include <xen/vcpu.h>

#define PERIOD_MAX_NS (UINT64_MAX >> 2)

struct vcpu_info *emb_vcpu_info(struct emb_machine *m, const struct emb_domain *d, uint32_t vcpu)
{
    const struct emb_core_vcpu *v = &d->core->vcpus[vcpu];
    if (v->info_mfn) {
        return (struct vcpu_info *)(void *)(emb_bytes(m, v->info_mfn) + v->info_offset);
    }
    return &((shared_info_t *)(void *)emb_bytes(m, d->shared_info))->vcpu_info[vcpu];
}

static long initialise(struct emb_hcall *h, uint32_t id)
{
    struct vcpu_guest_context *g = malloc(sizeof(*g));
    uint8_t blob[EMB_VCPU_BLOB_BYTES] = { 0 };
    long rc = g ? emb_from_guest(g, h->a[2], sizeof(*g)) : -ENOMEM;
    if (rc == 0 && h->d->vcpus[id].initialised) {
        rc = -EEXIST;
    }
    if (rc == 0 && g->gdt_ents > 14 * 512) {
        rc = -EINVAL;
    }
    if (rc == 0) {
        struct hv_pv_vcpu c = { .vcpu = id, .online = g->flags & VGCF_online, .cr3 = mfn_make(g->ctrlreg[3] >> FS_PAGE_SHIFT), .user_cr3 = MFN_NONE,
                                .gdt_entries = (uint32_t)g->gdt_ents, .opaque = blob, .opaque_bytes = sizeof(blob) };
        if (g->ctrlreg[1]) {
            c.user_cr3 = mfn_make(g->ctrlreg[1] >> FS_PAGE_SHIFT);
        }
        for (uint32_t i = 0; i < (g->gdt_ents + 511) / 512; i++) {
            c.gdt[i] = mfn_make(g->gdt_frames[i]);
        }
        rc = emb_vcpu_load(h->m, h->d, id, &c);
    }
    free(g);
    emb_runstate_sync(h->m, h->d);
    emb_vcpus_wake(h->d);
    return rc;
}

static long register_info(struct emb_hcall *h, uint32_t id)
{
    struct vcpu_register_vcpu_info r;
    struct emb_core_vcpu *v = &h->d->core->vcpus[id];
    if (emb_from_guest(&r, h->a[2], sizeof(r)) != 0) {
        return -EFAULT;
    }
    if (r.offset > FS_PAGE_BYTES - sizeof(struct vcpu_info) || r.offset % sizeof(uint64_t)) {
        return -ENXIO;
    }
    if (v->info_mfn || (id != h->vcpu && h->d->vcpus[id].online)) {
        return -EINVAL;
    }
    struct emb_held held = { .mfn = r.mfn, .kind = EMB_HELD_VCPU_INFO, .writable = 1, .vcpu = (uint16_t)id, .offset = r.offset };
    held.gfn = emb_is_ram(h->m, r.mfn) ? emb_frame_at(h->m, r.mfn)->m2p1 - 1 : FS_FRAME_NONE;
    struct vcpu_info old = *emb_vcpu_info(h->m, h->d, id);
    if (emb_hold(h->m, h->d, &held) != 0) {
        return -EINVAL;
    }
    v->info_mfn = r.mfn;
    v->info_offset = r.offset;
    struct vcpu_info *info = emb_vcpu_info(h->m, h->d, id);
    *info = old;
    info->evtchn_pending_sel = UINT64_MAX;      /* a spurious event rather than a lost one */
    info->evtchn_upcall_pending = 1;
    return 0;
}

static long down(struct emb_hcall *h, uint32_t id)
{
    bool last = true;
    for (uint32_t i = 0; i < h->d->vcpu_count; i++) {
        last &= i == id || !h->d->vcpus[i].online;
    }
    if (last) {
        emb_shutdown(h, SHUTDOWN_poweroff);
        return 0;
    }
    __atomic_store_n(&h->d->vcpus[id].online, false, __ATOMIC_SEQ_CST);
    emb_runstate_sync(h->m, h->d);
    emb_vcpus_kick(h->d);
    return 0;
}

static long up(struct emb_hcall *h, uint32_t id)
{
    if (!h->d->vcpus[id].initialised) {
        return -EINVAL;
    }
    __atomic_store_n(&h->d->vcpus[id].online, true, __ATOMIC_SEQ_CST);
    emb_runstate_sync(h->m, h->d);
    emb_vcpus_wake(h->d);
    return 0;
}

/* ---- runstates ----------------------------------------------------------- */

static struct vcpu_runstate_info runstate_now(const struct emb_hcall *h, uint32_t id)
{
    const struct emb_runstate *r = &h->d->core->vcpus[id].runstate;
    struct vcpu_runstate_info out = { .state = r->state, .state_entry_time = r->since_ns };
    memcpy(out.time, r->time_ns, sizeof(out.time));
    out.time[r->state] += emb_now(h->m) - r->since_ns;
    return out;
}

static long get_runstate(struct emb_hcall *h, uint32_t id)
{
    struct vcpu_runstate_info out = runstate_now(h, id);
    return emb_to_guest(h->a[2], &out, sizeof(out));
}

static long register_runstate(struct emb_hcall *h, uint32_t id)
{
    struct vcpu_register_runstate_memory_area r;
    struct emb_core_vcpu *v = &h->d->core->vcpus[id];
    uint64_t first = (uint64_t)(uintptr_t)h->d->core->boot.direct, bytes = h->d->core->boot.pages * FS_PAGE_BYTES;
    if (emb_from_guest(&r, h->a[2], sizeof(r)) != 0) {
        return -EFAULT;
    }
    if (r.addr.p != 0 && (r.addr.p < first || r.addr.p - first > bytes - sizeof(struct vcpu_runstate_info))) {
        return -EFAULT;
    }
    v->runstate_at = r.addr.p;
    v->runstate_due = false;
    if (r.addr.p) {
        struct vcpu_runstate_info out = runstate_now(h, id);
        int rc = emb_to_guest(r.addr.p, &out, sizeof(out));
        (void)rc;                       /* Xen does not look either */
    }
    return 0;
}

/* ---- timers -------------------------------------------------------------- */

static long set_singleshot(struct emb_hcall *h, uint32_t id)
{
    struct vcpu_set_singleshot_timer s;
    struct emb_core_vcpu *v = &h->d->core->vcpus[id];
    if (id != h->vcpu) {
        return -EINVAL;
    }
    if (emb_from_guest(&s, h->a[2], sizeof(s)) != 0) {
        return -EFAULT;
    }
    v->singleshot_ns = s.timeout_abs_ns;
    if (s.timeout_abs_ns < emb_now(h->m)) {     /* VCPU_SSHOTTMR_future is not looked at */
        v->singleshot_ns = 0;
        emb_virq_raise(h->m, h->d, VIRQ_TIMER, id);
    }
    return 0;
}

static long stop_singleshot(struct emb_hcall *h, uint32_t id)
{
    if (id != h->vcpu) {
        return -EINVAL;
    }
    h->d->core->vcpus[id].singleshot_ns = 0;
    return 0;
}

static long set_periodic(struct emb_hcall *h, uint32_t id)
{
    struct vcpu_set_periodic_timer s;
    struct emb_core_vcpu *v = &h->d->core->vcpus[id];
    if (emb_from_guest(&s, h->a[2], sizeof(s)) != 0) {
        return -EFAULT;
    }
    if (s.period_ns < 1000000 || s.period_ns > PERIOD_MAX_NS) {
        return -EINVAL;
    }
    v->period_ns = s.period_ns;
    v->periodic_ns = emb_now(h->m) + s.period_ns;
    return 0;
}

long emb_hc_vcpu(struct emb_hcall *h)
{
    if (h->a[1] >= h->d->vcpu_count) {
        return -ENOENT;
    }
    uint32_t id = (uint32_t)h->a[1];
    switch (h->a[0]) {
    case VCPUOP_initialise: return initialise(h, id);
    case VCPUOP_up: return up(h, id);
    case VCPUOP_down: return down(h, id);
    case VCPUOP_is_up: return h->d->vcpus[id].online;
    case VCPUOP_get_runstate_info: return get_runstate(h, id);
    case VCPUOP_register_runstate_memory_area: return register_runstate(h, id);
    case VCPUOP_set_periodic_timer: return set_periodic(h, id);
    case VCPUOP_stop_periodic_timer: h->d->core->vcpus[id].periodic_ns = 0; return 0;
    case VCPUOP_set_singleshot_timer: return set_singleshot(h, id);
    case VCPUOP_stop_singleshot_timer: return stop_singleshot(h, id);
    case VCPUOP_register_vcpu_info: return register_info(h, id);
    default: return -ENOSYS;
    }
}
