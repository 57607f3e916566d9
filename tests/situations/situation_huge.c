/*
 * situation_huge.c - situation 2: the pool of huge pages grows, 5% of memory at a time, on a system that has been running.
 *
 * Owns: the pool, while the drill lasts.
 * Invariants:
 *   I1  a page of the pool is a whole block in use, pinned; the pool is recounted from the memmap.
 *   I2  what is possible is counted before the first page is taken: blocks in which nothing must stay, and no more than
 *       what is not fixed and not locked.
 * Lock order: none.
 * Why: each page is asked for like any process would (alloc_pages with order 9): direct compaction and reclaim, nothing else, make room.
 * Cost: as many moves and reclaimed pages as it says.
 */
#include "situations.h"
#include "../../guest/mm/page_alloc.h"
#include <stdlib.h>

#define MISSES 3u                   /* steps that were not met; then it is over, as in the traces' baseline */

/* I2: mlocked pages stay in memory, wherever that is. packed: as if the fixed pages lay together. */
static uint64_t possible(const struct mm *mm, uint64_t *packed)
{
    uint64_t locked = 0;
    struct census c;

    census_all(mm, &c);
    for (uint64_t pfn = 0; pfn < mm->end_pfn; pfn++) {
        const struct page *p = mm_pfn_valid(mm, pfn_make(pfn)) ? mm_page(mm, pfn_make(pfn)) : NULL;

        locked += p != NULL && page_state(p) == PAGE_USED && page_test(p, PG_MLOCKED);
    }
    *packed = (c.free + c.movable - locked) / PAGEBLOCK_PAGES;
    return c.blocks - c.with_fixed < *packed ? c.blocks - c.with_fixed : *packed;
}

static struct page *grow(struct aged *a, struct huge_result *r, struct huge_step *step)
{
    struct site *s = &a->site;
    struct site_counts before, d;
    uint64_t start;
    struct page *p;

    site_any_cpu(s);
    site_counts(s, &before);
    start = arch_time_ns();
    p = alloc_pages(s->mm, GFP_TRANSHUGE, PAGEBLOCK_ORDER);
    start = arch_time_ns() - start;
    site_counts_since(s, &before, &d);
    step->moved += d.zone[ZC_pgmigrate_success];
    step->reclaimed += counts_reclaimed(&d);
    step->compact_runs += d.zone[ZC_compact_run];
    r->stalls += d.lru[LC_allocstall];
    r->swapped_out += d.lru[LC_pswpout];
    if (p != NULL) {
        page_set_flags(p, PG_PINNED);
        series_add(&step->ns, (double)start);
        series_add(&r->ns, (double)start);
        series_add(&r->moves, (double)d.zone[ZC_pgmigrate_success]);
    }
    return p;
}

static uint64_t recount(const struct mm *mm, struct page **pool, uint64_t n)
{
    uint64_t good = 0;

    for (uint64_t i = 0; i < n; i++) {
        bool twice = false;

        for (uint64_t k = 0; k < i; k++) {
            twice = twice || pool[k] == pool[i];
        }
        good += !twice && mm_page(mm, page_pfn(pool[i])) == pool[i] && page_state(pool[i]) == PAGE_USED && page_order(pool[i]) == PAGEBLOCK_ORDER
                && pool[i]->pfn % PAGEBLOCK_PAGES == 0 && page_test(pool[i], PG_PINNED);
    }
    return good;
}

void situation_huge(struct aged *a, struct huge_result *r)
{
    const struct mm *mm = a->site.mm;
    unsigned missed = 0;
    struct page **pool;

    *r = (struct huge_result){ .got = 0 };
    mm_drain(a->site.mm);
    r->possible = possible(mm, &r->packed);
    for (uint32_t z = 0; z < mm->zone_count; z++) {
        r->total_pages += mm->zones[z].managed_pages;
    }
    pool = calloc(r->total_pages / PAGEBLOCK_PAGES + 1, sizeof(*pool));
    for (uint32_t i = 1; pool != NULL && i <= HUGE_STEP_COUNT && missed < MISSES; i++) {
        struct huge_step *step = &r->step[r->steps++];
        struct page *p = NULL;

        step->wanted = r->total_pages * i / HUGE_STEP_COUNT / PAGEBLOCK_PAGES;
        r->attempted = step->wanted;
        while (r->got < step->wanted && (p = grow(a, r, step)) != NULL) {
            pool[r->got++] = p;
        }
        step->got = r->got;
        missed += step->got < step->wanted;
        r->moved += step->moved;
        r->reclaimed += step->reclaimed;
        r->compact_runs += step->compact_runs;
        (void)site_background(&a->site);
    }
    r->recounted = pool != NULL ? recount(mm, pool, r->got) : 0;                            /* I1 */
    r->faults += a->site.fsck(&a->site, stderr);
    for (uint64_t i = 0; pool != NULL && i < r->got; i++) {
        page_clear_flags(pool[i], PG_PINNED);
        page_put(a->site.mm, pool[i]);
    }
    free(pool);
    r->faults += aged_check(a);
}

void judge_huge(const struct huge_result *r, struct verdict *v)
{
    *v = (struct verdict){ .situation = 2, .pass = r->got * 100 >= r->packed * 90 && r->recounted == r->got && r->faults == 0 };
    snprintf(v->criterion, sizeof(v->criterion), "at least 90 %% of the huge pages that there would be if the pages that must stay lay together, each "
             "recounted in the memmap, every byte and every fsck is right");
    snprintf(v->is, sizeof(v->is), "%llu huge pages of %llu (as the fixed pages lie: %llu; recounted %llu), %llu pages moved, %llu reclaimed; "
             "%llu faults", (unsigned long long)r->got, (unsigned long long)r->packed, (unsigned long long)r->possible,
             (unsigned long long)r->recounted, (unsigned long long)r->moved, (unsigned long long)r->reclaimed, (unsigned long long)r->faults);
}
