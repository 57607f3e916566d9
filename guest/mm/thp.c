/*
 * thp.c - transparent huge pages: who gets one, and how one becomes small pages again.
 *
 * Layer: L3
 * Owns: vm.thp_policy; the cutting of a unit whose parts are mapped.
 * Invariants:
 *   I1  a page is cut only while nothing maps it (every entry says migration), it is locked, and the caller holds all of its references; these are taken
 *       away for the moment (refs 0), so nobody who finds it by frame gets one.
 *   I2  the parts are locked until every process maps them again: nobody moves one that only some processes have back.
 *   I3  each part is PG_ANON with its own reference on the anon_vma.
 *   I4  it cannot fail half-way: tables lie in the deposit, entries are written until the machine agrees.
 * Lock order: page lock; the family's lock; page_table_lock; lru.lock. The page lock is given up before anything is waited for.
 * Why: everything that knows small pages only (swap, reclaim, devices, parts of a mapping) goes on knowing them only.
 * Cost: 512 struct pages, and for each process an exchange and 512 entries.
 */
#include "thp.h"
#include "anon_vma.h"
#include "lru.h"
#include "rmap.h"
#include "vma.h"
#include "frameshift/assert.h"

#define KEPT_FLAGS (PG_UPTODATE | PG_DIRTY | PG_REFERENCED | PG_ACTIVE | PG_ANON | PG_SWAPBACKED | PG_MLOCKED)
#define BATCH      64u

const char *thp_policy_name(enum thp_policy policy)
{
    static const char *const names[] = { "madvise", "always", "never" };
    return (unsigned)policy < FS_ARRAY_SIZE(names) ? names[policy] : "bad";
}

void thp_set_policy(struct vm *vm, enum thp_policy policy)
{
    atomic_store_explicit(&vm->thp_policy, (unsigned)policy, memory_order_relaxed);
}

bool thp_wanted(const struct vm_area *vma, uint64_t va)
{
    unsigned policy = atomic_load_explicit(&vma->mm->vm->thp_policy, memory_order_relaxed);
    uint64_t base = pte_huge_base(va);

    if (vma->file != NULL || (vma->flags & (VM_HUGETLB | VM_NOHUGEPAGE)) || policy == THP_NEVER
        || (policy == THP_MADVISE && !(vma->flags & VM_HUGEPAGE))) {
        return false;
    }
    return base >= vma->start && base + HUGE_BYTES <= vma->end;
}

/* ---- splitting ---- */

/* Map the parts where the whole was. pre: every part is locked, the table has migration entries for each */
static void map_parts(struct vm_area *vma, struct pte_ref at, struct page *head)
{
    bool none = (vma->flags & VM_ACCESS) == 0, write = pte_write(pte_read(&at)) && (vma->flags & VM_WRITE);
    struct arch_pte_update u[BATCH];

    for (uint32_t i = 0; i < HUGE_PAGES; i += BATCH) {
        unsigned tries = 0;

        for (uint32_t done = 0; done < BATCH;) {
            for (uint32_t k = done; k < BATCH; k++) {
                struct page *p = head + i + k;
                uint64_t value = none ? pte_soft_make(PTE_NO_ACCESS, p->pfn, pte_write(pte_read(&at)))
                                      : arch_pte_make(page_pfn(p), ARCH_PTE_USER | (write ? ARCH_PTE_WRITE : 0));

                u[k] = (struct arch_pte_update){ page_pfn(at.table), i + k, value };
            }
            done += (uint32_t)arch_pte_write(u + done, BATCH - done);
            ASSERT_CMP(++tries, <, 1000000u);   /* I4 */
        }
    }
}

/* A migration entry of the whole becomes entries of the parts. */
static bool split_one(struct vm *vm, struct page *head, struct vm_area *vma, const struct pte_ref *at, uint64_t va, void *arg)
{
    struct pte_ref small;
    uint64_t e = pte_read(at);

    (void)vm, (void)arg;
    if (!at->huge || !pte_is(e, PTE_MIGRATION) || pte_soft_number(e) != head->pfn) {
        return true;
    }
    pgtable_split(vma->mm, va);
    if (!pgtable_find(vma->mm, pte_huge_base(va), &small)) {
        ASSERT(false);
    }
    for (uint32_t i = 0; i < HUGE_PAGES; i++) {
        page_get(head + i);
        rmap_dup(head + i);
        if (vma->flags & VM_LOCKED) {
            page_set_flags(head + i, PG_MLOCKED);
        }
    }
    map_parts(vma, small, head);
    vma->mm->rss += HUGE_PAGES;
    return true;
}

