/*
 * migrate.c - moving pages of processes and of the page cache to other frame numbers.
 *
 * Owns: the order of the steps of a move; migrate_ops of the physical side.
 * Invariants:
 *   I1  both pages are locked throughout.  While the contents are copied no entry maps the old page, and nobody holds a reference
 *       but the caller and the cache that it is in: nobody can change it.
 *   I2  entries are never without the page: they say "migration" until they say the new page, or the old one again.
 *   I3  a move that fails leaves the old page as it was, and the new one as it came.
 *   I4  a new page in a cache is not PG_UPTODATE before its contents are there; who finds it waits for its lock.
 *   I5  the reference on the anon_vma goes over to the new page.
 * Lock order: the old page's lock, the new one's (only tried, it is nobody's yet), then as in rmap.c and the caches' replace.
 * Why: unmapping first makes the reference count exact: what is left of it are those who may be reading or writing
 *   through the direct map, and then the page stays.  mlock promises presence, not a place, so locked pages move too.
 * Cost: an exchange and a flush for each entry, a copy, a write for each entry.
 *
 * Layer: L3
 */
#include "migrate.h"
#include "lru.h"
#include "pagecache.h"
#include "rmap.h"
#include "swap.h"
#include "thp.h"
#include "frameshift/assert.h"

#define FORCE_AFTER 3u                          /* passes that only try */
#define MOVED_FLAGS (PG_DIRTY | PG_REFERENCED | PG_ACTIVE | PG_MLOCKED | PG_SWAPCACHE | PG_SWAPBACKED | PG_ANON | PG_RECLAIM)

/* Can it be moved at all to a target of this size, and is it somebody's? */
static mm_status_t movable(const struct page *page, unsigned order)
{
    if (page_test(page, PG_PINNED | PG_DMA | PG_SLAB | PG_TABLE) || (page_order(page) != 0 && page_order(page) != HUGE_ORDER)) {
        return MM_EBUSY;
    }
    if (page_order(page) != order) {
        return MM_EAGAIN;                       /* it was split, or has not been yet */
    }
    if (page_test(page, PG_WRITEBACK) || (page->mapping == NULL && !page_test(page, PG_SWAPCACHE))) {
        return MM_EAGAIN;                       /* being written, or being set up */
    }
    return MM_OK;
}

/* What a cache that finds the new page must see. */
static void dress(struct page *to, const struct page *from)
{
    uint32_t kept = word_flags(page_word(from)) & MOVED_FLAGS & ~PG_DIRTY;     /* a cache moves that with its counts */

    to->mapping = from->mapping;
    to->index = from->index;
    to->private = from->private;
    atomic_store_explicit(&to->mapcount, 0, memory_order_relaxed);
    page_set_flags(to, kept);
}

static void undress(struct page *to)
{
    page_clear_flags(to, MOVED_FLAGS);
    to->mapping = NULL;
    to->private = 0;
}

/* The new page takes the old one's place in its cache. Nobody but the caller and the cache has a reference, or MM_EAGAIN. */
static mm_status_t replace(struct vm *vm, struct page *from, struct page *to)
{
    if (page_test(from, PG_SWAPCACHE)) {        /* of shared memory too: it is in one cache only while nobody has its lock */
        return swapcache_replace(vm->swap, from, to, 2);
    }
    if (!page_test(from, PG_ANON)) {
        if (page_test(from, PG_HUGE)) {
            return hugetlb_file_replace(from->mapping, from, to, 2);
        }
        return pagecache_replace(from->mapping, from, to, 2);
    }
    return page_refs(from) == 1 ? MM_OK : MM_EAGAIN;
}

/* The part after which there is no way back. pre: I1 */
static void finish(struct vm *vm, struct page *from, struct page *to)
{
    bool pool = page_test(from, PG_HUGE);

    for (uint64_t i = 0; i < 1ull << page_order(from); i++) {
        arch_page_copy(pfn_make(to->pfn + i), pfn_make(from->pfn + i));
    }
    if (pool) {
        hugetlb_replace_used(vm, from, to);
    }
    page_set_flags(to, PG_UPTODATE | (word_flags(page_word(from)) & PG_DIRTY));        /* I4 */
    if (!pool) {
        from->mapping = NULL;                   /* I5 */
        from->private = 0;
    }
    page_clear_flags(from, MOVED_FLAGS | PG_UPTODATE);
    remove_migration_ptes(vm, from, to);
    if (page_refs(to) == 1 && !page_mapped(to)) {       /* nobody but the caller: the owners went away meanwhile */
        vm_count(vm, VMC_migrate_gone, 1);
    }
    vm_count(vm, VMC_thp_migrate, page_order(from) != 0 && !pool);
    if (vm->lru != NULL && !pool) {
        lru_del(vm->lru, from);                 /* reclaim may have it in its hands instead: it puts it back, and the last reference frees it */
        lru_add(vm->lru, to);
    }
}

/* pre: both are locked, the caller has a reference on from and the only one on to */
static mm_status_t move_locked(struct vm *vm, struct page *from, struct page *to)
{
    mm_status_t status = movable(from, page_order(to));

    if (status != MM_OK) {
        return status;
    }
    status = try_to_unmap(vm, from, UNMAP_MIGRATION);
    if (status == MM_OK) {
        dress(to, from);
        status = replace(vm, from, to);
        if (status != MM_OK) {
            undress(to);
        }
    }
    if (status == MM_OK) {
        finish(vm, from, to);
    } else {
        remove_migration_ptes(vm, from, from);  /* I3 */
    }
    return status;
}

