/*
 * compaction.h - making whole free pageblocks by migration.
 *
 * Everything moves through mm->migrate (struct migrate_ops), so it works for whoever can
 * move a page: reverse maps, or the owner table of a test.
 */
#ifndef GUEST_MM_COMPACTION_H
#define GUEST_MM_COMPACTION_H

#include "zone.h"

/* Which holes migration may fill. Kernel blocks that hold boot memory can never be whole: filling their holes with
 * movable pages costs no block, only another move when the kernel wants them. */
enum compact_targets {
    TARGET_MOVABLE,                 /* blocks of movable type only */
    TARGET_BOOT,                    /* and kernel blocks with boot memory */
    TARGET_ANY,                     /* and any kernel block: mixes types until the kernel wants the pages back */
};

/* In which order blocks are emptied. */
enum compact_order {
    COMPACT_SPARSE_FIRST,           /* the emptiest block first, into the fullest */
    COMPACT_BY_PFN,                 /* the lowest block first, into the highest (the classic scanners) */
};

struct compact_request {
    enum compact_targets targets;
    enum compact_order order;
    uint32_t blocks_wanted;         /* stop after so many new whole blocks; UINT32_MAX: until the scanners meet */
    bool sync;                      /* try a page that is busy for the moment again */
};

struct compact_result {
    uint64_t migrated_pages, failed_pages, migrate_scanned, free_scanned;
    uint32_t blocks_made;
    bool scanners_met;
};

/* Ranks need memory: once, after mm_init(). MM_ENOMEM. Sets mm->hooks.clear_block
 * and compact, mm->claim_window and extfrag_threshold. The caller sets mm->migrate before anything is compacted. */
mm_status_t compaction_init(struct mm *mm, const struct mm_config *config) FS_MUST_CHECK;

/* Compact one zone. MM_OK: did what it could; MM_EAGAIN: another compaction of the zone runs. */
mm_status_t compact_zone(struct mm *mm, struct zone *z, const struct compact_request *request, struct compact_result *out) FS_MUST_CHECK;
/* Explicit compaction of all memory, or of a node. */
struct compact_result compact_all(struct mm *mm, enum compact_targets targets);
struct compact_result compact_node(struct mm *mm, uint32_t node, enum compact_targets targets);

/* Move everything movable out of [start, end), which is isolated, into blocks outside of it.
 * MM_OK: nothing movable is left. MM_EAGAIN: no room, or pages that are busy for the moment. Whole blocks may be used. */
mm_status_t evacuate_range(struct mm *mm, pfn_t start, pfn_t end, struct compact_result *out) FS_MUST_CHECK;

/* What kcompactd does when it is woken: keep a whole block near the kernel's, send tenants home, and lend a kernel block that is
 * mostly free where movable lists run dry. Returns pages moved. */
uint64_t compaction_background(struct mm *mm, struct zone *z);

#endif
