/*
 * arch_hosted.h - the hosted machine's own controls: threads as CPUs, host memory as pages.
 *
 * The machine is flat: a page's frame is its pfn plus HOSTED_MFN_OFFSET, for ever, so that a
 * frame number taken for the other kind is wrong at once.
 */
#ifndef GUEST_ARCH_HOSTED_H
#define GUEST_ARCH_HOSTED_H

#include "../arch.h"

#define HOSTED_MFN_OFFSET 0x123400u             /* whole huge pages, so that a leaf is aligned */

/* The calling thread is this CPU from now on (0 until then). pre: cpu < ARCH_CPUS_MAX */
void arch_hosted_set_cpu(unsigned cpu);
/* The same, and arch_stop_machine() waits for this thread at its next arch call. It goes offline before it waits for
 * anything that is not the guest's, and before it ends. pre: no other thread is this CPU */
void arch_hosted_cpu_online(unsigned cpu);
void arch_hosted_cpu_offline(void);
/* Page contents: pfn n is at base + n * FS_PAGE_BYTES for n < pages. NULL: metadata only. Before any thread starts;
 * forgets every page table and TLB. */
void arch_hosted_set_memory(void *base, uint64_t pages);

/* What arch_huge_leaf() says (true until then). Before anybody maps anything. */
void arch_hosted_set_leaf(bool leaf);

/* ---- for tests: a machine on which mistakes can be made ---- */

/* The next n calls of arch_tlb_flush() do nothing; returns how many of the last ones are left. */
uint64_t arch_hosted_drop_flushes(uint64_t n);
/* The n-th arch_pte_write() from now on that gives rights, or arch_table_enter(), fails (1-based); 0: none does. */
void arch_hosted_fail_nth(uint64_t n);
/* fn runs in each arch_page_copy() before the copy (NULL: none): what happens to a page that is being moved. Before threads start. */
void arch_hosted_on_copy(void (*fn)(void *ctx, pfn_t to, pfn_t from), void *ctx);
struct arch_hosted_counts { uint64_t flushes, walks, hits, pte_writes, exchanges; };
struct arch_hosted_counts arch_hosted_counts(void);
/* The level of a page that is a page table, 0 of any other. */
unsigned arch_hosted_table_level(pfn_t pfn);
/* Tables that were entered and not left. */
uint64_t arch_hosted_tables(void);

#endif
