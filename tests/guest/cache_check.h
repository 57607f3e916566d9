/*
 * cache_check.h - all four checks of a guest: mm_fsck, slab_fsck, vm_fsck, cache_fsck.
 */
#ifndef TESTS_GUEST_CACHE_CHECK_H
#define TESTS_GUEST_CACHE_CHECK_H

#include "vm_world.h"

/* Fails the test and prints every fault and the seed if there is one. pre: nobody is at work */
void check_caches(struct guest *g, uint64_t seed);

#endif
