/*
 * reservation.h - giving frames back to Xen and getting some again, for memory_offline() and memory_online().
 */
#ifndef GUEST_ARCH_XEN_RESERVATION_H
#define GUEST_ARCH_XEN_RESERVATION_H

#include "kernel.h"
#include "../../mm/hotplug.h"

/* *given_pages is the number of pages without a frame, kept up to date. */
struct hotplug_ops reservation_ops(uint64_t *given_pages);
/* Frames without a page, more or less of them; returns how many. */
uint64_t reservation_more(uint64_t *mfns, uint64_t count);
uint64_t reservation_less(uint64_t *mfns, uint64_t count);
/* Pages that Xen says this domain has. */
uint64_t reservation_pages(void);

#endif
