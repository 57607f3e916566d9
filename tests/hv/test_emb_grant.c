/*
 * test_emb_grant.c - grants between two core domains: the table, mappings, copies, deaths, hostile callers.
 *
 * One kernel grants, the other maps, as a front end and a driver domain do, by hypercalls with Xen's public structures. After
 * every test the machine's own check counts all references anew.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef __XEN_TOOLS__
#define __XEN_TOOLS__           /* the newest interface version */
#endif
#include <xen/xen.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/grant_table.h>

#include "embedded/core.h"

#define PAGES 512u
#define P 1ull
#define RW 2ull
#define US 4ull

struct kernel {
    struct emb_machine *m;
    uint16_t domid;
    struct emb_core_boot boot;
    uint64_t *p2m;
    grant_entry_v1_t *table;            /* its first shared frame, in its direct map */
    uint64_t table_pfn;
};

struct world {
    struct emb_machine *m;
    struct hv_backend *be;
    struct kernel a, b;                 /* a grants, b maps */
};

static uint64_t ptr(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

static long hc(const struct kernel *k, unsigned nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t args[5] = { a, b, c, d, 0 };
    return emb_hypercall(k->m, k->domid, 0, nr, args);
}

static long op(const struct kernel *k, unsigned cmd, void *arg, uint64_t count)
{
    return hc(k, __HYPERVISOR_grant_table_op, cmd, ptr(arg), count, 0);
}

static uint8_t *page(const struct kernel *k, uint64_t pfn)
{
    return k->boot.direct + pfn * FS_PAGE_BYTES;
}

static long update_va(const struct kernel *k, uint64_t pfn, uint64_t val)
{
    return hc(k, __HYPERVISOR_update_va_mapping, ptr(page(k, pfn)), val, UVMF_INVLPG, 0);
}

/* As Linux maps its table: at an address of its own, here a page that it gives up. */
static void set_up_table(struct kernel *k)
{
    uint64_t frame = 0;
    struct gnttab_setup_table s = { .dom = DOMID_SELF, .nr_frames = 1 };
    set_xen_guest_handle(s.frame_list, &frame);
    assert_int_equal(op(k, GNTTABOP_setup_table, &s, 1), 0);
    assert_int_equal(s.status, GNTST_okay);
    k->table_pfn = k->boot.first_free + 1;
    assert_int_equal(update_va(k, k->table_pfn, frame << 12 | P | RW), 0);
    k->table = (grant_entry_v1_t *)(void *)page(k, k->table_pfn);
}

static void boot(struct world *w, struct kernel *k, const char *name, uint32_t node)
{
    struct emb_core_config c = { .pages = PAGES, .vcpus = 1, .node = node };
    (void)snprintf(c.name, sizeof(c.name), "%s", name);
    k->m = w->m;
    assert_int_equal(emb_core_create(w->m, &c, &k->domid), 0);
    assert_int_equal(emb_core_boot(w->m, k->domid, &k->boot), 0);
    k->p2m = (uint64_t *)(void *)page(k, k->boot.p2m_first);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct emb_config c = { .nodes = { { 4096, 0 }, { 4096, 0 } }, .node_count = 2, .seed = 7 };
    w->m = emb_machine_create(&c);
    w->be = emb_backend(w->m);
    boot(w, &w->a, "granter", 0);
    boot(w, &w->b, "mapper", 1);
    set_up_table(&w->a);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    uint64_t faults = emb_fsck(w->m, stderr);
    (void)emb_domain_destroy(w->m, w->a.domid);         /* gone already in some tests */
    (void)emb_domain_destroy(w->m, w->b.domid);
    faults += emb_fsck(w->m, stderr);
    faults += emb_free_pages(w->m) != 8192 - 64;        /* all but Xen's image: nothing is left of either */
    w->be->ops->close(w->be);
    emb_machine_destroy(w->m);
    free(w);
    return faults ? -1 : 0;
}

static void grant(struct kernel *k, uint32_t ref, uint64_t pfn, uint16_t to, uint16_t flags)
{
    k->table[ref].domid = to;
    k->table[ref].frame = (uint32_t)k->p2m[pfn];
    k->table[ref].flags = flags;
}

static struct gnttab_map_grant_ref map_at(const struct kernel *k, uint64_t addr, uint16_t granter, uint32_t ref, uint32_t flags)
{
    struct gnttab_map_grant_ref o = { .host_addr = addr, .flags = flags, .ref = ref, .dom = granter, .status = 99 };
    assert_int_equal(op(k, GNTTABOP_map_grant_ref, &o, 1), 0);
    return o;
}

static int unmap_at(const struct kernel *k, uint64_t addr, uint64_t bus, uint32_t handle)
{
    struct gnttab_unmap_grant_ref o = { .host_addr = addr, .dev_bus_addr = bus, .handle = handle, .status = 99 };
    assert_int_equal(op(k, GNTTABOP_unmap_grant_ref, &o, 1), 0);
    return o.status;
}

/* Two pfns whose frames the tests grant and map over. */
static uint64_t data_pfn(const struct kernel *k) { return k->boot.first_free + 10; }
static uint64_t hole_pfn(const struct kernel *k) { return k->boot.first_free + 20; }

/* ---- the table ----------------------------------------------------------- */

static void the_table_is_its_owners(void **state)
{
    struct world *w = *state;
    uint64_t frames[8] = { 0 };
    struct gnttab_query_size q = { .dom = DOMID_SELF };
    assert_int_equal(op(&w->a, GNTTABOP_query_size, &q, 1), 0);
    assert_int_equal(q.status, GNTST_okay);
    assert_int_equal(q.nr_frames, 1);
    struct gnttab_setup_table s = { .dom = w->a.domid, .nr_frames = q.max_nr_frames };
    set_xen_guest_handle(s.frame_list, frames);
    assert_int_equal(op(&w->a, GNTTABOP_setup_table, &s, 1), 0);
    assert_int_equal(s.status, GNTST_okay);
    for (uint32_t i = 0; i < q.max_nr_frames; i++) {
        assert_int_equal(update_va(&w->a, w->a.boot.first_free + 2 + i, frames[i] << 12 | P | RW), 0);
    }
    assert_int_equal(op(&w->a, GNTTABOP_query_size, &q, 1), 0);
    assert_int_equal(q.nr_frames, q.max_nr_frames);
    s.nr_frames = q.max_nr_frames + 1;
    assert_int_equal(op(&w->a, GNTTABOP_setup_table, &s, 1), 0);
    assert_int_equal(s.status, GNTST_general_error);
    assert_int_equal(op(&w->a, GNTTABOP_setup_table, &s, 2), -EINVAL);
    assert_int_equal(op(&w->a, GNTTABOP_query_size, &q, 0), -EINVAL);
    s = (struct gnttab_setup_table){ .dom = w->b.domid, .nr_frames = 1 };
    assert_int_equal(op(&w->a, GNTTABOP_setup_table, &s, 1), 0);
    assert_int_equal(s.status, GNTST_permission_denied);
    q.dom = 999;
    assert_int_equal(op(&w->a, GNTTABOP_query_size, &q, 1), 0);
    assert_int_equal(q.status, GNTST_bad_domain);
    s = (struct gnttab_setup_table){ .dom = DOMID_SELF, .nr_frames = 1 };
    assert_int_equal(op(&w->a, GNTTABOP_setup_table, &s, 1), 0);        /* nowhere to write the list */
    assert_int_equal(s.status, GNTST_bad_virt_addr);
    assert_int_equal(op(&w->a, GNTTABOP_setup_table, NULL, 1), -EFAULT);
    /* Nobody else's, and no table of pages. */
    assert_int_equal(update_va(&w->b, hole_pfn(&w->b), frames[0] << 12 | P), -EBUSY);
    struct mmuext_op pin = { .cmd = MMUEXT_PIN_L1_TABLE, .arg1.mfn = frames[1] };
    assert_int_equal(update_va(&w->a, w->a.boot.first_free + 3, frames[1] << 12 | P), 0);
    assert_int_equal(hc(&w->a, __HYPERVISOR_mmuext_op, ptr(&pin), 1, 0, DOMID_SELF), -EINVAL);
}

static void only_version_1(void **state)
{
    struct world *w = *state;
    struct gnttab_get_version g = { .dom = DOMID_SELF };
    assert_int_equal(op(&w->a, GNTTABOP_get_version, &g, 1), 0);
    assert_int_equal(g.version, 1);
    g.dom = w->b.domid;
    assert_int_equal(op(&w->a, GNTTABOP_get_version, &g, 1), -EPERM);
    g.dom = 999;
    assert_int_equal(op(&w->a, GNTTABOP_get_version, &g, 1), -ESRCH);
    struct gnttab_set_version s = { .version = 1 };
    assert_int_equal(op(&w->a, GNTTABOP_set_version, &s, 1), 0);
    s.version = 2;
    assert_int_equal(op(&w->a, GNTTABOP_set_version, &s, 1), -ENOSYS);
    assert_int_equal(s.version, 1);                     /* the answer is what it is, also after a refusal */
    s.version = 3;
    assert_int_equal(op(&w->a, GNTTABOP_set_version, &s, 1), -EINVAL);
    assert_int_equal(op(&w->a, GNTTABOP_swap_grant_ref, &s, 1), -ENOSYS);
    assert_int_equal(op(&w->a, GNTTABOP_map_grant_ref, &s, UINT32_MAX), -EINVAL);
    assert_int_equal(op(&w->a, GNTTABOP_map_grant_ref | 1u << 12, &s, 0), -EINVAL);
    assert_int_equal(op(&w->a, GNTTABOP_map_grant_ref, NULL, 1), -EFAULT);
}

/* ---- mappings ------------------------------------------------------------ */

static void a_grant_is_mapped(void **state)
{
    struct world *w = *state;
    uint64_t pfn = data_pfn(&w->a), hole = hole_pfn(&w->b), at = ptr(page(&w->b, hole)), mine = w->b.p2m[hole];
    memset(page(&w->a, pfn), 0xaa, FS_PAGE_BYTES);
    assert_int_equal(update_va(&w->b, hole, 0), 0);
    grant(&w->a, 9, pfn, w->b.domid, GTF_permit_access);
    struct gnttab_map_grant_ref o = map_at(&w->b, at, w->a.domid, 9, GNTMAP_host_map);
    assert_int_equal(o.status, GNTST_okay);
    assert_int_equal(o.dev_bus_addr, w->a.p2m[pfn] << 12);
    assert_int_equal(w->a.table[9].flags, GTF_permit_access | GTF_reading | GTF_writing);
    assert_int_equal(page(&w->b, hole)[7], 0xaa);
    page(&w->b, hole)[7] = 0xbb;
    assert_int_equal(page(&w->a, pfn)[7], 0xbb);
    /* A second one, read-only: bits go as the last user of each kind does. */
    assert_int_equal(update_va(&w->b, hole + 1, 0), 0);
    struct gnttab_map_grant_ref r = map_at(&w->b, at + 4096, w->a.domid, 9, GNTMAP_host_map | GNTMAP_readonly);
    assert_int_equal(r.status, GNTST_okay);
    assert_int_not_equal(r.handle, o.handle);
    assert_int_equal(emb_fsck(w->m, stderr), 0);
    assert_int_equal(unmap_at(&w->b, at + 4096, 0, o.handle), GNTST_general_error);    /* that entry is read-only */
    assert_int_equal(unmap_at(&w->b, at, 0, o.handle), GNTST_okay);
    assert_int_equal(w->a.table[9].flags, GTF_permit_access | GTF_reading);
    assert_int_equal(unmap_at(&w->b, at, 0, o.handle), GNTST_bad_handle);
    assert_int_equal(unmap_at(&w->b, at + 4096, 0, r.handle), GNTST_okay);
    assert_int_equal(w->a.table[9].flags, GTF_permit_access);
    assert_int_equal(update_va(&w->b, hole, mine << 12 | P | RW), 0);
}

static void who_may_map_and_what(void **state)
{
    struct world *w = *state;
    uint64_t pfn = data_pfn(&w->a), at = ptr(page(&w->b, hole_pfn(&w->b)));
    uint32_t host = GNTMAP_host_map;
    grant(&w->a, 8, pfn, w->b.domid, GTF_permit_access | GTF_readonly);
    assert_int_equal(map_at(&w->b, at, w->a.domid, 8, host).status, GNTST_general_error);
    assert_int_equal(w->a.table[8].flags, GTF_permit_access | GTF_readonly);
    assert_int_equal(map_at(&w->b, at, w->a.domid, 8, 0).status, GNTST_bad_gntref);        /* neither host nor device */
    assert_int_equal(map_at(&w->b, at, 999, 8, host).status, GNTST_bad_domain);
    assert_int_equal(map_at(&w->b, at, DOMID_SELF, 8, host).status, GNTST_bad_domain);
    assert_int_equal(map_at(&w->b, at, w->a.domid, 512, host).status, GNTST_bad_gntref);
    assert_int_equal(map_at(&w->b, at, w->a.domid, 511, host).status, GNTST_general_error); /* grants nothing */
    assert_int_equal(map_at(&w->a, ptr(page(&w->a, hole_pfn(&w->a))), w->b.domid, 8, host).status, GNTST_general_error);   /* no table yet */
    grant(&w->a, 8, pfn, 77, GTF_permit_access);
    assert_int_equal(map_at(&w->b, at, w->a.domid, 8, host).status, GNTST_general_error);   /* another's */
    grant(&w->a, 8, pfn, w->b.domid, GTF_accept_transfer);
    assert_int_equal(map_at(&w->b, at, w->a.domid, 8, host).status, GNTST_general_error);
    grant(&w->a, 8, pfn, w->b.domid, GTF_permit_access | GTF_sub_page);
    assert_int_equal(map_at(&w->b, at, w->a.domid, 8, host).status, GNTST_general_error);
    grant(&w->a, 8, pfn, w->b.domid, GTF_permit_access);
    w->a.table[8].frame = (uint32_t)w->b.p2m[data_pfn(&w->b)];                              /* not the granter's */
    assert_int_equal(map_at(&w->b, at, w->a.domid, 8, host).status, GNTST_bad_page);
    w->a.table[8].frame = UINT32_MAX;
    assert_int_equal(map_at(&w->b, at, w->a.domid, 8, host).status, GNTST_bad_page);
    assert_int_equal(w->a.table[8].flags, GTF_permit_access);                               /* no bit stays of a refusal */
    grant(&w->a, 8, w->a.boot.l4, w->b.domid, GTF_permit_access);                           /* a table: to read, not to write */
    assert_int_equal(map_at(&w->b, at, w->a.domid, 8, host).status, GNTST_general_error);
    struct gnttab_map_grant_ref r = map_at(&w->b, at, w->a.domid, 8, host | GNTMAP_readonly);
    assert_int_equal(r.status, GNTST_okay);
    assert_int_equal(unmap_at(&w->b, at, 0, r.handle), GNTST_okay);
    assert_int_equal(unmap_at(&w->b, at, 0, 77777), GNTST_bad_handle);
    /* One's own, as itself. */
    grant(&w->a, 8, pfn, w->a.domid, GTF_permit_access);
    uint64_t self = ptr(page(&w->a, hole_pfn(&w->a)));
    r = map_at(&w->a, self, w->a.domid, 8, host);
    assert_int_equal(r.status, GNTST_okay);
    assert_int_equal(unmap_at(&w->a, self, 0, r.handle), GNTST_okay);
}

static void where_a_grant_is_mapped(void **state)
{
    struct world *w = *state;
    uint64_t hole = hole_pfn(&w->b), at = ptr(page(&w->b, hole)), fault;
    uint64_t l1 = w->b.p2m[w->b.boot.tables_first + 3 + hole / 512], slot = (l1 << 12) + hole % 512 * 8;
    uint8_t byte = 0;
    memset(page(&w->a, data_pfn(&w->a)), 0x5a, FS_PAGE_BYTES);
    grant(&w->a, 8, data_pfn(&w->a), w->b.domid, GTF_permit_access);
    assert_int_equal(map_at(&w->b, 0x1000, w->a.domid, 8, GNTMAP_host_map).status, GNTST_general_error);               /* no table there */
    assert_int_equal(map_at(&w->b, slot + 1, w->a.domid, 8, GNTMAP_host_map | GNTMAP_contains_pte).status, GNTST_general_error);
    assert_int_equal(map_at(&w->b, w->b.p2m[hole] << 12, w->a.domid, 8, GNTMAP_host_map | GNTMAP_contains_pte).status, GNTST_general_error);
    assert_int_equal(map_at(&w->b, w->a.p2m[w->a.boot.tables_first + 3] << 12, w->a.domid, 8, GNTMAP_host_map | GNTMAP_contains_pte).status,
                     GNTST_general_error);                                                                              /* another's table */
    struct gnttab_map_grant_ref r = map_at(&w->b, slot, w->a.domid, 8, GNTMAP_host_map | GNTMAP_contains_pte | GNTMAP_application_map);
    assert_int_equal(r.status, GNTST_okay);
    assert_int_equal(emb_vcpu_read(w->m, w->b.domid, 0, true, at, &byte, 1, &fault), 0);    /* user space may */
    assert_int_equal(byte, 0x5a);
    assert_int_equal(unmap_at(&w->b, slot, 0, r.handle), GNTST_okay);
    assert_int_equal(emb_vcpu_read(w->m, w->b.domid, 0, true, at, &byte, 1, &fault), -EFAULT);          /* flushed with it */
    r = map_at(&w->b, at, w->a.domid, 8, GNTMAP_host_map);
    assert_int_equal(emb_vcpu_read(w->m, w->b.domid, 0, true, at, &byte, 1, &fault), -EFAULT);          /* the kernel's */
    assert_int_equal(unmap_at(&w->b, at, 0, r.handle), GNTST_okay);
    /* For a device: no entry, but the frame is held. */
    r = map_at(&w->b, 0, w->a.domid, 8, GNTMAP_device_map);
    assert_int_equal(r.status, GNTST_okay);
    assert_int_equal(emb_fsck(w->m, stderr), 0);
    assert_int_equal(unmap_at(&w->b, 0, r.dev_bus_addr + 4096, r.handle), GNTST_bad_dev_addr);
    assert_int_equal(unmap_at(&w->b, at, 0, r.handle), GNTST_okay);     /* asks for nothing that it has */
    assert_int_equal(w->a.table[8].flags, GTF_permit_access | GTF_reading | GTF_writing);
    assert_int_equal(unmap_at(&w->b, 0, r.dev_bus_addr, r.handle), GNTST_okay);
    assert_int_equal(w->a.table[8].flags, GTF_permit_access);
}

static bool held(struct world *w, uint64_t pfn)
{
    bool is = false;
    uint64_t calls;
    mfn_t one = mfn_make(w->a.p2m[pfn]), spare[2] = { mfn_make(w->a.p2m[pfn + 1]), mfn_make(w->a.p2m[pfn + 2]) };
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(update_va(&w->a, pfn + i, 0), 0);
    }
    assert_int_equal(w->be->ops->probe_held(w->be, w->a.domid, &one, 1, spare, &is, &calls, NULL), FS_OK);
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(update_va(&w->a, pfn + i, w->a.p2m[pfn + i] << 12 | P | RW), 0);
    }
    return is;
}

