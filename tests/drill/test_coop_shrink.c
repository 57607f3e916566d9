/*
 * test_coop_shrink.c - a guest shrinks and grows, undisturbed and disturbed at every call.
 *
 * After each run, whatever was done to it: every byte of the guest is right, it knows itself without a fault, every count of the machine is
 * right, its limit is what it has, and what the report says is what the machine says.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <sys/uio.h>
#include <unistd.h>
#include "coop_world.h"
#include "shrunk.h"

#define PAGES 6144u
#define SMALL 4608u                     /* what it is shrunk to: 3 blocks less */

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    uint64_t n = text != NULL ? strtoull(text, NULL, 10) : otherwise;
    return n != 0 ? n : otherwise;
}

static uint64_t tot_pages(struct world *w)
{
    struct hv_backend *be = emb_backend(w->m);
    struct hv_domain d = { 0 };
    (void)be->ops->domain(be, coop_guest_domid(w->c), &d, NULL);
    be->ops->close(be);
    return d.tot_pages;
}

static fs_status_t resize_more(struct world *w, uint64_t to, bool grow, const struct hv_shrink_options *more, struct hv_shrink_report *r, struct fs_error *err)
{
    struct hv hv = { .be = emb_backend(w->m), .state_dir = w->dir };
    struct hv_shrink_options o = more != NULL ? *more : (struct hv_shrink_options){ .step_pages = 512 };
    assert_non_null(hv.be);
    o.guest = "coop";
    o.to_pages = to;
    o.grow = grow;
    fs_status_t s = hv_shrink(&hv, &o, r, err);
    hv.be->ops->close(hv.be);
    return s;
}

static fs_status_t resize(struct world *w, uint64_t to, bool grow, struct hv_shrink_report *r, struct fs_error *err)
{
    return resize_more(w, to, grow, NULL, r, err);
}

/* What this process really shows at each pfn: a page without a frame cannot be read, also where its page table is parked; the others can. */
static void reachable(struct world *w, const char *what, uint64_t n)
{
    const struct guest_machine *g = &coop_guest_kernel(w->c)->machine;
    for (uint64_t pfn = 0; pfn < g->pages; pfn++) {
        uint8_t byte;
        struct iovec local = { &byte, 1 }, remote = { g->direct + pfn * FS_PAGE_BYTES, 1 };
        bool read = process_vm_readv(getpid(), &local, 1, &remote, 1, 0) == 1, has = g->p2m[pfn] != UINT64_MAX;
        if (read != has) {
            fail_msg("seed %llu, %s %llu: pfn %#llx %s", (unsigned long long)w->seed, what, (unsigned long long)n, (unsigned long long)pfn,
                     read ? "was given and can be read" : "has a frame and cannot be read");
        }
    }
}

/* The limit follows what the guest has; world_sane() looks at it. */
static void sane(struct world *w, const char *what, uint64_t n)
{
    w->max_pages = tot_pages(w);
    world_sane(w, what, n);
    reachable(w, what, n);
}

static void expect(struct world *w, fs_status_t s, fs_status_t wanted, const struct fs_error *err, const char *what, uint64_t n)
{
    if (s != wanted) {
        fail_msg("seed %llu, %s %llu: %s, not %s: %s", (unsigned long long)w->seed, what, (unsigned long long)n, fs_status_name(s), fs_status_name(wanted),
                 err->text);
    }
}

