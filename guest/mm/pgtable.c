/*
 * pgtable.c - page tables of a process: walking, tables that come and go.
 *
 * Owns: every page with PG_TABLE: private is its level, mapping the mm_struct, index the first address that it covers,
 *   mapcount the number of its entries that are not none.
 * Invariants:
 *   I1  an entry changes under page_table_lock, but for A and D, which the machine sets; so what may have lost them is exchanged.
 *   I2  a table that is linked stays so while mmap_lock is held for reading: only pgtable_prune() and pgtable_destroy()
 *       unlink, and the reverse maps change entries of the last level only.
 *   I3  a table is freed after it was unlinked, the TLBs were flushed and the machine has taken it back.
 *   I4  mapcount follows each change of none to something and back.
 * Lock order: page_table_lock; pages are allocated and freed without it.
 * Why: one lock a process is enough, the work under it is short; with the count in the table an empty one is known without
 *   looking at its 512 entries.
 * Cost: a walk is four loads; a table costs one page, charged to the process (__GFP_ACCOUNT).
 *
 * Layer: L2
 */
#include "pgtable.h"
#include "frameshift/assert.h"

#define SURE_TRIES 1000000u
#define FILL_MAX   64u

typedef _Atomic uint64_t slot_t;

static slot_t *slot_of(const struct page *table, uint32_t slot)
{
    return (slot_t *)arch_page_address(page_pfn(table)) + slot;
}

static uint32_t va_slot(uint64_t va, unsigned level)
{
    return (uint32_t)(va >> (FS_PAGE_SHIFT + 9 * (level - 1))) % ARCH_PT_SLOTS;
}

/* The first address that the table of this level which covers va covers. */
static uint64_t table_base(uint64_t va, unsigned level)
{
    return level == ARCH_PT_LEVELS ? 0 : va & ~((1ull << (FS_PAGE_SHIFT + 9 * level)) - 1);
}

uint64_t pte_read(const struct pte_ref *at)
{
    return atomic_load_explicit(slot_of(at->table, at->slot), memory_order_acquire);
}

static struct page *root_of(const struct mm_struct *mm)
{
    return mm_page(mm->vm->mm, mm->pgd);
}

/* The table that the entry names; NULL: none. */
static struct page *table_below(const struct mm_struct *mm, const struct page *table, uint32_t slot)
{
    uint64_t e = atomic_load_explicit(slot_of(table, slot), memory_order_acquire);

    return pte_present(e) ? mm_page(mm->vm->mm, arch_pte_pfn(e)) : NULL;
}

bool pgtable_find(const struct mm_struct *mm, uint64_t va, struct pte_ref *at)
{
    struct page *table = root_of(mm);

    ASSERT_CMP(va, <, ARCH_USER_END);
    for (unsigned level = ARCH_PT_LEVELS; level > 1 && table != NULL; level--) {
        table = table_below(mm, table, va_slot(va, level));
    }
    *at = (struct pte_ref){ .table = table, .slot = va_slot(va, 1) };
    return table != NULL;
}

/* ---- entries ---- */

/* I4 */
static void count_change(struct page *table, uint64_t old, uint64_t new)
{
    int change = (int)pte_none(old) - (int)pte_none(new);

    if (change != 0) {
        int32_t was = atomic_fetch_add_explicit(&table->mapcount, change, memory_order_relaxed);

        ASSERT(was + change >= 0 && was + change <= (int)ARCH_PT_SLOTS);
    }
}

mm_status_t pte_set(const struct pte_ref *at, uint64_t value)
{
    struct arch_pte_update u = { page_pfn(at->table), at->slot, value };
    uint64_t old = pte_read(at);

    ASSERT(!pte_present(old) || (pte_present(value) && ((old ^ value) & ARCH_PTE_FRAME) == 0));     /* I1 */
    if (arch_pte_write(&u, 1) != 1) {
        return MM_ENOMEM;
    }
    count_change(at->table, old, value);
    return MM_OK;
}

void pte_set_sure(const struct pte_ref *at, uint64_t value)
{
    mm_status_t status = pte_set(at, value);

    for (unsigned tries = 0; status != MM_OK; tries++) {
        ASSERT_CMP(tries, <, SURE_TRIES);
        arch_cpu_relax();
        status = pte_set(at, value);
    }
}

uint64_t pte_exchange(const struct pte_ref *at, uint64_t value)
{
    uint64_t old = arch_pte_exchange(page_pfn(at->table), at->slot, value);

    count_change(at->table, old, value);
    return old;
}

uint64_t pte_clear_bits(const struct pte_ref *at, uint64_t bits, uint64_t *lost)
{
    uint64_t seen = pte_read(at), old = pte_exchange(at, seen & ~bits);

    *lost = old & ~seen & (ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY);
    return old;
}

uint32_t pte_fill(struct page *table, const uint32_t *slots, const uint64_t *values, uint32_t n)
{
    struct arch_pte_update u[FILL_MAX];
    uint32_t done = 0;

    while (done < n) {
        uint32_t batch = n - done < FILL_MAX ? n - done : FILL_MAX;
        int got;

        for (uint32_t i = 0; i < batch; i++) {
            u[i] = (struct arch_pte_update){ page_pfn(table), slots[done + i], values[done + i] };
        }
        got = arch_pte_write(u, batch);
        atomic_fetch_add_explicit(&table->mapcount, got, memory_order_relaxed);
        done += (uint32_t)got;
        if ((uint32_t)got < batch) {
            break;
        }
    }
    return done;
}

/* ---- tables ---- */

static struct page *table_new(struct mm_struct *mm, unsigned level)
{
    struct page *t = alloc_pages(mm->vm->mm, GFP_KERNEL | __GFP_ACCOUNT | __GFP_ZERO, 0);

