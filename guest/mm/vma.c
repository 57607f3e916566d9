/*
 * vma.c - mmap, munmap, mprotect, mlock: changing what is mapped in an address space.
 *
 * Owns: the life of struct vm_area; its range, flags and place in the lists.
 * Invariants:
 *   I1  what may fail (splitting needs memory) comes before anything is taken away.
 *   I2  the range of a vma that the reverse maps know changes under their locks; where it is cut or joined, the two parts together
 *       cover every page at every moment.
 *   I3  flags change under mmap_lock for writing and page_table_lock, so the reverse maps and faults each see one of both.
 *   I4  neighbours that could be one vma are one after each call.
 *   I5  a huge mapping lies in one vma: what would be cut in the middle of one has it split first.
 * Lock order: mmap_lock, i_mmap_lock, the family's lock, page_table_lock.
 * Why: the entries follow lazily: new rights come with the next fault, rights that go are taken at once and flushed.
 * Cost: O(log vmas) and the entries of the range.
 *
 * Layer: L3
 */
#include "vma.h"
#include "anon_vma.h"
#include "fault.h"
#include "mempolicy.h"
#include "pagecache.h"
#include "pgtable.h"
#include "rmap.h"
#include "slab.h"
#include "thp.h"
#include "frameshift/assert.h"

static bool range_ok(uint64_t va, uint64_t bytes)
{
    return (va | bytes) % FS_PAGE_BYTES == 0 && bytes != 0 && bytes <= ARCH_USER_END && va <= ARCH_USER_END - bytes;
}

/* ---- the locks of the reverse maps that know a vma ---- */

static void rmap_lock(struct vm_area *v)
{
    if (v->file != NULL) {
        spin_lock(&v->file->i_mmap_lock);
    }
    if (v->anon_vma != NULL) {
        anon_vma_lock(v->anon_vma);
    }
}

static void rmap_unlock(struct vm_area *v)
{
    if (v->anon_vma != NULL) {
        anon_vma_unlock(v->anon_vma);
    }
    if (v->file != NULL) {
        spin_unlock(&v->file->i_mmap_lock);
    }
}

void vma_free(struct vm_area *v)
{
    if (v->file != NULL) {
        spin_lock(&v->file->i_mmap_lock);
        i_mmap_unlink(v);
        spin_unlock(&v->file->i_mmap_lock);
    }
    anon_vma_unlink(v);
    mpol_put(v->mm->vm, v->policy);
    kmem_cache_free(v->mm->vm->vma_cache, v);
}

/* ---- cutting and joining ---- */

/* Cut v at va: it keeps the lower part. pre: mmap_lock for writing */
static mm_status_t vma_split(struct vm_area *v, uint64_t va)
{
    struct mm_struct *mm = v->mm;
    struct vm_area *upper;

    if (v->flags & VM_HUGETLB && va % HUGE_BYTES != 0) {
        return MM_EINVAL;
    }
    upper = kmem_cache_alloc(mm->vm->vma_cache, GFP_KERNEL);
    if (upper == NULL) {
        return MM_ENOMEM;
    }
    *upper = (struct vm_area){ .mm = mm, .start = va, .end = v->end, .pgoff = vma_index(v, va), .flags = v->flags, .file = v->file };
    if (anon_vma_clone(upper, v) != MM_OK) {
        kmem_cache_free(mm->vm->vma_cache, upper);
        return MM_ENOMEM;
    }
    upper->policy = mpol_get(v->policy);
    if (va % HUGE_BYTES != 0) {
        thp_split_at(mm, va);                   /* I5; needs no memory */
    }
    mm->total_pages -= vma_pages(upper);        /* counted again by the insertion */
    mm->locked_pages -= v->flags & VM_LOCKED ? vma_pages(upper) : 0;
    rmap_lock(v);                               /* I2: for a moment both cover the upper part */
    if (v->file != NULL) {
        i_mmap_link(upper, v);
    }
    v->end = va;
    rmap_unlock(v);
    vma_insert(mm, upper);
    return MM_OK;
}

