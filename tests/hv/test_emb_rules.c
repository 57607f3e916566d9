/*
 * test_emb_rules.c - what the embedded machine refuses, rule by rule (doc/EMBEDDED.md numbers them).
 *
 * Each test does the forbidden thing next to the allowed one, so that a machine which refused
 * everything, or nothing, would fail; each ends with the machine's own check.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "embedded/emb_guest.h"

#define SPARES 24u

struct world {
    struct emb_machine *m;
    struct hv_backend *be;
    const struct hv_backend_ops *ops;
    uint16_t pv, other, hap;
    mfn_t spare[SPARES];                /* frames of pv outside its p2m */
};

static uint16_t add(struct emb_machine *m, enum hv_domain_kind kind, uint32_t node, bool ldt)
{
    struct emb_domain_config c = { .kind = kind, .name = "g", .pages = 1024, .vcpus = 2, .seed = 5, .node = node, .ldt = ldt, .processes = 2 };
    uint16_t domid;
    assert_int_equal(emb_domain_create(m, &c, &domid), 0);
    return domid;
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct emb_config c = { .nodes = { { 4096, 0 }, { 4096, 0 }, { 8192, 100 } }, .node_count = 3, .seed = 4, .anon_pages = 4 };
    size_t done;
    w->m = emb_machine_create(&c);
    w->be = emb_backend(w->m);
    w->ops = w->be->ops;
    w->pv = add(w->m, HV_DOMAIN_PV, 1, true);
    w->other = add(w->m, HV_DOMAIN_PV, 1, false);
    w->hap = add(w->m, HV_DOMAIN_HAP, 2, false);
    assert_int_equal(w->ops->set_max_pages(w->be, w->pv, 1024 + SPARES, NULL), FS_OK);
    assert_int_equal(w->ops->increase(w->be, w->pv, 0, SPARES, w->spare, &done, NULL), FS_OK);
    assert_int_equal(done, SPARES);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    uint64_t faults = emb_fsck(w->m, stderr);
    w->be->ops->close(w->be);
    emb_machine_destroy(w->m);
    free(w);
    return faults ? -1 : 0;
}

/* ---- tools --------------------------------------------------------------- */

static struct emb_frame *frame(struct world *w, mfn_t m)
{
    return emb_frame_at(w->m, m.n);
}

static uint64_t pte(mfn_t to, uint64_t flags)
{
    return to.n << FS_PAGE_SHIFT | flags | EMB_PTE_P;
}

static mfn_t free_frame_of(struct world *w, uint32_t node)
{
    mfn_t m = emb_node_range(w->m, node).start;
    while (frame(w, m)->state != EMB_S_FREE) {
        m = mfn_add(m, 1);
    }
    return m;
}

/* Write 512 entries of a spare frame through a foreign mapping, as a tool would. */
static void write_table(struct world *w, mfn_t m, uint32_t count, const uint64_t *entries)
{
    int page_err;
    uint64_t *p;
    assert_int_equal(w->ops->map(w->be, w->pv, &m.n, 1, HV_MAP_WRITE, &page_err, (void **)&p, NULL), FS_OK);
    assert_int_equal(page_err, 0);
    memset(p, 0, FS_PAGE_BYTES);
    memcpy(p, entries, count * sizeof(*entries));
    w->ops->unmap(w->be, p, 1);
}

static fs_status_t pin(struct world *w, mfn_t m, uint8_t level)
{
    struct hv_pin one = { m, level };
    return w->ops->pin(w->be, w->pv, &one, 1, NULL);
}

static fs_status_t unpin(struct world *w, mfn_t m)
{
    return w->ops->unpin(w->be, w->pv, &m, 1, NULL);
}

static int map_err(struct world *w, uint16_t domid, uint64_t at, enum hv_map_prot prot)
{
    int page_err;
    void *p;
    assert_int_equal(w->ops->map(w->be, domid, &at, 1, prot, &page_err, &p, NULL), FS_OK);
    w->ops->unmap(w->be, p, 1);
    return page_err;
}

static fs_status_t give_back(struct world *w, mfn_t m)
{
    size_t done;
    return w->ops->decrease(w->be, w->pv, &m, 1, &done, NULL);
}

static uint8_t offline_flags(struct world *w, mfn_t m)
{
    uint8_t flags;
    assert_int_equal(w->ops->query_offline(w->be, (struct mfn_range){ m, mfn_add(m, 1) }, &flags, NULL), FS_OK);
    return flags;
}

static enum hv_mark mark(struct world *w, mfn_t m)
{
    struct hv_mark_result r;
    assert_int_equal(w->ops->mark_offline(w->be, (struct mfn_range){ m, mfn_add(m, 1) }, &r, NULL), FS_OK);
    return (enum hv_mark)r.mark;
}

/* ---- tables -------------------------------------------------------------- */

