/*
 * guest_check.c - does a guest's memory hold what it should, and lead where it should?
 *
 * Owns: nothing; reads only.
 * What is checked, each against the truth in struct emb_guest:
 *  C1 every pfn with a frame: the guest's p2m (PV: read through its own tables), the frame's
 *     owner and the M2P agree; no two pfns have one frame; no hole has a frame;
 *  C2 contents: data by pattern and generation, tables entry by entry with frames
 *     translated back to pfns and Xen's own flags added, p2m lists, descriptors;
 *  C3 vCPUs: roots, GDT, LDT by pfn, and every byte of the kept state;
 *  C4 frames that Xen or dom0 hold are the frames that the guest reaches at that pfn;
 *     grants name the frame of their page;
 *  C5 the domain has exactly the frames that its pfns have: nothing lost, nothing left over;
 *  C6 the guest is not dead, and its events arrived.
 * Lock order: takes the machine's lock.
 * Cost: one pattern a page; about 1 s a GiB.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#include "emb_guest.h"

#include <xen/xen.h>

struct check {
    struct emb_machine *m;
    struct emb_domain *d;
    struct emb_guest *g;
    uint8_t *seen;                      /* bit a machine frame */
    FILE *out;
    uint64_t faults, frames;
};

FS_PRINTF(2, 3) static void fault(struct check *c, const char *fmt, ...)
{
    if (c->out && c->faults < 20) {
        va_list ap;
        va_start(ap, fmt);
        fprintf(c->out, "domain %u: ", c->d->domid);
        vfprintf(c->out, fmt, ap);
        fputc('\n', c->out);
        va_end(ap);
    }
    c->faults++;
}

static uint64_t pfn_of(const struct check *c, uint64_t mfn)
{
    return emb_is_ram(c->m, mfn) ? emb_frame_at(c->m, mfn)->m2p1 - 1 : FS_FRAME_NONE;
}

/* C1: the frame of a pfn, or FS_FRAME_NONE with a fault told. */
static uint64_t frame_of(struct check *c, uint64_t pfn)
{
    uint64_t mfn;
    if (c->d->kind == HV_DOMAIN_HAP) {
        mfn = emb_p2m_get(c->m, c->d, pfn);
    } else if (!emb_guest_p2m(c->m, c->d, pfn, &mfn, NULL)) {
        fault(c, "pfn %#" PRIx64 ": its p2m entry cannot be reached", pfn);
        return FS_FRAME_NONE;
    }
    if (!emb_is_ram(c->m, mfn)) {
        fault(c, "pfn %#" PRIx64 ": p2m says %#" PRIx64 ", no frame", pfn, mfn);
        return FS_FRAME_NONE;
    }
    const struct emb_frame *f = emb_frame_at(c->m, mfn);
    if (emb_owner(c->m, f) != c->d || f->count == 0) {
        fault(c, "pfn %#" PRIx64 ": frame %#" PRIx64 " is not the domain's", pfn, mfn);
        return FS_FRAME_NONE;
    }
    if (f->m2p1 != pfn + 1) {
        fault(c, "pfn %#" PRIx64 ": frame %#" PRIx64 " has M2P %#" PRIx64, pfn, mfn, f->m2p1 - 1);
    }
    if (!(f->flags & EMB_F_ALLOCATED)) {
        fault(c, "pfn %#" PRIx64 ": frame %#" PRIx64 " was given back (zombie)", pfn, mfn);
    }
    if (c->seen[mfn / 8] & (1u << mfn % 8)) {
        fault(c, "pfn %#" PRIx64 ": frame %#" PRIx64 " has another pfn too", pfn, mfn);
    }
    c->seen[mfn / 8] |= (uint8_t)(1u << mfn % 8);
    c->frames++;
    return mfn;
}

/* ---- C2 ------------------------------------------------------------------ */

static void check_table(struct check *c, uint64_t pfn, const uint64_t *w)
{
    const struct emb_ptable *t = c->g->tables[c->g->table[pfn] - 1];
    for (uint32_t i = 0; i < 512; i++) {
        if (t->level == 4 && emb_xen_slot(i)) {
            continue;
        }
        uint64_t want = t->e[i], is = w[i];
        if (want & is & EMB_PTE_P && !(want & EMB_PTE_GNTTAB)) {
            want = emb_entry_adjust((enum emb_type)t->level, want);
            uint64_t to = pfn_of(c, emb_pte_mfn(is));
            is = (is & ~EMB_PTE_FRAME) | (to << FS_PAGE_SHIFT & EMB_PTE_FRAME);
        }
        if (want != is) {
            fault(c, "L%u table pfn %#" PRIx64 " entry %u: %#" PRIx64 " (as pfn %#" PRIx64 "), should be %#" PRIx64, t->level, pfn, i, w[i], is, want);
        }
    }
}

