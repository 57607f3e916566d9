/*
 * hv.h - the hypervisor side's whole public face; the only header that tools/ sees.
 *
 * Owns: open/close of a machine, topology, status, plan, evacuate, online, fsck,
 * recover, drill, and the report that each of them fills.
 * Ownership: every struct that a call fills is freed by its _free function, which
 * accepts a zeroed struct.  Locking: one thread per struct hv.
 * Errors: fs_status_t, with words in struct fs_error (what, why, what to do).
 */
#ifndef FRAMESHIFT_HV_H
#define FRAMESHIFT_HV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "frameshift/compiler.h"
#include "frameshift/frame.h"
#include "frameshift/status.h"
#include "frameshift/trace.h"

struct hv;

typedef void (*hv_event_fn)(void *arg, const struct fs_event *event);

struct emb_kernel_ops;

struct hv_config {
    const char *machine;            /* "xen"; "embedded" where built in */
    const char *map_file;           /* DIMM map instead of firmware tables; or NULL */
    const char *state_dir;          /* journal and lock; NULL: /var/lib/frameshift */
    hv_event_fn on_event;           /* may be NULL; called in the caller's thread */
    void *event_arg;
    bool debug;
    bool one_thread;                /* no threads of the engine's own: calls come in one order, run after run */
    const struct emb_kernel_ops *kernel;    /* of the embedded machine's guests that move their own pages; NULL: it has none */
};

fs_status_t hv_open(const struct hv_config *config, struct hv **out, struct fs_error *err) FS_MUST_CHECK;
void hv_close(struct hv *hv);
/* Ask the running call to stop: it does so at its next safe point, rolls back what it can and returns FS_INTERRUPTED.
 * Only sets a flag, which stays set: async-signal-safe, any thread, also before the call begins. */
void hv_interrupt(struct hv *hv);
/* A domain by domid (decimal) or, where who is no number of a domain, by name.  FS_NOT_FOUND names the domains there are. */
fs_status_t hv_domain_find(struct hv *hv, const char *who, uint16_t *domid, struct fs_error *err) FS_MUST_CHECK;

/* ---- topology ---- */

enum hv_topology_source { HV_TOPO_SMBIOS, HV_TOPO_NUMA, HV_TOPO_MAP };

#define HV_NAME_BYTES 64

struct hv_dimm {
    char name[HV_NAME_BYTES];       /* device locator ("DIMM_B1"), "NODE1", or the map file's name */
    char bank[HV_NAME_BYTES];       /* bank locator, "" if none */
    uint64_t size_bytes;            /* as the firmware tells; 0 unknown */
    uint32_t node;                  /* NUMA node of its ranges; UINT32_MAX mixed or unknown */
    uint32_t set;                   /* interleave set: DIMMs of one set share their ranges */
    uint32_t interleave_depth;      /* how many DIMMs share these ranges; 0: not interleaved */
    uint32_t interleave_position;   /* 1 to depth among them, 0: unknown or not interleaved */
    struct mfn_range_set ranges;    /* RAM only: holes of the memory map are cut out */
};

struct hv_topology {
    enum hv_topology_source source;
    struct hv_dimm *dimms;          /* sorted by first frame, then name */
    size_t count;
    char note[256];                 /* what the tables lacked or contradicted; "" if nothing */
    struct mfn_range_set ram;       /* all RAM of the machine: what the DIMMs' ranges add up to */
    struct hv_node_ranges {
        uint32_t node;
        struct mfn_range_set ranges;
    } *nodes;                       /* where the NUMA nodes lie, sorted by number; none where nothing tells */
    size_t node_count;
};
fs_status_t hv_topology(struct hv *hv, struct hv_topology *out, struct fs_error *err) FS_MUST_CHECK;
void hv_topology_free(struct hv_topology *t);

/* ---- plan ---- */

enum hv_mover { HV_MOVER_NONE, HV_MOVER_PV, HV_MOVER_HAP, HV_MOVER_COOP, HV_MOVER_EVICT };
const char *hv_mover_name(enum hv_mover m);

struct hv_counts {                  /* frames of the range by what they are */
    uint64_t total, free_or_xen, data, l1, l2, l3, l4, p2m, granted, shared;
    uint64_t dom0, offlined, broken, hole, ambiguous;
};

