/*
 * mmu.c - MMU hypercalls: page-table updates, pins, page copies, the M2P.
 *
 * Owns: nothing; changes entries of validated tables, pins and M2P entries by Xen's rules.
 * Invariants: a call that fails has changed nothing (Xen's too: the new
 * reference is taken before the old one is dropped).
 * Lock order: the machine's lock is held.
 * Rules (public/xen.h: HYPERVISOR_mmu_update, HYPERVISOR_mmuext_op; arch/x86/mm.c):
 *  - a pin takes one general and one type reference, once; a second pin of a pinned
 *    frame is EINVAL, an unpin of an unpinned one is EINVAL, and so is any frame
 *    that the domain does not own;
 *  - COPY_PAGE needs both frames owned, the target writable in type;
 *  - MMU_NORMAL_PT_UPDATE to a frame of no table type writes it, if it can be writable;
 *  - MMU_MACHPHYS_UPDATE needs the frame owned; the value is the guest's own affair.
 * Cost: as refs.c; a pin of an L4 walks every table below that is not validated.
 */
#include "emb_priv.h"

int emb_pin(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint32_t level)
{
    if (level < 1 || level > 4) {
        return -EINVAL;
    }
    int rc = emb_get_page_and_type(m, mfn, d, (enum emb_type)level);
    if (rc) {
        return rc;
    }
    struct emb_frame *f = emb_frame_at(m, mfn);
    if (f->flags & EMB_F_PINNED) {
        emb_put_page_and_type(m, mfn);
        return -EINVAL;
    }
    f->flags |= EMB_F_PINNED;
    return 0;
}

int emb_unpin(struct emb_machine *m, struct emb_domain *d, uint64_t mfn)
{
    int rc = emb_get_page(m, mfn, d);
    if (rc) {
        return rc;
    }
    struct emb_frame *f = emb_frame_at(m, mfn);
    if (!(f->flags & EMB_F_PINNED)) {
        emb_put_page(m, mfn);
        return -EINVAL;
    }
    f->flags &= (uint8_t)~EMB_F_PINNED;
    emb_put_page_and_type(m, mfn);
    emb_put_page(m, mfn);
    return 0;
}

int emb_copy_page(struct emb_machine *m, struct emb_domain *d, uint64_t from, uint64_t to)
{
    int rc = emb_get_page(m, from, d);
    if (rc) {
        return rc;
    }
    rc = emb_get_page_and_type(m, to, d, EMB_T_WRITABLE);
    if (rc == 0) {
        if (m->contents) {
            memmove(emb_bytes(m, to), emb_bytes(m, from), FS_PAGE_BYTES);
        }
        emb_put_page_and_type(m, to);
    }
    emb_put_page(m, from);
    return rc ? -EINVAL : 0;
}

int emb_machphys_update(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint64_t pfn)
{
    int rc = emb_get_page(m, mfn, d);
    if (rc) {
        return rc;
    }
    emb_m2p_set(emb_frame_at(m, mfn), pfn + 1);
    emb_put_page(m, mfn);
    return 0;
}

static int entry_update(struct emb_machine *m, struct emb_domain *d, enum emb_type level, uint64_t *slot, uint64_t val)
{
    uint64_t old = *slot;
    if (val & EMB_PTE_P) {
        int rc = emb_entry_get(m, d, level, val);
        if (rc) {
            return rc;
        }
        val = emb_entry_adjust(level, val);
    }
    *slot = val;
    emb_entry_put(m, level, old);
    return 0;
}

int emb_mmu_update(struct emb_machine *m, struct emb_domain *d, uint64_t ptr, uint64_t val)
{
    uint64_t mfn = ptr >> FS_PAGE_SHIFT;
    int rc = emb_get_page(m, mfn, d);
    if (rc) {
        return rc;
    }
    struct emb_frame *f = emb_frame_at(m, mfn);
    uint64_t *slot = &emb_table(m, mfn)[(ptr & (FS_PAGE_BYTES - 1)) / sizeof(uint64_t)];
    enum emb_type type = f->type_count ? (enum emb_type)f->type : EMB_T_NONE;
    if (type >= EMB_T_L1 && type <= EMB_T_L4) {
        bool xen = type == EMB_T_L4 && emb_xen_slot((uint32_t)((ptr & (FS_PAGE_BYTES - 1)) / sizeof(uint64_t)));
        rc = xen ? -EINVAL : entry_update(m, d, type, slot, val);
    } else {
        rc = emb_get_type(m, mfn, EMB_T_WRITABLE);
        if (rc == 0) {
            *slot = val;
            emb_put_type(m, mfn);
        }
    }
    emb_put_page(m, mfn);
    return rc;
}

bool emb_l1_clear(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint32_t index, uint32_t count)
{
    const struct emb_frame *l1 = emb_frame_at(m, mfn);
    if (l1->owner != emb_slot(m, d) + 1 || l1->count == 0 || l1->type_count == 0 || l1->type != EMB_T_L1 || !(l1->flags & EMB_F_VALIDATED)) {
        return false;
    }
    uint64_t *table = emb_table(m, mfn);
    for (uint32_t i = index; i < index + count; i++) {
        uint64_t old = table[i];
        table[i] = 0;
        if (!(old & EMB_PTE_P)) {
            continue;
        }
        struct emb_frame *f = &m->frames[emb_pte_mfn(old)];
        /* What emb_entry_put() does where these references are not the last ones. */
        if ((old & EMB_PTE_RW) && f->type == EMB_T_WRITABLE && f->type_count > 0 && f->count > 1) {
            f->type_count--;
            f->count--;
        } else {
            emb_entry_put(m, EMB_T_L1, old);
        }
    }
    return true;
}
