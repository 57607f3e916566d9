/*
 * mover_pv.c - stock PV guests: suspend, rewrite every reference, resume.
 *
 * Owns: the rounds of one guest.  A round is one suspend: it moves all the guest's
 * frames of the ranges, or, with --max-blackout, as many as fit by what the rounds
 * before it measured.
 * Invariants:
 *   I1  the guest is stopped only while everything needed is already in hand: frames
 *       reserved, memory allocated, journal open.
 *   I2  a frame is moved only if it is in the guest's p2m, the M2P agrees, Xen says the
 *       guest owns it, no grant names it, and the probe found no other holder.
 *       Grants that are offered but not in use count as held: their user may map them
 *       at any moment, also while the guest is stopped.
 *   I3  whatever happens, the guest runs again when the round returns, unless the
 *       round says FS_NEEDS_RECOVER or FS_GUEST_GONE.
 *   I4  the journal names each step before it is done (see pv_job.h for what recovery
 *       does with it).
 *   I5  a guest that has mapped frames of another domain (a driver domain) or of a
 *       device is refused before anything is dropped: Xen would not validate its page
 *       tables again at our request.
 * Lock order: none; one guest at a time.
 * Why a suspend: Debian's Xen has no dirty log for PV guests, so nothing can be copied
 * while the guest writes; and only a guest that waits in its suspend hypercall expects
 * its machine frames to have changed when it returns.
 * Cost: see pv_switch.c; a round costs the frames moved plus all page tables once.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "hv_priv.h"
#include "pv_job.h"

#define SUSPEND_TRIES 2
#define DEFAULT_SUSPEND_NS 60000000000ull
#define RESERVE_SLACK 32u           /* frames that may enter the range's share between the count and the stop */
#define FIRST_ROUND_PAGES 4096u     /* with --max-blackout: small enough to learn from */
#define LEAST_ROUND_PAGES 512u
#define LDT_ROUNDS 2u               /* further stops for LDT pages that Xen held in the one before */

/* Which low 16 bits of a frame number occur in a set: nearly every data page is rejected by one look, where a search a
 * page and set would be the longest part of choosing. */
#define FILTER_BITS 65536u
struct frame_filter { uint64_t bits[FILTER_BITS / 64]; };
_Static_assert(PV_THREADS * 2u == PV_SPARE, "two spare frames for each part of the probe");

/* What is known about frames that stay: sorted list, grown after each round. */
struct held_list { mfn_t *list; size_t count, capacity; };

struct pv_course {
    const struct mover_ctx *ctx;
    const struct hv_domain *dom;
    struct mover_result *result;
    struct held_list held;
    struct hv_special *specials;
    size_t special_count;
    struct hv_grants *grants;       /* watch of the round; NULL where the machine has none */
    struct frame_filter notable;    /* superset of what is held or special */
    size_t limit_pages;             /* of the next round */
    bool more;                      /* the last round left movable frames */
};

/* ---- frames that stay ------------------------------------------------------------ */

static int mfn_order(const void *a, const void *b)
{
    const mfn_t *x = a, *y = b;
    return x->n < y->n ? -1 : x->n > y->n;
}

static void filter_add(struct frame_filter *f, mfn_t m)
{
    f->bits[m.n % FILTER_BITS / 64] |= 1ull << (m.n % 64);
}

static bool filter_may_have(const struct frame_filter *f, mfn_t m)
{
    return (f->bits[m.n % FILTER_BITS / 64] >> (m.n % 64)) & 1;
}

static bool held_has(const struct held_list *h, mfn_t m)
{
    return h->count > 0 && bsearch(&m, h->list, h->count, sizeof(m), mfn_order) != NULL;
}

/* The list stays sorted. */
static void held_drop(struct held_list *h, mfn_t m)
{
    size_t kept = 0;
    for (size_t i = 0; i < h->count; i++) {
        if (!mfn_eq(h->list[i], m)) {
            h->list[kept++] = h->list[i];
        }
    }
    h->count = kept;
}