static int special_of(struct world *w, uint64_t pfn)
{
    struct hv_special *list;
    size_t count;
    int kind = -1;
    assert_int_equal(w->be->ops->specials(w->be, w->a.domid, &list, &count, NULL), FS_OK);
    for (size_t i = 0; i < count; i++) {
        kind = list[i].mfn.n == w->a.p2m[pfn] ? (int)list[i].kind : kind;
    }
    free(list);
    return kind;
}

static void the_engine_sees_grants(void **state)
{
    struct world *w = *state;
    uint64_t pfn = data_pfn(&w->a), at = ptr(page(&w->b, hole_pfn(&w->b)));
    assert_int_equal(special_of(w, pfn), -1);
    assert_false(held(w, pfn));
    grant(&w->a, 8, pfn, w->b.domid, GTF_permit_access);
    assert_int_equal(special_of(w, pfn), HV_SPECIAL_GRANT_OFFERED);
    assert_false(held(w, pfn));
    struct gnttab_map_grant_ref r = map_at(&w->b, at, w->a.domid, 8, GNTMAP_host_map | GNTMAP_readonly);
    assert_int_equal(r.status, GNTST_okay);
    assert_int_equal(special_of(w, pfn), HV_SPECIAL_GRANT_MAPPED);
    assert_true(held(w, pfn));
    w->a.table[8].flags = 0;            /* a granter that lies: Xen's count does not */
    assert_int_equal(special_of(w, pfn), -1);
    assert_true(held(w, pfn));
    w->a.table[8].frame = 0;            /* nor does it change what is mapped */
    assert_int_equal(unmap_at(&w->b, at, 0, r.handle), GNTST_okay);
    assert_false(held(w, pfn));
}

