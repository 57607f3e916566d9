/*
 * hc_memory.c - memory_op of a core domain (public/memory.h).
 *
 * Owns: nothing; loops over memory.c's calls.
 * Rules: increase, decrease and populate return the number of extents done; the first that
 * fails ends the call without an error.  Populate of a PV domain sets the M2P and writes the frame back
 * over the pfn.  Exchange works chunk by chunk: a chunk's inputs must all be exclusively owned (EINVAL), its output is
 * allocated (ENOMEM) before an input is freed; nr_exchanged counts what is done.
 * XENMEMF_node, _exact_node and _address_bits are honoured: what a node would give next is above the limit, or the limit has fewer than 32
 * bits: ENOMEM (the heap does not look for a lower piece).
 * Orders above 9 are EPERM, as for a domain without devices.
 * Lock order: the machine's lock is held.
 * Cost: O(frames), one copy each way for a list of up to 512 extents.
 */
#include "emb_core.h"

#include <xen/xen.h>
#include <xen/memory.h>

#define GUEST_ORDER_MAX 9u
#define LIST 512u

static void unplace(struct emb_machine *m, uint64_t mfn, uint32_t order)
{
    for (uint64_t i = 0; i < (1ull << order); i++) {
        emb_heap_free(m, mfn + i);
    }
}

static int place(struct emb_machine *m, uint32_t order, uint32_t flags, uint64_t *mfn)
{
    uint32_t bits = XENMEMF_get_address_bits(flags), node = XENMEMF_get_node(flags) & 0xff;
    if (bits != 0 && bits < 32) {
        return -ENOMEM;
    }
    bool any = node >= m->config.node_count;
    uint32_t first = any ? 0 : node, tries = any || !(flags & XENMEMF_exact_node_request) ? m->config.node_count : 1;
    for (uint32_t i = 0; i < tries; i++) {
        *mfn = emb_heap_alloc(m, (first + i) % m->config.node_count, order);
        if (*mfn != FS_FRAME_NONE && bits != 0 && bits < 52 && *mfn + (1ull << order) > 1ull << (bits - FS_PAGE_SHIFT)) {
            unplace(m, *mfn, order);    /* nodes are not searched for a lower one */
        } else if (*mfn != FS_FRAME_NONE) {
            return 0;
        }
    }
    return -ENOMEM;
}

static int one_extent(struct emb_hcall *h, unsigned cmd, const struct xen_memory_reservation *r, uint64_t *frame)
{
    if (cmd == XENMEM_decrease_reservation) {
        int rc = 0;
        if (emb_decrease_extent(h->m, h->d, *frame, r->extent_order)) {
            return 0;
        }
        for (uint64_t i = 0; rc == 0 && i < (1ull << r->extent_order); i++) {
            rc = emb_decrease(h->m, h->d, *frame + i);
        }
        return rc;
    }
    uint64_t mfn, pfn = *frame;
    int rc = place(h->m, r->extent_order, r->mem_flags, &mfn);
    if (rc == 0 && (rc = emb_assign(h->m, h->d, mfn, r->extent_order)) != 0) {
        unplace(h->m, mfn, r->extent_order);
    }
    if (rc) {
        return rc;
    }
    for (uint64_t i = 0; cmd == XENMEM_populate_physmap && i < (1ull << r->extent_order); i++) {
        emb_m2p_set(emb_frame_at(h->m, mfn + i), pfn + i + 1);
    }
    *frame = mfn;
    return 0;
}

static long reservation(struct emb_hcall *h, unsigned cmd)
{
    struct xen_memory_reservation r;
    uint64_t list[LIST], done = 0;
    int rc = emb_from_guest(&r, h->a[1], sizeof(r));
    if (rc || (rc = emb_self_only(h, r.domid)) != 0) {
        return rc;
    }
    if (r.extent_order > GUEST_ORDER_MAX) {
        return 0;                       /* not one extent done */
    }
    while (done < r.nr_extents) {
        uint64_t n = r.nr_extents - done < LIST ? r.nr_extents - done : LIST, at = (uint64_t)(uintptr_t)r.extent_start.p + done * 8, i = 0;
        bool out = cmd != XENMEM_decrease_reservation && r.extent_start.p;
        if ((cmd != XENMEM_increase_reservation && emb_from_guest(list, at, n * 8) != 0)) {
            break;
        }
        while (i < n && one_extent(h, cmd, &r, &list[i]) == 0) {
            i++;
        }
        done += i;
        if ((out && emb_to_guest(at, list, i * 8) != 0) || i < n) {
            break;
        }
    }
    return (long)done;
}

/* ---- exchange ------------------------------------------------------------ */

