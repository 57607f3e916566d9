/*
 * pv_job.h - one suspend's worth of moving a PV guest (private to mover_pv.c, pv_*.c).
 *
 * Owns: struct pv_job, the state of one round: what was reserved, what the guest
 * looked like when it stopped, and what moves where.  A round is the unit of
 * recovery: before PV_SWITCHED is on disk it is undone, after it it is finished.
 */
#ifndef FRAMESHIFT_HV_PV_JOB_H
#define FRAMESHIFT_HV_PV_JOB_H

#include "bitmap.h"
#include "mover.h"
#include "pv_p2m.h"
#include "pv_tables.h"
#include "xlat.h"

#include <stdlib.h>

#define PV_THREADS 4u           /* pv_parallel() never makes more parts */
#define PV_SPARE (2u * PV_THREADS)  /* reserved frames that the probes pair single frames with: two a thread */

struct pv_job {
    const struct mover_ctx *ctx;
    struct hv_backend *be;
    struct hv_domain dom;
    struct mover_result *result;            /* NULL in recovery */

    uint64_t max_pages_before;
    uint32_t *reserved;                     /* owned by the guest, outside its p2m; ascending */
    size_t reserved_count, reserved_used;

    struct hv_pv_vcpu *vcpus;               /* as they were when the guest stopped */
    size_t vcpu_count;
    struct pv_p2m p2m;
    uint64_t *owned;                        /* bitmap by pfn: Xen says the guest owns the frame of this p2m entry */
    struct pv_tables tables;
    uint64_t *moves;                        /* bitmap by pfn, whole pages of the list; the i-th that is set goes to reserved[i] */
    size_t move_count;
    uint64_t bitmap_pfns;                   /* for which the two have room */
    struct xlat x;
    uint8_t *scratch;                       /* PV_SCRATCH_BYTES for each part of a pv_parallel() */

    uint64_t stopped_ns, running_ns;        /* when the guest was first seen stopped, and when it was let run again; 0 not yet */
    bool max_raised, monitor_held, suspended, paused, dropped, applied, switched;
};

/* ---- pv_moves.c: which frames move, in 4 bytes and some bits a frame ---- */
#define PV_SCRATCH_BYTES (320u << 10)
struct pv_move { uint64_t pfn; mfn_t old, new; };                 /* new: of no meaning before the probe's answer */
struct pv_cursor { uint64_t word, words, bits; size_t index; };
/* Frames of the machine that a round can have to do with have 32 bits: FS_UNSUPPORTED beyond 16 TiB. */
fs_status_t pv_machine_fits(const struct mover_ctx *ctx, struct fs_error *err) FS_MUST_CHECK;
/* Bitmaps for the p2m that was read, all 0. */
fs_status_t pv_bitmaps(struct pv_job *job) FS_MUST_CHECK;
/* Everything that grows with the guest or the range, taken and touched before the guest stops: a page fault costs a PV dom0
 * several microseconds, and there would be thousands. */
fs_status_t pv_prepare(struct pv_job *job) FS_MUST_CHECK;
fs_status_t pv_prepare_scratch(struct pv_job *job) FS_MUST_CHECK;     /* of it, what recovery needs */
/* Scratch memory of one part, for lists that the backend takes: whoever runs the part has it for himself. */
static inline void *pv_scratch(const struct pv_job *job, unsigned part) { return job->scratch + (size_t)part * PV_SCRATCH_BYTES; }
/* The moves in ascending order of pfn, from the index-th on. */
struct pv_cursor pv_cursor_at(const struct pv_job *job, size_t index);
static inline bool pv_cursor_next(const struct pv_job *job, struct pv_cursor *c, struct pv_move *out)
{
    while (c->bits == 0) {
        if (++c->word >= c->words) {
            return false;
        }
        c->bits = job->moves[c->word];
    }
    out->pfn = c->word * 64 + (uint64_t)__builtin_ctzll(c->bits);
    c->bits &= c->bits - 1;
    out->old = mfn_make(job->p2m.entries[out->pfn]);
    out->new = mfn_make(job->reserved[c->index++]);
    return true;
}
/* Turn job->x round: it goes from the new frames to the old ones from then on. */
void pv_index_new(struct pv_job *job);

/* ---- pv_reserve.c: frames in and out ---- */
fs_status_t pv_reserve(struct pv_job *job, size_t count, struct fs_error *err) FS_MUST_CHECK;
/* Give back what was reserved and not used, and the old frames of what moved; restore max_pages.
 * Any failure leaves the rest to recovery: the caller returns FS_NEEDS_RECOVER. */
