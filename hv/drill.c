/*
 * drill.c - hv_drill(): the main job, rehearsed on a machine that knows the truth.
 *
 * Owns: the order of a drill's steps, what each must leave behind, the sum over all drills.
 * A drill: boot - run - (where there is a guest that moves its own pages: shrink it - run - grow it) - evacuate a DIMM - run - online it -
 * run - evacuate another - run - online it - shutdown.
 * Invariants:
 *  I1 after each step everything is judged: every byte and table entry of every guest and every count of the machine by the
 *     rig, p2m, M2P, types and owners of all domains by the engine's own fsck;
 *  I2 after an evacuation no guest frame is left in the DIMM but those in somebody else's hands: by the rig's account of
 *     references, not by the report that is on trial;
 *  I3 after a failure on purpose: recovery where the journal is left, then the judge, then the step again, which must now
 *     succeed.  A step that failed and needs no recovery has left no frame of the DIMM offline;
 *  I4 at the end the free frames are as many as before the first guest.
 * Why the second DIMM is the fullest one but the first: it holds what the first evacuation moved, in other guests' company.
 * Cost: that of ten steps, each judged in time linear in the guests' pages.
 */
#include "drill.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "hv_priv.h"
#include "journal.h"
#include "topology.h"

#define RESIZE_TRIES 4

struct drill {
    const struct rig_ops *ops;
    const struct hv_drill_options *o;
    struct hv_drill_report *report;
    const char *state_dir;
    struct rig *rig;
    struct hv *hv;
    uint64_t calls;                     /* of this drill: fail_call counts them */
    struct hv_drill_step step;
    uint64_t since_ns, writes_before;
    bool failed;                        /* on purpose, in this step */
    char coop[64];                      /* the guest that shrinks and grows; "": there is none */
    uint64_t coop_pages;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool interrupted(const struct drill *d) { return d->o->interrupted != NULL && *d->o->interrupted != 0; }

/* ---- steps ------------------------------------------------------------------------------------- */

static void step_begin(struct drill *d, uint64_t seed, const char *name, const char *dimm)
{
    d->step = (struct hv_drill_step){ .seed = seed };
    (void)snprintf(d->step.name, sizeof(d->step.name), "%s", name);
    (void)snprintf(d->step.dimm, sizeof(d->step.dimm), "%s", dimm);
    d->writes_before = d->rig != NULL ? d->ops->writes(d->rig) : 0;
    d->since_ns = now_ns();
}

/* The first words stay: what comes later is most often a consequence. */
static void step_says(struct drill *d, const char *text)
{
    if (d->step.text[0] == '\0') {
        (void)snprintf(d->step.text, sizeof(d->step.text), "%.*s", (int)sizeof(d->step.text) - 1, text);
    }
}

static void judge_by_rig(struct drill *d)
{
    char *words = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&words, &bytes);
    if (f == NULL) {
        d->step.faults++;
        step_says(d, "out of memory while judging");
        return;
    }
    d->step.faults += d->ops->judge(d->rig, f, &d->step.pages_checked);
    (void)fclose(f);
    if (words != NULL && words[0] != '\0') {
        step_says(d, words);
    }
    free(words);
}

static void judge_by_fsck(struct drill *d)
{
    struct hv_fsck_report r = { 0 };
    struct fs_error err = { "" };
    fs_status_t s = hv_fsck(d->hv, FS_DOMID_NONE, true, &r, &err);
    d->step.faults += r.fault_count;
    if (r.fault_count > 0) {
        step_says(d, r.faults[0].text);
    } else if (s != FS_OK) {
        d->step.faults++;
        step_says(d, err.text);
    }
    hv_fsck_free(&r);
}

