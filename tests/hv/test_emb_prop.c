/*
 * test_emb_prop.c - random and hostile calls, the machine's own check after every few.
 *
 * Two guest kernels, which grant each other memory, and a tool call with numbers that are often right, often slightly wrong and sometimes
 * nonsense.  Whatever they say: no crash, no count wrong, no other guest's byte touched.  A failure prints its seed;
 * SEEDS and STEPS in the environment make it longer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#ifndef __XEN_TOOLS__
#define __XEN_TOOLS__
#endif
#include <xen/xen.h>
#include <xen/memory.h>
#include <xen/vcpu.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>

#include "embedded/core.h"

#define NODE_PAGES 2048u
#define PAGES 512u

struct world {
    struct emb_machine *m;
    struct hv_backend *be;
    uint16_t core, peer, pv, hap;       /* core is the kernel whose turn it is */
    struct emb_core_boot boot, peer_boot;
    uint64_t rng;
    void *maps[8];
    size_t map_count[8];
    uint64_t mapped, unmapped, copied, died;    /* grant operations that succeeded: the hostile caller must get that far */
};

static uint64_t rnd(struct world *w)
{
    uint64_t z = (w->rng += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, NULL, 10) : otherwise;
}

/* A frame: mostly of the domain, by any pfn; else anything. */
static uint64_t any_frame(struct world *w, uint16_t domid)
{
    switch (rnd(w) % 8) {
    case 0: return rnd(w) % (4 * NODE_PAGES + 100);
    case 1: return rnd(w);
    default: break;
    }
    struct hv_frame f;
    for (int i = 0; i < 64; i++) {
        uint64_t mfn = rnd(w) % (4 * NODE_PAGES);
        struct mfn_range one = { mfn_make(mfn), mfn_make(mfn + 1) };
        if (w->be->ops->frames(w->be, one, &f, NULL) == FS_OK && f.owner == HV_FRAME_DOMAIN && f.domid == domid) {
            return mfn;
        }
    }
    return 0;
}

static uint64_t any_entry(struct world *w, uint16_t domid)
{
    uint64_t flags = rnd(w) % 4 ? 1 | (rnd(w) & 0x66) : rnd(w) & 0xfff;
    return rnd(w) % 6 == 0 ? 0 : (any_frame(w, domid) << 12 & 0xffffffffff000) | flags | (rnd(w) % 16 ? 0 : rnd(w) << 52);
}

static long hc(struct world *w, unsigned nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t args[5] = { a, b, c, d, 0 };
    return emb_hypercall(w->m, w->core, (uint32_t)(rnd(w) % 2), nr, args);
}

static void hostile_memory_op(struct world *w)
{
    static const unsigned cmds[] = { XENMEM_increase_reservation, XENMEM_decrease_reservation, XENMEM_populate_physmap, XENMEM_decrease_reservation };
    uint64_t list[4] = { 0 }, out[4] = { 0 };
    for (int i = 0; i < 4; i++) {
        list[i] = any_frame(w, w->core);
        out[i] = rnd(w) % PAGES;
    }
    if (rnd(w) % 3 == 0) {
        struct xen_memory_exchange x = { .in = { .nr_extents = 1 + rnd(w) % 4, .domid = DOMID_SELF }, .out = { .nr_extents = 1, .domid = DOMID_SELF } };
        x.out.extent_order = (unsigned)rnd(w) % 3;
        x.out.nr_extents = x.in.nr_extents >> x.out.extent_order;
        x.out.mem_flags = rnd(w) % 3 ? 0 : XENMEMF_address_bits(13);
        x.nr_exchanged = rnd(w) % 8 ? 0 : rnd(w) % 5;
        set_xen_guest_handle(x.in.extent_start, list);
        set_xen_guest_handle(x.out.extent_start, out);
        (void)hc(w, __HYPERVISOR_memory_op, XENMEM_exchange, (uint64_t)(uintptr_t)&x, 0, 0);
        return;
    }
    struct xen_memory_reservation r = { .nr_extents = rnd(w) % 5, .extent_order = (unsigned)(rnd(w) % 4 ? 0 : rnd(w) % 12), .domid = DOMID_SELF };
    r.mem_flags = rnd(w) % 2 ? 0 : XENMEMF_exact_node((unsigned)rnd(w) % 4);
    r.domid = rnd(w) % 16 ? DOMID_SELF : (domid_t)rnd(w);
    unsigned cmd = cmds[rnd(w) % 4];
    if (r.extent_order > 0 && cmd == XENMEM_decrease_reservation && rnd(w) % 4) {
        return;                         /* else nothing is left soon */
    }
    set_xen_guest_handle(r.extent_start, cmd == XENMEM_populate_physmap ? out : list);
    (void)hc(w, __HYPERVISOR_memory_op, cmd, rnd(w) % 32 ? (uint64_t)(uintptr_t)&r : rnd(w), 0, 0);
}