/* I1, I3. Each part has one reference: the caller's of the head, ours of the others. */
static void cut(struct page *head, int32_t held)
{
    uint32_t word = page_word(head), flags = word_flags(word) & KEPT_FLAGS;
    struct anon_vma *a = head->mapping;

    for (uint32_t i = 1; i < HUGE_PAGES; i++) {
        struct page *p = head + i;

        p->mapping = a;
        p->index = head->index + i;
        p->private = 0;
        p->lru_next = p->lru_prev = NULL;
        atomic_store_explicit(&p->mapcount, 0, memory_order_relaxed);
        anon_vma_get(a);
        page_set_word(p, PAGE_WORD(PAGE_USED, 0, word_type(word), flags | PG_LOCKED));
        atomic_store_explicit(&p->refs, 1, memory_order_release);
    }
    page_clear_flags(head, PG_COMP);
    page_set_order(head, 0);
    atomic_store_explicit(&head->refs, held, memory_order_release);
}

mm_status_t split_huge_page(struct vm *vm, struct page *page, int32_t held)
{
    bool listed = page_test(page, PG_LRU);
    int32_t expected = held;
    mm_status_t status;

    ASSERT(page_test(page, PG_LOCKED) && page_is_thp(page));
    if (page_test(page, PG_PINNED | PG_DMA) || page_refs(page) > held + atomic_load_explicit(&page->mapcount, memory_order_relaxed)) {
        return MM_EAGAIN;                       /* seen before every process is made to wait for it */
    }
    if (listed && vm->lru != NULL) {
        lru_del(vm->lru, page);
    }
    status = try_to_unmap(vm, page, UNMAP_MIGRATION);
    if (status == MM_OK && !atomic_compare_exchange_strong(&page->refs, &expected, 0)) {
        status = MM_EAGAIN;
    }
    if (status != MM_OK) {
        remove_migration_ptes(vm, page, page);
        if (listed) {
            vm_lru_add(vm, page);
        }
        vm_count(vm, VMC_thp_split_fail, 1);
        return MM_EAGAIN;
    }
    cut(page, held);
    rmap_walk(vm, page, split_one, NULL);
    vm_count(vm, VMC_thp_split, 1);
    for (uint32_t i = 1; i < HUGE_PAGES; i++) {                 /* I2 */
        vm_lru_add(vm, page + i);
        page_unlock(page + i);
        page_put(vm->mm, page + i);
    }
    if (listed) {
        vm_lru_add(vm, page);
    }
    return MM_OK;
}

/* The transparent huge page at va, with a reference; *again: it is being moved. */
static struct page *thp_at(struct mm_struct *mm, uint64_t va, bool *again)
{
    struct page *page = NULL;
    struct pte_ref at;
    uint64_t e;

    *again = false;
    spin_lock(&mm->page_table_lock);
    if (pgtable_find(mm, va, &at) && at.huge) {
        e = pte_read(&at);
        if (pte_maps(e)) {
            page = mm_page(mm->vm->mm, pte_pfn(e));
            if (page_test(page, PG_HUGE)) {
                page = NULL;                    /* one of the pool is never cut */
            } else {
                page_get(page);
            }
        } else {
            *again = true;
        }
    }
    spin_unlock(&mm->page_table_lock);
    return page;
}

void thp_split_at(struct mm_struct *mm, uint64_t va)
{
    bool again;

    do {
        struct page *page = thp_at(mm, va, &again);

        if (page != NULL) {
            again = true;                       /* look again, whatever came of it */
            page_lock(page);
            if (page_is_thp(page)) {
                (void)!split_huge_page(mm->vm, page, 1);
            }
            page_unlock(page);
            page_put(mm->vm->mm, page);
        }
        if (again) {
            arch_cpu_relax();
        }
    } while (again);
}
