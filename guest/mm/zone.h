/*
 * zone.h - pageblocks, zones, nodes, and the root of the guest's memory.
 *
 * Owns: struct pageblock, struct zone, struct mm and their read-only accessors.
 *
 * The free units of a pageblock are the largest aligned runs of its free map; it counts
 * them by order.  A zone's free area (order x migratetype) is the set of its blocks of that
 * type with such a unit.  So a free page is always its block's, a block
 * changes type by moving at most ten bits, and "the lowest block with a free unit of
 * order o" is a bit scan.  Units of order 10 are aligned pairs of free blocks.
 */
#ifndef GUEST_MM_ZONE_H
#define GUEST_MM_ZONE_H

#include "../lib/blockmap.h"
#include "../lib/spinlock.h"
#include "gfp.h"
#include "page.h"
#include "status.h"

#define MM_NODES_MAX   8u
typedef uint32_t nodemask_t;                        /* bit n: node n */
#define MM_ZONES_MAX   (MM_NODES_MAX * 3u)
#define FREE_ORDERS    (PAGEBLOCK_ORDER + 1u)       /* stored orders: 0 .. PAGEBLOCK_ORDER */
#define PCP_ORDERS     4u                          /* orders 0 .. 3 have lists, and PAGEBLOCK_ORDER */
#define PCP_LISTS      (PCP_ORDERS + 1u)
#define PCP_BLOCKS_BATCH 2u
#define PCP_BLOCKS_HIGH 3u                          /* the third whole block sends two back */
#define PCP_CAPACITY   64u
#define BLOCK_NONE     UINT32_MAX

/* Flags of a pageblock. */
#define PB_RESIDUAL    0x08u                        /* isolated with pages that cannot leave */
#define PB_LEAVING     0x80u                        /* off the lists as a whole while its frames are given back: nobody may isolate it */
#define PB_LENT        0x40u                        /* of movable type for want of room, with kernel pages in it still */
#define PB_TENANTS     0x20u                        /* movable pages may live in this kernel block */
#define PB_CLAIMED     0x10u                        /* taken while not free as a whole (policy) */

struct pageblock {                                  /* zone lock, but for what is said to be constant or atomic */
    union {
        struct {
            uint16_t units[PAGEBLOCK_ORDER];        /* free units of each order below the block's own */
            uint16_t order_mask;                    /* bit o: a free unit of order o is here */
            uint16_t free_pages;                    /* bits of the free map */
            uint16_t reserved_pages;                /* PAGE_RESERVED and PAGE_HOLE */
        };
        uint64_t lanes[3];                          /* the same, four at a time: block_edit_free_page() */
    };
    _Atomic uint8_t type;                           /* enum migratetype; read without the lock */
    uint8_t saved_type;                             /* before MIGRATE_ISOLATE */
    uint8_t zone;                                   /* index in mm.zones; constant while online */
    uint8_t flags;                                  /* PB_* */
    uint16_t isolations;                            /* overlapping isolation requests */
    _Atomic uint8_t offline;                        /* not a block of any zone; changes under its zone's lock, read without */
    _Atomic uint8_t given;                          /* offline because its frames were given back, and may come again; the same */
};
_Static_assert(sizeof(struct pageblock) == 32, "two pageblocks a cache line");

struct section {                                    /* memmap.h says what makes looking at the map safe */
    struct page *_Atomic map;                       /* SECTION_PAGES */
    struct pageblock *blocks;                       /* SECTION_BLOCKS; NULL: no RAM */
    struct free_map *free_maps;                     /* SECTION_BLOCKS */
    uint32_t map_pfn;                               /* unless boot_map: the unit that the map lies in */
    _Atomic bool present;                           /* it has a map now */
    bool boot_map;                                  /* the map lies in boot memory */
};
_Static_assert(sizeof(struct section) == 32, "found by a shift");

enum zone_kind { ZONE_DMA, ZONE_NORMAL, ZONE_MOVABLE, ZONE_KINDS };
enum watermark { WMARK_MIN, WMARK_LOW, WMARK_HIGH, WMARKS };