static fs_status_t held_add(struct pv_course *course, mfn_t m, uint64_t pfn, enum fs_reason reason)
{
    struct held_list *h = &course->held;
    if (h->count == h->capacity) {
        size_t capacity = h->capacity == 0 ? 64 : h->capacity * 2;
        mfn_t *grown = realloc(h->list, capacity * sizeof(*grown));
        if (grown == NULL) {
            return FS_NO_MEMORY;
        }
        h->list = grown;
        h->capacity = capacity;
    }
    h->list[h->count++] = m;
    filter_add(&course->notable, m);
    return mover_block(course->result, m, pfn, course->dom->domid, reason);
}

static int special_order(const void *a, const void *b)
{
    const struct hv_special *x = a, *y = b;
    return x->mfn.n < y->mfn.n ? -1 : x->mfn.n > y->mfn.n;
}

/* The reason that the ring pages and grants give for a frame, or FS_REASON_NONE. */
static enum fs_reason special_reason(const struct pv_course *course, mfn_t m)
{
    struct hv_special key = { .mfn = m };
    const struct hv_special *at = course->special_count == 0 ? NULL :
        bsearch(&key, course->specials, course->special_count, sizeof(key), special_order);
    if (at == NULL) {
        return FS_REASON_NONE;
    }
    while (at > course->specials && mfn_eq(at[-1].mfn, m)) {
        at--;
    }
    /* A ring page is also a grant: the ring is the better word. */
    enum fs_reason reason = FS_REASON_GRANTED;
    for (; at < course->specials + course->special_count && mfn_eq(at->mfn, m); at++) {
        switch (at->kind) {
        case HV_SPECIAL_XENSTORE: return FS_REASON_XENSTORE_RING;
        case HV_SPECIAL_CONSOLE:  return FS_REASON_CONSOLE_RING;
        case HV_SPECIAL_IOREQ:    return FS_REASON_IOREQ;
        default: break;
        }
    }
    return reason;
}

static void sort_specials(struct pv_course *course)
{
    if (course->special_count > 0) {
        qsort(course->specials, course->special_count, sizeof(*course->specials), special_order);
    }
    for (size_t i = 0; i < course->special_count; i++) {
        filter_add(&course->notable, course->specials[i].mfn);
    }
}

/* Rings and grants as they are now. */
static fs_status_t read_specials(struct pv_course *course, struct fs_error *err)
{
    struct hv_backend *be = course->ctx->be;
    free(course->specials);
    course->specials = NULL;
    course->special_count = 0;
    fs_status_t s = be->ops->specials(be, course->dom->domid, &course->specials, &course->special_count, err);
    if (s == FS_OK) {
        sort_specials(course);
    }
    return s;
}

static void end_grants(struct pv_course *course)
{
    if (course->grants != NULL) {
        course->ctx->be->ops->grants_end(course->ctx->be, course->grants);
        course->grants = NULL;
    }
}

/* Before the stop: what cannot change any more by being asked early.  Rings stay where they are while a domain lives (xenstore is
 * asked for them, which takes its time); grants come and go until the guest stands still, so their table is only mapped here. */
static fs_status_t begin_specials(struct pv_course *course, struct fs_error *err)
{
    const struct hv_backend_ops *ops = course->ctx->be->ops;
    fs_status_t s = read_specials(course, err);
    if (s == FS_OK && ops->grants_begin != NULL) {
        end_grants(course);
        s = ops->grants_begin(course->ctx->be, course->dom->domid, &course->grants, err);
    }
    return s;
}

/* In the stop: the grants of now take the place of those that were seen before it. */
static fs_status_t refresh_specials(struct pv_course *course, struct fs_error *err)
{
    struct hv_backend *be = course->ctx->be;
    const uint64_t *frames;
    size_t count;
    if (course->grants == NULL) {
        return read_specials(course, err);
    }
    fs_status_t s = be->ops->grants_read(be, course->grants, &frames, &count, err);
    if (s != FS_OK) {
        return s;
    }
    size_t rings = 0;
    for (size_t i = 0; i < course->special_count; i++) {
        if (course->specials[i].kind != HV_SPECIAL_GRANT_OFFERED && course->specials[i].kind != HV_SPECIAL_GRANT_MAPPED) {
            course->specials[rings++] = course->specials[i];
        }
    }
    course->special_count = rings;
    struct hv_special *grown = realloc(course->specials, (rings + count + 1) * sizeof(*grown));
    if (grown == NULL) {
        return fs_fail(err, FS_NO_MEMORY, "no memory for the grants of domain %u", course->dom->domid);
    }
    course->specials = grown;
    for (size_t i = 0; i < count; i++) {
        if (mfn_set_contains(course->ctx->ranges, mfn_make(frames[i]))) {
            grown[course->special_count++] = (struct hv_special){ .mfn = mfn_make(frames[i]), .gfn = FS_FRAME_NONE,
                                                                  .kind = HV_SPECIAL_GRANT_OFFERED };
        }
    }
    sort_specials(course);
    return FS_OK;
}

