/*
 * report.c - plans and reports as text.
 *
 * Owns: what a person reads before and after an evacuation: who is in the way, what
 * moved, what stays and why, how long guests stood still, and what to do next.
 * Invariants:
 *  I1 nothing is said that the struct does not hold: unknown times and counts are "-";
 *  I2 numbers of a section add up to the number that heads it; a remainder gets a row
 *     of its own instead of vanishing;
 *  I3 names pass text_clean() before they are printed.
 * Why groups and not lists: a person acts on an owner and a reason, not on a frame;
 * the frames themselves are in --json.
 * Cost: O(blockers + domains); all guests run by then.
 */
#include "report.h"

#include <inttypes.h>
#include <string.h>
#include "groups.h"
#include "text.h"

struct report_owner report_owner_name(const struct hv_plan_domain *domains, size_t count, uint16_t domid)
{
    struct report_owner out;
    char name[32] = "";

    for (size_t i = 0; i < count; i++) {
        if (domains[i].domid == domid) {
            text_clean(name, sizeof(name), domains[i].name, sizeof(domains[i].name), 24);
            break;
        }
    }
    if (domid == FS_DOMID_NONE) {
        (void)snprintf(out.s, sizeof(out.s), "no owner");
    } else if (domid == FS_DOMID_XEN) {
        (void)snprintf(out.s, sizeof(out.s), "Xen");
    } else if (domid == 0) {
        (void)snprintf(out.s, sizeof(out.s), "dom0");
    } else if (name[0] == '\0') {
        (void)snprintf(out.s, sizeof(out.s), "domain %u", domid);
    } else {
        (void)snprintf(out.s, sizeof(out.s), "%s (%u)", name, domid);
    }
    return out;
}

void report_ranges_text(FILE *f, const struct mfn_range_set *set, size_t max)
{
    for (size_t i = 0; i < set->count && i < max; i++) {
        fprintf(f, "%s0x%" PRIx64 "-0x%" PRIx64, i == 0 ? "mfn " : ", ", set->ranges[i].start.n, set->ranges[i].end.n);
    }
    if (set->count > max) {
        fprintf(f, " and %s more", text_count(set->count - max).s);
    }
}

static void print_target(FILE *f, const struct hv_plan *p, const char *target)
{
    char name[sizeof(p->target)];

    text_clean(name, sizeof(name), p->target[0] ? p->target : target, p->target[0] ? sizeof(p->target) : strlen(target), 0);
    fputs(name, f);
}

/* "-" for a number that is unknown or means nothing here. */
static struct text_number count_or_dash(uint64_t n, bool known)
{
    return known ? text_count(n) : (struct text_number){ "-" };
}

static struct text_number time_or_dash(uint64_t ns)
{
    return ns > 0 ? text_time(ns) : (struct text_number){ "-" };
}

/* ---- the plan ---- */

static void print_counts(FILE *f, const struct hv_counts *c)
{
    const struct { const char *name; uint64_t n; } kinds[] = {
        { "guest data", c->data }, { "page tables L1", c->l1 }, { "page tables L2", c->l2 }, { "page tables L3", c->l3 },
        { "page tables L4", c->l4 }, { "p2m lists", c->p2m }, { "granted", c->granted }, { "shared", c->shared },
        { "dom0", c->dom0 }, { "free or Xen's", c->free_or_xen }, { "offlined already", c->offlined },
        { "broken", c->broken }, { "no RAM", c->hole }, { "owner not certain", c->ambiguous },
    };
    uint64_t sum = 0;

    fputs("\nFrames by kind:\n", f);
    for (size_t i = 0; i < FS_ARRAY_SIZE(kinds); i++) {
        sum += kinds[i].n;
        if (kinds[i].n > 0) {
            fprintf(f, "  %12s  %s\n", text_count(kinds[i].n).s, kinds[i].name);
        }
    }
    if (sum < c->total) {           /* I2 */
        fprintf(f, "  %12s  not classified\n", text_count(c->total - sum).s);
    }
    fprintf(f, "  %12s  in all\n", text_count(c->total).s);
}

