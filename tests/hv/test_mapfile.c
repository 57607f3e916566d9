/*
 * test_mapfile.c - DIMMs from a file that the user wrote, and every way to write it wrong.
 *
 * The machine is the desktop fixture's: RAM from 0 to 3 GiB and from 4 to 17 GiB.
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

static struct machine machine;

static int make_machine(void **state)
{
    (void)state;
    fixture_make(&machine, FIXTURE_DESKTOP);
    return 0;
}

static int free_machine(void **state)
{
    (void)state;
    machine_free(&machine);
    return 0;
}

static void two_nodes(void)
{
    machine_nodes(&machine, 2, 9 * GIB);
}

static fs_status_t map(const char *text, struct hv_topology *t, struct fs_error *err)
{
    size_t bytes = strlen(text);
    char *exact = malloc(bytes ? bytes : 1);            /* without the zero: what a file has */

    assert_non_null(exact);
    memcpy(exact, text, bytes);
    fs_status_t s = topology_from_map(exact, bytes, "my.map", &machine.ram, &machine.host, t, err);
    free(exact);
    return s;
}

static void good(const char *text, struct hv_topology *t)
{
    struct fs_error err = { "" };
    fs_status_t s = map(text, t, &err);

    if (s) {
        fail_msg("%s: %s", fs_status_name(s), err.text);
    }
    const char *fault = topology_check(t, &machine.ram);
    if (fault) {
        fail_msg("%s", fault);
    }
    assert_int_equal(t->source, HV_TOPO_MAP);
}

static void bad(const char *text, const char *where, const char *why)
{
    struct hv_topology t;
    struct fs_error err = { "" };
    fs_status_t s = map(text, &t, &err);

    if (s != FS_BAD_INPUT || strncmp(err.text, where, strlen(where)) || !strstr(err.text, why)) {
        fail_msg("\"%s\": %s, \"%s\"; wanted \"%s ... %s\"", text, fs_status_name(s), err.text, where, why);
    }
    assert_int_equal(t.count, 0);
    assert_null(t.dimms);
}

static void whole_grammar(void **state)
{
    struct hv_topology t;

    (void)state;
    good("# a desktop\r\n"
         "\n"
         "dimm DIMM_A1 0-3G 4G+1G bank=ChannelA   # a remark\n"
         "\tDIMM  \"DIMM A2\"  5368709120-9G bank=\"Channel A\" size=4096M node=0\r\n"
         "dimm B1 mfn:240000-0x340000 SIZE=4g\n"
         "dimm B2 0x340000000+0x400000K size=0x100000000",
         &t);
    assert_string_equal(t.note, "");
    assert_int_equal(t.count, 4);
    assert_string_equal(t.dimms[0].name, "DIMM_A1");
    assert_string_equal(t.dimms[0].bank, "ChannelA");
    assert_int_equal(t.dimms[0].ranges.count, 3);       /* the legacy hole is cut out */
    assert_string_equal(t.dimms[1].name, "DIMM A2");
    assert_string_equal(t.dimms[1].bank, "Channel A");
    assert_int_equal(t.dimms[1].ranges.ranges[0].start.n, 5 * FRAMES_PER_GIB);
    assert_int_equal(t.dimms[1].ranges.ranges[0].end.n, 9 * FRAMES_PER_GIB);
    assert_int_equal(t.dimms[2].ranges.ranges[0].start.n, 0x240000);
    assert_int_equal(t.dimms[2].ranges.ranges[0].end.n, 0x340000);
    assert_int_equal(t.dimms[3].ranges.ranges[0].start.n, 13 * FRAMES_PER_GIB);
    assert_int_equal(t.dimms[3].ranges.ranges[0].end.n, 17 * FRAMES_PER_GIB);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(t.dimms[i].node, 0);           /* of one node there is no doubt */
        assert_int_equal(t.dimms[i].size_bytes, i ? 4 * GIB : 4 * GIB - (0x100 - 0x9f) * FS_PAGE_BYTES);
        assert_int_equal(t.dimms[i].interleave_depth, 0);
    }
    hv_topology_free(&t);
}

