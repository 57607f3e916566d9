/*
 * rwlock.h - many readers or one writer, spinning.
 *
 * Owns: struct rwlock.  A writer that waits keeps new readers out, so it cannot starve.  Readers must not
 * nest: a second read lock behind a waiting writer would wait for ever.
 */
#ifndef GUEST_LIB_RWLOCK_H
#define GUEST_LIB_RWLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include "../arch/arch.h"

#define RWLOCK_WRITER 0x80000000u       /* held by a writer */
#define RWLOCK_WAITER 0x40000000u       /* a writer waits */

struct rwlock { _Atomic uint32_t state; };      /* the rest: readers */

static inline bool read_trylock(struct rwlock *l)
{
    uint32_t s = atomic_load_explicit(&l->state, memory_order_relaxed);

    return (s & (RWLOCK_WRITER | RWLOCK_WAITER)) == 0
        && atomic_compare_exchange_strong_explicit(&l->state, &s, s + 1, memory_order_acquire, memory_order_relaxed);
}
static inline void read_lock(struct rwlock *l)
{
    while (!read_trylock(l)) {
        arch_cpu_relax();
    }
}
static inline void read_unlock(struct rwlock *l)
{
    atomic_fetch_sub_explicit(&l->state, 1, memory_order_release);
}

static inline bool write_trylock(struct rwlock *l)
{
    uint32_t s = atomic_load_explicit(&l->state, memory_order_relaxed) & RWLOCK_WAITER;

    return atomic_compare_exchange_strong_explicit(&l->state, &s, RWLOCK_WRITER, memory_order_acquire, memory_order_relaxed);
}
static inline void write_lock(struct rwlock *l)
{
    while (!write_trylock(l)) {
        atomic_fetch_or_explicit(&l->state, RWLOCK_WAITER, memory_order_relaxed);
        arch_cpu_relax();
    }
}
/* Another writer that waits says so again by itself. */
static inline void write_unlock(struct rwlock *l)
{
    atomic_fetch_and_explicit(&l->state, ~RWLOCK_WRITER, memory_order_release);
}

static inline bool rwlock_write_held(const struct rwlock *l)
{
    return (atomic_load_explicit(&l->state, memory_order_relaxed) & RWLOCK_WRITER) != 0;
}
static inline bool rwlock_held(const struct rwlock *l)
{
    return (atomic_load_explicit(&l->state, memory_order_relaxed) & ~RWLOCK_WAITER) != 0;
}

#endif
