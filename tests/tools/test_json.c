/*
 * test_json.c - every line parses, every member is there and right; memory may run out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/groups.h"
#include "../../tools/json.h"
#include "canned.h"

static char *written;
static size_t written_bytes;
static FILE *stream;

static FILE *begin(void)
{
    stream = open_memstream(&written, &written_bytes);
    assert_non_null(stream);
    return stream;
}

static void end_text(void)
{
    assert_int_equal(fclose(stream), 0);
}

/* The one line that was written since begin(), parsed. */
static json_t *end_line(bool ok)
{
    json_error_t error;
    json_t *j;

    end_text();
    assert_true(ok);
    assert_true(written_bytes > 0 && written[written_bytes - 1] == '\n');
    assert_ptr_equal(memchr(written, '\n', written_bytes), written + written_bytes - 1);
    j = json_loads(written, JSON_REJECT_DUPLICATES, &error);
    if (!j) {
        fail_msg("%s in %s", error.text, written);
    }
    assert_true(json_is_object(j));
    assert_true(json_is_string(json_object_get(j, "type")));
    free(written);
    return j;
}

/* By path: "room.nodes.0.free". */
static json_t *at(json_t *j, const char *path)
{
    char copy[128];

    assert_true(strlen(path) < sizeof(copy));
    strcpy(copy, path);
    for (char *key = strtok(copy, "."); key; key = strtok(NULL, ".")) {
        j = json_is_array(j) ? json_array_get(j, strtoul(key, NULL, 10)) : json_object_get(j, key);
        if (!j) {
            fail_msg("no member %s (at %s)", path, key);
        }
    }
    return j;
}

static void is_number(json_t *j, const char *path, uint64_t want)
{
    json_t *v = at(j, path);

    if (!json_is_integer(v) || json_integer_value(v) != (json_int_t)want) {
        fail_msg("%s is %lld, not %llu", path, (long long)json_integer_value(v), (unsigned long long)want);
    }
}

static void is_string(json_t *j, const char *path, const char *want)
{
    assert_true(json_is_string(at(j, path)));
    assert_string_equal(json_string_value(at(j, path)), want);
}

static void is_bool(json_t *j, const char *path, bool want)
{
    assert_true(json_is_boolean(at(j, path)));
    assert_int_equal(json_is_true(at(j, path)), want);
}

static void is_null(json_t *j, const char *path)
{
    assert_true(json_is_null(at(j, path)));
}

static void free_report(struct hv_report *r)
{
    free(r->plan.ranges.ranges);
    free(r->plan.domains);
    free(r->plan.blockers);
    free(r->domains);
    free(r->blockers);
}

/* ---- events ---- */

static void test_event(void **state)
{
    struct fs_event e = { .id = EV_SUSPEND, .domid = 2, .time_ns = 77, .a = 4, .b = 240000000, .note = "x\xff\n" };
    json_t *j;

    (void)state;
    j = end_line(json_event(begin(), &e, CANNED_HOSTILE_NAME));
    is_string(j, "type", "event");
    is_string(j, "event", "suspend");
    is_number(j, "time_ns", 77);
    is_number(j, "domain", 2);
    is_string(j, "name", "evil\x1b[2J\xef\xbf\xbd\xe2\x80\xae\"\\name");
    is_number(j, "args.vcpus", 4);
    is_number(j, "args.handshake_ns", 240000000);
    is_string(j, "note", "x\xef\xbf\xbd\n");
    json_decref(j);

    e.domid = FS_DOMID_NONE;
    e.note = NULL;
    j = end_line(json_event(begin(), &e, NULL));
    is_null(j, "domain");
    is_null(j, "name");
    is_null(j, "note");
    json_decref(j);
}

/* Every event there is: the two arguments keep their names and do not hide one another. */
static void test_every_event(void **state)
{
    (void)state;
    for (int id = 0; id < EV_COUNT; id++) {
        struct fs_event e = { .id = (enum fs_event_id)id, .domid = 1, .a = 10, .b = 20 };
        json_t *j = end_line(json_event(begin(), &e, NULL));
        is_string(j, "event", fs_event_name(e.id));
        assert_int_equal(json_object_size(at(j, "args")), 2);
        is_number(at(j, "args"), fs_event_arg(e.id, 0), 10);
        is_number(at(j, "args"), fs_event_arg(e.id, 1), 20);
        json_decref(j);
    }
    json_t *j = end_line(json_events_dropped(begin(), 12));
    is_string(j, "event", "dropped");
    is_number(j, "events", 12);
    json_decref(j);
}