static void down_and_up(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= env_number("SEEDS", 2); seed++) {
        struct world w;
        struct hv_shrink_report r;
        struct fs_error err = { "" };
        world_make(&w, seed, 1 + (uint32_t)seed % 3, GUEST_PAGES);
        uint64_t free_before = emb_free_pages(w.m), to = GUEST_PAGES - 2048 - seed;
        expect(&w, resize(&w, to, false, &r, &err), FS_OK, &err, "shrink", seed);
        assert_int_equal(r.plan_pages, 2048);                               /* whole blocks only */
        assert_int_equal(r.pages_before, GUEST_PAGES);
        assert_int_equal(r.pages_after, GUEST_PAGES - 2048);
        assert_int_equal(r.limit_after, r.pages_after);
        assert_int_equal(r.maximum_pages, GUEST_PAGES);
        assert_int_equal(r.said_pages, 2048);
        assert_int_equal(r.blocks * 512 + r.single_pages, 2048);
        assert_int_equal(r.free_after - r.free_before, 2048);
        assert_int_equal(emb_free_pages(w.m), free_before + 2048);
        assert_int_equal(r.stops, 0);
        assert_int_equal(r.fsck_faults, 0);
        assert_int_equal(r.requests, 4);
        sane(&w, "shrunk", seed);
        coop_guest_step(w.c, 2000);
        sane(&w, "lives shrunk", seed);
        assert_int_equal(tot_pages(&w), GUEST_PAGES - 2048);                /* nothing came back secretly */
        expect(&w, resize(&w, GUEST_PAGES - 1024, true, &r, &err), FS_OK, &err, "grow by half", seed);
        assert_int_equal(r.pages_after, GUEST_PAGES - 1024);
        assert_int_equal(r.limit_after, r.pages_after);
        sane(&w, "grown by half", seed);
        expect(&w, resize(&w, GUEST_PAGES, true, &r, &err), FS_OK, &err, "grow", seed);
        assert_int_equal(r.pages_after, GUEST_PAGES);
        assert_int_equal(emb_free_pages(w.m), free_before);
        sane(&w, "grown", seed);
        assert_int_equal(emb_domain_max_pages(w.m, coop_guest_domid(w.c)), GUEST_PAGES);
        world_end(&w);
    }
}

/* A shrunk guest is a guest: it is evacuated, and grows afterwards. */
static void evacuated_while_small(void **state)
{
    struct world w;
    struct hv_shrink_report r;
    struct hv_report e = { 0 };
    struct fs_error err = { "" };
    (void)state;
    world_make(&w, 21, 2, GUEST_PAGES);
    expect(&w, resize(&w, GUEST_PAGES - 2048, false, &r, &err), FS_OK, &err, "shrink", 0);
    expect(&w, world_evacuate(&w, "NODE1", NULL, &e, &err), FS_PARTIAL, &err, "evacuate", 0);
    assert_int_equal(e.frames_moved, GUEST_PAGES - 2048);
    hv_report_free(&e);
    sane(&w, "evacuated", 0);
    expect(&w, resize(&w, GUEST_PAGES, true, &r, &err), FS_OK, &err, "grow", 0);
    sane(&w, "grown", 0);
    world_end(&w);
}

/* Blocks are one piece of machine again after an evacuation, but for that of the pages which guest and tool share: a shrink gives them in one piece. */
static void whole_after_evacuation(void **state)
{
    (void)state;
    for (uint64_t seed = 41; seed < 41 + env_number("SEEDS", 2); seed++) {
        static const char *const targets[] = { "NODE1", "NODE0", "NODE2" };
        struct world w;
        struct hv_shrink_report r;
        struct fs_error err = { "" };
        uint64_t whole = 0;
        world_make(&w, seed, 1, GUEST_PAGES);
        for (unsigned i = 0; i < FS_ARRAY_SIZE(targets); i++) {
            struct hv_report e = { 0 };
            struct hv hv = { .be = emb_backend(w.m), .state_dir = w.dir };
            uint64_t back;
            fs_status_t s = world_evacuate(&w, targets[i], NULL, &e, &err);
            expect(&w, s, s == FS_OK ? FS_OK : FS_PARTIAL, &err, "evacuate", seed);
            assert_true(e.domain_count == 0 || e.domains[0].superpages_after + 1 >= e.domains[0].superpages_before);
            whole += e.domain_count == 0 ? 0 : e.domains[0].superpages_after;
            hv_report_free(&e);
            sane(&w, "evacuated", seed);
            expect(&w, resize(&w, GUEST_PAGES - 2048, false, &r, &err), FS_OK, &err, "shrink", seed);
            assert_int_equal(r.blocks, 4);
            assert_int_equal(r.machine_extents, 4);
            expect(&w, resize(&w, GUEST_PAGES, true, &r, &err), FS_OK, &err, "grow", seed);
            assert_int_equal(hv_online(&hv, targets[i], &back, &err), FS_OK);
            hv.be->ops->close(hv.be);
            sane(&w, "grown", seed);
        }
        assert_true(whole >= 2 * (GUEST_PAGES / 512 - 1));
        world_end(&w);
    }
}

