/* test_slab.c - caches against a naive model: every object is filled by its owner, and nobody else's hand may show. */
#include "guest_memory.h"
#include "guest_fault.h"
#include "arch_hosted.h"
#include "pageblock.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define RAM_PAGES 16384u

static struct fixture f;

static int setup(void **state)
{
    (void)state;
    memory_init(&f, RAM_PAGES, 64, 4);
    page_alloc_fail_nth(0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    memory_check_all_free(&f);
    check_mm(&f.mm, 0);
    memory_free(&f);
    return 0;
}

/* ---- the model: who has what, and the byte that fills it ---- */

struct held { unsigned char *object, mark; };
struct holder {
    struct kmem_cache *c;
    struct held *held;
    uint32_t count, capacity;
};

static void holder_init(struct holder *h, struct kmem_cache *c, uint32_t capacity)
{
    assert_non_null(c);
    *h = (struct holder){ .c = c, .held = calloc(capacity, sizeof(struct held)), .capacity = capacity };
    assert_non_null(h->held);
}

static bool holder_take(struct holder *h, gfp_t gfp, unsigned char mark)
{
    unsigned char *o = kmem_cache_alloc(h->c, gfp);

    if (o == NULL) {
        return false;
    }
    for (uint32_t i = 0; (gfp & __GFP_ZERO) && i < h->c->size; i++) {
        assert_int_equal(o[i], 0);
    }
    if (h->c->flags & KMEM_PAGE_ALIGNED) {
        assert_int_equal((uintptr_t)o % FS_PAGE_BYTES, 0);
    }
    memset(o, mark, h->c->size);
    h->held[h->count++] = (struct held){ o, mark };
    return true;
}

static void holder_give(struct holder *h, uint32_t i)
{
    struct held at = h->held[i];

    for (uint32_t b = 0; b < h->c->size; b++) {
        assert_int_equal(at.object[b], at.mark);
    }
    kmem_cache_free(h->c, at.object);
    h->held[i] = h->held[--h->count];
}

static void holder_free(struct holder *h)
{
    while (h->count > 0) {
        holder_give(h, h->count - 1);
    }
    assert_int_equal(kmem_cache_used(h->c), 0);
    assert_int_equal(kmem_cache_destroy(h->c), MM_OK);
    free(h->held);
}

static enum migratetype type_of(const void *object)
{
    uint64_t pfn = (uint64_t)((const unsigned char *)object - (const unsigned char *)arch_page_address(pfn_make(0))) / FS_PAGE_BYTES;

    while (page_state(mm_page(&f.mm, pfn_make(pfn))) == PAGE_NONE) {
        pfn--;
    }
    return page_type(mm_page(&f.mm, pfn_make(pfn)));
}

static void test_random(void **state)
{
    static const struct { uint32_t size, align; unsigned flags; enum migratetype type; } kinds[] = {
        { 1, 0, 0, MIGRATE_UNMOVABLE }, { 24, 8, KMEM_ACCOUNT, MIGRATE_ACCOUNTED }, { 64, 64, KMEM_RECLAIMABLE, MIGRATE_RECLAIMABLE },
        { 100, 32, KMEM_DEBUG, MIGRATE_UNMOVABLE }, { 576, 64, 0, MIGRATE_UNMOVABLE }, { 1000, 16, KMEM_DEBUG | KMEM_ACCOUNT, MIGRATE_ACCOUNTED },
        { 2100, 0, KMEM_RECLAIMABLE, MIGRATE_RECLAIMABLE }, { 4096, 0, KMEM_PAGE_ALIGNED | KMEM_ACCOUNT, MIGRATE_ACCOUNTED },
        { 3000, 0, KMEM_PAGE_ALIGNED | KMEM_DEBUG, MIGRATE_UNMOVABLE }, { 16384, 0, KMEM_RECLAIMABLE, MIGRATE_RECLAIMABLE },
    };
    uint64_t seed = test_seed(31);
    struct rng r = { seed };
    struct holder h[FS_ARRAY_SIZE(kinds)];

    (void)state;
    for (uint32_t k = 0; k < FS_ARRAY_SIZE(kinds); k++) {
        holder_init(&h[k], kmem_cache_create(&f.mm, "random", kinds[k].size, kinds[k].align, kinds[k].flags, NULL, NULL), 400);
    }
    for (uint32_t step = 0; step < 60000; step++) {
        uint32_t k = (uint32_t)rng_below(&r, FS_ARRAY_SIZE(kinds)), phase = step / 2000 % 2;

        arch_hosted_set_cpu((unsigned)rng_below(&r, 4));
        if (h[k].count < h[k].capacity && rng_below(&r, 3) > phase) {
            assert_true(holder_take(&h[k], rng_below(&r, 4) == 0 ? GFP_KERNEL | __GFP_ZERO : GFP_NOWAIT, (unsigned char)rng_next(&r)));
            assert_int_equal(type_of(h[k].held[h[k].count - 1].object), kinds[k].type);
        } else if (h[k].count > 0) {
            holder_give(&h[k], (uint32_t)rng_below(&r, h[k].count));
        }
        assert_int_equal(kmem_cache_used(h[k].c), h[k].count);
        if (rng_below(&r, 1000) == 0) {
            (void)kmem_cache_shrink(h[k].c);
        }
        if (step % 3000 == 0) {
            check_slab(&f.mm, seed);
            check_mm(&f.mm, seed);
        }
    }
    for (uint32_t k = 0; k < FS_ARRAY_SIZE(kinds); k++) {
        holder_free(&h[k]);
    }
    arch_hosted_set_cpu(0);
}

/* A slab of 64-byte objects holds 64 of them, and 1000 objects take no page more than they must. */
static void test_packing(void **state)
{
    struct kmem_cache *c = kmem_cache_create(&f.mm, "packed", 64, 0, 0, NULL, NULL);
    struct holder h;

    (void)state;
    holder_init(&h, c, 1000);
    for (uint32_t i = 0; i < 1000; i++) {
        assert_true(holder_take(&h, GFP_KERNEL, (unsigned char)i));
    }
    assert_int_equal(kmem_cache_pages(c), (1000 + c->objects - 1) / c->objects);
    if (!kmem_debug(c)) {
        assert_int_equal(c->objects, 64);
    }
    /* Two of three go at random; all slabs keep one. Shrinking and taking again fills the fullest slabs: no new page. */
    for (uint32_t i = 0; i < 600; i++) {
        holder_give(&h, (i * 7) % h.count);
    }
    (void)kmem_cache_shrink(c);
    uint64_t pages = kmem_cache_pages(c);
    for (uint32_t i = 0; i < 300; i++) {
        assert_true(holder_take(&h, GFP_KERNEL, (unsigned char)i));
    }
    assert_true(kmem_cache_pages(c) <= pages);
    /* The last object goes: everything comes back but what shrink takes. */
    while (h.count > 0) {
        holder_give(&h, 0);
    }
    (void)kmem_cache_shrink(c);
    assert_int_equal(kmem_cache_pages(c), 0);
    holder_free(&h);
}

/* ---- constructors ---- */

struct made { uint64_t magic; struct spinlock lock; uint32_t uses; };
static unsigned constructed;

static void construct(void *object)
{
    struct made *m = object;

    *m = (struct made){ .magic = 0x600d };
    constructed++;
}

static void test_constructor(void **state)
{
    struct kmem_cache *c = kmem_cache_create(&f.mm, "made", sizeof(struct made), 0, KMEM_DEBUG, construct, NULL);
    struct made *m[300];

    (void)state;
    assert_non_null(c);
    constructed = 0;
    for (unsigned round = 0; round < 5; round++) {
        for (unsigned i = 0; i < 300; i++) {
            m[i] = kmem_cache_alloc(c, GFP_KERNEL);
            assert_non_null(m[i]);
            assert_int_equal(m[i]->magic, 0x600d);
            m[i]->uses++;
        }
        for (unsigned i = 0; i < 300; i++) {
            kmem_cache_free(c, m[i]);
        }
    }
    check_slab(&f.mm, 0);
    assert_int_equal(constructed % c->objects, 0);
    assert_int_equal(constructed, c->grown * c->objects);       /* with its slab, and never again */
    assert_true(constructed >= 300 && constructed < 1500);
    assert_int_equal(kmem_cache_destroy(c), MM_OK);
}

static void test_destroy_busy(void **state)
{
    struct kmem_cache *c = kmem_cache_create(&f.mm, "a name that is longer than what a cache keeps of it", 48, 0, 0, NULL, NULL);
    void *o = kmem_cache_alloc(c, GFP_KERNEL);

    (void)state;
    assert_non_null(o);
    assert_int_equal(strlen(c->name), KMEM_NAME_BYTES - 1);
    assert_int_equal(kmem_cache_destroy(c), MM_EBUSY);
    memset(o, 1, 48);
    kmem_cache_free(c, o);
    assert_int_equal(kmem_cache_destroy(c), MM_OK);
    assert_null(f.mm.caches);
}

/* Of a run the n-th page allocation fails, or all from the n-th on, for every n; whatever is refused, nothing is lost. */
static uint64_t run_with_failure(uint64_t n, bool all)
{
    struct kmem_cache *c;
    uint64_t calls, slabs;
    void *o[700];
    unsigned got = 0;

    (all ? page_alloc_fail_from : page_alloc_fail_nth)(n);
    c = kmem_cache_create(&f.mm, "fails", 200, 0, n % 2 ? KMEM_RECLAIMABLE : KMEM_ACCOUNT, NULL, NULL);
    assert_true((c == NULL) == (n == 1));
    if (c == NULL) {
        return UINT64_MAX;
    }
    for (unsigned i = 0; i < 700; i++) {
        arch_hosted_set_cpu(i % 3);
        o[got] = kmem_cache_alloc(c, GFP_KERNEL);
        got += o[got] != NULL;
    }
    calls = page_alloc_calls();
    slabs = n - 2;                              /* one page is the cache's own, and the n-th did not come */
    check_slab(&f.mm, n);
    if (all) {
        assert_int_equal(got, slabs * c->objects < 700 ? slabs * c->objects : 700);
    } else {
        assert_in_range(got, 699, 700);         /* what waits at other CPUs serves, if there is any */
    }
    for (unsigned i = 0; i < got; i++) {
        kmem_cache_free(c, o[i]);
    }
    assert_int_equal(kmem_cache_destroy(c), MM_OK);
    memory_check_all_free(&f);
    return calls;
}

static void test_every_allocation_fails(void **state)
{
    uint64_t calls = UINT64_MAX;

    (void)state;
    for (uint64_t n = 1; n <= calls; n++) {
        calls = run_with_failure(n, false);
        (void)run_with_failure(n, true);
    }
    page_alloc_fail_nth(0);
    arch_hosted_set_cpu(0);
    assert_true(calls >= 30 && calls < 100);
}

/* ---- mistakes of a user ---- */

static bool dies(void (*mistake)(struct kmem_cache *c, unsigned char *o), unsigned flags)
{
    int status;
    pid_t child = fork();

    if (child == 0) {
        struct kmem_cache *c = kmem_cache_create(&f.mm, "victim", 120, 0, flags, NULL, NULL);

        signal(SIGABRT, SIG_DFL);
        if (freopen("/dev/null", "w", stderr) != NULL) {
            mistake(c, kmem_cache_alloc(c, GFP_KERNEL));
        }
        _exit(0);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
}

static void no_mistake(struct kmem_cache *c, unsigned char *o)
{
    memset(o, 7, 120);
    kmem_cache_free(c, o);
    kmem_cache_free(c, kmem_cache_alloc(c, GFP_KERNEL));
}
static void free_twice(struct kmem_cache *c, unsigned char *o)
{
    kmem_cache_free(c, o);
    kmem_cache_free(c, o);
    (void)kmem_cache_shrink(c);
}
static void write_past(struct kmem_cache *c, unsigned char *o)
{
    o[120] = 1;
    kmem_cache_free(c, o);
}
static void write_free(struct kmem_cache *c, unsigned char *o)
{
    kmem_cache_free(c, o);
    o[5] = 1;
    (void)kmem_cache_alloc(c, GFP_KERNEL);
}
static void free_inside(struct kmem_cache *c, unsigned char *o)
{
    kmem_cache_free(c, o + 8);
    (void)kmem_cache_shrink(c);
}
static void free_foreign(struct kmem_cache *c, unsigned char *o)
{
    struct kmem_cache *other = kmem_cache_create(&f.mm, "other", 120, 0, c->flags, NULL, NULL);

    kmem_cache_free(other, o);
    (void)kmem_cache_shrink(other);
}

static void test_mistakes(void **state)
{
    (void)state;
    assert_false(dies(no_mistake, 0));
    assert_false(dies(no_mistake, KMEM_DEBUG));
    assert_true(dies(free_twice, 0));           /* these three are found without red zones too, when the magazine is emptied */
    assert_true(dies(free_inside, 0));
    assert_true(dies(free_foreign, 0));
    assert_true(dies(free_twice, KMEM_DEBUG));
    assert_true(dies(free_inside, KMEM_DEBUG));
    assert_true(dies(free_foreign, KMEM_DEBUG));
    assert_true(dies(write_past, KMEM_DEBUG));
    assert_true(dies(write_free, KMEM_DEBUG));
}

/* ---- an owner that gives objects back: a cache of numbered entries ---- */

#define ENTRIES 3000u
struct entry { struct spinlock lock; uint32_t number; bool live, pinned; };
static struct entry *table[ENTRIES];
static struct kmem_cache *entries;

static void entry_construct(void *object)
{
    *(struct entry *)object = (struct entry){ .live = false };
}

static bool entry_drop(struct entry *e)
{
    spin_lock(&e->lock);
    if (!e->live || e->pinned) {
        spin_unlock(&e->lock);
        return false;
    }
    e->live = false;
    table[e->number] = NULL;
    spin_unlock(&e->lock);
    kmem_cache_free(entries, e);
    return true;
}

static uint64_t entries_scan(void *ctx, uint64_t objects)
{
    uint64_t n = 0;

    (void)ctx;
    for (uint32_t i = 0; i < ENTRIES && n < objects; i++) {
        n += table[i] != NULL && entry_drop(table[i]);
    }
    return n;
}

static bool entries_evict(void *ctx, void *object)
{
    (void)ctx;
    return entry_drop(object);
}

static void entries_fill(void)
{
    for (uint32_t i = 0; i < ENTRIES; i++) {
        if (table[i] == NULL) {
            struct entry *e = kmem_cache_alloc(entries, GFP_KERNEL);

            assert_non_null(e);
            assert_false(e->live);
            e->number = i;
            e->live = true;
            e->pinned = false;
            table[i] = e;
        }
    }
}

static uint32_t entries_live(void)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < ENTRIES; i++) {
        n += table[i] != NULL;
        assert_true(table[i] == NULL || (table[i]->live && table[i]->number == i));
    }
    return n;
}

