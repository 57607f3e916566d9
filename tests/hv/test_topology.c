/*
 * test_topology.c - DIMMs and interleave sets from the tables of real machines' shapes, and targets by name.
 *
 * Each fixture's DIMMs are written down here by hand; the lies are made from the
 * fixtures by one change each.
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

static void build(const struct machine *m, struct hv_topology *t)
{
    struct fs_error err = { "" };
    fs_status_t s = topology_from_tables(m->smbios.p, m->smbios.bytes, m->srat.p, m->srat.bytes, &m->ram, &m->host, t, &err);

    assert_int_equal(s, FS_OK);
    const char *fault = topology_check(t, &m->ram);
    if (fault) {
        fail_msg("%s", fault);
    }
}

static void build_fixture(enum fixture f, struct machine *m, struct hv_topology *t)
{
    fixture_make(m, f);
    build(m, t);
}

static void done(struct machine *m, struct hv_topology *t)
{
    hv_topology_free(t);
    assert_int_equal(t->count, 0);
    machine_free(m);
}

static const struct hv_dimm *named(const struct hv_topology *t, const char *bank, const char *name)
{
    for (size_t i = 0; i < t->count; i++) {
        if (!strcmp(t->dimms[i].name, name) && !strcmp(t->dimms[i].bank, bank)) {
            return &t->dimms[i];
        }
    }
    fail_msg("no DIMM \"%s/%s\" (note: %s)", bank, name, t->note);
    return NULL;
}

/* The ranges in GiB, half-open, with the 385 frames of the legacy hole (0x9f to 0x100) taken out of the first. */
static void has_ranges(const struct hv_dimm *d, size_t count, const uint64_t (*gib)[2])
{
    uint64_t pages = 0;

    for (size_t i = 0; i < count; i++) {
        pages += (gib[i][1] - gib[i][0]) * FRAMES_PER_GIB - (gib[i][0] ? 0 : 0x100 - 0x9f);
        assert_true(mfn_set_contains(&d->ranges, mfn_make(gib[i][0] * FRAMES_PER_GIB)));
        assert_true(mfn_set_contains(&d->ranges, mfn_make(gib[i][1] * FRAMES_PER_GIB - 1)));
        assert_false(gib[i][0] && mfn_set_contains(&d->ranges, mfn_make(gib[i][0] * FRAMES_PER_GIB - 1)));
        assert_false(mfn_set_contains(&d->ranges, mfn_make(gib[i][1] * FRAMES_PER_GIB)));
    }
    assert_int_equal(mfn_set_pages(&d->ranges), pages);
}

static void find_is(const struct hv_topology *t, const char *target, fs_status_t want, uint64_t pages, const char *words)
{
    struct mfn_range_set found = { 0 };
    struct fs_error err = { "old words" };
    fs_status_t s = topology_find(t, target, &found, &err);

    if (s != want || (!s && mfn_set_pages(&found) != pages) || (words ? !strstr(err.text, words) : *err.text)) {
        fail_msg("%s: %s, %llu pages, \"%s\"; wanted %s, %llu, \"%s\"", target, fs_status_name(s),
                 (unsigned long long)mfn_set_pages(&found), err.text, fs_status_name(want), (unsigned long long)pages, words ? words : "");
    }
    assert_int_equal(topology_find(t, target, &found, NULL), want);
    mfn_set_free(&found);
}

/* ---- machines ---------------------------------------------------------------------- */

static void interleaved_server(void **state)
{
    struct hv_topology t;
    struct machine m;

    (void)state;
    build_fixture(FIXTURE_SERVER, &m, &t);
    assert_int_equal(t.source, HV_TOPO_SMBIOS);
    assert_string_equal(t.note, "");
    assert_int_equal(t.count, 8);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(t.dimms[i].set, i / 4);
        assert_int_equal(t.dimms[i].node, i / 4);
        assert_int_equal(t.dimms[i].interleave_depth, 4);
        assert_int_equal(t.dimms[i].interleave_position, i % 4 + 1);
        assert_int_equal(t.dimms[i].size_bytes, 16 * GIB);
    }
    has_ranges(named(&t, "P1_Node0_Channel3_Dimm0", "P2-DIMMD1"), 1, (uint64_t[][2]){ { 66, 130 } });
    uint64_t socket0 = 62 * FRAMES_PER_GIB + 0x6f000 - 0x100 + 0x9f;
    find_is(&t, "set:0", FS_OK, socket0, NULL);
    find_is(&t, "SET:1", FS_OK, 64 * FRAMES_PER_GIB, NULL);
    find_is(&t, "set:2", FS_NOT_FOUND, 0, "no set:2");
    find_is(&t, "node:0", FS_OK, socket0, NULL);
    find_is(&t, "Node1", FS_OK, 64 * FRAMES_PER_GIB, NULL);
    find_is(&t, "node:2", FS_NOT_FOUND, 0, "nodes: 0, 1");
    find_is(&t, "p2-dimmb1", FS_UNSUPPORTED, 0,
            "P2-DIMMB1 is interleaved with P2-DIMMA1, P2-DIMMC1 and P2-DIMMD1: frames alternate between them; evacuate the set: set:1");
    find_is(&t, "P1_Node0_Channel1_Dimm0/P2-DIMMB1", FS_UNSUPPORTED, 0, "set:1");
    find_is(&t, "P2-DIMMA2", FS_NOT_FOUND, 0, "known: set:0, set:1, node:0, node:1, mfn:START-END");
    done(&m, &t);
}

