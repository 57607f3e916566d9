/*
 * pv_reserve.c - new frames for a PV guest before it stops, old ones away after it runs.
 *
 * Owns: job->reserved[], the guest's max_pages while a round lasts.
 * Invariants:
 *   I1  every reserved frame lies outside the ranges: nodes of the ranges are barred
 *       in the room, and a frame that comes from inside anyway is given back at once.
 *   I2  reserved[0 .. reserved_used) are in the p2m after the switch; the rest and,
 *       before the switch, all of them are nobody's but this round's.
 *   I3  an old frame is given back only after its marking, so that it ends offlined
 *       and never passes through the heap; and only after the guest runs again, so
 *       that giving back costs no blackout.
 *   I4  lists for the machine are made a piece at a time from what is kept anyway.
 *   I5  what Xen would not take back is tried again and then left to recovery, whose
 *       journal still names it: no frame is forgotten.
 * Why increase and decrease and not XENMEM_exchange: exchange frees the old frame at
 * once, which takes a buffer and a second copy inside the blackout.
 * Lock order: none.
 */
#include "pv_job.h"

#include <stdlib.h>

#include "frameshift/assert.h"

#define BATCH 4096u
#define GIVE_TRIES 3

/* Give frames back that never should have been handed out (I1), and keep the others.  *kept of them. */
static fs_status_t keep_outside(struct pv_job *job, mfn_t *list, size_t count, size_t *kept, struct fs_error *err)
{
    size_t bad = 0, done = 0;
    *kept = 0;
    for (size_t i = 0; i < count; i++) {
        if (mfn_set_contains(job->ctx->ranges, list[i])) {
            list[bad++] = list[i];
        } else {
            job->reserved[job->reserved_count++] = (uint32_t)list[i].n;         /* pv_machine_fits() */
            ++*kept;
        }
    }
    if (bad == 0) {
        return FS_OK;
    }
    fs_status_t s = job->be->ops->decrease(job->be, job->dom.domid, list, bad, &done, err);
    if (s == FS_OK && done != bad) {
        s = fs_fail(err, FS_REFUSED, "domain %u: %zu frames inside the range were handed out and %zu could not be given back",
                    job->dom.domid, bad, bad - done);
    }
    for (size_t i = 0; s != FS_OK && i < bad; i++) {                            /* I5: release tries again */
        job->reserved[job->reserved_count++] = (uint32_t)list[i].n;
    }
    return s;
}

static fs_status_t take_frames(struct pv_job *job, size_t count, mfn_t *list, struct fs_error *err)
{
    while (job->reserved_count < count) {
        uint32_t node;
        uint64_t room;
        if (!room_next(job->ctx->room, &node, &room)) {
            return fs_fail(err, FS_NO_ROOM, "domain %u: %zu more frames are needed outside the range and no node has any left",
                           job->dom.domid, count - job->reserved_count);
        }
        size_t want = count - job->reserved_count, done = 0, kept;
        want = want > BATCH ? BATCH : want;
        want = want > room ? (size_t)room : want;
        fs_status_t s = job->be->ops->increase(job->be, job->dom.domid, node, want, list, &done, err);
        if (s == FS_OK || s == FS_NO_ROOM) {
            if (done < want) {
                room_exhausted(job->ctx->room, node);
            } else {
                room_take(job->ctx->room, node, done);
            }
        }
        fs_status_t kept_all = keep_outside(job, list, done, &kept, err);
        s = s == FS_NO_ROOM ? FS_OK : s;
        s = s == FS_OK ? kept_all : s;
        if (s != FS_OK) {
            return s;
        }
        if (kept == 0 && done > 0) {        /* this node gives frames of the range only */
            room_exhausted(job->ctx->room, node);
        }
    }
    return FS_OK;
}

