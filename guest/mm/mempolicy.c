/*
 * mempolicy.c - on which nodes the pages of a process, of a range, or of an object shall lie.
 *
 * Owns: struct mempolicy, struct shared_policy; the choice of the node for a page.
 * Invariants:
 *   I1  a policy is constant from its creation on: whoever has a reference needs no lock.
 *   I2  where a page of an interleaved range lies follows from its index alone, so the pattern does not depend on who faults first, and two
 *       processes that map an object at different addresses mean the same page.
 *   I3  bind never leaves its mask: the request fails instead.
 *   I4  ranges of an object are in order, disjoint and not empty, and two neighbours with equal policies are one range.
 * Lock order: mmap_lock, then shared_policy.lock, under which nothing is taken; objects are allocated and freed without it.
 * Why: a page of an object has one place, so its policy belongs to the object: with a policy in each vma the first fault would decide.
 *   A list is enough for the few ranges that programs set; without any a look-up is one load.
 * Cost: no policy: one comparison. Interleave: a scan of at most MM_NODES_MAX bits. An object with n ranges: n/2 steps.
 *
 * Layer: L3
 */
#include "mempolicy.h"
#include "pagecache.h"
#include "slab.h"
#include "vma.h"
#include "frameshift/assert.h"

const char *mpol_mode_name(enum mpol_mode mode)
{
    static const char *const names[MPOL_MODES] = { "default", "preferred", "bind", "interleave", "local" };
    return (unsigned)mode < MPOL_MODES ? names[mode] : "bad";
}

/* ---- what is a policy ---- */

static const struct { const char *text; mm_status_t status; } refusals[MPOL_REFUSALS] = {
#define X(name, text, status) { text, status },
    MPOL_REFUSAL_LIST(X)
#undef X
};

const char *mpol_refusal_text(enum mpol_refusal r)
{
    return (unsigned)r < MPOL_REFUSALS ? refusals[r].text : "bad";
}

mm_status_t mpol_refusal_status(enum mpol_refusal r)
{
    return (unsigned)r < MPOL_REFUSALS ? refusals[r].status : MM_EINVAL;
}

static enum mpol_refusal check_nodes(const struct mm *mm, nodemask_t nodes, uint32_t *node)
{
    nodemask_t with_memory = mm_nodes(mm), bad = nodes & ~with_memory;

    if (bad == 0) {
        return MPOL_FINE;
    }
    *node = fs_ctz64(bad);
    return *node < mm->node_count ? MPOL_EMPTY_NODE : MPOL_NO_SUCH_NODE;
}

enum mpol_refusal mpol_check(const struct mm *mm, enum mpol_mode mode, nodemask_t nodes, uint32_t *node)
{
    uint32_t ignored;

    switch (mode) {
    case MPOL_DEFAULT:
    case MPOL_LOCAL:
        return nodes == 0 ? MPOL_FINE : MPOL_NODES_GIVEN;
    case MPOL_PREFERRED:
    case MPOL_BIND:
    case MPOL_INTERLEAVE:
        if (nodes == 0) {
            return MPOL_NO_NODES;
        }
        if (mode == MPOL_PREFERRED && (nodes & (nodes - 1)) != 0) {
            return MPOL_MANY_NODES;
        }
        return check_nodes(mm, nodes, node != NULL ? node : &ignored);
    case MPOL_MODES:
        break;
    }
    return MPOL_BAD_MODE;
}

/* ---- life ---- */

mm_status_t mpol_new(struct vm *vm, enum mpol_mode mode, nodemask_t nodes, struct mempolicy **out)
{
    mm_status_t status = mpol_refusal_status(mpol_check(vm->mm, mode, nodes, NULL));

    *out = NULL;
    if (status != MM_OK || mode == MPOL_DEFAULT) {
        return status;
    }
    *out = kmem_cache_alloc(vm->policy_cache, GFP_KERNEL);
    if (*out == NULL) {
        return MM_ENOMEM;
    }
    **out = (struct mempolicy){ .refs = 1, .mode = mode, .nodes = nodes };
    return MM_OK;
}

struct mempolicy *mpol_get(struct mempolicy *p)
{
    if (p != NULL) {
        atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    }
    return p;
}

