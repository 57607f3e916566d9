/*
 * memmap.c - the struct pages of a section: how they come into being, leave and return.
 *
 * Layer: L1
 * Owns: section.map, present, map_pfn, boot_map; mm.walk_phase, walkers, memmap_pages.
 * Invariants:
 *   I1  present says that the section has struct pages; a walk that saw it finds map as long as the walk lasts.
 *   I2  a map of boot memory lies in reserved pages, one that was taken later is one used unit of 2 MiB at map_pfn.
 *   I3  the map of a section that returns says what was given: pageblock.given outlives the struct pages.
 * Lock order: hotplug's lock is held; zone locks one at a time, never while waiting for walks.
 * Why walks and not one lock: scanners look at struct pages of blocks of which they hold nothing, for milliseconds, and may sleep
 *   meanwhile.  Two counters, of which new walks take the one that is not waited for, cost a scanner two atomic operations and the
 *   allocator none.
 * Why a line more a map: the first pages of blocks are 32 KiB apart and share few sets of a cache; maps of boot memory begin a
 *   line further each, or all sections would share the same sets.  So two neighbours share one page, which goes with the second
 *   of them.  The highest section's map comes first, and begins at a pageblock: where sections leave from the top, each frees one
 *   block whole.
 * Cost: 2 MiB are written when a section returns, and 512 pages freed when it leaves.
 */
#include "memmap.h"
#include "buddy.h"
#include "page_alloc.h"
#include "pageblock.h"

#define MAP_STRIDE (SECTION_PAGES + 1u)             /* struct pages: a line more than a section has */

/* ---- boot ---- */

/* Mark the sections that the ranges touch; how many there are. */
static uint32_t mark_sections(struct mm *mm, const struct mm_config *c)
{
    uint32_t count = 0;

    for (size_t i = 0; i < c->ram_count; i++) {
        for (uint64_t s = c->ram[i].start.n >> SECTION_SHIFT; s <= (c->ram[i].end.n - 1) >> SECTION_SHIFT; s++) {
            count += !mm->sections[s].boot_map;
            mm->sections[s].boot_map = true;
        }
    }
    return count;
}

static void section_start(struct section *s, uint32_t index, struct page *map, struct pageblock *blocks, struct free_map *free_maps)
{
    s->blocks = blocks;
    s->free_maps = free_maps;
    for (uint32_t i = 0; i < SECTION_PAGES; i++) {
        map[i].pfn = index * SECTION_PAGES + i;
        page_set_word(&map[i], PAGE_WORD(PAGE_HOLE, 0, MIGRATE_UNMOVABLE, 0));
    }
    for (uint32_t b = 0; b < SECTION_BLOCKS; b++) {
        pageblock_init(&s->blocks[b]);
    }
    atomic_store_explicit(&s->map, map, memory_order_relaxed);
    atomic_store(&s->present, true);
}

static uint64_t page_align(uint64_t bytes) { return (bytes + FS_PAGE_BYTES - 1) / FS_PAGE_BYTES * FS_PAGE_BYTES; }

static bool in_direct_map(const struct mm *mm, const void *p, size_t bytes)
{
    uintptr_t at = (uintptr_t)p, base = (uintptr_t)mm->direct;

    return at >= base && at - base + bytes <= mm->end_pfn * FS_PAGE_BYTES;
}

