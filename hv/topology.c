/*
 * topology.c - which machine frames lie on which DIMM.
 *
 * Owns: struct hv_topology from its beginning (RAM) to its end (sorted, named,
 * numbered, nodes known); the choice between SMBIOS and NUMA.
 * Invariants:
 *  I1 every frame of t->ram is in exactly one interleave set;
 *  I2 DIMMs of one set have equal ranges; those of different sets share nothing;
 *  I3 no two DIMMs have the same bank and name, in any case of letters;
 *  I4 t->nodes are disjoint, and are Xen's nodes or nobody's.
 * Lock order: none; pure.
 * Why a leftover entry (UNNAMED): a frame that no table claims is still a frame
 * that guests live in; it must show in `status` and be reachable by a target.
 * Why tables are dropped as a whole: half of a wrong table is a guess, and a
 * DIMM that was emptied by a guess is not empty.  NUMA nodes are what the
 * allocator itself goes by.
 * Cost: O(DIMMs^2 + ranges); machines have tens.
 */
#include "topology.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "frameshift/assert.h"
#include "range.h"
#include "srat.h"
#include "topology_priv.h"

#define PAGES_PER_MIB 256u

/* ---- parts ------------------------------------------------------------------ */

void topology_note(struct hv_topology *t, const char *fmt, ...)
{
    size_t used = strlen(t->note), left = sizeof(t->note) - used;
    va_list ap;

    if (used && left > 2) {
        memcpy(t->note + used, "; ", 3);
        used += 2;
        left -= 2;
    }
    va_start(ap, fmt);
    int n = vsnprintf(t->note + used, left, fmt, ap);
    va_end(ap);
    if (n < 0) {
        t->note[used] = '\0';
    } else if ((size_t)n >= left) {
        memcpy(t->note + sizeof(t->note) - 4, "...", 4);
    }
}

fs_status_t topology_begin(struct hv_topology *t, const struct mfn_range_set *ram)
{
    *t = (struct hv_topology){ 0 };
    return mfn_set_copy(&t->ram, ram);
}

struct hv_dimm *topology_add_dimm(struct hv_topology *t, const char *name, const char *bank)
{
    if ((t->count & (t->count - 1)) == 0) {     /* a power of two, or 0: full */
        struct hv_dimm *bigger = realloc(t->dimms, (t->count ? t->count * 2 : 1) * sizeof(*bigger));

        if (!bigger) {
            return NULL;
        }
        t->dimms = bigger;
    }
    struct hv_dimm *d = &t->dimms[t->count];
    *d = (struct hv_dimm){ .node = UINT32_MAX, .set = (uint32_t)t->count };
    (void)snprintf(d->name, sizeof(d->name), "%s", name);
    (void)snprintf(d->bank, sizeof(d->bank), "%s", bank);
    t->count++;
    return d;
}

void topology_clear_dimms(struct hv_topology *t)
{
    for (size_t i = 0; i < t->count; i++) {
        mfn_set_free(&t->dimms[i].ranges);
    }
    free(t->dimms);
    t->dimms = NULL;
    t->count = 0;
}

void hv_topology_free(struct hv_topology *t)
{
    topology_clear_dimms(t);
    for (size_t i = 0; i < t->node_count; i++) {
        mfn_set_free(&t->nodes[i].ranges);
    }
    free(t->nodes);
    mfn_set_free(&t->ram);
    *t = (struct hv_topology){ 0 };
}

void topology_merge_sets(struct hv_topology *t, uint32_t a, uint32_t b)
{
    for (size_t i = 0; i < t->count; i++) {
        if (t->dimms[i].set == b) {
            t->dimms[i].set = a;
        }
    }
}

static fs_status_t add_all(struct mfn_range_set *to, const struct mfn_range_set *from)
{
    fs_status_t s = FS_OK;

    for (size_t i = 0; i < from->count && !s; i++) {
        s = mfn_set_add(to, from->ranges[i]);
    }
    return s;
}

fs_status_t topology_share_ranges(struct hv_topology *t)
{
    for (size_t i = 0; i < t->count; i++) {
        struct hv_dimm *d = &t->dimms[i];
        size_t first = 0;

        while (t->dimms[first].set != d->set) {
            first++;
        }
        fs_status_t s = first < i ? add_all(&t->dimms[first].ranges, &d->ranges) : FS_OK;
        if (s) {
            return s;
        }
    }
    for (size_t i = 0; i < t->count; i++) {
        struct hv_dimm *d = &t->dimms[i];
        size_t first = 0;

        while (t->dimms[first].set != d->set) {
            first++;
        }
        fs_status_t s = first < i ? mfn_set_copy(&d->ranges, &t->dimms[first].ranges) : mfn_set_intersect(&d->ranges, &t->ram);
        if (s) {
            return s;
        }
    }
    return FS_OK;
}

