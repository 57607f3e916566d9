/* test_cache_fsck.c - every corruption that cache_fsck() claims to find is planted, found by name, and undone. */
#include "cache_check.h"
#include "cache_fsck.h"
#include "reclaim.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static unsigned found[CACHE_FAULTS];
static bool planted[CACHE_FAULTS];
static struct guest g;

static void record(void *ctx, enum cache_fault fault, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    (void)ctx;
    (void)pfn;
    (void)is;
    (void)should_be;
    found[fault]++;
}

static void expect_fault(enum cache_fault fault)
{
    memset(found, 0, sizeof(found));
    assert_true(cache_fsck(&g.vm, record, NULL) > 0);
    if (found[fault] == 0) {
        fail_msg("%s was planted and not found", cache_fault_name(fault));
    }
    planted[fault] = true;
}

static void expect_none(void)
{
    assert_int_equal(cache_fsck(&g.vm, NULL, NULL), 0);
}

/* Change a place of at most eight bytes, expect the fault, put it back. */
#define PLANT(place, value, fault)                                                    \
    do {                                                                              \
        unsigned char saved_[sizeof(place)];                                          \
        uint64_t value_ = (uint64_t)(value);                                          \
        memcpy(saved_, (void *)&(place), sizeof(place));                              \
        memcpy((void *)&(place), &value_, sizeof(place));                             \
        expect_fault(fault);                                                          \
        memcpy((void *)&(place), saved_, sizeof(place));                              \
        expect_none();                                                                \
    } while (0)

static void plant_flags(struct page *page, uint32_t set, uint32_t clear, enum cache_fault fault)
{
    uint32_t word = page_word(page);

    page_set_word(page, (word | set << 12) & ~(clear << 12));
    expect_fault(fault);
    page_set_word(page, word);
    expect_none();
}

static struct address_space file, shared;
static struct mm_struct *mm, *child;
static uint64_t va, locked_va;

static void get(struct address_space *as, uint64_t index, bool dirty)
{
    struct page *page;

    assert_int_equal(pagecache_get(as, index, &page), MM_OK);
    if (dirty) {
        pagecache_dirty(page);
    }
    page_put(&g.f.mm, page);
}

static void setup(struct store *store)
{
    uint64_t word = 1;

    guest_init(&g, 4096, 2, 200);
    reclaim_init(&g.vm);
    assert_int_equal(address_space_init(&g.vm, &file, GFP_HIGH_MOVABLE, &store_ops, store), MM_OK);
    assert_int_equal(address_space_init(&g.vm, &shared, GFP_HIGH_MOVABLE, NULL, NULL), MM_OK);
    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    assert_int_equal(vm_mmap(mm, &va, 100 * FS_PAGE_BYTES, VM_ACCESS, NULL, 0), MM_OK);
    assert_int_equal(vm_mmap(mm, &locked_va, 5 * FS_PAGE_BYTES, VM_ACCESS, NULL, 0), MM_OK);
    assert_int_equal(vm_mlock(mm, locked_va, 5 * FS_PAGE_BYTES), MM_OK);
    for (uint64_t i = 0; i < 100; i++) {
        assert_int_equal(vm_user_write(mm, va + i * FS_PAGE_BYTES, &word, 8), MM_OK);
        get(&shared, i, true);
    }
    (void)reclaim_range(&g.vm, pfn_make(0), pfn_make(4096), 0);       /* to swap; and some are in the swap cache again */
    for (uint64_t i = 0; i < 50; i++) {
        assert_int_equal(vm_user_read(mm, va + i * FS_PAGE_BYTES, &word, 8), MM_OK);
        get(&file, i * 3, i % 2 == 0);
        get(&shared, i, false);
    }
    assert_int_equal(shared.swapped, 50);
    /* One that two processes know is in the cache and in a slot. */
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    (void)reclaim_range(&g.vm, pfn_make(0), pfn_make(4096), 0);
    assert_int_equal(vm_user_read(mm, va, &word, 8), MM_OK);
    assert_int_equal(vm_user_read(mm, va + 60 * FS_PAGE_BYTES, &word, 8), MM_OK);
    assert_true(g.swap.cached >= 2);
    for (uint64_t i = 0; i < 30; i++) {
        get(&file, i * 3, i % 2 == 0);
        get(&shared, i, false);
    }
    (void)kmem_cache_shrink(g.pagecache.nodes);
    check_caches(&g, 0);
}

static void plant_in_lists(void)
{
    struct lru_zone *z = &g.lru.zones[0];
    struct page *p = z->first[LRU_INACTIVE_FILE], *next = p->lru_next, *mlocked = z->first[LRU_UNEVICTABLE];

    assert_true(p != NULL && next != NULL && mlocked != NULL);
    PLANT(next->lru_prev, 0, CACHE_FAULT_LRU_LINK);
    PLANT(p->lru_prev, (uintptr_t)next, CACHE_FAULT_LRU_LINK);
    PLANT(z->last[LRU_INACTIVE_FILE], 0, CACHE_FAULT_LRU_LINK);
    PLANT(next->lru_next, (uintptr_t)p, CACHE_FAULT_LRU_LINK);
    PLANT(next->lru_list, LRU_ACTIVE_ANON, CACHE_FAULT_LRU_PAGE);
    plant_flags(p, 0, PG_LRU, CACHE_FAULT_LRU_PAGE);
    plant_flags(p, 0, PG_LRU, CACHE_FAULT_LRU_LOST);
    PLANT(z->pages[LRU_INACTIVE_FILE], z->pages[LRU_INACTIVE_FILE] + 1, CACHE_FAULT_LRU_COUNT);
    PLANT(z->first[LRU_UNEVICTABLE], 0, CACHE_FAULT_LRU_STRAY);
    plant_flags(mlocked, 0, PG_MLOCKED, CACHE_FAULT_LRU_MLOCKED);
    plant_flags(p, PG_LOCKED, 0, CACHE_FAULT_LOCKED);
    plant_flags(p, PG_WRITEBACK, 0, CACHE_FAULT_LOCKED);
    PLANT(p->refs, 0, CACHE_FAULT_REFS);
}

