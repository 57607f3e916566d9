/*
 * check_contiguous.c - regions for drivers over the real XENMEM_exchange: adjacent frames, limits, refusals, and who must leave them alone.
 *
 * Owns: the frames that are compared before and after.
 * Invariants:
 *   I1  a region's frames are adjacent, aligned and below the limit by the M2P too, and what is written there comes back.
 *   I2  a refusal (a limit below which Xen has nothing; a frame that something else maps) leaves every frame and every byte.
 *   I3  this domain has as many frames after each step as before.
 *   I4  a mover is told FS_ABI_ENTRY_DMA for each page, and nothing moved.
 * Lock order: none (one vCPU).
 * Why scattered first: the domain builder's frames lie together, and then nothing would be exchanged.
 * Cost: some dozens of exchanges, the largest of 512 frames.
 */
#include "check.h"
#include "../../mm/contiguous.h"
#include "../../mm/relocate.h"
#include "reservation.h"

#define HELD_ORDER 4u

static uint64_t frames[PAGEBLOCK_PAGES];
static uint64_t spare[2u << HELD_ORDER];
static struct relocate_entry list[2u << HELD_ORDER];
static struct relocate relocate;

static void note_frames(uint64_t pfn, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        frames[i] = memory_mfn(pfn + i);
    }
}

static bool frames_same(uint64_t pfn, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        if (memory_mfn(pfn + i) != frames[i]) {
            return false;
        }
    }
    return true;
}

/* Single frames under the pages of a unit, as an evacuation leaves them: of a piece they are made by another exchange. */
static void scatter(struct check *c, unsigned order)
{
    struct page *p = alloc_pages(&c->mm, GFP_KERNEL, order);
    uint64_t had = reservation_pages();
    struct contiguous r;

    CHECK(p != NULL, "no unit whose frames could be scattered; order", order);
    r = (struct contiguous){ .page = p, .order = order, .frame = arch_pfn_mfn(page_pfn(p)) };
    if (order > 0 && contiguous_valid(&r)) {
        CHECK(arch_frames_exchange(page_pfn(p), order, false, 0), "Xen gives no single frames for a piece; order", order);
        CHECK(!contiguous_valid(&r), "frames of an exchange lie together by chance; order", order);
    }
    CHECK(reservation_pages() == had, "an exchange for single frames changed the count", reservation_pages());
    page_put(&c->mm, p);
    mm_drain(&c->mm);
}

/* I1 */
static void region_check(struct check *c, const struct contiguous *r)
{
    uint64_t count = 1ull << r->order, pfn = r->page->pfn;

    CHECK(contiguous_valid(r) && r->frame.n % count == 0, "a region's frames do not lie together", pfn);
    CHECK(r->address_bits == 0 || (r->frame.n + count) << FS_PAGE_SHIFT <= 1ull << r->address_bits, "a region is above its limit", r->frame.n);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t *words = direct_map(pfn + i);

        CHECK(memory_m2p(r->frame.n + i) == pfn + i, "the M2P has another page for a region's frame", r->frame.n + i);
        for (unsigned w = 0; w < FS_PAGE_BYTES / 8; w++) {
            CHECK(words[w] == 0, "a new region is not zero", pfn + i);
            words[w] = (pfn + i) * 0x9e3779b97f4a7c15ull + w;
        }
    }
    c->regions++;
}

static void bytes_check(uint64_t pfn, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t *words = direct_map(pfn + i);

        for (unsigned w = 0; w < FS_PAGE_BYTES / 8; w++) {
            CHECK(words[w] == (pfn + i) * 0x9e3779b97f4a7c15ull + w, "wrong bytes in a region", pfn + i);
        }
    }
}

static void there_and_back(struct check *c, unsigned order, unsigned bits)
{
    uint64_t had = reservation_pages();
    struct contiguous r;
    mm_status_t status;

    status = contiguous_create(&c->mm, GFP_KERNEL, order, bits, &r);
    CHECK(status == MM_OK, "no region of order", order);
    region_check(c, &r);
    bytes_check(r.page->pfn, 1ull << order);
    CHECK(reservation_pages() == had, "a region costs frames", reservation_pages());
    check_fsck(c, "faults while a region is held");
    CHECK(contiguous_destroy(&c->mm, &r), "Xen does not take a region back; order", order);
    CHECK(reservation_pages() == had, "a region's end costs frames", reservation_pages());
}

/* The lowest limit that Xen still meets, and the first one that it refuses. (I2) */
static void limits(struct check *c)
{
    unsigned met = 0;

    for (unsigned bits = 40; bits > FS_PAGE_SHIFT + HELD_ORDER; bits--) {
        uint64_t had = reservation_pages(), free = mm_free_pages(&c->mm);
        struct contiguous r;
        mm_status_t status = contiguous_create(&c->mm, GFP_KERNEL, HELD_ORDER, bits, &r);

        CHECK(reservation_pages() == had, "a limit costs frames; bits", bits);
        if (status != MM_OK) {
            CHECK(status == MM_EAGAIN && r.page == NULL, "a region is refused for another reason", status);
            mm_drain(&c->mm);
            CHECK(mm_free_pages(&c->mm) == free, "a region that was refused keeps pages", free);
            CHECK(met > 0, "no region below 2^40 bytes", bits);
            print_number("    lowest limit of a region that is met: bits", met);
            print_line("");
            return;
        }
        region_check(c, &r);
        met = bits;
        CHECK(contiguous_destroy(&c->mm, &r), "Xen does not take a region back; bits", bits);
    }
    CHECK(false, "Xen has a region below every limit", FS_PAGE_SHIFT + HELD_ORDER + 1);
}

