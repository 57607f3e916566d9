/*
 * guest_fixture.c - a small guest memory for tests, and a naive model of it.
 *
 * Owns: the fixture's boot memory.
 * Why: every property test of the guest core needs the same three things: a memory, a
 *   seeded source of randomness and a model that is too simple to be wrong.
 * Cost: the model's queries are linear in the pages.
 */
#include "guest_fixture.h"
#include "compaction.h"
#include "isolation.h"
#include "pageblock.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

void *fixture_boot_alloc(void *ctx, size_t bytes, size_t align)
{
    struct fixture *f = ctx;
    void *p;

    if (f->boot_fail_at != 0 && f->boot_count + 1 == f->boot_fail_at) {
        return NULL;
    }
    p = aligned_alloc(align, (bytes + align - 1) / align * align);
    if (p != NULL) {
        memset(p, 0, bytes);
        f->boot = realloc(f->boot, sizeof(void *) * (f->boot_count + 1));
        f->boot[f->boot_count++] = p;
    }
    return p;
}

mm_status_t fixture_try_init(struct fixture *f, struct mm_config *config)
{
    config->boot_alloc = fixture_boot_alloc;
    config->boot_ctx = f;
    return mm_init(&f->mm, config);
}

void fixture_init_config(struct fixture *f, struct mm_config *config, uint64_t reserved)
{
    *f = (struct fixture){ .boot = NULL };
    assert_int_equal(fixture_try_init(f, config), MM_OK);
    mm_free_boot(&f->mm, pfn_make(reserved), pfn_make(f->mm.end_pfn));
    mm_boot_done(&f->mm);
}

void fixture_init(struct fixture *f, uint64_t pages, uint64_t reserved, unsigned cpus)
{
    struct mm_range ram = { pfn_make(0), pfn_make(pages), 0 };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .cpus = cpus };

    fixture_init_config(f, &config, reserved);
}

void fixture_free(struct fixture *f)
{
    for (size_t i = 0; i < f->boot_count; i++) {
        free(f->boot[i]);
    }
    free(f->boot);
    *f = (struct fixture){ .boot = NULL };
}

static void print_fault(void *ctx, enum mm_fault fault, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    fprintf(stderr, "seed %llu: %s at pfn %#llx: %s (is %llu, should be %llu)\n", *(unsigned long long *)ctx, mm_fault_name(fault),
            (unsigned long long)pfn.n, mm_fault_text(fault), (unsigned long long)is, (unsigned long long)should_be);
}

void check_mm(const struct mm *mm, uint64_t seed)
{
    unsigned long long s = seed;
    uint64_t faults = mm_fsck(mm, print_fault, &s);

    assert_int_equal(faults, 0);
}

uint64_t rng_next(struct rng *r)
{
    uint64_t x = r->state += 0x9e3779b97f4a7c15ull;     /* splitmix64, public domain */

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

uint64_t test_seed(uint64_t otherwise)
{
    const char *s = getenv("FRAMESHIFT_SEED");

    return s != NULL ? strtoull(s, NULL, 0) : otherwise;
}

void model_init(struct model *m, const struct mm *mm)
{
    *m = (struct model){ .pages = mm->end_pfn, .owner = calloc(mm->end_pfn, sizeof(uint32_t)), .next_owner = 2 };
    assert_non_null(m->owner);
    for (uint64_t pfn = 0; pfn < mm->end_pfn; pfn++) {
        const struct page *p = mm_pfn_valid(mm, pfn_make(pfn)) ? mm_page(mm, pfn_make(pfn)) : NULL;
        m->owner[pfn] = p == NULL || page_state(p) == PAGE_HOLE || page_state(p) == PAGE_RESERVED;
    }
}

void model_free(struct model *m)
{
    free(m->owner);
}

uint32_t model_take(struct model *m, const struct page *p, unsigned order)
{
    uint32_t owner = m->next_owner++;

    assert_int_equal(p->pfn & ((1u << order) - 1), 0);
    assert_true(p->pfn + (1ull << order) <= m->pages);
    for (uint64_t i = 0; i < 1ull << order; i++) {
        assert_int_equal(m->owner[p->pfn + i], 0);
        m->owner[p->pfn + i] = owner;
    }
    return owner;
}

void model_give(struct model *m, const struct page *p, unsigned order)
{
    for (uint64_t i = 0; i < 1ull << order; i++) {
        assert_true(m->owner[p->pfn + i] > 1);
        m->owner[p->pfn + i] = 0;
    }
}

bool model_has_run(const struct model *m, unsigned order)
{
    for (uint64_t start = 0; start + (1ull << order) <= m->pages; start += 1ull << order) {
        uint64_t i = 0;

        while (i < 1ull << order && m->owner[start + i] == 0) {
            i++;
        }
        if (i == 1ull << order) {
            return true;
        }
    }
    return false;
}

uint64_t model_free_pages(const struct model *m)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < m->pages; i++) {
        n += m->owner[i] == 0;
    }
    return n;
}

