/*
 * compaction.c - making whole free pageblocks by migration.
 *
 * Owns: the two scanners, zone.rank, zone.skip.
 * Invariants:
 *   I1  a block is emptied only if what it holds fits into the other holes: no page is moved in vain
 *       unless somebody allocates meanwhile or a page does not move.
 *   I2  a page is moved at most once a run where every move succeeds: no block is a target that will be emptied.
 *   I3  a block that is being emptied is isolated, so nothing moves into it.
 *   I4  a captured unit never was on a list that anybody else allocates from.
 * Lock order: compact_lock (only tried for), then per-CPU list lock, then zone lock; none of the last two while the mover runs.
 * Why: blocks are ranked once, emptiest first.  From the free counts follows how many of them can become whole (k); the first k
 *   are emptied, all others are targets, the fullest first.  Any k blocks hold at least the used pages of the k emptiest, so this is
 *   the least number of moves.  The classic order by frame number is kept for comparison.
 *   Holes beside kernel pages are targets only when the movable ones are full (enum compact_targets).
 * Cost: ranking is a counting sort over the blocks' free counts; then one pass over the heads of each block that is emptied
 *   and one move a unit.
 */
#include "compaction_priv.h"
#include "buddy.h"
#include "fragmentation.h"
#include "isolation.h"
#include "page_alloc.h"
#include "pageblock.h"
#include "pcp.h"
#include "frameshift/assert.h"

#define SYNC_TRIES      3u
#define ASYNC_PAGES     1024u                   /* an asynchronous run begins no further block after so many pages ... */
#define ASYNC_BLOCKS    64u                     /* ... or after it has looked at so many blocks */
#define CLAIM_WINDOW    16u                     /* a request in a hurry finds a whole block this near */
#define SKIP_NONE       UINT16_MAX

struct control {
    struct mm *mm;
    struct zone *z;
    struct compact_request request;
    struct compact_result *out;
    uint32_t ranked, partial;                   /* entries of z->rank; those that are targets too (the others are full) */
    uint32_t sources;                           /* the first so many of them are to be emptied */
    uint32_t aside;                             /* entries at the front that were passed by and are targets now */
    uint32_t migrate_at, free_at;               /* scanners: [0, ranked), from the front and from the back (one past) */
    uint32_t kernel_block;                      /* the kernel block that is being filled, or BLOCK_NONE */
    uint64_t room;                              /* free pages in possible targets */
};

/* ---- moving one unit ---- */

/* The zone's lock; false: an asynchronous run does not wait for it. */
static bool lock_zone(struct zone *z, enum compact_mode mode, struct compact_result *out)
{
    if (mode == COMPACT_ASYNC) {
        if (!zone_trylock(z)) {
            out->stopped = true;
            return false;
        }
        return true;
    }
    zone_lock(z);
    return true;
}

static mm_status_t try_move(struct mm *mm, struct page *from, struct page *to, enum compact_mode mode)
{
    mm_status_t status = MM_EAGAIN;

    for (unsigned tries = 0; status == MM_EAGAIN && tries < (mode == COMPACT_ASYNC ? 1u : SYNC_TRIES); tries++) {
        status = mm->migrate.move(mm->migrate.ctx, from, to);
    }
    if (status == MM_EAGAIN && mode == COMPACT_SYNC && mm->migrate.move_wait != NULL) {
        status = mm->migrate.move_wait(mm->migrate.ctx, from, to);
    }
    return status;
}

static mm_status_t migrate_unit(struct mm *mm, struct zone *z, struct page *from, const struct empty_how *how, struct compact_result *out)
{
    mm_status_t status = MM_EAGAIN;
    unsigned order;
    struct page *to = NULL;
    bool looked;

    if (!page_try_get(from)) {
        return MM_OK;                           /* it was freed meanwhile */
    }
    order = page_order(from);
    looked = lock_zone(z, how->mode, out);
    if (looked) {
        to = page_may_move(from) ? how->target(how->ctx, z, order) : NULL;
        if (to != NULL) {
            page_set_word(to, PAGE_WORD(PAGE_USED, order, MIGRATE_MOVABLE, word_flags(page_word(from)) & PG_COMP));
            to->mapping = NULL;
            atomic_store_explicit(&to->refs, 1, memory_order_release);
        }
        zone_unlock(z);
    }
    if (looked && to == NULL && order == PAGEBLOCK_ORDER && mm->migrate.split != NULL && mm->migrate.split(mm->migrate.ctx, from) == MM_OK) {
        page_put(mm, from);
        return MM_OK;                           /* the caller looks at its parts */
    }
    if (to != NULL) {
        status = try_move(mm, from, to, how->mode);
        if (status != MM_OK) {
            page_put(mm, to);
        }
    }
    if (status == MM_OK) {
        out->migrated_pages += 1ull << order;
        zone_count_unlocked(z, ZC_pgmigrate_success, 1ull << order);
    } else {
        out->failed_pages += 1ull << order;
        zone_count_unlocked(z, ZC_pgmigrate_fail, 1ull << order);
    }
    page_put(mm, from);
    return status;
}