/* How often the watch names that frame. */
static size_t watched(struct world *w, struct hv_grants *g, uint64_t frame, size_t *all)
{
    const uint64_t *frames;
    size_t n = 0;
    assert_int_equal(w->be->ops->grants_read(w->be, g, &frames, all, NULL), FS_OK);
    for (size_t i = 0; i < *all; i++) {
        n += frames[i] == frame;
    }
    return n;
}

/* The watch reads what the guest has written, when it is asked: numbers that lead nowhere too, each as often as it is written. */
static void a_watch_reads_the_guests_word(void **state)
{
    struct world *w = *state;
    uint64_t pfn = data_pfn(&w->a), frame = w->a.p2m[pfn];
    struct hv_grants *g = NULL, *b = NULL;
    size_t all;
    assert_int_equal(w->be->ops->grants_begin(w->be, w->a.domid, &g, NULL), FS_OK);
    assert_int_equal(w->be->ops->grants_begin(w->be, w->b.domid, &b, NULL), FS_OK);       /* it has no table */
    size_t before;
    assert_int_equal(watched(w, g, frame, &before), 0);
    grant(&w->a, 8, pfn, w->b.domid, GTF_permit_access);
    assert_int_equal(watched(w, g, frame, &all), 1);
    assert_int_equal(all, before + 1);
    grant(&w->a, 9, pfn, 0, GTF_permit_access | GTF_readonly);
    assert_int_equal(watched(w, g, frame, &all), 2);
    w->a.table[9].flags = GTF_accept_transfer;                          /* gives nothing away */
    assert_int_equal(watched(w, g, frame, &all), 1);
    w->a.table[9].frame = 0xfffffff0u;                                  /* no frame at all */
    w->a.table[9].flags = GTF_permit_access;
    assert_int_equal(watched(w, g, 0xfffffff0u, &all), 1);
    w->a.table[8].flags = w->a.table[9].flags = 0;
    assert_int_equal(watched(w, g, frame, &all), 0);
    assert_int_equal(all, before);
    assert_int_equal(watched(w, b, frame, &all), 0);
    assert_int_equal(emb_fsck(w->m, stderr), 0);
    w->be->ops->grants_end(w->be, g);
    w->be->ops->grants_end(w->be, b);
}