/* X(name): counters of a zone, read without its lock. */
#define ZONE_COUNTER_LIST(X)                                                          \
    X(alloc)                /* units handed out by the buddy lists */                 \
    X(free)                                                                           \
    X(pcp_refill)                                                                     \
    X(pcp_flush)                                                                      \
    X(fallback)             /* served by a block of another type */                   \
    X(fallback_fragmenting) /* ... that was not free as a whole */                    \
    X(fallback_kernel)      /* of those: one kernel type from another */              \
    X(fallback_tenant)      /* of those: movable into a kernel block */               \
    X(fallback_claim)       /* the block changed its type */                          \
    X(block_adopted)        /* a mostly free kernel block went to another kernel type */ \
    X(block_lent)           /* a mostly free kernel block went to movable pages */     \
    X(block_returned)       /* such a block went back, its movable pages moved out */  \
    X(block_cleared)        /* blocks whose movable pages were moved out for a claim */ \
    X(highatomic_reserve)                                                             \
    X(highatomic_release)                                                             \
    X(isolate)                                                                        \
    X(isolate_undo)                                                                   \
    X(memmap_freed)         /* pages that held struct pages of sections that left wholly */ \
    X(memmap_taken)         /* ... and of sections that came back */                  \
    X(memmap_refused)       /* a section could not come back: no 2 MiB for its struct pages */ \
    X(evacuate_away)        /* pages for which a range that leaves got places in another zone */ \
    X(alloc_slow)           /* allocations that left the fast path */                 \
    X(alloc_fail)                                                                     \
    X(pgmigrate_success)                                                              \
    X(pgmigrate_fail)                                                                 \
    X(compact_run)                                                                    \
    X(compact_migrate_scanned)                                                        \
    X(compact_free_scanned)                                                           \
    X(compact_success)      /* whole blocks made */                                    \
    X(compact_fail)         /* direct runs that made nothing */                       \
    X(compact_deferred)     /* direct runs turned away after failures */              \
    X(compact_not_suitable) /* ... because memory is short, not fragmented */         \
    X(compact_captured)     /* units that went straight to who compacted */           \
    X(compact_skipped)      /* blocks passed over by a hint */                        \
    X(compact_async_stop)   /* asynchronous runs that met a lock or their bound */    \
    X(compact_daemon_wake)                                                            \
    X(compact_daemon_moved) /* pages, of pgmigrate_success */                         \
    X(compact_proactive)    /* runs because of the fragmentation score */             \
    X(compact_proactive_deferred) /* ... left out, because the last gained nothing */
enum zone_counter {
#define X(name) ZC_##name,
    ZONE_COUNTER_LIST(X)
#undef X
    ZONE_COUNTERS
};

struct pcp_list {
    uint32_t count;
    struct page *pages[PCP_CAPACITY];
};
struct pcp {                                        /* one a CPU and zone */
    FS_ALIGNED(64) struct spinlock lock;
    struct pcp_list lists[PCP_LISTS][MIGRATE_PCP_TYPES];
};
#define FREE_RING 30u
struct free_ring {                                  /* one a CPU: frozen units on their way to the lists of their zones (pcp.c) */
    FS_ALIGNED(64) struct spinlock lock;
    _Atomic uint8_t count;                          /* written under the lock */
    uint32_t pfns[FREE_RING];
};
_Static_assert(sizeof(struct free_ring) == 128, "to free touches one line of its CPU's");

