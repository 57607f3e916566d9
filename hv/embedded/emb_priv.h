/*
 * emb_priv.h - the embedded machine's inside: frames, domains, vCPUs, guests.
 *
 * Owns: every structure that lies in the machine's shared arena.  Pointers into
 * the arena are valid in a forked child too, because the arena is mapped before
 * the fork and inherited at the same address; pointers to process memory never
 * lie in it, but for the fault hook, which is a function of this program.
 *
 * Words: `slot` is a domain's index in m->domains; a frame's owner is slot + 1, 0
 * none.  "held" frames have a reference of Xen's or of dom0's daemons on them.
 */
#ifndef FRAMESHIFT_EMB_PRIV_H
#define FRAMESHIFT_EMB_PRIV_H

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/types.h>

#include "embedded.h"
#include "frameshift/assert.h"

#define EMB_MAX_ORDER 18u               /* Xen's: 1 GiB */
#define EMB_NO_SLOT   UINT32_MAX
#define EMB_HELD_MAX  64u
#define EMB_GRANTS_MAX 256u
#define EMB_CLIENTS_MAX 16u
#define EMB_VCPU_BLOB_BYTES 2048u       /* registers, FPU and extended state of a vCPU: kept, never read */

/* ---- frames -------------------------------------------------------------- */

enum emb_type {                         /* Xen's PGT_* types; exclusive while the type count is not 0 */
    EMB_T_NONE, EMB_T_L1, EMB_T_L2, EMB_T_L3, EMB_T_L4, EMB_T_SEGDESC, EMB_T_WRITABLE,
};
enum emb_state { EMB_S_FREE, EMB_S_INUSE, EMB_S_OFFLINING, EMB_S_OFFLINED };   /* PGC_state */
enum {
    EMB_F_ALLOCATED = 0x01,             /* the domain's own reference (PGC_allocated) */
    EMB_F_XEN_HEAP  = 0x02,
    EMB_F_PINNED    = 0x04,             /* PGT_pinned */
    EMB_F_VALIDATED = 0x08,             /* PGT_validated */
    EMB_F_BROKEN    = 0x10,
    EMB_F_POISONED  = 0x20,             /* bytes are EMB_POISON since it was freed */
    EMB_F_IMAGE     = 0x40,             /* Xen's image: never leaves */
    EMB_F_WAS_OWNED = 0x80,             /* free: TLBs may know it still */
};
#define EMB_POISON 0xc2u

/* All zero is a free frame inside a buddy, so that untouched metadata of a huge machine costs nothing. */
struct emb_frame {
    uint64_t m2p1;                      /* gfn + 1; 0: INVALID_M2P_ENTRY.  A PV guest may write any value */
    uint32_t count;                     /* general references */
    uint32_t type_count;
    uint32_t next, prev;                /* free list or domain's page list: mfn + 1, 0 end */
    uint16_t owner;                     /* slot + 1 */
    uint8_t type, state, flags;
    uint8_t order1;                     /* head of a free buddy: order + 1 */
    uint16_t reserved;
};
_Static_assert(sizeof(struct emb_frame) == 32, "at most 32 bytes of metadata a machine frame");

struct emb_node {
    uint64_t start, end;                /* mfns */
    uint64_t free_pages;
    uint32_t heads[EMB_MAX_ORDER + 1];  /* mfn + 1 of the first free buddy */
};

/* ---- domains ------------------------------------------------------------- */

struct emb_vcpu {
    bool initialised, online;
    uint64_t cr3, user_cr3;             /* mfns; 0 none (frame 0 is Xen's) */
    uint32_t gdt_entries;
    uint64_t gdt[HV_GDT_FRAMES];
    uint64_t ldt_base;
    uint32_t ldt_entries;
    uint64_t ldt_mapped[16];            /* mfns of the LDT pages that Xen maps (shadow mapping); 0 none */
    uint8_t blob[EMB_VCPU_BLOB_BYTES];
};

enum emb_held_kind {
    EMB_HELD_STORE, EMB_HELD_CONSOLE,   /* mapped by dom0's daemons, writable */
    EMB_HELD_VCPU_INFO, EMB_HELD_EVT_CONTROL, EMB_HELD_EVT_ARRAY, EMB_HELD_PIRQ_EOI,
    EMB_HELD_IOREQ, EMB_HELD_GRANT,
};
struct emb_held {
    uint64_t mfn, gfn;                  /* the frame held, and the gfn at which the guest expects it */
    uint8_t kind;                       /* enum emb_held_kind */
    uint8_t writable;                   /* takes a type reference too (PV) */
    uint16_t vcpu;                      /* VCPU_INFO, EVT_CONTROL */
    uint32_t offset;                    /* VCPU_INFO: byte in the page.  GRANT: index of the grant */
};
struct emb_grant {
    uint64_t gfn;                       /* HAP gfn; PV: mfn, as in Xen's v1 entries */
    uint16_t domid;
    uint8_t in_use, mapped, writable, reserved[3];
};

