/*
 * evacuate.c - the state machine of one evacuation.
 *
 * Owns: the order of things: plan, journal, mark free frames, one domain after the
 * other by its mover, evict, sweep, report.
 * Invariants:
 *   I1  nothing is changed before the plan said that it can run and the journal is open.
 *   I2  free frames of the range leave the heap before any new frame is reserved, so
 *       that a reserve cannot come from the range.
 *   I3  a domain that cannot be moved (time-out, refusal, gone) costs its own frames
 *       only; the others go on.  FS_NEEDS_RECOVER ends everything: the journal stays.
 *   I4  the report's numbers come from the sweep, i.e. from the machine as it is at the
 *       end: offlined + blocked + holes == total, each blocked frame with a reason.
 * Lock order: the journal's lock is held from the first change to the last.
 * Why marks of owned frames come late: a probe's give-back clears them (see
 * mover_pv.c), and a frame that its owner lets go meanwhile is caught by the sweep.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "frameshift/assert.h"
#include "hv_priv.h"
#include "journal.h"
#include "range.h"
#include "shrink.h"

#define SWEEP_TRIES 3

struct evacuation {
    struct hv *hv;
    const struct hv_evacuate_options *options;
    struct survey survey;
    struct journal *journal;
    struct room room;
    struct mover_ctx ctx;
    struct hv_report *report;
    struct fs_blocker *known;           /* what the movers said, sorted by mfn before the sweep */
    size_t known_count;
    fs_status_t *refused;               /* of each domain of the report: why its mover failed as a whole; FS_OK */
};

static uint64_t now_ns(const struct evacuation *e) { return e->hv->be->ops->clock_ns(e->hv->be); }

static void phase(struct evacuation *e, const char *name, uint64_t *since, uint64_t count)
{
    struct hv_report *r = e->report;
    uint64_t now = now_ns(e);
    if (r->phase_count < HV_PHASES_MAX) {
        struct hv_phase *p = &r->phases[r->phase_count++];
        snprintf(p->name, sizeof(p->name), "%s", name);
        p->ns = now - *since;
        p->count = count;
    }
    *since = now;
}

/* ---- marking the free frames (I2) ---------------------------------------------------- */

static fs_status_t collect_unowned(void *arg, mfn_t start, const struct hv_frame *frames, size_t count, struct fs_error *err)
{
    struct mfn_range_set *runs = arg;
    (void)err;
    for (size_t i = 0; i < count; ) {
        size_t end = i;
        while (end < count && frames[end].owner == HV_FRAME_UNOWNED) {
            end++;
        }
        if (end > i) {
            fs_status_t s = mfn_set_add(runs, (struct mfn_range){ mfn_add(start, i), mfn_add(start, end) });
            if (s != FS_OK) {
                return s;
            }
        }
        i = end + 1;
    }
    return FS_OK;
}

/* Mark every frame of the ranges that no domain owns. *offlined: left the heap now. */
static fs_status_t mark_unowned(struct evacuation *e, uint64_t *offlined, uint64_t *pending, struct fs_error *err)
{
    struct mfn_range_set runs = { 0 };
    fs_status_t s = survey_frames(e->hv->be, &e->survey.ranges, collect_unowned, &runs, err);
    for (size_t i = runs.count; i-- > 0 && s == FS_OK; ) {
        struct mfn_range run = runs.ranges[i];
        struct hv_mark_result *marks = calloc(mfn_range_pages(run), sizeof(*marks));
        s = marks == NULL ? FS_NO_MEMORY : e->hv->be->ops->mark_offline(e->hv->be, run, marks, err);
        for (uint64_t k = 0; s == FS_OK && k < mfn_range_pages(run); k++) {
            *offlined += marks[k].mark == HV_MARK_OFFLINED;
            *pending += marks[k].mark == HV_MARK_PENDING_XEN || marks[k].mark == HV_MARK_ANON || marks[k].mark == HV_MARK_PENDING_OWNED;
        }
        free(marks);
    }
    mfn_set_free(&runs);
    return s;
}