#define CPU_BLOCKS_COUNTERS 4u                      /* ZC_alloc, free, pcp_refill, pcp_flush: counted by the CPU first */
/* The pageblocks that a CPU changes under a lock of its own, and what the zone's counts lack because of them (cpu_blocks.c). */
struct cpu_blocks {                                 /* one a CPU and zone */
    FS_ALIGNED(64) struct spinlock lock;
    _Atomic bool wanted;                            /* this CPU keeps meeting others at the zone's lock */
    bool used;                                      /* lock: since somebody held the zone as a whole */
    _Atomic uint8_t contended;                      /* how often of late; the CPU's own, a lost update loses a hint */
    uint32_t idle;                                  /* lock: so often was it not used */
    struct blockmap own;                            /* positions; changed under the zone lock and lock */
    struct blockmap avail;                          /* lock: those of own with free pages, from which this CPU allocates */
    struct blockmap dirty;                          /* lock: those of own whose area bits are not true */
    _Atomic int64_t free_pages;                     /* lock, read without: to be added to the zone's, as all that follows */
    _Atomic uint64_t counters[CPU_BLOCKS_COUNTERS];
    uint64_t free_units[FREE_ORDERS][MIGRATE_TYPES];
};
static inline unsigned pcp_index(unsigned order) { return order < PCP_ORDERS ? order : PCP_ORDERS; }
static inline unsigned pcp_list_order(unsigned index) { return index < PCP_ORDERS ? index : PAGEBLOCK_ORDER; }

struct mm;
struct zone {
    FS_ALIGNED(64) struct spinlock lock;            /* zone_lock() */
    _Atomic uint32_t owned_blocks;                  /* lock: blocks of owned; read without */
    uint64_t held;                                  /* lock: CPUs whose cpu_blocks the holder has too, a bit each */
    _Atomic uint64_t free_pages;                    /* in the free maps of blocks of any type but ISOLATE; zone_free_pages() */
    uint64_t isolated_free_pages;
    _Atomic uint64_t watermark[WMARKS];             /* read without the lock; they change when memory leaves or returns */
    _Atomic uint64_t reserve[ZONE_KINDS];           /* kept from requests that a higher kind could serve; the same */
    uint64_t free_units[FREE_ORDERS][MIGRATE_TYPES];
    struct blockmap area[FREE_ORDERS][MIGRATE_TYPES];   /* members: positions of blocks */
    uint64_t blocks_of[MIGRATE_TYPES];
    struct blockmap owned;                          /* lock: positions of blocks that are in some CPU's cpu_blocks.own */
    /* What every allocation reads and nothing writes has a line of its own. */
    FS_ALIGNED(64) uint32_t first_block;            /* span; holes are blocks of PAGE_HOLE pages */
    uint32_t end_block;
    uint32_t *position;                             /* [block - first_block]: its place in the order of preference */
    uint32_t *block_at;                             /* [position] */
    struct pcp *pcp;                                /* [cpus] */
    struct cpu_blocks *cpu_blocks;                  /* [cpus] */
    const struct mm *mm;
    uint32_t cpus;
    uint32_t settle_pages;                          /* cpu_blocks.c */
    uint8_t id, node, kind;
    FS_ALIGNED(64) bool low_signalled;
    uint64_t present_pages;
    _Atomic uint64_t managed_pages;                 /* written under the lock, read without */
    _Atomic uint64_t counters[ZONE_COUNTERS];
    uint32_t boot_blocks;                           /* the first positions: blocks with boot memory */
    struct spinlock compact_lock;                   /* one compaction at a time; only tried for, before every other lock */
    unsigned compact_order_failed;                  /* zone lock: direct compaction failed for this order ... */
    uint32_t compact_considered, compact_defer_shift;   /* ... and is tried again after 2^shift further requests */
    uint32_t *rank;                                 /* compact_lock: blocks in the order in which they are emptied */
    uint16_t *skip;                                 /* zone lock: [block - first_block]: its free pages when emptying it failed */
    bool skip_stale;                                /* zone lock: a full pass has ended since the hints were taken */
    _Atomic bool woken;                             /* the background's turn is due */
    _Atomic uint32_t wanted_order;                  /* the highest order that somebody went without; kcompactd takes it */
    _Atomic uint32_t lent_blocks;                   /* blocks with PB_LENT; changed under the zone lock */
    _Atomic uint32_t tenant_blocks;                 /* blocks with PB_TENANTS; changed under the zone lock */
};

