/*
 * test_emb_core.c - PV domains whose kernel is code of this program: hypercalls, direct map, TLB, vCPU threads.
 *
 * The domain's memory is driven as a guest kernel would: by hypercalls with Xen's public structures and by
 * its direct map.  The PV mover then moves it like any other guest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef __XEN_TOOLS__
#define __XEN_TOOLS__           /* the newest interface version */
#endif
#include <xen/xen.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/event_channel.h>

#include "embedded/core.h"
#include "hv_priv.h"
#include "range.h"

#define PAGES 2048u
#define P 1ull
#define RW 2ull
#define US 4ull

struct world {
    struct emb_machine *m;
    struct hv_backend *be;
    uint16_t domid;
    struct emb_core_boot boot;
    uint64_t *p2m;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct emb_config c = { .nodes = { { 8192, 0 }, { 8192, 0 } }, .node_count = 2, .seed = 1 };
    struct emb_core_config g = { .name = "core", .pages = PAGES, .vcpus = 2, .node = 1 };
    w->m = emb_machine_create(&c);
    assert_int_equal(emb_core_create(w->m, &g, &w->domid), 0);
    assert_int_equal(emb_core_boot(w->m, w->domid, &w->boot), 0);
    w->p2m = (uint64_t *)(void *)(w->boot.direct + w->boot.p2m_first * FS_PAGE_BYTES);
    w->be = emb_backend(w->m);
    *state = w;
    return 0;
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

static uint8_t *page(struct world *w, uint64_t pfn)
{
    return w->boot.direct + pfn * FS_PAGE_BYTES;
}

static long hc(struct world *w, uint32_t vcpu, unsigned nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t args[5] = { a, b, c, d, 0 };
    return emb_hypercall(w->m, w->domid, vcpu, nr, args);
}

static uint64_t ptr(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

static long mmuext(struct world *w, unsigned cmd, uint64_t arg)
{
    struct mmuext_op op = { .cmd = cmd };
    op.arg1.mfn = arg;
    return hc(w, 0, __HYPERVISOR_mmuext_op, ptr(&op), 1, 0, DOMID_SELF);
}

static long update_va(struct world *w, uint64_t va, uint64_t val, uint64_t flags)
{
    return hc(w, 0, __HYPERVISOR_update_va_mapping, va, val, flags, 0);
}

static long mmu_update(struct world *w, uint64_t at, uint64_t val)
{
    struct mmu_update u = { at, val };
    return hc(w, 0, __HYPERVISOR_mmu_update, ptr(&u), 1, 0, DOMID_SELF);
}

/* Does touching that byte fault? */
static sigjmp_buf fault_jump;
static void on_fault(int sig)
{
    (void)sig;
    siglongjmp(fault_jump, 1);
}

static bool faults(volatile uint8_t *p, bool write)
{
    struct sigaction sa = { .sa_handler = on_fault }, old_segv, old_bus;
    bool faulted = true;
    (void)sigaction(SIGSEGV, &sa, &old_segv);
    (void)sigaction(SIGBUS, &sa, &old_bus);
    if (sigsetjmp(fault_jump, 1) == 0) {
        uint8_t v = *p;
        if (write) {
            *p = v;
        }
        faulted = false;
    }
    (void)sigaction(SIGSEGV, &old_segv, NULL);
    (void)sigaction(SIGBUS, &old_bus, NULL);
    return faulted;
}

/* ---- the direct map ------------------------------------------------------ */

static void boots_with_a_direct_map(void **state)
{
    struct world *w = *state;
    const start_info_t *si = (const start_info_t *)(const void *)page(w, w->boot.start_info);
    assert_string_equal(si->magic, "xen-3.0-x86_64");
    assert_int_equal(si->nr_pages, PAGES);
    assert_false(faults(page(w, w->boot.first_free), true));
    assert_false(faults(page(w, w->boot.l4), false));
    assert_true(faults(page(w, w->boot.l4), true));         /* tables are read-only in it */
    for (uint64_t pfn = 0; pfn < PAGES; pfn++) {
        mfn_t m = mfn_make(w->p2m[pfn]);
        uint64_t gfn;
        assert_int_equal(w->be->ops->m2p(w->be, &m, 1, &gfn, NULL), FS_OK);
        assert_int_equal(gfn, pfn);
    }
    assert_int_equal(hc(w, 0, 9999, 0, 0, 0, 0), -ENOSYS);
    assert_int_equal(hc(w, 9, __HYPERVISOR_sched_op, 0, 0, 0, 0), -ESRCH);
}

static void the_direct_map_follows_its_entries(void **state)
{
    struct world *w = *state;
    uint64_t a = w->boot.first_free, b = a + 1, fa = w->p2m[a], fb = w->p2m[b];
    memset(page(w, a), 0xaa, FS_PAGE_BYTES);
    memset(page(w, b), 0xbb, FS_PAGE_BYTES);
    assert_int_equal(update_va(w, ptr(page(w, a)), fb << 12 | P | RW, UVMF_NONE), 0);
    assert_int_equal(page(w, a)[5], 0xbb);
    assert_int_equal(update_va(w, ptr(page(w, a)), fa << 12 | P, UVMF_NONE), 0);
    assert_int_equal(page(w, a)[5], 0xaa);
    assert_true(faults(page(w, a), true));
    assert_int_equal(update_va(w, ptr(page(w, a)), 0, UVMF_NONE), 0);
    assert_true(faults(page(w, a), false));
    assert_int_equal(update_va(w, ptr(page(w, a)), fa << 12 | P | RW, UVMF_NONE), 0);
    assert_false(faults(page(w, a), true));
    assert_int_equal(update_va(w, ptr(page(w, a)), w->p2m[w->boot.l4] << 12 | P | RW, UVMF_NONE), -EBUSY);
    assert_int_equal(update_va(w, 0x1000, fa << 12 | P | RW, UVMF_NONE), -EINVAL);       /* no table there */
}

/* ---- memory_op ----------------------------------------------------------- */

static void gives_and_takes_memory(void **state)
{
    struct world *w = *state;
    uint64_t pfn = w->boot.first_free + 10, list[1] = { w->p2m[pfn] };
    struct xen_memory_reservation r = { .nr_extents = 1, .domid = DOMID_SELF };
    set_xen_guest_handle(r.extent_start, list);
    struct xen_memory_domain self = { .domid = DOMID_SELF };
    assert_int_equal(hc(w, 0, __HYPERVISOR_memory_op, XENMEM_current_reservation, ptr(&self), 0, 0), PAGES);
    /* Still mapped: it leaves the domain only when the last entry goes. */
    assert_int_equal(hc(w, 0, __HYPERVISOR_memory_op, XENMEM_decrease_reservation, ptr(&r), 0, 0), 1);
    assert_int_equal(hc(w, 0, __HYPERVISOR_memory_op, XENMEM_current_reservation, ptr(&self), 0, 0), PAGES);
    assert_int_equal(update_va(w, ptr(page(w, pfn)), 0, UVMF_NONE), 0);
    assert_int_equal(hc(w, 0, __HYPERVISOR_memory_op, XENMEM_current_reservation, ptr(&self), 0, 0), PAGES - 1);
    list[0] = pfn;
    assert_int_equal(hc(w, 0, __HYPERVISOR_memory_op, XENMEM_populate_physmap, ptr(&r), 0, 0), 1);
    w->p2m[pfn] = list[0];
    assert_int_equal(update_va(w, ptr(page(w, pfn)), list[0] << 12 | P | RW, UVMF_NONE), 0);
    memset(page(w, pfn), 1, FS_PAGE_BYTES);
    list[0] = pfn;
    assert_int_equal(hc(w, 0, __HYPERVISOR_memory_op, XENMEM_populate_physmap, ptr(&r), 0, 0), 0);  /* the limit */
    assert_int_equal(hc(w, 0, __HYPERVISOR_memory_op, XENMEM_populate_physmap, 8, 0, 0), -EFAULT);
    r.domid = 77;
    assert_int_equal(hc(w, 0, __HYPERVISOR_memory_op, XENMEM_decrease_reservation, ptr(&r), 0, 0), -ESRCH);
}

static void exchanges_memory(void **state)
{
    struct world *w = *state;
    enum { N = 512 };
    static uint64_t in[N], out[1];
    uint64_t first = w->boot.first_free + 20;
    for (uint64_t i = 0; i < N; i++) {
        in[i] = w->p2m[first + i];
    }
    out[0] = first;
    struct xen_memory_exchange x = { .in = { .nr_extents = N, .domid = DOMID_SELF }, .out = { .nr_extents = 1, .extent_order = 9, .domid = DOMID_SELF } };
    set_xen_guest_handle(x.in.extent_start, in);
    set_xen_guest_handle(x.out.extent_start, out);
    assert_int_equal(hc(w, 0, __HYPERVISOR_memory_op, XENMEM_exchange, ptr(&x), 0, 0), -EINVAL);    /* mapped: not exclusively owned */
    assert_int_equal(x.nr_exchanged, 0);
    for (uint64_t i = 0; i < N; i++) {
        assert_int_equal(update_va(w, ptr(page(w, first + i)), 0, UVMF_NONE), 0);
    }
    x.out.mem_flags = XENMEMF_address_bits(13);
    assert_int_equal(hc(w, 0, __HYPERVISOR_memory_op, XENMEM_exchange, ptr(&x), 0, 0), -ENOMEM);    /* the probe's answer */
    x.out.mem_flags = 0;
    assert_int_equal(hc(w, 0, __HYPERVISOR_memory_op, XENMEM_exchange, ptr(&x), 0, 0), 0);
    assert_int_equal(x.nr_exchanged, N);
    assert_int_equal(out[0] % N, 0);
    for (uint64_t i = 0; i < N; i++) {
        w->p2m[first + i] = out[0] + i;
        assert_int_equal(update_va(w, ptr(page(w, first + i)), (out[0] + i) << 12 | P | RW, UVMF_NONE), 0);
    }
    memset(page(w, first), 3, N * FS_PAGE_BYTES);
}

/* ---- user space and TLBs ------------------------------------------------- */

/* A process: its own L4 with one page at va.  Returns the pfn of the L4; the pfns used follow it. */
static uint64_t make_process(struct world *w, uint64_t va, uint64_t data_pfn)
{
    uint64_t l4 = w->boot.first_free + 700;
    for (uint64_t i = 0; i < 4; i++) {
        memset(page(w, l4 + i), 0, FS_PAGE_BYTES);
    }
    for (unsigned level = 4; level >= 2; level--) {
        ((uint64_t *)(void *)page(w, l4 + 4 - level))[va >> (12 + 9 * (level - 1)) & 511] = w->p2m[l4 + 5 - level] << 12 | P | RW | US;
    }
    ((uint64_t *)(void *)page(w, l4 + 3))[va >> 12 & 511] = w->p2m[data_pfn] << 12 | P | RW | US;
    for (uint64_t i = 0; i < 4; i++) {
        assert_int_equal(update_va(w, ptr(page(w, l4 + i)), w->p2m[l4 + i] << 12 | P, UVMF_NONE), 0);
    }
    assert_int_equal(mmuext(w, MMUEXT_PIN_L4_TABLE, w->p2m[l4]), 0);
    assert_int_equal(mmuext(w, MMUEXT_NEW_USER_BASEPTR, w->p2m[l4]), 0);
    return l4;
}

static void a_forgotten_flush_shows(void **state)
{
    struct world *w = *state;
    uint64_t va = 0x400000, a = w->boot.first_free, b = a + 1, fault;
    uint8_t byte = 0;
    memset(page(w, a), 0xaa, FS_PAGE_BYTES);
    memset(page(w, b), 0xbb, FS_PAGE_BYTES);
    uint64_t l4 = make_process(w, va, a), slot = (w->p2m[l4 + 3] << 12) + (va >> 12 & 511) * 8;
    assert_int_equal(emb_vcpu_read(w->m, w->domid, 0, true, va, &byte, 1, &fault), 0);
    assert_int_equal(byte, 0xaa);
    assert_int_equal(emb_vcpu_read(w->m, w->domid, 0, true, va + 0x5000, &byte, 1, &fault), -EFAULT);
    assert_true(fault == va + 0x5000);
    assert_int_equal(mmu_update(w, slot, w->p2m[b] << 12 | P | RW | US), 0);
    assert_int_equal(emb_vcpu_read(w->m, w->domid, 0, true, va, &byte, 1, &fault), 0);
    assert_int_equal(byte, 0xaa);                           /* stale: nobody flushed */
    assert_int_equal(mmuext(w, MMUEXT_INVLPG_LOCAL, va), 0);
    assert_int_equal(emb_vcpu_read(w->m, w->domid, 0, true, va, &byte, 1, &fault), 0);
    assert_int_equal(byte, 0xbb);
    /* Read-only now; the TLB that has it writable goes on writing until it is flushed. */
    byte = 0xcc;
    assert_int_equal(emb_vcpu_write(w->m, w->domid, 0, true, va, &byte, 1, &fault), 0);
    assert_int_equal(mmu_update(w, slot, w->p2m[b] << 12 | P | US), 0);
    assert_int_equal(emb_vcpu_write(w->m, w->domid, 0, true, va, &byte, 1, &fault), 0);
    assert_int_equal(mmuext(w, MMUEXT_TLB_FLUSH_ALL, 0), 0);
    assert_int_equal(emb_vcpu_write(w->m, w->domid, 0, true, va, &byte, 1, &fault), -EFAULT);
    assert_int_equal(page(w, b)[0], 0xcc);
    assert_int_equal(emb_vcpu_read(w->m, w->domid, 0, true, ptr(page(w, a)), &byte, 1, &fault), -EFAULT);   /* the kernel's */
}

static void a_stale_tlb_reaches_no_strangers_frame(void **state)
{
    struct world *w = *state;
    uint64_t va = 0x400000, a = w->boot.first_free, fault, list[1] = { w->p2m[a] };
    uint8_t byte = 0x11;
    uint64_t l4 = make_process(w, va, a), slot = (w->p2m[l4 + 3] << 12) + (va >> 12 & 511) * 8;
    assert_int_equal(emb_vcpu_write(w->m, w->domid, 0, true, va, &byte, 1, &fault), 0);
    assert_int_equal(mmu_update(w, slot, 0), 0);            /* and no flush */
    assert_int_equal(update_va(w, ptr(page(w, a)), 0, UVMF_NONE), 0);
    struct xen_memory_reservation r = { .nr_extents = 1, .domid = DOMID_SELF };
    set_xen_guest_handle(r.extent_start, list);
    assert_int_equal(hc(w, 0, __HYPERVISOR_memory_op, XENMEM_decrease_reservation, ptr(&r), 0, 0), 1);
    struct emb_domain_config other = { .kind = HV_DOMAIN_PV, .name = "other", .pages = 4096, .vcpus = 1, .seed = 3, .node = 1 };
    uint16_t stranger;
    assert_int_equal(emb_domain_create(w->m, &other, &stranger), 0);       /* takes the freed frame first */
    assert_int_equal(emb_vcpu_write(w->m, w->domid, 0, true, va, &byte, 1, &fault), -EFAULT);
    assert_int_equal(emb_guest_check(w->m, stranger, stderr), 0);
    assert_int_equal(emb_domain_destroy(w->m, stranger), 0);
    list[0] = a;
    assert_int_equal(hc(w, 0, __HYPERVISOR_memory_op, XENMEM_populate_physmap, ptr(&r), 0, 0), 1);
    w->p2m[a] = list[0];
}

/* ---- events and vCPUs ---------------------------------------------------- */

static void events(void **state)
{
    struct world *w = *state;
    shared_info_t *s = emb_core_shared(w->m, w->domid);
    struct evtchn_alloc_unbound u = { .dom = DOMID_SELF, .remote_dom = DOMID_SELF };
    assert_int_equal(hc(w, 0, __HYPERVISOR_event_channel_op, EVTCHNOP_alloc_unbound, ptr(&u), 0, 0), 0);
    struct evtchn_bind_interdomain b = { .remote_dom = DOMID_SELF, .remote_port = u.port };
    assert_int_equal(hc(w, 0, __HYPERVISOR_event_channel_op, EVTCHNOP_bind_interdomain, ptr(&b), 0, 0), 0);
    assert_int_equal(hc(w, 0, __HYPERVISOR_event_channel_op, EVTCHNOP_bind_interdomain, ptr(&b), 0, 0), -EINVAL);   /* bound now */
    s->evtchn_pending[0] = 0;
    struct evtchn_send send = { .port = b.local_port };
    assert_int_equal(hc(w, 0, __HYPERVISOR_event_channel_op, EVTCHNOP_send, ptr(&send), 0, 0), 0);
    assert_true(s->evtchn_pending[0] == 1ull << u.port);
    assert_int_equal(s->vcpu_info[0].evtchn_upcall_pending, 1);
    struct evtchn_bind_virq v = { .virq = VIRQ_TIMER, .vcpu = 1 };
    assert_int_equal(hc(w, 0, __HYPERVISOR_event_channel_op, EVTCHNOP_bind_virq, ptr(&v), 0, 0), 0);
    assert_int_equal(hc(w, 0, __HYPERVISOR_event_channel_op, EVTCHNOP_bind_virq, ptr(&v), 0, 0), -EEXIST);
    send.port = v.port;
    assert_int_equal(hc(w, 0, __HYPERVISOR_event_channel_op, EVTCHNOP_send, ptr(&send), 0, 0), -EINVAL);
    struct evtchn_bind_ipi ipi = { .vcpu = 1 };
    assert_int_equal(hc(w, 0, __HYPERVISOR_event_channel_op, EVTCHNOP_bind_ipi, ptr(&ipi), 0, 0), 0);
    s->evtchn_mask[0] = 1ull << ipi.port;
    send.port = ipi.port;
    assert_int_equal(hc(w, 0, __HYPERVISOR_event_channel_op, EVTCHNOP_send, ptr(&send), 0, 0), 0);
    assert_int_equal(s->vcpu_info[1].evtchn_upcall_pending, 0);     /* masked */
    struct evtchn_unmask um = { .port = ipi.port };
    assert_int_equal(hc(w, 0, __HYPERVISOR_event_channel_op, EVTCHNOP_unmask, ptr(&um), 0, 0), 0);
    assert_int_equal(s->vcpu_info[1].evtchn_upcall_pending, 1);
    struct evtchn_close c = { .port = b.local_port };
    assert_int_equal(hc(w, 0, __HYPERVISOR_event_channel_op, EVTCHNOP_close, ptr(&c), 0, 0), 0);
    struct evtchn_status st = { .dom = DOMID_SELF, .port = u.port };
    assert_int_equal(hc(w, 0, __HYPERVISOR_event_channel_op, EVTCHNOP_status, ptr(&st), 0, 0), 0);
    assert_int_equal(st.status, EVTCHNSTAT_unbound);
    assert_int_equal(hc(w, 0, __HYPERVISOR_event_channel_op, EVTCHNOP_close, ptr(&c), 0, 0), -EINVAL);
}

static void a_registered_vcpu_info_is_held(void **state)
{
    struct world *w = *state;
    uint64_t pfn = w->boot.first_free + 3;
    struct vcpu_register_vcpu_info r = { .mfn = w->p2m[pfn], .offset = 60 };
    assert_int_equal(hc(w, 0, __HYPERVISOR_vcpu_op, VCPUOP_register_vcpu_info, 0, ptr(&r), 0), -ENXIO);
    r.offset = 64;
    assert_int_equal(hc(w, 0, __HYPERVISOR_vcpu_op, VCPUOP_register_vcpu_info, 0, ptr(&r), 0), 0);
    assert_int_equal(hc(w, 0, __HYPERVISOR_vcpu_op, VCPUOP_register_vcpu_info, 0, ptr(&r), 0), -EINVAL);    /* once */
    assert_int_equal(((struct vcpu_info *)(void *)(page(w, pfn) + 64))->evtchn_upcall_pending, 1);
}

/* ---- threads ------------------------------------------------------------- */

struct kernel {
    struct world *w;
    atomic_bool stop;
    atomic_ullong beats;
    uint64_t pfn;
    int rc;
    bool answers;               /* suspends when asked */
    atomic_uint suspends;
};

/* A kernel that spins on its direct map and never calls the machine, unless it answers a suspend. */
static void kernel_main(void *arg)
{
    struct kernel *k = arg;
    volatile uint64_t *word = (volatile uint64_t *)(void *)page(k->w, k->pfn);
    while (!atomic_load(&k->stop)) {
        for (int i = 0; i < 1000; i++) {
            *word = *word + 1;
        }
        atomic_fetch_add(&k->beats, 1000);
        if (*word != atomic_load(&k->beats)) {
            abort();            /* a write was lost */
        }
        if (k->answers && emb_core_wants_suspend(k->w->m, k->w->domid)) {
            struct sched_shutdown s = { .reason = SHUTDOWN_suspend };
            if (hc(k->w, 0, __HYPERVISOR_sched_op, SCHEDOP_shutdown, ptr(&s), 0, 0) == 1) {
                atomic_fetch_add(&k->suspends, 1);
            }
        }
    }
}

static void *thread_main(void *arg)
{
    struct kernel *k = arg;
    k->rc = emb_vcpu_run(k->w->m, k->w->domid, 0, kernel_main, k);
    return NULL;
}

static void wait_for_beats(struct kernel *k)
{
    uint64_t before = atomic_load(&k->beats);
    while (atomic_load(&k->beats) == before) {
        (void)nanosleep(&(struct timespec){ .tv_nsec = 100000 }, NULL);
    }
}

static void a_pause_stops_a_spinning_vcpu(void **state)
{
    struct kernel k = { .w = *state, .pfn = ((struct world *)*state)->boot.first_free };
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, thread_main, &k), 0);
    for (int i = 0; i < 20; i++) {
        wait_for_beats(&k);
        assert_int_equal(k.w->be->ops->pause(k.w->be, k.w->domid, NULL), FS_OK);
        uint64_t word = *(uint64_t *)(void *)page(k.w, k.pfn);
        (void)nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        assert_int_equal(*(uint64_t *)(void *)page(k.w, k.pfn), word);
        assert_int_equal(k.w->be->ops->unpause(k.w->be, k.w->domid, NULL), FS_OK);
    }
    wait_for_beats(&k);
    atomic_store(&k.stop, true);
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_int_equal(k.rc, 0);
}