/* ---- choosing ---------------------------------------------------------------------- */

/* Frames of the ranges in the p2m, not known to be held; at most limit, set in bits unless NULL.  *more: there would have been more. */
static size_t collect(const struct pv_course *course, const struct pv_p2m *p2m, size_t limit, uint64_t *bits, bool *more)
{
    const struct mfn_range_set *ranges = course->ctx->ranges;
    uint64_t first = ranges->count > 0 ? ranges->ranges[0].start.n : 0;
    uint64_t end = ranges->count > 0 ? ranges->ranges[ranges->count - 1].end.n : 0;
    size_t n = 0;
    *more = false;
    for (uint64_t pfn = 0; pfn < p2m->pfn_count; pfn++) {
        mfn_t m = pv_p2m_get(p2m, pfn);
        if (m.n < first || m.n >= end || !mfn_set_contains(ranges, m) ||
            (filter_may_have(&course->notable, m) && held_has(&course->held, m))) {
            continue;
        }
        if (n == limit) {
            *more = true;
            break;
        }
        if (bits != NULL) {
            bitmap_set(bits, pfn);
        }
        n++;
    }
    return n;
}

#define LOOKS_MAX 8u                 /* at a running guest that seems to map a foreign frame */
#define CONFIRM_BATCH (PV_SCRATCH_BYTES / (sizeof(mfn_t) + 2 * sizeof(uint64_t)))

/* Of a batch: a candidate whose M2P entry or owner says otherwise, or that a special names, stays. */
static fs_status_t confirm_batch(struct pv_course *course, struct pv_job *job, const mfn_t *mfns, const uint64_t *pfns, const uint64_t *gfns, size_t n)
{
    fs_status_t s = FS_OK;
    for (size_t i = 0; i < n && s == FS_OK; i++) {
        enum fs_reason reason = filter_may_have(&course->notable, mfns[i]) ? special_reason(course, mfns[i]) : FS_REASON_NONE;
        if (!bitmap_has(job->owned, pfns[i]) || gfns[i] != pfns[i]) {
            reason = FS_REASON_NOT_IN_P2M;      /* its p2m and Xen's M2P disagree: nothing is moved on a guess */
        }
        if (reason != FS_REASON_NONE) {
            bitmap_clear(job->moves, pfns[i]);
            job->move_count--;
            s = held_add(course, mfns[i], pfns[i], reason);
        }
    }
    return s;
}

/* Keep the candidates that M2P and ownership confirm and that no special names (I2). */
static fs_status_t confirm(struct pv_course *course, struct pv_job *job, struct fs_error *err)
{
    mfn_t *mfns = pv_scratch(job, 0);
    uint64_t *pfns = (uint64_t *)(void *)(mfns + CONFIRM_BATCH), *gfns = pfns + CONFIRM_BATCH;
    struct pv_cursor c = pv_cursor_at(job, 0);
    struct pv_move m;
    fs_status_t s = FS_OK;
    for (bool more = true; more && s == FS_OK; ) {
        size_t n = 0;
        while (n < CONFIRM_BATCH && (more = pv_cursor_next(job, &c, &m))) {
            mfns[n] = m.old;
            pfns[n++] = m.pfn;
        }
        s = n == 0 ? FS_OK : job->be->ops->m2p(job->be, mfns, n, gfns, err);
        if (s == FS_OK) {
            s = confirm_batch(course, job, mfns, pfns, gfns, n);
        }
    }
    return s;
}

