/*
 * pgtable.c - page tables of a process: walking, tables that come and go.
 *
 * Owns: every page with PG_TABLE: private is its level, mapping the mm_struct, index the first address that it covers,
 *   mapcount the number of its entries that are not none.
 * Invariants:
 *   I1  an entry changes under page_table_lock, but for A and D, which the machine sets; so what may have lost them is exchanged.
 *   I2  a table that is linked stays so while mmap_lock is held for reading: only pgtable_prune() and pgtable_destroy()
 *       unlink (and pgtable_huge_begin() a table without entries, in whose place there is a huge mapping then), and the reverse maps change entries
 *       of the last level and huge mappings only.
 *   I3  a table is freed after it was unlinked, the TLBs were flushed and the machine has taken it back.
 *   I4  mapcount follows each change of none to something and back.
 *   I5  a huge mapping is a leaf of level 2 (or what is not present there and is not none), or it is the 512 entries of a table whose lru_list says
 *       TABLE_HUGE: the same kind and rights, of 512 adjacent pages. It changes as a whole.
 *   I6  for each leaf there is a table in the deposit, so that splitting it needs no memory.
 * Lock order: page_table_lock; pages are allocated and freed without it.
 * Why: one lock a process is enough, the work under it is short; with the count in the table an empty one is known without
 *   looking at its 512 entries.
 * Cost: a walk is four loads; a table costs one page, charged to the process (__GFP_ACCOUNT). A huge mapping by 512 entries is written 64 at a time.
 *
 * Layer: L2
 */
#include "pgtable.h"
#include "frameshift/assert.h"

#define SURE_TRIES 1000000u
#define FILL_MAX   64u
#define TABLE_HUGE 1u                           /* lru_list of a table of the last level: I5 */

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

static struct page *root_of(const struct mm_struct *mm)
{
    return mm_page(mm->vm->mm, mm->pgd);
}

/* The table that the entry names; NULL: none. */
static struct page *table_below(const struct mm_struct *mm, const struct page *table, uint32_t slot)
{
    uint64_t e = atomic_load_explicit(slot_of(table, slot), memory_order_acquire);

    return pte_present(e) && !(e & ARCH_PTE_LEAF) ? mm_page(mm->vm->mm, arch_pte_pfn(e)) : NULL;
}

/* An entry of level 2 that is a huge mapping (I5). */
static bool is_leaf(const struct page *table, uint32_t slot)
{
    uint64_t e = atomic_load_explicit(slot_of(table, slot), memory_order_acquire);

    return table->private == 2 && (pte_present(e) ? (e & ARCH_PTE_LEAF) != 0 : !pte_none(e));
}

bool pgtable_find(const struct mm_struct *mm, uint64_t va, struct pte_ref *at)
{
    struct page *table = root_of(mm);

    ASSERT_CMP(va, <, ARCH_USER_END);
    for (unsigned level = ARCH_PT_LEVELS; level > 1 && table != NULL; level--) {
        if (level == 2 && is_leaf(table, va_slot(va, 2))) {
            *at = (struct pte_ref){ .table = table, .slot = va_slot(va, 2), .huge = true };
            return true;
        }
        table = table_below(mm, table, va_slot(va, level));
    }
    *at = (struct pte_ref){ .table = table, .slot = va_slot(va, 1) };
    if (table != NULL && table->lru_list == TABLE_HUGE) {
        at->huge = true;
        at->slot = 0;
    }
    return table != NULL;
}

/* ---- huge mappings: a leaf, or 512 entries ---- */

static bool by_pages(const struct pte_ref *at) { return at->huge && at->table->private == 1; }

/* The value of the i-th page where value is that of the first. */
static uint64_t nth_value(uint64_t value, pfn_t first, uint32_t i)
{
    if (pte_present(value)) {
        return arch_pte_make(pfn_make(first.n + i), value & ~(ARCH_PTE_FRAME | ARCH_PTE_PRESENT));
    }
    return pte_none(value) ? 0 : pte_soft_make((enum pte_soft)((value & PTE_SOFT_TYPE) >> 1), first.n + i, pte_write(value));
}

static pfn_t first_pfn(uint64_t value)
{
    return pte_none(value) ? PFN_NONE : pte_present(value) ? arch_pte_pfn(value) : pfn_make(pte_soft_number(value));
}

