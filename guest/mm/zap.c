/*
 * zap.c - taking entries away for good.
 *
 * Owns: the way from an entry to the page's or slot's count.
 * Invariants:
 *   I1  a page is let go after its entry was flushed everywhere, and its D bit was handed on before.
 *   I2  PG_MLOCKED goes with the last VM_LOCKED vma that maps the page. Who sets it for what it read in a vma has the page's lock until
 *       then; a migration, whose entries show no page, looks again when it is done.
 * Lock order: mmap_lock for writing is held; page_table_lock, a batch at a time; nothing while pages are put.
 * Why: one flush serves a batch; the lock is dropped between batches, for the reverse maps wait for it.
 * Cost: one exchange an entry, one flush a BATCH.
 *
 * Layer: L3
 */
#include "vma.h"
#include "hugetlb.h"
#include "pgtable.h"
#include "rmap.h"
#include "swap.h"
#include "frameshift/assert.h"

#define BATCH 64u

struct batch {
    uint64_t entries[BATCH];
    uint32_t count;
};

void munlock_page(struct vm *vm, struct page *page)
{
    page_lock(page);                            /* also where the flag is not set: whoever has the lock may have read the vma before us */
    if (page_test(page, PG_MLOCKED) && !page_mapped_locked(vm, page)) {
        page_clear_flags(page, PG_MLOCKED);
        vm_lru_mlock(vm, page);
    }
    page_unlock(page);
}

/* What only the swap cache has left is of no use to anybody; if its lock is not free, reclaim finds it. */
static void drop_from_swapcache(struct vm *vm, struct page *page)
{
    if (page_test(page, PG_SWAPCACHE) && !page_mapped(page) && page_trylock(page)) {
        if (page_test(page, PG_SWAPCACHE) && !page_mapped(page)) {
            (void)swapcache_try_free(vm->swap, page);
        }
        page_unlock(page);
    }
}

void put_mapping(struct vm *vm, struct page *page)
{
    drop_from_swapcache(vm, page);
    page_put(vm->mm, page);
}

/* Take entries of the table from va on; returns the address after the last one looked at. pre: page_table_lock */
static uint64_t take_entries(struct vm_area *v, struct pte_ref at, uint64_t va, uint64_t end, struct batch *b)
{
    for (; va < end && b->count < BATCH; va += pte_pages(&at) * FS_PAGE_BYTES, at.slot++) {
        uint64_t old;

        ASSERT(!at.huge || (va % PTE_HUGE_BYTES == 0 && end - va >= PTE_HUGE_BYTES));
        if (pte_none(pte_read(&at))) {
            continue;
        }
        old = pte_exchange(&at, 0);
        if (pte_maps(old)) {
            v->mm->rss -= pte_pages(&at);
            if (pte_present(old) && (old & ARCH_PTE_DIRTY)) {
                rmap_page_dirty(mm_page(v->mm->vm->mm, pte_pfn(old)));          /* I1 */
            }
        } else if (pte_is(old, PTE_SWAP)) {
            v->mm->swap_entries--;
        }
        b->entries[b->count++] = old;
    }
    return va;
}

static void put_entries(struct vm_area *v, struct batch *b)
{
    struct vm *vm = v->mm->vm;
    struct page *pages[BATCH];
    uint32_t n = 0;

    for (uint32_t i = 0; i < b->count; i++) {
        uint64_t e = b->entries[i];

        if (pte_maps(e)) {
            struct page *page = mm_page(vm->mm, pte_pfn(e));

            rmap_remove(page);
            if (v->flags & VM_LOCKED) {
                munlock_page(vm, page);         /* I2 */
            }
            drop_from_swapcache(vm, page);
            pages[n++] = page;
        } else if (pte_is(e, PTE_SWAP)) {
            swap_free(vm->swap, (swp_entry_t){ pte_soft_number(e) });
        }
    }
    page_put_many(vm->mm, pages, n);
    b->count = 0;
}

/* Pages of the pool that were promised to this range and not taken yet: where there is no entry. */
static uint64_t unused_promises(const struct vm_area *v, uint64_t start, uint64_t end)
{
    struct pte_ref at;
    uint64_t n = 0;

    if ((v->flags & (VM_HUGETLB | VM_SHARED | VM_NORESERVE)) != VM_HUGETLB) {
        return 0;
    }
    spin_lock(&v->mm->page_table_lock);
    for (uint64_t va = start; va < end; va += HUGE_BYTES) {
        n += !pgtable_find(v->mm, va, &at) || !at.huge;
    }
    spin_unlock(&v->mm->page_table_lock);
    return n;
}

void zap_range(struct vm_area *v, uint64_t start, uint64_t end)
{
    struct batch b = { .count = 0 };
    uint64_t unused = unused_promises(v, start, end);

    for (uint64_t va = start; va < end;) {
        uint64_t from = va, stop = pte_table_end(va) < end ? pte_table_end(va) : end;
        struct pte_ref at;

        spin_lock(&v->mm->page_table_lock);
        if (pgtable_find(v->mm, va, &at)) {
            va = take_entries(v, at, va, stop, &b);
            if (b.count != 0) {
                pte_flush(v->mm, from, (va - from) / FS_PAGE_BYTES);
            }
        } else {
            va = stop;
        }
        spin_unlock(&v->mm->page_table_lock);
        put_entries(v, &b);
    }
    if (unused != 0) {
        hugetlb_unreserve(v->mm->vm, unused);
    }
}