/* The probe asks by whole powers of two: a batch is a multiple of a large one. */
#define PROBE_BATCH 32768u
_Static_assert(PROBE_BATCH * (sizeof(mfn_t) + sizeof(bool)) <= PV_SCRATCH_BYTES, "a batch fits into the scratch memory");

struct probe_work {
    struct pv_job *job;
    uint64_t *held;                             /* bitmap by pfn */
    uint64_t calls[PV_THREADS];
};

static fs_status_t probe_part(void *arg, unsigned part, size_t first, size_t end, struct fs_error *err)
{
    struct probe_work *w = arg;
    struct pv_job *job = w->job;
    const uint32_t *last = &job->reserved[job->reserved_count - 2u * (part + 1)];
    const mfn_t spare[2] = { mfn_make(last[0]), mfn_make(last[1]) };
    mfn_t *mfns = pv_scratch(job, part);
    bool *held = (bool *)(void *)(mfns + PROBE_BATCH);
    struct pv_cursor c = pv_cursor_at(job, first);
    fs_status_t s = FS_OK;
    while (first < end && s == FS_OK) {
        struct pv_cursor begin = c;
        struct pv_move m;
        uint64_t calls = 0;
        size_t n = 0;
        for (; n < PROBE_BATCH && first < end && pv_cursor_next(job, &c, &m); first++) {
            mfns[n++] = m.old;
        }
        s = job->be->ops->probe_held(job->be, job->dom.domid, mfns, n, spare, held, &calls, err);
        w->calls[part] += calls;
        for (size_t i = 0; i < n && s == FS_OK && pv_cursor_next(job, &begin, &m); i++) {
            if (held[i]) {                      /* another part's pfn may share the word */
                __atomic_fetch_or(&w->held[m.pfn / 64], 1ull << (m.pfn % 64), __ATOMIC_RELAXED);
            }
        }
    }
    return s;
}

/* What is not held gets its new frame, in order. */
static fs_status_t assign(struct pv_course *course, struct pv_job *job, const uint64_t *held)
{
    struct pv_cursor c = pv_cursor_at(job, 0);
    struct pv_move m;
    size_t n = 0;
    fs_status_t s = FS_OK;
    while (s == FS_OK && pv_cursor_next(job, &c, &m)) {
        if (bitmap_has(held, m.pfn)) {
            bitmap_clear(job->moves, m.pfn);
            s = held_add(course, m.old, m.pfn, FS_REASON_FOREIGN_REF);
        } else {
            xlat_set(&job->x, m.old, mfn_make(job->reserved[n++]));
        }
    }
    job->move_count = job->reserved_used = n;
    return s;
}

/* Ask Xen which candidates somebody else holds; the rest become the round's moves. */
static fs_status_t probe(struct pv_course *course, struct pv_job *job, struct fs_error *err)
{
    uint64_t since = pv_now(job), calls = 0;
    size_t count = job->move_count;
    struct probe_work work = { .job = job, .held = bitmap_new(job->bitmap_pfns) };
    fs_status_t s = work.held == NULL ? FS_NO_MEMORY : pv_parallel(job->ctx, count, probe_part, &work, err);
    if (s == FS_OK) {
        s = assign(course, job, work.held);
    }
    free(work.held);
    if (s != FS_OK) {
        return s;
    }
    for (unsigned i = 0; i < PV_THREADS; i++) {
        calls += work.calls[i];
    }
    pv_phase(job, "probe", &since, calls);
    mover_event(job->ctx, EV_PROBE, job->dom.domid, count, count - job->move_count, NULL);
    return FS_OK;
}

static fs_status_t refuse_driver_domain(const struct pv_job *job, mfn_t foreign, struct fs_error *err)
{
    char which[32] = "one";
    if (!mfn_is_none(foreign)) {
        snprintf(which, sizeof(which), "%#llx", (unsigned long long)foreign.n);
    }
    return fs_fail(err, FS_REFUSED, "domain %u (%s) has mapped frames of other domains or of devices (frame %s; a driver domain?): such "
                   "mappings cannot be made again by anybody but itself; shut it down, or exclude it", job->dom.domid, job->dom.name, which);
}

/* ---- one round ---------------------------------------------------------------------- */

