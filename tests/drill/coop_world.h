/*
 * coop_world.h - a machine with one guest that moves its own pages, and tasks that verify what they own.
 */
#ifndef TESTS_DRILL_COOP_WORLD_H
#define TESTS_DRILL_COOP_WORLD_H

#include "drill/coop_guest.h"
#include "hv_priv.h"

#define NODE_PAGES 16384u
#define GUEST_PAGES 8192u

/* Kernel pages of all orders, with a pattern; some are said to be a device's. */
#define POOL_UNITS 96u
struct kernel_pool {
    struct { struct page *page; unsigned order; uint64_t seed; bool dma; } units[POOL_UNITS];
    uint64_t checks, wrong;
    uint32_t dma_wanted;
};

struct world {
    struct emb_machine *m;
    struct coop_guest *c;
    char dir[64];
    uint64_t seed;
    uint64_t max_pages;
    uint32_t pool_count;
    struct kernel_pool pools[4];
};

void world_make(struct world *w, uint64_t seed, uint32_t vcpus);
void world_end(struct world *w);
fs_status_t world_evacuate(struct world *w, const char *target, const struct hv_evacuate_options *more, struct hv_report *report, struct fs_error *err);
fs_status_t world_recover(struct world *w, struct hv_recover_report *r, struct fs_error *err);
bool world_needs_recovery(const struct world *w, fs_status_t s);
/* Every check there is; fails the test. */
#define world_sane(w, what, n) world_sane_at((w), __LINE__, (what), (n))
void world_sane_at(struct world *w, int line, const char *what, uint64_t n);
uint64_t world_wrong(const struct world *w);
uint64_t report_count(const struct hv_report *r, const char *phase);

#endif
