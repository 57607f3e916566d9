/*
 * lru.c - the lists from which reclaim takes pages.
 *
 * Layer: L2
 * Owns: PG_LRU, page.lru_list and, with PG_LRU, lru_next and lru_prev; the counters of struct lru.
 * Invariants:
 *   I1  PG_LRU is set exactly while the page is on list lru_list of its zone; both change under the zone's lock.
 *   I2  a list holds no reference: a page whose count is 0 is on its way out, and lru_del() waits for the lock; who finds it leaves it.
 *   I3  which list: the flags decide when the page is put on it. Flags that change later take effect with lru_update(), or when
 *       reclaim meets the page.
 *   I4  an isolated page has a reference of the isolation, PG_ISOLATED and no PG_LRU; its links are those of whoever isolated it, so
 *       lru_add() (a fault that finds the page in the swap cache) leaves it alone: it will be put back.
 * Lock order: lru_zone.lock is the last but zone.lock, and no other of ours is taken under it.
 * Why: lists by zone, because watermarks are; the unevictable apart, so that memory that is mlocked is not scanned in vain.
 * Cost: adding, removing, isolating: one uncontended lock and two neighbours.
 */
#include "lru.h"
#include "page_alloc.h"
#include "frameshift/assert.h"

static const char *const list_names[LRU_LISTS] = { "inactive_anon", "active_anon", "inactive_file", "active_file", "unevictable" };
static const char *const counter_names[LRU_COUNTERS] = {
#define X(name) #name,
    LRU_COUNTER_LIST(X)
#undef X
};

const char *lru_list_name(enum lru_list list)
{
    return (unsigned)list < LRU_LISTS ? list_names[list] : "bad";
}

const char *lru_counter_name(enum lru_counter c)
{
    return (unsigned)c < LRU_COUNTERS ? counter_names[c] : "bad";
}

void lru_init(struct lru *l, struct mm *mm)
{
    *l = (struct lru){ .mm = mm };
}

static struct lru_zone *page_lru_zone(struct lru *l, const struct page *page)
{
    return &l->zones[mm_block(l->mm, page_block(page))->zone];
}

/* The list that the flags say (I3). */
static enum lru_list wanted_list(const struct page *page)
{
    if (page_test(page, PG_MLOCKED)) {
        return LRU_UNEVICTABLE;
    }
    if (page_test(page, PG_SWAPBACKED | PG_ANON)) {
        return page_test(page, PG_ACTIVE) ? LRU_ACTIVE_ANON : LRU_INACTIVE_ANON;
    }
    return page_test(page, PG_ACTIVE) ? LRU_ACTIVE_FILE : LRU_INACTIVE_FILE;
}

static void count_list(struct lru_zone *z, enum lru_list list, const struct page *page, bool more)
{
    uint64_t n = atomic_load_explicit(&z->pages[list], memory_order_relaxed), pages = 1ull << page_order(page);

    atomic_store_explicit(&z->pages[list], more ? n + pages : n - pages, memory_order_relaxed);
}

/* ---- pre: the zone's lock is held ---- */

static void link_newest(struct lru_zone *z, enum lru_list list, struct page *page)
{
    struct page *next = z->first[list];

    page->lru_list = (uint32_t)list;
    page->lru_prev = NULL;
    page->lru_next = next;
    if (next != NULL) {
        next->lru_prev = page;
    } else {
        z->last[list] = page;
    }
    z->first[list] = page;
    page_set_flags(page, PG_LRU);
    count_list(z, list, page, true);
}

static void unlink_page(struct lru_zone *z, struct page *page)
{
    enum lru_list list = (enum lru_list)page->lru_list;
    struct page *next = page->lru_next, *prev = page->lru_prev;

    if (next != NULL) {
        next->lru_prev = prev;
    } else {
        z->last[list] = prev;
    }
    if (prev != NULL) {
        prev->lru_next = next;
    } else {
        z->first[list] = next;
    }
    page->lru_next = page->lru_prev = NULL;
    page_clear_flags(page, PG_LRU);
    count_list(z, list, page, false);
}

/* ---- lists ---- */

void lru_add(struct lru *l, struct page *page)
{
    struct lru_zone *z = page_lru_zone(l, page);

    ASSERT(page_order(page) == 0 || page_order(page) == PAGEBLOCK_ORDER);
    spin_lock(&z->lock);
    if (!page_test(page, PG_LRU | PG_ISOLATED)) {   /* I4 */
        link_newest(z, wanted_list(page), page);
    }
    spin_unlock(&z->lock);
}