static uint64_t pfn_of(const void *object)
{
    return (uint64_t)((const unsigned char *)object - (const unsigned char *)arch_page_address(pfn_make(0))) / FS_PAGE_BYTES;
}

static void test_reclaim(void **state)
{
    struct kmem_reclaim reclaim = { .scan = entries_scan, .evict = entries_evict };
    uint64_t pages, pfn;

    (void)state;
    entries = kmem_cache_create(&f.mm, "entries", sizeof(struct entry), 0, KMEM_RECLAIMABLE, entry_construct, &reclaim);
    assert_non_null(entries);
    entries_fill();
    pages = kmem_pages(&f.mm, true);
    assert_int_equal(pages, kmem_cache_pages(entries));
    /* A quarter of the objects. */
    assert_true(kmem_shrink_caches(&f.mm, 1, 4) > 0);
    assert_in_range(entries_live(), ENTRIES - ENTRIES / 4, ENTRIES - ENTRIES / 4);
    assert_true(kmem_pages(&f.mm, true) < pages);
    entries_fill();
    /* One page is asked for: its slab goes, and no object of another. */
    pfn = pfn_of(table[ENTRIES / 2]) & ~((1ull << entries->order) - 1);
    uint32_t before = entries_live(), in_page = 0;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        in_page += pfn_of(table[i]) - pfn < 1ull << entries->order;
    }
    assert_true(in_page > 0);
    assert_true(kmem_shrink_range(&f.mm, pfn_make(pfn), pfn_make(pfn + 1)) >= 1ull << entries->order);
    assert_int_equal(entries_live(), before - in_page);
    assert_false(page_test(mm_page(&f.mm, pfn_make(pfn)), PG_SLAB));
    check_slab(&f.mm, 0);
    /* A pinned object keeps its page, the rest of the page goes. */
    entries_fill();
    table[7]->pinned = true;
    pfn = pfn_of(table[7]) & ~((1ull << entries->order) - 1);
    (void)kmem_shrink_range(&f.mm, pfn_make(0), pfn_make(RAM_PAGES));
    assert_int_equal(entries_live(), 1);
    assert_non_null(table[7]);
    assert_true(page_test(mm_page(&f.mm, pfn_make(pfn)), PG_SLAB));
    assert_int_equal(kmem_cache_pages(entries), 1ull << entries->order);
    table[7]->pinned = false;
    assert_true(entry_drop(table[7]));
    assert_int_equal(kmem_cache_destroy(entries), MM_OK);
}

