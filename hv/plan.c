/*
 * plan.c - what an evacuation would do, from what was seen (pure: no backend).
 *
 * Owns: struct hv_plan: counts by kind, one entry a domain with frames in the range,
 * blockers known in advance, room, refusal.
 * Invariants:
 *   I1  counts.total is the number of frames added, and the counts by kind add up to it
 *       (p2m pages are part of data until plan_domain_pv() takes them out).
 *   I2  pages_in_range == pages_movable + pages_blocked for every domain.
 *   I3  a refusal is decided here, before anything is changed, or not at all.
 * Why pure: the same plan is shown by --dry-run, checked by tests without a machine,
 * and kept in the report beside what really happened.
 * Cost: O(frames) in one pass, O(1) memory a frame.
 *
 * What cannot be known without touching: which frames of a PV guest someone else
 * holds (Xen answers only once the guest is stopped), and which of the unowned frames
 * are free and which are Xen's own (only marking tells).  The plan says so.
 */
#include "plan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "frameshift/assert.h"
#include "range.h"

#define KEEP_PAGES_PER_NODE 1024u       /* left free on each node: Xen allocates for its own needs meanwhile */
#define RESERVE_EXTRA 64u               /* what a mover holds beyond its frames */

/* Stop of a PV guest in units of one frame's share of a type scan, fitted to measured drills (doc/DESIGN.md, "The expected
 * stop"): probing, copying, M2P and p2m of one frame; hashing it twice; unpinning, rewriting and validating of one table. */
#define SCANS_PER_FRAME  12u
#define SCANS_PER_HASHED 30u
#define SCANS_PER_TABLE  240u
#define DEFAULT_MAX_PAUSE_NS 10000000ull

fs_status_t plan_begin(struct hv_plan *p, const char *target, const struct mfn_range_set *ranges,
                       const struct hv_domain *domains, size_t count, const struct plan_options *options)
{
    (void)options;
    memset(p, 0, sizeof(*p));
    snprintf(p->target, sizeof(p->target), "%s", target);
    p->domains = calloc(count + 1, sizeof(*p->domains));
    if (p->domains == NULL) {
        return FS_NO_MEMORY;
    }
    (void)domains;
    return mfn_set_copy(&p->ranges, ranges);
}

static const char *kind_name(const struct hv_domain *d)
{
    switch (d->kind) {
    case HV_DOMAIN_CONTROL: return "dom0";
    case HV_DOMAIN_PV:      return "pv";
    case HV_DOMAIN_PV32:    return "pv32";
    case HV_DOMAIN_HAP:     return "pvh/hvm";
    default:                return "other";
    }
}

struct hv_plan_domain *plan_domain(struct hv_plan *p, uint16_t domid)
{
    for (size_t i = 0; i < p->domain_count; i++) {
        if (p->domains[i].domid == domid) {
            return &p->domains[i];
        }
    }
    return NULL;
}

static enum hv_mover mover_for(const struct hv_domain *d)
{
    switch (d->kind) {
    case HV_DOMAIN_PV:  return d->coop ? HV_MOVER_COOP : HV_MOVER_PV;
    case HV_DOMAIN_HAP: return HV_MOVER_HAP;
    default:            return HV_MOVER_NONE;
    }
}

/* The entry of a domain, made at its first frame. pre: domid is one of domains (the backend said so). */
static struct hv_plan_domain *entry_for(struct hv_plan *p, uint16_t domid, const struct hv_domain *domains, size_t count)
{
    struct hv_plan_domain *e = plan_domain(p, domid);
    if (e != NULL) {
        return e;
    }
    for (size_t i = 0; i < count; i++) {
        if (domains[i].domid != domid) {
            continue;
        }
        e = &p->domains[p->domain_count++];
        e->domid = domid;
        memcpy(e->uuid, domains[i].uuid, sizeof(e->uuid));
        snprintf(e->name, sizeof(e->name), "%s", domains[i].name);
        snprintf(e->kind, sizeof(e->kind), "%s", kind_name(&domains[i]));
        e->mover = mover_for(&domains[i]);
        e->vcpus = domains[i].vcpus;
        e->pages_total = domains[i].tot_pages;
        return e;
    }
    return NULL;
}

static void count_owned(struct hv_plan *p, struct hv_plan_domain *e, const struct hv_frame *f)
{
    uint64_t *by_type[] = { &p->counts.data, &p->counts.l1, &p->counts.l2, &p->counts.l3, &p->counts.l4 };
    e->pages_in_range++;
    if (strcmp(e->kind, "dom0") == 0) {
        p->counts.dom0++;
        return;
    }
    if (f->gfn == FS_FRAME_NONE) {
        p->counts.shared++;
        return;
    }
    (*by_type[f->type])++;
    e->tables_in_range += f->type != HV_TYPE_NONE;
}

