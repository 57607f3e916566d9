/*
 * memory.c - reservations: XENMEM_increase, decrease, populate, add_to_physmap, exchange.
 *
 * Owns: nothing; moves frames between the heap, domains and the HAP p2m.
 * Lock order: the machine's lock is held.
 * Rules (public/memory.h; common/memory.c, arch/x86/mm/p2m.c):
 *  - a reservation beyond max_pages fails and gives its frame back; so it does in a dying domain;
 *  - with an exact node nothing comes from another one;
 *  - decrease drops the domain's own reference: a frame that somebody else holds leaves
 *    the p2m (HAP) but lives on as a zombie, and a second decrease of it "succeeds";
 *  - populating a gfn that leads to a frame orphans that frame (owned, no gfn), as Xen does;
 *  - add_to_physmap(gmfn) moves the frame behind one gfn to another; the frame that was
 *    there is given back; EXDEV where the M2P does not agree, EINVAL for a hole;
 *  - an exchange steals its inputs one by one and gives them back when it cannot get the
 *    output: ENOMEM says that every one was exclusively owned, EINVAL that one was not.
 *    What was stolen has lost type and offline mark, and goes to the end of the page list.
 * Cost: O(1) a frame.
 */
#include "emb_priv.h"

int emb_increase(struct emb_machine *m, struct emb_domain *d, uint32_t node, uint32_t order, uint64_t *mfn)
{
    if (node >= m->config.node_count) {
        return -EINVAL;
    }
    *mfn = emb_heap_alloc(m, node, order);
    if (*mfn == FS_FRAME_NONE) {
        return -ENOMEM;
    }
    int rc = emb_assign(m, d, *mfn, order);
    if (rc) {
        for (uint64_t i = 0; i < (1ull << order); i++) {
            emb_heap_free(m, *mfn + i);
        }
    }
    return rc;
}

static void give_back(struct emb_machine *m, uint64_t mfn)
{
    emb_put_alloc_ref(m, mfn);
    emb_put_page(m, mfn);               /* the caller's */
}

/* Are the frames [mfn, mfn + pages) of d in use by nobody but it, as no table? *chain: they follow each other in its list, too. One pass of
 * word comparisons: a frame is four words, m2p1 | counts | links | the rest. */
static bool all_plain(const struct emb_machine *m, const struct emb_domain *d, uint64_t mfn, uint64_t pages, bool *chain)
{
    const struct emb_frame plain = { .count = 1, .owner = (uint16_t)(emb_slot(m, d) + 1), .state = EMB_S_INUSE, .flags = EMB_F_ALLOCATED };
    const struct emb_frame looked_at = { .owner = UINT16_MAX, .state = UINT8_MAX, .flags = (uint8_t)~EMB_F_VALIDATED };
    const struct emb_frame one = { .next = 1, .prev = 1 }, first = { .next = (uint32_t)mfn + 2, .prev = (uint32_t)mfn };
    uint64_t want[4], mask[4], step[4], link[4], other = 0, unlinked = 0;
    memcpy(want, &plain, sizeof(want));
    memcpy(mask, &looked_at, sizeof(mask));
    memcpy(step, &one, sizeof(step));
    memcpy(link, &first, sizeof(link));
    for (uint64_t i = 0, expected = link[2]; i < pages; i++, expected += step[2]) {
        uint64_t word[4];
        memcpy(word, &m->frames[mfn + i], sizeof(word));
        other |= (word[1] ^ want[1]) | ((word[3] ^ want[3]) & mask[3]);
        unlinked |= i != 0 && i + 1 != pages ? word[2] ^ expected : 0;
    }
    *chain = unlinked == 0 && m->frames[mfn].next == mfn + 2 && m->frames[mfn + pages - 1].prev == mfn + pages - 1;
    return other == 0;
}

bool emb_decrease_extent(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint32_t order)
{
    uint64_t pages = 1ull << order;
    bool chain;
    if (d->kind == HV_DOMAIN_HAP || d->dying || order == 0 || (mfn & (pages - 1)) != 0 || !emb_is_ram(m, mfn) || !emb_is_ram(m, mfn + pages - 1) ||
        emb_node_of(m, mfn) != emb_node_of(m, mfn + pages - 1) || !all_plain(m, d, mfn, pages, &chain)) {
        return false;
    }
    emb_list_unlink_run(m, d, mfn, pages, chain);
    d->tot_pages -= pages;
    emb_heap_free_extent(m, mfn, order);
    return true;
}

