/*
 * mm_struct.c - processes' address spaces come and go; the root of virtual memory.
 *
 * Owns: struct vm, the list of processes, mm_struct.users, hooks.release.
 * Invariants:
 *   I1  a process is on the list from its creation until its last entry is gone.
 *   I2  a page whose last reference goes leaves the lists of reclaim and its anon_vma before it is free.
 * Lock order: vm.lock alone; at exit mmap_lock, then as in zap.c.
 * Why: exit is munmap of everything; whoever still has a page of the process in hand (migration, reclaim) holds a reference
 *   on that page and through it on the anon_vma, and needs no process.
 * Cost: creation: one page table; exit: the entries.
 *
 * Layer: L3
 */
#include "vma.h"
#include "anon_vma.h"
#include "hugetlb.h"
#include "lru.h"
#include "mempolicy.h"
#include "pgtable.h"
#include "slab.h"
#include "frameshift/assert.h"

const char *vm_counter_name(enum vm_counter c)
{
    static const char *const names[VM_COUNTERS] = {
#define X(name) #name,
        VM_COUNTER_LIST(X)
#undef X
    };
    return (unsigned)c < VM_COUNTERS ? names[c] : "bad";
}

/* ---- pages ---- */

/* hooks.release (I2) */
static bool release(struct mm *mm, struct page *page)
{
    if (page_test(page, PG_LRU)) {
        lru_del(mm->vm->lru, page);
    }
    if (page_test(page, PG_ANON)) {
        struct anon_vma *a = page->mapping;

        ASSERT_CMP(atomic_load_explicit(&page->mapcount, memory_order_relaxed), ==, 0);
        page->mapping = NULL;
        page_clear_flags(page, PG_ANON);
        anon_vma_put(mm->vm, a);
    }
    return !page_test(page, PG_HUGE) || hugetlb_release(mm->vm, page);
}

void vm_lru_add(struct vm *vm, struct page *page)
{
    if (vm->lru != NULL) {
        lru_add(vm->lru, page);
    }
}

void vm_lru_mlock(struct vm *vm, struct page *page)
{
    if (vm->lru != NULL) {
        lru_update(vm->lru, page);
    }
}

/* ---- the root ---- */

static void cache_destroy(struct kmem_cache *c)
{
    if (c != NULL && kmem_cache_destroy(c) != MM_OK) {
        ASSERT(false);                          /* a process is left, or a page of one */
    }
}

void vm_destroy(struct vm *vm)
{
    ASSERT(vm->mms == NULL);
    cache_destroy(vm->mm_cache);
    cache_destroy(vm->vma_cache);
    cache_destroy(vm->anon_vma_cache);
    cache_destroy(vm->chain_cache);
    cache_destroy(vm->policy_range_cache);
    cache_destroy(vm->policy_cache);
    vm->mm->hooks.release = NULL;
    vm->mm->vm = NULL;
    *vm = (struct vm){ .mm = NULL };
}

mm_status_t vm_init(struct vm *vm, struct mm *mm)
{
    *vm = (struct vm){ .mm = mm };
    vm->mm_cache = kmem_cache_create(mm, "mm_struct", sizeof(struct mm_struct), 64, KMEM_ACCOUNT, NULL, NULL);
    vm->vma_cache = kmem_cache_create(mm, "vm_area", sizeof(struct vm_area), 0, KMEM_ACCOUNT, NULL, NULL);
    vm->anon_vma_cache = kmem_cache_create(mm, "anon_vma", sizeof(struct anon_vma), 0, KMEM_ACCOUNT, NULL, NULL);
    vm->chain_cache = kmem_cache_create(mm, "anon_vma_chain", sizeof(struct anon_vma_chain), 0, KMEM_ACCOUNT, NULL, NULL);
    vm->policy_cache = kmem_cache_create(mm, "mempolicy", sizeof(struct mempolicy), 0, KMEM_ACCOUNT, NULL, NULL);
    vm->policy_range_cache = kmem_cache_create(mm, "policy_range", sizeof(struct policy_range), 0, KMEM_ACCOUNT, NULL, NULL);
    mm->vm = vm;
    mm->hooks.release = release;
    if (vm->mm_cache == NULL || vm->vma_cache == NULL || vm->anon_vma_cache == NULL || vm->chain_cache == NULL || vm->policy_cache == NULL
        || vm->policy_range_cache == NULL) {
        vm_destroy(vm);
        return MM_ENOMEM;
    }
    return MM_OK;
}

/* ---- processes ---- */

mm_status_t mm_create(struct vm *vm, struct mm_struct **out)
{
    struct mm_struct *mm = kmem_cache_alloc(vm->mm_cache, GFP_KERNEL);

    if (mm == NULL) {
        return MM_ENOMEM;
    }
    *mm = (struct mm_struct){ .vm = vm, .users = 1, .map_hint = VM_MAP_BASE };
    if (pgtable_create(mm) != MM_OK) {
        kmem_cache_free(vm->mm_cache, mm);
        return MM_ENOMEM;
    }
    spin_lock(&vm->lock);                       /* I1 */
    mm->next = vm->mms;
    if (mm->next != NULL) {
        mm->next->prev = mm;
    }
    vm->mms = mm;
    vm->mm_count++;
    spin_unlock(&vm->lock);
    *out = mm;
    return MM_OK;
}

static void unlist(struct mm_struct *mm)
{
    struct vm *vm = mm->vm;

    spin_lock(&vm->lock);
    if (mm->next != NULL) {
        mm->next->prev = mm->prev;
    }
    if (mm->prev != NULL) {
        mm->prev->next = mm->next;
    } else {
        vm->mms = mm->next;
    }
    vm->mm_count--;
    spin_unlock(&vm->lock);
}

void mm_put(struct mm_struct *mm)
{
    int32_t was = atomic_fetch_sub_explicit(&mm->users, 1, memory_order_acq_rel);

    ASSERT_CMP(was, >, 0);
    if (was > 1) {
        return;
    }
    write_lock(&mm->mmap_lock);
    while (mm->first != NULL) {
        struct vm_area *v = mm->first;

        zap_range(v, v->start, v->end);
        vma_remove(mm, v);
        vma_free(v);
    }
    ASSERT(mm->rss == 0 && mm->swap_entries == 0 && mm->total_pages == 0 && mm->locked_pages == 0);
    unlist(mm);
    pgtable_destroy(mm);
    write_unlock(&mm->mmap_lock);
    mpol_put(mm->vm, mm->policy);
    kmem_cache_free(mm->vm->mm_cache, mm);
}
