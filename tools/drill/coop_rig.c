/*
 * coop_rig.c - the kernel of guest/ as the drill runs it: a guest that moves its own pages, with tasks that verify theirs.
 *
 * Owns: struct coop_rig: the guest; processes of guest/workload (anonymous memory, families that fork, a file, shared and mlocked memory,
 * linked slab objects, device buffers; where the guest is large enough, transparent huge pages and those of the pool); tasks that hold kernel
 * pages of every order and kind.  All know every byte of theirs.
 * Invariants:
 *   I1  a kernel task's record (which page, which seed) is this process's, a workload's is the guest's; the bytes are the guest's: a page
 *       that a move loses, mixes up or leaves half copied is found when it is verified, at the latest by check();
 *   I2  each task runs on one CPU at a time (guest.c), so its records need no lock;
 *   I3  what a device has at the end of a step, it has until the next one: so `had` misses nothing.
 * Why not WORKLOAD_HUGE: nobody can move a unit that its owner has pinned, and 512 frames that stay say nothing of the movers.
 * Why huge pages in a workload of their own: a task of them needs 512 pages, ten times what the others do.
 * Why kernel pages besides: they have no reverse map, and move only while every CPU stands still.
 * Cost: a step writes or verifies one unit of up to 32 pages, or what a task of the workload does in a step.
 */
#include "coop_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../guest/mm/page_alloc.h"
#include "../../guest/workload/workload.h"
#include "coop_guest.h"

#define UNITS 64u
#define TASKS 3u
#define PAGE_WORDS (FS_PAGE_BYTES / sizeof(uint64_t))

struct unit { struct page *page; unsigned order; uint64_t seed; };
struct task {
    struct unit units[UNITS];
    uint64_t writes, wrong, first;  /* first: the pfn of a wrong page; FS_FRAME_NONE */
};
#define KINDS (1u << WORKLOAD_ANON | 1u << WORKLOAD_FORK | 1u << WORKLOAD_FILE | 1u << WORKLOAD_SHM | 1u << WORKLOAD_MLOCK | 1u << WORKLOAD_SLAB | \
               1u << WORKLOAD_DMA)          /* the last only where the machine wants devices */
#define HUGE_KINDS (1u << WORKLOAD_THP | 1u << WORKLOAD_POOL)
#define WORK_TASKS 9u
#define WORK_PAGES 48u              /* of each */
#define HUGE_GUEST 5120u            /* a smaller guest has no huge pages: a unit and a child's copy for each task, two in the pool, a quarter to give */
#define WARM_STEPS 60u              /* of each task, before anything is moved */

struct coop_rig;
struct work { struct coop_rig *rig; struct workload *of; uint32_t number; };
struct coop_rig {
    struct coop_guest *guest;
    struct task tasks[TASKS];
    struct workload workload, huge; /* huge.count is 0 where there is none */
    struct work work[WORK_TASKS];
    uint32_t works;
    uint8_t *had;                   /* by pfn: a device has or had the frame since watch() (I3) */
    uint64_t pages, told;           /* faults that were put in words */
    struct workload_wrong first;
    _Atomic uint64_t wrong;
};

static uint64_t word_of(uint64_t seed, uint64_t page, uint64_t i)
{
    uint64_t z = seed + (page * PAGE_WORDS + i) * 0x9e3779b97f4a7c15ull;
    return (z ^ z >> 29) * 0xbf58476d1ce4e5b9ull;
}

static void fill(struct task *t, struct unit *u)
{
    for (uint64_t p = 0; p < 1ull << u->order; p++) {
        uint64_t *at = arch_page_address(pfn_make(u->page->pfn + p));
        for (uint64_t i = 0; i < PAGE_WORDS; i++) {
            at[i] = word_of(u->seed, p, i);
        }
        t->writes++;
    }
}

/* Pages of the unit that hold a wrong word; *first, where it is FS_FRAME_NONE, becomes the first of them. */
static uint64_t verify(const struct unit *u, uint64_t *first)
{
    uint64_t wrong = 0;
    for (uint64_t p = 0; p < 1ull << u->order; p++) {
        const uint64_t *at = arch_page_address(pfn_make(u->page->pfn + p));
        bool same = true;
        for (uint64_t i = 0; i < PAGE_WORDS; i++) {
            same = same && at[i] == word_of(u->seed, p, i);
        }
        if (!same && wrong++ == 0 && *first == FS_FRAME_NONE) {
            *first = u->page->pfn + p;
        }
    }
    return wrong;
}

