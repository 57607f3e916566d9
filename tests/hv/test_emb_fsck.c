/*
 * test_emb_fsck.c - the judges find what they claim to find.
 *
 * Every corruption that can be planted is found by the machine's fsck, and every kind of wrong
 * memory by the guest's check.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "embedded/embedded.h"

static struct emb_machine *machine(uint64_t seed, uint16_t *pv, uint16_t *hap)
{
    struct emb_config c = { .nodes = { { 8192, 0 }, { 8192, 256 } }, .node_count = 2, .seed = seed, .anon_pages = 4 };
    struct emb_machine *m = emb_machine_create(&c);
    assert_non_null(m);
    struct emb_domain_config p = { .kind = HV_DOMAIN_PV, .pages = 2048, .vcpus = 2, .seed = seed, .node = 0 };
    struct emb_domain_config h = { .kind = HV_DOMAIN_HAP, .pages = 2048, .vcpus = 2, .seed = seed, .node = 1 };
    uint16_t gone;
    assert_int_equal(emb_domain_create(m, &p, &gone), 0);
    assert_int_equal(emb_domain_create(m, &p, pv), 0);
    assert_int_equal(emb_domain_create(m, &h, hap), 0);
    assert_int_equal(emb_domain_destroy(m, gone), 0);       /* so that there are free frames with overwritten bytes */
    assert_int_equal(emb_fsck(m, stderr), 0);
    return m;
}

static void every_planted_corruption_is_found(void **state)
{
    (void)state;
    for (int what = 0; what < EMB_CORRUPTIONS; what++) {
        for (uint64_t seed = 1; seed <= 5; seed++) {
            uint16_t pv, hap;
            struct emb_machine *m = machine(seed, &pv, &hap);
            assert_true(emb_corrupt(m, (enum emb_corruption)what, seed * 77));
            uint64_t faults = emb_fsck(m, NULL) + (what == EMB_CORRUPT_P2M ? emb_guest_check(m, hap, NULL) : 0);
            if (faults == 0) {
                fail_msg("corruption %d, seed %llu: not found", what, (unsigned long long)seed);
            }
            emb_machine_destroy(m);
        }
    }
}

/* Flip one bit of many pages in turn, through a foreign mapping: the guest's check must find it wherever it matters. */
static void any_flipped_byte_is_found(void **state)
{
    (void)state;
    uint16_t pv, hap;
    struct emb_machine *m = machine(3, &pv, &hap);
    struct hv_backend *be = emb_backend(m);
    uint64_t unnoticed = 0, tried = 0;
    for (uint64_t gfn = 0; gfn < 2048; gfn += 13) {
        mfn_t mfn = emb_guest_frame(m, hap, gfn);
        if (mfn_is_none(mfn)) {
            continue;
        }
        int page_err;
        uint8_t *p;
        assert_int_equal(be->ops->map(be, hap, &gfn, 1, HV_MAP_WRITE, &page_err, (void **)&p, NULL), FS_OK);
        assert_int_equal(page_err, 0);
        p[gfn % 4096] ^= 0x10;
        tried++;
        unnoticed += emb_guest_check(m, hap, NULL) == 0;
        p[gfn % 4096] ^= 0x10;
        be->ops->unmap(be, p, 1);
    }
    assert_true(tried > 140);
    assert_true(unnoticed <= 6);        /* pages that Xen writes: two vcpu_infos, two control blocks, one event array */
    assert_int_equal(emb_guest_check(m, hap, stderr), 0);
    be->ops->close(be);
    emb_machine_destroy(m);
}

static void any_flipped_byte_of_a_pv_guest_is_found(void **state)
{
    (void)state;
    uint16_t pv, hap;
    struct emb_machine *m = machine(4, &pv, &hap);
    struct hv_backend *be = emb_backend(m);
    uint64_t unnoticed = 0, tried = 0;
    for (uint64_t pfn = 0; pfn < 2048; pfn += 17) {
        mfn_t mfn = emb_guest_frame(m, pv, pfn);
        int page_err;
        uint8_t *p;
        assert_int_equal(be->ops->map(be, pv, &mfn.n, 1, HV_MAP_WRITE, &page_err, (void **)&p, NULL), FS_OK);
        if (page_err == 0) {
            tried++;
            p[pfn % 4096] ^= 0x10;
            unnoticed += emb_guest_check(m, pv, NULL) == 0;
            p[pfn % 4096] ^= 0x10;
        }
        be->ops->unmap(be, p, 1);
    }
    assert_true(tried > 90);
    assert_true(unnoticed <= 7);        /* start_info's unused part, vcpu_infos, control blocks, event array, pirq_eoi */
    assert_int_equal(emb_guest_check(m, pv, stderr), 0);
    be->ops->close(be);
    emb_machine_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_planted_corruption_is_found),
        cmocka_unit_test(any_flipped_byte_is_found),
        cmocka_unit_test(any_flipped_byte_of_a_pv_guest_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
