/*
 * cache_fsck.h - LRU lists, page cache and swap, recomputed from the memmap, the trees and the slots.  Layer: L6
 *
 * Read-only.  pre: nobody is at work in any of them (no page is locked or isolated); mm_fsck() and vm_fsck() have found nothing.
 */
#ifndef GUEST_MM_CACHE_FSCK_H
#define GUEST_MM_CACHE_FSCK_H

#include "vm.h"

/* X(name, text) */
#define CACHE_FAULT_LIST(X)                                                          \
    X(LRU_LINK,     "an LRU list is broken")                                         \
    X(LRU_PAGE,     "an LRU list holds a page that is not in use, not of this zone, or says it is on another list") \
    X(LRU_COUNT,    "an LRU list's count is wrong")                                  \
    X(LRU_STRAY,    "pages that say they are on LRU lists and pages there differ")   \
    X(LRU_LOST,     "a page of a cache or of a process is on no LRU list")           \
    X(LRU_MLOCKED,  "an unevictable page is not mlocked")                            \
    X(LOCKED,       "a page is locked, or being written, and nobody is at work")     \
    X(TREE,         "a tree is broken")                                              \
    X(NODES,        "nodes in use and nodes in trees differ")                        \
    X(TREE_PAGE,    "a tree holds a page that does not belong to its index")         \
    X(UPTODATE,     "a page of a cache has no valid contents")                       \
    X(MARK,         "a page's mark in the tree and PG_DIRTY disagree")               \
    X(SPACE_COUNT,  "an address space's count of pages is wrong")                    \
    X(SPACE_DIRTY,  "an address space's count of dirty pages is wrong")              \
    X(SPACE_SWAPPED, "an address space's count of swapped pages is wrong")           \
    X(SPACE_STRAY,  "pages that say they are in an address space and pages in its tree differ") \
    X(TOTAL,        "the sum over the address spaces is wrong")                      \
    X(SWAP_ENTRY,   "a swap entry in a tree of a file, or of a slot that is free")   \
    X(REFS,         "a page has fewer references than its caches and mappings")      \
    X(SWAP_PAGE,    "the swap cache holds a page that is not of its slot, or of a slot that is free") \
    X(SWAP_CACHED,  "the swap cache's count of pages is wrong")                      \
    X(SWAP_STRAY,   "pages that say they are in the swap cache and pages there differ") \
    X(SWAP_USED,    "an area's count of slots in use is wrong")                      \
    X(SWAP_COUNTS,  "the counts of all slots are not the entries and cached pages that there are")

enum cache_fault {
#define X(name, text) CACHE_FAULT_##name,
    CACHE_FAULT_LIST(X)
#undef X
    CACHE_FAULTS
};

/* pfn is FS_FRAME_NONE where none is meant. */
typedef void (*cache_fault_fn)(void *ctx, enum cache_fault fault, pfn_t pfn, uint64_t is, uint64_t should_be);
const char *cache_fault_name(enum cache_fault fault);
const char *cache_fault_text(enum cache_fault fault);

/* Returns the number of faults. report may be NULL. */
uint64_t cache_fsck(struct vm *vm, cache_fault_fn report, void *ctx) FS_MUST_CHECK;

#endif
