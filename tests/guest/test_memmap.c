/*
 * test_memmap.c - struct pages leave with their section, are used for something else, and come again before it returns.
 *
 * Frames that were given back cannot be read here (mprotect), and every page that is allocated is overwritten: whoever looks at struct pages
 * that are gone crashes, or finds nonsense.
 */
#include "guest_memory.h"
#include "compaction.h"
#include "guest_fault.h"
#include "isolation.h"
#include "memmap.h"
#include "pageblock.h"
#include "shrink.h"
#include "vmstat.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#define SECTIONS 4u
#define PAGES    ((uint64_t)SECTIONS * SECTION_PAGES)

struct world {
    struct fixture f;
    struct owners o;
    struct hotplug_ops ops;
    bool has[PAGES];
    uint64_t calls, fail_at, extents;
};

static mm_status_t change(struct world *w, pfn_t pfn, unsigned order, bool give)
{
    if (w->fail_at != 0 && ++w->calls == w->fail_at) {
        return MM_EAGAIN;
    }
    for (uint64_t i = pfn.n; i < pfn.n + (1ull << order); i++) {
        assert_int_equal(w->has[i], give);
        w->has[i] = !give;
    }
    assert_int_equal(mprotect((unsigned char *)memory_base() + pfn.n * FS_PAGE_BYTES, FS_PAGE_BYTES << order,
                              give ? PROT_NONE : PROT_READ | PROT_WRITE), 0);
    w->extents += order > 0;
    return MM_OK;
}
static mm_status_t host_give(void *ctx, pfn_t pfn, unsigned order) { return change(ctx, pfn, order, true); }
static mm_status_t host_take(void *ctx, pfn_t pfn, unsigned order) { return change(ctx, pfn, order, false); }

static struct world *make(uint32_t nodes)
{
    static struct world w;

    memset(&w, 0, sizeof(w));
    memory_init_direct(&w.f, PAGES, 1, nodes);
    owners_init(&w.o, &w.f.mm, (uint32_t)PAGES, 1);
    memset(w.has, true, sizeof(w.has));
    w.ops = (struct hotplug_ops){ .give = host_give, .take = host_take, .ctx = &w, .machine_extents = &w.extents };
    return &w;
}

static void end(struct world *w)
{
    owners_free(&w->o);
    memory_free(&w->f);
}

static void scribble(const struct page *p, unsigned order)
{
    memset(arch_page_address(page_pfn(p)), 0xa5, FS_PAGE_BYTES << order);
}

static bool use(struct world *w, gfp_t gfp, unsigned order)
{
    struct page *p = owners_alloc(&w->o, gfp, order);

    if (p != NULL) {
        scribble(p, order);
    }
    return p != NULL;
}

static void check(const struct world *w, uint64_t seed)
{
    for (uint32_t i = 0; i < w->o.count; i++) {
        for (uint32_t k = 0; k < 1u << page_order(w->o.page_of[i]); k++) {
            assert_true(w->has[w->o.page_of[i]->pfn + k]);
        }
    }
    for (uint32_t s = 0; s < SECTIONS; s++) {
        bool all_gone = true;

        for (uint32_t b = s * SECTION_BLOCKS; b < (s + 1) * SECTION_BLOCKS; b++) {
            all_gone &= mm_block(&w->f.mm, b)->offline;
        }
        assert_int_equal(mm_pfn_valid(&w->f.mm, block_pfn(s * SECTION_BLOCKS)), !all_gone);
    }
    owners_check(&w->o);
    check_mm(&w->f.mm, seed);
}

static mm_status_t section(struct world *w, uint32_t s, bool away, unsigned flags, struct hotplug_report *r)
{
    pfn_t start = pfn_make((uint64_t)s * SECTION_PAGES), stop = pfn_make((s + 1ull) * SECTION_PAGES);

    return away ? memory_offline(&w->f.mm, start, stop, flags, &w->ops, r, NULL) : memory_online(&w->f.mm, start, stop, &w->ops, r);
}

