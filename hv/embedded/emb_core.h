/*
 * emb_core.h - the inside of core domains (private to hv/embedded/).
 *
 * Owns: struct emb_core, with the grant table and the runstates.  It lies in the arena; host mappings of the direct map belong to
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
#define EMB_PARK_OFFSET   (4ull << 30)          /* of the parking place, from the direct map: for domains and machines that leave room for it */

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

struct emb_runstate {                   /* vcpu_runstate_info, as of its last change */
    int state;                          /* RUNSTATE_* */
    uint64_t since_ns, time_ns[4];
};

struct emb_core_vcpu {
    int32_t pid, tid;                   /* the thread that is it; 0 none */
    uint32_t parked;                    /* futex word: 1 while it cannot touch memory */
    uint32_t in_machine;                /* set while its thread is inside a call of the machine */
    bool blocked;
    struct emb_runstate runstate;
    uint64_t runstate_at;               /* registered area: an address of the direct map; 0 none */
    bool runstate_due;                  /* it runs again, and the area does not say so yet */
    uint64_t singleshot_ns, periodic_ns, period_ns;     /* system time of the next event; 0 off */
    uint64_t info_mfn;                  /* registered vcpu_info; 0: shared_info's */
    uint32_t info_offset;
    uint32_t tlb_seq;                   /* bumped by a flush from anywhere */
    struct emb_tlb_entry tlb[EMB_TLB_ENTRIES];
};

#define EMB_KEYS 8u
struct emb_key {                        /* what a guest would write into xenstore; zero-terminated, hostile */
    char key[24], value[40];
};

/* ---- grants: gnttab.c ---- */
#define EMB_GNT_FRAMES_MAX 4u           /* Xen's gnttab_max_frames, which is 64 by default */
#define EMB_GNT_FRAME_REFS 512u         /* 8-byte entries: version 1 */
#define EMB_GNT_REFS (EMB_GNT_FRAMES_MAX * EMB_GNT_FRAME_REFS)
#define EMB_MAPTRACK_MAX 1024u
#define EMB_PIN_MAX 128u                /* of one kind on one reference: Xen's counters have 8 bits */
enum emb_pin { EMB_PIN_HSTR, EMB_PIN_HSTW, EMB_PIN_DEVR, EMB_PIN_DEVW, EMB_PIN_KINDS };
struct emb_active {                     /* a reference in use: what it led to when the first user took it */
    uint64_t mfn;
    uint16_t domid;
    uint8_t pin[EMB_PIN_KINDS];
};
struct emb_maptrack {                   /* by handle, of the mapper */
    uint16_t domid;                     /* granter */
    uint32_t ref;
    uint32_t flags;                     /* GNTMAP_*; without host_map and device_map: free */
};
struct emb_gnttab {
    bool maps;                          /* it has mapped a grant at some time */
    uint32_t frames;
    uint64_t shared[EMB_GNT_FRAMES_MAX];        /* mfns of the Xen heap, shared with the domain */
    struct emb_active active[EMB_GNT_REFS];
    struct emb_maptrack maptrack[EMB_MAPTRACK_MAX];
};

struct emb_core {
    int32_t host_pid;
    struct emb_key keys[EMB_KEYS];
    struct emb_core_boot boot;
    uint32_t *mapped;                   /* by pfn: mfn + 1, bit 31 writable: what the direct map shows now */
    uint64_t *direct_l1;                /* L1 frame that serves each 512 pfns */
    uint8_t *parked;                    /* by 512 frames: they are shown in the parking place; NULL: there is no such place */
    uint64_t park_extents;
    bool direct_stale;                  /* another process changed tables: nothing runs before emb_machine_reap() or a call here resyncs */
    bool orphan;                        /* the domain has no frame left; the last vCPU thread to leave ends it */
    bool wants_suspend;
    uint32_t run_seq;                   /* futex word: changes whenever a vCPU may run again */
    emb_step_fn step;
    void *step_arg;
    struct emb_port ports[EMB_PORTS];
    struct emb_gnttab gnttab;
    struct emb_core_vcpu vcpus[EMB_VCPUS_MAX];
};

