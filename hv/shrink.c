/*
 * shrink.c - a guest gives memory to the machine, or takes it again, by abi.h.
 *
 * Owns: the steps of one shrink or grow, the guest's limit meanwhile, the report.
 * Invariants:
 *   I1  what came or went is what the machine says (tot_pages before and after a step), never what the guest says.
 *   I2  after each step the limit is what the guest has; when it has again what it had before it was first shrunk, the limit is the old one.
 *   I3  a step is whole: the tool may be stopped or killed between any two calls, and the guest is a guest of some size.  What is left to do is
 *       to set the limit: by recovery, from the record JR_SHRINK.
 *   I4  a refusal comes before anything is changed.
 * Lock order: the journal's lock from before the first word with the guest (a session ends another tool's requests) to the end.
 * Why steps: progress, ^C, and a guest that serves other things in between.
 * Cost: a request and three calls a step; fsck afterwards reads the p2m once.
 */
#include "shrink.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "coop_channel.h"
#include "frameshift/assert.h"

#define STEP_PAGES     4096u
#define KEEP_PAGES     1024u            /* of the machine: Xen allocates for its own needs meanwhile */
#define BLOCK_PAGES    ((uint64_t)FS_ABI_BLOCK_PAGES)
#define CALL_TRIES     3
#define AGAIN_TRIES    5
#define AGAIN_WAIT_NS  2000000ull
#define TIMEOUT_NS     60000000000ull
#define MIB(pages)     ((double)(pages) / 256.0)

struct shrink {
    struct hv *hv;
    struct hv_backend *be;
    struct journal *journal;
    const struct hv_shrink_options *o;
    struct hv_shrink_report *r;
    struct hv_domain dom;               /* as of the last look */
    struct shrunk was;
    struct coop_channel channel;
    bool began;                         /* JR_SHRINK is written */
};

static void event(const struct shrink *s, enum fs_event_id id, uint64_t a, uint64_t b, const char *note)
{
    struct fs_event e = { .id = id, .domid = s->dom.domid, .time_ns = s->be->ops->clock_ns(s->be), .a = a, .b = b, .note = note };
    if (s->hv->config.on_event != NULL) {
        s->hv->config.on_event(s->hv->config.event_arg, &e);
    }
}

/* ---- the machine ------------------------------------------------------------------------------- */

static fs_status_t look(struct shrink *s, struct fs_error *err)
{
    struct hv_domain now;
    struct fs_error words = { "" };
    fs_status_t rc = FS_IO;
    for (int i = 0; i < CALL_TRIES && rc != FS_OK; i++) {       /* who is gone is so every time */
        rc = s->be->ops->domain(s->be, s->dom.domid, &now, &words);
    }
    if (rc == FS_NOT_FOUND || rc == FS_GUEST_GONE || (rc == FS_OK && (now.dying || memcmp(now.uuid, s->dom.uuid, sizeof(now.uuid)) != 0))) {
        return fs_fail(err, FS_GUEST_GONE, "domain %u (%s) went away", s->dom.domid, s->dom.name);
    }
    if (rc != FS_OK) {
        return fs_fail(err, rc, "%s", words.text);
    }
    s->dom = now;
    return FS_OK;
}

static fs_status_t set_limit(struct shrink *s, uint64_t pages, struct fs_error *err)
{
    fs_status_t rc = FS_IO;
    if (s->dom.max_pages == pages) {
        return FS_OK;
    }
    for (int i = 0; i < CALL_TRIES && rc != FS_OK && rc != FS_GUEST_GONE; i++) {
        rc = s->be->ops->set_max_pages(s->be, s->dom.domid, pages, err);
    }
    if (rc == FS_OK) {
        s->dom.max_pages = pages;
    }
    return rc;
}

static bool as_it_was(const struct shrink *s)
{
    return s->dom.tot_pages >= s->was.tot_pages;
}

