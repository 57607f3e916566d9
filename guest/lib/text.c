/*
 * text.c - formatting without a C library.
 *
 * Owns: struct text.
 * Invariants: I1  bytes < TEXT_LINE_BYTES and line[bytes] is 0.
 * Lock order: none.
 * Why: dumps must work in the PV kernel, where there is no printf, and in the middle of an
 *   allocator that has run out of memory: no allocation, no locale, no varargs.
 * Cost: linear.
 */
#include "text.h"

void text_clear(struct text *t)
{
    t->bytes = 0;
    t->line[0] = '\0';
}

static void put(struct text *t, char c)
{
    if (t->bytes + 1 < TEXT_LINE_BYTES) {
        t->line[t->bytes++] = c;
        t->line[t->bytes] = '\0';
    }
}

void text_word(struct text *t, const char *word)
{
    while (*word != '\0') {
        put(t, *word++);
    }
}

static size_t digits_of(uint64_t n, unsigned base, char out[64])
{
    size_t count = 0;

    do {
        out[count++] = "0123456789abcdef"[n % base];
        n /= base;
    } while (n != 0);
    return count;
}

void text_column(struct text *t, uint64_t n, size_t width)
{
    char digits[64];
    size_t count = digits_of(n, 10, digits);

    for (size_t i = count; i < width; i++) {
        put(t, ' ');
    }
    while (count > 0) {
        put(t, digits[--count]);
    }
}

void text_number(struct text *t, uint64_t n)
{
    text_column(t, n, 0);
}

void text_pad(struct text *t, size_t column)
{
    while (t->bytes < column && t->bytes + 1 < TEXT_LINE_BYTES) {
        put(t, ' ');
    }
}

void text_hex(struct text *t, uint64_t n)
{
    char digits[64];
    size_t count = digits_of(n, 16, digits);

    text_word(t, "0x");
    while (count > 0) {
        put(t, digits[--count]);
    }
}
