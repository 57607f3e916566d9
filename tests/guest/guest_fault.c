/*
 * guest_fault.c - page allocations of the core that fail when a test says so.
 *
 * Owns: the count of calls.
 * Why: what can fail is made to fail without a hook in the allocator's fast path: the linker puts these functions between it and
 *   its callers (--wrap in guest.mk).
 * Cost: none in the product.
 */
#include "guest_fault.h"
#include "page_alloc.h"
#include <stdatomic.h>

struct page *__real_alloc_pages(struct mm *mm, gfp_t gfp, unsigned order);
struct page *__real_alloc_pages_node(struct mm *mm, uint32_t node, gfp_t gfp, unsigned order);
struct page *__real_alloc_pages_nodemask(struct mm *mm, uint32_t node, nodemask_t nodes, gfp_t gfp, unsigned order);
struct page *__wrap_alloc_pages(struct mm *mm, gfp_t gfp, unsigned order);
struct page *__wrap_alloc_pages_nodemask(struct mm *mm, uint32_t node, nodemask_t nodes, gfp_t gfp, unsigned order);
struct page *__wrap_alloc_pages_node(struct mm *mm, uint32_t node, gfp_t gfp, unsigned order);

static _Atomic uint64_t calls, fail_first = UINT64_MAX, fail_last = UINT64_MAX;

void page_alloc_fail_nth(uint64_t n)
{
    atomic_store(&calls, 0);
    atomic_store(&fail_first, n != 0 ? n : UINT64_MAX);
    atomic_store(&fail_last, n != 0 ? n : UINT64_MAX);
}

void page_alloc_fail_from(uint64_t n)
{
    page_alloc_fail_nth(n);
    atomic_store(&fail_last, UINT64_MAX);
}

uint64_t page_alloc_calls(void)
{
    return atomic_load(&calls);
}

static bool fails_now(void)
{
    uint64_t n = atomic_fetch_add(&calls, 1) + 1;

    return n >= atomic_load(&fail_first) && n <= atomic_load(&fail_last);
}

struct page *__wrap_alloc_pages(struct mm *mm, gfp_t gfp, unsigned order)
{
    return fails_now() ? NULL : __real_alloc_pages(mm, gfp, order);
}

struct page *__wrap_alloc_pages_node(struct mm *mm, uint32_t node, gfp_t gfp, unsigned order)
{
    return fails_now() ? NULL : __real_alloc_pages_node(mm, node, gfp, order);
}

struct page *__wrap_alloc_pages_nodemask(struct mm *mm, uint32_t node, nodemask_t nodes, gfp_t gfp, unsigned order)
{
    return fails_now() ? NULL : __real_alloc_pages_nodemask(mm, node, nodes, gfp, order);
}
