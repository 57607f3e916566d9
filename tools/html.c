/*
 * html.c - a drill's report as a self-contained HTML file.
 *
 * Owns: the page: headline, one row for each step with a map of every DIMM after it, one section for each evacuation.
 * Invariants:
 *  I1 text from outside passes html_escape(); numbers are printed from numbers;
 *  I2 the file is whole HTML whenever html_end() ran, also after a drill that failed at its first step;
 *  I3 the verdict stands in words beside its colour.
 * Why streamed: a drill of many seeds has thousands of steps; nothing of them is kept, so the headline's figures come last in
 * the file and are put first by CSS (order).
 * Cost: O(steps) time and file, O(1) memory.
 */
#include "html.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "groups.h"
#include "json.h"
#include "report.h"
#include "text.h"

struct html {
    FILE *f;
    bool table_open;
    unsigned step_tables;
};

static const char style[] =
    "body{font:15px/1.45 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em;color:#1b1f24;background:#fff;display:flex;"
    "flex-direction:column}header{order:-1}table{border-collapse:collapse;width:100%;margin:.5em 0 1.5em}"
    "th,td{text-align:left;padding:.3em .6em;border-bottom:1px solid #d8dee4;vertical-align:top}td.n,th.n{text-align:right;"
    "font-variant-numeric:tabular-nums}.ok{color:#116329}.bad{color:#a40e26;font-weight:600}.map{display:block;margin:.15em 0}"
    ".key span{display:inline-block;width:.8em;height:.8em;margin:0 .3em 0 1em;vertical-align:baseline}pre{white-space:pre-wrap;margin:0}"
    "@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,td{border-color:#30363d}.ok{color:#56d364}.bad{color:#ff7b72}}";

static const struct { enum hv_map_cell cell; const char *colour; } colours[] = {
    { HV_CELL_HOLE, "#afb8c1" }, { HV_CELL_FREE, "#d5e8d4" }, { HV_CELL_GUEST, "#3b82d6" }, { HV_CELL_DOM0, "#8250df" },
    { HV_CELL_OFFLINED, "#24292f" }, { HV_CELL_MIXED, "#79b8ff" },
};

void html_escape(FILE *f, const char *text, size_t max_bytes)
{
    size_t n = strnlen(text, max_bytes);

    for (size_t i = 0; i < n;) {
        uint32_t code = 0;
        size_t used = text_utf8(text + i, n - i, &code);
        if (used == 0 || (code < 0x20 && code != '\n') || code == 0x7f) {
            fputs("&#xfffd;", f);
            i += used ? used : 1;
        } else if (strchr("&<>\"'", (int)code) && code < 0x80) {
            fprintf(f, "&#%" PRIu32 ";", code);
            i += used;
        } else {
            (void)fwrite(text + i, 1, used, f);
            i += used;
        }
    }
}

struct html *html_begin(FILE *f)
{
    struct html *h = calloc(1, sizeof(*h));

    if (!h) {
        return NULL;
    }
    h->f = f;
    fprintf(f, "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Frameshift drill</title>\n"
               "<meta name=\"viewport\" content=\"width=device-width\"><style>%s</style></head><body>\n", style);
    return h;
}

static void steps_open(struct html *h)
{
    if (!h->table_open) {
        fprintf(h->f, "<section><h2>Steps%s</h2>", h->step_tables++ > 0 ? ", continued" : "");
        fputs("<table><tr><th class=\"n\">Seed</th><th>Step</th><th class=\"n\">Time</th><th class=\"n\">Moved</th><th class=\"n\">Stay</th>"
              "<th class=\"n\">In other hands</th><th class=\"n\">Written</th><th class=\"n\">Compared</th><th>Verdict</th><th>DIMMs after it</th></tr>\n",
              h->f);
        h->table_open = true;
    }
}

static void steps_close(struct html *h)
{
    if (h->table_open) {
        fputs("</table></section>\n", h->f);
        h->table_open = false;
    }
}

