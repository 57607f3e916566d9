/*
 * reservation.h - giving frames back to Xen and getting some again, for memory_offline() and memory_online().
 */
#ifndef GUEST_ARCH_XEN_RESERVATION_H
#define GUEST_ARCH_XEN_RESERVATION_H

#include "kernel.h"
#include "../../mm/hotplug.h"

struct reservation {
    uint64_t given_pages;                           /* pages without a frame now */
    uint64_t extents_given, extents_taken;          /* of 2 MiB of machine in one piece, aligned, each in one call */
};

/* Keeps *r up to date. */
struct hotplug_ops reservation_ops(struct reservation *r);
/* Frames without a page, more or less of them; returns how many. */
uint64_t reservation_more(uint64_t *mfns, uint64_t count);
uint64_t reservation_less(uint64_t *mfns, uint64_t count);
/* Pages that Xen says this domain has. */
uint64_t reservation_pages(void);

#endif
