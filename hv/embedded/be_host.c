/*
 * be_host.c - the backend's reading members: host, RAM, tables, domains, frames, M2P, types.
 *
 * Owns: nothing; changes nothing.
 * Rules, as the real machine answers (doc/XEN.md, getpageframeinfo3, XENMEM_machphys_*):
 *  - a frame's type is told only while it is pinned or validated; pages of the Xen heap
 *    that a domain uses (shared_info) count as not owned;
 *  - a HAP domain's frame is found by its M2P entry: one that no gfn leads to is UNOWNED;
 *  - a dying domain is still listed until its last frame is gone.
 * Lock order: the machine's lock during each call.
 * Cost: O(frames asked for).
 */
#include <stdlib.h>

#include "emb_backend.h"
#include "range.h"

fs_status_t emb_op_host(struct hv_backend *be, struct hv_host *out, struct fs_error *err)
{
    struct emb_call c;
    fs_status_t s = emb_enter(be, EMB_OP_host, &c, err);
    if (s != FS_OK) {
        return s;
    }
    *out = (struct hv_host){ .version_major = 4, .version_minor = 17, .version_text = "4.17-embedded",
                             .max_mfn = c.m->max_mfn, .pcpus = c.m->config.pcpus, .node_count = c.m->config.node_count };
    for (uint32_t i = 0; i < out->node_count; i++) {
        out->nodes[i] = (struct hv_node){ .id = i, .total_pages = c.m->config.nodes[i].pages, .free_pages = c.m->nodes[i].free_pages };
        out->total_pages += out->nodes[i].total_pages;
        out->free_pages += out->nodes[i].free_pages;
    }
    emb_leave(&c);
    return FS_OK;
}

fs_status_t emb_op_ram(struct hv_backend *be, struct mfn_range_set *out, struct fs_error *err)
{
    struct emb_call c;
    *out = (struct mfn_range_set){ 0 };
    fs_status_t s = emb_enter(be, EMB_OP_ram, &c, err);
    if (s != FS_OK) {
        return s;
    }
    for (uint32_t i = 0; s == FS_OK && i < c.m->config.node_count; i++) {
        s = mfn_set_add(out, emb_node_range(c.m, i));
    }
    emb_leave(&c);
    if (s != FS_OK) {
        mfn_set_free(out);
    }
    return s;
}

/* ACPI SRAT: one memory affinity structure (type 1) for each node, so that the engine's own parser names the DIMMs. */
static size_t build_srat(const struct emb_machine *m, uint8_t *t)
{
    uint32_t length = 48 + 40 * m->config.node_count;
    memset(t, 0, length);
    memcpy(t, "SRAT", 4);
    memcpy(t + 4, &length, 4);
    t[8] = 3;                           /* revision */
    memcpy(t + 10, "FSHIFT", 6);
    memcpy(t + 16, "EMBEDDED", 8);
    t[36] = 1;                          /* reserved, 1 for compatibility */
    for (uint32_t i = 0; i < m->config.node_count; i++) {
        uint8_t *e = t + 48 + 40 * i;
        uint64_t base = m->nodes[i].start * FS_PAGE_BYTES, bytes = (m->nodes[i].end - m->nodes[i].start) * FS_PAGE_BYTES;
        uint32_t enabled = 1;
        e[0] = 1;
        e[1] = 40;
        memcpy(e + 2, &i, 4);
        memcpy(e + 8, &base, 8);
        memcpy(e + 16, &bytes, 8);
        memcpy(e + 28, &enabled, 4);
    }
    uint8_t sum = 0;
    for (uint32_t i = 0; i < length; i++) {
        sum = (uint8_t)(sum + t[i]);
    }
    t[9] = (uint8_t)-sum;
    return length;
}

