/* test_mm_fsck.c - every corruption that mm_fsck() claims to find is planted, found by name, and undone. */
#include "guest_memory.h"
#include "arch_hosted.h"
#include "buddy.h"
#include "hotplug.h"
#include "memmap.h"
#include "pageblock.h"
#include "pcp.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static unsigned found[MM_FAULTS];

static void record(void *ctx, enum mm_fault fault, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    (void)ctx;
    (void)pfn;
    (void)is;
    (void)should_be;
    found[fault]++;
}

static struct fixture f;
static struct page *used[3000];
static bool planted[MM_FAULTS];

/* Memory with everything in it: lists of many orders, all types, per-CPU pages, reserved pages, a hole. */
static void setup(void)
{
    struct mm_range ram[] = { { pfn_make(0), pfn_make(160), 0 }, { pfn_make(256), pfn_make(16384), 0 } };
    struct mm_config config = { .ram = ram, .ram_count = 2, .cpus = 2 };

    fixture_init_config(&f, &config, 100);
    for (unsigned i = 0; i < 3000; i++) {
        gfp_t gfp = i % 3 == 0 ? GFP_KERNEL : i % 3 == 1 ? GFP_HIGH_MOVABLE : GFP_KERNEL | __GFP_RECLAIMABLE;
        used[i] = alloc_pages(&f.mm, gfp, i % 7 == 0 ? 2 : 0);
        assert_non_null(used[i]);
    }
    for (unsigned i = 0; i < 3000; i += 5) {
        page_put(&f.mm, used[i]);
        used[i] = NULL;
    }
    check_mm(&f.mm, 0);
}

static void expect_fault(enum mm_fault fault)
{
    memset(found, 0, sizeof(found));
    assert_true(mm_fsck(&f.mm, record, NULL) > 0);
    if (found[fault] == 0) {
        fail_msg("%s was planted and not found", mm_fault_name(fault));
    }
    planted[fault] = true;
}

static struct page *page_in_state(enum page_state state, unsigned min_order)
{
    for (uint64_t pfn = 0; pfn < f.mm.end_pfn; pfn++) {
        struct page *p = mm_page(&f.mm, pfn_make(pfn));
        if (page_state(p) == state && page_order(p) >= min_order && page_order(p) < PAGEBLOCK_ORDER) {
            return p;
        }
    }
    fail_msg("no page in state %s", page_state_name(state));
    return NULL;
}

/* Change a place (of at most eight bytes, little-endian), expect the fault, put it back. */
#define PLANT(place, value, fault)                                                    \
    do {                                                                              \
        unsigned char saved_[sizeof(place)];                                          \
        uint64_t value_ = (uint64_t)(value);                                          \
        memcpy(saved_, (void *)&(place), sizeof(place));                              \
        memcpy((void *)&(place), &value_, sizeof(place));                             \
        expect_fault(fault);                                                          \
        memcpy((void *)&(place), saved_, sizeof(place));                              \
        check_mm(&f.mm, 0);                                                           \
    } while (0)
#define PLANT_WORD(where, value, fault)                                              \
    do {                                                                              \
        struct page *page_ = (where);                                                 \
        uint32_t saved_ = page_word(page_);                                           \
        page_set_word(page_, (value));                                                \
        expect_fault(fault);                                                          \
        page_set_word(page_, saved_);                                                 \
        check_mm(&f.mm, 0);                                                           \
    } while (0)

static struct page *free_page(void)
{
    for (uint64_t pfn = 0; pfn < f.mm.end_pfn; pfn++) {
        if (mm_pfn_valid(&f.mm, pfn_make(pfn)) && page_is_free(&f.mm, mm_page(&f.mm, pfn_make(pfn)))) {
            return mm_page(&f.mm, pfn_make(pfn));
        }
    }
    fail_msg("no free page");
    return NULL;
}

static void flip(struct page *p)
{
    free_map_turn(mm_block_free_map(&f.mm, page_block(p)), page_block_index(p), 0, true);         /* one page: either way */
}

