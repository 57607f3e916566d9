/*
 * refs.c - general and type references of a frame.
 *
 * Owns: of each frame in use: count, type_count, type, VALIDATED and ALLOCATED,
 * and the membership in its domain's page list.
 * Invariants (recomputed by emb_fsck()):
 *  I1 count = ALLOCATED + pins + references by validated entries, vCPU roots, GDTs,
 *     mapped LDT pages, held records, grants in use, handles of device mappings and foreign mappings;
 *  I2 type_count = those of them that need the type; while it is not 0 the type does
 *     not change (exclusive types), and a table is VALIDATED: all its entries hold references;
 *  I3 a frame whose count falls to 0 is freed that instant, whatever mark it bears:
 *     a marked one ends offlined;
 *     (Xen's own pages that a domain may reference stay Xen's until the domain ends);
 *  I4 a frame given back while others hold it (a "zombie") stays in its owner's page
 *     list and count of pages until the last reference goes.
 * Lock order: the machine's lock is held.
 * Why: these are Xen's rules for PV (arch/x86/mm.c: get_page, _get_page_type,
 * put_page; include/xen/mm.h: put_page_alloc_ref).  A writable foreign mapping takes a
 * type reference, and so cannot coexist with a page table; a type left behind
 * by a dropped reference stays visible but binds nobody.
 * Cost: O(1), but for the first type reference to a table, which validates 512 entries,
 * and recursively every table below that was not yet validated.
 */
#include "emb_core.h"

void emb_list_append(struct emb_machine *m, struct emb_domain *d, uint64_t mfn)
{
    struct emb_frame *f = emb_frame_at(m, mfn);
    f->next = 0;
    f->prev = (uint32_t)d->list_tail;
    if (d->list_tail) {
        m->frames[d->list_tail - 1].next = (uint32_t)mfn + 1;
    } else {
        d->list_head = mfn + 1;
    }
    d->list_tail = mfn + 1;
}

void emb_list_unlink(struct emb_machine *m, struct emb_domain *d, uint64_t mfn)
{
    struct emb_frame *f = emb_frame_at(m, mfn);
    if (f->prev) {
        m->frames[f->prev - 1].next = f->next;
    } else {
        ASSERT_CMP(d->list_head, ==, mfn + 1);
        d->list_head = f->next;
    }
    if (f->next) {
        m->frames[f->next - 1].prev = f->prev;
    } else {
        ASSERT_CMP(d->list_tail, ==, mfn + 1);
        d->list_tail = f->prev;
    }
    f->next = f->prev = 0;
}

void emb_list_unlink_run(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint64_t pages, bool chain)
{
    for (uint64_t i = 0; i < pages && !chain; i++) {
        emb_list_unlink(m, d, mfn + i);
    }
    if (!chain) {
        return;
    }
    struct emb_frame *first = emb_frame_at(m, mfn), *last = emb_frame_at(m, mfn + pages - 1);
    if (first->prev) {
        m->frames[first->prev - 1].next = last->next;
    } else {
        ASSERT_CMP(d->list_head, ==, mfn + 1);
        d->list_head = last->next;
    }
    if (last->next) {
        m->frames[last->next - 1].prev = first->prev;
    } else {
        ASSERT_CMP(d->list_tail, ==, mfn + pages);
        d->list_tail = first->prev;
    }
}

int emb_assign(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint32_t order)
{
    uint64_t pages = 1ull << order;
    if (d->dying) {
        return -EINVAL;
    }
    if (d->tot_pages > d->max_pages) {
        return -EPERM;
    }
    if (pages > d->max_pages - d->tot_pages) {
        return -E2BIG;
    }
    emb_assign_exchanged(m, d, mfn, order);
    return 0;
}

void emb_assign_exchanged(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint32_t order)
{
    uint64_t pages = 1ull << order;
    for (uint64_t i = 0; i < pages; i++) {
        struct emb_frame *f = emb_frame_at(m, mfn + i);
        f->owner = (uint16_t)(emb_slot(m, d) + 1);
        f->flags |= EMB_F_ALLOCATED;
        f->count = 1;
        emb_list_append(m, d, mfn + i);
    }
    d->tot_pages += pages;
}

/* ---- general references -------------------------------------------------- */

