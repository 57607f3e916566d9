/*
 * compaction.c - making whole free pageblocks by migration.
 *
 * Owns: the two scanners, zone.rank, the background's decisions, hooks.clear_block.
 * Invariants:
 *   I1  a block is emptied only if what it holds fits into the other holes: no page is moved in vain
 *       unless somebody allocates meanwhile.
 *   I2  a page is moved at most once a run: targets lie on the far side of the migrate scanner.
 *   I3  a block that is being emptied is isolated, so nothing moves into it.
 * Lock order: compact_lock, then per-CPU list lock, then zone lock; none while the mover runs.
 * Why: both scanners walk one ranking of the blocks from its two ends.  With the emptiest block first and
 *   the fullest last, the k cheapest blocks are emptied into the fullest ones, which is the least
 *   number of moves for k blocks.  The classic order by frame number is kept for comparison.
 * Cost: ranking is a counting sort over the blocks' free counts; then one pass over the heads of each
 *   block that is emptied and one move a unit.
 */
#include "compaction.h"
#include "buddy.h"
#include "fragmentation.h"
#include "isolation.h"
#include "page_alloc.h"
#include "pageblock.h"
#include "pcp.h"
#include "frameshift/assert.h"

#define SYNC_TRIES      3u
#define CLAIM_WINDOW    16u                     /* a request in a hurry finds a whole block this near */
#define LEND_FREE_PAGES (PAGEBLOCK_PAGES * 3u / 4)
#define LEND_LOW_PAGES  64u                     /* movable free pages under which a block is lent */
#define HOME_ROOM_PAGES 256u                    /* tenants go home only while so much room stays */

struct control {
    struct mm *mm;
    struct zone *z;
    struct compact_request request;
    struct compact_result *out;
    uint32_t ranked, partial;                   /* entries of z->rank; those that are targets too (the others are full) */
    uint32_t migrate_at, free_at;               /* scanners: [0, ranked), from the front and from the back (one past) */
    uint32_t kernel_block;                      /* the kernel block that is being filled, or BLOCK_NONE */
    uint64_t room;                              /* free pages in possible targets */
};

/* ---- moving one unit ---- */

/* Where a unit may go; NULL: no room. Returns PAGE_NONE with refs 0. Called with the zone lock held. */
typedef struct page *(*target_fn)(void *ctx, struct zone *z, unsigned order);

static mm_status_t migrate_unit(struct mm *mm, struct zone *z, struct page *from, target_fn target, void *ctx, bool sync,
                                struct compact_result *out)
{
    mm_status_t status = MM_EAGAIN;
    unsigned order;
    struct page *to;

