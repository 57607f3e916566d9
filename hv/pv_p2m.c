/*
 * pv_p2m.c - a PV guest's p2m list as the guest keeps it.
 *
 * Owns: reading both ABI forms of the list into a private copy, and writing moved
 * entries back where they live.
 * Invariants:
 *   I1  nothing that the guest wrote is used as an index or length unchecked:
 *       pfn_count <= limit; frame numbers go only to the backend, which refuses
 *       frames that the domain does not own.
 *   I2  pages[i] is MFN_NONE or the frame that holds entries [512 i, 512 i + 512).
 *   I3  pv_p2m_write() stores an entry only over the old or the new frame of that
 *       very move: a list that changed under us is reported, not overwritten.
 * Lock order: none.  The guest must be stopped for an answer that stays true; a read
 * while it runs is good enough to size the reserve.
 * Why a copy: one switch needs the list three times (who moves, agreement with the
 * M2P, fsck), and a mapping of a list of 16 GiB would need 32 MiB of dom0 mappings.
 * Cost: O(pfns), maps MAP_CHUNK frames at a time.
 */
#include "pv_p2m.h"

#include <stdlib.h>
#include <string.h>
#include <xen/xen.h>

#include "frameshift/assert.h"
#include "pv_tables.h"

#define MAP_CHUNK 256u

static fs_status_t map_one(struct hv_backend *be, const struct hv_domain *dom, mfn_t m, enum hv_map_prot prot,
                           const char *what, void **out, struct fs_error *err)
{
    int page_err = 0;
    uint64_t frame = m.n;
    fs_status_t s = be->ops->map(be, dom->domid, &frame, 1, prot, &page_err, out, err);
    if (s != FS_OK) {
        return s;
    }
    if (page_err != 0) {
        be->ops->unmap(be, *out, 1);
        *out = NULL;
        return fs_fail(err, FS_BAD_INPUT, "domain %u: frame %#llx, given as its %s, cannot be mapped: not its own",
                       dom->domid, (unsigned long long)m.n, what);
    }
    return FS_OK;
}

/* ---- the linear form -------------------------------------------------------- */

struct walk {
    struct hv_backend *be;
    const struct hv_domain *dom;
    struct pv_p2m *p;
    uint64_t first_va, end_va;
    struct fs_error *err;
};

/* Descend the tables of p2m_cr3 over [first_va, end_va); at level 1 fill pages[]. va: start of what this table covers. */
static fs_status_t walk_table(struct walk *w, mfn_t table, int level, uint64_t va)
{
    uint64_t copy[512];
    void *map;
    fs_status_t s = map_one(w->be, w->dom, table, HV_MAP_READ, "p2m page table", &map, w->err);
    if (s != FS_OK) {
        return s;
    }
    memcpy(copy, map, sizeof(copy));
    w->be->ops->unmap(w->be, map, 1);

    uint64_t span = 1ull << (12 + 9 * (level - 1));
    for (unsigned i = 0; i < 512; i++) {
        uint64_t start = va + i * span;
        if (start + (span - 1) < w->first_va || start > w->end_va - 1 || !(copy[i] & PTE_PRESENT)) {
            continue;
        }
        if (level == 1) {
            uint64_t page = (start - w->first_va) >> FS_PAGE_SHIFT;
            ASSERT_CMP(page, <, w->p->page_count);
            w->p->pages[page] = mfn_make(pte_frame(copy[i]));
        } else {
            s = walk_table(w, mfn_make(pte_frame(copy[i])), level - 1, start);
            if (s != FS_OK) {
                return s;
            }
        }
    }
    return FS_OK;
}

static fs_status_t locate_linear(struct hv_backend *be, const struct hv_domain *dom, struct pv_p2m *p,
                                 const struct arch_shared_info *arch, struct fs_error *err)
{
    uint64_t va = arch->p2m_vaddr;
    if (va % FS_PAGE_BYTES != 0 || va < 0xffff800000000000ull ||
        p->page_count > (UINT64_MAX - va) >> FS_PAGE_SHIFT) {
        return fs_fail(err, FS_BAD_INPUT, "domain %u: p2m list at %#llx for %llu frames is not a kernel address range",
                       dom->domid, (unsigned long long)va, (unsigned long long)p->pfn_count);
    }
    p->linear = true;
    p->root = mfn_make(xen_cr3_to_pfn(arch->p2m_cr3));
    struct walk w = { .be = be, .dom = dom, .p = p, .first_va = va,
                      .end_va = va + ((uint64_t)p->page_count << FS_PAGE_SHIFT), .err = err };
    uint64_t l4_span_start = va & ~((1ull << 48) - 1);
    /* Only the L4 slots of the list are visited; its canonical base is that of the upper half. */
    return walk_table(&w, p->root, 4, l4_span_start);
}

