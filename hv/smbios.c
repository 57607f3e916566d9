/*
 * smbios.c - the memory part of the SMBIOS structure table.
 *
 * Owns: struct smbios_memory.
 * Invariants:
 *  I1 no byte outside [table, table + bytes) is read: a record is looked at only
 *     when its formatted area fits, a field only when it lies inside that area, a
 *     string only up to the table's end;
 *  I2 names hold printable ASCII only: they go to terminals and into JSON;
 *  I3 every range kept is not empty.
 * Lock order: none; pure.
 * Why so forgiving: firmware writes wrong lengths, string numbers beyond the last
 * string, and tables without an end.  What is wrong is counted, so that the
 * topology can say it; only a record that does not fit ends the walk, since
 * nothing tells where the next one would begin.
 * Cost: O(bytes); at most SMBIOS_RECORDS_MAX of each type are kept.
 */
#include "smbios.h"

#include <stdlib.h>
#include <string.h>

#include "table_bytes.h"

enum { TYPE_ARRAY = 16, TYPE_DEVICE = 17, TYPE_ARRAY_RANGE = 19, TYPE_DEVICE_RANGE = 20, TYPE_END = 127 };
enum { HEADER_BYTES = 4 };
#define MIB (1ull << 20)

struct record {
    const uint8_t *p;                   /* formatted area, of length bytes */
    size_t length;
    const uint8_t *strings, *limit;     /* the strings lie in [strings, limit) */
};

/* The list with room for one more zeroed element, counted; NULL, and the old list as it was, where memory ran out. */
static void *grow(void *list, size_t *count, size_t size)
{
    if ((*count & (*count - 1)) == 0) { /* a power of two, or 0: full */
        list = realloc(list, (*count ? *count * 2 : 1) * size);
        if (!list) {
            return NULL;
        }
    }
    memset((char *)list + *count * size, 0, size);
    (*count)++;
    return list;
}

