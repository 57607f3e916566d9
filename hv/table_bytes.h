/*
 * table_bytes.h - little-endian fields of firmware tables.
 *
 * Owns: unaligned reads at an offset that the caller has checked, and the way from
 * byte addresses to whole frames.
 */
#ifndef FRAMESHIFT_HV_TABLE_BYTES_H
#define FRAMESHIFT_HV_TABLE_BYTES_H

#include "frameshift/frame.h"

static inline uint16_t table_u16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t table_u32(const uint8_t *p)
{
    return (uint32_t)table_u16(p) | (uint32_t)table_u16(p + 2) << 16;
}

static inline uint64_t table_u64(const uint8_t *p)
{
    return (uint64_t)table_u32(p) | (uint64_t)table_u32(p + 4) << 32;
}

/* The whole frames of [first byte, last byte]; empty where there is none or the two are turned round. */
static inline struct mfn_range table_frames(uint64_t first, uint64_t last)
{
    uint64_t start = (first >> FS_PAGE_SHIFT) + ((first & (FS_PAGE_BYTES - 1)) != 0);
    uint64_t end = (last >> FS_PAGE_SHIFT) + ((last & (FS_PAGE_BYTES - 1)) == FS_PAGE_BYTES - 1);

    if (first > last || end < start) {
        end = start;
    }
    return (struct mfn_range){ mfn_make(start), mfn_make(end) };
}

#endif