static void print_plan_domains(FILE *f, const struct hv_plan *p)
{
    static const char *const headings[] = { "Domain", "Kind", "Mover", ">In range", ">Movable", ">Stay", ">Tables", ">2 MiB",
                                            ">Stops", ">Expected stop" };
    struct table t;

    if (p->domain_count == 0) {
        fputs("\nNo domain has a frame here.\n", f);
        return;
    }
    fputs("\nDomains with frames here:\n", f);
    table_begin(&t, headings, FS_ARRAY_SIZE(headings));
    for (size_t i = 0; i < p->domain_count; i++) {
        const struct hv_plan_domain *d = &p->domains[i];
        bool moves = d->mover != HV_MOVER_NONE;
        table_cell(&t, "%s", report_owner_name(d, 1, d->domid).s);
        table_cell(&t, "%.*s", (int)sizeof(d->kind), d->kind);
        table_cell(&t, "%s", hv_mover_name(d->mover));
        table_cell(&t, "%s", text_count(d->pages_in_range).s);
        table_cell(&t, "%s", text_count(d->pages_movable).s);
        table_cell(&t, "%s", text_count(d->pages_blocked).s);
        table_cell(&t, "%s", count_or_dash(d->tables_in_range, d->tables_in_range > 0).s);
        table_cell(&t, "%s", count_or_dash(d->superpages_in_range, d->superpages_in_range > 0).s);
        table_cell(&t, "%s", count_or_dash(d->suspends, moves && d->suspends > 0).s);
        table_cell(&t, "%s", time_or_dash(moves ? d->blackout_ns : 0).s);
    }
    table_print(&t, f, "  ");
}

static void print_room(FILE *f, const struct hv_plan *p)
{
    fprintf(f, "\nRoom: %s frames (%s) needed, %s (%s) free elsewhere", text_count(p->room_needed_pages).s,
            text_size(p->room_needed_pages).s, text_count(p->room_free_pages).s, text_size(p->room_free_pages).s);
    if (p->room_missing_pages > 0) {
        fprintf(f, ": %s frames (%s) are MISSING", text_count(p->room_missing_pages).s, text_size(p->room_missing_pages).s);
    }
    fputc('\n', f);
    for (size_t i = 0; i < p->room_count && i < FS_ARRAY_SIZE(p->room); i++) {
        if (p->room[i].free_pages > 0) {
            fprintf(f, "  node %" PRIu32 ": takes %s of %s free\n", p->room[i].node, text_count(p->room[i].take_pages).s,
                    text_count(p->room[i].free_pages).s);
        }
    }
}

static void print_groups(FILE *f, const struct hv_plan *p, const struct blocker_groups *groups, const char *heading)
{
    static const char *const headings[] = { "Owner", "Reason", ">Frames", "First mfns", "When it goes" };
    uint64_t frames = groups_frames(groups);
    struct table t;

    if (frames == 0) {
        return;
    }
    fprintf(f, "\n%s: %s frame%s\n", heading, text_count(frames).s, frames == 1 ? "" : "s");
    table_begin(&t, headings, FS_ARRAY_SIZE(headings));
    for (size_t i = 0; i < groups->count; i++) {
        const struct blocker_group *g = &groups->groups[i];
        char first[TABLE_CELL_BYTES] = "";
        size_t at = 0;
        for (size_t k = 0; k < g->first_count && at < sizeof(first); k++) {
            at += (size_t)snprintf(first + at, sizeof(first) - at, "%s0x%" PRIx64, k == 0 ? "" : " ", g->first[k].n);
        }
        table_cell(&t, "%s", report_owner_name(p->domains, p->domain_count, g->domid).s);
        table_cell(&t, "%s", fs_reason_name((enum fs_reason)g->reason));
        table_cell(&t, "%s", text_count(g->frames).s);
        table_cell(&t, "%s%s", first, at > 0 && g->frames > g->first_count ? " ..." : "");
        table_cell(&t, "%s", reason_advice(g->reason));
    }
    table_print(&t, f, "  ");
}

void report_plan_text(FILE *f, const struct hv_plan *p)
{
    struct blocker_groups groups;

    fputs("Plan for ", f);
    print_target(f, p, "");
    fputs(": ", f);
    report_ranges_text(f, &p->ranges, 4);
    fprintf(f, ", %s frames (%s)\n", text_count(p->counts.total).s, text_size(p->counts.total).s);
    if (p->note[0] != '\0') {
        char text[sizeof(p->note) * 2];
        text_clean_lines(text, sizeof(text), p->note, sizeof(p->note));
        fprintf(f, "  (%s)\n", text);
    }
    print_plan_domains(f, p);
    print_counts(f, &p->counts);
    print_room(f, p);
    if (groups_make_plan(p, &groups) == FS_OK) {
        print_groups(f, p, &groups, "Known to stay");
        groups_free(&groups);
    } else {
        fputs("\nKnown to stay: (out of memory)\n", f);
    }
    if (p->refusal[0] != '\0') {
        char text[sizeof(p->refusal)];
        text_clean_lines(text, sizeof(text), p->refusal, sizeof(p->refusal));
        fprintf(f, "\nCannot run: %s\n", text);
    }
    fputc('\n', f);
}

/* ---- the report ---- */