/* HAP p2m: one entry for 2 MiB of gfns: 0 hole; bit 0 set: a 2 MiB extent at mfn (entry >> 1); else offset in the arena of 512 leaf
 * entries (mfn + 1, 0 hole). */
struct emb_p2m {
    uint64_t *top;
    uint64_t top_entries;
    uint64_t limit;                     /* highest populated gfn + 1 ever */
};

struct emb_core;                        /* a kernel of this program runs in it: emb_core.h */
struct emb_guest;                       /* what a synthetic guest's memory should hold: guest_priv.h */

struct emb_domain {
    bool used, dying, shutdown;
    uint16_t domid;
    enum hv_domain_kind kind;
    uint32_t shutdown_reason, pause_count, monitors_held;
    uint8_t uuid[16];
    char name[64];
    uint64_t tot_pages, max_pages;
    uint64_t list_head, list_tail;      /* page list: mfn + 1 */
    uint64_t xenheap_pages;
    uint32_t vcpu_count;
    struct emb_vcpu vcpus[EMB_VCPUS_MAX];
    uint64_t shared_info;               /* mfn */
    struct emb_held held[EMB_HELD_MAX];
    uint32_t held_count;
    struct emb_grant grants[EMB_GRANTS_MAX];
    uint32_t grant_count;
    struct emb_p2m p2m;
    uint64_t *dirty;                    /* bit a gfn; NULL: log off */
    uint64_t dirty_words;
    struct emb_domain_config config;
    struct emb_guest *guest;
    struct emb_core *core;
};

/* ---- tools in dom0 ------------------------------------------------------- */

struct emb_mapping {                    /* one foreign mapping: what a dead process would leave */
    struct emb_mapping *next;
    uint64_t addr;                      /* in the process; a key, never followed here */
    uint64_t count;
    uint32_t slot;
    bool write;
    uint64_t mfn1[];                    /* mfn + 1; 0 not mapped.  Bit 63: holds a type reference */
};
#define EMB_MAPPED_TYPE (1ull << 63)
struct emb_client {
    pid_t pid;                          /* 0 unused */
    struct emb_mapping *mappings;
};

struct emb_fault_state {
    struct emb_fault_plan plan;
    uint64_t calls, fired;
    uint32_t failing_left;
};

#define EMB_CLASSES 48
struct emb_arena {
    uint64_t bump, size;                /* offsets from the machine */
    uint64_t free[EMB_CLASSES];         /* lists of freed blocks by log2 of the size: offset, 0 none */
};

struct emb_machine {
    uint64_t bytes;                     /* of the whole arena mapping */
    int contents_fd;                    /* -1: no contents */
    uint8_t *contents;                  /* every frame, at mfn * 4096 */
    struct emb_frame *frames;
    uint64_t max_mfn;
    struct emb_config config;
    struct emb_node nodes[EMB_NODES_MAX];
    struct emb_domain domains[EMB_DOMAINS_MAX];
    uint16_t next_domid;
    struct emb_client clients[EMB_CLIENTS_MAX];
    struct emb_fault_state fault;
    struct emb_arena arena;
    uint64_t clock_ns;                  /* virtual clock */
    uint64_t tlb_epoch;                 /* every software TLB entry of an older one is void */
    uint64_t rng;
    uint64_t events_sent;
    bool in_hook;                       /* the lock's owner runs a fault hook: no operation is half done */
    pthread_mutex_t lock;               /* process-shared, robust, recursive */
};

