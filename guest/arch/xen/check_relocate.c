/*
 * check_relocate.c - other machine frames under pages of every kernel kind: held, free, page tables, p2m, text of the image.
 *
 * Owns: the list of what is moved and where to.
 * Invariants: I1  every page that may move does; those of memory_is_fixed() do not.
 * Lock order: none (one vCPU).
 * Why: the embedded machine imitates what Xen allows; here Xen itself takes each new table in the place of the old one.  The new frames
 *   come from what a pageblock that left gave back, so the domain needs no more memory than it has.
 * Cost: some hundred pages, one stop for each 64.
 */
#include "check.h"
#include "../../mm/relocate.h"
#include "reservation.h"

#define MOVES    400u
#define HELD     96u

static struct relocate_entry list[MOVES];
static struct relocate relocate;
static uint64_t frames[MOVES];

static uint32_t add(uint32_t count, uint64_t pfn)
{
    if (count < MOVES) {
        list[count] = (struct relocate_entry){ .pfn = pfn_make(pfn), .from = arch_pfn_mfn(pfn_make(pfn)), .to = mfn_make(frames[count]) };
        count++;
    }
    return count;
}

/* Tables of the kernel (the root is the last), the p2m, text, what is held, and then whatever comes: free pages and others. */
static uint32_t choose(struct check *c, uint64_t last)
{
    uint64_t p2m = arch_mfn_pfn(arch_pfn_mfn(pfn_make(boot_memory.table_start))).n;
    uint32_t count = 0;

    CHECK(p2m == boot_memory.table_start, "the M2P has another pfn for a table", p2m);
    for (uint64_t pfn = boot_memory.table_start; pfn < boot_memory.table_end; pfn++) {
        count = add(count, pfn);
    }
    for (uint64_t pfn = 0; pfn < boot_memory.old_start; pfn++) {        /* the image, the p2m, start_info, the rings */
        count = add(count, pfn);
    }
    for (uint64_t i = 0; i < c->count; i++) {
        count = add(count, c->units[i].page->pfn);
    }
    for (uint64_t pfn = boot_memory.table_end; pfn < last && count < MOVES; pfn++) {
        bool held = page_state(mm_page(&c->mm, pfn_make(pfn))) == PAGE_USED;

        count = held ? count : add(count, pfn);
    }
    return count;
}

static void judge(struct check *c, uint32_t count)
{
    uint64_t tables = 0, faults;

    for (uint32_t i = 0; i < count; i++) {
        bool moved = fs_abi_entry_moved(list[i].status) != 0, fixed = memory_is_fixed(list[i].pfn.n);

        CHECK(moved != fixed, fixed ? "a page that must stay was moved" : "a page was not moved", list[i].pfn.n);
        CHECK(memory_mfn(list[i].pfn.n) == (moved ? list[i].to.n : list[i].from.n), "the p2m has another frame", list[i].pfn.n);
        frames[i] = moved ? list[i].from.n : list[i].to.n;              /* what is nobody's now */
        tables += list[i].status == FS_ABI_ENTRY_TABLE;
        c->relocated_pages += moved;
    }
    CHECK(tables == boot_memory.table_end - boot_memory.table_start, "not every page table was moved as one", tables);
    faults = memory_p2m_faults();
    CHECK(faults == 0, "p2m and M2P disagree after frames were exchanged", faults);
}

void check_relocate(struct check *c)
{
    uint32_t block = pfn_block(pfn_make(boot_memory.pages)) - 1, count;
    pfn_t start = block_pfn(block), end = block_pfn(block + 1);
    uint64_t had = reservation_pages(), got;
    struct reservation r = { 0 };
    struct hotplug_ops ops = reservation_ops(&r);
    struct hotplug_report report;
    struct relocate_counts counts;
    mm_status_t status;

    status = memory_offline(&c->mm, start, end, 0, &ops, &report, NULL);
    CHECK(status == MM_OK, "the last block did not leave", status);
    got = reservation_more(frames, MOVES);
    CHECK(got == MOVES, "Xen gives fewer frames than went before", got);
    for (uint32_t i = 0; i < HELD; i++) {
        CHECK(unit_take(c, i % 2 == 0 ? GFP_KERNEL : GFP_KERNEL | __GFP_RECLAIMABLE, 0, 1) != NULL, "no page to be moved", i);
    }
    count = choose(c, start.n);
    CHECK(count == MOVES, "too few pages to move", count);
    relocate_init(&relocate, &c->mm, NULL);
    relocate_pages(&relocate, list, count, true, &counts);
    judge(c, count);
    got = reservation_less(frames, MOVES);
    CHECK(got == MOVES, "Xen does not take the old frames", got);
    units_give_all(c, 1);
    check_fsck(c, "faults after frames were exchanged");
    status = memory_online(&c->mm, start, end, &ops, &report);
    CHECK(status == MM_OK, "the last block did not return", status);
    CHECK(reservation_pages() == had, "a frame was lost", reservation_pages());
    check_tables(c);
}