fs_status_t emb_op_table(struct hv_backend *be, enum hv_table table, uint8_t **out, size_t *bytes, struct fs_error *err)
{
    struct emb_call c;
    *out = NULL;
    *bytes = 0;
    fs_status_t s = emb_enter(be, EMB_OP_table, &c, err);
    if (s != FS_OK) {
        return s;
    }
    if (table != HV_TABLE_SRAT) {
        s = fs_fail(err, FS_NOT_FOUND, "the embedded machine has no such firmware table");
    } else if ((*out = malloc(48 + 40 * EMB_NODES_MAX)) == NULL) {
        s = fs_fail(err, FS_NO_MEMORY, "no memory for a firmware table");
    } else {
        *bytes = build_srat(c.m, *out);
    }
    emb_leave(&c);
    return s;
}

/* ---- domains ------------------------------------------------------------- */

static void describe(const struct emb_domain *d, struct hv_domain *out)
{
    *out = (struct hv_domain){ .domid = d->domid, .kind = (uint8_t)d->kind, .paused = d->pause_count > 0, .shutdown = d->shutdown,
                               .dying = d->dying, .shutdown_reason = d->shutdown_reason, .tot_pages = d->tot_pages,
                               .max_pages = d->max_pages, .vcpus = d->vcpu_count,
                               .shared_info = d->shared_info ? mfn_make(d->shared_info) : MFN_NONE };
    memcpy(out->uuid, d->uuid, sizeof(out->uuid));
    memcpy(out->name, d->name, sizeof(out->name));
    for (uint32_t i = 0; i < d->vcpu_count; i++) {
        out->vcpus_online += d->vcpus[i].online;
    }
}

static int by_domid(const void *a, const void *b)
{
    const struct hv_domain *x = a, *y = b;
    return (x->domid > y->domid) - (x->domid < y->domid);
}

fs_status_t emb_op_domains(struct hv_backend *be, struct hv_domain **out, size_t *count, struct fs_error *err)
{
    struct emb_call c;
    *out = NULL;
    *count = 0;
    fs_status_t s = emb_enter(be, EMB_OP_domains, &c, err);
    if (s != FS_OK) {
        return s;
    }
    struct hv_domain *list = calloc(EMB_DOMAINS_MAX, sizeof(*list));
    if (!list) {
        s = fs_fail(err, FS_NO_MEMORY, "no memory for the list of domains");
    } else {
        for (uint32_t i = 0; i < EMB_DOMAINS_MAX; i++) {
            if (c.m->domains[i].used) {
                describe(&c.m->domains[i], &list[(*count)++]);
            }
        }
        qsort(list, *count, sizeof(*list), by_domid);
        *out = list;
    }
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_domain(struct hv_backend *be, uint16_t domid, struct hv_domain *out, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_domain, domid, &c, &d, err);
    if (s == FS_OK) {
        describe(d, out);
        emb_leave(&c);
    }
    return s;
}

/* ---- frames -------------------------------------------------------------- */

static uint8_t shown_type(const struct emb_frame *f)
{
    return (f->flags & (EMB_F_PINNED | EMB_F_VALIDATED)) && f->type <= EMB_T_L4 ? f->type : HV_TYPE_NONE;
}

static bool is_pv(const struct emb_domain *d)
{
    return d->kind != HV_DOMAIN_HAP && d->kind != HV_DOMAIN_OTHER;
}

