/*
 * test_smbios.c - the SMBIOS parser on right, short, torn and lying records.
 *
 * Every table is handed over in a buffer of exactly its length, so that the
 * address sanitizer sees the first byte read beyond it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "smbios.h"
#include "table_builder.h"

static fs_status_t parse_exact(const uint8_t *p, size_t bytes, struct smbios_memory *m)
{
    uint8_t *copy = malloc(bytes ? bytes : 1);

    assert_non_null(copy);
    if (bytes) {
        memcpy(copy, p, bytes);
    }
    fs_status_t s = smbios_parse(copy, bytes, m);
    free(copy);
    return s;
}

static void parse(struct table *t, struct smbios_memory *m)
{
    assert_int_equal(parse_exact(t->p, t->bytes, m), FS_OK);
    table_free(t);
}

static void whole_records(void **state)
{
    struct smbios_memory m;
    struct machine x;

    (void)state;
    fixture_make(&x, FIXTURE_SERVER);
    parse(&x.smbios, &m);
    assert_int_equal(m.array_count, 2);
    assert_int_equal(m.device_count, 16);
    assert_int_equal(m.array_range_count, 3);
    assert_int_equal(m.device_range_count, 12);
    assert_false(m.torn || m.no_end || m.short_records || m.bad_strings || m.bad_ranges || m.too_many);
    assert_int_equal(m.arrays[1].handle, 0x1001);
    assert_int_equal(m.arrays[1].use, 3);
    assert_int_equal(m.devices[10].handle, 0x1112);
    assert_int_equal(m.devices[10].array, 0x1001);
    assert_true(m.devices[10].size_known);
    assert_int_equal(m.devices[10].size_bytes, 16 * GIB);
    assert_string_equal(m.devices[10].locator, "P2-DIMMB1");
    assert_string_equal(m.devices[10].bank, "P1_Node0_Channel1_Dimm0");
    assert_true(m.devices[11].size_known);
    assert_int_equal(m.devices[11].size_bytes, 0);
    assert_int_equal(m.array_ranges[1].array, 0x1000);
    assert_int_equal(m.array_ranges[1].width, 4);
    assert_int_equal(m.array_ranges[1].range.start.n, 4 * FRAMES_PER_GIB);
    assert_int_equal(m.array_ranges[1].range.end.n, 66 * FRAMES_PER_GIB);
    assert_int_equal(m.device_ranges[5].device, 0x1102);
    assert_int_equal(m.device_ranges[5].array_range, 0x1301);
    assert_int_equal(m.device_ranges[5].position, 2);
    assert_int_equal(m.device_ranges[5].depth, 1);
    assert_int_equal(m.device_ranges[5].range.start.n, 4 * FRAMES_PER_GIB);
    assert_int_equal(m.device_ranges[5].range.end.n, 66 * FRAMES_PER_GIB);
    smbios_free(&m);
    machine_free(&x);
}

/* A type 17 of `length` bytes in all, with the two size fields. */
static void put_device(struct table *t, size_t length, uint16_t size, uint32_t extended, uint8_t locator)
{
    const char *strings[] = { "A1", NULL };
    uint8_t body[0x100] = { 0 };

    body[0x0c - 4] = (uint8_t)size;
    body[0x0d - 4] = (uint8_t)(size >> 8);
    body[0x10 - 4] = locator;
    for (int i = 0; i < 4; i++) {
        body[0x1c - 4 + i] = (uint8_t)(extended >> (8 * i));
    }
    smb_record(t, 17, 1, body, length - 4, strings);
}

