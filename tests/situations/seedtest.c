/*
 * seedtest.c - the two tests of thread 002's mail.
 *
 * Owns: nothing.
 * Invariants:
 *   I1  both variants begin with the same memory, file by file; "vanilla" frees a block by reclaiming what is in it (lumpy) and moves nothing.
 *   I2  a huge page that was had stays until the end.
 * Lock order: none.
 * Why: the mail's first test is an easy case (all that fills memory can be dropped or moved), its second a hard one.
 * Cost: memory is written once; then as many moves, reclaimed pages and nanoseconds as are told.
 */
#include "seedtest.h"
#include <stdlib.h>
#include "../../guest/mm/hugetlb.h"
#include "../../guest/mm/page_alloc.h"

#define FILE_PAGES 128u

static struct site_config machine(uint64_t mib, bool vanilla, bool swap)
{
    uint32_t sections = (uint32_t)(mib / 128);

    return (struct site_config){ .nodes = 1, .node_sections = sections, .boot_pages = mib * 4, .cpus = 4, .lumpy = vanilla,
                                 .swap_slots = swap ? sections * SECTION_PAGES : 0, .policy = CLAIM_CLEAR_FIRST };
}

/* All creators are at work at the same time: one page each in turn, so that their pages and their metadata mix. */
static void create_files(struct files *f)
{
    uint32_t next = SEED_CREATORS, slot[SEED_CREATORS], done[SEED_CREATORS], working = SEED_CREATORS;

    for (uint32_t i = 0; i < SEED_CREATORS; i++) {
        slot[i] = i;
        done[i] = 0;
        (void)files_begin(f, i, FILE_PAGES);
    }
    while (working > 0) {
        uint32_t i = (uint32_t)site_random(f->site, SEED_CREATORS);

        if (slot[i] == f->capacity) {
            continue;
        }
        site_any_cpu(f->site);
        files_write(f, slot[i], done[i]++);
        if (done[i] % 32 == 0) {
            files_sync(f, slot[i]);
            (void)site_background(f->site);
        }
        if (done[i] == FILE_PAGES) {
            uint32_t other = (uint32_t)site_random(f->site, f->capacity);

            files_look_up(f, other);            /* updatedb */
            done[i] = 0;
            slot[i] = next < f->capacity ? next++ : f->capacity;
            working -= slot[i] == f->capacity;
            if (slot[i] != f->capacity) {
                (void)files_begin(f, slot[i], FILE_PAGES);
            }
        }
    }
}

bool seed_test_files(uint64_t mib, uint64_t seed, bool vanilla, struct huge_result *out)
{
    static struct aged a;
    struct aged_config c = { .site = machine(mib, vanilla, false), .ager = { .files = (uint32_t)(mib * 256 / FILE_PAGES) }, .seed = seed };

    a = (struct aged){ .config = c };
    if (!site_open(&a.site, &c.site, seed) || !ager_init(&a.ager, &a.site, &c.ager)) {
        return false;
    }
    create_files(&a.ager.files);
    for (uint32_t i = 1; i < a.ager.files.capacity; i += 2) {
        files_delete(&a.ager.files, i);
    }
    situation_huge(&a, HUGE_STEP_COUNT, out);
    out->faults += aged_end(&a);
    return true;
}

static bool one_more(struct aged *a, struct stress_result *r, struct page **out)
{
    struct site_counts before, d;
    uint64_t start;
    bool got;

    site_any_cpu(&a->site);
    site_counts(&a->site, &before);
    start = arch_time_ns();
    *out = alloc_pages(a->site.mm, GFP_TRANSHUGE, PAGEBLOCK_ORDER);
    start = arch_time_ns() - start;
    got = *out != NULL;
    site_counts_since(&a->site, &before, &d);
    series_add(&r->ns, (double)start);
    series_add(&r->moves, (double)d.zone[ZC_pgmigrate_success]);
    r->moved += d.zone[ZC_pgmigrate_success];
    r->reclaimed += counts_reclaimed(&d);
    r->compact_runs += d.zone[ZC_compact_run];
    r->stalls += d.lru[LC_allocstall];
    r->swapped_out += d.lru[LC_pswpout];
    if (got) {
        page_set_flags(*out, PG_PINNED);
    }
    return got;
}

bool seed_test_stress(uint64_t mib, uint64_t seed, bool vanilla, struct stress_result *r)
{
    static struct aged a;
    uint32_t pages = (uint32_t)(mib * 256 / 128 < WORKLOAD_PAGES_MAX ? mib * 256 / 128 : WORKLOAD_PAGES_MAX);
    struct aged_config c = { .site = machine(mib, vanilla, true), .seed = seed, .events = mib * 24,
                             .ager = { .tasks = 4, .task_pages = pages, .kinds = WORKLOAD_ALL & ~(1u << WORKLOAD_HUGE | 1u << WORKLOAD_MLOCK),
                                       .long_permille = 40, .files = (uint32_t)mib * 8, .grow_events = mib * 24, .frames_stay = true } };
    struct page **pool;

    *r = (struct stress_result){ .got = 0 };
    if (!aged_make(&a, &c)) {
        return false;
    }
    r->total_pages = a.site.mm->zones[0].managed_pages;
    r->attempted = r->total_pages * 9 / 10 / PAGEBLOCK_PAGES;
    pool = calloc(r->attempted, sizeof(struct page *));
    for (uint64_t i = 0; pool != NULL && i < r->attempted; i++) {
        ager_run(&a.ager, 16);                  /* the small delay between the attempts */
        r->got += one_more(&a, r, &pool[r->got]);
    }
    r->faults = aged_check(&a);
    for (uint64_t i = 0; pool != NULL && i < r->got; i++) {
        page_clear_flags(pool[i], PG_PINNED);
        page_put(a.site.mm, pool[i]);
    }
    free(pool);
    r->faults += aged_end(&a);
    return true;
}
