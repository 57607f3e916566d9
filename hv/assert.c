/*
 * assert.c - where a failed assertion ends in hosted programs.
 *
 * Owns: fs_assert_fail() for the engine, the tools and the tests; the guest
 * kernel brings its own.
 * Invariants: I1 nothing is allocated and no lock is taken on the way out: the
 * failure may come from a signal handler's victim or from inside malloc.
 * Why abort() and not exit(): the journal and the lock survive an abort as they
 * survive a kill, and a core file shows the values; an exit handler that "cleans
 * up" after a broken invariant would act on state nobody understands.
 * Cost: none until it is the last thing that the program does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "frameshift/assert.h"

void fs_assert_fail(const char *file, int line, const char *expr, unsigned long long a, unsigned long long b)
{
    char text[512];
    int n;

    n = snprintf(text, sizeof(text), "%s:%d: assertion failed: %s (a=%llu 0x%llx, b=%llu 0x%llx)\n", file, line, expr,
                 a, a, b, b);
    size_t bytes = n < 0 ? 0 : (size_t)n;
    if (bytes >= sizeof(text)) {
        bytes = sizeof(text) - 1;
        text[bytes - 1] = '\n';
    }
    /* A short or failed write cannot be helped any more. */
    if (write(STDERR_FILENO, text, bytes) < 0) {
        abort();
    }
    abort();
}