static void r01_only_own_frames(void **state)
{
    struct world *w = *state;
    mfn_t foreign = emb_guest_frame(w->m, w->other, 7), nowhere = mfn_make(emb_node_range(w->m, 2).end.n + 5);
    struct hv_m2p_set set = { foreign, pfn_make(1) };
    struct hv_copy from_foreign = { foreign, w->spare[0] }, to_foreign = { w->spare[0], foreign }, own = { w->spare[0], w->spare[1] };
    assert_int_equal(map_err(w, w->pv, foreign.n, HV_MAP_READ), EINVAL);
    assert_int_equal(map_err(w, w->pv, nowhere.n, HV_MAP_READ), EINVAL);
    assert_int_equal(map_err(w, w->pv, w->spare[0].n, HV_MAP_READ), 0);
    assert_int_equal(pin(w, foreign, 1), FS_REFUSED);
    assert_int_equal(w->ops->m2p_set(w->be, w->pv, &set, 1, NULL), FS_REFUSED);
    set.mfn = w->spare[0];
    assert_int_equal(w->ops->m2p_set(w->be, w->pv, &set, 1, NULL), FS_OK);
    assert_int_equal(w->ops->copy(w->be, w->pv, &from_foreign, 1, NULL), FS_REFUSED);
    assert_int_equal(w->ops->copy(w->be, w->pv, &to_foreign, 1, NULL), FS_REFUSED);
    assert_int_equal(w->ops->copy(w->be, w->pv, &own, 1, NULL), FS_OK);
    assert_int_equal(give_back(w, foreign), FS_REFUSED);
}

static void r02_entries_lead_to_own_frames(void **state)
{
    struct world *w = *state;
    mfn_t foreign = emb_guest_frame(w->m, w->other, 7), free_frame = free_frame_of(w, 2);
    mfn_t bad[] = { foreign, free_frame, mfn_make(3) };     /* 3: Xen's */
    for (size_t i = 0; i < FS_ARRAY_SIZE(bad); i++) {
        uint64_t e[] = { pte(w->spare[1], EMB_PTE_RW), 0, pte(bad[i], 0) };
        write_table(w, w->spare[0], 3, e);
        assert_int_equal(pin(w, w->spare[0], 1), FS_REFUSED);
        assert_int_equal(frame(w, w->spare[1])->count, 1);  /* what had been validated was undone */
        assert_int_equal(frame(w, w->spare[1])->type_count, 0);
    }
    uint64_t device[] = { pte(mfn_make(1ull << 30), 0) };
    write_table(w, w->spare[0], 1, device);
    assert_int_equal(pin(w, w->spare[0], 1), FS_REFUSED);
    uint64_t good[] = { pte(w->spare[1], EMB_PTE_RW), 0x7ffffffff000ull << 1 };     /* not present: anything */
    write_table(w, w->spare[0], 2, good);
    assert_int_equal(pin(w, w->spare[0], 1), FS_OK);
    assert_int_equal(frame(w, w->spare[1])->count, 2);
    assert_int_equal(frame(w, w->spare[1])->type_count, 1);
    assert_int_equal(unpin(w, w->spare[0]), FS_OK);
    assert_int_equal(frame(w, w->spare[1])->count, 1);
}

static void r03_tables_are_never_writable(void **state)
{
    struct world *w = *state;
    int page_err;
    void *p;
    assert_int_equal(w->ops->map(w->be, w->pv, &w->spare[0].n, 1, HV_MAP_WRITE, &page_err, &p, NULL), FS_OK);
    memset(p, 0, FS_PAGE_BYTES);
    assert_int_equal(pin(w, w->spare[0], 1), FS_REFUSED);   /* still mapped writable */
    w->ops->unmap(w->be, p, 1);
    assert_int_equal(pin(w, w->spare[0], 1), FS_OK);
    assert_int_equal(map_err(w, w->pv, w->spare[0].n, HV_MAP_WRITE), EBUSY);
    assert_int_equal(map_err(w, w->pv, w->spare[0].n, HV_MAP_READ), 0);
    struct hv_copy over = { w->spare[1], w->spare[0] };
    assert_int_equal(w->ops->copy(w->be, w->pv, &over, 1, NULL), FS_REFUSED);
    uint64_t writable[] = { pte(w->spare[0], EMB_PTE_RW) }, read_only[] = { pte(w->spare[0], 0) };
    write_table(w, w->spare[2], 1, writable);
    assert_int_equal(pin(w, w->spare[2], 1), FS_REFUSED);
    write_table(w, w->spare[2], 1, read_only);
    assert_int_equal(pin(w, w->spare[2], 1), FS_OK);
}

static void r04_bits_of_entries(void **state)
{
    struct world *w = *state;
    static const struct { uint64_t bit; bool l1, l2; } bits[] = {
        { EMB_PTE_RW, true, true }, { EMB_PTE_USER, true, true }, { EMB_PTE_A, true, true }, { EMB_PTE_D, true, true },
        { 1ull << 9, true, true }, { 1ull << 10, true, true }, { 1ull << 11, true, true }, { 1ull << 53, true, true }, { EMB_PTE_NX, true, true },
        { EMB_PTE_GLOBAL, true, false }, { EMB_PTE_GNTTAB, false, true }, { EMB_PTE_PWT, false, false }, { EMB_PTE_PCD, false, false },
        { EMB_PTE_PSE, false, false },
    };
    for (size_t i = 0; i < FS_ARRAY_SIZE(bits); i++) {
        uint64_t e1[] = { pte(w->spare[1], bits[i].bit) }, empty[] = { 0 };
        write_table(w, w->spare[0], 1, e1);
        assert_int_equal(pin(w, w->spare[0], 1), bits[i].l1 ? FS_OK : FS_REFUSED);
        assert_int_equal(unpin(w, w->spare[0]), bits[i].l1 ? FS_OK : FS_REFUSED);
        write_table(w, w->spare[3], 1, empty);
        uint64_t e2[] = { pte(w->spare[3], bits[i].bit) };
        write_table(w, w->spare[2], 1, e2);
        assert_int_equal(pin(w, w->spare[2], 2), bits[i].l2 ? FS_OK : FS_REFUSED);
        assert_int_equal(unpin(w, w->spare[2]), bits[i].l2 ? FS_OK : FS_REFUSED);
    }
}