/* Its sets would be right, their ranges are not: 2 GiB behind the hole are on nobody, and a set's end is off by as much. */
static void sequential_server(void **state)
{
    struct hv_topology t;
    struct machine m;

    (void)state;
    build_fixture(FIXTURE_SERVER_SEQUENTIAL, &m, &t);
    assert_int_equal(t.source, HV_TOPO_NUMA);
    assert_non_null(strstr(t.note, "2048 MiB of RAM are on no DIMM"));
    assert_int_equal(t.count, 2);
    has_ranges(named(&t, "", "NODE1"), 1, (uint64_t[][2]){ { 194, 386 } });
    hv_topology_free(&t);

    mfn_set_free(&m.ram);                               /* the same with the hole told right: four sets */
    machine_ram(&m, 0x100000, 384 * GIB);
    machine_nodes(&m, 1, 384 * GIB);
    build(&m, &t);
    assert_int_equal(t.source, HV_TOPO_SMBIOS);
    assert_int_equal(t.count, 12);
    for (size_t i = 0; i < 12; i++) {
        assert_int_equal(t.dimms[i].set, i / 3);
        assert_int_equal(t.dimms[i].interleave_depth, 3);
        assert_int_equal(t.dimms[i].interleave_position, i % 3 + 1);
    }
    assert_non_null(strstr(t.note, "12 DIMMs are or may be interleaved"));
    find_is(&t, "set:2", FS_OK, 96 * FRAMES_PER_GIB, NULL);
    done(&m, &t);
}

static void interleaved_laptops(void **state)
{
    (void)state;
    for (int f = FIXTURE_LAPTOP; f <= FIXTURE_LAPTOP_SHARED; f++) {
        struct hv_topology t;
        struct machine m;

        build_fixture((enum fixture)f, &m, &t);
        assert_int_equal(t.source, HV_TOPO_SMBIOS);
        assert_int_equal(t.count, 2);               /* the ROM chip is none */
        assert_int_equal(t.dimms[0].set, t.dimms[1].set);
        assert_string_equal(t.dimms[0].name, "ChannelA-DIMM0");
        assert_int_equal(t.dimms[1].interleave_depth, 2);
        assert_int_equal(t.dimms[1].interleave_position, 2);
        assert_int_equal(t.dimms[0].node, 0);
        assert_int_equal(mfn_set_pages(&t.dimms[0].ranges), mfn_set_pages(&m.ram));
        if (f == FIXTURE_LAPTOP) {
            assert_non_null(strstr(t.note, "one behind the other"));
        } else {
            assert_string_equal(t.note, "");
        }
        find_is(&t, "ChannelB-DIMM0", FS_UNSUPPORTED, 0, "interleaved with ChannelA-DIMM0: frames alternate");
        find_is(&t, "set:0", FS_OK, mfn_set_pages(&m.ram), NULL);
        done(&m, &t);
    }
}

static void desktop_with_the_hole(void **state)
{
    struct hv_topology t;
    struct machine m;

    (void)state;
    build_fixture(FIXTURE_DESKTOP, &m, &t);
    assert_int_equal(t.source, HV_TOPO_SMBIOS);
    assert_string_equal(t.note, "");
    assert_int_equal(t.count, 4);
    has_ranges(named(&t, "ChannelA", "DIMM_A1"), 2, (uint64_t[][2]){ { 0, 3 }, { 4, 5 } });
    has_ranges(named(&t, "ChannelA", "DIMM_A2"), 1, (uint64_t[][2]){ { 5, 9 } });
    has_ranges(named(&t, "ChannelB", "DIMM_B2"), 1, (uint64_t[][2]){ { 13, 17 } });
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(t.dimms[i].set, i);
        assert_int_equal(t.dimms[i].interleave_depth, 0);
        assert_int_equal(t.dimms[i].interleave_position, 0);
    }
    find_is(&t, "dimm_b1", FS_OK, 4 * FRAMES_PER_GIB, NULL);
    find_is(&t, "channelb/dimm_b1", FS_OK, 4 * FRAMES_PER_GIB, NULL);
    find_is(&t, "channela/dimm_b1", FS_NOT_FOUND, 0, "DIMM_A1, DIMM_A2, DIMM_B1, DIMM_B2, node:0");
    done(&m, &t);

    build_fixture(FIXTURE_DESKTOP_NO_HOLE, &m, &t);     /* where the moved GiB lies differs between chipsets */
    assert_int_equal(t.source, HV_TOPO_NUMA);
    assert_int_equal(t.count, 1);
    assert_string_equal(t.dimms[0].name, "NODE0");
    assert_non_null(strstr(t.note, "1024 MiB of RAM are on no DIMM"));
    assert_non_null(strstr(t.note, "DIMMs here are NUMA nodes"));
    done(&m, &t);
}

