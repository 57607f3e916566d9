/*
 * relocate.c - another machine frame under the same page: free pages, kernel pages, page tables.
 *
 * Layer: L3
 * Owns: the way in which each kind of page is moved, and the times of the stops.
 * Invariants:
 *   I1  an entry is looked at again where it is moved (under the zone's lock, under the page lock, in the stop): what it was
 *       before decides only where that is tried.
 *   I2  a free page is never copied: free under the zone's lock, or free or on a per-CPU list while the machine stands still.
 *   I3  a page of a process or of the page cache is never copied in a stop.
 *   I4  a stop moves at most RELOCATE_BATCH pages, fewer where they are tables; nothing but the machine's layer writes between the copies and the switch.
 *   I5  the new frame is nobody's: the M2P names no pfn whose p2m entry is it.
 * Lock order: none is held on entry; zone.lock is held over arch_frames_move() of free pages, which has no safepoint.
 * Why a stop for kernel pages: slab objects and struct pages have no reverse map; whoever has their address uses it at any
 *   time.  With every CPU standing still the direct map can be switched under them: the address stays.
 * Cost: a free page is three updates of the machine, a kernel page a copy more; a stop waits for the slowest CPU to make
 *   an arch call.
 */
#include "relocate.h"
#include "frameshift/assert.h"
#include "page_alloc.h"

enum kind { KIND_FREE, KIND_CACHED_FREE, KIND_USER, KIND_KERNEL, KIND_TABLE, KIND_DMA, KIND_NONE };

/* The head of the unit that a page is in, or NULL: nobody's, or in the middle of a change. */
static struct page *unit_head(const struct mm *mm, pfn_t pfn)
{
    for (unsigned order = 0; order <= MAX_ORDER; order++) {
        pfn_t at = pfn_make(pfn.n & ~((1ull << order) - 1));
        struct page *p = mm_pfn_valid(mm, at) ? mm_page(mm, at) : NULL;

        if (p != NULL && page_state(p) != PAGE_NONE) {
            return page_order(p) >= order ? p : NULL;
        }
    }
    return NULL;                                /* a free page, too */
}

static enum kind page_kind(const struct mm *mm, pfn_t pfn, struct page **head)
{
    struct page *p = mm_pfn_valid(mm, pfn) ? unit_head(mm, pfn) : NULL;
    uint32_t word = p != NULL ? page_word(p) : 0;

    *head = p;
    if (p == NULL && mm_pfn_valid(mm, pfn)) {
        return page_is_free(mm, mm_page(mm, pfn)) ? KIND_FREE : KIND_KERNEL;    /* a unit that is being cut: its bytes may count */
    }
    switch (p != NULL ? word_state(word) : PAGE_HOLE) {
    case PAGE_PCP:      return KIND_CACHED_FREE;
    case PAGE_HOLE:     return KIND_NONE;
    case PAGE_RESERVED: return KIND_KERNEL;
    case PAGE_FROZEN:   return word_flags(word) & PG_DMA ? KIND_DMA : word_flags(word) & PG_TABLE ? KIND_TABLE : KIND_KERNEL;
    default: break;
    }
    if (word_flags(word) & PG_DMA) {
        return KIND_DMA;
    }
    if (word_flags(word) & PG_TABLE) {
        return KIND_TABLE;
    }
    return relocate_is_user(p) ? KIND_USER : KIND_KERNEL;
}

/* ---- times ---- */

static unsigned time_slot(uint64_t ns)
{
    unsigned octave = 0;

    while (ns >> octave >= 16) {
        octave++;
    }
    unsigned slot = octave * 8 + (unsigned)(ns >> octave);              /* 8 to 15, but for the first sixteen */
    return slot < RELOCATE_TIMES ? slot : RELOCATE_TIMES - 1;
}

static uint64_t slot_end_ns(unsigned slot)
{
    return slot < 16 ? slot + 1 : (uint64_t)(slot % 8 + 9) << (slot / 8 - 1);
}

static void count_stop(struct relocate *r, struct relocate_counts *out, uint64_t ns)
{
    r->stops++;
    r->longest_ns = ns > r->longest_ns ? ns : r->longest_ns;
    r->times[time_slot(ns)]++;
    out->value[FS_ABI_MOVED_STOPS]++;
    out->value[FS_ABI_MOVED_STOP_SUM_NS] += ns;
    if (ns > out->value[FS_ABI_MOVED_STOP_MAX_NS]) {
        out->value[FS_ABI_MOVED_STOP_MAX_NS] = ns;
    }
}

uint64_t relocate_stop_ns(const struct relocate *r, unsigned thousandths)
{
    uint64_t left = (r->stops * thousandths + 999) / 1000, seen = 0;

    for (unsigned i = 0; i < RELOCATE_TIMES && r->stops > 0; i++) {
        seen += r->times[i];
        if (seen >= left) {
            return slot_end_ns(i) < r->longest_ns ? slot_end_ns(i) : r->longest_ns;
        }
    }
    return 0;
}

/* ---- free pages ---- */

