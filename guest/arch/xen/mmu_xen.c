/*
 * mmu_xen.c - page tables of address spaces, and user memory, by hypercalls.
 *
 * Owns: this CPU's user root.
 * Invariants:
 *   I1  a page between arch_table_enter() and arch_table_leave() is read-only in the direct map; a root is pinned as well, so
 *       Xen has checked every table below it and checks every change.
 *   I2  entries change by mmu_update alone.  Nobody but the software walk here sets A and D of user entries, and there is one
 *       vCPU, so reading an entry and then replacing it loses none.
 *   I3  a root that Xen may use (NEW_USER_BASEPTR) is pinned; it is put away before it is unpinned.
 * Lock order: none (one vCPU).
 * Why: no code of a process runs here yet, so user memory is reached as the core asks for it, through the process's own
 *   tables; Xen adds bits to what it is given (USER to upper entries, GLOBAL to user entries, bit 52 to kernel entries),
 *   which the core must not mind.
 * Cost: one hypercall for up to BATCH entries; one each for a table that comes or goes, two for a root.
 */
#include "kernel.h"
#include "frameshift/assert.h"

#define BATCH 64u

static pfn_t user_root = { FS_FRAME_NONE };

pfn_t mmu_user_root(void)
{
    return user_root;
}

mfn_t arch_pfn_mfn(pfn_t pfn)
{
    return mfn_make(memory_mfn(pfn.n));
}

uint64_t arch_pte_make(pfn_t pfn, uint64_t bits)
{
    uint64_t mfn = memory_mfn(pfn.n);

    ASSERT_CMP(mfn, !=, FS_FRAME_NONE);
    return mfn << FS_PAGE_SHIFT | bits | ARCH_PTE_PRESENT;
}

pfn_t arch_pte_pfn(uint64_t pte)
{
    return pfn_make(memory_pfn((pte & ARCH_PTE_FRAME) >> FS_PAGE_SHIFT));
}

static int64_t one_mmuext(unsigned command, uint64_t mfn)
{
    struct mmuext_op op = { .cmd = command };
    uint32_t done = 0;

    op.arg1.mfn = mfn;
    return hv_mmuext(&op, 1, &done);
}

int arch_table_enter(pfn_t table, unsigned level)
{
    int64_t error = memory_protect(table.n, false);

    if (error == 0 && level == ARCH_PT_LEVELS) {
        error = one_mmuext(MMUEXT_PIN_L4_TABLE, memory_mfn(table.n));
        if (error != 0) {
            ASSERT_CMP(memory_protect(table.n, true), ==, 0);
        }
    }
    return (int)error;
}

void arch_table_leave(pfn_t table, unsigned level)
{
    if (level == ARCH_PT_LEVELS) {
        if (user_root.n == table.n) {
            ASSERT_CMP(arch_space_enter(PFN_NONE), ==, 0);          /* I3 */
        }
        ASSERT_CMP(one_mmuext(MMUEXT_UNPIN_TABLE, memory_mfn(table.n)), ==, 0);
    }
    ASSERT_CMP(memory_protect(table.n, true), ==, 0);               /* Xen says no while it is somewhere in use as a table */
}

static uint64_t *entry_at(pfn_t table, uint32_t slot)
{
    ASSERT_CMP(slot, <, ARCH_PT_SLOTS);
    return (uint64_t *)arch_page_address(table) + slot;
}

static struct mmu_update update_of(pfn_t table, uint32_t slot, uint64_t value)
{
    return (struct mmu_update){ .ptr = memory_mfn(table.n) << FS_PAGE_SHIFT | slot * 8 | MMU_NORMAL_PT_UPDATE, .val = value };
}

int arch_pte_write(const struct arch_pte_update *u, size_t count)
{
    struct mmu_update batch[BATCH];
    size_t done = 0;

    while (done < count) {
        size_t n = count - done < BATCH ? count - done : BATCH;
        uint32_t passed = 0;

        for (size_t i = 0; i < n; i++) {
            batch[i] = update_of(u[done + i].table, u[done + i].slot, u[done + i].value);
        }
        if (hv_mmu_update(batch, n, &passed) != 0) {
            return (int)(done + passed);
        }
        done += n;
    }
    return (int)count;
}