static fs_status_t stop_guest(struct pv_job *job, struct fs_error *err)
{
    const struct hv_backend_ops *ops = job->be->ops;
    uint64_t timeout = job->ctx->options->suspend_timeout_ns, since = pv_now(job);
    uint32_t monitors = 0;
    timeout = timeout == 0 ? DEFAULT_SUSPEND_NS : timeout;
    fs_status_t s = journal_append(job->ctx->journal, JR_PV_SUSPEND_INTENT, NULL, 0, err);
    if (s != FS_OK) {
        return s;
    }
    job->monitor_held = true;
    s = ops->monitor_hold(job->be, job->dom.domid, &monitors, err);
    for (int i = 0; i < SUSPEND_TRIES && s == FS_OK; i++) {
        s = ops->suspend(job->be, job->dom.domid, timeout, &job->stopped_ns, err);
        if (s != FS_TIMEOUT || i + 1 == SUSPEND_TRIES) {
            break;
        }
        s = FS_OK;
    }
    if (s != FS_OK) {
        return s;
    }
    job->suspended = true;
    uint64_t handshake = job->stopped_ns > since ? job->stopped_ns - since : 0;
    mover_phase(job->result->report, "handshake", handshake, 1);
    mover_event(job->ctx, EV_SUSPEND, job->dom.domid, job->dom.vcpus_online, handshake, NULL);
    s = ops->pause(job->be, job->dom.domid, err);
    job->paused = s == FS_OK;
    return s == FS_OK ? journal_append(job->ctx->journal, JR_PV_SUSPENDED, NULL, 0, err) : s;
}

fs_status_t pv_run_again(struct pv_job *job, struct fs_error *err)
{
    const struct hv_backend_ops *ops = job->be->ops;
    fs_status_t s = FS_OK;
    if (job->suspended) {
        s = ops->resume(job->be, job->dom.domid, err);
        job->suspended = s != FS_OK;
    }
    if (s == FS_OK && job->paused) {
        s = ops->unpause(job->be, job->dom.domid, err);
        job->paused = s != FS_OK;
    }
    job->running_ns = s == FS_OK ? pv_now(job) : 0;
    if (job->monitor_held) {
        fs_status_t m = ops->monitor_release(job->be, job->dom.domid, s == FS_OK ? err : NULL);
        job->monitor_held = false;
        s = s == FS_OK ? m : s;
    }
    return s;
}

/* Everything between "stopped" and "switched". */
static fs_status_t switch_round(struct pv_course *course, struct pv_job *job, struct fs_error *err)
{
    struct pv_hashes hashes = { NULL };
    fs_status_t s = pv_capture(job, err);
    if (s != FS_OK) {
        return s;
    }
    if (job->p2m.foreign) {                    /* I5, once more, now that it cannot change */
        return refuse_driver_domain(job, MFN_NONE, err);
    }
    uint64_t since = pv_now(job);
    size_t room = job->reserved_count - PV_SPARE;
    room = room < course->limit_pages ? room : course->limit_pages;
    job->move_count = collect(course, &job->p2m, room, job->moves, &course->more);
    s = refresh_specials(course, err);
    if (s == FS_OK) {
        s = confirm(course, job, err);
    }
    pv_phase(job, "choose", &since, job->move_count);
    if (s == FS_OK) {
        s = pv_journal_state(job, err);
    }
    if (s == FS_OK) {
        pv_phase(job, "journal", &since, 1);
        s = pv_drop(job, err);
    }
    if (s == FS_OK) {
        s = probe(course, job, err);
    }
    since = pv_now(job);
    if (s == FS_OK) {
        s = pv_journal_moves(job, err);
        pv_phase(job, "journal", &since, 1);
    }
    bool verify = job->ctx->options->verify;
    if (s == FS_OK && verify) {
        hashes = pv_hashes_new(job->move_count);
        s = pv_hash_before(job, &hashes, err);
    }
    if (s == FS_OK) {
        s = pv_copy(job, err);
    }
    if (s == FS_OK) {
        s = pv_apply(job, true, err);
    }
    if (s == FS_OK) {
        s = pv_reload(job, true, err);
    }
    if (s == FS_OK && verify) {
        uint64_t mismatches = 0;
        s = pv_hash_after(job, &hashes, &mismatches, err);
        job->result->report->pages_hashed += job->move_count;
        job->result->report->mismatches += mismatches;
        if (s == FS_OK && mismatches > 0) {
            s = fs_fail(err, FS_CORRUPT, "domain %u: %llu of %zu pages differ after the switch; rolled back",
                        job->dom.domid, (unsigned long long)mismatches, job->move_count);
        }
    }
    if (s == FS_OK) {
        since = pv_now(job);
        s = journal_append(job->ctx->journal, JR_PV_SWITCHED, NULL, 0, err);
        job->switched = s == FS_OK;
        pv_phase(job, "journal", &since, 1);
    }
    free(hashes.sums);
    return s;
}

