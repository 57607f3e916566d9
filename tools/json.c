/*
 * json.c - JSON lines of events, plans and reports; doc/JSON.md is the schema.
 *
 * Owns: the JSON form of struct fs_event, hv_plan and hv_report.
 * Invariants:
 *  I1 one call writes one line, one object that parses (json_value.c keeps strings and
 *     numbers such that it does);
 *  I2 the sum over blocked_by[].frames is frames_blocked; in a report of a finished run
 *     it is the number of blockers[] too;
 *  I3 plan and report spell what they both tell of a domain alike (put_plan_domain()).
 * Why blockers are streamed: a DIMM that holds dom0 has hundreds of thousands, and
 * dom0 is small; one is built, written and freed at a time.
 * Cost: O(members) time, O(one line without its blockers) memory.
 */
#include "json.h"

#include <stdlib.h>
#include <string.h>
#include "groups.h"
#include "json_priv.h"

/* Name of a domain that the plan knows; NULL for others. */
static const char *domain_name(const struct hv_plan_domain *domains, size_t count, uint16_t domid)
{
    for (size_t i = 0; i < count; i++) {
        if (domains[i].domid == domid) {
            return domains[i].name;
        }
    }
    return domid == FS_DOMID_XEN ? "Xen" : NULL;
}

static json_t *blocker_value(const struct hv_plan *plan, const struct fs_blocker *b)
{
    struct object o;

    object_begin(&o);
    put_number(&o, "mfn", b->frame);
    put_number(&o, "gfn", b->gfn);
    object_put(&o, "domain", json_domid(b->domid));
    put_string(&o, "name", domain_name(plan->domains, plan->domain_count, b->domid), HV_NAME_BYTES);
    put_string(&o, "reason", fs_reason_name((enum fs_reason)b->reason), SIZE_MAX);
    put_string(&o, "verdict", verdict_name(fs_reason_verdict((enum fs_reason)b->reason)), SIZE_MAX);
    return object_end(&o);
}

/* The line of o with a last member "blockers" streamed behind the others. Everything but the blockers is built
 * before the first byte goes out; a blocker that memory fails for is written as null, so that the line stays whole. */
static bool write_line_blockers(FILE *f, struct object *o, const struct hv_plan *plan, const struct fs_blocker *list, size_t count)
{
    char *head = json_text(object_end(o));
    bool ok;

    if (!head) {
        return false;
    }
    head[strlen(head) - 1] = '\0';          /* the closing brace: o has at least its type */
    ok = fprintf(f, "%s,\"blockers\":[", head) > 0;
    free(head);
    bool complete = true;
    for (size_t i = 0; i < count && ok; i++) {
        char *blocker = json_text(blocker_value(plan, &list[i]));
        ok = (i == 0 || fputc(',', f) != EOF) && fputs(blocker ? blocker : "null", f) != EOF;
        complete = complete && blocker;
        free(blocker);
    }
    ok = fputs("]}\n", f) != EOF && ok;
    return json_flush(f) && ok && complete;
}

static json_t *groups_value(const struct hv_plan *plan, const struct blocker_groups *groups)
{
    struct object all;

    object_begin_array(&all);
    for (size_t i = 0; i < groups->count; i++) {
        const struct blocker_group *g = &groups->groups[i];
        struct object o;
        object_begin(&o);
        object_put(&o, "domain", json_domid(g->domid));
        put_string(&o, "name", domain_name(plan->domains, plan->domain_count, g->domid), HV_NAME_BYTES);
        put_string(&o, "reason", fs_reason_name((enum fs_reason)g->reason), SIZE_MAX);
        put_string(&o, "verdict", verdict_name(fs_reason_verdict((enum fs_reason)g->reason)), SIZE_MAX);
        put_number(&o, "frames", g->frames);
        put_string(&o, "advice", reason_advice(g->reason), SIZE_MAX);
        object_append(&all, object_end(&o));
    }
    return object_end(&all);
}

/* ---- events ---- */

bool json_event(FILE *f, const struct fs_event *e, const char *name)
{
    struct object o, args;

    json_begin_line(&o, "event");
    put_string(&o, "event", fs_event_name(e->id), SIZE_MAX);
    put_number(&o, "time_ns", e->time_ns);
    object_put(&o, "domain", json_domid(e->domid));
    put_string(&o, "name", name, HV_NAME_BYTES);
    object_begin(&args);
    put_number(&args, fs_event_arg(e->id, 0), e->a);
    put_number(&args, fs_event_arg(e->id, 1), e->b);
    object_put(&o, "args", object_end(&args));
    put_string(&o, "note", e->note, 4096);
    return json_write_line(f, &o);
}

