/*
 * assert.h - assertions that stay on and print the values they compare.
 *
 * ASSERT checks programmer errors only; the world (guests, files, rings,
 * Xen's answers) is answered with a status instead.  ASSERT_SLOW is for
 * validators and is compiled in with -DFS_SLOW_CHECKS (debug, asan, tests).
 */
#ifndef FRAMESHIFT_ASSERT_H
#define FRAMESHIFT_ASSERT_H

#include "compiler.h"

/* Prints "file:line: assertion failed: expr (a=..., b=...)" and aborts.
 * Hosted code links hv/assert.c; the guest kernel brings its own. */
FS_NORETURN FS_COLD void fs_assert_fail(const char *file, int line, const char *expr,
                                        unsigned long long a, unsigned long long b);

#define ASSERT(e)                                                                    \
    do {                                                                             \
        if (fs_unlikely(!(e))) {                                                     \
            fs_assert_fail(__FILE__, __LINE__, #e, 0, 0);                            \
        }                                                                            \
    } while (0)

#define ASSERT_CMP(a, op, b)                                                         \
    do {                                                                             \
        unsigned long long fs_a_ = (unsigned long long)(a);                          \
        unsigned long long fs_b_ = (unsigned long long)(b);                          \
        if (fs_unlikely(!(fs_a_ op fs_b_))) {                                        \
            fs_assert_fail(__FILE__, __LINE__, #a " " #op " " #b, fs_a_, fs_b_);     \
        }                                                                            \
    } while (0)

#ifdef FS_SLOW_CHECKS
#define ASSERT_SLOW(e) ASSERT(e)
#else
#define ASSERT_SLOW(e) ((void)sizeof(!(e)))
#endif

#endif
