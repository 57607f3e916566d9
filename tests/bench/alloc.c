/*
 * alloc.c - speed of page-frame allocators: the same loops for every subject, in alternating processes.
 *
 * Owns: the workloads and the clock.
 * Invariants:
 *   I1  a unit that a subject hands out is aligned, inside memory and, checked on one of 61, not in use.
 *   I2  at the end of every run as many frames are free as at its start.
 * Lock order: threads meet at barriers only.
 * Why: "bulk" takes a quarter of memory and gives it back in order, "random" gives it back shuffled, "together" the same but
 *   64 units a call where the subject has such a call, "repeat" takes one unit and gives it back.  Times are of batches of 64 operations, so that the clock
 *   itself (about 20 ns) disappears; median and p99 are over batches.  The pair is the sum of the two
 *   medians: a mean would mostly tell how busy the host is.  A subject's ratio is to the last subject's pair of the same round.
 *   What a second thread costs is not the difference between two runs, in which the host has changed, but between the batches of one
 *   run: every thread counts its batches, and a batch is "beside" if another one's count went on since the batch before, else "alone"
 *   (the other thread had no core).  On a busy host there are many of both.
 * Cost: seconds.
 */
#include "subject.h"
#include <argp.h>
#include <errno.h>
#include <dlfcn.h>
#include <inttypes.h>
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BATCH        64u
#define SAMPLE       61u                 /* odd, so that it does not meet one place of the blocks alone */
#define SUBJECTS_MAX 8
#define THREADS_MAX  16u
#define COUNTERS_MAX 8u
#define ROUNDS_MAX   101u
#define SIDE_LEAST   256u                /* so many batches alone, and beside, or no ratio of the two */
#define SIDE_LONGEST 16u                 /* medians: a longer batch was interrupted, and who ran meanwhile may be the other thread */

enum workload { BULK, RANDOM, TOGETHER, REPEAT, WORKLOADS };
static const char *const workload_names[WORKLOADS] = { "bulk", "random", "together", "repeat" };

struct run {
    unsigned order, threads;
    enum workload workload;
    uint64_t pages, operations;         /* operations: pairs a thread */
    bool nearly_full;
    uint64_t seed;
};

struct result {
    uint64_t alloc_median_ps, alloc_p99_ps, free_median_ps, free_p99_ps, pair_median_ps, pair_mean_ps;
    uint64_t alone_ps, beside_ps;       /* median pairs of batches alone and beside other threads; 0: too few */
    uint64_t failed, metadata_bytes;
    double beside_share;                /* of all batches */
    double ratio;                       /* to the last subject */
    uint32_t counter_count;
    struct { char name[SUBJECT_NAME]; double a_pair; } counters[COUNTERS_MAX];
    uint32_t ok;
};

/* Batches that a thread has begun. */
struct beat { _Alignas(64) _Atomic uint64_t n; };

struct worker {
    const struct subject *s;
    const struct run *run;
    unsigned thread;
    pthread_barrier_t *barrier;
    uint64_t *frames;
    _Atomic uint8_t *in_use;            /* of the sampled units; all threads' */
    struct beat *beats;                 /* all threads' */
    uint64_t seen, seen_before;         /* the others' beats when this batch began, and the one before */
    uint64_t *alloc_ns, *free_ns;       /* a batch each: twice the time, and a bit: beside */
    size_t alloc_batches, free_batches;
    uint64_t total_ns, pairs, failed, seed;
    bool bad;
};

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t x = *state += 0x9e3779b97f4a7c15ull;

    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static bool frame_ok(const struct run *r, uint64_t frame)
{
    return frame < r->pages && (frame & ((1ull << r->order) - 1)) == 0;
}

