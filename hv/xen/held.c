/*
 * held.c - pages that a domain shares by name: rings and grants.
 *
 * Owns: specials().
 * Invariants:
 *  I1  reading changes nothing: the grant table is mapped only as far as it
 *      reaches now (mapping more of it would make Xen grow it).
 *  I2  every number from xenstore is parsed strictly and every frame is below the
 *      machine's or the domain's end; an entry that is not is left out when the guest wrote it
 *      (it leads nowhere), and is an error when the toolstack did.
 *  I3  a grant is MAPPED where Xen's own bits (reading, writing) say so: the guest cannot forge
 *      their absence without losing the grant, and a forged presence only blocks its own frame.
 * Why both versions: v2 keeps the bits in status frames of its own.
 * Cost: one or two mappings, and a pass over the entries: 512 or 256 a page.
 */
#include "xen_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <xen/grant_table.h>
#include <xen/hvm/params.h>

struct list {
    struct hv_special *items;
    size_t count, capacity;
};

static bool add(struct list *l, struct hv_special item)
{
    if (l->count == l->capacity) {
        size_t capacity = l->capacity ? l->capacity * 2 : 64;
        struct hv_special *bigger = realloc(l->items, capacity * sizeof *bigger);
        if (!bigger) {
            return false;
        }
        l->items = bigger;
        l->capacity = capacity;
    }
    l->items[l->count++] = item;
    return true;
}

static fs_status_t no_memory(struct fs_error *err)
{
    return fs_fail(err, FS_NO_MEMORY, "no memory for a domain's shared pages");
}

/* PV frames: the M2P tells the pfn, where it is the guest's. */
static fs_status_t pv_item(struct xen_be *x, uint64_t mfn, uint8_t kind, uint32_t ref, struct hv_special *out, struct fs_error *err)
{
    *out = (struct hv_special){ .gfn = FS_FRAME_NONE, .mfn = mfn_make(mfn), .kind = kind, .grant_ref = ref };
    return xen_m2p_entry(x, mfn, &out->gfn, err);
}

static fs_status_t pv_ring(struct xen_be *x, uint16_t domid, const char *what, uint8_t kind, struct list *l, struct fs_error *err)
{
    char path[64];
    snprintf(path, sizeof path, "/local/domain/%u/%s/ring-ref", domid, what);
    char *text = xen_store_read(x, path);
    if (!text) {
        return FS_OK;                   /* a domain without that ring */
    }
    uint64_t mfn;
    bool good = xen_parse_u64(text, x->max_mfn - 1, &mfn);
    free(text);
    if (!good) {
        return fs_fail(err, FS_BAD_INPUT, "%s is not a frame of this machine", path);
    }
    struct hv_special item;
    fs_status_t s = pv_item(x, mfn, kind, 0, &item, err);
    return s != FS_OK ? s : add(l, item) ? FS_OK : no_memory(err);
}

static fs_status_t hap_rings(struct xen_be *x, uint16_t domid, struct list *l, struct fs_error *err)
{
    static const struct { uint32_t param; uint8_t kind; } rings[] = {
        { HVM_PARAM_STORE_PFN, HV_SPECIAL_XENSTORE },
        { HVM_PARAM_CONSOLE_PFN, HV_SPECIAL_CONSOLE },
        { HVM_PARAM_IOREQ_PFN, HV_SPECIAL_IOREQ },
        { HVM_PARAM_BUFIOREQ_PFN, HV_SPECIAL_IOREQ },
        { HVM_PARAM_PAGING_RING_PFN, HV_SPECIAL_IOREQ },
        { HVM_PARAM_MONITOR_RING_PFN, HV_SPECIAL_IOREQ },
        { HVM_PARAM_SHARING_RING_PFN, HV_SPECIAL_IOREQ },
    };
    for (size_t i = 0; i < FS_ARRAY_SIZE(rings); i++) {
        uint64_t gfn = 0;
        if (xc_hvm_param_get(x->xch, domid, rings[i].param, &gfn) != 0) {
            if (errno == EINVAL) {
                continue;               /* this hypervisor does not know the parameter */
            }
            return xen_fail_domain(x, domid, err, errno, "cannot ask for HVM parameter %u of domain %u", rings[i].param, domid);
        }
        if (gfn == 0 || gfn >> (52 - FS_PAGE_SHIFT)) {
            continue;                   /* not set */
        }
        if (!add(l, (struct hv_special){ .gfn = gfn, .mfn = MFN_NONE, .kind = rings[i].kind })) {
            return no_memory(err);
        }
    }
    return FS_OK;
}

/* ---- grants ---- */

struct table {
    struct xen_be *x;
    uint16_t domid;
    bool hap;
    uint32_t frames;                    /* shared frames now */
    const void *shared;
    const uint16_t *status;             /* v2 only */
    xenforeignmemory_resource_handle *shared_res, *status_res;
};

static fs_status_t map_part(struct table *t, unsigned id, uint32_t frames, xenforeignmemory_resource_handle **res, void **out,
                            struct fs_error *err)
{
    *out = NULL;
    *res = xenforeignmemory_map_resource(t->x->fmem, t->domid, XENMEM_resource_grant_table, id, 0, frames, out, PROT_READ, 0);
    return *res ? FS_OK : xen_fail_domain(t->x, t->domid, err, errno, "cannot map the grant table of domain %u", t->domid);
}

