/*
 * vm_world_policy.c - policies in the world of vm_world.c: set, asked for, and followed by pages.
 *
 * Owns: world_page.policy, world_process.policy, world.file_policy.
 * Invariants:
 *   I1  the core's answer to "which policy holds here" is the model's, at every moment.
 *   I2  after mbind with MOVE_ALL | STRICT said MM_OK, each page of the range that is mapped is where the model's arithmetic says.
 *   I3  each status of move_pages is one that the model allows, and a node in it is the page's.
 * Why: the model knows pages and policies one by one, and nothing of vmas, ranges or references: splitting, merging and inheriting must not show.
 * Cost: a few look-ups an operation.
 */
#include "vm_world.h"
#include "mbind.h"
#include "move_pages.h"
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#define MOST 24u

static const struct world_policy none = { MPOL_DEFAULT, 0 };

static struct world_process *some_process(struct world *w)
{
    struct world_process *p = &w->processes[rng_below(&w->r, WORLD_PROCESSES)];

    return p->mm != NULL ? p : &w->processes[0];
}

static void some_range(struct world *w, uint32_t *first, uint32_t *pages)
{
    uint32_t at = (uint32_t)rng_below(&w->r, WINDOW_PAGES);

    *pages = 1 + (uint32_t)rng_below(&w->r, MOST);
    *pages = at + *pages > WINDOW_PAGES ? WINDOW_PAGES - at : *pages;
    *first = (uint32_t)rng_below(&w->r, WORLD_WINDOWS) * WINDOW_PAGES + at;
}

static nodemask_t some_nodes(struct world *w)
{
    return 1 + (nodemask_t)rng_below(&w->r, (1u << w->g->f.mm.node_count) - 1);
}

/* Mostly a policy that there is. */
static struct world_policy some_policy(struct world *w)
{
    enum mpol_mode mode = (enum mpol_mode)rng_below(&w->r, MPOL_MODES);
    nodemask_t nodes = mode == MPOL_DEFAULT || mode == MPOL_LOCAL ? 0 : some_nodes(w);

    nodes = mode == MPOL_PREFERRED ? nodes & ~(nodes - 1) : nodes;
    if (rng_below(&w->r, 20) == 0) {
        nodes ^= 1u << rng_below(&w->r, 6);
    }
    return (struct world_policy){ mode, nodes };
}

static struct world_policy *place_of(struct world *w, struct world_page *m)
{
    return m->shared ? &w->file_policy[m->file][m->index] : &m->policy;
}

/* What holds for a page. */
static struct world_policy holds(struct world *w, struct world_process *p, uint32_t page)
{
    struct world_policy own = *place_of(w, &p->pages[page]);

    return own.mode != MPOL_DEFAULT ? own : p->policy;
}

static uint64_t index_of(const struct world_process *p, uint32_t page)
{
    return p->pages[page].file >= 0 ? p->pages[page].index : world_va(page) / FS_PAGE_BYTES;
}

/* May page lie on node? */
static bool may_lie(struct world_policy policy, uint64_t index, uint32_t node)
{
    uint32_t nodes[MM_NODES_MAX], n = 0;

    for (uint32_t i = 0; i < MM_NODES_MAX; i++) {
        if (policy.nodes >> i & 1) {
            nodes[n++] = i;
        }
    }
    return n == 0 || (policy.mode == MPOL_INTERLEAVE ? nodes[index % n] == node : policy.nodes >> node & 1);
}

static int node_of(struct world *w, struct mm_struct *mm, uint32_t page, bool *anon)
{
    struct page *p = follow_page(mm, world_va(page));
    int node = p != NULL ? (int)page_node(&w->g->f.mm, p) : -1;

    *anon = p != NULL && page_test(p, PG_ANON);
    if (p != NULL) {
        page_put(&w->g->f.mm, p);
    }
    return node;
}

