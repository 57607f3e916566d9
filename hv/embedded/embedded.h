/*
 * embedded.h - building, running and judging the in-process machine.
 *
 * Owns: the construction interface of the embedded machine.  The engine never
 * includes it: it sees only the struct hv_backend that emb_backend() returns.
 * Tests, the drill and hv_embedded_open() build machines and guests here.
 *
 * All state of a machine lies in shared memory, so that a forked child may be
 * killed with SIGKILL and the parent goes on with the same machine: what the
 * child had mapped is unmapped by emb_machine_reap(), as a kernel does.
 * Errors: functions named like hypercalls return 0 or a negative XEN_E* number, as Xen does.
 * Locking: every function takes the machine's lock itself, except where said.
 */
#ifndef FRAMESHIFT_EMBEDDED_H
#define FRAMESHIFT_EMBEDDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "../backend.h"

struct emb_machine;

/* ---- the machine --------------------------------------------------------- */

#define EMB_NODES_MAX 16
#define EMB_VCPUS_MAX 16
#define EMB_DOMAINS_MAX 32

struct emb_node_config {
    uint64_t pages;             /* RAM frames of this DIMM */
    uint64_t hole_pages;        /* hole of the memory map before it */
};

struct emb_config {
    struct emb_node_config nodes[EMB_NODES_MAX];
    uint32_t node_count;
    uint32_t pcpus;             /* 0: 2 */
    uint64_t seed;
    uint64_t image_pages;       /* Xen's image, at the start of node 0; 0: 64 */
    uint64_t anon_pages;        /* frames of each node in use without an owner (pools) */
    bool no_contents;           /* metadata only: for machines larger than this host */
    bool no_poison;             /* freed frames keep their bytes (default: they are overwritten, as a debug Xen does) */
    bool virtual_clock;         /* clock_ns() counts modelled costs instead of time */
};

/* NULL: the host has no memory for it (errno tells). */
struct emb_machine *emb_machine_create(const struct emb_config *config);
void emb_machine_destroy(struct emb_machine *m);

/* A dom0 tool's handle on the machine; close it through its ops.  One per process. */
struct hv_backend *emb_backend(struct emb_machine *m);
/* Unmap what dead processes (or handles not closed by them) had mapped. */
void emb_machine_reap(struct emb_machine *m);

/* ---- domains ------------------------------------------------------------- */

struct emb_domain_config {
    enum hv_domain_kind kind;   /* CONTROL, PV or HAP (PV32, OTHER: frames only) */
    char name[64];
    uint64_t pages;             /* pfns or gfns */
    uint32_t vcpus;             /* 1 .. EMB_VCPUS_MAX */
    uint32_t offline_vcpus;     /* of them, never brought up */
    uint64_t seed;
    uint32_t node;              /* where its frames come from */
    bool any_node;              /* round robin over all nodes instead */
    /* PV */
    uint32_t processes;         /* user address spaces; 0: 3 */
    uint32_t process_pages;     /* pages that each maps; 0: about an eighth of the guest */
    bool p2m_list_only;         /* ABI form: 3-level frame_list_list alone */
    bool p2m_linear_only;       /* ABI form: linear list alone; default: both */
    bool not_booted;            /* p2m_cr3 and the list are 0 */
    bool ldt;                   /* vCPU 0 runs with an LDT in use */
    bool no_fifo;               /* no event-channel pages held (xen.fifo_events=0) */
    uint32_t ballooned;         /* pfns without a frame */
    uint64_t suspend_ns;        /* the guest takes so long to suspend */
    bool wont_suspend;          /* it never does: FS_TIMEOUT */
    /* HAP */
    bool small_pages;           /* no 2 MiB extents */
    /* both */
    uint32_t grants_mapped;     /* grants that dom0 has mapped */
    uint32_t grants_offered;    /* grants that nobody uses */
};

