/*
 * topology_smbios.c - DIMMs from SMBIOS types 16, 17, 19 and 20, where they can be believed.
 *
 * Owns: the rules by which records become DIMMs and interleave sets, and the
 * reasons for which the tables are dropped.
 * Invariants (of what is returned with DIMMs in it):
 *  I1 DIMMs whose records share frames are one set; so are those of one array
 *     range that share frames with nobody, but do not say "not interleaved";
 *  I2 a set holds no more RAM than its DIMMs have bytes;
 *  I3 a set lies on one NUMA node;
 *  I4 the sets cover RAM, but for TOPOLOGY_SLACK_PAGES.
 * Lock order: none; pure.
 * Why sets grow on doubt: a set too large costs an evacuation of more frames, a
 * set too small leaves frames on the DIMM that the user thinks is empty.  Most
 * firmware gives interleaved DIMMs ranges one behind the other, each with its
 * place in the interleave, or an unknown one: the second half of I1 is for them.
 * Why I2 to I4 drop everything: they fail where firmware forgot the hole below
 * 4 GiB, left a DIMM out, or invented the tables (virtual machines).  Where RAM
 * was moved to from the hole differs between chipsets, so nothing is repaired.
 * Cost: O(records^2).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "range.h"
#include "topology_priv.h"

enum { USE_SYSTEM_MEMORY = 3 };

/* What the records claim of a DIMM, beside the DIMM of the same index until it is sorted. */
struct claim {
    uint16_t handle;
    uint8_t position;                   /* 0 none claimed; SMBIOS_UNKNOWN */
    bool size_known, has_range;
};

struct builder {
    struct hv_topology *t;
    const struct smbios_memory *m;
    struct claim *claims;               /* t->count of them */
    size_t claim_capacity;
    unsigned unknown_devices, empty_slots;
    char *why;
    size_t why_bytes;
};

static bool reject(struct builder *b, const char *why)
{
    (void)snprintf(b->why, b->why_bytes, "%s", why);
    return false;
}

static bool is_system_memory(const struct smbios_memory *m, uint16_t array)
{
    for (size_t i = 0; i < m->array_count; i++) {
        if (m->arrays[i].handle == array) {
            return m->arrays[i].use == USE_SYSTEM_MEMORY;
        }
    }
    return true;                        /* an array that is not described: most likely this one */
}

static const struct smbios_device *find_device(const struct smbios_memory *m, uint16_t handle)
{
    for (size_t i = 0; i < m->device_count; i++) {
        if (m->devices[i].handle == handle) {
            return &m->devices[i];
        }
    }
    return NULL;
}

/* Index of the DIMM of a device, made where it is new; SIZE_MAX where memory ran out. */
static size_t dimm_of(struct builder *b, uint16_t handle, const struct smbios_device *device)
{
    char name[HV_NAME_BYTES];

    ASSERT(b->claims || !b->t->count);
    for (size_t i = 0; i < b->t->count; i++) {
        if (b->claims[i].handle == handle) {
            return i;
        }
    }
    if (b->t->count == b->claim_capacity) {
        size_t capacity = b->claim_capacity ? b->claim_capacity * 2 : 16;
        struct claim *bigger = realloc(b->claims, capacity * sizeof(*bigger));

        if (!bigger) {
            return SIZE_MAX;
        }
        b->claims = bigger;
        b->claim_capacity = capacity;
    }
    (void)snprintf(name, sizeof(name), "DIMM_0x%04X", (unsigned)handle);
    const bool named = device && device->locator[0];
    struct hv_dimm *d = topology_add_dimm(b->t, named ? device->locator : name, device ? device->bank : "");
    if (!d) {
        return SIZE_MAX;
    }
    d->size_bytes = device && device->size_known ? device->size_bytes : 0;
    b->claims[b->t->count - 1] = (struct claim){
        .handle = handle, .size_known = device && device->size_known,
    };
    return b->t->count - 1;
}

/* ---- with type 20 ------------------------------------------------------------ */

