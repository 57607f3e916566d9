/*
 * coop.h - the guest's side of frameshift/abi.h (Layer: L7).
 *
 * One caller at a time, on any CPU, with no lock held: a kernel thread that polls.
 */
#ifndef GUEST_MM_COOP_H
#define GUEST_MM_COOP_H

#include "frameshift/abi.h"
#include "hotplug.h"
#include "relocate.h"

/* X(name): what was asked and what was refused */
#define COOP_COUNTER_LIST(X) X(requests) X(sessions) X(invalid) X(broken) X(moved_free) X(moved_user) X(moved_kernel) X(moved_table) X(failed)
struct coop {
    struct mm *mm;
    struct vm *vm;                              /* NULL: none above the allocator */
    struct fs_abi_control *control;             /* in the direct map */
    struct fs_abi_move *list[FS_ABI_SLOTS];
    struct fs_abi_block *blocks;                /* the export */
    pfn_t control_pfn;
    uint32_t export_pages;
    uint32_t session, served;                   /* our own copies: requests served in this session */
    uint64_t export_sequence, given_pages;
    struct hotplug_ops hotplug;                 /* give NULL: SHRINK and GROW are not supported */
    struct relocate relocate;
    struct relocate_entry entries[FS_ABI_LIST_MAX];
#define X(name) uint64_t name;
    COOP_COUNTER_LIST(X)
#undef X
};

/* Allocates the shared pages. hotplug may be NULL. The caller publishes coop->control_pfn afterwards. MM_ENOMEM */
mm_status_t coop_init(struct coop *c, struct mm *mm, struct vm *vm, const struct hotplug_ops *hotplug) FS_MUST_CHECK;
/* Serve what was asked, one request at most. False: there was nothing to do. */
bool coop_poll(struct coop *c);

#endif
