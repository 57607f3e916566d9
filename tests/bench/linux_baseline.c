/*
 * linux_baseline.c - what the recorded kernel achieved in the runs that the traces come from.
 *
 * Owns: the figures, as the traces' own baseline file tells them.
 * Invariants: I1  figures are facts about the recorded runs: nothing here is computed but one quotient.
 * Lock order: none.
 * Why: a figure says little without the one that it is to be compared with.
 * Cost: none.
 */
#include "linux_baseline.h"
#include "frameshift/compiler.h"
#include <string.h>

#define HUGE_VARIANTS 4
struct huge_row { const char *variant; int memtotal_mib, got, last_step_met_percent, migrated, kswapd_reclaimed, direct_reclaimed; };
struct row {
    const char *trace;
    int fallbacks, fragmenting, changed_owner, migrated, kswapd_reclaimed, direct_reclaimed;
    int blocks[8];                              /* in the order of block_names */
    int live[4];                                /* in the order of live_names */
    int free_pages, free_huge;
    double unusable;
    int units[3][11];                           /* in the order of type_names */
    struct { int migrated, free_before, free_after, huge_before, huge_after; double unusable_before, unusable_after; } compact;
    struct huge_row huge[HUGE_VARIANTS];
    int memory_blocks;                          /* of 128 MiB; none could be offlined */
};

static const char *const block_names[8] = {
    "empty", "movable_only", "unmovable_only", "reclaimable_only", "unmovable_and_reclaimable", "polluted", "with_non_movable", "needed_if_packed",
};
static const char *const live_names[4] = { "live_unmovable", "live_movable", "live_reclaimable", "live_from_before_the_trace" };
static const char *const type_names[3] = { "Unmovable", "Movable", "Reclaimable" };

static const struct row rows[] = {
    { "build-1g", 19, 0, 19, 0, 0, 0, { 49, 378, 55, 22, 1, 7, 85, 75 }, { 7530, 170749, 11215, 19631 }, 42191, 17408, 0.587,
      { { 138, 55, 13, 15, 10, 2, 0, 0, 1, 0, 0 },
        { 3559, 1962, 1002, 577, 221, 73, 12, 3, 1, 7, 13 },
        { 0, 0, 0, 6, 6, 1, 1, 0, 1, 1, 0 } },
      { 21431, 42191, 36328, 17408, 28160, 0.587, 0.225 },
      { { "huge", 958, 170, 30, 35175, 54752, 3106 } }, 8 },
    { "files-1g", 25, 0, 25, 0, 95833, 0, { 22, 396, 56, 30, 1, 7, 94, 79 }, { 7491, 116859, 13292, 19647 }, 89894, 10240, 0.886,
      { { 0, 1, 1, 6, 21, 10, 1, 0, 1, 1, 0 },
        { 2661, 871, 2751, 2288, 1382, 512, 55, 7, 0, 1, 9 },
        { 649, 310, 57, 11, 2, 0, 0, 1, 1, 0, 0 } },
      { 47212, 89894, 91479, 10240, 11776, 0.886, 0.871 },
      { { "huge", 958, 422, 85, 80857, 128859, 180 } }, 8 },
    { "mixed-1g", 27, 0, 27, 1220, 15426, 0, { 171, 245, 61, 27, 1, 7, 96, 79 }, { 8232, 72180, 12388, 19636 }, 143971, 84992, 0.410,
      { { 447, 259, 127, 58, 25, 10, 5, 2, 1, 1, 0 },
        { 3275, 1180, 335, 60, 314, 334, 202, 92, 25, 53, 56 },
        { 71, 36, 85, 40, 12, 3, 2, 0, 0, 0, 0 } },
      { 32645, 143971, 134896, 84992, 101888, 0.410, 0.245 },
      { { "huge", 958, 280, 50, 54302, 51218, 47 },
        { "hugeretry", 958, 416, 85, 81803, 76886, 823 },
        { "hugecompact", 958, 413, 85, 97437, 73379, 669 },
        { "hugedrop", 958, 412, 85, 4101, 3152, 0 } }, 8 },
    { "buildp-1g", 25, 0, 25, 38414, 405446, 0, { 14, 399, 58, 26, 1, 14, 99, 76 }, { 7412, 203921, 11656, 19654 }, 17237, 7168, 0.584,
      { { 205, 173, 74, 84, 41, 19, 1, 1, 0, 0, 0 },
        { 0, 0, 275, 213, 23, 1, 5, 6, 4, 2, 6 },
        { 212, 391, 126, 13, 3, 0, 0, 1, 0, 0, 0 } },
      { 4111, 17237, 17946, 7168, 8704, 0.584, 0.515 },
      { { "huge", 958, 412, 85, 112627, 206176, 195 },
        { "hugeretry", 958, 415, 85, 121566, 207403, 2751 },
        { "hugedrop", 958, 418, 85, 6123, 2638, 4850 } }, 8 },
    { "server-512m", 255, 214, 146, 21621, 75703, 14231, { 1, 97, 50, 13, 3, 92, 158, 69 }, { 7769, 90374, 10137, 17356 }, 2133, 0, 1.000,
      { { 12, 75, 51, 47, 25, 17, 1, 0, 0, 0, 0 },
        { 12, 7, 4, 4, 2, 0, 0, 1, 0, 0, 0 },
        { 17, 16, 3, 3, 2, 1, 0, 0, 0, 0, 0 } },
      { 430, 2133, 2808, 0, 0, 1.000, 1.000 },
      { { "huge", 455, 1, 0, 2672, 3644, 0 },
        { "hugeretry", 455, 2, 0, 3692, 8793, 0 },
        { "hugedrop", 455, 127, 55, 4304, 2920, 0 } }, 4 },
    { "files-512m", 32, 15, 31, 11811, 3963, 0, { 9, 161, 47, 18, 3, 18, 86, 69 }, { 7308, 66801, 10301, 17356 }, 24840, 2048, 0.918,
      { { 66, 61, 44, 23, 3, 2, 3, 0, 0, 0, 0 },
        { 2197, 1161, 655, 454, 278, 109, 34, 2, 0, 2, 1 },
        { 89, 52, 18, 11, 2, 1, 0, 1, 1, 0, 0 } },
      { 11035, 24840, 24470, 2048, 8192, 0.918, 0.665 },
      { { "huge", 455, 178, 75, 32802, 68958, 67 },
        { "hugeretry", 455, 181, 75, 29681, 72285, 48 },
        { "hugedrop", 455, 180, 75, 3479, 5453, 0 } }, 4 },
};

