/*
 * test_drill.c - whole drills: many seeds, threads, a failure at every call, and rigs that are spoiled on purpose.
 *
 * SEED and SEEDS: which seeds and how many (50; `make soak` takes 1,000).  STRIDE: every STRIDE-th call of the engine to the machine
 * fails once (1: each of them).  A failure prints the words of the drill, and what repeats it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "drill.h"

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t n = text ? strtoull(text, NULL, 10) : 0;
    return n ? n : otherwise;
}

/* What varies with the seed beside the guests' shapes (hv/embedded/rig.c). */
static struct hv_drill_options options_of(uint64_t seed)
{
    return (struct hv_drill_options){ .seed = seed, .dimms = seed % 4 == 3 ? 3 : 4, .dimm_mib = 16, .evict = seed % 5 == 4,
                                      .max_blackout_ns = seed % 7 == 6 ? 2000000 : 0, .max_pause_ns = seed % 6 == 5 ? 200000 : 0 };
}

static void expect_drill(const struct hv_drill_options *o, struct hv_drill_report *r)
{
    struct fs_error err = { "" };
    fs_status_t s = hv_drill(o, r, &err);
    if (s != FS_OK) {
        char guests[256] = "";
        for (size_t i = 0; i < o->guest_count; i++) {
            size_t used = strlen(guests);
            (void)snprintf(guests + used, sizeof(guests) - used, " --guest %s", o->guests[i]);
        }
        fail_msg("%s: %s\nrepeat: frameshift drill --seed %llu --dimms %ux%llu%s%s%s%s%s --fail-call %llu", fs_status_name(s), err.text,
                 (unsigned long long)o->seed, o->dimms, (unsigned long long)o->dimm_mib, guests, o->evict ? " --evict" : "",
                 o->max_blackout_ns ? " --max-blackout 2ms" : "", o->max_pause_ns ? " --max-pause 200us" : "", o->threads ? " --threads" : "",
                 (unsigned long long)o->fail_call);
    }
    assert_int_equal(r->faults, 0);
    assert_int_equal(r->free_pages, r->expected_free_pages);
}

static void seeds(void **state)
{
    (void)state;
    uint64_t first = from_environment("SEED", 1), count = from_environment("SEEDS", 50), moved = 0, steps = 0, pages = 0, ns = 0;
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct hv_drill_report r;
        struct hv_drill_options o = options_of(seed);
        expect_drill(&o, &r);
        assert_true(r.frames_moved > 0 && r.writes > 0 && r.evacuations == 2 && r.steps == 10);
        moved += r.frames_moved;
        steps += r.steps;
        pages += r.pages_checked;
        ns += r.ns;
    }
    print_message("%llu seeds: %llu frames moved, %llu steps judged, %llu pages compared, 0 faults, %.1f s\n", (unsigned long long)count,
                  (unsigned long long)moved, (unsigned long long)steps, (unsigned long long)pages, (double)ns / 1e9);
}

static void with_threads(void **state)
{
    (void)state;
    uint64_t count = (from_environment("SEEDS", 50) + 9) / 10;
    for (uint64_t seed = 1; seed <= count + 1; seed++) {
        struct hv_drill_report r;
        struct hv_drill_options o = options_of(seed);
        o.threads = true;
        expect_drill(&o, &r);
        assert_true(r.frames_moved > 0 && r.writes > 0);
    }
}

/* ---- the same seed is the same run ---- */

static void hash_step(void *arg, const struct hv_drill_step *s)
{
    uint64_t *h = arg;
    const uint64_t words[] = { s->seed, (uint64_t)s->status, s->writes, s->frames_moved, s->frames_blocked, s->frames_onlined, s->frames_left,
                               s->frames_bound, s->pages_checked, s->faults };
    for (size_t i = 0; i < FS_ARRAY_SIZE(words); i++) {
        *h = (*h ^ words[i]) * 0x100000001b3ull;
    }
}

static void hash_event(void *arg, const struct fs_event *e)
{
    uint64_t *h = arg;
    *h = (*h ^ (uint64_t)e->id ^ e->a << 8 ^ e->b << 32 ^ e->time_ns) * 0x100000001b3ull;
}

static uint64_t trace_of(uint64_t seed)
{
    uint64_t hash = 1;
    struct hv_drill_report r;
    struct hv_drill_options o = options_of(seed);
    o.on = (struct hv_drill_callbacks){ .arg = &hash, .on_step = hash_step };
    o.on_event = hash_event;
    o.event_arg = &hash;
    expect_drill(&o, &r);
    return hash;
}

static void same_seed_same_run(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        assert_true(trace_of(seed) == trace_of(seed));
    }
    assert_true(trace_of(1) != trace_of(2));
}

/* ---- failures ---- */

static void each_call_fails(const char *const *guests, size_t guest_count, bool evict)
{
    uint64_t stride = from_environment("STRIDE", 97), calls = UINT64_MAX, injected = 0;
    for (uint64_t n = 1 + stride / 2; n <= calls; n += stride) {
        struct hv_drill_report r;
        struct hv_drill_options o = { .seed = from_environment("SEED", 7), .dimms = 3, .dimm_mib = 16, .guests = guests,
                                      .guest_count = guest_count, .fail_call = n, .evict = evict };
        expect_drill(&o, &r);
        calls = r.calls;                /* with the repeated step: every call of an undisturbed drill is reached */
        injected += r.failures_injected;
    }
    assert_true(injected > 0);
    print_message("%llu calls of %llu failed once\n", (unsigned long long)injected, (unsigned long long)calls);
}