static void refusals(void **state)
{
    struct world w;
    struct hv_shrink_report r;
    struct fs_error err = { "" };
    struct hv_shrink_options plan = { .dry_run = true };
    (void)state;
    world_make(&w, 22, 1, PAGES);
    expect(&w, resize(&w, PAGES + 1, false, &r, &err), FS_BAD_RANGE, &err, "shrink to more", 0);
    expect(&w, resize(&w, PAGES - 512, true, &r, &err), FS_BAD_RANGE, &err, "grow to less", 0);
    expect(&w, resize(&w, PAGES + 512, true, &r, &err), FS_REFUSED, &err, "beyond its maximum", 0);
    expect(&w, resize(&w, 512, false, &r, &err), FS_REFUSED, &err, "below what it lives on", 0);
    assert_non_null(strstr(err.text, "lives on"));
    expect(&w, resize(&w, PAGES - 100, false, &r, &err), FS_OK, &err, "less than a block", 0);
    assert_int_equal(r.plan_pages + r.requests, 0);
    expect(&w, resize_more(&w, SMALL, false, &plan, &r, &err), FS_OK, &err, "dry run", 0);
    assert_int_equal(r.plan_pages, PAGES - SMALL);
    sane(&w, "refused", 0);
    assert_int_equal(tot_pages(&w), PAGES);
    assert_false(world_needs_recovery(&w, FS_OK));
    /* It gave nothing yet, so there is nothing to take, whatever its limit is. */
    expect(&w, resize(&w, PAGES, true, &r, &err), FS_OK, &err, "as large as ever", 0);
    struct hv hv = { .be = emb_backend(w.m), .state_dir = w.dir };
    assert_int_equal(hv.be->ops->pause(hv.be, coop_guest_domid(w.c), &err), FS_OK);
    struct hv_shrink_options o = { .guest = "coop", .to_pages = SMALL };
    expect(&w, hv_shrink(&hv, &o, &r, &err), FS_REFUSED, &err, "paused", 0);
    assert_int_equal(hv.be->ops->unpause(hv.be, coop_guest_domid(w.c), &err), FS_OK);
    o.guest = "nobody";
    expect(&w, hv_shrink(&hv, &o, &r, &err), FS_NOT_FOUND, &err, "no such guest", 0);
    /* Another tool is at work. */
    struct journal *other;
    assert_int_equal(journal_open(w.dir, false, &other, &err), FS_OK);
    o.guest = "coop";
    expect(&w, hv_shrink(&hv, &o, &r, &err), FS_BUSY, &err, "two at once", 0);
    journal_close(other);
    /* It speaks another version. */
    assert_int_equal(emb_core_publish(w.m, coop_guest_domid(w.c), FS_ABI_KEY_VERSION, "2"), 0);
    expect(&w, hv_shrink(&hv, &o, &r, &err), FS_BAD_VERSION, &err, "another version", 0);
    hv.be->ops->close(hv.be);
    world_end(&w);
}

