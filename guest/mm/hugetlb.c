/*
 * hugetlb.c - the pool of huge pages.
 *
 * Layer: L4
 * Owns: struct hugetlb; PG_HUGE; lru_next, lru_prev and private of its free pages.
 * Invariants:
 *   I1  nr is the number of pages of the node with PG_HUGE; free of them are on its list: refs 1 (the pool's), mapping NULL, private HUGETLB_FREE.
 *   I2  reserved <= free in all: a promise is kept without asking the allocator. (While a promise is given back its page follows in a moment.)
 *   I3  surplus <= nr of each node; a page that comes back to a node with surplus leaves the pool, unless it is promised.
 *   I4  no page is given to the allocator or asked of it with the lock held.
 * Lock order: hugetlb.lock comes under page locks and the reverse maps' locks, and above zone.lock only.
 * Why: whole blocks are scarce on an aged machine, so who needs them sure has them set aside; a page of the pool is movable like any other, which
 *   is what lets an aged machine be offlined with a pool in use.
 * Cost: taking and giving back: one lock and two links. Growing costs what the allocator's slow path costs.
 */
#include "hugetlb.h"
#include "../lib/text.h"
#include "compaction.h"
#include "mempolicy.h"
#include "reclaim.h"
#include "frameshift/assert.h"

#define HUGETLB_FREE   0x68756765ull            /* private of a page in nobody's hands */
#define GFP_POOL       (GFP_HIGH_MOVABLE | __GFP_COMP | __GFP_THISNODE)
#define HARD_TRIES     4u
#define WAIT_TRIES     100000000u

void hugetlb_init(struct hugetlb *h, struct vm *vm)
{
    ASSERT(vm->mm != NULL);
    *h = (struct hugetlb){ .vm = vm };
    vm->hugetlb = h;
}

/* ---- lists. pre: lock ---- */

static struct hugetlb_node *node_of(struct hugetlb *h, const struct page *p)
{
    return &h->nodes[mm_block_zone(h->vm->mm, page_block(p))->node];
}

static void link_free(struct hugetlb_node *n, struct page *p)
{
    p->private = HUGETLB_FREE;
    p->lru_prev = NULL;
    p->lru_next = n->first;
    if (n->first != NULL) {
        n->first->lru_prev = p;
    }
    n->first = p;
    n->free++;
}

static void unlink_free(struct hugetlb_node *n, struct page *p)
{
    struct page *next = p->lru_next, *prev = p->lru_prev;

    if (next != NULL) {
        next->lru_prev = prev;
    }
    if (prev != NULL) {
        prev->lru_next = next;
    } else {
        n->first = next;
    }
    p->lru_next = p->lru_prev = NULL;
    p->private = 0;
    n->free--;
}

static uint64_t all_free(const struct hugetlb *h)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < h->vm->mm->node_count; i++) {
        n += h->nodes[i].free;
    }
    return n;
}

static uint64_t persistent(const struct hugetlb *h, uint32_t node)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < h->vm->mm->node_count; i++) {
        n += node == HUGETLB_ALL_NODES || node == i ? h->nodes[i].nr - h->nodes[i].surplus : 0;
    }
    return n;
}

static uint64_t persistent_locked(struct hugetlb *h, uint32_t node)
{
    uint64_t n;

    spin_lock(&h->lock);
    n = persistent(h, node);
    spin_unlock(&h->lock);
    return n;
}

bool hugetlb_page_free(const struct page *page)
{
    return page_test(page, PG_HUGE) && page->private == HUGETLB_FREE && page->mapping == NULL;
}

/* ---- pages of the allocator ---- */

/* Compaction and reclaim by turns until there is a whole block or neither gets on. The block that compaction makes goes from its hands into the pool's. */
static struct page *alloc_hard(struct vm *vm, uint32_t node)
{
    const struct compact_request request = { .targets = TARGET_BOOT, .blocks_wanted = 1, .mode = COMPACT_SYNC_LIGHT, .capture = true,
                                             .unit_order = HUGE_ORDER, .unit_type = MIGRATE_MOVABLE };
    struct page *p = NULL;
    bool progress = true;

