/*
 * fake_hap.c - see fake_hap.h.
 *
 * Owns: one machine of FAKE_FRAMES frames with one translated domain, in shared memory.
 * Invariants (checked by fake_hap_check.c):
 *  I1 p2m and M2P agree; a frame is free, offlined, or owned;
 *  I2 a frame is let go when neither the p2m, nor a mapping, nor a grant, nor Xen holds it;
 *  I3 each data page holds the words that its gfn and version say.
 * Calls that the mover must not make abort.
 */
#include "fake_hap_priv.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct fake_state *S;
static int memory_fd = -1;
static struct { uint8_t *addr; size_t count; uint32_t *mfns; } mappings[64];    /* of this process */

/* ---- pages ---- */

uint8_t *fake_bytes(uint32_t mfn)
{
    static uint8_t *all;

    if (!all) {
        all = mmap(NULL, (size_t)FAKE_FRAMES * FS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, memory_fd, 0);
        if (all == MAP_FAILED) {
            abort();
        }
    }
    return all + (size_t)mfn * FS_PAGE_BYTES;
}

uint64_t fake_word(uint32_t slot, uint32_t version, unsigned i)
{
    uint64_t x = ((uint64_t)slot << 32 | version) * 0x9e3779b97f4a7c15ull + i * 0xbf58476d1ce4e5b9ull;

    return x ^ x >> 31;
}

static void fill(uint32_t mfn, uint32_t slot, uint32_t version)
{
    uint64_t *w = (uint64_t *)(void *)fake_bytes(mfn);

    for (unsigned i = 0; i < 512; i++) {
        w[i] = fake_word(slot, version, i);
    }
}

static uint32_t roll(uint32_t n)
{
    S->rng = S->rng * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(S->rng >> 33) % n;
}

static uint32_t slot_of(uint64_t gfn)
{
    if (gfn < FAKE_GFNS) {
        return (uint32_t)gfn;
    }
    return gfn >= FAKE_WINDOW && gfn - FAKE_WINDOW < FAKE_WINDOW_GFNS ? FAKE_GFNS + (uint32_t)(gfn - FAKE_WINDOW) : NONE;
}
static uint64_t gfn_of(uint32_t slot) { return slot < FAKE_GFNS ? slot : FAKE_WINDOW + slot - FAKE_GFNS; }

/* I2 */
static void let_go(uint32_t mfn)
{
    struct fake_frame *f = &S->frames[mfn];
    uint64_t any = 0;

    if (!f->owned || f->gfn != NONE || f->maps || f->grants || f->types) {
        return;
    }
    for (unsigned i = 0; i < 512; i++) {
        any |= ((uint64_t *)(void *)fake_bytes(mfn))[i];
    }
    S->unscrubbed += any != 0;
    f->owned = false;
    f->offlined = f->marked;
    S->tot_pages--;
}

static void p2m_clear(uint32_t slot)
{
    uint32_t mfn = S->p2m[slot];

    S->p2m[slot] = NONE;
    if (mfn != NONE) {
        S->frames[mfn].gfn = NONE;
        let_go(mfn);
    }
}

static void p2m_set(uint32_t slot, uint32_t mfn)
{
    S->p2m[slot] = mfn;
    S->frames[mfn].gfn = slot;
    S->gfn_top = gfn_of(slot) + 1 > S->gfn_top ? (uint32_t)gfn_of(slot) + 1 : S->gfn_top;
}

static void own(uint32_t mfn, uint32_t slot)
{
    S->frames[mfn].owned = true;
    S->tot_pages++;
    p2m_set(slot, mfn);
}

/* ---- the guest, its peer, and Xen's own writes ---- */

static void version_up(uint32_t slot, uint32_t mfn)
{
    S->version[slot]++;
    fill(mfn, slot, S->version[slot]);
}