struct some { size_t count; size_t of[RELOCATE_BATCH]; struct arch_frame_move moves[RELOCATE_BATCH]; };

static void some_add(struct some *s, const struct relocate_entry *list, size_t i, bool copy)
{
    s->of[s->count] = i;
    s->moves[s->count++] = (struct arch_frame_move){ .pfn = list[i].pfn, .from = list[i].from, .to = list[i].to, .copy = copy };
}

static void move_free(struct relocate *r, struct relocate_entry *list, size_t count, struct zone *z)
{
    struct some some = { 0 };
    uint64_t none = 0;
    size_t i = 0;

    while (i < count) {
        struct page *p;

        some.count = 0;
        zone_lock(z);
        for (; i < count && some.count < RELOCATE_BATCH; i++) {
            if (list[i].status == FS_ABI_ENTRY_NONE && page_kind(r->mm, list[i].pfn, &p) == KIND_FREE
                && mm_block_zone(r->mm, pfn_block(list[i].pfn)) == z) {            /* I2 */
                some_add(&some, list, i, false);
            }
        }
        if (some.count > 0) {
            (void)arch_frames_move(some.moves, some.count, false, &none);
        }
        zone_unlock(z);
        for (size_t k = 0; k < some.count; k++) {
            list[some.of[k]].status = some.moves[k].done ? FS_ABI_ENTRY_FREE : FS_ABI_ENTRY_REFUSED;
        }
    }
}

/* ---- kernel pages ---- */

struct batch {
    struct relocate *r;
    struct relocate_entry *list;
    size_t count, of[RELOCATE_BATCH];
    bool boot[RELOCATE_BATCH];
    struct arch_table_place place[RELOCATE_BATCH];
    uint32_t status[RELOCATE_BATCH];
    bool verify;
    uint64_t verified;
};

static uint32_t move_table(struct batch *b, size_t k, const struct page *p)
{
    const struct relocate_entry *e = &b->list[b->of[k]];
    struct arch_frame_move m = { .pfn = e->pfn, .from = e->from, .to = e->to, .copy = true };

    if (!b->boot[k] && !relocate_table_place(b->r, p, &b->place[k])) {
        return FS_ABI_ENTRY_BUSY;
    }
    if (arch_table_move(&m, &b->place[k], b->verify) != 0) {
        return FS_ABI_ENTRY_REFUSED;
    }
    b->verified += b->verify;
    return FS_ABI_ENTRY_TABLE;
}

/* In the stop: data pages together, then tables one by one, for one of them may lead to another. */
static void stopped(void *arg)
{
    struct batch *b = arg;
    struct some some = { 0 };
    enum kind kinds[RELOCATE_BATCH];
    struct page *p;

    for (size_t k = 0; k < b->count; k++) {
        enum kind kind = kinds[k] = page_kind(b->r->mm, b->list[b->of[k]].pfn, &p);                /* I1 */

        if (b->boot[k] || kind == KIND_TABLE) {
            kinds[k] = KIND_TABLE;
        } else if (kind == KIND_FREE || kind == KIND_CACHED_FREE || kind == KIND_KERNEL) {
            some_add(&some, b->list, b->of[k], kind == KIND_KERNEL);
        }
    }
    if (some.count > 0) {
        (void)arch_frames_move(some.moves, some.count, b->verify, &b->verified);
    }
    for (size_t k = 0, s = 0; k < b->count; k++) {
        b->status[k] = kinds[k] == KIND_DMA ? FS_ABI_ENTRY_DMA : FS_ABI_ENTRY_BUSY;                /* I3 */
        if (s < some.count && some.of[s] == b->of[k]) {
            uint32_t how = some.moves[s].copy ? FS_ABI_ENTRY_KERNEL : FS_ABI_ENTRY_FREE;

            b->status[k] = some.moves[s++].done ? how : FS_ABI_ENTRY_REFUSED;
        }
    }
    for (size_t k = 0; k < b->count; k++) {
        if (kinds[k] == KIND_TABLE) {
            (void)page_kind(b->r->mm, b->list[b->of[k]].pfn, &p);
            b->status[k] = move_table(b, k, p);
        }
    }
}

/* In kernel pages: what a page costs in the stop.  A table is validated anew, entry by entry; a root of the kernel's, or what
 * hangs below it, makes every CPU load it. */
static unsigned weight_of(const struct mm *mm, pfn_t pfn, const struct arch_table_place *boot)
{
    struct page *p;

    if (boot != NULL) {
        return boot->level > 1 ? RELOCATE_BATCH : RELOCATE_BATCH / 8;
    }
    return page_kind(mm, pfn, &p) == KIND_TABLE ? RELOCATE_BATCH / 8 : 1;
}