/* No vma crosses va afterwards. */
static mm_status_t split_at(struct mm_struct *mm, uint64_t va)
{
    struct vm_area *v = find_vma(mm, va);

    return v != NULL && v->start < va ? vma_split(v, va) : MM_OK;
}

/* I4: join v to the one before it if they could be one. */
static void merge_with_prev(struct vm_area *v)
{
    struct vm_area *p = v->prev;

    if (p == NULL || p->end != v->start || p->flags != v->flags || p->file != v->file || p->pgoff + vma_pages(p) != v->pgoff
        || (v->anon_vma != NULL && v->anon_vma != p->anon_vma) || !mpol_equal(v->policy, p->policy)) {
        return;
    }
    vma_remove(v->mm, v);
    v->mm->total_pages += vma_pages(v);
    v->mm->locked_pages += v->flags & VM_LOCKED ? vma_pages(v) : 0;
    rmap_lock(p);
    p->end = v->end;                            /* I2 */
    rmap_unlock(p);
    vma_free(v);
}

/* The vmas of [start, end) with their neighbours. */
static void merge_range(struct mm_struct *mm, uint64_t start, uint64_t end)
{
    struct vm_area *v = find_vma(mm, start);

    while (v != NULL && v->start <= end) {
        struct vm_area *next = v->next;

        merge_with_prev(v);
        v = next;
    }
}

/* [start, end) is mapped throughout. */
static bool no_holes(const struct mm_struct *mm, uint64_t start, uint64_t end)
{
    const struct vm_area *v = find_vma(mm, start);

    while (v != NULL && v->start <= start && v->end < end) {
        start = v->end;
        v = v->next;
    }
    return v != NULL && v->start <= start;
}

/* ---- mmap and munmap ---- */

static uint64_t align_up(uint64_t va, uint64_t align)
{
    return (va + align - 1) & ~(align - 1);
}

/* The first gap of bytes at or above from, aligned; 0: none. */
static uint64_t gap_from(const struct mm_struct *mm, uint64_t from, uint64_t bytes, uint64_t align)
{
    from = align_up(from, align);
    for (const struct vm_area *v = find_vma(mm, from); v != NULL && v->start < from + bytes; v = v->next) {
        from = v->end > from ? align_up(v->end, align) : from;
    }
    return from <= ARCH_USER_END - bytes ? from : 0;
}

static mm_status_t unmap_locked(struct mm_struct *mm, uint64_t start, uint64_t end)
{
    struct vm_area *v;
    mm_status_t status = split_at(mm, start);           /* I1 */

    if (status == MM_OK) {
        status = split_at(mm, end);
    }
    if (status != MM_OK) {
        merge_range(mm, start, end);
        return status;
    }
    v = find_vma(mm, start);
    while (v != NULL && v->start < end) {
        struct vm_area *next = v->next;

        zap_range(v, v->start, v->end);
        vma_remove(mm, v);
        vma_free(v);
        v = next;
    }
    pgtable_prune(mm, start, end);
    return MM_OK;
}

static bool mmap_ok(const struct mm_struct *mm, uint64_t va, uint64_t bytes, unsigned flags, const struct address_space *file, uint64_t pgoff)
{
    bool pool = (flags & VM_HUGETLB) != 0, shared = (flags & VM_SHARED) != 0;

    if (!range_ok(va, bytes) || (flags & ~(VM_ACCESS | VM_SHARED | VM_HUGETLB)) != 0 || (file == NULL && (shared || pgoff != 0))
        || pgoff + bytes / FS_PAGE_BYTES < pgoff || (file != NULL && (file->hugetlb != pool || (file->ops != NULL && !shared)))) {
        return false;
    }
    if (!pool) {
        return true;
    }
    return mm->vm->hugetlb != NULL && (va | bytes | pgoff * FS_PAGE_BYTES) % HUGE_BYTES == 0 && (file != NULL) == shared
           && (file == NULL || pgoff + bytes / FS_PAGE_BYTES <= hugetlb_file_pages(file));
}

