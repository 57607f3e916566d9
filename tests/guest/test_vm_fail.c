/*
 * test_vm_fail.c - every allocation and every entry that the machine could refuse is refused once: what is left is consistent,
 * every byte is what the model says, and at the end everything is free.
 */
#include "vm_world.h"
#include "arch_hosted.h"
#include "guest_fault.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#define RAM_PAGES 4096u
#define STEPS     150u
#define SEEDS     3u
#define HUGE_STEPS 60u
#define HUGE_TRIES (getenv("FRAMESHIFT_EVERY") != NULL ? UINT64_MAX : 24u)      /* of so many calls; FRAMESHIFT_EVERY: of each */

static struct guest g;
static struct world w;

struct source {
    void (*fail_nth)(uint64_t n);
    uint64_t (*calls)(void);                    /* NULL: there are no more where nothing was refused */
    bool huge;                                  /* huge pages too */
};

/* One run in which the n-th is refused (0: none); how many there were. */
static uint64_t run(const struct source *s, uint64_t seed, uint64_t n, uint64_t *refused)
{
    uint64_t calls = 0;

    guest_init(&g, s->huge ? 2 * RAM_PAGES : RAM_PAGES, 2, s->huge ? 2048 : 256);
    world_init(&w, &g, seed, 0, 2, WORLD_FILES);
    if (s->huge) {
        thp_set_policy(&g.vm, THP_ALWAYS);
        assert_int_equal(hugetlb_set_pool(&g.vm, 0, POOL_UNITS), POOL_UNITS);
        hugetlb_set_overcommit(&g.vm, 2);
        world_huge(&w, true);
    }
    w.may_fail = true;
    s->fail_nth(n);
    for (unsigned step = 0; step < (s->huge ? HUGE_STEPS : STEPS); step++) {
        world_step(&w);
    }
    calls = s->calls != NULL ? s->calls() : 0;
    s->fail_nth(0);
    guest_check(&g, seed);
    world_check_all(&w);
    *refused = w.refused;
    world_free(&w);
    guest_check(&g, seed);
    guest_free(&g);
    return calls;
}

static void every_one(const struct source *s)
{
    uint64_t told = 0, total = 0;

    for (uint64_t seed = test_seed(40); seed < test_seed(40) + SEEDS; seed++) {
        uint64_t refused, calls = run(s, seed, 0, &refused);

        assert_true(s->huge || refused == 0);   /* the pool's children may lack a page */
        assert_true(calls > 10);
        for (uint64_t n = 1; n <= calls; n += s->huge ? 1 + calls / HUGE_TRIES : 1) {
            (void)run(s, seed, n, &refused);
            told += refused != 0;
            total++;
        }
        print_message("seed %llu: %llu calls\n", (unsigned long long)seed, (unsigned long long)calls);
    }
    assert_true(told > total / 10);             /* most are not hidden: who asked hears of it, or did without */
}

static void test_pages(void **state)
{
    const struct source s = { page_alloc_fail_nth, page_alloc_calls, false };

    (void)state;
    every_one(&s);
}

static void test_objects(void **state)
{
    const struct source s = { object_alloc_fail_nth, object_alloc_calls, false };

    (void)state;
    every_one(&s);
}

static uint64_t entry_calls(void)
{
    return arch_hosted_counts().pte_writes;
}

static void test_entries(void **state)
{
    const struct source s = { arch_hosted_fail_nth, entry_calls, false };

    (void)state;
    every_one(&s);
}

/* Small pages instead, or the refusal is told; a page of the pool goes back with its promise. */
static void huge(bool leaf)
{
    const struct source pages = { page_alloc_fail_nth, page_alloc_calls, true }, objects = { object_alloc_fail_nth, object_alloc_calls, true };
    const struct source entries = { arch_hosted_fail_nth, entry_calls, true };

    arch_hosted_set_leaf(leaf);
    every_one(&pages);
    every_one(&objects);
    every_one(&entries);
    arch_hosted_set_leaf(true);
}

static void test_huge_leaf(void **state)
{
    (void)state;
    huge(true);
}

static void test_huge_by_pages(void **state)
{
    (void)state;
    huge(false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages),
        cmocka_unit_test(test_objects),
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_huge_leaf),
        cmocka_unit_test(test_huge_by_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
