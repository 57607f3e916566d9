/*
 * be_grants.c - a tool watches which frames a domain's grants name, as often as it likes.
 *
 * Owns: struct hv_grants; the references on the table's frames while a watch lasts.
 * Invariants:
 *  I1 the watch holds every frame of the table of now, recorded as a mapping of the tool: a domain that dies stays until the
 *     watch ends, and a tool that dies holds nothing;
 *  I2 what is read is the guest's word, unchecked: any number, each as often as entries name it; only entries that permit access;
 *  I3 a read that fails leaves the watch as it was.
 * Lock order: the machine's lock; the guest writes its entries meanwhile, so each word is read once.
 * Source: hv/xen/grants.c; XENMEM_resource_grant_table; arch/x86/mm.c get_page_from_l1e() on the tool's mapping.
 * Why synthetic guests too: they have no table; their entries, and the reserved ones of the daemons' rings, are the machine's records.
 * Cost: linear in the entries.
 */
#include <stdlib.h>

#include "emb_backend.h"
#include "emb_core.h"

struct hv_grants {
    uint16_t domid;
    uint32_t frames;                    /* of the table, held */
    struct emb_mapping *held;
    uint64_t *list;
    size_t capacity;
};

static size_t most(const struct emb_domain *d)
{
    return EMB_HELD_MAX + EMB_GRANTS_MAX + (d->core ? d->core->gnttab.frames * EMB_GNT_FRAME_REFS : 0);
}

/* I1.  A table only grows. */
static fs_status_t follow_table(struct emb_be *e, struct emb_domain *d, struct hv_grants *g, struct fs_error *err)
{
    const struct emb_gnttab *t = d->core ? &d->core->gnttab : NULL;
    if (most(d) > g->capacity) {
        uint64_t *grown = realloc(g->list, most(d) * sizeof(*grown));
        if (!grown) {
            return fs_fail(err, FS_NO_MEMORY, "domain %u: no memory for its grants", g->domid);
        }
        g->list = grown;
        g->capacity = most(d);
    }
    if (t && t->frames != g->frames) {
        struct emb_mapping *held = emb_client_hold(e->m, e->client, d, t->shared, t->frames);
        if (!held) {
            return fs_fail(err, FS_REFUSED, "domain %u: its grant table of %u frames cannot be mapped", g->domid, t->frames);
        }
        emb_client_let_go(e->m, e->client, g->held);
        g->held = held;
        g->frames = t->frames;
    }
    return FS_OK;
}

static bool is_ring(uint8_t kind)
{
    return kind == EMB_HELD_STORE || kind == EMB_HELD_CONSOLE || kind == EMB_HELD_IOREQ;
}

static size_t read_all(struct emb_machine *m, struct emb_domain *d, uint64_t *out)
{
    size_t n = 0;
    for (uint32_t i = 0; i < d->held_count; i++) {
        if (is_ring(d->held[i].kind)) {
            out[n++] = d->kind == HV_DOMAIN_HAP ? d->held[i].gfn : d->held[i].mfn;
        }
    }
    for (uint32_t i = 0; i < d->grant_count; i++) {
        if (d->grants[i].in_use) {
            out[n++] = d->grants[i].gfn;
        }
    }
    for (uint32_t ref = 0; d->core && ref < d->core->gnttab.frames * EMB_GNT_FRAME_REFS; ref++) {
        uint64_t mfn;
        uint32_t flags;
        if (emb_gnt_offers(m, d, ref, &mfn, &flags)) {
            out[n++] = mfn;
        }
    }
    return n;
}

fs_status_t emb_op_grants_begin(struct hv_backend *be, uint16_t domid, struct hv_grants **out, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    *out = NULL;
    fs_status_t s = emb_enter_domain(be, EMB_OP_grants_begin, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    struct hv_grants *g = calloc(1, sizeof(*g));
    if (!g) {
        s = fs_fail(err, FS_NO_MEMORY, "domain %u: no memory for its grants", domid);
        goto out;
    }
    g->domid = domid;
    s = follow_table(emb_be(be), d, g, err);
    if (s != FS_OK) {
        free(g->list);
        free(g);
        goto out;
    }
    *out = g;
out:
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_grants_read(struct hv_backend *be, struct hv_grants *g, const uint64_t **gfns, size_t *count, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    *gfns = NULL;
    *count = 0;
    fs_status_t s = emb_enter_domain(be, EMB_OP_grants_read, g->domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    s = follow_table(emb_be(be), d, g, err);
    if (s == FS_OK) {
        *count = read_all(c.m, d, g->list);
        *gfns = g->list;
    }
    emb_leave(&c);
    return s;
}

void emb_op_grants_end(struct hv_backend *be, struct hv_grants *g)
{
    struct emb_be *e = emb_be(be);
    if (g) {
        emb_lock(e->m);
        emb_client_let_go(e->m, e->client, g->held);
        emb_unlock(e->m);
        free(g->list);
        free(g);
    }
}
