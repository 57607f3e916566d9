/*
 * compaction.h - making whole free pageblocks by migration.
 *
 * Everything moves through mm->migrate (struct migrate_ops), so it works for whoever can move a page: reverse maps, or
 * the owner table of a test.  Who compacts when: compact_direct.c (requests that fail), kcompactd.c (the background).
 */
#ifndef GUEST_MM_COMPACTION_H
#define GUEST_MM_COMPACTION_H

#include "zone.h"

/* Which holes migration may fill, cheapest first: each kind is used when the ones before it are full. */
enum compact_targets {
    TARGET_MOVABLE,                 /* blocks of movable type only */
    TARGET_BOOT,                    /* and kernel blocks with boot memory, which can never be whole: costs no block */
    TARGET_ANY,                     /* and any kernel block, the emptiest first: a loan, see below */
};
/* What explicit compaction does.  A movable page in a kernel block's hole is a tenant: it is sent home before its type claims another
 * block, even into a whole one, so that the kernel's pages never take more blocks than they would have without it. */
#define TARGET_DEFAULT TARGET_ANY

/* In which order blocks are emptied. */
enum compact_order {
    COMPACT_SPARSE_FIRST,           /* the emptiest block first, into the fullest */
    COMPACT_BY_PFN,                 /* the lowest block first, into the highest (the classic scanners) */
};

enum compact_mode {
    COMPACT_ASYNC,                  /* waits for nothing: ends at a lock that is held, or after a bounded number of pages */
    COMPACT_SYNC_LIGHT,             /* tries a page that is busy again; waits for no page lock, so the caller may hold some */
    COMPACT_SYNC,                   /* and waits for page locks. pre: the caller holds none */
};

struct compact_request {
    enum compact_targets targets;
    enum compact_order order;
    enum compact_mode mode;
    bool ignore_hints;              /* look at blocks too that could not be emptied the last time */
    bool capture;                   /* end with a unit of unit_order for unit_type in result.captured, if one comes about */
    bool until_pair;                /* end when a unit of MAX_ORDER is there */
    enum migratetype unit_type;
    unsigned unit_order;
    unsigned score;                 /* end when the zone's fragmentation score is not above it; 0: it does not matter */
    uint32_t blocks_wanted;         /* end after so many new whole blocks; UINT32_MAX: when the scanners meet */
};

struct compact_result {
    uint64_t migrated_pages, failed_pages, migrate_scanned, free_scanned;
    uint32_t blocks_made, blocks_skipped;
    bool scanners_met;              /* a full pass: nothing more can be done */
    bool stopped;                   /* COMPACT_ASYNC: it met a lock, or its bound */
    struct page *captured;          /* PAGE_PCP, refs 0: nobody else has it. The caller makes it used */
};

/* Memory for ranks and hints: once, after mm_init(). MM_ENOMEM. Sets the hooks compact and clear_block and the tunables to their
 * defaults. The caller sets mm->migrate before anything is compacted. */
mm_status_t compaction_init(struct mm *mm, const struct mm_config *config) FS_MUST_CHECK;

/* Compact one zone. MM_OK: did what it could; MM_EAGAIN: another compaction of the zone runs. */
mm_status_t compact_zone(struct mm *mm, struct zone *z, const struct compact_request *request, struct compact_result *out) FS_MUST_CHECK;
/* Explicit compaction of all memory, or of a node, as far as it goes (COMPACT_SYNC). */
struct compact_result compact_all(struct mm *mm, enum compact_targets targets);
struct compact_result compact_node(struct mm *mm, uint32_t node, enum compact_targets targets);

/* Move everything movable out of [start, end), which is isolated, into blocks outside of it: of the same zone while that stays
 * above min, then of any other.
 * MM_OK: nothing movable is left. MM_EAGAIN: no room, or pages that are busy for the moment. Whole blocks may be used. */
mm_status_t evacuate_range(struct mm *mm, pfn_t start, pfn_t end, struct compact_result *out) FS_MUST_CHECK;

/* Hints. A block that could not be emptied is passed over by those who do not ignore hints, until pages of it are freed, or a full pass has
 * ended and kcompactd came to rest. compact_hint_valid(): is there one for the block? pre of all: zone lock held */
bool compact_hint_valid(const struct mm *mm, struct zone *z, uint32_t block);
void compact_hints_reset(struct zone *z);

/* What kcompactd does when it is woken: keep a whole block near the kernel's, make a unit of the order that somebody went without where
 * the fragmentation index is above extfrag_threshold, send tenants home, and lend a kernel block that is mostly free where movable lists
 * run dry. Returns pages moved. */
uint64_t compaction_background(struct mm *mm, struct zone *z);
/* What it does twice a second without being woken: where the node's fragmentation score is above the high mark that
 * compaction_proactiveness says, compact until the low mark. After a run that gained nothing it leaves 63 ticks out. Returns pages moved. */
#define KCOMPACTD_TICK_NS 500000000ull
uint64_t compaction_proactive(struct mm *mm, uint32_t node);
/* The marks in percent: low = 100 - proactiveness (at least 5), high = low + 10 (at most 100). */
unsigned compaction_score_mark(uint32_t proactiveness, bool low);

#endif
