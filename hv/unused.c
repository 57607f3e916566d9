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
 * Cost: a search looks at every frame of the machine once.
 */
#include "unused.h"

#include <stdlib.h>

#include "pv_p2m.h"
#include "range.h"

#define SCAN_PAGES 16384u

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

fs_status_t unused_read_p2m(struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns, struct frame_set *used, struct fs_error *err)
{
    struct pv_p2m p2m;
    fs_status_t s = pv_p2m_read(be, dom, limit_pfns, &p2m, err);
    if (s != FS_OK) {
        return s;
    }
    for (uint64_t pfn = 0; pfn < p2m.pfn_count && s == FS_OK; pfn++) {
        mfn_t m = pv_p2m_get(&p2m, pfn);
        s = mfn_is_none(m) ? FS_OK : frame_set_add(used, m);
    }
    frame_set_sort(used);
    pv_p2m_free(&p2m);
    return s;
}

fs_status_t unused_of(struct hv_backend *be, uint16_t domid, const mfn_t *list, size_t count, const struct frame_set *used,
                      struct frame_set *out, struct fs_error *err)
{
    uint8_t *types = malloc(count + 1), *flags = malloc(count + 1);
    bool *owned = malloc((count + 1) * sizeof(*owned));
    fs_status_t s = FS_NO_MEMORY;
    if (types != NULL && flags != NULL && owned != NULL) {
        s = be->ops->types(be, domid, list, count, types, flags, owned, err);
    }
    for (size_t i = 0; i < count && s == FS_OK; i++) {
        if (owned[i] && !frame_set_has(used, list[i])) {
            s = frame_set_add(out, list[i]);
        }
    }
    free(types);
    free(flags);
    free(owned);
    return s;
}

fs_status_t unused_search(struct hv_backend *be, const struct hv_domain *dom, const struct mfn_range_set *ranges, const struct frame_set *used,
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
                    !mfn_eq(at, dom->shared_info) && !mfn_set_contains(ranges, at) && !frame_set_has(used, at)) {
                    s = frame_set_add(out, at);
                }
            }
        }
    }
    mfn_set_free(&ram);
    free(frames);
    return s;
}