/* Pages of the pool that a new mapping is promised: a shared one has the promises of its file. */
static uint64_t promised(uint64_t bytes, unsigned flags)
{
    return (flags & (VM_HUGETLB | VM_SHARED)) == VM_HUGETLB ? bytes / HUGE_BYTES : 0;
}

mm_status_t vm_mmap(struct mm_struct *mm, uint64_t *va, uint64_t bytes, unsigned flags, struct address_space *file, uint64_t pgoff)
{
    uint64_t align = flags & VM_HUGETLB || (file == NULL && bytes >= HUGE_BYTES) ? HUGE_BYTES : FS_PAGE_BYTES;
    struct vm_area *v;
    mm_status_t status;

    if (!mmap_ok(mm, *va, bytes, flags, file, pgoff)) {
        return MM_EINVAL;
    }
    flags |= file != NULL && file->ops != NULL ? VM_PFNMAP : 0;
    if (promised(bytes, flags) != 0 && hugetlb_reserve(mm->vm, promised(bytes, flags)) != MM_OK) {
        return MM_ENOMEM;
    }
    v = kmem_cache_alloc(mm->vm->vma_cache, GFP_KERNEL);
    if (v == NULL) {
        hugetlb_unreserve(mm->vm, promised(bytes, flags));
        return MM_ENOMEM;
    }
    write_lock(&mm->mmap_lock);
    if (*va == 0) {
        *va = gap_from(mm, mm->map_hint, bytes, align);
        *va = *va == 0 ? gap_from(mm, VM_MAP_BASE, bytes, align) : *va;
        status = *va == 0 ? MM_ENOMEM : MM_OK;
    } else {
        status = unmap_locked(mm, *va, *va + bytes);
    }
    if (status != MM_OK) {
        write_unlock(&mm->mmap_lock);
        kmem_cache_free(mm->vm->vma_cache, v);
        hugetlb_unreserve(mm->vm, promised(bytes, flags));
        return status;
    }
    *v = (struct vm_area){ .mm = mm, .start = *va, .end = *va + bytes, .flags = flags, .file = file,
                           .pgoff = file != NULL ? pgoff : *va / FS_PAGE_BYTES };
    vma_insert(mm, v);
    if (file != NULL) {
        spin_lock(&file->i_mmap_lock);
        i_mmap_link(v, NULL);
        spin_unlock(&file->i_mmap_lock);
    }
    mm->map_hint = v->end;
    merge_range(mm, v->start, v->end);
    write_unlock(&mm->mmap_lock);
    return MM_OK;
}

mm_status_t vm_munmap(struct mm_struct *mm, uint64_t va, uint64_t bytes)
{
    mm_status_t status;

    if (!range_ok(va, bytes)) {
        return MM_EINVAL;
    }
    write_lock(&mm->mmap_lock);
    status = unmap_locked(mm, va, va + bytes);
    write_unlock(&mm->mmap_lock);
    return status;
}

/* ---- rights ---- */

static void set_flags(struct vm_area *v, uint32_t flags)
{
    uint64_t pages = vma_pages(v);

    if ((v->flags ^ flags) & VM_LOCKED) {
        v->mm->locked_pages = flags & VM_LOCKED ? v->mm->locked_pages + pages : v->mm->locked_pages - pages;
    }
    spin_lock(&v->mm->page_table_lock);         /* I3 */
    v->flags = flags;
    spin_unlock(&v->mm->page_table_lock);
}

static struct page *pte_page(const struct vm_area *v, uint64_t e)
{
    return mm_page(v->mm->vm->mm, pte_pfn(e));
}