static json_t *list(const char *const *names, const int *values, size_t count)
{
    json_t *o = json_object();

    for (size_t i = 0; i < count; i++) {
        json_object_set_new(o, names[i], json_integer(values[i]));
    }
    return o;
}

static json_t *units_of(const struct row *r)
{
    json_t *o = json_object();

    for (size_t t = 0; t < 3; t++) {
        json_t *row = json_array();

        for (size_t order = 0; order < 11; order++) {
            json_array_append_new(row, json_integer(r->units[t][order]));
        }
        json_object_set_new(o, type_names[t], row);
    }
    return o;
}

static json_t *huge_of(const struct row *r)
{
    json_t *all = json_array();

    for (size_t i = 0; i < HUGE_VARIANTS && r->huge[i].variant != NULL; i++) {
        const struct huge_row *h = &r->huge[i];

        json_array_append_new(all, json_pack("{s:s,s:i,s:i,s:i,s:i,s:f,s:i,s:i}", "variant", h->variant, "memtotal_mib", h->memtotal_mib, "got", h->got,
                                             "last_step_met_percent", h->last_step_met_percent, "pages_migrated", h->migrated,
                                             "migrated_per_huge_page", h->got != 0 ? (double)h->migrated / h->got : 0.0, "kswapd_reclaimed",
                                             h->kswapd_reclaimed, "direct_reclaimed", h->direct_reclaimed));
    }
    return all;
}

static json_t *build(const struct row *r)
{
    return json_pack("{s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "replay",
                     json_pack("{s:i,s:i,s:i,s:i,s:i,s:i}", "fallbacks", r->fallbacks, "fallbacks_fragmenting", r->fragmenting,
                               "fallbacks_whole_block_changed_owner", r->changed_owner, "pages_migrated", r->migrated, "kswapd_reclaimed",
                               r->kswapd_reclaimed, "direct_reclaimed", r->direct_reclaimed),
                     "blocks", list(block_names, r->blocks, 8), "live", list(live_names, r->live, 4), "free",
                     json_pack("{s:i,s:i,s:f,s:o}", "free_pages", r->free_pages, "free_pages_in_order_9_and_up", r->free_huge,
                               "unusable_index_order_9", r->unusable, "units_per_order", units_of(r)),
                     "compact_memory",
                     json_pack("{s:i,s:i,s:i,s:i,s:i,s:f,s:f}", "pages_migrated", r->compact.migrated, "free_pages_before", r->compact.free_before,
                               "free_pages_after", r->compact.free_after, "free_in_order_9_before", r->compact.huge_before, "free_in_order_9_after",
                               r->compact.huge_after, "unusable_index_before", r->compact.unusable_before, "unusable_index_after",
                               r->compact.unusable_after),
                     "huge", huge_of(r), "offline_128_mib", json_pack("{s:i,s:i}", "blocks", r->memory_blocks, "offlined", 0));
}

json_t *linux_baseline(const char *trace)
{
    for (size_t i = 0; i < FS_ARRAY_SIZE(rows); i++) {
        if (strcmp(rows[i].trace, trace) == 0) {
            return build(&rows[i]);
        }
    }
    return NULL;
}
