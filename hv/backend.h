/*
 * backend.h - the seam between the evacuation engine and a machine.
 *
 * Owns: struct hv_backend_ops, the complete list of what the engine may ask of
 * a machine.  hv/xen/ implements it on real Xen through libxenctrl,
 * hv/embedded/ on the in-process machine.  tests/conform/ runs one suite over
 * every implementation.
 *
 * Rules for every member:
 *  - it is set (hv_backend_check() asserts it at bind time);
 *  - it returns FS_OK, or a status and, through err, words that name the frame,
 *    domain or call; no errno, no libxenctrl type crosses this line;
 *  - it validates what a guest wrote: a hostile frame number is FS_BAD_INPUT,
 *    never a wild access;
 *  - frame lists are arrays of boxed types; a partial effect is reported through
 *    the out-parameter that says how many were done, and nothing else;
 *  - one thread at a time may call on one struct hv_backend, but for the members
 *    marked [mt], which any thread may call at any time.
 * Sources: xen/include/public/{xen,memory,domctl,sysctl,grant_table}.h, and the
 * sequences in doc/XEN.md.
 */
#ifndef FRAMESHIFT_HV_BACKEND_H
#define FRAMESHIFT_HV_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "frameshift/compiler.h"
#include "frameshift/frame.h"
#include "frameshift/status.h"

struct hv_backend;                      /* an implementation's own state */
struct hv_grants;                       /* the same, of one watch over grants */

/* ---- the host ----------------------------------------------------------- */

#define HV_NODES_MAX 64

struct hv_node {
    uint32_t id;
    uint64_t total_pages;               /* as the machine reports them */
    uint64_t free_pages;
};

struct hv_host {
    uint32_t version_major, version_minor;
    char version_text[64];              /* "4.17.7-pre" */
    uint64_t max_mfn;                   /* highest machine frame number + 1 */
    uint64_t total_pages, free_pages, scrub_pages;
    uint32_t pcpus;                     /* online physical CPUs */
    uint32_t node_count;
    struct hv_node nodes[HV_NODES_MAX];
    bool descending_needed;             /* Xen without the reserve_offlined_page fix */
    bool pcpu0_marking_hangs;           /* Xen with the p2m_pod lock bug for PV frames */
};

/* Raw firmware tables, so that one parser serves every machine. */
enum hv_table {
    HV_TABLE_SMBIOS,                    /* the structure table, without the entry point */
    HV_TABLE_SRAT,                      /* the whole ACPI table with its header */
};

/* ---- frames -------------------------------------------------------------- */

enum hv_frame_owner {
    HV_FRAME_HOLE,                      /* not RAM */
    HV_FRAME_UNOWNED,                   /* free, or Xen's own: only marking tells them apart */
    HV_FRAME_DOMAIN,                    /* owned by domid */
    HV_FRAME_AMBIGUOUS,                 /* one of several translated domains; domid is the first */
    HV_FRAME_OFFLINED,                  /* out of the heap */
    HV_FRAME_BROKEN,
};

enum hv_frame_type {                    /* Xen's page types as getpageframeinfo3 tells them */
    HV_TYPE_NONE, HV_TYPE_L1, HV_TYPE_L2, HV_TYPE_L3, HV_TYPE_L4,
};

#define HV_FRAME_PINNED   0x01u
#define HV_FRAME_PENDING  0x02u         /* marked: goes offline when its owner lets go */

struct hv_frame {
    uint64_t gfn;                       /* from the M2P; FS_FRAME_NONE if it has none. A guest can write its own M2P entries */
    uint16_t domid;
    uint8_t owner;                      /* enum hv_frame_owner */
    uint8_t type;                       /* enum hv_frame_type (PV owners only) */
    uint8_t flags;
    uint8_t reserved[3];
};
_Static_assert(sizeof(struct hv_frame) == 16, "the engine's budget is 16 bytes a frame of the range");

/* What one frame answered when it was marked. */
enum hv_mark {
    HV_MARK_UNTRIED,                    /* not reached */
    HV_MARK_OFFLINED,                   /* was free (or already offlined): out of the heap now */
    HV_MARK_PENDING_OWNED,              /* owned by domid: offline when let go */
    HV_MARK_PENDING_XEN,                /* Xen heap: offline when Xen frees it */
    HV_MARK_ANON,                       /* in use by Xen without an owner (pools); marked, never offlines by itself */
    HV_MARK_XEN_IMAGE,                  /* inside Xen's image: refused (EPERM) */
    HV_MARK_NOT_RAM,                    /* refused (EINVAL) */
    HV_MARK_BROKEN,
    HV_MARK_FAILED,
};

