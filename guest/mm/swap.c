/*
 * swap.c - swap areas, counts of their slots, and the swap cache.
 *
 * Layer: L3
 * Owns: struct swap; PG_SWAPCACHE and, with it, page.private.
 * Invariants:
 *   I1  a slot's count is the number of entries that name it, and one for the swap cache while a page of it is there.
 *   I2  a page is in the cache exactly while PG_SWAPCACHE is set; that changes under the page lock and swap.lock. The cache holds a reference.
 *   I3  a page in the cache that is not locked is PG_UPTODATE.
 *   I4  a page in the cache is the only copy while it is PG_DIRTY; without, its slot has the same bytes, but for what D bits know.
 *   I5  as pagecache.c I5: what takes a page out looks at its references under swap.lock, under which lookups take theirs.
 * Lock order: page lock, address_space.tree_lock or page_table_lock, swap.lock; a page lock is only tried under those.
 * Why: between the moment at which the first entry of a page is replaced and the moment at which its contents are in the slot,
 *   and the other way round, everybody who looks for the slot must find the one page: that is the swap cache.
 * Cost: a slot has two bytes; finding a free one looks at slots in order from the last one found.
 */
#include "swap.h"
#include "lru.h"
#include "mempolicy.h"
#include "pagecache.h"
#include "rmap.h"
#include "slab.h"
#include "frameshift/assert.h"

static struct page *word_page(uint64_t word) { return (struct page *)(uintptr_t)word; }

/* ---- areas ---- */

void swap_init(struct swap *s, struct vm *vm)
{
    ASSERT(vm->pagecache != NULL);
    *s = (struct swap){ .vm = vm };
    vm->swap = s;
}

static struct page **count_pages(const struct swap_area *a)
{
    return arch_page_address(page_pfn(a->counts));
}

/* pre: slot < slots */
static uint16_t *slot_count(const struct swap_area *a, uint32_t slot)
{
    return (uint16_t *)arch_page_address(page_pfn(count_pages(a)[slot / SWAP_COUNTS_PAGE])) + slot % SWAP_COUNTS_PAGE;
}

static void free_counts(struct mm *mm, struct swap_area *a)
{
    for (uint32_t i = 0; a->counts != NULL && i < FS_PAGE_BYTES / sizeof(struct page *) && count_pages(a)[i] != NULL; i++) {
        page_put(mm, count_pages(a)[i]);
    }
    if (a->counts != NULL) {
        page_put(mm, a->counts);
    }
}

mm_status_t swap_add_area(struct swap *s, uint32_t slots, const struct swap_backing *backing, void *ctx)
{
    struct swap_area a = { .backing = backing, .ctx = ctx, .slots = slots };
    mm_status_t status = MM_OK;

    if (slots == 0 || slots > SWAP_SLOTS_MAX || backing == NULL || backing->read == NULL || backing->write == NULL) {
        return MM_EINVAL;
    }
    a.counts = alloc_pages(s->vm->mm, GFP_KERNEL | __GFP_ZERO, 0);
    for (uint32_t i = 0; a.counts != NULL && status == MM_OK && i * SWAP_COUNTS_PAGE < slots; i++) {
        count_pages(&a)[i] = alloc_pages(s->vm->mm, GFP_KERNEL | __GFP_ZERO, 0);
        status = count_pages(&a)[i] != NULL ? MM_OK : MM_ENOMEM;
    }
    status = a.counts == NULL ? MM_ENOMEM : status;
    if (status == MM_OK) {
        spin_lock(&s->lock);
        if (s->area_count < SWAP_AREAS_MAX) {
            s->areas[s->area_count++] = a;
        } else {
            status = MM_EINVAL;
        }
        spin_unlock(&s->lock);
    }
    if (status != MM_OK) {
        free_counts(s->vm->mm, &a);
    }
    return status;
}

void swap_destroy(struct swap *s)
{
    ASSERT_CMP(s->cached, ==, 0);
    for (uint32_t i = 0; i < s->area_count; i++) {
        ASSERT_CMP(s->areas[i].used, ==, 0);
        free_counts(s->vm->mm, &s->areas[i]);
    }
    s->vm->swap = NULL;
}

