/*
 * test_text.c - escaping, numbers, tables.
 *
 * The property test feeds random bytes and checks text.c's I1 with a decoder of its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/text.h"

static void check_clean(const char *in, size_t in_bytes, size_t columns, const char *want)
{
    char out[128];

    text_clean(out, sizeof(out), in, in_bytes, columns);
    assert_string_equal(out, want);
}

static void test_clean(void **state)
{
    (void)state;
    check_clean("plain-name_1", 64, 0, "plain-name_1");
    check_clean("a\x1b[2Jb", 64, 0, "a\\x1b[2Jb");
    check_clean("tab\tnl\n", 64, 0, "tab\\x09nl\\x0a");
    check_clean("\x7f", 64, 0, "\\x7f");
    check_clean("gr\xc3\xbc\xc3\x9f", 64, 0, "gr\xc3\xbc\xc3\x9f");
    check_clean("\xc2\x9b" "1m", 64, 0, "\\u{9b}1m");                    /* C1: a second way to say ESC [ */
    check_clean("\xe2\x80\xae" "abc", 64, 0, "\\u{202e}abc");            /* right-to-left override */
    check_clean("a\xe2\x80\x8b" "b", 64, 0, "a\\u{200b}b");              /* zero width: two names that look alike */
    check_clean("\xff\xfe", 64, 0, "\\xff\\xfe");
    check_clean("\xc0\x80", 64, 0, "\\xc0\\x80");                        /* overlong NUL */
    check_clean("\xed\xa0\x80", 64, 0, "\\xed\\xa0\\x80");               /* surrogate */
    check_clean("\xf4\x90\x80\x80", 64, 0, "\\xf4\\x90\\x80\\x80");      /* past U+10FFFF */
    check_clean("\xe2\x82", 64, 0, "\\xe2\\x82");                        /* cut by its end */
    check_clean("abcdef", 3, 0, "abc");                                 /* a field without terminator */
    check_clean("abcdef", 64, 6, "abcdef");
    check_clean("abcdefg", 64, 6, "abcde~");
    check_clean("ab\x01" "cd", 64, 5, "ab~");                           /* an escape is not split */
}

static void test_clean_small_buffer(void **state)
{
    char out[5];

    (void)state;
    text_clean(out, sizeof(out), "abcd", 64, 0);
    assert_string_equal(out, "abcd");
    text_clean(out, sizeof(out), "abcde", 64, 0);
    assert_string_equal(out, "abc~");
    text_clean(out, sizeof(out), "ab\xc3\xbc" "cd", 64, 0);
    assert_string_equal(out, "ab~");
    text_clean_lines(out, sizeof(out), "a\nb", 64);
    assert_string_equal(out, "a\nb");
}

/* Valid and harmless, decoded byte by byte. */
static void assert_safe(const char *s)
{
    while (*s) {
        uint32_t c = 0;
        size_t n = text_utf8(s, strlen(s), &c);
        assert_true(n > 0);
        assert_true(c >= 0x20 && c != 0x7f && !(c >= 0x80 && c < 0xa0));
        assert_true(c < 0x202a || c > 0x202e);
        s += n;
    }
}

static void test_clean_random(void **state)
{
    uint32_t seed = 12345;

    (void)state;
    for (int round = 0; round < 200000; round++) {
        char in[24], out[40];
        for (size_t i = 0; i < sizeof(in); i++) {
            seed = seed * 1664525u + 1013904223u;
            /* Mostly lead bytes and continuations: random bytes alone are rarely UTF-8. */
            unsigned kind = seed >> 29, bits = (seed >> 16) & 0xff;
            in[i] = (char)(kind < 3 ? 0x80 | (bits & 0x3f) : kind < 5 ? 0xc0 | (bits & 0x3f) : bits);
        }
        size_t columns = (seed >> 8) % 20;
        text_clean(out, sizeof(out), in, sizeof(in), columns);
        assert_true(strlen(out) < sizeof(out));
        assert_safe(out);
        assert_true(columns == 0 || text_columns(out) <= columns);
    }
}

static void test_numbers(void **state)
{
    (void)state;
    assert_string_equal(text_count(0).s, "0");
    assert_string_equal(text_count(999).s, "999");
    assert_string_equal(text_count(1000).s, "1,000");
    assert_string_equal(text_count(65530).s, "65,530");
    assert_string_equal(text_count(UINT64_MAX).s, "18,446,744,073,709,551,615");
    assert_string_equal(text_size(0).s, "0 B");
    assert_string_equal(text_size(1).s, "4 KiB");
    assert_string_equal(text_size(262144).s, "1 GiB");
    assert_string_equal(text_size(262143).s, "1023.99 MiB");
    assert_string_equal(text_size(65530).s, "255.97 MiB");
    assert_string_equal(text_size(UINT64_MAX).s, "15.99 EiB");
    assert_string_equal(text_size_bytes(1023).s, "1023 B");
    assert_string_equal(text_time(0).s, "0 ns");
    assert_string_equal(text_time(850).s, "850 ns");
    assert_string_equal(text_time(4100000).s, "4.1 ms");
    assert_string_equal(text_time(710000000).s, "710 ms");
    assert_string_equal(text_time(12500000000u).s, "12 s");
    assert_string_equal(text_time(1500000000u).s, "1.5 s");
}

static char *print_table(struct table *t)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);

    assert_non_null(f);
    table_print(t, f, "  ");
    assert_int_equal(fclose(f), 0);
    return text;
}

static void test_table(void **state)
{
    static const char *const headings[] = { "Name", ">Count", "Empty", "Last" };
    struct table t;
    char *text;

    (void)state;
    table_begin(&t, headings, 4);
    table_cell(&t, "a");
    table_cell(&t, "%d", 1000);
    table_cell(&t, "-");
    table_cell(&t, "x");
    table_cell(&t, "gr\xc3\xbc\xc3\x9f" "e");
    table_cell(&t, "%d", 7);
    table_cell(&t, "-");
    table_cell(&t, "yy");
    text = print_table(&t);
    assert_string_equal(text, "  Name   Count  Last\n"
                              "  a       1000  x\n"
                              "  gr\xc3\xbc\xc3\x9f" "e      7  yy\n");
    free(text);

    table_begin(&t, headings, 4);       /* no rows: nothing at all */
    text = print_table(&t);
    assert_string_equal(text, "");
    free(text);
}

static void test_table_long(void **state)
{
    static const char *const headings[] = { "A", ">B" };
    struct table t;
    char *text, *line;
    int rows = 0;

    (void)state;
    table_begin(&t, headings, 2);
    for (int i = 0; i < 1000; i++) {
        table_cell(&t, "%0200d", i);    /* longer than a cell: cut, not overflowed */
        table_cell(&t, "%d", i);
    }
    text = print_table(&t);
    for (line = text; (line = strchr(line, '\n')) != NULL; line++) {
        rows++;
    }
    assert_int_equal(rows, 1001);
    assert_non_null(strstr(text, " 999\n"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clean), cmocka_unit_test(test_clean_small_buffer), cmocka_unit_test(test_clean_random),
        cmocka_unit_test(test_numbers), cmocka_unit_test(test_table), cmocka_unit_test(test_table_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
