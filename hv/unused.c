/*
 * unused.c - frames that a PV domain owns and that its p2m does not lead to.
 *
 * Owns: struct frame_set.
 * Invariants:
 *   I1  a frame is called unused only if the machine says that the domain owns it and no p2m entry names it.
 *   I2  a frame without M2P entry may also be one of Xen's shared pages: those are told apart by the owner's answer, and
 *       shared_info by its number; what slips through is refused by the machine when it is given back.
 * Lock order: none.
 * Why two ways: a round journals what it reserved, but may be killed between the call and the record; then only a search finds it.
 * Why the p2m is read past the list and not kept: the list is a round's, the p2m the whole guest's.
 * Cost: a search looks at every frame of the machine once.
 */
#include "unused.h"

#include <stdlib.h>

#include "bitmap.h"
#include "pv_p2m.h"
#include "range.h"

#define SCAN_PAGES 16384u
#define PIECE_PAGES 4096u

void frame_set_free(struct frame_set *s)
{
    free(s->list);
    *s = (struct frame_set){ 0 };
}

fs_status_t frame_set_add(struct frame_set *s, mfn_t m)
{
    if (s->count == s->capacity) {
        size_t capacity = s->capacity == 0 ? 1024 : s->capacity * 2;
        mfn_t *grown = realloc(s->list, capacity * sizeof(*grown));
        if (grown == NULL) {
            return FS_NO_MEMORY;
        }
        s->list = grown;
        s->capacity = capacity;
    }
    s->list[s->count++] = m;
    return FS_OK;
}

static int mfn_order(const void *a, const void *b)
{
    const mfn_t *x = a, *y = b;
    return x->n < y->n ? -1 : x->n > y->n;
}

void frame_set_sort(struct frame_set *s)
{
    if (s->count > 1) {
        qsort(s->list, s->count, sizeof(*s->list), mfn_order);
    }
}

bool frame_set_has(const struct frame_set *s, mfn_t m)
{
    return s->count > 0 && bsearch(&m, s->list, s->count, sizeof(m), mfn_order) != NULL;
}

/* Which frames of a sorted list does the p2m name? */
struct named { const struct frame_set *list; uint64_t *bits; };

static void note_named(void *arg, uint64_t pfn, mfn_t m)
{
    struct named *n = arg;
    (void)pfn;
    if (m.n < n->list->list[0].n || m.n > n->list->list[n->list->count - 1].n) {
        return;
    }
    const mfn_t *at = bsearch(&m, n->list->list, n->list->count, sizeof(m), mfn_order);
    if (at != NULL) {
        bitmap_set(n->bits, (uint64_t)(at - n->list->list));
    }
}

struct owner_piece { uint8_t types[PIECE_PAGES], flags[PIECE_PAGES]; bool owned[PIECE_PAGES]; };

/* Those of list that the domain owns and whose bit is not set. */
static fs_status_t keep_owned(struct hv_backend *be, uint16_t domid, const struct frame_set *list, const uint64_t *skip, struct frame_set *out,
                              struct fs_error *err)
{
    struct owner_piece *p = malloc(sizeof(*p));
    fs_status_t s = p == NULL ? FS_NO_MEMORY : FS_OK;
    for (size_t first = 0; first < list->count && s == FS_OK; first += PIECE_PAGES) {
        size_t n = list->count - first < PIECE_PAGES ? list->count - first : PIECE_PAGES;
        s = be->ops->types(be, domid, list->list + first, n, p->types, p->flags, p->owned, err);
        for (size_t i = 0; i < n && s == FS_OK; i++) {
            if (p->owned[i] && (skip == NULL || !bitmap_has(skip, first + i))) {
                s = frame_set_add(out, list->list[first + i]);
            }
        }
    }
    free(p);
    return s;
}

fs_status_t unused_owned(struct hv_backend *be, uint16_t domid, const struct frame_set *list, struct frame_set *out, struct fs_error *err)
{
    return keep_owned(be, domid, list, NULL, out, err);
}

fs_status_t unused_of(struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns, const struct frame_set *list,
                      struct frame_set *out, struct fs_error *err)
{
    struct named n = { .list = list };
    uint64_t pfns;
    if (list->count == 0) {
        return FS_OK;
    }
    n.bits = bitmap_new(list->count);
    fs_status_t s = n.bits == NULL ? FS_NO_MEMORY : pv_p2m_each(be, dom, limit_pfns, note_named, &n, &pfns, err);
    if (s == FS_OK) {
        s = keep_owned(be, dom->domid, list, n.bits, out, err);
    }
    free(n.bits);
    return s;
}

fs_status_t unused_search(struct hv_backend *be, const struct hv_domain *dom, const struct mfn_range_set *ranges,
                          struct frame_set *out, struct fs_error *err)
{
    struct mfn_range_set ram = { 0 };
    struct hv_frame *frames = malloc(SCAN_PAGES * sizeof(*frames));
    fs_status_t s = frames == NULL ? FS_NO_MEMORY : be->ops->ram(be, &ram, err);
    for (size_t r = 0; r < ram.count && s == FS_OK; r++) {
        for (uint64_t m = ram.ranges[r].start.n; m < ram.ranges[r].end.n && s == FS_OK; m += SCAN_PAGES) {
            uint64_t end = m + SCAN_PAGES < ram.ranges[r].end.n ? m + SCAN_PAGES : ram.ranges[r].end.n;
            s = be->ops->frames(be, (struct mfn_range){ mfn_make(m), mfn_make(end) }, frames, err);
            for (uint64_t i = m; i < end && s == FS_OK; i++) {
                const struct hv_frame *f = &frames[i - m];
                mfn_t at = mfn_make(i);
                if (f->owner == HV_FRAME_DOMAIN && f->domid == dom->domid && f->gfn == FS_FRAME_NONE && f->type == HV_TYPE_NONE &&
                    !mfn_eq(at, dom->shared_info) && !mfn_set_contains(ranges, at)) {
                    s = frame_set_add(out, at);
                }
            }
        }
    }
    mfn_set_free(&ram);
    free(frames);
    return s;
}