/* I1. *status: what the step is about said; FS_CORRUPT where a judge found a fault. */
static fs_status_t step_end(struct drill *d, fs_status_t status, const char *text, bool judged, struct fs_error *err)
{
    struct hv_status_report machine = { 0 };
    struct fs_error words = { "" };
    uint64_t now = now_ns();
    d->step.ns = now - d->since_ns;
    d->step.status = status;
    d->step.injected = d->failed;
    if (status != FS_OK && status != FS_PARTIAL) {
        step_says(d, text);
    }
    if (d->rig != NULL && judged) {
        d->step.writes = d->ops->writes(d->rig) - d->writes_before;
        judge_by_rig(d);
        judge_by_fsck(d);
        if (hv_status(d->hv, &machine, &words) == FS_OK) {
            d->step.machine = &machine;
        }
    }
    d->step.judge_ns = now_ns() - now;
    d->report->steps++;
    d->report->faults += d->step.faults;
    d->report->writes += d->step.writes;
    d->report->pages_checked += d->step.pages_checked;
    if (d->o->on.on_step != NULL) {
        d->o->on.on_step(d->o->on.arg, &d->step);
    }
    d->step.machine = NULL;
    hv_status_free(&machine);
    if (d->step.faults > 0) {
        return fs_fail(err, FS_CORRUPT, "seed %" PRIu64 ", %s %s: %" PRIu64 " faults: %.300s", d->step.seed, d->step.name, d->step.dimm,
                       d->step.faults, d->step.text);
    }
    if (status != FS_OK && status != FS_PARTIAL && !d->failed) {
        return fs_fail(err, status, "seed %" PRIu64 ", %s %s: %.400s", d->step.seed, d->step.name, d->step.dimm, text);
    }
    return interrupted(d) ? fs_fail(err, FS_INTERRUPTED, "stopped by a signal after %s %s", d->step.name, d->step.dimm) : FS_OK;
}

/* ---- the steps that change the machine --------------------------------------------------------------- */

static fs_status_t count_begin(struct drill *d, struct fs_error *err)
{
    uint64_t n = d->o->fail_call;
    d->ops->count_calls(d->rig, n > d->calls ? n - d->calls : 0);
    return d->ops->start(d->rig, err);
}

static void count_end(struct drill *d)
{
    d->ops->stop(d->rig);
    uint64_t calls = d->ops->calls(d->rig, &d->failed);
    d->calls += calls;
    d->report->calls += calls;
    d->report->failures_injected += d->failed;
    d->ops->count_calls(d->rig, 0);
}

static const struct hv_dimm *dimm_named(const struct hv_topology *t, const char *name)
{
    for (size_t i = 0; i < t->count; i++) {
        if (strcmp(t->dimms[i].name, name) == 0) {
            return &t->dimms[i];
        }
    }
    return NULL;
}

/* I2. */
static void account(struct drill *d, bool emptied)
{
    struct hv_topology t;
    struct fs_error err = { "" };
    struct rig_account a = { 0 };
    if (hv_topology(d->hv, &t, &err) != FS_OK) {
        d->step.faults++;
        step_says(d, err.text);
        return;
    }
    const struct hv_dimm *dimm = dimm_named(&t, d->step.dimm);
    if (dimm != NULL) {
        d->ops->account(d->rig, &dimm->ranges, &a);
    }
    hv_topology_free(&t);
    d->step.frames_left = a.frames;
    d->step.frames_bound = a.bound;
    if (emptied && a.frames != a.bound) {
        char text[160];
        d->step.faults++;
        (void)snprintf(text, sizeof(text), "%" PRIu64 " frames of guests stay in %s, and somebody else has only %" PRIu64 " of them", a.frames,
                       d->step.dimm, a.bound);
        step_says(d, text);
    }
}

/* I3: a step that failed and is over has left the whole DIMM in use. */
static void rolled_back(struct drill *d)
{
    struct hv_status_report r = { 0 };
    struct fs_error err = { "" };
    fs_status_t s = hv_status(d->hv, &r, &err);
    for (size_t i = 0; i < r.count && s == FS_OK; i++) {
        if (strcmp(r.dimms[i].name, d->step.dimm) == 0 && r.dimms[i].offlined + r.dimms[i].pending > 0) {
            char text[160];
            d->step.faults++;
            (void)snprintf(text, sizeof(text), "%s failed and left %" PRIu64 " frames offline, %" PRIu64 " about to be", d->step.name,
                           r.dimms[i].offlined, r.dimms[i].pending);
            step_says(d, text);
        }
    }
    hv_status_free(&r);
}

