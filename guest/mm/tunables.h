/*
 * tunables.h - what can be set at run time, by name.  Layer: L5
 */
#ifndef GUEST_MM_TUNABLES_H
#define GUEST_MM_TUNABLES_H

#include "zone.h"

/* X(name): always in this order. */
#define TUNABLE_LIST(X)                                                                                  \
    X(extfrag_threshold)            /* fragmentation index at or below which reclaim helps, 1/1000 */    \
    X(compaction_proactiveness)     /* 0 to 100 */                                                       \
    X(compact_memory)               /* action: 1 compacts all of memory */                               \
    X(compact_node)                 /* action: compacts the node of that number */                       \
    X(claim_policy)                 /* enum claim_policy */                                              \
    X(claim_window)                 /* blocks behind the kernel's in which a whole one is kept ready */  \
    X(min_free_pages)               /* the min watermarks' sum; 0: by the size of memory */
enum tunable {
#define X(name) TUNE_##name,
    TUNABLE_LIST(X)
#undef X
    TUNABLES
};

struct tunable_info {
    const char *name;
    uint64_t value, least, most;    /* value: 0 of an action */
    bool action;
};

/* What it is and has now. pre: t < TUNABLES */
struct tunable_info tunable_info(const struct mm *mm, enum tunable t);
/* False: none has that name. */
bool tunable_find(const char *name, enum tunable *out);
/* MM_EINVAL: not between least and most; nothing is set. An action is done when it comes back: it may sleep. */
mm_status_t tunable_set(struct mm *mm, enum tunable t, uint64_t value) FS_MUST_CHECK;

#endif
