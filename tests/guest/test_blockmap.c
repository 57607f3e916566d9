/* test_blockmap.c - the bitmap with summaries against a plain array. */
#include "guest_fixture.h"
#include "blockmap.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

static uint32_t naive_first(const bool *a, uint32_t size, uint32_t from)
{
    for (uint32_t i = from; i < size; i++) {
        if (a[i]) {
            return i;
        }
    }
    return BLOCKMAP_NONE;
}

static uint32_t naive_last(const bool *a, uint32_t size, uint32_t from)
{
    for (uint32_t i = from < size ? from + 1 : size; i-- > 0;) {
        if (a[i]) {
            return i;
        }
    }
    return BLOCKMAP_NONE;
}

static void against_array(uint32_t size, uint32_t density)
{
    struct rng r = { test_seed(size) };
    void *mem = calloc(1, blockmap_bytes(size));
    bool *a = calloc(size, sizeof(bool));
    struct blockmap m;

    blockmap_init(&m, size, mem);
    for (unsigned step = 0; step < 4000; step++) {
        uint32_t i = (uint32_t)rng_below(&r, size), from = (uint32_t)rng_below(&r, size + 70);

        a[i] = rng_below(&r, 100) < density;
        if (a[i]) {
            blockmap_set(&m, i);
        } else {
            blockmap_clear(&m, i);
        }
        assert_int_equal(blockmap_test(&m, i), a[i]);
        assert_int_equal(blockmap_first(&m, from), naive_first(a, size, from));
        assert_int_equal(blockmap_last(&m, from), naive_last(a, size, from));
    }
    assert_true(blockmap_check(&m));
    free(a);
    free(mem);
}

static void test_against_array(void **state)
{
    static const uint32_t sizes[] = { 1, 2, 63, 64, 65, 127, 128, 4095, 4096, 4097, 20000 };

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        against_array(sizes[i], 2);
        against_array(sizes[i], 50);
    }
}

static void test_large(void **state)
{
    uint32_t size = 1u << 24;
    void *mem = calloc(1, blockmap_bytes(size));
    struct blockmap m;

    (void)state;
    blockmap_init(&m, size, mem);
    assert_int_equal(m.levels, 4);
    blockmap_set(&m, size - 1);
    blockmap_set(&m, 5);
    assert_int_equal(blockmap_first(&m, 6), size - 1);
    assert_int_equal(blockmap_last(&m, size - 2), 5);
    assert_true(blockmap_check(&m));
    free(mem);
}

static void test_check_finds_damage(void **state)
{
    void *mem = calloc(1, blockmap_bytes(300));
    struct blockmap m;

    (void)state;
    blockmap_init(&m, 300, mem);
    blockmap_set(&m, 100);
    m.level[1][0] = 0;                      /* summary lost */
    assert_false(blockmap_check(&m));
    m.level[1][0] = 3;                      /* summary of an empty word */
    assert_false(blockmap_check(&m));
    m.level[1][0] = 2;
    assert_true(blockmap_check(&m));
    m.count = 2;
    assert_false(blockmap_check(&m));
    m.count = 2;
    m.level[0][4] |= 1ull << 63;            /* member 319 of 300 */
    m.level[1][0] |= 1u << 4;
    assert_false(blockmap_check(&m));
    free(mem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_array),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_check_finds_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
