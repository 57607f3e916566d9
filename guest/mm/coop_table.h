/*
 * coop_table.h - the tables that the tool reads of a guest (abi.h: INFO, TUNE).  Layer: L7
 */
#ifndef GUEST_MM_COOP_TABLE_H
#define GUEST_MM_COOP_TABLE_H

#include "frameshift/abi.h"
#include "vm.h"

/* Fill a list page (4096 bytes) with entries of a table from first on. OK with *count and *total; INVALID: no such table, or first is beyond it. */
enum fs_abi_status coop_table_page(struct mm *mm, struct vm *vm, uint64_t table, uint64_t first, void *page, uint32_t *count, uint64_t *total);
/* Set what *wanted, which is the caller's own copy, names. value: those of the answer. */
enum fs_abi_status coop_table_tune(struct mm *mm, const struct fs_abi_value *wanted, uint64_t value[FS_ABI_VALUES]);

#endif
