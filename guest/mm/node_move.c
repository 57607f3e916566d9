/*
 * node_move.c - moving pages of a process to nodes that the caller names page by page.
 *
 * Owns: struct move_list; the walk over the pages of a range.
 * Invariants:
 *   I1  the target of items[i] is allocated for items[i] alone and on one of to[i]: the association is 1-1, so a pattern comes out exact whatever
 *       order the pages move in and whichever of them are busy.
 *   I2  a page is in a list once.
 *   I3  no lock is held while pages move: who maps them may fault, fork and exit meanwhile.
 * Lock order: mmap_lock for reading while a batch is gathered; under it page locks, page_table_lock, tree_lock or swap.lock, one at a time.
 * Why: gathering and moving alternate in batches, so the list needs no memory that could be missing, and mmap_lock is held for short times only.
 *   A page on its way to another place says "migration" in its entry: it is waited for, because it may arrive where it is not wanted.
 * Cost: a page that is where it should be costs one look at its entry; one that others may map too, a walk of its reverse map.
 *
 * Layer: L4
 */
#include "node_move.h"
#include "pagecache.h"
#include "pfnmap.h"
#include "pgtable.h"
#include "rmap.h"
#include "swap.h"
#include "vma.h"
#include "frameshift/assert.h"

#define MIGRATION_TRIES 10000u

/* ---- a list ---- */

bool move_list_has(const struct move_list *l, const struct page *page)
{
    for (size_t i = 0; i < l->count; i++) {
        if (l->items[i].from == page) {
            return true;
        }
    }
    return false;
}

void move_list_add(struct move_list *l, struct page *page, nodemask_t to, uint64_t at)
{
    ASSERT(!move_list_full(l) && to != 0);
    l->to[l->count] = to;
    l->at[l->count] = at;
    l->huge[l->count] = page_order(page) != 0;
    l->split[l->count] = false;
    l->items[l->count++] = (struct migrate_item){ .from = page };
}

/* new_page_fn (I1) */
static struct page *target(void *ctx, struct page *from, size_t i)
{
    struct move_list *l = ctx;
    unsigned order = page_order(from);
    gfp_t gfp = order != 0 ? GFP_TRANSHUGE : GFP_HIGH_MOVABLE;
    struct page *to = mpol_alloc_on(l->vm, l->to[i], l->reclaim ? gfp : gfp & ~__GFP_DIRECT_RECLAIM, order);

    l->split[i] = l->huge[i] && order == 0;
    if (to != NULL) {
        l->node[i] = page_node(l->vm->mm, to);
    }
    return to;
}

void move_list_run(struct move_list *l, struct migrate_result *result)
{
    mm_status_t status = migrate_pages(l->vm, l->items, l->count, target, l, MIGRATE_SYNC, result);

    (void)status;                               /* each item has its own */
    for (size_t i = 0; i < l->count; i++) {
        if (l->items[i].status != MM_OK) {
            page_put(l->vm->mm, l->items[i].from);
        }
    }
}

/* ---- one page ---- */

mm_status_t device_page_move(const struct vm_area *v, uint64_t va, nodemask_t to, bool all)
{
    bool others;
    uint64_t lowest;

    pfnmap_users(v->file, vma_index(v, va), v->mm, &others, &lowest);
    if (others && !all) {
        return MM_EACCES;
    }
    return v->file->ops->migrate(v->file, vma_index(v, va), to);
}

struct users_walk { const struct mm_struct *mm; struct page_users users; };

static bool users_one(struct vm *vm, struct page *page, struct vm_area *vma, const struct pte_ref *at, uint64_t va, void *arg)
{
    struct users_walk *w = arg;
    uint64_t e = pte_read(at);

    (void)vm;
    if (!pte_maps(e) || pte_pfn(e).n != page->pfn) {
        return true;
    }
    if (vma->mm != w->mm) {
        w->users.others = true;
    } else if (va < w->users.lowest) {
        w->users.lowest = va;
    }
    return true;
}

struct page_users page_users(struct vm *vm, struct page *page, const struct mm_struct *mm)
{
    struct users_walk w = { .mm = mm, .users = { .lowest = UINT64_MAX } };

    page_lock(page);
    if (page_mapped(page)) {
        rmap_walk(vm, page, users_one, &w);
    }
    page_unlock(page);
    return w.users;
}

/* *table: there is a page table for va. */
static struct page *look_at(struct mm_struct *mm, uint64_t va, uint64_t *entry, bool *table)
{
    struct page *page = NULL;

    *entry = 0;
    *table = false;
    for (unsigned tries = 0; tries < MIGRATION_TRIES; tries++) {
        struct pte_ref at;

        spin_lock(&mm->page_table_lock);
        *table = pgtable_find(mm, va, &at);
        *entry = *table ? pte_read(&at) : 0;
        if (pte_maps(*entry)) {
            page = mm_page(mm->vm->mm, pte_pfn(*entry));
            page_get(page);
        }
        spin_unlock(&mm->page_table_lock);
        if (!pte_is(*entry, PTE_MIGRATION)) {
            break;
        }
        arch_cpu_relax();
    }
    return page;
}

struct page *page_at(struct mm_struct *mm, uint64_t va, uint64_t *entry)
{
    bool table;

    return look_at(mm, va, entry, &table);
}

/* A page that is only in a cache: in the swap cache, or in the object that is mapped shared. */
static struct page *cached_at(const struct vm_area *v, uint64_t va, uint64_t entry)
{
    struct page *page = NULL;
    uint64_t slot;

