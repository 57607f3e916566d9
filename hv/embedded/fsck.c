/*
 * fsck.c - the machine's judge: every count recomputed from the ground truth.
 *
 * Owns: nothing; reads only.
 * Ground truth of references: pins, the entries of validated tables, vCPU roots, GDTs, mapped
 * LDT pages, holds, foreign mappings, handles of device mappings, pages that Xen shares.  Of frames: free lists, nodes, page lists, HAP p2ms.
 * Checks:
 *  F1 free lists and states agree: every free frame in exactly one aligned buddy of its node,
 *     node counters right, overwritten bytes of free frames untouched since;
 *  F2 every frame in use with an owner is in that domain's page list, once; tot_pages is its length;
 *  F3 count and type_count are the sums of the ground truth; a type count needs VALIDATED;
 *  F4 entries of a validated table are ones that validation would accept;
 *  F5 the M2P of a HAP domain's frame and its p2m agree; extents are aligned;
 *  F6 frames that are free or offlined have no owner, references, type or M2P;
 *  F7 the uses of a grant are the handles of those who use it.
 * Lock order: takes the machine's lock.
 * Cost: near linear in RAM: 8 bytes of scratch a frame, one pass over every table.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>

#include "emb_core.h"
#include "emb_guest.h"

#include <xen/xen.h>
#include <xen/grant_table.h>

struct fsck {
    struct emb_machine *m;
    uint32_t *count, *type_count;       /* recomputed */
    uint8_t *listed;                    /* a frame is in a page list or a free buddy */
    FILE *out;
    uint64_t faults;
};

FS_PRINTF(2, 3) static void fault(struct fsck *c, const char *fmt, ...)
{
    if (c->out && c->faults < 20) {
        va_list ap;
        va_start(ap, fmt);
        vfprintf(c->out, fmt, ap);
        fputc('\n', c->out);
        va_end(ap);
    }
    c->faults++;
}

/* ---- F1 ------------------------------------------------------------------ */

static void check_buddy(struct fsck *c, const struct emb_node *n, uint64_t head, uint32_t order)
{
    if (head % (1ull << order) != 0 || head < n->start || head + (1ull << order) > n->end) {
        fault(c, "buddy %#" PRIx64 " of order %u is misaligned or outside its node", head, order);
        return;
    }
    for (uint64_t i = 0; i < (1ull << order); i++) {
        const struct emb_frame *f = &c->m->frames[head + i];
        if (f->state != EMB_S_FREE || (i > 0 && f->order1) || c->listed[head + i]) {
            fault(c, "frame %#" PRIx64 " in a free buddy is not free, or in two", head + i);
        }
        c->listed[head + i] = 1;
    }
}

static void check_heap(struct fsck *c)
{
    for (uint32_t k = 0; k < c->m->config.node_count; k++) {
        const struct emb_node *n = &c->m->nodes[k];
        uint64_t free_pages = 0;
        for (uint32_t order = 0; order <= EMB_MAX_ORDER; order++) {
            for (uint64_t at = n->heads[order]; at; at = c->m->frames[at - 1].next) {
                if (at > c->m->max_mfn || c->m->frames[at - 1].order1 != order + 1 || free_pages > c->m->max_mfn) {
                    fault(c, "node %u: free list of order %u is broken at %#" PRIx64, k, order, at - 1);
                    break;
                }
                check_buddy(c, n, at - 1, order);
                free_pages += 1ull << order;
            }
        }
        if (free_pages != n->free_pages) {
            fault(c, "node %u: %" PRIu64 " frames in free lists, counter says %" PRIu64, k, free_pages, n->free_pages);
        }
    }
}

static void check_poison(struct fsck *c, uint64_t mfn)
{
    const uint8_t *p = emb_bytes(c->m, mfn);
    for (uint32_t i = 0; i < FS_PAGE_BYTES; i++) {
        if (p[i] != EMB_POISON) {
            fault(c, "free frame %#" PRIx64 " was written at byte %u", mfn, i);
            return;
        }
    }
}

