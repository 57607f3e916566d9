/*
 * move.c - another machine frame under the same page: what the machine layer itself must rewrite.
 *
 * Owns: p2m entries after boot.
 * Invariants:
 *   I1  a page's step is whole or undone: M2P of the new frame, maps, p2m, M2P of the old frame, in this order.  Only the undoing
 *       of a map must succeed, and it only puts back what was there.
 *   I2  between the copy of a page and the switch of its map nothing is written to guest memory: lists and results that
 *       this code writes meanwhile are on its stack, which belongs to the process.
 *   I3  a table's entry in the direct map is changed after the entry that leads to the table: a table of the direct map may
 *       map itself.
 *   I4  M2P entries of frames that were left say "none"; that failing does no harm, for the p2m decides.
 *   I5  a copy is compared where nobody can use it yet: of data by sums, the old bytes' before the switch and the new ones' after it, so
 *       that the map is checked with them and no second one is needed; of a table byte for byte before any entry names it.
 * Lock order: none; the callers see to it that nobody else touches the pages.
 * Why by pages and not by tables: a batch of 64 is two hypercalls; a table is rare and costs five.
 * Cost: a data page is one copy and three updates; a page of the p2m one more.
 */
#include <errno.h>
#include <string.h>

#include <stdint.h>
#include <xen/xen.h>

#include "frameshift/assert.h"
#include "machine.h"

#define PARTS_MAX 4u                    /* of one page: M2P, direct map, the p2m's own map, M2P */
#define WINDOW_PFN 0u                   /* no page of the core: its place in the direct map shows other frames */

struct part { struct mmu_update now, back; bool map; };

static uint64_t address(const void *p)
{
    return (uint64_t)(uintptr_t)p;
}

static struct mmu_update m2p_update(mfn_t mfn, uint64_t pfn)
{
    return (struct mmu_update){ .ptr = mfn.n << FS_PAGE_SHIFT | MMU_MACHPHYS_UPDATE, .val = pfn };
}

/* The kernel's entry at va, with another frame. */
static bool map_part(struct guest_machine *g, uint64_t va, const struct arch_frame_move *m, struct part *out)
{
    pfn_t table;
    uint32_t slot;
    uint64_t old;

    if (!guest_walk(g, va, 1, &table, &slot)) {
        return false;
    }
    old = guest_table(g, table)[slot];
    if ((old & ARCH_PTE_FRAME) >> FS_PAGE_SHIFT != m->from.n) {
        return false;
    }
    out->now.ptr = out->back.ptr = arch_pfn_mfn(table).n << FS_PAGE_SHIFT | slot * 8u | MMU_NORMAL_PT_UPDATE;
    out->now.val = (old & ~ARCH_PTE_FRAME) | m->to.n << FS_PAGE_SHIFT;
    out->back.val = old;
    out->map = true;
    return true;
}

/* Everything of one page, in order (I1); how many parts, 0: its maps are not what they should be. */
static unsigned page_parts(struct guest_machine *g, const struct arch_frame_move *m, struct part parts[PARTS_MAX])
{
    unsigned n = 0;

    parts[n++] = (struct part){ .now = m2p_update(m->to, m->pfn.n), .back = m2p_update(m->to, UINT64_MAX) };
    if (!map_part(g, address(g->direct) + m->pfn.n * FS_PAGE_BYTES, m, &parts[n++])) {
        return 0;
    }
    if (m->pfn.n - g->p2m_first < g->p2m_pages && !map_part(g, g->p2m_va + (m->pfn.n - g->p2m_first) * FS_PAGE_BYTES, m, &parts[n++])) {
        return 0;
    }
    parts[n++] = (struct part){ .now = m2p_update(m->from, UINT64_MAX), .back = m2p_update(m->from, m->pfn.n) };
    return n;
}

static uint32_t update(struct guest_machine *g, const struct mmu_update *list, uint32_t count)
{
    uint32_t done = 0;

    return guest_hypercall(g, arch_cpu_id(), __HYPERVISOR_mmu_update, address(list), count, address(&done), DOMID_SELF) == 0 ? count : done;
}

/* Undo the first n parts of a page; maps surely. */
static void undo(struct guest_machine *g, const struct part *parts, unsigned n)
{
    while (n-- > 0) {
        uint32_t done = update(g, &parts[n].back, 1);

        for (unsigned i = 0; i < GUEST_RETRIES && done == 0 && parts[n].map; i++) {
            done = update(g, &parts[n].back, 1);
        }
        ASSERT(done == 1 || !parts[n].map);
    }
}

