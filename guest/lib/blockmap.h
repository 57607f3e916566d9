/*
 * blockmap.h - a set of small integers that finds its lowest and highest member fast.
 *
 * Owns: struct blockmap, a bitmap with summary levels: bit i of a level says whether
 * word i of the level below is not zero.  Every query and change touches at most
 * BLOCKMAP_LEVELS words: four levels hold 2^24 members (32 TiB of pageblocks).
 * The caller brings the memory and the lock.
 */
#ifndef GUEST_LIB_BLOCKMAP_H
#define GUEST_LIB_BLOCKMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLOCKMAP_LEVELS 4u
#define BLOCKMAP_NONE   UINT32_MAX

struct blockmap {
    uint64_t *level[BLOCKMAP_LEVELS];   /* [0] has a bit a member; unused levels are NULL */
    uint32_t bits[BLOCKMAP_LEVELS];     /* length of each level */
    uint32_t size;                      /* members are below it */
    uint32_t levels;
    uint32_t count;
};

size_t blockmap_bytes(uint32_t size);                       /* memory for blockmap_init() */
/* pre: mem is zeroed, 8-byte aligned, blockmap_bytes(size) long; 0 < size <= 2^24 */
void blockmap_init(struct blockmap *m, uint32_t size, void *mem);
/* pre of the four: i < size */
void blockmap_set(struct blockmap *m, uint32_t i);          /* no change if it is a member */
void blockmap_clear(struct blockmap *m, uint32_t i);        /* no change if it is none */
static inline bool blockmap_test(const struct blockmap *m, uint32_t i)
{
    return (m->level[0][i / 64] >> (i % 64)) & 1u;
}
/* The lowest member >= from, the highest member <= from; BLOCKMAP_NONE if there is none.
 * from may be beyond size. */
uint32_t blockmap_first(const struct blockmap *m, uint32_t from);
uint32_t blockmap_last(const struct blockmap *m, uint32_t from);
/* Recompute the summaries and the count from level 0; true if all agree. */
bool blockmap_check(const struct blockmap *m);

#endif
