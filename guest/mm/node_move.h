/*
 * node_move.h - moving pages of a process to nodes that the caller names page by page.
 *
 * Layer: L4.  Below mbind(), migrate_pages() of a whole process and move_pages(): a list of pages with a target each (1-1), and a walk over the
 * pages of a range.
 */
#ifndef GUEST_MM_NODE_MOVE_H
#define GUEST_MM_NODE_MOVE_H

#include "migrate.h"
#include "mempolicy.h"

#define NODE_MOVE_BATCH 32u

/* Each page has nodes of its own, one of which its target is taken from; no other will do. A huge page moves as a unit; where its nodes have no whole
 * block free it is split, and then its first page alone has been dealt with: split[i] says so. */
struct move_list {
    struct vm *vm;
    bool reclaim;                               /* targets may be had by reclaim */
    size_t count;
    struct migrate_item items[NODE_MOVE_BATCH];
    nodemask_t to[NODE_MOVE_BATCH];
    uint32_t node[NODE_MOVE_BATCH];             /* where items[i].to is */
    uint64_t at[NODE_MOVE_BATCH];               /* the caller's: which address, or which number in his own list */
    bool huge[NODE_MOVE_BATCH], split[NODE_MOVE_BATCH];
};
static inline bool move_list_full(const struct move_list *l) { return l->count == NODE_MOVE_BATCH; }
bool move_list_has(const struct move_list *l, const struct page *page);
/* Takes over a reference. pre: not full, not in it */
void move_list_add(struct move_list *l, struct page *page, nodemask_t to, uint64_t at);
/* Move them. Every reference of the list's is gone afterwards. *result as migrate_pages(); of each item: status MM_OK with from NULL: it lies on
 * node[i], or (to NULL) it was free by then; any other status: it is where it was. pre: no spinlock; mmap_lock is not held for writing. */
void move_list_run(struct move_list *l, struct migrate_result *result);

/* Move what a VM_PFNMAP vma has at va, by the device's own scheme. MM_EACCES: another process maps it too, and all is not set; else as
 * vma_ops.migrate(). pre: mmap_lock for reading */
mm_status_t device_page_move(const struct vm_area *vma, uint64_t va, nodemask_t to, bool all);

/* Who maps a page. */
struct page_users {
    bool others;                                /* another process */
    uint64_t lowest;                            /* the lowest address at which mm maps it; UINT64_MAX: it does not */
};
/* pre: a reference, no spinlock */
struct page_users page_users(struct vm *vm, struct page *page, const struct mm_struct *mm);

/* The page that is mapped at va (of a huge one the first), with a reference; NULL: none. *entry: what is there. A page on its way is waited for, for a while.
 * pre: mmap_lock */
struct page *page_at(struct mm_struct *mm, uint64_t va, uint64_t *entry);

/* ---- a walk over a range ---- */

struct node_moves {
    uint64_t looked;                            /* pages that the walk was about */
    uint64_t misplaced;                         /* of those: not where they were wanted */
    uint64_t moved;                             /* of those: they are now */
    uint64_t shared;                            /* ... left because others map them too (no MPOL_MF_MOVE_ALL) */
    uint64_t failed;                            /* ... left because they could not be moved */
    uint64_t no_memory;                         /* of the failed ones: for lack of memory on the nodes wanted */
    mm_status_t status;                         /* of the first failed one */
};

/* On which nodes a page that is mapped at va (or only in a cache, for a place at va) should be; 0: the walk is not about it. page NULL: a
 * device's memory. node: where it is */
typedef nodemask_t (*node_want_fn)(void *ctx, const struct vm_area *vma, uint64_t va, struct page *page, uint32_t node);

struct node_walk {
    struct mm_struct *mm;
    node_want_fn want;
    void *ctx;
    bool move;                                  /* else it only counts */
    bool all;                                   /* pages that others map too */
    bool caches;                                /* pages that no entry of the range maps too: in the swap cache, or in an object mapped shared */
    bool reclaim;                               /* as in move_list */
    bool once;                                  /* a page that mm maps twice is looked at where it is mapped first */
};
/* *moves is set. Takes mmap_lock for reading, a batch at a time. */
void node_walk_range(const struct node_walk *w, uint64_t start, uint64_t end, struct node_moves *moves);

#endif