static void move_kernel(struct relocate *r, struct relocate_entry *list, size_t count, bool verify, struct relocate_counts *out)
{
    struct batch b = { .r = r, .list = list, .verify = verify };

    for (size_t i = 0; i < count;) {
        uint64_t since;

        unsigned weight = 0;

        b.count = 0;
        for (; i < count && b.count < RELOCATE_BATCH; i++) {
            if (list[i].status == FS_ABI_ENTRY_NONE) {
                b.boot[b.count] = arch_boot_table(list[i].pfn, &b.place[b.count]);
                weight += weight_of(r->mm, list[i].pfn, b.boot[b.count] ? &b.place[b.count] : NULL);
                if (weight > RELOCATE_BATCH && b.count > 0) {
                    break;
                }
                b.of[b.count++] = i;
            }
        }
        if (b.count == 0) {
            break;
        }
        since = arch_time_ns();
        arch_stop_machine(stopped, &b);
        count_stop(r, out, arch_time_ns() - since);
        for (size_t k = 0; k < b.count; k++) {
            list[b.of[k]].status = b.status[k];
        }
    }
    out->value[FS_ABI_MOVED_VERIFIED] += b.verified;
}

/* ---- all ---- */

/* May this entry be tried at all? (I5) */
static uint32_t check_entry(const struct mm *mm, const struct relocate_entry *e)
{
    pfn_t used = arch_mfn_pfn(e->to);

    if (!mm_pfn_valid(mm, e->pfn) || e->to.n == e->from.n || e->to.n > ARCH_PTE_FRAME >> FS_PAGE_SHIFT) {
        return FS_ABI_ENTRY_BAD;
    }
    if (mfn_is_none(e->from) || !mfn_eq(arch_pfn_mfn(e->pfn), e->from)) {
        return FS_ABI_ENTRY_STALE;
    }
    return !pfn_is_none(used) && mfn_eq(arch_pfn_mfn(used), e->to) ? FS_ABI_ENTRY_BAD : FS_ABI_ENTRY_NONE;
}

static void add_up(const struct relocate_entry *list, size_t count, struct relocate_counts *out)
{
    static const uint8_t counter[] = { [FS_ABI_ENTRY_FREE] = FS_ABI_MOVED_FREE, [FS_ABI_ENTRY_USER] = FS_ABI_MOVED_USER,
                                       [FS_ABI_ENTRY_KERNEL] = FS_ABI_MOVED_KERNEL, [FS_ABI_ENTRY_TABLE] = FS_ABI_MOVED_TABLE };

    for (size_t i = 0; i < count; i++) {
        out->value[fs_abi_entry_moved(list[i].status) ? counter[list[i].status] : FS_ABI_MOVED_FAILED]++;
    }
}

/* Entry i is of the unit of head: it and the others of the list that are. */
static void move_unit(struct relocate *r, struct relocate_entry *list, size_t count, size_t i, struct page *head, bool verify,
                      struct relocate_counts *out)
{
    size_t of[ARCH_MOVES_MAX], n = 0, first = i;

    for (; i < count && n < ARCH_MOVES_MAX; i++) {
        if (list[i].status == FS_ABI_ENTRY_NONE && (list[i].pfn.n & ~(uint64_t)(PAGEBLOCK_PAGES - 1)) == head->pfn) {
            of[n++] = i;
        }
    }
    if (n > 0) {
        relocate_unit(r, list, of, n, head, verify, &out->value[FS_ABI_MOVED_VERIFIED]);
    } else {
        list[first].status = FS_ABI_ENTRY_BUSY;         /* a unit of another size */
    }
}

void relocate_pages(struct relocate *r, struct relocate_entry *list, size_t count, bool verify, struct relocate_counts *out)
{
    unsigned walk = mm_walk_begin(r->mm);
    struct page *p;

    *out = (struct relocate_counts){ { 0 } };
    for (size_t i = 0; i < count; i++) {
        list[i].status = check_entry(r->mm, &list[i]);
        for (size_t k = 0; k < i && list[i].status == FS_ABI_ENTRY_NONE; k++) {     /* twice in one list */
            if (list[k].to.n == list[i].to.n || list[k].pfn.n == list[i].pfn.n) {
                list[i].status = FS_ABI_ENTRY_BAD;
            }
        }
    }
    for (uint32_t z = 0; z < r->mm->zone_count; z++) {
        move_free(r, list, count, &r->mm->zones[z]);
    }
    for (size_t i = 0; i < count; i++) {
        enum kind kind = list[i].status == FS_ABI_ENTRY_NONE ? page_kind(r->mm, list[i].pfn, &p) : KIND_KERNEL;

        if (kind == KIND_USER && page_order(p) != 0) {
            move_unit(r, list, count, i, p, verify, out);
        } else if (kind == KIND_USER) {
            list[i].status = relocate_user(r, &list[i], p, verify, &out->value[FS_ABI_MOVED_VERIFIED]);
        } else if (kind == KIND_NONE) {
            list[i].status = FS_ABI_ENTRY_BAD;
        }
    }
    move_kernel(r, list, count, verify, out);
    mm_walk_end(r->mm, walk);
    add_up(list, count, out);
}

void relocate_init(struct relocate *r, struct mm *mm, struct vm *vm)
{
    *r = (struct relocate){ .mm = mm, .vm = vm };
}