/* ---- the three-level form ---------------------------------------------------- */

static fs_status_t locate_tree(struct hv_backend *be, const struct hv_domain *dom, struct pv_p2m *p,
                               bool fill_pages, struct fs_error *err)
{
    p->mid_count = (p->page_count + 511) / 512;
    if (p->mid_count > 512) {
        return fs_fail(err, FS_BAD_INPUT, "domain %u: %llu frames do not fit into a three-level p2m list",
                       dom->domid, (unsigned long long)p->pfn_count);
    }
    p->mids = malloc((p->mid_count + 1) * sizeof(*p->mids));
    if (p->mids == NULL) {
        return FS_NO_MEMORY;
    }
    uint64_t *map;
    fs_status_t s = map_one(be, dom, p->top, HV_MAP_READ, "p2m frame list list", (void **)&map, err);
    if (s != FS_OK) {
        return s;
    }
    for (size_t i = 0; i < p->mid_count; i++) {
        p->mids[i] = mfn_make(map[i]);
    }
    be->ops->unmap(be, map, 1);
    for (size_t i = 0; fill_pages && i < p->mid_count; i++) {
        s = map_one(be, dom, p->mids[i], HV_MAP_READ, "p2m frame list", (void **)&map, err);
        if (s != FS_OK) {
            return s;
        }
        for (size_t j = 0; j < 512 && i * 512 + j < p->page_count; j++) {
            p->pages[i * 512 + j] = mfn_make(map[j]);
        }
        be->ops->unmap(be, map, 1);
    }
    return FS_OK;
}

/* ---- reading ------------------------------------------------------------------ */

static fs_status_t read_entries(struct hv_backend *be, const struct hv_domain *dom, struct pv_p2m *p, struct fs_error *err)
{
    memset(p->entries, 0xff, p->page_count * FS_PAGE_BYTES);
    for (size_t i = 0; i < p->page_count; ) {
        uint64_t frames[MAP_CHUNK];
        size_t where[MAP_CHUNK], n = 0;
        int page_err[MAP_CHUNK];
        for (; i < p->page_count && n < MAP_CHUNK; i++) {
            if (!mfn_is_none(p->pages[i])) {
                frames[n] = p->pages[i].n;
                where[n++] = i;
            }
        }
        if (n == 0) {
            break;
        }
        char *map;
        fs_status_t s = be->ops->map(be, dom->domid, frames, n, HV_MAP_READ, page_err, (void **)&map, err);
        if (s != FS_OK) {
            return s;
        }
        for (size_t k = 0; k < n; k++) {
            if (page_err[k] != 0) {
                s = fs_fail(err, FS_BAD_INPUT, "domain %u: p2m page %zu at frame %#llx cannot be mapped: not its own",
                            dom->domid, where[k], (unsigned long long)frames[k]);
                break;
            }
            memcpy(p->entries + where[k] * P2M_ENTRIES_PER_PAGE, map + k * FS_PAGE_BYTES, FS_PAGE_BYTES);
        }
        be->ops->unmap(be, map, n);
        if (s != FS_OK) {
            return s;
        }
    }
    return FS_OK;
}

static fs_status_t read_arch_info(struct hv_backend *be, const struct hv_domain *dom, struct arch_shared_info *out, struct fs_error *err)
{
    shared_info_t *shared;
    fs_status_t s = map_one(be, dom, dom->shared_info, HV_MAP_READ, "shared_info", (void **)&shared, err);
    if (s != FS_OK) {
        return s;
    }
    memcpy(out, &shared->arch, sizeof(*out));
    be->ops->unmap(be, shared, 1);
    return FS_OK;
}

