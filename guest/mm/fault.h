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

/* The page that is mapped at va, with a reference; NULL: none is (not there, swapped out, being moved). pre: no spinlock is held */
struct page *follow_page(struct mm_struct *mm, uint64_t va);

#endif
