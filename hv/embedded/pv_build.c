/*
 * pv_build.c - makes a planned PV guest real: frames, bytes, pins, vCPUs, holds.
 *
 * Owns: nothing lasting; runs once for each domain (and again when one is restored).
 * Invariants: I1 what it does to frames goes through the same calls as a guest's own
 * hypercalls (pin, MACHPHYS_UPDATE, set context), so that a plan that real Xen would
 * refuse does not build.
 * Lock order: the machine's lock is held.
 * Cost: one page of writing a frame, then validation of every table.
 */
#include <stdlib.h>

#include "emb_guest.h"

#include <xen/xen.h>

int emb_place(struct emb_machine *m, struct emb_domain *d, uint32_t order, uint64_t *mfn)
{
    uint32_t first = d->config.any_node ? (uint32_t)(emb_random(&m->rng) % m->config.node_count) : d->config.node;
    for (uint32_t i = 0; i < m->config.node_count; i++) {
        int rc = emb_increase(m, d, (first + i) % m->config.node_count, order, mfn);
        if (rc != -ENOMEM) {
            return rc;
        }
    }
    return -ENOMEM;
}

static int place_all(struct emb_machine *m, struct emb_domain *d, uint32_t *mfn_of)
{
    const struct emb_guest *g = d->guest;
    for (uint64_t pfn = 0; pfn < g->pfns; pfn++) {
        uint64_t mfn = 0;
        if (g->role[pfn] != EMB_R_HOLE) {
            int rc = emb_place(m, d, 0, &mfn);
            if (rc == 0) {
                rc = emb_machphys_update(m, d, mfn, pfn);
            }
            if (rc) {
                return rc;
            }
        }
        mfn_of[pfn] = (uint32_t)mfn;
    }
    return 0;
}

static uint64_t p2m_entry(const struct emb_guest *g, const uint32_t *mfn_of, uint64_t pfn)
{
    return pfn < g->pfns && g->role[pfn] != EMB_R_HOLE ? mfn_of[pfn] : EMB_P2M_INVALID;
}

static void write_lists(const struct emb_guest *g, uint64_t pfn, const uint32_t *mfn_of, uint64_t *w)
{
    uint32_t mid = 0;
    while (mid < g->list_mids && g->list_mid[mid] != pfn) {
        mid++;
    }
    for (uint32_t i = 0; i < 512; i++) {
        if (g->role[pfn] == EMB_R_LIST_TOP) {
            w[i] = mfn_of[i < g->list_mids ? g->list_mid[i] : g->list_mid_missing];
        } else {
            uint64_t slot = (uint64_t)mid * 512 + i;
            w[i] = mfn_of[mid < g->list_mids && slot < g->p2m_slots ? g->p2m_pfn[slot] : g->missing];
        }
    }
}

static void write_p2m(const struct emb_guest *g, uint64_t pfn, const uint32_t *mfn_of, uint64_t *w)
{
    uint64_t slot = 0;
    while (slot < g->p2m_pages && g->p2m_pfn[slot] != pfn) {
        slot++;
    }
    for (uint32_t i = 0; i < 512; i++) {
        switch (g->role[pfn]) {
        case EMB_R_P2M: w[i] = p2m_entry(g, mfn_of, slot * 512 + i); break;
        case EMB_R_P2M_IDENTITY: w[i] = EMB_P2M_IDENTITY | ((uint64_t)(g->p2m_slots - 1) * 512 + i); break;
        default: w[i] = EMB_P2M_INVALID; break;
        }
    }
}

static void write_start_info(struct emb_machine *m, const struct emb_domain *d, const uint32_t *mfn_of, uint64_t *w)
{
    const struct emb_guest *g = d->guest;
    start_info_t *si = (start_info_t *)(void *)w;
    (void)m;
    *si = (start_info_t){ .nr_pages = g->pfns, .shared_info = d->shared_info << FS_PAGE_SHIFT };
    memcpy(si->magic, "xen-3.0-x86_64", 15);
    si->store_mfn = mfn_of[g->store];
    si->console.domU.mfn = mfn_of[g->console];
}

static void write_page(struct emb_machine *m, struct emb_domain *d, uint64_t pfn, const uint32_t *mfn_of)
{
    const struct emb_guest *g = d->guest;
    uint64_t *w = emb_table(m, mfn_of[pfn]);
    switch ((enum emb_role)g->role[pfn]) {
    case EMB_R_TABLE: {
        const struct emb_ptable *t = g->tables[g->table[pfn] - 1];
        for (uint32_t i = 0; i < 512; i++) {
            uint64_t e = t->e[i];
            w[i] = e & EMB_PTE_P ? (e & ~EMB_PTE_FRAME) | (uint64_t)mfn_of[emb_pte_mfn(e)] << FS_PAGE_SHIFT : e;
        }
        break;
    }
    case EMB_R_P2M: case EMB_R_P2M_MISSING: case EMB_R_P2M_IDENTITY:
        write_p2m(g, pfn, mfn_of, w);
        break;
    case EMB_R_LIST_TOP: case EMB_R_LIST_MID: case EMB_R_LIST_MID_MISSING:
        write_lists(g, pfn, mfn_of, w);
        break;
    case EMB_R_GDT: case EMB_R_LDT:
        for (uint32_t i = 0; i < 512; i++) {
            w[i] = emb_gdt_word(g, pfn, i);
        }
        break;
    case EMB_R_START_INFO:
        emb_pattern(g, pfn, 0, w);
        write_start_info(m, d, mfn_of, w);
        break;
    default:
        emb_pattern(g, pfn, g->gen[pfn], w);
        break;
    }
}