/* A table that grows is read to its end; a domain that dies stays for as long as its table is watched. */
static void a_watch_follows_the_table(void **state)
{
    struct world *w = *state;
    uint64_t pfn = data_pfn(&w->a), frames[2] = { 0, 0 };
    struct hv_grants *g = NULL;
    struct hv_domain d;
    size_t all;
    assert_int_equal(w->be->ops->grants_begin(w->be, w->a.domid, &g, NULL), FS_OK);
    struct gnttab_setup_table s = { .dom = DOMID_SELF, .nr_frames = 2 };
    set_xen_guest_handle(s.frame_list, frames);
    assert_int_equal(op(&w->a, GNTTABOP_setup_table, &s, 1), 0);
    assert_int_equal(s.status, GNTST_okay);
    assert_int_equal(update_va(&w->a, w->a.table_pfn + 1, frames[1] << 12 | P | RW), 0);
    grant_entry_v1_t *last = (grant_entry_v1_t *)(void *)page(&w->a, w->a.table_pfn + 1) + 511;
    last->frame = (uint32_t)w->a.p2m[pfn];
    last->flags = GTF_permit_access;
    assert_int_equal(watched(w, g, w->a.p2m[pfn], &all), 1);
    assert_int_equal(emb_fsck(w->m, stderr), 0);
    assert_int_equal(emb_domain_destroy(w->m, w->a.domid), 0);
    assert_int_equal(w->be->ops->domain(w->be, w->a.domid, &d, NULL), FS_OK);
    assert_true(d.dying);
    assert_int_equal(emb_fsck(w->m, stderr), 0);
    w->be->ops->grants_end(w->be, g);
    assert_int_equal(w->be->ops->domain(w->be, w->a.domid, &d, NULL), FS_GUEST_GONE);
    assert_int_equal(w->be->ops->grants_begin(w->be, w->a.domid, &g, NULL), FS_GUEST_GONE);
}

