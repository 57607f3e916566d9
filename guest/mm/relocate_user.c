/*
 * relocate_user.c - another machine frame under a page of processes or of a cache, while they run; where page tables are linked.
 *
 * Layer: L3
 * Owns: the order of the steps for one user page.
 * Invariants:
 *   I1  while the contents are copied and the frame is switched, no entry names the frame (all say "migration"), the page is
 *       locked, and nobody holds a reference but the caller and the cache that it is in; the cache's lock is held, so
 *       nobody finds the page there meanwhile.
 *   I2  a page that is not moved has its entries back, as they were.
 *   I3  a page that is being set up, written out or held is passed by: it is asked for again.
 * Lock order: page lock; then tree_lock or swap.lock over arch_frames_move(), which has no safepoint.
 * Why as migration does it: entries that wait, an exact count of references, a copy; only the struct page stays the same one, so
 *   LRU lists, caches and counts do not change at all.
 *   A huge page is unmapped once for all of its parts that are asked for together.
 * Cost: an exchange, a flush and a write for each entry; one copy; three updates of the machine.
 */
#include "relocate.h"
#include "pagecache.h"
#include "pgtable.h"
#include "rmap.h"
#include "swap.h"
#include "thp.h"
#include "frameshift/assert.h"

#define LOCK_TRIES 64u

bool relocate_is_user(const struct page *p)
{
    return page_type(p) == MIGRATE_MOVABLE || page_test(p, PG_LRU | PG_ANON | PG_SWAPCACHE | PG_MLOCKED) ||
           (!page_test(p, PG_SLAB | PG_TABLE) && atomic_load_explicit(&p->mapcount, memory_order_relaxed) > 0);
}

static bool lock_page(struct page *p)
{
    for (unsigned i = 0; i < LOCK_TRIES; i++) {
        if (page_trylock(p)) {
            return true;
        }
        arch_cpu_relax();
    }
    return false;
}

/* pre: locked, not mapped. The lock under which its cache gives out references, or NULL; refs: how many there may be. */
static struct spinlock *cache_lock(struct relocate *r, const struct page *p, int32_t *refs)
{
    *refs = 2;                                  /* the cache's and ours */
    if (hugetlb_page_free(p)) {
        return &r->vm->hugetlb->lock;
    }
    if (!page_test(p, PG_ANON)) {
        return &((struct address_space *)p->mapping)->tree_lock;
    }
    if (page_test(p, PG_SWAPCACHE)) {
        return &r->vm->swap->lock;
    }
    *refs = 1;
    return NULL;
}

static bool switch_frame(struct relocate *r, const struct relocate_entry *e, struct page *p, bool verify, uint64_t *verified, uint32_t *status)
{
    struct arch_frame_move m = { .pfn = e->pfn, .from = e->from, .to = e->to, .copy = true };
    int32_t refs;
    struct spinlock *lock = cache_lock(r, p, &refs);

    *status = FS_ABI_ENTRY_BUSY;
    if (lock != NULL) {
        spin_lock(lock);
    }
    if (page_refs(p) == refs) {                 /* I1 */
        *status = arch_frames_move(&m, 1, verify, verified) == 1 ? FS_ABI_ENTRY_USER : FS_ABI_ENTRY_REFUSED;
    }
    if (lock != NULL) {
        spin_unlock(lock);
    }
    return *status == FS_ABI_ENTRY_USER;
}

/* pre: locked, a reference is held */
static uint32_t move_locked(struct relocate *r, const struct relocate_entry *e, struct page *p, bool verify, uint64_t *verified)
{
    uint32_t status = FS_ABI_ENTRY_BUSY;

    if (page_test(p, PG_DMA)) {
        return FS_ABI_ENTRY_DMA;
    }
    if (page_test(p, PG_PINNED | PG_WRITEBACK | PG_SLAB | PG_TABLE) || page_order(p) != 0 || p->mapping == NULL || !relocate_is_user(p)) {
        return FS_ABI_ENTRY_BUSY;               /* I3 */
    }
    if (try_to_unmap(r->vm, p, UNMAP_MIGRATION) == MM_OK) {
        (void)switch_frame(r, e, p, verify, verified, &status);
    }
    remove_migration_ptes(r->vm, p, p);         /* I2; the entries name whatever frame the page has now */
    return status;
}

