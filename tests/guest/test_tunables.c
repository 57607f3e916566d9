/* test_tunables.c - each setting by name: read, set, its limits; tables for the tool, page by page. */
#include "compact_fixture.h"
#include "coop_table.h"
#include "tunables.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static struct fixture f;
static struct owners o;

/* Every one takes its limits and nothing beyond them; what was set is read again; a refusal changes nothing. */
static void test_every_setting(void **state)
{
    (void)state;
    compact_setup(&f, &o, 16384, CLAIM_CLEAR_FIRST, 1);
    for (unsigned t = 0; t < TUNABLES; t++) {
        struct tunable_info info = tunable_info(&f.mm, (enum tunable)t);
        enum tunable found = TUNABLES;

        assert_true(tunable_find(info.name, &found));
        assert_int_equal(found, t);
        assert_true(info.least <= info.most);
        assert_int_equal(tunable_set(&f.mm, (enum tunable)t, info.most + 1), MM_EINVAL);
        assert_int_equal(tunable_set(&f.mm, (enum tunable)t, UINT64_MAX), MM_EINVAL);
        assert_int_equal(tunable_info(&f.mm, (enum tunable)t).value, info.value);
        assert_int_equal(tunable_set(&f.mm, (enum tunable)t, info.least), MM_OK);
        assert_int_equal(tunable_set(&f.mm, (enum tunable)t, info.most), MM_OK);
        assert_int_equal(tunable_info(&f.mm, (enum tunable)t).value, info.action ? 0 : info.most);
    }
    assert_int_equal(f.mm.extfrag_threshold, 1000);
    assert_int_equal(f.mm.policy, CLAIM_CLEAR_FIRST);
    assert_int_equal(f.mm.zones[0].watermark[WMARK_MIN], 4096);         /* a quarter */
    check_mm(&f.mm, 1);
    compact_teardown(&f, &o);
}

static void test_names(void **state)
{
    static const char *const bad[] = { "", "extfrag", "extfrag_threshold_", "Extfrag_threshold", "compact_memory " };
    enum tunable t;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(tunable_find(bad[i], &t));
    }
}

/* compact_memory does all of memory, compact_node one node; policies change what happens from then on. */
static void test_actions(void **state)
{
    struct mm_range ram[] = { { pfn_make(0), pfn_make(8192), 0 }, { pfn_make(8192), pfn_make(16384), 1 } };
    struct mm_config config = { .ram = ram, .ram_count = 2, .cpus = 1 };
    struct rng r = { 5 };

    (void)state;
    fixture_init_config(&f, &config, 0);
    assert_int_equal(compaction_init(&f.mm, &config), MM_OK);
    owners_init(&o, &f.mm, 16384, 5);
    f.mm.claim_window = 0;
    while (owners_alloc(&o, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0) != NULL) {
    }
    while (mm_free_pages(&f.mm) < 6000) {
        owners_put(&o, (uint32_t)rng_below(&r, o.count));
    }
    mm_drain(&f.mm);
    assert_int_equal(tunable_set(&f.mm, TUNE_compact_node, 1), MM_OK);
    assert_int_equal(f.mm.zones[0].free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE], 0);
    assert_true(f.mm.zones[1].free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE] > 3);
    assert_int_equal(tunable_set(&f.mm, TUNE_compact_node, 2), MM_EINVAL);
    assert_int_equal(tunable_set(&f.mm, TUNE_compact_memory, 1), MM_OK);
    assert_true(f.mm.zones[0].free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE] > 3);
    f.mm.migrate.move = NULL;
    assert_int_equal(tunable_set(&f.mm, TUNE_compact_memory, 1), MM_EINVAL);    /* nothing can be moved */
    check_mm(&f.mm, 5);
    compact_teardown(&f, &o);
}

/* A table is the same from whichever entry it is read on, and every byte of the page is written. */
static void test_tables(void **state)
{
    union { unsigned char bytes[4096]; struct fs_abi_value values[FS_ABI_VALUES_PER_PAGE]; struct fs_abi_zone zones[FS_ABI_ZONES_PER_PAGE]; } whole, part;

    (void)state;
    compact_setup(&f, &o, 16384, CLAIM_CLEAR_FIRST, 1);
    for (uint64_t table = FS_ABI_TABLE_COUNTERS; table <= FS_ABI_TABLE_TUNABLES; table++) {
        uint32_t count, n;
        uint64_t total, again;
        size_t bytes = table == FS_ABI_TABLE_ZONES ? sizeof(struct fs_abi_zone) : sizeof(struct fs_abi_value);

        memset(&whole, 0xa5, sizeof(whole));
        assert_int_equal(coop_table_page(&f.mm, NULL, table, 0, &whole, &count, &total), FS_ABI_STATUS_OK);
        assert_int_equal(count, total);
        for (size_t i = count * bytes; i < sizeof(whole); i++) {
            assert_int_equal(whole.bytes[i], 0);
        }
        for (uint64_t first = 0; first < total; first++) {
            memset(&part, 0xa5, sizeof(part));
            assert_int_equal(coop_table_page(&f.mm, NULL, table, first, &part, &n, &again), FS_ABI_STATUS_OK);
            assert_true(again == total && n == total - first);
            assert_memory_equal(part.bytes, whole.bytes + first * bytes, n * bytes);
        }
        assert_int_equal(coop_table_page(&f.mm, NULL, table, total, &part, &n, &again), FS_ABI_STATUS_INVALID);
    }
    compact_teardown(&f, &o);
}

/* What is not exactly right in a request to set something is refused. */
static void test_tune_requests(void **state)
{
    struct fs_abi_value good = { .name = "extfrag_threshold", .value = 7 }, v;
    uint64_t value[FS_ABI_VALUES] = { 0 };

    (void)state;
    compact_setup(&f, &o, 8192, CLAIM_CLEAR_FIRST, 1);
    assert_int_equal(coop_table_tune(&f.mm, &good, value), FS_ABI_STATUS_OK);
    assert_int_equal(value[FS_ABI_TUNED_BEFORE], 500);
    assert_int_equal(value[FS_ABI_TUNED_AFTER], 7);
#define REFUSED(change) do { v = good; v.change; assert_int_equal(coop_table_tune(&f.mm, &v, value), FS_ABI_STATUS_INVALID); } while (0)
    REFUSED(reserved = 1);
    REFUSED(flags = 1);
    REFUSED(least = 1);
    REFUSED(most = 1);
    REFUSED(name[31] = 'x');
    REFUSED(name[0] = 0);
    REFUSED(value = 1001);
    assert_int_equal(value[FS_ABI_TUNED_WHY], FS_ABI_TUNE_RANGE);
    REFUSED(name[0] = 'x');
    assert_int_equal(value[FS_ABI_TUNED_WHY], FS_ABI_TUNE_UNKNOWN);
    memset(v.name, 'a', sizeof(v.name));
    assert_int_equal(coop_table_tune(&f.mm, &v, value), FS_ABI_STATUS_INVALID);
    assert_int_equal(f.mm.extfrag_threshold, 7);
    compact_teardown(&f, &o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_setting), cmocka_unit_test(test_names), cmocka_unit_test(test_actions), cmocka_unit_test(test_tables),
        cmocka_unit_test(test_tune_requests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