/* ---- the ground truth of references -------------------------------------- */

static void add(struct fsck *c, uint64_t mfn, uint32_t general, uint32_t type)
{
    if (mfn < c->m->max_mfn) {
        c->count[mfn] += general;
        c->type_count[mfn] += type;
    } else {
        fault(c, "a reference to frame %#" PRIx64 ", beyond the machine", mfn);
    }
}

static void add_table(struct fsck *c, uint64_t mfn, enum emb_type level)
{
    const uint64_t *e = emb_table(c->m, mfn);
    for (uint32_t i = 0; i < 512; i++) {
        if (!(e[i] & EMB_PTE_P) || (level == EMB_T_L4 && emb_xen_slot(i))) {
            continue;
        }
        uint64_t to = emb_pte_mfn(e[i]);
        bool typed = level != EMB_T_L1 || (e[i] & EMB_PTE_RW);
        add(c, to, 1, typed);
        const struct emb_frame *f = to < c->m->max_mfn ? &c->m->frames[to] : NULL;
        enum emb_type want = level == EMB_T_L1 ? EMB_T_WRITABLE : level - 1;
        bool granted = level == EMB_T_L1 && (e[i] & EMB_PTE_GNTTAB) && f && f->owner;
        if (!granted && (!f || f->owner != c->m->frames[mfn].owner || (typed && f->type != want))) {
            fault(c, "L%d table %#" PRIx64 " entry %u leads to a frame that validation would refuse", (int)level, mfn, i);   /* F4 */
        }
    }
}

static void add_vcpus(struct fsck *c, const struct emb_domain *d)
{
    if (d->kind == HV_DOMAIN_HAP) {
        return;
    }
    for (uint32_t i = 0; i < d->vcpu_count; i++) {
        const struct emb_vcpu *v = &d->vcpus[i];
        if (v->cr3) {
            add(c, v->cr3, 1, 1);
        }
        if (v->user_cr3) {
            add(c, v->user_cr3, 1, 1);
        }
        for (uint32_t k = 0; k < (v->gdt_entries + 511) / 512; k++) {
            add(c, v->gdt[k], 1, 1);
        }
        for (uint32_t k = 0; k < FS_ARRAY_SIZE(v->ldt_mapped); k++) {
            if (v->ldt_mapped[k]) {
                add(c, v->ldt_mapped[k], 1, 1);
            }
        }
    }
}

/* F7: uses of its references by the handles of all domains. */
static void check_pins(struct fsck *c, struct emb_domain *d, uint16_t *pins)
{
    memset(pins, 0, EMB_GNT_REFS * EMB_PIN_KINDS * sizeof(pins[0]));
    for (uint32_t i = 0; i < EMB_DOMAINS_MAX; i++) {
        const struct emb_domain *by = &c->m->domains[i];
        for (uint32_t k = 0; by->used && by->core && k < EMB_MAPTRACK_MAX; k++) {
            const struct emb_maptrack *t = &by->core->gnttab.maptrack[k];
            if (!t->flags || t->domid != d->domid) {
                continue;
            }
            uint32_t kind = t->flags & GNTMAP_readonly ? EMB_PIN_HSTR : EMB_PIN_HSTW;
            pins[t->ref * EMB_PIN_KINDS + kind] = (uint16_t)(pins[t->ref * EMB_PIN_KINDS + kind] + !!(t->flags & GNTMAP_host_map));
            kind += EMB_PIN_DEVR - EMB_PIN_HSTR;
            pins[t->ref * EMB_PIN_KINDS + kind] = (uint16_t)(pins[t->ref * EMB_PIN_KINDS + kind] + !!(t->flags & GNTMAP_device_map));
            if (t->flags & GNTMAP_device_map) {
                add(c, d->core->gnttab.active[t->ref].mfn, 1, !(t->flags & GNTMAP_readonly));
            }
            if (d->core->gnttab.active[t->ref].domid != by->domid) {
                fault(c, "domain %u uses grant %u of domain %u, which says domain %u does", by->domid, t->ref, d->domid,
                      d->core->gnttab.active[t->ref].domid);
            }
        }
    }
    for (uint32_t i = 0; i < EMB_GNT_REFS * EMB_PIN_KINDS; i++) {
        uint8_t pin = d->core->gnttab.active[i / EMB_PIN_KINDS].pin[i % EMB_PIN_KINDS];
        if (pin != pins[i]) {
            fault(c, "domain %u: grant %u counts %u uses of kind %u, the handles say %u", d->domid, i / EMB_PIN_KINDS, pin, i % EMB_PIN_KINDS, pins[i]);
        }
    }
}

