/* test_alloc_driver.c - the speed driver on an allocator that is right, and on ones that are broken in each way it looks for. */
#include <jansson.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
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
                                        "metadata_bytes_per_page", "failed" };
    static struct answer a;
    unsigned lines = 0, seen[4] = { 0 };

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

/* Ours, in short. */
static void test_ours(void **state)
{
    static struct answer a;

    (void)state;
    drive("none", "subject_mm.so", &a);
    if (a.code != 0) {
        fail_msg("%s", a.out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_right), cmocka_unit_test(test_broken), cmocka_unit_test(test_ours) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
