/*
 * test_migrate.c - lists of pages to be moved, what happens to a page that is on its way, and flushes that are forgotten.
 */
#include "vm_world.h"
#include "anon_vma.h"
#include "arch_hosted.h"
#include "pgtable.h"
#include "rmap.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RAM_PAGES 4096u
#define PAGES     16u
#define VA        0x20000000ull

static struct guest g;
static struct mm_struct *mm;
static unsigned char expected[PAGES][FS_PAGE_BYTES];

static uint64_t va_of(uint32_t i) { return VA + i * (uint64_t)FS_PAGE_BYTES; }

static void map(unsigned flags, struct address_space *file)
{
    uint64_t va = VA;

    assert_int_equal(mm_create(&g.vm, &mm), MM_OK);
    assert_int_equal(vm_mmap(mm, &va, PAGES * (uint64_t)FS_PAGE_BYTES, flags, file, 0), MM_OK);
    for (uint32_t i = 0; i < PAGES; i++) {
        memset(expected[i], (int)(i + 1), FS_PAGE_BYTES);
        assert_int_equal(vm_user_write(mm, va_of(i), expected[i], FS_PAGE_BYTES), MM_OK);
    }
}

static void check(struct mm_struct *of)
{
    unsigned char buf[FS_PAGE_BYTES];

    for (uint32_t i = 0; i < PAGES; i++) {
        assert_int_equal(vm_user_read(of, va_of(i), buf, FS_PAGE_BYTES), MM_OK);
        assert_memory_equal(buf, expected[i], FS_PAGE_BYTES);
    }
}

static struct page *target(void *ctx, struct page *from, size_t i)
{
    size_t *calls = ctx;

    (void)from;
    (void)i;
    if (calls != NULL) {
        ++*calls;
    }
    return alloc_pages(&g.f.mm, GFP_HIGH_MOVABLE, 0);
}

static void fill(struct migrate_item *items)
{
    for (uint32_t i = 0; i < PAGES; i++) {
        items[i] = (struct migrate_item){ .from = follow_page(mm, va_of(i)) };
        assert_non_null(items[i].from);
    }
}

static struct page *now_at(uint32_t i)
{
    struct page *p = follow_page(mm, va_of(i));

    assert_non_null(p);
    page_put(&g.f.mm, p);
    return p;
}

static int setup(void **state)
{
    (void)state;
    guest_init(&g, RAM_PAGES, 4, 256);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    arch_hosted_on_copy(NULL, NULL);
    arch_hosted_set_cpu(0);
    guest_check(&g, 0);
    guest_free(&g);
    return 0;
}

/* ---- lists ---- */

/* Every page goes to the target that was meant for it, and the old pages are free at once. */
static void test_association(void **state)
{
    struct migrate_item items[PAGES];
    struct page *to[PAGES], *from[PAGES];
    struct migrate_result result;

    (void)state;
    map(VM_ACCESS, NULL);
    fill(items);
    for (uint32_t i = 0; i < PAGES; i++) {
        from[i] = items[i].from;
        to[i] = items[i].to = alloc_pages(&g.f.mm, GFP_HIGH_MOVABLE, 0);
    }
    assert_int_equal(migrate_pages(&g.vm, items, PAGES, NULL, NULL, MIGRATE_SYNC, &result), MM_OK);
    assert_true(result.moved == PAGES && result.failed == 0 && result.retries == 0);
    for (uint32_t i = 0; i < PAGES; i++) {
        assert_ptr_equal(now_at(i), to[i]);
        assert_ptr_equal(items[i].to, to[i]);
        assert_true(items[i].from == NULL && page_refs(from[i]) == 0 && page_refs(to[i]) == 1);
    }
    check(mm);
    mm_put(mm);
}