/* ---- threads ---- */

#define THREADS 4u
static atomic_uint wrong, running;
static struct kmem_cache *shared;
static _Atomic(uint64_t *) mailbox[64];

/* Objects change hands: what one CPU took another one gives back. */
static void *thread_main(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    struct rng r = { test_seed(77) + me };
    uint64_t *mine[100] = { NULL };

    arch_hosted_set_cpu(me);
    for (unsigned step = 0; step < 60000; step++) {
        uint64_t **slot = &mine[rng_below(&r, 100)];

        if (*slot == NULL) {
            *slot = kmem_cache_alloc(shared, step % 2 ? GFP_KERNEL : GFP_NOWAIT);
            if (*slot != NULL) {
                for (unsigned i = 0; i < 10; i++) {
                    (*slot)[i] = (uint64_t)(uintptr_t)*slot + i;
                }
            }
        } else {
            uint64_t *o = rng_below(&r, 2) ? atomic_exchange(&mailbox[rng_below(&r, 64)], *slot) : *slot;

            *slot = NULL;
            for (unsigned i = 0; o != NULL && i < 10; i++) {
                if (o[i] != (uint64_t)(uintptr_t)o + i) {
                    atomic_fetch_add(&wrong, 1);
                }
            }
            if (o != NULL) {
                kmem_cache_free(shared, o);
            }
        }
    }
    for (unsigned i = 0; i < 100; i++) {
        if (mine[i] != NULL) {
            kmem_cache_free(shared, mine[i]);
        }
    }
    atomic_fetch_sub(&running, 1);
    return NULL;
}

