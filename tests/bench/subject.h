/*
 * subject.h - the interface of a page-frame allocator under test.
 *
 * A subject is a shared object that exports subject_get().  The driver (alloc.c) runs it in a process of
 * its own, with one struct for all threads.  Frames are numbers below the pages of init(); a unit of order o
 * begins at a multiple of 2^o.
 */
#ifndef BENCH_SUBJECT_H
#define BENCH_SUBJECT_H

#include <stddef.h>
#include <stdint.h>

#define SUBJECT_VERSION 3u
#define SUBJECT_NONE    UINT64_MAX
#define SUBJECT_NAME    24u

struct subject_counter { const char *name; uint64_t value; };

struct subject {
    uint32_t version;                           /* SUBJECT_VERSION */
    const char *name;
    /* Manage frames [0, pages), all free, for so many threads. 0: success. pages is a multiple of 512. */
    int (*init)(uint64_t pages, unsigned threads);
    /* Called once by each thread, with its number, before it allocates. */
    void (*thread_init)(unsigned thread);
    /* A unit of order (0 to 10), or SUBJECT_NONE. */
    uint64_t (*alloc)(unsigned thread, unsigned order);
    void (*free)(unsigned thread, uint64_t frame, unsigned order);
    /* Bytes of metadata for all frames; threads' own included. */
    uint64_t (*metadata_bytes)(void);
    /* Frames that could be handed out now, whatever their order. Only called when no thread allocates. */
    uint64_t (*free_frames)(void);
    /* Units of one order that are given back together, in any order. NULL: the driver calls free() for each. */
    void (*free_many)(unsigned thread, const uint64_t *frames, size_t count, unsigned order);
    /* How often what is slow happened since init(): at most max names (constant, below SUBJECT_NAME characters) and counts; how many.
     * Only called when no thread allocates. NULL: it counts nothing. */
    size_t (*counters)(struct subject_counter *out, size_t max);
};

__attribute__((visibility("default"))) const struct subject *subject_get(void);

#endif
