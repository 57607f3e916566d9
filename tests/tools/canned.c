/*
 * canned.c - plans, reports and hosts with known contents, for tests of the CLI.
 *
 * Invariants: I1 the counts of the plan add up to its total, each domain's movable and
 * blocked to its share, the blockers to both; I2 one name is hostile (control bytes,
 * invalid UTF-8, a mark that turns text round, a quote): whatever prints names meets it.
 */
#include "canned.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *need(void *p)
{
    if (!p) {
        abort();
    }
    return p;
}

static void one_range(struct mfn_range_set *set, uint64_t start, uint64_t end)
{
    set->ranges = need(malloc(sizeof(*set->ranges)));
    set->ranges[0] = (struct mfn_range){ mfn_make(start), mfn_make(end) };
    set->count = set->capacity = 1;
}

static void canned_domains(struct hv_plan *p)
{
    const struct hv_plan_domain domains[] = {
        { .domid = 0, .kind = "dom0", .name = "Domain-0", .mover = HV_MOVER_NONE, .vcpus = 2, .pages_total = 196608,
          .pages_in_range = CANNED_DOM0_FRAMES, .pages_blocked = CANNED_DOM0_FRAMES },
        { .domid = 1, .kind = "pv", .name = "pv1", .mover = HV_MOVER_PV, .vcpus = 1, .pages_total = 65536, .pages_in_range = 65530,
          .pages_movable = 65524, .pages_blocked = 6, .tables_in_range = 180, .tables_total = 180,
          .blackout_ns = 710000000, .suspends = 1, .uuid = { 0x12, 0x34, [15] = 0xff } },
        { .domid = 2, .kind = "pv", .name = CANNED_HOSTILE_NAME, .mover = HV_MOVER_PV, .vcpus = 2, .pages_total = 65536,
          .pages_in_range = 65531, .pages_movable = 65523, .pages_blocked = 8, .tables_in_range = 200, .tables_total = 200,
          .blackout_ns = 800000000, .suspends = 2 },
        { .domid = 3, .kind = "pvh", .name = "hvm1", .mover = HV_MOVER_HAP, .vcpus = 1, .pages_total = 65535, .pages_in_range = 65535,
          .pages_movable = 65531, .pages_blocked = 4, .superpages_in_range = 120, .blackout_ns = 10000000 },
    };

    p->domain_count = FS_ARRAY_SIZE(domains);
    p->domains = need(malloc(sizeof(domains)));
    memcpy(p->domains, domains, sizeof(domains));
}

static void canned_blockers(bool with_dom0, struct fs_blocker **out, size_t *count)
{
    const struct { uint16_t domid; uint8_t reason; unsigned frames; } kinds[] = {
        { 1, FS_REASON_XENSTORE_RING, 1 }, { 1, FS_REASON_CONSOLE_RING, 1 }, { 1, FS_REASON_FOREIGN_REF, 4 },
        { 2, FS_REASON_XENSTORE_RING, 1 }, { 2, FS_REASON_CONSOLE_RING, 1 }, { 2, FS_REASON_GRANTED, 6 },
        { 3, FS_REASON_VCPU_INFO, 1 }, { 3, FS_REASON_EVTCHN_ARRAY, 1 }, { 3, FS_REASON_EVTCHN_CONTROL, 1 },
        { 3, FS_REASON_EVTCHN_SUSPECT, 1 }, { 0, FS_REASON_DOM0, CANNED_DOM0_FRAMES },
    };
    size_t at = 0;
    struct fs_blocker *list = need(calloc(CANNED_GUEST_BLOCKERS + CANNED_DOM0_FRAMES, sizeof(*list)));

    for (size_t i = 0; i < FS_ARRAY_SIZE(kinds); i++) {
        for (unsigned k = 0; k < kinds[i].frames; k++) {
            list[at] = fs_blocker_make(mfn_make(0x40000 + 16 * at), at == 0 ? FS_FRAME_NONE : 0x100 + at, kinds[i].domid,
                                       (enum fs_reason)kinds[i].reason);
            at++;
        }
    }
    *out = list;
    *count = with_dom0 ? at : CANNED_GUEST_BLOCKERS;
}

void canned_plan(struct hv_plan *p)
{
    memset(p, 0, sizeof(*p));
    (void)snprintf(p->target, sizeof(p->target), "NODE1");
    one_range(&p->ranges, 0x40000, 0x80000);
    p->counts = (struct hv_counts){ .total = 262144, .data = 65530 + 65531 + 65535 - 380 - 128 - 8, .l1 = 340, .l2 = 20, .l3 = 14,
                                    .l4 = 6, .p2m = 128, .granted = 8, .dom0 = CANNED_DOM0_FRAMES };
    p->counts.free_or_xen = p->counts.total - (65530 + 65531 + 65535) - CANNED_DOM0_FRAMES;
    canned_domains(p);
    canned_blockers(false, &p->blockers, &p->blocker_count);
    p->room_needed_pages = 65524 + 65523 + 65531;
    p->room_free_pages = 400000;
    p->room_count = 2;
    p->room[0].node = 2;
    p->room[0].free_pages = 250000;
    p->room[0].take_pages = p->room_needed_pages;
    p->room[1].node = 3;
    p->room[1].free_pages = 150000;
}

