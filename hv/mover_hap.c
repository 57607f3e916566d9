/*
 * mover_hap.c - moves the frames of PVH/HVM guests, without their cooperation.
 *
 * Owns: mover_hap: the order of the phases, the list and its states, what is busy.
 * The parts: hap_scratch.c (frames to work with), hap_pause.c (bounded pauses), held_shape.c,
 * hap_held.c, hap_refs.c (what Xen holds), hap_extent.c (2 MiB), hap_swap.c (4 KiB), hap_recover.c.
 * Invariants:
 *  I1 a frame is marked before it is let go, and its owner is known from the mark: a marked frame
 *     that its owner lets go is offlined and never gets another owner, so that from then on "the M2P
 *     says this gfn" means "it is this domain's frame at this gfn";
 *  I2 what Xen holds is known before the first frame moves (hap_held.c);
 *  I3 the guest runs at all times but for pauses that are bounded, counted and undone;
 *  I4 whatever happens, the scratch gfns end empty and max_pages as it was, unless the guest has
 *     gone or recovery must do it.
 * Order: rings and grants, scratch, held pages, marks, whole extents, single frames, then what was
 * set aside, then clean up.  Extents first: what a single swap touches is no whole extent any more.
 * Why no dirty log: see hap_extent.c.
 * Not seen here: a device model in dom0 that has guest memory mapped for emulated DMA (HVM guests),
 * and a migration of the same guest that begins meanwhile (doc/CAVEATS.md).
 * Cost: linear in the frames; 2 bytes of memory a frame beside the list's 8.
 */
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "hap_priv.h"

#define MARK_STEP 8192u
#define EXTENT_PASSES 3u

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

bool hap_busy(const struct hap_job *job, uint64_t gfn)
{
    return job->busy_count > 0 && bsearch(&gfn, job->busy, job->busy_count, sizeof(gfn), by_value) != NULL;
}

static fs_status_t busy_room(struct hap_job *job, size_t count, struct fs_error *err)
{
    if (count > job->busy_capacity) {
        uint64_t *grown = realloc(job->busy, (count + 256) * sizeof(*grown));

        if (!grown) {
            return fs_fail(err, FS_NO_MEMORY, "no memory for the grants of domain %u", job->domid);
        }
        job->busy = grown;
        job->busy_capacity = count + 256;
    }
    job->busy_count = 0;
    return FS_OK;
}

static fs_status_t busy_from(struct hap_job *job, const struct hv_special *specials, size_t count, struct fs_error *err)
{
    fs_status_t st = busy_room(job, count, err);

    for (size_t i = 0; i < count && st == FS_OK; i++) {
        if (specials[i].gfn != FS_FRAME_NONE && specials[i].kind != HV_SPECIAL_IOREQ) {
            job->busy[job->busy_count++] = specials[i].gfn;
        }
    }
    qsort(job->busy, job->busy_count, sizeof(*job->busy), by_value);
    return st;
}

/* The rings stay what they were found to be; only grants come and go. */
static fs_status_t busy_from_watch(struct hap_job *job, struct fs_error *err)
{
    const uint64_t *gfns;
    size_t count;
    fs_status_t st = job->ops->grants_read(job->be, job->grants, &gfns, &count, err);

    if (st == FS_OK) {
        st = busy_room(job, count + FS_ARRAY_SIZE(job->rings), err);
    }
    if (st != FS_OK) {
        return st;
    }
    memcpy(job->busy, gfns, count * sizeof(*gfns));
    memcpy(job->busy + count, job->rings, sizeof(job->rings));
    job->busy_count = count + FS_ARRAY_SIZE(job->rings);
    qsort(job->busy, job->busy_count, sizeof(*job->busy), by_value);
    return FS_OK;
}

fs_status_t hap_busy_refresh(struct hap_job *job, struct fs_error *err)
{
    struct hv_special *specials = NULL;
    size_t count = 0;

    if (job->grants) {
        return busy_from_watch(job, err);
    }
    fs_status_t st = job->ops->specials(job->be, job->domid, &specials, &count, err);
    if (st == FS_OK) {
        st = busy_from(job, specials, count, err);
    }
    free(specials);
    return st;
}

