/*
 * pagecache.h - address spaces: the pages of a file or of shared memory, by index.
 *
 * Layer: L3.  The cache holds one reference on each of its pages.  A page comes locked and without PG_UPTODATE, and is unlocked when it has
 * been read; who finds one without it takes the page lock and looks again.  Shared memory (no backing store) goes to swap:
 * its slot in the tree holds the swap entry meanwhile.
 */
#ifndef GUEST_MM_PAGECACHE_H
#define GUEST_MM_PAGECACHE_H

#include "mempolicy.h"
#include "radix.h"

/* Where pages come from and go to. Called with the page locked and no other lock; may sleep, may be called by any CPU that reclaims. */
struct backing_ops {
    mm_status_t (*read)(void *ctx, uint64_t index, void *page_bytes);
    mm_status_t (*write)(void *ctx, uint64_t index, const void *page_bytes);
};

struct vma_ops;
struct address_space {
    struct vm *vm;                              /* constant */
    gfp_t gfp;                                  /* constant: what its pages are */
    const struct backing_ops *backing;          /* constant; NULL: shared memory */
    void *backing_ctx;
    const struct vma_ops *ops;                  /* constant; not NULL: a device's memory (pfnmap.h), no page is ever in the tree */
    struct spinlock tree_lock, i_mmap_lock;
    struct vm_area *i_mmap;                     /* i_mmap_lock: vmas that map it, by i_mmap_next */
    struct radix tree;                          /* tree_lock: pages, and swap entries of shared memory */
    uint64_t pages, dirty, swapped;             /* tree_lock */
    struct shared_policy policy;                /* where its pages shall lie, whoever maps them */
    bool hugetlb;                               /* constant: not of the page cache but of the pool (hugetlb.h), which has no tree */
    struct address_space *next, *prev;          /* pagecache.lock */
    struct address_space *check_next;           /* scratch of cache_fsck() */
};

struct pagecache {                              /* of a vm */
    struct vm *vm;
    struct kmem_cache *nodes;                   /* of the trees, the swap cache's too */
    struct spinlock lock;
    struct address_space *spaces;               /* lock */
    _Atomic uint64_t pages, dirty;              /* in all of them */
};

/* Sets vm->pagecache. pre: vm->mm and vm->lru are set. MM_ENOMEM */
mm_status_t pagecache_init(struct pagecache *cache, struct vm *vm) FS_MUST_CHECK;
/* pre: no address space is left */
void pagecache_destroy(struct pagecache *cache);

/* MM_EINVAL: a backing store without both functions. pre: pagecache_init(), and swap_init() for shared memory that is to be swapped */
mm_status_t address_space_init(struct vm *vm, struct address_space *as, gfp_t gfp, const struct backing_ops *backing, void *ctx) FS_MUST_CHECK;
/* Every page goes, dirty ones too; swap entries are freed. pre: no vma is left, nobody looks for its pages any more */
void address_space_destroy(struct address_space *as);

/* Referenced, or NULL; may not be PG_UPTODATE yet. */
struct page *pagecache_find(struct address_space *as, uint64_t index);
/* Shared memory: the swap entry that is there instead of a page; false: none is. It may be gone by the time it is looked at. */
bool pagecache_find_slot(struct address_space *as, uint64_t index, uint64_t *entry);
/* Referenced, PG_UPTODATE, not locked; read in, or cleared (shared memory), or swapped in where it is missing.
 * MM_ENOMEM, MM_EIO. pre: no lock but mmap_lock is held (page locks neither) */
mm_status_t pagecache_get(struct address_space *as, uint64_t index, struct page **out) FS_MUST_CHECK;
/* The same; a page that is brought in lies where the object's policy says, or where otherwise does (NULL: anywhere) if the object has none there. */
mm_status_t pagecache_get_policy(struct address_space *as, uint64_t index, const struct mempolicy *otherwise, struct page **out) FS_MUST_CHECK;
/* Contents are newer than the backing store's from now on. pre: it cannot leave the cache: locked, mapped, or referenced by who got it
 * from the cache. Called after the contents were changed. page_table_lock may be held. */
void pagecache_dirty(struct page *page);
/* Write every dirty page, also what only page tables know to be dirty. MM_OK: all that were dirty when it began; MM_EIO: some could not be. */
mm_status_t pagecache_sync(struct address_space *as);
/* Write one page if it is dirty. pre: locked, in a cache with a backing store. MM_EIO: it stays dirty. */
mm_status_t pagecache_write_page(struct page *page);
/* Drop the page at index. MM_EBUSY: it is dirty, mapped or referenced; MM_OK also if there is none. */
mm_status_t pagecache_drop(struct address_space *as, uint64_t index);
/* Take the page out if nobody but the cache holds one of its references and held by the caller are all the others, and it is clean.
 * The cache's reference is dropped. pre: locked (a mapping is a reference too) */
bool pagecache_remove(struct page *page, int32_t held);
/* Shared memory: put entry where the page was; the page is no page of the cache any more, and its reference is the caller's.
 * pre: locked, not mapped, a count of entry is given to the tree; false: references differ as above. */
bool pagecache_swap_out(struct page *page, int32_t held, uint64_t entry);
/* Migration: new is in old's place, with the cache's reference, old's mapping, index and dirtiness (PG_DIRTY moves).
 * MM_EAGAIN: old's references are not expected_refs (the cache's counted). pre: both locked, old not mapped */
mm_status_t pagecache_replace(struct address_space *as, struct page *old, struct page *new, int32_t expected_refs) FS_MUST_CHECK;

/* The address space of a page of a page cache, or NULL. pre: locked, or otherwise sure to stay */
static inline struct address_space *page_address_space(const struct page *p)
{
    return page_test(p, PG_ANON) ? NULL : p->mapping;
}

#endif