/* Builds and starts a domain.  -ENOMEM, -EINVAL as Xen. */
int emb_domain_create(struct emb_machine *m, const struct emb_domain_config *config, uint16_t *domid);
/* domain_kill: the domain is gone when its last frame is no more referenced. */
int emb_domain_destroy(struct emb_machine *m, uint16_t domid);

/* Like a disk's ring between two PV guests: mapper maps a page of granter writable, over a ballooned pfn of its own
 * (-ENOSPC where it has none).  *pfn: the mapper's. */
int emb_grant_map(struct emb_machine *m, uint16_t granter, uint16_t mapper, uint64_t *pfn);

/* The guest, if it runs, offers a data page in range by grant, which nobody maps; *index is the grant's.  0, -EAGAIN: it does not run, -ENOSPC. */
int emb_guest_grant(struct emb_machine *m, uint16_t domid, struct mfn_range range, uint64_t *gfn, uint32_t *index);
/* The guest, if it runs, ends such a grant.  0, -EAGAIN, -EINVAL: it is none that nobody maps. */
int emb_guest_ungrant(struct emb_machine *m, uint16_t domid, uint32_t index);

/* ---- guests -------------------------------------------------------------- */

/* Let the guest run a little: writes seeded contents to random pages of its own, through its own page tables; PV guests also
 * change page-table entries.  Returns how many pages it wrote; 0 if it does not run (paused, suspended, dead). */
uint32_t emb_guest_run(struct emb_machine *m, uint16_t domid, uint32_t writes);
/* The guest gives one page back (balloon).  The pfn or gfn, or UINT64_MAX if it had none to give or does not run. */
uint64_t emb_guest_balloon_out(struct emb_machine *m, uint16_t domid);
/* As that, but a frame in range, where there is one. */
uint64_t emb_guest_balloon_out_of(struct emb_machine *m, uint16_t domid, struct mfn_range range);
/* Every byte and every entry of the guest as it should be?  Number of faults; the first ones are described on out (may be NULL). */
uint64_t emb_guest_check(struct emb_machine *m, uint16_t domid, FILE *out);
/* Runs, has its vCPUs, its events arrive? (not paused, not suspended, every vCPU initialised that was) */
bool emb_guest_alive(struct emb_machine *m, uint16_t domid);
/* Frames of the range that the domain owns, and those of them that somebody else holds. */
uint64_t emb_guest_frames_in(struct emb_machine *m, uint16_t domid, struct mfn_range range, uint64_t *held);
/* Whole aligned 2 MiB extents of a HAP domain. */
uint64_t emb_guest_superpages(struct emb_machine *m, uint16_t domid);
/* The frame behind a pfn (by the guest's own p2m) or a gfn; MFN_NONE. */
mfn_t emb_guest_frame(struct emb_machine *m, uint16_t domid, uint64_t gfn);
/* The guest's event traffic: Xen posts events to random vCPUs and writes its pages, running or not. */
void emb_xen_tick(struct emb_machine *m, uint32_t events);

/* ---- the judge ----------------------------------------------------------- */

/* Recomputes every count from the ground truth, read-only: free lists, owners, general and type counts, pins, p2m, dirty state.
 * Number of faults. */
uint64_t emb_fsck(struct emb_machine *m, FILE *out);
/* Free frames over all nodes. */
uint64_t emb_free_pages(struct emb_machine *m);
/* What the machine itself takes: its frame table; and what is in use of its arena (domains, p2m, guests' truth), its head included. */
uint64_t emb_metadata_bytes(const struct emb_machine *m);
uint64_t emb_arena_bytes(struct emb_machine *m);
struct mfn_range emb_node_range(const struct emb_machine *m, uint32_t node);
uint64_t emb_domain_max_pages(struct emb_machine *m, uint16_t domid);
uint32_t emb_domain_pause_count(struct emb_machine *m, uint16_t domid);