/* A sampled unit is taken (or given back): it must have been free (or in use). Outside the measured time. */
static void sample(struct worker *w, const uint64_t *frames, size_t count, bool taken)
{
    for (size_t i = 0; i < count; i++) {
        uint64_t unit = frames[i] >> w->run->order;

        if (unit % SAMPLE == 0 && atomic_exchange(&w->in_use[unit / SAMPLE], taken) == taken) {
            w->bad = true;
        }
    }
}

static uint64_t others_beats(const struct worker *w)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < w->run->threads; i++) {
        sum += i != w->thread ? atomic_load_explicit(&w->beats[i].n, memory_order_relaxed) : 0;
    }
    return sum;
}

static uint64_t batch_begin(struct worker *w)
{
    _Atomic uint64_t *own = &w->beats[w->thread].n;

    atomic_store_explicit(own, atomic_load_explicit(own, memory_order_relaxed) + 1, memory_order_relaxed);
    w->seen_before = w->seen;
    w->seen = others_beats(w);
    return now_ns();
}

static uint64_t batch_end(const struct worker *w, uint64_t start)
{
    uint64_t ns = now_ns() - start;

    return ns << 1 | (others_beats(w) != w->seen_before);
}

/* One batch of allocations into frames; how many succeeded. */
static size_t batch_alloc(struct worker *w, uint64_t *frames, size_t count)
{
    uint64_t start = batch_begin(w);
    size_t n = 0;

    while (n < count && (frames[n] = w->s->alloc(w->thread, w->run->order)) != SUBJECT_NONE) {
        n++;
    }
    if (n == BATCH) {
        w->alloc_ns[w->alloc_batches++] = batch_end(w, start);
    }
    for (size_t i = 0; i < n; i++) {
        w->bad |= !frame_ok(w->run, frames[i]);
    }
    if (!w->bad) {
        sample(w, frames, n, true);
    }
    w->failed += n < count;
    return n;
}

static void batch_free(struct worker *w, const uint64_t *frames, size_t count)
{
    uint64_t start;

    sample(w, frames, count, false);
    start = batch_begin(w);
    if (w->run->workload == TOGETHER && w->s->free_many != NULL) {
        w->s->free_many(w->thread, frames, count, w->run->order);
    } else {
        for (size_t i = 0; i < count; i++) {
            w->s->free(w->thread, frames[i], w->run->order);
        }
    }
    if (count == BATCH) {
        w->free_ns[w->free_batches++] = batch_end(w, start);
    }
}

static void shuffle(uint64_t *a, size_t n, uint64_t *seed)
{
    for (size_t i = n; i > 1; i--) {
        size_t k = next_random(seed) % i;
        uint64_t t = a[i - 1];

        a[i - 1] = a[k];
        a[k] = t;
    }
}

/* Take all, give all back; repeated until the number of operations is done. */
static void work_bulk(struct worker *w, size_t at_once)
{
    uint64_t done = 0;

    while (done < w->run->operations && !w->bad) {
        uint64_t start = now_ns(), pause;
        size_t have = 0;

        while (have < at_once) {
            size_t want = at_once - have < BATCH ? at_once - have : BATCH, got = batch_alloc(w, w->frames + have, want);

            have += got;
            if (got < want || w->bad) {
                break;
            }
        }
        pause = now_ns();
        if (w->run->workload == RANDOM || w->run->workload == TOGETHER) {
            shuffle(w->frames, have, &w->seed);
        }
        start += now_ns() - pause;
        for (size_t i = 0; i < have && !w->bad; i += BATCH) {
            batch_free(w, w->frames + i, have - i < BATCH ? have - i : BATCH);
        }
        w->total_ns += now_ns() - start;
        w->pairs += have;
        done += have;
        if (have == 0) {
            return;
        }
    }
}

