/*
 * test_emb_evacuate.c - whole evacuations on the embedded machine, undisturbed and disturbed at every call.
 *
 * After each run, whatever was done to it: every guest lives (unless it was destroyed), holds
 * every byte that it should, and every count of the machine is right.  Where the engine says that recovery is
 * due, recovery must bring that about.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "embedded/emb_backend.h"
#include "embedded/embedded.h"
#include "hv_priv.h"

#define NODE_PAGES 8192u
#define GUEST_PAGES 1536u

/* Which calls are disturbed: every STRIDE-th (environment; 1 takes minutes), from a start that covers the first ones. */
static uint64_t stride(void)
{
    const char *text = getenv("STRIDE");
    uint64_t n = text ? strtoull(text, NULL, 10) : 9;
    return n ? n : 1;
}

struct world {
    struct emb_machine *m;
    uint16_t domid;
    char dir[64];
    uint64_t seed;
    uint64_t max_pages;
};

static void world_make(struct world *w, uint64_t seed, enum hv_domain_kind kind)
{
    struct emb_config c = { .nodes = { { NODE_PAGES, 0 }, { NODE_PAGES, 0 }, { NODE_PAGES, 0 } }, .node_count = 3, .seed = seed, .anon_pages = 4 };
    struct emb_domain_config g = { .kind = kind, .name = "guest", .pages = GUEST_PAGES, .vcpus = 1 + (uint32_t)seed % 2, .seed = seed, .node = 1,
                                   .processes = 2, .grants_mapped = 1 };
    /* The journal syncs at each step; what it survives here is a killed process, not a power cut. */
    *w = (struct world){ .dir = "/dev/shm/emb-evac-XXXXXX", .seed = seed };
    assert_non_null(mkdtemp(w->dir));
    w->m = emb_machine_create(&c);
    assert_non_null(w->m);
    assert_int_equal(emb_domain_create(w->m, &g, &w->domid), 0);
    w->max_pages = emb_domain_max_pages(w->m, w->domid);
    assert_true(emb_guest_run(w->m, w->domid, 100) > 0);
}

static void world_end(struct world *w)
{
    char cmd[96];
    emb_machine_destroy(w->m);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", w->dir);
    assert_int_equal(system(cmd), 0);
}

static void hv_bind(struct hv *hv, struct world *w)
{
    *hv = (struct hv){ .be = emb_backend(w->m), .state_dir = w->dir };
    assert_non_null(hv->be);
}

static fs_status_t evacuate(struct world *w, const char *target, struct hv_report *report, struct fs_error *err)
{
    struct hv hv;
    struct hv_evacuate_options o = { .target = target, .verify = true };
    hv_bind(&hv, w);
    fs_status_t s = hv_evacuate(&hv, &o, report, err);
    hv.be->ops->close(hv.be);
    return s;
}

static fs_status_t recover(struct world *w, struct fs_error *err)
{
    struct hv hv;
    struct hv_recover_report r;
    hv_bind(&hv, w);
    fs_status_t s = hv_recover(&hv, &r, err);
    hv.be->ops->close(hv.be);
    return s;
}

#define sane(w, ...) sane_at((w), __LINE__, __VA_ARGS__)
static void sane_at(struct world *w, int line, const char *what, uint64_t n, bool gone)
{
    uint64_t faults = emb_fsck(w->m, stderr);
    if (!gone) {
        faults += emb_guest_check(w->m, w->domid, stderr);
        if (!emb_guest_alive(w->m, w->domid)) {
            fprintf(stderr, "the guest does not run\n");
            faults++;
        } else if (emb_guest_run(w->m, w->domid, 50) == 0 || emb_guest_check(w->m, w->domid, stderr) != 0) {
            fprintf(stderr, "the guest does not run on\n");
            faults++;
        }
        if (emb_domain_max_pages(w->m, w->domid) != w->max_pages) {
            fprintf(stderr, "its limit was %llu and is %llu\n", (unsigned long long)w->max_pages, (unsigned long long)emb_domain_max_pages(w->m, w->domid));
            faults++;
        }
    }
    if (faults) {
        fail_msg("line %d: seed %llu, %s %llu: %llu faults", line, (unsigned long long)w->seed, what, (unsigned long long)n, (unsigned long long)faults);
    }
}