/* One aligned 2 MiB extent of one translated domain, in gfns as in mfns? frames: 512 of them. */
static bool is_superpage(const struct hv_frame *frames)
{
    if (frames[0].owner != HV_FRAME_DOMAIN || frames[0].gfn % FS_SP_PAGES != 0) {
        return false;
    }
    for (unsigned i = 1; i < FS_SP_PAGES; i++) {
        if (frames[i].owner != HV_FRAME_DOMAIN || frames[i].domid != frames[0].domid || frames[i].gfn != frames[0].gfn + i) {
            return false;
        }
    }
    return true;
}

fs_status_t plan_add_frames(struct hv_plan *p, mfn_t start, const struct hv_frame *frames, size_t count,
                            const struct hv_domain *domains, size_t domain_count)
{
    for (size_t i = 0; i < count; i++) {
        const struct hv_frame *f = &frames[i];
        struct hv_plan_domain *e;
        p->counts.total++;
        switch (f->owner) {
        case HV_FRAME_HOLE:     p->counts.hole++; break;
        case HV_FRAME_UNOWNED:  p->counts.free_or_xen++; break;
        case HV_FRAME_OFFLINED: p->counts.offlined++; break;
        case HV_FRAME_BROKEN:   p->counts.broken++; break;
        case HV_FRAME_AMBIGUOUS:
            p->counts.ambiguous++;
            break;
        default:
            if (f->type > HV_TYPE_L4) {
                return FS_BAD_INPUT;
            }
            e = entry_for(p, f->domid, domains, domain_count);
            if (e == NULL) {                /* born after the list was read: nobody's mover */
                p->counts.ambiguous++;
                break;
            }
            count_owned(p, e, f);
            if (e->mover == HV_MOVER_HAP && (start.n + i) % FS_SP_PAGES == 0 && i + FS_SP_PAGES <= count &&
                is_superpage(f)) {
                e->superpages_in_range++;
            }
        }
    }
    return FS_OK;
}

fs_status_t plan_block(struct hv_plan *p, uint16_t domid, mfn_t mfn, uint64_t gfn, enum fs_reason reason)
{
    struct hv_plan_domain *e = plan_domain(p, domid);
    for (size_t i = 0; i < p->blocker_count; i++) {     /* a ring page is a grant as well */
        if (mfn_eq(fs_blocker_mfn(&p->blockers[i]), mfn)) {
            return FS_OK;
        }
    }
    if (p->blocker_count % 64 == 0) {
        struct fs_blocker *grown = realloc(p->blockers, (p->blocker_count + 64) * sizeof(*grown));
        if (grown == NULL) {
            return FS_NO_MEMORY;
        }
        p->blockers = grown;
    }
    p->blockers[p->blocker_count++] = fs_blocker_make(mfn, gfn, domid, reason);
    if (e != NULL) {
        e->pages_blocked++;
    }
    if (reason == FS_REASON_GRANTED) {
        p->counts.granted++;
    }
    return FS_OK;
}

void plan_domain_pv(struct hv_plan *p, uint16_t domid, uint64_t p2m_pages_in_range, uint64_t tables_total)
{
    struct hv_plan_domain *e = plan_domain(p, domid);
    if (e == NULL) {
        return;
    }
    e->tables_total = tables_total;
    uint64_t pages = p2m_pages_in_range < p->counts.data ? p2m_pages_in_range : p->counts.data;     /* I1 */
    p->counts.p2m += pages;
    p->counts.data -= pages;
}

static bool excluded(const struct plan_options *o, uint16_t domid)
{
    for (size_t i = 0; i < o->exclude_count; i++) {
        if (o->exclude[i] == domid) {
            return true;
        }
    }
    return false;
}

static void expect_stop(struct hv_plan_domain *e, const struct plan_options *o, const struct plan_cost *cost)
{
    if (e->mover == HV_MOVER_HAP) {
        e->blackout_ns = o->max_pause_ns != 0 ? o->max_pause_ns : DEFAULT_MAX_PAUSE_NS;
        return;
    }
    if (e->mover != HV_MOVER_PV || e->pages_movable == 0) {
        return;
    }
    uint64_t unit = cost->type_scan_ns_per_frame;
    uint64_t fixed = e->tables_total * SCANS_PER_TABLE * unit;
    uint64_t moving = e->pages_movable * (SCANS_PER_FRAME + (o->verify ? SCANS_PER_HASHED : 0)) * unit;
    e->suspends = 1;
    e->blackout_ns = fixed + moving;
    if (o->max_blackout_ns != 0 && unit != 0 && e->blackout_ns > o->max_blackout_ns) {
        uint64_t left = o->max_blackout_ns > fixed ? o->max_blackout_ns - fixed : 1;
        uint64_t rounds = moving / left + 1;
        e->suspends = rounds > UINT32_MAX ? UINT32_MAX : (uint32_t)rounds;
        e->blackout_ns = fixed + moving / e->suspends;
    }
}

