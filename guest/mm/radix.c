/*
 * radix.c - a tree from 64-bit index to one word, with a mark.
 *
 * Layer: L2
 * Owns: struct radix_node.
 * Invariants:
 *   I1  a node that is in the tree has at least one used slot; used is the number of slots that are not 0.
 *   I2  a slot of an upper level has the mark exactly while something under it has.
 *   I3  the root has the level that the largest index needs, and no more: the tree of one page at index 0 is one node.
 * Lock order: none of its own; the caller's lock is held over every call but the two of the reserve.
 * Why: page caches and the swap cache want lookup by index, "the next one", and "the next dirty one", and nothing may
 *   allocate while their lock is held.
 * Cost: one node for each 64 neighbours; a level for each 6 bits of the largest index.
 */
#include "radix.h"
#include "slab.h"
#include "frameshift/assert.h"

void *memset(void *to, int c, size_t bytes);

static struct radix_node *node_of(uint64_t word) { return (struct radix_node *)(uintptr_t)word; }

static uint32_t slot_of(uint64_t index, uint32_t shift)
{
    return (uint32_t)(index >> shift) % RADIX_SLOTS;
}

/* Can a tree of so many levels hold index? */
static bool reaches(uint32_t levels, uint64_t index)
{
    return levels * RADIX_SHIFT >= 64 || index >> (levels * RADIX_SHIFT) == 0;
}

static uint32_t levels_for(uint64_t index)
{
    uint32_t levels = 1;

    while (!reaches(levels, index)) {
        levels++;
    }
    return levels;
}

uint64_t radix_get(const struct radix *t, uint64_t index)
{
    uint64_t word = t->root;

    if (t->levels == 0 || !reaches(t->levels, index)) {
        return 0;
    }
    for (uint32_t level = t->levels; level-- > 0 && word != 0;) {
        word = node_of(word)->slots[slot_of(index, level * RADIX_SHIFT)];
    }
    return word;
}

/* ---- walking ---- */

/* The first slot from a given one on that is used (or marked), RADIX_SLOTS if none. */
static uint32_t next_slot(const struct radix_node *n, uint32_t slot, bool marked)
{
    if (marked) {
        uint64_t left = slot < RADIX_SLOTS ? n->marks >> slot << slot : 0;

        return left != 0 ? fs_ctz64(left) : RADIX_SLOTS;
    }
    while (slot < RADIX_SLOTS && n->slots[slot] == 0) {
        slot++;
    }
    return slot;
}

uint64_t radix_next(const struct radix *t, uint64_t *index, bool marked)
{
    const struct radix_node *path[RADIX_LEVELS_MAX];
    uint64_t at = *index;
    uint32_t level = t->levels;

    if (level == 0 || !reaches(level, at)) {
        return 0;
    }
    path[--level] = node_of(t->root);
    for (;;) {
        uint32_t shift = level * RADIX_SHIFT, from = slot_of(at, shift), slot = next_slot(path[level], from, marked);
        uint64_t below = (1ull << shift) - 1;

        if (slot > from && slot < RADIX_SLOTS) {    /* a later part: from its beginning */
            at = ((at & ~below) - ((uint64_t)from << shift) + ((uint64_t)slot << shift)) & ~below;
        }
        if (slot < RADIX_SLOTS && level == 0) {
            *index = at;
            return path[0]->slots[slot];
        }
        if (slot < RADIX_SLOTS) {
            path[level - 1] = node_of(path[level]->slots[slot]);
            level--;
            continue;
        }
        /* Up, until there is a next slot. */
        do {
            if (++level >= t->levels) {
                return 0;
            }
        } while (slot_of(at, level * RADIX_SHIFT) == RADIX_SLOTS - 1);
        at = ((at >> (level * RADIX_SHIFT)) + 1) << (level * RADIX_SHIFT);
        if (at == 0) {
            return 0;                               /* past the last index of all */
        }
    }
}

/* ---- changing ---- */

uint32_t radix_missing(const struct radix *t, uint64_t index)
{
    uint32_t levels = levels_for(index), missing = 0;
    uint64_t word = t->root;

    if (t->levels == 0) {
        return levels;
    }
    if (levels > t->levels) {               /* new roots above the old one, and a whole way down from the first of them */
        return (levels - t->levels) + (levels - 1);
    }
    for (uint32_t level = t->levels; level-- > 0;) {
        if (word == 0) {
            missing++;
        } else {
            word = node_of(word)->slots[slot_of(index, level * RADIX_SHIFT)];
        }
    }
    return missing;
}

static struct radix_node *take(struct radix_reserve *r, uint32_t shift)
{
    struct radix_node *n;

    ASSERT(r != NULL && r->count > 0);
    n = r->nodes[--r->count];
    memset(n, 0, sizeof(*n));
    n->shift = shift;
    return n;
}

