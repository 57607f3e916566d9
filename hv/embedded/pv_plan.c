/*
 * pv_plan.c - lays out a synthetic PV guest: what each pfn is, every page-table entry.
 *
 * Owns: struct emb_guest of a PV domain while it is planned.
 * Invariants:
 *  I1 every pfn with a frame is mapped once in the kernel's direct map: read-only if it is a
 *     table, GDT or LDT page, else writable;
 *  I2 no other writable mapping leads to such a page;
 *  I3 the p2m list is mapped at EMB_VA_P2M; pfns beyond the guest's memory share one
 *     "missing" page, mapped read-only several times, and one identity page.
 * Why this shape: it is what a Linux PV guest shows to a mover: the same frames in
 * many tables, user and kernel roots for each process with shared lower levels, some
 * L1 tables pinned by themselves below a pinned L4, non-present entries full of
 * swap bits, tables scattered over memory, holes from the balloon.
 * Cost: 4 KiB of truth for each table, about 8 for each 2 MiB of guest.
 */
#include "emb_guest.h"

#define KERNEL_TABLE (EMB_PTE_P | EMB_PTE_RW | EMB_PTE_A | EMB_PTE_D)
#define USER_TABLE   (KERNEL_TABLE | EMB_PTE_USER)
#define KERNEL_RW    (EMB_PTE_P | EMB_PTE_RW | EMB_PTE_A | EMB_PTE_D | EMB_PTE_NX)
#define KERNEL_RO    (EMB_PTE_P | EMB_PTE_A | EMB_PTE_NX)

static uint64_t random_below(struct emb_guest *g, uint64_t n)
{
    return emb_random(&g->rng) % n;
}

/* A random pfn without a role gets this one. The guest is never more than three quarters full while planned. */
static uint64_t take_pfn(struct emb_guest *g, enum emb_role role)
{
    uint64_t pfn;
    do {
        pfn = 4 + random_below(g, g->pfns - 4);
    } while (g->role[pfn] != EMB_R_FREE);
    g->role[pfn] = (uint8_t)role;
    return pfn;
}

static struct emb_ptable *new_table(struct emb_machine *m, struct emb_guest *g, uint32_t level)
{
    struct emb_ptable *t = g->table_count < g->table_capacity ? emb_alloc(m, sizeof(*t)) : NULL;
    if (!t) {
        return NULL;
    }
    t->level = level;
    t->pfn = take_pfn(g, EMB_R_TABLE);
    t->pinned = level == 1 && (emb_random(&g->rng) & 1);
    g->tables[g->table_count++] = t;
    g->table[t->pfn] = g->table_count;
    return t;
}

static uint32_t va_index(uint64_t va, uint32_t level)
{
    return (uint32_t)(va >> (12 + 9 * (level - 1))) & 511u;
}

/* The L1 entry for va below root, its tables made where missing. NULL: arena full. */
static uint64_t *plan_slot(struct emb_machine *m, struct emb_guest *g, uint64_t root, uint64_t va)
{
    struct emb_ptable *t = emb_plan_table(g, root);
    for (uint32_t level = 4; level > 1; level--) {
        uint64_t *e = &t->e[va_index(va, level)];
        if (!*e) {
            struct emb_ptable *below = new_table(m, g, level - 1);
            if (!below) {
                return NULL;
            }
            *e = below->pfn << FS_PAGE_SHIFT | (va >> 63 ? KERNEL_TABLE : USER_TABLE);
        }
        t = emb_plan_table(g, emb_pte_mfn(*e));
    }
    return &t->e[va_index(va, 1)];
}

static bool is_read_only(enum emb_role role)
{
    return role == EMB_R_TABLE || role == EMB_R_GDT || role == EMB_R_LDT;
}

/* First only the tables: their own pfns must have their roles before flags are decided. */
static int map_kernel(struct emb_machine *m, struct emb_guest *g, bool fill)
{
    uint64_t text_pfns = g->pfns / 8 < 1024 ? g->pfns / 8 : 1024;
    for (uint64_t pfn = 0; pfn < g->pfns; pfn += fill ? 1 : 512) {
        uint64_t *e = plan_slot(m, g, g->init_l4, EMB_VA_DIRECT + pfn * FS_PAGE_BYTES);
        uint64_t *text = pfn < text_pfns ? plan_slot(m, g, g->init_l4, EMB_VA_TEXT + pfn * FS_PAGE_BYTES) : NULL;
        if (!e || (pfn < text_pfns && !text)) {
            return -ENOMEM;
        }
        if (fill && g->role[pfn] != EMB_R_HOLE) {
            uint64_t flags = is_read_only(g->role[pfn]) ? KERNEL_RO : KERNEL_RW;
            *e = pfn << FS_PAGE_SHIFT | flags;
            if (text) {
                *text = pfn << FS_PAGE_SHIFT | (pfn % 4 ? flags : KERNEL_RO);
            }
        }
    }
    return 0;
}

