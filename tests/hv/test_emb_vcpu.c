/*
 * test_emb_vcpu.c - vcpu_op of core domains: bringing vCPUs up and down, runstates, timers.
 *
 * The machine's clock is virtual, so every time is exact; one test has a thread and real time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifndef __XEN_TOOLS__
#define __XEN_TOOLS__           /* the newest interface version */
#endif
#include <xen/xen.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/event_channel.h>

#include "embedded/core.h"

#define PAGES 512u
#define MS 1000000ull

struct world {
    struct emb_machine *m;
    struct hv_backend *be;
    uint16_t domid;
    struct emb_core_boot boot;
    uint64_t *p2m;
    shared_info_t *shared;
};

static int set_up(void **state, bool virtual_clock)
{
    struct world *w = calloc(1, sizeof(*w));
    struct emb_config c = { .nodes = { { 4096, 0 } }, .node_count = 1, .seed = 3, .virtual_clock = virtual_clock };
    struct emb_core_config g = { .name = "core", .pages = PAGES, .vcpus = 3 };
    w->m = emb_machine_create(&c);
    assert_int_equal(emb_core_create(w->m, &g, &w->domid), 0);
    assert_int_equal(emb_core_boot(w->m, w->domid, &w->boot), 0);
    w->p2m = (uint64_t *)(void *)(w->boot.direct + w->boot.p2m_first * FS_PAGE_BYTES);
    w->shared = emb_core_shared(w->m, w->domid);
    w->be = emb_backend(w->m);
    *state = w;
    return 0;
}

static int setup(void **state)
{
    return set_up(state, true);
}

static int setup_real(void **state)
{
    return set_up(state, false);
}

static int teardown(void **state)
{
    struct world *w = *state;
    uint64_t faults = emb_fsck(w->m, stderr);
    w->be->ops->close(w->be);
    assert_int_equal(emb_domain_destroy(w->m, w->domid), 0);
    emb_machine_destroy(w->m);
    free(w);
    return faults ? -1 : 0;
}

static long op(struct world *w, uint32_t by, unsigned cmd, uint64_t vcpu, const void *arg)
{
    uint64_t args[5] = { cmd, vcpu, (uint64_t)(uintptr_t)arg, 0, 0 };
    return emb_hypercall(w->m, w->domid, by, __HYPERVISOR_vcpu_op, args);
}

static long initialise(struct world *w, uint32_t vcpu, uint64_t root_pfn, bool online)
{
    struct vcpu_guest_context *c = calloc(1, sizeof(*c));
    c->ctrlreg[3] = w->p2m[root_pfn] << 12;
    c->flags = online ? VGCF_online : 0;
    long rc = op(w, 0, VCPUOP_initialise, vcpu, c);
    free(c);
    return rc;
}

/* ---- up and down --------------------------------------------------------- */

static void vcpus_come_and_go(void **state)
{
    struct world *w = *state;
    struct hv_domain d;
    assert_int_equal(op(w, 0, VCPUOP_is_up, 0, NULL), 1);
    assert_int_equal(op(w, 0, VCPUOP_is_up, 1, NULL), 0);
    assert_int_equal(op(w, 0, VCPUOP_is_up, 3, NULL), -ENOENT);
    assert_int_equal(op(w, 0, VCPUOP_is_up, 1ull << 32, NULL), -ENOENT);
    assert_int_equal(op(w, 0, VCPUOP_up, 1, NULL), -EINVAL);                /* no state yet */
    assert_int_equal(op(w, 0, VCPUOP_initialise, 1, NULL), -EFAULT);
    assert_int_equal(initialise(w, 1, w->boot.start_info, false), -EINVAL); /* no L4 */
    assert_int_equal(initialise(w, 1, w->boot.l4, false), 0);
    assert_int_equal(initialise(w, 1, w->boot.l4, false), -EEXIST);
    assert_int_equal(op(w, 0, VCPUOP_is_up, 1, NULL), 0);
    assert_int_equal(op(w, 0, VCPUOP_up, 1, NULL), 0);
    assert_int_equal(op(w, 0, VCPUOP_is_up, 1, NULL), 1);
    assert_int_equal(initialise(w, 2, w->boot.l4, true), 0);                /* at once */
    assert_int_equal(op(w, 0, VCPUOP_is_up, 2, NULL), 1);
    assert_int_equal(op(w, 0, VCPUOP_down, 2, NULL), 0);
    assert_int_equal(op(w, 0, VCPUOP_down, 0, NULL), 0);
    assert_int_equal(w->be->ops->domain(w->be, w->domid, &d, NULL), FS_OK);
    assert_false(d.shutdown);
    assert_int_equal(op(w, 1, VCPUOP_down, 1, NULL), 0);                    /* the last one */
    assert_int_equal(w->be->ops->domain(w->be, w->domid, &d, NULL), FS_OK);
    assert_true(d.shutdown && d.shutdown_reason == SHUTDOWN_poweroff);
    assert_int_equal(op(w, 0, VCPUOP_send_nmi, 1, NULL), -ENOSYS);
}

