/*
 * memory.c - the kernel's own page tables and its p2m, from what the domain builder left.
 *
 * Owns: boot_memory; the tables in [table_start, table_end); the registration of the p2m in shared_info; every right in
 *   the direct map.
 * Invariants:
 *   I1  a page of a page table has no writable mapping anywhere: Xen would refuse it as a table. So entries of the direct map
 *       for [table_start, table_end) are made read-only from the start, and the builder's mapping of what follows its
 *       stack is taken away before the first table is written.
 *   I2  tables are written through one window page, one at a time; the window maps nothing when they are pinned. The row of windows maps
 *       something only inside memory_copy_many() and memory_switch_many().
 *   I3  an area's tables of one level are consecutive pfns; the level-1 table of pfn n's direct mapping is table_start + n/512.
 *   I4  text and constants of the image are writable nowhere; only text is executable.
 *   I5  m2p[p2m[pfn]] == pfn for every pfn that has a frame: checked at boot, where all have, and by memory_p2m_faults().
 * Lock order: none (one vCPU).
 * Why: the builder's tables map only itself and half a MiB behind it.  Building all new ones and pinning the root makes
 *   Xen validate them once, in one call, and leaves nothing of the builder's layout: its tables become ordinary memory.
 *   The p2m stays in the builder's pages, mapped a second time at an address of its own, which shared_info tells the tools.
 * Cost: two hypercalls a table (one for 2 MiB of memory), one to pin.
 */
#include "kernel.h"

#define ENTRIES 512u
#define LEVELS  4u
#define BATCH   64u

struct boot_memory boot_memory;
uint64_t pte_nx;

static const uint64_t *m2p;
static uint64_t m2p_entries;
static uint64_t *p2m;
static FS_ALIGNED(4096) uint64_t window[ENTRIES] __attribute__((section(".bss.page")));

/* A range of addresses and what is mapped there. Levels: [1] the leaves, [4] is the root, shared by all areas. */
struct area {
    uint64_t va, pages;
    uint64_t (*entry)(uint64_t page);               /* of the page'th page */
    uint64_t first_table[LEVELS], tables[LEVELS];   /* pfns, by level 1 to 3 */
};

enum { AREA_DIRECT, AREA_IMAGE, AREA_P2M, AREA_WINDOWS, AREAS };
static struct area areas[AREAS];

void m2p_open(void)
{
    struct xen_machphys_mapping map;

    if (hv_memory(XENMEM_machphys_mapping, &map) != 0) {
        kernel_panic("Xen does not say where its machine-to-physical table is");
    }
    m2p = (const uint64_t *)(uintptr_t)map.v_start;
    m2p_entries = map.max_mfn + 1;
}

void p2m_open(void)
{
    p2m = (uint64_t *)(uintptr_t)start_info->mfn_list;
    boot_memory.pages = start_info->nr_pages;
}

uint64_t memory_mfn(uint64_t pfn)
{
    return pfn < boot_memory.pages ? p2m[pfn] : FS_FRAME_NONE;
}

uint64_t memory_m2p(uint64_t mfn)
{
    return mfn < m2p_entries ? m2p[mfn] : FS_FRAME_NONE;
}

uint64_t memory_pfn(uint64_t mfn)
{
    uint64_t pfn = memory_m2p(mfn);

    return pfn < boot_memory.pages && p2m[pfn] == mfn ? pfn : FS_FRAME_NONE;
}

uint64_t memory_p2m_faults(void)
{
    uint64_t faults = 0;

    for (uint64_t pfn = 0; pfn < boot_memory.pages; pfn++) {
        faults += p2m[pfn] != ~0ull && memory_pfn(p2m[pfn]) != pfn;
    }
    return faults;
}

uint64_t memory_root_mfn(void)
{
    return memory_mfn(boot_memory.table_end - 1);
}

