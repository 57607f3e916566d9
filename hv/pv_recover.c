/*
 * pv_recover.c - a PV round that the tool did not live to finish.
 *
 * Owns: the decision between rolling back and finishing, and doing it.
 * Invariants:
 *   I1  only the last round counts: a round before it ended with PV_RELEASED.
 *   I2  PV_SWITCHED on disk: the new frames are the guest's; resume it if it still
 *       waits, give the old frames back.  PV_SWITCHED not on disk: the guest cannot
 *       have run since it stopped; undo everything, resume, give the reserve back.
 *   I3  a frame is given back only if the domain still owns it and its p2m does not
 *       lead to it: recovery may itself be killed and run again.
 *   I4  a reserve whose list did not reach the disk is found again as frames that the
 *       domain owns, outside the ranges, that no p2m entry and no M2P entry names.
 * Lock order: the journal's lock is held by the caller.
 */
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "pv_job.h"
#include "unused.h"

struct last_round {
    bool intent, reserved, suspend_intent, suspended, state, moves, switched, resumed, released;
    size_t state_at, moves_at, reserved_at, intent_at;
};

static struct last_round find_round(const struct journal *j, size_t first, size_t last)
{
    struct last_round r = { 0 };
    for (size_t i = first; i < last; i++) {
        const void *data;
        size_t bytes;
        switch (journal_record(j, i, &data, &bytes)) {
        case JR_PV_RESERVE_INTENT:
            memset(&r, 0, sizeof(r));                                   /* I1 */
            r.intent = true;
            r.intent_at = i;
            break;
        case JR_PV_RESERVED: r.reserved = true; r.reserved_at = i; break;
        case JR_PV_SUSPEND_INTENT: r.suspend_intent = true; break;
        case JR_PV_SUSPENDED: r.suspended = true; break;
        case JR_PV_STATE: r.state = true; r.state_at = i; break;
        case JR_PV_MOVES: r.moves = true; r.moves_at = i; break;
        case JR_PV_SWITCHED: r.switched = true; break;
        case JR_PV_RESUMED: r.resumed = true; break;
        case JR_PV_RELEASED: r.released = true; break;
        default: break;
        }
    }
    return r;
}

static fs_status_t load_round(struct pv_job *job, const struct last_round *r, struct fs_error *err)
{
    const void *data;
    size_t bytes;
    fs_status_t s = FS_OK;
    journal_record(job->ctx->journal, r->intent_at, &data, &bytes);
    struct pv_reserve_intent intent;
    if (bytes != sizeof(intent)) {
        return fs_fail(err, FS_BAD_INPUT, "the journal's reserve record of domain %u is damaged", job->dom.domid);
    }
    memcpy(&intent, data, sizeof(intent));
    job->max_pages_before = intent.max_pages_before;
    if (r->reserved) {
        journal_record(job->ctx->journal, r->reserved_at, &data, &bytes);
        if (bytes % sizeof(*job->reserved) != 0) {
            return fs_fail(err, FS_BAD_INPUT, "the journal's reserve list of domain %u is damaged", job->dom.domid);
        }
        job->reserved_count = bytes / sizeof(*job->reserved);
        job->reserved = malloc(bytes + sizeof(*job->reserved));
        if (job->reserved == NULL) {
            return FS_NO_MEMORY;
        }
        if (bytes > 0) {
            memcpy(job->reserved, data, bytes);
        }
    }
    if (r->state) {
        journal_record(job->ctx->journal, r->state_at, &data, &bytes);
        s = pv_parse_state(job, data, bytes, err);
    }
    if (s == FS_OK && r->moves) {
        journal_record(job->ctx->journal, r->moves_at, &data, &bytes);
        s = pv_parse_moves(job, data, bytes, err);
    }
    return s;
}

/* ---- giving back, checked (I3) ----------------------------------------------------- */

#define PIECE_MIN 65536u                /* frames: fewer at once would read the p2m for nothing */
#define PIECES    32u                   /* at most: each reads the p2m once, and takes some 40 bytes a frame of its own */

static fs_status_t mark(struct pv_job *job, const struct frame_set *list, struct fs_error *err)
{
    struct hv_mark_result *marks = calloc(list->count + 1, sizeof(*marks));
    fs_status_t s = marks == NULL ? FS_NO_MEMORY : job->be->ops->mark_owned(job->be, list->list, list->count, marks, err);
    free(marks);
    return s;
}

