/*
 * coop_round.c - one round of a guest that moves its own pages.
 *
 * Owns: job->reserved, moves, status, moved; the guest's max_pages while the round lasts.
 * Invariants:
 *   I1  every reserved frame lies outside the ranges, and is on disk before the guest hears of it.
 *   I2  what the guest answers decides reasons and counts only.  That a page moved is what p2m, M2P and owner say; a frame is
 *       given back only if the domain owns it and no p2m entry leads to it.
 *   I3  an old frame is marked before it is given back: it ends offlined and never passes through the heap.
 *   I4  the look is taken while the guest is idle: every request is answered, or a new session has begun.
 *   I5  what Xen would not take back is tried again and then left to recovery, whose journal still names it.
 * Lock order: none.
 * Why no exchange: the guest copies to frames that it owns already, so it needs no buffer and no second copy.
 * Cost: three passes over the p2m a round (mover_coop.c says how many pages that is), a request for each 128.
 */
#include <stdlib.h>
#include <string.h>

#include "coop_job.h"
#include "frameshift/assert.h"
#include "pv_p2m.h"
#include "range.h"

#define BATCH 4096u
#define GIVE_TRIES 3

void coop_phase(struct coop_job *job, const char *name, uint64_t *since, uint64_t count)
{
    uint64_t now = coop_now(job);
    if (job->result != NULL) {
        mover_phase(job->result->report, name, now - *since, count);
    }
    *since = now;
}

void coop_round_free(struct coop_job *job)
{
    free(job->reserved);
    free(job->moves);
    free(job->status);
    free(job->page_of);
    free(job->ask);
    free(job->moved);
    job->reserved = NULL;
    job->moves = NULL;
    job->status = NULL;
    job->page_of = NULL;
    job->ask = NULL;
    job->moved = NULL;
    job->reserved_count = job->move_count = 0;
}

/* ---- reserve ----------------------------------------------------------------------------- */

/* Give frames back that never should have been handed out (I1); compacts the list in place. */
static fs_status_t drop_in_range(struct coop_job *job, mfn_t *list, size_t *count, struct fs_error *err)
{
    struct frame_set inside = { 0 };
    size_t kept = 0, done = 0;
    fs_status_t s = FS_OK;
    for (size_t i = 0; i < *count && s == FS_OK; i++) {
        if (mfn_set_contains(job->ctx->ranges, list[i])) {
            s = frame_set_add(&inside, list[i]);
        } else {
            list[kept++] = list[i];
        }
    }
    if (s == FS_OK && inside.count > 0) {
        s = job->be->ops->decrease(job->be, job->dom.domid, inside.list, inside.count, &done, err);
    }
    *count = s == FS_OK ? kept : *count;        /* else recovery and release find them in the whole list */
    frame_set_free(&inside);
    return s;
}

static fs_status_t take_frames(struct coop_job *job, size_t count, struct fs_error *err)
{
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
        fs_status_t s = job->be->ops->increase(job->be, job->dom.domid, node, want, at, &done, err);
        size_t kept = done;
        if (s == FS_OK || s == FS_NO_ROOM) {
            fs_status_t dropped = drop_in_range(job, at, &kept, err);
            s = dropped != FS_OK ? dropped : FS_OK;
        }
        job->reserved_count += kept;
        if (s != FS_OK) {
            return s;
        }
        room_take(job->ctx->room, node, done);
        if (done < want || kept == 0) {
            room_exhausted(job->ctx->room, node);
        }
    }
    return FS_OK;
}

/* The frames of an extent; given back at once if one of them never should have been handed out (I1). */
static fs_status_t keep_extent(struct coop_job *job, mfn_t head, bool *kept, struct fs_error *err)
{
    mfn_t *at = job->reserved + job->reserved_count;
    size_t gone = 0;
    fs_status_t s = FS_OK;
    *kept = true;
    for (size_t i = 0; i < FS_SP_PAGES; i++) {
        at[i] = mfn_add(head, i);
        *kept = *kept && !mfn_set_contains(job->ctx->ranges, at[i]);
    }
    if (!*kept) {
        s = job->be->ops->decrease(job->be, job->dom.domid, at, FS_SP_PAGES, &gone, err);
    }
    job->reserved_count += *kept || s != FS_OK ? FS_SP_PAGES : 0;
    return s;
}