static void size_encodings(void **state)
{
    const struct { uint16_t size; uint32_t extended; size_t length; bool known; uint64_t bytes; } cases[] = {
        { 0, 0, 0x28, true, 0 },                                /* empty slot */
        { 0, 4096, 0x28, true, 0 },                             /* the extended size counts only with 0x7fff */
        { 0xffff, 0, 0x28, false, 0 },                          /* unknown */
        { 4096, 0, 0x28, true, 4 * GIB },
        { 0x7ffe, 0, 0x28, true, 0x7ffe * MIB_BYTES },
        { 0x7fff, 0x8000, 0x28, true, 32 * GIB },
        { 0x7fff, 0x80040000, 0x28, true, 256 * GIB },          /* bit 31 is reserved */
        { 0x7fff, 0, 0x28, false, 0 },
        { 0x7fff, 0x8000, 0x1f, false, 0 },                     /* too short for the field it points to */
        { 0x7fff, 0x8000, 0x20, true, 32 * GIB },
        { 0x8000 | 512, 0, 0x28, true, 512 * 1024 },            /* KiB */
        { 0xfffe, 0, 0x28, true, 0x7ffeull * 1024 },
        { 16384, 0, 0x15, true, 16 * GIB },                     /* SMBIOS 2.1 */
    };

    (void)state;
    for (size_t i = 0; i < FS_ARRAY_SIZE(cases); i++) {
        struct table t = { 0 };
        struct smbios_memory m;

        put_device(&t, cases[i].length, cases[i].size, cases[i].extended, 1);
        smb_end(&t);
        parse(&t, &m);
        assert_int_equal(m.device_count, 1);
        if (m.devices[0].size_known != cases[i].known || m.devices[0].size_bytes != cases[i].bytes) {
            fail_msg("case %zu: known %d, %llu bytes", i, m.devices[0].size_known, (unsigned long long)m.devices[0].size_bytes);
        }
        smbios_free(&m);
    }
}

static void ranges_in_kib_and_bytes(void **state)
{
    const struct { uint32_t start, end; uint64_t ext_start, ext_end; size_t length; bool ok; uint64_t first, last; } cases[] = {
        { 0, 0x3fffff, 0, 0, 0x23, true, 0, 0x100000 },                         /* 4 GiB */
        { 0, 0x3fffff, 7, 9, 0x23, true, 0, 0x100000 },                         /* extended fields not asked for */
        { 0, 0x400000, 0, 0, 0x23, true, 0, 0x100000 },                         /* an end that is not inclusive: 1 KiB too many */
        { 0x400000, 0x7fffff, 0, 0, 0x13, true, 0x100000, 0x200000 },           /* 2.1 */
        { 0, 0, 0, 0, 0x23, false, 0, 0 },                                      /* one KiB: says nothing */
        { 8, 4, 0, 0, 0x23, false, 0, 0 },                                      /* turned round */
        { UINT32_MAX, UINT32_MAX, 1ull << 43, (1ull << 44) - 1, 0x23, true, 1ull << 31, 1ull << 32 },
        { UINT32_MAX, UINT32_MAX, 1ull << 43, (1ull << 44) - 1, 0x22, false, 0, 0 },    /* the field is not all there */
        { UINT32_MAX, UINT32_MAX, 1ull << 43, (1ull << 44) - 1, 0x13, false, 0, 0 },
        { UINT32_MAX, UINT32_MAX, 0, UINT64_MAX, 0x23, true, 0, 1ull << 52 },
        { UINT32_MAX, UINT32_MAX, UINT64_MAX, UINT64_MAX, 0x23, false, 0, 0 },
        { UINT32_MAX, UINT32_MAX, 0, 0, 0x23, false, 0, 0 },
        { 0, UINT32_MAX, 0, 0, 0x23, true, 0, 1ull << 30 },                     /* 4 TiB */
    };

    (void)state;
    for (size_t i = 0; i < FS_ARRAY_SIZE(cases); i++) {
        struct smbios_memory m;
        struct table t = { 0 }, b = { 0 };

        table_put_number(&b, cases[i].start, 4);
        table_put_number(&b, cases[i].end, 4);
        table_put_number(&b, 0x00110022, 4);
        table_put_number(&b, 0x030201, 3);
        table_put_number(&b, cases[i].ext_start, 8);
        table_put_number(&b, cases[i].ext_end, 8);
        smb_record(&t, 20, 9, b.p, cases[i].length - 4, NULL);
        smb_end(&t);
        table_free(&b);
        parse(&t, &m);
        if (m.device_range_count != cases[i].ok || m.bad_ranges != !cases[i].ok) {
            fail_msg("case %zu: %zu ranges, %u bad", i, m.device_range_count, m.bad_ranges);
        }
        if (cases[i].ok) {
            assert_int_equal(m.device_ranges[0].range.start.n, cases[i].first);
            assert_int_equal(m.device_ranges[0].range.end.n, cases[i].last);
            assert_int_equal(m.device_ranges[0].device, 0x0022);
            assert_int_equal(m.device_ranges[0].array_range, 0x0011);
            assert_int_equal(m.device_ranges[0].position, 2);
            assert_int_equal(m.device_ranges[0].depth, 3);
        }
        smbios_free(&m);
    }
}

