/*
 * pagecache.c - address spaces: the pages of a file or of shared memory, by index.
 *
 * Layer: L3
 * Owns: the trees of address spaces; mapping, index, PG_UPTODATE, PG_DIRTY and PG_WRITEBACK of the pages in them.
 * Invariants:
 *   I1  a page is in the tree of its mapping at its index, with one reference of the cache, exactly as long as mapping says so;
 *       that changes under the page lock and tree_lock.
 *   I2  a page in the tree that is not locked is PG_UPTODATE: whoever cannot fill it takes it out before he unlocks it.
 *   I3  a page of the tree has the mark exactly while it is PG_DIRTY; both change under tree_lock.
 *   I4  shared memory: a slot holds a swap entry (and a count of it), or a page that is no copy of any swap slot. A clean page of shared
 *       memory has never been written to, so it may be dropped.
 *   I5  what takes a page out looks at its references under tree_lock, under which lookups take theirs: nobody finds it afterwards.
 * Lock order: page lock, tree_lock; memory is taken and given back with tree_lock free.
 * Why: one store of pages for files and shared memory, so reclaim and migration know one kind of mapping.
 * Cost: a hit is one uncontended lock and one node for each 6 bits of the index.
 */
#include "pagecache.h"
#include "lru.h"
#include "rmap.h"
#include "slab.h"
#include "swap.h"
#include "frameshift/assert.h"

static struct page *word_page(uint64_t word) { return (struct page *)(uintptr_t)word; }
static uint64_t page_word_of(const struct page *p) { return (uintptr_t)p; }

/* What a node's memory may do to be had: as for the pages. */
static gfp_t node_gfp(gfp_t gfp)
{
    return gfp & (__GFP_DIRECT_RECLAIM | __GFP_KSWAPD_RECLAIM | __GFP_HIGH | __GFP_ATOMIC | __GFP_MEMALLOC);
}

/* ---- making and destroying ---- */

mm_status_t pagecache_init(struct pagecache *cache, struct vm *vm)
{
    ASSERT(vm->mm != NULL && vm->lru != NULL);
    *cache = (struct pagecache){ .vm = vm };
    cache->nodes = kmem_cache_create(vm->mm, "radix_node", sizeof(struct radix_node), 0, KMEM_RECLAIMABLE, NULL, NULL);
    if (cache->nodes == NULL) {
        return MM_ENOMEM;
    }
    vm->pagecache = cache;
    return MM_OK;
}

void pagecache_destroy(struct pagecache *cache)
{
    mm_status_t status = kmem_cache_destroy(cache->nodes);

    ASSERT(cache->spaces == NULL);
    ASSERT_CMP(status, ==, MM_OK);
    cache->vm->pagecache = NULL;
}

mm_status_t address_space_init(struct vm *vm, struct address_space *as, gfp_t gfp, const struct backing_ops *backing, void *ctx)
{
    struct pagecache *cache = vm->pagecache;

    ASSERT(cache != NULL);
    if (backing != NULL && (backing->read == NULL || backing->write == NULL)) {
        return MM_EINVAL;
    }
    *as = (struct address_space){ .vm = vm, .gfp = gfp & ~__GFP_ZERO, .backing = backing, .backing_ctx = ctx };
    spin_lock(&cache->lock);
    as->next = cache->spaces;
    if (as->next != NULL) {
        as->next->prev = as;
    }
    cache->spaces = as;
    spin_unlock(&cache->lock);
    return MM_OK;
}

/* ---- the tree. pre: tree_lock ---- */

static void set_dirty(struct address_space *as, struct page *page, bool dirty)
{
    if (page_test(page, PG_DIRTY) == dirty) {
        return;
    }
    radix_mark(&as->tree, page->index, dirty);      /* I3 */
    if (dirty) {
        page_set_flags(page, PG_DIRTY);
        as->dirty++;
        atomic_fetch_add_explicit(&as->vm->pagecache->dirty, 1, memory_order_relaxed);
    } else {
        page_clear_flags(page, PG_DIRTY);
        as->dirty--;
        atomic_fetch_sub_explicit(&as->vm->pagecache->dirty, 1, memory_order_relaxed);
    }
}

static void count_page(struct address_space *as, bool more)
{
    if (more) {
        as->pages++;
        atomic_fetch_add_explicit(&as->vm->pagecache->pages, 1, memory_order_relaxed);
    } else {
        as->pages--;
        atomic_fetch_sub_explicit(&as->vm->pagecache->pages, 1, memory_order_relaxed);
    }
}