static fs_status_t add_device_range(struct builder *b, const struct smbios_device_range *r)
{
    const struct smbios_device *device = find_device(b->m, r->device);

    if (device && !is_system_memory(b->m, device->array)) {
        return FS_OK;
    }
    if (device && device->size_known && !device->size_bytes) {
        b->empty_slots++;
        return FS_OK;
    }
    size_t i = dimm_of(b, r->device, device);
    if (i == SIZE_MAX) {
        return FS_NO_MEMORY;
    }
    struct claim *c = &b->claims[i];
    b->unknown_devices += !device && !c->has_range;
    /* Of several records a place counts most, then doubt, then "not interleaved". */
    if (r->position && (!c->position || (c->position == SMBIOS_UNKNOWN && r->position != SMBIOS_UNKNOWN))) {
        c->position = r->position;
    }
    c->has_range = true;
    return mfn_set_add(&b->t->dimms[i].ranges, r->range);
}

/* I1.  pre: ranges are the records', not yet shared. */
static void group_by_ranges(struct builder *b)
{
    struct hv_topology *t = b->t;

    for (size_t i = 0; i < t->count; i++) {
        for (size_t k = i + 1; k < t->count; k++) {
            if (t->dimms[i].set != t->dimms[k].set && mfn_set_overlaps(&t->dimms[i].ranges, &t->dimms[k].ranges)) {
                topology_merge_sets(t, t->dimms[i].set, t->dimms[k].set);
            }
        }
    }
}

static bool is_alone(const struct hv_topology *t, size_t i)
{
    for (size_t k = 0; k < t->count; k++) {
        if (k != i && t->dimms[k].set == t->dimms[i].set) {
            return false;
        }
    }
    return true;
}

static bool claims_place(const struct claim *c)
{
    return c->has_range && c->position && c->position != SMBIOS_UNKNOWN;
}

/* Index of the DIMM that a type 20 record became part of; SIZE_MAX where it was left out. */
static size_t dimm_of_range(const struct builder *b, const struct smbios_device_range *r)
{
    for (size_t i = 0; i < b->t->count; i++) {
        if (b->claims[i].handle == r->device) {
            return i;
        }
    }
    return SIZE_MAX;
}

/* The second half of I1: orphans that hang on one array range. */
static fs_status_t group_orphans(struct builder *b, const bool *orphan, bool *grouped)
{
    const struct smbios_memory *m = b->m;
    size_t *dimm = calloc(m->device_range_count, sizeof(*dimm));

    if (!dimm) {
        return FS_NO_MEMORY;
    }
    for (size_t i = 0; i < m->device_range_count; i++) {
        dimm[i] = dimm_of_range(b, &m->device_ranges[i]);
        if (dimm[i] == SIZE_MAX || !orphan[dimm[i]]) {
            dimm[i] = SIZE_MAX;
            continue;
        }
        for (size_t k = 0; k < i; k++) {
            if (dimm[k] == SIZE_MAX || dimm[k] == dimm[i] || m->device_ranges[k].array_range != m->device_ranges[i].array_range) {
                continue;
            }
            grouped[dimm[i]] = grouped[dimm[k]] = true;
            if (b->t->dimms[dimm[i]].set != b->t->dimms[dimm[k]].set) {
                topology_merge_sets(b->t, b->t->dimms[dimm[k]].set, b->t->dimms[dimm[i]].set);
            }
        }
    }
    free(dimm);
    return FS_OK;
}