static bool domains_failed(const struct hv_report *r, char *text, size_t bytes)
{
    for (size_t i = 0; i < r->domain_count; i++) {
        if (r->domains[i].status != FS_OK) {
            (void)snprintf(text, bytes, "%s was not moved: %s: %s", r->domains[i].plan.name, fs_status_name(r->domains[i].status), r->domains[i].error);
            return true;
        }
    }
    return false;
}

static fs_status_t recover(struct drill *d, uint64_t seed, const char *dimm, struct fs_error *err)
{
    struct hv_recover_report r;
    struct fs_error words = { "" };
    if (!journal_pending(d->state_dir)) {
        return FS_OK;
    }
    step_begin(d, seed, "recover", dimm);
    d->failed = false;
    fs_status_t s = hv_recover(d->hv, &r, &words);
    return step_end(d, s, words.text, true, err);
}

static void evacuate_reported(struct drill *d, const char *dimm, const struct hv_report *r, fs_status_t s, const char *text)
{
    d->report->evacuations++;
    d->report->frames_moved += r->frames_moved;
    d->report->frames_blocked += r->frames_blocked;
    d->step.frames_moved = r->frames_moved;
    d->step.frames_blocked = r->frames_blocked;
    for (size_t i = 0; i < r->domain_count; i++) {
        uint64_t ns = r->domains[i].longest_blackout_ns;
        ns = ns > r->domains[i].max_pause_ns ? ns : r->domains[i].max_pause_ns;
        d->report->longest_blackout_ns = ns > d->report->longest_blackout_ns ? ns : d->report->longest_blackout_ns;
    }
    if (d->o->on.on_report != NULL) {
        d->o->on.on_report(d->o->on.arg, dimm, r, s, text);
    }
}

static fs_status_t evacuate_once(struct drill *d, uint64_t seed, const char *dimm, bool *again, struct fs_error *err)
{
    struct hv_evacuate_options options = { .target = dimm, .verify = true, .evict = d->o->evict, .max_blackout_ns = d->o->max_blackout_ns,
                                           .max_pause_ns = d->o->max_pause_ns, .on_plan = d->o->on.on_plan, .plan_arg = d->o->on.arg };
    struct hv_report r = { 0 };
    struct fs_error words = { "" };
    char text[400] = "";
    step_begin(d, seed, "evacuate", dimm);
    fs_status_t s = count_begin(d, &words);
    if (s == FS_OK) {
        s = hv_evacuate(d->hv, &options, &r, &words);
        count_end(d);
    }
    bool done = s == FS_OK || s == FS_PARTIAL;
    bool partly = domains_failed(&r, text, sizeof(text));
    bool pending = journal_pending(d->state_dir);
    if (done && partly && !d->failed) {
        d->step.faults++;
        step_says(d, text);
    }
    if (done && !pending) {
        account(d, !partly);
    } else if (!done && !pending) {
        account(d, false);
        rolled_back(d);
    }
    *again = d->failed && (!done || partly || pending);
    if (s == FS_PARTIAL && d->failed && partly) {
        step_says(d, text);
    }
    evacuate_reported(d, dimm, &r, s, done ? "" : words.text);
    hv_report_free(&r);
    s = step_end(d, s, words.text, !pending, err);
    return s == FS_OK && pending ? recover(d, seed, dimm, err) : s;
}

static fs_status_t online_once(struct drill *d, uint64_t seed, const char *dimm, bool *again, struct fs_error *err)
{
    struct fs_error words = { "" };
    step_begin(d, seed, "online", dimm);
    fs_status_t s = count_begin(d, &words);
    if (s == FS_OK) {
        s = hv_online(d->hv, dimm, &d->step.frames_onlined, &words);
        count_end(d);
    }
    *again = s != FS_OK && d->failed;
    if (s == FS_OK) {
        rolled_back(d);
    }
    return step_end(d, s, words.text, true, err);
}

