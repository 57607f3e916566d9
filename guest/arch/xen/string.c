/*
 * string.c - the four functions that a compiler may call by itself.
 *
 * Owns: memset, memcpy, memmove, memcmp.
 * Invariants: I1  nothing here is turned into a call of itself: the loops are string instructions.
 * Lock order: none.
 * Why: there is no C library under a kernel, and guest/mm may use these four.  String instructions need no vector
 *   registers, which a kernel would have to save.
 * Cost: eight bytes a step, the rest one by one.
 */
#include <stddef.h>
#include <stdint.h>

typedef uint64_t __attribute__((aligned(1), may_alias)) word_t;

void *memset(void *to, int byte, size_t bytes);
void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

void *memset(void *to, int byte, size_t bytes)
{
    void *at = to;
    size_t words = bytes / 8, rest = bytes % 8;
    uint64_t value = (uint8_t)byte * 0x0101010101010101ull;

    __asm__ volatile("rep stosq" : "+D"(at), "+c"(words) : "a"(value) : "memory");
    __asm__ volatile("rep stosb" : "+D"(at), "+c"(rest) : "a"(value) : "memory");
    return to;
}

void *memcpy(void *restrict to, const void *restrict from, size_t bytes)
{
    void *at = to;
    size_t words = bytes / 8, rest = bytes % 8;

    __asm__ volatile("rep movsq" : "+D"(at), "+S"(from), "+c"(words) : : "memory");
    __asm__ volatile("rep movsb" : "+D"(at), "+S"(from), "+c"(rest) : : "memory");
    return to;
}

void *memmove(void *to, const void *from, size_t bytes)
{
    char *last = (char *)to + bytes - 1;
    const char *source = (const char *)from + bytes - 1;

    if (bytes == 0 || (uintptr_t)to - (uintptr_t)from >= bytes) {
        return memcpy(to, from, bytes);
    }
    __asm__ volatile("std\n\trep movsb\n\tcld" : "+D"(last), "+S"(source), "+c"(bytes) : : "memory", "cc");
    return to;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
    const unsigned char *x = a, *y = b;
    size_t i = 0;

    while (bytes - i >= sizeof(word_t) && *(const word_t *)(const void *)(x + i) == *(const word_t *)(const void *)(y + i)) {
        i += sizeof(word_t);                    /* pages are compared while the machine stands still */
    }
    for (; i < bytes; i++) {
        if (x[i] != y[i]) {
            return x[i] < y[i] ? -1 : 1;
        }
    }
    return 0;
}
