/*
 * pfnmap.h - a device's memory mapped into processes: frames that no struct page of ours stands for (VM_PFNMAP).
 *
 * Layer: L3.  The device knows its frames; page tables are a cache of what it says: an entry is made on a fault and may be taken away at any
 * time.  Nobody counts references on such frames, reclaims or migrates them; the device moves them itself when a policy asks it to.
 */
#ifndef GUEST_MM_PFNMAP_H
#define GUEST_MM_PFNMAP_H

#include "pagecache.h"

struct vma_ops {                                /* every member is set */
    /* The frame of index. MM_EAGAIN: it is being moved, ask again; MM_EINVAL: there is none. A frame that has a struct page has PG_DMA or
     * PG_PINNED while it can be asked for, so that nobody puts another machine frame under it. pre: a page_table_lock is held, so it takes
     * no lock but its own, and waits for nothing */
    mm_status_t (*frame)(struct address_space *as, uint64_t index, pfn_t *pfn);
    /* The node that index lies on. May be asked for at any time, for whatever was mapped. */
    uint32_t (*node)(struct address_space *as, uint64_t index);
    /* Move index to one of these nodes, by its own scheme: so that frame() says MM_EAGAIN, pfnmap_unmap(), copy, and frame() says the new one.
     * MM_OK: it is there (now, or already); MM_EBUSY: not now; MM_ENOMEM: nothing is free there. pre: mmap_lock for reading may be held */
    mm_status_t (*migrate)(struct address_space *as, uint64_t index, nodemask_t nodes);
};

/* An object that vm_mmap() maps with VM_PFNMAP (shared mappings only). Ends with address_space_destroy(). MM_EINVAL: a member of ops is not set */
mm_status_t pfnmap_init(struct vm *vm, struct address_space *as, const struct vma_ops *ops, void *ctx) FS_MUST_CHECK;
static inline void *pfnmap_device(const struct address_space *as) { return as->backing_ctx; }

/* Make the entry for va. MM_EAGAIN: begin anew; MM_EINVAL, MM_ENOMEM. pre: mmap_lock for reading, VM_PFNMAP */
mm_status_t pfnmap_fault(struct vm_area *vma, uint64_t va) FS_MUST_CHECK;
/* No process has an entry for [first, end) afterwards, nor is one using an old one. pre: no spinlock; mmap_lock may be held */
void pfnmap_unmap(struct address_space *as, uint64_t first, uint64_t end);
/* Who has a mapping of index. *others: another process than mm; *lowest: the lowest address at which mm has it, UINT64_MAX: it has none. */
void pfnmap_users(struct address_space *as, uint64_t index, const struct mm_struct *mm, bool *others, uint64_t *lowest);

#endif