void mpol_put(struct vm *vm, struct mempolicy *p)
{
    int32_t was = p != NULL ? atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) : 2;

    ASSERT_CMP(was, >, 0);
    if (was == 1) {
        kmem_cache_free(vm->policy_cache, p);
    }
}

bool mpol_equal(const struct mempolicy *a, const struct mempolicy *b)
{
    return a == b || (a != NULL && b != NULL && a->mode == b->mode && a->nodes == b->nodes);
}

/* ---- where a page goes ---- */

/* The n-th node of the mask, counted round and round. pre: nodes is not 0 */
static uint32_t nth_node(nodemask_t nodes, uint64_t n)
{
    uint32_t count = 0;

    for (nodemask_t left = nodes; left != 0; left &= left - 1) {
        count++;
    }
    for (n %= count; n > 0; n--) {
        nodes &= nodes - 1;
    }
    return fs_ctz64(nodes);
}

nodemask_t mpol_nodes(const struct mm *mm, const struct mempolicy *p, uint64_t index)
{
    if (p == NULL || p->mode == MPOL_LOCAL) {
        return mm_nodes(mm);
    }
    return p->mode == MPOL_INTERLEAVE ? 1u << nth_node(p->nodes, index) : p->nodes;       /* I2 */
}

/* One of the mask, the CPU's own if it is among them: where the walk begins. */
static uint32_t nearest(const struct mm *mm, nodemask_t nodes)
{
    uint32_t local = mm_local_node(mm);

    return nodes >> local & 1 ? local : fs_ctz64(nodes);
}

struct page *mpol_alloc_on(struct vm *vm, nodemask_t nodes, gfp_t gfp, unsigned order)
{
    return alloc_pages_nodemask(vm->mm, nearest(vm->mm, nodes), nodes, gfp, order);
}

struct page *mpol_alloc(struct vm *vm, const struct mpol_place *place, gfp_t gfp, unsigned order)
{
    const struct mempolicy *p = place != NULL ? place->policy : NULL;
    nodemask_t nodes;
    struct page *page;

    if (fs_likely(p == NULL || p->mode == MPOL_LOCAL)) {
        return alloc_pages(vm->mm, gfp, order);
    }
    nodes = mpol_nodes(vm->mm, p, place->index >> order);
    if (p->mode == MPOL_BIND) {                 /* I3 */
        page = mpol_alloc_on(vm, nodes, gfp, order);
    } else {
        page = alloc_pages_node(vm->mm, fs_ctz64(nodes), gfp, order);
    }
    if (page == NULL) {
        vm_count(vm, VMC_policy_refused, 1);
    } else {
        vm_count(vm, nodes >> page_node(vm->mm, page) & 1 ? VMC_policy_hit : VMC_policy_miss, 1);
    }
    return page;
}

/* ---- processes ---- */

mm_status_t vm_set_mempolicy(struct mm_struct *mm, enum mpol_mode mode, nodemask_t nodes)
{
    struct mempolicy *new, *old;
    mm_status_t status = mpol_new(mm->vm, mode, nodes, &new);

    if (status != MM_OK) {
        return status;
    }
    write_lock(&mm->mmap_lock);
    old = mm->policy;
    mm->policy = new;
    write_unlock(&mm->mmap_lock);
    mpol_put(mm->vm, old);
    return MM_OK;
}

struct mempolicy *vma_policy(const struct vm_area *v)
{
    return v->policy != NULL ? v->policy : v->mm->policy;
}

struct mempolicy *vma_policy_get(const struct vm_area *v, uint64_t index)
{
    struct mempolicy *p = NULL;

    if (v->flags & VM_SHARED) {
        p = shared_policy_get(&v->file->policy, index);
    }
    return p != NULL ? p : mpol_get(vma_policy(v));
}

mm_status_t vm_get_mempolicy(struct mm_struct *mm, uint64_t va, enum mpol_mode *mode, nodemask_t *nodes)
{
    const struct vm_area *v;
    struct mempolicy *p = NULL;
    mm_status_t status = MM_EFAULT;

    read_lock(&mm->mmap_lock);
    v = find_vma(mm, va);
    if (v != NULL && v->start <= va) {
        p = vma_policy_get(v, vma_index(v, va));
        status = MM_OK;
    }
    read_unlock(&mm->mmap_lock);
    *mode = p != NULL ? p->mode : MPOL_DEFAULT;
    *nodes = p != NULL ? p->nodes : 0;
    mpol_put(mm->vm, p);
    return status;
}

