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

#define SCAN_PAGES 16384u

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
        if (bytes % sizeof(mfn_t) != 0) {
            return fs_fail(err, FS_BAD_INPUT, "the journal's reserve list of domain %u is damaged", job->dom.domid);
        }
        job->reserved_count = bytes / sizeof(mfn_t);
        job->reserved = malloc(bytes + sizeof(mfn_t));
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

struct give_back { mfn_t *list; size_t count, capacity; };

static fs_status_t give_add(struct give_back *g, mfn_t m)
{
    if (g->count == g->capacity) {
        size_t capacity = g->capacity == 0 ? 1024 : g->capacity * 2;
        mfn_t *grown = realloc(g->list, capacity * sizeof(*grown));
        if (grown == NULL) {
            return FS_NO_MEMORY;
        }
        g->list = grown;
        g->capacity = capacity;
    }
    g->list[g->count++] = m;
    return FS_OK;
}

static int mfn_order(const void *a, const void *b)
{
    const mfn_t *x = a, *y = b;
    return x->n < y->n ? -1 : x->n > y->n;
}

/* Frames of list that the domain owns and its p2m does not name. */
static fs_status_t filter_unused(struct pv_job *job, const mfn_t *list, size_t count, const mfn_t *used, size_t used_count,
                                 struct give_back *out, struct fs_error *err)
{
    uint8_t *types = malloc(count + 1), *flags = malloc(count + 1);
    bool *owned = malloc((count + 1) * sizeof(*owned));
    fs_status_t s = FS_NO_MEMORY;
    if (types != NULL && flags != NULL && owned != NULL) {
        s = job->be->ops->types(job->be, job->dom.domid, list, count, types, flags, owned, err);
    }
    for (size_t i = 0; i < count && s == FS_OK; i++) {
        if (owned[i] && (used_count == 0 || bsearch(&list[i], used, used_count, sizeof(mfn_t), mfn_order) == NULL)) {
            s = give_add(out, list[i]);
        }
    }
    free(types);
    free(flags);
    free(owned);
    return s;
}

/* I4: scan the machine for frames that the domain owns and that nothing names. */
static fs_status_t find_orphans(struct pv_job *job, const mfn_t *used, size_t used_count, struct give_back *out, struct fs_error *err)
{
    struct mfn_range_set ram = { 0 };
    struct hv_frame *frames = malloc(SCAN_PAGES * sizeof(*frames));
    fs_status_t s = frames == NULL ? FS_NO_MEMORY : job->be->ops->ram(job->be, &ram, err);
    for (size_t r = 0; r < ram.count && s == FS_OK; r++) {
        for (uint64_t m = ram.ranges[r].start.n; m < ram.ranges[r].end.n && s == FS_OK; m += SCAN_PAGES) {
            uint64_t end = m + SCAN_PAGES < ram.ranges[r].end.n ? m + SCAN_PAGES : ram.ranges[r].end.n;
            s = job->be->ops->frames(job->be, (struct mfn_range){ mfn_make(m), mfn_make(end) }, frames, err);
            for (uint64_t i = m; i < end && s == FS_OK; i++) {
                const struct hv_frame *f = &frames[i - m];
                mfn_t at = mfn_make(i);
                /* The two kinds of owned frames without a pfn that are not ours: Xen's shared pages are refused by decrease. */
                if (f->owner == HV_FRAME_DOMAIN && f->domid == job->dom.domid && f->gfn == FS_FRAME_NONE &&
                    f->type == HV_TYPE_NONE && !mfn_eq(at, job->dom.shared_info) && !mfn_set_contains(job->ctx->ranges, at) &&
                    (used_count == 0 || bsearch(&at, used, used_count, sizeof(mfn_t), mfn_order) == NULL)) {
                    s = give_add(out, at);
                }
            }
        }
    }
    mfn_set_free(&ram);
    free(frames);
    return s;
}

/* Every frame that the guest's p2m names now, sorted. */
static fs_status_t used_frames(struct pv_job *job, mfn_t **out, size_t *count, struct fs_error *err)
{
    struct pv_p2m p2m;
    *out = NULL;
    *count = 0;
    fs_status_t s = pv_p2m_read(job->be, &job->dom, job->ctx->host.max_mfn * 2 + (1u << 20), &p2m, err);
    if (s != FS_OK) {
        return s;
    }
    mfn_t *list = malloc((p2m.pfn_count + 1) * sizeof(*list));
    if (list == NULL) {
        pv_p2m_free(&p2m);
        return FS_NO_MEMORY;
    }
    for (uint64_t pfn = 0; pfn < p2m.pfn_count; pfn++) {
        mfn_t m = pv_p2m_get(&p2m, pfn);
        if (!mfn_is_none(m)) {
            list[(*count)++] = m;
        }
    }
    qsort(list, *count, sizeof(*list), mfn_order);
    *out = list;
    pv_p2m_free(&p2m);
    return FS_OK;
}

static fs_status_t give_back(struct pv_job *job, const struct last_round *r, uint64_t *released, struct fs_error *err)
{
    mfn_t *used = NULL, *old = NULL;
    size_t used_count = 0, done = 0;
    struct give_back give = { 0 }, marked = { 0 };
    fs_status_t s = used_frames(job, &used, &used_count, err);
    if (s == FS_OK && r->reserved) {
        s = filter_unused(job, job->reserved, job->reserved_count, used, used_count, &give, err);
    } else if (s == FS_OK) {
        s = find_orphans(job, used, used_count, &give, err);
    }
    if (s == FS_OK && r->switched) {
        old = malloc((job->move_count + 1) * sizeof(*old));
        s = old == NULL ? FS_NO_MEMORY : FS_OK;
        for (size_t i = 0; i < job->move_count && s == FS_OK; i++) {
            old[i] = job->moves[i].old;
        }
        if (s == FS_OK) {
            qsort(old, job->move_count, sizeof(*old), mfn_order);
            s = filter_unused(job, old, job->move_count, used, used_count, &marked, err);
        }
    }
    if (s == FS_OK && marked.count > 0) {
        struct hv_mark_result *marks = calloc(marked.count, sizeof(*marks));
        s = marks == NULL ? FS_NO_MEMORY : job->be->ops->mark_owned(job->be, marked.list, marked.count, marks, err);
        free(marks);
        if (s == FS_OK) {
            s = job->be->ops->decrease(job->be, job->dom.domid, marked.list, marked.count, &done, err);
            *released += done;
        }
    }
    if (s == FS_OK && give.count > 0) {
        s = job->be->ops->decrease(job->be, job->dom.domid, give.list, give.count, &done, err);
        *released += done;
    }
    free(used);
    free(old);
    free(give.list);
    free(marked.list);
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