static void print_report_domains(FILE *f, const struct hv_report *r, const struct blocker_groups *groups)
{
    static const char *const headings[] = { "Domain", "Mover", ">Moved", ">Stay", ">Stops", ">Stopped", ">Longest", ">Pauses",
                                            ">p50", ">p99", ">Max", ">2 MiB", "Result" };
    struct table t;

    if (r->domain_count == 0) {
        return;
    }
    fputc('\n', f);
    table_begin(&t, headings, FS_ARRAY_SIZE(headings));
    for (size_t i = 0; i < r->domain_count; i++) {
        const struct hv_domain_report *d = &r->domains[i];
        table_cell(&t, "%s", report_owner_name(&d->plan, 1, d->plan.domid).s);
        table_cell(&t, "%s", hv_mover_name(d->plan.mover));
        table_cell(&t, "%s", text_count(d->moved).s);
        /* The last look at the range counts; where there was none, what the mover said. */
        table_cell(&t, "%s", text_count(r->frames_total > 0 ? groups_frames_of(groups, d->plan.domid) : d->blocked).s);
        table_cell(&t, "%s", count_or_dash(d->suspends, d->suspends > 0).s);
        table_cell(&t, "%s", time_or_dash(d->blackout_ns).s);
        table_cell(&t, "%s", time_or_dash(d->longest_blackout_ns).s);
        table_cell(&t, "%s", count_or_dash(d->pauses, d->pauses > 0).s);
        table_cell(&t, "%s", time_or_dash(d->p50_pause_ns).s);
        table_cell(&t, "%s", time_or_dash(d->p99_pause_ns).s);
        table_cell(&t, "%s", time_or_dash(d->max_pause_ns).s);
        if (d->superpages_before > 0 || d->superpages_after > 0) {
            table_cell(&t, "%s -> %s", text_count(d->superpages_before).s, text_count(d->superpages_after).s);
        } else {
            table_cell(&t, "-");
        }
        if (d->evicted_to != 0 && d->evicted_to != FS_DOMID_NONE) {
            table_cell(&t, "saved, restored as %u", d->evicted_to);
        } else {
            table_cell(&t, "%s", d->status == FS_OK ? "ok" : fs_status_name(d->status));
        }
    }
    table_print(&t, f, "  ");
    for (size_t i = 0; i < r->domain_count; i++) {
        const struct hv_domain_report *d = &r->domains[i];
        if (d->error[0] != '\0') {
            char text[4 * sizeof(d->error)];
            text_clean(text, sizeof(text), d->error, sizeof(d->error), 0);
            fprintf(f, "  %s: %s\n", report_owner_name(&d->plan, 1, d->plan.domid).s, text);
        }
    }
}

static void print_phases(FILE *f, const char *owner, const struct hv_phase *phases, size_t count)
{
    if (count == 0) {
        return;
    }
    size_t columns = (size_t)fprintf(f, "  %s:", owner);
    for (size_t i = 0; i < count && i < HV_PHASES_MAX; i++) {
        char name[4 * sizeof(phases[i].name)], item[sizeof(name) + 2 * TEXT_NUMBER_BYTES];
        text_clean(name, sizeof(name), phases[i].name, sizeof(phases[i].name), 0);
        size_t length = (size_t)snprintf(item, sizeof(item), " %s %s%s", name, text_time(phases[i].ns).s, i + 1 < count ? "," : "");
        if (columns + length > 110) {
            fputs("\n     ", f);
            columns = 5;
        }
        fputs(item, f);
        columns += length;
    }
    fputc('\n', f);
}

static void print_all_phases(FILE *f, const struct hv_report *r)
{
    bool any = r->phase_count > 0;

    for (size_t i = 0; i < r->domain_count; i++) {
        any = any || r->domains[i].phase_count > 0;
    }
    if (!any) {
        return;
    }
    fputs("\nTime by phase:\n", f);
    print_phases(f, "all", r->phases, r->phase_count);
    for (size_t i = 0; i < r->domain_count; i++) {
        const struct hv_domain_report *d = &r->domains[i];
        print_phases(f, report_owner_name(&d->plan, 1, d->plan.domid).s, d->phases, d->phase_count);
    }
}

static void print_verified(FILE *f, const struct hv_report *r, const struct report_info *info)
{
    if (!info->verify) {
        return;
    }
    fprintf(f, "\nVerified: %s; %s frames hashed before and after, %s differ%s\n", r->verified ? "yes" : "NO",
            text_count(r->pages_hashed).s, text_count(r->mismatches).s,
            r->verified || r->mismatches > 0 ? "" : " (not every moved frame was hashed)");
    if (r->moved_free > 0) {
        fprintf(f, "  %s moved frames were free in their guests: no contents\n", text_count(r->moved_free).s);
    }
}

/* Frames by what would take them away. */
struct leftover { uint64_t evictable, dom0, xen, other; };

static struct leftover leftover_of(const struct blocker_groups *groups)
{
    struct leftover l = { 0 };

