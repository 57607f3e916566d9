/*
 * heap.c - one buddy heap per DIMM, and the offline states of frames.
 *
 * Owns: m->nodes[], and of each frame state, order1 and, while it is free, the list links.
 * Invariants:
 *  I1 a free buddy of order k starts at a multiple of 2^k and lies in one node;
 *     its head has order1 == k + 1, its other frames order1 == 0;
 *  I2 every frame of a free buddy is EMB_S_FREE; no free frame is outside a buddy;
 *  I3 node.free_pages is the number of free frames of the node;
 *  I4 an offlined frame is in no buddy; an offlining one is owned or Xen's.
 *  I5 host memory lies behind every frame that is given out, and this process reaches it without a fault: a machine's memory is there.
 *     A guest that copies while its CPUs stand still would else wait for 64 or 128 faults of the host's in one stop.
 * Lock order: the machine's lock is held.
 * Why these rules: they are Xen's heap (common/page_alloc.c).  A free frame that is
 * marked leaves at once, splitting its buddy; one in use leaves when it is freed.
 * Allocation takes from the smallest buddy that fits and gives out the *upper* part
 * of a split, from the most recently freed buddy: so a caller that does not name
 * another node gets the range's own unmarked frames back first, as on Xen.
 * Splitting keeps buddies aligned (4.17's own bug in it is not modelled).
 * Freed frames are overwritten, as a debug build of Xen scrubs them: a stale
 * mapping shows as wrong bytes, a late write as a heap fault in emb_fsck().
 * Cost: O(EMB_MAX_ORDER) a call, plus one page of writing for each frame freed.
 */
#include <sys/mman.h>

#include "emb_priv.h"

#define BACK_RANGE_ORDER 4u             /* from here on one system call is cheaper than touching each frame */

static void push(struct emb_machine *m, struct emb_node *n, uint64_t mfn, uint32_t order)
{
    struct emb_frame *f = emb_frame_at(m, mfn);
    f->order1 = (uint8_t)(order + 1);
    f->prev = 0;
    f->next = n->heads[order];
    if (f->next) {
        m->frames[f->next - 1].prev = (uint32_t)mfn + 1;
    }
    n->heads[order] = (uint32_t)mfn + 1;
}

static void pull(struct emb_machine *m, struct emb_node *n, uint64_t mfn)
{
    struct emb_frame *f = emb_frame_at(m, mfn);
    uint32_t order = f->order1 - 1u;
    if (f->prev) {
        m->frames[f->prev - 1].next = f->next;
    } else {
        ASSERT_CMP(n->heads[order], ==, mfn + 1);
        n->heads[order] = f->next;
    }
    if (f->next) {
        m->frames[f->next - 1].prev = f->prev;
    }
    f->next = f->prev = 0;
    f->order1 = 0;
}

/* [start, end) to the free lists in the largest aligned pieces. */
static void push_range(struct emb_machine *m, struct emb_node *n, uint64_t start, uint64_t end)
{
    while (start < end) {
        uint32_t order = 0;
        while (order < EMB_MAX_ORDER && (start & ((2ull << order) - 1)) == 0 && start + (2ull << order) <= end) {
            order++;
        }
        push(m, n, start, order);
        start += 1ull << order;
    }
}

void emb_heap_add(struct emb_machine *m, uint64_t start, uint64_t end)
{
    struct emb_node *n = &m->nodes[emb_node_of(m, start)];
    push_range(m, n, start, end);
    n->free_pages += end - start;
}

/* Put host memory behind frames (I5); where the host does not, they get it when they are written. */
static void back(struct emb_machine *m, uint64_t mfn, uint32_t order)
{
    if (m->contents && order >= BACK_RANGE_ORDER) {
        (void)madvise(emb_bytes(m, mfn), FS_PAGE_BYTES << order, MADV_POPULATE_WRITE);
    }
    for (uint64_t i = 0; m->contents && order < BACK_RANGE_ORDER && i < (1ull << order); i++) {
        __atomic_fetch_or(emb_bytes(m, mfn + i), 0, __ATOMIC_RELAXED);
    }
}

uint64_t emb_heap_alloc(struct emb_machine *m, uint32_t node, uint32_t order)
{
    struct emb_node *n = &m->nodes[node];
    uint32_t k = order;
    while (k <= EMB_MAX_ORDER && !n->heads[k]) {
        k++;
    }
    if (k > EMB_MAX_ORDER) {
        return FS_FRAME_NONE;
    }
    uint64_t mfn = n->heads[k] - 1;
    pull(m, n, mfn);
    while (k > order) {
        k--;
        push(m, n, mfn, k);
        mfn += 1ull << k;
    }
    for (uint64_t i = 0; i < (1ull << order); i++) {
        struct emb_frame *f = emb_frame_at(m, mfn + i);
        ASSERT_CMP(f->state, ==, EMB_S_FREE);
        m->tlb_epoch += (f->flags & EMB_F_WAS_OWNED) != 0;      /* before it has a new owner, no TLB may lead to it */
        emb_frame_reset(f, EMB_S_INUSE, 0);
    }
    n->free_pages -= 1ull << order;
    back(m, mfn, order);
    return mfn;
}

