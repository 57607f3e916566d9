/*
 * grants.c - which gfns a translated domain's grants permit access to, read many times.
 *
 * Owns: struct hv_grants: the domain's grant table, mapped for as long as the watch lasts.
 * Invariants:
 *  I1  what is mapped is the whole table of now: each read asks Xen for its size and version
 *      first, and maps anew if either changed.  More than that is never mapped: Xen would grow the
 *      table for us.
 *  I2  the guest writes while we read: each field is read once; a frame number that cannot be one
 *      is left out (Xen refuses to map it as well).
 *  I3  transitive grants name another domain's grant, so no frame of this one.
 * Why beside specials(): that one asks for rings too and maps the table each time, some twenty
 * calls; this is asked in every pause.
 * Cost: two hypercalls and a pass over the entries, 512 or 256 a table page.
 */
#include "xen_priv.h"
#include "grants.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <xen/grant_table.h>

struct hv_grants {
    uint16_t domid;
    int version;
    uint32_t frames;
    const void *shared;
    xenforeignmemory_resource_handle *resource;
    uint64_t *gfns;
    size_t capacity;
};

static void unmap(struct xen_be *x, struct hv_grants *g)
{
    if (g->resource) {
        (void)xenforeignmemory_unmap_resource(x->fmem, g->resource);
    }
    g->resource = NULL;
    g->shared = NULL;
}

static fs_status_t size_of(struct xen_be *x, uint16_t domid, uint32_t *frames, int *version, struct fs_error *err)
{
    struct gnttab_query_size size = { .dom = domid };
    if (xc_gnttab_query_size(x->xch, &size) != 0 || size.status != GNTST_okay) {
        return xen_fail_domain(x, domid, err, errno ? errno : EINVAL, "cannot ask for the grant table of domain %u", domid);
    }
    *version = xc_gnttab_get_version(x->xch, domid);
    if (*version != 1 && *version != 2) {
        return xen_fail_domain(x, domid, err, *version < 0 ? errno : EINVAL, "cannot ask for the grant table version of domain %u", domid);
    }
    *frames = size.nr_frames;
    return FS_OK;
}

/* I1 */
static fs_status_t refresh(struct xen_be *x, struct hv_grants *g, struct fs_error *err)
{
    uint32_t frames = 0;
    int version = 0;
    fs_status_t s = size_of(x, g->domid, &frames, &version, err);
    if (s != FS_OK || (frames == g->frames && version == g->version)) {
        return s;
    }
    unmap(x, g);
    g->frames = 0;
    size_t entries = (size_t)frames * (FS_PAGE_BYTES / sizeof(grant_entry_v1_t));
    if (entries > g->capacity) {
        uint64_t *grown = realloc(g->gfns, entries * sizeof *grown);
        if (!grown) {
            return fs_fail(err, FS_NO_MEMORY, "no memory for the grants of domain %u", g->domid);
        }
        g->gfns = grown;
        g->capacity = entries;
    }
    if (frames > 0) {
        void *p = NULL;
        g->resource = xenforeignmemory_map_resource(x->fmem, g->domid, XENMEM_resource_grant_table, XENMEM_resource_grant_table_id_shared,
                                                    0, frames, &p, PROT_READ, 0);
        if (!g->resource) {
            return xen_fail_domain(x, g->domid, err, errno, "cannot map the grant table of domain %u", g->domid);
        }
        g->shared = p;
    }
    g->frames = frames;
    g->version = version;
    return FS_OK;
}

static bool permits_access(uint16_t flags)
{
    return (flags & GTF_type_mask) == GTF_permit_access;
}

static bool possible(uint64_t gfn)
{
    return gfn >> (52 - FS_PAGE_SHIFT) == 0;
}

fs_status_t xen_grants_read(struct hv_backend *be, struct hv_grants *g, const uint64_t **gfns, size_t *count, struct fs_error *err)
{
    fs_status_t s = refresh(xen_be(be), g, err);
    size_t n = 0;
    *gfns = g->gfns;
    *count = 0;
    if (s != FS_OK) {
        return s;
    }
    if (g->version == 1) {
        const volatile grant_entry_v1_t *e = g->shared;
        for (size_t i = 0; i < (size_t)g->frames * (FS_PAGE_BYTES / sizeof *e); i++) {
            uint64_t gfn = e[i].frame;                  /* I2 */
            if (permits_access(e[i].flags)) {
                g->gfns[n++] = gfn;
            }
        }
    } else {
        const volatile grant_entry_v2_t *e = g->shared;
        for (size_t i = 0; i < (size_t)g->frames * (FS_PAGE_BYTES / sizeof *e); i++) {
            uint64_t gfn = e[i].full_page.frame;
            if (permits_access(e[i].hdr.flags) && possible(gfn)) {
                g->gfns[n++] = gfn;
            }
        }
    }
    *count = n;
    return FS_OK;
}

fs_status_t xen_grants_begin(struct hv_backend *be, uint16_t domid, struct hv_grants **out, struct fs_error *err)
{
    struct hv_grants *g = calloc(1, sizeof *g);
    if (!g) {
        return fs_fail(err, FS_NO_MEMORY, "no memory for the grants of domain %u", domid);
    }
    g->domid = domid;
    fs_status_t s = refresh(xen_be(be), g, err);
    if (s != FS_OK) {
        xen_grants_end(be, g);
        return s;
    }
    *out = g;
    return FS_OK;
}

void xen_grants_end(struct hv_backend *be, struct hv_grants *g)
{
    if (g) {
        unmap(xen_be(be), g);
        free(g->gfns);
        free(g);
    }
}
