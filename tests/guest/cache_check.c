/*
 * cache_check.c - all four checks of a guest.
 *
 * Owns: nothing.  Why: a fault of one layer often shows first in another one's check.  Cost: a few passes over the memmap.
 */
#include "cache_check.h"
#include "cache_fsck.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <cmocka.h>

static void print_fault(void *ctx, enum cache_fault fault, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    print_error("seed %llu: %s at pfn %#llx: %s (is %#llx, should be %#llx)\n", *(unsigned long long *)ctx, cache_fault_name(fault),
                (unsigned long long)pfn.n, cache_fault_text(fault), (unsigned long long)is, (unsigned long long)should_be);
}

void check_caches(struct guest *g, uint64_t seed)
{
    unsigned long long s = seed;
    uint64_t faults;

    guest_check(g, seed);
    faults = cache_fsck(&g->vm, print_fault, &s);
    assert_int_equal(faults, 0);
}