/* I2 */
static fs_status_t follow(struct shrink *s, struct fs_error *err)
{
    return set_limit(s, as_it_was(s) ? s->was.max_pages : s->dom.tot_pages, err);
}

static void read_host(struct shrink *s, bool after)
{
    struct hv_host host;
    struct hv_shrink_report *r = s->r;
    if (s->be->ops->host(s->be, &host, NULL) != FS_OK) {
        return;                         /* figures of a report: nothing hangs on them */
    }
    *(after ? &r->free_after : &r->free_before) = host.free_pages;
    r->node_count = host.node_count < FS_ARRAY_SIZE(r->nodes) ? host.node_count : FS_ARRAY_SIZE(r->nodes);
    for (size_t i = 0; i < r->node_count; i++) {
        r->nodes[i].node = host.nodes[i].id;
        *(after ? &r->nodes[i].after : &r->nodes[i].before) = host.nodes[i].free_pages;
    }
}

/* ---- asking the guest ---------------------------------------------------------------------------- */

static fs_status_t find_guest(struct shrink *s, struct fs_error *err)
{
    uint16_t domid;
    fs_status_t rc = hv_domain_find(s->hv, s->o->guest, &domid, err);
    if (rc == FS_OK) {
        rc = s->be->ops->domain(s->be, domid, &s->dom, err);
    }
    if (rc != FS_OK) {
        return rc;
    }
    s->r->domid = domid;
    (void)snprintf(s->r->name, sizeof(s->r->name), "%s", s->dom.name);
    s->r->pages_before = s->r->pages_after = s->dom.tot_pages;
    s->r->limit_before = s->r->limit_after = s->dom.max_pages;
    if (s->dom.kind == HV_DOMAIN_CONTROL) {
        return fs_fail(err, FS_UNSUPPORTED, "%s is the domain that this program runs in; use `xl mem-set` for it", s->dom.name);
    }
    if (s->dom.paused || s->dom.shutdown) {
        return fs_fail(err, FS_REFUSED, "domain %u (%s) is %s and cannot answer; let it run first", domid, s->dom.name,
                       s->dom.paused ? "paused" : "shut down");
    }
    return FS_OK;
}

static fs_status_t open_channel(struct shrink *s, struct fs_error *err)
{
    struct hv_host host;
    struct fs_error words = { "" };
    fs_status_t rc = s->be->ops->host(s->be, &host, err);
    if (rc != FS_OK) {
        return rc;
    }
    if (s->dom.kind != HV_DOMAIN_PV) {
        return fs_fail(err, FS_UNSUPPORTED, "domain %u (%s) is no PV guest and cannot speak abi.h (doc/ABI.md); ask its own balloon: `xl mem-set`",
                       s->dom.domid, s->dom.name);
    }
    rc = coop_open(&s->channel, s->be, &s->dom, host.max_mfn * 2 + (1u << 20), s->o->timeout_ns != 0 ? s->o->timeout_ns : TIMEOUT_NS,
                   &s->hv->interrupted, &words);
    if (rc == FS_NOT_FOUND || rc == FS_UNSUPPORTED) {
        return fs_fail(err, FS_UNSUPPORTED, "domain %u (%s) does not speak abi.h (doc/ABI.md), so it cannot be asked; try its own balloon: `xl mem-set`",
                       s->dom.domid, s->dom.name);
    }
    return rc == FS_OK ? FS_OK : fs_fail(err, rc, "%s", words.text);
}

static fs_status_t request(struct shrink *s, uint16_t op, uint64_t pages, struct fs_abi_response *a, struct fs_error *err)
{
    struct fs_abi_request q = { .op = op, .argument = { pages, 0 } };
    coop_send(&s->channel, &q, NULL);
    return coop_receive(&s->channel, a, NULL, MFN_NONE, err);
}

/* A count of pages that a guest can have. */
static uint64_t within(const struct shrink *s, uint64_t pages)
{
    return pages < s->channel.pfn_end ? pages : s->channel.pfn_end;
}