static void guest_runs(void)
{
    for (unsigned i = 0; i < 6; i++) {
        uint32_t slot = roll(FAKE_GFNS);

        if (S->kind[slot] == DATA && S->p2m[slot] != NONE) {
            version_up(slot, S->p2m[slot]);
        }
    }
    if (S->o.balloons && roll(3) == 0) {
        uint32_t slot = 1024 + roll(256);

        if (S->kind[slot] == DATA && S->p2m[slot] != NONE && S->frames[S->p2m[slot]].grants == 0) {
            memset(fake_bytes(S->p2m[slot]), 0, FS_PAGE_BYTES);   /* a guest that cares scrubs what it gives up */
            S->kind[slot] = EMPTY;
            p2m_clear(slot);
        }
    }
    struct fake_grant *g = &S->grants[roll(FAKE_GRANTS)];
    if (S->o.grants && !g->made && roll(2) == 0) {
        uint32_t slot = roll(FAKE_GFNS);

        if (S->kind[slot] == DATA && S->p2m[slot] != NONE) {
            *g = (struct fake_grant){ .made = true, .slot = slot };
        }
    } else if (g->made && !g->mapped && roll(4) == 0) {
        g->made = false;
    }
    if (S->o.hotplug && S->online < FAKE_VCPUS && S->calls > 40) {
        S->online = FAKE_VCPUS;         /* its pages: 1040 (vcpu_info) and 1061 (control block) */
        for (uint32_t slot = 1040; slot <= 1061; slot += 21) {
            S->kind[slot] = slot == 1040 ? VCPU : CONTROL;
            S->frames[S->p2m[slot]].types = 1;
            S->held_mfn[slot] = S->p2m[slot];
            memset(fake_bytes(S->p2m[slot]), 0, FS_PAGE_BYTES);
        }
    }
}

/* The pages that Xen holds: it writes them by frame, at any time. */
static void xen_writes(void)
{
    for (uint32_t slot = 0; slot < FAKE_GFNS; slot++) {
        if (S->held_mfn[slot] == NONE) {
            continue;
        }
        uint8_t *p = fake_bytes(S->held_mfn[slot]);
        S->version[slot]++;
        switch ((enum gfn_kind)S->kind[slot]) {
        case VCPU: {
            uint64_t tsc = S->version[slot], scale = 0x80000000ull | 0xffull << 32;
            memcpy(p + 128 + 40, &tsc, 8);
            memcpy(p + 128 + 56, &scale, 8);
            break;
        }
        case ARRAY: {
            uint32_t word = S->version[slot] % 2 ? 0x80000000u : 0;
            memcpy(p + 4 * 9, &word, 4);
            break;
        }
        case CONTROL: {
            uint32_t head = 1 + S->version[slot] % 30;
            memcpy(p + 8 + 4 * 7, &head, 4);
            break;
        }
        default: break;
        }
    }
}

static void peer_runs(void)
{
    struct fake_grant *g = &S->grants[roll(FAKE_GRANTS)];

    if (!g->made) {
        return;
    }
    if (!g->mapped) {
        if (S->p2m[g->slot] != NONE) {
            g->mfn = S->p2m[g->slot];
            g->mapped = true;
            S->frames[g->mfn].grants++;
        }
        return;
    }
    version_up(g->slot, g->mfn);
    if (roll(3) == 0) {
        g->mapped = g->made = false;
        S->frames[g->mfn].grants--;
        let_go(g->mfn);
    }
}

static void world_runs(void)
{
    if (S->stopped || S->dying || S->o.quiet) {
        return;
    }
    if (S->pauses == 0) {
        guest_runs();
    }
    peer_runs();
    xen_writes();
}

/* ---- every call ---- */

