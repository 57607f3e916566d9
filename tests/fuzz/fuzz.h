/*
 * fuzz.h - what a fuzz target and its driver share.
 *
 * A target is LLVMFuzzerTestOneInput(), as libFuzzer wants it; with clang it can be linked with -fsanitize=fuzzer instead of
 * driver.c.  It aborts where it finds a fault, and keeps nothing from one input to the next.
 */
#ifndef FRAMESHIFT_TESTS_FUZZ_H
#define FRAMESHIFT_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Input as a stream; zeros behind its end. */
struct fuzz_input {
    const uint8_t *data;
    size_t bytes, at;
};
static inline uint8_t fuzz_u8(struct fuzz_input *in) { return in->at < in->bytes ? in->data[in->at++] : 0; }
static inline uint32_t fuzz_u16(struct fuzz_input *in) { return fuzz_u8(in) | (uint32_t)fuzz_u8(in) << 8; }
static inline uint64_t fuzz_u64(struct fuzz_input *in)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < 64; i += 8) {
        n |= (uint64_t)fuzz_u8(in) << i;
    }
    return n;
}

#endif
