/*
 * hap_extent.c - whole aligned 2 MiB extents, moved so that they stay 2 MiB extents.
 *
 * Owns: finding the extents, moving one, and putting one back from the stage.
 * Invariants:
 *  I1 an extent is 512 frames of the list, gfns and mfns aligned and running in step, all of them
 *     to be moved;
 *  I2 the guest's bytes are always in frames of the domain that the journal and the control page
 *     lead to, never only in this process: first in the old extent; from STAGE_FULL on also in the
 *     stage, which counts for every gfn that no longer leads to its old frame; the phase goes
 *     back to IDLE when the new extent holds all of them, before the guest runs;
 *  I3 if no new extent is to be had after the old one is gone, the stage's own frames go under the
 *     gfns one by one.  They are there already, so that cannot fail for want of memory: a superpage
 *     is lost then, never a byte;
 *  I4 as for swaps: checked within the pause, granted extents left alone, the old frames zeroed
 *     before they are let go (our mapping keeps them until then).
 * Why two copies: Xen gives a 2 MiB entry only to a fresh order-9 extent that is populated at its final
 * gfn, and only where nothing is; it moves a frame from gfn to gfn only one by one, and never
 * joins entries again.  So the bytes must wait somewhere for the length of two calls.
 * Why not the dirty log: it could take the first copy out of the pause, but Xen splits every
 * superpage that the guest writes to while the log is on, also those outside the range, for good,
 * and what it would save is the smallest part of the pause (phases extent.*).
 * Cost: a pause of one emptying, one populating, one mapping, two copies of 2 MiB.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "hap_priv.h"
#include "page_hash.h"

#define CHUNK_EXTENTS 16u               /* one journal record */
#define GIVE_UP_AFTER 4u                /* extents in a row that could not be had whole, or took too long */
#define PAUSE_FACTOR  2u                /* how far their pauses may be above the limit that was asked for */
#define DEFAULT_PAUSE_FACTOR 8u         /* the same where none was: superpages are lost for good, a pause is over soon */

struct extent {
    size_t index;                       /* of its first frame in the list */
    uint64_t gfn, mfn;
    uint64_t gfns[FS_SP_PAGES], now_gfns[FS_SP_PAGES], hashes[FS_SP_PAGES];
    mfn_t mfns[FS_SP_PAGES];
    int page_err[FS_SP_PAGES];
    uint8_t *old, *new;
    uint64_t pause_ns;
    bool emptied;                       /* something of it has left the old frames */
    bool whole;                         /* ended as a new extent */
};

static uint8_t *page(uint8_t *map, size_t i) { return map + i * FS_PAGE_BYTES; }
static bool verify(const struct hap_job *job) { return job->ctx->options && job->ctx->options->verify; }

bool hap_extent_whole(const struct hap_job *job, size_t index)
{
    uint64_t mfn = hap_mfn_at(job, index).n, gfn = hap_gfn_at(job, index);

    if (mfn % FS_SP_PAGES != 0 || gfn % FS_SP_PAGES != 0 || job->count - index < FS_SP_PAGES) {
        return false;
    }
    for (size_t i = 0; i < FS_SP_PAGES; i++) {
        if (hap_mfn_at(job, index + i).n != mfn + i || hap_gfn_at(job, index + i) != gfn + i || job->states[index + i] != HAP_TODO) {
            return false;
        }
    }
    return true;
}

/* Any reason to leave the extent to single swaps, seen without a pause? */
static bool fits_before(struct hap_job *job, struct extent *e)
{
    for (size_t i = 0; i < FS_SP_PAGES; i++) {
        if (e->page_err[i] != 0 || e->now_gfns[i] != e->gfns[i] || hap_busy(job, e->gfns[i])
            || hap_held_sets_aside(job, page(e->old, i))) {
            return false;
        }
    }
    return true;
}

static fs_status_t fits_within(struct hap_job *job, struct extent *e, bool *fits, struct fs_error *err)
{
    fs_status_t st = hap_busy_refresh(job, err);

    *fits = false;
    if (st == FS_OK) {
        st = job->ops->m2p(job->be, e->mfns, FS_SP_PAGES, e->now_gfns, err);
    }
    if (st != FS_OK) {
        return st;
    }
    *fits = true;
    for (size_t i = 0; i < FS_SP_PAGES && *fits; i++) {
        *fits = e->now_gfns[i] == e->gfns[i] && !hap_busy(job, e->gfns[i]) && !hap_held_sets_aside(job, page(e->old, i));
    }
    return FS_OK;
}