/* True: the call is to fail. */
static bool enter(const char *name, bool may_fail, struct fs_error *err, fs_status_t *st)
{
    world_runs();
    S->calls++;
    S->clock += 20000;
    *st = FS_OK;
    if (S->calls == S->o.at_call) {
        if (S->o.action == FAKE_KILL_BEFORE) {
            (void)raise(SIGKILL);
        }
        if (S->o.action == FAKE_DIE) {
            S->dying = true;
        }
        if (S->o.action == FAKE_FAIL && may_fail) {
            *st = fs_fail(err, FS_REFUSED, "injected failure of %s, call %llu", name, (unsigned long long)S->calls);
            return true;
        }
    }
    if (S->dying && may_fail) {
        *st = fs_fail(err, FS_REFUSED, "%s: no such domain", name);
        return true;
    }
    return false;
}

static void leave(void)
{
    if (S->calls == S->o.at_call && S->o.action == FAKE_KILL_AFTER) {
        (void)raise(SIGKILL);
    }
}

static fs_status_t fake_domain(struct hv_backend *be, uint16_t domid, struct hv_domain *out, struct fs_error *err)
{
    fs_status_t st;

    (void)be;
    (void)domid;
    (void)enter("domain", false, err, &st);
    fake_hap_domain(out);
    return FS_OK;
}

static fs_status_t fake_ram(struct hv_backend *be, struct mfn_range_set *out, struct fs_error *err)
{
    fs_status_t st;

    (void)be;
    return enter("ram", true, err, &st) ? st : mfn_set_add(out, (struct mfn_range){ { 0 }, { FAKE_FRAMES } });
}

static fs_status_t fake_m2p(struct hv_backend *be, const mfn_t *mfns, size_t count, uint64_t *gfns, struct fs_error *err)
{
    fs_status_t st;

    (void)be;
    (void)enter("m2p", false, err, &st);                    /* a read of mapped memory: cannot fail */
    for (size_t i = 0; i < count; i++) {
        uint32_t slot = mfns[i].n < FAKE_FRAMES ? S->frames[mfns[i].n].gfn : NONE;
        gfns[i] = slot == NONE ? FS_FRAME_NONE : gfn_of(slot);
    }
    leave();
    return FS_OK;
}

static fs_status_t fake_mark_owned(struct hv_backend *be, const mfn_t *mfns, size_t count, struct hv_mark_result *out, struct fs_error *err)
{
    fs_status_t st;

    (void)be;
    if (enter("mark_owned", true, err, &st)) {
        return st;
    }
    for (size_t i = 0; i < count; i++) {
        struct fake_frame *f = &S->frames[mfns[i].n];

        f->marked = true;
        f->offlined |= !f->owned;
        out[i] = (struct hv_mark_result){ .mark = f->owned ? HV_MARK_PENDING_OWNED : HV_MARK_OFFLINED, .domid = FAKE_DOMID };
    }
    leave();
    return FS_OK;
}

static fs_status_t fake_pause(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    fs_status_t st;

    (void)be;
    (void)domid;
    if (enter("pause", true, err, &st)) {
        return st;
    }
    S->pauses++;
    leave();
    return FS_OK;
}

static fs_status_t fake_unpause(struct hv_backend *be, uint16_t domid, struct fs_error *err)
{
    fs_status_t st;

    (void)be;
    (void)domid;
    if (enter("unpause", S->dying, err, &st)) {             /* only a domain that has gone makes it fail */
        return st;
    }
    if (S->pauses == 0) {
        return fs_fail(err, FS_REFUSED, "not paused");
    }
    S->pauses--;
    leave();
    return FS_OK;
}

static fs_status_t fake_set_max(struct hv_backend *be, uint16_t domid, uint64_t pages, struct fs_error *err)
{
    fs_status_t st;

    (void)be;
    (void)domid;
    if (enter("set_max_pages", pages > S->max_pages, err, &st)) {   /* lowering does not fail */
        return st;
    }
    S->max_pages = pages;
    leave();
    return FS_OK;
}