/* core_build.c */
void emb_core_free(struct emb_machine *m, struct emb_domain *d);
/* direct.c; the lock is held */
void emb_direct_sync(struct emb_machine *m, struct emb_domain *d);
/* An entry of an L2, L3 or L4 changed: what it covers of the map is made true. */
void emb_direct_upper(struct emb_machine *m, struct emb_domain *d, unsigned level, uint64_t table_mfn, uint32_t index);
/* Does the direct map show all of [from, from + bytes) in this process? The machine's lock keeps it so. */
bool emb_direct_shows(const struct emb_core *core, uint64_t from, size_t bytes);
/* Pages whose entries changed in one call: noted first, then shown together, for adjacent frames are one host mapping. */
#define EMB_TOUCHED_MAX 512u
#define EMB_CLEARED_MAX 16u
struct emb_touched {
    uint32_t count, cleared;
    uint64_t pfn[EMB_TOUCHED_MAX];
    struct { uint64_t first, end; } run[EMB_CLEARED_MAX];   /* entries of whole runs that became nothing */
};
void emb_direct_note(struct emb_machine *m, struct emb_domain *d, uint64_t table_mfn, uint32_t index, uint32_t count, struct emb_touched *t);
/* The same for entries that are 0 now: adjacent runs become one. */
void emb_direct_cleared(struct emb_machine *m, struct emb_domain *d, uint64_t table_mfn, uint32_t index, uint32_t count, struct emb_touched *t);
/* Make the parking place, where there is room for it. False: no memory. */
bool emb_direct_parking(struct emb_machine *m, struct emb_core *core);
/* The direct map is none of this process's any more, or ends. */
void emb_direct_unmap(struct emb_core *core, bool end);
void emb_direct_show(struct emb_machine *m, struct emb_domain *d, struct emb_touched *t);
/* Whether the host could show `more` pages of core domains elsewhere, each by itself; *limit is how many pieces it can map. */
bool emb_direct_room(const struct emb_machine *m, uint64_t more, uint64_t *limit);
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
struct vcpu_info;
struct emb_hcall {
    struct emb_machine *m;
    struct emb_domain *d;
    uint32_t vcpu;
    const uint64_t *a;                  /* five arguments */
};
int emb_from_guest(void *to, uint64_t from, size_t bytes) FS_MUST_CHECK;
/* The same for a list that may lie in the caller's direct map, where no system call is needed. */
int emb_list_from_guest(const struct emb_hcall *h, void *to, uint64_t from, size_t bytes) FS_MUST_CHECK;
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
long emb_hc_grant(struct emb_hcall *h);
/* hc_mmu.c: the L1 frame that serves va under that root; 0 none. */
uint64_t emb_l1_of(struct emb_machine *m, uint64_t root, uint64_t va);
struct vcpu_info *emb_vcpu_info(struct emb_machine *m, const struct emb_domain *d, uint32_t vcpu);
/* Any reason but suspend: it goes no further, and the toolstack sees why. */
void emb_shutdown(struct emb_hcall *h, uint32_t reason);
void emb_port_raise(struct emb_machine *m, struct emb_domain *d, uint32_t port);
void emb_virq_raise(struct emb_machine *m, struct emb_domain *d, uint32_t virq, uint32_t vcpu);

/* runstate.c; the lock is held */
uint64_t emb_now(const struct emb_machine *m);          /* system time */
void emb_runstate_start(const struct emb_machine *m, struct emb_domain *d);
/* Whatever changed what a vCPU of d does calls it: the time until now is booked, areas are written. */
void emb_runstate_sync(const struct emb_machine *m, struct emb_domain *d);
void emb_timers_run(struct emb_machine *m, struct emb_domain *d);

/* gnttab.c; the lock is held.  Results are GNTST_* where they are int16_t. */
int emb_gnttab_grow(struct emb_machine *m, struct emb_domain *d, uint32_t frames);
/* Entry of a reference in the shared table: 0, GNTST_bad_gntref, or GNTST_general_error where nothing can have been granted. */
int16_t emb_gnt_find(struct emb_machine *m, struct emb_domain *granter, uint32_t ref, uint32_t **entry, struct emb_active **act);
/* A use more of it by domain `by`: checks, marks reading/writing, finds the frame.  Takes no reference on the frame. */
int16_t emb_gnt_pin(struct emb_machine *m, struct emb_domain *granter, uint32_t ref, uint16_t by, uint32_t kinds, bool mapping);
void emb_gnt_unpin(struct emb_machine *m, struct emb_domain *granter, uint32_t ref, uint32_t kinds);
uint32_t emb_gnt_kinds(uint32_t flags);                  /* of GNTMAP_*: bits 1 << EMB_PIN_* */
bool emb_gnt_in_use(const struct emb_active *a);
uint64_t emb_gnt_frame(const uint32_t *entry);          /* as the guest has it now */
/* Does the entry permit access, as the guest has it now? *mfn: its word, any number; *flags: GTF_*. pre: a core domain's, ref is within its table */
bool emb_gnt_offers(struct emb_machine *m, struct emb_domain *granter, uint32_t ref, uint64_t *mfn, uint32_t *flags);
/* The domain dies: what it mapped of others. */
void emb_gnttab_release(struct emb_machine *m, struct emb_domain *d);

#endif
