/*
 * test_plan.c - the plan is pure, so it is tested without any machine.
 *
 * Each test builds the frames that a survey would feed and checks counts, movers,
 * room and refusals; a seeded property test compares the counts with a naive model.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "plan.h"
#include "range.h"

static const struct hv_domain domains[] = {
    { .domid = 0, .kind = HV_DOMAIN_CONTROL, .name = "Domain-0", .tot_pages = 1000, .vcpus = 2 },
    { .domid = 1, .kind = HV_DOMAIN_PV, .name = "pv1", .tot_pages = 500, .vcpus = 1 },
    { .domid = 2, .kind = HV_DOMAIN_HAP, .name = "pvh1", .tot_pages = 2048, .vcpus = 2 },
    { .domid = 3, .kind = HV_DOMAIN_PV32, .name = "old", .tot_pages = 10, .vcpus = 1 },
};
#define DOMAINS FS_ARRAY_SIZE(domains)

static struct hv_host host_with(uint64_t free0, uint64_t free1, uint32_t pcpus)
{
    struct hv_host h = { .version_major = 4, .version_minor = 17, .max_mfn = 1 << 20, .pcpus = pcpus, .node_count = 2,
                         .pcpu0_marking_hangs = true };
    h.nodes[0] = (struct hv_node){ .id = 0, .total_pages = 1 << 18, .free_pages = free0 };
    h.nodes[1] = (struct hv_node){ .id = 1, .total_pages = 1 << 18, .free_pages = free1 };
    return h;
}

static struct hv_frame frame(enum hv_frame_owner owner, uint16_t domid, uint64_t gfn, enum hv_frame_type type)
{
    return (struct hv_frame){ .gfn = gfn, .domid = domid, .owner = (uint8_t)owner, .type = (uint8_t)type };
}

struct fixture {
    struct hv_plan plan;
    struct mfn_range_set ranges;
    struct plan_options options;
    struct plan_cost cost;
    uint64_t unowned[HV_NODES_MAX];
};

static void open_plan(struct fixture *f, uint64_t start, uint64_t pages)
{
    memset(f, 0, sizeof(*f));
    assert_int_equal(mfn_set_add(&f->ranges, (struct mfn_range){ mfn_make(start), mfn_make(start + pages) }), FS_OK);
    assert_int_equal(plan_begin(&f->plan, "NODE1", &f->ranges, domains, DOMAINS, &f->options), FS_OK);
}

static void close_plan(struct fixture *f)
{
    hv_plan_free(&f->plan);
    mfn_set_free(&f->ranges);
}

static void feed(struct fixture *f, uint64_t start, const struct hv_frame *frames, size_t count)
{
    assert_int_equal(plan_add_frames(&f->plan, mfn_make(start), frames, count, domains, DOMAINS), FS_OK);
}

static void test_kinds_and_movers(void **state)
{
    (void)state;
    struct fixture f;
    const struct hv_frame frames[] = {
        frame(HV_FRAME_UNOWNED, 0, FS_FRAME_NONE, HV_TYPE_NONE), frame(HV_FRAME_DOMAIN, 1, 7, HV_TYPE_NONE),
        frame(HV_FRAME_DOMAIN, 1, 8, HV_TYPE_L1), frame(HV_FRAME_DOMAIN, 1, 9, HV_TYPE_L2),
        frame(HV_FRAME_DOMAIN, 1, 10, HV_TYPE_L3), frame(HV_FRAME_DOMAIN, 1, 11, HV_TYPE_L4),
        frame(HV_FRAME_DOMAIN, 1, FS_FRAME_NONE, HV_TYPE_NONE), frame(HV_FRAME_DOMAIN, 0, 3, HV_TYPE_NONE),
        frame(HV_FRAME_OFFLINED, 0, FS_FRAME_NONE, HV_TYPE_NONE), frame(HV_FRAME_BROKEN, 0, FS_FRAME_NONE, HV_TYPE_NONE),
        frame(HV_FRAME_HOLE, 0, FS_FRAME_NONE, HV_TYPE_NONE), frame(HV_FRAME_AMBIGUOUS, 2, 5, HV_TYPE_NONE),
        frame(HV_FRAME_DOMAIN, 3, 1, HV_TYPE_NONE), frame(HV_FRAME_DOMAIN, 99, 1, HV_TYPE_NONE),
    };
    struct hv_host host = host_with(100000, 0, 2);
    open_plan(&f, 4096, FS_ARRAY_SIZE(frames));
    feed(&f, 4096, frames, FS_ARRAY_SIZE(frames));
    plan_domain_pv(&f.plan, 1, 1, 77);
    assert_int_equal(plan_finish(&f.plan, &host, f.unowned, &f.options, &f.cost), FS_OK);
    const struct hv_counts *c = &f.plan.counts;
    assert_int_equal(c->total, FS_ARRAY_SIZE(frames));
    assert_int_equal(c->free_or_xen, 1);
    assert_int_equal(c->p2m, 1);                /* taken out of data */
    assert_int_equal(c->data, 1);               /* the 32-bit guest's page */
    assert_int_equal(c->l1 + c->l2 + c->l3 + c->l4, 4);
    assert_int_equal(c->shared, 1);
    assert_int_equal(c->dom0, 1);
    assert_int_equal(c->offlined, 1);
    assert_int_equal(c->broken, 1);
    assert_int_equal(c->hole, 1);
    assert_int_equal(c->ambiguous, 2);          /* one ambiguous, one of a domain that nobody listed */
    struct hv_plan_domain *pv = plan_domain(&f.plan, 1);
    assert_non_null(pv);
    assert_int_equal(pv->mover, HV_MOVER_PV);
    assert_int_equal(pv->pages_in_range, 6);
    assert_int_equal(pv->tables_in_range, 4);
    assert_int_equal(pv->tables_total, 77);
    assert_int_equal(plan_domain(&f.plan, 3)->mover, HV_MOVER_NONE);
    assert_int_equal(plan_domain(&f.plan, 3)->pages_movable, 0);
    assert_int_equal(plan_domain(&f.plan, 0)->mover, HV_MOVER_NONE);
    assert_null(plan_domain(&f.plan, 99));
    assert_string_equal(f.plan.refusal, "");
    close_plan(&f);
}