fs_status_t topology_leftover(const struct hv_topology *t, struct mfn_range_set *out)
{
    fs_status_t s = mfn_set_copy(out, &t->ram);

    for (size_t i = 0; i < t->count && !s; i++) {
        for (size_t k = 0; k < t->dimms[i].ranges.count && !s; k++) {
            s = mfn_set_remove(out, t->dimms[i].ranges.ranges[k]);
        }
    }
    return s;
}

/* ---- nodes ------------------------------------------------------------------- */

static const struct hv_node *host_node(const struct hv_host *host, uint32_t id)
{
    for (uint32_t i = 0; i < host->node_count && i < HV_NODES_MAX; i++) {
        if (host->nodes[i].id == id) {
            return &host->nodes[i];
        }
    }
    return NULL;
}

static fs_status_t add_node(struct hv_topology *t, uint32_t node, const struct mfn_range_set *ranges)
{
    struct hv_node_ranges *n = &t->nodes[t->node_count];

    *n = (struct hv_node_ranges){ .node = node };
    fs_status_t s = mfn_set_copy(&n->ranges, ranges);
    if (!s) {
        s = mfn_set_intersect(&n->ranges, &t->ram);
    }
    if (s || !n->ranges.count) {
        mfn_set_free(&n->ranges);
        return s;
    }
    t->node_count++;
    return FS_OK;
}

static void clear_nodes(struct hv_topology *t)
{
    for (size_t i = 0; i < t->node_count; i++) {
        mfn_set_free(&t->nodes[i].ranges);
    }
    free(t->nodes);
    t->nodes = NULL;
    t->node_count = 0;
}

/* I4: the SRAT's nodes are Xen's if Xen knows each of them, and none has more RAM than Xen says it spans. */
static bool nodes_agree(const struct hv_topology *t, const struct hv_host *host)
{
    for (size_t i = 0; i < t->node_count; i++) {
        const struct hv_node *n = host_node(host, t->nodes[i].node);
        uint64_t pages = mfn_set_pages(&t->nodes[i].ranges);

        if (!n || (n->total_pages && pages > n->total_pages + n->total_pages / 16)) {
            return false;
        }
    }
    return true;
}

/* Fills t->nodes; leaves it empty, with a note, where nothing can be believed. */
static fs_status_t find_nodes(struct hv_topology *t, const uint8_t *table, size_t bytes, const struct hv_host *host)
{
    struct srat srat = { 0 };
    fs_status_t s = FS_OK;

    clear_nodes(t);
    t->nodes = calloc(HV_NODES_MAX, sizeof(*t->nodes));
    if (!t->nodes) {
        return FS_NO_MEMORY;
    }
    if (host->node_count <= 1) {        /* whatever the SRAT says: this is how Xen runs */
        return add_node(t, host->node_count ? host->nodes[0].id : 0, &t->ram);
    }
    s = srat_parse(table, bytes, &srat);
    if (s) {
        return s;
    }
    for (size_t i = 0; i < srat.count && !s; i++) {
        s = add_node(t, srat.nodes[i].node, &srat.nodes[i].ranges);
    }
    if (!s && !srat.count) {
        topology_note(t, "where the nodes lie is unknown (SRAT: %s)", srat.reason);
    } else if (!s && !nodes_agree(t, host)) {
        topology_note(t, "where the nodes lie is unknown (the SRAT's nodes are not Xen's)");
        clear_nodes(t);
    }
    srat_free(&srat);
    return s;
}

uint32_t topology_node_of(const struct hv_topology *t, mfn_t mfn)
{
    for (size_t i = 0; i < t->node_count; i++) {
        if (mfn_set_contains(&t->nodes[i].ranges, mfn)) {
            return t->nodes[i].node;
        }
    }
    return UINT32_MAX;
}

/* The one node that all frames of a set lie on, else UINT32_MAX. */
static uint32_t node_of_set(const struct hv_topology *t, const struct mfn_range_set *set)
{
    uint32_t node = UINT32_MAX;
    uint64_t found = 0;

    for (size_t i = 0; i < t->node_count; i++) {
        if (!mfn_set_overlaps(&t->nodes[i].ranges, set)) {
            continue;
        }
        if (node != UINT32_MAX) {
            return UINT32_MAX;
        }
        node = t->nodes[i].node;
        for (size_t k = 0; k < set->count; k++) {
            for (size_t j = 0; j < t->nodes[i].ranges.count; j++) {
                struct mfn_range a = set->ranges[k], b = t->nodes[i].ranges.ranges[j];
                uint64_t start = a.start.n > b.start.n ? a.start.n : b.start.n;
                uint64_t end = a.end.n < b.end.n ? a.end.n : b.end.n;

                found += end > start ? end - start : 0;
            }
        }
    }
    return found == mfn_set_pages(set) ? node : UINT32_MAX;
}