static void work_repeat(struct worker *w)
{
    uint64_t begin = now_ns();

    for (uint64_t done = 0; done < w->run->operations && !w->bad; done += BATCH) {
        uint64_t start = batch_begin(w);

        for (unsigned i = 0; i < BATCH; i++) {
            uint64_t frame = w->s->alloc(w->thread, w->run->order);

            if (frame == SUBJECT_NONE) {
                w->failed++;
                return;
            }
            w->s->free(w->thread, frame, w->run->order);
        }
        w->alloc_ns[w->alloc_batches++] = batch_end(w, start);  /* a pair's time */
        w->pairs += BATCH;
    }
    w->total_ns = now_ns() - begin;
}

static void *work(void *argument)
{
    struct worker *w = argument;
    uint64_t share = w->run->pages / 4 / w->run->threads >> w->run->order;

    if (w->run->nearly_full) {
        share = w->run->pages / 12 / w->run->threads >> w->run->order;
    }
    w->s->thread_init(w->thread);
    pthread_barrier_wait(w->barrier);
    if (w->run->workload == REPEAT) {
        work_repeat(w);
    } else {
        work_bulk(w, share > 0 ? share : 1);
    }
    pthread_barrier_wait(w->barrier);
    return NULL;
}

/* Use up most of memory in whole blocks, so that what is left is for the order under test. */
static bool fill(const struct subject *s, const struct run *r)
{
    uint64_t keep = r->pages / 10;

    s->thread_init(0);
    while (s->free_frames() > keep + 512) {
        if (s->alloc(0, 9) == SUBJECT_NONE) {
            return false;
        }
    }
    return true;
}