static void task_step(void *arg, struct guest *g, uint64_t random)
{
    static const gfp_t kinds[] = { GFP_KERNEL, GFP_KERNEL | __GFP_RECLAIMABLE, GFP_KERNEL | __GFP_ACCOUNT };
    struct task *t = arg;
    struct unit *u = &t->units[random % UNITS];
    if (u->page) {
        t->wrong += verify(u, &t->first);
        if (random >> 40 & 1) {
            u->seed = random;
            fill(t, u);
        } else {
            page_put(g->mm, u->page);
            u->page = NULL;
        }
        return;
    }
    u->order = (random >> 16) % 8 == 0 ? (unsigned)(random >> 24) % 6 : 0;
    u->page = alloc_pages(g->mm, kinds[(random >> 32) % 3], u->order);
    if (u->page) {
        u->seed = random;
        fill(t, u);
    }
}

/* ---- processes ---- */

static void note_wrong(void *ctx, const struct workload_wrong *wrong)
{
    struct coop_rig *r = ctx;
    if (atomic_fetch_add(&r->wrong, 1) == 0) {
        r->first = *wrong;
    }
}

static void note_devices(struct coop_rig *r, uint32_t number)
{
    pfn_t list[WORKLOAD_DEVICE_PAGES_MAX];
    uint32_t n = workload_device_pages(&r->workload, number, list, WORKLOAD_DEVICE_PAGES_MAX);
    for (uint32_t i = 0; i < n; i++) {
        r->had[list[i].n] = 1;
    }
}

static void work_step(void *arg, struct guest *g, uint64_t random)
{
    const struct work *w = arg;
    (void)g, (void)random;
    (void)workload_step(w->of, w->number);
    if (w->of == &w->rig->workload) {
        note_devices(w->rig, w->number);
    }
}

static int start_work(struct coop_rig *r, struct workload *of, unsigned kinds, uint32_t pages, uint64_t seed)
{
    struct guest *g = coop_guest_kernel(r->guest);
    struct workload_config c = { .vm = g->vm, .seed = seed, .kinds = kinds, .tasks = 1, .pages = pages, .frames_stay = true, .regions = true,
                                 .wrong = note_wrong, .ctx = r };
    if (workload_start(of, &c) != MM_OK) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < of->count; i++) {
        struct work *w = &r->work[r->works++];
        *w = (struct work){ r, of, i };
        if (!guest_add_task(g, work_step, w)) {
            return -ENOMEM;
        }
    }
    return 0;
}

static void rig_watch(void *kernel)
{
    struct coop_rig *r = kernel;
    memset(r->had, 0, r->pages);
    for (uint32_t i = 0; i < r->workload.count; i++) {
        note_devices(r, i);
    }
}

static bool rig_device_has(const void *kernel, uint64_t pfn)
{
    const struct coop_rig *r = kernel;
    return pfn < r->pages && r->had[pfn] != 0;
}

/* ---- the rig's table ---- */

static void rig_destroy(void *kernel)
{
    struct coop_rig *r = kernel;
    coop_guest_destroy(r->guest);
    free(r->had);
    free(r);
}

static int rig_create(struct emb_machine *m, const struct emb_kernel_config *c, void **kernel)
{
    struct coop_guest_config config = { .pages = c->pages, .vcpus = c->vcpus, .node = c->node, .any_node = c->any_node, .boot = { .seed = c->seed } };
    struct coop_rig *r = calloc(1, sizeof(*r));
    *kernel = NULL;
    if (!r) {
        return -ENOMEM;
    }
    memcpy(config.name, c->name, sizeof(config.name));
    r->pages = c->pages;
    r->had = calloc(c->pages + 1, 1);
    int rc = r->had ? coop_guest_create(m, &config, &r->guest) : -ENOMEM;
    for (unsigned i = 0; rc == 0 && i < TASKS; i++) {
        r->tasks[i].first = FS_FRAME_NONE;
        rc = guest_add_task(coop_guest_kernel(r->guest), task_step, &r->tasks[i]) ? 0 : -ENOMEM;
    }
    if (rc == 0) {
        rc = start_work(r, &r->workload, c->devices ? KINDS : KINDS & ~(1u << WORKLOAD_DMA), WORK_PAGES, c->seed);
    }
    if (rc == 0 && c->pages >= HUGE_GUEST) {
        rc = start_work(r, &r->huge, HUGE_KINDS, HUGE_PAGES, c->seed + 1);
    }
    if (rc) {
        rig_destroy(r);
        return rc;
    }
    coop_guest_step(r->guest, WARM_STEPS * (TASKS + r->works));
    *kernel = r;
    return 0;
}

