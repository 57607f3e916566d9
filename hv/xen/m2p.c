/*
 * m2p.c - Xen's machine-to-physical table.
 *
 * Owns: m2p(), the table's mapping (x->m2p_*), made a gibibyte of machine at a time on
 * first use and kept until the session ends.
 * Invariants:
 *  I1  the table is mapped read-only.
 *  I2  an entry that cannot be a frame number (Xen's marks for "none" and "shared" are such) reads as
 *      FS_FRAME_NONE, as does any frame at or above max_mfn.
 *  I3  an entry is read once: a running PV guest may change the entries of its own frames.
 * Cost: one hypercall for the list of the table's frames, one mapping of 512 pages per gibibyte.
 */
#include "xen_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

static fs_status_t m2p_open(struct xen_be *x, struct fs_error *err)
{
    if (x->m2p_chunks) {
        return FS_OK;
    }
    size_t count = (size_t)((x->max_mfn + XEN_M2P_CHUNK_ENTRIES - 1) / XEN_M2P_CHUNK_ENTRIES);
    const uint64_t **chunks = calloc(count, sizeof *chunks);
    xen_pfn_t *extents = calloc(count, sizeof *extents);
    if (!chunks || !extents) {
        free(chunks);
        free(extents);
        return fs_fail(err, FS_NO_MEMORY, "no memory for the M2P's %zu chunks", count);
    }
    if (xc_machphys_mfn_list(x->xch, count, extents) != 0) {
        fs_status_t s = xen_fail(err, errno, "cannot find Xen's M2P table");
        free(chunks);
        free(extents);
        return s;
    }
    x->m2p_chunks = chunks;
    x->m2p_extents = extents;
    x->m2p_chunk_count = count;
    return FS_OK;
}

static fs_status_t m2p_map(struct xen_be *x, size_t chunk, struct fs_error *err)
{
    size_t pages = XEN_M2P_CHUNK_BYTES / FS_PAGE_BYTES;
    xen_pfn_t list[XEN_M2P_CHUNK_BYTES / FS_PAGE_BYTES];
    for (size_t i = 0; i < pages; i++) {
        list[i] = x->m2p_extents[chunk] + i;
    }
    void *p = xenforeignmemory_map(x->fmem, DOMID_XEN, PROT_READ, pages, list, NULL);
    if (!p) {
        return xen_fail(err, errno, "cannot map chunk %zu of Xen's M2P table", chunk);
    }
    x->m2p_chunks[chunk] = p;
    return FS_OK;
}

fs_status_t xen_m2p_entry(struct xen_be *x, uint64_t mfn, uint64_t *gfn, struct fs_error *err)
{
    *gfn = FS_FRAME_NONE;
    if (mfn >= x->max_mfn) {                            /* I2 */
        return FS_OK;
    }
    fs_status_t s = m2p_open(x, err);
    if (s != FS_OK) {
        return s;
    }
    size_t chunk = (size_t)(mfn / XEN_M2P_CHUNK_ENTRIES);
    if (!x->m2p_chunks[chunk] && (s = m2p_map(x, chunk, err)) != FS_OK) {
        return s;
    }
    /* A running guest may write the entry: read it once. */
    uint64_t v = *(const volatile uint64_t *)&x->m2p_chunks[chunk][mfn % XEN_M2P_CHUNK_ENTRIES];
    /* Xen marks "none" and "shared" by values no frame number can have. */
    *gfn = v >> (52 - FS_PAGE_SHIFT) ? FS_FRAME_NONE : v;
    return FS_OK;
}

void xen_m2p_close(struct xen_be *x)
{
    for (size_t i = 0; i < x->m2p_chunk_count; i++) {
        if (x->m2p_chunks[i]) {
            xenforeignmemory_unmap(x->fmem, (void *)(uintptr_t)x->m2p_chunks[i], XEN_M2P_CHUNK_BYTES / FS_PAGE_BYTES);
        }
    }
    free(x->m2p_chunks);
    free(x->m2p_extents);
}

fs_status_t xen_m2p(struct hv_backend *be, const mfn_t *mfns, size_t count, uint64_t *gfns, struct fs_error *err)
{
    for (size_t i = 0; i < count; i++) {
        fs_status_t s = xen_m2p_entry(xen_be(be), mfns[i].n, &gfns[i], err);
        if (s != FS_OK) {
            return s;
        }
    }
    return FS_OK;
}
