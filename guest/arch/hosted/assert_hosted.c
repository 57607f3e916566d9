/*
 * assert_hosted.c - where failed assertions of the guest core end in a program that
 * does not link the engine (which brings its own fs_assert_fail).
 *
 * Owns: nothing.  Why: guest tests and benches link guest objects only.  Cost: none.
 */
#include "frameshift/assert.h"
#include <stdio.h>
#include <stdlib.h>

void fs_assert_fail(const char *file, int line, const char *expr, unsigned long long a, unsigned long long b)
{
    fprintf(stderr, "%s:%d: assertion failed: %s (a=%llu/%#llx, b=%llu/%#llx)\n", file, line, expr, a, a, b, b);
    abort();
}
