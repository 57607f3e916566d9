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
 * M2P, fsck), and a mapping of a list of 16 GiB would need 32 MiB of dom0 mappings.  It holds 32 bits an entry: foreign and
 * identity marks are looked at while it is read, and are no frames.  Who needs it once only uses pv_p2m_each().
 * Cost: O(pfns), 4 bytes each, maps MAP_CHUNK frames at a time.
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

/* What an entry says: a frame, or MFN_NONE. */
static mfn_t entry_frame(uint64_t e)
{
    return (e & (P2M_FOREIGN_BIT | P2M_IDENTITY_BIT)) != 0 ? MFN_NONE : mfn_make(e);
}

/* All ones is "no frame"; identity entries have the other bit as well as, on old kernels, this one. */
static bool entry_foreign(uint64_t e)
{
    return e != FS_FRAME_NONE && (e & (P2M_FOREIGN_BIT | P2M_IDENTITY_BIT)) == P2M_FOREIGN_BIT;
}

typedef void (*page_fn)(void *arg, size_t page, const uint64_t *entries);

/* fn for each page of the list that there is, ascending. */
static fs_status_t each_page(struct hv_backend *be, const struct hv_domain *dom, const struct pv_p2m *p, page_fn fn, void *arg,
                             struct fs_error *err)
{
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
        uint64_t *map;
        fs_status_t s = be->ops->map(be, dom->domid, frames, n, HV_MAP_READ, page_err, (void **)&map, err);
        if (s != FS_OK) {
            return s;
        }
        for (size_t k = 0; k < n && s == FS_OK; k++) {
            if (page_err[k] != 0) {
                s = fs_fail(err, FS_BAD_INPUT, "domain %u: p2m page %zu at frame %#llx cannot be mapped: not its own",
                            dom->domid, where[k], (unsigned long long)frames[k]);
            } else {
                fn(arg, where[k], map + k * P2M_ENTRIES_PER_PAGE);
            }
        }
        be->ops->unmap(be, map, n);
        if (s != FS_OK) {
            return s;
        }
    }
    return FS_OK;
}

static void keep_page(void *arg, size_t page, const uint64_t *entries)
{
    struct pv_p2m *p = arg;
    uint64_t first = (uint64_t)page * P2M_ENTRIES_PER_PAGE;
    uint64_t count = p->pfn_count - first < P2M_ENTRIES_PER_PAGE ? p->pfn_count - first : P2M_ENTRIES_PER_PAGE;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t e = entries[i];
        if (e < P2M_FRAME_BEYOND) {
            p->entries[first + i] = (uint32_t)e;
            continue;
        }
        p->foreign = p->foreign || entry_foreign(e);
        p->entries[first + i] = mfn_is_none(entry_frame(e)) ? P2M_NO_FRAME : P2M_FRAME_BEYOND;
    }
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

