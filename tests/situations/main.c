/* scratch main */
#include "situations.h"
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv)
{
    struct aged_config c = aged_short(1);
    struct verdict v;
    for (int i = 1; i < argc; i++) {
        static struct aged a;
        unsigned n = (unsigned)atoi(argv[i]);
        uint64_t t = arch_time_ns();
        if (!strcmp(argv[i], "usual")) { c = aged_usual(1); continue; }
        if (!strcmp(argv[i], "largest")) { c.site.policy = CLAIM_LARGEST_LOWEST; continue; }
        if (!strcmp(argv[i], "alike")) { c.site.alike = true; continue; }
        if (!strcmp(argv[i], "lumpy")) { c.site.lumpy = true; continue; }
        if (!aged_make(&a, &c)) return 2;
        struct census *b = &a.before; struct ager_refused rf = ager_refused(&a.ager);
        printf("aged %.2fs: pages %lu free %lu movable %lu fixed %lu; blocks %lu whole %lu with_fixed %lu packed %lu polluted %lu refused %lu+%lu of %lu tasks %lu cache %lu faults %lu\n",
            (double)(arch_time_ns() - t) / 1e9, b->pages, b->free, b->movable, b->fixed, b->blocks, b->whole, b->with_fixed, b->packed, b->polluted, rf.pages, rf.objects, rf.asked, rf.task_operations, rf.cache_pages, aged_check(&a));
        for (unsigned k = 0; k < STAYS_REASONS; k++) printf(" %s %lu", stays_name(k), b->stays[k]);
        printf("\n");
        t = arch_time_ns();
        if (n == 1) { static struct atomic_result r; situation_atomic(&a, 400, &r); judge_atomic(&r, &v);
            for (unsigned k = 0; k < HELPERS; k++) printf(" %s %lu", helper_name(k), r.by[k]);
            printf("\n free %lu..%lu migrated %lu reclaimed %lu with_fixed %lu->%lu ns %.0f +- %.0f\n", r.free_least, r.free_most, r.migrated, r.reclaimed, r.with_fixed_before, r.with_fixed_after, r.ns.mean, series_deviation(&r.ns)); }
        else if (n == 2) { static struct huge_result r; situation_huge(&a, &r); judge_huge(&r, &v);
            for (unsigned k = 0; k < r.steps; k++) { printf("  %lu/%lu moved %lu recl %lu runs %lu ns %.0f +- %.0f\n", r.step[k].got, r.step[k].wanted, r.step[k].moved, r.step[k].reclaimed, r.step[k].compact_runs, r.step[k].ns.mean, series_deviation(&r.step[k].ns)); } }
        else { static struct leave_result r; situation_leave(&a, n, &r); judge_leave(&r, &v);
            for (unsigned k = 0; k < r.count; k++) { struct leave *l = &r.leave[k]; printf("  %lx: st %d fixed before %lu given %lu ext %lu movable left %lu fixed %lu migrated %lu recl %lu ms %.1f back %d:", l->start, l->status, l->fixed_before, l->given, l->extents, l->after.movable, l->after.fixed, l->migrated, l->reclaimed, (double)l->ns/1e6, l->back);
              for (unsigned q = 0; q < STAYS_REASONS; q++) { if (l->after.stays[q]) { printf(" %s %lu", stays_name(q), l->after.stays[q]); } } printf("\n"); } }
        printf("situation %u %s (%.2fs)\n  must: %s\n  is: %s\n", n, v.pass ? "PASS" : "FAIL", (double)(arch_time_ns() - t) / 1e9, v.criterion, v.is);
        printf("end faults %lu\n", aged_end(&a));
    }
    return 0;
}