bool json_events_dropped(FILE *f, uint64_t events)
{
    struct object o;

    json_begin_line(&o, "event");
    put_string(&o, "event", "dropped", SIZE_MAX);
    put_number(&o, "events", events);
    return json_write_line(f, &o);
}

/* ---- plan ---- */

static json_t *counts_value(const struct hv_counts *c)
{
    struct object o;

    object_begin(&o);
    put_number(&o, "total", c->total);
    put_number(&o, "free_or_xen", c->free_or_xen);
    put_number(&o, "data", c->data);
    put_number(&o, "l1", c->l1);
    put_number(&o, "l2", c->l2);
    put_number(&o, "l3", c->l3);
    put_number(&o, "l4", c->l4);
    put_number(&o, "p2m", c->p2m);
    put_number(&o, "granted", c->granted);
    put_number(&o, "shared", c->shared);
    put_number(&o, "dom0", c->dom0);
    put_number(&o, "offlined", c->offlined);
    put_number(&o, "broken", c->broken);
    put_number(&o, "hole", c->hole);
    put_number(&o, "ambiguous", c->ambiguous);
    return object_end(&o);
}

/* What plan and report say alike of a domain. */
static void put_plan_domain(struct object *o, const struct hv_plan_domain *d)
{
    PUT_FIELD(o, "name", d->name);
    put_number(o, "domid", d->domid);
    object_put(o, "uuid", json_uuid(d->uuid));
    PUT_FIELD(o, "kind", d->kind);
    put_string(o, "mover", hv_mover_name(d->mover), SIZE_MAX);
    put_number(o, "vcpus", d->vcpus);
    put_number(o, "frames_total", d->pages_total);
    put_number(o, "frames_in_range", d->pages_in_range);
    put_number(o, "frames_movable", d->pages_movable);
    put_number(o, "tables_in_range", d->tables_in_range);
    put_number(o, "tables_total", d->tables_total);
    put_number(o, "superpages_in_range", d->superpages_in_range);
    object_put(o, "expected_blackout_ns", d->blackout_ns == 0 ? json_null() : json_number(d->blackout_ns));
}

static json_t *room_value(const struct hv_plan *p)
{
    struct object room, nodes;

    object_begin(&room);
    object_begin_array(&nodes);
    put_number(&room, "needed", p->room_needed_pages);
    put_number(&room, "free", p->room_free_pages);
    put_number(&room, "missing", p->room_missing_pages);
    for (size_t i = 0; i < p->room_count && i < FS_ARRAY_SIZE(p->room); i++) {
        struct object n;
        object_begin(&n);
        put_number(&n, "node", p->room[i].node);
        put_number(&n, "free", p->room[i].free_pages);
        put_number(&n, "take", p->room[i].take_pages);
        object_append(&nodes, object_end(&n));
    }
    object_put(&room, "nodes", object_end(&nodes));
    return object_end(&room);
}

bool json_plan(FILE *f, const struct hv_plan *p)
{
    struct blocker_groups groups;
    struct object o, domains;

    if (groups_make_plan(p, &groups) != FS_OK) {
        return false;
    }
    object_begin_array(&domains);
    json_begin_line(&o, "plan");
    PUT_FIELD(&o, "dimm", p->target);
    object_put(&o, "range", json_ranges(&p->ranges));
    put_number(&o, "frames_total", p->counts.total);
    put_number(&o, "frames_blocked", groups_frames(&groups));
    object_put(&o, "counts", counts_value(&p->counts));
    for (size_t i = 0; i < p->domain_count; i++) {
        struct object d;
        object_begin(&d);
        put_plan_domain(&d, &p->domains[i]);
        put_number(&d, "frames_blocked", p->domains[i].pages_blocked);
        put_number(&d, "suspends", p->domains[i].suspends);
        object_append(&domains, object_end(&d));
    }
    object_put(&o, "domains", object_end(&domains));
    object_put(&o, "room", room_value(p));
    if (p->note[0] != '\0') {
        PUT_FIELD(&o, "note", p->note);
    } else {
        object_put(&o, "note", json_null());
    }
    if (p->refusal[0] != '\0' || p->refusal_status != FS_OK) {
        struct object refusal;
        object_begin(&refusal);
        put_status(&refusal, p->refusal_status);
        PUT_FIELD(&refusal, "text", p->refusal);
        object_put(&o, "refusal", object_end(&refusal));
    } else {
        object_put(&o, "refusal", json_null());
    }
    object_put(&o, "blocked_by", groups_value(p, &groups));
    groups_free(&groups);
    return write_line_blockers(f, &o, p, p->blockers, p->blocker_count);
}

