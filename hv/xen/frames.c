/*
 * frames.c - who owns each frame, found without any effect.
 *
 * Owns: frames(), types(), page information in bulk.
 * Invariants:
 *  I1  nothing here changes a frame, a domain or the heap.
 *  I2  a PV owner is exact: Xen answers a PV domain's getpageframeinfo3 with
 *      anything but XTAB only where that domain owns the frame.
 *  I3  a translated owner is deduced: the frame's M2P entry names a gfn, and that gfn is
 *      populated in exactly one translated domain.  With several candidates it is
 *      the one whose gfn leads to the frame (ptes.c); AMBIGUOUS where that cannot be asked.
 *  I4  a frame number is looked at only below max_mfn and inside RAM.
 *  I5  in a range of more than 1024 frames a frame without an M2P entry is UNOWNED without asking (Xen
 *      clears the entry of every frame that it frees).  A PV domain can own such a frame: one that
 *      was just added, or whose entry the guest has wiped; marking it and types() tell.  An aligned block
 *      that the M2P shows as one superpage is asked about by three of its frames first, and where several
 *      translated domains could own it, four frames of it speak for all.
 * Why PV domains first: what a PV guest owns must never be deduced from the M2P,
 * of which the guest writes its own entries.
 * Cost: one hypercall per 512 frames and PV domain for the frames not yet claimed, one
 * per 1024 deduced frames and translated domain, one per 1024 frames for the offline state.
 */
#include "ptes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"

/* ---- page types ---- */

int xen_page_info(struct xen_be *x, uint16_t domid, uint64_t *frames, size_t count)
{
    ASSERT_CMP(count, <=, XEN_INFO_BATCH);
    uint64_t *array = x->hbuf;
    memcpy(array, frames, count * sizeof *array);
    struct xen_domctl ctl = { .cmd = XEN_DOMCTL_getpageframeinfo3, .domain = domid };
    ctl.u.getpageframeinfo3.num = count;
    set_xen_guest_handle_raw(ctl.u.getpageframeinfo3.array, array);
    int rc = xc_domctl(x->xch, &ctl);
    if (rc == 0) {
        memcpy(frames, array, count * sizeof *array);
    }
    return rc;
}

static bool info_owned(uint64_t info)
{
    uint64_t type = info & XEN_DOMCTL_PFINFO_LTAB_MASK;
    return type != XEN_DOMCTL_PFINFO_XTAB && type != XEN_DOMCTL_PFINFO_XALLOC;
}

static bool info_broken(uint64_t info)
{
    return (info & XEN_DOMCTL_PFINFO_LTAB_MASK) == XEN_DOMCTL_PFINFO_BROKEN;
}

static uint8_t info_type(uint64_t info)
{
    switch (info & XEN_DOMCTL_PFINFO_LTABTYPE_MASK) {
    case XEN_DOMCTL_PFINFO_L1TAB: return HV_TYPE_L1;
    case XEN_DOMCTL_PFINFO_L2TAB: return HV_TYPE_L2;
    case XEN_DOMCTL_PFINFO_L3TAB: return HV_TYPE_L3;
    case XEN_DOMCTL_PFINFO_L4TAB: return HV_TYPE_L4;
    default:                      return HV_TYPE_NONE;
    }
}

static uint8_t info_flags(uint64_t info)
{
    return info & XEN_DOMCTL_PFINFO_LPINTAB ? HV_FRAME_PINNED : 0;
}

