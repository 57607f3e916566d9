/*
 * test_srat.c - nodes from the SRAT, numbered as Xen numbers them.
 *
 * Checks srat.c's I1 (exact buffers under the address sanitizer), I2 and I3.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "srat.h"
#include "table_builder.h"

static void parse_exact(const struct table *t, size_t bytes, struct srat *out)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);

    assert_non_null(copy);
    if (bytes) {
        memcpy(copy, t->p, bytes);
    }
    assert_int_equal(srat_parse(copy, bytes, out), FS_OK);
    free(copy);
}

static void parse(struct table *t, struct srat *out)
{
    srat_end(t);
    parse_exact(t, t->bytes, out);
    table_free(t);
}

static void node_has(const struct srat *s, size_t i, uint32_t pxm, uint64_t start, uint64_t end)
{
    assert_true(i < s->count);
    assert_int_equal(s->nodes[i].node, i);
    assert_int_equal(s->nodes[i].pxm, pxm);
    assert_int_equal(s->nodes[i].ranges.count, 1);
    assert_int_equal(s->nodes[i].ranges.ranges[0].start.n, start / FS_PAGE_BYTES);
    assert_int_equal(s->nodes[i].ranges.ranges[0].end.n, end / FS_PAGE_BYTES);
}

static void expect_dropped(struct table *t, const char *words)
{
    struct srat s;

    parse(t, &s);
    if (s.count || !strstr(s.reason, words)) {
        fail_msg("%zu nodes, \"%s\", wanted \"%s\"", s.count, s.reason, words);
    }
    srat_free(&s);
}

static void memory_order(void **state)
{
    struct table t = { 0 };
    struct srat s;

    (void)state;
    srat_begin(&t, 3);
    srat_memory(&t, 7, 0, GIB, SRAT_ENABLED);
    srat_memory(&t, 3, GIB, 2 * GIB, SRAT_ENABLED);
    srat_memory(&t, 7, 2 * GIB, 3 * GIB, SRAT_ENABLED);
    parse(&t, &s);
    assert_int_equal(s.count, 2);
    assert_int_equal(s.nodes[0].pxm, 7);                /* met first */
    assert_int_equal(s.nodes[0].ranges.count, 2);
    assert_int_equal(mfn_set_pages(&s.nodes[0].ranges), 2 * FRAMES_PER_GIB);
    node_has(&s, 1, 3, GIB, 2 * GIB);
    srat_free(&s);
}

static void processors_come_before_memory(void **state)
{
    struct table t = { 0 };
    struct srat s;

    (void)state;
    srat_begin(&t, 3);
    srat_memory(&t, 0, 0, GIB, SRAT_ENABLED);           /* last in the order of numbering, first in the table */
    srat_apic(&t, 2, 0, 0);                             /* not enabled: not met */
    srat_apic(&t, 1, 1, SRAT_ENABLED);
    srat_x2apic(&t, 9, 2, 0);
    srat_x2apic(&t, 4, 3, SRAT_ENABLED);
    srat_memory(&t, 4, GIB, 2 * GIB, SRAT_ENABLED);
    srat_memory(&t, 1, 2 * GIB, 3 * GIB, SRAT_ENABLED);
    parse(&t, &s);
    assert_int_equal(s.count, 3);
    node_has(&s, 0, 4, GIB, 2 * GIB);
    node_has(&s, 1, 1, 2 * GIB, 3 * GIB);
    node_has(&s, 2, 0, 0, GIB);
    srat_free(&s);
}

static void flags_and_revisions(void **state)
{
    struct table t = { 0 };
    struct srat s;

    (void)state;
    srat_begin(&t, 1);
    srat_memory(&t, 0xabcd0100, 0, GIB, SRAT_ENABLED);  /* revision 1: 8 bits count */
    srat_memory(&t, 1, GIB, 2 * GIB, 0);                /* not enabled */
    srat_memory(&t, 1, GIB, 2 * GIB, SRAT_HOTPLUG);     /* nor this */
    srat_memory(&t, 1, 4 * GIB, 5 * GIB, SRAT_ENABLED | SRAT_HOTPLUG);
    srat_memory(&t, 2, 5 * GIB, 5 * GIB, SRAT_ENABLED); /* empty: a node without memory */
    parse(&t, &s);
    assert_int_equal(s.count, 3);
    node_has(&s, 0, 0, 0, GIB);
    node_has(&s, 1, 1, 4 * GIB, 5 * GIB);
    assert_int_equal(s.nodes[2].ranges.count, 0);
    srat_free(&s);

    srat_begin(&t, 2);
    srat_apic(&t, 0x010203, 0, SRAT_ENABLED);
    srat_memory(&t, 0xabcd0100, 0, GIB, SRAT_ENABLED);  /* revision 2: 32 */
    parse(&t, &s);
    assert_int_equal(s.count, 2);
    assert_int_equal(s.nodes[0].pxm, 0x010203);
    assert_int_equal(s.nodes[1].pxm, 0xabcd0100);
    srat_free(&s);
}

