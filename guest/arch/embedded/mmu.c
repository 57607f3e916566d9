/*
 * mmu.c - pages, page tables and user access of a guest in a process, through Xen's hypercalls.
 *
 * Owns: nothing; entries are the machine's, which validates each.
 * Invariants:
 *   I1  a page table is read-only in the direct map from arch_table_enter() to arch_table_leave(); a root is pinned meanwhile.
 *   I2  arch_pte_exchange() loses no A or D bit: the entry is made not present by a call that keeps both, and is read
 *       after that, when no CPU sets them any more.
 *   I3  what only takes away is tried again until it is done: Xen refuses it only where a fault was injected.
 * Lock order: a CPU's space_lock is the last.
 * Why: the entry goes to a page that this kernel cannot write; everything is a call of the machine.
 * Cost: a write of n entries is one hypercall for each 64, an exchange two.
 */
#include <errno.h>
#include <string.h>

#include <stdint.h>
#include <xen/xen.h>

#include "frameshift/assert.h"
#include "machine.h"

#define WRITE_BATCH 64u
#define FLUSH_EACH 8u                   /* pages that are flushed one by one */

long guest_hypercall(struct guest_machine *g, unsigned cpu, unsigned nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    uint64_t args[5] = { a, b, c, d, 0 };

    return g->host.hypercall(g->host.ctx, cpu, nr, args);
}

