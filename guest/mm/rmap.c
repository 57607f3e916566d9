/*
 * rmap.c - from a page to the entries that map it.
 *
 * Owns: page.mapcount of user pages, PG_ANON, mapping and index of anonymous pages; what replaces their entries.
 * Invariants:
 *   I1  mapcount is the number of entries that map the page (present, or without access); each is one reference too.
 *   I2  a PG_ANON page has one reference on the anon_vma in mapping, given back by hooks.release when the page is free,
 *       or handed on to the page that it was moved to.
 *   I3  the walk meets every entry that maps the page: an entry is made under page_table_lock in a vma that is linked before.
 *   I4  no D bit is lost: what takes a present entry away looks at what it was when it went.
 *   I5  an entry that was changed is flushed before its page_table_lock goes.
 * Lock order: page lock; i_mmap_lock or the family's lock; page_table_lock; in pagecache_dirty() tree_lock, in swap_dup() swap.lock.
 * Why: everything that moves or reclaims pages meets them by frame, so it needs the way back; as entries are not listed
 *   anywhere, it is recomputed from the vma's place in the mapping.
 * Cost: a walk looks at each vma of the family or the file, four loads each; for what forks have not touched that is one.
 *
 * Layer: L3 (its header is L2: those who map pages call it, it calls what backs them)
 */
#include "rmap.h"
#include "anon_vma.h"
#include "lru.h"
#include "pagecache.h"
#include "pgtable.h"
#include "swap.h"
#include "vma.h"
#include "frameshift/assert.h"

/* ---- coming and going ---- */

static void mapcount_change(struct page *page, int change)
{
    int32_t was = atomic_fetch_add_explicit(&page->mapcount, change, memory_order_acq_rel);

    ASSERT(was + change >= 0);
}

static void add_anon(struct page *page, struct anon_vma *a, const struct vm_area *vma, uint64_t va)
{
    if (!page_test(page, PG_ANON)) {
        page->mapping = a;
        page->index = vma_index(vma, va);
        anon_vma_get(a);                        /* I2 */
        page_set_flags(page, PG_ANON);
    }
    ASSERT_CMP(page->index, ==, vma_index(vma, va));
    mapcount_change(page, 1);
}

void rmap_add_anon(struct page *page, struct vm_area *vma, uint64_t va)
{
    add_anon(page, vma->anon_vma, vma, va);
}

void rmap_add_anon_shared(struct page *page, struct vm_area *vma, uint64_t va)
{
    add_anon(page, vma->anon_vma->root, vma, va);
}

void rmap_add_file(struct page *page)
{
    mapcount_change(page, 1);
}

void rmap_dup(struct page *page)
{
    mapcount_change(page, 1);
}

void rmap_remove(struct page *page)
{
    mapcount_change(page, -1);
}

void rmap_page_dirty(struct page *page)
{
    if (page_test(page, PG_ANON)) {
        page_set_flags(page, PG_DIRTY);
    } else if (!page_test(page, PG_HUGE)) {     /* the pool's have no backing store */
        pagecache_dirty(page);
    }
}

/* ---- walking ---- */

/* True: go on. pre: the lock of the list that vma was found in */
static bool visit(struct vm *vm, struct page *page, struct vm_area *vma, rmap_fn fn, void *arg)
{
    uint64_t va = vma->start + (page->index - vma->pgoff) * FS_PAGE_BYTES;
    struct pte_ref at;
    bool more = true;

    if (page->index < vma->pgoff || page->index - vma->pgoff >= vma_pages(vma)) {
        return true;
    }
    spin_lock(&vma->mm->page_table_lock);
    if (pgtable_find(vma->mm, va, &at)) {
        more = fn(vm, page, vma, &at, va, arg);
    }
    spin_unlock(&vma->mm->page_table_lock);
    return more;
}

static void walk_anon(struct vm *vm, struct page *page, rmap_fn fn, void *arg)
{
    struct anon_vma *a = page->mapping;

    anon_vma_lock(a);
    for (struct anon_vma_chain *c = a->first; c != NULL && visit(vm, page, c->vma, fn, arg); c = c->next) {
    }
    anon_vma_unlock(a);
}

