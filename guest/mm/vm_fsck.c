/*
 * vm_fsck.c - processes, page tables and reverse maps recomputed and compared.
 *
 * Owns: anon_vma.check; else it only reads.
 * Invariants checked: vma_tree.c I1 to I3, anon_vma.c I1 to I3, pgtable.c I4, rmap.c I1 to I3, fault.c I3, zap.c I2.
 * Lock order: takes no lock; the caller keeps everybody out.
 * Why: the reverse maps are checked from both ends with code of its own.  Each entry must be where its page's mapping and index lead,
 *   and the entries found from each page must be as many as its mapcount: then neither side has anything that the other has not.
 *   References on anon_vmas are counted anew by writing a count into them.
 * Cost: every table entry and every page of memory once; from each mapped page one look into each vma of its family or file.
 *
 * Layer: L6
 */
#include "vm_fsck.h"
#include "anon_vma.h"
#include "pagecache.h"
#include "pfnmap.h"
#include "pgtable.h"
#include "swap.h"
#include "thp.h"
#include "vma.h"

#define TREE_DEPTH_MAX 200u

struct check {
    struct vm *vm;
    vm_fsck_fn report;
    void *ctx;
    uint64_t faults;
    const struct mm_struct *mm;                 /* at hand */
    uint64_t rss, swap_entries, tables, leaves; /* of it */
    uint64_t all_tables, promised;
};

static void say(struct check *c, enum vm_fsck_fault f, uint64_t va, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    struct vm_fsck_place place = { .mm = c->mm, .va = va, .pfn = pfn };

    c->faults++;
    if (c->report != NULL) {
        c->report(c->ctx, f, &place, is, should_be);
    }
}

static void expect(struct check *c, enum vm_fsck_fault f, uint64_t va, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    if (is != should_be) {
        say(c, f, va, pfn, is, should_be);
    }
}

static bool page_ok(const struct check *c, pfn_t pfn)
{
    return !pfn_is_none(pfn) && mm_pfn_valid(c->vm->mm, pfn);
}

/* ---- vmas ---- */

/* Is the vma a member of its anon_vma's list through this link, and are the links around it whole? */
static bool chain_listed(const struct anon_vma_chain *c)
{
    const struct anon_vma *a = c->anon_vma;
    const struct anon_vma_chain *first = c;

    while (first->prev != NULL && first->prev->next == first) {
        first = first->prev;
    }
    return a->first == first && (c->next == NULL ? a->last == c : c->next->prev == c);
}

static void check_chain(struct check *c, const struct vm_area *v)
{
    bool own = v->anon_vma == NULL;

    if ((v->anon_vma == NULL) != (v->chain == NULL)) {
        say(c, VM_FSCK_VMA_CHAIN, v->start, PFN_NONE, v->chain != NULL, v->anon_vma != NULL);
    }
    for (const struct anon_vma_chain *l = v->chain; l != NULL; l = l->of_vma) {
        own |= l->anon_vma == v->anon_vma;
        if (l->vma != v || l->anon_vma->root != v->chain->anon_vma->root) {
            say(c, VM_FSCK_VMA_CHAIN, v->start, PFN_NONE, 0, 0);
        }
        if (!chain_listed(l)) {
            say(c, VM_FSCK_ANON_LIST, v->start, PFN_NONE, 0, 0);
        }
        expect(c, VM_FSCK_LOCK_HELD, v->start, PFN_NONE, spin_held(&l->anon_vma->root->lock), 0);
    }
    if (!own && v->chain != NULL) {
        say(c, VM_FSCK_VMA_CHAIN, v->start, PFN_NONE, 0, 1);
    }
}