static fs_status_t online_range(struct evacuation *e, struct fs_error *err)
{
    fs_status_t s = FS_OK;
    for (size_t i = 0; i < e->survey.ranges.count && s == FS_OK; i++) {
        uint64_t pages = 0;
        s = e->hv->be->ops->mark_online(e->hv->be, e->survey.ranges.ranges[i], &pages, err);
    }
    return s;
}

/* ---- one domain --------------------------------------------------------------------------- */

/* Is the frame that domain's? */
static bool frame_of(const struct hv_frame *f, uint16_t domid)
{
    return f->owner == HV_FRAME_DOMAIN && f->domid == domid;
}

struct collecting { uint16_t domid; struct mover_list *list; };

static fs_status_t collect_owned(void *arg, mfn_t start, const struct hv_frame *frames, size_t count, struct fs_error *err)
{
    struct collecting *c = arg;
    fs_status_t s = FS_OK;
    for (size_t i = 0; i < count && s == FS_OK; i++) {
        s = frame_of(&frames[i], c->domid) ? mover_list_add(c->list, mfn_add(start, i), frames[i].gfn) : FS_OK;
    }
    return s == FS_BAD_RANGE ? fs_fail(err, s, "the ranges span more than 16 TiB: evacuate one after the other") : s;
}

static fs_status_t keep_blockers(struct evacuation *e, const struct fs_blocker *list, size_t count)
{
    struct fs_blocker *grown = realloc(e->known, (e->known_count + count + 1) * sizeof(*grown));
    if (grown == NULL) {
        return FS_NO_MEMORY;
    }
    e->known = grown;
    if (count > 0) {
        memcpy(e->known + e->known_count, list, count * sizeof(*list));
    }
    e->known_count += count;
    return FS_OK;
}

/* The domain as it is now, if it is still the one that was planned. */
static fs_status_t domain_still(struct evacuation *e, const struct hv_plan_domain *planned, struct hv_domain *out, struct fs_error *err)
{
    fs_status_t s = e->hv->be->ops->domain(e->hv->be, planned->domid, out, err);
    if (s == FS_OK && (out->dying || memcmp(out->uuid, planned->uuid, sizeof(out->uuid)) != 0)) {
        s = fs_fail(err, FS_GUEST_GONE, "domain %u (%s) is gone", planned->domid, planned->name);
    }
    return s == FS_NOT_FOUND ? FS_GUEST_GONE : s;
}

static fs_status_t journal_domain_begin(struct evacuation *e, const struct hv_domain *dom, enum hv_mover mover, struct fs_error *err)
{
    struct journal_domain record = { .domid = dom->domid, .mover = (uint8_t)mover, .max_pages = dom->max_pages };
    memcpy(record.uuid, dom->uuid, sizeof(record.uuid));
    return journal_append(e->journal, JR_DOMAIN_BEGIN, &record, sizeof(record), err);
}

/* Reason for all frames of a domain whose mover failed as a whole. A guest that moves its own pages is asked over its shared page: silence
 * and nonsense there are its kernel's, not Xen's. */
static enum fs_reason refusal_reason(enum hv_mover mover, fs_status_t s)
{
    if (s == FS_NO_ROOM) {
        return FS_REASON_NO_ROOM;
    }
    if (mover == HV_MOVER_COOP && (s == FS_TIMEOUT || s == FS_BAD_INPUT || s == FS_BAD_VERSION)) {
        return FS_REASON_GUEST_ABI;
    }
    return s == FS_TIMEOUT || s == FS_REFUSED || s == FS_GUEST_GONE || s == FS_INTERRUPTED ? FS_REASON_GUEST_REFUSED : FS_REASON_XEN_REFUSED;
}