static void count_room(struct hv_plan *p, const struct hv_host *host, const uint64_t in_range_unowned[HV_NODES_MAX])
{
    for (uint32_t i = 0; i < host->node_count && i < HV_NODES_MAX && p->room_count < FS_ARRAY_SIZE(p->room); i++) {
        const struct hv_node *n = &host->nodes[i];
        uint64_t inside = n->id < HV_NODES_MAX ? in_range_unowned[n->id] : n->free_pages;
        uint64_t free_pages = n->free_pages > inside ? n->free_pages - inside : 0;
        free_pages = free_pages > KEEP_PAGES_PER_NODE ? free_pages - KEEP_PAGES_PER_NODE : 0;
        p->room[p->room_count].node = n->id;
        p->room[p->room_count].free_pages = free_pages;
        p->room[p->room_count++].take_pages = 0;
        p->room_free_pages += free_pages;
    }
    uint64_t left = p->room_needed_pages;
    while (left > 0) {                      /* fullest node first, as the movers take */
        size_t best = p->room_count;
        for (size_t i = 0; i < p->room_count; i++) {
            if (p->room[i].take_pages == 0 && p->room[i].free_pages > 0 &&
                (best == p->room_count || p->room[i].free_pages > p->room[best].free_pages)) {
                best = i;
            }
        }
        if (best == p->room_count) {
            break;
        }
        p->room[best].take_pages = left < p->room[best].free_pages ? left : p->room[best].free_pages;
        left -= p->room[best].take_pages;
    }
    p->room_missing_pages = left;
}

static void refuse(struct hv_plan *p, const struct hv_host *host)
{
    bool pv_frames = p->counts.dom0 > 0;
    for (size_t i = 0; i < p->domain_count; i++) {
        pv_frames |= p->domains[i].mover == HV_MOVER_PV || p->domains[i].mover == HV_MOVER_COOP;
    }
    if (host->pcpus < 2 && host->pcpu0_marking_hangs && pv_frames) {
        p->refusal_status = FS_UNSUPPORTED;
        snprintf(p->refusal, sizeof(p->refusal), "this Xen has one physical CPU, and marking a PV domain's frames offline from "
                 "pCPU 0 hangs Xen %u.%u; boot with at least two CPUs", host->version_major, host->version_minor);
    } else if (p->room_missing_pages > 0) {
        p->refusal_status = FS_NO_ROOM;
        snprintf(p->refusal, sizeof(p->refusal), "%" PRIu64 " frames must move and the other nodes can take %" PRIu64 ": %" PRIu64
                 " pages (%" PRIu64 " MiB) are missing; shut down or shrink a guest, or exclude one with --exclude",
                 p->room_needed_pages, p->room_free_pages, p->room_missing_pages, (p->room_missing_pages + 255) / 256);
    }
}

static int blocker_order(const void *a, const void *b)
{
    const struct fs_blocker *x = a, *y = b;
    return x->frame < y->frame ? -1 : x->frame > y->frame;
}

fs_status_t plan_finish(struct hv_plan *p, const struct hv_host *host, const uint64_t in_range_unowned[HV_NODES_MAX],
                        const struct plan_options *options, const struct plan_cost *cost)
{
    uint64_t largest_extra = 0;
    for (size_t i = 0; i < p->domain_count; i++) {
        struct hv_plan_domain *e = &p->domains[i];
        if (excluded(options, e->domid)) {
            e->mover = HV_MOVER_NONE;
        }
        if (e->mover == HV_MOVER_NONE) {
            e->pages_blocked = e->pages_in_range;
        }
        ASSERT_CMP(e->pages_blocked, <=, e->pages_in_range);
        e->pages_movable = e->pages_in_range - e->pages_blocked;            /* I2 */
        p->room_needed_pages += e->pages_movable;
        largest_extra = e->pages_movable > 0 ? RESERVE_EXTRA : largest_extra;
        expect_stop(e, options, cost);
    }
    p->room_needed_pages += largest_extra;
    count_room(p, host, in_range_unowned);
    refuse(p, host);
    if (p->blocker_count > 1) {
        qsort(p->blockers, p->blocker_count, sizeof(*p->blockers), blocker_order);
    }
    return FS_OK;
}

void hv_plan_free(struct hv_plan *p)
{
    mfn_set_free(&p->ranges);
    free(p->domains);
    free(p->blockers);
    memset(p, 0, sizeof(*p));
}
