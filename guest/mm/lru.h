/*
 * lru.h - the lists from which reclaim takes pages: active and inactive, anonymous and file, and the unevictable.
 *
 * Layer: L2.  A page on a list holds no reference there: when its last one goes, hooks.release calls lru_del().  Isolated means: off its
 * list and with a reference of the isolation, so that it can be looked at in peace; lru_putback() is the way back.
 */
#ifndef GUEST_MM_LRU_H
#define GUEST_MM_LRU_H

#include "zone.h"

enum lru_list { LRU_INACTIVE_ANON, LRU_ACTIVE_ANON, LRU_INACTIVE_FILE, LRU_ACTIVE_FILE, LRU_UNEVICTABLE, LRU_LISTS };
const char *lru_list_name(enum lru_list list);

/* X(name): events of reclaim, page cache and swap, in pages if nothing else is said */
#define LRU_COUNTER_LIST(X)                                                          \
    X(pgactivate)           /* to an active list */                                  \
    X(pgdeactivate)                                                                  \
    X(pgculled)             /* to the unevictable list */                            \
    X(pgrescued)            /* and back */                                           \
    X(pgscan_kswapd)                                                                 \
    X(pgscan_direct)                                                                 \
    X(pgscan_lumpy)                                                                  \
    X(pgsteal_kswapd)                                                                \
    X(pgsteal_direct)                                                                \
    X(pgsteal_lumpy)                                                                 \
    X(slab_reclaimed)       /* pages of slabs */                                     \
    X(allocstall)           /* direct reclaims */                                    \
    X(kswapd_run)           /* steps of the background that found work */            \
    X(pgpgin)               /* read from a backing store */                          \
    X(pgpgout)                                                                       \
    X(pswpin)                                                                        \
    X(pswpout)                                                                       \
    X(swap_cache_drop)      /* clean in the swap cache: no need to write */          \
    X(io_error)
enum lru_counter {
#define X(name) LC_##name,
    LRU_COUNTER_LIST(X)
#undef X
    LRU_COUNTERS
};

struct lru_zone {
    FS_ALIGNED(64) struct spinlock lock;
    struct page *first[LRU_LISTS], *last[LRU_LISTS];    /* lock: the newest, the oldest */
    _Atomic uint64_t pages[LRU_LISTS];                  /* lock for changing */
};

struct lru {
    struct mm *mm;
    struct lru_zone zones[MM_ZONES_MAX];
    _Atomic uint64_t counters[LRU_COUNTERS];
};

/* Isolated pages in somebody's hand, linked by lru_next. */
struct page_list { struct page *first, *last; uint64_t count; };

void lru_init(struct lru *l, struct mm *mm);

/* Onto the list that the flags say (PG_MLOCKED; PG_SWAPBACKED or PG_ANON; PG_ACTIVE), as its newest; nothing if it is on one,
 * or isolated. pre: a reference is held; order 0, or a transparent huge page (whose size changes only while it is on no list) */
void lru_add(struct lru *l, struct page *page);
/* Off its list if it is on one: for hooks.release, and for who holds a reference. */
void lru_del(struct lru *l, struct page *page);
/* Flags have changed (PG_MLOCKED set or cleared, PG_ACTIVE): onto the right list, if it is on one. pre: a reference is held */
void lru_update(struct lru *l, struct page *page);
/* Set PG_ACTIVE and lru_update(). */
void lru_activate(struct lru *l, struct page *page);
/* It was used: the second time on an inactive list makes it active. */
void lru_mark_accessed(struct lru *l, struct page *page);

/* Take the page off its list and a reference for the isolation; false: it is on none. pre: a reference is held */
bool lru_isolate(struct lru *l, struct page *page) FS_MUST_CHECK;
/* Back onto the list that the flags say; drops the isolation's reference (the page may be gone afterwards). */
void lru_putback(struct lru *l, struct page *page);
/* Isolate up to n of the oldest pages of a list, at most scan looked at; returns how many were looked at. */
uint64_t lru_isolate_oldest(struct lru *l, struct zone *z, enum lru_list list, uint64_t scan, struct page_list *out);

void page_list_add(struct page_list *list, struct page *page);         /* as the last */
struct page *page_list_pop(struct page_list *list);                     /* the first, or NULL */

uint64_t lru_pages(const struct lru *l, const struct zone *z, enum lru_list list);
uint64_t lru_pages_all(const struct lru *l, enum lru_list list);

static inline void lru_count(struct lru *l, enum lru_counter c, uint64_t n)
{
    atomic_fetch_add_explicit(&l->counters[c], n, memory_order_relaxed);
}
static inline uint64_t lru_counter(const struct lru *l, enum lru_counter c)
{
    return atomic_load_explicit(&l->counters[c], memory_order_relaxed);
}
const char *lru_counter_name(enum lru_counter c);

#endif