uint64_t pte_read(const struct pte_ref *at)
{
    uint64_t e = atomic_load_explicit(slot_of(at->table, at->slot), memory_order_acquire);

    if (by_pages(at) && pte_present(e)) {
        for (uint32_t i = 1; i < ARCH_PT_SLOTS; i++) {
            e |= atomic_load_explicit(slot_of(at->table, i), memory_order_relaxed) & (ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY);
        }
    }
    return at->huge && pte_present(e) ? e & ~ARCH_PTE_LEAF : e;
}

/* What a huge mapping is known by: the table's mark, or the process's count of leaves. */
static void note_huge(const struct pte_ref *at, uint64_t old, uint64_t value)
{
    struct mm_struct *mm = at->table->mapping;

    if (by_pages(at)) {
        at->table->lru_list = pte_none(value) ? 0 : TABLE_HUGE;
    } else if (pte_none(old) != pte_none(value)) {
        mm->leaves += pte_none(old) ? 1 : UINT64_MAX;
    }
}

/* Write one value for all of the 512, 64 at a time; the machine refused the rest of them where it comes back with less. */
static uint32_t write_pages(struct page *table, uint64_t value)
{
    struct arch_pte_update u[FILL_MAX];
    pfn_t first = first_pfn(value);
    uint32_t done = 0;
    int got = FILL_MAX;

    while (done < ARCH_PT_SLOTS && got == (int)FILL_MAX) {
        for (uint32_t i = 0; i < FILL_MAX; i++) {
            u[i] = (struct arch_pte_update){ page_pfn(table), done + i, nth_value(value, first, done + i) };
        }
        got = arch_pte_write(u, FILL_MAX);
        done += (uint32_t)got;
    }
    return done;
}

/* Put value into slots [0, count); A and D of what was there come back. pre: it takes away, or is none */
static uint64_t exchange_pages(struct page *table, uint64_t value, uint32_t count)
{
    uint64_t values[FILL_MAX], old[FILL_MAX], first_old = 0;
    pfn_t first = first_pfn(value);

    for (uint32_t at = 0; at < count; at += FILL_MAX) {
        uint32_t n = count - at < FILL_MAX ? count - at : FILL_MAX;

        for (uint32_t i = 0; i < n; i++) {
            values[i] = nth_value(value, first, at + i);
        }
        arch_pte_exchange_run(page_pfn(table), at, n, values, old);
        first_old = at == 0 ? old[0] : first_old;
        for (uint32_t i = 0; i < n; i++) {
            first_old |= pte_present(old[i]) ? old[i] & (ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY) : 0;
        }
    }
    return first_old;
}

static void count_pages(struct page *table, uint64_t old, uint64_t new)
{
    int change = ((int)pte_none(old) - (int)pte_none(new)) * (int)ARCH_PT_SLOTS;

    atomic_fetch_add_explicit(&table->mapcount, change, memory_order_relaxed);
}

static mm_status_t set_by_pages(const struct pte_ref *at, uint64_t value)
{
    uint64_t old = pte_read(at);
    uint32_t done = write_pages(at->table, value);

    if (done < ARCH_PT_SLOTS) {                 /* what it was before has fewer rights: that is always done */
        (void)exchange_pages(at->table, old, done);
        return MM_ENOMEM;
    }
    count_pages(at->table, old, value);
    note_huge(at, old, value);
    return MM_OK;
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
    struct arch_pte_update u = { page_pfn(at->table), at->slot, at->huge && pte_present(value) ? value | ARCH_PTE_LEAF : value };
    uint64_t old = pte_read(at);

    ASSERT(!pte_present(old) || (pte_present(value) && ((old ^ value) & ARCH_PTE_FRAME) == 0));     /* I1 */
    if (by_pages(at)) {
        return set_by_pages(at, value);
    }
    if (arch_pte_write(&u, 1) != 1) {
        return MM_ENOMEM;
    }
    count_change(at->table, old, value);
    if (at->huge) {
        note_huge(at, old, value);
    }
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
    uint64_t old;

    if (by_pages(at)) {
        old = exchange_pages(at->table, value, ARCH_PT_SLOTS);
        count_pages(at->table, old, value);
        note_huge(at, old, value);
        return old;
    }
    old = arch_pte_exchange(page_pfn(at->table), at->slot, at->huge && pte_present(value) ? value | ARCH_PTE_LEAF : value);
    count_change(at->table, old, value);
    if (at->huge) {
        old &= pte_present(old) ? ~ARCH_PTE_LEAF : ~0ull;
        note_huge(at, old, value);
    }
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
    t->lru_list = 0;
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
    t->lru_list = 0;
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

        if (*level == 2 && is_leaf(table, va_slot(va, 2))) {
            *level = 1;                         /* nothing is missing */
            break;
        }
        if (below == NULL) {
            break;
        }
        table = below;
    }
    return table;
}