static void copy_out(struct hap_job *job, struct extent *e)
{
    if (verify(job)) {
        for (size_t i = 0; i < FS_SP_PAGES; i++) {
            e->hashes[i] = page_hash((const uint64_t *)(void *)page(e->old, i));
        }
    }
    memcpy(job->stage, e->old, FS_SP_PAGES * FS_PAGE_BYTES);
    job->ctl->stage_gfn = e->gfn;
    job->ctl->stage_mfn = e->mfn;
    atomic_thread_fence(memory_order_seq_cst);
    job->ctl->stage_phase = HAP_STAGE_FULL;                 /* I2 */
    atomic_thread_fence(memory_order_seq_cst);
}

static void check(struct hap_job *job, const struct extent *e, uint8_t *map)
{
    for (size_t i = 0; i < FS_SP_PAGES; i++) {
        job->report->pages_hashed++;
        job->report->mismatches += page_hash((const uint64_t *)(void *)page(map, i)) != e->hashes[i];
    }
}

/* After an extent was put together from the stage's frames: what its gfns lead to now. */
static fs_status_t check_again(struct hap_job *job, struct extent *e, struct fs_error *err)
{
    void *map;
    fs_status_t st = job->ops->map(job->be, job->domid, e->gfns, FS_SP_PAGES, HV_MAP_READ, e->page_err, &map, err);

    if (st != FS_OK) {
        return st;
    }
    for (size_t i = 0; i < FS_SP_PAGES; i++) {
        bool same = e->page_err[i] == 0 && page_hash((const uint64_t *)(void *)page(map, i)) == e->hashes[i];

        job->report->pages_hashed++;
        job->report->mismatches += !same;
    }
    job->ops->unmap(job->be, map, FS_SP_PAGES);
    return FS_OK;
}

fs_status_t hap_extent_put_back(struct hap_job *job, size_t *put, struct fs_error *err)
{
    mfn_t mfns[FS_SP_PAGES];
    uint64_t now[FS_SP_PAGES], stage[FS_SP_PAGES];
    int page_err[FS_SP_PAGES];
    gfn_t from[FS_SP_PAGES], to[FS_SP_PAGES];
    size_t n = 0;
    void *map;

    *put = 0;
    for (size_t i = 0; i < FS_SP_PAGES; i++) {
        mfns[i] = mfn_make(job->ctl->stage_mfn + i);
        stage[i] = hap_gfn(job, HAP_STAGE_OFFSET + i).n;
    }
    fs_status_t st = job->ops->m2p(job->be, mfns, FS_SP_PAGES, now, err);
    if (st == FS_OK) {
        st = job->ops->map(job->be, job->domid, stage, FS_SP_PAGES, HV_MAP_READ, page_err, &map, err);
    }
    if (st != FS_OK) {
        return st;
    }
    job->ops->unmap(job->be, map, FS_SP_PAGES);
    for (size_t i = 0; i < FS_SP_PAGES; i++) {
        /* An empty stage gfn went under its gfn earlier, by a recovery that was killed as well. */
        if (now[i] != job->ctl->stage_gfn + i && page_err[i] == 0) {
            from[n] = gfn_make(stage[i]);
            to[n++] = gfn_make(job->ctl->stage_gfn + i);
        }
    }
    if (n > 0) {
        st = job->ops->remap(job->be, job->domid, from, to, n, put, err);
    }
    for (size_t i = 0; i < *put; i++) {
        job->stage_full[from[i].n - stage[0]] = false;
    }
    if (st == FS_OK) {
        job->ctl->stage_phase = HAP_STAGE_IDLE;
    }
    return st;
}

static uint64_t part(struct hap_job *job, const char *name, uint64_t since)
{
    uint64_t now = job->ops->clock_ns(job->be);

    mover_phase(job->report, name, now - since, 1);
    return now;
}

