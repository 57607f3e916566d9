/*
 * test_vm_fsck.c - every fault that vm_fsck() knows is planted, found, and gone when it is taken back.
 *
 * A family of two processes, files, a locked vma, a page in the swap cache and one in its slot: then one word at a time is made wrong.
 */
#include "vm_world.h"
#include "anon_vma.h"
#include "arch_hosted.h"
#include "pgtable.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RAM_PAGES 2048u
#define VA        0x20000000ull
#define FILE_VA   0x20100000ull
#define LOCKED_VA 0x20200000ull
#define NONE_VA   0x30000000ull
#define PAGE      ((uint64_t)FS_PAGE_BYTES)

static struct guest g;
static struct mm_struct *mm, *child;
static struct store store;
static struct address_space as;
static uint64_t found[VM_FSCK_FAULTS];
static bool planted[VM_FSCK_FAULTS];

static void note(void *ctx, enum vm_fsck_fault fault, const struct vm_fsck_place *place, uint64_t is, uint64_t should_be)
{
    (void)ctx;
    (void)place;
    (void)is;
    (void)should_be;
    assert_true(fault < VM_FSCK_FAULTS);
    found[fault]++;
}

static uint64_t fsck(void)
{
    memset(found, 0, sizeof(found));
    return vm_fsck(&g.vm, note, NULL);
}

/* The state is wrong now, in this way. */
static void expect(enum vm_fsck_fault fault)
{
    if (fsck() == 0 || found[fault] == 0) {
        fail_msg("%s was planted and not found", vm_fsck_name(fault));
    }
    planted[fault] = true;
}

static void expect_none(void)
{
    guest_check(&g, 0);
}

