/*
 * fault.c - page faults: demand zero, page cache, copy-on-write, swap-in, pages that are being moved.
 *
 * Owns: the change from "not there" to present, and of a shared page into one's own.
 * Invariants:
 *   I1  what was seen of an entry is looked at again under page_table_lock before it is changed; if it has changed, the fault
 *       begins anew.
 *   I2  a page gets its mapping under the page lock, so that whoever finds it by frame (compaction) sees all of it or nothing.
 *   I3  a private page is writable in an entry only if that entry is the page's only one and no swap slot has it.
 *   I4  a copy takes the place of the old page in two steps, with a flush between: no CPU reads the old page after another one
 *       has written to the new one.
 * Lock order: mmap_lock for reading; page lock (only tried under page_table_lock); page_table_lock. Memory is allocated with mmap_lock alone.
 * Why: a page that is being moved is waited for without any lock: whoever moves it needs page_table_lock to put it back.
 * Cost: demand zero: clearing a page, four locks that nobody else wants.
 *
 * Layer: L3
 */
#include "fault.h"
#include "anon_vma.h"
#include "mempolicy.h"
#include "pagecache.h"
#include "pfnmap.h"
#include "pgtable.h"
#include "rmap.h"
#include "swap.h"
#include "vma.h"
#include "frameshift/assert.h"

#define MIGRATION_SPINS 64u
#define USER_TRIES      1000u

struct fault {
    struct mm_struct *mm;
    struct vm_area *vma;
    uint64_t va;                                /* of the page */
    uint64_t entry;                             /* as it was seen */
    bool write;
};

/* Lock and look again (I1); false: the entry is another one by now, nothing is locked. */
static bool relock(const struct fault *f, struct pte_ref *at)
{
    const uint64_t noise = ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY;
    uint64_t ignored = pte_present(f->entry) ? noise : 0;

    spin_lock(&f->mm->page_table_lock);
    if (pgtable_find(f->mm, f->va, at) && ((pte_read(at) ^ f->entry) & ~ignored) == 0) {
        return true;
    }
    spin_unlock(&f->mm->page_table_lock);
    return false;
}

static uint64_t entry_for(const struct page *page, bool write)
{
    return arch_pte_make(page_pfn(page), ARCH_PTE_USER | ARCH_PTE_ACCESSED | (write ? ARCH_PTE_WRITE : 0));
}

/* Flags that a page must have before it is seen in this vma. */
static void mark_mlocked(const struct fault *f, struct page *page)
{
    if (f->vma->flags & VM_LOCKED) {
        page_set_flags(page, PG_MLOCKED);
    }
}

/* ---- new anonymous pages ---- */

/* Where a private page of the vma shall lie. The policy stays while mmap_lock is held. */
static struct mpol_place place_of(const struct fault *f)
{
    return (struct mpol_place){ .policy = vma_policy(f->vma), .index = vma_index(f->vma, f->va) };
}

/* A new page of the vma's own; its contents are the caller's business. */
static struct page *anon_page_new(const struct fault *f, gfp_t more)
{
    const struct mpol_place place = place_of(f);

    if (anon_vma_prepare(f->vma) != MM_OK) {
        return NULL;
    }
    return mpol_alloc(f->mm->vm, &place, GFP_HIGH_MOVABLE | more, 0);
}

/* Map a new page where the entry is as it was seen, in place of old if that is not NULL. Takes over the caller's reference. */
static mm_status_t anon_page_map(const struct fault *f, struct page *page, struct page *old)
{
    struct vm *vm = f->mm->vm;
    mm_status_t status = MM_EAGAIN;
    struct pte_ref at;

    page_lock(page);                            /* I2 */
    if (relock(f, &at)) {
        uint64_t value = entry_for(page, (f->vma->flags & VM_WRITE) != 0);

        rmap_add_anon(page, f->vma, f->va);
        page_set_flags(page, PG_UPTODATE);
        mark_mlocked(f, page);
        if (old != NULL) {                      /* I4 */
            uint64_t was = pte_exchange(&at, 0);

            pte_flush(f->mm, f->va, 1);
            if (was & ARCH_PTE_DIRTY) {
                rmap_page_dirty(old);
            }
            pte_set_sure(&at, value);
            rmap_remove(old);
            status = MM_OK;
        } else {
            status = pte_set(&at, value);
            f->mm->rss += status == MM_OK;
        }
        if (status != MM_OK) {
            rmap_remove(page);
        }
        spin_unlock(&f->mm->page_table_lock);
    }
    if (status == MM_OK) {
        vm_lru_add(vm, page);                   /* locked still: it could be moved and gone by now otherwise */
    }
    page_unlock(page);
    if (status != MM_OK) {
        page_put(vm->mm, page);
    }
    return status;
}

