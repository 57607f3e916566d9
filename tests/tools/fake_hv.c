/*
 * fake_hv.c - hv.h with canned answers, so that the whole CLI runs without a machine.
 *
 * Owns: the scenario, taken from FAKE_HV: a comma-separated list of words.
 *   noxen refuse ok corrupt recover-due   what the calls answer
 *   slow     an evacuation takes until it is interrupted (10 s at most) and says so
 *   flood    100,000 events as fast as they come
 *   killed   hv_recover finds something
 * Linked into build/tests/tools/frameshift-fake only.  It links before the engine's
 * archive, so that only names and statuses come from the real one.
 */
#include "hv.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../../tools/drill/coop_rig.h"
#include "canned.h"

struct hv {
    struct hv_config config;
    volatile sig_atomic_t interrupted;
};

static bool scenario(const char *word)
{
    const char *s = getenv("FAKE_HV");
    size_t n = strlen(word);

    for (; s && *s; s = strchr(s, ',') ? strchr(s, ',') + 1 : NULL) {
        if (strncmp(s, word, n) == 0 && (s[n] == ',' || s[n] == '\0')) {
            return true;
        }
    }
    return false;
}

static void event(struct hv *hv, enum fs_event_id id, uint16_t domid, uint64_t a, uint64_t b, const char *note)
{
    struct fs_event e = { .id = id, .domid = domid, .time_ns = 1, .a = a, .b = b, .note = note };

    if (hv->config.on_event) {
        hv->config.on_event(hv->config.event_arg, &e);
    }
}

fs_status_t hv_open(const struct hv_config *config, struct hv **out, struct fs_error *err)
{
    if (scenario("noxen")) {
        return fs_fail(err, FS_NO_XEN, "/proc/xen/privcmd is missing: this is not dom0 of a Xen host; boot Xen and try again");
    }
    if (strcmp(config->machine, "xen") != 0) {
        return fs_fail(err, FS_UNSUPPORTED, "machine %s", config->machine);
    }
    *out = calloc(1, sizeof(**out));
    if (!*out) {
        return fs_fail(err, FS_NO_MEMORY, "no memory");
    }
    (*out)->config = *config;
    return FS_OK;
}

void hv_close(struct hv *hv) { free(hv); }
void hv_interrupt(struct hv *hv) { hv->interrupted = 1; }

fs_status_t hv_domain_find(struct hv *hv, const char *who, uint16_t *domid, struct fs_error *err)
{
    (void)hv;
    if (strcmp(who, "pv1") == 0 || strcmp(who, "1") == 0) {
        *domid = 1;
        return FS_OK;
    }
    return fs_fail(err, FS_NOT_FOUND, "no domain '%s'; there are pv1 (1)", who);
}

fs_status_t hv_topology(struct hv *hv, struct hv_topology *out, struct fs_error *err)
{
    (void)hv;
    (void)err;
    canned_topology(out);
    return FS_OK;
}

void hv_topology_free(struct hv_topology *t)
{
    for (size_t i = 0; i < t->count; i++) {
        free(t->dimms[i].ranges.ranges);
    }
    free(t->dimms);
    *t = (struct hv_topology){ 0 };
}

void hv_plan_free(struct hv_plan *p)
{
    free(p->ranges.ranges);
    free(p->domains);
    free(p->blockers);
    memset(p, 0, sizeof(*p));
}

/* Until hv_interrupt(), or for ten seconds: then the test has failed, and says so by the status. */
static fs_status_t run_slowly(struct hv *hv, struct hv_report *out, struct fs_error *err)
{
    const struct timespec step = { .tv_nsec = 20000000 };

    for (uint64_t i = 0; i < 500 && !hv->interrupted; i++) {
        event(hv, EV_COPY, 1, i * 100, 65524, NULL);
        (void)nanosleep(&step, NULL);
    }
    out->frames_moved = 0;
    return hv->interrupted ? fs_fail(err, FS_INTERRUPTED, "stopped by a signal; rolled back: nothing has moved")
                           : fs_fail(err, FS_IO, "nobody interrupted");
}

