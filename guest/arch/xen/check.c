/*
 * check.c - brings the memory core up on what Xen gave, runs the checks, and says how it went.
 *
 * Owns: struct check, the pattern in every page that the checks hold, the line of result.
 * Invariants:
 *   I1  exactly one line begins with "frameshift-guest: PASS" or "frameshift-guest: FAIL", and PASS is printed only after every
 *       check ran to its end.
 *   I2  between two checks nothing is held: drained, mm_fsck() finds nothing, and as many pages are free as at the start.
 *   I3  a word of a held page is a function of the unit's stamp, the page's place in the unit and the word's place in the page,
 *       so a page that is mapped twice, moved wrongly or handed out twice shows in what is read back.
 * Lock order: none (one vCPU).
 * Why: the hosted tests run the same objects over malloc'ed memory; here the pages are machine frames behind Xen's page tables.
 *   Mistakes can be planted (plant=byte, trap, stack or silent on the command line) so that the test that boots this
 *   kernel can show that it would notice them.
 * Cost: a few passes over all memory.
 */
#include "check.h"
#include "../../lib/text.h"
#include "../../mm/compaction.h"

#define DMA_PAGES_MIN (4 * PAGEBLOCK_PAGES)

static struct check check;

FS_NORETURN FS_COLD void check_failed(const char *what, uint64_t n)
{
    kernel_panic_number(what, n);
}

uint64_t check_random(struct check *c, uint64_t below)
{
    uint64_t x = c->rng += 0x9e3779b97f4a7c15ull;       /* splitmix64, public domain */

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return (x ^ (x >> 31)) % below;
}

static uint64_t pattern(uint32_t stamp, uint64_t page, unsigned word)
{
    return ((uint64_t)stamp << 32 | page) * 0x9e3779b97f4a7c15ull + word * 0xd1342543de82ef95ull;
}

struct unit *unit_take(struct check *c, gfp_t gfp, unsigned order, unsigned every)
{
    struct page *p = alloc_pages(&c->mm, gfp, order);
    struct unit *u = &c->units[c->count];
    uint64_t *words;

    if (p == NULL) {
        return NULL;
    }
    c->allocations++;
    CHECK(page_state(p) == PAGE_USED && page_order(p) == order && page_type(p) == gfp_migratetype(gfp), "a page of the wrong kind came", p->pfn);
    CHECK(p->pfn % (1u << order) == 0 && p->pfn + (1ull << order) <= boot_memory.pages, "a misaligned unit came", p->pfn);
    CHECK(mm_block_zone(&c->mm, page_block(p))->kind <= gfp_zone_class(gfp), "a page of a zone came that may not serve", p->pfn);
    *u = (struct unit){ p, ++c->stamp, order };
    for (uint64_t i = 0; i < 1ull << order; i++) {
        words = arch_page_address(pfn_make(p->pfn + i));
        for (unsigned w = 0; w < FS_PAGE_BYTES / 8; w += every) {
            if (gfp & __GFP_ZERO) {
                CHECK(words[w] == 0, "a page that should be zero is not", p->pfn + i);
            }
            words[w] = pattern(u->stamp, i, w);
        }
    }
    p->private = c->count++;
    return u;
}

void unit_verify(struct check *c, const struct unit *u, unsigned every)
{
    for (uint64_t i = 0; i < 1ull << u->order; i++) {
        const uint64_t *words = arch_page_address(pfn_make(u->page->pfn + i));

        for (unsigned w = 0; w < FS_PAGE_BYTES / 8; w += every) {
            CHECK(words[w] == pattern(u->stamp, i, w), "wrong bytes in the page", u->page->pfn + i);
        }
    }
    c->checked_pages += 1ull << u->order;
}

void unit_give(struct check *c, uint64_t index, unsigned every)
{
    struct unit *u = &c->units[index];

    unit_verify(c, u, every);
    page_put(&c->mm, u->page);
    *u = c->units[--c->count];
    if (index < c->count) {
        u->page->private = index;
    }
}

void units_give_all(struct check *c, unsigned every)
{
    while (c->count > 0) {
        unit_give(c, c->count - 1, every);
    }
}

static void print_fault(void *ctx, enum mm_fault fault, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    uint64_t *left = ctx;
    struct text t;

    if (*left == 0) {
        return;
    }
    (*left)--;
    text_clear(&t);
    text_word(&t, "  fsck: ");
    text_word(&t, mm_fault_name(fault));
    text_word(&t, " pfn ");
    text_hex(&t, pfn.n);
    text_word(&t, " is ");
    text_number(&t, is);
    text_word(&t, " should be ");
    text_number(&t, should_be);
    print_line(t.line);
}

void check_fsck(struct check *c, const char *after)
{
    uint64_t lines = 20, faults = mm_fsck(&c->mm, print_fault, &lines);

    c->fscks++;
    CHECK(faults == 0, after, faults);
}

void check_balance(struct check *c, const char *after)
{
    CHECK(c->count == 0, "a check still holds units", c->count);
    mm_drain(&c->mm);
    check_fsck(c, after);
    CHECK(mm_free_pages(&c->mm) == c->start_free, "pages are missing from the free lists", c->start_free - mm_free_pages(&c->mm));
}

