/*
 * pv.c - the state of a PV guest's virtual CPUs.
 *
 * Owns: vcpu_save(), vcpu_reset(), vcpu_load(), the form of hv_pv_vcpu.opaque, and the
 * "cancelled" answer to a guest's suspend call.
 * Invariants:
 *  I1  opaque is one flat block of bytes: struct saved, then the extended state. It
 *      holds no pointer and its lengths are checked before use: it may have
 *      been in a journal.
 *  I2  vcpu_load() sets the context first and the extended state after it: Xen
 *      resets the vector registers to the legacy part while it sets the context.
 *  I3  a vCPU that was never brought up is neither saved nor loaded, and one that
 *      was offline is loaded offline (the context's online flag says so).
 *  I4  frames in the context come from the caller's translated fields only.
 * Why the vCPU's MSRs are not in it: a reset leaves them, as it leaves the event channels and timers.
 * LDT: its base and length are in the context.  Frames of it that Xen has mapped for the vCPU stay referenced by
 * Xen through unpinning and reset; the ownership probe reports them, and they stay where they are (doc/XEN.md).
 * Cost: four hypercalls to save, three to load, one to reset.
 */
#include "xen_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"

#define SAVED_MAGIC 0x31555043u         /* "CPU1" */
#define XSTATE_MAX_BYTES (256u << 10)

struct saved {
    uint32_t magic;
    uint32_t xstate_bytes;
    uint64_t xfeature_mask;
    uint64_t context_bytes;             /* a layout that differs is refused */
    struct vcpu_guest_context context;
    struct xen_domctl_ext_vcpucontext ext;
};

static uint64_t cr3_of_mfn(mfn_t m)     { return xen_pfn_to_cr3(m.n); }
static mfn_t mfn_of_cr3(uint64_t cr3)   { return mfn_make(xen_cr3_to_pfn(cr3)); }

static unsigned gdt_frames(uint32_t entries)
{
    return (entries + 511) / 512;
}

/* ---- saving ---- */

static fs_status_t save_xstate(struct xen_be *x, uint16_t domid, uint32_t vcpu, struct saved **block, struct fs_error *err)
{
    xc_vcpu_extstate_t ask = { 0 };
    if (xc_vcpu_get_extstate(x->xch, domid, vcpu, &ask) != 0) {
        return xen_fail_domain(x, domid, err, errno, "cannot size the extended state of vCPU %u of domain %u", vcpu, domid);
    }
    if (ask.size > XSTATE_MAX_BYTES) {
        return fs_fail(err, FS_BAD_INPUT, "Xen tells of %llu bytes of extended state", (unsigned long long)ask.size);
    }
    if (ask.size == 0) {
        return FS_OK;
    }
    struct saved *bigger = realloc(*block, sizeof **block + ask.size);
    if (!bigger) {
        return fs_fail(err, FS_NO_MEMORY, "no memory for the state of vCPU %u", vcpu);
    }
    *block = bigger;
    /* The library copies as much as Xen says it wrote, which may be less than asked for: ask for all, keep that length. */
    uint8_t *bytes = (uint8_t *)(bigger + 1);
    memset(bytes, 0, ask.size);
    DECLARE_HYPERCALL_BUFFER(void, buffer);
    buffer = xc_hypercall_buffer_alloc(x->xch, buffer, ask.size);
    if (!buffer) {
        return fs_fail(err, FS_NO_MEMORY, "no hypercall memory for the state of vCPU %u", vcpu);
    }
    struct xen_domctl ctl = { .cmd = XEN_DOMCTL_getvcpuextstate, .domain = domid };
    ctl.u.vcpuextstate.vcpu = vcpu;
    ctl.u.vcpuextstate.xfeature_mask = ask.xfeature_mask;
    ctl.u.vcpuextstate.size = ask.size;
    set_xen_guest_handle(ctl.u.vcpuextstate.buffer, buffer);
    fs_status_t s = FS_OK;
    if (xc_domctl(x->xch, &ctl) != 0) {
        s = xen_fail_domain(x, domid, err, errno, "cannot save the extended state of vCPU %u of domain %u", vcpu, domid);
    } else if (ctl.u.vcpuextstate.size > ask.size) {
        s = fs_fail(err, FS_BAD_INPUT, "Xen wrote more extended state than it had asked room for");
    } else {
        memcpy(bytes, buffer, ctl.u.vcpuextstate.size);
        bigger->xstate_bytes = (uint32_t)ctl.u.vcpuextstate.size;
        bigger->xfeature_mask = ask.xfeature_mask;
    }
    xc_hypercall_buffer_free(x->xch, buffer);
    return s;
}