static fs_status_t move_domain(struct evacuation *e, struct hv_domain_report *r, struct fs_error *err)
{
    const struct mover_ops *ops = hv_mover_ops(r->plan.mover);
    struct hv_domain dom;
    struct mover_list list = { .base = e->survey.ranges.count > 0 ? e->survey.ranges.ranges[0].start : mfn_make(0) };
    struct mover_result result = { .report = r };
    if (ops == NULL) {
        return FS_OK;                                   /* the sweep gives the reason */
    }
    fs_status_t s = domain_still(e, &r->plan, &dom, err);
    if (s == FS_OK) {
        s = survey_frames(e->hv->be, &e->survey.ranges, collect_owned, &(struct collecting){ r->plan.domid, &list }, err);
    }
    if (s == FS_OK && list.count > 0) {
        s = journal_domain_begin(e, &dom, r->plan.mover, err);
        if (s == FS_OK) {
            s = ops->move(&e->ctx, &dom, &list, &result, err);
        }
        if (s != FS_NEEDS_RECOVER) {
            struct fs_error second;
            fs_status_t end = journal_append(e->journal, JR_DOMAIN_END, NULL, 0, &second);
            s = s == FS_OK ? end : s;
        }
    }
    fs_status_t kept = keep_blockers(e, result.blockers, result.blocker_count);
    mover_list_free(&list);
    free(result.blockers);
    return s == FS_OK ? kept : s;
}

static fs_status_t move_all(struct evacuation *e, struct fs_error *err)
{
    struct hv_report *report = e->report;
    for (size_t i = 0; i < report->domain_count; i++) {
        struct hv_domain_report *r = &report->domains[i];
        struct fs_error words = { "" };
        uint64_t since = now_ns(e);
        if (e->hv->interrupted) {
            return fs_fail(err, FS_INTERRUPTED, "stopped by a signal before domain %u; frames already moved stay moved, "
                           "the range is online again", r->plan.domid);
        }
        r->status = move_domain(e, r, &words);
        e->refused[i] = r->status;
        snprintf(r->error, sizeof(r->error), "%.*s", (int)sizeof(r->error) - 1, r->status == FS_OK ? "" : words.text);
        report->frames_moved += r->moved;
        report->pages_hashed += r->pages_hashed;
        report->moved_free += r->moved_free;
        report->mismatches += r->mismatches;
        if (r->plan.mover != HV_MOVER_NONE) {
            char name[24];
            snprintf(name, sizeof(name), "move-%u", r->plan.domid);
            phase(e, name, &since, r->moved);
        }
        if (r->status == FS_NEEDS_RECOVER || r->status == FS_INTERRUPTED || r->status == FS_NO_MEMORY) {
            return fs_fail(err, r->status, "%s", words.text);       /* I3 */
        }
        if (r->status != FS_OK) {
            mover_event(&e->ctx, EV_WARNING, r->plan.domid, (uint64_t)r->status, 0, r->error);
        }
    }
    return FS_OK;
}

/* ---- evict ----------------------------------------------------------------------------------- */

struct looking { uint16_t domid; bool any; };

static fs_status_t look_for_owned(void *arg, mfn_t start, const struct hv_frame *frames, size_t count, struct fs_error *err)
{
    struct looking *l = arg;
    (void)start, (void)err;
    for (size_t i = 0; i < count && !l->any; i++) {
        l->any = frame_of(&frames[i], l->domid);
    }
    return FS_OK;
}

static bool range_has_frames_of(struct evacuation *e, uint16_t domid, struct fs_error *err)
{
    struct looking l = { .domid = domid };
    return survey_frames(e->hv->be, &e->survey.ranges, look_for_owned, &l, err) == FS_OK && l.any;
}

struct marking { struct evacuation *e; mfn_t *list; struct hv_mark_result *marks; };

static fs_status_t mark_owned_chunk(void *arg, mfn_t start, const struct hv_frame *frames, size_t count, struct fs_error *err)
{
    struct marking *m = arg;
    size_t n = 0;
    ASSERT_CMP(count, <=, SURVEY_CHUNK);
    for (size_t i = 0; i < count; i++) {
        if (frames[i].owner == HV_FRAME_DOMAIN || frames[i].owner == HV_FRAME_AMBIGUOUS) {
            m->list[n++] = mfn_add(start, i);
        }
    }
    return n == 0 ? FS_OK : m->e->hv->be->ops->mark_owned(m->e->hv->be, m->list, n, m->marks, err);
}

/* Whatever lies in the range now leaves the heap's reach, whoever lets it go: a restore takes its frames from the heap, and a frame
 * that another guest gives back meanwhile must not be among them. */
