/*
 * reclaim.c - getting pages back: page cache, swap, slabs.
 *
 * Layer: L4
 * Owns: the decision which page goes; hooks.reclaim.
 * Invariants:
 *   I1  reclaim only tries page locks: whoever allocates may hold some.
 *   I2  it allocates only with __GFP_MEMALLOC, so it never calls itself.
 *   I3  every page that it has isolated is freed or put back on the list that its flags say.
 *   I4  a page leaves its cache only when the cache and reclaim hold all of its references, and its contents are in the backing store
 *       or in its swap slot, or were never written to.
 * Lock order: page lock, then what page cache, swap and reverse maps take; no spinlock is held when any of them is called.
 * Why: two lists of each kind. A page that is used again while it is inactive becomes active; the oldest active pages
 *   become inactive when there are more active ones. So a page that was read once goes before one that is in use.
 *   The harder it is (priority falls), the larger the part of each list that is looked at.
 *   Within a range (lumpy) it does not matter how often a page is used: the range is wanted.
 * Cost: a page that is looked at costs its reverse map; a page that goes costs one write at most.
 */
#include "reclaim.h"
#include "lru.h"
#include "pagecache.h"
#include "pcp.h"
#include "rmap.h"
#include "slab.h"
#include "swap.h"
#include "thp.h"
#include "frameshift/assert.h"

#define BATCH         32u           /* pages isolated at once */
#define PRIORITY_MAX  12u

struct scan {
    struct vm *vm;
    struct zone *z;                 /* NULL: a range */
    uint64_t wanted, scanned, reclaimed;
    unsigned priority, flags;
    bool lumpy;                     /* take pages that are in use too */
    enum lru_counter scan_counter, steal_counter;
};

enum outcome { KEEP, ACTIVATE, FREED };

/* ---- one page. pre: locked, isolated: one reference is ours ---- */

static bool clean_only(const struct scan *s) { return (s->flags & RECLAIM_CLEAN_ONLY) != 0; }

/* Was it used since the last look? FREED: no, it may go. */
static enum outcome look_at(const struct scan *s, struct page *page)
{
    bool mlocked = false, was = page_test(page, PG_REFERENCED), anon = page_test(page, PG_ANON | PG_SWAPBACKED);
    unsigned uses = page_mapped(page) ? page_referenced(s->vm, page, &mlocked) : 0;

    if (mlocked) {
        page_set_flags(page, PG_MLOCKED);
        return KEEP;
    }
    if (s->lumpy) {
        return FREED;
    }
    page_clear_flags(page, PG_REFERENCED);
    if (uses == 0) {
        return was && page_mapped(page) ? KEEP : FREED;
    }
    /* A file page that was mapped and read once gets another round on the inactive list; anonymous memory in use is working set. */
    page_set_flags(page, PG_REFERENCED);
    return anon || was || uses > 1 ? ACTIVATE : KEEP;
}

/* Nothing maps it afterwards, if FREED. */
static enum outcome unmap(const struct scan *s, struct page *page, enum unmap_how how)
{
    if (!page_mapped(page)) {
        return FREED;
    }
    return try_to_unmap(s->vm, page, how) == MM_OK ? FREED : KEEP;      /* MM_EBUSY: PG_MLOCKED says where it is put back */
}

/* A page of the swap cache. held: our references */
static enum outcome shrink_swapcache(const struct scan *s, struct page *page)
{
    struct swap *swap = s->vm->swap;
    bool was_clean;

    if (!page_mapped(page) && swapcache_try_free(swap, page)) {
        return page_refs(page) == 1 ? FREED : KEEP;         /* nobody wanted it any more */
    }
    if (unmap(s, page, UNMAP_SWAP) != FREED) {
        return KEEP;
    }
    was_clean = !page_test(page, PG_DIRTY);
    if (swapcache_write_page(swap, page) != MM_OK) {
        return ACTIVATE;
    }
    if (!swapcache_reclaim(swap, page, 1)) {
        return KEEP;
    }
    if (was_clean) {
        lru_count(s->vm->lru, LC_swap_cache_drop, 1);
    }
    return FREED;
}

/* Give an anonymous page, or a page of shared memory, a slot. */
static bool give_slot(const struct scan *s, struct page *page, swp_entry_t *entry)
{
    struct swap *swap = s->vm->swap;

    if (swap == NULL || swap_alloc(swap, entry) != MM_OK) {
        return false;
    }
    if (swapcache_add(swap, page, *entry) != MM_OK) {
        swap_free(swap, *entry);
        return false;
    }
    return true;
}

