/*
 * reservation.c - frames that this guest gives back to Xen, gets again, or exchanges.
 *
 * Owns: struct hotplug_ops of this machine.
 * Invariants:
 *   I1  a pfn without a frame has ~0 in the p2m and no entry in the direct map; it gets its frame first, then the entry.
 *   I2  all pages of a call change or none: what Xen did only in part is undone.
 *   I3  an extent is a pageblock whose frames are one aligned piece of machine: it goes, and comes, as one.
 *   I4  an exchange is one chunk: Xen does all of it or nothing, and its count says which.
 * Lock order: none (one vCPU).
 * Why: hotplug.c knows what may go; Xen wants machine frames that are mapped nowhere, and hands out others later.  A domain's builder
 *   takes 2 MiB pieces where it can, so most pageblocks are one; where frames were exchanged since, they are single pages.
 * Cost: a pageblock is eight batches of entries and one or two calls.
 */
#include "reservation.h"
#include "frameshift/assert.h"

static uint64_t frames[PAGEBLOCK_PAGES];

static int64_t reserve(unsigned command, uint64_t *extents, uint64_t count, unsigned order)
{
    struct xen_memory_reservation r = { .nr_extents = count, .extent_order = order, .domid = DOMID_SELF };

    set_xen_guest_handle(r.extent_start, (xen_pfn_t *)extents);
    return hv_memory(command, &r);
}

/* I3: of a pageblock. */
static bool is_extent(uint64_t pfn)
{
    uint64_t first = memory_mfn(pfn);

    for (uint64_t i = 1; i < PAGEBLOCK_PAGES; i++) {
        if (memory_mfn(pfn + i) != first + i) {
            return false;
        }
    }
    return first % PAGEBLOCK_PAGES == 0;
}

/* A piece of machine under a whole pageblock, if Xen has one. */
static bool populate_extent(uint64_t pfn)
{
    uint64_t at = pfn;

    if (reserve(XENMEM_populate_physmap, &at, 1, PAGEBLOCK_ORDER) != 1) {
        return false;
    }
    for (uint64_t i = 0; i < PAGEBLOCK_PAGES; i++) {
        memory_set_mfn(pfn + i, at + i);
    }
    if (memory_map(pfn, PAGEBLOCK_PAGES, true) != 0) {
        kernel_panic_number("Xen does not map the frames that it gave", pfn);
    }
    return true;
}

/* pre: is_extent(). False: it is still there. */
static bool release_extent(uint64_t pfn)
{
    uint64_t first = memory_mfn(pfn), had = reservation_pages();

    if (memory_map(pfn, PAGEBLOCK_PAGES, false) != 0) {
        kernel_panic_number("Xen does not unmap a page of our own", pfn);
    }
    if (reserve(XENMEM_decrease_reservation, &first, 1, PAGEBLOCK_ORDER) != 1) {
        if (reservation_pages() != had) {
            kernel_panic_number("Xen took a part of an extent and does not say which", pfn);
        }
        if (memory_map(pfn, PAGEBLOCK_PAGES, true) != 0) {
            kernel_panic_number("Xen does not map a page that was ours all the time", pfn);
        }
        return false;
    }
    for (uint64_t i = 0; i < PAGEBLOCK_PAGES; i++) {
        memory_set_mfn(pfn + i, ~0ull);
    }
    return true;
}

/* Frames under [pfn, pfn + count) again. Returns how many, from the first on, got one. */
static uint64_t populate(uint64_t pfn, uint64_t count)
{
    int64_t got;

    for (uint64_t i = 0; i < count; i++) {
        frames[i] = pfn + i;
    }
    got = reserve(XENMEM_populate_physmap, frames, count, 0);   /* names the new frames in the list, and writes M2P */
    got = got > 0 ? got : 0;
    for (uint64_t i = 0; i < (uint64_t)got; i++) {
        memory_set_mfn(pfn + i, frames[i]);
    }
    if (got > 0 && memory_map(pfn, (uint64_t)got, true) != 0) {
        kernel_panic_number("Xen does not map the frames that it gave", pfn);
    }
    return (uint64_t)got;
}

/* The frames of [pfn, pfn + count) go. Returns how many, from the first on, went. */
static uint64_t release(uint64_t pfn, uint64_t count)
{
    int64_t gone;

    if (memory_map(pfn, count, false) != 0) {
        kernel_panic_number("Xen does not unmap a page of our own", pfn);
    }
    for (uint64_t i = 0; i < count; i++) {
        frames[i] = memory_mfn(pfn + i);
    }
    gone = reserve(XENMEM_decrease_reservation, frames, count, 0);
    gone = gone > 0 ? gone : 0;
    for (uint64_t i = 0; i < (uint64_t)gone; i++) {
        memory_set_mfn(pfn + i, ~0ull);
    }
    if ((uint64_t)gone < count && memory_map(pfn + (uint64_t)gone, count - (uint64_t)gone, true) != 0) {
        kernel_panic_number("Xen does not map a page that was ours all the time", pfn);
    }
    return (uint64_t)gone;
}