static int by_value(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* pre: sorted */
static uint64_t quantile_ps(const uint64_t *ns, size_t n, unsigned percent)
{
    return n != 0 ? (ns[(n - 1) * percent / 100] >> 1) * 1000 / BATCH : 0;
}

/* The median of the batches of one side; 0: there are too few. pre: sorted */
static uint64_t side_median_ps(const uint64_t *ns, size_t n, bool beside)
{
    size_t of_side = 0, k = 0, end = 0;

    while (end < n && ns[end] >> 1 <= (ns[n / 2] >> 1) * SIDE_LONGEST) {
        of_side += (ns[end++] & 1) == beside;
    }
    for (size_t i = 0; i < end && of_side >= SIDE_LEAST; i++) {
        if ((ns[i] & 1) == beside && k++ == of_side / 2) {
            return (ns[i] >> 1) * 1000 / BATCH;
        }
    }
    return 0;
}

static double beside_share(const uint64_t *ns, size_t n)
{
    size_t beside = 0;

    for (size_t i = 0; i < n; i++) {
        beside += ns[i] & 1;
    }
    return n != 0 ? (double)beside / (double)n : 0;
}

/* The median pair of one side, whose allocations and frees are a and f; a repeated pair has no f. */
static uint64_t side_ps(const uint64_t *a, size_t as, const uint64_t *f, size_t fs, bool beside)
{
    uint64_t alloc = side_median_ps(a, as, beside), give = side_median_ps(f, fs, beside);

    return alloc == 0 || (give == 0 && fs != 0) ? 0 : alloc + give;
}

static bool collect(struct worker *workers, const struct run *r, struct result *out)
{
    size_t allocs = 0, frees = 0;
    uint64_t total_ns = 0, pairs = 0, *all;

    for (unsigned i = 0; i < r->threads; i++) {
        allocs += workers[i].alloc_batches;
        frees += workers[i].free_batches;
        total_ns += workers[i].total_ns;
        pairs += workers[i].pairs;
        out->failed += workers[i].failed;
    }
    all = malloc(sizeof(*all) * (allocs + frees + 1));
    if (all == NULL) {
        return false;
    }
    for (unsigned i = 0, a = 0, f = 0; i < r->threads; i++) {
        memcpy(all + a, workers[i].alloc_ns, sizeof(*all) * workers[i].alloc_batches);
        memcpy(all + allocs + f, workers[i].free_ns, sizeof(*all) * workers[i].free_batches);
        a += (unsigned)workers[i].alloc_batches;
        f += (unsigned)workers[i].free_batches;
    }
    qsort(all, allocs, sizeof(*all), by_value);
    qsort(all + allocs, frees, sizeof(*all), by_value);
    out->alloc_median_ps = quantile_ps(all, allocs, 50);
    out->alloc_p99_ps = quantile_ps(all, allocs, 99);
    out->free_median_ps = quantile_ps(all + allocs, frees, 50);
    out->free_p99_ps = quantile_ps(all + allocs, frees, 99);
    out->beside_share = beside_share(all, allocs + frees);
    out->alone_ps = r->threads > 1 ? side_ps(all, allocs, all + allocs, frees, false) : 0;
    out->beside_ps = r->threads > 1 ? side_ps(all, allocs, all + allocs, frees, true) : 0;
    for (uint32_t i = 0; i < out->counter_count; i++) {
        out->counters[i].a_pair /= pairs != 0 ? (double)pairs : 1;
    }
    out->pair_median_ps = out->alloc_median_ps + out->free_median_ps;
    out->pair_mean_ps = pairs != 0 ? total_ns * 1000 / pairs : 0;
    free(all);
    return true;
}

/* What the subject has counted since before (filling memory counts too), not yet by pair. */
static void read_counters(const struct subject *s, const struct subject_counter *before, struct result *out)
{
    struct subject_counter now[COUNTERS_MAX];

    out->counter_count = s->counters != NULL ? (uint32_t)s->counters(now, COUNTERS_MAX) : 0;
    for (uint32_t i = 0; i < out->counter_count; i++) {
        (void)snprintf(out->counters[i].name, SUBJECT_NAME, "%s", now[i].name);
        out->counters[i].a_pair = (double)(now[i].value - before[i].value);
    }
}

/* The whole run; in a process of its own. */
static bool measure(const char *path, const struct run *r, struct result *out)
{
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const struct subject *(*get)(void) = NULL;
    struct worker workers[THREADS_MAX] = { { .s = NULL } };
    _Atomic uint8_t *in_use = calloc((r->pages >> r->order) / SAMPLE + 1, 1);
    pthread_t threads[THREADS_MAX];
    struct subject_counter counted[COUNTERS_MAX];
    static struct beat beats[THREADS_MAX];
    pthread_barrier_t barrier;
    uint64_t free_before;
    const struct subject *s;

    if (object == NULL || in_use == NULL) {
        fprintf(stderr, "alloc: %s\n", object == NULL ? dlerror() : "out of memory");
        return false;
    }
    *(void **)&get = dlsym(object, "subject_get");
    s = get != NULL ? get() : NULL;
    if (s == NULL || s->version != SUBJECT_VERSION || s->init(r->pages, r->threads) != 0 || (r->nearly_full && !fill(s, r))) {
        fprintf(stderr, "alloc: %s is no subject or does not start\n", path);
        return false;
    }
    free_before = s->free_frames();
    (void)(s->counters != NULL ? s->counters(counted, COUNTERS_MAX) : 0);
    pthread_barrier_init(&barrier, NULL, r->threads);
    for (unsigned i = 0; i < r->threads; i++) {
        size_t batches = r->operations / BATCH * 2 + r->pages / BATCH + 16;

        workers[i] = (struct worker){ .s = s, .run = r, .thread = i, .barrier = &barrier, .seed = r->seed + i, .in_use = in_use, .beats = beats,
                                      .frames = calloc(r->pages, sizeof(uint64_t)), .alloc_ns = calloc(batches, sizeof(uint64_t)),
                                      .free_ns = calloc(batches, sizeof(uint64_t)) };
        if (workers[i].frames == NULL || workers[i].alloc_ns == NULL || workers[i].free_ns == NULL
            || pthread_create(&threads[i], NULL, work, &workers[i]) != 0) {
            return false;
        }
    }
    for (unsigned i = 0; i < r->threads; i++) {
        pthread_join(threads[i], NULL);
    }
    for (unsigned i = 0; i < r->threads; i++) {
        if (workers[i].bad) {                   /* I1 */
            fprintf(stderr, "alloc: a frame of %s is misaligned, out of bounds or in use already\n", s->name);
            return false;
        }
    }
    if (s->free_frames() != free_before) {
        fprintf(stderr, "alloc: %s lost frames: %" PRIu64 " free before, %" PRIu64 " after\n", s->name, free_before, s->free_frames());
        return false;
    }
    out->metadata_bytes = s->metadata_bytes();
    read_counters(s, counted, out);
    return collect(workers, r, out);
}

static bool measure_in_child(const char *path, const struct run *r, struct result *out)
{
    int fds[2], status = -1;
    pid_t child;
    bool ok;

    fflush(NULL);
    if (pipe(fds) != 0) {
        return false;
    }
    child = fork();
    if (child == 0) {
        *out = (struct result){ .ok = 0 };
        out->ok = measure(path, r, out);
        _exit(write(fds[1], out, sizeof(*out)) == (ssize_t)sizeof(*out) ? 0 : 1);
    }
    close(fds[1]);
    ok = child > 0 && read(fds[0], out, sizeof(*out)) == (ssize_t)sizeof(*out) && out->ok;
    close(fds[0]);
    return child > 0 && waitpid(child, &status, 0) == child && status == 0 && ok;
}

/* ---- command line ---- */

struct arguments {
    const char *subjects[SUBJECTS_MAX];
    unsigned subject_count, rounds, threads;
    uint64_t mib, operations;
    bool json;
    int workload, order;                /* -1: all */
};

static const struct argp_option options[] = {
    { "subject", 's', "FILE.so", 0, "An allocator (may be given several times; they alternate)", 0 },
    { "rounds", 'r', "N", 0, "Rounds of each measurement; the median round is reported (default 3)", 0 },
    { "threads", 't', "N", 0, "Measure with 1 and with N threads (default 2)", 0 },
    { "memory", 'm', "MIB", 0, "Memory to manage (default 4096)", 0 },
    { "operations", 'o', "N", 0, "Pairs a thread and measurement (default 1000000)", 0 },
    { "workload", 'w', "NAME", 0, "Only this one: bulk, random, together or repeat", 0 },
    { "order", 'O', "N", 0, "Only this order: 0, 3 or 9", 0 },
    { "json", 'j', NULL, 0, "One JSON line a measurement", 0 },
    { 0 },
};

static uint64_t parse_number(struct argp_state *state, const char *text, uint64_t least, uint64_t most)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);

    if (*text == '\0' || *end != '\0' || n < least || n > most) {
        argp_error(state, "%s is not a number from %" PRIu64 " to %" PRIu64, text, least, most);
    }
    return n;
}

