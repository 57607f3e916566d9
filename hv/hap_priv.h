/*
 * hap_priv.h - the parts of the mover for PVH/HVM guests, among themselves.
 *
 * Owns: struct hap_job (one domain, one call of move or recover) and the contracts
 * between mover_hap.c (the phases), hap_scratch.c (scratch gfns and the control
 * page), hap_pause.c (bounded pauses), held_shape.c (what a page looks like),
 * hap_held.c and hap_refs.c (which frames Xen holds), hap_swap.c (4 KiB), hap_extent.c (2 MiB) and
 * hap_recover.c.  Nobody else includes it.
 */
#ifndef FRAMESHIFT_HV_HAP_PRIV_H
#define FRAMESHIFT_HV_HAP_PRIV_H

#include "mover.h"

/* ---- scratch gfns --------------------------------------------------------
 * One window of HAP_WINDOW_PAGES gfns that the guest does not use:
 *   [0, 512)             the stage: a copy of the extent that is being moved
 *   [512]                the control page
 *   [1024, 1024 + 512)   slots: new frames on their way to a 4 KiB gfn
 */
#define HAP_WINDOW_PAGES   2048u
#define HAP_STAGE_OFFSET   0u
#define HAP_CTL_OFFSET     512u
#define HAP_SLOT_OFFSET    1024u
#define HAP_BATCH_MAX      512u
/* Frames that the domain may own beyond what it has: stage, slots, the control page, and an old extent and old frames
 * that are still mapped. */
#define HAP_EXTRA_PAGES    (FS_SP_PAGES + HAP_BATCH_MAX + 1u + FS_SP_PAGES + HAP_BATCH_MAX)

enum hap_stage_phase {
    HAP_STAGE_IDLE = 0,             /* the guest's own gfns are the truth */
    HAP_STAGE_FULL = 1,             /* paused; the stage is the truth for every gfn of the extent that is not the old frame */
};

/* The control page: in a frame of the domain, so that it lives exactly as long as the domain's state that it describes,
 * and is right after kill -9 without an fsync inside a pause.  The guest could write it and would harm itself only. */
struct hap_ctl {
    uint64_t magic;
    uint32_t version;
    uint32_t pauses;                /* raised before a pause, lowered after its unpause: never too low */
    uint32_t pauses_sure;           /* raised after a pause, lowered before its unpause: never too high */
    uint32_t stage_phase;           /* enum hap_stage_phase */
    uint32_t reserved;
    uint64_t stage_gfn, stage_mfn;  /* the extent that the stage belongs to */
};
_Static_assert(sizeof(struct hap_ctl) <= FS_PAGE_BYTES, "the control page is one page");
#define HAP_CTL_MAGIC   0x46534841504354ull
#define HAP_CTL_VERSION 1u

/* ---- journal payloads ---- */

struct hap_reserve_record {         /* JR_HAP_RESERVE_INTENT */
    uint64_t window_gfn;
    uint64_t max_pages;             /* before we raised it */
    uint32_t window_pages;
    uint32_t paused_by_others;      /* the domain was paused before we came */
};
struct hap_run { uint64_t gfn, mfn; uint32_t pages, reserved; };   /* JR_HAP_BATCH_INTENT, JR_HAP_EXTENT_INTENT: array */
struct hap_done_record { uint64_t moved; };                         /* JR_HAP_BATCH_DONE, JR_HAP_EXTENT_DONE */

/* ---- one job ---- */

enum hap_state {
    HAP_TODO,
    HAP_MOVED,
    HAP_GONE,                       /* the guest gave it up meanwhile; it is offline, or no longer the guest's */
    HAP_SUSPECT,                    /* has the shape of a page that Xen holds */
    HAP_BUSY,                       /* granted when we looked: tried again later */
    HAP_STAYS,                      /* blocked, reason in hap_job.reasons */
};

struct hap_candidate {
    uint64_t gfn;
    uint64_t mfn;                   /* FS_FRAME_NONE until it is known: outside the range */
    uint32_t index;                 /* in hap_job.list, or HAP_NO_INDEX: outside the range */
    uint8_t kinds;                  /* enum held_kind, or-ed */
    uint8_t verdict;                /* enum hap_verdict */
    uint8_t likely;                 /* kinds of which it has a narrower shape too: asked about first */
    bool array_agrees;              /* agrees with what Xen says of its channels */
    uint64_t type_count;            /* where HELD */
};
#define HAP_NO_INDEX UINT32_MAX
enum hap_verdict { HAP_UNASKED, HAP_INNOCENT, HAP_HELD, HAP_UNCLEAR };