static void cpu_features(void)
{
    uint32_t a = 0x80000000u, b, c = 0, d;

    /* Xen's own answer to CPUID, not the processor's. */
    __asm__ volatile(XEN_CPUID : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    if (a < 0x80000001u) {
        return;
    }
    a = 0x80000001u;
    c = 0;
    __asm__ volatile(XEN_CPUID : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
    pte_nx = (d >> 20 & 1) != 0 ? ARCH_PTE_NOEXEC : 0;
}

/* ---- what is mapped where ---- */

static uint64_t image_page(const void *at)
{
    return ((uint64_t)(uintptr_t)at - (uint64_t)(uintptr_t)virt_base) / FS_PAGE_BYTES;
}

static uint64_t entry_of(uint64_t pfn, bool writable, bool executable)
{
    return p2m[pfn] * FS_PAGE_BYTES | ARCH_PTE_PRESENT | ARCH_PTE_ACCESSED | (writable ? ARCH_PTE_WRITE | ARCH_PTE_DIRTY : 0) | (executable ? 0 : pte_nx);
}

static bool pfn_is_table(uint64_t pfn)
{
    return (pfn >= boot_memory.table_start && pfn < boot_memory.table_end) || (pfn >= boot_memory.old_start && pfn < boot_memory.old_end);
}

static uint64_t direct_entry(uint64_t pfn)
{
    return entry_of(pfn, !pfn_is_table(pfn) && pfn >= image_page(rodata_end), false);       /* I1, I4 */
}

static uint64_t image_entry(uint64_t page)
{
    if (page == image_page(stack_guard) || page == image_page(window)) {
        return 0;
    }
    if (page == image_page(shared_info)) {
        return start_info->shared_info | ARCH_PTE_PRESENT | ARCH_PTE_WRITE | ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY | pte_nx;
    }
    return entry_of(page, page >= image_page(rodata_end), page < image_page(text_end));
}

static uint64_t p2m_first_page;

static uint64_t p2m_entry(uint64_t page)
{
    return entry_of(p2m_first_page + page, true, false);
}

static uint64_t windows_entry(uint64_t page)
{
    (void)page;
    return 0;
}

/* ---- building ---- */

static unsigned level_shift(unsigned level)
{
    return 12 + 9 * (level - 1);
}

/* How many tables of each level, and where they lie (I3). */
static uint64_t area_plan(struct area *a, uint64_t next)
{
    for (unsigned level = 1; level < LEVELS; level++) {
        uint64_t last = a->va + (a->pages - 1) * FS_PAGE_BYTES;
        unsigned shift = level_shift(level + 1);

        a->tables[level] = (last >> shift) - (a->va >> shift) + 1;
        a->first_table[level] = next;
        next += a->tables[level];
    }
    return next;
}

void *memory_window(uint64_t mfn)
{
    uint64_t entry = mfn == FS_FRAME_NONE ? 0 : mfn * FS_PAGE_BYTES | ARCH_PTE_PRESENT | ARCH_PTE_WRITE | ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY;

    return hv_update_va_mapping((uint64_t)(uintptr_t)window, entry, UVMF_INVLPG | UVMF_LOCAL) == 0 ? window : NULL;
}

void memory_window_forget(uint64_t pfn, uint64_t *copy)
{
    if (pfn == areas[AREA_IMAGE].first_table[1] + image_page(window) / ENTRIES) {
        copy[image_page(window) % ENTRIES] = 0;
    }
}

static void window_map(uint64_t pfn)
{
    if (memory_window(pfn == FS_FRAME_NONE ? pfn : p2m[pfn]) == NULL) {
        kernel_panic_number("Xen does not map the page of a table to be written", pfn);
    }
}

/* The table'th table of a level: slot by slot what the area has there, else nothing. */
static void table_fill(const struct area *a, unsigned level, uint64_t table)
{
    /* Slots count from the first slot of the area's first table of this level. */
    uint64_t skip = (a->va >> level_shift(level)) % ENTRIES;
    uint64_t have = level == 1 ? a->pages : a->tables[level - 1];

    window_map(a->first_table[level] + table);
    for (uint64_t slot = 0; slot < ENTRIES; slot++) {
        uint64_t child = table * ENTRIES + slot - skip;

        if (table * ENTRIES + slot < skip || child >= have) {
            window[slot] = 0;
        } else if (level == 1) {
            window[slot] = a->entry(child);
        } else {
            window[slot] = entry_of(a->first_table[level - 1] + child, true, true);
        }
    }
}

static void root_fill(void)
{
    window_map(boot_memory.table_end - 1);
    for (unsigned slot = 0; slot < ENTRIES; slot++) {
        window[slot] = 0;
    }
    for (unsigned i = 0; i < AREAS; i++) {
        uint64_t slot = (areas[i].va >> level_shift(LEVELS)) % ENTRIES;

        for (uint64_t t = 0; t < areas[i].tables[LEVELS - 1]; t++) {
            window[slot + t] = entry_of(areas[i].first_table[LEVELS - 1] + t, true, true);
        }
    }
}

/* The builder maps some of what follows its stack: it must not stay mapped twice (I1). */
static void boot_padding_unmap(void)
{
    uint64_t base = (uint64_t)(uintptr_t)virt_base;

    for (uint64_t pfn = boot_memory.boot_end; pfn < boot_memory.pages; pfn++) {
        if (hv_update_va_mapping(base + pfn * FS_PAGE_BYTES, 0, UVMF_INVLPG | UVMF_LOCAL) != 0) {
            break;                                  /* no table there: the end of the mapping */
        }
    }
}

static int64_t mmuext_mfn(unsigned command, uint64_t mfn)
{
    struct mmuext_op op = { .cmd = command };
    uint32_t done = 0;

    op.arg1.mfn = mfn;
    return hv_mmuext(&op, 1, &done);
}

static void tables_switch(void)
{
    uint64_t root = memory_root_mfn(), old_root = p2m[boot_memory.old_start];
    int64_t error;

    error = mmuext_mfn(MMUEXT_PIN_L4_TABLE, root);
    if (error != 0) {
        kernel_panic_number("Xen does not take the page tables", (uint64_t)-error);
    }
    error = mmuext_mfn(MMUEXT_NEW_BASEPTR, root);
    if (error != 0) {
        kernel_panic_number("Xen does not switch to the page tables", (uint64_t)-error);
    }
    p2m = (uint64_t *)(uintptr_t)P2M_BASE;
    error = mmuext_mfn(MMUEXT_UNPIN_TABLE, old_root);
    if (error != 0) {
        kernel_panic_number("Xen does not let go of the builder's page tables", (uint64_t)-error);
    }
    for (uint64_t pfn = boot_memory.old_start; pfn < boot_memory.old_end; pfn++) {
        error = memory_protect(pfn, true);
        if (error != 0) {
            kernel_panic_number("a page of the builder's tables does not become ordinary memory", pfn);
        }
    }
}

/* The tools see the p2m through the kernel's own tables. There is no three-level tree, which only tools before Xen 4.6 need. */
void memory_register(void)
{
    uint64_t in_pages = (boot_memory.pages * 8 + FS_PAGE_BYTES - 1) / FS_PAGE_BYTES * FS_PAGE_BYTES / 8;

    for (uint64_t i = boot_memory.pages; i < in_pages; i++) {
        p2m[i] = ~0ull;
    }
    shared_info->arch.max_pfn = boot_memory.pages;
    shared_info->arch.pfn_to_mfn_frame_list_list = ~0ul;
    shared_info->arch.p2m_generation = 0;
    shared_info->arch.p2m_vaddr = P2M_BASE;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    shared_info->arch.p2m_cr3 = xen_pfn_to_cr3(memory_root_mfn());
}

void memory_own_tables(uint64_t boot_top)
{
    struct boot_memory *b = &boot_memory;
    uint64_t base = (uint64_t)(uintptr_t)virt_base, next;

    areas[AREA_DIRECT] = (struct area){ .va = DIRECT_BASE, .pages = b->pages, .entry = direct_entry };
    areas[AREA_IMAGE] = (struct area){ .va = base, .pages = image_page(image_end), .entry = image_entry };
    areas[AREA_P2M] = (struct area){ .va = P2M_BASE, .pages = (b->pages * 8 + FS_PAGE_BYTES - 1) / FS_PAGE_BYTES, .entry = p2m_entry };
    areas[AREA_WINDOWS] = (struct area){ .va = WINDOWS_BASE, .pages = ARCH_MOVES_MAX, .entry = windows_entry };
    cpu_features();
    next = memory_p2m_faults();
    for (uint64_t pfn = 0; pfn < b->pages; pfn++) {
        next += p2m[pfn] == ~0ull;
    }
    if (next != 0) {
        kernel_panic_number("so many pages have no frame, or p2m and M2P disagree about it", next);
    }
    p2m_first_page = (start_info->mfn_list - base) / FS_PAGE_BYTES;
    b->old_start = (start_info->pt_base - base) / FS_PAGE_BYTES;
    b->old_end = b->old_start + start_info->nr_pt_frames;
    b->boot_end = (boot_top - base) / FS_PAGE_BYTES;
    b->table_start = next = b->boot_end;
    for (unsigned i = 0; i < AREAS; i++) {
        next = area_plan(&areas[i], next);
    }
    b->table_end = next + 1;                        /* the root is the last */
    if (b->table_end > b->pages) {
        kernel_panic_number("memory is too small for its own page tables; pages", b->pages);
    }
    b->next = b->table_end;
    boot_padding_unmap();
    for (unsigned i = 0; i < AREAS; i++) {
        for (unsigned level = 1; level < LEVELS; level++) {
            for (uint64_t t = 0; t < areas[i].tables[level]; t++) {
                table_fill(&areas[i], level, t);
            }
        }
    }
    root_fill();
    window_map(FS_FRAME_NONE);                      /* I2 */
    tables_switch();
    memory_register();
}

/* ---- afterwards ---- */

static struct mmu_update direct_update(uint64_t pfn, uint64_t entry)
{
    uint64_t table = boot_memory.table_start + pfn / ENTRIES;           /* I3 */

    return (struct mmu_update){ .ptr = p2m[table] * FS_PAGE_BYTES + pfn % ENTRIES * 8, .val = entry };
}

uint64_t memory_direct_entry(uint64_t pfn)
{
    const volatile uint64_t *table = direct_map(boot_memory.table_start + pfn / ENTRIES);

    return table[pfn % ENTRIES];
}

int64_t memory_protect(uint64_t pfn, bool writable)
{
    struct mmu_update u = direct_update(pfn, entry_of(pfn, writable, false));
    struct mmuext_op flush = { .cmd = MMUEXT_INVLPG_LOCAL };
    uint32_t done = 0;
    int64_t error = hv_mmu_update(&u, 1, &done);

    flush.arg1.linear_addr = DIRECT_BASE + pfn * FS_PAGE_BYTES;
    return error != 0 ? error : hv_mmuext(&flush, 1, &done);
}

int64_t memory_map(uint64_t pfn, uint64_t pages, bool present)
{
    struct mmu_update batch[BATCH];
    int64_t error = 0;
    uint32_t done = 0;

    for (uint64_t i = 0; i < pages && error == 0;) {
        uint64_t n = 0;

        for (; n < BATCH && i < pages; n++, i++) {
            batch[n] = direct_update(pfn + i, present ? entry_of(pfn + i, true, false) : 0);
        }
        error = hv_mmu_update(batch, n, &done);
    }
    return error != 0 ? error : mmuext_mfn(MMUEXT_TLB_FLUSH_LOCAL, 0);
}

void memory_set_mfn(uint64_t pfn, uint64_t mfn)
{
    __atomic_store_n(&p2m[pfn], mfn, __ATOMIC_RELEASE);                 /* tools may read it */
}

/* The machine address of the entry of the page'th page of an area, by I3. */
static uint64_t leaf_entry(const struct area *a, uint64_t page)
{
    return p2m[a->first_table[1] + page / ENTRIES] * FS_PAGE_BYTES + page % ENTRIES * 8;
}

int64_t memory_switch(uint64_t pfn, uint64_t mfn)
{
    const uint64_t *table = direct_map(boot_memory.table_start + pfn / ENTRIES);
    bool writable = (table[pfn % ENTRIES] & ARCH_PTE_WRITE) != 0, root = pfn == boot_memory.table_end - 1;
    uint64_t old = p2m[pfn], in_p2m = pfn - p2m_first_page;
    struct mmu_update u[5];
    uint32_t count = 0, done = 0;
    int64_t error;

    p2m[pfn] = mfn;                                 /* the entries below are made from it ... */
    u[count++] = direct_update(pfn, entry_of(pfn, writable, false));
    if (pfn < areas[AREA_IMAGE].pages) {
        u[count++] = (struct mmu_update){ .ptr = leaf_entry(&areas[AREA_IMAGE], pfn), .val = image_entry(pfn) };
    }
    if (in_p2m < areas[AREA_P2M].pages) {
        u[count++] = (struct mmu_update){ .ptr = leaf_entry(&areas[AREA_P2M], in_p2m), .val = p2m_entry(in_p2m) };
    }
    u[count++] = (struct mmu_update){ .ptr = mfn * FS_PAGE_BYTES | MMU_MACHPHYS_UPDATE, .val = pfn };
    u[count++] = (struct mmu_update){ .ptr = old * FS_PAGE_BYTES | MMU_MACHPHYS_UPDATE, .val = FS_FRAME_NONE };
    shared_info->arch.p2m_generation += in_p2m < areas[AREA_P2M].pages || root;
    error = hv_mmu_update(u, count, &done);
    if (error != 0 && done > 0) {
        kernel_panic_number("a page was switched to another frame by half", pfn);
    }
    if (error == 0) {
        error = mmuext_mfn(MMUEXT_TLB_FLUSH_LOCAL, 0);
        old = mfn;
    }
    p2m[pfn] = old;                                 /* ... and again: the page that moved may be the p2m's own */
    if (root) {
        shared_info->arch.p2m_cr3 = xen_pfn_to_cr3(old);
    }
    shared_info->arch.p2m_generation += shared_info->arch.p2m_generation % 2;
    return error;
}

/* ---- many pages in one go ---- */

static struct mmu_update many[ARCH_MOVES_MAX * 4];                      /* live data: never in a page that is being copied here */
static uint8_t many_of[ARCH_MOVES_MAX];

static void *window_of(uint64_t i)
{
    return (void *)(uintptr_t)(WINDOWS_BASE + i * FS_PAGE_BYTES);
}

bool memory_is_plain(uint64_t pfn)
{
    return pfn >= areas[AREA_IMAGE].pages && pfn - p2m_first_page >= areas[AREA_P2M].pages && !pfn_is_table(pfn);
}

static struct mmu_update window_update(uint64_t i, uint64_t entry)
{
    return (struct mmu_update){ .ptr = leaf_entry(&areas[AREA_WINDOWS], i), .val = entry };
}

void memory_copy_many(const struct arch_frame_move *list, uint64_t count, bool verify, bool *right)
{
    uint64_t bits = ARCH_PTE_PRESENT | ARCH_PTE_WRITE | ARCH_PTE_ACCESSED | ARCH_PTE_DIRTY | pte_nx, from = 0;

    for (uint64_t i = 0; i < count; i++) {
        many[i] = window_update(i, list[i].copy ? list[i].to.n * FS_PAGE_BYTES | bits : 0);
        right[i] = true;
    }
    while (from < count) {
        uint32_t done = 0;

        if (hv_mmu_update(&many[from], count - from, &done) == 0) {
            break;
        }
        right[from + done] = false;             /* Xen does not let us write that frame */
        from += done + 1;
    }
    for (uint64_t i = 0; i < count; i++) {
        if (right[i] && list[i].copy) {
            __builtin_memcpy(window_of(i), direct_map(list[i].pfn.n), FS_PAGE_BYTES);
            right[i] = !verify || __builtin_memcmp(window_of(i), direct_map(list[i].pfn.n), FS_PAGE_BYTES) == 0;
        }
    }
}

/* Four updates a page: the direct map, where Xen may still say no, the M2P of both frames, and the window. */
static uint64_t switch_updates(const struct arch_frame_move *list, uint64_t count, const bool *right)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < count; i++) {
        if (right[i]) {
            many_of[n / 4] = (uint8_t)i;
            many[n++] = direct_update(list[i].pfn.n, (memory_direct_entry(list[i].pfn.n) & ~ARCH_PTE_FRAME) | list[i].to.n << FS_PAGE_SHIFT);
            many[n++] = (struct mmu_update){ .ptr = list[i].to.n * FS_PAGE_BYTES | MMU_MACHPHYS_UPDATE, .val = list[i].pfn.n };
            many[n++] = (struct mmu_update){ .ptr = list[i].from.n * FS_PAGE_BYTES | MMU_MACHPHYS_UPDATE, .val = FS_FRAME_NONE };
            many[n++] = window_update(i, 0);
        }
    }
    return n;
}

