/*
 * guest_fixture.h - a small guest memory for tests, and a naive model of it.
 */
#ifndef TESTS_GUEST_FIXTURE_H
#define TESTS_GUEST_FIXTURE_H

#include "page_alloc.h"
#include "mm_fsck.h"

struct fixture {
    struct mm mm;
    void **boot;                /* every boot_alloc(), freed by fixture_free() */
    size_t boot_count;
    size_t boot_fail_at;        /* fail the n-th boot_alloc() (1-based); 0: never */
};

/* pages of RAM from pfn 0, all free but [0, reserved). */
void fixture_init(struct fixture *f, uint64_t pages, uint64_t reserved, unsigned cpus);
void fixture_init_config(struct fixture *f, struct mm_config *config, uint64_t reserved);
/* mm_config.boot_alloc of fixtures; ctx is the fixture. */
void *fixture_boot_alloc(void *ctx, size_t bytes, size_t align);
mm_status_t fixture_try_init(struct fixture *f, struct mm_config *config);
void fixture_free(struct fixture *f);

/* Fails the test and prints every fault (and the seed) unless mm_fsck() finds none. */
void check_mm(const struct mm *mm, uint64_t seed);

struct rng { uint64_t state; };
uint64_t rng_next(struct rng *r);
static inline uint64_t rng_below(struct rng *r, uint64_t n) { return rng_next(r) % n; }
/* FRAMESHIFT_SEED of the environment, or the number given. */
uint64_t test_seed(uint64_t otherwise);

/* Owners of movable units: each unit's private field is its owner's number, and migration tells the owner. */
struct owners {
    struct mm *mm;
    struct page **page_of;      /* by owner number; NULL: none */
    uint32_t count, capacity;
    uint32_t refuse_one_in;     /* a move is refused (MM_EAGAIN) this often; 0: never */
    uint64_t refuse_nth;        /* the n-th move from now on is refused once; 0: none */
    struct rng rng;
    uint64_t moves;             /* pages */
};
void owners_init(struct owners *o, struct mm *mm, uint32_t capacity, uint64_t seed);     /* sets mm->migrate */
void owners_free(struct owners *o);
/* Allocate and own; NULL if memory is out. */
struct page *owners_alloc(struct owners *o, gfp_t gfp, unsigned order);
void owners_put(struct owners *o, uint32_t owner);
/* Every owner's page is used and names its owner. */
void owners_check(const struct owners *o);

/* The model: what each page frame belongs to (0: free). Slow and obvious. */
struct model {
    uint64_t pages;
    uint32_t *owner;
    uint32_t next_owner;
};
void model_init(struct model *m, const struct mm *mm);
void model_free(struct model *m);
/* Fails the test where the unit is not free in the model or not aligned. Returns its owner number. */
uint32_t model_take(struct model *m, const struct page *p, unsigned order);
void model_give(struct model *m, const struct page *p, unsigned order);
/* Is there an aligned free run of 2^order pages? */
bool model_has_run(const struct model *m, unsigned order);
uint64_t model_free_pages(const struct model *m);

/* Every CPU gets pageblocks of its own in every zone from now on, as if it had met others at the zones' locks. */
void want_cpu_blocks(struct mm *mm);
/* Isolate blocks [first, end), move out what can move, undo. False: one of the steps answered what it must not. */
bool empty_for_a_moment(struct mm *mm, uint32_t first, uint32_t end);

#endif