/* What the vma's rights make of one entry. pre: page_table_lock; the caller flushes */
static void protect_one(const struct vm_area *v, const struct pte_ref *at)
{
    uint64_t e = pte_read(at), old = e, lost = 0;
    bool write = (v->flags & VM_WRITE) != 0, none = (v->flags & VM_ACCESS) == 0;

    if (pte_present(e) && none) {
        old = pte_exchange(at, pte_soft_make(PTE_NO_ACCESS, pte_pfn(e).n, pte_write(e)));
        lost = old & ARCH_PTE_DIRTY;
    } else if (pte_present(e) && pte_write(e) && !write) {
        old = pte_clear_bits(at, ARCH_PTE_WRITE, &lost);
    } else if (pte_is(e, PTE_NO_ACCESS) && !none) {
        uint64_t bits = ARCH_PTE_USER | (pte_write(e) && write ? ARCH_PTE_WRITE : 0);

        if (pte_set(at, arch_pte_make(pte_pfn(e), bits)) != MM_OK) {
            return;                             /* the next fault tries again */
        }
    } else if (pte_is(e, PTE_MIGRATION) && pte_write(e) && !write && !none) {
        (void)pte_exchange(at, pte_soft_make(PTE_MIGRATION, pte_soft_number(e), false));
    }
    if (lost & ARCH_PTE_DIRTY) {
        rmap_page_dirty(pte_page(v, old));
    }
}

static void protect_range(struct vm_area *v)
{
    for (uint64_t va = v->start; va < v->end;) {
        uint64_t end = pte_table_end(va) < v->end ? pte_table_end(va) : v->end;
        struct pte_ref at;

        spin_lock(&v->mm->page_table_lock);
        if (pgtable_find(v->mm, va, &at)) {
            for (uint64_t a = va; a < end; a += pte_pages(&at) * FS_PAGE_BYTES, at.slot++) {
                protect_one(v, &at);
            }
            pte_flush(v->mm, va, (end - va) / FS_PAGE_BYTES);
        }
        spin_unlock(&v->mm->page_table_lock);
        va = end;
    }
}

/* Cut at both ends and look for holes. pre: mmap_lock for writing */
static mm_status_t cut_out(struct mm_struct *mm, uint64_t start, uint64_t end)
{
    mm_status_t status = no_holes(mm, start, end) ? split_at(mm, start) : MM_EINVAL;

    return status == MM_OK ? split_at(mm, end) : status;
}

mm_status_t vm_mprotect(struct mm_struct *mm, uint64_t va, uint64_t bytes, unsigned access)
{
    mm_status_t status;

    if (!range_ok(va, bytes) || (access & ~VM_ACCESS) != 0) {
        return MM_EINVAL;
    }
    write_lock(&mm->mmap_lock);
    status = cut_out(mm, va, va + bytes);
    for (struct vm_area *v = find_vma(mm, va); status == MM_OK && v != NULL && v->start < va + bytes; v = v->next) {
        set_flags(v, (v->flags & ~VM_ACCESS) | access);
        if (v->flags & VM_PFNMAP) {
            zap_range(v, v->start, v->end);     /* the next fault asks for the frames again */
        } else {
            protect_range(v);
        }
    }
    merge_range(mm, va, va + bytes);
    write_unlock(&mm->mmap_lock);
    return status;
}

/* ---- mlock ---- */

static void lock_page_now(struct vm *vm, struct page *page)
{
    page_lock(page);
    if (!page_test(page, PG_MLOCKED) && page_mapped_locked(vm, page)) {
        page_set_flags(page, PG_MLOCKED);
        vm_lru_mlock(vm, page);
    }
    page_unlock(page);
}

/* Pages that are mapped already. pre: mmap_lock */
static void mark_pages(struct vm_area *v, uint64_t start, uint64_t end, bool lock)
{
    uint64_t pages;

    for (uint64_t va = start; va < end; va += pages * FS_PAGE_BYTES) {
        struct page *page = follow_unit(v->mm, va, &pages);

        if (page != NULL) {
            if (lock) {
                lock_page_now(v->mm->vm, page);
            } else {
                munlock_page(v->mm->vm, page);
            }
            page_put(v->mm->vm->mm, page);
        }
    }
}

