/*
 * task_slab.c - slab objects that point at each other.
 *
 * Owns: struct slab_task.
 * Invariants:
 *   I1  table[i] is the node with slot i; nodes are one ring by next and prev, and nothing else is.
 *   I2  a node's slot changes under its lock. evict() (reclaim, on any CPU) may look at nodes that are free: they say SLAB_FREE.
 *   I3  nodes are looked at by reclaim and never given up: they are in a ring that only the task walks.
 * Lock order: a node's lock is the last.
 * Why: pointers in kernel objects are what no reverse map finds. They stay right only if the direct map keeps its addresses,
 *   whatever frame lies under them.
 * Cost: a step walks a part of the ring; each node visited costs its 80 bytes of pattern.
 */
#include "workload_priv.h"
#include "../mm/page_alloc.h"
#include "frameshift/assert.h"

#define NODES_A_PAGE 20u
#define WALK         48u

static void node_construct(void *object)
{
    struct node *n = object;

    memset(n, 0, sizeof(*n));
    n->slot = SLAB_FREE;
}

static uint64_t node_word(const struct workload_task *t, uint32_t slot, uint32_t version, uint32_t i)
{
    return (t->key ^ (uint64_t)slot << 32 ^ version) * (2 * (uint64_t)i + 0x9e3779b97f4a7c15ull);
}

/* Reclaim asks whether this node could go; it is looked at, and never can (I3). */
static bool node_evict(void *ctx, void *object)
{
    struct workload_task *t = ctx;
    struct node *n = object;

    spin_lock(&n->lock);
    if (n->slot != SLAB_FREE) {
        atomic_fetch_add_explicit(&t->u.slab.evicted, 1, memory_order_relaxed);
    }
    spin_unlock(&n->lock);
    return false;
}

static uint64_t nodes_scan(void *ctx, uint64_t objects)
{
    (void)ctx;
    (void)objects;
    return 0;
}

static mm_status_t slab_start(struct workload_task *t)
{
    const struct kmem_reclaim reclaim = { .scan = nodes_scan, .evict = node_evict, .ctx = t };
    struct slab_task *s = &t->u.slab;
    unsigned order = 0;

    s->capacity = t->pages * NODES_A_PAGE;
    while ((size_t)FS_PAGE_BYTES << order < s->capacity * sizeof(struct node *)) {
        order++;
    }
    s->table_unit = alloc_pages(task_mm(t), GFP_KERNEL | __GFP_ACCOUNT | __GFP_ZERO | (order > 0 ? __GFP_COMP : 0u), order);
    if (s->table_unit != NULL) {
        s->table = arch_page_address(page_pfn(s->table_unit));
        s->nodes = kmem_cache_create(task_mm(t), "workload_node", sizeof(struct node), 0, KMEM_RECLAIMABLE, node_construct, &reclaim);
    }
    return s->nodes != NULL ? MM_OK : MM_ENOMEM;
}

static uint64_t node_pfn(const struct node *n)
{
    return ((uintptr_t)n - (uintptr_t)arch_page_address(pfn_make(0))) / FS_PAGE_BYTES;
}

/* False: something is wrong with it; nobody should follow its pointers. */
static bool node_check(struct workload_task *t, const struct node *n)
{
    const struct slab_task *s = &t->u.slab;

    t->stats.bytes_verified += sizeof(n->words);
    if (n->slot >= s->capacity || s->table[n->slot] != n || !kmem_cache_owns(s->nodes, n->next) || !kmem_cache_owns(s->nodes, n->prev)
        || n->next->prev != n || n->prev->next != n) {
        task_wrong_at(t, WORKLOAD_LINK, node_pfn(n), n->slot, 0, (uintptr_t)n, n->slot < s->capacity ? (uintptr_t)s->table[n->slot] : 0);
        return false;
    }
    for (uint32_t i = 0; i < FS_ARRAY_SIZE(n->words); i++) {
        if (n->words[i] != node_word(t, n->slot, n->version, i)) {
            task_wrong_at(t, WORKLOAD_BYTES, node_pfn(n), n->slot, i * sizeof(uint64_t), n->words[i], node_word(t, n->slot, n->version, i));
            return false;
        }
    }
    return true;
}

