/*
 * workload.h - tasks that use memory as programs do, and verify every byte that they own.
 *
 * A task is a step function: each step does something at random (seeded) and verifies a part of what it owns; workload_verify()
 * verifies all of it.  Tasks know the core's interfaces only, so they run the same on every machine.  One CPU at a time may be in a
 * task; different tasks may run on different CPUs, or all of them in turn on one.
 */
#ifndef GUEST_WORKLOAD_H
#define GUEST_WORKLOAD_H

#include "../mm/vm.h"

/* X(name, text) */
#define WORKLOAD_LIST(X)                                                             \
    X(ANON,  "anonymous memory: maps, writes, protects, unmaps")                     \
    X(FORK,  "a family of processes that share pages until they write")              \
    X(FILE,  "a file, through the page cache and mapped")                            \
    X(SHM,   "shared memory in two processes")                                       \
    X(MLOCK, "mlocked memory")                                                       \
    X(SLAB,  "slab objects that point at each other")                                \
    X(HUGE,  "huge pages of the kernel's own")                                                           \
    X(DMA,   "buffers that a device writes to, and user pages pinned for one")       \
    X(POLICY, "memory policies: pages by node, moved by range and one by one, and a device's memory")  \
    X(THP,   "memory that wants transparent huge pages, forked, cut and collapsed")   \
    X(POOL,  "huge pages of the pool, reserved and forked")

enum workload_kind {
#define X(name, text) WORKLOAD_##name,
    WORKLOAD_LIST(X)
#undef X
    WORKLOAD_KINDS
};
#define WORKLOAD_ALL ((1u << WORKLOAD_KINDS) - 1)
const char *workload_name(enum workload_kind kind);
const char *workload_text(enum workload_kind kind);

enum workload_fault {
    WORKLOAD_BYTES,         /* contents are not what was written */
    WORKLOAD_GONE,          /* memory that should be there is not: an access was refused, an mlocked page is out */
    WORKLOAD_LINK,          /* a slab object points to the wrong one */
    WORKLOAD_FRAME,         /* the frame under a device's buffer has changed */
    WORKLOAD_STORE,         /* the page cache wrote something that nobody has written to the file */
    WORKLOAD_PLACE,         /* a page is on a node where its policy does not want it; is and should_be: node, node or mask */
};
const char *workload_fault_name(enum workload_fault fault);

struct workload_wrong {
    enum workload_kind kind;
    uint32_t task;
    enum workload_fault fault;
    uint64_t page, byte;            /* of the task's memory, and in the page */
    uint64_t pfn;                   /* the page that holds the byte; FS_FRAME_NONE: it is none, or not found */
    uint64_t is, should_be;
};

struct workload_config {
    struct vm *vm;
    uint64_t seed;
    unsigned kinds;                 /* 1 << enum workload_kind, several; WORKLOAD_ALL */
    uint32_t tasks;                 /* of each kind */
    uint32_t pages;                 /* of each task, 16 .. WORKLOAD_PAGES_MAX */
    bool frames_stay;               /* the machine promises not to move frames under PG_DMA pages: verify it */
    bool regions;                   /* DMA: the device has a region of adjacent frames at times (contiguous.h), too */
    void (*wrong)(void *ctx, const struct workload_wrong *wrong);      /* may be NULL */
    void *ctx;
};
#define WORKLOAD_PAGES_MAX 4096u
#define WORKLOAD_TASKS_MAX 64u

struct workload_stats {
    uint64_t steps, bytes_verified, bytes_written;
    uint64_t refused;               /* operations that the core refused for lack of memory: nothing wrong with that */
    uint64_t places_verified;       /* POLICY: pages whose node was looked at */
    uint64_t regions;               /* DMA: made; those for which frames were exchanged; refused by the machine */
    uint64_t regions_exchanged, regions_refused;
    uint64_t wrong;                 /* faults found */
};

struct workload_task;
struct workload {
    struct workload_config config;
    struct workload_task *tasks[WORKLOAD_TASKS_MAX];
    uint32_t count;
    struct kmem_cache *task_cache;
};

/* MM_EINVAL: no such configuration; MM_ENOMEM: nothing is left behind. */
mm_status_t workload_start(struct workload *w, const struct workload_config *config) FS_MUST_CHECK;
/* Everything is given back. pre: nobody is in a step */
void workload_stop(struct workload *w);
/* One step of a task; the faults that it found. pre: task < w->count */
uint64_t workload_step(struct workload *w, uint32_t task);
/* Verify everything that the task owns; the faults found. */
uint64_t workload_verify(struct workload *w, uint32_t task);
uint64_t workload_verify_all(struct workload *w);
/* The guest was restored elsewhere: the devices of the tasks have been told of the frames that are under their buffers now. */
void workload_restored(struct workload *w);
/* The pages that a device has now, by this task's doing: their frames stay. At most max of them; how many. pre: nobody is in a step of it */
uint32_t workload_device_pages(const struct workload *w, uint32_t task, pfn_t *list, uint32_t max);
#define WORKLOAD_DEVICE_PAGES_MAX 289u     /* a task has no more */
enum workload_kind workload_task_kind(const struct workload *w, uint32_t task);
struct workload_stats workload_task_stats(const struct workload *w, uint32_t task);
struct workload_stats workload_total(const struct workload *w);

#endif
