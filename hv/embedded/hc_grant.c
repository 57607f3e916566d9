/*
 * hc_grant.c - grant_table_op of a core domain, version 1 (public/grant_table.h).
 *
 * Owns: the handles (core->gnttab.maptrack) of the caller.
 * Invariants:
 *  I1 a host mapping's reference is held by the L1 entry that bears EMB_PTE_GNTTAB, a device mapping's by the handle;
 *  I2 an unmap flushes every vCPU of the mapper before it lets the frame go;
 *  I3 an entry that the mapper removed by other means took its reference along: the handle cannot be unmapped
 *     any more, the grant stays in use until the mapper dies.
 * Rules: each element of a list has a status of its own, GNTST_*; the call fails only for bad pointers (EFAULT) and counts
 * (EINVAL).  Any domain may map what is granted to it, its own grants too (by its domid: DOMID_SELF is
 * no domain here).  A frame is named by the entry at the first use.  setup_table and query_size are for the caller's own table.  Copies may
 * name frames of DOMID_SELF only; a copy stays within a page on both sides.
 * Version 2, transfer, swap, unmap_and_replace: ENOSYS (Xen started with gnttab=max-ver:1 has no version 2 either).
 * Lock order: the machine's lock is held.
 * Source: common/grant_table.c map_grant_ref(), unmap_common(), gnttab_copy_one(); arch/x86/pv/grant_table.c.
 * Cost: O(1) an element, and a look for a free handle.
 */
#include "emb_core.h"

#include <xen/xen.h>
#include <xen/sched.h>
#include <xen/grant_table.h>

static struct emb_gnttab *own(const struct emb_hcall *h)
{
    return &h->d->core->gnttab;
}

/* ---- the entry of a host mapping ----------------------------------------- */

static uint64_t entry_of(uint32_t flags, uint64_t mfn)
{
    uint64_t pte = mfn << FS_PAGE_SHIFT | EMB_PTE_P | EMB_PTE_A | EMB_PTE_D | EMB_PTE_NX | (uint64_t)(flags >> _GNTMAP_guest_avail0 & 7) << 9;
    pte |= flags & GNTMAP_readonly ? 0 : EMB_PTE_RW;
    pte |= flags & GNTMAP_application_map ? EMB_PTE_USER : 0;
    return emb_entry_adjust(EMB_T_L1, pte) | EMB_PTE_GNTTAB;
}

/* The slot that host_addr means: a live L1 entry of the caller. */
static uint64_t *slot_of(struct emb_hcall *h, uint64_t addr, uint32_t flags, uint64_t *table, uint32_t *index)
{
    bool machine = flags & GNTMAP_contains_pte;
    *table = machine ? addr >> FS_PAGE_SHIFT : emb_l1_of(h->m, h->d->vcpus[h->vcpu].cr3, addr);
    *index = (uint32_t)(machine ? addr / 8 : addr >> FS_PAGE_SHIFT) & 511;
    if ((machine && addr % 8) || *table == 0 || emb_get_page(h->m, *table, h->d) != 0) {
        return NULL;
    }
    const struct emb_frame *f = emb_frame_at(h->m, *table);
    bool live = f->type == EMB_T_L1 && f->type_count > 0 && (f->flags & EMB_F_VALIDATED);
    emb_put_page(h->m, *table);
    return live ? &emb_table(h->m, *table)[*index] : NULL;
}

static int16_t enter(struct emb_hcall *h, const struct gnttab_map_grant_ref *op, uint64_t mfn)
{
    uint64_t table;
    uint32_t index;
    uint64_t *slot = slot_of(h, op->host_addr, op->flags, &table, &index);
    if (!slot) {
        return GNTST_general_error;
    }
    uint64_t old = *slot;
    *slot = entry_of(op->flags, mfn);
    emb_entry_put(h->m, EMB_T_L1, old);
    emb_direct_touch(h->m, h->d, table, index);
    return GNTST_okay;
}

static int16_t leave(struct emb_hcall *h, uint64_t addr, uint32_t flags, uint64_t mfn)
{
    uint64_t table;
    uint32_t index;
    uint64_t *slot = slot_of(h, addr, flags, &table, &index);
    if (!slot || emb_pte_mfn(*slot) != mfn || ((*slot ^ entry_of(flags, mfn)) & (EMB_PTE_P | EMB_PTE_RW))) {
        return GNTST_general_error;
    }
    *slot = 0;
    emb_direct_touch(h->m, h->d, table, index);
    return GNTST_okay;
}

