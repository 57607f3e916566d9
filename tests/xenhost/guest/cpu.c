/*
 * Owns: the loads that hold processor state: an LDT entry in use, and the samplers that see time go missing.
 * Invariants:
 *   C1  a sampler runs at real-time priority, one on each vCPU: what delays it is the machine, not the guest's other tasks.
 *   C2  a gap is taken from CLOCK_BOOTTIME, which goes on over a suspend; CLOCK_MONOTONIC stands still there and is told besides.
 */
#define _GNU_SOURCE
#include "load.h"

#include <asm/ldt.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LDT_ENTRY 5u
#define LDT_SELECTOR (LDT_ENTRY << 3 | 7u) /* table: local, privilege: user */

static void ldt_point_to(void *page)
{
    struct user_desc entry;

    memset(&entry, 0, sizeof(entry));
    entry.entry_number = LDT_ENTRY;
    entry.base_addr = (unsigned int)(uintptr_t)page;
    entry.limit = PAGE_BYTES - 1;
    entry.seg_32bit = 1;
    entry.useable = 1;
    if (syscall(SYS_modify_ldt, 1, &entry, sizeof(entry)))
        give_up("modify_ldt");
}

/* pre: gs holds LDT_SELECTOR. The segment's base comes out of the LDT each time the kernel loads the selector for this process. */
static uint64_t ldt_read(size_t offset)
{
    uint64_t value;

    __asm__ volatile("movq %%gs:(%1), %0" : "=r"(value) : "r"(offset) : "memory");
    return value;
}

_Noreturn void run_ldt(uint64_t id, size_t pages)
{
    unsigned char *base = pages_map(2, MAP_PRIVATE | MAP_32BIT);
    uint32_t generation = 1;

    (void)pages;
    for (;; generation++) {
        unsigned char *page = base + (generation & 1) * PAGE_BYTES;
        uint64_t until = clock_boot_ns() + 3000000000u;

        pattern_fill(page, id, generation & 1, generation);
        ldt_point_to(page);
        __asm__ volatile("mov %0, %%gs" : : "r"(LDT_SELECTOR));
        while (clock_boot_ns() < until) {
            for (size_t offset = 0; offset < PAGE_BYTES; offset += sizeof(uint64_t)) {
                uint64_t got = ldt_read(offset), expected = *(volatile uint64_t *)(page + offset);

                if (got != expected) {
                    load.slot->wrong_bytes += sizeof(uint64_t);
                    if (load.slot->reported++ < 4)
                        say("WRONG kind=%d LDT offset=%zu expected=%016llx got=%016llx\n", load.slot->kind, offset,
                            (unsigned long long)expected, (unsigned long long)got);
                }
            }
            pattern_check(page, id, generation & 1, generation);
            /* Sleeping makes the kernel load the selector anew, from the LDT as it then is. Many such processes take turns instead: then
             * the one that a vCPU ran last, and whose LDT Xen keeps mapped while the guest stands still, is likely one of them. */
            if (load.ldt_workers > 1)
                sched_yield();
            else
                pause_us(5000);
        }
        load.slot->passes++;
    }
}

static void raise_to(uint64_t *maximum, uint64_t value)
{
    uint64_t seen = __atomic_load_n(maximum, __ATOMIC_RELAXED);

    while (seen < value && !__atomic_compare_exchange_n(maximum, &seen, value, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

_Noreturn void run_sampler(uint64_t cpu, size_t pages)
{
    struct gap *gap = &load.shared->gaps[cpu];
    struct sched_param priority = {.sched_priority = 50};
    uint64_t boot, mono, last_boot, last_mono;
    cpu_set_t set;

    (void)pages;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    /* musl's own functions refuse to set a process's scheduler. */
    if (sched_setaffinity(0, sizeof(set), &set) || syscall(SYS_sched_setscheduler, 0, SCHED_FIFO, &priority))
        give_up("sampler");
    last_boot = clock_boot_ns();
    last_mono = clock_mono_ns();
    for (;;) {
        pause_us(load.sample_us);
        boot = clock_boot_ns();
        mono = clock_mono_ns();
        raise_to(&gap->boot_ns, boot - last_boot);
        raise_to(&gap->mono_ns, mono - last_mono);
        last_boot = boot;
        last_mono = mono;
        load.slot->passes++;
    }
}