static void check_i_mmap(struct check *c, const struct vm_area *v)
{
    const struct vm_area *o;

    if (v->file == NULL) {
        return;
    }
    for (o = v->file->i_mmap; o != NULL && o != v && (o->i_mmap_next == NULL || o->i_mmap_next->i_mmap_prev == o); o = o->i_mmap_next) {
    }
    if (o != v || (v->i_mmap_next != NULL && v->i_mmap_next->i_mmap_prev != v)) {
        say(c, VM_FSCK_VMA_I_MMAP, v->start, PFN_NONE, 0, 1);
    }
    expect(c, VM_FSCK_LOCK_HELD, v->start, PFN_NONE, spin_held(&v->file->i_mmap_lock), 0);
}

static void check_vma(struct check *c, const struct vm_area *v, uint64_t above)
{
    if (v->mm != c->mm || v->start >= v->end || v->end > ARCH_USER_END || (v->start | v->end) % FS_PAGE_BYTES != 0 || v->start < above) {
        say(c, VM_FSCK_VMA_RANGE, v->start, PFN_NONE, v->end, above);
    }
    if ((v->flags & ~(VM_ACCESS | VM_SHARED | VM_LOCKED | VM_HUGETLB | VM_NORESERVE | VM_HUGEPAGE | VM_NOHUGEPAGE | VM_PFNMAP)) != 0
        || ((v->flags & VM_HUGETLB) && (v->start | v->end) % HUGE_BYTES != 0)
        || (v->file != NULL && v->file->hugetlb != ((v->flags & VM_HUGETLB) != 0)) || (v->file == NULL && (v->flags & VM_SHARED))
        || (v->file == NULL && v->pgoff != v->start / FS_PAGE_BYTES) || ((v->flags & VM_PFNMAP) != 0) != (v->file != NULL && v->file->ops != NULL)) {
        say(c, VM_FSCK_VMA_RANGE, v->start, PFN_NONE, v->flags, v->pgoff);
    }
    check_chain(c, v);
    check_i_mmap(c, v);
}

/* Walk the treap in order beside the list; returns the number of members. Depth is bounded so that a loop ends. */
static uint32_t check_tree(struct check *c)
{
    const struct vm_area *stack[TREE_DEPTH_MAX], *v = c->mm->root, *list = c->mm->first, *prev = NULL;
    uint32_t depth = 0, n = 0;

    while ((v != NULL || depth > 0) && n <= c->mm->vma_count) {
        while (v != NULL && depth < TREE_DEPTH_MAX) {
            if ((v->left != NULL && v->left->priority > v->priority) || (v->right != NULL && v->right->priority > v->priority)) {
                say(c, VM_FSCK_VMA_TREE, v->start, PFN_NONE, v->priority, 0);
            }
            stack[depth++] = v;
            v = v->left;
        }
        v = stack[--depth];
        if (prev != NULL && prev->start >= v->start) {
            say(c, VM_FSCK_VMA_TREE, v->start, PFN_NONE, v->start, prev->start);
        }
        if (list != v || v->prev != prev) {
            say(c, VM_FSCK_VMA_LINKS, v->start, PFN_NONE, 0, 0);
        }
        list = list != NULL ? list->next : NULL;
        prev = v;
        n++;
        v = v->right;
    }
    return n;
}

static void check_vmas(struct check *c)
{
    uint64_t pages = 0, locked = 0, above = 0;

    expect(c, VM_FSCK_VMA_COUNT, UINT64_MAX, PFN_NONE, c->mm->vma_count, check_tree(c));
    for (const struct vm_area *v = c->mm->first; v != NULL; v = v->next) {
        check_vma(c, v, above);
        above = v->end;
        pages += vma_pages(v);
        locked += v->flags & VM_LOCKED ? vma_pages(v) : 0;
    }
    expect(c, VM_FSCK_VMA_COUNT, UINT64_MAX, PFN_NONE, c->mm->total_pages, pages);
    expect(c, VM_FSCK_VMA_COUNT, UINT64_MAX, PFN_NONE, c->mm->locked_pages, locked);
}

/* ---- entries ---- */