static int plan_p2m(struct emb_machine *m, struct emb_guest *g)
{
    g->p2m_pages = (uint32_t)((g->pfns + 511) / 512);
    g->p2m_slots = g->p2m_pages + 3;
    g->max_pfn = (uint64_t)g->p2m_slots * 512;
    g->missing = take_pfn(g, EMB_R_P2M_MISSING);
    g->identity = take_pfn(g, EMB_R_P2M_IDENTITY);
    for (uint32_t i = 0; i < g->p2m_slots; i++) {
        bool own = i < g->p2m_pages;
        g->p2m_pfn[i] = (uint32_t)(own ? take_pfn(g, EMB_R_P2M) : i + 1 < g->p2m_slots ? g->missing : g->identity);
        uint64_t *e = plan_slot(m, g, g->init_l4, EMB_VA_P2M + (uint64_t)i * FS_PAGE_BYTES);
        if (!e) {
            return -ENOMEM;
        }
        *e = (uint64_t)g->p2m_pfn[i] << FS_PAGE_SHIFT | (own ? KERNEL_RW : KERNEL_RO);
    }
    g->list_top = take_pfn(g, EMB_R_LIST_TOP);
    g->list_mid_missing = take_pfn(g, EMB_R_LIST_MID_MISSING);
    g->list_mids = (g->p2m_slots + 511) / 512;
    if (g->list_mids > FS_ARRAY_SIZE(g->list_mid)) {
        return -E2BIG;
    }
    for (uint32_t i = 0; i < g->list_mids; i++) {
        g->list_mid[i] = take_pfn(g, EMB_R_LIST_MID);
    }
    return 0;
}

/* ---- processes ----------------------------------------------------------- */

static uint64_t user_flags(struct emb_guest *g, bool shared)
{
    uint64_t flags = EMB_PTE_P | EMB_PTE_USER | EMB_PTE_A;
    uint64_t r = emb_random(&g->rng);
    if (!shared || r % 3 == 0) {
        flags |= EMB_PTE_RW | EMB_PTE_D;
    }
    return flags | (r & 8 ? EMB_PTE_NX : 0) | (r & 0x600);      /* available bits, as Linux keeps some of its own */
}

static int map_process(struct emb_machine *m, struct emb_guest *g, uint64_t root, uint64_t pages, const uint64_t *shared, uint32_t shared_count)
{
    static const uint64_t areas[] = { 0x400000, 0x555555554000, 0x7f1234500000, 0x7ffffff00000 };
    for (uint64_t i = 0; i < pages;) {
        uint64_t va = areas[random_below(g, FS_ARRAY_SIZE(areas))] + random_below(g, 1u + (uint32_t)pages / 2) * FS_PAGE_BYTES * 2;
        for (uint64_t run = 1 + random_below(g, 32); run > 0 && i < pages; run--, i++, va += FS_PAGE_BYTES) {
            if (va >> 47) {
                break;
            }
            uint64_t *e = plan_slot(m, g, root, va);
            if (!e) {
                return -ENOMEM;
            }
            if (*e) {
                continue;
            }
            uint64_t r = random_below(g, 100);
            if (r < 3) {
                *e = emb_random(&g->rng) & ~EMB_PTE_P;          /* swapped out */
            } else if (r < 25) {
                *e = shared[random_below(g, shared_count)] << FS_PAGE_SHIFT | user_flags(g, true);
            } else {
                *e = take_pfn(g, EMB_R_DATA) << FS_PAGE_SHIFT | user_flags(g, false);
            }
        }
    }
    return 0;
}

static int plan_processes(struct emb_machine *m, struct emb_guest *g, const struct emb_domain_config *c)
{
    uint64_t shared[64];
    uint32_t shared_count = (uint32_t)(g->pfns / 64 < 64 ? g->pfns / 64 : 64);
    for (uint32_t i = 0; i < shared_count; i++) {
        shared[i] = take_pfn(g, EMB_R_DATA);
    }
    g->process_count = c->processes ? c->processes : 3;
    uint64_t pages = c->process_pages ? c->process_pages : g->pfns / 8;
    uint64_t most = g->pfns / 2 / g->process_count;
    pages = pages < most ? pages : most;
    for (uint32_t p = 0; p < g->process_count; p++) {
        struct emb_ptable *kernel = new_table(m, g, 4), *user = new_table(m, g, 4);
        if (!kernel || !user) {
            return -ENOMEM;
        }
        kernel->pinned = user->pinned = 4;
        g->processes[p] = (struct emb_process){ kernel->pfn, user->pfn };
        int rc = map_process(m, g, kernel->pfn, pages, shared, shared_count);
        if (rc) {
            return rc;
        }
        memcpy(user->e, kernel->e, 256 * sizeof(user->e[0]));
        memcpy(kernel->e + 256, emb_plan_table(g, g->init_l4)->e + 256, 256 * sizeof(kernel->e[0]));
    }
    return 0;
}