static struct hv_frame describe_frame(struct emb_machine *m, uint64_t mfn)
{
    struct hv_frame out = { .gfn = FS_FRAME_NONE, .domid = FS_DOMID_NONE, .owner = HV_FRAME_HOLE };
    if (!emb_is_ram(m, mfn)) {
        return out;
    }
    const struct emb_frame *f = emb_frame_at(m, mfn);
    out.owner = HV_FRAME_UNOWNED;
    if (f->flags & EMB_F_BROKEN) {
        out.owner = HV_FRAME_BROKEN;
    } else if (f->state == EMB_S_OFFLINED) {
        out.owner = HV_FRAME_OFFLINED;
    } else if (f->state == EMB_S_OFFLINING) {
        out.flags |= HV_FRAME_PENDING;
    }
    const struct emb_domain *d = emb_owner(m, f);
    if (!d || (f->flags & EMB_F_XEN_HEAP) || f->count == 0 || out.owner != HV_FRAME_UNOWNED) {
        return out;
    }
    if (!is_pv(d) && (f->m2p1 == 0 || emb_p2m_get(m, d, f->m2p1 - 1) != mfn)) {
        return out;
    }
    out.owner = HV_FRAME_DOMAIN;
    out.domid = d->domid;
    out.gfn = f->m2p1 ? f->m2p1 - 1 : FS_FRAME_NONE;
    if (is_pv(d)) {
        out.type = shown_type(f);
        out.flags = (uint8_t)(out.flags | (f->flags & EMB_F_PINNED ? HV_FRAME_PINNED : 0));
    }
    return out;
}

fs_status_t emb_op_frames(struct hv_backend *be, struct mfn_range range, struct hv_frame *out, struct fs_error *err)
{
    struct emb_call c;
    fs_status_t s = emb_enter(be, EMB_OP_frames, &c, err);
    if (s != FS_OK) {
        return s;
    }
    for (uint64_t mfn = range.start.n; mfn < range.end.n; mfn++) {
        out[mfn - range.start.n] = describe_frame(c.m, mfn);
    }
    emb_leave(&c);
    return FS_OK;
}

fs_status_t emb_op_m2p(struct hv_backend *be, const mfn_t *mfns, size_t count, uint64_t *gfns, struct fs_error *err)
{
    struct emb_call c;
    fs_status_t s = emb_enter(be, EMB_OP_m2p, &c, err);
    if (s != FS_OK) {
        return s;
    }
    for (size_t i = 0; i < count; i++) {
        gfns[i] = emb_is_ram(c.m, mfns[i].n) ? emb_frame_at(c.m, mfns[i].n)->m2p1 - 1 : FS_FRAME_NONE;
    }
    emb_leave(&c);
    return FS_OK;
}

fs_status_t emb_op_types(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, uint8_t *types, uint8_t *flags,
                         bool *owned, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_types, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    for (size_t i = 0; i < count; i++) {
        types[i] = flags[i] = 0;
        owned[i] = emb_get_page(c.m, mfns[i].n, d) == 0;
        if (!owned[i]) {
            continue;
        }
        const struct emb_frame *f = emb_frame_at(c.m, mfns[i].n);
        owned[i] = !(f->flags & EMB_F_XEN_HEAP);
        if (owned[i]) {
            types[i] = shown_type(f);
            flags[i] = (uint8_t)((f->flags & EMB_F_PINNED ? HV_FRAME_PINNED : 0) | (f->state == EMB_S_OFFLINING ? HV_FRAME_PENDING : 0));
        }
        emb_put_page(c.m, mfns[i].n);
    }
    emb_leave(&c);
    return FS_OK;
}

fs_status_t emb_op_frame_refs(struct hv_backend *be, const mfn_t *mfns, size_t count, struct hv_frame_refs *out, struct fs_error *err)
{
    struct emb_call c;
    fs_status_t s = emb_enter(be, EMB_OP_frame_refs, &c, err);
    if (s != FS_OK) {
        return s;
    }
    for (size_t i = 0; i < count; i++) {
        out[i] = (struct hv_frame_refs){ .known = emb_is_ram(c.m, mfns[i].n), .domid = FS_DOMID_NONE };
        if (!out[i].known) {
            continue;
        }
        const struct emb_frame *f = emb_frame_at(c.m, mfns[i].n);
        const struct emb_domain *d = emb_owner(c.m, f);
        out[i].xen_heap = f->flags & EMB_F_XEN_HEAP;
        out[i].domid = d ? d->domid : FS_DOMID_NONE;
        out[i].count = f->count;
        out[i].type_count = f->type_count;
    }
    emb_charge(c.m, 1000000 * count);
    emb_leave(&c);
    return FS_OK;
}
