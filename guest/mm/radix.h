/*
 * radix.h - a tree from 64-bit index to one word, with a mark.
 *
 * Layer: L2.  64 slots a node.  A word is a pointer of the caller's or an odd number (radix_value()); 0 is an empty slot.
 * The caller's lock guards the tree; memory for nodes comes from a reserve that the caller fills while no lock is held.
 */
#ifndef GUEST_MM_RADIX_H
#define GUEST_MM_RADIX_H

#include "gfp.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RADIX_SHIFT 6u
#define RADIX_SLOTS 64u
#define RADIX_LEVELS_MAX 11u                    /* 64 bits by 6 */

struct radix_node {
    uint64_t marks;                             /* slots (or what lies under them) with the mark */
    uint64_t slots[RADIX_SLOTS];                /* words, or nodes */
    uint32_t used, shift;                       /* slots that are not 0; the index bits of the level begin here */
};

struct radix {
    uint64_t root;                              /* a node */
    uint32_t levels;                            /* 0: empty */
};

struct kmem_cache;
#define RADIX_RESERVE_MAX (2 * RADIX_LEVELS_MAX)    /* a root for each level, and a way down from the first */
struct radix_reserve { struct radix_node *nodes[RADIX_RESERVE_MAX]; uint32_t count; };

static inline uint64_t radix_value(uint64_t v) { return v << 1 | 1; }       /* pre: v < 2^63 */
static inline bool radix_is_value(uint64_t word) { return (word & 1) != 0; }
static inline uint64_t radix_to_value(uint64_t word) { return word >> 1; }

/* The word at index, 0: none. */
uint64_t radix_get(const struct radix *t, uint64_t index);
/* The first word at index or after it: *index says where. 0: there is none. With the mark only, if marked. */
uint64_t radix_next(const struct radix *t, uint64_t *index, bool marked);
/* Nodes that radix_set() would take for index now. */
uint32_t radix_missing(const struct radix *t, uint64_t index);
/* Put a word (not 0) at index; the old one. Its mark stays as it was. pre: reserve has what radix_missing() says, or a word is there */
uint64_t radix_set(struct radix *t, uint64_t index, uint64_t word, struct radix_reserve *reserve);
/* Take the word at index away, with its mark and the nodes that become empty (they go to freed, which had none). The old word. */
uint64_t radix_clear(struct radix *t, uint64_t index, struct radix_reserve *freed);
/* pre: a word is at index */
void radix_mark(struct radix *t, uint64_t index, bool on);
bool radix_marked(const struct radix *t, uint64_t index);

/* Bring the reserve to count nodes. False: no memory; what it has it keeps. */
bool radix_reserve(struct radix_reserve *r, uint32_t count, struct kmem_cache *nodes, gfp_t gfp);
void radix_reserve_free(struct radix_reserve *r, struct kmem_cache *nodes);

/* Counts nodes and words; false if something in the tree is wrong (a count, a mark, a level). For fsck. */
struct radix_count { uint64_t nodes, words, marked; };
bool radix_check(const struct radix *t, struct radix_count *count);

#endif
