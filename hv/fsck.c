/*
 * fsck.c - do p2m, M2P, page types and ownership of a domain agree?  Read-only.
 *
 * Owns: hv_fsck().
 * What it checks, each from the ground truth:
 *   F1  every frame in a PV guest's p2m is owned by the guest;
 *   F2  the M2P entry of that frame leads back to the pfn (so no frame is listed twice);
 *   F3  a present entry above L1 leads to a frame that Xen types one level lower;
 *   F4  a present L1 entry leads to a frame number that the machine has;
 *   F5  no gfn of a translated guest is claimed by two of its frames.
 * Why not more: reference counts are Xen's alone on an unmodified Xen; that every
 * reference is right is proved by the validation of each pin, and by a save.
 * Cost: one pass over the guest's frames and page tables.  Without pause, a guest that
 * changes a mapping between two looks can show as a fault: faults are looked at twice.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "hv_priv.h"
#include "pv_p2m.h"
#include "pv_tables.h"
#include "range.h"

#define FAULTS_MAX 10000u
#define MAP_CHUNK 256u

struct check {
    struct hv *hv;
    struct hv_host host;
    const struct hv_domain *dom;
    struct hv_fsck_report *out;
};

FS_PRINTF(4, 5) static void fault(struct check *c, mfn_t mfn, uint64_t gfn, const char *fmt, ...)
{
    struct hv_fsck_report *r = c->out;
    if (r->fault_count == FAULTS_MAX) {
        return;
    }
    if (r->fault_count % 64 == 0) {
        struct hv_fault *grown = realloc(r->faults, (r->fault_count + 64) * sizeof(*grown));
        if (grown == NULL) {
            return;
        }
        r->faults = grown;
    }
    struct hv_fault *f = &r->faults[r->fault_count++];
    *f = (struct hv_fault){ .domid = c->dom->domid, .mfn = mfn, .gfn = gfn };
    va_list args;
    va_start(args, fmt);
    vsnprintf(f->text, sizeof(f->text), fmt, args);
    va_end(args);
}

/* ---- PV --------------------------------------------------------------------------- */

struct pv_view {
    struct pv_p2m p2m;
    struct pv_tables tables;
    mfn_t *mfns;                /* of every pfn that has one */
    uint64_t *pfns;
    size_t count;
};

static void view_free(struct pv_view *v)
{
    pv_p2m_free(&v->p2m);
    pv_tables_free(&v->tables);
    free(v->mfns);
    free(v->pfns);
}

static fs_status_t view_read(struct check *c, struct pv_view *v, struct fs_error *err)
{
    memset(v, 0, sizeof(*v));
    fs_status_t s = pv_p2m_read(c->hv->be, c->dom, c->host.max_mfn * 2 + (1u << 20), &v->p2m, err);
    if (s != FS_OK) {
        return s;
    }
    v->mfns = malloc((v->p2m.pfn_count + 1) * sizeof(*v->mfns));
    v->pfns = malloc((v->p2m.pfn_count + 1) * sizeof(*v->pfns));
    if (v->mfns == NULL || v->pfns == NULL) {
        return FS_NO_MEMORY;
    }
    for (uint64_t pfn = 0; pfn < v->p2m.pfn_count; pfn++) {
        mfn_t m = pv_p2m_get(&v->p2m, pfn);
        if (mfn_is_none(m)) {
            continue;
        }
        if (m.n >= c->host.max_mfn) {
            fault(c, m, pfn, "p2m: the machine has no such frame");
            continue;
        }
        v->pfns[v->count] = pfn;
        v->mfns[v->count++] = m;
    }
    return pv_tables_find(c->hv->be, c->dom->domid, &v->p2m, c->host.max_mfn, &v->tables, NULL, err);
}

static fs_status_t check_p2m(struct check *c, const struct pv_view *v, struct fs_error *err)
{
    uint64_t *gfns = malloc((v->count + 1) * sizeof(*gfns));
    uint8_t *types = malloc(v->count + 1), *flags = malloc(v->count + 1);
    bool *owned = malloc((v->count + 1) * sizeof(*owned));
    fs_status_t s = FS_NO_MEMORY;
    if (gfns == NULL || types == NULL || flags == NULL || owned == NULL) {
        goto out;
    }
    s = c->hv->be->ops->m2p(c->hv->be, v->mfns, v->count, gfns, err);
    if (s == FS_OK) {
        s = c->hv->be->ops->types(c->hv->be, c->dom->domid, v->mfns, v->count, types, flags, owned, err);
    }
    for (size_t i = 0; i < v->count && s == FS_OK; i++) {
        if (!owned[i]) {
            fault(c, v->mfns[i], v->pfns[i], "F1: in the p2m, but not owned by the domain");
        } else if (gfns[i] != v->pfns[i]) {
            fault(c, v->mfns[i], v->pfns[i], "F2: the M2P says pfn %#" PRIx64, gfns[i]);
        }
        c->out->frames_pending += owned[i] && (flags[i] & HV_FRAME_PENDING);
    }
    c->out->frames_checked += v->count;
out:
    free(gfns);
    free(types);
    free(flags);
    free(owned);
    return s;
}