/* For tests of emb_fsck: plant a corruption. */
enum emb_corruption {
    EMB_CORRUPT_COUNT, EMB_CORRUPT_TYPE_COUNT, EMB_CORRUPT_TYPE, EMB_CORRUPT_OWNER, EMB_CORRUPT_M2P, EMB_CORRUPT_PIN,
    EMB_CORRUPT_FREE_LIST, EMB_CORRUPT_STATE, EMB_CORRUPT_FREE_BYTES, EMB_CORRUPT_TOT_PAGES, EMB_CORRUPT_ENTRY,
    EMB_CORRUPT_NODE_FREE, EMB_CORRUPT_P2M,
    EMB_CORRUPTIONS,
};
/* False where the machine has nothing that could be corrupted so. */
bool emb_corrupt(struct emb_machine *m, enum emb_corruption what, uint64_t seed);

/* ---- faults -------------------------------------------------------------- */

/* X(member, status that a failure of it has on real Xen, may do a part of a list first) */
#define EMB_OP_LIST(X)                                                               \
    X(host, IO, 0) X(ram, IO, 0) X(table, NOT_FOUND, 0) X(domains, IO, 0)            \
    X(domain, GUEST_GONE, 0) X(frames, IO, 0) X(m2p, IO, 0) X(types, REFUSED, 0)     \
    X(mark_offline, REFUSED, 0) X(mark_owned, REFUSED, 0) X(mark_online, REFUSED, 0) \
    X(query_offline, REFUSED, 0) X(pause, REFUSED, 0) X(unpause, REFUSED, 0)         \
    X(suspend, TIMEOUT, 0) X(resume, REFUSED, 0) X(monitor_hold, IO, 0)              \
    X(monitor_release, IO, 0) X(set_max_pages, REFUSED, 0) X(increase, NO_ROOM, 1)   \
    X(increase_extents, NO_ROOM, 1) X(decrease, REFUSED, 1) X(populate, NO_ROOM, 1) X(depopulate, REFUSED, 1)        \
    X(remap, REFUSED, 1) X(gfn_limit, REFUSED, 0) X(probe_held, REFUSED, 0)          \
    X(map, NO_MEMORY, 0) X(copy, REFUSED, 1) X(unpin, REFUSED, 1) X(pin, REFUSED, 1) \
    X(m2p_set, REFUSED, 1) X(vcpu_save, REFUSED, 0) X(vcpu_reset, REFUSED, 0)        \
    X(vcpu_load, REFUSED, 0) X(specials, REFUSED, 0) X(vcpu_upcall_state, IO, 0)     \
    X(evtchn_state, IO, 0) X(dirty_enable, REFUSED, 0) X(dirty_read, REFUSED, 0)     \
    X(dirty_disable, REFUSED, 0) X(save, IO, 0) X(restore, IO, 0) X(frame_refs, IO, 0)     \
    X(grants_begin, REFUSED, 0) X(grants_read, REFUSED, 0)                                 \
    X(coop_find, IO, 0) X(coop_wait, GUEST_GONE, 0)

enum emb_op {
#define X(member, status, partial) EMB_OP_##member,
    EMB_OP_LIST(X)
#undef X
    EMB_OP_COUNT
};
const char *emb_op_name(enum emb_op op);

/* Runs in the caller's thread, between operations: may destroy domains, balloon, raise SIGKILL. */
typedef void (*emb_hook_fn)(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call);

struct emb_fault_plan {
    uint64_t fail_call;         /* this call (1-based, of those counted since emb_fault_arm()) fails; 0: none */
    uint32_t fail_times;        /* so many times in a row, counting only calls of that op; 0: once */
    bool only_op;               /* count only calls of op */
    enum emb_op op;
    bool partial;               /* list operations do half of the list first */
    uint64_t hook_call;         /* before this call, run the hook; 0: none.  UINT64_MAX: before every call */
    emb_hook_fn hook;
    void *hook_arg;
};
/* Replaces the plan and restarts the count.  NULL: no faults. */
void emb_fault_arm(struct emb_machine *m, const struct emb_fault_plan *plan);
uint64_t emb_fault_calls(struct emb_machine *m);        /* counted since emb_fault_arm() */
uint64_t emb_fault_fired(struct emb_machine *m);        /* failures given */

#endif
