/*
 * guest_fault_object.c - objects of slab caches that cannot be had when a test says so.
 *
 * Owns: the count of calls of kmem_cache_alloc().
 * Why: an object seldom needs a new page, so failing pages alone would leave most ways out untried.
 * Cost: none in the product (--wrap, as in guest_fault.c).
 */
#include "guest_fault.h"
#include "slab.h"
#include <stdatomic.h>

void *__real_kmem_cache_alloc(struct kmem_cache *c, gfp_t gfp);
void *__wrap_kmem_cache_alloc(struct kmem_cache *c, gfp_t gfp);

static _Atomic uint64_t calls, fail_at;

void object_alloc_fail_nth(uint64_t n)
{
    atomic_store(&calls, 0);
    atomic_store(&fail_at, n);
}

uint64_t object_alloc_calls(void)
{
    return atomic_load(&calls);
}

void *__wrap_kmem_cache_alloc(struct kmem_cache *c, gfp_t gfp)
{
    uint64_t n = atomic_fetch_add(&calls, 1) + 1;

    return n == atomic_load(&fail_at) ? NULL : __real_kmem_cache_alloc(c, gfp);
}
