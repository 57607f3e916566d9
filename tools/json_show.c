/*
 * json_show.c - JSON lines of everything but events, plans and reports.
 *
 * Owns: the JSON form of topology, status, fsck, recover, online, version, error.
 * Invariants: I1 one call writes one line, one object that parses; I2 the members of a
 * line are the same whatever their values: an unknown one is null, never left out.
 * Cost: O(members); fsck's faults are few or the host is lost anyway.
 */
#include "json.h"

#include "json_priv.h"

static const char *source_name(enum hv_topology_source source)
{
    switch (source) {
    case HV_TOPO_SMBIOS: return "smbios";
    case HV_TOPO_NUMA:   return "numa";
    case HV_TOPO_MAP:    return "map";
    }
    return "unknown";
}

static json_t *dimm_value(const struct hv_dimm *d)
{
    struct object o;

    object_begin(&o);
    PUT_FIELD(&o, "name", d->name);
    PUT_FIELD(&o, "bank", d->bank);
    object_put(&o, "size_bytes", d->size_bytes == 0 ? json_null() : json_number(d->size_bytes));
    object_put(&o, "node", d->node == UINT32_MAX ? json_null() : json_number(d->node));
    put_number(&o, "set", d->set);
    put_bool(&o, "interleaved", d->interleave_depth != 0);
    put_number(&o, "interleave_position", d->interleave_position);
    put_number(&o, "interleave_depth", d->interleave_depth);
    object_put(&o, "ranges", json_ranges(&d->ranges));
    return object_end(&o);
}

bool json_topology(FILE *f, const struct hv_topology *t)
{
    struct object o, dimms;

    object_begin_array(&dimms);
    for (size_t i = 0; i < t->count; i++) {
        object_append(&dimms, dimm_value(&t->dimms[i]));
    }
    json_begin_line(&o, "topology");
    put_string(&o, "source", source_name(t->source), SIZE_MAX);
    put_string(&o, "note", t->note[0] ? t->note : NULL, sizeof(t->note));
    object_put(&o, "dimms", object_end(&dimms));
    return json_write_line(f, &o);
}

const char *json_cell_name(unsigned cell)
{
    static const char *const names[] = {
        [HV_CELL_HOLE] = "hole", [HV_CELL_FREE] = "free", [HV_CELL_GUEST] = "guest",
        [HV_CELL_DOM0] = "dom0", [HV_CELL_OFFLINED] = "offlined", [HV_CELL_MIXED] = "mixed",
    };

    return cell < FS_ARRAY_SIZE(names) ? names[cell] : "unknown";
}

static json_t *dimm_status_value(const struct hv_dimm_status *d)
{
    struct object o, map;

    object_begin_array(&map);
    for (size_t i = 0; i < FS_ARRAY_SIZE(d->map); i++) {
        object_append(&map, json_string(json_cell_name(d->map[i])));
    }
    object_begin(&o);
    PUT_FIELD(&o, "name", d->name);
    put_number(&o, "frames_total", d->total);
    put_number(&o, "free_or_xen", d->free_or_xen);
    put_number(&o, "guests", d->guests);
    put_number(&o, "dom0", d->dom0);
    put_number(&o, "offlined", d->offlined);
    put_number(&o, "pending", d->pending);
    put_number(&o, "broken", d->broken);
    put_number(&o, "node_free", d->free_pages);
    object_put(&o, "map", object_end(&map));
    return object_end(&o);
}

bool json_status(FILE *f, const struct hv_status_report *s)
{
    struct object o, dimms;

    object_begin_array(&dimms);
    for (size_t i = 0; i < s->count; i++) {
        object_append(&dimms, dimm_status_value(&s->dimms[i]));
    }
    json_begin_line(&o, "status");
    PUT_FIELD(&o, "version", s->version);
    put_number(&o, "cpus", s->pcpus);
    put_number(&o, "frames_total", s->host_total_pages);
    put_number(&o, "frames_free", s->host_free_pages);
    put_bool(&o, "recovery_due", s->recovery_due);
    object_put(&o, "dimms", object_end(&dimms));
    return json_write_line(f, &o);
}