static void sets(void **state)
{
    struct mfn_range_set found = { 0 };
    struct hv_topology t;

    (void)state;
    good("dimm A 0-9G set=low\ndimm B 0-9G set=LOW\ndimm C 9G-17G set=high\ndimm D set=high", &t);
    assert_int_equal(t.count, 4);
    assert_int_equal(t.dimms[0].set, t.dimms[1].set);
    assert_int_equal(t.dimms[2].set, t.dimms[3].set);
    assert_int_equal(t.dimms[3].interleave_depth, 2);
    assert_int_equal(t.dimms[3].size_bytes, 4 * GIB);   /* half of what they share */
    assert_int_equal(mfn_set_pages(&t.dimms[3].ranges), 8 * FRAMES_PER_GIB);
    assert_int_equal(topology_find(&t, "D", &found, NULL), FS_UNSUPPORTED);
    assert_int_equal(topology_find(&t, "set:1", &found, NULL), FS_OK);
    mfn_set_free(&found);
    hv_topology_free(&t);

    bad("dimm A 0-9G\ndimm B 8G-17G\n", "my.map:2: ", "B overlaps with A (line 1)");
    bad("dimm A 0-9G set=x\ndimm B 8G-17G set=y\n", "my.map:2: ", "give both the same set=");
    bad("dimm A 0-9G set=x\ndimm B 8G-17G\n", "my.map:2: ", "overlaps");
}

static void what_is_left_has_a_name(void **state)
{
    struct hv_topology t;

    (void)state;
    good("dimm A 5G-9G\n", &t);
    assert_int_equal(t.count, 2);
    assert_string_equal(t.dimms[0].name, "UNNAMED");
    assert_non_null(strstr(t.note, "UNNAMED"));
    hv_topology_free(&t);
    good("dimm A 2G-6G\n", &t);                         /* a hole within the range */
    assert_string_equal(t.dimms[1].name, "A");
    assert_int_equal(mfn_set_pages(&t.dimms[1].ranges), 3 * FRAMES_PER_GIB);
    hv_topology_free(&t);
}

static void nodes(void **state)
{
    struct mfn_range_set found = { 0 };
    struct fs_error err = { "" };
    struct hv_topology t;
    struct table srat = { 0 };

    (void)state;
    two_nodes();
    good("dimm A 0-8G node=0\ndimm B 8G-17G node=1\n", &t);
    assert_int_equal(t.node_count, 2);
    assert_int_equal(t.dimms[1].node, 1);
    assert_int_equal(topology_find(&t, "node:1", &found, NULL), FS_OK);
    assert_int_equal(mfn_set_pages(&found), 9 * FRAMES_PER_GIB);
    assert_int_equal(topology_node_of(&t, mfn_make(0x200000)), 1);

    assert_int_equal(topology_add_nodes(&t, NULL, 0, &machine.host, &err), FS_OK);      /* no SRAT: what the map said stays */
    assert_int_equal(t.node_count, 2);
    assert_int_equal(t.dimms[1].node, 1);

    srat_begin(&srat, 3);                               /* an SRAT knows better */
    srat_memory(&srat, 0, 0, 9 * GIB, SRAT_ENABLED);
    srat_memory(&srat, 1, 9 * GIB, 17 * GIB, SRAT_ENABLED);
    srat_end(&srat);
    assert_int_equal(topology_add_nodes(&t, srat.p, srat.bytes, &machine.host, &err), FS_OK);
    assert_int_equal(t.dimms[0].node, 0);
    assert_int_equal(t.dimms[1].node, UINT32_MAX);      /* on both */
    assert_non_null(strstr(t.note, "B is not on node 1"));
    assert_int_equal(topology_node_of(&t, mfn_make(0x200000)), 0);
    assert_int_equal(topology_find(&t, "node:1", &found, NULL), FS_OK);
    assert_int_equal(mfn_set_pages(&found), 8 * FRAMES_PER_GIB);
    assert_null(topology_check(&t, &machine.ram));
    mfn_set_free(&found);
    hv_topology_free(&t);
    table_free(&srat);

    good("dimm A 0-8G\ndimm B 8G-17G\n", &t);           /* nothing said */
    assert_int_equal(t.node_count, 0);
    assert_int_equal(t.dimms[1].node, UINT32_MAX);
    hv_topology_free(&t);
    bad("dimm A 0-8G node=2", "my.map:1: ", "\"node=2\" names no NUMA node");
    bad("dimm A 0-8G node=1 set=a\ndimm B node=0 set=a", "my.map:2: ", "not the node= of line 1");
}

