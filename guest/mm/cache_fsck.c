/*
 * cache_fsck.c - LRU lists, page cache and swap, recomputed and compared.
 *
 * Layer: L6
 * Owns: check_next of the spaces, its scratch; else it only reads.
 * Invariants checked: lru.c I1, radix.c I1 to I3, pagecache.c I1 to I4, swap.c I1 to I3.
 * Lock order: takes no lock but swap.lock for a moment; the caller keeps everybody out.
 * Why: a page belongs to its caches by what the trees say and by what it says itself; each is counted from the other's side.
 *   How often a slot is named is compared as a sum: page tables count their entries (vm_fsck() recounts those), trees
 *   are walked here.
 * Cost: one pass over the memmap, the lists, the trees and the slots.
 */
#include "cache_fsck.h"
#include "lru.h"
#include "pagecache.h"
#include "slab.h"
#include "swap.h"
#include "thp.h"

static const struct { const char *name, *text; } faults[CACHE_FAULTS] = {
#define X(name, text) { #name, text },
    CACHE_FAULT_LIST(X)
#undef X
};

const char *cache_fault_name(enum cache_fault fault)
{
    return (unsigned)fault < CACHE_FAULTS ? faults[fault].name : "bad";
}

const char *cache_fault_text(enum cache_fault fault)
{
    return (unsigned)fault < CACHE_FAULTS ? faults[fault].text : "bad";
}

#define BUCKETS 512u                                /* of spaces by address: each cached page asks for its own */

struct walk {
    struct vm *vm;
    cache_fault_fn report;
    void *ctx;
    uint64_t faults;
    uint64_t nodes, pages, dirty, swapped;      /* in all trees */
    uint64_t listed;                            /* on all LRU lists */
    struct address_space *spaces[BUCKETS];      /* by check_next */
};

static void fault(struct walk *w, enum cache_fault f, uint64_t pfn, uint64_t is, uint64_t should_be)
{
    w->faults++;
    if (w->report != NULL) {
        w->report(w->ctx, f, pfn_make(pfn), is, should_be);
    }
}

static void expect(struct walk *w, enum cache_fault f, uint64_t pfn, uint64_t is, uint64_t should_be)
{
    if (is != should_be) {
        fault(w, f, pfn, is, should_be);
    }
}

/* ---- LRU lists ---- */

static void check_list(struct walk *w, const struct lru_zone *z, const struct zone *zone, enum lru_list list)
{
    const struct page *before = NULL, *page = z->first[list];
    uint64_t n = 0, most = z->pages[list];

    for (; page != NULL && n <= most; page = page->lru_next, n += 1ull << page_order(before)) {
        if (page->lru_prev != before) {
            fault(w, CACHE_FAULT_LRU_LINK, page->pfn, n, most);
            break;
        }
        if (page_state(page) != PAGE_USED || (page_order(page) != 0 && !page_is_thp(page)) || !page_test(page, PG_LRU) || page->lru_list != (uint32_t)list
            || mm_block_zone(w->vm->mm, page_block(page)) != zone) {
            fault(w, CACHE_FAULT_LRU_PAGE, page->pfn, page->lru_list, list);
            break;
        }
        if (list == LRU_UNEVICTABLE && !page_test(page, PG_MLOCKED)) {
            fault(w, CACHE_FAULT_LRU_MLOCKED, page->pfn, page_word(page), 0);
        }
        before = page;
    }
    if (page == NULL && z->last[list] != before) {
        fault(w, CACHE_FAULT_LRU_LINK, FS_FRAME_NONE, n, most);
    }
    expect(w, CACHE_FAULT_LRU_COUNT, FS_FRAME_NONE, most, n);
    w->listed += n;
}

static void check_lru(struct walk *w)
{
    const struct mm *mm = w->vm->mm;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        for (unsigned l = 0; l < LRU_LISTS; l++) {
            check_list(w, &w->vm->lru->zones[mm->zones[i].id], &mm->zones[i], (enum lru_list)l);
        }
    }
}

/* ---- trees ---- */

static const struct page *word_page(uint64_t word) { return (const struct page *)(uintptr_t)word; }