static enum outcome shrink_anon(const struct scan *s, struct page *page)
{
    swp_entry_t entry;

    if (!give_slot(s, page, &entry)) {
        return ACTIVATE;                            /* no use to look at it again soon */
    }
    return shrink_swapcache(s, page);
}

static enum outcome shrink_shared(const struct scan *s, struct page *page)
{
    struct swap *swap = s->vm->swap;
    swp_entry_t entry;

    if (unmap(s, page, UNMAP_FILE) != FREED) {
        return KEEP;
    }
    if (!page_test(page, PG_DIRTY)) {
        return pagecache_remove(page, 1) ? FREED : KEEP;
    }
    if (!give_slot(s, page, &entry)) {
        return ACTIVATE;
    }
    if (swap_dup(swap, entry) == MM_OK) {           /* the count of the tree */
        if (pagecache_swap_out(page, 2, entry.v)) {
            page_put(s->vm->mm, page);
            return shrink_swapcache(s, page);
        }
        swap_free(swap, entry);
    }
    if (page_test(page, PG_SWAPCACHE)) {
        swapcache_remove(swap, page);
    }
    return KEEP;
}

static enum outcome shrink_file(const struct scan *s, struct page *page)
{
    if (clean_only(s) ? page_mapped(page) : unmap(s, page, UNMAP_FILE) != FREED) {
        return KEEP;
    }
    if (clean_only(s) ? page_test(page, PG_DIRTY) : pagecache_write_page(page) != MM_OK) {
        return clean_only(s) ? KEEP : ACTIVATE;
    }
    return pagecache_remove(page, 1) ? FREED : KEEP;
}

/* Somebody else has a reference that no unmapping takes away: an access is under way, or a device. To unmap it would be in vain, and
 * a fault that copies the page while it allocates would find it gone again and again. */
static bool is_held(const struct page *page)
{
    int32_t known = 1 + atomic_load_explicit(&page->mapcount, memory_order_relaxed);

    known += page_test(page, PG_SWAPCACHE) + (page_address_space(page) != NULL);
    return page_refs(page) > known;
}

static enum outcome shrink_locked(const struct scan *s, struct page *page)
{
    struct address_space *as;
    enum outcome use;

    if (page_test(page, PG_MLOCKED | PG_WRITEBACK | PG_PINNED | PG_DMA) || !page_test(page, PG_UPTODATE)) {
        return page_refs(page) == 1 ? FREED : KEEP;
    }
    if (page_refs(page) == 1) {
        return FREED;                               /* its owner has gone meanwhile */
    }
    if (is_held(page)) {
        return KEEP;
    }
    as = page_address_space(page);
    if (clean_only(s)) {
        return as != NULL && as->backing != NULL && !page_test(page, PG_SWAPCACHE) ? shrink_file(s, page) : KEEP;
    }
    use = look_at(s, page);
    if (use != FREED) {
        return use;
    }
    if (page_order(page) != 0) {                    /* its parts go one by one, this one now */
        page_clear_flags(page, PG_ACTIVE);
        if (split_huge_page(s->vm, page, 1) != MM_OK) {
            return KEEP;
        }
    }
    if (page_test(page, PG_SWAPCACHE)) {
        return shrink_swapcache(s, page);
    }
    if (page_test(page, PG_ANON)) {
        return page_mapped(page) ? shrink_anon(s, page) : KEEP;     /* it is being set up, or moved */
    }
    return as == NULL ? KEEP : as->backing == NULL ? shrink_shared(s, page) : shrink_file(s, page);
}

/* ---- lists ---- */

static void shrink_pages(struct scan *s, struct page_list *list)
{
    struct lru *lru = s->vm->lru;
    struct page *page;

    s->scanned += list->count;
    lru_count(lru, s->scan_counter, list->count);
    while ((page = page_list_pop(list)) != NULL) {
        enum outcome done = KEEP;

        if (page_trylock(page)) {                   /* I1 */
            done = shrink_locked(s, page);
            page_unlock(page);
        }
        if (done == FREED) {
            s->reclaimed++;
            lru_count(lru, s->steal_counter, 1);
            page_put(s->vm->mm, page);
            continue;
        }
        if (done == ACTIVATE && !page_test(page, PG_ACTIVE)) {
            page_set_flags(page, PG_ACTIVE);
            lru_count(lru, LC_pgactivate, 1);
        }
        if (page_test(page, PG_MLOCKED)) {
            lru_count(lru, LC_pgculled, 1);
        }
        lru_putback(lru, page);                     /* I3 */
    }
}

