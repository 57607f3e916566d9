/*
 * test_topology_fuzz.c - seeded mutations of every fixture's tables, and of map files.
 *
 * Each mutant is parsed from a buffer of exactly its length and the result is held
 * against topology_check(): whatever a table says, every frame of RAM is in one
 * set and nothing is read beyond the table.  FS_TEST_MUTATIONS=N sets the number
 * for each fixture, FS_TEST_SEED=N runs one mutant of each; a failure prints both.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "table_builder.h"
#include "topology.h"
#include "topology_check.h"

#define MUTATIONS 12000u                 /* keeps the run under 5 s with the sanitizers */

static uint64_t rnd_state;

static uint32_t rnd(uint32_t below)
{
    rnd_state ^= rnd_state << 13;
    rnd_state ^= rnd_state >> 7;
    rnd_state ^= rnd_state << 17;
    return (uint32_t)(rnd_state >> 32) % below;
}

/* Bytes that mean something: limits, "unknown", sign bits, small numbers. */
static uint8_t interesting(void)
{
    static const uint8_t bytes[] = { 0, 1, 2, 3, 4, 16, 17, 19, 20, 0x7f, 0x80, 0xfe, 0xff };

    return rnd(3) ? bytes[rnd(sizeof(bytes))] : (uint8_t)rnd(256);
}

/* Changes up to bytes, and its length, in place; returns the new length. */
static size_t mutate(uint8_t *p, size_t bytes)
{
    for (uint32_t n = 1 + rnd(4); n && bytes; n--) {
        uint32_t at = rnd((uint32_t)bytes);
        uint32_t length = 1 + rnd(8);

        if (length > bytes - at) {
            length = (uint32_t)(bytes - at);
        }
        switch (rnd(8)) {
        case 0:
            p[at] ^= (uint8_t)(1u << rnd(8));
            break;
        case 1:
            for (uint32_t i = 0; i < length; i++) {
                p[at + i] = 0xff;
            }
            break;
        case 2:                         /* what lies elsewhere: a field of another record */
            memmove(p + at, p + rnd((uint32_t)(bytes - length + 1)), length);
            break;
        case 3:                         /* bytes lost */
            memmove(p + at, p + at + length, bytes - at - length);
            bytes -= length;
            break;
        case 4:
            if (!rnd(8)) {
                bytes = at;
            }
            break;
        default:
            p[at] = interesting();
            break;
        }
    }
    return bytes;
}

static void report(const char *what, uint64_t seed, const char *fault)
{
    fail_msg("%s, FS_TEST_SEED=%llu: %s", what, (unsigned long long)seed, fault);
}

static void one_mutant(const struct machine *m, const char *what, uint64_t seed, uint8_t *room, unsigned *believed)
{
    struct fs_error err = { "" };
    struct hv_topology t;

    rnd_state = seed * 0x9e3779b97f4a7c15ull + 1;
    const bool both = rnd(4) == 0, srat_only = rnd(4) == 0;
    memcpy(room, m->smbios.p, m->smbios.bytes);
    size_t smbios_bytes = srat_only ? m->smbios.bytes : mutate(room, m->smbios.bytes);
    /* Exact buffers, so that the address sanitizer sees the first byte beyond. */
    uint8_t *smbios = malloc(smbios_bytes + 1), *srat = malloc(m->srat.bytes + 1);
    assert_true(smbios && srat);
    uint8_t *smbios_exact = smbios + 1, *srat_exact = srat + 1;
    memcpy(smbios_exact, room, smbios_bytes);
    size_t srat_bytes = m->srat.bytes;
    if (srat_bytes) {
        memcpy(room, m->srat.p, srat_bytes);
        srat_bytes = both || srat_only ? mutate(room, srat_bytes) : srat_bytes;
        memcpy(srat_exact + (m->srat.bytes - srat_bytes), room, srat_bytes);
    }
    fs_status_t s = topology_from_tables(smbios_exact, smbios_bytes, srat_exact + (m->srat.bytes - srat_bytes), srat_bytes, &m->ram,
                                         &m->host, &t, &err);
    if (s) {
        report(what, seed, err.text);
    }
    const char *fault = topology_check(&t, &m->ram);
    if (fault) {
        report(what, seed, fault);
    }
    *believed += t.source == HV_TOPO_SMBIOS;
    hv_topology_free(&t);
    free(smbios);
    free(srat);
}

static void seeds(uint64_t *first, uint64_t *last)
{
    const char *one = getenv("FS_TEST_SEED"), *count = getenv("FS_TEST_MUTATIONS");

    *first = one ? strtoull(one, NULL, 0) : 1;
    *last = one ? *first : count ? strtoull(count, NULL, 0) : MUTATIONS;
}

static void mutated_tables(void **state)
{
    uint64_t first, last;

    (void)state;
    seeds(&first, &last);
    for (int f = 0; f < FIXTURE_COUNT; f++) {
        struct machine m;
        unsigned believed = 0;

        fixture_make(&m, (enum fixture)f);
        size_t most = m.smbios.bytes > m.srat.bytes ? m.smbios.bytes : m.srat.bytes;
        uint8_t *room = malloc(most + 1);
        assert_non_null(room);
        for (uint64_t seed = first; seed <= last; seed++) {
            one_mutant(&m, fixture_name((enum fixture)f), seed, room, &believed);
        }
        print_message("%s: %llu mutants of %zu + %zu bytes, SMBIOS believed in %u\n", fixture_name((enum fixture)f),
                      (unsigned long long)(last - first + 1), m.smbios.bytes, m.srat.bytes, believed);
        free(room);
        machine_free(&m);
    }
}

static void mutated_maps(void **state)
{
    static const char text[] = "# map\ndimm DIMM_A1 0-3G 4G+1G bank=A node=0\ndimm \"DIMM A2\" 5G-9G bank=\"Channel A\" size=4G\n"
                               "dimm B1 mfn:240000-440000 set=x\ndimm B2 set=x\n";
    struct machine m;
    uint64_t first, last;
    unsigned good = 0;

    (void)state;
    seeds(&first, &last);
    fixture_make(&m, FIXTURE_DESKTOP);
    for (uint64_t seed = first; seed <= last; seed++) {
        struct fs_error err = { "" };
        struct hv_topology t;
        uint8_t room[sizeof(text)];

        rnd_state = seed * 0x9e3779b97f4a7c15ull + 1;
        memcpy(room, text, sizeof(text) - 1);
        size_t bytes = mutate(room, sizeof(text) - 1);
        char *exact = malloc(bytes ? bytes : 1);
        assert_non_null(exact);
        memcpy(exact, room, bytes);
        fs_status_t s = topology_from_map(exact, bytes, "m", &m.ram, &m.host, &t, &err);
        free(exact);
        if (!s) {
            const char *fault = topology_check(&t, &m.ram);

            if (fault) {
                report("map", seed, fault);
            }
            good++;
            hv_topology_free(&t);
        } else if (s != FS_BAD_INPUT || !*err.text || t.count) {
            report("map", seed, "fails without words, or otherwise than by FS_BAD_INPUT");
        }
    }
    print_message("map: %llu mutants, %u well formed\n", (unsigned long long)(last - first + 1), good);
    machine_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mutated_tables),
        cmocka_unit_test(mutated_maps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
