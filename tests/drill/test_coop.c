/*
 * test_coop.c - evacuations of a guest that moves its own pages, undisturbed and disturbed at every call.
 *
 * After each run, whatever was done to it: the guest lives, holds every byte that it should, knows itself without a
 * fault, and every count of the machine is right.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "coop_world.h"

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t n = text != NULL ? strtoull(text, NULL, 10) : otherwise;
    return n != 0 ? n : otherwise;
}

static void show(const struct hv_report *r)
{
    for (size_t i = 0; i < r->blocker_count && i < 10; i++) {
        fprintf(stderr, "frame %#llx (pfn %#llx) stays: %s\n", (unsigned long long)r->blockers[i].frame, (unsigned long long)r->blockers[i].gfn,
                fs_reason_name(r->blockers[i].reason));
    }
    for (size_t d = 0; d < r->domain_count; d++) {
        fprintf(stderr, "domain %u: mover %s, %llu moved, %s\n", r->domains[d].plan.domid, hv_mover_name(r->domains[d].plan.mover),
                (unsigned long long)r->domains[d].moved, r->domains[d].error);
        for (size_t i = 0; i < r->domains[d].phase_count; i++) {
            fprintf(stderr, "  %-16s %10llu  %10.3f ms\n", r->domains[d].phases[i].name, (unsigned long long)r->domains[d].phases[i].count,
                    (double)r->domains[d].phases[i].ns / 1e6);
        }
    }
}

/* Everything but shared_info, which is Xen's page, left. */
static void expect_empty(struct world *w, fs_status_t s, const struct hv_report *r, const struct fs_error *err)
{
    if (s != FS_PARTIAL || r->blocker_count != 1 || r->blockers[0].reason != FS_REASON_XEN) {
        show(r);
        fail_msg("seed %llu: %s: %s; %zu blockers", (unsigned long long)w->seed, fs_status_name(s), err->text, r->blocker_count);
    }
}

static void undisturbed(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= env_number("SEEDS", 4); seed++) {
        struct world w;
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        world_make(&w, seed, 1 + (uint32_t)seed % 3, GUEST_PAGES);
        fs_status_t s = world_evacuate(&w, "NODE1", NULL, &r, &err);
        expect_empty(&w, s, &r, &err);
        assert_int_equal(r.domains[0].plan.mover, HV_MOVER_COOP);
        assert_int_equal(r.frames_moved, GUEST_PAGES);
        assert_int_equal(r.domains[0].suspends, 0);
        assert_int_equal(report_count(&r, "guest-free") + report_count(&r, "guest-user") + report_count(&r, "guest-kernel") +
                         report_count(&r, "guest-tables"), GUEST_PAGES);
        if (seed == 1) {
            show(&r);
        }
        world_sane(&w, "undisturbed", 0);
        hv_report_free(&r);
        world_end(&w);
    }
}

/* Out, back online, out of the next: page tables, slab, shared pages and all, every time. */
static void rounds(void **state)
{
    static const char *const targets[] = { "NODE1", "NODE0", "NODE2", "NODE1" };
    struct world w;
    (void)state;
    world_make(&w, 77, 2, GUEST_PAGES);
    for (unsigned i = 0; i < FS_ARRAY_SIZE(targets); i++) {
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        struct hv hv = { .be = emb_backend(w.m), .state_dir = w.dir };
        uint64_t pages;
        fs_status_t s = world_evacuate(&w, targets[i], NULL, &r, &err);
        uint64_t held, left = emb_guest_frames_in(w.m, coop_guest_domid(w.c), emb_node_range(w.m, i == 1 ? 0 : i == 2 ? 2 : 1), &held);
        if (s != FS_PARTIAL && s != FS_OK) {
            fail_msg("round %u: %s: %s", i, fs_status_name(s), err.text);
        }
        assert_int_equal(left, 0);
        assert_int_equal(r.blocker_count, s == FS_OK ? 0 : i == 1 ? 64 : 1);    /* shared_info, Xen's image */
        world_sane(&w, "round", i);
        assert_int_equal(hv_online(&hv, targets[i], &pages, &err), FS_OK);
        hv.be->ops->close(hv.be);
        hv_report_free(&r);
    }
    world_end(&w);
}