/* Is an active page still in use? pre: isolated */
static bool stays_active(const struct scan *s, struct page *page)
{
    bool mlocked = false, used = false;

    if (page_trylock(page)) {
        used = page_mapped(page) && page_referenced(s->vm, page, &mlocked) > 0;
        if (mlocked) {
            page_set_flags(page, PG_MLOCKED);   /* under the lock: munlock waits for it */
        }
        page_unlock(page);
    }
    if (page_test(page, PG_REFERENCED)) {
        page_clear_flags(page, PG_REFERENCED);
        used = true;
    }
    return used && s->priority > PRIORITY_MAX / 2;  /* when it is hard, age counts alone */
}

/* Move old active pages to the inactive list. */
static void shrink_active(struct scan *s, enum lru_list active, uint64_t pages)
{
    struct lru *lru = s->vm->lru;

    while (pages > 0) {
        struct page_list list = { .count = 0 };
        uint64_t n = lru_isolate_oldest(lru, s->z, active, pages < BATCH ? pages : BATCH, &list);
        struct page *page;

        while ((page = page_list_pop(&list)) != NULL) {
            if (!stays_active(s, page)) {
                page_clear_flags(page, PG_ACTIVE);
                lru_count(lru, LC_pgdeactivate, 1);
            }
            lru_putback(lru, page);
        }
        if (n == 0) {
            break;
        }
        pages -= n;
    }
}

static void shrink_inactive(struct scan *s, enum lru_list inactive, uint64_t pages)
{
    while (pages > 0 && s->reclaimed < s->wanted) {
        struct page_list list = { .count = 0 };
        uint64_t n = lru_isolate_oldest(s->vm->lru, s->z, inactive, pages < BATCH ? pages : BATCH, &list);

        if (n == 0) {
            break;
        }
        shrink_pages(s, &list);
        pages -= n < pages ? n : pages;
    }
}

/* How much of a list is looked at in this round; small lists are not rounded away. */
static uint64_t share(uint64_t pages, unsigned priority)
{
    uint64_t n = pages >> priority;

    return n < BATCH ? (pages < BATCH ? pages : BATCH) : n;
}

static void shrink_kind(struct scan *s, enum lru_list inactive, unsigned weight)
{
    struct lru *lru = s->vm->lru;
    enum lru_list active = inactive + 1;
    uint64_t n = lru_pages(lru, s->z, inactive), a = lru_pages(lru, s->z, active);

    if (a > n) {
        shrink_active(s, active, share(a, s->priority));
        n = lru_pages(lru, s->z, inactive);
    }
    n = share(n, s->priority);
    shrink_inactive(s, inactive, s->priority == 0 ? n : (n * weight + 99) / 100);
}

/* One round over a zone at the priority at hand. */
static void shrink_round(struct scan *s)
{
    const struct lru *lru = s->vm->lru;
    uint64_t on_lists = 1, scanned = s->scanned, got;

    for (unsigned l = 0; l < LRU_UNEVICTABLE; l++) {
        on_lists += lru_pages(lru, s->z, (enum lru_list)l);
    }
    shrink_kind(s, LRU_INACTIVE_FILE, 200 - RECLAIM_SWAPPINESS);
    if (s->vm->swap != NULL) {
        shrink_kind(s, LRU_INACTIVE_ANON, RECLAIM_SWAPPINESS);
    }
    if (!(s->flags & RECLAIM_NO_SLAB)) {
        /* As large a part of the objects as of the pages. */
        got = kmem_shrink_caches(s->vm->mm, s->scanned - scanned + (on_lists >> s->priority), on_lists);
        lru_count(s->vm->lru, LC_slab_reclaimed, got);
        s->reclaimed += got;
    }
}

static uint64_t shrink_zone(struct scan *s)
{
    for (s->priority = PRIORITY_MAX; s->reclaimed < s->wanted; s->priority--) {
        shrink_round(s);
        if (s->priority == 0) {
            break;
        }
    }
    return s->reclaimed;
}

