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
#include "thp.h"
#include "vma.h"
#include "frameshift/assert.h"

#define MIGRATION_SPINS 64u
#define USER_TRIES      1000u

struct fault {
    struct mm_struct *mm;
    struct vm_area *vma;
    uint64_t va;                                /* of the page */
    uint64_t entry;                             /* as it was seen */
    bool write, huge;                           /* huge: it is that of a huge mapping */
    bool empty;                                 /* its table has no entry at all */
};


/* Lock and look again (I1); false: the entry is another one by now, nothing is locked. */
static bool relock(const struct fault *f, struct pte_ref *at)
{
    const uint64_t noise = ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY;
    uint64_t ignored = pte_present(f->entry) ? noise : 0;

    spin_lock(&f->mm->page_table_lock);
    if (pgtable_find(f->mm, f->va, at) && at->huge == f->huge && ((pte_read(at) ^ f->entry) & ~ignored) == 0) {
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

/* The same for a transparent huge page, which is not worth waiting for. */
static struct page *anon_huge_new(const struct fault *f)
{
    const struct mpol_place place = place_of(f);

    if (anon_vma_prepare(f->vma) != MM_OK) {
        return NULL;
    }
    return mpol_alloc(f->mm->vm, &place, GFP_TRANSHUGE & ~__GFP_DIRECT_RECLAIM, HUGE_ORDER);
}

static void unit_clear(const struct page *page)
{
    for (uint64_t i = 0; i < 1ull << page_order(page); i++) {
        arch_page_clear(pfn_make(page->pfn + i));
    }
}

/* Put the value where nothing was. huge: of a huge page, whose place is made first. pre: page_table_lock */
static mm_status_t entry_new(const struct fault *f, struct pte_ref *at, bool huge, uint64_t value)
{
    mm_status_t status;

    if (huge && !pgtable_huge_begin(f->mm, f->va, at)) {
        return MM_EAGAIN;
    }
    status = pte_set(at, value);
    if (status == MM_OK) {
        f->mm->rss += pte_pages(at);
    } else if (huge) {
        pgtable_huge_abort(f->mm, f->va, at);
    }
    return status;
}

/* Map a new page where the entry is as it was seen, in place of old if that is not NULL. Takes over the caller's reference, if it works. */
static mm_status_t anon_page_map_keep(const struct fault *f, struct page *page, struct page *old)
{
    bool huge = page_order(page) != 0;
    mm_status_t status = MM_EAGAIN;
    struct pte_ref at;

    page_lock(page);                            /* I2 */
    if (relock(f, &at)) {
        uint64_t value = entry_for(page, (f->vma->flags & VM_WRITE) != 0);

        rmap_add_anon(page, f->vma, huge ? pte_huge_base(f->va) : f->va);
        page_set_flags(page, PG_UPTODATE);
        mark_mlocked(f, page);
        if (old != NULL) {                      /* I4 */
            uint64_t was = pte_exchange(&at, 0);

            pte_flush_at(f->mm, f->va, &at);
            if (was & ARCH_PTE_DIRTY) {
                rmap_page_dirty(old);
            }
            pte_set_sure(&at, value);
            rmap_remove(old);
            status = MM_OK;
        } else {
            status = entry_new(f, &at, huge, value);
        }
        if (status != MM_OK) {
            rmap_remove(page);
        }
        spin_unlock(&f->mm->page_table_lock);
    }
    if (status == MM_OK && !page_test(page, PG_HUGE)) {
        vm_lru_add(f->mm->vm, page);            /* locked still: it could be moved and gone by now otherwise */
    }
    page_unlock(page);
    return status;
}

/* The same; the reference goes in any case. */
static mm_status_t anon_page_map(const struct fault *f, struct page *page, struct page *old)
{
    mm_status_t status = anon_page_map_keep(f, page, old);

    if (status != MM_OK) {
        page_put(f->mm->vm->mm, page);
    }
    return status;
}

/* A transparent huge page; MM_ENOMEM: small ones instead. */
static mm_status_t fault_zero_huge(const struct fault *f)
{
    struct vm *vm = f->mm->vm;
    struct page *page = anon_huge_new(f);
    mm_status_t status = MM_ENOMEM;

    if (page != NULL) {
        unit_clear(page);
        status = anon_page_map(f, page, NULL);
    }
    vm_count(vm, VMC_thp_fault_alloc, status == MM_OK);
    vm_count(vm, VMC_thp_fault_fallback, status == MM_ENOMEM);
    return status;
}

static mm_status_t fault_zero(const struct fault *f)
{
    mm_status_t status = MM_ENOMEM;
    struct page *page;

    if (f->empty && thp_wanted(f->vma, f->va)) {
        status = fault_zero_huge(f);
    }
    if (status != MM_ENOMEM) {
        return status;
    }
    page = anon_page_new(f, __GFP_ZERO);
    if (page == NULL) {
        return MM_ENOMEM;
    }
    status = anon_page_map(f, page, NULL);
    vm_count(f->mm->vm, VMC_fault_zero, status == MM_OK);
    return status;
}

/* A copy of a huge page that somebody else has too, on which the caller has a reference. A transparent one is split where there is
 * no other: the fault begins anew then. */
static mm_status_t fault_copy_huge(const struct fault *f, struct page *from)
{
    struct vm *vm = f->mm->vm;
    bool pool = page_test(from, PG_HUGE);
    struct page *page = NULL;
    mm_status_t status;

    if (!pool) {
        page = anon_huge_new(f);
    } else if (anon_vma_prepare(f->vma) == MM_OK) {
        const struct mpol_place place = place_of(f);

        page = hugetlb_alloc(vm, false, &place);
    }
    if (page == NULL && !pool) {
        page_lock(from);
        status = page_is_thp(from) ? split_huge_page(vm, from, 1) : MM_EAGAIN;
        page_unlock(from);
        vm_count(vm, VMC_thp_cow_fallback, status == MM_OK);
        return MM_EAGAIN;
    }
    if (page == NULL) {
        return MM_ENOMEM;
    }
    for (uint64_t i = 0; i < HUGE_PAGES; i++) {
        arch_page_copy(pfn_make(page->pfn + i), pfn_make(from->pfn + i));
    }
    status = anon_page_map(f, page, from);
    if (status == MM_OK) {
        if (f->vma->flags & VM_LOCKED) {
            munlock_page(vm, from);
        }
        put_mapping(vm, from);
        vm_count(vm, pool ? VMC_hugetlb_cow : VMC_thp_cow, 1);
    }
    return status;
}

/* A private copy of from, on which the caller has a reference; in place of it where the entry maps it. */
static mm_status_t fault_copy(const struct fault *f, struct page *from)
{
    bool replaces = pte_maps(f->entry);
    struct page *page;
    mm_status_t status;

    if (f->huge) {
        return fault_copy_huge(f, from);
    }
    page = anon_page_new(f, 0);
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

/* ---- the pool of huge pages ---- */

static mm_status_t fault_hugetlb_shared(const struct fault *f)
{
    struct vm *vm = f->mm->vm;
    struct page *page;
    struct pte_ref at;
    uint64_t index = vma_index(f->vma, pte_huge_base(f->va));
    struct mempolicy *policy = vma_policy_get(f->vma, index);
    const struct mpol_place place = { .policy = policy, .index = index };
    mm_status_t status = hugetlb_file_get(f->vma->file, index, &place, &page);

    mpol_put(vm, policy);
    if (status != MM_OK) {
        return status;
    }
    status = MM_EAGAIN;
    if (relock(f, &at)) {
        status = entry_new(f, &at, true, entry_for(page, (f->vma->flags & VM_WRITE) != 0));
        if (status == MM_OK) {
            rmap_add_file(page);
            mark_mlocked(f, page);
        }
        spin_unlock(&f->mm->page_table_lock);
    }
    if (status != MM_OK) {
        page_put(vm->mm, page);
    }
    vm_count(vm, VMC_hugetlb_fault, status == MM_OK);
    return status;
}

static mm_status_t fault_hugetlb(const struct fault *f)
{
    struct vm *vm = f->mm->vm;
    bool reserved = !(f->vma->flags & VM_NORESERVE);
    const struct mpol_place place = place_of(f);
    struct page *page;
    mm_status_t status = MM_ENOMEM;

    if (f->vma->flags & VM_SHARED) {
        return fault_hugetlb_shared(f);
    }
    page = anon_vma_prepare(f->vma) == MM_OK ? hugetlb_alloc(vm, reserved, &place) : NULL;
    if (page != NULL) {
        unit_clear(page);
        status = anon_page_map_keep(f, page, NULL);
        if (status != MM_OK) {
            hugetlb_put_back(vm, page, reserved);
        }
    }
    vm_count(vm, VMC_hugetlb_fault, status == MM_OK);
    return status;
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
    /* I3. There may be no other page in the pool, so a reference of somebody who looks at it for a moment must not force a copy; who moves
     * it has its lock, so mapcount says it all. */
    sole = page_test(page, PG_HUGE) ? atomic_load_explicit(&page->mapcount, memory_order_acquire) == 1 : sole_owner(f->mm->vm, page, 0);
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
    if (page_test(page, PG_HUGE) && page_test(page, PG_LOCKED)) {
        status = MM_EAGAIN;                     /* it is being moved: afterwards it may turn out to be ours alone */
    } else {
        status = fault_copy(f, page);
    }
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
    f->huge = f->empty = false;
    f->entry = 0;
    if (pgtable_find(f->mm, f->va, &at)) {
        f->entry = pte_read(&at);
        f->huge = at.huge;
        f->empty = !at.huge && atomic_load_explicit(&at.table->mapcount, memory_order_relaxed) == 0;
    }
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
    if (f->vma->flags & VM_HUGETLB) {
        return fault_hugetlb(f);
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

struct page *follow_unit(struct mm_struct *mm, uint64_t va, uint64_t *pages)
{
    struct page *page = NULL;
    struct pte_ref at;

    *pages = 1;
    spin_lock(&mm->page_table_lock);
    if (va < ARCH_USER_END && pgtable_find(mm, va, &at)) {
        uint64_t e = pte_read(&at);

        *pages = at.huge ? (pte_huge_base(va) + HUGE_BYTES - va) / FS_PAGE_BYTES : 1;
        if (pte_maps(e)) {
            page = mm_page(mm->vm->mm, pte_pfn(e));
            page_get(page);
        }
    }
    spin_unlock(&mm->page_table_lock);
    return page;
}

struct page *follow_page(struct mm_struct *mm, uint64_t va)
{
    uint64_t pages;
    struct page *page = follow_unit(mm, va, &pages);

    while (page != NULL && page_order(page) != 0 && !page_test(page, PG_HUGE)) {
        page_put(mm->vm->mm, page);             /* who keeps it may want this part alone */
        thp_split_at(mm, va);
        page = follow_unit(mm, va, &pages);
    }
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
