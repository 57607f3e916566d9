/*
 * frame.h - boxed frame numbers and half-open frame ranges.
 *
 * Owns: mfn_t (machine frame), pfn_t (a PV guest's pseudo-physical frame) and
 * gfn_t (the same of a translated guest).  All count 4 KiB frames.  They are
 * structs in every build, so that a frame of one space cannot be passed where
 * another is meant; gcc and clang make the same code as for a bare integer.
 *
 * Ranges are half-open: [start, end).  An empty range has start == end.
 */
#ifndef FRAMESHIFT_FRAME_H
#define FRAMESHIFT_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FS_PAGE_SHIFT   12
#define FS_PAGE_BYTES   4096u
#define FS_SP_ORDER     9          /* a 2 MiB superpage */
#define FS_SP_PAGES     512u

typedef struct { uint64_t n; } mfn_t;
typedef struct { uint64_t n; } pfn_t;
typedef struct { uint64_t n; } gfn_t;

#define FS_FRAME_NONE   UINT64_MAX /* no frame; Xen's INVALID_MFN and INVALID_M2P_ENTRY are mapped to it */
#define MFN_NONE        ((mfn_t){ FS_FRAME_NONE })
#define PFN_NONE        ((pfn_t){ FS_FRAME_NONE })
#define GFN_NONE        ((gfn_t){ FS_FRAME_NONE })

static inline mfn_t mfn_make(uint64_t n) { return (mfn_t){ n }; }
static inline pfn_t pfn_make(uint64_t n) { return (pfn_t){ n }; }
static inline gfn_t gfn_make(uint64_t n) { return (gfn_t){ n }; }
static inline bool mfn_eq(mfn_t a, mfn_t b) { return a.n == b.n; }
static inline bool mfn_is_none(mfn_t a) { return a.n == FS_FRAME_NONE; }
static inline bool pfn_is_none(pfn_t a) { return a.n == FS_FRAME_NONE; }
static inline mfn_t mfn_add(mfn_t a, uint64_t frames) { return (mfn_t){ a.n + frames }; }

struct mfn_range { mfn_t start, end; };          /* [start, end) */

static inline uint64_t mfn_range_pages(struct mfn_range r) { return r.end.n - r.start.n; }
static inline bool mfn_range_contains(struct mfn_range r, mfn_t m)
{
    return m.n >= r.start.n && m.n < r.end.n;
}

/* A sorted list of disjoint, non-adjacent, non-empty ranges. */
struct mfn_range_set {
    struct mfn_range *ranges;
    size_t count, capacity;
};

#endif