/* element: the new last one of m->whats, or NULL with s FS_NO_MEMORY or, where there are too many, FS_OK. */
#define ADD(m, what, element, s)                                                                \
    do {                                                                                        \
        (element) = NULL;                                                                       \
        if ((m)->what##_count == SMBIOS_RECORDS_MAX) {                                          \
            (m)->too_many++;                                                                    \
        } else {                                                                                \
            void *list_ = grow((m)->what##s, &(m)->what##_count, sizeof(*(m)->what##s));        \
            (s) = list_ ? FS_OK : FS_NO_MEMORY;                                                 \
            if (list_) {                                                                        \
                (m)->what##s = list_;                                                           \
                (element) = &(m)->what##s[(m)->what##_count - 1];                               \
            }                                                                                   \
        }                                                                                       \
    } while (0)

/* String number n (from 1), without blanks around it; "" for 0.  False where the table has no such string. */
static bool get_string(const struct record *r, uint8_t n, char out[SMBIOS_NAME_BYTES])
{
    const uint8_t *s = r->strings;
    size_t length = 0;

    out[0] = '\0';
    if (!n) {
        return true;
    }
    for (uint8_t i = 1;; i++) {
        const uint8_t *nul = s < r->limit ? memchr(s, 0, (size_t)(r->limit - s)) : NULL;

        if (!nul || nul == s) {
            return false;
        }
        if (i == n) {
            length = (size_t)(nul - s);
            break;
        }
        s = nul + 1;
    }
    while (length && *s == ' ') {
        s++;
        length--;
    }
    if (length >= SMBIOS_NAME_BYTES) {
        length = SMBIOS_NAME_BYTES - 1;
    }
    for (size_t i = 0; i < length; i++) {
        out[i] = s[i] > ' ' && s[i] < 0x7f ? (char)s[i] : s[i] == ' ' ? ' ' : '?';      /* I2 */
    }
    while (length && out[length - 1] == ' ') {
        length--;
    }
    out[length] = '\0';
    return true;
}

/* Size field at 0x0c, extended size at 0x1c. */
static void get_size(const struct record *r, struct smbios_device *d)
{
    uint16_t size = table_u16(r->p + 0x0c);

    d->size_known = true;
    if (size == 0xffff) {
        d->size_known = false;
    } else if (size == 0x7fff) {
        d->size_known = r->length >= 0x20;
        if (d->size_known) {
            d->size_bytes = (table_u32(r->p + 0x1c) & 0x7fffffffu) * MIB;
        }
        if (!d->size_bytes) {           /* "look at the extended size", and it says nothing */
            d->size_known = false;
        }
    } else if (size & 0x8000) {
        d->size_bytes = (uint64_t)(size & 0x7fff) << 10;
    } else {
        d->size_bytes = size * MIB;
    }
}

/* Start and end in KiB, at 4 and 8, or in bytes at extended; both ends inclusive. */
static bool get_range(const struct record *r, size_t extended, struct mfn_range *out)
{
    uint64_t first = table_u32(r->p + 4), last = table_u32(r->p + 8);

    if (first == UINT32_MAX) {
        if (r->length < extended + 16) {
            return false;
        }
        first = table_u64(r->p + extended);
        last = table_u64(r->p + extended + 8);
    } else {
        first <<= 10;
        last = (last << 10) + 1023;
    }
    *out = table_frames(first, last);
    return out->start.n < out->end.n;   /* I3 */
}

static fs_status_t add_array(struct smbios_memory *m, const struct record *r)
{
    fs_status_t s = FS_OK;

    if (r->length < 0x06) {
        m->short_records++;
        return s;
    }
    struct smbios_array *a;
    ADD(m, array, a, s);
    if (a) {
        a->handle = table_u16(r->p + 2);
        a->use = r->p[5];
    }
    return s;
}

static fs_status_t add_device(struct smbios_memory *m, const struct record *r)
{
    fs_status_t s = FS_OK;

    if (r->length < 0x0e) {
        m->short_records++;
        return s;
    }
    struct smbios_device *d;
    ADD(m, device, d, s);
    if (!d) {
        return s;
    }
    d->handle = table_u16(r->p + 2);
    d->array = table_u16(r->p + 4);
    get_size(r, d);
    if (r->length < 0x12) {
        m->short_records++;             /* kept: it is a DIMM, though one without a name */
        return s;
    }
    if (!get_string(r, r->p[0x10], d->locator)) {
        m->bad_strings++;
    }
    if (!get_string(r, r->p[0x11], d->bank)) {
        m->bad_strings++;
    }
    return s;
}

static fs_status_t add_array_range(struct smbios_memory *m, const struct record *r)
{
    fs_status_t s = FS_OK;
    struct mfn_range range;

    if (r->length < 0x0e) {
        m->short_records++;
        return s;
    }
    if (!get_range(r, 0x0f, &range)) {
        m->bad_ranges++;
        return s;
    }
    struct smbios_array_range *a;
    ADD(m, array_range, a, s);
    if (a) {
        a->handle = table_u16(r->p + 2);
        a->array = table_u16(r->p + 0x0c);
        a->width = r->length >= 0x0f && r->p[0x0e] ? r->p[0x0e] : SMBIOS_UNKNOWN;
        a->range = range;
    }
    return s;
}

static fs_status_t add_device_range(struct smbios_memory *m, const struct record *r)
{
    fs_status_t s = FS_OK;
    struct mfn_range range;

    if (r->length < 0x10) {
        m->short_records++;
        return s;
    }
    if (!get_range(r, 0x13, &range)) {
        m->bad_ranges++;
        return s;
    }
    struct smbios_device_range *d;
    ADD(m, device_range, d, s);
    if (d) {
        d->handle = table_u16(r->p + 2);
        d->device = table_u16(r->p + 0x0c);
        d->array_range = table_u16(r->p + 0x0e);
        d->position = r->length >= 0x12 ? r->p[0x11] : SMBIOS_UNKNOWN;
        d->depth = r->length >= 0x13 ? r->p[0x12] : SMBIOS_UNKNOWN;
        d->range = range;
    }
    return s;
}

static fs_status_t add_record(struct smbios_memory *m, const struct record *r)
{
    switch (r->p[0]) {
    case TYPE_ARRAY: return add_array(m, r);
    case TYPE_DEVICE: return add_device(m, r);
    case TYPE_ARRAY_RANGE: return add_array_range(m, r);
    case TYPE_DEVICE_RANGE: return add_device_range(m, r);
    default: return FS_OK;
    }
}

/* Just behind the two zero bytes that end the strings; NULL where the table ends before them. */
static const uint8_t *after_strings(const uint8_t *s, const uint8_t *limit)
{
    for (; limit - s >= 2; s++) {
        if (!s[0] && !s[1]) {
            return s + 2;
        }
    }
    return NULL;
}

fs_status_t smbios_parse(const uint8_t *table, size_t bytes, struct smbios_memory *out)
{
    size_t at = 0;

    *out = (struct smbios_memory){ .no_end = true };
    while (bytes - at >= HEADER_BYTES) {
        struct record r = { .p = table + at, .length = table[at + 1], .limit = table + bytes };

        if (r.length < HEADER_BYTES || r.length > bytes - at) {
            out->torn = true;
            break;
        }
        if (r.p[0] == TYPE_END) {
            out->no_end = false;
            break;
        }
        r.strings = r.p + r.length;
        const uint8_t *next = after_strings(r.strings, r.limit);
        fs_status_t s = add_record(out, &r);
        if (s) {
            smbios_free(out);
            return s;
        }
        if (!next) {
            out->torn = true;
            break;
        }
        at = (size_t)(next - table);
    }
    return FS_OK;
}

void smbios_free(struct smbios_memory *m)
{
    free(m->arrays);
    free(m->devices);
    free(m->array_ranges);
    free(m->device_ranges);
    *m = (struct smbios_memory){ 0 };
}