uint64_t radix_set(struct radix *t, uint64_t index, uint64_t word, struct radix_reserve *reserve)
{
    uint32_t levels = levels_for(index);
    struct radix_node *n;
    uint64_t old;

    ASSERT(word != 0);
    if (t->levels == 0) {
        t->levels = levels;
        t->root = (uintptr_t)take(reserve, (levels - 1) * RADIX_SHIFT);
    }
    while (t->levels < levels) {
        n = take(reserve, t->levels * RADIX_SHIFT);
        n->slots[0] = t->root;
        n->used = 1;
        n->marks = node_of(t->root)->marks != 0;        /* I2 */
        t->root = (uintptr_t)n;
        t->levels++;
    }
    n = node_of(t->root);
    for (uint32_t level = t->levels - 1; level > 0; level--) {
        uint64_t *slot = &n->slots[slot_of(index, level * RADIX_SHIFT)];

        if (*slot == 0) {
            *slot = (uintptr_t)take(reserve, (level - 1) * RADIX_SHIFT);
            n->used++;
        }
        n = node_of(*slot);
    }
    old = n->slots[slot_of(index, 0)];
    n->slots[slot_of(index, 0)] = word;
    n->used += old == 0;
    return old;
}

/* The nodes from the root down to index. False: there is no word. */
static bool path_to(const struct radix *t, uint64_t index, struct radix_node **path)
{
    uint64_t word = t->root;

    if (t->levels == 0 || !reaches(t->levels, index)) {
        return false;
    }
    for (uint32_t level = t->levels; level-- > 0;) {
        if (word == 0) {
            return false;
        }
        path[level] = node_of(word);
        word = path[level]->slots[slot_of(index, level * RADIX_SHIFT)];
    }
    return word != 0;
}

static void set_mark(struct radix *t, uint64_t index, bool on, struct radix_node **path)
{
    for (uint32_t level = 0; level < t->levels; level++) {
        uint64_t bit = 1ull << slot_of(index, level * RADIX_SHIFT), before = path[level]->marks;

        path[level]->marks = on ? before | bit : before & ~bit;
        if ((before != 0) == (path[level]->marks != 0)) {
            break;                                  /* nothing changes above (I2) */
        }
    }
}

void radix_mark(struct radix *t, uint64_t index, bool on)
{
    struct radix_node *path[RADIX_LEVELS_MAX];
    bool there = path_to(t, index, path);

    ASSERT(there);
    set_mark(t, index, on, path);
}

bool radix_marked(const struct radix *t, uint64_t index)
{
    struct radix_node *path[RADIX_LEVELS_MAX];

    return path_to(t, index, path) && (path[0]->marks >> slot_of(index, 0) & 1) != 0;
}

static void drop_node(struct radix_node *n, struct radix_reserve *freed)
{
    ASSERT_CMP(freed->count, <, RADIX_RESERVE_MAX);
    freed->nodes[freed->count++] = n;
}

uint64_t radix_clear(struct radix *t, uint64_t index, struct radix_reserve *freed)
{
    struct radix_node *path[RADIX_LEVELS_MAX], *root;
    uint64_t old;

    if (!path_to(t, index, path)) {
        return 0;
    }
    set_mark(t, index, false, path);
    old = path[0]->slots[slot_of(index, 0)];
    for (uint32_t level = 0; level < t->levels; level++) {
        path[level]->slots[slot_of(index, level * RADIX_SHIFT)] = 0;
        if (--path[level]->used > 0) {
            break;
        }
        drop_node(path[level], freed);              /* I1 */
        if (level + 1 == t->levels) {
            *t = (struct radix){ .root = 0 };
            return old;
        }
    }
    for (root = node_of(t->root); t->levels > 1 && root->used == 1 && root->slots[0] != 0; root = node_of(t->root)) {   /* I3 */
        t->root = root->slots[0];
        t->levels--;
        drop_node(root, freed);
    }
    return old;
}

/* ---- memory ---- */

bool radix_reserve(struct radix_reserve *r, uint32_t count, struct kmem_cache *nodes, gfp_t gfp)
{
    ASSERT_CMP(count, <=, FS_ARRAY_SIZE(r->nodes));
    while (r->count < count) {
        struct radix_node *n = kmem_cache_alloc(nodes, gfp);

        if (n == NULL) {
            return false;
        }
        r->nodes[r->count++] = n;
    }
    return true;
}

void radix_reserve_free(struct radix_reserve *r, struct kmem_cache *nodes)
{
    while (r->count > 0) {
        kmem_cache_free(nodes, r->nodes[--r->count]);
    }
}

/* ---- fsck ---- */

static bool check_node(const struct radix_node *n, uint32_t level, struct radix_count *c)
{
    uint32_t used = 0;

    c->nodes++;
    if (n->shift != level * RADIX_SHIFT) {
        return false;
    }
    for (uint32_t i = 0; i < RADIX_SLOTS; i++) {
        bool marked = (n->marks >> i & 1) != 0;

        if (n->slots[i] == 0) {
            if (marked) {
                return false;
            }
            continue;
        }
        used++;
        if (level == 0) {
            c->words++;
            c->marked += marked;
        } else if (!check_node(node_of(n->slots[i]), level - 1, c) || marked != (node_of(n->slots[i])->marks != 0)) {
            return false;
        }
    }
    return used == n->used && used > 0;
}

bool radix_check(const struct radix *t, struct radix_count *c)
{
    *c = (struct radix_count){ .nodes = 0 };
    if (t->levels == 0) {
        return t->root == 0;
    }
    if (t->levels > RADIX_LEVELS_MAX || !check_node(node_of(t->root), t->levels - 1, c)) {
        return false;
    }
    return t->levels == 1 || node_of(t->root)->used > 1 || node_of(t->root)->slots[0] == 0;
}