static uint32_t find_free(unsigned order)
{
    uint32_t n = 1u << order;

    for (uint32_t m = FAKE_NEW; m + n <= FAKE_FRAMES; m += n) {
        uint32_t k = 0;

        while (k < n && !S->frames[m + k].owned && !S->frames[m + k].marked) {
            k++;
        }
        if (k == n) {
            return m;
        }
    }
    return NONE;
}

static fs_status_t fake_populate(struct hv_backend *be, uint16_t domid, uint32_t node, unsigned order, const gfn_t *gfns, size_t count,
                                 size_t *done, struct fs_error *err)
{
    fs_status_t st;

    (void)be;
    (void)domid;
    *done = 0;
    if (enter("populate", true, err, &st)) {
        return st;
    }
    if (node != 0) {
        abort();                        /* the room offers node 0 only */
    }
    for (; *done < count; ++*done) {
        uint32_t mfn = find_free(order), n = 1u << order, slot = slot_of(gfns[*done].n);

        if (mfn == NONE || S->tot_pages + n > S->max_pages || (order == FS_SP_ORDER && S->superpages == 0)) {
            return fs_fail(err, FS_NO_ROOM, "no frames");
        }
        S->superpages -= order == FS_SP_ORDER;
        for (uint32_t k = 0; k < n; k++) {
            if (slot == NONE || S->p2m[slot + k] != NONE) {
                abort();                /* would leak the frame that is there */
            }
            own(mfn + k, slot + k);
        }
    }
    leave();
    return FS_OK;
}

static fs_status_t fake_depopulate(struct hv_backend *be, uint16_t domid, unsigned order, const gfn_t *gfns, size_t count, size_t *done,
                                   struct fs_error *err)
{
    fs_status_t st;
    bool half = S->calls + 1 == S->o.at_call && S->o.action == FAKE_FAIL && order > 0;

    (void)be;
    (void)domid;
    *done = 0;
    if (!half && enter("depopulate", order > 0, err, &st)) {
        return st;
    }
    if (half) {                         /* stops in the middle of an extent, as Xen may */
        S->calls++;
        for (uint32_t k = 0; k < 100; k++) {
            p2m_clear(slot_of(gfns[0].n) + k);
        }
        return fs_fail(err, FS_REFUSED, "injected: half an extent");
    }
    for (; *done < count; ++*done) {
        for (uint32_t k = 0; k < 1u << order; k++) {
            p2m_clear(slot_of(gfns[*done].n) + k);
        }
    }
    leave();
    return FS_OK;
}

static fs_status_t fake_remap(struct hv_backend *be, uint16_t domid, const gfn_t *from, const gfn_t *to, size_t count, size_t *done,
                              struct fs_error *err)
{
    fs_status_t st;
    size_t most = count;

    (void)be;
    (void)domid;
    *done = 0;
    if (S->calls + 1 == S->o.at_call && S->o.action == FAKE_FAIL && count > 1) {
        most = count / 2;               /* part of the batch, then a refusal */
        S->calls++;
    } else if (enter("remap", count == 1, err, &st)) {
        return st;
    }
    for (; *done < most; ++*done) {
        uint32_t a = slot_of(from[*done].n), b = slot_of(to[*done].n);
        uint32_t mfn = a == NONE ? NONE : S->p2m[a];

        if (mfn == NONE || b == NONE) {
            return fs_fail(err, FS_REFUSED, "gfn 0x%llx is empty", (unsigned long long)from[*done].n);
        }
        if (S->bad_copies < S->o.bad_word_at && S->kind[b < FAKE_GFNS ? b : 0] == DATA) {
            fake_bytes(mfn)[roll(FS_PAGE_BYTES)] ^= 1;
            S->bad_copies++;
        }
        S->p2m[a] = NONE;
        S->frames[mfn].gfn = NONE;
        p2m_clear(b);
        p2m_set(b, mfn);
    }
    if (most < count) {
        return fs_fail(err, FS_REFUSED, "injected: half a batch");
    }
    leave();
    return FS_OK;
}

