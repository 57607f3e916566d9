/*
 * xlat.c - old frame to new frame, for the frames of a range set.
 *
 * Owns: the translation that one switch of a PV guest applies to every reference.
 * Invariants:
 *   I1  to[i] is XLAT_NONE or a frame outside the ranges, so that a second
 *       application changes nothing (a killed switch may be applied again).
 *   I2  no two old frames share a new one (the caller hands out each reserved
 *       frame once; xlat_index_add() asserts it).
 * Lock order: none; built by one thread, then read-only.
 * Why an array and not a hash: one switch looks up every present entry of every
 * page table of the guest; nearly all of them miss, and the hull test rejects
 * those without a memory access.
 * Why 32 bits: Xen's own frame table links have no more (CONFIG_BIGMEM apart), and this is one of the engine's largest arrays.
 * Why the index is fed in order and not sorted: the caller hands reserved frames out in ascending order and knows it; a sort
 * would take a second copy while a guest waits for its roll-back.
 * Why the index takes the place of to[]: the way back asks for nothing else, and a roll-back that needs no memory cannot fail for it.
 * Cost: 4 bytes a frame of the range; a lookup is O(log ranges), mostly one range; back O(log moved).
 */
#include "xlat.h"

#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "range.h"

fs_status_t xlat_init(struct xlat *x, const struct mfn_range_set *ranges)
{
    memset(x, 0, sizeof(*x));
    x->ranges = ranges;
    x->pages = mfn_set_pages(ranges);
    x->offsets = calloc(ranges->count + 1, sizeof(*x->offsets));
    x->to = malloc((x->pages + 1) * sizeof(*x->to));
    if (x->offsets == NULL || x->to == NULL) {
        xlat_free(x);
        return FS_NO_MEMORY;
    }
    memset(x->to, 0xff, (x->pages + 1) * sizeof(*x->to));
    for (size_t i = 0; i < ranges->count; i++) {
        x->offsets[i + 1] = x->offsets[i] + mfn_range_pages(ranges->ranges[i]);
    }
    if (ranges->count > 0) {
        x->first = ranges->ranges[0].start.n;
        x->end = ranges->ranges[ranges->count - 1].end.n;
    }
    return FS_OK;
}

void xlat_free(struct xlat *x)
{
    free(x->offsets);
    free(x->to);
    free(x->by_new);
    memset(x, 0, sizeof(*x));
}

/* Index of m in to[], or FS_FRAME_NONE where it lies outside. */
static uint64_t xlat_slot(const struct xlat *x, mfn_t m)
{
    if (m.n < x->first || m.n >= x->end) {
        return FS_FRAME_NONE;
    }
    size_t low = 0, high = x->ranges->count;
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (x->ranges->ranges[mid].start.n <= m.n) {
            low = mid;
        } else {
            high = mid;
        }
    }
    if (!mfn_range_contains(x->ranges->ranges[low], m)) {
        return FS_FRAME_NONE;
    }
    return x->offsets[low] + (m.n - x->ranges->ranges[low].start.n);
}

void xlat_set(struct xlat *x, mfn_t old, mfn_t new_mfn)
{
    uint64_t slot = xlat_slot(x, old);
    ASSERT_CMP(slot, !=, FS_FRAME_NONE);
    ASSERT_CMP(xlat_slot(x, new_mfn), ==, FS_FRAME_NONE);       /* I1 */
    ASSERT_CMP(x->to[slot], ==, XLAT_NONE);
    ASSERT_CMP(new_mfn.n, <, XLAT_NONE);
    x->to[slot] = (uint32_t)new_mfn.n;
    x->moved++;
}

bool xlat_moves(const struct xlat *x, mfn_t m)
{
    uint64_t slot = xlat_slot(x, m);
    ASSERT(x->to != NULL);
    return slot != FS_FRAME_NONE && x->to[slot] != XLAT_NONE;
}

mfn_t xlat_get(const struct xlat *x, mfn_t m)
{
    uint64_t slot = xlat_slot(x, m);
    ASSERT(x->to != NULL);
    if (slot == FS_FRAME_NONE || x->to[slot] == XLAT_NONE) {
        return m;
    }
    return mfn_make(x->to[slot]);
}

void xlat_index_begin(struct xlat *x, const uint32_t *news)
{
    x->by_new = x->to != NULL ? x->to : x->by_new;
    x->to = NULL;
    x->news = news;
    x->indexed = 0;
}

void xlat_index_add(struct xlat *x, mfn_t old)
{
    uint64_t slot = xlat_slot(x, old);
    ASSERT_CMP(slot, !=, FS_FRAME_NONE);
    ASSERT_CMP(x->indexed, <, x->moved);
    ASSERT(x->indexed == 0 || x->news[x->indexed - 1] < x->news[x->indexed]);           /* I2 */
    x->by_new[x->indexed++] = (uint32_t)slot;
}

/* The frame that to[slot] belongs to. */
static mfn_t frame_of_slot(const struct xlat *x, uint64_t slot)
{
    size_t low = 0, high = x->ranges->count;
    while (high - low > 1) {
        size_t mid = low + (high - low) / 2;
        if (x->offsets[mid] <= slot) {
            low = mid;
        } else {
            high = mid;
        }
    }
    return mfn_add(x->ranges->ranges[low].start, slot - x->offsets[low]);
}

mfn_t xlat_back(const struct xlat *x, mfn_t m)
{
    ASSERT(x->by_new != NULL && x->indexed == x->moved);
    size_t low = 0, high = x->moved;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (x->news[mid] < m.n) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < x->moved && x->news[low] == m.n ? frame_of_slot(x, x->by_new[low]) : m;
}