struct hv_mark_result {
    uint8_t mark;                       /* enum hv_mark */
    uint8_t reserved;
    uint16_t domid;                     /* owner where mark is PENDING_OWNED */
};

/* ---- domains ------------------------------------------------------------- */

enum hv_domain_kind {
    HV_DOMAIN_CONTROL,                  /* the domain that we run in (dom0) */
    HV_DOMAIN_PV,                       /* 64-bit PV */
    HV_DOMAIN_PV32,                     /* 32-bit PV: no mover */
    HV_DOMAIN_HAP,                      /* PVH or HVM with hardware-assisted paging */
    HV_DOMAIN_OTHER,                    /* shadow-paged HVM, stub domains: no mover */
};

struct hv_domain {
    uint16_t domid;
    uint8_t kind;                       /* enum hv_domain_kind */
    bool paused, shutdown, dying;
    uint32_t shutdown_reason;           /* SHUTDOWN_* of xen/sched.h, where shutdown */
    uint8_t uuid[16];                   /* tells a domain from a later one with the same domid */
    char name[64];                      /* from xenstore, cleaned of control characters; "" if none */
    uint64_t tot_pages, max_pages;
    uint64_t paging_pages;              /* Xen's pool for it, where known */
    uint32_t vcpus;                     /* max vcpu id + 1 */
    uint32_t vcpus_online;
    mfn_t shared_info;                  /* not in the p2m; MFN_NONE where unknown */
    bool coop;                          /* it moves its own pages (abi.h); the survey's finding, backends leave it false */
};

/* Frames that a domain's own ring pages and grants name.  gfns, not mfns. */
enum hv_special_kind {
    HV_SPECIAL_XENSTORE, HV_SPECIAL_CONSOLE, HV_SPECIAL_IOREQ,
    HV_SPECIAL_GRANT_MAPPED,            /* GTF_reading or GTF_writing is set */
    HV_SPECIAL_GRANT_OFFERED,           /* granted, not in use now */
};
struct hv_special {
    uint64_t gfn;                       /* PV: pfn where known, else FS_FRAME_NONE */
    mfn_t mfn;                          /* PV: the frame; HAP: MFN_NONE */
    uint32_t grant_ref;                 /* for the grant kinds */
    uint8_t kind;                       /* enum hv_special_kind */
};

#define HV_GDT_FRAMES 16

/* A PV vCPU's state: what the engine must translate, and the rest as the
 * machine keeps it.  opaque is owned by the struct (free with hv_vcpu_free). */
struct hv_pv_vcpu {
    uint32_t vcpu;
    bool initialised;                   /* false: never brought up; nothing to save */
    bool online;
    mfn_t cr3, user_cr3;                /* user_cr3 MFN_NONE where it has none */
    uint32_t gdt_entries;
    mfn_t gdt[HV_GDT_FRAMES];           /* first ceil(gdt_entries / 512) are valid */
    uint64_t ldt_base;
    uint32_t ldt_entries;
    size_t opaque_bytes;
    void *opaque;                       /* no pointers inside: may be journaled as bytes */
};
void hv_vcpu_free(struct hv_pv_vcpu *v);

enum hv_map_prot { HV_MAP_READ, HV_MAP_WRITE };

struct hv_copy { mfn_t from, to; };
struct hv_m2p_set { mfn_t mfn; pfn_t pfn; };
struct hv_pin { mfn_t mfn; uint8_t level; /* 1..4 */ };

/* One extra look at frames that Xen may hold: see held_probe. */
enum hv_held { HV_HELD_NO, HV_HELD_YES, HV_HELD_MAYBE };

/* References to one frame by the machine's own count.  A type reference on a translated domain's frame is taken only by
 * who keeps it mapped for ever: vcpu_info (one for each vCPU in the page), event array page, event control block. */
struct hv_frame_refs {
    bool known;                         /* false: no answer about this frame; nothing else is valid */
    bool xen_heap;                      /* Xen's own page (shared_info, grant table) */
    uint8_t type;                       /* the machine's own code of its use, for messages: Xen's PGT_*, 0 none, 7 writable */
    uint16_t domid;                     /* owner, FS_DOMID_XEN, or FS_DOMID_NONE */
    uint64_t count;                     /* the allocation's own reference and mappings by us included */
    uint64_t type_count;
};

/* Where a guest's shared pages are, as it says. */
struct hv_coop {
    uint32_t version;
    pfn_t control;                      /* unchecked */
};

