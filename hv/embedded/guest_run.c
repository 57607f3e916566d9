/*
 * guest_run.c - a synthetic guest runs: writes, page-table changes, ballooning.
 *
 * Owns: generations in the truth; changes memory only as the guest could.
 * Invariants:
 *  I1 a paused, suspended or dying domain does nothing;
 *  I2 a write goes where the guest's own tables lead, and only through a writable entry:
 *     after a bad move it lands in a wrong frame, which the check finds;
 *  I3 page-table changes and ballooning go through the hypercalls and must succeed there.
 * Lock order: takes the machine's lock.
 * Why: a mover that reads memory once and never again is right only while nothing
 * runs; these are what happens between its calls.
 * Cost: one pattern a write.
 */
#include "emb_guest.h"

static struct emb_domain *running_guest(struct emb_machine *m, uint16_t domid)
{
    struct emb_domain *d = emb_domain_find(m, domid);
    if (!d || !d->guest || !emb_domain_runs(d) || !m->contents) {
        return NULL;
    }
    emb_guest_wakes(m, d);
    return d->guest->dead ? NULL : d;
}

static void write_page(struct emb_machine *m, struct emb_domain *d, uint64_t pfn)
{
    struct emb_guest *g = d->guest;
    bool writable = false;
    uint64_t mfn = emb_guest_reach(m, d, pfn, &writable);
    if (mfn == FS_FRAME_NONE || !writable) {
        g->dead = true;                 /* a fault in its direct map */
        return;
    }
    if (d->dirty && emb_p2m_is_super(d, pfn) && emb_p2m_split(m, d, pfn) != 0) {
        g->dead = true;
        return;
    }
    g->gen[pfn]++;
    emb_pattern(g, pfn, g->gen[pfn], emb_table(m, mfn));
    emb_dirty_mark(m, d, pfn);
}

/* Swap two present entries of one random user L1 table, as a process that remaps would. */
static void swap_entries(struct emb_machine *m, struct emb_domain *d)
{
    struct emb_guest *g = d->guest;
    struct emb_ptable *t = g->tables[emb_random(&g->rng) % g->table_count];
    uint32_t a = (uint32_t)(emb_random(&g->rng) % 512), b = (uint32_t)(emb_random(&g->rng) % 512);
    uint64_t user = EMB_PTE_P | EMB_PTE_USER;
    if (t->level != 1 || (t->e[a] & user) != user || (t->e[b] & user) != user) {
        return;
    }
    uint64_t table = emb_guest_reach(m, d, t->pfn, NULL);
    uint64_t ea = 0, eb = 0;
    if (table == FS_FRAME_NONE || !emb_guest_p2m(m, d, emb_pte_mfn(t->e[a]), &ea, NULL) ||
        !emb_guest_p2m(m, d, emb_pte_mfn(t->e[b]), &eb, NULL)) {
        g->dead = true;
        return;
    }
    uint64_t new_a = (t->e[b] & ~EMB_PTE_FRAME) | eb << FS_PAGE_SHIFT, new_b = (t->e[a] & ~EMB_PTE_FRAME) | ea << FS_PAGE_SHIFT;
    if (emb_mmu_update(m, d, (table << FS_PAGE_SHIFT) + a * 8, new_a) != 0 ||
        emb_mmu_update(m, d, (table << FS_PAGE_SHIFT) + b * 8, new_b) != 0) {
        g->dead = true;
        return;
    }
    uint64_t old = t->e[a];
    t->e[a] = t->e[b];
    t->e[b] = old;
}

uint32_t emb_guest_run(struct emb_machine *m, uint16_t domid, uint32_t writes)
{
    uint32_t done = 0;
    emb_lock(m);
    struct emb_domain *d = running_guest(m, domid);
    if (d) {
        emb_guest_events(m, d);
    }
    for (uint32_t i = 0; d && i < writes && !d->guest->dead; i++) {
        uint64_t pfn = emb_random(&d->guest->rng) % d->guest->pfns;
        if (d->guest->role[pfn] == EMB_R_DATA) {
            write_page(m, d, pfn);
            done++;
        }
        if (d->kind == HV_DOMAIN_PV && i % 8 == 0) {
            swap_entries(m, d);
        }
    }
    emb_unlock(m);
    return done;
}

/* ---- grants that come and go ---------------------------------------------- */

/* An entry that is free, or a new one. */
static uint32_t free_grant(const struct emb_domain *d)
{
    uint32_t i = 0;
    while (i < d->grant_count && d->grants[i].in_use) {
        i++;
    }
    return i;
}

