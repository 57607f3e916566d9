/*
 * ager.c - a system that has been running for a while.
 *
 * Owns: struct ager, kernel units.
 * Invariants:
 *   I1  every byte of a kernel unit follows from its seed; it is verified when it is given back and by ager_verify().
 *   I2  each event runs on a CPU of its own choice, so nodes mix as they do where tasks wander.
 * Lock order: none; one thread.
 * Why: situations of thread 000 are about systems "running for any length of time": what hurts is not how much is in use but
 *   where the pages that cannot move came to lie among those that can.
 * Cost: an event is a few pages touched; a file that is created is up to 160.
 */
#include "ager.h"
#include <stdlib.h>
#include <string.h>

#define PAGE_WORDS (FS_PAGE_BYTES / sizeof(uint64_t))
#define BACKGROUND_EVERY 4u
#define WAVE_EVENTS 1500u

/* ---- kernel units ---- */

bool unit_take(struct site *s, struct kernel_unit *u, gfp_t gfp, unsigned order, uint64_t seed)
{
    uint64_t x = site_mix(seed);

    *u = (struct kernel_unit){ .page = alloc_pages(s->mm, gfp | (order > 0 ? __GFP_COMP : 0u), order), .seed = seed, .order = order };
    if (u->page == NULL) {
        return false;
    }
    for (uint64_t p = 0; p < 1ull << order; p++) {
        uint64_t *words = arch_page_address(pfn_make(u->page->pfn + p));

        for (uint64_t i = 0; i < PAGE_WORDS; i++) {
            words[i] = x * (2 * i + 1) + p;
        }
    }
    return true;
}

uint64_t unit_verify(const struct kernel_unit *u)
{
    uint64_t x = site_mix(u->seed), bad = 0;

    for (uint64_t p = 0; p < 1ull << u->order; p++) {
        const uint64_t *words = arch_page_address(pfn_make(u->page->pfn + p));
        uint64_t wrong = 0;

        for (uint64_t i = 0; i < PAGE_WORDS; i++) {
            wrong |= words[i] ^ (x * (2 * i + 1) + p);
        }
        bad += wrong != 0;
    }
    return bad;
}

uint64_t unit_give(struct site *s, struct kernel_unit *u)
{
    uint64_t bad = unit_verify(u);

    page_put(s->mm, u->page);
    u->page = NULL;
    return bad;
}

static bool take(struct ager *a, struct kernel_unit *u, gfp_t gfp, unsigned order)
{
    bool went = unit_take(a->site, u, gfp, order, site_random(a->site, UINT64_MAX));

    a->asked++;
    a->refused += !went;
    return went;
}

static void give(struct ager *a, struct kernel_unit *u)
{
    if (u->page != NULL) {
        a->wrong += unit_give(a->site, u);
    }
}

/* 0 most often, at most `most`. */
static unsigned some_order(struct site *s, unsigned most)
{
    unsigned order = 0;

    while (order < most && site_random(s, 10) < 3) {
        order++;
    }
    return order;
}

static void new_group(struct ager *a)
{
    struct kernel_unit *group = a->group[site_random(a->site, AGER_GROUPS)];
    uint64_t n = 8 + site_random(a->site, AGER_GROUP_UNITS - 8);

    for (uint64_t i = 0; i < AGER_GROUP_UNITS; i++) {
        give(a, &group[i]);
    }
    for (uint64_t i = 0; i < n; i++) {
        (void)take(a, &group[i], GFP_KERNEL | __GFP_ACCOUNT, some_order(a->site, 2));
    }
}

/* What the kernel wants to hold for long, now: grows while memory is full of other things, in waves. */
static uint64_t lasting_target(const struct ager *a)
{
    uint64_t n = a->config.grow_events, at = a->events < n ? a->events : n, wave = a->events / WAVE_EVENTS % 2;
    uint64_t target = n != 0 ? a->lasting_most / 2 + a->lasting_most * at / (2 * n) : a->lasting_most;

    return wave != 0 ? target * 3 / 4 : target;
}

static void lasting_event(struct ager *a)
{
    struct site *s = a->site;

    if (a->lasting_pages < lasting_target(a) && a->lasting_count < a->lasting_capacity) {
        struct kernel_unit *u = &a->lasting[a->lasting_count];

        if (take(a, u, GFP_KERNEL, some_order(s, 3))) {
            a->lasting_count++;
            a->lasting_pages += 1ull << u->order;
        }
    } else if (a->lasting_count > 0) {
        struct kernel_unit *u = &a->lasting[site_random(s, a->lasting_count)];

        a->lasting_pages -= 1ull << u->order;
        give(a, u);
        *u = a->lasting[--a->lasting_count];
    }
}

static void kernel_event(struct ager *a)
{
    struct site *s = a->site;
    uint64_t what = site_random(s, 100);

    if (what < 3) {
        new_group(a);
    } else if (what < 40) {
        struct kernel_unit *u = &a->brief[site_random(s, AGER_SHORT)];

        give(a, u);
        (void)take(a, u, site_random(s, 4) == 0 ? GFP_ATOMIC : GFP_KERNEL, some_order(s, 1));
    } else {
        for (unsigned i = 0; i < 4; i++) {
            lasting_event(a);
        }
    }
}

