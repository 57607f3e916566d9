/*
 * Owns: the loads that use memory as programs do: anonymous, shared, locked, copied on write, sparse, remapped.
 * Invariants: each worker owns its region alone, or hands it over as a whole (run_shared); it never ends.
 * Why these kinds: each leaves another trace in the page tables that a mover has to rewrite: read-only shared entries after a fork,
 * present entries under changed protection, leaf tables with one entry each, entries that move between tables.
 */
#define _GNU_SOURCE
#include "load.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define TABLE_BYTES (2u << 20) /* what one leaf page table maps */

_Noreturn void run_anon(uint64_t id, size_t pages)
{
    struct region region;

    region_open(&region, id, pages_map(pages, MAP_PRIVATE), pages);
    for (uint64_t pass = 0;; pass++)
        region_pass(&region, pass);
}

_Noreturn void run_locked(uint64_t id, size_t pages)
{
    struct region region;
    void *base = pages_map(pages, MAP_PRIVATE);

    if (mlock(base, pages * PAGE_BYTES))
        give_up("mlock");
    region_open(&region, id, base, pages);
    for (uint64_t pass = 0;; pass++)
        region_pass(&region, pass);
}

/* Two processes, one region: whoever has the turn checks what the other wrote, writes all of it again, and gives the turn away. */
_Noreturn void run_shared(uint64_t id, size_t pages)
{
    struct region region;
    volatile uint32_t *turn = pages_map(1, MAP_SHARED);
    uint32_t me;

    region_open(&region, id, pages_map(pages, MAP_SHARED), pages);
    /* Both count in one slot; only the one with the turn does (L1 holds by the turn). */
    me = fork() == 0;
    for (;;) {
        while (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != me)
            pause_us(2000);
        for (size_t i = 0; i < pages; i++) {
            region_check_page(&region, i);
            region_bump_page(&region, i);
        }
        load.slot->passes++;
        __atomic_store_n(turn, !me, __ATOMIC_RELEASE);
    }
}

/* The child sees the parent's pages, changes half of them, and must see its own; the parent must see none of it. */
static int cow_child(struct region *region)
{
    uint64_t wrong = load.slot->wrong_bytes;

    for (size_t i = 0; i < region->pages; i++) {
        const unsigned char *page = region->base + i * PAGE_BYTES;

        pattern_check(page, region->id, i, region->generation[i]);
        if (i & 1)
            pattern_fill(region->base + i * PAGE_BYTES, ~region->id, i, region->generation[i]);
    }
    for (size_t i = 0; i < region->pages; i++)
        pattern_check(region->base + i * PAGE_BYTES, i & 1 ? ~region->id : region->id, i, region->generation[i]);
    return load.slot->wrong_bytes != wrong;
}

_Noreturn void run_cow(uint64_t id, size_t pages)
{
    struct region region;
    int status;

    region_open(&region, id, pages_map(pages, MAP_PRIVATE), pages);
    for (uint64_t pass = 0;; pass++) {
        pid_t child = fork();

        if (child == 0)
            _exit(cow_child(&region));
        if (child < 0) {
            /* A ballooned guest may be short for a while. */
            pause_us(100000);
            continue;
        }
        /* L1: the slot is the child's until it has ended. The child's stores to it are seen because slots are shared. */
        waitpid(child, &status, 0);
        if (!WIFEXITED(status))
            say("DEAD kind=%d copy-on-write child status=%d\n", load.slot->kind, status);
        region_pass(&region, pass);
        pause_us(load.fork_ms * 1000);
    }
}

/* One page in each 2 MiB: as many page tables as pages. A part is unmapped and filled again in each pass, so tables come and go. */
_Noreturn void run_sparse(uint64_t id, size_t pages)
{
    size_t tables = pages / 2;
    unsigned char *base = mmap(NULL, (size_t)tables * TABLE_BYTES, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    uint32_t *generation = calloc(tables, sizeof(*generation));

    if (base == MAP_FAILED || !generation)
        give_up("sparse mmap");
    /* A huge page would make one entry of what must be a table. */
    madvise(base, (size_t)tables * TABLE_BYTES, MADV_NOHUGEPAGE);
    for (uint64_t pass = 0;; pass++) {
        for (size_t i = 0; i < tables; i++) {
            unsigned char *page = base + i * TABLE_BYTES + mix(id ^ i) % 512 * PAGE_BYTES;

            if (generation[i])
                pattern_check(page, id, i, generation[i]);
            if (((i ^ pass) & 7) == 0) {
                if (munmap(base + i * TABLE_BYTES, TABLE_BYTES) ||
                    mmap(base + i * TABLE_BYTES, TABLE_BYTES, PROT_READ | PROT_WRITE,
                         MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED ||
                    madvise(base + i * TABLE_BYTES, TABLE_BYTES, MADV_NOHUGEPAGE))
                    give_up("sparse remap");
            }
            if (((i ^ pass) & 7) == 0 || !generation[i] || ((i ^ pass) & 3) == 1)
                pattern_fill(page, id, i, ++generation[i]);
        }
        load.slot->passes++;
        pause_us(20000);
    }
}

/* mremap moves entries between tables without touching pages; mprotect changes them in place. */
_Noreturn void run_churn(uint64_t id, size_t pages)
{
    struct region region;
    size_t bytes = pages * PAGE_BYTES;

    region_open(&region, id, pages_map(pages, MAP_PRIVATE), pages);
    for (uint64_t pass = 0;; pass++) {
        unsigned char *target;

        if (mprotect(region.base, bytes, PROT_READ))
            give_up("mprotect");
        for (size_t i = 0; i < pages; i++)
            pattern_check(region.base + i * PAGE_BYTES, id, i, region.generation[i]);
        if (mprotect(region.base, bytes, PROT_NONE))
            give_up("mprotect");
        target = mmap(NULL, bytes + TABLE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (target == MAP_FAILED)
            give_up("mmap");
        munmap(target, bytes + TABLE_BYTES);
        /* Another place in the table each time. */
        target += pass % 512 * PAGE_BYTES;
        if (mremap(region.base, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, target) != target)
            give_up("mremap");
        region.base = target;
        if (mprotect(region.base, bytes, PROT_READ | PROT_WRITE))
            give_up("mprotect");
        region_pass(&region, pass);
        pause_us(20000);
    }
}