/* ---- copies -------------------------------------------------------------- */

static int16_t copy(const struct kernel *k, struct gnttab_copy *c)
{
    c->status = 99;
    assert_int_equal(op(k, GNTTABOP_copy, c, 1), 0);
    return c->status;
}

static void grants_are_copied(void **state)
{
    struct world *w = *state;
    uint64_t from = data_pfn(&w->a), to = data_pfn(&w->b);
    memset(page(&w->a, from), 0x11, FS_PAGE_BYTES);
    memset(page(&w->b, to), 0x22, FS_PAGE_BYTES);
    grant(&w->a, 8, from, w->b.domid, GTF_permit_access | GTF_readonly);
    struct gnttab_copy c = { .len = 300, .flags = GNTCOPY_source_gref };
    c.source = (struct gnttab_copy_ptr){ .u.ref = 8, .domid = w->a.domid, .offset = 100 };
    c.dest = (struct gnttab_copy_ptr){ .u.gmfn = w->b.p2m[to], .domid = DOMID_SELF, .offset = 200 };
    assert_int_equal(copy(&w->b, &c), GNTST_okay);
    assert_int_equal(page(&w->b, to)[199], 0x22);
    assert_int_equal(page(&w->b, to)[200], 0x11);
    assert_int_equal(page(&w->b, to)[499], 0x11);
    assert_int_equal(page(&w->b, to)[500], 0x22);
    assert_int_equal(w->a.table[8].flags, GTF_permit_access | GTF_readonly);       /* its use is over */
    c.dest.offset = 4000;
    assert_int_equal(copy(&w->b, &c), GNTST_bad_copy_arg);
    c.dest.offset = 0;
    c.source.u.ref = 512;
    assert_int_equal(copy(&w->b, &c), GNTST_bad_gntref);
    c.source.domid = 999;
    assert_int_equal(copy(&w->b, &c), GNTST_bad_domain);
    c.len = 0;
    assert_int_equal(copy(&w->b, &c), GNTST_okay);                                  /* nothing to do, nothing to check */
    c.len = 16;
    c.flags = 0;
    assert_int_equal(copy(&w->b, &c), GNTST_permission_denied);                     /* a frame of another, without a grant */
    c.source.domid = w->b.domid;
    assert_int_equal(copy(&w->b, &c), GNTST_permission_denied);                     /* not even by its own domid */
    c.source = (struct gnttab_copy_ptr){ .u.gmfn = w->b.p2m[to], .domid = DOMID_SELF };
    c.dest = (struct gnttab_copy_ptr){ .u.ref = 8, .domid = w->a.domid };
    c.flags = GNTCOPY_dest_gref;
    assert_int_equal(copy(&w->b, &c), GNTST_general_error);                         /* granted to read */
    grant(&w->a, 8, from, w->b.domid, GTF_permit_access);
    assert_int_equal(copy(&w->b, &c), GNTST_okay);
    assert_int_equal(page(&w->a, from)[0], 0x22);
    c.source.u.gmfn = w->a.p2m[from];
    assert_int_equal(copy(&w->b, &c), GNTST_bad_page);
    c.source.u.gmfn = w->b.p2m[to];
    grant(&w->a, 8, w->a.boot.l4, w->b.domid, GTF_permit_access);
    assert_int_equal(copy(&w->b, &c), GNTST_general_error);                         /* a page table is written by nobody */
    assert_int_equal(w->a.table[8].flags, GTF_permit_access);
}