/* ---- copies ---- */

/* Copy what is to be copied; skip[i] where that failed. */
static void copy_pages(struct guest_machine *g, const struct arch_frame_move *list, size_t count, bool *skip)
{
    struct mmuext_op ops[ARCH_MOVES_MAX];
    uint8_t of[ARCH_MOVES_MAX];
    uint32_t n = 0, at = 0;

    for (size_t i = 0; i < count; i++) {
        if (list[i].copy && !skip[i]) {
            ops[n] = (struct mmuext_op){ .cmd = MMUEXT_COPY_PAGE };
            ops[n].arg1.mfn = list[i].to.n;
            ops[n].arg2.src_mfn = list[i].from.n;
            of[n++] = (uint8_t)i;
        }
    }
    while (at < n) {
        uint32_t done = 0;
        long rc = guest_hypercall(g, arch_cpu_id(), __HYPERVISOR_mmuext_op, address(ops + at), n - at, address(&done), DOMID_SELF);

        at += rc == 0 ? n - at : done;
        if (rc != 0) {
            skip[of[at++]] = true;
        }
    }
}

/* Show a frame read-only under the address of page `at`; MFN_NONE: that page's own frame again. */
static bool window(struct guest_machine *g, uint64_t at, mfn_t mfn)
{
    bool own = mfn_is_none(mfn);
    uint64_t frame = own ? arch_pfn_mfn(pfn_make(at)).n : mfn.n;
    uint64_t pte = frame << FS_PAGE_SHIFT | ARCH_PTE_PRESENT | ARCH_PTE_ACCESSED | (own ? ARCH_PTE_WRITE | ARCH_PTE_DIRTY : 0);
    long rc = -EAGAIN;

    for (unsigned i = 0; i < (own ? GUEST_RETRIES : 1) && rc != 0; i++) {
        rc = guest_hypercall(g, arch_cpu_id(), __HYPERVISOR_update_va_mapping, address(g->direct) + at * FS_PAGE_BYTES, pte, UVMF_INVLPG | UVMF_ALL, 0);
    }
    ASSERT(!own || rc == 0);
    return rc == 0;
}

/* Is the new frame's content the page's? Seen through another page's address: the window, or for the window's own page, which moves in
 * a stop only, that of start_info, which nobody reads after boot. */
static bool same_bytes(struct guest_machine *g, const struct arch_frame_move *m)
{
    uint64_t at = m->pfn.n == WINDOW_PFN ? g->start_info : WINDOW_PFN;
    uint64_t from[ARCH_PT_SLOTS];
    bool same;

    __builtin_memcpy(from, g->direct + m->pfn.n * FS_PAGE_BYTES, FS_PAGE_BYTES);        /* the window's own table changes when it opens */
    same = window(g, at, m->to) && memcmp(g->direct + at * FS_PAGE_BYTES, from, FS_PAGE_BYTES) == 0;
    (void)window(g, at, MFN_NONE);
    return same;
}

/* Of a page's bytes, in their places. */
static uint64_t page_sum(const struct guest_machine *g, pfn_t pfn)
{
    const uint64_t *word = (const uint64_t *)(const void *)(g->direct + pfn.n * FS_PAGE_BYTES);
    uint64_t lane[4] = { 1, 2, 3, 4 };

    for (unsigned i = 0; i < FS_PAGE_BYTES / sizeof(*word); i += 4) {
        for (unsigned k = 0; k < 4; k++) {
            uint64_t x = (lane[k] ^ word[i + k]) * 0x9e3779b97f4a7c15ull;

            lane[k] = x ^ x >> 29;              /* one to one, so a single wrong word never goes unseen */
        }
    }
    return ((lane[0] * 31 + lane[1]) * 31 + lane[2]) * 31 + lane[3];
}

/* ---- data pages ---- */

/* A page whose bytes are not right under its new frame has its old one again, which nobody has written to. */
static void put_back(struct guest_machine *g, const struct arch_frame_move *m)
{
    const struct arch_frame_move back = { .pfn = m->pfn, .from = m->to, .to = m->from };
    struct part parts[PARTS_MAX];
    unsigned n = page_parts(g, &back, parts);

    ASSERT_CMP(n, >, 0);
    for (unsigned k = 0; k < n; k++) {
        uint32_t done = 0;

        for (unsigned i = 0; i < GUEST_RETRIES && done == 0; i++) {
            done = update(g, &parts[k].now, 1);
        }
        ASSERT(done == 1 || !parts[k].map);                                     /* I4 */
    }
}

