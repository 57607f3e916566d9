/*
 * engine.c - what the engine and the embedded machine cost: time to plan, bytes a frame, speed of the copy phase.
 *
 * Owns: the machines that are measured, the account of the heap, the clock.
 * What is measured, and how:
 *   plan    a machine of 1 TiB without contents (16 DIMMs of 64 GiB); dry runs over 4, 16 and 64 GiB that translated guests fill: time,
 *           and how it grows; then over everything in 64 GiB.
 *   bytes   the machine: metadata of all frames, and of the arena what is not a guest's truth, divided by frames.  The engine: the
 *           highest sum of its live heap blocks (malloc and friends are wrapped, so no mapping of guest memory counts) during a plan and
 *           during an evacuation, of two DIMMs of different size that one guest fills: the difference, divided by that of the frames.
 *           The same of an evacuation that must undo a round of the switch (a call fails after the tables were rewritten), and of `recover`
 *           in another process after a kill at that call.
 *   copy    the copy phase of evacuations of a PV guest, alternating with a plain copy of as many pages of the same kind of memory by as
 *           many threads, in random order of 4 KiB pages; medians.  A plain copy in sequential order stands beside it.
 * Invariants:
 *   I1  both sides of a comparison run in the same process, in turns.
 *   I2  exit code 1 where a required figure is missed: figures are printed in any case.
 * Why the heap and not the resident set: the guests' memory and the frame table are in the same process.
 * Cost: about half a minute and 3 GiB.
 */
#include <inttypes.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../tools/drill/coop_guest.h"
#include "embedded/embedded.h"
#include "tool.h"

#define GIB_PAGES ((uint64_t)262144)
#define ROUNDS 7u
#define THREADS_MAX 4u

static bool missed;

static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void require(bool met, const char *words)
{
    printf("    %-8s %s\n", met ? "met" : "MISSED", words);
    missed = missed || !met;
}

static uint64_t median(uint64_t *list, size_t count)
{
    qsort(list, count, sizeof(*list), compare_u64);
    return list[count / 2];
}

/* ---- the heap: -Wl,--wrap for each of these ------------------------------ */

void *__real_malloc(size_t bytes);
void *__real_calloc(size_t count, size_t bytes);
void *__real_realloc(void *p, size_t bytes);
void __real_free(void *p);
void *__wrap_malloc(size_t bytes);
void *__wrap_calloc(size_t count, size_t bytes);
void *__wrap_realloc(void *p, size_t bytes);
void __wrap_free(void *p);

static _Atomic int64_t heap_live, heap_peak;