int emb_guest_grant(struct emb_machine *m, uint16_t domid, struct mfn_range range, uint64_t *gfn, uint32_t *index)
{
    int rc = -EAGAIN;
    emb_lock(m);
    struct emb_domain *d = running_guest(m, domid);
    for (uint32_t tries = 0; d && tries < 4096 && rc != 0; tries++) {
        struct emb_guest *g = d->guest;
        uint64_t pfn = emb_random(&g->rng) % g->pfns, mfn = g->role[pfn] == EMB_R_DATA ? emb_guest_reach(m, d, pfn, NULL) : FS_FRAME_NONE;
        rc = -ENOSPC;
        *index = free_grant(d);
        if (mfn == FS_FRAME_NONE || !mfn_range_contains(range, mfn_make(mfn)) || *index == EMB_GRANTS_MAX) {
            continue;
        }
        d->grants[*index] = (struct emb_grant){ .gfn = d->kind == HV_DOMAIN_HAP ? pfn : mfn, .in_use = 1, .writable = 1 };
        d->grant_count = *index < d->grant_count ? d->grant_count : *index + 1;
        g->grants[*index] = d->grants[*index];
        g->grant_pfn[*index] = *gfn = pfn;
        g->grant_count = d->grant_count;
        rc = 0;
    }
    emb_unlock(m);
    return rc;
}

int emb_guest_ungrant(struct emb_machine *m, uint16_t domid, uint32_t index)
{
    int rc = -EAGAIN;
    emb_lock(m);
    struct emb_domain *d = running_guest(m, domid);
    if (d) {
        rc = index < d->grant_count && d->grants[index].in_use && !d->grants[index].mapped ? 0 : -EINVAL;
    }
    if (rc == 0) {
        d->grants[index].in_use = d->guest->grants[index].in_use = 0;
    }
    emb_unlock(m);
    return rc;
}

/* ---- the balloon --------------------------------------------------------- */

/* A page that only the kernel's direct map leads to. */
static bool only_kernel_maps(struct emb_machine *m, const struct emb_domain *d, uint64_t pfn)
{
    const struct emb_guest *g = d->guest;
    for (uint32_t i = 0; i < g->grant_count; i++) {
        if (g->grants[i].in_use && g->grant_pfn[i] == pfn) {
            return false;
        }
    }
    if (d->kind == HV_DOMAIN_HAP) {
        return true;
    }
    uint64_t mfn = emb_guest_reach(m, d, pfn, NULL);
    return mfn != FS_FRAME_NONE && emb_frame_at(m, mfn)->count == 2 && emb_frame_at(m, mfn)->type_count == 1;
}

static int pv_give(struct emb_machine *m, struct emb_domain *d, uint64_t pfn)
{
    struct emb_guest *g = d->guest;
    uint64_t pte, l1, entry, list, root = 0;
    for (uint32_t i = 0; i < d->vcpu_count && !root; i++) {
        root = d->vcpus[i].cr3;
    }
    if (!emb_walk(m, root, EMB_VA_DIRECT + pfn * FS_PAGE_BYTES, &pte, &l1) || !emb_guest_p2m(m, d, pfn, &entry, &list)) {
        return -EFAULT;
    }
    uint64_t l1_pfn = emb_frame_at(m, l1)->m2p1 - 1;
    int rc = emb_mmu_update(m, d, (l1 << FS_PAGE_SHIFT) + pfn % 512 * 8, 0);
    if (rc) {
        return rc;
    }
    emb_plan_table(g, l1_pfn)->e[pfn % 512] = 0;
    emb_table(m, list)[pfn % 512] = EMB_P2M_INVALID;
    return emb_decrease(m, d, entry);
}

static uint64_t give_one(struct emb_machine *m, uint16_t domid, struct mfn_range range)
{
    struct emb_domain *d = running_guest(m, domid);
    for (uint32_t tries = 0; d && tries < 4096; tries++) {
        struct emb_guest *g = d->guest;
        uint64_t pfn = emb_random(&g->rng) % g->pfns;
        if (g->role[pfn] != EMB_R_DATA || !only_kernel_maps(m, d, pfn)) {
            continue;
        }
        uint64_t mfn = emb_guest_reach(m, d, pfn, NULL);
        if (mfn == FS_FRAME_NONE || !mfn_range_contains(range, mfn_make(mfn))) {
            continue;
        }
        if ((d->kind == HV_DOMAIN_HAP ? emb_decrease(m, d, pfn) : pv_give(m, d, pfn)) != 0) {
            g->dead = true;
            return UINT64_MAX;
        }
        g->role[pfn] = EMB_R_HOLE;
        return pfn;
    }
    return UINT64_MAX;
}

uint64_t emb_guest_balloon_out_of(struct emb_machine *m, uint16_t domid, struct mfn_range range)
{
    emb_lock(m);
    uint64_t pfn = give_one(m, domid, range);
    emb_unlock(m);
    return pfn;
}

uint64_t emb_guest_balloon_out(struct emb_machine *m, uint16_t domid)
{
    return emb_guest_balloon_out_of(m, domid, (struct mfn_range){ mfn_make(0), mfn_make(m->max_mfn) });
}
