/*
 * direct.c - the direct map of a core domain, as host memory.
 *
 * Owns: core->mapped, core->direct_l1, core->parked, and the host mappings at core->boot.direct and in the parking place beside it.
 * Invariants: I1 after a call, what the host shows at a pfn's address is what the guest's tables
 * (root of its first initialised vCPU) say about that address: the frame, read-only where any
 * level is, nothing where an entry is missing;
 * I2 only the process that hosts the guest maps; another one marks the map stale, and it is made
 * true before a vCPU runs again.
 * I3 parked[e]: the host's page table that showed extent e (512 aligned frames) to the guest lies in the parking place, at the extent's own
 * offset; nobody but this file reaches it.
 * Lock order: the machine's lock is held.
 * Why: a guest kernel that writes through a stale or forbidden mapping must fail here as it
 * would on Xen: with a fault, or in a frame that is no more its own.
 * Why parking: to take 512 touched pages out of a process costs its host 100 microseconds; to move their page table within
 * it, a few, for many at once less than one each. It is moved back when these frames are shown again, wherever; it ends with the domain.
 * Neighbours are one mapping of the host there, too.
 * Cost: a sync walks every entry (or those below a changed one) and makes one mmap() for each changed run; a touched entry one.
 * The host limits mappings (vm.max_map_count, 65530 by default): guests of more pages than that, whose
 * frames are all scattered, cannot be mapped; emb_direct_room() tells before more are scattered.
 */
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "emb_core.h"

#define WRITABLE (1u << 31)
#define BLOCK    512u
#define EXTENT_BYTES (BLOCK * FS_PAGE_BYTES)
#define NO_EXTENT UINT64_MAX

#define MAPPINGS_DEFAULT 65530u         /* Linux's vm.max_map_count */
#define MAPPINGS_OTHER   1024u          /* what the process itself has, libraries and threads included */

bool emb_direct_room(const struct emb_machine *m, uint64_t more, uint64_t *limit)
{
    FILE *f = fopen("/proc/sys/vm/max_map_count", "re");
    unsigned long most = MAPPINGS_DEFAULT;
    uint64_t runs = 0, pages = 0;
    if (f != NULL) {
        if (fscanf(f, "%lu", &most) != 1) {
            most = MAPPINGS_DEFAULT;
        }
        (void)fclose(f);
    }
    for (uint32_t i = 0; i < EMB_DOMAINS_MAX; i++) {
        const struct emb_core *core = m->domains[i].core;
        for (uint64_t e = 0; core != NULL && core->parked != NULL && e < core->park_extents; e++) {
            runs += core->parked[e] && (e == 0 || !core->parked[e - 1]);
            pages += core->parked[e];
        }
        for (uint64_t pfn = 1; core != NULL && pfn < core->boot.pages; pfn++) {
            runs += core->mapped[pfn] != (core->mapped[pfn - 1] ? core->mapped[pfn - 1] + 1 : 0);
            pages += core->mapped[pfn] != 0;
        }
    }
    *limit = most > MAPPINGS_OTHER ? most - MAPPINGS_OTHER : 0;
    /* Pages move in the order of their numbers, so each cuts one piece off the run that it lay in; and there are never more pieces than pages. */
    return (runs + more < pages ? runs + more : pages) <= *limit;
}

