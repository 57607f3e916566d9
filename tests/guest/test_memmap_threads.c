/*
 * test_memmap_threads.c - sections leave and return while others allocate, compact, isolate and look at pages they hold nothing of.
 *
 * Each page that is allocated is overwritten and each frame that is gone cannot be read, so that struct pages that were looked at too late
 * show. Run it under the thread sanitizer as well.
 */
#include "guest_memory.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "hotplug.h"
#include "isolation.h"
#include "memmap.h"
#include "pageblock.h"
#include <stdarg.h>
#include <setjmp.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <cmocka.h>

#define SECTIONS 4u
#define WORKERS  2u
#define SLOTS    12000u
#define ROUNDS   60u

struct slot { struct spinlock lock; struct page *page; };

static struct fixture f;
static struct slot slots[WORKERS][SLOTS];
static atomic_uint stop, wrong;

static mm_status_t move(void *ctx, struct page *from, struct page *to)
{
    uint64_t number = atomic_load_explicit((_Atomic uint64_t *)(void *)&from->private, memory_order_relaxed);
    struct slot *s;
    mm_status_t status = MM_EAGAIN;

    (void)ctx;
    if (number >= WORKERS * SLOTS) {
        return MM_EAGAIN;                       /* just being set up */
    }
    s = &slots[number / SLOTS][number % SLOTS];
    if (!spin_trylock(&s->lock)) {
        return MM_EAGAIN;
    }
    if (s->page == from) {
        atomic_store_explicit((_Atomic uint64_t *)(void *)&to->private, number, memory_order_relaxed);
        memset(arch_page_address(page_pfn(to)), 0xa5, FS_PAGE_BYTES);
        s->page = to;
        page_put(&f.mm, from);
        status = MM_OK;
    }
    spin_unlock(&s->lock);
    return status;
}

static void turn(struct slot *s, uint64_t number, gfp_t gfp)
{
    struct page *p = NULL;
    bool empty;

    spin_lock(&s->lock);
    empty = s->page == NULL;
    spin_unlock(&s->lock);
    if (empty) {
        p = alloc_pages(&f.mm, gfp, 0);
        if (p != NULL) {
            memset(arch_page_address(page_pfn(p)), 0xa5, FS_PAGE_BYTES);
            atomic_store_explicit((_Atomic uint64_t *)(void *)&p->private, number, memory_order_relaxed);
        }
        spin_lock(&s->lock);
        s->page = p;
        spin_unlock(&s->lock);
        return;
    }
    spin_lock(&s->lock);
    p = s->page;
    s->page = NULL;
    atomic_store_explicit((_Atomic uint64_t *)(void *)&p->private, UINT64_MAX, memory_order_relaxed);
    spin_unlock(&s->lock);
    page_put(&f.mm, p);
}

static void *worker(void *argument)
{
    unsigned me = (unsigned)(uintptr_t)argument;
    struct rng r = { test_seed(4000) + me };

    arch_hosted_set_cpu(me);
    while (!atomic_load(&stop)) {
        uint32_t i = (uint32_t)rng_below(&r, SLOTS);

        turn(&slots[me][i], (uint64_t)me * SLOTS + i, i % 200 == 0 ? GFP_KERNEL : GFP_HIGH_MOVABLE);
    }
    return NULL;
}

/* Looks at pages of which it holds nothing. */
static void *scanner(void *argument)
{
    struct rng r = { test_seed(4000) + 77 };

    (void)argument;
    arch_hosted_set_cpu(WORKERS);
    while (!atomic_load(&stop)) {
        uint32_t b = (uint32_t)rng_below(&r, SECTIONS * SECTION_BLOCKS);
        struct page *blocking;

        switch (rng_below(&r, 4)) {
        case 0:
            (void)compact_all(&f.mm, (enum compact_targets)rng_below(&r, 3));
            break;
        case 1:
            (void)compaction_background(&f.mm, &f.mm.zones[0]);
            break;
        case 2:
            if (isolate_test(&f.mm, block_pfn(b), block_pfn(b + 1), &blocking) != MM_EINVAL) {
                arch_cpu_relax();               /* somebody has isolated it */
            }
            break;
        default:
            atomic_fetch_add(&wrong, !empty_for_a_moment(&f.mm, b, b + 1));
            break;
        }
    }
    return NULL;
}

static mm_status_t change(pfn_t pfn, unsigned order, int rights)
{
    return mprotect((unsigned char *)memory_base() + pfn.n * FS_PAGE_BYTES, FS_PAGE_BYTES << order, rights) == 0 ? MM_OK : MM_EAGAIN;
}
static mm_status_t host_give(void *ctx, pfn_t pfn, unsigned order) { (void)ctx; return change(pfn, order, PROT_NONE); }
static mm_status_t host_take(void *ctx, pfn_t pfn, unsigned order) { (void)ctx; return change(pfn, order, PROT_READ | PROT_WRITE); }

static void test_sections_leave_under_load(void **state)
{
    struct hotplug_ops ops = { .give = host_give, .take = host_take };
    struct rng r = { test_seed(4000) };
    struct hotplug_report report;
    pthread_t threads[WORKERS + 1];
    uint64_t at_start;

    (void)state;
    memory_init_direct(&f, SECTIONS * SECTION_PAGES, WORKERS + 2, 1);
    at_start = memmap_pages(&f.mm);
    f.mm.migrate.move = move;
    for (unsigned i = 0; i < WORKERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, worker, (void *)(uintptr_t)i), 0);
    }
    assert_int_equal(pthread_create(&threads[WORKERS], NULL, scanner, NULL), 0);
    arch_hosted_set_cpu(WORKERS + 1);
    for (unsigned i = 0; i < ROUNDS || (i < 100 * ROUNDS && mm_counter(&f.mm, ZC_memmap_taken) < 4 * MEMMAP_PAGES); i++) {
        uint64_t s = rng_below(&r, SECTIONS);
        pfn_t start = pfn_make(s * SECTION_PAGES), end = pfn_make((s + 1) * SECTION_PAGES);
        mm_status_t status = i % 2 == 0 ? memory_offline(&f.mm, start, end, OFFLINE_RESIDUAL_OK, &ops, &report, NULL)
                                        : memory_online(&f.mm, pfn_make(0), pfn_make(f.mm.end_pfn), &ops, &report);

        assert_true(status == MM_OK || status == MM_EAGAIN || status == MM_ENOMEM);
    }
    atomic_store(&stop, 1);
    for (unsigned i = 0; i < WORKERS + 1; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&wrong), 0);
    assert_true(mm_counter(&f.mm, ZC_memmap_taken) >= 4 * MEMMAP_PAGES);
    assert_true(mm_counter(&f.mm, ZC_pgmigrate_success) > 1000);
    check_mm(&f.mm, test_seed(4000));
    for (unsigned i = 0; i < WORKERS * SLOTS; i++) {
        if (slots[i / SLOTS][i % SLOTS].page != NULL) {
            page_put(&f.mm, slots[i / SLOTS][i % SLOTS].page);
        }
    }
    mm_drain(&f.mm);
    assert_int_equal(memory_online(&f.mm, pfn_make(0), pfn_make(f.mm.end_pfn), &ops, &report), MM_OK);
    check_mm(&f.mm, test_seed(4000));
    /* A page between two maps may stay with neither. */
    assert_true(memmap_pages(&f.mm) >= at_start - 1 && memmap_pages(&f.mm) <= at_start + SECTIONS);
    memory_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_sections_leave_under_load) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
