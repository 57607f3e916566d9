/*
 * hc_mmu.c - mmu_update, mmuext_op, update_va_mapping and set_gdt of a core domain (public/xen.h).
 *
 * Owns: nothing; mmu.c and vcpu.c hold the rules.
 * Invariants: I1 after any change of an entry the direct map shows it (direct.c); user TLBs are flushed
 * only as asked, but for changes of L2 to L4 entries, after which Xen flushes too;
 * I2 lists stop at the first failure; *done says how many were done.
 * Rules: foreigndom must be the caller; MMUEXT ops that Xen reserves to others are refused alike.
 * Lock order: the machine's lock is held.
 * Cost: one copy of up to 256 operations at a time.
 */
#include "emb_core.h"

#include <xen/xen.h>

#define BATCH 512u
#define RUN_LEAST 8u                    /* entries that are worth one pass of their own */
#define OPS 64u
#define ALL_VCPUS UINT64_MAX

/* Adjacent entries of one L1 that a call has changed: noted together, for finding what they map is a search. */
struct run { uint64_t mfn; uint32_t index, count; };

static void run_note(struct emb_hcall *h, struct run *run, struct emb_touched *touched)
{
    if (run->count > 0) {
        emb_direct_note(h->m, h->d, run->mfn, run->index, run->count, touched);
    }
    run->count = 0;
}

static void run_add(struct emb_hcall *h, struct run *run, uint64_t mfn, uint32_t index, struct emb_touched *touched)
{
    if (run->count == 0 || run->mfn != mfn || run->index + run->count != index) {
        run_note(h, run, touched);
        *run = (struct run){ .mfn = mfn, .index = index };
    }
    run->count++;
}

static int update_one(struct emb_hcall *h, uint64_t ptr, uint64_t val, struct run *run, struct emb_touched *touched)
{
    uint64_t cmd = ptr & 7, mfn = ptr >> FS_PAGE_SHIFT;
    if (cmd == MMU_MACHPHYS_UPDATE) {
        return emb_machphys_update(h->m, h->d, mfn, val);
    }
    if (cmd > MMU_PT_UPDATE_NO_TRANSLATE) {
        return -ENOSYS;
    }
    ptr &= ~7ull;
    if (!emb_is_ram(h->m, mfn)) {
        return -EINVAL;
    }
    const struct emb_frame *f = emb_frame_at(h->m, mfn);
    enum emb_type type = f->type_count ? (enum emb_type)f->type : EMB_T_NONE;
    uint32_t index = (uint32_t)(ptr & (FS_PAGE_BYTES - 1)) / 8;
    if (cmd == MMU_PT_UPDATE_PRESERVE_AD && type >= EMB_T_L1 && type <= EMB_T_L4) {
        val |= emb_table(h->m, mfn)[index] & (EMB_PTE_A | EMB_PTE_D);
    }
    int rc = emb_mmu_update(h->m, h->d, ptr, val);
    if (rc == 0 && type == EMB_T_L1) {
        run_add(h, run, mfn, index, touched);
    } else if (rc == 0 && type >= EMB_T_L2 && type <= EMB_T_L4) {
        emb_tlb_flush(h->d, ALL_VCPUS);
        run_note(h, run, touched);
        emb_direct_show(h->m, h->d, touched);
        emb_direct_upper(h->m, h->d, (unsigned)type, mfn, index);
    }
    return rc;
}

/* How many of the list are clears of adjacent entries of one L1, done in one pass; 0: go on one by one. */
static uint32_t clear_run(struct emb_hcall *h, const struct mmu_update *list, uint32_t n, struct run *before, struct emb_touched *touched)
{
    uint64_t mfn = list[0].ptr >> FS_PAGE_SHIFT;
    uint32_t index = (uint32_t)(list[0].ptr & (FS_PAGE_BYTES - 1)) / 8, run = 0;
    if ((list[0].ptr & 7) != MMU_NORMAL_PT_UPDATE || !emb_is_ram(h->m, mfn)) {
        return 0;
    }
    while (run < n && index + run < 512 && list[run].val == 0 && list[run].ptr == list[0].ptr + run * 8ull) {
        run++;
    }
    if (run < RUN_LEAST || !emb_l1_clear(h->m, h->d, mfn, index, run)) {
        return 0;
    }
    run_note(h, before, touched);
    emb_direct_cleared(h->m, h->d, mfn, index, run, touched);
    return run;
}

static int report_done(uint64_t at, uint32_t done, int rc)
{
    int copied = at ? emb_to_guest(at, &done, sizeof(done)) : 0;
    return rc ? rc : copied;
}

