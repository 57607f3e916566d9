/*
 * srat.c - where the NUMA nodes lie.
 *
 * Owns: struct srat.
 * Invariants:
 *  I1 no byte outside [table, table + bytes) is read: the table's own length and
 *     every entry's are cut to it;
 *  I2 ranges of different nodes are disjoint;
 *  I3 a node has the number that Xen gives it.
 * Lock order: none; pure.
 * Why I3 is work: the table knows proximity domains, not nodes.  Xen numbers
 * nodes in the order in which it first meets a domain, and it meets x2APIC
 * entries first, then APIC entries, then memory.  What makes Xen drop the whole
 * table (an entry of a wrong length, overlaps) makes us drop it as well: its
 * nodes would not be Xen's.
 * Cost: O(entries x nodes).
 */
#include "srat.h"

#include <stdio.h>
#include <string.h>

#include "frameshift/compiler.h"
#include "range.h"
#include "table_bytes.h"

enum { SRAT_APIC = 0, SRAT_MEMORY = 1, SRAT_X2APIC = 2 };
enum { HEADER_BYTES = 48, APIC_BYTES = 16, MEMORY_BYTES = 40, X2APIC_BYTES = 24 };
#define ENABLED 1u                      /* bit 0 of the flags of each kind of entry */

struct reader {
    const uint8_t *table;
    size_t bytes;                       /* that may be read (I1) */
    uint8_t revision;
    struct srat *out;
};

/* After it the table says nothing: a half-believed one would number nodes in its own way. */
static fs_status_t drop(struct srat *s, const char *why)
{
    char reason[sizeof(s->reason)];

    (void)snprintf(reason, sizeof(reason), "%s", why);
    srat_free(s);
    memcpy(s->reason, reason, sizeof(reason));
    return FS_OK;
}

/* Index of the domain's node, a new one where it is met first; HV_NODES_MAX if there are too many. */
static size_t node_of_pxm(struct srat *s, uint32_t pxm)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->nodes[i].pxm == pxm) {
            return i;
        }
    }
    if (s->count == HV_NODES_MAX) {
        return HV_NODES_MAX;
    }
    s->nodes[s->count].node = (uint32_t)s->count;       /* I3 */
    s->nodes[s->count].pxm = pxm;
    return s->count++;
}

/* As strict as Xen is, entry by entry. */
static bool length_ok(unsigned type, size_t bytes)
{
    switch (type) {
    case SRAT_APIC: return bytes == APIC_BYTES;
    case SRAT_MEMORY: return bytes == MEMORY_BYTES;
    default: return bytes >= X2APIC_BYTES;
    }
}

static fs_status_t add_memory(struct srat *s, const uint8_t *e, uint32_t pxm, const char **why)
{
    uint64_t base = table_u64(e + 8), length = table_u64(e + 16);

    size_t i = node_of_pxm(s, pxm);
    if (i == HV_NODES_MAX) {
        *why = "it has too many proximity domains";
        return FS_OK;
    }
    if (!length) {
        return FS_OK;
    }
    if (base + length - 1 < base) {
        *why = "a memory entry wraps around the address space";
        return FS_OK;
    }
    struct mfn_range_set one = { 0 };
    fs_status_t status = mfn_set_add(&one, table_frames(base, base + length - 1));
    for (size_t k = 0; k < s->count && !status && !*why; k++) {
        if (k != i && mfn_set_overlaps(&s->nodes[k].ranges, &one)) {    /* I2 */
            *why = "memory of two proximity domains overlaps";
        }
    }
    if (!status && !*why && one.count) {
        status = mfn_set_add(&s->nodes[i].ranges, one.ranges[0]);
    }
    mfn_set_free(&one);
    return status;
}

/* One entry of a wanted type, of the right length.  *why is set where the table must be dropped. */
static fs_status_t add_entry(struct reader *r, const uint8_t *e, const char **why)
{
    uint32_t pxm;

    switch (e[0]) {
    case SRAT_MEMORY:
        if (!(table_u32(e + 28) & ENABLED)) {
            return FS_OK;
        }
        pxm = table_u32(e + 2);
        return add_memory(r->out, e, r->revision < 2 ? pxm & 0xff : pxm, why);
    case SRAT_APIC:
        if (!(table_u32(e + 4) & ENABLED)) {
            return FS_OK;
        }
        pxm = e[2];
        if (r->revision >= 2) {
            pxm |= (uint32_t)e[9] << 8 | (uint32_t)table_u16(e + 10) << 16;
        }
        break;
    default:
        if (!(table_u32(e + 12) & ENABLED)) {
            return FS_OK;
        }
        pxm = table_u32(e + 4);
        break;
    }
    if (node_of_pxm(r->out, pxm) == HV_NODES_MAX) {
        *why = "it has too many proximity domains";
    }
    return FS_OK;
}

static fs_status_t pass(struct reader *r, unsigned type, const char **why)
{
    size_t at = HEADER_BYTES;

    while (r->bytes - at >= 2 && !*why) {
        const uint8_t *e = r->table + at;
        size_t length = e[1];

        if (length < 2 || length > r->bytes - at) {
            *why = "an entry's length is wrong";
            break;
        }
        if (e[0] == type) {
            if (!length_ok(type, length)) {
                *why = "an entry's length is wrong";
                break;
            }
            fs_status_t s = add_entry(r, e, why);
            if (s) {
                return s;
            }
        }
        at += length;
    }
    return FS_OK;
}

fs_status_t srat_parse(const uint8_t *table, size_t bytes, struct srat *out)
{
    static const unsigned order[] = { SRAT_X2APIC, SRAT_APIC, SRAT_MEMORY };    /* I3 */
    const char *why = NULL;
    uint64_t pages = 0;

    *out = (struct srat){ 0 };
    if (!bytes) {
        return drop(out, "there is none");
    }
    if (bytes < HEADER_BYTES || memcmp(table, "SRAT", 4) != 0 || table_u32(table + 4) < HEADER_BYTES) {
        return drop(out, "its header is wrong");
    }
    struct reader r = { .table = table, .bytes = table_u32(table + 4), .revision = table[8], .out = out };
    if (r.bytes > bytes) {
        return drop(out, "it is cut short");
    }
    for (size_t i = 0; i < FS_ARRAY_SIZE(order); i++) {
        fs_status_t s = pass(&r, order[i], &why);

        if (s) {
            srat_free(out);
            return s;
        }
        if (why) {
            return drop(out, why);
        }
    }
    for (size_t i = 0; i < out->count; i++) {
        pages += mfn_set_pages(&out->nodes[i].ranges);
    }
    return pages ? FS_OK : drop(out, "it names no memory");
}

void srat_free(struct srat *s)
{
    for (size_t i = 0; i < s->count; i++) {
        mfn_set_free(&s->nodes[i].ranges);
    }
    *s = (struct srat){ 0 };
}
