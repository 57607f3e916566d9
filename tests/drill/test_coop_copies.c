/*
 * test_coop_copies.c - what goes wrong while a guest moves its own pages: --verify finds each wrong copy before anybody can use it, and the page keeps
 * its frame; a guest that cannot be asked is not moved.
 *
 * Owns: the hypercall that damages: after a MMUEXT_COPY_PAGE it changes one byte of the new frame.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>
#include <xen/xen.h>
#include "coop_world.h"
#include "../../hv/embedded/emb_priv.h"

static struct damage {
    struct emb_machine *m;
    long (*hypercall)(void *ctx, uint32_t vcpu, unsigned nr, const uint64_t args[5]);
    uint64_t every, done;                       /* copies of every n-th machine frame are damaged, each time; 0: none */
} damage;

static long damaging(void *ctx, uint32_t vcpu, unsigned nr, const uint64_t args[5])
{
    long rc = damage.hypercall(ctx, vcpu, nr, args);
    const struct mmuext_op *ops = nr == __HYPERVISOR_mmuext_op ? (const struct mmuext_op *)(uintptr_t)args[0] : NULL;
    for (uint64_t i = 0; ops != NULL && rc == 0 && i < args[1]; i++) {
        if (ops[i].cmd == MMUEXT_COPY_PAGE && damage.every != 0 && ops[i].arg2.src_mfn % damage.every == 0) {
            uint8_t *byte = emb_bytes(damage.m, ops[i].arg1.mfn) + ++damage.done * 1543 % FS_PAGE_BYTES;
            *byte = (uint8_t)(*byte ^ 1u << damage.done % 8);
        }
    }
    return rc;
}

static void begin(struct world *w, uint64_t seed, uint64_t every)
{
    world_make(w, seed, 1, SMALL_PAGES);
    struct guest_host *host = &coop_guest_kernel(w->c)->machine.host;
    damage = (struct damage){ .m = w->m, .hypercall = host->hypercall, .every = every };
    host->hypercall = damaging;
}

/* Pages of every kind, tables among them: what was damaged stays and has its bytes, the rest is gone; the next try moves it. */
static void each_is_found(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct world w;
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        uint64_t held, left;
        begin(&w, seed, 7 + seed);
        assert_int_equal(world_evacuate(&w, "NODE1", NULL, &r, &err), FS_PARTIAL);
        left = emb_guest_frames_in(w.m, coop_guest_domid(w.c), emb_node_range(w.m, 1), &held);
        print_message("seed %llu: %llu copies damaged, %llu frames stay, %llu moved\n", (unsigned long long)seed, (unsigned long long)damage.done,
                      (unsigned long long)left, (unsigned long long)r.frames_moved);
        assert_true(left > 10 && left <= damage.done);          /* some of them were tried more than once */
        assert_int_equal(r.frames_moved + left, SMALL_PAGES);
        assert_true(r.blocker_count > left);                    /* each with a reason; and Xen's own */
        hv_report_free(&r);
        damage.every = 0;
        world_sane(&w, "copies damaged", damage.done);
        struct hv hv = { .be = emb_backend(w.m), .state_dir = w.dir };
        uint64_t pages;
        assert_int_equal(hv_online(&hv, "NODE1", &pages, &err), FS_OK);
        hv.be->ops->close(hv.be);
        fs_status_t s = world_evacuate(&w, "NODE1", NULL, &r, &err);
        assert_true(s == FS_OK || s == FS_PARTIAL);
        assert_int_equal(emb_guest_frames_in(w.m, coop_guest_domid(w.c), emb_node_range(w.m, 1), &held), 0);
        hv_report_free(&r);
        world_sane(&w, "moved then", 0);
        world_end(&w);
    }
}

/* Who cannot be asked is not moved by guesswork: a suspend would move what devices have. */
static void no_answer_no_plan(void **state)
{
    (void)state;
    for (uint32_t times = 2; times <= 3; times++) {
        struct world w;
        struct hv_report r = { 0 };
        struct fs_error err = { "" };
        uint64_t held;
        world_make(&w, 4, 1, SMALL_PAGES);
        const struct emb_fault_plan plan = { .fail_call = 1, .fail_times = times, .only_op = true, .op = EMB_OP_coop_find };
        emb_fault_arm(w.m, &plan);
        fs_status_t s = world_evacuate(&w, "NODE1", NULL, &r, &err);
        emb_fault_arm(w.m, NULL);
        if (times == 3) {
            assert_int_equal(s, FS_IO);
            assert_non_null(strstr(err.text, "coop"));
            assert_int_equal(emb_guest_frames_in(w.m, coop_guest_domid(w.c), emb_node_range(w.m, 1), &held), SMALL_PAGES);
        } else {
            assert_true(s == FS_OK || s == FS_PARTIAL);
            assert_int_equal(r.domains[0].plan.mover, HV_MOVER_COOP);
        }
        hv_report_free(&r);
        world_sane(&w, "no answer", times);
        world_end(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(each_is_found), cmocka_unit_test(no_answer_no_plan) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
