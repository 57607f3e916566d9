/*
 * rmap_none.c - what reclaim and page cache ask of reverse maps, where nothing is mapped.
 *
 * Layer: L2
 * Owns: nothing.  Goes when rmap.c comes.
 * Why: page cache and swap can be linked and tested before there are page tables; the real functions take precedence.
 * Cost: none.
 */
#include "rmap.h"
#include "frameshift/assert.h"

__attribute__((weak)) unsigned page_referenced(struct vm *vm, struct page *page, bool *mlocked)
{
    (void)vm;
    ASSERT(!page_mapped(page));
    *mlocked = false;
    return 0;
}

__attribute__((weak)) bool page_mkclean(struct vm *vm, struct page *page)
{
    (void)vm;
    ASSERT(!page_mapped(page));
    return false;
}

__attribute__((weak)) mm_status_t try_to_unmap(struct vm *vm, struct page *page, enum unmap_how how)
{
    (void)vm;
    (void)how;
    ASSERT(!page_mapped(page));
    return MM_OK;
}
