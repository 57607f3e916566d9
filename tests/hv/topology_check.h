/*
 * topology_check.h - what every topology must fulfil, recomputed from the ranges.
 */
#ifndef TESTS_TOPOLOGY_CHECK_H
#define TESTS_TOPOLOGY_CHECK_H

#include "hv.h"

/* NULL, or which invariant of topology.c is broken. */
const char *topology_check(const struct hv_topology *t, const struct mfn_range_set *ram);

#endif