static void pv_each_call_fails(void **state)
{
    (void)state;
    static const char *const guests[] = { "pv=a,5,2,1", "pv=b,4,1,1" };
    each_call_fails(guests, 2, false);
}

static void pvh_each_call_fails(void **state)
{
    (void)state;
    static const char *const guests[] = { "pvh=a,6,2,1" };
    each_call_fails(guests, 1, false);
}

static void mixed_each_call_fails(void **state)
{
    (void)state;
    static const char *const guests[] = { "pv=a,4,2,1", "pvh=b,4,1,1" };
    each_call_fails(guests, 2, true);
}

/* ---- a drill that cannot fail proves nothing: each judge is lied to or spoiled ---- */

static struct rig_ops spoiled;
static unsigned judged;

static uint64_t judge_finds(struct rig *rig, FILE *out, uint64_t *pages)
{
    uint64_t faults = hv_embedded_rig.judge(rig, out, pages);
    if (++judged < 4) {
        return faults;
    }
    fprintf(out, "a byte is wrong\n");
    return faults + 1;
}

static void account_finds(struct rig *rig, const struct mfn_range_set *ranges, struct rig_account *out)
{
    hv_embedded_rig.account(rig, ranges, out);
    out->frames++;
}

static bool shutdown_lacks(struct rig *rig, uint64_t *free_pages, uint64_t *expected)
{
    (void)hv_embedded_rig.shutdown(rig, free_pages, expected);
    (*free_pages)--;
    return *free_pages == *expected;
}

static fs_status_t guests_cannot_run(struct rig *rig, struct fs_error *err)
{
    (void)rig;
    return fs_fail(err, FS_NO_MEMORY, "no thread");
}

static void expect_refusal(fs_status_t want, const char *word)
{
    struct hv_drill_options o = options_of(1);
    struct hv_drill_report r;
    struct fs_error err = { "" };
    judged = 0;
    assert_int_equal(drill_run(&spoiled, &o, &r, &err), want);
    assert_non_null(strstr(err.text, word));
    assert_int_equal(r.seeds_failed, 1);
    assert_int_equal(r.first_failed_seed, 1);
}

static void spoiled_rigs_fail(void **state)
{
    (void)state;
    spoiled = hv_embedded_rig;
    spoiled.judge = judge_finds;
    expect_refusal(FS_CORRUPT, "a byte is wrong");
    spoiled = hv_embedded_rig;
    spoiled.account = account_finds;
    expect_refusal(FS_CORRUPT, "somebody else has only");
    spoiled = hv_embedded_rig;
    spoiled.shutdown = shutdown_lacks;
    expect_refusal(FS_CORRUPT, "are free at the end");
    spoiled = hv_embedded_rig;
    spoiled.start = guests_cannot_run;
    expect_refusal(FS_NO_MEMORY, "no thread");
}

/* ---- the rest ---- */

static void bad_words(void **state)
{
    (void)state;
    static const char *const bad[] = { "pv", "pv=", "pv=a", "pv=a,4,1", "pv=a,4,1,9", "pv=a,4,0,1", "pv=a,3,1,1", "pv=a,4,1,1x", "hvm=a,4,1,1",
                                       "pv=a b,4,1,1", "pv=a,-4,1,1", "pv=a,4,17,1", "pv=a,99999999,1,1", "pv=a,1048577,1,1" };
    for (size_t i = 0; i < FS_ARRAY_SIZE(bad); i++) {
        struct hv_drill_options o = { .guests = &bad[i], .guest_count = 1 };
        struct hv_drill_report r;
        struct fs_error err = { "" };
        assert_int_equal(hv_drill(&o, &r, &err), FS_USAGE);
        assert_true(err.text[0] != '\0');
        assert_int_equal(r.seeds, 0);
    }
    static const char *const twice[] = { "pv=a,4,1,1", "pvh=a,4,1,1" };
    struct hv_drill_options o = { .guests = twice, .guest_count = 2 };
    struct hv_drill_report r;
    struct fs_error err = { "" };
    assert_int_equal(hv_drill(&o, &r, &err), FS_USAGE);
    o = (struct hv_drill_options){ .dimms = 1 };
    assert_int_equal(hv_drill(&o, &r, &err), FS_USAGE);
    static const char *const large[] = { "pv=a,40,1,1" };
    o = (struct hv_drill_options){ .dimm_mib = 16, .guests = large, .guest_count = 1 };
    assert_int_equal(hv_drill(&o, &r, &err), FS_NO_ROOM);
}

static volatile int stop;

static void stop_after_plan(void *arg, const struct hv_plan *plan)
{
    (void)arg, (void)plan;
    stop = 1;
}

static void an_interrupt_ends_it(void **state)
{
    (void)state;
    struct hv_drill_options o = { .seeds = 3, .dimm_mib = 16, .interrupted = &stop, .on = { .on_plan = stop_after_plan } };
    struct hv_drill_report r;
    struct fs_error err = { "" };
    stop = 0;
    assert_int_equal(hv_drill(&o, &r, &err), FS_INTERRUPTED);
    assert_int_equal(r.seeds, 1);
    assert_int_equal(r.faults, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seeds),
        cmocka_unit_test(with_threads),
        cmocka_unit_test(same_seed_same_run),
        cmocka_unit_test(pv_each_call_fails),
        cmocka_unit_test(pvh_each_call_fails),
        cmocka_unit_test(mixed_each_call_fails),
        cmocka_unit_test(spoiled_rigs_fail),
        cmocka_unit_test(bad_words),
        cmocka_unit_test(an_interrupt_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