/* A status for each page: busy ones stay with the caller's reference, after ten passes; the rest has moved. */
static void test_status_per_page(void **state)
{
    struct migrate_item items[PAGES];
    struct migrate_result result;
    size_t calls = 0;

    (void)state;
    map(VM_ACCESS, NULL);
    fill(items);
    page_get(items[3].from);                    /* somebody is using it */
    page_lock(items[5].from);
    page_set_flags(items[7].from, PG_PINNED);
    assert_int_equal(migrate_pages(&g.vm, items, PAGES, target, &calls, MIGRATE_ASYNC, &result), MM_EAGAIN);
    assert_true(result.moved == PAGES - 3 && result.failed == 3 && result.retries == 2 * (MIGRATE_PASSES - 1));
    assert_int_equal(calls, PAGES);             /* a target that was not used waits for the next pass */
    assert_int_equal(items[3].status, MM_EAGAIN);
    assert_int_equal(items[5].status, MM_EAGAIN);
    assert_int_equal(items[7].status, MM_EBUSY);
    for (uint32_t i = 0; i < PAGES; i++) {
        if (items[i].status != MM_OK) {
            assert_true(items[i].from != NULL && items[i].to == NULL);
            assert_ptr_equal(now_at(i), items[i].from);
        }
    }
    page_unlock(items[5].from);
    page_clear_flags(items[7].from, PG_PINNED);
    check(mm);
    page_put(&g.f.mm, items[3].from);
    page_put(&g.f.mm, items[3].from);
    page_put(&g.f.mm, items[5].from);
    page_put(&g.f.mm, items[7].from);
    mm_put(mm);
}

static struct page *few_targets(void *ctx, struct page *from, size_t i)
{
    size_t *left = ctx;

    return *left > 0 && (*left)-- > 0 ? target(NULL, from, i) : NULL;
}

static void test_no_target(void **state)
{
    struct migrate_item items[PAGES];
    struct migrate_result result;
    size_t left = 4;

    (void)state;
    map(VM_ACCESS, NULL);
    fill(items);
    assert_int_equal(migrate_pages(&g.vm, items, PAGES, few_targets, &left, MIGRATE_SYNC, &result), MM_ENOMEM);
    assert_true(result.moved == 4 && result.failed == PAGES - 4);
    for (uint32_t i = 4; i < PAGES; i++) {
        assert_int_equal(items[i].status, MM_ENOMEM);
        page_put(&g.f.mm, items[i].from);
    }
    check(mm);
    mm_put(mm);
}

/* The owners have gone: nothing is copied, and the target comes back. */
static void test_gone(void **state)
{
    struct migrate_item items[PAGES];
    struct migrate_result result;

    (void)state;
    map(VM_ACCESS, NULL);
    fill(items);
    items[0].to = target(NULL, NULL, 0);
    mm_put(mm);
    assert_int_equal(migrate_pages(&g.vm, items, PAGES, target, NULL, MIGRATE_SYNC, &result), MM_OK);
    assert_true(result.gone == PAGES && result.moved == 0 && items[0].to == NULL);
}

static void test_not_a_users(void **state)
{
    struct migrate_item item = { .from = alloc_pages(&g.f.mm, GFP_KERNEL, 0) };
    struct migrate_result result;

    (void)state;
    page_get(item.from);
    page_set_flags(item.from, PG_SLAB);
    assert_int_equal(migrate_pages(&g.vm, &item, 1, target, NULL, MIGRATE_SYNC, &result), MM_EBUSY);
    page_clear_flags(item.from, PG_SLAB);
    page_put(&g.f.mm, item.from);
    page_put(&g.f.mm, item.from);
}

/* ---- kinds of pages ---- */

static void move_all(void)
{
    struct migrate_item items[PAGES];
    struct migrate_result result;

    fill(items);
    assert_int_equal(migrate_pages(&g.vm, items, PAGES, target, NULL, MIGRATE_SYNC, &result), MM_OK);
    assert_int_equal(result.moved, PAGES);
    guest_check(&g, 0);
}

static void test_mlocked(void **state)
{
    (void)state;
    map(VM_ACCESS, NULL);
    assert_int_equal(vm_mlock(mm, VA, PAGES * (uint64_t)FS_PAGE_BYTES), MM_OK);
    move_all();
    for (uint32_t i = 0; i < PAGES; i++) {
        assert_true(page_test(now_at(i), PG_MLOCKED));
    }
    check(mm);
    mm_put(mm);
}

