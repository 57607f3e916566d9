/*
 * report.c - results of the situations as text and as JSON.
 *
 * Owns: the words and members of the results.
 * Invariants: I1  what is printed is what the drills counted; nothing is computed here but sums.
 * Lock order: none.
 * Why: apart from the drills, so that tests use those without jansson.
 * Cost: none to speak of.
 */
#include "report.h"

typedef unsigned long long ull;

bool outcome_get(const struct aged_config *config, unsigned situation, struct outcome *out)
{
    static struct aged a;
    uint64_t faults;

    *out = (struct outcome){ .verdict = { .situation = situation } };
    if (!aged_make(&a, config)) {
        return false;
    }
    out->aged = a.before;
    out->refused = ager_refused(&a.ager);
    if (situation == 1) {
        situation_atomic(&a, ATOMIC_BURSTS, &out->u.atomic);
        judge_atomic(&out->u.atomic, &out->verdict);
    } else if (situation == 2) {
        situation_huge(&a, HUGE_MISSES, &out->u.huge);
        judge_huge(&out->u.huge, &out->verdict);
    } else {
        situation_leave(&a, situation, &out->u.leave);
        judge_leave(&out->u.leave, &out->verdict);
    }
    faults = aged_end(&a);
    if (faults != 0) {
        out->verdict.pass = false;
    }
    return true;
}

/* ---- text ---- */

static void print_stays(const uint64_t stays[STAYS_REASONS], FILE *out)
{
    for (unsigned k = 0; k < STAYS_REASONS; k++) {
        if (stays[k] != 0) {
            fprintf(out, ", %s %llu", stays_text((enum stays)k), (ull)stays[k]);
        }
    }
    fputc('\n', out);
}

static void print_atomic(const struct atomic_result *r, FILE *out)
{
    for (unsigned h = 0; h < HELPERS; h++) {
        fprintf(out, "  %10llu  %s\n", (ull)r->by[h], helper_text((enum helper)h));
    }
    fprintf(out, "  free at the bursts %llu to %llu pages; meanwhile %llu pages moved, %llu reclaimed; %.0f ns each on average, deviation %.0f\n",
            (ull)r->free_least, (ull)r->free_most, (ull)r->migrated, (ull)r->reclaimed, r->ns.mean, series_deviation(&r->ns));
    for (uint64_t i = 0; i < r->polluted_after && i < CENSUS_NAMED; i++) {
        const struct mixed_block *m = &r->mixed[i];

        fprintf(out, "  polluted: block %u, type %u, flags %#x: %llu movable, %llu free", m->block, m->type, m->flags, (ull)m->movable, (ull)m->free);
        print_stays(m->stays, out);
    }
}

static void print_huge(const struct huge_result *r, FILE *out)
{
    fprintf(out, "  step   wanted      got    moved  reclaimed  compactions  us each, mean and deviation\n");
    for (uint32_t i = 0; i < r->steps; i++) {
        const struct huge_step *s = &r->step[i];

        fprintf(out, "  %3u%% %8llu %8llu %8llu %10llu %12llu %12.1f %10.1f\n", 5 * (i + 1), (ull)s->wanted, (ull)s->got, (ull)s->moved,
            (ull)s->reclaimed,
                (ull)s->compact_runs, s->ns.mean / 1000, series_deviation(&s->ns) / 1000);
    }
    fprintf(out, "  moves each: mean %.1f, deviation %.1f\n", r->moves.mean, series_deviation(&r->moves));
}

static void print_leave(const struct leave_result *r, FILE *out)
{
    for (uint32_t i = 0; i < r->count; i++) {
        const struct leave *l = &r->leave[i];

        fprintf(out, "  pfn %#llx-%#llx: %llu of %llu pages gone (%llu extents of 2 MiB), %llu moved, %llu reclaimed, %.1f ms, %u calls",
            (ull)l->start,
                (ull)l->end, (ull)l->given, (ull)(l->end - l->start), (ull)l->extents, (ull)l->migrated, (ull)l->reclaimed, (double)l->ns / 1e6,
                l->calls);
        print_stays(l->after.stays, out);
    }
}

void outcome_print(const struct outcome *o, FILE *out)
{
    const struct census *c = &o->aged;
    const struct verdict *v = &o->verdict;

    fprintf(out, "situation %u: %s\n", v->situation, situation_text(v->situation));
    fprintf(out, "  aged: %llu pages, %llu free, %llu movable, %llu that cannot leave in %llu blocks (%llu packed), "
            "%llu polluted; refused %llu of %llu", (ull)c->pages,
            (ull)c->free, (ull)c->movable, (ull)c->fixed, (ull)c->with_fixed, (ull)c->packed, (ull)c->polluted,
            (ull)(o->refused.pages + o->refused.objects), (ull)o->refused.asked);
    print_stays(c->stays, out);
    if (v->situation == 1) {
        print_atomic(&o->u.atomic, out);
    } else if (v->situation == 2) {
        print_huge(&o->u.huge, out);
    } else {
        print_leave(&o->u.leave, out);
    }
    fprintf(out, "  must be: %s\n  is:      %s\n%s situation %u\n\n", v->criterion, v->is, v->pass ? "PASS" : "FAIL", v->situation);
}

/* ---- JSON ---- */

