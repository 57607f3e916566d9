/*
 * test_replay_loads.c - loads that are made up, through the same replay as the recorded ones: the placement targets hold on any.
 *
 * Owns: the generator.  A load is a stream of trace records: allocations of a mix of kinds and orders, with lifetimes, between a low and a
 * high mark of live memory; frame numbers are names only, so any that are free will do.
 * LOADS=N makes N of them (default 12); a failure prints seed and mix.
 */
#include "guest_fixture.h"
#include "../bench/after.h"
#include "compaction.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define PFNS      65536u
#define OBJECTS   60000u

/* Bits of the recorded kernel (world.c). */
#define BITS_USER     (0x2u | 0x8u | 0x400u | 0x800u)
#define BITS_KERNEL   (0x400u | 0x800u)
#define BITS_SLAB     (0x10u | 0x400u | 0x800u)
#define BITS_ACCOUNT  (0x400000u | 0x400u | 0x800u)
#define BITS_ATOMIC   (0x20u | 0x200u | 0x800u)

struct mix {
    const char *name;
    unsigned kernel, slab, account;     /* of 1000 allocations; the rest is movable */
    unsigned low, high;                 /* percent of memory that is live: swings between the two */
    unsigned orders;                    /* largest order of kernel allocations */
    unsigned lasting;                   /* of 1000 kernel objects that stay to the end */
    unsigned atomic;                    /* of 1000 kernel allocations that may not sleep */
};
static const struct mix mixes[] = {
    { "quiet", 20, 15, 10, 30, 70, 1, 300, 20 },
    { "pressed", 25, 20, 30, 85, 96, 2, 200, 50 },
    { "slab", 15, 80, 10, 60, 92, 3, 150, 20 },
    { "forks", 15, 10, 120, 50, 93, 2, 30, 100 },
    { "orders", 60, 30, 20, 40, 90, 5, 100, 50 },
    { "kernel", 180, 120, 80, 50, 85, 2, 100, 30 },
};

struct live { uint32_t pfn; uint8_t order; bool kernel, lasting; };
struct load {
    struct rng r;
    const struct mix *mix;
    struct world *w;
    uint8_t used[PFNS];                 /* names that are taken */
    struct live live[OBJECTS];
    uint32_t count;
    uint64_t pages, at, time_us;
    uint64_t kernel_now, kernel_peak;   /* pages that are not movable */
};

static uint32_t name_of(struct load *l, unsigned order)
{
    uint32_t step = 1u << order;

    for (uint32_t tried = 0; tried < PFNS; tried += step) {
        uint32_t pfn = (uint32_t)(l->at = (l->at + step) % PFNS) & ~(step - 1);
        uint32_t i = 0;

        while (i < step && l->used[pfn + i] == 0 && pfn + step <= PFNS && pfn >= 1024) {
            i++;
        }
        if (i == step) {
            memset(l->used + pfn, 1, step);
            return pfn;
        }
    }
    return UINT32_MAX;
}

static void step(struct load *l, const struct trace_record *record)
{
    char error[200] = "";

    if (!world_step(l->w, record, error, sizeof(error))) {
        fail_msg("%s: %s", l->mix->name, error);
    }
}

static void allocate(struct load *l)
{
    const struct mix *m = l->mix;
    uint64_t kind = rng_below(&l->r, 1000);
    bool kernel = kind < m->kernel + m->slab + m->account;
    struct trace_record record = { .kind = TRACE_ALLOC, .cpu = (uint8_t)rng_below(&l->r, 2), .time_us = l->time_us += 20 };
    uint32_t pfn;

    record.gfp = kind < m->kernel ? BITS_KERNEL : kind < m->kernel + m->slab ? BITS_SLAB : kernel ? BITS_ACCOUNT : BITS_USER;
    record.order = (uint8_t)(kernel ? (rng_below(&l->r, 8) == 0 ? rng_below(&l->r, m->orders + 1) : 0) : rng_below(&l->r, 2000) == 0 ? 9 : 0);
    if (kind < m->kernel && rng_below(&l->r, 1000) < m->atomic) {
        record.gfp = BITS_ATOMIC;
    }
    record.type = (uint8_t)(record.gfp == BITS_USER ? 1 : record.gfp == BITS_SLAB ? 2 : 0);
    pfn = l->count < OBJECTS ? name_of(l, record.order) : UINT32_MAX;
    if (pfn == UINT32_MAX) {
        return;
    }
    record.pfn = pfn;
    step(l, &record);
    l->live[l->count++] = (struct live){ pfn, record.order, kernel, kernel && rng_below(&l->r, 1000) < m->lasting };
    l->pages += 1u << record.order;
    l->kernel_now += kernel ? 1u << record.order : 0;
    l->kernel_peak = l->kernel_now > l->kernel_peak ? l->kernel_now : l->kernel_peak;
}

static void release(struct load *l)
{
    uint32_t i = (uint32_t)rng_below(&l->r, l->count);
    struct trace_record record = { .kind = TRACE_FREE, .order = l->live[i].order, .pfn = l->live[i].pfn, .time_us = l->time_us += 20 };

    if (l->live[i].lasting) {
        return;
    }
    step(l, &record);
    memset(l->used + record.pfn, 0, 1u << record.order);
    l->pages -= 1u << record.order;
    l->kernel_now -= l->live[i].kernel ? 1u << record.order : 0;
    l->live[i] = l->live[--l->count];
}

