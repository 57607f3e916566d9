/*
 * coop_job.h - one guest that moves its own pages, a round at a time (private to mover_coop.c, coop_*.c).
 *
 * Owns: struct coop_job.  A round reserves frames, has pages moved to them, looks at what really happened, and gives back
 * what is of no more use.  It is the unit of recovery, which needs no more than the same look.
 */
#ifndef FRAMESHIFT_HV_COOP_JOB_H
#define FRAMESHIFT_HV_COOP_JOB_H

#include "coop_channel.h"
#include "mover.h"
#include "unused.h"

/* A round reads the whole p2m twice: not more than some dozens of rounds a guest, not more than 1 GiB of frames in hand. */
#define COOP_ROUND_LEAST 4096u
#define COOP_ROUND_MOST  262144u
#define COOP_ROUNDS      32u

struct coop_move { uint64_t pfn; mfn_t from, to; };             /* also the record COOP_REQUEST */
struct coop_reserve { uint64_t max_pages_before, count; };      /* COOP_RESERVE */

/* One page that is to move. */
enum coop_state { COOP_TODO, COOP_MOVED, COOP_STAYS };
struct coop_page {
    uint32_t pfn, offset;                       /* of its frame from job->base */
    uint8_t reason, tries;
    uint8_t state : 2, free : 1, shared : 1, whole : 1;     /* whole: of a block of job->whole */
};
_Static_assert(sizeof(struct coop_page) == 12, "one for each frame of the range");

struct coop_job {
    const struct mover_ctx *ctx;
    struct hv_backend *be;
    struct hv_domain dom;
    struct mover_result *result;
    struct coop_channel channel;
    mfn_t base;                                 /* where the ranges begin */
    struct coop_page *pages;                    /* ascending by pfn, those that the guest called free after the others */
    size_t page_count;
    uint64_t *whole, block_count;               /* bitmap of pageblocks all of whose pages are to move */
    /* the round */
    mfn_t *reserved;
    size_t reserved_count;
    struct coop_move *moves;                    /* the i-th goes to reserved[i]; in the order of pages */
    uint32_t *status;                           /* the guest's answers */
    size_t *page_of, *ask, move_count;          /* ask: the moves that a request names, in its order */
    bool *moved;                                /* what really happened */
    bool max_raised;
};

/* ---- coop_round.c ---- */
fs_status_t coop_reserve(struct coop_job *job, size_t count, struct fs_error *err) FS_MUST_CHECK;
/* As many of count whole 2 MiB extents as the nodes have, none perhaps: job->reserved has FS_SP_PAGES adjacent frames of each. */
fs_status_t coop_reserve_extents(struct coop_job *job, size_t count, struct fs_error *err) FS_MUST_CHECK;
/* Ask the guest for the round's moves; job->status afterwards. FS_TIMEOUT, FS_BAD_INPUT ...: the round may have been done in part. */
fs_status_t coop_request(struct coop_job *job, bool shared, struct fs_error *err) FS_MUST_CHECK;
/* Ask once more for those that were busy; *again: how many. */
fs_status_t coop_request_busy(struct coop_job *job, size_t *again, struct fs_error *err) FS_MUST_CHECK;
/* By p2m, M2P and owner: job->moved. pre: the guest is idle, for good or because the channel's session says so. */
fs_status_t coop_look(struct coop_job *job, struct fs_error *err) FS_MUST_CHECK;
/* Old frames marked and given back, unused new ones too; max_pages as before; the record COOP_DONE. FS_NEEDS_RECOVER. */
fs_status_t coop_release(struct coop_job *job, struct fs_error *err) FS_MUST_CHECK;
void coop_round_free(struct coop_job *job);

/* ---- mover_coop.c ---- */
/* Look, note what moved, release; s: how the round went so far. What the pages' states say afterwards is true. */
fs_status_t coop_round_end(struct coop_job *job, fs_status_t s, struct fs_error *err) FS_MUST_CHECK;

/* ---- coop_extent.c ---- */
/* Which blocks are to move as a whole (job->whole, pages' whole), and how many of them are one piece of machine now. pre: job->pages is complete;
 * todo: bitmap of the pfns in it */
fs_status_t coop_extent_plan(struct coop_job *job, const uint64_t *todo, uint64_t pfn_end) FS_MUST_CHECK;
/* Rounds for those blocks: each into one extent, page by page to the same place in it. What stays TODO is for the other rounds. */
fs_status_t coop_extent_all(struct coop_job *job, struct fs_error *err) FS_MUST_CHECK;

/* ---- coop_recover.c ---- */
fs_status_t coop_recover(const struct mover_ctx *ctx, uint16_t domid, size_t first, size_t last, struct hv_recover_report *out,
                         struct fs_error *err) FS_MUST_CHECK;

static inline size_t coop_round_pages(const struct coop_job *job)
{
    uint64_t n = job->channel.pfn_end / COOP_ROUNDS;
    return n < COOP_ROUND_LEAST ? COOP_ROUND_LEAST : n > COOP_ROUND_MOST ? COOP_ROUND_MOST : (size_t)n;
}
static inline uint64_t coop_now(const struct coop_job *job) { return job->be->ops->clock_ns(job->be); }
static inline uint64_t coop_limit_pfns(const struct mover_ctx *ctx) { return ctx->host.max_mfn * 2 + (1u << 20); }
static inline uint64_t coop_timeout_ns(const struct mover_ctx *ctx)
{
    return ctx->options->suspend_timeout_ns != 0 ? ctx->options->suspend_timeout_ns : 60000000000ull;
}
void coop_phase(struct coop_job *job, const char *name, uint64_t *since, uint64_t count);

#endif
