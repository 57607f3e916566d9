/*
 * hc_sched.c - sched_op of a core domain (public/sched.h).
 *
 * Owns: vCPUs' blocked state; the moment of a suspend.
 * Rules: block returns when an event is pending for the vCPU; shutdown(suspend) needs the other vCPUs down
 * (EINVAL else, so that a guest that forgets one is told) and returns 1 when the suspend was
 * cancelled, which is the only way that it ends here; other reasons end the guest.
 * Lock order: the machine's lock is held on entry and exit, free while waiting.
 * Why reasons other than suspend have no way back: nothing here builds the domain anew; a toolstack destroys it.
 * Cost: blocked vCPUs poll every 50 us.
 */
#include "emb_core.h"

#include <xen/xen.h>
#include <xen/sched.h>

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
    struct vcpu_info *info = emb_vcpu_info(h->m, h->d, h->vcpu);
    info->evtchn_upcall_mask = 0;
    h->d->core->vcpus[h->vcpu].blocked = !info->evtchn_upcall_pending;
    emb_runstate_sync(h->m, h->d);
    while (h->d->core->vcpus[h->vcpu].blocked && !h->d->dying && h->d->core->vcpus[h->vcpu].tid) {
        emb_unlock(h->m);
        emb_machine_end(h->d, h->vcpu);         /* a paused vCPU parks here too */
        (void)emb_core_wait(h->m, h->d, any_event, 50000);
        emb_machine_begin(h->d, h->vcpu);
        emb_lock(h->m);
    }
    emb_runstate_sync(h->m, h->d);
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
    emb_runstate_sync(h->m, h->d);
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

void emb_shutdown(struct emb_hcall *h, uint32_t reason)
{
    __atomic_store_n(&h->d->shutdown_reason, reason, __ATOMIC_SEQ_CST);
    __atomic_store_n(&h->d->shutdown, true, __ATOMIC_SEQ_CST);
    emb_runstate_sync(h->m, h->d);
    emb_vcpus_kick(h->d);
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
        emb_shutdown(h, s.reason);
        return 0;
    default: return -ENOSYS;
    }
}
