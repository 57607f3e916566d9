/*
 * pv_verify.c - every moved page hashed before and after the switch.
 *
 * Owns: the proof behind --verify for PV guests.
 * Invariants:
 *   I1  the hash before is taken from the old frame, before anything is copied; the
 *       hash after from the new frame, after Xen validated and pinned the tables.
 *   I2  a page whose meaning is frame numbers (page table, p2m list) is hashed by
 *       meaning: before, each frame number is replaced by the one it is to become.
 *       Xen's own L4 slots count as 0 on both sides.
 *   I3  four moves share one 64-bit sum of their hashes, each with a factor of its own; what the second pass does not bring back to
 *       zero is looked at page by page, old frame against new, which are both still there.
 * Why inside the blackout: only then is nobody writing.  It costs two passes over the
 * moved pages; who does not ask for it does not pay.
 * Why sums: a hash a page would be 8 bytes a frame, as much as everything else that a stop needs; a sum says as surely that all is
 * well, and where it does not, time is no object.
 * Lock order: none; both passes run on all of dom0's processors, each on its own part of
 * the moves (pv_parallel).
 */
#include "pv_job.h"

#include <stdatomic.h>
#include <stdlib.h>

#include "frameshift/assert.h"
#include "page_hash.h"

#define MAP_CHUNK 256u

struct by_meaning { const struct xlat *x; uint8_t level; };

static uint64_t entry_meaning(void *arg, unsigned index, uint64_t word)
{
    const struct by_meaning *m = arg;
    return pv_entry_forward(m->x, m->level, index, word);
}

static uint64_t list_meaning(void *arg, unsigned index, uint64_t word)
{
    const struct by_meaning *m = arg;
    (void)index;
    return xlat_get(m->x, mfn_make(word)).n;
}

static int mfn_order(const void *a, const void *b)
{
    const mfn_t *x = a, *y = b;
    return x->n < y->n ? -1 : x->n > y->n;
}

/* The frames that hold the p2m list, sorted, for quick look-up. */
static fs_status_t list_frames(const struct pv_p2m *p, mfn_t **out, size_t *count)
{
    mfn_t *list = malloc((p->page_count + p->mid_count + 1) * sizeof(*list));
    size_t n = 0;
    if (list == NULL) {
        return FS_NO_MEMORY;
    }
    for (size_t i = 0; i < p->page_count; i++) {
        list[n++] = p->pages[i];
    }
    for (size_t i = 0; i < p->mid_count; i++) {
        list[n++] = p->mids[i];
    }
    list[n++] = p->top;
    qsort(list, n, sizeof(*list), mfn_order);
    *out = list;
    *count = n;
    return FS_OK;
}

#define SUM_MOVES 4u

struct pass {
    struct pv_job *job;
    bool after;
    const mfn_t *lists;         /* sorted */
    size_t list_count;
    _Atomic uint64_t *sums;     /* the first pass adds, the second takes away; parts may share one */
};

static uint64_t hash_of(const struct pass *p, const struct pv_move *move, const uint64_t *words)
{
    const struct pv_table *table = pv_tables_at(&p->job->tables, move->old);
    struct by_meaning m = { &p->job->x, table != NULL ? table->level : (uint8_t)HV_TYPE_NONE };
    /* Translation is idempotent, so the same function serves both sides; data pages go untranslated. */
    if (table != NULL) {
        return page_hash_mapped(words, entry_meaning, &m);
    }
    if (bsearch(&move->old, p->lists, p->list_count, sizeof(mfn_t), mfn_order) != NULL) {
        return page_hash_mapped(words, list_meaning, &m);
    }
    return page_hash(words);
}

static uint64_t share(size_t index, uint64_t hash)
{
    static const uint64_t factors[SUM_MOVES] = { 0x9e3779b97f4a7c15ull, 0xbf58476d1ce4e5b9ull, 0x94d049bb133111ebull, 0xd6e8feb86659fd93ull };
    return hash * factors[index % SUM_MOVES];
}

/* Map the frames of n moves, on one side. */
static fs_status_t map_side(const struct pass *p, const struct pv_move *moves, size_t n, bool after, uint64_t **map, struct fs_error *err)
{
    struct pv_job *job = p->job;
    uint64_t frames[MAP_CHUNK];
    int page_err[MAP_CHUNK];
    ASSERT(n > 0 && n <= MAP_CHUNK);
    for (size_t i = 0; i < n; i++) {
        frames[i] = after ? moves[i].new.n : moves[i].old.n;
    }
    fs_status_t s = job->be->ops->map(job->be, job->dom.domid, frames, n, HV_MAP_READ, page_err, (void **)map, err);
    for (size_t i = 0; i < n && s == FS_OK; i++) {
        if (page_err[i] != 0) {
            job->be->ops->unmap(job->be, *map, n);
            s = fs_fail(err, FS_REFUSED, "domain %u: frame %#llx cannot be mapped for verification", job->dom.domid, (unsigned long long)frames[i]);
        }
    }
    return s;
}

