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
        fprintf(stderr, "frame %#llx (pfn %#llx) stays: %s\n", (unsigned long long)r->blockers[i].mfn.n, (unsigned long long)r->blockers[i].gfn,
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
        world_make(&w, seed, 1 + (uint32_t)seed % 3);
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

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(undisturbed) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
