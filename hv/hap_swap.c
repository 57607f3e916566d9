/*
 * hap_swap.c - 4 KiB frames, in batches: a new frame with a copy takes the old one's place under its gfn.
 *
 * Owns: one batch from preparation to release, and the passes over the list.
 * Invariants:
 *  I1 a frame is copied and switched in one pause, and what is checked there (it is still at its
 *     gfn, no grant or ring names it, it has not the shape of a held page) cannot change before
 *     the guest runs: a paused guest makes no grants and moves nothing;
 *  I2 a grant that exists is enough to leave a frame alone, mapped or not: its peer may map it at
 *     any moment, also while the guest is paused;
 *  I3 the remap of each frame is one step of the machine, after the whole copy: after kill -9 every
 *     gfn leads to the old frame or to a complete copy;
 *  I4 what has moved is told by the machine, not by the call's return: the old frame's M2P entry has
 *     gone.  Only then is the old frame zeroed (through our mapping, which keeps it until then)
 *     and let go;
 *  I5 a frame at another gfn than we knew is never switched: it is looked at again in the next pass.
 * Why the mapping is made before the pause: it costs as much as the copy.  It holds the frame that
 * was at the gfn then; I1's check of the M2P (which Xen keeps for a translated guest, and which
 * no longer changes hands once the frame was marked) says that it is the frame still.
 * Cost: a batch is some six calls; in the pause a copy, a remap, and a look at the grants.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "frameshift/assert.h"
#include "hap_priv.h"
#include "page_hash.h"

#define CHUNK_PAGES 4096u               /* one journal record */
#define FINAL_PAGES 16u                 /* in the last pass, where a pause may hold a question for each page */
#define PASSES_MAX  7u                  /* for grants to end, each waits three times as long: a second in all */
#define PASS_WAIT_NS 1000000

struct batch {
    size_t count;
    uint32_t index[HAP_BATCH_MAX];
    uint64_t gfns[HAP_BATCH_MAX], slots[HAP_BATCH_MAX], now_gfns[HAP_BATCH_MAX];
    mfn_t mfns[HAP_BATCH_MAX];
    uint64_t hashes[HAP_BATCH_MAX];
    int old_err[HAP_BATCH_MAX], new_err[HAP_BATCH_MAX];
    bool go[HAP_BATCH_MAX];             /* is switched in this pause */
    gfn_t from[HAP_BATCH_MAX], to[HAP_BATCH_MAX];
    uint8_t *old, *new;
    uint64_t pause_ns;
};

static uint8_t *page(uint8_t *map, size_t i) { return map + i * FS_PAGE_BYTES; }
static bool verify(const struct hap_job *job) { return job->ctx->options && job->ctx->options->verify; }

static void unmap(struct hap_job *job, struct batch *b)
{
    if (b->old) {
        job->ops->unmap(job->be, b->old, b->count);
    }
    if (b->new) {
        job->ops->unmap(job->be, b->new, b->count);
    }
    b->old = b->new = NULL;
}

static fs_status_t map_both(struct hap_job *job, struct batch *b, struct fs_error *err)
{
    void *map;
    fs_status_t st = job->ops->map(job->be, job->domid, b->gfns, b->count, HV_MAP_WRITE, b->old_err, &map, err);

    if (st != FS_OK) {
        return st;
    }
    b->old = map;
    st = job->ops->map(job->be, job->domid, b->slots, b->count, HV_MAP_WRITE, b->new_err, &map, err);
    if (st == FS_OK) {
        b->new = map;
    }
    return st;
}

/* Before the pause: what can be left out is left out here, so that the pause is not spent on it. */
static void look_before(struct hap_job *job, struct batch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        uint8_t *state = &job->states[b->index[i]];

        b->go[i] = false;
        if (b->new_err[i] != 0) {
            job->slot_full[b->slots[i] - hap_gfn(job, HAP_SLOT_OFFSET).n] = false;    /* the guest gave our scratch away */
            *state = HAP_BUSY;
        } else if (b->now_gfns[i] == FS_FRAME_NONE) {
            *state = HAP_GONE;
        } else if (b->now_gfns[i] != b->gfns[i] || b->old_err[i] != 0) {
            job->list->list[b->index[i]].gfn = b->now_gfns[i] < UINT32_MAX ? (uint32_t)b->now_gfns[i] : UINT32_MAX;        /* I5 */
            *state = HAP_BUSY;
        } else if (!job->final && hap_held_sets_aside(job, page(b->old, i))) {
            *state = HAP_SUSPECT;
        } else {
            b->go[i] = true;
        }
    }
}