static void r05_types_are_exclusive(void **state)
{
    struct world *w = *state;
    uint64_t empty[] = { 0 }, up[] = { pte(w->spare[0], EMB_PTE_RW) };
    write_table(w, w->spare[0], 1, empty);
    write_table(w, w->spare[1], 1, up);
    assert_int_equal(pin(w, w->spare[0], 2), FS_OK);
    assert_int_equal(pin(w, w->spare[1], 2), FS_REFUSED);   /* its entry needs an L1, the frame is an L2 */
    assert_int_equal(pin(w, w->spare[1], 3), FS_OK);
    assert_int_equal(pin(w, w->spare[0], 1), FS_REFUSED);
    assert_int_equal(unpin(w, w->spare[0]), FS_OK);         /* still held by the L3 */
    assert_int_equal(frame(w, w->spare[0])->type_count, 1);
    assert_int_equal(pin(w, w->spare[0], 1), FS_REFUSED);
    assert_int_equal(unpin(w, w->spare[1]), FS_OK);
    assert_int_equal(pin(w, w->spare[0], 1), FS_OK);        /* nobody needs the type: it may change */
}

static void r06_pins_are_counted_once(void **state)
{
    struct world *w = *state;
    uint64_t empty[] = { 0 };
    write_table(w, w->spare[0], 1, empty);
    assert_int_equal(unpin(w, w->spare[0]), FS_REFUSED);
    assert_int_equal(pin(w, w->spare[0], 5), FS_REFUSED);
    assert_int_equal(pin(w, w->spare[0], 1), FS_OK);
    assert_int_equal(pin(w, w->spare[0], 1), FS_REFUSED);
    assert_int_equal(unpin(w, w->spare[0]), FS_OK);
    assert_int_equal(unpin(w, w->spare[0]), FS_REFUSED);
}

static void r07_no_linear_tables(void **state)
{
    struct world *w = *state;
    uint64_t self[] = { pte(w->spare[0], 0) };
    for (uint8_t level = 2; level <= 4; level++) {
        write_table(w, w->spare[0], 1, self);
        assert_int_equal(pin(w, w->spare[0], level), FS_REFUSED);
    }
    write_table(w, w->spare[0], 1, self);
    assert_int_equal(pin(w, w->spare[0], 1), FS_OK);        /* an L1 may map itself read-only */
}

static void r08_xen_slots(void **state)
{
    struct world *w = *state;
    uint64_t e[512] = { 0 };
    for (uint32_t i = EMB_XEN_SLOT_FIRST; i < EMB_XEN_SLOT_END; i++) {
        e[i] = pte(mfn_make(0xdeadbee), EMB_PTE_RW | EMB_PTE_PSE);     /* nonsense that nobody looks at */
    }
    write_table(w, w->spare[0], 512, e);
    assert_int_equal(pin(w, w->spare[0], 4), FS_OK);
    assert_int_not_equal(emb_table(w->m, w->spare[0].n)[EMB_XEN_SLOT_FIRST], e[EMB_XEN_SLOT_FIRST]);
    assert_int_equal(unpin(w, w->spare[0]), FS_OK);
    e[EMB_XEN_SLOT_END] = pte(mfn_make(0xdeadbee), 0);
    write_table(w, w->spare[0], 512, e);
    assert_int_equal(pin(w, w->spare[0], 4), FS_REFUSED);
}

static void r09_xen_marks_entries(void **state)
{
    struct world *w = *state;
    uint64_t e[] = { pte(w->spare[1], EMB_PTE_RW), pte(w->spare[2], EMB_PTE_USER) };
    write_table(w, w->spare[0], 2, e);
    assert_int_equal(pin(w, w->spare[0], 1), FS_OK);
    const uint64_t *t = emb_table(w->m, w->spare[0].n);
    assert_true(t[0] == (e[0] | EMB_PTE_USER | EMB_PTE_KERNEL));
    assert_true(t[1] == (e[1] | EMB_PTE_GLOBAL));
}

static void r10_updates_are_validated(void **state)
{
    struct world *w = *state;
    struct emb_domain *d = emb_domain_find(w->m, w->pv);
    mfn_t foreign = emb_guest_frame(w->m, w->other, 7);
    uint64_t e[] = { pte(w->spare[1], EMB_PTE_RW) }, at = w->spare[0].n << FS_PAGE_SHIFT;
    write_table(w, w->spare[0], 1, e);
    assert_int_equal(pin(w, w->spare[0], 1), FS_OK);
    assert_int_equal(emb_mmu_update(w->m, d, at, pte(foreign, 0)), -EBUSY);
    assert_int_equal(emb_mmu_update(w->m, d, at, pte(w->spare[0], EMB_PTE_RW)), -EBUSY);
    assert_int_equal(emb_mmu_update(w->m, d, at, pte(w->spare[2], EMB_PTE_PCD)), -EINVAL);
    assert_int_equal(emb_mmu_update(w->m, d, at, pte(mfn_make(1ull << 30), 0)), -EPERM);
    assert_int_equal(frame(w, w->spare[1])->type_count, 1); /* four refusals changed nothing */
    assert_int_equal(emb_mmu_update(w->m, d, at, pte(w->spare[2], EMB_PTE_RW)), 0);
    assert_int_equal(frame(w, w->spare[1])->count, 1);
    assert_int_equal(frame(w, w->spare[2])->count, 2);
    assert_int_equal(emb_mmu_update(w->m, d, foreign.n << FS_PAGE_SHIFT, 0), -EINVAL);
    assert_int_equal(emb_mmu_update(w->m, d, (w->spare[3].n << FS_PAGE_SHIFT) + 16, 77), 0);     /* no table: a write */
    assert_int_equal(emb_table(w->m, w->spare[3].n)[2], 77);
    uint64_t empty[] = { 0 };
    write_table(w, w->spare[4], 1, empty);
    assert_int_equal(pin(w, w->spare[4], 4), FS_OK);
    assert_int_equal(emb_mmu_update(w->m, d, (w->spare[4].n << FS_PAGE_SHIFT) + 256 * 8, 0), -EINVAL);
}

