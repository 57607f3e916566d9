/*
 * test_evacuate.c - whole evacuations on the embedded machine: rounds, refusals, kills at each journal record, ballooning.
 * (test_emb_evacuate.c has failures, kills and deaths at every backend call.)
 *
 * Each case builds a machine with guests, runs the engine through hv.h as the CLI does, and lets the machine's own judge
 * decide: every byte of every guest, every count of every frame, pauses and max_pages as before, free frames balanced.
 *   - straight: three evacuations in a row to different nodes, with verify, online again, frames balanced
 *   - refusals that change nothing: dry run, no room, a guest that will not suspend
 *   - kill -9 after each journal record; then recover, then a clean evacuation; recovery killed as well
 *   - a guest that balloons before every n-th backend call (STRIDE in the environment; 1: every call)
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "embedded/embedded.h"
#include "hv_priv.h"

#define GUESTS_MAX 4

struct world {
    struct emb_machine *m;
    uint16_t ids[GUESTS_MAX];
    uint64_t max_pages[GUESTS_MAX];
    unsigned count;
    uint64_t offered;           /* frames under a grant that nobody uses: they stay as well */
    char dir[64];
};

static void world_open(struct world *w, bool pv, bool hap, uint64_t seed)
{
    struct emb_config config = { .node_count = 3, .seed = seed };
    memset(w, 0, sizeof(*w));
    for (unsigned i = 0; i < 3; i++) {
        config.nodes[i].pages = 4096;
    }
    w->m = emb_machine_create(&config);
    assert_non_null(w->m);
    uint16_t dom0;
    struct emb_domain_config c0 = { .kind = HV_DOMAIN_CONTROL, .name = "Domain-0", .pages = 256, .vcpus = 2, .seed = seed };
    assert_int_equal(emb_domain_create(w->m, &c0, &dom0), 0);
    struct emb_domain_config c1 = { .kind = HV_DOMAIN_PV, .name = "pv1", .pages = 1024, .vcpus = 2, .seed = seed + 1, .node = 1,
                                    .processes = 2, .grants_mapped = 1, .grants_offered = 1, .offline_vcpus = 0 };
    struct emb_domain_config c2 = { .kind = HV_DOMAIN_HAP, .name = "pvh1", .pages = 1024, .vcpus = 2, .seed = seed + 2, .node = 1 };
    if (pv) {
        assert_int_equal(emb_domain_create(w->m, &c1, &w->ids[w->count++]), 0);
        w->offered = 1;
    }
    if (hap) {
        assert_int_equal(emb_domain_create(w->m, &c2, &w->ids[w->count++]), 0);
    }
    for (unsigned i = 0; i < w->count; i++) {
        w->max_pages[i] = emb_domain_max_pages(w->m, w->ids[i]);
    }
    snprintf(w->dir, sizeof(w->dir), "/tmp/fs-evac-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    assert_int_equal(chmod(w->dir, 0700), 0);
}

static void world_close(struct world *w)
{
    char command[128];
    emb_machine_destroy(w->m);
    snprintf(command, sizeof(command), "rm -rf %s", w->dir);
    assert_int_equal(system(command), 0);
}

/* The judge. */
static void world_check(struct world *w, const char *when)
{
    emb_fault_arm(w->m, NULL);
    if (emb_fsck(w->m, stderr) != 0) {
        fail_msg("%s: the machine's fsck found faults", when);
    }
    for (unsigned i = 0; i < w->count; i++) {
        if (!emb_guest_alive(w->m, w->ids[i]) || emb_domain_pause_count(w->m, w->ids[i]) != 0) {
            fail_msg("%s: domain %u does not run", when, w->ids[i]);
        }
        emb_guest_run(w->m, w->ids[i], 50);
        if (emb_guest_check(w->m, w->ids[i], stderr) != 0) {
            fail_msg("%s: domain %u has wrong bytes", when, w->ids[i]);
        }
        if (emb_domain_max_pages(w->m, w->ids[i]) != w->max_pages[i]) {
            fail_msg("%s: domain %u's max_pages is %llu, was %llu", when, w->ids[i],
                     (unsigned long long)emb_domain_max_pages(w->m, w->ids[i]), (unsigned long long)w->max_pages[i]);
        }
    }
}

static struct hv *world_hv(struct world *w)
{
    struct hv_config config = { .state_dir = w->dir };
    struct hv *hv;
    assert_int_equal(hv_open_backend(&config, emb_backend(w->m), &hv), FS_OK);
    return hv;
}

static fs_status_t evacuate(struct world *w, const struct hv_evacuate_options *options, struct hv_report *report)
{
    struct fs_error err = { "" };
    struct hv *hv = world_hv(w);
    fs_status_t s = hv_evacuate(hv, options, report, &err);
    hv_close(hv);
    return s;
}

static uint64_t frames_left(struct world *w, uint32_t node, uint64_t *held)
{
    uint64_t left = 0, h = 0;
    *held = 0;
    for (unsigned i = 0; i < w->count; i++) {
        left += emb_guest_frames_in(w->m, w->ids[i], emb_node_range(w->m, node), &h);
        *held += h;
    }
    return left;
}

static fs_status_t recover(struct world *w)
{
    struct hv_recover_report r;
    struct fs_error err = { "" };
    struct hv *hv = world_hv(w);
    fs_status_t s = hv_recover(hv, &r, &err);
    hv_close(hv);
    if (s != FS_OK) {
        fprintf(stderr, "recover: %s: %s\n", fs_status_name(s), err.text);
    }
    return s;
}

static void online(struct world *w, const char *target)
{
    uint64_t pages;
    struct fs_error err = { "" };
    struct hv *hv = world_hv(w);
    assert_int_equal(hv_online(hv, target, &pages, &err), FS_OK);
    hv_close(hv);
}

/* A clean evacuation must succeed now and leave only held frames. */
static void evacuate_clean(struct world *w, const char *target, uint32_t node, const char *when)
{
    struct hv_evacuate_options options = { .target = target, .verify = true };
    struct hv_report report;
    fs_status_t s = evacuate(w, &options, &report);
    uint64_t held, left = frames_left(w, node, &held);
    if (s != FS_PARTIAL && s != FS_OK) {
        fail_msg("%s: a clean evacuation ended with %s", when, fs_status_name(s));
    }
    for (size_t i = 0; i < report.domain_count; i++) {
        if (report.domains[i].status != FS_OK) {
            fail_msg("%s: domain %u: %s: %s", when, report.domains[i].plan.domid, fs_status_name(report.domains[i].status),
                     report.domains[i].error);
        }
    }
    if (left > held + w->offered) {
        fail_msg("%s: %llu frames of guests stay, %llu of them are held", when, (unsigned long long)left, (unsigned long long)held);
    }
    assert_true(report.verified);
    assert_int_equal(report.frames_total, report.frames_offlined + report.frames_blocked);
    hv_report_free(&report);
    world_check(w, when);
}

static unsigned stride(unsigned least)
{
    const char *s = getenv("STRIDE");
    return s != NULL && atoi(s) > 0 ? (unsigned)atoi(s) : least;
}

/* ---- straight ---------------------------------------------------------------------- */

static void straight(bool pv, bool hap)
{
    for (uint64_t seed = 1; seed <= 5; seed++) {
        struct world w;
        world_open(&w, pv, hap, seed * 100);
        uint64_t free_before = emb_free_pages(w.m);
        evacuate_clean(&w, "NODE1", 1, "first");
        online(&w, "NODE1");
        evacuate_clean(&w, "NODE2", 2, "second");
        online(&w, "NODE2");
        evacuate_clean(&w, "NODE1", 1, "third");
        online(&w, "NODE1");
        assert_int_equal(emb_free_pages(w.m), free_before);
        world_check(&w, "online");
        world_close(&w);
    }
}

static void test_straight_pv(void **state) { (void)state; straight(true, false); }
static void test_straight_hap(void **state) { (void)state; straight(false, true); }
static void test_straight_both(void **state) { (void)state; straight(true, true); }

static void test_dry_run_changes_nothing(void **state)
{
    (void)state;
    struct world w;
    struct hv_report report;
    struct hv_evacuate_options options = { .target = "NODE1", .dry_run = true };
    world_open(&w, true, true, 7);
    uint64_t free_before = emb_free_pages(w.m);
    assert_int_equal(evacuate(&w, &options, &report), FS_OK);
    assert_true(report.plan.room_needed_pages > 1000);
    hv_report_free(&report);
    assert_int_equal(emb_free_pages(w.m), free_before);
    world_check(&w, "dry run");
    world_close(&w);
}

static void test_max_blackout_splits(void **state)
{
    (void)state;
    struct world w;
    struct hv_report report;
    struct hv_evacuate_options options = { .target = "NODE1", .verify = true, .max_blackout_ns = 1 };
    world_open(&w, true, false, 8);
    fs_status_t s = evacuate(&w, &options, &report);
    assert_true(s == FS_PARTIAL || s == FS_OK);
    uint64_t held, left = frames_left(&w, 1, &held);
    assert_true(left <= held + w.offered);
    hv_report_free(&report);
    world_check(&w, "max blackout");
    world_close(&w);
}

static void test_no_room_is_refused_before_anything(void **state)
{
    (void)state;
    struct world w;
    struct hv_report report;
    struct hv_evacuate_options options = { .target = "NODE1" };
    world_open(&w, true, false, 9);
    struct emb_domain_config big = { .kind = HV_DOMAIN_HAP, .name = "big", .pages = 3400, .vcpus = 1, .seed = 4, .node = 2 };
    struct emb_domain_config big0 = { .kind = HV_DOMAIN_HAP, .name = "big0", .pages = 2600, .vcpus = 1, .seed = 4, .node = 0 };
    assert_int_equal(emb_domain_create(w.m, &big, &w.ids[w.count++]), 0);
    assert_int_equal(emb_domain_create(w.m, &big0, &w.ids[w.count++]), 0);
    w.max_pages[1] = emb_domain_max_pages(w.m, w.ids[1]);
    w.max_pages[2] = emb_domain_max_pages(w.m, w.ids[2]);
    uint64_t free_before = emb_free_pages(w.m);
    assert_int_equal(evacuate(&w, &options, &report), FS_NO_ROOM);
    assert_true(report.plan.room_missing_pages > 0);
    hv_report_free(&report);
    assert_int_equal(emb_free_pages(w.m), free_before);
    assert_false(journal_pending(w.dir));
    world_check(&w, "no room");
    world_close(&w);
}

static void test_guest_that_wont_suspend(void **state)
{
    (void)state;
    struct world w;
    struct hv_report report;
    struct hv_evacuate_options options = { .target = "NODE1", .suspend_timeout_ns = 1000000 };
    world_open(&w, true, false, 10);
    struct emb_domain_config deaf = { .kind = HV_DOMAIN_PV, .name = "deaf", .pages = 512, .vcpus = 1, .seed = 4, .node = 1,
                                      .wont_suspend = true };
    assert_int_equal(emb_domain_create(w.m, &deaf, &w.ids[w.count]), 0);
    w.max_pages[w.count] = emb_domain_max_pages(w.m, w.ids[w.count]);
    w.count++;
    assert_int_equal(evacuate(&w, &options, &report), FS_PARTIAL);
    uint64_t held, left = emb_guest_frames_in(w.m, w.ids[0], emb_node_range(w.m, 1), &held);
    assert_true(left <= held + w.offered);
    assert_true(emb_guest_frames_in(w.m, w.ids[1], emb_node_range(w.m, 1), &held) >= 512);
    unsigned refused = 0;
    for (size_t i = 0; i < report.blocker_count; i++) {
        refused += report.blockers[i].domid == w.ids[1] && report.blockers[i].reason == FS_REASON_GUEST_REFUSED;
    }
    assert_true(refused >= 512);
    hv_report_free(&report);
    world_check(&w, "deaf");
    world_close(&w);
}

static uint64_t calls_of_a_run(bool pv, bool hap)
{
    struct world w;
    struct hv_report report;
    struct hv_evacuate_options options = { .target = "NODE1", .verify = true };
    world_open(&w, pv, hap, 42);
    emb_fault_arm(w.m, NULL);
    (void)!evacuate(&w, &options, &report);
    uint64_t calls = emb_fault_calls(w.m);
    hv_report_free(&report);
    world_close(&w);
    assert_true(calls > 50);
    return calls;
}

/* ---- kills ----------------------------------------------------------------------------- */

static void kill_hook(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    (void)arg;
    (void)m;
    (void)op;
    (void)call;
    raise(SIGKILL);
}

/* Evacuate in a child; true if it was killed. */
static bool evacuate_in_child(struct world *w, const struct hv_evacuate_options *options)
{
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct hv_report report;
        (void)!evacuate(w, options, &report);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    emb_machine_reap(w->m);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

static void check_recovery(struct world *w, uint64_t free_before, const char *when)
{
    emb_fault_arm(w->m, NULL);
    struct hv_evacuate_options options = { .target = "NODE1" };
    struct hv_report report;
    if (journal_pending(w->dir)) {
        assert_int_equal(evacuate(w, &options, &report), FS_BUSY);      /* nothing else may begin before */
        hv_report_free(&report);
    }
    if (recover(w) != FS_OK) {
        fail_msg("%s: recover failed", when);
    }
    assert_false(journal_pending(w->dir));
    world_check(w, when);
    online(w, "NODE1");
    if (emb_free_pages(w->m) != free_before) {
        fail_msg("%s: %lld frames lost", when, (long long)(free_before - emb_free_pages(w->m)));
    }
    evacuate_clean(w, "NODE1", 1, when);
}

static void kill_at_records(bool pv, bool hap)
{
    for (uint32_t n = 1; n < 500; n++) {
        struct world w;
        char when[64];
        struct hv_evacuate_options options = { .target = "NODE1", .crash_at = n };
        world_open(&w, pv, hap, 77 + n);
        uint64_t free_before = emb_free_pages(w.m);
        bool killed = evacuate_in_child(&w, &options);
        snprintf(when, sizeof(when), "killed at record %u", n);
        if (killed) {
            check_recovery(&w, free_before, when);
        }
        world_close(&w);
        if (!killed) {
            assert_true(n > 8);
            return;
        }
    }
    fail_msg("the evacuation never ended");
}

static void test_kill_at_records_pv(void **state) { (void)state; kill_at_records(true, false); }
static void test_kill_at_records_hap(void **state) { (void)state; kill_at_records(false, true); }

/* Recovery may be killed as well. */
static void test_kill_recovery(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        for (uint64_t n = 1; n < 200; n += stride(3)) {
            struct world w;
            char when[64];
            struct hv_evacuate_options options = { .target = "NODE1", .crash_at = 11 };
            struct emb_fault_plan plan = { .hook_call = n, .hook = kill_hook };
            world_open(&w, kind == 0, kind == 1, 5);
            uint64_t free_before = emb_free_pages(w.m);
            if (!evacuate_in_child(&w, &options)) {
                world_close(&w);
                break;
            }
            emb_fault_arm(w.m, &plan);
            fflush(NULL);
            pid_t pid = fork();
            if (pid == 0) {
                (void)!recover(&w);
                _exit(0);
            }
            int status;
            assert_int_equal(waitpid(pid, &status, 0), pid);
            emb_machine_reap(w.m);
            snprintf(when, sizeof(when), "recovery killed before call %llu", (unsigned long long)n);
            check_recovery(&w, free_before, when);
            world_close(&w);
            if (!WIFSIGNALED(status)) {
                break;
            }
        }
    }
}

/* ---- guests that change meanwhile ----------------------------------------------------------- */

static void balloon_hook(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    const uint16_t *domid = arg;
    (void)op;
    (void)call;
    emb_guest_balloon_out_of(m, *domid, emb_node_range(m, 1));
    emb_guest_run(m, *domid, 20);
}

static void balloon_at_calls(bool pv)
{
    uint64_t calls = calls_of_a_run(pv, !pv);
    for (uint64_t n = 1; n <= calls; n += stride(5)) {
        struct world w;
        struct hv_report report;
        char when[64];
        struct hv_evacuate_options options = { .target = "NODE1", .verify = true };
        world_open(&w, pv, !pv, 42);
        struct emb_fault_plan plan = { .hook_call = n, .hook = balloon_hook, .hook_arg = &w.ids[0] };
        emb_fault_arm(w.m, &plan);
        fs_status_t s = evacuate(&w, &options, &report);
        snprintf(when, sizeof(when), "ballooned before call %llu (%s)", (unsigned long long)n, fs_status_name(s));
        hv_report_free(&report);
        emb_fault_arm(w.m, NULL);
        if (journal_pending(w.dir) && recover(&w) != FS_OK) {
            fail_msg("%s: recover failed", when);
        }
        world_check(&w, when);
        world_close(&w);
    }
}

static void test_ballooning_pv(void **state) { (void)state; balloon_at_calls(true); }
static void test_ballooning_hap(void **state) { (void)state; balloon_at_calls(false); }

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_straight_pv),
        cmocka_unit_test(test_dry_run_changes_nothing),
        cmocka_unit_test(test_max_blackout_splits),
        cmocka_unit_test(test_no_room_is_refused_before_anything),
        cmocka_unit_test(test_guest_that_wont_suspend),
        cmocka_unit_test(test_kill_at_records_pv),
        cmocka_unit_test(test_ballooning_pv),
        cmocka_unit_test(test_straight_hap),
        cmocka_unit_test(test_straight_both),
        cmocka_unit_test(test_kill_at_records_hap),
        cmocka_unit_test(test_ballooning_hap),
        cmocka_unit_test(test_kill_recovery),
    };
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
