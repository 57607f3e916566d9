/* test_radix.c - the tree against an array of pairs, with small, dense and enormous indices. */
#include "guest_memory.h"
#include "guest_fault.h"
#include "radix.h"
#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#define WORDS 600u

static struct fixture f;
static struct kmem_cache *nodes;
static struct { uint64_t index, word; bool marked; } model[WORDS];
static uint32_t count;

static uint64_t some_index(struct rng *r)
{
    switch (rng_below(r, 5)) {
    case 0:
        return rng_below(r, 64);
    case 1:
        return rng_below(r, 5000);
    case 2:
        return UINT64_MAX - rng_below(r, 300);
    case 3:
        return 1ull << rng_below(r, 64);
    default:
        return rng_next(r) >> rng_below(r, 64);
    }
}

static uint32_t find(uint64_t index)
{
    uint32_t i = 0;

    while (i < count && model[i].index != index) {
        i++;
    }
    return i;
}

/* The model's answer to radix_next(). */
static uint64_t model_next(uint64_t *index, bool marked)
{
    uint32_t best = WORDS;

    for (uint32_t i = 0; i < count; i++) {
        if (model[i].index >= *index && (!marked || model[i].marked) && (best == WORDS || model[i].index < model[best].index)) {
            best = i;
        }
    }
    if (best == WORDS) {
        return 0;
    }
    *index = model[best].index;
    return model[best].word;
}

static void check(const struct radix *t, struct rng *r)
{
    struct radix_count c;
    uint64_t marked = 0;

    assert_true(radix_check(t, &c));
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(radix_get(t, model[i].index), model[i].word);
        assert_int_equal(radix_marked(t, model[i].index), model[i].marked);
        marked += model[i].marked;
    }
    assert_int_equal(c.words, count);
    assert_int_equal(c.marked, marked);
    assert_int_equal(kmem_cache_used(nodes), c.nodes);
    for (unsigned i = 0; i < 20; i++) {
        uint64_t from = some_index(r), a = from, b = from, word = radix_next(t, &a, i % 2 != 0);

        assert_int_equal(word, model_next(&b, i % 2 != 0));
        assert_true(word == 0 || a == b);
    }
}

static void put(struct radix *t, uint64_t index, uint64_t word)
{
    struct radix_reserve reserve = { .count = 0 };
    uint32_t at = find(index), missing = radix_missing(t, index);
    uint64_t old = at < count ? model[at].word : 0;

    assert_true(radix_reserve(&reserve, missing, nodes, GFP_KERNEL));
    assert_int_equal(radix_set(t, index, word, &reserve), old);
    assert_int_equal(reserve.count, 0);                 /* it said exactly what it needed */
    if (at == count) {
        model[count].index = index;
        model[count++].marked = false;
    }
    model[at].word = word;
}

static void take(struct radix *t, uint32_t at)
{
    struct radix_reserve freed = { .count = 0 };

    assert_int_equal(radix_clear(t, model[at].index, &freed), model[at].word);
    radix_reserve_free(&freed, nodes);
    model[at] = model[--count];
}

static void test_random(void **state)
{
    uint64_t seed = test_seed(41);
    struct rng r = { seed };
    struct radix t = { .root = 0 };
    struct radix_reserve none = { .count = 0 };

    (void)state;
    for (unsigned step = 0; step < 20000; step++) {
        uint32_t phase = step / 1500 % 2;

        if (count < WORDS && rng_below(&r, 3) > phase) {
            put(&t, some_index(&r), rng_next(&r) | 8);
        } else if (count > 0) {
            take(&t, (uint32_t)rng_below(&r, count));
        }
        if (count > 0) {
            uint32_t at = (uint32_t)rng_below(&r, count);

            model[at].marked = rng_below(&r, 2) != 0;
            radix_mark(&t, model[at].index, model[at].marked);
        }
        assert_int_equal(radix_clear(&t, 0x123456789abcdefull, &none), 0);
        if (step % 50 == 0) {
            check(&t, &r);
        }
    }
    while (count > 0) {
        take(&t, count - 1);
    }
    assert_int_equal(t.levels, 0);
    assert_int_equal(kmem_cache_used(nodes), 0);
}

/* Values and pointers are told apart; a reserve that cannot be filled keeps what it has. */
static void test_words_and_reserve(void **state)
{
    struct radix_reserve r = { .count = 0 };

    (void)state;
    assert_true(radix_is_value(radix_value(0)) && radix_is_value(radix_value(1ull << 40)));
    assert_int_equal(radix_to_value(radix_value(0x8123456789ull)), 0x8123456789ull);
    assert_false(radix_is_value((uintptr_t)&r));
    (void)kmem_cache_shrink(nodes);
    page_alloc_fail_from(2);
    assert_false(radix_reserve(&r, RADIX_RESERVE_MAX, nodes, GFP_KERNEL));
    page_alloc_fail_nth(0);
    assert_int_equal(r.count, nodes->objects);
    assert_true(radix_reserve(&r, RADIX_RESERVE_MAX, nodes, GFP_KERNEL));
    radix_reserve_free(&r, nodes);
    assert_int_equal(kmem_cache_used(nodes), 0);
}

static int setup(void **state)
{
    (void)state;
    memory_init(&f, 4096, 64, 1);
    nodes = kmem_cache_create(&f.mm, "nodes", sizeof(struct radix_node), 0, KMEM_RECLAIMABLE, NULL, NULL);
    return nodes == NULL;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(kmem_cache_destroy(nodes), MM_OK);
    memory_check_all_free(&f);
    memory_free(&f);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_random, setup, teardown),
        cmocka_unit_test_setup_teardown(test_words_and_reserve, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
