/*
 * content.c - the bytes in frames: mapping and copying.
 *
 * Owns: map(), unmap(), copy(), unpin(), pin(), m2p_set(): everything that goes
 * to Xen as a long list of small operations.
 * Invariants:
 *  I1  map() and copy() touch no state of the session but handles that any thread may
 *      use: they are [mt].
 *  I2  a failed list tells the frame at which it stopped: Xen counts what it has done.
 *  I3  a mapping is of one piece; a page that could not be mapped has its error in page_err[i] and
 *      faults when touched.
 * Why copy() maps nothing: Xen copies between two frames of the domain by itself,
 * 2048 pairs a call, which is several times faster than two foreign mappings.
 * Cost: one hypercall per 2048 operations; one per mapped batch inside the kernel.
 */
#include "xen_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

fs_status_t xen_map(struct hv_backend *be, uint16_t domid, const uint64_t *frames, size_t count, enum hv_map_prot prot,
                    int *page_err, void **out, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    int flags = prot == HV_MAP_WRITE ? PROT_READ | PROT_WRITE : PROT_READ;
    memset(page_err, 0, count * sizeof *page_err);
    void *p = xenforeignmemory_map(x->fmem, domid, flags, count, (const xen_pfn_t *)frames, page_err);
    if (!p) {
        return xen_fail(err, errno, "cannot map %zu frames of domain %u from frame %#llx", count, domid,
                        (unsigned long long)(count ? frames[0] : 0));
    }
    *out = p;
    return FS_OK;
}

void xen_unmap(struct hv_backend *be, void *addr, size_t count)
{
    if (addr) {
        (void)xenforeignmemory_unmap(xen_be(be)->fmem, addr, count);
    }
}

/* One list of MMUEXT operations: fill() writes operation i.  *at: the frame that stopped it. */
typedef void (*fill_fn)(struct mmuext_op *op, const void *list, size_t i);

static int mmuext_list(struct xen_be *x, uint16_t domid, const void *list, size_t count, fill_fn fill, size_t *stopped_at)
{
    struct page { unsigned done; unsigned pad; struct mmuext_op op[]; } *b;
    size_t most = count < XEN_MMUEXT_BATCH ? count : XEN_MMUEXT_BATCH;
    b = xencall_alloc_buffer(x->xcall, sizeof *b + most * sizeof b->op[0]);
    if (!b) {
        *stopped_at = 0;
        return errno ? errno : ENOMEM;
    }
    int e = 0;
    for (size_t at = 0; at < count && e == 0; at += most) {
        size_t n = count - at < most ? count - at : most;
        memset(b, 0, sizeof *b + n * sizeof b->op[0]);
        for (size_t i = 0; i < n; i++) {
            fill(&b->op[i], list, at + i);
        }
        if (xencall4(x->xcall, __HYPERVISOR_mmuext_op, (uint64_t)(uintptr_t)b->op, n, (uint64_t)(uintptr_t)&b->done, domid) < 0) {
            e = errno;
            *stopped_at = at + (b->done < n ? b->done : n - 1);         /* I2 */
        }
    }
    xencall_free_buffer(x->xcall, b);
    return e;
}

static void fill_copy(struct mmuext_op *op, const void *list, size_t i)
{
    const struct hv_copy *c = (const struct hv_copy *)list + i;
    op->cmd = MMUEXT_COPY_PAGE;
    op->arg1.mfn = c->to.n;
    op->arg2.src_mfn = c->from.n;
}

static void fill_unpin(struct mmuext_op *op, const void *list, size_t i)
{
    op->cmd = MMUEXT_UNPIN_TABLE;
    op->arg1.mfn = ((const mfn_t *)list)[i].n;
}

static void fill_pin(struct mmuext_op *op, const void *list, size_t i)
{
    const struct hv_pin *p = (const struct hv_pin *)list + i;
    op->cmd = (unsigned)MMUEXT_PIN_L1_TABLE + p->level - 1u;
    op->arg1.mfn = p->mfn.n;
}

fs_status_t xen_copy(struct hv_backend *be, uint16_t domid, const struct hv_copy *list, size_t count, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    size_t at = 0;
    int e = mmuext_list(x, domid, list, count, fill_copy, &at);
    return e == 0 ? FS_OK : xen_fail_domain(x, domid, err, e, "cannot copy frame %#llx to %#llx of domain %u",
                                            (unsigned long long)list[at].from.n, (unsigned long long)list[at].to.n, domid);
}

fs_status_t xen_unpin(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    size_t at = 0;
    int e = mmuext_list(x, domid, mfns, count, fill_unpin, &at);
    return e == 0 ? FS_OK : xen_fail_domain(x, domid, err, e, "cannot unpin table %#llx of domain %u (%zu of %zu done)",
                                            (unsigned long long)mfns[at].n, domid, at, count);
}

fs_status_t xen_pin(struct hv_backend *be, uint16_t domid, const struct hv_pin *pins, size_t count, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    for (size_t i = 0; i < count; i++) {
        if (pins[i].level < 1 || pins[i].level > 4) {
            return fs_fail(err, FS_BAD_INPUT, "table %#llx has level %u", (unsigned long long)pins[i].mfn.n, pins[i].level);
        }
    }
    size_t at = 0;
    int e = mmuext_list(x, domid, pins, count, fill_pin, &at);
    return e == 0 ? FS_OK : xen_fail_domain(x, domid, err, e, "cannot pin table %#llx of domain %u at level %u (%zu of %zu done)",
                                            (unsigned long long)pins[at].mfn.n, domid, pins[at].level, at, count);
}

fs_status_t xen_m2p_set(struct hv_backend *be, uint16_t domid, const struct hv_m2p_set *list, size_t count, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    struct page { unsigned done; unsigned pad; struct mmu_update req[]; } *b;
    size_t most = count < XEN_MMUEXT_BATCH ? count : XEN_MMUEXT_BATCH;
    b = xencall_alloc_buffer(x->xcall, sizeof *b + most * sizeof b->req[0]);
    if (!b) {
        return fs_fail(err, FS_NO_MEMORY, "no hypercall memory for %zu M2P entries", most);
    }
    fs_status_t s = FS_OK;
    for (size_t at = 0; at < count && s == FS_OK; at += most) {
        size_t n = count - at < most ? count - at : most;
        b->done = 0;
        for (size_t i = 0; i < n; i++) {
            b->req[i].ptr = list[at + i].mfn.n << FS_PAGE_SHIFT | MMU_MACHPHYS_UPDATE;
            b->req[i].val = list[at + i].pfn.n;
        }
        /* The lower half of the last argument is the frames' owner; a page-table owner in the upper half would be refused. */
        if (xencall4(x->xcall, __HYPERVISOR_mmu_update, (uint64_t)(uintptr_t)b->req, n, (uint64_t)(uintptr_t)&b->done, domid) < 0) {
            int e = errno;
            size_t i = at + (b->done < n ? b->done : n - 1);
            s = xen_fail_domain(x, domid, err, e, "cannot set the M2P entry of frame %#llx to pfn %#llx of domain %u",
                                (unsigned long long)list[i].mfn.n, (unsigned long long)list[i].pfn.n, domid);
        }
    }
    xencall_free_buffer(x->xcall, b);
    return s;
}
