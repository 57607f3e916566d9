/*
 * test_report.c - the text of plans, reports and hosts: the facts are in it, the counts
 * add up, and no byte of a guest's name reaches the terminal raw.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/groups.h"
#include "../../tools/progress.h"
#include "../../tools/report.h"
#include "../../tools/show.h"
#include "../../tools/text.h"
#include "canned.h"

static char *written;
static size_t written_bytes;
static FILE *stream;

static FILE *begin(void)
{
    free(written);
    stream = open_memstream(&written, &written_bytes);
    assert_non_null(stream);
    return stream;
}

static void end(void)
{
    assert_int_equal(fclose(stream), 0);
    for (size_t i = 0; i < written_bytes; i++) {        /* no control byte but the newline, whatever the names hold */
        assert_true((unsigned char)written[i] >= 0x20 || written[i] == '\n');
    }
    assert_null(strstr(written, "\xe2\x80\xae"));
}

static void has(const char *words)
{
    if (!strstr(written, words)) {
        fail_msg("'%s' is not in:\n%s", words, written);
    }
}

static void has_not(const char *words)
{
    if (strstr(written, words)) {
        fail_msg("'%s' is in:\n%s", words, written);
    }
}

/* The line that holds words. */
static const char *line_with(const char *words)
{
    static char line[512];
    const char *hit = strstr(written, words), *start;

    if (!hit) {
        fail_msg("'%s' is not in:\n%s", words, written);
        return "";
    }
    for (start = hit; start > written && start[-1] != '\n'; start--) {
    }
    size_t n = strcspn(start, "\n");
    assert_true(n < sizeof(line));
    memcpy(line, start, n);
    line[n] = '\0';
    return line;
}

/* A printed number: digits with commas. */
static uint64_t number_at(const char *s)
{
    uint64_t n = 0;

    for (; isdigit((unsigned char)*s) || *s == ','; s++) {
        n = *s == ',' ? n : n * 10 + (uint64_t)(*s - '0');
    }
    return n;
}

static void free_report(struct hv_report *r)
{
    free(r->plan.ranges.ranges);
    free(r->plan.domains);
    free(r->plan.blockers);
    free(r->domains);
    free(r->blockers);
}

static void test_plan_text(void **state)
{
    struct hv_report r;

    (void)state;
    canned_report(&r);
    report_plan_text(begin(), &r.plan);
    end();
    has("Plan for NODE1: mfn 0x40000-0x80000, 262,144 frames (1 GiB)");
    has("evil\\x1b[2J\\xff");
    assert_non_null(strstr(line_with("pv1 (1)  "), "65,524"));
    assert_non_null(strstr(line_with("pv1 (1)  "), "710 ms"));
    assert_non_null(strstr(line_with("hvm1 (3)  "), "hap"));
    has("196,578 frames (767.88 MiB) needed");
    has("node 2: takes 196,578 of 250,000 free");
    has_not("MISSING");
    has("Known to stay: 1,018 frames");
    has_not("Cannot run");
    free_report(&r);
}

/* The kinds listed add up to the total that is printed below them, remainder included. */
static void test_plan_counts_add_up(void **state)
{
    struct hv_report r;

    (void)state;
    canned_report(&r);
    for (int unclassified = 0; unclassified < 2; unclassified++) {
        uint64_t sum = 0, total = 0;
        r.plan.counts.total += unclassified ? 5u : 0u;
        report_plan_text(begin(), &r.plan);
        end();
        for (const char *s = strstr(written, "Frames by kind:\n") + 16; *s == ' '; s = strchr(s, '\n') + 1) {
            while (*s == ' ') {
                s++;
            }
            const char *words = s + strcspn(s, " ");
            if (strncmp(words, "  in all\n", 9) == 0) {
                total = number_at(s);
            } else {
                sum += number_at(s);
            }
        }
        assert_int_equal(total, r.plan.counts.total);
        assert_int_equal(sum, total);
        assert_int_equal(strstr(written, "not classified") != NULL, unclassified);
    }
    free_report(&r);
}

