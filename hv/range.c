/*
 * range.c - sets of machine-frame ranges.
 *
 * Owns: the array inside struct mfn_range_set.
 * Invariants:
 *  I1 ranges are sorted by start, not empty, and neither overlap nor touch: for
 *     every i, ranges[i].start < ranges[i].end < ranges[i + 1].start;
 *  I2 count <= capacity; ranges is NULL only where capacity is 0;
 *  I3 an operation that fails leaves its set as it was.
 * Lock order: none; a set belongs to one thread.
 * Why a sorted array: a host has tens of DIMM ranges and a plan thousands of
 * extents; both are built in ascending order, which appends, and are then read
 * far more often than changed.  One array is also what the journal writes.
 * Cost: contains O(log n); add and remove O(log n) to find and O(n) to shift,
 * amortised O(1) for an add at the end; intersect and overlaps O(n + m).
 */
#include "range.h"

#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"

/* Index of the first range whose end is at least m (touching counts), count if none. */
static size_t first_ending_at_or_after(const struct mfn_range_set *set, uint64_t m)
{
    size_t low = 0, high = set->count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (set->ranges[mid].end.n >= m) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return low;
}

/* Index of the first range whose start lies beyond m, count if none. */
static size_t first_starting_after(const struct mfn_range_set *set, uint64_t m)
{
    size_t low = 0, high = set->count;

    while (low < high) {
        size_t mid = low + (high - low) / 2;

        if (set->ranges[mid].start.n > m) {
            high = mid;
        } else {
            low = mid + 1;
        }
    }
    return low;
}

static fs_status_t reserve(struct mfn_range_set *set, size_t count)
{
    if (count <= set->capacity) {
        return FS_OK;
    }
    size_t capacity = set->capacity ? set->capacity * 2 : 8;
    if (capacity < count) {
        capacity = count;
    }
    if (capacity > SIZE_MAX / sizeof(*set->ranges)) {
        return FS_NO_MEMORY;
    }
    struct mfn_range *ranges = realloc(set->ranges, capacity * sizeof(*ranges));
    if (!ranges) {
        return FS_NO_MEMORY;
    }
    set->ranges = ranges;
    set->capacity = capacity;
    return FS_OK;
}

/* Replace ranges [from, to) by the given ones (at most 2). */
static fs_status_t splice(struct mfn_range_set *set, size_t from, size_t to, const struct mfn_range *with, size_t count)
{
    ASSERT_CMP(from, <=, to);
    ASSERT_CMP(to, <=, set->count);
    size_t new_count = set->count - (to - from) + count;
    fs_status_t s = reserve(set, new_count);
    if (s) {
        return s;
    }
    if (to < set->count) {
        memmove(set->ranges + from + count, set->ranges + to, (set->count - to) * sizeof(*set->ranges));
    }
    for (size_t i = 0; i < count; i++) {
        set->ranges[from + i] = with[i];
    }
    set->count = new_count;
    ASSERT_SLOW(mfn_set_check(set));
    return FS_OK;
}

fs_status_t mfn_set_add(struct mfn_range_set *set, struct mfn_range r)
{
    if (r.start.n > r.end.n) {
        return FS_BAD_RANGE;
    }
    if (r.start.n == r.end.n) {
        return FS_OK;
    }
    size_t from = first_ending_at_or_after(set, r.start.n);
    size_t to = first_starting_after(set, r.end.n);

    if (from < to) {                    /* it touches some: they become one */
        ASSERT(set->ranges);            /* I2 */
        if (set->ranges[from].start.n < r.start.n) {
            r.start = set->ranges[from].start;
        }
        if (set->ranges[to - 1].end.n > r.end.n) {
            r.end = set->ranges[to - 1].end;
        }
    } else {
        to = from;
    }
    return splice(set, from, to, &r, 1);
}

fs_status_t mfn_set_remove(struct mfn_range_set *set, struct mfn_range r)
{
    struct mfn_range left[2];
    size_t count = 0;

    if (r.start.n > r.end.n) {
        return FS_BAD_RANGE;
    }
    if (r.start.n == r.end.n) {
        return FS_OK;
    }
    /* Overlap, not touch: ends beyond the start, starts before the end. */
    size_t from = first_ending_at_or_after(set, r.start.n + 1);
    size_t to = first_starting_after(set, r.end.n - 1);

    if (from >= to) {
        return FS_OK;
    }
    ASSERT(set->ranges);                /* I2 */
    if (set->ranges[from].start.n < r.start.n) {
        left[count++] = (struct mfn_range){ set->ranges[from].start, r.start };
    }
    if (set->ranges[to - 1].end.n > r.end.n) {
        left[count++] = (struct mfn_range){ r.end, set->ranges[to - 1].end };
    }
    return splice(set, from, to, left, count);
}

fs_status_t mfn_set_copy(struct mfn_range_set *to, const struct mfn_range_set *from)
{
    if (to == from) {
        return FS_OK;
    }
    fs_status_t s = reserve(to, from->count);
    if (s) {
        return s;
    }
    if (from->count) {
        memcpy(to->ranges, from->ranges, from->count * sizeof(*to->ranges));
    }
    to->count = from->count;
    return FS_OK;
}

fs_status_t mfn_set_intersect(struct mfn_range_set *set, const struct mfn_range_set *with)
{
    struct mfn_range_set out = { 0 };
    size_t i = 0, j = 0;

    while (i < set->count && j < with->count) {
        struct mfn_range a = set->ranges[i], b = with->ranges[j];
        struct mfn_range both = { a.start.n > b.start.n ? a.start : b.start, a.end.n < b.end.n ? a.end : b.end };

        if (both.start.n < both.end.n) {
            fs_status_t s = mfn_set_add(&out, both);
            if (s) {
                mfn_set_free(&out);
                return s;
            }
        }
        if (a.end.n < b.end.n) {
            i++;
        } else {
            j++;
        }
    }
    mfn_set_free(set);
    *set = out;
    return FS_OK;
}

bool mfn_set_contains(const struct mfn_range_set *set, mfn_t m)
{
    size_t i = first_starting_after(set, m.n);

    return i > 0 && mfn_range_contains(set->ranges[i - 1], m);
}

bool mfn_set_overlaps(const struct mfn_range_set *a, const struct mfn_range_set *b)
{
    size_t i = 0, j = 0;

    while (i < a->count && j < b->count) {
        struct mfn_range x = a->ranges[i], y = b->ranges[j];

        if (x.start.n < y.end.n && y.start.n < x.end.n) {
            return true;
        }
        if (x.end.n < y.end.n) {
            i++;
        } else {
            j++;
        }
    }
    return false;
}

uint64_t mfn_set_pages(const struct mfn_range_set *set)
{
    uint64_t pages = 0;

    for (size_t i = 0; i < set->count; i++) {
        pages += mfn_range_pages(set->ranges[i]);
    }
    return pages;
}

void mfn_set_free(struct mfn_range_set *set)
{
    free(set->ranges);
    *set = (struct mfn_range_set){ 0 };
}

bool mfn_set_check(const struct mfn_range_set *set)
{
    if (set->count > set->capacity || (set->capacity && !set->ranges)) {
        return false;
    }
    for (size_t i = 0; i < set->count; i++) {
        if (set->ranges[i].start.n >= set->ranges[i].end.n) {
            return false;
        }
        if (i + 1 < set->count && set->ranges[i].end.n >= set->ranges[i + 1].start.n) {
            return false;
        }
    }
    return true;
}
