/*
 * compaction_priv.h - what the parts of compaction share.  Layer: L4.
 */
#ifndef GUEST_MM_COMPACTION_PRIV_H
#define GUEST_MM_COMPACTION_PRIV_H

#include "compaction.h"

/* Hidden: the address of such a function is handed on as a pointer, and a PIE would load it from a global offset table, which a kernel has not. */
#pragma GCC visibility push(hidden)

/* Where a unit may go; NULL: no room. Returns a unit that nobody else knows (PAGE_NONE with refs 0, or just allocated). Called with the zone
 * lock held, which it may let go meanwhile. */
typedef struct page *(*target_fn)(void *ctx, struct zone *z, unsigned order);

struct empty_how {
    target_fn target;
    void *ctx;
    enum compact_mode mode;
    bool stop;                          /* at the first unit that cannot leave */
    unsigned until_order;               /* or when the block has a free unit of this order; > PAGEBLOCK_ORDER: when it is empty */
};
/* Move the movable units out of a block. */
mm_status_t empty_block(struct mm *mm, struct zone *z, uint32_t block, const struct empty_how *how, struct compact_result *out);
/* A target like any allocation's: the fullest end of the movable blocks, then whole ones. ctx: the mm */
struct page *movable_target(void *ctx, struct zone *z, unsigned order);
bool block_whole(struct mm *mm, struct zone *z, uint32_t block);

/* ---- claim.c: keeping kernel pages together ---- */

/* hooks.clear_block */
bool claim_clear_block(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, struct page **captured);
/* Move movable pages out of kernel blocks (of one type, or of all: MIGRATE_TYPES), at most so many, while keep pages of room stay in movable
 * blocks (in whole ones too, if whole is set). Returns pages moved. */
uint64_t claim_tenants_home(struct mm *mm, struct zone *z, enum migratetype type, uint64_t keep, uint64_t most, bool whole);
/* Make a whole block within claim_window behind the kernel's, or anywhere if there is none at all. Returns pages moved. */
uint64_t claim_spare(struct mm *mm, struct zone *z);
/* Give the kernel block with the most free pages to movable ones, if that is most of it. */
bool claim_lend(struct mm *mm, struct zone *z);
/* Take a lent block back, if what movable pages hold of it fits elsewhere now. Returns pages moved. */
uint64_t claim_take_back(struct mm *mm, struct zone *z);
/* Free pages in movable blocks that are not free as a whole. pre: zone lock held */
uint64_t movable_room(const struct zone *z);

/* ---- compact_direct.c ---- */

/* hooks.compact */
bool direct_compact(struct mm *mm, struct zone *z, unsigned order, enum migratetype type, gfp_t gfp, struct page **captured);

#pragma GCC visibility pop

#endif
