/*
 * core_build.c - a PV domain for a kernel of this program: frames, p2m, boot page tables.
 *
 * Owns: struct emb_core's creation and end.
 * Layout: pfn 0 unused, 1 start_info, then the p2m pages, then the boot tables (L4; L3, L2s and L1s of the direct map;
 * L3, L2 and L1s of the p2m list), then free.
 * Invariants: I1 the boot tables map every pfn at the direct map's own address, read-only where it
 * is a table; I2 the p2m list is also mapped at EMB_VA_P2M, a kernel address, so shared_info's p2m_vaddr
 * and p2m_cr3 hold from the start: a mover finds it as it finds Linux's.
 * Lock order: takes the machine's lock.
 * Why frames in ascending runs: each run of frames is one host mapping.
 * Cost: linear in pages.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "emb_guest.h"
#include "emb_core.h"

#include <xen/xen.h>

#define TABLE (EMB_PTE_P | EMB_PTE_RW | EMB_PTE_USER | EMB_PTE_A | EMB_PTE_D)
#define KERNEL_RW (EMB_PTE_P | EMB_PTE_RW | EMB_PTE_A | EMB_PTE_D)
#define KERNEL_RO (EMB_PTE_P | EMB_PTE_A)

static uint64_t p2m_l1s(const struct emb_core_boot *b)
{
    return (b->p2m_pages + 511) / 512;  /* at most 8: EMB_DIRECT_STRIDE */
}

static void lay_out(struct emb_core_boot *b)
{
    uint64_t l1s = (b->pages + 511) / 512, l2s = (l1s + 511) / 512;
    b->start_info = 1;
    b->p2m_first = 2;
    b->p2m_pages = l1s;
    b->tables_first = b->p2m_first + b->p2m_pages;
    b->l4 = b->tables_first;
    b->tables = 2 + l2s + l1s + 2 + p2m_l1s(b);
    b->first_free = b->tables_first + b->tables;
}