static fs_status_t grant_item(const struct table *t, uint64_t frame, bool in_use, uint32_t ref, struct list *l, struct fs_error *err)
{
    uint8_t kind = in_use ? HV_SPECIAL_GRANT_MAPPED : HV_SPECIAL_GRANT_OFFERED;
    struct hv_special item = { .gfn = frame, .mfn = MFN_NONE, .kind = kind, .grant_ref = ref };
    if (t->hap) {
        if (frame >> (52 - FS_PAGE_SHIFT)) {
            return FS_OK;               /* I2 */
        }
    } else {
        if (frame >= t->x->max_mfn) {
            return FS_OK;               /* I2 */
        }
        fs_status_t s = pv_item(t->x, frame, kind, ref, &item, err);
        if (s != FS_OK) {
            return s;
        }
    }
    return add(l, item) ? FS_OK : no_memory(err);
}

static bool permits_access(uint16_t flags)
{
    return (flags & GTF_type_mask) == GTF_permit_access;
}

static fs_status_t walk_v1(const struct table *t, struct list *l, struct fs_error *err)
{
    const volatile grant_entry_v1_t *e = t->shared;
    uint32_t count = t->frames * (uint32_t)(FS_PAGE_BYTES / sizeof *e);
    for (uint32_t ref = 0; ref < count; ref++) {
        uint16_t flags = e[ref].flags;          /* the guest may write meanwhile: each field is read once */
        if (permits_access(flags)) {
            fs_status_t s = grant_item(t, e[ref].frame, (flags & (GTF_reading | GTF_writing)) != 0, ref, l, err);
            if (s != FS_OK) {
                return s;
            }
        }
    }
    return FS_OK;
}

static fs_status_t walk_v2(const struct table *t, struct list *l, struct fs_error *err)
{
    const volatile grant_entry_v2_t *e = t->shared;
    const volatile uint16_t *status = t->status;
    uint32_t count = t->frames * (uint32_t)(FS_PAGE_BYTES / sizeof *e);
    for (uint32_t ref = 0; ref < count; ref++) {
        uint16_t flags = e[ref].hdr.flags;
        if (permits_access(flags)) {            /* whole pages and parts of one have the frame at the same place */
            fs_status_t s = grant_item(t, e[ref].full_page.frame, (status[ref] & (GTF_reading | GTF_writing)) != 0, ref, l, err);
            if (s != FS_OK) {
                return s;
            }
        }
    }
    return FS_OK;
}

static fs_status_t grants(struct xen_be *x, uint16_t domid, bool hap, struct list *l, struct fs_error *err)
{
    struct table t = { .x = x, .domid = domid, .hap = hap };
    struct gnttab_query_size size = { .dom = domid };
    if (xc_gnttab_query_size(x->xch, &size) != 0 || size.status != GNTST_okay) {
        return xen_fail_domain(x, domid, err, errno ? errno : EINVAL, "cannot ask for the grant table of domain %u", domid);
    }
    t.frames = size.nr_frames;                  /* I1 */
    if (t.frames == 0) {
        return FS_OK;
    }
    int version = xc_gnttab_get_version(x->xch, domid);
    if (version != 1 && version != 2) {
        return xen_fail_domain(x, domid, err, version < 0 ? errno : EINVAL, "cannot ask for the grant table version of domain %u", domid);
    }
    void *p = NULL;
    fs_status_t s = map_part(&t, XENMEM_resource_grant_table_id_shared, t.frames, &t.shared_res, &p, err);
    t.shared = p;
    if (s == FS_OK && version == 2) {
        uint32_t entries = t.frames * (uint32_t)(FS_PAGE_BYTES / sizeof(grant_entry_v2_t));
        uint32_t frames = (entries * (uint32_t)sizeof(grant_status_t) + FS_PAGE_BYTES - 1) / FS_PAGE_BYTES;
        s = map_part(&t, XENMEM_resource_grant_table_id_status, frames, &t.status_res, &p, err);
        t.status = p;
    }
    if (s == FS_OK) {
        s = version == 1 ? walk_v1(&t, l, err) : walk_v2(&t, l, err);
    }
    if (t.shared_res) {
        (void)xenforeignmemory_unmap_resource(x->fmem, t.shared_res);
    }
    if (t.status_res) {
        (void)xenforeignmemory_unmap_resource(x->fmem, t.status_res);
    }
    return s;
}

fs_status_t xen_specials(struct hv_backend *be, uint16_t domid, struct hv_special **out, size_t *count, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    xc_domaininfo_t info;
    struct list l = { 0 };
    if (!xen_domain_info(x, domid, &info)) {
        return xen_fail_domain(x, domid, err, errno, "cannot ask about domain %u", domid);
    }
    bool hap = (info.flags & XEN_DOMINF_hvm_guest) != 0;
    fs_status_t s;
    if (hap) {
        s = hap_rings(x, domid, &l, err);
    } else {
        s = pv_ring(x, domid, "store", HV_SPECIAL_XENSTORE, &l, err);
        if (s == FS_OK) {
            s = pv_ring(x, domid, "console", HV_SPECIAL_CONSOLE, &l, err);
        }
    }
    if (s == FS_OK) {
        s = grants(x, domid, hap, &l, err);
    }
    if (s != FS_OK) {
        free(l.items);
        return s;
    }
    *out = l.items;
    *count = l.count;
    return FS_OK;
}