static fs_status_t query(struct shrink *s, struct fs_error *err)
{
    struct hv_shrink_report *r = s->r;
    struct fs_abi_response a;
    fs_status_t rc = request(s, FS_ABI_QUERY, 0, &a, err);
    if (rc != FS_OK) {
        return rc;
    }
    r->detailed = (s->channel.features & FS_ABI_FEATURE_SHRINK_VALUES) != 0;
    r->guest_pages = within(s, a.value[FS_ABI_QUERIED_PAGES]);
    r->guest_free_pages = within(s, a.value[FS_ABI_QUERIED_FREE_PAGES]);
    r->guest_given_pages = within(s, a.value[FS_ABI_QUERIED_GIVEN_PAGES]);
    r->guest_possible_pages = r->detailed ? within(s, a.value[FS_ABI_QUERIED_SHRINK_PAGES]) : UINT64_MAX;
    r->stops = a.value[FS_ABI_QUERIED_STOP_COUNT];
    return FS_OK;
}

/* ---- may it be done? ------------------------------------------------------------------------------- */

static fs_status_t plan_shrink(struct shrink *s, struct fs_error *err)
{
    struct hv_shrink_report *r = s->r;
    if (s->o->to_pages > s->dom.tot_pages) {
        return fs_fail(err, FS_BAD_RANGE, "%s has %.1f MiB and cannot be shrunk to %.1f; did you mean `grow`?", r->name, MIB(s->dom.tot_pages),
                       MIB(s->o->to_pages));
    }
    r->plan_pages = (s->dom.tot_pages - s->o->to_pages) / BLOCK_PAGES * BLOCK_PAGES;
    if (r->plan_pages > r->guest_possible_pages) {
        uint64_t least = s->dom.tot_pages - r->guest_possible_pages / BLOCK_PAGES * BLOCK_PAGES;
        return fs_fail(err, FS_REFUSED, "%s has %.1f MiB and can give %.1f MiB now: it lives on %.0f MiB or more, not on %.1f; nothing was changed", r->name,
                       MIB(s->dom.tot_pages), MIB(r->guest_possible_pages), MIB(least), MIB(s->o->to_pages));
    }
    return FS_OK;
}

static fs_status_t plan_grow(struct shrink *s, struct fs_error *err)
{
    struct hv_shrink_report *r = s->r;
    uint64_t most = s->dom.tot_pages + r->guest_given_pages;
    most = most < s->dom.tot_pages || most > r->maximum_pages ? r->maximum_pages : most;
    if (s->o->to_pages < s->dom.tot_pages) {
        return fs_fail(err, FS_BAD_RANGE, "%s has %.1f MiB and cannot be grown to %.1f; did you mean `shrink`?", r->name, MIB(s->dom.tot_pages),
                       MIB(s->o->to_pages));
    }
    if (s->o->to_pages > most) {
        return fs_fail(err, FS_REFUSED, "%s has %.1f MiB and its maximum is %.1f MiB: it can take again what it gave, no more; nothing was changed", r->name,
                       MIB(s->dom.tot_pages), MIB(most));
    }
    r->plan_pages = s->o->to_pages - s->dom.tot_pages;
    if (s->o->to_pages < most) {
        r->plan_pages = r->plan_pages / BLOCK_PAGES * BLOCK_PAGES;
    }
    if (r->plan_pages > 0 && r->plan_pages + KEEP_PAGES > r->free_before) {
        return fs_fail(err, FS_NO_ROOM, "%s needs %.1f MiB and the machine has %.1f MiB free, of which %u stay for itself; nothing was changed", r->name,
                       MIB(r->plan_pages), MIB(r->free_before), KEEP_PAGES / 256);
    }
    return FS_OK;
}

