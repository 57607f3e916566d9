/*
 * pv_tables.c - the page tables of a stopped PV guest, as plain memory.
 *
 * Owns: the list of tables and the one pass over their entries.
 * Invariants:
 *   I1  list[] is sorted by frame, without duplicates; levels are 1 to 4.
 *   I2  only present entries are touched: an entry that is not present holds
 *       whatever the guest likes (swap entries, pfns of PROT_NONE pages).
 *   I3  slots 256 to 271 of an L4 are Xen's and are rebuilt by Xen when the table is
 *       validated; they are never written.
 *   I4  (checked forward on the guest's own entries, before they change, and backward)
 *       every present entry above level 1 leads to a frame of the list.  A table
 *       that is reachable but not listed would keep old frames and come back to life
 *       at the next pin; so the move is refused instead.
 * Lock order: none; one thread.
 * Why one pass: the cost of a switch is the frames moved plus all tables once.  Xen's
 * own tool scans all tables for every page.
 * Cost: 512 entries a table; MAP_CHUNK tables a mapping.
 */
#include "pv_tables.h"

#include <stdlib.h>
#include <string.h>

#include "bitmap.h"
#include "frameshift/assert.h"
#include "pv_p2m.h"

#define MAP_CHUNK 256u
#define ENTRIES 512u
#define TYPES_CHUNK 8192u

static int table_order(const void *a, const void *b)
{
    const struct pv_table *x = a, *y = b;
    return x->mfn.n < y->mfn.n ? -1 : x->mfn.n > y->mfn.n;
}

/* One look at types; a piece of the whole list at a time, so that it costs little more than the tables found. */
struct type_piece {
    size_t count;
    mfn_t mfns[TYPES_CHUNK];
    uint64_t pfns[TYPES_CHUNK];
    uint8_t types[TYPES_CHUNK], flags[TYPES_CHUNK];
    bool owned[TYPES_CHUNK];
};

static fs_status_t add_piece(struct hv_backend *be, uint16_t domid, struct pv_tables *out, size_t *capacity, struct type_piece *p,
                             uint64_t *owned, struct fs_error *err)
{
    fs_status_t s = be->ops->types(be, domid, p->mfns, p->count, p->types, p->flags, p->owned, err);
    for (size_t i = 0; i < p->count && s == FS_OK; i++) {
        if (owned != NULL && p->owned[i]) {
            bitmap_set(owned, p->pfns[i]);
        }
        if (!p->owned[i] || p->types[i] == HV_TYPE_NONE) {
            continue;
        }
        if (out->count == *capacity) {
            size_t larger = *capacity == 0 ? 256 : *capacity * 2;
            struct pv_table *grown = realloc(out->list, larger * sizeof(*grown));
            if (grown == NULL) {
                return FS_NO_MEMORY;
            }
            out->list = grown;
            *capacity = larger;
        }
        out->list[out->count++] = (struct pv_table){ .mfn = p->mfns[i], .level = p->types[i], .pinned = (p->flags[i] & HV_FRAME_PINNED) != 0 };
    }
    p->count = 0;
    return s;
}

/* I1: a hostile p2m may name a frame twice. */
static void sort_tables(struct pv_tables *t)
{
    size_t kept = 0;
    qsort(t->list, t->count, sizeof(*t->list), table_order);
    for (size_t i = 0; i < t->count; i++) {
        if (kept == 0 || !mfn_eq(t->list[kept - 1].mfn, t->list[i].mfn)) {
            t->list[kept++] = t->list[i];
            t->by_level[t->list[i].level]++;
        }
    }
    t->count = kept;
}

fs_status_t pv_tables_find(struct hv_backend *be, uint16_t domid, const struct pv_p2m *p2m, uint64_t max_mfn,
                           struct pv_tables *out, uint64_t *owned, struct fs_error *err)
{
    memset(out, 0, sizeof(*out));
    struct type_piece *p = malloc(sizeof(*p));
    size_t capacity = 0;
    fs_status_t s = p == NULL ? FS_NO_MEMORY : FS_OK;
    if (s == FS_OK) {
        p->count = 0;
    }
    for (uint64_t pfn = 0; pfn < p2m->pfn_count && s == FS_OK; pfn++) {
        mfn_t m = pv_p2m_get(p2m, pfn);
        if (m.n < max_mfn) {                /* MFN_NONE and nonsense fall out here */
            p->pfns[p->count] = pfn;
            p->mfns[p->count++] = m;
        }
        if (p->count == TYPES_CHUNK) {
            s = add_piece(be, domid, out, &capacity, p, owned, err);
        }
    }
    if (s == FS_OK && p->count > 0) {
        s = add_piece(be, domid, out, &capacity, p, owned, err);
    }
    if (s == FS_OK && out->list == NULL) {                  /* callers may look at an empty list */
        out->list = calloc(1, sizeof(*out->list));
        s = out->list == NULL ? FS_NO_MEMORY : FS_OK;
    }
    if (s == FS_OK) {
        sort_tables(out);
    }
    free(p);
    if (s != FS_OK) {
        pv_tables_free(out);
    }
    return s;
}

