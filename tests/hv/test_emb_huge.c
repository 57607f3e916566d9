/*
 * test_emb_huge.c - a machine of 1 TiB, metadata only: created, filled, surveyed.
 *
 * Costs must follow what is used and asked about, not the machine's size.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "embedded/embedded.h"

#define GIB_PAGES (1ull << 18)

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void a_tebibyte(void **state)
{
    (void)state;
    struct emb_config c = { .node_count = 16, .seed = 1, .no_contents = true };
    for (uint32_t i = 0; i < c.node_count; i++) {
        c.nodes[i].pages = 64 * GIB_PAGES;
    }
    double start = seconds();
    struct emb_machine *m = emb_machine_create(&c);
    assert_non_null(m);
    double created = seconds();
    struct emb_domain_config g = { .kind = HV_DOMAIN_HAP, .name = "big", .pages = 8 * GIB_PAGES, .vcpus = 4, .seed = 1, .node = 3 };
    uint16_t domid;
    assert_int_equal(emb_domain_create(m, &g, &domid), 0);
    double filled = seconds();
    struct hv_backend *be = emb_backend(m);
    struct hv_host host;
    assert_int_equal(be->ops->host(be, &host, NULL), FS_OK);
    assert_int_equal(host.total_pages, 1024 * GIB_PAGES);

    enum { CHUNK = 1 << 16 };
    struct hv_frame *f = calloc(CHUNK, sizeof(*f));
    struct mfn_range node = emb_node_range(m, 3);
    uint64_t owned = 0;
    for (uint64_t at = node.start.n; at < node.end.n; at += CHUNK) {
        assert_int_equal(be->ops->frames(be, (struct mfn_range){ mfn_make(at), mfn_make(at + CHUNK) }, f, NULL), FS_OK);
        for (uint64_t i = 0; i < CHUNK; i++) {
            owned += f[i].owner == HV_FRAME_DOMAIN;
        }
    }
    double surveyed = seconds();
    assert_int_equal(owned, 8 * GIB_PAGES - 0x60 - 0x4000 + 2);     /* the legacy hole, the device hole, the rings */
    assert_int_equal(emb_guest_superpages(m, domid), 8 * GIB_PAGES / 512 - 1 - 0x4000 / 512);
    print_message("1 TiB created in %.3f s, a guest of 8 GiB in %.2f s, 64 GiB surveyed in %.2f s\n", created - start, filled - created, surveyed - filled);
    assert_true(created - start < 2.0);
    assert_true(surveyed - filled < 60.0);
    free(f);
    be->ops->close(be);
    emb_machine_destroy(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_tebibyte) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