static int check_exchange(const struct emb_hcall *h, const struct xen_memory_exchange *x)
{
    if (x->in.extent_order > GUEST_ORDER_MAX || x->out.extent_order > GUEST_ORDER_MAX) {
        return -EPERM;
    }
    if (x->nr_exchanged > x->in.nr_extents || x->in.domid != x->out.domid || x->in.nr_extents > 1u << 20 || x->out.nr_extents > 1u << 20 ||
        x->in.nr_extents << x->in.extent_order != x->out.nr_extents << x->out.extent_order) {
        return -EINVAL;
    }
    return emb_self_only(h, x->in.domid);
}

/* One chunk: 2^order pages in, as many out. */
static int exchange_chunk(struct emb_hcall *h, const struct xen_memory_exchange *x, uint64_t chunk, uint32_t order)
{
    uint64_t in[1u << GUEST_ORDER_MAX], frames[1u << GUEST_ORDER_MAX], out[1u << GUEST_ORDER_MAX], fresh[1u << GUEST_ORDER_MAX];
    uint64_t n_in = 1ull << (order - x->in.extent_order), n_out = 1ull << (order - x->out.extent_order), got = 0;
    if (emb_from_guest(in, (uint64_t)(uintptr_t)x->in.extent_start.p + chunk * n_in * 8, n_in * 8) != 0 ||
        emb_from_guest(out, (uint64_t)(uintptr_t)x->out.extent_start.p + chunk * n_out * 8, n_out * 8) != 0) {
        return -EFAULT;
    }
    for (uint64_t i = 0; i < (1ull << order); i++) {
        frames[i] = in[i >> x->in.extent_order] + (i & ((1ull << x->in.extent_order) - 1));
        for (uint64_t k = 0; k < i; k++) {
            if (frames[k] == frames[i]) {
                return -EINVAL;         /* stolen already */
            }
        }
    }
    if (emb_exchange_probe(h->m, h->d, frames, 1ull << order) != -ENOMEM) {
        return -EINVAL;
    }
    int rc = 0;
    while (got < n_out && (rc = place(h->m, x->out.extent_order, x->out.mem_flags, &fresh[got])) == 0) {
        got++;
    }
    if (rc) {
        while (got-- > 0) {
            unplace(h->m, fresh[got], x->out.extent_order);
        }
        return rc;
    }
    for (uint64_t i = 0; i < (1ull << order); i++) {
        rc = emb_decrease(h->m, h->d, frames[i]);
        ASSERT_CMP(rc, ==, 0);          /* exclusively owned, a moment ago */
    }
    for (uint64_t i = 0; i < n_out; i++) {
        emb_assign_exchanged(h->m, h->d, fresh[i], x->out.extent_order);
        for (uint64_t k = 0; k < (1ull << x->out.extent_order); k++) {
            emb_m2p_set(emb_frame_at(h->m, fresh[i] + k), out[i] + k + 1);
        }
    }
    return emb_to_guest((uint64_t)(uintptr_t)x->out.extent_start.p + chunk * n_out * 8, fresh, n_out * 8);
}

static long exchange(struct emb_hcall *h)
{
    struct xen_memory_exchange x;
    int rc = emb_from_guest(&x, h->a[1], sizeof(x));
    if (rc || (rc = check_exchange(h, &x)) != 0) {
        return rc;
    }
    uint32_t order = x.in.extent_order > x.out.extent_order ? x.in.extent_order : x.out.extent_order;
    uint64_t per_chunk = 1ull << (order - x.in.extent_order);
    uint64_t chunk = x.nr_exchanged / per_chunk, chunks = x.in.nr_extents / per_chunk;
    while (rc == 0 && chunk < chunks && (rc = exchange_chunk(h, &x, chunk, order)) == 0) {
        chunk++;
    }
    x.nr_exchanged = chunk * per_chunk;
    int copied = emb_to_guest(h->a[1], &x, sizeof(x));
    return rc ? rc : copied;
}

static long reservation_of(struct emb_hcall *h, unsigned cmd)
{
    domid_t domid;
    int rc = emb_from_guest(&domid, h->a[1], sizeof(domid));
    if (rc || (rc = emb_self_only(h, domid)) != 0) {
        return rc;
    }
    return (long)(cmd == XENMEM_current_reservation ? h->d->tot_pages : h->d->max_pages);
}

long emb_hc_memory(struct emb_hcall *h)
{
    unsigned cmd = (unsigned)h->a[0];
    switch (cmd) {
    case XENMEM_increase_reservation: case XENMEM_decrease_reservation: case XENMEM_populate_physmap:
        return reservation(h, cmd);
    case XENMEM_exchange: return exchange(h);
    case XENMEM_maximum_ram_page: return (long)h->m->max_mfn - 1;
    case XENMEM_current_reservation: case XENMEM_maximum_reservation: return reservation_of(h, cmd);
    default: return -ENOSYS;
    }
}
