/*
 * test_hap.c - the mover for translated guests against a small machine that does not forgive.
 *
 * Checks, in every test and after every end, good or bad: each byte of the guest, that no frame that Xen holds
 * moved, that the scratch gfns are empty, max_pages as before and no pause left over (fake_hap.h).
 * Failures and kills are placed at every backend call, kills at every journal record as well, and inside
 * the recovery.  FS_TEST_SEED sets the first seed; a failure prints its seed and place.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fake_hap.h"

#define RINGS 2u                        /* xenstore, console; the unused service ring moves */
#define HELD_IN_RANGE 4u                /* two vcpu_info, two control blocks; the event array lies elsewhere */

static char state_dir[64];

static int make_dir(void **state)
{
    (void)state;
    (void)snprintf(state_dir, sizeof(state_dir), "%s/fs-hap-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    return mkdtemp(state_dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[128];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", state_dir);
    return system(command) == 0 ? 0 : -1;
}

static uint64_t first_seed(void)
{
    const char *text = getenv("FS_TEST_SEED");

    return text ? strtoull(text, NULL, 0) : 1;
}

struct run {
    fs_status_t st;
    struct fs_error err;
    struct hv_domain_report report;
    size_t frames, blockers;
    struct fs_blocker *list;
};

static fs_status_t move_once(struct run *r, bool verify, uint32_t crash_at)
{
    struct hv_evacuate_options options = { .verify = verify };
    struct mfn_range range = FAKE_RANGE;
    struct mfn_range_set ranges = { .ranges = &range, .count = 1 };
    struct mover_ctx ctx = { .be = fake_hap_backend(), .options = &options, .ranges = &ranges };
    struct mover_result result = { .report = &r->report };
    struct room room;
    struct hv_domain dom;
    struct mover_list list;

    r->frames = fake_hap_list(&list);
    memset(&r->report, 0, sizeof(r->report));
    fake_hap_room(&room);
    fake_hap_domain(&dom);
    ctx.room = &room;
    assert_int_equal(journal_open(state_dir, false, &ctx.journal, &r->err), FS_OK);
    journal_crash_at(ctx.journal, crash_at);
    r->st = mover_hap.move(&ctx, &dom, &list, &result, &r->err);
    if (r->st != FS_NEEDS_RECOVER) {
        assert_int_equal(journal_finish(ctx.journal, NULL), FS_OK);
    }
    journal_close(ctx.journal);
    r->blockers = result.blocker_count;
    r->list = result.blockers;
    mover_list_free(&list);
    return r->st;
}

static fs_status_t recover_once(struct hv_recover_report *out, uint32_t crash_at, struct fs_error *err)
{
    struct hv_evacuate_options options = { 0 };
    struct mfn_range range = FAKE_RANGE;
    struct mfn_range_set ranges = { .ranges = &range, .count = 1 };
    struct room room = { 0 };
    struct mover_ctx ctx = { .be = fake_hap_backend(), .options = &options, .ranges = &ranges, .room = &room };

    memset(out, 0, sizeof(*out));
    fs_status_t st = journal_open(state_dir, true, &ctx.journal, err);
    if (st != FS_OK) {
        return st;
    }
    journal_crash_at(ctx.journal, crash_at);
    st = mover_hap.recover(&ctx, FAKE_DOMID, 0, journal_count(ctx.journal), out, err);
    if (st == FS_OK) {
        assert_int_equal(journal_finish(ctx.journal, NULL), FS_OK);
    }
    journal_close(ctx.journal);
    return st;
}

#define FAIL_AT(where, n, ...)                                                       \
    do {                                                                             \
        print_error("%s %u: ", where, (unsigned)(n));                                \
        print_error(__VA_ARGS__);                                                    \
        print_error("\n");                                                           \
        fail();                                                                      \
    } while (0)