static void a_dead_domains_vcpu_leaves(void **state)
{
    struct world *w = *state;
    struct emb_core_config g = { .name = "doomed", .pages = 512, .vcpus = 1, .node = 0 };
    struct world v = { .m = w->m, .be = w->be };
    struct kernel k = { .w = &v };
    pthread_t t;
    uint64_t before = emb_free_pages(w->m);
    assert_int_equal(emb_core_create(v.m, &g, &v.domid), 0);
    assert_int_equal(emb_core_boot(v.m, v.domid, &v.boot), 0);
    k.pfn = v.boot.first_free;
    assert_int_equal(pthread_create(&t, NULL, thread_main, &k), 0);
    wait_for_beats(&k);
    assert_int_equal(v.be->ops->pause(v.be, v.domid, NULL), FS_OK);        /* a toolstack pauses before it destroys */
    assert_int_equal(emb_domain_destroy(v.m, v.domid), 0);
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_int_equal(k.rc, -ESRCH);
    assert_int_equal(emb_free_pages(w->m), before);
}

/* ---- moved like any other guest ------------------------------------------ */

static void step(void *arg)
{
    struct kernel *k = arg;
    if (emb_core_wants_suspend(k->w->m, k->w->domid)) {
        struct sched_shutdown s = { .reason = SHUTDOWN_suspend };
        assert_int_equal(hc(k->w, 0, __HYPERVISOR_sched_op, SCHEDOP_shutdown, ptr(&s), 0, 0), 1);
    }
}

