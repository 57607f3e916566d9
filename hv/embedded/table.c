/*
 * table.c - page-table entries: validation, release, and the walk of a CPU.
 *
 * Owns: what an entry of each level may be, and the references it takes.
 * Invariants:
 *  I1 promotion either takes the references of every present entry or of none;
 *  I2 demotion drops exactly what the entries hold, read from the table itself:
 *     nobody can have changed it, because a validated table has no writable mapping;
 *  I3 an L4's slots 256 to 271 are Xen's: never validated, overwritten on promotion.
 * Lock order: the machine's lock is held.
 * Rules, from Xen's behaviour (arch/x86/mm.c promote_l*_table, get_page_from_l*e,
 * pv/mm.h adjust_guest_l*e) and public/xen.h on MMU_NORMAL_PT_UPDATE: entries may
 * hold present, writable, user, accessed, dirty, available and no-execute bits;
 * global in L1 only, never cache attributes, never 2 MiB pages; L2 to L4 entries lead
 * to a frame of the same domain with the next lower type; L1 entries to a frame of the
 * same domain, writable ones to a frame that is not a table or a descriptor page.
 * Non-present entries may hold anything.  Linear page tables (a table mapping one of
 * its own level) are refused, as Xen does with pv-linear-pt=0.
 * Xen marks kernel L1 entries (user bit set, bit 52 the mark) and user ones (global), so
 * that a reader finds flags that the guest did not write: so do we.
 * Cost: 512 entries a table.
 */
#include "emb_priv.h"

#define ALLOWED_LOW  (EMB_PTE_P | EMB_PTE_RW | EMB_PTE_USER | EMB_PTE_A | EMB_PTE_D | 0xe00ull)
#define ALLOWED_HIGH (0xfff0000000000000ull)    /* available bits 52-62, no-execute */
#define ENTRIES 512u

uint64_t *emb_table(struct emb_machine *m, uint64_t mfn)
{
    return (uint64_t *)(void *)emb_bytes(m, mfn);
}

static bool flags_ok(enum emb_type level, uint64_t pte)
{
    uint64_t allowed = ALLOWED_LOW | ALLOWED_HIGH | EMB_PTE_FRAME;
    if (level == EMB_T_L1) {
        allowed = (allowed | EMB_PTE_GLOBAL) & ~EMB_PTE_GNTTAB;
    }
    return (pte & ~allowed) == 0;
}

static int l1_entry_get(struct emb_machine *m, struct emb_domain *d, uint64_t pte)
{
    uint64_t mfn = emb_pte_mfn(pte);
    if (!emb_is_ram(m, mfn)) {
        return mfn == EMB_PTE_FRAME >> FS_PAGE_SHIFT ? -EINVAL : -EPERM;    /* INVALID_MFN, or a device without permission */
    }
    if (emb_get_page(m, mfn, d) != 0) {
        return -EBUSY;
    }
    if ((pte & EMB_PTE_RW) && emb_get_type(m, mfn, EMB_T_WRITABLE) != 0) {
        emb_put_page(m, mfn);
        return -EBUSY;
    }
    return 0;
}

int emb_entry_get(struct emb_machine *m, struct emb_domain *d, enum emb_type level, uint64_t pte)
{
    if (!flags_ok(level, pte)) {
        return -EINVAL;
    }
    if (level == EMB_T_L1) {
        return l1_entry_get(m, d, pte);
    }
    return emb_get_page_and_type(m, emb_pte_mfn(pte), d, level - 1);
}

void emb_entry_put(struct emb_machine *m, enum emb_type level, uint64_t pte)
{
    if (!(pte & EMB_PTE_P)) {
        return;
    }
    uint64_t mfn = emb_pte_mfn(pte);
    if (level != EMB_T_L1 || (pte & EMB_PTE_RW)) {
        emb_put_page_and_type(m, mfn);
    } else {
        emb_put_page(m, mfn);
    }
}

uint64_t emb_entry_adjust(enum emb_type level, uint64_t pte)
{
    if (!(pte & EMB_PTE_P)) {
        return pte;
    }
    if (level != EMB_T_L1) {
        return pte | EMB_PTE_USER | (level == EMB_T_L4 ? EMB_PTE_A : 0);
    }
    if (!(pte & EMB_PTE_USER)) {
        pte |= EMB_PTE_KERNEL | EMB_PTE_USER;
    }
    if (!(pte & EMB_PTE_KERNEL)) {
        pte |= EMB_PTE_GLOBAL;
    }
    return pte;
}

/* Every descriptor of a GDT or LDT page: not present, code or data of privilege 3, or null system type. */
static int segdesc_check(struct emb_machine *m, uint64_t mfn)
{
    const uint64_t *desc = emb_table(m, mfn);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        uint32_t high = (uint32_t)(desc[i] >> 32);
        bool present = high & (1u << 15), code_or_data = high & (1u << 12);
        if (present && !code_or_data && (high & 0xf00u) != 0) {
            return -EINVAL;
        }
    }
    return 0;
}

static bool skipped(enum emb_type level, uint32_t i)
{
    return level == EMB_T_L4 && emb_xen_slot(i);
}

int emb_table_promote(struct emb_machine *m, uint64_t mfn, enum emb_type type)
{
    if (!m->contents) {
        return -EINVAL;
    }
    if (type == EMB_T_SEGDESC) {
        return segdesc_check(m, mfn);
    }
    struct emb_domain *d = emb_owner(m, emb_frame_at(m, mfn));
    uint64_t *e = emb_table(m, mfn);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        if (skipped(type, i) || !(e[i] & EMB_PTE_P)) {
            continue;
        }
        int rc = emb_entry_get(m, d, type, e[i]);
        if (rc) {
            while (i-- > 0) {           /* I1 */
                if (!skipped(type, i)) {
                    emb_entry_put(m, type, e[i]);
                }
            }
            return rc;
        }
        e[i] = emb_entry_adjust(type, e[i]);
    }
    if (type == EMB_T_L4) {
        for (uint32_t i = EMB_XEN_SLOT_FIRST; i < EMB_XEN_SLOT_END; i++) {
            e[i] = ((uint64_t)(i - EMB_XEN_SLOT_FIRST + 1) << FS_PAGE_SHIFT) | EMB_PTE_P | EMB_PTE_A;   /* frames of Xen's image */
        }
    }
    return 0;
}

void emb_table_demote(struct emb_machine *m, uint64_t mfn, enum emb_type type)
{
    if (type == EMB_T_NONE) {
        return;
    }
    const uint64_t *e = emb_table(m, mfn);
    for (uint32_t i = 0; i < ENTRIES; i++) {
        if (!skipped(type, i)) {
            emb_entry_put(m, type, e[i]);
        }
    }
}

bool emb_walk(struct emb_machine *m, uint64_t root, uint64_t va, uint64_t *pte, uint64_t *l1_mfn)
{
    uint64_t rights = EMB_PTE_RW | EMB_PTE_USER, mfn = root;
    for (unsigned level = 4; level >= 1; level--) {
        if (!emb_is_ram(m, mfn) || mfn == 0) {
            return false;
        }
        uint64_t e = emb_table(m, mfn)[(va >> (12 + 9 * (level - 1))) & 511];
        if (!(e & EMB_PTE_P)) {
            return false;
        }
        rights &= e;
        if (level == 1) {
            if (l1_mfn) {
                *l1_mfn = mfn;
            }
            *pte = (e & ~(EMB_PTE_RW | EMB_PTE_USER)) | rights;
            return true;
        }
        mfn = emb_pte_mfn(e);
    }
    return false;
}