fs_status_t pv_release(struct pv_job *job, struct fs_error *err) FS_MUST_CHECK;

/* ---- pv_switch.c: the stopped guest ---- */
fs_status_t pv_capture(struct pv_job *job, struct fs_error *err) FS_MUST_CHECK;     /* p2m, tables, vCPUs */
fs_status_t pv_capture_tables(struct pv_job *job, struct fs_error *err) FS_MUST_CHECK; /* pre: job->p2m is read */
fs_status_t pv_drop(struct pv_job *job, struct fs_error *err) FS_MUST_CHECK;        /* every type reference */
fs_status_t pv_copy(struct pv_job *job, struct fs_error *err) FS_MUST_CHECK;
fs_status_t pv_apply(struct pv_job *job, bool forward, struct fs_error *err) FS_MUST_CHECK; /* tables, p2m, M2P */
fs_status_t pv_reload(struct pv_job *job, bool forward, struct fs_error *err) FS_MUST_CHECK; /* pins, vCPUs */
/* From any point after pv_capture(): references dropped, everything back to the old frames, pins and vCPUs as they were. */
fs_status_t pv_undo(struct pv_job *job, struct fs_error *err) FS_MUST_CHECK;

/* ---- pv_verify.c: --verify ---- */
struct pv_hashes { uint64_t *sums; };       /* one for four moves */
static inline struct pv_hashes pv_hashes_new(size_t moves) { return (struct pv_hashes){ calloc(moves / 4 + 1, sizeof(uint64_t)) }; }
fs_status_t pv_hash_before(struct pv_job *job, struct pv_hashes *h, struct fs_error *err) FS_MUST_CHECK;
fs_status_t pv_hash_after(struct pv_job *job, const struct pv_hashes *h, uint64_t *mismatches, struct fs_error *err) FS_MUST_CHECK;

/* ---- pv_held.c ---- */
/* Blockers called "foreign-reference" get the name of what they look like. The guest runs. */
void pv_held_name(const struct mover_ctx *ctx, uint16_t domid, struct mover_result *result);
/* Which of the blockers called "foreign-reference" are LDT pages that Xen had mapped: they get that name.  With wait: then wait,
 * shortly, until Xen has let go of one.  True: at least one is free now (its blocker's reason is FS_REASON_NONE).  The guest runs. */
bool pv_held_ldt(const struct mover_ctx *ctx, struct mover_result *result, bool wait);

/* ---- pv_journal.c: the round on disk ---- */
struct pv_reserve_intent { uint64_t max_pages_before, count; };     /* PV_RESERVED is job->reserved as it is */
fs_status_t pv_journal_state(struct pv_job *job, struct fs_error *err) FS_MUST_CHECK;
fs_status_t pv_journal_moves(struct pv_job *job, struct fs_error *err) FS_MUST_CHECK;
fs_status_t pv_parse_state(struct pv_job *job, const void *data, size_t bytes, struct fs_error *err) FS_MUST_CHECK;
fs_status_t pv_parse_moves(struct pv_job *job, const void *data, size_t bytes, struct fs_error *err) FS_MUST_CHECK;

/* ---- pv_recover.c ---- */
fs_status_t pv_recover(const struct mover_ctx *ctx, uint16_t domid, size_t first, size_t last,
                       struct hv_recover_report *out, struct fs_error *err) FS_MUST_CHECK;

fs_status_t pv_run_again(struct pv_job *job, struct fs_error *err) FS_MUST_CHECK;   /* resume, unpause, release the monitor */
void pv_job_free(struct pv_job *job);

/* Split [0, count) over the dom0's processors (ctx may bar that); fn on each part, the first failure wins.  fn may use [mt]
 * members only. */
typedef fs_status_t (*pv_part_fn)(void *arg, unsigned part, size_t first, size_t end, struct fs_error *err);
unsigned pv_parts(const struct mover_ctx *ctx);             /* how many there will be, at most PV_THREADS */
fs_status_t pv_parallel(const struct mover_ctx *ctx, size_t count, pv_part_fn fn, void *arg, struct fs_error *err) FS_MUST_CHECK;

static inline uint64_t pv_now(const struct pv_job *job) { return job->be->ops->clock_ns(job->be); }
/* Close a phase that began at *since: adds it to the report and restarts the clock. */
void pv_phase(struct pv_job *job, const char *name, uint64_t *since, uint64_t count);

#endif