/* In the last pass: what looks held is asked about here, where the answer cannot grow old. */
static fs_status_t still_held(struct hap_job *job, struct batch *b, size_t i, bool *held, struct fs_error *err)
{
    struct hv_frame_refs refs = { 0 };
    fs_status_t st = hap_refs(job, &b->mfns[i], 1, &refs, err);

    *held = st != FS_OK || !refs.known || refs.domid != job->domid || refs.type_count != 0 || refs.xen_heap;
    return st;
}

static fs_status_t look_within(struct hap_job *job, struct batch *b, struct fs_error *err)
{
    fs_status_t st = hap_busy_refresh(job, err);

    if (st == FS_OK) {
        st = job->ops->m2p(job->be, b->mfns, b->count, b->now_gfns, err);
    }
    for (size_t i = 0; i < b->count && st == FS_OK; i++) {
        uint8_t *state = &job->states[b->index[i]];
        bool held = false;

        if (!b->go[i]) {
            continue;
        }
        if (b->now_gfns[i] != b->gfns[i] || hap_busy(job, b->gfns[i])) {                /* I1, I2 */
            b->go[i] = false;
            *state = HAP_BUSY;
        } else if (hap_held_sets_aside(job, page(b->old, i))) {
            held = true;
            if (job->final) {
                st = still_held(job, b, i, &held, err);
            }
            b->go[i] = !held;
            *state = held ? HAP_SUSPECT : *state;
        }
    }
    return st;
}

static void copy(struct hap_job *job, struct batch *b)
{
    for (size_t i = 0; i < b->count; i++) {
        if (!b->go[i]) {
            continue;
        }
        if (verify(job)) {
            b->hashes[i] = page_hash((const uint64_t *)(void *)page(b->old, i));
        }
        memcpy(page(b->new, i), page(b->old, i), FS_PAGE_BYTES);
    }
}

/* After the switch and still in the pause: what the gfn leads to now, by a mapping of its own, not what we wrote. */
static fs_status_t check(struct hap_job *job, struct batch *b, size_t n, struct fs_error *err)
{
    uint64_t gfns[HAP_BATCH_MAX];
    int page_err[HAP_BATCH_MAX];
    void *map;

    if (n == 0) {
        return FS_OK;
    }
    for (size_t k = 0; k < n; k++) {
        gfns[k] = b->to[k].n;
    }
    fs_status_t st = job->ops->map(job->be, job->domid, gfns, n, HV_MAP_READ, page_err, &map, err);
    if (st != FS_OK) {
        return st;
    }
    for (size_t i = 0, k = 0; i < b->count && k < n; i++) {
        if (!b->go[i]) {
            continue;
        }
        bool same = page_err[k] == 0 && page_hash((const uint64_t *)(void *)page(map, k)) == b->hashes[i];
        job->report->pages_hashed++;
        job->report->mismatches += !same;
        k++;
    }
    job->ops->unmap(job->be, map, n);
    return FS_OK;
}

/* The frame at which the machine refused twice stays; the rest of its batch is tried again. */
static void refused(struct hap_job *job, struct batch *b, size_t at, const struct fs_error *err)
{
    if (!job->refusal_told) {
        mover_event(job->ctx, EV_WARNING, job->domid, b->to[at].n, at, err ? err->text : "a frame was refused");
        job->refusal_told = true;
    }
    for (size_t i = 0, k = 0; i < b->count; i++) {
        if (b->go[i] && k++ == at) {
            hap_stays(job, b->index[i], FS_REASON_XEN_REFUSED);
            b->go[i] = false;
        }
    }
}

/* The parts of a pause have their own phases: they are what there is to shorten. */
static uint64_t part(struct hap_job *job, const char *name, uint64_t since, size_t count)
{
    uint64_t now = job->ops->clock_ns(job->be);

    mover_phase(job->report, name, now - since, count);
    return now;
}

