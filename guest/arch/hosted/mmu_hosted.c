/*
 * mmu_hosted.c - page tables and user access of the flat hosted machine, with a TLB a CPU.
 *
 * Owns: which pages are page tables and of which level; each CPU's root, TLB and paging-structure cache.
 * Invariants:
 *   I1  entries change by atomic operations alone; A and D are set by compare-and-swap, so arch_pte_exchange() loses none.
 *   I2  a CPU's lock is held during its user access: a flush that has got the lock comes after the whole access.
 *   I3  a user address never reaches a page table: the walk refuses, for a mapping of one is a mistake of the core.
 *   I4  what a TLB holds is used without looking at the tables again, but to set a D bit that it has not seen set.
 *   I5  a leaf of level 2 is aligned, and none of its 512 frames is a page table; a TLB keeps it as the small pages that were asked for, as
 *       hardware may.
 * Lock order: a CPU's lock is the last.
 *   I5  a leaf of level 2 is aligned, and none of its 512 frames is a page table; a TLB keeps it as the small pages that were asked for, as
 *       hardware may.
 * Why: entries are tagged by root and survive a switch, and one cache holds the last level's tables, so what was forgotten
 *   to be flushed stays usable as long as on the least forgiving hardware, and shows as wrong data.
 * Cost: a hit is one comparison and a copy; a flush takes every CPU's lock that has ever had a root.
 */
#include "arch_hosted.h"
#include "hosted_priv.h"
#include "frameshift/assert.h"
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define TLB_SLOTS  256u
#define WALK_SLOTS 64u
#define FLUSH_ONE_BY_ONE 64u

typedef _Atomic uint64_t pte_t;

struct tlb_entry { uint64_t root, page; pfn_t pfn; bool valid, write, dirty; };
struct walk_entry { uint64_t root, region; pfn_t table; bool valid, write; };

struct cpu {
    FS_ALIGNED(64) _Atomic bool held;
    _Atomic bool used;                          /* has had a root: a flush may not pass it by */
    pfn_t root;
    struct tlb_entry tlb[TLB_SLOTS];
    struct walk_entry walk[WALK_SLOTS];
    uint64_t walks, hits;
};

static struct cpu cpus[ARCH_CPUS_MAX];
static _Atomic uint8_t *levels;                 /* [pages] */
static bool leaf_allowed = true;
static _Atomic uint64_t drop_flushes, fail_nth, flush_count, write_count, exchange_count, table_count;

static void cpu_lock(struct cpu *c)
{
    while (atomic_exchange_explicit(&c->held, true, memory_order_acquire)) {
        hosted_pause();
    }
}

static void cpu_unlock(struct cpu *c)
{
    atomic_store_explicit(&c->held, false, memory_order_release);
}

void hosted_mmu_reset(uint64_t pages)
{
    free((void *)levels);
    levels = pages != 0 ? calloc(pages, 1) : NULL;
    ASSERT(pages == 0 || levels != NULL);
    for (unsigned i = 0; i < ARCH_CPUS_MAX; i++) {
        memset((void *)&cpus[i], 0, sizeof(cpus[i]));
        cpus[i].root = PFN_NONE;
    }
    drop_flushes = fail_nth = flush_count = write_count = exchange_count = table_count = 0;
}

/* ---- entries ---- */

mfn_t arch_pfn_mfn(pfn_t pfn)
{
    return pfn.n < hosted_memory_pages() ? mfn_make(pfn.n + HOSTED_MFN_OFFSET) : MFN_NONE;
}

uint64_t arch_pte_make(pfn_t pfn, uint64_t bits)
{
    mfn_t mfn = arch_pfn_mfn(pfn);

    ASSERT(!mfn_is_none(mfn));
    return mfn.n << FS_PAGE_SHIFT | bits | ARCH_PTE_PRESENT;
}

pfn_t arch_pte_pfn(uint64_t pte)
{
    uint64_t mfn = (pte & ARCH_PTE_FRAME) >> FS_PAGE_SHIFT;

    return mfn >= HOSTED_MFN_OFFSET && mfn - HOSTED_MFN_OFFSET < hosted_memory_pages() ? pfn_make(mfn - HOSTED_MFN_OFFSET) : PFN_NONE;
}

static pte_t *entry(pfn_t table, uint32_t slot)
{
    ASSERT_CMP(slot, <, ARCH_PT_SLOTS);
    return (pte_t *)arch_page_address(table) + slot;
}