/* Move one page; from keeps the caller's reference, to's goes where it belongs if it worked. */
static mm_status_t move_page(struct vm *vm, struct page *from, struct page *to, bool force)
{
    mm_status_t status = MM_EAGAIN;

    ASSERT(page_state(to) == PAGE_USED);
    if (force) {
        page_lock(from);
    } else if (!page_trylock(from)) {
        return MM_EAGAIN;
    }
    if (page_trylock(to)) {                     /* held for a moment only by one who found it by frame */
        status = move_locked(vm, from, to);
        page_unlock(to);
    }
    page_unlock(from);
    vm_count(vm, status == MM_OK ? VMC_migrate_success : VMC_migrate_fail, 1);
    return status;
}

/* ---- lists ---- */

/* There is no target for the whole: its parts may find some. pre: the caller has a reference */
static mm_status_t split_unit(struct vm *vm, struct page *page)
{
    mm_status_t status = MM_EAGAIN;

    if (!page_trylock(page)) {
        return MM_EAGAIN;
    }
    if (page_is_thp(page)) {
        status = split_huge_page(vm, page, 1);
    }
    page_unlock(page);
    vm_count(vm, VMC_thp_migrate_split, status == MM_OK);
    return status;
}

/* One attempt at an item; targets that are not used stay with it. */
static void try_item(struct vm *vm, struct migrate_item *item, size_t i, new_page_fn new_page, void *ctx, bool force,
                     struct migrate_result *result)
{
    if (page_refs(item->from) == 1) {           /* ours: its owners have let go of it */
        page_put(vm->mm, item->from);
        if (item->to != NULL) {
            page_put(vm->mm, item->to);
        }
        item->from = item->to = NULL;
        item->status = MM_OK;
        result->gone++;
        return;
    }
    if (item->to == NULL && new_page != NULL) {
        item->to = new_page(ctx, item->from, i);
    }
    if (page_is_thp(item->from) && (item->to == NULL || page_order(item->to) == 0) && split_unit(vm, item->from) == MM_OK
        && item->to == NULL && new_page != NULL) {
        item->to = new_page(ctx, item->from, i);
    }
    if (item->to == NULL) {
        item->status = MM_ENOMEM;
        return;
    }
    item->status = move_page(vm, item->from, item->to, force);
    if (item->status == MM_OK) {
        page_put(vm->mm, item->to);             /* who maps it has references of his own now */
        page_put(vm->mm, item->from);
        item->from = NULL;
        result->moved++;
    }
}

/* What is left of the list after the last pass. */
static mm_status_t settle(struct vm *vm, struct migrate_item *items, size_t count, struct migrate_result *result)
{
    mm_status_t status = MM_OK;

    for (size_t i = 0; i < count; i++) {
        if (items[i].status == MM_OK) {
            continue;
        }
        if (items[i].to != NULL) {
            page_put(vm->mm, items[i].to);
            items[i].to = NULL;
        }
        result->failed++;
        status = status == MM_OK ? items[i].status : status;
    }
    return status;
}

mm_status_t migrate_pages(struct vm *vm, struct migrate_item *items, size_t count, new_page_fn new_page, void *ctx, enum migrate_mode mode,
                          struct migrate_result *result)
{
    bool again = true;

    *result = (struct migrate_result){ .moved = 0 };
    for (size_t i = 0; i < count; i++) {
        items[i].status = MM_EAGAIN;
    }
    for (unsigned pass = 0; pass < MIGRATE_PASSES && again; pass++) {
        again = false;
        for (size_t i = 0; i < count; i++) {
            if (items[i].status == MM_EAGAIN) {
                try_item(vm, &items[i], i, new_page, ctx, mode == MIGRATE_SYNC && pass >= FORCE_AFTER, result);
                again |= items[i].status == MM_EAGAIN;
                result->retries += pass > 0;
            }
        }
        if (again) {
            arch_cpu_relax();
        }
    }
    return settle(vm, items, count, result);
}

/* ---- for compaction, isolation, hotplug ---- */

/* migrate_ops.move: the references of the owners are those of the entries and the cache; the one that to came with goes. */
static mm_status_t move_for_compaction(struct vm *vm, struct page *from, struct page *to, bool wait)
{
    mm_status_t status;

    if (page_test(from, PG_HUGE)) {
        status = hugetlb_replace_free(vm, from, to);    /* which looks under the pool's lock */
        if (status != MM_EINVAL) {
            return status;
        }
    }
    if (page_order(to) != 0 && page_order(to) != HUGE_ORDER) {      /* a larger unit whose owner has not pinned it yet: nobody moves those */
        return MM_EBUSY;
    }
    status = move_page(vm, from, to, wait);
    if (status == MM_OK) {
        page_put(vm->mm, to);
    }
    return status;
}

static mm_status_t compaction_move(void *ctx, struct page *from, struct page *to)
{
    return move_for_compaction(ctx, from, to, false);
}

static mm_status_t compaction_move_wait(void *ctx, struct page *from, struct page *to)
{
    return move_for_compaction(ctx, from, to, true);
}

/* migrate_ops.split */
static mm_status_t compaction_split(void *ctx, struct page *unit)
{
    return split_unit(ctx, unit);
}

void vm_install_migrate(struct vm *vm)
{
    vm->mm->migrate = (struct migrate_ops){ .move = compaction_move, .move_wait = compaction_move_wait, .split = compaction_split, .ctx = vm };
}