fs_status_t xen_types(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count,
                      uint8_t *types, uint8_t *flags, bool *owned, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    struct xen_quiet quiet;
    fs_status_t s = FS_OK;
    xen_quiet_begin(x, &quiet);
    for (size_t at = 0; at < count; at += XEN_INFO_BATCH) {
        size_t n = count - at < XEN_INFO_BATCH ? count - at : XEN_INFO_BATCH;
        uint64_t info[XEN_INFO_BATCH];
        memcpy(info, &mfns[at], n * sizeof *info);
        if (xen_page_info(x, domid, info, n) != 0) {
            s = xen_fail_domain(x, domid, err, errno, "cannot read page types of domain %u from frame %#llx", domid,
                                (unsigned long long)mfns[at].n);
            goto out;
        }
        for (size_t i = 0; i < n; i++) {
            owned[at + i] = info_owned(info[i]);
            types[at + i] = owned[at + i] && !info_broken(info[i]) ? info_type(info[i]) : HV_TYPE_NONE;
            flags[at + i] = owned[at + i] && !info_broken(info[i]) ? info_flags(info[i]) : 0;
        }
    }
out:
    xen_quiet_end(x, &quiet);
    return s;
}

/* ---- the owner scan ---- */

#define SCAN_BLOCK 512u                 /* one superpage of frames */
#define SMALL_RANGE_PAGES 1024u

struct scan {
    struct xen_be *x;
    struct mfn_range range;
    struct hv_frame *out;
    struct fs_error *err;
    uint16_t *pv;                       /* PV domains, the one with the latest find first */
    size_t pv_count;
};

/* Ask whether domid owns the frames out[where[]]; claim those that it does. *claimed: how many. */
static fs_status_t claim(const struct scan *sc, uint16_t domid, const uint64_t *where, size_t count, size_t *claimed)
{
    uint64_t info[SCAN_BLOCK];
    *claimed = 0;
    for (size_t k = 0; k < count; k++) {
        info[k] = sc->range.start.n + where[k];
    }
    if (count == 0) {
        return FS_OK;
    }
    if (xen_page_info(sc->x, domid, info, count) != 0) {
        fs_status_t s = xen_fail_domain(sc->x, domid, sc->err, errno, "cannot scan the frames of domain %u", domid);
        return s == FS_GUEST_GONE ? FS_OK : s;          /* it died meanwhile: it owns nothing that stays */
    }
    for (size_t k = 0; k < count; k++) {
        if (!info_owned(info[k])) {
            continue;
        }
        sc->out[where[k]] = (struct hv_frame){
            .gfn = sc->out[where[k]].gfn,
            .domid = domid,
            .owner = info_broken(info[k]) ? HV_FRAME_BROKEN : HV_FRAME_DOMAIN,
            .type = info_broken(info[k]) ? HV_TYPE_NONE : info_type(info[k]),
            .flags = info_broken(info[k]) ? 0 : info_flags(info[k]),
        };
        ++*claimed;
    }
    return FS_OK;
}

/* A failed lookup costs Xen ten times a successful one (it words a log line, printed or not): I5. */
static bool worth_asking(const struct scan *sc, uint64_t i)
{
    const struct hv_frame *f = &sc->out[i];
    return f->owner == HV_FRAME_UNOWNED && (f->gfn != FS_FRAME_NONE || mfn_range_pages(sc->range) <= SMALL_RANGE_PAGES);
}

/* An aligned block whose gfns are one aligned run was given out as one superpage. */
static bool block_is_run(const struct scan *sc, const uint64_t *where, size_t count)
{
    if (count != SCAN_BLOCK || (sc->range.start.n + where[0]) % SCAN_BLOCK != 0) {
        return false;
    }
    uint64_t gfn = sc->out[where[0]].gfn;
    if (gfn == FS_FRAME_NONE || gfn % SCAN_BLOCK != 0) {
        return false;
    }
    for (size_t k = 1; k < count; k++) {
        if (sc->out[where[k]].gfn != gfn + k) {
            return false;
        }
    }
    return true;
}

