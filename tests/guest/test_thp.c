/*
 * test_thp.c - transparent huge pages one step at a time, on both kinds of machine (a leaf of level 2, and 512 entries): who gets one, what cuts it,
 * what keeps it whole, and flushes that are forgotten.
 */
#include "cache_check.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "guest_fault.h"
#include "pgtable.h"
#include "reclaim.h"
#include "rmap.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RAM_PAGES 8192u
#define VA        0x40000000ull
#define PAGE      ((uint64_t)FS_PAGE_BYTES)

static struct guest g;
static struct mm_struct *mm;

static uint64_t pattern(uint64_t page, uint64_t salt) { return (page + 1) * 0x9e3779b97f4a7c15ull ^ salt; }

static void fill(struct mm_struct *of, uint64_t va, uint64_t pages, uint64_t salt)
{
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t word = pattern(i, salt);

        assert_int_equal(vm_user_write(of, va + i * PAGE + i % 500 * 8, &word, sizeof(word)), MM_OK);
    }
}

static bool right(struct mm_struct *of, uint64_t va, uint64_t first, uint64_t pages, uint64_t salt)
{
    for (uint64_t i = first; i < first + pages; i++) {
        uint64_t word = 0;

        if (vm_user_read(of, va + i * PAGE + i % 500 * 8, &word, sizeof(word)) != MM_OK || word != pattern(i, salt)) {
            return false;
        }
    }
    return true;
}

static void map(uint64_t units, bool wanted)
{
    uint64_t va = VA;

    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    assert_int_equal(vm_mmap(mm, &va, units * HUGE_BYTES, VM_ACCESS, NULL, 0), MM_OK);
    if (wanted) {
        assert_int_equal(vm_madvise(mm, va, units * HUGE_BYTES, MADV_HUGEPAGE), MM_OK);
    }
}

/* Is what lies at va mapped as one? */
static bool whole(struct mm_struct *of, uint64_t va)
{
    uint64_t pages;
    struct page *p = follow_unit(of, va, &pages);

    if (p != NULL) {
        page_put(&g.f.mm, p);
    }
    return p != NULL && page_order(p) == HUGE_ORDER;
}

static struct page *head(struct mm_struct *of, uint64_t va)
{
    uint64_t pages;
    struct page *p = follow_unit(of, va, &pages);

    assert_true(p != NULL && page_is_thp(p));
    page_put(&g.f.mm, p);
    return p;
}

static uint64_t count(enum vm_counter c) { return vm_counter(&g.vm, c); }

static void on_both(void (*fn)(void))
{
    for (unsigned i = 0; i < 2; i++) {
        arch_hosted_set_leaf(i == 0);
        guest_init(&g, RAM_PAGES, 4, 4096);
        fn();
        arch_hosted_set_cpu(0);
        guest_check(&g, i);
        check_caches(&g, i);
        guest_free(&g);
    }
    arch_hosted_set_leaf(true);
}

/* ---- who gets one ---- */