bool json_fsck(FILE *f, const struct hv_fsck_report *r, fs_status_t status)
{
    struct object o, faults;

    object_begin_array(&faults);
    for (size_t i = 0; i < r->fault_count; i++) {
        const struct hv_fault *fault = &r->faults[i];
        struct object one;
        object_begin(&one);
        object_put(&one, "domain", json_domid(fault->domid));
        put_number(&one, "mfn", fault->mfn.n);
        put_number(&one, "gfn", fault->gfn);
        PUT_FIELD(&one, "text", fault->text);
        object_append(&faults, object_end(&one));
    }
    json_begin_line(&o, "fsck");
    put_status(&o, status);
    put_bool(&o, "exact", r->paused);
    put_number(&o, "frames_checked", r->frames_checked);
    put_number(&o, "tables_checked", r->tables_checked);
    put_number(&o, "entries_checked", r->entries_checked);
    put_number(&o, "frames_pending", r->frames_pending);
    object_put(&o, "faults", object_end(&faults));
    return json_write_line(f, &o);
}

bool json_recover(FILE *f, const struct hv_recover_report *r, fs_status_t status)
{
    struct object o;

    json_begin_line(&o, "recover");
    put_status(&o, status);
    put_bool(&o, "needed", r->needed);
    put_number(&o, "domains_finished", r->domains_finished);
    put_number(&o, "domains_rolled_back", r->domains_rolled_back);
    put_number(&o, "domains_gone", r->domains_gone);
    put_number(&o, "frames_released", r->frames_released);
    put_number(&o, "frames_onlined", r->frames_onlined);
    PUT_FIELD(&o, "text", r->text);
    return json_write_line(f, &o);
}

bool json_online(FILE *f, const char *target, uint64_t onlined_pages, const struct hv_shrink_report *grown, size_t grown_count, fs_status_t status)
{
    struct object o;

    json_begin_line(&o, "online");
    put_status(&o, status);
    put_string(&o, "dimm", target, SIZE_MAX);
    put_number(&o, "frames_onlined", onlined_pages);
    object_put(&o, "grown", json_shrinks(grown, grown_count));
    return json_write_line(f, &o);
}

/* One shrink or grow, as a value of its own or a line. */
static void put_shrink(struct object *o, const struct hv_shrink_report *r)
{
    struct object stays, nodes;

    object_begin(&stays);
#define X(name, words) put_number(&stays, #name, r->stays[HV_STAYS_##name]);
    HV_STAYS_LIST(X)
#undef X
    object_begin_array(&nodes);
    for (size_t i = 0; i < r->node_count; i++) {
        struct object node;
        object_begin(&node);
        put_number(&node, "node", r->nodes[i].node);
        put_number(&node, "free_before", r->nodes[i].before);
        put_number(&node, "free_after", r->nodes[i].after);
        object_append(&nodes, object_end(&node));
    }
    put_status(o, r->status);
    put_error(o, r->status == FS_OK ? NULL : r->error);
    put_bool(o, "dry_run", r->dry_run);
    PUT_FIELD(o, "name", r->name);
    object_put(o, "domain", r->domid == 0 ? json_null() : json_domid(r->domid));
    put_number(o, "frames_asked", r->asked_pages);
    put_number(o, "frames_planned", r->plan_pages);
    put_number(o, "frames_before", r->pages_before);
    put_number(o, "frames_after", r->pages_after);
    put_number(o, "limit_before", r->limit_before);
    put_number(o, "limit_after", r->limit_after);
    put_number(o, "frames_maximum", r->maximum_pages);
    put_number(o, "free_before", r->free_before);
    put_number(o, "free_after", r->free_after);
    object_put(o, "nodes", object_end(&nodes));
    put_number(o, "guest_frames", r->guest_pages);
    put_number(o, "guest_free", r->guest_free_pages);
    put_number(o, "guest_possible", r->guest_possible_pages);
    put_number(o, "guest_given", r->guest_given_pages);
    put_number(o, "guest_said", r->said_pages);
    put_bool(o, "detailed", r->detailed);
    put_number(o, "blocks", r->blocks);
    put_number(o, "extents", r->machine_extents);
    put_number(o, "single_frames", r->single_pages);
    put_number(o, "sections", r->sections);
    put_number(o, "memmap", r->memmap_pages);
    put_number(o, "migrated", r->migrated_pages);
    put_number(o, "residual_blocks", r->residual_blocks);
    object_put(o, "stays", object_end(&stays));
    put_number(o, "stops", r->stops);
    put_number(o, "requests", r->requests);
    put_number(o, "time_ns", r->ns);
    put_number(o, "fault_count", r->fsck_faults);
    put_number(o, "frames_given_back", r->given_back_pages);
}