static void plant_in_trees(void)
{
    struct radix_node *node = (struct radix_node *)(uintptr_t)file.tree.root, *leaf;
    struct page *dirty = pagecache_find(&file, 6), *clean = pagecache_find(&file, 3), *stray;

    assert_true(dirty != NULL && clean != NULL && file.tree.levels == 2);
    leaf = (struct radix_node *)(uintptr_t)node->slots[0];
    page_put(&g.f.mm, dirty);
    page_put(&g.f.mm, clean);
    PLANT(node->used, node->used + 1, CACHE_FAULT_TREE);
    PLANT(leaf->shift, RADIX_SHIFT, CACHE_FAULT_TREE);
    PLANT(node->marks, 0, CACHE_FAULT_TREE);
    PLANT(leaf->marks, leaf->marks | 1ull << 1, CACHE_FAULT_TREE);
    PLANT(file.tree.levels, 0, CACHE_FAULT_TREE);
    PLANT(g.pagecache.nodes->used, g.pagecache.nodes->used + 1, CACHE_FAULT_NODES);
    PLANT(leaf->marks, leaf->marks & ~(1ull << 6), CACHE_FAULT_MARK);
    PLANT(leaf->slots[3], (uintptr_t)dirty, CACHE_FAULT_TREE_PAGE);
    PLANT(leaf->slots[3], (uintptr_t)leaf, CACHE_FAULT_TREE_PAGE);
    PLANT(leaf->slots[3], radix_value(1), CACHE_FAULT_SWAP_ENTRY);
    PLANT(clean->index, 4, CACHE_FAULT_TREE_PAGE);
    PLANT(clean->mapping, (uintptr_t)&shared, CACHE_FAULT_TREE_PAGE);
    stray = alloc_pages(&g.f.mm, GFP_HIGH_MOVABLE, 0);
    assert_non_null(stray);
    stray->mapping = NULL;
    PLANT(stray->mapping, (uintptr_t)&file, CACHE_FAULT_SPACE_STRAY);
    page_put(&g.f.mm, stray);
    plant_flags(clean, 0, PG_UPTODATE, CACHE_FAULT_UPTODATE);
    plant_flags(clean, PG_DIRTY, 0, CACHE_FAULT_MARK);
    PLANT(file.pages, file.pages - 1, CACHE_FAULT_SPACE_COUNT);
    PLANT(file.dirty, file.dirty + 1, CACHE_FAULT_SPACE_DIRTY);
    PLANT(shared.swapped, 0, CACHE_FAULT_SPACE_SWAPPED);
    PLANT(g.pagecache.pages, 0, CACHE_FAULT_TOTAL);
    PLANT(g.pagecache.dirty, 0, CACHE_FAULT_TOTAL);
}

static void plant_in_swap(void)
{
    uint64_t index = 0, word = radix_next(&g.swap.cache, &index, false);
    struct page *cached = (struct page *)(uintptr_t)word;
    uint16_t **tables = arch_page_address(page_pfn(g.swap.areas[0].counts));
    uint16_t *counts = arch_page_address(page_pfn(((struct page **)(void *)tables)[0]));

    assert_non_null(cached);
    PLANT(cached->private, index + 1, CACHE_FAULT_SWAP_PAGE);
    plant_flags(cached, 0, PG_SWAPCACHE, CACHE_FAULT_SWAP_PAGE);
    plant_flags(g.lru.zones[0].first[LRU_UNEVICTABLE], PG_SWAPCACHE, 0, CACHE_FAULT_SWAP_STRAY);
    PLANT(counts[index], 0, CACHE_FAULT_SWAP_PAGE);
    PLANT(counts[index], counts[index] + 1, CACHE_FAULT_SWAP_COUNTS);
    PLANT(g.swap.cached, g.swap.cached + 1, CACHE_FAULT_SWAP_CACHED);
    PLANT(g.swap.areas[0].used, 1, CACHE_FAULT_SWAP_USED);
    index = 0;
    while (!radix_is_value(word = radix_next(&shared.tree, &index, false))) {
        assert_int_not_equal(word, 0);
        index++;
    }
    PLANT(counts[radix_to_value(word)], 0, CACHE_FAULT_SWAP_ENTRY);
    PLANT(mm->swap_entries, mm->swap_entries + 1, CACHE_FAULT_SWAP_COUNTS);
}

static void test_every_fault(void **state)
{
    struct store store = { calloc(200, FS_PAGE_BYTES), 200 };

    (void)state;
    assert_non_null(store.bytes);
    setup(&store);
    plant_in_lists();
    plant_in_trees();
    plant_in_swap();
    for (unsigned i = 0; i < CACHE_FAULTS; i++) {
        if (!planted[i]) {
            fail_msg("%s is never planted", cache_fault_name((enum cache_fault)i));
        }
    }
    mm_put(mm);
    mm_put(child);
    address_space_destroy(&file);
    address_space_destroy(&shared);
    guest_free(&g);
    free(store.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_fault) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