/* A dirty page of a file stays dirty, and the page cache has the new page. */
static void test_page_cache(void **state)
{
    struct store store = { calloc(PAGES, FS_PAGE_BYTES), PAGES };
    struct address_space as;

    (void)state;
    assert_int_equal(address_space_init(&g.vm, &as, GFP_HIGH_MOVABLE, &store_ops, &store), MM_OK);
    map(VM_ACCESS | VM_SHARED, &as);
    move_all();
    move_all();
    check(mm);
    for (uint32_t i = 0; i < PAGES; i++) {
        struct page *p = pagecache_find(&as, i);

        assert_ptr_equal(p, now_at(i));
        page_put(&g.f.mm, p);
    }
    assert_int_equal(pagecache_sync(&as), MM_OK);
    assert_memory_equal(store.bytes, expected, sizeof(expected));
    mm_put(mm);
    address_space_destroy(&as);
    free(store.bytes);
}

/* In the swap cache: one process has the page, the other one the slot; after the move both find the same page. */
static void test_swap_cache(void **state)
{
    struct mm_struct *child;
    swp_entry_t slot;

    (void)state;
    map(VM_ACCESS, NULL);
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    for (uint32_t i = 0; i < PAGES; i++) {
        struct page *p = follow_page(mm, va_of(i));

        page_lock(p);
        assert_int_equal(swap_alloc(&g.swap, &slot), MM_OK);
        assert_int_equal(swapcache_add(&g.swap, p, slot), MM_OK);
        assert_int_equal(try_to_unmap(&g.vm, p, UNMAP_SWAP), MM_OK);
        page_unlock(p);
        page_put(&g.f.mm, p);
    }
    assert_int_equal(mm->swap_entries, PAGES);
    assert_int_equal(mm->rss, 0);
    check(mm);
    move_all();
    assert_int_equal(child->swap_entries, PAGES);
    check(child);
    for (uint32_t i = 0; i < PAGES; i++) {
        struct page *p = follow_page(child, va_of(i));

        assert_ptr_equal(p, now_at(i));
        page_put(&g.f.mm, p);
    }
    check(mm);
    mm_put(mm);
    check(child);
    mm_put(child);
}

/* ---- on the way ---- */

enum event { FORK, EXIT, MUNMAP, READONLY, NOTHING_ALLOWED, SPLIT, MUNLOCK, MUNMAP_LOCKED, EVENTS };

static struct { enum event event; struct mm_struct *child; bool done; } during;

static void event_during(void *ctx, pfn_t to, pfn_t from)
{
    (void)ctx;
    (void)to;
    (void)from;
    if (during.done) {
        return;
    }
    during.done = true;
    switch (during.event) {
    case FORK:
        assert_int_equal(mm_fork(mm, &during.child), MM_OK);
        break;
    case EXIT:
        mm_put(mm);
        mm = NULL;
        break;
    case MUNMAP:
        assert_int_equal(vm_munmap(mm, VA, FS_PAGE_BYTES), MM_OK);
        break;
    case MUNLOCK:
        assert_int_equal(vm_munlock(mm, VA, FS_PAGE_BYTES), MM_OK);
        break;
    case MUNMAP_LOCKED:                         /* the child has the page too, and has not locked it */
        assert_int_equal(vm_munmap(mm, VA, FS_PAGE_BYTES), MM_OK);
        break;
    case READONLY:
        assert_int_equal(vm_mprotect(mm, VA, 3 * FS_PAGE_BYTES, VM_READ), MM_OK);
        break;
    case NOTHING_ALLOWED:
        assert_int_equal(vm_mprotect(mm, VA, 3 * FS_PAGE_BYTES, 0), MM_OK);
        break;
    default:
        assert_int_equal(vm_mprotect(mm, va_of(1), FS_PAGE_BYTES, VM_READ), MM_OK);
        assert_int_equal(vm_mprotect(mm, va_of(1), FS_PAGE_BYTES, VM_ACCESS), MM_OK);
        break;
    }
}