/* ---- objects ---- */

struct mempolicy *shared_policy_get(struct shared_policy *s, uint64_t index)
{
    struct mempolicy *p = NULL;

    if (fs_likely(atomic_load_explicit(&s->count, memory_order_acquire) == 0)) {
        return NULL;
    }
    spin_lock(&s->lock);
    for (const struct policy_range *r = s->first; r != NULL && r->first <= index && p == NULL; r = r->next) {
        p = index < r->end ? mpol_get(r->policy) : NULL;
    }
    spin_unlock(&s->lock);
    return p;
}

static struct policy_range *take_spare(struct policy_range **spare)
{
    struct policy_range *r = *spare;

    ASSERT(r != NULL);
    *spare = r->next;
    return r;
}

/* A range that is not needed any more. */
static void give_spare(struct policy_range **spare, struct policy_range *r)
{
    r->next = *spare;
    *spare = r;
}

/* Cut a range that crosses index, so that none does. pre: lock */
static void cut_ranges(struct shared_policy *s, uint64_t index, struct policy_range **spare)
{
    for (struct policy_range *r = s->first; r != NULL; r = r->next) {
        if (r->first < index && index < r->end) {
            struct policy_range *upper = take_spare(spare);

            *upper = (struct policy_range){ .first = index, .end = r->end, .policy = mpol_get(r->policy), .next = r->next };
            r->end = index;
            r->next = upper;
            s->count++;
        }
    }
}

/* I4. pre: lock */
static void join_ranges(struct shared_policy *s, struct policy_range **spare)
{
    for (struct policy_range *r = s->first; r != NULL; r = r->next) {
        struct policy_range *n;

        while ((n = r->next) != NULL && n->first == r->end && mpol_equal(n->policy, r->policy)) {
            r->end = n->end;
            r->next = n->next;
            give_spare(spare, n);
            s->count--;
        }
    }
}

void shared_policy_set(struct vm *vm, struct shared_policy *s, uint64_t first, uint64_t end, struct mempolicy *policy, struct policy_range **spare)
{
    struct policy_range **at = &s->first, *used = NULL, *new;

    ASSERT_CMP(first, <, end);
    spin_lock(&s->lock);
    cut_ranges(s, first, spare);
    while (*at != NULL && (*at)->first < first) {
        at = &(*at)->next;
    }
    while (*at != NULL && (*at)->end <= end) {
        struct policy_range *gone = *at;

        *at = gone->next;
        give_spare(&used, gone);
        s->count--;
    }
    if (*at != NULL && (*at)->first < end) {    /* what is left of it begins later */
        (*at)->first = end;
    }
    if (policy != NULL) {
        new = take_spare(spare);
        *new = (struct policy_range){ .first = first, .end = end, .policy = mpol_get(policy), .next = *at };
        *at = new;
        s->count++;
    }
    join_ranges(s, &used);
    spin_unlock(&s->lock);
    while (used != NULL) {
        new = used;
        used = new->next;
        mpol_put(vm, new->policy);
        new->policy = NULL;
        give_spare(spare, new);
    }
}

mm_status_t policy_ranges_new(struct vm *vm, uint32_t n, struct policy_range **chain)
{
    *chain = NULL;
    for (; n > 0; n--) {
        struct policy_range *r = kmem_cache_alloc(vm->policy_range_cache, GFP_KERNEL);

        if (r == NULL) {
            policy_ranges_free(vm, *chain);
            *chain = NULL;
            return MM_ENOMEM;
        }
        *r = (struct policy_range){ .next = *chain };
        *chain = r;
    }
    return MM_OK;
}

void policy_ranges_free(struct vm *vm, struct policy_range *chain)
{
    while (chain != NULL) {
        struct policy_range *r = chain;

        chain = r->next;
        mpol_put(vm, r->policy);
        kmem_cache_free(vm->policy_range_cache, r);
    }
}

void shared_policy_destroy(struct vm *vm, struct shared_policy *s)
{
    policy_ranges_free(vm, s->first);
    s->first = NULL;
    s->count = 0;
}
