/*
 * check_move.c - migration of held pages: compaction, isolation, emptying a range, giving its frames back.
 *
 * Owns: mm.migrate, while one of its checks runs: the mover that knows the checks' units by page.private.
 * Invariants: I1  a unit's contents move with it; its stamp stays, so that unit_verify() finds a copy that went wrong.
 * Lock order: none (one vCPU).
 * Why: contents are copied through the direct map, which is what evacuation relies on.
 * Cost: the pages that move.
 */
#include "check.h"
#include "../../mm/compaction.h"
#include "../../mm/isolation.h"
#include "../../mm/pageblock.h"
#include "reservation.h"

static mm_status_t unit_move(void *ctx, struct page *from, struct page *to)
{
    struct check *c = ctx;
    struct unit *u = &c->units[from->private];

    if (from->private >= c->count || u->page != from) {
        return MM_EBUSY;
    }
    for (uint64_t i = 0; i < 1ull << u->order; i++) {
        arch_page_copy(pfn_make(to->pfn + i), pfn_make(from->pfn + i));
    }
    to->private = from->private;
    u->page = to;
    c->moved_pages += 1ull << u->order;
    page_put(&c->mm, from);
    return MM_OK;
}

static uint64_t whole_blocks(const struct mm *mm)
{
    uint64_t n = 0;

    for (uint32_t b = 0; b < pfn_block(pfn_make(boot_memory.pages)); b++) {
        n += mm_block(mm, b)->free_pages == PAGEBLOCK_PAGES;
    }
    return n;
}

#define FILL_PAGES 8192u                /* 32 MiB: movable pages take the highest blocks first, the last one for sure */
#define MORE_PAGES 2048u

static void take_pages(struct check *c, uint64_t pages)
{
    for (uint64_t i = 0; i < pages && unit_take(c, GFP_HIGH_MOVABLE, 0, 1) != NULL; i++) {
    }
}

/* Movable pages, most of them freed again: holes everywhere. */
static void make_holes(struct check *c, uint64_t keep_one_in)
{
    uint64_t i = 0;

    take_pages(c, FILL_PAGES);
    while (i < c->count) {
        if (check_random(c, keep_one_in) != 0) {
            unit_give(c, i, 1);
        } else {
            i++;
        }
    }
    mm_drain(&c->mm);
}

static void verify_all(struct check *c)
{
    for (uint64_t i = 0; i < c->count; i++) {
        unit_verify(c, &c->units[i], 1);
    }
}

void check_compaction(struct check *c)
{
    uint64_t before, after, moved = c->moved_pages;
    struct compact_result r;

    c->mm.migrate = (struct migrate_ops){ .move = unit_move, .ctx = c };
    make_holes(c, 4);
    before = whole_blocks(&c->mm);
    r = compact_all(&c->mm, TARGET_MOVABLE);
    mm_drain(&c->mm);
    after = whole_blocks(&c->mm);
    CHECK(r.blocks_made > 0 && after >= before + r.blocks_made, "compaction made no block", after);
    CHECK(c->moved_pages > moved && r.migrated_pages == c->moved_pages - moved, "compaction counts other pages than moved", r.migrated_pages);
    CHECK(r.failed_pages == 0, "pages did not move", r.failed_pages);
    verify_all(c);                                      /* I1 */
    check_fsck(c, "faults after compaction");
    units_give_all(c, 1);
    c->mm.migrate = (struct migrate_ops){ .move = NULL };
}

