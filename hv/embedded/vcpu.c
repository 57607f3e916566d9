/*
 * vcpu.c - PV vCPU contexts: roots, GDT, LDT, and the state that is only kept.
 *
 * Owns: struct emb_vcpu and the references that it holds.
 * Invariants: I1 an initialised PV vCPU holds one general and one L4 type reference
 * on cr3 and, if it has one, on user_cr3; one general and one descriptor type
 * reference on each GDT frame and each mapped LDT page.
 * Lock order: the machine's lock is held.
 * Rules (public/domctl.h XEN_DOMCTL_setvcpucontext; arch/x86/domain.c
 * arch_set_info_guest, vcpu_reset; pv/descriptor-tables.c):
 *  - loading an initialised vCPU with other roots, GDT or LDT than it has is
 *    EOPNOTSUPP: it must be reset first;
 *  - a reset drops roots and GDT, takes the vCPU down, and leaves mapped LDT pages alone
 *    (they stay held until the guest itself loads another LDT or root);
 *  - cr3 to a frame that does not validate as an L4 is refused, and the GDT is gone then.
 * Cost: a load validates the root's tables unless they are pinned.
 */
#include <stdlib.h>

#include "emb_priv.h"

static uint32_t gdt_frames(uint32_t entries)
{
    return (entries + 511) / 512;
}

void emb_destroy_gdt(struct emb_machine *m, struct emb_vcpu *v)
{
    for (uint32_t i = 0; i < gdt_frames(v->gdt_entries); i++) {
        emb_put_page_and_type(m, v->gdt[i]);
        v->gdt[i] = 0;
    }
    v->gdt_entries = 0;
}

void emb_destroy_ldt(struct emb_machine *m, struct emb_vcpu *v)
{
    for (uint32_t i = 0; i < FS_ARRAY_SIZE(v->ldt_mapped); i++) {
        if (v->ldt_mapped[i]) {
            emb_put_page_and_type(m, v->ldt_mapped[i]);
            v->ldt_mapped[i] = 0;
        }
    }
}

int emb_set_gdt(struct emb_machine *m, struct emb_domain *d, struct emb_vcpu *v, const uint64_t *frames, uint32_t entries)
{
    if (entries > HV_GDT_FRAMES * 512 - 2 * 512) {      /* the last two pages are Xen's: FIRST_RESERVED_GDT_ENTRY */
        return -EINVAL;
    }
    uint32_t n = gdt_frames(entries);
    for (uint32_t i = 0; i < n; i++) {
        if (emb_get_page_and_type(m, frames[i], d, EMB_T_SEGDESC) != 0) {
            while (i-- > 0) {
                emb_put_page_and_type(m, frames[i]);
            }
            return -EINVAL;
        }
    }
    emb_destroy_gdt(m, v);
    memcpy(v->gdt, frames, n * sizeof(frames[0]));
    v->gdt_entries = entries;
    return 0;
}

/* A descriptor of that LDT page was used: Xen maps it. */
int emb_map_ldt(struct emb_machine *m, struct emb_domain *d, struct emb_vcpu *v, uint32_t page)
{
    uint64_t pte;
    if (page >= FS_ARRAY_SIZE(v->ldt_mapped) || page * 512 >= v->ldt_entries || v->ldt_mapped[page]) {
        return -EINVAL;
    }
    if (!emb_walk(m, v->cr3, v->ldt_base + page * FS_PAGE_BYTES, &pte, NULL)) {
        return -EFAULT;
    }
    int rc = emb_get_page_and_type(m, emb_pte_mfn(pte), d, EMB_T_SEGDESC);
    if (rc == 0) {
        v->ldt_mapped[page] = emb_pte_mfn(pte);
    }
    return rc;
}

static uint64_t root_of(mfn_t m)
{
    return mfn_is_none(m) ? 0 : m.n;
}

static bool same_context(const struct emb_vcpu *v, const struct hv_pv_vcpu *c)
{
    bool same = v->cr3 == root_of(c->cr3) && v->user_cr3 == root_of(c->user_cr3) && v->gdt_entries == c->gdt_entries &&
                v->ldt_entries == c->ldt_entries && (v->ldt_entries == 0 || v->ldt_base == c->ldt_base);
    for (uint32_t i = 0; same && i < gdt_frames(v->gdt_entries); i++) {
        same = v->gdt[i] == c->gdt[i].n;
    }
    return same;
}

static int load_roots(struct emb_machine *m, struct emb_domain *d, struct emb_vcpu *v, const struct hv_pv_vcpu *c)
{
    uint64_t cr3 = root_of(c->cr3), user = root_of(c->user_cr3);
    int rc = emb_get_page_and_type(m, cr3, d, EMB_T_L4);
    if (rc) {
        return rc;
    }
    v->cr3 = cr3;
    if (user) {
        rc = emb_get_page_and_type(m, user, d, EMB_T_L4);
        if (rc == 0) {
            v->user_cr3 = user;
        }
    }
    return rc;                          /* a user root that fails leaves the kernel root loaded, as on Xen */
}

int emb_vcpu_load(struct emb_machine *m, struct emb_domain *d, uint32_t id, const struct hv_pv_vcpu *c)
{
    struct emb_vcpu *v = &d->vcpus[id];
    if (c->opaque_bytes != sizeof(v->blob) || !c->opaque || (c->ldt_base & (FS_PAGE_BYTES - 1)) || c->ldt_entries > 8192 ||
        gdt_frames(c->gdt_entries) > HV_GDT_FRAMES) {
        return -EINVAL;
    }
    if (v->initialised && !same_context(v, c)) {
        return -EOPNOTSUPP;
    }
    if (!v->initialised) {
        uint64_t frames[HV_GDT_FRAMES];
        for (uint32_t i = 0; i < gdt_frames(c->gdt_entries); i++) {
            frames[i] = c->gdt[i].n;
        }
        v->ldt_entries = c->ldt_entries;
        v->ldt_base = c->ldt_base;
        int rc = emb_set_gdt(m, d, v, frames, c->gdt_entries);
        if (rc == 0) {
            if (v->cr3) {               /* left by a load that failed at the user root */
                emb_put_page_and_type(m, v->cr3);
                v->cr3 = 0;
            }
            rc = load_roots(m, d, v, c);
        }
        if (rc) {
            emb_destroy_gdt(m, v);
            return rc;
        }
        v->initialised = true;
    }
    memcpy(v->blob, c->opaque, sizeof(v->blob));
    v->online = c->online;
    return 0;
}

void emb_vcpu_reset(struct emb_machine *m, struct emb_domain *d, uint32_t id)
{
    struct emb_vcpu *v = &d->vcpus[id];
    emb_destroy_gdt(m, v);
    if (v->cr3) {
        emb_put_page_and_type(m, v->cr3);
    }
    if (v->user_cr3) {
        emb_put_page_and_type(m, v->user_cr3);
    }
    v->cr3 = v->user_cr3 = 0;
    v->initialised = v->online = false;
    memset(v->blob, 0, sizeof(v->blob));    /* so that a state which is not loaded again shows */
}