fs_status_t topology_add_nodes(struct hv_topology *t, const uint8_t *srat, size_t srat_bytes, const struct hv_host *host,
                               struct fs_error *err)
{
    struct hv_node_ranges *kept = t->nodes;
    size_t kept_count = t->node_count;

    t->nodes = NULL;
    t->node_count = 0;
    fs_status_t s = find_nodes(t, srat, srat_bytes, host);
    if (s || !t->node_count) {
        clear_nodes(t);
        t->nodes = kept;
        t->node_count = kept_count;
        return s ? fs_fail(err, s, "no memory for the nodes") : FS_OK;
    }
    for (size_t i = 0; i < t->count; i++) {
        uint32_t node = node_of_set(t, &t->dimms[i].ranges);

        if (t->dimms[i].node != UINT32_MAX && t->dimms[i].node != node) {
            topology_note(t, "%s is not on node %u, as the map says", t->dimms[i].name, (unsigned)t->dimms[i].node);
        }
        t->dimms[i].node = node;
    }
    for (size_t i = 0; i < kept_count; i++) {
        mfn_set_free(&kept[i].ranges);
    }
    free(kept);
    return FS_OK;
}

/* ---- the end ------------------------------------------------------------------ */

static int by_place(const void *a, const void *b)
{
    const struct hv_dimm *x = a, *y = b;
    uint64_t first_x = x->ranges.count ? x->ranges.ranges[0].start.n : UINT64_MAX;
    uint64_t first_y = y->ranges.count ? y->ranges.ranges[0].start.n : UINT64_MAX;

    if (first_x != first_y) {
        return first_x < first_y ? -1 : 1;
    }
    int order = strcmp(x->name, y->name);
    return order ? order : strcmp(x->bank, y->bank);
}

static void number_sets(struct hv_topology *t)
{
    const uint32_t offset = (uint32_t)t->count + 1;     /* beyond every number in use */
    uint32_t next = 0;

    for (size_t i = 0; i < t->count; i++) {
        if (t->dimms[i].set < offset) {
            topology_merge_sets(t, offset + next++, t->dimms[i].set);
        }
    }
    for (size_t i = 0; i < t->count; i++) {
        t->dimms[i].set -= offset;
    }
}

/* How many DIMMs share each one's frames, and in which place of them it is, where the claims make sense. */
static void settle_interleave(struct hv_topology *t)
{
    for (size_t i = 0; i < t->count; i++) {
        uint32_t members = 0;

        for (size_t k = 0; k < t->count; k++) {
            members += t->dimms[k].set == t->dimms[i].set;
        }
        t->dimms[i].interleave_depth = members > 1 ? members : 0;
    }
    for (size_t i = 0; i < t->count; i++) {
        bool believable = t->dimms[i].interleave_position <= t->dimms[i].interleave_depth;

        for (size_t k = 0; k < t->count && believable; k++) {
            believable = k == i || t->dimms[k].set != t->dimms[i].set ||
                         t->dimms[k].interleave_position != t->dimms[i].interleave_position;
        }
        if (!believable) {              /* a place claimed twice says nothing about any of them */
            for (size_t k = 0; k < t->count; k++) {
                if (t->dimms[k].set == t->dimms[i].set) {
                    t->dimms[k].interleave_position = 0;
                }
            }
        }
    }
}

static bool same_name(const struct hv_dimm *a, const struct hv_dimm *b)
{
    return !strcasecmp(a->name, b->name) && !strcasecmp(a->bank, b->bank);
}

/* How many before d share its bank and have its name, or its name with a number. */
static unsigned namesakes_before(const struct hv_topology *t, const struct hv_dimm *d)
{
    size_t length = strlen(d->name);
    unsigned count = 0;

    for (const struct hv_dimm *e = t->dimms; e < d; e++) {
        count += !strcasecmp(e->bank, d->bank) && !strncasecmp(e->name, d->name, length) &&
                 (e->name[length] == '\0' || e->name[length] == '#');
    }
    return count;
}

/* I3.  Numbers go on upwards where a table itself holds a name like "DIMM#2". */
static void make_names_unique(struct hv_topology *t)
{
    for (size_t i = 1; i < t->count; i++) {
        struct hv_dimm *d = &t->dimms[i], tried = *d;
        unsigned number = 0;

        for (size_t k = 0; k < t->count; k++) {
            if (k != i && (k < i || number) && same_name(&t->dimms[k], &tried)) {
                number = number ? number + 1 : namesakes_before(t, d) + 1;
                (void)snprintf(tried.name, sizeof(tried.name), "%.48s#%u", d->name, number);
                k = SIZE_MAX;           /* against all of them again */
            }
        }
        memcpy(d->name, tried.name, sizeof(d->name));
    }
}