static void without_type_20(void **state)
{
    struct hv_topology t;
    struct machine m;

    (void)state;
    build_fixture(FIXTURE_CHANNELS, &m, &t);
    assert_int_equal(t.source, HV_TOPO_SMBIOS);
    assert_non_null(strstr(t.note, "no usable type 20"));
    assert_int_equal(t.count, 4);
    has_ranges(named(&t, "", "CPU1_DIMM_A1"), 2, (uint64_t[][2]){ { 0, 2 }, { 4, 34 } });
    has_ranges(named(&t, "", "CPU2_DIMM_B1"), 1, (uint64_t[][2]){ { 98, 130 } });
    assert_int_equal(named(&t, "", "CPU1_DIMM_B1")->node, 0);
    assert_int_equal(named(&t, "", "CPU2_DIMM_A1")->node, 1);
    find_is(&t, "cpu2_dimm_a1", FS_OK, 32 * FRAMES_PER_GIB, NULL);
    done(&m, &t);

    build_fixture(FIXTURE_ONE_ARRAY, &m, &t);
    assert_int_equal(t.source, HV_TOPO_NUMA);
    assert_non_null(strstr(t.note, "do not tell DIMMs apart"));
    assert_int_equal(t.count, 2);
    has_ranges(named(&t, "", "NODE1"), 2, (uint64_t[][2]){ { 0, 2 }, { 4, 130 } });     /* as Xen numbers them */
    has_ranges(named(&t, "", "NODE0"), 1, (uint64_t[][2]){ { 130, 258 } });
    assert_int_equal(named(&t, "", "NODE0")->node, 0);
    find_is(&t, "node0", FS_OK, 128 * FRAMES_PER_GIB, NULL);
    done(&m, &t);
}

static void beyond_4_tib(void **state)
{
    struct hv_topology t;
    struct machine m;

    (void)state;
    build_fixture(FIXTURE_LARGE, &m, &t);
    assert_int_equal(t.source, HV_TOPO_SMBIOS);
    assert_string_equal(t.note, "");
    assert_int_equal(t.count, 24);
    assert_int_equal(t.dimms[23].set, 3);
    assert_int_equal(t.dimms[23].interleave_depth, 6);
    assert_int_equal(t.dimms[23].size_bytes, 256 * GIB);
    has_ranges(&t.dimms[23], 1, (uint64_t[][2]){ { 3 * 1536 + 2, 4 * 1536 + 2 } });
    find_is(&t, "dimm 3", FS_NOT_FOUND, 0, "say which: SET 0/DIMM 3, SET 1/DIMM 3, SET 2/DIMM 3, SET 3/DIMM 3");
    find_is(&t, "set 2/dimm 3", FS_UNSUPPORTED, 0, "set:2");
    find_is(&t, "set:3", FS_OK, 1536 * FRAMES_PER_GIB, NULL);
    done(&m, &t);
}

static void qemu_has_nodes_only(void **state)
{
    struct hv_topology t;
    struct machine m;

    (void)state;
    build_fixture(FIXTURE_QEMU, &m, &t);
    assert_int_equal(t.source, HV_TOPO_NUMA);
    assert_non_null(strstr(t.note, "SMBIOS tables not used"));
    assert_int_equal(t.count, 4);
    for (uint32_t i = 0; i < 4; i++) {
        char name[16];
        uint64_t start = i < 3 ? i : 4;

        snprintf(name, sizeof(name), "NODE%u", i);
        has_ranges(named(&t, "", name), 1, (uint64_t[][2]){ { start, start + 1 } });
        assert_int_equal(t.dimms[i].node, i);
        find_is(&t, name, FS_OK, i ? FRAMES_PER_GIB : FRAMES_PER_GIB - (0x100 - 0x9f), NULL);
    }
    done(&m, &t);
    build_fixture(FIXTURE_QEMU_40G, &m, &t);
    assert_int_equal(t.source, HV_TOPO_NUMA);
    assert_int_equal(t.count, 1);
    assert_string_equal(t.dimms[0].name, "NODE0");
    done(&m, &t);

    build_fixture(FIXTURE_TESTHOST, &m, &t);            /* with type 20 its nodes are DIMMs with names */
    assert_int_equal(t.source, HV_TOPO_SMBIOS);
    assert_string_equal(t.note, "");
    assert_int_equal(t.count, 4);
    has_ranges(named(&t, "NODE3", "DIMM3"), 1, (uint64_t[][2]){ { 4, 5 } });
    assert_int_equal(named(&t, "NODE2", "DIMM2")->node, 2);
    find_is(&t, "DIMM1", FS_OK, FRAMES_PER_GIB, NULL);
    find_is(&t, "NODE1/DIMM1", FS_OK, FRAMES_PER_GIB, NULL);
    find_is(&t, "NODE1", FS_OK, FRAMES_PER_GIB, NULL);
    done(&m, &t);
}