/* Windows of pages that did not move. */
static void close_windows(uint64_t count, const bool *right)
{
    uint64_t n = 0;
    uint32_t done = 0;

    for (uint64_t i = 0; i < count; i++) {
        if (!right[i]) {
            many[n++] = window_update(i, 0);
        }
    }
    if (n > 0 && hv_mmu_update(many, n, &done) != 0) {
        kernel_panic("Xen does not close a window");
    }
}

void memory_switch_many(const struct arch_frame_move *list, uint64_t count, bool *right)
{
    uint64_t at = 0, n = switch_updates(list, count, right);

    while (at < n) {
        uint32_t done = 0;

        if (hv_mmu_update(&many[at], n - at, &done) == 0) {
            break;
        }
        at += done;
        if (at % 4 != 0) {
            kernel_panic_number("a page was switched to another frame by half", list[many_of[at / 4]].pfn.n);
        }
        right[many_of[at / 4]] = false;
        at += 4;
    }
    close_windows(count, right);
    if (mmuext_mfn(MMUEXT_TLB_FLUSH_LOCAL, 0) != 0) {
        kernel_panic("Xen does not flush our translations");
    }
    for (uint64_t i = 0; i < count; i++) {
        if (right[i]) {
            memory_set_mfn(list[i].pfn.n, list[i].to.n);
        }
    }
}