static void check_words(struct check *c, uint64_t pfn, const uint64_t *w, const uint64_t *want, uint32_t first, uint32_t last, const char *what)
{
    for (uint32_t i = first; i < last; i++) {
        if (w[i] != want[i]) {
            fault(c, "%s pfn %#" PRIx64 " word %u: %#" PRIx64 ", should be %#" PRIx64, what, pfn, i, w[i], want[i]);
            return;
        }
    }
}

static void check_p2m_page(struct check *c, uint64_t pfn, const uint64_t *w)
{
    uint64_t want[512], slot = 0;
    while (slot < c->g->p2m_pages && c->g->p2m_pfn[slot] != pfn) {
        slot++;
    }
    for (uint32_t i = 0; i < 512; i++) {
        uint64_t entry = slot * 512 + i;
        bool own = c->g->role[pfn] == EMB_R_P2M && entry < c->g->pfns && c->g->role[entry] != EMB_R_HOLE;
        want[i] = own ? w[i] : EMB_P2M_INVALID;     /* own entries: C1 */
        for (uint32_t k = 0; k < c->g->foreign_count; k++) {
            if (c->g->role[pfn] == EMB_R_P2M && c->g->foreign[k].pfn == entry) {
                want[i] = c->g->foreign[k].mfn | EMB_P2M_FOREIGN;
            }
        }
        if (c->g->role[pfn] == EMB_R_P2M_IDENTITY) {
            want[i] = EMB_P2M_IDENTITY | ((uint64_t)(c->g->p2m_slots - 1) * 512 + i);
        }
    }
    check_words(c, pfn, w, want, 0, 512, "p2m page");
}

/* While suspended the list may lag behind: the guest rebuilds it when it wakes. */
static void check_list(struct check *c, uint64_t pfn, const uint64_t *w)
{
    const struct emb_guest *g = c->g;
    uint32_t mid = 0;
    while (mid < g->list_mids && g->list_mid[mid] != pfn) {
        mid++;
    }
    for (uint32_t i = 0; i < 512 && !g->suspended; i++) {
        uint64_t slot = (uint64_t)mid * 512 + i;
        uint64_t want = mid < g->list_mids && slot < g->p2m_slots ? g->p2m_pfn[slot] : g->missing;
        if (g->role[pfn] == EMB_R_LIST_TOP) {
            want = i < g->list_mids ? g->list_mid[i] : g->list_mid_missing;
        }
        if (pfn_of(c, w[i]) != want) {
            fault(c, "p2m list page pfn %#" PRIx64 " entry %u leads to pfn %#" PRIx64 ", should be %#" PRIx64, pfn, i, pfn_of(c, w[i]), want);
            return;
        }
    }
}

static void check_start_info(struct check *c, uint64_t pfn, const uint64_t *w)
{
    const start_info_t *si = (const start_info_t *)(const void *)w;
    uint64_t store = c->g->suspended ? si->store_mfn : pfn_of(c, si->store_mfn);
    uint64_t console = c->g->suspended ? si->console.domU.mfn : pfn_of(c, si->console.domU.mfn);
    if (store != c->g->store || console != c->g->console) {
        fault(c, "start_info (pfn %#" PRIx64 "): store or console do not lead to their pages", pfn);
    }
}

static void check_vcpu_info_page(struct check *c, uint64_t pfn, const uint64_t *w, uint64_t *want)
{
    for (uint32_t i = 0; i < c->g->hold_count; i++) {
        const struct emb_held *h = &c->g->holds[i];
        if (h->kind == EMB_HELD_VCPU_INFO && h->gfn == pfn) {
            memcpy((uint8_t *)want + h->offset, (const uint8_t *)w + h->offset, sizeof(struct vcpu_info));   /* Xen's */
        }
    }
    check_words(c, pfn, w, want, 0, 512, "vcpu_info page");
}

