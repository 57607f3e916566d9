/*
 * test_relocate.c - other frames under the same pages, on the machine that has none: every refusal leaves everything as it was.
 *
 * That pages really move is tests/drill/test_coop*.c, on the embedded machine.
 */
#include "vm_world.h"
#include "arch_hosted.h"
#include "relocate.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define RAM_PAGES 4096u
#define NO_FRAME  (HOSTED_MFN_OFFSET + RAM_PAGES)       /* frames from here on are no page's */

static struct guest g;
static struct world w;

static mfn_t frame_of(uint64_t pfn) { return mfn_make(pfn + HOSTED_MFN_OFFSET); }

/* Every page of memory, again and again, while processes run in between. */
static void refused_pages_stay(void **state)
{
    uint64_t refused = 0, dma = 0, seen = 0;
    struct relocate r;

    (void)state;
    guest_init(&g, RAM_PAGES, 1, 2048);
    world_init(&w, &g, 3, 0, 1, WORLD_FILES);
    relocate_init(&r, &g.f.mm, &g.vm);
    for (unsigned round = 0; round < 8; round++) {
        struct page *held = alloc_pages(&g.f.mm, GFP_KERNEL, 1);

        assert_non_null(held);
        page_set_flags(held, PG_DMA);
        for (unsigned i = 0; i < 150; i++) {
            world_step(&w);
        }
        for (uint64_t pfn = 0; pfn < RAM_PAGES; pfn += FS_ABI_LIST_MAX) {
            struct relocate_entry list[FS_ABI_LIST_MAX];
            struct relocate_counts counts;

            for (unsigned i = 0; i < FS_ABI_LIST_MAX; i++) {
                list[i] = (struct relocate_entry){ .pfn = pfn_make(pfn + i), .from = frame_of(pfn + i), .to = mfn_make(NO_FRAME + i) };
            }
            relocate_pages(&r, list, FS_ABI_LIST_MAX, round % 2 == 0, &counts);
            for (unsigned i = 0; i < FS_ABI_LIST_MAX; i++) {
                assert_false(fs_abi_entry_moved(list[i].status));
                assert_true(list[i].status == FS_ABI_ENTRY_REFUSED || list[i].status == FS_ABI_ENTRY_BUSY || list[i].status == FS_ABI_ENTRY_DMA);
                refused += list[i].status == FS_ABI_ENTRY_REFUSED;
                dma += list[i].status == FS_ABI_ENTRY_DMA;
            }
            assert_int_equal(counts.value[FS_ABI_MOVED_FAILED], FS_ABI_LIST_MAX);
            seen += FS_ABI_LIST_MAX;
        }
        page_clear_flags(held, PG_DMA);
        page_put(&g.f.mm, held);
        guest_check(&g, 3);
        world_check_all(&w);
    }
    assert_int_equal(dma, 8 * 2);
    assert_true(refused > seen * 9 / 10);
    assert_true(r.stops > 0 && relocate_stop_ns(&r, 500) > 0);
    assert_true(relocate_stop_ns(&r, 500) <= relocate_stop_ns(&r, 990) && relocate_stop_ns(&r, 990) <= r.longest_ns);
    world_free(&w);
    guest_free(&g);
}

static void entries_are_checked(void **state)
{
    struct relocate r;
    struct relocate_counts counts;
    struct relocate_entry list[] = {
        { .pfn = pfn_make(RAM_PAGES), .from = frame_of(RAM_PAGES), .to = mfn_make(NO_FRAME) },            /* no such page */
        { .pfn = pfn_make(UINT64_MAX), .from = frame_of(1), .to = mfn_make(NO_FRAME + 1) },
        { .pfn = pfn_make(100), .from = frame_of(101), .to = mfn_make(NO_FRAME + 2) },                    /* it is not there */
        { .pfn = pfn_make(101), .from = MFN_NONE, .to = mfn_make(NO_FRAME + 3) },
        { .pfn = pfn_make(102), .from = frame_of(102), .to = frame_of(7) },                               /* page 7 has that one */
        { .pfn = pfn_make(103), .from = frame_of(103), .to = frame_of(103) },
        { .pfn = pfn_make(104), .from = frame_of(104), .to = mfn_make(UINT64_MAX - 1) },
        { .pfn = pfn_make(105), .from = frame_of(105), .to = mfn_make(NO_FRAME + 4) },
        { .pfn = pfn_make(105), .from = frame_of(105), .to = mfn_make(NO_FRAME + 5) },                    /* the page twice */
        { .pfn = pfn_make(106), .from = frame_of(106), .to = mfn_make(NO_FRAME + 4) },                    /* the frame twice */
    };
    static const uint32_t should_be[] = { FS_ABI_ENTRY_BAD, FS_ABI_ENTRY_BAD, FS_ABI_ENTRY_STALE, FS_ABI_ENTRY_STALE, FS_ABI_ENTRY_BAD,
                                          FS_ABI_ENTRY_BAD, FS_ABI_ENTRY_BAD, FS_ABI_ENTRY_REFUSED, FS_ABI_ENTRY_BAD, FS_ABI_ENTRY_BAD };

    (void)state;
    guest_init(&g, RAM_PAGES, 1, 0);
    relocate_init(&r, &g.f.mm, &g.vm);
    relocate_pages(&r, list, FS_ARRAY_SIZE(list), false, &counts);
    for (size_t i = 0; i < FS_ARRAY_SIZE(list); i++) {
        assert_int_equal(list[i].status, should_be[i]);
    }
    guest_check(&g, 0);
    guest_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(refused_pages_stay), cmocka_unit_test(entries_are_checked) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