static void what_xen_drops_is_dropped(void **state)
{
    struct table t = { 0 };
    struct srat s;

    (void)state;
    srat_begin(&t, 3);
    srat_memory(&t, 0, 0, 2 * GIB, SRAT_ENABLED);
    srat_memory(&t, 1, GIB, 3 * GIB, SRAT_ENABLED);
    expect_dropped(&t, "overlaps");
    srat_begin(&t, 3);
    srat_memory(&t, 0, 0, 2 * GIB, SRAT_ENABLED);       /* with itself it may */
    srat_memory(&t, 0, GIB, 3 * GIB, SRAT_ENABLED);
    parse(&t, &s);
    node_has(&s, 0, 0, 0, 3 * GIB);
    srat_free(&s);

    srat_begin(&t, 3);
    srat_memory(&t, 0, 0x1000, 0x800, SRAT_ENABLED);    /* its length goes round the address space */
    expect_dropped(&t, "wraps");
    srat_begin(&t, 3);
    expect_dropped(&t, "no memory");
    srat_begin(&t, 3);
    srat_apic(&t, 0, 0, SRAT_ENABLED);
    expect_dropped(&t, "no memory");
    srat_begin(&t, 3);
    for (uint32_t i = 0; i <= HV_NODES_MAX; i++) {
        srat_memory(&t, i, i * GIB, (i + 1ull) * GIB, SRAT_ENABLED);
    }
    expect_dropped(&t, "too many");
}

static void lengths(void **state)
{
    (void)state;
    for (unsigned length = 0; length < 256; length++) {
        for (int which = 0; which < 3; which++) {
            struct table t = { 0 };
            struct srat s;

            srat_begin(&t, 3);
            srat_memory(&t, 0, 0, GIB, SRAT_ENABLED);
            size_t at = t.bytes;
            which == 0 ? srat_memory(&t, 1, GIB, 2 * GIB, SRAT_ENABLED)
                       : which == 1 ? srat_apic(&t, 1, 0, SRAT_ENABLED) : srat_x2apic(&t, 1, 0, SRAT_ENABLED);
            unsigned right = t.p[at + 1];
            while (t.bytes < at + 256) {
                table_put_number(&t, 0x04ff, 2);        /* entries of no known type, 4 bytes each */
                table_put_number(&t, 0, 2);
            }
            t.p[at + 1] = (uint8_t)length;
            parse(&t, &s);
            /* Longer is allowed for x2APIC only; what follows must still be entries, or nothing. */
            bool fits = length == right || (which == 2 && length > right && (length % 4 == 0 || length == 255));
            if (s.count != (fits ? 2u : 0u)) {
                fail_msg("kind %d, length %u: %zu nodes, \"%s\"", which, length, s.count, s.reason);
            }
            srat_free(&s);
        }
    }
}

static void every_truncation(void **state)
{
    struct machine x;
    struct srat s;

    (void)state;
    fixture_make(&x, FIXTURE_QEMU);
    for (size_t length = 0; length < x.srat.bytes; length++) {
        parse_exact(&x.srat, length, &s);
        assert_int_equal(s.count, 0);
        assert_true(*s.reason);
        srat_free(&s);
    }
    size_t next = 48;                                   /* where an entry ends */
    for (size_t length = 0; length <= x.srat.bytes; length++) {     /* and with a length field that agrees */
        uint32_t said = (uint32_t)length;

        memcpy(x.srat.p + 4, &said, 4);
        parse_exact(&x.srat, length < 8 ? 8 : length, &s);
        /* One byte behind an entry is no entry yet; more of one is a broken one. */
        if (length < 48 || (length != next && length != next + 1)) {
            assert_int_equal(s.count, 0);
        } else if (length >= 0x78) {
            assert_true(s.count > 0);                   /* the first memory entry is whole */
        }
        while (length >= 48 && next + 1 <= length && next < x.srat.bytes) {
            next += x.srat.p[next + 1];
        }
        srat_free(&s);
    }
    parse_exact(&x.srat, x.srat.bytes, &s);
    assert_int_equal(s.count, 4);
    srat_free(&s);
    x.srat.p[0] = 'X';
    parse_exact(&x.srat, x.srat.bytes, &s);
    assert_int_equal(s.count, 0);
    srat_free(&s);
    machine_free(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_order), cmocka_unit_test(processors_come_before_memory), cmocka_unit_test(flags_and_revisions),
        cmocka_unit_test(what_xen_drops_is_dropped), cmocka_unit_test(lengths), cmocka_unit_test(every_truncation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
