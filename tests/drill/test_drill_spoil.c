/*
 * test_drill_spoil.c - a drill notices one wrong byte in the guest that moves its own pages, and says whose it is, where and when.
 *
 * A byte of a page whose frame has just been moved is changed, at the end of the first evacuation; or, of a page that was free when its
 * frame was moved, once it is in use again.  The drill must fail with the guest's name, the pfn and the step.  The same byte with that
 * judge blind: the drill passes, so it is this judge that finds it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../guest/mm/page_alloc.h"
#include "../../hv/embedded/core.h"
#include "../../guest/mm/hugetlb.h"
#include "../../guest/mm/thp.h"
#include "coop_spoil.h"
#include "drill/coop_rig.h"
#include "hv.h"

#define PAGES 5120u                         /* of the guest: huge pages too */
#define SEEDS_MOST 6u

static struct plant {
    enum spoil_kind kind;
    bool was_free;                          /* only a page that was free when it was moved, in the step after it */
    bool blind;
    bool armed, moved, planted;
    struct emb_machine *m;
    void *kernel;
    uint64_t before[PAGES];                 /* the p2m before the evacuation */
    bool candidate[PAGES];
    uint64_t checks, pfn, huge_moved;
} plant;

static struct guest *kernel_of(void) { return coop_guest_kernel(coop_rig_guest(plant.kernel)); }

static int create(struct emb_machine *m, const struct emb_kernel_config *c, void **kernel)
{
    int rc = coop_rig_ops()->create(m, c, kernel);
    plant.m = m;
    plant.kernel = *kernel;
    return rc;
}

static void on_plan(void *arg, const struct hv_plan *plan)
{
    (void)arg, (void)plan;
    for (uint64_t pfn = 0; pfn < PAGES; pfn++) {
        plant.before[pfn] = kernel_of()->machine.p2m[pfn];
    }
    plant.armed = !plant.moved;
}

/* An evacuation is over. */
static int stop(void *kernel)
{
    int rc = coop_rig_ops()->stop(kernel);
    const struct guest *g = kernel_of();
    for (uint64_t pfn = 0; plant.armed && pfn < PAGES; pfn++) {
        uint64_t now = g->machine.p2m[pfn];
        bool went = now != plant.before[pfn] && now != UINT64_MAX && plant.before[pfn] != UINT64_MAX;
        plant.candidate[pfn] = went && (!plant.was_free || page_is_free(g->mm, mm_page(g->mm, pfn_make(pfn))));
        const struct page *head = mm_page(g->mm, pfn_make(pfn / PAGEBLOCK_PAGES * PAGEBLOCK_PAGES));
        plant.huge_moved += went && page_state(head) == PAGE_USED && (page_is_thp(head) || page_test(head, PG_HUGE));
    }
    plant.moved = plant.moved || plant.armed;
    plant.armed = false;
    return rc;
}

static bool wanted(void *ctx, uint64_t pfn)
{
    (void)ctx;
    return plant.candidate[pfn];
}

static uint64_t check(void *kernel, FILE *out, uint64_t *pages)
{
    if (plant.moved && !plant.planted && plant.checks++ >= (plant.was_free ? 1u : 0u)) {
        plant.pfn = spoil(plant.m, coop_rig_guest(kernel), plant.kind, wanted, NULL);
        plant.planted = plant.pfn != FS_FRAME_NONE;
    }
    *pages = 0;
    return plant.planted && plant.blind ? 0 : coop_rig_ops()->check(kernel, out, pages);
}

static struct { char name[16], dimm[HV_NAME_BYTES], text[512]; } failed;

static void on_step(void *arg, const struct hv_drill_step *s)
{
    (void)arg;
    if (s->faults > 0) {
        memcpy(failed.name, s->name, sizeof(failed.name));
        memcpy(failed.dimm, s->dimm, sizeof(failed.dimm));
        memcpy(failed.text, s->text, sizeof(failed.text));
    }
}

/* One drill; plant.planted: there was something to spoil. */
static fs_status_t drill_seed(uint64_t seed, enum spoil_kind kind, bool was_free, bool blind, bool threads, struct fs_error *err)
{
    static const char *const guests[] = { "coop=mail,20,2,1" };
    struct emb_kernel_ops ops = *coop_rig_ops();
    struct hv_drill_report r;
    struct hv_drill_options o = { .seed = seed, .dimms = 3, .dimm_mib = 32, .guests = guests, .guest_count = 1, .kernel = &ops, .threads = threads,
                                  .on = { .on_plan = on_plan, .on_step = on_step } };
    memset(&plant, 0, sizeof(plant));
    memset(&failed, 0, sizeof(failed));
    plant.kind = kind;
    plant.was_free = was_free;
    plant.blind = blind;
    ops.create = create;
    ops.stop = stop;
    ops.check = check;
    return hv_drill(&o, &r, err);
}

/* With threads it depends on the host's load what the guest gets done between two steps: then another seed may have what is wanted. */
static fs_status_t drill(enum spoil_kind kind, bool was_free, bool blind, bool threads, struct fs_error *err)
{
    fs_status_t s = FS_OK;
    plant.planted = false;
    for (uint64_t seed = 3; seed < (threads ? 3 + SEEDS_MOST : 4) && !plant.planted && s == FS_OK; seed++) {
        s = drill_seed(seed, kind, was_free, blind, threads, err);
    }
    if (!plant.planted) {
        uint64_t n = 0;
        for (uint64_t pfn = 0; pfn < PAGES; pfn++) {
            n += plant.candidate[pfn];
        }
        fail_msg("no %s to spoil; %llu pages that could be it; %s", spoil_name(kind), (unsigned long long)n, err->text);
    }
    return s;
}

static void one_byte(enum spoil_kind kind, bool was_free, bool threads)
{
    const char *step = was_free ? "run" : "evacuate NODE1";
    struct fs_error err = { "" };
    char pfn[32];

    assert_int_equal(drill(kind, was_free, false, threads, &err), FS_CORRUPT);
    print_message("%s%s: %s\n", spoil_name(kind), was_free ? ", free when it was moved" : "", err.text);
    (void)snprintf(pfn, sizeof(pfn), "pfn %#llx", (unsigned long long)plant.pfn);
    assert_non_null(strstr(err.text, "mail: "));
    assert_non_null(strstr(err.text, pfn));
    assert_non_null(strstr(err.text, step));
    assert_string_equal(failed.name, was_free ? "run" : "evacuate");
    assert_non_null(strstr(failed.text, pfn));
    if (!threads || was_free) {
        fs_status_t s = drill(kind, was_free, true, threads, &err);
        if (s != FS_OK) {
            fail_msg("%s with that judge blind: %s", spoil_name(kind), err.text);
        }
        assert_true(threads || plant.huge_moved > 0);
    }
}

static void each_kind(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < SPOIL_KINDS; kind++) {
        one_byte((enum spoil_kind)kind, false, false);
    }
}

static void each_kind_with_threads(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < SPOIL_KINDS; kind++) {
        one_byte((enum spoil_kind)kind, false, true);
    }
}

static void a_page_that_was_free(void **state)
{
    (void)state;
    one_byte(SPOIL_USER, true, true);           /* with threads: more of them come into use */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind), cmocka_unit_test(each_kind_with_threads), cmocka_unit_test(a_page_that_was_free),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
