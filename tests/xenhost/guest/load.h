/*
 * Owns: what the parts of the guest's load share: parameters, one slot of counters per process, the pattern.
 * Invariants:
 *   L1  a slot is written by its process alone and summed by init; it lives in memory shared by all.
 *   L2  nothing outside vector.c uses vector registers (the build says -mgeneral-regs-only), so that vector state that the emulated
 *       machine gets wrong can never look like a wrong byte in memory.
 *   L3  every page's content follows from (seed, kind, process, page, generation): a page that was swapped with another one, or an old
 *       copy of the same one, differs in every word.
 */
#ifndef LOAD_H
#define LOAD_H
#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096u
#define PAGE_WORDS (PAGE_BYTES / sizeof(uint64_t))
#define MAX_SLOTS 256
#define MAX_CPUS 64

enum kind { KIND_ANON, KIND_SHARED, KIND_FILE, KIND_PIPE, KIND_COW, KIND_LOCKED, KIND_SPARSE, KIND_CHURN, KIND_LDT, KIND_VECTOR,
            KIND_DISK_DIRECT, KIND_DISK_CACHED, KIND_SAMPLER, KIND_COUNT };

struct slot {
    uint64_t checked_bytes, wrong_bytes, fpu_bad;
    uint64_t passes;
    uint64_t reported; /* WRONG lines printed; the rest is only counted */
    int32_t pid, kind;
    uint64_t pad;
} __attribute__((aligned(64)));

/* Sampler and init both write here: the sampler raises, init takes and zeroes, both atomically. */
struct gap {
    uint64_t boot_ns, mono_ns;
} __attribute__((aligned(64)));

struct shared {
    struct slot slots[MAX_SLOTS];
    struct gap gaps[MAX_CPUS];
};

struct load {
    struct shared *shared;
    struct slot *slot; /* of the calling process */
    uint64_t seed, share_percent, fork_ms, sample_us, rest_us, skip, ldt_workers;
    int cpus, disk;
    size_t budget_pages; /* what all kinds together may own */
};

extern struct load load;

/* A set of pages and the generation of each. pre: one process writes it at a time. */
struct region {
    uint64_t id;
    unsigned char *base; /* NULL where the pages are not mapped (files, disks) */
    uint32_t *generation;
    size_t pages;
};

uint64_t mix(uint64_t x);
uint64_t clock_boot_ns(void);
uint64_t clock_mono_ns(void);
void pause_us(uint64_t us);

void pattern_fill(void *page, uint64_t id, size_t index, uint32_t generation);
/* post: wrong bytes are counted in the slot and reported; returns their number. */
size_t pattern_check(const void *page, uint64_t id, size_t index, uint32_t generation);

/* post: all pages mapped at base hold generation 1. Ends the process when memory is missing. */
void region_open(struct region *region, uint64_t id, void *base, size_t pages);
void region_check_page(struct region *region, size_t index);
void region_bump_page(struct region *region, size_t index);
/* One pass: every page checked, every fourth one rewritten, a different quarter each time. */
void region_pass(struct region *region, uint64_t pass);
void *pages_map(size_t pages, int flags);

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void give_up(const char *what);
int next_random(uint64_t *state, uint64_t below);

_Noreturn void run_anon(uint64_t id, size_t pages);
_Noreturn void run_shared(uint64_t id, size_t pages);
_Noreturn void run_file(uint64_t id, size_t pages);
_Noreturn void run_pipe(uint64_t id, size_t pages);
_Noreturn void run_cow(uint64_t id, size_t pages);
_Noreturn void run_locked(uint64_t id, size_t pages);
_Noreturn void run_sparse(uint64_t id, size_t pages);
_Noreturn void run_churn(uint64_t id, size_t pages);
_Noreturn void run_ldt(uint64_t id, size_t pages);
_Noreturn void run_vector(uint64_t id, size_t pages);
_Noreturn void run_disk_direct(uint64_t id, size_t pages);
_Noreturn void run_disk_cached(uint64_t id, size_t pages);
_Noreturn void run_sampler(uint64_t cpu, size_t pages);
#endif