fs_status_t pv_p2m_read(struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns,
                        struct pv_p2m *out, struct fs_error *err)
{
    struct arch_shared_info arch;
    memset(out, 0, sizeof(*out));
    out->top = MFN_NONE;
    out->root = MFN_NONE;
    fs_status_t s = read_arch_info(be, dom, &arch, err);
    if (s != FS_OK) {
        return s;
    }
    bool has_linear = arch.p2m_cr3 != 0 && arch.p2m_vaddr != 0;
    bool has_tree = arch.pfn_to_mfn_frame_list_list != 0 && arch.pfn_to_mfn_frame_list_list != ~0ul;
    if (arch.max_pfn == 0 || (!has_linear && !has_tree)) {
        return fs_fail(err, FS_UNSUPPORTED, "domain %u has no p2m list yet: it is still booting; try again", dom->domid);
    }
    if (arch.max_pfn > limit_pfns) {
        return fs_fail(err, FS_BAD_INPUT, "domain %u claims %lu frames, more than this host could give it",
                       dom->domid, arch.max_pfn);
    }
    out->pfn_count = arch.max_pfn;
    out->page_count = (arch.max_pfn + P2M_ENTRIES_PER_PAGE - 1) / P2M_ENTRIES_PER_PAGE;
    out->pages = malloc(out->page_count * sizeof(*out->pages));
    out->entries = malloc(out->page_count * FS_PAGE_BYTES);
    if (out->pages == NULL || out->entries == NULL) {
        s = FS_NO_MEMORY;
        goto out;
    }
    memset(out->pages, 0xff, out->page_count * sizeof(*out->pages));        /* MFN_NONE */
    if (has_tree) {
        out->top = mfn_make(arch.pfn_to_mfn_frame_list_list);
        s = locate_tree(be, dom, out, !has_linear, err);
        if (s != FS_OK && has_linear) {     /* a linear list outranks a tree that is stale */
            out->top = MFN_NONE;
            out->mid_count = 0;
            s = FS_OK;
        }
    }
    if (s == FS_OK && has_linear) {
        s = locate_linear(be, dom, out, &arch, err);
    }
    if (s == FS_OK) {
        s = read_entries(be, dom, out, err);
    }
out:
    if (s != FS_OK) {
        pv_p2m_free(out);
    }
    return s;
}

void pv_p2m_free(struct pv_p2m *p)
{
    free(p->entries);
    free(p->pages);
    free(p->mids);
    memset(p, 0, sizeof(*p));
}

mfn_t pv_p2m_get(const struct pv_p2m *p, uint64_t pfn)
{
    if (pfn >= p->pfn_count) {
        return MFN_NONE;
    }
    uint64_t e = p->entries[pfn];
    return (e & (P2M_FOREIGN_BIT | P2M_IDENTITY_BIT)) != 0 ? MFN_NONE : mfn_make(e);
}

bool pv_p2m_names(const struct pv_p2m *p, mfn_t m)
{
    for (uint64_t pfn = 0; pfn < p->pfn_count; pfn++) {
        if (mfn_eq(pv_p2m_get(p, pfn), m)) {
            return true;
        }
    }
    return false;
}

bool pv_p2m_has_foreign(const struct pv_p2m *p)
{
    for (uint64_t pfn = 0; pfn < p->pfn_count; pfn++) {
        /* All ones is "no frame"; identity entries have the other bit as well as, on old kernels, this one. */
        if (p->entries[pfn] != FS_FRAME_NONE && (p->entries[pfn] & (P2M_FOREIGN_BIT | P2M_IDENTITY_BIT)) == P2M_FOREIGN_BIT) {
            return true;
        }
    }
    return false;
}

/* ---- writing ------------------------------------------------------------------- */

/* Entries of one page of the list: moves[0..count) all lie in it. */
static fs_status_t write_page(const struct hv_domain *dom, uint64_t *page, const struct pv_move *moves, size_t count,
                              bool forward, struct fs_error *err)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t *e = &page[moves[i].pfn % P2M_ENTRIES_PER_PAGE];
        if (*e != moves[i].old.n && *e != moves[i].new.n) {     /* I3 */
            return fs_fail(err, FS_CORRUPT, "domain %u: p2m entry of pfn %#llx holds %#llx, neither the old frame %#llx nor the new %#llx",
                           dom->domid, (unsigned long long)moves[i].pfn, (unsigned long long)*e,
                           (unsigned long long)moves[i].old.n, (unsigned long long)moves[i].new.n);
        }
        *e = forward ? moves[i].new.n : moves[i].old.n;
    }
    return FS_OK;
}