static void add_shared(struct fsck *c, struct emb_domain *d)
{
    if (d->shared_info) {
        add(c, d->shared_info, 0, 1);
    }
    for (uint32_t i = 0; d->core && i < d->core->gnttab.frames; i++) {
        add(c, d->core->gnttab.shared[i], 0, 1);
    }
    uint16_t *pins = d->core ? malloc(EMB_GNT_REFS * EMB_PIN_KINDS * sizeof(*pins)) : NULL;
    if (pins) {
        check_pins(c, d, pins);
    } else if (d->core) {
        fault(c, "no memory for the check of grants");
    }
    free(pins);
}

static void add_domain(struct fsck *c, struct emb_domain *d)
{
    add_vcpus(c, d);
    add_shared(c, d);
    for (uint32_t i = 0; i < d->held_count; i++) {
        add(c, d->held[i].mfn, 1, d->held[i].writable);
    }
    uint64_t listed = 0;
    for (uint64_t at = d->list_head; at; at = c->m->frames[at - 1].next) {
        const struct emb_frame *f = &c->m->frames[at - 1];
        if (c->listed[at - 1] || emb_owner(c->m, f) != d || f->flags & EMB_F_XEN_HEAP) {
            fault(c, "frame %#" PRIx64 " in the page list of domain %u is not its own, or listed twice", at - 1, d->domid);
            break;
        }
        c->listed[at - 1] = 1;
        listed++;
    }
    if (listed != d->tot_pages) {
        fault(c, "domain %u: %" PRIu64 " pages listed, tot_pages %" PRIu64, d->domid, listed, d->tot_pages);
    }
}

static void add_mappings(struct fsck *c)
{
    for (uint32_t i = 0; i < EMB_CLIENTS_MAX; i++) {
        for (const struct emb_mapping *r = c->m->clients[i].mappings; r; r = r->next) {
            for (uint64_t k = 0; k < r->count; k++) {
                if (r->mfn1[k]) {
                    add(c, (r->mfn1[k] & ~EMB_MAPPED_TYPE) - 1, 1, (r->mfn1[k] & EMB_MAPPED_TYPE) != 0);
                }
            }
        }
    }
}

/* ---- F5 ------------------------------------------------------------------ */

static void check_p2m(struct fsck *c, const struct emb_domain *d)
{
    for (uint64_t gfn = 0; gfn < d->p2m.top_entries * FS_SP_PAGES; gfn++) {
        uint64_t entry = d->p2m.top[gfn / FS_SP_PAGES];
        if (!entry) {
            gfn |= FS_SP_PAGES - 1;
            continue;
        }
        if (gfn % FS_SP_PAGES == 0 && (entry & 1) && (entry >> 1) % FS_SP_PAGES != 0) {
            fault(c, "domain %u: 2 MiB extent at gfn %#" PRIx64 " leads to unaligned frame %#" PRIx64, d->domid, gfn, entry >> 1);
        }
        uint64_t mfn = emb_p2m_get(c->m, d, gfn);
        if (mfn == FS_FRAME_NONE) {
            continue;
        }
        if (mfn >= c->m->max_mfn || c->m->frames[mfn].m2p1 != gfn + 1 || emb_owner(c->m, &c->m->frames[mfn]) != d) {
            fault(c, "domain %u: gfn %#" PRIx64 " leads to frame %#" PRIx64 ", which does not agree", d->domid, gfn, mfn);
        }
    }
}

/* ---- F2, F3, F6 ---------------------------------------------------------- */