static void evacuate(struct world *w, struct hv_report *report)
{
    char dir[] = "/dev/shm/emb-core-XXXXXX", cmd[64];
    assert_non_null(mkdtemp(dir));
    struct hv hv = { .be = w->be, .state_dir = dir };
    struct hv_evacuate_options o = { .target = "NODE1", .verify = true };
    struct fs_error err = { "" };
    fs_status_t s = hv_evacuate(&hv, &o, report, &err);
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
    if (s != FS_PARTIAL || report->blocker_count != 1) {    /* shared_info stays: it is Xen's page */
        for (size_t i = 0; i < report->domain_count; i++) {
            fprintf(stderr, "domain %u: %s\n", report->domains[i].plan.domid, report->domains[i].error);
        }
        for (size_t i = 0; i < report->blocker_count && i < 10; i++) {
            fprintf(stderr, "frame %#llx stays: %s\n", (unsigned long long)report->blockers[i].frame, fs_reason_name(report->blockers[i].reason));
        }
        fail_msg("%s: %s, %zu blockers", fs_status_name(s), err.text, report->blocker_count);
    }
}

static void the_mover_moves_it(void **state)
{
    struct world *w = *state;
    struct kernel k = { .w = w };
    struct hv_report r = { 0 };
    uint64_t fault, va = 0x400000, a = w->boot.first_free;
    uint8_t byte = 0;
    for (uint64_t pfn = a; pfn < PAGES; pfn++) {
        memset(page(w, pfn), (int)pfn, FS_PAGE_BYTES);
    }
    (void)make_process(w, va, a);
    emb_core_step_with(w->m, w->domid, step, &k);
    evacuate(w, &r);
    assert_int_equal(r.frames_moved, PAGES);
    for (uint64_t pfn = a; pfn < PAGES; pfn++) {
        bool table = pfn >= a + 700 && pfn < a + 704;
        assert_true(w->p2m[pfn] < 8192);                    /* node 0 */
        assert_true(table || page(w, pfn)[pfn % 4096] == (uint8_t)pfn);
        assert_int_equal(faults(page(w, pfn), true), table);
    }
    assert_int_equal(emb_vcpu_read(w->m, w->domid, 0, true, va, &byte, 1, &fault), 0);
    assert_int_equal(byte, (uint8_t)a);
    hv_report_free(&r);
}