bool emb_direct_shows(const struct emb_core *core, uint64_t from, size_t bytes)
{
    uint64_t base = (uint64_t)(uintptr_t)core->boot.direct, pages = core->boot.pages;
    if (from < base || bytes == 0 || bytes > pages * FS_PAGE_BYTES || from - base > pages * FS_PAGE_BYTES - bytes || core->host_pid != emb_pid()) {
        return false;
    }
    for (uint64_t pfn = (from - base) / FS_PAGE_BYTES; pfn <= (from - base + bytes - 1) / FS_PAGE_BYTES; pfn++) {
        if (core->mapped[pfn] == 0) {
            return false;
        }
    }
    return true;
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

/* The last level's table for the pfns around one, and the rights of the way to it. */
struct reach { uint64_t group, l1, rights; };

static void reach(struct emb_machine *m, struct emb_core *core, uint64_t root, uint64_t pfn, struct reach *r)
{
    uint64_t va = (uint64_t)(uintptr_t)core->boot.direct + pfn * FS_PAGE_BYTES, mfn = root;
    *r = (struct reach){ .group = pfn / 512, .rights = EMB_PTE_RW };
    for (unsigned level = 4; level > 1; level--) {
        uint64_t e = mfn != 0 && emb_is_ram(m, mfn) ? emb_table(m, mfn)[va >> (12 + 9 * (level - 1)) & 511] : 0;
        r->rights &= e;
        mfn = e & EMB_PTE_P ? emb_pte_mfn(e) : 0;
    }
    r->l1 = mfn != 0 && emb_is_ram(m, mfn) ? mfn : 0;
    core->direct_l1[pfn / 512] = r->l1;
}

/* What the entry at that address says, in the form of core->mapped. r: of another pfn before, or group UINT64_MAX. */
static uint32_t wanted(struct emb_machine *m, struct emb_core *core, uint64_t root, uint64_t pfn, struct reach *r)
{
    if (r->group != pfn / 512) {
        reach(m, core, root, pfn, r);
    }
    uint64_t pte = r->l1 ? emb_table(m, r->l1)[pfn % 512] : 0, mfn = emb_pte_mfn(pte);
    return (pte & EMB_PTE_P) && emb_is_ram(m, mfn) ? (uint32_t)(mfn + 1) | (pte & r->rights & EMB_PTE_RW ? WRITABLE : 0) : 0;
}

static void reserve(uint8_t *at, uint64_t pages)
{
    void *p = mmap(at, pages * FS_PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    ASSERT_CMP((uintptr_t)p, ==, (uintptr_t)at);        /* vm.max_map_count: see Cost */
}

/* ---- the parking place (I3) ---- */

static uint8_t *parking(const struct emb_core *core, uint64_t extent)
{
    return core->boot.direct + EMB_PARK_OFFSET + extent * EXTENT_BYTES;
}

/* Show the pages of a whole block one aligned extent of frames, writable? Its number; else NO_EXTENT. */
static uint64_t extent_shown(const struct emb_core *core, uint64_t block)
{
    const uint32_t *mapped = &core->mapped[block * BLOCK];
    uint64_t mfn = (mapped[0] & ~WRITABLE) - 1ull;
    uint32_t differs = 0;
    if (!(mapped[0] & WRITABLE) || mfn % BLOCK != 0 || mfn / BLOCK >= core->park_extents) {
        return NO_EXTENT;
    }
    for (uint32_t i = 1; i < BLOCK; i++) {
        differs |= mapped[i] ^ (mapped[0] + i);
    }
    return differs ? NO_EXTENT : mfn / BLOCK;
}

/* Move the host's page tables of blocks [first, end) there, which show adjacent extents. False: the host does not. */
static bool park(struct emb_core *core, uint64_t first, uint64_t end, uint64_t extent)
{
    size_t bytes = (end - first) * EXTENT_BYTES;
    uint8_t *from = core->boot.direct + first * EXTENT_BYTES;
    if (mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, parking(core, extent)) == MAP_FAILED) {
        return false;
    }
    reserve(from, (end - first) * BLOCK);
    memset(&core->mapped[first * BLOCK], 0, (end - first) * BLOCK * sizeof(core->mapped[0]));
    memset(&core->parked[extent], 1, end - first);
    return true;
}

/* These pages are to show this: true if it was parked, and is back. */
static bool unpark(struct emb_core *core, uint64_t pfn, uint64_t pages, uint32_t want)
{
    uint64_t mfn = (want & ~WRITABLE) - 1ull, extent = mfn / BLOCK;
    if (pages != BLOCK || (pfn | mfn) % BLOCK != 0 || !(want & WRITABLE) || extent >= core->park_extents || !core->parked[extent] ||
        mremap(parking(core, extent), EXTENT_BYTES, EXTENT_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, core->boot.direct + pfn * FS_PAGE_BYTES) == MAP_FAILED) {
        return false;
    }
    reserve(parking(core, extent), BLOCK);
    core->parked[extent] = 0;
    return true;
}

static void show(struct emb_machine *m, struct emb_core *core, uint64_t pfn, uint64_t pages, uint32_t want)
{
    uint8_t *at = core->boot.direct + pfn * FS_PAGE_BYTES;
    if (!want) {
        reserve(at, pages);
    } else if (!unpark(core, pfn, pages, want)) {
        void *p = mmap(at, pages * FS_PAGE_BYTES, want & WRITABLE ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED | MAP_FIXED, m->contents_fd,
                       (off_t)(((want & ~WRITABLE) - 1) * FS_PAGE_BYTES));
        ASSERT_CMP((uintptr_t)p, ==, (uintptr_t)at);    /* vm.max_map_count: see Cost */
    }
    for (uint64_t i = 0; i < pages; i++) {
        core->mapped[pfn + i] = want ? want + (uint32_t)i : 0;
    }
}

static void sync_range(struct emb_machine *m, struct emb_domain *d, uint64_t first, uint64_t end)
{
    struct emb_core *core = d->core;
    uint64_t root = root_of(d), pages = end < core->boot.pages ? end : core->boot.pages;
    struct reach r = { .group = UINT64_MAX };
    uint32_t want = first < pages ? wanted(m, core, root, first, &r) : 0;
    for (uint64_t pfn = first; pfn < pages;) {
        uint64_t n = 1;
        uint32_t next = 0;
        bool differs = want != core->mapped[pfn];
        while (pfn + n < pages) {
            next = wanted(m, core, root, pfn + n, &r);
            if (next != (want ? want + (uint32_t)n : 0) || (next != core->mapped[pfn + n]) != differs) {
                break;
            }
            n++;
        }
        if (differs) {
            show(m, core, pfn, n, want);
        }
        pfn += n;
        want = next;
    }
}

void emb_direct_sync(struct emb_machine *m, struct emb_domain *d)
{
    if (d->core->host_pid == emb_pid()) {
        sync_range(m, d, 0, d->core->boot.pages);
    }
    __atomic_store_n(&d->core->direct_stale, d->core->host_pid != emb_pid(), __ATOMIC_SEQ_CST);
}

/* The table of a level on the way to the direct map's address of pfn; 0 if there is none. */
static uint64_t table_on_the_way(struct emb_machine *m, const struct emb_domain *d, unsigned level, uint64_t pfn)
{
    uint64_t va = (uint64_t)(uintptr_t)d->core->boot.direct + pfn * FS_PAGE_BYTES, mfn = root_of(d);
    for (unsigned at = 4; at > level && mfn != 0; at--) {
        uint64_t e = emb_is_ram(m, mfn) ? emb_table(m, mfn)[va >> (12 + 9 * (at - 1)) & 511] : 0;
        mfn = e & EMB_PTE_P ? emb_pte_mfn(e) : 0;
    }
    return mfn;
}

void emb_direct_upper(struct emb_machine *m, struct emb_domain *d, unsigned level, uint64_t table_mfn, uint32_t index)
{
    struct emb_core *core = d->core;
    uint64_t span = 1ull << (9 * (level - 1)), base = (uint64_t)(uintptr_t)core->boot.direct >> FS_PAGE_SHIFT;
    if (core->host_pid != emb_pid()) {
        __atomic_store_n(&core->direct_stale, true, __ATOMIC_SEQ_CST);
        return;
    }
    /* Each part of the map that one entry of this level covers. */
    for (uint64_t page = base; page < base + core->boot.pages; page = (page / span + 1) * span) {
        uint64_t first = page - base, end = (page / span + 1) * span - base;
        if ((page / span & 511) == index && table_on_the_way(m, d, level, first) == table_mfn) {
            sync_range(m, d, first, end);
        }
    }
}

void emb_direct_note(struct emb_machine *m, struct emb_domain *d, uint64_t table_mfn, uint32_t index, uint32_t count, struct emb_touched *t)
{
    struct emb_core *core = d->core;
    if (core->host_pid != emb_pid()) {
        __atomic_store_n(&core->direct_stale, true, __ATOMIC_SEQ_CST);
        return;
    }
    for (uint64_t i = 0; i <= (core->boot.pages - 1) / 512; i++) {
        if (core->direct_l1[i] != table_mfn) {
            continue;
        }
        for (uint64_t pfn = i * 512 + index; pfn < i * 512 + index + count && pfn < core->boot.pages; pfn++) {
            if (t->count == EMB_TOUCHED_MAX) {
                emb_direct_show(m, d, t);
            }
            t->pfn[t->count++] = pfn;
        }
    }
}

void emb_direct_cleared(struct emb_machine *m, struct emb_domain *d, uint64_t table_mfn, uint32_t index, uint32_t count, struct emb_touched *t)
{
    struct emb_core *core = d->core;
    if (core->host_pid != emb_pid()) {
        __atomic_store_n(&core->direct_stale, true, __ATOMIC_SEQ_CST);
        return;
    }
    for (uint64_t i = 0; i <= (core->boot.pages - 1) / 512; i++) {
        uint64_t first = i * 512 + index, end = first + count < core->boot.pages ? first + count : core->boot.pages;
        if (core->direct_l1[i] != table_mfn || first >= end) {
            continue;
        }
        uint32_t last = t->cleared - 1;
        if (t->cleared > 0 && t->run[last].first == end) {
            t->run[last].first = first;
        } else if (t->cleared > 0 && t->run[last].end == first) {
            t->run[last].end = end;
        } else {
            if (t->cleared == EMB_CLEARED_MAX) {
                emb_direct_show(m, d, t);
            }
            t->run[t->cleared].first = first;
            t->run[t->cleared++].end = end;
        }
    }
}

/* How many blocks from b on, within [b, end), show adjacent extents; *extent: the first. */
static uint64_t adjacent_extents(const struct emb_core *core, uint64_t b, uint64_t end, uint64_t *extent)
{
    uint64_t n = 1;
    *extent = b < end && core->parked != NULL ? extent_shown(core, b) : NO_EXTENT;
    if (*extent == NO_EXTENT) {
        return 0;
    }
    while (b + n < end && extent_shown(core, b + n) == *extent + n) {
        n++;
    }
    return n;
}

/* Nothing is shown in [first, end) any more: whole extents are parked, neighbours in one go, the rest is taken out. */
static void hide(struct emb_machine *m, struct emb_core *core, uint64_t first, uint64_t end)
{
    while (first < end) {
        uint64_t b = first / BLOCK, extent, blocks = first % BLOCK == 0 ? adjacent_extents(core, b, end / BLOCK, &extent) : 0;
        if (blocks > 0 && park(core, b, b + blocks, extent)) {
            first += blocks * BLOCK;
            continue;
        }
        uint64_t next = (b + 1) * BLOCK < end ? (b + 1) * BLOCK : end;
        for (uint64_t n; first < next; first += n) {
            n = 1;
            while (first + n < next && (core->mapped[first + n] != 0) == (core->mapped[first] != 0)) {
                n++;
            }
            if (core->mapped[first] != 0) {
                show(m, core, first, n, 0);
            }
        }
    }
}

void emb_direct_unmap(struct emb_core *core, bool end)
{
    uint64_t pages = core->boot.pages, parked = core->parked != NULL ? core->park_extents : 0;
    if (end) {
        (void)munmap(core->boot.direct, pages * FS_PAGE_BYTES);
        (void)munmap(parking(core, 0), parked * EXTENT_BYTES);
        return;
    }
    reserve(core->boot.direct, pages);
    memset(core->mapped, 0, pages * sizeof(core->mapped[0]));
    if (parked > 0) {
        reserve(parking(core, 0), parked * BLOCK);
        memset(core->parked, 0, parked);
    }
}

bool emb_direct_parking(struct emb_machine *m, struct emb_core *core)
{
    uint64_t extents = m->max_mfn / BLOCK;
    void *at = parking(core, 0);
    if (core->boot.pages * FS_PAGE_BYTES > EMB_PARK_OFFSET || extents * EXTENT_BYTES > EMB_DIRECT_STRIDE - EMB_PARK_OFFSET) {
        return true;
    }
    core->parked = emb_alloc(m, extents);
    if (core->parked == NULL || mmap(at, extents * EXTENT_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) != at) {
        return false;
    }
    core->park_extents = extents;
    return true;
}

static int by_number(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

void emb_direct_show(struct emb_machine *m, struct emb_domain *d, struct emb_touched *t)
{
    struct emb_core *core = d->core;
    uint64_t root = t->count ? root_of(d) : 0;
    struct reach r = { .group = UINT64_MAX };
    bool sorted = true;
    for (uint32_t i = 0; i < t->cleared; i++) {         /* first: what was set again since is among the others */
        hide(m, core, t->run[i].first, t->run[i].end);
    }
    t->cleared = 0;
    for (uint32_t i = 1; i < t->count && sorted; i++) {
        sorted = t->pfn[i - 1] <= t->pfn[i];
    }
    if (!sorted) {
        qsort(t->pfn, t->count, sizeof(t->pfn[0]), by_number);
    }
    for (uint32_t i = 0; i < t->count;) {
        uint64_t pfn = t->pfn[i], n = 1;
        uint32_t want = wanted(m, core, root, pfn, &r);
        for (i++; i < t->count && t->pfn[i] == pfn + n - 1; i++) {
        }
        while (i < t->count && t->pfn[i] == pfn + n && wanted(m, core, root, pfn + n, &r) == (want ? want + n : 0)) {
            for (n++, i++; i < t->count && t->pfn[i] == pfn + n - 1; i++) {     /* touched twice */
            }
        }
        bool same = true;
        for (uint64_t k = 0; k < n && same; k++) {
            same = core->mapped[pfn + k] == (want ? want + (uint32_t)k : 0);
        }
        if (!same) {
            show(m, core, pfn, n, want);
        }
    }
    t->count = 0;
}

void emb_direct_touch(struct emb_machine *m, struct emb_domain *d, uint64_t table_mfn, uint32_t index)
{
    struct emb_touched t;
    t.count = t.cleared = 0;
    emb_direct_note(m, d, table_mfn, index, 1, &t);
    emb_direct_show(m, d, &t);
}