/* What must hold at every end. */
static void check_end(const char *where, uint32_t n, uint64_t max_pages, bool scrubbed)
{
    fake_hap_stop_guest();
    struct fake_result r = fake_hap_result();
    const char *words = fake_hap_check();

    if (words) {
        FAIL_AT(where, n, "%s", words);
    }
    if (r.scratch_left || r.pauses_left || r.max_pages != max_pages || (scrubbed && r.unscrubbed)) {
        FAIL_AT(where, n, "scratch %llu, pauses %llu, max %llu (was %llu), unscrubbed %llu", (unsigned long long)r.scratch_left,
                (unsigned long long)r.pauses_left, (unsigned long long)r.max_pages, (unsigned long long)max_pages,
                (unsigned long long)r.unscrubbed);
    }
}

static void check_moved(const struct run *r, size_t may_stay)
{
    struct fake_result f = fake_hap_result();

    assert_int_equal(r->report.moved + r->blockers + (r->frames - r->report.moved - r->blockers), r->frames);
    assert_int_equal(f.in_range_left, r->blockers);
    if (r->blockers > may_stay) {
        for (size_t i = 0; i < r->blockers; i++) {
            print_error("stays: gfn %llu (%s)\n", (unsigned long long)r->list[i].gfn, fs_reason_name((enum fs_reason)r->list[i].reason));
        }
        fail();
    }
}

static void everything_moves(void **state)
{
    struct fake_options o = { .seed = first_seed(), .quiet = true, .superpages = 8 };
    struct run r;

    (void)state;
    fake_hap_make(&o);
    uint64_t max = fake_hap_result().max_pages;
    assert_int_equal(move_once(&r, false, 0), FS_OK);
    check_moved(&r, RINGS + HELD_IN_RANGE);
    assert_int_equal(r.blockers, RINGS + HELD_IN_RANGE);
    for (size_t i = 0; i < r.blockers; i++) {
        uint64_t gfn = r.list[i].gfn;
        enum fs_reason want = gfn == 1030 ? FS_REASON_XENSTORE_RING : gfn == 1031 ? FS_REASON_CONSOLE_RING
            : gfn == 1060 || gfn == 1061 ? FS_REASON_EVTCHN_CONTROL : FS_REASON_VCPU_INFO;
        assert_int_equal(r.list[i].reason, want);
        assert_true(fake_hap_is_held(gfn) || gfn == 1030 || gfn == 1031);
    }
    assert_int_equal(r.report.superpages_before, 3);
    assert_int_equal(r.report.superpages_after, 1);     /* the other two: a held page, a page that looked held */
    assert_int_equal(r.report.blocked, r.blockers);
    assert_true(r.report.pauses > 0 && r.report.max_pause_ns >= r.report.p99_pause_ns && r.report.p99_pause_ns >= r.report.p50_pause_ns &&
                r.report.p50_pause_ns > 0);
    free(r.list);
    check_end("plain move, seed", (uint32_t)o.seed, max, true);
}

static void a_busy_guest(void **state)
{
    uint64_t seed = first_seed();

    (void)state;
    for (uint64_t s = seed; s < seed + 60; s++) {
        struct fake_options o = { .seed = s, .superpages = (uint32_t)(s % 5), .balloons = s % 2, .grants = s % 3 != 0 };
        struct run r;

        fake_hap_make(&o);
        uint64_t max = fake_hap_result().max_pages;
        if (move_once(&r, s % 4 == 0, 0) != FS_OK) {
            FAIL_AT("seed", s, "%s", r.err.text);
        }
        if (r.report.mismatches != 0 || (s % 4 == 0 && r.report.pages_hashed < r.report.moved)) {
            FAIL_AT("seed", s, "%llu mismatches, %llu hashed of %llu", (unsigned long long)r.report.mismatches,
                    (unsigned long long)r.report.pages_hashed, (unsigned long long)r.report.moved);
        }
        check_end("busy guest, seed", (uint32_t)s, max, true);
        check_moved(&r, RINGS + HELD_IN_RANGE + FAKE_GRANTS);
        free(r.list);
    }
}

static void damage_is_seen(void **state)
{
    struct fake_options o = { .seed = first_seed(), .quiet = true, .superpages = 8, .bad_word_at = 3 };
    struct run r;

    (void)state;
    fake_hap_make(&o);
    assert_int_equal(move_once(&r, true, 0), FS_OK);
    assert_int_equal(r.report.mismatches, 3);
    assert_non_null(fake_hap_check());                  /* and so does the test's own check */
    free(r.list);
}