static mm_status_t give(void *ctx, pfn_t pfn, unsigned order)
{
    uint64_t count = 1ull << order, gone;
    struct reservation *r = ctx;

    if (order == PAGEBLOCK_ORDER && is_extent(pfn.n) && release_extent(pfn.n)) {
        r->extents_given++;
        r->given_pages += count;
        return MM_OK;
    }
    gone = release(pfn.n, count);
    if (gone < count) {                                 /* I2 */
        if (gone > 0 && populate(pfn.n, gone) != gone) {
            kernel_panic_number("frames that went by mistake do not come back", pfn.n);
        }
        return MM_EAGAIN;
    }
    r->given_pages += count;
    return MM_OK;
}

static mm_status_t take(void *ctx, pfn_t pfn, unsigned order)
{
    uint64_t count = 1ull << order, got;
    struct reservation *r = ctx;

    if (order == PAGEBLOCK_ORDER && populate_extent(pfn.n)) {
        r->extents_taken++;
        r->given_pages -= count;
        return MM_OK;
    }
    got = populate(pfn.n, count);
    if (got < count) {                                  /* I2 */
        if (got > 0 && release(pfn.n, got) != got) {
            kernel_panic_number("Xen does not take frames back", pfn.n);
        }
        return MM_EAGAIN;
    }
    r->given_pages -= count;
    return MM_OK;
}

struct hotplug_ops reservation_ops(struct reservation *r)
{
    return (struct hotplug_ops){ .give = give, .take = take, .ctx = r, .machine_extents = &r->extents_given };
}

/* I4. Xen allocates before it lets the old frames go, and writes the new ones' M2P. */
static bool exchange(uint64_t pfn, unsigned order, bool join, unsigned address_bits)
{
    uint64_t count = 1ull << order, piece = join ? pfn : memory_mfn(pfn);
    struct xen_memory_exchange x = { .in = { .nr_extents = join ? count : 1, .extent_order = join ? 0 : order, .domid = DOMID_SELF },
                                     .out = { .nr_extents = join ? 1 : count, .extent_order = join ? order : 0, .domid = DOMID_SELF,
                                              .mem_flags = XENMEMF_address_bits(address_bits) } };

    for (uint64_t i = 0; i < count; i++) {
        frames[i] = join ? memory_mfn(pfn + i) : pfn + i;       /* out: pfns, which come back as frames */
    }
    set_xen_guest_handle(x.in.extent_start, (xen_pfn_t *)(join ? frames : &piece));
    set_xen_guest_handle(x.out.extent_start, (xen_pfn_t *)(join ? &piece : frames));
    (void)hv_memory(XENMEM_exchange, &x);
    if (x.nr_exchanged != x.in.nr_extents) {
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        memory_set_mfn(pfn + i, join ? piece + i : frames[i]);
    }
    return true;
}

bool arch_frames_exchange(pfn_t pfn, unsigned order, bool join, unsigned address_bits)
{
    uint64_t count = 1ull << order;
    bool done;

    ASSERT(order <= PAGEBLOCK_ORDER && pfn.n % count == 0 && pfn.n + count <= boot_memory.pages);
    if (memory_map(pfn.n, count, false) != 0) {
        kernel_panic_number("Xen does not unmap a page of our own", pfn.n);
    }
    done = exchange(pfn.n, order, join, address_bits);
    if (memory_map(pfn.n, count, true) != 0) {
        kernel_panic_number("Xen does not map the frames that it gave, or left", pfn.n);
    }
    return done;
}

uint64_t reservation_more(uint64_t *mfns, uint64_t count)
{
    int64_t got = reserve(XENMEM_increase_reservation, mfns, count, 0);

    return got > 0 ? (uint64_t)got : 0;
}

uint64_t reservation_less(uint64_t *mfns, uint64_t count)
{
    int64_t gone = reserve(XENMEM_decrease_reservation, mfns, count, 0);

    return gone > 0 ? (uint64_t)gone : 0;
}

uint64_t reservation_pages(void)
{
    domid_t self = DOMID_SELF;
    int64_t pages = hv_memory(XENMEM_current_reservation, &self);

    if (pages < 0) {
        kernel_panic_number("Xen does not say how much memory we have", (uint64_t)-pages);
    }
    return (uint64_t)pages;
}
