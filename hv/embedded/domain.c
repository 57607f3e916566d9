/*
 * domain.c - domains: creation of the empty shell, holds, death.
 *
 * Owns: m->domains[], d->held[], the shared_info frame.
 * Invariants:
 *  I1 a dying domain gets no frame; its slot is reused when its last frame is freed;
 *  I2 every held record has its references: one general; one writable type reference
 *     where the holder writes, but for what dom0 maps of a HAP domain.
 * Lock order: the machine's lock is held, but for emb_domain_create/destroy, which take it.
 * Why holds: they are what makes a frame immovable on real Xen: map_vcpu_info, the FIFO
 * event channel's control block and array pages, pirq_eoi_map, and the rings and grants
 * that dom0 maps.
 * Cost: death is linear in the domain's frames.
 */
#include "emb_priv.h"

#include "emb_core.h"
#include "emb_guest.h"

struct emb_domain *emb_domain_find(struct emb_machine *m, uint16_t domid)
{
    for (uint32_t i = 0; i < EMB_DOMAINS_MAX; i++) {
        if (m->domains[i].used && m->domains[i].domid == domid) {
            return &m->domains[i];
        }
    }
    return NULL;
}

bool emb_domain_runs(const struct emb_domain *d)
{
    return d->used && !d->dying && !d->shutdown && d->pause_count == 0;
}

uint64_t emb_share_page(struct emb_machine *m, struct emb_domain *d)
{
    for (uint32_t k = 0; k < m->config.node_count; k++) {
        uint32_t node = (d->config.node + k) % m->config.node_count;
        uint64_t mfn = emb_heap_alloc(m, node, 0);
        if (mfn == FS_FRAME_NONE) {
            continue;
        }
        struct emb_frame *f = emb_frame_at(m, mfn);
        f->owner = (uint16_t)(emb_slot(m, d) + 1);
        f->flags |= EMB_F_ALLOCATED | EMB_F_XEN_HEAP | EMB_F_VALIDATED;
        f->count = 1;
        f->type = EMB_T_WRITABLE;       /* and so it never becomes a table */
        f->type_count = 1;
        d->xenheap_pages++;
        if (m->contents) {
            memset(emb_bytes(m, mfn), 0, FS_PAGE_BYTES);
        }
        return mfn;
    }
    return FS_FRAME_NONE;
}

/* Nobody has a reference any more. */
static void unshare_page(struct emb_machine *m, uint64_t mfn)
{
    emb_frame_at(m, mfn)->type_count--;
    emb_heap_free(m, mfn);
}

/* The domain's own reference; false: it was dropped before, by the guest. */
static bool drop_shared(struct emb_machine *m, uint64_t mfn)
{
    struct emb_frame *f = emb_frame_at(m, mfn);
    if (!(f->flags & EMB_F_ALLOCATED)) {
        return false;
    }
    f->flags &= (uint8_t)~EMB_F_ALLOCATED;
    emb_put_page(m, mfn);
    return true;
}

struct emb_domain *emb_domain_new(struct emb_machine *m, const struct emb_domain_config *c, int *rc)
{
    *rc = -ENOMEM;
    struct emb_domain *d = NULL;
    for (uint32_t i = 0; i < EMB_DOMAINS_MAX && !d; i++) {
        d = m->domains[i].used ? NULL : &m->domains[i];
    }
    if (!d) {
        return NULL;
    }
    *d = (struct emb_domain){ .used = true, .kind = c->kind, .max_pages = c->pages, .vcpu_count = c->vcpus, .config = *c };
    d->domid = c->kind == HV_DOMAIN_CONTROL ? 0 : m->next_domid++;
    memcpy(d->name, c->name, sizeof(d->name));
    d->name[sizeof(d->name) - 1] = '\0';
    for (size_t i = 0; i < sizeof(d->uuid); i += 8) {
        uint64_t r = emb_random(&m->rng);
        memcpy(d->uuid + i, &r, 8);
    }
    uint64_t shared_info = emb_share_page(m, d);
    if (shared_info == FS_FRAME_NONE) {
        d->used = false;
        return NULL;
    }
    d->shared_info = shared_info;
    *rc = 0;
    return d;
}

