/*
 * situation_leave.c - situations 3, 4 and 5: a section, a DIMM's worth of sections, a node leaves.
 *
 * Owns: nothing.
 * Invariants:
 *   I1  what the host was given and what is still in use add up to the range, page by page.
 *   I2  nothing that could have left is left, and nothing that cannot leave has come.
 * Lock order: none.
 * Why one at a time and back: then each range is judged for itself, as in the traces' baseline.
 *   Pages that cannot move stay in place (residual): the frames under them are the hypervisor side's (tests/drill/test_situations.c).
 * Cost: the moves; two censuses a range.
 */
#include "situations.h"
#include <stdlib.h>
#include "../../guest/mm/isolation.h"
#include "../../guest/mm/page_alloc.h"

#define CALLS_MAX 20u
#define EVENTS_A_TASK 50u           /* each task comes to its next step as often at either size */
#define AWAY_EVENTS 300u

/* Planted: nobody keeps others out of the blocks that are left. */
static void undo_isolation(struct aged *a, uint64_t start, uint64_t end)
{
    for (uint64_t pfn = start; pfn < end; pfn += PAGEBLOCK_PAGES) {
        const struct pageblock *pb = mm_block(a->site.mm, pfn_block(pfn_make(pfn)));

        if (!pb->offline && pb->isolations > 0 && isolate_undo(a->site.mm, pfn_make(pfn), pfn_make(pfn + PAGEBLOCK_PAGES)) != MM_OK) {
            break;
        }
    }
}

/* Life goes on while the range is away: pages there may be freed, and none may come. Who was there is remembered by page. */
static void life_without(struct aged *a, struct leave_result *r, uint64_t start, uint64_t end)
{
    const struct mm *mm = a->site.mm;
    uint8_t *used = calloc(end - start, 1);
    uint64_t came = 0;

    for (uint64_t pfn = start; used != NULL && pfn < end; pfn++) {
        used[pfn - start] = page_state(mm_page(mm, pfn_make(pfn))) == PAGE_USED;
    }
    if (a->isolation_undone) {
        undo_isolation(a, start, end);
    }
    for (unsigned i = 0; used != NULL && i < 4; i++) {
        ager_run(&a->ager, AWAY_EVENTS / 4);
        for (uint64_t pfn = start; pfn < end; pfn++) {
            bool now = page_state(mm_page(mm, pfn_make(pfn))) == PAGE_USED;

            came += now && used[pfn - start] == 0;
            used[pfn - start] = now;
        }
    }
    r->came += came > 0 || used == NULL;
    free(used);
}

static void leave_one(struct aged *a, struct leave_result *r, uint64_t start, uint64_t end)
{
    struct site *s = &a->site;
    struct leave *l = &r->leave[r->count++];
    struct hotplug_report report, back;
    struct site_counts before, d;
    struct census c;
    uint64_t time;

    *l = (struct leave){ .start = start, .end = end };
    mm_drain(s->mm);
    census_range(s->mm, start, end, &c);
    l->fixed_before = c.fixed;
    r->ranges_with_fixed += c.fixed > 0;
    site_counts(s, &before);
    do {
        if (l->calls > 0) {
            ager_run(&a->ager, EVENTS_A_TASK * a->config.ager.tasks);       /* the device lets go some time */
        }
        time = arch_time_ns();
        l->status = memory_offline(s->mm, pfn_make(start), pfn_make(end), OFFLINE_RESIDUAL_OK, &s->host, &report, NULL);
        l->ns += arch_time_ns() - time;
        l->migrated += report.migrated_pages;
        l->extents += report.extents;
        census_range(s->mm, start, end, &l->after);
    } while (++l->calls < CALLS_MAX && l->status == MM_OK && l->after.stays[STAYS_PINNED] > 0);
    site_counts_since(s, &before, &d);
    l->reclaimed = counts_reclaimed(&d);
    l->given = s->gone(s, start, end);
    r->failed += l->status != MM_OK;
    r->movable_stayed += l->after.movable > 0;                                              /* I2 */
    r->miscounted += l->given != l->after.absent || l->given + l->after.fixed + l->after.movable + l->after.free != end - start
                     || l->after.free > 0 || l->after.fixed > l->fixed_before;              /* I1 */
    r->gone += l->given == end - start;
    r->residual += l->given < end - start;
    r->residual_pages += end - start - l->given;
    r->faults += s->fsck(s, stderr);
    life_without(a, r, start, end);
    l->back = memory_online(s->mm, pfn_make(start), pfn_make(end), &s->host, &back) == MM_OK && s->gone(s, start, end) == 0;
    r->faults += !l->back;
}

void situation_leave(struct aged *a, unsigned situation, struct leave_result *r)
{
    const struct mm *mm = a->site.mm;
    uint64_t step = situation == 3 ? SECTION_PAGES : SITE_DIMM_SECTIONS * SECTION_PAGES;
    uint32_t lowest = situation == 5 ? 1 : 0;

    *r = (struct leave_result){ .situation = situation };
    for (uint32_t node = mm->node_count; node-- > lowest;) {
        uint64_t start, end, size;
        struct census c;

        node_span(mm, node, &start, &end);
        size = situation == 5 ? end - start : step;
        census_range(mm, start, end, &c);
        r->packed_ranges += (c.fixed + size - 1) / size;
        for (uint64_t from = end; from >= start + size && r->count < LEAVES_MAX; from -= size) {
            leave_one(a, r, from - size, from);
        }
    }
    r->faults += aged_check(a);
}

void judge_leave(const struct leave_result *r, struct verdict *v)
{
    /* Kernel pages belong to every node but movable ones: a node leaves all but its own, and its residual frames are moved underneath. */
    uint64_t must_go = r->situation == 5 ? 0 : r->count - r->packed_ranges;

    *v = (struct verdict){ .situation = r->situation, .pass = r->count > 0 && r->failed == 0 && r->movable_stayed == 0 && r->miscounted + r->came == 0
                           && r->gone >= must_go && r->faults == 0 };
    snprintf(v->criterion, sizeof(v->criterion), "nothing that can leave stays, nothing comes, the host has every other page, each residual page has a "
             "reason, and of %u ranges %llu leave wholly (all that packed kernel pages would not fill); every byte and every fsck is right", r->count,
             (unsigned long long)must_go);
    snprintf(v->is, sizeof(v->is), "%u gone wholly, %u residual with %llu pages, %u refused, %u with movable pages left, %u with new ones, %u miscounted; "
             "%llu faults",
             r->gone, r->residual, (unsigned long long)r->residual_pages, r->failed, r->movable_stayed, r->came,
             r->miscounted, (unsigned long long)r->faults);
}