unsigned arch_hosted_table_level(pfn_t pfn)
{
    return pfn.n < hosted_memory_pages() ? atomic_load(&levels[pfn.n]) : 0;
}

uint64_t arch_hosted_tables(void)
{
    return atomic_load(&table_count);
}

void arch_hosted_fail_nth(uint64_t n)
{
    atomic_store(&fail_nth, n);
}

static bool fails_now(void)
{
    uint64_t n = atomic_load(&fail_nth);

    while (n != 0 && !atomic_compare_exchange_weak(&fail_nth, &n, n - 1)) {
    }
    return n == 1;
}

int arch_table_enter(pfn_t table, unsigned level)
{
    ASSERT(level >= 1 && level <= ARCH_PT_LEVELS);
    ASSERT_CMP(arch_hosted_table_level(table), ==, 0);
    for (uint32_t i = 0; i < ARCH_PT_SLOTS; i++) {
        ASSERT((atomic_load_explicit(entry(table, i), memory_order_relaxed) & ARCH_PTE_PRESENT) == 0);
    }
    if (fails_now()) {
        return -ENOMEM;
    }
    atomic_store(&levels[table.n], (uint8_t)level);
    atomic_fetch_add(&table_count, 1);
    return 0;
}

void arch_table_leave(pfn_t table, unsigned level)
{
    ASSERT_CMP(arch_hosted_table_level(table), ==, level);
    if (level == ARCH_PT_LEVELS) {
        for (unsigned i = 0; i < ARCH_CPUS_MAX; i++) {
            cpu_lock(&cpus[i]);
            if (cpus[i].root.n == table.n) {
                cpus[i].root = PFN_NONE;
            }
            cpu_unlock(&cpus[i]);
        }
    }
    atomic_store(&levels[table.n], 0);
    atomic_fetch_sub(&table_count, 1);
}

static bool takes_away(uint64_t old, uint64_t new)
{
    bool same = ((old ^ new) & ARCH_PTE_FRAME) == 0;
    uint64_t rights = ARCH_PTE_WRITE | ARCH_PTE_USER | ARCH_PTE_PRESENT;

    return (new & ARCH_PTE_PRESENT) == 0 || ((old & ARCH_PTE_PRESENT) && same && (new & rights & ~old) == 0);
}

/* What Xen would refuse too: an entry of a table that is none, or that names a table of the wrong level or a foreign frame. */
static void check_update(pfn_t table, uint64_t value)
{
    unsigned level = arch_hosted_table_level(table);
    pfn_t to;

    ASSERT_CMP(level, >, 0);
    if (value & ARCH_PTE_PRESENT) {
        to = arch_pte_pfn(value);
        ASSERT(!pfn_is_none(to));
        if (value & ARCH_PTE_LEAF) {                /* I5 */
            ASSERT(leaf_allowed && level == 2 && (value & ARCH_PTE_FRAME) % (FS_PAGE_BYTES * (uint64_t)ARCH_PT_SLOTS) == 0);
            for (uint32_t i = 0; i < ARCH_PT_SLOTS; i++) {
                ASSERT_CMP(arch_hosted_table_level(pfn_make(to.n + i)), ==, 0);
            }
            return;
        }
        ASSERT_CMP(arch_hosted_table_level(to), ==, level - 1);
    }
}

void arch_hosted_set_leaf(bool leaf)
{
    leaf_allowed = leaf;
}

bool arch_huge_leaf(void)
{
    return leaf_allowed;
}

int arch_pte_write(const struct arch_pte_update *u, size_t count)
{
    arch_hosted_safepoint();
    for (size_t i = 0; i < count; i++) {
        pte_t *e = entry(u[i].table, u[i].slot);

        check_update(u[i].table, u[i].value);
        if (!takes_away(atomic_load_explicit(e, memory_order_relaxed), u[i].value) && fails_now()) {
            return (int)i;
        }
        atomic_store_explicit(e, u[i].value, memory_order_release);
        atomic_fetch_add_explicit(&write_count, 1, memory_order_relaxed);
    }
    return (int)count;
}

uint64_t arch_pte_exchange(pfn_t table, uint32_t slot, uint64_t value)
{
    uint64_t old;

    arch_hosted_safepoint();
    check_update(table, value);
    old = atomic_exchange_explicit(entry(table, slot), value, memory_order_acq_rel);    /* I1 */
    ASSERT(takes_away(old, value));
    atomic_fetch_add_explicit(&exchange_count, 1, memory_order_relaxed);
    return old;
}