static fs_status_t group_by_claims(struct builder *b)
{
    struct hv_topology *t = b->t;
    unsigned partnerless = 0, untold = 0, grouped = 0;
    bool *orphan = calloc(2 * t->count + 1, sizeof(*orphan));

    if (!orphan) {
        return FS_NO_MEMORY;
    }
    ASSERT(b->claims || !t->count);
    bool *with_partner = orphan + t->count;
    for (size_t i = 0; i < t->count; i++) {
        orphan[i] = is_alone(t, i) && b->claims[i].has_range && b->claims[i].position;
    }
    fs_status_t s = group_orphans(b, orphan, with_partner);
    for (size_t i = 0; i < t->count; i++) {
        grouped += with_partner[i];
        partnerless += orphan[i] && !with_partner[i] && claims_place(&b->claims[i]);
        untold += orphan[i] && !with_partner[i] && !claims_place(&b->claims[i]);
    }
    if (grouped) {
        topology_note(t, "SMBIOS: %u DIMMs are or may be interleaved, with ranges one behind the other; taken as one set", grouped);
    }
    if (partnerless && t->count > 1) {
        topology_note(t, "SMBIOS: %u DIMMs are said to be interleaved, but with no other", partnerless);
    }
    if (untold && t->count > 1) {
        topology_note(t, "SMBIOS: whether %u DIMMs are interleaved is not told; taken as not", untold);
    }
    free(orphan);
    return s;
}

static fs_status_t from_device_ranges(struct builder *b)
{
    for (size_t i = 0; i < b->m->device_range_count; i++) {
        fs_status_t s = add_device_range(b, &b->m->device_ranges[i]);

        if (s) {
            return s;
        }
    }
    group_by_ranges(b);
    ASSERT(b->claims || !b->t->count);
    for (size_t i = 0; i < b->t->count; i++) {
        b->t->dimms[i].interleave_position = claims_place(&b->claims[i]) ? b->claims[i].position : 0;
    }
    return group_by_claims(b);
}

/* ---- without type 20 ----------------------------------------------------------- */

static fs_status_t from_array_ranges(struct builder *b)
{
    const struct smbios_memory *m = b->m;

    for (size_t i = 0; i < m->device_count; i++) {
        const struct smbios_device *device = &m->devices[i];

        if ((device->size_known && !device->size_bytes) || !is_system_memory(m, device->array)) {
            continue;
        }
        size_t d = dimm_of(b, device->handle, device);
        if (d == SIZE_MAX) {
            return FS_NO_MEMORY;
        }
        for (size_t k = 0; k < m->array_range_count; k++) {
            if (m->array_ranges[k].array != device->array) {
                continue;
            }
            fs_status_t s = mfn_set_add(&b->t->dimms[d].ranges, m->array_ranges[k].range);
            if (s) {
                return s;
            }
            b->claims[d].has_range = true;
        }
    }
    group_by_ranges(b);                 /* DIMMs of one array have the same ranges: they become one set */
    return FS_OK;
}

/* ---- whether to believe it -------------------------------------------------------- */

static size_t count_sets(const struct hv_topology *t, bool with_ranges_only)
{
    size_t sets = 0;

    for (size_t i = 0; i < t->count; i++) {
        size_t first = 0;

        while (t->dimms[first].set != t->dimms[i].set) {
            first++;
        }
        sets += first == i && (!with_ranges_only || t->dimms[i].ranges.count);
    }
    return sets;
}

/* I2 of the set that DIMM i is the first of. */
static bool set_has_bytes(const struct builder *b, size_t i)
{
    const struct hv_topology *t = b->t;
    uint64_t pages = 0;

    for (size_t k = i; k < t->count; k++) {
        if (t->dimms[k].set != t->dimms[i].set) {
            continue;
        }
        if (!b->claims[k].size_known) {
            return true;
        }
        pages += t->dimms[k].size_bytes / FS_PAGE_BYTES;
    }
    return mfn_set_pages(&t->dimms[i].ranges) <= pages + TOPOLOGY_SLACK_PAGES;
}

static bool on_one_node(const struct hv_topology *t, const struct mfn_range_set *ranges)
{
    unsigned nodes = 0;

    for (size_t i = 0; i < t->node_count; i++) {
        nodes += mfn_set_overlaps(&t->nodes[i].ranges, ranges);
    }
    return nodes <= 1;
}

static bool believe_sets(struct builder *b)
{
    const struct hv_topology *t = b->t;

    for (size_t i = 0; i < t->count; i++) {
        size_t first = 0;

        while (t->dimms[first].set != t->dimms[i].set) {
            first++;
        }
        if (first < i) {
            continue;
        }
        if (!set_has_bytes(b, i)) {
            (void)snprintf(b->why, b->why_bytes, "more RAM lies on %.40s than it holds", t->dimms[i].name);
            return false;
        }
        if (!on_one_node(t, &t->dimms[i].ranges)) {
            (void)snprintf(b->why, b->why_bytes, "%.40s would lie on several NUMA nodes", t->dimms[i].name);
            return false;
        }
    }
    return true;
}