/* ---- ends ---------------------------------------------------------------- */

static void a_dying_granter_waits_for_its_mapper(void **state)
{
    struct world *w = *state;
    uint64_t pfn = data_pfn(&w->a), at = ptr(page(&w->b, hole_pfn(&w->b)));
    struct hv_domain d;
    memset(page(&w->a, pfn), 0x77, FS_PAGE_BYTES);
    grant(&w->a, 8, pfn, w->b.domid, GTF_permit_access);
    struct gnttab_map_grant_ref r = map_at(&w->b, at, w->a.domid, 8, GNTMAP_host_map);
    assert_int_equal(r.status, GNTST_okay);
    assert_int_equal(emb_domain_destroy(w->m, w->a.domid), 0);
    assert_int_equal(w->be->ops->domain(w->be, w->a.domid, &d, NULL), FS_OK);
    assert_true(d.dying);
    assert_int_equal(d.tot_pages, 1);
    assert_int_equal(page(&w->b, hole_pfn(&w->b))[3], 0x77);           /* and still the same bytes */
    assert_int_equal(emb_fsck(w->m, stderr), 0);
    struct gnttab_copy c = { .source = { .u.ref = 8, .domid = w->a.domid }, .dest = { .u.gmfn = w->b.p2m[data_pfn(&w->b)], .domid = DOMID_SELF },
                             .len = 8, .flags = GNTCOPY_source_gref };
    assert_int_equal(copy(&w->b, &c), GNTST_bad_domain);
    uint64_t before = emb_free_pages(w->m);
    assert_int_equal(unmap_at(&w->b, at, 0, r.handle), GNTST_okay);
    assert_int_equal(w->be->ops->domain(w->be, w->a.domid, &d, NULL), FS_GUEST_GONE);
    assert_int_equal(emb_free_pages(w->m), before + 3);                 /* the page, shared_info, the table */
}

