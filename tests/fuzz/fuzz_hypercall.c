/*
 * fuzz_hypercall.c - a hostile kernel and a careless tool on the embedded machine.
 *
 * The input is a list of calls: an operation, then its numbers.  Frames come in one byte (of the caller, of others, none) or in
 * eight.  After it, and now and then on the way, every count of the machine is right and the other guest's bytes are untouched; when the
 * caller is gone, its frames are free.
 * Pointers are good, a bad page, or not canonical: what a bad pointer in between does is the host kernel's affair (process_vm_readv).
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#ifndef __XEN_TOOLS__
#define __XEN_TOOLS__
#endif
#include <xen/xen.h>
#include <xen/event_channel.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>

#include "embedded/core.h"

#define NODE_PAGES 1536u
#define PAGES 256u
#define CALLS_MAX 192u

struct world {
    struct fuzz_input in;
    struct emb_machine *m;
    struct hv_backend *be;
    uint16_t core, other;
    struct emb_core_boot boot;
    uint64_t p2m[PAGES];
};

static uint64_t frame(struct world *w)
{
    uint8_t how = fuzz_u8(&w->in);
    if (how < 0xc0) {                   /* one of the domain's, as it was built */
        return w->p2m[how];
    }
    return how < 0xf0 ? fuzz_u16(&w->in) % (2 * NODE_PAGES + 64) : fuzz_u64(&w->in);
}

static uint64_t entry(struct world *w)
{
    uint8_t flags = fuzz_u8(&w->in);
    uint64_t e = (frame(w) << FS_PAGE_SHIFT & 0xffffffffff000ull) | (flags & 0x7f);
    return flags & 0x80 ? e | (uint64_t)fuzz_u16(&w->in) << 52 | (fuzz_u8(&w->in) & 1ull) << 7 : e;
}

static uint64_t pointer(struct world *w, void *good)
{
    uint8_t how = fuzz_u8(&w->in);
    return how < 0xf8 ? (uint64_t)(uintptr_t)good : how < 0xfc ? 0x1000 : 0x8000000000000000ull;
}

static domid_t domain(struct world *w)
{
    uint8_t how = fuzz_u8(&w->in);
    return how < 0xe0 ? DOMID_SELF : how < 0xf0 ? w->other : (domid_t)fuzz_u16(&w->in);
}

static void call(struct world *w, unsigned nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t args[5] = { a, b, c, d, 0 };
    (void)emb_hypercall(w->m, w->core, fuzz_u8(&w->in) & 1, nr, args);
}

static void memory_op(struct world *w)
{
    static const unsigned commands[] = { XENMEM_increase_reservation, XENMEM_decrease_reservation, XENMEM_populate_physmap, XENMEM_exchange };
    uint64_t list[4], out[4];
    unsigned command = commands[fuzz_u8(&w->in) % 4];
    for (int i = 0; i < 4; i++) {
        list[i] = frame(w);
        out[i] = fuzz_u8(&w->in);
    }
    if (command == XENMEM_exchange) {
        struct xen_memory_exchange x = { .in = { .nr_extents = fuzz_u8(&w->in) % 5, .domid = domain(w) }, .out = { .domid = domain(w) } };
        x.in.extent_order = fuzz_u8(&w->in) % 4;
        x.out.extent_order = fuzz_u8(&w->in) % 4;
        x.out.nr_extents = fuzz_u8(&w->in) % 5;
        x.nr_exchanged = fuzz_u8(&w->in) < 0xe0 ? 0 : fuzz_u64(&w->in);
        set_xen_guest_handle(x.in.extent_start, list);
        set_xen_guest_handle(x.out.extent_start, out);
        if (((uint64_t)x.in.nr_extents << x.in.extent_order) > 4 || x.out.nr_extents > 4) {
            x.in.extent_order = x.out.extent_order = 0;
        }
        call(w, __HYPERVISOR_memory_op, command, pointer(w, &x), 0, 0);
        return;
    }
    struct xen_memory_reservation r = { .nr_extents = fuzz_u8(&w->in) % 5, .extent_order = fuzz_u8(&w->in) % 12, .domid = domain(w) };
    r.mem_flags = fuzz_u8(&w->in) < 0x80 ? 0u : XENMEMF_exact_node((unsigned)fuzz_u8(&w->in) % 4u);
    set_xen_guest_handle(r.extent_start, command == XENMEM_populate_physmap ? out : list);
    call(w, __HYPERVISOR_memory_op, command, pointer(w, &r), 0, 0);
}