/* Nodes that became empty go to freed. pre: page locked too */
static void take_out(struct address_space *as, struct page *page, struct radix_reserve *freed)
{
    uint64_t word;

    set_dirty(as, page, false);
    word = radix_clear(&as->tree, page->index, freed);
    ASSERT(word_page(word) == page);
    page->mapping = NULL;                           /* I1 */
    count_page(as, false);
}

/* ---- finding and filling ---- */

/* The word at index; a page comes with a reference. */
static uint64_t lookup(struct address_space *as, uint64_t index)
{
    uint64_t word;

    spin_lock(&as->tree_lock);
    word = radix_get(&as->tree, index);
    if (word != 0 && !radix_is_value(word)) {
        page_get(word_page(word));
    }
    spin_unlock(&as->tree_lock);
    return word;
}

struct page *pagecache_find(struct address_space *as, uint64_t index)
{
    uint64_t word = lookup(as, index);

    return word == 0 || radix_is_value(word) ? NULL : word_page(word);
}

bool pagecache_find_slot(struct address_space *as, uint64_t index, uint64_t *entry)
{
    uint64_t word;

    spin_lock(&as->tree_lock);
    word = radix_get(&as->tree, index);
    spin_unlock(&as->tree_lock);
    *entry = radix_is_value(word) ? radix_to_value(word) : 0;
    return radix_is_value(word);
}

/* MM_EBUSY: something is there by now. pre: page is locked and nobody else's */
static mm_status_t insert(struct address_space *as, uint64_t index, struct page *page)
{
    struct radix_reserve reserve = { .count = 0 };
    struct kmem_cache *nodes = as->vm->pagecache->nodes;
    mm_status_t status = MM_EAGAIN;

    while (status == MM_EAGAIN) {
        uint32_t missing;

        spin_lock(&as->tree_lock);
        missing = radix_missing(&as->tree, index);
        if (radix_get(&as->tree, index) != 0) {
            status = MM_EBUSY;
        } else if (missing <= reserve.count) {
            page_get(page);
            page->mapping = as;
            page->index = index;
            (void)radix_set(&as->tree, index, page_word_of(page), &reserve);
            count_page(as, true);
            status = MM_OK;
        }
        spin_unlock(&as->tree_lock);
        if (status == MM_EAGAIN && !radix_reserve(&reserve, missing, nodes, node_gfp(as->gfp))) {
            status = MM_ENOMEM;
        }
    }
    radix_reserve_free(&reserve, nodes);
    return status;
}

/* Take a page out whatever its references. pre: locked, in the cache, the caller holds a reference */
static void evict(struct address_space *as, struct page *page)
{
    struct radix_reserve freed = { .count = 0 };

    spin_lock(&as->tree_lock);
    take_out(as, page, &freed);
    spin_unlock(&as->tree_lock);
    radix_reserve_free(&freed, as->vm->pagecache->nodes);
    page_put(as->vm->mm, page);
}

/* MM_EBUSY: somebody else was faster. */
static mm_status_t fill(struct address_space *as, uint64_t index, const struct mpol_place *place, struct page **out)
{
    struct vm *vm = as->vm;
    struct page *page = mpol_alloc(vm, place, as->gfp, 0);
    mm_status_t status;

    if (page == NULL) {
        return MM_ENOMEM;
    }
    page_lock(page);
    if (as->backing == NULL) {
        arch_page_clear(page_pfn(page));
        page_set_flags(page, PG_SWAPBACKED);
    }
    status = insert(as, index, page);
    if (status == MM_OK && as->backing != NULL) {
        status = as->backing->read(as->backing_ctx, index, arch_page_address(page_pfn(page)));
        if (status != MM_OK) {
            lru_count(vm->lru, LC_io_error, 1);
            status = MM_EIO;
            evict(as, page);                        /* I2 */
        } else {
            lru_count(vm->lru, LC_pgpgin, 1);
        }
    }
    if (status == MM_OK) {
        page_set_flags(page, PG_UPTODATE);
        lru_add(vm->lru, page);
    }
    page_unlock(page);
    if (status != MM_OK) {
        page_put(vm->mm, page);
        return status;
    }
    *out = page;
    return MM_OK;
}

