/*
 * time.c - nanoseconds since boot, as Xen tells them in shared_info.
 *
 * Owns: arch_time_ns(), time_system_ns().
 * Invariants:
 *   I1  arch_time_ns() never goes back: Xen writes a new base now and then, and two bases can disagree by a little; the host that a
 *       restored domain wakes up on may have booted later.
 *   I2  only time_system_ns() is what Xen means where it wants a time.
 * Lock order: none (one vCPU).
 * Why: the record of vcpu 0 says system time at a TSC value and the TSC's speed; no hypercall, no timer interrupt.
 *   An odd version means that Xen is writing the record.
 * Cost: one rdtsc and one multiplication.
 */
#include "kernel.h"

static uint64_t last_ns, offset_ns;

static uint64_t read_tsc(void)
{
    uint32_t low, high;

    __asm__ volatile("lfence\n\trdtsc" : "=a"(low), "=d"(high) : : "memory");
    return (uint64_t)high << 32 | low;
}

uint64_t time_system_ns(void)
{
    const volatile struct vcpu_time_info *t = &shared_info->vcpu_info[0].time;
    uint64_t base, ticks;
    uint32_t version, multiplier;
    int shift;

    do {
        version = t->version;
        __asm__ volatile("" ::: "memory");
        base = t->system_time;
        ticks = read_tsc() - t->tsc_timestamp;
        multiplier = t->tsc_to_system_mul;
        shift = t->tsc_shift;
        __asm__ volatile("" ::: "memory");
    } while ((version & 1) != 0 || version != t->version);
    ticks = shift >= 0 ? ticks << shift : ticks >> -shift;
    return base + (uint64_t)(((unsigned __int128)ticks * multiplier) >> 32);
}

uint64_t arch_time_ns(void)
{
    uint64_t now;

    if (shared_info == NULL) {
        return 0;
    }
    now = time_system_ns() + offset_ns;
    if (now > last_ns) {                                    /* I1 */
        last_ns = now;
    }
    return last_ns;
}

void time_again(void)
{
    uint64_t system = time_system_ns();

    if (system + offset_ns < last_ns) {
        offset_ns = last_ns - system;
    }
}