/* Whatever its process does while a page is being copied, the page ends where it belongs. */
static void test_events_on_the_way(void **state)
{
    unsigned char byte = 0xaa;

    (void)state;
    for (enum event e = 0; e < EVENTS; e++) {
        struct migrate_item item;
        struct migrate_result result;

        map(VM_ACCESS, NULL);
        memset(&during, 0, sizeof(during));
        during.event = e;
        if (e == MUNLOCK || e == MUNMAP_LOCKED) {
            assert_int_equal(vm_mlock(mm, VA, FS_PAGE_BYTES), MM_OK);
        }
        if (e == MUNMAP_LOCKED) {
            assert_int_equal(mm_fork(mm, &during.child), MM_OK);
        }
        item = (struct migrate_item){ .from = follow_page(mm, VA) };
        arch_hosted_on_copy(event_during, NULL);
        assert_int_equal(migrate_pages(&g.vm, &item, 1, target, NULL, MIGRATE_SYNC, &result), MM_OK);
        assert_true(during.done && result.moved == 1);
        assert_int_equal(vm_counter(&g.vm, VMC_migrate_gone), (e >= EXIT) + (e >= MUNMAP));
        arch_hosted_on_copy(NULL, NULL);
        guest_check(&g, e);
        if (e == FORK) {
            check(during.child);
            assert_int_equal(vm_user_write(mm, VA, &byte, 1), MM_OK);       /* still shared by copy-on-write */
            check(during.child);
            mm_put(during.child);
        } else if (e == SPLIT || e == MUNLOCK) {
            check(mm);
        } else if (e == MUNMAP_LOCKED) {
            check(during.child);
            mm_put(during.child);
        } else if (e != EXIT) {
            assert_int_equal(vm_user_write(mm, VA, &byte, 1), MM_EINVAL);
            assert_int_equal(vm_user_read(mm, VA, &byte, 1), e == READONLY ? MM_OK : MM_EINVAL);
        }
        if (mm != NULL) {
            mm_put(mm);
        }
    }
}

/* ---- generations ---- */

/* Each process forks, exits, and its child goes on: what links a page to its processes does not grow with the generations. */
static void test_generations(void **state)
{
    (void)state;
    map(VM_ACCESS, NULL);
    for (unsigned generation = 0; generation < 40; generation++) {
        struct mm_struct *child;
        uint32_t links = 0, i = generation % PAGES;

        assert_int_equal(mm_fork(mm, &child), MM_OK);
        mm_put(mm);
        mm = child;
        memset(expected[i], (int)generation + 100, FS_PAGE_BYTES);
        assert_int_equal(vm_user_write(mm, va_of(i), expected[i], FS_PAGE_BYTES), MM_OK);
        for (const struct anon_vma_chain *c = find_vma(mm, VA)->chain; c != NULL; c = c->of_vma) {
            links++;
        }
        assert_true(links <= 3);
        check(mm);
        move_all();
    }
    assert_int_equal(kmem_cache_used(g.vm.chain_cache), 3);
    mm_put(mm);
}

/* ---- forgotten flushes ---- */

/* Another CPU has the page in its TLB. With flush: it sees the new page. Without: it writes to the old one, which is somebody else's by now. */
static bool stale_access_shows(bool drop)
{
    unsigned char byte = 0x77, seen = 0;
    struct migrate_item item;
    struct migrate_result result;
    uint64_t fault;
    bool shows;

    map(VM_ACCESS, NULL);
    arch_hosted_set_cpu(1);
    assert_int_equal(vm_user_write(mm, VA, expected[0], FS_PAGE_BYTES), MM_OK);
    arch_hosted_set_cpu(0);
    item = (struct migrate_item){ .from = follow_page(mm, VA) };
    (void)arch_hosted_drop_flushes(drop ? 1 : 0);
    assert_int_equal(migrate_pages(&g.vm, &item, 1, target, NULL, MIGRATE_SYNC, &result), MM_OK);
    assert_int_equal(arch_hosted_drop_flushes(0), 0);
    arch_hosted_set_cpu(1);
    assert_int_equal(arch_user_write(VA, &byte, 1, &fault), 0);
    arch_hosted_set_cpu(2);                     /* which has never seen the old one */
    assert_int_equal(vm_user_read(mm, VA, &seen, 1), MM_OK);
    arch_hosted_set_cpu(0);
    shows = seen != byte;
    mm_put(mm);
    return shows;
}