/* Where blocks for unmovable and reclaimable pages come from. */
enum claim_policy {
    CLAIM_LARGEST_LOWEST,   /* the largest free unit of the other types, of those the lowest */
    CLAIM_NEXT_BLOCK,       /* the block next to those already claimed; its contents move out */
    CLAIM_CLEAR_FIRST,      /* first clear movable pages out of claimed blocks, then as above */
};

struct mm;
struct kmem_cache;
struct vm;
struct migrate_ops {
    /* The mover takes whatever lock keeps the owner from freeing or splitting the unit, and looks again whether from is
     * still the owner's and of to's order (else MM_EAGAIN).
     * Move the contents and the owner's references of from to to, a used unit of the same order and type on which the
     * caller has set nothing but the state.  The caller holds a reference on from; when MM_OK comes back, the owner's
     * reference on from is gone and to has refs 1 that belongs to the owner.  MM_EAGAIN: not now; MM_EBUSY: not at all.
     * No lock is held. */
    mm_status_t (*move)(void *ctx, struct page *from, struct page *to);
    /* The same, and it may wait for locks of the page: for callers that hold none. NULL: as move. */
    mm_status_t (*move_wait)(void *ctx, struct page *from, struct page *to);
    void *ctx;
    /* There is no target of its order: make units of order 0 of it that can be moved one by one. MM_OK: unit is the first of them. Else nothing has
     * changed. The caller holds a reference, no lock. NULL: nobody can. */
    mm_status_t (*split)(void *ctx, struct page *unit);
};

struct mm_hooks {
    /* Make a whole block of zone for type by moving pages out; false if none could be made. May sleep. *captured: a unit of order out
     * of that block, which nobody could take in between (as buddy_alloc() gives it, but PAGE_PCP), or NULL: look at the lists. */
    bool (*clear_block)(struct mm *mm, struct zone *zone, unsigned order, enum migratetype type, struct page **captured);
    /* Compaction for a request of order > 0 that fails although enough is free; true if it is worth trying again. May sleep.
     * *captured as above. */
    bool (*compact)(struct mm *mm, struct zone *zone, unsigned order, enum migratetype type, gfp_t gfp, struct page **captured);
    /* Direct reclaim for a request; the pages gained, 0 for no progress. May sleep. */
    uint64_t (*reclaim)(struct mm *mm, struct zone *zone, unsigned order, gfp_t gfp);
    /* The last reference of a page with a flag of PG_RELEASE is gone (refs is 0): take it off its list, let go of its
     * anon_vma, clear those flags. False: it is not to be freed, its refs are somebody's again. Never sleeps, no lock of the allocator is held. */
    bool (*release)(struct mm *mm, struct page *page);
    /* Free memory of zone fell under the low mark, or no whole block is near the kernel's any more. Never sleeps, no lock is held. */
    void (*wake)(struct mm *mm, struct zone *zone);
};

struct mm_range { pfn_t start, end; uint32_t node; };

struct mm_config {
    const struct mm_range *ram;                     /* sorted, disjoint; the rest are holes */
    size_t ram_count;
    uint64_t dma_pages;                             /* pfns below it form the DMA zone; 0: none. A multiple of a block */
    unsigned core_percent;                          /* or so much of all memory, 1 to 100: the core region, for what devices hold */
    uint64_t kernelcore_pages;                      /* 0: no MOVABLE zone */
    uint32_t movable_nodes;                         /* bit n: all of node n is a MOVABLE zone (what the DMA zone does not have of it) */
    uint64_t min_free_pages;                        /* 0: by the size of memory */
    unsigned cpus;
    uint32_t pcp_batch, pcp_high;                   /* 0: defaults */
    enum claim_policy policy;
    bool movable_low;                               /* movable pages from the lowest block too (default: the highest) */
    void *(*boot_alloc)(void *ctx, size_t bytes, size_t align);   /* zeroed, never freed; NULL: out of memory */
    void *boot_ctx;
    void *direct_map;                               /* the address of pfn 0: boot_alloc takes from there, upwards, and what it skips is nobody's. NULL:
                                                     * boot memory is none of the guest's, and so stays the memmap of what leaves */
};