/* The highest block: of the MOVABLE zone, so that nothing in it may stay. */
void check_isolation(struct check *c)
{
    uint32_t block = pfn_block(pfn_make(boot_memory.pages)) - 1;
    pfn_t start = block_pfn(block), end = block_pfn(block + 1);
    struct compact_result r;
    struct page *blocking = NULL;
    uint64_t moved = c->moved_pages;
    mm_status_t status;

    c->mm.migrate = (struct migrate_ops){ .move = unit_move, .ctx = c };
    make_holes(c, 3);
    status = isolate_range(&c->mm, pfn_make(start.n + 1), end, 0, NULL);
    CHECK(status == MM_EINVAL, "an unaligned range was isolated", status);
    status = isolate_range(&c->mm, start, end, 0, &blocking);
    CHECK(status == MM_OK, "the last block was not isolated", status);
    status = isolate_range(&c->mm, start, end, 0, &blocking);   /* overlaps are counted */
    CHECK(status == MM_OK, "the last block was not isolated again", status);
    check_fsck(c, "faults while a block is isolated");
    status = isolate_test(&c->mm, start, end, &blocking);
    CHECK(status == MM_EBUSY && blocking != NULL, "a block with pages in use is said to be empty", status);
    status = evacuate_range(&c->mm, start, end, &r);
    CHECK(status == MM_OK, "the last block was not emptied", status);
    CHECK(c->moved_pages > moved && r.migrated_pages == c->moved_pages - moved, "emptying counts other pages than moved", r.migrated_pages);
    mm_drain(&c->mm);
    status = isolate_test(&c->mm, start, end, &blocking);
    CHECK(status == MM_OK, "the emptied block is not empty", status);
    take_pages(c, MORE_PAGES);
    for (uint64_t i = 0; i < c->count; i++) {
        CHECK(page_block(c->units[i].page) != block, "a page of an isolated block was handed out", start.n);
    }
    verify_all(c);
    for (unsigned i = 0; i < 2; i++) {
        status = isolate_undo(&c->mm, start, end);
        CHECK(status == MM_OK, "isolation was not undone", status);
    }
    check_fsck(c, "faults after isolation");
    units_give_all(c, 1);
    c->mm.migrate = (struct migrate_ops){ .move = NULL };
}

/* The highest block leaves, frames and all, and returns with other frames; what was in it is elsewhere. */
void check_hotplug(struct check *c)
{
    uint32_t block = pfn_block(pfn_make(boot_memory.pages)) - 1;
    pfn_t start = block_pfn(block), end = block_pfn(block + 1);
    uint64_t had = reservation_pages(), changed = 0;
    struct reservation r = { 0 };
    struct hotplug_ops ops = reservation_ops(&r);
    struct hotplug_report report;
    struct page *blocking = NULL;
    mm_status_t status;

    c->mm.migrate = (struct migrate_ops){ .move = unit_move, .ctx = c };
    make_holes(c, 3);
    status = memory_offline(&c->mm, start, end, 0, &ops, &report, &blocking);
    CHECK(status == MM_OK && r.given_pages == PAGEBLOCK_PAGES, "the last block did not leave", r.given_pages);
    CHECK(reservation_pages() == had - r.given_pages, "Xen counts other pages than were given back", reservation_pages());
    for (uint64_t pfn = start.n; pfn < end.n; pfn++) {
        CHECK(memory_mfn(pfn) == ~0ull, "a page that left has a frame", pfn);
    }
    CHECK(!probe_write(direct_map(start.n), 1) && !probe_write(direct_map(end.n - 1), 1), "a page that left can be written", start.n);
    CHECK(r.extents_given == 1, "the block did not leave as one piece of machine", r.extents_given);
    check_fsck(c, "faults while a block is away");
    verify_all(c);
    status = memory_online(&c->mm, start, end, &ops, &report);
    CHECK(status == MM_OK && r.given_pages == 0, "the last block did not return", r.given_pages);
    CHECK(reservation_pages() == had, "Xen counts other pages than came back", reservation_pages());
    changed = memory_p2m_faults();
    CHECK(changed == 0, "p2m and M2P disagree about new frames", changed);
    take_pages(c, MORE_PAGES);
    verify_all(c);
    units_give_all(c, 1);
    c->mm.migrate = (struct migrate_ops){ .move = NULL };
}
