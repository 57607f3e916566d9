/*
 * coop_recover.c - a round of a guest that moves its own pages, which the tool did not live to finish.
 *
 * Owns: finding out what is left of it.
 * Invariants:
 *   I1  only the last round counts: a round before it ended with COOP_DONE.
 *   I2  first the guest is made idle by a new session: no page is half moved after that.
 *   I3  a frame that the journal names, old or new, is given back if the domain owns it and no p2m entry leads to it; whether a
 *       page had moved is the p2m's answer, so there is nothing to roll back.
 *   I4  a reserve whose list did not reach the disk is found by a search; nothing but its frames can be found so.
 * Lock order: the journal's lock is held by the caller.
 * Cost: one p2m read; the search, where it is needed, one look at every frame.
 */
#include <stdlib.h>
#include <string.h>

#include "coop_job.h"

struct last_round { bool any, reserved, asked, done; size_t intent_at, reserved_at, asked_at; };

static struct last_round find_round(const struct journal *j, size_t first, size_t last)
{
    struct last_round r = { 0 };
    for (size_t i = first; i < last; i++) {
        const void *data;
        size_t bytes;
        switch (journal_record(j, i, &data, &bytes)) {
        case JR_COOP_RESERVE: r = (struct last_round){ .any = true, .intent_at = i }; break;    /* I1 */
        case JR_COOP_RESERVED: r.reserved = true; r.reserved_at = i; break;
        case JR_COOP_REQUEST: r.asked = true; r.asked_at = i; break;
        case JR_COOP_DONE: r.done = true; break;
        default: break;
        }
    }
    return r;
}

static fs_status_t damaged(uint16_t domid, const char *what, struct fs_error *err)
{
    return fs_fail(err, FS_BAD_INPUT, "the journal's %s of domain %u is damaged", what, domid);
}

/* The frames that the journal names: new and old ones. */
static fs_status_t read_frames(const struct mover_ctx *ctx, const struct last_round *r, uint16_t domid, struct frame_set *fresh, struct frame_set *old,
                               struct fs_error *err)
{
    const void *data;
    size_t bytes;
    fs_status_t s = FS_OK;
    if (r->reserved) {
        (void)journal_record(ctx->journal, r->reserved_at, &data, &bytes);
        if (bytes % sizeof(mfn_t) != 0) {
            return damaged(domid, "list of reserved frames", err);
        }
        for (size_t i = 0; i < bytes / sizeof(mfn_t) && s == FS_OK; i++) {
            mfn_t m;
            memcpy(&m, (const char *)data + i * sizeof(m), sizeof(m));
            s = frame_set_add(fresh, m);
        }
    }
    if (s == FS_OK && r->asked) {
        (void)journal_record(ctx->journal, r->asked_at, &data, &bytes);
        if (bytes % sizeof(struct coop_move) != 0) {
            return damaged(domid, "list of moves", err);
        }
        for (size_t i = 0; i < bytes / sizeof(struct coop_move) && s == FS_OK; i++) {
            struct coop_move m;
            memcpy(&m, (const char *)data + i * sizeof(m), sizeof(m));
            s = frame_set_add(old, m.from);
        }
    }
    return s;
}

static fs_status_t give(const struct mover_ctx *ctx, const struct hv_domain *dom, struct frame_set *frames, bool mark, uint64_t *released,
                        struct fs_error *err)
{
    fs_status_t s = FS_OK;
    size_t done = 0;
    frame_set_sort(frames);
    if (mark && frames->count > 0) {
        struct hv_mark_result *marks = calloc(frames->count, sizeof(*marks));
        s = marks == NULL ? FS_NO_MEMORY : ctx->be->ops->mark_owned(ctx->be, frames->list, frames->count, marks, err);
        free(marks);
    }
    if (s == FS_OK && frames->count > 0) {
        s = ctx->be->ops->decrease(ctx->be, dom->domid, frames->list, frames->count, &done, err);
        *released += done;
    }
    return s;
}

static fs_status_t settle(const struct mover_ctx *ctx, const struct hv_domain *dom, const struct last_round *r, uint64_t *released, struct fs_error *err)
{
    struct frame_set fresh = { 0 }, old = { 0 }, spare = { 0 }, left = { 0 };
    uint64_t limit = coop_limit_pfns(ctx);
    fs_status_t s = read_frames(ctx, r, dom->domid, &fresh, &old, err);
    if (s == FS_OK && !r->reserved) {
        s = unused_search(ctx->be, dom, ctx->ranges, &fresh, err);              /* I4 */
    }
    frame_set_sort(&fresh);
    frame_set_sort(&old);
    if (s == FS_OK) {
        s = unused_of(ctx->be, dom, limit, &fresh, &spare, err);
    }
    if (s == FS_OK) {
        s = unused_of(ctx->be, dom, limit, &old, &left, err);
    }
    if (s == FS_OK) {
        s = give(ctx, dom, &left, true, released, err);
    }
    if (s == FS_OK) {
        s = give(ctx, dom, &spare, false, released, err);
    }
    frame_set_free(&fresh);
    frame_set_free(&old);
    frame_set_free(&spare);
    frame_set_free(&left);
    return s;
}

fs_status_t coop_recover(const struct mover_ctx *ctx, uint16_t domid, size_t first, size_t last, struct hv_recover_report *out, struct fs_error *err)
{
    struct last_round r = find_round(ctx->journal, first, last);
    struct coop_channel channel;
    struct hv_domain dom;
    struct coop_reserve intent;
    const void *data;
    size_t bytes;
    fs_status_t s = ctx->be->ops->domain(ctx->be, domid, &dom, err);
    if (s != FS_OK || !r.any || r.done) {
        return s;
    }
    (void)journal_record(ctx->journal, r.intent_at, &data, &bytes);
    if (bytes != sizeof(intent)) {
        return damaged(domid, "reserve record", err);
    }
    memcpy(&intent, data, sizeof(intent));
    s = coop_open(&channel, ctx->be, &dom, coop_limit_pfns(ctx), coop_timeout_ns(ctx), NULL, err);      /* I2 */
    if (s != FS_OK) {
        return s;
    }
    coop_close(&channel);
    s = settle(ctx, &dom, &r, &out->frames_released, err);
    if (s == FS_OK) {
        s = ctx->be->ops->set_max_pages(ctx->be, domid, intent.max_pages_before, err);
    }
    if (s == FS_OK) {
        out->domains_finished++;
        mover_event(ctx, EV_RECOVER, domid, domid, out->frames_released, "finished");
    }
    return s;
}
