/*
 * bitmap.h - a bit for each of many things.
 *
 * Owns: nothing; a bitmap is an array of words of its owner.  Bits beyond the size are 0.
 */
#ifndef FRAMESHIFT_HV_BITMAP_H
#define FRAMESHIFT_HV_BITMAP_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

static inline uint64_t bitmap_words(uint64_t bits) { return (bits + 63) / 64; }
/* All 0; NULL where there is no memory. */
static inline uint64_t *bitmap_new(uint64_t bits) { return calloc((size_t)bitmap_words(bits) + 1, sizeof(uint64_t)); }
static inline bool bitmap_has(const uint64_t *map, uint64_t bit) { return map[bit / 64] >> (bit % 64) & 1; }
static inline void bitmap_set(uint64_t *map, uint64_t bit) { map[bit / 64] |= 1ull << (bit % 64); }
static inline void bitmap_clear(uint64_t *map, uint64_t bit) { map[bit / 64] &= ~(1ull << (bit % 64)); }

#endif