struct hv_backend_ops {
    const char *name;                   /* "xen", "embedded" */

    void (*close)(struct hv_backend *be);

    /* -- host, read-only -- */
    fs_status_t (*host)(struct hv_backend *be, struct hv_host *out, struct fs_error *err);
    /* RAM ranges of the machine, sorted; caller frees with mfn_set_free(). */
    fs_status_t (*ram)(struct hv_backend *be, struct mfn_range_set *out, struct fs_error *err);
    /* *out is malloc'd (caller frees). FS_NOT_FOUND where the machine has no such table. */
    fs_status_t (*table)(struct hv_backend *be, enum hv_table table, uint8_t **out, size_t *bytes, struct fs_error *err);
    /* *out is malloc'd, sorted by domid, control domain included. */
    fs_status_t (*domains)(struct hv_backend *be, struct hv_domain **out, size_t *count, struct fs_error *err);
    fs_status_t (*domain)(struct hv_backend *be, uint16_t domid, struct hv_domain *out, struct fs_error *err);
    /* Describe every frame of [start, end): out has that many entries. Changes nothing. */
    fs_status_t (*frames)(struct hv_backend *be, struct mfn_range range, struct hv_frame *out, struct fs_error *err);
    /* M2P of listed frames; FS_FRAME_NONE where none. */
    fs_status_t (*m2p)(struct hv_backend *be, const mfn_t *mfns, size_t count, uint64_t *gfns, struct fs_error *err);
    /* Page types of listed frames as seen by domid; owned[i] false where domid does not own it.  PV domains. */
    fs_status_t (*types)(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count,
                         uint8_t *types, uint8_t *flags, bool *owned, struct fs_error *err);

    /* -- offline state -- */
    /* Mark frames; each gets a result.  The backend keeps Xen alive: never from
     * pCPU 0 where that hangs, frees one a call in descending order where needed;
     * FS_UNSUPPORTED with one pCPU, before anything is marked. */
    fs_status_t (*mark_offline)(struct hv_backend *be, struct mfn_range range, struct hv_mark_result *out, struct fs_error *err);
    /* Mark listed frames that the caller knows to be owned (ascending, in bulk). */
    fs_status_t (*mark_owned)(struct hv_backend *be, const mfn_t *mfns, size_t count, struct hv_mark_result *out, struct fs_error *err);
    fs_status_t (*mark_online)(struct hv_backend *be, struct mfn_range range, uint64_t *onlined_pages, struct fs_error *err);
    /* Offlined / pending / broken state of a range into flags: bit 0 offlined, 1 pending, 2 broken. */
    fs_status_t (*query_offline)(struct hv_backend *be, struct mfn_range range, uint8_t *flags, struct fs_error *err);

    /* -- domain control -- */
    fs_status_t (*pause)(struct hv_backend *be, uint16_t domid, struct fs_error *err);    /* counted; vCPUs are off when it returns */
    fs_status_t (*unpause)(struct hv_backend *be, uint16_t domid, struct fs_error *err);
    /* Ask a PV guest to suspend and wait; on FS_TIMEOUT the request is withdrawn
     * and the guest runs.  stopped_ns: clock_ns() at which the shutdown was first seen. */
    fs_status_t (*suspend)(struct hv_backend *be, uint16_t domid, uint64_t timeout_ns, uint64_t *stopped_ns, struct fs_error *err);
    /* Undo suspend: the guest runs when this returns (cancelled: its suspend hypercall returns "cancelled", so that it keeps
     * event channels and grants; that is what we always want when it stays in the same domain). */
    fs_status_t (*resume)(struct hv_backend *be, uint16_t domid, struct fs_error *err);
    /* Toolstack monitor of a domain (the process that `xl create` leaves): hold it so that
     * it does not take the suspend for an end, and release it.  *held says how many. */
    fs_status_t (*monitor_hold)(struct hv_backend *be, uint16_t domid, uint32_t *held, struct fs_error *err);
    fs_status_t (*monitor_release)(struct hv_backend *be, uint16_t domid, struct fs_error *err);
    fs_status_t (*set_max_pages)(struct hv_backend *be, uint16_t domid, uint64_t pages, struct fs_error *err);

