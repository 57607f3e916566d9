/*
 * arch_hosted.h - the hosted machine's own controls: threads as CPUs, host memory as pages.
 */
#ifndef GUEST_ARCH_HOSTED_H
#define GUEST_ARCH_HOSTED_H

#include "../arch.h"

/* The calling thread is this CPU from now on (0 until then). pre: cpu < ARCH_CPUS_MAX */
void arch_hosted_set_cpu(unsigned cpu);
/* Page contents: pfn n is at base + n * FS_PAGE_BYTES for n < pages. NULL: metadata only. Before any thread starts. */
void arch_hosted_set_memory(void *base, uint64_t pages);

#endif
