/*
 * pv_journal.c - what recovery needs of a PV round, as bytes.
 *
 * Owns: the payloads of PV_STATE (vCPUs, pins) and PV_MOVES (moves, tables, where the
 * p2m list lives).
 * Invariants:
 *   I1  a payload is a header, then fixed-size records; counts in the header must
 *       account for every byte, or the record is FS_BAD_INPUT.
 *   I2  what is parsed is sorted and bounded as what was written: levels 1 to 4,
 *       moves ascending by pfn, old frames inside the ranges, new ones outside.
 * Why PV_MOVES is streamed: it is written while the guest stands still, and of a guest whose frames are scattered it would be the
 * largest thing in memory.
 * Why native byte order and structs: a journal is read on the host and by the build
 * that wrote it, or refused (JOURNAL_VERSION).
 */
#include "pv_job.h"

#include <stdlib.h>
#include <string.h>

struct state_header { uint32_t vcpus, reserved; uint64_t opaque_bytes, pins; };
struct state_vcpu {
    uint32_t vcpu, gdt_entries, ldt_entries;
    uint8_t initialised, online, reserved[2];
    uint64_t cr3, user_cr3, ldt_base, opaque_bytes;
    uint64_t gdt[HV_GDT_FRAMES];
};
struct moves_header {
    uint64_t moves, runs, tables, p2m_pages, mids, pfn_count;
    uint64_t top, root;
    uint8_t linear, reserved[7];
};
/* Consecutive pfns on consecutive old frames.  New frames follow from PV_RESERVED (the i-th move went to the i-th of
 * them), types from PV_STATE: a guest in large pieces is a handful of runs, and the record is written in the blackout. */
struct moves_run { uint64_t pfn; uint32_t old, count; };

struct cursor { const uint8_t *at; size_t left; };

static bool take(struct cursor *c, void *out, size_t bytes)
{
    if (c->left < bytes) {
        return false;
    }
    if (bytes > 0) {
        memcpy(out, c->at, bytes);
    }
    c->at += bytes;
    c->left -= bytes;
    return true;
}

/* count records of size bytes each, into a fresh array. */
static bool take_array(struct cursor *c, void **out, uint64_t count, size_t size)
{
    *out = NULL;
    if (count > c->left / size) {
        return false;
    }
    *out = calloc((size_t)count + 1, size);
    return *out != NULL && take(c, *out, (size_t)count * size);
}

/* The same where they lie: a record begins at a multiple of 8. */
static const void *borrow(struct cursor *c, uint64_t count, size_t size)
{
    const void *at = c->at;
    if (count > c->left / size || (uintptr_t)at % _Alignof(uint64_t) != 0) {
        return NULL;
    }
    c->at += count * size;
    c->left -= count * size;
    return at;
}

static void put(uint8_t **at, const void *data, size_t bytes)
{
    if (bytes > 0) {
        memcpy(*at, data, bytes);
    }
    *at += bytes;
}

/* ---- PV_STATE ----------------------------------------------------------------- */

fs_status_t pv_journal_state(struct pv_job *job, struct fs_error *err)
{
    struct state_header h = { .vcpus = (uint32_t)job->vcpu_count };
    for (size_t v = 0; v < job->vcpu_count; v++) {
        h.opaque_bytes += job->vcpus[v].opaque_bytes;
    }
    h.pins = job->tables.count;
    size_t bytes = sizeof(h) + job->vcpu_count * sizeof(struct state_vcpu) + (size_t)h.opaque_bytes +
                   job->tables.count * sizeof(struct pv_table);
    uint8_t *buffer = calloc(1, bytes), *at = buffer;
    if (buffer == NULL) {
        return FS_NO_MEMORY;
    }
    put(&at, &h, sizeof(h));
    for (size_t v = 0; v < job->vcpu_count; v++) {
        const struct hv_pv_vcpu *from = &job->vcpus[v];
        struct state_vcpu to = { .vcpu = from->vcpu, .gdt_entries = from->gdt_entries, .ldt_entries = from->ldt_entries,
                                 .initialised = from->initialised, .online = from->online, .cr3 = from->cr3.n,
                                 .user_cr3 = from->user_cr3.n, .ldt_base = from->ldt_base, .opaque_bytes = from->opaque_bytes };
        for (int i = 0; i < HV_GDT_FRAMES; i++) {
            to.gdt[i] = from->gdt[i].n;
        }
        put(&at, &to, sizeof(to));
        put(&at, from->opaque, from->opaque_bytes);
    }
    put(&at, job->tables.list, job->tables.count * sizeof(struct pv_table));
    fs_status_t s = journal_append(job->ctx->journal, JR_PV_STATE, buffer, bytes, err);
    free(buffer);
    return s;
}