static fs_status_t mark_everything(struct evacuation *e, struct fs_error *err)
{
    struct marking m = { .e = e, .list = malloc(SURVEY_CHUNK * sizeof(*m.list)), .marks = malloc(SURVEY_CHUNK * sizeof(*m.marks)) };
    uint64_t offlined = 0, pending = 0;
    fs_status_t s = m.list == NULL || m.marks == NULL ? FS_NO_MEMORY : survey_frames(e->hv->be, &e->survey.ranges, mark_owned_chunk, &m, err);
    if (s == FS_OK) {
        s = mark_unowned(e, &offlined, &pending, err);      /* last: what was let go before its mark is free now */
    }
    free(m.list);
    free(m.marks);
    return s;
}

static fs_status_t evict_rest(struct evacuation *e, struct fs_error *err)
{
    const char *dir = e->options->evict_dir != NULL ? e->options->evict_dir : hv_state_dir(e->hv);
    fs_status_t marked = mark_everything(e, err);
    if (marked != FS_OK) {
        return marked;
    }
    for (size_t i = 0; i < e->report->domain_count; i++) {
        struct hv_domain_report *r = &e->report->domains[i];
        struct fs_error words = { "" };
        if (r->plan.mover == HV_MOVER_NONE || r->status == FS_GUEST_GONE || !range_has_frames_of(e, r->plan.domid, &words)) {
            continue;
        }
        fs_status_t s = evict_domain(&e->ctx, dir, r, &words);
        if (s != FS_OK) {
            r->status = s;
            snprintf(r->error, sizeof(r->error), "%.*s", (int)sizeof(r->error) - 1, words.text);
        }
        if (s == FS_NEEDS_RECOVER) {
            return fs_fail(err, s, "%s", words.text);
        }
    }
    return FS_OK;
}

/* ---- sweep ------------------------------------------------------------------------------------- */

static int blocker_order(const void *a, const void *b)
{
    const struct fs_blocker *x = a, *y = b;
    return x->frame < y->frame ? -1 : x->frame > y->frame;
}

static enum fs_reason reason_for(const struct evacuation *e, mfn_t m, const struct hv_frame *f)
{
    struct fs_blocker key = fs_blocker_make(m, 0, 0, FS_REASON_XEN);
    const struct fs_blocker *known = e->known_count == 0 ? NULL :
        bsearch(&key, e->known, e->known_count, sizeof(key), blocker_order);
    if (known != NULL && f->owner == HV_FRAME_DOMAIN && known->domid == f->domid) {
        return (enum fs_reason)known->reason;
    }
    for (size_t i = 0; i < e->report->domain_count && f->owner == HV_FRAME_DOMAIN; i++) {
        if (e->report->domains[i].plan.domid == f->domid && e->refused[i] != FS_OK) {
            return refusal_reason(e->report->domains[i].plan.mover, e->refused[i]);
        }
    }
    switch (f->owner) {
    case HV_FRAME_BROKEN:    return FS_REASON_BROKEN;
    case HV_FRAME_UNOWNED:   return FS_REASON_XEN;
    case HV_FRAME_AMBIGUOUS: return FS_REASON_OWNER_UNKNOWN;
    default: break;
    }
    const struct hv_domain *dom = survey_domain(&e->survey, f->domid);
    if (dom != NULL && dom->kind == HV_DOMAIN_CONTROL) {
        return FS_REASON_DOM0;
    }
    for (size_t i = 0; i < e->options->exclude_count; i++) {
        if (e->options->exclude[i] == f->domid) {
            return FS_REASON_GUEST_EXCLUDED;
        }
    }
    if (dom == NULL) {
        return FS_REASON_OWNER_UNKNOWN;                 /* came during the evacuation */
    }
    if (hv_mover_ops(dom->kind == HV_DOMAIN_PV ? HV_MOVER_PV : dom->kind == HV_DOMAIN_HAP ? HV_MOVER_HAP : HV_MOVER_NONE) == NULL) {
        return FS_REASON_NO_MOVER;
    }
    return f->gfn == FS_FRAME_NONE ? FS_REASON_XEN_SHARED : FS_REASON_NOT_IN_P2M;
}

