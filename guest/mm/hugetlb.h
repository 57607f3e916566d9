/*
 * hugetlb.h - the pool of huge pages: 2 MiB each, set aside for whoever asks for them by name.
 *
 * Layer: L3.  A huge page is a unit of PAGEBLOCK_ORDER with PG_COMP and PG_HUGE; it is never cut and never reclaimed, but it moves as a unit, free or
 * in use, so compaction, offlining and relocation are not stopped by it.
 *
 * Numbers (all in huge pages, of one node): nr are all that exist, free are in nobody's hands, reserved (of the whole vm) are those of
 * the free ones that a mapping was promised, surplus are those beyond the size that was set, which go back to the allocator when they are let go.
 * So nr - surplus is the size that hugetlb_set_pool() last reached.
 */
#ifndef GUEST_MM_HUGETLB_H
#define GUEST_MM_HUGETLB_H

#include "pagecache.h"

#define HUGE_ORDER      PAGEBLOCK_ORDER
#define HUGE_PAGES      PAGEBLOCK_PAGES                                 /* small pages in a huge one */
#define HUGE_BYTES      ((uint64_t)PAGEBLOCK_PAGES * FS_PAGE_BYTES)
#define HUGETLB_ALL_NODES UINT32_MAX

struct hugetlb_file;

struct hugetlb_node {                           /* hugetlb.lock */
    uint64_t nr, free, surplus;
    struct page *first;                         /* free ones, by lru_next and lru_prev */
};

struct hugetlb {
    struct vm *vm;
    struct spinlock lock;                       /* under everything but zone.lock */
    struct hugetlb_node nodes[MM_NODES_MAX];
    uint64_t reserved;                          /* lock: promised and not taken yet */
    uint64_t overcommit;                        /* lock: how many surplus pages there may be */
    uint64_t surplus;                           /* lock: of all nodes */
    struct hugetlb_file *files;                 /* lock */
};

/* Sets vm->hugetlb: an empty pool, no overcommit. pre: vm_init(). No memory is needed. */
void hugetlb_init(struct hugetlb *h, struct vm *vm);
/* pre: nobody uses or has reserved any; the pool is emptied, vm->hugetlb is NULL again. */
void hugetlb_destroy(struct hugetlb *h);

/*
 * Make the pool of a node `pages` large, or with HUGETLB_ALL_NODES the pools of all nodes together, as evenly as it goes. Returns the size that was
 * reached: how many persistent huge pages there are now (of the node, or of all nodes).
 *   Growing: each page is one allocation of order 9 that may compact and reclaim; where that fails, compaction of the node's zones and reclaim by turns
 * until neither makes progress.  So it stops where memory gives no more whole blocks; what it got stays.  Call it again later for the rest.
 *   Shrinking: free pages go back to the allocator; pages in use or reserved that are too many become surplus and go when they are let go.
 *   pre: process context (it sleeps), no lock held, compaction_init() and a mover (vm_install_migrate()); one caller at a time.
 *   Nothing else is changed; calling it with the present size does nothing.
 */
uint64_t hugetlb_set_pool(struct vm *vm, uint32_t node, uint64_t pages);
/* How many surplus pages may be taken from the allocator when the pool has no free one (default 0). */
void hugetlb_set_overcommit(struct vm *vm, uint64_t pages);

struct hugetlb_stats { uint64_t nr, free, reserved, surplus, overcommit; };     /* reserved, overcommit: of the vm, whatever the node */
/* Of a node, or with HUGETLB_ALL_NODES of all. vm->hugetlb NULL: all 0. */
struct hugetlb_stats hugetlb_stats(const struct vm *vm, uint32_t node);
/* One line a node: "Node 0 hugepages 12 free 3 surplus 0", and one for the vm. */
typedef void (*hugetlb_line_fn)(void *ctx, const char *line);
void hugetlb_dump(const struct vm *vm, hugetlb_line_fn out, void *ctx);

/* ---- for the rest of mm ---- */

/* Promise n pages to a mapping: free ones, or surplus ones within the limit of overcommit. MM_ENOMEM: nothing is promised. May sleep. */
mm_status_t hugetlb_reserve(struct vm *vm, uint64_t n) FS_MUST_CHECK;
void hugetlb_unreserve(struct vm *vm, uint64_t n);
struct mpol_place;
/* A page out of the pool, refs 1, contents undefined, mapping NULL; reserved: one of those that were promised, which is used up. NULL: none. May sleep.
 * place (NULL: no policy): from a node that its policy wants if one is free there, else from another; bind without a promise: none. */
struct page *hugetlb_alloc(struct vm *vm, bool reserved, const struct mpol_place *place);
/* Give a page that was not used after all, and the promise with it. pre: the caller has the only mapping-less reference of its own */
void hugetlb_put_back(struct vm *vm, struct page *page, bool reserved);
/* The last reference of a page with PG_HUGE is gone: back to the pool with it; true: the pool does not want it, it is an ordinary unit to be freed. */
bool hugetlb_release(struct vm *vm, struct page *page);
/* Migration of a free page of the pool: to, a used unit of HUGE_ORDER, takes its place. MM_EINVAL: it is not free (any more); MM_EAGAIN: it
 * is, and somebody else holds it too.
 * pre: the caller holds a reference on from and the only one on to, which goes over to the pool; from is left an ordinary unit with the caller's alone. */
mm_status_t hugetlb_replace_free(struct vm *vm, struct page *from, struct page *to) FS_MUST_CHECK;
/* A page of the pool that is not free is now to instead of from. pre: both are locked and the mover's */
void hugetlb_replace_used(struct vm *vm, struct page *from, struct page *to);

/* ---- memory of the pool that processes share ---- */

#define HUGETLB_FILE_UNITS 512u                 /* at most: 1 GiB */
struct hugetlb_file {
    struct address_space as;                    /* vm_mmap() wants it, with VM_HUGETLB | VM_SHARED */
    struct page *slots;                         /* as.tree_lock for what is in it: a page of pointers, by unit */
    uint32_t units;
    uint32_t present;                           /* as.tree_lock */
    struct hugetlb_file *next;                  /* hugetlb.lock */
};
/* All units are promised from now on, and zeros. MM_EINVAL: no or too many units; MM_ENOMEM: the pool cannot promise them, or no page for the slots. */
mm_status_t hugetlb_file_create(struct vm *vm, struct hugetlb_file *f, uint32_t units) FS_MUST_CHECK;
/* How long it is, in small pages. pre: as->hugetlb */
uint64_t hugetlb_file_pages(const struct address_space *as);
/* pre: nobody maps it any more */
void hugetlb_file_destroy(struct hugetlb_file *f);
/* The page at index (in small pages, a multiple of 512), with a reference; a new one as hugetlb_alloc() with place. MM_EINVAL: behind the end */
mm_status_t hugetlb_file_get(struct address_space *as, uint64_t index, const struct mpol_place *place, struct page **out) FS_MUST_CHECK;
/* Migration, as pagecache_replace(). */
mm_status_t hugetlb_file_replace(struct address_space *as, struct page *old, struct page *new, int32_t expected_refs) FS_MUST_CHECK;
/* Is it one of the pool's, in nobody's hands? A hint unless hugetlb.lock is held. */
bool hugetlb_page_free(const struct page *page);

#endif
