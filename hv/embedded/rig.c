/*
 * rig.c - the embedded machine as a rig: guests of seeded shapes that run while the engine works.
 *
 * Owns: struct rig; the guests' threads; how a seed becomes shapes and load.
 * Invariants:
 *  I1 without threads everything follows from the seed: guests run inside the fault hook, that is between the
 *     engine's calls, and time is modelled.  Two runs are the same run;
 *  I2 with threads each guest runs in its own, beside the engine, in real time, and never between stop() and start();
 *  I3 the judge changes nothing but what a guest that runs would (it takes its events).
 * Lock order: the machine's lock, taken by what is called; `stopping` is atomic.
 * Why shapes by seed: a drill of one shape finds the faults of one shape.  What a seed decides: forms of the p2m, processes,
 * ballooned pages, an LDT, grants, FIFO channels, small or large extents, scattered memory.
 * Why the balloon: a page that leaves in the middle of a move is the case that a mover forgets.
 * Cost: a load step is a few page writes; the judge compares every page.
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "../range.h"
#include "../rig.h"
#include "core.h"
#include "emb_priv.h"

#define RUN_STEPS 64u                   /* load steps of each guest in run() */
#define RUN_NS 60000000u                /* as that, with threads */
#define BURST 12u                       /* page writes of a thread between two rests */
#define REST_NS 40000
#define KERNEL_PAGES_MAX 57344u         /* of all kernels of this process: each may need a mapping of its own */

struct runner {
    struct rig *rig;
    size_t guest;
    pthread_t thread;
    uint64_t rng, writes;
    bool started;
};

struct rig {
    struct emb_machine *m;
    struct rig_config config;
    char names[RIG_GUESTS_MAX][64];
    void *kernels[RIG_GUESTS_MAX];      /* of RIG_COOP guests */
    uint64_t max_pages[RIG_GUESTS_MAX];
    uint64_t free_before;
    uint64_t rng, writes;
    struct runner runners[RIG_GUESTS_MAX];
    struct emb_fault_plan plan;
    bool running;
    atomic_bool stopping;
};

/* ---- guests -------------------------------------------------------------- */

/* A guest keeps its name when it is saved and restored, not its domid. */
static bool guest_domid(struct rig *rig, size_t i, uint16_t *domid)
{
    bool found = false;
    if (rig->kernels[i]) {
        *domid = rig->config.kernel->domid(rig->kernels[i]);
        return true;
    }
    emb_lock(rig->m);
    for (uint32_t s = 0; s < EMB_DOMAINS_MAX && !found; s++) {
        const struct emb_domain *d = &rig->m->domains[s];
        if (d->used && !d->dying && strcmp(d->name, rig->names[i]) == 0) {
            *domid = d->domid;
            found = true;
        }
    }
    emb_unlock(rig->m);
    return found;
}

static void shape(struct emb_domain_config *c, uint64_t *rng)
{
    uint64_t r = emb_random(rng);
    c->any_node = r % 8 == 0;
    c->processes = 1 + (uint32_t)(r >> 8) % 4;
    c->p2m_list_only = (r >> 16) % 4 == 0;
    c->p2m_linear_only = !c->p2m_list_only && (r >> 18) % 4 == 0;
    c->ldt = (r >> 20) % 4 == 0;
    c->no_fifo = (r >> 22) % 4 == 0;
    c->ballooned = (uint32_t)(r >> 24) % 3 * 8;
    c->small_pages = (r >> 32) % 8 == 0;
    c->grants_mapped = (uint32_t)(r >> 40) % 4;
    c->grants_offered = (uint32_t)(r >> 44) % 4;
    c->offline_vcpus = c->vcpus > 1 && (r >> 48) % 4 == 0 ? 1 : 0;
}

static fs_status_t build(struct rig *rig, const struct emb_domain_config *c, struct fs_error *err)
{
    uint16_t domid;
    int rc = emb_domain_create(rig->m, c, &domid);
    if (rc == 0) {
        return FS_OK;
    }
    return fs_fail(err, rc == -ENOMEM ? FS_NO_ROOM : FS_USAGE, "the drill's machine: %s (%llu frames, %u vCPUs, DIMM %u) cannot be built: %s; "
                   "give it less memory, or the machine larger DIMMs", c->name, (unsigned long long)c->pages, c->vcpus, c->node, strerror(-rc));
}

