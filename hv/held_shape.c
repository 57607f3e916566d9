/*
 * held_shape.c - could these bytes be a page that Xen itself uses?
 *
 * Owns: the shapes of the three kinds of guest page that Xen keeps mapped for ever:
 * vcpu_info (xen/xen.h), FIFO event array page and FIFO control block
 * (xen/event_channel.h).  Pure: bytes in, answer out.
 * Invariants:
 *  I1 superset: a page that Xen uses, and that its guest uses by the published rules,
 *     has the shape, whatever a running Xen is just writing into it.  A shape proves
 *     nothing; it only says which pages must be looked at;
 *  I2 no page of zeroes has a shape: an array page or control block in use has at
 *     least one word that is not zero, and a vCPU that has run has its clock filled in.
 * What each rests on:
 *  - vcpu_info, 64 bytes at a multiple of 8 (Xen asks for the structure's alignment):
 *    pending is 0 or 1, the padding was zeroed by Xen when it took the page; the clock's
 *    multiplier is normalised by Xen to have its top bit set, its padding is never
 *    written, its TSC stamp is not 0 once the vCPU ran;
 *  - event array: 1024 words, link in bits 0-16, flags in bits 28-31, the rest reserved;
 *  - control block: 72 bytes {ready, reserved, head[16]}, at the start of a page that is
 *    else zero.  Xen would take it at any multiple of 8; Linux clears a whole page for
 *    it.  hap_held.c counts them, so that a guest that does otherwise is left alone.
 * Cost: most pages are refused within their first words; about a microsecond a page.
 */
#include <string.h>

#include "frameshift/frame.h"
#include "held_shape.h"

#define VCPU_INFO_BYTES 64
#define CONTROL_WORDS32 18u
#define ARRAY_RESERVED  0x0ffe0000u
#define ARRAY_MASKED    0x40000000u

static uint64_t word64(const uint8_t *page, size_t offset)
{
    uint64_t w;

    memcpy(&w, page + offset, sizeof(w));
    return w;
}

static uint32_t word32(const uint8_t *page, size_t offset)
{
    uint32_t w;

    memcpy(&w, page + offset, sizeof(w));
    return w;
}

/* Just registered, by a vCPU that has not run yet: Xen marks everything as pending. */
static bool fresh_vcpu_at(const uint8_t *p)
{
    return (word64(p, 0) & ~0x0000000000ff0000ull) == 1 && word64(p, 8) == UINT64_MAX && word64(p, 40) == 0 && word64(p, 48) == 0;
}

static bool vcpu_at(const uint8_t *p)
{
    uint64_t scale = word64(p, 56);                         /* mul, shift, flags, padding */
    int8_t shift = (int8_t)(scale >> 32);

    if (fresh_vcpu_at(p)) {
        return true;
    }
    if ((scale & 0xffff000080000000ull) != 0x80000000ull || (scale >> 40 & 0xff) > 7 || shift < -32 || shift > 32) {
        return false;
    }
    return (word64(p, 0) & ~0x0000000000ff0001ull) == 0     /* pending 0 or 1, mask anything, padding 0 */
        && word32(p, 36) == 0                               /* pad0 */
        && word64(p, 40) != 0;                              /* tsc_timestamp */
}

int held_shape_vcpu_next(const void *page, int from)
{
    const uint8_t *p = page;

    for (int at = from; at <= (int)FS_PAGE_BYTES - VCPU_INFO_BYTES; at += 8) {
        if (vcpu_at(p + at)) {
            return at;
        }
    }
    return -1;
}

/* Narrower than the shape: a clock that has been set, and nothing in the words that a translated guest has no use for.
 * For choosing whom to ask first, never for a conclusion. */
bool held_shape_vcpu_likely(const void *page)
{
    const uint8_t *p = page;

    for (int at = held_shape_vcpu_next(page, 0); at >= 0; at = held_shape_vcpu_next(page, at + 8)) {
        uint64_t version = word32(p, (size_t)at + 32), system_time = word64(p, (size_t)at + 48);

        if (word64(p, (size_t)at + 16) == 0 && word64(p, (size_t)at + 24) == 0 && version > 1 && system_time != 0 &&
            system_time >> 56 == 0) {
            return true;
        }
    }
    return false;
}

bool held_shape_control(const void *page, uint32_t port_limit)
{
    const uint8_t *p = page;
    uint32_t heads = 0;

    if ((word32(p, 0) & ~0xffffu) != 0 || word32(p, 4) != 0) {
        return false;
    }
    for (unsigned i = 2; i < CONTROL_WORDS32; i++) {
        uint32_t head = word32(p, i * 4);

        if (head >= port_limit) {
            return false;
        }
        heads |= head;
    }
    if (heads == 0) {
        return false;
    }
    for (size_t at = CONTROL_WORDS32 * 4; at < FS_PAGE_BYTES; at += 8) {
        if (word64(p, at) != 0) {
            return false;
        }
    }
    return true;
}

/* A fresh array page as guests make them: nearly all of its words masked and nothing else. */
bool held_shape_array(const void *page)
{
    const uint8_t *p = page;
    unsigned masked = 0;

    for (unsigned i = 0; i < 1024; i++) {
        uint32_t w = word32(p, i * 4);

        if (w & ARRAY_RESERVED) {
            return false;
        }
        masked += (w & ARRAY_MASKED) != 0;
        if (i + 1 - masked > 512) {
            return false;
        }
    }
    return masked >= 512;
}

/* The whole superset: no reserved bit, and not zero. */
static bool array_loose(const uint8_t *p)
{
    uint64_t any = 0, reserved = 0;

    for (size_t at = 0; at < FS_PAGE_BYTES; at += 64) {
        for (size_t k = 0; k < 64; k += 8) {
            uint64_t w = word64(p, at + k);

            any |= w;
            reserved |= w & (ARRAY_RESERVED | (uint64_t)ARRAY_RESERVED << 32);
        }
        if (reserved != 0) {
            return false;
        }
    }
    return any != 0;
}

unsigned held_shape(const void *page, uint32_t port_limit)
{
    unsigned kinds = 0;

    if (array_loose(page)) {
        kinds |= HELD_ARRAY;
    }
    if (held_shape_control(page, port_limit)) {
        kinds |= HELD_CONTROL;
    }
    if (held_shape_vcpu_next(page, 0) >= 0) {
        kinds |= HELD_VCPU;
    }
    return kinds;
}
