/*
 * arch.h - the seam between the memory core and the machine under it.
 *
 * Owns: the complete list of what guest/mm and guest/lib may ask of a machine,
 * besides memset, memcpy, memmove and memcmp, which the compiler itself may call.
 * guest/arch/hosted/ implements it for threads of a process, guest/arch/xen/ for a
 * PV kernel.  `make guest-symbols` checks that the core needs nothing else.
 */
#ifndef GUEST_ARCH_H
#define GUEST_ARCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "frameshift/frame.h"

#define ARCH_CPUS_MAX 64u

/* The CPU that runs the caller, below ARCH_CPUS_MAX.  May be stale by the time it
 * returns where the caller can be moved: per-CPU state is locked, so this costs speed only. */
unsigned arch_cpu_id(void);
void arch_cpu_relax(void);

/* Contents of a page, through the direct map.  pre: the pfn is RAM of this guest.
 * A machine that models metadata only may do nothing.  The CPU may stand still (arch_stop_machine()) before it begins. */
void arch_page_clear(pfn_t pfn);
void arch_page_copy(pfn_t to, pfn_t from);

uint64_t arch_time_ns(void);                        /* monotonic */
void arch_console_write(const char *text, size_t bytes);

/* ---- frames and page tables ----
 * Four levels of 512 entries as on x86-64.  An entry holds a machine frame; the core knows pfns and asks. */

#define ARCH_PTE_PRESENT  0x1ull
#define ARCH_PTE_WRITE    0x2ull
#define ARCH_PTE_USER     0x4ull
#define ARCH_PTE_ACCESSED 0x20ull
#define ARCH_PTE_DIRTY    0x40ull
#define ARCH_PTE_LEAF     0x80ull                   /* of an entry of level 2: it maps 512 adjacent frames; where arch_huge_leaf() says so */
#define ARCH_PTE_SOFT     0xe00ull                  /* three bits that the machine leaves alone */
#define ARCH_PTE_FRAME    0x000ffffffffff000ull
#define ARCH_PTE_NOEXEC   (1ull << 63)
#define ARCH_PT_SLOTS     512u
#define ARCH_PT_LEVELS    4u
#define ARCH_USER_END     0x0000800000000000ull     /* user addresses are below it */

/* The page in the direct map: a fixed address per pfn, whatever frame is under it. Page tables may only be read there. */
void *arch_page_address(pfn_t pfn);
mfn_t arch_pfn_mfn(pfn_t pfn);
/* A present entry, and the pfn that a present entry names (PFN_NONE: not one of ours). */
uint64_t arch_pte_make(pfn_t pfn, uint64_t bits);
pfn_t arch_pte_pfn(uint64_t pte);

/* Does the machine take an entry of level 2 with ARCH_PTE_LEAF from us? Xen refuses them to PV guests: there a huge page is mapped by 512 entries. The
 * same for the life of the machine. */
bool arch_huge_leaf(void);

/* A page becomes a page table of level 1 .. ARCH_PT_LEVELS (the root): from now on it changes by arch_pte_*() alone.
 * pre: no user mapping of it, every entry not present. 0 or -errno, and then nothing has changed. */
int arch_table_enter(pfn_t table, unsigned level);
/* An ordinary page again. pre: it is in no live table, its own entries were cleared or what they name is not used any more.
 * A root is no CPU's any more afterwards; nothing of it is in a TLB. Cannot fail. */
void arch_table_leave(pfn_t table, unsigned level);

struct arch_pte_update { pfn_t table; uint32_t slot; uint64_t value; };
/* Returns how many were done, from the first on. An update that only takes away (not present, or the same frame with fewer
 * rights) is always done: the machine tries again by itself what may pass. No TLB is flushed. */
int arch_pte_write(const struct arch_pte_update *u, size_t count);
/* Put value in the slot; returns the old value with the A and D bits as they were at that moment, none lost. No TLB is flushed.
 * pre: value is not present, or names the same frame with no more rights. Cannot fail. */
uint64_t arch_pte_exchange(pfn_t table, uint32_t slot, uint64_t value);
/* The same for count slots from slot on, all of one table; old[i] is what was in the i-th. */
void arch_pte_exchange_run(pfn_t table, uint32_t slot, uint32_t count, const uint64_t *values, uint64_t *old);
/* On every CPU that may hold it: [va, va + pages * FS_PAGE_BYTES) of the root, and every upper entry of it; UINT64_MAX: all.
 * When it returns no CPU is still in a user access that used an old translation. Locks may be held. */
void arch_tlb_flush(pfn_t root, uint64_t va, uint64_t pages);
/* This CPU's user root from now on; PFN_NONE: none. 0 or -errno. */
int arch_space_enter(pfn_t root);

/* User memory through this CPU's root and TLB; they set A, and D. 0, or -1 with *fault the first address that is not
 * mapped for the access; what lies before it may have been transferred. Addresses are the user's: anything goes. */
int arch_user_read(uint64_t va, void *buf, size_t bytes, uint64_t *fault);
int arch_user_write(uint64_t va, const void *buf, size_t bytes, uint64_t *fault);

/* fn runs while every other CPU stands still, anywhere but in an arch call; it takes no lock and allocates nothing. */
void arch_stop_machine(void (*fn)(void *arg), void *arg);

/* ---- another machine frame under the same page (relocate.c) ---- */

/* The M2P: the pfn that the machine has for a frame; PFN_NONE: none. It may be out of date: ask arch_pfn_mfn() back. */
pfn_t arch_mfn_pfn(mfn_t mfn);
struct arch_frame_move { pfn_t pfn; mfn_t from, to; bool copy, done; };
/* Contents (where copy says so), every map of the page that the kernel itself has, p2m and M2P: those of page pfn name to
 * instead of from. Sets done; returns how many. What is not done is as it was. verify: copies are compared before anybody can use
 * them, and *verified is raised by those that were. pre: count <= ARCH_MOVES_MAX; the pages are no page tables; no user entry names
 * them and nobody touches them meanwhile. */
#define ARCH_MOVES_MAX 64u
size_t arch_frames_move(struct arch_frame_move *list, size_t count, bool verify, uint64_t *verified);
/* Where a page table is linked: parent PFN_NONE: nowhere (a root, or not linked yet). */
struct arch_table_place { unsigned level; pfn_t parent; uint32_t slot; };
/* The same for one page table and the entry that leads to it. pre: inside arch_stop_machine(). 0 or -errno: as it was.
 * verify: the copy is compared before it is used. */
int arch_table_move(const struct arch_frame_move *m, const struct arch_table_place *at, bool verify);
/* The machine's own page tables, made before the core was there: true, and where it is linked. */
bool arch_boot_table(pfn_t pfn, struct arch_table_place *at);
/* The machine takes what lies under [pfn, pfn + 2^order) and gives, join: one piece, aligned to its size, with every address below
 * 2^address_bits (0: anywhere); else single frames for one piece that is there. Kernel maps, p2m and M2P follow; contents are undefined
 * afterwards. False: it has no such piece or frames, or somebody holds one of ours: frames and contents are as before.
 * pre: order <= 9; the pages are the caller's and no page tables, no user entry names them, nobody touches them meanwhile. */
bool arch_frames_exchange(pfn_t pfn, unsigned order, bool join, unsigned address_bits);

#endif