json_t *json_shrinks(const struct hv_shrink_report *list, size_t count)
{
    struct object array;

    object_begin_array(&array);
    for (size_t i = 0; i < count; i++) {
        struct object o;
        object_begin(&o);
        put_shrink(&o, &list[i]);
        object_append(&array, object_end(&o));
    }
    return object_end(&array);
}

bool json_shrink(FILE *f, const struct hv_shrink_report *r)
{
    struct object o;

    json_begin_line(&o, r->grow ? "grow" : "shrink");
    put_shrink(&o, r);
    return json_write_line(f, &o);
}

bool json_step(FILE *f, const struct hv_drill_step *s)
{
    struct object o;

    json_begin_line(&o, "step");
    put_number(&o, "seed", s->seed);
    PUT_FIELD(&o, "step", s->name);
    put_string(&o, "dimm", s->dimm[0] ? s->dimm : NULL, sizeof(s->dimm));
    put_status(&o, s->status);
    put_string(&o, "error", s->text[0] ? s->text : NULL, sizeof(s->text));
    put_bool(&o, "injected", s->injected);
    put_number(&o, "step_ns", s->ns);
    put_number(&o, "judge_ns", s->judge_ns);
    put_number(&o, "pages_written", s->writes);
    put_number(&o, "pages_checked", s->pages_checked);
    put_number(&o, "frames_moved", s->frames_moved);
    put_number(&o, "frames_blocked", s->frames_blocked);
    put_number(&o, "frames_onlined", s->frames_onlined);
    put_number(&o, "frames_given", s->frames_given);
    put_number(&o, "frames_taken", s->frames_taken);
    put_number(&o, "frames_left", s->frames_left);
    put_number(&o, "frames_bound", s->frames_bound);
    put_number(&o, "fault_count", s->faults);
    return json_write_line(f, &o);
}

bool json_drill(FILE *f, const struct hv_drill_report *r, bool threads, fs_status_t status, const char *error)
{
    struct object o;

    json_begin_line(&o, "drill");
    put_status(&o, status);
    put_error(&o, status == FS_OK ? NULL : error);
    put_bool(&o, "threads", threads);
    put_number(&o, "seeds", r->seeds);
    put_number(&o, "seeds_failed", r->seeds_failed);
    put_number(&o, "first_failed_seed", r->seeds_failed > 0 ? r->first_failed_seed : UINT64_MAX);
    put_number(&o, "steps", r->steps);
    put_number(&o, "evacuations", r->evacuations);
    put_number(&o, "frames_moved", r->frames_moved);
    put_number(&o, "frames_blocked", r->frames_blocked);
    put_number(&o, "pages_written", r->writes);
    put_number(&o, "pages_checked", r->pages_checked);
    put_number(&o, "fault_count", r->faults);
    put_number(&o, "calls", r->calls);
    put_number(&o, "failures_injected", r->failures_injected);
    put_number(&o, "longest_stop_ns", r->longest_blackout_ns);
    put_number(&o, "frames_free", r->free_pages);
    put_number(&o, "frames_free_before", r->expected_free_pages);
    put_number(&o, "drill_ns", r->ns);
    return json_write_line(f, &o);
}

bool json_version(FILE *f, const char *version, const char *machine, const char *machine_version, const char *error)
{
    struct object o;

    json_begin_line(&o, "version");
    put_string(&o, "frameshift", version, SIZE_MAX);
    put_string(&o, "machine", machine, SIZE_MAX);
    put_string(&o, "machine_version", machine_version, SIZE_MAX);
    put_error(&o, error);
    return json_write_line(f, &o);
}

bool json_error(FILE *f, const char *verb, fs_status_t status, const char *text)
{
    struct object o;

    json_begin_line(&o, "error");
    put_string(&o, "verb", verb, SIZE_MAX);
    put_status(&o, status);
    put_error(&o, text);
    return json_write_line(f, &o);
}
