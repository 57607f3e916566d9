/*
 * check.h - what this kernel does once it stands: use the memory core on real frames and look at everything.
 */
#ifndef GUEST_ARCH_XEN_CHECK_H
#define GUEST_ARCH_XEN_CHECK_H

#include "kernel.h"
#include "../../mm/mm_fsck.h"
#include "../../mm/page_alloc.h"

/* A unit that the checks hold. What lies in it follows from its stamp: where it was filled and when. */
struct unit {
    struct page *page;
    uint32_t stamp, order;
};

struct check {
    struct mm mm;
    struct unit *units;                     /* [pages of memory] */
    uint64_t count;
    uint64_t start_free;                    /* free pages when nothing is held */
    uint64_t rng, start_ns;
    uint32_t stamp;
    /* for the last line */
    uint64_t allocations, checked_pages, moved_pages, fscks, caches, objects, faults, swapped_pages, relocated_pages, regions;
};

/* check.c */
void check_all(void);                                           /* prints the one line of result; returns if it is PASS */
FS_NORETURN FS_COLD void check_failed(const char *what, uint64_t n);
#define CHECK(e, what, n) do { if (fs_unlikely(!(e))) { check_failed(what, n); } } while (0)
uint64_t check_random(struct check *c, uint64_t below);
/* Take a unit, see that it is what was asked for, fill it; NULL: none. every: words from one that is written to the next. */
struct unit *unit_take(struct check *c, gfp_t gfp, unsigned order, unsigned every);
void unit_verify(struct check *c, const struct unit *u, unsigned every);
void unit_give(struct check *c, uint64_t index, unsigned every);    /* verifies, frees, forgets */
void units_give_all(struct check *c, unsigned every);
/* Nothing is held: drain, fsck, and every page is free again. */
void check_balance(struct check *c, const char *after);
void check_fsck(struct check *c, const char *after);

/* The checks, each from and to a state in which nothing is held. */
void check_tables(struct check *c);         /* check_tables.c: rights of the direct map, p2m */
void check_orders(struct check *c);         /* check_alloc.c */
void check_percpu(struct check *c);
void check_reserves(struct check *c);
void check_mixed(struct check *c);
void check_compaction(struct check *c);     /* check_move.c */
void check_isolation(struct check *c);
void check_hotplug(struct check *c);
void check_mmu(struct check *c);            /* check_mmu.c */
void check_slab(struct check *c);           /* check_slab.c */
void check_relocate(struct check *c);       /* check_relocate.c */
void check_contiguous(struct check *c);     /* check_contiguous.c */
void check_space(struct check *c);          /* check_space.c */

#endif