static void check_frame(struct fsck *c, uint64_t mfn)
{
    const struct emb_frame *f = &c->m->frames[mfn];
    if (f->state == EMB_S_FREE || f->state == EMB_S_OFFLINED) {
        if (f->owner || f->count || f->type_count || f->type || f->m2p1 || c->count[mfn]) {
            fault(c, "frame %#" PRIx64 " is %s and has an owner, references, a type or an M2P entry", mfn,
                  f->state == EMB_S_FREE ? "free" : "offlined");
        }
        if ((f->state == EMB_S_FREE) != c->listed[mfn]) {
            fault(c, "frame %#" PRIx64 ": free and in no buddy, or offlined and in one", mfn);
        }
        if ((f->flags & EMB_F_POISONED) && c->m->contents) {
            check_poison(c, mfn);
        }
        return;
    }
    if (!f->owner) {
        if (f->count || f->type_count || c->count[mfn]) {
            fault(c, "frame %#" PRIx64 " of Xen has references", mfn);
        }
        return;
    }
    const struct emb_domain *d = emb_owner(c->m, f);
    if (!d->used || (!c->listed[mfn] && !(f->flags & EMB_F_XEN_HEAP))) {
        fault(c, "frame %#" PRIx64 " is owned by domain %u and not in its page list", mfn, d->domid);
    }
    uint32_t count = c->count[mfn] + !!(f->flags & EMB_F_ALLOCATED) + !!(f->flags & EMB_F_PINNED);
    uint32_t types = c->type_count[mfn] + !!(f->flags & EMB_F_PINNED);
    if (f->count != count || f->type_count != types) {
        fault(c, "frame %#" PRIx64 " (domain %u, pfn %#" PRIx64 ", type %u): counts %u/%u, the ground truth says %u/%u", mfn, d->domid,
              f->m2p1 - 1, f->type, f->count, f->type_count, count, types);
    }
    if (f->type_count && !(f->flags & EMB_F_VALIDATED)) {
        fault(c, "frame %#" PRIx64 " has type references and is not validated", mfn);
    }
    if ((f->flags & EMB_F_PINNED) && (f->type < EMB_T_L1 || f->type > EMB_T_L4)) {
        fault(c, "frame %#" PRIx64 " is pinned and no table", mfn);
    }
}

static void check_all(struct fsck *c)
{
    struct emb_machine *m = c->m;
    check_heap(c);
    for (uint32_t i = 0; i < EMB_DOMAINS_MAX; i++) {
        if (m->domains[i].used) {
            add_domain(c, &m->domains[i]);
            if (m->domains[i].kind == HV_DOMAIN_HAP && m->domains[i].p2m.top && !m->domains[i].dying) {
                check_p2m(c, &m->domains[i]);
            }
        }
    }
    add_mappings(c);
    for (uint64_t mfn = 0; mfn < m->max_mfn && m->contents; mfn++) {
        const struct emb_frame *f = &m->frames[mfn];
        if (f->type >= EMB_T_L1 && f->type <= EMB_T_L4 && f->type_count && (f->flags & EMB_F_VALIDATED)) {
            add_table(c, mfn, f->type);
        }
    }
    for (uint32_t k = 0; k < m->config.node_count; k++) {
        for (uint64_t mfn = m->nodes[k].start; mfn < m->nodes[k].end; mfn++) {
            check_frame(c, mfn);
        }
    }
}

uint64_t emb_fsck(struct emb_machine *m, FILE *out)
{
    struct fsck c = { .m = m, .out = out };
    c.count = calloc(m->max_mfn, sizeof(c.count[0]));
    c.type_count = calloc(m->max_mfn, sizeof(c.type_count[0]));
    c.listed = calloc(m->max_mfn, 1);
    if (c.count && c.type_count && c.listed) {
        emb_lock(m);
        check_all(&c);
        emb_unlock(m);
    } else {
        fault(&c, "no memory for the check");
    }
    free(c.count);
    free(c.type_count);
    free(c.listed);
    return c.faults;
}
