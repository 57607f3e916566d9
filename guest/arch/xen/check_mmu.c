/*
 * check_mmu.c - an address space made by hand through arch.h: tables, entries, user access.
 *
 * Owns: its tables and user pages, for the length of the check.
 * Invariants: I1  a page is read-only in the direct map exactly from arch_table_enter() to arch_table_leave().
 * Lock order: none (one vCPU).
 * Why: the core's address spaces use these calls in the orders that they need; here each is looked at by itself, on page
 *   tables that Xen has validated.
 * Cost: some two hundred pages.
 */
#include "check.h"

#define USER_PAGES 100u
#define USER_VA    0x00007fff00000000ull        /* not the first slot of any level but the last */
#define TABLE_BITS (ARCH_PTE_USER | ARCH_PTE_WRITE | ARCH_PTE_ACCESSED)

struct space {
    struct page *table[ARCH_PT_LEVELS + 1];     /* by level; [0] is not used */
    struct page *user[USER_PAGES];
};

static uint32_t slot_at(unsigned level)
{
    return (uint32_t)(USER_VA >> (FS_PAGE_SHIFT + 9 * (level - 1))) % ARCH_PT_SLOTS;
}

static uint64_t entry_of(const struct space *s, uint32_t page)
{
    return ((const volatile uint64_t *)arch_page_address(page_pfn(s->table[1])))[slot_at(1) + page];
}

static bool writable(const struct page *p)
{
    uint64_t *at = arch_page_address(page_pfn(p));

    return probe_write(at, *at);
}

static void space_make(struct check *c, struct space *s)
{
    struct arch_pte_update u[USER_PAGES];

    for (unsigned level = 1; level <= ARCH_PT_LEVELS; level++) {
        s->table[level] = alloc_pages(&c->mm, GFP_KERNEL | __GFP_ACCOUNT | __GFP_ZERO, 0);
        CHECK(s->table[level] != NULL && writable(s->table[level]), "no page for a page table of level", level);
        CHECK(arch_table_enter(page_pfn(s->table[level]), level) == 0, "Xen does not take a page table of level", level);
        CHECK(!writable(s->table[level]), "a page table can be written; level", level);                 /* I1 */
    }
    for (unsigned level = ARCH_PT_LEVELS; level > 1; level--) {
        u[0] = (struct arch_pte_update){ page_pfn(s->table[level]), slot_at(level), arch_pte_make(page_pfn(s->table[level - 1]), TABLE_BITS) };
        CHECK(arch_pte_write(u, 1) == 1, "a table was not linked; level", level);
    }
    for (uint32_t i = 0; i < USER_PAGES; i++) {
        s->user[i] = alloc_pages(&c->mm, GFP_HIGH_MOVABLE | __GFP_ZERO, 0);
        CHECK(s->user[i] != NULL, "no user page", i);
        u[i] = (struct arch_pte_update){ page_pfn(s->table[1]), slot_at(1) + i,
                                         arch_pte_make(page_pfn(s->user[i]), ARCH_PTE_USER | ARCH_PTE_WRITE | ARCH_PTE_NOEXEC) };
    }
    CHECK(arch_pte_write(u, USER_PAGES) == (int)USER_PAGES, "user pages were not mapped", USER_PAGES);
    c->allocations += ARCH_PT_LEVELS + USER_PAGES;
}

/* Words that cross every page boundary are written through the space and looked for in the pages, and the other way round. */
static void space_use(struct check *c, const struct space *s)
{
    uint64_t fault = 0, word, step = 1004;

    for (uint64_t at = 4; at + 8 <= USER_PAGES * FS_PAGE_BYTES; at += step) {
        word = at * 0x9e3779b97f4a7c15ull;
        CHECK(arch_user_write(USER_VA + at, &word, sizeof(word), &fault) == 0, "a mapped user page cannot be written", fault);
    }
    for (uint64_t at = 4; at + 8 <= USER_PAGES * FS_PAGE_BYTES; at += step) {
        CHECK(arch_user_read(USER_VA + at, &word, sizeof(word), &fault) == 0, "a mapped user page cannot be read", fault);
        CHECK(word == at * 0x9e3779b97f4a7c15ull, "wrong bytes in user memory", at);
        for (unsigned b = 0; b < 8; b++) {
            const unsigned char *page = arch_page_address(page_pfn(s->user[(at + b) / FS_PAGE_BYTES]));

            CHECK(page[(at + b) % FS_PAGE_BYTES] == (unsigned char)(word >> 8 * b), "user memory is not the page that was mapped", at + b);
        }
    }
    for (uint32_t i = 0; i < USER_PAGES; i++) {
        uint64_t e = entry_of(s, i);

        CHECK((e & ARCH_PTE_DIRTY) && (e & ARCH_PTE_ACCESSED), "a written page is not marked so", e);
        CHECK(arch_pte_pfn(e).n == s->user[i]->pfn, "an entry names another page", e);
    }
    c->checked_pages += USER_PAGES;
}