/* The machine has no frames for it: refused before anything is changed. */
static void no_room_to_grow(void **state)
{
    struct world w;
    struct hv_shrink_report r;
    struct fs_error err = { "" };
    uint16_t domids[8];
    unsigned n = 0;
    (void)state;
    world_make(&w, 23, 1, PAGES);
    expect(&w, resize(&w, SMALL, false, &r, &err), FS_OK, &err, "shrink", 0);
    for (uint64_t free; (free = emb_free_pages(w.m)) > 2000 && n < 8; n++) {
        struct emb_core_config c = { .name = "filler", .pages = free > 16200 ? 16200 : free - 1500, .vcpus = 1, .any_node = true };
        assert_int_equal(emb_core_create(w.m, &c, &domids[n]), 0);
    }
    expect(&w, resize(&w, PAGES, true, &r, &err), FS_NO_ROOM, &err, "grow", 0);
    sane(&w, "no room", 0);
    while (n > 0) {
        n--;
        emb_core_unmap(w.m, domids[n]);
        assert_int_equal(emb_domain_destroy(w.m, domids[n]), 0);
    }
    expect(&w, resize(&w, PAGES, true, &r, &err), FS_OK, &err, "grow", 0);
    sane(&w, "grown", 0);
    world_end(&w);
}

/* Somebody else set its limit: what it had before is his business now. */
static void somebody_sets_the_limit(void **state)
{
    struct world w;
    struct hv_shrink_report r;
    struct fs_error err = { "" };
    (void)state;
    world_make(&w, 24, 1, PAGES);
    expect(&w, resize(&w, SMALL, false, &r, &err), FS_OK, &err, "shrink", 0);
    struct hv_backend *be = emb_backend(w.m);
    assert_int_equal(be->ops->set_max_pages(be, coop_guest_domid(w.c), SMALL + 512, &err), FS_OK);
    be->ops->close(be);
    expect(&w, resize(&w, PAGES, true, &r, &err), FS_REFUSED, &err, "grow beyond his limit", 0);
    assert_int_equal(r.maximum_pages, SMALL);
    w.max_pages = SMALL + 512;
    world_sane(&w, "his limit", 0);
    /* A damaged file is named, and nothing happens. */
    char path[96];
    (void)snprintf(path, sizeof(path), "%s/shrunk", w.dir);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("frameshift-shrunk 2\nzz12 3 4 5\n", f);
    (void)fclose(f);
    expect(&w, resize(&w, SMALL - 512, false, &r, &err), FS_BAD_INPUT, &err, "damaged file", 0);
    assert_non_null(strstr(err.text, "shrunk"));
    assert_int_equal(tot_pages(&w), SMALL);
    (void)unlink(path);
    world_end(&w);
}

/* ---- disturbed ---- */

/* After anything at all: recovery where it is due, then the same command completes, then back. */
static void complete(struct world *w, fs_status_t s, bool grow, const char *what, uint64_t n, uint64_t *recovered)
{
    struct hv_shrink_report r;
    struct fs_error err = { "" };
    if (world_needs_recovery(w, s)) {
        struct hv_recover_report rr = { 0 };
        (*recovered)++;
        expect(w, world_recover(w, &rr, &err), FS_OK, &err, what, n);
    }
    sane(w, what, n);
    expect(w, resize(w, grow ? PAGES : SMALL, grow, &r, &err), FS_OK, &err, what, n);
    assert_int_equal(tot_pages(w), grow ? PAGES : SMALL);
    sane(w, what, n);
    if (!grow) {
        expect(w, resize(w, PAGES, true, &r, &err), FS_OK, &err, what, n);
        sane(w, what, n);
    }
    assert_int_equal(emb_domain_max_pages(w->m, coop_guest_domid(w->c)), PAGES);
}

static void start(struct world *w, uint64_t seed, bool grow)
{
    struct hv_shrink_report r;
    struct fs_error err = { "" };
    world_make(w, seed, 1, PAGES);
    if (grow) {
        expect(w, resize(w, SMALL, false, &r, &err), FS_OK, &err, "start", seed);
    }
}