static void it_is_moved_while_a_thread_runs(void **state)
{
    struct world *w = *state;
    struct kernel k = { .w = w, .pfn = w->boot.first_free, .answers = true };
    struct hv_report r = { 0 };
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, thread_main, &k), 0);
    wait_for_beats(&k);
    evacuate(w, &r);
    wait_for_beats(&k);                                     /* every write counted, before and after */
    atomic_store(&k.stop, true);
    assert_int_equal(pthread_join(t, NULL), 0);
    assert_int_equal(k.rc, 0);
    assert_true(atomic_load(&k.suspends) >= 1);
    assert_int_equal(r.frames_moved, PAGES);
    assert_true(w->p2m[k.pfn] < 8192);
    hv_report_free(&r);
}

/* The tool is another process and is killed after the switch; the process that runs the guest recovers. */
static void kill_after_pin(void *arg, struct emb_machine *m, enum emb_op op, uint64_t call)
{
    (void)m, (void)call;
    if (op == EMB_OP_resume && getpid() != *(pid_t *)arg) {
        (void)raise(SIGKILL);
    }
}

static void killed_while_it_is_moved(void **state)
{
    struct world *w = *state;
    struct kernel k = { .w = w };
    char dir[] = "/dev/shm/emb-core-XXXXXX", cmd[64];
    pid_t self = getpid();
    struct emb_fault_plan plan = { .hook_call = UINT64_MAX, .hook = kill_after_pin, .hook_arg = &self };
    struct hv_recover_report rr;
    struct fs_error err = { "" };
    assert_non_null(mkdtemp(dir));
    for (uint64_t pfn = w->boot.first_free; pfn < PAGES; pfn++) {
        memset(page(w, pfn), (int)pfn, FS_PAGE_BYTES);
    }
    emb_core_step_with(w->m, w->domid, step, &k);
    emb_fault_arm(w->m, &plan);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct hv_report r = { 0 };
        struct hv child = { .be = emb_backend(w->m), .state_dir = dir };
        struct hv_evacuate_options o = { .target = "NODE1" };
        _exit(hv_evacuate(&child, &o, &r, NULL) == FS_OK);     /* not reached */
    }
    /* The kernel runs here, the tool there. */
    int status;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        step(&k);
        (void)nanosleep(&(struct timespec){ .tv_nsec = 200000 }, NULL);
    }
    assert_true(WIFSIGNALED(status));
    emb_fault_arm(w->m, NULL);
    emb_machine_reap(w->m);
    struct hv hv = { .be = w->be, .state_dir = dir };
    fs_status_t s = hv_recover(&hv, &rr, &err);
    if (s != FS_OK) {
        fail_msg("recovery: %s: %s", fs_status_name(s), err.text);
    }
    assert_int_equal(rr.domains_finished, 1);
    for (uint64_t pfn = w->boot.first_free; pfn < PAGES; pfn++) {
        assert_true(w->p2m[pfn] < 8192);
        assert_true(page(w, pfn)[pfn % 4096] == (uint8_t)pfn);
    }
    (void)snprintf(cmd, sizeof(cmd), "rm -rf %s", dir);
    assert_int_equal(system(cmd), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(boots_with_a_direct_map), T(the_direct_map_follows_its_entries), T(gives_and_takes_memory), T(exchanges_memory),
        T(a_forgotten_flush_shows), T(a_stale_tlb_reaches_no_strangers_frame), T(events), T(a_registered_vcpu_info_is_held),
        T(a_pause_stops_a_spinning_vcpu), T(a_dead_domains_vcpu_leaves), T(the_mover_moves_it), T(it_is_moved_while_a_thread_runs),
        T(killed_while_it_is_moved),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