/* ---- plan ---- */

/* The blockers of list, and groups that add up to all of them and of more frames that no list holds. */
static void check_blockers(json_t *j, const struct hv_plan *p, const struct fs_blocker *list, size_t count, uint64_t more)
{
    uint64_t grouped = 0;
    size_t i;
    json_t *b;

    assert_int_equal(json_array_size(at(j, "blockers")), count);
    json_array_foreach(at(j, "blockers"), i, b) {
        is_number(b, "mfn", list[i].frame);
        is_number(b, "domain", list[i].domid);
        is_string(b, "reason", fs_reason_name((enum fs_reason)list[i].reason));
        is_string(b, "verdict", fs_reason_verdict((enum fs_reason)list[i].reason) == FS_VERDICT_NEVER ? "never" : "later");
        if (list[i].gfn == FS_FRAME_NONE) {
            is_null(b, "gfn");
        } else {
            is_number(b, "gfn", list[i].gfn);
        }
        if (list[i].domid == 1) {
            is_string(b, "name", p->domains[1].name);
        }
    }
    json_array_foreach(at(j, "blocked_by"), i, b) {
        grouped += (uint64_t)json_integer_value(at(b, "frames"));
        assert_true(strlen(json_string_value(at(b, "advice"))) > 0);
    }
    assert_int_equal(grouped, count + more);
    is_number(j, "frames_blocked", grouped);
}

static void check_counts(json_t *j, const struct hv_counts *c)
{
    const char *key;
    json_t *v;
    json_int_t sum = 0;

    json_object_foreach(at(j, "counts"), key, v) {
        sum += strcmp(key, "total") == 0 ? 0 : json_integer_value(v);
    }
    is_number(j, "counts.total", c->total);
    assert_int_equal(sum, c->total);        /* the canned plan's kinds add up; so must what is told */
    is_number(j, "counts.l1", c->l1);
    is_number(j, "counts.l4", c->l4);
    is_number(j, "counts.p2m", c->p2m);
    is_number(j, "counts.free_or_xen", c->free_or_xen);
}

static void check_plan_domain(json_t *d, const struct hv_plan_domain *want)
{
    is_number(d, "domid", want->domid);
    is_string(d, "kind", want->kind);
    is_string(d, "mover", hv_mover_name(want->mover));
    is_number(d, "vcpus", want->vcpus);
    is_number(d, "frames_total", want->pages_total);
    is_number(d, "frames_in_range", want->pages_in_range);
    is_number(d, "frames_movable", want->pages_movable);
    is_number(d, "tables_in_range", want->tables_in_range);
    is_number(d, "tables_total", want->tables_total);
    is_number(d, "superpages_in_range", want->superpages_in_range);
    if (want->blackout_ns == 0) {
        is_null(d, "expected_blackout_ns");
    } else {
        is_number(d, "expected_blackout_ns", want->blackout_ns);
    }
}