static void walk_file(struct vm *vm, struct page *page, rmap_fn fn, void *arg)
{
    struct address_space *as = page->mapping;

    if (as == NULL) {
        return;                                 /* it left the page cache */
    }
    spin_lock(&as->i_mmap_lock);
    for (struct vm_area *v = as->i_mmap; v != NULL && visit(vm, page, v, fn, arg); v = v->i_mmap_next) {
    }
    spin_unlock(&as->i_mmap_lock);
}

void rmap_walk(struct vm *vm, struct page *page, rmap_fn fn, void *arg)
{
    ASSERT(page_test(page, PG_LOCKED));
    if (page_test(page, PG_ANON)) {
        walk_anon(vm, page, fn, arg);
    } else {
        walk_file(vm, page, fn, arg);
    }
}

static bool maps_page(uint64_t e, const struct page *page)
{
    return pte_maps(e) && pte_pfn(e).n == page->pfn;
}

/* ---- what is known about a page ---- */

struct reference { unsigned count; bool mlocked; };

static bool reference_one(struct vm *vm, struct page *page, struct vm_area *vma, const struct pte_ref *at, uint64_t va, void *arg)
{
    struct reference *r = arg;
    uint64_t e = pte_read(at), lost;

    (void)vm;
    (void)va;
    if (!maps_page(e, page)) {
        return true;
    }
    r->mlocked |= (vma->flags & VM_LOCKED) != 0;
    if (e & ARCH_PTE_ACCESSED) {                /* no flush: a TLB that remembers only makes the page look older than it is */
        r->count++;
        (void)pte_clear_bits(at, ARCH_PTE_ACCESSED, &lost);
        if (lost & ARCH_PTE_DIRTY) {
            rmap_page_dirty(page);              /* I4 */
        }
    }
    return true;
}

unsigned page_referenced(struct vm *vm, struct page *page, bool *mlocked)
{
    struct reference r = { .count = 0 };

    if (page_mapped(page)) {
        rmap_walk(vm, page, reference_one, &r);
    }
    *mlocked = r.mlocked;
    return r.count;
}

static bool clean_one(struct vm *vm, struct page *page, struct vm_area *vma, const struct pte_ref *at, uint64_t va, void *arg)
{
    uint64_t e = pte_read(at), lost;

    (void)vm;
    if (maps_page(e, page) && pte_present(e) && (e & ARCH_PTE_DIRTY)) {
        (void)pte_clear_bits(at, ARCH_PTE_DIRTY, &lost);
        pte_flush_at(vma->mm, va, at);          /* the next write has to set D again */
        *(bool *)arg = true;
    }
    return true;
}

bool page_mkclean(struct vm *vm, struct page *page)
{
    bool dirty = false;

    if (page_mapped(page)) {
        rmap_walk(vm, page, clean_one, &dirty);
    }
    if (dirty) {
        rmap_page_dirty(page);
    }
    return dirty;
}

static bool locked_one(struct vm *vm, struct page *page, struct vm_area *vma, const struct pte_ref *at, uint64_t va, void *arg)
{
    bool *locked = arg;

    (void)vm;
    (void)va;
    *locked = maps_page(pte_read(at), page) && (vma->flags & VM_LOCKED) != 0;
    return !*locked;
}

bool page_mapped_locked(struct vm *vm, struct page *page)
{
    bool locked = false;

    if (page_mapped(page)) {
        rmap_walk(vm, page, locked_one, &locked);
    }
    return locked;
}

/* ---- unmapping ---- */

struct unmap { enum unmap_how how; mm_status_t status; };

/* The value that takes the entry's place; MM_EAGAIN if there is none. */
static mm_status_t replacement(struct vm *vm, struct page *page, uint64_t e, enum unmap_how how, uint64_t *value)
{
    swp_entry_t entry = { page->private };

    switch (how) {
    case UNMAP_MIGRATION:
        *value = pte_soft_make(PTE_MIGRATION, page->pfn, pte_write(e));
        return MM_OK;
    case UNMAP_SWAP:
        *value = pte_soft_make(PTE_SWAP, entry.v, false);
        return swap_dup(vm->swap, entry);
    case UNMAP_FILE:
        break;
    }
    *value = 0;
    return MM_OK;
}