    for (unsigned tries = 0; p == NULL && progress && tries < HARD_TRIES; tries++) {
        progress = false;
        for (uint32_t i = 0; p == NULL && i < vm->mm->zone_count; i++) {
            struct zone *z = &vm->mm->zones[i];
            struct compact_result r = { .blocks_made = 0 };

            if (z->node != node || z->rank == NULL || vm->mm->migrate.move == NULL) {
                continue;
            }
            if (zone_watermark_ok(z, HUGE_ORDER, 1, WMARK_MIN, ZONE_MOVABLE, GFP_POOL) && compact_zone(vm->mm, z, &request, &r) == MM_OK
                && r.captured != NULL) {
                p = alloc_captured(r.captured, GFP_POOL);
            }
            if (p == NULL && vm->mm->hooks.reclaim != NULL) {
                progress |= reclaim_zone(vm, z, HUGE_PAGES, GFP_HIGH_MOVABLE) >= HUGE_PAGES / 8;
            }
        }
    }
    return p;
}

/* One more page for the pool, in use; NULL: memory gives no more. */
static struct page *page_new(struct vm *vm, uint32_t node, bool hard)
{
    struct page *p = alloc_pages_node(vm->mm, node, GFP_POOL, HUGE_ORDER);

    if (p == NULL && hard) {
        p = alloc_hard(vm, node);
    }
    if (p != NULL) {
        page_set_flags(p, PG_HUGE);
    }
    return p;
}

static void page_leaves(struct vm *vm, struct page *p)
{
    page_clear_flags(p, PG_HUGE);
    page_put(vm->mm, p);
}

/* ---- the size ---- */

static bool grow_one(struct hugetlb *h, uint32_t node)
{
    struct page *p;
    bool adopted = false;

    spin_lock(&h->lock);
    if (h->nodes[node].surplus > 0) {           /* one that is there already stays */
        h->nodes[node].surplus--;
        h->surplus--;
        adopted = true;
    }
    spin_unlock(&h->lock);
    if (adopted) {
        return true;
    }
    p = page_new(h->vm, node, true);
    if (p == NULL) {
        vm_count(h->vm, VMC_hugetlb_alloc_fail, 1);
        return false;
    }
    spin_lock(&h->lock);
    h->nodes[node].nr++;
    link_free(&h->nodes[node], p);
    spin_unlock(&h->lock);
    vm_count(h->vm, VMC_hugetlb_alloc, 1);
    return true;
}

/* Take one away: a free one that nobody was promised, else one in use or promised becomes surplus. */
static bool shrink_one(struct hugetlb *h, uint32_t node)
{
    struct hugetlb_node *n = &h->nodes[node];
    struct page *p = NULL;
    bool done = false;

    spin_lock(&h->lock);
    if (n->free > 0 && all_free(h) > h->reserved) {
        p = n->first;
        unlink_free(n, p);
        n->nr--;
        done = true;
    } else if (n->nr > n->surplus) {
        n->surplus++;
        h->surplus++;
        done = true;
    }
    spin_unlock(&h->lock);
    if (p != NULL) {
        page_leaves(h->vm, p);
        vm_count(h->vm, VMC_hugetlb_free, 1);
    }
    return done;
}

/* The node that is next to get one more (the smallest) or one less (the largest); tried: nodes that could not. */
static uint32_t next_node(struct hugetlb *h, bool grow, uint32_t tried)
{
    uint32_t best = MM_NODES_MAX;

    spin_lock(&h->lock);
    for (uint32_t i = 0; i < h->vm->mm->node_count; i++) {
        uint64_t mine = persistent(h, i), other = best < MM_NODES_MAX ? persistent(h, best) : 0;

        if (!(tried & 1u << i) && (best == MM_NODES_MAX || (grow ? mine < other : mine > other))) {
            best = i;
        }
    }
    spin_unlock(&h->lock);
    return best;
}