void lru_del(struct lru *l, struct page *page)
{
    struct lru_zone *z = page_lru_zone(l, page);

    spin_lock(&z->lock);
    if (page_test(page, PG_LRU)) {
        unlink_page(z, page);
    }
    spin_unlock(&z->lock);
}

/* What a page's way from one list to another is called. */
static void count_change(struct lru *l, enum lru_list from, enum lru_list to)
{
    if (to == LRU_UNEVICTABLE) {
        lru_count(l, LC_pgculled, 1);
    } else if (from == LRU_UNEVICTABLE) {
        lru_count(l, LC_pgrescued, 1);
    } else if (to == LRU_ACTIVE_ANON || to == LRU_ACTIVE_FILE) {
        lru_count(l, LC_pgactivate, 1);
    } else if (from == LRU_ACTIVE_ANON || from == LRU_ACTIVE_FILE) {
        lru_count(l, LC_pgdeactivate, 1);
    }
}

void lru_update(struct lru *l, struct page *page)
{
    struct lru_zone *z = page_lru_zone(l, page);

    spin_lock(&z->lock);
    if (page_test(page, PG_LRU) && page->lru_list != (uint32_t)wanted_list(page)) {
        count_change(l, (enum lru_list)page->lru_list, wanted_list(page));
        unlink_page(z, page);
        link_newest(z, wanted_list(page), page);
    }
    spin_unlock(&z->lock);
}

void lru_activate(struct lru *l, struct page *page)
{
    page_set_flags(page, PG_ACTIVE);
    lru_update(l, page);
}

void lru_mark_accessed(struct lru *l, struct page *page)
{
    if (!page_test(page, PG_REFERENCED)) {
        page_set_flags(page, PG_REFERENCED);
    } else if (!page_test(page, PG_ACTIVE | PG_MLOCKED)) {
        page_clear_flags(page, PG_REFERENCED);
        lru_activate(l, page);
    }
}

/* ---- isolation ---- */

bool lru_isolate(struct lru *l, struct page *page)
{
    struct lru_zone *z = page_lru_zone(l, page);
    bool done = false;

    spin_lock(&z->lock);
    if (page_test(page, PG_LRU)) {
        unlink_page(z, page);
        page_set_flags(page, PG_ISOLATED);          /* I4 */
        page_get(page);
        done = true;
    }
    spin_unlock(&z->lock);
    return done;
}

void lru_putback(struct lru *l, struct page *page)
{
    struct lru_zone *z = page_lru_zone(l, page);

    spin_lock(&z->lock);
    ASSERT(page_test(page, PG_ISOLATED) && !page_test(page, PG_LRU));
    page_clear_flags(page, PG_ISOLATED);
    link_newest(z, wanted_list(page), page);
    spin_unlock(&z->lock);
    page_put(l->mm, page);
}

uint64_t lru_isolate_oldest(struct lru *l, struct zone *zone, enum lru_list list, uint64_t scan, struct page_list *out)
{
    struct lru_zone *z = &l->zones[zone->id];
    struct page *page, *before;
    uint64_t scanned = 0;

    spin_lock(&z->lock);
    for (page = z->last[list]; page != NULL && scanned < scan; page = before, scanned++) {
        before = page->lru_prev;
        if (page_try_get(page)) {                   /* I2 */
            unlink_page(z, page);
            page_set_flags(page, PG_ISOLATED);
            page_list_add(out, page);
        }
    }
    spin_unlock(&z->lock);
    return scanned;
}

void page_list_add(struct page_list *list, struct page *page)
{
    page->lru_next = NULL;
    page->lru_prev = list->last;
    if (list->last != NULL) {
        list->last->lru_next = page;
    } else {
        list->first = page;
    }
    list->last = page;
    list->count++;
}

struct page *page_list_pop(struct page_list *list)
{
    struct page *page = list->first;

    if (page != NULL) {
        list->first = page->lru_next;
        if (list->first != NULL) {
            list->first->lru_prev = NULL;
        } else {
            list->last = NULL;
        }
        page->lru_next = page->lru_prev = NULL;
        list->count--;
    }
    return page;
}

/* ---- counts ---- */

uint64_t lru_pages(const struct lru *l, const struct zone *z, enum lru_list list)
{
    return atomic_load_explicit(&l->zones[z->id].pages[list], memory_order_relaxed);
}

uint64_t lru_pages_all(const struct lru *l, enum lru_list list)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < l->mm->zone_count; i++) {
        n += lru_pages(l, &l->mm->zones[i], list);
    }
    return n;
}
