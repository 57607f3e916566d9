/* test_alloc_driver.c - the speed driver on an allocator that is right, and on ones that are broken in each way it looks for. */
#include <jansson.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

struct answer { int code; char out[1 << 16]; };

/* build/bench beside build/tests/guest/this */
static void bench_dir(char *dir, size_t size)
{
    ssize_t n = readlink("/proc/self/exe", dir, size - 1);

    assert_true(n > 0);
    dir[n] = '\0';
    for (unsigned up = 0; up < 3; up++) {
        *strrchr(dir, '/') = '\0';
    }
    strcat(dir, "/bench");
}

static void drive(const char *fault, const char *subject, struct answer *a)
{
    char dir[PATH_MAX], command[3 * PATH_MAX];
    size_t n;
    FILE *f;

    bench_dir(dir, sizeof(dir) - 16);
    (void)snprintf(command, sizeof(command), "FRAMESHIFT_SUBJECT_FAULT=%s %s/alloc -j -r 1 -m 64 -o 256 -s %s/%s 2>&1", fault, dir, dir, subject);
    f = popen(command, "r");
    assert_non_null(f);
    n = fread(a->out, 1, sizeof(a->out) - 1, f);
    a->out[n] = '\0';
    a->code = pclose(f);
}

/* Every combination, as JSON, each figure there. */
static void test_right(void **state)
{
    static const char *const keys[] = { "pair_median_ns", "pair_mean_ns", "alloc_median_ns", "alloc_p99_ns", "free_median_ns", "free_p99_ns",
                                        "metadata_bytes_per_page", "failed", "ratio_to_last", "beside_share" };
    static struct answer a;
    unsigned lines = 0, seen[4] = { 0 };
    bool measured;
    json_t *side;

    (void)state;
    drive("none", "subject_plain.so", &a);
    assert_int_equal(a.code, 0);
    for (char *line = strtok(a.out, "\n"); line != NULL; line = strtok(NULL, "\n"), lines++) {
        static const char *const workloads[] = { "bulk", "random", "together", "repeat" };
        json_t *o = json_loads(line, 0, NULL);

        assert_non_null(o);
        for (size_t k = 0; k < sizeof(keys) / sizeof(keys[0]); k++) {
            assert_true(json_is_number(json_object_get(o, keys[k])));
        }
        for (unsigned w = 0; w < 4; w++) {
            seen[w] += strcmp(json_string_value(json_object_get(o, "workload")), workloads[w]) == 0;
        }
        assert_int_equal(json_integer_value(json_object_get(o, "failed")), 0);
        measured = json_real_value(json_object_get(o, "pair_median_ns")) > 0;           /* there was a whole batch */
        assert_true(json_real_value(json_object_get(o, "ratio_to_last")) == (measured ? 1.0 : 0.0));     /* it is the last itself */
        assert_true(json_real_value(json_object_get(json_object_get(o, "a_pair"), "calls")) >= 1.0);
        side = json_object_get(o, "second_thread_ratio");
        assert_true(json_is_null(side) || (json_is_real(side) && json_integer_value(json_object_get(o, "threads")) > 1));
        json_decref(o);
    }
    assert_int_equal(lines, 4 * 3 * 2 * 2);             /* workloads, orders, empty and nearly full, threads */
    for (unsigned w = 0; w < 4; w++) {
        assert_int_equal(seen[w], 12);
    }
}

static void test_broken(void **state)
{
    static const struct { const char *fault, *says; } cases[] = {
        { "twice", "in use already" }, { "misaligned", "misaligned" }, { "outside", "out of bounds" }, { "lost", "lost frames" },
        { "full", "does not start" },
    };
    static struct answer a;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        drive(cases[i].fault, "subject_plain.so", &a);
        if (!WIFEXITED(a.code) || WEXITSTATUS(a.code) != 1 || strstr(a.out, cases[i].says) == NULL) {
            fail_msg("%s: exit %d, %s", cases[i].fault, a.code, a.out);
        }
    }
    drive("none", "nothing.so", &a);
    assert_int_equal(WEXITSTATUS(a.code), 1);
    assert_non_null(strstr(a.out, "nothing.so"));
    drive("none", "alloc", &a);                         /* no subject */
    assert_int_equal(WEXITSTATUS(a.code), 1);
}

/* Ours, in short: with frozen pages and with counted ones. While memory is plenty nothing leaves the fast path. */
static void test_ours(void **state)
{
    static const char *const names[] = { "alloc_slow", "pcp_refill", "pcp_flush" };
    static struct answer a;

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        drive("none", i == 0 ? "subject_mm.so" : "subject_mm_counted.so", &a);
        if (a.code != 0) {
            fail_msg("%s", a.out);
        }
        for (char *line = strtok(a.out, "\n"); line != NULL; line = strtok(NULL, "\n")) {
            json_t *o = json_loads(line, 0, NULL), *counts = json_object_get(o, "a_pair");

            assert_non_null(o);
            for (unsigned k = 0; k < 3; k++) {
                assert_true(json_is_real(json_object_get(counts, names[k])));
            }
            assert_true(json_is_true(json_object_get(o, "nearly_full")) || json_real_value(json_object_get(counts, "alloc_slow")) == 0);
            json_decref(o);
        }
    }
}

/* One workload, one order; and what is none. */
static void test_choice(void **state)
{
    static struct answer a;
    unsigned lines = 0;

    (void)state;
    drive("none", "subject_plain.so -w random -O 3", &a);
    assert_int_equal(a.code, 0);
    for (char *line = strtok(a.out, "\n"); line != NULL; line = strtok(NULL, "\n"), lines++) {
        assert_non_null(strstr(line, "\"workload\":\"random\",\"order\":3,"));
    }
    assert_int_equal(lines, 4);
    drive("none", "subject_plain.so -w rondom", &a);
    assert_true(WIFEXITED(a.code) && WEXITSTATUS(a.code) != 0 && strstr(a.out, "rondom is no workload") != NULL);
    drive("none", "subject_plain.so -O 4", &a);
    assert_true(WIFEXITED(a.code) && WEXITSTATUS(a.code) != 0 && strstr(a.out, "order 4 is not measured") != NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_right), cmocka_unit_test(test_broken), cmocka_unit_test(test_ours),
                                       cmocka_unit_test(test_choice) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