struct hv_plan_domain {
    uint16_t domid;
    uint8_t uuid[16];
    char name[HV_NAME_BYTES];
    char kind[12];                  /* "pv", "pv32", "pvh" (or hvm), "dom0", "other" */
    enum hv_mover mover;
    uint32_t vcpus;
    uint64_t pages_total;           /* of the whole domain */
    uint64_t pages_in_range, pages_movable, pages_blocked;
    uint64_t tables_in_range;       /* page tables by Xen's types */
    uint64_t tables_total;          /* of the whole domain (PV) */
    uint64_t superpages_in_range;   /* whole aligned 2 MiB extents (HAP) */
    uint64_t blackout_ns;           /* expected stop (PV) or longest pause (HAP); 0 unknown */
    uint32_t suspends;              /* how many stops --max-blackout splits it into */
};

struct hv_plan {
    char target[HV_NAME_BYTES * 2]; /* what the user named */
    struct mfn_range_set ranges;
    char note[256];                 /* what of the target is no RAM and was cut away; "" if nothing */
    struct hv_counts counts;
    struct hv_plan_domain *domains;
    size_t domain_count;
    struct fs_blocker *blockers;    /* sorted by mfn; a frame known in advance to stay */
    size_t blocker_count;
    uint64_t room_needed_pages, room_free_pages, room_missing_pages;
    struct { uint32_t node; uint64_t free_pages, take_pages; } room[64];
    size_t room_count;
    char refusal[512];              /* "" if it can run; else why not, and what to do */
    fs_status_t refusal_status;
};
void hv_plan_free(struct hv_plan *p);

/* ---- shrink, grow ---- */

/* Guests that speak abi.h give memory to the machine and take it again, in steps, while they run.  The limit (max_pages) follows each
 * step, so that nothing comes back secretly.  A run that was stopped or killed leaves a guest that is whole; the next run goes on. */

/* X(name, words): why pages stay in a block of which everything else went, as the guest says. */
#define HV_STAYS_LIST(X)                                                             \
    X(dma,    "a device has their frames")                                           \
    X(boot,   "there since boot")                                                    \
    X(table,  "page tables")                                                         \
    X(kernel, "other kernel memory")                                                 \
    X(busy,   "in use for the moment")
enum hv_stays {
#define X(name, words) HV_STAYS_##name,
    HV_STAYS_LIST(X)
#undef X
    HV_STAYS
};

struct hv_shrink_options {
    const char *guest;              /* name or domid */
    uint64_t to_pages;
    bool grow, dry_run;
    bool for_room;                  /* it makes room for an evacuation: hv_grow_back() gives it back */
    uint64_t step_pages;            /* asked for at a time; 0: 16 MiB */
    uint64_t timeout_ns;            /* for an answer; 0: 60 s */
    uint32_t crash_at;              /* test hook: SIGKILL self at this journal record; 0: never */
};

struct hv_shrink_report {
    uint16_t domid;
    char name[HV_NAME_BYTES];
    bool grow, dry_run;
    fs_status_t status;
    char error[512];                /* "" where status is OK; of PARTIAL: why no more */
    uint64_t asked_pages;           /* the size that was asked for */
    uint64_t plan_pages;            /* to give or take: whole blocks of 512 */
    /* what the machine says */
    uint64_t pages_before, pages_after, limit_before, limit_after, maximum_pages;   /* maximum: before it was shrunk for the first time */
    uint64_t free_before, free_after;
    struct { uint32_t node; uint64_t before, after; } nodes[64];
    size_t node_count;
    /* what the guest says */
    uint64_t guest_pages, guest_free_pages, guest_possible_pages, guest_given_pages;    /* before; possible: it could give; UINT64_MAX: it does not tell */
    uint64_t said_pages;            /* given or taken by its answers */
    bool detailed;                  /* it tells the rest */
    uint64_t blocks, single_pages, machine_extents, sections, migrated_pages, residual_blocks, stays[HV_STAYS];
    uint64_t memmap_pages;          /* of struct pages: free in the guest because their sections went, or taken because they came */
    uint64_t stops;                 /* of all its CPUs, meanwhile (moving its pages elsewhere, not this) */
    uint64_t requests;
    uint64_t ns;                    /* from the first request to the last answer */
    uint64_t fsck_faults;           /* p2m, M2P, types and owners, afterwards */
    uint64_t given_back_pages;      /* it made room that was not needed in the end */
};
/* FS_PARTIAL: fewer pages than asked for, out->error says why.  FS_REFUSED, FS_NO_ROOM, FS_BAD_RANGE, FS_UNSUPPORTED: nothing was changed.
 * FS_INTERRUPTED: between two steps.  out holds what happened in any case. */
