/*
 * test_make_room.c - an evacuation without room: guests shrink first, the DIMM is emptied, they grow back; and all of it undone where one says no.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "drill/coop_guest.h"
#include "hv_priv.h"
#include "journal.h"
#include "range.h"

#define NODE  16384u
#define VICTIM 8192u                    /* frames of the guest in the way: all of them must leave NODE1 */
#define GIVER 13824u                    /* of each of the two that make room: 54 MiB of 64 */

struct town {
    struct emb_machine *m;
    struct coop_guest *victim, *giver[2];
    char dir[64];
};

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t n = text != NULL ? strtoull(text, NULL, 10) : otherwise;
    return n != 0 ? n : otherwise;
}

static struct coop_guest *guest_make(struct emb_machine *m, const char *name, uint64_t pages, uint32_t node)
{
    struct coop_guest_config g = { .pages = pages, .vcpus = 1, .node = node, .boot = { .seed = node + 1 } };
    struct coop_guest *c = NULL;
    (void)snprintf(g.name, sizeof(g.name), "%s", name);
    assert_int_equal(coop_guest_create(m, &g, &c), 0);
    coop_guest_step(c, 100);
    return c;
}

static void town_make(struct town *t)
{
    struct emb_config c = { .nodes = { { NODE, 0 }, { NODE, 0 }, { NODE, 0 } }, .node_count = 3, .seed = 5 };
    *t = (struct town){ .dir = "/dev/shm/room-XXXXXX" };
    assert_non_null(mkdtemp(t->dir));
    t->m = emb_machine_create(&c);
    assert_non_null(t->m);
    t->giver[0] = guest_make(t->m, "left", GIVER, 0);
    t->victim = guest_make(t->m, "victim", VICTIM, 1);
    t->giver[1] = guest_make(t->m, "right", GIVER, 2);
}

static void town_end(struct town *t)
{
    char cmd[96];
    coop_guest_destroy(t->victim);
    coop_guest_destroy(t->giver[0]);
    coop_guest_destroy(t->giver[1]);
    assert_int_equal(emb_fsck(t->m, stderr), 0);
    emb_machine_destroy(t->m);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", t->dir);
    assert_int_equal(system(cmd), 0);
}

static struct hv tool(struct town *t)
{
    return (struct hv){ .be = emb_backend(t->m), .state_dir = t->dir };
}

static uint64_t pages_of(struct town *t, struct coop_guest *c)
{
    struct hv hv = tool(t);
    struct hv_domain d = { 0 };
    assert_int_equal(hv.be->ops->domain(hv.be, coop_guest_domid(c), &d, NULL), FS_OK);
    assert_true(d.max_pages == d.tot_pages);            /* the limit is what it has, always */
    hv.be->ops->close(hv.be);
    return d.tot_pages;
}

static void sane(struct town *t)
{
    assert_int_equal(emb_fsck(t->m, stderr), 0);
    assert_int_equal(coop_guest_check(t->victim, stderr) + coop_guest_check(t->giver[0], stderr) + coop_guest_check(t->giver[1], stderr), 0);
}

static fs_status_t evacuate(struct town *t, bool make_room, bool dry_run, struct hv_report *r, struct fs_error *err)
{
    struct hv hv = tool(t);
    struct hv_evacuate_options o = { .target = "NODE1", .make_room = make_room, .dry_run = dry_run };
    *err = (struct fs_error){ "" };
    fs_status_t s = hv_evacuate(&hv, &o, r, err);
    hv.be->ops->close(hv.be);
    return s;
}