static bool linked_to(const struct vm_area *v, const void *anon)
{
    for (const struct anon_vma_chain *l = v->chain; l != NULL; l = l->of_vma) {
        if (l->anon_vma == anon) {
            return true;
        }
    }
    return false;
}

/* From the entry to the page, and whether the page leads back. */
static void check_mapping(struct check *c, const struct vm_area *v, uint64_t va, uint64_t e, bool huge)
{
    pfn_t pfn = pte_pfn(e);
    const struct page *p;
    bool anon, write = pte_write(e);

    c->rss += huge ? HUGE_PAGES : 1;
    if (!page_ok(c, pfn) || page_state(mm_page(c->vm->mm, pfn)) != PAGE_USED || page_test(mm_page(c->vm->mm, pfn), PG_TABLE | PG_SLAB)) {
        say(c, VM_FSCK_PTE_FRAME, va, pfn, e, 0);
        return;
    }
    p = mm_page(c->vm->mm, pfn);
    anon = page_test(p, PG_ANON);
    if (page_order(p) != (huge ? HUGE_ORDER : 0)) {
        say(c, VM_FSCK_HUGE_PART, va, pfn, page_order(p), huge ? HUGE_ORDER : 0);
    }
    if (page_test(p, PG_HUGE) != ((v->flags & VM_HUGETLB) != 0)) {
        say(c, VM_FSCK_HUGE_POOL, va, pfn, page_word(p), v->flags);
    }
    if (pte_present(e) && ((write && !(v->flags & VM_WRITE)) || (v->flags & VM_ACCESS) == 0 || (e & ARCH_PTE_USER) == 0)) {
        say(c, VM_FSCK_PTE_RIGHTS, va, pfn, e, v->flags);
    }
    if (write && !(v->flags & VM_SHARED)
        && (!anon || atomic_load_explicit(&p->mapcount, memory_order_relaxed) != 1
            || (page_test(p, PG_SWAPCACHE) && swap_count(c->vm->swap, (swp_entry_t){ p->private }) > 1))) {
        say(c, VM_FSCK_PTE_COW, va, pfn, e, 0);
    }
    if (p->index != vma_index(v, va) || (anon ? !linked_to(v, p->mapping) : v->file == NULL || p->mapping != v->file)) {
        say(c, VM_FSCK_PTE_RMAP, va, pfn, p->index, vma_index(v, va));
    }
    if ((v->flags & VM_LOCKED) && !page_test(p, PG_MLOCKED)) {
        say(c, VM_FSCK_PAGE_MLOCKED, va, pfn, 0, 1);
    }
}

/* A device's memory (pfnmap.c I1). */
static void check_special(struct check *c, const struct vm_area *v, uint64_t va, uint64_t e)
{
    pfn_t pfn = PFN_NONE;

    if (!pte_special(e) || !(v->flags & VM_PFNMAP) || v->file == NULL || v->file->ops == NULL) {
        say(c, VM_FSCK_PTE_SPECIAL, va, PFN_NONE, e, v->flags);
    } else if (v->file->ops->frame(v->file, vma_index(v, va), &pfn) != MM_OK || arch_pte_pfn(e).n != pfn.n) {
        say(c, VM_FSCK_PTE_SPECIAL, va, pfn, e, pfn.n);
    } else if ((v->flags & VM_ACCESS) == 0 || (pte_write(e) && !(v->flags & VM_WRITE))) {
        say(c, VM_FSCK_PTE_RIGHTS, va, pfn, e, v->flags);
    }
}