mm_status_t memmap_boot(struct mm *mm, const struct mm_config *c)
{
    uint32_t count = mark_sections(mm, c), n = 0;
    size_t bytes = page_align((size_t)count * MAP_STRIDE * sizeof(struct page));        /* whole pages: nobody else's data shares them */
    size_t align = c->direct_map != NULL && count > 1 ? PAGEBLOCK_PAGES * FS_PAGE_BYTES : FS_PAGE_BYTES;    /* an only section stays */
    struct pageblock *blocks = c->boot_alloc(c->boot_ctx, sizeof(struct pageblock) * SECTION_BLOCKS * count, 64);
    struct free_map *free_maps = c->boot_alloc(c->boot_ctx, sizeof(struct free_map) * SECTION_BLOCKS * count, 64);
    struct page *maps = c->boot_alloc(c->boot_ctx, bytes, align);

    if (maps == NULL || blocks == NULL || free_maps == NULL) {
        return MM_ENOMEM;
    }
    mm->direct = c->direct_map;
    if (mm->direct != NULL && (!in_direct_map(mm, maps, bytes) || free_maps + (size_t)SECTION_BLOCKS * count > (struct free_map *)(void *)maps)) {
        return MM_EINVAL;
    }
    if (mm->direct != NULL) {
        mm->memmap_gap = page_align((uintptr_t)(free_maps + (size_t)SECTION_BLOCKS * count) - (uintptr_t)mm->direct) / FS_PAGE_BYTES;
        mm->memmap_gap_end = memmap_pfn(mm, maps).n;
    }
    for (uint32_t s = mm->section_count; s-- > 0;) {
        if (mm->sections[s].boot_map) {
            section_start(&mm->sections[s], s, maps + (size_t)n * MAP_STRIDE, blocks + n * SECTION_BLOCKS, free_maps + n * SECTION_BLOCKS);
            n++;
        }
    }
    return MM_OK;
}

static uint64_t map_start(const struct section *s) { return (uintptr_t)atomic_load_explicit(&s->map, memory_order_relaxed); }
static uint64_t map_end(const struct section *s) { return map_start(s) + SECTION_PAGES * sizeof(struct page); }

bool memmap_boot_uses(const struct mm *mm, pfn_t pfn)
{
    uint64_t at = (uintptr_t)mm->direct + pfn.n * FS_PAGE_BYTES;

    for (uint32_t i = 0; i < mm->section_count; i++) {
        const struct section *s = &mm->sections[i];

        if (s->boot_map && map_start(s) < at + FS_PAGE_BYTES && map_end(s) > at) {
            return true;
        }
    }
    return false;
}

/* n more pages of the node of pfn hold struct pages. */
static void count_pages(struct mm *mm, pfn_t pfn, int64_t n)
{
    atomic_fetch_add_explicit(&mm->memmap_pages[page_node(mm, mm_page(mm, pfn))], (uint64_t)n, memory_order_relaxed);
}

void memmap_boot_done(struct mm *mm)
{
    (void)mm_free_boot(mm, pfn_make(mm->memmap_gap), pfn_make(mm->memmap_gap_end));
    for (uint64_t pfn = 0; mm->direct != NULL && pfn < mm->end_pfn; pfn++) {
        if (mm_pfn_valid(mm, pfn_make(pfn)) && memmap_boot_uses(mm, pfn_make(pfn))) {
            count_pages(mm, pfn_make(pfn), 1);
        }
    }
}

/* ---- away ---- */

static struct zone *section_zone(const struct mm *mm, uint32_t section)
{
    const struct pageblock *blocks = mm->sections[section].blocks;
    uint32_t b = 0;

    while (b + 1 < SECTION_BLOCKS && !blocks[b].given) {
        b++;
    }
    return &mm->zones[blocks[b].zone];
}

/* Every walk that may have seen what was taken away before has ended. */
static void wait_for_walks(struct mm *mm)
{
    unsigned phase = atomic_fetch_xor(&mm->walk_phase, 1u);

    while (atomic_load(&mm->walkers[phase]) != 0) {
        arch_cpu_relax();
    }
}

/* A whole block of reserved pages is one free unit at once. False: it is not a whole block. */
static bool free_reserved_block(struct mm *mm, uint64_t pfn, uint64_t end)
{
    struct page *p = mm_page(mm, pfn_make(pfn));
    struct zone *z = mm_block_zone(mm, page_block(p));

    if (end - pfn != PAGEBLOCK_PAGES) {
        return false;
    }
    for (uint32_t i = 0; i < PAGEBLOCK_PAGES; i++) {
        page_set_word(p + i, PAGE_WORD(PAGE_NONE, 0, 0, 0));
        atomic_store_explicit(&p[i].refs, 0, memory_order_relaxed);
    }
    zone_lock(z);
    z->managed_pages += PAGEBLOCK_PAGES;
    mm_block(mm, page_block(p))->reserved_pages = 0;
    buddy_free(mm, z, p, PAGEBLOCK_ORDER);
    zone_unlock(z);
    return true;
}