fs_status_t hv_shrink(struct hv *hv, const struct hv_shrink_options *options, struct hv_shrink_report *out, struct fs_error *err) FS_MUST_CHECK;

/* Guests that made room for an evacuation (hv_evacuate_options.make_room) take it again, all that still live; the worst status of them.
 * *list: malloc'd, a report for each. */
fs_status_t hv_grow_back(struct hv *hv, struct hv_shrink_report **list, size_t *count, struct fs_error *err) FS_MUST_CHECK;

/* ---- evacuate ---- */

struct hv_evacuate_options {
    const char *target;             /* DIMM or node name, or "mfn:START-END" (hex, half-open) */
    bool dry_run, verify, evict;
    bool make_room;                 /* guests that can are asked to shrink first, where room is missing */
    uint64_t max_blackout_ns;       /* 0: one suspend per guest */
    uint64_t max_pause_ns;          /* HAP; 0: 10 ms */
    uint64_t suspend_timeout_ns;    /* 0: 60 s */
    const uint16_t *exclude;        /* domids to leave alone */
    size_t exclude_count;
    const char *evict_dir;          /* where --evict saves; NULL: state_dir */
    uint32_t crash_at;              /* test hook: SIGKILL self at this journal record; 0: never */
    /* Shown the finished plan once, before anything is changed and also where it refuses; may be NULL.  May take its time. */
    void (*on_plan)(void *arg, const struct hv_plan *plan);
    void *plan_arg;
};

struct hv_phase { char name[24]; uint64_t ns; uint64_t count; };
#define HV_PHASES_MAX 32

struct hv_domain_report {
    struct hv_plan_domain plan;
    fs_status_t status;
    char error[256];
    uint64_t moved, blocked, superpages_before, superpages_after;
    uint64_t blackout_ns;           /* all suspends of this guest together */
    uint64_t longest_blackout_ns;   /* the longest single stop */
    uint64_t max_pause_ns, p99_pause_ns, p50_pause_ns, pauses;
    uint64_t pages_hashed, mismatches;
    uint64_t moved_free;            /* of moved: free in the guest by its own word, so without contents to compare */
    uint32_t suspends;
    uint16_t evicted_to;            /* new domid, or FS_DOMID_NONE */
    struct hv_phase phases[HV_PHASES_MAX];
    size_t phase_count;
};

struct hv_report {
    struct hv_plan plan;            /* as it was before the first change */
    fs_status_t status;
    uint64_t frames_total, frames_moved, frames_blocked, frames_offlined, frames_pending;
    struct hv_domain_report *domains;
    size_t domain_count;
    struct fs_blocker *blockers;    /* every frame of the range that is not offlined */
    size_t blocker_count;
    struct hv_phase phases[HV_PHASES_MAX];
    size_t phase_count;
    bool verified;                  /* verify was asked, ran on every moved page that has contents, found 0 mismatches */
    uint64_t pages_hashed, mismatches, moved_free;
    uint64_t hypercall_count;       /* where the backend counts */
    struct hv_shrink_report *made_room;     /* the guests that were asked to shrink first */
    size_t made_room_count;
};
/* With dry_run only out->plan is filled.  On failure out holds what happened so far. */
fs_status_t hv_evacuate(struct hv *hv, const struct hv_evacuate_options *options,
                        struct hv_report *out, struct fs_error *err) FS_MUST_CHECK;
void hv_report_free(struct hv_report *r);

/* ---- the rest ---- */

