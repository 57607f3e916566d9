/*
 * mbind.c - a policy for a range, with the pages that are there already; the pages of a whole process from nodes to nodes.
 *
 * Owns: the order of the two halves of mbind, and the order of nodes of a whole move.
 * Invariants:
 *   I1  the policy is set before pages move: what is faulted in meanwhile lies right from the start.
 *   I2  where a page is wanted is asked for when it is gathered, from the policy that holds then.
 *   I3  rounds go on only while pages move, so they end; a page that was where it should be is not touched again.
 *   I4  whole moves: a pair of nodes is done when no page that still has to leave could be mistaken for one that has just come. What is left are
 *       rings (from's nodes are to's in another order); their pages are told apart by going over each address once.
 * Lock order: as vma.c for the policy, as node_move.c for pages.
 * Why: two full nodes can change pages with a few free ones between them: what has moved frees room for the next round.
 * Cost: a round looks at each entry of the range.
 *
 * Layer: L4
 */
#include "mbind.h"
#include "vma.h"
#include "frameshift/assert.h"

#define ROUNDS_MAX 64u

/* ---- mbind ---- */

/* What the policy that holds (or, where new is set, that one) wants of a page. Pages of a file that are mapped privately are not the vma's. */
struct bind_want { struct vm *vm; bool check; const struct mempolicy *new; };

static nodemask_t want_by_policy(void *ctx, const struct vm_area *v, uint64_t va, struct page *page, uint32_t node)
{
    const struct bind_want *b = ctx;
    unsigned order = page != NULL ? page_order(page) : 0;
    uint64_t index = vma_index(v, va) >> order;         /* interleave counts units */
    struct mempolicy *p;
    nodemask_t nodes;

    (void)node;
    if (!(v->flags & VM_SHARED) && !page_test(page, PG_ANON | PG_SWAPCACHE)) {
        return 0;
    }
    if (b->check) {
        return mpol_nodes(b->vm->mm, b->new != NULL ? b->new : v->mm->policy, index);
    }
    p = vma_policy_get(v, vma_index(v, va));    /* I2 */
    nodes = mpol_nodes(b->vm->mm, p, index);
    mpol_put(b->vm, p);
    return nodes;
}

/* Rounds over the range (I3). Reclaim makes room only where pages that change places do not. */
static void move_rounds(const struct node_walk *walk, uint64_t start, uint64_t end, struct node_moves *moves)
{
    struct node_walk w = *walk;
    uint64_t moved = 0;

    for (unsigned round = 0; round < ROUNDS_MAX; round++) {
        node_walk_range(&w, start, end, moves);
        moved += moves->moved;
        if (moves->failed == 0 || (moves->moved == 0 && (w.reclaim || moves->no_memory == 0))) {
            break;
        }
        w.reclaim = moves->moved == 0;
    }
    moves->moved = moved;
}

mm_status_t vm_mbind(struct mm_struct *mm, uint64_t va, uint64_t bytes, enum mpol_mode mode, nodemask_t nodes, unsigned flags,
                     struct node_moves *moves)
{
    struct bind_want want = { .vm = mm->vm };
    struct node_walk walk = { .mm = mm, .want = want_by_policy, .ctx = &want, .move = (flags & (MPOL_MF_MOVE | MPOL_MF_MOVE_ALL)) != 0,
                              .all = (flags & MPOL_MF_MOVE_ALL) != 0, .caches = true };
    struct mempolicy *policy;
    struct node_moves own;
    mm_status_t status = (flags & ~MPOL_MF_ALL) != 0 ? MM_EINVAL : mpol_new(mm->vm, mode, nodes, &policy);

    moves = moves != NULL ? moves : &own;
    *moves = (struct node_moves){ .status = MM_OK };
    if (status != MM_OK) {
        return status;
    }
    if (flags == MPOL_MF_STRICT) {
        want.check = true;
        want.new = policy;
        node_walk_range(&walk, va, va + bytes > va ? va + bytes : va, moves);
        status = moves->misplaced != 0 ? MM_EIO : MM_OK;
        want.check = false;
    }
    if (status == MM_OK) {
        status = vm_set_range_policy(mm, va, bytes, policy);   /* I1 */
    }
    mpol_put(mm->vm, policy);
    if (status == MM_OK && walk.move) {
        move_rounds(&walk, va, va + bytes, moves);
        status = (flags & MPOL_MF_STRICT) && moves->failed + moves->shared != 0 ? MM_EIO : MM_OK;
    }
    return status;
}

/* ---- a whole process ---- */

struct node_map { nodemask_t sources; uint32_t to[MM_NODES_MAX]; };

static nodemask_t want_by_map(void *ctx, const struct vm_area *v, uint64_t va, struct page *page, uint32_t node)
{
    const struct node_map *m = ctx;

    (void)v;
    (void)va;
    (void)page;
    return m->sources >> node & 1 ? 1u << m->to[node] : 0;
}

static void map_nodes(struct node_map *m, nodemask_t from, nodemask_t to)
{
    nodemask_t next = to;

    for (uint32_t node = 0; node < MM_NODES_MAX; node++) {
        if (from >> node & 1) {
            m->to[node] = fs_ctz64(next);
            next &= next - 1;
            next = next != 0 ? next : to;
        }
    }
}

/* The sources that can be done next (I4): one whose target is not itself still to be emptied, or else all that are left. */
static nodemask_t next_sources(const struct node_map *m, nodemask_t left)
{
    for (uint32_t node = 0; node < MM_NODES_MAX; node++) {
        if ((left >> node & 1) && !(left >> m->to[node] & 1)) {
            return 1u << node;
        }
    }
    return left;
}

static void add_moves(struct node_moves *sum, const struct node_moves *m)
{
    sum->looked += m->looked;
    sum->misplaced += m->misplaced;
    sum->moved += m->moved;
    sum->shared += m->shared;
    sum->failed += m->failed;
    sum->no_memory += m->no_memory;
    sum->status = sum->status == MM_OK ? m->status : sum->status;
}

mm_status_t vm_migrate_nodes(struct mm_struct *mm, nodemask_t from, nodemask_t to, unsigned flags, struct node_moves *moves)
{
    struct node_map map = { .sources = 0 };
    struct node_walk walk = { .mm = mm, .want = want_by_map, .ctx = &map, .move = true, .all = (flags & MPOL_MF_MOVE_ALL) != 0, .once = true };
    struct node_moves own;
    nodemask_t left = from;

    moves = moves != NULL ? moves : &own;
    *moves = (struct node_moves){ .status = MM_OK };
    if (from == 0 || to == 0 || (flags & ~(MPOL_MF_MOVE | MPOL_MF_MOVE_ALL)) != 0 || flags == 0) {
        return MM_EINVAL;
    }
    if ((to & ~mm_nodes(mm->vm->mm)) != 0 || from >> mm->vm->mm->node_count != 0) {
        return MM_ENODEV;
    }
    map_nodes(&map, from, to);
    for (uint32_t node = 0; node < MM_NODES_MAX; node++) {
        left &= map.to[node] == node ? ~(1u << node) : left;    /* stays */
    }
    while (left != 0) {
        struct node_moves m;

        map.sources = next_sources(&map, left);
        if (map.sources == left && (left & (left - 1)) != 0) {
            walk.reclaim = true;
            node_walk_range(&walk, 0, ARCH_USER_END, &m);
        } else {
            move_rounds(&walk, 0, ARCH_USER_END, &m);
        }
        left &= ~map.sources;
        add_moves(moves, &m);
    }
    return moves->failed + moves->shared != 0 ? MM_EAGAIN : MM_OK;
}