/* How much a guest can give depends on what it does at that moment: where it says no to a quarter, whole pageblocks that it named instead. */
static fs_status_t resize_once(struct drill *d, struct hv_shrink_options *o, struct hv_shrink_report *r, struct fs_error *words)
{
    fs_status_t s = hv_shrink(d->hv, o, r, words);
    for (int i = 0; i < RESIZE_TRIES && s == FS_REFUSED && !o->grow && r->detailed && r->guest_possible_pages >= FS_SP_PAGES; i++) {
        if (r->guest_possible_pages < r->pages_before) {
            o->to_pages = r->pages_before - r->guest_possible_pages / FS_SP_PAGES * FS_SP_PAGES;
        }
        s = hv_shrink(d->hv, o, r, words);
    }
    return s;
}

/* A quarter of the guest goes, or comes back, while it writes; what came or went is asked of the machine. */
static fs_status_t resize(struct drill *d, uint64_t seed, bool grow, bool *again, struct fs_error *err)
{
    struct hv_shrink_options o = { .guest = d->coop, .to_pages = grow ? d->coop_pages : d->coop_pages / 4 * 3, .grow = grow, .step_pages = 1024 };
    struct hv_shrink_report r = { 0 };
    struct fs_error words = { "" };
    step_begin(d, seed, grow ? "grow" : "shrink", "");
    fs_status_t s = count_begin(d, &words);
    if (s == FS_OK) {
        s = resize_once(d, &o, &r, &words);
        count_end(d);
    }
    bool pending = journal_pending(d->state_dir), wrong = false;
    d->step.frames_given = !grow && r.pages_before > r.pages_after ? r.pages_before - r.pages_after : 0;
    d->step.frames_taken = grow && r.pages_after > r.pages_before ? r.pages_after - r.pages_before : 0;
    if (s == FS_OK || s == FS_PARTIAL) {
        wrong = grow ? r.pages_after != d->coop_pages || r.limit_after != r.maximum_pages : r.pages_after == d->coop_pages || r.limit_after != r.pages_after;
    }
    *again = d->failed && (wrong || pending || (s != FS_OK && s != FS_PARTIAL));
    if (wrong && !d->failed) {
        char text[160];
        (void)snprintf(text, sizeof(text), "%s of %.60s: it has %" PRIu64 " frames and a limit of %" PRIu64, d->step.name, d->coop,
                       r.pages_after, r.limit_after);
        d->step.faults++;
        step_says(d, text);
    }
    s = step_end(d, s, words.text, !pending, err);
    return s == FS_OK && pending ? recover(d, seed, "", err) : s;
}

static fs_status_t shrink_once(struct drill *d, uint64_t seed, const char *dimm, bool *again, struct fs_error *err)
{
    (void)dimm;
    return resize(d, seed, false, again, err);
}

static fs_status_t grow_once(struct drill *d, uint64_t seed, const char *dimm, bool *again, struct fs_error *err)
{
    (void)dimm;
    return resize(d, seed, true, again, err);
}

typedef fs_status_t (*once_fn)(struct drill *d, uint64_t seed, const char *dimm, bool *again, struct fs_error *err);

/* I3: a failure on purpose happens once, so the second time must be the last. */
static fs_status_t with_failures(struct drill *d, once_fn once, uint64_t seed, const char *dimm, struct fs_error *err)
{
    bool again = false;
    fs_status_t s = once(d, seed, dimm, &again, err);
    if (s == FS_OK && again) {
        s = once(d, seed, dimm, &again, err);
    }
    d->failed = false;
    return s;
}

static fs_status_t run_guests(struct drill *d, uint64_t seed, struct fs_error *err)
{
    struct fs_error words = { "" };
    step_begin(d, seed, "run", "");
    fs_status_t s = d->ops->run(d->rig, &words);
    return step_end(d, s, words.text, true, err);
}

