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
 *   I4  what Xen would not take back is tried again and then left to recovery, whose
 *       journal still names it: no frame is forgotten.
 * Why increase and decrease and not XENMEM_exchange: exchange frees the old frame at
 * once, which takes a buffer and a second copy inside the blackout.
 * Lock order: none.
 */
#include "pv_job.h"

#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"

#define BATCH 4096u
#define GIVE_TRIES 3

/* Give frames back that never should have been handed out (I1); compacts the list in place. */
static fs_status_t drop_in_range(struct pv_job *job, mfn_t *list, size_t *count, struct fs_error *err)
{
    size_t kept = 0, bad = 0;
    mfn_t *inside = malloc((*count + 1) * sizeof(*inside));
    if (inside == NULL) {
        return FS_NO_MEMORY;
    }
    for (size_t i = 0; i < *count; i++) {
        if (mfn_set_contains(job->ctx->ranges, list[i])) {
            inside[bad++] = list[i];
        } else {
            list[kept++] = list[i];
        }
    }
    *count = kept;
    fs_status_t s = FS_OK;
    if (bad > 0) {
        size_t done = 0;
        s = job->be->ops->decrease(job->be, job->dom.domid, inside, bad, &done, err);
        if (s == FS_OK && done != bad) {
            s = fs_fail(err, FS_REFUSED, "domain %u: %zu frames inside the range were handed out and %zu could not be given back",
                        job->dom.domid, bad, bad - done);
        }
    }
    free(inside);
    return s;
}

static int mfn_order(const void *a, const void *b)
{
    const mfn_t *x = a, *y = b;
    return x->n < y->n ? -1 : x->n > y->n;
}

fs_status_t pv_reserve(struct pv_job *job, size_t count, struct fs_error *err)
{
    const struct hv_backend_ops *ops = job->be->ops;
    uint64_t since = pv_now(job);
    struct pv_reserve_intent intent = { .max_pages_before = job->max_pages_before, .count = count };
    job->reserved = malloc((count + 1) * sizeof(*job->reserved));
    if (job->reserved == NULL) {
        return FS_NO_MEMORY;
    }
    fs_status_t s = journal_append(job->ctx->journal, JR_PV_RESERVE_INTENT, &intent, sizeof(intent), err);
    if (s != FS_OK) {
        return s;
    }
    uint64_t need_max = job->dom.tot_pages + count;
    if (need_max > job->max_pages_before) {
        s = ops->set_max_pages(job->be, job->dom.domid, need_max, err);
        if (s != FS_OK) {
            return s;
        }
        job->max_raised = true;
    }
    while (job->reserved_count < count) {
        uint32_t node;
        uint64_t room;
        if (!room_next(job->ctx->room, &node, &room)) {
            return fs_fail(err, FS_NO_ROOM, "domain %u: %zu more frames are needed outside the range and no node has any left",
                           job->dom.domid, count - job->reserved_count);
        }
        size_t want = count - job->reserved_count, done = 0;
        want = want > BATCH ? BATCH : want;
        want = want > room ? (size_t)room : want;
        mfn_t *at = job->reserved + job->reserved_count;
        s = ops->increase(job->be, job->dom.domid, node, want, at, &done, err);
        if (s != FS_OK && s != FS_NO_ROOM) {
            job->reserved_count += done;
            return s;
        }
        if (done < want) {
            room_exhausted(job->ctx->room, node);
        } else {
            room_take(job->ctx->room, node, done);
        }
        size_t kept = done;
        s = drop_in_range(job, at, &kept, err);
        job->reserved_count += kept;
        if (s != FS_OK) {
            return s;
        }
        if (kept == 0 && done > 0) {        /* this node gives frames of the range only */
            room_exhausted(job->ctx->room, node);
        }
    }
    /* Ascending, as the pfns that they go to: the next move of this guest then finds runs of frames, and so a short journal. */
    qsort(job->reserved, job->reserved_count, sizeof(*job->reserved), mfn_order);
    s = journal_append(job->ctx->journal, JR_PV_RESERVED, job->reserved, job->reserved_count * sizeof(mfn_t), err);
    if (s == FS_OK) {
        pv_phase(job, "reserve", &since, job->reserved_count);
        mover_event(job->ctx, EV_RESERVE, job->dom.domid, job->reserved_count, 0, NULL);
    }
    return s;
}