void pv_tables_free(struct pv_tables *t)
{
    free(t->list);
    memset(t, 0, sizeof(*t));
}

const struct pv_table *pv_tables_at(const struct pv_tables *t, mfn_t m)
{
    struct pv_table key = { .mfn = m };
    return t->count == 0 ? NULL : bsearch(&key, t->list, t->count, sizeof(key), table_order);
}

static bool entry_is_xens(uint8_t level, unsigned index)
{
    return level == 4 && index >= L4_XEN_FIRST && index < L4_XEN_END;
}

uint64_t pv_entry_forward(const struct xlat *x, uint8_t level, unsigned index, uint64_t entry)
{
    if (level == 0) {
        return entry;
    }
    if (entry_is_xens(level, index)) {
        return 0;
    }
    if (!(entry & PTE_PRESENT)) {
        return entry;
    }
    return (entry & ~PTE_FRAME_MASK) | (xlat_get(x, mfn_make(pte_frame(entry))).n << FS_PAGE_SHIFT);
}

static fs_status_t rewrite_one(const struct pv_tables *t, const struct xlat *x, const struct pv_table *table,
                               uint64_t *entries, bool forward, uint64_t *changed, uint16_t domid, struct fs_error *err)
{
    for (unsigned i = 0; i < ENTRIES; i++) {
        if (!(entries[i] & PTE_PRESENT) || entry_is_xens(table->level, i)) {        /* I2, I3 */
            continue;
        }
        mfn_t now = mfn_make(pte_frame(entries[i]));
        if (table->level > 1) {
            mfn_t old = forward ? now : xlat_back(x, now);
            if (pv_tables_at(t, old) == NULL) {                                     /* I4 */
                return fs_fail(err, FS_REFUSED, "domain %u: entry %u of the L%u table at frame %#llx leads to frame %#llx, "
                               "which is no page table in its p2m; nothing was moved", domid, i, table->level,
                               (unsigned long long)table->mfn.n, (unsigned long long)now.n);
            }
        }
        mfn_t then = forward ? xlat_get(x, now) : xlat_back(x, now);
        if (!mfn_eq(then, now)) {
            entries[i] = (entries[i] & ~PTE_FRAME_MASK) | (then.n << FS_PAGE_SHIFT);
            (*changed)++;
        }
    }
    return FS_OK;
}

fs_status_t pv_tables_rewrite(struct hv_backend *be, uint16_t domid, const struct pv_tables *t, const struct xlat *x,
                              bool forward, uint64_t *entries_changed, struct fs_error *err)
{
    *entries_changed = 0;
    for (size_t first = 0; first < t->count; first += MAP_CHUNK) {
        uint64_t frames[MAP_CHUNK];
        int page_err[MAP_CHUNK];
        size_t n = t->count - first < MAP_CHUNK ? t->count - first : MAP_CHUNK;
        for (size_t i = 0; i < n; i++) {
            mfn_t m = t->list[first + i].mfn;
            frames[i] = forward ? xlat_get(x, m).n : m.n;
        }
        uint64_t *map;
        fs_status_t s = be->ops->map(be, domid, frames, n, HV_MAP_WRITE, page_err, (void **)&map, err);
        if (s != FS_OK) {
            return s;
        }
        for (size_t i = 0; i < n && s == FS_OK; i++) {
            const struct pv_table *table = &t->list[first + i];
            if (page_err[i] != 0) {
                s = fs_fail(err, FS_REFUSED, "domain %u: page table at frame %#llx cannot be mapped for writing: it still has a type",
                            domid, (unsigned long long)frames[i]);
            } else {
                s = rewrite_one(t, x, table, map + (size_t)i * ENTRIES, forward, entries_changed, domid, err);
            }
        }
        be->ops->unmap(be, map, n);
        if (s != FS_OK) {
            return s;
        }
    }
    return FS_OK;
}

/* ---- frames of others ------------------------------------------------------------- */

#define TABLES_AT_ONCE 32u
#define ODD_MAX 256u            /* distinct frames that need a question to Xen; more is no ordinary guest */
#define REFS_TRIES 3

struct foreign_search {
    struct hv_backend *be;
    uint16_t domid;
    const struct pv_p2m *p2m;
    mfn_t shared_info;
    mfn_t odd[ODD_MAX];         /* targets that p2m and ownership do not account for */
    size_t odd_count;
    bool too_many;
};