static void policies(void)
{
    static const struct { enum thp_policy policy; int advice; bool huge; } cases[] = {
        { THP_MADVISE, -1, false }, { THP_MADVISE, MADV_HUGEPAGE, true }, { THP_ALWAYS, -1, true }, { THP_ALWAYS, MADV_NOHUGEPAGE, false },
        { THP_NEVER, MADV_HUGEPAGE, false },
    };
    uint64_t va = 0, word = 1, before;
    mm_status_t status;

    for (size_t i = 0; i < FS_ARRAY_SIZE(cases); i++) {
        thp_set_policy(&g.vm, cases[i].policy);
        map(1, false);
        if (cases[i].advice >= 0) {
            assert_int_equal(vm_madvise(mm, VA, HUGE_BYTES, (enum vm_advice)cases[i].advice), MM_OK);
        }
        assert_int_equal(vm_user_write(mm, VA + 77 * PAGE, &word, 8), MM_OK);
        assert_int_equal(whole(mm, VA), cases[i].huge);
        assert_int_equal(mm->rss, cases[i].huge ? HUGE_PAGES : 1);
        mm_put(mm);
    }
    thp_set_policy(&g.vm, THP_ALWAYS);
    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    assert_int_equal(vm_mmap(mm, &va, 3 * HUGE_BYTES - PAGE, VM_ACCESS, NULL, 0), MM_OK);
    assert_int_equal(va % HUGE_BYTES, 0);
    assert_int_equal(vm_user_write(mm, va + 2 * HUGE_BYTES, &word, 8), MM_OK);          /* its end is not covered */
    assert_int_equal(mm->rss, 1);
    assert_int_equal(vm_user_read(mm, va, &word, 8), MM_OK);
    assert_int_equal(word, 0);
    assert_int_equal(mm->rss, 1 + HUGE_PAGES);
    assert_int_equal(vm_madvise(mm, va + 1, PAGE, MADV_HUGEPAGE), MM_EINVAL);
    assert_int_equal(vm_madvise(mm, va, 4 * HUGE_BYTES, MADV_HUGEPAGE), MM_EINVAL);
    mm_put(mm);
    /* Nothing whole is free: small pages, and nobody notices. */
    map(1, true);
    before = count(VMC_thp_fault_fallback);
    for (uint64_t n = 1; n < 12 && count(VMC_thp_fault_fallback) == before; n++) {
        page_alloc_fail_nth(n);
        status = vm_user_write(mm, VA, &word, 8);
        page_alloc_fail_nth(0);
        assert_true(status == MM_OK || status == MM_ENOMEM);
        if (mm->rss != 0 && count(VMC_thp_fault_fallback) == before) {
            mm_put(mm);
            map(1, true);
        }
    }
    assert_int_equal(count(VMC_thp_fault_fallback), before + 1);
    assert_int_equal(mm->rss, 1);
    mm_put(mm);
}

/* ---- what cuts it, what keeps it whole ---- */

static void parts(void)
{
    map(2, true);
    fill(mm, VA, 2 * HUGE_PAGES, 1);
    assert_true(whole(mm, VA) && whole(mm, VA + HUGE_BYTES));
    assert_int_equal(vm_mprotect(mm, VA, HUGE_BYTES, VM_READ), MM_OK);
    assert_int_equal(vm_mprotect(mm, VA, HUGE_BYTES, 0), MM_OK);
    assert_int_equal(vm_mprotect(mm, VA, HUGE_BYTES, VM_ACCESS), MM_OK);
    assert_int_equal(vm_mlock(mm, VA, 2 * HUGE_BYTES), MM_OK);
    assert_true(page_test(head(mm, VA), PG_MLOCKED) && head(mm, VA)->lru_list == LRU_UNEVICTABLE);
    assert_true(right(mm, VA, 0, 2 * HUGE_PAGES, 1));
    assert_int_equal(count(VMC_thp_split), 0);
    assert_int_equal(vm_munlock(mm, VA + 9 * PAGE, PAGE), MM_OK);
    assert_int_equal(count(VMC_thp_split), 1);
    assert_false(whole(mm, VA));
    assert_int_equal(vm_munlock(mm, VA, 2 * HUGE_BYTES), MM_OK);
    assert_int_equal(vm_munmap(mm, VA + HUGE_BYTES + 100 * PAGE, PAGE), MM_OK);
    assert_int_equal(count(VMC_thp_split), 2);
    assert_int_equal(mm->rss, 2 * HUGE_PAGES - 1);
    assert_true(right(mm, VA, 0, HUGE_PAGES + 100, 1) && right(mm, VA, HUGE_PAGES + 101, HUGE_PAGES - 101, 1));
    mm_put(mm);
}

