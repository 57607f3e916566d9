/*
 * anon_vma.h - which vmas an anonymous page may be mapped in.
 *
 * Layer: L2.  A vma has the anon_vma of its own (for pages that become anonymous in it) and is linked to those of its
 * ancestors, whose pages fork gave it.  One lock for a family: the root's.
 */
#ifndef GUEST_MM_ANON_VMA_H
#define GUEST_MM_ANON_VMA_H

#include "vm.h"

struct anon_vma {
    struct anon_vma *root;                      /* constant; itself, or what the family began with */
    struct spinlock lock;                       /* the root's is used */
    _Atomic int32_t refs;                       /* a link to a vma, a page, a member of the family to the root: one each */
    struct anon_vma_chain *first, *last;        /* lock: links to vmas, parents before children */
    struct anon_vma *parent;                    /* constant; the root's is itself. It lives while any vma is linked here */
    uint32_t owners;                            /* lock: vmas whose own it is */
    uint32_t children;                          /* lock: members of the family with this parent and a vma; the root counts itself */
    uint32_t check, check_children;             /* scratch of vm_fsck() */
    bool met;                                   /* the same */
};

struct anon_vma_chain {                         /* one link between a vma and an anon_vma */
    struct vm_area *vma;                        /* lock */
    struct anon_vma *anon_vma;                  /* constant */
    struct anon_vma_chain *of_vma;              /* the vma's next */
    struct anon_vma_chain *next, *prev;         /* lock */
};

static inline void anon_vma_lock(struct anon_vma *a) { spin_lock(&a->root->lock); }
static inline void anon_vma_unlock(struct anon_vma *a) { spin_unlock(&a->root->lock); }

static inline void anon_vma_get(struct anon_vma *a) { atomic_fetch_add_explicit(&a->refs, 1, memory_order_relaxed); }
/* pre: the family's lock is not held */
void anon_vma_put(struct vm *vm, struct anon_vma *a);

/* The vma has an anon_vma of its own afterwards. MM_ENOMEM. pre: mmap_lock (either way), nothing else */
mm_status_t anon_vma_prepare(struct vm_area *vma) FS_MUST_CHECK;
/* to, which nobody sees yet, is linked wherever from is and has from's own anon_vma (a split). MM_ENOMEM: nothing was done. */
mm_status_t anon_vma_clone(struct vm_area *to, struct vm_area *from) FS_MUST_CHECK;
/* The same, and an own one, member of the family (fork): a new one, or that of an ancestor that is gone. */
mm_status_t anon_vma_fork(struct vm_area *to, struct vm_area *from) FS_MUST_CHECK;
/* The vma leaves all. pre: none of its entries is used any more */
void anon_vma_unlink(struct vm_area *vma);

#endif