static void test_superpages(void **state)
{
    (void)state;
    struct fixture f;
    enum { PAGES = 4 * FS_SP_PAGES };
    struct hv_frame *frames = calloc(PAGES, sizeof(*frames));
    assert_non_null(frames);
    for (unsigned i = 0; i < PAGES; i++) {
        frames[i] = frame(HV_FRAME_DOMAIN, 2, 10 * FS_SP_PAGES + i, HV_TYPE_NONE);
    }
    frames[FS_SP_PAGES + 5].gfn = 3;                            /* second: broken in the middle */
    for (unsigned i = 0; i < FS_SP_PAGES; i++) {
        frames[2 * FS_SP_PAGES + i].gfn += 1;                   /* third: contiguous but not aligned in gfns */
    }
    open_plan(&f, 8 * FS_SP_PAGES, PAGES);
    feed(&f, 8 * FS_SP_PAGES, frames, PAGES);
    assert_int_equal(plan_domain(&f.plan, 2)->superpages_in_range, 2);      /* first and fourth */
    close_plan(&f);
    free(frames);
}

static void test_no_room_names_missing_pages(void **state)
{
    (void)state;
    struct fixture f;
    struct hv_frame frames[5000];
    for (unsigned i = 0; i < 5000; i++) {
        frames[i] = frame(HV_FRAME_DOMAIN, 1, i, HV_TYPE_NONE);
    }
    struct hv_host host = host_with(2024, 512, 2);              /* 1024 are kept on each node */
    open_plan(&f, 0x10000, 5000);
    feed(&f, 0x10000, frames, 5000);
    f.unowned[1] = 512;                                         /* node 1's free frames lie in the range: no room */
    assert_int_equal(plan_finish(&f.plan, &host, f.unowned, &f.options, &f.cost), FS_OK);
    assert_int_equal(f.plan.refusal_status, FS_NO_ROOM);
    assert_int_equal(f.plan.room_free_pages, 1000);
    assert_int_equal(f.plan.room_missing_pages, f.plan.room_needed_pages - 1000);
    assert_true(f.plan.room_needed_pages >= 5000);
    char words[40];
    snprintf(words, sizeof(words), "%llu pages", (unsigned long long)f.plan.room_missing_pages);
    assert_non_null(strstr(f.plan.refusal, words));
    close_plan(&f);
}