static void hostile_mmu(struct world *w)
{
    uint64_t index = rnd(w) % 4 ? rnd(w) % 512 : rnd(w) % 8;
    struct mmu_update u = { (any_frame(w, w->core) << 12 | index * 8 | (rnd(w) % 6 ? 0 : rnd(w) % 8)), any_entry(w, w->core) };
    if (rnd(w) % 3 == 0) {
        uint64_t va = (uint64_t)(uintptr_t)w->boot.direct + rnd(w) % PAGES * 4096;
        (void)hc(w, __HYPERVISOR_update_va_mapping, rnd(w) % 8 ? va : rnd(w), any_entry(w, w->core), rnd(w) % 8, 0);
        return;
    }
    (void)hc(w, __HYPERVISOR_mmu_update, (uint64_t)(uintptr_t)&u, 1, 0, rnd(w) % 16 ? DOMID_SELF : rnd(w));
}

static void hostile_mmuext(struct world *w)
{
    struct mmuext_op op = { .cmd = (unsigned)(rnd(w) % 3 ? rnd(w) % 5 : rnd(w) % 26) };
    op.arg1.mfn = any_frame(w, w->core);
    op.arg2.src_mfn = any_frame(w, w->core);
    if (op.cmd == MMUEXT_SET_LDT) {
        op.arg1.linear_addr = rnd(w) % 2 ? rnd(w) : (uint64_t)(uintptr_t)w->boot.direct;
        op.arg2.nr_ents = (unsigned)rnd(w) % 10000;
    }
    uint32_t done;
    (void)hc(w, __HYPERVISOR_mmuext_op, (uint64_t)(uintptr_t)&op, 1, (uint64_t)(uintptr_t)&done, rnd(w) % 16 ? DOMID_SELF : rnd(w));
}

static void hostile_rest(struct world *w)
{
    uint64_t junk[80], fault;
    uint8_t byte = 1;
    for (size_t i = 0; i < 80; i++) {
        junk[i] = rnd(w) % 4 ? rnd(w) % 9 : any_frame(w, w->core);
    }
    uint64_t at = (uint64_t)(uintptr_t)junk;
    switch (rnd(w) % 5) {
    case 0: (void)hc(w, __HYPERVISOR_event_channel_op, rnd(w) % 16, at, 0, 0); break;
    case 1: (void)hc(w, __HYPERVISOR_set_gdt, at, rnd(w) % 2 ? rnd(w) % 1024 : rnd(w), 0, 0); break;
    case 2: {
        unsigned op = (unsigned)(rnd(w) % 14);
        if (op == VCPUOP_register_runstate_memory_area && rnd(w) % 4) {
            junk[0] = (uint64_t)(uintptr_t)w->boot.direct + rnd(w) % (PAGES * 4096);
        }
        if (op != VCPUOP_register_vcpu_info || rnd(w) % 4 == 0) {       /* each takes a frame for ever */
            (void)hc(w, __HYPERVISOR_vcpu_op, op, rnd(w) % 3, at, 0);
        }
        break;
    }
    case 3:
        (void)emb_vcpu_write(w->m, w->core, (uint32_t)rnd(w) % 2, rnd(w) % 2,
                             (uint64_t)(uintptr_t)w->boot.direct + (w->boot.first_free + rnd(w) % 64) * 4096, &byte, 1, &fault);
        break;
    default: (void)hc(w, (unsigned)rnd(w) % 48, rnd(w), rnd(w), rnd(w), rnd(w)); break;
    }
}

/* ---- grants -------------------------------------------------------------- */

#define TABLE_PFN (PAGES - 1)           /* where a kernel would like its table to be */

