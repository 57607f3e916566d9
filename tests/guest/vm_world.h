/*
 * vm_world.h - processes, and a naive model of every byte that they own.
 *
 * A process has windows of pages; the model knows of each page what is mapped there, with which rights, and its bytes.  Operations
 * are done on both sides, and what the model says is what must come out.
 */
#ifndef TESTS_GUEST_VM_WORLD_H
#define TESTS_GUEST_VM_WORLD_H

#include "guest_memory.h"
#include "fault.h"
#include "hugetlb.h"
#include "lru.h"
#include "mempolicy.h"
#include "migrate.h"
#include "pagecache.h"
#include "rmap.h"
#include "swap.h"
#include "thp.h"
#include "vm_fsck.h"
#include "vma.h"

/* ---- a guest with everything ---- */

struct guest {
    struct fixture f;
    struct vm vm;
    struct lru lru;
    struct pagecache pagecache;
    struct swap swap;
    struct hugetlb hugetlb;
    unsigned char *swap_bytes;
};
/* swap_slots 0: no swap. claim: compaction and the claim policy that clears blocks. */
void guest_init(struct guest *g, uint64_t pages, unsigned cpus, uint32_t swap_slots);
void guest_init_nodes(struct guest *g, uint64_t pages, unsigned cpus, uint32_t swap_slots, uint32_t nodes, uint64_t more_frames);
/* Checks that everything is free again. */
void guest_free(struct guest *g);
/* mm_fsck(), slab_fsck(), vm_fsck(): prints every fault and the seed, fails the test if there is one. */
void guest_check(struct guest *g, uint64_t seed);

/* A backing store in memory. */
struct store { unsigned char *bytes; uint64_t pages; };
extern const struct backing_ops store_ops;

/* ---- the model ---- */

#define WORLD_PROCESSES 6u
#define WORLD_WINDOWS   3u
#define WINDOW_PAGES    80u
#define PROCESS_PAGES   (WORLD_WINDOWS * WINDOW_PAGES)
#define WORLD_FILES     3u              /* the last one is shared memory */
#define FILE_PAGES      64u
/* With world.huge two windows more: one over two whole huge pages and a bit on each side, in which everything happens as in the others; and one of two
 * units of the pool, which is mapped by units. */
#define THP_EDGE        16u
#define THP_PAGES       (2 * HUGE_PAGES + 2 * THP_EDGE)
#define POOL_UNITS      2u
#define POOL_PAGES      (POOL_UNITS * HUGE_PAGES)
#define THP_FIRST       PROCESS_PAGES
#define POOL_FIRST      (THP_FIRST + THP_PAGES)
#define ALL_PAGES       (POOL_FIRST + POOL_PAGES)
#define POOL_FILE       ((int)WORLD_FILES)      /* memory of the pool that processes share */

struct world_policy { enum mpol_mode mode; nodemask_t nodes; };

struct world_page {
    bool mapped, locked;
    unsigned access;
    int file;                           /* -1: anonymous */
    uint32_t index;                     /* in the file */
    bool shared;
    unsigned char *bytes;               /* a private copy; NULL: zeros, or the file's */
    struct world_policy policy;         /* of a page that is not shared (vm_world_policy.c) */
};

struct world_process {
    struct mm_struct *mm;               /* NULL: none */
    struct world_policy policy;
    struct world_page pages[ALL_PAGES];
};

struct world {
    struct guest *g;
    struct rng r;
    uint64_t seed;
    unsigned cpus, first_cpu;           /* each operation runs on one of them; one CPU: the thread's own */
    struct world_process processes[WORLD_PROCESSES];
    unsigned files;                     /* 0: anonymous memory only */
    struct address_space as[WORLD_FILES];
    struct store stores[WORLD_FILES];
    unsigned char *file_bytes[WORLD_FILES + 1]; /* as they should be */
    bool huge;
    bool pool;                          /* with huge: the pool's window is used */
    struct hugetlb_file pool_file;
    uint64_t collapsed;
    bool may_fail;                      /* MM_ENOMEM is an answer (allocations fail on purpose) */
    uint64_t refused;                   /* how often it was given */
    struct world_policy file_policy[WORLD_FILES][FILE_PAGES];
    bool others;                        /* other threads move this world's pages too */
    uint64_t pages_moved, places_checked, statuses[MM_STATUSES];     /* vm_world_policy.c; statuses[0]: nodes */
    uint64_t swapped_out, dropped, reclaimed;   /* pages that left memory: one by one, and by reclaim */
};

void world_init(struct world *w, struct guest *g, uint64_t seed, unsigned first_cpu, unsigned cpus, unsigned files);
/* One process ends, if there is one. */
void world_end(struct world *w, unsigned process);
/* Huge pages too from now on; pool: of the pool too, which has what the shared file is promised. Before the first step. */
void world_huge(struct world *w, bool pool);
/* Every process ends, files go. */
void world_free(struct world *w);
/* One random operation on both sides. */
void world_step(struct world *w);
/* One random operation on policies, or a look at them, on both sides. pre: several nodes */
void world_policy_step(struct world *w);
/* Compare every byte that the process may read; all: every process and file. */
void world_check(struct world *w, struct world_process *p);
void world_check_all(struct world *w);
uint64_t world_va(uint32_t page);
/* A random list of pages of the world's processes is migrated. Returns how many were moved. */
uint64_t world_migrate(struct world *w);

#endif