static uint64_t address(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

int guest_mmuext(struct guest_machine *g, unsigned cpu, unsigned cmd, uint64_t arg1, uint64_t arg2)
{
    struct mmuext_op op = { .cmd = cmd };

    op.arg1.mfn = arg1;
    op.arg2.src_mfn = arg2;
    return (int)guest_hypercall(g, cpu, __HYPERVISOR_mmuext_op, address(&op), 1, 0, DOMID_SELF);
}

/* ---- pages ---- */

void *arch_page_address(pfn_t pfn)
{
    struct guest_machine *g = guest_this_cpu()->machine;

    ASSERT_CMP(pfn.n, <, g->pages);
    return g->direct + pfn.n * FS_PAGE_BYTES;
}

void arch_page_clear(pfn_t pfn)
{
    guest_safepoint();                  /* huge pages are cleared and copied by 512 of these calls: too long to keep others waiting */
    memset(arch_page_address(pfn), 0, FS_PAGE_BYTES);
}

void arch_page_copy(pfn_t to, pfn_t from)
{
    guest_safepoint();
    memcpy(arch_page_address(to), arch_page_address(from), FS_PAGE_BYTES);
}

mfn_t arch_pfn_mfn(pfn_t pfn)
{
    struct guest_machine *g = guest_this_cpu()->machine;

    return pfn.n < g->pages ? mfn_make(atomic_load_explicit(&g->p2m[pfn.n], memory_order_relaxed)) : MFN_NONE;
}

pfn_t arch_mfn_pfn(mfn_t mfn)
{
    struct guest_machine *g = guest_this_cpu()->machine;
    uint64_t pfn = g->host.m2p(g->host.ctx, mfn.n);

    return pfn < g->pages ? pfn_make(pfn) : PFN_NONE;
}

uint64_t arch_pte_make(pfn_t pfn, uint64_t bits)
{
    mfn_t mfn = arch_pfn_mfn(pfn);

    ASSERT(!mfn_is_none(mfn));
    return mfn.n << FS_PAGE_SHIFT | bits | ARCH_PTE_PRESENT;
}

pfn_t arch_pte_pfn(uint64_t pte)
{
    mfn_t mfn = mfn_make((pte & ARCH_PTE_FRAME) >> FS_PAGE_SHIFT);
    pfn_t pfn = arch_mfn_pfn(mfn);

    return !pfn_is_none(pfn) && mfn_eq(arch_pfn_mfn(pfn), mfn) ? pfn : PFN_NONE;
}

/* ---- tables ---- */

bool guest_walk(struct guest_machine *g, uint64_t va, unsigned level, pfn_t *table, uint32_t *slot)
{
    pfn_t at = pfn_make(g->l4);

    for (unsigned l = ARCH_PT_LEVELS;; l--) {
        uint32_t index = va >> (12 + 9 * (l - 1)) & (ARCH_PT_SLOTS - 1);
        uint64_t e = guest_table(g, at)[index];

        if (l == level) {
            *table = at;
            *slot = index;
            return true;
        }
        at = e & ARCH_PTE_PRESENT ? arch_pte_pfn(e) : PFN_NONE;
        if (pfn_is_none(at)) {
            return false;
        }
    }
}

/* The direct map's entry of a page, writable or not. */
static int set_direct(struct guest_machine *g, pfn_t pfn, bool write)
{
    uint64_t pte = arch_pte_make(pfn, ARCH_PTE_ACCESSED | (write ? ARCH_PTE_WRITE | ARCH_PTE_DIRTY : 0));

    return (int)guest_hypercall(g, arch_cpu_id(), __HYPERVISOR_update_va_mapping, address(g->direct + pfn.n * FS_PAGE_BYTES), pte,
                                UVMF_INVLPG | UVMF_ALL, 0);
}

static void set_direct_surely(struct guest_machine *g, pfn_t pfn)
{
    int rc = -EAGAIN;

    for (unsigned i = 0; i < GUEST_RETRIES && rc != 0; i++) {
        rc = set_direct(g, pfn, true);
    }
    ASSERT_CMP(rc, ==, 0);
}

int arch_table_enter(pfn_t table, unsigned level)
{
    struct guest_machine *g = guest_this_cpu()->machine;
    int rc;

    ASSERT(level >= 1 && level <= ARCH_PT_LEVELS);
    rc = set_direct(g, table, false);                                       /* I1 */
    if (rc == 0 && level == ARCH_PT_LEVELS) {
        rc = guest_mmuext(g, arch_cpu_id(), MMUEXT_PIN_L4_TABLE, arch_pfn_mfn(table).n, 0);
        if (rc != 0) {
            set_direct_surely(g, table);
        }
    }
    return rc;
}

static void space_lock(struct guest_cpu *c)
{
    while (atomic_exchange_explicit(&c->space_lock, 1, memory_order_acquire)) {
    }
}

static void space_unlock(struct guest_cpu *c)
{
    atomic_store_explicit(&c->space_lock, 0, memory_order_release);
}

static int load_user_root(struct guest_machine *g, struct guest_cpu *c, pfn_t root)
{
    return guest_mmuext(g, c->id, MMUEXT_NEW_USER_BASEPTR, pfn_is_none(root) ? 0 : arch_pfn_mfn(root).n, 0);
}

int arch_space_enter(pfn_t root)
{
    struct guest_cpu *c = guest_this_cpu();
    int rc = 0;

    guest_safepoint();
    space_lock(c);
    if (c->user_root.n != root.n) {
        rc = load_user_root(c->machine, c, root);
        c->user_root = rc == 0 ? root : c->user_root;
    }
    space_unlock(c);
    return rc;
}

/* Off a CPU that has it loaded although nobody runs in it: stands for an IPI. */
static void drop_root(struct guest_machine *g, struct guest_cpu *c, pfn_t root)
{
    int rc = 0;

    space_lock(c);
    for (unsigned i = 0; i < GUEST_RETRIES && c->user_root.n == root.n; i++) {
        rc = load_user_root(g, c, PFN_NONE);
        c->user_root = rc == 0 ? PFN_NONE : c->user_root;
    }
    space_unlock(c);
    ASSERT_CMP(rc, ==, 0);
}

void guest_load_roots(struct guest_machine *g, struct guest_cpu *c)
{
    uint64_t moved = atomic_load(&g->roots_moved);
    int rc = -EAGAIN;

    space_lock(c);
    for (unsigned i = 0; i < GUEST_RETRIES && rc != 0; i++) {
        rc = guest_mmuext(g, c->id, MMUEXT_NEW_BASEPTR, atomic_load(&g->p2m[g->l4]), 0);
        if (rc == 0) {
            uint64_t user = pfn_is_none(c->user_root) ? 0 : atomic_load(&g->p2m[c->user_root.n]);
            rc = guest_mmuext(g, c->id, MMUEXT_NEW_USER_BASEPTR, user, 0);
        }
    }
    space_unlock(c);
    ASSERT_CMP(rc, ==, 0);
    atomic_store(&c->roots_seen, moved);
}

void arch_table_leave(pfn_t table, unsigned level)
{
    struct guest_machine *g = guest_this_cpu()->machine;
    int rc = level == ARCH_PT_LEVELS ? -EAGAIN : 0;

    for (unsigned i = 0; i < g->cpus && level == ARCH_PT_LEVELS; i++) {
        drop_root(g, &g->cpu[i], table);
    }
    for (unsigned i = 0; i < GUEST_RETRIES && rc != 0; i++) {
        rc = guest_mmuext(g, arch_cpu_id(), MMUEXT_UNPIN_TABLE, arch_pfn_mfn(table).n, 0);
    }
    ASSERT_CMP(rc, ==, 0);
    set_direct_surely(g, table);
}

/* ---- entries ---- */

static bool takes_away(uint64_t old, uint64_t new)
{
    uint64_t rights = ARCH_PTE_WRITE | ARCH_PTE_USER | ARCH_PTE_PRESENT;

    return (new & ARCH_PTE_PRESENT) == 0 || ((old & ARCH_PTE_PRESENT) && ((old ^ new) & ARCH_PTE_FRAME) == 0 && (new & rights & ~old) == 0);
}

static struct mmu_update update_of(pfn_t table, uint32_t slot, uint64_t value, unsigned cmd)
{
    ASSERT_CMP(slot, <, ARCH_PT_SLOTS);
    return (struct mmu_update){ .ptr = arch_pfn_mfn(table).n << FS_PAGE_SHIFT | slot * 8u | cmd, .val = value };
}

/* How many were done. */
static uint32_t update(struct guest_machine *g, const struct mmu_update *list, uint32_t count)
{
    uint32_t done = 0;

    return guest_hypercall(g, arch_cpu_id(), __HYPERVISOR_mmu_update, address(list), count, address(&done), DOMID_SELF) == 0 ? count : done;
}

int arch_pte_write(const struct arch_pte_update *u, size_t count)
{
    struct guest_machine *g = guest_this_cpu()->machine;
    size_t at = 0;
    unsigned tries = 0;

    while (at < count) {
        struct mmu_update list[WRITE_BATCH];
        uint32_t n = 0, done;

        for (; n < WRITE_BATCH && at + n < count; n++) {
            list[n] = update_of(u[at + n].table, u[at + n].slot, u[at + n].value, MMU_NORMAL_PT_UPDATE);
        }
        done = update(g, list, n);
        at += done;
        tries = done > 0 ? 0 : tries;
        if (done < n) {
            if (!takes_away(guest_table(g, u[at].table)[u[at].slot], u[at].value)) {
                return (int)at;
            }
            ASSERT_CMP(++tries, <, GUEST_RETRIES);                          /* I3 */
        }
    }
    return (int)count;
}

static void update_surely(struct guest_machine *g, const struct mmu_update *one)
{
    uint32_t done = 0;

    for (unsigned i = 0; i < GUEST_RETRIES && done == 0; i++) {
        done = update(g, one, 1);
    }
    ASSERT_CMP(done, ==, 1);
}

uint64_t arch_pte_exchange(pfn_t table, uint32_t slot, uint64_t value)
{
    struct guest_machine *g = guest_this_cpu()->machine;
    volatile const uint64_t *e = &guest_table(g, table)[slot];
    uint64_t old = *e;
    struct mmu_update off = update_of(table, slot, 0, MMU_PT_UPDATE_PRESERVE_AD), on = update_of(table, slot, value, MMU_NORMAL_PT_UPDATE);

    if (old & ARCH_PTE_PRESENT) {
        update_surely(g, &off);                                             /* I2 */
        old = (old & ~(ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY)) | (*e & (ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY));
    }
    ASSERT(takes_away(old, value));
    update_surely(g, &on);
    return old;
}

/* All of them, in as many calls as it takes. */
static void update_all_surely(struct guest_machine *g, const struct mmu_update *list, uint32_t count)
{
    uint32_t at = 0;

    for (unsigned i = 0; i < GUEST_RETRIES && at < count; i++) {
        uint32_t done = update(g, list + at, count - at);

        at += done;
        i = done > 0 ? 0 : i;
    }
    ASSERT_CMP(at, ==, count);
}

void arch_pte_exchange_run(pfn_t table, uint32_t slot, uint32_t count, const uint64_t *values, uint64_t *old)
{
    struct guest_machine *g = guest_this_cpu()->machine;

    for (uint32_t at = 0; at < count;) {
        struct mmu_update off[WRITE_BATCH], on[WRITE_BATCH];
        uint32_t n = count - at < WRITE_BATCH ? count - at : WRITE_BATCH, offs = 0;

        for (uint32_t i = 0; i < n; i++) {
            old[at + i] = *(volatile const uint64_t *)&guest_table(g, table)[slot + at + i];
            ASSERT(takes_away(old[at + i], values[at + i]));
            if (old[at + i] & ARCH_PTE_PRESENT) {
                off[offs++] = update_of(table, slot + at + i, 0, MMU_PT_UPDATE_PRESERVE_AD);
            }
            on[i] = update_of(table, slot + at + i, values[at + i], MMU_NORMAL_PT_UPDATE);
        }
        update_all_surely(g, off, offs);                                    /* I2 */
        for (uint32_t i = 0; i < n; i++) {
            uint64_t ad = *(volatile const uint64_t *)&guest_table(g, table)[slot + at + i] & (ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY);

            if (old[at + i] & ARCH_PTE_PRESENT) {
                old[at + i] = (old[at + i] & ~(ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY)) | ad;
            }
        }
        update_all_surely(g, on, n);
        at += n;
    }
}

bool arch_huge_leaf(void)
{
    return false;                               /* the machine refuses PSE in level 2 (hv/embedded/table.c), as Xen does */
}

/* ---- TLBs, user memory ---- */

void arch_tlb_flush(pfn_t root, uint64_t va, uint64_t pages)
{
    struct guest_machine *g = guest_this_cpu()->machine;
    struct mmuext_op ops[FLUSH_EACH] = { { .cmd = MMUEXT_TLB_FLUSH_ALL } };
    unsigned n = pages <= FLUSH_EACH ? (unsigned)pages : 1;
    long rc = -EAGAIN;

    (void)root;                             /* Xen's calls know no roots */
    for (unsigned i = 0; pages <= FLUSH_EACH && i < n; i++) {
        ops[i] = (struct mmuext_op){ .cmd = MMUEXT_INVLPG_ALL };
        ops[i].arg1.linear_addr = va + i * (uint64_t)FS_PAGE_BYTES;
    }
    for (unsigned i = 0; i < GUEST_RETRIES && rc != 0; i++) {
        rc = guest_hypercall(g, arch_cpu_id(), __HYPERVISOR_mmuext_op, address(ops), n, 0, DOMID_SELF);
    }
    ASSERT_CMP(rc, ==, 0);
}

int arch_user_read(uint64_t va, void *buf, size_t bytes, uint64_t *fault)
{
    struct guest_cpu *c = guest_this_cpu();

    guest_safepoint();
    *fault = va;
    return va < ARCH_USER_END && bytes <= ARCH_USER_END - va && c->machine->host.user(c->machine->host.ctx, c->id, va, buf, bytes, false, fault) == 0 ? 0 : -1;
}

int arch_user_write(uint64_t va, const void *buf, size_t bytes, uint64_t *fault)
{
    struct guest_cpu *c = guest_this_cpu();

    guest_safepoint();
    *fault = va;
    return va < ARCH_USER_END && bytes <= ARCH_USER_END - va &&
           c->machine->host.user(c->machine->host.ctx, c->id, va, (void *)(uintptr_t)buf, bytes, true, fault) == 0 ? 0 : -1;
}
