/*
 * aged.c - building a system and letting it run for a while.
 *
 * Owns: struct aged; the two sizes.
 * Invariants: I1  the same configuration gives the same system, page by page.
 * Lock order: none.
 * Why: every situation begins on its own system, so that none finds what another one left.
 * Cost: the short size takes about a second, the usual one ten.
 */
#include "situations.h"
#include "../../guest/mm/hugetlb.h"

const char *situation_text(unsigned number)
{
    static const char *const texts[] = {
        "bad", "order-3 atomic allocations under pressure", "the huge page pool grows on an aged system", "a section is offlined",
        "a DIMM's worth of sections is offlined", "a node is offlined",
    };
    return texts[number <= SITUATIONS ? number : 0];
}

static struct aged_config small_system(uint64_t seed)
{
    return (struct aged_config){
        .site = { .nodes = 2, .node_sections = 2, .boot_pages = 2000, .cpus = 4, .swap_slots = 65536, .policy = CLAIM_CLEAR_FIRST },
        .ager = { .tasks = 2, .task_pages = 1024, .kinds = WORKLOAD_ALL, .long_permille = 80, .files = 4000, .grow_events = 12000,
                  .frames_stay = true },
        .seed = seed, .events = 12000,
    };
}

struct aged_config aged_for(unsigned situation, uint64_t seed, bool small)
{
    struct aged_config c = small_system(seed);

    if (!small) {
        c.site.nodes = 4;
        c.site.node_sections = 4;
        c.site.cpus = 8;
        c.site.boot_pages = 6000;
        c.site.swap_slots = 262144;
        c.ager.tasks = 4;
        c.ager.task_pages = 2048;
        c.ager.files = 16000;
        c.events = c.ager.grow_events = 60000;
    }
    if (situation >= 3) {
        c.ager.kinds = WORKLOAD_ALL & ~(1u << WORKLOAD_HUGE | 1u << WORKLOAD_POLICY);
        c.pool_permille = 20;
    }
    return c;
}

static void fill_pool(struct aged *a)
{
    uint64_t pages = 0;

    for (uint32_t z = 0; z < a->site.mm->zone_count; z++) {
        pages += a->site.mm->zones[z].managed_pages;
    }
    if (!a->config.site.alike && !a->config.site.lumpy) {
        (void)hugetlb_set_pool(a->site.vm, HUGETLB_ALL_NODES, pages * a->config.pool_permille / 1000 / PAGEBLOCK_PAGES);
    }
}

bool aged_make(struct aged *a, const struct aged_config *config)
{
    *a = (struct aged){ .config = *config };
    if (!site_open(&a->site, &config->site, config->seed)) {
        return false;
    }
    if (!ager_init(&a->ager, &a->site, &config->ager)) {
        fprintf(stderr, "no memory for the tasks of this system\n");
        return false;
    }
    ager_fill(&a->ager);
    ager_run(&a->ager, config->events);
    fill_pool(a);
    mm_drain(a->site.mm);
    census_all(a->site.mm, &a->before);
    return true;
}

uint64_t aged_check(struct aged *a)
{
    a->faults = a->site.fsck(&a->site, stderr) + a->faults;
    return a->faults + ager_verify(&a->ager);
}

uint64_t aged_end(struct aged *a)
{
    uint64_t faults;

    (void)aged_check(a);
    ager_end(&a->ager);
    (void)hugetlb_set_pool(a->site.vm, HUGETLB_ALL_NODES, 0);
    faults = a->faults + a->ager.wrong + a->ager.files.wrong;
    return faults + site_close(&a->site);
}
