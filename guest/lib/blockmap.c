/*
 * blockmap.c - the bitmap with summary levels.
 *
 * Owns: the levels of a struct blockmap.
 * Invariants:
 *   I1  bit i of level n+1 is set exactly when word i of level n is not zero.
 *   I2  count is the number of bits in level 0; no bit at or above size is set.
 * Lock order: none; the caller's lock.
 * Why: the allocator wants the lowest (or highest) block that has a free unit of some
 *   order, for every order and type, and a block changes type as a whole.  A linked list
 *   has no order; a tree costs a node a block.  Bits cost one bit a block, order and type.
 * Cost: at most BLOCKMAP_LEVELS words up and as many down; two levels serve 8 GiB.
 */
#include "blockmap.h"
#include "frameshift/assert.h"

static uint32_t words_of(uint32_t bits)
{
    return (bits + 63) / 64;
}

size_t blockmap_bytes(uint32_t size)
{
    size_t words = 0;

    for (uint32_t bits = size;; bits = words_of(bits)) {
        words += words_of(bits);
        if (bits <= 64) {
            return words * sizeof(uint64_t);
        }
    }
}

void blockmap_init(struct blockmap *m, uint32_t size, void *mem)
{
    uint64_t *next = mem;

    ASSERT_CMP(size, >, 0);
    ASSERT_CMP(size, <=, 1u << (6 * BLOCKMAP_LEVELS));
    *m = (struct blockmap){ .size = size };
    for (uint32_t bits = size;; bits = words_of(bits)) {
        m->bits[m->levels] = bits;
        m->level[m->levels++] = next;
        next += words_of(bits);
        if (bits <= 64) {
            return;
        }
    }
}

void blockmap_set(struct blockmap *m, uint32_t i)
{
    ASSERT_CMP(i, <, m->size);
    if (blockmap_test(m, i)) {
        return;
    }
    m->count++;
    for (uint32_t n = 0; n < m->levels; n++) {
        uint64_t *word = &m->level[n][i / 64];
        bool summarized = *word != 0;

        *word |= 1ull << (i % 64);
        if (summarized) {
            return;
        }
        i /= 64;
    }
}

void blockmap_clear(struct blockmap *m, uint32_t i)
{
    ASSERT_CMP(i, <, m->size);
    if (!blockmap_test(m, i)) {
        return;
    }
    m->count--;
    for (uint32_t n = 0; n < m->levels; n++) {
        uint64_t *word = &m->level[n][i / 64];

        *word &= ~(1ull << (i % 64));
        if (*word != 0) {
            return;
        }
        i /= 64;
    }
}

/* Go down from word w of level n to the lowest (or highest) member under it. */
static uint32_t descend(const struct blockmap *m, uint32_t n, uint32_t w, uint64_t bits, bool lowest)
{
    for (;;) {
        uint32_t i = w * 64 + (lowest ? fs_ctz64(bits) : 63 - fs_clz64(bits));

        if (n == 0) {
            return i;
        }
        n--;
        w = i;
        bits = m->level[n][w];
    }
}

uint32_t blockmap_first(const struct blockmap *m, uint32_t from)
{
    uint32_t i = from;

    for (uint32_t n = 0; n < m->levels && i < m->bits[n]; n++) {
        uint64_t bits = m->level[n][i / 64] & (~0ull << (i % 64));

        if (bits != 0) {
            return descend(m, n, i / 64, bits, true);
        }
        i = i / 64 + 1;                         /* go on behind this word, by the summary */
    }
    return BLOCKMAP_NONE;
}

uint32_t blockmap_last(const struct blockmap *m, uint32_t from)
{
    uint32_t i = from < m->size ? from : m->size - 1;

    for (uint32_t n = 0; n < m->levels; n++) {
        uint64_t bits = m->level[n][i / 64] & (~0ull >> (63 - i % 64));

        if (bits != 0) {
            return descend(m, n, i / 64, bits, false);
        }
        if (i < 64) {
            return BLOCKMAP_NONE;
        }
        i = i / 64 - 1;
    }
    return BLOCKMAP_NONE;
}

/* Without the instruction the compiler would call its runtime library, which the kernel does not link. */
static uint32_t bits_set(uint64_t word)
{
    uint32_t n = 0;

    for (; word != 0; word &= word - 1) {
        n++;
    }
    return n;
}

bool blockmap_check(const struct blockmap *m)
{
    uint32_t count = 0;

    for (uint32_t n = 0; n < m->levels; n++) {
        for (uint32_t w = 0; w < words_of(m->bits[n]); w++) {
            uint64_t word = m->level[n][w];

            count += n == 0 ? bits_set(word) : 0;
            if (m->bits[n] < (w + 1) * 64 && word >> (m->bits[n] % 64) != 0) {
                return false;
            }
            if (n + 1 < m->levels && ((m->level[n + 1][w / 64] >> (w % 64)) & 1u) != (word != 0)) {
                return false;
            }
        }
    }
    return count == m->count;
}