/* Switch [first, count) up to the first that fails: returns the index behind the last one looked at. */
static size_t switch_run(struct guest_machine *g, struct arch_frame_move *list, size_t first, size_t count, const bool *skip)
{
    struct mmu_update updates[ARCH_MOVES_MAX * PARTS_MAX];
    struct part parts[ARCH_MOVES_MAX][PARTS_MAX];
    uint16_t end_of[ARCH_MOVES_MAX];
    uint8_t parts_of[ARCH_MOVES_MAX];
    uint32_t n = 0, done;

    for (size_t i = first; i < count; i++) {
        parts_of[i] = (uint8_t)(skip[i] ? 0 : page_parts(g, &list[i], parts[i]));
        for (unsigned k = 0; k < parts_of[i]; k++) {
            updates[n++] = parts[i][k].now;
        }
        end_of[i] = (uint16_t)n;
    }
    done = n > 0 ? update(g, updates, n) : 0;
    for (size_t i = first; i < count; i++) {
        uint32_t begin = (uint32_t)(end_of[i] - parts_of[i]);

        if (parts_of[i] == 0) {
            continue;
        }
        if (done + 1u >= end_of[i]) {                   /* I4: all but perhaps the last */
            list[i].done = true;
            if (done < end_of[i]) {
                return i + 1;
            }
            continue;
        }
        undo(g, parts[i], done > begin ? done - begin : 0);
        return i + 1;
    }
    return count;
}

size_t arch_frames_move(struct arch_frame_move *list, size_t count, bool verify, uint64_t *verified)
{
    struct guest_machine *g = guest_this_cpu()->machine;
    struct arch_frame_move mine[ARCH_MOVES_MAX];        /* I2: list may lie in a page that moves */
    bool skip[ARCH_MOVES_MAX] = { false };
    uint64_t sums[ARCH_MOVES_MAX], compared = 0;
    size_t done = 0;

    ASSERT_CMP(count, <=, ARCH_MOVES_MAX);
    for (size_t i = 0; i < count; i++) {
        mine[i] = list[i];
        mine[i].done = false;
        skip[i] = mine[i].pfn.n >= g->pages || !mfn_eq(arch_pfn_mfn(mine[i].pfn), mine[i].from);
    }
    copy_pages(g, mine, count, skip);
    for (size_t i = 0; i < count && verify; i++) {
        sums[i] = mine[i].copy && !skip[i] ? page_sum(g, mine[i].pfn) : 0;
    }
    for (size_t at = 0; at < count; at = switch_run(g, mine, at, count, skip)) {
    }
    for (size_t i = 0; i < count && verify; i++) {      /* I5 */
        if (mine[i].done && mine[i].copy && page_sum(g, mine[i].pfn) != sums[i]) {
            put_back(g, &mine[i]);
            mine[i].done = false;
        }
        compared += mine[i].done && mine[i].copy;
    }
    for (size_t i = 0; i < count; i++) {
        if (mine[i].done) {
            atomic_store_explicit(&g->p2m[mine[i].pfn.n], mine[i].to.n, memory_order_release);
            done++;
        }
    }
    for (size_t i = 0; i < count; i++) {
        list[i].done = mine[i].done;
    }
    *verified += compared;
    return done;
}

/* ---- page tables ---- */

bool arch_boot_table(pfn_t pfn, struct arch_table_place *at)
{
    struct guest_machine *g = guest_this_cpu()->machine;
    mfn_t mfn = arch_pfn_mfn(pfn);

    if (pfn.n - g->tables_first >= g->tables) {
        return false;
    }
    *at = (struct arch_table_place){ .level = ARCH_PT_LEVELS, .parent = PFN_NONE };
    if (pfn.n == g->l4) {
        return true;
    }
    /* Few and rarely asked for: look into every other one. The builder's tables are a tree, so one entry leads to each. */
    for (uint64_t t = g->tables_first; t < g->tables_first + g->tables; t++) {
        const uint64_t *e = guest_table(g, pfn_make(t));

        for (uint32_t i = 0; i < ARCH_PT_SLOTS; i++) {
            bool xen = t == g->l4 && i >= 256 && i < 272;

            if (!xen && (e[i] & ARCH_PTE_PRESENT) && (e[i] & ARCH_PTE_FRAME) >> FS_PAGE_SHIFT == mfn.n && (e[i] & ARCH_PTE_WRITE)) {
                struct arch_table_place up;     /* the direct map's own entry of a table is read-only: not that one */

                if (t != g->l4 && !arch_boot_table(pfn_make(t), &up)) {
                    continue;
                }
                *at = (struct arch_table_place){ .level = t == g->l4 ? ARCH_PT_LEVELS - 1 : up.level - 1, .parent = pfn_make(t), .slot = i };
                return true;
            }
        }
    }
    return false;
}