fs_status_t topology_finish(struct hv_topology *t)
{
    struct mfn_range_set left = { 0 };
    fs_status_t s = topology_leftover(t, &left);

    if (!s && left.count) {
        struct hv_dimm *d = topology_add_dimm(t, "UNNAMED", "");

        if (d) {
            uint64_t pages = mfn_set_pages(&left);

            d->ranges = left;
            d->size_bytes = pages * FS_PAGE_BYTES;
            left = (struct mfn_range_set){ 0 };
            topology_note(t, "%llu MiB of RAM belong to no known DIMM (UNNAMED)",
                          (unsigned long long)((pages + PAGES_PER_MIB - 1) / PAGES_PER_MIB));
        } else {
            s = FS_NO_MEMORY;
        }
    }
    mfn_set_free(&left);
    if (s) {
        return s;
    }
    if (t->count) {
        qsort(t->dimms, t->count, sizeof(*t->dimms), by_place);
    }
    number_sets(t);
    settle_interleave(t);
    make_names_unique(t);
    for (size_t i = 0; i < t->count; i++) {
        if (t->node_count) {
            t->dimms[i].node = node_of_set(t, &t->dimms[i].ranges);
        }
    }
    return FS_OK;
}

/* ---- from tables --------------------------------------------------------------- */

static void note_defects(struct hv_topology *t, const struct smbios_memory *m)
{
    if (m->torn) {
        topology_note(t, "SMBIOS: the table ends within a record");
    } else if (m->no_end) {
        topology_note(t, "SMBIOS: no end-of-table record");
    }
    if (m->short_records) {
        topology_note(t, "SMBIOS: %u records too short", m->short_records);
    }
    if (m->bad_ranges) {
        topology_note(t, "SMBIOS: %u records without a valid address range", m->bad_ranges);
    }
    if (m->bad_strings) {
        topology_note(t, "SMBIOS: %u names missing", m->bad_strings);
    }
    if (m->too_many) {
        topology_note(t, "SMBIOS: %u records too many, left out", m->too_many);
    }
}

static fs_status_t from_smbios(struct hv_topology *t, const uint8_t *table, size_t bytes, char *why, size_t why_bytes)
{
    struct smbios_memory m;

    (void)snprintf(why, why_bytes, "no SMBIOS table");
    if (!bytes) {
        return FS_OK;
    }
    fs_status_t s = smbios_parse(table, bytes, &m);
    if (!s) {
        s = topology_smbios(t, &m, why, why_bytes);
    }
    if (!s && !t->count) {
        topology_note(t, "SMBIOS tables not used (%s): DIMMs here are NUMA nodes", why);
    }
    if (!s) {
        note_defects(t, &m);
    }
    smbios_free(&m);
    return s;
}

static fs_status_t from_nodes(struct hv_topology *t)
{
    for (size_t i = 0; i < t->node_count; i++) {
        char name[HV_NAME_BYTES];

        (void)snprintf(name, sizeof(name), "NODE%u", (unsigned)t->nodes[i].node);
        struct hv_dimm *d = topology_add_dimm(t, name, "");
        fs_status_t s = d ? mfn_set_copy(&d->ranges, &t->nodes[i].ranges) : FS_NO_MEMORY;
        if (s) {
            return s;
        }
        d->size_bytes = mfn_set_pages(&d->ranges) * FS_PAGE_BYTES;
    }
    return FS_OK;
}

fs_status_t topology_from_tables(const uint8_t *smbios, size_t smbios_bytes, const uint8_t *srat, size_t srat_bytes,
                                 const struct mfn_range_set *ram, const struct hv_host *host, struct hv_topology *out,
                                 struct fs_error *err)
{
    char why[160];

    ASSERT_SLOW(mfn_set_check(ram));
    fs_status_t s = topology_begin(out, ram);
    if (!s) {
        s = find_nodes(out, srat, srat_bytes, host);
    }
    if (!s) {
        s = from_smbios(out, smbios, smbios_bytes, why, sizeof(why));
    }
    if (!s) {
        out->source = out->count ? HV_TOPO_SMBIOS : HV_TOPO_NUMA;
        if (!out->count) {
            s = from_nodes(out);
        }
    }
    if (!s) {
        s = topology_finish(out);
    }
    if (s) {
        hv_topology_free(out);
        return fs_fail(err, s, "no memory for the topology");
    }
    return FS_OK;
}
