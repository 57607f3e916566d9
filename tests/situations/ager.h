/*
 * ager.h - a system that has been running for a while: everything that a kernel and its processes do with memory, mixed.
 *
 * The mix, of each hundred events: 40 steps of the verifying tasks of guest/workload (anonymous memory, forking families, files mapped and read,
 * shared and mlocked memory, linked slab objects, huge pages, DMA buffers and pinned pages), 25 of kernel pages, 35 of files.
 * Kernel pages: buffers that live shortly (orders 0 and 1, a quarter of them atomic), groups that go with a process (accounted, 8 to 120 units of
 * orders 0 to 2), and long-lived ones of drivers and tables (orders 0 to 3) up to a share of memory that is given.
 * Files: created (1 to 256 pages, with inode and dentry), written, read, opened, closed, deleted.  The page cache takes what is left of memory.
 */
#ifndef TESTS_SITUATIONS_AGER_H
#define TESTS_SITUATIONS_AGER_H

#include "files.h"
#include "../../guest/workload/workload.h"

#define AGER_SHORT  256u
#define AGER_GROUPS 24u
#define AGER_GROUP_UNITS 120u

struct kernel_unit {                /* every byte follows from seed */
    struct page *page;              /* NULL: none */
    uint64_t seed;
    unsigned order;
};

struct ager_config {
    uint32_t tasks, task_pages;     /* of each kind; 0: none */
    unsigned kinds;                 /* WORKLOAD_* bits */
    uint32_t long_permille;         /* of memory: long-lived kernel pages, in the end; half of it when memory is full for the first time */
    uint64_t grow_events;           /* after so many events; meanwhile it swings by a quarter, so blocks are needed and come free again */
    uint32_t files;                 /* files that there may be */
    bool frames_stay;
};

struct ager {
    struct site *site;
    struct ager_config config;
    struct workload workload;
    bool tasks_run;
    struct files files;
    struct kernel_unit brief[AGER_SHORT], group[AGER_GROUPS][AGER_GROUP_UNITS], *lasting;
    uint32_t lasting_capacity, lasting_count;
    uint64_t lasting_pages, lasting_most;
    uint64_t events, asked, refused;        /* kernel pages that were asked for, and refused */
    uint64_t wrong;                         /* pages of kernel units with wrong bytes; task faults */
};

/* Nothing is in use yet. False: refused for lack of memory. */
bool ager_init(struct ager *a, struct site *s, const struct ager_config *config);
/* Files until memory is full: page cache, inodes, dentries, and kernel pages between them. */
void ager_fill(struct ager *a);
void ager_run(struct ager *a, uint64_t events);
/* Every byte of everything: kernel units, slabs, cached pages, tasks. Faults found so far. */
uint64_t ager_verify(struct ager *a);
/* Kernel objects and pages refused so far, of so many asked for; tasks' operations refused. */
struct ager_refused { uint64_t asked, pages, objects, task_operations, cache_pages; };
struct ager_refused ager_refused(const struct ager *a);
void ager_end(struct ager *a);

/* Kernel units, for the drills too. */
bool unit_take(struct site *s, struct kernel_unit *u, gfp_t gfp, unsigned order, uint64_t seed);
/* Pages of it with a wrong byte. */
uint64_t unit_verify(const struct kernel_unit *u);
/* Verifies and gives it back. */
uint64_t unit_give(struct site *s, struct kernel_unit *u);

#endif
