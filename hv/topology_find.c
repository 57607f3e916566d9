/*
 * topology_find.c - the frames that a user's words name.
 *
 * Owns: the grammar of targets (topology.h).
 * Invariants:
 *  I1 a name that fits two DIMMs finds neither: the words say how to tell them apart;
 *  I2 one DIMM of an interleave set is refused, with its set named: its frames
 *     cannot be told from its partners';
 *  I3 what is returned is RAM, and not empty.
 * Lock order: none; pure.
 * Why DIMM names come before set:, node: and mfn:: what `topology` prints must
 * find what it printed, whatever firmware called it.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "range.h"
#include "topology_priv.h"

/* Words that grow to the end of their room, and then say so. */
struct words {
    char text[400];
    size_t used;
    bool full;
};

FS_PRINTF(2, 3) static void say(struct words *w, const char *fmt, ...)
{
    va_list ap;

    if (w->full) {
        return;
    }
    va_start(ap, fmt);
    int n = vsnprintf(w->text + w->used, sizeof(w->text) - w->used, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(w->text) - w->used - 4) {
        memcpy(w->text + w->used, " ...", 5);
        w->full = true;
        return;
    }
    w->used += (size_t)n;
}

static size_t members_of(const struct hv_topology *t, uint32_t set)
{
    size_t members = 0;

    for (size_t i = 0; i < t->count; i++) {
        members += t->dimms[i].set == set;
    }
    return members;
}

static fs_status_t give(const struct mfn_range_set *found, const char *what, struct mfn_range_set *ranges, struct fs_error *err)
{
    if (!found->count) {
        return fs_fail(err, FS_BAD_RANGE, "%s holds no RAM of this machine (as far as its firmware tells)", what);
    }
    fs_status_t s = mfn_set_copy(ranges, found);        /* I3 */
    return s ? fs_fail(err, s, "no memory for the ranges of %s", what) : FS_OK;
}

static bool matches(const struct hv_dimm *d, const char *target, bool with_bank)
{
    size_t bank = strlen(d->bank);

    if (!with_bank) {
        return !strcasecmp(d->name, target);
    }
    return bank && !strncasecmp(d->bank, target, bank) && target[bank] == '/' && !strcasecmp(d->name, target + bank + 1);
}

static fs_status_t refuse_member(const struct hv_topology *t, const struct hv_dimm *d, struct fs_error *err)
{
    struct words w = { .used = 0 };
    size_t members = members_of(t, d->set), said = 0;

    for (size_t i = 0; i < t->count; i++) {
        if (t->dimms[i].set == d->set && &t->dimms[i] != d) {
            said++;
            say(&w, "%s%s", said == 1 ? "" : said == members - 1 ? " and " : ", ", t->dimms[i].name);
        }
    }
    return fs_fail(err, FS_UNSUPPORTED, "%s is interleaved with %.300s: frames alternate between them; evacuate the set: set:%" PRIu32,
                   d->name, w.text, d->set);
}

static fs_status_t refuse_ambiguous(const struct hv_topology *t, const char *target, struct fs_error *err)
{
    struct words w = { .used = 0 };

    for (size_t i = 0; i < t->count; i++) {
        const struct hv_dimm *d = &t->dimms[i];

        if (matches(d, target, false)) {
            say(&w, "%s%s%s%s", w.used ? ", " : "", d->bank, *d->bank ? "/" : "", d->name);
        }
    }
    return fs_fail(err, FS_NOT_FOUND, "\"%.64s\" names several DIMMs; say which: %s", target, w.text);
}

/* *done: the target is a DIMM's name, the status is the answer. */
static fs_status_t find_dimm(const struct hv_topology *t, const char *target, struct mfn_range_set *ranges, bool *done,
                             struct fs_error *err)
{
    for (int with_bank = 1; with_bank >= 0; with_bank--) {
        const struct hv_dimm *found = NULL;
        size_t count = 0;

        for (size_t i = 0; i < t->count; i++) {
            if (matches(&t->dimms[i], target, with_bank)) {
                found = &t->dimms[i];
                count++;
            }
        }
        if (count) {
            *done = true;
            if (count > 1) {
                return refuse_ambiguous(t, target, err);        /* I1 */
            }
            return members_of(t, found->set) > 1 ? refuse_member(t, found, err) : give(&found->ranges, found->name, ranges, err);
        }
    }
    *done = false;
    return FS_OK;
}

/* A decimal number and nothing behind it. */
static bool parse_number(const char *s, uint32_t *out)
{
    uint64_t value = 0;
    const char *p = s;

    for (; *p >= '0' && *p <= '9' && value < UINT32_MAX; p++) {
        value = value * 10 + (unsigned)(*p - '0');
    }
    *out = (uint32_t)value;
    return p > s && !*p && value < UINT32_MAX;
}

static fs_status_t find_set(const struct hv_topology *t, uint32_t set, struct mfn_range_set *ranges, struct fs_error *err)
{
    char what[32];

    (void)snprintf(what, sizeof(what), "set:%" PRIu32, set);
    for (size_t i = 0; i < t->count; i++) {
        if (t->dimms[i].set == set) {
            return give(&t->dimms[i].ranges, what, ranges, err);
        }
    }
    return fs_fail(err, FS_NOT_FOUND, "there is no %s: see `frameshift topology`", what);
}

