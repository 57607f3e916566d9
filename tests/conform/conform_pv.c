/*
 * conform_pv.c - checks of what is done to a PV guest.
 *
 * Owns: suspend/resume, vCPU state, pinning, ownership probe, reservations, copies.
 * The strong one is "pv-drop": every reference of a suspended guest to its page tables is
 * dropped and put back at the same place; the guest must run on as if nothing had been.
 */
#include "conform.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SECOND_NS 1000000000ull
#define VCPUS_MAX 32u

static void nap_ms(long ms)
{
    nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 }, NULL);
}

static void check_suspend(struct conform *c)
{
    struct hv_domain d;
    uint64_t stopped = 0, asked = c->ops->clock_ns(c->be);
    uint32_t held = 0;
    EXPECT_OK(c, c->ops->monitor_hold(c->be, c->pv.domid, &held, &c->err));
    fs_status_t s = c->ops->suspend(c->be, c->pv.domid, 60 * SECOND_NS, &stopped, &c->err);
    if (s != FS_OK) {
        conform_fail(c, __FILE__, __LINE__, "suspend: %s", c->err.text);
        (void)c->ops->monitor_release(c->be, c->pv.domid, &c->err);
        return;
    }
    bool ok = conform_refresh(c, c->pv.domid, &d);
    uint64_t resumed_from = c->ops->clock_ns(c->be);
    EXPECT_OK(c, c->ops->resume(c->be, c->pv.domid, &c->err));
    uint64_t resumed = c->ops->clock_ns(c->be);
    EXPECT_OK(c, c->ops->monitor_release(c->be, c->pv.domid, &c->err));
    EXPECT(c, ok && d.shutdown && d.shutdown_reason == 2, "suspended: shutdown %d reason %u", d.shutdown, d.shutdown_reason);
    EXPECT(c, stopped >= asked && stopped <= resumed, "stopped_ns");
    conform_note(c, "monitors held %u, handshake %.1f ms, resume %.1f ms", held, (double)(stopped - asked) / 1e6,
                 (double)(resumed - resumed_from) / 1e6);
    EXPECT_OK(c, c->ops->resume(c->be, c->pv.domid, &c->err));          /* of a running guest: no change */
}

/* A guest that cannot answer: the request is taken back, and it does not stop later. */
static void check_suspend_timeout(struct conform *c)
{
    struct hv_domain d;
    uint64_t stopped = 0;
    EXPECT_OK(c, c->ops->pause(c->be, c->pv.domid, &c->err));
    fs_status_t s = c->ops->suspend(c->be, c->pv.domid, 300000000ull, &stopped, &c->err);
    EXPECT_OK(c, c->ops->unpause(c->be, c->pv.domid, &c->err));
    EXPECT(c, s == FS_TIMEOUT, "a paused guest: %s", fs_status_name(s));
    nap_ms(2000);
    EXPECT(c, conform_refresh(c, c->pv.domid, &d) && !d.shutdown, "it suspended after the time-out");
}

/* ---- reservations and copies ---- */

static bool frame_is_on_node(struct conform *c, mfn_t mfn, uint16_t domid)
{
    struct hv_frame f;
    struct mfn_range r = { mfn, mfn_add(mfn, 1) };
    return c->ops->frames(c->be, r, &f, &c->err) == FS_OK && f.owner == HV_FRAME_DOMAIN && f.domid == domid;
}

