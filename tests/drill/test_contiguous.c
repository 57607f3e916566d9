/*
 * test_contiguous.c - regions for drivers: one piece of machine memory under pages, and single frames again; nothing is lost, whatever call fails.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include "drill/coop_guest.h"
#include "../../guest/mm/contiguous.h"
#include "../../guest/mm/page_alloc.h"
#include "../../guest/mm/relocate.h"

#define ORDER 4u
#define PAGES (1u << ORDER)

struct rig { struct emb_machine *m; struct coop_guest *c; struct guest *g; struct page *page; uint64_t free_pages; };

/* A unit with single frames under it: what the builder gave lies together, and what is exchanged for it comes downwards. */
static void make(struct rig *r)
{
    struct emb_config c = { .nodes = { { 8192, 0 }, { 8192, 0 } }, .node_count = 2, .seed = 3 };
    struct coop_guest_config g = { .name = "driver", .pages = 6144, .vcpus = 1, .any_node = true, .boot = { .seed = 3 } };
    *r = (struct rig){ .m = emb_machine_create(&c) };
    assert_non_null(r->m);
    assert_int_equal(coop_guest_create(r->m, &g, &r->c), 0);
    r->g = coop_guest_kernel(r->c);
    guest_cpu_become(&r->g->machine.cpu[0]);
    r->page = alloc_pages(r->g->mm, GFP_KERNEL | __GFP_COMP, ORDER);
    assert_non_null(r->page);
    assert_true(arch_frames_exchange(page_pfn(r->page), ORDER, false, 0));
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

static bool all_are(const struct page *page, unsigned char byte)
{
    const unsigned char *at = arch_page_address(page_pfn(page));
    for (size_t i = 0; i < PAGES * (size_t)FS_PAGE_BYTES; i++) {
        if (at[i] != byte) {
            return false;
        }
    }
    return true;
}

static bool in_one_piece(const struct page *page)
{
    mfn_t first = arch_pfn_mfn(page_pfn(page));
    for (uint64_t i = 0; i < PAGES; i++) {
        if (arch_pfn_mfn(pfn_make(page->pfn + i)).n != first.n + i) {
            return false;
        }
    }
    return first.n % PAGES == 0;
}

/* The rig's unit is free again, and the lowest of its kind: the next one. */
static mm_status_t create(struct rig *r, unsigned address_bits, struct contiguous *out)
{
    page_put(r->g->mm, r->page);
    r->page = NULL;
    return contiguous_create(r->g->mm, GFP_KERNEL, ORDER, address_bits, out);
}

static void there_and_back(void **state)
{
    struct rig r;
    struct contiguous c;
    (void)state;
    make(&r);
    assert_false(in_one_piece(r.page));
    assert_int_equal(create(&r, 40, &c), MM_OK);
    assert_true(c.exchanged && in_one_piece(c.page) && mfn_eq(c.frame, arch_pfn_mfn(page_pfn(c.page))) && all_are(c.page, 0));
    assert_true(contiguous_valid(&c) && page_test(c.page, PG_DMA));
    sane(&r);
    struct contiguous moved = c;
    moved.frame = mfn_add(c.frame, PAGES);                      /* what the check of a region is worth */
    assert_false(contiguous_valid(&moved));
    memset(arch_page_address(page_pfn(c.page)), 0x55, PAGES * (size_t)FS_PAGE_BYTES);
    struct page *was = c.page;
    assert_true(contiguous_destroy(r.g->mm, &c));
    assert_null(c.page);
    assert_false(in_one_piece(was));
    sane(&r);
    coop_guest_step(r.c, 50);
    sane(&r);
    end(&r);
}

/* Frames that lie right already are left where they are, at the end too: they may be a part of a larger piece. */
static void lies_right_already(void **state)
{
    struct rig r;
    struct contiguous c, again;
    (void)state;
    make(&r);
    assert_int_equal(create(&r, 0, &c), MM_OK);
    mfn_t frame = c.frame;
    c.exchanged = false;                                        /* as if the builder had given it */
    assert_true(contiguous_destroy(r.g->mm, &c));
    assert_int_equal(contiguous_create(r.g->mm, GFP_KERNEL, ORDER, 0, &again), MM_OK);
    assert_true(!again.exchanged && mfn_eq(again.frame, frame) && all_are(again.page, 0));
    assert_true(contiguous_destroy(r.g->mm, &again));
    sane(&r);
    end(&r);
}

/* A mover is told that a device has the pages; what a restore leaves is put right again. */
static void movers_and_restore(void **state)
{
    struct rig r;
    struct contiguous c;
    struct relocate_counts counts;
    struct relocate relocate;
    (void)state;
    make(&r);
    mfn_t to = arch_pfn_mfn(page_pfn(r.page));                  /* after the exchange nobody's, but that does not matter here */
    assert_int_equal(create(&r, 0, &c), MM_OK);
    struct relocate_entry e = { .pfn = page_pfn(c.page), .from = c.frame, .to = to };
    relocate_init(&relocate, r.g->mm, NULL);
    relocate_pages(&relocate, &e, 1, false, &counts);
    assert_int_equal(e.status, FS_ABI_ENTRY_DMA);
    assert_true(contiguous_valid(&c));
    assert_true(arch_frames_exchange(page_pfn(c.page), ORDER, false, 0));
    assert_false(contiguous_valid(&c));
    assert_int_equal(contiguous_restored(&c), MM_OK);
    assert_true(contiguous_valid(&c) && c.exchanged && all_are(c.page, 0));
    assert_true(contiguous_destroy(r.g->mm, &c));
    sane(&r);
    end(&r);
}

/* No piece of that size is free, none is below the limit, and a frame that somebody else holds: refused, frames and contents as before. */
static void refused(void **state)
{
    struct rig r;
    struct contiguous c;
    mfn_t before;
    uint16_t filler;
    (void)state;
    make(&r);
    before = arch_pfn_mfn(page_pfn(r.page));
    struct emb_core_config e = { .name = "filler", .pages = r.free_pages - 4, .vcpus = 1, .any_node = true };
    assert_int_equal(emb_core_create(r.m, &e, &filler), 0);
    r.free_pages = emb_free_pages(r.m);
    assert_false(arch_frames_exchange(page_pfn(r.page), ORDER, true, 0));
    assert_true(mfn_eq(before, arch_pfn_mfn(page_pfn(r.page))) && all_are(r.page, 0x77));
    sane(&r);
    emb_core_unmap(r.m, filler);
    assert_int_equal(emb_domain_destroy(r.m, filler), 0);
    r.free_pages = emb_free_pages(r.m);
    struct hv_backend *be = emb_backend(r.m);
    uint64_t frame = before.n;
    int page_err;
    void *map;
    assert_int_equal(be->ops->map(be, coop_guest_domid(r.c), &frame, 1, HV_MAP_READ, &page_err, &map, NULL), FS_OK);
    assert_false(arch_frames_exchange(page_pfn(r.page), ORDER, true, 0));
    assert_true(mfn_eq(before, arch_pfn_mfn(page_pfn(r.page))) && all_are(r.page, 0x77));
    be->ops->unmap(be, map, 1);
    be->ops->close(be);
    sane(&r);
    uint64_t in_guest = mm_free_pages(r.g->mm) + PAGES;
    assert_int_equal(create(&r, FS_PAGE_SHIFT + ORDER, &c), MM_EAGAIN);
    assert_null(c.page);
    assert_int_equal(mm_free_pages(r.g->mm), in_guest);
    assert_int_equal(contiguous_create(r.g->mm, GFP_KERNEL, ORDER, FS_PAGE_SHIFT, &c), MM_EINVAL);
    assert_int_equal(contiguous_create(r.g->mm, GFP_HIGH_MOVABLE, ORDER, 0, &c), MM_EINVAL);
    assert_int_equal(contiguous_create(r.g->mm, GFP_KERNEL, PAGEBLOCK_ORDER + 1, 0, &c), MM_EINVAL);
    assert_null(c.page);
    sane(&r);
    assert_int_equal(contiguous_create(r.g->mm, GFP_KERNEL, ORDER, 0, &c), MM_OK);
    sane(&r);
    end(&r);
}

static void each_hypercall_fails(void **state)
{
    unsigned refusals = 0, kept = 0;
    bool more = true;
    (void)state;
    for (uint64_t n = 1; more; n++) {
        struct rig r;
        struct contiguous c;
        make(&r);
        uint64_t pfn = r.page->pfn, free = mm_free_pages(r.g->mm) + PAGES;
        const struct page *page = r.page;
        uint64_t calls = coop_guest_hypercalls(r.c);
        coop_guest_fail_nth(r.c, n);
        mm_status_t created = create(&r, 0, &c);
        bool ok = created == MM_OK;
        refusals += !ok;
        assert_true(ok ? c.page->pfn == pfn && in_one_piece(c.page) && all_are(c.page, 0) : all_are(page, 0x77));
        kept += ok && !contiguous_destroy(r.g->mm, &c);
        assert_int_equal(mm_free_pages(r.g->mm), free);
        more = coop_guest_hypercalls(r.c) - calls >= n;
        coop_guest_fail_nth(r.c, 0);
        sane(&r);
        end(&r);
    }
    assert_true(refusals > 0 && kept > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(there_and_back), cmocka_unit_test(lies_right_already), cmocka_unit_test(movers_and_restore),
                                        cmocka_unit_test(refused), cmocka_unit_test(each_hypercall_fails) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