static mm_status_t owners_move(void *ctx, struct page *from, struct page *to)
{
    struct owners *o = ctx;
    uint32_t owner = (uint32_t)from->private;

    assert_true(page_state(from) == PAGE_USED && page_state(to) == PAGE_USED);
    assert_ptr_equal(o->page_of[owner], from);
    if (o->refuse_nth != 0 && --o->refuse_nth == 0) {
        return MM_EBUSY;
    }
    if (o->refuse_one_in != 0 && rng_below(&o->rng, o->refuse_one_in) == 0) {
        return MM_EAGAIN;
    }
    to->private = owner;
    o->page_of[owner] = to;
    o->moves += 1ull << page_order(from);
    page_put(o->mm, from);
    return MM_OK;
}

void owners_init(struct owners *o, struct mm *mm, uint32_t capacity, uint64_t seed)
{
    *o = (struct owners){ .mm = mm, .page_of = calloc(capacity, sizeof(struct page *)), .capacity = capacity, .rng = { seed } };
    assert_non_null(o->page_of);
    mm->migrate.move = owners_move;
    mm->migrate.ctx = o;
}

void owners_free(struct owners *o)
{
    free(o->page_of);
}

struct page *owners_alloc(struct owners *o, gfp_t gfp, unsigned order)
{
    struct page *p = alloc_pages(o->mm, gfp, order);

    if (p == NULL) {
        return NULL;
    }
    assert_true(o->count < o->capacity);
    p->private = o->count;
    o->page_of[o->count++] = p;
    return p;
}

void owners_put(struct owners *o, uint32_t owner)
{
    page_put(o->mm, o->page_of[owner]);
    o->page_of[owner] = o->page_of[--o->count];
    if (owner < o->count) {
        o->page_of[owner]->private = owner;
    }
    o->page_of[o->count] = NULL;
}

void owners_check(const struct owners *o)
{
    for (uint32_t i = 0; i < o->count; i++) {
        assert_int_equal(page_state(o->page_of[i]), PAGE_USED);
        assert_int_equal(o->page_of[i]->private, i);
    }
}

void want_cpu_blocks(struct mm *mm)
{
    for (uint32_t i = 0; i < mm->zone_count; i++) {
        for (unsigned cpu = 0; cpu < mm->cpus; cpu++) {
            atomic_store_explicit(&mm->zones[i].cpu_blocks[cpu].wanted, true, memory_order_relaxed);
        }
    }
}

bool empty_for_a_moment(struct mm *mm, uint32_t first, uint32_t end)
{
    struct compact_result result;
    mm_status_t status = isolate_range(mm, block_pfn(first), block_pfn(end), ISOLATE_RESIDUAL, NULL);

    if (status != MM_OK) {
        return true;                            /* somebody else was there first, or a page is in the way */
    }
    status = evacuate_range(mm, block_pfn(first), block_pfn(end), &result);
    return (status == MM_OK || status == MM_EAGAIN) && isolate_undo(mm, block_pfn(first), block_pfn(end)) == MM_OK;
}
