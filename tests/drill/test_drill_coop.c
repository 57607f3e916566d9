/*
 * test_drill_coop.c - drills with a guest that moves its own pages among the others: seeds, threads, a failure at every call.
 *
 * SEED, SEEDS (4; `make soak` takes 100), STRIDE (61) as in tests/hv/test_drill.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "drill/coop_rig.h"
#include "hv.h"

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t n = text ? strtoull(text, NULL, 10) : 0;
    return n ? n : otherwise;
}

static void expect_drill(struct hv_drill_options *o, struct hv_drill_report *r)
{
    struct fs_error err = { "" };
    o->kernel = coop_rig_ops();
    fs_status_t s = hv_drill(o, r, &err);
    if (s != FS_OK) {
        fail_msg("%s: %s\nrepeat: seed %llu, call %llu%s", fs_status_name(s), err.text, (unsigned long long)o->seed, (unsigned long long)o->fail_call,
                 o->threads ? ", threads" : "");
    }
    assert_int_equal(r->faults, 0);
    assert_int_equal(r->free_pages, r->expected_free_pages);
    assert_true(r->frames_moved > 0);
}

/* Every mover had a domain to move. */
static void note_movers(void *arg, const char *dimm, const struct hv_report *r, fs_status_t status, const char *error)
{
    unsigned *movers = arg;
    (void)dimm, (void)error;
    assert_true(status != FS_OK && status != FS_PARTIAL ? true : r->verified);     /* every page whose contents matter, of all movers */
    for (size_t i = 0; i < r->domain_count; i++) {
        *movers |= r->domains[i].moved > 0 ? 1u << r->domains[i].plan.mover : 0;
    }
}

static void seeds(bool threads, uint64_t count)
{
    uint64_t first = from_environment("SEED", 1), moved = 0;
    unsigned movers = 0;                        /* some seeds choose no guest of one kind */
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct hv_drill_report r;
        struct hv_drill_options o = { .seed = seed, .threads = threads, .on = { .arg = &movers, .on_report = note_movers } };
        expect_drill(&o, &r);
        moved += r.frames_moved;
    }
    assert_int_equal(movers & (1u << HV_MOVER_PV | 1u << HV_MOVER_HAP | 1u << HV_MOVER_COOP),
                     1u << HV_MOVER_PV | 1u << HV_MOVER_HAP | 1u << HV_MOVER_COOP);
    print_message("%llu seeds, %llu frames moved by three movers, 0 faults\n", (unsigned long long)count, (unsigned long long)moved);
}

static void in_one_thread(void **state)
{
    (void)state;
    seeds(false, from_environment("SEEDS", 4));
}

static void with_threads(void **state)
{
    (void)state;
    seeds(true, (from_environment("SEEDS", 4) + 3) / 4);
}

static void each_call_fails(void **state)
{
    (void)state;
    static const char *const guests[] = { "coop=c,16,2,1" };
    uint64_t stride = from_environment("STRIDE", 61), calls = UINT64_MAX, injected = 0;
    for (uint64_t n = 1 + stride / 2; n <= calls; n += stride) {
        struct hv_drill_report r;
        struct hv_drill_options o = { .seed = from_environment("SEED", 7), .dimms = 3, .dimm_mib = 32, .guests = guests, .guest_count = 1,
                                      .fail_call = n };
        expect_drill(&o, &r);
        calls = r.calls;
        injected += r.failures_injected;
    }
    assert_true(injected > 0);
    print_message("%llu calls of %llu failed once\n", (unsigned long long)injected, (unsigned long long)calls);
}

static void no_kernel_no_guest(void **state)
{
    (void)state;
    static const char *const guests[] = { "coop=c,16,2,1" };
    struct hv_drill_report r;
    struct fs_error err = { "" };
    struct hv_drill_options o = { .guests = guests, .guest_count = 1 };
    assert_int_equal(hv_drill(&o, &r, &err), FS_USAGE);
    assert_non_null(strstr(err.text, "no kernel"));
    static const char *const small[] = { "coop=c,8,2,1" };
    o = (struct hv_drill_options){ .guests = small, .guest_count = 1, .kernel = coop_rig_ops() };
    assert_int_equal(hv_drill(&o, &r, &err), FS_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_one_thread), cmocka_unit_test(with_threads), cmocka_unit_test(each_call_fails), cmocka_unit_test(no_kernel_no_guest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