static void test_flush_of_migration(void **state)
{
    (void)state;
    assert_false(stale_access_shows(false));
    assert_true(stale_access_shows(true));
}

/* The parent's TLB still lets it write to what the child shares. */
static bool stale_fork_shows(bool drop)
{
    unsigned char byte = 0x55, seen = 0;
    struct mm_struct *child;
    bool shows;

    map(VM_ACCESS, NULL);
    (void)arch_hosted_drop_flushes(drop ? 1 : 0);
    assert_int_equal(mm_fork(mm, &child), MM_OK);
    (void)arch_hosted_drop_flushes(0);
    assert_int_equal(vm_user_write(mm, VA, &byte, 1), MM_OK);
    assert_int_equal(vm_user_read(child, VA, &seen, 1), MM_OK);
    shows = seen == byte;
    mm_put(child);
    mm_put(mm);
    return shows;
}

static void test_flush_of_fork(void **state)
{
    (void)state;
    assert_false(stale_fork_shows(false));
    assert_true(stale_fork_shows(true));
}

/* What was unmapped can still be read. */
static bool stale_munmap_shows(bool drop)
{
    unsigned char seen = 0;
    uint64_t fault;
    bool shows;

    map(VM_ACCESS, NULL);
    (void)arch_hosted_drop_flushes(drop ? UINT64_MAX : 0);
    assert_int_equal(vm_munmap(mm, VA, PAGES * (uint64_t)FS_PAGE_BYTES), MM_OK);
    (void)arch_hosted_drop_flushes(0);
    shows = arch_user_read(VA, &seen, 1, &fault) == 0;
    mm_put(mm);
    return shows;
}

static void test_flush_of_munmap(void **state)
{
    (void)state;
    assert_false(stale_munmap_shows(false));
    assert_true(stale_munmap_shows(true));
}

/* A page is written back and clean; a write that sets no D bit again is lost to the store. */
static bool stale_clean_shows(bool drop)
{
    struct store store = { calloc(PAGES, FS_PAGE_BYTES), PAGES };
    unsigned char byte = 0x66;
    struct address_space as;
    bool shows;

    assert_int_equal(address_space_init(&g.vm, &as, GFP_HIGH_MOVABLE, &store_ops, &store), MM_OK);
    map(VM_ACCESS | VM_SHARED, &as);
    (void)arch_hosted_drop_flushes(drop ? UINT64_MAX : 0);
    assert_int_equal(pagecache_sync(&as), MM_OK);
    (void)arch_hosted_drop_flushes(0);
    assert_int_equal(vm_user_write(mm, VA, &byte, 1), MM_OK);
    assert_int_equal(pagecache_sync(&as), MM_OK);
    shows = store.bytes[0] != byte;
    mm_put(mm);
    address_space_destroy(&as);
    free(store.bytes);
    return shows;
}

static void test_flush_of_clean(void **state)
{
    (void)state;
    assert_false(stale_clean_shows(false));
    assert_true(stale_clean_shows(true));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_association, setup, teardown),
        cmocka_unit_test_setup_teardown(test_status_per_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_target, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_a_users, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mlocked, setup, teardown),
        cmocka_unit_test_setup_teardown(test_page_cache, setup, teardown),
        cmocka_unit_test_setup_teardown(test_swap_cache, setup, teardown),
        cmocka_unit_test_setup_teardown(test_events_on_the_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_generations, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush_of_migration, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush_of_fork, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush_of_munmap, setup, teardown),
        cmocka_unit_test_setup_teardown(test_flush_of_clean, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