/* The gfns are empty and the stage is the truth: a new extent, filled from the stage. */
static fs_status_t bring_in(struct hap_job *job, struct extent *e, uint64_t at, struct fs_error *err)
{
    gfn_t gfn = gfn_make(e->gfn);
    size_t done = 0;
    void *map;
    fs_status_t st = hap_populate(job, FS_SP_ORDER, &gfn, 1, &done, err);

    at = part(job, "extent.populate", at);
    if (st != FS_OK) {
        return st;
    }
    st = job->ops->map(job->be, job->domid, e->gfns, FS_SP_PAGES, HV_MAP_WRITE, e->page_err, &map, err);
    at = part(job, "extent.map", at);
    if (st != FS_OK) {
        return st;
    }
    e->new = map;
    for (size_t i = 0; i < FS_SP_PAGES; i++) {
        if (e->page_err[i] != 0) {
            return fs_fail(err, FS_REFUSED, "domain %u: the new extent at gfn 0x%llx cannot be mapped", job->domid,
                           (unsigned long long)e->gfn);
        }
    }
    memcpy(e->new, job->stage, FS_SP_PAGES * FS_PAGE_BYTES);
    at = part(job, "extent.copy-in", at);
    if (verify(job)) {
        check(job, e, e->new);
        (void)part(job, "extent.verify", at);
    }
    atomic_thread_fence(memory_order_seq_cst);
    job->ctl->stage_phase = HAP_STAGE_IDLE;                 /* I2: before the guest runs */
    e->whole = true;
    return FS_OK;
}

/* Everything that happens while the guest stands.  On return its gfns are complete, whatever failed, or the control page
 * says that they are not and the status is FS_NEEDS_RECOVER or FS_GUEST_GONE. */
static fs_status_t within_pause(struct hap_job *job, struct extent *e, struct fs_error *err)
{
    gfn_t gfn = gfn_make(e->gfn);
    size_t done = 0, put = 0;
    bool fits;
    struct fs_error words;
    uint64_t at = part(job, "extent.pause", job->pauses.begin_ns);
    fs_status_t st = fits_within(job, e, &fits, err);

    at = part(job, "extent.look", at);
    if (st != FS_OK || !fits) {
        return st;
    }
    copy_out(job, e);
    at = part(job, "extent.copy-out", at);
    e->emptied = true;
    st = job->ops->depopulate(job->be, job->domid, FS_SP_ORDER, &gfn, 1, &done, &words);
    at = part(job, "extent.empty", at);
    if (st == FS_OK) {
        st = bring_in(job, e, at, &words);
    }
    if (st == FS_OK) {
        return FS_OK;
    }
    fs_status_t back = hap_extent_put_back(job, &put, err); /* I3 */
    if (back == FS_OK) {
        return verify(job) ? check_again(job, e, err) : FS_OK;
    }
    back = hap_why(job, back, err);
    return back == FS_GUEST_GONE ? back : FS_NEEDS_RECOVER;
}

/* What left the old frames, by the machine's word; those are zeroed and let go. */
static fs_status_t release(struct hap_job *job, struct extent *e, struct fs_error *err)
{
    fs_status_t st = job->ops->m2p(job->be, e->mfns, FS_SP_PAGES, e->now_gfns, err);

    if (st != FS_OK) {
        return st;
    }
    for (size_t i = 0; i < FS_SP_PAGES; i++) {
        if (e->now_gfns[i] == e->gfns[i]) {
            continue;                                       /* still TODO: by a swap then */
        }
        if (verify(job) && page_hash((const uint64_t *)(void *)page(e->old, i)) != e->hashes[i]) {
            job->late_writes++;
        }
        memset(page(e->old, i), 0, FS_PAGE_BYTES);
        job->states[e->index + i] = HAP_MOVED;
        job->report->moved++;
    }
    job->report->superpages_after += e->whole;
    mover_event(job->ctx, EV_SUPERPAGE, job->domid, e->whole, !e->whole, NULL);
    return FS_OK;
}

static fs_status_t prepare(struct hap_job *job, struct extent *e, struct fs_error *err)
{
    void *map;

    e->gfn = hap_gfn_at(job, e->index);
    e->mfn = hap_mfn_at(job, e->index).n;
    for (size_t i = 0; i < FS_SP_PAGES; i++) {
        e->gfns[i] = e->gfn + i;
        e->mfns[i] = mfn_make(e->mfn + i);
    }
    fs_status_t st = hap_stage_fill(job, err);
    if (st == FS_OK) {
        st = job->ops->map(job->be, job->domid, e->gfns, FS_SP_PAGES, HV_MAP_WRITE, e->page_err, &map, err);
    }
    if (st != FS_OK) {
        return st;
    }
    e->old = map;
    return job->ops->m2p(job->be, e->mfns, FS_SP_PAGES, e->now_gfns, err);
}

