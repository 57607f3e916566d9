/*
 * cpu_blocks.c - pageblocks that a CPU changes under a lock of its own.
 *
 * Layer: L1
 * Owns: struct cpu_blocks, zone.owned, zone.held.
 * Invariants:
 *   I1  a block is in own of at most one CPU; zone.owned is the union. Both change under the zone's lock and that CPU's.
 *   I2  an own block is of movable type and online, and nobody but its CPU has changed it since it is: who changes it with the zone locked
 *       takes it away (pageblock_changes()).
 *   I3  avail: own blocks with free pages, among them all that are not free as a whole. dirty: own blocks whose bits in the zone's areas may
 *       not be true; units, order_mask, free_pages and the map of a block always are.
 *   I4  a count of the zone is true if what its CPUs have not settled is added. A CPU without own blocks has nothing to settle.
 *   I5  who has zone_lock() holds the lock of every CPU with own blocks, after it has settled them: nothing is hidden from it.
 * Lock order: ring lock, per-CPU list lock, zone lock, then struct cpu_blocks.lock by CPU; with one of these the zone's is only tried for.
 * Why: a line that two CPUs change costs a batch of 15 pages more than 5 % of its time, so what a batch changes must be the CPU's alone: the
 *   map, the blocks and the counts. A CPU gets blocks only after it has met others at the zone's lock, so one CPU alone, or many that allocate
 *   little, place pages as without, by the rule of buddy.c. It fills the blocks that it has before it gets others: one is partly used by each
 *   CPU, and where whole blocks are few it gets no more of them.
 * Cost: a batch: one lock that nobody else takes. The zone's lock once in two blocks of allocations, and once in zone.settle_pages.
 *   zone_lock(): a lock for each CPU with own blocks.
 */
#include "cpu_blocks.h"
#include "buddy.h"
#include "pageblock.h"
#include "frameshift/assert.h"

#define CONTENDED_STEP   8u                 /* a wait at the zone's lock; every time without one takes one off ... */
#define CONTENDED_LIMIT  32u                /* ... and so much of it wants own blocks: more than one wait in nine */
#define IDLE_LIMIT       64u                /* so often was the zone locked with nothing done in own blocks: they are given up */
#define SETTLE_LEAST     256u               /* so many more or less free pages are settled if the zone's lock is free, twice that anyway: */
#define SETTLE_MOST      4096u
#define SETTLE_SHARE     128u               /* ... of all CPUs together this part of the zone */
#define LOOK_BLOCKS      64u
#define PLENTY_SHARE     64u                /* of the zone's blocks: if so many are whole, a CPU gets some */
#define PLENTY_BLOCKS    8u                 /* and so many for each CPU */

mm_status_t cpu_blocks_init(struct zone *z, const struct mm_config *c, uint32_t blocks)
{
    void *mem = c->boot_alloc(c->boot_ctx, blockmap_bytes(blocks), 64);

    uint32_t share = blocks * PAGEBLOCK_PAGES / SETTLE_SHARE / c->cpus;

    z->cpus = c->cpus;
    z->settle_pages = share < SETTLE_LEAST ? SETTLE_LEAST : share > SETTLE_MOST ? SETTLE_MOST : share;
    z->cpu_blocks = c->boot_alloc(c->boot_ctx, sizeof(struct cpu_blocks) * c->cpus, 64);
    if (mem == NULL || z->cpu_blocks == NULL) {
        return MM_ENOMEM;
    }
    blockmap_init(&z->owned, blocks, mem);
    for (unsigned cpu = 0; cpu < c->cpus; cpu++) {
        struct blockmap *maps[3] = { &z->cpu_blocks[cpu].own, &z->cpu_blocks[cpu].avail, &z->cpu_blocks[cpu].dirty };

        for (unsigned i = 0; i < FS_ARRAY_SIZE(maps); i++) {
            mem = c->boot_alloc(c->boot_ctx, blockmap_bytes(blocks), 64);
            if (mem == NULL) {
                return MM_ENOMEM;
            }
            blockmap_init(maps[i], blocks, mem);
        }
    }
    return MM_OK;
}

static int64_t unsettled(const struct cpu_blocks *c) { return atomic_load_explicit(&c->free_pages, memory_order_relaxed); }

static void count_free(struct cpu_blocks *c, int32_t pages)
{
    atomic_store_explicit(&c->free_pages, unsettled(c) + pages, memory_order_relaxed);
}