static void each_call_fails(void **state)
{
    (void)state;
    for (unsigned grow = 0; grow < 2; grow++) {
        uint64_t recovered = 0, whole = 0, runs = 0, stride = env_number("STRIDE", 12);
        bool more = true;
        for (uint64_t n = 1 + grow; more; n += stride) {
            struct world w;
            struct hv_shrink_report r;
            struct fs_error err = { "" };
            struct emb_fault_plan plan = { .fail_call = n, .partial = n % 2 == 0 };
            start(&w, 30, grow != 0);
            emb_fault_arm(w.m, &plan);
            fs_status_t s = resize(&w, grow ? PAGES : SMALL, grow != 0, &r, &err);
            more = emb_fault_fired(w.m) > 0;
            emb_fault_arm(w.m, NULL);
            whole += s == FS_OK;
            runs++;
            if (s != FS_GUEST_GONE) {
                assert_int_equal(r.pages_after, s == FS_OK ? (grow ? PAGES : SMALL) : r.pages_after);
            }
            complete(&w, s, grow != 0, "call", n, &recovered);
            world_end(&w);
        }
        print_message("%s: %llu runs with a failing call, %llu ended whole, %llu needed recovery\n", grow ? "grow" : "shrink", (unsigned long long)runs,
                      (unsigned long long)whole, (unsigned long long)recovered);
        assert_true(whole > 1 && runs > whole);
    }
}

static void each_hypercall_fails(void **state)
{
    (void)state;
    for (unsigned grow = 0; grow < 2; grow++) {
        uint64_t runs = 0, recovered = 0, stride = env_number("STRIDE", 12);
        bool more = true;
        for (uint64_t n = 1; more; n += n * stride / 6 + 1) {
            struct world w;
            struct hv_shrink_report r;
            struct fs_error err = { "" };
            start(&w, 31, grow != 0);
            uint64_t before = coop_guest_hypercalls(w.c);
            coop_guest_fail_nth(w.c, n);
            fs_status_t s = resize(&w, grow ? PAGES : SMALL, grow != 0, &r, &err);
            more = coop_guest_hypercalls(w.c) - before >= n;
            coop_guest_fail_nth(w.c, 0);
            runs++;
            if (s != FS_OK && s != FS_PARTIAL) {
                fail_msg("hypercall %llu failed: %s: %s", (unsigned long long)n, fs_status_name(s), err.text);
            }
            complete(&w, s, grow != 0, "hypercall", n, &recovered);
            world_end(&w);
        }
        assert_int_equal(recovered, 0);
        print_message("%s: %llu runs with a failing hypercall\n", grow ? "grow" : "shrink", (unsigned long long)runs);
    }
}

static void interrupt_hook(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    (void)m, (void)op, (void)call;
    hv_interrupt(arg);
}

static void interrupted_and_resumed(void **state)
{
    uint64_t stopped = 0, recovered = 0, half_way = 0;
    (void)state;
    for (uint64_t n = 1; n < 60; n += env_number("STRIDE", 12)) {
        struct world w;
        struct hv_shrink_report r = { 0 };
        struct fs_error err = { "" };
        start(&w, 32, false);
        struct hv hv = { .be = emb_backend(w.m), .state_dir = w.dir };
        struct hv_shrink_options o = { .guest = "coop", .to_pages = SMALL, .step_pages = 512 };
        struct emb_fault_plan plan = { .hook_call = n, .hook = interrupt_hook, .hook_arg = &hv };
        emb_fault_arm(w.m, &plan);
        fs_status_t s = hv_shrink(&hv, &o, &r, &err);
        emb_fault_arm(w.m, NULL);
        hv.be->ops->close(hv.be);
        if (s != FS_INTERRUPTED && s != FS_OK) {
            fail_msg("interrupted before call %llu: %s: %s", (unsigned long long)n, fs_status_name(s), err.text);
        }
        stopped += s == FS_INTERRUPTED;
        half_way += s == FS_INTERRUPTED && r.pages_after < PAGES;
        assert_int_equal(r.pages_after, tot_pages(&w));                     /* the truth */
        assert_int_equal(r.limit_after, r.pages_after);
        assert_false(world_needs_recovery(&w, s));
        complete(&w, s, false, "interrupted", n, &recovered);
        world_end(&w);
    }
    assert_true(stopped > 1 && half_way > 0);
}

