/*
 * pv_switch.c - a stopped PV guest: every reference to a frame replaced at once.
 *
 * Owns: the steps between "the guest is stopped" and "the guest may run": capture,
 * drop, copy, apply, reload, and undo from any point between.
 * Invariants:
 *   I1  the old frames of a round are never written between capture and release:
 *       undo needs nothing but them, the journaled moves, and the in-place tables
 *       turned back.
 *   I2  every step can be repeated: unpinning what is not pinned and loading a vCPU
 *       that was reset are the only order-sensitive parts, and pv_drop() always
 *       comes before either direction of apply.
 *   I3  a table is mapped writable only while no type reference to it exists.
 *   I4  the set that is pinned afterwards is the set that was pinned before, at the
 *       same levels.
 * Lock order: none; pv_parallel() runs up to PV_THREADS threads on the backend's [mt] members.
 * Why all references at once: an entry-wise mmu_update of a live table costs one
 * hypercall operation an entry and needs every old frame alive; dropping all types
 * first makes tables plain memory, and the pin afterwards is one validation pass in
 * Xen, which also proves every entry.
 * Cost: O(frames moved) copies and M2P updates + O(all tables of the guest) once.
 */
#include "pv_job.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frameshift/assert.h"

void pv_phase(struct pv_job *job, const char *name, uint64_t *since, uint64_t count)
{
    uint64_t now = pv_now(job);
    if (job->result != NULL) {
        mover_phase(job->result->report, name, now - *since, count);
    }
    *since = now;
}

/* ---- capture -------------------------------------------------------------------- */

static fs_status_t capture_vcpus(struct pv_job *job, struct fs_error *err)
{
    job->vcpus = calloc(job->dom.vcpus + 1u, sizeof(*job->vcpus));
    if (job->vcpus == NULL) {
        return FS_NO_MEMORY;
    }
    for (uint32_t v = 0; v < job->dom.vcpus; v++) {
        fs_status_t s = job->be->ops->vcpu_save(job->be, job->dom.domid, v, &job->vcpus[v], err);
        if (s != FS_OK) {
            return s;
        }
        job->vcpu_count = v + 1;
    }
    return FS_OK;
}

fs_status_t pv_capture_tables(struct pv_job *job, struct fs_error *err)
{
    pv_tables_free(&job->tables);
    fs_status_t s = pv_bitmaps(job);
    return s == FS_OK ? pv_tables_find(job->be, job->dom.domid, &job->p2m, job->ctx->host.max_mfn, &job->tables, job->owned, err) : s;
}

fs_status_t pv_capture(struct pv_job *job, struct fs_error *err)
{
    uint64_t since = pv_now(job);
    fs_status_t s = capture_vcpus(job, err);
    if (s != FS_OK) {
        return s;
    }
    pv_phase(job, "vcpu-save", &since, job->vcpu_count);
    s = pv_p2m_read_again(job->be, &job->dom, job->ctx->host.max_mfn * 2 + (1u << 20), &job->p2m, err);
    if (s != FS_OK) {
        return s;
    }
    pv_phase(job, "p2m-read", &since, job->p2m.pfn_count);
    s = pv_capture_tables(job, err);
    if (s == FS_OK) {
        pv_phase(job, "types", &since, job->tables.count);
    }
    return s;
}

/* ---- drop ------------------------------------------------------------------------- */

/* Every table that is pinned now, at its old or its new frame. */
static fs_status_t find_pinned(struct pv_job *job, mfn_t **out, size_t *count, struct fs_error *err)
{
    size_t n = 0, all = job->tables.count * 2;
    mfn_t *list = malloc((all + 1) * sizeof(*list));
    uint8_t *types = malloc(all + 1), *flags = malloc(all + 1);
    bool *owned = malloc((all + 1) * sizeof(*owned));
    fs_status_t s = FS_NO_MEMORY;
    if (list == NULL || types == NULL || flags == NULL || owned == NULL) {
        goto out;
    }
    for (size_t i = 0; i < job->tables.count; i++) {
        mfn_t old = job->tables.list[i].mfn;
        list[n++] = old;
        if (job->x.to != NULL && xlat_moves(&job->x, old)) {
            list[n++] = xlat_get(&job->x, old);
        }
    }
    s = job->be->ops->types(job->be, job->dom.domid, list, n, types, flags, owned, err);
    if (s != FS_OK) {
        goto out;
    }
    size_t pinned = 0;
    for (size_t i = 0; i < n; i++) {
        if (owned[i] && (flags[i] & HV_FRAME_PINNED)) {
            list[pinned++] = list[i];
        }
    }
    *out = list;
    *count = pinned;
    list = NULL;
out:
    free(list);
    free(types);
    free(flags);
    free(owned);
    return s;
}