static fs_status_t fake_gfn_limit(struct hv_backend *be, uint16_t domid, uint64_t *limit, struct fs_error *err)
{
    fs_status_t st;

    (void)be;
    (void)domid;
    *limit = S->gfn_top;
    return enter("gfn_limit", true, err, &st) ? st : FS_OK;
}

static fs_status_t fake_map(struct hv_backend *be, uint16_t domid, const uint64_t *frames, size_t count, enum hv_map_prot prot,
                            int *page_err, void **out, struct fs_error *err)
{
    fs_status_t st;
    size_t m = 0;

    (void)be;
    (void)domid;
    if (enter("map", true, err, &st)) {
        return st;
    }
    while (mappings[m].addr) {
        m++;
    }
    mappings[m].addr = mmap(NULL, count * FS_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mappings[m].count = count;
    mappings[m].mfns = malloc(count * sizeof(uint32_t));
    for (size_t i = 0; i < count; i++) {
        uint32_t slot = slot_of(frames[i]), mfn = slot == NONE ? NONE : S->p2m[slot];

        mappings[m].mfns[i] = mfn;
        page_err[i] = mfn == NONE ? -22 : 0;
        if (mfn != NONE) {
            S->frames[mfn].maps++;
            if (mmap(mappings[m].addr + i * FS_PAGE_BYTES, FS_PAGE_BYTES, prot == HV_MAP_WRITE ? PROT_READ | PROT_WRITE : PROT_READ,
                     MAP_SHARED | MAP_FIXED, memory_fd, (off_t)mfn * FS_PAGE_BYTES) == MAP_FAILED) {
                abort();
            }
        }
    }
    *out = mappings[m].addr;
    leave();
    return FS_OK;
}

static void fake_unmap(struct hv_backend *be, void *addr, size_t count)
{
    (void)be;
    for (size_t m = 0; m < FS_ARRAY_SIZE(mappings); m++) {
        if (mappings[m].addr != addr || !addr) {
            continue;
        }
        if (mappings[m].count != count) {
            abort();
        }
        for (size_t i = 0; i < count; i++) {
            if (mappings[m].mfns[i] != NONE) {
                S->frames[mappings[m].mfns[i]].maps--;
                let_go(mappings[m].mfns[i]);
            }
        }
        munmap(addr, count * FS_PAGE_BYTES);
        free(mappings[m].mfns);
        mappings[m].addr = NULL;
        mappings[m].mfns = NULL;
        return;
    }
    abort();
}

static fs_status_t fake_specials(struct hv_backend *be, uint16_t domid, struct hv_special **out, size_t *count, struct fs_error *err)
{
    fs_status_t st;

    (void)be;
    (void)domid;
    if (enter("specials", true, err, &st)) {
        return st;
    }
    struct hv_special *s = calloc(FAKE_GRANTS + 3, sizeof(*s));
    s[0] = (struct hv_special){ .gfn = 1030, .mfn = MFN_NONE, .kind = HV_SPECIAL_XENSTORE };
    s[1] = (struct hv_special){ .gfn = 1031, .mfn = MFN_NONE, .kind = HV_SPECIAL_CONSOLE };
    s[2] = (struct hv_special){ .gfn = 1032, .mfn = MFN_NONE, .kind = HV_SPECIAL_IOREQ };
    *count = 3;
    for (unsigned i = 0; i < FAKE_GRANTS; i++) {
        if (S->grants[i].made) {
            s[(*count)++] = (struct hv_special){ .gfn = S->grants[i].slot, .mfn = MFN_NONE, .grant_ref = i,
                .kind = S->grants[i].mapped ? HV_SPECIAL_GRANT_MAPPED : HV_SPECIAL_GRANT_OFFERED };
        }
    }
    *out = s;
    return FS_OK;
}

static fs_status_t fake_evtchn(struct hv_backend *be, uint16_t domid, uint8_t *state, size_t count, size_t *ports, struct fs_error *err)
{
    fs_status_t st;

    (void)be;
    (void)domid;
    if (enter("evtchn_state", true, err, &st)) {
        return st;
    }
    *ports = 30;
    for (size_t p = 1; p < 30 && p < count; p++) {
        uint8_t kind = S->o.no_kinds ? 0 : p % 3 == 0 ? 6 << 4 : 3 << 4;
        state[p] = (uint8_t)(0x80 | 0x04 | kind);           /* all unmasked, FIFO */
    }
    return FS_OK;
}

static fs_status_t fake_refs(struct hv_backend *be, const mfn_t *mfns, size_t count, struct hv_frame_refs *out, struct fs_error *err)
{
    fs_status_t st;

    (void)be;
    if (S->o.no_refs) {
        return fs_fail(err, FS_UNSUPPORTED, "this machine does not tell");
    }
    if (enter("frame_refs", true, err, &st)) {
        return st;
    }
    for (size_t i = 0; i < count; i++) {
        const struct fake_frame *f = &S->frames[mfns[i].n];

        out[i] = (struct hv_frame_refs){ .known = roll(20) != 0, .domid = f->owned ? FAKE_DOMID : FS_DOMID_NONE,
            .count = (uint64_t)(f->gfn != NONE) + f->maps + f->grants + f->types, .type_count = f->types };
    }
    return FS_OK;
}

static uint64_t fake_clock(struct hv_backend *be)
{
    (void)be;
    return S->clock += 1000;
}

static const struct hv_backend_ops ops = {
    .name = "fake-hap", .domain = fake_domain, .ram = fake_ram, .m2p = fake_m2p, .mark_owned = fake_mark_owned, .pause = fake_pause,
    .unpause = fake_unpause, .set_max_pages = fake_set_max, .populate = fake_populate, .depopulate = fake_depopulate,
    .remap = fake_remap, .gfn_limit = fake_gfn_limit, .map = fake_map, .unmap = fake_unmap, .specials = fake_specials,
    .evtchn_state = fake_evtchn, .frame_refs = fake_refs, .clock_ns = fake_clock,
};
static struct hv_backend backend = { .ops = &ops };

struct hv_backend *fake_hap_backend(void) { return &backend; }

/* ---- making and judging ---- */

static void make_held(uint32_t slot, enum gfn_kind kind)
{
    S->kind[slot] = (uint8_t)kind;
    S->held_mfn[slot] = S->p2m[slot];
    S->frames[S->p2m[slot]].types = 1;
    memset(fake_bytes(S->p2m[slot]), 0, FS_PAGE_BYTES);
}

static void make_array_words(uint32_t mfn, bool real)
{
    uint32_t *w = (uint32_t *)(void *)fake_bytes(mfn);

    for (unsigned i = 0; i < 1024; i++) {
        w[i] = real && i < 30 ? 0 : 0x40000000u;
    }
}

static void make_decoys(void)
{
    uint8_t *p = fake_bytes(S->p2m[1070]);        /* as a control block */
    uint64_t scale = 0x80000000ull, tsc = 12345;
    uint32_t seven = 7;

    S->kind[1070] = S->kind[1071] = S->kind[100] = DECOY;
    memset(p, 0, FS_PAGE_BYTES);
    memcpy(p + 8, &seven, 4);
    p = fake_bytes(S->p2m[1071]);                 /* as a vcpu_info */
    memset(p, 0, FS_PAGE_BYTES);
    memcpy(p + 64 + 40, &tsc, 8);
    memcpy(p + 64 + 56, &scale, 8);
    make_array_words(S->p2m[100], false);       /* as an event array page, in the first extent */
}

void fake_hap_make(const struct fake_options *o)
{
    if (memory_fd < 0) {
        memory_fd = memfd_create("fake-hap", 0);
        if (memory_fd < 0 || ftruncate(memory_fd, (off_t)FAKE_FRAMES * FS_PAGE_BYTES) != 0) {
            abort();
        }
        S = mmap(NULL, sizeof(*S), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    }
    memset(S, 0, sizeof(*S));
    S->o = *o;
    S->rng = o->seed;
    S->superpages = o->superpages;
    S->online = o->hotplug ? 1 : FAKE_VCPUS;
    for (uint32_t i = 0; i < FAKE_FRAMES; i++) {
        S->frames[i].gfn = NONE;
    }
    memset(S->p2m, 0xff, sizeof(S->p2m));
    memset(S->held_mfn, 0xff, sizeof(S->held_mfn));
    for (uint32_t g = 0; g < 2048; g++) {               /* extents at 0, 512, 1536; single frames at 1024..1279 */
        uint32_t mfn = g < 1024 ? 1024 + g : g < 1280 ? 2048 + (g - 1024) * 2 : g >= 1536 ? 2560 + (g - 1536) : NONE;

        if (mfn != NONE) {
            own(mfn, g);
            S->kind[g] = DATA;
            fill(mfn, g, 0);
        }
    }
    for (uint32_t g = 3000; g < 3040; g++) {            /* some live elsewhere already */
        own(FAKE_NEW + g, g);
        S->kind[g] = DATA;
        fill(FAKE_NEW + g, g, 0);
    }
    make_held(700, VCPU);
    make_held(3010, ARRAY);                             /* outside the range: only the whole guest shows it */
    make_array_words(S->p2m[3010], true);
    make_held(1060, CONTROL);
    if (!o->hotplug) {
        make_held(1040, VCPU);
        make_held(1061, CONTROL);
    }
    if (o->lose_control_block) {
        fake_bytes(S->p2m[1060])[2000] = 1;
    }
    S->kind[1030] = S->kind[1031] = RING;
    make_decoys();
    xen_writes();
    S->max_pages = S->tot_pages + 16;
}

size_t fake_hap_list(struct mover_list *list)
{
    *list = (struct mover_list){ .base = FAKE_RANGE.start };
    for (uint64_t m = FAKE_RANGE.start.n; m < FAKE_RANGE.end.n; m++) {
        if (S->frames[m].owned && mover_list_add(list, mfn_make(m), S->frames[m].gfn == NONE ? FS_FRAME_NONE : gfn_of(S->frames[m].gfn)) != FS_OK) {
            abort();
        }
    }
    return list->count;
}

void fake_hap_domain(struct hv_domain *out)
{
    *out = (struct hv_domain){ .domid = FAKE_DOMID, .kind = HV_DOMAIN_HAP, .paused = S->pauses > 0, .dying = S->dying, .name = "fake",
        .uuid = { 1, 2, 3 }, .tot_pages = S->tot_pages, .max_pages = S->max_pages, .vcpus = FAKE_VCPUS, .vcpus_online = S->online };
}

void fake_hap_room(struct room *room)
{
    *room = (struct room){ .count = 1 };
    room->nodes[0].node = 0;
    for (uint32_t m = FAKE_NEW; m < FAKE_FRAMES; m++) {
        room->nodes[0].free_pages += !S->frames[m].owned;
    }
}

void fake_hap_process_died(void)
{
    for (uint32_t m = 0; m < FAKE_FRAMES; m++) {
        S->frames[m].maps = 0;
        let_go(m);
    }
    S->unscrubbed = 0;                  /* the kernel took the mappings away: nobody could scrub */
}

void fake_hap_arm(enum fake_action action, uint32_t at_call)
{
    S->o.action = action;
    S->o.at_call = at_call;
    S->calls = 0;
}

void fake_hap_stop_guest(void)
{
    for (unsigned i = 0; i < FAKE_GRANTS; i++) {
        if (S->grants[i].mapped) {
            S->frames[S->grants[i].mfn].grants--;
            let_go(S->grants[i].mfn);
        }
        S->grants[i] = (struct fake_grant){ 0 };
    }
    S->stopped = true;
}