    /* -- frames of a domain -- */
    /* PV: add frames outside the p2m, in exactly this node; out gets *done mfns. */
    fs_status_t (*increase)(struct hv_backend *be, uint16_t domid, uint32_t node, size_t count, mfn_t *out, size_t *done, struct fs_error *err);
    /* PV: the same in whole pieces of FS_SP_PAGES adjacent frames, aligned to their number: out gets the first of each, *done counts pieces.
     * FS_NO_ROOM: the node has no more such pieces (single frames it may have), or the domain's limit is reached. */
    fs_status_t (*increase_extents)(struct hv_backend *be, uint16_t domid, uint32_t node, size_t count, mfn_t *out, size_t *done, struct fs_error *err);
    /* PV: give frames back; *done are gone.  Frames that are marked end offlined. */
    fs_status_t (*decrease)(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, size_t *done, struct fs_error *err);
    /* HAP: populate gfns with new frames of an order from exactly this node / give extents back. */
    fs_status_t (*populate)(struct hv_backend *be, uint16_t domid, uint32_t node, unsigned order, const gfn_t *gfns, size_t count, size_t *done,
                            struct fs_error *err);
    fs_status_t (*depopulate)(struct hv_backend *be, uint16_t domid, unsigned order, const gfn_t *gfns, size_t count, size_t *done, struct fs_error *err);
    /* HAP: make gfn to[i] lead to the frame of gfn from[i]; from[i] becomes a hole; the frame that to[i] led to is freed
     * when its last reference goes (XENMAPSPACE_gmfn). */
    fs_status_t (*remap)(struct hv_backend *be, uint16_t domid, const gfn_t *from, const gfn_t *to, size_t count, size_t *done, struct fs_error *err);
    /* Highest populated gfn + 1 of a HAP domain (or pfn space of a PV one). */
    fs_status_t (*gfn_limit)(struct hv_backend *be, uint16_t domid, uint64_t *limit, struct fs_error *err);
    /* PV: exclusive ownership probe: held[i] true where someone but the domain holds frame i.  The guest must be
     * suspended with every type reference dropped.  Clears offline marks of what it tests.  spare: >= 2 frames known free
     * of other references, owned by the domain.  *calls counts hypercalls.
     * HAP: exact as well, at any time, without effect on marks (spare may be NULL): the frames' reference counts as Xen itself logs
     * them, so vcpu_info, event array and control pages, rings and mapped grants all show.  About 0.5 ms a frame (each is a line
     * on Xen's console): for candidates, not for whole guests.  A foreign mapping of our own counts as a holder: unmap first.
     * FS_UNSUPPORTED where the machine cannot tell. */
    fs_status_t (*probe_held)(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, const mfn_t spare[2],
                              bool *held, uint64_t *calls, struct fs_error *err);

    /* -- contents -- */
    /* Map frames (PV: mfns, HAP: gfns) of a domain in one piece; err[i] != 0 where a page could not be mapped (its part
     * of the mapping faults).  [mt] */
    fs_status_t (*map)(struct hv_backend *be, uint16_t domid, const uint64_t *frames, size_t count, enum hv_map_prot prot,
                       int *page_err, void **out, struct fs_error *err);
    void (*unmap)(struct hv_backend *be, void *addr, size_t count);   /* [mt] */
    /* PV: copy frames inside the machine without mapping them. [mt] */
    fs_status_t (*copy)(struct hv_backend *be, uint16_t domid, const struct hv_copy *list, size_t count, struct fs_error *err);

    /* -- PV tables and vCPUs -- */
    /* pin, m2p_set: [mt] for disjoint frames; a pin may meet a table that another thread's pin is validating. */
    fs_status_t (*unpin)(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, struct fs_error *err);
    fs_status_t (*pin)(struct hv_backend *be, uint16_t domid, const struct hv_pin *pins, size_t count, struct fs_error *err);
    fs_status_t (*m2p_set)(struct hv_backend *be, uint16_t domid, const struct hv_m2p_set *list, size_t count, struct fs_error *err);
    fs_status_t (*vcpu_save)(struct hv_backend *be, uint16_t domid, uint32_t vcpu, struct hv_pv_vcpu *out, struct fs_error *err);
    fs_status_t (*vcpu_reset)(struct hv_backend *be, uint16_t domid, uint32_t vcpu, struct fs_error *err);
    fs_status_t (*vcpu_load)(struct hv_backend *be, uint16_t domid, const struct hv_pv_vcpu *v, struct fs_error *err);