static void test_refusal_text(void **state)
{
    struct hv_report r;
    struct report_info info = { "NODE1", FS_NO_ROOM, false, false, false, false };

    (void)state;
    canned_report(&r);
    r.plan.room_missing_pages = 1234;
    r.plan.refusal_status = FS_NO_ROOM;
    strcpy(r.plan.refusal, "1234 frames are missing\x07; shrink guests");
    report_plan_text(begin(), &r.plan);
    report_dry_run_text(stream, &r.plan, &info);
    end();
    has("1,234 frames (4.82 MiB) are MISSING");
    has("Cannot run: 1234 frames are missing\\x07; shrink guests");
    has("Nothing was changed");
    has_not("To run it");
    free_report(&r);
}

static void test_report_text(void **state)
{
    struct report_info info = { "NODE1", FS_PARTIAL, true, false, false, false };
    struct hv_report r;
    uint64_t shown = 0, rows = 0;

    (void)state;
    canned_report(&r);
    report_text(begin(), &r, &info);
    end();
    has("NODE1: done, but some frames stay");
    has("262,144 frames (1 GiB): 196,578 moved, 261,126 offlined, 1,018 stay, 1,010 go offline when");
    const char *line = line_with("pv1 (1)  ");
    assert_non_null(strstr(line, "65,524"));
    assert_non_null(strstr(line, "654 ms"));
    assert_non_null(strstr(line, "600 ms"));
    line = line_with("hvm1 (3)  ");
    assert_non_null(strstr(line, "4.1 ms"));
    assert_non_null(strstr(line, "5.6 ms"));
    assert_non_null(strstr(line, "120 -> 120"));
    has("Verified: yes; 196,578 frames hashed before and after, 0 differ\n");
    has("pv1 (1): handshake 240 ms, copy 184 ms\n");
    has("18 of the frames that stay leave with their guests: `frameshift evacuate NODE1 --evict`");
    has("1,000 belong to dom0");
    has_not("Xen's own or broken");
    /* The groups add up to what the heading says: in each row the number before the first mfn. */
    const char *row = strstr(written, "\nStays: 1,018 frames\n");
    assert_non_null(row);
    for (row = strstr(row, " 0x"); row; row = strstr(strchr(row, '\n'), " 0x")) {
        const char *digits = row;
        while (*digits == ' ') {
            digits--;
        }
        while (digits[-1] != ' ') {
            digits--;
        }
        shown += number_at(digits);
        rows++;
    }
    assert_int_equal(rows, 11);
    assert_int_equal(shown, CANNED_GUEST_BLOCKERS + CANNED_DOM0_FRAMES);
    free_report(&r);
}

static void test_report_ends(void **state)
{
    struct report_info info = { "NODE1", FS_OK, true, false, false, false };
    struct hv_report r;

    (void)state;
    canned_report(&r);
    size_t blockers = r.blocker_count;
    r.blocker_count = 0;
    report_text(begin(), &r, &info);
    end();
    has("NODE1: success");
    has("`frameshift online NODE1` gives the memory back");
    has_not("Stays");

    info.status = FS_NEEDS_RECOVER;
    report_text(begin(), &r, &info);
    end();
    has("`frameshift recover` now");

    r.verified = false;
    r.mismatches = 3;
    info.status = FS_CORRUPT;
    report_text(begin(), &r, &info);
    end();
    has("Verified: NO");
    has("3 differ");
    has_not("were free in their guests");
    r.moved_free = 1234;
    report_text(begin(), &r, &info);
    end();
    has("1,234 moved frames were free in their guests: no contents");

    r.blocker_count = blockers;
    info = (struct report_info){ "NODE1", FS_PARTIAL, false, true, false, false };
    report_text(begin(), &r, &info);
    end();
    has_not("Verified");
    has_not("--evict` saves");              /* it was given */

    for (size_t i = 0; i < r.blocker_count; i++) {
        r.blockers[i].reason = i == 0 ? FS_REASON_XEN_REFUSED : FS_REASON_XEN;
    }
    report_text(begin(), &r, &info);
    end();
    has("Next: 1 may go later, as the table says. 1,017 are Xen's own or broken");

    r.frames_total = 0;                     /* interrupted half-way */
    info.status = FS_INTERRUPTED;
    report_text(begin(), &r, &info);
    end();
    has("NODE1: stopped by a signal; rolled back\n  196,578 frames had moved when it ended\n");
    r.frames_total = r.plan.counts.total;

    /* Refused before anything was done: no table of results that are none. */
    struct hv_report refused = { .plan = r.plan, .domains = r.domains, .domain_count = 1 };
    struct hv_domain_report untouched = { .plan = r.plan.domains[1] };
    refused.domains = &untouched;
    info.status = FS_BUSY;
    report_text(begin(), &refused, &info);
    end();
    has("NODE1: another frameshift runs");
    has_not("Mover");
    info.status = FS_PARTIAL;

    info.quiet = true;
    report_text(begin(), &r, &info);
    end();
    has("NODE1: done");
    has_not("Stays");
    free_report(&r);
}

