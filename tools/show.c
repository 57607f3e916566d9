/*
 * show.c - topology, status, fsck and recover as text.
 *
 * Owns: the pictures of a host that a person reads.
 * Invariants:
 *  I1 names pass text_clean() before they are printed;
 *  I2 what firmware or Xen did not tell is "-", never a guess;
 *  I3 the map has 64 cells and one character each, in plain ASCII: it must survive
 *     serial consoles and mails.
 * Cost: O(what is shown).
 */
#include "show.h"

#include <inttypes.h>
#include <string.h>
#include "report.h"
#include "text.h"

/* ---- topology ---- */

static uint64_t set_pages(const struct mfn_range_set *set)
{
    uint64_t pages = 0;

    for (size_t i = 0; i < set->count; i++) {
        pages += mfn_range_pages(set->ranges[i]);
    }
    return pages;
}

static void print_set_notes(FILE *f, const struct hv_topology *t)
{
    for (size_t i = 0; i < t->count; i++) {
        const struct hv_dimm *d = &t->dimms[i];
        bool first = true;
        size_t members = 0;
        for (size_t k = 0; k < t->count; k++) {
            members += t->dimms[k].set == d->set;
            first = first && (k >= i || t->dimms[k].set != d->set);
        }
        if (!first || members < 2) {
            continue;
        }
        fprintf(f, "\nset:%" PRIu32 " is interleaved: frames alternate between", d->set);
        for (size_t k = i, said = 0; k < t->count; k++) {
            char name[80];
            if (t->dimms[k].set == d->set) {
                text_clean(name, sizeof(name), t->dimms[k].name, sizeof(t->dimms[k].name), 0);
                said++;
                fprintf(f, "%s %s", said == 1 ? "" : said == members ? " and" : ",", name);
            }
        }
        fprintf(f, ". Only the set can be emptied: `frameshift evacuate set:%" PRIu32 "`.\n", d->set);
    }
}

static void dimm_row(struct table *t, const struct hv_dimm *d)
{
    char name[40], bank[40], ranges[TABLE_CELL_BYTES] = "";
    size_t at = 0;

    text_clean(name, sizeof(name), d->name, sizeof(d->name), 32);
    text_clean(bank, sizeof(bank), d->bank, sizeof(d->bank), 24);
    for (size_t i = 0; i < d->ranges.count && i < 2 && at < sizeof(ranges); i++) {
        at += (size_t)snprintf(ranges + at, sizeof(ranges) - at, "%s0x%" PRIx64 "-0x%" PRIx64, i == 0 ? "" : " ",
                               d->ranges.ranges[i].start.n, d->ranges.ranges[i].end.n);
    }
    if (d->ranges.count > 2 && at < sizeof(ranges)) {
        (void)snprintf(ranges + at, sizeof(ranges) - at, " and %zu more", d->ranges.count - 2);
    }
    table_cell(t, "%s", name);
    table_cell(t, "%s", bank[0] ? bank : "-");
    table_cell(t, "%s", d->size_bytes > 0 ? text_size_bytes(d->size_bytes).s : "-");
    if (d->node == UINT32_MAX) {
        table_cell(t, "-");
    } else {
        table_cell(t, "%" PRIu32, d->node);
    }
    if (d->interleave_depth > 0 && d->interleave_position == 0) {
        table_cell(t, "set:%" PRIu32 " (of %" PRIu32 ")", d->set, d->interleave_depth);
    } else if (d->interleave_depth > 0) {
        table_cell(t, "set:%" PRIu32 " (%" PRIu32 " of %" PRIu32 ")", d->set, d->interleave_position, d->interleave_depth);
    } else {
        table_cell(t, "-");
    }
    table_cell(t, "%s", text_count(set_pages(&d->ranges)).s);
    table_cell(t, "%s", ranges[0] ? ranges : "none");
}

void show_topology(FILE *f, const struct hv_topology *t)
{
    static const char *const sources[] = {
        [HV_TOPO_SMBIOS] = "the firmware's SMBIOS tables", [HV_TOPO_NUMA] = "Xen's NUMA nodes", [HV_TOPO_MAP] = "the map file",
    };
    static const char *const headings[] = { "DIMM", "Bank", ">Size", ">Node", "Interleave", ">Frames", "Ranges (mfn)" };
    struct table table;

    fprintf(f, "DIMMs by %s:\n", (unsigned)t->source < FS_ARRAY_SIZE(sources) ? sources[t->source] : "an unknown source");
    if (t->count == 0) {
        fputs("  none\n", f);
    }
    table_begin(&table, headings, FS_ARRAY_SIZE(headings));
    for (size_t i = 0; i < t->count; i++) {
        dimm_row(&table, &t->dimms[i]);
    }
    table_print(&table, f, "  ");
    print_set_notes(f, t);
    if (t->note[0] != '\0') {
        char note[4 * sizeof(t->note)];
        text_clean_lines(note, sizeof(note), t->note, sizeof(t->note));
        fprintf(f, "\nNote: %s\n", note);
    }
}