static fs_status_t prepare(struct shrink *s, struct fs_error *err)
{
    fs_status_t rc = find_guest(s, err);
    if (rc == FS_OK) {
        rc = shrunk_find(hv_state_dir(s->hv), &s->dom, &s->was, err);
        s->r->maximum_pages = s->was.tot_pages;
    }
    if (rc == FS_OK) {
        read_host(s, false);
        rc = open_channel(s, err);
    }
    if (rc == FS_OK) {
        rc = query(s, err);
    }
    if (rc == FS_OK) {
        rc = s->o->grow ? plan_grow(s, err) : plan_shrink(s, err);
    }
    return rc;
}

/* ---- the steps ------------------------------------------------------------------------------------- */

static void add_values(struct hv_shrink_report *r, const struct fs_abi_response *a)
{
    static const uint8_t stays[HV_STAYS] = { [HV_STAYS_dma] = FS_ABI_SHRUNK_STAYS_DMA, [HV_STAYS_boot] = FS_ABI_SHRUNK_STAYS_BOOT,
                                             [HV_STAYS_table] = FS_ABI_SHRUNK_STAYS_TABLE, [HV_STAYS_kernel] = FS_ABI_SHRUNK_STAYS_KERNEL,
                                             [HV_STAYS_busy] = FS_ABI_SHRUNK_STAYS_BUSY };
    bool sane = true;
    r->requests++;
    r->said_pages += a->count;
    for (unsigned i = 0; i < FS_ABI_SHRUNK_VALUES; i++) {
        sane = sane && a->value[i] <= UINT32_MAX;       /* more pages than any request asks for: no figures of such a guest */
    }
    r->detailed = r->detailed && sane;
    if (r->detailed) {
        r->blocks += a->value[FS_ABI_SHRUNK_BLOCKS];
        r->single_pages += a->value[FS_ABI_SHRUNK_SINGLE_PAGES];
        r->machine_extents += a->value[FS_ABI_SHRUNK_EXTENTS];
        r->sections += a->value[FS_ABI_SHRUNK_SECTIONS];
        r->migrated_pages += a->value[FS_ABI_SHRUNK_MIGRATED];
        r->residual_blocks += a->value[FS_ABI_SHRUNK_RESIDUAL_BLOCKS];
        r->memmap_pages += a->value[FS_ABI_SHRUNK_MEMMAP];
        for (unsigned i = 0; i < HV_STAYS; i++) {
            r->stays[i] += a->value[stays[i]];
        }
    }
}

/* Ask once.  *moved: by the machine's count (I1). */
static fs_status_t step(struct shrink *s, uint64_t pages, uint64_t *moved, enum fs_abi_status *answer, struct fs_error *err)
{
    struct fs_abi_response a;
    uint64_t before = s->dom.tot_pages;
    fs_status_t rc = s->o->grow ? set_limit(s, before + pages, err) : FS_OK;
    *moved = 0;
    if (rc == FS_OK) {
        rc = request(s, s->o->grow ? FS_ABI_GROW : FS_ABI_SHRINK, pages, &a, err);
    }
    if (rc == FS_OK) {
        add_values(s->r, &a);
        *answer = (enum fs_abi_status)a.status;
        rc = look(s, err);
    }
    if (rc == FS_OK) {
        uint64_t now = s->dom.tot_pages;
        *moved = s->o->grow ? (now > before ? now - before : 0) : (before > now ? before - now : 0);
        rc = follow(s, err);
    }
    return rc;
}

static fs_status_t no_more(const struct shrink *s, enum fs_abi_status answer, uint64_t said, struct fs_error *err)
{
    const char *name = s->r->name;
    if (answer == FS_ABI_STATUS_OK && said > 0) {
        return fs_fail(err, FS_BAD_INPUT, "%s says that it %s pages, and the machine has seen none: its answers are no good", name,
                       s->o->grow ? "took" : "gave");
    }
    switch (answer) {
    case FS_ABI_STATUS_UNSUPPORTED: return fs_fail(err, FS_UNSUPPORTED, "%s can move its pages but cannot give or take memory", name);
    case FS_ABI_STATUS_NO_MEMORY:   return fs_fail(err, FS_PARTIAL, "%s needs what it still has", name);
    case FS_ABI_STATUS_AGAIN:       return fs_fail(err, FS_PARTIAL, "%s is too busy for it now; try again", name);
    case FS_ABI_STATUS_INVALID:     return fs_fail(err, FS_BAD_INPUT, "%s does not take the request", name);
    default:
        return s->o->grow ? fs_fail(err, FS_PARTIAL, "%s took no more: the machine has no free frames for it, or it has all that it gave", name)
                          : fs_fail(err, FS_PARTIAL, "%s has nothing left that can go: what it has cannot be moved inside it, or is in use for the moment",
                                    name);
    }
}

