/*
 * kernel.h - what the files of the PV kernel share: addresses, and each file's functions.
 *
 * Where things lie (a slot of the top table is 512 GiB):
 *   0xffff800000000000  Xen: the machine-to-physical table first (slots 256 to 271 are Xen's)
 *   0xffff880000000000  DIRECT_BASE: all memory, pfn 0 first; page tables and the image's text and constants read-only
 *   0xffff900000000000  P2M_BASE: the p2m, one mfn a pfn (registered in shared_info)
 *   0xffff980000000000  WINDOWS_BASE: a page for each page of a batch that moves, to look through; nothing is mapped between two batches
 *   0xffffffff80000000  virt_base: the image
 */
#ifndef GUEST_ARCH_XEN_KERNEL_H
#define GUEST_ARCH_XEN_KERNEL_H

#include <stdbool.h>
#include "hypercall.h"
#include "../arch.h"
#include "frameshift/compiler.h"

#define DIRECT_BASE 0xffff880000000000ull
#define P2M_BASE    0xffff900000000000ull
#define WINDOWS_BASE 0xffff980000000000ull

extern char virt_base[], image_start[], text_end[], rodata_end[], image_end[], stack_guard[], kernel_stack_top[];

/* start.c */
extern struct start_info *start_info;               /* through whichever mapping is valid */
extern struct shared_info *shared_info;             /* NULL until it is mapped */
FS_NORETURN void kernel_shutdown(unsigned reason);  /* SHUTDOWN_*; what was printed leaves first */
FS_NORETURN FS_COLD void kernel_panic(const char *words);
FS_NORETURN FS_COLD void kernel_panic_number(const char *words, uint64_t n);
/* The value of "name=" on the command line, a decimal number; otherwise if it is not there. */
uint64_t option_number(const char *name, uint64_t otherwise);
/* Is "name=word" on the command line? */
bool option_is(const char *name, const char *word);

void shared_info_map(void);                         /* start_info->shared_info; panics where Xen says no */
void shared_info_unmap(void);                       /* nothing that needs it may be called until it is mapped again */

/* console.c */
void console_open(void *ring, evtchn_port_t port);  /* until then only Xen's console is there */
void console_moved(void *ring);                     /* the ring is mapped elsewhere now */
void console_drain(uint64_t limit_ns);              /* until the other side has read all of it, or the time is over */
void print(const char *words);
void print_number(const char *words, uint64_t n);   /* "words=n" */
void print_line(const char *words);

/* events.c */
bool event_port_good(evtchn_port_t port);           /* may it be one of ours? */
/* pre of the others: event_port_good(); shared_info is mapped. */
void event_clear(evtchn_port_t port);               /* before looking at what it announces */
void event_send(evtchn_port_t port);
void event_wait(evtchn_port_t *ports, uint32_t count, uint64_t ns);     /* until one is pending, or the time is over */

/* xenstore.c: paths are relative to this domain's own folder, or begin with "/". */
bool xenstore_open(void);                           /* false: start_info names no ring of ours */
/* Each waits for the answer, XENSTORE_LIMIT_NS at most. False: refused, or nobody answers; xenstore_trouble() says which. */
bool xenstore_write(const char *path, const char *value);
bool xenstore_read(const char *path, char *value, size_t bytes);        /* NUL-terminated; too long, or with a NUL inside: false */
bool xenstore_watch(const char *path);
/* Has a watch fired since the last call? Does not wait. */
bool xenstore_fired(void);
evtchn_port_t xenstore_port(void);
const char *xenstore_trouble(void);

/* traps.c */
void traps_init(void);
bool probe_write(uint64_t *at, uint64_t value);     /* head.S: false where the write faults */
extern uint64_t probe_faults;                       /* how often it did */

/* memory.c */
struct boot_memory {
    uint64_t pages;                                 /* all memory: pfns [0, pages) */
    uint64_t boot_end;                              /* the builder's last page + 1 */
    uint64_t table_start, table_end;                /* the kernel's own page tables */
    uint64_t next;                                  /* boot allocator: [table_end, next) is taken */
    uint64_t old_start, old_end;                    /* the builder's page tables: free once memory_own_tables() is done */
};
extern struct boot_memory boot_memory;
void m2p_open(void);                                /* first of all */
void p2m_open(void);                                /* when start_info was checked */
uint64_t memory_m2p(uint64_t mfn);                  /* what M2P says: of a frame of anybody's */
/* Check the p2m against M2P, build tables for all memory, switch to them, release the builder's. start_info is known;
 * boot_top is the builder's stack. Panics where Xen refuses. */
