/*
 * driver.c - runs a fuzz target: over files, or with inputs of its own making for some time.
 *
 * usage: PROGRAM FILE|FOLDER...                          each file once: the replay of a corpus
 *        PROGRAM --seconds N [--seed N] [--keep FOLDER] FOLDER    mutate what is in FOLDER; what reaches new code goes to --keep (FOLDER)
 * Owns: the coverage map, mutations, the corpus.
 * Invariants:
 *   I1  the same seed and the same corpus give the same inputs;
 *   I2  an input that ends the process is on disk (crash-N beside the corpus) before the process is gone.
 * Coverage: gcc and clang call __sanitizer_cov_trace_pc() at every block with -fsanitize-coverage=trace-pc.  Its caller's address,
 * hashed, is a byte of the map; how often in powers of two counts as new too.  Without instrumentation the map stays empty and
 * mutations are blind: still a test.
 * Cost: one map of 64 KiB a run.
 */
#include "fuzz.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAP_BYTES 65536u
#define INPUT_MAX 4096u
#define CORPUS_MAX 65536u

void __sanitizer_cov_trace_pc(void);
const char *__asan_default_options(void);

static uint8_t map[MAP_BYTES], seen[MAP_BYTES];
static struct { uint8_t *data; size_t bytes; } corpus[CORPUS_MAX];
static size_t corpus_count;
static const uint8_t *running;
static size_t running_bytes;
static char crash_path[512];

#ifdef __clang__
#define NO_COVERAGE __attribute__((no_sanitize("coverage")))
#else
#define NO_COVERAGE __attribute__((no_sanitize_coverage))
#endif

NO_COVERAGE void __sanitizer_cov_trace_pc(void)
{
    uintptr_t pc = (uintptr_t)__builtin_return_address(0);
    uint8_t *at = &map[(pc ^ pc >> 16) % MAP_BYTES];
    *at = (uint8_t)(*at + (*at < 255));
}

/* Faults end in SIGABRT, whoever finds them; leaks of one input are judged by the unit tests. */
const char *__asan_default_options(void) { return "abort_on_error=1:handle_abort=0:detect_leaks=0"; }

static void on_crash(int number)
{
    int fd = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd >= 0 && running) {
        ssize_t n = write(fd, running, running_bytes);
        (void)n;
        (void)close(fd);
    }
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static void run(const uint8_t *data, size_t bytes)
{
    uint8_t *exact = malloc(bytes + (bytes == 0));      /* its own block: a read past the end is seen */
    if (!exact) {
        exit(2);
    }
    memcpy(exact, data, bytes);
    running = exact;
    running_bytes = bytes;
    memset(map, 0, sizeof(map));
    (void)LLVMFuzzerTestOneInput(exact, bytes);
    running = NULL;
    free(exact);
}

/* Whether the last run reached what none before did. */
static bool is_new(void)
{
    bool any = false;
    for (size_t i = 0; i < MAP_BYTES; i++) {
        uint8_t n = map[i], bit = n == 0 ? 0 : n == 1 ? 1 : n == 2 ? 2 : n == 3 ? 4 : n < 8 ? 8 : n < 16 ? 16 : n < 32 ? 32 : n < 128 ? 64 : 128;
        any = any || (bit & ~seen[i]);
        seen[i] |= bit;
    }
    return any;
}

static void add(const uint8_t *data, size_t bytes)
{
    if (corpus_count < CORPUS_MAX && (corpus[corpus_count].data = malloc(bytes + 1)) != NULL) {
        memcpy(corpus[corpus_count].data, data, bytes);
        corpus[corpus_count++].bytes = bytes;
    }
}

static bool run_file(const char *path)
{
    static uint8_t data[INPUT_MAX];
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return false;
    }
    size_t bytes = fread(data, 1, sizeof(data), f);
    (void)fclose(f);
    run(data, bytes);
    (void)is_new();
    add(data, bytes);
    return true;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

/* Files of a folder, by name: I1. */
static size_t run_folder(const char *path)
{
    DIR *dir = opendir(path);
    char *names[CORPUS_MAX / 16];
    size_t count = 0, done = 0;
    for (struct dirent *e = dir ? readdir(dir) : NULL; e && count < sizeof(names) / sizeof(*names); e = readdir(dir)) {
        if (e->d_name[0] != '.' && strncmp(e->d_name, "crash", 5) != 0) {
            names[count++] = strdup(e->d_name);
        }
    }
    if (dir) {
        (void)closedir(dir);
    }
    qsort(names, count, sizeof(*names), by_name);
    for (size_t i = 0; i < count; i++) {
        char file[1024];
        (void)snprintf(file, sizeof(file), "%s/%s", path, names[i]);
        done += run_file(file);
        free(names[i]);
    }
    return done;
}