/* Pages that Xen writes get the shape that they have on a running guest. */
void emb_xen_page_init(struct emb_machine *m, const struct emb_held *h)
{
    uint8_t *p = emb_bytes(m, h->mfn);
    if (h->kind == EMB_HELD_VCPU_INFO) {
        struct vcpu_info *vi = (struct vcpu_info *)(void *)(p + h->offset);
        *vi = (struct vcpu_info){ .evtchn_upcall_mask = 0 };
        vi->time.version = 2;
        vi->time.tsc_timestamp = 0x123456789abcull + h->vcpu;
        vi->time.system_time = 0x3b9aca00ull;
        vi->time.tsc_to_system_mul = 0x9f3a1c55u;
    } else if (h->kind == EMB_HELD_EVT_CONTROL) {
        memset(p, 0, FS_PAGE_BYTES);
        uint32_t head = 8u + h->vcpu * 4u;          /* the last event went through queue 7 */
        memcpy(p + 8 + 7 * 4, &head, sizeof(head));
    } else if (h->kind == EMB_HELD_EVT_ARRAY) {
        for (uint32_t i = 0; i < FS_PAGE_BYTES / 4; i++) {
            uint32_t word = 1u << 30;               /* masked: EVTCHN_FIFO_MASKED */
            memcpy(p + i * 4, &word, sizeof(word));
        }
    } else if (h->kind == EMB_HELD_PIRQ_EOI) {
        memset(p, 0, FS_PAGE_BYTES);
    }
}

int emb_take_holds(struct emb_machine *m, struct emb_domain *d, const uint32_t *mfn_of)
{
    struct emb_guest *g = d->guest;
    for (uint32_t i = 0; i < g->hold_count; i++) {
        struct emb_held h = g->holds[i];
        h.mfn = mfn_of ? mfn_of[h.gfn] : emb_p2m_get(m, d, h.gfn);
        int rc = emb_hold(m, d, &h);
        if (rc) {
            return rc;
        }
        if (m->contents) {
            emb_xen_page_init(m, &h);
        }
    }
    for (uint32_t i = 0; i < g->grant_count; i++) {
        d->grants[i] = g->grants[i];
        d->grants[i].gfn = mfn_of ? mfn_of[g->grant_pfn[i]] : g->grant_pfn[i];
    }
    d->grant_count = g->grant_count;
    return 0;
}

static int start_vcpus(struct emb_machine *m, struct emb_domain *d, const uint32_t *mfn_of)
{
    const struct emb_guest *g = d->guest;
    uint8_t blob[EMB_VCPU_BLOB_BYTES];
    for (uint32_t i = 0; i < d->vcpu_count; i++) {
        const struct emb_guest_vcpu *t = &g->vcpus[i];
        if (!t->runs) {
            continue;
        }
        emb_blob(t->blob_seed, blob);
        struct hv_pv_vcpu c = { .vcpu = i, .online = true, .cr3 = mfn_make(mfn_of[t->cr3]), .user_cr3 = MFN_NONE,
                                .gdt_entries = t->gdt_entries, .opaque_bytes = sizeof(blob), .opaque = blob };
        if (t->user_cr3) {
            c.user_cr3 = mfn_make(mfn_of[t->user_cr3]);
        }
        for (uint32_t k = 0; k < (t->gdt_entries + 511) / 512; k++) {
            c.gdt[k] = mfn_make(mfn_of[t->gdt[k]]);
        }
        if (t->ldt_pfn) {
            c.ldt_base = EMB_VA_DIRECT + t->ldt_pfn * FS_PAGE_BYTES;
            c.ldt_entries = 512;
        }
        int rc = emb_vcpu_load(m, d, i, &c);
        if (rc == 0 && t->ldt_pfn) {
            rc = emb_map_ldt(m, d, &d->vcpus[i], 0);
        }
        if (rc) {
            return rc;
        }
    }
    return 0;
}

int emb_pv_build(struct emb_machine *m, struct emb_domain *d)
{
    struct emb_guest *g = d->guest;
    int rc = -EINVAL;
    uint32_t *mfn_of = calloc(g->pfns, sizeof(*mfn_of));
    if (!mfn_of || !m->contents) {
        rc = mfn_of ? -EINVAL : -ENOMEM;
        goto out;
    }
    if ((rc = place_all(m, d, mfn_of)) != 0) {
        goto out;
    }
    for (uint64_t pfn = 0; pfn < g->pfns; pfn++) {
        if (g->role[pfn] != EMB_R_HOLE) {
            write_page(m, d, pfn, mfn_of);
        }
    }
    for (uint32_t i = 0; rc == 0 && i < g->table_count; i++) {
        if (g->tables[i]->pinned) {
            rc = emb_pin(m, d, mfn_of[g->tables[i]->pfn], g->tables[i]->pinned);
        }
    }
    if (rc == 0) {
        rc = start_vcpus(m, d, mfn_of);
    }
    if (rc == 0) {
        rc = emb_take_holds(m, d, mfn_of);
    }
    if (rc == 0) {
        emb_pv_shared_info(m, d);
    }
out:
    free(mfn_of);
    return rc;
}
