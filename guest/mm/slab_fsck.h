/*
 * slab_fsck.h - every cache against its slabs, recomputed from the maps of the slabs and from the memmap.  Layer: L6
 *
 * Read-only.  pre: nobody else allocates or frees meanwhile; mm_fsck() has found nothing.
 */
#ifndef GUEST_MM_SLAB_FSCK_H
#define GUEST_MM_SLAB_FSCK_H

#include "slab.h"

/* X(name, text) */
#define SLAB_FAULT_LIST(X)                                                           \
    X(LINK,     "a list of slabs is broken")                                         \
    X(PAGE,     "a list of slabs holds a page that is no slab of the cache")         \
    X(TYPE,     "a slab's pages are of another migratetype than the cache's")        \
    X(LIST,     "a slab is on the list of another fullness")                         \
    X(MAP,      "a slab's map has an object that does not exist")                    \
    X(COUNT,    "a cache's count of slabs is wrong")                                 \
    X(USED,     "a cache's count of objects is wrong")                               \
    X(STRAY,    "slabs in the memmap and on the lists differ")                       \
    X(CPU_COUNT, "more objects wait at a CPU than may")                              \
    X(CPU,      "what waits at a CPU is no object that is out of its slab, or waits twice") \
    X(REDZONE,  "a red zone was written to")                                         \
    X(POISON,   "a free object was written to")

enum slab_fault {
#define X(name, text) SLAB_FAULT_##name,
    SLAB_FAULT_LIST(X)
#undef X
    SLAB_FAULTS
};

/* pfn is FS_FRAME_NONE where none is meant. */
typedef void (*slab_fault_fn)(void *ctx, enum slab_fault fault, const struct kmem_cache *c, pfn_t pfn, uint64_t is, uint64_t should_be);
const char *slab_fault_name(enum slab_fault fault);
const char *slab_fault_text(enum slab_fault fault);

/* Returns the number of faults. report may be NULL. */
uint64_t slab_fsck(const struct mm *mm, slab_fault_fn report, void *ctx) FS_MUST_CHECK;

#endif