/* ---- who asks ---- */

/* Pages that are missing to a mark. What reclaim gets back are movable pages, and their blocks can run dry while kernel blocks keep
 * the zone above its marks: of those, as many as lie between the mark and min are kept free too. */
static uint64_t missing(struct zone *z, enum watermark mark)
{
    uint64_t free = zone_free_pages(z), movable = 0, want = z->watermark[mark], want_movable = want - z->watermark[WMARK_MIN];

    zone_lock(z);
    for (unsigned o = 0; o < FREE_ORDERS; o++) {
        movable += z->free_units[o][MIGRATE_MOVABLE] << o;
    }
    zone_unlock(z);
    want = want > free ? want - free : 0;
    want_movable = want_movable > movable ? want_movable - movable : 0;
    return want > want_movable ? want : want_movable;
}

bool reclaim_wanted(struct zone *z)
{
    return missing(z, WMARK_LOW) > 0;
}

uint64_t reclaim_background(struct vm *vm, struct zone *z)
{
    struct scan s = { .vm = vm, .z = z, .scan_counter = LC_pgscan_kswapd, .steal_counter = LC_pgsteal_kswapd };
    uint64_t total = 0, enough = 2 * missing(z, WMARK_HIGH);

    if (!reclaim_wanted(z)) {
        return 0;
    }
    lru_count(vm->lru, LC_kswapd_run, 1);
    /* Pages that were guests in kernel blocks leave these fuller of holes and the movable ones as they were: not for ever. */
    while (total < enough && (s.wanted = missing(z, WMARK_HIGH)) > 0) {
        s.reclaimed = 0;
        if (shrink_zone(&s) == 0) {
            break;
        }
        total += s.reclaimed;
        pcp_drain(vm->mm, z);                       /* what waits there is not counted as free */
    }
    return total;
}

uint64_t reclaim_zone(struct vm *vm, struct zone *z, uint64_t pages, gfp_t gfp)
{
    struct scan s = { .vm = vm, .z = z, .wanted = pages, .scan_counter = LC_pgscan_direct, .steal_counter = LC_pgsteal_direct };

    ASSERT((gfp & __GFP_DIRECT_RECLAIM) && !(gfp & __GFP_MEMALLOC));        /* I2 */
    return shrink_zone(&s);
}

static uint64_t direct_reclaim(struct mm *mm, struct zone *z, unsigned order, gfp_t gfp)
{
    uint64_t pages = order <= 5 ? BATCH : 1ull << order;

    lru_count(mm->vm->lru, LC_allocstall, 1);
    return reclaim_zone(mm->vm, z, pages, gfp);
}

uint64_t reclaim_range(struct vm *vm, pfn_t start, pfn_t end, unsigned flags)
{
    struct scan s = { .vm = vm, .flags = flags, .wanted = UINT64_MAX, .lumpy = true, .scan_counter = LC_pgscan_lumpy,
                      .steal_counter = LC_pgsteal_lumpy };
    struct page_list list = { .count = 0 };
    unsigned walk = mm_walk_begin(vm->mm);

    for (uint64_t pfn = start.n; pfn < end.n; pfn++) {
        struct page *page = mm_pfn_valid(vm->mm, pfn_make(pfn)) ? mm_page(vm->mm, pfn_make(pfn)) : NULL;

        if (page != NULL && page_test(page, PG_LRU) && page_try_get(page)) {
            if (lru_isolate(vm->lru, page)) {
                page_list_add(&list, page);
            }
            page_put(vm->mm, page);
        }
        if (list.count == BATCH || pfn + 1 == end.n || (list.last != NULL && page_order(list.last) != 0)) {
            shrink_pages(&s, &list);
        }
    }
    mm_walk_end(vm->mm, walk);
    if (!(flags & (RECLAIM_NO_SLAB | RECLAIM_CLEAN_ONLY))) {
        uint64_t got = kmem_shrink_range(vm->mm, start, end);

        lru_count(vm->lru, LC_slab_reclaimed, got);
        s.reclaimed += got;
    }
    return s.reclaimed;
}

void reclaim_init(struct vm *vm)
{
    ASSERT(vm->mm->vm == vm && vm->lru != NULL && vm->pagecache != NULL);
    vm->mm->hooks.reclaim = direct_reclaim;
}
