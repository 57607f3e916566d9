/*
 * move_xen.c - another machine frame under a page of this guest, page tables of its own included.
 *
 * Owns: nothing; memory.c keeps the tables and the p2m.
 * Invariants:
 *   I1  ordinary pages are copied and switched together, and between the two nothing is written but live pages (data and stack of the image, which are
 *       never among them); a page of the p2m, of the image or of the kernel's tables is done by itself, p2m and M2P included, before the next one is looked at.
 *   I2  never moved: the two pages that daemons in dom0 have mapped (console and xenstore ring). They are refused, as is a frame that Xen
 *       does not let us map.  Data and stack of the image are written while C code runs, so switch.S moves them.
 *   I3  a moved table is complete before Xen is asked to take it: its copy is made through the window, the entry that leads to it
 *       is replaced (Xen validates the copy and drops the old one), and only then the direct map names the new frame.
 * Lock order: none (one vCPU; the callers have stopped everybody else).
 * Why: Xen's type counts see to it that no table is ever both: it refuses the exchange where something still maps the new frame
 *   writable, and then everything is as it was.
 * Cost: 64 ordinary pages are three hypercalls (map the windows; direct map, M2P and windows; flush) and their copies, any other page four, a table
 *   five; a root is pinned anew, which validates all below it.
 */
#include "kernel.h"
#include "frameshift/assert.h"

pfn_t arch_mfn_pfn(mfn_t mfn)
{
    uint64_t pfn = memory_m2p(mfn.n);

    return pfn < boot_memory.pages ? pfn_make(pfn) : PFN_NONE;
}

static int64_t one_mmuext(unsigned command, uint64_t mfn)
{
    struct mmuext_op op = { .cmd = command };
    uint32_t done = 0;

    op.arg1.mfn = mfn;
    return hv_mmuext(&op, 1, &done);
}

static bool may_move(const struct arch_frame_move *m)
{
    return m->pfn.n < boot_memory.pages && memory_mfn(m->pfn.n) == m->from.n && !memory_is_fixed(m->pfn.n);      /* I2 */
}

/* The contents of the page are in the new frame afterwards. False: Xen does not let us write it. */
static bool copy_page(const struct arch_frame_move *m, bool verify, bool *right)
{
    const uint64_t *from = direct_map(m->pfn.n);
    uint64_t *to = memory_window(m->to.n);

    *right = true;
    if (to == NULL) {
        return false;
    }
    __builtin_memcpy(to, from, FS_PAGE_BYTES);
    if (verify) {
        *right = __builtin_memcmp(to, from, FS_PAGE_BYTES) == 0;
    }
    memory_window_forget(m->pfn.n, to);
    (void)memory_window(FS_FRAME_NONE);
    return true;
}

/* A page of the image, of the p2m: by itself. */
static bool move_one(const struct arch_frame_move *m, bool verify)
{
    bool right = true;

    if (memory_is_live(m->pfn.n)) {
        return memory_switch_live(m->pfn.n, m->to.n) == 0;
    }
    return (!m->copy || copy_page(m, verify, &right)) && right && memory_switch(m->pfn.n, m->to.n) == 0;
}

size_t arch_frames_move(struct arch_frame_move *list, size_t count, bool verify, uint64_t *verified)
{
    struct arch_frame_move plain[ARCH_MOVES_MAX];
    uint8_t of[ARCH_MOVES_MAX];
    bool right[ARCH_MOVES_MAX];
    size_t n = 0, done = 0;

    ASSERT_CMP(count, <=, ARCH_MOVES_MAX);
    for (size_t i = 0; i < count; i++) {
        struct arch_frame_move m = list[i];         /* the list may be in the page that moves */
        bool may = may_move(&m);

        if (may && memory_is_plain(m.pfn.n)) {
            of[n] = (uint8_t)i;
            plain[n++] = m;
        } else {
            list[i].done = may && move_one(&m, verify);
        }
    }
    if (n > 0) {
        memory_copy_many(plain, n, verify, right);  /* I1: the stack is a live page, never one of these */
        memory_switch_many(plain, n, right);
    }
    for (size_t i = 0; i < n; i++) {
        list[of[i]].done = right[i];
    }
    for (size_t i = 0; i < count; i++) {
        *verified += list[i].done && list[i].copy && verify;
        done += list[i].done;
    }
    return done;
}

bool arch_boot_table(pfn_t pfn, struct arch_table_place *at)
{
    return memory_table_place(pfn.n, at);
}

/* The root of this kernel or of a space: pinned as well, and perhaps in use. */
static int64_t root_move(const struct arch_frame_move *m)
{
    bool kernel = m->from.n == memory_root_mfn();
    int64_t error = one_mmuext(MMUEXT_PIN_L4_TABLE, m->to.n);

    if (error != 0) {
        return error;
    }
    if (kernel) {
        error = one_mmuext(MMUEXT_NEW_BASEPTR, m->to.n);
    } else if (mmu_user_root().n == m->pfn.n) {
        error = one_mmuext(MMUEXT_NEW_USER_BASEPTR, m->to.n);
    }
    ASSERT_CMP(one_mmuext(MMUEXT_UNPIN_TABLE, error != 0 ? m->to.n : m->from.n), ==, 0);
    return error;
}

static int64_t entry_move(const struct arch_frame_move *m, const struct arch_table_place *at)
{
    uint64_t old = ((const volatile uint64_t *)direct_map(at->parent.n))[at->slot];
    struct mmu_update u = { .ptr = memory_mfn(at->parent.n) << FS_PAGE_SHIFT | at->slot * 8 | MMU_NORMAL_PT_UPDATE,
                            .val = (old & ~ARCH_PTE_FRAME) | m->to.n << FS_PAGE_SHIFT };
    uint32_t done = 0;

    if ((old & ARCH_PTE_FRAME) >> FS_PAGE_SHIFT != m->from.n) {
        return -1;
    }
    return hv_mmu_update(&u, 1, &done);
}

int arch_table_move(const struct arch_frame_move *m, const struct arch_table_place *at, bool verify)
{
    struct arch_frame_move mine = *m;
    struct arch_table_place place = *at;
    bool right;
    int64_t error = 0;

    if (!may_move(&mine) || !copy_page(&mine, verify, &right) || !right) {
        return -1;
    }
    if (place.level == ARCH_PT_LEVELS) {
        error = root_move(&mine);
    } else if (!pfn_is_none(place.parent)) {
        error = entry_move(&mine, &place);
    }
    if (error == 0) {                               /* I3 */
        error = memory_switch(mine.pfn.n, mine.to.n);
        ASSERT_CMP(error, ==, 0);                   /* Xen has taken the frame as a table: a read-only entry cannot be refused */
    }
    return (int)error;
}