static void read_table(const char *name, struct table *t)
{
    char path[256];
    uint8_t bytes[4096];

    snprintf(path, sizeof(path), "tests/hv/data/%s", name);      /* tests run at the top of the tree */
    FILE *f = fopen(path, "rb");
    if (!f) {
        fail_msg("cannot open %s", path);
        return;
    }
    table_put(t, bytes, fread(bytes, 1, sizeof(bytes), f));
    fclose(f);
    assert_true(t->bytes > 100);
}

/* As dom0 of a real Xen saw them. */
static void real_tables(void **state)
{
    const struct { const char *smbios; enum hv_topology_source source; const char *names[4], *banks[4], *note; } cases[] = {
        { "xenhost-4x1g.dmi", HV_TOPO_SMBIOS, { "DIMM0", "DIMM1", "DIMM2", "DIMM3" }, { "NODE0", "NODE1", "NODE2", "NODE3" }, "" },
        { "qemu-4g.dmi", HV_TOPO_NUMA, { "NODE0", "NODE1", "NODE2", "NODE3" }, { "", "", "", "" }, "do not tell DIMMs apart" },
    };

    (void)state;
    for (size_t c = 0; c < FS_ARRAY_SIZE(cases); c++) {
        struct machine m = { 0 };
        struct hv_topology t;

        read_table(cases[c].smbios, &m.smbios);
        read_table("qemu-4x1g.srat", &m.srat);
        machine_ram(&m, 0, 0x9f000);
        machine_ram(&m, 0x100000, 0xbffdf000);
        machine_ram(&m, 4 * GIB, 5 * GIB);
        machine_nodes(&m, 4, GIB);
        build(&m, &t);
        assert_int_equal(t.source, cases[c].source);
        assert_non_null(strstr(t.note, cases[c].note));
        assert_true(*cases[c].note || !*t.note);
        assert_int_equal(t.count, 4);
        for (uint32_t i = 0; i < 4; i++) {
            static const uint64_t pages[] = { 262047, 262144, 262111, 262144 };
            const struct hv_dimm *d = named(&t, cases[c].banks[i], cases[c].names[i]);

            assert_int_equal(mfn_set_pages(&d->ranges), pages[i]);
            assert_int_equal(d->node, i);
            assert_int_equal(d->ranges.ranges[d->ranges.count - 1].start.n, i == 3 ? 0x100000 : i ? i * FRAMES_PER_GIB : 0x100);
        }
        done(&m, &t);
    }
}

/* ---- lies --------------------------------------------------------------------------- */

/* Offset of the n-th record (from 0) of a type; fails where there is none. */
static uint8_t *record(struct table *t, uint8_t type, size_t n)
{
    size_t at = 0;

    while (t->p[at] != 127) {
        if (t->p[at] == type && !n--) {
            return t->p + at;
        }
        at += t->p[at + 1];
        while (t->p[at] || t->p[at + 1]) {
            at++;
        }
        at += 2;
    }
    fail_msg("no such record");
    return NULL;
}

static void expect_nodes(struct machine *m, size_t nodes, const char *why)
{
    struct hv_topology t;

    build(m, &t);
    if (t.source != HV_TOPO_NUMA || t.count != nodes || !strstr(t.note, why)) {
        fail_msg("source %d, %zu DIMMs, \"%s\"; wanted nodes and \"%s\"", t.source, t.count, t.note, why);
    }
    done(m, &t);
}

static void a_partner_is_missing(void **state)
{
    struct hv_topology t;
    struct machine m;

    (void)state;
    fixture_make(&m, FIXTURE_LAPTOP_SHARED);            /* one DIMM would hold twice its bytes */
    record(&m.smbios, 20, 1)[0] = 126;
    expect_nodes(&m, 1, "more RAM lies on ChannelA-DIMM0 than it holds");

    fixture_make(&m, FIXTURE_LAPTOP_SHARED);            /* the partner's record is gone, its range is not: still a set */
    record(&m.smbios, 17, 2)[0] = 126;
    build(&m, &t);
    assert_int_equal(t.source, HV_TOPO_SMBIOS);
    assert_int_equal(t.count, 2);
    assert_int_equal(named(&t, "", "DIMM_0x0008")->set, named(&t, "BANK 0", "ChannelA-DIMM0")->set);
    assert_non_null(strstr(t.note, "no record describes"));
    done(&m, &t);

    fixture_make(&m, FIXTURE_DESKTOP);                  /* a DIMM without a range: its frames are on no DIMM */
    record(&m.smbios, 20, 4)[0] = 126;
    expect_nodes(&m, 1, "4096 MiB of RAM are on no DIMM");
}