static uint16_t rig_domid(const void *kernel) { return coop_guest_domid(((const struct coop_rig *)kernel)->guest); }
static void rig_step(void *kernel, uint64_t steps) { coop_guest_step(((struct coop_rig *)kernel)->guest, steps); }
static int rig_start(void *kernel) { return coop_guest_start(((struct coop_rig *)kernel)->guest); }
static int rig_stop(void *kernel) { return coop_guest_stop(((struct coop_rig *)kernel)->guest); }

static uint64_t rig_writes(const void *kernel)
{
    const struct coop_rig *r = kernel;
    uint64_t writes = 0;
    for (unsigned i = 0; i < TASKS; i++) {
        writes += r->tasks[i].writes;
    }
    return writes + (workload_total(&r->workload).bytes_written + workload_total(&r->huge).bytes_written) / FS_PAGE_BYTES;
}

/* Pages compared; what is wrong comes to note_wrong(). */
static uint64_t verify_work(struct workload *of)
{
    uint64_t before = workload_total(of).bytes_verified;
    (void)workload_verify_all(of);
    return (workload_total(of).bytes_verified - before) / FS_PAGE_BYTES;
}

static uint64_t rig_check(void *kernel, FILE *out, uint64_t *pages)
{
    struct coop_rig *r = kernel;
    uint64_t faults = coop_guest_check(r->guest, out);
    *pages = 0;
    for (unsigned i = 0; i < TASKS; i++) {
        uint64_t wrong = r->tasks[i].wrong;             /* what the tasks themselves came upon */
        for (unsigned k = 0; k < UNITS; k++) {
            if (r->tasks[i].units[k].page) {
                wrong += verify(&r->tasks[i].units[k], &r->tasks[i].first);
                *pages += 1ull << r->tasks[i].units[k].order;
            }
        }
        if (wrong > 0) {
            fprintf(out, "task %u: %llu of its pages hold wrong bytes; one: pfn %#llx\n", i, (unsigned long long)wrong,
                    (unsigned long long)r->tasks[i].first);
        }
        faults += wrong;
    }
    *pages += verify_work(&r->workload) + verify_work(&r->huge);
    uint64_t wrong = atomic_load(&r->wrong);
    if (wrong > r->told) {
        const struct workload_wrong *w = &r->first;
        fprintf(out, "processes: %llu faults; the first: %s of %s, ", (unsigned long long)wrong, workload_fault_name(w->fault), workload_name(w->kind));
        if (w->pfn != FS_FRAME_NONE) {
            fprintf(out, "pfn %#llx, ", (unsigned long long)w->pfn);
        }
        fprintf(out, "page %llu byte %llu is %#llx, should be %#llx\n", (unsigned long long)w->page, (unsigned long long)w->byte,
                (unsigned long long)w->is, (unsigned long long)w->should_be);
    }
    r->told = wrong;
    return faults + wrong;
}

static const struct emb_kernel_ops ops = {
    .least_pages = 4096, .create = rig_create, .destroy = rig_destroy, .domid = rig_domid, .step = rig_step, .start = rig_start,
    .stop = rig_stop, .writes = rig_writes, .check = rig_check, .watch = rig_watch, .device_has = rig_device_has,
};

struct coop_guest *coop_rig_guest(void *kernel)
{
    return ((struct coop_rig *)kernel)->guest;
}

const struct emb_kernel_ops *coop_rig_ops(void)
{
    return &ops;
}
