/*
 * guest.c - the truth about a synthetic guest, and memory as the guest itself reaches it.
 *
 * Owns: allocation of struct emb_guest, the patterns that pages hold, the guest's walk.
 * Invariants:
 *  I1 a page's expected bytes depend on the guest's seed, the pfn and the page's
 *     generation only: two pages never hold the same, no page holds its old contents;
 *  I2 a PV guest's memory is reached through its own page tables from the root of its first
 *     vCPU that runs, a HAP guest's through the p2m: never through our own records.
 * Lock order: the machine's lock is held.
 * Why generations: a write by the guest between two engine calls must survive the
 * move; one that went to the old frame is found at the next check.
 * Cost: a pattern is 512 multiplications; the truth about a table is 4 KiB.
 */
#include "emb_guest.h"

struct emb_guest *emb_guest_new(struct emb_machine *m, uint64_t pfns, uint64_t seed)
{
    struct emb_guest *g = emb_alloc(m, sizeof(*g));
    if (!g) {
        return NULL;
    }
    *g = (struct emb_guest){ .pfns = pfns, .seed = seed, .rng = seed };
    g->table_capacity = (uint32_t)(pfns / 8 + 64);
    g->role = emb_alloc(m, pfns);
    g->gen = emb_alloc(m, pfns * sizeof(g->gen[0]));
    g->table = emb_alloc(m, pfns * sizeof(g->table[0]));
    g->tables = emb_alloc(m, g->table_capacity * sizeof(g->tables[0]));
    g->p2m_pfn = emb_alloc(m, (pfns / 512 + 8) * sizeof(g->p2m_pfn[0]));
    return g->role && g->gen && g->table && g->tables && g->p2m_pfn ? g : NULL;     /* the arena was sized for it: no undo */
}

void emb_guest_free(struct emb_machine *m, struct emb_domain *d)
{
    struct emb_guest *g = d->guest;
    if (!g) {
        return;
    }
    for (uint32_t i = 0; i < g->table_count; i++) {
        emb_free(m, g->tables[i], sizeof(*g->tables[i]));
    }
    emb_free(m, g->role, g->pfns);
    emb_free(m, g->gen, g->pfns * sizeof(g->gen[0]));
    emb_free(m, g->table, g->pfns * sizeof(g->table[0]));
    emb_free(m, g->tables, g->table_capacity * sizeof(g->tables[0]));
    emb_free(m, g->p2m_pfn, (g->pfns / 512 + 8) * sizeof(g->p2m_pfn[0]));
    emb_free(m, g, sizeof(*g));
    d->guest = NULL;
}

struct emb_ptable *emb_plan_table(struct emb_guest *g, uint64_t pfn)
{
    ASSERT_CMP(pfn, <, g->pfns);
    ASSERT_CMP(g->table[pfn], >, 0);
    return g->tables[g->table[pfn] - 1];
}

void emb_pattern(const struct emb_guest *g, uint64_t pfn, uint32_t gen, uint64_t *words)
{
    uint64_t key = g->seed ^ (pfn * 0xd6e8feb86659fd93ull) ^ ((uint64_t)gen << 48 | gen);
    uint64_t x = emb_random(&key);
    for (uint32_t i = 0; i < 512; i++) {
        x += 0x9e3779b97f4a7c15ull;
        words[i] = (x ^ (x >> 29)) * 0xbf58476d1ce4e5b9ull;
    }
}

/* A descriptor that validates: null, or present code or data of privilege 3. */
uint64_t emb_gdt_word(const struct emb_guest *g, uint64_t pfn, uint32_t i)
{
    uint64_t key = g->seed + pfn * 512 + i;
    uint64_t r = emb_random(&key);
    if (r % 8 == 0) {
        return 0;
    }
    uint32_t high = (uint32_t)(r >> 32) | (1u << 15) | (3u << 13) | (1u << 12);
    return (uint64_t)high << 32 | (uint32_t)r;
}

void emb_blob(uint64_t seed, uint8_t *blob)
{
    for (size_t i = 0; i < EMB_VCPU_BLOB_BYTES; i += sizeof(uint64_t)) {
        uint64_t r = emb_random(&seed);
        memcpy(blob + i, &r, sizeof(r));
    }
}

static uint64_t root_of(const struct emb_domain *d)
{
    for (uint32_t i = 0; i < d->vcpu_count; i++) {
        if (d->vcpus[i].initialised && d->vcpus[i].cr3) {
            return d->vcpus[i].cr3;
        }
    }
    return 0;
}

uint64_t emb_guest_reach(struct emb_machine *m, const struct emb_domain *d, uint64_t pfn, bool *writable)
{
    if (d->kind == HV_DOMAIN_HAP) {
        if (writable) {
            *writable = true;
        }
        return emb_p2m_get(m, d, pfn);
    }
    uint64_t pte;
    if (!emb_walk(m, root_of(d), EMB_VA_DIRECT + pfn * FS_PAGE_BYTES, &pte, NULL)) {
        return FS_FRAME_NONE;
    }
    if (writable) {
        *writable = pte & EMB_PTE_RW;
    }
    uint64_t mfn = emb_pte_mfn(pte);
    return emb_is_ram(m, mfn) ? mfn : FS_FRAME_NONE;
}

bool emb_guest_p2m(struct emb_machine *m, const struct emb_domain *d, uint64_t pfn, uint64_t *entry, uint64_t *where)
{
    uint64_t pte, at = pfn * sizeof(uint64_t);
    if (!emb_walk(m, root_of(d), EMB_VA_P2M + at, &pte, NULL) || !emb_is_ram(m, emb_pte_mfn(pte))) {
        return false;
    }
    *entry = emb_table(m, emb_pte_mfn(pte))[pfn % 512];
    if (where) {
        *where = emb_pte_mfn(pte);
    }
    return true;
}