/* ---- vCPUs, what Xen holds ----------------------------------------------- */

static void plan_hold(struct emb_guest *g, enum emb_held_kind kind, uint64_t pfn, uint32_t vcpu, uint32_t offset)
{
    ASSERT_CMP(g->hold_count, <, EMB_HELD_MAX);
    g->holds[g->hold_count++] = (struct emb_held){ .gfn = pfn, .kind = (uint8_t)kind, .writable = 1, .vcpu = (uint16_t)vcpu, .offset = offset };
}

static void plan_vcpus(struct emb_guest *g, const struct emb_domain_config *c)
{
    for (uint32_t i = 0; i < c->vcpus; i++) {
        struct emb_guest_vcpu *v = &g->vcpus[i];
        v->runs = i + c->offline_vcpus < c->vcpus;
        if (!v->runs) {
            continue;
        }
        uint32_t p = i % (g->process_count + 1);
        bool idle = p == g->process_count;
        v->cr3 = idle ? g->init_l4 : g->processes[p].kernel_l4;
        v->user_cr3 = idle ? 0 : g->processes[p].user_l4;
        v->gdt_entries = i % 2 ? 1040 : 16;
        for (uint32_t k = 0; k < (v->gdt_entries + 511) / 512; k++) {
            v->gdt[k] = take_pfn(g, EMB_R_GDT);
        }
        v->ldt_pfn = c->ldt && i == 0 ? take_pfn(g, EMB_R_LDT) : 0;
        v->blob_seed = emb_random(&g->rng);
        plan_hold(g, EMB_HELD_VCPU_INFO, take_pfn(g, EMB_R_VCPU_INFO), i, (uint32_t)random_below(g, 64) * 64);
        if (!c->no_fifo) {
            plan_hold(g, EMB_HELD_EVT_CONTROL, take_pfn(g, EMB_R_EVT_CONTROL), i, 0);
        }
    }
    if (!c->no_fifo) {
        plan_hold(g, EMB_HELD_EVT_ARRAY, take_pfn(g, EMB_R_EVT_ARRAY), 0, 0);
    }
    plan_hold(g, EMB_HELD_PIRQ_EOI, take_pfn(g, EMB_R_PIRQ_EOI), 0, 0);
}

static void plan_grants(struct emb_guest *g, const struct emb_domain_config *c)
{
    for (uint32_t i = 0; i < c->grants_mapped + c->grants_offered && i < EMB_GRANTS_MAX; i++) {
        bool mapped = i < c->grants_mapped && g->hold_count < EMB_HELD_MAX;
        uint64_t pfn = take_pfn(g, EMB_R_DATA);
        g->grant_pfn[i] = pfn;
        g->grants[i] = (struct emb_grant){ .domid = 0, .in_use = 1, .mapped = mapped, .writable = i % 2 == 0 };
        g->grant_count = i + 1;
        if (mapped) {
            plan_hold(g, EMB_HELD_GRANT, pfn, 0, i);
            g->holds[g->hold_count - 1].writable = i % 2 == 0;
        }
    }
}

static void plan_rest(struct emb_guest *g, uint32_t ballooned)
{
    for (uint32_t i = 0; i < ballooned; i++) {
        (void)take_pfn(g, EMB_R_HOLE);
    }
    for (uint64_t pfn = 0; pfn < g->pfns; pfn++) {
        if (g->role[pfn] == EMB_R_FREE) {
            g->role[pfn] = EMB_R_DATA;
        }
    }
}

int emb_pv_plan(struct emb_machine *m, struct emb_domain *d)
{
    const struct emb_domain_config *c = &d->config;
    if (c->pages < 512 || c->processes > EMB_PROCESSES_MAX || c->ballooned > c->pages / 8 || c->offline_vcpus >= c->vcpus) {
        return -EINVAL;
    }
    struct emb_guest *g = d->guest = emb_guest_new(m, c->pages, c->seed);
    if (!g) {
        return -ENOMEM;
    }
    g->start_info = 1;
    g->store = 2;
    g->console = 3;
    g->role[0] = EMB_R_DATA;
    g->role[1] = EMB_R_START_INFO;
    g->role[2] = g->role[3] = EMB_R_RING;
    plan_hold(g, EMB_HELD_STORE, g->store, 0, 0);
    plan_hold(g, EMB_HELD_CONSOLE, g->console, 0, 0);

    struct emb_ptable *root = new_table(m, g, 4);
    if (!root) {
        return -ENOMEM;
    }
    root->pinned = 4;
    g->init_l4 = root->pfn;
    int rc = map_kernel(m, g, false);
    if (rc == 0) {
        rc = plan_p2m(m, g);
    }
    if (rc == 0) {
        rc = plan_processes(m, g, c);
    }
    if (rc) {
        return rc;
    }
    plan_vcpus(g, c);
    plan_grants(g, c);
    plan_rest(g, c->ballooned);
    return map_kernel(m, g, true);
}
