/*
 * mover_coop.c - guests that move their own pages (frameshift/abi.h): no suspend.
 *
 * Owns: which pages are asked for, in which order and how often.
 * Invariants:
 *   I1  a frame is asked for only if the guest's p2m and the M2P agree on it and no ring or grant names it.
 *   I2  every frame of the list ends moved or with a blocker; what the guest says is believed only for the reason.
 *   I3  the guest runs all the while: an error ends the round by the same look and release as success does, and what is left then is
 *       recovery's (FS_NEEDS_RECOVER).
 *   I4  the pages that the guest and the tool share go last, alone: their old frames are ours to let go.
 * Lock order: none; one guest at a time.
 * Why whole pageblocks first (coop_extent.c): a block whose pages all are to move goes to one piece of machine, so that a later shrink gives it in
 *   one piece.
 * Why free pages last: they move without a copy or a stop, so requests of one sort make few, full stops.
 * Cost: the guest's; here three passes over the p2m a round, and 12 bytes a frame of the range.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bitmap.h"
#include "coop_job.h"
#include "frameshift/assert.h"
#include "pv_p2m.h"
#include "range.h"

#define TRIES_MAX 12u               /* of a page that is busy */
#define BUSY_WAIT_NS 2000000ull

/* ---- choosing ---------------------------------------------------------------------- */

static int special_order(const void *a, const void *b)
{
    const struct hv_special *x = a, *y = b;
    return x->mfn.n < y->mfn.n ? -1 : x->mfn.n > y->mfn.n;
}

static enum fs_reason special_reason(const struct hv_special *list, size_t count, mfn_t m)
{
    enum fs_reason reason = FS_REASON_NONE;
    struct hv_special key = { .mfn = m };
    const struct hv_special *at = count == 0 ? NULL : bsearch(&key, list, count, sizeof(key), special_order);
    while (at != NULL && at > list && mfn_eq(at[-1].mfn, m)) {
        at--;
    }
    for (; at != NULL && at < list + count && mfn_eq(at->mfn, m); at++) {
        switch (at->kind) {                     /* a ring page is also a grant: the ring is the better word */
        case HV_SPECIAL_XENSTORE: return FS_REASON_XENSTORE_RING;
        case HV_SPECIAL_CONSOLE:  return FS_REASON_CONSOLE_RING;
        case HV_SPECIAL_IOREQ:    return FS_REASON_IOREQ;
        default: reason = FS_REASON_GRANTED; break;
        }
    }
    return reason;
}

struct choosing {
    struct coop_job *job;
    const struct mover_list *list;
    struct hv_special *specials;
    size_t special_count;
    uint64_t *taken;                    /* bitmap over list: will be asked for */
    uint64_t *todo, *free_pages;        /* bitmaps by pfn */
    uint64_t pfn_end;
    size_t count, front, back;          /* of job->pages: filled from both ends */
    uint64_t run_pfn, run;              /* the pages before this one whose frames follow each other, from a multiple of FS_SP_PAGES on */
    mfn_t run_mfn;
};

/* The list's index of a frame, or list->count. */
static size_t index_of(const struct mover_list *l, mfn_t m)
{
    size_t low = 0, high = l->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (mover_list_mfn(l, mid).n < m.n) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < l->count && mfn_eq(mover_list_mfn(l, low), m) ? low : l->count;
}

/* An entry of the p2m that leads into the ranges: does the M2P agree, and does nothing speak against it? (I1) */
static void take_entry(void *arg, uint64_t pfn, mfn_t m)
{
    struct choosing *c = arg;
    size_t at = m.n < c->list->base.n || pfn >= c->pfn_end ? c->list->count : index_of(c->list, m);
    if (at < c->list->count && mover_list_gfn(c->list, at) == pfn && special_reason(c->specials, c->special_count, m) == FS_REASON_NONE) {
        bitmap_set(c->taken, at);
        c->count += !bitmap_has(c->todo, pfn);
        bitmap_set(c->todo, pfn);
    }
}

/* What was not taken stays. */
static fs_status_t block_others(const struct choosing *c)
{
    fs_status_t s = FS_OK;
    for (size_t i = 0; i < c->list->count && s == FS_OK; i++) {
        if (bitmap_has(c->taken, i)) {
            continue;
        }
        mfn_t m = mover_list_mfn(c->list, i);
        uint64_t pfn = mover_list_gfn(c->list, i);
        enum fs_reason reason = special_reason(c->specials, c->special_count, m);
        reason = reason != FS_REASON_NONE ? reason : pfn == FS_FRAME_NONE ? FS_REASON_XEN_SHARED : FS_REASON_NOT_IN_P2M;
        s = mover_block(c->job->result, m, pfn, c->job->dom.domid, reason);
    }
    return s;
}