/* An entry; huge: the first one of a huge mapping, or the leaf without its mark. */
static void check_entry(struct check *c, uint64_t va, uint64_t e, bool huge)
{
    const struct vm_area *v = find_vma(c->mm, va);

    if (v == NULL || v->start > va) {
        say(c, VM_FSCK_PTE_VMA, va, PFN_NONE, e, 0);
        return;
    }
    if (huge && (va % HUGE_BYTES != 0 || v->end - va < HUGE_BYTES || pte_is(e, PTE_SWAP))) {
        say(c, VM_FSCK_HUGE_ENTRY, va, PFN_NONE, e, 0);
        return;
    }
    if (pte_special(e) || (v->flags & VM_PFNMAP)) {
        check_special(c, v, va, e);
    } else if (pte_maps(e)) {
        check_mapping(c, v, va, e, huge);
    } else if (pte_is(e, PTE_SWAP)) {
        uint64_t slot = pte_soft_number(e);
        uint32_t count = c->vm->swap != NULL ? swap_count(c->vm->swap, (swp_entry_t){ slot }) : 0;

        c->swap_entries++;
        if (count == 0 || count > SWAP_COUNT_MAX) {
            say(c, VM_FSCK_PTE_SWAP, va, PFN_NONE, slot, count);
        }
    } else if (pte_is(e, PTE_MIGRATION)) {
        say(c, VM_FSCK_PTE_MIGRATION, va, pfn_make(pte_soft_number(e)), e, 0);
    } else {
        say(c, VM_FSCK_PTE_KIND, va, PFN_NONE, e, 0);
    }
}

/* ---- tables ---- */

/* Do the 512 entries of a table that is marked belong to one another? */
static void check_huge_table(struct check *c, struct page *t, uint64_t base)
{
    uint64_t first = pte_read(&(struct pte_ref){ .table = t });

    for (uint32_t slot = 1; slot < ARCH_PT_SLOTS; slot++) {
        uint64_t e = pte_read(&(struct pte_ref){ .table = t, .slot = slot }), noise = ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY;
        uint64_t rest = pte_present(e) ? ~(ARCH_PTE_FRAME | noise) : 0xfffull;
        uint64_t number = pte_present(e) ? arch_pte_pfn(e).n : pte_soft_number(e);
        uint64_t expected = pte_present(first) ? arch_pte_pfn(first).n : pte_soft_number(first);

        if (((e ^ first) & rest) != 0 || number != expected + slot) {
            say(c, VM_FSCK_HUGE_ENTRY, base + slot * (uint64_t)FS_PAGE_BYTES, pfn_make(number), e, first);
            return;
        }
    }
    check_entry(c, base, first, true);
}

/* Tables that wait for leaves to be split. */
static void check_deposit(struct check *c)
{
    uint64_t n = 0;

    for (const struct page *t = c->mm->deposit; t != NULL && n <= c->mm->deposits; t = t->lru_next, n++) {
        bool empty = true;

        for (uint32_t i = 0; i < ARCH_PT_SLOTS; i++) {
            empty &= pte_none(pte_read(&(struct pte_ref){ .table = (struct page *)(uintptr_t)t, .slot = i }));
        }
        if (!page_test(t, PG_TABLE) || t->private != 1 || t->mapping != c->mm || !empty || atomic_load_explicit(&t->mapcount, memory_order_relaxed) != 0) {
            say(c, VM_FSCK_HUGE_DEPOSIT, UINT64_MAX, page_pfn(t), page_word(t), empty);
        }
    }
    if (n != c->mm->deposits || n < c->leaves) {
        say(c, VM_FSCK_HUGE_DEPOSIT, UINT64_MAX, PFN_NONE, n, c->leaves);
    }
    expect(c, VM_FSCK_HUGE_COUNT, UINT64_MAX, PFN_NONE, c->mm->leaves, c->leaves);
    c->tables += n;
}

static uint64_t level_bytes(unsigned level) { return 1ull << (FS_PAGE_SHIFT + 9 * level); }

static void check_table(struct check *c, pfn_t table, unsigned level, uint64_t base);

