/*
 * machine.h - arch.h for a paravirtual guest that runs inside a process.
 *
 * Owns: struct guest_machine, the root of one guest's machine layer, and its CPUs.  A thread is a CPU of one guest while it
 * says so; several guests can live in one process, for nothing here is global but that "this CPU".
 *
 * Every arch.h function works on the machine of the calling thread's CPU.
 */
#ifndef GUEST_ARCH_EMBEDDED_MACHINE_H
#define GUEST_ARCH_EMBEDDED_MACHINE_H

#include <stdatomic.h>
#include "../arch.h"
#include "frameshift/compiler.h"
#include "host.h"
#include "../../lib/spinlock.h"

#define GUEST_CPUS_MAX 16u

struct guest_machine;
enum guest_cpu_state { GUEST_CPU_OUTSIDE, GUEST_CPU_RUNS, GUEST_CPU_STOPPED };

struct guest_cpu {
    FS_ALIGNED(64) struct guest_machine *machine;
    unsigned id;
    _Atomic uint32_t state;             /* enum guest_cpu_state: of the thread that is this CPU */
    _Atomic uint64_t roots_seen;        /* machine.roots_moved when this CPU last loaded its roots */
    _Atomic uint8_t space_lock;         /* user_root, and the load of it */
    pfn_t user_root;
    bool up;                            /* the vCPU is initialised */
};

struct guest_machine {
    struct guest_host host;
    uint8_t *direct;                    /* pfn n is at direct + n * FS_PAGE_BYTES */
    uint64_t pages;
    _Atomic uint64_t *p2m;              /* in the direct map; entries: machine frames, UINT64_MAX none */
    uint64_t p2m_first, p2m_pages, p2m_va;
    uint64_t start_info, l4, tables_first, tables;
    uint64_t boot_next;                 /* bytes of the direct map that boot memory has used */
    bool boot_over;
    void *update_list;                  /* balloon.c: boot memory, where the machine reads it without asking the host */
    struct spinlock update_lock;
    uint64_t machine_extents;           /* balloon.c: 2 MiB extents of the machine that were given back in one piece */
    unsigned cpus;
    struct guest_cpu cpu[GUEST_CPUS_MAX];
    _Atomic bool stop_taken;
    _Atomic uint32_t stop_wanted;       /* 1: CPUs stand still; a futex */
    struct guest_cpu *_Atomic stopper;  /* NULL: nobody */
    _Atomic uint64_t roots_moved;       /* how often a root changed its frame */
};

/* start_info: its address in the direct map. cpus: how many vCPUs the domain has. 0 or -errno. Brings up secondary vCPUs. */
int guest_machine_init(struct guest_machine *g, const struct guest_host *host, uint8_t *direct, const void *start_info, unsigned cpus);
/* Zeroed boot memory, never freed; NULL: none left. ctx: struct guest_machine. For struct mm_config. */
void *guest_boot_alloc(void *ctx, size_t bytes, size_t align);
/* Boot memory ends here: the first pfn that is free. Nothing can be taken afterwards. */
pfn_t guest_boot_done(struct guest_machine *g);

/* The calling thread acts as that CPU from now on; NULL: none.  For a machine of one thread. */
void guest_cpu_become(struct guest_cpu *cpu);
/* The same for a thread that is the only one to be this CPU, and that arch_stop_machine() waits for. */
void guest_cpu_online(struct guest_cpu *cpu);
void guest_cpu_offline(void);
/* This thread's CPU stands still here while another has stopped the machine. */
void guest_safepoint(void);

/* Suspend when asked to: stop every other CPU, make the call, go on. pre: this thread's CPU is 0. 0, or -errno: not suspended. */
int guest_suspend(struct guest_machine *g);

/* ---- among the files here ---- */
struct guest_cpu *guest_this_cpu(void);
long guest_hypercall(struct guest_machine *g, unsigned cpu, unsigned nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d);
int guest_mmuext(struct guest_machine *g, unsigned cpu, unsigned cmd, uint64_t arg1, uint64_t arg2);
/* That vCPU loads its kernel and user root as p2m says now; tries again until the machine does it. */
void guest_load_roots(struct guest_machine *g, struct guest_cpu *cpu);
/* The slot of the table of that level on the way to a kernel address; false: none. */
bool guest_walk(struct guest_machine *g, uint64_t va, unsigned level, pfn_t *table, uint32_t *slot);
static inline uint64_t *guest_table(const struct guest_machine *g, pfn_t table)
{
    return (uint64_t *)(void *)(g->direct + table.n * FS_PAGE_BYTES);
}
#define GUEST_RETRIES 32u               /* of a call that cannot fail but by an injected fault */

#endif