static fs_status_t sweep_chunk(void *arg, mfn_t start, const struct hv_frame *frames, size_t count, struct fs_error *err)
{
    struct evacuation *e = arg;
    struct hv_report *r = e->report;
    (void)err;
    for (size_t i = 0; i < count; i++) {
        const struct hv_frame *f = &frames[i];
        r->frames_total += f->owner != HV_FRAME_HOLE;
        r->frames_pending += (f->flags & HV_FRAME_PENDING) != 0;
        if (f->owner == HV_FRAME_HOLE) {
            continue;
        }
        if (f->owner == HV_FRAME_OFFLINED) {
            r->frames_offlined++;
            continue;
        }
        if (r->blocker_count % 1024 == 0) {
            struct fs_blocker *grown = realloc(r->blockers, (r->blocker_count + 1024) * sizeof(*grown));
            if (grown == NULL) {
                return FS_NO_MEMORY;
            }
            r->blockers = grown;
        }
        mfn_t m = mfn_add(start, i);
        r->blockers[r->blocker_count++] = fs_blocker_make(m, f->gfn, f->owner == HV_FRAME_UNOWNED ? FS_DOMID_XEN : f->domid, reason_for(e, m, f));
    }
    return FS_OK;
}

/* Frames that are still someone's: pending, so that they leave the heap's reach when they are let go. */
static fs_status_t mark_rest(struct evacuation *e, struct fs_error *err)
{
    struct marking m = { .e = e, .list = malloc(SURVEY_CHUNK * sizeof(*m.list)), .marks = malloc(SURVEY_CHUNK * sizeof(*m.marks)) };
    fs_status_t s = m.list == NULL || m.marks == NULL ? FS_NO_MEMORY : FS_OK;
    for (size_t i = 0; s == FS_OK && i < e->report->blocker_count; ) {
        size_t n = 0;
        for (; n < SURVEY_CHUNK && i < e->report->blocker_count; i++) {
            if (e->report->blockers[i].reason != FS_REASON_XEN && e->report->blockers[i].reason != FS_REASON_BROKEN) {
                m.list[n++] = fs_blocker_mfn(&e->report->blockers[i]);
            }
        }
        s = n == 0 ? FS_OK : e->hv->be->ops->mark_owned(e->hv->be, m.list, n, m.marks, err);
    }
    free(m.list);
    free(m.marks);
    return s;
}

static fs_status_t sweep(struct evacuation *e, struct fs_error *err)
{
    struct hv_report *r = e->report;
    fs_status_t s = FS_OK;
    if (e->known_count > 1) {
        qsort(e->known, e->known_count, sizeof(*e->known), blocker_order);
    }
    for (int i = 0; i < SWEEP_TRIES && s == FS_OK; i++) {    /* frames let go meanwhile (balloon, exit) leave the heap here */
        uint64_t offlined = 0, pending = 0;
        s = mark_unowned(e, &offlined, &pending, err);
        mover_event(&e->ctx, EV_SWEEP, FS_DOMID_NONE, offlined, pending, NULL);
        if (offlined == 0) {
            break;
        }
    }
    for (int pass = 0; pass < 2 && s == FS_OK; pass++) {      /* the second look sees the pending marks of the first */
        r->frames_total = r->frames_offlined = r->frames_pending = 0;
        r->blocker_count = 0;
        s = survey_frames(e->hv->be, &e->survey.ranges, sweep_chunk, e, err);
        if (s == FS_OK && pass == 0) {
            s = mark_rest(e, err);
        }
    }
    r->frames_blocked = r->blocker_count;
    ASSERT(s != FS_OK || r->frames_total == r->frames_offlined + r->frames_blocked);        /* I4 */
    return s;
}

/* ---- the whole ------------------------------------------------------------------------------------ */