fs_status_t pv_drop(struct pv_job *job, struct fs_error *err)
{
    uint64_t since = pv_now(job);
    mfn_t *pinned = NULL;
    size_t count = 0;
    fs_status_t s;
    if (!job->dropped && job->x.moved == 0) {       /* first time: the capture knows */
        pinned = malloc((job->tables.count + 1) * sizeof(*pinned));
        if (pinned == NULL) {
            return FS_NO_MEMORY;
        }
        for (size_t i = 0; i < job->tables.count; i++) {
            if (job->tables.list[i].pinned) {
                pinned[count++] = job->tables.list[i].mfn;
            }
        }
    } else {
        s = find_pinned(job, &pinned, &count, err);
        if (s != FS_OK) {
            return s;
        }
    }
    job->dropped = true;
    s = job->be->ops->unpin(job->be, job->dom.domid, pinned, count, err);    /* two threads at it took longer than one */
    for (size_t v = 0; v < job->vcpu_count && s == FS_OK; v++) {
        if (job->vcpus[v].initialised) {
            s = job->be->ops->vcpu_reset(job->be, job->dom.domid, job->vcpus[v].vcpu, err);
        }
    }
    free(pinned);
    if (s == FS_OK) {
        pv_phase(job, "drop", &since, count);
        mover_event(job->ctx, EV_DROP, job->dom.domid, count, job->vcpu_count, NULL);
    }
    return s;
}

/* ---- parallel parts ------------------------------------------------------------------ */

struct part {
    pv_part_fn fn;
    void *arg;
    size_t first, end;
    unsigned part;
    fs_status_t status;
    struct fs_error err;
};

static void *part_main(void *arg)
{
    struct part *p = arg;
    p->status = p->fn(p->arg, p->part, p->first, p->end, &p->err);
    return NULL;
}

unsigned pv_parts(const struct mover_ctx *ctx)
{
    long cpus = ctx->one_thread ? 1 : sysconf(_SC_NPROCESSORS_ONLN);
    return cpus < 1 ? 1 : cpus > PV_THREADS ? PV_THREADS : (unsigned)cpus;
}

fs_status_t pv_parallel(const struct mover_ctx *ctx, size_t count, pv_part_fn fn, void *arg, struct fs_error *err)
{
    size_t threads = pv_parts(ctx);
    struct part parts[PV_THREADS];
    pthread_t ids[PV_THREADS];
    bool started[PV_THREADS] = { false };
    memset(parts, 0, sizeof(parts));
    for (size_t t = 0; t < threads; t++) {
        parts[t].fn = fn;
        parts[t].arg = arg;
        parts[t].part = (unsigned)t;
        parts[t].first = count * t / threads;
        parts[t].end = count * (t + 1) / threads;
        started[t] = t > 0 && pthread_create(&ids[t], NULL, part_main, &parts[t]) == 0;
    }
    fs_status_t s = FS_OK;
    for (size_t t = 0; t < threads; t++) {
        if (started[t]) {
            pthread_join(ids[t], NULL);
        } else {
            part_main(&parts[t]);
        }
        if (parts[t].status != FS_OK && s == FS_OK) {
            s = fs_fail(err, parts[t].status, "%s", parts[t].err.text);
        }
    }
    return s;
}

/* ---- copy -------------------------------------------------------------------------- */

#define COPY_BATCH (PV_SCRATCH_BYTES / sizeof(struct hv_copy))

static fs_status_t copy_part(void *arg, unsigned part, size_t first, size_t end, struct fs_error *err)
{
    struct pv_job *job = arg;
    struct hv_copy *list = pv_scratch(job, part);
    struct pv_cursor c = pv_cursor_at(job, first);
    fs_status_t s = FS_OK;
    while (first < end && s == FS_OK) {
        size_t n = 0;
        struct pv_move m;
        for (; n < COPY_BATCH && first < end && pv_cursor_next(job, &c, &m); first++) {
            list[n++] = (struct hv_copy){ .from = m.old, .to = m.new };
        }
        s = job->be->ops->copy(job->be, job->dom.domid, list, n, err);
    }
    return s;
}

fs_status_t pv_copy(struct pv_job *job, struct fs_error *err)
{
    uint64_t since = pv_now(job);
    fs_status_t s = pv_parallel(job->ctx, job->move_count, copy_part, job, err);
    if (s == FS_OK) {
        pv_phase(job, "copy", &since, job->move_count);
        mover_event(job->ctx, EV_COPY, job->dom.domid, job->move_count, job->move_count, NULL);
    }
    return s;
}

/* ---- apply -------------------------------------------------------------------------- */

#define M2P_BATCH (PV_SCRATCH_BYTES / sizeof(struct hv_m2p_set))

struct m2p_work { struct pv_job *job; bool forward; };

static fs_status_t m2p_part(void *arg, unsigned part, size_t first, size_t end, struct fs_error *err)
{
    const struct m2p_work *w = arg;
    struct pv_job *job = w->job;
    struct hv_m2p_set *list = pv_scratch(job, part);
    struct pv_cursor c = pv_cursor_at(job, first);
    fs_status_t s = FS_OK;
    while (first < end && s == FS_OK) {
        size_t n = 0;
        struct pv_move m;
        for (; n < M2P_BATCH && first < end && pv_cursor_next(job, &c, &m); first++) {
            list[n++] = (struct hv_m2p_set){ .mfn = w->forward ? m.new : m.old, .pfn = pfn_make(m.pfn) };
        }
        s = job->be->ops->m2p_set(job->be, job->dom.domid, list, n, err);
    }
    return s;
}

