/*
 * p2m.c - the p2m of a translated (HAP) domain, and its dirty log.
 *
 * Owns: struct emb_p2m and d->dirty.
 * Invariants:
 *  I1 a 2 MiB extent leads to 512 aligned contiguous frames; it is split by anything
 *     that changes one of its gfns, and never put together again (Xen's p2m neither);
 *  I2 while the log is on, a gfn written by the guest, populated or remapped has its bit set;
 *     the first write to a 2 MiB extent splits it, as log-dirty faults do.
 * Lock order: the machine's lock is held.
 * Cost: 8 bytes per 2 MiB of gfn space, 4 bytes per gfn where it is not an extent.
 */
#include "emb_priv.h"

#define SUPER(mfn) (((mfn) << 1) | 1)

int emb_p2m_init(struct emb_machine *m, struct emb_domain *d, uint64_t gfns)
{
    d->p2m.top_entries = (gfns + FS_SP_PAGES - 1) / FS_SP_PAGES;
    d->p2m.top = emb_alloc(m, d->p2m.top_entries * sizeof(uint64_t));
    return d->p2m.top ? 0 : -ENOMEM;
}

static uint32_t *leaf_at(struct emb_machine *m, uint64_t entry)
{
    return (uint32_t *)(void *)((char *)m + entry);
}

void emb_p2m_destroy(struct emb_machine *m, struct emb_domain *d)
{
    for (uint64_t i = 0; d->p2m.top && i < d->p2m.top_entries; i++) {
        if (d->p2m.top[i] && !(d->p2m.top[i] & 1)) {
            emb_free(m, leaf_at(m, d->p2m.top[i]), FS_SP_PAGES * sizeof(uint32_t));
        }
    }
    emb_free(m, d->p2m.top, d->p2m.top_entries * sizeof(uint64_t));
    emb_free(m, d->dirty, d->dirty_words * sizeof(uint64_t));
    d->p2m = (struct emb_p2m){ 0 };
    d->dirty = NULL;
}

bool emb_p2m_is_super(const struct emb_domain *d, uint64_t gfn)
{
    uint64_t i = gfn / FS_SP_PAGES;
    return i < d->p2m.top_entries && (d->p2m.top[i] & 1);
}

uint64_t emb_p2m_get(struct emb_machine *m, const struct emb_domain *d, uint64_t gfn)
{
    uint64_t i = gfn / FS_SP_PAGES;
    if (i >= d->p2m.top_entries || !d->p2m.top[i]) {
        return FS_FRAME_NONE;
    }
    if (d->p2m.top[i] & 1) {
        return (d->p2m.top[i] >> 1) + gfn % FS_SP_PAGES;
    }
    uint32_t mfn1 = leaf_at(m, d->p2m.top[i])[gfn % FS_SP_PAGES];
    return mfn1 ? mfn1 - 1u : FS_FRAME_NONE;
}

int emb_p2m_split(struct emb_machine *m, struct emb_domain *d, uint64_t gfn)
{
    uint64_t *entry = &d->p2m.top[gfn / FS_SP_PAGES];
    if (*entry && !(*entry & 1)) {
        return 0;
    }
    uint32_t *leaf = emb_alloc(m, FS_SP_PAGES * sizeof(uint32_t));
    if (!leaf) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; (*entry & 1) && i < FS_SP_PAGES; i++) {
        leaf[i] = (uint32_t)((*entry >> 1) + i + 1);
    }
    *entry = (uint64_t)((char *)leaf - (char *)m);
    return 0;
}

int emb_p2m_set(struct emb_machine *m, struct emb_domain *d, uint64_t gfn, uint64_t mfn, uint32_t order)
{
    uint64_t i = gfn / FS_SP_PAGES;
    if (i >= d->p2m.top_entries) {
        return -EINVAL;
    }
    if (order == FS_SP_ORDER) {
        uint64_t old = d->p2m.top[i];
        if (old && !(old & 1)) {
            emb_free(m, leaf_at(m, old), FS_SP_PAGES * sizeof(uint32_t));
        }
        d->p2m.top[i] = SUPER(mfn);
    } else {
        int rc = emb_p2m_split(m, d, gfn);
        if (rc) {
            return rc;
        }
        for (uint64_t k = 0; k < (1ull << order); k++) {
            leaf_at(m, d->p2m.top[i])[gfn % FS_SP_PAGES + k] = (uint32_t)(mfn + k + 1);
        }
    }
    uint64_t end = gfn + (1ull << order);
    d->p2m.limit = d->p2m.limit > end ? d->p2m.limit : end;
    return 0;
}

int emb_p2m_clear(struct emb_machine *m, struct emb_domain *d, uint64_t gfn)
{
    if (emb_p2m_get(m, d, gfn) == FS_FRAME_NONE) {
        return -ENOENT;
    }
    int rc = emb_p2m_split(m, d, gfn);
    if (rc == 0) {
        leaf_at(m, d->p2m.top[gfn / FS_SP_PAGES])[gfn % FS_SP_PAGES] = 0;
    }
    return rc;
}

void emb_dirty_mark(struct emb_machine *m, struct emb_domain *d, uint64_t gfn)
{
    (void)m;
    if (d->dirty && gfn / 64 < d->dirty_words) {
        d->dirty[gfn / 64] |= 1ull << (gfn % 64);
    }
}
