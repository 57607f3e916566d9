/*
 * test_contiguous.c - one piece of machine memory under pages of a driver, and single frames again; nothing is lost, whatever call fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "drill/coop_guest.h"
#include "../../guest/arch/embedded/balloon.h"
#include "../../guest/mm/page_alloc.h"

#define ORDER 4u
#define PAGES (1u << ORDER)

struct rig { struct emb_machine *m; struct coop_guest *c; struct guest *g; struct page *page; uint64_t free_pages; };

static void make(struct rig *r)
{
    struct emb_config c = { .nodes = { { 8192, 0 }, { 8192, 0 } }, .node_count = 2, .seed = 3 };
    struct coop_guest_config g = { .name = "driver", .pages = 6144, .vcpus = 1, .any_node = true, .boot = { .seed = 3 } };
    *r = (struct rig){ .m = emb_machine_create(&c) };
    assert_non_null(r->m);
    assert_int_equal(coop_guest_create(r->m, &g, &r->c), 0);
    r->g = coop_guest_kernel(r->c);
    guest_cpu_become(&r->g->machine.cpu[0]);
    r->page = alloc_pages(r->g->mm, GFP_KERNEL, ORDER);
    assert_non_null(r->page);
    /* Frames that the builder gave lie together: first others, which the heap hands out downwards. */
    assert_int_equal(guest_contiguous_destroy(&r->g->machine, page_pfn(r->page), ORDER), MM_OK);
    memset(arch_page_address(page_pfn(r->page)), 0x77, PAGES * (size_t)FS_PAGE_BYTES);
    r->free_pages = emb_free_pages(r->m);
}

static void sane(struct rig *r)
{
    assert_int_equal(emb_fsck(r->m, stderr), 0);
    assert_int_equal(coop_guest_check(r->c, stderr), 0);
    assert_int_equal(emb_free_pages(r->m), r->free_pages);      /* as many came as went */
}

static void end(struct rig *r)
{
    coop_guest_destroy(r->c);
    emb_machine_destroy(r->m);
}

static bool all_are(struct rig *r, unsigned char byte)
{
    const unsigned char *at = arch_page_address(page_pfn(r->page));
    for (size_t i = 0; i < PAGES * (size_t)FS_PAGE_BYTES; i++) {
        if (at[i] != byte) {
            return false;
        }
    }
    return true;
}

static bool in_one_piece(struct rig *r, mfn_t first)
{
    for (uint64_t i = 0; i < PAGES; i++) {
        if (arch_pfn_mfn(pfn_make(r->page->pfn + i)).n != first.n + i) {
            return false;
        }
    }
    return first.n % PAGES == 0;
}

static void there_and_back(void **state)
{
    struct rig r;
    mfn_t first, again;
    (void)state;
    make(&r);
    assert_false(in_one_piece(&r, arch_pfn_mfn(page_pfn(r.page))));
    assert_int_equal(guest_contiguous_create(&r.g->machine, page_pfn(r.page), ORDER, &first), MM_OK);
    assert_true(in_one_piece(&r, first) && all_are(&r, 0));
    sane(&r);
    assert_int_equal(guest_contiguous_create(&r.g->machine, page_pfn(r.page), ORDER, &again), MM_OK);   /* it is one already */
    assert_true(mfn_eq(first, again));
    memset(arch_page_address(page_pfn(r.page)), 0x55, PAGES * (size_t)FS_PAGE_BYTES);
    assert_int_equal(guest_contiguous_destroy(&r.g->machine, page_pfn(r.page), ORDER), MM_OK);
    assert_true(all_are(&r, 0));
    sane(&r);
    page_put(r.g->mm, r.page);
    coop_guest_step(r.c, 50);
    sane(&r);
    end(&r);
}

/* No piece of that size is free, and a frame that somebody else holds: refused, frames and contents as before. */
static void refused(void **state)
{
    struct rig r;
    mfn_t first, before;
    uint16_t filler;
    (void)state;
    make(&r);
    before = arch_pfn_mfn(page_pfn(r.page));
    struct emb_core_config c = { .name = "filler", .pages = r.free_pages - 4, .vcpus = 1, .any_node = true };
    assert_int_equal(emb_core_create(r.m, &c, &filler), 0);
    r.free_pages = emb_free_pages(r.m);
    assert_int_equal(guest_contiguous_create(&r.g->machine, page_pfn(r.page), ORDER, &first), MM_EAGAIN);
    assert_true(mfn_is_none(first) && mfn_eq(before, arch_pfn_mfn(page_pfn(r.page))) && all_are(&r, 0x77));
    sane(&r);
    emb_core_unmap(r.m, filler);
    assert_int_equal(emb_domain_destroy(r.m, filler), 0);
    r.free_pages = emb_free_pages(r.m);
    struct hv_backend *be = emb_backend(r.m);
    uint64_t frame = before.n;
    int page_err;
    void *map;
    assert_int_equal(be->ops->map(be, coop_guest_domid(r.c), &frame, 1, HV_MAP_READ, &page_err, &map, NULL), FS_OK);
    assert_int_equal(guest_contiguous_create(&r.g->machine, page_pfn(r.page), ORDER, &first), MM_EAGAIN);
    assert_true(mfn_eq(before, arch_pfn_mfn(page_pfn(r.page))) && all_are(&r, 0x77));
    be->ops->unmap(be, map, 1);
    be->ops->close(be);
    sane(&r);
    assert_int_equal(guest_contiguous_create(&r.g->machine, page_pfn(r.page), ORDER, &first), MM_OK);
    sane(&r);
    end(&r);
}

static void each_hypercall_fails(void **state)
{
    unsigned refusals = 0;
    bool more = true;
    (void)state;
    for (uint64_t n = 1; more; n++) {
        struct rig r;
        mfn_t first;
        make(&r);
        uint64_t calls = coop_guest_hypercalls(r.c);
        coop_guest_fail_nth(r.c, n);
        mm_status_t created = guest_contiguous_create(&r.g->machine, page_pfn(r.page), ORDER, &first);
        bool ok = created == MM_OK;
        refusals += !ok;
        assert_true(ok ? in_one_piece(&r, first) && all_are(&r, 0) : all_are(&r, 0x77));
        mm_status_t destroyed = ok ? guest_contiguous_destroy(&r.g->machine, page_pfn(r.page), ORDER) : MM_OK;
        refusals += destroyed != MM_OK;
        more = coop_guest_hypercalls(r.c) - calls >= n;
        coop_guest_fail_nth(r.c, 0);
        sane(&r);
        end(&r);
    }
    assert_true(refusals > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(there_and_back), cmocka_unit_test(refused), cmocka_unit_test(each_hypercall_fails) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