struct mm {
    struct section *sections;
    void *direct;                                   /* mm_config.direct_map */
    _Atomic uint32_t walk_phase, walkers[2];        /* memmap.c: who looks at struct pages of which it holds nothing */
    _Atomic uint64_t memmap_pages[MM_NODES_MAX];    /* pages of the node that hold struct pages */
    uint64_t memmap_gap, memmap_gap_end;            /* pfns that aligning them skipped at boot */
    struct spinlock hotplug_lock;                   /* hotplug.c: one range leaves or returns at a time; before every other lock, and its holder may sleep */
    uint32_t section_count;
    uint64_t end_pfn;
    struct zone *zones;
    uint32_t zone_count, node_count;
    uint8_t zonelist[MM_NODES_MAX][ZONE_KINDS][MM_ZONES_MAX];   /* zone ids by preference, 0xff ends */
    uint8_t cpu_node[ARCH_CPUS_MAX];
    unsigned cpus;
    uint32_t pcp_batch, pcp_high;                   /* of order 0; halved with each order */
    struct free_ring *rings;                        /* [cpus] */
    _Atomic uint32_t claim_window;                  /* blocks behind the kernel's in which a whole one is kept ready; 0: none is */
    _Atomic enum claim_policy policy;
    bool movable_low;
    _Atomic uint32_t extfrag_threshold;             /* compaction runs above this fragmentation index (1/1000), reclaim at or below it */
    _Atomic uint32_t compaction_proactiveness;      /* 0 to 100: how early the background compacts without being asked; 0: never */
    uint64_t next_tick_ns;                          /* kcompactd's next look at the scores */
    uint32_t proactive_defer[MM_NODES_MAX];         /* kcompactd of the node: so many ticks are left out */
    uint64_t dma_pages, kernelcore_pages, min_free_pages;
    uint32_t movable_nodes;
    struct mm_hooks hooks;
    struct migrate_ops migrate;
    struct kmem_cache *caches;                      /* slab.c: every cache */
    struct spinlock caches_lock;
    struct vm *vm;                                  /* the virtual memory above, for those hooks; NULL: none */
};

/* ---- accessors ---- */

static inline bool mm_pfn_valid(const struct mm *mm, pfn_t pfn)
{
    return pfn.n < mm->end_pfn && atomic_load_explicit(&mm->sections[pfn.n >> SECTION_SHIFT].present, memory_order_acquire);
}
/* pre: mm_pfn_valid(mm, pfn), and one of the three things that memmap.h names */
static inline struct page *mm_page(const struct mm *mm, pfn_t pfn)
{
    return atomic_load_explicit(&mm->sections[pfn.n >> SECTION_SHIFT].map, memory_order_relaxed) + (pfn.n & (SECTION_PAGES - 1));
}
/* Look at struct pages of which nothing is held; memmap.h says when. What it returns is for mm_walk_end(). */
static inline unsigned mm_walk_begin(struct mm *mm)
{
    for (;;) {
        unsigned phase = atomic_load(&mm->walk_phase) & 1u;

        atomic_fetch_add(&mm->walkers[phase], 1);
        if ((atomic_load(&mm->walk_phase) & 1u) == phase) {
            return phase;
        }
        atomic_fetch_sub(&mm->walkers[phase], 1);   /* somebody waits for that one from now on */
    }
}
static inline void mm_walk_end(struct mm *mm, unsigned walk) { atomic_fetch_sub_explicit(&mm->walkers[walk], 1, memory_order_release); }
/* pre: the block's section has RAM, here or gone */
static inline struct pageblock *mm_block(const struct mm *mm, uint32_t block)
{
    return &mm->sections[block / SECTION_BLOCKS].blocks[block % SECTION_BLOCKS];
}
static inline pfn_t block_pfn(uint32_t block) { return pfn_make((uint64_t)block << PAGEBLOCK_ORDER); }
static inline uint32_t pfn_block(pfn_t pfn) { return (uint32_t)(pfn.n >> PAGEBLOCK_ORDER); }
static inline uint32_t page_block(const struct page *p) { return p->pfn >> PAGEBLOCK_ORDER; }
static inline struct page *mm_block_page(const struct mm *mm, uint32_t block)
{
    return mm_page(mm, block_pfn(block));
}
/* pre: as mm_block() */
static inline struct free_map *mm_block_free_map(const struct mm *mm, uint32_t block)
{
    return &mm->sections[block / SECTION_BLOCKS].free_maps[block % SECTION_BLOCKS];
}
/* Is it in its block's free map? A snapshot unless the zone lock is held. pre: the page's section is present */
static inline bool page_is_free(const struct mm *mm, const struct page *p)
{
    const struct free_map *m = mm_block_free_map(mm, page_block(p));

    return (atomic_load_explicit(&m->word[page_block_index(p) / 64], memory_order_relaxed) >> (page_block_index(p) % 64)) & 1u;
}
static inline struct zone *mm_block_zone(const struct mm *mm, uint32_t block)
{
    return &mm->zones[mm_block(mm, block)->zone];
}
/* Kernel pages take the block of the lowest position, movable pages that of the highest.  Positions follow the frame
 * numbers, but blocks with boot memory, which can never be whole, come first. */
