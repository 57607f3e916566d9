/* test_cpu_blocks.c - pageblocks that a CPU changes without the zone's lock: who gets them, what they cost, and that nobody misses a page. */
#include "guest_fixture.h"
#include "arch_hosted.h"
#include "cpu_blocks.h"
#include "isolation.h"
#include "mm_dump.h"
#include "pageblock.h"
#include "pcp.h"
#include <stdarg.h>
#include <setjmp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#define RAM   (64u * PAGEBLOCK_PAGES)
#define TAKEN 2000u

static struct fixture f;
static struct zone *z;
static struct page *taken[2][TAKEN];

static void setup(void)
{
    fixture_init(&f, RAM, 0, 2);
    z = &f.mm.zones[0];
}

static void finish(void)
{
    arch_hosted_set_cpu(0);
    mm_drain(&f.mm);
    check_mm(&f.mm, 0);
    assert_int_equal(mm_free_pages(&f.mm), RAM);
    fixture_free(&f);
}

/* Both CPUs take pages turn about. */
static void take(void)
{
    for (unsigned i = 0; i < 2 * TAKEN; i++) {
        arch_hosted_set_cpu(i % 2);
        taken[i % 2][i / 2] = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 0);
        assert_non_null(taken[i % 2][i / 2]);
    }
}

static void give(unsigned cpu, unsigned whose)
{
    arch_hosted_set_cpu(cpu);
    for (unsigned i = 0; i < TAKEN; i++) {
        page_put(&f.mm, taken[whose][i * 7 % TAKEN]);
    }
}

/* Blocks from which both CPUs have taken. */
static unsigned shared_blocks(void)
{
    unsigned char of[RAM / PAGEBLOCK_PAGES] = { 0 };
    unsigned n = 0;

    for (unsigned i = 0; i < 2 * TAKEN; i++) {
        of[page_block(taken[i % 2][i / 2])] |= (unsigned char)(1u << i % 2);
    }
    for (unsigned b = 0; b < RAM / PAGEBLOCK_PAGES; b++) {
        n += of[b] == 3;
    }
    return n;
}

static unsigned partly_free_blocks(void)
{
    unsigned n = 0;

    for (uint32_t b = 0; b < RAM / PAGEBLOCK_PAGES; b++) {
        n += mm_block(&f.mm, b)->free_pages > 0 && mm_block(&f.mm, b)->free_pages < PAGEBLOCK_PAGES;
    }
    return n;
}

static void *hold_for_a_moment(void *arg)
{
    _Atomic bool *there = arg;

    spin_lock(&z->lock);
    atomic_store(there, true);
    usleep(2000);
    spin_unlock(&z->lock);
    return NULL;
}

/* One wait does not make a CPU want blocks, nor do many that are rare; waits that are frequent do. */
static void test_who_wants(void **state)
{
    struct cpu_blocks *c;

    (void)state;
    setup();
    c = &z->cpu_blocks[0];
    for (unsigned round = 0; round < 8; round++) {
        bool frequent = round >= 4;

        for (unsigned i = 0; i < 50 && !frequent; i++) {
            zone_lock_outside(z, c);
            zone_unlock(z);
        }
        for (bool met = false; !met;) {                 /* the other thread may have gone before we come */
            uint8_t before = atomic_load(&c->contended);
            _Atomic bool there = false;
            pthread_t t;

            assert_int_equal(pthread_create(&t, NULL, hold_for_a_moment, (void *)&there), 0);
            while (!atomic_load(&there)) {
            }
            zone_lock_outside(z, c);
            zone_unlock(z);
            pthread_join(t, NULL);
            met = atomic_load(&c->contended) > before || atomic_load(&c->wanted);
        }
        assert_true(frequent || !atomic_load(&c->wanted));
    }
    assert_true(atomic_load(&c->wanted));
    assert_false(atomic_load(&z->cpu_blocks[1].wanted));
    assert_int_equal(atomic_load(&z->owned_blocks), 0);         /* not before it needs one */
    finish();
}

/* Alone, or not yet in need, a CPU has no own block: pages of both lie in the same blocks, as the rule has it. */
static void test_without(void **state)
{
    (void)state;
    setup();
    take();
    assert_int_equal(atomic_load(&z->owned_blocks), 0);
    assert_true(shared_blocks() >= 7);
    give(0, 0);
    give(1, 1);
    finish();
}