static void undisturbed(enum hv_domain_kind kind)
{
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct world w;
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        uint64_t held;
        world_make(&w, seed, kind);
        uint64_t before = emb_guest_frames_in(w.m, w.domid, emb_node_range(w.m, 1), &held);
        fs_status_t s = evacuate(&w, "NODE1", &r, &err);
        if (s != FS_PARTIAL) {
            fail_msg("seed %llu: %s: %s", (unsigned long long)seed, fs_status_name(s), err.text);
        }
        sane(&w, "undisturbed", 0, false);
        assert_int_equal(r.frames_moved, before - held);
        assert_int_equal(r.mismatches, 0);
        assert_true(r.verified);
        uint64_t left = emb_guest_frames_in(w.m, w.domid, emb_node_range(w.m, 1), &held);
        assert_int_equal(left, held);
        hv_report_free(&r);
        world_end(&w);
    }
}

static void pv_undisturbed(void **state)
{
    (void)state;
    undisturbed(HV_DOMAIN_PV);
}

static bool needs_recovery(const struct world *w, fs_status_t s)
{
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/journal", w->dir);
    return s == FS_NEEDS_RECOVER || access(path, F_OK) == 0;
}

/* Fail call n for every n that an evacuation makes. */
static void each_call_fails(enum hv_domain_kind kind, bool partial)
{
    uint64_t calls = UINT64_MAX, recovered = 0, whole = 0;
    for (uint64_t n = 1; n <= calls; n += n < 6 ? 1 : stride()) {
        struct world w;
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        struct emb_fault_plan plan = { .fail_call = n, .partial = partial };
        world_make(&w, 7, kind);
        emb_fault_arm(w.m, &plan);
        fs_status_t s = evacuate(&w, "NODE1", &r, &err);
        calls = emb_fault_fired(w.m) ? UINT64_MAX : 0;
        emb_fault_arm(w.m, NULL);
        hv_report_free(&r);
        whole += s == FS_PARTIAL;
        if (needs_recovery(&w, s)) {
            recovered++;
            s = recover(&w, &err);
            if (s != FS_OK) {
                fail_msg("call %llu failed; recovery: %s: %s", (unsigned long long)n, fs_status_name(s), err.text);
            }
        }
        sane(&w, partial ? "half of call" : "call", n, false);
        world_end(&w);
    }
    print_message("every call failed once: %llu evacuations ended whole, %llu needed recovery\n", (unsigned long long)whole, (unsigned long long)recovered);
}

static void pv_each_call_fails(void **state)
{
    (void)state;
    each_call_fails(HV_DOMAIN_PV, false);
}

static void pv_each_call_half_done(void **state)
{
    (void)state;
    each_call_fails(HV_DOMAIN_PV, true);
}

static void destroy_hook(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    (void)op, (void)call;
    (void)emb_domain_destroy(m, *(uint16_t *)arg);
}

static void guest_destroyed_at_each_call(enum hv_domain_kind kind)
{
    bool more = true;
    for (uint64_t n = 1; more; n += n < 6 ? 1 : stride()) {
        struct world w;
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        world_make(&w, 8, kind);
        struct emb_fault_plan plan = { .hook_call = n, .hook = destroy_hook, .hook_arg = &w.domid };
        emb_fault_arm(w.m, &plan);
        fs_status_t s = evacuate(&w, "NODE1", &r, &err);
        more = emb_fault_calls(w.m) >= n;
        emb_fault_arm(w.m, NULL);
        hv_report_free(&r);
        if (more && needs_recovery(&w, s)) {
            s = recover(&w, &err);
            if (s != FS_OK) {
                fail_msg("destroyed at call %llu; recovery: %s: %s", (unsigned long long)n, fs_status_name(s), err.text);
            }
        }
        sane(&w, "destroyed at call", n, more);
        if (more) {
            struct mfn_range all = emb_node_range(w.m, 0);
            uint64_t held;
            assert_int_equal(emb_guest_frames_in(w.m, w.domid, all, &held), 0);
        }
        world_end(&w);
    }
}