static void test_plan(void **state)
{
    struct hv_report r;

    (void)state;
    canned_report(&r);
    struct hv_plan *p = &r.plan;
    json_t *j = end_line(json_plan(begin(), p));
    is_string(j, "type", "plan");
    is_string(j, "dimm", "NODE1");
    is_number(j, "range.0.start", 0x40000);
    is_number(j, "range.0.end", 0x80000);
    is_number(j, "frames_total", 262144);
    is_number(j, "frames_blocked", CANNED_GUEST_BLOCKERS + CANNED_DOM0_FRAMES);
    check_counts(j, &p->counts);
    assert_int_equal(json_array_size(at(j, "domains")), p->domain_count);
    for (size_t i = 0; i < p->domain_count; i++) {
        json_t *d = json_array_get(at(j, "domains"), i);
        check_plan_domain(d, &p->domains[i]);
        is_number(d, "frames_blocked", p->domains[i].pages_blocked);
        is_number(d, "suspends", p->domains[i].suspends);
    }
    is_string(j, "domains.1.uuid", "12340000-0000-0000-0000-0000000000ff");
    is_number(j, "room.needed", p->room_needed_pages);
    is_number(j, "room.free", 400000);
    is_number(j, "room.missing", 0);
    is_number(j, "room.nodes.0.node", 2);
    is_number(j, "room.nodes.0.take", p->room_needed_pages);
    is_number(j, "room.nodes.1.free", 150000);
    is_null(j, "refusal");
    check_blockers(j, p, p->blockers, p->blocker_count, CANNED_DOM0_FRAMES);
    json_decref(j);

    p->refusal_status = FS_NO_ROOM;
    strcpy(p->refusal, "no room");
    j = end_line(json_plan(begin(), p));
    is_string(j, "refusal.status", "NO_ROOM");
    is_number(j, "refusal.exit_code", 6);
    is_string(j, "refusal.text", "no room");
    json_decref(j);
    free_report(&r);
}

/* ---- report ---- */

static void check_domain_report(json_t *d, const struct hv_domain_report *want)
{
    check_plan_domain(d, &want->plan);
    is_string(d, "status", "OK");
    is_null(d, "error");
    is_number(d, "moved", want->moved);
    is_number(d, "blocked", want->blocked);
    is_number(d, "blackout_ns", want->blackout_ns);
    is_number(d, "longest_blackout_ns", want->longest_blackout_ns);
    is_number(d, "suspends", want->suspends);
    is_number(d, "max_pause_ns", want->max_pause_ns);
    is_number(d, "p99_pause_ns", want->p99_pause_ns);
    is_number(d, "p50_pause_ns", want->p50_pause_ns);
    is_number(d, "pauses", want->pauses);
    is_number(d, "superpages_before", want->superpages_before);
    is_number(d, "superpages_after", want->superpages_after);
    is_null(d, "evicted_to");
    is_number(d, "frames_hashed", want->pages_hashed);
    is_number(d, "moved_free", want->moved_free);
    is_number(d, "mismatches", 0);
    is_bool(d, "verified", true);
    assert_int_equal(json_object_size(at(d, "phases")), want->phase_count);
    for (size_t i = 0; i < want->phase_count; i++) {
        is_number(at(at(d, "phases"), want->phases[i].name), "ns", want->phases[i].ns);
        is_number(at(at(d, "phases"), want->phases[i].name), "count", want->phases[i].count);
    }
}

static void test_report(void **state)
{
    struct json_report_info info = { "NODE1", FS_PARTIAL, NULL, false, true, false };
    struct hv_report r;

    (void)state;
    canned_report(&r);
    json_t *j = end_line(json_report(begin(), &r, &info));
    is_string(j, "type", "report");
    is_string(j, "status", "PARTIAL");
    is_number(j, "exit_code", 1);
    is_null(j, "error");
    is_string(j, "dimm", "NODE1");
    is_number(j, "range.0.start", 0x40000);
    is_number(j, "frames_total", r.frames_total);
    is_number(j, "frames_moved", 65524 + 65523 + 65531);
    is_number(j, "frames_blocked", r.frames_blocked);
    is_number(j, "frames_offlined", r.frames_offlined);
    is_number(j, "frames_pending", 1010);
    is_bool(j, "dry_run", false);
    is_bool(j, "verify", true);
    is_bool(j, "evict", false);
    is_bool(j, "verified", true);
    is_number(j, "frames_hashed", r.pages_hashed);
    is_number(j, "mismatches", 0);
    is_number(j, "hypercalls", 12345);
    is_number(j, "phases.plan.ns", 90000000);
    assert_int_equal(json_array_size(at(j, "domains")), r.domain_count);
    for (size_t i = 0; i < r.domain_count; i++) {
        check_domain_report(json_array_get(at(j, "domains"), i), &r.domains[i]);
    }
    check_blockers(j, &r.plan, r.blockers, r.blocker_count, 0);
    json_decref(j);
    free_report(&r);
}