/* ---- reservations and offlining ------------------------------------------ */

static void r11_limits_and_nodes(void **state)
{
    struct world *w = *state;
    mfn_t got[8];
    size_t done;
    assert_int_equal(w->ops->increase(w->be, w->pv, 0, 4, got, &done, NULL), FS_NO_ROOM);       /* the limit */
    assert_int_equal(done, 0);
    assert_int_equal(w->ops->set_max_pages(w->be, w->pv, 1024 + SPARES + 6000, NULL), FS_OK);
    assert_int_equal(w->ops->increase(w->be, w->pv, 2, 8, got, &done, NULL), FS_OK);
    for (size_t i = 0; i < done; i++) {
        assert_true(mfn_range_contains(emb_node_range(w->m, 2), got[i]));
    }
    mfn_t *many = calloc(6000, sizeof(*many));
    assert_int_equal(w->ops->increase(w->be, w->pv, 1, 6000, many, &done, NULL), FS_NO_ROOM);   /* node 1 has fewer, the others are not asked */
    assert_true(done > 0 && done < 3000);
    for (size_t i = 0; i < done; i++) {
        assert_true(mfn_range_contains(emb_node_range(w->m, 1), many[i]));
    }
    free(many);
    assert_int_equal(w->ops->increase(w->be, w->pv, 9, 1, got, &done, NULL), FS_REFUSED);
}

static void r12_freed_frames_come_back_first(void **state)
{
    struct world *w = *state;
    mfn_t again;
    size_t done;
    assert_int_equal(give_back(w, w->spare[5]), FS_OK);
    assert_int_equal(w->ops->increase(w->be, w->pv, 0, 1, &again, &done, NULL), FS_OK);
    assert_int_equal(again.n, w->spare[5].n);
    assert_int_equal(mark(w, w->spare[5]), HV_MARK_PENDING_OWNED);
    assert_int_equal(give_back(w, w->spare[5]), FS_OK);
    assert_int_equal(offline_flags(w, w->spare[5]), 1);
    assert_int_equal(w->ops->increase(w->be, w->pv, 0, 1, &again, &done, NULL), FS_OK);
    assert_int_not_equal(again.n, w->spare[5].n);           /* marked: never again */
}

static void r13_a_referenced_frame_is_a_zombie(void **state)
{
    struct world *w = *state;
    int page_err;
    void *p;
    struct hv_domain d;
    assert_int_equal(w->ops->map(w->be, w->pv, &w->spare[0].n, 1, HV_MAP_WRITE, &page_err, &p, NULL), FS_OK);
    assert_int_equal(mark(w, w->spare[0]), HV_MARK_PENDING_OWNED);
    assert_int_equal(give_back(w, w->spare[0]), FS_OK);
    assert_int_equal(give_back(w, w->spare[0]), FS_OK);     /* Xen says so too */
    assert_int_equal(offline_flags(w, w->spare[0]), 2);     /* still there */
    assert_int_equal(w->ops->domain(w->be, w->pv, &d, NULL), FS_OK);
    assert_int_equal(d.tot_pages, 1024 + SPARES);
    memset(p, 1, FS_PAGE_BYTES);
    w->ops->unmap(w->be, p, 1);
    assert_int_equal(offline_flags(w, w->spare[0]), 1);
    assert_int_equal(w->ops->domain(w->be, w->pv, &d, NULL), FS_OK);
    assert_int_equal(d.tot_pages, 1024 + SPARES - 1);
    assert_int_equal(give_back(w, w->spare[0]), FS_REFUSED);
}

static void r14_marks(void **state)
{
    struct world *w = *state;
    struct hv_domain d;
    uint64_t onlined, before = emb_free_pages(w->m);
    mfn_t free_frame = free_frame_of(w, 2), anon = mfn_make(emb_node_range(w->m, 1).start.n);
    assert_int_equal(mark(w, free_frame), HV_MARK_OFFLINED);
    assert_int_equal(emb_free_pages(w->m), before - 1);
    assert_int_equal(mark(w, free_frame), HV_MARK_OFFLINED);
    assert_int_equal(emb_free_pages(w->m), before - 1);
    assert_int_equal(mark(w, mfn_make(1)), HV_MARK_XEN_IMAGE);
    assert_int_equal(mark(w, mfn_make(emb_node_range(w->m, 1).end.n + 3)), HV_MARK_NOT_RAM);
    assert_int_equal(mark(w, anon), HV_MARK_ANON);
    assert_int_equal(w->ops->domain(w->be, w->pv, &d, NULL), FS_OK);
    assert_int_equal(mark(w, d.shared_info), HV_MARK_PENDING_XEN);
    assert_int_equal(w->ops->mark_online(w->be, (struct mfn_range){ free_frame, mfn_add(free_frame, 1) }, &onlined, NULL), FS_OK);
    assert_int_equal(onlined, 1);
    assert_int_equal(emb_free_pages(w->m), before);
}