/* An entry of a table above the last level. */
static void check_upper(struct check *c, unsigned level, uint64_t va, uint64_t e)
{
    pfn_t below = pte_present(e) ? arch_pte_pfn(e) : PFN_NONE;
    const struct page *p = page_ok(c, below) ? mm_page(c->vm->mm, below) : NULL;

    if (p == NULL || page_state(p) != PAGE_USED || (e & (ARCH_PTE_USER | ARCH_PTE_WRITE)) != (ARCH_PTE_USER | ARCH_PTE_WRITE)) {
        say(c, VM_FSCK_TABLE_ENTRY, va, below, e, level);
        return;
    }
    check_table(c, below, level - 1, va);
}

/* Four levels deep, so recursion is bounded. */
static void check_table(struct check *c, pfn_t table, unsigned level, uint64_t base)
{
    struct page *p = mm_page(c->vm->mm, table);
    uint32_t entries = 0;

    c->tables++;
    if (!page_test(p, PG_TABLE) || p->private != level || p->mapping != c->mm || p->index != base || page_refs(p) < 1) {
        say(c, VM_FSCK_TABLE_FLAG, base, table, page_word(p), level);
        if (p->mapping != c->mm) {
            return;                             /* what is below may be anything */
        }
    }
    uint32_t slots = level == ARCH_PT_LEVELS ? (uint32_t)(ARCH_USER_END / level_bytes(level - 1)) : ARCH_PT_SLOTS;

    for (uint32_t slot = 0; slot < slots; slot++) {         /* the other half of a root is the machine's */
        uint64_t e = pte_read(&(struct pte_ref){ .table = p, .slot = slot });

        if (pte_none(e)) {
            continue;
        }
        entries++;
        if (level == 2 && (!pte_present(e) || (e & ARCH_PTE_LEAF)) && arch_huge_leaf()) {
            c->leaves++;
            check_entry(c, base + slot * level_bytes(1), pte_present(e) ? e & ~ARCH_PTE_LEAF : e, true);
        } else if (level == 1 && p->lru_list != 0) {
            continue;                           /* all of them below */
        } else if (level > 1) {
            check_upper(c, level, base + slot * level_bytes(level - 1), e);
        } else {
            check_entry(c, base + slot * (uint64_t)FS_PAGE_BYTES, e, false);
        }
    }
    if (level == 1 && p->lru_list != 0) {
        check_huge_table(c, p, base);
    }
    expect(c, VM_FSCK_TABLE_COUNT, base, table, (uint64_t)atomic_load_explicit(&p->mapcount, memory_order_relaxed), entries);
}

/* ---- anon_vmas ---- */

/* Three passes over everything that has a reference: forget, count, compare. */
enum pass { PASS_FORGET, PASS_COUNT, PASS_COMPARE };

static void compare(struct check *c, struct anon_vma *a)
{
    uint32_t refs = (uint32_t)atomic_load_explicit(&a->refs, memory_order_relaxed);

    uint32_t owners = 0;

    if (a->check == UINT32_MAX) {
        return;                                 /* told */
    }
    for (const struct anon_vma_chain *l = a->first; l != NULL; l = l->next) {
        owners += l->vma->anon_vma == a;
    }
    expect(c, VM_FSCK_ANON_REFS, UINT64_MAX, PFN_NONE, refs, a->check);
    expect(c, VM_FSCK_ANON_COUNT, UINT64_MAX, PFN_NONE, a->owners, owners);
    expect(c, VM_FSCK_ANON_COUNT, UINT64_MAX, PFN_NONE, a->children, a->check_children);
    a->check = UINT32_MAX;
}

static void touch(struct check *c, struct anon_vma *a, enum pass pass)
{
    switch (pass) {
    case PASS_FORGET:
        a->check = a->check_children = 0;
        a->root->check = a->root->check_children = 0;
        a->met = a->root->met = false;
        break;
    case PASS_COUNT:
        if (!a->met) {                          /* a member of the family */
            a->met = true;
            a->root->check += a->root != a;
            if (a->first != NULL) {
                a->parent->check_children++;
            }
        }
        a->check++;
        break;
    case PASS_COMPARE:
        compare(c, a);
        compare(c, a->root);                    /* which may have nothing left but its family */
        break;
    }
}