uint64_t hugetlb_set_pool(struct vm *vm, uint32_t node, uint64_t pages)
{
    struct hugetlb *h = vm->hugetlb;
    uint64_t have = persistent_locked(h, node);
    bool grow = have < pages;
    uint32_t tried = 0, at;

    ASSERT(node == HUGETLB_ALL_NODES || node < vm->mm->node_count);
    for (; have != pages; have = persistent_locked(h, node)) {
        at = node != HUGETLB_ALL_NODES ? (tried != 0 ? MM_NODES_MAX : node) : next_node(h, grow, tried);
        if (at == MM_NODES_MAX) {
            break;
        }
        if (grow ? !grow_one(h, at) : !shrink_one(h, at)) {
            tried |= 1u << at;
        }
    }
    return have;
}

void hugetlb_set_overcommit(struct vm *vm, uint64_t pages)
{
    spin_lock(&vm->hugetlb->lock);
    vm->hugetlb->overcommit = pages;
    spin_unlock(&vm->hugetlb->lock);
}

void hugetlb_destroy(struct hugetlb *h)
{
    ASSERT_CMP(h->reserved, ==, 0);
    (void)hugetlb_set_pool(h->vm, HUGETLB_ALL_NODES, 0);
    for (uint32_t i = 0; i < MM_NODES_MAX; i++) {
        ASSERT_CMP(h->nodes[i].nr, ==, 0);
    }
    h->vm->hugetlb = NULL;
}

/* ---- surplus pages ---- */

/* A page from the allocator beyond the size that was set, if there may be one; it is counted and in use. */
static struct page *surplus_new(struct hugetlb *h, nodemask_t nodes)
{
    struct vm *vm = h->vm;
    struct page *p = NULL;
    bool may;

    spin_lock(&h->lock);
    may = h->surplus < h->overcommit;
    h->surplus += may;
    spin_unlock(&h->lock);
    for (uint32_t node = 0; may && p == NULL && node < vm->mm->node_count; node++) {
        p = (nodes >> node & 1) == 0 ? NULL : page_new(vm, node, false);
    }
    spin_lock(&h->lock);
    if (p != NULL) {
        struct hugetlb_node *n = node_of(h, p);

        n->nr++;
        n->surplus++;
    } else if (may) {
        h->surplus--;
    }
    spin_unlock(&h->lock);
    return p;
}

mm_status_t hugetlb_reserve(struct vm *vm, uint64_t n)
{
    struct hugetlb *h = vm->hugetlb;
    mm_status_t status = MM_EAGAIN;

    if (h == NULL) {
        return MM_ENOMEM;
    }
    while (status == MM_EAGAIN) {
        struct page *p;

        spin_lock(&h->lock);
        if (all_free(h) >= h->reserved + n) {   /* I2 */
            h->reserved += n;
            status = MM_OK;
        }
        spin_unlock(&h->lock);
        if (status == MM_OK) {
            break;
        }
        p = surplus_new(h, ~(nodemask_t)0);
        if (p == NULL) {
            hugetlb_unreserve(vm, 0);           /* surplus pages that were had in vain go back */
            return MM_ENOMEM;
        }
        spin_lock(&h->lock);
        link_free(node_of(h, p), p);
        spin_unlock(&h->lock);
    }
    return status;
}

/* Free surplus pages that nobody was promised go back to the allocator. */
void hugetlb_unreserve(struct vm *vm, uint64_t n)
{
    struct hugetlb *h = vm->hugetlb;
    struct page *p;

    if (h == NULL) {
        return;
    }
    spin_lock(&h->lock);
    ASSERT_CMP(h->reserved, >=, n);
    h->reserved -= n;
    spin_unlock(&h->lock);
    do {
        p = NULL;
        spin_lock(&h->lock);
        for (uint32_t i = 0; p == NULL && i < vm->mm->node_count && all_free(h) > h->reserved; i++) {
            struct hugetlb_node *node = &h->nodes[i];

            if (node->surplus > 0 && node->free > 0) {      /* I3 */
                p = node->first;
                unlink_free(node, p);
                node->nr--;
                node->surplus--;
                h->surplus--;
            }
        }
        spin_unlock(&h->lock);
        if (p != NULL) {
            page_leaves(vm, p);
        }
    } while (p != NULL);
}