/* A domain counts as verified only where every moved frame was hashed and equal. */
static void test_verified(void **state)
{
    struct json_report_info info = { "NODE1", FS_CORRUPT, "bytes differ", false, true, false };
    struct hv_report r;

    (void)state;
    canned_report(&r);
    r.verified = false;
    r.frames_total = 0;                     /* it ended before the last look: the mover's word counts */
    r.domains[0].blocked = 4711;
    r.domains[0].mismatches = 1;
    r.domains[1].pages_hashed = r.domains[1].moved - 1;
    r.domains[2].moved = r.domains[2].pages_hashed = 0;
    r.domains[2].status = FS_GUEST_GONE;
    strcpy(r.domains[2].error, "destroyed");
    r.domains[2].evicted_to = 9;
    json_t *j = end_line(json_report(begin(), &r, &info));
    is_string(j, "status", "CORRUPT");
    is_number(j, "exit_code", 12);
    is_string(j, "error", "bytes differ");
    is_number(j, "frames_total", 262144);   /* by the plan, then */
    is_number(j, "domains.0.blocked", 4711);
    is_bool(j, "domains.0.verified", false);
    is_bool(j, "domains.1.verified", false);
    is_bool(j, "domains.2.verified", false);
    is_string(j, "domains.2.status", "GUEST_GONE");
    is_string(j, "domains.2.error", "destroyed");
    is_number(j, "domains.2.evicted_to", 9);
    json_decref(j);
    r.domains[1].moved_free = 1;            /* the one without a hash had no contents */
    r.moved_free = 7;
    j = end_line(json_report(begin(), &r, &info));
    is_bool(j, "domains.1.verified", true);
    is_number(j, "domains.1.moved_free", 1);
    is_number(j, "moved_free", 7);
    json_decref(j);
    free_report(&r);
}

/* The machine was not even opened: a report comes all the same, with the same members. */
static void test_report_of_nothing(void **state)
{
    struct json_report_info info = { "DIMM\xff", FS_NO_XEN, "no Xen", false, false, false };
    struct hv_report r = { 0 }, full;
    const char *key;
    json_t *v;

    (void)state;
    json_t *j = end_line(json_report(begin(), &r, &info));
    is_string(j, "dimm", "DIMM\xef\xbf\xbd");
    is_string(j, "status", "NO_XEN");
    is_number(j, "exit_code", 5);
    assert_int_equal(json_array_size(at(j, "range")), 0);
    assert_int_equal(json_array_size(at(j, "blockers")), 0);
    canned_report(&full);
    json_t *other = end_line(json_report(begin(), &full, &info));
    json_object_foreach(other, key, v) {
        assert_non_null(json_object_get(j, key));
    }
    assert_int_equal(json_object_size(j), json_object_size(other));
    json_decref(j);
    json_decref(other);
    free_report(&full);
}

static void test_dry_run_report(void **state)
{
    struct json_report_info info = { "NODE1", FS_OK, NULL, true, false, false };
    struct hv_report r = { 0 };

    (void)state;
    canned_plan(&r.plan);
    json_t *j = end_line(json_report(begin(), &r, &info));
    is_bool(j, "dry_run", true);
    is_number(j, "frames_total", 262144);
    is_number(j, "frames_moved", 0);
    check_blockers(j, &r.plan, r.plan.blockers, r.plan.blocker_count, CANNED_DOM0_FRAMES);
    assert_int_equal(json_array_size(at(j, "blockers")), r.plan.blocker_count);
    json_decref(j);
    free_report(&r);
}

/* ---- the rest ---- */

static void test_topology(void **state)
{
    struct hv_topology t;

    (void)state;
    canned_topology(&t);
    json_t *j = end_line(json_topology(begin(), &t));
    is_string(j, "type", "topology");
    is_string(j, "source", "smbios");
    is_string(j, "note", t.note);
    is_string(j, "dimms.0.name", "DIMM_A0");
    is_string(j, "dimms.1.bank", "BANK 1");
    is_number(j, "dimms.0.size_bytes", 1 << 30);
    is_number(j, "dimms.0.node", 0);
    is_null(j, "dimms.2.node");
    is_bool(j, "dimms.0.interleaved", true);
    is_bool(j, "dimms.2.interleaved", false);
    is_number(j, "dimms.1.interleave_position", 2);
    is_number(j, "dimms.1.set", 0);
    is_number(j, "dimms.2.ranges.0.end", 0xc0000);
    json_decref(j);
    for (size_t i = 0; i < t.count; i++) {
        free(t.dimms[i].ranges.ranges);
    }
    free(t.dimms);
}

