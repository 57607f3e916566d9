/*
 * situation_huge.c - situation 2: the pool of huge pages grows, 5% of memory at a time, on a system that has been running.
 *
 * Owns: the pool, while the drill lasts.
 * Invariants:
 *   I1  a page of the pool is a whole block in use; the pool is recounted from the memmap.
 *   I2  what is possible is counted before the first page is taken: blocks in which nothing must stay, and no more than
 *       what is not fixed and not locked.
 * Lock order: none.
 * Why: the pool grows by one page at a time (hugetlb_set_pool), so that each has its latency.  The baselines have no compaction and ask
 *   the allocator, as a kernel of that time did.
 * Cost: as many moves and reclaimed pages as it says.
 */
#include "situations.h"
#include "../../guest/mm/hugetlb.h"
#include "../../guest/mm/page_alloc.h"
#include <stdlib.h>

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

/* One more, and what it cost. False: no further page. */
static bool grow(struct aged *a, struct huge_result *r, struct huge_step *step, struct page **out)
{
    struct site *s = &a->site;
    struct site_counts before, d;
    uint64_t start, reached = r->got;

    site_any_cpu(s);
    site_counts(s, &before);
    start = arch_time_ns();
    if (a->config.site.alike || a->config.site.lumpy) {
        *out = alloc_pages(s->mm, GFP_TRANSHUGE, PAGEBLOCK_ORDER);                         /* no compaction: nothing for the pool to try */
        reached += *out != NULL;
    } else {
        reached = hugetlb_set_pool(s->vm, HUGETLB_ALL_NODES, r->got + 1);
    }
    start = arch_time_ns() - start;
    site_counts_since(s, &before, &d);
    step->moved += d.zone[ZC_pgmigrate_success];
    step->reclaimed += counts_reclaimed(&d);
    step->compact_runs += d.zone[ZC_compact_run];
    r->stalls += d.lru[LC_allocstall];
    r->swapped_out += d.lru[LC_pswpout];
    if (reached > r->got) {
        series_add(&step->ns, (double)start);
        series_add(&r->ns, (double)start);
        series_add(&r->moves, (double)d.zone[ZC_pgmigrate_success]);
        r->got++;
        return true;
    }
    return false;
}

/* I1: whole blocks in use that are the pool's, or the drill's own. */
static uint64_t recount(const struct mm *mm, struct page **own, uint64_t n)
{
    uint64_t good = 0;

    for (uint64_t i = 0; i < n; i++) {
        good += own[i] != NULL && page_state(own[i]) == PAGE_USED && page_order(own[i]) == PAGEBLOCK_ORDER && page_refs(own[i]) == 1
                && own[i]->private == i;
    }
    for (uint32_t b = 0; b < mm->end_pfn >> PAGEBLOCK_ORDER; b++) {
        const struct page *p = mm_pfn_valid(mm, block_pfn(b)) ? mm_block_page(mm, b) : NULL;

        good += p != NULL && page_state(p) == PAGE_USED && page_order(p) == PAGEBLOCK_ORDER && page_test(p, PG_HUGE);
    }
    return good;
}

static void give_back(struct aged *a, struct page **own, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        if (own[i] != NULL) {
            page_put(a->site.mm, own[i]);
        }
    }
    (void)hugetlb_set_pool(a->site.vm, HUGETLB_ALL_NODES, 0);
}

void situation_huge(struct aged *a, unsigned misses, struct huge_result *r)
{
    const struct mm *mm = a->site.mm;
    unsigned missed = 0;
    struct page **own;

    *r = (struct huge_result){ .got = 0 };
    mm_drain(a->site.mm);
    r->possible = possible(mm, &r->packed);
    for (uint32_t z = 0; z < mm->zone_count; z++) {
        r->total_pages += mm->zones[z].managed_pages;
    }
    own = calloc(r->total_pages / PAGEBLOCK_PAGES + 1, sizeof(struct page *));
    for (uint32_t i = 1; own != NULL && i <= HUGE_STEP_COUNT && missed < misses; i++) {
        struct huge_step *step = &r->step[r->steps++];

        step->wanted = r->total_pages * i / HUGE_STEP_COUNT / PAGEBLOCK_PAGES;
        r->attempted = step->wanted;
        while (r->got < step->wanted) {
            struct page *p = NULL;

            if (!grow(a, r, step, &p)) {
                break;
            }
            own[r->got - 1] = p;
            if (p != NULL) {
                p->private = r->got - 1;
            }
        }
        step->got = r->got;
        missed += step->got < step->wanted;
        r->moved += step->moved;
        r->reclaimed += step->reclaimed;
        r->compact_runs += step->compact_runs;
        (void)site_background(&a->site);
    }
    r->recounted = own != NULL ? recount(mm, own, r->got) : 0;
    r->faults += a->site.fsck(&a->site, stderr);
    give_back(a, own, own != NULL ? r->got : 0);
    free(own);
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