    if (pte_is(entry, PTE_SWAP)) {
        return swapcache_find(v->mm->vm->swap, (swp_entry_t){ pte_soft_number(entry) });
    }
    if (pte_none(entry) && (v->flags & VM_SHARED)) {
        page = pagecache_find(v->file, vma_index(v, va));
        if (page == NULL && pagecache_find_slot(v->file, vma_index(v, va), &slot)) {
            page = swapcache_find(v->mm->vm->swap, (swp_entry_t){ slot });
        }
    }
    return page;
}

/* ---- the walk ---- */

/* Does the walk take the page along? It counts what it does not take. */
static bool takes(const struct node_walk *w, const struct vm_area *v, uint64_t va, struct page *page, nodemask_t *to, struct node_moves *moves)
{
    struct page_users users = { .others = false };
    uint32_t node = page_node(w->mm->vm->mm, page);

    *to = w->want(w->ctx, v, va, page, node);
    if (*to == 0) {
        return false;
    }
    if (w->once || (w->move && !w->all && !(*to >> node & 1))) {
        users = page_users(w->mm->vm, page, w->mm);
    }
    if (w->once && users.lowest != va) {
        return false;
    }
    moves->looked++;
    if (*to >> node & 1) {
        return false;
    }
    moves->misplaced++;
    moves->shared += w->move && !w->all && users.others;
    return w->move && (w->all || !users.others);
}

/* A device's memory moves at once, by the device. */
static void move_device(const struct node_walk *w, const struct vm_area *v, uint64_t va, struct node_moves *moves)
{
    uint32_t node = v->file->ops->node(v->file, vma_index(v, va));
    nodemask_t to = w->want(w->ctx, v, va, NULL, node);
    mm_status_t status;
    uint64_t lowest = va;
    bool others;

    if (w->once) {
        pfnmap_users(v->file, vma_index(v, va), w->mm, &others, &lowest);
    }
    if (to == 0 || lowest != va) {
        return;
    }
    moves->looked++;
    if (to >> node & 1) {
        return;
    }
    moves->misplaced++;
    if (w->move) {
        status = device_page_move(v, va, to, w->all);
        moves->moved += status == MM_OK;
        moves->shared += status == MM_EACCES;
        moves->failed += status != MM_OK && status != MM_EACCES;
        moves->no_memory += status == MM_ENOMEM;
        moves->status = moves->status == MM_OK && status != MM_EACCES ? status : moves->status;
    }
}

/* Behind the page at va: a huge one is mapped as a whole, aligned. */
static uint64_t unit_end(uint64_t va, const struct page *page)
{
    return (va | ((FS_PAGE_BYTES << page_order(page)) - 1)) + 1;
}

/* Gather from va on, until the list is full or the range is done; returns where to go on. */
static uint64_t gather(const struct node_walk *w, uint64_t va, uint64_t end, struct move_list *l, struct node_moves *moves)
{
    const struct vm_area *v;

    read_lock(&w->mm->mmap_lock);
    for (v = find_vma(w->mm, va); v != NULL && va < end && v->start < end && !move_list_full(l);) {
        uint64_t entry;
        struct page *page;
        nodemask_t to;
        bool table;

        if (va < v->start) {
            va = v->start;
        }
        if (v->flags & VM_PFNMAP) {
            move_device(w, v, va, moves);
            va += FS_PAGE_BYTES;
            v = va < v->end ? v : v->next;
            continue;
        }
        page = look_at(w->mm, va, &entry, &table);
        if (page == NULL && pte_is(entry, PTE_MIGRATION)) {    /* where it goes is not known */
            moves->failed += w->move;
            moves->status = moves->status == MM_OK ? MM_EAGAIN : moves->status;
        } else if (page == NULL && w->caches) {
            page = cached_at(v, va, entry);
        }
        if (page != NULL && !move_list_has(l, page) && takes(w, v, va, page, &to, moves)) {     /* I2 */
            move_list_add(l, page, to, va + FS_PAGE_BYTES);     /* if it is split, the rest begins there */
            va = unit_end(va, page);
        } else if (page != NULL) {
            va = unit_end(va, page);
            page_put(w->mm->vm->mm, page);
        } else {
            va = table || (v->flags & VM_SHARED) ? va + FS_PAGE_BYTES : pte_table_end(va);
        }
        va = va < v->end ? va : v->end;
        v = va < v->end ? v : v->next;
    }
    if (v == NULL || v->start >= end) {
        va = end;
    }
    read_unlock(&w->mm->mmap_lock);
    return va;
}

/* Returns where to go on: from the first page that was split, if there is one before va. */
static uint64_t count_run(const struct move_list *l, const struct migrate_result *r, struct node_moves *moves, uint64_t va)
{
    moves->moved += r->moved + r->gone;
    moves->failed += r->failed;
    for (size_t i = 0; i < l->count; i++) {
        moves->no_memory += l->items[i].status == MM_ENOMEM;
        moves->status = moves->status == MM_OK ? l->items[i].status : moves->status;
        va = l->split[i] && l->at[i] < va ? l->at[i] : va;
    }
    return va;
}

void node_walk_range(const struct node_walk *w, uint64_t start, uint64_t end, struct node_moves *moves)
{
    *moves = (struct node_moves){ .status = MM_OK };
    for (uint64_t va = start; va < end;) {
        struct move_list l = { .vm = w->mm->vm, .reclaim = w->reclaim };
        struct migrate_result r;

        va = gather(w, va, end, &l, moves);
        if (l.count > 0) {
            move_list_run(&l, &r);              /* I3 */
            va = count_run(&l, &r, moves, va);
        }
    }
}