/* ---- status ---- */

static char cell_character(unsigned cell)
{
    static const char characters[] = {
        [HV_CELL_HOLE] = ' ', [HV_CELL_FREE] = '.', [HV_CELL_GUEST] = '#',
        [HV_CELL_DOM0] = '0', [HV_CELL_OFFLINED] = 'x', [HV_CELL_MIXED] = '+',
    };

    return cell < sizeof(characters) ? characters[cell] : '?';
}

static void print_map(FILE *f, const struct hv_dimm_status *d, size_t name_columns)
{
    char name[40];
    const size_t cells = FS_ARRAY_SIZE(d->map);

    text_clean(name, sizeof(name), d->name, sizeof(d->name), 32);
    fprintf(f, "  %s%*s  [", name, (int)(name_columns - text_columns(name)), "");
    for (size_t i = 0; i < cells; i++) {
        fputc(cell_character(d->map[i]), f);
    }
    fprintf(f, "]  %s a cell\n", text_size_bytes((d->total << FS_PAGE_SHIFT) / cells).s);
}

static void status_row(struct table *t, const struct hv_dimm_status *d)
{
    const uint64_t values[] = { d->free_or_xen, d->guests, d->dom0, d->offlined, d->pending, d->broken };
    char name[40];

    text_clean(name, sizeof(name), d->name, sizeof(d->name), 32);
    table_cell(t, "%s", name);
    table_cell(t, "%s", text_size(d->total).s);
    for (size_t i = 0; i < FS_ARRAY_SIZE(values); i++) {
        table_cell(t, "%s", values[i] > 0 ? text_size(values[i]).s : "-");
    }
    table_cell(t, "%s", d->free_pages == UINT64_MAX ? "-" : text_size(d->free_pages).s);
}

void show_status(FILE *f, const struct hv_status_report *s, const char *machine)
{
    static const char *const headings[] = { "DIMM", ">Size", ">Free or Xen", ">Guests", ">dom0", ">Offlined", ">Pending", ">Broken",
                                            ">Free" };
    char version[sizeof(s->version) * 4];
    struct table table;
    size_t name_columns = 0;

    text_clean(version, sizeof(version), s->version, sizeof(s->version), 0);
    fprintf(f, "%s %s, %" PRIu32 " CPU%s, %s of memory, %s free\n\n", strcmp(machine, "xen") == 0 ? "Xen" : "Embedded machine",
            version, s->pcpus, s->pcpus == 1 ? "" : "s", text_size(s->host_total_pages).s, text_size(s->host_free_pages).s);
    table_begin(&table, headings, FS_ARRAY_SIZE(headings));
    for (size_t i = 0; i < s->count; i++) {
        char name[40];
        text_clean(name, sizeof(name), s->dimms[i].name, sizeof(s->dimms[i].name), 32);
        name_columns = text_columns(name) > name_columns ? text_columns(name) : name_columns;
        status_row(&table, &s->dimms[i]);
    }
    table_print(&table, f, "  ");
    fputc('\n', f);
    for (size_t i = 0; i < s->count; i++) {
        print_map(f, &s->dimms[i], name_columns);
    }
    fprintf(f, "  %c free or Xen   %c guests   %c dom0   %c offlined   %c mixed   (blank) no RAM\n", cell_character(HV_CELL_FREE),
            cell_character(HV_CELL_GUEST), cell_character(HV_CELL_DOM0), cell_character(HV_CELL_OFFLINED),
            cell_character(HV_CELL_MIXED));
    if (s->recovery_due) {
        fputs("\nAn evacuation was cut off here. Run `frameshift recover` before anything else.\n", f);
    }
}

/* ---- fsck, recover ---- */

void show_fsck(FILE *f, const struct hv_fsck_report *r, size_t at_most)
{
    size_t shown = at_most > 0 && r->fault_count > at_most ? at_most : r->fault_count;

    for (size_t i = 0; i < shown; i++) {
        const struct hv_fault *fault = &r->faults[i];
        char text[4 * sizeof(fault->text)];
        text_clean(text, sizeof(text), fault->text, sizeof(fault->text), 0);
        if (fault->domid == FS_DOMID_NONE) {
            fputs("no owner", f);
        } else {
            fprintf(f, "domain %u", fault->domid);
        }
        if (!mfn_is_none(fault->mfn)) {
            fprintf(f, ", mfn 0x%" PRIx64, fault->mfn.n);
        }
        if (fault->gfn != FS_FRAME_NONE) {
            fprintf(f, ", gfn 0x%" PRIx64, fault->gfn);
        }
        fprintf(f, ": %s\n", text);
    }
    if (shown < r->fault_count) {
        fprintf(f, "... and %s more (--json lists all)\n", text_count(r->fault_count - shown).s);
    }
    fprintf(f, "%s frames, %s page tables, %s entries checked: ", text_count(r->frames_checked).s,
            text_count(r->tables_checked).s, text_count(r->entries_checked).s);
    if (r->fault_count == 0) {
        fputs("no fault\n", f);
    } else {
        fprintf(f, "%s FAULT%s\n", text_count(r->fault_count).s, r->fault_count == 1 ? "" : "S");
    }
    if (r->frames_pending > 0) {
        fprintf(f, "%s frames are marked and go offline when let go (what an evacuation leaves is so).\n",
                text_count(r->frames_pending).s);
    }
    if (r->fault_count > 0 && !r->paused) {
        fputs("The domains ran meanwhile, so a fault may be a change seen half-way: `frameshift fsck --pause` is exact.\n", f);
    }
}