static mm_status_t fault_zero(const struct fault *f)
{
    struct page *page = anon_page_new(f, __GFP_ZERO);
    mm_status_t status;

    if (page == NULL) {
        return MM_ENOMEM;
    }
    status = anon_page_map(f, page, NULL);
    vm_count(f->mm->vm, VMC_fault_zero, status == MM_OK);
    return status;
}

/* A private copy of from, on which the caller has a reference; in place of it where the entry maps it. */
static mm_status_t fault_copy(const struct fault *f, struct page *from)
{
    bool replaces = pte_maps(f->entry);
    struct page *page = anon_page_new(f, 0);
    mm_status_t status;

    if (page == NULL) {
        return MM_ENOMEM;
    }
    arch_page_copy(page_pfn(page), page_pfn(from));
    status = anon_page_map(f, page, replaces ? from : NULL);
    if (status == MM_OK && replaces) {
        if (f->vma->flags & VM_LOCKED) {
            munlock_page(f->mm->vm, from);
        }
        put_mapping(f->mm->vm, from);
    }
    vm_count(f->mm->vm, VMC_fault_cow, status == MM_OK);
    return status;
}

/* ---- files ---- */

static mm_status_t file_page_map(const struct fault *f, struct page *page)
{
    uint32_t flags = f->vma->flags;
    mm_status_t status = MM_EAGAIN;
    struct pte_ref at;

    if (flags & VM_LOCKED) {
        page_lock(page);                        /* against a munlock elsewhere that has not seen this entry */
    }
    if (relock(f, &at)) {
        status = pte_set(&at, entry_for(page, (flags & VM_SHARED) && (flags & VM_WRITE)));
        if (status == MM_OK) {
            rmap_add_file(page);
            f->mm->rss++;
            mark_mlocked(f, page);
        }
        spin_unlock(&f->mm->page_table_lock);
    }
    if (flags & VM_LOCKED) {
        page_unlock(page);
    }
    return status;
}

static mm_status_t fault_file(const struct fault *f)
{
    struct vm *vm = f->mm->vm;
    struct page *page;
    mm_status_t status = pagecache_get_policy(f->vma->file, vma_index(f->vma, f->va), f->mm->policy, &page);

    if (status != MM_OK) {
        return status;
    }
    if (f->write && !(f->vma->flags & VM_SHARED)) {
        status = fault_copy(f, page);
        page_put(vm->mm, page);
        return status;
    }
    status = file_page_map(f, page);
    if (status != MM_OK) {
        page_put(vm->mm, page);
        return status;
    }
    vm_count(vm, VMC_fault_file, 1);            /* our reference is the entry's now */
    return MM_OK;
}

/* ---- copy on write ---- */

/* Is the entry the only thing that knows the page? Takes it out of the swap cache if that is the only other. pre: the page is locked,
 * page_table_lock; extra: references that the caller has besides */
static bool sole_owner(struct vm *vm, struct page *page, int32_t extra)
{
    if (atomic_load_explicit(&page->mapcount, memory_order_acquire) != 1) {
        return false;
    }
    if (page_test(page, PG_SWAPCACHE) && !swapcache_try_free(vm->swap, page)) {
        return false;
    }
    return page_refs(page) == 1 + extra;
}

/* pre: page_table_lock. The page may be written where it is. */
static bool may_reuse(const struct fault *f, struct page *page)
{
    bool sole;

    if (f->vma->flags & VM_SHARED) {
        return true;
    }
    if (!page_test(page, PG_ANON) || !page_trylock(page)) {
        return false;
    }
    sole = sole_owner(f->mm->vm, page, 0);      /* I3 */
    page_unlock(page);
    return sole;
}

