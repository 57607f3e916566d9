/*
 * cpu.c - CPUs of a guest in a process: who this thread is, stopping the machine, suspending it.
 *
 * Owns: guest_cpu.state, guest_cpu.roots_seen, machine.stop_*.
 * Invariants:
 *   I1  fn runs only while every other CPU is outside or waits in guest_safepoint().
 *   I2  a CPU that comes back looks at the request after it has said that it runs, and the stopper looks at the CPUs after it
 *       has asked: both in one total order, so one of them sees the other.
 *   I3  when a stop in which a root moved is over, no vCPU has the old root loaded: CPUs that stood still load theirs before
 *       they go on, and the stopper waits for that; for itself and for CPUs without a thread it does so itself.
 *   I4  no CPU stands still between arch_pte_make() and arch_pte_write(): neither has a safepoint, so no entry with a frame
 *       from before a stop is written after it.
 * Lock order: stop_taken is taken with other locks held or none; fn takes no lock.
 * Why: as guest/arch/hosted/stop_hosted.c: threads stop where they call, not where a signal finds them.
 * Cost: one load in such an arch call.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <stdint.h>
#include <xen/xen.h>
#include <xen/sched.h>
#include <xen/vcpu.h>

#include "frameshift/assert.h"
#include "machine.h"

#define SPINS 64u                       /* before a waiting thread lets others run */

static _Thread_local struct guest_cpu *this_cpu;

struct guest_cpu *guest_this_cpu(void)
{
    ASSERT(this_cpu != NULL);
    return this_cpu;
}

unsigned arch_cpu_id(void)
{
    return this_cpu != NULL ? this_cpu->id : 0;
}