uint32_t relocate_user(struct relocate *r, const struct relocate_entry *e, struct page *p, bool verify, uint64_t *verified)
{
    uint32_t status = FS_ABI_ENTRY_BUSY;

    if (r->vm == NULL || p->pfn != e->pfn.n || !page_try_get(p)) {
        return FS_ABI_ENTRY_BUSY;
    }
    if (lock_page(p)) {
        status = move_locked(r, e, p, verify, verified);
        page_unlock(p);
    }
    page_put(r->mm, p);
    return status;
}

/* ---- huge pages ---- */

/* Switch the frames of those parts that are asked for. pre: locked, a reference is held, nothing maps it */
static void switch_parts(struct relocate *r, struct relocate_entry *list, const size_t *of, size_t n, const struct page *head, bool verify,
                         uint64_t *verified)
{
    struct arch_frame_move moves[ARCH_MOVES_MAX];
    int32_t refs;
    struct spinlock *lock = cache_lock(r, head, &refs);

    if (lock != NULL) {
        spin_lock(lock);
    }
    if (page_refs(head) == refs && (head->mapping != NULL || hugetlb_page_free(head))) {       /* I1 */
        for (size_t i = 0; i < n; i++) {
            const struct relocate_entry *e = &list[of[i]];

            moves[i] = (struct arch_frame_move){ .pfn = e->pfn, .from = e->from, .to = e->to, .copy = true };
        }
        (void)arch_frames_move(moves, n, verify, verified);
        for (size_t i = 0; i < n; i++) {
            list[of[i]].status = moves[i].done ? FS_ABI_ENTRY_USER : FS_ABI_ENTRY_REFUSED;
        }
    }
    if (lock != NULL) {
        spin_unlock(lock);
    }
}

void relocate_unit(struct relocate *r, struct relocate_entry *list, const size_t *of, size_t n, struct page *head, bool verify, uint64_t *verified)
{
    uint32_t answer = page_test(head, PG_DMA) ? FS_ABI_ENTRY_DMA : FS_ABI_ENTRY_BUSY;

    ASSERT_CMP(n, <=, ARCH_MOVES_MAX);
    for (size_t i = 0; i < n; i++) {
        list[of[i]].status = answer;
    }
    if (r->vm == NULL || answer == FS_ABI_ENTRY_DMA || !page_try_get(head)) {
        return;
    }
    if (lock_page(head)) {
        bool mine = page_order(head) == HUGE_ORDER && !page_test(head, PG_PINNED | PG_DMA) && relocate_is_user(head);

        if (mine && head->mapping != NULL) {
            if (try_to_unmap(r->vm, head, UNMAP_MIGRATION) == MM_OK) {
                switch_parts(r, list, of, n, head, verify, verified);
            }
            remove_migration_ptes(r->vm, head, head);   /* I2 */
        } else if (mine && hugetlb_page_free(head)) {
            switch_parts(r, list, of, n, head, verify, verified);
        }
        page_unlock(head);
    }
    page_put(r->mm, head);
}

/* ---- page tables ---- */

static uint32_t va_slot(uint64_t va, unsigned level)
{
    return (uint32_t)(va >> (FS_PAGE_SHIFT + 9 * (level - 1))) % ARCH_PT_SLOTS;
}

bool relocate_table_place(struct relocate *r, const struct page *p, struct arch_table_place *at)
{
    const struct mm_struct *mm = p->mapping;
    pfn_t table;

    *at = (struct arch_table_place){ .level = (unsigned)p->private, .parent = PFN_NONE };
    if (r->vm == NULL || mm == NULL || at->level < 1 || at->level > ARCH_PT_LEVELS) {
        return false;
    }
    if (at->level == ARCH_PT_LEVELS || !mm_pfn_valid(r->mm, mm->pgd)) {
        return at->level == ARCH_PT_LEVELS;
    }
    table = mm->pgd;
    for (unsigned level = ARCH_PT_LEVELS; level > at->level; level--) {
        uint32_t slot = va_slot(p->index, level);
        uint64_t e = ((const uint64_t *)arch_page_address(table))[slot];
        pfn_t below = pte_present(e) ? arch_pte_pfn(e) : PFN_NONE;

        if (level == at->level + 1 && below.n == p->pfn) {
            at->parent = table;
            at->slot = slot;
        }
        if (pfn_is_none(below)) {
            break;                              /* not linked: nothing leads to it */
        }
        table = below;
    }
    return true;
}