void arch_pte_exchange_run(pfn_t table, uint32_t slot, uint32_t count, const uint64_t *values, uint64_t *old)
{
    for (uint32_t i = 0; i < count; i++) {
        old[i] = arch_pte_exchange(table, slot + i, values[i]);
    }
}

/* ---- TLB ---- */

static struct tlb_entry *tlb_slot(struct cpu *c, uint64_t root, uint64_t page)
{
    return &c->tlb[(page ^ (page >> 9) ^ root * 37) % TLB_SLOTS];
}

static struct walk_entry *walk_slot(struct cpu *c, uint64_t root, uint64_t region)
{
    return &c->walk[(region ^ root * 37) % WALK_SLOTS];
}

static void flush_cpu(struct cpu *c, uint64_t root, uint64_t first, uint64_t pages)
{
    for (unsigned i = 0; i < WALK_SLOTS; i++) {
        c->walk[i].valid &= c->walk[i].root != root;
    }
    if (pages > FLUSH_ONE_BY_ONE) {
        for (unsigned i = 0; i < TLB_SLOTS; i++) {
            c->tlb[i].valid &= !(c->tlb[i].root == root && c->tlb[i].page - first < pages);
        }
        return;
    }
    for (uint64_t p = first; p - first < pages; p++) {
        struct tlb_entry *t = tlb_slot(c, root, p);

        t->valid &= !(t->root == root && t->page == p);
    }
}

uint64_t arch_hosted_drop_flushes(uint64_t n)
{
    return atomic_exchange(&drop_flushes, n);
}

static bool flush_dropped(void)
{
    uint64_t n = atomic_load(&drop_flushes);

    while (n != 0 && !atomic_compare_exchange_weak(&drop_flushes, &n, n - 1)) {
    }
    return n != 0;
}

void arch_tlb_flush(pfn_t root, uint64_t va, uint64_t pages)
{
    arch_hosted_safepoint();
    if (flush_dropped()) {
        return;
    }
    atomic_fetch_add_explicit(&flush_count, 1, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst);      /* the entry was changed before used is read, and the other way round */
    for (unsigned i = 0; i < ARCH_CPUS_MAX; i++) {
        if (atomic_load(&cpus[i].used)) {
            cpu_lock(&cpus[i]);                     /* I2 */
            flush_cpu(&cpus[i], root.n, pages == UINT64_MAX ? 0 : va >> FS_PAGE_SHIFT, pages);
            cpu_unlock(&cpus[i]);
        }
    }
}

int arch_space_enter(pfn_t root)
{
    struct cpu *c = &cpus[arch_cpu_id()];

    arch_hosted_safepoint();
    ASSERT(pfn_is_none(root) || arch_hosted_table_level(root) == ARCH_PT_LEVELS);
    atomic_store(&c->used, true);
    cpu_lock(c);
    c->root = root;
    cpu_unlock(c);
    return 0;
}

/* ---- user access ---- */

static uint32_t slot_of(uint64_t va, unsigned level)
{
    return (uint32_t)(va >> (FS_PAGE_SHIFT + 9 * (level - 1))) % ARCH_PT_SLOTS;
}

/* The table with the entry that maps va, its level (2: a leaf) and whether the way to it is writable; PFN_NONE: there is none. */
static pfn_t walk_tables(struct cpu *c, uint64_t va, bool *write, unsigned *at_level)
{
    struct walk_entry *w = walk_slot(c, c->root.n, va >> 21);
    pfn_t table = c->root;

    if (w->valid && w->root == c->root.n && w->region == va >> 21) {
        *write = w->write;
        *at_level = 1;
        return w->table;
    }
    *write = true;
    *at_level = 1;
    for (unsigned level = ARCH_PT_LEVELS; level > 1; level--) {
        pte_t *e = entry(table, slot_of(va, level));
        uint64_t v = atomic_load_explicit(e, memory_order_acquire);

        if (level == 2 && (v & ARCH_PTE_PRESENT) && (v & ARCH_PTE_LEAF)) {
            *at_level = 2;
            return table;
        }
        do {
            if ((v & (ARCH_PTE_PRESENT | ARCH_PTE_USER)) != (ARCH_PTE_PRESENT | ARCH_PTE_USER)) {
                return PFN_NONE;
            }
        } while (!(v & ARCH_PTE_ACCESSED) && !atomic_compare_exchange_weak(e, &v, v | ARCH_PTE_ACCESSED));
        *write = *write && (v & ARCH_PTE_WRITE) != 0;
        table = arch_pte_pfn(v);
    }
    *w = (struct walk_entry){ .root = c->root.n, .region = va >> 21, .table = table, .valid = true, .write = *write };
    return table;
}