static void plant_in_pages(void)
{
    struct page *u = page_in_state(PAGE_USED, 0), *big = page_in_state(PAGE_USED, 2), *free = free_page();

    PLANT(u->pfn, u->pfn + 1, MM_FAULT_PFN);
    PLANT_WORD(big + 1, PAGE_WORD(PAGE_USED, 0, 0, 0), MM_FAULT_STATE);
    PLANT_WORD(u, 15, MM_FAULT_STATE);
    PLANT_WORD(u, 0, MM_FAULT_ORPHAN);
    PLANT_WORD(free, PAGE_WORD(PAGE_USED, 0, 0, 0), MM_FAULT_FREE_MAP);
    flip(u);
    expect_fault(MM_FAULT_FREE_MAP);
    flip(u);
    flip(big + 1);
    expect_fault(MM_FAULT_FREE_MAP);
    flip(big + 1);
    flip(free);
    expect_fault(MM_FAULT_ORPHAN);
    flip(free);
    PLANT_WORD(u, PAGE_WORD(PAGE_USED, 11, 0, 0), MM_FAULT_ALIGN);
    PLANT_WORD(big, PAGE_WORD(PAGE_USED, 2, MIGRATE_ISOLATE, 0), MM_FAULT_TYPE);
    PLANT(u->refs, 0, MM_FAULT_REFS);
    PLANT(free->refs, 1, MM_FAULT_REFS);
    PLANT((big + 1)->refs, 1, MM_FAULT_REFS);
}

static void plant_in_blocks(void)
{
    uint32_t b = page_block(free_page());
    struct zone *z = &f.mm.zones[0];
    struct pageblock *pb = mm_block(&f.mm, b);
    uint32_t other = 0, whole = buddy_whole_block(&f.mm.zones[0], 0);

    PLANT(pb->units[0], pb->units[0] + 1, MM_FAULT_BLOCK_UNITS);
    PLANT(pb->units[8], 3, MM_FAULT_BLOCK_UNITS);
    PLANT(pb->order_mask, pb->order_mask ^ 1u, MM_FAULT_ORDER_MASK);
    PLANT(pb->free_pages, pb->free_pages + 1, MM_FAULT_BLOCK_FREE);
    PLANT(pb->reserved_pages, pb->reserved_pages + 1, MM_FAULT_BLOCK_RESERVED);
    PLANT(pb->zone, 3, MM_FAULT_BLOCK_ZONE);
    PLANT(pb->isolations, 1, MM_FAULT_ISOLATION);
    PLANT(pb->type, MIGRATE_TYPES, MM_FAULT_TYPE);
    PLANT(pb->type, MIGRATE_HIGHATOMIC, MM_FAULT_AREA);
    PLANT(pb->type, MIGRATE_HIGHATOMIC, MM_FAULT_ZONE_BLOCKS);
    pageblock_set_type(&f.mm, z, whole, MIGRATE_UNMOVABLE);
    expect_fault(MM_FAULT_WHOLE_TYPE);
    pageblock_set_type(&f.mm, z, whole, MIGRATE_MOVABLE);
    /* A bit in the free area of another order and of another type. */
    while (mm_block(&f.mm, other)->order_mask & 1u) {
        other++;
    }
    blockmap_set(&z->area[0][MIGRATE_RECLAIMABLE], block_position(z, other));
    expect_fault(MM_FAULT_AREA);
    blockmap_clear(&z->area[0][MIGRATE_RECLAIMABLE], block_position(z, other));
    check_mm(&f.mm, 0);
    PLANT(z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE].count, 0, MM_FAULT_AREA_SUMMARY);
}