/* Map some frame of the table and write an entry, which may be a lie in every field. */
static void hostile_entry(struct world *w)
{
    uint64_t frames[8] = { 0 }, va = (uint64_t)(uintptr_t)w->boot.direct + TABLE_PFN * 4096, fault;
    struct gnttab_setup_table s = { .dom = rnd(w) % 8 ? DOMID_SELF : w->peer, .nr_frames = 1 + (uint32_t)rnd(w) % (rnd(w) % 8 ? 1 : 6) };
    set_xen_guest_handle(s.frame_list, frames);
    (void)hc(w, __HYPERVISOR_grant_table_op, GNTTABOP_setup_table, (uint64_t)(uintptr_t)&s, 1, 0);
    (void)hc(w, __HYPERVISOR_update_va_mapping, va, frames[0] << 12 | 3, UVMF_INVLPG | UVMF_ALL, 0);
    grant_entry_v1_t e = { .domid = rnd(w) % 8 ? (rnd(w) % 4 ? w->peer : w->core) : (domid_t)rnd(w), .frame = (uint32_t)any_frame(w, w->core) };
    e.flags = (uint16_t)(rnd(w) % 4 ? GTF_permit_access | (rnd(w) % 4 ? 0 : GTF_readonly) : rnd(w));
    (void)emb_vcpu_write(w->m, w->core, 0, false, va + rnd(w) % 8 * sizeof(e), &e, sizeof(e), &fault);
    (void)emb_vcpu_write(w->m, w->core, 1, false, va + rnd(w) % 8 * sizeof(e), &e, rnd(w) % 4 ? 2 : sizeof(e), &fault);
}

static uint64_t any_address(struct world *w)
{
    switch (rnd(w) % 8) {
    case 0: return rnd(w);
    case 1: return any_frame(w, w->core) << 12 | rnd(w) % 4096;
    case 2: case 3: return any_frame(w, w->core) << 12 | rnd(w) % 512 * 8;
    default: return (uint64_t)(uintptr_t)w->boot.direct + rnd(w) % PAGES * 4096;
    }
}

static void hostile_copy(struct world *w)
{
    struct gnttab_copy c[2] = { { .status = 0 } };
    for (int i = 0; i < 2; i++) {
        for (int side = 0; side < 2; side++) {
            struct gnttab_copy_ptr *p = side ? &c[i].dest : &c[i].source;
            bool gref = rnd(w) % 2;
            p->domid = gref && rnd(w) % 8 ? w->peer : rnd(w) % 8 ? DOMID_SELF : (domid_t)rnd(w);
            p->offset = (uint16_t)(rnd(w) % 8 ? rnd(w) % 2048 : rnd(w));
            p->u.gmfn = gref ? rnd(w) % 9 : any_frame(w, w->core);
            c[i].flags = (uint16_t)(c[i].flags | (gref ? (side ? GNTCOPY_dest_gref : GNTCOPY_source_gref) : 0));
        }
        c[i].len = (uint16_t)(rnd(w) % 8 ? rnd(w) % 2048 : rnd(w));
    }
    (void)hc(w, __HYPERVISOR_grant_table_op, GNTTABOP_copy, (uint64_t)(uintptr_t)c, 2, 0);
    w->copied += (uint64_t)((c[0].len && c[0].status == GNTST_okay) + (c[1].len && c[1].status == GNTST_okay));
}

static void hostile_grant(struct world *w)
{
    uint64_t junk[40];
    struct gnttab_map_grant_ref map[2];
    struct gnttab_unmap_grant_ref unmap[2];
    for (size_t i = 0; i < 40; i++) {
        junk[i] = rnd(w) % 2 ? rnd(w) % 4 : rnd(w);
    }
    for (int i = 0; i < 2; i++) {
        map[i] = (struct gnttab_map_grant_ref){ .host_addr = any_address(w), .ref = (uint32_t)rnd(w) % 9, .dom = rnd(w) % 8 ? w->peer : w->core };
        map[i].flags = rnd(w) % 4 ? GNTMAP_host_map | (uint32_t)(rnd(w) % 2 * GNTMAP_readonly) : (uint32_t)rnd(w);
        map[i].flags |= map[i].host_addr >> 40 ? 0 : GNTMAP_contains_pte;
        unmap[i] = (struct gnttab_unmap_grant_ref){ .host_addr = rnd(w) % 4 ? any_address(w) : 0, .handle = (uint32_t)rnd(w) % 12 };
        unmap[i].dev_bus_addr = rnd(w) % 2 ? 0 : any_frame(w, w->peer) << 12;
        map[i].status = unmap[i].status = 99;
    }
    switch (rnd(w) % 6) {
    case 0: hostile_entry(w); break;
    case 1: case 2: (void)hc(w, __HYPERVISOR_grant_table_op, GNTTABOP_map_grant_ref, (uint64_t)(uintptr_t)map, 1 + rnd(w) % 2, 0); break;
    case 3: (void)hc(w, __HYPERVISOR_grant_table_op, GNTTABOP_unmap_grant_ref, (uint64_t)(uintptr_t)unmap, 1 + rnd(w) % 2, 0); break;
    case 4: hostile_copy(w); break;
    default: (void)hc(w, __HYPERVISOR_grant_table_op, rnd(w) % 16, rnd(w) % 8 ? (uint64_t)(uintptr_t)junk : rnd(w), rnd(w) % 4, 0); break;
    }
    w->mapped += (uint64_t)((map[0].status == GNTST_okay) + (map[1].status == GNTST_okay));
    w->unmapped += (uint64_t)((unmap[0].status == GNTST_okay) + (unmap[1].status == GNTST_okay));
}

