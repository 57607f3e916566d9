/*
 * serve_check.c - what the kernel at work knows of itself, recomputed; and mistakes made on purpose.
 *
 * Owns: nothing.
 * Invariants:
 *   I1  each page with a frame has an M2P entry that leads back, and is mapped in the direct map by exactly that frame; a page without
 *       a frame is not mapped; a page table is read-only there.
 *   I2  after everything was given back, free pages are those of the start but for the pages of abi.h.
 * Lock order: none (one vCPU); nobody is at work meanwhile.
 * Why I1: the tasks read through the direct map and through their own tables; a stale entry that still shows the right bytes is found
 *   here only.
 * Cost: a pass over all pages, and the core's own checks.
 */
#include "serve.h"
#include "check.h"
#include "../../lib/text.h"
#include "../../mm/cache_fsck.h"
#include "../../mm/memmap.h"
#include "../../mm/mm_fsck.h"
#include "../../mm/page_alloc.h"
#include "../../mm/rmap.h"
#include "../../mm/slab_fsck.h"
#include "../../mm/vm_fsck.h"

#define LINES_MAX 20u

struct faults { uint64_t count; };

static void fault(struct faults *f, const char *what, uint64_t pfn, uint64_t is, uint64_t should_be)
{
    struct text t;

    if (f->count++ >= LINES_MAX) {
        return;
    }
    text_clear(&t);
    text_word(&t, "  fsck: pfn ");
    text_hex(&t, pfn);
    text_word(&t, ": ");
    text_word(&t, what);
    text_word(&t, ": is ");
    text_hex(&t, is);
    text_word(&t, " should be ");
    text_hex(&t, should_be);
    print_line(t.line);
}

static void on_mm(void *ctx, enum mm_fault f, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    fault(ctx, mm_fault_text(f), pfn.n, is, should_be);
}

static void on_slab(void *ctx, enum slab_fault f, const struct kmem_cache *cache, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    (void)cache;
    fault(ctx, slab_fault_text(f), pfn.n, is, should_be);
}

static void on_vm(void *ctx, enum vm_fsck_fault f, const struct vm_fsck_place *place, uint64_t is, uint64_t should_be)
{
    fault(ctx, vm_fsck_text(f), place->pfn.n, is, should_be);
}

static void on_cache(void *ctx, enum cache_fault f, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    fault(ctx, cache_fault_text(f), pfn.n, is, should_be);
}

/* I1 */
static void check_frame(const struct serve *s, struct faults *f, uint64_t pfn)
{
    uint64_t mfn = memory_mfn(pfn), entry = memory_direct_entry(pfn);
    struct arch_table_place place;
    const struct page *p = mm_page(&s->mm, pfn_make(pfn));
    bool table = memory_table_place(pfn, &place) || (page_state(p) == PAGE_USED && page_test(p, PG_TABLE));

    if (mfn == ~0ull) {
        if ((entry & ARCH_PTE_PRESENT) != 0) {
            fault(f, "mapped without a frame", pfn, entry, 0);
        }
        return;
    }
    if (memory_m2p(mfn) != pfn) {
        fault(f, "the M2P of its frame", pfn, memory_m2p(mfn), pfn);
    }
    if ((entry & ARCH_PTE_PRESENT) == 0 || (entry & ARCH_PTE_FRAME) >> FS_PAGE_SHIFT != mfn) {
        fault(f, "the direct map's entry", pfn, entry, mfn << FS_PAGE_SHIFT);
    }
    if (table && (entry & ARCH_PTE_WRITE) != 0) {
        fault(f, "a page table is writable", pfn, entry, entry & ~ARCH_PTE_WRITE);
    }
}

uint64_t serve_fsck(struct serve *s)
{
    struct faults f = { 0 };
    uint64_t reported = mm_fsck(&s->mm, on_mm, &f);

    reported += slab_fsck(&s->mm, on_slab, &f);
    reported += vm_fsck(&s->vm, on_vm, &f);
    reported += cache_fsck(&s->vm, on_cache, &f);
    CHECK(reported == f.count, "a check counts other faults than it tells", reported);
    for (uint64_t pfn = 0; pfn < boot_memory.pages; pfn++) {
        check_frame(s, &f, pfn);
    }
    return f.count;
}

/* I2 */
void serve_balance(struct serve *s)
{
    struct hotplug_ops ops = reservation_ops(&s->reservation);
    struct hotplug_report report;
    uint64_t shared = 1 + FS_ABI_SLOTS, free;
    unsigned order = 0;
    mm_status_t status = MM_OK;

    if (s->reservation.given_pages > 0) {
        status = memory_online(&s->mm, pfn_make(0), pfn_make(s->mm.end_pfn / PAGEBLOCK_PAGES * PAGEBLOCK_PAGES), &ops, &report);
    }
    swap_destroy(&s->swap);
    pagecache_destroy(&s->pagecache);
    vm_destroy(&s->vm);
    mm_drain(&s->mm);
    if (status != MM_OK) {
        print_line("  what was given back did not come again: free pages are not compared");
        return;
    }
    while (s->coop.export_pages > 1u << order) {
        order++;
    }
    shared += s->coop.export_pages > 0 ? 1ull << order : 0;
    free = mm_free_pages(&s->mm) + memmap_pages(&s->mm);                    /* a section that came back has its struct pages elsewhere */
    CHECK(free + shared == s->start_free, "pages are missing from the free lists", s->start_free - free - shared);
    CHECK(reservation_pages() >= boot_memory.pages, "Xen counts fewer pages than this domain has", reservation_pages());
}

/* One byte of every page that some process has: of a single one the line could be written anew before a task looks at it. */
static void plant_byte(struct serve *s)
{
    uint64_t planted = 0;

    for (uint64_t pfn = boot_memory.pages; pfn-- > 0;) {
        struct page *p = mm_page(&s->mm, pfn_make(pfn));

        if (page_state(p) == PAGE_USED && page_test(p, PG_ANON) && page_mapped(p)) {
            ((unsigned char *)direct_map(pfn))[1234] ^= 0x10;
            planted++;
        }
    }
    if (planted == 0) {
        kernel_panic("no page to plant a wrong byte in");
    }
}

void serve_plant(struct serve *s)
{
    if (option_is("plant", "byte")) {
        plant_byte(s);
    }
    if (option_is("plant", "frame")) {              /* two free pages' frames change places in the p2m alone */
        uint64_t last = boot_memory.pages - 1, mfn = memory_mfn(last);

        memory_set_mfn(last, memory_mfn(last - 1));
        memory_set_mfn(last - 1, mfn);
    }
}
