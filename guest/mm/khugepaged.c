/*
 * khugepaged.c - small pages of a process become one huge page, in the background.
 *
 * Layer: L4
 * Owns: the order of the steps of a collapse; vm.khugepaged_*.
 * Invariants:
 *   I1  while the contents are copied mmap_lock is held for writing (no fault, no fork), every old page is locked (nobody moves, unmaps or reclaims it), no
 *       entry maps one, and nobody holds a reference but the entry that was and the caller: nobody can change it.
 *   I2  what fails leaves every entry as it was; an entry that was taken is put back until the machine agrees.
 *   I3  only pages of the process alone (mapcount 1, no slot of swap) are taken, so no other entry has to be found.
 * Lock order: mmap_lock for writing; page locks, only tried; page_table_lock. The huge page is allocated before any of them, and may compact and reclaim.
 * Why: a fault does not wait for a whole block, and memory that was fragmented then may not be so now; compaction is worth its moves here.
 * Cost: 512 exchanges, copies and frees, 2 MiB of cleared or copied bytes.
 */
#include "thp.h"
#include "anon_vma.h"
#include "lru.h"
#include "rmap.h"
#include "vma.h"
#include "frameshift/assert.h"

#define SET (HUGE_PAGES / 64)

struct collapse {
    struct mm_struct *mm;
    struct vm_area *vma;
    uint64_t base;
    struct page *table, *to;
    uint64_t taken[SET];                        /* bits: slots whose page is locked, referenced and ours */
};

static bool is_taken(const struct collapse *c, uint32_t i) { return (c->taken[i / 64] >> i % 64 & 1) != 0; }

static struct page *old_page(const struct collapse *c, uint64_t e)
{
    return mm_page(c->mm->vm->mm, pte_pfn(e));
}

/* I3. pre: page_table_lock */
static bool collapsible(const struct collapse *c, uint64_t e)
{
    const struct page *p;

    if (!pte_present(e)) {
        return false;
    }
    p = old_page(c, e);
    return page_order(p) == 0 && page_test(p, PG_ANON) && !page_test(p, PG_SWAPCACHE | PG_PINNED | PG_DMA | PG_WRITEBACK | PG_ISOLATED)
           && atomic_load_explicit(&p->mapcount, memory_order_acquire) == 1;
}

/* Are they able to be one? Without any lock but mmap_lock it is a hint. */
static bool able(struct collapse *c)
{
    struct pte_ref at;
    uint32_t present = 0;
    bool good = false;

    spin_lock(&c->mm->page_table_lock);
    if (pgtable_find(c->mm, c->base, &at) && !at.huge) {
        c->table = at.table;
        good = true;
        for (at.slot = 0; at.slot < HUGE_PAGES && good; at.slot++) {
            uint64_t e = pte_read(&at);

            good = pte_none(e) || collapsible(c, e);
            present += !pte_none(e);
        }
    }
    spin_unlock(&c->mm->page_table_lock);
    return good && present >= THP_COLLAPSE_PRESENT;
}

/* Lock every page that is there, with a reference. MM_EAGAIN: one of them is busy, or something has changed. */
static mm_status_t lock_pages(struct collapse *c)
{
    struct pte_ref at = { .table = c->table };
    mm_status_t status = MM_OK;

    spin_lock(&c->mm->page_table_lock);
    for (; at.slot < HUGE_PAGES && status == MM_OK; at.slot++) {
        uint64_t e = pte_read(&at);

        if (pte_none(e)) {
            continue;
        }
        if (!collapsible(c, e) || !page_trylock(old_page(c, e))) {
            status = MM_EAGAIN;
        } else {
            page_get(old_page(c, e));
            c->taken[at.slot / 64] |= 1ull << at.slot % 64;
            if (!collapsible(c, e)) {           /* now that it cannot change any more */
                status = MM_EAGAIN;
            }
        }
    }
    spin_unlock(&c->mm->page_table_lock);
    return status;
}

/* Every entry goes, its value to old. pre: I1 but for the references */
static void take_entries(const struct collapse *c, uint64_t *old)
{
    struct pte_ref at = { .table = c->table };

    spin_lock(&c->mm->page_table_lock);
    for (; at.slot < HUGE_PAGES; at.slot++) {
        old[at.slot] = is_taken(c, at.slot) ? pte_exchange(&at, 0) : 0;
        c->mm->rss -= is_taken(c, at.slot);
    }
    pte_flush(c->mm, c->base, HUGE_PAGES);
    spin_unlock(&c->mm->page_table_lock);
}

/* I2 */
static void entries_back(const struct collapse *c, const uint64_t *old)
{
    struct pte_ref at = { .table = c->table };

    spin_lock(&c->mm->page_table_lock);
    for (; at.slot < HUGE_PAGES; at.slot++) {
        if (is_taken(c, at.slot)) {
            struct page *p = old_page(c, old[at.slot]);

            pte_set_sure(&at, arch_pte_make(page_pfn(p), old[at.slot] & ~(ARCH_PTE_FRAME | ARCH_PTE_PRESENT)));
            c->mm->rss++;
        }
    }
    spin_unlock(&c->mm->page_table_lock);
}

