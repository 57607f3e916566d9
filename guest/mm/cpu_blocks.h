/*
 * cpu_blocks.h - pageblocks that a CPU changes under a lock of its own.
 *
 * Layer: L1
 * A CPU that keeps meeting others at the zone's lock gets movable blocks of its own; it takes pages from them and
 * gives pages back to them without that lock. Who locks the zone (zone_lock()) has all of them too, and sees true counts.
 */
#ifndef GUEST_MM_CPU_BLOCKS_H
#define GUEST_MM_CPU_BLOCKS_H

#include "zone.h"

mm_status_t cpu_blocks_init(struct zone *z, const struct mm_config *c, uint32_t blocks) FS_MUST_CHECK;

static inline struct cpu_blocks *cpu_blocks_this(const struct zone *z)
{
    unsigned cpu = arch_cpu_id();

    return &z->cpu_blocks[cpu < z->cpus ? cpu : 0];
}

/* Has it met others often enough? Only then cpu_blocks_alloc(), _free() and _adopt() are called. */
static inline bool cpu_blocks_wanted(const struct cpu_blocks *c) { return atomic_load_explicit(&c->wanted, memory_order_relaxed); }

/* Wait for the zone's lock, and remember it. */
void cpu_blocks_met(struct zone *z, struct cpu_blocks *c);
/* The zone's lock alone, without the blocks of CPUs: of the blocks only those outside z->owned may be changed. Remembers whether the CPU
 * had to wait for it. Let go by zone_unlock(). */
static inline void zone_lock_outside(struct zone *z, struct cpu_blocks *c)
{
    uint8_t contended;

    if (fs_unlikely(!spin_trylock(&z->lock))) {
        cpu_blocks_met(z, c);
        return;
    }
    contended = atomic_load_explicit(&c->contended, memory_order_relaxed);
    if (fs_unlikely(contended != 0) && !cpu_blocks_wanted(c)) {
        atomic_store_explicit(&c->contended, (uint8_t)(contended - 1), memory_order_relaxed);
    }
}
/* From that to zone_lock(). */
static inline void zone_lock_rest(struct zone *z)
{
    if (atomic_load_explicit(&z->owned_blocks, memory_order_relaxed) != 0) {
        cpu_blocks_hold(z);
    }
}

/* c is this CPU's in the three. Up to n movable units of order < PCP_ORDERS, as PAGE_PCP, from blocks of this CPU; it is given others if
 * memory is plenty. 0: as if there were no such blocks. *wake: as refill() has it. pre: no zone lock is held */
uint32_t cpu_blocks_alloc(struct mm *mm, struct zone *z, struct cpu_blocks *c, unsigned order, uint32_t n, enum watermark mark,
                          enum zone_kind class, gfp_t gfp, struct page **out, bool *wake);
/* Give back those of n pages that are of this CPU's blocks; the others are moved to the front. Returns how many these are.
 * pre: the same, refs 0 */
uint32_t cpu_blocks_free(struct mm *mm, struct zone *z, struct cpu_blocks *c, struct page **pages, uint32_t n);
/* Pages were given back to these blocks, which now may become this CPU's. pre: the zone's lock, and no cpu_blocks' */
void cpu_blocks_adopt(struct mm *mm, struct zone *z, struct cpu_blocks *c, struct page *const *pages, uint32_t n);

/* The block is nobody's. pre: zone_lock(), or it was nobody's before */
void cpu_blocks_disown(struct zone *z, uint32_t block);
/* The end of an edit of an own block: its new mask, and so many more free pages. pre: c's lock */
void cpu_blocks_edit_end(struct cpu_blocks *c, struct pageblock *pb, uint32_t position, uint32_t mask, int32_t pages);

#endif
