/*
 * page.h - one struct page per page frame.
 *
 * Owns: struct page and its state word.  A unit is 2^order pages, aligned; only the
 * first page of a unit (its head) has a state, every other page of it says PAGE_NONE (I1).
 * Free pages say PAGE_NONE too: their block's free map has a bit for each of them.
 */
#ifndef GUEST_MM_PAGE_H
#define GUEST_MM_PAGE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "frameshift/compiler.h"
#include "frameshift/frame.h"

#define PAGEBLOCK_ORDER   9u
#define PAGEBLOCK_PAGES   512u
#define MAX_ORDER         10u                   /* the largest request */
#define SECTION_SHIFT     15u                   /* 128 MiB: the unit of hot-remove */
#define SECTION_PAGES     (1u << SECTION_SHIFT)
#define SECTION_BLOCKS    (SECTION_PAGES / PAGEBLOCK_PAGES)

enum page_state {
    PAGE_NONE,                                  /* inside a unit, not its head; or free: page_is_free() */
    PAGE_PCP,                                   /* free, on a per-CPU list */
    PAGE_USED,                                  /* allocated */
    PAGE_RESERVED,                              /* boot memory; every page is its own unit */
    PAGE_HOLE,                                  /* not RAM, or offline; every page is its own unit */
    PAGE_FROZEN,                                /* allocated, with refs 0: its owner is alone, nobody can take a reference */
    PAGE_STATES
};

/* The migratetype of a pageblock, and of an allocation (the first four). */
enum migratetype {
    MIGRATE_UNMOVABLE,
    MIGRATE_MOVABLE,
    MIGRATE_RECLAIMABLE,
    MIGRATE_ACCOUNTED,                          /* unmovable, but charged to a process: it goes when that goes */
    MIGRATE_HIGHATOMIC,
    MIGRATE_ISOLATE,
    MIGRATE_TYPES
};
#define MIGRATE_PCP_TYPES 4u

/* Flags of a used page. */
#define PG_COMP      0x1u                       /* one unit, never split */
#define PG_PINNED    0x2u                       /* its owner refuses to let it move for now */
#define PG_DMA       0x4u                       /* a device holds its address */
#define PG_GIVEN     0x8u                       /* of a hole: its frame was given back, and may come again */
#define PG_LOCKED    0x10u                      /* the page lock: page_lock() */
#define PG_LRU       0x20u                      /* on a list of lru.c; it holds no reference there */
#define PG_ACTIVE    0x40u
#define PG_REFERENCED 0x80u
#define PG_UPTODATE  0x100u                     /* its contents are what they should be */
#define PG_DIRTY     0x200u                     /* ... and newer than its backing store or its swap slot */
#define PG_WRITEBACK 0x400u
#define PG_SWAPCACHE 0x800u                     /* private is its swap entry */
#define PG_MLOCKED   0x1000u                    /* some VM_LOCKED vma maps it */
#define PG_ANON      0x2000u                    /* mapping is an anon_vma, on which the page holds a reference */
#define PG_SLAB      0x4000u
#define PG_TABLE     0x8000u                    /* a page table; private is its level */
#define PG_RECLAIM   0x10000u                   /* free it when writing is done */
#define PG_SWAPBACKED 0x20000u                  /* anonymous or shared memory: reclaim writes it to swap */
#define PG_ISOLATED  0x40000u                   /* off its LRU list, in the hands of reclaim: nobody else puts it on one */
#define PG_HUGE      0x80000u                   /* a huge page of the pool (hugetlb.h), free or in use */
/* What somebody above the allocator must take back before the page is free: hooks.release */
#define PG_RELEASE   (PG_LRU | PG_ANON | PG_HUGE)

/* Lock letters: z = zone lock, o = the page's owner, a = atomic */
struct page {
    _Atomic uint32_t word;                      /* a: state, order, type, flags; changed by whoever holds the unit */
    _Atomic int32_t refs;                       /* a: 0 while free */
    uint32_t pfn;                               /* constant */
    uint32_t lru_list;                          /* with PG_LRU: which list of its zone; its lock: lru.h */
    void *mapping;                              /* o */
    uint64_t index;                             /* o */
    uint64_t private;                           /* o */
    void *lru_next, *lru_prev;                  /* o */
    _Atomic int32_t mapcount;                   /* a */
};
_Static_assert(sizeof(struct page) <= 64, "the budget of issue and cache line");