static const char *colour_of(uint8_t cell)
{
    for (size_t i = 0; i < FS_ARRAY_SIZE(colours); i++) {
        if (colours[i].cell == cell) {
            return colours[i].colour;
        }
    }
    return "#fff";
}

/* One bar for each DIMM; equal neighbours are one rectangle. */
static void maps(FILE *f, const struct hv_status_report *machine)
{
    for (size_t i = 0; machine && i < machine->count; i++) {
        const struct hv_dimm_status *d = &machine->dimms[i];
        fputs("<svg class=\"map\" width=\"192\" height=\"9\" role=\"img\"><title>", f);
        html_escape(f, d->name, sizeof(d->name));
        fprintf(f, ": %" PRIu64 " frames of guests, %" PRIu64 " offlined, %" PRIu64 " about to be</title>", d->guests, d->offlined, d->pending);
        for (size_t from = 0, to; from < FS_ARRAY_SIZE(d->map); from = to) {
            for (to = from + 1; to < FS_ARRAY_SIZE(d->map) && d->map[to] == d->map[from]; to++) {
            }
            fprintf(f, "<rect x=\"%zu\" width=\"%zu\" height=\"9\" fill=\"%s\"/>", from * 3, (to - from) * 3, colour_of(d->map[from]));
        }
        fputs("</svg>", f);
    }
}

static void number_cell(FILE *f, bool known, uint64_t n)
{
    fprintf(f, "<td class=\"n\">%s</td>", known ? text_count(n).s : "");
}

void html_step(struct html *h, const struct hv_drill_step *s)
{
    if (!h) {
        return;
    }
    bool evacuation = strcmp(s->name, "evacuate") == 0;
    bool bad = s->faults > 0 || (s->status != FS_OK && s->status != FS_PARTIAL && !s->injected);
    steps_open(h);
    fprintf(h->f, "<tr><td class=\"n\">%" PRIu64 "</td><td>", s->seed);
    html_escape(h->f, s->name, sizeof(s->name));
    fputc(' ', h->f);
    html_escape(h->f, s->dimm, sizeof(s->dimm));
    fprintf(h->f, "</td><td class=\"n\">%s</td>", text_time(s->ns).s);
    number_cell(h->f, evacuation, s->frames_moved);
    number_cell(h->f, evacuation, s->frames_left);
    number_cell(h->f, evacuation, s->frames_bound);
    number_cell(h->f, true, s->writes);
    number_cell(h->f, true, s->pages_checked);
    fprintf(h->f, "<td class=\"%s\">%s%s", bad ? "bad" : "ok", s->faults > 0 ? "faults: " : bad ? "failed" : "right",
            s->faults > 0 ? text_count(s->faults).s : "");
    if (s->injected) {
        fputs(" (a call failed on purpose)", h->f);
    }
    if (s->text[0] != '\0') {
        fputs("<pre>", h->f);
        html_escape(h->f, s->text, sizeof(s->text));
        fputs("</pre>", h->f);
    }
    fputs("</td><td>", h->f);
    maps(h->f, s->machine);
    fputs("</td></tr>\n", h->f);
}

static void domains_table(FILE *f, const struct hv_report *r)
{
    fputs("<table><tr><th>Domain</th><th>Kind</th><th>Mover</th><th class=\"n\">In the DIMM</th><th class=\"n\">Moved</th><th class=\"n\">Longest stop</th>"
          "<th class=\"n\">Hashed</th><th class=\"n\">Free</th><th class=\"n\">Differ</th></tr>\n", f);
    for (size_t i = 0; i < r->domain_count; i++) {
        const struct hv_domain_report *d = &r->domains[i];
        uint64_t ns = d->longest_blackout_ns > d->max_pause_ns ? d->longest_blackout_ns : d->max_pause_ns;
        fputs("<tr><td>", f);
        html_escape(f, d->plan.name, sizeof(d->plan.name));
        fputs("</td><td>", f);
        html_escape(f, d->plan.kind, sizeof(d->plan.kind));
        fprintf(f, "</td><td>%s</td>", hv_mover_name(d->plan.mover));
        number_cell(f, true, d->plan.pages_in_range);
        number_cell(f, true, d->moved);
        fprintf(f, "<td class=\"n\">%s</td>", ns ? text_time(ns).s : "");
        number_cell(f, true, d->pages_hashed);
        number_cell(f, true, d->moved_free);
        number_cell(f, true, d->mismatches);
        fputs("</tr>\n", f);
    }
    fputs("</table>\n", f);
}