static void test_status(void **state)
{
    struct hv_status_report s;

    (void)state;
    canned_status(&s);
    json_t *j = end_line(json_status(begin(), &s));
    is_string(j, "type", "status");
    is_string(j, "version", "4.17.7-pre");
    is_number(j, "cpus", 2);
    is_number(j, "frames_total", 1048576);
    is_number(j, "frames_free", 300000);
    is_bool(j, "recovery_due", false);
    is_number(j, "dimms.0.dom0", 196608);
    is_number(j, "dimms.1.offlined", 262000);
    is_number(j, "dimms.1.pending", 144);
    is_number(j, "dimms.0.node_free", 60000);
    is_null(j, "dimms.1.node_free");        /* unknown, not 2^64 - 1 */
    assert_int_equal(json_array_size(at(j, "dimms.0.map")), 64);
    is_string(j, "dimms.0.map.0", "hole");
    is_string(j, "dimms.0.map.1", "mixed");
    is_string(j, "dimms.0.map.2", "unknown");
    is_string(j, "dimms.0.map.3", "dom0");
    is_string(j, "dimms.0.map.63", "free");
    is_string(j, "dimms.1.map.63", "offlined");
    json_decref(j);
    free(s.dimms);
}

static void test_fsck_and_recover(void **state)
{
    struct hv_recover_report recover = { .needed = true, .domains_finished = 1, .domains_rolled_back = 2, .domains_gone = 3,
                                         .frames_released = 4, .frames_onlined = 5, .text = "done" };
    struct hv_fsck_report r;

    (void)state;
    struct hv_drill_step step;
    struct hv_drill_report drill;
    canned_drill_step(&step, true);
    json_t *j = end_line(json_step(begin(), &step));
    is_string(j, "type", "step");
    is_string(j, "step", "evacuate");
    is_string(j, "status", "PARTIAL");
    is_bool(j, "injected", true);
    is_number(j, "seed", 1);
    is_number(j, "step_ns", 208000000);
    is_number(j, "frames_moved", 131047);
    is_number(j, "frames_left", 18);
    is_number(j, "frames_bound", 18);
    is_number(j, "pages_checked", 196607);
    is_number(j, "fault_count", 2);
    json_decref(j);
    canned_drill_step(&step, false);
    step.dimm[0] = '\0';
    j = end_line(json_step(begin(), &step));
    is_null(j, "dimm");
    is_null(j, "error");
    json_decref(j);
    canned_drill(&drill, false);
    j = end_line(json_drill(begin(), &drill, true, FS_OK, "old words"));
    is_string(j, "type", "drill");
    is_number(j, "exit_code", 0);
    is_null(j, "error");
    is_null(j, "first_failed_seed");
    is_bool(j, "threads", true);
    is_number(j, "calls", 325);
    is_number(j, "frames_free_before", 63407);
    json_decref(j);
    canned_drill(&drill, true);
    j = end_line(json_drill(begin(), &drill, false, FS_CORRUPT, "a page differs"));
    is_number(j, "exit_code", 12);
    is_string(j, "error", "a page differs");
    is_number(j, "first_failed_seed", 1);
    is_number(j, "fault_count", 2);
    json_decref(j);

    canned_fsck(&r, true);
    j = end_line(json_fsck(begin(), &r, FS_CORRUPT));
    is_string(j, "type", "fsck");
    is_number(j, "exit_code", 12);
    is_bool(j, "exact", true);
    is_number(j, "frames_checked", 65536);
    is_number(j, "tables_checked", 180);
    is_number(j, "entries_checked", 71000);
    is_number(j, "frames_pending", 7);
    is_number(j, "faults.0.mfn", 0x1234);
    is_number(j, "faults.0.gfn", 0x10);
    is_string(j, "faults.0.text", "M2P says gfn 0x11");
    is_null(j, "faults.1.mfn");
    is_null(j, "faults.1.gfn");
    json_decref(j);
    free(r.faults);

    j = end_line(json_recover(begin(), &recover, FS_OK));
    is_string(j, "type", "recover");
    is_string(j, "status", "OK");
    is_bool(j, "needed", true);
    is_number(j, "domains_finished", 1);
    is_number(j, "domains_rolled_back", 2);
    is_number(j, "domains_gone", 3);
    is_number(j, "frames_released", 4);
    is_number(j, "frames_onlined", 5);
    is_string(j, "text", "done");
    json_decref(j);
}