/* Of frames: those that are nobody's any more.  The list is empty afterwards. */
static fs_status_t give_unused(struct pv_job *job, struct frame_set *frames, bool marked, uint64_t *released, struct fs_error *err)
{
    size_t done = 0;
    struct frame_set give = { 0 };
    frame_set_sort(frames);
    fs_status_t s = unused_of(job->be, &job->dom, job->ctx->host.max_mfn * 2 + (1u << 20), frames, &give, err);
    if (s == FS_OK && marked && give.count > 0) {
        s = mark(job, &give, err);
    }
    if (s == FS_OK && give.count > 0) {
        s = job->be->ops->decrease(job->be, job->dom.domid, give.list, give.count, &done, err);
        *released += done;
    }
    frame_set_free(&give);
    frames->count = 0;
    return s;
}

static size_t piece_of(size_t count)
{
    return count / PIECES + 1 > PIECE_MIN ? count / PIECES + 1 : PIECE_MIN;
}

static fs_status_t give_back(struct pv_job *job, const struct last_round *r, uint64_t *released, struct fs_error *err)
{
    struct frame_set list = { 0 };
    struct pv_move m;
    fs_status_t s = FS_OK;
    if (r->switched) {
        struct pv_cursor c = pv_cursor_at(job, 0);
        while (s == FS_OK && pv_cursor_next(job, &c, &m)) {
            s = list.count == piece_of(job->move_count) ? give_unused(job, &list, true, released, err) : FS_OK;
            s = s == FS_OK ? frame_set_add(&list, m.old) : s;
        }
        if (s == FS_OK) {
            s = give_unused(job, &list, true, released, err);
        }
    }
    for (size_t i = 0; s == FS_OK && r->reserved && i < job->reserved_count; i++) {
        s = list.count == piece_of(job->reserved_count) ? give_unused(job, &list, false, released, err) : FS_OK;
        s = s == FS_OK ? frame_set_add(&list, mfn_make(job->reserved[i])) : s;
    }
    if (s == FS_OK && !r->reserved) {
        s = unused_search(job->be, &job->dom, job->ctx->ranges, &list, err);                /* I4 */
    }
    if (s == FS_OK) {
        s = give_unused(job, &list, false, released, err);
    }
    frame_set_free(&list);
    return s;
}

/* ---- the decision (I2) ---------------------------------------------------------------- */

fs_status_t pv_recover(const struct mover_ctx *ctx, uint16_t domid, size_t first, size_t last,
                       struct hv_recover_report *out, struct fs_error *err)
{
    struct last_round r = find_round(ctx->journal, first, last);
    struct pv_job job = { .ctx = ctx, .be = ctx->be };
    fs_status_t s = ctx->be->ops->domain(ctx->be, domid, &job.dom, err);
    if (s != FS_OK || !r.intent || r.released) {
        return s;
    }
    s = pv_machine_fits(ctx, err);
    if (s != FS_OK) {
        return s;
    }
    s = load_round(&job, &r, err);
    if (s != FS_OK) {
        goto out;
    }
    job.suspended = job.dom.shutdown && r.suspend_intent;
    job.paused = job.dom.paused && r.suspend_intent;
    job.monitor_held = r.suspend_intent;
    job.switched = r.switched;
    if (r.suspend_intent && !job.suspended && !r.suspended) {
        /* The request may still be on its way: take it back, or see it arrive. */
        struct fs_error ignored;
        uint64_t stopped;
        if (ctx->be->ops->suspend(ctx->be, domid, 1000000000ull, &stopped, &ignored) == FS_OK) {
            job.suspended = true;
        }
    }
    if (s == FS_OK && pv_prepare_scratch(&job) != FS_OK) {
        s = FS_NO_MEMORY;
        goto out;
    }
    if (job.suspended && !r.switched && r.state) {
        job.dropped = true;                 /* perhaps; undo does not mind */
        job.applied = r.moves;
        s = pv_undo(&job, err);
    }
    if (s == FS_OK) {
        s = pv_run_again(&job, err);
    }
    if (s == FS_OK) {
        s = give_back(&job, &r, &out->frames_released, err);
    }
    if (s == FS_OK) {
        s = ctx->be->ops->set_max_pages(ctx->be, domid, job.max_pages_before, err);
    }
    if (s == FS_OK) {
        out->domains_finished += r.switched;
        out->domains_rolled_back += !r.switched;
        mover_event(ctx, EV_RECOVER, domid, domid, out->frames_released, r.switched ? "finished" : "rolled back");
    }
out:
    pv_job_free(&job);
    return s;
}