/* ---- slots. pre: swap.lock ---- */

/* The count of an entry that anybody may have made up; NULL: there is no such slot. */
static uint16_t *entry_count(const struct swap *s, swp_entry_t e)
{
    if (e.v >> 40 != 0 || swp_area(e) >= s->area_count || swp_slot(e) >= s->areas[swp_area(e)].slots) {
        return NULL;
    }
    return slot_count(&s->areas[swp_area(e)], swp_slot(e));
}

static uint16_t *used_count(const struct swap *s, swp_entry_t e)
{
    uint16_t *count = entry_count(s, e);

    ASSERT(count != NULL && *count > 0);
    return count;
}

static bool area_alloc(struct swap_area *a, uint32_t *slot)
{
    if (a->used == a->slots) {
        return false;
    }
    while (*slot_count(a, a->next) != 0) {
        a->next = a->next + 1 < a->slots ? a->next + 1 : 0;
    }
    *slot = a->next;
    *slot_count(a, *slot) = 1;
    a->used++;
    a->next = a->next + 1 < a->slots ? a->next + 1 : 0;
    return true;
}

/* Returns what is left. */
static uint16_t count_drop(struct swap *s, swp_entry_t e)
{
    uint16_t *count = used_count(s, e);

    if (--*count == 0) {
        s->areas[swp_area(e)].used--;
    }
    return *count;
}

/* ---- slots ---- */

mm_status_t swap_alloc(struct swap *s, swp_entry_t *entry)
{
    mm_status_t status = MM_ENOMEM;
    uint32_t slot;

    spin_lock(&s->lock);
    for (uint32_t i = 0; i < s->area_count && status != MM_OK; i++) {
        if (area_alloc(&s->areas[s->current], &slot)) {
            *entry = swp_entry(s->current, slot);
            status = MM_OK;
        } else {
            s->current = (s->current + 1) % s->area_count;
        }
    }
    spin_unlock(&s->lock);
    return status;
}

mm_status_t swap_dup(struct swap *s, swp_entry_t entry)
{
    mm_status_t status = MM_EBUSY;
    uint16_t *count;

    spin_lock(&s->lock);
    count = used_count(s, entry);
    if (*count < SWAP_COUNT_MAX) {
        ++*count;
        status = MM_OK;
    }
    spin_unlock(&s->lock);
    return status;
}

void swap_free(struct swap *s, swp_entry_t entry)
{
    struct page *page = NULL;
    uint64_t word;

    spin_lock(&s->lock);
    if (count_drop(s, entry) == 1 && (word = radix_get(&s->cache, entry.v)) != 0) {
        page = word_page(word);
        page_get(page);
    }
    spin_unlock(&s->lock);
    if (page != NULL) {
        if (page_trylock(page)) {
            (void)swapcache_try_free(s, page);
            page_unlock(page);
        }
        page_put(s->vm->mm, page);
    }
}

uint32_t swap_count(struct swap *s, swp_entry_t entry)
{
    uint16_t *count;
    uint32_t n;

    spin_lock(&s->lock);
    count = entry_count(s, entry);
    n = count != NULL ? *count : UINT32_MAX;
    spin_unlock(&s->lock);
    return n;
}

uint64_t swap_free_slots(struct swap *s)
{
    uint64_t n = 0;

    spin_lock(&s->lock);
    for (uint32_t i = 0; i < s->area_count; i++) {
        n += s->areas[i].slots - s->areas[i].used;
    }
    spin_unlock(&s->lock);
    return n;
}

/* ---- the swap cache ---- */

struct page *swapcache_find(struct swap *s, swp_entry_t entry)
{
    struct page *page;

    spin_lock(&s->lock);
    page = word_page(radix_get(&s->cache, entry.v));
    if (page != NULL) {
        page_get(page);
    }
    spin_unlock(&s->lock);
    return page;
}