/* A long list of phases is wrapped, not lost. */
static void test_phases_wrap(void **state)
{
    struct report_info info = { "NODE1", FS_PARTIAL, false, false, false, false };
    struct hv_report r;

    (void)state;
    canned_report(&r);
    r.domains[0].phase_count = HV_PHASES_MAX;
    for (unsigned i = 0; i < HV_PHASES_MAX; i++) {
        (void)snprintf(r.domains[0].phases[i].name, sizeof(r.domains[0].phases[i].name), "phase-%u", i);
    }
    report_text(begin(), &r, &info);
    end();
    for (unsigned i = 0; i < HV_PHASES_MAX; i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), " phase-%u ", i);
        assert_true(strlen(line_with(name)) <= 110);
    }
    free_report(&r);
}

static void test_owner_names(void **state)
{
    struct hv_plan_domain d = { .domid = 4 };

    (void)state;
    memset(d.name, 'x', sizeof(d.name));    /* no terminator */
    assert_string_equal(report_owner_name(&d, 1, 4).s, "xxxxxxxxxxxxxxxxxxxxxxx~ (4)");
    d.name[0] = '\0';
    assert_string_equal(report_owner_name(&d, 1, 4).s, "domain 4");
    assert_string_equal(report_owner_name(&d, 1, 5).s, "domain 5");
    assert_string_equal(report_owner_name(NULL, 0, FS_DOMID_XEN).s, "Xen");
    assert_string_equal(report_owner_name(NULL, 0, FS_DOMID_NONE).s, "no owner");
    assert_string_equal(report_owner_name(NULL, 0, 0).s, "dom0");
}

static void test_groups(void **state)
{
    struct fs_blocker list[2000];
    struct blocker_groups g;
    uint64_t sum = 0;

    (void)state;
    for (size_t i = 0; i < FS_ARRAY_SIZE(list); i++) {
        list[i] = fs_blocker_make(mfn_make(i), 0, (uint16_t)(i % 37), (enum fs_reason)(i % 23));
    }
    assert_int_equal(groups_make(list, FS_ARRAY_SIZE(list), &g), FS_OK);
    assert_int_equal(g.count, 37 * 23);
    for (size_t i = 0; i < g.count; i++) {
        sum += g.groups[i].frames;
        assert_true(i == 0 || g.groups[i].frames <= g.groups[i - 1].frames);
        assert_true(g.groups[i].frames < 2 || g.groups[i].first[0].n < g.groups[i].first[1].n);
        assert_int_equal(g.groups[i].first[0].n % 37, g.groups[i].domid);
        assert_int_equal(g.groups[i].first[0].n % 23, g.groups[i].reason);
    }
    assert_int_equal(sum, FS_ARRAY_SIZE(list));
    groups_free(&g);
    assert_int_equal(groups_make(NULL, 0, &g), FS_OK);
    assert_int_equal(g.count, 0);
    groups_free(&g);
    for (unsigned reason = 0; reason < FS_REASON_COUNT; reason++) {
        assert_string_not_equal(reason_advice(reason), "unknown to this version");
    }
    assert_string_equal(reason_advice(255), "unknown to this version");
    assert_false(reason_is_evictable(255));
    assert_int_equal(groups_make(NULL, 0, &g), FS_OK);
    assert_false(reason_is_evictable(FS_REASON_DOM0));
    assert_true(reason_is_evictable(FS_REASON_XENSTORE_RING));
}