static void r15_one_cpu_marks_nothing(void **state)
{
    (void)state;
    struct emb_config c = { .nodes = { { 1024, 0 } }, .node_count = 1, .pcpus = 1, .seed = 1 };
    struct emb_machine *m = emb_machine_create(&c);
    struct hv_backend *be = emb_backend(m);
    struct hv_mark_result r[4];
    uint64_t before = emb_free_pages(m);
    assert_int_equal(be->ops->mark_offline(be, (struct mfn_range){ mfn_make(1000), mfn_make(1004) }, r, NULL), FS_UNSUPPORTED);
    assert_int_equal(emb_free_pages(m), before);
    be->ops->close(be);
    emb_machine_destroy(m);
}

static void r16_the_probe(void **state)
{
    struct world *w = *state;
    bool held[4];
    uint64_t calls, empty[] = { 0 };
    int page_err;
    void *p;
    mfn_t list[] = { w->spare[2], w->spare[3], w->spare[4], w->spare[5] };
    assert_int_equal(mark(w, w->spare[2]), HV_MARK_PENDING_OWNED);
    assert_int_equal(w->ops->map(w->be, w->pv, &w->spare[3].n, 1, HV_MAP_READ, &page_err, &p, NULL), FS_OK);
    write_table(w, w->spare[4], 1, empty);
    assert_int_equal(pin(w, w->spare[4], 1), FS_OK);
    assert_int_equal(w->ops->probe_held(w->be, w->pv, list, 4, w->spare, held, &calls, NULL), FS_OK);
    assert_false(held[0]);
    assert_true(held[1]);                                   /* mapped */
    assert_true(held[2]);                                   /* a live table: the caller has not dropped its references */
    assert_false(held[3]);
    assert_true(calls > 1);
    assert_int_equal(offline_flags(w, w->spare[2]), 0);     /* giving back cleared the mark */
    w->ops->unmap(w->be, p, 1);
}

/* ---- vCPUs --------------------------------------------------------------- */

static void r17_a_running_context_is_not_overwritten(void **state)
{
    struct world *w = *state;
    struct hv_pv_vcpu v;
    assert_int_equal(w->ops->vcpu_save(w->be, w->pv, 0, &v, NULL), FS_OK);
    assert_true(v.initialised);
    assert_int_equal(w->ops->vcpu_load(w->be, w->pv, &v, NULL), FS_OK);         /* the same: allowed */
    mfn_t cr3 = v.cr3;
    v.cr3 = v.user_cr3;
    assert_int_equal(w->ops->vcpu_load(w->be, w->pv, &v, NULL), FS_UNSUPPORTED);
    v.cr3 = cr3;
    assert_int_equal(w->ops->vcpu_reset(w->be, w->pv, 0, NULL), FS_OK);
    struct hv_pv_vcpu none;
    assert_int_equal(w->ops->vcpu_save(w->be, w->pv, 0, &none, NULL), FS_OK);
    assert_false(none.initialised);
    assert_int_equal(w->ops->vcpu_load(w->be, w->pv, &v, NULL), FS_OK);
    assert_int_equal(emb_guest_check(w->m, w->pv, NULL), SPARES + 1);           /* the spare frames have no pfn, and the sum of them */
    hv_vcpu_free(&v);
}

static void r18_roots_must_validate(void **state)
{
    struct world *w = *state;
    struct hv_pv_vcpu v;
    uint64_t bad[] = { pte(mfn_make(3), 0) }, empty[] = { 0 };
    assert_int_equal(w->ops->vcpu_save(w->be, w->pv, 1, &v, NULL), FS_OK);
    assert_int_equal(w->ops->vcpu_reset(w->be, w->pv, 1, NULL), FS_OK);
    mfn_t cr3 = v.cr3, gdt0 = v.gdt[0];
    uint32_t gdt_count = frame(w, gdt0)->count;
    write_table(w, w->spare[0], 1, bad);
    v.cr3 = w->spare[0];
    assert_int_equal(w->ops->vcpu_load(w->be, w->pv, &v, NULL), FS_REFUSED);
    assert_int_equal(frame(w, gdt0)->count, gdt_count);     /* the GDT went with it */
    v.cr3 = emb_guest_frame(w->m, w->other, 7);
    assert_int_equal(w->ops->vcpu_load(w->be, w->pv, &v, NULL), FS_REFUSED);
    write_table(w, w->spare[0], 1, empty);
    v.cr3 = w->spare[0];
    assert_int_equal(w->ops->vcpu_load(w->be, w->pv, &v, NULL), FS_OK);         /* an empty L4 validates, pinned or not */
    assert_int_equal(w->ops->vcpu_reset(w->be, w->pv, 1, NULL), FS_OK);
    v.cr3 = cr3;
    assert_int_equal(w->ops->vcpu_load(w->be, w->pv, &v, NULL), FS_OK);
    hv_vcpu_free(&v);
}