/* As before the first word: sizes, limits, nothing offline, no journal. */
static void untouched(struct town *t)
{
    struct hv hv = tool(t);
    struct hv_status_report r = { 0 };
    struct fs_error err = { "" };
    assert_int_equal(pages_of(t, t->giver[0]), GIVER);
    assert_int_equal(pages_of(t, t->giver[1]), GIVER);
    assert_int_equal(pages_of(t, t->victim), VICTIM);
    assert_int_equal(hv_status(&hv, &r, &err), FS_OK);
    for (size_t i = 0; i < r.count; i++) {
        assert_int_equal(r.dimms[i].offlined + r.dimms[i].pending, 0);
    }
    assert_false(r.recovery_due);
    hv_status_free(&r);
    hv.be->ops->close(hv.be);
    sane(t);
}

static void emptied_and_back(void **state)
{
    struct town t;
    struct hv_report r = { 0 };
    struct hv_shrink_report *grown;
    struct fs_error err;
    size_t count;
    uint64_t held, pages;
    (void)state;
    town_make(&t);
    /* Without the option: the refusal names it, and who would give how much. */
    assert_int_equal(evacuate(&t, false, false, &r, &err), FS_NO_ROOM);
    assert_non_null(strstr(err.text, "--make-room"));
    assert_non_null(strstr(err.text, "left by"));
    assert_non_null(strstr(err.text, "right by"));
    hv_report_free(&r);
    untouched(&t);
    assert_int_equal(evacuate(&t, true, true, &r, &err), FS_OK);
    assert_non_null(strstr(r.plan.note, "left by"));
    assert_int_equal(r.made_room_count, 0);
    hv_report_free(&r);
    untouched(&t);
    fs_status_t s = evacuate(&t, true, false, &r, &err);
    if (s != FS_PARTIAL) {
        fail_msg("%s: %s", fs_status_name(s), err.text);
    }
    assert_int_equal(r.frames_moved, pages_of(&t, t.victim));
    assert_int_equal(r.blocker_count, 1);               /* shared_info, which is Xen's */
    assert_int_equal(emb_guest_frames_in(t.m, coop_guest_domid(t.victim), emb_node_range(t.m, 1), &held), 0);
    assert_true(r.made_room_count >= 2);
    uint64_t given = 0;
    for (size_t i = 0; i < r.made_room_count; i++) {
        assert_int_equal(r.made_room[i].status, FS_OK);
        given += r.made_room[i].pages_before - r.made_room[i].pages_after;
    }
    assert_int_equal(given, 2 * GIVER + VICTIM - pages_of(&t, t.giver[0]) - pages_of(&t, t.giver[1]) - pages_of(&t, t.victim));
    hv_report_free(&r);
    sane(&t);
    struct hv hv = tool(&t);
    assert_int_equal(hv_online(&hv, "NODE1", &pages, &err), FS_OK);
    assert_int_equal(hv_grow_back(&hv, &grown, &count, &err), FS_OK);
    assert_true(count >= 2);
    free(grown);
    assert_int_equal(hv_grow_back(&hv, &grown, &count, &err), FS_OK);
    assert_int_equal(count, 0);                         /* nobody is left to grow */
    free(grown);
    hv.be->ops->close(hv.be);
    untouched(&t);
    town_end(&t);
}

/* It answers every SHRINK with "not now". */
static void unwilling_step(void *arg)
{
    struct coop_guest *c = arg;
    struct coop *k = coop_guest_kernel(c)->coop;
    struct fs_abi_request *q = &k->control->request[k->served % FS_ABI_SLOTS];
    if (k->control->request_produced != k->served && k->session == k->control->session_hv && q->op == FS_ABI_SHRINK) {
        q->argument[0] = 0;
        coop_guest_step(c, 1);
        k->control->response[(k->served + FS_ABI_SLOTS - 1) % FS_ABI_SLOTS].status = FS_ABI_STATUS_NO_MEMORY;
        return;
    }
    coop_guest_step(c, 1);
}

