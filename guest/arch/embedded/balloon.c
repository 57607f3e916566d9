/*
 * balloon.c - frames under pages of a guest in a process, given to the machine and taken again, or exchanged for others.
 *
 * Owns: p2m entries of pages that have no frame.
 * Invariants: I1  a page without a frame is not mapped, and its p2m entry says so;
 *   I2  what fails half-way is put back: the page has its frame and its map again.
 * Lock order: update_lock, for the list of entries; the pages are nobody's.
 * Why extents: frames that lie together go back as one, so that the machine gets its 2 MiB blocks back.
 * Cost: one call that unmaps up to sixteen blocks, one flush, one call for their extents; or for each page where they are none.
 */
#include <errno.h>

#include <stdint.h>
#include <xen/xen.h>
#include <xen/memory.h>

#include "balloon.h"
#include "frameshift/assert.h"
#include "machine.h"

#define BLOCKS HOTPLUG_BLOCKS                   /* given in one go */
#define LIST   (BLOCKS * PAGEBLOCK_PAGES)       /* entries of one call: 16 bytes each */

static uint64_t address(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

/* Entries of the direct map for [pfn, pfn + pages): frames as the p2m says, or nothing. Returns how many were put on the list, which has
 * room for LIST; 0: there is no table. */
static uint32_t list_entries(struct guest_machine *g, uint64_t pfn, uint64_t pages, bool present, struct mmu_update *list)
{
    uint64_t bits = ARCH_PTE_PRESENT | ARCH_PTE_WRITE | ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY;
    uint32_t n = 0;

    while (n < LIST && n < pages) {
        uint32_t slot, end;
        uint64_t ptr;
        pfn_t table;

        if (!guest_walk(g, address(g->direct + (pfn + n) * FS_PAGE_BYTES), 1, &table, &slot)) {
            return 0;
        }
        ptr = (arch_pfn_mfn(table).n << FS_PAGE_SHIFT) + slot * sizeof(uint64_t);
        end = n + ARCH_PT_SLOTS - slot;
        end = end < LIST ? end : LIST;
        end = end < pages ? end : (uint32_t)pages;
        for (uint32_t i = n; i < end; i++, ptr += sizeof(uint64_t)) {
            list[i] = (struct mmu_update){ .ptr = ptr };
        }
        for (uint32_t i = n; present && i < end; i++) {
            list[i].val = atomic_load_explicit(&g->p2m[pfn + i], memory_order_relaxed) << FS_PAGE_SHIFT | bits;
        }
        n = end;
    }
    return n;
}

/* Write them. Tried until it is done: the entries and frames are ours, so the machine refuses only where a fault was injected. False: some of it
 * may be done. */
static bool map_pages(struct guest_machine *g, uint64_t pfn, uint64_t pages, bool present)
{
    struct mmu_update *list = g->update_list;
    uint64_t done = 0;

    spin_lock(&g->update_lock);
    while (done < pages) {
        uint32_t n = list_entries(g, pfn + done, pages - done, present, list), now = 0;

        for (unsigned i = 0; i < GUEST_RETRIES && now < n; i++) {
            uint32_t part = 0;

            (void)guest_hypercall(g, arch_cpu_id(), __HYPERVISOR_mmu_update, address(&list[now]), n - now, address(&part), DOMID_SELF);
            now += part < n - now ? part : n - now;
        }
        done += now;
        if (now < n || n == 0) {
            break;
        }
    }
    spin_unlock(&g->update_lock);
    return done == pages;
}

bool guest_balloon_init(struct guest_machine *g)
{
    g->update_list = guest_boot_alloc(g, LIST * sizeof(struct mmu_update), 64);
    return g->update_list != NULL;
}

/* No CPU keeps a way to frames that are to go. */
static bool flush(struct guest_machine *g)
{
    int rc = -EAGAIN;

    for (unsigned i = 0; i < GUEST_RETRIES && rc != 0; i++) {
        rc = guest_mmuext(g, arch_cpu_id(), MMUEXT_TLB_FLUSH_ALL, 0, 0);
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
    uint64_t first = atomic_load(&g->p2m[pfn]), differs = first % (1ull << order);

    for (uint64_t i = 1; i < (1ull << order); i++) {
        differs |= atomic_load_explicit(&g->p2m[pfn + i], memory_order_relaxed) ^ (first + i);
    }
    return differs == 0;
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
            atomic_store_explicit(&g->p2m[pfn + done + i], UINT64_MAX, memory_order_relaxed);
        }
        done += 1ull << order;
    }
    return done;
}