/* Zones: a DMA-like one at the bottom, a quarter of memory as MOVABLE at the top, NORMAL between. */
static void core_start(struct check *c)
{
    uint64_t pages = boot_memory.pages, dma = pages / 8 / PAGEBLOCK_PAGES * PAGEBLOCK_PAGES;
    struct mm_range ram = { pfn_make(0), pfn_make(pages), 0 };
    struct mm_config config = {
        .ram = &ram, .ram_count = 1, .dma_pages = dma > DMA_PAGES_MIN ? dma : DMA_PAGES_MIN, .kernelcore_pages = pages / 4 * 3, .cpus = 1,
        .boot_alloc = memory_boot_alloc, .direct_map = direct_map(0),
    };
    mm_status_t status = mm_init(&c->mm, &config);

    CHECK(status == MM_OK, "mm_init", status);
    status = compaction_init(&c->mm, &config);
    CHECK(status == MM_OK, "compaction_init", status);
    c->units = memory_boot_alloc(NULL, sizeof(*c->units) * pages, 16);
    CHECK(c->units != NULL, "no memory for the checks' own list; pages", pages);
    (void)mm_free_boot(&c->mm, pfn_make(boot_memory.next), pfn_make(pages));
    (void)mm_free_boot(&c->mm, pfn_make(boot_memory.old_start), pfn_make(boot_memory.old_end));
    mm_boot_done(&c->mm);
    c->start_free = mm_free_pages(&c->mm);
    c->rng = option_number("seed", 1);
}

static void result_line(const struct check *c)
{
    struct text t;

    text_clear(&t);
    text_word(&t, "frameshift-guest: PASS pages=");
    text_number(&t, boot_memory.pages);
    text_word(&t, " free=");
    text_number(&t, c->start_free);
    text_word(&t, " zones=");
    text_number(&t, c->mm.zone_count);
    text_word(&t, " allocations=");
    text_number(&t, c->allocations);
    text_word(&t, " checked_pages=");
    text_number(&t, c->checked_pages);
    text_word(&t, " moved_pages=");
    text_number(&t, c->moved_pages);
    text_word(&t, " relocated_pages=");
    text_number(&t, c->relocated_pages);
    text_word(&t, " regions=");
    text_number(&t, c->regions);
    text_word(&t, " caches=");
    text_number(&t, c->caches);
    text_word(&t, " objects=");
    text_number(&t, c->objects);
    text_word(&t, " page_faults=");
    text_number(&t, c->faults);
    text_word(&t, " swapped_in=");
    text_number(&t, c->swapped_pages);
    text_word(&t, " fscks=");
    text_number(&t, c->fscks);
    text_word(&t, " probe_faults=");
    text_number(&t, probe_faults);
    text_word(&t, " ms=");
    text_number(&t, (arch_time_ns() - c->start_ns) / 1000000);
    print_line(t.line);
}

static void plant(struct check *c)
{
    if (option_is("plant", "trap")) {
        *(volatile uint64_t *)(uintptr_t)0xdead000 = 1;
    }
    if (option_is("plant", "byte")) {
        struct unit *u = unit_take(c, GFP_KERNEL, 0, 1);

        CHECK(u != NULL, "no page", 0);
        ((unsigned char *)arch_page_address(page_pfn(u->page)))[1234] ^= 0x10;
        unit_verify(c, u, 1);
    }
    if (option_is("plant", "stack")) {                      /* into the page below the stack, where Xen cannot push a frame */
        __asm__ volatile("1: pushq $0\n\tjmp 1b" ::: "memory");
    }
    if (option_is("plant", "silent")) {
        kernel_shutdown(SHUTDOWN_poweroff);
    }
}

/* Stand still with memory full, so that tools can look at this domain; then look whether anything is different. */
static void check_linger(struct check *c)
{
    uint64_t seconds = option_number("linger", 0), start = arch_time_ns(), faults;

    if (seconds == 0) {
        return;
    }
    while (unit_take(c, GFP_HIGH_MOVABLE, 0, 1) != NULL) {
    }
    print_line("frameshift-guest: lingering");
    while (arch_time_ns() - start < seconds * 1000000000) {
        struct sched_poll poll = { .timeout = time_system_ns() + 100000000 };

        (void)hv_sched(SCHEDOP_poll, &poll);
    }
    faults = memory_p2m_faults();
    CHECK(faults == 0, "p2m and M2P disagree after standing still", faults);
    units_give_all(c, 1);
}

void check_all(void)
{
    static const struct { const char *name; void (*run)(struct check *c); } checks[] = {
        { "page tables", check_tables }, { "orders, types, zones", check_orders }, { "per-CPU lists", check_percpu },
        { "reserves", check_reserves }, { "mixed", check_mixed }, { "compaction", check_compaction },
        { "isolation", check_isolation }, { "hotplug", check_hotplug },
        { "slab caches", check_slab }, { "address space by hand", check_mmu }, { "processes", check_space },
        { "relocation", check_relocate }, { "contiguous regions", check_contiguous }, { "lingering", check_linger },
    };
    struct check *c = &check;

    c->start_ns = arch_time_ns();
    print_number("frameshift-guest: start pages", boot_memory.pages);
    print_number(" tables", boot_memory.table_end - boot_memory.table_start);
    core_start(c);
    print_number(" boot_pages", boot_memory.next);
    print_line("");
    check_balance(c, "faults after start");
    plant(c);
    for (unsigned i = 0; i < FS_ARRAY_SIZE(checks); i++) {
        uint64_t start = arch_time_ns();

        checks[i].run(c);
        check_balance(c, checks[i].name);               /* I2 */
        print("  ");
        print(checks[i].name);
        print_number(": ms", (arch_time_ns() - start) / 1000000);
        print_line("");
    }
    result_line(c);
}