/* Put the page of a swap entry back into the tree. MM_OK also where somebody else has done something: look again. */
static mm_status_t swap_in(struct address_space *as, uint64_t index, swp_entry_t entry, const struct mpol_place *place)
{
    struct swap *swap = as->vm->swap;
    struct page *page;
    bool back = false;
    mm_status_t status = swapcache_read(swap, entry, as->gfp, place, &page);

    if (status != MM_OK) {
        return status == MM_EAGAIN ? MM_OK : status;
    }
    page_lock(page);
    if (page_test(page, PG_SWAPCACHE) && page->private == entry.v) {
        spin_lock(&as->tree_lock);
        if (radix_get(&as->tree, index) == radix_value(entry.v)) {
            page_get(page);
            page->mapping = as;
            page->index = index;
            (void)radix_set(&as->tree, index, page_word_of(page), NULL);
            count_page(as, true);
            as->swapped--;
            back = true;
        }
        spin_unlock(&as->tree_lock);
    }
    if (back) {                                     /* first into the tree: at no moment would one look for it in vain */
        swapcache_remove(swap, page);
        page_clear_flags(page, PG_DIRTY);
        pagecache_dirty(page);                      /* I4 */
    }
    page_unlock(page);
    page_put(as->vm->mm, page);
    if (back) {
        swap_free(swap, entry);
    }
    return MM_OK;
}

/* Wait for whoever fills it; false: it left the cache. */
static bool wait_uptodate(struct address_space *as, struct page *page)
{
    bool good;

    if (page_test(page, PG_UPTODATE)) {
        return true;
    }
    page_lock(page);
    good = page->mapping == as && page_test(page, PG_UPTODATE);
    page_unlock(page);
    return good;
}

mm_status_t pagecache_get(struct address_space *as, uint64_t index, struct page **out)
{
    return pagecache_get_policy(as, index, NULL, out);
}

mm_status_t pagecache_get_policy(struct address_space *as, uint64_t index, const struct mempolicy *otherwise, struct page **out)
{
    struct mempolicy *own = shared_policy_get(&as->policy, index);
    const struct mpol_place place = { .policy = own != NULL ? own : otherwise, .index = index };
    mm_status_t status;

    ASSERT(as->ops == NULL);
    do {
        uint64_t word = lookup(as, index);

        status = MM_EBUSY;
        if (word == 0) {
            status = fill(as, index, &place, out);
        } else if (radix_is_value(word)) {
            mm_status_t in = swap_in(as, index, (swp_entry_t){ radix_to_value(word) }, &place);

            status = in != MM_OK ? in : MM_EBUSY;
        } else if (wait_uptodate(as, word_page(word))) {
            *out = word_page(word);
            lru_mark_accessed(as->vm->lru, *out);
            status = MM_OK;
        } else {
            page_put(as->vm->mm, word_page(word));
        }
    } while (status == MM_EBUSY);
    mpol_put(as->vm, own);
    return status;
}

/* ---- dirty pages ---- */

void pagecache_dirty(struct page *page)
{
    struct address_space *as = page_address_space(page);

    ASSERT(as != NULL);
    spin_lock(&as->tree_lock);
    set_dirty(as, page, true);
    spin_unlock(&as->tree_lock);
}

mm_status_t pagecache_write_page(struct page *page)
{
    struct address_space *as = page_address_space(page);
    mm_status_t status;
    bool dirty;

    ASSERT(as != NULL && as->backing != NULL && page_test(page, PG_LOCKED));
    if (page_mapped(page)) {
        (void)page_mkclean(as->vm, page);
    }
    spin_lock(&as->tree_lock);
    dirty = page_test(page, PG_DIRTY);
    set_dirty(as, page, false);                     /* before it is written: what is changed meanwhile makes it dirty again */
    spin_unlock(&as->tree_lock);
    if (!dirty) {
        return MM_OK;
    }
    page_set_flags(page, PG_WRITEBACK);
    status = as->backing->write(as->backing_ctx, page->index, arch_page_address(page_pfn(page)));
    page_clear_flags(page, PG_WRITEBACK);
    if (status != MM_OK) {
        pagecache_dirty(page);
        lru_count(as->vm->lru, LC_io_error, 1);
        return MM_EIO;
    }
    lru_count(as->vm->lru, LC_pgpgout, 1);
    return MM_OK;
}

mm_status_t pagecache_sync(struct address_space *as)
{
    mm_status_t worst = MM_OK;
    uint64_t index = 0, word;
    bool mapped;

    if (as->backing == NULL) {
        return MM_OK;
    }
    spin_lock(&as->i_mmap_lock);
    mapped = as->i_mmap != NULL;                    /* then page tables know more */
    spin_unlock(&as->i_mmap_lock);
    do {
        struct page *page;

        spin_lock(&as->tree_lock);
        word = radix_next(&as->tree, &index, !mapped);
        page = word_page(word);
        if (word != 0) {
            page_get(page);
        }
        spin_unlock(&as->tree_lock);
        if (word == 0) {
            break;
        }
        page_lock(page);
        if (page->mapping == as && pagecache_write_page(page) != MM_OK) {
            worst = MM_EIO;
        }
        page_unlock(page);
        page_put(as->vm->mm, page);
    } while (++index != 0);
    return worst;
}