/* ---- taking and giving back ---- */

/* A free page of one of these nodes, the CPU's own first; NULL: none is free there, or all are promised. */
static struct page *take_free(struct hugetlb *h, nodemask_t nodes, bool reserved)
{
    const struct mm *mm = h->vm->mm;
    uint32_t home = mm->cpu_node[arch_cpu_id() < mm->cpus ? arch_cpu_id() : 0];
    struct page *p = NULL;

    spin_lock(&h->lock);
    for (uint32_t i = 0; p == NULL && i < mm->node_count && (reserved || all_free(h) > h->reserved); i++) {
        uint32_t node = (home + i) % mm->node_count;

        p = nodes >> node & 1 ? h->nodes[node].first : NULL;
        if (p != NULL) {
            unlink_free(&h->nodes[node], p);
            h->reserved -= reserved;
        }
    }
    spin_unlock(&h->lock);
    return p;
}

struct page *hugetlb_alloc(struct vm *vm, bool reserved, const struct mpol_place *place)
{
    const struct mempolicy *policy = place != NULL ? place->policy : NULL;
    bool decides = policy != NULL && policy->mode != MPOL_LOCAL;
    nodemask_t nodes = decides ? mpol_nodes(vm->mm, policy, place->index >> HUGE_ORDER) : ~(nodemask_t)0;
    bool bound = decides && policy->mode == MPOL_BIND && !reserved;         /* I2: a promise is kept, elsewhere if need be */
    struct page *p = take_free(vm->hugetlb, nodes, reserved);
    unsigned tries = 0;

    while (p == NULL && !bound) {
        p = take_free(vm->hugetlb, ~(nodemask_t)0, reserved);
        if (p != NULL || !reserved) {
            break;
        }
        ASSERT_CMP(++tries, <, WAIT_TRIES);     /* I2: somebody still looks at the page that is on its way back */
        arch_cpu_relax();
    }
    p = p != NULL ? p : surplus_new(vm->hugetlb, bound ? nodes : ~(nodemask_t)0);
    if (decides) {
        vm_count(vm, p == NULL ? VMC_policy_refused : nodes >> page_node(vm->mm, p) & 1 ? VMC_policy_hit : VMC_policy_miss, 1);
    }
    return p;
}

void hugetlb_put_back(struct vm *vm, struct page *page, bool reserved)
{
    spin_lock(&vm->hugetlb->lock);
    vm->hugetlb->reserved += reserved;
    spin_unlock(&vm->hugetlb->lock);
    page_put(vm->mm, page);
}

bool hugetlb_release(struct vm *vm, struct page *page)
{
    struct hugetlb *h = vm->hugetlb;
    struct hugetlb_node *n = node_of(h, page);
    bool leaves;

    spin_lock(&h->lock);
    leaves = n->surplus > 0 && all_free(h) >= h->reserved;      /* I3 */
    page->mapping = NULL;
    if (leaves) {
        n->surplus--;
        h->surplus--;
        n->nr--;
        page_clear_flags(page, PG_HUGE);
        page->private = 0;
    } else {
        page_clear_flags(page, PG_DIRTY | PG_UPTODATE | PG_REFERENCED | PG_ACTIVE | PG_MLOCKED);
        atomic_store_explicit(&page->refs, 1, memory_order_release);
        link_free(n, page);
    }
    spin_unlock(&h->lock);
    return leaves;
}

/* ---- migration ---- */

/* pre: lock */
static void change_node(struct hugetlb *h, struct page *from, struct page *to)
{
    struct hugetlb_node *old = node_of(h, from), *new = node_of(h, to);

    page_clear_flags(from, PG_HUGE);
    page_set_flags(to, PG_HUGE);
    if (old != new) {                           /* a surplus goes along only where the old node would have more of them than pages */
        uint64_t surplus = old->surplus > --old->nr;

        new->nr++;
        old->surplus -= surplus;
        new->surplus += surplus;
    }
}

