/*
 * test_threads.c - several CPUs at once: allocation, freeing, migration, compaction, isolation.
 *
 * Every page carries its owner's mark in private; a page in two hands shows as a wrong mark.  Run it under
 * the thread sanitizer as well.
 */
#include "guest_fixture.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "isolation.h"
#include "pageblock.h"
#include "pcp.h"
#include <stdarg.h>
#include <setjmp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define WORKERS     3u
#define SLOTS       2000u
#define STEPS       40000u
#define RAM_PAGES   32768u
#define MIGRATED_LEAST 2000u

/* A movable page lives in a slot; its lock is the owner's page lock. */
struct slot {
    struct spinlock lock;
    struct page *page;
    uint64_t mark;
};

static struct fixture f;
static struct slot slots[WORKERS][SLOTS];
static atomic_uint wrong, stop;

static uint64_t slot_number(unsigned worker, uint32_t i) { return (uint64_t)worker << 32 | i; }

/* The owner is found through the page, and may have let go of it: the slot's lock decides. */
static mm_status_t move(void *ctx, struct page *from, struct page *to)
{
    uint64_t number = atomic_load_explicit((_Atomic uint64_t *)(void *)&from->private, memory_order_relaxed);
    struct slot *s;
    mm_status_t status = MM_EAGAIN;

    (void)ctx;
    if (number >> 32 >= WORKERS || (uint32_t)number >= SLOTS) {
        return MM_EAGAIN;                   /* just being set up */
    }
    s = &slots[number >> 32][(uint32_t)number];
    if (!spin_trylock(&s->lock)) {
        return MM_EAGAIN;
    }
    if (s->page == from) {
        atomic_store_explicit((_Atomic uint64_t *)(void *)&to->private, number, memory_order_relaxed);
        to->index = from->index;
        s->page = to;
        page_put(&f.mm, from);
        status = MM_OK;
    }
    spin_unlock(&s->lock);
    return status;
}

static void slot_fill(struct slot *s, uint64_t number, struct rng *r)
{
    unsigned order = (unsigned)rng_below(r, 20) == 0 ? 9 : (unsigned)rng_below(r, 3);
    struct page *p = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, order);

    if (p == NULL) {
        return;
    }
    spin_lock(&s->lock);
    s->mark = rng_next(r);
    p->index = s->mark;
    atomic_store_explicit((_Atomic uint64_t *)(void *)&p->private, number, memory_order_relaxed);
    s->page = p;
    spin_unlock(&s->lock);
}

/* Whether, not where: only the worker fills and empties its slots. */
static bool slot_is_empty(struct slot *s)
{
    bool empty;

    spin_lock(&s->lock);
    empty = s->page == NULL;
    spin_unlock(&s->lock);
    return empty;
}

static void slot_empty(struct slot *s)
{
    struct page *p;

    spin_lock(&s->lock);
    p = s->page;
    if (p->index != s->mark || page_state(p) != PAGE_USED) {
        atomic_fetch_add(&wrong, 1);
    }
    s->page = NULL;
    atomic_store_explicit((_Atomic uint64_t *)(void *)&p->private, UINT64_MAX, memory_order_relaxed);
    spin_unlock(&s->lock);
    page_put(&f.mm, p);
}

/* Kernel units of odd numbers are frozen. */
static void kernel_unit(struct page **k, bool frozen, struct rng *r)
{
    gfp_t gfp = rng_below(r, 2) != 0 ? GFP_NOWAIT : GFP_KERNEL | __GFP_ACCOUNT;
    unsigned order = rng_below(r, 64) == 0 ? PAGEBLOCK_ORDER : (unsigned)rng_below(r, 4);

    if (*k == NULL) {
        *k = frozen ? alloc_frozen_pages(&f.mm, gfp, order) : alloc_pages(&f.mm, gfp, order);
        return;
    }
    if (page_state(*k) != (frozen ? PAGE_FROZEN : PAGE_USED)) {
        atomic_fetch_add(&wrong, 1);
    } else if (frozen) {
        free_frozen_pages(&f.mm, page_pfn(*k), page_order(*k));
    } else {
        page_put(&f.mm, *k);
    }
    *k = NULL;
}

