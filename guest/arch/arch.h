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

#include <stddef.h>
#include <stdint.h>
#include "frameshift/frame.h"

#define ARCH_CPUS_MAX 64u

/* The CPU that runs the caller, below ARCH_CPUS_MAX.  May be stale by the time it
 * returns where the caller can be moved: per-CPU state is locked, so this costs speed only. */
unsigned arch_cpu_id(void);
void arch_cpu_relax(void);

/* Contents of a page, through the direct map.  pre: the pfn is RAM of this guest.
 * A machine that models metadata only may do nothing. */
void arch_page_clear(pfn_t pfn);
void arch_page_copy(pfn_t to, pfn_t from);

uint64_t arch_time_ns(void);                        /* monotonic */
void arch_console_write(const char *text, size_t bytes);

#endif