static void check_reserve(struct conform *c)
{
    enum { N = 5000 };                  /* more than one batch, no power of two */
    uint32_t node = conform_node_with(c, N + 4096);
    mfn_t *list = calloc(N, sizeof *list);
    size_t done = 0, given = 0;
    uint64_t free_before = conform_free_pages(c);
    bool raised = false;
    struct hv_domain d;
    WANT(c, list && node != UINT32_MAX, "no node with room");
    fs_status_t s = c->ops->increase(c->be, c->pv.domid, node, N, list, &done, &c->err);
    given = done;
    WANT(c, s != FS_OK && done < N, "the limit of %llu pages did not hold: %zu given", (unsigned long long)c->pv.max_pages, done);
    WANT_OK(c, c->ops->decrease(c->be, c->pv.domid, list, given, &done, &c->err));
    given = 0;
    WANT_OK(c, c->ops->set_max_pages(c->be, c->pv.domid, c->pv.max_pages + N, &c->err));
    raised = true;
    WANT_OK(c, c->ops->increase(c->be, c->pv.domid, node, N, list, &given, &c->err));
    WANT(c, given == N, "%zu", given);
    WANT(c, conform_refresh(c, c->pv.domid, &d) && d.tot_pages == c->pv.tot_pages + N, "tot_pages %llu", (unsigned long long)d.tot_pages);
    for (size_t i = 0; i < N; i += 617) {
        WANT(c, frame_is_on_node(c, list[i], c->pv.domid), "frame %#llx is not the domain's", (unsigned long long)list[i].n);
    }
out:
    if (given) {
        s = c->ops->decrease(c->be, c->pv.domid, list, given, &done, &c->err);
        if (s != FS_OK || done != given) {
            conform_fail(c, __FILE__, __LINE__, "decrease: %zu of %zu: %s", done, given, c->err.text);
        }
    }
    if (raised && c->ops->set_max_pages(c->be, c->pv.domid, c->pv.max_pages, &c->err) != FS_OK) {
        conform_fail(c, __FILE__, __LINE__, "limit: %s", c->err.text);
    }
    uint64_t free_after = conform_free_pages(c);
    if (free_after + 64 < free_before) {
        conform_fail(c, __FILE__, __LINE__, "%llu pages lost", (unsigned long long)(free_before - free_after));
    }
    free(list);
}

/* Whole pieces: aligned, adjacent, all the domain's; a piece is as many single frames when it goes. */
static void check_reserve_extents(struct conform *c)
{
    enum { N = 3 };
    uint32_t node = conform_node_with(c, N * FS_SP_PAGES + 8192);
    mfn_t heads[N], *list = calloc(N * FS_SP_PAGES, sizeof *list);
    uint8_t *types = calloc(N * FS_SP_PAGES, 1), *flags = calloc(N * FS_SP_PAGES, 1);
    bool *owned = calloc(N * FS_SP_PAGES, sizeof *owned), raised = false;
    size_t given = 0, done = 0;
    struct hv_domain d;
    WANT(c, list && types && flags && owned && node != UINT32_MAX, "no node with room");
    fs_status_t s = c->ops->increase_extents(c->be, c->pv.domid, node, N, heads, &given, &c->err);
    WANT(c, s == FS_NO_ROOM && given < N, "the limit of %llu pages did not hold: %zu extents", (unsigned long long)c->pv.max_pages, given);
    WANT(c, given == 0, "the domain had room for an extent");
    WANT_OK(c, c->ops->set_max_pages(c->be, c->pv.domid, c->pv.max_pages + N * FS_SP_PAGES, &c->err));
    raised = true;
    s = c->ops->increase_extents(c->be, c->pv.domid, node, N, heads, &given, &c->err);
    WANT(c, (s == FS_OK && given == N) || (s == FS_NO_ROOM && given > 0 && given < N), "%zu extents: %s", given, c->err.text);
    for (size_t i = 0; i < given * FS_SP_PAGES; i++) {
        list[i] = mfn_add(heads[i / FS_SP_PAGES], i % FS_SP_PAGES);
    }
    WANT_OK(c, c->ops->types(c->be, c->pv.domid, list, given * FS_SP_PAGES, types, flags, owned, &c->err));
    for (size_t i = 0; i < given * FS_SP_PAGES; i++) {
        bool aligned = heads[i / FS_SP_PAGES].n % FS_SP_PAGES == 0;
        WANT(c, aligned && owned[i], "frame %#llx is not of an aligned piece of the domain's",
             (unsigned long long)list[i].n);
    }
    WANT(c, conform_refresh(c, c->pv.domid, &d) && d.tot_pages == c->pv.tot_pages + given * FS_SP_PAGES, "tot_pages %llu",
         (unsigned long long)d.tot_pages);
out:
    if (given) {
        s = c->ops->decrease(c->be, c->pv.domid, list, given * FS_SP_PAGES, &done, &c->err);
        if (s != FS_OK || done != given * FS_SP_PAGES) {
            conform_fail(c, __FILE__, __LINE__, "decrease: %zu of %zu: %s", done, given * FS_SP_PAGES, c->err.text);
        }
    }
    if (raised && c->ops->set_max_pages(c->be, c->pv.domid, c->pv.max_pages, &c->err) != FS_OK) {
        conform_fail(c, __FILE__, __LINE__, "limit: %s", c->err.text);
    }
    free(list);
    free(types);
    free(flags);
    free(owned);
}