bool memory_is_live(uint64_t pfn)
{
    return pfn >= image_page(rodata_end) && pfn < areas[AREA_IMAGE].pages && pfn != image_page(stack_guard) && pfn != image_page(window)
           && (shared_info == NULL || pfn != image_page(shared_info));
}

int64_t memory_switch_live(uint64_t pfn, uint64_t mfn)
{
    uint64_t now = memory_direct_entry(pfn), old = p2m[pfn];
    struct mmu_update u[2] = { { .ptr = mfn * FS_PAGE_BYTES | MMU_MACHPHYS_UPDATE, .val = pfn },
                               { .ptr = old * FS_PAGE_BYTES | MMU_MACHPHYS_UPDATE, .val = FS_FRAME_NONE } };
    uint32_t done = 0;
    int64_t error = memory_window(mfn) == NULL ? -1
                    : image_switch(direct_map(pfn), window, (now & ~ARCH_PTE_FRAME) | mfn << FS_PAGE_SHIFT, virt_base + pfn * FS_PAGE_BYTES, now);

    if (error != 0) {
        (void)memory_window(FS_FRAME_NONE);
        return error;
    }
    p2m[pfn] = mfn;                                 /* the p2m is no page of the image */
    if (hv_mmu_update(u, 2, &done) != 0) {
        kernel_panic_number("Xen does not enter a page of the image in the M2P", pfn);
    }
    return 0;
}

