/*
 * vm_fsck.h - processes, page tables and reverse maps recomputed and compared.
 *
 * Layer: L6.  pre: at rest: nobody maps, unmaps, faults, migrates or reclaims meanwhile.  It writes nothing but anon_vma.check.
 */
#ifndef GUEST_MM_VM_FSCK_H
#define GUEST_MM_VM_FSCK_H

#include "vm.h"

/* X(name, text) */
#define VM_FSCK_LIST(X)                                                                  \
    X(MM_LIST,       "the list of processes is broken or miscounted")                   \
    X(LOCK_HELD,     "a lock is held at rest")                                          \
    X(VMA_TREE,      "the treap of vmas is out of order")                               \
    X(VMA_LINKS,     "the list of vmas does not have the treap's members in order")     \
    X(VMA_RANGE,     "a vma is empty, misaligned, out of bounds or overlaps")           \
    X(VMA_COUNT,     "a count of vmas or of their pages is wrong")                      \
    X(VMA_CHAIN,     "a vma and its anon_vmas do not know each other")                  \
    X(VMA_I_MMAP,    "a vma is not in its file's list")                                 \
    X(ANON_LIST,     "the list of an anon_vma is broken")                               \
    X(ANON_REFS,     "the reference count of an anon_vma is wrong")                     \
    X(ANON_COUNT,    "an anon_vma's count of owners or of children is wrong")           \
    X(TABLE_FLAG,    "a page table is not marked as what it is")                        \
    X(TABLE_COUNT,   "the count of a table's entries is wrong")                         \
    X(TABLE_TOTAL,   "a process's count of tables is wrong")                            \
    X(TABLE_LOST,    "pages marked as tables that no process has, or the reverse")      \
    X(TABLE_ENTRY,   "an upper entry names no table of this process")                   \
    X(PTE_VMA,       "an entry where no vma is")                                        \
    X(PTE_KIND,      "an entry of no known kind")                                       \
    X(PTE_MIGRATION, "a migration entry at rest")                                       \
    X(PTE_SWAP,      "a swap entry whose slot is not in use")                           \
    X(PTE_FRAME,     "an entry names a frame that is no page in use of a process")      \
    X(PTE_RIGHTS,    "an entry allows more than its vma, or nothing to its process")    \
    X(PTE_SPECIAL,   "an entry of a device's memory where none is mapped, or another one than the device says") \
    X(PTE_COW,       "a private page can be written that somebody else has too")        \
    X(PTE_RMAP,      "the reverse map of the page does not lead to an entry")           \
    X(MAPCOUNT,      "mapcount is not the number of entries that the reverse map finds") \
    X(PAGE_REFS,     "a page has fewer references than known owners")                   \
    X(PAGE_ANON,     "an anonymous page without an anon_vma, or that nobody has")       \
    X(PAGE_LOCKED,   "a page is locked at rest")                                        \
    X(PAGE_MLOCKED,  "PG_MLOCKED does not fit the vmas that map the page")              \
    X(RSS,           "a process's count of mapped pages or of swap entries is wrong")    \
    X(HUGE_ENTRY,    "the entries of a huge mapping do not belong together, or it is not where one may be") \
    X(HUGE_PART,     "a huge page is mapped in part")                                   \
    X(HUGE_POOL,     "a page of the pool in other memory, or the reverse")              \
    X(HUGE_COUNT,    "a process's count of leaves is wrong")                            \
    X(HUGE_DEPOSIT,  "the deposit has fewer tables than there are leaves, or one that is not empty") \
    X(POOL_LIST,     "the list of free pages of the pool is broken, or has one that is not free") \
    X(POOL_COUNT,    "a count of the pool is wrong")                                    \
    X(POOL_RESERVED, "the pool has promised more or less than mappings and files were")

enum vm_fsck_fault {
#define X(name, text) VM_FSCK_##name,
    VM_FSCK_LIST(X)
#undef X
    VM_FSCK_FAULTS
};

/* Where it is: mm NULL, va UINT64_MAX, pfn PFN_NONE where none is meant. */
struct vm_fsck_place { const struct mm_struct *mm; uint64_t va; pfn_t pfn; };
typedef void (*vm_fsck_fn)(void *ctx, enum vm_fsck_fault fault, const struct vm_fsck_place *place, uint64_t is, uint64_t should_be);
const char *vm_fsck_name(enum vm_fsck_fault fault);
const char *vm_fsck_text(enum vm_fsck_fault fault);

/* Returns the number of faults. report may be NULL. */
uint64_t vm_fsck(struct vm *vm, vm_fsck_fn report, void *ctx) FS_MUST_CHECK;

#endif