static void test_threads(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    shared = kmem_cache_create(&f.mm, "shared", 80, 0, KMEM_RECLAIMABLE, NULL, NULL);
    assert_non_null(shared);
    atomic_store(&running, THREADS - 1);
    for (unsigned i = 1; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, thread_main, (void *)(uintptr_t)i), 0);
    }
    while (atomic_load(&running) > 0) {         /* reclaim, and caches that come and go */
        struct kmem_cache *c = kmem_cache_create(&f.mm, "comes", 300, 0, 0, NULL, NULL);
        void *o = c != NULL ? kmem_cache_alloc(c, GFP_KERNEL) : NULL;

        (void)kmem_shrink_caches(&f.mm, 1, 8);
        (void)kmem_shrink_range(&f.mm, pfn_make(0), pfn_make(RAM_PAGES));
        if (o != NULL) {
            kmem_cache_free(c, o);
        }
        assert_true(c == NULL || kmem_cache_destroy(c) == MM_OK);
    }
    for (unsigned i = 1; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&wrong), 0);
    check_slab(&f.mm, 77);
    for (unsigned i = 0; i < 64; i++) {
        if (mailbox[i] != NULL) {
            kmem_cache_free(shared, mailbox[i]);
        }
    }
    assert_int_equal(kmem_cache_used(shared), 0);
    assert_int_equal(kmem_cache_destroy(shared), MM_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_random, setup, teardown),
        cmocka_unit_test_setup_teardown(test_packing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_constructor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_destroy_busy, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_allocation_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_mistakes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reclaim, setup, teardown),
        cmocka_unit_test_setup_teardown(test_threads, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
