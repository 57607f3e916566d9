/*
 * core_run.c - vCPUs as host threads: stopping them, waking them, waiting for the guest.
 *
 * Owns: emb_core_vcpu.pid, tid, parked, in_machine; core->run_seq.
 * Invariants:
 *  I1 when a pause returns, no vCPU thread touches guest memory until the unpause: each is parked,
 *     waits inside the machine, or is gone;
 *  I2 a thread inside a call of the machine is never parked by the signal: it parks itself when the
 *     call ends, so it holds no lock while parked;
 *  I3 after a suspend the direct map is made true before any vCPU runs.
 * Lock order: emb_core_wait() is called with the lock free.  The signal handler takes no lock.
 * Why a signal: guest code may loop over its direct map for ever without calling the machine.
 * Deterministic mode has no threads: whoever waits runs the guest's step function.
 * Cost: a stop is one signal and one futex wait for each vCPU thread.
 */
#include <limits.h>
#include <setjmp.h>
#include <linux/futex.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "emb_core.h"

#define STOP_SIGNAL SIGUSR2

static _Thread_local struct emb_domain *this_domain;
static _Thread_local uint32_t this_vcpu;
static _Thread_local sigjmp_buf this_death;     /* where a vCPU of a dead domain goes */

static void futex_wait(uint32_t *word, uint32_t value, uint64_t ns)
{
    struct timespec t = { .tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u) };
    (void)syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0);
}

