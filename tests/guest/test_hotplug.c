/* test_hotplug.c - memory leaves in whole extents, comes back, and what cannot leave stays usable. */
#include "guest_fixture.h"
#include "compaction.h"
#include "hotplug.h"
#include "isolation.h"
#include "pageblock.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

/* The hypervisor's side: which frames the guest has. */
struct host {
    bool *has;
    uint64_t pages, calls, fail_at;     /* the n-th call fails; 0: none */
};

static mm_status_t change(struct host *h, pfn_t pfn, unsigned order, bool give)
{
    if (h->fail_at != 0 && ++h->calls == h->fail_at) {
        return MM_EAGAIN;
    }
    for (uint64_t i = pfn.n; i < pfn.n + (1ull << order); i++) {
        assert_int_equal(h->has[i], give);          /* never twice, never what is not there */
        h->has[i] = !give;
    }
    return MM_OK;
}
static mm_status_t host_give(void *ctx, pfn_t pfn, unsigned order) { return change(ctx, pfn, order, true); }
static mm_status_t host_take(void *ctx, pfn_t pfn, unsigned order) { return change(ctx, pfn, order, false); }

static void setup(struct fixture *f, struct owners *o, struct host *h, struct hotplug_ops *ops, uint64_t pages)
{
    struct mm_range ram = { pfn_make(0), pfn_make(pages), 0 };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .cpus = 1, .policy = CLAIM_CLEAR_FIRST };

    fixture_init_config(f, &config, 0);
    assert_int_equal(compaction_init(&f->mm, &config), MM_OK);
    owners_init(o, &f->mm, (uint32_t)pages, 1);
    *h = (struct host){ .has = calloc(pages, sizeof(bool)), .pages = pages };
    for (uint64_t i = 0; i < pages; i++) {
        h->has[i] = true;
    }
    *ops = (struct hotplug_ops){ .give = host_give, .take = host_take, .ctx = h };
}

/* Nobody's page lies in a frame that is gone. */
static void check_frames(const struct fixture *f, const struct owners *o, const struct host *h)
{
    for (uint32_t i = 0; i < o->count; i++) {
        for (uint32_t k = 0; k < 1u << page_order(o->page_of[i]); k++) {
            assert_true(h->has[o->page_of[i]->pfn + k]);
        }
    }
    for (uint64_t pfn = 0; pfn < h->pages; pfn++) {
        bool gone = mm_block(&f->mm, pfn_block(pfn_make(pfn)))->offline || page_state(mm_page(&f->mm, pfn_make(pfn))) == PAGE_HOLE;
        assert_int_equal(h->has[pfn], !gone);
    }
    owners_check(o);
    check_mm(&f->mm, 0);
}

static void test_section_leaves_and_returns(void **state)
{
    struct fixture f;
    struct owners o;
    struct host h;
    struct hotplug_ops ops;
    struct hotplug_report r;

    (void)state;
    setup(&f, &o, &h, &ops, 65536);
    while (o.count < 25000) {
        assert_non_null(owners_alloc(&o, GFP_HIGH_MOVABLE, 0));
    }
    mm_block(&f.mm, 100)->flags |= PB_LENT;             /* a loan and its count end with the block */
    f.mm.zones[0].lent_blocks++;
    check_mm(&f.mm, 0);
    assert_int_equal(memory_offline(&f.mm, pfn_make(32768), pfn_make(65536), 0, &ops, &r, NULL), MM_OK);
    assert_int_equal(r.extents, 64);
    assert_int_equal(r.single_pages + r.residual_blocks, 0);
    assert_true(r.migrated_pages >= 25000);
    check_frames(&f, &o, &h);
    assert_int_equal(f.mm.zones[0].managed_pages, 32768);
    while (owners_alloc(&o, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0) != NULL) {
    }
    assert_int_equal(o.count, 32768);
    check_frames(&f, &o, &h);
    assert_int_equal(memory_offline(&f.mm, pfn_make(32768), pfn_make(65536), 0, &ops, &r, NULL), MM_OK);   /* gone already */
    assert_int_equal(r.extents, 0);
    assert_int_equal(memory_online(&f.mm, pfn_make(32768), pfn_make(65536), &ops, &r), MM_OK);
    assert_int_equal(r.extents, 64);
    check_frames(&f, &o, &h);
    assert_int_equal(mm_free_pages(&f.mm), 32768);
    owners_free(&o);
    free(h.has);
    fixture_free(&f);
}