static void account(int64_t bytes)
{
    int64_t live = heap_live += bytes, peak = heap_peak;
    while (live > peak && !__atomic_compare_exchange_n((int64_t *)&heap_peak, &peak, live, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
}

void *__wrap_malloc(size_t bytes)
{
    void *p = __real_malloc(bytes);
    account((int64_t)malloc_usable_size(p));
    return p;
}

void *__wrap_calloc(size_t count, size_t bytes)
{
    void *p = __real_calloc(count, bytes);
    account((int64_t)malloc_usable_size(p));
    return p;
}

void *__wrap_realloc(void *p, size_t bytes)
{
    int64_t before = (int64_t)malloc_usable_size(p);
    void *q = __real_realloc(p, bytes);
    if (q != NULL || bytes == 0) {
        account((int64_t)malloc_usable_size(q) - before);
    }
    return q;
}

void __wrap_free(void *p)
{
    account(-(int64_t)malloc_usable_size(p));
    __real_free(p);
}

/* Peak of the heap from here on, above what is live now. */
static int64_t heap_mark(void)
{
    int64_t live = heap_live;
    heap_peak = live;
    return live;
}

/* ---- runs ---------------------------------------------------------------- */

static uint16_t guest(struct emb_machine *m, const char *name, enum hv_domain_kind kind, uint64_t pages, uint32_t node, bool any_node)
{
    struct emb_domain_config c = { .kind = kind, .pages = pages, .vcpus = 2, .node = node, .any_node = any_node, .seed = node + 1, .processes = 3 };
    uint16_t domid = 0;
    (void)snprintf(c.name, sizeof(c.name), "%s", name);
    if (emb_domain_create(m, &c, &domid) != 0) {
        tool_die("a guest cannot be built");
    }
    return domid;
}

/* ---- plan ---------------------------------------------------------------- */

static uint64_t plan_ns(struct emb_machine *m, uint64_t gib, uint64_t *peak, struct hv_plan *plan)
{
    char target[64];
    struct mfn_range node = emb_node_range(m, 1);
    struct hv_report r = { 0 };
    (void)snprintf(target, sizeof(target), "mfn:%" PRIx64 "-%" PRIx64, node.start.n, node.start.n + gib * GIB_PAGES);
    int64_t before = heap_mark();
    uint64_t since = now_ns();
    tool_evacuate(m, target, true, false, &r);
    uint64_t ns = now_ns() - since;
    *peak = (uint64_t)(heap_peak - before);
    *plan = r.plan;
    plan->domains = NULL;
    plan->blockers = NULL;
    plan->ranges = (struct mfn_range_set){ 0 };
    hv_report_free(&r);
    return ns;
}

static void bench_plan(void)
{
    struct emb_config c = { .node_count = 16, .seed = 1, .no_contents = true };
    static const uint64_t sizes[] = { 4, 16, 64 };
    uint64_t peak = 0, times[FS_ARRAY_SIZE(sizes)], since = now_ns();
    struct hv_plan plan;
    for (uint32_t i = 0; i < c.node_count; i++) {
        c.nodes[i].pages = 64 * GIB_PAGES;
    }
    struct emb_machine *m = emb_machine_create(&c);
    if (m == NULL) {
        tool_die("no memory for the frame table of 1 TiB");
    }
    for (uint32_t i = 0; i < 4; i++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "hap%u", i);
        (void)guest(m, name, HV_DOMAIN_HAP, 159 * GIB_PAGES / 10, 1, false);
    }
    printf("plan: a machine of 1 TiB, DIMM 1 of 64 GiB filled by four translated guests (built in %.1f s)\n", (double)(now_ns() - since) / 1e9);
    for (size_t i = 0; i < FS_ARRAY_SIZE(sizes); i++) {
        uint64_t runs[3];
        for (size_t k = 0; k < FS_ARRAY_SIZE(runs); k++) {
            runs[k] = plan_ns(m, sizes[i], &peak, &plan);
        }
        times[i] = median(runs, FS_ARRAY_SIZE(runs));
        printf("    %2" PRIu64 " GiB: %7.3f s, %6.1f ns a frame, engine's heap %" PRIu64 " KiB = %.2f bytes a frame; %" PRIu64 " frames movable, room %s\n",
               sizes[i],
               (double)times[i] / 1e9, (double)times[i] / (double)(sizes[i] * GIB_PAGES), peak / 1024, (double)peak / (double)(sizes[i] * GIB_PAGES),
               plan.counts.data, plan.refusal[0] ? "missing" : "found");
    }
    require(times[2] < 60000000000u, "64 GiB planned in under a minute");
    require(times[2] < 3 * 16 * times[0], "time grows linearly (64 GiB takes less than three times 16 times 4 GiB)");
    require(peak <= 16 * 64 * GIB_PAGES, "engine: at most 16 bytes a frame of the range, planning");
    emb_machine_destroy(m);
}

/* ---- bytes --------------------------------------------------------------- */

static void bench_machine_bytes(void)
{
    struct emb_config c = { .nodes = { { 4 * GIB_PAGES, 0 }, { 4 * GIB_PAGES, 0 } }, .node_count = 2, .seed = 1, .no_contents = true };
    uint64_t frames = 8 * GIB_PAGES;
    struct emb_machine *m = emb_machine_create(&c);
    if (m == NULL) {
        tool_die("no machine");
    }
    uint64_t table = emb_metadata_bytes(m), empty = emb_arena_bytes(m);
    (void)guest(m, "hap", HV_DOMAIN_HAP, 4 * GIB_PAGES - 8192, 1, false);
    uint64_t truth = emb_arena_bytes(m) - empty;
    printf("bytes: the machine, 8 GiB\n"
           "    frame table %.2f bytes a frame, fixed part %" PRIu64 " KiB; a guest's truth (what its memory should hold) and p2m: %.2f bytes "
           "a page of it\n", (double)table / (double)frames, empty / 1024, (double)truth / (double)(4 * GIB_PAGES - 8192));
    require(table <= 32 * frames, "machine: at most 32 bytes a machine frame");
    emb_machine_destroy(m);
}

/* What one plan and one evacuation of a DIMM took at most; frames is the range's. */
struct footprint { uint64_t plan, run, frames, moved; };

enum guest_kind { PV_GUEST, PVH_GUEST, COOP_GUEST };

/* A machine of three DIMMs whose second one a guest fills; *coop is NULL but for a guest that moves its own pages. */
static struct emb_machine *filled(enum guest_kind kind, uint64_t pages, struct coop_guest **coop)
{
    struct emb_config c = { .nodes = { { pages, 0 }, { pages + pages / 16, 0 }, { pages * 2, 0 } }, .node_count = 3, .seed = 1 };
    struct emb_machine *m = emb_machine_create(&c);
    *coop = NULL;
    if (m == NULL) {
        tool_die("no machine");
    }
    if (kind == COOP_GUEST) {
        struct coop_guest_config g = { .name = "guest", .pages = pages, .vcpus = 1, .node = 1, .boot = { .seed = 1 } };
        if (coop_guest_create(m, &g, coop) != 0) {
            tool_die("a guest cannot be built");
        }
    } else {
        (void)guest(m, "guest", kind == PV_GUEST ? HV_DOMAIN_PV : HV_DOMAIN_HAP, pages, 1, false);
    }
    return m;
}

static struct footprint footprint(enum guest_kind kind, uint64_t pages, bool verify)
{
    struct coop_guest *coop;
    struct emb_machine *m = filled(kind, pages, &coop);
    struct footprint f = { 0 };
    struct hv_report r = { 0 };
    int64_t before = heap_mark();
    tool_evacuate(m, "NODE1", true, false, &r);
    f.plan = (uint64_t)(heap_peak - before);
    hv_report_free(&r);
    before = heap_mark();
    tool_evacuate(m, "NODE1", false, verify, &r);
    f.run = (uint64_t)(heap_peak - before);
    f.frames = r.frames_total;
    f.moved = r.frames_moved;
    hv_report_free(&r);
    coop_guest_destroy(coop);
    emb_machine_destroy(m);
    return f;
}

static double slope(uint64_t small, uint64_t large, const struct footprint *a, const struct footprint *b)
{
    return ((double)large - (double)small) / (double)(b->frames - a->frames);
}

/* What grows with the range is the difference of two sizes; the rest is fixed. */
static void bench_engine_bytes(enum guest_kind kind, const char *word, bool verify)
{
    const uint64_t mib = kind == COOP_GUEST ? 24 : 256;      /* a host mapping a page where frames are scattered: doc/EMBEDDED.md */
    struct footprint a = footprint(kind, mib * 256, verify), b = footprint(kind, 4 * mib * 256, verify);
    double plan = slope(a.plan, b.plan, &a, &b), run = slope(a.run, b.run, &a, &b);
    printf("    %s guest alone on a DIMM of %" PRIu64 " and %" PRIu64 " MiB%s (%" PRIu64 " and %" PRIu64 " frames moved): plan %.2f, evacuation %.2f bytes a "
           "frame of the range, and %.0f KiB whatever its size\n", word, mib, 4 * mib, verify ? ", --verify" : "", a.moved, b.moved, plan, run,
           ((double)a.run - run * (double)a.frames) / 1024);
    require(plan <= 16, "engine: at most 16 bytes a frame of the range, planning");
    require(run <= 16, "engine: at most 16 bytes a frame of the range, evacuating");
}

/* The call that comes when a mover has changed most: a PV guest's tables are rewritten, a PVH guest's extents are populated, a cooperative
 * guest was given a reserve and has begun. */
static const struct { enum emb_op op; uint64_t nth; } worst[] = {
    [PV_GUEST] = { EMB_OP_pin, 1 }, [PVH_GUEST] = { EMB_OP_remap, 3 }, [COOP_GUEST] = { EMB_OP_decrease, 1 },
};

/* The guest runs again: the round is undone.  What comes after is the report, of frames that all stay. */
static void at_resume(void *arg, const struct fs_event *e)
{
    if (e->id == EV_RESUME) {
        *(int64_t *)arg = heap_peak;
    }
}

/* An evacuation of a PV guest with --verify that fails there and undoes its round. */
static struct footprint rolled_back(uint64_t pages)
{
    struct coop_guest *coop;
    struct emb_machine *m = filled(PV_GUEST, pages, &coop);
    struct emb_fault_plan plan = { .only_op = true, .op = worst[PV_GUEST].op, .fail_call = worst[PV_GUEST].nth };
    int64_t peak = 0;
    struct hv *hv = tool_handle(m, at_resume, &peak);
    struct hv_evacuate_options o = { .target = "NODE1", .verify = true };
    struct footprint f = { 0 };
    struct hv_report r = { 0 };
    struct fs_error err = { "" };
    emb_fault_arm(m, &plan);
    int64_t before = heap_mark();
    fs_status_t s = hv_evacuate(hv, &o, &r, &err);
    f.run = (uint64_t)(peak - before);
    f.plan = (uint64_t)(heap_peak - before);
    if (emb_fault_fired(m) != 1 || r.domain_count != 1 || r.domains[0].status == FS_OK || r.domains[0].moved != 0 || s == FS_NEEDS_RECOVER) {
        tool_die("the round was not undone");
    }
    emb_fault_arm(m, NULL);
    f.frames = r.frames_total;
    hv_report_free(&r);
    hv_close(hv);
    emb_machine_destroy(m);
    return f;
}

static void die_here(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    (void)m, (void)op, (void)call;
    if (getpid() != *(pid_t *)arg) {
        (void)raise(SIGKILL);
    }
}

/* The tool dies there; what `recover` takes afterwards. */
static struct footprint recovered(enum guest_kind kind, uint64_t pages)
{
    struct coop_guest *coop;
    struct emb_machine *m = filled(kind, pages, &coop);
    pid_t self = getpid(), pid;
    struct emb_fault_plan plan = { .only_op = true, .op = worst[kind].op, .hook_call = worst[kind].nth, .hook = die_here, .hook_arg = &self };
    struct hv_recover_report out;
    struct hv_report r = { 0 };
    struct fs_error err = { "" };
    struct footprint f = { .frames = pages + pages / 16 };
    int status = 0;
    emb_fault_arm(m, &plan);
    pid = fork();
    if (pid == 0) {
        tool_evacuate(m, "NODE1", false, true, &r);
        _exit(0);
    }
    while (pid > 0 && waitpid(pid, &status, WNOHANG) == 0) {
        if (coop != NULL) {
            coop_guest_step(coop, 1);
        }
        (void)nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
    }
    emb_fault_arm(m, NULL);
    emb_machine_reap(m);
    if (pid < 0 || !WIFSIGNALED(status)) {
        tool_die("the tool was not killed");
    }
    struct hv *hv = tool_handle(m, NULL, NULL);
    int64_t before = heap_mark();
    if (hv_recover(hv, &out, &err) != FS_OK) {
        tool_die(err.text);
    }
    f.run = (uint64_t)(heap_peak - before);
    hv_close(hv);
    coop_guest_destroy(coop);
    emb_machine_destroy(m);
    return f;
}

static void bench_undo_bytes(enum guest_kind kind, const char *word, bool recover)
{
    const uint64_t mib = kind == COOP_GUEST ? 24 : 256;
    struct footprint a = recover ? recovered(kind, mib * 256) : rolled_back(mib * 256);
    struct footprint b = recover ? recovered(kind, 4 * mib * 256) : rolled_back(4 * mib * 256);
    double run = slope(a.run, b.run, &a, &b);
    printf("    %s guest, %s: %.2f bytes a frame of the range, and %.0f KiB whatever its size\n", word,
           recover ? "recover after a kill" : "roll-back of an evacuation with --verify", run, ((double)a.run - run * (double)a.frames) / 1024);
    if (!recover) {
        double report = slope(a.plan, b.plan, &a, &b);
        printf("    %s guest, the same and the report after it, in which every frame stays: %.2f bytes a frame\n", word, report);
        require(report <= 16, "engine: at most 16 bytes a frame of the range, reporting that every frame stays");
    }
    require(run <= 16, recover ? "engine: at most 16 bytes a frame of the range, recovering" : "engine: at most 16 bytes a frame of the range, rolling back");
}

/* ---- copy ---------------------------------------------------------------- */

struct plain {
    uint8_t *from, *to;
    const uint32_t *order_from, *order_to;      /* NULL: sequential */
    size_t first, end;
};

static void *plain_main(void *arg)
{
    const struct plain *p = arg;
    for (size_t i = p->first; i < p->end; i++) {
        size_t from = p->order_from != NULL ? p->order_from[i] : i, to = p->order_to != NULL ? p->order_to[i] : i;
        memcpy(p->to + to * FS_PAGE_BYTES, p->from + from * FS_PAGE_BYTES, FS_PAGE_BYTES);
    }
    return NULL;
}

static uint64_t plain_ns(const struct plain *whole, size_t pages, unsigned threads)
{
    struct plain parts[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    uint64_t since = now_ns();
    for (unsigned t = 0; t < threads; t++) {
        parts[t] = *whole;
        parts[t].first = pages * t / threads;
        parts[t].end = pages * (t + 1) / threads;
        if (t > 0 && pthread_create(&ids[t], NULL, plain_main, &parts[t]) != 0) {
            tool_die("no thread");
        }
    }
    plain_main(&parts[0]);
    for (unsigned t = 1; t < threads; t++) {
        pthread_join(ids[t], NULL);
    }
    return now_ns() - since;
}

static uint8_t *ram(size_t pages, uint8_t fill)
{
    int fd = memfd_create("bench", MFD_CLOEXEC);
    void *p = MAP_FAILED;
    if (fd >= 0 && ftruncate(fd, (off_t)(pages * FS_PAGE_BYTES)) == 0) {
        p = mmap(NULL, pages * FS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    if (p == MAP_FAILED) {
        tool_die("no memory for the plain copy");
    }
    (void)close(fd);
    memset(p, fill, pages * FS_PAGE_BYTES);
    return p;
}

static uint32_t *shuffled(size_t pages, uint64_t seed)
{
    uint32_t *order = malloc(pages * sizeof(*order));
    if (order == NULL) {
        tool_die("no memory");
    }
    for (size_t i = 0; i < pages; i++) {
        order[i] = (uint32_t)i;
    }
    for (size_t i = pages; i > 1; i--) {
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        size_t k = (size_t)(seed >> 33) % i;
        uint32_t t = order[i - 1];
        order[i - 1] = order[k];
        order[k] = t;
    }
    return order;
}

static void copy_phase(const struct hv_report *r, uint64_t *ns, uint64_t *pages)
{
    *ns = *pages = 0;
    for (size_t i = 0; i < r->domain_count; i++) {
        for (size_t k = 0; k < r->domains[i].phase_count; k++) {
            if (strcmp(r->domains[i].phases[k].name, "copy") == 0) {
                *ns += r->domains[i].phases[k].ns;
                *pages += r->domains[i].phases[k].count;
            }
        }
    }
}

static void bench_copy(void)
{
    const uint64_t pages = 384 * 256;
    struct emb_config c = { .nodes = { { 32768, 0 }, { 131072, 0 }, { 131072, 0 } }, .node_count = 3, .seed = 1 };
    struct emb_machine *m = emb_machine_create(&c);
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned threads = cpus < 1 ? 1 : cpus > (long)THREADS_MAX ? THREADS_MAX : (unsigned)cpus;     /* as pv_parallel() */
    uint64_t engine[ROUNDS], random[ROUNDS], sequential[ROUNDS];
    uint32_t *order_from = shuffled(pages, 1), *order_to = shuffled(pages, 2);
    struct plain p = { .from = ram(pages, 1), .to = ram(pages, 2) };
    if (m == NULL) {
        tool_die("no machine");
    }
    (void)guest(m, "pv", HV_DOMAIN_PV, pages, 1, false);
    for (unsigned i = 0; i <= ROUNDS; i++) {        /* the first round touches every page and does not count */
        const char *target = i % 2 == 0 ? "NODE1" : "NODE2";
        struct hv_report r = { 0 };
        uint64_t ns, moved, count = i > 0 ? i - 1 : 0;
        tool_evacuate(m, target, false, false, &r);
        tool_online(m, target);
        copy_phase(&r, &ns, &moved);
        hv_report_free(&r);
        if (moved < pages / 2) {
            tool_die("the guest was not moved");
        }
        engine[count] = ns * 1000 / moved;
        p.order_from = order_from;
        p.order_to = order_to;
        random[count] = plain_ns(&p, pages, threads) * 1000 / pages;
        p.order_from = p.order_to = NULL;
        sequential[count] = plain_ns(&p, pages, threads) * 1000 / pages;
    }
    double e = (double)median(engine, ROUNDS) / 1000, x = (double)median(random, ROUNDS) / 1000, q = (double)median(sequential, ROUNDS) / 1000;
    printf("copy: a PV guest of 384 MiB, %u rounds in turns, %u threads, medians, ns a page\n"
           "    copy phase %.0f (%.2f GB/s), plain copy in random order %.0f (%.2f GB/s), in sequential order %.0f (%.2f GB/s)\n",
           ROUNDS, threads, e, 4096 / e, x, 4096 / x, q, 4096 / q);
    printf("    throughput of the copy phase: %.0f%% of the plain copy in random order, %.0f%% of the sequential one\n", x / e * 100, q / e * 100);
    require(x / e >= 0.8, "copy phase: at least 80% of a plain copy in random order");
    free(order_from);
    free(order_to);
    emb_machine_destroy(m);
}

int main(int argc, char **argv)
{
    const char *only = argc > 1 ? argv[1] : "";
    tool_begin("engine");
    if (*only == '\0' || strcmp(only, "plan") == 0) {
        bench_plan();
    }
    if (*only == '\0' || strcmp(only, "bytes") == 0) {
        bench_machine_bytes();
        bench_engine_bytes(PV_GUEST, "PV", false);
        bench_engine_bytes(PV_GUEST, "PV", true);
        bench_engine_bytes(PVH_GUEST, "PVH", false);
        bench_engine_bytes(COOP_GUEST, "cooperative", false);
        bench_undo_bytes(PV_GUEST, "PV", false);
        bench_undo_bytes(PV_GUEST, "PV", true);
        bench_undo_bytes(PVH_GUEST, "PVH", true);
        bench_undo_bytes(COOP_GUEST, "cooperative", true);
    }
    if (*only == '\0' || strcmp(only, "copy") == 0) {
        bench_copy();
    }
    tool_end();
    return missed ? 1 : 0;
}