/* ---- runstates ----------------------------------------------------------- */

static struct vcpu_runstate_info runstate(struct world *w, uint32_t vcpu)
{
    struct vcpu_runstate_info r;
    memset(&r, 0xff, sizeof(r));
    assert_int_equal(op(w, 0, VCPUOP_get_runstate_info, vcpu, &r), 0);
    return r;
}

static void runstates_add_up(void **state)
{
    struct world *w = *state;
    uint64_t born = emb_core_time_ns(w->m);
    emb_core_advance(w->m, 5 * MS);
    struct vcpu_runstate_info r = runstate(w, 0);
    assert_int_equal(r.state, RUNSTATE_running);
    assert_true(r.time[RUNSTATE_running] == 5 * MS && r.state_entry_time == born);
    r = runstate(w, 1);
    assert_int_equal(r.state, RUNSTATE_offline);
    assert_true(r.time[RUNSTATE_offline] == 5 * MS);
    assert_int_equal(initialise(w, 1, w->boot.l4, true), 0);
    emb_core_advance(w->m, 2 * MS);
    r = runstate(w, 1);
    assert_int_equal(r.state, RUNSTATE_running);
    assert_true(r.time[RUNSTATE_offline] == 5 * MS && r.time[RUNSTATE_running] == 2 * MS && r.state_entry_time == born + 5 * MS);
    /* Blocked: without a thread it is so until its next call, or an event. */
    uint64_t args[5] = { SCHEDOP_block };
    assert_int_equal(emb_hypercall(w->m, w->domid, 1, __HYPERVISOR_sched_op, args), 0);
    emb_core_advance(w->m, 3 * MS);
    assert_int_equal(runstate(w, 1).state, RUNSTATE_blocked);
    assert_int_equal(op(w, 1, VCPUOP_is_up, 1, NULL), 1);
    /* Paused by somebody: the pause itself costs time. */
    uint64_t before = emb_core_time_ns(w->m);
    assert_int_equal(w->be->ops->pause(w->be, w->domid, NULL), FS_OK);
    emb_core_advance(w->m, 4 * MS);
    assert_int_equal(runstate(w, 1).state, RUNSTATE_offline);
    assert_int_equal(w->be->ops->unpause(w->be, w->domid, NULL), FS_OK);
    r = runstate(w, 1);
    assert_int_equal(r.state, RUNSTATE_running);
    assert_true(r.time[RUNSTATE_blocked] == 3 * MS);
    assert_true(r.time[RUNSTATE_offline] >= 9 * MS && r.time[RUNSTATE_offline] <= 5 * MS + emb_core_time_ns(w->m) - before);
    assert_true(r.time[RUNSTATE_runnable] == 0);
    uint64_t sum = r.time[0] + r.time[1] + r.time[2] + r.time[3];
    assert_true(sum == emb_core_time_ns(w->m) - born);
    assert_int_equal(op(w, 0, VCPUOP_get_runstate_info, 0, NULL), -EFAULT);
}

