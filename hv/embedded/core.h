/*
 * core.h - a PV domain whose kernel is code of this program.
 *
 * Owns: what a guest kernel's machine layer calls: boot state, hypercalls, user memory, running
 * and stopping of vCPUs.  Such a domain has no synthetic image: its memory is its own affair.
 *
 * Hypercalls take Xen's numbers and public structures; pointers in them are host pointers of
 * the calling process, and a bad one is -XEN_EFAULT, not a crash.
 * The direct map: pfn n of a domain is at emb_core_direct() + n * 4096, for ever.  It is what the
 * guest's own page tables say about those addresses: remapped when an entry there changes or
 * when the guest wakes from a suspend, read-only where the entry is, absent where there is none.
 * User addresses go through emb_vcpu_read/write and a software TLB for each vCPU, which goes stale.
 */
#ifndef FRAMESHIFT_EMB_CORE_API_H
#define FRAMESHIFT_EMB_CORE_API_H

#include "embedded.h"

struct emb_core_config {
    char name[64];
    uint64_t pages;
    uint32_t vcpus;
    uint32_t node;
    bool any_node;
};
/* What a builder leaves: vCPU 0 has an L4 that maps the direct map; pfns below first_free are in use. */
struct emb_core_boot {
    uint64_t start_info, p2m_first, p2m_pages, l4, tables_first, tables, first_free;    /* pfns and counts */
    uint64_t pages;
    uint8_t *direct;
};

int emb_core_create(struct emb_machine *m, const struct emb_core_config *c, uint16_t *domid);
int emb_core_boot(struct emb_machine *m, uint16_t domid, struct emb_core_boot *out);
uint8_t *emb_core_direct(struct emb_machine *m, uint16_t domid);
/* shared_info, as a guest has it in its fixmap: at one address for the domain's life (the frame never moves). */
struct shared_info;
struct shared_info *emb_core_shared(struct emb_machine *m, uint16_t domid);
/* The machine-to-phys table, which Xen shows read-only to every PV guest: FS_FRAME_NONE where it has no entry.  Takes no lock. */
uint64_t emb_core_m2p(const struct emb_machine *m, uint64_t mfn);
/* Instead of xenstore's data/frameshift: one value for each key.  -EINVAL too long, -ENOSPC. */
int emb_core_publish(struct emb_machine *m, uint16_t domid, const char *key, const char *value);
/* Nothing of the direct map stays mapped in this process.  Call it before the domain is destroyed. */
void emb_core_unmap(struct emb_machine *m, uint16_t domid);

/* nr: __HYPERVISOR_*.  Made by vCPU vcpu; one call at a time for each. */
long emb_hypercall(struct emb_machine *m, uint16_t domid, uint32_t vcpu, unsigned nr, const uint64_t args[5]);

/* User (or kernel) virtual memory as that vCPU sees it now, stale TLB entries included. -EFAULT: *fault is the address. */
int emb_vcpu_read(struct emb_machine *m, uint16_t domid, uint32_t vcpu, bool user, uint64_t va, void *buf, size_t bytes, uint64_t *fault);
int emb_vcpu_write(struct emb_machine *m, uint16_t domid, uint32_t vcpu, bool user, uint64_t va, const void *buf, size_t bytes, uint64_t *fault);

/* ---- running ---- */
/* This thread is that vCPU while fn runs.  The machine stops it (SIGUSR2) whenever the domain is paused or suspended or
 * the vCPU is down.  0 when fn returned; -ESRCH when the domain died: fn was left wherever it was. */
int emb_vcpu_run(struct emb_machine *m, uint16_t domid, uint32_t vcpu, void (*fn)(void *arg), void *arg);
/* Deterministic mode: one thread.  fn runs the guest for a step; the machine calls it where it waits for the guest. */
typedef void (*emb_step_fn)(void *arg);
void emb_core_step_with(struct emb_machine *m, uint16_t domid, emb_step_fn fn, void *arg);
/* True where the toolstack asked the guest to suspend: it then calls SCHEDOP_shutdown, which returns 1 after a cancelled suspend. */
bool emb_core_wants_suspend(struct emb_machine *m, uint16_t domid);

/* ---- a kernel as the drill runs it (hv/embedded/rig.c): hv/ knows no kernel, so who has one passes this ---- */
struct emb_kernel_config {
    char name[64];
    uint64_t pages, seed;
    uint32_t vcpus, node;
    bool any_node;
    bool devices;                                           /* tasks whose buffers a device has: their frames stay */
};
struct emb_kernel_ops {
    uint64_t least_pages;                                   /* a smaller domain cannot boot it */
    int (*create)(struct emb_machine *m, const struct emb_kernel_config *c, void **kernel);     /* 0 or -errno */
    void (*destroy)(void *kernel);                          /* its domain too */
    uint16_t (*domid)(const void *kernel);
    /* Deterministic: so many steps.  Threaded: 0 or -errno; after stop() every thread has left its loop. */
    void (*step)(void *kernel, uint64_t steps);
    int (*start)(void *kernel);
    int (*stop)(void *kernel);
    uint64_t (*writes)(const void *kernel);                 /* pages that its tasks wrote, so far.  pre: no thread runs */
    /* Its own checks, and every byte that its tasks own. Faults; *pages compared.  pre: no thread runs */
    uint64_t (*check)(void *kernel, FILE *out, uint64_t *pages);
    /* From watch() on: has, or had, a device of the guest this pfn's frame at any time?  Such a frame may stay.  pre: no thread runs */
    void (*watch)(void *kernel);
    bool (*device_has)(const void *kernel, uint64_t pfn);
};

/* ---- time ---- */
/* System time, as Xen's NOW(): the host's monotonic clock, or the machine's virtual one. */
uint64_t emb_core_time_ns(struct emb_machine *m);
/* A virtual clock goes on by so much; nothing where the clock is real. */
void emb_core_advance(struct emb_machine *m, uint64_t ns);
/* There are no interrupts: due timers post their event when the domain makes a hypercall, while a vCPU of it is blocked or waited
 * for, and here.  A kernel that polls for events calls it where it polls. */
void emb_core_tick(struct emb_machine *m, uint16_t domid);

#endif
