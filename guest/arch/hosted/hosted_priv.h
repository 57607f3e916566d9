/*
 * hosted_priv.h - what the files of the hosted machine share.
 */
#ifndef GUEST_ARCH_HOSTED_PRIV_H
#define GUEST_ARCH_HOSTED_PRIV_H

#include "../arch.h"

/* Wait a moment, and be no safepoint. */
static inline void hosted_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}
/* Stand still here while another CPU has stopped the machine. */
void arch_hosted_safepoint(void);
uint64_t hosted_memory_pages(void);
/* No page is a table, no TLB holds anything. */
void hosted_mmu_reset(uint64_t pages);

#endif