static void plant_in_zone(void)
{
    struct zone *z = &f.mm.zones[0];
    struct pcp_list *l = NULL;

    PLANT(z->free_pages, zone_free_pages(z) + 1, MM_FAULT_ZONE_FREE);
    PLANT(z->isolated_free_pages, 7, MM_FAULT_ZONE_FREE);
    PLANT(z->free_units[3][MIGRATE_MOVABLE], 999, MM_FAULT_ZONE_UNITS);
    PLANT(z->managed_pages, z->managed_pages - 1, MM_FAULT_ZONE_MANAGED);
    PLANT(z->watermark[WMARK_LOW], 0, MM_FAULT_WATERMARK);
    PLANT(z->tenant_blocks, z->tenant_blocks + 1, MM_FAULT_ZONE_TENANTS);
    PLANT(z->lent_blocks, z->lent_blocks + 1, MM_FAULT_ZONE_LENT);
    PLANT(mm_block(&f.mm, z->first_block)->flags, mm_block(&f.mm, z->first_block)->flags ^ PB_TENANTS, MM_FAULT_ZONE_TENANTS);
    PLANT(mm_block(&f.mm, z->first_block)->flags, mm_block(&f.mm, z->first_block)->flags ^ PB_LENT, MM_FAULT_ZONE_LENT);
    for (unsigned t = 0; t < MIGRATE_PCP_TYPES; t++) {
        l = z->pcp[0].lists[0][t].count > 1 ? &z->pcp[0].lists[0][t] : l;
    }
    assert_non_null(l);
    PLANT(l->count, l->count - 1, MM_FAULT_PCP_COUNT);
    PLANT(l->pages[0], l->pages[1], MM_FAULT_PCP_MEMBER);
    PLANT(l->pages[0], page_in_state(PAGE_USED, 0), MM_FAULT_PCP_MEMBER);
    for (uint64_t pfn = 0; pfn < f.mm.end_pfn; pfn++) {        /* a page of another type's block, in the right state */
        struct page *p = mm_page(&f.mm, pfn_make(pfn));
        if (page_word(p) << 24 == PAGE_WORD(PAGE_PCP, 0, 0, 0) << 24 && pageblock_type(&f.mm, page_block(p)) == MIGRATE_MOVABLE) {
            PLANT(l->pages[0], p, MM_FAULT_PCP_TYPE);
            break;
        }
    }
}

static mm_status_t yes(void *ctx, pfn_t pfn, unsigned order)
{
    (void)ctx;
    return order <= PAGEBLOCK_ORDER && pfn.n < f.mm.end_pfn ? MM_OK : MM_EAGAIN;
}

/* Struct pages in boot memory, and those of a section that left and came back. */
static void plant_in_memmaps(void)
{
    struct hotplug_ops ops = { .give = yes, .take = yes };
    struct hotplug_report r;
    struct section *s;

    memory_init_direct(&f, 2 * SECTION_PAGES, 1, 1);
    s = &f.mm.sections[1];
    PLANT_WORD(mm_page(&f.mm, memmap_pfn(&f.mm, atomic_load(&s->map))), PAGE_WORD(PAGE_USED, 0, 0, 0), MM_FAULT_MEMMAP);
    assert_int_equal(memory_offline(&f.mm, pfn_make(SECTION_PAGES), pfn_make(2 * SECTION_PAGES), 0, &ops, &r, NULL), MM_OK);
    PLANT(f.mm.memmap_pages[0], 1, MM_FAULT_MEMMAP_COUNT);
    assert_int_equal(memory_online(&f.mm, pfn_make(SECTION_PAGES), pfn_make(2 * SECTION_PAGES), &ops, &r), MM_OK);
    PLANT(s->map_pfn, s->map_pfn + PAGEBLOCK_PAGES, MM_FAULT_MEMMAP);
    PLANT_WORD(mm_page(&f.mm, pfn_make(s->map_pfn)), PAGE_WORD(PAGE_USED, PAGEBLOCK_ORDER, MIGRATE_MOVABLE, 0), MM_FAULT_MEMMAP);
    PLANT(f.mm.memmap_pages[0], memmap_pages(&f.mm) + 1, MM_FAULT_MEMMAP_COUNT);
}

static void plant_in_ring(void)
{
    struct free_ring *r = &f.mm.rings[0];
    struct page *p[3];

    for (unsigned i = 0; i < 3; i++) {
        p[i] = alloc_frozen_pages(&f.mm, GFP_KERNEL, i);
        assert_non_null(p[i]);
    }
    for (unsigned i = 0; i < 3; i++) {
        free_frozen_pages(&f.mm, page_pfn(p[i]), i);
    }
    check_mm(&f.mm, 0);
    PLANT(r->pfns[1], r->pfns[0], MM_FAULT_RING_MEMBER);
    PLANT(r->pfns[1], page_in_state(PAGE_USED, 0)->pfn, MM_FAULT_RING_MEMBER);
    PLANT(r->pfns[1], f.mm.end_pfn, MM_FAULT_RING_MEMBER);
    PLANT_WORD(mm_page(&f.mm, pfn_make(r->pfns[2])), PAGE_WORD(PAGE_NONE, 0, 0, 0), MM_FAULT_RING_MEMBER);
    PLANT(r->count, FREE_RING, MM_FAULT_RING_MEMBER);
    PLANT(mm_page(&f.mm, pfn_make(r->pfns[0]))->refs, 1, MM_FAULT_REFS);
}

