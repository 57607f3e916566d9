/*
 * pgtable.h - page tables: entries, walking, tables that come and go.
 *
 * Layer: L2.  An entry of the last level is none (0), present, or not present with a word of our own: type in bits 1 to 3, write
 * permission in bit 4, and a number of 40 bits in bits 12 to 51.  The number is stored inverted: what is not present must not
 * look like a low machine address to a CPU that guesses (L1TF), and Xen would put the domain under its shadow for it.
 *
 * A huge page (a unit of 512 pages) is mapped as a whole or not at all, and its mapping is one entry to everybody above: struct pte_ref
 * with huge set, whose value is that of its first page.  What it is in the table is the machine's business (arch_huge_leaf()): a leaf of level 2, or 512
 * entries of a table that is marked.  Nobody writes to one of those 512 alone: pgtable_split() makes them entries of small pages first.
 */
#ifndef GUEST_MM_PGTABLE_H
#define GUEST_MM_PGTABLE_H

#include "vm.h"

enum pte_soft { PTE_SWAP = 1, PTE_MIGRATION = 2, PTE_NO_ACCESS = 3 };

#define PTE_SOFT_TYPE   0xeull
#define PTE_SOFT_WRITE  0x10ull
#define PTE_SOFT_BITS   40u
#define PTE_SOFT_MASK   ((1ull << PTE_SOFT_BITS) - 1)

static inline bool pte_none(uint64_t e) { return e == 0; }
static inline bool pte_present(uint64_t e) { return (e & ARCH_PTE_PRESENT) != 0; }
static inline bool pte_is(uint64_t e, enum pte_soft type)
{
    return !pte_present(e) && ((e & PTE_SOFT_TYPE) >> 1) == (uint64_t)type;
}
/* pre: number <= PTE_SOFT_MASK */
static inline uint64_t pte_soft_make(enum pte_soft type, uint64_t number, bool write)
{
    return (~number & PTE_SOFT_MASK) << FS_PAGE_SHIFT | (uint64_t)type << 1 | (write ? PTE_SOFT_WRITE : 0);
}
static inline uint64_t pte_soft_number(uint64_t e) { return ~(e >> FS_PAGE_SHIFT) & PTE_SOFT_MASK; }
static inline bool pte_write(uint64_t e) { return (e & (pte_present(e) ? ARCH_PTE_WRITE : PTE_SOFT_WRITE)) != 0; }

/* Of a present entry, a bit of ARCH_PTE_SOFT: it names a frame that is no page of ours (pfnmap.c). */
#define PTE_SPECIAL     0x200ull
static inline bool pte_special(uint64_t e) { return pte_present(e) && (e & PTE_SPECIAL) != 0; }

/* It maps a page: it is one of the page's mapcount. PTE_NO_ACCESS maps a page that nobody may touch (mprotect). */
static inline bool pte_maps(uint64_t e) { return (pte_present(e) && !pte_special(e)) || pte_is(e, PTE_NO_ACCESS); }
/* pre: pte_maps(e) */
static inline pfn_t pte_pfn(uint64_t e) { return pte_present(e) ? arch_pte_pfn(e) : pfn_make(pte_soft_number(e)); }

/* A place in a table: an entry of the last level, or the mapping of a huge page. */
struct pte_ref { struct page *table; uint32_t slot; bool huge; };
static inline uint64_t pte_pages(const struct pte_ref *at) { return at->huge ? PAGEBLOCK_PAGES : 1; }
#define PTE_HUGE_BYTES ((uint64_t)PAGEBLOCK_PAGES * FS_PAGE_BYTES)
static inline uint64_t pte_huge_base(uint64_t va) { return va & ~(PTE_HUGE_BYTES - 1); }
_Static_assert(PAGEBLOCK_PAGES == ARCH_PT_SLOTS, "a huge page is what one table maps");

/* ---- pre: page_table_lock ---- */

/* False: there is no table for va. In a huge mapping: that one (slot 0, or the leaf). */
bool pgtable_find(const struct mm_struct *mm, uint64_t va, struct pte_ref *at);
uint64_t pte_read(const struct pte_ref *at);
/* Put a new value where none was, or other rights of the same page. MM_ENOMEM: the machine refused, nothing was changed. */
mm_status_t pte_set(const struct pte_ref *at, uint64_t value) FS_MUST_CHECK;
/* The same where there is no way back: tries until the machine agrees. */
void pte_set_sure(const struct pte_ref *at, uint64_t value);
/* Replace by what is not present, or has fewer rights; the old value with its last A and D. The caller flushes. */
uint64_t pte_exchange(const struct pte_ref *at, uint64_t value);
/* Clear A or D or W of a present entry. The old value; *lost: A and D bits that came meanwhile and are not in the entry now. */
uint64_t pte_clear_bits(const struct pte_ref *at, uint64_t bits, uint64_t *lost);
/* The entry of va, which has a table without any entry, becomes the place of a huge mapping that is none yet: pte_set() it, or give up.
 * False: there is something in the table, or none. */
bool pgtable_huge_begin(struct mm_struct *mm, uint64_t va, struct pte_ref *at) FS_MUST_CHECK;
void pgtable_huge_abort(struct mm_struct *mm, uint64_t va, const struct pte_ref *at);
/* The huge mapping at va becomes 512 entries with the same rights, one for each page. pre: what it maps is to be small pages. Flushes. */
void pgtable_split(struct mm_struct *mm, uint64_t va);
/* Fill n slots of one table that were none, in as few calls as possible; returns how many were done. */
uint32_t pte_fill(struct page *table, const uint32_t *slots, const uint64_t *values, uint32_t n);
static inline void pte_flush(const struct mm_struct *mm, uint64_t va, uint64_t pages) { arch_tlb_flush(mm->pgd, va, pages); }
static inline void pte_flush_at(const struct mm_struct *mm, uint64_t va, const struct pte_ref *at)
{
    pte_flush(mm, at->huge ? pte_huge_base(va) : va, pte_pages(at));
}
static inline uint64_t pte_table_end(uint64_t va) { return (va | (FS_PAGE_BYTES * (uint64_t)ARCH_PT_SLOTS - 1)) + 1; }

/* ---- the rest take page_table_lock ---- */

/* The tables for va exist afterwards, and stay while mmap_lock is held. MM_ENOMEM */
mm_status_t pgtable_prepare(struct mm_struct *mm, uint64_t va) FS_MUST_CHECK;
/* Tables of [start, end) in which every entry is none are freed. pre: mmap_lock for writing */
void pgtable_prune(struct mm_struct *mm, uint64_t start, uint64_t end);
/* The root. MM_ENOMEM */
mm_status_t pgtable_create(struct mm_struct *mm) FS_MUST_CHECK;
/* pre: every entry of the last level is none, nobody else uses mm */
void pgtable_destroy(struct mm_struct *mm);

#endif
