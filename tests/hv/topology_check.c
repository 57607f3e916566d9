/*
 * topology_check.c - what every topology must fulfil, recomputed from the ranges.
 *
 * Owns: the read-only check of topology.c's I1 to I4, of the order, the numbering
 * of sets, and of the text fields.  Used on right tables and on mutated ones.
 */
#include "topology_check.h"

#include <string.h>
#include <strings.h>

#include "range.h"

static bool equal(const struct mfn_range_set *a, const struct mfn_range_set *b)
{
    if (a->count != b->count) {
        return false;
    }
    for (size_t i = 0; i < a->count; i++) {
        if (!mfn_eq(a->ranges[i].start, b->ranges[i].start) || !mfn_eq(a->ranges[i].end, b->ranges[i].end)) {
            return false;
        }
    }
    return true;
}

static bool printable(const char *s, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (!s[i]) {
            return true;
        }
        if (s[i] < ' ' || s[i] > '~') {
            return false;
        }
    }
    return false;
}

static const char *check_dimm(const struct hv_topology *t, size_t i)
{
    const struct hv_dimm *d = &t->dimms[i];
    uint32_t members = 0;

    if (!mfn_set_check(&d->ranges)) {
        return "a DIMM's ranges are no set";
    }
    if (!printable(d->name, sizeof(d->name)) || !printable(d->bank, sizeof(d->bank)) || !*d->name) {
        return "a name is empty, not printable or not terminated";
    }
    for (size_t k = 0; k < t->count; k++) {
        const struct hv_dimm *e = &t->dimms[k];

        members += e->set == d->set;
        if (k == i) {
            continue;
        }
        if (e->set == d->set ? !equal(&e->ranges, &d->ranges) : mfn_set_overlaps(&e->ranges, &d->ranges)) {
            return "I2: ranges and sets disagree";
        }
        if (!strcasecmp(e->name, d->name) && !strcasecmp(e->bank, d->bank)) {
            return "I3: one name for two";
        }
        if (e->set == d->set && d->interleave_position && e->interleave_position == d->interleave_position) {
            return "one place in an interleave for two";
        }
    }
    if (d->interleave_depth != (members > 1 ? members : 0) || d->interleave_position > d->interleave_depth) {
        return "the interleave's depth or position is wrong";
    }
    return NULL;
}

static const char *check_order(const struct hv_topology *t)
{
    uint32_t sets = 0;
    uint64_t before = 0;

    for (size_t i = 0; i < t->count; i++) {
        uint64_t first = t->dimms[i].ranges.count ? t->dimms[i].ranges.ranges[0].start.n : UINT64_MAX;

        if (first < before) {
            return "not sorted by the first frame";
        }
        before = first;
        if (t->dimms[i].set > sets) {
            return "sets are not numbered in order";
        }
        sets += t->dimms[i].set == sets;
    }
    return NULL;
}

const char *topology_check(const struct hv_topology *t, const struct mfn_range_set *ram)
{
    uint64_t pages = 0;

    if (!equal(&t->ram, ram)) {
        return "RAM is not the machine's";
    }
    for (size_t i = 0; i < t->count; i++) {
        const char *fault = check_dimm(t, i);
        bool first = true;

        if (fault) {
            return fault;
        }
        for (size_t k = 0; k < i; k++) {
            first = first && t->dimms[k].set != t->dimms[i].set;
        }
        pages += first ? mfn_set_pages(&t->dimms[i].ranges) : 0;
        for (size_t k = 0; k < t->dimms[i].ranges.count; k++) {
            struct mfn_range r = t->dimms[i].ranges.ranges[k];

            if (!mfn_set_contains(ram, r.start) || !mfn_set_contains(ram, mfn_make(r.end.n - 1))) {
                return "a DIMM holds what is not RAM";
            }
        }
    }
    if (pages != mfn_set_pages(ram)) {          /* disjoint, inside RAM, and as many: I1 */
        return "I1: RAM without a DIMM";
    }
    for (size_t i = 0; i < t->node_count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (t->nodes[k].node >= t->nodes[i].node || mfn_set_overlaps(&t->nodes[k].ranges, &t->nodes[i].ranges)) {
                return "I4: nodes overlap or are not sorted";
            }
        }
    }
    if (!printable(t->note, sizeof(t->note))) {
        return "the note is not terminated";
    }
    return check_order(t);
}