static bool in_memmap(const struct walk *w, const struct page *p)
{
    const struct mm *mm = w->vm->mm;

    for (uint32_t i = 0; i < mm->section_count; i++) {
        const struct page *map = atomic_load(&mm->sections[i].map);

        if (map != NULL && p >= map && p < map + SECTION_PAGES) {
            return ((uintptr_t)p - (uintptr_t)map) % sizeof(struct page) == 0;
        }
    }
    return false;
}

static bool check_tree(struct walk *w, const struct radix *t)
{
    struct radix_count c;

    if (!radix_check(t, &c)) {
        fault(w, CACHE_FAULT_TREE, FS_FRAME_NONE, t->levels, 0);
        return false;
    }
    w->nodes += c.nodes;
    return true;
}

static void check_space(struct walk *w, const struct address_space *as)
{
    uint64_t index = 0, word, pages = 0, dirty = 0, swapped = 0;
    struct swap *swap = w->vm->swap;

    if (!check_tree(w, &as->tree)) {
        return;
    }
    while ((word = radix_next(&as->tree, &index, false)) != 0) {
        bool marked = radix_marked(&as->tree, index);
        const struct page *p = word_page(word);

        if (radix_is_value(word)) {
            uint32_t count = swap != NULL ? swap_count(swap, (swp_entry_t){ radix_to_value(word) }) : 0;

            swapped++;
            if (as->backing != NULL || count == 0 || count == UINT32_MAX) {
                fault(w, CACHE_FAULT_SWAP_ENTRY, FS_FRAME_NONE, radix_to_value(word), count);
            }
        } else if (!in_memmap(w, p) || page_state(p) != PAGE_USED || p->mapping != as || p->index != index || page_test(p, PG_ANON)) {
            fault(w, CACHE_FAULT_TREE_PAGE, in_memmap(w, p) ? p->pfn : FS_FRAME_NONE, index, word);
        } else {
            pages++;
            dirty += page_test(p, PG_DIRTY);
            if (page_test(p, PG_DIRTY) != marked) {
                fault(w, CACHE_FAULT_MARK, p->pfn, marked, !marked);
            }
        }
        if (++index == 0) {
            break;
        }
    }
    expect(w, CACHE_FAULT_SPACE_COUNT, FS_FRAME_NONE, as->pages, pages);
    expect(w, CACHE_FAULT_SPACE_DIRTY, FS_FRAME_NONE, as->dirty, dirty);
    expect(w, CACHE_FAULT_SPACE_SWAPPED, FS_FRAME_NONE, as->swapped, swapped);
    w->pages += pages;
    w->dirty += dirty;
    w->swapped += swapped;
}

/* ---- swap ---- */

static void check_swapcache(struct walk *w, struct swap *s)
{
    uint64_t index = 0, word, pages = 0;

    if (!check_tree(w, &s->cache)) {
        return;
    }
    while ((word = radix_next(&s->cache, &index, false)) != 0) {
        const struct page *p = word_page(word);
        uint32_t count = swap_count(s, (swp_entry_t){ index });

        if (radix_is_value(word) || !in_memmap(w, p) || page_state(p) != PAGE_USED || !page_test(p, PG_SWAPCACHE) || p->private != index
            || count == 0 || count == UINT32_MAX) {
            fault(w, CACHE_FAULT_SWAP_PAGE, !radix_is_value(word) && in_memmap(w, p) ? p->pfn : FS_FRAME_NONE, index, count);
        }
        pages++;
        index++;
    }
    expect(w, CACHE_FAULT_SWAP_CACHED, FS_FRAME_NONE, s->cached, pages);
}

static void check_slots(struct walk *w, struct swap *s)
{
    uint64_t counts = 0, entries = w->swapped + s->cached;

    for (uint32_t a = 0; a < s->area_count; a++) {
        uint64_t used = 0;

        for (uint32_t slot = 0; slot < s->areas[a].slots; slot++) {
            uint32_t n = swap_count(s, swp_entry(a, slot));

            counts += n;
            used += n > 0;
        }
        expect(w, CACHE_FAULT_SWAP_USED, FS_FRAME_NONE, s->areas[a].used, used);
    }
    for (const struct mm_struct *m = w->vm->mms; m != NULL; m = m->next) {
        entries += m->swap_entries;
    }
    expect(w, CACHE_FAULT_SWAP_COUNTS, FS_FRAME_NONE, counts, entries);
}