/* What a device holds stays, with its reason; everything around it leaves. */
static void device_pages_stay(void **state)
{
    struct world w;
    struct hv_report r = { 0 };
    struct fs_error err = { "" };
    uint64_t dma = 0, held = 0;
    (void)state;
    world_make(&w, 5, 1, GUEST_PAGES);
    w.pools[0].dma_wanted = 6;
    coop_guest_step(w.c, 1500);
    for (unsigned u = 0; u < POOL_UNITS; u++) {
        dma += w.pools[0].units[u].dma ? 1ull << w.pools[0].units[u].order : 0;
    }
    assert_true(dma >= 6);
    assert_int_equal(world_evacuate(&w, "NODE1", NULL, &r, &err), FS_PARTIAL);
    for (size_t i = 0; i < r.blocker_count; i++) {
        held += r.blockers[i].reason == FS_REASON_FOREIGN_REF;
    }
    assert_int_equal(held, dma);
    assert_int_equal(r.blocker_count, dma + 1);
    assert_int_equal(r.frames_moved, GUEST_PAGES - dma);
    world_sane(&w, "device", 0);
    hv_report_free(&r);
    world_end(&w);
}

/* A guest that is asked to suspend although it could move its pages: the PV mover moves it as any other. */
static void moves_by_suspend_too(void **state)
{
    struct world w;
    struct hv_report r = { 0 };
    struct fs_error err = { "" };
    (void)state;
    world_make(&w, 6, 2, GUEST_PAGES);
    /* It speaks a version that we do not. */
    assert_int_equal(emb_core_publish(w.m, coop_guest_domid(w.c), FS_ABI_KEY_VERSION, "2"), 0);
    fs_status_t s = world_evacuate(&w, "NODE1", NULL, &r, &err);
    expect_empty(&w, s, &r, &err);
    assert_int_equal(r.domains[0].plan.mover, HV_MOVER_PV);
    assert_true(coop_guest_kernel(w.c)->suspends >= 1);
    world_sane(&w, "suspended", 0);
    hv_report_free(&r);
    world_end(&w);
}

/* ---- disturbed ---- */

static void recover_and_check(struct world *w, fs_status_t s, const char *what, uint64_t n, uint64_t *recovered)
{
    if (world_needs_recovery(w, s)) {
        struct hv_recover_report r = { 0 };
        struct fs_error err = { "" };
        s = world_recover(w, &r, &err);
        (*recovered)++;
        if (s != FS_OK) {
            fail_msg("%s %llu; recovery: %s: %s", what, (unsigned long long)n, fs_status_name(s), err.text);
        }
    }
    world_sane(w, what, n);
}

/* Backend call n fails, for every STRIDE-th n. */
static void each_call_fails(void **state)
{
    uint64_t recovered = 0, whole = 0, runs = 0, stride = env_number("STRIDE", 40);
    bool more = true;
    (void)state;
    for (uint64_t n = 1; more; n += n < 12 ? 2 : stride) {
        struct world w;
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        struct emb_fault_plan plan = { .fail_call = n, .partial = n % 2 == 0 };
        world_make(&w, 7, 1, SMALL_PAGES);
        emb_fault_arm(w.m, &plan);
        fs_status_t s = world_evacuate(&w, "NODE1", NULL, &r, &err);
        more = emb_fault_fired(w.m) > 0;
        emb_fault_arm(w.m, NULL);
        whole += s == FS_PARTIAL;
        runs++;
        hv_report_free(&r);
        recover_and_check(&w, s, "call", n, &recovered);
        world_end(&w);
    }
    print_message("%llu evacuations with a failing call: %llu ended whole, %llu needed recovery\n", (unsigned long long)runs, (unsigned long long)whole,
                  (unsigned long long)recovered);
    assert_true(recovered < runs);
}

static void destroy_hook(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    (void)op, (void)call;
    (void)emb_domain_destroy(m, *(uint16_t *)arg);
}