/* own: the count that the caller gives; else one more is taken, and MM_EAGAIN says that the slot is not in use. */
static mm_status_t insert(struct swap *s, struct page *page, swp_entry_t entry, bool own, gfp_t gfp)
{
    struct radix_reserve reserve = { .count = 0 };
    struct kmem_cache *nodes = s->vm->pagecache->nodes;
    bool more = true;
    mm_status_t status = MM_OK;

    while (more) {
        uint32_t missing;
        uint16_t *count;

        more = false;
        spin_lock(&s->lock);
        missing = radix_missing(&s->cache, entry.v);
        count = entry_count(s, entry);
        if (count == NULL || *count == 0 || (!own && *count == SWAP_COUNT_MAX)) {
            status = MM_EAGAIN;
        } else if (radix_get(&s->cache, entry.v) != 0) {
            status = MM_EBUSY;
        } else if (missing > reserve.count) {
            more = true;
        } else {
            page_get(page);
            page->private = entry.v;
            page_set_flags(page, PG_SWAPCACHE | PG_SWAPBACKED);
            (void)radix_set(&s->cache, entry.v, (uintptr_t)page, &reserve);
            *count = (uint16_t)(*count + (own ? 0 : 1));
            s->cached++;
        }
        spin_unlock(&s->lock);
        if (more && !radix_reserve(&reserve, missing, nodes, gfp)) {
            status = MM_ENOMEM;
            more = false;
        }
    }
    radix_reserve_free(&reserve, nodes);
    return status;
}

mm_status_t swapcache_add(struct swap *s, struct page *page, swp_entry_t entry)
{
    mm_status_t status;

    ASSERT(page_test(page, PG_LOCKED) && !page_test(page, PG_SWAPCACHE));
    /* This is reclaim at work: it may use what is kept for it, and must not reclaim for it. */
    status = insert(s, page, entry, true, GFP_NOWAIT | __GFP_MEMALLOC);
    if (status == MM_OK) {
        page_set_flags(page, PG_DIRTY);                 /* I4 */
    }
    return status;
}

/* Take the page out; its slot loses the cache's count. pre: swap.lock, page locked */
static void take_out(struct swap *s, struct page *page, struct radix_reserve *freed)
{
    uint64_t word = radix_clear(&s->cache, page->private, freed);

    ASSERT(word_page(word) == page);
    page_clear_flags(page, PG_SWAPCACHE);
    (void)count_drop(s, page_swp_entry(page));
    s->cached--;
}

/* When a page may leave the cache. */
enum leave { LEAVE_ANYWAY, LEAVE_UNSHARED, LEAVE_UNREFERENCED };

static bool leave(struct swap *s, struct page *page, enum leave when, int32_t held)
{
    struct radix_reserve freed = { .count = 0 };
    bool done = when == LEAVE_ANYWAY;

    ASSERT(page_test(page, PG_LOCKED));
    spin_lock(&s->lock);
    if (when == LEAVE_UNSHARED) {
        done = page_test(page, PG_SWAPCACHE) && *used_count(s, page_swp_entry(page)) == 1;
    } else if (when == LEAVE_UNREFERENCED) {
        done = page_refs(page) == held + 1 && !page_test(page, PG_DIRTY);  /* I5 */
    }
    if (done) {
        take_out(s, page, &freed);
        if (when != LEAVE_UNREFERENCED) {
            page_set_flags(page, PG_DIRTY);             /* the slot is no copy any more */
        }
    }
    spin_unlock(&s->lock);
    radix_reserve_free(&freed, s->vm->pagecache->nodes);
    if (done) {
        page_put(s->vm->mm, page);
    }
    return done;
}

void swapcache_remove(struct swap *s, struct page *page)
{
    (void)leave(s, page, LEAVE_ANYWAY, 0);
}

bool swapcache_reclaim(struct swap *s, struct page *page, int32_t held)
{
    return leave(s, page, LEAVE_UNREFERENCED, held);
}

bool swapcache_try_free(struct swap *s, struct page *page)
{
    return leave(s, page, LEAVE_UNSHARED, 0);
}