static void check_table(struct check *c, const struct pv_view *v, const struct pv_table *t, const uint64_t *entries)
{
    for (unsigned i = 0; i < 512; i++) {
        if (!(entries[i] & PTE_PRESENT) || (t->level == 4 && i >= L4_XEN_FIRST && i < L4_XEN_END)) {
            continue;
        }
        mfn_t to = mfn_make(pte_frame(entries[i]));
        c->out->entries_checked++;
        if (t->level == 1) {
            if (to.n >= c->host.max_mfn && to.n < (1ull << 32)) {       /* above: device memory of large machines */
                fault(c, t->mfn, FS_FRAME_NONE, "F4: L1 entry %u leads to frame %#" PRIx64, i, to.n);
            }
            continue;
        }
        const struct pv_table *below = pv_tables_at(&v->tables, to);
        if (below == NULL || below->level != t->level - 1) {
            fault(c, t->mfn, FS_FRAME_NONE, "F3: L%u entry %u leads to frame %#" PRIx64 ", which is no L%u table", t->level, i,
                  to.n, t->level - 1u);
        }
    }
}

static fs_status_t check_tables(struct check *c, const struct pv_view *v, struct fs_error *err)
{
    for (size_t first = 0; first < v->tables.count; first += MAP_CHUNK) {
        uint64_t frames[MAP_CHUNK];
        int page_err[MAP_CHUNK];
        size_t n = v->tables.count - first < MAP_CHUNK ? v->tables.count - first : MAP_CHUNK;
        for (size_t i = 0; i < n; i++) {
            frames[i] = v->tables.list[first + i].mfn.n;
        }
        uint64_t *map;
        fs_status_t s = c->hv->be->ops->map(c->hv->be, c->dom->domid, frames, n, HV_MAP_READ, page_err, (void **)&map, err);
        if (s != FS_OK) {
            return s;
        }
        for (size_t i = 0; i < n; i++) {
            if (page_err[i] != 0) {
                fault(c, mfn_make(frames[i]), FS_FRAME_NONE, "F1: page table cannot be mapped");
            } else {
                check_table(c, v, &v->tables.list[first + i], map + i * 512);
            }
        }
        c->hv->be->ops->unmap(c->hv->be, map, n);
        c->out->tables_checked += n;
    }
    return FS_OK;
}

static fs_status_t check_pv(struct check *c, struct fs_error *err)
{
    struct pv_view v;
    fs_status_t s = view_read(c, &v, err);
    if (s == FS_OK) {
        s = check_p2m(c, &v, err);
    }
    if (s == FS_OK) {
        s = check_tables(c, &v, err);
    }
    view_free(&v);
    return s;
}

/* ---- translated ------------------------------------------------------------------------- */

struct gfn_frame { uint64_t gfn; mfn_t mfn; };
struct gfn_list { struct check *c; struct gfn_frame *list; size_t count, capacity; };

static fs_status_t collect_gfns(void *arg, mfn_t start, const struct hv_frame *frames, size_t count, struct fs_error *err)
{
    struct gfn_list *l = arg;
    (void)err;
    for (size_t i = 0; i < count; i++) {
        if (frames[i].owner != HV_FRAME_DOMAIN || frames[i].domid != l->c->dom->domid || frames[i].gfn == FS_FRAME_NONE) {
            continue;
        }
        if (l->count == l->capacity) {
            size_t capacity = l->capacity == 0 ? 4096 : l->capacity * 2;
            struct gfn_frame *grown = realloc(l->list, capacity * sizeof(*grown));
            if (grown == NULL) {
                return FS_NO_MEMORY;
            }
            l->list = grown;
            l->capacity = capacity;
        }
        l->list[l->count++] = (struct gfn_frame){ frames[i].gfn, mfn_add(start, i) };
        l->c->out->frames_pending += (frames[i].flags & HV_FRAME_PENDING) != 0;
    }
    return FS_OK;
}

static int gfn_order(const void *a, const void *b)
{
    const struct gfn_frame *x = a, *y = b;
    return x->gfn < y->gfn ? -1 : x->gfn > y->gfn;
}

/* A translated domain's frames are deduced from the M2P, and a frame of Xen's own may have any number there: before it is called
 * a fault the machine is asked whose the frame is, where it can be. */
