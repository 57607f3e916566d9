/*
 * zone.c - building nodes, zones and sections; watermarks.
 *
 * Owns: struct mm's tables, zone lists, watermarks.
 * Invariants:
 *   I1  every pageblock of a present section belongs to exactly one zone or is offline;
 *       zones and nodes begin and end at pageblocks.
 *   I2  managed_pages of a zone = pages that mm_free_boot() gave it (less those taken offline).
 *   I3  min <= low <= high.
 * Lock order: zone lock only, in mm_free_boot(); the rest runs before anything else does.
 * Why: sections have a memmap of their own, so that hot-remove can give it back (memmap.c).
 *   Everything starts reserved: what nobody declares free stays out of reach.
 * Cost: one pass over the memmap; 64 bytes a page, 96 bytes, 61 bits and 3 for each CPU a pageblock.
 */
#include "buddy.h"
#include "cpu_blocks.h"
#include "memmap.h"
#include "pageblock.h"
#include "frameshift/assert.h"

static const char *const counter_names[ZONE_COUNTERS] = {
#define X(name) #name,
    ZONE_COUNTER_LIST(X)
#undef X
};

const char *zone_counter_name(enum zone_counter c)
{
    return (unsigned)c < ZONE_COUNTERS ? counter_names[c] : "bad";
}

const char *zone_kind_name(enum zone_kind k)
{
    static const char *const names[ZONE_KINDS] = { "DMA", "Normal", "Movable" };
    return (unsigned)k < ZONE_KINDS ? names[k] : "bad";
}

#define PCP_LARGE_PAGES (1u << 19)                  /* 2 GiB */

struct node_span { uint64_t start, end, pages; };

static uint64_t block_align_down(uint64_t pfn) { return pfn & ~(uint64_t)(PAGEBLOCK_PAGES - 1); }
static uint64_t block_align_up(uint64_t pfn) { return block_align_down(pfn + PAGEBLOCK_PAGES - 1); }

/* Check the ranges; fill the span of each node. */
static mm_status_t config_check(const struct mm_config *c, struct node_span spans[MM_NODES_MAX], uint32_t *nodes)
{
    uint64_t last = 0;

    if (c->ram_count == 0 || c->cpus == 0 || c->cpus > ARCH_CPUS_MAX || c->boot_alloc == NULL
        || c->dma_pages % PAGEBLOCK_PAGES != 0 || c->pcp_high > PCP_CAPACITY || c->pcp_batch > PCP_CAPACITY) {
        return MM_EINVAL;
    }
    *nodes = 0;
    for (size_t i = 0; i < c->ram_count; i++) {
        const struct mm_range *r = &c->ram[i];
        struct node_span *s;

        if (r->start.n >= r->end.n || r->start.n < last || r->end.n > UINT32_MAX || r->node >= MM_NODES_MAX
            || r->node > *nodes || (i > 0 && r->node < c->ram[i - 1].node)) {
            return MM_EINVAL;
        }
        s = &spans[r->node];
        if (r->node == *nodes) {
            *s = (struct node_span){ .start = block_align_down(r->start.n) };
            if (*nodes > 0 && s->start < spans[*nodes - 1].end) {
                return MM_EINVAL;               /* two nodes in one pageblock */
            }
            ++*nodes;
        }
        s->end = block_align_up(r->end.n);
        s->pages += r->end.n - r->start.n;
        last = r->end.n;
    }
    /* The lowest node has what the kernel was loaded into; and somewhere its pages have to be. */
    return c->movable_nodes >> *nodes != 0 || c->movable_nodes & 1u ? MM_EINVAL : MM_OK;
}

static bool node_movable(const struct mm_config *c, uint32_t node) { return (c->movable_nodes >> node & 1u) != 0; }

static void *boot_alloc(const struct mm_config *c, size_t bytes)
{
    return c->boot_alloc(c->boot_ctx, bytes, 64);
}

static mm_status_t sections_init(struct mm *mm, const struct mm_config *c)
{
    mm_status_t status;

    mm->end_pfn = block_align_up(c->ram[c->ram_count - 1].end.n);
    mm->section_count = (uint32_t)((mm->end_pfn + SECTION_PAGES - 1) >> SECTION_SHIFT);
    mm->sections = boot_alloc(c, sizeof(struct section) * mm->section_count);
    if (mm->sections == NULL) {
        return MM_ENOMEM;
    }
    status = memmap_boot(mm, c);
    for (size_t i = 0; i < c->ram_count && status == MM_OK; i++) {
        for (uint64_t pfn = c->ram[i].start.n; pfn < c->ram[i].end.n; pfn++) {
            page_set_word(mm_page(mm, pfn_make(pfn)), PAGE_WORD(PAGE_RESERVED, 0, MIGRATE_UNMOVABLE, 0));
            atomic_store_explicit(&mm_page(mm, pfn_make(pfn))->refs, 1, memory_order_relaxed);
        }
    }
    return status;
}