struct hap_held {
    struct hap_candidate *list;
    size_t count, capacity;
    bool fifo;                      /* the guest uses FIFO event channels */
    bool vcpus_closed;              /* every vCPU's vcpu_info is known, so no other page can be or become one */
    bool controls_closed;           /* the same for control blocks */
    struct hap_ports *ports;        /* as Xen told them before the scan */
};
struct hap_ports;

struct hap_pauses {
    uint64_t *ns;                   /* every pause, for the percentiles */
    size_t count, capacity;
    uint64_t limit_ns, begin_ns;
    uint64_t unpause_ns;            /* the shortest unpause call so far */
    uint64_t total_ns, max_ns;
    uint32_t depth;                 /* our pauses in force: 0 or 1 */
};

struct hap_job {
    const struct mover_ctx *ctx;
    struct hv_backend *be;
    const struct hv_backend_ops *ops;
    uint16_t domid;
    struct hv_domain dom;
    struct mover_result *result;
    struct hv_domain_report *report;

    struct mover_list *list;        /* as given, but that gfns are kept as they were last verified */
    uint8_t *states;                /* enum hap_state */
    uint8_t *reasons;               /* enum fs_reason, where HAP_STAYS */
    size_t count;

    struct hv_grants *grants;       /* the watch, where the machine has one */
    uint64_t *busy;                 /* gfns that a grant or a ring names, sorted */
    size_t busy_count, busy_capacity;
    uint64_t rings[2];              /* gfns of the xenstore and the console ring, or FS_FRAME_NONE */

    uint64_t window_gfn;
    uint64_t max_pages_before;
    bool max_raised, ctl_populated;
    struct hap_ctl *ctl;
    uint8_t *stage;                 /* mapped while extents are moved */
    bool stage_full[FS_SP_PAGES];   /* stage gfns that are populated */
    bool slot_full[HAP_BATCH_MAX];

    struct hap_held held;
    struct hap_pauses pauses;
    uint32_t batch_pages;           /* adaptive */
    bool refusal_told;              /* the first refusal of a swap was told in words */
    bool extents_given_up;          /* they take too long, or none is to be had */
    bool final;                     /* the last pass: what looks held is asked about in its pause */
    uint64_t late_writes;           /* old frames written to after the switch (checked with verify) */
};

static inline mfn_t hap_mfn_at(const struct hap_job *job, size_t index) { return mover_list_mfn(job->list, index); }
static inline uint64_t hap_gfn_at(const struct hap_job *job, size_t index) { return mover_list_gfn(job->list, index); }

/* ---- hap_scratch.c ---- */

/* Choose the window, journal it, raise max_pages, make the control page. */
fs_status_t hap_scratch_open(struct hap_job *job, struct fs_error *err) FS_MUST_CHECK;
/* Give every scratch gfn back, scrubbed, and restore max_pages.  Works on what open() left however far it came. */
fs_status_t hap_scratch_close(struct hap_job *job, struct fs_error *err) FS_MUST_CHECK;
/* Populate gfns from the room's nodes.  Order 0 or 9.  FS_NO_ROOM where no node can; *done extents have frames. */
fs_status_t hap_populate(struct hap_job *job, unsigned order, const gfn_t *gfns, size_t count, size_t *done,
                         struct fs_error *err) FS_MUST_CHECK;
/* Have the stage populated and mapped / the first count slots populated. */
fs_status_t hap_stage_fill(struct hap_job *job, struct fs_error *err) FS_MUST_CHECK;
fs_status_t hap_slots_fill(struct hap_job *job, size_t count, struct fs_error *err) FS_MUST_CHECK;
/* Populated gfns of the window, zeroed and given back.  Used by close and by recovery.  *freed counts. */
fs_status_t hap_window_empty(struct hap_job *job, uint64_t first, uint64_t pages, uint64_t *freed, struct fs_error *err) FS_MUST_CHECK;
static inline gfn_t hap_gfn(const struct hap_job *job, uint64_t offset) { return gfn_make(job->window_gfn + offset); }