static int frame_order(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

fs_status_t pv_reserve(struct pv_job *job, size_t count, struct fs_error *err)
{
    const struct hv_backend_ops *ops = job->be->ops;
    uint64_t since = pv_now(job);
    struct pv_reserve_intent intent = { .max_pages_before = job->max_pages_before, .count = count };
    mfn_t *list = malloc(BATCH * sizeof(*list));
    job->reserved = malloc((count + 1) * sizeof(*job->reserved));
    fs_status_t s = list == NULL || job->reserved == NULL ? FS_NO_MEMORY : FS_OK;
    if (s == FS_OK) {
        s = journal_append(job->ctx->journal, JR_PV_RESERVE_INTENT, &intent, sizeof(intent), err);
    }
    uint64_t need_max = job->dom.tot_pages + count;
    if (s == FS_OK && need_max > job->max_pages_before) {
        s = ops->set_max_pages(job->be, job->dom.domid, need_max, err);
        job->max_raised = s == FS_OK;
    }
    if (s == FS_OK) {
        s = take_frames(job, count, list, err);
    }
    free(list);
    if (s != FS_OK) {
        return s;
    }
    /* Ascending, as the pfns that they go to: the next move of this guest then finds runs of frames, and so a short journal. */
    qsort(job->reserved, job->reserved_count, sizeof(*job->reserved), frame_order);
    s = journal_append(job->ctx->journal, JR_PV_RESERVED, job->reserved, job->reserved_count * sizeof(*job->reserved), err);
    if (s == FS_OK) {
        pv_phase(job, "reserve", &since, job->reserved_count);
        mover_event(job->ctx, EV_RESERVE, job->dom.domid, job->reserved_count, 0, NULL);
    }
    return s;
}

/* ---- giving back --------------------------------------------------------------------- */

/* One piece of a list (I4): what Xen is told, and what it answers. */
struct piece {
    mfn_t list[BATCH];
    size_t count;
    uint8_t types[BATCH], flags[BATCH];
    bool owned[BATCH];
    struct hv_mark_result marks[BATCH];
};

/* Drop from the piece what the guest does not own (any more). */
static fs_status_t keep_owned(struct pv_job *job, struct piece *p, struct fs_error *err)
{
    size_t kept = 0;
    fs_status_t s = job->be->ops->types(job->be, job->dom.domid, p->list, p->count, p->types, p->flags, p->owned, err);
    for (size_t i = 0; s == FS_OK && i < p->count; i++) {
        if (p->owned[i]) {
            p->list[kept++] = p->list[i];
        }
    }
    p->count = s == FS_OK ? kept : p->count;
    return s;
}

/* Give a piece back; a refusal is tried again with what is left of it (I5). */
static fs_status_t give_back(struct pv_job *job, struct piece *p, struct fs_error *err)
{
    fs_status_t s = FS_OK;
    for (int i = 0; s == FS_OK && i < GIVE_TRIES && p->count > 0; i++) {
        size_t done = 0;
        fs_status_t d = job->be->ops->decrease(job->be, job->dom.domid, p->list, p->count, &done, err);
        if (d == FS_OK && done == p->count) {
            p->count = 0;
            break;
        }
        s = keep_owned(job, p, err);
    }
    if (s == FS_OK && p->count > 0) {
        s = fs_fail(err, FS_NEEDS_RECOVER, "domain %u runs, but Xen would not take back %zu of its spare frames; run `frameshift recover`",
                    job->dom.domid, p->count);
    }
    return s;
}

static fs_status_t mark_and_give(struct pv_job *job, struct piece *p, uint64_t *mark_ns, struct fs_error *err)
{
    uint64_t since = pv_now(job);
    fs_status_t s = FS_REFUSED;
    for (int i = 0; s != FS_OK && i < GIVE_TRIES; i++) {
        s = job->be->ops->mark_owned(job->be, p->list, p->count, p->marks, err);
    }
    *mark_ns += pv_now(job) - since;
    return s == FS_OK ? give_back(job, p, err) : s;
}

/* Mark (so that they end offlined) and give back the old frames of a switched round. */
static fs_status_t release_old(struct pv_job *job, struct piece *p, struct fs_error *err)
{
    uint64_t since = pv_now(job), mark_ns = 0;
    size_t n = 0;
    fs_status_t s = FS_OK;
    p->count = 0;
    /* Ascending by frame: marking wants runs, and the moves are in pfn order. */
    for (size_t r = 0; s == FS_OK && r < job->x.ranges->count; r++) {
        struct mfn_range range = job->x.ranges->ranges[r];
        for (mfn_t m = range.start; s == FS_OK && m.n < range.end.n; m.n++) {
            if (xlat_moves(&job->x, m)) {
                p->list[p->count++] = m;
                n++;
            }
            if (p->count == BATCH) {
                s = mark_and_give(job, p, &mark_ns, err);
            }
        }
    }
    if (s == FS_OK && p->count > 0) {
        s = mark_and_give(job, p, &mark_ns, err);
    }
    if (s == FS_OK) {
        ASSERT_CMP(n, ==, job->move_count);
        uint64_t both = pv_now(job) - since;
        mover_phase(job->result->report, "mark", mark_ns, n);
        mover_phase(job->result->report, "release", both > mark_ns ? both - mark_ns : 0, n);
        mover_event(job->ctx, EV_RELEASE, job->dom.domid, n, n, NULL);
    }
    return s;
}

/* The reserved frames that no pfn has: all before the switch (I2). */
static fs_status_t release_spare(struct pv_job *job, struct piece *p, struct fs_error *err)
{
    fs_status_t s = FS_OK;
    for (size_t i = job->switched ? job->reserved_used : 0; i < job->reserved_count && s == FS_OK; ) {
        for (p->count = 0; p->count < BATCH && i < job->reserved_count; i++) {
            p->list[p->count++] = mfn_make(job->reserved[i]);
        }
        s = give_back(job, p, err);
    }
    return s;
}

fs_status_t pv_release(struct pv_job *job, struct fs_error *err)
{
    const struct hv_backend_ops *ops = job->be->ops;
    struct piece *p = malloc(sizeof(*p));
    fs_status_t s = p == NULL ? FS_NO_MEMORY : FS_OK;
    if (s == FS_OK && job->switched && job->move_count > 0) {
        s = release_old(job, p, err);
    }
    if (s == FS_OK) {
        s = release_spare(job, p, err);
    }
    for (int i = 0; s == FS_OK && job->max_raised && i < GIVE_TRIES; i++) {
        fs_status_t m = ops->set_max_pages(job->be, job->dom.domid, job->max_pages_before, err);
        job->max_raised = m != FS_OK;
        s = i + 1 < GIVE_TRIES ? FS_OK : m;
    }
    free(p);
    return s;
}
