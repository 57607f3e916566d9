/*
 * mbind.h - a policy for a range, with the pages that are there already; the pages of a whole process from nodes to nodes.
 *
 * Layer: L4.  What lies where the policy wants it stays.  Pages are moved one by one to the exact node that the policy names for their index.
 */
#ifndef GUEST_MM_MBIND_H
#define GUEST_MM_MBIND_H

#include "node_move.h"

#define MPOL_MF_STRICT   0x1u           /* alone: MM_EIO and no new policy if a page is elsewhere; with MOVE: MM_EIO if one could not be moved */
#define MPOL_MF_MOVE     0x2u           /* move pages that no other process maps */
#define MPOL_MF_MOVE_ALL 0x4u           /* and those that others map too */
#define MPOL_MF_ALL      (MPOL_MF_STRICT | MPOL_MF_MOVE | MPOL_MF_MOVE_ALL)

/* Give [va, va + bytes) a policy (mempolicy.h says whose it becomes) and move what is there. *moves (may be NULL) tells how far that went:
 * misplaced and failed are those of the last round, moved is the sum of all.
 * MM_EINVAL, MM_ENODEV: mpol_check() tells why, or bad flags, or a bad range (also one that cuts a unit of VM_HUGETLB); MM_EFAULT:
 * the range has a hole; MM_ENOMEM: nothing was changed;
 * MM_EIO: see MPOL_MF_STRICT; the policy holds if MOVE was given. */
mm_status_t vm_mbind(struct mm_struct *mm, uint64_t va, uint64_t bytes, enum mpol_mode mode, nodemask_t nodes, unsigned flags,
                     struct node_moves *moves) FS_MUST_CHECK;

/* Move what the process maps on the n-th node of from to the n-th node of to, counted round where to has fewer; pages on other nodes stay, and
 * each page moves once at most. flags: MPOL_MF_MOVE or MPOL_MF_MOVE_ALL. What pages keep is their place relative to each other; policies
 * stay. MM_EINVAL: no nodes, or flags; MM_ENODEV: a node of to has no memory; MM_EAGAIN: some could not be moved, or are shared: *moves tells. */
mm_status_t vm_migrate_nodes(struct mm_struct *mm, nodemask_t from, nodemask_t to, unsigned flags, struct node_moves *moves) FS_MUST_CHECK;

#endif