static void a_runstate_area_is_written_when_the_vcpu_runs_again(void **state)
{
    struct world *w = *state;
    uint64_t pfn = w->boot.first_free + 4, born = emb_core_time_ns(w->m);
    volatile struct vcpu_runstate_info *r = (volatile void *)(w->boot.direct + pfn * FS_PAGE_BYTES + 4080);     /* over the end of a page */
    struct vcpu_runstate_info elsewhere;
    struct vcpu_register_runstate_memory_area a = { .addr.v = &elsewhere };
    assert_int_equal(op(w, 0, VCPUOP_register_runstate_memory_area, 0, &a), -EFAULT);      /* not the guest's memory */
    a.addr.p = (uint64_t)(uintptr_t)w->boot.direct + PAGES * FS_PAGE_BYTES - 8;
    assert_int_equal(op(w, 0, VCPUOP_register_runstate_memory_area, 0, &a), -EFAULT);
    a.addr.p = UINT64_MAX - 8;
    assert_int_equal(op(w, 0, VCPUOP_register_runstate_memory_area, 0, &a), -EFAULT);
    assert_int_equal(op(w, 0, VCPUOP_register_runstate_memory_area, 0, NULL), -EFAULT);
    emb_core_advance(w->m, MS);
    a.addr.p = (uint64_t)(uintptr_t)r;
    assert_int_equal(op(w, 0, VCPUOP_register_runstate_memory_area, 0, &a), 0);
    assert_int_equal(r->state, RUNSTATE_running);
    assert_true(r->state_entry_time == born && r->time[RUNSTATE_running] == MS);
    assert_int_equal(w->be->ops->pause(w->be, w->domid, NULL), FS_OK);
    assert_true(r->state_entry_time == born);                                               /* nothing is written while it stands */
    emb_core_advance(w->m, 7 * MS);
    assert_int_equal(w->be->ops->unpause(w->be, w->domid, NULL), FS_OK);
    assert_int_equal(r->state, RUNSTATE_running);
    assert_true(r->time[RUNSTATE_offline] >= 7 * MS && r->state_entry_time > born + 8 * MS);
    uint64_t args[5] = { (uint64_t)(uintptr_t)w->boot.direct + pfn * FS_PAGE_BYTES, w->p2m[pfn] << 12 | 1, UVMF_INVLPG };
    uint64_t entry = r->state_entry_time;
    assert_int_equal(emb_hypercall(w->m, w->domid, 0, __HYPERVISOR_update_va_mapping, args), 0);        /* read-only now */
    assert_int_equal(w->be->ops->pause(w->be, w->domid, NULL), FS_OK);
    assert_int_equal(w->be->ops->unpause(w->be, w->domid, NULL), FS_OK);
    assert_true(r->state_entry_time == entry);
    a.addr.p = 0;
    args[1] |= 2;
    assert_int_equal(op(w, 0, VCPUOP_register_runstate_memory_area, 0, &a), 0);             /* no more */
    assert_int_equal(emb_hypercall(w->m, w->domid, 0, __HYPERVISOR_update_va_mapping, args), 0);
    assert_int_equal(w->be->ops->pause(w->be, w->domid, NULL), FS_OK);
    assert_int_equal(w->be->ops->unpause(w->be, w->domid, NULL), FS_OK);
    assert_true(r->state_entry_time == entry);
}

/* ---- timers -------------------------------------------------------------- */

static uint32_t bind_timer(struct world *w, uint32_t vcpu)
{
    struct evtchn_bind_virq v = { .virq = VIRQ_TIMER, .vcpu = vcpu };
    uint64_t args[5] = { EVTCHNOP_bind_virq, (uint64_t)(uintptr_t)&v };
    assert_int_equal(emb_hypercall(w->m, w->domid, 0, __HYPERVISOR_event_channel_op, args), 0);
    struct evtchn_bind_vcpu b = { .port = v.port, .vcpu = 0 };
    args[0] = EVTCHNOP_bind_vcpu;
    args[1] = (uint64_t)(uintptr_t)&b;
    assert_int_equal(emb_hypercall(w->m, w->domid, 0, __HYPERVISOR_event_channel_op, args), -EINVAL);     /* it is that vCPU's */
    return v.port;
}

static bool took(struct world *w, uint32_t port)
{
    bool was = w->shared->evtchn_pending[0] >> port & 1;
    w->shared->evtchn_pending[0] = 0;
    return was;
}