static void tables_against_nodes(void **state)
{
    struct machine m;

    (void)state;
    fixture_make(&m, FIXTURE_DESKTOP);
    machine_nodes(&m, 2, 9 * GIB);
    table_free(&m.srat);
    srat_begin(&m.srat, 1);
    srat_memory(&m.srat, 0, 0, 8 * GIB, SRAT_ENABLED);
    srat_memory(&m.srat, 1, 8 * GIB, 17 * GIB, SRAT_ENABLED);
    srat_end(&m.srat);
    expect_nodes(&m, 2, "DIMM_A2 would lie on several NUMA nodes");

    fixture_make(&m, FIXTURE_LAPTOP);
    machine_nodes(&m, 2, 9 * GIB);
    srat_begin(&m.srat, 1);
    srat_memory(&m.srat, 0, 0, 8 * GIB, SRAT_ENABLED);
    srat_memory(&m.srat, 1, 8 * GIB, 17 * GIB, SRAT_ENABLED);
    srat_end(&m.srat);
    expect_nodes(&m, 2, "ChannelA-DIMM0 would lie on several NUMA nodes");
}

static void interleave_claims(void **state)
{
    struct hv_topology t;
    struct machine m;

    (void)state;
    fixture_make(&m, FIXTURE_DESKTOP);                  /* not told: on doubt one set */
    for (size_t i = 0; i < 5; i++) {
        record(&m.smbios, 20, i)[0x11] = 0xff;
    }
    build(&m, &t);
    assert_int_equal(t.count, 4);
    assert_non_null(strstr(t.note, "4 DIMMs are or may be interleaved"));
    assert_int_equal(t.dimms[1].interleave_depth, 4);
    assert_int_equal(t.dimms[1].interleave_position, 0);
    assert_int_equal(mfn_set_pages(&t.dimms[3].ranges), mfn_set_pages(&m.ram));
    done(&m, &t);

    fixture_make(&m, FIXTURE_DESKTOP);                  /* a DIMM's first record knows nothing, its second says no, or yes */
    record(&m.smbios, 20, 0)[0x11] = 0xff;
    record(&m.smbios, 20, 4)[0x11] = 0xff;
    build(&m, &t);
    assert_int_equal(named(&t, "ChannelA", "DIMM_A1")->interleave_depth, 2);
    assert_int_equal(named(&t, "ChannelB", "DIMM_B2")->interleave_depth, 2);
    assert_int_equal(named(&t, "ChannelB", "DIMM_B1")->interleave_depth, 0);
    hv_topology_free(&t);
    record(&m.smbios, 20, 1)[0x11] = 1;
    record(&m.smbios, 20, 4)[0x11] = 2;
    build(&m, &t);
    assert_int_equal(named(&t, "ChannelA", "DIMM_A1")->interleave_position, 1);
    assert_int_equal(named(&t, "ChannelB", "DIMM_B2")->interleave_position, 2);
    done(&m, &t);

    fixture_make(&m, FIXTURE_TESTHOST);                 /* not told, but each has an array range of its own */
    record(&m.smbios, 20, 2)[0x11] = 0xff;
    build(&m, &t);
    assert_int_equal(t.count, 4);
    assert_non_null(strstr(t.note, "whether 1 DIMMs are interleaved is not told"));
    assert_int_equal(t.dimms[2].interleave_depth, 0);
    done(&m, &t);

    fixture_make(&m, FIXTURE_DESKTOP);                  /* two of one array range claim places, with ranges of their own */
    record(&m.smbios, 20, 2)[0x11] = 1;
    record(&m.smbios, 20, 4)[0x11] = 2;
    build(&m, &t);
    assert_int_equal(t.count, 4);
    assert_int_equal(named(&t, "ChannelA", "DIMM_A2")->set, named(&t, "ChannelB", "DIMM_B2")->set);
    has_ranges(named(&t, "ChannelA", "DIMM_A2"), 2, (uint64_t[][2]){ { 5, 9 }, { 13, 17 } });
    assert_int_not_equal(named(&t, "ChannelA", "DIMM_A2")->set, named(&t, "ChannelB", "DIMM_B1")->set);
    assert_non_null(strstr(t.note, "one behind the other"));
    done(&m, &t);

    fixture_make(&m, FIXTURE_DESKTOP);                  /* two of different array ranges: no partners */
    record(&m.smbios, 20, 2)[0x11] = 1;
    record(&m.smbios, 20, 2)[0x0e] = 0x50;
    record(&m.smbios, 20, 4)[0x11] = 2;
    build(&m, &t);
    assert_int_equal(t.count, 4);
    assert_int_not_equal(named(&t, "ChannelA", "DIMM_A2")->set, named(&t, "ChannelB", "DIMM_B2")->set);
    assert_non_null(strstr(t.note, "2 DIMMs are said to be interleaved, but with no other"));
    done(&m, &t);

    fixture_make(&m, FIXTURE_DESKTOP);                  /* one alone does */
    record(&m.smbios, 20, 2)[0x11] = 1;
    build(&m, &t);
    assert_int_equal(t.count, 4);
    assert_non_null(strstr(t.note, "with no other"));
    assert_int_equal(named(&t, "ChannelA", "DIMM_A2")->interleave_position, 0);
    done(&m, &t);

    fixture_make(&m, FIXTURE_SERVER);                   /* ranges shared, places claimed twice: a set without places */
    record(&m.smbios, 20, 1)[0x11] = 1;
    build(&m, &t);
    assert_int_equal(t.count, 8);
    assert_int_equal(t.dimms[0].interleave_depth, 4);
    assert_int_equal(t.dimms[0].interleave_position, 0);
    assert_int_equal(t.dimms[7].interleave_position, 4);
    done(&m, &t);
}