static void a_dying_mapper_lets_go(void **state)
{
    struct world *w = *state;
    uint64_t pfn = data_pfn(&w->a), at = ptr(page(&w->b, hole_pfn(&w->b)));
    grant(&w->a, 8, pfn, w->b.domid, GTF_permit_access);
    grant(&w->a, 9, pfn + 1, w->b.domid, GTF_permit_access);
    assert_int_equal(map_at(&w->b, at, w->a.domid, 8, GNTMAP_host_map | GNTMAP_device_map).status, GNTST_okay);
    assert_int_equal(map_at(&w->b, 0, w->a.domid, 9, GNTMAP_device_map | GNTMAP_readonly).status, GNTST_okay);
    assert_int_equal(emb_fsck(w->m, stderr), 0);
    assert_int_equal(emb_domain_destroy(w->m, w->b.domid), 0);
    assert_int_equal(w->a.table[8].flags, GTF_permit_access);
    assert_int_equal(w->a.table[9].flags, GTF_permit_access);
    assert_false(held(w, pfn));
    assert_false(held(w, pfn + 1));
}

/* The entry goes by another way than unmap. */
static void a_lost_entry_leaves_the_grant_in_use(void **state)
{
    struct world *w = *state;
    uint64_t pfn = data_pfn(&w->a), hole = hole_pfn(&w->b), at = ptr(page(&w->b, hole));
    struct hv_domain d;
    grant(&w->a, 8, pfn, w->b.domid, GTF_permit_access);
    struct gnttab_map_grant_ref r = map_at(&w->b, at, w->a.domid, 8, GNTMAP_host_map);
    assert_true(held(w, pfn));
    assert_int_equal(update_va(&w->b, hole, w->b.p2m[hole] << 12 | P | RW), 0);
    assert_false(held(w, pfn));                                         /* the frame is let go */
    assert_int_equal(w->a.table[8].flags, GTF_permit_access | GTF_reading | GTF_writing);      /* the grant is not */
    assert_int_equal(unmap_at(&w->b, at, 0, r.handle), GNTST_general_error);
    assert_int_equal(emb_fsck(w->m, stderr), 0);
    assert_int_equal(emb_domain_destroy(w->m, w->a.domid), 0);          /* nothing holds it back */
    assert_int_equal(w->be->ops->domain(w->be, w->a.domid, &d, NULL), FS_GUEST_GONE);
    assert_int_equal(unmap_at(&w->b, at, 0, r.handle), GNTST_general_error);
    assert_int_equal(w->be->ops->domain(w->be, w->b.domid, &d, NULL), FS_OK);
    assert_true(d.shutdown && d.shutdown_reason == SHUTDOWN_crash);     /* naughty */
}

