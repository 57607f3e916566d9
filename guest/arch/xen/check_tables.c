/*
 * check_tables.c - the kernel's own page tables, seen from inside.
 *
 * Owns: nothing.
 * Invariants: none of its own; it checks I1, I4 and I5 of memory.c.
 * Lock order: none.
 * Why: Xen enforces that a page table is written by nobody but itself, but only a write that is really tried shows that the
 *   direct map says so too, and that an ordinary page beside it can be written.
 * Cost: one fault a page table.
 */
#include "check.h"

static void probe_page(uint64_t pfn, bool writable)
{
    uint64_t *at = direct_map(pfn);

    CHECK(probe_write(at, *at) == writable, writable ? "an ordinary page cannot be written" : "a read-only page can be written", pfn);
}

void check_tables(struct check *c)
{
    uint64_t faults = memory_p2m_faults();

    (void)c;
    CHECK(faults == 0, "p2m and M2P disagree", faults);
    for (uint64_t pfn = boot_memory.table_start; pfn < boot_memory.table_end; pfn++) {
        probe_page(pfn, false);
    }
    for (uint64_t pfn = boot_memory.old_start; pfn < boot_memory.old_end; pfn++) {
        probe_page(pfn, true);                          /* the builder's tables are ordinary memory now */
    }
    probe_page(boot_memory.table_end, true);
    probe_page(boot_memory.pages - 1, true);
    probe_page(0, false);                               /* the image's text, by its other address */
    CHECK(!probe_write((uint64_t *)(void *)image_start, 0), "the image's text can be written", 0);
    CHECK(!probe_write((uint64_t *)(void *)stack_guard, 0), "the page below the stack can be written", 0);
}
