/*
 * be_memory.c - the backend's frame lists: increase, decrease, populate, depopulate, remap, probe.
 *
 * Owns: nothing; each member is a loop over memory.c's calls.
 * Invariants: I1 *done is exact whatever the status; a list that stopped early is not FS_OK.
 * Rules: what stops early says why: no frames or the limit reached is FS_NO_ROOM, anything
 * else FS_REFUSED, a domain that died FS_GUEST_GONE.
 * The probe tests groups of 2^k frames with an exchange that cannot succeed, and
 * bisects the groups in which somebody holds a frame; a single one is paired with a
 * spare, because an exchange of one frame for one would succeed.
 * A HAP domain's frames cannot be exchanged: there the count of references answers.
 * Lock order: the machine's lock during each call.
 * Cost: the probe takes about count / 512 calls plus 10 for each held frame.
 */
#include <stdlib.h>

#include "emb_backend.h"
#include "emb_core.h"

static fs_status_t stopped(const struct emb_domain *d, int rc, size_t done, size_t count, const char *what, struct fs_error *err)
{
    if (!d->dying && (rc == -ENOMEM || rc == -E2BIG || rc == -EPERM)) {
        return fs_fail(err, FS_NO_ROOM, "domain %u: %s: %zu of %zu: %s", d->domid, what, done, count,
                       rc == -ENOMEM ? "no free frames there" : "its limit is reached");
    }
    return emb_refused(d, rc, err, "%s: %zu of %zu", what, done, count);
}