static fs_status_t run_steps(struct shrink *s, struct fs_error *err)
{
    uint64_t done = 0, most = s->o->step_pages != 0 ? s->o->step_pages : STEP_PAGES, since = s->be->ops->clock_ns(s->be);
    unsigned idle = 0;
    fs_status_t rc = FS_OK;
    while (rc == FS_OK && done < s->r->plan_pages) {
        enum fs_abi_status answer = FS_ABI_STATUS_OK;
        uint64_t left = s->r->plan_pages - done, moved, said = s->r->said_pages;
        if (s->hv->interrupted) {
            rc = fs_fail(err, FS_INTERRUPTED, "stopped by a signal: %s has %.1f MiB now; the same command goes on from there", s->r->name,
                         MIB(s->dom.tot_pages));
            break;
        }
        rc = step(s, left < most ? left : most, &moved, &answer, err);
        done += moved;
        s->r->ns = s->be->ops->clock_ns(s->be) - since;
        if (rc == FS_OK) {
            event(s, s->o->grow ? EV_GROW : EV_SHRINK, done, s->r->plan_pages, NULL);
        }
        idle = moved > 0 ? 0 : idle + 1;
        if (rc == FS_OK && moved == 0) {
            bool wait = answer == FS_ABI_STATUS_AGAIN || (answer == FS_ABI_STATUS_PARTIAL && idle == 1);
            if (!wait || idle >= AGAIN_TRIES) {
                rc = no_more(s, answer, s->r->said_pages - said, err);
            } else {
                rc = s->be->ops->coop_wait(s->be, s->dom.domid, AGAIN_WAIT_NS, err);
            }
        }
    }
    return rc;
}

static fs_status_t begin(struct shrink *s, struct fs_error *err)
{
    struct journal_begin b = { .version = JOURNAL_VERSION, .start_time_s = (uint64_t)time(NULL) };
    struct journal_domain d = { .domid = s->dom.domid, .mover = HV_MOVER_COOP, .max_pages = s->dom.max_pages };
    struct shrink_record r = { .grow = s->o->grow, .plan_pages = s->r->plan_pages, .pages_before = s->dom.tot_pages, .was = s->was };
    if (s->o->for_room && !s->o->grow && s->was.back_pages < s->dom.tot_pages) {
        s->was.back_pages = s->dom.tot_pages;
        r.was = s->was;
    }
    (void)snprintf(b.target, sizeof(b.target), "%s %s", s->o->grow ? "grow" : "shrink", s->r->name);
    memcpy(d.uuid, s->dom.uuid, sizeof(d.uuid));
    fs_status_t rc = journal_append(s->journal, JR_BEGIN, &b, sizeof(b), err);
    if (rc == FS_OK) {
        rc = journal_append(s->journal, JR_DOMAIN_BEGIN, &d, sizeof(d), err);
    }
    if (rc == FS_OK) {
        rc = journal_append(s->journal, JR_SHRINK, &r, sizeof(r), err);
    }
    s->began = rc == FS_OK;
    return rc;
}