static fs_status_t build_kernel(struct rig *rig, size_t i, struct fs_error *err)
{
    const struct rig_guest_config *g = &rig->config.guests[i];
    struct emb_kernel_config c = { .pages = g->pages, .vcpus = g->vcpus, .node = g->dimm, .seed = emb_random(&rig->rng), .devices = true };
    uint64_t pages = 0;
    for (size_t k = 0; k < rig->config.guest_count; k++) {
        pages += rig->config.guests[k].kind == RIG_COOP ? rig->config.guests[k].pages : 0;
    }
    if (pages > KERNEL_PAGES_MAX) {
        return fs_fail(err, FS_USAGE, "the drill's machine: its coop guests have %llu MiB in all, and this program can show %u MiB of scattered frames "
                       "(the host's vm.max_map_count); give them less", (unsigned long long)pages / 256, KERNEL_PAGES_MAX / 256);
    }
    c.any_node = c.seed % 8 == 0;
    memcpy(c.name, g->name, sizeof(c.name));
    memcpy(rig->names[i], g->name, sizeof(rig->names[i]));
    int rc = rig->config.kernel->create(rig->m, &c, &rig->kernels[i]);
    if (rc == 0) {
        rig->max_pages[i] = emb_domain_max_pages(rig->m, rig->config.kernel->domid(rig->kernels[i]));
        return FS_OK;
    }
    return fs_fail(err, rc == -ENOMEM ? FS_NO_ROOM : FS_USAGE, "the drill's machine: %s (%llu frames, %u vCPUs) does not boot: %s; give it more memory, "
                   "or the machine larger DIMMs", g->name, (unsigned long long)g->pages, g->vcpus, strerror(-rc));
}

static fs_status_t build_guest(struct rig *rig, size_t i, struct fs_error *err)
{
    if (rig->config.guests[i].kind == RIG_COOP) {
        return build_kernel(rig, i, err);
    }
    const struct rig_guest_config *g = &rig->config.guests[i];
    struct emb_domain_config c = { .kind = g->kind == RIG_PV ? HV_DOMAIN_PV : HV_DOMAIN_HAP, .pages = g->pages, .vcpus = g->vcpus,
                                   .node = g->dimm, .seed = emb_random(&rig->rng) };
    uint16_t domid;
    (void)snprintf(c.name, sizeof(c.name), "%s", g->name);
    (void)snprintf(rig->names[i], sizeof(rig->names[i]), "%s", g->name);
    shape(&c, &rig->rng);
    fs_status_t s = build(rig, &c, err);
    if (s == FS_OK && guest_domid(rig, i, &domid)) {
        rig->max_pages[i] = emb_domain_max_pages(rig->m, domid);
    }
    return s;
}

/* ---- load ---------------------------------------------------------------- */

static bool kernel_runs(struct rig *rig, uint16_t domid)
{
    emb_lock(rig->m);
    const struct emb_domain *d = emb_domain_find(rig->m, domid);
    bool runs = d && emb_domain_runs(d);
    emb_unlock(rig->m);
    return runs;
}

static uint32_t load_step(struct rig *rig, size_t i, uint64_t *rng, uint32_t writes)
{
    uint16_t domid;
    uint64_t r = emb_random(rng);
    if (!guest_domid(rig, i, &domid)) {
        return 0;
    }
    if (rig->kernels[i]) {
        if (kernel_runs(rig, domid)) {
            rig->config.kernel->step(rig->kernels[i], 1 + writes / 4);
        }
        return 0;                       /* it counts for itself: rig_writes() */
    }
    if (r % 512 == 0) {
        (void)emb_guest_balloon_out(rig->m, domid);
    }
    return emb_guest_run(rig->m, domid, writes);
}

/* I1: before each of the engine's calls, with the machine locked. */
static void between_calls(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    struct rig *rig = arg;
    (void)op, (void)call;
    for (size_t i = 0; i < rig->config.guest_count; i++) {
        uint64_t r = emb_random(&rig->rng);
        if (r % 4 == 0) {
            rig->writes += load_step(rig, i, &rig->rng, 1 + (uint32_t)(r >> 8) % 8);
        }
    }
    if (emb_random(&rig->rng) % 4 == 0) {
        emb_xen_tick(m, 2);
    }
}

