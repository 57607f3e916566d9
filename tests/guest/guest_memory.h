/*
 * guest_memory.h - a fixture whose pages have contents, and checks of what lies above the allocator.
 */
#ifndef TESTS_GUEST_MEMORY_H
#define TESTS_GUEST_MEMORY_H

#include "guest_fixture.h"
#include "slab.h"

/* As fixture_init(), with memory under the pages. At the end memory_free(). */
void memory_init(struct fixture *f, uint64_t pages, uint64_t reserved, unsigned cpus);
/* Fails the test if a page is in use that was not when memory_init() came back (per-CPU lists aside). */
void memory_check_all_free(struct fixture *f);
/* The same with the pages divided among nodes (RAM of node 0 first), and frames behind them that have memory and no struct page.
 * pre: pages divide into whole pageblocks a node */
void memory_init_nodes(struct fixture *f, uint64_t pages, uint64_t reserved, unsigned cpus, uint32_t nodes, uint64_t more_frames);
/* The same with boot memory out of the pages themselves, as in a kernel: struct pages can leave. Compaction is set up; memory_base() is pfn 0. */
void memory_init_direct(struct fixture *f, uint64_t pages, unsigned cpus, uint32_t nodes);
void *memory_base(void);
void memory_free(struct fixture *f);
/* Fails the test and prints every fault unless slab_fsck() finds none. */
void check_slab(const struct mm *mm, uint64_t seed);

#endif