static void destroy_hook(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    (void)op, (void)call;
    (void)emb_domain_destroy(m, *(uint16_t *)arg);
}

static void destroyed_at_each_call(void **state)
{
    uint64_t stride = env_number("STRIDE", 12), gone = 0;
    bool more = true;
    (void)state;
    for (uint64_t n = 1; more; n += stride) {
        struct world w;
        struct hv_shrink_report r;
        struct fs_error err = { "" };
        start(&w, 33, false);
        uint16_t domid = coop_guest_domid(w.c);
        uint64_t all = emb_free_pages(w.m) + tot_pages(&w);
        struct emb_fault_plan plan = { .hook_call = n, .hook = destroy_hook, .hook_arg = &domid };
        emb_fault_arm(w.m, &plan);
        fs_status_t s = resize(&w, SMALL, false, &r, &err);
        more = emb_fault_calls(w.m) >= n;
        emb_fault_arm(w.m, NULL);
        if (world_needs_recovery(&w, s)) {
            struct hv_recover_report rr = { 0 };
            expect(&w, world_recover(&w, &rr, &err), FS_OK, &err, "destroyed", n);
        }
        assert_int_equal(emb_fsck(w.m, stderr), 0);
        gone += s == FS_GUEST_GONE;
        if (more) {
            assert_int_equal(emb_free_pages(w.m), all + 1);                 /* and shared_info */
            world_drop(&w);
        } else {
            assert_int_equal(s, FS_OK);
            world_end(&w);
        }
    }
    assert_true(gone > 1);
}

struct resizing { bool grow; uint32_t crash_at; };

static void tool(struct world *w, void *arg)
{
    const struct resizing *t = arg;
    struct hv_shrink_report r;
    struct fs_error err = { "" };
    struct hv_shrink_options o = { .step_pages = 512, .crash_at = t->crash_at };
    (void)resize_more(w, t->grow ? PAGES : SMALL, t->grow, &o, &r, &err);
}

static bool run_and_kill(struct world *w, bool grow, uint32_t crash_at)
{
    return world_run_and_kill(w, tool, &(struct resizing){ grow, crash_at });
}

static void killed_at_each_record(void **state)
{
    (void)state;
    for (unsigned grow = 0; grow < 2; grow++) {
        uint64_t recovered = 0;
        bool killed = true;
        uint32_t n = 1;
        for (; killed; n++) {
            struct world w;
            start(&w, 34, grow != 0);
            killed = run_and_kill(&w, grow != 0, n);
            complete(&w, FS_OK, grow != 0, "killed at record", n, &recovered);
            world_end(&w);
        }
        assert_int_equal(n, 7);                 /* five records, and the run that is not killed */
        assert_true(recovered == 5);
    }
}

static void killed_at_each_call(void **state)
{
    (void)state;
    for (unsigned grow = 0; grow < 2; grow++) {
        uint64_t recovered = 0, kills = 0;
        bool killed = true;
        for (uint64_t n = 2; killed; n += 2 * env_number("STRIDE", 5)) {     /* how many calls wait for the guest depends on the host */
            struct world w;
            struct emb_fault_plan plan = { .hook_call = n, .hook = world_kill_tool };
            start(&w, 35, grow != 0);
            emb_fault_arm(w.m, &plan);
            killed = run_and_kill(&w, grow != 0, 0);
            kills += killed;
            complete(&w, FS_OK, grow != 0, "killed at call", n, &recovered);
            world_end(&w);
        }
        assert_true(kills >= 2 && recovered >= 1);
    }
}

/* ---- a guest that lies ---- */

enum lie { LIE_COUNT, LIE_NOTHING_DONE, LIE_VALUES, LIE_STATUS, LIE_SILENT, LIE_POSSIBLE, LIES };
struct liar { struct world *w; enum lie lie; uint32_t served; uint64_t told; };