void memory_own_tables(uint64_t boot_top);
void *memory_boot_alloc(void *ctx, size_t bytes, size_t align);     /* for struct mm_config */
/* The p2m and the M2P agree for every pfn? Returns how many do not. */
uint64_t memory_p2m_faults(void);
uint64_t memory_mfn(uint64_t pfn);
uint64_t memory_pfn(uint64_t mfn);                  /* FS_FRAME_NONE: not ours */
static inline void *direct_map(uint64_t pfn)
{
    return (void *)(uintptr_t)(DIRECT_BASE + pfn * FS_PAGE_BYTES);
}
/* The rights of a page in the direct map. 0 or -errno. */
int64_t memory_protect(uint64_t pfn, bool writable);
/* Entries of the direct map: to the frames that the p2m names, writable, or none. 0 or -errno. */
int64_t memory_map(uint64_t pfn, uint64_t pages, bool present);
void memory_set_mfn(uint64_t pfn, uint64_t mfn);    /* the p2m only; ~0: none */
uint64_t memory_root_mfn(void);
/* One page to look through: maps a frame of ours writable, or with FS_FRAME_NONE nothing. NULL: Xen says no. */
void *memory_window(uint64_t mfn);
/* A copy of a table that was made through the window: if it is the window's own table, the copy must not map itself. */
void memory_window_forget(uint64_t pfn, uint64_t *copy);
/* Another frame under the page: every entry of the kernel's own that names it (as writable as it is now), p2m and M2P.
 * 0, or -errno and nothing has changed. pre: contents are there, no user entry names the page */
int64_t memory_switch(uint64_t pfn, uint64_t mfn);
/* An ordinary page: no page of the image or the p2m, no table of the kernel's. Such pages move together: */
bool memory_is_plain(uint64_t pfn);
/* Copies (where the move says so) to the new frames; verify: compares them. right[i]: it is there. Then memory_switch_many() must be called, and
 * nothing may write to any of the pages in between. pre: count <= ARCH_MOVES_MAX, plain pages, each once */
void memory_copy_many(const struct arch_frame_move *list, uint64_t count, bool verify, bool *right);
/* Another frame under those that are right: direct map, M2P, p2m. right[i] is false afterwards where Xen refused, and nothing has changed there. */
void memory_switch_many(const struct arch_frame_move *list, uint64_t count, bool *right);
/* A page of the image's data, stack included: C code writes it while it moves it, so it is not copied by C code. */
bool memory_is_live(uint64_t pfn);
/* Copies, compares and switches such a page. 0, or anything else and nothing has changed. */
int64_t memory_switch_live(uint64_t pfn, uint64_t mfn);
int64_t image_switch(const void *direct, void *to, uint64_t entry, const void *image, uint64_t old_entry);      /* switch.S */
/* A page that must keep its frame: see move_xen.c. */
bool memory_is_fixed(uint64_t pfn);
/* One of the tables of memory_own_tables()? And where it is linked. */
bool memory_table_place(uint64_t pfn, struct arch_table_place *at);
/* Tell the tools where the p2m is: in shared_info. */
void memory_register(void);
/* The entry of the page in the direct map. */
uint64_t memory_direct_entry(uint64_t pfn);
/* The pfn of an address in the direct map. */
static inline uint64_t memory_direct_pfn(const void *at)
{
    return ((uint64_t)(uintptr_t)at - DIRECT_BASE) / FS_PAGE_BYTES;
}
extern uint64_t pte_nx;                             /* ARCH_PTE_NOEXEC, or 0 where the processor has none */

/* time.c */
uint64_t time_system_ns(void);                      /* Xen's own time, for Xen. pre: shared_info is mapped */
void time_again(void);                              /* shared_info is another: its time may be an earlier one, arch_time_ns() goes on */

/* mmu_xen.c */
pfn_t mmu_user_root(void);

#endif