static fs_status_t within_pause(struct hap_job *job, struct batch *b, size_t *switched, struct fs_error *err)
{
    size_t n = 0, done = 0;
    uint64_t at = part(job, "swap.pause", job->pauses.begin_ns, 1);
    fs_status_t st = look_within(job, b, err);

    *switched = 0;
    at = part(job, "swap.look", at, b->count);
    if (st != FS_OK) {
        return st;
    }
    copy(job, b);
    at = part(job, "swap.copy", at, b->count);
    for (size_t i = 0; i < b->count; i++) {
        if (b->go[i]) {
            b->from[n] = gfn_make(b->slots[i]);
            b->to[n++] = gfn_make(b->gfns[i]);
        }
    }
    if (n > 0) {
        st = job->ops->remap(job->be, job->domid, b->from, b->to, n, &done, err);       /* I3 */
    }
    if (st == FS_REFUSED && done < n) {             /* a refusal may be of the moment: a frame stays by its second one */
        size_t more = 0;
        st = job->ops->remap(job->be, job->domid, b->from + done, b->to + done, n - done, &more, err);
        done += more;
    }
    *switched = done;
    at = part(job, "swap.remap", at, done);
    if (verify(job)) {
        fs_status_t checked = check(job, b, done, err);
        st = st == FS_OK ? checked : st;
        (void)part(job, "swap.verify", at, done);
    }
    if (st == FS_REFUSED && done < n) {
        refused(job, b, done, err);
        st = FS_OK;
    }
    return st;
}

/* I4. */
static fs_status_t release(struct hap_job *job, struct batch *b, struct fs_error *err)
{
    uint64_t moved = 0;
    fs_status_t st = job->ops->m2p(job->be, b->mfns, b->count, b->now_gfns, err);

    if (st != FS_OK) {
        return st;
    }
    for (size_t i = 0; i < b->count; i++) {
        uint8_t *state = &job->states[b->index[i]];

        if (!b->go[i]) {
            continue;
        }
        if (b->now_gfns[i] == b->gfns[i]) {
            *state = HAP_BUSY;
            continue;
        }
        job->slot_full[b->slots[i] - hap_gfn(job, HAP_SLOT_OFFSET).n] = false;
        if (verify(job) && page_hash((const uint64_t *)(void *)page(b->old, i)) != b->hashes[i]) {
            job->late_writes++;
        }
        memset(page(b->old, i), 0, FS_PAGE_BYTES);
        *state = HAP_MOVED;
        moved++;
    }
    job->report->moved += moved;
    return FS_OK;
}

static fs_status_t prepare(struct hap_job *job, struct batch *b, struct fs_error *err)
{
    fs_status_t st = hap_slots_fill(job, b->count, err);

    if (st != FS_OK) {
        return st;
    }
    for (size_t i = 0; i < b->count; i++) {
        b->gfns[i] = hap_gfn_at(job, b->index[i]);
        b->mfns[i] = hap_mfn_at(job, b->index[i]);
        b->slots[i] = hap_gfn(job, HAP_SLOT_OFFSET + i).n;
    }
    st = map_both(job, b, err);
    if (st == FS_OK) {
        st = job->ops->m2p(job->be, b->mfns, b->count, b->now_gfns, err);
    }
    if (st == FS_OK) {
        look_before(job, b);
    }
    return st;
}

static fs_status_t batch_run(struct hap_job *job, struct batch *b, struct fs_error *err)
{
    uint64_t began = job->ops->clock_ns(job->be), moved = job->report->moved;
    size_t switched = 0, going = 0;
    fs_status_t st = prepare(job, b, err);

    for (size_t i = 0; i < b->count && st == FS_OK; i++) {
        going += b->go[i];
    }
    if (st != FS_OK || going == 0) {
        goto out;
    }
    st = hap_pause(job, err);
    if (st != FS_OK) {
        goto out;
    }
    st = within_pause(job, b, &switched, err);
    fs_status_t un = hap_unpause(job, b->count, &b->pause_ns, err);
    st = st == FS_OK ? un : st;
    fs_status_t rel = un == FS_OK ? release(job, b, err) : un;
    st = st == FS_OK ? rel : st;
    mover_event(job->ctx, EV_PAUSE, job->domid, b->pause_ns, switched, NULL);
out:
    unmap(job, b);
    mover_phase(job->report, "swap", job->ops->clock_ns(job->be) - began, job->report->moved - moved);
    return st == FS_OK ? FS_OK : hap_why(job, st, err);
}