static void r19_descriptor_pages(void **state)
{
    struct world *w = *state;
    struct emb_domain *d = emb_domain_find(w->m, w->pv);
    struct emb_vcpu *v = &d->vcpus[1];
    uint64_t gate[] = { (0x0000ec00ull | 1u << 15) << 32 }, fine[] = { (uint64_t)((1u << 15) | (3u << 13) | (1u << 12)) << 32 };
    write_table(w, w->spare[0], 1, gate);
    assert_int_equal(emb_set_gdt(w->m, d, v, &w->spare[0].n, 16), -EINVAL);     /* a call gate to privilege 0 code */
    write_table(w, w->spare[0], 1, fine);
    int page_err;
    void *p;
    assert_int_equal(w->ops->map(w->be, w->pv, &w->spare[0].n, 1, HV_MAP_WRITE, &page_err, &p, NULL), FS_OK);
    assert_int_equal(emb_set_gdt(w->m, d, v, &w->spare[0].n, 16), -EINVAL);     /* writable somewhere */
    w->ops->unmap(w->be, p, 1);
    assert_true(v->gdt_entries > 0);                        /* refusals left the old one */
    uint64_t many[HV_GDT_FRAMES] = { 0 };
    assert_int_equal(emb_set_gdt(w->m, d, v, many, 8192), -EINVAL);             /* the last two pages are Xen's */
    assert_int_equal(emb_set_gdt(w->m, d, v, &w->spare[0].n, 16), 0);
    assert_int_equal(map_err(w, w->pv, w->spare[0].n, HV_MAP_WRITE), EBUSY);
}

static void r20_reset_leaves_the_ldt(void **state)
{
    struct world *w = *state;
    struct emb_domain *d = emb_domain_find(w->m, w->pv);
    uint64_t ldt = d->vcpus[0].ldt_mapped[0];
    assert_true(ldt != 0);
    assert_int_equal(emb_frame_at(w->m, ldt)->type, EMB_T_SEGDESC);
    assert_int_equal(w->ops->vcpu_reset(w->be, w->pv, 0, NULL), FS_OK);
    assert_int_equal(d->vcpus[0].gdt_entries, 0);
    assert_int_equal(d->vcpus[0].ldt_mapped[0], ldt);
    assert_int_equal(emb_frame_at(w->m, ldt)->type_count, 1);
}

static void r21_a_vcpu_without_state_is_death(void **state)
{
    struct world *w = *state;
    uint64_t stopped;
    assert_int_equal(w->ops->suspend(w->be, w->other, 1000000, &stopped, NULL), FS_OK);
    assert_int_equal(w->ops->resume(w->be, w->other, NULL), FS_OK);
    assert_true(emb_guest_alive(w->m, w->other));
    assert_int_equal(w->ops->suspend(w->be, w->other, 1000000, &stopped, NULL), FS_OK);
    assert_int_equal(w->ops->vcpu_reset(w->be, w->other, 1, NULL), FS_OK);
    assert_int_equal(w->ops->resume(w->be, w->other, NULL), FS_OK);
    assert_false(emb_guest_alive(w->m, w->other));
    assert_true(emb_guest_check(w->m, w->other, NULL) > 0);
}

/* ---- translated domains -------------------------------------------------- */

static fs_status_t populate(struct world *w, uint64_t gfn, unsigned order)
{
    size_t done;
    gfn_t g = gfn_make(gfn);
    return w->ops->populate(w->be, w->hap, 2, order, &g, 1, &done, NULL);
}

static fs_status_t remap(struct world *w, uint64_t from, uint64_t to)
{
    size_t done;
    gfn_t f = gfn_make(from), t = gfn_make(to);
    return w->ops->remap(w->be, w->hap, &f, &t, 1, &done, NULL);
}

static void r22_remap(void **state)
{
    struct world *w = *state;
    assert_int_equal(w->ops->set_max_pages(w->be, w->hap, 5000, NULL), FS_OK);
    assert_int_equal(populate(w, 0x200000, 0), FS_OK);
    assert_int_equal(remap(w, 0x200001, 0x300), FS_REFUSED);                    /* a hole */
    mfn_t fresh = emb_guest_frame(w->m, w->hap, 0x200000), old = emb_guest_frame(w->m, w->hap, 0x300);
    frame(w, fresh)->m2p1 = 0x999;
    assert_int_equal(remap(w, 0x200000, 0x300), FS_REFUSED);                    /* EXDEV: the M2P names another gfn */
    frame(w, fresh)->m2p1 = 0x200001;
    assert_int_equal(mark(w, old), HV_MARK_PENDING_OWNED);
    assert_int_equal(remap(w, 0x200000, 0x300), FS_OK);
    assert_int_equal(emb_guest_frame(w->m, w->hap, 0x300).n, fresh.n);
    assert_true(mfn_is_none(emb_guest_frame(w->m, w->hap, 0x200000)));
    assert_int_equal(offline_flags(w, old), 1);
    assert_true(emb_guest_check(w->m, w->hap, NULL) > 0);                       /* its bytes were not copied */
}

static void r23_a_held_frame_moved_makes_deaf(void **state)
{
    struct world *w = *state;
    const struct emb_domain *d = emb_domain_find(w->m, w->hap);
    uint64_t gfn = 0;
    for (uint32_t i = 0; i < d->held_count; i++) {
        gfn = d->held[i].kind == EMB_HELD_VCPU_INFO && d->held[i].vcpu == 1 ? d->held[i].gfn : gfn;
    }
    mfn_t old = emb_guest_frame(w->m, w->hap, gfn);
    assert_int_equal(w->ops->set_max_pages(w->be, w->hap, 5000, NULL), FS_OK);
    assert_int_equal(populate(w, 0x200000, 0), FS_OK);
    memcpy(emb_bytes(w->m, emb_guest_frame(w->m, w->hap, 0x200000).n), emb_bytes(w->m, old.n), FS_PAGE_BYTES);
    assert_int_equal(remap(w, 0x200000, gfn), FS_OK);
    assert_true(frame(w, old)->count > 0);                  /* Xen keeps its frame */
    emb_xen_tick(w->m, 50);
    assert_false(emb_guest_alive(w->m, w->hap));
}