static void pv_destroyed_at_each_call(void **state)
{
    (void)state;
    guest_destroyed_at_each_call(HV_DOMAIN_PV);
}

static void kill_hook(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    (void)arg, (void)m, (void)op, (void)call;
    (void)raise(SIGKILL);
}

/* The tool is killed before call n, for every n; the parent recovers on the same machine. */
static void killed_at_each_call(enum hv_domain_kind kind)
{
    bool more = true;
    uint64_t recovered = 0;
    for (uint64_t n = 1; more; n += n < 6 ? 1 : stride()) {
        struct world w;
        struct fs_error err = { "" };
        world_make(&w, 9, kind);
        struct emb_fault_plan plan = { .hook_call = n, .hook = kill_hook };
        emb_fault_arm(w.m, &plan);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct hv_report r = { 0 };
            (void)evacuate(&w, "NODE1", &r, &err);
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        more = WIFSIGNALED(status);
        emb_fault_arm(w.m, NULL);
        emb_machine_reap(w.m);
        fs_status_t s = recover(&w, &err);
        recovered += more;
        if (s != FS_OK) {
            fail_msg("killed at call %llu; recovery: %s: %s", (unsigned long long)n, fs_status_name(s), err.text);
        }
        sane(&w, "killed at call", n, false);
        world_end(&w);
    }
    print_message("killed at %llu different calls\n", (unsigned long long)recovered);
}

static void pv_killed_at_each_call(void **state)
{
    (void)state;
    killed_at_each_call(HV_DOMAIN_PV);
}

static void hap_undisturbed(void **state)
{
    (void)state;
    undisturbed(HV_DOMAIN_HAP);
}

static void hap_each_call_fails(void **state)
{
    (void)state;
    each_call_fails(HV_DOMAIN_HAP, false);
}

static void hap_each_call_half_done(void **state)
{
    (void)state;
    each_call_fails(HV_DOMAIN_HAP, true);
}

static void hap_destroyed_at_each_call(void **state)
{
    (void)state;
    guest_destroyed_at_each_call(HV_DOMAIN_HAP);
}

static void hap_killed_at_each_call(void **state)
{
    (void)state;
    killed_at_each_call(HV_DOMAIN_HAP);
}

/* A frame that is granted but not in use has its number in the grant table: it must stay, or the number would go stale.  An LDT page
 * in use stays mapped by Xen through a vCPU reset. */
static void pv_offered_grants_and_ldt(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct world w;
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        uint16_t guest;
        uint64_t held;
        world_make(&w, seed, HV_DOMAIN_PV);
        struct emb_domain_config g = { .kind = HV_DOMAIN_PV, .name = "ldt", .pages = 1024, .vcpus = 2, .seed = seed, .node = 1, .processes = 2,
                                       .ldt = true, .grants_mapped = 1, .grants_offered = 5, .ballooned = 4 };
        assert_int_equal(emb_domain_create(w.m, &g, &guest), 0);
        fs_status_t s = evacuate(&w, "NODE1", &r, &err);
        if (s != FS_PARTIAL) {
            fail_msg("seed %llu: %s: %s", (unsigned long long)seed, fs_status_name(s), err.text);
        }
        sane(&w, "beside it", 0, false);
        assert_int_equal(emb_guest_check(w.m, guest, stderr), 0);
        assert_true(emb_guest_alive(w.m, guest));
        /* Held, offered, the LDT page: nothing else stays. */
        uint64_t left = emb_guest_frames_in(w.m, guest, emb_node_range(w.m, 1), &held);
        assert_int_equal(left, held + 5 + 1);
        hv_report_free(&r);
        world_end(&w);
    }
}

/* A driver domain maps other guests' frames: its tables cannot be pinned again once their references are dropped, so it
 * must be left alone, whole and running; so must the granted frame.  Everybody else leaves. */