long emb_hc_mmu_update(struct emb_hcall *h)
{
    struct mmu_update list[BATCH];
    struct emb_touched touched;
    struct run run = { .count = 0 };
    uint32_t count = (uint32_t)h->a[1], done = 0;
    touched.count = touched.cleared = 0;
    uint32_t foreign = (uint32_t)h->a[3];
    int rc = foreign >> 16 ? emb_self_only(h, (uint16_t)((foreign >> 16) - 1)) : 0;
    rc = rc ? rc : emb_self_only(h, (uint16_t)foreign);
    while (rc == 0 && done < count) {
        uint32_t n = count - done < BATCH ? count - done : BATCH, i = 0;
        rc = emb_list_from_guest(h, list, h->a[0] + done * sizeof(list[0]), n * sizeof(list[0]));
        while (rc == 0 && i < n) {
            uint32_t cleared = clear_run(h, &list[i], n - i, &run, &touched);
            rc = cleared ? 0 : update_one(h, list[i].ptr, list[i].val, &run, &touched);
            i += cleared ? cleared : rc == 0;
        }
        done += i;
    }
    run_note(h, &run, &touched);
    emb_direct_show(h->m, h->d, &touched);              /* I1 */
    return report_done(h->a[2], done, rc);
}

/* ---- mmuext_op ----------------------------------------------------------- */

static int vcpus_of(const struct emb_hcall *h, const struct mmuext_op *op, uint64_t *mask)
{
    *mask = 0;
    size_t bytes = (h->d->vcpu_count + 7) / 8;
    uint64_t bits = 0;
    int rc = emb_from_guest(&bits, (uint64_t)(uintptr_t)op->arg2.vcpumask.p, bytes);
    *mask = bits;
    return rc ? -EINVAL : 0;
}

static int new_root(struct emb_hcall *h, uint64_t mfn, bool user)
{
    struct emb_vcpu *v = &h->d->vcpus[h->vcpu];
    uint64_t *root = user ? &v->user_cr3 : &v->cr3, old = *root;
    if (old == mfn) {
        emb_tlb_flush(h->d, 1ull << h->vcpu);
        return 0;
    }
    if (!user || mfn != 0) {
        int rc = emb_get_page_and_type(h->m, mfn, h->d, EMB_T_L4);
        if (rc) {
            return rc;
        }
    }
    if (!user) {
        emb_destroy_ldt(h->m, v);       /* Xen forgets mapped LDT pages with the root that they were found by */
    }
    *root = mfn;
    if (old) {
        emb_put_page_and_type(h->m, old);
    }
    emb_tlb_flush(h->d, 1ull << h->vcpu);
    if (!user) {
        emb_direct_sync(h->m, h->d);
    }
    return 0;
}

static int set_ldt(struct emb_hcall *h, uint64_t base, uint32_t entries)
{
    struct emb_vcpu *v = &h->d->vcpus[h->vcpu];
    if (entries > 8192 || (entries && (base & (FS_PAGE_BYTES - 1)))) {
        return -EINVAL;
    }
    if (v->ldt_entries != entries || v->ldt_base != base) {
        emb_destroy_ldt(h->m, v);
        v->ldt_base = base;
        v->ldt_entries = entries;
    }
    return 0;
}

static int clear_page(struct emb_hcall *h, uint64_t mfn)
{
    int rc = emb_get_page_and_type(h->m, mfn, h->d, EMB_T_WRITABLE);
    if (rc == 0) {
        memset(emb_bytes(h->m, mfn), 0, FS_PAGE_BYTES);
        emb_put_page_and_type(h->m, mfn);
    }
    return rc ? -EINVAL : 0;
}

static int flush_op(struct emb_hcall *h, const struct mmuext_op *op)
{
    uint64_t mask = 1ull << h->vcpu;
    bool multi = op->cmd == MMUEXT_TLB_FLUSH_MULTI || op->cmd == MMUEXT_INVLPG_MULTI;
    bool one = op->cmd == MMUEXT_INVLPG_LOCAL || op->cmd == MMUEXT_INVLPG_MULTI || op->cmd == MMUEXT_INVLPG_ALL;
    if (multi && vcpus_of(h, op, &mask) != 0) {
        return -EINVAL;
    }
    if (op->cmd == MMUEXT_TLB_FLUSH_ALL || op->cmd == MMUEXT_INVLPG_ALL) {
        mask = ALL_VCPUS;
    }
    if (one) {
        emb_tlb_invlpg(h->d, mask, op->arg1.linear_addr);
    } else {
        emb_tlb_flush(h->d, mask);
    }
    return 0;
}