/* A write to a page that is mapped without write permission. */
static mm_status_t fault_write(const struct fault *f)
{
    struct vm *vm = f->mm->vm;
    struct page *page;
    struct pte_ref at;
    mm_status_t status;

    if (!relock(f, &at)) {
        return MM_EAGAIN;
    }
    page = mm_page(vm->mm, pte_pfn(f->entry));
    if (may_reuse(f, page)) {
        status = pte_set(&at, pte_read(&at) | ARCH_PTE_WRITE | ARCH_PTE_DIRTY);
        spin_unlock(&f->mm->page_table_lock);
        vm_count(vm, VMC_fault_reuse, status == MM_OK);
        return status;
    }
    page_get(page);
    spin_unlock(&f->mm->page_table_lock);
    status = fault_copy(f, page);
    page_put(vm->mm, page);
    return status;
}

/* ---- swap ---- */

/* Map a page of the swap cache. pre: the page is locked and still has the slot */
static mm_status_t swap_page_map(const struct fault *f, struct page *page, swp_entry_t slot)
{
    struct vm *vm = f->mm->vm;
    mm_status_t status = MM_EAGAIN;
    struct pte_ref at;
    bool write = false;

    if (!relock(f, &at)) {
        return MM_EAGAIN;
    }
    rmap_add_anon_shared(page, f->vma, f->va);  /* whose it was first is not known any more */
    page_get(page);                             /* the entry's */
    status = pte_set(&at, entry_for(page, false));
    if (status == MM_OK) {
        f->mm->rss++;
        f->mm->swap_entries--;
        mark_mlocked(f, page);
        swap_free(vm->swap, slot);
        write = f->write && sole_owner(vm, page, 1);
        if (write && pte_set(&at, entry_for(page, true) | ARCH_PTE_DIRTY) == MM_OK) {
            vm_count(vm, VMC_fault_reuse, 1);   /* else the access faults once more */
        }
    } else {
        rmap_remove(page);
    }
    spin_unlock(&f->mm->page_table_lock);
    if (status != MM_OK) {
        page_put(vm->mm, page);
    }
    return status;
}

static mm_status_t fault_swap(const struct fault *f)
{
    swp_entry_t slot = { pte_soft_number(f->entry) };
    const struct mpol_place place = place_of(f);
    struct vm *vm = f->mm->vm;
    struct page *page;
    struct pte_ref at;
    mm_status_t status = anon_vma_prepare(f->vma);

    if (status == MM_OK) {
        status = swapcache_read(vm->swap, slot, GFP_HIGH_MOVABLE, &place, &page);
    }
    if (status != MM_OK) {
        if (relock(f, &at)) {
            spin_unlock(&f->mm->page_table_lock);
            return status;
        }
        return MM_EAGAIN;                       /* another thread was faster, and the slot is gone */
    }
    page_lock(page);
    status = page_test(page, PG_SWAPCACHE) && page->private == slot.v ? swap_page_map(f, page, slot) : MM_EAGAIN;
    page_unlock(page);
    if (status == MM_OK) {
        vm_lru_add(vm, page);
        vm_count(vm, VMC_fault_swapin, 1);
    }
    page_put(vm->mm, page);
    return status;
}

/* ---- the fault ---- */

static mm_status_t fault_no_access(const struct fault *f)
{
    bool write = pte_write(f->entry) && (f->vma->flags & VM_WRITE);
    struct pte_ref at;
    mm_status_t status;

    if (!relock(f, &at)) {
        return MM_EAGAIN;
    }
    status = pte_set(&at, arch_pte_make(pte_pfn(f->entry), ARCH_PTE_USER | (write ? ARCH_PTE_WRITE : 0)));
    spin_unlock(&f->mm->page_table_lock);
    return status;
}

/* pre: mmap_lock for reading, the vma allows the access. MM_EAGAIN: begin anew */
static mm_status_t fault_entry(struct fault *f)
{
    struct pte_ref at;
    mm_status_t status;

    if (f->vma->flags & VM_PFNMAP) {
        return pfnmap_fault(f->vma, f->va);
    }
    status = pgtable_prepare(f->mm, f->va);
    if (status != MM_OK) {
        return status;
    }
    spin_lock(&f->mm->page_table_lock);
    f->entry = pgtable_find(f->mm, f->va, &at) ? pte_read(&at) : 0;
    spin_unlock(&f->mm->page_table_lock);
    if (pte_present(f->entry)) {
        return f->write && !pte_write(f->entry) ? fault_write(f) : MM_OK;
    }
    if (pte_is(f->entry, PTE_SWAP)) {
        return fault_swap(f);
    }
    if (pte_is(f->entry, PTE_NO_ACCESS)) {
        return fault_no_access(f);
    }
    if (pte_is(f->entry, PTE_MIGRATION)) {
        vm_count(f->mm->vm, VMC_fault_migration, 1);
        return MM_EAGAIN;
    }
    return f->vma->file != NULL ? fault_file(f) : fault_zero(f);
}