static fs_status_t extent_run(struct hap_job *job, struct extent *e, struct fs_error *err)
{
    uint64_t began = job->ops->clock_ns(job->be);
    fs_status_t st = prepare(job, e, err);
    uint64_t at = part(job, "extent.prepare", began);

    if (st != FS_OK || !fits_before(job, e)) {
        goto out;
    }
    (void)part(job, "extent.look-before", at);
    st = hap_pause(job, err);
    if (st != FS_OK) {
        goto out;
    }
    st = within_pause(job, e, err);
    if (st == FS_NEEDS_RECOVER || st == FS_GUEST_GONE) {
        goto out;                                           /* paused, as the control page says */
    }
    fs_status_t un = hap_unpause(job, 0, &e->pause_ns, err);
    st = st == FS_OK ? un : st;
    mover_event(job->ctx, EV_PAUSE, job->domid, e->pause_ns, e->emptied ? FS_SP_PAGES : 0, NULL);
    if (un == FS_OK && e->emptied) {
        at = job->ops->clock_ns(job->be);
        fs_status_t rel = release(job, e, err);
        st = st == FS_OK ? rel : st;
        (void)part(job, "extent.scrub", at);
    }
out:
    at = job->ops->clock_ns(job->be);
    if (e->old) {
        job->ops->unmap(job->be, e->old, FS_SP_PAGES);
    }
    if (e->new) {
        job->ops->unmap(job->be, e->new, FS_SP_PAGES);
    }
    (void)part(job, "extent.unmap", at);
    mover_phase(job->report, "extent", job->ops->clock_ns(job->be) - began, e->whole);
    return st == FS_NEEDS_RECOVER ? st : hap_why(job, st, err);
}

/* The next extents from *at on, into the journal. */
static fs_status_t journal_chunk(struct hap_job *job, size_t at, size_t *end, struct fs_error *err)
{
    struct hap_run runs[CHUNK_EXTENTS];
    size_t n = 0;

    while (at < job->count && n < CHUNK_EXTENTS) {
        if (hap_extent_whole(job, at)) {
            runs[n++] = (struct hap_run){ .gfn = hap_gfn_at(job, at), .mfn = hap_mfn_at(job, at).n, .pages = FS_SP_PAGES };
            at += FS_SP_PAGES;
        } else {
            at++;
        }
    }
    *end = at;
    return n == 0 ? FS_OK : journal_append(job->ctx->journal, JR_HAP_EXTENT_INTENT, runs, n * sizeof(runs[0]), err);
}

static fs_status_t journal_done(struct hap_job *job, struct fs_error *err)
{
    struct hap_done_record done = { .moved = job->report->moved };

    return journal_append(job->ctx->journal, JR_HAP_EXTENT_DONE, &done, sizeof(done), err);
}

/* Superpages are worth something, a promise about pauses more. */
static bool too_long(const struct hap_job *job, const struct extent *e)
{
    bool asked = job->ctx->options && job->ctx->options->max_pause_ns != 0;

    return e->pause_ns > job->pauses.limit_ns * (asked ? PAUSE_FACTOR : DEFAULT_PAUSE_FACTOR);
}

fs_status_t hap_extent_all(struct hap_job *job, struct fs_error *err)
{
    struct extent *e = malloc(sizeof(*e));
    size_t at = 0, chunk_end = 0;
    unsigned bad = 0;
    uint64_t began = job->report->moved;
    fs_status_t st = e ? FS_OK : fs_fail(err, FS_NO_MEMORY, "no memory for an extent");

    while (at < job->count && st == FS_OK && bad < GIVE_UP_AFTER) {
        if (mover_interrupted(job->ctx)) {
            st = fs_fail(err, FS_INTERRUPTED, "interrupted; domain %u runs, %llu of its frames have moved", job->domid,
                         (unsigned long long)job->report->moved);
            break;
        }
        if (!hap_extent_whole(job, at)) {
            at++;
            continue;
        }
        if (at >= chunk_end) {
            st = began < job->report->moved ? journal_done(job, err) : FS_OK;
            st = st == FS_OK ? journal_chunk(job, at, &chunk_end, err) : st;
        }
        if (st == FS_OK) {
            memset(e, 0, sizeof(*e));
            e->index = at;
            st = extent_run(job, e, err);
            bad = (e->emptied && !e->whole) || too_long(job, e) ? bad + 1 : 0;
            at += FS_SP_PAGES;
        }
    }
    if (st == FS_OK && bad >= GIVE_UP_AFTER) {
        job->extents_given_up = true;
        mover_event(job->ctx, EV_WARNING, job->domid, e->pause_ns, job->pauses.limit_ns,
                    e->whole ? "2 MiB extents take longer than --max-pause allows: the rest is moved in 4 KiB frames"
                             : "no whole 2 MiB extents outside the range: the rest is moved in 4 KiB frames");
    }
    if (st == FS_OK && began < job->report->moved) {
        st = journal_done(job, err);
    }
    free(e);
    return st;
}