void hap_stays(struct hap_job *job, uint32_t index, enum fs_reason reason)
{
    ASSERT_CMP(index, <, job->count);
    job->states[index] = HAP_STAYS;
    job->reasons[index] = (uint8_t)reason;
}

static fs_status_t job_init(struct hap_job *job, const struct mover_ctx *ctx, const struct hv_domain *dom,
                            struct mover_list *list, struct mover_result *result, struct fs_error *err)
{
    const size_t count = list->count;

    *job = (struct hap_job){
        .ctx = ctx, .be = ctx->be, .ops = ctx->be->ops, .domid = dom->domid, .dom = *dom, .result = result,
        .report = result->report, .list = list, .count = count, .rings = { FS_FRAME_NONE, FS_FRAME_NONE },
    };
    if (count >= UINT32_MAX) {
        return fs_fail(err, FS_BAD_RANGE, "%zu frames are too many for one move", count);
    }
    job->states = calloc(count + 1, 1);
    job->reasons = calloc(count + 1, 1);
    if (!job->states || !job->reasons) {
        return fs_fail(err, FS_NO_MEMORY, "no memory for %zu frames", count);
    }
    for (uint32_t i = 0; i < count; i++) {
        if (hap_gfn_at(job, i) == FS_FRAME_NONE) {
            hap_stays(job, i, FS_REASON_NOT_IN_P2M);
        }
    }
    hap_pause_init(job);
    return FS_OK;
}

static void job_free(struct hap_job *job)
{
    if (job->grants) {
        job->ops->grants_end(job->be, job->grants);
    }
    hap_held_free(job);
    free(job->states);
    free(job->reasons);
    free(job->busy);
    free(job->pauses.ns);
}

/* The ring pages of toolstack services are set up for every guest and mostly unused: the references tell. */
static fs_status_t service_ring(struct hap_job *job, uint32_t index, struct fs_error *err)
{
    mfn_t mfn = hap_mfn_at(job, index);
    struct hv_frame_refs refs = { 0 };
    fs_status_t st = hap_refs(job, &mfn, 1, &refs, err);

    if (st != FS_OK && st != FS_UNSUPPORTED) {
        return st;
    }
    if (st != FS_OK || !refs.known || refs.count != 1 || refs.type_count != 0) {
        hap_stays(job, index, FS_REASON_IOREQ);
    }
    return FS_OK;
}

static int special_order(const void *a, const void *b)
{
    const struct hv_special *x = a, *y = b;

    return (x->gfn > y->gfn) - (x->gfn < y->gfn);
}

static fs_status_t set_aside(struct hap_job *job, uint32_t index, enum hv_special_kind kind, struct fs_error *err)
{
    switch (kind) {
    case HV_SPECIAL_XENSTORE: hap_stays(job, index, FS_REASON_XENSTORE_RING); break;
    case HV_SPECIAL_CONSOLE:  hap_stays(job, index, FS_REASON_CONSOLE_RING); break;
    case HV_SPECIAL_IOREQ:    return service_ring(job, index, err);
    case HV_SPECIAL_GRANT_MAPPED:
    case HV_SPECIAL_GRANT_OFFERED: break;                   /* busy for now, see hap_swap.c */
    }
    return FS_OK;
}

/* The frames of the list that specials (sorted by gfn) name. */
static fs_status_t set_aside_all(struct hap_job *job, const struct hv_special *specials, size_t count, struct fs_error *err)
{
    fs_status_t st = FS_OK;

    for (uint32_t i = 0; i < job->count && count > 0 && st == FS_OK; i++) {
        struct hv_special key = { .gfn = hap_gfn_at(job, i) };
        const struct hv_special *at = key.gfn == FS_FRAME_NONE ? NULL : bsearch(&key, specials, count, sizeof(key), special_order);

        while (at && at > specials && at[-1].gfn == key.gfn) {
            at--;
        }
        for (; at && at < specials + count && at->gfn == key.gfn && st == FS_OK; at++) {
            st = set_aside(job, i, (enum hv_special_kind)at->kind, err);
        }
    }
    return st;
}