static void mmu(struct world *w)
{
    struct mmu_update u[2];
    uint64_t done = 0;
    for (int i = 0; i < 2; i++) {
        uint64_t ptr = frame(w) << FS_PAGE_SHIFT | (fuzz_u16(&w->in) % 512) * 8;
        uint8_t how = fuzz_u8(&w->in);
        u[i] = (struct mmu_update){ ptr | (how < 0xc0 ? 0 : how & 7), entry(w) };
    }
    call(w, __HYPERVISOR_mmu_update, pointer(w, u), fuzz_u8(&w->in) % 3, pointer(w, &done), domain(w));
}

static void mmuext(struct world *w)
{
    struct mmuext_op op = { .cmd = fuzz_u8(&w->in) % 26 };
    uint32_t done = 0;
    op.arg1.mfn = frame(w);
    op.arg2.src_mfn = frame(w);
    if (op.cmd == MMUEXT_SET_LDT || op.cmd == MMUEXT_INVLPG_LOCAL) {
        op.arg1.linear_addr = (uint64_t)(uintptr_t)w->boot.direct + fuzz_u16(&w->in) * 64ull;
        op.arg2.nr_ents = fuzz_u16(&w->in);
    }
    call(w, __HYPERVISOR_mmuext_op, pointer(w, &op), 1, pointer(w, &done), domain(w));
}

static void small_calls(struct world *w, uint8_t which)
{
    uint64_t words[64], at;
    for (size_t i = 0; i < 64; i++) {
        words[i] = i < 4 ? frame(w) : fuzz_u8(&w->in);
    }
    at = pointer(w, words);
    switch (which % 4) {
    case 0: call(w, __HYPERVISOR_set_gdt, at, fuzz_u16(&w->in), 0, 0); break;
    case 1: call(w, __HYPERVISOR_event_channel_op, fuzz_u8(&w->in) % 16, at, 0, 0); break;
    case 2: call(w, __HYPERVISOR_vcpu_op, fuzz_u8(&w->in) % 16 == 0 ? VCPUOP_is_up : VCPUOP_register_vcpu_info, fuzz_u8(&w->in) % 3, at, 0); break;
    default: call(w, __HYPERVISOR_sched_op, SCHEDOP_yield, at, 0, 0); break;
    }
}

static void user_memory(struct world *w)
{
    uint8_t bytes[16] = { 1 };
    uint64_t fault, va = (uint64_t)(uintptr_t)w->boot.direct + fuzz_u8(&w->in) * FS_PAGE_BYTES + fuzz_u16(&w->in) % 4096;
    uint8_t how = fuzz_u8(&w->in);
    va = how < 0xf0 ? va : fuzz_u64(&w->in);
    if (how & 1) {
        (void)emb_vcpu_read(w->m, w->core, how >> 1 & 1, how >> 2 & 1, va, bytes, sizeof(bytes), &fault);
    } else if (va / FS_PAGE_BYTES != (uint64_t)(uintptr_t)w->boot.direct / FS_PAGE_BYTES + w->boot.start_info) {
        (void)emb_vcpu_write(w->m, w->core, how >> 1 & 1, how >> 2 & 1, va, bytes, sizeof(bytes), &fault);
    }
}