uint64_t cpu_blocks_free_pages(const struct zone *z)
{
    int64_t sum = 0;

    for (unsigned cpu = 0; cpu < z->cpus; cpu++) {
        sum += unsettled(&z->cpu_blocks[cpu]);
    }
    return (uint64_t)sum;
}

uint64_t cpu_blocks_counter(const struct zone *z, enum zone_counter counter)
{
    uint64_t sum = 0;

    for (unsigned cpu = 0; cpu < z->cpus; cpu++) {
        sum += atomic_load_explicit(&z->cpu_blocks[cpu].counters[counter], memory_order_relaxed);
    }
    return sum;
}

/* pre: c's lock */
static void count(struct cpu_blocks *c, enum zone_counter counter, uint64_t n)
{
    uint64_t was = atomic_load_explicit(&c->counters[counter], memory_order_relaxed);

    atomic_store_explicit(&c->counters[counter], was + n, memory_order_relaxed);
}

static void owned_changed(struct zone *z)
{
    atomic_store_explicit(&z->owned_blocks, z->owned.count, memory_order_relaxed);
}

/* pre, as of all with z and c: both locks */
static void own(struct zone *z, struct cpu_blocks *c, uint32_t position)
{
    blockmap_set(&z->owned, position);
    blockmap_set(&c->own, position);
    blockmap_set(&c->avail, position);
    owned_changed(z);
}

static void disown(struct zone *z, struct cpu_blocks *c, uint32_t position)
{
    blockmap_clear(&z->owned, position);
    blockmap_clear(&c->own, position);
    blockmap_clear(&c->avail, position);
    blockmap_clear(&c->dirty, position);
    owned_changed(z);
}

void cpu_blocks_disown(struct zone *z, uint32_t block)
{
    uint32_t position = block_position(z, block);

    if (!blockmap_test(&z->owned, position)) {
        return;
    }
    for (unsigned cpu = 0; cpu < z->cpus; cpu++) {
        if (blockmap_test(&z->cpu_blocks[cpu].own, position)) {
            ASSERT_CMP(z->held >> cpu & 1, ==, 1);                      /* I5 */
            ASSERT(!blockmap_test(&z->cpu_blocks[cpu].dirty, position));
            disown(z, &z->cpu_blocks[cpu], position);
        }
    }
}

/* The bits of a block of movable type in the zone's areas follow its mask. */
static void settle_block(struct zone *z, uint32_t position, uint32_t mask)
{
    for (unsigned o = 0; o < FREE_ORDERS; o++) {
        if (mask & (1u << o)) {
            blockmap_set(&z->area[o][MIGRATE_MOVABLE], position);
        } else {
            blockmap_clear(&z->area[o][MIGRATE_MOVABLE], position);
        }
    }
}

/* The zone's counts and areas become true (I4), and a block that is free as a whole is nobody's. */
static void settle(struct zone *z, struct cpu_blocks *c)
{
    uint32_t at = blockmap_first(&c->dirty, 0);

    for (; at != BLOCKMAP_NONE; at = blockmap_first(&c->dirty, at + 1)) {
        const struct pageblock *pb = mm_block(z->mm, position_block(z, at));

        settle_block(z, at, pb->order_mask);
        blockmap_clear(&c->dirty, at);
        if (pb->free_pages == PAGEBLOCK_PAGES) {
            disown(z, c, at);
        }
    }
    for (unsigned o = 0; o < FREE_ORDERS; o++) {
        z->free_units[o][MIGRATE_MOVABLE] += c->free_units[o][MIGRATE_MOVABLE];
        c->free_units[o][MIGRATE_MOVABLE] = 0;
    }
    zone_count_free(z, MIGRATE_MOVABLE, unsettled(c));
    atomic_store_explicit(&c->free_pages, 0, memory_order_relaxed);
    for (unsigned i = 0; i < CPU_BLOCKS_COUNTERS; i++) {
        zone_count(z, (enum zone_counter)i, atomic_load_explicit(&c->counters[i], memory_order_relaxed));
        atomic_store_explicit(&c->counters[i], 0, memory_order_relaxed);
    }
}

/* Blocks that are no use to their CPU cost everybody who locks the zone. pre: settled */
static void give_up(struct zone *z, struct cpu_blocks *c)
{
    uint32_t at = blockmap_first(&c->own, 0);

    for (; at != BLOCKMAP_NONE; at = blockmap_first(&c->own, at + 1)) {
        disown(z, c, at);
    }
    atomic_store_explicit(&c->wanted, false, memory_order_relaxed);
    atomic_store_explicit(&c->contended, 0, memory_order_relaxed);
    c->idle = 0;
}

