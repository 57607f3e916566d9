/*
 * tables.c - the generated tables (doc/SITUATIONS.md).
 *
 * Owns: their layout, and the mail's figures beside ours.
 * Invariants: I1  every figure but the mail's comes out of a run of this program.
 * Lock order: none.
 * Why: a table that is copied by hand is wrong some day.
 * Cost: everything is run once: minutes.
 */
#include "movable.h"
#include "report.h"
#include "seedtest.h"

typedef unsigned long long ull;

struct way { const char *name; enum claim_policy policy; bool alike, lumpy; };
static const struct way ways[] = {
    { "clear (default)", CLAIM_CLEAR_FIRST, false, false },
    { "next", CLAIM_NEXT_BLOCK, false, false },
    { "largest", CLAIM_LARGEST_LOWEST, false, false },
    { "grouping, lumpy reclaim, no compaction", CLAIM_LARGEST_LOWEST, false, true },
    { "no grouping", CLAIM_LARGEST_LOWEST, true, false },
};

static bool one_way(const struct table_options *t, const struct way *w, unsigned situation, struct outcome *o)
{
    struct aged_config c = aged_for(situation, t->seed, t->small);

    c.site.policy = w->policy;
    c.site.alike = w->alike;
    c.site.lumpy = w->lumpy;
    return outcome_get(&c, situation, o);
}

static const char *pass(const struct outcome *o) { return o->verdict.pass ? "PASS" : "FAIL"; }

static bool table_atomic(const struct table_options *t, FILE *out)
{
    static struct outcome o;

    fprintf(out, "## 1: order-3 atomic allocations under pressure\n\n| | verdict | had / asked | per-CPU and own blocks | "
            "whole block claimed | reserve | "
            "below low | other kernel type | movable block | polluted blocks before, after | "
            "ns, mean (deviation) |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < FS_ARRAY_SIZE(ways); i++) {
        const struct atomic_result *r = &o.u.atomic;

        if (!one_way(t, &ways[i], 1, &o)) {
            return false;
        }
        fprintf(out, "| %s | %s | %llu / %llu |", ways[i].name, pass(&o), (ull)r->got, (ull)r->asked);
        for (unsigned h = 0; h < HELPERS; h++) {
            fprintf(out, " %llu |", (ull)r->by[h]);
        }
        fprintf(out, " %llu, %llu | %.0f (%.0f) |\n", (ull)r->polluted_before, (ull)r->polluted_after, r->ns.mean, series_deviation(&r->ns));
        fflush(out);
    }
    return true;
}

static bool table_huge(const struct table_options *t, FILE *out)
{
    static struct outcome o;

    fprintf(out, "\n## 2: the huge page pool grows on an aged system\n\n| | verdict | had / if what must stay lay together (as it lies) | "
            "pages moved | "
            "reclaimed | moves each, mean (deviation) | us each, mean (deviation) |\n|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < FS_ARRAY_SIZE(ways); i++) {
        const struct huge_result *r = &o.u.huge;

        if (!one_way(t, &ways[i], 2, &o)) {
            return false;
        }
        fprintf(out, "| %s | %s | %llu / %llu (%llu) | %llu | %llu | %.1f (%.1f) | %.0f (%.0f) |\n", ways[i].name, pass(&o), (ull)r->got,
            (ull)r->packed,
                (ull)r->possible, (ull)r->moved, (ull)r->reclaimed, r->moves.mean, series_deviation(&r->moves), r->ns.mean / 1000,
                series_deviation(&r->ns) / 1000);
        fflush(out);
    }
    return true;
}

static void stays_words(const struct leave_result *r, FILE *out)
{
    uint64_t sum[STAYS_REASONS] = { 0 };
    const char *comma = "";

    for (uint32_t i = 0; i < r->count; i++) {
        for (unsigned k = 0; k < STAYS_REASONS; k++) {
            sum[k] += r->leave[i].after.stays[k];
        }
    }
    for (unsigned k = 0; k < STAYS_REASONS; k++) {
        if (sum[k] != 0) {
            fprintf(out, "%s%s %llu", comma, stays_text((enum stays)k), (ull)sum[k]);
            comma = ", ";
        }
    }
}

static bool table_leave(const struct table_options *t, unsigned situation, FILE *out)
{
    static struct outcome o;

    fprintf(out, "\n## %u: %s\n\n| | verdict | ranges | gone wholly | residual | refused | residual pages, all ranges | why they stay | "
            "moved | reclaimed |\n"
            "|---|---|---|---|---|---|---|---|---|---|\n", situation, situation_text(situation));
    for (size_t i = 0; i < FS_ARRAY_SIZE(ways); i++) {
        const struct leave_result *r = &o.u.leave;
        uint64_t moved = 0, reclaimed = 0;

        if (!one_way(t, &ways[i], situation, &o)) {
            return false;
        }
        for (uint32_t k = 0; k < r->count; k++) {
            moved += r->leave[k].migrated;
            reclaimed += r->leave[k].reclaimed;
        }
        fprintf(out, "| %s | %s | %u | %u | %u | %u | %llu | ", ways[i].name, pass(&o), r->count, r->gone, r->residual - r->failed, r->failed,
                (ull)r->residual_pages);
        stays_words(r, out);
        fprintf(out, " | %llu | %llu |\n", (ull)moved, (ull)reclaimed);
        fflush(out);
    }
    return true;
}

static uint64_t moved_in(const struct leave_result *r)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < r->count; i++) {
        n += r->leave[i].migrated;
    }
    return n;
}