/* ---- files ---- */

/* Many small ones, and most pages in large ones; 53 on average. */
static uint32_t some_size(struct site *s) { return 1 + (uint32_t)site_random(s, site_random(s, 3) == 0 ? 256 : 32); }

static void file_event(struct ager *a)
{
    struct files *f = &a->files;
    uint32_t slot = (uint32_t)site_random(a->site, f->capacity);
    struct file *file = &f->file[slot];
    uint64_t what = site_random(a->site, 100);

    if (!file->exists) {
        (void)files_create(f, slot, some_size(a->site));
    } else if (what < 15) {
        files_delete(f, slot);
    } else if (what < 20) {
        file->open = !file->open;
    } else if (what < 40) {
        files_write(f, slot, (uint32_t)site_random(a->site, file->pages));
        if (what % 2 == 0) {
            files_sync(f, slot);
        }
    } else {
        uint32_t first = (uint32_t)site_random(a->site, file->pages);

        for (uint32_t i = first; i < file->pages && i < first + 16; i++) {
            files_read(f, slot, i);
        }
    }
}

/* ---- all of it ---- */

bool ager_init(struct ager *a, struct site *s, const struct ager_config *config)
{
    uint64_t pages = 0;
    struct workload_config w = { .vm = s->vm, .seed = site_random(s, UINT64_MAX), .kinds = config->kinds, .tasks = config->tasks,
                                 .pages = config->task_pages, .frames_stay = config->frames_stay };

    *a = (struct ager){ .site = s, .config = *config };
    for (uint32_t z = 0; z < s->mm->zone_count; z++) {
        pages += s->mm->zones[z].managed_pages;
    }
    a->lasting_most = pages * config->long_permille / 1000;
    a->lasting_capacity = (uint32_t)a->lasting_most + 8;
    a->lasting = calloc(a->lasting_capacity, sizeof(*a->lasting));
    if (a->lasting == NULL || !files_init(&a->files, s, config->files)) {
        return false;
    }
    if (config->tasks > 0 && workload_start(&a->workload, &w) != MM_OK) {
        return false;
    }
    a->tasks_run = config->tasks > 0;
    return true;
}

void ager_fill(struct ager *a)
{
    struct mm *mm = a->site->mm;
    uint64_t enough = 0;

    for (uint32_t z = 0; z < mm->zone_count; z++) {
        enough += 2 * mm->zones[z].watermark[WMARK_HIGH];
    }
    for (uint32_t slot = 0; slot < a->files.capacity && mm_free_pages(mm) > enough; slot++) {
        site_any_cpu(a->site);
        (void)files_create(&a->files, slot, some_size(a->site));
        kernel_event(a);
        (void)site_background(a->site);
    }
}

void ager_run(struct ager *a, uint64_t events)
{
    for (uint64_t i = 0; i < events; i++) {
        uint64_t what = site_random(a->site, 100);

        site_any_cpu(a->site);                                                              /* I2 */
        if (what < 40 && a->tasks_run) {
            a->wrong += workload_step(&a->workload, (uint32_t)site_random(a->site, a->workload.count));
        } else if (what < 65) {
            kernel_event(a);
        } else {
            file_event(a);
        }
        if (++a->events % BACKGROUND_EVERY == 0) {
            (void)site_background(a->site);
        }
    }
}

static void verify_unit(struct ager *a, const struct kernel_unit *u)
{
    if (u->page != NULL) {
        a->wrong += unit_verify(u);
    }
}

uint64_t ager_verify(struct ager *a)
{
    for (uint32_t i = 0; i < AGER_SHORT; i++) {
        verify_unit(a, &a->brief[i]);
    }
    for (uint32_t g = 0; g < AGER_GROUPS; g++) {
        for (uint32_t i = 0; i < AGER_GROUP_UNITS; i++) {
            verify_unit(a, &a->group[g][i]);
        }
    }
    for (uint32_t i = 0; i < a->lasting_count; i++) {
        verify_unit(a, &a->lasting[i]);
    }
    if (a->tasks_run) {
        a->wrong += workload_verify_all(&a->workload);
    }
    return a->wrong + files_verify(&a->files, false);
}

struct ager_refused ager_refused(const struct ager *a)
{
    return (struct ager_refused){ .asked = a->asked + a->files.asked, .pages = a->refused, .objects = a->files.refused,
                                  .task_operations = a->tasks_run ? workload_total(&a->workload).refused : 0,
                                  .cache_pages = a->files.pages_refused };
}

void ager_end(struct ager *a)
{
    for (uint32_t i = 0; i < AGER_SHORT; i++) {
        give(a, &a->brief[i]);
    }
    for (uint32_t g = 0; g < AGER_GROUPS; g++) {
        for (uint32_t i = 0; i < AGER_GROUP_UNITS; i++) {
            give(a, &a->group[g][i]);
        }
    }
    for (uint32_t i = 0; i < a->lasting_count; i++) {
        give(a, &a->lasting[i]);
    }
    if (a->tasks_run) {
        workload_stop(&a->workload);
        a->tasks_run = false;
    }
    files_end(&a->files);
    free(a->lasting);
    a->lasting = NULL;
}
