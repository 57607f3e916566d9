/*
 * rmap.h - from a page to the entries that map it.
 *
 * Layer: L2.  A page with PG_ANON holds a reference on the anon_vma in its mapping, from its first
 * mapping until it is free; so whoever holds a reference on the page and its lock may walk, and needs no lock of any process.
 * Each entry that maps a page is one of its mapcount and one of its references.  An entry for migration or swap is neither.
 */
#ifndef GUEST_MM_RMAP_H
#define GUEST_MM_RMAP_H

#include "vm.h"

/* A mapping of the page at va comes. pre: page_table_lock; the page is locked where it is not PG_ANON yet. rmap_add_anon()
 * makes it PG_ANON: of the vma's own anon_vma, or with shared of the root's, which every process of the family has. */
void rmap_add_anon(struct page *page, struct vm_area *vma, uint64_t va);
void rmap_add_anon_shared(struct page *page, struct vm_area *vma, uint64_t va);
void rmap_add_file(struct page *page);
/* One more or less entry. pre: page_table_lock of a table that maps it */
void rmap_dup(struct page *page);
void rmap_remove(struct page *page);
/* A D bit went: PG_DIRTY, or pagecache_dirty() for a page of a file. */
void rmap_page_dirty(struct page *page);
static inline bool page_mapped(const struct page *page)
{
    return atomic_load_explicit(&page->mapcount, memory_order_acquire) > 0;
}

/* ---- pre of all below: the page is locked and a reference is held; no spinlock is held ---- */

/* How many entries had A set; clears it. *mlocked: a VM_LOCKED vma maps it. */
unsigned page_referenced(struct vm *vm, struct page *page, bool *mlocked);
/* D bits become PG_DIRTY (pagecache_dirty() for a page of a file); true if there was one. */
bool page_mkclean(struct vm *vm, struct page *page);
/* A VM_LOCKED vma maps it. */
bool page_mapped_locked(struct vm *vm, struct page *page);

enum unmap_how {
    UNMAP_MIGRATION,            /* each entry becomes one for migration of this page; mlocked pages too */
    UNMAP_SWAP,                 /* each entry becomes page->private, which is swap_dup()ed for it. pre: PG_SWAPCACHE */
    UNMAP_FILE,                 /* each entry goes: the page is in a page cache */
};
/* MM_OK: nothing maps it any more. MM_EBUSY: mlocked (PG_MLOCKED is set). MM_EAGAIN: somebody maps it anew, or no count of the slot is left. */
mm_status_t try_to_unmap(struct vm *vm, struct page *page, enum unmap_how how) FS_MUST_CHECK;
/* Every migration entry of old maps new from now on, or old itself again. pre: new has old's mapping and index; both are locked */
void remove_migration_ptes(struct vm *vm, struct page *old, struct page *new);

/* Call fn for each place where the page may be mapped, with the page_table_lock of vma->mm held, in an order in which a process comes
 * before its children; fn returns false to stop. */
struct pte_ref;
typedef bool (*rmap_fn)(struct vm *vm, struct page *page, struct vm_area *vma, const struct pte_ref *at, uint64_t va, void *arg);
void rmap_walk(struct vm *vm, struct page *page, rmap_fn fn, void *arg);

#endif