static int ext_one(struct emb_hcall *h, const struct mmuext_op *op)
{
    switch (op->cmd) {
    case MMUEXT_PIN_L1_TABLE: case MMUEXT_PIN_L2_TABLE: case MMUEXT_PIN_L3_TABLE: case MMUEXT_PIN_L4_TABLE:
        return emb_pin(h->m, h->d, op->arg1.mfn, op->cmd - MMUEXT_PIN_L1_TABLE + 1);
    case MMUEXT_UNPIN_TABLE: return emb_unpin(h->m, h->d, op->arg1.mfn);
    case MMUEXT_NEW_BASEPTR: return new_root(h, op->arg1.mfn, false);
    case MMUEXT_NEW_USER_BASEPTR: return new_root(h, op->arg1.mfn, true);
    case MMUEXT_TLB_FLUSH_LOCAL: case MMUEXT_INVLPG_LOCAL: case MMUEXT_TLB_FLUSH_MULTI: case MMUEXT_INVLPG_MULTI:
    case MMUEXT_TLB_FLUSH_ALL: case MMUEXT_INVLPG_ALL:
        return flush_op(h, op);
    case MMUEXT_SET_LDT: return set_ldt(h, op->arg1.linear_addr, op->arg2.nr_ents);
    case MMUEXT_CLEAR_PAGE: return clear_page(h, op->arg1.mfn);
    case MMUEXT_COPY_PAGE: return emb_copy_page(h->m, h->d, op->arg2.src_mfn, op->arg1.mfn);
    case MMUEXT_FLUSH_CACHE: return -EACCES;
    case MMUEXT_FLUSH_CACHE_GLOBAL: return -EINVAL;
    case MMUEXT_MARK_SUPER: case MMUEXT_UNMARK_SUPER: return -EOPNOTSUPP;
    default: return -ENOSYS;
    }
}

long emb_hc_mmuext(struct emb_hcall *h)
{
    uint32_t count = (uint32_t)h->a[1], done = 0;
    int rc = emb_self_only(h, (uint16_t)h->a[3]);
    while (rc == 0 && done < count) {
        struct mmuext_op ops[OPS];
        uint32_t n = count - done < OPS ? count - done : OPS, i = 0;
        rc = emb_from_guest(ops, h->a[0] + done * sizeof(ops[0]), n * sizeof(ops[0]));
        while (rc == 0 && i < n && (rc = ext_one(h, &ops[i])) == 0) {
            i++;
        }
        done += i;
    }
    return report_done(h->a[2], done, rc);
}

/* ---- update_va_mapping, set_gdt ------------------------------------------ */

static int flush_as_asked(struct emb_hcall *h, uint64_t va, uint64_t flags)
{
    uint64_t mask = 1ull << h->vcpu, where = flags & ~(uint64_t)UVMF_FLUSHTYPE_MASK;
    if (where == UVMF_ALL) {
        mask = ALL_VCPUS;
    } else if (where != UVMF_LOCAL) {
        mask = 0;
        if (emb_from_guest(&mask, where, (h->d->vcpu_count + 7) / 8) != 0) {
            return -EINVAL;
        }
    }
    if ((flags & UVMF_FLUSHTYPE_MASK) == UVMF_TLB_FLUSH) {
        emb_tlb_flush(h->d, mask);
    } else if ((flags & UVMF_FLUSHTYPE_MASK) == UVMF_INVLPG) {
        emb_tlb_invlpg(h->d, mask, va);
    }
    return 0;
}

uint64_t emb_l1_of(struct emb_machine *m, uint64_t root, uint64_t va)
{
    uint64_t mfn = root;
    for (unsigned level = 4; level > 1 && mfn != 0; level--) {
        uint64_t e = emb_is_ram(m, mfn) ? emb_table(m, mfn)[va >> (12 + 9 * (level - 1)) & 511] : 0;
        mfn = e & EMB_PTE_P ? emb_pte_mfn(e) : 0;
    }
    return mfn;
}

long emb_hc_update_va(struct emb_hcall *h)
{
    uint64_t va = h->a[0], mfn = emb_l1_of(h->m, h->d->vcpus[h->vcpu].cr3, va);
    if (mfn == 0) {
        return -EINVAL;
    }
    uint32_t index = (uint32_t)(va >> FS_PAGE_SHIFT) & 511;
    int rc = emb_mmu_update(h->m, h->d, (mfn << FS_PAGE_SHIFT) + index * 8, h->a[1]);
    if (rc) {
        return rc;
    }
    emb_direct_touch(h->m, h->d, mfn, index);
    return flush_as_asked(h, va, h->a[2]);
}

long emb_hc_set_gdt(struct emb_hcall *h)
{
    uint64_t frames[HV_GDT_FRAMES];
    uint64_t entries = h->a[1];
    if (entries > 14 * 512) {
        return -EINVAL;
    }
    int rc = emb_from_guest(frames, h->a[0], (entries + 511) / 512 * 8);
    return rc ? rc : emb_set_gdt(h->m, h->d, &h->d->vcpus[h->vcpu], frames, (uint32_t)entries);
}