static int by_frame(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* The heap gives out the upper part of a split first, so one extent after the other comes from below it: in ascending order they are one run. */
static void sort_extents(struct emb_machine *m, uint32_t *mfn_of, uint64_t pages)
{
    uint64_t extents = 0;
    while ((extents + 1) * FS_SP_PAGES <= pages && mfn_of[extents * FS_SP_PAGES] + FS_SP_PAGES - 1 == mfn_of[(extents + 1) * FS_SP_PAGES - 1]) {
        mfn_of[extents] = mfn_of[extents * FS_SP_PAGES];
        extents++;
    }
    qsort(mfn_of, extents, sizeof(mfn_of[0]), by_frame);
    for (uint64_t i = extents; i-- > 0;) {
        uint32_t mfn = mfn_of[i];
        for (uint64_t k = FS_SP_PAGES; k-- > 0;) {
            mfn_of[i * FS_SP_PAGES + k] = mfn + (uint32_t)k;
        }
    }
    for (uint64_t pfn = 0; pfn < pages; pfn++) {
        emb_frame_at(m, mfn_of[pfn])->m2p1 = pfn + 1;
    }
}

static int take_frames(struct emb_machine *m, struct emb_domain *d, uint32_t *mfn_of, uint64_t pages)
{
    for (uint64_t pfn = 0; pfn < pages;) {
        uint32_t order = FS_SP_ORDER;
        while (pfn + (1ull << order) > pages) {
            order--;
        }
        uint64_t mfn;
        int rc;
        while ((rc = emb_place(m, d, order, &mfn)) == -ENOMEM && order > 0) {
            order--;
        }
        if (rc) {
            return rc;
        }
        for (uint64_t i = 0; i < (1ull << order); i++, pfn++) {
            mfn_of[pfn] = (uint32_t)(mfn + i);
            memset(emb_bytes(m, mfn + i), 0, FS_PAGE_BYTES);
        }
    }
    sort_extents(m, mfn_of, pages);
    return 0;
}

static void write_tables(struct emb_machine *m, const struct emb_core_boot *b, const uint32_t *mfn_of)
{
    uint64_t va = (uint64_t)(uintptr_t)b->direct, l1s = (b->pages + 511) / 512, l2s = (l1s + 511) / 512;
    uint64_t l3 = b->l4 + 1, l2 = l3 + 1, l1 = l2 + l2s;
    emb_table(m, mfn_of[b->l4])[va >> 39 & 511] = (uint64_t)mfn_of[l3] << FS_PAGE_SHIFT | TABLE;
    for (uint64_t i = 0; i < l2s; i++) {
        emb_table(m, mfn_of[l3])[(va >> 30 & 511) + i] = (uint64_t)mfn_of[l2 + i] << FS_PAGE_SHIFT | TABLE;
    }
    for (uint64_t i = 0; i < l1s; i++) {
        emb_table(m, mfn_of[l2 + i / 512])[i % 512] = (uint64_t)mfn_of[l1 + i] << FS_PAGE_SHIFT | TABLE;
    }
    for (uint64_t pfn = 0; pfn < b->pages; pfn++) {
        bool table = pfn >= b->tables_first && pfn < b->first_free;
        emb_table(m, mfn_of[l1 + pfn / 512])[pfn % 512] = (uint64_t)mfn_of[pfn] << FS_PAGE_SHIFT | (table ? KERNEL_RO : KERNEL_RW);
    }
}

/* I2: the list at its kernel address. */
static void write_p2m_tables(struct emb_machine *m, const struct emb_core_boot *b, const uint32_t *mfn_of)
{
    uint64_t l1s = p2m_l1s(b), l3 = b->first_free - l1s - 2, l2 = l3 + 1, l1 = l2 + 1;
    emb_table(m, mfn_of[b->l4])[EMB_VA_P2M >> 39 & 511] = (uint64_t)mfn_of[l3] << FS_PAGE_SHIFT | TABLE;
    emb_table(m, mfn_of[l3])[EMB_VA_P2M >> 30 & 511] = (uint64_t)mfn_of[l2] << FS_PAGE_SHIFT | TABLE;
    for (uint64_t i = 0; i < l1s; i++) {
        emb_table(m, mfn_of[l2])[(EMB_VA_P2M >> 21 & 511) + i] = (uint64_t)mfn_of[l1 + i] << FS_PAGE_SHIFT | TABLE;
    }
    for (uint64_t i = 0; i < b->p2m_pages; i++) {
        emb_table(m, mfn_of[l1 + i / 512])[i % 512] = (uint64_t)mfn_of[b->p2m_first + i] << FS_PAGE_SHIFT | KERNEL_RW;
    }
}

static void write_boot_pages(struct emb_machine *m, struct emb_domain *d, const struct emb_core_boot *b, const uint32_t *mfn_of)
{
    for (uint64_t i = 0; i < b->p2m_pages * 512; i++) {
        emb_table(m, mfn_of[b->p2m_first + i / 512])[i % 512] = i < b->pages ? mfn_of[i] : EMB_P2M_INVALID;
    }
    start_info_t *si = (start_info_t *)(void *)emb_table(m, mfn_of[b->start_info]);
    memcpy(si->magic, "xen-3.0-x86_64", 15);
    si->nr_pages = b->pages;
    si->shared_info = d->shared_info << FS_PAGE_SHIFT;
    si->pt_base = (uint64_t)(uintptr_t)b->direct + b->l4 * FS_PAGE_BYTES;
    si->nr_pt_frames = b->tables;
    si->mfn_list = (uint64_t)(uintptr_t)b->direct + b->p2m_first * FS_PAGE_BYTES;
    shared_info_t *s = (shared_info_t *)(void *)emb_table(m, d->shared_info);
    s->arch.max_pfn = b->pages;
    s->arch.pfn_to_mfn_frame_list_list = UINT64_MAX;
    s->arch.p2m_vaddr = EMB_VA_P2M;
    s->arch.p2m_cr3 = (uint64_t)mfn_of[b->l4] << FS_PAGE_SHIFT;
}

static int start(struct emb_machine *m, struct emb_domain *d, const uint32_t *mfn_of)
{
    uint8_t blob[EMB_VCPU_BLOB_BYTES] = { 0 };
    struct hv_pv_vcpu c = { .online = true, .cr3 = mfn_make(mfn_of[d->core->boot.l4]), .user_cr3 = MFN_NONE, .opaque = blob, .opaque_bytes = sizeof(blob) };
    int rc = emb_pin(m, d, mfn_of[d->core->boot.l4], 4);
    return rc ? rc : emb_vcpu_load(m, d, 0, &c);
}

static int build(struct emb_machine *m, struct emb_domain *d)
{
    struct emb_core *core = d->core = emb_alloc(m, sizeof(*core));
    uint64_t pages = d->config.pages;
    uint32_t *mfn_of = calloc(pages, sizeof(*mfn_of));
    int rc = -ENOMEM;
    if (!core || !mfn_of) {
        goto out;
    }
    core->host_pid = emb_pid();
    core->boot.pages = pages;
    core->boot.direct = (uint8_t *)(uintptr_t)(EMB_DIRECT_BASE + emb_slot(m, d) * EMB_DIRECT_STRIDE);
    lay_out(&core->boot);
    core->mapped = emb_alloc(m, pages * sizeof(core->mapped[0]));
    core->direct_l1 = emb_alloc(m, (pages / 512 + 1) * sizeof(core->direct_l1[0]));
    void *want = core->boot.direct;
    if (!core->mapped || !core->direct_l1 || !emb_direct_parking(m, core) ||
        mmap(want, pages * FS_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) != want) {
        goto out;
    }
    if ((rc = take_frames(m, d, mfn_of, pages)) != 0) {
        goto out;
    }
    write_tables(m, &core->boot, mfn_of);
    write_p2m_tables(m, &core->boot, mfn_of);
    write_boot_pages(m, d, &core->boot, mfn_of);
    rc = start(m, d, mfn_of);
    if (rc == 0) {
        emb_direct_sync(m, d);
        emb_runstate_start(m, d);
    }
out:
    free(mfn_of);
    return rc;
}

int emb_core_create(struct emb_machine *m, const struct emb_core_config *c, uint16_t *domid)
{
    struct emb_domain_config dc = { .kind = HV_DOMAIN_PV, .pages = c->pages, .vcpus = c->vcpus, .node = c->node, .any_node = c->any_node };
    memcpy(dc.name, c->name, sizeof(dc.name));
    if (!m->contents || c->pages < 64 || c->pages * FS_PAGE_BYTES > EMB_DIRECT_STRIDE || c->vcpus == 0 || c->vcpus > EMB_VCPUS_MAX ||
        c->node >= m->config.node_count) {
        return -EINVAL;
    }
    int rc;
    emb_lock(m);
    struct emb_domain *d = emb_domain_new(m, &dc, &rc);
    if (d && (rc = build(m, d)) != 0) {
        emb_domain_kill(m, d);
    } else if (d) {
        *domid = d->domid;
    }
    emb_unlock(m);
    return rc;
}

void emb_core_free(struct emb_machine *m, struct emb_domain *d)
{
    struct emb_core *core = d->core;
    if (!core) {
        return;
    }
    if (core->host_pid == emb_pid() && core->boot.direct) {
        emb_direct_unmap(core, true);
    }
    emb_free(m, core->parked, m->max_mfn / 512);
    emb_free(m, core->mapped, core->boot.pages * sizeof(core->mapped[0]));
    emb_free(m, core->direct_l1, (core->boot.pages / 512 + 1) * sizeof(core->direct_l1[0]));
    emb_free(m, core, sizeof(*core));
    d->core = NULL;
}

int emb_core_boot(struct emb_machine *m, uint16_t domid, struct emb_core_boot *out)
{
    emb_lock(m);
    const struct emb_domain *d = emb_domain_find(m, domid);
    int rc = d && d->core ? 0 : -ESRCH;
    if (rc == 0) {
        *out = d->core->boot;
    }
    emb_unlock(m);
    return rc;
}

uint8_t *emb_core_direct(struct emb_machine *m, uint16_t domid)
{
    struct emb_core_boot b;
    return emb_core_boot(m, domid, &b) == 0 ? b.direct : NULL;
}

struct shared_info *emb_core_shared(struct emb_machine *m, uint16_t domid)
{
    emb_lock(m);
    const struct emb_domain *d = emb_domain_find(m, domid);
    void *p = d && d->core && d->shared_info ? emb_bytes(m, d->shared_info) : NULL;
    emb_unlock(m);
    return p;
}

void emb_core_unmap(struct emb_machine *m, uint16_t domid)
{
    emb_lock(m);
    struct emb_domain *d = emb_domain_find(m, domid);
    if (d && d->core) {
        emb_direct_unmap(d->core, false);
    }
    emb_unlock(m);
}
