/*
 * swap.h - swap areas, counts of their slots, and the swap cache.
 *
 * Layer: L3.  A slot is in use while its count is not 0: one for each entry that names it (page tables, trees of shared memory) and one
 * for the swap cache.  A page in the swap cache has PG_SWAPCACHE, its entry in private, and a reference of the cache.
 */
#ifndef GUEST_MM_SWAP_H
#define GUEST_MM_SWAP_H

#include "radix.h"
#include "vm.h"

typedef struct { uint64_t v; } swp_entry_t;     /* area << 32 | slot: at most 40 bits */

#define SWAP_AREAS_MAX   8u
#define SWAP_COUNT_MAX   0xffffu
#define SWAP_COUNTS_PAGE (FS_PAGE_BYTES / sizeof(uint16_t))     /* counts in a page */
#define SWAP_SLOTS_MAX   ((uint32_t)(FS_PAGE_BYTES / sizeof(struct page *) * SWAP_COUNTS_PAGE))     /* 4 GiB */

struct swap_backing {                           /* called with a page locked and no other lock; may be called by any CPU that reclaims */
    mm_status_t (*read)(void *ctx, uint32_t slot, void *page_bytes);
    mm_status_t (*write)(void *ctx, uint32_t slot, const void *page_bytes);
};

struct swap_area {
    const struct swap_backing *backing;         /* NULL: no area */
    void *ctx;
    uint32_t slots, used, next;                 /* swap.lock: slots in use; where the search for a free one goes on */
    struct page *counts;                        /* a page of pointers to the pages of counts; swap.lock for those */
};

struct swap {
    struct vm *vm;
    struct spinlock lock;
    struct swap_area areas[SWAP_AREAS_MAX];
    uint32_t area_count, current;               /* lock: current: where the last slot came from */
    struct radix cache;                         /* lock: pages by entry */
    uint64_t cached;                            /* lock */
};

/* Sets vm->swap. pre: pagecache_init() */
void swap_init(struct swap *s, struct vm *vm);
/* One more area. MM_EINVAL: too many, no or too many slots; MM_ENOMEM */
mm_status_t swap_add_area(struct swap *s, uint32_t slots, const struct swap_backing *backing, void *ctx) FS_MUST_CHECK;
/* pre: no slot is in use */
void swap_destroy(struct swap *s);

/* A slot with count 1. MM_ENOMEM: all are in use. */
mm_status_t swap_alloc(struct swap *s, swp_entry_t *entry) FS_MUST_CHECK;
/* One more. MM_EBUSY: no count is left. pre: it is in use. page_table_lock may be held (with swap_free() too) */
mm_status_t swap_dup(struct swap *s, swp_entry_t entry) FS_MUST_CHECK;
/* One less. A page that only the swap cache wants any more leaves it, if its lock is free. */
void swap_free(struct swap *s, swp_entry_t entry);
/* The count; 0: free. MAX of 32 bits: there is no such slot. Of an entry that anybody may have made up. */
uint32_t swap_count(struct swap *s, swp_entry_t entry);
uint64_t swap_free_slots(struct swap *s);

/* Referenced, or NULL; may not be PG_UPTODATE yet. */
struct page *swapcache_find(struct swap *s, swp_entry_t entry);
/* The page, PG_DIRTY and a reference of the cache's with it, and a count of the slot that the caller gives. MM_ENOMEM; MM_EBUSY: the slot has
 * a page. pre: locked, not in a cache */
mm_status_t swapcache_add(struct swap *s, struct page *page, swp_entry_t entry) FS_MUST_CHECK;
/* Out of the cache; its reference and its count of the slot are given back. PG_DIRTY is set: the slot is no copy any more.
 * pre: locked, PG_SWAPCACHE, another reference is held */
void swapcache_remove(struct swap *s, struct page *page);
/* The same if nobody but the cache and held of the caller's references hold the page, and it is clean; false if not. */
bool swapcache_reclaim(struct swap *s, struct page *page, int32_t held);
/* Nobody wants the slot but the cache: the page leaves it; true if it did. pre: locked */
bool swapcache_try_free(struct swap *s, struct page *page);
/* Referenced, PG_UPTODATE, not locked; read where it is not cached, into a page where place wants it (NULL: anywhere).
 * MM_ENOMEM; MM_EIO; MM_EAGAIN: the slot is not in use (any more).
 * pre: as pagecache_get() */
struct mpol_place;
mm_status_t swapcache_read(struct swap *s, swp_entry_t entry, gfp_t gfp, const struct mpol_place *place, struct page **out) FS_MUST_CHECK;
/* Write it to its slot if it is dirty. pre: locked, PG_SWAPCACHE. MM_EIO: it stays dirty. */
mm_status_t swapcache_write_page(struct swap *s, struct page *page);
/* Migration, as pagecache_replace(). */
mm_status_t swapcache_replace(struct swap *s, struct page *old, struct page *new, int32_t expected_refs) FS_MUST_CHECK;

static inline swp_entry_t swp_entry(uint32_t area, uint32_t slot) { return (swp_entry_t){ (uint64_t)area << 32 | slot }; }
static inline uint32_t swp_area(swp_entry_t e) { return (uint32_t)(e.v >> 32); }
static inline uint32_t swp_slot(swp_entry_t e) { return (uint32_t)e.v; }
/* pre: PG_SWAPCACHE, locked */
static inline swp_entry_t page_swp_entry(const struct page *p) { return (swp_entry_t){ p->private }; }

#endif
