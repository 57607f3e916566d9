/*
 * mempolicy_fsck.h - policies recomputed and compared, and the pages of a process by node in lines.
 *
 * Layer: L6.  pre of the check: at rest, and vm_fsck() has found nothing.  It writes nothing but mempolicy.check.
 */
#ifndef GUEST_MM_MEMPOLICY_FSCK_H
#define GUEST_MM_MEMPOLICY_FSCK_H

#include "mempolicy.h"
#include "mm_dump.h"

/* X(name, text) */
#define MPOL_FSCK_LIST(X)                                                                \
    X(MODE,      "a policy of no known mode, or whose nodes do not fit it")              \
    X(NODE,      "a policy names a node that this machine does not have")                \
    X(REFS,      "the reference count of a policy is wrong")                             \
    X(LOST,      "policies that nobody has, or the reverse")                             \
    X(VMA,       "a shared mapping has a policy of its own")                             \
    X(MERGE,     "two neighbouring ranges of an object that should be one")             \
    X(RANGE,     "a range of an object is empty, out of order or without a policy")      \
    X(RANGES,    "the count of an object's ranges is wrong")                             \
    X(LOCK_HELD, "a lock is held at rest")                                               \
    X(PLACE,     "a page is not where its policy wants it")

enum mpol_fsck_fault {
#define X(name, text) MPOL_FSCK_##name,
    MPOL_FSCK_LIST(X)
#undef X
    MPOL_FSCK_FAULTS
};
const char *mpol_fsck_name(enum mpol_fsck_fault fault);
const char *mpol_fsck_text(enum mpol_fsck_fault fault);

/* mm, va: where it was found (NULL, UINT64_MAX: in an object, or everywhere). */
typedef void (*mpol_fsck_fn)(void *ctx, enum mpol_fsck_fault fault, const struct mm_struct *mm, uint64_t va, uint64_t is, uint64_t should_be);

/* Also look whether each page lies where its policy wants it. That is sure only after mbind(MOVE | STRICT), or where memory was never short;
 * bind holds always, but for pages that were there before the policy. */
#define MPOL_FSCK_PLACES 0x1u
/* Returns the number of faults. report may be NULL. */
uint64_t mempolicy_fsck(struct vm *vm, unsigned flags, mpol_fsck_fn report, void *ctx) FS_MUST_CHECK;

/* In the shape of /proc/PID/numa_maps: one line a vma, with the policy that decides at its start, pages by node, and what they are:
 * "0x20000000 interleave:0-3 anon=16 dirty=16 swap=2 N0=4 N1=4 N2=4 N3=4 misplaced=1". A running process may be a moment ahead of its lines. */
void mempolicy_dump(struct mm_struct *mm, mm_line_fn out, void *ctx);
/* The ranges of an object: "0x10-0x20 bind:2". */
void shared_policy_dump(struct shared_policy *s, mm_line_fn out, void *ctx);

#endif
