/*
 * pv_p2m.h - a PV guest's p2m list as the guest keeps it.
 *
 * Owns: struct pv_p2m, the frames of the list and where it lives.  Both forms of
 * the ABI: the linear list (arch_shared_info.p2m_vaddr in the address space
 * p2m_cr3) and the three-level tree (pfn_to_mfn_frame_list_list).
 * Source: xen/include/public/arch-x86/xen.h, struct arch_shared_info.
 */
#ifndef FRAMESHIFT_HV_PV_P2M_H
#define FRAMESHIFT_HV_PV_P2M_H

#include "backend.h"
#include "xlat.h"

#define P2M_ENTRIES_PER_PAGE 512u
#define P2M_FOREIGN_BIT   (1ull << 63)      /* Linux marks frames of other domains, */
#define P2M_IDENTITY_BIT  (1ull << 62)      /* and 1:1 mappings of non-RAM, so */

#define P2M_NO_FRAME      UINT32_MAX        /* invalid, foreign, identity */
#define P2M_FRAME_BEYOND  (UINT32_MAX - 1u) /* a number that no frame of a machine of 16 TiB has */

struct pv_p2m {
    uint64_t pfn_count;
    uint32_t *entries;          /* by pfn: the frame, or one of the two above */
    bool foreign;               /* the guest says that it has mapped frames of other domains */
    size_t page_count;
    mfn_t *pages;               /* frame that holds entries [512 i, 512 i + 512); MFN_NONE: all invalid */
    bool linear;
    mfn_t top;                  /* three-level form: the frame of the top list (also filled for a linear list that keeps it) */
    size_t mid_count;
    mfn_t *mids;                /* and of the lists below it */
    mfn_t root;                 /* linear form: the L4 of p2m_cr3 */
};

/* Read the list of a domain.  FS_BAD_INPUT: what the guest says makes no sense; FS_UNSUPPORTED: it has not
 * set up a list (still booting).  limit_pfns: refuse longer lists.  pages_out_of_range frames are refused by map. */
fs_status_t pv_p2m_read(struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns,
                        struct pv_p2m *out, struct fs_error *err) FS_MUST_CHECK;
/* The same into memory that an earlier read took, where the list has kept its size. */
fs_status_t pv_p2m_read_again(struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns,
                              struct pv_p2m *p, struct fs_error *err) FS_MUST_CHECK;
void pv_p2m_free(struct pv_p2m *p);

/* Every frame in the list, ascending by pfn, from the list itself: nothing of it is kept. */
typedef void (*pv_p2m_fn)(void *arg, uint64_t pfn, mfn_t mfn);
fs_status_t pv_p2m_each(struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pfns, pv_p2m_fn fn, void *arg,
                        uint64_t *pfn_count, struct fs_error *err) FS_MUST_CHECK;

/* The machine frame of a pfn, MFN_NONE where it has none (invalid, foreign, identity). */
mfn_t pv_p2m_get(const struct pv_p2m *p, uint64_t pfn);

/* Write the new frame of each pfn of moves (a bitmap) into the list, in the frames where the list lives
 * after the switch (forward) or its old frame before it (backward), and fix the frame numbers inside the three-level tree
 * and in shared_info.  Idempotent.  FS_CORRUPT: an entry holds neither the old nor the new frame. */
fs_status_t pv_p2m_write(struct hv_backend *be, const struct hv_domain *dom, const struct pv_p2m *p,
                         const struct xlat *x, const uint64_t *moves, bool forward, struct fs_error *err) FS_MUST_CHECK;

#endif