static uint64_t free_boot_map(struct mm *mm, struct section *s)
{
    uint64_t first = memmap_pfn(mm, (struct page *)(uintptr_t)map_start(s)).n;
    uint64_t end = memmap_pfn(mm, (struct page *)(uintptr_t)(map_end(s) - 1)).n + 1, freed = 0;

    s->boot_map = false;
    first += memmap_boot_uses(mm, pfn_make(first));
    end -= end > first && memmap_boot_uses(mm, pfn_make(end - 1));
    for (uint64_t pfn = first, next; pfn < end; pfn = next) {
        next = (pfn / PAGEBLOCK_PAGES + 1) * PAGEBLOCK_PAGES;
        next = next < end ? next : end;
        count_pages(mm, pfn_make(pfn), -(int64_t)(next - pfn));
        freed += free_reserved_block(mm, pfn, next) ? next - pfn : mm_free_boot(mm, pfn_make(pfn), pfn_make(next));
    }
    ASSERT_CMP(freed, ==, end - first);
    return freed;
}

/* A block that was seen to be there under its zone's lock is not looked at any more. */
static void pass_zones(struct mm *mm, uint32_t section)
{
    struct zone *last = NULL;

    for (uint32_t b = section * SECTION_BLOCKS; b < (section + 1) * SECTION_BLOCKS; b++) {
        struct zone *z = mm_block_zone(mm, b);

        if (z != last) {
            zone_lock(z);
            zone_unlock(z);
            last = z;
        }
    }
}

uint64_t memmap_leave(struct mm *mm, uint32_t section)
{
    struct section *s = &mm->sections[section];
    struct zone *z = section_zone(mm, section);
    uint64_t freed = MEMMAP_PAGES;

    if (mm->direct == NULL || !atomic_load(&s->present)) {
        return 0;
    }
    for (uint32_t b = 0; b < SECTION_BLOCKS; b++) {
        if (!s->blocks[b].offline) {
            return 0;
        }
    }
    atomic_store(&s->present, false);                                       /* I1 */
    pass_zones(mm, section);
    wait_for_walks(mm);
    if (s->boot_map) {
        freed = free_boot_map(mm, s);
        atomic_store_explicit(&s->map, NULL, memory_order_relaxed);
    } else {
        struct page *unit = mm_page(mm, pfn_make(s->map_pfn));

        atomic_store_explicit(&s->map, NULL, memory_order_relaxed);
        count_pages(mm, page_pfn(unit), -(int64_t)MEMMAP_PAGES);
        page_put(mm, unit);
    }
    zone_count_unlocked(z, ZC_memmap_freed, freed);
    return freed;
}

/* ---- and back ---- */

/* I3: as hotplug.c leaves blocks that are gone; what is no RAM stays a hole. */
static void map_fill(const struct section *s, uint32_t section, struct page *map)
{
    __builtin_memset(map, 0, SECTION_PAGES * sizeof(*map));
    for (uint32_t i = 0; i < SECTION_PAGES; i++) {
        bool given = s->blocks[i / PAGEBLOCK_PAGES].given;
        uint32_t flags = given ? PG_GIVEN : 0;

        map[i].pfn = section * SECTION_PAGES + i;
        if (!given || i % PAGEBLOCK_PAGES == 0) {
            page_set_word(&map[i], PAGE_WORD(PAGE_HOLE, 0, MIGRATE_UNMOVABLE, flags));
        }
    }
}

mm_status_t memmap_return(struct mm *mm, uint32_t section)
{
    struct section *s = &mm->sections[section];
    struct zone *z = section_zone(mm, section);
    struct page *unit, *map;

    ASSERT(mm->direct != NULL && !atomic_load(&s->present));
    unit = alloc_pages_node(mm, z->node, GFP_KERNEL, PAGEBLOCK_ORDER);
    if (unit == NULL) {
        zone_count_unlocked(z, ZC_memmap_refused, 1);
        return MM_ENOMEM;
    }
    map = arch_page_address(page_pfn(unit));
    map_fill(s, section, map);
    s->map_pfn = unit->pfn;
    count_pages(mm, page_pfn(unit), MEMMAP_PAGES);
    zone_count_unlocked(z, ZC_memmap_taken, MEMMAP_PAGES);
    atomic_store_explicit(&s->map, map, memory_order_release);
    atomic_store(&s->present, true);
    return MM_OK;
}