static void pv_a_driver_domain_survives(void **state)
{
    (void)state;
    struct world w;
    struct hv_report r = { 0 };
    struct fs_error err = { "" };
    uint16_t driver;
    uint64_t pfn;
    world_make(&w, 3, HV_DOMAIN_PV);
    struct emb_domain_config g = { .kind = HV_DOMAIN_PV, .name = "driver", .pages = 1024, .vcpus = 1, .seed = 5, .node = 1, .processes = 2, .ballooned = 8 };
    assert_int_equal(emb_domain_create(w.m, &g, &driver), 0);
    assert_int_equal(emb_grant_map(w.m, w.domid, driver, &pfn), 0);
    assert_int_equal(emb_guest_check(w.m, driver, stderr) + emb_fsck(w.m, stderr), 0);
    fs_status_t s = evacuate(&w, "NODE1", &r, &err);
    sane(&w, "a driver domain", 0, false);
    assert_int_equal(emb_guest_check(w.m, driver, stderr), 0);
    assert_true(emb_guest_alive(w.m, driver));
    assert_int_not_equal(s, FS_NEEDS_RECOVER);
    hv_report_free(&r);
    world_end(&w);
}

/* ---- grants that come and go during an evacuation ---- */

struct grants_at {
    uint16_t domid;
    enum emb_op op;                 /* before that call, the nth since the mover has its watch */
    uint64_t nth, calls;
    bool watched, grant, done;
    uint64_t gfn;
    uint32_t index;
    mfn_t was;
};

static void grants_hook(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    struct grants_at *g = arg;
    (void)call;
    g->watched = g->watched || op == EMB_OP_grants_begin;
    if (!g->watched || op != g->op || ++g->calls < g->nth || g->done) {
        return;
    }
    int rc = g->grant ? emb_guest_grant(m, g->domid, emb_node_range(m, 1), &g->gfn, &g->index) : emb_guest_ungrant(m, g->domid, g->index);
    g->done = rc == 0;
    g->was = emb_guest_frame(m, g->domid, g->gfn);
}

static fs_status_t nothing_granted(struct hv_backend *be, struct hv_grants *g, const uint64_t **gfns, size_t *count, struct fs_error *err)
{
    fs_status_t s = emb_op_grants_read(be, g, gfns, count, err);
    *count = 0;
    return s;
}

/* blind: the watch says that nothing is granted.  1: the hook did its part. */
static bool evacuate_with_grants(struct world *w, struct grants_at *g, bool blind, struct hv_report *r)
{
    struct emb_fault_plan plan = { .hook_call = UINT64_MAX, .hook = grants_hook, .hook_arg = g };
    struct hv_evacuate_options o = { .target = "NODE1", .verify = true };
    struct hv_backend_ops ops = emb_backend_ops;
    struct fs_error err = { "" };
    struct hv hv;
    hv_bind(&hv, w);
    ops.grants_read = nothing_granted;
    hv.be->ops = blind ? &ops : hv.be->ops;
    emb_fault_arm(w->m, &plan);
    fs_status_t s = hv_evacuate(&hv, &o, r, &err);
    emb_fault_arm(w->m, NULL);
    hv.be->ops->close(hv.be);
    if (s != FS_PARTIAL) {
        fail_msg("%s: %s", fs_status_name(s), err.text);
    }
    return g->done;
}

static bool reported_granted(const struct hv_report *r, mfn_t m)
{
    for (size_t i = 0; i < r->blocker_count; i++) {
        if (mfn_eq(fs_blocker_mfn(&r->blockers[i]), m)) {
            return r->blockers[i].reason == FS_REASON_GRANTED;
        }
    }
    return false;
}

/* A grant that appears after the mover began to watch, before it stops the guest: that frame stays.  With a blind watch it goes: so it is the
 * watch that keeps it. */