/* Is this still the domain that we began with? */
static bool domain_gone(const struct pv_job *job)
{
    struct hv_domain now;
    return job->be->ops->domain(job->be, job->dom.domid, &now, NULL) != FS_OK || now.dying ||
           memcmp(now.uuid, job->dom.uuid, sizeof(now.uuid)) != 0;
}

/* A failed round: back to the old frames, run, give the reserve back. s is why it failed. */
static fs_status_t abandon(struct pv_job *job, fs_status_t s, struct fs_error *err)
{
    struct fs_error second = { "" };
    if (domain_gone(job)) {
        if (job->monitor_held) {
            (void)!job->be->ops->monitor_release(job->be, job->dom.domid, NULL);
        }
        return fs_fail(err, FS_GUEST_GONE, "domain %u went away during its move; its frames are free or going", job->dom.domid);
    }
    fs_status_t undo = pv_undo(job, &second);
    if (undo == FS_OK) {
        undo = pv_run_again(job, &second);
    }
    if (undo != FS_OK) {
        char first[sizeof(second.text)];
        snprintf(first, sizeof(first), "%s", err != NULL ? err->text : "");
        return fs_fail(err, FS_NEEDS_RECOVER, "domain %u is stopped and could not be rolled back (%.200s) after: %.200s; run `frameshift recover`",
                       job->dom.domid, second.text, first);
    }
    if (pv_release(job, &second) != FS_OK) {
        return fs_fail(err, FS_NEEDS_RECOVER, "%s", second.text);
    }
    return s;
}

static void account_stop(struct pv_job *job)
{
    struct hv_domain_report *r = job->result->report;
    uint64_t blackout = (job->running_ns != 0 ? job->running_ns : pv_now(job)) - job->stopped_ns;
    r->suspends++;
    r->blackout_ns += blackout;
    r->longest_blackout_ns = blackout > r->longest_blackout_ns ? blackout : r->longest_blackout_ns;
    mover_event(job->ctx, EV_RESUME, job->dom.domid, blackout, job->move_count, NULL);
}

/* How many frames the next round will hold: reads the p2m while the guest runs. *foreign: a frame that its tables lead to, not its own. */
static fs_status_t look_at_running(struct pv_course *course, struct pv_job *job, size_t *pages, mfn_t *foreign, struct fs_error *err)
{
    bool more;
    fs_status_t s = pv_p2m_read_again(job->be, &job->dom, job->ctx->host.max_mfn * 2 + (1u << 20), &job->p2m, err);
    if (s != FS_OK) {
        return s;
    }
    *pages = collect(course, &job->p2m, course->limit_pages, NULL, &more);
    if (*pages == 0) {
        return FS_OK;
    }
    s = pv_capture_tables(job, err);
    return s == FS_OK ? pv_tables_find_foreign(job->be, &job->dom, &job->tables, &job->p2m, foreign, err) : s;
}

/* And refuse a guest whose page tables Xen would not validate again (I5). */
static fs_status_t size_round(struct pv_course *course, struct pv_job *job, size_t *pages, struct fs_error *err)
{
    mfn_t foreign = MFN_NONE;
    fs_status_t s = look_at_running(course, job, pages, &foreign, err);
    /* The guest runs: a frame may have been its own a moment ago, and a page that was a table when we asked for types may hold data when
     * we read it, which can look like any entry.  A driver domain's mapping is still there at every further look. */
    for (unsigned i = 1; i < LOOKS_MAX && s == FS_OK && *pages > 0 && !mfn_is_none(foreign); i++) {
        s = look_at_running(course, job, pages, &foreign, err);
    }
    if (s == FS_OK && *pages > 0 && (!mfn_is_none(foreign) || job->p2m.foreign)) {
        s = refuse_driver_domain(job, foreign, err);
    }
    return s == FS_OK ? begin_specials(course, err) : s;
}

