/*
 * migrate.h - moving pages of processes and of the page cache to other frame numbers.
 *
 * Layer: L3.  Nothing of a process is needed but its pages: it may run, sleep, fork or exit meanwhile.
 */
#ifndef GUEST_MM_MIGRATE_H
#define GUEST_MM_MIGRATE_H

#include "vm.h"

enum migrate_mode {
    MIGRATE_ASYNC,              /* pages that are locked are passed by */
    MIGRATE_SYNC,               /* they are waited for, after the first passes. pre: the caller holds no page lock */
};

#define MIGRATE_PASSES 10u

struct migrate_item {
    struct page *from;          /* in: one reference of the caller's; out: NULL once it is gone (MM_OK) */
    struct page *to;            /* in: the target meant for this page (PAGE_USED, order 0, movable, refs 1, the reference is given away) or
                                 * NULL; out: where the contents are now, not referenced; NULL where the page was free by then */
    mm_status_t status;         /* out: MM_OK; MM_EAGAIN: busy in every pass; MM_EBUSY: not to be moved at all; MM_ENOMEM: no target */
};

struct migrate_result { uint64_t moved, gone, failed, retries; };

/* A target for items[i].from: as above; NULL: none is left. */
typedef struct page *(*new_page_fn)(void *ctx, struct page *from, size_t i);

/* Move the pages of the list, in up to MIGRATE_PASSES passes over what was busy. What has moved is disposed of at once: its last
 * reference, the caller's, is put. What has not keeps it. Returns MM_OK if everything has moved, else the first item's status that is
 * not. pre: each page once in the list, no spinlock is held. A target has the order of its page; a transparent huge page that gets none (or a small one) is
 * split, and its first page moves alone. */
mm_status_t migrate_pages(struct vm *vm, struct migrate_item *items, size_t count, new_page_fn new_page, void *ctx, enum migrate_mode mode,
                          struct migrate_result *result) FS_MUST_CHECK;

/* Compaction, isolation and hotplug move pages of this vm from now on. */
void vm_install_migrate(struct vm *vm);

#endif