static bool has_hole(const struct world_process *p, uint32_t first, uint32_t pages)
{
    bool hole = false;

    for (uint32_t i = 0; i < pages; i++) {
        hole |= !p->pages[first + i].mapped;
    }
    return hole;
}

/* ---- operations ---- */

static void op_mbind(struct world *w, struct world_process *p)
{
    static const unsigned some_flags[] = { 0, MPOL_MF_STRICT, MPOL_MF_MOVE, MPOL_MF_MOVE | MPOL_MF_STRICT, MPOL_MF_MOVE_ALL,
                                           MPOL_MF_MOVE_ALL | MPOL_MF_STRICT, MPOL_MF_MOVE_ALL | MPOL_MF_STRICT };
    struct world_policy policy = some_policy(w);
    unsigned flags = some_flags[rng_below(&w->r, FS_ARRAY_SIZE(some_flags))];
    enum mpol_refusal refusal = mpol_check(&w->g->f.mm, policy.mode, policy.nodes, NULL);
    struct node_moves moves;
    uint32_t first, pages;
    mm_status_t status;

    some_range(w, &first, &pages);
    status = vm_mbind(p->mm, world_va(first), pages * (uint64_t)FS_PAGE_BYTES, policy.mode, policy.nodes, flags, &moves);
    if (refusal != MPOL_FINE) {
        assert_int_equal(status, mpol_refusal_status(refusal));
        return;
    }
    if (status == MM_ENOMEM && w->may_fail) {
        w->refused++;
        return;
    }
    if (has_hole(p, first, pages)) {
        assert_true(status == MM_EFAULT || (status == MM_EIO && flags == MPOL_MF_STRICT));
        return;
    }
    assert_true(status == MM_OK || (status == MM_EIO && (flags & MPOL_MF_STRICT) && moves.misplaced + moves.failed != 0));
    if (status == MM_EIO && flags == MPOL_MF_STRICT) {
        return;                                     /* nothing was changed */
    }
    for (uint32_t i = 0; i < pages; i++) {
        *place_of(w, &p->pages[first + i]) = policy;
    }
    w->pages_moved += moves.moved;
    for (uint32_t i = 0; i < pages && status == MM_OK && (flags & MPOL_MF_STRICT); i++) {      /* I2 */
        bool anon;
        int node = node_of(w, p->mm, first + i, &anon);

        if (node >= 0 && (anon || p->pages[first + i].shared)) {
            w->places_checked++;
            assert_true(policy.mode == MPOL_DEFAULT || policy.mode == MPOL_LOCAL || may_lie(policy, index_of(p, first + i), (uint32_t)node));
        }
    }
}

static void op_set_mempolicy(struct world *w, struct world_process *p)
{
    struct world_policy policy = some_policy(w);
    mm_status_t status = vm_set_mempolicy(p->mm, policy.mode, policy.nodes), should_be;

    should_be = mpol_refusal_status(mpol_check(&w->g->f.mm, policy.mode, policy.nodes, NULL));
    if (status == MM_ENOMEM && w->may_fail) {
        w->refused++;
        return;
    }
    assert_int_equal(status, should_be);
    p->policy = status == MM_OK ? policy : p->policy;
}

/* I1 */
static void check_policy(struct world *w, struct world_process *p)
{
    uint32_t page = (uint32_t)rng_below(&w->r, PROCESS_PAGES);
    struct world_policy should_be = p->pages[page].mapped ? holds(w, p, page) : none;
    enum mpol_mode mode;
    nodemask_t nodes;

    assert_int_equal(vm_get_mempolicy(p->mm, world_va(page) + rng_below(&w->r, FS_PAGE_BYTES), &mode, &nodes),
                     p->pages[page].mapped ? MM_OK : MM_EFAULT);
    assert_int_equal(mode, should_be.mode);
    assert_int_equal(nodes, should_be.nodes);
}

