/*
 * test_emb_guest.c - synthetic guests build, agree with themselves, and run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "embedded/embedded.h"

static struct emb_machine *machine(uint64_t seed)
{
    struct emb_config c = { .nodes = { { 16384, 0 }, { 16384, 512 }, { 16384, 0 } }, .node_count = 3, .seed = seed, .anon_pages = 8 };
    struct emb_machine *m = emb_machine_create(&c);
    assert_non_null(m);
    return m;
}

static uint16_t guest(struct emb_machine *m, struct emb_domain_config c)
{
    uint16_t domid;
    int rc = emb_domain_create(m, &c, &domid);
    assert_int_equal(rc, 0);
    return domid;
}

static void whole(struct emb_machine *m, uint16_t domid)
{
    assert_int_equal(emb_guest_check(m, domid, stderr), 0);
    assert_int_equal(emb_fsck(m, stderr), 0);
}

static void builds_and_runs(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct emb_machine *m = machine(seed);
        uint64_t free_before = emb_free_pages(m);
        struct emb_domain_config pv = { .kind = HV_DOMAIN_PV, .name = "pv", .pages = 4096, .vcpus = 1 + (uint32_t)seed % 4, .seed = seed,
                                        .node = 1, .ballooned = (uint32_t)seed * 3, .grants_mapped = 2, .grants_offered = 3,
                                        .ldt = seed % 2, .p2m_list_only = seed == 3, .p2m_linear_only = seed == 4 };
        struct emb_domain_config hap = { .kind = HV_DOMAIN_HAP, .name = "hap", .pages = 4096, .vcpus = 2, .seed = seed, .any_node = seed == 2,
                                         .grants_mapped = 2, .small_pages = seed == 5 };
        uint16_t a = guest(m, pv), b = guest(m, hap);
        whole(m, a);
        whole(m, b);
        for (int i = 0; i < 5; i++) {
            assert_true(emb_guest_run(m, a, 200) > 0);
            assert_true(emb_guest_run(m, b, 200) > 0);
            emb_xen_tick(m, 3);
            assert_true(emb_guest_balloon_out(m, a) != UINT64_MAX);
            assert_true(emb_guest_balloon_out(m, b) != UINT64_MAX);
            assert_true(emb_guest_alive(m, a) && emb_guest_alive(m, b));
            whole(m, a);
            whole(m, b);
        }
        assert_int_equal(emb_domain_destroy(m, a), 0);
        assert_int_equal(emb_domain_destroy(m, b), 0);
        assert_int_equal(emb_fsck(m, stderr), 0);
        assert_int_equal(emb_free_pages(m), free_before);
        emb_machine_destroy(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(builds_and_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