static void canned_domain_report(struct hv_domain_report *d, const struct hv_plan_domain *plan)
{
    d->plan = *plan;
    d->moved = plan->pages_movable;
    d->blocked = plan->pages_blocked;
    d->evicted_to = FS_DOMID_NONE;
    d->pages_hashed = d->moved;
    if (plan->mover == HV_MOVER_PV) {
        d->suspends = plan->suspends;
        d->blackout_ns = 654321000;
        d->longest_blackout_ns = 600000000;
        d->phases[0] = (struct hv_phase){ "handshake", 240000000, 1 };
        d->phases[1] = (struct hv_phase){ "copy", 184000000, d->moved };
        d->phase_count = 2;
    } else if (plan->mover == HV_MOVER_HAP) {
        d->pauses = 128;
        d->max_pause_ns = 5600000;
        d->p99_pause_ns = 4100000;
        d->p50_pause_ns = 2900000;
        d->superpages_before = d->superpages_after = 120;
    }
}

void canned_report(struct hv_report *r)
{
    memset(r, 0, sizeof(*r));
    canned_plan(&r->plan);
    canned_blockers(true, &r->blockers, &r->blocker_count);
    r->status = FS_PARTIAL;
    r->domain_count = r->plan.domain_count - 1;         /* dom0 has no mover */
    r->domains = need(calloc(r->domain_count, sizeof(*r->domains)));
    for (size_t i = 0; i < r->domain_count; i++) {
        canned_domain_report(&r->domains[i], &r->plan.domains[i + 1]);
        r->frames_moved += r->domains[i].moved;
        r->pages_hashed += r->domains[i].pages_hashed;
    }
    r->frames_total = r->plan.counts.total;
    r->frames_blocked = r->blocker_count;
    r->frames_offlined = r->frames_total - r->frames_blocked;
    r->frames_pending = 1010;
    r->verified = true;
    r->hypercall_count = 12345;
    r->phases[0] = (struct hv_phase){ "plan", 90000000, r->frames_total };
    r->phases[1] = (struct hv_phase){ "offline", 81000000, r->plan.counts.free_or_xen };
    r->phase_count = 2;
}

void canned_topology(struct hv_topology *t)
{
    *t = (struct hv_topology){ .source = HV_TOPO_SMBIOS, .count = 3, .note = "type 20 has a record of 3 bytes; it was skipped" };
    t->dimms = need(calloc(t->count, sizeof(*t->dimms)));
    for (size_t i = 0; i < 3; i++) {
        struct hv_dimm *d = &t->dimms[i];
        (void)snprintf(d->name, sizeof(d->name), "DIMM_%c%zu", i < 2 ? 'A' : 'B', i);
        (void)snprintf(d->bank, sizeof(d->bank), "BANK %zu", i);
        d->size_bytes = UINT64_C(1) << 30;
        d->node = i == 2 ? UINT32_MAX : 0;
        d->set = i == 2 ? 1 : 0;
        d->interleave_position = i == 2 ? 0 : (uint32_t)i + 1;
        d->interleave_depth = i == 2 ? 0 : 2;
        one_range(&d->ranges, i == 2 ? 0x80000 : 0, i == 2 ? 0xc0000 : 0x80000);
    }
}

void canned_status(struct hv_status_report *s)
{
    *s = (struct hv_status_report){ .count = 2, .host_total_pages = 1048576, .host_free_pages = 300000, .pcpus = 2, .version = "4.17.7-pre" };
    s->dimms = need(calloc(s->count, sizeof(*s->dimms)));
    for (size_t i = 0; i < s->count; i++) {
        struct hv_dimm_status *d = &s->dimms[i];
        (void)snprintf(d->name, sizeof(d->name), "NODE%zu", i);
        d->total = 262144;
        d->dom0 = i == 0 ? 196608 : 0;
        d->offlined = i == 1 ? 262000 : 0;
        d->pending = i == 1 ? 144 : 0;
        d->free_or_xen = i == 0 ? 65536 : 0;
        d->free_pages = i == 0 ? 60000 : UINT64_MAX;
        for (size_t k = 0; k < FS_ARRAY_SIZE(d->map); k++) {
            d->map[k] = (uint8_t)(i == 1 ? HV_CELL_OFFLINED : k < 48 ? HV_CELL_DOM0 : HV_CELL_FREE);
        }
    }
    s->dimms[0].map[0] = HV_CELL_HOLE;
    s->dimms[0].map[1] = HV_CELL_MIXED;
    s->dimms[0].map[2] = 200;           /* from a newer engine */
}