static void test_residual(void **state)
{
    struct fixture f;
    struct owners o;
    struct host h;
    struct hotplug_ops ops;
    struct hotplug_report r;
    struct page *kernel[700], *stuck = NULL;

    (void)state;
    setup(&f, &o, &h, &ops, 32768);
    for (unsigned i = 0; i < 700; i++) {
        kernel[i] = alloc_pages(&f.mm, GFP_KERNEL, 0);
    }
    for (unsigned i = 0; i < 700; i++) {
        if (i % 100 != 0) {
            page_put(&f.mm, kernel[i]);
        }
    }
    for (unsigned i = 0; i < 3000; i++) {
        assert_non_null(owners_alloc(&o, GFP_HIGH_MOVABLE, i % 2));
    }
    assert_int_equal(memory_offline(&f.mm, pfn_make(0), pfn_make(4096), 0, &ops, &r, &stuck), MM_EBUSY);
    assert_true(stuck != NULL && page_type(stuck) == MIGRATE_UNMOVABLE);
    check_frames(&f, &o, &h);
    assert_int_equal(memory_offline(&f.mm, pfn_make(0), pfn_make(4096), OFFLINE_RESIDUAL_OK, &ops, &r, NULL), MM_OK);
    assert_int_equal(r.residual_pages, 7);
    assert_int_equal(r.extents * 512 + r.single_pages + r.residual_pages, 4096);
    check_frames(&f, &o, &h);
    page_put(&f.mm, kernel[0]);                         /* in use until now, and freed: it stays inside */
    check_frames(&f, &o, &h);
    assert_int_equal(memory_offline(&f.mm, pfn_make(0), pfn_make(4096), OFFLINE_RESIDUAL_OK, &ops, &r, NULL), MM_OK);
    assert_int_equal(r.single_pages, 1);
    assert_int_equal(r.residual_pages, 6);
    check_frames(&f, &o, &h);
    assert_int_equal(memory_online(&f.mm, pfn_make(0), pfn_make(4096), &ops, &r), MM_OK);
    check_frames(&f, &o, &h);
    for (uint64_t pfn = 0; pfn < h.pages; pfn++) {
        assert_true(h.has[pfn]);
    }
    for (unsigned i = 100; i < 700; i += 100) {
        page_put(&f.mm, kernel[i]);
    }
    while (o.count > 0) {
        owners_put(&o, 0);
    }
    mm_drain(&f.mm);
    assert_int_equal(mm_free_pages(&f.mm), 32768);
    check_mm(&f.mm, 0);
    owners_free(&o);
    free(h.has);
    fixture_free(&f);
}

/* The n-th call of the host fails, for every n: nothing is lost, and a second try completes. */
static void test_every_failure(void **state)
{
    bool failed = true;

    (void)state;
    for (uint64_t n = 1; failed; n += n < 20 ? 1 : 97) {
        struct fixture f;
        struct owners o;
        struct host h;
        struct hotplug_ops ops;
        struct hotplug_report r;
        struct page *kernel[600];
        mm_status_t status;

        setup(&f, &o, &h, &ops, 8192);
        for (unsigned i = 0; i < 600; i++) {
            kernel[i] = alloc_pages(&f.mm, GFP_KERNEL, 0);
        }
        for (unsigned i = 0; i < 600; i++) {
            if (i != 10 && i != 590) {
                page_put(&f.mm, kernel[i]);
            }
        }
        for (unsigned i = 0; i < 1000; i++) {
            assert_non_null(owners_alloc(&o, GFP_HIGH_MOVABLE, 0));
        }
        h.fail_at = n;
        status = memory_offline(&f.mm, pfn_make(0), pfn_make(4096), OFFLINE_RESIDUAL_OK, &ops, &r, NULL);
        failed = h.calls >= n;
        assert_int_equal(status, failed ? MM_EAGAIN : MM_OK);
        check_frames(&f, &o, &h);
        if (failed && n % 2 == 0) {                 /* on, or straight back */
            assert_int_equal(memory_offline(&f.mm, pfn_make(0), pfn_make(4096), OFFLINE_RESIDUAL_OK, &ops, &r, NULL), MM_OK);
            check_frames(&f, &o, &h);
        }
        h.calls = 0;
        h.fail_at = n;
        status = memory_online(&f.mm, pfn_make(0), pfn_make(4096), &ops, &r);
        assert_int_equal(status, h.calls >= n ? MM_EAGAIN : MM_OK);
        check_frames(&f, &o, &h);
        if (status != MM_OK) {
            assert_int_equal(memory_online(&f.mm, pfn_make(0), pfn_make(4096), &ops, &r), MM_OK);
            check_frames(&f, &o, &h);
        }
        for (uint64_t pfn = 0; pfn < h.pages; pfn++) {
            assert_true(h.has[pfn]);
        }
        page_put(&f.mm, kernel[10]);
        page_put(&f.mm, kernel[590]);
        while (o.count > 0) {
            owners_put(&o, 0);
        }
        mm_drain(&f.mm);
        assert_int_equal(mm_free_pages(&f.mm), 8192);
        check_mm(&f.mm, n);
        owners_free(&o);
        free(h.has);
        fixture_free(&f);
    }
}