static fs_status_t write_entries(struct hv_backend *be, const struct hv_domain *dom, const struct pv_p2m *p, const struct xlat *x,
                                 const struct pv_move *moves, size_t count, bool forward, struct fs_error *err)
{
    for (size_t i = 0; i < count; ) {
        uint64_t frames[MAP_CHUNK];
        size_t first[MAP_CHUNK + 1], n = 0;
        int page_err[MAP_CHUNK];
        while (i < count && n < MAP_CHUNK) {
            uint64_t page = moves[i].pfn / P2M_ENTRIES_PER_PAGE;
            ASSERT_CMP(page, <, p->page_count);
            frames[n] = forward ? xlat_get(x, p->pages[page]).n : p->pages[page].n;
            first[n++] = i;
            while (i < count && moves[i].pfn / P2M_ENTRIES_PER_PAGE == page) {
                i++;
            }
        }
        first[n] = i;
        uint64_t *map;
        fs_status_t s = be->ops->map(be, dom->domid, frames, n, HV_MAP_WRITE, page_err, (void **)&map, err);
        if (s != FS_OK) {
            return s;
        }
        for (size_t k = 0; k < n && s == FS_OK; k++) {
            if (page_err[k] != 0) {
                s = fs_fail(err, FS_REFUSED, "domain %u: p2m page at frame %#llx cannot be mapped for writing",
                            dom->domid, (unsigned long long)frames[k]);
            } else {
                s = write_page(dom, map + k * P2M_ENTRIES_PER_PAGE, moves + first[k], first[k + 1] - first[k], forward, err);
            }
        }
        be->ops->unmap(be, map, n);
        if (s != FS_OK) {
            return s;
        }
    }
    return FS_OK;
}

/* Frame numbers inside one list page of the tree. They may be stale where a linear list exists: only known frames are replaced. */
static fs_status_t rewrite_list_page(struct hv_backend *be, const struct hv_domain *dom, mfn_t page, const struct xlat *x,
                                     bool forward, struct fs_error *err)
{
    uint64_t *map;
    mfn_t where = forward ? xlat_get(x, page) : page;
    fs_status_t s = map_one(be, dom, where, HV_MAP_WRITE, "p2m frame list", (void **)&map, err);
    if (s != FS_OK) {
        return s;
    }
    for (unsigned i = 0; i < 512; i++) {
        mfn_t now = mfn_make(map[i]);
        map[i] = forward ? xlat_get(x, now).n : xlat_back(x, now).n;
    }
    be->ops->unmap(be, map, 1);
    return FS_OK;
}

fs_status_t pv_p2m_write(struct hv_backend *be, const struct hv_domain *dom, const struct pv_p2m *p,
                         const struct xlat *x, const struct pv_move *moves, size_t count, bool forward, struct fs_error *err)
{
    fs_status_t s = write_entries(be, dom, p, x, moves, count, forward, err);
    if (s == FS_OK && !mfn_is_none(p->top)) {
        s = rewrite_list_page(be, dom, p->top, x, forward, err);
        for (size_t i = 0; i < p->mid_count && s == FS_OK; i++) {
            s = rewrite_list_page(be, dom, p->mids[i], x, forward, err);
        }
        if (s == FS_BAD_INPUT && p->linear) {   /* a stale tree beside a linear list: nobody reads it */
            s = FS_OK;
        }
    }
    if (s != FS_OK) {
        return s;
    }
    shared_info_t *shared;
    s = map_one(be, dom, dom->shared_info, HV_MAP_WRITE, "shared_info", (void **)&shared, err);
    if (s != FS_OK) {
        return s;
    }
    if (!mfn_is_none(p->top)) {
        shared->arch.pfn_to_mfn_frame_list_list = forward ? xlat_get(x, p->top).n : p->top.n;
    }
    if (p->linear) {
        mfn_t root = forward ? xlat_get(x, p->root) : p->root;
        shared->arch.p2m_cr3 = xen_pfn_to_cr3(root.n);
    }
    be->ops->unmap(be, shared, 1);
    return FS_OK;
}