    if (t == NULL) {
        return NULL;
    }
    if (arch_table_enter(page_pfn(t), level) != 0) {
        page_put(mm->vm->mm, t);
        return NULL;
    }
    t->private = level;
    t->mapping = mm;
    t->index = 0;
    atomic_store_explicit(&t->mapcount, 0, memory_order_relaxed);
    page_set_flags(t, PG_TABLE);
    return t;
}

static void table_free(struct mm_struct *mm, struct page *t)
{
    ASSERT_CMP(atomic_load_explicit(&t->mapcount, memory_order_relaxed), ==, 0);
    arch_table_leave(page_pfn(t), (unsigned)t->private);            /* I3 */
    page_clear_flags(t, PG_TABLE);
    t->mapping = NULL;
    t->private = 0;
    page_put(mm->vm->mm, t);
}

mm_status_t pgtable_create(struct mm_struct *mm)
{
    struct page *root = table_new(mm, ARCH_PT_LEVELS);

    if (root == NULL) {
        return MM_ENOMEM;
    }
    mm->pgd = page_pfn(root);
    mm->tables = 1;
    return MM_OK;
}

/* Go down from the root to the lowest table there is for va. pre: page_table_lock */
static struct page *lowest_table(const struct mm_struct *mm, uint64_t va, unsigned *level)
{
    struct page *table = root_of(mm);

    for (*level = ARCH_PT_LEVELS; *level > 1; (*level)--) {
        struct page *below = table_below(mm, table, va_slot(va, *level));

        if (below == NULL) {
            break;
        }
        table = below;
    }
    return table;
}

/* Link a new table under the lowest one, unless another thread was faster. pre: page_table_lock. *linked tells */
static mm_status_t table_link(struct mm_struct *mm, uint64_t va, struct page *table, bool *linked)
{
    unsigned level;
    struct pte_ref at = { .table = lowest_table(mm, va, &level), .slot = va_slot(va, level) };
    uint64_t bits = ARCH_PTE_USER | ARCH_PTE_WRITE | ARCH_PTE_ACCESSED, value;
    mm_status_t status;

    *linked = false;
    if (level == 1 || level - 1 != table->private) {
        return MM_OK;
    }
    table->index = table_base(va, level - 1);
    do {                                        /* the frame under the table may be exchanged until it is linked */
        value = arch_pte_make(page_pfn(table), bits);
        status = pte_set(&at, value);
    } while (status != MM_OK && value != arch_pte_make(page_pfn(table), bits));
    *linked = status == MM_OK;
    mm->tables += *linked;
    return status;
}

mm_status_t pgtable_prepare(struct mm_struct *mm, uint64_t va)
{
    mm_status_t status = MM_OK;

    while (status == MM_OK) {
        struct page *table;
        unsigned level;
        bool linked;

        spin_lock(&mm->page_table_lock);
        (void)lowest_table(mm, va, &level);
        spin_unlock(&mm->page_table_lock);
        if (level == 1) {
            return MM_OK;
        }
        table = table_new(mm, level - 1);
        if (table == NULL) {
            return MM_ENOMEM;
        }
        spin_lock(&mm->page_table_lock);
        status = table_link(mm, va, table, &linked);
        spin_unlock(&mm->page_table_lock);
        if (!linked) {
            table_free(mm, table);
        }
    }
    return status;
}

/* Unlink the table if it has no entry, and then those above it that have none any more; they are chained. pre: page_table_lock */
static void unlink_empty(struct mm_struct *mm, uint64_t va, struct page **freed)
{
    struct page *path[ARCH_PT_LEVELS + 1] = { NULL };

    path[ARCH_PT_LEVELS] = root_of(mm);
    for (unsigned level = ARCH_PT_LEVELS; level > 1 && path[level] != NULL; level--) {
        path[level - 1] = table_below(mm, path[level], va_slot(va, level));
    }
    for (unsigned level = 1; level < ARCH_PT_LEVELS; level++) {
        struct pte_ref at = { .table = path[level + 1], .slot = va_slot(va, level + 1) };

        if (path[level] == NULL) {
            continue;
        }
        if (atomic_load_explicit(&path[level]->mapcount, memory_order_relaxed) != 0) {
            return;
        }
        (void)pte_exchange(&at, 0);
        path[level]->lru_next = *freed;
        *freed = path[level];
        mm->tables--;
    }
}

void pgtable_prune(struct mm_struct *mm, uint64_t start, uint64_t end)
{
    struct page *freed = NULL;

    spin_lock(&mm->page_table_lock);
    for (uint64_t va = start; va < end;) {
        unsigned level;

        (void)lowest_table(mm, va, &level);
        unlink_empty(mm, va, &freed);
        level = level > 1 ? level - 1 : 1;      /* nothing is below an entry that is missing */
        va = (va | ((1ull << (FS_PAGE_SHIFT + 9 * level)) - 1)) + 1;
    }
    if (freed != NULL) {
        pte_flush(mm, start, UINT64_MAX);
    }
    spin_unlock(&mm->page_table_lock);
    while (freed != NULL) {
        struct page *t = freed;

        freed = t->lru_next;
        t->lru_next = NULL;
        table_free(mm, t);
    }
}

void pgtable_destroy(struct mm_struct *mm)
{
    pgtable_prune(mm, 0, ARCH_USER_END);
    ASSERT_CMP(mm->tables, ==, 1);
    arch_tlb_flush(mm->pgd, 0, UINT64_MAX);
    table_free(mm, root_of(mm));
    mm->tables = 0;
    mm->pgd = PFN_NONE;
}