struct hv_dimm_status {
    char name[HV_NAME_BYTES];
    uint64_t total, free_or_xen, guests, dom0, offlined, pending, broken;
    uint64_t free_pages;            /* of its node, where the DIMM is a whole node; else UINT64_MAX */
    uint8_t map[64];                /* the DIMM in 64 equal parts: enum hv_map_cell, what most of each part is */
};
enum hv_map_cell { HV_CELL_HOLE, HV_CELL_FREE, HV_CELL_GUEST, HV_CELL_DOM0, HV_CELL_OFFLINED, HV_CELL_MIXED };
struct hv_status_report {
    struct hv_dimm_status *dimms;
    size_t count;
    uint64_t host_total_pages, host_free_pages;
    uint32_t pcpus;
    char version[64];
    bool recovery_due;
};
fs_status_t hv_status(struct hv *hv, struct hv_status_report *out, struct fs_error *err) FS_MUST_CHECK;
void hv_status_free(struct hv_status_report *s);

fs_status_t hv_online(struct hv *hv, const char *target, uint64_t *onlined_pages, struct fs_error *err) FS_MUST_CHECK;

struct hv_fault { uint16_t domid; mfn_t mfn; uint64_t gfn; char text[160]; };
struct hv_fsck_report {
    struct hv_fault *faults;
    size_t fault_count;
    uint64_t frames_checked, tables_checked, entries_checked;
    uint64_t frames_pending;        /* marked: they go offline when let go. No fault: what stays of an evacuation is so */
    bool paused;                    /* checked while paused: exact; else faults may be races */
};
/* domid FS_DOMID_NONE: every domain. Read-only. pause: stop the domain meanwhile, so that the answer is exact. */
fs_status_t hv_fsck(struct hv *hv, uint16_t domid, bool pause, struct hv_fsck_report *out, struct fs_error *err) FS_MUST_CHECK;
void hv_fsck_free(struct hv_fsck_report *r);

struct hv_recover_report {
    bool needed;
    uint32_t domains_finished, domains_rolled_back, domains_gone;
    uint64_t frames_released, frames_onlined;
    char text[512];
};
fs_status_t hv_recover(struct hv *hv, struct hv_recover_report *out, struct fs_error *err) FS_MUST_CHECK;

/* ---- a guest's memory as its own kernel sees it: guests that speak abi.h ---- */

#define HV_ORDERS       11u
#define HV_MIGRATETYPES 6u              /* unmovable, movable, reclaimable, accounted, highatomic, isolate */
enum hv_zone_kind { HV_ZONE_DMA, HV_ZONE_NORMAL, HV_ZONE_MOVABLE, HV_ZONE_KINDS };
struct hv_meminfo_zone {
    uint32_t node;
    enum hv_zone_kind kind;
    uint64_t present_pages, managed_pages, free_pages, isolated_pages;
    uint64_t watermark[3];              /* min, low, high */
    uint64_t blocks[HV_MIGRATETYPES];   /* pageblocks of 2 MiB of each type */
    uint64_t free_units[HV_MIGRATETYPES][HV_ORDERS];
    uint32_t unusable[HV_ORDERS];       /* of what is free, the part that cannot serve the order: 0 to 1000 */
    int32_t extfrag[HV_ORDERS];         /* why a request would fail: -1000 it would not, 0 memory is short, 1000 it lies in pieces */
    uint32_t score;                     /* percent */
};
struct hv_meminfo_value {
    char name[32];                      /* a-z, 0-9, _ */
    uint64_t value;
    uint64_t least, most;               /* of a setting */
    bool action;                        /* of a setting: it does something and has no value */
};
struct hv_meminfo_want { const char *name; uint64_t value; };
struct hv_meminfo_set { char name[32]; uint64_t before, after; };
#define HV_MEMINFO_SETS_MAX 16u

struct hv_meminfo {
    uint16_t domid;
    char name[HV_NAME_BYTES];
    struct hv_meminfo_set sets[HV_MEMINFO_SETS_MAX];
    size_t set_count;                   /* settings made */
    struct hv_meminfo_zone *zones;
    struct hv_meminfo_value *counters, *tunables;
    size_t zone_count, counter_count, tunable_count;
};
/* Make the settings in their order, then read. FS_REFUSED: a name or value that the guest does not take; all are checked before the first
 * is made.  FS_UNSUPPORTED: a guest that cannot be asked.  On failure out->sets says what was set. */
