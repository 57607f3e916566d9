/*
 * balloon.h - struct hotplug_ops of a guest in a process: frames go to the machine and come back.
 */
#ifndef GUEST_ARCH_EMBEDDED_BALLOON_H
#define GUEST_ARCH_EMBEDDED_BALLOON_H

#include "../../mm/hotplug.h"
#include "machine.h"

struct hotplug_ops guest_balloon_ops(struct guest_machine *g);

/* For a driver: one piece of machine memory under the pages [pfn, pfn + 2^order), aligned to its size, as Linux's
 * xen_create_contiguous_region(). pre: the caller's pages, nobody else maps them; pfn aligned; order <= PAGEBLOCK_ORDER; CPU 0's thread.
 * MM_OK: *frame is the first; contents are zero. MM_EAGAIN: the machine has no such piece, or somebody holds a frame: frames and contents are as
 * before. The same frames where they lie so already. */
mm_status_t guest_contiguous_create(struct guest_machine *g, pfn_t pfn, unsigned order, mfn_t *frame) FS_MUST_CHECK;
/* Single frames again; contents are zero. MM_EAGAIN: as before. */
mm_status_t guest_contiguous_destroy(struct guest_machine *g, pfn_t pfn, unsigned order) FS_MUST_CHECK;

#endif