static void check_page(struct check *c, uint64_t pfn, enum emb_role role, uint32_t gen, uint64_t mfn)
{
    const uint64_t *w = emb_table(c->m, mfn);
    uint64_t want[512];
    switch (role) {
    case EMB_R_TABLE: check_table(c, pfn, w); break;
    case EMB_R_P2M: case EMB_R_P2M_MISSING: case EMB_R_P2M_IDENTITY: check_p2m_page(c, pfn, w); break;
    case EMB_R_LIST_TOP: case EMB_R_LIST_MID: case EMB_R_LIST_MID_MISSING: check_list(c, pfn, w); break;
    case EMB_R_GDT: case EMB_R_LDT:
        for (uint32_t i = 0; i < 512; i++) {
            want[i] = emb_gdt_word(c->g, pfn, i);
        }
        check_words(c, pfn, w, want, 0, 512, "descriptor page");
        break;
    case EMB_R_START_INFO: check_start_info(c, pfn, w); break;
    case EMB_R_VCPU_INFO:
        emb_pattern(c->g, pfn, gen, want);
        check_vcpu_info_page(c, pfn, w, want);
        break;
    case EMB_R_DATA: case EMB_R_RING:
        emb_pattern(c->g, pfn, gen, want);
        check_words(c, pfn, w, want, 0, 512, "page");
        break;
    default: break;                     /* Xen's pages: C4 */
    }
}

/* ---- C3, C4, C5 ---------------------------------------------------------- */

static void check_vcpus(struct check *c)
{
    uint8_t blob[EMB_VCPU_BLOB_BYTES];
    for (uint32_t i = 0; i < c->d->vcpu_count; i++) {
        const struct emb_vcpu *v = &c->d->vcpus[i];
        const struct emb_guest_vcpu *t = &c->g->vcpus[i];
        if (v->initialised != t->runs || v->online != t->runs) {
            fault(c, "vCPU %u: %s", i, t->runs ? "has lost its state" : "was brought up");
        }
        if (!v->initialised || c->d->kind == HV_DOMAIN_HAP) {
            continue;
        }
        if (pfn_of(c, v->cr3) != t->cr3 || (v->user_cr3 ? pfn_of(c, v->user_cr3) : 0) != t->user_cr3) {
            fault(c, "vCPU %u: cr3 leads to pfn %#" PRIx64 " and user cr3 to %#" PRIx64, i, pfn_of(c, v->cr3), pfn_of(c, v->user_cr3));
        }
        for (uint32_t k = 0; k < (t->gdt_entries + 511) / 512; k++) {
            if (v->gdt_entries != t->gdt_entries || pfn_of(c, v->gdt[k]) != t->gdt[k]) {
                fault(c, "vCPU %u: GDT frame %u is not its own", i, k);
            }
        }
        if (v->ldt_entries != (t->ldt_pfn ? 512 : 0)) {
            fault(c, "vCPU %u: LDT of %u entries", i, v->ldt_entries);
        }
        emb_blob(t->blob_seed, blob);
        if (memcmp(blob, v->blob, sizeof(blob)) != 0) {
            fault(c, "vCPU %u: registers or extended state differ", i);
        }
    }
}

static void check_holds(struct check *c)
{
    for (uint32_t i = 0; i < c->d->held_count; i++) {
        const struct emb_held *h = &c->d->held[i];
        uint64_t mfn = emb_guest_reach(c->m, c->d, h->gfn, NULL);
        if (mfn != h->mfn) {
            fault(c, "a frame that somebody holds (kind %u) was moved: held %#" PRIx64 ", the guest sees %#" PRIx64, h->kind, h->mfn, mfn);
        }
    }
    for (uint32_t i = 0; i < c->d->grant_count; i++) {
        if (!c->d->grants[i].in_use) {
            continue;
        }
        uint64_t is = c->d->kind == HV_DOMAIN_HAP ? c->d->grants[i].gfn : pfn_of(c, c->d->grants[i].gfn);
        if (is != c->g->grant_pfn[i]) {
            fault(c, "grant %u names frame %#" PRIx64 ", its page is pfn %#" PRIx64 " elsewhere", i, c->d->grants[i].gfn, c->g->grant_pfn[i]);
        }
    }
}

static void check_leftovers(struct check *c)
{
    uint64_t listed = 0;
    for (uint64_t at = c->d->list_head; at; at = c->m->frames[at - 1].next) {
        listed++;
        if (!(c->seen[(at - 1) / 8] & (1u << (at - 1) % 8))) {
            fault(c, "frame %#" PRIx64 " is the domain's and no pfn's", at - 1);
        }
    }
    if (listed != c->frames || listed != c->d->tot_pages) {
        fault(c, "%" PRIu64 " pages listed, %" PRIu64 " counted, %" PRIu64 " have a pfn", listed, c->d->tot_pages, c->frames);
    }
    uint64_t top = c->d->kind == HV_DOMAIN_HAP ? c->d->p2m.top_entries * FS_SP_PAGES : 0, mapped = 0;
    for (uint64_t gfn = 0; gfn < top; gfn++) {
        if (!c->d->p2m.top[gfn / FS_SP_PAGES]) {
            gfn |= FS_SP_PAGES - 1;
            continue;
        }
        mapped += emb_p2m_get(c->m, c->d, gfn) != FS_FRAME_NONE;
    }
    if (top && mapped != c->frames) {
        fault(c, "%" PRIu64 " gfns lead somewhere, the guest has %" PRIu64, mapped, c->frames);
    }
}