static void check_copy(struct conform *c)
{
    enum { N = 64 };
    uint32_t node = conform_node_with(c, N + 4096);
    mfn_t list[2 * N];
    uint64_t raw[2 * N];
    int page_err[2 * N];
    size_t given = 0, done = 0;
    void *p = NULL;
    WANT(c, node != UINT32_MAX, "no node with room");
    WANT_OK(c, c->ops->set_max_pages(c->be, c->pv.domid, c->pv.max_pages + 2 * N, &c->err));
    WANT_OK(c, c->ops->increase(c->be, c->pv.domid, node, 2 * N, list, &given, &c->err));
    for (size_t i = 0; i < 2 * N; i++) {
        raw[i] = list[i].n;
    }
    WANT_OK(c, c->ops->map(c->be, c->pv.domid, raw, 2 * N, HV_MAP_WRITE, page_err, &p, &c->err));
    for (size_t i = 0; i < 2 * N; i++) {
        WANT(c, page_err[i] == 0, "page %zu: %d", i, page_err[i]);
    }
    struct hv_copy copies[N];
    for (size_t i = 0; i < N; i++) {
        memset((uint8_t *)p + i * FS_PAGE_BYTES, (int)(i * 7 + 1), FS_PAGE_BYTES);
        memset((uint8_t *)p + (N + i) * FS_PAGE_BYTES, 0, FS_PAGE_BYTES);
        copies[i] = (struct hv_copy){ .from = list[i], .to = list[N + i] };
    }
    WANT_OK(c, c->ops->copy(c->be, c->pv.domid, copies, N, &c->err));
    WANT(c, memcmp(p, (uint8_t *)p + N * FS_PAGE_BYTES, N * FS_PAGE_BYTES) == 0, "the copies differ");
    copies[0].from = mfn_make(UINT64_MAX >> 20);
    WANT(c, c->ops->copy(c->be, c->pv.domid, copies, 1, &c->err) != FS_OK, "a frame beyond the end was copied");
out:
    c->ops->unmap(c->be, p, 2 * N);
    if (given && c->ops->decrease(c->be, c->pv.domid, list, given, &done, &c->err) != FS_OK) {
        conform_fail(c, __FILE__, __LINE__, "decrease: %s", c->err.text);
    }
    (void)c->ops->set_max_pages(c->be, c->pv.domid, c->pv.max_pages, &c->err);
}

/* ---- all references dropped and put back ---- */

struct drop {
    mfn_t *frames;
    size_t count;
    uint8_t *types, *flags;
    bool *owned, *held;
    mfn_t *pinned;
    struct hv_pin *pins;
    size_t pin_count, tables;
    struct hv_pv_vcpu vcpus[VCPUS_MAX];
    mfn_t spare[2];
    size_t spare_count;
};

static bool drop_alloc(struct conform *c, struct drop *d)
{
    d->frames = conform_frames_of(c, c->pv.domid, &d->count);
    size_t n = d->count ? d->count : 1;
    d->types = calloc(n, 1);
    d->flags = calloc(n, 1);
    d->owned = calloc(n, sizeof *d->owned);
    d->held = calloc(n, sizeof *d->held);
    d->pinned = calloc(n, sizeof *d->pinned);
    d->pins = calloc(n, sizeof *d->pins);
    return d->frames && d->types && d->flags && d->owned && d->held && d->pinned && d->pins && d->count;
}

static void drop_free(struct drop *d)
{
    for (size_t i = 0; i < VCPUS_MAX; i++) {
        hv_vcpu_free(&d->vcpus[i]);
    }
    free(d->frames);
    free(d->types);
    free(d->flags);
    free(d->owned);
    free(d->held);
    free(d->pinned);
    free(d->pins);
}