/* The free pages of a pageblock, a bit each, in one cache line.  The free units follow from it: the largest aligned runs.
 * Written under the zone lock, read without it where a snapshot will do. */
struct free_map { FS_ALIGNED(64) _Atomic uint64_t word[PAGEBLOCK_PAGES / 64]; };
_Static_assert(sizeof(struct free_map) == 64, "one cache line a pageblock");

#define PAGE_WORD(state, order, type, flags) \
    ((uint32_t)(state) | ((uint32_t)(order) << 4) | ((uint32_t)(type) << 8) | ((uint32_t)(flags) << 12))

static inline uint32_t page_word(const struct page *p)
{
    return atomic_load_explicit(&p->word, memory_order_relaxed);
}
static inline void page_set_word(struct page *p, uint32_t w)
{
    atomic_store_explicit(&p->word, w, memory_order_relaxed);
}
static inline enum page_state word_state(uint32_t w) { return (enum page_state)(w & 15u); }
static inline unsigned word_order(uint32_t w) { return (w >> 4) & 15u; }
static inline enum migratetype word_type(uint32_t w) { return (enum migratetype)((w >> 8) & 7u); }
static inline uint32_t word_flags(uint32_t w) { return w >> 12; }

static inline bool state_in_use(enum page_state s) { return s == PAGE_USED || s == PAGE_FROZEN; }

static inline enum page_state page_state(const struct page *p) { return word_state(page_word(p)); }
static inline unsigned page_order(const struct page *p) { return word_order(page_word(p)); }
static inline enum migratetype page_type(const struct page *p) { return word_type(page_word(p)); }
static inline pfn_t page_pfn(const struct page *p) { return pfn_make(p->pfn); }
static inline unsigned page_block_index(const struct page *p) { return p->pfn & (PAGEBLOCK_PAGES - 1); }

/* Flags of a used page; the caller owns the page, or holds what guards the flag. Whoever sees a flag sees what was
 * written before it was set. */
static inline void page_set_flags(struct page *p, uint32_t flags)
{
    atomic_fetch_or_explicit(&p->word, flags << 12, memory_order_release);
}
static inline void page_clear_flags(struct page *p, uint32_t flags)
{
    atomic_fetch_and_explicit(&p->word, ~(flags << 12), memory_order_release);
}

static inline bool page_test(const struct page *p, uint32_t flags)
{
    return (word_flags(atomic_load_explicit(&p->word, memory_order_acquire)) & flags) != 0;
}

/* Other bits of the word may change meanwhile. pre: nobody else decides the unit's size now */
static inline void page_set_order(struct page *p, unsigned order)
{
    uint32_t w = page_word(p);

    while (!atomic_compare_exchange_weak_explicit(&p->word, &w, (w & ~0xf0u) | order << 4, memory_order_release, memory_order_relaxed)) {
    }
}

/* The page lock. pre: a reference is held, so the page stays what it is */
static inline bool page_trylock(struct page *p)
{
    return (word_flags(atomic_fetch_or_explicit(&p->word, PG_LOCKED << 12, memory_order_acquire)) & PG_LOCKED) == 0;
}
void page_lock(struct page *p);
static inline void page_unlock(struct page *p)
{
    atomic_fetch_and_explicit(&p->word, ~(PG_LOCKED << 12), memory_order_release);
}

/* pre: somebody's reference is held already */
static inline void page_get(struct page *p)
{
    atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
}
static inline int32_t page_refs(const struct page *p) { return atomic_load_explicit(&p->refs, memory_order_acquire); }
/* Take a reference unless the page is free; false if it is. */
bool page_try_get(struct page *p);
const char *page_state_name(enum page_state s);
const char *migratetype_name(enum migratetype t);

#endif
