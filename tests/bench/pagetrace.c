/*
 * pagetrace.c - reading PAGETRACE 1 files.
 *
 * Owns: struct pagetrace.
 * Invariants:
 *   I1  every pfn range that pagetrace_next() returns lies below pfns and is aligned to its order.
 *   I2  the end of the file is only the end if it falls between two records and the number of
 *       records of each kind is the one that the header promises.
 * Lock order: none.
 * Why: a figure that comes from a damaged trace is worse than none.
 * Cost: one pass over the records, no allocation a record.
 */
#include "pagetrace.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const kind_names[TRACE_KINDS] = {
    "alloc", "free", "migrate", "alloc_fail", "extfrag", "compact_take", "compact_begin", "compact_end", "reclaim_begin",
    "reclaim_end", "mark", "kswapd_wake", "kswapd_sleep",
};

/* ---- header ---- */

static bool get_number(const json_t *o, const char *key, uint64_t max, uint64_t *out)
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_integer(v) || json_integer_value(v) < 0 || (uint64_t)json_integer_value(v) > max) {
        return false;
    }
    *out = (uint64_t)json_integer_value(v);
    return true;
}

/* [[first, pages], ...], inside pfns, sorted and disjoint. */
static bool get_runs(const json_t *o, const char *key, uint64_t pfns, struct trace_run **out, size_t *count)
{
    const json_t *a = json_object_get(o, key);
    uint64_t last = 0;

    if (!json_is_array(a)) {
        return false;
    }
    *out = calloc(json_array_size(a) + 1, sizeof(**out));
    if (*out == NULL) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *run = json_array_get(a, i);
        json_int_t first = json_integer_value(json_array_get(run, 0)), pages = json_integer_value(json_array_get(run, 1));

        if (first < 0 || pages <= 0 || (uint64_t)first < last || (uint64_t)first > pfns || (uint64_t)pages > pfns - (uint64_t)first) {
            return false;
        }
        last = (uint64_t)(first + pages);
        (*out)[(*count)++] = (struct trace_run){ (uint64_t)first, (uint64_t)pages };
    }
    return true;
}

static bool get_zones(struct pagetrace *t, const json_t *o)
{
    const json_t *a = json_object_get(o, "zones");

    if (!json_is_array(a) || json_array_size(a) > PAGETRACE_ZONES_MAX) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(a); i++) {
        const json_t *z = json_array_get(a, i);
        const char *name = json_string_value(json_object_get(z, "name"));
        struct trace_zone *out = &t->zones[t->zone_count++];

        if (name == NULL || !get_number(z, "start_pfn", t->pfns, &out->start_pfn) || !get_number(z, "spanned", t->pfns, &out->spanned)
            || !get_number(z, "present", t->pfns, &out->present) || !get_number(z, "managed", t->pfns, &out->managed)
            || !get_number(z, "min", t->pfns, &out->min) || !get_number(z, "low", t->pfns, &out->low)
            || !get_number(z, "high", t->pfns, &out->high)) {
            return false;
        }
        snprintf(out->name, sizeof(out->name), "%s", name);
    }
    return true;
}

static bool get_gfp_table(struct pagetrace *t, const json_t *o)
{
    const json_t *a = json_object_get(o, "gfp_table");

    if (!json_is_array(a)) {
        return false;
    }
    t->gfp_table = calloc(json_array_size(a) + 1, sizeof(uint32_t));
    if (t->gfp_table == NULL) {
        return false;
    }
    for (; t->gfp_count < json_array_size(a); t->gfp_count++) {
        const json_t *v = json_array_get(a, t->gfp_count);

        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > UINT32_MAX) {
            return false;
        }
        t->gfp_table[t->gfp_count] = (uint32_t)json_integer_value(v);
    }
    return true;
}