static fs_status_t begin(struct evacuation *e, struct fs_error *err)
{
    struct journal_begin record = { .version = JOURNAL_VERSION, .start_time_s = (uint64_t)time(NULL) };
    snprintf(record.target, sizeof(record.target), "%s", e->options->target);
    fs_status_t s = journal_open(hv_state_dir(e->hv), false, &e->journal, err);
    if (s != FS_OK) {
        return s;
    }
    e->ctx.journal = e->journal;
    journal_crash_at(e->journal, e->options->crash_at);
    s = journal_append(e->journal, JR_BEGIN, &record, sizeof(record), err);
    if (s == FS_OK) {
        s = journal_append(e->journal, JR_RANGES, e->survey.ranges.ranges, e->survey.ranges.count * sizeof(struct mfn_range), err);
    }
    if (s == FS_OK) {
        s = journal_append(e->journal, JR_MARK_INTENT, NULL, 0, err);
    }
    return s;
}

static fs_status_t prepare_room(struct evacuation *e, struct fs_error *err)
{
    /* Read again: the free frames of the range are gone from the counts now, so no node needs to be barred (I2). */
    bool barred[HV_NODES_MAX] = { false };
    fs_status_t s = e->hv->be->ops->host(e->hv->be, &e->survey.host, err);
    e->ctx.host = e->survey.host;
    room_init(&e->room, &e->survey.host, barred, 0);
    return s;
}

static fs_status_t run(struct evacuation *e, struct fs_error *err)
{
    uint64_t since = now_ns(e), offlined = 0, pending = 0;
    fs_status_t s = begin(e, err);
    if (s != FS_OK) {
        return s;
    }
    s = mark_unowned(e, &offlined, &pending, err);
    if (s == FS_OK) {
        mover_event(&e->ctx, EV_OFFLINE_FREE, FS_DOMID_NONE, offlined, pending, NULL);
        phase(e, "mark-free", &since, offlined);
        s = journal_append(e->journal, JR_MARKED, NULL, 0, err);
    }
    if (s == FS_OK) {
        s = prepare_room(e, err);
    }
    if (s == FS_OK) {
        s = move_all(e, err);
    }
    since = now_ns(e);
    if (s == FS_OK && e->options->evict) {
        s = evict_rest(e, err);
        phase(e, "evict", &since, 0);
    }
    if (s == FS_OK) {
        s = journal_append(e->journal, JR_SWEEP, NULL, 0, err);
    }
    if (s == FS_OK) {
        s = sweep(e, err);
        phase(e, "sweep", &since, e->report->frames_offlined);
    }
    if (s == FS_NEEDS_RECOVER) {
        return s;
    }
    if (s != FS_OK) {
        struct fs_error second;
        if (online_range(e, &second) != FS_OK) {
            mover_event(&e->ctx, EV_WARNING, FS_DOMID_NONE, 0, 0, "the range could not be set online again");
        }
    }
    struct fs_error ignored;
    fs_status_t end = journal_append(e->journal, JR_END, NULL, 0, s == FS_OK ? err : &ignored);
    if (end == FS_OK) {
        end = journal_finish(e->journal, s == FS_OK ? err : &ignored);
    }
    return s == FS_OK ? end : s;
}

/* OK only if every frame is offline; what failed for one domain is in its report. */
static fs_status_t verdict(const struct hv_report *r)
{
    if (r->mismatches > 0) {
        return FS_CORRUPT;
    }
    return r->frames_blocked > 0 ? FS_PARTIAL : FS_OK;
}

/* ---- room that guests make ------------------------------------------------------------------------ */

static void refusal_adds(struct hv_plan *p, const char *fmt, const char *words)
{
    size_t used = strlen(p->refusal);
    (void)snprintf(p->refusal + used, sizeof(p->refusal) - used, fmt, words);
}