/* Two CPUs with blocks of their own, of which pages have been taken and given back. */
static void plant_in_cpu_blocks(void)
{
    struct zone *z = &f.mm.zones[0];
    struct cpu_blocks *c = &z->cpu_blocks[0], *d = &z->cpu_blocks[1];
    struct page *p[2][200];
    uint32_t at, full;

    want_cpu_blocks(&f.mm);
    for (unsigned i = 0; i < 400; i++) {
        arch_hosted_set_cpu(i % 2);
        p[i % 2][i / 2] = alloc_pages(&f.mm, GFP_HIGH_MOVABLE, 0);
        assert_non_null(p[i % 2][i / 2]);
    }
    for (unsigned i = 0; i < 400; i += 1 + i % 3) {
        arch_hosted_set_cpu(i % 2);
        page_put(&f.mm, p[i % 2][i / 2]);
    }
    arch_hosted_set_cpu(0);
    check_mm(&f.mm, 0);
    at = blockmap_first(&c->avail, 0);
    full = blockmap_first(&z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE], 0);
    assert_true(at != BLOCKMAP_NONE && full != BLOCKMAP_NONE && d->own.count > 0 && c->dirty.count + d->dirty.count > 0);
    blockmap_set(&d->own, at);
    expect_fault(MM_FAULT_CPU_BLOCKS_OWNER);
    blockmap_clear(&d->own, at);
    PLANT(z->owned_blocks, 0, MM_FAULT_CPU_BLOCKS_OWNER);
    blockmap_clear(&c->avail, at);
    expect_fault(MM_FAULT_CPU_BLOCKS_AVAIL);
    blockmap_set(&c->avail, at);
    blockmap_set(&c->avail, full);
    expect_fault(MM_FAULT_CPU_BLOCKS_AVAIL);
    blockmap_clear(&c->avail, full);
    blockmap_set(&c->dirty, full);
    expect_fault(MM_FAULT_CPU_BLOCKS_DIRTY);
    blockmap_clear(&c->dirty, full);
    PLANT(mm_block(&f.mm, position_block(z, at))->type, MIGRATE_UNMOVABLE, MM_FAULT_CPU_BLOCKS_TYPE);
    PLANT(mm_block(&f.mm, position_block(z, at))->offline, 1, MM_FAULT_CPU_BLOCKS_TYPE);
    PLANT(c->own.count, 0, MM_FAULT_AREA_SUMMARY);
    PLANT(c->free_units[3][MIGRATE_MOVABLE], 999, MM_FAULT_ZONE_UNITS);
    PLANT(c->free_pages, 999, MM_FAULT_ZONE_FREE);
    PLANT(z->held, 1, MM_FAULT_CPU_BLOCKS_HELD);
    check_mm(&f.mm, 0);
    /* The same after a visit of the zone's lock, which leaves nothing unsettled. */
    zone_lock(z);
    assert_int_equal(c->dirty.count + d->dirty.count, 0);
    zone_unlock(z);
    check_mm(&f.mm, 0);
}

/* Counts that would never be settled. */
static void plant_without_cpu_blocks(void)
{
    struct cpu_blocks *c = &f.mm.zones[0].cpu_blocks[1];

    PLANT(c->free_pages, 1, MM_FAULT_CPU_BLOCKS_COUNT);
    PLANT(c->free_units[2][MIGRATE_MOVABLE], 1, MM_FAULT_CPU_BLOCKS_COUNT);
}

static void test_every_fault(void **state)
{
    (void)state;
    setup();
    plant_in_ring();
    plant_in_pages();
    plant_in_blocks();
    plant_in_zone();
    plant_without_cpu_blocks();
    plant_in_cpu_blocks();
    fixture_free(&f);
    plant_in_memmaps();
    for (unsigned i = 0; i < MM_FAULTS; i++) {
        if (!planted[i]) {
            fail_msg("%s is never planted", mm_fault_name((enum mm_fault)i));
        }
    }
    memory_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_fault) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
