/*
 * test_coop_threads.c - a guest whose vCPUs are threads moves its own pages under load; how long it stands still.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "coop_world.h"

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t n = text != NULL ? strtoull(text, NULL, 10) : otherwise;
    return n != 0 ? n : otherwise;
}

static uint64_t checks(const struct world *w)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < w->pool_count; i++) {
        n += w->pools[i].checks;
    }
    for (uint32_t i = 0; i < w->family_count; i++) {
        n += w->families[i].checks;
    }
    return n;
}

static void one_run(uint64_t seed, uint32_t vcpus, bool verify)
{
    static const char *const targets[] = { "NODE1", "NODE0", "NODE2" };
    struct world w;
    uint64_t stops = 0, longest = 0, p99 = 0, busy = 0, in_stop = 0;
    world_make(&w, seed, vcpus, GUEST_PAGES);
    uint64_t before = checks(&w);
    assert_int_equal(coop_guest_start(w.c), 0);
    for (unsigned i = 0; i < FS_ARRAY_SIZE(targets); i++) {
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        struct hv_evacuate_options o = { .verify = verify };
        struct hv hv = { .be = emb_backend(w.m), .state_dir = w.dir };
        uint64_t pages;
        fs_status_t s = world_evacuate(&w, targets[i], &o, &r, &err);
        if (s != FS_PARTIAL && s != FS_OK) {
            fail_msg("seed %llu, %s: %s: %s", (unsigned long long)seed, targets[i], fs_status_name(s), err.text);
        }
        if (i == 0) {
            for (size_t b = 0; b < r.blocker_count; b++) {
                busy += r.blockers[b].reason != FS_REASON_XEN;
                if (r.blockers[b].reason != FS_REASON_XEN) {
                    fprintf(stderr, "pfn %#llx stays: %s\n", (unsigned long long)r.blockers[b].gfn, fs_reason_name(r.blockers[b].reason));
                }
            }
            assert_int_equal(r.domains[0].plan.mover, HV_MOVER_COOP);
            stops = r.domains[0].pauses;
            longest = r.domains[0].max_pause_ns;
            p99 = r.domains[0].p99_pause_ns;
            assert_true(r.domains[0].p50_pause_ns > 0 && r.domains[0].p50_pause_ns <= p99 && p99 <= longest);
        }
        assert_int_equal(hv_online(&hv, targets[i], &pages, &err), FS_OK);
        hv.be->ops->close(hv.be);
        hv_report_free(&r);
    }
    assert_int_equal(coop_guest_stop(w.c), 0);
    in_stop = checks(&w) - before;
    print_message("seed %llu, %u vCPUs%s: %llu stops, longest %.3f ms, p99 %.3f ms; %llu checks meanwhile, %llu pages stayed busy\n",
                  (unsigned long long)seed, vcpus, verify ? ", verified" : "", (unsigned long long)stops, (double)longest / 1e6, (double)p99 / 1e6,
                  (unsigned long long)in_stop, (unsigned long long)busy);
    assert_true(in_stop > 0);
    assert_int_equal(busy, 0);
    world_sane(&w, "threads", 0);
    world_end(&w);
}

static void under_load(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= env_number("SEEDS", 6); seed++) {
        one_run(seed, 1 + (uint32_t)seed % 3, seed % 2 == 0);
    }
}

/* The same kernel, asked to suspend instead: every vCPU stands still, and goes on. */
static void suspended_under_load(void **state)
{
    struct world w;
    struct hv_report r = { 0 };
    struct fs_error err = { "" };
    (void)state;
    world_make(&w, 21, 3, GUEST_PAGES);
    assert_int_equal(emb_core_publish(w.m, coop_guest_domid(w.c), FS_ABI_KEY_VERSION, "2"), 0);
    assert_int_equal(coop_guest_start(w.c), 0);
    fs_status_t s = world_evacuate(&w, "NODE1", NULL, &r, &err);
    assert_int_equal(coop_guest_stop(w.c), 0);
    if (s != FS_PARTIAL || r.blocker_count != 1) {
        fail_msg("%s: %s; %zu blockers; the guest: %s %s", fs_status_name(s), err.text, r.blocker_count,
                 r.domain_count ? fs_status_name(r.domains[0].status) : "-", r.domain_count ? r.domains[0].error : "not reported");
    }
    assert_int_equal(r.domains[0].plan.mover, HV_MOVER_PV);
    assert_int_equal(r.frames_moved, GUEST_PAGES);
    assert_true(coop_guest_kernel(w.c)->suspends >= 1);
    world_sane(&w, "suspended", 0);
    hv_report_free(&r);
    world_end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(under_load), cmocka_unit_test(suspended_under_load) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