static void test_refusals(void **state)
{
    struct fixture f;
    struct owners o;
    struct host h;
    struct hotplug_ops ops;
    struct hotplug_report r;

    (void)state;
    setup(&f, &o, &h, &ops, 8192);
    assert_int_equal(memory_offline(&f.mm, pfn_make(0), pfn_make(0), 0, &ops, &r, NULL), MM_EINVAL);
    assert_int_equal(memory_offline(&f.mm, pfn_make(100), pfn_make(1024), 0, &ops, &r, NULL), MM_EINVAL);
    assert_int_equal(memory_offline(&f.mm, pfn_make(0), pfn_make(1 << 20), 0, &ops, &r, NULL), MM_EINVAL);
    while (owners_alloc(&o, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0) != NULL) {
    }
    assert_int_equal(memory_offline(&f.mm, pfn_make(0), pfn_make(4096), 0, &ops, &r, NULL), MM_EAGAIN);    /* no room */
    assert_int_equal(r.extents, 0);
    check_frames(&f, &o, &h);
    owners_free(&o);
    free(h.has);
    fixture_free(&f);
}

/* The machine is slow: somebody isolates, and empties, the blocks that are on their way to it. */
struct slow { struct host host; struct fixture *f; unsigned refused; };

static mm_status_t slow_give(void *ctx, pfn_t pfn, unsigned order)
{
    struct slow *s = ctx;
    struct page *blocking = NULL;

    if (order == PAGEBLOCK_ORDER) {
        pfn_t block = pfn, end = pfn_make(pfn.n + PAGEBLOCK_PAGES), before = pfn_make(pfn.n - PAGEBLOCK_PAGES);

        assert_int_equal(isolate_range(&s->f->mm, block, end, ISOLATE_RESIDUAL, &blocking), MM_EBUSY);
        assert_ptr_equal(blocking, mm_page(&s->f->mm, pfn));
        assert_int_not_equal(isolate_range(&s->f->mm, before, end, ISOLATE_RESIDUAL, NULL), MM_OK);
        s->refused++;
    }
    return host_give(&s->host, pfn, order);
}

static void test_nobody_isolates_what_is_leaving(void **state)
{
    struct fixture f;
    struct owners o;
    struct slow s = { .f = &f };
    struct hotplug_ops ops;
    struct hotplug_report r;

    (void)state;
    setup(&f, &o, &s.host, &ops, 16384);
    ops.give = slow_give;
    ops.ctx = &s;                                       /* it begins with the host */
    assert_int_equal(memory_offline(&f.mm, pfn_make(4096), pfn_make(8192), 0, &ops, &r, NULL), MM_OK);
    assert_int_equal(memory_offline_free(&f.mm, 32, 4, &ops, &r), MM_OK);
    assert_int_equal(s.refused, 12);
    check_frames(&f, &o, &s.host);
    s.host.fail_at = 1;                                 /* refused: the block is everybody's again */
    assert_int_equal(memory_offline(&f.mm, pfn_make(8192), pfn_make(9216), 0, &ops, &r, NULL), MM_EAGAIN);
    s.host.fail_at = 1, s.host.calls = 0;
    assert_int_equal(memory_offline_free(&f.mm, 28, 1, &ops, &r), MM_EAGAIN);
    s.host.fail_at = 0;
    assert_int_equal(isolate_range(&f.mm, pfn_make(8192), pfn_make(9216), 0, NULL), MM_OK);
    assert_int_equal(isolate_undo(&f.mm, pfn_make(8192), pfn_make(9216)), MM_OK);
    assert_int_equal(isolate_range(&f.mm, block_pfn(27), block_pfn(28), 0, NULL), MM_OK);
    assert_int_equal(isolate_undo(&f.mm, block_pfn(27), block_pfn(28)), MM_OK);
    check_frames(&f, &o, &s.host);
    owners_free(&o);
    free(s.host.has);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_section_leaves_and_returns),
        cmocka_unit_test(test_residual),
        cmocka_unit_test(test_every_failure),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_nobody_isolates_what_is_leaving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