static void zone_count_present(struct mm *mm, struct zone *z)
{
    for (uint32_t b = z->first_block; b < z->end_block; b++) {
        if (!mm_pfn_valid(mm, block_pfn(b))) {
            continue;
        }
        mm_block(mm, b)->zone = z->id;
        mm_block(mm, b)->offline = 0;
        z->blocks_of[MIGRATE_MOVABLE]++;
        for (uint32_t i = 0; i < PAGEBLOCK_PAGES; i++) {
            z->present_pages += page_state(mm_block_page(mm, b) + i) == PAGE_RESERVED;
        }
    }
}

static mm_status_t zone_init(struct mm *mm, const struct mm_config *c, enum zone_kind kind, uint32_t node,
                             uint64_t start, uint64_t end)
{
    struct zone *z = &mm->zones[mm->zone_count];
    uint32_t blocks;

    if (start >= end) {
        return MM_OK;
    }
    *z = (struct zone){ .mm = mm, .id = (uint8_t)mm->zone_count, .node = (uint8_t)node, .kind = (uint8_t)kind,
                        .first_block = (uint32_t)(start >> PAGEBLOCK_ORDER),
                        .end_block = (uint32_t)(end >> PAGEBLOCK_ORDER) };
    blocks = z->end_block - z->first_block;
    z->position = boot_alloc(c, sizeof(uint32_t) * blocks);
    z->block_at = boot_alloc(c, sizeof(uint32_t) * blocks);
    if (z->position == NULL || z->block_at == NULL) {
        return MM_ENOMEM;
    }
    for (uint32_t i = 0; i < blocks; i++) {
        z->position[i] = i;
        z->block_at[i] = z->first_block + i;
    }
    for (unsigned o = 0; o < FREE_ORDERS; o++) {
        for (unsigned t = 0; t < MIGRATE_TYPES; t++) {
            void *mem = boot_alloc(c, blockmap_bytes(blocks));

            if (mem == NULL) {
                return MM_ENOMEM;
            }
            blockmap_init(&z->area[o][t], blocks, mem);
        }
    }
    z->pcp = boot_alloc(c, sizeof(struct pcp) * c->cpus);
    if (z->pcp == NULL || cpu_blocks_init(z, c, blocks) != MM_OK) {
        return MM_ENOMEM;
    }
    zone_count_present(mm, z);
    mm->zone_count++;
    return MM_OK;
}

/* Split a node into its zones: DMA at the bottom, MOVABLE at the top. total: pages of the nodes that are not movable altogether */
static mm_status_t node_init(struct mm *mm, const struct mm_config *c, uint32_t node, const struct node_span *s, uint64_t total)
{
    uint64_t dma_end = c->dma_pages > s->start ? (c->dma_pages < s->end ? c->dma_pages : s->end) : s->start;
    uint64_t movable_start = s->end;
    mm_status_t status;

    if (node_movable(c, node)) {
        movable_start = dma_end;
    } else if (c->kernelcore_pages != 0 && c->kernelcore_pages < total) {
        uint64_t core = block_align_up(c->kernelcore_pages * s->pages / total);
        movable_start = s->start + core < s->end ? s->start + core : s->end;
        movable_start = movable_start > dma_end ? movable_start : dma_end;
    }
    status = zone_init(mm, c, ZONE_DMA, node, s->start, dma_end);
    if (status == MM_OK) {
        status = zone_init(mm, c, ZONE_NORMAL, node, dma_end, movable_start);
    }
    if (status == MM_OK) {
        status = zone_init(mm, c, ZONE_MOVABLE, node, movable_start, s->end);
    }
    return status;
}

/* Zones that may serve a kind of request from a node: the own node's highest kind first, then the nodes around. */
static void zonelists_init(struct mm *mm)
{
    for (uint32_t node = 0; node < mm->node_count; node++) {
        for (unsigned class = 0; class < ZONE_KINDS; class++) {
            uint8_t *list = mm->zonelist[node][class];
            unsigned n = 0;

            for (uint32_t d = 0; d < mm->node_count; d++) {
                for (unsigned k = class + 1; k-- > 0;) {
                    for (uint32_t z = 0; z < mm->zone_count; z++) {
                        if (mm->zones[z].node == (node + d) % mm->node_count && mm->zones[z].kind == k) {
                            list[n++] = (uint8_t)z;
                        }
                    }
                }
            }
            while (n < MM_ZONES_MAX) {
                list[n++] = 0xff;
            }
        }
    }
}

