/*
 * balloon.c - frames under pages of a guest in a process, given to the machine and taken again.
 *
 * Owns: p2m entries of pages that have no frame.
 * Invariants: I1  a page without a frame is not mapped, and its p2m entry says so;
 *   I2  what fails half-way is put back: the page has its frame and its map again.
 * Lock order: none; the pages are nobody's.
 * Why extents: frames that lie together go back as one, so that the machine gets its 2 MiB blocks back.
 * Cost: one update a page to unmap, one call for each extent.
 */
#include <errno.h>

#include <stdint.h>
#include <xen/xen.h>
#include <xen/memory.h>

#include "balloon.h"
#include "frameshift/assert.h"
#include "machine.h"

static uint64_t address(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

/* The direct map of one page: a frame, or nothing. */
static bool map_page(struct guest_machine *g, uint64_t pfn, uint64_t mfn)
{
    uint64_t bits = ARCH_PTE_PRESENT | ARCH_PTE_WRITE | ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY;
    long rc = -EAGAIN;

    for (unsigned i = 0; i < GUEST_RETRIES && rc != 0; i++) {
        rc = guest_hypercall(g, arch_cpu_id(), __HYPERVISOR_update_va_mapping, address(g->direct + pfn * FS_PAGE_BYTES),
                             mfn == UINT64_MAX ? 0 : mfn << FS_PAGE_SHIFT | bits, UVMF_INVLPG | UVMF_ALL, 0);
    }
    return rc == 0;
}

static long reservation(struct guest_machine *g, unsigned cmd, uint64_t *extents, uint64_t count, unsigned order)
{
    struct xen_memory_reservation r = { .nr_extents = count, .extent_order = order, .domid = DOMID_SELF };

    set_xen_guest_handle(r.extent_start, extents);
    return guest_hypercall(g, arch_cpu_id(), __HYPERVISOR_memory_op, cmd, address(&r), 0, 0);
}

static bool is_extent(struct guest_machine *g, uint64_t pfn, unsigned order)
{
    uint64_t first = atomic_load(&g->p2m[pfn]);

    for (uint64_t i = 1; i < (1ull << order); i++) {
        if (atomic_load(&g->p2m[pfn + i]) != first + i) {
            return false;
        }
    }
    return first % (1ull << order) == 0;
}

/* Pages [pfn, pfn + pages), already unmapped; how many went. */
static uint64_t give_pages(struct guest_machine *g, uint64_t pfn, uint64_t pages, unsigned order)
{
    uint64_t done = 0;

    while (done < pages) {
        uint64_t mfn = atomic_load(&g->p2m[pfn + done]);
        long rc = 0;

        for (unsigned i = 0; i < GUEST_RETRIES && rc != 1; i++) {
            rc = reservation(g, XENMEM_decrease_reservation, &mfn, 1, order);
        }
        if (rc != 1) {
            break;
        }
        for (uint64_t i = 0; i < (1ull << order); i++) {
            atomic_store(&g->p2m[pfn + done + i], UINT64_MAX);
        }
        done += 1ull << order;
    }
    return done;
}

static mm_status_t give(void *ctx, pfn_t pfn, unsigned order)
{
    struct guest_machine *g = ctx;
    uint64_t pages = 1ull << order, unmapped = 0, gone = 0;
    bool extent = is_extent(g, pfn.n, order);

    while (unmapped < pages && map_page(g, pfn.n + unmapped, UINT64_MAX)) {
        unmapped++;
    }
    if (unmapped == pages) {
        gone = give_pages(g, pfn.n, pages, extent ? order : 0);
    }
    if (gone == pages) {
        g->machine_extents += extent && order > 0;
        return MM_OK;
    }
    for (uint64_t i = gone; i < unmapped; i++) {                            /* I2 */
        ASSERT(map_page(g, pfn.n + i, atomic_load(&g->p2m[pfn.n + i])));
    }
    for (uint64_t i = 0; i < gone; i++) {
        uint64_t frame = pfn.n + i;
        long rc = 0;

        for (unsigned k = 0; k < GUEST_RETRIES && rc != 1; k++) {
            rc = reservation(g, XENMEM_populate_physmap, &frame, 1, 0);
        }
        ASSERT_CMP(rc, ==, 1);          /* we gave it a moment ago and are below our limit */
        atomic_store(&g->p2m[pfn.n + i], frame);
        ASSERT(map_page(g, pfn.n + i, frame));
    }
    return MM_EAGAIN;
}

static mm_status_t take(void *ctx, pfn_t pfn, unsigned order)
{
    struct guest_machine *g = ctx;
    uint64_t pages = 1ull << order, frame = pfn.n, got = 0;

    if (reservation(g, XENMEM_populate_physmap, &frame, 1, order) == 1) {
        for (; got < pages; got++) {
            atomic_store(&g->p2m[pfn.n + got], frame + got);
        }
    }
    while (got < pages) {
        frame = pfn.n + got;
        if (reservation(g, XENMEM_populate_physmap, &frame, 1, 0) != 1) {
            break;
        }
        atomic_store(&g->p2m[pfn.n + got++], frame);
    }
    if (got < pages) {
        ASSERT_CMP(give_pages(g, pfn.n, got, 0), ==, got);
        return MM_EAGAIN;
    }
    for (uint64_t i = 0; i < pages; i++) {
        ASSERT(map_page(g, pfn.n + i, atomic_load(&g->p2m[pfn.n + i])));
    }
    return MM_OK;
}

struct hotplug_ops guest_balloon_ops(struct guest_machine *g)
{
    return (struct hotplug_ops){ .give = give, .take = take, .ctx = g, .machine_extents = &g->machine_extents };
}