/* Up to count of one node, *more: it may have others. */
static fs_status_t take_extents_of(struct coop_job *job, size_t node, size_t count, bool *more, struct fs_error *err)
{
    struct room *room = job->ctx->room;
    mfn_t heads[BATCH / FS_SP_PAGES];
    size_t done = 0;
    count = count > FS_ARRAY_SIZE(heads) ? FS_ARRAY_SIZE(heads) : count;
    count = count > room->nodes[node].free_pages / FS_SP_PAGES ? (size_t)(room->nodes[node].free_pages / FS_SP_PAGES) : count;
    *more = false;
    if (count == 0) {
        return FS_OK;
    }
    fs_status_t s = job->be->ops->increase_extents(job->be, job->dom.domid, room->nodes[node].node, count, heads, &done, err);
    *more = s == FS_OK && done == count;
    s = s == FS_NO_ROOM ? FS_OK : s;
    room_take(room, room->nodes[node].node, done * FS_SP_PAGES);
    for (size_t i = 0; i < done; i++) {
        bool kept;
        fs_status_t k = keep_extent(job, heads[i], &kept, err);
        s = s != FS_OK ? s : k;
        *more = *more && kept;
    }
    return s;
}

/* Of any node that has some: only which frames lie together is at stake, so a node without is passed over. */
static fs_status_t take_extents(struct coop_job *job, size_t count, struct fs_error *err)
{
    fs_status_t s = FS_OK;
    for (size_t n = 0; n < job->ctx->room->count && s == FS_OK; n++) {
        bool more = true;
        while (s == FS_OK && more && job->reserved_count < count * FS_SP_PAGES) {
            s = take_extents_of(job, n, count - job->reserved_count / FS_SP_PAGES, &more, err);
        }
    }
    return s;
}

static fs_status_t reserve(struct coop_job *job, size_t count, fs_status_t (*take)(struct coop_job *job, size_t count, struct fs_error *err),
                           size_t units, struct fs_error *err)
{
    struct coop_reserve intent = { .max_pages_before = job->dom.max_pages, .count = count };
    uint64_t since = coop_now(job);
    job->reserved = malloc((count + 1) * sizeof(*job->reserved));
    job->moves = malloc((count + 1) * sizeof(*job->moves));
    job->status = calloc(count + 1, sizeof(*job->status));
    job->page_of = malloc((count + 1) * sizeof(*job->page_of));
    job->ask = malloc((count + 1) * sizeof(*job->ask));
    job->moved = calloc(count + 1, sizeof(*job->moved));
    if (job->reserved == NULL || job->moves == NULL || job->status == NULL || job->page_of == NULL || job->ask == NULL ||
        job->moved == NULL) {
        return FS_NO_MEMORY;
    }
    fs_status_t s = journal_append(job->ctx->journal, JR_COOP_RESERVE, &intent, sizeof(intent), err);
    if (s == FS_OK && job->dom.tot_pages + count > job->dom.max_pages) {
        s = job->be->ops->set_max_pages(job->be, job->dom.domid, job->dom.tot_pages + count, err);
        job->max_raised = s == FS_OK;
    }
    if (s == FS_OK) {
        s = take(job, units, err);
    }
    if (s == FS_OK) {
        s = journal_append(job->ctx->journal, JR_COOP_RESERVED, job->reserved, job->reserved_count * sizeof(mfn_t), err);
    }
    if (s == FS_OK) {
        coop_phase(job, "reserve", &since, job->reserved_count);
        mover_event(job->ctx, EV_RESERVE, job->dom.domid, job->reserved_count, 0, NULL);
    }
    return s;
}

fs_status_t coop_reserve(struct coop_job *job, size_t count, struct fs_error *err)
{
    return reserve(job, count, take_frames, count, err);
}

fs_status_t coop_reserve_extents(struct coop_job *job, size_t count, struct fs_error *err)
{
    return reserve(job, count * FS_SP_PAGES, take_extents, count, err);
}

/* ---- asking --------------------------------------------------------------------------------- */

