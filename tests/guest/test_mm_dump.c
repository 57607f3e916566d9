/* test_mm_dump.c - the tables and indices say what the memmap holds. */
#include "guest_fixture.h"
#include "mm_dump.h"
#include "../../guest/lib/text.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static char text[65536];

static void collect(void *ctx, const char *line)
{
    (void)ctx;
    strncat(text, line, sizeof(text) - strlen(text) - 2);
    strcat(text, "\n");
}

static void test_tables(void **state)
{
    struct fixture f;
    const char *line;
    uint64_t pages = 0;

    (void)state;
    fixture_init(&f, 8192, 700, 1);
    assert_non_null(alloc_pages(&f.mm, GFP_KERNEL, 4));
    text[0] = '\0';
    mm_dump_buddyinfo(&f.mm, collect, NULL);
    line = strstr(text, "Normal") + 6;
    for (unsigned o = 0; o <= MAX_ORDER; o++) {
        pages += (uint64_t)strtoull(line, (char **)&line, 10) << o;
    }
    assert_int_equal(pages, 8192 - 700 - 16);
    text[0] = '\0';
    mm_dump_blocks(&f.mm, collect, NULL);
    assert_string_equal(text, "0x0         #uMMMMMMMMMMMMMM\n");
    text[0] = '\0';
    mm_dump_pagetypeinfo(&f.mm, collect, NULL);
    assert_non_null(strstr(text, "Node 0, zone Normal, type Movable"));
    mm_dump_vmstat(&f.mm, collect, NULL);
    assert_non_null(strstr(text, "nr_free_pages 7476"));
    fixture_free(&f);
}

static void test_indices(void **state)
{
    struct fixture f;
    struct page *p[4096];

    (void)state;
    fixture_init(&f, 4096, 0, 1);
    assert_int_equal(zone_extfrag_index(&f.mm.zones[0], 9), -1000);
    assert_int_equal(zone_unusable_index(&f.mm.zones[0], 9), 0);
    for (unsigned i = 0; i < 4096; i++) {
        p[i] = alloc_pages(&f.mm, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0);
    }
    assert_int_equal(zone_extfrag_index(&f.mm.zones[0], 9), 0);        /* nothing free: lack of memory */
    for (unsigned i = 0; i < 4096; i++) {
        if (p[i]->pfn % 2 == 0) {
            page_put(&f.mm, p[i]);
        }
    }
    mm_drain(&f.mm);
    assert_int_equal(zone_unusable_index(&f.mm.zones[0], 1), 1000);
    /* 2048 single pages: 1 - (1 + 2048/512) / 2048 */
    assert_int_equal(zone_extfrag_index(&f.mm.zones[0], 9), 998);
    fixture_free(&f);
}

static void test_text_cuts_off(void **state)
{
    struct text t;

    (void)state;
    text_clear(&t);
    for (int i = 0; i < 100; i++) {
        text_word(&t, "0123456789");
    }
    assert_int_equal(strlen(t.line), TEXT_LINE_BYTES - 1);
    text_clear(&t);
    text_column(&t, 42, 5);
    text_hex(&t, 0xdeadbeefcafe);
    text_number(&t, UINT64_MAX);
    assert_string_equal(t.line, "   420xdeadbeefcafe18446744073709551615");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_indices),
        cmocka_unit_test(test_text_cuts_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