/* Walk and fill the TLB; false: not mapped for this access. */
static bool walk(struct cpu *c, uint64_t va, bool write, struct tlb_entry *t)
{
    uint64_t want = ARCH_PTE_PRESENT | ARCH_PTE_USER | (write ? ARCH_PTE_WRITE : 0);
    uint64_t set = ARCH_PTE_ACCESSED | (write ? ARCH_PTE_DIRTY : 0), v;
    bool way_writes;
    unsigned level;
    pfn_t table = walk_tables(c, va, &way_writes, &level), pfn;
    pte_t *e;

    c->walks++;
    t->valid = false;
    if (pfn_is_none(table) || (write && !way_writes)) {
        return false;
    }
    e = entry(table, slot_of(va, level));
    v = atomic_load_explicit(e, memory_order_acquire);
    do {
        if ((v & want) != want || (level == 2) != ((v & ARCH_PTE_LEAF) != 0)) {
            return false;                           /* (a leaf that has just become a table: the access faults once more) */
        }
    } while ((v & set) != set && !atomic_compare_exchange_weak(e, &v, v | set));     /* I1 */
    pfn = arch_pte_pfn(v);
    pfn.n += level == 2 ? slot_of(va, 1) : 0;
    *t = (struct tlb_entry){ .root = c->root.n, .page = va >> FS_PAGE_SHIFT, .pfn = pfn, .valid = true,
                             .write = way_writes && (v & ARCH_PTE_WRITE), .dirty = write || (v & ARCH_PTE_DIRTY) };
    ASSERT(!pfn_is_none(t->pfn));
    ASSERT_CMP(arch_hosted_table_level(t->pfn), ==, 0);      /* I3 */
    return true;
}

static unsigned char *translate(struct cpu *c, uint64_t va, bool write)
{
    struct tlb_entry *t = tlb_slot(c, c->root.n, va >> FS_PAGE_SHIFT);

    if (pfn_is_none(c->root) || va >= ARCH_USER_END) {
        return NULL;
    }
    if (t->valid && t->root == c->root.n && t->page == va >> FS_PAGE_SHIFT && (!write || (t->write && t->dirty))) {
        c->hits++;                                  /* I4 */
    } else if (!walk(c, va, write, t)) {
        return NULL;
    }
    return (unsigned char *)arch_page_address(t->pfn) + va % FS_PAGE_BYTES;
}

static int user_access(uint64_t va, void *to, const void *from, size_t bytes, uint64_t *fault)
{
    struct cpu *c = &cpus[arch_cpu_id()];
    size_t done = 0;

    arch_hosted_safepoint();
    cpu_lock(c);
    while (done < bytes) {
        size_t n = FS_PAGE_BYTES - (va + done) % FS_PAGE_BYTES;
        unsigned char *p = va + done < va ? NULL : translate(c, va + done, from != NULL);

        if (p == NULL) {
            break;
        }
        n = n < bytes - done ? n : bytes - done;
        if (from != NULL) {
            memcpy(p, (const unsigned char *)from + done, n);
        } else {
            memcpy((unsigned char *)to + done, p, n);
        }
        done += n;
    }
    cpu_unlock(c);
    *fault = va + done;
    return done == bytes ? 0 : -1;
}

int arch_user_read(uint64_t va, void *buf, size_t bytes, uint64_t *fault)
{
    return user_access(va, buf, NULL, bytes, fault);
}

int arch_user_write(uint64_t va, const void *buf, size_t bytes, uint64_t *fault)
{
    return user_access(va, NULL, buf, bytes, fault);
}

struct arch_hosted_counts arch_hosted_counts(void)
{
    struct arch_hosted_counts n = { .flushes = flush_count, .pte_writes = write_count, .exchanges = exchange_count };

    for (unsigned i = 0; i < ARCH_CPUS_MAX; i++) {
        cpu_lock(&cpus[i]);
        n.walks += cpus[i].walks;
        n.hits += cpus[i].hits;
        cpu_unlock(&cpus[i]);
    }
    return n;
}