static void count_answer(struct coop_job *job, const struct fs_abi_response *a)
{
    static const char *const names[] = { "guest-free", "guest-user", "guest-kernel", "guest-tables" };
    struct hv_domain_report *r = job->result->report;
    for (unsigned i = 0; i < FS_ARRAY_SIZE(names); i++) {
        uint64_t n = a->value[FS_ABI_MOVED_FREE + i] <= a->count ? a->value[FS_ABI_MOVED_FREE + i] : a->count;    /* the guest's words */
        mover_phase(r, names[i], 0, n);
    }
    mover_phase(r, "guest-stops", a->value[FS_ABI_MOVED_STOP_SUM_NS], a->value[FS_ABI_MOVED_STOPS]);
    r->pauses += a->value[FS_ABI_MOVED_STOPS] <= a->count ? a->value[FS_ABI_MOVED_STOPS] : 0;
    if (a->value[FS_ABI_MOVED_STOP_MAX_NS] > r->max_pause_ns) {
        r->max_pause_ns = a->value[FS_ABI_MOVED_STOP_MAX_NS];
    }
    if (job->ctx->options->verify) {
        r->pages_hashed += a->value[FS_ABI_MOVED_VERIFIED] <= a->count ? a->value[FS_ABI_MOVED_VERIFIED] : a->count;
    }
}

/* Requests of one go: the moves job->ask[0 .. count). */
struct asking { size_t count, asked, answered; };

static fs_status_t receive_one(struct coop_job *job, struct asking *a, mfn_t control_to, struct fs_error *err)
{
    struct fs_abi_response r;
    uint32_t status[FS_ABI_LIST_MAX];
    fs_status_t s = coop_receive(&job->channel, &r, status, control_to, err);
    if (s != FS_OK) {
        return s;
    }
    size_t n = a->count - a->answered;
    n = n > FS_ABI_LIST_MAX ? FS_ABI_LIST_MAX : n;
    for (size_t i = 0; i < n; i++) {
        job->status[job->ask[a->answered + i]] = status[i];
    }
    a->answered += n;
    count_answer(job, &r);
    mover_event(job->ctx, EV_SWAP, job->dom.domid, job->result->report->moved + a->answered, job->page_count, NULL);
    return FS_OK;
}

static void send_one(struct coop_job *job, struct asking *a)
{
    struct fs_abi_move list[FS_ABI_LIST_MAX];
    size_t n = a->count - a->asked;
    n = n > FS_ABI_LIST_MAX ? FS_ABI_LIST_MAX : n;
    for (size_t i = 0; i < n; i++) {
        const struct coop_move *m = &job->moves[job->ask[a->asked + i]];
        list[i] = (struct fs_abi_move){ .pfn = m->pfn, .from = m->from.n, .to = m->to.n };
    }
    struct fs_abi_request q = { .op = FS_ABI_MOVE, .count = (uint32_t)n, .flags = job->ctx->options->verify ? FS_ABI_MOVE_VERIFY : 0 };
    coop_send(&job->channel, &q, list);
    a->asked += n;
}

static fs_status_t ask(struct coop_job *job, size_t count, mfn_t control_to, struct fs_error *err)
{
    struct asking a = { .count = count };
    uint64_t since = coop_now(job);
    fs_status_t s = FS_OK;
    while (s == FS_OK && a.answered < a.count) {
        bool stop = mover_interrupted(job->ctx);
        while (!stop && a.asked < a.count && !coop_full(&job->channel)) {
            send_one(job, &a);
        }
        if (stop && coop_idle(&job->channel)) {
            break;                              /* the rest was never asked for */
        }
        s = receive_one(job, &a, control_to, err);
    }
    coop_phase(job, "move", &since, a.answered);
    return s;
}

fs_status_t coop_request(struct coop_job *job, bool shared, struct fs_error *err)
{
    mfn_t control_to = MFN_NONE;
    ASSERT(!shared || job->move_count <= FS_ABI_LIST_MAX);
    for (size_t i = 0; i < job->move_count; i++) {
        job->ask[i] = i;
        control_to = shared && job->moves[i].pfn == job->channel.pfns[0] ? job->moves[i].to : control_to;
    }
    fs_status_t s = journal_append(job->ctx->journal, JR_COOP_REQUEST, job->moves, job->move_count * sizeof(*job->moves), err);
    if (s == FS_OK) {
        s = ask(job, job->move_count, control_to, err);
    }
    if (s == FS_OK && shared) {
        s = coop_map(&job->channel, err);       /* nothing of ours holds the old frames */
    }
    return s;
}