/* ---- hap_pause.c ---- */

void hap_pause_init(struct hap_job *job);
fs_status_t hap_pause(struct hap_job *job, struct fs_error *err) FS_MUST_CHECK;
/* pages: how many frames the pause served (for the batch size of swaps); 0: not a swap. */
fs_status_t hap_unpause(struct hap_job *job, size_t pages, uint64_t *pause_ns, struct fs_error *err) FS_MUST_CHECK;
void hap_pause_report(struct hap_job *job);             /* maximum, p99, count into the report */
/* The domain is there, is the same, and is not dying; else FS_GUEST_GONE. */
fs_status_t hap_alive(struct hap_job *job, struct fs_error *err) FS_MUST_CHECK;
/* st as it is, or FS_GUEST_GONE if the guest is why. */
fs_status_t hap_why(struct hap_job *job, fs_status_t st, struct fs_error *err) FS_MUST_CHECK;

/* ---- hap_held.c, hap_refs.c ---- */

/* Find what Xen holds before anything moves.  FS_OK: the frames that it holds STAY, what is not clear is SUSPECT.
 * FS_UNSUPPORTED: it could not be shown to be complete; the guest must not be touched (err says what was missing). */
fs_status_t hap_held_find(struct hap_job *job, struct fs_error *err) FS_MUST_CHECK;
/* Could this page, about to move, be one that Xen holds? */
bool hap_held_sets_aside(const struct hap_job *job, const void *page);
/* After all else has moved: ask about each SUSPECT; it is TODO or STAYS afterwards. */
fs_status_t hap_held_settle(struct hap_job *job, struct fs_error *err) FS_MUST_CHECK;
void hap_held_free(struct hap_job *job);

/* The references to count frames; entries that the machine did not answer are asked again a few times. */
fs_status_t hap_refs(struct hap_job *job, const mfn_t *mfns, size_t count, struct hv_frame_refs *out, struct fs_error *err) FS_MUST_CHECK;
/* What Xen says of the event channels, before the pages are looked at. */
fs_status_t hap_ports_read(struct hap_job *job, struct fs_error *err) FS_MUST_CHECK;
void hap_ports_free(struct hap_ports *p);
bool hap_ports_agree(const struct hap_ports *p, const void *page);
/* Below this number are the channels in use. */
uint32_t hap_ports_limit(const struct hap_ports *p);
/* Give each candidate a verdict, as long as it is open whether Xen holds another page of its kind.  wide: ask also about
 * every page that could be an event array and agrees with the state of the channels, not only about likely ones.
 * *complete, or in words what is missing. */
fs_status_t hap_held_ask(struct hap_job *job, bool wide, bool *complete, char *missing, size_t missing_bytes,
                         struct fs_error *err) FS_MUST_CHECK;

/* ---- mover_hap.c ---- */

/* Refresh job->busy from rings and grants. Cheap; called in every pause. */
fs_status_t hap_busy_refresh(struct hap_job *job, struct fs_error *err) FS_MUST_CHECK;
bool hap_busy(const struct hap_job *job, uint64_t gfn);
void hap_stays(struct hap_job *job, uint32_t index, enum fs_reason reason);

/* ---- hap_swap.c, hap_extent.c ---- */

/* Move every TODO frame by 4 KiB swaps. */
fs_status_t hap_swap_all(struct hap_job *job, struct fs_error *err) FS_MUST_CHECK;
/* Move whole aligned extents; what it leaves TODO is for swaps. */
fs_status_t hap_extent_all(struct hap_job *job, struct fs_error *err) FS_MUST_CHECK;
/* Is every frame of [index, index + 512) one aligned extent of gfns and mfns, and to be moved? */
bool hap_extent_whole(const struct hap_job *job, size_t index);
/* ctl->stage_phase FULL, paused: let every gfn of the extent that does not lead to its old frame lead to the stage's copy.
 * Idempotent.  *put counts them. */
fs_status_t hap_extent_put_back(struct hap_job *job, size_t *put, struct fs_error *err) FS_MUST_CHECK;

/* ---- hap_recover.c ---- */
fs_status_t hap_recover(const struct mover_ctx *ctx, uint16_t domid, size_t first, size_t last,
                        struct hv_recover_report *out, struct fs_error *err) FS_MUST_CHECK;

#endif