#define WARM_BYTES  (1u << 20)          /* what a stop allocates besides: the tables' list and record, some bitmaps */
#define KEEP_BYTES  (256u << 20)

/* Freed memory is kept, not given back and faulted in again, while a guest stands still. */
static void warm_memory(const struct pv_job *job)
{
    size_t bytes = WARM_BYTES + job->tables.count * 3 * sizeof(struct pv_table);
    (void)mallopt(M_MMAP_THRESHOLD, 32 << 20);
    (void)mallopt(M_TRIM_THRESHOLD, (int)KEEP_BYTES);
    void *p = malloc(bytes);
    if (p != NULL) {
        memset(p, 1, bytes);
    }
    free(p);
}

static fs_status_t run_round(struct pv_course *course, size_t *moved, struct fs_error *err)
{
    struct pv_job job = { .ctx = course->ctx, .be = course->ctx->be, .dom = *course->dom, .result = course->result,
                          .max_pages_before = course->dom->max_pages };
    size_t pages = 0;
    uint64_t since = pv_now(&job);
    *moved = 0;
    fs_status_t s = size_round(course, &job, &pages, err);
    pv_phase(&job, "size", &since, pages);
    if (s != FS_OK || pages == 0) {
        goto out;
    }
    s = pv_reserve(&job, pages + RESERVE_SLACK + PV_SPARE, err);
    if (s == FS_OK) {
        s = pv_prepare(&job);
    }
    if (s == FS_OK) {
        warm_memory(&job);
        s = stop_guest(&job, err);
    }
    if (s == FS_OK) {
        s = switch_round(course, &job, err);
    }
    bool stopped = job.suspended;
    if (s != FS_OK) {
        s = abandon(&job, s, err);
        if (stopped && s != FS_NEEDS_RECOVER && s != FS_GUEST_GONE) {
            account_stop(&job);
        }
        goto out;
    }
    since = pv_now(&job);
    s = pv_run_again(&job, err);
    if (s != FS_OK) {
        s = domain_gone(&job) ? FS_GUEST_GONE : FS_NEEDS_RECOVER;
        goto out;
    }
    pv_phase(&job, "resume", &since, 1);
    account_stop(&job);
    s = journal_append(course->ctx->journal, JR_PV_RESUMED, NULL, 0, err);
    if (s == FS_OK && pv_release(&job, err) != FS_OK) {
        s = domain_gone(&job) ? FS_GUEST_GONE : FS_NEEDS_RECOVER;
    }
    if (s == FS_OK) {
        s = journal_append(course->ctx->journal, JR_PV_RELEASED, NULL, 0, err);
    }
    *moved = job.move_count;
    course->result->report->moved += job.move_count;
out:
    end_grants(course);
    pv_job_free(&job);
    return s;
}

/* ---- all rounds ----------------------------------------------------------------------- */

static uint64_t phase_ns(const struct hv_domain_report *r, const char *name)
{
    for (size_t i = 0; i < r->phase_count; i++) {
        if (strcmp(r->phases[i].name, name) == 0) {
            return r->phases[i].ns;
        }
    }
    return 0;
}