fs_status_t hv_evacuate(struct hv *hv, const struct hv_evacuate_options *o, struct hv_report *out, struct fs_error *err)
{
    if (strcmp(o->target, "NODE1") != 0) {
        return fs_fail(err, FS_NOT_FOUND, "no DIMM '%s'; there are NODE0, NODE1", o->target);
    }
    canned_report(out);
    event(hv, EV_PLAN_BEGIN, FS_DOMID_NONE, out->plan.counts.total, out->plan.domain_count, NULL);
    event(hv, EV_PLAN_END, FS_DOMID_NONE, out->plan.room_needed_pages, out->plan.blocker_count, NULL);
    if (scenario("refuse")) {
        out->plan.refusal_status = FS_NO_ROOM;
        out->plan.room_missing_pages = 1234;
        (void)snprintf(out->plan.refusal, sizeof(out->plan.refusal), "1234 frames are missing elsewhere; shrink guests (`xl mem-set`)");
    }
    if (o->on_plan) {
        o->on_plan(o->plan_arg, &out->plan);
    }
    if (o->dry_run) {
        return FS_OK;
    }
    if (scenario("refuse")) {
        out->frames_moved = 0;
        return fs_fail(err, FS_NO_ROOM, "%s", out->plan.refusal);
    }
    if (o->make_room && (out->made_room = calloc(1, sizeof(*out->made_room))) != NULL) {
        canned_shrink(out->made_room, false, 32768);
        out->made_room_count = 1;
    }
    event(hv, EV_WARNING, 2, 1, 2, "bad \x1b[31m words");
    for (uint64_t i = 0; scenario("flood") && i < 100000; i++) {
        event(hv, EV_PAUSE, 3, i, 64, NULL);
    }
    if (scenario("slow")) {
        return run_slowly(hv, out, err);
    }
    event(hv, EV_RESUME, 1, 654321000, 65524, NULL);
    for (size_t i = 0; i < o->exclude_count; i++) {
        event(hv, EV_WARNING, o->exclude[i], 0, 0, "excluded");
    }
    if (scenario("ok")) {
        out->blocker_count = 0;
        out->frames_blocked = 0;
        out->frames_offlined = out->frames_total;
        return FS_OK;
    }
    return scenario("corrupt") ? fs_fail(err, FS_CORRUPT, "1 page differs") : FS_PARTIAL;
}

void hv_report_free(struct hv_report *r)
{
    hv_plan_free(&r->plan);
    free(r->domains);
    free(r->blockers);
    free(r->made_room);
    memset(r, 0, sizeof(*r));
}

fs_status_t hv_status(struct hv *hv, struct hv_status_report *out, struct fs_error *err)
{
    (void)hv;
    (void)err;
    canned_status(out);
    out->recovery_due = scenario("recover-due");
    return FS_OK;
}

void hv_status_free(struct hv_status_report *s)
{
    free(s->dimms);
    *s = (struct hv_status_report){ 0 };
}

fs_status_t hv_online(struct hv *hv, const char *target, uint64_t *onlined_pages, struct fs_error *err)
{
    (void)hv;
    *onlined_pages = 262144;
    return strcmp(target, "NODE1") == 0 ? FS_OK : fs_fail(err, FS_NOT_FOUND, "no DIMM '%s'", target);
}

/* "refuse": it lives on more; "partial": half of it; "slow": until it is interrupted. */
fs_status_t hv_shrink(struct hv *hv, const struct hv_shrink_options *o, struct hv_shrink_report *out, struct fs_error *err)
{
    fs_status_t s = FS_OK;

    if (strcmp(o->guest, "pv1") != 0) {
        return fs_fail(err, FS_NOT_FOUND, "no domain '%s'; there are pv1 (1)", o->guest);
    }
    canned_shrink(out, o->grow, o->to_pages);
    out->dry_run = o->dry_run;
    if (scenario("refuse")) {
        out->plan_pages = 0;
        return fs_fail(err, FS_REFUSED, "pv1 lives on 200 MiB or more; nothing was changed");
    }
    if (o->dry_run) {
        return FS_OK;
    }
    for (uint64_t i = 0; i < 500 && scenario("slow") && !hv->interrupted; i++) {
        const struct timespec step = { .tv_nsec = 20000000 };
        event(hv, o->grow ? EV_GROW : EV_SHRINK, 1, i, out->plan_pages, NULL);
        (void)nanosleep(&step, NULL);
    }
    event(hv, o->grow ? EV_GROW : EV_SHRINK, 1, out->plan_pages, out->plan_pages, NULL);
    if (hv->interrupted) {
        s = fs_fail(err, FS_INTERRUPTED, "stopped by a signal: pv1 has 256.0 MiB now; the same command goes on from there");
    } else if (scenario("partial")) {
        s = fs_fail(err, FS_PARTIAL, "pv1 needs what it still has");
    }
    return s;
}

