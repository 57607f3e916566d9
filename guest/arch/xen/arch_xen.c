/*
 * arch_xen.c - arch.h on a Xen PV guest with one vCPU.
 *
 * Owns: page contents through the direct map.
 * Invariants: I1  a pfn that the core names is RAM of this guest: below boot_memory.pages.
 * Lock order: none (one vCPU).
 * Why: the direct map is fixed, so an address is a sum.
 * Cost: none beside the copying.
 */
#include "kernel.h"
#include "frameshift/assert.h"

unsigned arch_cpu_id(void)
{
    return 0;
}

void arch_cpu_relax(void)
{
    __builtin_ia32_pause();
}

void *arch_page_address(pfn_t pfn)
{
    ASSERT_CMP(pfn.n, <, boot_memory.pages);        /* I1 */
    return direct_map(pfn.n);
}

void arch_page_clear(pfn_t pfn)
{
    __builtin_memset(arch_page_address(pfn), 0, FS_PAGE_BYTES);
}

void arch_page_copy(pfn_t to, pfn_t from)
{
    __builtin_memcpy(arch_page_address(to), arch_page_address(from), FS_PAGE_BYTES);
}