/* The name of the first field that is missing or out of bounds, or NULL. */
static const char *parse_header(struct pagetrace *t, const json_t *o)
{
    const char *name = json_string_value(json_object_get(o, "name"));
    uint64_t order = 0;

    if (name == NULL) {
        return "name";
    }
    snprintf(t->name, sizeof(t->name), "%s", name);
    if (!get_number(o, "pfns", PAGETRACE_PFNS_MAX, &t->pfns) || t->pfns == 0) {
        return "pfns";
    }
    if (!get_number(o, "pageblock_order", 9, &order) || order != 9) {
        return "pageblock_order (must be 9)";
    }
    if (!get_number(o, "max_order", 10, &order)) {
        return "max_order";
    }
    if (!get_number(o, "memory_mib", 1u << 20, &t->memory_mib)) {
        return "memory_mib";
    }
    if (!get_number(o, "records", UINT32_MAX, &t->records_expected)) {
        return "records";
    }
    t->complete = json_is_true(json_object_get(o, "complete"));
    for (unsigned k = 0; k < TRACE_KINDS; k++) {
        uint64_t more = 0;

        /* A kind that never occurs has no count; records that the converter added are counted apart. */
        (void)get_number(json_object_get(o, "counts"), kind_names[k], UINT32_MAX, &t->counts_expected[k]);
        (void)get_number(json_object_get(o, "inferred"), kind_names[k], UINT32_MAX, &more);
        t->counts_expected[k] += more;
    }
    if (!get_runs(o, "init_alloc_runs", t->pfns, &t->init_runs, &t->init_count)) {
        return "init_alloc_runs";
    }
    if (!get_runs(o, "hole_runs", t->pfns, &t->hole_runs, &t->hole_count)) {
        return "hole_runs";
    }
    if (!get_zones(t, o)) {
        return "zones";
    }
    return get_gfp_table(t, o) ? NULL : "gfp_table";
}

bool pagetrace_open(struct pagetrace *t, const char *path, char *error, size_t error_bytes)
{
    const char *line, *bad = NULL;
    char *end;
    unsigned long long header_bytes;
    json_error_t json_error;
    json_t *header;

    *t = (struct pagetrace){ .data = NULL };
    if (!read_compressed(path, &t->data, &t->bytes, error, error_bytes)) {
        return false;
    }
    line = (const char *)t->data;
    if (t->bytes < 14 || memcmp(line, "PAGETRACE 1\n", 12) != 0) {
        snprintf(error, error_bytes, "%s: not a PAGETRACE 1 file", path);
        goto fail;
    }
    header_bytes = strtoull(line + 12, &end, 10);
    t->at = (size_t)(end - line) + 1;
    if (*end != '\n' || header_bytes >= t->bytes || t->at + header_bytes + 1 > t->bytes || line[t->at + header_bytes] != '\n') {
        snprintf(error, error_bytes, "%s: the header's length is wrong or the file is truncated", path);
        goto fail;
    }
    header = json_loadb(line + t->at, (size_t)header_bytes, 0, &json_error);
    if (header == NULL) {
        snprintf(error, error_bytes, "%s: header: %s", path, json_error.text);
        goto fail;
    }
    bad = parse_header(t, header);
    json_decref(header);
    if (bad != NULL) {
        snprintf(error, error_bytes, "%s: header: bad or missing %s", path, bad);
        goto fail;
    }
    t->at += (size_t)header_bytes + 1;
    return true;
fail:
    pagetrace_close(t);
    return false;
}

void pagetrace_close(struct pagetrace *t)
{
    free(t->data);
    free(t->init_runs);
    free(t->hole_runs);
    free(t->gfp_table);
    *t = (struct pagetrace){ .data = NULL };
}

/* ---- records ---- */

struct cursor { struct pagetrace *t; bool failed; };

static uint8_t get_byte(struct cursor *c)
{
    if (c->t->at >= c->t->bytes) {
        c->failed = true;
        return 0;
    }
    return c->t->data[c->t->at++];
}

static uint64_t get_varint(struct cursor *c)
{
    uint64_t value = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t b = get_byte(c);

        value |= (uint64_t)(b & 127) << shift;
        if (b < 128) {
            return value;
        }
    }
    c->failed = true;
    return 0;
}