static fs_status_t look_at_types(struct conform *c, struct drop *d)
{
    fs_status_t s = c->ops->types(c->be, c->pv.domid, d->frames, d->count, d->types, d->flags, d->owned, &c->err);
    d->pin_count = d->tables = 0;
    for (size_t i = 0; i < d->count && s == FS_OK; i++) {
        d->tables += d->types[i] != HV_TYPE_NONE;
        if (d->flags[i] & HV_FRAME_PINNED) {
            d->pinned[d->pin_count] = d->frames[i];
            d->pins[d->pin_count++] = (struct hv_pin){ .mfn = d->frames[i], .level = d->types[i] };
        }
    }
    return s;
}

/* Between the drop and its undoing: what must hold while no reference is left. */
static void inspect_dropped(struct conform *c, struct drop *d, size_t pins)
{
    size_t held = 0;
    uint64_t calls = 0;
    EXPECT_OK(c, c->ops->types(c->be, c->pv.domid, d->frames, d->count, d->types, d->flags, d->owned, &c->err));
    size_t typed = 0;
    for (size_t i = 0; i < d->count; i++) {
        typed += d->types[i] != HV_TYPE_NONE || (d->flags[i] & HV_FRAME_PINNED);
    }
    EXPECT(c, typed == 0, "%zu typed tables are left of %zu pinned ones", typed, pins);
    uint64_t start = c->ops->clock_ns(c->be);
    EXPECT_OK(c, c->ops->probe_held(c->be, c->pv.domid, d->frames, d->count, d->spare, d->held, &calls, &c->err));
    uint64_t ns = c->ops->clock_ns(c->be) - start;
    char list[400] = "";
    for (size_t i = 0; i < d->count; i++) {
        if (d->held[i] && held++ < 24) {
            uint64_t gfn;
            (void)c->ops->m2p(c->be, &d->frames[i], 1, &gfn, &c->err);
            snprintf(list + strlen(list), sizeof list - strlen(list), " %#llx", (unsigned long long)gfn);
        }
    }
    conform_note(c, "%zu frames held by others of %zu, %llu calls, %.1f ms; pfns:%s", held, d->count, (unsigned long long)calls,
                 (double)ns / 1e6, list);
    EXPECT(c, held >= 2, "the rings are mapped by the daemons, yet the probe found %zu", held);
    EXPECT(c, held <= 4 + 2 * (size_t)c->pv.vcpus + 512, "%zu held", held);
}

static void drop_suspended(struct conform *c, struct drop *d)
{
    struct fs_error first = { "" };
    size_t pins = 0, saved = 0, reset = 0;
    bool unpinned = false;
    WANT_OK(c, look_at_types(c, d));
    pins = d->pin_count;
    for (; saved < c->pv.vcpus && saved < VCPUS_MAX; saved++) {
        WANT_OK(c, c->ops->vcpu_save(c->be, c->pv.domid, (uint32_t)saved, &d->vcpus[saved], &c->err));
    }
    conform_note(c, "%zu tables, %zu pinned", d->tables, pins);
    for (size_t v = 0; v < saved; v++) {
        conform_note(c, "vCPU %zu: gdt entries %u, ldt entries %u, user root %s, state %zu bytes", v, d->vcpus[v].gdt_entries,
                     d->vcpus[v].ldt_entries, mfn_is_none(d->vcpus[v].user_cr3) ? "none" : "yes", d->vcpus[v].opaque_bytes);
    }
    WANT(c, pins > 0 && d->vcpus[0].initialised && d->vcpus[0].online && !mfn_is_none(d->vcpus[0].cr3), "vCPU 0");
    WANT_OK(c, c->ops->unpin(c->be, c->pv.domid, d->pinned, pins, &c->err));
    unpinned = true;
    for (; reset < saved; reset++) {
        if (d->vcpus[reset].initialised) {
            WANT_OK(c, c->ops->vcpu_reset(c->be, c->pv.domid, (uint32_t)reset, &c->err));
        }
    }
    inspect_dropped(c, d, pins);
    for (size_t at = 0; at < d->count; at += 4096) {
        size_t n = d->count - at < 4096 ? d->count - at : 4096;
        struct hv_m2p_set set[4096];
        uint64_t gfns[4096];
        WANT_OK(c, c->ops->m2p(c->be, &d->frames[at], n, gfns, &c->err));
        size_t k = 0;
        for (size_t i = 0; i < n; i++) {
            if (gfns[i] != FS_FRAME_NONE) {
                set[k++] = (struct hv_m2p_set){ .mfn = d->frames[at + i], .pfn = pfn_make(gfns[i]) };
            }
        }
        WANT_OK(c, c->ops->m2p_set(c->be, c->pv.domid, set, k, &c->err));
    }
out:
    first = c->err;
    if (unpinned && c->ops->pin(c->be, c->pv.domid, d->pins, pins, &c->err) != FS_OK) {
        conform_fail(c, __FILE__, __LINE__, "pin: %s", c->err.text);
    }
    for (size_t v = 0; unpinned && v < reset; v++) {
        if (c->ops->vcpu_load(c->be, c->pv.domid, &d->vcpus[v], &c->err) != FS_OK) {
            conform_fail(c, __FILE__, __LINE__, "vcpu_load %zu: %s", v, c->err.text);
        }
    }
    c->err = first;
}