static void note_odd(struct foreign_search *f, mfn_t m)
{
    if (mfn_eq(m, f->shared_info)) {
        return;
    }
    for (size_t i = 0; i < f->odd_count; i++) {
        if (mfn_eq(f->odd[i], m)) {
            return;
        }
    }
    if (f->odd_count == ODD_MAX) {
        f->too_many = true;
        return;
    }
    f->odd[f->odd_count++] = m;
}

/* Of targets[]: note those that neither p2m and M2P nor the owner scan account for. */
static fs_status_t check_targets(struct foreign_search *f, mfn_t *targets, size_t count, uint64_t *gfns, struct fs_error *err)
{
    uint8_t types[MAP_CHUNK], flags[MAP_CHUNK];
    bool owned[MAP_CHUNK];
    size_t odd = 0;
    fs_status_t s = f->be->ops->m2p(f->be, targets, count, gfns, err);
    for (size_t i = 0; i < count && s == FS_OK; i++) {
        if (!mfn_eq(pv_p2m_get(f->p2m, gfns[i]), targets[i])) {
            targets[odd++] = targets[i];
        }
    }
    for (size_t at = 0; at < odd && s == FS_OK; at += MAP_CHUNK) {
        size_t n = odd - at < MAP_CHUNK ? odd - at : MAP_CHUNK;
        s = f->be->ops->types(f->be, f->domid, targets + at, n, types, flags, owned, err);
        for (size_t i = 0; i < n && s == FS_OK; i++) {
            if (!owned[i]) {
                note_odd(f, targets[at + i]);
            }
        }
    }
    return s;
}

/* Xen's own pages for the guest (grant-table frames, shared_info) are its to map, though no owner scan tells them; whose
 * the rest is, Xen's count tells.  No answer counts as foreign: dom0's own frames give none. */
static fs_status_t judge_odd(const struct foreign_search *f, mfn_t *found, struct fs_error *err)
{
    if (f->be->ops->frame_refs == NULL) {
        return FS_OK;                       /* the p2m's foreign marks are all there is to go by */
    }
    for (size_t i = 0; i < f->odd_count; i++) {
        struct hv_frame_refs refs = { .known = false };
        for (int try = 0; try < REFS_TRIES && !refs.known; try++) {
            fs_status_t s = f->be->ops->frame_refs(f->be, &f->odd[i], 1, &refs, err);
            if (s != FS_OK) {
                return s == FS_UNSUPPORTED ? FS_OK : s;
            }
        }
        if (!refs.known || refs.domid != f->domid) {
            *found = f->odd[i];
            return FS_OK;
        }
    }
    return FS_OK;
}

fs_status_t pv_tables_find_foreign(struct hv_backend *be, const struct hv_domain *dom, const struct pv_tables *t,
                                   const struct pv_p2m *p2m, mfn_t *found, struct fs_error *err)
{
    mfn_t *targets = malloc(TABLES_AT_ONCE * ENTRIES * sizeof(*targets));
    uint64_t *gfns = malloc(TABLES_AT_ONCE * ENTRIES * sizeof(*gfns));
    struct foreign_search *f = calloc(1, sizeof(*f));
    fs_status_t s = targets == NULL || gfns == NULL || f == NULL ? FS_NO_MEMORY : FS_OK;
    *found = MFN_NONE;
    if (s == FS_OK) {
        f->be = be;
        f->domid = dom->domid;
        f->p2m = p2m;
        f->shared_info = dom->shared_info;
    }
    for (size_t first = 0; first < t->count && s == FS_OK; first += TABLES_AT_ONCE) {
        uint64_t frames[TABLES_AT_ONCE];
        int page_err[TABLES_AT_ONCE];
        size_t n = t->count - first < TABLES_AT_ONCE ? t->count - first : TABLES_AT_ONCE, count = 0;
        for (size_t i = 0; i < n; i++) {
            frames[i] = t->list[first + i].mfn.n;
        }
        uint64_t *map;
        s = be->ops->map(be, dom->domid, frames, n, HV_MAP_READ, page_err, (void **)&map, err);
        if (s != FS_OK) {
            break;
        }
        for (size_t i = 0; i < n; i++) {
            for (unsigned k = 0; k < ENTRIES && t->list[first + i].level == 1 && page_err[i] == 0; k++) {
                if (map[i * ENTRIES + k] & PTE_PRESENT) {
                    targets[count++] = mfn_make(pte_frame(map[i * ENTRIES + k]));
                }
            }
        }
        be->ops->unmap(be, map, n);
        s = check_targets(f, targets, count, gfns, err);
    }
    if (s == FS_OK) {
        *found = f->too_many ? f->odd[0] : MFN_NONE;
        s = f->too_many ? FS_OK : judge_odd(f, found, err);
    }
    free(targets);
    free(gfns);
    free(f);
    return s;
}