static int parse_workload(struct argp_state *state, const char *name)
{
    for (int w = 0; w < WORKLOADS; w++) {
        if (strcmp(workload_names[w], name) == 0) {
            return w;
        }
    }
    argp_error(state, "%s is no workload; bulk, random, together and repeat are", name);
    return -1;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case 's':
        if (a->subject_count == SUBJECTS_MAX) {
            argp_error(state, "at most %d subjects", SUBJECTS_MAX);
        }
        a->subjects[a->subject_count++] = arg;
        return 0;
    case 'r':
        a->rounds = (unsigned)parse_number(state, arg, 1, ROUNDS_MAX);
        return 0;
    case 't':
        a->threads = (unsigned)parse_number(state, arg, 1, THREADS_MAX);
        return 0;
    case 'm':
        a->mib = parse_number(state, arg, 64, 1u << 18) / 2 * 2;
        return 0;
    case 'o':
        a->operations = parse_number(state, arg, BATCH, 1u << 30);
        return 0;
    case 'j':
        a->json = true;
        return 0;
    case 'w':
        a->workload = parse_workload(state, arg);
        return 0;
    case 'O':
        a->order = (int)parse_number(state, arg, 0, 9);
        if (a->order % 3 != 0 || a->order == 6) {
            argp_error(state, "order %s is not measured; 0, 3 and 9 are", arg);
        }
        return 0;
    case ARGP_KEY_ARG:
        argp_error(state, "unexpected argument %s", arg);
        return EINVAL;
    case ARGP_KEY_END:
        if (a->subject_count == 0) {
            argp_error(state, "--subject is missing");
        }
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int by_pair(const void *a, const void *b)
{
    const struct result *x = a, *y = b;
    return x->pair_median_ps < y->pair_median_ps ? -1 : x->pair_median_ps > y->pair_median_ps;
}

/* NULL as JSON: not measured */
static json_t *side_ratio(const struct result *m)
{
    return m->alone_ps != 0 && m->beside_ps != 0 ? json_real((double)m->beside_ps / (double)m->alone_ps) : json_null();
}

static json_t *counters_json(const struct result *m)
{
    json_t *o = json_object();

    for (uint32_t i = 0; i < m->counter_count; i++) {
        json_object_set_new(o, m->counters[i].name, json_real(m->counters[i].a_pair));
    }
    return o;
}

static void print(const struct arguments *a, const char *subject, const struct run *r, const struct result *m)
{
    if (a->json) {
        json_t *o = json_pack("{s:s,s:s,s:i,s:i,s:b,s:f,s:f,s:f,s:f,s:f,s:f,s:I,s:f}", "subject", subject, "workload",
                              workload_names[r->workload], "order", (int)r->order, "threads", (int)r->threads, "nearly_full", r->nearly_full,
                              "pair_median_ns", (double)m->pair_median_ps / 1e3, "pair_mean_ns", (double)m->pair_mean_ps / 1e3,
                              "alloc_median_ns", (double)m->alloc_median_ps / 1e3, "alloc_p99_ns",
                              (double)m->alloc_p99_ps / 1e3, "free_median_ns", (double)m->free_median_ps / 1e3, "free_p99_ns",
                              (double)m->free_p99_ps / 1e3, "failed", (json_int_t)m->failed, "metadata_bytes_per_page",
                              (double)m->metadata_bytes / (double)r->pages);

        json_object_set_new(o, "ratio_to_last", json_real(m->ratio));
        json_object_set_new(o, "second_thread_ratio", side_ratio(m));
        json_object_set_new(o, "beside_share", json_real(m->beside_share));
        json_object_set_new(o, "a_pair", counters_json(m));
        json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(o);
        return;
    }
    printf("%-16s %-8s order %2u %2u thr %-5s pair %6.1f ns (mean %7.1f)  %s %6.1f p99 %6.1f", subject, workload_names[r->workload], r->order,
           r->threads, r->nearly_full ? "full" : "empty", (double)m->pair_median_ps / 1e3, (double)m->pair_mean_ps / 1e3,
           r->workload == REPEAT ? "pair " : "alloc", (double)m->alloc_median_ps / 1e3, (double)m->alloc_p99_ps / 1e3);
    if (r->workload != REPEAT) {
        printf("  free %6.1f p99 %6.1f", (double)m->free_median_ps / 1e3, (double)m->free_p99_ps / 1e3);
    }
    printf("  %.1f B/page  ratio %.2f", (double)m->metadata_bytes / (double)r->pages, m->ratio);
    if (m->alone_ps != 0 && m->beside_ps != 0) {
        printf("  beside/alone %.2f (%.0f %% of batches)", (double)m->beside_ps / (double)m->alone_ps, m->beside_share * 100);
    }
    for (uint32_t i = 0; i < m->counter_count; i++) {
        printf("%s%s %.4f", i == 0 ? "  a pair: " : ", ", m->counters[i].name, m->counters[i].a_pair);
    }
    putchar('\n');
    fflush(stdout);
}

static int by_double(const void *a, const void *b)
{
    const double *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* Each subject's pair to the last one's in the same round; the median round's stays in every result. */
static void ratios(struct result results[][ROUNDS_MAX], unsigned subjects, unsigned rounds)
{
    double of[ROUNDS_MAX];

    for (unsigned s = 0; s < subjects; s++) {
        for (unsigned i = 0; i < rounds; i++) {
            uint64_t last = results[subjects - 1][i].pair_median_ps;

            of[i] = last != 0 ? (double)results[s][i].pair_median_ps / (double)last : 0;
        }
        qsort(of, rounds, sizeof(of[0]), by_double);
        for (unsigned i = 0; i < rounds; i++) {
            results[s][i].ratio = of[rounds / 2];
        }
    }
}

static int by_side(const void *a, const void *b)
{
    const struct result *x = a, *y = b;
    double p = x->alone_ps != 0 ? (double)x->beside_ps / (double)x->alone_ps : 0, q = y->alone_ps != 0 ? (double)y->beside_ps / (double)y->alone_ps : 0;

    return p < q ? -1 : p > q;
}

/* The round of the median pair, with alone and beside of the round of the median of these (of those that have both). */
static const struct result *median_round(struct result *results, unsigned rounds)
{
    uint64_t alone, beside;
    unsigned without = 0;

    qsort(results, rounds, sizeof(results[0]), by_side);
    while (without < rounds && (results[without].alone_ps == 0 || results[without].beside_ps == 0)) {
        without++;
    }
    alone = without < rounds ? results[without + (rounds - without) / 2].alone_ps : 0;
    beside = without < rounds ? results[without + (rounds - without) / 2].beside_ps : 0;
    qsort(results, rounds, sizeof(results[0]), by_pair);
    results[rounds / 2].alone_ps = alone;
    results[rounds / 2].beside_ps = beside;
    return &results[rounds / 2];
}

static bool measure_all(const struct arguments *a, struct run *r)
{
    static struct result results[SUBJECTS_MAX][ROUNDS_MAX];

    for (unsigned round = 0; round < a->rounds; round++) {
        for (unsigned s = 0; s < a->subject_count; s++) {
            r->seed = round + 1;
            if (!measure_in_child(a->subjects[s], r, &results[s][round])) {
                fprintf(stderr, "alloc: %s failed (%s, order %u)\n", a->subjects[s], workload_names[r->workload], r->order);
                return false;
            }
        }
    }
    ratios(results, a->subject_count, a->rounds);
    for (unsigned s = 0; s < a->subject_count; s++) {
        const char *slash = strrchr(a->subjects[s], '/');

        print(a, slash != NULL ? slash + 1 : a->subjects[s], r, median_round(results[s], a->rounds));
    }
    return true;
}

int main(int argc, char **argv)
{
    static const unsigned orders[] = { 0, 3, 9 };
    static const struct argp argp = { options, parse, NULL, "Measure page-frame allocators, in alternating processes.", NULL, NULL, NULL };
    struct arguments a = { .rounds = 3, .threads = 2, .mib = 4096, .operations = 1000000, .workload = -1, .order = -1 };

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    for (unsigned w = 0; w < WORKLOADS; w++) {
        for (unsigned o = 0; o < 3; o++) {
            for (unsigned full = 0; full < 2; full++) {
                for (unsigned t = 0; t < (a.threads > 1 ? 2u : 1u); t++) {
                    struct run r = { .order = orders[o], .threads = t == 0 ? 1 : a.threads, .workload = (enum workload)w,
                                     .pages = a.mib * 256, .operations = a.operations >> (orders[o] / 3), .nearly_full = full == 1 };

                    if ((a.workload >= 0 && a.workload != (int)w) || (a.order >= 0 && a.order != (int)orders[o])) {
                        continue;
                    }
                    if (!measure_all(&a, &r)) {
                        return 1;
                    }
                }
            }
        }
    }
    return 0;
}
