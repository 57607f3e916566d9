/*
 * survey.c - reading the machine for a plan; changes nothing.
 *
 * Owns: struct survey: host, topology, domains, the target's ranges.
 * Invariants:
 *   I1  only read calls of the backend are used (host, ram, table, domains, frames,
 *       m2p, types, map for reading, specials).
 *   I2  what a guest says (p2m, rings, grants) only ever adds blockers or counts for
 *       that guest; a guest whose p2m cannot be read is planned with what Xen says.
 *   I3  who moves a guest is known before anything is planned, or there is no plan.
 * Cost: one owner scan of the range, and for each PV guest in it one type scan of its
 * own frames (1024 a hypercall), which is also the clock of the expected blackout.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/abi.h"
#include "frameshift/assert.h"
#include "hv_priv.h"
#include "pv_p2m.h"
#include "pv_tables.h"
#include "range.h"
#include "topology.h"

#define COOP_TRIES 3

void survey_free(struct survey *s)
{
    hv_topology_free(&s->topology);
    free(s->domains);
    mfn_set_free(&s->ranges);
    memset(s, 0, sizeof(*s));
}

const struct hv_domain *survey_domain(const struct survey *s, uint16_t domid)
{
    for (size_t i = 0; i < s->domain_count; i++) {
        if (s->domains[i].domid == domid) {
            return &s->domains[i];
        }
    }
    return NULL;
}

/* Does the guest move its own pages?  One that says so badly is moved like any other (I2); but where nobody can tell, nothing is moved: such a
 * guest may have buffers under devices, whose frames only it can spare (I3). */
static fs_status_t ask_coop(struct hv_backend *be, struct hv_domain *d, struct fs_error *err)
{
    struct hv_coop coop;
    struct fs_error words = { "" };
    fs_status_t s = FS_IO;
    d->coop = false;
    if (d->kind != HV_DOMAIN_PV || be->ops->coop_find == NULL) {
        return FS_OK;
    }
    for (int i = 0; i < COOP_TRIES && s == FS_IO; i++) {
        s = be->ops->coop_find(be, d->domid, &coop, &words);
    }
    d->coop = s == FS_OK && coop.version == FS_ABI_VERSION;
    return s == FS_IO ? fs_fail(err, s, "cannot ask whether %s moves its own pages: %.200s; nothing was changed, try again", d->name, words.text) : FS_OK;
}

fs_status_t survey_target(struct hv *hv, const char *target, struct survey *out, struct fs_error *err)
{
    memset(out, 0, sizeof(*out));
    fs_status_t s = hv->be->ops->host(hv->be, &out->host, err);
    if (s == FS_OK) {
        s = hv_topology(hv, &out->topology, err);
    }
    if (s == FS_OK) {
        struct fs_error said = { "" };
        s = topology_find(&out->topology, target, &out->ranges, &said);
        snprintf(out->note, sizeof(out->note), "%.*s", (int)sizeof(out->note) - 1, s == FS_OK ? said.text : "");
        if (s != FS_OK && err != NULL) {
            *err = said;
        }
    }
    if (s == FS_OK) {
        s = hv->be->ops->domains(hv->be, &out->domains, &out->domain_count, err);
    }
    for (size_t i = 0; s == FS_OK && i < out->domain_count; i++) {
        s = ask_coop(hv->be, &out->domains[i], err);
    }
    if (s != FS_OK) {
        survey_free(out);
    }
    return s;
}

fs_status_t survey_frames(struct hv_backend *be, const struct mfn_range_set *ranges, survey_fn fn, void *arg, struct fs_error *err)
{
    struct hv_frame *frames = malloc(SURVEY_CHUNK * sizeof(*frames));
    fs_status_t s = frames == NULL ? FS_NO_MEMORY : FS_OK;
    for (size_t r = 0; r < ranges->count && s == FS_OK; r++) {
        struct mfn_range range = ranges->ranges[r];
        for (uint64_t m = range.start.n; m < range.end.n && s == FS_OK; ) {
            uint64_t end = (m / SURVEY_CHUNK + 1) * SURVEY_CHUNK;
            end = end < range.end.n ? end : range.end.n;
            s = be->ops->frames(be, (struct mfn_range){ mfn_make(m), mfn_make(end) }, frames, err);
            if (s == FS_OK) {
                s = fn(arg, mfn_make(m), frames, (size_t)(end - m), err);
            }
            m = end;
        }
    }
    free(frames);
    return s;
}

/* ---- the plan --------------------------------------------------------------------- */

struct planning {
    struct survey *survey;
    struct hv_plan *plan;
};

static fs_status_t plan_chunk(void *arg, mfn_t start, const struct hv_frame *frames, size_t count, struct fs_error *err)
{
    struct planning *p = arg;
    uint32_t node = topology_node_of(&p->survey->topology, start);
    for (size_t i = 0; i < count; i++) {
        if (i % FS_SP_PAGES == 0) {
            node = topology_node_of(&p->survey->topology, mfn_add(start, i));
        }
        if (frames[i].owner != HV_FRAME_UNOWNED) {
            continue;
        }
        for (uint32_t n = 0; n < HV_NODES_MAX; n++) {       /* unknown node: count it on all, so that room is never overstated */
            p->survey->unowned[n] += node == n || node == UINT32_MAX;
        }
    }
    fs_status_t s = plan_add_frames(p->plan, start, frames, count, p->survey->domains, p->survey->domain_count);
    return s == FS_OK ? s : fs_fail(err, s, "the frames at %#llx cannot be described", (unsigned long long)start.n);
}

