/*
 * pv_suspend.c - what a PV guest's kernel itself does before and after a suspend.
 *
 * Owns: start_info, shared_info's p2m fields and the frame_list_list of a PV guest,
 * written as its kernel writes them: through its own tables and p2m.
 * Invariants: I1 nothing here knows where a frame was moved: a p2m or page table that
 * the mover left wrong makes the guest write wrong numbers, which the check finds.
 * Lock order: the machine's lock is held.
 * Source: Linux turns store and console frames in start_info into pfns before the
 * suspend and back after it, then rebuilds the list and shared_info's root, also when
 * the suspend was cancelled.
 * Cost: one walk an entry of the list.
 */
#include "emb_guest.h"

#include <xen/xen.h>

static uint64_t *kernel_page(struct emb_machine *m, const struct emb_domain *d, uint64_t pfn)
{
    uint64_t mfn = emb_guest_reach(m, d, pfn, NULL);
    return mfn == FS_FRAME_NONE ? NULL : emb_table(m, mfn);
}

static uint64_t pfn_to_mfn(struct emb_machine *m, const struct emb_domain *d, uint64_t pfn)
{
    uint64_t entry;
    return emb_guest_p2m(m, d, pfn, &entry, NULL) ? entry & ~(EMB_P2M_FOREIGN | EMB_P2M_IDENTITY) : 0;
}

static uint64_t mfn_to_pfn(struct emb_machine *m, uint64_t mfn)
{
    return emb_is_ram(m, mfn) ? emb_frame_at(m, mfn)->m2p1 - 1 : FS_FRAME_NONE;
}

void emb_pv_pre_suspend(struct emb_machine *m, struct emb_domain *d)
{
    struct emb_guest *g = d->guest;
    if (!g) {
        return;
    }
    start_info_t *si = (start_info_t *)(void *)kernel_page(m, d, g->start_info);
    if (si) {
        si->store_mfn = mfn_to_pfn(m, si->store_mfn);
        si->console.domU.mfn = mfn_to_pfn(m, si->console.domU.mfn);
    }
    g->suspended = true;
}

void emb_pv_shared_info(struct emb_machine *m, struct emb_domain *d)
{
    const struct emb_guest *g = d->guest;
    shared_info_t *s = (shared_info_t *)(void *)emb_bytes(m, d->shared_info);
    if (d->config.not_booted) {
        return;
    }
    s->arch.max_pfn = g->max_pfn;
    if (d->config.p2m_linear_only) {
        s->arch.pfn_to_mfn_frame_list_list = UINT64_MAX;
    } else {
        s->arch.pfn_to_mfn_frame_list_list = pfn_to_mfn(m, d, g->list_top);
    }
    if (!d->config.p2m_list_only) {
        s->arch.p2m_generation = 0;
        s->arch.p2m_vaddr = EMB_VA_P2M;
        s->arch.p2m_cr3 = pfn_to_mfn(m, d, g->init_l4) << FS_PAGE_SHIFT;
    }
}

static void rebuild_list(struct emb_machine *m, struct emb_domain *d)
{
    const struct emb_guest *g = d->guest;
    uint64_t *top = kernel_page(m, d, g->list_top), *missing = kernel_page(m, d, g->list_mid_missing);
    uint64_t missing_mfn = pfn_to_mfn(m, d, g->missing), mid_missing_mfn = pfn_to_mfn(m, d, g->list_mid_missing);
    for (uint32_t i = 0; top && missing && i < 512; i++) {
        top[i] = i < g->list_mids ? pfn_to_mfn(m, d, g->list_mid[i]) : mid_missing_mfn;
        missing[i] = missing_mfn;
    }
    for (uint32_t k = 0; k < g->list_mids; k++) {
        uint64_t *mid = kernel_page(m, d, g->list_mid[k]);
        for (uint32_t i = 0; mid && i < 512; i++) {
            uint64_t slot = (uint64_t)k * 512 + i;
            mid[i] = slot < g->p2m_slots ? pfn_to_mfn(m, d, g->p2m_pfn[slot]) : missing_mfn;
        }
    }
}

void emb_pv_post_suspend(struct emb_machine *m, struct emb_domain *d)
{
    struct emb_guest *g = d->guest;
    if (!g || !g->suspended) {
        return;
    }
    g->suspended = false;
    rebuild_list(m, d);
    emb_pv_shared_info(m, d);
    start_info_t *si = (start_info_t *)(void *)kernel_page(m, d, g->start_info);
    if (si) {
        si->store_mfn = pfn_to_mfn(m, d, si->store_mfn);
        si->console.domU.mfn = pfn_to_mfn(m, d, (uint64_t)si->console.domU.mfn);
    }
}