/* The guest is destroyed before backend call n. */
static void destroyed_at_each_call(void **state)
{
    uint64_t stride = env_number("STRIDE", 40);
    bool more = true;
    (void)state;
    for (uint64_t n = 1; more; n += n < 12 ? 2 : stride) {
        struct world w;
        struct hv_report r = { 0 };
        struct hv_recover_report rr = { 0 };
        struct fs_error err = { "" };
        world_make(&w, 12, 1, SMALL_PAGES);
        uint16_t domid = coop_guest_domid(w.c);
        uint64_t held, free_before = emb_free_pages(w.m), tot = w.pages;
        struct emb_fault_plan plan = { .hook_call = n, .hook = destroy_hook, .hook_arg = &domid };
        emb_fault_arm(w.m, &plan);
        fs_status_t s = world_evacuate(&w, "NODE1", NULL, &r, &err);
        more = emb_fault_calls(w.m) >= n;
        emb_fault_arm(w.m, NULL);
        hv_report_free(&r);
        if (world_needs_recovery(&w, s)) {
            s = world_recover(&w, &rr, &err);
            if (s != FS_OK) {
                fail_msg("destroyed at call %llu; recovery: %s: %s", (unsigned long long)n, fs_status_name(s), err.text);
            }
        }
        assert_int_equal(emb_fsck(w.m, stderr), 0);
        for (uint32_t node = 0; node < 3 && more; node++) {
            assert_int_equal(emb_guest_frames_in(w.m, domid, emb_node_range(w.m, node), &held), 0);
        }
        struct hv hv = { .be = emb_backend(w.m), .state_dir = w.dir };
        uint64_t pages;
        assert_int_equal(hv_online(&hv, "NODE1", &pages, &err), FS_OK);
        hv.be->ops->close(hv.be);
        if (more) {
            assert_int_equal(emb_free_pages(w.m), free_before + tot + 1);       /* and shared_info */
            world_drop(&w);
        } else {
            world_sane(&w, "not destroyed", n);
            world_end(&w);
        }
    }
}

/* The user interrupts before backend call n. */
static void interrupt_hook(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    (void)m, (void)op, (void)call;
    hv_interrupt(arg);
}

static void interrupted_at_some_calls(void **state)
{
    uint64_t interrupted = 0, recovered = 0;
    (void)state;
    for (uint64_t n = 1; n < 200; n += 18) {
        struct world w;
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        world_make(&w, 13, 1, SMALL_PAGES);
        struct hv hv = { .be = emb_backend(w.m), .state_dir = w.dir };
        struct hv_evacuate_options o = { .target = "NODE1" };
        struct emb_fault_plan plan = { .hook_call = n, .hook = interrupt_hook, .hook_arg = &hv };
        emb_fault_arm(w.m, &plan);
        fs_status_t s = hv_evacuate(&hv, &o, &r, &err);
        emb_fault_arm(w.m, NULL);
        hv.be->ops->close(hv.be);
        if (s != FS_INTERRUPTED && s != FS_PARTIAL) {
            fail_msg("interrupted before call %llu: %s: %s", (unsigned long long)n, fs_status_name(s), err.text);
        }
        interrupted += s == FS_INTERRUPTED;
        assert_false(world_needs_recovery(&w, s));
        hv_report_free(&r);
        recover_and_check(&w, s, "interrupted", n, &recovered);
        world_end(&w);
    }
    assert_true(interrupted > 3);
}

/* Hypercall n of the guest fails once. */
static void each_hypercall_fails(void **state)
{
    uint64_t stride = env_number("STRIDE", 40), runs = 0, moved_less = 0;
    bool more = true;
    (void)state;
    for (uint64_t n = 1; more; n += n * 2 / stride + 1) {
        struct world w;
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        uint64_t recovered = 0;
        world_make(&w, 11, 2, SMALL_PAGES);
        uint64_t before = coop_guest_hypercalls(w.c);
        coop_guest_fail_nth(w.c, n);
        fs_status_t s = world_evacuate(&w, "NODE1", NULL, &r, &err);
        more = coop_guest_hypercalls(w.c) - before >= n;
        coop_guest_fail_nth(w.c, 0);
        moved_less += r.frames_moved < w.pages;
        runs++;
        if (s != FS_PARTIAL && s != FS_OK) {
            fail_msg("hypercall %llu failed: %s: %s", (unsigned long long)n, fs_status_name(s), err.text);
        }
        hv_report_free(&r);
        recover_and_check(&w, s, "hypercall", n, &recovered);
        world_end(&w);
    }
    print_message("%llu evacuations with a failing hypercall, %llu left pages behind\n", (unsigned long long)runs, (unsigned long long)moved_less);
    assert_int_equal(moved_less, 0);            /* what was refused once moves at the next try */
}

static void tool(struct world *w, void *crash_at)
{
    struct hv_report r = { 0 };
    struct fs_error err = { "" };
    struct hv_evacuate_options o = { .verify = true, .crash_at = *(uint32_t *)crash_at };
    (void)world_evacuate(w, "NODE1", &o, &r, &err);
}