/* Domains that are left alone are counted, not listed: they get their group, by what they are. */
static void test_plan_groups(void **state)
{
    struct hv_plan_domain domains[] = {
        { .domid = 0, .kind = "dom0", .pages_in_range = 10, .pages_blocked = 10 },
        { .domid = 5, .kind = "pv32", .pages_in_range = 20, .pages_blocked = 20 },
        { .domid = 6, .kind = "pv", .pages_in_range = 30, .pages_blocked = 30 },       /* no mover: excluded */
        { .domid = 7, .kind = "pv", .mover = HV_MOVER_PV, .pages_in_range = 40, .pages_blocked = 1, .pages_movable = 39 },
    };
    struct fs_blocker list[] = { fs_blocker_make(mfn_make(9), 0, 7, FS_REASON_CONSOLE_RING), fs_blocker_make(mfn_make(10), 0, 6, FS_REASON_GRANTED) };
    struct hv_plan p = { .domains = domains, .domain_count = 4, .blockers = list, .blocker_count = 2 };
    struct blocker_groups g;

    (void)state;
    assert_int_equal(groups_make_plan(&p, &g), FS_OK);
    assert_int_equal(groups_frames(&g), 61);
    assert_int_equal(groups_frames_of(&g, 6), 30);
    assert_int_equal(g.count, 5);
    assert_int_equal(g.groups[0].reason, FS_REASON_GUEST_EXCLUDED);
    assert_int_equal(g.groups[0].frames, 29);
    assert_int_equal(g.groups[0].first_count, 0);
    assert_int_equal(g.groups[1].reason, FS_REASON_NO_MOVER);
    assert_int_equal(g.groups[2].reason, FS_REASON_DOM0);
    assert_int_equal(groups_frames_of(&g, 7), 1);
    groups_free(&g);
}

static void test_topology_text(void **state)
{
    struct hv_topology t;

    (void)state;
    canned_topology(&t);
    show_topology(begin(), &t);
    end();
    has("the firmware's SMBIOS tables");
    assert_non_null(strstr(line_with("DIMM_A0  "), "set:0 (1 of 2)"));
    assert_non_null(strstr(line_with("DIMM_A0  "), "0x0-0x80000"));
    assert_non_null(strstr(line_with("DIMM_B2"), "262,144"));
    has("set:0 is interleaved: frames alternate between DIMM_A0 and DIMM_A1.");
    has_not("set:1 is interleaved");
    has("Note: type 20");
    for (size_t i = 0; i < t.count; i++) {
        free(t.dimms[i].ranges.ranges);
    }
    free(t.dimms);
}

static void test_status_text(void **state)
{
    struct hv_status_report s;
    char map[65];

    (void)state;
    canned_status(&s);
    show_status(begin(), &s, "xen");
    end();
    has("4.17.7-pre, 2 CPUs, 4 GiB of memory, 1.14 GiB free");
    memset(map, '0', 48);
    memset(map + 48, '.', 16);
    memcpy(map, " +?", 3);
    map[64] = '\0';
    assert_non_null(strstr(line_with("NODE0  ["), map));
    assert_non_null(strstr(line_with("NODE0  ["), "16 MiB a cell"));
    memset(map, 'x', 64);
    assert_non_null(strstr(line_with("NODE1  ["), map));
    has_not("recover");
    s.recovery_due = true;
    show_status(begin(), &s, "xen");
    end();
    has("Run `frameshift recover`");
    free(s.dimms);
}

static void test_fsck_text(void **state)
{
    struct hv_fsck_report r;

    (void)state;
    canned_fsck(&r, false);
    show_fsck(begin(), &r, 1);
    end();
    has("domain 1, mfn 0x1234, gfn 0x10: M2P says gfn 0x11\n");
    has("... and 1 more");
    has("65,536 frames, 180 page tables, 71,000 entries checked: 2 FAULTS");
    has("`frameshift fsck --pause` is exact");
    r.paused = true;
    r.fault_count = 0;
    show_fsck(begin(), &r, 0);
    end();
    has("checked: no fault");
    has_not("--pause");
    free(r.faults);
}

static void test_recover_text(void **state)
{
    struct hv_recover_report r = { 0 };

    (void)state;
    show_recover(begin(), &r, FS_OK);
    end();
    assert_string_equal(written, "Nothing to recover.\n");
    r = (struct hv_recover_report){ .needed = true, .domains_finished = 1, .domains_rolled_back = 2, .frames_released = 65524 };
    show_recover(begin(), &r, FS_OK);
    end();
    has("Recovery: success");
    has("1 finished, 2 rolled back, 0 gone");
    has("65,524 released");
    strcpy(r.text, "the engine's words\x07");
    show_recover(begin(), &r, FS_IO);
    end();
    has("Recovery: file or device error\n  the engine's words\\x07\n");
}