static struct page *first_page(const struct mm *mm, uint64_t pfn)
{
    return mm_pfn_valid(mm, pfn_make(pfn)) ? mm_page(mm, pfn_make(pfn)) : NULL;
}

static bool anon_page(const struct page *p)
{
    return p != NULL && page_state(p) == PAGE_USED && page_test(p, PG_ANON) && p->mapping != NULL;
}

static void check_anon_refs(struct check *c)
{
    c->mm = NULL;
    for (enum pass pass = PASS_FORGET; pass <= PASS_COMPARE; pass++) {
        for (const struct mm_struct *mm = c->vm->mms; mm != NULL; mm = mm->next) {
            for (const struct vm_area *v = mm->first; v != NULL; v = v->next) {
                for (const struct anon_vma_chain *l = v->chain; l != NULL; l = l->of_vma) {
                    touch(c, l->anon_vma, pass);
                }
            }
        }
        for (uint64_t pfn = 0; pfn < c->vm->mm->end_pfn; pfn++) {
            struct page *p = first_page(c->vm->mm, pfn);

            if (anon_page(p)) {
                touch(c, p->mapping, pass);
            }
        }
    }
}

/* ---- pages ---- */

struct found { uint64_t entries; bool locked; };

/* As pgtable_find(), for tables that may be damaged. */
static bool find_entry(const struct check *c, const struct mm_struct *mm, uint64_t va, struct pte_ref *at)
{
    pfn_t table = mm->pgd;

    for (unsigned level = ARCH_PT_LEVELS;; level--) {
        uint64_t e;

        if (!page_ok(c, table) || !page_test(mm_page(c->vm->mm, table), PG_TABLE)) {
            return false;
        }
        *at = (struct pte_ref){ .table = mm_page(c->vm->mm, table), .slot = (uint32_t)(va >> (FS_PAGE_SHIFT + 9 * (level - 1))) % ARCH_PT_SLOTS };
        if (level == 1) {
            return true;
        }
        e = pte_read(at);
        if (level == 2 && pte_present(e) ? (e & ARCH_PTE_LEAF) != 0 : level == 2 && !pte_none(e)) {
            at->huge = true;
            return true;
        }
        table = pte_present(e) ? arch_pte_pfn(e) : PFN_NONE;
    }
}

/* Does the vma map the page where its index says? */
static void look(const struct check *c, const struct vm_area *v, const struct page *p, struct found *f)
{
    struct pte_ref at;
    uint64_t e;

    if (p->index < v->pgoff || p->index - v->pgoff >= vma_pages(v)
        || !find_entry(c, v->mm, v->start + (p->index - v->pgoff) * FS_PAGE_BYTES, &at)) {
        return;
    }
    e = pte_read(&at);
    if (pte_maps(e) && pte_pfn(e).n == p->pfn) {
        f->entries++;
        f->locked |= (v->flags & VM_LOCKED) != 0;
    }
}

static void check_user_page(struct check *c, const struct page *p)
{
    int32_t mapcount = atomic_load_explicit(&p->mapcount, memory_order_relaxed), owners;
    bool anon = page_test(p, PG_ANON), swapcache = page_test(p, PG_SWAPCACHE);
    struct found f = { .entries = 0 };

    if (anon && (p->mapping == NULL || (mapcount == 0 && !swapcache))) {
        say(c, VM_FSCK_PAGE_ANON, UINT64_MAX, page_pfn(p), (uint64_t)(int64_t)mapcount, 0);
        return;
    }
    if (anon) {
        const struct anon_vma *a = p->mapping;

        for (const struct anon_vma_chain *l = a->first; l != NULL; l = l->next) {
            look(c, l->vma, p, &f);
        }
    } else if (p->mapping != NULL) {
        const struct address_space *as = p->mapping;

        for (const struct vm_area *v = as->i_mmap; v != NULL; v = v->i_mmap_next) {
            look(c, v, p, &f);
        }
    }
    owners = mapcount + (swapcache || (!anon && p->mapping != NULL));
    expect(c, VM_FSCK_MAPCOUNT, UINT64_MAX, page_pfn(p), (uint64_t)(int64_t)mapcount, f.entries);
    if (page_refs(p) < owners) {
        say(c, VM_FSCK_PAGE_REFS, UINT64_MAX, page_pfn(p), (uint64_t)page_refs(p), (uint64_t)owners);
    }
    if (page_test(p, PG_MLOCKED) && !f.locked) {
        say(c, VM_FSCK_PAGE_MLOCKED, UINT64_MAX, page_pfn(p), 1, 0);
    }
}

