/*
 * boot.c - a guest of this process finds out what it was given.
 *
 * Owns: what start_info says, boot memory, secondary vCPUs.
 * Invariants:
 *   I1  only what Xen's builder tells is used: start_info and shared_info.
 *   I2  boot memory lies behind the boot page tables and grows upwards; it ends with guest_boot_done().
 * Lock order: none; one CPU runs.
 * Why: the memory map of the struct pages must exist before there is an allocator.
 * Cost: O(pages) for zeroing what is taken.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <stdint.h>
#include <xen/xen.h>
#include <xen/vcpu.h>

#include "frameshift/assert.h"
#include "machine.h"

static int bring_up(struct guest_machine *g, unsigned cpu)
{
    struct vcpu_guest_context *c = calloc(1, sizeof(*c));
    long rc = c != NULL ? 0 : -ENOMEM;

    if (c != NULL) {
        c->ctrlreg[3] = arch_pfn_mfn(pfn_make(g->l4)).n << FS_PAGE_SHIFT;
        rc = guest_hypercall(g, 0, __HYPERVISOR_vcpu_op, VCPUOP_initialise, cpu, (uint64_t)(uintptr_t)c, 0);
    }
    if (rc == 0) {
        rc = guest_hypercall(g, 0, __HYPERVISOR_vcpu_op, VCPUOP_up, cpu, 0, 0);
    }
    g->cpu[cpu].up = rc == 0;
    free(c);
    return (int)rc;
}

int guest_machine_init(struct guest_machine *g, const struct guest_host *host, uint8_t *direct, const void *start_info, unsigned cpus)
{
    const start_info_t *si = start_info;
    uint64_t base = (uint64_t)(uintptr_t)direct, tables_end, p2m_end;
    int rc = 0;

    if (memcmp(si->magic, "xen-", 4) != 0 || cpus == 0 || cpus > GUEST_CPUS_MAX || si->pt_base < base || si->mfn_list < base) {
        return -EINVAL;
    }
    *g = (struct guest_machine){ .host = *host, .direct = direct, .pages = si->nr_pages, .cpus = cpus };
    g->start_info = ((uint64_t)(uintptr_t)start_info - base) / FS_PAGE_BYTES;
    g->l4 = g->tables_first = (si->pt_base - base) / FS_PAGE_BYTES;
    g->tables = si->nr_pt_frames;
    g->p2m_first = (si->mfn_list - base) / FS_PAGE_BYTES;
    g->p2m_pages = (si->nr_pages + ARCH_PT_SLOTS - 1) / ARCH_PT_SLOTS;
    g->p2m = (_Atomic uint64_t *)(void *)(direct + g->p2m_first * FS_PAGE_BYTES);
    g->p2m_va = host->shared_info(host->ctx)->arch.p2m_vaddr;
    tables_end = g->tables_first + g->tables;
    p2m_end = g->p2m_first + g->p2m_pages;
    g->boot_next = (tables_end > p2m_end ? tables_end : p2m_end) * FS_PAGE_BYTES;
    for (unsigned i = 0; i < cpus; i++) {
        g->cpu[i] = (struct guest_cpu){ .machine = g, .id = i, .user_root = PFN_NONE, .up = i == 0 };
    }
    guest_cpu_become(&g->cpu[0]);
    for (unsigned i = 1; i < cpus && rc == 0; i++) {
        rc = bring_up(g, i);
    }
    return rc;
}

void *guest_boot_alloc(void *ctx, size_t bytes, size_t align)
{
    struct guest_machine *g = ctx;
    uint64_t at = (g->boot_next + align - 1) / align * align;

    ASSERT(!g->boot_over);
    if (at + bytes < at || at + bytes > g->pages * FS_PAGE_BYTES) {
        return NULL;
    }
    g->boot_next = at + bytes;
    memset(g->direct + at, 0, bytes);
    return g->direct + at;
}

pfn_t guest_boot_done(struct guest_machine *g)
{
    g->boot_over = true;                    /* I2 */
    return pfn_make((g->boot_next + FS_PAGE_BYTES - 1) / FS_PAGE_BYTES);
}
