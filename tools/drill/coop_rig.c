/*
 * coop_rig.c - the kernel of guest/ as the drill runs it: a guest that moves its own pages, with tasks that verify theirs.
 *
 * Owns: struct coop_rig: the guest, and tasks that hold kernel pages of every order and kind and know every byte of them.
 * Invariants:
 *   I1  a task's record (which page, which seed) is the process's; the bytes are the guest's: a page that a move loses, mixes up or
 *       leaves half copied is found when it is verified, at the latest by check();
 *   I2  each task runs on one CPU at a time (guest.c), so its records need no lock.
 * Why kernel pages: they have no reverse map, and move only while every CPU stands still.
 * Cost: a step writes or verifies one unit of up to 32 pages.
 */
#include "coop_rig.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "../../guest/mm/page_alloc.h"
#include "coop_guest.h"

#define UNITS 64u
#define TASKS 3u
#define PAGE_WORDS (FS_PAGE_BYTES / sizeof(uint64_t))

struct unit { struct page *page; unsigned order; uint64_t seed; };
struct task {
    struct unit units[UNITS];
    uint64_t writes, wrong;
};
struct coop_rig {
    struct coop_guest *guest;
    struct task tasks[TASKS];
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

/* Pages of the unit that hold a wrong word. */
static uint64_t verify(const struct unit *u)
{
    uint64_t wrong = 0;
    for (uint64_t p = 0; p < 1ull << u->order; p++) {
        const uint64_t *at = arch_page_address(pfn_make(u->page->pfn + p));
        bool same = true;
        for (uint64_t i = 0; i < PAGE_WORDS; i++) {
            same = same && at[i] == word_of(u->seed, p, i);
        }
        wrong += !same;
    }
    return wrong;
}

static void task_step(void *arg, struct guest *g, uint64_t random)
{
    static const gfp_t kinds[] = { GFP_KERNEL, GFP_KERNEL | __GFP_RECLAIMABLE, GFP_KERNEL | __GFP_ACCOUNT };
    struct task *t = arg;
    struct unit *u = &t->units[random % UNITS];
    if (u->page) {
        t->wrong += verify(u);
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

static void rig_destroy(void *kernel)
{
    struct coop_rig *r = kernel;
    coop_guest_destroy(r->guest);
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
    int rc = coop_guest_create(m, &config, &r->guest);
    for (unsigned i = 0; rc == 0 && i < TASKS; i++) {
        rc = guest_add_task(coop_guest_kernel(r->guest), task_step, &r->tasks[i]) ? 0 : -ENOMEM;
    }
    if (rc) {
        rig_destroy(r);
        return rc;
    }
    coop_guest_step(r->guest, UNITS * TASKS);
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
    return writes;
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
                wrong += verify(&r->tasks[i].units[k]);
                *pages += 1ull << r->tasks[i].units[k].order;
            }
        }
        if (wrong > 0) {
            fprintf(out, "task %u: %llu of its pages hold wrong bytes\n", i, (unsigned long long)wrong);
        }
        faults += wrong;
    }
    return faults;
}

static const struct emb_kernel_ops ops = {
    .least_pages = 4096, .create = rig_create, .destroy = rig_destroy, .domid = rig_domid, .step = rig_step, .start = rig_start,
    .stop = rig_stop, .writes = rig_writes, .check = rig_check,
};

const struct emb_kernel_ops *coop_rig_ops(void)
{
    return &ops;
}
