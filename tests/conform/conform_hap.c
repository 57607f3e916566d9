/*
 * conform_hap.c - checks of what is done to a translated (PVH/HVM) guest.
 *
 * Owns: populate, depopulate, remap, gfn_limit, map, dirty log, ownership probe.
 * Everything happens on scratch gfns above the guest's own: the guest runs on meanwhile.
 */
#include "conform.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SCRATCH_GFN 0x200000ull         /* 8 GiB: above any test guest, below any device */

static void nap_ms(long ms)
{
    nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

static bool tot_is(struct conform *c, uint64_t pages)
{
    struct hv_domain d;
    return conform_refresh(c, c->hap.domid, &d) && d.tot_pages == pages;
}

static void check_gfn_limit(struct conform *c)
{
    uint64_t limit = 0;
    EXPECT_OK(c, c->ops->gfn_limit(c->be, c->hap.domid, &limit, &c->err));
    conform_note(c, "limit %#llx for %llu pages", (unsigned long long)limit, (unsigned long long)c->hap.tot_pages);
    EXPECT(c, limit >= c->hap.tot_pages, "limit");
}

/* populate two sets of gfns, write both, remap one over the other, look, give back. */
static void check_remap(struct conform *c)
{
    enum { N = 1500 };                  /* more than one batch */
    gfn_t from[N], to[N];
    uint64_t raw[N];
    int page_err[N];
    size_t a = 0, b = 0, moved = 0, done = 0;
    void *p = NULL;
    uint32_t node = conform_node_with(c, 2 * N + 4096);
    uint64_t before = c->hap.tot_pages;
    bool ok = true;
    for (size_t i = 0; i < N; i++) {
        from[i].n = SCRATCH_GFN + i;
        to[i].n = SCRATCH_GFN + 0x10000 + i;
    }
    WANT(c, node != UINT32_MAX, "no node with room");
    WANT_OK(c, c->ops->set_max_pages(c->be, c->hap.domid, c->hap.max_pages + 2 * N, &c->err));
    WANT_OK(c, c->ops->populate(c->be, c->hap.domid, node, 0, from, N, &a, &c->err));
    WANT_OK(c, c->ops->populate(c->be, c->hap.domid, node, 0, to, N, &b, &c->err));
    WANT(c, tot_is(c, before + 2 * N), "tot_pages after populating");
    for (size_t i = 0; i < N; i++) {
        raw[i] = from[i].n;
    }
    WANT_OK(c, c->ops->map(c->be, c->hap.domid, raw, N, HV_MAP_WRITE, page_err, &p, &c->err));
    for (size_t i = 0; i < N; i++) {
        WANT(c, page_err[i] == 0, "page %zu: %d", i, page_err[i]);
        memset((uint8_t *)p + i * FS_PAGE_BYTES, (int)(i * 11 + 3), FS_PAGE_BYTES);
    }
    c->ops->unmap(c->be, p, N);
    p = NULL;
    WANT_OK(c, c->ops->remap(c->be, c->hap.domid, from, to, N, &moved, &c->err));
    WANT(c, moved == N && tot_is(c, before + N), "remapped %zu: the frames below were not freed", moved);
    for (size_t i = 0; i < N; i++) {
        raw[i] = to[i].n;
    }
    WANT_OK(c, c->ops->map(c->be, c->hap.domid, raw, N, HV_MAP_READ, page_err, &p, &c->err));
    for (size_t i = 0; i < N && ok; i++) {
        const uint8_t *q = (const uint8_t *)p + i * FS_PAGE_BYTES;
        ok = page_err[i] == 0 && q[0] == (uint8_t)(i * 11 + 3) && q[FS_PAGE_BYTES - 1] == q[0];
    }
    WANT(c, ok, "a remapped gfn leads to other bytes");
    WANT(c, c->ops->remap(c->be, c->hap.domid, from, to, N, &done, &c->err) != FS_OK && done == 0, "remapped from a hole");
out:
    c->ops->unmap(c->be, p, N);
    if (a > moved && c->ops->depopulate(c->be, c->hap.domid, 0, from + moved, a - moved, &done, &c->err) != FS_OK) {
        conform_fail(c, __FILE__, __LINE__, "depopulate: %s", c->err.text);
    }
    if (b && c->ops->depopulate(c->be, c->hap.domid, 0, to, b, &done, &c->err) != FS_OK) {
        conform_fail(c, __FILE__, __LINE__, "depopulate: %s", c->err.text);
    }
    (void)c->ops->set_max_pages(c->be, c->hap.domid, c->hap.max_pages, &c->err);
    if (!tot_is(c, before)) {
        conform_fail(c, __FILE__, __LINE__, "pages are left behind");
    }
}

/* Whole extents: the frames of one are contiguous and aligned. */
static void check_superpages(struct conform *c)
{
    enum { N = 4 };
    gfn_t gfns[N];
    size_t done = 0, given = 0;
    uint64_t max = 0, found = 0;
    struct hv_frame *f = NULL;
    uint32_t node = conform_node_with(c, N * FS_SP_PAGES + 8192);
    WANT(c, node != UINT32_MAX, "no node with room");
    for (size_t i = 0; i < N; i++) {
        gfns[i].n = SCRATCH_GFN + i * FS_SP_PAGES;
    }
    WANT_OK(c, c->ops->set_max_pages(c->be, c->hap.domid, c->hap.max_pages + N * FS_SP_PAGES, &c->err));
    WANT_OK(c, c->ops->populate(c->be, c->hap.domid, node, FS_SP_ORDER, gfns, N, &given, &c->err));
    f = conform_all_frames(c, &max);
    WANT(c, f, "frames");
    for (uint64_t m = 0; m + FS_SP_PAGES <= max; m += FS_SP_PAGES) {
        uint64_t k = 0;
        while (k < FS_SP_PAGES && f[m + k].gfn >= SCRATCH_GFN && f[m + k].gfn == f[m].gfn + k && f[m].gfn % FS_SP_PAGES == 0 &&
               f[m].gfn < SCRATCH_GFN + N * FS_SP_PAGES && f[m + k].owner == HV_FRAME_DOMAIN && f[m + k].domid == c->hap.domid) {
            k++;
        }
        found += k == FS_SP_PAGES;
    }
    WANT(c, found == N, "%llu of %d extents are whole", (unsigned long long)found, N);
out:
    if (given && (c->ops->depopulate(c->be, c->hap.domid, FS_SP_ORDER, gfns, given, &done, &c->err) != FS_OK || done != given)) {
        conform_fail(c, __FILE__, __LINE__, "depopulate: %s", c->err.text);
    }
    (void)c->ops->set_max_pages(c->be, c->hap.domid, c->hap.max_pages, &c->err);
    free(f);
}

static void check_dirty(struct conform *c)
{
    uint64_t limit = 0, dirty = 0, first = 0, counted = 0;
    uint64_t *bits = NULL;
    bool on = false;
    WANT_OK(c, c->ops->gfn_limit(c->be, c->hap.domid, &limit, &c->err));
    bits = calloc((size_t)(limit + 63) / 64, sizeof *bits);
    WANT(c, bits, "memory");
    WANT_OK(c, c->ops->dirty_enable(c->be, c->hap.domid, &c->err));
    on = true;
    WANT_OK(c, c->ops->dirty_read(c->be, c->hap.domid, bits, limit, true, &first, &c->err));
    nap_ms(1500);
    WANT_OK(c, c->ops->dirty_read(c->be, c->hap.domid, bits, limit, true, &dirty, &c->err));
    for (uint64_t i = 0; i < (limit + 63) / 64; i++) {
        counted += (uint64_t)__builtin_popcountll(bits[i]);
    }
    conform_note(c, "first read %llu, after 1.5 s %llu", (unsigned long long)first, (unsigned long long)dirty);
    WANT(c, counted == dirty, "counted %llu, told %llu", (unsigned long long)counted, (unsigned long long)dirty);
    WANT(c, dirty > 0 && dirty <= limit, "a running guest writes");
out:
    if (on) {
        EXPECT_OK(c, c->ops->dirty_disable(c->be, c->hap.domid, &c->err));
    }
    free(bits);
}

/* The probe names the pages that others are known to map, and not what nobody maps. */
static void check_probe(struct conform *c)
{
    struct hv_special *list = NULL;
    struct hv_frame *f = NULL;
    size_t count = 0, n = 0, mapped = 0, plain = 0, plain_held = 0, missed = 0;
    uint64_t max = 0, calls = 0;
    mfn_t mfns[256];
    uint64_t gfns[256];
    bool held[256], known[256] = { false };
    WANT_OK(c, c->ops->specials(c->be, c->hap.domid, &list, &count, &c->err));
    f = conform_all_frames(c, &max);
    WANT(c, f, "frames");
    for (uint64_t m = 0; m < max && n < 200; m++) {
        if (f[m].owner != HV_FRAME_DOMAIN || f[m].domid != c->hap.domid) {
            continue;
        }
        bool special = false;
        for (size_t i = 0; i < count; i++) {
            special = special || (list[i].gfn == f[m].gfn && list[i].kind != HV_SPECIAL_GRANT_OFFERED && list[i].kind != HV_SPECIAL_IOREQ);
        }
        if (special || (m % 331 == 0 && n < 150)) {
            known[n] = special;
            gfns[n] = f[m].gfn;
            mfns[n++] = mfn_make(m);
        }
    }
    uint64_t start = c->ops->clock_ns(c->be);
    fs_status_t s = c->ops->probe_held(c->be, c->hap.domid, mfns, n, NULL, held, &calls, &c->err);
    if (s == FS_UNSUPPORTED) {
        conform_skip(c, "%s", c->err.text);
        goto out;
    }
    WANT(c, s == FS_OK, "%s", c->err.text);
    for (size_t i = 0; i < n; i++) {
        mapped += known[i];
        plain += !known[i];
        missed += known[i] && !held[i];
        if (!known[i] && held[i]) {
            plain_held++;
            conform_note(c, "gfn %#llx is held by others", (unsigned long long)gfns[i]);
        }
    }
    conform_note(c, "%zu frames in %.1f ms: %zu known to be mapped, %zu of them missed; %zu of %zu others held", n,
                 (double)(c->ops->clock_ns(c->be) - start) / 1e6, mapped, missed, plain_held, plain);
    WANT(c, mapped >= 2 && missed == 0, "the rings");
    WANT(c, plain > 50 && plain_held * 10 < plain, "too many held");
out:
    free(list);
    free(f);
}

/* Every frame of the guest: which are referenced by more than their allocation.  A minute for 256 MiB. */
static void check_held_all(struct conform *c)
{
    size_t count = 0, held = 0, typed = 0, unknown = 0;
    mfn_t *list = conform_frames_of(c, c->hap.domid, &count);
    struct hv_frame_refs *refs = calloc(count ? count : 1, sizeof *refs);
    WANT(c, list && refs && count, "frames");
    if (!c->ops->frame_refs) {
        conform_skip(c, "this machine does not tell");
        goto out;
    }
    uint64_t start = c->ops->clock_ns(c->be);
    fs_status_t s = c->ops->frame_refs(c->be, list, count, refs, &c->err);
    if (s == FS_UNSUPPORTED) {
        conform_skip(c, "%s", c->err.text);
        goto out;
    }
    WANT(c, s == FS_OK, "%s", c->err.text);
    conform_note(c, "%zu frames in %.1f s", count, (double)(c->ops->clock_ns(c->be) - start) / 1e9);
    for (size_t i = 0; i < count; i++) {
        unknown += !refs[i].known;
        if (!refs[i].known || (refs[i].count <= 1 && refs[i].type_count == 0)) {
            continue;
        }
        uint64_t gfn = FS_FRAME_NONE;
        (void)c->ops->m2p(c->be, &list[i], 1, &gfn, &c->err);
        held++;
        typed += refs[i].type_count > 0;
        conform_note(c, "gfn %#llx: count %llu, type count %llu%s", (unsigned long long)gfn, (unsigned long long)refs[i].count,
                     (unsigned long long)refs[i].type_count, refs[i].xen_heap ? ", Xen's page" : "");
    }
    WANT(c, unknown * 1000 < count, "%zu unknown", unknown);
    /* One event control block and at least one vcpu_info page, and the daemons' two rings. */
    WANT(c, typed >= 2 && held >= 4 && held <= 16 + 4 * (size_t)c->hap.vcpus, "%zu held, %zu typed", held, typed);
out:
    free(list);
    free(refs);
}

const struct conform_check conform_hap_checks[] = {
    { .name = "hap-gfn-limit", .fn = check_gfn_limit, .needs_hap = true },
    { .name = "hap-remap", .fn = check_remap, .needs_hap = true },
    { .name = "hap-superpages", .fn = check_superpages, .needs_hap = true },
    { .name = "hap-dirty", .fn = check_dirty, .needs_hap = true },
    { .name = "hap-probe", .fn = check_probe, .needs_hap = true },
    { .name = "all-held", .fn = check_held_all, .needs_hap = true, .heavy = true },
    { 0 }
};