static void stays_table(FILE *f, const struct hv_report *r)
{
    struct blocker_groups groups = { 0 };

    if (groups_make(r->blockers, r->blocker_count, &groups) != FS_OK) {
        fputs("<p>(out of memory: what stays is not shown)</p>\n", f);
        return;
    }
    if (groups.count > 0) {
        fputs("<table><tr><th>Stays</th><th>Reason</th><th class=\"n\">Frames</th><th>What would make it go</th></tr>\n", f);
    }
    for (size_t i = 0; i < groups.count; i++) {
        const struct blocker_group *g = &groups.groups[i];
        struct report_owner owner = report_owner_name(r->plan.domains, r->plan.domain_count, g->domid);
        fputs("<tr><td>", f);
        html_escape(f, owner.s, sizeof(owner.s));
        fprintf(f, "</td><td>%s</td><td class=\"n\">%s</td><td>", fs_reason_name((enum fs_reason)g->reason), text_count(g->frames).s);
        html_escape(f, reason_advice(g->reason), SIZE_MAX);
        fputs("</td></tr>\n", f);
    }
    fputs(groups.count > 0 ? "</table>\n" : "", f);
    groups_free(&groups);
}

void html_report(struct html *h, const char *dimm, const struct hv_report *r, fs_status_t status)
{
    if (!h) {
        return;
    }
    steps_close(h);
    fputs("<section><h2>Evacuation of ", h->f);
    html_escape(h->f, dimm, SIZE_MAX);
    fprintf(h->f, "</h2><p>%s: %s of %s frames offlined, %s moved, %s stay.</p>\n", fs_status_text(status), text_count(r->frames_offlined).s,
            text_count(r->frames_total).s, text_count(r->frames_moved).s, text_count(r->frames_blocked).s);
    domains_table(h->f, r);
    stays_table(h->f, r);
    fputs("</section>\n", h->f);
}

void html_end(struct html *h, const struct hv_drill_report *r, fs_status_t status, const char *error)
{
    if (!h) {
        return;
    }
    steps_close(h);
    fprintf(h->f, "<header><h1>Frameshift drill: <span class=\"%s\">%s</span></h1>\n", status == FS_OK ? "ok" : "bad",
            status == FS_OK ? "passed" : status == FS_INTERRUPTED ? "stopped" : "failed");
    if (status != FS_OK) {
        fputs("<pre>", h->f);
        html_escape(h->f, error, SIZE_MAX);
        fputs("</pre>\n", h->f);
    }
    fprintf(h->f, "<p>%s drills, %s evacuations, %s frames moved, %s pages written by guests meanwhile, %s pages compared, %s faults; %s. "
                  "Free frames at the end: %s of %s.</p>\n<p class=\"key\">Maps:", text_count(r->seeds).s, text_count(r->evacuations).s,
            text_count(r->frames_moved).s, text_count(r->writes).s, text_count(r->pages_checked).s, text_count(r->faults).s, text_time(r->ns).s,
            text_count(r->free_pages).s, text_count(r->expected_free_pages).s);
    for (size_t i = 0; i < FS_ARRAY_SIZE(colours); i++) {
        fprintf(h->f, "<span style=\"background:%s\"></span>%s", colours[i].colour, json_cell_name(colours[i].cell));
    }
    fputs("</p></header></body></html>\n", h->f);
    free(h);
}