/* Read the slot into a new page. MM_EBUSY: somebody else was faster. */
static mm_status_t fill(struct swap *s, swp_entry_t entry, gfp_t gfp, const struct mpol_place *place, struct page **out)
{
    struct vm *vm = s->vm;
    struct page *page = mpol_alloc(vm, place, gfp & ~__GFP_ZERO, 0);
    const struct swap_area *a = &s->areas[swp_area(entry)];
    mm_status_t status;

    if (page == NULL) {
        return MM_ENOMEM;
    }
    page_lock(page);
    status = insert(s, page, entry, false, gfp & (__GFP_DIRECT_RECLAIM | __GFP_KSWAPD_RECLAIM | __GFP_MEMALLOC));
    if (status == MM_OK && a->backing->read(a->ctx, swp_slot(entry), arch_page_address(page_pfn(page))) != MM_OK) {
        lru_count(vm->lru, LC_io_error, 1);
        status = MM_EIO;
        swapcache_remove(s, page);                      /* I3 */
    }
    if (status == MM_OK) {
        page_set_flags(page, PG_UPTODATE);
        lru_add(vm->lru, page);
        lru_count(vm->lru, LC_pswpin, 1);
    }
    page_unlock(page);
    if (status != MM_OK) {
        page_put(vm->mm, page);
        return status;
    }
    *out = page;
    return MM_OK;
}

mm_status_t swapcache_read(struct swap *s, swp_entry_t entry, gfp_t gfp, const struct mpol_place *place, struct page **out)
{
    mm_status_t status = MM_EBUSY;

    while (status == MM_EBUSY) {
        struct page *page = swapcache_find(s, entry);
        uint32_t count = swap_count(s, entry);

        if (page == NULL) {
            status = count == 0 || count == UINT32_MAX ? MM_EAGAIN : fill(s, entry, gfp, place, out);
            continue;
        }
        if (!page_test(page, PG_UPTODATE)) {
            page_lock(page);                            /* whoever fills it */
            page_unlock(page);
        }
        if (page_test(page, PG_UPTODATE)) {
            *out = page;
            status = MM_OK;
        } else {
            page_put(s->vm->mm, page);
        }
    }
    return status;
}

mm_status_t swapcache_write_page(struct swap *s, struct page *page)
{
    swp_entry_t entry = page_swp_entry(page);
    const struct swap_area *a = &s->areas[swp_area(entry)];
    mm_status_t status;

    ASSERT(page_test(page, PG_LOCKED) && page_test(page, PG_SWAPCACHE));
    if (page_mapped(page)) {
        (void)page_mkclean(s->vm, page);
    }
    if (!page_test(page, PG_DIRTY)) {
        return MM_OK;
    }
    page_clear_flags(page, PG_DIRTY);
    page_set_flags(page, PG_WRITEBACK);
    status = a->backing->write(a->ctx, swp_slot(entry), arch_page_address(page_pfn(page)));
    page_clear_flags(page, PG_WRITEBACK);
    if (status != MM_OK) {
        page_set_flags(page, PG_DIRTY);
        lru_count(s->vm->lru, LC_io_error, 1);
        return MM_EIO;
    }
    lru_count(s->vm->lru, LC_pswpout, 1);
    return MM_OK;
}

mm_status_t swapcache_replace(struct swap *s, struct page *old, struct page *new, int32_t expected_refs)
{
    mm_status_t status = MM_EAGAIN;

    ASSERT(page_test(old, PG_LOCKED) && page_test(new, PG_LOCKED));
    spin_lock(&s->lock);
    if (page_test(old, PG_SWAPCACHE) && page_refs(old) == expected_refs) {
        page_get(new);
        new->private = old->private;
        page_set_flags(new, (word_flags(page_word(old)) & PG_DIRTY) | PG_SWAPCACHE | PG_SWAPBACKED);
        (void)radix_set(&s->cache, old->private, (uintptr_t)new, NULL);
        page_clear_flags(old, PG_SWAPCACHE | PG_DIRTY);
        status = MM_OK;
    }
    spin_unlock(&s->lock);
    if (status == MM_OK) {
        page_put(s->vm->mm, old);
    }
    return status;
}