static fs_status_t hash_part(void *arg, unsigned part, size_t from, size_t end, struct fs_error *err)
{
    struct pass *p = arg;
    struct pv_cursor c = pv_cursor_at(p->job, from);
    fs_status_t s = FS_OK;
    (void)part;
    while (from < end && s == FS_OK) {
        struct pv_move moves[MAP_CHUNK];
        uint64_t *map;
        size_t n = 0;
        while (n < MAP_CHUNK && from + n < end && pv_cursor_next(p->job, &c, &moves[n])) {
            n++;
        }
        s = map_side(p, moves, n, p->after, &map, err);
        for (size_t i = 0; i < n && s == FS_OK; i++) {
            uint64_t h = share(from + i, hash_of(p, &moves[i], map + i * (FS_PAGE_BYTES / 8)));
            _Atomic uint64_t *sum = &p->sums[(from + i) / SUM_MOVES];
            (void)(p->after ? atomic_fetch_sub_explicit(sum, h, memory_order_relaxed) : atomic_fetch_add_explicit(sum, h, memory_order_relaxed));
        }
        if (s == FS_OK) {
            p->job->be->ops->unmap(p->job->be, map, n);
        }
        from += n;
    }
    return s;
}

static fs_status_t hash_pass(struct pass *p, struct fs_error *err)
{
    mfn_t *lists;
    fs_status_t s = list_frames(&p->job->p2m, &lists, &p->list_count);
    if (s != FS_OK) {
        return s;
    }
    p->lists = lists;
    s = pv_parallel(p->job->ctx, p->job->move_count, hash_part, p, err);
    return s;
}

/* Of the moves of a sum that is not zero: those that differ; one at least, for something did (I3). */
static fs_status_t count_differing(struct pass *p, size_t sum, uint64_t *mismatches, struct fs_error *err)
{
    struct pv_cursor c = pv_cursor_at(p->job, sum * SUM_MOVES);
    struct pv_move moves[SUM_MOVES];
    uint64_t *old, *new, found = 0;
    size_t n = 0;
    while (n < SUM_MOVES && pv_cursor_next(p->job, &c, &moves[n])) {
        n++;
    }
    fs_status_t s = map_side(p, moves, n, false, &old, err);
    if (s != FS_OK) {
        return s;
    }
    s = map_side(p, moves, n, true, &new, err);
    for (size_t i = 0; i < n && s == FS_OK; i++) {
        size_t at = i * (FS_PAGE_BYTES / 8);
        found += hash_of(p, &moves[i], old + at) != hash_of(p, &moves[i], new + at);
    }
    if (s == FS_OK) {
        p->job->be->ops->unmap(p->job->be, new, n);
    }
    p->job->be->ops->unmap(p->job->be, old, n);
    *mismatches += found > 0 ? found : 1;
    return s;
}

fs_status_t pv_hash_before(struct pv_job *job, struct pv_hashes *h, struct fs_error *err)
{
    uint64_t since = pv_now(job);
    if (h->sums == NULL) {
        return FS_NO_MEMORY;
    }
    struct pass p = { .job = job, .sums = (_Atomic uint64_t *)h->sums };
    fs_status_t s = hash_pass(&p, err);
    free((void *)(uintptr_t)p.lists);
    pv_phase(job, "hash-before", &since, job->move_count);
    return s;
}

fs_status_t pv_hash_after(struct pv_job *job, const struct pv_hashes *h, uint64_t *mismatches, struct fs_error *err)
{
    uint64_t since = pv_now(job);
    struct pass p = { .job = job, .after = true, .sums = (_Atomic uint64_t *)h->sums };
    fs_status_t s = hash_pass(&p, err);
    *mismatches = 0;
    for (size_t i = 0; i * SUM_MOVES < job->move_count && s == FS_OK; i++) {
        s = h->sums[i] != 0 ? count_differing(&p, i, mismatches, err) : FS_OK;
    }
    free((void *)(uintptr_t)p.lists);
    pv_phase(job, "hash-after", &since, job->move_count);
    mover_event(job->ctx, EV_VERIFY, job->dom.domid, job->move_count, *mismatches, NULL);
    return s;
}