static void a_grant_appears(enum hv_domain_kind kind, enum emb_op op, uint64_t nth_most)
{
    uint64_t seen = 0;
    for (uint64_t n = 0; n < 2 * nth_most; n++) {
        bool blind = n % 2 != 0;
        struct world w;
        struct hv_report r = { 0 };
        world_make(&w, 2 + n / 2, kind);
        struct grants_at g = { .domid = w.domid, .op = op, .nth = 1 + n / 2, .grant = true };
        bool granted = evacuate_with_grants(&w, &g, blind, &r);
        assert_true(g.watched);
        if (granted && mfn_range_contains(emb_node_range(w.m, 1), g.was)) {
            seen++;
            bool stays = mfn_eq(emb_guest_frame(w.m, w.domid, g.gfn), g.was);
            assert_int_equal(stays, !blind);
            assert_int_equal(reported_granted(&r, g.was), !blind);
        }
        if (!blind) {
            sane(&w, "a grant appears", n, false);
        } else {
            assert_true(emb_guest_check(w.m, w.domid, NULL) > 0);       /* the grant that dom0 has mapped has gone too */
        }
        hv_report_free(&r);
        world_end(&w);
    }
    assert_int_equal(seen, 2 * nth_most);
}

static void pv_a_grant_appears(void **state)
{
    (void)state;
    a_grant_appears(HV_DOMAIN_PV, EMB_OP_suspend, 1);
}

static void hap_a_grant_appears(void **state)
{
    (void)state;
    a_grant_appears(HV_DOMAIN_HAP, EMB_OP_pause, 4);
}

/* One that was there when the mover began to watch, and ends before the stop: its frame goes like any other. */
static void a_grant_disappears(enum hv_domain_kind kind, enum emb_op op)
{
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct world w;
        struct hv_report r = { 0 };
        uint64_t held;
        world_make(&w, seed, kind);
        struct grants_at g = { .domid = w.domid, .op = op, .nth = kind == HV_DOMAIN_PV ? 1 : seed };
        assert_int_equal(emb_guest_grant(w.m, w.domid, emb_node_range(w.m, 1), &g.gfn, &g.index), 0);
        assert_true(evacuate_with_grants(&w, &g, false, &r));
        assert_false(mfn_range_contains(emb_node_range(w.m, 1), emb_guest_frame(w.m, w.domid, g.gfn)));
        uint64_t left = emb_guest_frames_in(w.m, w.domid, emb_node_range(w.m, 1), &held);
        assert_int_equal(left, held);
        sane(&w, "a grant disappears", seed, false);
        hv_report_free(&r);
        world_end(&w);
    }
}

static void pv_a_grant_disappears(void **state)
{
    (void)state;
    a_grant_disappears(HV_DOMAIN_PV, EMB_OP_suspend);
}

static void hap_a_grant_disappears(void **state)
{
    (void)state;
    a_grant_disappears(HV_DOMAIN_HAP, EMB_OP_pause);
}

struct let_go {
    uint16_t domid;
    struct mfn_range range;
    uint64_t pages;
};

/* Before a restore: a guest that is still to be evicted gives back a page that could not be moved away in time. */
static void let_go_hook(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    struct let_go *l = arg;
    (void)call;
    if (op == EMB_OP_restore && emb_guest_balloon_out_of(m, l->domid, l->range) != UINT64_MAX) {
        l->pages++;
    }
}

/* --evict: a restore takes its frames from the heap.  What another guest lets go in the range meanwhile must not be there. */
static void evict_gets_no_frame_of_the_range(void **state)
{
    (void)state;
    uint64_t let_go = 0;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct world w;
        struct hv hv;
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        uint64_t held;
        world_make(&w, seed, HV_DOMAIN_PV);
        /* It does not suspend, so all of it is there when the first guest is restored. */
        struct emb_domain_config g = { .kind = HV_DOMAIN_PV, .name = "stubborn", .pages = 1024, .vcpus = 1, .seed = seed, .node = 1, .processes = 1,
                                       .wont_suspend = true };
        struct let_go l = { .range = emb_node_range(w.m, 1) };
        assert_int_equal(emb_domain_create(w.m, &g, &l.domid), 0);
        struct emb_fault_plan plan = { .hook_call = UINT64_MAX, .hook = let_go_hook, .hook_arg = &l };
        emb_fault_arm(w.m, &plan);
        struct hv_evacuate_options o = { .target = "NODE1", .verify = true, .evict = true, .suspend_timeout_ns = 1 };
        hv_bind(&hv, &w);
        fs_status_t s = hv_evacuate(&hv, &o, &r, &err);
        hv.be->ops->close(hv.be);
        emb_fault_arm(w.m, NULL);
        assert_true(s == FS_PARTIAL || s == FS_OK);
        for (size_t i = 0; i < r.domain_count; i++) {
            if (r.domains[i].evicted_to != FS_DOMID_NONE) {
                assert_int_equal(emb_guest_frames_in(w.m, r.domains[i].evicted_to, emb_node_range(w.m, 1), &held), 0);
            }
        }
        assert_int_equal(emb_fsck(w.m, stderr), 0);
        let_go += l.pages;
        hv_report_free(&r);
        world_end(&w);
    }
    assert_true(let_go > 0);
}