static void r24_populate_and_depopulate(void **state)
{
    struct world *w = *state;
    size_t done;
    gfn_t sp = gfn_make(0x200000), hole = gfn_make(0x3fffff);
    assert_int_equal(populate(w, 0x200000, FS_SP_ORDER), FS_NO_ROOM);           /* the limit */
    assert_int_equal(w->ops->set_max_pages(w->be, w->hap, 5000, NULL), FS_OK);
    assert_int_equal(populate(w, 0x200001, FS_SP_ORDER), FS_REFUSED);           /* unaligned */
    assert_int_equal(populate(w, 0x200000, FS_SP_ORDER), FS_OK);
    mfn_t first = emb_guest_frame(w->m, w->hap, 0x200000);
    assert_int_equal(first.n % FS_SP_PAGES, 0);
    assert_int_equal(emb_guest_frame(w->m, w->hap, 0x2001ff).n, first.n + 511);
    assert_int_equal(w->ops->depopulate(w->be, w->hap, 0, &hole, 1, &done, NULL), FS_REFUSED);
    assert_int_equal(w->ops->depopulate(w->be, w->hap, FS_SP_ORDER, &sp, 1, &done, NULL), FS_OK);
    assert_true(mfn_is_none(emb_guest_frame(w->m, w->hap, 0x200100)));
    uint64_t orphan = emb_guest_frame(w->m, w->hap, 0x300).n;
    assert_int_equal(populate(w, 0x300, 0), FS_OK);         /* over a frame: Xen lets that frame be lost */
    struct hv_frame f;
    assert_int_equal(w->ops->frames(w->be, (struct mfn_range){ mfn_make(orphan), mfn_make(orphan + 1) }, &f, NULL), FS_OK);
    assert_int_equal(f.owner, HV_FRAME_UNOWNED);            /* no gfn leads to it: nobody finds it */
    assert_true(emb_guest_check(w->m, w->hap, NULL) > 0);
}

static void r25_foreign_mappings_of_gfns(void **state)
{
    struct world *w = *state;
    mfn_t m = emb_guest_frame(w->m, w->hap, 0x310);
    uint64_t gfn = 0x310;
    int page_err;
    void *p;
    size_t done;
    gfn_t g = gfn_make(gfn);
    assert_int_equal(map_err(w, w->hap, 0x3ffff0, HV_MAP_READ), EINVAL);
    assert_int_equal(w->ops->map(w->be, w->hap, &gfn, 1, HV_MAP_WRITE, &page_err, &p, NULL), FS_OK);
    assert_int_equal(frame(w, m)->count, 2);
    assert_int_equal(frame(w, m)->type_count, 0);
    assert_int_equal(mark(w, m), HV_MARK_PENDING_OWNED);
    assert_int_equal(w->ops->depopulate(w->be, w->hap, 0, &g, 1, &done, NULL), FS_OK);
    assert_int_equal(offline_flags(w, m), 2);               /* only when the mapping goes */
    w->ops->unmap(w->be, p, 1);
    assert_int_equal(offline_flags(w, m), 1);
}

static void r26_the_dirty_log(void **state)
{
    struct world *w = *state;
    uint64_t bits[1024] = { 0 }, dirty, supers = emb_guest_superpages(w->m, w->hap);
    assert_int_equal(w->ops->dirty_enable(w->be, w->pv, NULL), FS_UNSUPPORTED);
    assert_int_equal(w->ops->dirty_read(w->be, w->hap, bits, 1024, true, &dirty, NULL), FS_REFUSED);
    assert_int_equal(w->ops->dirty_enable(w->be, w->hap, NULL), FS_OK);
    assert_int_equal(w->ops->dirty_enable(w->be, w->hap, NULL), FS_REFUSED);
    uint32_t written = emb_guest_run(w->m, w->hap, 20);
    assert_int_equal(w->ops->dirty_read(w->be, w->hap, bits, 1024, false, &dirty, NULL), FS_OK);
    assert_true(dirty > 0 && dirty <= written);
    assert_int_equal(w->ops->dirty_read(w->be, w->hap, bits, 1024, true, &dirty, NULL), FS_OK);
    assert_true(dirty > 0);
    assert_int_equal(w->ops->dirty_read(w->be, w->hap, bits, 1024, true, &dirty, NULL), FS_OK);
    assert_int_equal(dirty, 0);
    assert_true(emb_guest_superpages(w->m, w->hap) < supers);                   /* written extents are split */
    assert_int_equal(w->ops->dirty_disable(w->be, w->hap, NULL), FS_OK);
    assert_int_equal(w->ops->dirty_disable(w->be, w->hap, NULL), FS_REFUSED);
}

/* ---- run state ----------------------------------------------------------- */