/* Tables of the whole guest, and how many pages of its p2m list lie in the range. */
static void plan_pv(struct hv *hv, struct survey *survey, struct hv_plan *plan, const struct hv_domain *dom)
{
    struct pv_p2m p2m;
    struct pv_tables tables = { 0 };
    struct fs_error ignored;
    if (pv_p2m_read(hv->be, dom, survey->host.max_mfn * 2 + (1u << 20), &p2m, &ignored) != FS_OK) {
        return;                                             /* I2: e.g. still booting */
    }
    uint64_t list_pages = 0, since;
    size_t n = 0;
    for (size_t i = 0; i < p2m.page_count; i++) {
        list_pages += mfn_set_contains(&survey->ranges, p2m.pages[i]);
    }
    for (uint64_t pfn = 0; pfn < p2m.pfn_count; pfn++) {
        n += pv_p2m_get(&p2m, pfn).n < survey->host.max_mfn;
    }
    since = hv->be->ops->clock_ns(hv->be);
    if (n > 0 && pv_tables_find(hv->be, dom->domid, &p2m, survey->host.max_mfn, &tables, NULL, &ignored) == FS_OK) {
        uint64_t ns = (hv->be->ops->clock_ns(hv->be) - since) / n;
        survey->cost.type_scan_ns_per_frame = ns > 0 ? ns : 1;
        plan_domain_pv(plan, dom->domid, list_pages, tables.count);
    }
    pv_tables_free(&tables);
    pv_p2m_free(&p2m);
}

static enum fs_reason reason_of(enum hv_special_kind kind)
{
    switch (kind) {
    case HV_SPECIAL_XENSTORE: return FS_REASON_XENSTORE_RING;
    case HV_SPECIAL_CONSOLE:  return FS_REASON_CONSOLE_RING;
    case HV_SPECIAL_IOREQ:    return FS_REASON_IOREQ;
    default:                  return FS_REASON_GRANTED;
    }
}

/* gfns of a translated guest's specials, found again as frames of the range. */
struct gfn_search {
    struct hv_plan *plan;
    uint16_t domid;
    const struct hv_special *list;
    size_t count;
};

static fs_status_t match_gfns(void *arg, mfn_t start, const struct hv_frame *frames, size_t count, struct fs_error *err)
{
    struct gfn_search *g = arg;
    (void)err;
    for (size_t i = 0; i < count; i++) {
        if (frames[i].owner != HV_FRAME_DOMAIN || frames[i].domid != g->domid || frames[i].gfn == FS_FRAME_NONE) {
            continue;
        }
        for (size_t k = 0; k < g->count; k++) {
            if (g->list[k].gfn == frames[i].gfn && g->list[k].kind != HV_SPECIAL_GRANT_OFFERED) {
                fs_status_t s = plan_block(g->plan, g->domid, mfn_add(start, i), frames[i].gfn,
                                           reason_of((enum hv_special_kind)g->list[k].kind));
                if (s != FS_OK) {
                    return s;
                }
            }
        }
    }
    return FS_OK;
}

static fs_status_t plan_specials(struct hv *hv, struct survey *survey, struct hv_plan *plan, const struct hv_domain *dom,
                                 struct fs_error *err)
{
    struct hv_special *list = NULL;
    size_t count = 0;
    fs_status_t s = hv->be->ops->specials(hv->be, dom->domid, &list, &count, err);
    if (s != FS_OK) {
        free(list);
        return FS_OK;                                       /* I2: gone, or too young to have any */
    }
    if (dom->kind == HV_DOMAIN_PV) {
        for (size_t i = 0; i < count && s == FS_OK; i++) {
            if (mfn_set_contains(&survey->ranges, list[i].mfn)) {
                s = plan_block(plan, dom->domid, list[i].mfn, list[i].gfn, reason_of((enum hv_special_kind)list[i].kind));
            }
        }
    } else if (count > 0) {
        struct gfn_search g = { plan, dom->domid, list, count };
        s = survey_frames(hv->be, &survey->ranges, match_gfns, &g, err);
    }
    free(list);
    return s;
}

fs_status_t survey_plan(struct hv *hv, struct survey *s, const struct hv_evacuate_options *o, struct hv_plan *out, struct fs_error *err)
{
    struct plan_options options = { .evict = o->evict, .verify = o->verify, .max_blackout_ns = o->max_blackout_ns, .max_pause_ns = o->max_pause_ns,
                                    .exclude = o->exclude, .exclude_count = o->exclude_count };
    struct planning p = { .survey = s, .plan = out };
    memset(s->unowned, 0, sizeof(s->unowned));
    fs_status_t status = plan_begin(out, o->target, &s->ranges, s->domains, s->domain_count, &options);
    if (status == FS_OK) {
        snprintf(out->note, sizeof(out->note), "%s", s->note);
        status = survey_frames(hv->be, &s->ranges, plan_chunk, &p, err);
    }
    for (size_t i = 0; i < s->domain_count && status == FS_OK; i++) {
        const struct hv_domain *dom = &s->domains[i];
        const struct hv_plan_domain *e = plan_domain(out, dom->domid);
        if (e == NULL || (dom->kind != HV_DOMAIN_PV && dom->kind != HV_DOMAIN_HAP)) {
            continue;
        }
        if (dom->kind == HV_DOMAIN_PV) {
            plan_pv(hv, s, out, dom);
        }
        status = plan_specials(hv, s, out, dom, err);
    }
    if (status == FS_OK) {
        status = plan_finish(out, &s->host, s->unowned, &options, &s->cost);
    }
    if (status != FS_OK) {
        hv_plan_free(out);
    }
    return status;
}
