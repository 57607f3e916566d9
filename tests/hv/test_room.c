/*
 * test_room.c - order and limits of the nodes that new frames come from.
 *
 * Checks room.c's I1 (a barred node never appears) and I2 (nothing goes below
 * what is to be kept), and the order of preference.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "room.h"

static struct hv_host host_of(uint32_t count, const uint64_t *free_pages)
{
    struct hv_host h = { .node_count = count };

    for (uint32_t i = 0; i < count; i++) {
        h.nodes[i] = (struct hv_node){ .id = i, .total_pages = 100000, .free_pages = free_pages[i] };
    }
    return h;
}

static void most_free_first(void **state)
{
    struct hv_host h = host_of(4, (uint64_t[]){ 100, 500, 300, 500 });
    bool barred[HV_NODES_MAX] = { false };
    struct room room;
    uint32_t node;
    uint64_t pages;

    (void)state;
    room_init(&room, &h, barred, 0);
    assert_int_equal(room_free(&room), 1400);
    assert_true(room_next(&room, &node, &pages));
    assert_int_equal(node, 1);                  /* of two equal ones the lower number */
    assert_int_equal(pages, 500);
    room_take(&room, 1, 400);
    assert_true(room_next(&room, &node, &pages));
    assert_int_equal(node, 1);                  /* stays on it while it can give */
    assert_int_equal(pages, 100);
    room_take(&room, 1, 100);
    assert_true(room_next(&room, &node, &pages));
    assert_int_equal(node, 3);
    room_exhausted(&room, 3);
    assert_true(room_next(&room, &node, &pages));
    assert_int_equal(node, 2);
    assert_int_equal(room_free(&room), 400);
    room_take(&room, 2, 300);
    room_take(&room, 0, 100);
    assert_false(room_next(&room, &node, &pages));
    assert_int_equal(room_free(&room), 0);
}

static void barred_and_kept(void **state)
{
    struct hv_host h = host_of(3, (uint64_t[]){ 1000, 64, 65 });
    bool barred[HV_NODES_MAX] = { [0] = true };
    struct room room;
    uint32_t node;
    uint64_t pages;

    (void)state;
    room_init(&room, &h, barred, 64);
    assert_int_equal(room_free(&room), 1);
    assert_true(room_next(&room, &node, &pages));
    assert_int_equal(node, 2);
    assert_int_equal(pages, 1);
    h.nodes[2].id = HV_NODES_MAX;               /* cannot be barred, so cannot be used */
    room_init(&room, &h, barred, 0);
    assert_int_equal(room_free(&room), 64);
    barred[1] = true;
    room_init(&room, &h, barred, 0);
    assert_false(room_next(&room, &node, &pages));
}

static void all_nodes(void **state)
{
    uint64_t free_pages[HV_NODES_MAX];
    bool barred[HV_NODES_MAX] = { false };
    struct room room;
    struct hv_host h;

    (void)state;
    for (uint64_t i = 0; i < HV_NODES_MAX; i++) {
        free_pages[i] = (i * 37) % 64 + 1;
    }
    h = host_of(HV_NODES_MAX, free_pages);
    room_init(&room, &h, barred, 0);
    assert_int_equal(room.count, HV_NODES_MAX);
    for (size_t i = 1; i < room.count; i++) {
        assert_true(room.nodes[i - 1].free_pages > room.nodes[i].free_pages);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(most_free_first),
        cmocka_unit_test(barred_and_kept),
        cmocka_unit_test(all_nodes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