uint64_t arch_pte_exchange(pfn_t table, uint32_t slot, uint64_t value)
{
    uint64_t old = *(volatile uint64_t *)entry_at(table, slot);     /* I2 */
    struct mmu_update u = update_of(table, slot, value);
    uint32_t done = 0;

    ASSERT_CMP(hv_mmu_update(&u, 1, &done), ==, 0);
    return old;
}

void arch_pte_exchange_run(pfn_t table, uint32_t slot, uint32_t count, const uint64_t *values, uint64_t *old)
{
    for (uint32_t at = 0; at < count;) {
        struct mmu_update batch[BATCH];
        uint32_t n = count - at < BATCH ? count - at : BATCH, done = 0;

        for (uint32_t i = 0; i < n; i++) {
            old[at + i] = *(volatile uint64_t *)entry_at(table, slot + at + i);     /* I2 */
            batch[i] = update_of(table, slot + at + i, values[at + i]);
        }
        ASSERT_CMP(hv_mmu_update(batch, n, &done), ==, 0);
        at += n;
    }
}

bool arch_huge_leaf(void)
{
    return false;                                   /* Xen checks entries of level 2 against what a PV guest may: no PSE */
}

void arch_tlb_flush(pfn_t root, uint64_t va, uint64_t pages)
{
    (void)va;
    (void)pages;
    if (root.n == user_root.n) {
        ASSERT_CMP(one_mmuext(MMUEXT_TLB_FLUSH_LOCAL, 0), ==, 0);
    }
}

int arch_space_enter(pfn_t root)
{
    int64_t error = one_mmuext(MMUEXT_NEW_USER_BASEPTR, pfn_is_none(root) ? 0 : memory_mfn(root.n));

    if (error == 0) {
        user_root = root;
    }
    return (int)error;
}

/* Set bits of an entry that the walk found; nothing where they are set. */
static void entry_mark(pfn_t table, uint32_t slot, uint64_t value, uint64_t bits)
{
    struct mmu_update u = update_of(table, slot, value | bits);
    uint32_t done = 0;

    if ((value & bits) != bits) {
        ASSERT_CMP(hv_mmu_update(&u, 1, &done), ==, 0);
    }
}

/* The page under va for this access, or NULL. */
static unsigned char *user_page(uint64_t va, bool write)
{
    uint64_t want = ARCH_PTE_PRESENT | ARCH_PTE_USER | (write ? ARCH_PTE_WRITE : 0);
    pfn_t table = user_root;

    if (pfn_is_none(table) || va >= ARCH_USER_END) {
        return NULL;
    }
    for (unsigned level = ARCH_PT_LEVELS; level >= 1; level--) {
        uint32_t slot = (uint32_t)(va >> (FS_PAGE_SHIFT + 9 * (level - 1))) % ARCH_PT_SLOTS;
        uint64_t value = *(volatile uint64_t *)entry_at(table, slot);

        if ((value & want) != want) {
            return NULL;
        }
        entry_mark(table, slot, value, ARCH_PTE_ACCESSED | (write && level == 1 ? ARCH_PTE_DIRTY : 0));
        table = arch_pte_pfn(value);
        ASSERT(!pfn_is_none(table));
    }
    return arch_page_address(table);
}

static int user_access(uint64_t va, void *to, const void *from, size_t bytes, uint64_t *fault)
{
    size_t done = 0;

    while (done < bytes) {
        uint64_t at = va + done;
        size_t n = FS_PAGE_BYTES - at % FS_PAGE_BYTES;
        unsigned char *page = at < va ? NULL : user_page(at, from != NULL);

        if (page == NULL) {
            *fault = at;
            return -1;
        }
        n = n < bytes - done ? n : bytes - done;
        if (from != NULL) {
            __builtin_memcpy(page + at % FS_PAGE_BYTES, (const unsigned char *)from + done, n);
        } else {
            __builtin_memcpy((unsigned char *)to + done, page + at % FS_PAGE_BYTES, n);
        }
        done += n;
    }
    return 0;
}

int arch_user_read(uint64_t va, void *buf, size_t bytes, uint64_t *fault)
{
    return user_access(va, buf, NULL, bytes, fault);
}

int arch_user_write(uint64_t va, const void *buf, size_t bytes, uint64_t *fault)
{
    return user_access(va, NULL, buf, bytes, fault);
}

void arch_stop_machine(void (*fn)(void *arg), void *arg)
{
    fn(arg);                                        /* there is no other CPU */
}