static void pause_cpu(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

/* Whom we wait for may need this processor: there can be more CPUs than the host has. */
static void wait_turn(unsigned *spins)
{
    if (++*spins % SPINS == 0) {
#if defined(__SANITIZE_THREAD__)        /* it delivers signals, by which a domain is paused, in calls that it knows */
        (void)nanosleep(&(struct timespec){ .tv_nsec = 1 }, NULL);
#else
        (void)sched_yield();
#endif
    } else {
        pause_cpu();
    }
}

void arch_cpu_relax(void)
{
    static _Thread_local unsigned spins;

    wait_turn(&spins);
    guest_safepoint();
}

uint64_t arch_time_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void arch_console_write(const char *text, size_t bytes)
{
    struct guest_cpu *c = guest_this_cpu();

    (void)guest_hypercall(c->machine, c->id, __HYPERVISOR_console_io, CONSOLEIO_write, bytes, (uint64_t)(uintptr_t)text, 0);
}

/* Until the stop is over. Asleep: a host processor that runs this thread would be interrupted for each page of the direct map that is switched.
 * The thread sanitizer delivers signals, by which a domain is paused, in no system call that it does not know: there it polls. */
static void stand_still(struct guest_machine *g)
{
    unsigned spins = 0;

    while (atomic_load(&g->stop_wanted) != 0) {
#if defined(__SANITIZE_THREAD__)
        wait_turn(&spins);
#else
        (void)spins;
        (void)syscall(SYS_futex, &g->stop_wanted, FUTEX_WAIT_PRIVATE, 1u, NULL, NULL, 0);
#endif
    }
}

void guest_safepoint(void)
{
    struct guest_cpu *c = this_cpu;

    if (c == NULL || atomic_load_explicit(&c->state, memory_order_relaxed) != GUEST_CPU_RUNS ||
        atomic_load_explicit(&c->machine->stopper, memory_order_relaxed) == c) {
        return;
    }
    while (atomic_load(&c->machine->stop_wanted)) {                         /* I2 */
        atomic_store(&c->state, GUEST_CPU_STOPPED);
        stand_still(c->machine);
        if (atomic_load(&c->roots_seen) != atomic_load(&c->machine->roots_moved)) {
            guest_load_roots(c->machine, c);                                /* I3 */
        }
        atomic_store(&c->state, GUEST_CPU_RUNS);
    }
}

void guest_cpu_become(struct guest_cpu *cpu)
{
    this_cpu = cpu;
}

void guest_cpu_online(struct guest_cpu *cpu)
{
    ASSERT_CMP(atomic_load(&cpu->state), ==, GUEST_CPU_OUTSIDE);
    this_cpu = cpu;
    atomic_store(&cpu->state, GUEST_CPU_RUNS);
    guest_safepoint();
}

void guest_cpu_offline(void)
{
    struct guest_cpu *c = guest_this_cpu();

    (void)arch_space_enter(PFN_NONE);
    this_cpu = NULL;
    atomic_store(&c->state, GUEST_CPU_OUTSIDE);
}

/* ---- stopping ---- */

static void stop_begin(struct guest_machine *g, const struct guest_cpu *self)
{
    unsigned spins = 0;

    while (atomic_exchange(&g->stop_taken, true)) {
        guest_safepoint();
        wait_turn(&spins);
    }
    atomic_store(&g->stopper, (struct guest_cpu *)(uintptr_t)self);
    atomic_store(&g->stop_wanted, 1);
    for (unsigned i = 0; i < g->cpus; i++) {
        while (&g->cpu[i] != self && atomic_load(&g->cpu[i].state) == GUEST_CPU_RUNS) {
            wait_turn(&spins);
        }
    }
}

static void stop_end(struct guest_machine *g, const struct guest_cpu *self)
{
    uint64_t moved = atomic_load(&g->roots_moved);
    bool waits[GUEST_CPUS_MAX] = { false };
    unsigned spins = 0;

    for (unsigned i = 0; i < g->cpus; i++) {                                /* I3 */
        bool stale = g->cpu[i].up && atomic_load(&g->cpu[i].roots_seen) != moved;

        waits[i] = stale && &g->cpu[i] != self && atomic_load(&g->cpu[i].state) == GUEST_CPU_STOPPED;
        if (stale && !waits[i]) {
            guest_load_roots(g, &g->cpu[i]);
        }
    }
    atomic_store(&g->stopper, NULL);
    atomic_store(&g->stop_wanted, 0);
    (void)syscall(SYS_futex, &g->stop_wanted, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
    for (unsigned i = 0; i < g->cpus; i++) {
        while (waits[i] && atomic_load(&g->cpu[i].roots_seen) != moved) {
            wait_turn(&spins);
        }
    }
    atomic_store(&g->stop_taken, false);
}

void arch_stop_machine(void (*fn)(void *arg), void *arg)
{
    struct guest_cpu *self = guest_this_cpu();

    ASSERT(atomic_load(&self->machine->stopper) != self);
    stop_begin(self->machine, self);
    fn(arg);
    stop_end(self->machine, self);
}

/* ---- suspend ---- */

static bool change_others(struct guest_machine *g, const struct guest_cpu *self, unsigned op)
{
    for (unsigned i = 0; i < g->cpus; i++) {
        if (&g->cpu[i] != self && g->cpu[i].up && guest_hypercall(g, self->id, __HYPERVISOR_vcpu_op, op, i, 0, 0) != 0) {
            return false;
        }
    }
    return true;
}

int guest_suspend(struct guest_machine *g)
{
    struct guest_cpu *self = guest_this_cpu();
    struct sched_shutdown s = { .reason = SHUTDOWN_suspend };
    long rc = -EBUSY;

    ASSERT_CMP(self->id, ==, 0);
    stop_begin(g, self);                    /* nobody holds a frame number: their entries may change while we are away */
    if (change_others(g, self, VCPUOP_down)) {
        rc = guest_hypercall(g, self->id, __HYPERVISOR_sched_op, SCHEDOP_shutdown, (uint64_t)(uintptr_t)&s, 0, 0);
    }
    for (unsigned i = 0; i < GUEST_RETRIES && !change_others(g, self, VCPUOP_up); i++) {
    }
    stop_end(g, self);
    return rc < 0 ? (int)rc : 0;
}