fs_status_t hv_meminfo(struct hv *hv, const char *guest, const struct hv_meminfo_want *wants, size_t count, struct hv_meminfo *out, struct fs_error *err)
{
    (void)hv;
    *out = (struct hv_meminfo){ .domid = FS_DOMID_NONE };
    if (strcmp(guest, "pv1") != 0) {
        return fs_fail(err, FS_NOT_FOUND, "no domain '%s'; there are pv1 (1)", guest);
    }
    for (size_t i = 0; i < count; i++) {
        if (strcmp(wants[i].name, "extfrag_threshold") != 0 || wants[i].value > 1000) {
            return fs_fail(err, FS_REFUSED, "pv1 has no setting called %s, or it does not take %llu; nothing was set", wants[i].name,
                           (unsigned long long)wants[i].value);
        }
    }
    canned_meminfo(out);
    for (size_t i = 0; i < count; i++) {
        out->sets[out->set_count] = (struct hv_meminfo_set){ .before = 500, .after = wants[i].value };
        (void)snprintf(out->sets[out->set_count++].name, sizeof(out->sets[0].name), "%s", wants[i].name);
    }
    return FS_OK;
}

void hv_meminfo_free(struct hv_meminfo *m)
{
    free(m->zones);
    free(m->counters);
    free(m->tunables);
    *m = (struct hv_meminfo){ .domid = FS_DOMID_NONE };
}

fs_status_t hv_grow_back(struct hv *hv, struct hv_shrink_report **list, size_t *count, struct fs_error *err)
{
    (void)hv;
    *count = 0;
    *list = calloc(1, sizeof(**list));
    if (!*list) {
        return fs_fail(err, FS_NO_MEMORY, "no memory");
    }
    canned_shrink(*list, true, 65536);
    *count = 1;
    return FS_OK;
}

fs_status_t hv_fsck(struct hv *hv, uint16_t domid, bool pause, struct hv_fsck_report *out, struct fs_error *err)
{
    (void)hv;
    (void)domid;
    (void)err;
    canned_fsck(out, pause);
    out->fault_count = scenario("corrupt") ? out->fault_count : 0;
    return FS_OK;
}

void hv_fsck_free(struct hv_fsck_report *r)
{
    free(r->faults);
    *r = (struct hv_fsck_report){ 0 };
}

fs_status_t hv_recover(struct hv *hv, struct hv_recover_report *out, struct fs_error *err)
{
    (void)hv;
    (void)err;
    *out = (struct hv_recover_report){ 0 };
    if (scenario("killed")) {
        out->needed = true;
        out->domains_finished = 1;
        out->frames_released = 65524;
        (void)snprintf(out->text, sizeof(out->text), "pv1 was switched; finished");
    }
    return FS_OK;
}

const struct emb_kernel_ops *coop_rig_ops(void) { return NULL; }

/* One evacuation of a drill; "corrupt" finds a fault in it. */
fs_status_t hv_drill(const struct hv_drill_options *o, struct hv_drill_report *out, struct fs_error *err)
{
    struct hv_status_report machine;
    struct hv_report r;
    struct hv_drill_step step;

    canned_status(&machine);
    canned_drill_step(&step, scenario("corrupt"));
    step.machine = &machine;
    canned_drill(out, scenario("corrupt"));
    canned_report(&r);
    if (o->on.on_plan) {
        o->on.on_plan(o->on.arg, &r.plan);
    }
    if (o->on_event) {
        struct fs_event e = { .id = EV_RESUME, .domid = 1, .a = 5, .b = 6 };
        o->on_event(o->event_arg, &e);
    }
    o->on.on_report(o->on.arg, step.dimm, &r, FS_PARTIAL, "");
    for (uint32_t i = 0; i < (o->seeds ? o->seeds : 1); i++) {
        step.seed = (o->seed ? o->seed : 1) + i;
        o->on.on_step(o->on.arg, &step);
    }
    hv_report_free(&r);
    hv_status_free(&machine);
    return scenario("corrupt") ? fs_fail(err, FS_CORRUPT, "seed 1, evacuate NODE1: 2 faults: %s", step.text) : FS_OK;
}

fs_status_t hv_version(struct hv *hv, char *out, size_t bytes, struct fs_error *err)
{
    (void)hv;
    (void)err;
    (void)snprintf(out, bytes, "Xen 4.17.7-pre");
    return FS_OK;
}