static uint64_t get_zigzag(struct cursor *c, uint64_t base)
{
    uint64_t z = get_varint(c);

    return base + ((z >> 1) ^ (0 - (z & 1)));       /* modulo 2^64: range is checked by the caller */
}

static uint32_t get_gfp(struct cursor *c)
{
    uint64_t i = get_varint(c);

    if (i >= c->t->gfp_count) {
        c->failed = true;
        return 0;
    }
    return c->t->gfp_table[i];
}

static bool range_ok(const struct pagetrace *t, uint64_t pfn, unsigned order)
{
    return pfn < t->pfns && (1ull << order) <= t->pfns - pfn && (pfn & ((1ull << order) - 1)) == 0;
}

static uint64_t get_pfn(struct cursor *c, struct trace_record *r)
{
    r->pfn = get_zigzag(c, c->t->last_pfn[r->cpu]);
    c->t->last_pfn[r->cpu] = r->pfn;
    return r->pfn;
}

static void get_body(struct cursor *c, struct trace_record *r)
{
    switch (r->kind) {
    case TRACE_ALLOC:
        get_pfn(c, r);
        r->gfp = get_gfp(c);
        break;
    case TRACE_FREE:
    case TRACE_COMPACT_TAKE:
        get_pfn(c, r);
        break;
    case TRACE_MIGRATE:
        get_pfn(c, r);
        r->other_pfn = get_zigzag(c, r->pfn);
        c->failed |= !range_ok(c->t, r->other_pfn, r->order);
        break;
    case TRACE_ALLOC_FAIL:
    case TRACE_RECLAIM_BEGIN:
        r->gfp = get_gfp(c);
        return;
    case TRACE_EXTFRAG:
        get_pfn(c, r);
        r->found_order = get_byte(c);
        (void)get_byte(c);
        return;                                     /* the pfn is the found block's, not aligned to the order asked for */
    case TRACE_COMPACT_BEGIN:
    case TRACE_COMPACT_END:
        (void)get_byte(c);
        (void)get_varint(c);
        (void)get_varint(c);
        return;
    case TRACE_RECLAIM_END:
        (void)get_varint(c);
        return;
    case TRACE_MARK: {
        uint64_t n = get_varint(c);

        if (n > c->t->bytes - c->t->at) {
            c->failed = true;
            return;
        }
        c->t->at += n;
        return;
    }
    default:
        return;
    }
    c->failed |= !range_ok(c->t, r->pfn, r->order);
}

static int finish(struct pagetrace *t, char *error, size_t error_bytes)
{
    for (unsigned k = 0; k < TRACE_KINDS; k++) {
        if (t->counts[k] != t->counts_expected[k]) {
            snprintf(error, error_bytes, "%s: %llu records of kind %s, the header promises %llu", t->name,
                     (unsigned long long)t->counts[k], kind_names[k], (unsigned long long)t->counts_expected[k]);
            return -1;
        }
    }
    return 0;
}

int pagetrace_next(struct pagetrace *t, struct trace_record *r, char *error, size_t error_bytes)
{
    struct cursor c = { t, false };
    uint8_t first, second;

    if (t->at == t->bytes) {
        return finish(t, error, error_bytes);
    }
    first = get_byte(&c);
    second = get_byte(&c);
    *r = (struct trace_record){ .kind = (enum trace_kind)(first & 15), .order = first >> 4, .cpu = second & 1,
                                .type = (second >> 1) & 3, .flags = second >> 3 };
    if (r->kind >= TRACE_KINDS || r->order > 10 || r->type > 2) {
        c.failed = true;
    } else {
        t->time_us += get_varint(&c);
        r->time_us = t->time_us;
        get_body(&c, r);
    }
    if (c.failed) {
        snprintf(error, error_bytes, "%s: record %llu is damaged or cut off", t->name, (unsigned long long)t->record);
        return -1;
    }
    t->counts[r->kind]++;
    t->record++;
    return 1;
}