static void tool(struct world *w)
{
    const struct hv_backend_ops *ops = w->be->ops;
    mfn_t one = mfn_make(frame(w)), two = mfn_make(frame(w)), got[4], spare[2] = { mfn_make(frame(w)), mfn_make(frame(w)) };
    struct hv_mark_result marks[4];
    struct hv_copy copy = { one, two };
    struct hv_pin pin = { one, (uint8_t)(fuzz_u8(&w->in) % 6) };
    struct hv_m2p_set set = { one, pfn_make(fuzz_u8(&w->in)) };
    uint64_t start = fuzz_u16(&w->in) % (2 * NODE_PAGES + 8), n;
    struct mfn_range range = { mfn_make(start), mfn_make(start + 1 + fuzz_u8(&w->in) % 4) };
    uint8_t types[1], flags[4];
    bool held, owned[1];
    size_t done;
    switch (fuzz_u8(&w->in) % 11) {
    case 0: (void)ops->mark_offline(w->be, range, marks, NULL); break;
    case 1: (void)ops->mark_online(w->be, range, &n, NULL); break;
    case 2: (void)ops->increase(w->be, w->core, fuzz_u8(&w->in) % 4, 1 + fuzz_u8(&w->in) % 4, got, &done, NULL); break;
    case 3: (void)ops->decrease(w->be, w->core, &one, 1, &done, NULL); break;
    case 4: (void)ops->copy(w->be, w->core, &copy, 1, NULL); break;
    case 5: (void)ops->pin(w->be, w->core, &pin, 1, NULL); break;
    case 6: (void)ops->unpin(w->be, w->core, &one, 1, NULL); break;
    case 7: (void)ops->probe_held(w->be, w->core, &one, 1, spare, &held, &n, NULL); break;
    case 8: (void)ops->m2p_set(w->be, w->core, &set, 1, NULL); break;
    case 9: (void)ops->types(w->be, w->core, &one, 1, types, flags, owned, NULL); break;
    default: (void)ops->mark_owned(w->be, &one, 1, marks, NULL); break;
    }
}

static void sane(struct world *w, bool bytes)
{
    if (emb_fsck(w->m, stderr) != 0 || (bytes && emb_guest_check(w->m, w->other, stderr) != 0)) {
        abort();
    }
}

static void world_make(struct world *w)
{
    struct emb_config c = { .nodes = { { NODE_PAGES, 0 }, { NODE_PAGES, 16 } }, .node_count = 2, .seed = 1, .anon_pages = 2 };
    struct emb_core_config k = { .name = "core", .pages = PAGES, .vcpus = 2, .node = 0 };
    struct emb_domain_config p = { .kind = HV_DOMAIN_PV, .name = "other", .pages = 512, .vcpus = 1, .seed = 1, .node = 1, .processes = 1 };
    w->m = emb_machine_create(&c);
    w->be = w->m ? emb_backend(w->m) : NULL;
    if (!w->be || emb_domain_create(w->m, &p, &w->other) != 0 || emb_core_create(w->m, &k, &w->core) != 0 || emb_core_boot(w->m, w->core, &w->boot) != 0) {
        abort();
    }
    memcpy(w->p2m, w->boot.direct + w->boot.p2m_first * FS_PAGE_BYTES, sizeof(w->p2m));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct world w = { .in = { data, bytes, 0 } };
    world_make(&w);
    for (unsigned i = 0; i < CALLS_MAX && w.in.at < w.in.bytes; i++) {
        uint8_t what = fuzz_u8(&w.in);
        switch (what % 8) {
        case 0: memory_op(&w); break;
        case 1: case 2: mmu(&w); break;
        case 3: mmuext(&w); break;
        case 4: small_calls(&w, what >> 3); break;
        case 5: user_memory(&w); break;
        case 6: {
            uint64_t va = (uint64_t)(uintptr_t)w.boot.direct + fuzz_u8(&w.in) * FS_PAGE_BYTES;
            call(&w, __HYPERVISOR_update_va_mapping, what & 0x80 ? va : fuzz_u64(&w.in), entry(&w), fuzz_u8(&w.in) % 8, 0);
            break;
        }
        default: tool(&w); break;
        }
        if (i % 48 == 47) {
            sane(&w, false);
        }
    }
    sane(&w, true);
    w.be->ops->close(w.be);
    emb_core_unmap(w.m, w.core);
    if (emb_domain_destroy(w.m, w.core) != 0) {
        abort();
    }
    sane(&w, true);
    emb_machine_destroy(w.m);
    return 0;
}
