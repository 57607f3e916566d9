/*
 * vma.h - the address space of a process: what is mapped where, and with which rights.
 *
 * Layer: L3.  Addresses and lengths that come from outside are checked here: MM_EINVAL is the answer to whatever is not whole pages
 * below ARCH_USER_END.  Functions named vm_* take mmap_lock; no lock is held by the caller.
 */
#ifndef GUEST_MM_VMA_H
#define GUEST_MM_VMA_H

#include "vm.h"

#define VM_MAP_BASE 0x10000ull                  /* the lowest address that is given */

/* ---- processes (mm_struct.c, fork.c) ---- */

/* An empty address space with one user. MM_ENOMEM */
mm_status_t mm_create(struct vm *vm, struct mm_struct **out) FS_MUST_CHECK;
/* A copy of the parent's: private pages are shared until one of them writes. MM_ENOMEM: the parent is as it was. */
mm_status_t mm_fork(struct mm_struct *parent, struct mm_struct **out) FS_MUST_CHECK;
static inline void mm_get(struct mm_struct *mm) { atomic_fetch_add_explicit(&mm->users, 1, memory_order_relaxed); }
/* The last user's put ends the process: everything is unmapped and freed. */
void mm_put(struct mm_struct *mm);

/* ---- system calls (vma.c) ---- */

/* Map bytes (a multiple of pages, not 0) with flags (VM_*): anonymous where file is NULL, else file from page pgoff on.
 * *va: where, replacing what is there; 0: anywhere, and *va tells. MM_EINVAL, MM_ENOMEM (nothing was changed, or only unmapped).
 * VM_HUGETLB: pages of the pool, all of them promised here (a shared mapping: by hugetlb_file_create()), so a fault of the process that mapped it
 * never lacks one; after a fork each copy is a page that the pool may not have (MM_ENOMEM). Address, size, pgoff and every later munmap, mprotect and
 * mlock of a part are multiples of 2 MiB, else MM_EINVAL. Large anonymous mappings begin at a multiple of it, if nobody says where. */
mm_status_t vm_mmap(struct mm_struct *mm, uint64_t *va, uint64_t bytes, unsigned flags, struct address_space *file, uint64_t pgoff) FS_MUST_CHECK;
/* Unmap what is in [va, va + bytes), which may have holes. MM_EINVAL, MM_ENOMEM (a vma would have to be split): nothing was changed. */
mm_status_t vm_munmap(struct mm_struct *mm, uint64_t va, uint64_t bytes) FS_MUST_CHECK;
/* Other rights: access is of VM_ACCESS, 0 for none. MM_EINVAL: holes; MM_ENOMEM: a part may have them already. */
mm_status_t vm_mprotect(struct mm_struct *mm, uint64_t va, uint64_t bytes, unsigned access) FS_MUST_CHECK;
/* The pages are brought in and stay in memory (they may be moved). MM_EINVAL: holes; MM_ENOMEM: some may be locked. */
mm_status_t vm_mlock(struct mm_struct *mm, uint64_t va, uint64_t bytes) FS_MUST_CHECK;
mm_status_t vm_munlock(struct mm_struct *mm, uint64_t va, uint64_t bytes) FS_MUST_CHECK;

/* Private mappings of [va, va + bytes) have this policy from now on (one more reference each), and objects that are mapped shared there have it
 * for their part of the object, whoever maps it; pages that are there stay (mbind.h moves them). NULL: the next in line decides.
 * MM_EINVAL; MM_EFAULT: holes; MM_ENOMEM: nothing was changed. */
struct mempolicy;
mm_status_t vm_set_range_policy(struct mm_struct *mm, uint64_t va, uint64_t bytes, struct mempolicy *policy) FS_MUST_CHECK;

/* What is wanted of transparent huge pages there from now on. MM_EINVAL: holes; MM_ENOMEM: a part may have it. */
enum vm_advice { MADV_HUGEPAGE, MADV_NOHUGEPAGE };
mm_status_t vm_madvise(struct mm_struct *mm, uint64_t va, uint64_t bytes, enum vm_advice advice) FS_MUST_CHECK;

/* ---- inside (vma_tree.c, zap.c) ---- */

/* The first vma that ends above va, or NULL. pre: mmap_lock */
struct vm_area *find_vma(const struct mm_struct *mm, uint64_t va);
/* pre: mmap_lock for writing; insert: [start, end) is free */
void vma_insert(struct mm_struct *mm, struct vm_area *vma);
void vma_remove(struct mm_struct *mm, struct vm_area *vma);
/* Into and out of the list of the file's vmas: behind another vma of the same file, or in front where after is NULL. pre: i_mmap_lock */
void i_mmap_link(struct vm_area *vma, struct vm_area *after);
void i_mmap_unlink(struct vm_area *vma);
/* Take the vma, which has no entries any more, out of every list and free it. pre: mmap_lock for writing */
void vma_free(struct vm_area *vma);

/* Every entry of [start, end) goes. pre: mmap_lock for writing; inside of the vma */
void zap_range(struct vm_area *vma, uint64_t start, uint64_t end);
/* Drop the reference of an entry that is gone, and the slot of a page that nobody maps any more. pre: no spinlock */
void put_mapping(struct vm *vm, struct page *page);
/* The page is in no VM_LOCKED vma any more, unless it is in another one. pre: no spinlock, the caller has a reference */
void munlock_page(struct vm *vm, struct page *page);

/* ---- lists of reclaim, where there are any ---- */

/* A page that is mapped now. pre: a reference, no spinlock */
void vm_lru_add(struct vm *vm, struct page *page);
/* PG_MLOCKED has changed. pre: the page is locked */
void vm_lru_mlock(struct vm *vm, struct page *page);

#endif
