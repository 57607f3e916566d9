/*
 * relocate_user.c - another machine frame under a page of processes or of the page cache, while they run.
 *
 * Layer: L3
 */
#include "relocate.h"
#include "page_alloc.h"

bool relocate_is_user(const struct page *p)
{
    return page_test(p, PG_LRU | PG_ANON | PG_SWAPCACHE | PG_MLOCKED) || atomic_load_explicit(&p->mapcount, memory_order_relaxed) > 0;
}

uint32_t relocate_user(struct relocate *r, const struct relocate_entry *e, struct page *p, bool verify, uint64_t *verified)
{
    (void)r, (void)e, (void)p, (void)verify, (void)verified;
    return FS_ABI_ENTRY_BUSY;
}

bool relocate_table_place(struct relocate *r, const struct page *p, struct arch_table_place *at)
{
    (void)r, (void)p, (void)at;
    return false;
}