static void check_all(struct check *c)
{
    struct emb_guest *g = c->g;
    for (uint64_t pfn = 0; pfn < g->pfns; pfn++) {
        if (g->role[pfn] != EMB_R_HOLE) {
            uint64_t mfn = frame_of(c, pfn);
            if (mfn != FS_FRAME_NONE && c->m->contents) {
                check_page(c, pfn, g->role[pfn], g->gen[pfn], mfn);
            }
        }
    }
    for (uint32_t i = 0; i < g->special_count; i++) {
        uint64_t mfn = frame_of(c, g->special_gfn[i]);
        if (mfn != FS_FRAME_NONE && c->m->contents) {
            check_page(c, g->special_gfn[i], EMB_R_RING, 0, mfn);
        }
    }
    check_vcpus(c);
    check_holds(c);
    check_leftovers(c);
    if (g->dead) {
        fault(c, "the guest died: it ran without state, faulted, or lost an event");
    }
}

uint64_t emb_guest_check(struct emb_machine *m, uint16_t domid, FILE *out)
{
    struct check c = { .m = m, .out = out };
    c.seen = calloc(1, m->max_mfn / 8 + 1);
    emb_lock(m);
    c.d = emb_domain_find(m, domid);
    c.g = c.d ? c.d->guest : NULL;
    if (!c.g || !c.seen) {
        if (out) {
            fprintf(out, "domain %u: no such guest\n", domid);
        }
        c.faults = 1;
    } else {
        check_all(&c);
    }
    emb_unlock(m);
    free(c.seen);
    return c.faults;
}

/* ---- small questions ----------------------------------------------------- */

bool emb_guest_alive(struct emb_machine *m, uint16_t domid)
{
    emb_lock(m);
    struct emb_domain *d = emb_domain_find(m, domid);
    bool alive = d && d->guest && emb_domain_runs(d);
    if (alive) {
        emb_guest_wakes(m, d);
        if (m->contents) {
            emb_guest_events(m, d);
        }
        alive = !d->guest->dead;
    }
    emb_unlock(m);
    return alive;
}

uint64_t emb_guest_frames_in(struct emb_machine *m, uint16_t domid, struct mfn_range range, uint64_t *held)
{
    uint64_t n = 0;
    *held = 0;
    emb_lock(m);
    struct emb_domain *d = emb_domain_find(m, domid);
    for (uint64_t at = d ? d->list_head : 0; at; at = m->frames[at - 1].next) {
        n += mfn_range_contains(range, mfn_make(at - 1));
    }
    for (uint32_t i = 0; d && i < d->held_count; i++) {
        bool again = false;
        for (uint32_t k = 0; k < i; k++) {
            again |= d->held[k].mfn == d->held[i].mfn;
        }
        *held += !again && mfn_range_contains(range, mfn_make(d->held[i].mfn));
    }
    emb_unlock(m);
    return n;
}

uint64_t emb_guest_superpages(struct emb_machine *m, uint16_t domid)
{
    uint64_t n = 0;
    emb_lock(m);
    const struct emb_domain *d = emb_domain_find(m, domid);
    for (uint64_t i = 0; d && i < d->p2m.top_entries; i++) {
        n += d->p2m.top[i] & 1;
    }
    emb_unlock(m);
    return n;
}

mfn_t emb_guest_frame(struct emb_machine *m, uint16_t domid, uint64_t gfn)
{
    uint64_t mfn = FS_FRAME_NONE;
    emb_lock(m);
    const struct emb_domain *d = emb_domain_find(m, domid);
    if (d && d->kind == HV_DOMAIN_HAP) {
        mfn = emb_p2m_get(m, d, gfn);
    } else if (d && d->guest && !emb_guest_p2m(m, d, gfn, &mfn, NULL)) {
        mfn = FS_FRAME_NONE;
    }
    emb_unlock(m);
    return (mfn_t){ mfn };
}