/* A pageblock that is one piece of machine, all of it to move? */
static void count_piece(struct choosing *c, uint64_t pfn, mfn_t m)
{
    if (pfn % FS_SP_PAGES == 0) {
        c->run_pfn = pfn;
        c->run_mfn = m;
        c->run = m.n % FS_SP_PAGES == 0;
    } else {
        c->run = c->run > 0 && pfn == c->run_pfn + c->run && m.n == c->run_mfn.n + c->run ? c->run + 1 : 0;
    }
    c->job->result->report->superpages_before += c->run == FS_SP_PAGES;
}

/* Once more through the p2m, now that the list is gone. The guest may have moved a page meanwhile: then it is asked in vain. */
static void add_page(void *arg, uint64_t pfn, mfn_t m)
{
    struct choosing *c = arg;
    if (pfn >= c->pfn_end || !bitmap_has(c->todo, pfn) || !mfn_set_contains(c->job->ctx->ranges, m) || c->front == c->back) {
        return;
    }
    struct coop_page p = { .pfn = (uint32_t)pfn, .offset = (uint32_t)(m.n - c->job->base.n), .state = COOP_TODO,
                           .free = bitmap_has(c->free_pages, pfn), .shared = coop_is_shared(&c->job->channel, pfn) };
    c->job->pages[p.free ? --c->back : c->front++] = p;
    count_piece(c, pfn, m);
}

static fs_status_t list_pages(struct choosing *c, struct fs_error *err)
{
    struct coop_job *job = c->job;
    uint64_t pfns;
    job->pages = malloc((c->count + 1) * sizeof(*job->pages));
    c->front = 0;
    c->back = c->count;
    fs_status_t s = job->pages == NULL ? FS_NO_MEMORY : pv_p2m_each(job->be, &job->dom, coop_limit_pfns(job->ctx), add_page, c, &pfns, err);
    size_t free_count = c->count - c->back;
    for (size_t i = 0; i < free_count / 2; i++) {               /* they came in from the end */
        struct coop_page t = job->pages[c->back + i];
        job->pages[c->back + i] = job->pages[c->count - 1 - i];
        job->pages[c->count - 1 - i] = t;
    }
    if (free_count > 0 && c->front < c->back) {                 /* fewer than there were a moment ago */
        memmove(&job->pages[c->front], &job->pages[c->back], free_count * sizeof(*job->pages));
    }
    job->page_count = c->front + free_count;
    mover_phase(job->result->report, "exported-free", 0, free_count);
    return s;
}

/* The pages to move, from the frames of the range. */
static fs_status_t choose(struct coop_job *job, struct mover_list *list, struct fs_error *err)
{
    uint64_t since = coop_now(job), pfns, listed = list->count;
    struct choosing c = { .job = job, .list = list, .pfn_end = job->channel.pfn_end };
    c.pfn_end = c.pfn_end < UINT32_MAX ? c.pfn_end : UINT32_MAX;
    c.taken = bitmap_new(list->count);
    c.todo = bitmap_new(c.pfn_end);
    c.free_pages = bitmap_new(c.pfn_end);
    fs_status_t s = c.taken == NULL || c.todo == NULL || c.free_pages == NULL ? FS_NO_MEMORY : FS_OK;
    if (s == FS_OK) {
        s = job->be->ops->specials(job->be, job->dom.domid, &c.specials, &c.special_count, err);
    }
    if (s == FS_OK && c.special_count > 0) {
        qsort(c.specials, c.special_count, sizeof(*c.specials), special_order);
    }
    if (s == FS_OK) {
        s = coop_read_export(&job->channel, c.free_pages, c.pfn_end, err);
    }
    if (s == FS_OK) {
        s = pv_p2m_each(job->be, &job->dom, coop_limit_pfns(job->ctx), take_entry, &c, &pfns, err);
    }
    if (s == FS_OK) {
        s = block_others(&c);
    }
    job->base = list->base;
    mover_list_free(list);                                      /* 8 bytes a frame, before 12 are taken */
    if (s == FS_OK) {
        s = list_pages(&c, err);
    }
    if (s == FS_OK) {
        s = coop_extent_plan(job, c.todo, c.pfn_end);
    }
    coop_phase(job, "choose", &since, listed);
    free(c.specials);
    free(c.taken);
    free(c.todo);
    free(c.free_pages);
    return s;
}