static fs_status_t save_ext(struct xen_be *x, uint16_t domid, uint32_t vcpu, struct saved *b, struct fs_error *err)
{
    struct xen_domctl ctl = { .cmd = XEN_DOMCTL_get_ext_vcpucontext, .domain = domid };
    ctl.u.ext_vcpucontext.vcpu = vcpu;
    if (xc_domctl(x->xch, &ctl) != 0) {
        return xen_fail_domain(x, domid, err, errno, "cannot save the callbacks of vCPU %u of domain %u", vcpu, domid);
    }
    b->ext = ctl.u.ext_vcpucontext;
    return FS_OK;
}

static void translate_out(const struct vcpu_guest_context *c, struct hv_pv_vcpu *out)
{
    out->initialised = true;
    out->online = (c->flags & VGCF_online) != 0;
    out->cr3 = mfn_of_cr3(c->ctrlreg[3]);
    out->user_cr3 = c->ctrlreg[1] ? mfn_of_cr3(c->ctrlreg[1]) : MFN_NONE;
    out->gdt_entries = (uint32_t)c->gdt_ents;
    for (unsigned i = 0; i < HV_GDT_FRAMES; i++) {
        out->gdt[i] = i < gdt_frames(out->gdt_entries) ? mfn_make(c->gdt_frames[i]) : MFN_NONE;
    }
    out->ldt_base = c->ldt_base;
    out->ldt_entries = (uint32_t)c->ldt_ents;
}

fs_status_t xen_vcpu_save(struct hv_backend *be, uint16_t domid, uint32_t vcpu, struct hv_pv_vcpu *out, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    *out = (struct hv_pv_vcpu){ .vcpu = vcpu, .cr3 = MFN_NONE, .user_cr3 = MFN_NONE };
    struct saved *b = calloc(1, sizeof *b);
    vcpu_guest_context_any_t *any = calloc(1, sizeof *any);
    fs_status_t s = FS_OK;
    if (!b || !any) {
        s = fs_fail(err, FS_NO_MEMORY, "no memory for the state of vCPU %u", vcpu);
        goto out;
    }
    if (xc_vcpu_getcontext(x->xch, domid, vcpu, any) != 0) {
        if (errno != ENODATA) {         /* ENODATA: never brought up (I3) */
            s = xen_fail_domain(x, domid, err, errno, "cannot save vCPU %u of domain %u", vcpu, domid);
        }
        goto out;
    }
    if (any->x64.gdt_ents > HV_GDT_FRAMES * 512u || any->x64.ldt_ents > 8192u) {
        s = fs_fail(err, FS_BAD_INPUT, "vCPU %u of domain %u has descriptor tables longer than the architecture's", vcpu, domid);
        goto out;
    }
    b->magic = SAVED_MAGIC;
    b->context_bytes = sizeof b->context;
    memcpy(&b->context, &any->x64, sizeof b->context);
    s = save_ext(x, domid, vcpu, b, err);
    if (s == FS_OK) {
        s = save_xstate(x, domid, vcpu, &b, err);
    }
    if (s == FS_OK) {
        translate_out(&b->context, out);
        out->opaque_bytes = sizeof *b + b->xstate_bytes;
        out->opaque = b;
        b = NULL;
    }
out:
    free(any);
    free(b);
    return s;
}

/* ---- reset ---- */

fs_status_t xen_vcpu_reset(struct hv_backend *be, uint16_t domid, uint32_t vcpu, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    /* No context at all: Xen drops the vCPU's roots and GDT. libxenctrl passes a null handle for a null pointer. */
    if (xc_vcpu_setcontext(x->xch, domid, vcpu, NULL) != 0) {
        return xen_fail_domain(x, domid, err, errno, "cannot reset vCPU %u of domain %u", vcpu, domid);
    }
    return FS_OK;
}

/* ---- loading ---- */

static fs_status_t check_saved(const struct hv_pv_vcpu *v, const struct saved **out, struct fs_error *err)
{
    const struct saved *b = v->opaque;
    if (!b || v->opaque_bytes < sizeof *b || b->magic != SAVED_MAGIC || b->context_bytes != sizeof b->context ||
        b->xstate_bytes > XSTATE_MAX_BYTES || v->opaque_bytes != sizeof *b + b->xstate_bytes) {
        return fs_fail(err, FS_BAD_INPUT, "the saved state of vCPU %u is damaged or of another version", v->vcpu);
    }
    if (v->gdt_entries > HV_GDT_FRAMES * 512u || v->gdt_entries != b->context.gdt_ents) {
        return fs_fail(err, FS_BAD_INPUT, "the saved state of vCPU %u disagrees about its GDT", v->vcpu);
    }
    *out = b;
    return FS_OK;
}

