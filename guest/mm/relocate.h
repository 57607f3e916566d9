/*
 * relocate.h - another machine frame under the same page (Layer: L3).
 *
 * The pfn stays, so nothing that names pages by pfn or by kernel address changes: only entries of page tables, the p2m and
 * the M2P do.  Answers are those of frameshift/abi.h.
 */
#ifndef GUEST_MM_RELOCATE_H
#define GUEST_MM_RELOCATE_H

#include "frameshift/abi.h"
#include "zone.h"

struct vm;

#define RELOCATE_BATCH ARCH_MOVES_MAX           /* kernel pages that are moved in one stop */
#define RELOCATE_TIMES 256u

struct relocate {
    struct mm *mm;
    struct vm *vm;                              /* NULL: no user pages yet */
    uint64_t stops, longest_ns;                 /* one caller at a time */
    uint32_t times[RELOCATE_TIMES];             /* stops by duration: eight steps an octave */
};

struct relocate_entry { pfn_t pfn; mfn_t from, to; uint32_t status; };     /* status: enum fs_abi_entry */

struct relocate_counts { uint64_t value[FS_ABI_MOVED_VALUES]; };           /* enum fs_abi_move_value */

void relocate_init(struct relocate *r, struct mm *mm, struct vm *vm);
/* Move what can be moved; each entry gets its answer. Entries may be anything. May sleep; no lock is held. */
void relocate_pages(struct relocate *r, struct relocate_entry *list, size_t count, bool verify, struct relocate_counts *out);
/* The duration that so many thousandths of the stops stayed below (990: p99), within an eighth; 0: there was none. */
uint64_t relocate_stop_ns(const struct relocate *r, unsigned thousandths);

/* ---- relocate_user.c ---- */
/* Does the page belong to processes or the page cache, so that it must be moved through its reverse map? */
bool relocate_is_user(const struct page *p);
/* Move one such page while everything runs. The answer. */
uint32_t relocate_user(struct relocate *r, const struct relocate_entry *e, struct page *p, bool verify, uint64_t *verified);
/* The same for parts of one huge page: the entries list[of[0 .. n)], all of head's unit. pre: n <= ARCH_MOVES_MAX */
void relocate_unit(struct relocate *r, struct relocate_entry *list, const size_t *of, size_t n, struct page *head, bool verify, uint64_t *verified);
/* Where a page table of a process is linked; false: nobody knows it (it is being made or unmade). pre: the machine is stopped */
bool relocate_table_place(struct relocate *r, const struct page *p, struct arch_table_place *at);

#endif