fs_status_t pv_apply(struct pv_job *job, bool forward, struct fs_error *err)
{
    uint64_t since = pv_now(job), changed = 0;
    job->applied = true;
    fs_status_t s = pv_tables_rewrite(job->be, job->dom.domid, &job->tables, &job->x, forward, &changed, err);
    if (s != FS_OK) {
        return s;
    }
    pv_phase(job, "rewrite", &since, changed);
    mover_event(job->ctx, EV_REWRITE, job->dom.domid, job->tables.count, changed, NULL);
    s = pv_p2m_write(job->be, &job->dom, &job->p2m, &job->x, job->moves, forward, err);
    if (s != FS_OK) {
        return s;
    }
    pv_phase(job, "p2m-write", &since, job->move_count);
    mover_event(job->ctx, EV_P2M, job->dom.domid, job->move_count, job->p2m.page_count, NULL);
    s = pv_parallel(job->ctx, job->move_count, m2p_part, &(struct m2p_work){ job, forward }, err);
    if (s == FS_OK) {
        pv_phase(job, "m2p", &since, job->move_count);
        mover_event(job->ctx, EV_M2P, job->dom.domid, job->move_count, job->move_count, NULL);
    }
    return s;
}

/* ---- reload -------------------------------------------------------------------------- */

static mfn_t where(const struct pv_job *job, bool forward, mfn_t m)
{
    return forward && !mfn_is_none(m) ? xlat_get(&job->x, m) : m;
}

static fs_status_t reload_vcpu(struct pv_job *job, const struct hv_pv_vcpu *saved, bool forward, struct fs_error *err)
{
    struct hv_pv_vcpu v = *saved;           /* borrows opaque */
    v.cr3 = where(job, forward, v.cr3);
    v.user_cr3 = where(job, forward, v.user_cr3);
    for (uint32_t i = 0; i < (v.gdt_entries + 511) / 512 && i < HV_GDT_FRAMES; i++) {
        v.gdt[i] = where(job, forward, v.gdt[i]);
    }
    return job->be->ops->vcpu_load(job->be, job->dom.domid, &v, err);
}

struct pin_work { struct pv_job *job; const struct hv_pin *list; };

/* Two tables that share a lower one may be validated side by side: Xen lets the second wait for the first's validation of it. */
static fs_status_t pin_part(void *arg, unsigned part, size_t first, size_t end, struct fs_error *err)
{
    const struct pin_work *w = arg;
    (void)part;
    return w->job->be->ops->pin(w->job->be, w->job->dom.domid, w->list + first, end - first, err);
}

fs_status_t pv_reload(struct pv_job *job, bool forward, struct fs_error *err)
{
    uint64_t since = pv_now(job);
    struct hv_pin *pins = malloc((job->tables.count + 1) * sizeof(*pins));
    if (pins == NULL) {
        return FS_NO_MEMORY;
    }
    size_t n = 0;
    for (size_t i = 0; i < job->tables.count; i++) {
        const struct pv_table *t = &job->tables.list[i];
        if (t->pinned) {                    /* I4 */
            pins[n++] = (struct hv_pin){ .mfn = where(job, forward, t->mfn), .level = t->level };
        }
    }
    fs_status_t s = pv_parallel(job->ctx, n, pin_part, &(struct pin_work){ job, pins }, err);
    free(pins);
    if (s != FS_OK) {
        return s;
    }
    pv_phase(job, "pin", &since, n);
    for (size_t v = 0; v < job->vcpu_count && s == FS_OK; v++) {
        if (job->vcpus[v].initialised) {
            s = reload_vcpu(job, &job->vcpus[v], forward, err);
        }
    }
    if (s == FS_OK) {
        job->dropped = forward;         /* forward: until PV_SWITCHED is on disk, undo still begins with a drop */
        pv_phase(job, "vcpu-load", &since, job->vcpu_count);
        mover_event(job->ctx, EV_PIN, job->dom.domid, n, job->vcpu_count, NULL);
    }
    return s;
}

/* ---- undo ----------------------------------------------------------------------------- */

fs_status_t pv_undo(struct pv_job *job, struct fs_error *err)
{
    ASSERT(!job->switched);
    mover_event(job->ctx, EV_ROLLBACK, job->dom.domid, job->dom.domid, job->move_count, NULL);
    fs_status_t s = FS_OK;
    if (job->dropped) {
        s = pv_drop(job, err);
    }
    if (s == FS_OK && job->applied) {
        pv_index_new(job);
        s = pv_apply(job, false, err);
        job->applied = s != FS_OK;
    }
    if (s == FS_OK && job->dropped) {
        s = pv_reload(job, false, err);
    }
    return s;
}

void pv_job_free(struct pv_job *job)
{
    for (size_t v = 0; v < job->vcpu_count; v++) {
        hv_vcpu_free(&job->vcpus[v]);
    }
    free(job->vcpus);
    free(job->reserved);
    free(job->moves);
    free(job->owned);
    free(job->scratch);
    pv_p2m_free(&job->p2m);
    pv_tables_free(&job->tables);
    xlat_free(&job->x);
}