/* ---- one drill ------------------------------------------------------------------------------------------ */

/* The DIMM with the most guest frames; one that holds dom0, or was the last one, only where there is no other. */
static fs_status_t fullest_dimm(struct drill *d, const char *last, char name[HV_NAME_BYTES], struct fs_error *err)
{
    struct hv_status_report r = { 0 };
    uint64_t best = 0;
    fs_status_t s = hv_status(d->hv, &r, err);
    if (s != FS_OK) {
        return s;
    }
    name[0] = '\0';
    for (int pass = 0; pass < 2 && name[0] == '\0'; pass++) {
        for (size_t i = 0; i < r.count; i++) {
            const struct hv_dimm_status *dimm = &r.dimms[i];
            bool bad = strcmp(dimm->name, last) == 0 || dimm->dom0 > 0;
            if (dimm->guests > best && (!bad || pass > 0)) {
                best = dimm->guests;
                (void)snprintf(name, HV_NAME_BYTES, "%s", dimm->name);
            }
        }
    }
    hv_status_free(&r);
    return name[0] != '\0' ? FS_OK : fs_fail(err, FS_NOT_FOUND, "no DIMM holds a guest's frame");
}

static void on_event(void *arg, const struct fs_event *e)
{
    struct drill *d = arg;
    if (interrupted(d)) {
        hv_interrupt(d->hv);
    }
    if (d->o->on_event != NULL) {
        d->o->on_event(d->o->event_arg, e);
    }
}

static fs_status_t boot(struct drill *d, uint64_t seed, struct fs_error *err)
{
    struct hv_config config = { .state_dir = d->state_dir, .on_event = on_event, .event_arg = d, .one_thread = !d->o->threads };
    struct rig_config machine;
    struct hv_backend *be = NULL;
    struct fs_error words = { "" };
    fs_status_t s = drill_config(d->ops, d->o, &machine, &words);
    machine.seed = seed;
    d->coop[0] = '\0';
    for (size_t i = 0; s == FS_OK && i < machine.guest_count && d->coop[0] == '\0'; i++) {
        if (machine.guests[i].kind == RIG_COOP) {
            memcpy(d->coop, machine.guests[i].name, sizeof(d->coop));
            d->coop_pages = machine.guests[i].pages;
        }
    }
    step_begin(d, seed, "boot", "");
    if (s == FS_OK) {
        s = d->ops->open(&machine, &d->rig, &words);
    }
    if (s == FS_OK) {
        s = d->ops->backend(d->rig, &be, &words);
    }
    if (s == FS_OK) {
        s = hv_open_backend(&config, be, &d->hv);
        if (s != FS_OK) {
            be->ops->close(be);
        }
    }
    return step_end(d, s, words.text, s == FS_OK, err);
}

/* I4 */
static fs_status_t shut_down(struct drill *d, uint64_t seed, struct fs_error *err)
{
    step_begin(d, seed, "shutdown", "");
    if (!d->ops->shutdown(d->rig, &d->report->free_pages, &d->report->expected_free_pages)) {
        char text[120];
        d->step.faults++;
        (void)snprintf(text, sizeof(text), "%" PRIu64 " frames are free at the end; before the first guest %" PRIu64 " were", d->report->free_pages,
                       d->report->expected_free_pages);
        step_says(d, text);
    }
    return step_end(d, FS_OK, "", true, err);
}