/* The chunk that begins at *next, into the journal: the runs of gfns that are about to be switched. */
static fs_status_t journal_chunk(struct hap_job *job, size_t next, size_t *end, struct fs_error *err)
{
    struct hap_run *runs = calloc(CHUNK_PAGES, sizeof(*runs));
    size_t n = 0, pages = 0, i = next;

    if (!runs) {
        return fs_fail(err, FS_NO_MEMORY, "no memory for a journal record");
    }
    for (; i < job->count && pages < CHUNK_PAGES; i++) {
        if (job->states[i] != HAP_TODO) {
            continue;
        }
        uint64_t mfn = hap_mfn_at(job, i).n;

        if (n > 0 && runs[n - 1].gfn + runs[n - 1].pages == hap_gfn_at(job, i) && runs[n - 1].mfn + runs[n - 1].pages == mfn) {
            runs[n - 1].pages++;
        } else {
            runs[n++] = (struct hap_run){ .gfn = hap_gfn_at(job, i), .mfn = mfn, .pages = 1 };
        }
        pages++;
    }
    *end = i;
    fs_status_t st = n == 0 ? FS_OK : journal_append(job->ctx->journal, JR_HAP_BATCH_INTENT, runs, n * sizeof(*runs), err);
    free(runs);
    return st;
}

static fs_status_t pass(struct hap_job *job, struct batch *b, struct fs_error *err)
{
    size_t next = 0, chunk_end = 0;
    fs_status_t st = FS_OK;
    uint64_t began = job->report->moved;

    while (next < job->count && st == FS_OK) {
        uint32_t most = job->final && job->batch_pages > FINAL_PAGES ? FINAL_PAGES : job->batch_pages;

        if (mover_interrupted(job->ctx)) {
            return fs_fail(err, FS_INTERRUPTED, "interrupted; domain %u runs, %llu of its frames have moved", job->domid,
                           (unsigned long long)job->report->moved);
        }
        if (next >= chunk_end) {
            st = journal_chunk(job, next, &chunk_end, err);
        }
        b->count = 0;
        for (; next < chunk_end && b->count < most; next++) {
            if (job->states[next] == HAP_TODO) {
                b->index[b->count++] = (uint32_t)next;
            }
        }
        if (b->count > 0 && st == FS_OK) {
            st = batch_run(job, b, err);
        }
        if (next >= chunk_end && st == FS_OK && job->report->moved > began) {
            struct hap_done_record done = { .moved = job->report->moved };

            st = journal_append(job->ctx->journal, JR_HAP_BATCH_DONE, &done, sizeof(done), err);
            mover_event(job->ctx, EV_SWAP, job->domid, job->report->moved, job->count, NULL);
        }
    }
    return st;
}

static size_t again(struct hap_job *job)
{
    size_t n = 0;

    for (size_t i = 0; i < job->count; i++) {
        if (job->states[i] == HAP_BUSY) {
            job->states[i] = HAP_TODO;
            n++;
        }
    }
    return n;
}

fs_status_t hap_swap_all(struct hap_job *job, struct fs_error *err)
{
    struct timespec wait = { .tv_nsec = PASS_WAIT_NS };
    struct batch *b = calloc(1, sizeof(*b));
    fs_status_t st = b ? pass(job, b, err) : fs_fail(err, FS_NO_MEMORY, "no memory for a batch");

    /* Grants end, if the guest's I/O does. */
    for (unsigned i = 1; i < PASSES_MAX && st == FS_OK && again(job) > 0; i++) {
        if (!job->ctx->one_thread) {        /* where nothing else runs, waiting changes nothing */
            (void)nanosleep(&wait, NULL);
        }
        wait.tv_nsec *= 3;
        st = pass(job, b, err);
    }
    for (uint32_t i = 0; i < job->count && st == FS_OK; i++) {
        if (job->states[i] == HAP_BUSY || job->states[i] == HAP_TODO) {
            hap_stays(job, i, hap_busy(job, hap_gfn_at(job, i)) ? FS_REASON_GRANTED : FS_REASON_XEN_REFUSED);
        }
    }
    free(b);
    return st;
}