static void make_core(struct world *w, uint16_t *domid, struct emb_core_boot *boot)
{
    struct emb_core_config k = { .name = "core", .pages = PAGES, .vcpus = 2, .node = 0 };
    assert_int_equal(emb_core_create(w->m, &k, domid), 0);
    assert_int_equal(emb_core_boot(w->m, *domid, boot), 0);
}

/* The other kernel's turn, sometimes; seldom one dies, with what it granted and what it mapped. */
static void turn(struct world *w)
{
    if (rnd(w) % 2) {
        uint16_t domid = w->core;
        struct emb_core_boot boot = w->boot;
        w->core = w->peer;
        w->boot = w->peer_boot;
        w->peer = domid;
        w->peer_boot = boot;
    }
    if (rnd(w) % 700 == 0) {
        (void)emb_domain_destroy(w->m, w->peer);
        make_core(w, &w->peer, &w->peer_boot);
        w->died++;
    }
}

/* ---- the tool ------------------------------------------------------------ */

static void tool_maps(struct world *w)
{
    size_t i = rnd(w) % 8;
    if (w->maps[i]) {
        w->be->ops->unmap(w->be, w->maps[i], w->map_count[i]);
        w->maps[i] = NULL;
        return;
    }
    uint16_t domid = rnd(w) % 2 ? w->core : w->hap;
    uint64_t frames[4];
    int errs[4];
    w->map_count[i] = 1 + rnd(w) % 4;
    for (size_t k = 0; k < w->map_count[i]; k++) {
        frames[k] = domid == w->hap ? rnd(w) % 700 : any_frame(w, domid);
    }
    if (w->be->ops->map(w->be, domid, frames, w->map_count[i], rnd(w) % 2 ? HV_MAP_WRITE : HV_MAP_READ, errs, &w->maps[i], NULL) != FS_OK) {
        w->maps[i] = NULL;
    }
}

static void tool_acts(struct world *w)
{
    const struct hv_backend_ops *ops = w->be->ops;
    mfn_t one = mfn_make(any_frame(w, w->core)), got[4], spare[2] = { mfn_make(any_frame(w, w->core)), mfn_make(any_frame(w, w->core)) };
    struct hv_mark_result r[4];
    struct hv_copy cp = { mfn_make(any_frame(w, w->core)), one };
    size_t done;
    bool held;
    uint64_t calls, start = rnd(w) % (4 * NODE_PAGES);
    struct mfn_range range = { mfn_make(start), mfn_make(start + 1 + rnd(w) % 4) };
    struct hv_pin pin = { one, (uint8_t)(rnd(w) % 6) };
    switch (rnd(w) % 11) {
    case 0: (void)ops->mark_offline(w->be, range, r, NULL); break;
    case 1: (void)ops->mark_online(w->be, range, &calls, NULL); break;
    case 2: (void)ops->increase(w->be, w->core, (uint32_t)rnd(w) % 4, 1 + rnd(w) % 4, got, &done, NULL); break;
    case 3: (void)ops->decrease(w->be, w->core, &one, rnd(w) % 4 == 0, &done, NULL); break;
    case 4: (void)ops->copy(w->be, w->core, &cp, 1, NULL); break;
    case 5: (void)ops->pin(w->be, w->core, &pin, 1, NULL); break;
    case 6: (void)ops->unpin(w->be, w->core, &one, 1, NULL); break;
    case 7: (void)ops->probe_held(w->be, w->core, &one, 1, spare, &held, &calls, NULL); break;
    case 8: (void)ops->set_max_pages(w->be, w->core, PAGES + rnd(w) % 64, NULL); break;
    case 9: {
        gfn_t from = gfn_make(0x1000 + rnd(w) % 8), to = gfn_make(0x1000 + rnd(w) % 8);
        if (rnd(w) % 2) {
            (void)ops->populate(w->be, w->hap, (uint32_t)rnd(w) % 4, 0, &from, 1, &done, NULL);
        } else if (rnd(w) % 2) {
            (void)ops->remap(w->be, w->hap, &from, &to, 1, &done, NULL);
        } else {
            (void)ops->depopulate(w->be, w->hap, 0, &from, 1, &done, NULL);
        }
        break;
    }
    default: tool_maps(w); break;
    }
}