/* ---- progress ---- */

static void feed_progress(struct progress *p, enum fs_event_id id, uint16_t domid, uint64_t a, uint64_t b, uint64_t now)
{
    struct fs_event e = { .id = id, .domid = domid, .a = a, .b = b };

    progress_event(p, &e, now);
}

static unsigned percent(struct progress *p, uint64_t now)
{
    char line[256];

    progress_line(p, "pv1", now, line, sizeof(line));
    assert_non_null(strchr(line, '%'));
    return (unsigned)strtoul(line, NULL, 10);
}

static void test_progress(void **state)
{
    const uint64_t s = 1000000000;
    struct progress p = { .domid = FS_DOMID_NONE };
    char line[256];

    (void)state;
    feed_progress(&p, EV_PLAN_BEGIN, FS_DOMID_NONE, 262144, 3, 1 * s);
    progress_line(&p, "", 1 * s, line, sizeof(line));
    assert_string_equal(line, "looking at every frame");
    feed_progress(&p, EV_PLAN_END, FS_DOMID_NONE, 1000, 5, 2 * s);
    assert_int_equal(percent(&p, 2 * s), 0);
    feed_progress(&p, EV_RESERVE, 1, 500, 0, 10 * s);
    feed_progress(&p, EV_COPY, 1, 250, 500, 11 * s);
    progress_line(&p, "pv1", 11 * s, line, sizeof(line));
    assert_non_null(strstr(line, "25%  250 of 1,000 frames  250/s  0:03 left  pv1: copying"));
    feed_progress(&p, EV_RESUME, 1, 1, 500, 12 * s);
    assert_int_equal(percent(&p, 12 * s), 50);
    feed_progress(&p, EV_SWAP, 3, 100, 300, 13 * s);
    feed_progress(&p, EV_SWAP, 3, 200, 300, 14 * s);
    assert_int_equal(percent(&p, 14 * s), 70);
    feed_progress(&p, EV_COPY, 2, 300, 300, 15 * s);
    assert_int_equal(percent(&p, 15 * s), 100);
    feed_progress(&p, EV_ROLLBACK, 2, 2, 300, 16 * s);
    assert_int_equal(percent(&p, 16 * s), 100);         /* I1: never back */
    feed_progress(&p, EV_RESUME, 2, 1, 99999, 17 * s);
    assert_int_equal(percent(&p, 17 * s), 100);         /* and never past the end */
}

/* Extents are told one by one; the count of the whole share, extents included, comes later and does not add to them. */
static void test_progress_extents(void **state)
{
    struct progress p = { .domid = FS_DOMID_NONE, .total_frames = 5120 };

    (void)state;
    feed_progress(&p, EV_SUPERPAGE, 3, 1, 0, 1);
    feed_progress(&p, EV_SUPERPAGE, 3, 1, 0, 2);
    feed_progress(&p, EV_SUPERPAGE, 3, 0, 1, 3);
    assert_int_equal(percent(&p, 4), 20);
    feed_progress(&p, EV_SWAP, 3, 2048, 3072, 5);
    assert_int_equal(percent(&p, 6), 40);
    feed_progress(&p, EV_SUPERPAGE, 4, 1, 0, 7);        /* the next domain adds to what the last one did */
    assert_int_equal(percent(&p, 8), 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_text), cmocka_unit_test(test_plan_counts_add_up), cmocka_unit_test(test_refusal_text),
        cmocka_unit_test(test_report_text), cmocka_unit_test(test_report_ends), cmocka_unit_test(test_phases_wrap), cmocka_unit_test(test_owner_names),
        cmocka_unit_test(test_groups), cmocka_unit_test(test_plan_groups), cmocka_unit_test(test_topology_text), cmocka_unit_test(test_status_text),
        cmocka_unit_test(test_fsck_text), cmocka_unit_test(test_recover_text), cmocka_unit_test(test_progress), cmocka_unit_test(test_progress_extents),
    };
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    free(written);
    return rc;
}
