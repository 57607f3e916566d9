/*
 * fork.c - a copy of an address space whose private pages are shared until one side writes.
 *
 * Owns: the copying of entries from parent to child.
 * Invariants:
 *   I1  no entry of a private mapping is writable on either side afterwards, nor becomes so again when a migration ends.
 *   I2  a child's vma is known to the reverse maps, behind its parent's, before its first entry is made: a walk that passed the
 *       parent's entry before it was copied meets the copy later.
 *   I3  the parent's TLBs forget its writable entries before the child can run.
 *   I4  what fails is undone by ending the child; the parent has lost write permissions that the next fault gives back.
 * Lock order: the parent's mmap_lock for writing; the parent's page_table_lock, then the child's (nobody else has the child yet but the
 *   reverse maps, which hold one page_table_lock at a time).
 * Why: entries of a file without private copies are not copied: the child finds the pages in the page cache.
 * Cost: one exchange a writable page; the child's entries are written CHUNK at a time.
 *
 * Layer: L3
 */
#include "vma.h"
#include "anon_vma.h"
#include "mempolicy.h"
#include "pagecache.h"
#include "pgtable.h"
#include "rmap.h"
#include "slab.h"
#include "swap.h"
#include "thp.h"
#include "frameshift/assert.h"

#define CHUNK 64u

struct copy {
    struct vm_area *from, *to;
    uint32_t slots[CHUNK];
    uint64_t values[CHUNK];
    uint32_t count;
};

static struct page *entry_page(const struct vm_area *v, uint64_t e)
{
    return mm_page(v->mm->vm->mm, pte_pfn(e));
}

/* I1: take write permission from the parent's entry; returns what the child gets. pre: both page_table_locks */
static uint64_t entry_share(const struct vm_area *from, const struct pte_ref *at, uint64_t e)
{
    bool private = !(from->flags & VM_SHARED);
    uint64_t lost = 0;

    if (pte_present(e)) {
        if (private && pte_write(e)) {
            (void)pte_clear_bits(at, ARCH_PTE_WRITE, &lost);
            e &= ~ARCH_PTE_WRITE;
        }
        if (lost & ARCH_PTE_DIRTY) {
            rmap_page_dirty(entry_page(from, e));
        }
        return e & ~(ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY);
    }
    if (private && pte_write(e)) {
        e &= ~PTE_SOFT_WRITE;
        (void)pte_exchange(at, e);
    }
    return e;
}

/* The counts that the child's entry stands for. */
static mm_status_t entry_get(struct copy *c, uint64_t e, uint64_t pages)
{
    struct mm_struct *child = c->to->mm;

    if (pte_maps(e)) {
        struct page *page = entry_page(c->from, e);

        page_get(page);
        rmap_dup(page);
        child->rss += pages;
    } else if (pte_is(e, PTE_SWAP)) {
        if (swap_dup(child->vm->swap, (swp_entry_t){ pte_soft_number(e) }) != MM_OK) {
            return MM_ENOMEM;
        }
        child->swap_entries++;
    }
    return MM_OK;
}

/* pre: the parent still has its own, so no count ends here */
static void entry_put(struct copy *c, uint64_t e, uint64_t pages)
{
    struct mm_struct *child = c->to->mm;

    if (pte_maps(e)) {
        struct page *page = entry_page(c->from, e);

        child->rss -= pages;
        rmap_remove(page);
        page_put(child->vm->mm, page);
    } else if (pte_is(e, PTE_SWAP)) {
        child->swap_entries--;
        swap_free(child->vm->swap, (swp_entry_t){ pte_soft_number(e) });
    }
}

/* Write the chunk into the child's table. */
static mm_status_t chunk_fill(struct copy *c, struct page *table)
{
    uint32_t done = pte_fill(table, c->slots, c->values, c->count);
    mm_status_t status = done == c->count ? MM_OK : MM_ENOMEM;

    for (; done < c->count; done++) {
        entry_put(c, c->values[done], 1);
    }
    c->count = 0;
    return status;
}

/* The parent's huge mapping at va for the child too. pre: both page_table_locks; the child's table is empty */
static mm_status_t copy_huge(struct copy *c, uint64_t va, const struct pte_ref *at)
{
    uint64_t e = entry_share(c->from, at, pte_read(at));
    mm_status_t status = entry_get(c, e, HUGE_PAGES);
    struct pte_ref to;

    if (status == MM_OK && !pgtable_huge_begin(c->to->mm, va, &to)) {
        ASSERT(false);
    }
    if (status == MM_OK) {
        status = pte_set(&to, e);
        if (status != MM_OK) {
            pgtable_huge_abort(c->to->mm, va, &to);
            entry_put(c, e, HUGE_PAGES);
        }
    }
    return status;
}