void cpu_blocks_hold(struct zone *z)
{
    for (unsigned cpu = 0; cpu < z->cpus; cpu++) {
        struct cpu_blocks *c = &z->cpu_blocks[cpu];

        if (c->own.count == 0) {
            continue;
        }
        spin_lock(&c->lock);
        z->held |= 1ull << cpu;
        settle(z, c);
        c->idle = c->used ? 0 : c->idle + 1;
        c->used = false;
        if (c->idle > IDLE_LIMIT) {
            give_up(z, c);
        }
    }
}

void cpu_blocks_let_go(struct zone *z)
{
    for (unsigned cpu = 0; cpu < z->cpus; cpu++) {
        if (z->held >> cpu & 1) {
            spin_unlock(&z->cpu_blocks[cpu].lock);
        }
    }
    z->held = 0;
}

FS_NOINLINE void cpu_blocks_met(struct zone *z, struct cpu_blocks *c)
{
    uint8_t contended = atomic_load_explicit(&c->contended, memory_order_relaxed);

    if (contended < CONTENDED_LIMIT) {
        contended = (uint8_t)(contended + CONTENDED_STEP);
        atomic_store_explicit(&c->contended, contended, memory_order_relaxed);
    }
    if (contended >= CONTENDED_LIMIT) {
        atomic_store_explicit(&c->wanted, true, memory_order_relaxed);
    }
    spin_lock(&z->lock);
}

/* c's lock is held, and let go. */
static void end_batch(struct zone *z, struct cpu_blocks *c)
{
    int64_t n = unsettled(c) < 0 ? -unsettled(c) : unsettled(c);
    bool must = n >= 2 * (int64_t)z->settle_pages;

    if (fs_unlikely(n >= z->settle_pages) && spin_trylock(&z->lock)) {
        settle(z, c);
        spin_unlock(&z->lock);
        must = false;
    }
    spin_unlock(&c->lock);
    if (fs_unlikely(must)) {
        spin_lock(&z->lock);
        spin_lock(&c->lock);
        settle(z, c);
        spin_unlock(&c->lock);
        spin_unlock(&z->lock);
    }
}

static uint32_t next_position(const struct blockmap *m, uint32_t at, bool low)
{
    if (at == BLOCKMAP_NONE) {
        return low ? blockmap_first(m, 0) : blockmap_last(m, UINT32_MAX);
    }
    return low ? blockmap_first(m, at + 1) : at > 0 ? blockmap_last(m, at - 1) : BLOCKMAP_NONE;
}

/* The first block of an area in the order of preference that is nobody's. */
static uint32_t first_unowned(const struct zone *z, const struct blockmap *area, bool low)
{
    uint32_t at = next_position(area, BLOCKMAP_NONE, low);

    for (unsigned looked = 0; at != BLOCKMAP_NONE && looked < LOOK_BLOCKS; looked++, at = next_position(area, at, low)) {
        if (!blockmap_test(&z->owned, at)) {
            return at;
        }
    }
    return BLOCKMAP_NONE;
}

static bool whole_plenty(const struct zone *z)
{
    uint32_t share = (z->end_block - z->first_block) / PLENTY_SHARE, least = PLENTY_BLOCKS * z->cpus;

    return z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE].count >= (share > least ? share : least);
}

/* Another block with a unit of order for c: one that is begun, by the rule of buddy.c; else, where they are plenty, two neighbours that are
 * whole, whose struct pageblock share a line. False: there is none. */
static bool another(const struct mm *mm, struct zone *z, struct cpu_blocks *c, unsigned order)
{
    uint32_t best = BLOCKMAP_NONE, other;
    bool low = mm->movable_low;

    for (unsigned o = order; o < PAGEBLOCK_ORDER; o++) {
        uint32_t at = first_unowned(z, &z->area[o][MIGRATE_MOVABLE], low);

        if (at != BLOCKMAP_NONE && (best == BLOCKMAP_NONE || (low ? at < best : at > best))) {
            best = at;
        }
    }
    if (best != BLOCKMAP_NONE) {
        own(z, c, best);
        return true;
    }
    best = whole_plenty(z) ? first_unowned(z, &z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE], low) : BLOCKMAP_NONE;
    if (best == BLOCKMAP_NONE) {
        return false;
    }
    own(z, c, best);
    other = position_block(z, best) ^ 1u;
    if (other >= z->first_block && other < z->end_block) {
        other = block_position(z, other);
        if (blockmap_test(&z->area[PAGEBLOCK_ORDER][MIGRATE_MOVABLE], other) && !blockmap_test(&z->owned, other)) {
            own(z, c, other);
        }
    }
    return true;
}