/* Head of the buddy that the free frame lies in. */
static uint64_t buddy_of(struct emb_machine *m, uint64_t mfn, uint32_t *order)
{
    for (uint32_t k = 0; k <= EMB_MAX_ORDER; k++) {
        uint64_t head = mfn & ~((1ull << k) - 1);
        if (emb_frame_at(m, head)->order1 > k) {
            *order = emb_frame_at(m, head)->order1 - 1u;
            return head;
        }
    }
    ASSERT(order && false);            /* I2 broken: a free frame outside every buddy */
    return 0;
}

static void scrub(struct emb_machine *m, uint64_t mfn)
{
    if (m->contents && !m->config.no_poison) {
        memset(emb_bytes(m, mfn), EMB_POISON, FS_PAGE_BYTES);
        emb_frame_at(m, mfn)->flags |= EMB_F_POISONED;
    }
}

static void merge_in(struct emb_machine *m, struct emb_node *n, uint64_t mfn, uint32_t order)
{
    while (order < EMB_MAX_ORDER) {
        uint64_t buddy = mfn ^ (1ull << order);
        if (buddy < n->start || buddy + (1ull << order) > n->end) {
            break;
        }
        struct emb_frame *b = emb_frame_at(m, buddy);
        if (b->state != EMB_S_FREE || b->order1 != order + 1) {
            break;
        }
        pull(m, n, buddy);
        mfn &= ~(1ull << order);
        order++;
    }
    push(m, n, mfn, order);
}

void emb_heap_free(struct emb_machine *m, uint64_t mfn)
{
    struct emb_frame *f = emb_frame_at(m, mfn);
    struct emb_node *n = &m->nodes[emb_node_of(m, mfn)];
    ASSERT(f->state == EMB_S_INUSE || f->state == EMB_S_OFFLINING);
    ASSERT_CMP(f->count, ==, 0);
    ASSERT_CMP(f->type_count, ==, 0);
    bool offline = f->state == EMB_S_OFFLINING;
    uint8_t kept = (uint8_t)((offline ? f->flags & EMB_F_BROKEN : 0) | (f->owner ? EMB_F_WAS_OWNED : 0));
    emb_frame_reset(f, offline ? EMB_S_OFFLINED : EMB_S_FREE, kept);
    scrub(m, mfn);
    if (!offline) {
        merge_in(m, n, mfn, 0);
        n->free_pages++;
    }
}

void emb_heap_free_extent(struct emb_machine *m, uint64_t mfn, uint32_t order)
{
    struct emb_node *n = &m->nodes[emb_node_of(m, mfn)];
    struct emb_frame *frames = &m->frames[mfn];
    for (uint64_t i = 0; i < (1ull << order); i++) {
        emb_frame_reset(&frames[i], EMB_S_FREE, EMB_F_WAS_OWNED);
    }
    for (uint64_t i = 0; i < (1ull << order) && !m->config.no_poison; i++) {
        scrub(m, mfn + i);
    }
    merge_in(m, n, mfn, order);
    n->free_pages += 1ull << order;
}

void emb_heap_take(struct emb_machine *m, uint64_t mfn)
{
    struct emb_node *n = &m->nodes[emb_node_of(m, mfn)];
    uint32_t order;
    uint64_t head = buddy_of(m, mfn, &order);
    pull(m, n, head);
    push_range(m, n, head, mfn);
    push_range(m, n, mfn + 1, head + (1ull << order));
    emb_frame_at(m, mfn)->state = EMB_S_OFFLINED;
    n->free_pages--;
}

bool emb_heap_online(struct emb_machine *m, uint64_t mfn)
{
    struct emb_frame *f = emb_frame_at(m, mfn);
    if ((f->flags & EMB_F_BROKEN) || (f->state != EMB_S_OFFLINED && f->state != EMB_S_OFFLINING)) {
        return false;
    }
    if (f->state == EMB_S_OFFLINING) {
        f->state = EMB_S_INUSE;
        return true;
    }
    f->state = EMB_S_FREE;
    struct emb_node *n = &m->nodes[emb_node_of(m, mfn)];
    merge_in(m, n, mfn, 0);
    n->free_pages++;
    return true;
}