/* Blocks are disjoint, one is partly used by each CPU, and what follows needs the zone's lock for nothing. */
static void test_apart(void **state)
{
    (void)state;
    setup();
    want_cpu_blocks(&f.mm);
    take();
    assert_int_equal(shared_blocks(), 0);
    assert_true(partly_free_blocks() <= 2);
    check_mm(&f.mm, 0);
    give(0, 0);
    give(1, 1);
    check_mm(&f.mm, 0);
    take();
    assert_int_equal(shared_blocks(), 0);
    for (unsigned i = 0; i < 2; i++) {
        arch_hosted_set_cpu(i);
        for (unsigned k = 0; k < 300; k++) {
            page_put(&f.mm, taken[i][k]);
        }
        spin_lock(&z->lock);                            /* whoever wants it now waits for ever */
        for (unsigned k = 0; k < 200; k++) {
            taken[i][k] = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 0);
            assert_non_null(taken[i][k]);
        }
        for (unsigned k = 200; k < 300; k++) {
            page_put(&f.mm, taken[i][k - 200]);
            taken[i][k - 200] = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 0);
        }
        for (unsigned k = 0; k < 200; k++) {
            page_put(&f.mm, taken[i][k]);
        }
        for (unsigned k = 0; k < 200; k++) {
            taken[i][k] = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 0);
        }
        spin_unlock(&z->lock);
        for (unsigned k = 200; k < 300; k++) {
            taken[i][k] = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 0);
        }
    }
    check_mm(&f.mm, 0);
    give(0, 0);
    give(1, 1);
    finish();
}

/* Counts are true for who asks: at once for pages, under the zone's lock for the rest. */
static void test_counts(void **state)
{
    uint64_t settled, whole;

    (void)state;
    setup();
    want_cpu_blocks(&f.mm);
    take();
    settled = zone_settled_pages(z);
    assert_true(settled != zone_free_pages(z));
    assert_true(zone_free_pages(z) > settled - 4 * z->settle_pages && zone_free_pages(z) < settled + 4 * z->settle_pages);
    assert_int_equal(zone_free_pages(z) + pcp_pages(&f.mm, z), RAM - 2 * TAKEN);
    assert_true(zone_counter(z, ZC_alloc) >= 2 * TAKEN);
    whole = z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE].count;
    zone_lock(z);
    assert_int_equal(zone_settled_pages(z), zone_free_pages(z));
    assert_true(z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE].count <= whole);
    assert_int_equal(z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE].count, z->free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE]);
    zone_unlock(z);
    give(0, 0);
    give(1, 1);
    arch_hosted_set_cpu(0);
    mm_drain(&f.mm);
    assert_int_equal(z->free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE], RAM / PAGEBLOCK_PAGES);
    assert_int_equal(atomic_load(&z->owned_blocks), 0);         /* what is whole is nobody's */
    finish();
}

/* What another CPU gives back takes the block from its owner, and then it is that CPU's. */
static void test_follows_who_frees(void **state)
{
    uint32_t block;

    (void)state;
    setup();
    want_cpu_blocks(&f.mm);
    take();
    block = page_block(taken[0][0]);
    assert_true(blockmap_test(&z->cpu_blocks[0].own, block_position(z, block)));
    arch_hosted_set_cpu(1);
    for (unsigned i = 0; i < 100; i++) {
        page_put(&f.mm, taken[0][i]);
    }
    assert_false(blockmap_test(&z->cpu_blocks[0].own, block_position(z, block)));
    assert_true(blockmap_test(&z->cpu_blocks[1].own, block_position(z, block)));
    check_mm(&f.mm, 0);
    for (unsigned i = 0; i < 100; i++) {
        taken[0][i] = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 0);
    }
    give(1, 0);
    check_mm(&f.mm, 0);
    give(0, 1);
    finish();
}

