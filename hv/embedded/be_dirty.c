/*
 * be_dirty.c - the dirty log of HAP domains.
 *
 * Owns: d->dirty while a log runs.
 * Rules (public/domctl.h XEN_DOMCTL_shadow_op; Debian's Xen has no shadow paging): enabling
 * it for a PV domain is EOPNOTSUPP, twice EINVAL; reading while it is off EINVAL.
 * A fresh log has every bit clear; a tool copies everything first.
 * Lock order: the machine's lock during each call.
 * Cost: one bit a gfn of p2m space.
 */
#include "emb_backend.h"

fs_status_t emb_op_dirty_enable(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_dirty_enable, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    if (d->kind != HV_DOMAIN_HAP) {
        s = emb_refused(d, -EOPNOTSUPP, err, "dirty log");
    } else if (d->dirty) {
        s = emb_refused(d, -EINVAL, err, "dirty log: it runs already");
    } else {
        d->dirty_words = d->p2m.top_entries * (FS_SP_PAGES / 64);
        d->dirty = emb_alloc(c.m, d->dirty_words * sizeof(uint64_t));
        s = d->dirty ? FS_OK : fs_fail(err, FS_NO_MEMORY, "domain %u: dirty log", domid);
    }
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_dirty_read(struct hv_backend *be, uint16_t domid, uint64_t *bitmap, uint64_t limit, bool clean, uint64_t *dirty_pages, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    *dirty_pages = 0;
    fs_status_t s = emb_enter_domain(be, EMB_OP_dirty_read, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    uint64_t words = (limit + 63) / 64;
    memset(bitmap, 0, words * sizeof(bitmap[0]));
    if (!d->dirty) {
        s = emb_refused(d, -EINVAL, err, "reading the dirty log: it does not run");
    }
    for (uint64_t i = 0; s == FS_OK && i < words && i < d->dirty_words; i++) {
        uint64_t mask = (i + 1) * 64 <= limit ? UINT64_MAX : (1ull << limit % 64) - 1;
        bitmap[i] = d->dirty[i] & mask;
        *dirty_pages += (uint64_t)__builtin_popcountll(bitmap[i]);
        if (clean) {
            d->dirty[i] &= ~mask;
        }
    }
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_dirty_disable(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_dirty_disable, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    if (!d->dirty) {
        s = emb_refused(d, -EINVAL, err, "stopping the dirty log: it does not run");
    } else {
        emb_free(c.m, d->dirty, d->dirty_words * sizeof(uint64_t));
        d->dirty = NULL;
    }
    emb_leave(&c);
    return s;
}