bool table_movable(const struct table_options *t, FILE *out, uint64_t *faults)
{
    static struct movable_result r;

    fprintf(out, "\n## Movable zones (thread 004): one workload, where kernel pages may lie\n\n| | pages for the kernel | "
            "kernel requests refused while it aged | operations of processes refused | "
            "page cache then | kernel pages had / wanted | pages of a sparse process had / wanted | sections gone wholly | "
            "nodes gone wholly | residual pages, "
            "all nodes | pages moved for sections, nodes |\n|---|---|---|---|---|---|---|---|---|---|---|\n");
    *faults = 0;
    for (unsigned i = 0; i < MOVABLE_VARIANTS; i++) {
        if (!movable_measure(&movable_variants[i], t->seed, t->small, &r)) {
            fprintf(out, "| %s | the tasks of the mix could not even be started |\n", movable_variants[i].name);
            continue;
        }
        fprintf(out, "| %s | %llu of %llu | %llu of %llu | %llu | %llu | %llu / %llu | %llu / %llu | %u of %u | %u of %u | %llu | %llu, %llu |\n",
                r.variant->name, (ull)r.kernel_zone_pages, (ull)r.total_pages, (ull)(r.aged.pages + r.aged.objects), (ull)r.aged.asked,
                (ull)r.aged.task_operations, (ull)r.cached, (ull)r.kernel_got, (ull)r.kernel_wanted, (ull)r.sparse_got, (ull)r.sparse_wanted,
                r.sections.gone, r.sections.count, r.nodes.gone, r.nodes.count, (ull)r.nodes.residual_pages, (ull)moved_in(&r.sections),
                (ull)moved_in(&r.nodes));
        fflush(out);
        *faults += r.faults;
    }
    return true;
}

static const uint64_t sizes_mib[] = { 256, 512, 1024, 2048 };

static bool table_files(const struct table_options *t, FILE *out, uint64_t *faults)
{
    static struct huge_result r;

    fprintf(out, "\n## Thread 002, first test: memory full of files, every second deleted, huge pages in steps of 5 %%\n\n| memory | | "
            "final page count (attempted) | pages reclaimed | "
            "pages moved | compactions | direct reclaims | us each, mean (deviation) |\n|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < (t->small ? 3 : FS_ARRAY_SIZE(sizes_mib)); i++) {
        for (unsigned vanilla = 2; vanilla-- > 0;) {
            if (!seed_test_files(sizes_mib[i], t->seed, vanilla != 0, &r)) {
                return false;
            }
            fprintf(out, "| %llu MiB | %s | %llu (%llu) | %llu | %llu | %llu | %llu | %.0f (%.0f) |\n",
            (ull)sizes_mib[i], vanilla ? "lumpy reclaim" : "compaction",
                    (ull)r.got, (ull)r.attempted, (ull)r.reclaimed, (ull)r.moved, (ull)r.compact_runs, (ull)r.stalls, r.ns.mean / 1000,
                    series_deviation(&r.ns) / 1000);
            fflush(out);
            *faults += r.faults;
        }
    }
    fprintf(out, "| mail, X86 | vanilla / compaction | 915 / 916 (1002) | 88872 / 2942 | | | | |\n"
            "| mail, X86-64 | vanilla / compaction | 901 / 902 (1002) | 137573 / 50655 | | | | |\n"
            "| mail, PPC64 (16 MiB pages) | vanilla / compaction | 89 / 92 (110) | 84727 / 9345 | | | | |\n");
    return true;
}

static bool table_stress(const struct table_options *t, FILE *out, uint64_t *faults)
{
    static struct stress_result r;

    fprintf(out, "\n## Thread 002, second test: 90 %% of memory as huge pages, one at a time, under a pressured mix\n\n| memory | | "
            "had of attempted | %% | pages reclaimed | swapped out | "
            "pages moved | us an attempt, mean (deviation) |\n|---|---|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < (t->small ? 3 : FS_ARRAY_SIZE(sizes_mib)); i++) {
        for (unsigned vanilla = 2; vanilla-- > 0;) {
            if (!seed_test_stress(sizes_mib[i], t->seed, vanilla != 0, &r)) {
                return false;
            }
            fprintf(out, "| %llu MiB | %s | %llu of %llu | %.0f | %llu | %llu | %llu | %.0f (%.0f) |\n",
            (ull)sizes_mib[i], vanilla ? "lumpy reclaim" : "compaction",
                    (ull)r.got, (ull)r.attempted, 100.0 * (double)r.got / (double)r.attempted, (ull)r.reclaimed, (ull)r.swapped_out, (ull)r.moved,
                    r.ns.mean / 1000, series_deviation(&r.ns) / 1000);
            fflush(out);
            *faults += r.faults;
        }
    }
    fprintf(out, "| mail, X86 | vanilla / compaction | | 96 / 99 | | | | |\n| mail, X86-64 | vanilla / compaction | | 96 / 98 | | | | |\n"
            "| mail, PPC64 (16 MiB pages) | vanilla / compaction | | 51 / 79 | | | | |\n");
    return true;
}

bool tables_print(const struct table_options *t, FILE *out)
{
    uint64_t faults = 0, more = 0;
    bool done = table_atomic(t, out) && table_huge(t, out);

    for (unsigned situation = 3; done && situation <= SITUATIONS; situation++) {
        done = table_leave(t, situation, out);
    }
    done = done && table_movable(t, out, &faults) && table_files(t, out, &more) && table_stress(t, out, &more);
    if (done) {
        fprintf(out, "\nGenerated by `%s`, seed %llu. Faults of all checks together, movable zones and thread 002: %llu.\n", t->command, (ull)t->seed,
                (ull)(faults + more));
    }
    return done && faults + more == 0;
}