static void *runner_main(void *arg)
{
    struct runner *r = arg;
    const struct timespec rest = { .tv_nsec = REST_NS };
    while (!atomic_load(&r->rig->stopping)) {
        r->writes += load_step(r->rig, r->guest, &r->rng, BURST);
        if (emb_random(&r->rng) % 4 == 0) {
            emb_xen_tick(r->rig->m, 1);
        }
        (void)nanosleep(&rest, NULL);
    }
    return NULL;
}

static void arm(struct rig *rig)
{
    rig->plan.hook = rig->running && !rig->config.threads ? between_calls : NULL;
    rig->plan.hook_call = UINT64_MAX;
    rig->plan.hook_arg = rig;
    emb_fault_arm(rig->m, &rig->plan);
}

static void rig_stop(struct rig *rig)
{
    atomic_store(&rig->stopping, true);
    for (size_t i = 0; i < rig->config.guest_count; i++) {
        struct runner *r = &rig->runners[i];
        if (r->started) {
            (void)pthread_join(r->thread, NULL);
            rig->writes += r->writes;
        }
        if (rig->kernels[i]) {
            (void)rig->config.kernel->stop(rig->kernels[i]);
        }
        *r = (struct runner){ 0 };
    }
    rig->running = false;
    emb_lock(rig->m);
    rig->m->fault.plan.hook = NULL;     /* the count goes on: calls() is asked after stop() */
    emb_unlock(rig->m);
}

static fs_status_t rig_start(struct rig *rig, struct fs_error *err)
{
    rig->running = true;
    for (size_t i = 0; i < rig->config.guest_count; i++) {
        if (rig->kernels[i]) {
            rig->config.kernel->watch(rig->kernels[i]);
        }
    }
    atomic_store(&rig->stopping, false);
    for (size_t i = 0; rig->config.threads && i < rig->config.guest_count; i++) {
        struct runner *r = &rig->runners[i];
        *r = (struct runner){ .rig = rig, .guest = i, .rng = emb_random(&rig->rng) };
        bool own = rig->kernels[i] != NULL;
        r->started = !own && pthread_create(&r->thread, NULL, runner_main, r) == 0;
        if (own ? rig->config.kernel->start(rig->kernels[i]) != 0 : !r->started) {
            rig_stop(rig);
            return fs_fail(err, FS_NO_MEMORY, "a guest's thread cannot be started; run the drill without --threads");
        }
    }
    arm(rig);
    return FS_OK;
}

static fs_status_t rig_run(struct rig *rig, struct fs_error *err)
{
    if (rig->config.threads) {
        const struct timespec while_ns = { .tv_nsec = RUN_NS };
        fs_status_t s = rig_start(rig, err);
        if (s == FS_OK) {
            (void)nanosleep(&while_ns, NULL);
            rig_stop(rig);
        }
        return s;
    }
    for (uint32_t step = 0; step < RUN_STEPS; step++) {
        for (size_t i = 0; i < rig->config.guest_count; i++) {
            rig->writes += load_step(rig, i, &rig->rng, 4);
        }
        emb_xen_tick(rig->m, 1);
    }
    return FS_OK;
}

static uint64_t rig_writes(struct rig *rig)
{
    uint64_t writes = rig->writes;
    for (size_t i = 0; i < rig->config.guest_count; i++) {
        writes += rig->kernels[i] ? rig->config.kernel->writes(rig->kernels[i]) : 0;
    }
    return writes;
}

/* ---- judging ------------------------------------------------------------- */

/* The kernel's own judge, each of its lines with the guest's name. */
static uint64_t judge_kernel(struct rig *rig, size_t i, FILE *out, uint64_t *pages)
{
    char *words = NULL, *at, *line;
    size_t bytes = 0;
    FILE *f = open_memstream(&words, &bytes);
    if (!f) {
        fprintf(out, "%s: out of memory while judging\n", rig->names[i]);
        return 1;
    }
    uint64_t faults = rig->config.kernel->check(rig->kernels[i], f, pages);
    (void)fclose(f);
    for (line = words ? strtok_r(words, "\n", &at) : NULL; line; line = strtok_r(NULL, "\n", &at)) {
        fprintf(out, "%s: %s\n", rig->names[i], line + strspn(line, " "));
    }
    free(words);
    return faults;
}