/* pre: c's lock */
static uint32_t alloc_own(struct mm *mm, struct zone *z, struct cpu_blocks *c, unsigned order, uint32_t n, struct page **out)
{
    uint32_t at = next_position(&c->avail, BLOCKMAP_NONE, mm->movable_low), got = 0;

    for (unsigned looked = 0; at != BLOCKMAP_NONE && got < n && looked < LOOK_BLOCKS; looked++, at = next_position(&c->avail, at, mm->movable_low)) {
        got += buddy_alloc_own(mm, z, c, position_block(z, at), order, n - got, n, out + got);
    }
    return got;
}

/* By what is settled, if that will do whatever CPUs have taken since; else by the sum, of which only their batches may be missing. */
static bool above_mark(const struct zone *z, uint64_t pages, enum watermark mark, enum zone_kind class, gfp_t gfp)
{
    uint64_t hidden = (uint64_t)z->cpus * 2 * z->settle_pages, batches = (uint64_t)z->cpus * PCP_CAPACITY;

    return zone_watermark_ok_pages(z, zone_settled_pages(z), pages + hidden, mark, class, gfp)
           || zone_watermark_ok_pages(z, zone_free_pages(z), pages + batches, mark, class, gfp);
}

uint32_t cpu_blocks_alloc(struct mm *mm, struct zone *z, struct cpu_blocks *c, unsigned order, uint32_t n, enum watermark mark,
                          enum zone_kind class, gfp_t gfp, struct page **out, bool *wake)
{
    uint32_t got;

    if (!above_mark(z, (uint64_t)n << order, mark, class, gfp)) {
        return 0;
    }
    spin_lock(&c->lock);
    got = alloc_own(mm, z, c, order, n, out);
    if (fs_unlikely(got == 0)) {
        spin_unlock(&c->lock);
        zone_lock_outside(z, c);
        spin_lock(&c->lock);
        if (another(mm, z, c, order)) {
            got = alloc_own(mm, z, c, order, n, out);
        }
        *wake = zone_wants_spare(z, mm->claim_window) || zone_wants_home(z) != MIGRATE_TYPES;
        spin_unlock(&z->lock);
    }
    if (got != 0) {
        c->used = true;
        count(c, ZC_alloc, got);
        count(c, ZC_pcp_refill, 1);
    }
    end_batch(z, c);
    return got;
}

uint32_t cpu_blocks_free(struct mm *mm, struct zone *z, struct cpu_blocks *c, struct page **pages, uint32_t n)
{
    struct free_sum sum = { .pages = 0 };
    uint32_t left = 0;

    spin_lock(&c->lock);
    for (uint32_t i = 0; i < n;) {
        uint32_t block = page_block(pages[i]);

        if (blockmap_test(&c->own, block_position(z, block))) {
            i += buddy_free_own(mm, z, c, block, pages + i, n - i, &sum);
        } else {
            pages[left++] = pages[i++];
        }
    }
    count_free(c, (int32_t)sum.pages);
    free_sum_units(c->free_units, MIGRATE_MOVABLE, &sum);
    if (left < n) {
        c->used = true;
        count(c, ZC_free, n - left);
        count(c, ZC_pcp_flush, left == 0);
    }
    end_batch(z, c);
    return left;
}

void cpu_blocks_adopt(struct mm *mm, struct zone *z, struct cpu_blocks *c, struct page *const *pages, uint32_t n)
{
    spin_lock(&c->lock);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t block = page_block(pages[i]), free = mm_block(mm, block)->free_pages, position = block_position(z, block);

        if (!blockmap_test(&z->owned, position) && pageblock_type(mm, block) == MIGRATE_MOVABLE && free > 0 && free < PAGEBLOCK_PAGES) {
            own(z, c, position);
        }
    }
    spin_unlock(&c->lock);
}

void cpu_blocks_edit_end(struct cpu_blocks *c, struct pageblock *pb, uint32_t position, uint32_t mask, int32_t pages)
{
    if (mask != pb->order_mask) {
        pb->order_mask = (uint16_t)mask;
        blockmap_set(&c->dirty, position);
    }
    pb->free_pages = (uint16_t)(pb->free_pages + pages);
    count_free(c, pages);
    if (pb->free_pages > 0 && pb->free_pages < PAGEBLOCK_PAGES) {
        blockmap_set(&c->avail, position);
    } else {
        blockmap_clear(&c->avail, position);
    }
}
