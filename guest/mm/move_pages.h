/*
 * move_pages.h - single pages of a process to single nodes, with a status for each.
 *
 * Layer: L4.  A program that counts accesses knows better than any policy where a page should be; this is how it asks and how it acts.
 */
#ifndef GUEST_MM_MOVE_PAGES_H
#define GUEST_MM_MOVE_PAGES_H

#include "mbind.h"

/* A page's status: the node that it is on, or one of these. */
#define MOVE_ENOENT (-(int32_t)MM_ENOENT)       /* no page is there: never touched, swapped out, or gone meanwhile */
#define MOVE_EFAULT (-(int32_t)MM_EFAULT)       /* nothing is mapped at the address */
#define MOVE_EACCES (-(int32_t)MM_EACCES)       /* another process maps it too, and MPOL_MF_MOVE_ALL was not given */
#define MOVE_EBUSY  (-(int32_t)MM_EBUSY)        /* somebody uses it (a device, an access, write-back): it stayed */
#define MOVE_EINVAL (-(int32_t)MM_EINVAL)       /* no number of a node */
#define MOVE_ENODEV (-(int32_t)MM_ENODEV)       /* a node that this machine does not have, or without memory */
#define MOVE_ENOMEM (-(int32_t)MM_ENOMEM)       /* the node has nothing free: it stayed */
const char *move_status_name(int32_t status);

/* Move the page at addresses[i] to nodes[i]; nodes NULL: move nothing, only say where they are. status[i] as above. Pages are dealt with in
 * order: an address that comes twice ends where the last one says. flags: MPOL_MF_MOVE or MPOL_MF_MOVE_ALL (0 will do for a question).
 * MM_EINVAL: other flags, nothing was done. MM_OK: status[] tells, of every page. */
mm_status_t vm_move_pages(struct mm_struct *mm, size_t count, const uint64_t *addresses, const int32_t *nodes, int32_t *status,
                          unsigned flags) FS_MUST_CHECK;

#endif