/* Whatever happened: the guest is idle, the limit is what it has, and what it had is remembered. FS_NEEDS_RECOVER: the journal stays. */
static fs_status_t settle(struct shrink *s, bool quiet, struct fs_error *err)
{
    fs_status_t rc;
    if (!quiet) {                       /* an answer is missing: a new session ends what it was asked, if it still answers at all */
        struct coop_channel again;
        struct fs_error ignored;
        coop_close(&s->channel);
        if (coop_open(&again, s->be, &s->dom, s->channel.limit_pfns, s->channel.timeout_ns, NULL, &ignored) == FS_OK) {
            coop_close(&again);
        }
    }
    rc = look(s, err);
    if (rc == FS_GUEST_GONE) {
        return rc;
    }
    if (rc == FS_OK) {
        rc = follow(s, err);
    }
    if (rc == FS_OK) {
        rc = shrunk_set(hv_state_dir(s->hv), s->be, &s->dom, s->dom.max_pages, as_it_was(s) ? NULL : &s->was, err);
    }
    return rc;
}

static fs_status_t finish(struct shrink *s, fs_status_t rc, struct fs_error *err)
{
    bool quiet = rc == FS_OK || rc == FS_PARTIAL || rc == FS_INTERRUPTED;
    struct fs_error second = { "" };
    fs_status_t end = s->began ? settle(s, quiet, &second) : FS_OK;
    if (end == FS_GUEST_GONE) {
        rc = fs_fail(err, FS_GUEST_GONE, "%s", second.text);
        end = FS_OK;
    } else if (end != FS_OK) {
        return fs_fail(err, FS_NEEDS_RECOVER, "%s runs with %.1f MiB, but its limit could not be set (%.200s): run `frameshift recover`", s->r->name,
                       MIB(s->dom.tot_pages), second.text);
    }
    if (end == FS_OK) {
        end = journal_append(s->journal, JR_DOMAIN_END, NULL, 0, &second);
    }
    if (end == FS_OK) {
        end = journal_append(s->journal, JR_END, NULL, 0, &second);
    }
    if (end == FS_OK) {
        end = journal_finish(s->journal, &second);
    }
    return rc != FS_OK || end == FS_OK ? rc : fs_fail(err, end, "%s", second.text);
}

/* First as it runs; only what then looks like a fault is looked at again with the guest stopped. */
static fs_status_t check(struct shrink *s, fs_status_t rc, struct fs_error *err)
{
    struct hv_fsck_report f = { 0 };
    struct fs_error words = { "" };
    for (int i = 0; i < 2; i++) {
        hv_fsck_free(&f);
        fs_status_t checked = hv_fsck(s->hv, s->dom.domid, i == 1, &f, &words);
        if (checked == FS_OK && f.fault_count == 0) {
            break;
        }
        if (i == 1 && f.fault_count > 0) {
            s->r->fsck_faults = f.fault_count;
            rc = fs_fail(err, FS_CORRUPT, "%s: fsck finds %zu fault(s): %s", s->r->name, f.fault_count, f.faults[0].text);
        } else if (i == 1) {
            event(s, EV_WARNING, 0, 0, "the guest's tables could not be checked afterwards");
        }
    }
    hv_fsck_free(&f);
    return rc;
}

fs_status_t shrink_run(struct hv *hv, struct journal *journal, const struct hv_shrink_options *options, struct hv_shrink_report *out, struct fs_error *err)
{
    struct shrink s = { .hv = hv, .be = hv->be, .journal = journal, .o = options, .r = out };
    struct fs_error words = { "" };
    *out = (struct hv_shrink_report){ .grow = options->grow, .dry_run = options->dry_run, .asked_pages = options->to_pages,
                                      .guest_possible_pages = UINT64_MAX };
    fs_status_t rc = prepare(&s, &words);
    if (rc == FS_OK && !options->dry_run && out->plan_pages > 0) {
        uint64_t stops = out->stops;
        struct fs_abi_response a;
        rc = begin(&s, &words);
        if (rc == FS_OK) {
            rc = run_steps(&s, &words);
        }
        bool answers = rc == FS_OK || rc == FS_PARTIAL || rc == FS_INTERRUPTED;
        out->stops = answers && request(&s, FS_ABI_QUERY, 0, &a, NULL) == FS_OK && a.value[FS_ABI_QUERIED_STOP_COUNT] >= stops
                     ? a.value[FS_ABI_QUERIED_STOP_COUNT] - stops : 0;
        rc = finish(&s, rc, &words);
        if (rc != FS_GUEST_GONE && rc != FS_NEEDS_RECOVER && s.began) {
            rc = check(&s, rc, &words);
        }
    } else {
        out->stops = 0;
    }
    coop_close(&s.channel);
    out->pages_after = s.dom.tot_pages;
    out->limit_after = s.dom.max_pages;
    read_host(&s, true);
    out->status = rc;
    (void)snprintf(out->error, sizeof(out->error), "%s", rc == FS_OK ? "" : words.text);
    return rc == FS_OK ? rc : fs_fail(err, rc, "%s", words.text);
}

