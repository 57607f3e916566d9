/*
 * subject_plain.c - the slowest allocator, correct or broken on purpose, to test the speed driver with.
 *
 * Owns: a byte a frame.
 * Invariants: I1  no fault but the one that FRAMESHIFT_SUBJECT_FAULT asks for (twice, misaligned, outside, lost, full; none).
 * Lock order: one lock around everything.
 * Why: a check of the driver that no broken subject has ever failed may check nothing.
 * Cost: a scan an allocation.
 */
#include "subject.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned char *taken;
static uint64_t frames, next, calls;
static const char *fault;

static int is(const char *name) { return fault != NULL && strcmp(fault, name) == 0; }

static int init(uint64_t pages, unsigned threads)
{
    (void)threads;
    taken = calloc(pages, 1);
    frames = pages;
    fault = getenv("FRAMESHIFT_SUBJECT_FAULT");
    return taken == NULL ? -1 : 0;
}

static void thread_init(unsigned thread) { (void)thread; }

static uint64_t take(unsigned order)
{
    uint64_t pages = 1ull << order;

    for (uint64_t tried = 0; tried < frames; tried += pages) {
        uint64_t at = next / pages * pages;

        next = at + pages < frames ? at + pages : 0;
        if (at + pages <= frames && memchr(taken + at, 1, pages) == NULL) {
            memset(taken + at, 1, pages);
            return at;
        }
    }
    return SUBJECT_NONE;
}

static uint64_t subject_alloc(unsigned thread, unsigned order)
{
    uint64_t frame;

    (void)thread;
    pthread_mutex_lock(&lock);
    calls++;
    frame = is("full") && order == 9 ? SUBJECT_NONE : take(order);
    if (is("twice") && order == 0 && calls > 1000) {
        frame = 0;
    }
    if (is("misaligned") && order > 0) {
        frame++;
    }
    if (is("outside") && calls > 1000) {
        frame += frames;
    }
    pthread_mutex_unlock(&lock);
    return frame;
}

static void subject_free(unsigned thread, uint64_t frame, unsigned order)
{
    (void)thread;
    pthread_mutex_lock(&lock);
    if (!is("lost") || frame != 0) {
        memset(taken + frame % frames, 0, 1ull << order);
    }
    pthread_mutex_unlock(&lock);
}

static void subject_free_many(unsigned thread, const uint64_t *list, size_t count, unsigned order)
{
    for (size_t i = 0; i < count; i++) {
        subject_free(thread, list[i], order);
    }
}

static uint64_t metadata_bytes(void) { return frames; }

static uint64_t free_frames(void)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < frames; i++) {
        n += taken[i] == 0;
    }
    return n;
}

static size_t counters(struct subject_counter *out, size_t max)
{
    if (max > 0) {
        out[0] = (struct subject_counter){ "calls", calls };
    }
    return max > 0;
}

const struct subject *subject_get(void)
{
    static const struct subject subject = {
        SUBJECT_VERSION, "plain", init, thread_init, subject_alloc, subject_free, metadata_bytes, free_frames, subject_free_many, counters,
    };
    return &subject;
}