mm_status_t hugetlb_replace_free(struct vm *vm, struct page *from, struct page *to)
{
    struct hugetlb *h = vm->hugetlb;
    mm_status_t status;

    spin_lock(&h->lock);
    status = hugetlb_page_free(from) ? MM_EAGAIN : MM_EINVAL;
    if (status == MM_EAGAIN && page_refs(from) == 2) {
        struct hugetlb_node *old = node_of(h, from), *new = node_of(h, to);

        unlink_free(old, from);
        to->mapping = NULL;
        change_node(h, from, to);
        link_free(new, to);
        status = MM_OK;
    }
    spin_unlock(&h->lock);
    if (status == MM_OK) {
        page_put(vm->mm, from);                 /* the pool's; the caller has one still */
        vm_count(vm, VMC_hugetlb_migrate, 1);
    }
    return status;
}

void hugetlb_replace_used(struct vm *vm, struct page *from, struct page *to)
{
    spin_lock(&vm->hugetlb->lock);
    change_node(vm->hugetlb, from, to);
    from->mapping = NULL;
    from->private = 0;
    spin_unlock(&vm->hugetlb->lock);
}

/* ---- shared memory ---- */

static struct page **slots_of(const struct hugetlb_file *f)
{
    return arch_page_address(page_pfn(f->slots));
}

mm_status_t hugetlb_file_create(struct vm *vm, struct hugetlb_file *f, uint32_t units)
{
    *f = (struct hugetlb_file){ .as = { .vm = vm, .gfp = GFP_HIGH_MOVABLE, .hugetlb = true, .backing_ctx = f }, .units = units };
    if (units == 0 || units > HUGETLB_FILE_UNITS) {
        return MM_EINVAL;
    }
    f->slots = alloc_pages(vm->mm, GFP_KERNEL | __GFP_ZERO, 0);
    if (f->slots == NULL) {
        return MM_ENOMEM;
    }
    if (hugetlb_reserve(vm, units) != MM_OK) {
        page_put(vm->mm, f->slots);
        return MM_ENOMEM;
    }
    spin_lock(&vm->hugetlb->lock);
    f->next = vm->hugetlb->files;
    vm->hugetlb->files = f;
    spin_unlock(&vm->hugetlb->lock);
    return MM_OK;
}

uint64_t hugetlb_file_pages(const struct address_space *as)
{
    const struct hugetlb_file *f = as->backing_ctx;

    return (uint64_t)f->units * HUGE_PAGES;
}

void hugetlb_file_destroy(struct hugetlb_file *f)
{
    struct vm *vm = f->as.vm;

    struct hugetlb_file **link = &vm->hugetlb->files;

    ASSERT(f->as.i_mmap == NULL);
    spin_lock(&vm->hugetlb->lock);
    while (*link != f) {
        link = &(*link)->next;
    }
    *link = f->next;
    spin_unlock(&vm->hugetlb->lock);
    hugetlb_unreserve(vm, f->units - f->present);
    for (uint32_t i = 0; i < f->units; i++) {
        struct page *p;

        spin_lock(&f->as.tree_lock);            /* it may be moved at this moment */
        p = slots_of(f)[i];
        slots_of(f)[i] = NULL;
        spin_unlock(&f->as.tree_lock);
        if (p != NULL) {
            page_lock(p);
            p->mapping = NULL;
            page_unlock(p);
            page_put(vm->mm, p);
        }
    }
    shared_policy_destroy(vm, &f->as.policy);
    page_put(vm->mm, f->slots);
}

/* A page that has just taken another one's place has its contents when its lock is free; false: it is gone again. */
static bool arrived(const struct address_space *as, struct page *p)
{
    bool good;

    if (page_test(p, PG_UPTODATE)) {
        return true;
    }
    page_lock(p);
    good = p->mapping == as && page_test(p, PG_UPTODATE);
    page_unlock(p);
    return good;
}