int emb_get_page(struct emb_machine *m, uint64_t mfn, const struct emb_domain *d)
{
    if (!emb_is_ram(m, mfn)) {
        return -EINVAL;
    }
    struct emb_frame *f = emb_frame_at(m, mfn);
    if (f->count == 0 || f->owner != emb_slot(m, d) + 1) {
        return -EINVAL;
    }
    f->count++;
    return 0;
}

void emb_put_page(struct emb_machine *m, uint64_t mfn)
{
    struct emb_frame *f = emb_frame_at(m, mfn);
    ASSERT_CMP(f->count, >, 0);
    if (--f->count > 0) {
        return;
    }
    struct emb_domain *d = emb_owner(m, f);
    ASSERT(d);
    ASSERT(f->type_count == 0 || (f->flags & EMB_F_XEN_HEAP));
    if (f->flags & EMB_F_XEN_HEAP) {
        d->xenheap_pages--;             /* Xen still uses it: it goes with the domain */
    } else {
        emb_list_unlink(m, d, mfn);
        d->tot_pages--;
        emb_heap_free(m, mfn);
    }
    if (d->dying && d->tot_pages == 0 && d->xenheap_pages == 0) {
        emb_domain_last_page(m, d);
    }
}

void emb_put_alloc_ref(struct emb_machine *m, uint64_t mfn)
{
    struct emb_frame *f = emb_frame_at(m, mfn);
    if (f->flags & EMB_F_ALLOCATED) {
        f->flags &= (uint8_t)~EMB_F_ALLOCATED;
        ASSERT_CMP(f->count, >, 1);
        emb_put_page(m, mfn);
    }
}

/* ---- type references ----------------------------------------------------- */

/* No TLB may write what becomes a table: its owner's, or that of a domain which had it by a grant and lost the entry without a flush. */
static void flush_writers(struct emb_machine *m, struct emb_domain *owner)
{
    emb_tlb_flush(owner, UINT64_MAX);
    for (uint32_t i = 0; i < EMB_DOMAINS_MAX; i++) {
        struct emb_domain *d = &m->domains[i];
        if (d != owner && d->used && d->core && d->core->gnttab.maps) {
            emb_tlb_flush(d, UINT64_MAX);
        }
    }
}

int emb_get_type(struct emb_machine *m, uint64_t mfn, enum emb_type type)
{
    struct emb_frame *f = emb_frame_at(m, mfn);
    if (f->type_count > 0) {
        /* A table being validated is not VALIDATED yet: an entry that leads back to it is a loop. */
        if (f->type != type || !(f->flags & EMB_F_VALIDATED)) {
            return -EINVAL;
        }
        f->type_count++;
        return 0;
    }
    if (f->type != type) {
        if (f->owner && f->type == EMB_T_WRITABLE) {
            flush_writers(m, emb_owner(m, f));
        }
        f->type = (uint8_t)type;
        f->flags &= (uint8_t)~EMB_F_VALIDATED;
    }
    f->type_count = 1;
    if (f->flags & EMB_F_VALIDATED) {
        return 0;
    }
    if (type != EMB_T_WRITABLE) {
        int rc = emb_table_promote(m, mfn, type);
        if (rc) {
            f->type_count = 0;
            return rc;
        }
    }
    f->flags |= EMB_F_VALIDATED;
    return 0;
}

void emb_put_type(struct emb_machine *m, uint64_t mfn)
{
    struct emb_frame *f = emb_frame_at(m, mfn);
    ASSERT_CMP(f->type_count, >, 0);
    if (f->type_count == 1 && f->type <= EMB_T_L4) {
        f->flags &= (uint8_t)~EMB_F_VALIDATED;
        emb_table_demote(m, mfn, f->type);
    }
    f->type_count--;
}

int emb_get_page_and_type(struct emb_machine *m, uint64_t mfn, const struct emb_domain *d, enum emb_type type)
{
    int rc = emb_get_page(m, mfn, d);
    if (rc) {
        return rc;
    }
    rc = emb_get_type(m, mfn, type);
    if (rc) {
        emb_put_page(m, mfn);
    }
    return rc;
}

void emb_put_page_and_type(struct emb_machine *m, uint64_t mfn)
{
    emb_put_type(m, mfn);
    emb_put_page(m, mfn);
}
