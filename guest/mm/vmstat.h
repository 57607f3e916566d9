/*
 * vmstat.h - every count and counter of a vm by name.  Layer: L6
 */
#ifndef GUEST_MM_VMSTAT_H
#define GUEST_MM_VMSTAT_H

#include "vm.h"

/* One value. Names that begin with nr_ are what there is now, in pages if nothing else is said; the others are events since the start. */
typedef void (*vmstat_fn)(void *ctx, const char *name, uint64_t value);

/* Call fn for each value, always in the same order, each name once. Read without locks: exact only while nobody is at work. */
void vmstat(struct vm *vm, vmstat_fn fn, void *ctx);
/* The value of a name; false: there is none of that name. */
bool vmstat_value(struct vm *vm, const char *name, uint64_t *value);

#endif