static bool cpu_blocks;

static void *worker(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    struct rng r = { test_seed(900) + me };
    struct page *kernel[200] = { NULL };

    arch_hosted_set_cpu(me);
    /* On a busy host the compactor may get its turn late: go on until it has moved something. */
    for (unsigned step = 0; step < STEPS || (step < STEPS * 200 && mm_counter(&f.mm, ZC_pgmigrate_success) < MIGRATED_LEAST); step++) {
        uint32_t i = (uint32_t)rng_below(&r, SLOTS);

        if (cpu_blocks) {
            want_cpu_blocks(&f.mm);
        }
        if (rng_below(&r, 10) == 0) {
            uint64_t k = rng_below(&r, 200);

            kernel_unit(&kernel[k], k % 2 != 0, &r);
        } else if (slot_is_empty(&slots[me][i])) {
            slot_fill(&slots[me][i], slot_number(me, i), &r);
        } else {
            slot_empty(&slots[me][i]);
        }
    }
    for (unsigned i = 0; i < 200; i++) {
        if (kernel[i] != NULL) {
            kernel_unit(&kernel[i], i % 2 != 0, &r);
        }
    }
    return NULL;
}

static void *compactor(void *argument)
{
    struct rng r = { 7 };

    (void)argument;
    arch_hosted_set_cpu(WORKERS);
    while (!atomic_load(&stop)) {
        uint32_t b = (uint32_t)rng_below(&r, RAM_PAGES / PAGEBLOCK_PAGES - 4);

        switch (rng_below(&r, 4)) {
        case 0:
            (void)compact_all(&f.mm, (enum compact_targets)rng_below(&r, 3));
            break;
        case 1:
            (void)compaction_background(&f.mm, &f.mm.zones[0]);
            break;
        case 2:
            f.mm.compaction_proactiveness = (uint32_t)rng_below(&r, 101);
            (void)compaction_proactive(&f.mm, 0);
            break;
        default:
            atomic_fetch_add(&wrong, !empty_for_a_moment(&f.mm, b, b + 4));
            break;
        }
    }
    return NULL;
}

static void run_threads(void)
{
    struct mm_range ram = { pfn_make(0), pfn_make(RAM_PAGES), 0 };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .cpus = WORKERS + 1, .policy = CLAIM_CLEAR_FIRST };
    pthread_t threads[WORKERS + 1];

    memset(slots, 0, sizeof(slots));
    atomic_store(&stop, 0);
    fixture_init_config(&f, &config, 300);
    assert_int_equal(compaction_init(&f.mm, &config), MM_OK);
    f.mm.migrate.move = move;
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, worker, (void *)(uintptr_t)i), 0);
    }
    assert_int_equal(pthread_create(&threads[WORKERS], NULL, compactor, NULL), 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        pthread_join(threads[i], NULL);
    }
    atomic_store(&stop, 1);
    pthread_join(threads[WORKERS], NULL);
    assert_int_equal(atomic_load(&wrong), 0);
    assert_true(mm_counter(&f.mm, ZC_pgmigrate_success) >= MIGRATED_LEAST);
    check_mm(&f.mm, test_seed(900));
    for (unsigned w = 0; w < WORKERS; w++) {
        for (unsigned i = 0; i < SLOTS; i++) {
            if (slots[w][i].page != NULL) {
                assert_int_equal(slots[w][i].page->index, slots[w][i].mark);
                page_put(&f.mm, slots[w][i].page);
            }
        }
    }
    mm_drain(&f.mm);
    assert_int_equal(mm_free_pages(&f.mm), RAM_PAGES - 300);
    check_mm(&f.mm, test_seed(900));
    fixture_free(&f);
}

static void test_threads(void **state)
{
    (void)state;
    cpu_blocks = false;
    run_threads();
}

/* Every CPU has pageblocks of its own and loses them all the time. */
static void test_threads_cpu_blocks(void **state)
{
    (void)state;
    cpu_blocks = true;
    run_threads();
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_threads), cmocka_unit_test(test_threads_cpu_blocks) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