/* The plan lacks room: guests that can are asked, or named. FS_OK: the plan may be another one now; look at its refusal. */
static fs_status_t seek_room(struct evacuation *e, struct fs_error *err)
{
    struct hv_plan *plan = &e->report->plan;
    struct room_plan room;
    char words[200];
    fs_status_t s = FS_OK;
    room_ask(e->hv, &e->survey, e->options, plan->room_missing_pages, &room);
    room_plan_text(&room, words, sizeof(words));
    if (!room.enough) {
        if (room.count > 0) {
            refusal_adds(plan, "; guests could give no more than %s", words);
        }
    } else if (!e->options->make_room) {
        refusal_adds(plan, "; --make-room would shrink %s first", words);
    } else if (e->options->dry_run) {
        plan->refusal[0] = '\0';
        plan->refusal_status = FS_OK;
        size_t used = strlen(plan->note);
        (void)snprintf(plan->note + used, sizeof(plan->note) - used, "%sroom is missing: shrinks %.180s first", used > 0 ? "; " : "", words);
    } else {
        s = room_make(e->hv, &room, &e->report->made_room, &e->report->made_room_count, err);
        if (s == FS_OK) {               /* what lies where is another thing now */
            hv_plan_free(plan);
            survey_free(&e->survey);
            s = survey_target(e->hv, e->options->target, &e->survey, err);
        }
        if (s == FS_OK) {
            e->ctx.host = e->survey.host;
            s = survey_plan(e->hv, &e->survey, e->options, plan, err);
        }
    }
    room_plan_free(&room);
    return s;
}

fs_status_t hv_evacuate(struct hv *hv, const struct hv_evacuate_options *options, struct hv_report *out, struct fs_error *err)
{
    struct evacuation e = { .hv = hv, .options = options, .report = out };
    memset(out, 0, sizeof(*out));
    fs_status_t s = survey_target(hv, options->target, &e.survey, err);
    if (s != FS_OK) {
        out->status = s;
        return s;
    }
    e.ctx = (struct mover_ctx){ .be = hv->be, .options = options, .ranges = &e.survey.ranges, .room = &e.room,
                                .on_event = hv->config.on_event, .event_arg = hv->config.event_arg, .host = e.survey.host,
                                .interrupted = &hv->interrupted, .one_thread = hv->config.one_thread };
    uint64_t since = now_ns(&e);
    mover_event(&e.ctx, EV_PLAN_BEGIN, FS_DOMID_NONE, mfn_set_pages(&e.survey.ranges), e.survey.domain_count, NULL);
    s = survey_plan(hv, &e.survey, options, &out->plan, err);
    if (s != FS_OK) {
        goto out;
    }
    if (out->plan.refusal_status == FS_NO_ROOM && out->plan.room_missing_pages > 0) {
        s = seek_room(&e, err);
        if (s != FS_OK) {
            goto out;
        }
    }
    phase(&e, "plan", &since, out->plan.counts.total);
    mover_event(&e.ctx, EV_PLAN_END, FS_DOMID_NONE, out->plan.room_needed_pages, out->plan.blocker_count, NULL);
    if (options->on_plan != NULL) {
        options->on_plan(options->plan_arg, &out->plan);
    }
    out->domains = calloc(out->plan.domain_count + 1, sizeof(*out->domains));
    e.refused = calloc(out->plan.domain_count + 1, sizeof(*e.refused));
    if (out->domains == NULL || e.refused == NULL) {
        s = FS_NO_MEMORY;
        goto out;
    }
    for (size_t i = 0; i < out->plan.domain_count; i++) {
        out->domains[i].plan = out->plan.domains[i];
        out->domains[i].evicted_to = FS_DOMID_NONE;
    }
    out->domain_count = out->plan.domain_count;
    if (out->plan.refusal[0] != '\0') {
        s = fs_fail(err, out->plan.refusal_status, "%s", out->plan.refusal);
        goto out;
    }
    if (options->dry_run) {
        goto out;
    }
    s = run(&e, err);
    if (s == FS_OK) {
        s = verdict(out);
        out->verified = options->verify && out->mismatches == 0 && out->pages_hashed + out->moved_free == out->frames_moved;
    }
out:
    out->status = s;
    if (e.journal != NULL) {
        journal_close(e.journal);
    }
    free(e.known);
    free(e.refused);
    survey_free(&e.survey);
    if (s != FS_OK && s != FS_PARTIAL && s != FS_NEEDS_RECOVER) {
        room_give_back(hv, out->made_room, out->made_room_count);
    }
    return s;
}

void hv_report_free(struct hv_report *r)
{
    free(r->made_room);
    hv_plan_free(&r->plan);
    free(r->domains);
    free(r->blockers);
    memset(r, 0, sizeof(*r));
}
