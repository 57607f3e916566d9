/*
 * stop_hosted.c - stopping the machine where CPUs are threads.
 *
 * Owns: which CPUs run, and the request to stop.
 * Invariants:
 *   I1  fn runs only while every other CPU is outside or waits in arch_hosted_safepoint().
 *   I2  a CPU that comes back looks at the request after it has said that it runs, and the stopper looks at the CPUs after it
 *       has asked: both in one total order, so one of them sees the other.
 * Lock order: one stopper at a time; it may hold whatever it likes, for fn takes no lock.
 * Why: a thread cannot be stopped between any two instructions without signals, which the thread sanitizer delays.  A CPU
 *   stands still at the next arch call that it makes (every wait makes one), which is what the contract asks for.
 * Cost: one load in such an arch call.
 */
#include "arch_hosted.h"
#include "hosted_priv.h"
#include "frameshift/assert.h"
#include <stdatomic.h>
#include <stdbool.h>

enum cpu_state { CPU_OUTSIDE, CPU_RUNS, CPU_STOPPED };

static _Atomic unsigned cpu_states[ARCH_CPUS_MAX];
static _Atomic bool stop_wanted, stop_taken;
static _Thread_local bool is_cpu, stopping;

void arch_hosted_safepoint(void)
{
    unsigned cpu = arch_cpu_id();

    if (!is_cpu || stopping) {
        return;
    }
    while (atomic_load(&stop_wanted)) {                         /* I2 */
        atomic_store(&cpu_states[cpu], CPU_STOPPED);
        while (atomic_load(&stop_wanted)) {
            hosted_pause();
        }
        atomic_store(&cpu_states[cpu], CPU_RUNS);
    }
}

void arch_hosted_cpu_online(unsigned cpu)
{
    arch_hosted_set_cpu(cpu);
    ASSERT_CMP(atomic_load(&cpu_states[cpu]), ==, CPU_OUTSIDE);
    is_cpu = true;
    atomic_store(&cpu_states[cpu], CPU_RUNS);
    arch_hosted_safepoint();
}

void arch_hosted_cpu_offline(void)
{
    ASSERT(is_cpu);
    is_cpu = false;
    atomic_store(&cpu_states[arch_cpu_id()], CPU_OUTSIDE);
}

void arch_stop_machine(void (*fn)(void *arg), void *arg)
{
    unsigned self = is_cpu ? arch_cpu_id() : ARCH_CPUS_MAX;

    ASSERT(!stopping);
    while (atomic_exchange(&stop_taken, true)) {
        arch_hosted_safepoint();
        hosted_pause();
    }
    stopping = true;
    atomic_store(&stop_wanted, true);
    for (unsigned cpu = 0; cpu < ARCH_CPUS_MAX; cpu++) {
        while (cpu != self && atomic_load(&cpu_states[cpu]) == CPU_RUNS) {
            hosted_pause();
        }
    }
    fn(arg);
    atomic_store(&stop_wanted, false);
    stopping = false;
    atomic_store(&stop_taken, false);
}