static void check_pages(struct check *c)
{
    uint64_t tables = 0;

    c->mm = NULL;
    for (uint64_t pfn = 0; pfn < c->vm->mm->end_pfn; pfn++) {
        const struct page *p = first_page(c->vm->mm, pfn);

        if (p == NULL || page_state(p) != PAGE_USED) {
            continue;
        }
        expect(c, VM_FSCK_PAGE_LOCKED, UINT64_MAX, page_pfn(p), page_test(p, PG_LOCKED), 0);
        tables += page_test(p, PG_TABLE);
        if (page_type(p) == MIGRATE_MOVABLE && (page_order(p) == 0 || page_test(p, PG_ANON | PG_HUGE)) && !page_test(p, PG_TABLE | PG_SLAB)) {
            check_user_page(c, p);
        }
    }
    expect(c, VM_FSCK_TABLE_LOST, UINT64_MAX, PFN_NONE, tables, c->all_tables);
}

/* ---- the pool ---- */

/* Huge pages of private mappings that were promised and not taken. */
static void count_promises(struct check *c)
{
    for (const struct vm_area *v = c->mm->first; v != NULL; v = v->next) {
        struct pte_ref at;

        for (uint64_t va = v->start; (v->flags & (VM_HUGETLB | VM_SHARED | VM_NORESERVE)) == VM_HUGETLB && va + HUGE_BYTES <= v->end; va += HUGE_BYTES) {
            c->promised += !find_entry(c, c->mm, va, &at) || pte_none(pte_read(&at));
        }
    }
}

static void check_pool_node(struct check *c, const struct hugetlb_node *n, uint64_t in_memory)
{
    const struct page *prev = NULL;
    uint64_t free = 0;

    for (const struct page *p = n->first; p != NULL && free <= n->free; p = p->lru_next, free++) {
        if (p->lru_prev != prev || !hugetlb_page_free(p) || page_refs(p) != 1 || page_order(p) != HUGE_ORDER
            || atomic_load_explicit(&p->mapcount, memory_order_relaxed) != 0) {
            say(c, VM_FSCK_POOL_LIST, UINT64_MAX, page_pfn(p), page_word(p), 0);
            break;
        }
        prev = p;
    }
    expect(c, VM_FSCK_POOL_COUNT, UINT64_MAX, PFN_NONE, n->free, free);
    expect(c, VM_FSCK_POOL_COUNT, UINT64_MAX, PFN_NONE, n->nr, in_memory);
    if (n->surplus > n->nr) {
        say(c, VM_FSCK_POOL_COUNT, UINT64_MAX, PFN_NONE, n->surplus, n->nr);
    }
}