/* A frame that is mapped once more, and a limit that nobody can meet: everything stays as it was. (I2) */
static void refusals(struct check *c)
{
    struct unit *u = unit_take(c, GFP_KERNEL, HELD_ORDER, 1);
    uint64_t count = 1u << HELD_ORDER, pfn, had = reservation_pages();

    CHECK(u != NULL, "no unit for refusals", 0);
    pfn = u->page->pfn;
    note_frames(pfn, count);
    CHECK(!arch_frames_exchange(page_pfn(u->page), HELD_ORDER, true, FS_PAGE_SHIFT + HELD_ORDER), "Xen gives the machine's first frames away", pfn);
    CHECK(frames_same(pfn, count) && reservation_pages() == had, "a refusal changed frames", pfn);
    unit_verify(c, u, 1);
    CHECK(memory_window(memory_mfn(pfn + 3)) != NULL, "a frame of our own cannot be mapped", pfn + 3);
    CHECK(!arch_frames_exchange(page_pfn(u->page), HELD_ORDER, true, 0), "Xen exchanges a frame that is mapped elsewhere", pfn);
    (void)memory_window(FS_FRAME_NONE);
    CHECK(frames_same(pfn, count) && reservation_pages() == had, "a refusal changed frames", pfn);
    unit_verify(c, u, 1);
    unit_give(c, 0, 1);
}

/* I4: a region's pages and others in one list, with frames to go to that are as good for both. */
static void movers(struct check *c)
{
    uint32_t block = pfn_block(pfn_make(boot_memory.pages)) - 1, count = 1u << HELD_ORDER;
    struct reservation given = { 0 };
    struct hotplug_ops ops = reservation_ops(&given);
    struct hotplug_report report;
    struct relocate_counts counts;
    struct contiguous r;
    struct unit *u;
    mm_status_t status = memory_offline(&c->mm, block_pfn(block), block_pfn(block + 1), 0, &ops, &report, NULL);

    CHECK(status == MM_OK, "the last block did not leave", status);
    CHECK(reservation_more(spare, 2 * count) == 2 * count, "Xen gives fewer frames than went before", 2 * count);
    status = contiguous_create(&c->mm, GFP_KERNEL, HELD_ORDER, 0, &r);
    CHECK(status == MM_OK, "no region for the mover", status);
    region_check(c, &r);
    u = unit_take(c, GFP_KERNEL, HELD_ORDER, 1);
    CHECK(u != NULL, "no unit beside a region", 0);
    for (uint32_t i = 0; i < 2 * count; i++) {
        pfn_t pfn = pfn_make((i < count ? r.page->pfn : u->page->pfn) + i % count);

        list[i] = (struct relocate_entry){ .pfn = pfn, .from = arch_pfn_mfn(pfn), .to = mfn_make(spare[i]) };
    }
    relocate_init(&relocate, &c->mm, NULL);
    relocate_pages(&relocate, list, 2 * count, true, &counts);
    for (uint32_t i = 0; i < 2 * count; i++) {
        CHECK(list[i].status == (i < count ? FS_ABI_ENTRY_DMA : FS_ABI_ENTRY_KERNEL), "the mover's answer for a page beside or in a region",
              list[i].status);
        spare[i] = i < count ? list[i].to.n : list[i].from.n;
    }
    CHECK(contiguous_valid(&r), "a mover took a region's frame away", r.page->pfn);
    bytes_check(r.page->pfn, count);
    unit_give(c, 0, 1);
    CHECK(contiguous_destroy(&c->mm, &r), "Xen does not take a region back", HELD_ORDER);
    CHECK(reservation_less(spare, 2 * count) == 2 * count, "Xen does not take the spare frames", 2 * count);
    status = memory_online(&c->mm, block_pfn(block), block_pfn(block + 1), &ops, &report);
    CHECK(status == MM_OK, "the last block did not return", status);
}

void check_contiguous(struct check *c)
{
    uint64_t had = reservation_pages(), faults;
    struct contiguous r;

    CHECK(contiguous_create(&c->mm, GFP_KERNEL, PAGEBLOCK_ORDER + 1, 0, &r) == MM_EINVAL && r.page == NULL, "a region of two blocks", 0);
    CHECK(contiguous_create(&c->mm, GFP_KERNEL, HELD_ORDER, FS_PAGE_SHIFT, &r) == MM_EINVAL, "a region larger than its limit", 0);
    for (unsigned order = 0; order <= PAGEBLOCK_ORDER; order += 3) {
        there_and_back(c, order, 0);                /* as the pages lie */
        scatter(c, order);
        there_and_back(c, order, 0);
    }
    scatter(c, HELD_ORDER);
    refusals(c);
    movers(c);
    limits(c);
    CHECK(reservation_pages() == had, "regions cost frames", reservation_pages());
    faults = memory_p2m_faults();
    CHECK(faults == 0, "p2m and M2P disagree after regions", faults);
    check_tables(c);
}