/* A guest that runs gives a page back between two looks at its p2m, tables and M2P: that is no frame of another domain. */
static void balloon_hook(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    struct let_go *l = arg;
    (void)call;
    if (op == EMB_OP_m2p && l->pages < 3 && emb_guest_balloon_out(m, l->domid) != UINT64_MAX) {
        l->pages++;
    }
}

static void pv_a_page_given_back_is_not_foreign(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct world w;
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        uint64_t held;
        world_make(&w, seed, HV_DOMAIN_PV);
        struct let_go l = { .domid = w.domid };
        struct emb_fault_plan plan = { .hook_call = UINT64_MAX, .hook = balloon_hook, .hook_arg = &l };
        emb_fault_arm(w.m, &plan);
        fs_status_t s = evacuate(&w, "NODE1", &r, &err);
        emb_fault_arm(w.m, NULL);
        assert_int_equal(s, FS_PARTIAL);
        assert_int_equal(l.pages, 3);
        for (size_t i = 0; i < r.domain_count; i++) {
            if (r.domains[i].status != FS_OK) {
                fail_msg("seed %llu: %s", (unsigned long long)seed, r.domains[i].error);
            }
        }
        uint64_t left = emb_guest_frames_in(w.m, w.domid, emb_node_range(w.m, 1), &held);
        assert_int_equal(left, held);
        sane(&w, "balloon while looked at", 0, false);
        hv_report_free(&r);
        world_end(&w);
    }
}

/* A refusal that does not come again costs no frame, wherever in a batch it is. */
static void hap_refused_once(void **state)
{
    (void)state;
    for (unsigned partial = 0; partial < 2; partial++) {
        bool more = true;
        for (uint64_t n = 1; more; n++) {
            struct world w;
            struct hv_report r = { 0 };
            struct fs_error err = { "" };
            uint64_t held;
            world_make(&w, 5, HV_DOMAIN_HAP);
            struct emb_fault_plan plan = { .fail_call = n, .only_op = true, .op = EMB_OP_remap, .partial = partial };
            emb_fault_arm(w.m, &plan);
            fs_status_t s = evacuate(&w, "NODE1", &r, &err);
            more = emb_fault_fired(w.m) > 0;
            emb_fault_arm(w.m, NULL);
            assert_int_equal(s, FS_PARTIAL);
            uint64_t left = emb_guest_frames_in(w.m, w.domid, emb_node_range(w.m, 1), &held);
            if (left != held) {
                fail_msg("remap %llu refused once: %llu frames stay, %llu of them held", (unsigned long long)n, (unsigned long long)left,
                         (unsigned long long)held);
            }
            sane(&w, "remap refused once, call", n, false);
            hv_report_free(&r);
            world_end(&w);
        }
    }
}

/* The tool was killed, then the guest went away too: recovery has nothing to do for it, and says so. */
static void pv_gone_before_recovery(void **state)
{
    (void)state;
    for (uint64_t n = 20; n <= 50; n += 15) {
        struct world w;
        struct fs_error err = { "" };
        world_make(&w, 9, HV_DOMAIN_PV);
        struct emb_fault_plan plan = { .hook_call = n, .hook = kill_hook };
        emb_fault_arm(w.m, &plan);
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            struct hv_report r = { 0 };
            (void)evacuate(&w, "NODE1", &r, &err);
            _exit(0);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        emb_fault_arm(w.m, NULL);
        emb_machine_reap(w.m);
        assert_int_equal(emb_domain_destroy(w.m, w.domid), 0);
        fs_status_t s = recover(&w, &err);
        if (s != FS_OK) {
            fail_msg("killed at call %llu, guest destroyed; recovery: %s: %s", (unsigned long long)n, fs_status_name(s), err.text);
        }
        sane(&w, "gone before recovery, killed at call", n, true);
        world_end(&w);
    }
}