static bool owns(const struct check *c, mfn_t mfn)
{
    struct hv_backend *be = c->hv->be;
    struct hv_frame_refs refs = { 0 };
    return be->ops->frame_refs == NULL || be->ops->frame_refs(be, &mfn, 1, &refs, NULL) != FS_OK || !refs.known ||
           refs.domid == c->dom->domid;
}

static fs_status_t check_hap(struct check *c, struct fs_error *err)
{
    struct gfn_list l = { .c = c };
    struct mfn_range_set ram = { 0 };
    fs_status_t s = c->hv->be->ops->ram(c->hv->be, &ram, err);
    if (s == FS_OK) {
        s = survey_frames(c->hv->be, &ram, collect_gfns, &l, err);
    }
    if (l.count > 1) {
        qsort(l.list, l.count, sizeof(*l.list), gfn_order);
    }
    for (size_t i = 1; i < l.count && s == FS_OK; i++) {
        if (l.list[i].gfn == l.list[i - 1].gfn && owns(c, l.list[i].mfn) && owns(c, l.list[i - 1].mfn)) {
            fault(c, l.list[i].mfn, l.list[i].gfn, "F5: gfn also claimed by frame %#" PRIx64, l.list[i - 1].mfn.n);
        }
    }
    c->out->frames_checked += l.count;
    free(l.list);
    mfn_set_free(&ram);
    return s;
}

/* ---- the verb ----------------------------------------------------------------------------- */

static fs_status_t check_domain(struct check *c, bool pause, struct fs_error *err)
{
    const struct hv_backend_ops *ops = c->hv->be->ops;
    fs_status_t s = FS_OK;
    bool guest = c->dom->kind == HV_DOMAIN_PV || c->dom->kind == HV_DOMAIN_HAP;
    if (!guest || c->dom->dying) {
        return FS_OK;
    }
    if (pause) {
        s = ops->pause(c->hv->be, c->dom->domid, err);
        if (s != FS_OK) {
            return s;
        }
    }
    s = c->dom->kind == HV_DOMAIN_PV ? check_pv(c, err) : check_hap(c, err);
    if (pause) {
        fs_status_t u = ops->unpause(c->hv->be, c->dom->domid, s == FS_OK ? err : NULL);
        s = s == FS_OK ? u : s;
    }
    return s;
}

/* Without pause, a fault counts only if a second look finds it again. */
static void keep_common(struct hv_fsck_report *a, const struct hv_fsck_report *b)
{
    size_t kept = 0;
    for (size_t i = 0; i < a->fault_count; i++) {
        for (size_t k = 0; k < b->fault_count; k++) {
            if (mfn_eq(a->faults[i].mfn, b->faults[k].mfn) && a->faults[i].gfn == b->faults[k].gfn &&
                strcmp(a->faults[i].text, b->faults[k].text) == 0) {
                a->faults[kept++] = a->faults[i];
                break;
            }
        }
    }
    a->fault_count = kept;
}

static fs_status_t fsck_pass(struct hv *hv, uint16_t domid, bool pause, struct hv_fsck_report *out, struct fs_error *err)
{
    struct check c = { .hv = hv, .out = out };
    struct hv_domain *list = NULL;
    size_t count = 0;
    bool found = false;
    fs_status_t s = hv->be->ops->host(hv->be, &c.host, err);
    if (s == FS_OK) {
        s = hv->be->ops->domains(hv->be, &list, &count, err);
    }
    for (size_t i = 0; i < count && s == FS_OK; i++) {
        if (domid == FS_DOMID_NONE || list[i].domid == domid) {
            found = true;
            c.dom = &list[i];
            s = check_domain(&c, pause, err);
        }
    }
    if (s == FS_OK && !found && domid != FS_DOMID_NONE) {
        s = fs_fail(err, FS_NOT_FOUND, "no domain %u", domid);
    }
    free(list);
    return s;
}

fs_status_t hv_fsck(struct hv *hv, uint16_t domid, bool pause, struct hv_fsck_report *out, struct fs_error *err)
{
    memset(out, 0, sizeof(*out));
    out->paused = pause;
    fs_status_t s = fsck_pass(hv, domid, pause, out, err);
    if (s == FS_OK && !pause && out->fault_count > 0) {
        struct hv_fsck_report again = { 0 };
        s = fsck_pass(hv, domid, pause, &again, err);
        keep_common(out, &again);
        hv_fsck_free(&again);
    }
    if (s == FS_OK && out->fault_count > 0) {
        s = fs_fail(err, FS_CORRUPT, "%zu fault(s)%s", out->fault_count, pause ? "" : "; run with --pause for an exact answer");
    }
    return s;
}

void hv_fsck_free(struct hv_fsck_report *r)
{
    free(r->faults);
    memset(r, 0, sizeof(*r));
}