/* Without proof of what Xen holds, nothing moves. */
static void no_proof_no_move(void **state)
{
    struct fake_options all[] = {
        { .seed = 1, .quiet = true, .superpages = 8, .no_refs = true },
        { .seed = 1, .quiet = true, .superpages = 8, .no_kinds = true },
        { .seed = 1, .quiet = true, .superpages = 8, .lose_control_block = true },
    };
    (void)state;
    for (size_t i = 0; i < FS_ARRAY_SIZE(all); i++) {
        struct run r;

        fake_hap_make(&all[i]);
        uint64_t max = fake_hap_result().max_pages;
        assert_int_equal(move_once(&r, false, 0), FS_UNSUPPORTED);
        assert_int_equal(r.report.moved, 0);
        assert_int_equal(fake_hap_result().in_range_left, r.frames);
        check_end("no proof, case", (uint32_t)i, max, true);
    }
}

static void no_superpage_to_be_had(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 3; n++) {                  /* 1: the stage gets the only one, and its frames serve */
        struct fake_options o = { .seed = first_seed(), .quiet = true, .superpages = n };
        struct run r;

        fake_hap_make(&o);
        uint64_t max = fake_hap_result().max_pages;
        assert_int_equal(move_once(&r, true, 0), FS_OK);
        assert_int_equal(r.blockers, RINGS + HELD_IN_RANGE);
        assert_int_equal(r.report.superpages_after, n > 1);
        free(r.list);
        check_end("few superpages", n, max, true);
    }
}

static void a_vcpu_comes_up(void **state)
{
    (void)state;
    for (uint64_t s = first_seed(); s < first_seed() + 30; s++) {
        struct fake_options o = { .seed = s, .superpages = 8, .hotplug = true };
        struct run r;

        fake_hap_make(&o);
        uint64_t max = fake_hap_result().max_pages;
        assert_int_equal(move_once(&r, false, 0), FS_OK);
        free(r.list);
        check_end("vCPU comes up, seed", (uint32_t)s, max, true);
    }
}

static void failure_at_every_call(void **state)
{
    (void)state;
    for (uint32_t n = 1;; n++) {
        struct fake_options o = { .seed = first_seed(), .quiet = n % 2, .superpages = 8, .grants = true, .action = FAKE_FAIL, .at_call = n };
        struct run r;

        fake_hap_make(&o);
        uint64_t max = fake_hap_result().max_pages;
        fs_status_t st = move_once(&r, false, 0);
        free(r.list);
        if (st == FS_NEEDS_RECOVER) {
            struct hv_recover_report out;

            fake_hap_process_died();
            fake_hap_arm(FAKE_NOTHING, 0);
            st = recover_once(&out, 0, &r.err);
            if (st != FS_OK) {
                FAIL_AT("recovery after failure at call", n, "%s", r.err.text);
            }
            check_end("failure and recovery at call", n, max, false);
            continue;
        }
        check_end("failure at call", n, max, false);
        if (fake_hap_result().calls < n) {
            print_message("failed at each of %u calls\n", n - 1);
            return;
        }
    }
}

static void death_at_every_call(void **state)
{
    (void)state;
    for (uint32_t n = 1;; n++) {
        struct fake_options o = { .seed = first_seed(), .quiet = true, .superpages = 8, .action = FAKE_DIE, .at_call = n };
        struct run r;

        fake_hap_make(&o);
        fs_status_t st = move_once(&r, false, 0);
        free(r.list);
        if (!fake_hap_gone()) {
            return;
        }
        if (st != FS_GUEST_GONE && st != FS_OK) {       /* OK: it died after the last call that could tell */
            FAIL_AT("death at call", n, "status %s: %s", fs_status_name(st), r.err.text);
        }
    }
}

/* ---- kills ---- */

/* True: the child was killed; false: it came to its end. */
static bool child(fs_status_t (*fn)(uint32_t crash_at, bool *fine), uint32_t crash_at)
{
    int status;

    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        bool fine = false;
        (void)fn(crash_at, &fine);
        _exit(fine ? 0 : 1);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFSIGNALED(status)) {
        assert_int_equal(WTERMSIG(status), SIGKILL);
        return true;
    }
    assert_int_equal(WEXITSTATUS(status), 0);
    return false;
}