/* ---- map ----------------------------------------------------------------- */

static int get_frame(struct emb_hcall *h, const struct emb_domain *granter, uint64_t mfn, bool write)
{
    return write ? emb_get_page_and_type(h->m, mfn, granter, EMB_T_WRITABLE) : emb_get_page(h->m, mfn, granter);
}

static void put_frame(struct emb_hcall *h, uint64_t mfn, bool write)
{
    if (write) {
        emb_put_page_and_type(h->m, mfn);
    } else {
        emb_put_page(h->m, mfn);
    }
}

/* References of a mapping whose use is counted already, and its entry. */
static int16_t take(struct emb_hcall *h, const struct gnttab_map_grant_ref *op, const struct emb_domain *granter, uint64_t mfn)
{
    bool write = !(op->flags & GNTMAP_readonly), device = op->flags & GNTMAP_device_map, host = op->flags & GNTMAP_host_map;
    if (device && get_frame(h, granter, mfn, write) != 0) {
        return GNTST_general_error;
    }
    int16_t rc = GNTST_okay;
    if (host) {
        rc = get_frame(h, granter, mfn, write) == 0 ? GNTST_okay : GNTST_general_error;
        if (rc == GNTST_okay && (rc = enter(h, op, mfn)) != GNTST_okay) {
            put_frame(h, mfn, write);
        }
    }
    if (rc != GNTST_okay && device) {
        put_frame(h, mfn, write);
    }
    return rc;
}

static uint32_t free_handle(const struct emb_gnttab *t)
{
    uint32_t i = 0;
    while (i < EMB_MAPTRACK_MAX && t->maptrack[i].flags) {
        i++;
    }
    return i;
}

static int16_t map_one(struct emb_hcall *h, struct gnttab_map_grant_ref *op)
{
    uint32_t kinds = emb_gnt_kinds(op->flags);
    if (kinds == 0) {
        return GNTST_bad_gntref;
    }
    struct emb_domain *granter = emb_domain_find(h->m, op->dom);
    if (!granter) {
        return GNTST_bad_domain;
    }
    uint32_t handle = free_handle(own(h));
    if (handle == EMB_MAPTRACK_MAX) {
        return GNTST_no_space;
    }
    int16_t rc = emb_gnt_pin(h->m, granter, op->ref, h->d->domid, kinds, true);
    if (rc != GNTST_okay) {
        return rc;
    }
    uint64_t mfn = granter->core->gnttab.active[op->ref].mfn;
    rc = take(h, op, granter, mfn);
    if (rc != GNTST_okay) {
        emb_gnt_unpin(h->m, granter, op->ref, kinds);
        return rc;
    }
    own(h)->maptrack[handle] = (struct emb_maptrack){ .domid = op->dom, .ref = op->ref, .flags = op->flags };
    own(h)->maps = true;
    op->dev_bus_addr = mfn << FS_PAGE_SHIFT;
    op->handle = handle;
    return GNTST_okay;
}

static long map(struct emb_hcall *h, uint64_t at, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++, at += sizeof(struct gnttab_map_grant_ref)) {
        struct gnttab_map_grant_ref op;
        if (emb_from_guest(&op, at, sizeof(op)) != 0) {
            return -EFAULT;
        }
        op.status = map_one(h, &op);
        if (emb_to_guest(at, &op, sizeof(op)) != 0) {
            return -EFAULT;
        }
    }
    return 0;
}

/* ---- unmap --------------------------------------------------------------- */