static void errors_name_the_line(void **state)
{
    (void)state;
    bad("", "my.map ", "names no DIMM");
    bad("# only a remark\n", "my.map ", "names no DIMM");
    bad("\n\nDIM A 0-1G", "my.map:3: ", "not with \"DIM\"");
    bad("dimm", "my.map:1: ", "the name of the DIMM is missing");
    bad("dimm \"A 0-1G", "my.map:1: ", "its quote is not closed");
    bad("dimm A bank=\"x 0-1G", "my.map:1: ", "a quote is not closed");
    bad("dimm \"\" 0-1G", "my.map:1: ", "the name must have 1 to 63");
    bad("dimm 0123456789012345678901234567890123456789012345678901234567890123 0-1G", "my.map:1: ", "1 to 63");
    bad("dimm A\x1b[m 0-1G", "my.map:1: ", "printable");
    bad("dimm A 0-1G bank=", "my.map:1: ", "the bank must have");
    bad("dimm A", "my.map:1: ", "A has no range");
    bad("dimm A 3G-4G", "my.map:1: ", "no RAM is there");
    bad("dimm A 1T-2T", "my.map:1: ", "no RAM is there");
    bad("dimm A 0-1G\ndimm a 1G-2G", "my.map:2: ", "\"a\" is in line 1 already");
    bad("dimm A 0-1G wat=3", "my.map:1: ", "\"wat=3\" is neither");
    bad("dimm A 1G", "my.map:1: ", "neither a range");
    bad("dimm A 0-0x3fffffff", "my.map:1: ", "does not consist of 4 KiB frames");
    bad("dimm A 0-1G-2G", "my.map:1: ", "no valid end");
    bad("dimm A 0-", "my.map:1: ", "no valid end");
    bad("dimm A 2G-1G", "my.map:1: ", "turned round");
    bad("dimm A 1G-1G", "my.map:1: ", "empty");
    bad("dimm A 1G+0", "my.map:1: ", "empty");
    bad("dimm A 0-99999999999999999999", "my.map:1: ", "no valid end");
    bad("dimm A 0-0x1ffffffffffffffff", "my.map:1: ", "no valid end");
    bad("dimm A 0-16777216T", "my.map:1: ", "no valid end");
    bad("dimm A 0xfffffffffffff000+8K", "my.map:1: ", "beyond all memory");
    bad("dimm A \"0 -1G\"", "my.map:1: ", "neither a range");
    bad("dimm A 0x-1G", "my.map:1: ", "neither a range");
    bad("dimm A mfn:1", "my.map:1: ", "not mfn:START-END");
    bad("dimm A mfn:-1-2", "my.map:1: ", "not mfn:START-END");
    bad("dimm A mfn:2-1", "my.map:1: ", "turned round");
    bad("dimm A 0-1G size=", "my.map:1: ", "not a size");
    bad("dimm A 0-1G size=0", "my.map:1: ", "not a size");
    bad("dimm A 0-1G size=4GB", "my.map:1: ", "not a size");
    bad("dimm A 0-1G node=x", "my.map:1: ", "names no NUMA node");
}

static void a_file_that_is_no_text(void **state)
{
    static const char bytes[] = "dimm A 0-1G\0dimm B 1G-2G";
    struct fs_error err = { "" };
    struct hv_topology t;

    (void)state;
    assert_int_equal(topology_from_map(bytes, sizeof(bytes), "my.map", &machine.ram, &machine.host, &t, &err), FS_BAD_INPUT);
    assert_string_equal(err.text, "my.map is not a text file");
    assert_int_equal(topology_from_map("", 0, "my.map", &machine.ram, &machine.host, &t, NULL), FS_BAD_INPUT);
}

#define T(f) cmocka_unit_test_setup_teardown(f, make_machine, free_machine)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(whole_grammar), T(sets), T(what_is_left_has_a_name), T(nodes), T(errors_name_the_line), T(a_file_that_is_no_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
