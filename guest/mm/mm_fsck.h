/*
 * mm_fsck.h - recompute everything from the memmap and the free maps and compare.
 *
 * Read-only and near-linear.  pre: nobody else allocates, frees or migrates meanwhile.
 */
#ifndef GUEST_MM_FSCK_H
#define GUEST_MM_FSCK_H

#include "zone.h"

/* X(name, text) */
#define MM_FAULT_LIST(X)                                                             \
    X(PFN,         "a page does not know its frame number")                         \
    X(STATE,       "a state that does not exist, or a head where none may be")      \
    X(ORPHAN,      "a page belongs to no unit")                                     \
    X(ALIGN,       "a unit is misaligned or too large")                             \
    X(REFS,        "a reference count does not fit the state")                      \
    X(TYPE,        "a migratetype that does not exist here")                        \
    X(FREE_MAP,    "a page that somebody has is in its block's free map")           \
    X(BLOCK_UNITS, "a block's count of free units is wrong")                        \
    X(ORDER_MASK,  "order_mask does not fit the free map")                          \
    X(AREA,        "the zone's free area does not fit the block")                   \
    X(AREA_SUMMARY,"a free area's summary bits are wrong")                          \
    X(BLOCK_FREE,  "free_pages of a block is wrong")                                \
    X(BLOCK_RESERVED, "reserved_pages of a block is wrong")                         \
    X(WHOLE_TYPE,  "a block that is free as a whole still belongs to a kernel type") \
    X(ISOLATION,   "isolation count and type disagree")                             \
    X(BLOCK_ZONE,  "a block's zone does not contain it")                            \
    X(ZONE_FREE,   "a zone's free page count is wrong")                             \
    X(ZONE_UNITS,  "a zone's count of free units is wrong")                         \
    X(ZONE_BLOCKS, "a zone's count of blocks by type is wrong")                     \
    X(ZONE_TENANTS,"tenant_blocks is not the number of blocks marked PB_TENANTS")   \
    X(ZONE_LENT,   "lent_blocks is not the number of blocks marked PB_LENT")        \
    X(ZONE_MANAGED,"managed pages are not present less reserved")                   \
    X(PCP_MEMBER,  "a per-CPU list holds a page that is not its own")               \
    X(PCP_COUNT,   "a per-CPU page is on no list")                                  \
    X(PCP_TYPE,    "a per-CPU page waits on the list of another type")              \
    X(MEMMAP,      "struct pages lie in a page that somebody else may have")        \
    X(MEMMAP_COUNT,"a node's count of pages with struct pages is wrong")            \
    X(RING_MEMBER, "a CPU's ring holds a page twice, or one that is not frozen")    \
    X(CPU_BLOCKS_OWNER, "zone.owned is not the blocks of all CPUs, or one has two owners") \
    X(CPU_BLOCKS_TYPE,  "a CPU's own block is offline or not of movable type")      \
    X(CPU_BLOCKS_AVAIL, "a CPU's own block is not where its free pages say")        \
    X(CPU_BLOCKS_DIRTY, "a CPU has unsettled bits of a block that is not its own")  \
    X(CPU_BLOCKS_COUNT, "a CPU without own blocks has unsettled counts")            \
    X(CPU_BLOCKS_HELD,  "a CPU's own blocks are held by nobody who is there")       \
    X(WATERMARK,   "watermarks are not in order")

enum mm_fault {
#define X(name, text) MM_FAULT_##name,
    MM_FAULT_LIST(X)
#undef X
    MM_FAULTS
};

/* Called for each fault; pfn is FS_FRAME_NONE where none is meant. */
typedef void (*mm_fault_fn)(void *ctx, enum mm_fault fault, pfn_t pfn, uint64_t is, uint64_t should_be);
const char *mm_fault_name(enum mm_fault fault);
const char *mm_fault_text(enum mm_fault fault);

/* Returns the number of faults. report may be NULL. */
uint64_t mm_fsck(const struct mm *mm, mm_fault_fn report, void *ctx) FS_MUST_CHECK;

#endif