/* What waits on a CPU cannot merge; where memory is plenty that matters less than the zone lock does. */
static void pcp_sizes(struct mm *mm, uint64_t pages)
{
    bool large = pages >= PCP_LARGE_PAGES;

    mm->pcp_batch = mm->pcp_batch != 0 ? mm->pcp_batch : large ? PCP_CAPACITY / 2 : 16;
    mm->pcp_high = mm->pcp_high != 0 ? mm->pcp_high : large ? PCP_CAPACITY : 48;
}

/* DMA buffers come from the lowest part of memory only, where kernel pages are anyway, so that they never stand in the way of another
 * section. When it is full they are refused, not put elsewhere: a buffer in the wrong place would hold its section for ever. */
static uint64_t core_end(const struct mm_config *c)
{
    uint64_t pages = 0;

    for (size_t i = 0; i < c->ram_count; i++) {
        pages += c->ram[i].end.n - c->ram[i].start.n;
    }
    return block_align_down(c->ram[0].start.n) + block_align_up(pages * c->core_percent / 100);
}

mm_status_t mm_init(struct mm *mm, const struct mm_config *config)
{
    struct mm_config own = *config;
    const struct mm_config *c = &own;
    struct node_span spans[MM_NODES_MAX];
    uint64_t total = 0, all = 0;
    mm_status_t status;

    *mm = (struct mm){ .cpus = c->cpus, .policy = c->policy, .movable_low = c->movable_low, .dma_pages = c->dma_pages,
                       .kernelcore_pages = c->kernelcore_pages, .min_free_pages = c->min_free_pages, .movable_nodes = c->movable_nodes,
                       .pcp_batch = c->pcp_batch, .pcp_high = c->pcp_high };
    status = c->core_percent > 100 || (c->core_percent != 0 && c->dma_pages != 0) ? MM_EINVAL : config_check(c, spans, &mm->node_count);
    if (status != MM_OK) {
        return status;
    }
    if (c->core_percent != 0) {
        mm->dma_pages = own.dma_pages = core_end(c);
    }
    status = sections_init(mm, c);
    if (status != MM_OK) {
        return status;
    }
    mm->zones = boot_alloc(c, sizeof(struct zone) * mm->node_count * ZONE_KINDS);
    mm->rings = boot_alloc(c, sizeof(struct free_ring) * c->cpus);
    if (mm->zones == NULL || mm->rings == NULL) {
        return MM_ENOMEM;
    }
    for (uint32_t n = 0; n < mm->node_count; n++) {
        total += node_movable(c, n) ? 0 : spans[n].pages;
        all += spans[n].pages;
    }
    pcp_sizes(mm, all);
    for (uint32_t n = 0; n < mm->node_count; n++) {
        status = node_init(mm, c, n, &spans[n], total);
        if (status != MM_OK) {
            return status;
        }
    }
    for (unsigned cpu = 0; cpu < c->cpus; cpu++) {
        mm->cpu_node[cpu] = (uint8_t)(cpu * mm->node_count / c->cpus);
    }
    for (uint32_t b = 0; b < mm->end_pfn >> PAGEBLOCK_ORDER; b++) {
        if (mm_pfn_valid(mm, block_pfn(b))) {
            pageblock_count_reserved(mm, b);
        }
    }
    zonelists_init(mm);
    return MM_OK;
}

uint64_t mm_free_boot(struct mm *mm, pfn_t start, pfn_t end)
{
    uint64_t freed = 0;

    for (uint64_t pfn = start.n; pfn < end.n && pfn < mm->end_pfn; pfn++) {
        struct page *p = mm_pfn_valid(mm, pfn_make(pfn)) ? mm_page(mm, pfn_make(pfn)) : NULL;
        struct zone *z;

        if (p == NULL || page_state(p) != PAGE_RESERVED) {
            continue;
        }
        z = mm_block_zone(mm, page_block(p));
        zone_lock(z);
        z->managed_pages++;
        mm_block(mm, page_block(p))->reserved_pages--;
        atomic_store_explicit(&p->refs, 0, memory_order_relaxed);
        buddy_free(mm, z, p, 0);
        zone_unlock(z);
        freed++;
    }
    mm_setup_watermarks(mm);
    return freed;
}

static bool holds_boot_memory(const struct mm *mm, uint32_t block)
{
    return mm_pfn_valid(mm, block_pfn(block)) && !mm_block(mm, block)->offline && mm_block(mm, block)->reserved_pages != 0;
}

/* Take a block's bits out of the free areas, or put them back under its new position. */
static void area_bits(struct mm *mm, struct zone *z, uint32_t block, bool set)
{
    for (unsigned o = 0; o < FREE_ORDERS; o++) {
        if (mm_block(mm, block)->order_mask & (1u << o)) {
            struct blockmap *m = &z->area[o][pageblock_type(mm, block)];

            if (set) {
                blockmap_set(m, block_position(z, block));
            } else {
                blockmap_clear(m, block_position(z, block));
            }
        }
    }
}