/* machine.c */
void *emb_alloc(struct emb_machine *m, uint64_t bytes);                 /* zeroed; NULL: arena full */
void emb_free(struct emb_machine *m, void *p, uint64_t bytes);          /* p may be NULL */
void emb_lock(struct emb_machine *m);
void emb_unlock(struct emb_machine *m);
/* process.c: getpid(), without asking the host each time; whether these bytes lie on the caller's own stack, further up than the caller. */
int32_t emb_pid(void);
bool emb_own_stack(uint64_t from, size_t bytes);
uint64_t emb_random(uint64_t *state);                                   /* splitmix64 */
static inline uint8_t *emb_bytes(struct emb_machine *m, uint64_t mfn)   /* pre: contents */
{
    return m->contents + mfn * FS_PAGE_BYTES;
}
static inline struct emb_frame *emb_frame_at(struct emb_machine *m, uint64_t mfn)
{
    ASSERT_CMP(mfn, <, m->max_mfn);
    return &m->frames[mfn];
}
bool emb_is_ram(const struct emb_machine *m, uint64_t mfn);             /* mfn_valid() */
/* Guests read the M2P without the lock, as they read Xen's: a word is written at once. gfn1: gfn + 1, or 0 */
static inline void emb_m2p_set(struct emb_frame *f, uint64_t gfn1)
{
    __atomic_store_n(&f->m2p1, gfn1, __ATOMIC_RELAXED);
}
/* Everything about a frame is as when the machine was made, but for these. */
static inline void emb_frame_reset(struct emb_frame *f, uint8_t state, uint8_t flags)
{
    emb_m2p_set(f, 0);
    f->count = f->type_count = 0;
    f->next = f->prev = 0;
    f->owner = 0;
    f->type = 0;
    f->state = state;
    f->flags = flags;
    f->order1 = 0;
    f->reserved = 0;
}
int emb_node_of(const struct emb_machine *m, uint64_t mfn);             /* -1 none */
struct emb_domain *emb_domain_find(struct emb_machine *m, uint16_t domid);
static inline uint32_t emb_slot(const struct emb_machine *m, const struct emb_domain *d)
{
    return (uint32_t)(d - m->domains);
}
static inline struct emb_domain *emb_owner(struct emb_machine *m, const struct emb_frame *f)
{
    return f->owner ? &m->domains[f->owner - 1] : NULL;
}

/* heap.c */
void emb_heap_add(struct emb_machine *m, uint64_t start, uint64_t end);
uint64_t emb_heap_alloc(struct emb_machine *m, uint32_t node, uint32_t order);      /* FS_FRAME_NONE: none */
void emb_heap_free(struct emb_machine *m, uint64_t mfn);
void emb_heap_free_extent(struct emb_machine *m, uint64_t mfn, uint32_t order);    /* aligned, in use by a domain, of one node */
void emb_heap_take(struct emb_machine *m, uint64_t mfn);                /* a free frame out of its buddy: offlined */
bool emb_heap_online(struct emb_machine *m, uint64_t mfn);              /* offlined or offlining no more; false: broken or neither */

/* refs.c */
int emb_get_page(struct emb_machine *m, uint64_t mfn, const struct emb_domain *d);
void emb_put_page(struct emb_machine *m, uint64_t mfn);
int emb_get_type(struct emb_machine *m, uint64_t mfn, enum emb_type type);
void emb_put_type(struct emb_machine *m, uint64_t mfn);
int emb_get_page_and_type(struct emb_machine *m, uint64_t mfn, const struct emb_domain *d, enum emb_type type);
void emb_put_page_and_type(struct emb_machine *m, uint64_t mfn);
void emb_put_alloc_ref(struct emb_machine *m, uint64_t mfn);            /* pre: the caller holds another one */
int emb_assign(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint32_t order);
/* Without asking the limit: the domain gave as many back, and may have been over it already.  pre: not dying. */
void emb_assign_exchanged(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint32_t order);
void emb_list_unlink(struct emb_machine *m, struct emb_domain *d, uint64_t mfn);
/* chain: they follow each other in the list, too, as frames mostly do that came together. */
void emb_list_unlink_run(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint64_t pages, bool chain);
void emb_list_append(struct emb_machine *m, struct emb_domain *d, uint64_t mfn);

/* table.c: page-table entries */
#define EMB_PTE_P        0x001ull
#define EMB_PTE_RW       0x002ull
#define EMB_PTE_USER     0x004ull
#define EMB_PTE_PWT      0x008ull
#define EMB_PTE_PCD      0x010ull
#define EMB_PTE_A        0x020ull
#define EMB_PTE_D        0x040ull
#define EMB_PTE_PSE      0x080ull       /* PAT in an L1 entry */
#define EMB_PTE_GLOBAL   0x100ull
#define EMB_PTE_KERNEL   (1ull << 52)   /* Xen's mark of a kernel page in an L1 entry */
#define EMB_PTE_GNTTAB   (1ull << 62)
#define EMB_PTE_NX       (1ull << 63)
#define EMB_PTE_FRAME    0x000ffffffffff000ull
#define EMB_XEN_SLOT_FIRST 256u         /* L4 entries that are Xen's */
#define EMB_XEN_SLOT_END   272u
static inline uint64_t emb_pte_mfn(uint64_t pte) { return (pte & EMB_PTE_FRAME) >> FS_PAGE_SHIFT; }
static inline bool emb_xen_slot(uint32_t i) { return i >= EMB_XEN_SLOT_FIRST && i < EMB_XEN_SLOT_END; }
uint64_t *emb_table(struct emb_machine *m, uint64_t mfn);
int emb_table_promote(struct emb_machine *m, uint64_t mfn, enum emb_type type);
void emb_table_demote(struct emb_machine *m, uint64_t mfn, enum emb_type type);
int emb_entry_get(struct emb_machine *m, struct emb_domain *d, enum emb_type level, uint64_t pte);
void emb_entry_put(struct emb_machine *m, enum emb_type level, uint64_t pte);
uint64_t emb_entry_adjust(enum emb_type level, uint64_t pte);
/* Translate va as a CPU would, from root (an L4 frame). *pte gets the L1 entry, flags of all levels anded into RW and USER. */
bool emb_walk(struct emb_machine *m, uint64_t root, uint64_t va, uint64_t *pte, uint64_t *l1_mfn);