static void forks(void)
{
    struct mm_struct *child, *other;
    struct page *keep[RAM_PAGES / PAGEBLOCK_PAGES];
    uint32_t n = 0;

    map(1, true);
    fill(mm, VA, HUGE_PAGES, 2);
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    assert_int_equal(mm_fork(mm, &other), MM_OK);
    assert_true(head(mm, VA) == head(child, VA) && head(mm, VA)->mapcount == 3);
    fill(child, VA, HUGE_PAGES, 3);                     /* a copy as a whole */
    assert_true(whole(child, VA) && head(child, VA) != head(mm, VA) && count(VMC_thp_cow) == 1);
    assert_true(right(child, VA, 0, HUGE_PAGES, 3) && right(mm, VA, 0, HUGE_PAGES, 2));
    while ((keep[n] = alloc_pages(&g.f.mm, GFP_TRANSHUGE & ~__GFP_DIRECT_RECLAIM, HUGE_ORDER)) != NULL) {
        n++;
    }
    fill(mm, VA, 3, 4);                                 /* no whole block is free: small copies of what is written */
    assert_true(count(VMC_thp_cow_fallback) == 1 && !whole(mm, VA) && !whole(other, VA) && whole(child, VA));
    assert_true(right(mm, VA, 0, 3, 4) && right(mm, VA, 3, HUGE_PAGES - 3, 2) && right(other, VA, 0, HUGE_PAGES, 2));
    while (n > 0) {
        page_put(&g.f.mm, keep[--n]);
    }
    mm_put(mm);
    fill(other, VA, HUGE_PAGES, 5);
    assert_true(right(other, VA, 0, HUGE_PAGES, 5));
    mm_put(other);
    mm_put(child);
}

/* Reclaim of the range: cut, swapped out, and back. */
static void swaps(void)
{
    pfn_t pfn;

    map(1, true);
    fill(mm, VA, HUGE_PAGES, 6);
    pfn = page_pfn(head(mm, VA));
    (void)reclaim_range(&g.vm, pfn, pfn_make(pfn.n + HUGE_PAGES), 0);       /* cuts it */
    (void)reclaim_range(&g.vm, pfn, pfn_make(pfn.n + HUGE_PAGES), 0);
    assert_true(count(VMC_thp_split) == 1 && mm->swap_entries > HUGE_PAGES - 8);
    assert_true(right(mm, VA, 0, HUGE_PAGES, 6));
    mm_put(mm);
}

static void references(void)
{
    struct mm_struct *child;
    struct page *p, *part;

    map(1, true);
    fill(mm, VA, HUGE_PAGES, 7);
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    p = head(mm, VA);
    page_get(p);                                        /* somebody else's */
    page_get(p);
    page_lock(p);
    assert_int_equal(split_huge_page(&g.vm, p, 1), MM_EAGAIN);
    page_unlock(p);
    assert_true(whole(mm, VA) && whole(child, VA) && p->mapcount == 2 && page_refs(p) == 4);
    page_put(&g.f.mm, p);
    page_lock(p);
    assert_int_equal(split_huge_page(&g.vm, p, 1), MM_OK);
    assert_true(page_test(p, PG_LOCKED) && page_order(p) == 0 && page_refs(p) == 3);
    page_unlock(p);
    page_put(&g.f.mm, p);
    for (uint32_t i = 0; i < HUGE_PAGES; i++) {
        assert_true(p[i].mapcount == 2 && page_refs(&p[i]) == 2 && page_test(&p[i], PG_LRU) && p[i].index == p->index + i);
    }
    assert_true(right(mm, VA, 0, HUGE_PAGES, 7) && right(child, VA, 0, HUGE_PAGES, 7));
    mm_put(child);
    mm_put(mm);
    /* follow_page() gives a part that may be kept. */
    map(1, true);
    fill(mm, VA, HUGE_PAGES, 8);
    part = follow_page(mm, VA + 5 * PAGE);
    assert_true(part != NULL && page_order(part) == 0 && !whole(mm, VA));
    assert_int_equal(vm_munmap(mm, VA, HUGE_BYTES), MM_OK);
    assert_int_equal(page_refs(part), 1);
    page_put(&g.f.mm, part);
    mm_put(mm);
}

/* ---- moving ---- */

static struct page *any_target(void *ctx, struct page *from, size_t i)
{
    (void)i;
    return *(bool *)ctx ? alloc_pages(&g.f.mm, GFP_TRANSHUGE, page_order(from))
                        : page_order(from) == 0 ? alloc_pages(&g.f.mm, GFP_HIGH_MOVABLE, 0) : NULL;
}