static void one_says_no(void **state)
{
    struct town t;
    struct hv_report r = { 0 };
    struct fs_error err;
    (void)state;
    town_make(&t);
    emb_core_step_with(t.m, coop_guest_domid(t.giver[1]), unwilling_step, t.giver[1]);
    assert_int_equal(evacuate(&t, true, false, &r, &err), FS_NO_ROOM);
    assert_non_null(strstr(err.text, "right did not give"));
    assert_true(r.made_room_count >= 2);
    assert_int_equal(r.made_room[0].given_back_pages, r.made_room[0].pages_before - r.made_room[0].pages_after);
    assert_true(r.made_room[0].given_back_pages > 0);
    hv_report_free(&r);
    coop_guest_hosts_steps(t.giver[1]);
    untouched(&t);
    town_end(&t);
}

/* More is missing than all of them can give: refused, and they have not been asked to give anything. */
static void not_enough(void **state)
{
    struct town t;
    struct hv_report r = { 0 };
    struct fs_error err;
    (void)state;
    town_make(&t);
    for (unsigned i = 0; i < 2; i++) {                  /* they need what they have */
        struct guest *g = coop_guest_kernel(t.giver[i]);
        guest_cpu_become(&g->machine.cpu[0]);
        for (uint32_t z = 0; z < g->mm->zone_count; z++) {
            g->mm->zones[z].watermark[WMARK_HIGH] = g->mm->zones[z].managed_pages;
        }
    }
    struct guest *v = coop_guest_kernel(t.victim);
    guest_cpu_become(&v->machine.cpu[0]);
    for (uint32_t z = 0; z < v->mm->zone_count; z++) {
        v->mm->zones[z].watermark[WMARK_HIGH] = v->mm->zones[z].managed_pages;
    }
    assert_int_equal(evacuate(&t, true, false, &r, &err), FS_NO_ROOM);
    assert_null(strstr(err.text, "--make-room would"));
    assert_int_equal(r.made_room_count, 0);
    hv_report_free(&r);
    for (unsigned i = 0; i < 2; i++) {
        mm_setup_watermarks(coop_guest_kernel(t.giver[i])->mm);
    }
    mm_setup_watermarks(v->mm);
    untouched(&t);
    town_end(&t);
}

/* Backend call n fails: recovery where it is due, and everybody lives, with a limit that is what he has. */
static void each_call_fails(void **state)
{
    uint64_t whole = 0, runs = 0, stride = env_number("STRIDE", 60);
    bool more = true;
    (void)state;
    for (uint64_t n = 5; more; n += stride) {
        struct town t;
        struct hv_report r = { 0 };
        struct hv_recover_report rr;
        struct fs_error err;
        struct emb_fault_plan plan = { .fail_call = n };
        town_make(&t);
        emb_fault_arm(t.m, &plan);
        fs_status_t s = evacuate(&t, true, false, &r, &err);
        more = emb_fault_fired(t.m) > 0;
        emb_fault_arm(t.m, NULL);
        whole += s == FS_PARTIAL;
        runs++;
        hv_report_free(&r);
        struct hv hv = tool(&t);
        if (journal_pending(t.dir)) {
            s = hv_recover(&hv, &rr, &err);
            if (s != FS_OK) {
                fail_msg("call %llu; recovery: %s: %s", (unsigned long long)n, fs_status_name(s), err.text);
            }
        }
        sane(&t);
        struct hv_shrink_report *grown;
        size_t count;
        uint64_t pages;
        assert_int_equal(hv_online(&hv, "NODE1", &pages, &err), FS_OK);
        s = hv_grow_back(&hv, &grown, &count, &err);
        if (s != FS_OK) {
            fail_msg("call %llu; growing back: %s: %s", (unsigned long long)n, fs_status_name(s), err.text);
        }
        free(grown);
        hv.be->ops->close(hv.be);
        untouched(&t);
        town_end(&t);
    }
    print_message("%llu evacuations that make room, with a failing call: %llu ended whole\n", (unsigned long long)runs, (unsigned long long)whole);
    assert_true(whole > 0 && runs > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(emptied_and_back), cmocka_unit_test(one_says_no), cmocka_unit_test(not_enough), cmocka_unit_test(each_call_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
