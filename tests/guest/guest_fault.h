/*
 * guest_fault.h - page allocations of the core that fail when a test says so.
 *
 * Calls of alloc_pages() and alloc_pages_node() from other files than page_alloc.c pass through here (ld --wrap).
 */
#ifndef TESTS_GUEST_FAULT_H
#define TESTS_GUEST_FAULT_H

#include <stdint.h>

/* The n-th page allocation from now on fails (1-based), and no other; 0: none. */
void page_alloc_fail_nth(uint64_t n);
/* Every one from the n-th on fails. */
void page_alloc_fail_from(uint64_t n);
/* Page allocations since the last call of either. */
uint64_t page_alloc_calls(void);
/* The same for kmem_cache_alloc(). */
void object_alloc_fail_nth(uint64_t n);
uint64_t object_alloc_calls(void);

#endif
