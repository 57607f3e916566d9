/*
 * be_pv.c - the backend's members for PV tables and vCPUs.
 *
 * Owns: nothing; loops over mmu.c and vcpu.c.
 * Rules: a list stops at its first refusal, which is named; what was done stays done.
 * vcpu_save of a vCPU that was never brought up, or was reset, gives initialised = false.
 * vcpu_load of such a record leaves the vCPU alone.
 * Lock order: the machine's lock during each call.
 * Cost: as mmu.c; a saved vCPU is EMB_VCPU_BLOB_BYTES.
 */
#include <stdlib.h>

#include "emb_backend.h"

static int pv_only(const struct emb_domain *d)
{
    return d->kind == HV_DOMAIN_HAP || d->kind == HV_DOMAIN_OTHER ? -EINVAL : 0;
}

fs_status_t emb_op_unpin(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_unpin, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    int rc = pv_only(d);
    size_t i = 0, share = emb_share(&c, count);
    while (rc == 0 && i < share && (rc = emb_unpin(c.m, d, mfns[i].n)) == 0) {
        i++;
    }
    s = i < share ? emb_refused(d, rc, err, "unpinning frame %#llx", (unsigned long long)mfns[i].n) : emb_planned(&c, err);
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_pin(struct hv_backend *be, uint16_t domid, const struct hv_pin *pins, size_t count, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_pin, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    int rc = pv_only(d);
    size_t i = 0, share = emb_share(&c, count);
    while (rc == 0 && i < share && (rc = emb_pin(c.m, d, pins[i].mfn.n, pins[i].level)) == 0) {
        i++;
    }
    s = i < share ? emb_refused(d, rc, err, "pinning frame %#llx at level %u", (unsigned long long)pins[i].mfn.n, pins[i].level)
                  : emb_planned(&c, err);
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_m2p_set(struct hv_backend *be, uint16_t domid, const struct hv_m2p_set *list, size_t count, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_m2p_set, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    int rc = pv_only(d);
    size_t i = 0, share = emb_share(&c, count);
    while (rc == 0 && i < share && (rc = emb_machphys_update(c.m, d, list[i].mfn.n, list[i].pfn.n)) == 0) {
        i++;
    }
    s = i < share ? emb_refused(d, rc, err, "M2P of frame %#llx", (unsigned long long)list[i].mfn.n) : emb_planned(&c, err);
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_vcpu_save(struct hv_backend *be, uint16_t domid, uint32_t vcpu, struct hv_pv_vcpu *out, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    *out = (struct hv_pv_vcpu){ .vcpu = vcpu, .cr3 = MFN_NONE, .user_cr3 = MFN_NONE };
    fs_status_t s = emb_enter_domain(be, EMB_OP_vcpu_save, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    if (pv_only(d) || vcpu >= d->vcpu_count) {
        s = emb_refused(d, vcpu >= d->vcpu_count ? -ESRCH : -EINVAL, err, "vCPU %u", vcpu);
        goto out;
    }
    const struct emb_vcpu *v = &d->vcpus[vcpu];
    out->online = v->online;
    if (!v->initialised) {
        goto out;
    }
    out->opaque = malloc(sizeof(v->blob));
    if (!out->opaque) {
        s = fs_fail(err, FS_NO_MEMORY, "no memory for the state of vCPU %u", vcpu);
        goto out;
    }
    memcpy(out->opaque, v->blob, sizeof(v->blob));
    out->opaque_bytes = sizeof(v->blob);
    out->initialised = true;
    out->cr3 = mfn_make(v->cr3);
    out->user_cr3 = v->user_cr3 ? mfn_make(v->user_cr3) : MFN_NONE;
    out->gdt_entries = v->gdt_entries;
    for (uint32_t i = 0; i < HV_GDT_FRAMES; i++) {
        out->gdt[i] = v->gdt[i] ? mfn_make(v->gdt[i]) : MFN_NONE;
    }
    out->ldt_base = v->ldt_base;
    out->ldt_entries = v->ldt_entries;
out:
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_vcpu_reset(struct hv_backend *be, uint16_t domid, uint32_t vcpu, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_vcpu_reset, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    if (pv_only(d) || vcpu >= d->vcpu_count) {
        s = emb_refused(d, -EINVAL, err, "resetting vCPU %u", vcpu);
    } else {
        emb_vcpu_reset(c.m, d, vcpu);
    }
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_vcpu_load(struct hv_backend *be, uint16_t domid, const struct hv_pv_vcpu *v, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_vcpu_load, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    int rc = pv_only(d) || v->vcpu >= d->vcpu_count ? -EINVAL : 0;
    if (rc == 0 && v->initialised && (!v->opaque || v->opaque_bytes != EMB_VCPU_BLOB_BYTES)) {
        s = fs_fail(err, FS_BAD_INPUT, "vCPU %u: no state of this machine's (%zu bytes)", v->vcpu, v->opaque_bytes);
    } else if (rc == 0 && v->initialised) {
        rc = emb_vcpu_load(c.m, d, v->vcpu, v);
    }
    if (rc) {
        s = emb_refused(d, rc, err, "loading vCPU %u (cr3 %#llx)", v->vcpu, (unsigned long long)v->cr3.n);
    }
    emb_leave(&c);
    return s;
}