/* Size of the next round from what the rounds so far cost: fixed part (tables, vCPUs) and part per frame. */
static size_t next_limit(const struct pv_course *course)
{
    const struct hv_domain_report *r = course->result->report;
    uint64_t budget = course->ctx->options->max_blackout_ns;
    if (budget == 0) {
        return SIZE_MAX / 2;
    }
    if (r->suspends == 0 || r->moved == 0) {
        return FIRST_ROUND_PAGES;
    }
    uint64_t per_frame_total = phase_ns(r, "copy") + phase_ns(r, "probe") + phase_ns(r, "m2p") + phase_ns(r, "p2m-write") +
                               phase_ns(r, "choose") + phase_ns(r, "hash-before") + phase_ns(r, "hash-after");
    uint64_t fixed = r->blackout_ns > per_frame_total ? (r->blackout_ns - per_frame_total) / r->suspends : 0;
    uint64_t per_frame = per_frame_total / r->moved + 1;
    uint64_t target = budget - budget / 5;              /* a fifth in hand for noise */
    size_t pages = target > fixed ? (size_t)((target - fixed) / per_frame) : 0;
    return pages < LEAST_ROUND_PAGES ? LEAST_ROUND_PAGES : pages;
}

/* Frames of the ranges that no round saw: in no p2m (Xen's shared pages, ballooned and kept). */
static fs_status_t block_chunk(void *arg, mfn_t start, const struct hv_frame *frames, size_t count, struct fs_error *err)
{
    struct pv_course *course = arg;
    fs_status_t s = FS_OK;
    (void)err;
    for (size_t i = 0; i < count && s == FS_OK; i++) {
        mfn_t m = mfn_add(start, i);
        if (frames[i].owner != HV_FRAME_DOMAIN || frames[i].domid != course->dom->domid || held_has(&course->held, m)) {
            continue;
        }
        bool shared = mfn_eq(m, course->dom->shared_info) || frames[i].gfn == FS_FRAME_NONE;
        s = mover_block(course->result, m, frames[i].gfn, course->dom->domid, shared ? FS_REASON_XEN_SHARED : FS_REASON_NOT_IN_P2M);
    }
    return s;
}

/* An LDT page that Xen held in the stop of a round and has let go of since gets another one: a short stop, for all of them. */
static bool again(struct pv_course *course, unsigned *tries)
{
    struct mover_result *r = course->result;
    size_t kept = 0;
    if (!pv_held_ldt(course->ctx, r, *tries < LDT_ROUNDS && course->ctx->options->max_blackout_ns == 0)) {
        return false;
    }
    ++*tries;
    for (size_t i = 0; i < r->blocker_count; i++) {
        if (r->blockers[i].reason == FS_REASON_NONE) {
            held_drop(&course->held, fs_blocker_mfn(&r->blockers[i]));
        } else {
            r->blockers[kept++] = r->blockers[i];
        }
    }
    r->blocker_count = kept;
    return true;
}

static fs_status_t pv_move(const struct mover_ctx *ctx, const struct hv_domain *dom, struct mover_list *list,
                           struct mover_result *result, struct fs_error *err)
{
    struct pv_course course = { .ctx = ctx, .dom = dom, .result = result };
    mover_list_free(list);                                  /* the p2m says it better */
    fs_status_t s = pv_machine_fits(ctx, err);
    if (s != FS_OK) {
        return s;
    }
    if (dom->paused || dom->shutdown) {
        return fs_fail(err, FS_REFUSED, "domain %u (%s) is %s and cannot answer a suspend: unpause it, or exclude it",
                       dom->domid, dom->name, dom->paused ? "paused" : "shut down");
    }
    unsigned tries = 0;
    do {
        size_t moved = 0;
        course.limit_pages = next_limit(&course);
        course.more = false;
        s = run_round(&course, &moved, err);
        if (course.held.count > 1) {
            qsort(course.held.list, course.held.count, sizeof(mfn_t), mfn_order);
        }
        if (s != FS_OK || (moved == 0 && !course.more)) {
            break;
        }
    } while ((course.more || again(&course, &tries)) && !mover_interrupted(ctx));
    if (s == FS_OK && mover_interrupted(ctx)) {
        s = fs_fail(err, FS_INTERRUPTED, "stopped by a signal between two suspends of domain %u", dom->domid);
    }
    if (s == FS_OK) {
        s = survey_frames(ctx->be, ctx->ranges, block_chunk, &course, err);
    }
    pv_held_name(ctx, dom->domid, result);
    result->report->blocked = result->blocker_count;
    free(course.held.list);
    free(course.specials);
    return s;
}

const struct mover_ops mover_pv = {
    .name = "pv",
    .id = HV_MOVER_PV,
    .move = pv_move,
    .recover = pv_recover,
};