static fs_status_t increase(struct hv_backend *be, enum emb_op op, uint16_t domid, uint32_t node, unsigned order, size_t count, mfn_t *out, size_t *done,
                            struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    *done = 0;
    fs_status_t s = emb_enter_domain(be, op, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    uint64_t limit = 0;
    if (d->core != NULL && !emb_direct_room(c.m, count, &limit)) {      /* an extent is one piece, if it replaces one */
        s = fs_fail(err, FS_UNSUPPORTED, "domain %u: this process can map %llu pieces of its guests, and their frames are scattered: "
                    "sysctl -w vm.max_map_count=N, or smaller guests", domid, (unsigned long long)limit);
        emb_leave(&c);
        return s;
    }
    int rc = 0;
    size_t share = emb_share(&c, count);
    while (*done < share && (rc = emb_increase(c.m, d, node, order, &out[*done].n)) == 0) {
        (*done)++;
    }
    emb_charge(c.m, 2000 * *done);
    s = *done < share ? stopped(d, rc, *done, count, "increase", err) : emb_planned(&c, err);
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_increase(struct hv_backend *be, uint16_t domid, uint32_t node, size_t count, mfn_t *out, size_t *done, struct fs_error *err)
{
    return increase(be, EMB_OP_increase, domid, node, 0, count, out, done, err);
}

fs_status_t emb_op_increase_extents(struct hv_backend *be, uint16_t domid, uint32_t node, size_t count, mfn_t *out, size_t *done, struct fs_error *err)
{
    return increase(be, EMB_OP_increase_extents, domid, node, FS_SP_ORDER, count, out, done, err);
}

fs_status_t emb_op_decrease(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, size_t *done, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    *done = 0;
    fs_status_t s = emb_enter_domain(be, EMB_OP_decrease, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    int rc = d->kind == HV_DOMAIN_HAP ? -EINVAL : 0;
    size_t share = emb_share(&c, count);
    while (rc == 0 && *done < share && (rc = emb_decrease(c.m, d, mfns[*done].n)) == 0) {
        (*done)++;
    }
    emb_charge(c.m, 1500 * *done);
    s = *done < share ? stopped(d, rc, *done, count, "decrease", err) : emb_planned(&c, err);
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_populate(struct hv_backend *be, uint16_t domid, uint32_t node, unsigned order, const gfn_t *gfns, size_t count,
                            size_t *done, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    *done = 0;
    fs_status_t s = emb_enter_domain(be, EMB_OP_populate, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    int rc = d->kind == HV_DOMAIN_HAP ? 0 : -EINVAL;
    size_t share = emb_share(&c, count);
    while (rc == 0 && *done < share && (rc = emb_populate(c.m, d, node, order, gfns[*done].n)) == 0) {
        (*done)++;
    }
    emb_charge(c.m, 2000 * *done);
    s = *done < share ? stopped(d, rc, *done, count, "populate", err) : emb_planned(&c, err);
    emb_leave(&c);
    return s;
}

/* One extent: gfn by gfn, as Xen does; what was done of an extent that fails stays done. */
static int remove_extent(struct emb_machine *m, struct emb_domain *d, uint64_t gfn, unsigned order)
{
    int rc = 0;
    for (uint64_t i = 0; rc == 0 && i < (1ull << order); i++) {
        rc = emb_decrease(m, d, gfn + i);
    }
    return rc;
}

fs_status_t emb_op_depopulate(struct hv_backend *be, uint16_t domid, unsigned order, const gfn_t *gfns, size_t count, size_t *done, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    *done = 0;
    fs_status_t s = emb_enter_domain(be, EMB_OP_depopulate, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    int rc = d->kind == HV_DOMAIN_HAP && order <= FS_SP_ORDER ? 0 : -EINVAL;
    size_t share = emb_share(&c, count);
    while (rc == 0 && *done < share && (rc = remove_extent(c.m, d, gfns[*done].n, order)) == 0) {
        (*done)++;
    }
    emb_charge(c.m, (1500ull << order) * *done);
    s = *done < share ? stopped(d, rc, *done, count, "depopulate", err) : emb_planned(&c, err);
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_remap(struct hv_backend *be, uint16_t domid, const gfn_t *from, const gfn_t *to, size_t count, size_t *done, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    *done = 0;
    fs_status_t s = emb_enter_domain(be, EMB_OP_remap, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    int rc = d->kind == HV_DOMAIN_HAP ? 0 : -EINVAL;
    size_t share = emb_share(&c, count);
    while (rc == 0 && *done < share && (rc = emb_add_to_physmap(c.m, d, from[*done].n, to[*done].n)) == 0) {
        (*done)++;
    }
    emb_charge(c.m, 17000 * *done);
    s = *done < share ? stopped(d, rc, *done, count, "remap", err) : emb_planned(&c, err);
    emb_leave(&c);
    return s;
}

fs_status_t emb_op_gfn_limit(struct hv_backend *be, uint16_t domid, uint64_t *limit, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    fs_status_t s = emb_enter_domain(be, EMB_OP_gfn_limit, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    *limit = d->kind == HV_DOMAIN_HAP ? d->p2m.limit : d->guest ? d->guest->max_pfn : d->config.pages;
    emb_leave(&c);
    return FS_OK;
}

/* ---- the probe ----------------------------------------------------------- */

#define PROBE_GROUP 512u

struct probe {
    struct emb_machine *m;
    struct emb_domain *d;
    const mfn_t *spare;
    uint64_t calls;
    int rc;                             /* an answer that is neither ENOMEM nor EINVAL */
};

static void probe_group(struct probe *p, const mfn_t *mfns, size_t count, bool *held)
{
    uint64_t list[PROBE_GROUP] = { 0 };
    size_t n = 0;
    for (; n < count; n++) {
        list[n] = mfns[n].n;
    }
    if (n == 1) {
        list[n++] = p->spare[0].n == mfns[0].n ? p->spare[1].n : p->spare[0].n;
    }
    p->calls++;
    int rc = emb_exchange_probe(p->m, p->d, list, n);
    if (rc == -ENOMEM) {
        return;
    }
    if (rc != -EINVAL) {
        p->rc = rc;
        return;
    }
    if (count == 1) {
        held[0] = true;
        return;
    }
    probe_group(p, mfns, count / 2, held);
    probe_group(p, mfns + count / 2, count - count / 2, held + count / 2);
}

fs_status_t emb_op_probe_held(struct hv_backend *be, uint16_t domid, const mfn_t *mfns, size_t count, const mfn_t spare[2],
                              bool *held, uint64_t *calls, struct fs_error *err)
{
    struct emb_call c;
    struct emb_domain *d;
    *calls = 0;
    fs_status_t s = emb_enter_domain(be, EMB_OP_probe_held, domid, &c, &d, err);
    if (s != FS_OK) {
        return s;
    }
    struct probe p = { .m = c.m, .d = d, .spare = spare };
    memset(held, 0, count * sizeof(*held));
    for (size_t i = 0; d->kind == HV_DOMAIN_HAP && i < count; i++) {
        held[i] = !emb_is_ram(c.m, mfns[i].n) || emb_frame_at(c.m, mfns[i].n)->count != 1;      /* by the machine's own count */
        p.calls++;
    }
    for (size_t i = 0; d->kind != HV_DOMAIN_HAP && p.rc == 0 && i < count; i += PROBE_GROUP) {
        probe_group(&p, mfns + i, count - i < PROBE_GROUP ? count - i : PROBE_GROUP, held + i);
    }
    *calls = p.calls;
    emb_charge(c.m, 1000 * count);
    s = p.rc ? emb_refused(d, p.rc, err, "exclusive ownership probe") : FS_OK;
    emb_leave(&c);
    return s;
}
