/*
 * test_status.c - statuses, reasons, events, assertions, backend check, mover helpers.
 *
 * Checks the invariants of status.c (I1-I3), events.c, backend.c and mover.c
 * (I1, I2); a failed assertion is observed from outside, in a forked child.
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

#include "backend.h"
#include "frameshift/assert.h"
#include "frameshift/status.h"
#include "frameshift/trace.h"
#include "mover.h"

static void names_are_unique(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FS_STATUS_COUNT; i++) {
        assert_true(*fs_status_name(i) && *fs_status_text(i));
        assert_in_range(fs_status_exit_code(i), 0, 14);
        assert_int_equal(fs_status_exit_code(i) == 0, i == FS_OK);
        for (unsigned k = 0; k < i; k++) {
            assert_string_not_equal(fs_status_name(i), fs_status_name(k));
        }
    }
    for (unsigned i = 0; i < FS_REASON_COUNT; i++) {
        for (unsigned k = 0; k < i; k++) {
            assert_string_not_equal(fs_reason_name(i), fs_reason_name(k));
        }
    }
    for (unsigned i = 0; i < EV_COUNT; i++) {
        assert_true(*fs_event_arg(i, 0) && *fs_event_arg(i, 1));
        for (unsigned k = 0; k < i; k++) {
            assert_string_not_equal(fs_event_name(i), fs_event_name(k));
        }
    }
}

static void values_the_users_rely_on(void **state)
{
    (void)state;
    assert_string_equal(fs_status_name(FS_NO_ROOM), "NO_ROOM");
    assert_int_equal(fs_status_exit_code(FS_NO_ROOM), 6);
    assert_int_equal(fs_status_exit_code(FS_NEEDS_RECOVER), 13);
    assert_string_equal(fs_reason_name(FS_REASON_VCPU_INFO), "vcpu-info");
    assert_int_equal(fs_reason_verdict(FS_REASON_VCPU_INFO), FS_VERDICT_NEVER);
    assert_int_equal(fs_reason_verdict(FS_REASON_GRANTED), FS_VERDICT_LATER);
    assert_string_equal(fs_event_name(EV_DROP), "drop-references");
    assert_string_equal(fs_event_arg(EV_SUSPEND, 1), "handshake_ns");
}

static void unknown_numbers_are_answered(void **state)
{
    (void)state;
    assert_string_equal(fs_status_name((fs_status_t)99), "UNKNOWN");
    assert_int_equal(fs_status_exit_code((fs_status_t)99), 70);
    assert_string_equal(fs_reason_name((enum fs_reason)250), "unknown");
    assert_int_equal(fs_reason_verdict((enum fs_reason)250), FS_VERDICT_UNKNOWN);
    assert_string_equal(fs_event_name((enum fs_event_id)1000), "unknown");
    assert_string_equal(fs_event_arg(EV_PROBE, 2), "unknown");
    assert_string_equal(fs_event_arg(EV_PROBE, -1), "unknown");
}

static void fail_fills_words(void **state)
{
    struct fs_error err;
    char big[2000];

    (void)state;
    assert_int_equal(fs_fail(NULL, FS_IO, "%d", 1), FS_IO);
    assert_int_equal(fs_fail(&err, FS_BUSY, "pid %d", 42), FS_BUSY);
    assert_string_equal(err.text, "pid 42");
    assert_int_equal(fs_fail(&err, FS_IO, "journal: %s", err.text), FS_IO);
    assert_string_equal(err.text, "journal: pid 42");

    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    memset(&err, 0x7f, sizeof(err));
    (void)fs_fail(&err, FS_IO, "%s", big);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    assert_string_equal(err.text + sizeof(err.text) - 5, "x...");
    big[sizeof(err.text) - 1] = '\0';       /* fits exactly: no mark */
    (void)fs_fail(&err, FS_IO, "%s", big);
    assert_string_equal(err.text, big);
}