static void test_one_pcpu_is_refused_for_pv_only(void **state)
{
    (void)state;
    struct fixture f;
    struct hv_frame pv = frame(HV_FRAME_DOMAIN, 1, 1, HV_TYPE_NONE), hap = frame(HV_FRAME_DOMAIN, 2, 1, HV_TYPE_NONE);
    struct hv_host host = host_with(100000, 0, 1);
    open_plan(&f, 0x10000, 1);
    feed(&f, 0x10000, &pv, 1);
    assert_int_equal(plan_finish(&f.plan, &host, f.unowned, &f.options, &f.cost), FS_OK);
    assert_int_equal(f.plan.refusal_status, FS_UNSUPPORTED);
    close_plan(&f);
    open_plan(&f, 0x10000, 1);
    feed(&f, 0x10000, &hap, 1);
    assert_int_equal(plan_finish(&f.plan, &host, f.unowned, &f.options, &f.cost), FS_OK);
    assert_string_equal(f.plan.refusal, "");
    close_plan(&f);
    host.pcpu0_marking_hangs = false;
    open_plan(&f, 0x10000, 1);
    feed(&f, 0x10000, &pv, 1);
    assert_int_equal(plan_finish(&f.plan, &host, f.unowned, &f.options, &f.cost), FS_OK);
    assert_string_equal(f.plan.refusal, "");
    close_plan(&f);
}

static void test_excluded_guest_is_blocked_whole(void **state)
{
    (void)state;
    struct fixture f;
    const uint16_t exclude[] = { 1 };
    struct hv_frame frames[10];
    for (unsigned i = 0; i < 10; i++) {
        frames[i] = frame(HV_FRAME_DOMAIN, 1, i, HV_TYPE_NONE);
    }
    struct hv_host host = host_with(0, 0, 2);
    open_plan(&f, 0x10000, 10);
    f.options = (struct plan_options){ .exclude = exclude, .exclude_count = 1 };
    feed(&f, 0x10000, frames, 10);
    assert_int_equal(plan_finish(&f.plan, &host, f.unowned, &f.options, &f.cost), FS_OK);
    assert_int_equal(plan_domain(&f.plan, 1)->mover, HV_MOVER_NONE);
    assert_int_equal(plan_domain(&f.plan, 1)->pages_blocked, 10);
    assert_int_equal(f.plan.room_needed_pages, 0);
    assert_string_equal(f.plan.refusal, "");                    /* nothing moves: no room is needed */
    close_plan(&f);
}

static void test_blockers_count_once_and_sort(void **state)
{
    (void)state;
    struct fixture f;
    struct hv_frame frames[10];
    for (unsigned i = 0; i < 10; i++) {
        frames[i] = frame(HV_FRAME_DOMAIN, 1, i, HV_TYPE_NONE);
    }
    struct hv_host host = host_with(100000, 0, 2);
    open_plan(&f, 0x10000, 10);
    feed(&f, 0x10000, frames, 10);
    assert_int_equal(plan_block(&f.plan, 1, mfn_make(0x10007), 7, FS_REASON_CONSOLE_RING), FS_OK);
    assert_int_equal(plan_block(&f.plan, 1, mfn_make(0x10002), 2, FS_REASON_XENSTORE_RING), FS_OK);
    assert_int_equal(plan_block(&f.plan, 1, mfn_make(0x10002), 2, FS_REASON_GRANTED), FS_OK);
    assert_int_equal(plan_finish(&f.plan, &host, f.unowned, &f.options, &f.cost), FS_OK);
    assert_int_equal(f.plan.blocker_count, 2);
    assert_int_equal(f.plan.blockers[0].frame, 0x10002);
    assert_int_equal(f.plan.blockers[0].reason, FS_REASON_XENSTORE_RING);
    assert_int_equal(plan_domain(&f.plan, 1)->pages_movable, 8);
    close_plan(&f);
}