static fs_status_t one_drill(struct drill *d, uint64_t seed, struct fs_error *err)
{
    char dimm[HV_NAME_BYTES] = "";
    d->calls = 0;
    d->failed = false;
    fs_status_t s = boot(d, seed, err);
    if (s == FS_OK) {
        s = run_guests(d, seed, err);
    }
    if (s == FS_OK && d->coop[0] != '\0') {
        s = with_failures(d, shrink_once, seed, "", err);
        if (s == FS_OK) {
            s = run_guests(d, seed, err);
        }
        if (s == FS_OK) {
            s = with_failures(d, grow_once, seed, "", err);
        }
    }
    for (int round = 0; round < 2 && s == FS_OK; round++) {
        char last[HV_NAME_BYTES];
        memcpy(last, dimm, sizeof(last));
        s = fullest_dimm(d, last, dimm, err);
        if (s == FS_OK) {
            s = with_failures(d, evacuate_once, seed, dimm, err);
        }
        if (s == FS_OK) {
            s = run_guests(d, seed, err);
        }
        if (s == FS_OK) {
            s = with_failures(d, online_once, seed, dimm, err);
        }
        if (s == FS_OK && round == 0) {
            s = run_guests(d, seed, err);
        }
    }
    if (s == FS_OK) {
        s = shut_down(d, seed, err);
    }
    hv_close(d->hv);
    d->ops->close(d->rig);
    d->hv = NULL;
    d->rig = NULL;
    return s;
}

/* ---- all of them ------------------------------------------------------------------------------------------ */

/* The journal syncs at each step: in memory that is free, and a drill has nothing to keep over a power cut. */
static fs_status_t own_dir(char *dir, size_t bytes, struct fs_error *err)
{
    const char *tmp = getenv("TMPDIR");
    const char *const places[] = { "/dev/shm", tmp != NULL ? tmp : "/tmp", "/tmp" };
    for (size_t i = 0; i < FS_ARRAY_SIZE(places); i++) {
        int n = snprintf(dir, bytes, "%s/frameshift-drill-XXXXXX", places[i]);
        if (n > 0 && (size_t)n < bytes && mkdtemp(dir) != NULL) {
            return FS_OK;
        }
    }
    return fs_fail(err, FS_IO, "no folder for the drill's journal: %s; name one with --state-dir", strerror(errno));
}

static void remove_dir(const char *dir)
{
    static const char *const files[] = { "journal", "lock", "shrunk" };
    char path[320];
    for (size_t i = 0; i < FS_ARRAY_SIZE(files); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", dir, files[i]);
        (void)unlink(path);
    }
    (void)rmdir(dir);
}

fs_status_t drill_run(const struct rig_ops *rig, const struct hv_drill_options *o, struct hv_drill_report *out, struct fs_error *err)
{
    struct drill d = { .ops = rig, .o = o, .report = out };
    struct rig_config unused;
    char dir[256] = "";
    uint64_t first = o->seed == 0 ? 1 : o->seed, seeds = o->seeds == 0 ? 1 : o->seeds, since = now_ns();
    memset(out, 0, sizeof(*out));
    fs_status_t s = drill_config(rig, o, &unused, err), verdict = FS_OK;
    if (s == FS_OK && o->state_dir == NULL) {
        s = own_dir(dir, sizeof(dir), err);
    }
    if (s != FS_OK) {
        return s;
    }
    d.state_dir = o->state_dir != NULL ? o->state_dir : dir;
    for (uint64_t i = 0; i < seeds && s != FS_INTERRUPTED; i++) {
        struct fs_error words = { "" };
        s = one_drill(&d, first + i, &words);
        out->seeds++;
        if (s == FS_OK) {
            continue;
        }
        out->seeds_failed += s != FS_INTERRUPTED;
        if (verdict == FS_OK) {
            verdict = fs_fail(err, s, "%s", words.text);
            out->first_failed_seed = s != FS_INTERRUPTED ? first + i : 0;
        }
        if (o->state_dir != NULL && journal_pending(d.state_dir)) {
            break;                      /* that journal is of a machine that is gone: the caller looks at it */
        }
        if (o->state_dir == NULL) {
            remove_dir(dir);
            s = s == FS_INTERRUPTED ? s : own_dir(dir, sizeof(dir), &words);
            if (s != FS_OK) {
                break;
            }
        }
    }
    if (o->state_dir == NULL) {
        remove_dir(dir);
    }
    out->ns = now_ns() - since;
    return verdict;
}

fs_status_t hv_drill(const struct hv_drill_options *options, struct hv_drill_report *out, struct fs_error *err)
{
    return drill_run(&hv_embedded_rig, options, out, err);
}
