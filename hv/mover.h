/*
 * mover.h - how the frames of one kind of guest are moved.
 *
 * Owns: struct mover_ops and the context that evacuate.c hands to a mover.
 * mover_pv.c, mover_hap.c and mover_coop.c implement it; evacuate.c and
 * recover.c call it.  A mover works on one domain at a time and leaves it
 * running, whatever it returns, unless it returns FS_NEEDS_RECOVER or
 * FS_GUEST_GONE.
 */
#ifndef FRAMESHIFT_HV_MOVER_H
#define FRAMESHIFT_HV_MOVER_H

#include "backend.h"
#include "hv.h"
#include "journal.h"
#include "range.h"
#include "room.h"

struct mover_ctx {
    struct hv_backend *be;
    struct journal *journal;
    const struct hv_evacuate_options *options;
    const struct mfn_range_set *ranges;     /* what is to be emptied */
    struct room *room;                      /* where new frames come from (nodes, free counts) */
    hv_event_fn on_event;                   /* may be NULL */
    void *event_arg;
    struct hv_host host;
    const volatile int *interrupted;        /* hv_interrupt(): stop at the next safe point; may be NULL */
    bool one_thread;                        /* hv_config's */
};
static inline bool mover_interrupted(const struct mover_ctx *ctx)
{
    return ctx->interrupted != NULL && *ctx->interrupted != 0;
}

/* The frames that a mover is asked to move: 8 bytes each, sorted by mfn. */
struct mover_frame {
    uint32_t offset;                        /* from the list's base */
    uint32_t gfn;                           /* by the M2P, unverified; UINT32_MAX: none */
};
struct mover_list {
    mfn_t base;
    struct mover_frame *list;
    size_t count, capacity;
};
/* Ascending. FS_BAD_RANGE: more than 16 TiB beyond base. */
fs_status_t mover_list_add(struct mover_list *l, mfn_t mfn, uint64_t gfn) FS_MUST_CHECK;
void mover_list_free(struct mover_list *l);             /* leaves it empty, base as it was */
static inline mfn_t mover_list_mfn(const struct mover_list *l, size_t i) { return mfn_add(l->base, l->list[i].offset); }
static inline uint64_t mover_list_gfn(const struct mover_list *l, size_t i)
{
    return l->list[i].gfn == UINT32_MAX ? FS_FRAME_NONE : l->list[i].gfn;
}

struct mover_result {
    struct hv_domain_report *report;        /* filled: moved, blackout, phases ... */
    struct fs_blocker *blockers;            /* malloc'd, grown with mover_block() */
    size_t blocker_count, blocker_capacity;
};
fs_status_t mover_block(struct mover_result *r, mfn_t mfn, uint64_t gfn, uint16_t domid, enum fs_reason reason) FS_MUST_CHECK;
void mover_event(const struct mover_ctx *ctx, enum fs_event_id id, uint16_t domid, uint64_t a, uint64_t b, const char *note);
/* Add ns and count to the phase of that name (made at first use). */
void mover_phase(struct hv_domain_report *r, const char *name, uint64_t ns, uint64_t count);

struct mover_ops {
    const char *name;
    enum hv_mover id;
    /* Move every frame of list (all owned by dom) that can be moved; every other one gets a blocker.
     * The old frames end marked and released (offlined).  The list is the mover's: it may free it as soon as it can do without.
     * FS_OK: done, blockers tell the rest.  Other: the guest runs as before and the frames are where they were,
     * but for what report->moved says. */
    fs_status_t (*move)(const struct mover_ctx *ctx, const struct hv_domain *dom, struct mover_list *list,
                        struct mover_result *result, struct fs_error *err);
    /* Finish or roll back what journal records [first, last) of this domain say.  Idempotent: it may be killed as well. */
    fs_status_t (*recover)(const struct mover_ctx *ctx, uint16_t domid, size_t first, size_t last,
                           struct hv_recover_report *out, struct fs_error *err);
};
extern const struct mover_ops mover_pv, mover_hap, mover_coop;

/* Payloads of the journal records that evacuate.c writes. */
struct journal_begin {
    uint32_t version;                       /* JOURNAL_VERSION */
    uint32_t flags;                         /* reserved, 0 */
    uint64_t start_time_s;
    char target[HV_NAME_BYTES * 2];
};
#define JOURNAL_VERSION 2u           /* 2: 32-bit frames in PV_RESERVED and PV_MOVES */
struct journal_domain {
    uint16_t domid;
    uint8_t mover;                          /* enum hv_mover */
    uint8_t reserved[5];
    uint8_t uuid[16];
    uint64_t max_pages;                     /* before we touched it */
};

#endif
