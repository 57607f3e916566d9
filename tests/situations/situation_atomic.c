/*
 * situation_atomic.c - situation 1: order-3 allocations of a caller that cannot sleep, under pressure.
 *
 * Owns: the network card's buffers.
 * Invariants:
 *   I1  a buffer counts as had only if it is an aligned unit of eight pages in use, and its bytes are right when it goes.
 *   I2  between the bursts the system goes on (page cache, processes, kernel), and its background runs as it always does; in a burst
 *       nothing else runs: that is what an interrupt is.
 * Lock order: none.
 * Why: a card that receives in frames of 9000 bytes needs eight pages in a row, now.  Whether it gets them must not depend on luck, and
 *   must not cost a block of movable pages.
 * Cost: a burst is 128 allocations, and 24 events of ageing between two of them.
 */
#include "situations.h"
#include "../../guest/mm/page_alloc.h"
#include "../../guest/mm/pageblock.h"

#define BURST   128u                /* 4 MiB at once */
#define QUEUE   768u                /* buffers in flight: 24 MiB */
#define EVENTS  24u
#define ORDER   3u

const char *helper_name(enum helper h)
{
    static const char *const names[] = {
#define X(name, text) #name,
        HELPER_LIST(X)
#undef X
    };
    return (unsigned)h < HELPERS ? names[h] : "bad";
}

const char *helper_text(enum helper h)
{
    static const char *const texts[] = {
#define X(name, text) text,
        HELPER_LIST(X)
#undef X
    };
    return (unsigned)h < HELPERS ? texts[h] : "bad";
}

struct queue { struct kernel_unit buffer[QUEUE]; uint32_t at; };

static uint64_t kernel_blocks(const struct mm *mm)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        n += mm->zones[i].blocks_of[MIGRATE_UNMOVABLE];
    }
    return n;
}

static enum helper who_helped(const struct mm *mm, const struct page *p, const struct site_counts *d, bool claimed)
{
    if (d->zone[ZC_fallback] > 0 && d->zone[ZC_fallback_fragmenting] > 0) {
        return d->zone[ZC_fallback_kernel] > 0 ? HELPER_KERNEL : HELPER_MOVABLE;
    }
    if (claimed) {
        return HELPER_WHOLE;
    }
    if (d->zone[ZC_alloc_slow] > 0) {
        return pageblock_type(mm, page_block(p)) == MIGRATE_HIGHATOMIC ? HELPER_RESERVE : HELPER_SLOW;
    }
    return HELPER_PCP;
}

static void receive(struct aged *a, struct queue *q, struct atomic_result *r)
{
    struct site *s = &a->site;
    struct kernel_unit *u = &q->buffer[q->at];
    struct site_counts before, d;
    uint64_t blocks, start;
    bool got;

    q->at = (q->at + 1) % QUEUE;
    if (u->page != NULL) {
        r->faults += unit_give(s, u);
    }
    site_counts(s, &before);
    blocks = kernel_blocks(s->mm);
    start = arch_time_ns();
    u->page = alloc_pages(s->mm, GFP_ATOMIC | __GFP_COMP, ORDER);
    series_add(&r->ns, (double)(arch_time_ns() - start));
    got = u->page != NULL;
    r->asked++;
    r->got += got;
    if (got) {
        site_counts_since(s, &before, &d);
        r->by[who_helped(s->mm, u->page, &d, kernel_blocks(s->mm) > blocks)]++;
        r->faults += page_state(u->page) != PAGE_USED || page_order(u->page) != ORDER || u->page->pfn % (1u << ORDER) != 0;     /* I1 */
        page_put(s->mm, u->page);                   /* the card's buffer with a pattern: the same unit, or one like it */
        if (!unit_take(s, u, GFP_ATOMIC, ORDER, site_random(s, UINT64_MAX))) {
            r->faults++;
        }
    }
}

void situation_atomic(struct aged *a, uint64_t bursts, struct atomic_result *r)
{
    static struct queue q;
    struct site_counts before, d;
    struct census c;

    q = (struct queue){ .at = 0 };
    *r = (struct atomic_result){ .bursts = bursts, .free_least = UINT64_MAX };
    census_all(a->site.mm, &c);
    r->polluted_before = c.polluted;
    r->blocks = c.blocks;
    r->with_fixed_before = c.with_fixed;
    site_counts(&a->site, &before);
    for (uint64_t i = 0; i < bursts; i++) {
        uint64_t free;

        ager_run(&a->ager, EVENTS);                                                         /* I2 */
        free = mm_free_pages(a->site.mm);
        r->free_least = free < r->free_least ? free : r->free_least;
        r->free_most = free > r->free_most ? free : r->free_most;
        site_any_cpu(&a->site);
        for (unsigned n = 0; n < BURST; n++) {
            receive(a, &q, r);
        }
    }
    site_counts_since(&a->site, &before, &d);
    r->migrated = d.zone[ZC_pgmigrate_success];
    r->reclaimed = counts_reclaimed(&d);
    census_all(a->site.mm, &c);
    r->polluted_after = c.polluted;
    r->with_fixed_after = c.with_fixed;
    for (uint32_t i = 0; i < CENSUS_NAMED; i++) {
        r->mixed[i] = c.mixed[i];
    }
    for (uint32_t i = 0; i < QUEUE; i++) {
        r->faults += q.buffer[i].page != NULL ? unit_give(&a->site, &q.buffer[i]) : 0;
    }
    r->faults += aged_check(a);
}

void judge_atomic(const struct atomic_result *r, struct verdict *v)
{
    *v = (struct verdict){ .situation = 1, .pass = r->got * 1000 >= r->asked * 999 && r->polluted_after <= r->polluted_before && r->faults == 0 };
    snprintf(v->criterion, sizeof(v->criterion), "at least 99.9 %% of the buffers are had, no more blocks than before hold kernel pages among movable "
             "ones that nobody knows of, every byte and every fsck is right");
    snprintf(v->is, sizeof(v->is), "%llu of %llu had; polluted blocks %llu before, %llu after; %llu faults", (unsigned long long)r->got,
             (unsigned long long)r->asked, (unsigned long long)r->polluted_before, (unsigned long long)r->polluted_after,
             (unsigned long long)r->faults);
}
