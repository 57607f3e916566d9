/*
 * test_range.c - sets of frame ranges against a naive model.
 *
 * The model is one bool a frame; every operation of range.c is applied to both
 * and they are compared frame by frame, with I1 checked after each step.  A
 * failure prints its seed; FS_TEST_SEED=N runs one seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "range.h"

#define FRAMES 200

static struct mfn_range r(uint64_t start, uint64_t end)
{
    return (struct mfn_range){ mfn_make(start), mfn_make(end) };
}

static void check_ranges(const struct mfn_range_set *set, size_t count, const struct mfn_range *want)
{
    assert_true(mfn_set_check(set));
    assert_int_equal(set->count, count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(set->ranges[i].start.n, want[i].start.n);
        assert_int_equal(set->ranges[i].end.n, want[i].end.n);
    }
}

static void add_merges(void **state)
{
    struct mfn_range_set s = { 0 };

    (void)state;
    assert_int_equal(mfn_set_add(&s, r(10, 20)), FS_OK);
    assert_int_equal(mfn_set_add(&s, r(30, 40)), FS_OK);
    assert_int_equal(mfn_set_add(&s, r(5, 5)), FS_OK);
    check_ranges(&s, 2, (struct mfn_range[]){ r(10, 20), r(30, 40) });
    assert_int_equal(mfn_set_add(&s, r(20, 30)), FS_OK);        /* touches both */
    check_ranges(&s, 1, (struct mfn_range[]){ r(10, 40) });
    assert_int_equal(mfn_set_add(&s, r(0, 9)), FS_OK);          /* a hole of one frame stays */
    check_ranges(&s, 2, (struct mfn_range[]){ r(0, 9), r(10, 40) });
    assert_int_equal(mfn_set_add(&s, r(9, 10)), FS_OK);
    check_ranges(&s, 1, (struct mfn_range[]){ r(0, 40) });
    assert_int_equal(mfn_set_pages(&s), 40);
    mfn_set_free(&s);
    check_ranges(&s, 0, NULL);
}

static void remove_splits(void **state)
{
    struct mfn_range_set s = { 0 };

    (void)state;
    assert_int_equal(mfn_set_add(&s, r(0, 100)), FS_OK);
    assert_int_equal(mfn_set_remove(&s, r(40, 60)), FS_OK);
    check_ranges(&s, 2, (struct mfn_range[]){ r(0, 40), r(60, 100) });
    assert_int_equal(mfn_set_remove(&s, r(40, 60)), FS_OK);     /* nothing there */
    assert_int_equal(mfn_set_remove(&s, r(0, 1)), FS_OK);
    assert_int_equal(mfn_set_remove(&s, r(99, 200)), FS_OK);
    check_ranges(&s, 2, (struct mfn_range[]){ r(1, 40), r(60, 99) });
    assert_false(mfn_set_contains(&s, mfn_make(0)));
    assert_true(mfn_set_contains(&s, mfn_make(39)));
    assert_false(mfn_set_contains(&s, mfn_make(40)));
    assert_int_equal(mfn_set_remove(&s, r(0, 1000)), FS_OK);
    check_ranges(&s, 0, NULL);
    mfn_set_free(&s);
}

static void extremes(void **state)
{
    struct mfn_range_set s = { 0 }, t = { 0 };

    (void)state;
    assert_int_equal(mfn_set_add(&s, r(5, 4)), FS_BAD_RANGE);
    assert_int_equal(mfn_set_remove(&s, r(5, 4)), FS_BAD_RANGE);
    assert_int_equal(mfn_set_remove(&s, r(0, UINT64_MAX)), FS_OK);
    assert_int_equal(mfn_set_add(&s, r(0, UINT64_MAX)), FS_OK);
    assert_int_equal(mfn_set_pages(&s), UINT64_MAX);
    assert_int_equal(mfn_set_remove(&s, r(UINT64_MAX - 1, UINT64_MAX)), FS_OK);
    check_ranges(&s, 1, (struct mfn_range[]){ r(0, UINT64_MAX - 1) });
    assert_int_equal(mfn_set_copy(&s, &s), FS_OK);
    assert_int_equal(mfn_set_copy(&t, &s), FS_OK);
    check_ranges(&t, 1, (struct mfn_range[]){ r(0, UINT64_MAX - 1) });
    mfn_set_free(&s);
    assert_int_equal(mfn_set_copy(&t, &s), FS_OK);              /* from an empty one */
    check_ranges(&t, 0, NULL);
    assert_int_equal(mfn_set_intersect(&t, &s), FS_OK);
    assert_false(mfn_set_overlaps(&t, &s));
    mfn_set_free(&t);
}