static void r27_pauses_and_suspends(void **state)
{
    struct world *w = *state;
    uint64_t stopped;
    assert_int_equal(w->ops->unpause(w->be, w->hap, NULL), FS_REFUSED);
    assert_int_equal(w->ops->pause(w->be, w->hap, NULL), FS_OK);
    assert_int_equal(w->ops->pause(w->be, w->hap, NULL), FS_OK);
    assert_int_equal(w->ops->unpause(w->be, w->hap, NULL), FS_OK);
    assert_int_equal(emb_guest_run(w->m, w->hap, 20), 0);
    assert_int_equal(w->ops->unpause(w->be, w->hap, NULL), FS_OK);
    assert_true(emb_guest_run(w->m, w->hap, 20) > 0);
    assert_int_equal(w->ops->suspend(w->be, w->hap, 1000, &stopped, NULL), FS_REFUSED);     /* not a PV guest */
    assert_int_equal(w->ops->suspend(w->be, w->other, 1000, &stopped, NULL), FS_OK);
    assert_int_equal(emb_guest_run(w->m, w->other, 20), 0);
    assert_int_equal(w->ops->suspend(w->be, w->other, 1000, &stopped, NULL), FS_REFUSED);
    assert_int_equal(w->ops->resume(w->be, w->other, NULL), FS_OK);
    assert_true(emb_guest_run(w->m, w->other, 20) > 0);
    assert_int_equal(w->ops->pause(w->be, w->other, NULL), FS_OK);
    assert_int_equal(w->ops->suspend(w->be, w->other, 1000, &stopped, NULL), FS_TIMEOUT);   /* it cannot answer */
    assert_int_equal(w->ops->unpause(w->be, w->other, NULL), FS_OK);
    assert_true(emb_guest_run(w->m, w->other, 20) > 0);
}

static void r28_death(void **state)
{
    struct world *w = *state;
    mfn_t own = emb_guest_frame(w->m, w->pv, 9);
    int page_err;
    void *p;
    size_t done;
    struct hv_domain d;
    assert_int_equal(w->ops->map(w->be, w->pv, &own.n, 1, HV_MAP_READ, &page_err, &p, NULL), FS_OK);
    assert_int_equal(emb_domain_destroy(w->m, w->pv), 0);
    assert_int_equal(w->ops->domain(w->be, w->pv, &d, NULL), FS_OK);
    assert_true(d.dying);
    assert_int_equal(d.tot_pages, 1);                       /* the frame that we have mapped */
    assert_int_equal(w->ops->increase(w->be, w->pv, 0, 1, w->spare, &done, NULL), FS_GUEST_GONE);
    w->ops->unmap(w->be, p, 1);
    assert_int_equal(w->ops->domain(w->be, w->pv, &d, NULL), FS_GUEST_GONE);
    assert_int_equal(w->ops->pause(w->be, w->pv, NULL), FS_GUEST_GONE);
}

static void r29_a_killed_tool_unmaps(void **state)
{
    struct world *w = *state;
    mfn_t own = emb_guest_frame(w->m, w->pv, 9);
    uint32_t count = frame(w, own)->count;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int page_err;
        void *p;
        struct hv_backend *be = emb_backend(w->m);
        (void)be->ops->map(be, w->pv, &own.n, 1, HV_MAP_WRITE, &page_err, &p, NULL);
        (void)be->ops->pause(be, w->pv, NULL);
        _exit(0);                       /* closes nothing */
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(frame(w, own)->count, count + 1);
    emb_machine_reap(w->m);
    assert_int_equal(frame(w, own)->count, count);
    assert_int_equal(emb_domain_pause_count(w->m, w->pv), 1);                   /* that stays */
}

static void r30_save_and_restore(void **state)
{
    struct world *w = *state;
    char path[] = "/tmp/emb-save-XXXXXX";
    int fd = mkstemp(path);
    uint16_t ids[] = { w->other, w->hap };
    assert_true(fd >= 0);
    for (size_t i = 0; i < 2; i++) {
        uint16_t again = 0;
        struct hv_domain d;
        assert_true(emb_guest_run(w->m, ids[i], 100) > 0);
        assert_int_equal(w->ops->save(w->be, ids[i], path, NULL), FS_OK);
        assert_int_equal(w->ops->domain(w->be, ids[i], &d, NULL), FS_GUEST_GONE);
        assert_int_equal(w->ops->restore(w->be, path, &again, NULL), FS_OK);
        assert_int_not_equal(again, ids[i]);
        assert_int_equal(emb_guest_check(w->m, again, stderr), 0);
        assert_true(emb_guest_run(w->m, again, 100) > 0);
        assert_int_equal(emb_guest_check(w->m, again, stderr), 0);
        assert_int_equal(truncate(path, 5000), 0);
        assert_int_equal(w->ops->restore(w->be, path, &again, NULL), FS_BAD_INPUT);
    }
    (void)close(fd);
    (void)unlink(path);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(r01_only_own_frames), T(r02_entries_lead_to_own_frames), T(r03_tables_are_never_writable), T(r04_bits_of_entries),
        T(r05_types_are_exclusive), T(r06_pins_are_counted_once), T(r07_no_linear_tables), T(r08_xen_slots), T(r09_xen_marks_entries),
        T(r10_updates_are_validated), T(r11_limits_and_nodes), T(r12_freed_frames_come_back_first), T(r13_a_referenced_frame_is_a_zombie),
        T(r14_marks), T(r15_one_cpu_marks_nothing), T(r16_the_probe), T(r17_a_running_context_is_not_overwritten), T(r18_roots_must_validate),
        T(r19_descriptor_pages), T(r20_reset_leaves_the_ldt), T(r21_a_vcpu_without_state_is_death), T(r22_remap),
        T(r23_a_held_frame_moved_makes_deaf), T(r24_populate_and_depopulate), T(r25_foreign_mappings_of_gfns), T(r26_the_dirty_log),
        T(r27_pauses_and_suspends), T(r28_death), T(r29_a_killed_tool_unmaps), T(r30_save_and_restore),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