/* ---- report ---- */

/* blocked: of the range's last look, where there was one; else what the mover said. */
static json_t *domain_report_value(const struct hv_domain_report *d, uint64_t blocked)
{
    struct object o;

    object_begin(&o);
    put_plan_domain(&o, &d->plan);
    put_string(&o, "status", fs_status_name(d->status), SIZE_MAX);
    put_string(&o, "error", d->error[0] ? d->error : NULL, sizeof(d->error));
    put_number(&o, "moved", d->moved);
    put_number(&o, "blocked", blocked);
    put_number(&o, "blackout_ns", d->blackout_ns);
    put_number(&o, "longest_blackout_ns", d->longest_blackout_ns);
    put_number(&o, "suspends", d->suspends);
    put_number(&o, "max_pause_ns", d->max_pause_ns);
    put_number(&o, "p99_pause_ns", d->p99_pause_ns);
    put_number(&o, "p50_pause_ns", d->p50_pause_ns);
    put_number(&o, "pauses", d->pauses);
    put_number(&o, "superpages_before", d->superpages_before);
    put_number(&o, "superpages_after", d->superpages_after);
    /* Domain 0 is never a guest: a zeroed field means the same as FS_DOMID_NONE. */
    object_put(&o, "evicted_to", d->evicted_to == 0 ? json_null() : json_domid(d->evicted_to));
    put_number(&o, "frames_hashed", d->pages_hashed);
    put_number(&o, "mismatches", d->mismatches);
    put_number(&o, "moved_free", d->moved_free);
    /* Only a guest of which every moved frame with contents was hashed, and found equal, counts as verified. */
    put_bool(&o, "verified", d->moved > 0 && d->pages_hashed + d->moved_free >= d->moved && d->pages_hashed > 0 && d->mismatches == 0);
    object_put(&o, "phases", json_phases(d->phases, d->phase_count));
    return object_end(&o);
}

bool json_report(FILE *f, const struct hv_report *r, const struct json_report_info *info)
{
    struct blocker_groups groups;
    struct object o, domains;
    const struct hv_plan *p = &r->plan;
    bool planned_only = info->dry_run, swept = r->frames_total > 0;
    const struct fs_blocker *blockers = planned_only ? p->blockers : r->blockers;
    size_t blocker_count = planned_only ? p->blocker_count : r->blocker_count;

    if ((planned_only ? groups_make_plan(p, &groups) : groups_make(blockers, blocker_count, &groups)) != FS_OK) {
        return false;
    }
    object_begin_array(&domains);
    json_begin_line(&o, "report");
    put_status(&o, info->status);
    put_error(&o, info->error);
    put_bool(&o, "dry_run", info->dry_run);
    put_string(&o, "dimm", p->target[0] ? p->target : info->target, sizeof(p->target));
    object_put(&o, "range", json_ranges(&p->ranges));
    put_number(&o, "frames_total", swept ? r->frames_total : p->counts.total);
    put_number(&o, "frames_moved", r->frames_moved);
    put_number(&o, "frames_blocked", planned_only ? groups_frames(&groups) : r->frames_blocked);
    put_number(&o, "frames_offlined", r->frames_offlined);
    put_number(&o, "frames_pending", r->frames_pending);
    put_bool(&o, "verify", info->verify);
    put_bool(&o, "evict", info->evict);
    put_bool(&o, "verified", r->verified);
    put_number(&o, "frames_hashed", r->pages_hashed);
    put_number(&o, "mismatches", r->mismatches);
    put_number(&o, "hypercalls", r->hypercall_count);
    put_number(&o, "moved_free", r->moved_free);
    object_put(&o, "phases", json_phases(r->phases, r->phase_count));
    object_put(&o, "made_room", json_shrinks(r->made_room, r->made_room_count));
    for (size_t i = 0; i < r->domain_count; i++) {
        const struct hv_domain_report *d = &r->domains[i];
        object_append(&domains, domain_report_value(d, swept ? groups_frames_of(&groups, d->plan.domid) : d->blocked));
    }
    object_put(&o, "domains", object_end(&domains));
    object_put(&o, "blocked_by", groups_value(p, &groups));
    groups_free(&groups);
    return write_line_blockers(f, &o, p, blockers, blocker_count);
}