    /* -- what must not move -- */
    /* Ring pages and grants; *out malloc'd. */
    fs_status_t (*specials)(struct hv_backend *be, uint16_t domid, struct hv_special **out, size_t *count, struct fs_error *err);
    /* HAP: vCPU states as Xen itself reads them from vcpu_info (upcall pending and mask), by Xen's own dump, so that a
     * candidate page can be confirmed by changing a byte while the domain is paused.  out has hv_domain.vcpus entries of
     * bit 0 pending, bit 1 mask, bits 2-6 the pending byte's bits 1-5 (always 0 but for a caller's own marks), bit 7 valid.
     * FS_UNSUPPORTED where the machine has no such oracle. */
    fs_status_t (*vcpu_upcall_state)(struct hv_backend *be, uint16_t domid, uint8_t *out, size_t count, struct fs_error *err);
    /* Event channel ports as Xen reads them from the event array: state[port] bit 0 pending, bit 1 masked, bit 2 the port
     * is in a FIFO event array (not in shared_info), bits 4-6 Xen's channel state (2 unbound, 3 interdomain, 4 pirq, 5 virq,
     * 6 ipi; 0 not told), bit 7 valid.  *ports: highest valid port + 1. */
    fs_status_t (*evtchn_state)(struct hv_backend *be, uint16_t domid, uint8_t *state, size_t count, size_t *ports, struct fs_error *err);

    /* HAP dirty log. clean: reset bits as they are read. bitmap has (limit + 63) / 64 words. */
    fs_status_t (*dirty_enable)(struct hv_backend *be, uint16_t domid, struct fs_error *err);
    fs_status_t (*dirty_read)(struct hv_backend *be, uint16_t domid, uint64_t *bitmap, uint64_t limit, bool clean, uint64_t *dirty_pages, struct fs_error *err);
    fs_status_t (*dirty_disable)(struct hv_backend *be, uint16_t domid, struct fs_error *err);

    /* --evict: save a domain to a file, and restore it with its memory on the given nodes' free frames
     * (the range is offline by then). The toolstack does it; words of its failure come back. new_domid: after restore. */
    fs_status_t (*save)(struct hv_backend *be, uint16_t domid, const char *path, struct fs_error *err);
    fs_status_t (*restore)(struct hv_backend *be, const char *path, uint16_t *new_domid, struct fs_error *err);

    uint64_t (*clock_ns)(struct hv_backend *be);    /* monotonic; [mt] */

    /* Optional (NULL, or FS_UNSUPPORTED: the machine does not tell): changes nothing, needs no pause; may take
     * milliseconds a frame, so ask about few. */
    fs_status_t (*frame_refs)(struct hv_backend *be, const mfn_t *mfns, size_t count, struct hv_frame_refs *out, struct fs_error *err);

    /* Optional, all three or none: which gfns of a HAP domain, or mfns of a PV one, grants permit access to, asked again and
     * again at little cost (within pauses; as the guest wrote them, so any number may occur).
     * Between begin and end the domain's grant table stays mapped: end before the domain is to go.
     * read: *gfns is the watch's own, in no order, valid until the next call with it. */
    fs_status_t (*grants_begin)(struct hv_backend *be, uint16_t domid, struct hv_grants **out, struct fs_error *err);
    fs_status_t (*grants_read)(struct hv_backend *be, struct hv_grants *g, const uint64_t **gfns, size_t *count, struct fs_error *err);
    void (*grants_end)(struct hv_backend *be, struct hv_grants *g);

    /* Optional, both or none: guests that move their own pages (frameshift/abi.h). */
    /* What the guest published: FS_NOT_FOUND where it published nothing, FS_BAD_INPUT where that makes no sense, FS_IO: no answer. */
    fs_status_t (*coop_find)(struct hv_backend *be, uint16_t domid, struct hv_coop *out, struct fs_error *err);
    /* Let the guest run for about ns, or less if it has something to say.  FS_GUEST_GONE. */
    fs_status_t (*coop_wait)(struct hv_backend *be, uint16_t domid, uint64_t ns, struct fs_error *err);
};

struct hv_backend {
    const struct hv_backend_ops *ops;
};

/* Asserts that every member is set. */
void hv_backend_check(const struct hv_backend_ops *ops);

/* The two machines.  FS_NO_XEN, FS_NO_PERMISSION, FS_BAD_VERSION name what is missing. */
fs_status_t hv_xen_open(struct hv_backend **out, struct fs_error *err);
/* spec: "nodes=4x128 pv=NAME,MIB,VCPUS,NODE hap=... coop=..." (doc/EMBEDDED.md); NULL: four DIMMs, dom0, two PV guests, a PVH guest, and
 * where there is a kernel a guest that runs it.  kernel: of coop guests; NULL: there can be none. */
struct emb_kernel_ops;
fs_status_t hv_embedded_open(const char *spec, const struct emb_kernel_ops *kernel, struct hv_backend **out, struct fs_error *err);

#endif