static fs_status_t parse_vcpu(struct cursor *c, struct hv_pv_vcpu *out)
{
    struct state_vcpu v;
    if (!take(c, &v, sizeof(v)) || v.opaque_bytes > c->left || v.gdt_entries > HV_GDT_FRAMES * 512u) {
        return FS_BAD_INPUT;
    }
    *out = (struct hv_pv_vcpu){ .vcpu = v.vcpu, .initialised = v.initialised != 0, .online = v.online != 0,
                                .cr3 = mfn_make(v.cr3), .user_cr3 = mfn_make(v.user_cr3), .gdt_entries = v.gdt_entries,
                                .ldt_base = v.ldt_base, .ldt_entries = v.ldt_entries, .opaque_bytes = (size_t)v.opaque_bytes };
    for (int i = 0; i < HV_GDT_FRAMES; i++) {
        out->gdt[i] = mfn_make(v.gdt[i]);
    }
    out->opaque = malloc(out->opaque_bytes + 1);
    if (out->opaque == NULL) {
        return FS_NO_MEMORY;
    }
    return take(c, out->opaque, out->opaque_bytes) ? FS_OK : FS_BAD_INPUT;
}

static bool tables_valid(const struct pv_tables *t)
{
    for (size_t i = 0; i < t->count; i++) {
        if (t->list[i].level < 1 || t->list[i].level > 4 || (i > 0 && t->list[i - 1].mfn.n >= t->list[i].mfn.n)) {
            return false;
        }
    }
    return true;
}

fs_status_t pv_parse_state(struct pv_job *job, const void *data, size_t bytes, struct fs_error *err)
{
    struct cursor c = { data, bytes };
    struct state_header h;
    fs_status_t s = FS_BAD_INPUT;
    if (!take(&c, &h, sizeof(h)) || h.vcpus > 8192) {
        goto bad;
    }
    job->vcpus = calloc(h.vcpus + 1u, sizeof(*job->vcpus));
    if (job->vcpus == NULL) {
        return FS_NO_MEMORY;
    }
    for (uint32_t v = 0; v < h.vcpus; v++) {
        s = parse_vcpu(&c, &job->vcpus[v]);
        job->vcpu_count = v + 1;
        if (s != FS_OK) {
            goto bad;
        }
    }
    void *list;
    s = FS_BAD_INPUT;
    if (!take_array(&c, &list, h.pins, sizeof(struct pv_table)) || c.left != 0) {       /* I1 */
        free(list);
        goto bad;
    }
    job->tables.list = list;
    job->tables.count = (size_t)h.pins;
    if (tables_valid(&job->tables)) {                                                    /* I2 */
        return FS_OK;
    }
bad:
    return fs_fail(err, s, "domain %u: the journal's record of its vCPUs and tables is damaged", job->dom.domid);
}

/* ---- PV_MOVES ----------------------------------------------------------------- */

/* The record as a stream: a guest whose frames are all scattered is as many runs as frames, and they are in memory already. */
struct moves_source {
    const struct pv_job *job;
    struct moves_header header;
    struct pv_cursor at;
    struct pv_move next;                        /* the first of the next run, where any */
    bool any;
    uint64_t runs_left, lists_done;
};

static void source_rewind(struct moves_source *s)
{
    s->at = pv_cursor_at(s->job, 0);
    s->any = pv_cursor_next(s->job, &s->at, &s->next);
    s->runs_left = s->header.runs;
    s->lists_done = 0;
}

/* False at the end. */
static bool next_run(struct moves_source *s, struct moves_run *out)
{
    if (!s->any) {
        return false;
    }
    *out = (struct moves_run){ .pfn = s->next.pfn, .old = (uint32_t)s->next.old.n, .count = 1 };
    while ((s->any = pv_cursor_next(s->job, &s->at, &s->next)) && out->count < UINT32_MAX &&
           s->next.pfn == out->pfn + out->count && s->next.old.n == (uint64_t)out->old + out->count) {
        out->count++;
    }
    return true;
}

static size_t fill_moves(void *arg, uint64_t offset, void *buffer, size_t room)
{
    struct moves_source *s = arg;
    const struct pv_p2m *p = &s->job->p2m;
    uint8_t *at = buffer, *end = at + room;
    if (offset == 0) {
        source_rewind(s);
        put(&at, &s->header, sizeof(s->header));
    }
    for (struct moves_run run; s->runs_left > 0 && (size_t)(end - at) >= sizeof(run) && next_run(s, &run); s->runs_left--) {
        put(&at, &run, sizeof(run));
    }
    for (; s->runs_left == 0 && s->lists_done < p->page_count + p->mid_count && (size_t)(end - at) >= sizeof(mfn_t); s->lists_done++) {
        put(&at, s->lists_done < p->page_count ? &p->pages[s->lists_done] : &p->mids[s->lists_done - p->page_count], sizeof(mfn_t));
    }
    return (size_t)(at - (uint8_t *)buffer);
}