static fs_status_t scan_block(struct scan *sc, uint64_t start, uint64_t end)
{
    for (size_t d = 0; d < sc->pv_count; d++) {
        uint64_t where[SCAN_BLOCK];
        size_t count = 0, claimed = 0;
        for (uint64_t i = start; i < end; i++) {
            if (worth_asking(sc, i)) {
                where[count++] = i;
            }
        }
        if (count == 0) {
            return FS_OK;
        }
        fs_status_t s = FS_OK;
        if (block_is_run(sc, where, count)) {
            const uint64_t probes[3] = { where[0], where[count / 2 - 1], where[count - 1] };
            s = claim(sc, sc->pv[d], probes, 3, &claimed);
            if (s != FS_OK) {
                return s;
            }
            if (claimed == 0) {
                continue;
            }
            /* The probes are claimed already; ask for the rest. */
            count = 0;
            for (uint64_t i = start; i < end; i++) {
                if (worth_asking(sc, i)) {
                    where[count++] = i;
                }
            }
        }
        s = claim(sc, sc->pv[d], where, count, &claimed);
        if (s != FS_OK) {
            return s;
        }
        if (claimed > SCAN_BLOCK / 2 && d > 0) {        /* the next block is likely its, too */
            uint16_t first = sc->pv[d];
            memmove(&sc->pv[1], &sc->pv[0], d * sizeof *sc->pv);
            sc->pv[0] = first;
        }
    }
    return FS_OK;
}

/* Claim what PV domains (the control domain included) own (I2). */
static fs_status_t scan_pv(struct scan *sc)
{
    uint64_t pages = mfn_range_pages(sc->range);
    fs_status_t s = FS_OK;
    for (uint64_t at = 0; at < pages && s == FS_OK;) {
        uint64_t n = SCAN_BLOCK - (sc->range.start.n + at) % SCAN_BLOCK;
        n = n < pages - at ? n : pages - at;
        s = scan_block(sc, at, at + n);
        at += n;
    }
    return s;
}

/* Deduce translated owners (I3): populated in one domain: its; in a second one as well: ambiguous. */
static fs_status_t scan_hap(const struct scan *sc, uint16_t domid)
{
    uint64_t pages = mfn_range_pages(sc->range);
    xen_pfn_t top = 0;
    if (xc_domain_maximum_gpfn(sc->x->xch, domid, &top) < 0) {
        fs_status_t s = xen_fail_domain(sc->x, domid, sc->err, errno, "cannot ask for the address space of domain %u", domid);
        return s == FS_GUEST_GONE ? FS_OK : s;
    }
    uint64_t info[XEN_INFO_BATCH];
    uint64_t where[XEN_INFO_BATCH];
    size_t n = 0;
    for (uint64_t i = 0; i <= pages; i++) {
        const struct hv_frame *f = &sc->out[i < pages ? i : 0];
        bool open = i < pages && f->gfn <= top && f->gfn != FS_FRAME_NONE &&
                    (f->owner == HV_FRAME_UNOWNED || (f->owner == HV_FRAME_DOMAIN && f->reserved[0]) ||
                     f->owner == HV_FRAME_AMBIGUOUS);
        if (open) {
            info[n] = f->gfn;
            where[n++] = i;
        }
        if (n == 0 || (n < XEN_INFO_BATCH && i < pages)) {
            continue;
        }
        if (xen_page_info(sc->x, domid, info, n) != 0) {
            fs_status_t s = xen_fail_domain(sc->x, domid, sc->err, errno, "cannot scan the frames of domain %u", domid);
            return s == FS_GUEST_GONE ? FS_OK : s;
        }
        for (size_t k = 0; k < n; k++) {
            struct hv_frame *g = &sc->out[where[k]];
            if (!info_owned(info[k])) {
                continue;
            }
            if (g->owner == HV_FRAME_UNOWNED) {
                g->owner = HV_FRAME_DOMAIN;
                g->domid = domid;
                g->reserved[0] = 1;             /* deduced: a second candidate may turn up */
            } else {
                g->owner = HV_FRAME_AMBIGUOUS;
            }
        }
        n = 0;
    }
    return FS_OK;
}