static uint64_t rng;
static uint64_t next(void)
{
    uint64_t z = (rng += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static size_t mutate(uint8_t *out)
{
    static const uint8_t odd[] = { 0, 1, 2, 0x7f, 0x80, 0xff, 0xfe, 0x10, 0x20, 0x40 };
    size_t bytes = 1 + next() % 64;
    if (corpus_count > 0 && next() % 16 != 0) {
        size_t i = next() % corpus_count;
        bytes = corpus[i].bytes;
        memcpy(out, corpus[i].data, bytes);
    } else {
        for (size_t i = 0; i < bytes; i++) {
            out[i] = (uint8_t)next();
        }
    }
    for (uint64_t k = 1 + next() % 8; k > 0; k--) {
        size_t at = bytes > 0 ? next() % bytes : 0;
        switch (next() % 7) {
        case 0: if (bytes > 0) { out[at] = (uint8_t)next(); } break;
        case 1: if (bytes > 0) { out[at] ^= (uint8_t)(1u << next() % 8); } break;
        case 2: if (bytes > 0) { out[at] = odd[next() % sizeof(odd)]; } break;
        case 3: if (bytes > 0) { out[at] = (uint8_t)(out[at] + next() % 9 - 4); } break;
        case 4:                                         /* take out */
            if (bytes > 8) {
                size_t n = 1 + next() % 8;
                n = n > bytes - at ? bytes - at : n;
                memmove(out + at, out + at + n, bytes - at - n);
                bytes -= n;
            }
            break;
        case 5: {                                       /* put in */
            size_t n = 1 + next() % 16;
            if (bytes + n <= INPUT_MAX) {
                memmove(out + at + n, out + at, bytes - at);
                for (size_t i = 0; i < n; i++) {
                    out[at + i] = (uint8_t)next();
                }
                bytes += n;
            }
            break;
        }
        default:                                        /* the rest of another one */
            if (corpus_count > 0) {
                size_t other = next() % corpus_count, from = corpus[other].bytes ? next() % corpus[other].bytes : 0;
                size_t n = corpus[other].bytes - from;
                n = n > INPUT_MAX - at ? INPUT_MAX - at : n;
                memcpy(out + at, corpus[other].data + from, n);
                bytes = at + n;
            }
        }
    }
    return bytes;
}

static void keep(const char *folder, const uint8_t *data, size_t bytes)
{
    uint64_t hash = 0xcbf29ce484222325ull;
    char path[512];
    for (size_t i = 0; i < bytes; i++) {
        hash = (hash ^ data[i]) * 0x100000001b3ull;
    }
    (void)snprintf(path, sizeof(path), "%s/%016llx", folder, (unsigned long long)hash);
    FILE *f = fopen(path, "wb");
    if (f) {
        (void)fwrite(data, 1, bytes, f);
        (void)fclose(f);
    }
}

static void fuzz(const char *folder, uint64_t seconds)
{
    static uint8_t data[INPUT_MAX];
    time_t end = time(NULL) + (time_t)seconds, told = 0;
    uint64_t runs = 0, fresh = 0;
    while (time(NULL) < end) {
        size_t bytes = mutate(data);
        run(data, bytes);
        runs++;
        if (is_new()) {
            add(data, bytes);
            keep(folder, data, bytes);
            fresh++;
        }
        if (time(NULL) - told >= 30) {
            told = time(NULL);
            printf("%llu runs, %zu inputs, %llu of them new\n", (unsigned long long)runs, corpus_count, (unsigned long long)fresh);
            (void)fflush(stdout);
        }
    }
    size_t reached = 0;
    for (size_t i = 0; i < MAP_BYTES; i++) {
        reached += seen[i] != 0;
    }
    printf("%llu runs, %zu inputs, %llu of them new, %zu blocks reached; no fault\n", (unsigned long long)runs, corpus_count,
           (unsigned long long)fresh, reached);
}

int main(int argc, char **argv)
{
    uint64_t seconds = 0;
    const char *folder = NULL, *last = ".";
    size_t files = 0;
    rng = 1;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--seconds") == 0 && i + 1 < argc) {
            seconds = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc) {
            rng = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--keep") == 0 && i + 1 < argc) {
            folder = argv[++i];
        } else {
            struct stat st;
            last = argv[i];
            (void)snprintf(crash_path, sizeof(crash_path), "crash-%d", (int)getpid());
            (void)signal(SIGABRT, on_crash);
            (void)signal(SIGSEGV, on_crash);
            if (stat(last, &st) != 0) {
                perror(last);
                return 2;
            }
            files += S_ISDIR(st.st_mode) ? run_folder(last) : run_file(last);
        }
    }
    printf("%zu files replayed\n", files);
    if (seconds > 0) {
        fuzz(folder ? folder : last, seconds);
        return 0;
    }
    return files > 0 ? 0 : 1;           /* an empty corpus proves nothing */
}