static uint64_t judge_guest(struct rig *rig, size_t i, FILE *out, uint64_t *pages)
{
    uint16_t domid;
    uint64_t faults = 0;
    if (!guest_domid(rig, i, &domid)) {
        fprintf(out, "%s is gone\n", rig->names[i]);
        return 1;
    }
    uint64_t compared = 0;
    faults += rig->kernels[i] ? judge_kernel(rig, i, out, &compared) : emb_guest_check(rig->m, domid, out);
    if (rig->kernels[i] ? !kernel_runs(rig, domid) : !emb_guest_alive(rig->m, domid)) {
        fprintf(out, "%s does not run\n", rig->names[i]);
        faults++;
    }
    emb_lock(rig->m);
    const struct emb_domain *has = emb_domain_find(rig->m, domid);
    uint64_t shrunk = rig->kernels[i] && has && has->tot_pages < rig->max_pages[i] ? has->tot_pages : rig->max_pages[i];    /* its limit follows it */
    emb_unlock(rig->m);
    if (emb_domain_max_pages(rig->m, domid) != shrunk) {
        fprintf(out, "%s had a limit of %llu pages and has one of %llu\n", rig->names[i], (unsigned long long)shrunk,
                (unsigned long long)emb_domain_max_pages(rig->m, domid));
        faults++;
    }
    if (emb_domain_pause_count(rig->m, domid) != 0) {
        fprintf(out, "%s was left paused\n", rig->names[i]);
        faults++;
    }
    emb_lock(rig->m);
    const struct emb_domain *d = emb_domain_find(rig->m, domid);
    *pages += rig->kernels[i] ? compared : d ? d->tot_pages : 0;
    emb_unlock(rig->m);
    return faults;
}

static uint64_t rig_judge(struct rig *rig, FILE *out, uint64_t *pages)
{
    uint64_t faults = emb_fsck(rig->m, out);
    *pages = 0;
    for (size_t i = 0; i < rig->config.guest_count; i++) {
        faults += judge_guest(rig, i, out, pages);
    }
    return faults;
}

/* Somebody beside the guest has this frame, or may have it at any moment. */
static bool is_bound(struct emb_machine *m, const struct emb_domain *d, uint64_t mfn)
{
    for (uint32_t i = 0; i < d->held_count; i++) {
        if (d->held[i].mfn == mfn) {
            return true;
        }
    }
    for (uint32_t i = 0; i < d->grant_count; i++) {
        uint64_t named = d->kind == HV_DOMAIN_HAP ? emb_p2m_get(m, d, d->grants[i].gfn) : d->grants[i].gfn;
        if (d->grants[i].in_use && named == mfn) {
            return true;
        }
    }
    for (uint32_t v = 0; v < d->vcpu_count; v++) {
        for (size_t i = 0; i < FS_ARRAY_SIZE(d->vcpus[v].ldt_mapped); i++) {
            if (d->vcpus[v].ldt_mapped[i] == mfn && mfn != 0) {
                return true;
            }
        }
    }
    return false;
}

static void rig_account(struct rig *rig, const struct mfn_range_set *ranges, struct rig_account *out)
{
    *out = (struct rig_account){ 0 };
    for (size_t i = 0; i < rig->config.guest_count; i++) {
        uint16_t domid;
        if (!guest_domid(rig, i, &domid)) {
            continue;
        }
        emb_lock(rig->m);
        const struct emb_domain *d = emb_domain_find(rig->m, domid);
        for (uint64_t at = d ? d->list_head : 0; at; at = rig->m->frames[at - 1].next) {
            if (mfn_set_contains(ranges, mfn_make(at - 1))) {
                uint64_t m2p1 = rig->m->frames[at - 1].m2p1;
                bool device = rig->kernels[i] && m2p1 > 0 && rig->config.kernel->device_has(rig->kernels[i], m2p1 - 1);
                out->frames++;
                out->bound += device || is_bound(rig->m, d, at - 1);
            }
        }
        emb_unlock(rig->m);
    }
}

