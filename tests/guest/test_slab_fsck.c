/* test_slab_fsck.c - every corruption that slab_fsck() claims to find is planted, found by name, and undone. */
#include "guest_memory.h"
#include "slab_fsck.h"
#include <stdarg.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

static unsigned found[SLAB_FAULTS];
static bool planted[SLAB_FAULTS];
static struct fixture f;

static void record(void *ctx, enum slab_fault fault, const struct kmem_cache *c, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    (void)ctx;
    (void)c;
    (void)pfn;
    (void)is;
    (void)should_be;
    found[fault]++;
}

static void expect_fault(enum slab_fault fault)
{
    memset(found, 0, sizeof(found));
    assert_true(slab_fsck(&f.mm, record, NULL) > 0);
    if (found[fault] == 0) {
        fail_msg("%s was planted and not found", slab_fault_name(fault));
    }
    planted[fault] = true;
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
        check_slab(&f.mm, 0);                                                         \
    } while (0)

static void test_every_fault(void **state)
{
    struct kmem_cache *c, *other;
    struct page *partial, *full;
    unsigned char *o[500];
    uint32_t word;

    (void)state;
    memory_init(&f, 8192, 64, 2);
    c = kmem_cache_create(&f.mm, "c", 160, 0, KMEM_DEBUG | KMEM_ACCOUNT, NULL, NULL);
    other = kmem_cache_create(&f.mm, "other", 160, 0, 0, NULL, NULL);
    assert_true(c != NULL && other != NULL);
    for (unsigned i = 0; i < 500; i++) {
        o[i] = kmem_cache_alloc(c, GFP_KERNEL);
        assert_non_null(o[i]);
    }
    for (unsigned i = 0; i < 500; i += i < 300 ? 1 : 7) {
        kmem_cache_free(c, o[i]);
    }
    assert_non_null(kmem_cache_alloc(other, GFP_KERNEL));
    check_slab(&f.mm, 0);
    partial = c->slabs[KMEM_PARTIAL];
    full = c->slabs[KMEM_FULL];
    assert_true(partial != NULL && partial->lru_next != NULL && full != NULL && c->cpu[0].count > 2);

    PLANT(((struct page *)partial->lru_next)->lru_prev, (uintptr_t)full, SLAB_FAULT_LINK);
    PLANT(partial->lru_prev, (uintptr_t)full, SLAB_FAULT_LINK);
    PLANT(((struct page *)partial->lru_next)->lru_next, (uintptr_t)partial->lru_next, SLAB_FAULT_LINK);
    PLANT(partial->mapping, (uintptr_t)other, SLAB_FAULT_PAGE);
    PLANT(partial->mapping, 0, SLAB_FAULT_STRAY);
    PLANT(partial->index, 0, SLAB_FAULT_LIST);
    PLANT(partial->private, 1ull << 63, SLAB_FAULT_MAP);
    PLANT(c->slab_count[KMEM_PARTIAL], c->slab_count[KMEM_PARTIAL] + 1, SLAB_FAULT_COUNT);
    PLANT(c->used, c->used - 1, SLAB_FAULT_USED);
    PLANT(c->cpu[0].count, KMEM_MAGAZINE + 1, SLAB_FAULT_CPU_COUNT);
    PLANT(c->cpu[0].objects[0], (uintptr_t)c->cpu[0].objects[1], SLAB_FAULT_CPU);
    PLANT(c->cpu[0].objects[0], (uintptr_t)c->cpu[0].objects[0] + 8, SLAB_FAULT_CPU);
    PLANT(c->cpu[0].objects[0], (uintptr_t)&word, SLAB_FAULT_CPU);
    PLANT(*kmem_redzone(c, o[499]), 0, SLAB_FAULT_REDZONE);
    PLANT(*(unsigned char *)c->cpu[0].objects[0], 1, SLAB_FAULT_POISON);
    for (uint32_t i = 0; i < c->objects; i++) {
        if (!kmem_slab_out(partial, i)) {
            unsigned char *inside = kmem_object(partial, c, i);

            PLANT(inside[100], 1, SLAB_FAULT_POISON);
            PLANT(*kmem_redzone(c, inside), KMEM_RED_USED, SLAB_FAULT_REDZONE);
            PLANT(c->cpu[0].objects[0], (uintptr_t)inside, SLAB_FAULT_CPU);
        }
    }
    word = page_word(full);
    page_set_word(full, PAGE_WORD(PAGE_USED, 0, MIGRATE_UNMOVABLE, PG_SLAB));
    expect_fault(SLAB_FAULT_TYPE);
    page_set_word(full, word & ~(PG_SLAB << 12));
    expect_fault(SLAB_FAULT_PAGE);
    page_set_word(full, word);
    check_slab(&f.mm, 0);
    for (unsigned i = 0; i < SLAB_FAULTS; i++) {
        if (!planted[i]) {
            fail_msg("%s is never planted", slab_fault_name((enum slab_fault)i));
        }
    }
    memory_free(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_every_fault) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