static bool nobody_else(const struct collapse *c, const uint64_t *old)
{
    for (uint32_t i = 0; i < HUGE_PAGES; i++) {
        if (is_taken(c, i) && page_refs(old_page(c, old[i])) != 2) {
            return false;
        }
    }
    return true;
}

static void copy_all(const struct collapse *c, const uint64_t *old)
{
    for (uint32_t i = 0; i < HUGE_PAGES; i++) {
        pfn_t to = pfn_make(c->to->pfn + i);

        if (is_taken(c, i)) {
            arch_page_copy(to, page_pfn(old_page(c, old[i])));
        } else {
            arch_page_clear(to);
        }
    }
}

/* Map the new page. pre: the table has no entry, the new page is locked */
static mm_status_t map_huge(const struct collapse *c)
{
    uint64_t bits = ARCH_PTE_USER | ARCH_PTE_ACCESSED | (c->vma->flags & VM_WRITE ? ARCH_PTE_WRITE : 0);
    mm_status_t status;
    struct pte_ref at;

    spin_lock(&c->mm->page_table_lock);
    if (!pgtable_huge_begin(c->mm, c->base, &at)) {
        ASSERT(false);                          /* I1: nobody faults */
    }
    rmap_add_anon(c->to, c->vma, c->base);
    page_set_flags(c->to, PG_UPTODATE);
    if (c->vma->flags & VM_LOCKED) {
        page_set_flags(c->to, PG_MLOCKED);
    }
    status = pte_set(&at, arch_pte_make(page_pfn(c->to), bits));
    if (status == MM_OK) {
        c->mm->rss += HUGE_PAGES;
    } else {
        rmap_remove(c->to);
        pgtable_huge_abort(c->mm, c->base, &at);
    }
    spin_unlock(&c->mm->page_table_lock);
    return status;
}

/* Let go of the old pages: unlocked, and unmapped for good where the new one is in their place. */
static void release_pages(const struct collapse *c, const uint64_t *old, bool done)
{
    for (uint32_t i = 0; i < HUGE_PAGES; i++) {
        struct page *p;

        if (!is_taken(c, i)) {
            continue;
        }
        p = old_page(c, old[i]);
        if (done) {
            rmap_remove(p);
            page_clear_flags(p, PG_MLOCKED);
        }
        page_unlock(p);
        if (done) {
            put_mapping(c->mm->vm, p);
        }
        page_put(c->mm->vm->mm, p);
    }
}

/* pre: mmap_lock for writing, to is new. It is the caller's still where this fails. */
static mm_status_t collapse_locked(struct collapse *c)
{
    uint64_t old[HUGE_PAGES];
    struct pte_ref at = { .table = c->table };
    mm_status_t status = lock_pages(c);

    if (status != MM_OK) {
        for (; at.slot < HUGE_PAGES; at.slot++) {
            old[at.slot] = is_taken(c, at.slot) ? pte_read(&at) : 0;
        }
        release_pages(c, old, false);
        return status;
    }
    take_entries(c, old);
    status = nobody_else(c, old) ? MM_OK : MM_EAGAIN;
    if (status == MM_OK) {
        copy_all(c, old);
        page_lock(c->to);
        status = map_huge(c);
        if (status == MM_OK) {
            vm_lru_add(c->mm->vm, c->to);
        }
        page_unlock(c->to);
    }
    if (status != MM_OK) {
        entries_back(c, old);
    }
    release_pages(c, old, status == MM_OK);
    return status;
}

/* The vma that wants base to be one page and may be read; NULL. pre: mmap_lock */
static struct vm_area *willing_vma(struct mm_struct *mm, uint64_t base)
{
    struct vm_area *v = find_vma(mm, base);

    return v != NULL && v->start <= base && (v->flags & VM_ACCESS) && thp_wanted(v, base) ? v : NULL;
}

mm_status_t thp_collapse(struct mm_struct *mm, uint64_t va)
{
    struct collapse c = { .mm = mm, .base = pte_huge_base(va) };
    mm_status_t status;

    if (va >= ARCH_USER_END) {
        return MM_EINVAL;
    }
    read_lock(&mm->mmap_lock);
    c.vma = willing_vma(mm, c.base);
    status = c.vma != NULL && able(&c) ? MM_OK : MM_EINVAL;
    read_unlock(&mm->mmap_lock);
    if (status != MM_OK) {
        return status;
    }
    c.to = alloc_pages(mm->vm->mm, GFP_TRANSHUGE, HUGE_ORDER);
    if (c.to == NULL) {
        vm_count(mm->vm, VMC_thp_collapse_fail, 1);
        return MM_ENOMEM;
    }
    write_lock(&mm->mmap_lock);
    c.vma = willing_vma(mm, c.base);
    if (c.vma == NULL || !able(&c)) {
        status = MM_EINVAL;
    } else if (anon_vma_prepare(c.vma) != MM_OK) {
        status = MM_ENOMEM;
    } else {
        status = collapse_locked(&c);
    }
    write_unlock(&mm->mmap_lock);
    if (status != MM_OK) {
        page_put(mm->vm->mm, c.to);
    }
    vm_count(mm->vm, status == MM_OK ? VMC_thp_collapse : VMC_thp_collapse_fail, 1);
    return status;
}