static fs_status_t set_aside_rings(struct hap_job *job, struct fs_error *err)
{
    struct hv_special *specials = NULL;
    size_t count = 0;
    fs_status_t st = job->ops->specials(job->be, job->domid, &specials, &count, err);

    for (size_t i = 0; i < count && st == FS_OK; i++) {
        if (specials[i].kind == HV_SPECIAL_XENSTORE || specials[i].kind == HV_SPECIAL_CONSOLE) {
            job->rings[specials[i].kind == HV_SPECIAL_CONSOLE] = specials[i].gfn;
        }
    }
    if (st == FS_OK && count > 1) {
        qsort(specials, count, sizeof(*specials), special_order);
    }
    if (st == FS_OK) {
        st = set_aside_all(job, specials, count, err);
    }
    if (st == FS_OK) {
        st = busy_from(job, specials, count, err);
    }
    free(specials);
    if (st == FS_OK && job->ops->grants_begin) {
        st = job->ops->grants_begin(job->be, job->domid, &job->grants, err);
    }
    return st;
}

static void marked(struct hap_job *job, uint32_t index, const struct hv_mark_result *m)
{
    bool open = job->states[index] == HAP_TODO || job->states[index] == HAP_SUSPECT;

    switch ((enum hv_mark)m->mark) {
    case HV_MARK_PENDING_OWNED:
        if (m->domid != job->domid) {
            hap_stays(job, index, FS_REASON_OWNER_UNKNOWN);
        }
        break;
    case HV_MARK_OFFLINED:
        job->states[index] = HAP_GONE;
        break;
    case HV_MARK_PENDING_XEN:
        hap_stays(job, index, FS_REASON_XEN_SHARED);
        break;
    case HV_MARK_BROKEN:
        hap_stays(job, index, FS_REASON_BROKEN);
        break;
    default:
        if (open) {
            hap_stays(job, index, FS_REASON_XEN_REFUSED);
        }
    }
}

/* I1 */
static fs_status_t mark_all(struct hap_job *job, struct fs_error *err)
{
    mfn_t *mfns = malloc(MARK_STEP * sizeof(*mfns));
    struct hv_mark_result *marks = malloc(MARK_STEP * sizeof(*marks));
    fs_status_t st = mfns && marks ? FS_OK : fs_fail(err, FS_NO_MEMORY, "no memory for marks");

    for (size_t at = 0; at < job->count && st == FS_OK; at += MARK_STEP) {
        size_t n = job->count - at < MARK_STEP ? job->count - at : MARK_STEP;

        for (size_t i = 0; i < n; i++) {
            mfns[i] = hap_mfn_at(job, at + i);
        }
        memset(marks, 0, n * sizeof(*marks));
        st = job->ops->mark_owned(job->be, mfns, n, marks, err);
        for (size_t i = 0; i < n && st == FS_OK; i++) {
            marked(job, (uint32_t)(at + i), &marks[i]);
        }
    }
    free(mfns);
    free(marks);
    return st;
}

/* Aligned extents whose frames run in step, whatever becomes of them. */
static uint64_t extents_of_list(const struct hap_job *job)
{
    uint64_t n = 0;

    for (size_t i = 0; i + FS_SP_PAGES <= job->count; i++) {
        uint64_t mfn = hap_mfn_at(job, i).n, gfn = hap_gfn_at(job, i);
        size_t k = 0;

        if (mfn % FS_SP_PAGES != 0 || gfn % FS_SP_PAGES != 0) {
            continue;
        }
        while (k < FS_SP_PAGES && hap_mfn_at(job, i + k).n == mfn + k && hap_gfn_at(job, i + k) == gfn + k) {
            k++;
        }
        n += k == FS_SP_PAGES;
    }
    return n;
}

static uint64_t phase(struct hap_job *job, const char *name, uint64_t since, uint64_t count)
{
    uint64_t now = job->ops->clock_ns(job->be);

    mover_phase(job->report, name, now - since, count);
    return now;
}

static fs_status_t move_extents(struct hap_job *job, struct fs_error *err)
{
    fs_status_t st = FS_OK;

    /* Again for those that had a page under a grant. */
    for (unsigned i = 0; i < EXTENT_PASSES && st == FS_OK; i++) {
        uint64_t before = job->report->superpages_after;

        st = hap_extent_all(job, err);
        if (job->extents_given_up || job->report->superpages_after == before) {
            break;
        }
    }
    return st;
}