/* Runs fn in a child; the child's stderr in text, its wait status back. */
static int in_child(void (*fn)(void), char *text, size_t bytes)
{
    int fds[2], status;
    size_t got = 0;
    ssize_t n;

    assert_int_equal(pipe(fds), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        dup2(fds[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        fn();
        _exit(0);
    }
    close(fds[1]);
    while (got < bytes - 1 && (n = read(fds[0], text + got, bytes - 1 - got)) > 0) {
        got += (size_t)n;
    }
    text[got] = '\0';
    close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void violate_cmp(void)
{
    uint64_t frames = 300, limit = 7;

    ASSERT_CMP(frames, <=, limit);
}

static void hold(void)
{
    ASSERT(1 + 1 == 2);
    ASSERT_CMP(3, <, 4);
}

static void assertions_print_values_and_abort(void **state)
{
    char text[1024];
    int status;

    (void)state;
    status = in_child(violate_cmp, text, sizeof(text));
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "test_status.c:"));
    assert_non_null(strstr(text, "frames <= limit"));
    assert_non_null(strstr(text, "a=300 0x12c, b=7 0x7"));
    status = in_child(hold, text, sizeof(text));
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_string_equal(text, "");
}

/* A backend whose every member is set, to take single ones out of. */
static union {
    struct hv_backend_ops ops;
    void *members[sizeof(struct hv_backend_ops) / sizeof(void *)];
} table;
static size_t missing;

static void check_table(void)
{
    static char any;

    for (size_t i = 0; i < FS_ARRAY_SIZE(table.members); i++) {
        table.members[i] = i == missing ? NULL : &any;
    }
    hv_backend_check(&table.ops);
}

/* Members that a machine may do without; adding one here is to be a decision. */
static bool is_optional(size_t member)
{
    static const size_t optional[] = {
        offsetof(struct hv_backend_ops, frame_refs),
        offsetof(struct hv_backend_ops, grants_begin),
        offsetof(struct hv_backend_ops, grants_read),
        offsetof(struct hv_backend_ops, grants_end),
        offsetof(struct hv_backend_ops, coop_find),
        offsetof(struct hv_backend_ops, coop_wait),
    };

    for (size_t i = 0; i < FS_ARRAY_SIZE(optional); i++) {
        if (optional[i] == member * sizeof(void *)) {
            return true;
        }
    }
    return false;
}

static void every_missing_member_is_found(void **state)
{
    char text[1024];

    (void)state;
    for (missing = 0; missing <= FS_ARRAY_SIZE(table.members); missing++) {
        int status = in_child(check_table, text, sizeof(text));

        if (missing < FS_ARRAY_SIZE(table.members) && !is_optional(missing)) {
            assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
            assert_non_null(strstr(text, "ops->"));
        } else {
            assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        }
    }
}

static void blockers_grow(void **state)
{
    struct mover_result r = { 0 };

    (void)state;
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(mover_block(&r, mfn_make(i), i + 5, 3, FS_REASON_GRANTED), FS_OK);
    }
    assert_int_equal(r.blocker_count, 1000);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(r.blockers[i].frame, i);
        assert_int_equal(r.blockers[i].gfn, i + 5);
        assert_int_equal(r.blockers[i].domid, 3);
        assert_int_equal(r.blockers[i].reason, FS_REASON_GRANTED);
    }
    free(r.blockers);
}

static void phases_add_up(void **state)
{
    struct hv_domain_report r;
    char name[24];
    uint64_t ns = 0, count = 0;

    (void)state;
    memset(&r, 0, sizeof(r));
    mover_phase(&r, "copy", 10, 1);
    mover_phase(&r, "pin", 5, 2);
    mover_phase(&r, "copy", 100, 10);
    assert_int_equal(r.phase_count, 2);
    assert_string_equal(r.phases[0].name, "copy");
    assert_int_equal(r.phases[0].ns, 110);
    assert_int_equal(r.phases[0].count, 11);

    memset(&r, 0, sizeof(r));
    for (int i = 0; i < HV_PHASES_MAX + 20; i++) {
        snprintf(name, sizeof(name), "phase %d", i);
        mover_phase(&r, name, 1, 2);
        mover_phase(&r, name, 1, 2);
    }
    assert_int_equal(r.phase_count, HV_PHASES_MAX);
    assert_string_equal(r.phases[HV_PHASES_MAX - 1].name, "other");
    for (size_t i = 0; i < r.phase_count; i++) {
        ns += r.phases[i].ns;
        count += r.phases[i].count;
    }
    assert_int_equal(ns, 2 * (HV_PHASES_MAX + 20));
    assert_int_equal(count, 4 * (HV_PHASES_MAX + 20));
}

static uint64_t fixed_clock(struct hv_backend *be)
{
    (void)be;
    return 777;
}

static void keep_event(void *arg, const struct fs_event *e)
{
    *(struct fs_event *)arg = *e;
}

static void events_carry_time_and_numbers(void **state)
{
    struct hv_backend_ops ops = { .clock_ns = fixed_clock };
    struct hv_backend be = { .ops = &ops };
    struct fs_event got = { 0 };
    struct mover_ctx ctx = { .be = &be, .on_event = keep_event, .event_arg = &got };

    (void)state;
    mover_event(&ctx, EV_COPY, 4, 11, 22, "words");
    assert_int_equal(got.id, EV_COPY);
    assert_int_equal(got.domid, 4);
    assert_int_equal(got.time_ns, 777);
    assert_int_equal(got.a, 11);
    assert_int_equal(got.b, 22);
    assert_string_equal(got.note, "words");
    ctx.on_event = NULL;
    mover_event(&ctx, EV_PIN, 4, 1, 2, NULL);
    assert_int_equal(got.id, EV_COPY);
    assert_string_equal(hv_mover_name(HV_MOVER_HAP), "hap");
    assert_string_equal(hv_mover_name((enum hv_mover)77), "unknown");
}

static void vcpu_free_leaves_nothing(void **state)
{
    struct hv_pv_vcpu v = { .vcpu = 3, .opaque_bytes = 16, .opaque = malloc(16) };

    (void)state;
    hv_vcpu_free(&v);
    assert_null(v.opaque);
    assert_int_equal(v.opaque_bytes, 0);
    hv_vcpu_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_unique),
        cmocka_unit_test(values_the_users_rely_on),
        cmocka_unit_test(unknown_numbers_are_answered),
        cmocka_unit_test(fail_fills_words),
        cmocka_unit_test(assertions_print_values_and_abort),
        cmocka_unit_test(every_missing_member_is_found),
        cmocka_unit_test(blockers_grow),
        cmocka_unit_test(phases_add_up),
        cmocka_unit_test(events_carry_time_and_numbers),
        cmocka_unit_test(vcpu_free_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
