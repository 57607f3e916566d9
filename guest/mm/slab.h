/*
 * slab.h - caches of equal objects, in slabs of pages.
 *
 * Objects live in the direct map.  With a constructor an object is constructed once, when its slab is made, and must be in
 * that state again whenever it is freed (so what only the constructor wrote, a lock say, is valid even in a free object).
 */
#ifndef GUEST_MM_SLAB_H
#define GUEST_MM_SLAB_H

#include "zone.h"

#define KMEM_RECLAIMABLE  0x1u      /* pages from reclaimable blocks: reclaim gives the objects back */
#define KMEM_ACCOUNT      0x2u      /* pages from accounted blocks: objects go with a process */
#define KMEM_PAGE_ALIGNED 0x4u      /* each object begins at a page */
#define KMEM_DEBUG        0x8u      /* red zones, and poison in free objects that have no constructor (always with FS_SLOW_CHECKS) */

#define KMEM_OBJECTS_MAX  128u      /* in a slab: two words of struct page are its map */
#define KMEM_ORDER_MAX    3u
#define KMEM_SIZE_MAX     16384u
#define KMEM_MAGAZINE     32u       /* objects that wait at a CPU, at most */
#define KMEM_NAME_BYTES   32u

/* What reclaim may ask of the owner of a reclaimable cache. Called with no lock held, from any allocation that may sleep. */
struct kmem_reclaim {
    /* Objects that could be given back now. May be NULL: as many as there are. */
    uint64_t (*count)(void *ctx);
    /* Give up to so many objects back with kmem_cache_free(), those used least; returns how many. */
    uint64_t (*scan)(void *ctx, uint64_t objects);
    /* Give exactly this one back, if it is in use and can go; true if it went. The object may be a free one by now: the owner
     * finds that out by what the constructor wrote (so this needs one). NULL: slabs cannot be asked to go one by one. */
    bool (*evict)(void *ctx, void *object);
    void *ctx;
};

enum kmem_list { KMEM_EMPTY, KMEM_PARTIAL, KMEM_FULL, KMEM_LISTS };

struct kmem_cpu {                                   /* the fast path: one a CPU */
    FS_ALIGNED(64) struct spinlock lock;
    uint32_t count;
    uint64_t allocs, frees;
    void *objects[KMEM_MAGAZINE];
};

struct kmem_cache {
    /* constant */
    struct mm *mm;
    uint32_t size, stride, objects, order;          /* bytes of an object, and from one to the next; objects a slab; pages of a slab */
    uint32_t magazine;                              /* objects that may wait at a CPU */
    unsigned flags, cpu_count;
    gfp_t gfp;
    void (*ctor)(void *object);
    struct kmem_reclaim reclaim;
    uintptr_t map_base;                             /* where pfn 0 would be in the direct map, which is linear */
    char name[KMEM_NAME_BYTES];
    struct kmem_cache *next;                        /* mm->caches_lock */
    uint32_t users;                                 /* mm->caches_lock: reclaim is at work here */
    FS_ALIGNED(64) struct spinlock lock;
    struct page *slabs[KMEM_LISTS];                 /* lock: first of each list */
    uint64_t slab_count[KMEM_LISTS];                /* lock */
    uint64_t used;                                  /* lock: objects out of their slabs, those at CPUs counted */
    uint64_t grown, reaped;                         /* lock: slabs made and given back */
    struct kmem_cpu cpu[];
};

/* NULL: no memory. pre: 0 < size <= KMEM_SIZE_MAX, align a power of two (0: 8) of at most a page, not both RECLAIMABLE and ACCOUNT;
 * reclaim (copied, may be NULL) only with KMEM_RECLAIMABLE. The name is copied and cut. */
struct kmem_cache *kmem_cache_create(struct mm *mm, const char *name, uint32_t size, uint32_t align, unsigned flags,
                                     void (*ctor)(void *object), const struct kmem_reclaim *reclaim);
/* MM_EBUSY: objects are still in use; nothing has changed but that no object waits at a CPU. pre: nobody uses the cache any more */
mm_status_t kmem_cache_destroy(struct kmem_cache *c) FS_MUST_CHECK;

/* An object, or NULL. gfp says whether the caller can wait; where its pages lie is the cache's. __GFP_ZERO: cleared (not with a ctor).
 * pre: with __GFP_DIRECT_RECLAIM no lock is held that a kmem_reclaim function takes. */
void *kmem_cache_alloc(struct kmem_cache *c, gfp_t gfp);
void kmem_cache_free(struct kmem_cache *c, void *object);

/* Objects in use: taken and not given back; exact only while nobody allocates. */
uint64_t kmem_cache_used(struct kmem_cache *c);
/* Pages in slabs. */
uint64_t kmem_cache_pages(struct kmem_cache *c);
/* Is this the address of an object of the cache (in use or free)? Of a pointer that may be anything. */
bool kmem_cache_owns(const struct kmem_cache *c, const void *object);
/* Give empty slabs back, those too whose last objects wait at a CPU; returns the pages. */
uint64_t kmem_cache_shrink(struct kmem_cache *c);

/* ---- for reclaim ---- */

/* Ask the owners of all reclaimable caches for a share of their objects (part of whole), then give back empty slabs. Returns the pages. */
uint64_t kmem_shrink_caches(struct mm *mm, uint64_t part, uint64_t whole);
/* Empty the slabs in [start, end) whose caches can evict; returns the pages given back. */
uint64_t kmem_shrink_range(struct mm *mm, pfn_t start, pfn_t end);
/* Pages in slabs of reclaimable caches, and of all. */
uint64_t kmem_pages(struct mm *mm, bool reclaimable_only);

/* ---- for fsck and dumps ---- */

#define KMEM_POISON       0x6bu
#define KMEM_RED_FREE     0x5a5af4ee5a5af4eeull
#define KMEM_RED_USED     0xa5a50bbea5a50bbeull
static inline uint32_t kmem_debug(const struct kmem_cache *c) { return c->flags & KMEM_DEBUG; }
/* The red zone is the last eight bytes before the next object. */
static inline uint64_t *kmem_redzone(const struct kmem_cache *c, void *object)
{
    return (uint64_t *)(void *)((unsigned char *)object + c->stride - sizeof(uint64_t));
}
static inline void *kmem_object(const struct page *slab, const struct kmem_cache *c, uint32_t i)
{
    return (void *)(c->map_base + (uintptr_t)slab->pfn * FS_PAGE_BYTES + (uintptr_t)i * c->stride);
}
/* Is object i out of the slab (with a user, or waiting at a CPU)? pre: lock held */
static inline bool kmem_slab_out(const struct page *slab, uint32_t i)
{
    return ((i < 64 ? slab->index : slab->private) >> i % 64 & 1u) != 0;
}

#endif