static fs_status_t scan_start(const struct scan *sc)
{
    uint64_t pages = mfn_range_pages(sc->range);
    for (uint64_t i = 0; i < pages; i++) {
        struct hv_frame *f = &sc->out[i];
        *f = (struct hv_frame){ .gfn = FS_FRAME_NONE, .domid = FS_DOMID_NONE, .owner = HV_FRAME_HOLE };
        mfn_t mfn = mfn_make(sc->range.start.n + i);
        if (!mfn_set_contains(&sc->x->ram, mfn)) {
            continue;
        }
        f->owner = HV_FRAME_UNOWNED;
        fs_status_t s = xen_m2p_entry(sc->x, mfn.n, &f->gfn, sc->err);
        if (s != FS_OK) {
            return s;
        }
    }
    return FS_OK;
}

/* ---- I3: of frames with several candidates, the domain whose gfn really leads there ---- */

#define RUN_SAMPLES 4u

struct open_frames {
    uint64_t *where, *gfns, *mfns;      /* room for every frame of the range */
    size_t count;
};

static void put_open(const struct scan *sc, struct open_frames *o, uint64_t i)
{
    o->where[o->count] = i;
    o->gfns[o->count++] = sc->out[i].gfn;
}

/* A block that is one run of ambiguous frames: by samples. All others: frame by frame, in the second pass. */
static void list_open(const struct scan *sc, struct open_frames *o, bool by_samples)
{
    uint64_t pages = mfn_range_pages(sc->range);
    o->count = 0;
    for (uint64_t at = 0; at < pages;) {
        uint64_t n = SCAN_BLOCK - (sc->range.start.n + at) % SCAN_BLOCK;
        n = n < pages - at ? n : pages - at;
        uint64_t where[SCAN_BLOCK];
        size_t count = 0;
        for (uint64_t i = at; i < at + n; i++) {
            if (sc->out[i].owner == HV_FRAME_AMBIGUOUS) {
                where[count++] = i;
            }
        }
        bool run = by_samples && block_is_run(sc, where, count);
        for (size_t k = 0; run && k < RUN_SAMPLES; k++) {
            put_open(sc, o, where[k * (SCAN_BLOCK - 1) / (RUN_SAMPLES - 1)]);
        }
        for (size_t k = 0; !by_samples && k < count; k++) {
            put_open(sc, o, where[k]);
        }
        at += n;
    }
}

static void settle(const struct scan *sc, uint64_t i, uint16_t domid)
{
    sc->out[i].owner = HV_FRAME_DOMAIN;
    sc->out[i].domid = domid;
}

static fs_status_t settle_domain(const struct scan *sc, struct open_frames *o, uint16_t domid, bool by_samples)
{
    list_open(sc, o, by_samples);
    if (o->count == 0) {
        return FS_OK;
    }
    fs_status_t s = xen_gfns_to_mfns(sc->x, domid, o->gfns, o->count, o->mfns, sc->err);
    size_t step = by_samples ? RUN_SAMPLES : 1;
    for (size_t k = 0; k < o->count && s == FS_OK; k += step) {
        size_t hits = 0;
        for (size_t j = 0; j < step; j++) {
            hits += o->mfns[k + j] == sc->range.start.n + o->where[k + j];
        }
        for (uint64_t i = o->where[k]; hits == step && i <= o->where[k + step - 1]; i++) {
            settle(sc, i, domid);
        }
    }
    return s == FS_GUEST_GONE ? FS_OK : s;
}

static fs_status_t settle_ambiguous(const struct scan *sc, const uint16_t *hap, size_t hap_count)
{
    uint64_t pages = mfn_range_pages(sc->range), open = 0;
    for (uint64_t i = 0; i < pages; i++) {
        open += sc->out[i].owner == HV_FRAME_AMBIGUOUS;
    }
    if (open == 0) {
        return FS_OK;
    }
    struct open_frames o = { .where = calloc(open, sizeof *o.where), .gfns = calloc(open, sizeof *o.gfns),
                             .mfns = calloc(open, sizeof *o.mfns) };
    fs_status_t s = o.where && o.gfns && o.mfns ? FS_OK : fs_fail(sc->err, FS_NO_MEMORY, "no memory for the scan");
    for (int pass = 0; pass < 2; pass++) {
        for (size_t d = 0; d < hap_count && s == FS_OK; d++) {
            s = settle_domain(sc, &o, hap[d], pass == 0);
        }
    }
    for (uint64_t i = 0; i < pages && s == FS_OK; i++) {
        if (sc->out[i].owner == HV_FRAME_AMBIGUOUS) {   /* nobody's gfn leads there: a stale entry */
            sc->out[i].owner = HV_FRAME_UNOWNED;
            sc->out[i].domid = FS_DOMID_NONE;
        }
    }
    free(o.where);
    free(o.gfns);
    free(o.mfns);
    return s == FS_UNSUPPORTED ? FS_OK : s;             /* they stay ambiguous; marking tells their owners */
}