    if (!page_try_get(from)) {
        return MM_OK;                           /* it was freed meanwhile */
    }
    order = page_order(from);
    spin_lock(&z->lock);
    to = page_may_move(from) ? target(ctx, z, order) : NULL;
    if (to != NULL) {
        page_set_word(to, PAGE_WORD(PAGE_USED, order, MIGRATE_MOVABLE, word_flags(page_word(from)) & PG_COMP));
        to->mapping = NULL;
        atomic_store_explicit(&to->refs, 1, memory_order_release);
    }
    spin_unlock(&z->lock);
    for (unsigned tries = 0; to != NULL && status == MM_EAGAIN && tries < (sync ? SYNC_TRIES : 1u); tries++) {
        status = mm->migrate.move(mm->migrate.ctx, from, to);
    }
    if (to != NULL && status != MM_OK) {
        page_put(mm, to);
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

/* Move the movable units of a block; stops at the first that cannot, if stop is set. */
static mm_status_t empty_block(struct mm *mm, struct zone *z, uint32_t block, target_fn target, void *ctx, bool sync, bool stop,
                               struct compact_result *out)
{
    struct page *first = mm_block_page(mm, block);
    mm_status_t worst = MM_OK;
    uint32_t i = 0;

    while (i < PAGEBLOCK_PAGES) {
        uint32_t w = page_word(first + i);
        uint32_t pages = word_state(w) == PAGE_NONE ? 1 : 1u << word_order(w);

        if (word_state(w) == PAGE_USED && page_may_move(first + i)) {
            mm_status_t status = migrate_unit(mm, z, first + i, target, ctx, sync, out);

            worst = status != MM_OK ? status : worst;
            if (status != MM_OK && stop) {
                break;
            }
        }
        i += pages;
    }
    out->migrate_scanned += PAGEBLOCK_PAGES;
    return worst;
}

static bool block_whole(struct mm *mm, struct zone *z, uint32_t block)
{
    bool whole;

    spin_lock(&z->lock);
    whole = mm_block(mm, block)->free_pages == PAGEBLOCK_PAGES;
    spin_unlock(&z->lock);
    return whole;
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

/* The place of a block in the ranking by fullness; full blocks are worth emptying only into kernel blocks. */
static bool rank_key(const struct control *c, uint32_t block, uint32_t *key)
{
    bool partial = rankable(c->mm, block);
    bool full = c->request.targets != TARGET_MOVABLE && mm_pfn_valid(c->mm, block_pfn(block)) && !mm_block(c->mm, block)->offline
                && pageblock_type(c->mm, block) == MIGRATE_MOVABLE && mm_block(c->mm, block)->free_pages == 0;

    *key = full ? PAGEBLOCK_PAGES : c->request.order == COMPACT_BY_PFN ? 0 : PAGEBLOCK_PAGES - mm_block(c->mm, block)->free_pages;
    return partial || full;
}

/* Fill z->rank by a counting sort: what is emptied first comes first. */
static void rank_blocks(struct control *c)
{
    struct zone *z = c->z;
    uint32_t start[PAGEBLOCK_PAGES + 2] = { 0 }, key;

    spin_lock(&z->lock);
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
    spin_unlock(&z->lock);
    c->free_at = c->partial;
}

/* ---- the free scanner ---- */

/* The kernel block with the most holes among those that may be filled: few blocks get tenants. */
static uint32_t emptiest_kernel_block(const struct control *c, unsigned order)
{
    const struct zone *z = c->z;
    uint32_t end = c->request.targets == TARGET_ANY ? z->end_block - z->first_block : z->boot_blocks;
    uint32_t best = BLOCK_NONE, most = 0;

    for (uint32_t i = 0; i < end; i++) {
        uint32_t b = position_block(z, i);

        if (mm_pfn_valid(c->mm, block_pfn(b)) && migratetype_is_kernel(pageblock_type(c->mm, b))
            && mm_block(c->mm, b)->order_mask >> order != 0 && mm_block(c->mm, b)->free_pages > most) {
            most = mm_block(c->mm, b)->free_pages;
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
        b = emptiest_kernel_block(c, order);
    }
    if (b == BLOCK_NONE) {
        return NULL;
    }
    c->kernel_block = b;
    buddy_mark_tenants(c->mm, c->z, b);
    return buddy_alloc_block(c->mm, c->z, b, order);
}

static struct page *free_scanner(void *ctx, struct zone *z, unsigned order)
{
    struct control *c = ctx;
    uint32_t at = c->free_at;

    while (at > c->migrate_at + 1) {
        uint32_t block = z->rank[at - 1];

        c->out->free_scanned++;
        if (rankable(c->mm, block)) {
            struct page *p = buddy_alloc_block(c->mm, z, block, order);

            if (p != NULL) {
                return p;
            }
        } else if (at == c->free_at) {
            c->free_at--;                       /* full: no need to come back */
        }
        at--;
    }
    return kernel_target(c, order);
}

/* ---- the migrate scanner ---- */

/* Empty the block at migrate_at if that can succeed. False: no further block can. */
static bool scan_block(struct control *c)
{
    struct zone *z = c->z;
    uint32_t block = z->rank[c->migrate_at];
    uint64_t moved_before = c->out->migrated_pages, free, used;
    bool possible;

    spin_lock(&z->lock);
    free = mm_block(c->mm, block)->free_pages;
    used = PAGEBLOCK_PAGES - free;
    possible = (rankable(c->mm, block) || c->migrate_at >= c->partial) && pageblock_type(c->mm, block) == MIGRATE_MOVABLE && used > 0;
    if (possible && block_immovable_page(c->mm, block) != NULL) {
        possible = false;
    }
    spin_unlock(&z->lock);
    if (!possible) {
        return true;
    }
    if (used + free > c->room) {                /* I1: room holds this block's own free pages */
        return c->request.order == COMPACT_BY_PFN;
    }
    if (isolate_range(c->mm, block_pfn(block), block_pfn(block + 1), 0, NULL) != MM_OK) {
        return true;
    }
    (void)empty_block(c->mm, z, block, free_scanner, c, c->request.sync, true, c->out);
    if (block_whole(c->mm, z, block)) {
        c->out->blocks_made++;
        zone_count_unlocked(z, ZC_compact_success, 1);
        c->room -= free;
    }
    c->room -= c->out->migrated_pages - moved_before;
    return isolate_undo(c->mm, block_pfn(block), block_pfn(block + 1)) == MM_OK;
}

mm_status_t compact_zone(struct mm *mm, struct zone *z, const struct compact_request *request, struct compact_result *out)
{
    struct control c = { .mm = mm, .z = z, .request = *request, .out = out, .kernel_block = BLOCK_NONE };

    ASSERT(z->rank != NULL && mm->migrate.move != NULL);
    *out = (struct compact_result){ .blocks_made = 0 };
    if (!spin_trylock(&z->compact_lock)) {
        return MM_EAGAIN;
    }
    zone_count_unlocked(z, ZC_compact_run, 1);
    pcp_drain(mm, z);
    rank_blocks(&c);
    for (; out->blocks_made < request->blocks_wanted; c.migrate_at++) {
        if (c.migrate_at >= c.free_at && c.migrate_at < c.partial) {
            c.migrate_at = c.partial;           /* what lies between was filled in this run (I2) */
        }
        if (c.migrate_at >= c.ranked || !scan_block(&c)) {
            out->scanners_met = true;
            break;
        }
    }
    zone_count_unlocked(z, ZC_compact_migrate_scanned, out->migrate_scanned);
    zone_count_unlocked(z, ZC_compact_free_scanned, out->free_scanned);
    spin_unlock(&z->compact_lock);
    return MM_OK;
}

/* ---- direct compaction ---- */

#define DEFER_SHIFT_MAX 6u

/* After a failure the next requests of this order (or larger) are turned away, twice as many each time. pre: compact_lock */
static bool deferred(struct zone *z, unsigned order)
{
    if (z->compact_order_failed == 0 || order < z->compact_order_failed) {
        return false;
    }
    if (++z->compact_considered < 1u << z->compact_defer_shift) {
        return true;
    }
    z->compact_considered = 0;
    return false;
}

static void note_outcome(struct zone *z, unsigned order, bool success)
{
    if (success) {
        z->compact_order_failed = order >= z->compact_order_failed ? 0 : z->compact_order_failed;
        z->compact_defer_shift = z->compact_order_failed == 0 ? 0 : z->compact_defer_shift;
        return;
    }
    z->compact_considered = 0;
    z->compact_defer_shift = z->compact_defer_shift < DEFER_SHIFT_MAX ? z->compact_defer_shift + 1 : DEFER_SHIFT_MAX;
    if (z->compact_order_failed == 0 || order < z->compact_order_failed) {
        z->compact_order_failed = order;
    }
}

/* hooks.compact: one whole block (two for the largest order), if fragmentation and not lack of memory is the trouble. */
static bool direct_compact(struct mm *mm, struct zone *z, unsigned order, enum migratetype type)
{
    struct compact_request request = { .targets = TARGET_MOVABLE, .blocks_wanted = order > PAGEBLOCK_ORDER ? UINT32_MAX : 1 };
    struct compact_result r;
    bool skip, success;
    int index;

    (void)type;                                 /* a whole block serves every type */
    if (mm->migrate.move == NULL || !spin_trylock(&z->compact_lock)) {
        return false;
    }
    spin_lock(&z->lock);
    index = zone_extfrag_index(z, order);
    spin_unlock(&z->lock);
    skip = (index >= 0 && index <= (int)mm->extfrag_threshold) || deferred(z, order);
    spin_unlock(&z->compact_lock);
    if (skip) {
        zone_count_unlocked(z, ZC_compact_deferred, 1);
        return false;
    }
    if (compact_zone(mm, z, &request, &r) != MM_OK) {
        return false;
    }
    success = r.blocks_made > 0;
    spin_lock(&z->compact_lock);
    note_outcome(z, order, success);
    spin_unlock(&z->compact_lock);
    return success;
}

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
    struct compact_request request = { .targets = targets, .blocks_wanted = UINT32_MAX, .sync = true };
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

/* Ordinary allocation: the fullest end of the movable blocks, then whole ones. */
static struct page *movable_target(void *ctx, struct zone *z, unsigned order)
{
    return buddy_alloc(ctx, z, order, MIGRATE_MOVABLE);
}

mm_status_t evacuate_range(struct mm *mm, pfn_t start, pfn_t end, struct compact_result *out)
{
    mm_status_t worst = MM_OK;

    *out = (struct compact_result){ .blocks_made = 0 };
    for (uint32_t b = pfn_block(start); b < pfn_block(end); b++) {
        struct zone *z = mm_block_zone(mm, b);
        mm_status_t status;

        ASSERT_CMP(pageblock_type(mm, b), ==, MIGRATE_ISOLATE);
        status = empty_block(mm, z, b, movable_target, mm, true, false, out);
        out->blocks_made += block_whole(mm, z, b);
        worst = status != MM_OK ? MM_EAGAIN : worst;
    }
    return worst;
}

/* ---- keeping kernel pages together ---- */

/* Free pages in movable blocks that are not free as a whole. pre: zone lock held */
static uint64_t movable_room(const struct zone *z)
{
    uint64_t room = 0;

    for (unsigned o = 0; o < PAGEBLOCK_ORDER; o++) {
        room += z->free_units[o][MIGRATE_MOVABLE] << o;
    }
    return room;
}

static uint64_t locked_movable_room(struct zone *z)
{
    uint64_t room;

    spin_lock(&z->lock);
    room = movable_room(z);
    spin_unlock(&z->lock);
    return room;
}

static bool block_has_movable(const struct mm *mm, uint32_t block)
{
    const struct page *first = mm_block_page(mm, block);

    for (uint32_t i = 0; i < PAGEBLOCK_PAGES; i++) {
        if (page_state(first + i) == PAGE_USED && page_type(first + i) == MIGRATE_MOVABLE) {
            return true;
        }
    }
    return false;
}

/* The first block from a position on that may have tenants, of one type or of any (MIGRATE_TYPES); BLOCK_NONE. */
static uint32_t tenant_block(struct mm *mm, struct zone *z, enum migratetype type, uint32_t position)
{
    uint32_t found = BLOCK_NONE;

    spin_lock(&z->lock);
    for (uint32_t i = position; i < z->end_block - z->first_block && found == BLOCK_NONE; i++) {
        uint32_t b = position_block(z, i);

        if (mm_pfn_valid(mm, block_pfn(b)) && mm_block(mm, b)->flags & PB_TENANTS
            && (type == MIGRATE_TYPES || pageblock_type(mm, b) == type)) {
            found = b;
        }
    }
    spin_unlock(&z->lock);
    return found;
}

/* Move movable pages out of kernel blocks (of one type, or of all: MIGRATE_TYPES) while keep pages of room stay. */
static uint64_t tenants_home(struct mm *mm, struct zone *z, enum migratetype type, uint64_t keep)
{
    struct compact_result r = { .blocks_made = 0 };
    uint32_t b;

    if (z->tenant_blocks == 0) {
        return 0;
    }
    for (b = tenant_block(mm, z, type, 0); b != BLOCK_NONE; b = tenant_block(mm, z, type, block_position(z, b) + 1)) {
        if (locked_movable_room(z) < keep + PAGEBLOCK_PAGES / 8) {
            break;
        }
        (void)empty_block(mm, z, b, movable_target, mm, false, true, &r);
        spin_lock(&z->lock);
        if (!block_has_movable(mm, b) && mm_block(mm, b)->flags & PB_TENANTS) {
            mm_block(mm, b)->flags &= (uint8_t)~PB_TENANTS;
            z->tenant_blocks--;
        }
        spin_unlock(&z->lock);
    }
    return r.migrated_pages;
}

/* The block to claim next: of the movable ones at positions below limit the emptiest whose contents fit elsewhere. */
static uint32_t next_claim(struct mm *mm, struct zone *z, uint32_t limit)
{
    uint32_t found = BLOCK_NONE, most_free = 0;
    uint64_t room;

    spin_lock(&z->lock);
    room = movable_room(z) + (z->free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE] << PAGEBLOCK_ORDER);
    for (uint32_t i = z->boot_blocks; i < limit && room >= PAGEBLOCK_PAGES; i++) {
        uint32_t b = position_block(z, i);

        /* used + free = a block's pages, and room counts its own free ones */
        if (mm_pfn_valid(mm, block_pfn(b)) && !mm_block(mm, b)->offline && pageblock_type(mm, b) == MIGRATE_MOVABLE
            && mm_block(mm, b)->reserved_pages == 0 && (found == BLOCK_NONE || mm_block(mm, b)->free_pages > most_free)
            && mm_block(mm, b)->free_pages < PAGEBLOCK_PAGES && block_immovable_page(mm, b) == NULL) {
            found = b;
            most_free = mm_block(mm, b)->free_pages;
        }
    }
    spin_unlock(&z->lock);
    return found;
}

/* Move everything out of the block that is to be claimed next. */
static bool clear_next(struct mm *mm, struct zone *z, uint32_t limit, struct compact_result *r)
{
    uint32_t block = next_claim(mm, z, limit);
    bool whole;

    if (block == BLOCK_NONE || isolate_range(mm, block_pfn(block), block_pfn(block + 1), 0, NULL) != MM_OK) {
        return false;
    }
    (void)empty_block(mm, z, block, movable_target, mm, true, true, r);
    whole = block_whole(mm, z, block);
    if (isolate_undo(mm, block_pfn(block), block_pfn(block + 1)) != MM_OK) {
        return false;
    }
    if (whole) {
        spin_lock(&z->lock);
        zone_count(z, ZC_block_cleared, 1);
        spin_unlock(&z->lock);
    }
    return whole;
}

static uint32_t claim_limit(const struct mm *mm, struct zone *z)
{
    uint32_t limit;

    spin_lock(&z->lock);
    limit = zone_claim_limit(z, mm->claim_window);
    spin_unlock(&z->lock);
    return limit;
}

static bool clear_block(struct mm *mm, struct zone *z, enum migratetype type)
{
    struct compact_result r = { .blocks_made = 0 };

    if (mm->policy == CLAIM_LARGEST_LOWEST || mm->migrate.move == NULL) {
        return false;
    }
    if (mm->policy == CLAIM_CLEAR_FIRST && tenants_home(mm, z, type, 0) > 0) {
        return true;
    }
    return clear_next(mm, z, claim_limit(mm, z), &r) || clear_next(mm, z, z->end_block - z->first_block, &r);
}

/* Give the kernel block with the most free pages to movable ones, if that is most of it. An accounted block's few
 * pages leave with their process; then nothing is mixed any more. */
static bool lend_block(struct mm *mm, struct zone *z)
{
    uint32_t best = BLOCK_NONE, most = LEND_FREE_PAGES;

    spin_lock(&z->lock);
    for (uint32_t i = z->boot_blocks; i < z->end_block - z->first_block; i++) {
        uint32_t b = position_block(z, i);

        if (mm_pfn_valid(mm, block_pfn(b)) && migratetype_is_kernel(pageblock_type(mm, b))) {
            uint32_t free = mm_block(mm, b)->free_pages + (pageblock_type(mm, b) == MIGRATE_ACCOUNTED ? PAGEBLOCK_PAGES / 8 : 0u);

            if (free >= most) {
                most = free;
                best = b;
            }
        }
    }
    if (best != BLOCK_NONE) {
        pageblock_set_type(mm, z, best, MIGRATE_MOVABLE);
        zone_count(z, ZC_block_lent, 1);
    }
    spin_unlock(&z->lock);
    if (best != BLOCK_NONE) {
        pcp_drain(mm, z);
    }
    return best != BLOCK_NONE;
}

uint64_t compaction_background(struct mm *mm, struct zone *z)
{
    struct compact_result r = { .blocks_made = 0 };
    uint64_t whole, room;
    bool wanted;

    spin_lock(&z->lock);
    whole = z->free_units[PAGEBLOCK_ORDER][MIGRATE_MOVABLE];
    room = movable_room(z);
    wanted = zone_wants_spare(z, mm->claim_window);
    spin_unlock(&z->lock);
    if (whole == 0 && room < LEND_LOW_PAGES) {
        (void)lend_block(mm, z);
    }
    if (wanted && mm->policy != CLAIM_LARGEST_LOWEST && mm->migrate.move != NULL && !clear_next(mm, z, claim_limit(mm, z), &r)
        && whole == 0) {
        (void)clear_next(mm, z, z->end_block - z->first_block, &r);
    }
    if (z->tenant_blocks > 0 && mm->policy == CLAIM_CLEAR_FIRST) {
        r.migrated_pages += tenants_home(mm, z, MIGRATE_TYPES, HOME_ROOM_PAGES);
    }
    return r.migrated_pages;
}

mm_status_t compaction_init(struct mm *mm, const struct mm_config *config)
{
    for (uint32_t i = 0; i < mm->zone_count; i++) {
        struct zone *z = &mm->zones[i];

        z->rank = config->boot_alloc(config->boot_ctx, sizeof(uint32_t) * (z->end_block - z->first_block), 64);
        if (z->rank == NULL) {
            return MM_ENOMEM;
        }
    }
    mm->claim_window = CLAIM_WINDOW;
    mm->extfrag_threshold = 500;
    mm->hooks.compact = direct_compact;
    mm->hooks.clear_block = clear_block;
    return MM_OK;
}