/* From the top, section after section: each gives a whole block of struct pages, which is given to the machine in its turn. */
static void test_sections_from_the_top(void **state)
{
    struct world *w = make(1);
    struct mm *mm = &w->f.mm;
    uint64_t free_before = mm_free_pages(mm), maps = memmap_pages(mm), whole;
    struct hotplug_report r;

    (void)state;
    check(w, 0);
    assert_int_equal(maps, SECTIONS * MEMMAP_PAGES + 1);
    for (uint32_t s = SECTIONS; s-- > 1;) {
        whole = mm->zones[0].free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE];
        assert_int_equal(section(w, s, true, 0, &r), MM_OK);
        assert_int_equal(r.memmap_pages, MEMMAP_PAGES);
        assert_int_equal(mm->zones[0].free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE], whole - SECTION_BLOCKS + 1);
        assert_int_equal(mm_counter(mm, ZC_memmap_freed), (SECTIONS - s) * MEMMAP_PAGES);
        assert_int_equal(memmap_pages(mm), maps - (SECTIONS - s) * MEMMAP_PAGES);
        check(w, s);
        assert_int_equal(section(w, s, true, 0, &r), MM_OK);         /* gone already */
        assert_int_equal(r.extents + r.memmap_pages, 0);
    }
    while (use(w, GFP_HIGH_MOVABLE | __GFP_MEMALLOC, 0)) {          /* the old struct pages among them */
    }
    assert_int_equal(w->o.count, free_before - (SECTIONS - 1) * (SECTION_PAGES - MEMMAP_PAGES));
    check(w, 0);
    assert_int_equal(section(w, 2, false, 0, &r), MM_ENOMEM);        /* no room for its struct pages: nothing has changed */
    assert_int_equal(r.extents + r.memmap_pages + mm_counter(mm, ZC_memmap_taken), 0);
    assert_int_equal(mm_counter(mm, ZC_memmap_refused), 1);
    check(w, 0);
    for (uint32_t i = 0; i < 2000; i++) {                           /* room in pieces: a block is made by compaction */
        owners_put(&w->o, w->o.count * 5 / 8);
    }
    mm_drain(mm);
    assert_int_equal(section(w, 2, false, 0, &r), MM_OK);
    assert_int_equal(r.extents, SECTION_BLOCKS);
    assert_int_equal(r.memmap_pages, MEMMAP_PAGES);
    check(w, 0);
    assert_int_equal(memory_online(mm, pfn_make(0), pfn_make(PAGES), &w->ops, &r), MM_OK);
    check(w, 0);
    while (w->o.count > 0) {
        owners_put(&w->o, 0);
    }
    mm_drain(mm);
    assert_int_equal(mm_free_pages(mm), free_before);
    assert_int_equal(memmap_pages(mm), maps);
    check(w, 0);
    end(w);
}

/* shrink: what the struct pages lay in leaves as well, and says so. */
static void test_shrink_takes_the_maps_along(void **state)
{
    struct world *w = make(1);
    struct shrink_result r;

    (void)state;
    shrink_pages(&w->f.mm, 3 * SECTION_PAGES + 2 * PAGEBLOCK_PAGES, &w->ops, &r);
    assert_int_equal(r.pages, 3 * SECTION_PAGES + 2 * PAGEBLOCK_PAGES);
    assert_int_equal(r.sections, 3);
    assert_int_equal(r.memmap_pages, 3 * MEMMAP_PAGES);
    check(w, 0);
    shrink_pages(&w->f.mm, PAGES, &w->ops, &r);                     /* all that there is: blocks of old maps among it */
    assert_true(r.pages > SECTION_PAGES / 2);
    assert_true(mm_free_pages(&w->f.mm) >= MEMMAP_PAGES);
    check(w, 0);
    for (uint64_t pfn = 0, maps = 0; pfn < SECTION_PAGES; pfn += PAGEBLOCK_PAGES) {
        maps += pfn >= w->f.mm.memmap_gap_end && pfn < w->f.mm.memmap_gap_end + 3 * MEMMAP_PAGES && !w->has[pfn];
        assert_true(pfn != SECTION_PAGES - PAGEBLOCK_PAGES || maps > 0);
    }
    grow_pages(&w->f.mm, PAGEBLOCK_PAGES, &w->ops, &r);             /* in the section that is here */
    assert_int_equal(r.pages, PAGEBLOCK_PAGES);
    assert_int_equal(r.memmap_pages, 0);
    grow_pages(&w->f.mm, PAGES, &w->ops, &r);
    assert_int_equal(r.sections, 3);
    assert_int_equal(r.memmap_pages, 3 * MEMMAP_PAGES);
    for (uint64_t pfn = 0; pfn < PAGES; pfn++) {
        assert_true(w->has[pfn]);
    }
    check(w, 0);
    end(w);
}