static inline uint32_t block_position(const struct zone *z, uint32_t block) { return z->position[block - z->first_block]; }
static inline uint32_t position_block(const struct zone *z, uint32_t position) { return z->block_at[position]; }
static inline bool migratetype_is_kernel(enum migratetype t)
{
    return t == MIGRATE_UNMOVABLE || t == MIGRATE_RECLAIMABLE || t == MIGRATE_ACCOUNTED;
}

/* The node of a page of a present section. */
static inline uint32_t page_node(const struct mm *mm, const struct page *p) { return mm_block_zone(mm, page_block(p))->node; }

/* Where the next kernel block should be: positions below this one. pre: zone lock */
static inline uint32_t zone_claim_limit(const struct zone *z, uint32_t window)
{
    uint64_t n = z->blocks_of[MIGRATE_UNMOVABLE] + z->blocks_of[MIGRATE_RECLAIMABLE] + z->blocks_of[MIGRATE_ACCOUNTED] + window;
    return n < z->end_block - z->first_block ? (uint32_t)n : z->end_block - z->first_block;
}
/* No whole block is there for the next claim. pre: zone lock */
static inline bool zone_wants_spare(const struct zone *z, uint32_t window)
{
    return window != 0 && blockmap_first(&z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE], 0) >= zone_claim_limit(z, window);
}

#define HOME_LOW_PAGES 64u
/* Movable pages live in kernel blocks, and this kernel type is about to claim another block for want of room; MIGRATE_TYPES: none
 * is. pre: zone lock */
static inline enum migratetype zone_wants_home(const struct zone *z)
{
    for (unsigned t = 0; t < MIGRATE_HIGHATOMIC && atomic_load_explicit(&z->tenant_blocks, memory_order_relaxed) > 0; t++) {
        uint64_t free = 0;

        for (unsigned o = 0; o < PAGEBLOCK_ORDER && t != MIGRATE_MOVABLE; o++) {
            free += z->free_units[o][t] << o;
        }
        if (t != MIGRATE_MOVABLE && z->blocks_of[t] > 0 && free < HOME_LOW_PAGES) {
            return (enum migratetype)t;
        }
    }
    return MIGRATE_TYPES;
}

/* ---- cpu_blocks.c ---- */

/* The rest of zone_lock() and zone_unlock(), if CPUs have blocks of their own. */
void cpu_blocks_hold(struct zone *z);
void cpu_blocks_let_go(struct zone *z);