static fs_status_t child_move(uint32_t crash_at, bool *fine)
{
    struct run r;
    fs_status_t st = move_once(&r, false, crash_at);

    *fine = st == FS_OK;
    return st;
}

static fs_status_t child_recover(uint32_t crash_at, bool *fine)
{
    struct hv_recover_report out;
    struct fs_error err;
    fs_status_t st = recover_once(&out, crash_at, &err);

    *fine = st == FS_OK;
    return st;
}

static struct fake_options killed(uint32_t n, enum fake_action action)
{
    return (struct fake_options){ .seed = first_seed() + n, .superpages = n % 3 + 1, .grants = true, .balloons = true, .action = action,
                                  .at_call = n };
}

static void kill_at_every_call(void **state)
{
    (void)state;
    for (uint32_t n = 1;; n++) {
        struct fake_options o = killed(n / 2 + 1, n % 2 ? FAKE_KILL_AFTER : FAKE_KILL_BEFORE);

        fake_hap_make(&o);
        uint64_t max = fake_hap_result().max_pages;
        bool dead = child(child_move, 0);
        uint64_t calls = fake_hap_result().calls;
        fake_hap_process_died();
        fake_hap_arm(FAKE_NOTHING, 0);
        if (dead && child(child_recover, 0)) {
            FAIL_AT("killed at call", n / 2 + 1, "recovery was killed");
        }
        fake_hap_process_died();
        check_end(n % 2 ? "killed after call" : "killed before call", n / 2 + 1, max, false);
        if (!dead && calls < o.at_call) {
            print_message("killed before and after each of %u calls\n", o.at_call - 1);
            return;
        }
    }
}

static void kill_at_every_record(void **state)
{
    (void)state;
    for (uint32_t n = 1;; n++) {
        struct fake_options o = killed(n, FAKE_NOTHING);

        fake_hap_make(&o);
        uint64_t max = fake_hap_result().max_pages;
        bool dead = child(child_move, n);
        fake_hap_process_died();
        if (!dead) {
            assert_true(n > 6);
            print_message("killed at each of %u records\n", n - 1);
            return;
        }
        assert_false(child(child_recover, 0));
        check_end("killed at record", n, max, false);
    }
}

/* The recovery is killed at each of its calls too, after a kill at the places that matter most: in pauses. */
static void kill_in_recovery(void **state)
{
    unsigned kills = 0;

    (void)state;
    for (uint32_t n = 60; n < 160; n += 9) {
        for (uint32_t k = 1;; k++) {
            struct fake_options o = killed(n, FAKE_KILL_AFTER);

            fake_hap_make(&o);
            uint64_t max = fake_hap_result().max_pages;
            bool dead = child(child_move, 0);
            fake_hap_process_died();
            fake_hap_arm(k % 2 ? FAKE_KILL_AFTER : FAKE_KILL_BEFORE, k / 2 + 1);
            bool again = dead && child(child_recover, 0);
            bool reached = fake_hap_result().calls > k / 2;
            fake_hap_process_died();
            fake_hap_arm(FAKE_NOTHING, 0);
            if (again) {
                kills++;
                assert_false(child(child_recover, 0));
                fake_hap_process_died();
            }
            check_end("killed again in recovery at call", n * 1000 + k, max, false);
            if (!dead || !reached) {
                break;
            }
        }
    }
    print_message("killed %u times in recovery\n", kills);
    assert_true(kills > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_moves),
        cmocka_unit_test(a_busy_guest),
        cmocka_unit_test(damage_is_seen),
        cmocka_unit_test(no_proof_no_move),
        cmocka_unit_test(no_superpage_to_be_had),
        cmocka_unit_test(a_vcpu_comes_up),
        cmocka_unit_test(failure_at_every_call),
        cmocka_unit_test(death_at_every_call),
        cmocka_unit_test(kill_at_every_call),
        cmocka_unit_test(kill_at_every_record),
        cmocka_unit_test(kill_in_recovery),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