/* pre: the block is isolated, so nobody else takes what is free in it */
static bool has_unit(struct mm *mm, struct zone *z, uint32_t block, unsigned order)
{
    bool has;

    zone_lock(z);
    has = mm_block(mm, block)->order_mask >> order != 0;
    zone_unlock(z);
    return has;
}

mm_status_t empty_block(struct mm *mm, struct zone *z, uint32_t block, const struct empty_how *how, struct compact_result *out)
{
    struct page *first = mm_block_page(mm, block);
    mm_status_t worst = MM_OK;
    uint32_t i = 0;

    while (i < PAGEBLOCK_PAGES) {
        uint32_t w = page_word(first + i);
        uint32_t pages = word_state(w) == PAGE_NONE ? 1 : 1u << word_order(w);

        if (word_state(w) == PAGE_USED && page_may_move(first + i)) {
            mm_status_t status = migrate_unit(mm, z, first + i, how, out);

            worst = status != MM_OK ? status : worst;
            if ((status != MM_OK && how->stop) || out->stopped || (how->until_order < PAGEBLOCK_ORDER && has_unit(mm, z, block, how->until_order))) {
                break;
            }
            if (pages == PAGEBLOCK_PAGES && page_state(first + i) == PAGE_USED && page_order(first + i) == 0) {
                continue;                       /* it was split */
            }
        }
        i += pages;
    }
    out->migrate_scanned += i < PAGEBLOCK_PAGES ? i + 1 : PAGEBLOCK_PAGES;
    return worst;
}

bool block_whole(struct mm *mm, struct zone *z, uint32_t block)
{
    bool whole;

    zone_lock(z);
    whole = mm_block(mm, block)->free_pages == PAGEBLOCK_PAGES;
    zone_unlock(z);
    return whole;
}

struct page *movable_target(void *ctx, struct zone *z, unsigned order)
{
    return buddy_alloc(ctx, z, order, MIGRATE_MOVABLE);
}

/* ---- hints ---- */

bool compact_hint_valid(const struct mm *mm, struct zone *z, uint32_t block)
{
    uint16_t *hint = &z->skip[block - z->first_block], free = mm_block(mm, block)->free_pages;

    if (*hint == SKIP_NONE) {
        return false;
    }
    *hint = free > *hint ? SKIP_NONE : free;    /* fewer: it was filled meanwhile, and counts from here */
    return *hint != SKIP_NONE;
}

void compact_hints_reset(struct zone *z)
{
    for (uint32_t i = 0; i < z->end_block - z->first_block; i++) {
        z->skip[i] = SKIP_NONE;
    }
    z->skip_stale = false;
}

/* pre: zone lock held */
static void hint_set(struct control *c, uint32_t block)
{
    c->z->skip[block - c->z->first_block] = mm_block(c->mm, block)->free_pages;
}

/* ---- ranking ---- */

static bool rankable(const struct mm *mm, uint32_t block)
{
    const struct pageblock *pb;

    if (!mm_pfn_valid(mm, block_pfn(block)) || mm_block(mm, block)->offline) {
        return false;
    }
    pb = mm_block(mm, block);
    return pageblock_type(mm, block) == MIGRATE_MOVABLE && pb->free_pages > 0 && pb->free_pages < PAGEBLOCK_PAGES;
}

/* Free pages in kernel blocks that may take movable pages. pre: zone lock held */
static uint64_t kernel_room(const struct mm *mm, const struct zone *z, enum compact_targets targets)
{
    uint32_t end = targets == TARGET_ANY ? z->end_block - z->first_block : targets == TARGET_BOOT ? z->boot_blocks : 0;
    uint64_t room = 0;

    for (uint32_t i = 0; i < end; i++) {
        uint32_t b = position_block(z, i);

        if (mm_pfn_valid(mm, block_pfn(b)) && migratetype_is_kernel(pageblock_type(mm, b))) {
            room += mm_block(mm, b)->free_pages;
        }
    }
    return room;
}