static void zone_boot_done(struct mm *mm, struct zone *z)
{
    uint32_t next = 0;

    for (uint32_t b = z->first_block; b < z->end_block; b++) {
        if (mm_pfn_valid(mm, block_pfn(b))) {
            area_bits(mm, z, b, false);
        }
    }
    z->boot_blocks = 0;
    for (unsigned boot = 2; boot-- > 0;) {
        for (uint32_t b = z->first_block; b < z->end_block; b++) {
            if (holds_boot_memory(mm, b) == boot) {
                z->position[b - z->first_block] = next;
                z->block_at[next++] = b;
                z->boot_blocks += boot;
            }
        }
    }
    for (uint32_t b = z->first_block; b < z->end_block; b++) {
        if (!mm_pfn_valid(mm, block_pfn(b))) {
            continue;
        }
        area_bits(mm, z, b, true);
        if (holds_boot_memory(mm, b) && pageblock_type(mm, b) == MIGRATE_MOVABLE) {
            pageblock_set_type(mm, z, b, MIGRATE_UNMOVABLE);
        }
    }
}

void mm_boot_done(struct mm *mm)
{
    memmap_boot_done(mm);
    for (uint32_t i = 0; i < mm->zone_count; i++) {
        struct zone *z = &mm->zones[i];

        zone_lock(z);
        if (z->kind != ZONE_MOVABLE) {
            zone_boot_done(mm, z);
        }
        zone_unlock(z);
    }
}

static uint64_t square_root(uint64_t n)
{
    uint64_t r = 0;

    for (uint64_t bit = 1ull << 31; bit != 0; bit >>= 1) {
        if ((r + bit) * (r + bit) <= n) {
            r += bit;
        }
    }
    return r;
}

void mm_setup_watermarks(struct mm *mm)
{
    uint64_t managed = 0, min;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        managed += mm->zones[i].managed_pages;
    }
    /* Grows with the square root of memory: 4 MiB at 1 GiB, as the rule of the field has it. */
    min = mm->min_free_pages != 0 ? mm->min_free_pages : square_root(managed * 4 * 16) / 4;
    for (uint32_t i = 0; i < mm->zone_count; i++) {
        struct zone *z = &mm->zones[i];
        uint64_t share = managed != 0 ? min * z->managed_pages / managed : 0;

        z->watermark[WMARK_MIN] = share;
        z->watermark[WMARK_LOW] = share + share / 4;
        z->watermark[WMARK_HIGH] = share + share / 2;
        for (unsigned class = 0; class < ZONE_KINDS; class++) {
            uint64_t above = 0;                 /* what requests of this class could have used instead */

            for (uint32_t k = 0; k < mm->zone_count; k++) {
                const struct zone *h = &mm->zones[k];
                above += h->node == z->node && h->kind > z->kind && h->kind <= class ? h->managed_pages : 0;
            }
            z->reserve[class] = above / (z->kind == ZONE_DMA ? 256 : 32);
        }
    }
}

bool zone_watermark_ok_pages(const struct zone *z, uint64_t free, uint64_t pages, enum watermark mark, enum zone_kind class, gfp_t gfp)
{
    uint64_t need = z->watermark[mark];

    if (gfp & __GFP_MEMALLOC) {
        return true;
    }
    if (mark == WMARK_MIN && gfp & __GFP_HIGH) {
        need -= need / 2;
    }
    if (mark == WMARK_MIN && gfp & __GFP_ATOMIC) {
        need -= need / 4;
    }
    if (!(gfp & (__GFP_HIGH | __GFP_ATOMIC))) {
        uint64_t atomic_only = z->blocks_of[MIGRATE_HIGHATOMIC] << PAGEBLOCK_ORDER;
        free -= atomic_only < free ? atomic_only : free;
    }
    return free >= need + z->reserve[class] + pages;
}

bool zone_watermark_ok(const struct zone *z, unsigned order, uint32_t units, enum watermark mark, enum zone_kind class, gfp_t gfp)
{
    return zone_watermark_ok_pages(z, zone_free_pages(z), (uint64_t)units << order, mark, class, gfp);
}

uint64_t mm_counter(const struct mm *mm, enum zone_counter c)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        sum += zone_counter(&mm->zones[i], c);
    }
    return sum;
}

nodemask_t mm_nodes(const struct mm *mm)
{
    nodemask_t nodes = 0;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        nodes |= mm->zones[i].managed_pages != 0 ? 1u << mm->zones[i].node : 0;
    }
    return nodes;
}

uint64_t mm_free_pages(const struct mm *mm)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        sum += zone_free_pages(&mm->zones[i]);
    }
    return sum;
}