int emb_hold(struct emb_machine *m, struct emb_domain *d, const struct emb_held *h)
{
    if (d->held_count == EMB_HELD_MAX) {
        return -ENOSPC;
    }
    struct emb_held held = *h;
    if (d->kind == HV_DOMAIN_HAP) {
        /* What dom0 maps of a translated domain takes no type reference; what Xen itself keeps mapped does. */
        held.writable = h->kind == EMB_HELD_VCPU_INFO || h->kind == EMB_HELD_EVT_CONTROL || h->kind == EMB_HELD_EVT_ARRAY;
    }
    int rc = held.writable ? emb_get_page_and_type(m, h->mfn, d, EMB_T_WRITABLE) : emb_get_page(m, h->mfn, d);
    if (rc == 0) {
        d->held[d->held_count++] = held;
    }
    return rc;
}

static void drop_holds(struct emb_machine *m, struct emb_domain *d)
{
    for (uint32_t i = 0; i < d->held_count; i++) {
        if (d->held[i].writable) {
            emb_put_page_and_type(m, d->held[i].mfn);
        } else {
            emb_put_page(m, d->held[i].mfn);
        }
    }
    d->held_count = 0;
}

void emb_domain_last_page(struct emb_machine *m, struct emb_domain *d)
{
    emb_p2m_destroy(m, d);
    emb_guest_free(m, d);
    if (d->shared_info) {
        unshare_page(m, d->shared_info);
        d->shared_info = 0;
    }
    while (d->core && d->core->gnttab.frames > 0) {
        unshare_page(m, d->core->gnttab.shared[--d->core->gnttab.frames]);
    }
    if (d->core && emb_core_has_threads(d)) {
        d->core->orphan = true;         /* its vCPU threads leave first */
        emb_vcpus_kick(d);
        emb_vcpus_wake(d);
        return;
    }
    emb_core_free(m, d);
    d->used = false;
}

/* A table may be kept only by a reference from above, which goes with that one's pin.  Dropping entries can free zombies anywhere in
 * the list, so the frame that we stand on is kept by a reference of ours. */
static void drop_pins(struct emb_machine *m, struct emb_domain *d)
{
    uint64_t at = d->list_head;
    if (at) {
        m->frames[at - 1].count++;
    }
    while (at) {
        uint64_t mfn = at - 1;
        if (m->frames[mfn].flags & EMB_F_PINNED) {
            m->frames[mfn].flags &= (uint8_t)~EMB_F_PINNED;
            emb_put_page_and_type(m, mfn);
        }
        at = m->frames[mfn].next;
        if (at) {
            m->frames[at - 1].count++;
        }
        emb_put_page(m, mfn);
    }
}

void emb_domain_kill(struct emb_machine *m, struct emb_domain *d)
{
    if (d->dying) {
        return;
    }
    __atomic_store_n(&d->dying, true, __ATOMIC_SEQ_CST);
    emb_vcpus_wake(d);
    emb_gnttab_release(m, d);
    drop_holds(m, d);
    for (uint32_t i = 0; i < d->vcpu_count; i++) {
        emb_destroy_ldt(m, &d->vcpus[i]);
        emb_vcpu_reset(m, d, i);
    }
    drop_pins(m, d);
    for (uint64_t at = d->list_head; at;) {
        uint64_t mfn = at - 1;
        at = m->frames[mfn].next;       /* no table is left: freeing a frame frees no other */
        m->frames[mfn].count++;
        emb_put_alloc_ref(m, mfn);
        emb_put_page(m, mfn);
    }
    /* Any of these may be the last page, with which the domain goes. */
    for (uint32_t i = 0; d->used && d->core && i < d->core->gnttab.frames; i++) {
        (void)drop_shared(m, d->core->gnttab.shared[i]);
    }
    if (!d->used || !d->shared_info) {
        return;
    }
    /* The last one, unless somebody maps a frame still; else a guest that had given back everything, even this. */
    if (!drop_shared(m, d->shared_info) && d->tot_pages == 0 && d->xenheap_pages == 0) {
        emb_domain_last_page(m, d);
    }
}

int emb_domain_destroy(struct emb_machine *m, uint16_t domid)
{
    emb_lock(m);
    struct emb_domain *d = emb_domain_find(m, domid);
    if (d) {
        emb_domain_kill(m, d);
    }
    emb_unlock(m);
    return d ? 0 : -ESRCH;
}

uint64_t emb_domain_max_pages(struct emb_machine *m, uint16_t domid)
{
    emb_lock(m);
    struct emb_domain *d = emb_domain_find(m, domid);
    uint64_t pages = d ? d->max_pages : 0;
    emb_unlock(m);
    return pages;
}

uint32_t emb_domain_pause_count(struct emb_machine *m, uint16_t domid)
{
    emb_lock(m);
    struct emb_domain *d = emb_domain_find(m, domid);
    uint32_t count = d ? d->pause_count : 0;
    emb_unlock(m);
    return count;
}
