/*
 * vm.h - the root of virtual memory: processes, their address spaces, what backs them.
 *
 * Owns: struct vm, struct mm_struct, struct vm_area and their locks.  Layer: L2
 *
 * Lock order, outermost first: mm_struct.mmap_lock, page lock, address_space.i_mmap_lock, anon_vma.lock,
 * mm_struct.page_table_lock (a parent's before its new child's), address_space.tree_lock, swap.lock, slab, lru.lock, zone.lock;
 * vm.lock and mm_struct.users are taken with nothing under them.  Memory is allocated under mmap_lock and page locks only:
 * whoever allocates may reclaim and migrate, which tries page locks and never waits for one.
 */
#ifndef GUEST_MM_VM_H
#define GUEST_MM_VM_H

#include "../lib/rwlock.h"
#include "page_alloc.h"

struct address_space;
struct anon_vma;
struct anon_vma_chain;
struct hugetlb;
struct kmem_cache;
struct lru;
struct mempolicy;
struct pagecache;
struct swap;

#define VM_READ    0x1u
#define VM_WRITE   0x2u
#define VM_SHARED  0x8u                         /* writes go to the file; pre: file */
#define VM_PFNMAP  0x400u                       /* a device's frames: pfnmap.h. pre: VM_SHARED, file */
#define VM_LOCKED  0x2000u                      /* mlock */
#define VM_NORESERVE   0x200000u                /* VM_HUGETLB: nothing is promised to it (a child's copy) */
#define VM_HUGETLB     0x400000u                /* pages of the pool (hugetlb.h) */
#define VM_HUGEPAGE    0x20000000u              /* MADV_HUGEPAGE: transparent huge pages are wanted */
#define VM_NOHUGEPAGE  0x40000000u
#define VM_ACCESS  (VM_READ | VM_WRITE)

/* X(name): counters of a vm */
#define VM_COUNTER_LIST(X)                                                          \
    X(fault_zero)           /* a new anonymous page */                              \
    X(fault_file)           /* a page of the page cache was mapped */               \
    X(fault_cow)            /* a private copy was made */                           \
    X(fault_reuse)          /* the last owner of a page may write it */             \
    X(fault_swapin)                                                                 \
    X(fault_migration)      /* waits for a page that was being moved */             \
    X(fault_retry)          /* something changed meanwhile */                       \
    X(fault_bad)            /* no vma, or it does not allow the access */           \
    X(fork)                                                                         \
    X(unmap_migration)      /* entries replaced */                                  \
    X(unmap_swap)                                                                   \
    X(unmap_file)                                                                   \
    X(migrate_success)                                                              \
    X(migrate_fail)         /* attempts that ended as before */                     \
    X(migrate_gone)         /* the owners went away while the page was moved */     \
    X(hugetlb_alloc)        /* huge pages that came to the pool */                  \
    X(hugetlb_alloc_fail)   /* ... that memory did not give */                      \
    X(hugetlb_free)         /* ... that went back to the allocator */               \
    X(hugetlb_migrate)      /* free ones that were moved */                         \
    X(policy_hit)           /* new pages where their policy wants them */           \
    X(policy_miss)          /* ... elsewhere: there was nothing free */             \
    X(policy_refused)       /* ... nowhere: bind */                          \
    X(hugetlb_fault)        /* huge pages of the pool that were mapped */           \
    X(hugetlb_cow)          /* ... copied for a private mapping */                  \
    X(thp_fault_alloc)      /* transparent huge pages: new ones by a fault */       \
    X(thp_fault_fallback)   /* ... that could not be had: small pages instead */    \
    X(thp_cow)              /* ... copied as a whole */                             \
    X(thp_cow_fallback)     /* ... split instead, for no huge page was free */      \
    X(thp_split)            /* ... cut into small pages */                          \
    X(thp_split_fail)       /* ... not, somebody held them */                       \
    X(thp_collapse)         /* ... made of small pages by the background */         \
    X(thp_collapse_fail)    /* ... not: no huge page, or a page was held */         \
    X(thp_migrate)          /* ... moved as a whole */                              \
    X(thp_migrate_split)    /* ... split, for there was no whole block to move to */
enum vm_counter {
#define X(name) VMC_##name,
    VM_COUNTER_LIST(X)
#undef X
    VM_COUNTERS
};