static void check_finds_each_fault(void **state)
{
    struct mfn_range list[3] = { r(1, 5), r(7, 9), r(20, 21) };
    struct mfn_range_set s = { .ranges = list, .count = 3, .capacity = 3 };

    (void)state;
    assert_true(mfn_set_check(&s));
    list[1] = r(5, 9);                  /* touches */
    assert_false(mfn_set_check(&s));
    list[1] = r(4, 9);                  /* overlaps */
    assert_false(mfn_set_check(&s));
    list[1] = r(7, 7);                  /* empty */
    assert_false(mfn_set_check(&s));
    list[1] = r(9, 7);                  /* turned round */
    assert_false(mfn_set_check(&s));
    list[1] = r(30, 31);                /* out of order */
    assert_false(mfn_set_check(&s));
    list[1] = r(7, 9);
    s.capacity = 2;
    assert_false(mfn_set_check(&s));
    s.capacity = 3;
    s.ranges = NULL;
    assert_false(mfn_set_check(&s));
}

struct model {
    bool in[FRAMES];
};

static uint32_t rnd(uint64_t *seed, uint32_t below)
{
    *seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(*seed >> 33) % below;
}

static const char *differs(const struct mfn_range_set *set, const struct model *m)
{
    uint64_t pages = 0;

    if (!mfn_set_check(set)) {
        return "I1";
    }
    for (uint64_t i = 0; i < FRAMES; i++) {
        pages += m->in[i];
        if (mfn_set_contains(set, mfn_make(i)) != m->in[i]) {
            return "contains";
        }
    }
    return mfn_set_pages(set) == pages ? NULL : "pages";
}

static const char *step(struct mfn_range_set set[2], struct model model[2], uint64_t *seed)
{
    unsigned which = rnd(seed, 2);
    uint64_t start = rnd(seed, FRAMES), end = start + rnd(seed, (uint32_t)(FRAMES - start)) / (1 + rnd(seed, 8));
    unsigned what = rnd(seed, 20);
    bool overlap = false;
    fs_status_t s;

    if (what < 10) {
        s = mfn_set_add(&set[which], r(start, end));
    } else if (what < 18) {
        s = mfn_set_remove(&set[which], r(start, end));
    } else if (what < 19) {
        s = mfn_set_intersect(&set[which], &set[!which]);
    } else {
        s = mfn_set_copy(&set[which], &set[!which]);
    }
    for (uint64_t i = 0; i < FRAMES; i++) {
        if (what < 18 && i >= start && i < end) {
            model[which].in[i] = what < 10;
        } else if (what == 18) {
            model[which].in[i] = model[which].in[i] && model[!which].in[i];
        } else if (what == 19) {
            model[which].in[i] = model[!which].in[i];
        }
    }
    for (uint64_t i = 0; i < FRAMES; i++) {
        overlap = overlap || (model[0].in[i] && model[1].in[i]);
    }
    if (s) {
        return "status";
    }
    if (mfn_set_overlaps(&set[0], &set[1]) != overlap) {
        return "overlaps";
    }
    return differs(&set[which], &model[which]);
}

static void random_against_model(void **state)
{
    const char *one = getenv("FS_TEST_SEED");
    uint64_t first = one ? strtoull(one, NULL, 0) : 1, last = one ? first : 200;

    (void)state;
    for (uint64_t seed = first; seed <= last; seed++) {
        struct mfn_range_set set[2] = { { 0 }, { 0 } };
        struct model model[2];
        uint64_t x = seed;

        memset(model, 0, sizeof(model));
        for (int i = 0; i < 500; i++) {
            const char *fault = step(set, model, &x);

            if (fault) {
                fail_msg("seed %llu, step %d: %s", (unsigned long long)seed, i, fault);
            }
        }
        mfn_set_free(&set[0]);
        mfn_set_free(&set[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(add_merges),
        cmocka_unit_test(remove_splits),
        cmocka_unit_test(extremes),
        cmocka_unit_test(check_finds_each_fault),
        cmocka_unit_test(random_against_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