/* ---- rounds -------------------------------------------------------------------------- */

static bool due(const struct coop_page *p, bool shared, unsigned pass)
{
    return p->state == COOP_TODO && p->shared == shared && p->tries <= pass;
}

static size_t count_due(const struct coop_job *job, bool shared, unsigned pass)
{
    size_t n = 0, most = coop_round_pages(job);
    for (size_t i = 0; i < job->page_count && n < most; i++) {
        n += due(&job->pages[i], shared, pass);
    }
    return n;
}

static enum fs_reason reason_of(uint32_t status)
{
    switch (status) {
    case FS_ABI_ENTRY_DMA:     return FS_REASON_FOREIGN_REF;
    case FS_ABI_ENTRY_STALE:   return FS_REASON_NOT_IN_P2M;
    case FS_ABI_ENTRY_REFUSED: return FS_REASON_XEN_REFUSED;
    case FS_ABI_ENTRY_BAD:     return FS_REASON_GUEST_ABI;
    default:                   return FS_REASON_GUEST_BUSY;
    }
}

/* What the round has brought for each page. */
static void settle(struct coop_job *job)
{
    for (size_t i = 0; i < job->move_count; i++) {
        struct coop_page *p = &job->pages[job->page_of[i]];
        p->tries++;
        if (job->moved[i]) {
            p->state = COOP_MOVED;
            job->result->report->moved++;
            job->result->report->moved_free += job->status[i] == FS_ABI_ENTRY_FREE;
        } else if (job->status[i] == FS_ABI_ENTRY_DMA || job->status[i] == FS_ABI_ENTRY_STALE || job->status[i] == FS_ABI_ENTRY_BAD) {
            p->state = COOP_STAYS;
        }
        p->reason = (uint8_t)reason_of(job->status[i]);
    }
}

static bool domain_gone(const struct coop_job *job)
{
    struct hv_domain now;
    return job->be->ops->domain(job->be, job->dom.domid, &now, NULL) != FS_OK || now.dying ||
           memcmp(now.uuid, job->dom.uuid, sizeof(now.uuid)) != 0;
}

/* After an error in the middle: the guest must be idle before anything is given back (I3). */
static fs_status_t quiet_again(struct coop_job *job, struct fs_error *err)
{
    coop_close(&job->channel);
    return coop_open(&job->channel, job->be, &job->dom, coop_limit_pfns(job->ctx), coop_timeout_ns(job->ctx), NULL, err);
}

fs_status_t coop_round_end(struct coop_job *job, fs_status_t s, struct fs_error *err)
{
    struct fs_error second = { "" };
    fs_status_t end = FS_OK;
    if (s != FS_OK) {
        end = job->move_count > 0 ? quiet_again(job, &second) : FS_OK;
    }
    for (int i = 0; i < 3 && job->move_count > 0; i++) {
        end = end == FS_OK || i > 0 ? coop_look(job, s == FS_OK ? err : &second) : end;
        if (end == FS_OK || end == FS_NO_MEMORY) {
            break;
        }
    }
    if (end == FS_OK) {
        settle(job);
        end = coop_release(job, s == FS_OK ? err : &second);
    }
    if (end != FS_OK) {
        char first[256];
        if (domain_gone(job)) {
            return fs_fail(err, FS_GUEST_GONE, "domain %u went away during its move; its frames are free or going", job->dom.domid);
        }
        snprintf(first, sizeof(first), "%.*s", (int)sizeof(first) - 1, s == FS_OK || err == NULL ? "" : err->text);
        char then[256];
        snprintf(then, sizeof(then), "%.*s", (int)sizeof(then) - 1, s == FS_OK ? (err != NULL ? err->text : "") : second.text);
        return fs_fail(err, FS_NEEDS_RECOVER, "domain %u runs, but frames of it could not be given back (%s%s%s); run `frameshift recover`",
                       job->dom.domid, first, first[0] != '\0' ? "; then: " : "", then);
    }
    return s;
}

static fs_status_t run_round(struct coop_job *job, size_t count, bool shared, unsigned pass, struct fs_error *err)
{
    fs_status_t s = job->be->ops->domain(job->be, job->dom.domid, &job->dom, err);      /* its count of pages now */
    if (s != FS_OK) {
        return s;
    }
    s = coop_reserve(job, count, err);
    for (size_t i = 0; s == FS_OK && i < job->page_count && job->move_count < count; i++) {
        const struct coop_page *p = &job->pages[i];
        if (due(p, shared, pass)) {
            job->page_of[job->move_count] = i;
            job->moves[job->move_count] = (struct coop_move){ .pfn = p->pfn, .from = mfn_add(job->base, p->offset),
                                                              .to = job->reserved[job->move_count] };
            job->move_count++;
        }
    }
    if (s == FS_OK) {
        s = coop_request(job, shared, err);
    }
    s = coop_round_end(job, s, err);
    coop_round_free(job);
    return s;
}