bool memory_is_fixed(uint64_t pfn)
{
    uint64_t mfn = memory_mfn(pfn);

    return mfn == start_info->console.domU.mfn || mfn == start_info->store_mfn;
}

bool memory_table_place(uint64_t pfn, struct arch_table_place *at)
{
    *at = (struct arch_table_place){ .level = LEVELS, .parent = PFN_NONE };
    if (pfn < boot_memory.table_start || pfn >= boot_memory.table_end) {
        return false;
    }
    for (unsigned i = 0; i < AREAS; i++) {
        for (unsigned level = 1; level < LEVELS; level++) {
            uint64_t index = pfn - areas[i].first_table[level], slot = (areas[i].va >> level_shift(level + 1)) % ENTRIES + index;

            if (index >= areas[i].tables[level]) {
                continue;
            }
            at->level = level;
            at->parent = pfn_make(level + 1 < LEVELS ? areas[i].first_table[level + 1] + slot / ENTRIES : boot_memory.table_end - 1);
            at->slot = (uint32_t)(slot % ENTRIES);
        }
    }
    return true;                                    /* the root, where no area has it */
}

void *memory_boot_alloc(void *ctx, size_t bytes, size_t align)
{
    /* A byte address in the direct map; b->next is the first page that is not touched yet. */
    static uint64_t at;
    struct boot_memory *b = &boot_memory;
    uint64_t start;

    (void)ctx;
    if (at == 0) {
        at = b->next * FS_PAGE_BYTES;
    }
    start = (at + align - 1) / align * align;
    if (bytes > b->pages * FS_PAGE_BYTES - start) {
        return NULL;
    }
    at = start + bytes;
    b->next = (at + FS_PAGE_BYTES - 1) / FS_PAGE_BYTES;
    start += DIRECT_BASE;
    __builtin_memset((void *)(uintptr_t)start, 0, bytes);
    return (void *)(uintptr_t)start;
}