/* ---- the memmap ---- */

static uint32_t bucket(const void *mapping)
{
    return (uint32_t)(((uint64_t)(uintptr_t)mapping >> 3) * 0x9e3779b97f4a7c15ull >> 55);
}

/* pre: w->spaces is empty */
static void note_spaces(struct walk *w)
{
    for (struct address_space *as = w->vm->pagecache->spaces; as != NULL; as = as->next) {
        as->check_next = w->spaces[bucket(as)];
        w->spaces[bucket(as)] = as;
    }
}

/* What a page names is not looked into before it is known to be a space. */
static bool is_space(const struct walk *w, const void *mapping)
{
    const struct address_space *as = w->spaces[bucket(mapping)];

    while (as != NULL && as != mapping) {
        as = as->check_next;
    }
    return as != NULL;
}

struct memmap_count { uint64_t listed, in_spaces, in_swapcache; };

static void check_page(struct walk *w, const struct page *p, struct memmap_count *n)
{
    bool anon = page_test(p, PG_ANON), swapcache = page_test(p, PG_SWAPCACHE);
    bool cached = !anon && !page_test(p, PG_SLAB | PG_TABLE) && p->mapping != NULL && is_space(w, p->mapping);
    int32_t mapped = atomic_load_explicit(&p->mapcount, memory_order_relaxed), refs = page_refs(p);

    n->listed += page_test(p, PG_LRU) ? 1ull << page_order(p) : 0;
    n->in_spaces += cached;
    n->in_swapcache += swapcache;
    if (page_test(p, PG_LOCKED | PG_WRITEBACK)) {
        fault(w, CACHE_FAULT_LOCKED, p->pfn, page_word(p), 0);
    }
    if ((cached || swapcache || anon) && !page_test(p, PG_LRU | PG_HUGE)) {
        fault(w, CACHE_FAULT_LRU_LOST, p->pfn, page_word(p), 0);
    }
    if ((cached || swapcache) && !page_test(p, PG_UPTODATE)) {
        fault(w, CACHE_FAULT_UPTODATE, p->pfn, page_word(p), 0);
    }
    if ((cached || swapcache || anon) && refs < (mapped > 0 ? mapped : 0) + cached + swapcache) {
        fault(w, CACHE_FAULT_REFS, p->pfn, (uint64_t)refs, (uint64_t)(mapped + cached + swapcache));
    }
}

static void check_memmap(struct walk *w)
{
    const struct mm *mm = w->vm->mm;
    struct memmap_count n = { .listed = 0 };

    for (uint64_t pfn = 0; pfn < mm->end_pfn; pfn++) {
        const struct page *p = mm_pfn_valid(mm, pfn_make(pfn)) ? mm_page(mm, pfn_make(pfn)) : NULL;

        if (p != NULL && page_state(p) == PAGE_USED) {
            check_page(w, p, &n);
        }
    }
    expect(w, CACHE_FAULT_LRU_STRAY, FS_FRAME_NONE, n.listed, w->listed);
    expect(w, CACHE_FAULT_SPACE_STRAY, FS_FRAME_NONE, n.in_spaces, w->pages);
    expect(w, CACHE_FAULT_SWAP_STRAY, FS_FRAME_NONE, n.in_swapcache, w->vm->swap != NULL ? w->vm->swap->cached : 0);
}

uint64_t cache_fsck(struct vm *vm, cache_fault_fn report, void *ctx)
{
    struct walk w = { .vm = vm, .report = report, .ctx = ctx };
    struct pagecache *cache = vm->pagecache;

    check_lru(&w);
    for (const struct address_space *as = cache->spaces; as != NULL; as = as->next) {
        check_space(&w, as);
    }
    expect(&w, CACHE_FAULT_TOTAL, FS_FRAME_NONE, cache->pages, w.pages);
    expect(&w, CACHE_FAULT_TOTAL, FS_FRAME_NONE, cache->dirty, w.dirty);
    if (vm->swap != NULL) {
        check_swapcache(&w, vm->swap);
        check_slots(&w, vm->swap);
    }
    expect(&w, CACHE_FAULT_NODES, FS_FRAME_NONE, kmem_cache_used(cache->nodes), w.nodes);
    note_spaces(&w);
    check_memmap(&w);
    return w.faults;
}