static json_t *number(uint64_t n) { return json_integer((json_int_t)n); }

static json_t *series_json(const struct series *s)
{
    return json_pack("{s:I,s:f,s:f,s:f}", "n", (json_int_t)s->n, "mean", s->mean, "deviation", series_deviation(s), "max", s->max);
}

static json_t *stays_json(const uint64_t stays[STAYS_REASONS])
{
    json_t *o = json_object();

    for (unsigned k = 0; k < STAYS_REASONS; k++) {
        json_object_set_new(o, stays_name((enum stays)k), number(stays[k]));
    }
    return o;
}

static json_t *census_json(const struct census *c)
{
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "pages", (json_int_t)c->pages, "free", (json_int_t)c->free, "absent",
                     (json_int_t)c->absent, "movable", (json_int_t)c->movable, "fixed", (json_int_t)c->fixed, "blocks", (json_int_t)c->blocks,
                     "with_fixed", (json_int_t)c->with_fixed, "packed", (json_int_t)c->packed, "polluted", (json_int_t)c->polluted, "stays",
                     stays_json(c->stays));
}

static json_t *atomic_json(const struct atomic_result *r)
{
    json_t *by = json_object();

    for (unsigned h = 0; h < HELPERS; h++) {
        json_object_set_new(by, helper_name((enum helper)h), number(r->by[h]));
    }
    return json_pack("{s:I,s:I,s:I,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:o}", "bursts", (json_int_t)r->bursts, "asked", (json_int_t)r->asked, "got",
                     (json_int_t)r->got, "by", by, "polluted_before", (json_int_t)r->polluted_before, "polluted_after", (json_int_t)r->polluted_after,
                     "migrated", (json_int_t)r->migrated, "reclaimed", (json_int_t)r->reclaimed, "free_least", (json_int_t)r->free_least, "faults",
                     (json_int_t)r->faults, "ns", series_json(&r->ns));
}

static json_t *huge_json(const struct huge_result *r)
{
    json_t *steps = json_array();

    for (uint32_t i = 0; i < r->steps; i++) {
        const struct huge_step *s = &r->step[i];

        json_array_append_new(steps, json_pack("{s:I,s:I,s:I,s:I,s:I,s:o}", "wanted", (json_int_t)s->wanted, "got", (json_int_t)s->got, "moved",
                                               (json_int_t)s->moved, "reclaimed", (json_int_t)s->reclaimed, "compact_runs",
                                               (json_int_t)s->compact_runs, "ns", series_json(&s->ns)));
    }
    return json_pack("{s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:o,s:o,s:o,s:I}", "attempted", (json_int_t)r->attempted, "got", (json_int_t)r->got,
                     "packed", (json_int_t)r->packed, "possible", (json_int_t)r->possible, "recounted", (json_int_t)r->recounted, "moved",
                     (json_int_t)r->moved, "reclaimed", (json_int_t)r->reclaimed, "compact_runs", (json_int_t)r->compact_runs, "swapped_out",
                     (json_int_t)r->swapped_out, "ns", series_json(&r->ns), "moves", series_json(&r->moves), "steps", steps, "faults",
                     (json_int_t)r->faults);
}

static json_t *leave_json(const struct leave_result *r)
{
    json_t *ranges = json_array();

    for (uint32_t i = 0; i < r->count; i++) {
        const struct leave *l = &r->leave[i];

        json_array_append_new(ranges, json_pack("{s:I,s:I,s:i,s:I,s:I,s:I,s:I,s:I,s:I,s:i,s:b,s:o}", "start", (json_int_t)l->start, "end",
                                                (json_int_t)l->end, "status", (int)l->status, "fixed_before", (json_int_t)l->fixed_before, "given",
                                                (json_int_t)l->given, "extents", (json_int_t)l->extents, "migrated", (json_int_t)l->migrated,
                                                "reclaimed", (json_int_t)l->reclaimed, "ns", (json_int_t)l->ns, "calls", (int)l->calls, "back",
                                                (int)l->back, "stays", stays_json(l->after.stays)));
    }
    return json_pack("{s:i,s:i,s:i,s:i,s:i,s:I,s:I,s:i,s:o}", "gone", (int)r->gone, "residual", (int)r->residual, "failed", (int)r->failed,
                     "movable_stayed", (int)r->movable_stayed, "miscounted", (int)r->miscounted, "residual_pages", (json_int_t)r->residual_pages,
                     "faults", (json_int_t)r->faults, "came", (int)r->came, "ranges", ranges);
}

json_t *outcome_json(const struct outcome *o)
{
    const struct verdict *v = &o->verdict;
    json_t *result = v->situation == 1 ? atomic_json(&o->u.atomic) : v->situation == 2 ? huge_json(&o->u.huge) : leave_json(&o->u.leave);

    return json_pack("{s:i,s:s,s:b,s:s,s:s,s:o,s:I,s:I,s:o}", "situation", (int)v->situation, "text", situation_text(v->situation), "pass",
            (int)v->pass,
                     "criterion", v->criterion, "is", v->is, "aged", census_json(&o->aged), "kernel_asked", (json_int_t)o->refused.asked,
                     "kernel_refused", (json_int_t)(o->refused.pages + o->refused.objects), "result", result);
}
