/*
 * hap_build.c - a synthetic translated (PVH-like) guest: plan and build.
 *
 * Owns: struct emb_guest of a HAP domain.
 * Invariants: I1 gfns below `pages` are RAM but for a legacy hole (0xa0 to 0x100), which
 * makes the first 2 MiB small pages, and the device hole below 4 GiB; aligned 2 MiB gfn ranges are 2 MiB extents
 * unless small pages were asked for; rings lie in special gfns below 4 GiB.
 * Lock order: the machine's lock is held.
 * Why: this is how the toolstack builds a PVH guest.  vcpu_info pages of several
 * vCPUs may share one page (by seed), as per-CPU areas of small guests can.
 * Cost: one page of writing a frame; metadata-only machines write nothing.
 */
#include "emb_guest.h"

#define HOLE_START 0xa0u
#define HOLE_END   0x100u
#define MMIO_START 0xfc000u             /* the last 64 MiB below 4 GiB: special pages and devices */
#define MMIO_END   0x100000u
#define GFN_CONSOLE 0xfeffcu
#define GFN_STORE   0xfeffdu
#define GFN_SPACE   0x400000u           /* scratch gfns of a tool lie above the guest's */

static uint64_t take_gfn(struct emb_guest *g, enum emb_role role)
{
    uint64_t gfn;
    do {
        gfn = HOLE_END + emb_random(&g->rng) % (g->pfns - HOLE_END);
    } while (g->role[gfn] != EMB_R_DATA);
    g->role[gfn] = (uint8_t)role;
    return gfn;
}

static void hold(struct emb_guest *g, enum emb_held_kind kind, uint64_t gfn, uint32_t vcpu, uint32_t offset)
{
    ASSERT_CMP(g->hold_count, <, EMB_HELD_MAX);
    g->holds[g->hold_count++] = (struct emb_held){ .gfn = gfn, .kind = (uint8_t)kind, .vcpu = (uint16_t)vcpu, .offset = offset };
}

static void plan_events(struct emb_guest *g, const struct emb_domain_config *c)
{
    bool share = emb_random(&g->rng) & 1;
    uint64_t info = 0;
    for (uint32_t i = 0; i + c->offline_vcpus < c->vcpus; i++) {
        if (!share || i % 4 == 0) {
            info = take_gfn(g, EMB_R_VCPU_INFO);
        }
        g->vcpus[i].runs = true;
        hold(g, EMB_HELD_VCPU_INFO, info, i, (i % 4 * 16 + (uint32_t)(emb_random(&g->rng) % 16)) * 64);
        if (!c->no_fifo) {
            hold(g, EMB_HELD_EVT_CONTROL, take_gfn(g, EMB_R_EVT_CONTROL), i, 0);
        }
    }
    if (!c->no_fifo) {
        hold(g, EMB_HELD_EVT_ARRAY, take_gfn(g, EMB_R_EVT_ARRAY), 0, 0);
    }
}

static void plan_grants(struct emb_guest *g, const struct emb_domain_config *c)
{
    for (uint32_t i = 0; i < c->grants_mapped + c->grants_offered && i < EMB_GRANTS_MAX; i++) {
        bool mapped = i < c->grants_mapped && g->hold_count < EMB_HELD_MAX;
        g->grant_pfn[i] = HOLE_END + emb_random(&g->rng) % (g->pfns - HOLE_END);
        while (g->role[g->grant_pfn[i]] != EMB_R_DATA) {
            g->grant_pfn[i] = HOLE_END + emb_random(&g->rng) % (g->pfns - HOLE_END);
        }
        g->grants[i] = (struct emb_grant){ .in_use = 1, .mapped = mapped, .writable = i % 2 == 0 };
        g->grant_count = i + 1;
        if (mapped) {
            hold(g, EMB_HELD_GRANT, g->grant_pfn[i], 0, i);
        }
    }
}

int emb_hap_plan(struct emb_machine *m, struct emb_domain *d)
{
    const struct emb_domain_config *c = &d->config;
    if (c->pages < 512 || c->ballooned > c->pages / 8 || c->offline_vcpus >= c->vcpus) {
        return -EINVAL;
    }
    struct emb_guest *g = d->guest = emb_guest_new(m, c->pages, c->seed);
    uint64_t space = c->pages + HOLE_END > GFN_SPACE / 2 ? c->pages * 2 + GFN_SPACE : GFN_SPACE;
    if (!g || emb_p2m_init(m, d, space) != 0) {
        return -ENOMEM;
    }
    for (uint64_t gfn = 0; gfn < g->pfns; gfn++) {
        bool hole = (gfn >= HOLE_START && gfn < HOLE_END) || (gfn >= MMIO_START && gfn < MMIO_END);
        g->role[gfn] = hole ? EMB_R_HOLE : EMB_R_DATA;
    }
    g->special_gfn[0] = g->console = GFN_CONSOLE;
    g->special_gfn[1] = g->store = GFN_STORE;
    g->special_count = 2;
    hold(g, EMB_HELD_CONSOLE, g->console, 0, 0);
    hold(g, EMB_HELD_STORE, g->store, 0, 0);
    plan_events(g, c);
    for (uint32_t i = 0; i < c->ballooned; i++) {
        (void)take_gfn(g, EMB_R_HOLE);
    }
    plan_grants(g, c);                  /* last: a granted page is data, and stays so */
    d->max_pages = c->pages + g->special_count;
    return 0;
}

static int add_gfn(struct emb_machine *m, struct emb_domain *d, uint64_t gfn, uint32_t order)
{
    uint64_t mfn;
    int rc = emb_place(m, d, order, &mfn);
    if (rc == 0) {
        rc = emb_p2m_set(m, d, gfn, mfn, order);
    }
    for (uint64_t i = 0; rc == 0 && i < (1ull << order); i++) {
        emb_frame_at(m, mfn + i)->m2p1 = gfn + i + 1;
        if (m->contents) {
            uint32_t gen = gfn + i < d->guest->pfns ? d->guest->gen[gfn + i] : 0;
            emb_pattern(d->guest, gfn + i, gen, emb_table(m, mfn + i));
        }
    }
    return rc;
}

static bool whole_extent(const struct emb_guest *g, uint64_t gfn)
{
    for (uint64_t i = 0; i < FS_SP_PAGES; i++) {
        if (gfn + i >= g->pfns || g->role[gfn + i] == EMB_R_HOLE) {
            return false;
        }
    }
    return true;
}

int emb_hap_build(struct emb_machine *m, struct emb_domain *d)
{
    const struct emb_guest *g = d->guest;
    int rc = 0;
    for (uint64_t gfn = 0; rc == 0 && gfn < g->pfns;) {
        if (!d->config.small_pages && gfn % FS_SP_PAGES == 0 && whole_extent(g, gfn)) {
            rc = add_gfn(m, d, gfn, FS_SP_ORDER);
            if (rc == 0) {
                gfn += FS_SP_PAGES;
                continue;
            }
            if (rc != -ENOMEM) {
                break;
            }
        }
        rc = g->role[gfn] == EMB_R_HOLE ? 0 : add_gfn(m, d, gfn, 0);
        gfn++;
    }
    for (uint32_t i = 0; rc == 0 && i < g->special_count; i++) {
        rc = add_gfn(m, d, g->special_gfn[i], 0);
    }
    if (rc == 0) {
        rc = emb_take_holds(m, d, NULL);
    }
    for (uint32_t i = 0; rc == 0 && i < d->vcpu_count; i++) {
        d->vcpus[i].initialised = d->vcpus[i].online = g->vcpus[i].runs;
    }
    return rc;
}