static fs_status_t move_phases(struct hap_job *job, struct fs_error *err)
{
    uint64_t at = job->ops->clock_ns(job->be);
    fs_status_t st = set_aside_rings(job, err);

    if (st == FS_OK) {
        st = hap_scratch_open(job, err);
        at = phase(job, "scratch", at, 1);
    }
    if (st == FS_OK) {
        st = hap_held_find(job, err);                       /* I2 */
        at = phase(job, "held", at, job->held.count);
    }
    if (st == FS_OK) {
        st = mark_all(job, err);
        (void)phase(job, "mark", at, job->count);
    }
    if (st == FS_OK) {
        st = move_extents(job, err);
    }
    if (st == FS_OK) {
        st = hap_swap_all(job, err);
    }
    if (st == FS_OK) {
        at = job->ops->clock_ns(job->be);
        st = hap_held_settle(job, err);
        (void)phase(job, "settle", at, 0);
    }
    if (st == FS_OK) {
        job->final = true;
        st = hap_swap_all(job, err);
    }
    return st;
}

static fs_status_t report(struct hap_job *job, struct fs_error *err)
{
    for (size_t i = 0; i < job->count; i++) {
        enum fs_reason reason = job->states[i] == HAP_STAYS ? (enum fs_reason)job->reasons[i] : FS_REASON_EVTCHN_SUSPECT;

        if (job->states[i] == HAP_MOVED || job->states[i] == HAP_GONE) {
            continue;
        }
        job->report->blocked++;
        if (mover_block(job->result, hap_mfn_at(job, i), hap_gfn_at(job, i), job->domid, reason) != FS_OK) {
            return fs_fail(err, FS_NO_MEMORY, "no memory for the list of blockers");
        }
    }
    return FS_OK;
}

/* I4.  What went wrong first is what is told. */
static fs_status_t clean_up(struct hap_job *job, fs_status_t st, struct fs_error *err)
{
    struct fs_error words = { "" };
    fs_status_t end = FS_OK;
    uint64_t at = job->ops->clock_ns(job->be);

    if (st == FS_NEEDS_RECOVER || st == FS_GUEST_GONE) {
        if (job->stage) {
            job->ops->unmap(job->be, job->stage, FS_SP_PAGES);
        }
        if (job->ctl) {
            job->ops->unmap(job->be, job->ctl, 1);
        }
        job->stage = NULL;
        job->ctl = NULL;
        return st;
    }
    if (job->pauses.depth == 1) {
        end = hap_unpause(job, 0, NULL, &words);
    }
    if (end == FS_OK && (job->max_raised || job->ctl_populated)) {
        end = hap_scratch_close(job, &words);
        (void)phase(job, "clean-up", at, 1);
    }
    if (end == FS_OK) {
        end = journal_append(job->ctx->journal, JR_HAP_CLEANED, NULL, 0, &words);
    }
    if (end != FS_OK && end != FS_GUEST_GONE) {
        return fs_fail(err, FS_NEEDS_RECOVER, "%.300s; run `frameshift recover`", words.text);
    }
    if (st == FS_OK && end != FS_OK) {
        return fs_fail(err, end, "%.300s", words.text);
    }
    return st;
}

static fs_status_t move(const struct mover_ctx *ctx, const struct hv_domain *dom, struct mover_list *list,
                        struct mover_result *result, struct fs_error *err)
{
    struct hap_job job = { 0 };

    if (dom->kind != HV_DOMAIN_HAP) {
        return fs_fail(err, FS_UNSUPPORTED, "domain %u is not a PVH or HVM guest with hardware-assisted paging", dom->domid);
    }
    if (list->count == 0) {
        return FS_OK;
    }
    fs_status_t st = job_init(&job, ctx, dom, list, result, err);
    if (st == FS_OK) {
        st = hap_alive(&job, err);
    }
    if (st == FS_OK) {
        result->report->superpages_before = extents_of_list(&job);
        st = hap_why(&job, move_phases(&job, err), err);
        st = clean_up(&job, st, err);
    }
    if (st == FS_OK) {
        st = report(&job, err);
    }
    if (job.late_writes > 0) {
        mover_event(ctx, EV_WARNING, job.domid, job.late_writes, 0, "old frames were written to after the switch");
    }
    hap_pause_report(&job);
    job_free(&job);
    return st;
}

const struct mover_ops mover_hap = { .name = "hap", .id = HV_MOVER_HAP, .move = move, .recover = hap_recover };