static void moves(void)
{
    struct migrate_item item;
    struct migrate_result result;
    struct mm_struct *child;
    bool room = true;
    struct page *p;
    uint64_t pages;

    map(1, true);
    fill(mm, VA, HUGE_PAGES, 9);
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    p = follow_unit(mm, VA, &pages);
    item = (struct migrate_item){ .from = p };
    assert_int_equal(migrate_pages(&g.vm, &item, 1, any_target, &room, MIGRATE_SYNC, &result), MM_OK);
    assert_true(whole(mm, VA) && whole(child, VA) && head(mm, VA) == head(child, VA) && head(mm, VA) != p && count(VMC_thp_migrate) == 1);
    assert_true(right(mm, VA, 0, HUGE_PAGES, 9) && right(child, VA, 0, HUGE_PAGES, 9));
    room = false;
    p = follow_unit(mm, VA, &pages);
    item = (struct migrate_item){ .from = p };
    assert_int_equal(migrate_pages(&g.vm, &item, 1, any_target, &room, MIGRATE_SYNC, &result), MM_OK);
    assert_true(!whole(mm, VA) && !whole(child, VA) && count(VMC_thp_migrate_split) == 1);
    assert_true(right(mm, VA, 0, HUGE_PAGES, 9) && right(child, VA, 0, HUGE_PAGES, 9));
    mm_put(child);
    mm_put(mm);
}

/* A block that is one huge page is no whole block for having been cut into kernel holes. */
static void compaction_leaves_them(void)
{
    static struct page *kernel[4 * PAGEBLOCK_PAGES];

    map(2, true);
    fill(mm, VA, 2 * HUGE_PAGES, 14);
    for (uint32_t i = 0; i < FS_ARRAY_SIZE(kernel); i++) {
        kernel[i] = alloc_pages(&g.f.mm, GFP_KERNEL, 0);
        assert_non_null(kernel[i]);
    }
    for (uint32_t i = 0; i < FS_ARRAY_SIZE(kernel); i++) {
        if (i % 8 != 0) {                               /* holes enough for three blocks */
            page_put(&g.f.mm, kernel[i]);
        }
    }
    (void)compact_all(&g.f.mm, TARGET_ANY);
    assert_true(whole(mm, VA) && whole(mm, VA + HUGE_BYTES) && count(VMC_thp_split) == 0);
    assert_true(right(mm, VA, 0, 2 * HUGE_PAGES, 14));
    for (uint32_t i = 0; i < FS_ARRAY_SIZE(kernel); i += 8) {
        page_put(&g.f.mm, kernel[i]);
    }
    mm_put(mm);
}

/* ---- collapse ---- */

static void collapses(void)
{
    struct mm_struct *child;
    struct page *held;
    uint64_t word;

    map(1, false);
    fill(mm, VA, THP_COLLAPSE_PRESENT - 1, 10);
    assert_int_equal(thp_collapse(mm, VA), MM_EINVAL);                          /* not wanted */
    assert_int_equal(vm_madvise(mm, VA, HUGE_BYTES, MADV_HUGEPAGE), MM_OK);
    assert_int_equal(thp_collapse(mm, VA + 3 * PAGE), MM_EINVAL);               /* too few */
    fill(mm, VA, 200, 10);
    held = follow_page(mm, VA + 17 * PAGE);
    assert_int_equal(thp_collapse(mm, VA), MM_EAGAIN);
    page_put(&g.f.mm, held);
    assert_true(!whole(mm, VA) && mm->rss == 200);
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    assert_int_equal(thp_collapse(mm, VA), MM_EINVAL);                          /* shared */
    mm_put(child);
    arch_hosted_fail_nth(1);                                                    /* the machine refuses the new entry */
    assert_int_equal(thp_collapse(mm, VA), MM_ENOMEM);
    arch_hosted_fail_nth(0);
    assert_true(right(mm, VA, 0, 200, 10) && !whole(mm, VA));
    assert_int_equal(khugepaged_scan(&g.vm, 5), 1);
    assert_true(whole(mm, VA) && mm->rss == HUGE_PAGES && count(VMC_thp_collapse) == 1);
    assert_true(right(mm, VA, 0, 200, 10));
    assert_int_equal(vm_user_read(mm, VA + 300 * PAGE, &word, 8), MM_OK);
    assert_int_equal(word, 0);
    assert_int_equal(thp_collapse(mm, VA), MM_EINVAL);                          /* it is one */
    assert_int_equal(khugepaged_scan(&g.vm, 5), 0);
    fill(mm, VA, HUGE_PAGES, 11);
    assert_true(right(mm, VA, 0, HUGE_PAGES, 11));
    mm_put(mm);
}

