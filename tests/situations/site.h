/*
 * site.h - a guest's memory as the situations see it: nodes, zones, a vm over them, a host that takes pages and gives them back.
 *
 * The hosted machine has several nodes (site_open()); a guest of the embedded machine has one and real frames underneath
 * (tests/drill/test_situations.c binds that one).  Whoever ages or drills a site knows this header only.
 */
#ifndef TESTS_SITUATIONS_SITE_H
#define TESTS_SITUATIONS_SITE_H

#include <stdio.h>
#include "../../guest/mm/compaction.h"
#include "../../guest/mm/hotplug.h"
#include "../../guest/mm/lru.h"
#include "../../guest/mm/pagecache.h"
#include "../../guest/mm/swap.h"
#include "../../guest/mm/vm.h"

#define SITE_DIMM_SECTIONS 2u       /* a DIMM's worth: 256 MiB */

struct site_config {
    uint32_t nodes, node_sections;
    uint64_t boot_pages;            /* stay reserved, at the start of node 0 */
    unsigned cpus;                  /* spread over the nodes */
    uint32_t swap_slots;
    enum claim_policy policy;
    uint64_t kernelcore_pages;      /* as struct mm_config */
    uint32_t movable_nodes;
    bool alike;                     /* baseline: every request is of the same type, as before mobility grouping; no compaction */
    bool lumpy;                     /* baseline: no compaction; a block is freed by reclaiming what is in it ("vanilla" of thread 002) */
};

struct site {
    struct site_config config;
    struct mm *mm;
    struct vm *vm;
    struct lru *lru;
    struct pagecache *pagecache;
    unsigned cpus;
    uint64_t random;
    void (*become)(struct site *s, unsigned cpu);               /* the caller is that CPU from now on */
    /* Every check of the core there is; faults, the first ones described on out. */
    uint64_t (*fsck)(struct site *s, FILE *out);
    struct hotplug_ops host;
    /* What the host knows by itself: pages of [start, end) that it was given; its own faults (given twice, taken and not given). */
    uint64_t (*gone)(const struct site *s, uint64_t start, uint64_t end);
    uint64_t host_faults;
    void *impl;
};

/* The hosted machine; one at a time. False: no host memory, or no such configuration (said on stderr). */
bool site_open(struct site *s, const struct site_config *config, uint64_t seed);
/* pre: everything is given back; returns pages that are in use all the same, and other faults. */
uint64_t site_close(struct site *s);

/* Frees a site that site_open() refused. */
void site_abandon(struct site *s);

/* A random number below n, and another CPU at random. */
uint64_t site_random(struct site *s, uint64_t n);
void site_any_cpu(struct site *s);
/* What the background threads do when they are woken; pages moved and reclaimed. */
uint64_t site_background(struct site *s);

/* ---- events, by difference ---- */

struct site_counts { uint64_t zone[ZONE_COUNTERS], lru[LRU_COUNTERS], vm[VM_COUNTERS]; };
void site_counts(const struct site *s, struct site_counts *out);
void site_counts_since(const struct site *s, const struct site_counts *before, struct site_counts *out);
uint64_t counts_reclaimed(const struct site_counts *c);         /* pages of LRU lists and of slabs */

/* ---- mean and deviation ---- */

struct series { uint64_t n; double mean, m2, max; };
void series_add(struct series *s, double x);
double series_deviation(const struct series *s);                /* of the sample; 0 with less than two */

uint64_t site_mix(uint64_t x);

#endif