static void futex_wake(uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

static uint32_t load(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void store(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
}

bool emb_vcpu_must_stop(const struct emb_domain *d, uint32_t vcpu)
{
    return __atomic_load_n(&d->pause_count, __ATOMIC_SEQ_CST) > 0 || __atomic_load_n(&d->shutdown, __ATOMIC_SEQ_CST) ||
           !__atomic_load_n(&d->vcpus[vcpu].online, __ATOMIC_SEQ_CST) || __atomic_load_n(&d->core->direct_stale, __ATOMIC_SEQ_CST);
}

static void park_while_stopped(struct emb_domain *d, uint32_t vcpu)
{
    struct emb_core *core = d->core;
    struct emb_core_vcpu *v = &core->vcpus[vcpu];
    while (emb_vcpu_must_stop(d, vcpu) || __atomic_load_n(&d->dying, __ATOMIC_SEQ_CST)) {
        if (__atomic_load_n(&d->dying, __ATOMIC_SEQ_CST)) {
            siglongjmp(this_death, 1);          /* no lock is held here: I2 */
        }
        uint32_t seq = load(&core->run_seq);
        store(&v->parked, 1);
        futex_wake(&v->parked);
        if (emb_vcpu_must_stop(d, vcpu)) {
            futex_wait(&core->run_seq, seq, 50000000);
        }
    }
    store(&v->parked, 0);
}

static void on_stop(int sig)
{
    (void)sig;
    int saved = errno;
    struct emb_domain *d = this_domain;
    if (d && d->core && !load(&d->core->vcpus[this_vcpu].in_machine)) {
        park_while_stopped(d, this_vcpu);
    }
    errno = saved;
}

void emb_machine_begin(struct emb_domain *d, uint32_t vcpu)
{
    if (this_domain == d && this_vcpu == vcpu) {
        store(&d->core->vcpus[vcpu].in_machine, 1);
    }
}

void emb_machine_end(struct emb_domain *d, uint32_t vcpu)
{
    if (this_domain == d && this_vcpu == vcpu) {
        store(&d->core->vcpus[vcpu].in_machine, 0);
        park_while_stopped(d, vcpu);            /* I2 */
    }
}

static int attach(struct emb_machine *m, uint16_t domid, uint32_t vcpu, struct emb_domain **out)
{
    struct sigaction sa = { .sa_handler = on_stop, .sa_flags = SA_RESTART };
    emb_lock(m);
    struct emb_domain *d = *out = emb_domain_find(m, domid);
    int rc = d && d->core && !d->dying && vcpu < d->vcpu_count ? 0 : -ESRCH;
    rc = rc == 0 && d->core->vcpus[vcpu].tid ? -EEXIST : rc;
    rc = rc == 0 && d->core->host_pid != emb_pid() ? -EPERM : rc;
    if (rc == 0 && sigaction(STOP_SIGNAL, &sa, NULL) != 0) {
        rc = -errno;
    }
    if (rc == 0) {
        d->core->vcpus[vcpu].pid = emb_pid();
        d->core->vcpus[vcpu].tid = (int32_t)syscall(SYS_gettid);
        store(&d->core->vcpus[vcpu].in_machine, 1);     /* until it is ready to be left */
    }
    emb_unlock(m);
    return rc;
}

static void detach(struct emb_machine *m, struct emb_domain *d, uint32_t vcpu)
{
    this_domain = NULL;
    emb_lock(m);
    d->core->vcpus[vcpu].tid = 0;
    store(&d->core->vcpus[vcpu].parked, 0);
    if (d->core->orphan && !emb_core_has_threads(d)) {
        emb_core_free(m, d);
        d->used = false;
    }
    emb_unlock(m);
}

int emb_vcpu_run(struct emb_machine *m, uint16_t domid, uint32_t vcpu, void (*fn)(void *arg), void *arg)
{
    struct emb_domain *d;
    int rc = attach(m, domid, vcpu, &d);
    if (rc) {
        return rc;
    }
    this_vcpu = vcpu;
    this_domain = d;
    if (sigsetjmp(this_death, 1) == 0) {
        emb_machine_end(d, vcpu);       /* waits here until the vCPU is up and may run */
        fn(arg);
        rc = 0;
    } else {
        rc = -ESRCH;
    }
    detach(m, d, vcpu);
    return rc;
}

bool emb_core_has_threads(const struct emb_domain *d)
{
    for (uint32_t i = 0; i < d->vcpu_count; i++) {
        if (d->core->vcpus[i].tid) {
            return true;
        }
    }
    return false;
}

void emb_core_refresh(struct emb_machine *m, struct emb_domain *d)
{
    if (d->core && d->core->direct_stale && d->core->host_pid == emb_pid()) {
        emb_direct_sync(m, d);
        emb_runstate_sync(m, d);        /* areas that another process could not write */
        emb_vcpus_wake(d);
    }
}

void emb_core_step_with(struct emb_machine *m, uint16_t domid, emb_step_fn fn, void *arg)
{
    emb_lock(m);
    struct emb_domain *d = emb_domain_find(m, domid);
    if (d && d->core) {
        d->core->step = fn;
        d->core->step_arg = arg;
    }
    emb_unlock(m);
}

bool emb_core_wants_suspend(struct emb_machine *m, uint16_t domid)
{
    emb_lock(m);
    const struct emb_domain *d = emb_domain_find(m, domid);
    bool wants = d && d->core && d->core->wants_suspend;
    emb_unlock(m);
    return wants;
}

/* ---- from the outside ---------------------------------------------------- */

bool emb_vcpus_stopped(const struct emb_domain *d)
{
    for (uint32_t i = 0; d->core && i < d->vcpu_count; i++) {
        const struct emb_core_vcpu *v = &d->core->vcpus[i];
        bool self = this_domain == d && this_vcpu == i;
        if (v->tid && !self && !load(&v->parked) && syscall(SYS_tgkill, v->pid, v->tid, 0) == 0) {
            return false;
        }
    }
    return true;
}

void emb_vcpus_kick(struct emb_domain *d)
{
    for (uint32_t i = 0; d->core && i < d->vcpu_count; i++) {
        const struct emb_core_vcpu *v = &d->core->vcpus[i];
        if (v->tid && !load(&v->parked) && !(this_domain == d && this_vcpu == i)) {
            (void)syscall(SYS_tgkill, v->pid, v->tid, STOP_SIGNAL);
        }
    }
}

void emb_vcpus_wake(struct emb_domain *d)
{
    if (d->core) {
        __atomic_add_fetch(&d->core->run_seq, 1, __ATOMIC_SEQ_CST);
        futex_wake(&d->core->run_seq);
    }
}

static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

bool emb_core_wait(struct emb_machine *m, struct emb_domain *d, bool (*done)(const struct emb_domain *d), uint64_t timeout_ns)
{
    uint64_t end = now_ns() + timeout_ns;
    for (;;) {
        emb_lock(m);
        if (d->used && !d->dying) {
            emb_timers_run(m, d);
        }
        bool is = !d->used || d->dying || done(d);
        emb_step_fn step = d->core && d->core->host_pid == emb_pid() ? d->core->step : NULL;
        void *arg = step ? d->core->step_arg : NULL;
        emb_unlock(m);
        if (is) {
            return true;
        }
        if (now_ns() > end) {
            return false;
        }
        if (step) {
            step(arg);
        } else {
            (void)nanosleep(&(struct timespec){ .tv_nsec = 50000 }, NULL);
        }
    }
}