fs_status_t coop_request_busy(struct coop_job *job, size_t *again, struct fs_error *err)
{
    *again = 0;
    for (size_t i = 0; i < job->move_count; i++) {
        if (job->status[i] == FS_ABI_ENTRY_BUSY) {
            job->ask[(*again)++] = i;
        }
    }
    return ask(job, *again, MFN_NONE, err);
}

/* ---- looking -------------------------------------------------------------------------------------- */

/* Which of the moves the p2m leads to the new frame.  They are in the order of pages: at most two runs of ascending pfns. */
struct look { struct coop_job *job; size_t second; };

static struct coop_move *find_move(struct coop_move *list, size_t count, uint64_t pfn)
{
    size_t low = 0, high = count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (list[mid].pfn < pfn) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < count && list[low].pfn == pfn ? &list[low] : NULL;
}

static void look_at(void *arg, uint64_t pfn, mfn_t m)
{
    const struct look *l = arg;
    struct coop_job *job = l->job;
    struct coop_move *at = find_move(job->moves, l->second, pfn);
    if (at == NULL) {
        at = find_move(job->moves + l->second, job->move_count - l->second, pfn);
    }
    if (at != NULL) {
        job->moved[at - job->moves] = mfn_eq(m, at->to);
    }
}

/* I2 */
static fs_status_t look_at_p2m(struct coop_job *job, struct fs_error *err)
{
    struct look l = { .job = job, .second = 1 };
    uint64_t pfns;
    while (l.second < job->move_count && job->moves[l.second - 1].pfn < job->moves[l.second].pfn) {
        l.second++;
    }
    memset(job->moved, 0, job->move_count * sizeof(*job->moved));
    return job->move_count == 0 ? FS_OK : pv_p2m_each(job->be, &job->dom, coop_limit_pfns(job->ctx), look_at, &l, &pfns, err);
}

fs_status_t coop_look(struct coop_job *job, struct fs_error *err)
{
    size_t n = job->move_count;
    mfn_t *to = malloc((n + 1) * sizeof(*to));
    uint64_t *gfns = malloc((n + 1) * sizeof(*gfns));
    uint8_t *types = malloc(n + 1), *flags = malloc(n + 1);
    bool *owned = malloc((n + 1) * sizeof(*owned));
    uint64_t since = coop_now(job);
    fs_status_t s = to == NULL || gfns == NULL || types == NULL || flags == NULL || owned == NULL ? FS_NO_MEMORY : FS_OK;
    for (size_t i = 0; i < n && s == FS_OK; i++) {
        to[i] = job->moves[i].to;
    }
    if (s == FS_OK) {
        s = job->be->ops->m2p(job->be, to, n, gfns, err);
    }
    if (s == FS_OK) {
        s = job->be->ops->types(job->be, job->dom.domid, to, n, types, flags, owned, err);
    }
    if (s == FS_OK) {
        s = look_at_p2m(job, err);
    }
    for (size_t i = 0; i < n && s == FS_OK; i++) {
        job->moved[i] = job->moved[i] && gfns[i] == job->moves[i].pfn && owned[i];
    }
    if (s == FS_OK) {
        coop_phase(job, "look", &since, n);
    }
    free(to);
    free(gfns);
    free(types);
    free(flags);
    free(owned);
    return s;
}

/* ---- giving back ------------------------------------------------------------------------------------ */

/* Give frames back; a refusal is tried again with what the domain still owns (I5). */
static fs_status_t give_back(struct coop_job *job, const struct frame_set *frames, struct fs_error *err)
{
    struct frame_set left = { 0 };
    fs_status_t s = FS_OK;
    for (size_t i = 0; i < frames->count && s == FS_OK; i++) {
        s = frame_set_add(&left, frames->list[i]);
    }
    for (int i = 0; i < GIVE_TRIES && s == FS_OK && left.count > 0; i++) {
        size_t done = 0;
        struct frame_set again = { 0 };
        if (job->be->ops->decrease(job->be, job->dom.domid, left.list, left.count, &done, err) == FS_OK && done == left.count) {
            left.count = 0;
            break;
        }
        s = unused_owned(job->be, job->dom.domid, &left, &again, err);
        frame_set_free(&left);
        left = again;
    }
    if (s == FS_OK && left.count > 0) {
        s = fs_fail(err, FS_NEEDS_RECOVER, "domain %u runs, but Xen would not take back %zu of its spare frames; run `frameshift recover`",
                    job->dom.domid, left.count);
    }
    frame_set_free(&left);
    return s;
}