static void handles_and_uses_run_out(void **state)
{
    struct world *w = *state;
    uint32_t handles = 0, first = 0;
    grant(&w->a, 8, data_pfn(&w->a), w->b.domid, GTF_permit_access);
    for (uint32_t ref = 9; ref < 20; ref++) {
        grant(&w->a, ref, data_pfn(&w->a) + ref, w->b.domid, GTF_permit_access);
    }
    for (int i = 0; i < 128; i++) {
        struct gnttab_map_grant_ref r = map_at(&w->b, 0, w->a.domid, 8, GNTMAP_device_map | GNTMAP_readonly);
        assert_int_equal(r.status, GNTST_okay);
        first = i == 0 ? r.handle : first;
        handles++;
    }
    assert_int_equal(map_at(&w->b, 0, w->a.domid, 8, GNTMAP_device_map | GNTMAP_readonly).status, GNTST_general_error);
    assert_int_equal(emb_fsck(w->m, stderr), 0);
    int status = GNTST_okay;
    for (uint32_t ref = 9; ref < 20 && status == GNTST_okay; ref++) {
        for (int i = 0; i < 128 && status == GNTST_okay; i++) {
            status = map_at(&w->b, 0, w->a.domid, ref, GNTMAP_device_map).status;
            handles += status == GNTST_okay;
        }
    }
    assert_int_equal(status, GNTST_no_space);
    assert_int_equal(handles, 1024);
    assert_int_equal(unmap_at(&w->b, 0, w->a.p2m[data_pfn(&w->a)] << 12, first), GNTST_okay);
    assert_int_equal(map_at(&w->b, 0, w->a.domid, 8, GNTMAP_device_map | GNTMAP_readonly).status, GNTST_okay);
}

/* The mapper lost its entry without a flush, and the granter makes a page table of the page. */
static void a_stale_tlb_writes_no_table(void **state)
{
    struct world *w = *state;
    uint64_t pfn = data_pfn(&w->a), hole = hole_pfn(&w->b), at = ptr(page(&w->b, hole)), fault;
    uint8_t byte = 0xff;
    grant(&w->a, 8, pfn, w->b.domid, GTF_permit_access);
    assert_int_equal(map_at(&w->b, at, w->a.domid, 8, GNTMAP_host_map).status, GNTST_okay);
    assert_int_equal(emb_vcpu_write(w->m, w->b.domid, 0, false, at, &byte, 1, &fault), 0);
    assert_int_equal(page(&w->a, pfn)[0], 0xff);
    uint64_t args[5] = { at, 0, UVMF_NONE, 0, 0 };
    assert_int_equal(emb_hypercall(w->m, w->b.domid, 0, __HYPERVISOR_update_va_mapping, args), 0);      /* and no flush */
    memset(page(&w->a, pfn), 0, FS_PAGE_BYTES);
    assert_int_equal(update_va(&w->a, pfn, w->a.p2m[pfn] << 12 | P), 0);
    struct mmuext_op pin = { .cmd = MMUEXT_PIN_L1_TABLE, .arg1.mfn = w->a.p2m[pfn] };
    assert_int_equal(hc(&w->a, __HYPERVISOR_mmuext_op, ptr(&pin), 1, 0, DOMID_SELF), 0);
    assert_int_equal(emb_vcpu_write(w->m, w->b.domid, 0, false, at, &byte, 1, &fault), -EFAULT);
    assert_int_equal(page(&w->a, pfn)[0], 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(the_table_is_its_owners), T(only_version_1), T(a_grant_is_mapped), T(who_may_map_and_what), T(where_a_grant_is_mapped),
        T(the_engine_sees_grants), T(a_watch_reads_the_guests_word), T(a_watch_follows_the_table), T(grants_are_copied),
        T(a_dying_granter_waits_for_its_mapper), T(a_dying_mapper_lets_go),
        T(a_lost_entry_leaves_the_grant_in_use), T(handles_and_uses_run_out), T(a_stale_tlb_writes_no_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