static void a_single_shot_fires_once(void **state)
{
    struct world *w = *state;
    uint32_t port = bind_timer(w, 0), other = bind_timer(w, 1);
    struct vcpu_set_singleshot_timer s = { .timeout_abs_ns = emb_core_time_ns(w->m) + 10 * MS };
    assert_int_equal(op(w, 0, VCPUOP_set_singleshot_timer, 1, &s), -EINVAL);        /* its own only */
    assert_int_equal(op(w, 0, VCPUOP_stop_singleshot_timer, 1, NULL), -EINVAL);
    assert_int_equal(op(w, 0, VCPUOP_set_singleshot_timer, 0, NULL), -EFAULT);
    assert_int_equal(op(w, 0, VCPUOP_set_singleshot_timer, 0, &s), 0);
    emb_core_advance(w->m, 10 * MS - 1);
    emb_core_tick(w->m, w->domid);
    assert_false(took(w, port));
    emb_core_advance(w->m, 1);
    assert_false(w->shared->evtchn_pending[0] >> port & 1);                         /* nobody has looked */
    emb_core_tick(w->m, w->domid);
    assert_int_equal(w->shared->vcpu_info[0].evtchn_upcall_pending, 1);
    assert_false(w->shared->evtchn_pending[0] >> other & 1);
    assert_true(took(w, port));
    emb_core_advance(w->m, 100 * MS);
    emb_core_tick(w->m, w->domid);
    assert_false(took(w, port));
    s.flags = VCPU_SSHOTTMR_future;
    assert_int_equal(op(w, 0, VCPUOP_set_singleshot_timer, 0, &s), 0);              /* past: at once, whatever the flag */
    assert_true(took(w, port));
    s.timeout_abs_ns = emb_core_time_ns(w->m) + MS;
    assert_int_equal(op(w, 0, VCPUOP_set_singleshot_timer, 0, &s), 0);
    s.timeout_abs_ns += 4 * MS;
    assert_int_equal(op(w, 0, VCPUOP_set_singleshot_timer, 0, &s), 0);              /* takes the other's place */
    emb_core_advance(w->m, 2 * MS);
    emb_core_tick(w->m, w->domid);
    assert_false(took(w, port));
    assert_int_equal(op(w, 0, VCPUOP_stop_singleshot_timer, 0, NULL), 0);
    emb_core_advance(w->m, 10 * MS);
    emb_core_tick(w->m, w->domid);
    assert_false(took(w, port));
}

static void a_periodic_timer_goes_on(void **state)
{
    struct world *w = *state;
    uint32_t port = bind_timer(w, 1);
    struct vcpu_set_periodic_timer s = { .period_ns = MS - 1 };
    assert_int_equal(op(w, 0, VCPUOP_set_periodic_timer, 1, &s), -EINVAL);
    s.period_ns = (UINT64_MAX >> 2) + 1;
    assert_int_equal(op(w, 0, VCPUOP_set_periodic_timer, 1, &s), -EINVAL);
    s.period_ns = 10 * MS;
    assert_int_equal(op(w, 0, VCPUOP_set_periodic_timer, 1, &s), 0);
    for (int i = 0; i < 3; i++) {
        emb_core_advance(w->m, 10 * MS);
        emb_core_tick(w->m, w->domid);
        assert_true(took(w, port));
        emb_core_tick(w->m, w->domid);
        assert_false(took(w, port));
    }
    assert_int_equal(op(w, 0, VCPUOP_stop_periodic_timer, 1, NULL), 0);
    emb_core_advance(w->m, 100 * MS);
    emb_core_tick(w->m, w->domid);
    assert_false(took(w, port));
}

/* A thread that has nothing to do until its timer. */
struct sleeper {
    struct world *w;
    uint32_t port;
    uint64_t asked, woken;
    long rc;
};

static void sleeper_main(void *arg)
{
    struct sleeper *s = arg;
    uint64_t args[5] = { SCHEDOP_block };
    s->asked = emb_core_time_ns(s->w->m) + 5 * MS;
    struct vcpu_set_singleshot_timer t = { .timeout_abs_ns = s->asked };
    s->rc = op(s->w, 0, VCPUOP_set_singleshot_timer, 0, &t);
    (void)emb_hypercall(s->w->m, s->w->domid, 0, __HYPERVISOR_sched_op, args);
    s->woken = emb_core_time_ns(s->w->m);
}

static void *sleeper_thread(void *arg)
{
    struct sleeper *s = arg;
    (void)emb_vcpu_run(s->w->m, s->w->domid, 0, sleeper_main, s);
    return NULL;
}

static void a_timer_wakes_a_blocked_vcpu(void **state)
{
    struct world *w = *state;
    struct sleeper s = { .w = w, .port = bind_timer(w, 0) };
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, sleeper_thread, &s), 0);
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_int_equal(s.rc, 0);
    assert_true(s.woken >= s.asked);
    assert_true(took(w, s.port));
    struct vcpu_runstate_info r = runstate(w, 0);
    assert_int_equal(r.state, RUNSTATE_running);
    assert_true(r.time[RUNSTATE_blocked] > 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(vcpus_come_and_go), T(runstates_add_up), T(a_runstate_area_is_written_when_the_vcpu_runs_again), T(a_single_shot_fires_once),
        T(a_periodic_timer_goes_on), cmocka_unit_test_setup_teardown(a_timer_wakes_a_blocked_vcpu, setup_real, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