static void short_formatted_areas(void **state)
{
    struct machine x;

    (void)state;
    fixture_make(&x, FIXTURE_DESKTOP);
    machine_free(&x);
    for (uint8_t type = 16; type <= 20; type++) {
        for (size_t length = 4; length < 0x28; length++) {
            struct smbios_memory m;
            struct table t = { 0 };
            uint8_t body[0x40];

            memset(body, 1, sizeof(body));
            body[4] = body[5] = body[6] = body[7] = 0xf0;       /* the end of a range lies behind its start */
            smb_record(&t, type, 7, body, length - 4, (const char *[]){ "one", NULL });
            smb_device(&t, 8, 0, GIB, "next", "bank");          /* the walk goes on behind it */
            smb_end(&t);
            parse(&t, &m);
            assert_false(m.torn || m.no_end);
            assert_int_equal(m.devices[m.device_count - 1].handle, 8);
            assert_string_equal(m.devices[m.device_count - 1].locator, "next");
            assert_int_equal(m.array_count, type == 16 && length >= 6);
            assert_int_equal(m.device_count, 1 + (type == 17 && length >= 0x0e));
            assert_int_equal(m.array_range_count, type == 19 && length >= 0x0e);
            assert_int_equal(m.device_range_count, type == 20 && length >= 0x10);
            if (type == 17 && length >= 0x0e) {
                assert_string_equal(m.devices[0].locator, length >= 0x12 ? "one" : "");
                assert_int_equal(m.short_records, length < 0x12);
            }
            if (type == 20 && length >= 0x10) {                 /* missing fields are unknown, not zero */
                assert_int_equal(m.device_ranges[0].position, length >= 0x12 ? 1 : SMBIOS_UNKNOWN);
                assert_int_equal(m.device_ranges[0].depth, length >= 0x13 ? 1 : SMBIOS_UNKNOWN);
            }
            if (type == 19 && length >= 0x0e) {
                assert_int_equal(m.array_ranges[0].width, length >= 0x0f ? 1 : SMBIOS_UNKNOWN);
            }
            smbios_free(&m);
        }
    }
}

static void strings(void **state)
{
    const struct { const char *string; uint8_t number; const char *want; unsigned bad; } cases[] = {
        { "DIMM_A1", 1, "DIMM_A1", 0 },
        { "DIMM_A1", 0, "", 0 },                /* none given */
        { "DIMM_A1", 2, "", 1 },                /* behind the last one */
        { "DIMM_A1", 255, "", 1 },
        { "  DIMM A1   ", 1, "DIMM A1", 0 },
        { "    ", 1, "", 0 },
        { "A\x1b[31m\x7f\xff", 1, "A?[31m??", 0 },
        { "0123456789012345678901234567890123456789012345678901234567890123456789", 1,
          "012345678901234567890123456789012345678901234567890123456789012", 0 },
    };

    (void)state;
    for (size_t i = 0; i < FS_ARRAY_SIZE(cases); i++) {
        struct smbios_memory m;
        struct table t = { 0 };
        uint8_t body[0x28 - 4] = { 0 };

        body[0x10 - 4] = cases[i].number;
        smb_record(&t, 17, 1, body, sizeof(body), (const char *[]){ cases[i].string, NULL });
        smb_end(&t);
        parse(&t, &m);
        assert_int_equal(m.device_count, 1);
        assert_string_equal(m.devices[0].locator, cases[i].want);
        assert_int_equal(m.bad_strings, cases[i].bad);
        smbios_free(&m);
    }
}