static void check_status(struct world *w, struct world_process *p, uint32_t page, int32_t wanted, int32_t status, bool all)
{
    bool anon, mapped = p->pages[page].mapped, valid = wanted >= 0 && wanted < (int32_t)MM_NODES_MAX, exists = valid && wanted < (int32_t)w->g->f.mm.node_count;

    w->statuses[status >= 0 ? 0 : -status]++;
    if (!exists) {
        assert_int_equal(status, valid ? MOVE_ENODEV : MOVE_EINVAL);
    } else if (!mapped) {
        assert_int_equal(status, MOVE_EFAULT);
    } else if (status >= 0) {
        int node = node_of(w, p->mm, page, &anon);

        assert_true(status == wanted && (node == status || node == -1));
    } else {
        assert_true(status == MOVE_ENOENT || status == MOVE_EBUSY || (status == MOVE_EACCES && !all) || (status == MOVE_ENOMEM && w->may_fail));
    }
}

static void op_move_pages(struct world *w, struct world_process *p)
{
    uint64_t at[48];
    int32_t nodes[48], status[48];
    uint32_t n = 0, first = (uint32_t)rng_below(&w->r, PROCESS_PAGES - 48), many = 1 + (uint32_t)rng_below(&w->r, 48);
    bool all = rng_below(&w->r, 2) == 0, ask = rng_below(&w->r, 8) == 0;

    for (; n < many; n++) {                             /* each page once, so that each answer can be checked at the end */
        at[n] = world_va(first + n) + rng_below(&w->r, FS_PAGE_BYTES);
        nodes[n] = (int32_t)rng_below(&w->r, w->g->f.mm.node_count);
        nodes[n] = rng_below(&w->r, 40) == 0 ? (int32_t)rng_below(&w->r, 12) - 2 : nodes[n];
        status[n] = 12345;
    }
    assert_int_equal(vm_move_pages(p->mm, n, at, ask ? NULL : nodes, status, all ? MPOL_MF_MOVE_ALL : MPOL_MF_MOVE), MM_OK);
    for (uint32_t i = 0; i < n; i++) {
        bool twice = false, anon;

        for (uint32_t k = 0; k < PROCESS_PAGES; k++) {  /* a page of a file may be mapped at two addresses: the last one's node holds */
            twice |= k != first + i && p->pages[k].file >= 0 && p->pages[k].file == p->pages[first + i].file && p->pages[k].index == p->pages[first + i].index;
        }
        if (ask && status[i] >= 0) {
            assert_true(p->pages[first + i].mapped);
            assert_true(node_of(w, p->mm, first + i, &anon) == status[i] || w->others);
        } else if (!ask && !twice) {
            check_status(w, p, first + i, nodes[i], status[i], all);
        }
    }
}

static void op_migrate_nodes(struct world *w, struct world_process *p)
{
    nodemask_t from = some_nodes(w), to = some_nodes(w);
    struct node_moves moves;
    mm_status_t status = vm_migrate_nodes(p->mm, from, to, rng_below(&w->r, 2) == 0 ? MPOL_MF_MOVE_ALL : MPOL_MF_MOVE, &moves);

    assert_true(status == MM_OK ? moves.failed + moves.shared == 0 : status == MM_EAGAIN && moves.failed + moves.shared != 0);
    w->pages_moved += moves.moved;
    for (uint32_t page = 0; page < PROCESS_PAGES && status == MM_OK; page++) {
        bool anon;
        int node = node_of(w, p->mm, page, &anon);

        assert_true(node < 0 || (to >> node & 1) || !(from >> node & 1));
    }
}

void world_policy_step(struct world *w)
{
    struct world_process *p = some_process(w);
    uint64_t what = rng_below(&w->r, 100);

    if (what < 30) {
        op_mbind(w, p);
    } else if (what < 35) {
        op_set_mempolicy(w, p);
    } else if (what < 55) {
        op_move_pages(w, p);
    } else if (what < 58) {
        op_migrate_nodes(w, p);
    } else {
        check_policy(w, p);
    }
}
