/*
 * test_coop_huge.c - huge pages in a guest of the embedded machine, whose rules are Xen's: no leaf of level 2, so they are mapped by pages. Tasks on
 * transparent huge pages and on the pool verify every byte while DIMMs are emptied under them, frame by frame.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include "coop_world.h"
#include "../../guest/mm/hugetlb.h"
#include "../../guest/mm/thp.h"
#include "../../guest/workload/workload.h"

static struct workload load;
static uint64_t wrong;

static void on_wrong(void *ctx, const struct workload_wrong *w)
{
    (void)ctx;
    print_error("%s task %u: %s: page %llu byte %llu is %#llx should be %#llx\n", workload_name(w->kind), w->task, workload_fault_name(w->fault),
                (unsigned long long)w->page, (unsigned long long)w->byte, (unsigned long long)w->is, (unsigned long long)w->should_be);
    wrong++;
}

static void load_step(void *arg, struct guest *g, uint64_t random)
{
    (void)arg;
    (void)g;
    (void)workload_step(&load, (uint32_t)(random % load.count));
}

/* Huge pages in use or in the pool. */
static uint64_t huge_pages(struct guest *g)
{
    uint64_t n = 0;

    for (uint64_t pfn = 0; pfn < g->mm->end_pfn; pfn += PAGEBLOCK_PAGES) {
        const struct page *p = mm_pfn_valid(g->mm, pfn_make(pfn)) ? mm_page(g->mm, pfn_make(pfn)) : NULL;

        n += p != NULL && page_state(p) == PAGE_USED && (page_is_thp(p) || page_test(p, PG_HUGE));
    }
    return n;
}

static void evacuate(struct world *w, const char *node, unsigned number, unsigned blockers)
{
    struct hv_report r = { 0 };
    struct fs_error err = { "" };
    struct hv hv = { .be = emb_backend(w->m), .state_dir = w->dir };
    uint64_t held, pages, left;
    fs_status_t s = world_evacuate(w, node, NULL, &r, &err);

    if (s != FS_PARTIAL && s != FS_OK) {
        fail_msg("%s: %s: %s", node, fs_status_name(s), err.text);
    }
    left = emb_guest_frames_in(w->m, coop_guest_domid(w->c), emb_node_range(w->m, number), &held);
    assert_int_equal(left, 0);
    assert_int_equal(r.blocker_count, s == FS_OK ? 0 : blockers);
    assert_int_equal(hv_online(&hv, node, &pages, &err), FS_OK);
    hv.be->ops->close(hv.be);
    hv_report_free(&r);
}

static void test_huge_pages_leave_dimms(void **state)
{
    for (uint64_t seed = 1; seed <= 2; seed++) {
        struct workload_config c = { .seed = seed, .kinds = 1u << WORKLOAD_THP | 1u << WORKLOAD_POOL, .tasks = 2, .pages = 512, .wrong = on_wrong };
        struct world w;
        struct guest *g;
        uint64_t before;

        (void)state;
        world_make(&w, seed, (uint32_t)seed, GUEST_PAGES);
        g = coop_guest_kernel(w.c);
        c.vm = g->vm;
        guest_cpu_become(&g->machine.cpu[0]);
        assert_int_equal(workload_start(&load, &c), MM_OK);
        for (unsigned i = 0; i < 4; i++) {
            assert_true(guest_add_task(g, load_step, NULL));
        }
        coop_guest_step(w.c, 1500);
        before = huge_pages(g);
        assert_true(before >= 4);
        assert_false(arch_huge_leaf());
        evacuate(&w, "NODE1", 1, 1);
        assert_true(huge_pages(g) > 0);
        coop_guest_step(w.c, 500);
        evacuate(&w, "NODE0", 0, 64);
        coop_guest_step(w.c, 500);
        guest_cpu_become(&g->machine.cpu[0]);
        assert_int_equal(workload_verify_all(&load), 0);
        print_message("seed %llu: huge pages %llu, after two DIMMs %llu; thp_fault_alloc %llu thp_split %llu thp_collapse %llu hugetlb_fault %llu\n",
                      (unsigned long long)seed, (unsigned long long)before, (unsigned long long)huge_pages(g),
                      (unsigned long long)vm_counter(g->vm, VMC_thp_fault_alloc), (unsigned long long)vm_counter(g->vm, VMC_thp_split),
                      (unsigned long long)vm_counter(g->vm, VMC_thp_collapse), (unsigned long long)vm_counter(g->vm, VMC_hugetlb_fault));
        assert_true(vm_counter(g->vm, VMC_thp_fault_alloc) > 0 && vm_counter(g->vm, VMC_hugetlb_fault) > 0);
        world_sane(&w, "huge", seed);
        assert_int_equal(wrong, 0);
        guest_cpu_become(&g->machine.cpu[0]);
        g->task_count -= 4;
        workload_stop(&load);
        world_sane(&w, "huge, stopped", seed);
        world_end(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_huge_pages_leave_dimms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
