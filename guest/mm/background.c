/*
 * background.c - the background threads of a kernel: kswapd, kcompactd and khugepaged.
 *
 * Layer: L5
 * Owns: zone.woken, mm.next_tick_ns.
 * Invariants:
 *   I1  a wake-up that comes while the background is at work is not lost: the mark is taken off before the work begins.
 *   I2  whoever wakes neither waits nor sleeps.
 *   I3  a clock that goes back (a restored guest has another machine's) costs one tick at most.
 * Lock order: none of its own.
 * Why one poll for both: they look at the same zone and the same watermarks, and what one frees the other wants to see.
 * Cost: an idle poll reads one word a zone.
 */
#include "background.h"
#include "compaction.h"
#include "reclaim.h"
#include "thp.h"

static void wake(struct mm *mm, struct zone *z)
{
    (void)mm;
    if (!atomic_load_explicit(&z->woken, memory_order_relaxed)) {
        atomic_store_explicit(&z->woken, true, memory_order_release);
    }
}

void background_init(struct mm *mm)
{
    mm->hooks.wake = wake;
}

static bool serve_zone(struct mm *mm, struct vm *vm, struct zone *z)
{
    if (!atomic_load_explicit(&z->woken, memory_order_relaxed) || !atomic_exchange_explicit(&z->woken, false, memory_order_acquire)) {      /* I1 */
        return false;
    }
    if (vm != NULL && vm->lru != NULL && mm->hooks.reclaim != NULL && reclaim_wanted(z)) {
        (void)reclaim_background(vm, z);
    }
    if (z->rank != NULL) {
        (void)compaction_background(mm, z);
    }
    return true;
}

bool background_poll(struct mm *mm, struct vm *vm, uint64_t now_ns)
{
    bool any = false;

    for (uint32_t i = 0; i < mm->zone_count; i++) {
        any |= serve_zone(mm, vm, &mm->zones[i]);
    }
    if (now_ns >= mm->next_tick_ns || mm->next_tick_ns - now_ns > KCOMPACTD_TICK_NS) {       /* I3 */
        mm->next_tick_ns = now_ns + KCOMPACTD_TICK_NS;
        for (uint32_t node = 0; node < mm->node_count && mm->zones[0].rank != NULL; node++) {
            any |= compaction_proactive(mm, node) > 0;
        }
        any |= vm != NULL && mm->migrate.move != NULL && khugepaged_tick(vm) > 0;
    }
    return any;
}