static mm_status_t change_locked(struct mm_struct *mm, uint64_t va, uint64_t bytes, uint32_t locked)
{
    mm_status_t status;

    if (!range_ok(va, bytes)) {
        return MM_EINVAL;
    }
    write_lock(&mm->mmap_lock);
    status = cut_out(mm, va, va + bytes);
    for (struct vm_area *v = find_vma(mm, va); status == MM_OK && v != NULL && v->start < va + bytes; v = v->next) {
        uint32_t was = v->flags;

        set_flags(v, (was & ~VM_LOCKED) | locked);
        if ((was ^ locked) & VM_LOCKED) {
            mark_pages(v, v->start, v->end, locked != 0);
        }
    }
    merge_range(mm, va, va + bytes);
    write_unlock(&mm->mmap_lock);
    return status;
}

mm_status_t vm_mlock(struct mm_struct *mm, uint64_t va, uint64_t bytes)
{
    mm_status_t status = change_locked(mm, va, bytes, VM_LOCKED);

    for (uint64_t a = va; status == MM_OK && a < va + bytes; a += FS_PAGE_BYTES) {
        status = vm_populate(mm, a);
    }
    return status;
}

mm_status_t vm_munlock(struct mm_struct *mm, uint64_t va, uint64_t bytes)
{
    return change_locked(mm, va, bytes, 0);
}

/* ---- memory policy ---- */

/* What the parts of [start, end) that are mapped shared may need. pre: mmap_lock */
static mm_status_t ranges_for(const struct mm_struct *mm, uint64_t start, uint64_t end, struct policy_range **spare)
{
    uint32_t n = 0;

    for (const struct vm_area *v = find_vma(mm, start); v != NULL && v->start < end; v = v->next) {
        n += v->flags & VM_SHARED ? POLICY_RANGES_A_SET : 0;
    }
    return policy_ranges_new(mm->vm, n, spare);
}

mm_status_t vm_set_range_policy(struct mm_struct *mm, uint64_t va, uint64_t bytes, struct mempolicy *policy)
{
    struct policy_range *spare = NULL;
    mm_status_t status;

    if (!range_ok(va, bytes)) {
        return MM_EINVAL;
    }
    write_lock(&mm->mmap_lock);
    status = no_holes(mm, va, va + bytes) ? cut_out(mm, va, va + bytes) : MM_EFAULT;
    if (status == MM_OK) {
        status = ranges_for(mm, va, va + bytes, &spare);       /* I1 */
    }
    for (struct vm_area *v = find_vma(mm, va); status == MM_OK && v != NULL && v->start < va + bytes; v = v->next) {
        if (v->flags & VM_SHARED) {
            shared_policy_set(mm->vm, &v->file->policy, v->pgoff, v->pgoff + vma_pages(v), policy, &spare);
        } else {
            mpol_put(mm->vm, v->policy);
            v->policy = mpol_get(policy);
        }
    }
    merge_range(mm, va, va + bytes);
    write_unlock(&mm->mmap_lock);
    policy_ranges_free(mm->vm, spare);
    return status;
}

/* ---- madvise ---- */

mm_status_t vm_madvise(struct mm_struct *mm, uint64_t va, uint64_t bytes, enum vm_advice advice)
{
    uint32_t set = advice == MADV_HUGEPAGE ? VM_HUGEPAGE : VM_NOHUGEPAGE;
    mm_status_t status;

    if (!range_ok(va, bytes) || (advice != MADV_HUGEPAGE && advice != MADV_NOHUGEPAGE)) {
        return MM_EINVAL;
    }
    write_lock(&mm->mmap_lock);
    status = cut_out(mm, va, va + bytes);
    for (struct vm_area *v = find_vma(mm, va); status == MM_OK && v != NULL && v->start < va + bytes; v = v->next) {
        set_flags(v, (v->flags & ~(VM_HUGEPAGE | VM_NOHUGEPAGE)) | set);
    }
    merge_range(mm, va, va + bytes);
    write_unlock(&mm->mmap_lock);
    return status;
}
