/*
 * fault.h - page faults, and user memory as the kernel and the workloads reach it.
 *
 * Layer: L3.  No lock is held by the caller; the caller is a user of the mm_struct.
 */
#ifndef GUEST_MM_FAULT_H
#define GUEST_MM_FAULT_H

#include "vm.h"

/* Make the access possible. MM_OK: try it again. MM_EINVAL: no vma, or it does not allow the access. MM_ENOMEM */
mm_status_t vm_fault(struct mm_struct *mm, uint64_t va, bool write) FS_MUST_CHECK;
/* Bring the page of va in as mlock wants it: private pages that may be written have their copy made. MM_EINVAL: no vma. MM_ENOMEM */
mm_status_t vm_populate(struct mm_struct *mm, uint64_t va) FS_MUST_CHECK;

/* User memory through this CPU's TLB, in the address space of mm, with faults handled. Page by page: after an error what lies
 * before the page that failed was transferred. */
mm_status_t vm_user_read(struct mm_struct *mm, uint64_t va, void *buf, uint64_t bytes) FS_MUST_CHECK;
mm_status_t vm_user_write(struct mm_struct *mm, uint64_t va, const void *buf, uint64_t bytes) FS_MUST_CHECK;

/* The page that is mapped at va, with a reference; NULL: none is (not there, swapped out, being moved). A transparent huge page is split for it, so what
 * comes may be pinned; of a page of the pool the first page comes, whose reference keeps the whole. pre: no spinlock, no page lock is held */
struct page *follow_page(struct mm_struct *mm, uint64_t va);
/* The same for a moment's look: huge pages stay whole, and their first page comes. *pages: from va to the end of what is mapped there as one
 * (1, or up to 512), also where NULL comes. */
struct page *follow_unit(struct mm_struct *mm, uint64_t va, uint64_t *pages);

#endif
