/*
 * subject_mm.c - the guest memory core as a subject of the speed driver.
 *
 * Owns: one struct mm.
 * Invariants: none.
 * Lock order: none of its own.
 * Why: the driver must not know what it measures.  Units are asked for as movable ones, the kind that
 *   every page-frame allocator without types serves.  Frozen, because allocators of frames alone count no references; with SUBJECT_COUNTED
 *   (subject_mm_counted.so) pages that may be shared, as user memory is.
 * Cost: a call and a table access more than the allocator itself.
 */
#include "subject.h"
#include "arch_hosted.h"
#include "page_alloc.h"
#include "pcp.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ARENA_BYTES (64u << 20)

static struct mm memory;
static uint64_t bytes_used;

/* On huge pages, as a kernel maps its memmap and the rest of what it has from boot; without, half of the time is TLB misses. */
static void *map_huge(size_t bytes)
{
    size_t huge = 2u << 20;
    char *p = mmap(NULL, bytes + huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED) {
        return NULL;
    }
    p = (void *)(((uintptr_t)p + huge - 1) & ~(uintptr_t)(huge - 1));
    (void)madvise(p, bytes, MADV_HUGEPAGE);
    memset(p, 0, bytes);
    return p;
}

/* One piece after the other, as a boot allocator gives them: beginning each at a page would put all of them on the same sets of the cache. */
static void *boot_alloc(void *ctx, size_t bytes, size_t align)
{
    static char *at, *end;
    void *p;

    (void)ctx;
    bytes_used += bytes;
    at = (void *)(((uintptr_t)at + align - 1) & ~(uintptr_t)(align - 1));
    if (at == NULL || bytes > (size_t)(end - at)) {
        size_t room = bytes > ARENA_BYTES ? bytes : ARENA_BYTES;

        at = map_huge(room);
        if (at == NULL) {
            return NULL;
        }
        end = at + room;
    }
    p = at;
    at += bytes;
    return p;
}

static int init(uint64_t pages, unsigned threads)
{
    struct mm_range ram = { pfn_make(0), pfn_make(pages), 0 };
    struct mm_config config = { .ram = &ram, .ram_count = 1, .cpus = threads, .min_free_pages = 1, .boot_alloc = boot_alloc };

    if (mm_init(&memory, &config) != MM_OK) {
        return -1;
    }
    mm_free_boot(&memory, pfn_make(0), pfn_make(pages));
    mm_boot_done(&memory);
    return 0;
}

static void thread_init(unsigned thread)
{
    arch_hosted_set_cpu(thread);
}

#ifdef SUBJECT_COUNTED
static struct page *take(unsigned order) { return alloc_pages(&memory, GFP_HIGH_MOVABLE, order); }

static void subject_free(unsigned thread, uint64_t frame, unsigned order)
{
    (void)thread;
    (void)order;
    page_put(&memory, mm_page(&memory, pfn_make(frame)));
}

static void subject_free_many(unsigned thread, const uint64_t *frames, size_t count, unsigned order)
{
    struct page *pages[64];

    (void)thread;
    (void)order;
    while (count > 0) {
        uint32_t n = count < 64 ? (uint32_t)count : 64;

        for (uint32_t i = 0; i < n; i++) {
            pages[i] = mm_page(&memory, pfn_make(frames[i]));
        }
        page_put_many(&memory, pages, n);
        frames += n;
        count -= n;
    }
}
#define NAME "frameshift, counted"
#define FREE_MANY subject_free_many
#else
static struct page *take(unsigned order) { return alloc_frozen_pages(&memory, GFP_HIGH_MOVABLE, order); }

static void subject_free(unsigned thread, uint64_t frame, unsigned order)
{
    (void)thread;
    free_frozen_pages(&memory, pfn_make(frame), order);
}
#define NAME "frameshift"
#define FREE_MANY NULL
#endif

static uint64_t subject_alloc(unsigned thread, unsigned order)
{
    struct page *p = take(order);

    (void)thread;
    return p != NULL ? p->pfn : SUBJECT_NONE;
}

static size_t counters(struct subject_counter *out, size_t max)
{
    static const enum zone_counter of[] = { ZC_alloc_slow, ZC_pcp_refill, ZC_pcp_flush };
    size_t n = 0;

    for (; n < sizeof(of) / sizeof(of[0]) && n < max; n++) {
        out[n] = (struct subject_counter){ zone_counter_name(of[n]), mm_counter(&memory, of[n]) };
    }
    return n;
}

static uint64_t metadata_bytes(void)
{
    return bytes_used;
}

static uint64_t free_frames(void)
{
    uint64_t n = mm_free_pages(&memory);

    for (uint32_t z = 0; z < memory.zone_count; z++) {
        n += pcp_pages(&memory, &memory.zones[z]);
    }
    return n;
}

const struct subject *subject_get(void)
{
    static const struct subject subject = {
        SUBJECT_VERSION, NAME, init, thread_init, subject_alloc, subject_free, metadata_bytes, free_frames,
        FREE_MANY, counters,
    };
    return &subject;
}