/* The zone as a whole: all of its blocks, and every count is true. */
static inline void zone_lock(struct zone *z)
{
    spin_lock(&z->lock);
    if (fs_unlikely(atomic_load_explicit(&z->owned_blocks, memory_order_relaxed) != 0)) {
        cpu_blocks_hold(z);
    }
}
static inline bool zone_trylock(struct zone *z)
{
    if (!spin_trylock(&z->lock)) {
        return false;
    }
    if (fs_unlikely(atomic_load_explicit(&z->owned_blocks, memory_order_relaxed) != 0)) {
        cpu_blocks_hold(z);
    }
    return true;
}
static inline void zone_unlock(struct zone *z)
{
    if (fs_unlikely(z->held != 0)) {
        cpu_blocks_let_go(z);
    }
    spin_unlock(&z->lock);
}

/* As the zone counts them: what CPUs have not settled yet is missing. */
static inline uint64_t zone_settled_pages(const struct zone *z)
{
    return atomic_load_explicit(&z->free_pages, memory_order_relaxed);
}
uint64_t cpu_blocks_free_pages(const struct zone *z);
uint64_t cpu_blocks_counter(const struct zone *z, enum zone_counter c);
/* Exact if the zone is locked or nobody allocates. */
static inline uint64_t zone_free_pages(const struct zone *z)
{
    bool any = fs_unlikely(atomic_load_explicit(&z->owned_blocks, memory_order_relaxed) != 0);

    return zone_settled_pages(z) + (any ? cpu_blocks_free_pages(z) : 0);
}
/* pre: the zone lock is held; each counter is only counted under it, or never. */
static inline void zone_count(struct zone *z, enum zone_counter c, uint64_t n)
{
    uint64_t was = atomic_load_explicit(&z->counters[c], memory_order_relaxed);
    atomic_store_explicit(&z->counters[c], was + n, memory_order_relaxed);
}
/* The same for counters that are never counted under the lock. */
static inline void zone_count_unlocked(struct zone *z, enum zone_counter c, uint64_t n)
{
    atomic_fetch_add_explicit(&z->counters[c], n, memory_order_relaxed);
}
static inline uint64_t zone_counter(const struct zone *z, enum zone_counter c)
{
    bool any = (unsigned)c < CPU_BLOCKS_COUNTERS && fs_unlikely(atomic_load_explicit(&z->owned_blocks, memory_order_relaxed) != 0);

    return atomic_load_explicit(&z->counters[c], memory_order_relaxed) + (any ? cpu_blocks_counter(z, c) : 0);
}
const char *zone_counter_name(enum zone_counter c);
const char *zone_kind_name(enum zone_kind k);

/* ---- zone.c ---- */

/* Build nodes, zones, sections; every RAM page is PAGE_RESERVED, every other PAGE_HOLE.
 * MM_EINVAL: unsorted, empty or overlapping ranges, too many nodes or CPUs, a node that another one encloses, no node that
 * is not movable (kernel pages need one), a movable node that does not exist;
 * MM_ENOMEM: boot_alloc said no. */
mm_status_t mm_init(struct mm *mm, const struct mm_config *config) FS_MUST_CHECK;
/* Give [start, end) of PAGE_RESERVED pages to the allocator; returns how many pages (others are left alone). */
uint64_t mm_free_boot(struct mm *mm, pfn_t start, pfn_t end);
/* Boot memory is known: blocks that keep reserved pages will never be whole, so they serve kernel requests first:
 * they become unmovable and move to the front of the order of preference. Before anybody allocates. */
void mm_boot_done(struct mm *mm);
/* Set watermarks anew from managed pages and mm->min_free_pages. */
void mm_setup_watermarks(struct mm *mm);
/* True if units requests of order from a caller of kind class leaves mark pages (less by what gfp allows). */
bool zone_watermark_ok(const struct zone *z, unsigned order, uint32_t units, enum watermark mark, enum zone_kind class, gfp_t gfp);
/* The same by a count of free pages that the caller has. */
bool zone_watermark_ok_pages(const struct zone *z, uint64_t free, uint64_t pages, enum watermark mark, enum zone_kind class, gfp_t gfp);
uint64_t mm_counter(const struct mm *mm, enum zone_counter c);
uint64_t mm_free_pages(const struct mm *mm);
/* Nodes that have memory now. */
nodemask_t mm_nodes(const struct mm *mm);

#endif