fs_status_t hv_meminfo(struct hv *hv, const char *guest, const struct hv_meminfo_want *wants, size_t count, struct hv_meminfo *out,
                       struct fs_error *err) FS_MUST_CHECK;
void hv_meminfo_free(struct hv_meminfo *m);

/* ---- drill ---- */

/* A rehearsal on the machine inside this program: guests run and write, a DIMM is emptied, brought back, another is emptied; after each
 * step every byte of every guest and every count of the machine is judged. */
struct hv_drill_step {
    uint64_t seed;
    char name[16];                  /* boot run shrink grow evacuate recover online shutdown */
    char dimm[HV_NAME_BYTES];       /* "" where it is about none */
    fs_status_t status;             /* of the call that the step is about */
    char text[512];                 /* what went wrong; "" if nothing */
    bool injected;                  /* a call of it was made to fail on purpose */
    uint64_t ns;                    /* real time, judging not included */
    uint64_t judge_ns;
    uint64_t writes;                /* pages that guests wrote meanwhile */
    uint64_t frames_moved, frames_blocked, frames_onlined;
    uint64_t frames_given, frames_taken;    /* of a shrink; of a grow */
    uint64_t frames_left, frames_bound; /* guests' frames still in the DIMM; of them in somebody else's hands */
    uint64_t pages_checked, faults;
    const struct hv_status_report *machine;     /* after it; valid while the callback runs */
};

struct hv_drill_callbacks {         /* each may be NULL; called in the caller's thread, between steps */
    void *arg;
    void (*on_plan)(void *arg, const struct hv_plan *plan);
    /* After each evacuation; error "" where there is none. */
    void (*on_report)(void *arg, const char *dimm, const struct hv_report *report, fs_status_t status, const char *error);
    void (*on_step)(void *arg, const struct hv_drill_step *step);
};

struct hv_drill_options {
    uint64_t seed;                  /* of the first drill; 0: 1 */
    uint32_t seeds;                 /* so many drills, each with the next seed; 0: 1 */
    uint32_t dimms;                 /* 2 to 16; 0: 4 */
    uint64_t dimm_mib;              /* 0: 64 */
    const char *const *guests;      /* "pv=NAME,MIB,VCPUS,DIMM", "pvh=...", "coop=..."; none: some that suit the DIMMs */
    size_t guest_count;
    const struct emb_kernel_ops *kernel;    /* the kernel of coop guests; NULL: there are none */
    bool threads;                   /* guests beside the engine, in real time; else one thread, the same run for the same seed */
    bool evict;
    uint64_t max_blackout_ns, max_pause_ns;
    uint64_t fail_call;             /* this call of the engine to the machine fails (counted over evacuations and onlining); 0: none */
    const char *state_dir;          /* NULL: one of its own, removed at the end */
    hv_event_fn on_event;
    void *event_arg;
    const volatile int *interrupted;    /* not 0: stop, FS_INTERRUPTED; may be NULL */
    struct hv_drill_callbacks on;
};

struct hv_drill_report {
    uint64_t seeds, seeds_failed, first_failed_seed;
    uint64_t steps, evacuations, frames_moved, frames_blocked, writes, pages_checked, faults;
    uint64_t calls;                 /* of the engine to the machine, in evacuations and onlining */
    uint64_t failures_injected;
    uint64_t longest_blackout_ns;   /* modelled where not threads */
    uint64_t free_pages, expected_free_pages;   /* after the last shutdown; before the first guest */
    uint64_t ns;
};
/* FS_OK: every step of every drill was right.  FS_CORRUPT: a judge found a fault, or a frame stayed that nobody holds.  Other: what the
 * step that failed said.  err names seed and step. */
fs_status_t hv_drill(const struct hv_drill_options *options, struct hv_drill_report *out, struct fs_error *err) FS_MUST_CHECK;

fs_status_t hv_version(struct hv *hv, char *out, size_t bytes, struct fs_error *err) FS_MUST_CHECK;

#endif