/* Lock letters: m = mmap_lock (w: for writing), r = the locks of the reverse maps it is in, p = page_table_lock, v = vm.lock, a = atomic */
struct vm_area {
    struct mm_struct *mm;                       /* constant */
    uint64_t start, end;                        /* m w, and r: byte addresses, whole pages */
    uint64_t pgoff;                             /* m w, and r: the index of start in the mapping; anonymous: start / FS_PAGE_BYTES */
    uint32_t flags;                             /* m w, and p */
    uint32_t priority;                          /* m: of the treap */
    struct vm_area *left, *right;               /* m: children in the treap */
    struct vm_area *next, *prev;                /* m: by address */
    struct address_space *file;                 /* constant; NULL: anonymous */
    struct vm_area *i_mmap_next, *i_mmap_prev;  /* file->i_mmap_lock */
    struct anon_vma *anon_vma;                  /* p: that of pages which become anonymous here; set once */
    struct anon_vma_chain *chain;               /* p: every anon_vma whose pages may be mapped here */
    struct mempolicy *policy;                   /* m w: of private pages; NULL: the process's. A shared mapping has none: file->policy */
};

struct mm_struct {
    struct vm *vm;
    struct mm_struct *next, *prev;              /* v */
    _Atomic int32_t users;                      /* a: mm_get(), mm_put() */
    pfn_t pgd;                                  /* constant: the root table */
    struct rwlock mmap_lock;
    struct spinlock page_table_lock;            /* every entry of every table, and the shape of the tables */
    struct vm_area *root, *first;               /* m: the treap, and the first by address */
    uint64_t map_hint;                          /* m: where the search for a gap starts */
    uint64_t total_pages, locked_pages;         /* m: of all vmas, of VM_LOCKED ones */
    uint32_t vma_count;                         /* m */
    struct mempolicy *policy;                   /* m w: of what has none of its own; NULL: default */
    uint64_t rss;                               /* p: entries that map a page */
    uint64_t swap_entries;                      /* p */
    uint64_t tables;                            /* p: pages of page tables, with the root and the deposit */
    struct page *deposit;                       /* p: empty tables by lru_next, one at least for each leaf, for when it is split */
    uint64_t deposits, leaves;                  /* p: of those; entries of level 2 that map a huge page */
};

struct vm {
    struct mm *mm;
    struct spinlock lock;
    struct mm_struct *mms;                      /* v */
    uint32_t mm_count;                          /* v */
    struct swap *swap;                          /* NULL: none; set before the first process */
    struct lru *lru;                            /* the same */
    struct pagecache *pagecache;                /* the same: pagecache_init() */
    struct hugetlb *hugetlb;                    /* NULL: no pool; hugetlb_init() */
    _Atomic unsigned thp_policy;                /* enum thp_policy */
    const struct mm_struct *khugepaged_mm;      /* the background's: where it goes on; never followed, only looked for among the processes */
    uint64_t khugepaged_va;
    uint32_t khugepaged_defer;                  /* so many ticks are left out */
    struct kmem_cache *mm_cache, *vma_cache, *anon_vma_cache, *chain_cache, *policy_cache, *policy_range_cache;
    _Atomic uint64_t counters[VM_COUNTERS];
};

static inline void vm_count(struct vm *vm, enum vm_counter c, uint64_t n)
{
    atomic_fetch_add_explicit(&vm->counters[c], n, memory_order_relaxed);
}
static inline uint64_t vm_counter(const struct vm *vm, enum vm_counter c)
{
    return atomic_load_explicit(&vm->counters[c], memory_order_relaxed);
}
const char *vm_counter_name(enum vm_counter c);

static inline uint64_t vma_pages(const struct vm_area *v) { return (v->end - v->start) / FS_PAGE_BYTES; }
/* The index of va in the mapping. pre: start <= va < end */
static inline uint64_t vma_index(const struct vm_area *v, uint64_t va) { return v->pgoff + (va - v->start) / FS_PAGE_BYTES; }

/* The caches of the four structures; sets mm->vm and hooks.release. MM_ENOMEM. swap and lru are set by their owners. */
mm_status_t vm_init(struct vm *vm, struct mm *mm) FS_MUST_CHECK;
/* pre: no process is left */
void vm_destroy(struct vm *vm);

#endif
