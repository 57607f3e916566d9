/*
 * grant.c - one PV guest maps a frame of another: what a driver domain does for a disk or a network card.
 *
 * Owns: g->foreign[] of the mapper, a grant record of the granter.
 * Invariants: I1 the entry that maps a foreign frame bears EMB_PTE_GNTTAB, which no guest may write itself
 * (Xen's own mark): it holds the references, and releasing its table drops them;
 * I2 such a table does not validate again: promotion refuses the entry, as Xen refuses a frame
 * of another owner outside the grant interface.
 * Lock order: takes the machine's lock.
 * Why it matters: dropping every reference of such a guest and pinning again cannot succeed.  A mover
 * must find these entries before it drops anything.
 * Source: public/grant_table.h GNTTABOP_map_grant_ref; Linux maps grants over ballooned pfns and
 * marks them with the foreign bit in its p2m.
 * Cost: O(1).
 */
#include "emb_guest.h"

static uint64_t hole_of(const struct emb_guest *g)
{
    for (uint64_t pfn = 0; pfn < g->pfns; pfn++) {
        bool used = g->role[pfn] != EMB_R_HOLE;
        for (uint32_t i = 0; i < g->foreign_count; i++) {
            used |= g->foreign[i].pfn == pfn;
        }
        if (!used) {
            return pfn;
        }
    }
    return FS_FRAME_NONE;
}

static uint64_t data_pfn_of(struct emb_guest *g)
{
    for (int tries = 0; tries < 4096; tries++) {
        uint64_t pfn = emb_random(&g->rng) % g->pfns;
        if (g->role[pfn] == EMB_R_DATA) {
            return pfn;
        }
    }
    return FS_FRAME_NONE;
}

static int map_into(struct emb_machine *m, struct emb_domain *to, uint64_t mfn, uint64_t *pfn)
{
    struct emb_guest *g = to->guest;
    uint64_t l1, pte, list, entry, root = to->vcpus[0].cr3, neighbour;
    *pfn = hole_of(g);
    if (*pfn == FS_FRAME_NONE || g->foreign_count == EMB_FOREIGN_MAX) {
        return -ENOSPC;
    }
    /* A hole has no entry; its table is found by a neighbour that has one. */
    neighbour = *pfn / 512 * 512;
    while (neighbour < *pfn / 512 * 512 + 512 && neighbour < g->pfns && g->role[neighbour] == EMB_R_HOLE) {
        neighbour++;
    }
    if (!emb_walk(m, root, EMB_VA_DIRECT + neighbour * FS_PAGE_BYTES, &pte, &l1) || !emb_guest_p2m(m, to, *pfn, &entry, &list)) {
        return -EFAULT;
    }
    uint64_t value = emb_entry_adjust(EMB_T_L1, mfn << FS_PAGE_SHIFT | EMB_PTE_P | EMB_PTE_RW | EMB_PTE_A | EMB_PTE_D | EMB_PTE_NX) | EMB_PTE_GNTTAB;
    emb_table(m, l1)[*pfn % 512] = value;
    emb_plan_table(g, emb_frame_at(m, l1)->m2p1 - 1)->e[*pfn % 512] = value;
    emb_table(m, list)[*pfn % 512] = mfn | EMB_P2M_FOREIGN;
    g->foreign[g->foreign_count++] = (struct emb_foreign){ *pfn, mfn };
    return 0;
}

int emb_grant_map(struct emb_machine *m, uint16_t granter, uint16_t mapper, uint64_t *pfn)
{
    int rc = -ESRCH;
    emb_lock(m);
    struct emb_domain *from = emb_domain_find(m, granter), *to = emb_domain_find(m, mapper);
    if (!from || !to || !from->guest || !to->guest || from == to || to->kind != HV_DOMAIN_PV || from->kind != HV_DOMAIN_PV) {
        goto out;
    }
    uint64_t granted = data_pfn_of(from->guest), mfn;
    rc = -ENOSPC;
    if (granted == FS_FRAME_NONE || from->grant_count == EMB_GRANTS_MAX) {
        goto out;
    }
    mfn = emb_guest_reach(m, from, granted, NULL);
    rc = mfn == FS_FRAME_NONE ? -EFAULT : emb_get_page_and_type(m, mfn, from, EMB_T_WRITABLE);
    if (rc) {
        goto out;
    }
    rc = map_into(m, to, mfn, pfn);
    if (rc) {
        emb_put_page_and_type(m, mfn);
        goto out;
    }
    uint32_t i = from->grant_count++;
    from->grants[i] = (struct emb_grant){ .gfn = mfn, .domid = mapper, .in_use = 1, .mapped = 1, .writable = 1 };
    from->guest->grant_pfn[i] = granted;
    from->guest->grant_count = from->grant_count;
    from->guest->grants[i] = from->grants[i];
out:
    emb_unlock(m);
    return rc;
}