static void test_blackout_splits_into_suspends(void **state)
{
    (void)state;
    struct fixture f;
    struct hv_frame frames[4000];
    for (unsigned i = 0; i < 4000; i++) {
        frames[i] = frame(HV_FRAME_DOMAIN, 1, i, HV_TYPE_NONE);
    }
    struct hv_host host = host_with(100000, 0, 2);
    open_plan(&f, 0x10000, 4000);
    feed(&f, 0x10000, frames, 4000);
    plan_domain_pv(&f.plan, 1, 0, 100);
    f.cost.type_scan_ns_per_frame = 1000;
    assert_int_equal(plan_finish(&f.plan, &host, f.unowned, &f.options, &f.cost), FS_OK);
    uint64_t whole = plan_domain(&f.plan, 1)->blackout_ns;
    assert_int_equal(plan_domain(&f.plan, 1)->suspends, 1);
    assert_true(whole > 0);
    close_plan(&f);
    open_plan(&f, 0x10000, 4000);
    feed(&f, 0x10000, frames, 4000);
    plan_domain_pv(&f.plan, 1, 0, 100);
    f.cost.type_scan_ns_per_frame = 1000;
    f.options.max_blackout_ns = whole / 2;
    assert_int_equal(plan_finish(&f.plan, &host, f.unowned, &f.options, &f.cost), FS_OK);
    assert_true(plan_domain(&f.plan, 1)->suspends >= 2);
    assert_true(plan_domain(&f.plan, 1)->blackout_ns <= whole / 2);
    close_plan(&f);
}

static void test_counts_against_model(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 200; seed++) {
        struct fixture f;
        struct hv_frame frames[700];
        uint64_t per_domain[4] = { 0 }, unowned = 0;
        srand(seed);
        for (unsigned i = 0; i < 700; i++) {
            uint16_t d = (uint16_t)(rand() % 4);
            if (rand() % 3 == 0) {
                frames[i] = frame(HV_FRAME_UNOWNED, 0, FS_FRAME_NONE, HV_TYPE_NONE);
                unowned++;
            } else {
                frames[i] = frame(HV_FRAME_DOMAIN, d, (uint64_t)rand(), d == 1 ? (enum hv_frame_type)(rand() % 5) : HV_TYPE_NONE);
                per_domain[d]++;
            }
        }
        struct hv_host host = host_with(100000, 100000, 2);
        open_plan(&f, 0x10000, 700);
        feed(&f, 0x10000, frames, 300);
        feed(&f, 0x10000 + 300, frames + 300, 400);
        assert_int_equal(plan_finish(&f.plan, &host, f.unowned, &f.options, &f.cost), FS_OK);
        const struct hv_counts *c = &f.plan.counts;
        if (c->free_or_xen != unowned || c->dom0 != per_domain[0] ||
            c->total != c->free_or_xen + c->data + c->l1 + c->l2 + c->l3 + c->l4 + c->p2m + c->shared + c->dom0 + c->offlined +
                        c->broken + c->hole + c->ambiguous) {
            fail_msg("seed %u: counts do not add up", seed);
        }
        for (uint16_t d = 1; d < 4; d++) {
            const struct hv_plan_domain *e = plan_domain(&f.plan, d);
            if (e == NULL || e->pages_in_range != per_domain[d] || e->pages_in_range != e->pages_movable + e->pages_blocked) {
                fail_msg("seed %u: domain %u", seed, d);
            }
        }
        close_plan(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds_and_movers),
        cmocka_unit_test(test_superpages),
        cmocka_unit_test(test_no_room_names_missing_pages),
        cmocka_unit_test(test_one_pcpu_is_refused_for_pv_only),
        cmocka_unit_test(test_excluded_guest_is_blocked_whole),
        cmocka_unit_test(test_blockers_count_once_and_sort),
        cmocka_unit_test(test_blackout_splits_into_suspends),
        cmocka_unit_test(test_counts_against_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
