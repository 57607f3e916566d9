/*
 * thp.h - transparent huge pages: anonymous memory that is mapped 2 MiB at a time where that can be had.
 *
 * Layer: L3.  A transparent huge page is a unit of HUGE_ORDER with PG_COMP and PG_ANON (without PG_HUGE), mapped as a whole by every process that has it:
 * one reference and one of mapcount for each mapping, index that of its first page. Whoever wants a part of it (munmap,
 * mprotect, swap, a device) has it split for everybody first.
 */
#ifndef GUEST_MM_THP_H
#define GUEST_MM_THP_H

#include "hugetlb.h"
#include "pgtable.h"

enum thp_policy { THP_MADVISE, THP_ALWAYS, THP_NEVER };     /* where MADV_HUGEPAGE was said (default); everywhere but MADV_NOHUGEPAGE; nowhere */
const char *thp_policy_name(enum thp_policy policy);
/* For faults and collapses from now on; what is huge stays so. */
void thp_set_policy(struct vm *vm, enum thp_policy policy);

/* Does the vma want the 2 MiB around va to be one page, and does it cover them? pre: mmap_lock */
bool thp_wanted(const struct vm_area *vma, uint64_t va);
static inline bool page_is_thp(const struct page *p)
{
    return page_order(p) == HUGE_ORDER && page_test(p, PG_ANON) && !page_test(p, PG_HUGE);
}

/*
 * Cut a transparent huge page into its 512 pages, in every process that maps it. Afterwards page is the first of them, still locked and
 * referenced by the caller; the others are on the lists of reclaim. MM_EAGAIN: somebody else holds a reference just now, nothing has changed.
 * Needs no memory. pre: locked, held references are the caller's, no spinlock is held
 */
mm_status_t split_huge_page(struct vm *vm, struct page *page, int32_t held) FS_MUST_CHECK;
/* What is mapped at va is no transparent huge page afterwards; waits while somebody else has it in his hands (nobody keeps references on one).
 * pre: no spinlock, no page lock; page tables are looked at as they are, mmap_lock may be held or not */
void thp_split_at(struct mm_struct *mm, uint64_t va);

/* ---- khugepaged.c ---- */

/* At least so many of the 512 must be there; the others become zeros. */
#define THP_COLLAPSE_PRESENT 64u
/* Make the small pages of the 2 MiB around va one huge page. MM_EINVAL: they are not wanted or not able to be one (too few, shared, swapped, huge already);
 * MM_ENOMEM: no huge page can be had; MM_EAGAIN: somebody holds one of the pages. pre: as a fault */
mm_status_t thp_collapse(struct mm_struct *mm, uint64_t va) FS_MUST_CHECK;
/* One step of the background: look through processes for up to so many ranges of 2 MiB and collapse what can be; returns how many were. */
uint64_t khugepaged_scan(struct vm *vm, uint64_t ranges);
/* A tick of the background's poll: goes on where the last one ended and looks at a bounded part: KHUGEPAGED_BUDGET, of which a range of 2 MiB that wants to be
 * huge costs KHUGEPAGED_RANGE and a vma or a process one. Nothing with THP_NEVER. After a huge page could not be had KHUGEPAGED_DEFER_TICKS are left out.
 * Returns how many were collapsed. One caller at a time. pre: as a fault */
#define KHUGEPAGED_RANGE       64u
#define KHUGEPAGED_BUDGET      (9u * KHUGEPAGED_RANGE)         /* eight ranges, and 64 vmas and processes on the way */
#define KHUGEPAGED_DEFER_TICKS 119u             /* a minute, at two a second */
uint64_t khugepaged_tick(struct vm *vm);

#endif
