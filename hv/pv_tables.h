/*
 * pv_tables.h - the page tables of a stopped PV guest, as plain memory.
 *
 * Owns: finding every page table of a guest, and replacing frame numbers in their
 * entries in one pass.  pre: every type reference is dropped (no table is pinned, no
 * vCPU has a cr3), so that Xen lets the tables be mapped writable; they are
 * validated again, entry by entry, when they are pinned.
 */
#ifndef FRAMESHIFT_HV_PV_TABLES_H
#define FRAMESHIFT_HV_PV_TABLES_H

#include "backend.h"
#include "xlat.h"

#define PTE_PRESENT     1ull
#define PTE_FRAME_MASK  0x000ffffffffff000ull
#define L4_XEN_FIRST    256u        /* slots that are Xen's own in every PV L4 (xen/arch-x86/xen-x86_64.h) */
#define L4_XEN_END      272u

static inline uint64_t pte_frame(uint64_t pte) { return (pte & PTE_FRAME_MASK) >> FS_PAGE_SHIFT; }

struct pv_table { mfn_t mfn; uint8_t level; uint8_t pinned; uint8_t reserved[6]; };

struct pv_tables {
    struct pv_table *list;          /* sorted by mfn */
    size_t count;
    uint64_t by_level[5];
};

struct pv_p2m;
/* Every frame of the p2m that Xen types as a page table of dom; numbers that are no frame of the machine are passed over.
 * owned: NULL, or a bitmap by pfn that is set where the domain owns the frame at all. */
fs_status_t pv_tables_find(struct hv_backend *be, uint16_t domid, const struct pv_p2m *p2m, uint64_t max_mfn,
                           struct pv_tables *out, uint64_t *owned, struct fs_error *err) FS_MUST_CHECK;
void pv_tables_free(struct pv_tables *t);
/* The table at a frame, or NULL. */
const struct pv_table *pv_tables_at(const struct pv_tables *t, mfn_t m);

/* Replace moved frames in all present entries.  forward: tables are reached at their new frames, old numbers become new;
 * backward: at their old frames, new numbers become old (pre: the xlat has its index); backward is idempotent, forward runs
 * once on fresh copies.
 * FS_REFUSED: an entry above L1 leads to a frame that is none of the tables (someone hides a table from the p2m). */
fs_status_t pv_tables_rewrite(struct hv_backend *be, uint16_t domid, const struct pv_tables *t, const struct xlat *x,
                              bool forward, uint64_t *entries_changed, struct fs_error *err) FS_MUST_CHECK;

/* Present L1 entries that lead to frames which the domain does not own: grants of others that it has mapped, device
 * memory.  Such an entry cannot be validated again once its type reference is dropped.  *found: one of those frames, or
 * MFN_NONE.  The guest may run. */
fs_status_t pv_tables_find_foreign(struct hv_backend *be, const struct hv_domain *dom, const struct pv_tables *t,
                                   const struct pv_p2m *p2m, mfn_t *found, struct fs_error *err) FS_MUST_CHECK;

/* An entry with its frame translated forward; for hashing tables by meaning. level 0: not a table, word as it is. */
uint64_t pv_entry_forward(const struct xlat *x, uint8_t level, unsigned index, uint64_t entry);

#endif