static void space_rights(const struct space *s)
{
    pfn_t root = page_pfn(s->table[ARCH_PT_LEVELS]), last = page_pfn(s->table[1]);
    uint64_t fault = 0, old, word[2] = { 0, 0 }, read_only = arch_pte_make(page_pfn(s->user[7]), ARCH_PTE_USER | ARCH_PTE_NOEXEC);
    struct arch_pte_update u = { last, slot_at(1) + 7, arch_pte_make(page_pfn(s->user[7]), ARCH_PTE_USER | ARCH_PTE_WRITE) };

    old = arch_pte_exchange(last, slot_at(1) + 7, read_only);
    arch_tlb_flush(root, USER_VA + 7 * FS_PAGE_BYTES, 1);
    CHECK((old & ARCH_PTE_DIRTY) && arch_pte_pfn(old).n == s->user[7]->pfn, "an exchange lost what was there", old);
    CHECK(arch_user_write(USER_VA + 7 * FS_PAGE_BYTES - 8, word, 16, &fault) == -1 && fault == USER_VA + 7 * FS_PAGE_BYTES,
          "a read-only user page was written, or the fault is elsewhere", fault);
    CHECK(arch_user_read(USER_VA + 7 * FS_PAGE_BYTES, word, 8, &fault) == 0, "a read-only user page cannot be read", fault);
    CHECK(!(entry_of(s, 7) & ARCH_PTE_DIRTY) && (entry_of(s, 7) & ARCH_PTE_ACCESSED), "a read set the wrong bits", entry_of(s, 7));
    CHECK(arch_pte_write(&u, 1) == 1, "rights were not given back", 0);
    CHECK(arch_user_write(USER_VA + 7 * FS_PAGE_BYTES, word, 8, &fault) == 0, "a user page with its rights back cannot be written", fault);
    CHECK(arch_user_read(USER_VA + USER_PAGES * FS_PAGE_BYTES, word, 8, &fault) == -1 && fault == USER_VA + USER_PAGES * FS_PAGE_BYTES,
          "memory behind the last page was read", fault);
    CHECK(arch_user_read(~7ull, word, 16, &fault) == -1 && arch_user_read(DIRECT_BASE, word, 8, &fault) == -1,
          "the kernel's memory was read as a user's", fault);
}

static void space_unmake(struct check *c, struct space *s)
{
    for (uint32_t i = 0; i < USER_PAGES; i++) {
        uint64_t old = arch_pte_exchange(page_pfn(s->table[1]), slot_at(1) + i, 0);

        CHECK(arch_pte_pfn(old).n == s->user[i]->pfn, "an entry named another page", old);
    }
    for (unsigned level = ARCH_PT_LEVELS; level > 1; level--) {
        (void)arch_pte_exchange(page_pfn(s->table[level]), slot_at(level), 0);
    }
    arch_tlb_flush(page_pfn(s->table[ARCH_PT_LEVELS]), 0, UINT64_MAX);
    for (unsigned level = 1; level <= ARCH_PT_LEVELS; level++) {
        arch_table_leave(page_pfn(s->table[level]), level);
        CHECK(writable(s->table[level]), "a page that was a page table cannot be written", level);      /* I1 */
        page_put(&c->mm, s->table[level]);
    }
    for (uint32_t i = 0; i < USER_PAGES; i++) {
        page_put(&c->mm, s->user[i]);
    }
}

void check_mmu(struct check *c)
{
    static struct space a, b;
    uint64_t fault = 0, word = 0;

    space_make(c, &a);
    space_make(c, &b);
    CHECK(arch_space_enter(page_pfn(a.table[ARCH_PT_LEVELS])) == 0, "Xen does not enter a space", 0);
    space_use(c, &a);
    space_rights(&a);
    CHECK(arch_space_enter(page_pfn(b.table[ARCH_PT_LEVELS])) == 0, "Xen does not enter the other space", 0);
    CHECK(arch_user_read(USER_VA + 4, &word, 8, &fault) == 0 && word == 0, "two spaces share a page", word);
    space_use(c, &b);
    space_unmake(c, &b);                        /* while it is this CPU's */
    CHECK(arch_user_read(USER_VA, &word, 8, &fault) == -1, "a space that is gone can be read", 0);
    space_unmake(c, &a);
}