void show_recover(FILE *f, const struct hv_recover_report *r, fs_status_t status)
{
    if (status == FS_OK && !r->needed) {
        fputs("Nothing to recover.\n", f);
        return;
    }
    fprintf(f, "Recovery: %s\n", fs_status_text(status));
    if (r->text[0] != '\0') {
        char text[4 * sizeof(r->text)];
        text_clean_lines(text, sizeof(text), r->text, sizeof(r->text));
        fprintf(f, "  %s\n", text);
        return;
    }
    fprintf(f, "  domains: %" PRIu32 " finished, %" PRIu32 " rolled back, %" PRIu32 " gone meanwhile\n", r->domains_finished,
            r->domains_rolled_back, r->domains_gone);
    fprintf(f, "  frames: %s released, %s brought back\n", text_count(r->frames_released).s, text_count(r->frames_onlined).s);
}

static void show_stays(FILE *f, const struct hv_shrink_report *r)
{
    static const char *const words[HV_STAYS] = {
#define X(name, text) [HV_STAYS_##name] = text,
        HV_STAYS_LIST(X)
#undef X
    };
    const char *before = ": ";

    if (r->residual_blocks == 0) {
        return;
    }
    fprintf(f, "  %s blocks could not go as a whole", text_count(r->residual_blocks).s);
    for (unsigned i = 0; i < HV_STAYS; i++) {
        if (r->stays[i] > 0) {
            fprintf(f, "%s%s frames %s", before, text_count(r->stays[i]).s, words[i]);
            before = ", ";
        }
    }
    fputs(" stay in them (the hypervisor side can move those)\n", f);
}

void show_shrink(FILE *f, const struct hv_shrink_report *r, bool quiet)
{
    char name[4 * HV_NAME_BYTES];
    uint64_t moved = r->grow ? r->pages_after - r->pages_before : r->pages_before - r->pages_after;
    bool sane = r->grow ? r->pages_after >= r->pages_before : r->pages_before >= r->pages_after;

    text_clean(name, sizeof(name), r->name, sizeof(r->name), 40);
    if (r->dry_run) {
        fprintf(f, "%s has %s and would %s %s: it would have %s\n", name, text_size(r->pages_before).s, r->grow ? "take" : "give",
                text_size(r->plan_pages).s, text_size(r->grow ? r->pages_before + r->plan_pages : r->pages_before - r->plan_pages).s);
        return;
    }
    if (r->plan_pages == 0) {
        fprintf(f, "%s has %s: less than 2 MiB from that, nothing to do\n", name, text_size(r->pages_before).s);
        return;
    }
    fprintf(f, "%s: %s -> %s (asked for %s)\n", name, text_size(r->pages_before).s, text_size(r->pages_after).s, text_size(r->asked_pages).s);
    if (quiet || !sane) {
        return;
    }
    fprintf(f, "  %s frames %s in %s", text_count(moved).s, r->grow ? "came back" : "went to the machine", text_time(r->ns).s);
    if (moved > 0 && r->ns > 0) {
        fprintf(f, ", %s/s", text_size((uint64_t)((double)moved * 1e9 / (double)r->ns)).s);
    }
    fprintf(f, "; its limit is %s now, it was %s\n", text_size(r->limit_after).s, text_size(r->limit_before).s);
    fprintf(f, "  The machine: %s free before, %s after\n", text_size(r->free_before).s, text_size(r->free_after).s);
    if (r->detailed) {
        fprintf(f, "  %s says: %s whole 2 MiB blocks", name, text_count(r->blocks).s);
        if (!r->grow) {
            fprintf(f, " (%s of them one extent of machine frames)", text_count(r->machine_extents).s);
        }
        fprintf(f, ", %s single frames, %s sections of 128 MiB; %s pages moved inside it; it stood still %s times\n", text_count(r->single_pages).s,
                text_count(r->sections).s, text_count(r->migrated_pages).s, text_count(r->stops).s);
        if (r->memmap_pages > 0) {
            fprintf(f, "  %s pages of struct pages %s\n", text_count(r->memmap_pages).s,
                    r->grow ? "taken inside it for the sections that came" : "became free inside it with those sections");
        }
        show_stays(f, r);
    }
}