/* A page that cannot move: its section keeps its struct pages until the page is freed. */
static void test_residual_keeps_them(void **state)
{
    struct world *w = make(1);
    struct mm *mm = &w->f.mm;
    struct hotplug_report r;
    struct page *p[3000], *stuck = NULL;
    uint32_t n = 0;

    (void)state;
    while (stuck == NULL || n < 3000) {                              /* movable, in the highest section, and then pinned */
        struct page *q = alloc_pages(mm, GFP_HIGH_MOVABLE, 0);

        stuck = stuck == NULL && q->pfn >= 3 * SECTION_PAGES ? q : stuck;
        if (q != stuck) {
            assert_true(n < 3000);
            p[n++] = q;
        }
    }
    while (n > 0) {
        page_put(mm, p[--n]);
    }
    page_set_flags(stuck, PG_PINNED);
    assert_int_equal(section(w, 3, true, 0, &r), MM_EBUSY);
    assert_int_equal(section(w, 3, true, OFFLINE_RESIDUAL_OK, &r), MM_OK);
    assert_int_equal(r.residual_pages, 1);
    assert_int_equal(r.memmap_pages, 0);
    assert_true(mm_pfn_valid(mm, page_pfn(stuck)));
    check(w, 0);
    page_clear_flags(stuck, PG_PINNED);
    page_put(mm, stuck);
    assert_int_equal(section(w, 3, true, OFFLINE_RESIDUAL_OK, &r), MM_OK);
    assert_int_equal(r.single_pages, 1);                             /* the last page went, its block page by page */
    assert_int_equal(r.memmap_pages, MEMMAP_PAGES);
    check(w, 0);
    assert_int_equal(section(w, 3, false, 0, &r), MM_OK);
    assert_int_equal(section(w, 3, true, 0, &r), MM_OK);
    assert_int_equal(r.memmap_pages, MEMMAP_PAGES);
    check(w, 0);
    end(w);
}

/* The n-th call of the host, or the allocation of the struct pages, fails: what was refused is as it was, and a second try completes. */
static void test_every_failure(void **state)
{
    bool failed = true;

    (void)state;
    for (uint64_t n = 1; failed; n += n < 4 || (n > 62 && n < 66) ? 1 : 20) {
        struct world *w = make(1);
        struct hotplug_report r;
        mm_status_t status;

        for (unsigned i = 0; i < 20000; i++) {
            assert_true(use(w, GFP_HIGH_MOVABLE, 0));
        }
        w->fail_at = n;
        status = memory_offline(&w->f.mm, pfn_make(2 * SECTION_PAGES), pfn_make(PAGES), 0, &w->ops, &r, NULL);
        failed = w->calls >= n;
        assert_int_equal(status, failed ? MM_EAGAIN : MM_OK);
        check(w, n);
        w->fail_at = 0;
        assert_int_equal(memory_offline(&w->f.mm, pfn_make(2 * SECTION_PAGES), pfn_make(PAGES), 0, &w->ops, &r, NULL), MM_OK);
        check(w, n);
        page_alloc_fail_nth(1);
        assert_int_equal(section(w, 3, false, 0, &r), MM_ENOMEM);
        assert_int_equal(page_alloc_calls(), 1);
        assert_int_equal(r.extents, 0);
        assert_false(mm_pfn_valid(&w->f.mm, pfn_make(3 * SECTION_PAGES)));
        check(w, n);
        page_alloc_fail_nth(2);                                      /* the first section comes, the second does not */
        assert_int_equal(memory_online(&w->f.mm, pfn_make(2 * SECTION_PAGES), pfn_make(PAGES), &w->ops, &r), MM_ENOMEM);
        assert_int_equal(r.extents, SECTION_BLOCKS);
        check(w, n);
        page_alloc_fail_nth(0);
        w->calls = 0;
        w->fail_at = n;
        status = section(w, 3, false, 0, &r);
        assert_int_equal(status, w->calls >= n ? MM_EAGAIN : MM_OK);
        assert_int_equal(mm_pfn_valid(&w->f.mm, pfn_make(3 * SECTION_PAGES)), n > 1);       /* nothing came: no struct pages either */
        assert_int_equal(r.memmap_pages, n > 1 ? MEMMAP_PAGES : 0);
        check(w, n);
        w->fail_at = 0;
        assert_int_equal(section(w, 3, false, 0, &r), MM_OK);
        check(w, n);
        end(w);
    }
}

