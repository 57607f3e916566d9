/*
 * mempolicy.h - on which nodes the pages of a process, of a range, or of an object shall lie.
 *
 * Layer: L3.  A policy never changes; it is given away by reference.  MPOL_DEFAULT is no policy (NULL): what is next in line decides, and at
 * the end of it the node of the CPU that asks.  In line: of a private page, the vma's, then the process's; of a page of an object (file or
 * shared memory) that is mapped shared or read, the object's own for that index, then that of the process that brings it in.
 */
#ifndef GUEST_MM_MEMPOLICY_H
#define GUEST_MM_MEMPOLICY_H

#include "vm.h"

enum mpol_mode {
    MPOL_DEFAULT,
    MPOL_PREFERRED,             /* one node; others where it has nothing free */
    MPOL_BIND,                  /* these nodes and no others: MM_ENOMEM instead */
    MPOL_INTERLEAVE,            /* page by page by index: the same pattern whoever faults first; others where the node has nothing free */
    MPOL_LOCAL,                 /* the node of the CPU that asks, whatever the process's policy is */
    MPOL_MODES
};
const char *mpol_mode_name(enum mpol_mode mode);

struct mempolicy {
    _Atomic int32_t refs;       /* a vma, a process, a range of an object, whoever looked it up: one each */
    enum mpol_mode mode;        /* constant; never MPOL_DEFAULT */
    nodemask_t nodes;           /* constant; 0 with MPOL_LOCAL */
    uint32_t check;             /* scratch of mempolicy_fsck() */
};

/* Why mode and nodes do not make a policy. X(name, text, status) */
#define MPOL_REFUSAL_LIST(X)                                                                                                        \
    X(FINE,         "they do", MM_OK)                                                                                               \
    X(BAD_MODE,     "there is no such mode: take one of enum mpol_mode", MM_EINVAL)                                                 \
    X(NO_NODES,     "preferred, bind and interleave need nodes: name one at least", MM_EINVAL)                                      \
    X(NODES_GIVEN,  "default and local take no nodes: leave the mask 0", MM_EINVAL)                                                 \
    X(MANY_NODES,   "preferred takes one node: choose one, or use bind or interleave", MM_EINVAL)                                   \
    X(NO_SUCH_NODE, "the mask names a node that this machine does not have: see mm_nodes()", MM_ENODEV)                             \
    X(EMPTY_NODE,   "the mask names a node whose memory is offline: bring it online first, or leave the node out", MM_ENODEV)
enum mpol_refusal {
#define X(name, text, status) MPOL_##name,
    MPOL_REFUSAL_LIST(X)
#undef X
    MPOL_REFUSALS
};
/* *node: the first that it is about, where it is about one (may be NULL). */
enum mpol_refusal mpol_check(const struct mm *mm, enum mpol_mode mode, nodemask_t nodes, uint32_t *node);
const char *mpol_refusal_text(enum mpol_refusal refusal);
mm_status_t mpol_refusal_status(enum mpol_refusal refusal);

/* A policy with one reference; NULL for MPOL_DEFAULT. MM_EINVAL, MM_ENODEV: as mpol_check() tells; MM_ENOMEM */
mm_status_t mpol_new(struct vm *vm, enum mpol_mode mode, nodemask_t nodes, struct mempolicy **out) FS_MUST_CHECK;
/* Both take NULL. */
struct mempolicy *mpol_get(struct mempolicy *p);
void mpol_put(struct vm *vm, struct mempolicy *p);
bool mpol_equal(const struct mempolicy *a, const struct mempolicy *b);

/* The nodes on which page index may lie: one for preferred and interleave; all with memory for NULL and local. */
nodemask_t mpol_nodes(const struct mm *mm, const struct mempolicy *p, uint64_t index);

/* A policy, and the place in it. index: vma_index() of private pages, the object's index of others. */
struct mpol_place { const struct mempolicy *policy; uint64_t index; };
/* A unit where the policy wants it. place NULL: no policy. Interleave counts units of order. */
struct page *mpol_alloc(struct vm *vm, const struct mpol_place *place, gfp_t gfp, unsigned order);
/* The same on one of these nodes or not at all. */
struct page *mpol_alloc_on(struct vm *vm, nodemask_t nodes, gfp_t gfp, unsigned order);

/* ---- processes ---- */

/* The policy of whatever has none of its own, from now on; pages that are there stay. As mpol_new(). */
mm_status_t vm_set_mempolicy(struct mm_struct *mm, enum mpol_mode mode, nodemask_t nodes) FS_MUST_CHECK;
/* What decides at va. MM_EFAULT: nothing is mapped there */
mm_status_t vm_get_mempolicy(struct mm_struct *mm, uint64_t va, enum mpol_mode *mode, nodemask_t *nodes) FS_MUST_CHECK;
/* Of a private page of the vma: not referenced. pre: mmap_lock */
struct mempolicy *vma_policy(const struct vm_area *vma);
/* Of whatever is mapped at index: referenced. pre: mmap_lock */
struct mempolicy *vma_policy_get(const struct vm_area *vma, uint64_t index);

/* ---- objects: a list of ranges of indices ---- */

struct policy_range {           /* [first, end) */
    uint64_t first, end;
    struct mempolicy *policy;
    struct policy_range *next;
};
struct shared_policy {
    struct spinlock lock;       /* the last of all locks */
    _Atomic uint32_t count;     /* lock for changing; of ranges: 0 is the common case, and costs no lock */
    struct policy_range *first; /* lock; by index, disjoint; neighbours that could be one are one */
};
#define POLICY_RANGES_A_SET 2u  /* new ranges that one shared_policy_set() may need */

/* Referenced, or NULL. */
struct mempolicy *shared_policy_get(struct shared_policy *s, uint64_t index);
/* [first, end) has policy (which may be NULL) from now on. *spare: a chain of at least POLICY_RANGES_A_SET; it takes what it needs from it, and adds
 * what is not needed any more. Never fails. */
void shared_policy_set(struct vm *vm, struct shared_policy *s, uint64_t first, uint64_t end, struct mempolicy *policy, struct policy_range **spare);
void shared_policy_destroy(struct vm *vm, struct shared_policy *s);
/* A chain of n. MM_ENOMEM: none. */
mm_status_t policy_ranges_new(struct vm *vm, uint32_t n, struct policy_range **chain) FS_MUST_CHECK;
void policy_ranges_free(struct vm *vm, struct policy_range *chain);

#endif
