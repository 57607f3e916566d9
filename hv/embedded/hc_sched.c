/*
 * hc_sched.c - sched_op and vcpu_op of a core domain (public/sched.h, vcpu.h).
 *
 * Owns: vCPUs' blocked state; the moment of a suspend.
 * Rules: block returns when an event is pending for the vCPU; shutdown(suspend) needs the other vCPUs down
 * (EINVAL else, so that a guest that forgets one is told) and returns 1 when the suspend was
 * cancelled, which is the only way that it ends here; other reasons end the guest.
 * vcpu_op: initialise takes roots and GDT from a vcpu_guest_context; up, down, is_up; register_vcpu_info once
 * for each vCPU, aligned, within a page, and that frame is then held for ever.
 * Lock order: the machine's lock is held on entry and exit, free while waiting.
 * Cost: blocked vCPUs poll every 50 us.
 */
#include "emb_core.h"

#include <stdlib.h>

#include <xen/xen.h>
#include <xen/sched.h>
#include <xen/vcpu.h>

static struct vcpu_info *info_of(struct emb_machine *m, const struct emb_domain *d, uint32_t vcpu)
{
    const struct emb_core_vcpu *v = &d->core->vcpus[vcpu];
    if (v->info_mfn) {
        return (struct vcpu_info *)(void *)(emb_bytes(m, v->info_mfn) + v->info_offset);
    }
    return &((shared_info_t *)(void *)emb_bytes(m, d->shared_info))->vcpu_info[vcpu];
}

static bool any_event(const struct emb_domain *d)
{
    for (uint32_t i = 0; i < d->vcpu_count; i++) {
        if (d->core->vcpus[i].blocked) {
            return false;
        }
    }
    return true;
}

static long block(struct emb_hcall *h)
{
    struct vcpu_info *info = info_of(h->m, h->d, h->vcpu);
    info->evtchn_upcall_mask = 0;
    h->d->core->vcpus[h->vcpu].blocked = !info->evtchn_upcall_pending;
    while (h->d->core->vcpus[h->vcpu].blocked && !h->d->dying && h->d->core->vcpus[h->vcpu].tid) {
        emb_unlock(h->m);
        emb_machine_end(h->d, h->vcpu);         /* a paused vCPU parks here too */
        (void)emb_core_wait(h->m, h->d, any_event, 50000);
        emb_machine_begin(h->d, h->vcpu);
        emb_lock(h->m);
    }
    return 0;
}

static bool resumed(const struct emb_domain *d)
{
    return !d->shutdown;
}

static long suspend(struct emb_hcall *h)
{
    for (uint32_t i = 0; i < h->d->vcpu_count; i++) {
        if (i != h->vcpu && h->d->vcpus[i].online) {
            return -EINVAL;
        }
    }
    __atomic_store_n(&h->d->shutdown_reason, SHUTDOWN_suspend, __ATOMIC_SEQ_CST);
    __atomic_store_n(&h->d->shutdown, true, __ATOMIC_SEQ_CST);
    h->d->core->wants_suspend = false;
    if (!h->d->core->vcpus[h->vcpu].tid) {
        return 1;                               /* deterministic: the caller's step ends, the tool goes on */
    }
    emb_unlock(h->m);
    emb_machine_end(h->d, h->vcpu);             /* parks until the resume */
    while (!emb_core_wait(h->m, h->d, resumed, 50000000)) {
    }
    emb_machine_begin(h->d, h->vcpu);
    emb_lock(h->m);
    return 1;
}

long emb_hc_sched(struct emb_hcall *h)
{
    struct sched_shutdown s;
    switch (h->a[0]) {
    case SCHEDOP_yield: return 0;
    case SCHEDOP_block: return block(h);
    case SCHEDOP_shutdown:
        if (emb_from_guest(&s, h->a[1], sizeof(s)) != 0) {
            return -EFAULT;
        }
        if (s.reason == SHUTDOWN_suspend) {
            return suspend(h);
        }
        __atomic_store_n(&h->d->shutdown_reason, s.reason, __ATOMIC_SEQ_CST);
        __atomic_store_n(&h->d->shutdown, true, __ATOMIC_SEQ_CST);
        return 0;
    default: return -ENOSYS;
    }
}

/* ---- vcpu_op ------------------------------------------------------------- */

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
        struct hv_pv_vcpu c = { .vcpu = id, .cr3 = mfn_make(g->ctrlreg[3] >> FS_PAGE_SHIFT), .user_cr3 = MFN_NONE,
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
    struct vcpu_info old = *info_of(h->m, h->d, id);
    if (emb_hold(h->m, h->d, &held) != 0) {
        return -EINVAL;
    }
    v->info_mfn = r.mfn;
    v->info_offset = r.offset;
    struct vcpu_info *info = info_of(h->m, h->d, id);
    *info = old;
    info->evtchn_pending_sel = UINT64_MAX;      /* a spurious event rather than a lost one */
    info->evtchn_upcall_pending = 1;
    return 0;
}

long emb_hc_vcpu(struct emb_hcall *h)
{
    uint64_t id = h->a[1];
    if (id >= h->d->vcpu_count) {
        return -ENOENT;
    }
    struct emb_vcpu *v = &h->d->vcpus[id];
    switch (h->a[0]) {
    case VCPUOP_initialise: return initialise(h, (uint32_t)id);
    case VCPUOP_up:
        if (!v->initialised) {
            return -EINVAL;
        }
        __atomic_store_n(&v->online, true, __ATOMIC_SEQ_CST);
        emb_vcpus_wake(h->d);
        return 0;
    case VCPUOP_down:
        __atomic_store_n(&v->online, false, __ATOMIC_SEQ_CST);
        emb_vcpus_kick(h->d);
        return 0;
    case VCPUOP_is_up: return v->online;
    case VCPUOP_register_vcpu_info: return register_info(h, (uint32_t)id);
    default: return -ENOSYS;
    }
}