int emb_decrease(struct emb_machine *m, struct emb_domain *d, uint64_t gmfn)
{
    uint64_t mfn = gmfn;
    if (d->kind == HV_DOMAIN_HAP) {
        mfn = emb_p2m_get(m, d, gmfn);
        if (mfn == FS_FRAME_NONE) {
            return -ENOENT;
        }
    }
    if (!emb_is_ram(m, mfn)) {
        return -EINVAL;
    }
    if (emb_get_page(m, mfn, d) != 0) {
        return -ENXIO;
    }
    if (d->kind == HV_DOMAIN_HAP) {
        int rc = emb_p2m_clear(m, d, gmfn);
        if (rc) {
            emb_put_page(m, mfn);
            return rc;
        }
        emb_m2p_set(emb_frame_at(m, mfn), 0);
    }
    give_back(m, mfn);
    return 0;
}

int emb_populate(struct emb_machine *m, struct emb_domain *d, uint32_t node, uint32_t order, uint64_t gfn)
{
    if (order > FS_SP_ORDER || (gfn & ((1ull << order) - 1)) != 0) {
        return -EINVAL;
    }
    uint64_t mfn;
    int rc = emb_increase(m, d, node, order, &mfn);
    if (rc) {
        return rc;
    }
    for (uint64_t i = 0; i < (1ull << order); i++) {
        uint64_t old = emb_p2m_get(m, d, gfn + i);
        if (old != FS_FRAME_NONE) {
            emb_m2p_set(emb_frame_at(m, old), 0);
        }
    }
    rc = emb_p2m_set(m, d, gfn, mfn, order);
    for (uint64_t i = 0; i < (1ull << order); i++) {
        if (rc == 0) {
            emb_m2p_set(emb_frame_at(m, mfn + i), gfn + i + 1);
            emb_dirty_mark(m, d, gfn + i);
        }
    }
    return rc;
}

int emb_add_to_physmap(struct emb_machine *m, struct emb_domain *d, uint64_t from, uint64_t to)
{
    uint64_t mfn = emb_p2m_get(m, d, from);
    if (mfn == FS_FRAME_NONE || emb_get_page(m, mfn, d) != 0) {
        return -EINVAL;
    }
    int rc = 0;
    uint64_t previous = emb_p2m_get(m, d, to);
    if (emb_frame_at(m, mfn)->m2p1 != from + 1) {
        rc = -EXDEV;
        goto out;
    }
    if (previous == mfn) {
        goto out;
    }
    if (previous != FS_FRAME_NONE && (rc = emb_decrease(m, d, to)) != 0) {
        goto out;
    }
    if ((rc = emb_p2m_clear(m, d, from)) == 0) {
        rc = emb_p2m_set(m, d, to, mfn, 0);
    }
    if (rc == 0) {
        emb_m2p_set(emb_frame_at(m, mfn), to + 1);
        emb_dirty_mark(m, d, to);
    }
out:
    emb_put_page(m, mfn);
    return rc;
}

static bool exclusive(const struct emb_machine *m, const struct emb_domain *d, uint64_t mfn)
{
    if (!emb_is_ram(m, mfn)) {
        return false;
    }
    const struct emb_frame *f = &m->frames[mfn];
    return f->owner == emb_slot(m, d) + 1 && f->count == 1 && (f->flags & EMB_F_ALLOCATED) && !(f->flags & EMB_F_XEN_HEAP);
}

/* Stolen and given back. */
static void through_exchange(struct emb_machine *m, struct emb_domain *d, uint64_t mfn)
{
    struct emb_frame *f = emb_frame_at(m, mfn);
    ASSERT_CMP(f->type_count, ==, 0);
    f->type = EMB_T_NONE;
    f->state = EMB_S_INUSE;
    f->flags = EMB_F_ALLOCATED;
    emb_list_unlink(m, d, mfn);
    emb_list_append(m, d, mfn);
}

int emb_exchange_probe(struct emb_machine *m, struct emb_domain *d, const uint64_t *mfns, size_t count)
{
    if (d->kind == HV_DOMAIN_HAP) {
        return -EOPNOTSUPP;
    }
    size_t stolen = 0;
    while (stolen < count && exclusive(m, d, mfns[stolen])) {
        stolen++;
    }
    for (size_t i = 0; i < stolen; i++) {
        through_exchange(m, d, mfns[i]);
    }
    return stolen == count ? -ENOMEM : -EINVAL;
}
