/*
 * status.h - the answers of the guest memory core.
 *
 * The guest kernel is a program of its own; its callers expect the classic ones.
 */
#ifndef GUEST_MM_STATUS_H
#define GUEST_MM_STATUS_H

typedef enum mm_status {
    MM_OK,
    MM_EINVAL,      /* bad range, bad argument: nothing was changed */
    MM_EBUSY,       /* a page is in the way; the out parameter names it */
    MM_EAGAIN,      /* may succeed later */
    MM_ENOMEM,
    MM_EIO,         /* a backing store failed; mbind: pages are not where the policy says */
    MM_ENOENT,      /* no page is there */
    MM_EACCES,      /* others map the page too */
    MM_ENODEV,      /* no such node, or one without memory */
    MM_EFAULT,      /* nothing is mapped there */
    MM_STATUSES
} mm_status_t;

#endif
