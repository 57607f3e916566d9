/*
 * anon_vma.c - which vmas an anonymous page may be mapped in.
 *
 * Owns: struct anon_vma, struct anon_vma_chain, vm_area.anon_vma and chain.
 * Invariants:
 *   I1  refs counts links to vmas, pages (PG_ANON with this mapping) and, for a root, the other members of its family.
 *       At 0 nothing can find it any more, and it is freed.
 *   I2  all members linked to one vma are of one family, so that one lock covers every list that the vma is in.
 *   I3  a child's link comes after its parent's in every list.
 *   I4  the range of a linked vma changes only under the family's lock.
 *   I5  owners and children are counts of what is linked; every ancestor of a linked anon_vma is linked to the same vma.
 * Lock order: the family's lock, then page_table_lock; memory is allocated and freed under neither.
 * Why: a page that is being moved belongs to processes that may exit meanwhile.  Taking a lock of one of them is no way out:
 *   which one, if it is just the last that leaves?  So the page itself keeps its anon_vma alive, by a count, and needs no process.
 *   By I3 whoever walks meets an entry before the copy of it that fork makes behind his back.
 *   A child takes over the anon_vma of an ancestor that has no vma and at most one child left: a line of processes that fork
 *   and exit, each the child of the one before, would else grow a link longer with every generation.
 * Cost: one atomic operation a page that becomes anonymous and one when it is freed; a link a generation of ancestors and vma.
 *
 * Layer: L2
 */
#include "anon_vma.h"
#include "slab.h"
#include "frameshift/assert.h"

static struct anon_vma *anon_vma_new(struct vm *vm, struct anon_vma *parent)
{
    struct anon_vma *a = kmem_cache_alloc(vm->anon_vma_cache, GFP_KERNEL);

    if (a == NULL) {
        return NULL;
    }
    *a = (struct anon_vma){ .root = parent != NULL ? parent->root : a, .parent = parent != NULL ? parent : a };
    if (parent != NULL) {
        anon_vma_get(a->root);
    }
    return a;
}

void anon_vma_put(struct vm *vm, struct anon_vma *a)
{
    while (a != NULL) {
        struct anon_vma *root = a->root != a ? a->root : NULL;
        int32_t was = atomic_fetch_sub_explicit(&a->refs, 1, memory_order_acq_rel);

        ASSERT_CMP(was, >, 0);
        if (was > 1) {
            return;
        }
        ASSERT(a->first == NULL && !spin_held(&a->lock));
        kmem_cache_free(vm->anon_vma_cache, a);
        a = root;
    }
}

/* Put a link at the end of its anon_vma's list and into its vma's. pre: the family's lock, or nobody knows the anon_vma yet */
static void chain_link(struct anon_vma_chain *c, struct vm_area *vma, struct anon_vma *a)
{
    *c = (struct anon_vma_chain){ .vma = vma, .anon_vma = a, .of_vma = vma->chain, .prev = a->last };
    vma->chain = c;
    if (a->last != NULL) {
        a->last->next = c;
    } else {
        a->first = c;
        a->parent->children++;                  /* I5 */
    }
    a->last = c;
    anon_vma_get(a);
}

static void own(struct vm_area *vma, struct anon_vma *a)
{
    vma->anon_vma = a;
    a->owners++;
}

static void chain_unlink(struct anon_vma_chain *c)
{
    struct anon_vma *a = c->anon_vma;

    if (c->prev != NULL) {
        c->prev->next = c->next;
    } else {
        a->first = c->next;
    }
    if (c->next != NULL) {
        c->next->prev = c->prev;
    } else {
        a->last = c->prev;
    }
    if (a->first == NULL) {
        a->parent->children--;
    }
}

/* Links that were allocated and not used; chained by of_vma. */
static void chains_free(struct vm *vm, struct anon_vma_chain *c)
{
    while (c != NULL) {
        struct anon_vma_chain *next = c->of_vma;

        kmem_cache_free(vm->chain_cache, c);
        c = next;
    }
}

/* n links, chained by of_vma; NULL: out of memory (or n is 0). */
static struct anon_vma_chain *chains_alloc(struct vm *vm, uint32_t n)
{
    struct anon_vma_chain *first = NULL;

    for (uint32_t i = 0; i < n; i++) {
        struct anon_vma_chain *c = kmem_cache_alloc(vm->chain_cache, GFP_KERNEL);

        if (c == NULL) {
            chains_free(vm, first);
            return NULL;
        }
        c->of_vma = first;
        first = c;
    }
    return first;
}