/* I4.  With one set of all DIMMs there is no doubt where a leftover lies. */
static fs_status_t cover(struct builder *b, bool *believed)
{
    struct mfn_range_set left = { 0 };
    struct hv_topology *t = b->t;
    fs_status_t s = topology_leftover(t, &left);
    uint64_t pages = mfn_set_pages(&left);

    *believed = true;
    if (!s && count_sets(t, false) == 1 && pages) {
        for (size_t i = 0; i < t->count && !s; i++) {
            s = mfn_set_copy(&t->dimms[i].ranges, &t->ram);
        }
    } else if (!s && pages > TOPOLOGY_SLACK_PAGES) {
        (void)snprintf(b->why, b->why_bytes, "%llu MiB of RAM are on no DIMM", (unsigned long long)(pages / 256));
        *believed = false;
    }
    mfn_set_free(&left);
    return s;
}

static fs_status_t check(struct builder *b, bool derived, bool *believed)
{
    *believed = false;
    if (!b->t->count) {
        (void)reject(b, "no DIMM in them");
        return FS_OK;
    }
    ASSERT(b->claims);
    if (derived) {
        for (size_t i = 0; i < b->t->count; i++) {
            if (!b->claims[i].has_range) {
                (void)reject(b, "no type 20, and no type 19 for every array");
                return FS_OK;
            }
        }
        if (count_sets(b->t, false) < 2) {
            (void)reject(b, "no type 20, and types 17 and 19 do not tell DIMMs apart");
            return FS_OK;
        }
    }
    fs_status_t s = topology_share_ranges(b->t);
    if (!s) {
        s = cover(b, believed);
    }
    if (!s && *believed) {
        *believed = believe_sets(b);
    }
    return s;
}

/* Populated slots that no type 20 speaks of: they may be no RAM, or what makes I2 or I4 fail. */
static fs_status_t add_rangeless(struct builder *b)
{
    unsigned added = 0;

    for (size_t i = 0; i < b->m->device_count; i++) {
        const struct smbios_device *device = &b->m->devices[i];

        if (!device->size_bytes || !is_system_memory(b->m, device->array)) {
            continue;
        }
        size_t before = b->t->count;
        if (dimm_of(b, device->handle, device) == SIZE_MAX) {
            return FS_NO_MEMORY;
        }
        added += b->t->count > before;
    }
    if (added) {
        topology_note(b->t, "SMBIOS: %u DIMMs without an address range", added);
    }
    return FS_OK;
}

fs_status_t topology_smbios(struct hv_topology *t, const struct smbios_memory *m, char *why, size_t why_bytes)
{
    struct builder b = { .t = t, .m = m, .why = why, .why_bytes = why_bytes };
    const bool derived = !m->device_range_count;
    bool believed = false;
    char note[sizeof(t->note)];

    memcpy(note, t->note, sizeof(note));
    fs_status_t s = derived ? from_array_ranges(&b) : from_device_ranges(&b);
    if (!s && !derived) {
        s = add_rangeless(&b);
    }
    if (!s) {
        s = check(&b, derived, &believed);
    }
    if (!s && believed) {
        if (derived) {
            topology_note(t, "SMBIOS: no usable type 20 records; the DIMMs of one array are taken as one set");
        }
        if (b.unknown_devices) {
            topology_note(t, "SMBIOS: %u ranges of DIMMs that no record describes", b.unknown_devices);
        }
        if (b.empty_slots) {
            topology_note(t, "SMBIOS: %u ranges of empty slots, left out", b.empty_slots);
        }
    } else {
        topology_clear_dimms(t);
        memcpy(t->note, note, sizeof(note));    /* of what is not used nothing is to be said but why */
    }
    free(b.claims);
    return s;
}