    for (size_t i = 0; i < groups->count; i++) {
        const struct blocker_group *g = &groups->groups[i];
        if (reason_is_evictable(g->reason)) {
            l.evictable += g->frames;
        } else if (g->reason == FS_REASON_DOM0) {
            l.dom0 += g->frames;
        } else if (g->reason == FS_REASON_XEN || g->reason == FS_REASON_BROKEN) {
            l.xen += g->frames;
        } else {
            l.other += g->frames;
        }
    }
    return l;
}

static void print_next(FILE *f, const struct hv_plan *p, const struct report_info *info, const struct leftover *l)
{
    if (info->status == FS_NEEDS_RECOVER) {
        fputs("\nNext: `frameshift recover` now; until then leave the guests alone.\n", f);
        return;
    }
    if (info->status == FS_OK) {
        fputs("\nNext: nothing is left to do here. `frameshift online ", f);
        print_target(f, p, info->target);
        fputs("` gives the memory back.\n", f);
        return;
    }
    if (info->status != FS_PARTIAL) {
        return;                     /* the error says what to do */
    }
    fputs("\nNext:", f);
    if (l->evictable > 0 && !info->evict) {
        fprintf(f, " %s of the frames that stay leave with their guests: `frameshift evacuate ", text_count(l->evictable).s);
        print_target(f, p, info->target);
        fputs(" --evict` saves and restores just those (each stops for seconds).", f);
    }
    if (l->dom0 > 0) {
        fprintf(f, " %s belong to dom0: dom0_nodes= on Xen's command line keeps it away after the next boot.", text_count(l->dom0).s);
    }
    if (l->other > 0 || (l->evictable > 0 && info->evict)) {
        fprintf(f, " %s may go later, as the table says.", text_count(l->other + (info->evict ? l->evictable : 0)).s);
    }
    if (l->xen > 0) {
        fprintf(f, " %s are Xen's own or broken: they stay until the next boot, and hold no guest's data.", text_count(l->xen).s);
    }
    fputc('\n', f);
}

static void print_headline(FILE *f, const struct hv_report *r, const struct report_info *info)
{
    print_target(f, &r->plan, info->target);
    fprintf(f, ": %s\n", fs_status_text(info->status));
    if (r->frames_total == 0) {             /* it ended before the last look at the range */
        if (r->frames_moved > 0) {
            fprintf(f, "  %s frames had moved when it ended\n", text_count(r->frames_moved).s);
        }
        return;
    }
    fprintf(f, "  %s frames (%s): %s moved, %s offlined, %s stay", text_count(r->frames_total).s, text_size(r->frames_total).s,
            text_count(r->frames_moved).s, text_count(r->frames_offlined).s, text_count(r->frames_blocked).s);
    if (r->frames_pending > 0) {
        fprintf(f, ", %s go offline when their owner lets go", text_count(r->frames_pending).s);
    }
    fputc('\n', f);
}

/* Whether anything beyond the plan was done: a run that was refused has no result for any domain. */
static bool report_ran(const struct hv_report *r)
{
    bool ran = r->frames_total > 0 || r->frames_moved > 0;

    for (size_t i = 0; i < r->domain_count; i++) {
        ran = ran || r->domains[i].status != FS_OK || r->domains[i].phase_count > 0;
    }
    return ran;
}

void report_text(FILE *f, const struct hv_report *r, const struct report_info *info)
{
    struct blocker_groups groups = { 0 };

    print_headline(f, r, info);
    if (info->quiet) {
        return;
    }
    if (groups_make(r->blockers, r->blocker_count, &groups) != FS_OK) {
        fputs("(out of memory: what stays is not shown; --json has it)\n", f);
    }
    struct leftover l = leftover_of(&groups);
    if (report_ran(r)) {
        print_report_domains(f, r, &groups);
        print_all_phases(f, r);
    }
    print_verified(f, r, info);
    print_groups(f, &r->plan, &groups, "Stays");
    if (!info->in_drill) {
        print_next(f, &r->plan, info, &l);
    }
    groups_free(&groups);
}

void report_dry_run_text(FILE *f, const struct hv_plan *p, const struct report_info *info)
{
    struct blocker_groups groups = { 0 };

    /* Without memory the hint about --evict is left out, and nothing else. */
    struct leftover l = groups_make_plan(p, &groups) == FS_OK ? leftover_of(&groups) : (struct leftover){ 0 };
    groups_free(&groups);
    fputs("Nothing was changed (--dry-run).", f);
    if (p->refusal_status == FS_OK && info->status == FS_OK) {
        fputs(" To run it: `frameshift evacuate ", f);
        print_target(f, p, info->target);
        fputs(p->room_missing_pages > 0 ? " --make-room" : "", f);
        fputs(info->evict ? " --evict`" : "`", f);
        if (l.evictable > 0 && !info->evict) {
            fprintf(f, "; --evict would also take away %s of the frames that stay", text_count(l.evictable).s);
        }
    }
    fputc('\n', f);
}
