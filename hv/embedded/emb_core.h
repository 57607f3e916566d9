/*
 * emb_core.h - the inside of core domains (private to hv/embedded/).
 *
 * Owns: struct emb_core.  It lies in the arena; host mappings of the direct map belong to
 * the one process that runs the guest (host_pid).
 */
#ifndef FRAMESHIFT_EMB_CORE_H
#define FRAMESHIFT_EMB_CORE_H

#include "core.h"
#include "emb_priv.h"

#define EMB_PORTS 128u
#define EMB_TLB_ENTRIES 256u
#define EMB_DIRECT_BASE   0x7e8000000000ull     /* where neither the loader nor the sanitizers put anything */
#define EMB_DIRECT_STRIDE (8ull << 30)          /* of one domain slot */

struct emb_port {
    uint8_t state;                      /* EVTCHNSTAT_* */
    uint8_t vcpu;
    uint16_t remote_domid;
    uint32_t remote_port;               /* interdomain; virq number for a virq */
};

struct emb_tlb_entry {
    uint64_t va1;                       /* page number + 1; bit 63 user root */
    uint64_t mfn;
    uint64_t epoch;
    uint32_t seq;
    bool write, dirty, user;
};

struct emb_core_vcpu {
    int32_t pid, tid;                   /* the thread that is it; 0 none */
    uint32_t parked;                    /* futex word: 1 while it cannot touch memory */
    uint32_t in_machine;                /* set while its thread is inside a call of the machine */
    bool blocked;
    uint64_t info_mfn;                  /* registered vcpu_info; 0: shared_info's */
    uint32_t info_offset;
    uint32_t tlb_seq;                   /* bumped by a flush from anywhere */
    struct emb_tlb_entry tlb[EMB_TLB_ENTRIES];
};

#define EMB_KEYS 8u
struct emb_key {                        /* what a guest would write into xenstore; zero-terminated, hostile */
    char key[24], value[40];
};

struct emb_core {
    int32_t host_pid;
    struct emb_key keys[EMB_KEYS];
    struct emb_core_boot boot;
    uint32_t *mapped;                   /* by pfn: mfn + 1, bit 31 writable: what the direct map shows now */
    uint64_t *direct_l1;                /* L1 frame that serves each 512 pfns */
    bool direct_stale;                  /* another process changed tables: nothing runs before emb_machine_reap() or a call here resyncs */
    bool orphan;                        /* the domain has no frame left; the last vCPU thread to leave ends it */
    bool wants_suspend;
    uint32_t run_seq;                   /* futex word: changes whenever a vCPU may run again */
    emb_step_fn step;
    void *step_arg;
    struct emb_port ports[EMB_PORTS];
    struct emb_core_vcpu vcpus[EMB_VCPUS_MAX];
};

/* core_build.c */
void emb_core_free(struct emb_machine *m, struct emb_domain *d);
/* direct.c; the lock is held */
void emb_direct_sync(struct emb_machine *m, struct emb_domain *d);
/* An entry of an L2, L3 or L4 changed: what it covers of the map is made true. */
void emb_direct_upper(struct emb_machine *m, struct emb_domain *d, unsigned level, uint64_t table_mfn, uint32_t index);
/* Pages whose entries changed in one call: noted first, then shown together, for adjacent frames are one host mapping. */
#define EMB_TOUCHED_MAX 256u
struct emb_touched { uint32_t count; uint64_t pfn[EMB_TOUCHED_MAX]; };
void emb_direct_note(struct emb_machine *m, struct emb_domain *d, uint64_t table_mfn, uint32_t index, struct emb_touched *t);
void emb_direct_show(struct emb_machine *m, struct emb_domain *d, struct emb_touched *t);
void emb_direct_touch(struct emb_machine *m, struct emb_domain *d, uint64_t table_mfn, uint32_t index);
/* tlb.c; the lock is held */
void emb_tlb_flush(struct emb_domain *d, uint64_t vcpu_mask);
void emb_tlb_invlpg(struct emb_domain *d, uint64_t vcpu_mask, uint64_t va);
/* core_run.c */
bool emb_core_has_threads(const struct emb_domain *d);
void emb_core_refresh(struct emb_machine *m, struct emb_domain *d);     /* the lock is held */
bool emb_vcpu_must_stop(const struct emb_domain *d, uint32_t vcpu);
void emb_vcpus_kick(struct emb_domain *d);              /* the lock is held */
bool emb_vcpus_stopped(const struct emb_domain *d);
void emb_vcpus_wake(struct emb_domain *d);
/* Wait, lock free, until done(d) or time; false: time is over.  Runs the step function where there is one. */
bool emb_core_wait(struct emb_machine *m, struct emb_domain *d, bool (*done)(const struct emb_domain *d), uint64_t timeout_ns);
void emb_machine_begin(struct emb_domain *d, uint32_t vcpu);
void emb_machine_end(struct emb_domain *d, uint32_t vcpu);

/* hypercall.c */
struct emb_hcall {
    struct emb_machine *m;
    struct emb_domain *d;
    uint32_t vcpu;
    const uint64_t *a;                  /* five arguments */
};
int emb_from_guest(void *to, uint64_t from, size_t bytes) FS_MUST_CHECK;
int emb_to_guest(uint64_t to, const void *from, size_t bytes) FS_MUST_CHECK;
/* 0 where domid means the caller, else the number that Xen gives an unprivileged domain. */
int emb_self_only(const struct emb_hcall *h, uint16_t domid);
long emb_hc_memory(struct emb_hcall *h);
long emb_hc_mmu_update(struct emb_hcall *h);
long emb_hc_mmuext(struct emb_hcall *h);
long emb_hc_update_va(struct emb_hcall *h);
long emb_hc_set_gdt(struct emb_hcall *h);
long emb_hc_sched(struct emb_hcall *h);
long emb_hc_vcpu(struct emb_hcall *h);
long emb_hc_event(struct emb_hcall *h);
void emb_port_raise(struct emb_machine *m, struct emb_domain *d, uint32_t port);

#endif