static void small_defects_are_said(void **state)
{
    struct hv_topology t;
    struct machine m;

    (void)state;
    fixture_make(&m, FIXTURE_DESKTOP);
    record(&m.smbios, 17, 1)[0x10] = 9;                 /* a name that is not there */
    m.smbios.bytes -= 6;                                /* nor an end */
    build(&m, &t);
    assert_int_equal(t.count, 4);
    assert_non_null(strstr(t.note, "1 names missing"));
    assert_non_null(strstr(t.note, "no end-of-table record"));
    find_is(&t, "DIMM_0x0042", FS_OK, 4 * FRAMES_PER_GIB, NULL);
    done(&m, &t);

    fixture_make(&m, FIXTURE_DESKTOP);                  /* an empty slot with a range, beside the right ones */
    record(&m.smbios, 17, 0)[0x0c] = record(&m.smbios, 17, 0)[0x0d] = 0;
    expect_nodes(&m, 1, "4095 MiB of RAM are on no DIMM");

    fixture_make(&m, FIXTURE_LAPTOP_SHARED);            /* and beside DIMMs that hold everything */
    m.smbios.bytes -= 6;
    smb_device_range(&m.smbios, 0x77, 7, 10, 4 * GIB, 8 * GIB, 0, 0);
    smb_end(&m.smbios);
    build(&m, &t);
    assert_int_equal(t.count, 2);
    assert_non_null(strstr(t.note, "1 ranges of empty slots, left out"));
    done(&m, &t);

    fixture_make(&m, FIXTURE_DESKTOP);                  /* a size that is not told checks nothing, and breaks nothing */
    record(&m.smbios, 17, 0)[0x0c] = record(&m.smbios, 17, 0)[0x0d] = 0xff;
    build(&m, &t);
    assert_int_equal(t.source, HV_TOPO_SMBIOS);
    assert_int_equal(named(&t, "ChannelA", "DIMM_A1")->size_bytes, 0);
    done(&m, &t);

    fixture_make(&m, FIXTURE_DESKTOP);                  /* a few frames beyond the last range */
    machine_ram(&m, 17 * GIB, 17 * GIB + 8 * MIB_BYTES);
    build(&m, &t);
    assert_int_equal(t.source, HV_TOPO_SMBIOS);
    assert_int_equal(t.count, 5);
    assert_int_equal(mfn_set_pages(&named(&t, "", "UNNAMED")->ranges), 8 * 256);
    assert_non_null(strstr(t.note, "8 MiB of RAM belong to no known DIMM"));
    find_is(&t, "unnamed", FS_OK, 8 * 256, NULL);
    done(&m, &t);

    fixture_make(&m, FIXTURE_DESKTOP);                  /* a DIMM that is no RAM (persistent memory): listed, not found */
    m.smbios.bytes -= 6;
    smb_device(&m.smbios, 0x99, 0x40, 128 * GIB, "PMEM0", "");
    smb_end(&m.smbios);
    build(&m, &t);
    assert_int_equal(t.count, 5);
    assert_int_equal(t.dimms[4].ranges.count, 0);
    assert_non_null(strstr(t.note, "1 DIMMs without an address range"));
    find_is(&t, "PMEM0", FS_BAD_RANGE, 0, "PMEM0 holds no RAM");
    done(&m, &t);
}

static void names_that_repeat(void **state)
{
    struct hv_topology t;
    struct machine m;

    (void)state;
    fixture_make(&m, FIXTURE_DESKTOP);
    for (size_t i = 0; i < 4; i++) {
        uint8_t *r = record(&m.smbios, 17, i);
        char *locator = (char *)r + r[1], *bank = locator + 8;

        memcpy(locator, i == 2 ? "DIMM_#2" : "dimm_  ", 7);
        memcpy(bank, "Channel0", 8);
    }
    build(&m, &t);                                      /* topology_check() holds names to be unique */
    assert_int_equal(t.count, 4);
    assert_string_equal(t.dimms[0].name, "dimm_");
    find_is(&t, "dimm_", FS_OK, mfn_set_pages(&t.dimms[0].ranges), NULL);
    for (size_t i = 0; i < 4; i++) {
        find_is(&t, t.dimms[i].name, FS_OK, mfn_set_pages(&t.dimms[i].ranges), NULL);
    }
    done(&m, &t);

    fixture_make(&m, FIXTURE_TESTHOST);                 /* a DIMM called as a node is: what is printed is what is found */
    for (size_t i = 0; i < 4; i++) {
        uint8_t *r = record(&m.smbios, 17, i);

        memcpy(r + r[1], (const char *[]){ "NODE1", "NODE0", "set:0", "mfn:1" }[i], 5);
    }
    build(&m, &t);
    find_is(&t, "NODE1", FS_OK, FRAMES_PER_GIB - (0x100 - 0x9f), NULL);
    find_is(&t, "node:1", FS_OK, FRAMES_PER_GIB, NULL);
    find_is(&t, "set:0", FS_OK, FRAMES_PER_GIB, NULL);
    find_is(&t, "mfn:1", FS_OK, FRAMES_PER_GIB, NULL);
    done(&m, &t);
}