/* Pages that were busy are tried again; a pass takes each at most once. */
static fs_status_t run_passes(struct coop_job *job, bool shared, struct fs_error *err)
{
    fs_status_t s = FS_OK;
    for (unsigned pass = 0; pass < TRIES_MAX && s == FS_OK; pass++) {
        size_t n;
        if (pass > 0 && count_due(job, shared, pass) > 0) {
            s = job->be->ops->coop_wait(job->be, job->dom.domid, BUSY_WAIT_NS << (pass < 6 ? pass : 6), err);
        }
        while (s == FS_OK && !mover_interrupted(job->ctx) && (n = count_due(job, shared, pass)) > 0) {
            s = run_round(job, shared && n > FS_ABI_LIST_MAX ? FS_ABI_LIST_MAX : n, shared, pass, err);
        }
    }
    return s;
}

static fs_status_t block_rest(struct coop_job *job)
{
    fs_status_t s = FS_OK;
    for (size_t i = 0; i < job->page_count && s == FS_OK; i++) {
        const struct coop_page *p = &job->pages[i];
        if (p->state != COOP_MOVED) {
            enum fs_reason reason = p->reason == FS_REASON_NONE ? FS_REASON_GUEST_BUSY : (enum fs_reason)p->reason;
            s = mover_block(job->result, mfn_add(job->base, p->offset), p->pfn, job->dom.domid, reason);
        }
    }
    return s;
}

static uint64_t at_most(uint64_t ns, uint64_t most)
{
    return ns < most ? ns : most;
}

/* p50 and p99 of all stops since the guest started, in its words, but no more than the longest of this evacuation: an earlier one may have been worse. */
static fs_status_t ask_stops(struct coop_job *job, struct fs_error *err)
{
    struct hv_domain_report *r = job->result->report;
    struct fs_abi_request q = { .op = FS_ABI_QUERY };
    struct fs_abi_response a;
    coop_send(&job->channel, &q, NULL);
    fs_status_t s = coop_receive(&job->channel, &a, NULL, MFN_NONE, err);
    if (s == FS_OK) {
        r->p99_pause_ns = at_most(a.value[FS_ABI_QUERIED_STOP_P99_NS], r->max_pause_ns);
        r->p50_pause_ns = at_most(a.value[FS_ABI_QUERIED_STOP_P50_NS], r->p99_pause_ns);
    }
    return s;
}

static fs_status_t coop_move(const struct mover_ctx *ctx, const struct hv_domain *dom, struct mover_list *list,
                             struct mover_result *result, struct fs_error *err)
{
    struct coop_job job = { .ctx = ctx, .be = ctx->be, .dom = *dom, .result = result };
    if (dom->paused || dom->shutdown) {
        return fs_fail(err, FS_REFUSED, "domain %u (%s) is %s and cannot move its pages: unpause it, or exclude it",
                       dom->domid, dom->name, dom->paused ? "paused" : "shut down");
    }
    uint64_t since = coop_now(&job);
    fs_status_t s = coop_open(&job.channel, ctx->be, &job.dom, coop_limit_pfns(ctx), coop_timeout_ns(ctx), ctx->interrupted, err);
    coop_phase(&job, "handshake", &since, 1);
    if (s == FS_OK) {
        s = choose(&job, list, err);
    }
    if (s == FS_OK) {
        s = coop_extent_all(&job, err);
    }
    if (s == FS_OK) {
        s = run_passes(&job, false, err);
    }
    if (s == FS_OK) {
        s = run_passes(&job, true, err);                                        /* I4 */
    }
    if (s == FS_OK) {
        s = ask_stops(&job, err);
    }
    if (s == FS_OK && mover_interrupted(ctx)) {
        s = fs_fail(err, FS_INTERRUPTED, "stopped by a signal while domain %u moved its pages; what has moved stays moved", dom->domid);
    }
    if (s == FS_OK) {
        s = block_rest(&job);
    }
    result->report->blocked = result->blocker_count;
    coop_close(&job.channel);
    free(job.pages);
    free(job.whole);
    return s;
}

const struct mover_ops mover_coop = {
    .name = "coop",
    .id = HV_MOVER_COOP,
    .move = coop_move,
    .recover = coop_recover,
};