/* Write the entry that leads to a table; it is the lowest table there is for va. pre: page_table_lock */
static mm_status_t link_below(struct page *table, uint64_t va, const struct pte_ref *at)
{
    uint64_t bits = ARCH_PTE_USER | ARCH_PTE_WRITE | ARCH_PTE_ACCESSED, value;
    mm_status_t status;

    table->index = table_base(va, (unsigned)table->private);
    do {                                        /* the frame under the table may be exchanged until it is linked */
        value = arch_pte_make(page_pfn(table), bits);
        status = pte_set(at, value);
    } while (status != MM_OK && value != arch_pte_make(page_pfn(table), bits));
    return status;
}

/* Where there is no way back. */
static void link_surely(struct page *table, uint64_t va, const struct pte_ref *at)
{
    mm_status_t status = link_below(table, va, at);

    for (unsigned tries = 0; status != MM_OK; tries++) {
        ASSERT_CMP(tries, <, SURE_TRIES);
        arch_cpu_relax();
        status = link_below(table, va, at);
    }
}

/* Link a new table under the lowest one, unless another thread was faster. pre: page_table_lock. *linked tells */
static mm_status_t table_link(struct mm_struct *mm, uint64_t va, struct page *table, bool *linked)
{
    unsigned level;
    struct pte_ref at = { .table = lowest_table(mm, va, &level), .slot = va_slot(va, level) };
    mm_status_t status;

    *linked = false;
    if (level == 1 || level - 1 != table->private) {
        return MM_OK;
    }
    status = link_below(table, va, &at);
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

/* ---- huge mappings come and are split ---- */

static void deposit_push(struct mm_struct *mm, struct page *table)
{
    table->lru_next = mm->deposit;
    mm->deposit = table;
    mm->deposits++;
}

static struct page *deposit_pop(struct mm_struct *mm)
{
    struct page *table = mm->deposit;

    ASSERT(table != NULL);                      /* I6 */
    mm->deposit = table->lru_next;
    table->lru_next = NULL;
    mm->deposits--;
    return table;
}

bool pgtable_huge_begin(struct mm_struct *mm, uint64_t va, struct pte_ref *at)
{
    struct page *table;
    unsigned level;

    if (!pgtable_find(mm, va, at) || at->huge || atomic_load_explicit(&at->table->mapcount, memory_order_relaxed) != 0) {
        return false;
    }
    *at = (struct pte_ref){ .table = at->table, .slot = 0, .huge = true };
    if (!arch_huge_leaf()) {
        return true;
    }
    table = at->table;
    *at = (struct pte_ref){ .table = root_of(mm) };
    for (level = ARCH_PT_LEVELS; level > 2; level--) {
        at->table = table_below(mm, at->table, va_slot(va, level));
    }
    at->slot = va_slot(va, 2);
    (void)pte_exchange(at, 0);                  /* I2: nobody has an entry in it */
    pte_flush(mm, pte_huge_base(va), ARCH_PT_SLOTS);
    deposit_push(mm, table);
    at->huge = true;
    return true;
}

void pgtable_huge_abort(struct mm_struct *mm, uint64_t va, const struct pte_ref *at)
{
    if (!by_pages(at)) {
        struct pte_ref link = { .table = at->table, .slot = at->slot };

        link_surely(deposit_pop(mm), va, &link);
    }
}

void pgtable_split(struct mm_struct *mm, uint64_t va)
{
    struct page *table;
    struct pte_ref at;
    uint64_t value;

    if (!pgtable_find(mm, va, &at)) {
        ASSERT(false);
    }
    ASSERT(at.huge);
    if (by_pages(&at)) {
        at.table->lru_list = 0;                 /* they are what they should be */
        return;
    }
    table = deposit_pop(mm);
    value = pte_exchange(&at, 0);
    pte_flush(mm, pte_huge_base(va), ARCH_PT_SLOTS);
    for (unsigned tries = 0; write_pages(table, value) != ARCH_PT_SLOTS; tries++) {
        ASSERT_CMP(tries, <, SURE_TRIES);
        arch_cpu_relax();
    }
    atomic_store_explicit(&table->mapcount, (int32_t)ARCH_PT_SLOTS, memory_order_relaxed);
    at.huge = false;
    link_surely(table, va, &at);
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
    while (mm->deposits > mm->leaves) {         /* I6 */
        struct page *t = deposit_pop(mm);

        t->lru_next = freed;
        freed = t;
        mm->tables--;
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