static bool rig_shutdown(struct rig *rig, uint64_t *free_pages, uint64_t *expected_pages)
{
    for (size_t i = 0; i < rig->config.guest_count; i++) {
        uint16_t domid;
        if (rig->kernels[i]) {
            rig->writes += rig->config.kernel->writes(rig->kernels[i]);
            rig->config.kernel->destroy(rig->kernels[i]);
            rig->kernels[i] = NULL;
        } else if (guest_domid(rig, i, &domid)) {
            (void)emb_domain_destroy(rig->m, domid);
        }
    }
    rig->config.guest_count = 0;
    *free_pages = emb_free_pages(rig->m);
    *expected_pages = rig->free_before;
    return *free_pages == *expected_pages;
}

/* ---- failures on purpose ------------------------------------------------- */

static void rig_count_calls(struct rig *rig, uint64_t fail_call)
{
    rig->plan.fail_call = fail_call;
    arm(rig);
}

static uint64_t rig_calls(struct rig *rig, bool *failed)
{
    *failed = emb_fault_fired(rig->m) > 0;
    return emb_fault_calls(rig->m);
}

/* ---- the machine --------------------------------------------------------- */

static void rig_close(struct rig *rig)
{
    if (!rig) {
        return;
    }
    for (size_t i = 0; i < RIG_GUESTS_MAX; i++) {
        if (rig->kernels[i]) {
            rig->config.kernel->destroy(rig->kernels[i]);
        }
    }
    if (rig->m) {
        emb_machine_destroy(rig->m);
    }
    free(rig);
}

static fs_status_t rig_open(const struct rig_config *config, struct rig **out, struct fs_error *err)
{
    struct emb_config c = { .node_count = config->dimms, .seed = config->seed, .anon_pages = 4, .virtual_clock = !config->threads };
    struct emb_domain_config dom0 = { .kind = HV_DOMAIN_CONTROL, .name = "Domain-0", .pages = config->dom0_pages, .vcpus = 1 };
    struct rig *rig = calloc(1, sizeof(*rig));
    *out = NULL;
    if (!rig) {
        return fs_fail(err, FS_NO_MEMORY, "the drill's machine: no memory");
    }
    for (uint32_t i = 0; i < config->dimms; i++) {
        c.nodes[i].pages = config->dimm_pages;
    }
    rig->config = *config;
    rig->rng = config->seed * 0x9e3779b97f4a7c15ull + 1;
    rig->m = emb_machine_create(&c);
    fs_status_t s = rig->m ? FS_OK : fs_fail(err, FS_NO_MEMORY, "the drill's machine cannot be created: %s; make it smaller", strerror(errno));
    if (s == FS_OK) {
        s = build(rig, &dom0, err);
    }
    if (s == FS_OK) {
        rig->free_before = emb_free_pages(rig->m);
    }
    for (size_t i = 0; s == FS_OK && i < config->guest_count; i++) {
        s = build_guest(rig, i, err);
    }
    if (s != FS_OK) {
        rig_close(rig);
        return s;
    }
    *out = rig;
    return FS_OK;
}

static uint64_t rig_least_pages(const struct rig_config *config, enum rig_kind kind)
{
    if (kind != RIG_COOP) {
        return 1024;                    /* tables, rings and descriptor pages of the shapes above */
    }
    return config->kernel ? config->kernel->least_pages : UINT64_MAX;
}

static fs_status_t rig_backend(struct rig *rig, struct hv_backend **out, struct fs_error *err)
{
    *out = emb_backend(rig->m);
    return *out ? FS_OK : fs_fail(err, FS_NO_MEMORY, "the drill's machine: no handle");
}

const struct rig_ops hv_embedded_rig = {
    .open = rig_open, .close = rig_close, .least_pages = rig_least_pages, .backend = rig_backend,
    .start = rig_start, .stop = rig_stop, .run = rig_run, .writes = rig_writes,
    .judge = rig_judge, .account = rig_account, .shutdown = rig_shutdown,
    .count_calls = rig_count_calls, .calls = rig_calls,
};