static void node_write(struct workload_task *t, struct node *n)
{
    n->version++;
    for (uint32_t i = 0; i < FS_ARRAY_SIZE(n->words); i++) {
        n->words[i] = node_word(t, n->slot, n->version, i);
    }
    t->stats.bytes_written += sizeof(n->words);
}

static void set_slot(struct node *n, uint32_t slot)
{
    spin_lock(&n->lock);                            /* I2 */
    n->slot = slot;
    spin_unlock(&n->lock);
}

/* A new node somewhere in the ring. */
static void node_add(struct workload_task *t, uint32_t slot)
{
    struct slab_task *s = &t->u.slab;
    struct node *n = kmem_cache_alloc(s->nodes, GFP_KERNEL);

    if (n == NULL) {
        t->stats.refused++;
        return;
    }
    if (n->slot != SLAB_FREE) {
        task_wrong(t, WORKLOAD_BYTES, slot, 0, n->slot, SLAB_FREE);
    }
    if (s->ring == NULL) {
        n->next = n->prev = n;
    } else {
        n->next = s->ring;
        n->prev = s->ring->prev;
        n->prev->next = n;
        n->next->prev = n;
    }
    s->ring = n;
    s->table[slot] = n;
    s->count++;
    set_slot(n, slot);
    node_write(t, n);
}

static void node_remove(struct workload_task *t, struct node *n)
{
    struct slab_task *s = &t->u.slab;

    s->table[n->slot] = NULL;
    s->ring = n->next != n ? n->next : NULL;
    n->next->prev = n->prev;
    n->prev->next = n->next;
    s->count--;
    set_slot(n, SLAB_FREE);                         /* as it was constructed */
    kmem_cache_free(s->nodes, n);
}

static void slab_step(struct workload_task *t)
{
    struct slab_task *s = &t->u.slab;
    bool shrinks = t->stats.steps / (s->capacity / 4) % 2 != 0;     /* it grows and shrinks: slabs come and go */

    for (uint32_t i = 0; i < 8; i++) {
        uint32_t slot = (uint32_t)task_random(t, s->capacity);
        struct node *n = s->table[slot];

        if (n == NULL && (!shrinks || i == 0)) {
            node_add(t, slot);
        } else if (n != NULL && node_check(t, n)) {
            if (shrinks && task_random(t, 2) == 0) {
                node_remove(t, n);
            } else {
                node_write(t, n);
            }
        }
    }
    for (uint32_t i = 0; i < WALK && s->ring != NULL && node_check(t, s->ring); i++) {
        s->ring = s->ring->next;
    }
    if (task_random(t, 500) == 0) {
        (void)kmem_cache_shrink(s->nodes);
    }
}

static void slab_verify(struct workload_task *t)
{
    struct slab_task *s = &t->u.slab;
    const struct node *n = s->ring;
    uint64_t seen = 0;

    while (n != NULL && seen <= s->count) {
        if (!node_check(t, n)) {
            return;
        }
        seen++;
        n = n->next == s->ring ? NULL : n->next;
    }
    if (seen != s->count || kmem_cache_used(s->nodes) != s->count) {
        task_wrong(t, WORKLOAD_LINK, s->capacity, 0, seen, s->count);
    }
}

static void slab_stop(struct workload_task *t)
{
    struct slab_task *s = &t->u.slab;
    mm_status_t status = MM_OK;

    for (uint32_t i = 0; s->nodes != NULL && i < s->capacity; i++) {
        if (s->table[i] != NULL) {
            node_remove(t, s->table[i]);
        }
    }
    if (s->nodes != NULL) {
        status = kmem_cache_destroy(s->nodes);
    }
    ASSERT_CMP(status, ==, MM_OK);
    if (s->table_unit != NULL) {
        page_put(task_mm(t), s->table_unit);
    }
}

const struct workload_ops workload_slab_ops = { slab_start, slab_stop, slab_step, slab_verify };
