/*
 * pfnmap.c - a device's memory mapped into processes: frames that no struct page of ours stands for.
 *
 * Owns: entries with PTE_SPECIAL.
 * Invariants:
 *   I1  an entry of a VM_PFNMAP vma is none, or PTE_SPECIAL with the frame that the device says.
 *   I2  the device is asked for the frame and the entry is made under one page_table_lock, which pfnmap_unmap() takes after the device has
 *       begun to say MM_EAGAIN: so no entry with an old frame is made behind its back.
 *   I3  such an entry is no mapping of a page: it is in no count but its table's, and no walk over pages looks at it.
 * Lock order: mmap_lock, i_mmap_lock, page_table_lock, the device's own.
 * Why: as everything can be asked for again, fork copies no entry and mprotect takes them away: nobody but the fault has to know what they are.
 * Cost: a fault: one call of the device. Unmapping: one look at each process's entries of the range, one flush a table.
 *
 * Layer: L3
 */
#include "pfnmap.h"
#include "pgtable.h"
#include "vma.h"

mm_status_t pfnmap_init(struct vm *vm, struct address_space *as, const struct vma_ops *ops, void *ctx)
{
    mm_status_t status;

    if (ops->frame == NULL || ops->node == NULL || ops->migrate == NULL) {
        return MM_EINVAL;
    }
    status = address_space_init(vm, as, GFP_HIGH_MOVABLE, NULL, ctx);
    as->ops = ops;
    return status;
}

mm_status_t pfnmap_fault(struct vm_area *v, uint64_t va)
{
    mm_status_t status = pgtable_prepare(v->mm, va);
    struct pte_ref at;
    pfn_t pfn;

    if (status != MM_OK) {
        return status;
    }
    spin_lock(&v->mm->page_table_lock);
    if (!pgtable_find(v->mm, va, &at)) {
        status = MM_EAGAIN;
    } else if (pte_none(pte_read(&at))) {
        status = v->file->ops->frame(v->file, vma_index(v, va), &pfn);         /* I2 */
        if (status == MM_OK) {
            status = pte_set(&at, arch_pte_make(pfn, ARCH_PTE_USER | ARCH_PTE_ACCESSED | PTE_SPECIAL | (v->flags & VM_WRITE ? ARCH_PTE_WRITE : 0)));
        }
    }
    spin_unlock(&v->mm->page_table_lock);
    return status;
}

/* pre: i_mmap_lock */
static void unmap_vma(const struct vm_area *v, uint64_t start, uint64_t end)
{
    for (uint64_t va = start; va < end;) {
        uint64_t from = va, stop = pte_table_end(va) < end ? pte_table_end(va) : end;
        struct pte_ref at;

        spin_lock(&v->mm->page_table_lock);
        if (pgtable_find(v->mm, va, &at)) {
            for (; va < stop; va += FS_PAGE_BYTES, at.slot++) {
                if (!pte_none(pte_read(&at))) {
                    (void)pte_exchange(&at, 0);
                }
            }
            pte_flush(v->mm, from, (stop - from) / FS_PAGE_BYTES);
        }
        spin_unlock(&v->mm->page_table_lock);
        va = stop;
    }
}

void pfnmap_unmap(struct address_space *as, uint64_t first, uint64_t end)
{
    spin_lock(&as->i_mmap_lock);
    for (const struct vm_area *v = as->i_mmap; v != NULL; v = v->i_mmap_next) {
        uint64_t low = first > v->pgoff ? first - v->pgoff : 0, high = end > v->pgoff ? end - v->pgoff : 0;

        high = high < vma_pages(v) ? high : vma_pages(v);
        if (low < high) {
            unmap_vma(v, v->start + low * FS_PAGE_BYTES, v->start + high * FS_PAGE_BYTES);
        }
    }
    spin_unlock(&as->i_mmap_lock);
}

void pfnmap_users(struct address_space *as, uint64_t index, const struct mm_struct *mm, bool *others, uint64_t *lowest)
{
    *others = false;
    *lowest = UINT64_MAX;
    spin_lock(&as->i_mmap_lock);
    for (const struct vm_area *v = as->i_mmap; v != NULL; v = v->i_mmap_next) {
        uint64_t va = v->start + (index - v->pgoff) * FS_PAGE_BYTES;

        if (index < v->pgoff || index - v->pgoff >= vma_pages(v)) {
            continue;
        }
        if (v->mm != mm) {
            *others = true;
        } else if (va < *lowest) {
            *lowest = va;
        }
    }
    spin_unlock(&as->i_mmap_lock);
}
