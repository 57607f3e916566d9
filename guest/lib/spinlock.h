/*
 * spinlock.h - a test-and-test-and-set lock on one byte.
 *
 * Owns: struct spinlock.  Fair queueing is not needed: the locks of guest/mm are
 * held for less than a microsecond and the common paths try first (per-CPU lists).
 */
#ifndef GUEST_LIB_SPINLOCK_H
#define GUEST_LIB_SPINLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include "../arch/arch.h"

struct spinlock { _Atomic uint8_t held; };

static inline bool spin_trylock(struct spinlock *l)
{
    return atomic_exchange_explicit(&l->held, 1, memory_order_acquire) == 0;
}

static inline void spin_lock(struct spinlock *l)
{
    while (!spin_trylock(l)) {
        while (atomic_load_explicit(&l->held, memory_order_relaxed) != 0) {
            arch_cpu_relax();
        }
    }
}

static inline void spin_unlock(struct spinlock *l)
{
    atomic_store_explicit(&l->held, 0, memory_order_release);
}

static inline bool spin_held(const struct spinlock *l)
{
    return atomic_load_explicit(&l->held, memory_order_relaxed) != 0;
}

#endif
