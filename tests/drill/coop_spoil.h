/*
 * coop_spoil.h - one wrong byte in a guest kernel's memory, so that a drill can be shown to find it.
 */
#ifndef TESTS_DRILL_COOP_SPOIL_H
#define TESTS_DRILL_COOP_SPOIL_H

#include "drill/coop_guest.h"

enum spoil_kind {
    SPOIL_USER,             /* a page of a process */
    SPOIL_SLAB,             /* an object in use, of the slab task */
    SPOIL_TABLE,            /* an entry of a process's page table */
    SPOIL_HUGE,             /* a page of a huge page: transparent, or of the pool */
    SPOIL_KINDS
};
const char *spoil_name(enum spoil_kind kind);

/* Change one byte of a page of that kind which wanted() likes. Its pfn, of a table that of the page which the entry leads to; FS_FRAME_NONE: there is
 * none. pre: no vCPU runs */
uint64_t spoil(struct emb_machine *m, struct coop_guest *c, enum spoil_kind kind, bool (*wanted)(void *ctx, uint64_t pfn), void *ctx);

#endif