static void lying_step(void *arg)
{
    struct liar *l = arg;
    struct coop *c = coop_guest_kernel(l->w->c)->coop;
    struct fs_abi_request *q = &c->control->request[c->served % FS_ABI_SLOTS];
    bool due = c->control->request_produced != c->served && c->session == c->control->session_hv;
    uint16_t op = due ? q->op : 0;
    if (l->lie == LIE_SILENT && op == FS_ABI_SHRINK) {
        l->told++;
        return;
    }
    if (l->lie == LIE_NOTHING_DONE && op == FS_ABI_SHRINK) {
        q->argument[0] = 0;                     /* it serves nothing, and says that it did */
    }
    coop_guest_step(l->w->c, 1);
    struct fs_abi_response *a = &c->control->response[(c->served + FS_ABI_SLOTS - 1) % FS_ABI_SLOTS];
    if (due && op == FS_ABI_SHRINK && c->control->request_produced == c->served) {
        l->told++;
        switch (l->lie) {
        case LIE_COUNT:        a->count = UINT32_MAX; break;
        case LIE_NOTHING_DONE: a->count = 512; a->status = FS_ABI_STATUS_OK; break;
        case LIE_STATUS:       a->status = FS_ABI_STATUS_NO_MEMORY; break;
        case LIE_VALUES:       memset(a->value, 0xff, sizeof(a->value)); break;
        default: break;
        }
    } else if (due && op == FS_ABI_QUERY && l->lie == LIE_POSSIBLE) {
        memset(a->value, 0xff, sizeof(a->value));
        l->told++;
    }
}

static void a_guest_that_lies(void **state)
{
    static const fs_status_t wanted[LIES] = { [LIE_COUNT] = FS_OK, [LIE_NOTHING_DONE] = FS_BAD_INPUT, [LIE_VALUES] = FS_OK, [LIE_STATUS] = FS_OK,
                                              [LIE_SILENT] = FS_TIMEOUT, [LIE_POSSIBLE] = FS_OK };
    (void)state;
    for (unsigned lie = 0; lie < LIES; lie++) {
        struct world w;
        struct hv_shrink_report r;
        struct fs_error err = { "" };
        struct hv_shrink_options o = { .step_pages = 512, .timeout_ns = 20000000 };
        uint64_t recovered = 0;
        start(&w, 36, false);
        struct liar l = { .w = &w, .lie = (enum lie)lie };
        emb_core_step_with(w.m, coop_guest_domid(w.c), lying_step, &l);
        fs_status_t s = resize_more(&w, SMALL, false, &o, &r, &err);
        expect(&w, s, wanted[lie], &err, "lie", lie);
        assert_true(l.told > 0);
        assert_int_equal(r.pages_after, tot_pages(&w));
        assert_int_equal(r.pages_after, s == FS_OK ? SMALL : PAGES);
        assert_int_equal(r.limit_after, r.pages_after);
        assert_int_equal(r.detailed, lie != LIE_VALUES);
        assert_int_equal(emb_fsck(w.m, stderr), 0);
        coop_guest_hosts_steps(w.c);
        complete(&w, s, false, "lie", lie, &recovered);
        assert_int_equal(recovered, 0);
        world_end(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(down_and_up), cmocka_unit_test(evacuated_while_small), cmocka_unit_test(whole_after_evacuation),
        cmocka_unit_test(refusals), cmocka_unit_test(no_room_to_grow),
        cmocka_unit_test(somebody_sets_the_limit), cmocka_unit_test(each_call_fails), cmocka_unit_test(each_hypercall_fails),
        cmocka_unit_test(interrupted_and_resumed), cmocka_unit_test(destroyed_at_each_call), cmocka_unit_test(killed_at_each_record),
        cmocka_unit_test(killed_at_each_call), cmocka_unit_test(a_guest_that_lies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