/* One bit of one copied page turns between the copy and the switch: --verify sees it, and the guest goes on with its old frames. */
struct flip { uint16_t domid; uint64_t skip; mfn_t done; };

static void flip_hook(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    struct flip *f = arg;
    static struct hv_frame frames[3 * NODE_PAGES];
    (void)op;
    (void)call;
    struct hv_backend *be = emb_backend(m);
    struct fs_error err = { "" };
    assert_non_null(be);
    assert_int_equal(be->ops->frames(be, (struct mfn_range){ mfn_make(0), mfn_make(3 * NODE_PAGES) }, frames, &err), FS_OK);
    for (uint64_t i = 0; i < 3 * NODE_PAGES && mfn_is_none(f->done); i++) {
        bool reserved = frames[i].owner == HV_FRAME_DOMAIN && frames[i].domid == f->domid && frames[i].gfn == FS_FRAME_NONE &&
                        !mfn_range_contains(emb_node_range(m, 1), mfn_make(i));
        if (reserved && f->skip-- == 0) {
            uint8_t *page;
            int bad = 0;
            assert_int_equal(be->ops->map(be, f->domid, &i, 1, HV_MAP_WRITE, &bad, (void **)&page, &err), FS_OK);
            assert_int_equal(bad, 0);
            page[77] ^= 4;
            be->ops->unmap(be, page, 1);
            f->done = mfn_make(i);
        }
    }
    be->ops->close(be);
}

static void pv_a_flipped_bit_is_found(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct world w;
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        world_make(&w, seed, HV_DOMAIN_PV);
        struct flip flip = { .domid = w.domid, .skip = 700 + 13 * seed, .done = MFN_NONE };
        struct emb_fault_plan plan = { .only_op = true, .op = EMB_OP_m2p_set, .hook_call = 1, .hook = flip_hook, .hook_arg = &flip };
        emb_fault_arm(w.m, &plan);
        fs_status_t s = evacuate(&w, "NODE1", &r, &err);
        emb_fault_arm(w.m, NULL);
        assert_false(mfn_is_none(flip.done));
        assert_true(s == FS_CORRUPT || s == FS_PARTIAL);
        assert_int_equal(r.domain_count, 1);
        assert_int_equal(r.domains[0].status, FS_CORRUPT);
        assert_int_equal(r.domains[0].mismatches, 1);
        assert_int_equal(r.domains[0].moved, 0);
        assert_false(r.verified);
        hv_report_free(&r);
        sane(&w, "a flipped bit", seed, false);
        world_end(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pv_undisturbed),
        cmocka_unit_test(pv_offered_grants_and_ldt),
        cmocka_unit_test(pv_a_flipped_bit_is_found),
        cmocka_unit_test(pv_a_driver_domain_survives),
        cmocka_unit_test(pv_a_grant_appears),
        cmocka_unit_test(hap_a_grant_appears),
        cmocka_unit_test(pv_a_grant_disappears),
        cmocka_unit_test(hap_a_grant_disappears),
        cmocka_unit_test(evict_gets_no_frame_of_the_range),
        cmocka_unit_test(pv_a_page_given_back_is_not_foreign),
        cmocka_unit_test(hap_refused_once),
        cmocka_unit_test(hap_undisturbed),
        cmocka_unit_test(pv_each_call_fails),
        cmocka_unit_test(hap_each_call_fails),
        cmocka_unit_test(pv_each_call_half_done),
        cmocka_unit_test(hap_each_call_half_done),
        cmocka_unit_test(pv_destroyed_at_each_call),
        cmocka_unit_test(hap_destroyed_at_each_call),
        cmocka_unit_test(pv_gone_before_recovery),
        cmocka_unit_test(pv_killed_at_each_call),
        cmocka_unit_test(hap_killed_at_each_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