/* It is one unit, or half of one: to empty it takes a whole block, so nothing is gained. pre: zone lock held */
static bool one_unit(const struct mm *mm, uint32_t block)
{
    const struct page *first = mm_block_page(mm, block);

    return page_state(first) == PAGE_NONE || (state_in_use(page_state(first)) && page_order(first) >= PAGEBLOCK_ORDER);
}

/* The place of a block in the ranking by fullness; full blocks are worth emptying only into kernel blocks. */
static bool rank_key(const struct control *c, uint32_t block, uint32_t *key)
{
    bool partial = rankable(c->mm, block);
    bool full = c->request.targets != TARGET_MOVABLE && mm_pfn_valid(c->mm, block_pfn(block)) && !mm_block(c->mm, block)->offline
                && pageblock_type(c->mm, block) == MIGRATE_MOVABLE && mm_block(c->mm, block)->free_pages == 0 && !one_unit(c->mm, block);

    *key = full ? PAGEBLOCK_PAGES : c->request.order == COMPACT_BY_PFN ? 0 : PAGEBLOCK_PAGES - mm_block(c->mm, block)->free_pages;
    return partial || full;
}

/* How many of the first blocks can become whole: what they hold must fit into the rest. pre: zone lock held */
static void plan(struct control *c)
{
    uint64_t used = 0, left = c->room;

    for (uint32_t i = 0; i < c->ranked && c->sources < c->request.blocks_wanted; i++) {
        uint64_t free = mm_block(c->mm, c->z->rank[i])->free_pages;

        used += PAGEBLOCK_PAGES - free;
        if (used > left - free) {
            break;
        }
        left -= free;
        c->sources = i + 1;
    }
}

/* Fill z->rank by a counting sort: what is emptied first comes first. False: the zone is busy. */
static bool rank_blocks(struct control *c)
{
    struct zone *z = c->z;
    uint32_t start[PAGEBLOCK_PAGES + 2] = { 0 }, key;

    if (!lock_zone(z, c->request.mode, c->out)) {
        return false;
    }
    if (c->request.ignore_hints) {
        compact_hints_reset(z);
    }
    c->room = kernel_room(c->mm, z, c->request.targets);
    for (uint32_t b = z->first_block; b < z->end_block; b++) {
        if (mm_pfn_valid(c->mm, block_pfn(b)) && rank_key(c, b, &key)) {
            start[key + 1]++;
            c->room += mm_block(c->mm, b)->free_pages;
            c->ranked++;
            c->partial += key != PAGEBLOCK_PAGES;
        }
    }
    for (uint32_t u = 1; u <= PAGEBLOCK_PAGES; u++) {
        start[u] += start[u - 1];
    }
    for (uint32_t b = z->first_block; b < z->end_block; b++) {
        if (mm_pfn_valid(c->mm, block_pfn(b)) && rank_key(c, b, &key)) {
            z->rank[start[key]++] = b;
        }
    }
    if (c->request.order == COMPACT_SPARSE_FIRST) {
        plan(c);
    }
    zone_unlock(z);
    c->free_at = c->partial;
    return true;
}

/* ---- the free scanner ---- */

/* The kernel block to fill: where boot memory keeps it from ever being whole, or tenants live already, before any other; of those the
 * one with the most holes, so that few blocks get tenants. */
static uint32_t best_kernel_block(const struct control *c, unsigned order)
{
    const struct zone *z = c->z;
    uint32_t end = c->request.targets == TARGET_ANY ? z->end_block - z->first_block : z->boot_blocks;
    uint32_t best = BLOCK_NONE, most = 0;

    for (uint32_t i = 0; i < end; i++) {
        uint32_t b = position_block(z, i), worth;

        if (!mm_pfn_valid(c->mm, block_pfn(b)) || !migratetype_is_kernel(pageblock_type(c->mm, b)) || mm_block(c->mm, b)->order_mask >> order == 0) {
            continue;
        }
        worth = mm_block(c->mm, b)->free_pages + (i < z->boot_blocks ? 2 : mm_block(c->mm, b)->flags & PB_TENANTS ? 1 : 0) * PAGEBLOCK_PAGES;
        if (worth > most) {
            most = worth;
            best = b;
        }
    }
    return best;
}