/* A world of 256 MiB with some boot memory; steps records; the world is the caller's. */
static void run_load(struct load *l, struct world *w, const struct mix *mix, uint64_t seed, unsigned steps)
{
    static struct trace_run boot[] = { { 0, 900 }, { 40000, 300 } };
    struct pagetrace t = { .name = "made", .memory_mib = 256, .pfns = PFNS, .init_runs = boot, .init_count = 2, .zone_count = 1,
                           .zones = { { .name = "Normal", .spanned = PFNS, .present = PFNS, .managed = PFNS - 1200, .min = 512, .low = 640, .high = 768 } } };
    struct world_options options = { .policy = CLAIM_CLEAR_FIRST, .claim_window = -1, .proactiveness = -1 };
    char error[200];
    bool up = true;

    *l = (struct load){ .r = { seed }, .mix = mix, .w = w };
    memset(l->used, 1, 900);
    memset(l->used + 40000, 1, 300);
    if (!world_init(w, &t, &options, error, sizeof(error))) {
        fail_msg("%s", error);
    }
    for (unsigned i = 0; i < steps; i++) {
        if (up || l->count == 0) {
            allocate(l);
        }
        if ((!up || rng_below(&l->r, 5) < 2) && l->count > 0) {
            release(l);
        }
        up = up ? l->pages < (uint64_t)PFNS * mix->high / 100 : l->pages < (uint64_t)PFNS * mix->low / 100;
    }
    mm_drain(&w->mm);
}

/* Blocks that kernel pages may hold: 1.1 times those that they fill if packed; and if there were more of them before, no more than those filled
 * (nobody can move them together), and one open block for each of the three types. */
static uint64_t blocks_allowed(const struct load *l, const struct block_figures *f)
{
    uint64_t now = f->best_possible * 11 / 10, peak = (l->kernel_peak + f->live_boot + PAGEBLOCK_PAGES - 1) / PAGEBLOCK_PAGES;

    return (now > peak ? now : peak) + 3;
}

/* The targets of the recorded loads on each of these. */
static void test_targets(void **state)
{
    const char *loads = getenv("LOADS");
    unsigned n = loads != NULL ? (unsigned)strtoul(loads, NULL, 10) : 12;
    struct load *l = malloc(sizeof(*l));
    struct world *w = calloc(1, sizeof(*w));

    (void)state;
    assert_true(l != NULL && w != NULL);
    for (unsigned i = 0; i < n; i++) {
        const struct mix *mix = &mixes[i % FS_ARRAY_SIZE(mixes)];
        uint64_t seed = test_seed(7000 + i), polluting;
        struct block_figures f;
        struct compact_trial compact;
        struct loan_trial with, without;
        bool ok;

        run_load(l, w, mix, seed, 160000);
        assert_int_equal(world_check(w), 0);
        figures_blocks(&w->mm, &f);
        polluting = mm_counter(&w->mm, ZC_fallback_fragmenting) - mm_counter(&w->mm, ZC_fallback_kernel)
                    - mm_counter(&w->mm, ZC_fallback_tenant);
        assert_true(trial_compact(w, TARGET_DEFAULT, &compact));
        assert_true(trial_loan(w, true, &with));
        assert_true(trial_loan(w, false, &without));
        ok = polluting == 0 && f.polluted - f.polluted_boot <= w->mm.zones[0].lent_blocks && f.with_non_movable <= blocks_allowed(l, &f) && w->alloc_failed == 0
             && compact.free_huge_after / PAGEBLOCK_PAGES * 100 >= compact.blocks_possible * 95 && compact.migrated * 2 <= compact.moves_least * 3
             && with.polluting == 0 && with.blocks <= without.blocks + 1;
        if (!ok || loads != NULL) {
            print_message("%s seed %llu: fragmenting %llu (kernel %llu, tenant %llu), failed %llu, polluted %llu (lent %llu), "
                          "non-movable %llu of %llu packed (at most %llu), "
                          "migrated %llu, free %llu, compaction %llu / %llu (%llu / %llu), loan %llu / %llu\n", mix->name, (unsigned long long)seed,
                          (unsigned long long)mm_counter(&w->mm, ZC_fallback_fragmenting), (unsigned long long)mm_counter(&w->mm, ZC_fallback_kernel),
                          (unsigned long long)mm_counter(&w->mm, ZC_fallback_tenant), (unsigned long long)w->alloc_failed,
                          (unsigned long long)(f.polluted - f.polluted_boot), (unsigned long long)w->mm.zones[0].lent_blocks,
                          (unsigned long long)f.with_non_movable, (unsigned long long)f.needed_if_packed,
                          (unsigned long long)blocks_allowed(l, &f), (unsigned long long)w->migrated, (unsigned long long)compact.free_pages,
                          (unsigned long long)(compact.free_huge_after / PAGEBLOCK_PAGES), (unsigned long long)compact.blocks_possible,
                          (unsigned long long)compact.migrated, (unsigned long long)compact.moves_least, (unsigned long long)with.blocks,
                          (unsigned long long)without.blocks);
        }
        assert_true(ok || loads != NULL);
        assert_int_equal(compact.faults + with.faults + without.faults, 0);
        world_free(w);
    }
    free(l);
    free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_targets) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