static fs_status_t load_xstate(struct xen_be *x, uint16_t domid, uint32_t vcpu, const void *bytes, size_t count, uint64_t mask,
                               struct fs_error *err)
{
    if (count == 0) {
        return FS_OK;
    }
    DECLARE_HYPERCALL_BUFFER(void, buffer);
    buffer = xc_hypercall_buffer_alloc(x->xch, buffer, count);
    if (!buffer) {
        return fs_fail(err, FS_NO_MEMORY, "no hypercall memory for the state of vCPU %u", vcpu);
    }
    memcpy(buffer, bytes, count);
    struct xen_domctl ctl = { .cmd = XEN_DOMCTL_setvcpuextstate, .domain = domid };
    ctl.u.vcpuextstate.vcpu = vcpu;
    ctl.u.vcpuextstate.xfeature_mask = mask;
    ctl.u.vcpuextstate.size = count;
    set_xen_guest_handle(ctl.u.vcpuextstate.buffer, buffer);
    fs_status_t s = FS_OK;
    if (xc_domctl(x->xch, &ctl) != 0) {
        s = xen_fail_domain(x, domid, err, errno, "cannot load the extended state of vCPU %u of domain %u", vcpu, domid);
    }
    xc_hypercall_buffer_free(x->xch, buffer);
    return s;
}

static fs_status_t set_context(struct xen_be *x, uint16_t domid, uint32_t vcpu, const struct vcpu_guest_context *c, struct fs_error *err)
{
    vcpu_guest_context_any_t *any = calloc(1, sizeof *any);
    if (!any) {
        return fs_fail(err, FS_NO_MEMORY, "no memory for the state of vCPU %u", vcpu);
    }
    memcpy(&any->x64, c, sizeof *c);
    fs_status_t s = FS_OK;
    if (xc_vcpu_setcontext(x->xch, domid, vcpu, any) != 0) {
        s = xen_fail_domain(x, domid, err, errno, "cannot load vCPU %u of domain %u (root %#llx)", vcpu, domid,
                            (unsigned long long)xen_cr3_to_pfn(c->ctrlreg[3]));
    }
    free(any);
    return s;
}

fs_status_t xen_vcpu_load(struct hv_backend *be, uint16_t domid, const struct hv_pv_vcpu *v, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    if (!v->initialised) {
        return FS_OK;                                   /* I3 */
    }
    const struct saved *b = NULL;
    fs_status_t s = check_saved(v, &b, err);
    if (s != FS_OK) {
        return s;
    }
    struct vcpu_guest_context c = b->context;
    c.ctrlreg[3] = cr3_of_mfn(v->cr3);                  /* I4 */
    c.ctrlreg[1] = mfn_is_none(v->user_cr3) ? 0 : cr3_of_mfn(v->user_cr3);
    for (unsigned i = 0; i < gdt_frames(v->gdt_entries); i++) {
        c.gdt_frames[i] = v->gdt[i].n;
    }
    s = set_context(x, domid, v->vcpu, &c, err);
    if (s != FS_OK) {
        return s;
    }
    struct xen_domctl ctl = { .cmd = XEN_DOMCTL_set_ext_vcpucontext, .domain = domid };
    ctl.u.ext_vcpucontext = b->ext;
    ctl.u.ext_vcpucontext.vcpu = v->vcpu;
    if (xc_domctl(x->xch, &ctl) != 0) {
        return xen_fail_domain(x, domid, err, errno, "cannot load the callbacks of vCPU %u of domain %u", v->vcpu, domid);
    }
    return load_xstate(x, domid, v->vcpu, b + 1, b->xstate_bytes, b->xfeature_mask, err);     /* I2 */
}

fs_status_t xen_vcpu_set_cancelled(struct xen_be *x, uint16_t domid, struct fs_error *err)
{
    struct hv_pv_vcpu v;
    fs_status_t s = xen_vcpu_save(&x->be, domid, 0, &v, err);
    if (s != FS_OK) {
        return s;
    }
    struct saved *b = v.opaque;
    if (b && b->context.user_regs.rax != 1) {
        /* The guest stands behind its suspend call; 1 there means that it stays in this domain. */
        b->context.user_regs.rax = 1;
        s = set_context(x, domid, 0, &b->context, err);
        if (s == FS_OK) {
            s = load_xstate(x, domid, 0, b + 1, b->xstate_bytes, b->xfeature_mask, err);        /* I2 */
        }
    }
    hv_vcpu_free(&v);
    return s;
}