/* Sections, blocks and pages come and go at random, on two nodes. */
static void test_random(void **state)
{
    uint64_t seed = test_seed(20261127);
    struct rng rng = { seed };
    struct world *w = make(2);
    struct mm *mm = &w->f.mm;
    struct hotplug_report r;
    uint64_t left = 0, came = 0, refused = 0;

    (void)state;
    for (unsigned step = 0; step < 400; step++) {
        uint32_t s = (uint32_t)rng_below(&rng, SECTIONS);
        uint32_t b = (uint32_t)rng_below(&rng, SECTIONS * SECTION_BLOCKS);

        switch (rng_below(&rng, 8)) {
        case 0:
        case 1:
            if (section(w, s, true, rng_below(&rng, 2) ? OFFLINE_RESIDUAL_OK : 0, &r) == MM_OK) {
                left += r.memmap_pages;
            }
            break;
        case 2:
        case 3:
            (void)section(w, s, false, 0, &r);
            came += r.memmap_pages;
            break;
        case 4:
            refused += memory_offline(mm, block_pfn(b), block_pfn(b + 1), 0, &w->ops, &r, NULL) != MM_OK;
            break;
        case 5:
            refused += memory_online(mm, block_pfn(b), block_pfn(b + 1), &w->ops, &r) != MM_OK;
            break;
        case 6:
            for (unsigned i = 0; i < 4000 && use(w, rng_below(&rng, 20) ? GFP_HIGH_MOVABLE : GFP_HIGH_MOVABLE | __GFP_MEMALLOC,
                                                 rng_below(&rng, 50) ? 0 : 4); i++) {
            }
            refused += isolate_test(mm, block_pfn(b), block_pfn(b + 1), NULL) != MM_OK;
            (void)compact_all(mm, TARGET_ANY);
            break;
        default:
            for (unsigned i = 0; i < 4000 && w->o.count > 0; i++) {
                owners_put(&w->o, (uint32_t)rng_below(&rng, w->o.count));
            }
            break;
        }
        if (step % 8 == 0) {
            check(w, seed);
        }
    }
    while (w->o.count > 0) {
        owners_put(&w->o, 0);
    }
    assert_int_equal(memory_online(mm, pfn_make(0), pfn_make(PAGES), &w->ops, &r), MM_OK);
    came += r.memmap_pages;
    check(w, seed);
    assert_true(left > 2 * MEMMAP_PAGES && came > 2 * MEMMAP_PAGES && refused > 10);
    end(w);
}

static void test_refused_where_boot_memory_is_elsewhere(void **state)
{
    struct mm_range ram = { pfn_make(0), pfn_make(SECTION_PAGES), 0 };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .cpus = 1, .direct_map = (void *)0x1000 };
    struct fixture f = { .boot = NULL };

    (void)state;
    assert_int_equal(fixture_try_init(&f, &config), MM_EINVAL);
    fixture_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sections_from_the_top),
        cmocka_unit_test(test_shrink_takes_the_maps_along),
        cmocka_unit_test(test_residual_keeps_them),
        cmocka_unit_test(test_every_failure),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_refused_where_boot_memory_is_elsewhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