static void every_truncation(void **state)
{
    struct smbios_memory m;
    struct machine x;

    (void)state;
    for (int f = 0; f < FIXTURE_COUNT; f++) {
        size_t before = 0;

        fixture_make(&x, (enum fixture)f);
        for (size_t length = 0; length < x.smbios.bytes; length++) {
            assert_int_equal(parse_exact(x.smbios.p, length, &m), FS_OK);
            size_t records = m.array_count + m.device_count + m.array_range_count + m.device_range_count;
            assert_true(records >= before);     /* more bytes never make less of it */
            before = records;
            /* Up to the last record's header, it is cut: in a record, or before the end marker. */
            assert_true(m.torn || m.no_end || length >= x.smbios.bytes - 2);
            smbios_free(&m);
        }
        machine_free(&x);
    }
    assert_int_equal(smbios_parse(NULL, 0, &m), FS_OK);
    assert_true(m.no_end);
    smbios_free(&m);
}

static void broken_walks(void **state)
{
    struct smbios_memory m;
    struct table t = { 0 };

    (void)state;
    smb_device(&t, 1, 2, GIB, "A", "B");
    size_t first = t.bytes;
    smb_device(&t, 2, 2, GIB, "C", "D");
    smb_end(&t);
    t.p[first + 1] = 3;                         /* a length shorter than its own header */
    assert_int_equal(parse_exact(t.p, t.bytes, &m), FS_OK);
    assert_int_equal(m.device_count, 1);
    assert_true(m.torn);
    smbios_free(&m);
    t.p[first + 1] = 0xff;                      /* longer than what is left */
    assert_int_equal(parse_exact(t.p, t.bytes, &m), FS_OK);
    assert_int_equal(m.device_count, 1);
    assert_true(m.torn);
    smbios_free(&m);
    t.p[first + 1] = 0x28;
    assert_int_equal(parse_exact(t.p, t.bytes - 6, &m), FS_OK);     /* no end marker: everything else is there */
    assert_int_equal(m.device_count, 2);
    assert_true(m.no_end);
    assert_false(m.torn);
    smbios_free(&m);
    size_t end = t.bytes;
    smb_device(&t, 3, 2, GIB, "E", "F");        /* behind the end marker nothing counts */
    assert_int_equal(parse_exact(t.p, t.bytes, &m), FS_OK);
    assert_int_equal(m.device_count, 2);
    assert_false(m.no_end);
    assert_true(end < t.bytes);
    smbios_free(&m);
    table_free(&t);
}

static void too_many(void **state)
{
    struct smbios_memory m;
    struct table t = { 0 };

    (void)state;
    for (unsigned i = 0; i < SMBIOS_RECORDS_MAX + 3; i++) {
        smb_array(&t, (uint16_t)i, 3);
        smb_device(&t, (uint16_t)i, 0, GIB, "A", "B");
    }
    smb_end(&t);
    parse(&t, &m);
    assert_int_equal(m.array_count, SMBIOS_RECORDS_MAX);
    assert_int_equal(m.device_count, SMBIOS_RECORDS_MAX);
    assert_int_equal(m.devices[SMBIOS_RECORDS_MAX - 1].handle, SMBIOS_RECORDS_MAX - 1);
    assert_int_equal(m.too_many, 6);
    smbios_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_records),   cmocka_unit_test(size_encodings), cmocka_unit_test(ranges_in_kib_and_bytes),
        cmocka_unit_test(short_formatted_areas), cmocka_unit_test(strings),  cmocka_unit_test(every_truncation),
        cmocka_unit_test(broken_walks),    cmocka_unit_test(too_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