/* Drop from list what the guest does not own (any more). */
static fs_status_t keep_owned(struct pv_job *job, mfn_t *list, size_t *count, struct fs_error *err)
{
    uint8_t *types = malloc(*count + 1), *flags = malloc(*count + 1);
    bool *owned = malloc((*count + 1) * sizeof(*owned));
    fs_status_t s = FS_NO_MEMORY;
    size_t kept = 0;
    if (types != NULL && flags != NULL && owned != NULL) {
        s = job->be->ops->types(job->be, job->dom.domid, list, *count, types, flags, owned, err);
    }
    for (size_t i = 0; s == FS_OK && i < *count; i++) {
        if (owned[i]) {
            list[kept++] = list[i];
        }
    }
    *count = s == FS_OK ? kept : *count;
    free(types);
    free(flags);
    free(owned);
    return s;
}

/* Give frames back; a refusal is tried again with what is left of the list (I4). */
static fs_status_t give_back(struct pv_job *job, const mfn_t *frames, size_t count, struct fs_error *err)
{
    mfn_t *list = malloc((count + 1) * sizeof(*list));
    size_t left = count;
    fs_status_t s = list == NULL ? FS_NO_MEMORY : FS_OK;
    if (s == FS_OK && count > 0) {
        memcpy(list, frames, count * sizeof(*list));
    }
    for (int i = 0; s == FS_OK && i < GIVE_TRIES && left > 0; i++) {
        size_t done = 0;
        fs_status_t d = job->be->ops->decrease(job->be, job->dom.domid, list, left, &done, err);
        if (d == FS_OK && done == left) {
            left = 0;
            break;
        }
        s = keep_owned(job, list, &left, err);
    }
    free(list);
    if (s == FS_OK && left > 0) {
        s = fs_fail(err, FS_NEEDS_RECOVER, "domain %u runs, but Xen would not take back %zu of its spare frames; run `frameshift recover`",
                    job->dom.domid, left);
    }
    return s;
}

/* Mark (so that they end offlined) and give back the old frames of a switched round. */
static fs_status_t release_old(struct pv_job *job, struct fs_error *err)
{
    mfn_t *old = malloc((job->move_count + 1) * sizeof(*old));
    struct hv_mark_result *marks = calloc(job->move_count + 1, sizeof(*marks));
    fs_status_t s = old == NULL || marks == NULL ? FS_NO_MEMORY : FS_OK;
    size_t n = 0;
    /* Ascending by frame: marking wants runs, and the moves are in pfn order. */
    for (size_t r = 0; s == FS_OK && r < job->x.ranges->count; r++) {
        struct mfn_range range = job->x.ranges->ranges[r];
        for (mfn_t m = range.start; m.n < range.end.n; m.n++) {
            if (xlat_moves(&job->x, m)) {
                old[n++] = m;
            }
        }
    }
    ASSERT(s != FS_OK || n == job->move_count);
    uint64_t since = pv_now(job);
    for (int i = 0; s == FS_OK && i < GIVE_TRIES; i++) {
        s = job->be->ops->mark_owned(job->be, old, n, marks, err);
        if (s == FS_OK) {
            break;
        }
        s = i + 1 < GIVE_TRIES ? FS_OK : s;
    }
    if (s == FS_OK) {
        pv_phase(job, "mark", &since, n);
        s = give_back(job, old, n, err);
        pv_phase(job, "release", &since, n);
        mover_event(job->ctx, EV_RELEASE, job->dom.domid, n, n, NULL);
    }
    free(old);
    free(marks);
    return s;
}

fs_status_t pv_release(struct pv_job *job, struct fs_error *err)
{
    const struct hv_backend_ops *ops = job->be->ops;
    fs_status_t s = FS_OK;
    if (job->switched && job->move_count > 0) {
        s = release_old(job, err);
    }
    size_t used = job->switched ? job->reserved_used : 0;       /* I2 */
    if (s == FS_OK && job->reserved_count > used) {
        s = give_back(job, job->reserved + used, job->reserved_count - used, err);
    }
    for (int i = 0; s == FS_OK && job->max_raised && i < GIVE_TRIES; i++) {
        fs_status_t m = ops->set_max_pages(job->be, job->dom.domid, job->max_pages_before, err);
        job->max_raised = m != FS_OK;
        s = i + 1 < GIVE_TRIES ? FS_OK : m;
    }
    return s;
}
