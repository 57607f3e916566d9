/*
 * emb_guest.h - what a synthetic guest's memory should hold.
 *
 * Owns: struct emb_guest, the truth that emb_guest_check() compares memory with.
 * It names pfns (PV) or gfns (HAP), never frames: a move changes nothing in it.
 * It lies in the arena, so it survives a killed tool.
 */
#ifndef FRAMESHIFT_EMB_GUEST_H
#define FRAMESHIFT_EMB_GUEST_H

#include "emb_priv.h"

enum emb_role {
    EMB_R_FREE,                         /* while planning: nothing yet */
    EMB_R_HOLE,                         /* no frame */
    EMB_R_DATA,                         /* a pattern by pfn and generation */
    EMB_R_TABLE,                        /* a page table: entries of struct emb_ptable */
    EMB_R_P2M, EMB_R_P2M_MISSING, EMB_R_P2M_IDENTITY,
    EMB_R_LIST_TOP, EMB_R_LIST_MID, EMB_R_LIST_MID_MISSING,    /* frame_list_list */
    EMB_R_GDT, EMB_R_LDT,
    EMB_R_START_INFO,
    EMB_R_RING,                         /* xenstore, console: a pattern, held */
    EMB_R_VCPU_INFO,                    /* a pattern but for the vcpu_infos in it */
    EMB_R_EVT_CONTROL, EMB_R_EVT_ARRAY, EMB_R_PIRQ_EOI,        /* written by Xen */
};

/* One page table, entries as the guest wrote them but with pfns for mfns where present. */
struct emb_ptable {
    uint64_t pfn;
    uint32_t level;
    uint32_t pinned;                    /* as that level */
    uint64_t e[512];
};

struct emb_process {
    uint64_t kernel_l4, user_l4;        /* pfns */
};
#define EMB_PROCESSES_MAX 32u

struct emb_foreign {                    /* a frame of another domain, mapped at this pfn by grant */
    uint64_t pfn, mfn;
};
#define EMB_FOREIGN_MAX 16u

struct emb_guest_vcpu {
    bool runs;                          /* it was brought up */
    uint64_t cr3, user_cr3;             /* pfns; 0 none */
    uint32_t gdt_entries;
    uint64_t gdt[HV_GDT_FRAMES];        /* pfns */
    uint64_t ldt_pfn;                   /* 0 none */
    uint64_t blob_seed;
};

struct emb_guest {
    uint64_t pfns;                      /* entries of the arrays below */
    uint64_t max_pfn;                   /* what shared_info says: covers missing p2m pages too */
    uint64_t seed, rng;
    uint8_t *role;
    uint32_t *gen;
    uint32_t *table;                    /* index + 1 into tables */
    struct emb_ptable **tables;
    uint32_t table_count, table_capacity;
    uint32_t p2m_pages;                 /* real ones */
    uint32_t p2m_slots;                 /* with missing and identity pages */
    uint32_t *p2m_pfn;                  /* pfn of the page that serves each slot */
    uint64_t missing, identity, list_top, list_mid_missing, start_info, store, console, init_l4;
    uint32_t list_mids;
    uint64_t list_mid[16];
    struct emb_process processes[EMB_PROCESSES_MAX];
    uint32_t process_count;
    struct emb_guest_vcpu vcpus[EMB_VCPUS_MAX];
    bool suspended;                     /* the guest is inside its suspend hypercall */
    bool dead;                          /* it ran without state, or faulted in its kernel */
    uint64_t events_sent, events_seen;
    /* HAP: gfns beyond pfns */
    uint64_t special_gfn[4];
    uint32_t special_count;
    /* holds to be taken when it is built */
    struct emb_held holds[EMB_HELD_MAX];
    uint32_t hold_count;
    struct emb_grant grants[EMB_GRANTS_MAX];
    uint64_t grant_pfn[EMB_GRANTS_MAX];
    struct emb_foreign foreign[EMB_FOREIGN_MAX];
    uint32_t foreign_count;
    uint32_t grant_count;
};

#define EMB_VA_DIRECT 0xffff888000000000ull
#define EMB_VA_P2M    0xffffc90000000000ull
#define EMB_VA_TEXT   0xffffffff80000000ull
#define EMB_P2M_INVALID  UINT64_MAX
#define EMB_P2M_FOREIGN  (1ull << 63)
#define EMB_P2M_IDENTITY (1ull << 62)

/* guest.c: the truth itself, patterns, access as the guest has it */
struct emb_guest *emb_guest_new(struct emb_machine *m, uint64_t pfns, uint64_t seed);
void emb_guest_free(struct emb_machine *m, struct emb_domain *d);
void emb_pattern(const struct emb_guest *g, uint64_t pfn, uint32_t gen, uint64_t *words);  /* 512 words */
uint64_t emb_gdt_word(const struct emb_guest *g, uint64_t pfn, uint32_t i);
void emb_blob(uint64_t seed, uint8_t *blob);
/* Frame that the guest reaches at pfn/gfn by its own tables; FS_FRAME_NONE where it would fault. *writable may be NULL. */
uint64_t emb_guest_reach(struct emb_machine *m, const struct emb_domain *d, uint64_t pfn, bool *writable);
/* Its own p2m entry, read through its own tables; false where the walk faults. */
bool emb_guest_p2m(struct emb_machine *m, const struct emb_domain *d, uint64_t pfn, uint64_t *entry, uint64_t *where);

/* pv_plan.c, pv_build.c, hap_build.c */
int emb_pv_plan(struct emb_machine *m, struct emb_domain *d);
int emb_pv_build(struct emb_machine *m, struct emb_domain *d);
int emb_hap_plan(struct emb_machine *m, struct emb_domain *d);
int emb_hap_build(struct emb_machine *m, struct emb_domain *d);
struct emb_ptable *emb_plan_table(struct emb_guest *g, uint64_t pfn);
/* A frame for the domain by its placement policy. */
int emb_place(struct emb_machine *m, struct emb_domain *d, uint32_t order, uint64_t *mfn);
int emb_take_holds(struct emb_machine *m, struct emb_domain *d, const uint32_t *mfn_of);    /* mfn_of[pfn], NULL for HAP */
void emb_xen_page_init(struct emb_machine *m, const struct emb_held *h);

/* pv_suspend.c: what the guest's own code does around a suspend */
void emb_pv_pre_suspend(struct emb_machine *m, struct emb_domain *d);
void emb_pv_post_suspend(struct emb_machine *m, struct emb_domain *d);
void emb_pv_shared_info(struct emb_machine *m, struct emb_domain *d);

/* events.c: Xen posts events into the pages that it holds; the guest takes them from where it finds those pages */
#define EMB_PORT_FIRST 8u
#define EMB_PORTS_PER_VCPU 4u
void emb_xen_events(struct emb_machine *m, struct emb_domain *d, uint32_t events);
void emb_guest_events(struct emb_machine *m, struct emb_domain *d);
/* The domain may run again: the guest's own code after a suspend, if it was in one.  A vCPU without state: it is dead. */
void emb_guest_wakes(struct emb_machine *m, struct emb_domain *d);

#endif