fs_status_t pv_journal_moves(struct pv_job *job, struct fs_error *err)
{
    struct moves_source source = { .job = job, .header = {
        .moves = job->move_count, .tables = job->tables.count, .p2m_pages = job->p2m.page_count, .mids = job->p2m.mid_count,
        .pfn_count = job->p2m.pfn_count, .top = job->p2m.top.n, .root = job->p2m.root.n, .linear = job->p2m.linear,
    } };
    struct moves_run run;
    source_rewind(&source);
    while (next_run(&source, &run)) {
        source.header.runs++;
    }
    size_t bytes = sizeof(source.header) + (size_t)source.header.runs * sizeof(run) + (job->p2m.page_count + job->p2m.mid_count) * sizeof(mfn_t);
    return journal_append_from(job->ctx->journal, JR_PV_MOVES, fill_moves, &source, bytes, err);
}

/* Moves again from runs (I2): pfns ascend, old frames lie in the ranges and are named once, new ones outside, ascending. */
static bool expand_runs(struct pv_job *job, const struct moves_run *runs, uint64_t count)
{
    uint64_t next_pfn = 0;
    size_t n = 0;
    for (uint64_t r = 0; r < count; r++) {
        if (runs[r].count > job->move_count - n || runs[r].pfn > job->p2m.pfn_count || runs[r].pfn < next_pfn ||
            runs[r].count > job->p2m.pfn_count - runs[r].pfn) {
            return false;
        }
        next_pfn = runs[r].pfn + runs[r].count;
        for (uint64_t i = 0; i < runs[r].count; i++, n++) {
            mfn_t old = mfn_make(runs[r].old + i), to = mfn_make(job->reserved[n]);
            if (!mfn_set_contains(job->ctx->ranges, old) || mfn_set_contains(job->ctx->ranges, to) || xlat_moves(&job->x, old) ||
                job->reserved[n] == XLAT_NONE || (n > 0 && job->reserved[n - 1] >= job->reserved[n])) {
                return false;
            }
            job->p2m.entries[runs[r].pfn + i] = (uint32_t)old.n;
            bitmap_set(job->moves, runs[r].pfn + i);
            xlat_set(&job->x, old, to);
        }
    }
    return n == job->move_count;
}

/* A p2m of which the moves' entries are known. */
static fs_status_t parse_p2m(struct pv_job *job)
{
    job->p2m.entries = malloc((job->p2m.page_count * P2M_ENTRIES_PER_PAGE + 1) * sizeof(*job->p2m.entries));
    if (job->p2m.entries == NULL) {
        return FS_NO_MEMORY;
    }
    memset(job->p2m.entries, 0xff, job->p2m.page_count * P2M_ENTRIES_PER_PAGE * sizeof(*job->p2m.entries));
    return pv_bitmaps(job);
}

fs_status_t pv_parse_moves(struct pv_job *job, const void *data, size_t bytes, struct fs_error *err)
{
    struct cursor c = { data, bytes };
    struct moves_header h;
    const struct moves_run *runs = NULL;        /* as they lie in the record: where all frames are scattered there are as many as moves */
    void *pages = NULL, *mids = NULL;
    if (!take(&c, &h, sizeof(h)) || h.tables != job->tables.count || h.p2m_pages > h.pfn_count || h.pfn_count > UINT64_MAX / 2 ||
        h.moves > job->reserved_count ||
        h.p2m_pages != (h.pfn_count + P2M_ENTRIES_PER_PAGE - 1) / P2M_ENTRIES_PER_PAGE ||
        (runs = borrow(&c, h.runs, sizeof(*runs))) == NULL || !take_array(&c, &pages, h.p2m_pages, sizeof(mfn_t)) ||
        !take_array(&c, &mids, h.mids, sizeof(mfn_t)) || c.left != 0) {                  /* I1 */
        free(pages);
        free(mids);
        return fs_fail(err, FS_BAD_INPUT, "domain %u: the journal's record of its moves is damaged", job->dom.domid);
    }
    job->p2m = (struct pv_p2m){ .pfn_count = h.pfn_count, .page_count = (size_t)h.p2m_pages, .pages = pages, .mids = mids,
                                .mid_count = (size_t)h.mids, .top = mfn_make(h.top), .root = mfn_make(h.root),
                                .linear = h.linear != 0 };
    job->move_count = job->reserved_used = (size_t)h.moves;
    fs_status_t s = parse_p2m(job);
    if (s == FS_OK) {
        s = xlat_init(&job->x, job->ctx->ranges);
    }
    if (s == FS_OK && !expand_runs(job, runs, h.runs)) {
        s = fs_fail(err, FS_BAD_INPUT, "domain %u: the journal's moves do not fit its ranges", job->dom.domid);
    }
    return s;
}