mm_status_t hugetlb_file_get(struct address_space *as, uint64_t index, const struct mpol_place *place, struct page **out)
{
    struct hugetlb_file *f = as->backing_ctx;
    struct page *fresh = NULL;
    uint64_t unit = index / HUGE_PAGES;

    if (unit >= f->units) {
        return MM_EINVAL;
    }
    for (;;) {
        struct page *p, *locked = fresh;

        if (locked != NULL) {
            page_lock(locked);                  /* whoever found it by its number looks at mapping and index under this lock */
        }
        spin_lock(&as->tree_lock);
        p = slots_of(f)[unit];
        if (p == NULL && fresh != NULL) {
            p = fresh;
            fresh = NULL;
            p->mapping = as;
            p->index = unit * HUGE_PAGES;
            page_set_flags(p, PG_UPTODATE);
            slots_of(f)[unit] = p;
            f->present++;
        }
        if (p != NULL) {
            page_get(p);
        }
        spin_unlock(&as->tree_lock);
        if (locked != NULL) {
            page_unlock(locked);
        }
        if (p != NULL) {
            if (fresh != NULL) {                /* somebody else was faster */
                hugetlb_put_back(as->vm, fresh, true);
                fresh = NULL;
            }
            if (arrived(as, p)) {
                *out = p;
                return MM_OK;
            }
            page_put(as->vm->mm, p);
            continue;
        }
        fresh = hugetlb_alloc(as->vm, true, place);
        for (uint64_t i = 0; i < HUGE_PAGES; i++) {
            arch_page_clear(pfn_make(fresh->pfn + i));
        }
    }
}

mm_status_t hugetlb_file_replace(struct address_space *as, struct page *old, struct page *new, int32_t expected_refs)
{
    struct hugetlb_file *f = as->backing_ctx;
    mm_status_t status = MM_EAGAIN;

    spin_lock(&as->tree_lock);
    if (old->mapping == as && page_refs(old) == expected_refs) {
        page_get(new);
        slots_of(f)[old->index / HUGE_PAGES] = new;
        old->mapping = NULL;
        status = MM_OK;
    }
    spin_unlock(&as->tree_lock);
    if (status == MM_OK) {
        page_put(as->vm->mm, old);
    }
    return status;
}

/* ---- looking ---- */

struct hugetlb_stats hugetlb_stats(const struct vm *vm, uint32_t node)
{
    const struct hugetlb *h = vm->hugetlb;
    struct hugetlb_stats s = { .nr = 0 };

    for (uint32_t i = 0; h != NULL && i < vm->mm->node_count; i++) {
        if (node == HUGETLB_ALL_NODES || node == i) {
            s.nr += h->nodes[i].nr;
            s.free += h->nodes[i].free;
            s.surplus += h->nodes[i].surplus;
        }
    }
    s.reserved = h != NULL ? h->reserved : 0;
    s.overcommit = h != NULL ? h->overcommit : 0;
    return s;
}

static void field(struct text *t, const char *name, uint64_t value)
{
    text_word(t, name);
    text_number(t, value);
}

void hugetlb_dump(const struct vm *vm, hugetlb_line_fn out, void *ctx)
{
    struct hugetlb_stats s = hugetlb_stats(vm, HUGETLB_ALL_NODES);
    struct text t;

    for (uint32_t i = 0; vm->hugetlb != NULL && i < vm->mm->node_count; i++) {
        const struct hugetlb_node *n = &vm->hugetlb->nodes[i];

        text_clear(&t);
        field(&t, "Node ", i);
        field(&t, " hugepages ", n->nr);
        field(&t, " free ", n->free);
        field(&t, " surplus ", n->surplus);
        out(ctx, t.line);
    }
    text_clear(&t);
    field(&t, "hugepages ", s.nr);
    field(&t, " free ", s.free);
    field(&t, " reserved ", s.reserved);
    field(&t, " surplus ", s.surplus);
    field(&t, " overcommit ", s.overcommit);
    out(ctx, t.line);
}