static void check_drop(struct conform *c)
{
    struct drop d = { 0 };
    uint64_t stopped = 0;
    uint32_t held = 0;
    size_t done = 0;
    bool suspended = false;
    uint32_t node = conform_node_with(c, 4096);
    WANT(c, drop_alloc(c, &d), "no frames");
    WANT_OK(c, c->ops->set_max_pages(c->be, c->pv.domid, c->pv.max_pages + 2, &c->err));
    WANT_OK(c, c->ops->increase(c->be, c->pv.domid, node, 2, d.spare, &d.spare_count, &c->err));
    WANT_OK(c, c->ops->monitor_hold(c->be, c->pv.domid, &held, &c->err));
    WANT_OK(c, c->ops->suspend(c->be, c->pv.domid, 60 * SECOND_NS, &stopped, &c->err));
    suspended = true;
    drop_suspended(c, &d);
out:
    if (suspended && c->ops->resume(c->be, c->pv.domid, &c->err) != FS_OK) {
        conform_fail(c, __FILE__, __LINE__, "resume: %s", c->err.text);
    }
    if (suspended) {
        conform_note(c, "stopped for %.1f ms", (double)(c->ops->clock_ns(c->be) - stopped) / 1e6);
    }
    (void)c->ops->monitor_release(c->be, c->pv.domid, &c->err);
    if (d.spare_count && c->ops->decrease(c->be, c->pv.domid, d.spare, d.spare_count, &done, &c->err) != FS_OK) {
        conform_fail(c, __FILE__, __LINE__, "decrease: %s", c->err.text);
    }
    (void)c->ops->set_max_pages(c->be, c->pv.domid, c->pv.max_pages, &c->err);
    drop_free(&d);
}

/* A damaged saved state (a journal's) must be refused, not loaded. */
static void check_vcpu_load_refuses(struct conform *c)
{
    struct hv_pv_vcpu v = { .initialised = true, .vcpu = 0 };
    uint8_t junk[256];
    memset(junk, 0x5a, sizeof junk);
    EXPECT(c, c->ops->vcpu_load(c->be, c->pv.domid, &v, &c->err) == FS_BAD_INPUT, "no state at all");
    v.opaque = junk;
    v.opaque_bytes = sizeof junk;
    EXPECT(c, c->ops->vcpu_load(c->be, c->pv.domid, &v, &c->err) == FS_BAD_INPUT, "junk");
}

const struct conform_check conform_pv_checks[] = {
    { .name = "pv-suspend", .fn = check_suspend, .needs_pv = true },
    { .name = "pv-suspend-timeout", .fn = check_suspend_timeout, .needs_pv = true },
    { .name = "pv-reserve", .fn = check_reserve, .needs_pv = true },
    { .name = "pv-extents", .fn = check_reserve_extents, .needs_pv = true },
    { .name = "pv-copy", .fn = check_copy, .needs_pv = true },
    { .name = "pv-drop", .fn = check_drop, .needs_pv = true },
    { .name = "pv-load-refuses", .fn = check_vcpu_load_refuses, .needs_pv = true },
    { 0 }
};