static void no_tables_at_all(void **state)
{
    struct hv_topology t;
    struct machine m;

    (void)state;
    fixture_make(&m, FIXTURE_QEMU);
    m.smbios.bytes = m.srat.bytes = 0;
    build(&m, &t);
    assert_int_equal(t.source, HV_TOPO_NUMA);
    assert_int_equal(t.count, 1);
    assert_string_equal(t.dimms[0].name, "UNNAMED");
    assert_int_equal(t.dimms[0].node, UINT32_MAX);
    assert_int_equal(t.node_count, 0);
    assert_non_null(strstr(t.note, "where the nodes lie is unknown"));
    find_is(&t, "node:1", FS_NOT_FOUND, 0, "no table tells where node 1 lies");
    find_is(&t, "mfn:40000-80000", FS_OK, 0x40000, NULL);
    assert_int_equal(topology_node_of(&t, mfn_make(0x50000)), UINT32_MAX);
    hv_topology_free(&t);

    m.host.node_count = 1;                              /* one node needs no table */
    build(&m, &t);
    assert_string_equal(t.dimms[0].name, "NODE0");
    assert_int_equal(topology_node_of(&t, mfn_make(0x50000)), 0);
    hv_topology_free(&t);

    mfn_set_free(&m.ram);                               /* and no RAM either */
    build(&m, &t);
    assert_int_equal(t.count, 0);
    find_is(&t, "mfn:0-1", FS_BAD_RANGE, 0, "is RAM");
    find_is(&t, "x", FS_NOT_FOUND, 0, "no DIMM is called");
    done(&m, &t);
}

static void nodes_that_are_not_xens(void **state)
{
    struct hv_topology t;
    struct machine m;

    (void)state;
    fixture_make(&m, FIXTURE_QEMU);
    m.host.node_count = 3;                              /* Xen knows one less */
    build(&m, &t);
    assert_int_equal(t.node_count, 0);
    assert_non_null(strstr(t.note, "not Xen's"));
    done(&m, &t);

    fixture_make(&m, FIXTURE_QEMU);
    m.host.nodes[2].total_pages = FRAMES_PER_GIB / 2;   /* numa=fake, say */
    build(&m, &t);
    assert_int_equal(t.node_count, 0);
    done(&m, &t);

    fixture_make(&m, FIXTURE_TESTHOST);                 /* DIMMs stay DIMMs, though on unknown nodes */
    m.host.nodes[2].total_pages = FRAMES_PER_GIB / 2;
    build(&m, &t);
    assert_int_equal(t.count, 4);
    assert_int_equal(t.dimms[1].node, UINT32_MAX);
    done(&m, &t);

    fixture_make(&m, FIXTURE_TESTHOST);                 /* half of a DIMM on no node: on none */
    table_free(&m.srat);
    srat_begin(&m.srat, 3);
    srat_memory(&m.srat, 0, 0, 3 * GIB, SRAT_ENABLED);
    srat_memory(&m.srat, 1, 4 * GIB, 4 * GIB + GIB / 2, SRAT_ENABLED);
    srat_end(&m.srat);
    machine_nodes(&m, 2, 3 * GIB);
    build(&m, &t);
    assert_int_equal(t.count, 4);
    assert_int_equal(t.dimms[2].node, 0);
    assert_int_equal(t.dimms[3].node, UINT32_MAX);
    find_is(&t, "node:1", FS_OK, FRAMES_PER_GIB / 2, NULL);
    done(&m, &t);

    fixture_make(&m, FIXTURE_SERVER);                   /* Xen runs without NUMA: one node, whatever the SRAT says */
    m.host.node_count = 1;
    build(&m, &t);
    assert_int_equal(t.count, 8);
    assert_int_equal(t.dimms[7].node, 0);
    find_is(&t, "node:0", FS_OK, mfn_set_pages(&m.ram), NULL);
    done(&m, &t);
}

/* ---- targets ------------------------------------------------------------------------- */