static void world_make(struct world *w, uint64_t seed)
{
    struct emb_config c = { .nodes = { { 2 * NODE_PAGES, 0 }, { NODE_PAGES, 50 }, { NODE_PAGES, 0 } }, .node_count = 3, .seed = seed, .anon_pages = 2 };
    struct emb_domain_config p = { .kind = HV_DOMAIN_PV, .name = "pv", .pages = 1024, .vcpus = 1, .seed = seed, .node = 1 };
    struct emb_domain_config h = { .kind = HV_DOMAIN_HAP, .name = "hap", .pages = 700, .vcpus = 1, .seed = seed, .node = 2 };
    *w = (struct world){ .rng = seed };
    w->m = emb_machine_create(&c);
    w->be = emb_backend(w->m);
    make_core(w, &w->core, &w->boot);
    make_core(w, &w->peer, &w->peer_boot);
    assert_int_equal(emb_domain_create(w->m, &p, &w->pv), 0);
    assert_int_equal(emb_domain_create(w->m, &h, &w->hap), 0);
    assert_int_equal(w->be->ops->set_max_pages(w->be, w->hap, 720, NULL), FS_OK);
}

static void no_call_breaks_the_machine(void **state)
{
    (void)state;
    uint64_t seeds = number("SEEDS", 12), steps = number("STEPS", 3000), first = number("SEED", 1);
    uint64_t mapped = 0, unmapped = 0, copied = 0, died = 0;
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        struct world w;
        world_make(&w, seed);
        for (uint64_t step = 0; step < steps; step++) {
            turn(&w);
            switch (rnd(&w) % 10) {
            case 8: case 9: hostile_grant(&w); break;
            case 0: hostile_memory_op(&w); break;
            case 1: case 2: case 3: hostile_mmu(&w); break;
            case 4: hostile_mmuext(&w); break;
            case 5: hostile_rest(&w); break;
            default: tool_acts(&w); break;
            }
            if (step % 25 == 0 && emb_fsck(w.m, stderr) != 0) {
                fail_msg("SEED=%llu: counts are wrong after step %llu", (unsigned long long)seed, (unsigned long long)step);
            }
            if (step % 500 == 0 && emb_guest_check(w.m, w.pv, stderr) != 0) {
                fail_msg("SEED=%llu: another guest was touched by step %llu", (unsigned long long)seed, (unsigned long long)step);
            }
        }
        for (int i = 0; i < 8; i++) {
            w.be->ops->unmap(w.be, w.maps[i], w.map_count[i]);
        }
        w.be->ops->close(w.be);
        assert_int_equal(emb_domain_destroy(w.m, w.core), 0);
        assert_int_equal(emb_fsck(w.m, stderr), 0);
        assert_int_equal(emb_domain_destroy(w.m, w.peer), 0);
        assert_int_equal(emb_domain_destroy(w.m, w.hap), 0);
        assert_int_equal(emb_fsck(w.m, stderr), 0);
        assert_int_equal(emb_guest_check(w.m, w.pv, stderr), 0);
        emb_machine_destroy(w.m);
        mapped += w.mapped;
        unmapped += w.unmapped;
        copied += w.copied;
        died += w.died;
    }
    print_message("grants mapped %llu, unmapped %llu, copied %llu; kernels that died %llu\n", (unsigned long long)mapped,
                  (unsigned long long)unmapped, (unsigned long long)copied, (unsigned long long)died);
    assert_true(seeds * steps < 30000 || (mapped > 0 && unmapped > 0 && copied > 0 && died > 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(no_call_breaks_the_machine) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