static struct page *kernel_target(struct control *c, unsigned order)
{
    uint32_t b = c->kernel_block;

    if (c->request.targets == TARGET_MOVABLE) {
        return NULL;
    }
    if (b == BLOCK_NONE || !migratetype_is_kernel(pageblock_type(c->mm, b)) || mm_block(c->mm, b)->order_mask >> order == 0) {
        b = best_kernel_block(c, order);
    }
    if (b == BLOCK_NONE) {
        return NULL;
    }
    c->kernel_block = b;
    buddy_mark_tenants(c->mm, c->z, b);
    return buddy_alloc_block(c->mm, c->z, b, order);
}

/* From the entries [from, end) of the ranking, the last first. */
static struct page *ranked_target(struct control *c, uint32_t from, uint32_t end, unsigned order)
{
    for (uint32_t at = end; at > from; at--) {
        c->out->free_scanned++;
        if (rankable(c->mm, c->z->rank[at - 1])) {
            struct page *p = buddy_alloc_block(c->mm, c->z, c->z->rank[at - 1], order);

            if (p != NULL) {
                return p;
            }
        } else if (at == c->free_at) {
            c->free_at--;                       /* full: no need to come back */
        }
    }
    return NULL;
}

static struct page *free_scanner(void *ctx, struct zone *z, unsigned order)
{
    struct control *c = ctx;
    uint32_t behind = c->migrate_at + 1, rest = c->sources > behind ? c->sources : behind;
    struct page *p = ranked_target(c, 0, c->aside, order);

    (void)z;
    p = p != NULL ? p : ranked_target(c, rest, c->free_at, order);
    p = p != NULL ? p : kernel_target(c, order);
    return p != NULL ? p : ranked_target(c, behind, rest < c->free_at ? rest : c->free_at, order);     /* the plan did not work out */
}

/* ---- the migrate scanner ---- */

enum scan { SCAN_END, SCAN_NEXT, SCAN_ASIDE };

/* Can the block be emptied, as far as can be seen? *free: its free pages. */
static enum scan look_at_block(struct control *c, uint32_t block, uint64_t *free)
{
    enum scan verdict = SCAN_NEXT;

    if (!lock_zone(c->z, c->request.mode, c->out)) {
        return SCAN_END;
    }
    *free = mm_block(c->mm, block)->free_pages;
    if (!(rankable(c->mm, block) || c->migrate_at >= c->partial) || pageblock_type(c->mm, block) != MIGRATE_MOVABLE || *free == PAGEBLOCK_PAGES) {
        verdict = SCAN_ASIDE;
    } else if (!c->request.ignore_hints && compact_hint_valid(c->mm, c->z, block)) {
        c->out->blocks_skipped++;
        verdict = SCAN_ASIDE;
    } else if (block_immovable_page(c->mm, block) != NULL) {
        hint_set(c, block);
        verdict = SCAN_ASIDE;
    }
    zone_unlock(c->z);
    return verdict;
}

/* Give the block back to the allocator, with what is to be captured taken out of it first. */
static bool end_isolation(struct control *c, uint32_t block)
{
    if (c->request.capture) {
        c->out->captured = isolate_undo_take(c->mm, block, c->request.unit_order, c->request.unit_type);
        if (c->out->captured != NULL) {
            zone_count_unlocked(c->z, ZC_compact_captured, 1);
        }
        return true;
    }
    return isolate_undo(c->mm, block_pfn(block), block_pfn(block + 1)) == MM_OK;
}

/* Others allocate meanwhile: the sum may be a little off. */
static void lessen_room(struct control *c, uint64_t pages)
{
    c->room -= pages < c->room ? pages : c->room;
}

/* Empty the block at migrate_at if that can succeed. */
static enum scan scan_block(struct control *c)
{
    struct zone *z = c->z;
    bool part = c->request.capture && c->request.unit_type == MIGRATE_MOVABLE && c->request.unit_order < PAGEBLOCK_ORDER;
    struct empty_how how = { .target = free_scanner, .ctx = c, .mode = c->request.mode, .stop = true,
                             .until_order = part ? c->request.unit_order : MAX_ORDER };
    uint32_t block = z->rank[c->migrate_at];
    uint64_t moved_before = c->out->migrated_pages, free = 0;
    enum scan verdict = look_at_block(c, block, &free);
    bool whole;