static bool unmap_one(struct vm *vm, struct page *page, struct vm_area *vma, const struct pte_ref *at, uint64_t va, void *arg)
{
    static const enum vm_counter counters[] = { [UNMAP_MIGRATION] = VMC_unmap_migration, [UNMAP_SWAP] = VMC_unmap_swap,
                                                [UNMAP_FILE] = VMC_unmap_file };
    struct unmap *u = arg;
    uint64_t e = pte_read(at), value, old;

    if (!maps_page(e, page)) {
        return true;
    }
    if (u->how != UNMAP_MIGRATION && (vma->flags & VM_LOCKED)) {
        page_set_flags(page, PG_MLOCKED);
        u->status = MM_EBUSY;
        return false;
    }
    u->status = replacement(vm, page, e, u->how, &value);
    if (u->status != MM_OK) {
        return false;
    }
    old = pte_exchange(at, value);
    pte_flush_at(vma->mm, va, at);              /* I5 */
    if (pte_present(old) && (old & ARCH_PTE_DIRTY)) {
        rmap_page_dirty(page);                  /* I4 */
    }
    if (pte_present(old) && (old & ARCH_PTE_ACCESSED)) {
        page_set_flags(page, PG_REFERENCED);
    }
    vma->mm->rss -= pte_pages(at);
    vma->mm->swap_entries += u->how == UNMAP_SWAP;
    vm_count(vm, counters[u->how], 1);
    rmap_remove(page);
    page_put(vm->mm, page);                     /* never the last: the caller has one */
    return true;
}

mm_status_t try_to_unmap(struct vm *vm, struct page *page, enum unmap_how how)
{
    struct unmap u = { .how = how, .status = MM_OK };

    ASSERT(how != UNMAP_SWAP || page_test(page, PG_SWAPCACHE));
    ASSERT(how == UNMAP_MIGRATION || page_order(page) == 0);
    ASSERT(how != UNMAP_FILE || !page_test(page, PG_ANON));
    if (page_mapped(page)) {
        rmap_walk(vm, page, unmap_one, &u);
    }
    if (u.status != MM_OK) {
        return u.status;
    }
    return page_mapped(page) ? MM_EAGAIN : MM_OK;
}

/* ---- mapping again after migration ---- */

static bool remap_one(struct vm *vm, struct page *new, struct vm_area *vma, const struct pte_ref *at, uint64_t va, void *arg)
{
    const struct page *old = arg;
    uint64_t e = pte_read(at), value;

    (void)vm;
    (void)va;
    if (!pte_is(e, PTE_MIGRATION) || pte_soft_number(e) != old->pfn) {
        return true;
    }
    if ((vma->flags & VM_ACCESS) == 0) {
        value = pte_soft_make(PTE_NO_ACCESS, new->pfn, pte_write(e));
    } else {
        value = arch_pte_make(page_pfn(new), ARCH_PTE_USER | (pte_write(e) && (vma->flags & VM_WRITE) ? ARCH_PTE_WRITE : 0));
    }
    page_get(new);
    rmap_dup(new);
    vma->mm->rss += pte_pages(at);
    if (vma->flags & VM_LOCKED) {
        page_set_flags(new, PG_MLOCKED);
    }
    pte_set_sure(at, value);                    /* the other page is not an option any more */
    return true;
}

void remove_migration_ptes(struct vm *vm, struct page *old, struct page *new)
{
    rmap_walk(vm, new, remap_one, old);
    /* A munlock or munmap meanwhile met entries that showed it no page. */
    if (page_test(new, PG_MLOCKED) && !page_mapped_locked(vm, new)) {
        page_clear_flags(new, PG_MLOCKED);
        vm_lru_mlock(vm, new);
    }
}
