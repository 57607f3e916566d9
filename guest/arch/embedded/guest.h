/*
 * guest.h - one guest kernel of this process: machine layer, memory core, the thread that speaks abi.h, tasks.
 *
 * Owns: struct guest.  The kernel's own structures (struct mm, struct vm, struct coop, the struct pages) lie in guest memory
 * and move with it; what is here belongs to the process.
 */
#ifndef GUEST_ARCH_EMBEDDED_GUEST_H
#define GUEST_ARCH_EMBEDDED_GUEST_H

#include "../../mm/coop.h"
#include "../../mm/hugetlb.h"
#include "../../mm/lru.h"
#include "../../mm/pagecache.h"
#include "../../mm/swap.h"
#include "machine.h"

struct guest;

/* Something that the guest does again and again, a little at a time, on whatever CPU. random: new each time. */
struct guest_task {
    void (*step)(void *arg, struct guest *g, uint64_t random);
    void *arg;
};
#define GUEST_TASKS_MAX 64u

struct guest {
    struct guest_machine machine;
    struct mm *mm;
    struct vm *vm;
    struct lru *lru;
    struct pagecache *pagecache;
    struct swap *swap;
    struct hugetlb *hugetlb;
    struct coop *coop;
    struct guest_task tasks[GUEST_TASKS_MAX];
    uint32_t task_count;
    uint64_t random;                            /* state of the deterministic scheduler */
    uint64_t steps, suspends;
    _Atomic bool stop;                          /* threads leave their loops */
};

struct guest_boot_config {
    uint64_t seed;
    uint64_t kernelcore_pages, dma_pages, min_free_pages;      /* as struct mm_config */
    unsigned core_percent;                      /* as struct mm_config: __GFP_DMA takes from there only */
    bool no_coop;                               /* it does not say that it moves its own pages */
};

/* Boot on what the domain's builder left. 0 or -errno. The calling thread is CPU 0 afterwards. */
int guest_boot(struct guest *g, const struct guest_host *host, uint8_t *direct, const void *start_info, unsigned cpus,
               const struct guest_boot_config *config);
/* False: no place. Before threads run, or in deterministic mode at any time. */
bool guest_add_task(struct guest *g, void (*step)(void *arg, struct guest *g, uint64_t random), void *arg);
/* Deterministic mode: a task's step on a random CPU, then the kernel thread on CPU 0. */
void guest_step(struct guest *g);
/* Threaded mode: what the thread that is this CPU does until g->stop. pre: called by host.run() */
void guest_cpu_main(struct guest_cpu *cpu, struct guest *g);
/* Everything that the kernel knows of itself; the number of faults. Deterministic mode, or no thread runs. */
uint64_t guest_fsck(struct guest *g, void (*line)(void *arg, const char *text), void *arg);

#endif