/* ---- pages that leave ---- */

bool pagecache_remove(struct page *page, int32_t held)
{
    struct address_space *as = page_address_space(page);
    struct radix_reserve freed = { .count = 0 };
    bool done = false;

    ASSERT(as != NULL && page_test(page, PG_LOCKED));
    spin_lock(&as->tree_lock);
    if (page_refs(page) == held + 1 && !page_test(page, PG_DIRTY)) {       /* I5 */
        take_out(as, page, &freed);
        done = true;
    }
    spin_unlock(&as->tree_lock);
    radix_reserve_free(&freed, as->vm->pagecache->nodes);
    if (done) {
        page_put(as->vm->mm, page);
    }
    return done;
}

bool pagecache_swap_out(struct page *page, int32_t held, uint64_t entry)
{
    struct address_space *as = page_address_space(page);
    bool done = false;

    ASSERT(as != NULL && as->backing == NULL && page_test(page, PG_LOCKED));
    spin_lock(&as->tree_lock);
    if (page_refs(page) == held + 1) {
        set_dirty(as, page, false);
        page_set_flags(page, PG_DIRTY);             /* as a page of the swap cache, which counts nothing */
        (void)radix_set(&as->tree, page->index, radix_value(entry), NULL);
        page->mapping = NULL;
        count_page(as, false);
        as->swapped++;
        done = true;
    }
    spin_unlock(&as->tree_lock);
    return done;
}

mm_status_t pagecache_drop(struct address_space *as, uint64_t index)
{
    struct page *page = pagecache_find(as, index);
    mm_status_t status = MM_EBUSY;

    if (page == NULL) {
        return MM_OK;
    }
    if (page_trylock(page)) {
        if (page->mapping != as) {
            status = MM_OK;
        } else if (!page_mapped(page) && pagecache_remove(page, 1)) {
            status = MM_OK;
        }
        page_unlock(page);
    }
    page_put(as->vm->mm, page);
    return status;
}

mm_status_t pagecache_replace(struct address_space *as, struct page *old, struct page *new, int32_t expected_refs)
{
    mm_status_t status = MM_EAGAIN;

    ASSERT(page_test(old, PG_LOCKED) && page_test(new, PG_LOCKED));
    spin_lock(&as->tree_lock);
    if (old->mapping == as && page_refs(old) == expected_refs) {
        page_get(new);
        new->mapping = as;
        new->index = old->index;
        (void)radix_set(&as->tree, old->index, page_word_of(new), NULL);    /* the mark stays (I3) */
        page_set_flags(new, word_flags(page_word(old)) & (PG_DIRTY | PG_SWAPBACKED));
        page_clear_flags(old, PG_DIRTY);
        old->mapping = NULL;
        status = MM_OK;
    }
    spin_unlock(&as->tree_lock);
    if (status == MM_OK) {
        page_put(as->vm->mm, old);
    }
    return status;
}

void address_space_destroy(struct address_space *as)
{
    struct pagecache *cache = as->vm->pagecache;
    uint64_t word, index = 0;

    ASSERT(as->i_mmap == NULL);
    while ((spin_lock(&as->tree_lock), word = radix_next(&as->tree, &index, false)) != 0) {
        struct radix_reserve freed = { .count = 0 };

        if (radix_is_value(word)) {
            (void)radix_clear(&as->tree, index, &freed);
            as->swapped--;
            spin_unlock(&as->tree_lock);
            swap_free(as->vm->swap, (swp_entry_t){ radix_to_value(word) });
        } else {
            struct page *page = word_page(word);

            page_get(page);
            spin_unlock(&as->tree_lock);
            page_lock(page);
            if (page->mapping == as) {              /* else reclaim was faster */
                ASSERT(!page_mapped(page));
                evict(as, page);
            }
            page_unlock(page);
            page_put(as->vm->mm, page);
        }
        radix_reserve_free(&freed, cache->nodes);
    }
    spin_unlock(&as->tree_lock);
    shared_policy_destroy(as->vm, &as->policy);
    spin_lock(&cache->lock);
    *(as->prev != NULL ? &as->prev->next : &cache->spaces) = as->next;
    if (as->next != NULL) {
        as->next->prev = as->prev;
    }
    spin_unlock(&cache->lock);
}
