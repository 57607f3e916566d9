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
 * Why inside the blackout: only then is nobody writing.  It costs two passes over the
 * moved pages; who does not ask for it does not pay.
 * Lock order: none; both passes run on all of dom0's processors, each on its own part of
 * the moves (pv_parallel).
 */
#include "pv_job.h"

#include <stdlib.h>

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

struct pass {
    struct pv_job *job;
    bool after;
    const mfn_t *lists;         /* sorted */
    size_t list_count;
    uint64_t *before;           /* filled by the first pass, compared by the second */
    _Atomic uint64_t mismatches;
};

static void hash_one(struct pass *p, size_t i, const uint64_t *words)
{
    const struct pv_move *move = &p->job->moves[i];
    struct by_meaning m = { &p->job->x, move->type };
    bool list = bsearch(&move->old, p->lists, p->list_count, sizeof(mfn_t), mfn_order) != NULL;
    uint64_t h;
    /* Translation is idempotent, so the same function serves both sides; data pages go untranslated. */
    if (move->type != HV_TYPE_NONE) {
        h = page_hash_mapped(words, entry_meaning, &m);
    } else if (list) {
        h = page_hash_mapped(words, list_meaning, &m);
    } else {
        h = page_hash(words);
    }
    if (!p->after) {
        p->before[i] = h;
    } else if (h != p->before[i]) {
        p->mismatches++;
    }
}

static fs_status_t hash_part(void *arg, unsigned part, size_t from, size_t end, struct fs_error *err)
{
    struct pass *p = arg;
    struct pv_job *job = p->job;
    fs_status_t s = FS_OK;
    (void)part;
    for (size_t first = from; first < end && s == FS_OK; first += MAP_CHUNK) {
        uint64_t frames[MAP_CHUNK];
        int page_err[MAP_CHUNK];
        size_t n = end - first < MAP_CHUNK ? end - first : MAP_CHUNK;
        for (size_t i = 0; i < n; i++) {
            frames[i] = p->after ? job->moves[first + i].new.n : job->moves[first + i].old.n;
        }
        uint64_t *map;
        s = job->be->ops->map(job->be, job->dom.domid, frames, n, HV_MAP_READ, page_err, (void **)&map, err);
        if (s != FS_OK) {
            break;
        }
        for (size_t i = 0; i < n && s == FS_OK; i++) {
            if (page_err[i] != 0) {
                s = fs_fail(err, FS_REFUSED, "domain %u: frame %#llx cannot be mapped for verification",
                            job->dom.domid, (unsigned long long)frames[i]);
            } else {
                hash_one(p, first + i, map + i * (FS_PAGE_BYTES / 8));
            }
        }
        job->be->ops->unmap(job->be, map, n);
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
    free(lists);
    return s;
}

fs_status_t pv_hash_before(struct pv_job *job, struct pv_hashes *h, struct fs_error *err)
{
    uint64_t since = pv_now(job);
    h->before = calloc(job->move_count + 1, sizeof(*h->before));
    if (h->before == NULL) {
        return FS_NO_MEMORY;
    }
    struct pass p = { .job = job, .before = h->before };
    fs_status_t s = hash_pass(&p, err);
    pv_phase(job, "hash-before", &since, job->move_count);
    return s;
}

fs_status_t pv_hash_after(struct pv_job *job, const struct pv_hashes *h, uint64_t *mismatches, struct fs_error *err)
{
    uint64_t since = pv_now(job);
    struct pass p = { .job = job, .after = true, .before = h->before };
    fs_status_t s = hash_pass(&p, err);
    *mismatches = p.mismatches;
    pv_phase(job, "hash-after", &since, job->move_count);
    mover_event(job->ctx, EV_VERIFY, job->dom.domid, job->move_count, p.mismatches, NULL);
    return s;
}