/* Make one value wrong, look, and put it back. */
#define PLANT(lvalue, wrong, fault)         \
    do {                                    \
        __typeof__(lvalue) was_ = (lvalue); \
        (lvalue) = (wrong);                 \
        expect(VM_FSCK_##fault);            \
        (lvalue) = was_;                    \
        expect_none();                      \
    } while (0)

static struct pte_ref at(struct mm_struct *of, uint64_t va)
{
    struct pte_ref r;

    assert_true(pgtable_find(of, va, &r));
    return r;
}

/* An entry as a mistake would leave it: behind the machine's back. */
static void poke(const struct pte_ref *r, uint64_t value)
{
    ((uint64_t *)arch_page_address(page_pfn(r->table)))[r->slot] = value;
}

static void plant_pte(struct mm_struct *of, uint64_t va, uint64_t value, enum vm_fsck_fault fault)
{
    struct pte_ref r = at(of, va);
    uint64_t was = ((uint64_t *)arch_page_address(page_pfn(r.table)))[r.slot];     /* with the mark of a leaf */

    poke(&r, value);
    expect(fault);
    poke(&r, was);
    expect_none();
}

static struct page *page_at(struct mm_struct *of, uint64_t va)
{
    struct page *p = follow_page(of, va);

    assert_non_null(p);
    page_put(&g.f.mm, p);
    return p;
}

static void make_slot(uint64_t va)
{
    struct page *p = follow_page(mm, va);
    swp_entry_t slot;

    page_lock(p);
    assert_int_equal(swap_alloc(&g.swap, &slot), MM_OK);
    assert_int_equal(swapcache_add(&g.swap, p, slot), MM_OK);
    assert_int_equal(try_to_unmap(&g.vm, p, UNMAP_SWAP), MM_OK);
    page_unlock(p);
    page_put(&g.f.mm, p);
}

static void map(uint64_t va, uint64_t pages, unsigned flags, struct address_space *file)
{
    unsigned char byte = 1;

    assert_int_equal(vm_mmap(mm, &va, pages * PAGE, flags, file, 0), MM_OK);
    for (uint64_t i = 0; i < pages; i++) {
        assert_int_equal(vm_user_write(mm, va + i * PAGE, &byte, 1), MM_OK);
    }
}

static int setup(void **state)
{
    unsigned char byte = 2;

    (void)state;
    guest_init(&g, RAM_PAGES, 2, 64);
    store = (struct store){ calloc(16, FS_PAGE_BYTES), 16 };
    assert_int_equal(address_space_init(&g.vm, &as, GFP_HIGH_MOVABLE, &store_ops, &store), MM_OK);
    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    map(VA, 8, VM_ACCESS, NULL);
    map(FILE_VA, 4, VM_ACCESS | VM_SHARED, &as);
    map(LOCKED_VA, 4, VM_ACCESS, NULL);
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    assert_int_equal(vm_mlock(mm, LOCKED_VA, 4 * PAGE), MM_OK);
    assert_int_equal(vm_user_write(mm, VA, &byte, 1), MM_OK);           /* a copy of its own: the child has the old page alone */
    make_slot(VA + 7 * PAGE);
    expect_none();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    expect_none();
    mm_put(mm);
    mm_put(child);
    address_space_destroy(&as);
    free(store.bytes);
    guest_free(&g);
    return 0;
}

static void test_vmas(void **state)
{
    struct vm_area *v = find_vma(mm, VA), *locked = find_vma(mm, LOCKED_VA), *file = find_vma(mm, FILE_VA);
    struct vm_area *root = mm->root, *below = root->left != NULL ? root->left : root->right;

    (void)state;
    assert_true(v->start == VA && locked->start == LOCKED_VA && file->start == FILE_VA);
    PLANT(g.vm.mm_count, 7, MM_LIST);
    PLANT(mm->prev, mm, MM_LIST);
    PLANT(mm->mmap_lock.state, 1, LOCK_HELD);
    PLANT(mm->page_table_lock.held, 1, LOCK_HELD);
    PLANT(g.vm.lock.held, 1, LOCK_HELD);
    PLANT(as.i_mmap_lock.held, 1, LOCK_HELD);
    PLANT(v->anon_vma->root->lock.held, 1, LOCK_HELD);
    PLANT(below->priority, UINT32_MAX, VMA_TREE);
    PLANT(mm->first, v->next, VMA_LINKS);
    PLANT(v->next->prev, NULL, VMA_LINKS);
    PLANT(v->end, v->start, VMA_RANGE);
    PLANT(v->end, v->end + 1, VMA_RANGE);
    PLANT(v->end, file->end, VMA_RANGE);
    PLANT(v->flags, v->flags | VM_SHARED, VMA_RANGE);
    PLANT(v->flags, v->flags | 0x100, VMA_RANGE);
    PLANT(v->pgoff, v->pgoff + 1, VMA_RANGE);
    PLANT(v->mm, child, VMA_RANGE);
    PLANT(mm->vma_count, mm->vma_count + 1, VMA_COUNT);
    PLANT(mm->total_pages, 1, VMA_COUNT);
    PLANT(mm->locked_pages, 1, VMA_COUNT);
    PLANT(as.i_mmap, NULL, VMA_I_MMAP);
    PLANT(file->i_mmap_next, NULL, VMA_I_MMAP);
}

/* The order of the treap itself: two vmas change places. */
static void test_treap(void **state)
{
    struct vm_area *root = mm->root, *l = root->left, *r = root->right;

    (void)state;
    root->left = r;
    root->right = l;
    expect(VM_FSCK_VMA_TREE);
    root->left = l;
    root->right = r;
    expect_none();
}

static void test_anon_vmas(void **state)
{
    struct vm_area *v = find_vma(child, VA), *p = find_vma(mm, VA);
    struct anon_vma *other = find_vma(mm, LOCKED_VA)->anon_vma;

    (void)state;
    assert_true(v->chain != NULL && v->chain->of_vma != NULL && v->anon_vma->root == p->anon_vma);
    PLANT(v->anon_vma, NULL, VMA_CHAIN);
    PLANT(v->anon_vma, other, VMA_CHAIN);
    PLANT(v->chain->vma, p, VMA_CHAIN);
    PLANT(p->anon_vma->first->next->prev, NULL, ANON_LIST);
    PLANT(p->anon_vma->last, p->anon_vma->first, ANON_LIST);
    PLANT(p->anon_vma->refs, p->anon_vma->refs + 1, ANON_REFS);
    PLANT(v->anon_vma->refs, v->anon_vma->refs - 1, ANON_REFS);
    PLANT(p->anon_vma->owners, 0, ANON_COUNT);
    PLANT(p->anon_vma->children, 1, ANON_COUNT);
    PLANT(v->anon_vma->owners, 2, ANON_COUNT);
}

static void test_tables(void **state)
{
    struct pte_ref r = at(mm, VA);
    struct page *t = r.table, *stray = alloc_pages(&g.f.mm, GFP_KERNEL, 0), *upper;
    struct pte_ref in_root = { .table = mm_page(&g.f.mm, mm->pgd), .slot = 0 };
    uint64_t was = pte_read(&in_root);

    (void)state;
    upper = mm_page(&g.f.mm, arch_pte_pfn(was));
    PLANT(t->private, 2, TABLE_FLAG);
    PLANT(t->mapping, child, TABLE_FLAG);
    PLANT(t->index, t->index + PAGE, TABLE_FLAG);
    PLANT(upper->index, PAGE, TABLE_FLAG);
    page_clear_flags(t, PG_TABLE);
    expect(VM_FSCK_TABLE_FLAG);
    expect(VM_FSCK_TABLE_LOST);
    page_set_flags(t, PG_TABLE);
    expect_none();
    PLANT(t->mapcount, t->mapcount + 1, TABLE_COUNT);
    PLANT(upper->mapcount, 0, TABLE_COUNT);
    PLANT(mm->tables, mm->tables + 1, TABLE_TOTAL);
    page_set_flags(stray, PG_TABLE);
    expect(VM_FSCK_TABLE_LOST);
    page_clear_flags(stray, PG_TABLE);
    page_put(&g.f.mm, stray);
    poke(&in_root, was & ~ARCH_PTE_WRITE);
    expect(VM_FSCK_TABLE_ENTRY);
    poke(&in_root, pte_soft_make(PTE_SWAP, 1, false));
    expect(VM_FSCK_TABLE_ENTRY);
    poke(&in_root, 0x000f000000000000ull | ARCH_PTE_PRESENT | ARCH_PTE_USER | ARCH_PTE_WRITE);
    expect(VM_FSCK_TABLE_ENTRY);
    poke(&in_root, was);
    expect_none();
}

static void test_entries(void **state)
{
    struct pte_ref shared = at(child, VA + PAGE), own = at(mm, VA);
    struct page *free_page = alloc_pages(&g.f.mm, GFP_HIGH_MOVABLE, 0), *table = own.table;
    uint64_t e = pte_read(&own);
    pfn_t freed = page_pfn(free_page);

    (void)state;
    page_put(&g.f.mm, free_page);
    plant_pte(mm, VA + 100 * PAGE, e, VM_FSCK_PTE_VMA);
    plant_pte(mm, VA, pte_soft_make(7, 1, false), VM_FSCK_PTE_KIND);
    plant_pte(mm, VA, pte_soft_make(PTE_MIGRATION, 1, false), VM_FSCK_PTE_MIGRATION);
    plant_pte(mm, VA, pte_soft_make(PTE_SWAP, 60, false), VM_FSCK_PTE_SWAP);
    plant_pte(mm, VA, pte_soft_make(PTE_SWAP, PTE_SOFT_MASK, false), VM_FSCK_PTE_SWAP);
    plant_pte(mm, VA, arch_pte_make(freed, ARCH_PTE_USER), VM_FSCK_PTE_FRAME);
    plant_pte(mm, VA, arch_pte_make(page_pfn(table), ARCH_PTE_USER), VM_FSCK_PTE_FRAME);
    plant_pte(mm, VA, 0x000f000000000000ull | ARCH_PTE_PRESENT | ARCH_PTE_USER, VM_FSCK_PTE_FRAME);
    plant_pte(child, VA + PAGE, pte_read(&shared) | ARCH_PTE_WRITE, VM_FSCK_PTE_COW);
    plant_pte(mm, VA, e | PTE_SPECIAL, VM_FSCK_PTE_SPECIAL);
    /* The page of another address: its index leads elsewhere, and it is found once more than it is mapped where it should be. */
    plant_pte(mm, VA, arch_pte_make(page_pfn(page_at(mm, VA + PAGE)), ARCH_PTE_USER), VM_FSCK_PTE_RMAP);
    /* The parent's own copy, which the child must not have: the anon_vma does not lead to the child. */
    plant_pte(child, VA, arch_pte_make(page_pfn(page_at(mm, LOCKED_VA)), ARCH_PTE_USER), VM_FSCK_PTE_RMAP);
    plant_pte(mm, FILE_VA, arch_pte_make(page_pfn(page_at(mm, FILE_VA + PAGE)), ARCH_PTE_USER), VM_FSCK_PTE_RMAP);
    find_vma(mm, VA)->flags = VM_READ;
    expect(VM_FSCK_PTE_RIGHTS);
    find_vma(mm, VA)->flags = 0;
    expect(VM_FSCK_PTE_RIGHTS);
    find_vma(mm, VA)->flags = VM_ACCESS;
    expect_none();
}

static void test_pages(void **state)
{
    struct page *shared = page_at(mm, VA + PAGE), *own = page_at(mm, VA), *file = page_at(mm, FILE_VA), *locked = page_at(mm, LOCKED_VA);
    struct page *alone = alloc_pages(&g.f.mm, GFP_HIGH_MOVABLE, 0);

    (void)state;
    assert_int_equal(shared->mapcount, 2);
    PLANT(shared->mapcount, 1, MAPCOUNT);
    PLANT(shared->mapcount, 3, MAPCOUNT);
    PLANT(file->mapcount, 0, MAPCOUNT);
    PLANT(own->index, own->index + 1, MAPCOUNT);        /* its rmap leads elsewhere: from both ends */
    PLANT(own->index, own->index + 1, PTE_RMAP);
    PLANT(file->mapping, NULL, PTE_RMAP);
    PLANT(file->mapping, NULL, MAPCOUNT);
    PLANT(shared->refs, 1, PAGE_REFS);
    PLANT(file->refs, 1, PAGE_REFS);
    PLANT(own->mapping, NULL, PAGE_ANON);
    page_set_flags(alone, PG_ANON);
    expect(VM_FSCK_PAGE_ANON);
    page_clear_flags(alone, PG_ANON);
    page_lock(alone);
    expect(VM_FSCK_PAGE_LOCKED);
    page_unlock(alone);
    page_put(&g.f.mm, alone);
    expect_none();
    page_set_flags(own, PG_MLOCKED);
    expect(VM_FSCK_PAGE_MLOCKED);
    page_clear_flags(own, PG_MLOCKED);
    page_clear_flags(locked, PG_MLOCKED);
    expect(VM_FSCK_PAGE_MLOCKED);
    page_set_flags(locked, PG_MLOCKED);
    expect_none();
    PLANT(mm->rss, mm->rss + 1, RSS);
    PLANT(child->swap_entries, 0, RSS);
}

/* ---- huge pages and the pool, on both kinds of machine ---- */

#define THP_VA  0x40000000ull
#define POOL_VA 0x50000000ull
#define SHM_VA  0x60000000ull

static struct hugetlb_file pool_file;

static void huge_setup(bool leaf)
{
    uint64_t va = THP_VA;
    unsigned char byte = 1;

    arch_hosted_set_leaf(leaf);
    guest_init(&g, 8192, 2, 64);
    thp_set_policy(&g.vm, THP_ALWAYS);
    assert_int_equal(hugetlb_set_pool(&g.vm, 0, 6), 6);
    assert_int_equal(hugetlb_file_create(&g.vm, &pool_file, 2), MM_OK);
    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    assert_int_equal(vm_mmap(mm, &va, 2 * HUGE_BYTES, VM_ACCESS, NULL, 0), MM_OK);
    assert_int_equal(vm_user_write(mm, THP_VA, &byte, 1), MM_OK);
    va = POOL_VA;
    assert_int_equal(vm_mmap(mm, &va, 2 * HUGE_BYTES, VM_ACCESS | VM_HUGETLB, NULL, 0), MM_OK);
    assert_int_equal(vm_user_write(mm, POOL_VA, &byte, 1), MM_OK);
    va = SHM_VA;
    assert_int_equal(vm_mmap(mm, &va, 2 * HUGE_BYTES, VM_ACCESS | VM_HUGETLB | VM_SHARED, &pool_file.as, 0), MM_OK);
    assert_int_equal(vm_user_write(mm, SHM_VA, &byte, 1), MM_OK);
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    expect_none();
}

static void huge_teardown(void)
{
    expect_none();
    mm_put(mm);
    mm_put(child);
    hugetlb_file_destroy(&pool_file);
    guest_free(&g);
    arch_hosted_set_leaf(true);
}

static struct page *unit_at(struct mm_struct *of, uint64_t va)
{
    uint64_t pages;
    struct page *p = follow_unit(of, va, &pages);

    assert_true(p != NULL && pages == HUGE_PAGES);
    page_put(&g.f.mm, p);
    return p;
}

static void plant_pool(void)
{
    struct page *first = g.hugetlb.nodes[0].first, *pool = unit_at(mm, POOL_VA);

    PLANT(g.hugetlb.nodes[0].nr, 5, POOL_COUNT);
    PLANT(g.hugetlb.nodes[0].free, 5, POOL_COUNT);
    PLANT(g.hugetlb.nodes[0].surplus, 7, POOL_COUNT);
    PLANT(g.hugetlb.surplus, 1, POOL_COUNT);
    PLANT(g.hugetlb.reserved, 1, POOL_RESERVED);
    PLANT(pool_file.present, 0, POOL_RESERVED);
    PLANT(first->private, 0, POOL_LIST);
    PLANT(first->refs, 2, POOL_LIST);
    PLANT(first->mapping, &pool_file.as, POOL_LIST);
    PLANT(((struct page *)first->lru_next)->lru_prev, NULL, POOL_LIST);
    page_clear_flags(pool, PG_HUGE);
    expect(VM_FSCK_HUGE_POOL);
    expect(VM_FSCK_POOL_COUNT);
    page_set_flags(pool, PG_HUGE);
    PLANT(find_vma(mm, THP_VA)->flags, VM_ACCESS | VM_HUGETLB, HUGE_POOL);
    PLANT(find_vma(mm, POOL_VA)->flags, VM_ACCESS, HUGE_POOL);
    PLANT(find_vma(mm, POOL_VA)->end, POOL_VA + HUGE_BYTES + PAGE, VMA_RANGE);
    expect_none();
}

static void plant_unit(void)
{
    struct page *thp = unit_at(mm, THP_VA), *shm = unit_at(mm, SHM_VA);

    PLANT(thp->mapcount, 1, MAPCOUNT);
    PLANT(thp->refs, 1, PAGE_REFS);
    PLANT(thp->index, thp->index + 1, PTE_RMAP);
    PLANT(thp->mapping, NULL, PAGE_ANON);
    PLANT(shm->mapcount, 2, MAPCOUNT);
    PLANT(shm->refs, 1, PAGE_REFS);
    PLANT(mm->rss, mm->rss - 1, RSS);
    page_set_order(thp, 0);
    expect(VM_FSCK_HUGE_PART);
    page_set_order(thp, HUGE_ORDER);
    page_set_flags(thp, PG_MLOCKED);
    expect(VM_FSCK_PAGE_MLOCKED);
    page_clear_flags(thp, PG_MLOCKED);
    expect_none();
}

static void test_huge_leaf(void **state)
{
    struct pte_ref r;
    uint64_t e;

    (void)state;
    huge_setup(true);
    plant_pool();
    plant_unit();
    r = at(mm, THP_VA);
    assert_true(r.huge && r.table->private == 2);
    e = ((uint64_t *)arch_page_address(page_pfn(r.table)))[r.slot];
    plant_pte(mm, THP_VA, e | ARCH_PTE_WRITE, VM_FSCK_PTE_COW);
    PLANT(mm->leaves, 2, HUGE_COUNT);
    PLANT(mm->deposits, 0, HUGE_DEPOSIT);
    PLANT(mm->deposit, NULL, HUGE_DEPOSIT);
    PLANT(mm->deposit->mapping, child, HUGE_DEPOSIT);
    PLANT(mm->deposit->mapcount, 1, HUGE_DEPOSIT);
    ((uint64_t *)arch_page_address(page_pfn(mm->deposit)))[3] = pte_soft_make(PTE_SWAP, 1, false);
    expect(VM_FSCK_HUGE_DEPOSIT);
    ((uint64_t *)arch_page_address(page_pfn(mm->deposit)))[3] = 0;
    plant_pte(mm, THP_VA, pte_soft_make(PTE_SWAP, 1, false), VM_FSCK_HUGE_ENTRY);
    plant_pte(mm, THP_VA, pte_soft_make(PTE_MIGRATION, 1, false), VM_FSCK_PTE_MIGRATION);
    PLANT(find_vma(mm, THP_VA)->end, THP_VA + PAGE, HUGE_ENTRY);
    huge_teardown();
}

static void test_huge_by_pages(void **state)
{
    struct pte_ref r, small;
    uint64_t *entries, was;

    (void)state;
    huge_setup(false);
    plant_pool();
    plant_unit();
    r = at(mm, THP_VA);
    assert_true(r.huge && r.table->private == 1);
    entries = arch_page_address(page_pfn(r.table));
    was = entries[7];
    entries[7] = 0;
    expect(VM_FSCK_HUGE_ENTRY);
    entries[7] = was | ARCH_PTE_WRITE;
    expect(VM_FSCK_HUGE_ENTRY);
    entries[7] = entries[8];
    expect(VM_FSCK_HUGE_ENTRY);
    entries[7] = was;
    PLANT(r.table->lru_list, 0, HUGE_PART);
    PLANT(find_vma(mm, THP_VA)->end, THP_VA + PAGE, HUGE_ENTRY);
    PLANT(mm->leaves, 1, HUGE_COUNT);
    /* A part of one where small pages are. */
    {
        unsigned char byte = 3;
        uint64_t va = VA;

        assert_int_equal(vm_mmap(mm, &va, PAGE, VM_ACCESS, NULL, 0), MM_OK);
        assert_int_equal(vm_user_write(mm, VA, &byte, 1), MM_OK);
        small = at(mm, VA);
        was = pte_read(&small);
        poke(&small, arch_pte_make(page_pfn(unit_at(mm, THP_VA)), ARCH_PTE_USER));
        expect(VM_FSCK_HUGE_PART);
        poke(&small, was);
    }
    huge_teardown();
}

static void test_every_fault_was_planted(void **state)
{
    (void)state;
    for (enum vm_fsck_fault f = 0; f < VM_FSCK_FAULTS; f++) {
        if (!planted[f]) {
            fail_msg("%s was never planted", vm_fsck_name(f));
        }
        assert_true(strcmp(vm_fsck_name(f), "bad") != 0 && strlen(vm_fsck_text(f)) > 8);
    }
    assert_string_equal(vm_fsck_name(VM_FSCK_FAULTS), "bad");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_vmas, setup, teardown),
        cmocka_unit_test_setup_teardown(test_treap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_anon_vmas, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tables, setup, teardown),
        cmocka_unit_test_setup_teardown(test_entries, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages, setup, teardown),
        cmocka_unit_test(test_huge_leaf),
        cmocka_unit_test(test_huge_by_pages),
        cmocka_unit_test(test_every_fault_was_planted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