/* Own blocks are everybody's who locks the zone: isolation empties one, kernel pages claim a whole one, a unit of any order is found. */
static void test_open_to_all(void **state)
{
    struct page *whole[RAM / PAGEBLOCK_PAGES];
    uint32_t block, n = 0;

    (void)state;
    setup();
    want_cpu_blocks(&f.mm);
    take();
    block = page_block(taken[1][TAKEN - 1]);
    assert_true(blockmap_test(&z->owned, block_position(z, block)));
    assert_int_equal(isolate_range(&f.mm, block_pfn(block), block_pfn(block + 1), 0, NULL), MM_OK);
    assert_false(blockmap_test(&z->owned, block_position(z, block)));
    check_mm(&f.mm, 0);
    assert_int_equal(isolate_undo(&f.mm, block_pfn(block), block_pfn(block + 1)), MM_OK);
    arch_hosted_set_cpu(0);
    for (block = 0; block < RAM / PAGEBLOCK_PAGES; block++) {        /* one that is whole, and somebody's */
        if (blockmap_test(&z->owned, block_position(z, block)) && mm_block(&f.mm, block)->free_pages == PAGEBLOCK_PAGES) {
            n++;
            break;
        }
    }
    while (n < RAM / PAGEBLOCK_PAGES && (whole[n] = alloc_pages(&f.mm, GFP_KERNEL | __GFP_MEMALLOC, PAGEBLOCK_ORDER)) != NULL) {
        n++;
    }
    assert_true(block == RAM / PAGEBLOCK_PAGES || mm_block(&f.mm, block)->free_pages == 0);
    check_mm(&f.mm, 0);
    for (uint32_t b = 0; b < RAM / PAGEBLOCK_PAGES; b++) {
        assert_true(mm_block(&f.mm, b)->free_pages < PAGEBLOCK_PAGES);
    }
    for (uint32_t i = block == RAM / PAGEBLOCK_PAGES ? 0 : 1; i < n; i++) {
        page_put(&f.mm, whole[i]);
    }
    give(0, 0);
    give(1, 1);
    finish();
}

/* Where whole blocks are few they are not given out: the pages of both lie in the same blocks again. */
static void test_few_whole_blocks(void **state)
{
    struct page *whole[RAM / PAGEBLOCK_PAGES];
    uint32_t n = 0;

    (void)state;
    setup();
    while (z->free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE] > 10) {
        whole[n] = alloc_pages(&f.mm, GFP_KERNEL, PAGEBLOCK_ORDER);
        assert_non_null(whole[n++]);
    }
    want_cpu_blocks(&f.mm);
    for (unsigned i = 0; i < 2 * TAKEN; i++) {
        arch_hosted_set_cpu(i % 2);
        taken[i % 2][i / 2] = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 0);
        assert_true(partly_free_blocks() <= 2);
    }
    check_mm(&f.mm, 0);
    give(0, 0);
    give(1, 1);
    while (n > 0) {
        page_put(&f.mm, whole[--n]);
    }
    finish();
}

/* A CPU that does nothing with its blocks while others lock the zone has none in the end. */
static void test_idle(void **state)
{
    (void)state;
    setup();
    want_cpu_blocks(&f.mm);
    take();
    assert_true(z->cpu_blocks[0].own.count > 0);
    for (unsigned i = 0; i < 40; i++) {
        zone_lock(z);
        zone_unlock(z);
    }
    assert_true(z->cpu_blocks[0].own.count > 0);
    for (unsigned i = 0; i < 40; i++) {
        zone_lock(z);
        zone_unlock(z);
    }
    assert_int_equal(atomic_load(&z->owned_blocks), 0);
    assert_false(atomic_load(&z->cpu_blocks[0].wanted));
    check_mm(&f.mm, 0);
    give(0, 0);
    give(1, 1);
    finish();
}

static void collect(void *ctx, const char *line)
{
    strcat(ctx, line);
    strcat(ctx, "\n");
}

static void test_dump(void **state)
{
    char text[1000] = "";

    (void)state;
    setup();
    mm_dump_cpu_blocks(&f.mm, collect, text);
    assert_string_equal(text, "Node 0, zone Normal, cpu 0: own 0, with free pages 0, unsettled 0, pages 0\n"
                              "Node 0, zone Normal, cpu 1: own 0, with free pages 0, unsettled 0, pages 0\n");
    want_cpu_blocks(&f.mm);
    arch_hosted_set_cpu(1);
    taken[0][0] = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 0);
    text[0] = '\0';
    mm_dump_cpu_blocks(&f.mm, collect, text);
    assert_non_null(strstr(text, "cpu 1: own 2, with free pages 2, unsettled 1, pages -16\n"));
    page_put(&f.mm, taken[0][0]);
    finish();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_wants), cmocka_unit_test(test_without),   cmocka_unit_test(test_apart),
        cmocka_unit_test(test_counts),    cmocka_unit_test(test_follows_who_frees), cmocka_unit_test(test_open_to_all),
        cmocka_unit_test(test_few_whole_blocks), cmocka_unit_test(test_idle), cmocka_unit_test(test_dump),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