    if (verdict != SCAN_NEXT) {
        return verdict;
    }
    if (PAGEBLOCK_PAGES > c->room) {            /* I1: used + free = a block's pages, and room holds its own free ones */
        return c->request.order == COMPACT_BY_PFN ? SCAN_NEXT : SCAN_END;
    }
    if (isolate_range(c->mm, block_pfn(block), block_pfn(block + 1), 0, NULL) != MM_OK) {
        return SCAN_ASIDE;
    }
    (void)empty_block(c->mm, z, block, &how, c->out);
    whole = block_whole(c->mm, z, block);
    if (whole) {
        c->out->blocks_made++;
        zone_count_unlocked(z, ZC_compact_success, 1);
        lessen_room(c, free);
    } else if (!c->out->stopped && !part) {
        zone_lock(z);
        hint_set(c, block);
        zone_unlock(z);
    }
    lessen_room(c, c->out->migrated_pages - moved_before);
    if (!end_isolation(c, block) || c->out->stopped) {
        return SCAN_END;
    }
    return whole ? SCAN_NEXT : SCAN_ASIDE;
}

static bool bound_reached(const struct control *c)
{
    return c->request.mode == COMPACT_ASYNC
           && (c->out->migrated_pages + c->out->failed_pages >= ASYNC_PAGES || c->migrate_at >= ASYNC_BLOCKS + c->out->blocks_skipped);
}

/* Has the run what it was started for? */
static bool satisfied(struct control *c)
{
    const struct compact_request *q = &c->request;
    bool done = c->out->blocks_made >= q->blocks_wanted || c->out->captured != NULL;

    if (!done && (q->score != 0 || q->until_pair)) {
        zone_lock(c->z);
        done = (q->score != 0 && zone_fragmentation_score(c->z) <= q->score)
               || (q->until_pair && zone_free_units(c->z, MAX_ORDER, MIGRATE_MOVABLE) > 0);
        zone_unlock(c->z);
    }
    return done;
}

static void scan_zone(struct control *c)
{
    struct compact_result *out = c->out;

    for (; !satisfied(c); c->migrate_at++) {
        enum scan verdict;

        if (c->migrate_at >= c->free_at && c->migrate_at < c->partial) {
            c->migrate_at = c->partial;         /* what lies between was filled in this run (I2) */
        }
        if (c->migrate_at < c->ranked && bound_reached(c)) {
            out->stopped = true;
            break;
        }
        verdict = c->migrate_at < c->ranked ? scan_block(c) : SCAN_END;
        if (verdict == SCAN_END) {
            out->scanners_met = !out->stopped && out->captured == NULL;
            break;
        }
        if (verdict == SCAN_ASIDE && c->migrate_at < c->partial) {
            c->z->rank[c->aside++] = c->z->rank[c->migrate_at];     /* nobody comes back to the front of the ranking */
        }
    }
}

mm_status_t compact_zone(struct mm *mm, struct zone *z, const struct compact_request *request, struct compact_result *out)
{
    struct control c = { .mm = mm, .z = z, .request = *request, .out = out, .kernel_block = BLOCK_NONE };
    unsigned walk;

    ASSERT(z->rank != NULL && mm->migrate.move != NULL);
    *out = (struct compact_result){ .blocks_made = 0 };
    if (!spin_trylock(&z->compact_lock)) {
        return MM_EAGAIN;
    }
    walk = mm_walk_begin(mm);                   /* what is ranked has its struct pages until the end */
    zone_count_unlocked(z, ZC_compact_run, 1);
    if (request->mode != COMPACT_ASYNC) {
        pcp_drain(mm, z);                       /* what waits there cannot merge; a block that is isolated is drained in any case */
    }
    if (rank_blocks(&c)) {
        scan_zone(&c);
    }
    if (out->scanners_met) {
        zone_lock(z);
        z->skip_stale = true;
        zone_unlock(z);
    }
    zone_count_unlocked(z, ZC_compact_migrate_scanned, out->migrate_scanned);
    zone_count_unlocked(z, ZC_compact_free_scanned, out->free_scanned);
    zone_count_unlocked(z, ZC_compact_skipped, out->blocks_skipped);
    zone_count_unlocked(z, ZC_compact_async_stop, out->stopped);
    mm_walk_end(mm, walk);
    spin_unlock(&z->compact_lock);
    return MM_OK;
}

