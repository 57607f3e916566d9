/*
 * background.h - the background threads of a kernel: kswapd, kcompactd and khugepaged.  Layer: L5
 */
#ifndef GUEST_MM_BACKGROUND_H
#define GUEST_MM_BACKGROUND_H

#include "vm.h"

/* Sets hooks.wake: who needs the background leaves a mark on the zone. */
void background_init(struct mm *mm);
/* What a kernel's thread calls again and again, with no lock held: zones that were marked get their turn (reclaim first, then compaction), and twice a second
 * of now_ns each node's fragmentation is looked at and khugepaged has its tick. vm NULL: nothing can be reclaimed. False: there was nothing to do.
 * One caller at a time. */
bool background_poll(struct mm *mm, struct vm *vm, uint64_t now_ns);

#endif