/* mmu.c: mmu_update, mmuext_op (what may cross domains) */
int emb_pin(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint32_t level);
int emb_unpin(struct emb_machine *m, struct emb_domain *d, uint64_t mfn);
int emb_copy_page(struct emb_machine *m, struct emb_domain *d, uint64_t from, uint64_t to);
int emb_machphys_update(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint64_t pfn);
int emb_mmu_update(struct emb_machine *m, struct emb_domain *d, uint64_t ptr, uint64_t val);
/* The same for count adjacent entries of a validated L1 that become 0; false: it is none of the domain's, nothing was done. */
bool emb_l1_clear(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint32_t index, uint32_t count);

/* memory.c: XENMEM_* */
int emb_increase(struct emb_machine *m, struct emb_domain *d, uint32_t node, uint32_t order, uint64_t *mfn);
int emb_decrease(struct emb_machine *m, struct emb_domain *d, uint64_t gmfn);
/* 2^order frames from an aligned one on, where all are the domain's, whole and nobody else's; false: nothing was done, give them one by one. PV. */
bool emb_decrease_extent(struct emb_machine *m, struct emb_domain *d, uint64_t mfn, uint32_t order);
int emb_populate(struct emb_machine *m, struct emb_domain *d, uint32_t node, uint32_t order, uint64_t gfn);
int emb_add_to_physmap(struct emb_machine *m, struct emb_domain *d, uint64_t from, uint64_t to);
int emb_exchange_probe(struct emb_machine *m, struct emb_domain *d, const uint64_t *mfns, size_t count);

/* p2m.c: HAP */
int emb_p2m_init(struct emb_machine *m, struct emb_domain *d, uint64_t gfns);
void emb_p2m_destroy(struct emb_machine *m, struct emb_domain *d);
uint64_t emb_p2m_get(struct emb_machine *m, const struct emb_domain *d, uint64_t gfn);     /* FS_FRAME_NONE: hole */
int emb_p2m_set(struct emb_machine *m, struct emb_domain *d, uint64_t gfn, uint64_t mfn, uint32_t order);
int emb_p2m_clear(struct emb_machine *m, struct emb_domain *d, uint64_t gfn);
int emb_p2m_split(struct emb_machine *m, struct emb_domain *d, uint64_t gfn);
bool emb_p2m_is_super(const struct emb_domain *d, uint64_t gfn);
void emb_dirty_mark(struct emb_machine *m, struct emb_domain *d, uint64_t gfn);

/* domain.c */
struct emb_domain *emb_domain_new(struct emb_machine *m, const struct emb_domain_config *c, int *rc);
/* A zeroed frame of Xen's heap that the domain may map, of type writable for ever: FS_FRAME_NONE without memory. */
uint64_t emb_share_page(struct emb_machine *m, struct emb_domain *d);
void emb_domain_kill(struct emb_machine *m, struct emb_domain *d);
void emb_domain_last_page(struct emb_machine *m, struct emb_domain *d);
int emb_hold(struct emb_machine *m, struct emb_domain *d, const struct emb_held *h);       /* takes the references */
bool emb_domain_runs(const struct emb_domain *d);

/* vcpu.c */
int emb_set_gdt(struct emb_machine *m, struct emb_domain *d, struct emb_vcpu *v, const uint64_t *frames, uint32_t entries);
void emb_destroy_gdt(struct emb_machine *m, struct emb_vcpu *v);
void emb_destroy_ldt(struct emb_machine *m, struct emb_vcpu *v);
int emb_map_ldt(struct emb_machine *m, struct emb_domain *d, struct emb_vcpu *v, uint32_t page);
int emb_vcpu_load(struct emb_machine *m, struct emb_domain *d, uint32_t id, const struct hv_pv_vcpu *c);
void emb_vcpu_reset(struct emb_machine *m, struct emb_domain *d, uint32_t id);

/* client.c */
void emb_client_drop(struct emb_machine *m, struct emb_client *c);

/* fault.c */
bool emb_fault_enter(struct emb_machine *m, enum emb_op op, fs_status_t *status, bool *partial);

#endif
