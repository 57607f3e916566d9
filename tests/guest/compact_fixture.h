/*
 * compact_fixture.h - aged memory for the tests of compaction, and what the least number of moves is.
 */
#ifndef TESTS_GUEST_COMPACT_FIXTURE_H
#define TESTS_GUEST_COMPACT_FIXTURE_H

#include "guest_fixture.h"
#include "compaction.h"

/* One zone of so many pages, all free, with compaction and owners of movable units. */
void compact_setup(struct fixture *f, struct owners *o, uint64_t pages, enum claim_policy policy, uint64_t seed);
void compact_teardown(struct fixture *f, struct owners *o);
/* Fill memory with movable units, then free at random until a share is free. */
void compact_age(struct owners *o, unsigned free_percent, unsigned largest_order, struct rng *r);
/* The least number of page moves that makes so many more whole blocks: the used pages of the emptiest ones that hold nothing immovable. */
uint64_t compact_least_moves(const struct mm *mm, uint64_t blocks);
uint64_t compact_whole_blocks(const struct mm *mm);
/* Blocks that hold a page which is not movable; *mixed: of those, with movable ones too. */
uint64_t compact_kernel_blocks(const struct mm *mm, uint64_t *mixed);

#endif
