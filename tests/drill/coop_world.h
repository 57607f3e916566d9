/*
 * coop_world.h - a machine with one guest that moves its own pages, and tasks that verify what they own.
 */
#ifndef TESTS_DRILL_COOP_WORLD_H
#define TESTS_DRILL_COOP_WORLD_H

#include <ucontext.h>
#include "drill/coop_guest.h"
#include "hv_priv.h"

#define NODE_PAGES 16384u
#define GUEST_PAGES 8192u
#define SMALL_PAGES 3072u              /* where there are many runs */

/* Kernel pages of all orders, with a pattern; some are said to be a device's. */
#define POOL_UNITS 96u
struct kernel_pool {
    struct { struct page *page; unsigned order; uint64_t seed; bool dma; } units[POOL_UNITS];
    uint64_t checks, wrong;
    uint32_t dma_wanted;
};

/* A family of processes: anonymous memory, forks, locked pages, a file and shared memory; each byte is known. */
#define FAMILY_MEMBERS 4u
#define FAMILY_PAGES   96u
#define FAMILY_FILE_PAGES 48u
struct family {
    struct member { struct mm_struct *mm; uint64_t seed[FAMILY_PAGES]; bool locked[FAMILY_PAGES]; } members[FAMILY_MEMBERS];
    struct address_space *file[2];              /* with a backing store, and shared memory; in guest memory */
    uint64_t file_seed[2][FAMILY_FILE_PAGES];
    unsigned char *store;
    uint64_t checks, wrong, refused, forks;
};
void family_init(struct family *f, struct guest *g);
void family_step(void *arg, struct guest *g, uint64_t random);
void family_verify(struct family *f);
void family_end(struct family *f);

/* A kernel thread with its stack in guest memory. */
#define FIBER_ORDER 3u
struct fiber { struct page *stack; ucontext_t inside, outside; uint64_t seed, checks, wrong; void *sanitizer_inside, *sanitizer_outside; };
void fiber_init(struct fiber *f, struct guest *g, uint64_t seed);
void fiber_step(void *arg, struct guest *g, uint64_t random);

struct world {
    struct emb_machine *m;
    struct coop_guest *c;
    char dir[64];
    uint64_t seed;
    uint64_t max_pages, pages;
    uint32_t pool_count;
    struct kernel_pool pools[4];
    uint32_t family_count;
    struct family families[4];
    unsigned char *swap_bytes;
    struct fiber fibers[2];
};

void world_make(struct world *w, uint64_t seed, uint32_t vcpus, uint64_t pages);
void world_end(struct world *w);
/* Without asking the guest for anything any more: its memory is not what it was. */
void world_drop(struct world *w);
fs_status_t world_evacuate(struct world *w, const char *target, const struct hv_evacuate_options *more, struct hv_report *report, struct fs_error *err);
fs_status_t world_recover(struct world *w, struct hv_recover_report *r, struct fs_error *err);
/* tool() runs in a child, which may be killed (crash_at, world_kill_tool()); the guest runs here all the while.  Was it killed? */
bool world_run_and_kill(struct world *w, void (*tool)(struct world *w, void *arg), void *arg);
/* A hook for a fault plan, before whose call the tool of world_run_and_kill() dies. */
void world_kill_tool(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call);
bool world_needs_recovery(const struct world *w, fs_status_t s);
/* Every check there is; fails the test. */
#define world_sane(w, what, n) world_sane_at((w), __LINE__, (what), (n))
void world_sane_at(struct world *w, int line, const char *what, uint64_t n);
uint64_t world_wrong(const struct world *w);
uint64_t report_count(const struct hv_report *r, const char *phase);

#endif
