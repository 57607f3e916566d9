/*
 * tunables.c - what can be set at run time, by name.
 *
 * Layer: L5
 * Owns: the names and limits.
 * Invariants:
 *   I1  a value outside its limits changes nothing.
 *   I2  what is set is read by others without a lock: each is one atomic word, and no two need to agree.
 * Lock order: those of compaction, for its actions.
 * Why: a guest is tuned while it runs, by a person who sees its numbers (vmstat.h, mm_dump.h) at the same time.
 * Cost: none, but for the actions.
 */
#include "tunables.h"
#include "compaction.h"

#define CLAIM_WINDOW_MOST (1u << 20)

static const char *const names[TUNABLES] = {
#define X(name) #name,
    TUNABLE_LIST(X)
#undef X
};

static uint64_t managed_pages(const struct mm *mm)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        sum += mm->zones[i].managed_pages;
    }
    return sum;
}

struct tunable_info tunable_info(const struct mm *mm, enum tunable t)
{
    struct tunable_info info = { .name = names[t] };

    switch (t) {
    case TUNE_extfrag_threshold:
        info.value = mm->extfrag_threshold;
        info.most = 1000;
        break;
    case TUNE_compaction_proactiveness:
        info.value = mm->compaction_proactiveness;
        info.most = 100;
        break;
    case TUNE_compact_memory:
        info.least = info.most = 1;
        info.action = true;
        break;
    case TUNE_compact_node:
        info.most = mm->node_count - 1;
        info.action = true;
        break;
    case TUNE_claim_policy:
        info.value = mm->policy;
        info.most = CLAIM_CLEAR_FIRST;
        break;
    case TUNE_claim_window:
        info.value = mm->claim_window;
        info.most = CLAIM_WINDOW_MOST;
        break;
    case TUNE_min_free_pages:
        info.value = mm->min_free_pages;
        info.most = managed_pages(mm) / 4;              /* more would stop the guest */
        break;
    default:
        break;
    }
    return info;
}

bool tunable_find(const char *name, enum tunable *out)
{
    for (unsigned t = 0; t < TUNABLES; t++) {
        size_t i = 0;

        while (names[t][i] != '\0' && names[t][i] == name[i]) {
            i++;
        }
        if (names[t][i] == name[i]) {
            *out = (enum tunable)t;
            return true;
        }
    }
    return false;
}

mm_status_t tunable_set(struct mm *mm, enum tunable t, uint64_t value)
{
    struct tunable_info info = tunable_info(mm, t);

    if (value < info.least || value > info.most) {
        return MM_EINVAL;                               /* I1 */
    }
    switch (t) {
    case TUNE_extfrag_threshold:
        mm->extfrag_threshold = (uint32_t)value;
        break;
    case TUNE_compaction_proactiveness:
        mm->compaction_proactiveness = (uint32_t)value;
        break;
    case TUNE_claim_policy:
        mm->policy = (enum claim_policy)value;
        break;
    case TUNE_claim_window:
        mm->claim_window = (uint32_t)value;
        break;
    case TUNE_min_free_pages:
        mm->min_free_pages = value;
        mm_setup_watermarks(mm);
        break;
    case TUNE_compact_memory:
    case TUNE_compact_node:
        if (mm->migrate.move == NULL) {
            return MM_EINVAL;
        }
        (void)(t == TUNE_compact_memory ? compact_all(mm, TARGET_DEFAULT) : compact_node(mm, (uint32_t)value, TARGET_DEFAULT));
        break;
    default:
        return MM_EINVAL;
    }
    return MM_OK;
}
