/*
 * page.c - names, references and the lock of struct page.
 *
 * Owns: the reference count's rule, PG_LOCKED.
 * Invariants:
 *   I1  only the head of a unit has a state other than PAGE_NONE; reserved pages and
 *       holes are units of order 0; a page that its block's free map has is PAGE_NONE.
 *   I2  refs is 0 exactly while the page is free (in the free map, or PAGE_PCP), frozen, a hole or not a head.
 * Lock order: the count is atomic; the page lock comes after mm_struct.mmap_lock and before every other.
 * Why: a scanner meets pages that are being freed on another CPU.  A count that only
 *   rises from a value above zero makes "it is still allocated" and "I hold it" one step.
 * Cost: one compare-and-swap.
 */
#include "page.h"
#include "../arch/arch.h"

void page_lock(struct page *p)
{
    while (!page_trylock(p)) {
        while (page_test(p, PG_LOCKED)) {
            arch_cpu_relax();
        }
    }
}

bool page_try_get(struct page *p)
{
    int32_t refs = atomic_load_explicit(&p->refs, memory_order_relaxed);

    while (refs > 0) {
        if (atomic_compare_exchange_weak_explicit(&p->refs, &refs, refs + 1,
                                                  memory_order_acquire, memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

const char *page_state_name(enum page_state s)
{
    static const char *const names[PAGE_STATES] = {
        "none", "pcp", "used", "reserved", "hole", "frozen",
    };
    return (unsigned)s < PAGE_STATES ? names[s] : "bad";
}

const char *migratetype_name(enum migratetype t)
{
    static const char *const names[MIGRATE_TYPES] = {
        "Unmovable", "Movable", "Reclaimable", "Accounted", "HighAtomic", "Isolate",
    };
    return (unsigned)t < MIGRATE_TYPES ? names[t] : "bad";
}