static void frame_targets(void **state)
{
    struct hv_topology t;
    struct machine m;

    (void)state;
    build_fixture(FIXTURE_TESTHOST, &m, &t);
    find_is(&t, "mfn:40000-80000", FS_OK, 0x40000, NULL);
    find_is(&t, "MFN:0x40000-0X40001", FS_OK, 1, NULL);
    find_is(&t, "mfn:bff00-100100", FS_OK, 0x200, "262144 of the range's 262656 frames are not RAM and were left out");
    find_is(&t, "mfn:c0000-100000", FS_BAD_RANGE, 0, "RAM ends at mfn 140000");
    find_is(&t, "mfn:140000-ffffffffffffffff", FS_BAD_RANGE, 0, "is RAM");
    find_is(&t, "mfn:0-ffffffffffffffff", FS_OK, mfn_set_pages(&m.ram), "left out");
    find_is(&t, "mfn:40000-40000", FS_BAD_RANGE, 0, "empty");
    find_is(&t, "mfn:40001-40000", FS_BAD_RANGE, 0, "empty");
    const char *const malformed[] = { "mfn:", "mfn:1", "mfn:1-", "mfn:-1", "mfn:1-2-3", "mfn:1-2 ", "mfn: 1-2", "mfn:1-g", "mfn:0x-1",
                                      "mfn:1-10000000000000000", "mfn:+1-2", "mfn:1--2" };
    for (size_t i = 0; i < FS_ARRAY_SIZE(malformed); i++) {
        find_is(&t, malformed[i], FS_USAGE, 0, "is not a range of frames");
    }
    const char *const unknown[] = { "", "set:", "set:1x", "set:-1", "node:", "node", "node:99999999999999999999", "DIMM", "NODE1/",
                                    "/DIMM1" };
    for (size_t i = 0; i < FS_ARRAY_SIZE(unknown); i++) {
        find_is(&t, unknown[i], FS_NOT_FOUND, 0, "known: DIMM0, DIMM1, DIMM2, DIMM3, node:0, node:1, node:2, node:3");
    }
    done(&m, &t);
}

/* What was in the set before does not stay, and a failure leaves it alone. */
static void found_ranges_replace(void **state)
{
    struct mfn_range_set found = { 0 };
    struct hv_topology t;
    struct machine m;

    (void)state;
    build_fixture(FIXTURE_TESTHOST, &m, &t);
    assert_int_equal(topology_find(&t, "DIMM1", &found, NULL), FS_OK);
    assert_int_equal(topology_find(&t, "DIMM2", &found, NULL), FS_OK);
    assert_int_equal(topology_find(&t, "DIMM9", &found, NULL), FS_NOT_FOUND);
    assert_int_equal(found.count, 1);
    assert_int_equal(found.ranges[0].start.n, 2 * FRAMES_PER_GIB);
    assert_int_equal(topology_node_of(&t, found.ranges[0].start), 2);
    assert_int_equal(topology_node_of(&t, mfn_make(3 * FRAMES_PER_GIB)), UINT32_MAX);
    mfn_set_free(&found);
    done(&m, &t);
}

/* Many names: the list is cut, and says so. */
static void long_lists_are_cut(void **state)
{
    struct fs_error err = { "" };
    struct mfn_range_set found = { 0 };
    struct machine m = { 0 };
    struct hv_topology t;

    (void)state;
    for (uint16_t i = 0; i < 300; i++) {
        char name[32];

        snprintf(name, sizeof(name), "SLOT NUMBER %u", i);
        smb_device(&m.smbios, i, 0x1000, GIB, name, "");
        smb_device_range(&m.smbios, (uint16_t)(0x400 + i), i, 0xffff, i * GIB, (i + 1ull) * GIB, 0, 0);
    }
    smb_end(&m.smbios);
    machine_ram(&m, 0, 300 * GIB);
    machine_nodes(&m, 1, 300 * GIB);
    build(&m, &t);
    assert_int_equal(t.count, 300);
    assert_int_equal(topology_find(&t, "nothing", &found, &err), FS_NOT_FOUND);
    assert_non_null(strstr(err.text, "SLOT NUMBER 0, "));
    assert_non_null(strstr(err.text, " ..., mfn:START-END"));
    done(&m, &t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(interleaved_server),    cmocka_unit_test(sequential_server),     cmocka_unit_test(interleaved_laptops),
        cmocka_unit_test(desktop_with_the_hole),
        cmocka_unit_test(without_type_20),       cmocka_unit_test(beyond_4_tib),          cmocka_unit_test(qemu_has_nodes_only),
        cmocka_unit_test(real_tables),
        cmocka_unit_test(a_partner_is_missing),  cmocka_unit_test(tables_against_nodes),  cmocka_unit_test(interleave_claims),
        cmocka_unit_test(small_defects_are_said), cmocka_unit_test(names_that_repeat),    cmocka_unit_test(no_tables_at_all),
        cmocka_unit_test(nodes_that_are_not_xens), cmocka_unit_test(frame_targets),       cmocka_unit_test(found_ranges_replace),
        cmocka_unit_test(long_lists_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
