/*
 * runstate.c - time of core domains: system time, runstates, timers.
 *
 * Owns: emb_core_vcpu's runstate, registered area, and timers.
 * Invariants:
 *  I1 the times of a runstate add up to the system time since the domain was built: every change of what a
 *     vCPU does is followed by emb_runstate_sync() before the lock is free;
 *  I2 a registered area is written when it is registered and whenever its vCPU runs again, by the process that runs the guest,
 *     as far as the guest's own entries let it; it lies in the direct map, because other memory of this
 *     process may be gone by then;
 *  I3 a timer posts once, at or after its time: at the next hypercall, wait or tick of the domain.
 * Rules: blocked dominates offline (paused, suspended, down).  Runnable is never seen: every vCPU has a CPU of its own.
 * The event is VIRQ_TIMER of that vCPU; where none is bound it is lost.  Periods that nobody looked at make one event.
 * Lock order: the machine's lock is held, but for emb_core_*().
 * Source: public/vcpu.h; common/sched/core.c vcpu_runstate_change(), vcpu_runstate_get(); arch/x86/domain.c update_runstate_area();
 * arch/x86/time.c send_timer_event().
 * Why no thread or signal for timers: deterministic mode has none, and a kernel here has no interrupts, it polls.
 * Cost: O(vCPUs) a hypercall.
 */
#include <time.h>
#include <unistd.h>

#include "emb_core.h"

#include <xen/xen.h>
#include <xen/vcpu.h>

_Static_assert(sizeof(struct vcpu_runstate_info) == 48, "the guest's view of a runstate");

uint64_t emb_now(const struct emb_machine *m)
{
    struct timespec t;
    if (m->config.virtual_clock) {
        return m->clock_ns;
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- runstates ----------------------------------------------------------- */

static int state_of(const struct emb_domain *d, uint32_t vcpu)
{
    if (d->vcpus[vcpu].online && d->core->vcpus[vcpu].blocked) {
        return RUNSTATE_blocked;
    }
    return d->vcpus[vcpu].online && d->pause_count == 0 && !d->shutdown ? RUNSTATE_running : RUNSTATE_offline;
}

static void write_area(struct emb_core_vcpu *v)
{
    struct vcpu_runstate_info out = { .state = v->runstate.state, .state_entry_time = v->runstate.since_ns };
    memcpy(out.time, v->runstate.time_ns, sizeof(out.time));
    int rc = emb_to_guest(v->runstate_at, &out, sizeof(out));
    v->runstate_due = false;
    (void)rc;                           /* I2: not mapped writable now is the guest's own affair */
}

void emb_runstate_sync(const struct emb_machine *m, struct emb_domain *d)
{
    uint64_t now = emb_now(m);
    for (uint32_t i = 0; d->core && i < d->vcpu_count; i++) {
        struct emb_core_vcpu *v = &d->core->vcpus[i];
        struct emb_runstate *r = &v->runstate;
        int state = state_of(d, i);
        if (state != r->state) {
            r->time_ns[r->state] += now - r->since_ns;
            r->since_ns = now;
            r->state = state;
            v->runstate_due = state == RUNSTATE_running && v->runstate_at;
        }
        if (v->runstate_due && d->core->host_pid == emb_pid() && !d->core->direct_stale) {
            write_area(v);
        }
    }
}

void emb_runstate_start(const struct emb_machine *m, struct emb_domain *d)
{
    for (uint32_t i = 0; i < d->vcpu_count; i++) {
        d->core->vcpus[i].runstate = (struct emb_runstate){ .state = RUNSTATE_offline, .since_ns = emb_now(m) };
    }
    emb_runstate_sync(m, d);
}

/* ---- timers -------------------------------------------------------------- */

void emb_timers_run(struct emb_machine *m, struct emb_domain *d)
{
    uint64_t now = emb_now(m);
    for (uint32_t i = 0; d->core && i < d->vcpu_count; i++) {
        struct emb_core_vcpu *v = &d->core->vcpus[i];
        bool due = false;
        if (v->singleshot_ns && v->singleshot_ns <= now) {
            v->singleshot_ns = 0;
            due = true;
        }
        if (v->periodic_ns && v->periodic_ns <= now) {
            v->periodic_ns = now + v->period_ns;
            due = true;
        }
        if (due) {
            emb_virq_raise(m, d, VIRQ_TIMER, i);
        }
    }
}

uint64_t emb_core_time_ns(struct emb_machine *m)
{
    if (!m->config.virtual_clock) {
        return emb_now(m);
    }
    emb_lock(m);
    uint64_t now = emb_now(m);
    emb_unlock(m);
    return now;
}

void emb_core_advance(struct emb_machine *m, uint64_t ns)
{
    emb_lock(m);
    m->clock_ns += ns;                  /* a real clock does not look at it */
    emb_unlock(m);
}

void emb_core_tick(struct emb_machine *m, uint16_t domid)
{
    emb_lock(m);
    struct emb_domain *d = emb_domain_find(m, domid);
    if (d && d->core && !d->dying) {
        emb_timers_run(m, d);
    }
    emb_unlock(m);
}