/* write is decided by the vma where populate is set. */
static mm_status_t fault_loop(struct mm_struct *mm, uint64_t va, bool write, bool populate)
{
    struct fault f = { .mm = mm, .va = va & ~(uint64_t)(FS_PAGE_BYTES - 1), .write = write };
    mm_status_t status = MM_EAGAIN;

    if (va >= ARCH_USER_END) {
        return MM_EINVAL;
    }
    while (status == MM_EAGAIN) {
        read_lock(&mm->mmap_lock);
        f.vma = find_vma(mm, va);
        if (f.vma == NULL || f.vma->start > va) {
            status = MM_EINVAL;
        } else if (populate && (f.vma->flags & VM_ACCESS) == 0) {
            status = MM_OK;
        } else {
            f.write = populate ? (f.vma->flags & (VM_WRITE | VM_SHARED)) == VM_WRITE : write;
            status = f.vma->flags & (f.write ? VM_WRITE : VM_ACCESS) ? fault_entry(&f) : MM_EINVAL;
        }
        read_unlock(&mm->mmap_lock);
        if (status == MM_EAGAIN) {
            vm_count(mm->vm, VMC_fault_retry, 1);
            for (unsigned i = 0; i < MIGRATION_SPINS; i++) {
                arch_cpu_relax();
            }
        }
    }
    vm_count(mm->vm, VMC_fault_bad, status == MM_EINVAL);
    return status;
}

mm_status_t vm_fault(struct mm_struct *mm, uint64_t va, bool write)
{
    return fault_loop(mm, va, write, false);
}

mm_status_t vm_populate(struct mm_struct *mm, uint64_t va)
{
    return fault_loop(mm, va, false, true);
}

struct page *follow_page(struct mm_struct *mm, uint64_t va)
{
    struct page *page = NULL;
    struct pte_ref at;

    spin_lock(&mm->page_table_lock);
    if (va < ARCH_USER_END && pgtable_find(mm, va, &at)) {
        uint64_t e = pte_read(&at);

        if (pte_maps(e)) {
            page = mm_page(mm->vm->mm, pte_pfn(e));
            page_get(page);
        }
    }
    spin_unlock(&mm->page_table_lock);
    return page;
}

/* ---- user memory ---- */

/* One page's part. */
static mm_status_t user_part(struct mm_struct *mm, uint64_t va, void *to, const void *from, uint64_t bytes)
{
    mm_status_t status = MM_OK;
    uint64_t fault;

    for (unsigned tries = 0; status == MM_OK && tries < USER_TRIES; tries++) {
        int done;

        if (arch_space_enter(mm->pgd) != 0) {
            return MM_ENOMEM;
        }
        done = from != NULL ? arch_user_write(va, from, bytes, &fault) : arch_user_read(va, to, bytes, &fault);
        if (done == 0) {
            return MM_OK;
        }
        status = vm_fault(mm, fault, from != NULL);
    }
    return status == MM_OK ? MM_EAGAIN : status;
}

static mm_status_t user_access(struct mm_struct *mm, uint64_t va, void *to, const void *from, uint64_t bytes)
{
    mm_status_t status = MM_OK;

    for (uint64_t done = 0; done < bytes && status == MM_OK;) {
        uint64_t n = FS_PAGE_BYTES - (va + done) % FS_PAGE_BYTES;

        n = n < bytes - done ? n : bytes - done;
        status = user_part(mm, va + done, to != NULL ? (unsigned char *)to + done : NULL,
                           from != NULL ? (const unsigned char *)from + done : NULL, n);
        done += n;
    }
    return status;
}

mm_status_t vm_user_read(struct mm_struct *mm, uint64_t va, void *buf, uint64_t bytes)
{
    return user_access(mm, va, buf, NULL, bytes);
}

mm_status_t vm_user_write(struct mm_struct *mm, uint64_t va, const void *buf, uint64_t bytes)
{
    return user_access(mm, va, NULL, buf, bytes);
}