/* Copy [va, end), which one table covers. pre: the child has the table */
static mm_status_t copy_table(struct copy *c, uint64_t va, uint64_t end)
{
    mm_status_t status = MM_OK;
    struct pte_ref at, to;

    spin_lock(&c->from->mm->page_table_lock);
    spin_lock(&c->to->mm->page_table_lock);
    if (pgtable_find(c->from->mm, va, &at) && pgtable_find(c->to->mm, va, &to)) {
        if (at.huge) {
            status = copy_huge(c, va, &at);
            va = end;
        }
        for (; va < end && status == MM_OK; va += FS_PAGE_BYTES, at.slot++) {
            uint64_t e = pte_read(&at);

            if (pte_none(e)) {
                continue;
            }
            e = entry_share(c->from, &at, e);
            status = entry_get(c, e, 1);
            if (status == MM_OK) {
                c->slots[c->count] = at.slot;
                c->values[c->count++] = e;
            }
            if (c->count == CHUNK && status == MM_OK) {
                status = chunk_fill(c, to.table);
            }
        }
        if (c->count != 0) {
            mm_status_t last = chunk_fill(c, to.table);

            status = status == MM_OK ? last : status;
        }
    }
    spin_unlock(&c->to->mm->page_table_lock);
    spin_unlock(&c->from->mm->page_table_lock);
    return status;
}

static bool has_table(struct mm_struct *mm, uint64_t va)
{
    struct pte_ref at;
    bool has;

    spin_lock(&mm->page_table_lock);
    has = pgtable_find(mm, va, &at);
    spin_unlock(&mm->page_table_lock);
    return has;
}

static mm_status_t copy_entries(struct vm_area *from, struct vm_area *to)
{
    struct copy c = { .from = from, .to = to };
    mm_status_t status = MM_OK;

    for (uint64_t va = from->start; va < from->end && status == MM_OK;) {
        uint64_t end = pte_table_end(va) < from->end ? pte_table_end(va) : from->end;

        if (has_table(from->mm, va)) {
            status = pgtable_prepare(to->mm, va);
            if (status == MM_OK) {
                status = copy_table(&c, va, end);
            }
        }
        va = end;
    }
    return status;
}

static mm_status_t vma_fork(struct mm_struct *child, struct vm_area *from)
{
    struct vm_area *v = kmem_cache_alloc(child->vm->vma_cache, GFP_KERNEL);

    if (v == NULL) {
        return MM_ENOMEM;
    }
    *v = (struct vm_area){ .mm = child, .start = from->start, .end = from->end, .pgoff = from->pgoff, .file = from->file,
                           .flags = (from->flags & ~VM_LOCKED) | (from->flags & VM_HUGETLB ? VM_NORESERVE : 0u) };
    if (anon_vma_fork(v, from) != MM_OK) {
        kmem_cache_free(child->vm->vma_cache, v);
        return MM_ENOMEM;
    }
    v->policy = mpol_get(from->policy);
    if (v->file != NULL) {                      /* I2 */
        spin_lock(&v->file->i_mmap_lock);
        i_mmap_link(v, from);
        spin_unlock(&v->file->i_mmap_lock);
    }
    vma_insert(child, v);
    return from->file != NULL && from->anon_vma == NULL ? MM_OK : copy_entries(from, v);
}

mm_status_t mm_fork(struct mm_struct *parent, struct mm_struct **out)
{
    struct mm_struct *child;
    mm_status_t status = mm_create(parent->vm, &child);

    if (status != MM_OK) {
        return status;
    }
    write_lock(&parent->mmap_lock);
    write_lock(&child->mmap_lock);
    child->map_hint = parent->map_hint;
    child->policy = mpol_get(parent->policy);
    for (struct vm_area *v = parent->first; v != NULL && status == MM_OK; v = v->next) {
        status = vma_fork(child, v);
    }
    pte_flush(parent, 0, UINT64_MAX);           /* I3 */
    write_unlock(&child->mmap_lock);
    write_unlock(&parent->mmap_lock);
    if (status != MM_OK) {
        mm_put(child);                          /* I4 */
        return status;
    }
    vm_count(parent->vm, VMC_fork, 1);
    *out = child;
    return MM_OK;
}