/* Where the list lives: all of *out but its entries.  pre: *out is empty. */
static fs_status_t locate(struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns, struct pv_p2m *out, struct fs_error *err)
{
    struct arch_shared_info arch;
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
    if (out->pages == NULL) {
        return FS_NO_MEMORY;
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
    return s == FS_OK && has_linear ? locate_linear(be, dom, out, &arch, err) : s;
}

static struct pv_p2m empty(void)
{
    return (struct pv_p2m){ .top = MFN_NONE, .root = MFN_NONE };
}

fs_status_t pv_p2m_read_again(struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns,
                              struct pv_p2m *p, struct fs_error *err)
{
    uint32_t *entries = p->entries;
    size_t pages_before = p->page_count;
    p->entries = NULL;
    pv_p2m_free(p);
    *p = empty();
    fs_status_t s = locate(be, dom, limit_pfns, p, err);
    if (s == FS_OK && p->page_count != pages_before) {
        free(entries);
        entries = malloc(p->page_count * P2M_ENTRIES_PER_PAGE * sizeof(*entries));
        s = entries == NULL ? FS_NO_MEMORY : FS_OK;
    }
    p->entries = entries;
    if (s == FS_OK) {
        memset(p->entries, 0xff, p->page_count * P2M_ENTRIES_PER_PAGE * sizeof(*entries));     /* P2M_NO_FRAME */
        s = each_page(be, dom, p, keep_page, p, err);
    }
    if (s != FS_OK) {
        pv_p2m_free(p);
    }
    return s;
}

fs_status_t pv_p2m_read(struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns,
                        struct pv_p2m *out, struct fs_error *err)
{
    *out = empty();
    return pv_p2m_read_again(be, dom, limit_pfns, out, err);
}

struct each { pv_p2m_fn fn; void *arg; uint64_t pfn_count; };

static void each_entry(void *arg, size_t page, const uint64_t *entries)
{
    const struct each *e = arg;
    uint64_t first = (uint64_t)page * P2M_ENTRIES_PER_PAGE;
    for (uint64_t i = 0; i < P2M_ENTRIES_PER_PAGE && first + i < e->pfn_count; i++) {
        mfn_t m = entry_frame(entries[i]);
        if (!mfn_is_none(m)) {
            e->fn(e->arg, first + i, m);
        }
    }
}

fs_status_t pv_p2m_each(struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns, pv_p2m_fn fn, void *arg,
                        uint64_t *pfn_count, struct fs_error *err)
{
    struct pv_p2m p = empty();
    fs_status_t s = locate(be, dom, limit_pfns, &p, err);
    if (s == FS_OK) {
        *pfn_count = p.pfn_count;
        s = each_page(be, dom, &p, each_entry, &(struct each){ fn, arg, p.pfn_count }, err);
    }
    pv_p2m_free(&p);
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
    return pfn >= p->pfn_count || p->entries[pfn] == P2M_NO_FRAME ? MFN_NONE : mfn_make(p->entries[pfn]);
}

/* ---- writing ------------------------------------------------------------------- */

#define MOVE_WORDS (P2M_ENTRIES_PER_PAGE / 64u)     /* of the bitmap, for a page of the list */

static bool page_moves(const uint64_t *moves, uint64_t page)
{
    uint64_t any = 0;
    for (unsigned i = 0; i < MOVE_WORDS; i++) {
        any |= moves[page * MOVE_WORDS + i];
    }
    return any != 0;
}

/* The entries of one page of the list. */
static fs_status_t write_page(const struct hv_domain *dom, const struct pv_p2m *p, const struct xlat *x, uint64_t *entries, uint64_t page,
                              const uint64_t *moves, bool forward, struct fs_error *err)
{
    for (unsigned w = 0; w < MOVE_WORDS; w++) {
        for (uint64_t bits = moves[page * MOVE_WORDS + w]; bits != 0; bits &= bits - 1) {
            uint64_t pfn = (page * MOVE_WORDS + w) * 64 + (uint64_t)__builtin_ctzll(bits);
            mfn_t old = mfn_make(p->entries[pfn]);
            uint64_t *e = &entries[pfn % P2M_ENTRIES_PER_PAGE], new = forward ? xlat_get(x, old).n : *e;
            if (*e != old.n && (forward ? *e != new : !mfn_eq(xlat_back(x, mfn_make(*e)), old))) {          /* I3 */
                return fs_fail(err, FS_CORRUPT, "domain %u: p2m entry of pfn %#llx holds %#llx, neither the old frame %#llx nor the new one",
                               dom->domid, (unsigned long long)pfn, (unsigned long long)*e, (unsigned long long)old.n);
            }
            *e = forward ? new : old.n;
        }
    }
    return FS_OK;
}

/* pre: moves has whole pages' words: bitmap_new() of page_count pages. */
static fs_status_t write_entries(struct hv_backend *be, const struct hv_domain *dom, const struct pv_p2m *p, const struct xlat *x,
                                 const uint64_t *moves, bool forward, struct fs_error *err)
{
    for (uint64_t page = 0; page < p->page_count; ) {
        uint64_t frames[MAP_CHUNK], which[MAP_CHUNK];
        size_t n = 0;
        int page_err[MAP_CHUNK];
        for (; page < p->page_count && n < MAP_CHUNK; page++) {
            if (page_moves(moves, page)) {
                frames[n] = forward ? xlat_get(x, p->pages[page]).n : p->pages[page].n;
                which[n++] = page;
            }
        }
        if (n == 0) {
            break;
        }
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
                s = write_page(dom, p, x, map + k * P2M_ENTRIES_PER_PAGE, which[k], moves, forward, err);
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
                         const struct xlat *x, const uint64_t *moves, bool forward, struct fs_error *err)
{
    fs_status_t s = write_entries(be, dom, p, x, moves, forward, err);
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