/* ---- explicit compaction ---- */

static void add_result(struct compact_result *sum, const struct compact_result *r)
{
    sum->migrated_pages += r->migrated_pages;
    sum->failed_pages += r->failed_pages;
    sum->migrate_scanned += r->migrate_scanned;
    sum->free_scanned += r->free_scanned;
    sum->blocks_made += r->blocks_made;
    sum->scanners_met |= r->scanners_met;
}

struct compact_result compact_node(struct mm *mm, uint32_t node, enum compact_targets targets)
{
    struct compact_request request = { .targets = targets, .blocks_wanted = UINT32_MAX, .mode = COMPACT_SYNC, .ignore_hints = true };
    struct compact_result sum = { .blocks_made = 0 }, r;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        if (mm->zones[i].node == node && compact_zone(mm, &mm->zones[i], &request, &r) == MM_OK) {
            add_result(&sum, &r);
        }
    }
    return sum;
}

struct compact_result compact_all(struct mm *mm, enum compact_targets targets)
{
    struct compact_result sum = { .blocks_made = 0 };

    for (uint32_t node = 0; node < mm->node_count; node++) {
        struct compact_result r = compact_node(mm, node, targets);
        add_result(&sum, &r);
    }
    return sum;
}

/* ---- evacuation of a range ---- */

static bool room_elsewhere(const struct mm *mm, const struct zone *z, unsigned order)
{
    for (uint32_t i = 0; i < mm->zone_count; i++) {
        if (&mm->zones[i] != z && mm->zones[i].kind != ZONE_DMA && zone_watermark_ok(&mm->zones[i], order, 1, WMARK_MIN, ZONE_MOVABLE, 0)) {
            return true;
        }
    }
    return false;
}

/* As movable_target() while the zone stays above its min, then any other zone: a whole zone may be leaving, or a node. At last what the zone has
 * left. The zone lock is let go while another zone is asked; the unit is ours either way. */
static struct page *evacuation_target(void *ctx, struct zone *z, unsigned order)
{
    struct mm *mm = ctx;
    struct page *p = zone_watermark_ok(z, order, 1, WMARK_MIN, ZONE_MOVABLE, 0) ? movable_target(ctx, z, order) : NULL;

    if (p == NULL && room_elsewhere(mm, z, order)) {
        zone_unlock(z);
        p = alloc_pages_node(mm, z->node, __GFP_HIGHMEM | __GFP_MOVABLE, order);
        zone_lock(z);
        zone_count(z, ZC_evacuate_away, p != NULL && mm_block_zone(mm, page_block(p)) != z ? 1ull << order : 0);
    }
    return p != NULL ? p : movable_target(ctx, z, order);
}

mm_status_t evacuate_range(struct mm *mm, pfn_t start, pfn_t end, struct compact_result *out)
{
    struct empty_how how = { .target = evacuation_target, .ctx = mm, .mode = COMPACT_SYNC_LIGHT, .until_order = MAX_ORDER };
    mm_status_t worst = MM_OK;

    *out = (struct compact_result){ .blocks_made = 0 };
    for (uint32_t b = pfn_block(start); b < pfn_block(end); b++) {
        struct zone *z = mm_block_zone(mm, b);
        mm_status_t status;

        ASSERT_CMP(pageblock_type(mm, b), ==, MIGRATE_ISOLATE);
        status = empty_block(mm, z, b, &how, out);
        out->blocks_made += block_whole(mm, z, b);
        worst = status != MM_OK ? MM_EAGAIN : worst;
    }
    return worst;
}

mm_status_t compaction_init(struct mm *mm, const struct mm_config *config)
{
    for (uint32_t i = 0; i < mm->zone_count; i++) {
        struct zone *z = &mm->zones[i];
        uint32_t blocks = z->end_block - z->first_block;

        z->rank = config->boot_alloc(config->boot_ctx, sizeof(uint32_t) * blocks, 64);
        z->skip = config->boot_alloc(config->boot_ctx, sizeof(uint16_t) * blocks, 64);
        if (z->rank == NULL || z->skip == NULL) {
            return MM_ENOMEM;
        }
        compact_hints_reset(z);
    }
    mm->claim_window = CLAIM_WINDOW;
    mm->extfrag_threshold = 500;
    mm->compaction_proactiveness = 20;
    mm->hooks.compact = direct_compact;
    mm->hooks.clear_block = claim_clear_block;
    return MM_OK;
}