static fs_status_t find_node(const struct hv_topology *t, uint32_t node, struct mfn_range_set *ranges, struct fs_error *err)
{
    struct words w = { .used = 0 };
    char what[32];

    (void)snprintf(what, sizeof(what), "node %" PRIu32, node);
    for (size_t i = 0; i < t->node_count; i++) {
        if (t->nodes[i].node == node) {
            return give(&t->nodes[i].ranges, what, ranges, err);
        }
        say(&w, "%s%" PRIu32, i ? ", " : "", t->nodes[i].node);
    }
    if (!t->node_count) {
        return fs_fail(err, FS_NOT_FOUND, "no table tells where %s lies; name its frames as mfn:START-END, or write a map file", what);
    }
    return fs_fail(err, FS_NOT_FOUND, "there is no %s with RAM; nodes: %s", what, w.text);
}

/* Hexadecimal, with or without 0x; *end behind it. */
static bool parse_hex(const char *s, const char **end, uint64_t *out)
{
    uint64_t value = 0;
    const char *p = s[0] == '0' && (s[1] | 32) == 'x' ? s + 2 : s, *first = p;

    for (; (*p >= '0' && *p <= '9') || ((*p | 32) >= 'a' && (*p | 32) <= 'f'); p++) {
        if (value >> 60) {
            return false;
        }
        value = value << 4 | (uint64_t)(*p <= '9' ? *p - '0' : (*p | 32) - 'a' + 10);
    }
    *end = p;
    *out = value;
    return p > first;
}

bool topology_parse_frames(const char *words, uint64_t *start, uint64_t *end)
{
    const char *p;

    return parse_hex(words, &p, start) && *p == '-' && parse_hex(p + 1, &p, end) && !*p;
}

static fs_status_t find_frames(const struct hv_topology *t, const char *words, struct mfn_range_set *ranges, struct fs_error *err)
{
    struct mfn_range_set found = { 0 };
    uint64_t start, end;

    if (!topology_parse_frames(words, &start, &end)) {
        return fs_fail(err, FS_USAGE, "\"mfn:%.64s\" is not a range of frames: mfn:START-END, both hexadecimal, END not included", words);
    }
    if (start >= end) {
        return fs_fail(err, FS_BAD_RANGE, "the range mfn:%" PRIx64 "-%" PRIx64 " is empty: END is the first frame behind it", start, end);
    }
    fs_status_t s = mfn_set_add(&found, (struct mfn_range){ mfn_make(start), mfn_make(end) });
    if (!s) {
        s = mfn_set_intersect(&found, &t->ram);
    }
    const uint64_t pages = mfn_set_pages(&found);
    if (s) {
        s = fs_fail(err, s, "no memory for the range");
    } else if (!pages) {
        const uint64_t last = t->ram.count ? t->ram.ranges[t->ram.count - 1].end.n : 0;

        s = fs_fail(err, FS_BAD_RANGE, "no frame of mfn:%" PRIx64 "-%" PRIx64 " is RAM (this machine's RAM ends at mfn %" PRIx64 ")",
                    start, end, last);
    } else {
        s = give(&found, "the range", ranges, err);
    }
    if (!s && pages < end - start && err) {
        (void)fs_fail(err, FS_OK, "%" PRIu64 " of the range's %" PRIu64 " frames are not RAM and were left out", end - start - pages,
                      end - start);
    }
    mfn_set_free(&found);
    return s;
}

static fs_status_t refuse_unknown(const struct hv_topology *t, const char *target, struct fs_error *err)
{
    struct words w = { .used = 0 };

    for (size_t i = 0; i < t->count; i++) {
        const struct hv_dimm *d = &t->dimms[i];
        bool again = false, alone = members_of(t, d->set) == 1;

        for (size_t k = 0; k < t->count; k++) {
            again = again || (k < i && t->dimms[k].set == d->set);
        }
        if (alone) {
            bool twin = false;

            for (size_t k = 0; k < t->count; k++) {
                twin = twin || (k != i && !strcasecmp(t->dimms[k].name, d->name));
            }
            say(&w, "%s%s%s%s", w.used ? ", " : "", twin ? d->bank : "", twin && *d->bank ? "/" : "", d->name);
        } else if (!again) {
            say(&w, "%sset:%" PRIu32, w.used ? ", " : "", d->set);
        }
    }
    for (size_t i = 0; i < t->node_count; i++) {
        say(&w, "%snode:%" PRIu32, w.used ? ", " : "", t->nodes[i].node);
    }
    return fs_fail(err, FS_NOT_FOUND, "no DIMM is called \"%.64s\"; known: %s, mfn:START-END", target, w.text);
}

fs_status_t topology_find(const struct hv_topology *t, const char *target, struct mfn_range_set *ranges, struct fs_error *err)
{
    uint32_t number;
    bool done;

    if (err) {
        err->text[0] = '\0';
    }
    fs_status_t s = find_dimm(t, target, ranges, &done, err);
    if (done) {
        return s;
    }
    if (!strncasecmp(target, "mfn:", 4)) {
        return find_frames(t, target + 4, ranges, err);
    }
    if (!strncasecmp(target, "set:", 4) && parse_number(target + 4, &number)) {
        return find_set(t, number, ranges, err);
    }
    if (!strncasecmp(target, "node:", 5) && parse_number(target + 5, &number)) {
        return find_node(t, number, ranges, err);
    }
    if (!strncasecmp(target, "node", 4) && parse_number(target + 4, &number)) {
        return find_node(t, number, ranges, err);
    }
    return refuse_unknown(t, target, err);
}