static fs_status_t mark(struct coop_job *job, const struct frame_set *old, struct fs_error *err)
{
    struct hv_mark_result *marks = calloc(old->count + 1, sizeof(*marks));
    fs_status_t s = marks == NULL ? FS_NO_MEMORY : FS_REFUSED;
    for (int i = 0; i < GIVE_TRIES && s == FS_REFUSED; i++) {
        s = job->be->ops->mark_owned(job->be, old->list, old->count, marks, err);
    }
    free(marks);
    return s;
}

/* Which frames nobody needs any more (I2): old ones of what moved, new ones of what did not. */
static fs_status_t sort_out(struct coop_job *job, struct frame_set *old, struct frame_set *spare, struct fs_error *err)
{
    struct frame_set olds = { 0 }, news = { 0 };
    fs_status_t s = FS_OK;
    for (size_t i = 0; i < job->move_count && s == FS_OK; i++) {
        s = job->moved[i] ? frame_set_add(&olds, job->moves[i].from) : FS_OK;
    }
    for (size_t i = 0; i < job->reserved_count && s == FS_OK; i++) {
        s = i < job->move_count && job->moved[i] ? FS_OK : frame_set_add(&news, job->reserved[i]);
    }
    frame_set_sort(&olds);
    frame_set_sort(&news);
    if (s == FS_OK) {
        s = unused_of(job->be, &job->dom, coop_limit_pfns(job->ctx), &olds, old, err);
    }
    if (s == FS_OK) {
        s = unused_of(job->be, &job->dom, coop_limit_pfns(job->ctx), &news, spare, err);
    }
    frame_set_free(&olds);
    frame_set_free(&news);
    return s;
}

/* Frames that were given back and are still there: the guest, or somebody, has a reference. */
static fs_status_t report_held(struct coop_job *job, const struct frame_set *old, struct fs_error *err)
{
    struct frame_set held = { 0 };
    fs_status_t s = unused_owned(job->be, job->dom.domid, old, &held, err);
    for (size_t i = 0; i < held.count && s == FS_OK; i++) {
        s = mover_block(job->result, held.list[i], FS_FRAME_NONE, job->dom.domid, FS_REASON_FOREIGN_REF);
    }
    frame_set_free(&held);
    return s;
}

fs_status_t coop_release(struct coop_job *job, struct fs_error *err)
{
    struct frame_set old = { 0 }, spare = { 0 };
    uint64_t since = coop_now(job);
    fs_status_t s = FS_REFUSED;
    for (int i = 0; i < GIVE_TRIES && s != FS_OK && s != FS_NO_MEMORY && s != FS_GUEST_GONE; i++) {
        frame_set_free(&old);
        frame_set_free(&spare);
        s = sort_out(job, &old, &spare, err);
    }
    if (s == FS_OK) {
        s = mark(job, &old, err);                                               /* I3 */
    }
    if (s == FS_OK) {
        s = give_back(job, &old, err);
    }
    if (s == FS_OK) {
        s = give_back(job, &spare, err);
    }
    for (int i = 0; s == FS_OK && job->max_raised && i < GIVE_TRIES; i++) {
        fs_status_t m = job->be->ops->set_max_pages(job->be, job->dom.domid, job->dom.max_pages, err);
        job->max_raised = m != FS_OK;
        s = i + 1 < GIVE_TRIES ? FS_OK : m;
    }
    if (s == FS_OK) {
        s = report_held(job, &old, err);
    }
    if (s == FS_OK) {
        coop_phase(job, "release", &since, old.count);
        mover_event(job->ctx, EV_RELEASE, job->dom.domid, old.count, old.count, NULL);
        s = journal_append(job->ctx->journal, JR_COOP_DONE, NULL, 0, err);
    }
    frame_set_free(&old);
    frame_set_free(&spare);
    return s;
}