fs_status_t hv_shrink(struct hv *hv, const struct hv_shrink_options *options, struct hv_shrink_report *out, struct fs_error *err)
{
    struct journal *journal;
    *out = (struct hv_shrink_report){ .grow = options->grow, .dry_run = options->dry_run, .asked_pages = options->to_pages };
    fs_status_t rc = journal_open(hv_state_dir(hv), false, &journal, err);
    if (rc != FS_OK) {
        out->status = rc;
        return rc;
    }
    journal_crash_at(journal, options->crash_at);
    rc = shrink_run(hv, journal, options, out, err);
    journal_close(journal);
    return rc;
}

/* ---- recovery ---------------------------------------------------------------------------------------- */

static bool find_record(const struct journal *j, size_t first, size_t last, struct shrink_record *out, bool *whole)
{
    bool any = false;
    for (size_t i = first; i < last; i++) {
        const void *data;
        size_t bytes;
        if (journal_record(j, i, &data, &bytes) == JR_SHRINK) {
            any = true;
            *whole = bytes == sizeof(*out) && data != NULL;
            if (*whole) {
                memcpy(out, data, sizeof(*out));
            }
        }
    }
    return any;
}

bool shrink_recorded(const struct journal *j, size_t first, size_t last)
{
    struct shrink_record r;
    bool whole;
    return find_record(j, first, last, &r, &whole);
}

fs_status_t shrink_recover(const struct mover_ctx *ctx, const char *state_dir, uint16_t domid, size_t first, size_t last, struct hv_recover_report *out,
                           struct fs_error *err)
{
    struct hv hv = { .be = ctx->be };
    struct shrink s = { .hv = &hv, .be = ctx->be };
    struct shrink_record r = { 0 };
    struct coop_channel channel;
    struct fs_error words = { "" };
    bool whole = false;
    if (!find_record(ctx->journal, first, last, &r, &whole) || !whole) {
        return fs_fail(err, FS_BAD_INPUT, "the journal's shrink record of domain %u is damaged or missing", domid);
    }
    fs_status_t rc = ctx->be->ops->domain(ctx->be, domid, &s.dom, err);
    if (rc != FS_OK) {
        return rc;
    }
    s.was = r.was;
    /* A guest that does not answer may give more yet: that only makes it smaller than its limit. */
    if (coop_open(&channel, ctx->be, &s.dom, ctx->host.max_mfn * 2 + (1u << 20), TIMEOUT_NS, ctx->interrupted, &words) == FS_OK) {
        coop_close(&channel);
    }
    rc = look(&s, err);
    if (rc == FS_OK) {
        rc = follow(&s, err);
    }
    if (rc == FS_OK) {
        rc = shrunk_set(state_dir, s.be, &s.dom, s.dom.max_pages, as_it_was(&s) ? NULL : &s.was, err);
    }
    if (rc == FS_OK) {
        out->domains_finished++;
        mover_event(ctx, EV_RECOVER, domid, domid, s.dom.tot_pages, r.grow != 0 ? "grown as far as it came" : "shrunk as far as it came");
    }
    return rc;
}