static void check_pool(struct check *c)
{
    const struct hugetlb *h = c->vm->hugetlb;
    uint64_t in_memory[MM_NODES_MAX] = { 0 }, surplus = 0, free = 0;

    c->mm = NULL;
    for (uint64_t pfn = 0; pfn < c->vm->mm->end_pfn; pfn++) {
        const struct page *p = first_page(c->vm->mm, pfn);

        if (p != NULL && page_state(p) == PAGE_USED && page_test(p, PG_HUGE)) {
            in_memory[mm_block_zone(c->vm->mm, page_block(p))->node]++;
        }
    }
    for (uint32_t i = 0; i < c->vm->mm->node_count && h != NULL; i++) {
        check_pool_node(c, &h->nodes[i], in_memory[i]);
        surplus += h->nodes[i].surplus;
        free += h->nodes[i].free;
    }
    for (const struct hugetlb_file *f = h != NULL ? h->files : NULL; f != NULL; f = f->next) {
        c->promised += f->units - f->present;
    }
    expect(c, VM_FSCK_POOL_COUNT, UINT64_MAX, PFN_NONE, h != NULL ? h->surplus : 0, surplus);
    expect(c, VM_FSCK_POOL_RESERVED, UINT64_MAX, PFN_NONE, h != NULL ? h->reserved : 0, c->promised);
    if (c->promised > free) {
        say(c, VM_FSCK_POOL_RESERVED, UINT64_MAX, PFN_NONE, c->promised, free);
    }
}

/* ---- all ---- */

static void check_process(struct check *c)
{
    c->rss = c->swap_entries = c->tables = c->leaves = 0;
    expect(c, VM_FSCK_LOCK_HELD, UINT64_MAX, PFN_NONE, rwlock_held(&c->mm->mmap_lock), 0);
    expect(c, VM_FSCK_LOCK_HELD, UINT64_MAX, PFN_NONE, spin_held(&c->mm->page_table_lock), 0);
    check_vmas(c);
    if (!page_ok(c, c->mm->pgd)) {
        say(c, VM_FSCK_TABLE_ENTRY, 0, c->mm->pgd, 0, ARCH_PT_LEVELS);
        return;
    }
    check_table(c, c->mm->pgd, ARCH_PT_LEVELS, 0);
    check_deposit(c);
    count_promises(c);
    expect(c, VM_FSCK_TABLE_TOTAL, UINT64_MAX, c->mm->pgd, c->mm->tables, c->tables);
    expect(c, VM_FSCK_RSS, UINT64_MAX, PFN_NONE, c->mm->rss, c->rss);
    expect(c, VM_FSCK_RSS, UINT64_MAX, PFN_NONE, c->mm->swap_entries, c->swap_entries);
    c->all_tables += c->tables;
}

uint64_t vm_fsck(struct vm *vm, vm_fsck_fn report, void *ctx)
{
    struct check c = { .vm = vm, .report = report, .ctx = ctx };
    const struct mm_struct *prev = NULL;
    uint32_t processes = 0;

    expect(&c, VM_FSCK_LOCK_HELD, UINT64_MAX, PFN_NONE, spin_held(&vm->lock), 0);
    for (const struct mm_struct *mm = vm->mms; mm != NULL && processes <= vm->mm_count; mm = mm->next) {
        c.mm = mm;
        if (mm->prev != prev || mm->vm != vm) {
            say(&c, VM_FSCK_MM_LIST, UINT64_MAX, PFN_NONE, 0, 0);
        }
        check_process(&c);
        prev = mm;
        processes++;
    }
    c.mm = NULL;
    expect(&c, VM_FSCK_MM_LIST, UINT64_MAX, PFN_NONE, vm->mm_count, processes);
    check_anon_refs(&c);
    check_pages(&c);
    check_pool(&c);
    return c.faults;
}

const char *vm_fsck_name(enum vm_fsck_fault f)
{
    static const char *const names[VM_FSCK_FAULTS] = {
#define X(name, text) #name,
        VM_FSCK_LIST(X)
#undef X
    };
    return (unsigned)f < VM_FSCK_FAULTS ? names[f] : "bad";
}

const char *vm_fsck_text(enum vm_fsck_fault f)
{
    static const char *const texts[VM_FSCK_FAULTS] = {
#define X(name, text) text,
        VM_FSCK_LIST(X)
#undef X
    };
    return (unsigned)f < VM_FSCK_FAULTS ? texts[f] : "bad";
}