/* ---- forgotten flushes ---- */

/* Another CPU knows the translation; then something is done, with its flushes or without. */
enum what { MOVE, FORK, COLLAPSE, CUT_AND_MOVE, UNMAP };

static bool stale_shows(enum what what, bool drop)
{
    struct mm_struct *child = NULL;
    struct migrate_item item;
    struct migrate_result result;
    unsigned char byte = 0x77, seen = 0;
    bool room = true, shows;
    uint64_t pages, fault;

    map(1, what != COLLAPSE);
    fill(mm, VA, HUGE_PAGES, 12);
    assert_int_equal(vm_madvise(mm, VA, HUGE_BYTES, MADV_HUGEPAGE), MM_OK);
    arch_hosted_set_cpu(1);
    assert_int_equal(vm_user_write(mm, VA + 7 * PAGE, &seen, 1), MM_OK);
    arch_hosted_set_cpu(0);
    (void)arch_hosted_drop_flushes(drop ? UINT64_MAX : 0);
    if (what == MOVE || what == CUT_AND_MOVE) {
        item = (struct migrate_item){ .from = what == MOVE ? follow_unit(mm, VA, &pages) : follow_page(mm, VA + 7 * PAGE) };
        assert_int_equal(migrate_pages(&g.vm, &item, 1, any_target, &room, MIGRATE_SYNC, &result), MM_OK);
    } else if (what == FORK) {
        assert_int_equal(mm_fork(mm, &child), MM_OK);
    } else if (what == COLLAPSE) {
        assert_int_equal(thp_collapse(mm, VA), MM_OK);
    } else {
        assert_int_equal(vm_munmap(mm, VA, HUGE_BYTES), MM_OK);
    }
    (void)arch_hosted_drop_flushes(0);
    arch_hosted_set_cpu(1);
    if (what == UNMAP) {
        shows = arch_space_enter(mm->pgd) == 0 && arch_user_read(VA + 7 * PAGE, &seen, 1, &fault) == 0;
    } else {
        shows = vm_user_write(mm, VA + 7 * PAGE, &byte, 1) != MM_OK;
        arch_hosted_set_cpu(2);                         /* which has never seen the old one */
        shows |= vm_user_read(child != NULL ? child : mm, VA + 7 * PAGE, &seen, 1) != MM_OK || (seen == byte) == (child != NULL);
    }
    arch_hosted_set_cpu(0);
    mm_put(mm);
    if (child != NULL) {
        mm_put(child);
    }
    return shows;
}

static void flushes(void)
{
    for (enum what what = MOVE; what <= UNMAP; what++) {
        assert_false(stale_shows(what, false));
        assert_true(stale_shows(what, true));
    }
}

#define BOTH(name) static void test_##name(void **state) { (void)state; on_both(name); }
BOTH(policies)
BOTH(parts)
BOTH(forks)
BOTH(swaps)
BOTH(references)
BOTH(moves)
BOTH(compaction_leaves_them)
BOTH(collapses)
BOTH(flushes)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policies), cmocka_unit_test(test_parts), cmocka_unit_test(test_forks), cmocka_unit_test(test_swaps),
        cmocka_unit_test(test_references), cmocka_unit_test(test_moves), cmocka_unit_test(test_compaction_leaves_them),
        cmocka_unit_test(test_collapses), cmocka_unit_test(test_flushes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