static int16_t unmap_one(struct emb_hcall *h, const struct gnttab_unmap_grant_ref *op)
{
    struct emb_maptrack *t = op->handle < EMB_MAPTRACK_MAX ? &own(h)->maptrack[op->handle] : NULL;
    if (!t || !t->flags) {
        return GNTST_bad_handle;
    }
    struct emb_domain *granter = emb_domain_find(h->m, t->domid);
    if (!granter) {
        emb_shutdown(h, SHUTDOWN_crash);        /* I3, and the granter is gone: Xen calls domain_crash() */
        return GNTST_general_error;
    }
    uint64_t mfn = granter->core->gnttab.active[t->ref].mfn;
    uint32_t flags = t->flags, done = 0, ref = t->ref;
    bool write = !(flags & GNTMAP_readonly);
    if (op->dev_bus_addr && (flags & GNTMAP_device_map) && op->dev_bus_addr != mfn << FS_PAGE_SHIFT) {
        return GNTST_bad_dev_addr;
    }
    if (op->host_addr && (flags & GNTMAP_host_map)) {
        int16_t rc = leave(h, op->host_addr, flags, mfn);
        if (rc != GNTST_okay) {
            return rc;
        }
        done |= GNTMAP_host_map;
    }
    if (op->dev_bus_addr && (flags & GNTMAP_device_map)) {
        done |= GNTMAP_device_map;
    }
    t->flags &= ~done;
    if (!(t->flags & (GNTMAP_host_map | GNTMAP_device_map))) {
        t->flags = 0;
    }
    if (done == 0) {
        return GNTST_okay;
    }
    emb_tlb_flush(h->d, UINT64_MAX);    /* I2 */
    emb_gnt_unpin(h->m, granter, ref, emb_gnt_kinds(done | (flags & GNTMAP_readonly)));
    for (uint32_t bit = GNTMAP_device_map; bit <= GNTMAP_host_map; bit <<= 1) {
        if (done & bit) {
            put_frame(h, mfn, write);   /* the last one of a dying granter: it is gone then */
        }
    }
    return GNTST_okay;
}

static long unmap(struct emb_hcall *h, uint64_t at, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++, at += sizeof(struct gnttab_unmap_grant_ref)) {
        struct gnttab_unmap_grant_ref op;
        if (emb_from_guest(&op, at, sizeof(op)) != 0) {
            return -EFAULT;
        }
        op.status = unmap_one(h, &op);
        if (emb_to_guest(at + offsetof(struct gnttab_unmap_grant_ref, status), &op.status, sizeof(op.status)) != 0) {
            return -EFAULT;
        }
    }
    return 0;
}

/* ---- copy ---------------------------------------------------------------- */

struct side {
    struct emb_domain *d;
    uint64_t mfn;
    uint32_t ref;
    bool gref, write, pinned, page, typed;
};

static int16_t find_side(struct emb_hcall *h, const struct gnttab_copy *op, bool dest, struct side *s)
{
    const struct gnttab_copy_ptr *p = dest ? &op->dest : &op->source;
    *s = (struct side){ .gref = op->flags & (dest ? GNTCOPY_dest_gref : GNTCOPY_source_gref), .write = dest };
    if (p->domid != DOMID_SELF && !s->gref) {
        return GNTST_permission_denied;
    }
    s->d = p->domid == DOMID_SELF ? h->d : emb_domain_find(h->m, p->domid);
    s->ref = p->u.ref;
    s->mfn = p->u.gmfn;
    return s->d ? GNTST_okay : GNTST_bad_domain;
}

static int16_t claim(struct emb_hcall *h, struct side *s)
{
    if (s->gref) {
        int16_t rc = emb_gnt_pin(h->m, s->d, s->ref, h->d->domid, 1u << (s->write ? EMB_PIN_HSTW : EMB_PIN_HSTR), false);
        if (rc != GNTST_okay) {
            return rc;
        }
        s->pinned = true;
        s->mfn = s->d->core->gnttab.active[s->ref].mfn;
    }
    s->page = emb_get_page(h->m, s->mfn, s->d) == 0;
    if (!s->page) {
        return GNTST_bad_page;
    }
    s->typed = s->write && emb_get_type(h->m, s->mfn, EMB_T_WRITABLE) == 0;
    return s->typed || !s->write ? GNTST_okay : GNTST_general_error;
}

static void release(struct emb_hcall *h, const struct side *s)
{
    if (s->pinned) {
        emb_gnt_unpin(h->m, s->d, s->ref, 1u << (s->write ? EMB_PIN_HSTW : EMB_PIN_HSTR));
    }
    if (s->typed) {
        emb_put_type(h->m, s->mfn);
    }
    if (s->page) {
        emb_put_page(h->m, s->mfn);
    }
}

static int16_t copy_one(struct emb_hcall *h, const struct gnttab_copy *op)
{
    struct side from, to;
    if (op->len == 0) {
        return GNTST_okay;
    }
    int16_t rc = find_side(h, op, false, &from);
    rc = rc == GNTST_okay ? find_side(h, op, true, &to) : rc;
    if (rc != GNTST_okay) {
        return rc;
    }
    rc = claim(h, &from);
    rc = rc == GNTST_okay ? claim(h, &to) : rc;
    if (rc == GNTST_okay && (op->source.offset + op->len > (int)FS_PAGE_BYTES || op->dest.offset + op->len > (int)FS_PAGE_BYTES)) {
        rc = GNTST_bad_copy_arg;
    }
    if (rc == GNTST_okay) {
        memmove(emb_bytes(h->m, to.mfn) + op->dest.offset, emb_bytes(h->m, from.mfn) + op->source.offset, op->len);
    }
    release(h, &to);
    release(h, &from);
    return rc;
}