void canned_fsck(struct hv_fsck_report *r, bool paused)
{
    *r = (struct hv_fsck_report){ .fault_count = 2, .frames_checked = 65536, .tables_checked = 180, .entries_checked = 71000, .frames_pending = 7,
                                  .paused = paused };
    r->faults = need(calloc(r->fault_count, sizeof(*r->faults)));
    r->faults[0] = (struct hv_fault){ .domid = 1, .mfn = mfn_make(0x1234), .gfn = 0x10, .text = "M2P says gfn 0x11" };
    r->faults[1] = (struct hv_fault){ .domid = 1, .mfn = MFN_NONE, .gfn = FS_FRAME_NONE, .text = "table without a pin" };
}

void canned_drill_step(struct hv_drill_step *s, bool corrupt)
{
    *s = (struct hv_drill_step){ .seed = 1, .name = "evacuate", .status = FS_PARTIAL, .ns = 208000000, .judge_ns = 11000000, .writes = 3470,
                                 .frames_moved = 131047, .frames_blocked = 18, .frames_left = 18, .frames_bound = 18, .pages_checked = 196607 };
    (void)snprintf(s->dimm, sizeof(s->dimm), "%s", corrupt ? CANNED_HOSTILE_NAME "<script>" : "NODE1");
    if (corrupt) {
        s->faults = 2;
        s->injected = true;
        (void)snprintf(s->text, sizeof(s->text), "<b>pv1</b> & \x1b[31mpage 7 differs");
    }
}

void canned_drill(struct hv_drill_report *r, bool corrupt)
{
    *r = (struct hv_drill_report){ .seeds = 1, .steps = 1, .evacuations = 1, .frames_moved = 131047, .frames_blocked = 18, .writes = 3470,
                                   .pages_checked = 196607, .calls = 325, .longest_blackout_ns = 30000000, .free_pages = 63407,
                                   .expected_free_pages = 63407, .ns = 804000000 };
    if (corrupt) {
        r->seeds_failed = r->first_failed_seed = 1;
        r->faults = 2;
        r->failures_injected = 1;
    }
}

void canned_meminfo(struct hv_meminfo *m)
{
    static const struct hv_meminfo_value counters[] = { { .name = "nr_free_pages", .value = 3900 }, { .name = "compact_success", .value = 3 } };
    static const struct hv_meminfo_value settings[] = {
        { .name = "extfrag_threshold", .value = 500, .most = 1000 }, { .name = "compact_memory", .least = 1, .most = 1, .action = true },
    };

    *m = (struct hv_meminfo){ .domid = 1, .name = "pv1", .zones = calloc(1, sizeof(*m->zones)), .zone_count = 1, .counters = malloc(sizeof(counters)),
                              .counter_count = FS_ARRAY_SIZE(counters), .tunables = malloc(sizeof(settings)), .tunable_count = FS_ARRAY_SIZE(settings) };
    if (!m->zones || !m->counters || !m->tunables) {
        abort();
    }
    m->zones[0] = (struct hv_meminfo_zone){ .kind = HV_ZONE_NORMAL, .present_pages = 65536, .managed_pages = 65000, .free_pages = 3900,
                                            .watermark = { 500, 625, 750 }, .blocks = { 5, 120, 3 }, .score = 60 };
    m->zones[0].free_units[1][0] = 44;
    m->zones[0].free_units[1][9] = 3;
    m->zones[0].unusable[9] = 606;
    m->zones[0].extfrag[9] = -1000;
    memcpy(m->counters, counters, sizeof(counters));
    memcpy(m->tunables, settings, sizeof(settings));
}

void canned_shrink(struct hv_shrink_report *r, bool grow, uint64_t to_pages)
{
    uint64_t before = grow ? 32768 : 65536;

    *r = (struct hv_shrink_report){ .domid = 1, .name = "pv1", .grow = grow, .asked_pages = to_pages,
                                    .plan_pages = grow ? to_pages - before : before - to_pages,
                                    .pages_before = before, .pages_after = to_pages, .limit_before = before, .limit_after = to_pages,
                                    .maximum_pages = 65536, .free_before = 1000, .free_after = 1000 + before - to_pages, .node_count = 1,
                                    .guest_pages = 60000, .guest_free_pages = 40000, .guest_possible_pages = 39000, .detailed = true,
                                    .blocks = 60, .machine_extents = 58, .single_pages = 1022, .sections = 1, .memmap_pages = 512, .migrated_pages = 777,
                                    .residual_blocks = 2, .stays = { [HV_STAYS_dma] = 1, [HV_STAYS_kernel] = 1 }, .requests = 8, .ns = 4000000 };
    r->said_pages = r->plan_pages;
    r->nodes[0].before = r->free_before;
    r->nodes[0].after = r->free_after;
}