/* ---- the background ---- */

static bool spend(uint64_t *budget, uint64_t cost)
{
    bool enough = *budget >= cost;

    *budget = enough ? *budget - cost : 0;
    return enough;
}

/* The next range at or above *va that might be collapsed: true, and *va is its base. False: there is none (*va is UINT64_MAX), or the budget is out at *va. */
static bool next_range(struct mm_struct *mm, uint64_t *va, uint64_t *budget)
{
    uint64_t at = *va;
    bool found = false, out = false;

    read_lock(&mm->mmap_lock);
    for (struct vm_area *v = find_vma(mm, at); v != NULL && !found && !out; v = v->next) {
        uint64_t base = pte_huge_base((v->start > at ? v->start : at) + HUGE_BYTES - 1);

        out = !spend(budget, 1);
        for (; !out && base + HUGE_BYTES <= v->end && thp_wanted(v, base); base += HUGE_BYTES) {       /* what it says of one it says of all within */
            struct collapse c = { .mm = mm, .base = base, .vma = willing_vma(mm, base) };

            out = !spend(budget, KHUGEPAGED_RANGE);
            found = !out && c.vma != NULL && able(&c);
            if (found || out) {
                break;
            }
        }
        at = found || out ? base : at;
    }
    read_unlock(&mm->mmap_lock);
    *va = found || out ? at : UINT64_MAX;
    return found;
}

/* The process behind mm on the list (the first for NULL), with a user; mm's is put. */
static struct mm_struct *next_process(struct vm *vm, struct mm_struct *mm)
{
    struct mm_struct *next;

    spin_lock(&vm->lock);
    for (next = mm != NULL ? mm->next : vm->mms; next != NULL; next = next->next) {
        int32_t users = atomic_load_explicit(&next->users, memory_order_relaxed);

        while (users > 0 && !atomic_compare_exchange_weak(&next->users, &users, users + 1)) {
        }
        if (users > 0) {
            break;
        }
    }
    spin_unlock(&vm->lock);
    if (mm != NULL) {
        mm_put(mm);
    }
    return next;
}

uint64_t khugepaged_scan(struct vm *vm, uint64_t ranges)
{
    uint64_t done = 0, budget = UINT64_MAX;
    struct mm_struct *mm = next_process(vm, NULL);

    while (mm != NULL && ranges > 0) {
        for (uint64_t va = 0; ranges > 0 && next_range(mm, &va, &budget); va += HUGE_BYTES, ranges--) {
            mm_status_t status = thp_collapse(mm, va);

            done += status == MM_OK;
            if (status == MM_ENOMEM) {
                ranges = 1;                     /* others will not get one either */
            }
        }
        mm = next_process(vm, mm);
    }
    if (mm != NULL) {
        mm_put(mm);
    }
    return done;
}

/* The process where the last tick ended, if it is one still; else the first, from its beginning. */
static struct mm_struct *resume(struct vm *vm)
{
    struct mm_struct *mm;
    bool there = false;

    spin_lock(&vm->lock);
    for (mm = vm->mms; mm != NULL && mm != vm->khugepaged_mm; mm = mm->next) {
    }
    if (mm != NULL) {
        int32_t users = atomic_load_explicit(&mm->users, memory_order_relaxed);

        while (users > 0 && !atomic_compare_exchange_weak(&mm->users, &users, users + 1)) {
        }
        there = users > 0;
    }
    spin_unlock(&vm->lock);
    if (!there) {
        vm->khugepaged_va = 0;
    }
    return there ? mm : next_process(vm, NULL);
}

uint64_t khugepaged_tick(struct vm *vm)
{
    uint64_t done = 0, budget = KHUGEPAGED_BUDGET;
    struct mm_struct *mm;

    if (atomic_load_explicit(&vm->thp_policy, memory_order_relaxed) == THP_NEVER) {
        return 0;
    }
    if (vm->khugepaged_defer > 0) {
        vm->khugepaged_defer--;
        return 0;
    }
    mm = resume(vm);
    while (mm != NULL && budget > 0) {
        uint64_t va = vm->khugepaged_va;

        for (; budget > 0 && next_range(mm, &va, &budget); va += HUGE_BYTES) {
            mm_status_t status = thp_collapse(mm, va);

            done += status == MM_OK;
            if (status == MM_ENOMEM) {
                vm->khugepaged_defer = KHUGEPAGED_DEFER_TICKS;
                budget = 0;
            }
        }
        vm->khugepaged_va = va;
        if (va == UINT64_MAX) {                 /* this one is done */
            vm->khugepaged_va = 0;
            mm = next_process(vm, mm);
            (void)spend(&budget, 1);
        }
    }
    vm->khugepaged_mm = mm;
    if (mm != NULL) {
        mm_put(mm);
    }
    return done;
}