static fs_status_t scan_owners(struct scan *sc, struct hv_backend *be)
{
    struct hv_domain *list = NULL;
    size_t count = 0;
    fs_status_t s = xen_domains(be, &list, &count, sc->err);
    if (s != FS_OK) {
        return s;
    }
    sc->pv = calloc(count ? count : 1, sizeof *sc->pv);
    uint16_t *hap = calloc(count ? count : 1, sizeof *hap);
    size_t hap_count = 0;
    if (!sc->pv || !hap) {
        s = fs_fail(sc->err, FS_NO_MEMORY, "no memory for the scan");
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        xc_domaininfo_t info;
        if (!xen_domain_info(sc->x, list[i].domid, &info)) {
            continue;
        }
        if (info.flags & XEN_DOMINF_hvm_guest) {
            if (!xen_domain_has_pod(sc->x, list[i].domid)) {    /* I1; its frames count as nobody's until they are marked */
                hap[hap_count++] = list[i].domid;
            }
        } else {
            sc->pv[sc->pv_count++] = list[i].domid;
        }
    }
    s = scan_pv(sc);
    for (size_t i = 0; i < hap_count && s == FS_OK; i++) {
        s = scan_hap(sc, hap[i]);
    }
    if (s == FS_OK) {
        s = settle_ambiguous(sc, hap, hap_count);
    }
out:
    free(sc->pv);
    free(hap);
    free(list);
    return s;
}

static fs_status_t scan_offline(const struct scan *sc, struct hv_backend *be)
{
    uint64_t pages = mfn_range_pages(sc->range);
    uint8_t *state = calloc(pages ? pages : 1, 1);
    if (!state) {
        return fs_fail(sc->err, FS_NO_MEMORY, "no memory for the state of %llu frames", (unsigned long long)pages);
    }
    fs_status_t s = xen_query_offline(be, sc->range, state, sc->err);
    for (uint64_t i = 0; i < pages && s == FS_OK; i++) {
        struct hv_frame *f = &sc->out[i];
        if (f->owner == HV_FRAME_HOLE) {
            continue;
        }
        if (state[i] & 4u) {
            f->owner = HV_FRAME_BROKEN;
        } else if (state[i] & 1u) {
            f->owner = HV_FRAME_OFFLINED;
            f->domid = FS_DOMID_NONE;
        }
        if (state[i] & 2u) {
            f->flags |= HV_FRAME_PENDING;
        }
    }
    free(state);
    return s;
}

fs_status_t xen_frames(struct hv_backend *be, struct mfn_range range, struct hv_frame *out, struct fs_error *err)
{
    struct scan sc = { .x = xen_be(be), .range = range, .out = out, .err = err };
    ASSERT_CMP(range.start.n, <=, range.end.n);
    struct xen_quiet quiet;
    fs_status_t s = xen_ram_load(sc.x, err);
    if (s != FS_OK) {
        return s;
    }
    xen_quiet_begin(sc.x, &quiet);
    s = scan_start(&sc);
    if (s == FS_OK) {
        s = scan_owners(&sc, be);
    }
    if (s == FS_OK) {
        s = scan_offline(&sc, be);
    }
    xen_quiet_end(sc.x, &quiet);
    for (uint64_t i = 0; i < mfn_range_pages(range); i++) {
        out[i].reserved[0] = 0;
    }
    return s;
}