static int swap_pins(struct guest_machine *g, mfn_t on, mfn_t off)
{
    int rc = guest_mmuext(g, arch_cpu_id(), MMUEXT_PIN_L4_TABLE, on.n, 0);

    for (unsigned i = 0; rc == 0 && i < GUEST_RETRIES; i++) {
        if (guest_mmuext(g, arch_cpu_id(), MMUEXT_UNPIN_TABLE, off.n, 0) == 0) {
            return 0;
        }
    }
    ASSERT_CMP(rc, !=, 0);              /* the old root cannot be let go */
    return rc;
}

/* The entry that leads to the table, or the pin of a root. */
static int link_table(struct guest_machine *g, const struct arch_frame_move *m, const struct arch_table_place *at, bool forward)
{
    mfn_t was = forward ? m->from : m->to, is = forward ? m->to : m->from;
    struct mmu_update u = { 0 };
    uint32_t done = 0;

    if (at->level == ARCH_PT_LEVELS) {
        return swap_pins(g, is, was);
    }
    if (pfn_is_none(at->parent)) {
        return 0;
    }
    u.val = guest_table(g, at->parent)[at->slot];
    if (!(u.val & ARCH_PTE_PRESENT) || (u.val & ARCH_PTE_FRAME) >> FS_PAGE_SHIFT != was.n) {
        return -EINVAL;
    }
    u.ptr = arch_pfn_mfn(at->parent).n << FS_PAGE_SHIFT | at->slot * 8u | MMU_NORMAL_PT_UPDATE;
    u.val = (u.val & ~ARCH_PTE_FRAME) | is.n << FS_PAGE_SHIFT;
    for (unsigned i = 0; i < (forward ? 1 : GUEST_RETRIES) && done == 0; i++) {
        done = update(g, &u, 1);
    }
    return done == 1 ? 0 : -EBUSY;
}

int arch_table_move(const struct arch_frame_move *move, const struct arch_table_place *at, bool verify)
{
    struct guest_machine *g = guest_this_cpu()->machine;
    struct arch_frame_move m = *move;
    struct mmu_update m2p_new = m2p_update(m.to, m.pfn.n), m2p_none = m2p_update(m.to, UINT64_MAX), m2p_old = m2p_update(m.from, UINT64_MAX);
    struct part direct;
    int rc;

    if (m.pfn.n >= g->pages || !mfn_eq(arch_pfn_mfn(m.pfn), m.from)) {
        return -EINVAL;
    }
    rc = guest_mmuext(g, arch_cpu_id(), MMUEXT_COPY_PAGE, m.to.n, m.from.n);
    if (rc == 0 && verify && !same_bytes(g, &m)) {
        rc = -EIO;
    }
    if (rc == 0 && update(g, &m2p_new, 1) != 1) {
        rc = -EBUSY;
    }
    if (rc != 0) {
        return rc;
    }
    rc = link_table(g, &m, at, true);
    if (rc == 0) {
        atomic_store(&g->p2m[m.pfn.n], m.to.n);
        if (!map_part(g, address(g->direct) + m.pfn.n * FS_PAGE_BYTES, &m, &direct) || update(g, &direct.now, 1) != 1) {    /* I3 */
            atomic_store(&g->p2m[m.pfn.n], m.from.n);
            rc = link_table(g, &m, at, false);
            ASSERT_CMP(rc, ==, 0);
            rc = -EBUSY;
        }
    }
    if (rc != 0) {
        (void)update(g, &m2p_none, 1);
        return rc;
    }
    (void)update(g, &m2p_old, 1);                                           /* I4 */
    if (at->level == ARCH_PT_LEVELS) {
        atomic_fetch_add(&g->roots_moved, 1);
    }
    if (m.pfn.n == g->l4) {
        g->host.shared_info(g->host.ctx)->arch.p2m_cr3 = m.to.n << FS_PAGE_SHIFT;
    }
    return 0;
}