static mm_status_t give(void *ctx, pfn_t pfn, unsigned order)
{
    struct guest_machine *g = ctx;
    uint64_t pages = 1ull << order, gone = 0;
    bool extent = is_extent(g, pfn.n, order);

    if (map_pages(g, pfn.n, pages, false) && flush(g)) {
        gone = give_pages(g, pfn.n, pages, extent ? order : 0);
    }
    if (gone == pages) {
        g->machine_extents += extent && order > 0;
        return MM_OK;
    }
    for (uint64_t i = 0; i < gone; i++) {                                   /* I2 */
        uint64_t frame = pfn.n + i;
        long rc = 0;

        for (unsigned k = 0; k < GUEST_RETRIES && rc != 1; k++) {
            rc = reservation(g, XENMEM_populate_physmap, &frame, 1, 0);
        }
        ASSERT_CMP(rc, ==, 1);          /* we gave it a moment ago and are below our limit */
        atomic_store(&g->p2m[pfn.n + i], frame);
    }
    ASSERT(map_pages(g, pfn.n, pages, true));
    return MM_EAGAIN;
}

/* Blocks that are one extent of the machine each, from the first on. */
static uint32_t extents_from(struct guest_machine *g, uint64_t pfn, uint32_t blocks, uint64_t *mfns)
{
    uint32_t n = 0;

    for (; n < blocks && is_extent(g, pfn + n * PAGEBLOCK_PAGES, PAGEBLOCK_ORDER); n++) {
        mfns[n] = atomic_load(&g->p2m[pfn + n * PAGEBLOCK_PAGES]);
    }
    return n;
}

static uint32_t give_blocks(void *ctx, pfn_t pfn, uint32_t blocks)
{
    uint64_t mfns[BLOCKS];
    struct guest_machine *g = ctx;
    uint32_t n = extents_from(g, pfn.n, blocks < BLOCKS ? blocks : BLOCKS, mfns), gone = 0;

    if (n == 0) {
        return give(ctx, pfn, PAGEBLOCK_ORDER) == MM_OK;
    }
    if (map_pages(g, pfn.n, n * PAGEBLOCK_PAGES, false) && flush(g)) {
        for (unsigned i = 0; i < GUEST_RETRIES && gone < n; i++) {
            long rc = reservation(g, XENMEM_decrease_reservation, &mfns[gone], n - gone, PAGEBLOCK_ORDER);

            gone += rc > 0 ? (uint32_t)rc : 0;
        }
    }
    for (uint64_t i = 0; i < (uint64_t)gone * PAGEBLOCK_PAGES; i++) {
        atomic_store_explicit(&g->p2m[pfn.n + i], UINT64_MAX, memory_order_relaxed);
    }
    ASSERT(gone == n || map_pages(g, pfn.n + gone * PAGEBLOCK_PAGES, (n - gone) * PAGEBLOCK_PAGES, true));        /* I2 */
    g->machine_extents += gone;
    return gone;
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
    ASSERT(map_pages(g, pfn.n, pages, true));
    return MM_OK;
}

struct hotplug_ops guest_balloon_ops(struct guest_machine *g)
{
    return (struct hotplug_ops){ .give = give, .give_blocks = give_blocks, .take = take, .ctx = g, .machine_extents = &g->machine_extents };
}

/* ---- one piece for single frames, and the reverse ---- */

/* Only the machine's count says whether it was done. */
static bool exchange(struct guest_machine *g, uint64_t pfn, unsigned order, bool join, unsigned address_bits)
{
    uint64_t pages = 1ull << order, in[PAGEBLOCK_PAGES], out[PAGEBLOCK_PAGES];
    struct xen_memory_exchange x = { .in = { .nr_extents = join ? pages : 1, .extent_order = join ? 0 : order, .domid = DOMID_SELF },
                                     .out = { .nr_extents = join ? 1 : pages, .extent_order = join ? order : 0, .domid = DOMID_SELF,
                                              .mem_flags = XENMEMF_address_bits(address_bits) } };

    for (uint64_t i = 0; i < pages; i++) {
        in[i] = atomic_load(&g->p2m[pfn + i]);
        out[i] = pfn + i;                       /* comes back as the frame */
    }
    set_xen_guest_handle(x.in.extent_start, in);
    set_xen_guest_handle(x.out.extent_start, out);
    (void)guest_hypercall(g, arch_cpu_id(), __HYPERVISOR_memory_op, XENMEM_exchange, address(&x), 0, 0);
    if (x.nr_exchanged != x.in.nr_extents) {
        return false;                           /* one chunk: nothing was done */
    }
    for (uint64_t i = 0; i < pages; i++) {
        atomic_store(&g->p2m[pfn + i], join ? out[0] + i : out[i]);
    }
    return true;
}

bool arch_frames_exchange(pfn_t pfn, unsigned order, bool join, unsigned address_bits)
{
    struct guest_machine *g = guest_this_cpu()->machine;
    uint64_t pages = 1ull << order;
    bool done;

    ASSERT(order <= PAGEBLOCK_ORDER && pfn.n % pages == 0 && pfn.n + pages <= g->pages);
    done = map_pages(g, pfn.n, pages, false) && flush(g) && exchange(g, pfn.n, order, join, address_bits);
    ASSERT(map_pages(g, pfn.n, pages, true));   /* I2: the new frames, or the old ones */
    return done;
}