static void test_small_lines(void **state)
{
    (void)state;
    json_t *j = end_line(json_online(begin(), "NODE1", 7, NULL, 0, FS_OK));
    is_string(j, "type", "online");
    is_string(j, "dimm", "NODE1");
    is_number(j, "frames_onlined", 7);
    json_decref(j);
    j = end_line(json_version(begin(), "1.2.3", "xen", NULL, "no Xen"));
    is_string(j, "frameshift", "1.2.3");
    is_null(j, "machine_version");
    is_string(j, "error", "no Xen");
    json_decref(j);
    j = end_line(json_error(begin(), NULL, FS_USAGE, "what\x01"));
    is_string(j, "type", "error");
    is_null(j, "verb");
    is_string(j, "status", "USAGE");
    is_number(j, "exit_code", 2);
    is_string(j, "error", "what\x01");
    json_decref(j);
}

/* ---- memory runs out; the stream fails ---- */

static size_t allocations_left;

static void *failing_malloc(size_t bytes)
{
    if (allocations_left == 0) {
        return NULL;
    }
    allocations_left--;
    return malloc(bytes);
}

/* The n-th allocation of the library fails, for every n: no crash, no leak (asan), and false or a whole line. */
static void test_no_memory(void **state)
{
    struct json_report_info info = { "NODE1", FS_PARTIAL, NULL, false, true, false };
    struct hv_report r;
    bool ok = false;
    size_t n = 0, whole_but_failed = 0;

    (void)state;
    canned_report(&r);
    r.blocker_count = CANNED_GUEST_BLOCKERS;            /* dom0's thousand add nothing here but time */
    for (; !ok; n++) {
        json_set_alloc_funcs(failing_malloc, free);
        allocations_left = n;
        ok = json_report(begin(), &r, &info);
        json_set_alloc_funcs(malloc, free);
        end_text();
        if (written_bytes > 0) {
            json_t *j = json_loads(written, 0, NULL);
            assert_non_null(j);
            assert_int_equal(json_array_size(at(j, "blockers")), CANNED_GUEST_BLOCKERS);
            json_decref(j);
            whole_but_failed += !ok;
        } else {
            assert_false(ok);
        }
        free(written);
    }
    assert_true(n > 300 && whole_but_failed > 50);      /* it did fail, many times, in both parts of the line */
    free_report(&r);
}

static void test_stream_fails(void **state)
{
    struct json_report_info info = { "NODE1", FS_PARTIAL, NULL, false, true, false };
    struct hv_report r;
    FILE *full = fopen("/dev/full", "w");

    (void)state;
    assert_non_null(full);
    canned_report(&r);
    assert_false(json_report(full, &r, &info));
    assert_false(json_plan(full, &r.plan));
    assert_false(json_error(full, NULL, FS_OK, "x"));
    (void)fclose(full);
    free_report(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_event), cmocka_unit_test(test_every_event), cmocka_unit_test(test_plan), cmocka_unit_test(test_report),
        cmocka_unit_test(test_verified), cmocka_unit_test(test_report_of_nothing), cmocka_unit_test(test_dry_run_report),
        cmocka_unit_test(test_topology), cmocka_unit_test(test_status), cmocka_unit_test(test_fsck_and_recover),
        cmocka_unit_test(test_small_lines), cmocka_unit_test(test_no_memory), cmocka_unit_test(test_stream_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