static struct anon_vma_chain *chain_pop(struct anon_vma_chain **list)
{
    struct anon_vma_chain *c = *list;

    *list = c->of_vma;
    return c;
}

mm_status_t anon_vma_prepare(struct vm_area *vma)
{
    struct vm *vm = vma->mm->vm;
    struct anon_vma *a;
    struct anon_vma_chain *c;
    bool had;

    spin_lock(&vma->mm->page_table_lock);
    had = vma->anon_vma != NULL;
    spin_unlock(&vma->mm->page_table_lock);
    if (had) {
        return MM_OK;
    }
    a = anon_vma_new(vm, NULL);
    c = chains_alloc(vm, 1);
    if (a != NULL && c != NULL) {
        spin_lock(&vma->mm->page_table_lock);
        if (vma->anon_vma == NULL) {
            chain_link(c, vma, a);              /* nobody knows it: its first page comes later */
            own(vma, a);
            a = NULL;
            c = NULL;
        }
        spin_unlock(&vma->mm->page_table_lock);
        had = true;
    }
    if (a != NULL) {
        kmem_cache_free(vm->anon_vma_cache, a);
    }
    chains_free(vm, c);
    return had ? MM_OK : MM_ENOMEM;
}

static uint32_t chain_length(const struct vm_area *vma)
{
    uint32_t n = 0;

    for (const struct anon_vma_chain *c = vma->chain; c != NULL; c = c->of_vma) {
        n++;
    }
    return n;
}

/* An ancestor's anon_vma that the child may take over. pre: the family's lock */
static struct anon_vma *abandoned(const struct vm_area *from)
{
    for (const struct anon_vma_chain *c = from->chain; c != NULL; c = c->of_vma) {
        if (c->anon_vma->owners == 0 && c->anon_vma->children < 2) {
            return c->anon_vma;                 /* never the root: it counts itself, and has a child or an owner */
        }
    }
    return NULL;
}

/* Link to wherever from is. Its own is from's, or with spare_own an abandoned one or, where there is none, *spare_own, which is taken. */
static mm_status_t link_as(struct vm_area *to, struct vm_area *from, struct anon_vma **spare_own)
{
    struct vm *vm = to->mm->vm;
    struct anon_vma_chain *spare = chains_alloc(vm, chain_length(from) + (spare_own != NULL));
    struct anon_vma *a = from->anon_vma;

    if (spare == NULL) {
        return MM_ENOMEM;
    }
    anon_vma_lock(from->anon_vma);
    if (spare_own != NULL) {
        a = abandoned(from);
    }
    for (struct anon_vma_chain *c = from->chain; c != NULL; c = c->of_vma) {
        chain_link(chain_pop(&spare), to, c->anon_vma);         /* I3: at the end */
    }
    if (a == NULL) {
        a = *spare_own;
        *spare_own = NULL;
        chain_link(chain_pop(&spare), to, a);
    }
    own(to, a);
    anon_vma_unlock(from->anon_vma);
    chains_free(vm, spare);
    return MM_OK;
}

mm_status_t anon_vma_clone(struct vm_area *to, struct vm_area *from)
{
    return from->anon_vma == NULL ? MM_OK : link_as(to, from, NULL);
}

mm_status_t anon_vma_fork(struct vm_area *to, struct vm_area *from)
{
    struct vm *vm = to->mm->vm;
    struct anon_vma *spare;
    mm_status_t status;

    if (from->anon_vma == NULL) {
        return MM_OK;
    }
    spare = anon_vma_new(vm, from->anon_vma);
    if (spare == NULL) {
        return MM_ENOMEM;
    }
    status = link_as(to, from, &spare);
    if (spare != NULL) {
        anon_vma_get(spare);
        anon_vma_put(vm, spare);                /* its reference on the root too */
    }
    return status;
}

void anon_vma_unlink(struct vm_area *vma)
{
    struct vm *vm = vma->mm->vm;
    struct anon_vma_chain *chain = vma->chain;
    struct anon_vma *root;

    if (chain == NULL) {
        return;
    }
    root = chain->anon_vma->root;               /* I2; it lives as long as any link does */
    spin_lock(&root->lock);
    vma->anon_vma->owners--;
    for (struct anon_vma_chain *c = chain; c != NULL; c = c->of_vma) {
        chain_unlink(c);
    }
    vma->chain = NULL;
    vma->anon_vma = NULL;
    spin_unlock(&root->lock);
    while (chain != NULL) {
        struct anon_vma_chain *c = chain;

        chain = c->of_vma;
        anon_vma_put(vm, c->anon_vma);
        kmem_cache_free(vm->chain_cache, c);
    }
}