static bool run_and_kill(struct world *w, uint32_t crash_at)
{
    return world_run_and_kill(w, tool, &crash_at);
}

static void killed_at_each_record(void **state)
{
    uint64_t recovered = 0;
    uint32_t n = 1;
    bool killed = true;
    (void)state;
    for (; killed; n++) {
        struct world w;
        world_make(&w, 8, 1, SMALL_PAGES);
        killed = run_and_kill(&w, n);
        recover_and_check(&w, FS_OK, "killed at record", n, &recovered);
        world_end(&w);
    }
    print_message("killed at each of %u journal records, %llu recoveries\n", n - 2, (unsigned long long)recovered);
    assert_true(recovered > 8);
}

static void killed_at_each_call(void **state)
{
    uint64_t recovered = 0, kills = 0, stride = env_number("STRIDE", 40);
    bool killed = true;
    (void)state;
    for (uint64_t n = 1; killed; n += n < 30 ? 6 : stride * 2) {
        struct world w;
        struct emb_fault_plan plan = { .hook_call = n, .hook = world_kill_tool };
        world_make(&w, 9, 1 + (uint32_t)n % 2, SMALL_PAGES);
        emb_fault_arm(w.m, &plan);
        killed = run_and_kill(&w, 0);
        kills += killed;
        recover_and_check(&w, FS_OK, "killed at call", n, &recovered);
        world_end(&w);
    }
    print_message("killed at %llu different calls, %llu recoveries\n", (unsigned long long)kills, (unsigned long long)recovered);
    /* A kill before the first record of the journal, or after its last, leaves nothing to do. */
    assert_true(kills >= 5 && recovered >= kills / 2);
}

/* ---- refusals: what, why, what to do ---- */

static void frames_stay(struct world *w, const struct hv_evacuate_options *o, enum fs_reason reason, const char *words)
{
    struct hv_report r = { 0 };
    struct fs_error err = { "" };
    uint64_t held, named = 0;
    assert_int_equal(world_evacuate(w, "NODE1", o, &r, &err), FS_PARTIAL);
    assert_int_equal(r.domain_count, 1);
    if (strstr(r.domains[0].error, words) == NULL) {
        fail_msg("\"%s\" lacks \"%s\"", r.domains[0].error, words);
    }
    for (size_t i = 0; i < r.blocker_count; i++) {
        named += r.blockers[i].reason == reason && r.blockers[i].domid == coop_guest_domid(w->c);
    }
    assert_int_equal(named, emb_guest_frames_in(w->m, coop_guest_domid(w->c), emb_node_range(w->m, 1), &held));
    assert_true(named > 0);
    hv_report_free(&r);
}

static void silent_step(void *arg)
{
    (void)arg;
}

static void refusals_have_words(void **state)
{
    struct hv_evacuate_options soon = { .suspend_timeout_ns = 20000000 };
    struct fs_error err = { "" };
    struct world w;
    (void)state;
    world_make(&w, 4, 1, SMALL_PAGES);
    struct hv_backend *be = emb_backend(w.m);
    emb_core_step_with(w.m, coop_guest_domid(w.c), silent_step, NULL);
    frames_stay(&w, &soon, FS_REASON_GUEST_ABI, "exclude it");
    coop_guest_hosts_steps(w.c);
    world_sane(&w, "silent", 0);
    assert_int_equal(be->ops->pause(be, coop_guest_domid(w.c), &err), FS_OK);
    frames_stay(&w, NULL, FS_REASON_GUEST_REFUSED, "unpause it");
    assert_int_equal(be->ops->unpause(be, coop_guest_domid(w.c), &err), FS_OK);
    struct coop *c = coop_guest_kernel(w.c)->coop;
    uint64_t magic = c->control->magic;
    c->control->magic ^= 1;
    frames_stay(&w, NULL, FS_REASON_GUEST_ABI, "its shared page is no good");
    c->control->magic = magic;
    be->ops->close(be);
    world_sane(&w, "refused", 0);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(undisturbed), cmocka_unit_test(rounds), cmocka_unit_test(device_pages_stay), cmocka_unit_test(moves_by_suspend_too),
        cmocka_unit_test(refusals_have_words),
        cmocka_unit_test(destroyed_at_each_call), cmocka_unit_test(interrupted_at_some_calls),
        cmocka_unit_test(each_call_fails), cmocka_unit_test(each_hypercall_fails), cmocka_unit_test(killed_at_each_record),
        cmocka_unit_test(killed_at_each_call),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