static long copy(struct emb_hcall *h, uint64_t at, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++, at += sizeof(struct gnttab_copy)) {
        struct gnttab_copy op;
        if (emb_from_guest(&op, at, sizeof(op)) != 0) {
            return -EFAULT;
        }
        op.status = copy_one(h, &op);
        if (emb_to_guest(at + offsetof(struct gnttab_copy, status), &op.status, sizeof(op.status)) != 0) {
            return -EFAULT;
        }
    }
    return 0;
}

/* ---- the table itself ---------------------------------------------------- */

static int16_t own_table(const struct emb_hcall *h, uint16_t domid)
{
    int rc = emb_self_only(h, domid);
    return rc == 0 ? GNTST_okay : rc == -ESRCH ? GNTST_bad_domain : GNTST_permission_denied;
}

static long setup_table(struct emb_hcall *h, uint64_t at, uint32_t count)
{
    struct gnttab_setup_table op;
    if (count != 1) {
        return -EINVAL;
    }
    if (emb_from_guest(&op, at, sizeof(op)) != 0) {
        return -EFAULT;
    }
    op.status = own_table(h, op.dom);
    if (op.status == GNTST_okay && (op.nr_frames > EMB_GNT_FRAMES_MAX || emb_gnttab_grow(h->m, h->d, op.nr_frames > 0 ? op.nr_frames : 1) != 0)) {
        op.status = GNTST_general_error;
    }
    if (op.status == GNTST_okay && emb_to_guest((uint64_t)(uintptr_t)op.frame_list.p, own(h)->shared, op.nr_frames * sizeof(uint64_t)) != 0) {
        op.status = GNTST_bad_virt_addr;
    }
    return emb_to_guest(at + offsetof(struct gnttab_setup_table, status), &op.status, sizeof(op.status));
}

static long query_size(struct emb_hcall *h, uint64_t at, uint32_t count)
{
    struct gnttab_query_size op;
    if (count != 1) {
        return -EINVAL;
    }
    if (emb_from_guest(&op, at, sizeof(op)) != 0) {
        return -EFAULT;
    }
    op.status = own_table(h, op.dom);
    if (op.status == GNTST_okay) {
        op.nr_frames = own(h)->frames > 0 ? own(h)->frames : 1;
        op.max_nr_frames = EMB_GNT_FRAMES_MAX;
    }
    return emb_to_guest(at, &op, sizeof(op));
}

static long set_version(uint64_t at)
{
    struct gnttab_set_version op;
    if (emb_from_guest(&op, at, sizeof(op)) != 0) {
        return -EFAULT;
    }
    int rc = op.version == 1 ? 0 : op.version == 2 ? -ENOSYS : -EINVAL;
    op.version = 1;
    return emb_to_guest(at, &op, sizeof(op)) != 0 ? -EFAULT : rc;
}

static long get_version(struct emb_hcall *h, uint64_t at)
{
    struct gnttab_get_version op;
    if (emb_from_guest(&op, at, sizeof(op)) != 0) {
        return -EFAULT;
    }
    int rc = emb_self_only(h, op.dom);
    op.version = 1;
    return rc ? rc : emb_to_guest(at, &op, sizeof(op));
}

long emb_hc_grant(struct emb_hcall *h)
{
    uint32_t cmd = (uint32_t)h->a[0], count = (uint32_t)h->a[2];
    if ((int32_t)count < 0 || cmd >> 12) {      /* above is what Xen's own continuations say */
        return -EINVAL;
    }
    switch (cmd) {
    case GNTTABOP_map_grant_ref: return map(h, h->a[1], count);
    case GNTTABOP_unmap_grant_ref: return unmap(h, h->a[1], count);
    case GNTTABOP_copy: return copy(h, h->a[1], count);
    case GNTTABOP_setup_table: return setup_table(h, h->a[1], count);
    case GNTTABOP_query_size: return query_size(h, h->a[1], count);
    case GNTTABOP_set_version: return set_version(h->a[1]);
    case GNTTABOP_get_version: return get_version(h, h->a[1]);
    default: return -ENOSYS;
    }
}
