/*
 * Owns: what a page holds (L3), how it is checked, and how a wrong byte is told.
 * Invariants:
 *   P1  a wrong page is read a second time before it is reported: a difference that is gone then was in the processor, not in memory.
 *   P2  the report names the guest frame (pagemap), by which dom0 finds the machine frame.
 * Why not a checksum: it says that something is wrong; the words say what was there instead, and whose page it was.
 */
#include "load.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define STEP 0x9e3779b97f4a7c15ull /* odd: all words of a page differ */
#define REPORTS_MAX 4u
#define REST_PAGES 256u

uint64_t mix(uint64_t x)
{
    x += STEP;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

int next_random(uint64_t *state, uint64_t below)
{
    *state += STEP;
    return (int)(mix(*state) % below);
}

static uint64_t clock_ns(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t clock_boot_ns(void) { return clock_ns(CLOCK_BOOTTIME); }
uint64_t clock_mono_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

void pause_us(uint64_t us)
{
    struct timespec t = {.tv_sec = (time_t)(us / 1000000), .tv_nsec = (long)(us % 1000000 * 1000)};

    nanosleep(&t, NULL);
}

/* One write per line, so that lines of different processes do not mix. */
void say(const char *format, ...)
{
    char line[512];
    va_list arguments;
    int length;

    va_start(arguments, format);
    length = vsnprintf(line, sizeof(line), format, arguments);
    va_end(arguments);
    if (length > 0 && write(1, line, (size_t)length < sizeof(line) ? (size_t)length : sizeof(line) - 1) < 0)
        return; /* the console is all there is to tell it to */
}

_Noreturn void give_up(const char *what)
{
    say("FATAL kind=%d pid=%d %s: %m\n", load.slot ? load.slot->kind : -1, (int)getpid(), what);
    _exit(1);
}

static uint64_t page_start(uint64_t id, size_t index, uint32_t generation)
{
    return mix(mix(load.seed ^ mix(id)) ^ ((uint64_t)index << 32 | generation));
}

void pattern_fill(void *page, uint64_t id, size_t index, uint32_t generation)
{
    uint64_t *word = page, value = page_start(id, index, generation);

    for (size_t i = 0; i < PAGE_WORDS; i++, value += STEP)
        word[i] = value;
}

static uint64_t guest_frame(const void *address)
{
    uint64_t entry = 0;
    int fd = open("/proc/self/pagemap", O_RDONLY);

    if (fd < 0)
        return 0;
    if (pread(fd, &entry, sizeof(entry), (off_t)((uintptr_t)address / PAGE_BYTES * sizeof(entry))) != sizeof(entry))
        entry = 0;
    close(fd);
    return entry & ((1ull << 55) - 1);
}

static void report(const volatile uint64_t *word, uint64_t expected, uint64_t got, uint64_t id, size_t index, uint32_t generation)
{
    if (load.slot->reported++ >= REPORTS_MAX)
        return;
    say("WRONG kind=%d pid=%d va=%p pfn=0x%llx id=%llu page=%zu gen=%u expected=%016llx got=%016llx again=%016llx t_ns=%llu\n",
        load.slot->kind, (int)getpid(), (const void *)word, (unsigned long long)guest_frame((const void *)word), (unsigned long long)id,
        index, generation, (unsigned long long)expected, (unsigned long long)got, (unsigned long long)*word,
        (unsigned long long)clock_boot_ns());
}

/* Guests that take all processor time slow down dom0's tools, and with them whatever is measured, by ten and more. */
static void rest(void)
{
    static unsigned int pages;

    if (load.rest_us && ++pages % REST_PAGES == 0)
        pause_us(load.rest_us);
}

size_t pattern_check(const void *page, uint64_t id, size_t index, uint32_t generation)
{
    const volatile uint64_t *word = page;
    uint64_t value = page_start(id, index, generation);
    size_t wrong = 0;

    for (size_t i = 0; i < PAGE_WORDS; i++, value += STEP) {
        uint64_t got = word[i];

        if (__builtin_expect(got != value, 0)) {
            if (wrong == 0)
                report(&word[i], value, got, id, index, generation);
            for (uint64_t difference = got ^ value; difference; difference >>= 8)
                wrong += (difference & 0xff) != 0;
        }
    }
    load.slot->checked_bytes += PAGE_BYTES;
    load.slot->wrong_bytes += wrong;
    rest();
    return wrong;
}

void *pages_map(size_t pages, int flags)
{
    void *base = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_ANONYMOUS | flags, -1, 0);

    if (base == MAP_FAILED)
        give_up("mmap");
    return base;
}

void region_open(struct region *region, uint64_t id, void *base, size_t pages)
{
    region->id = id;
    region->base = base;
    region->pages = pages;
    region->generation = pages_map((pages * sizeof(uint32_t) + PAGE_BYTES - 1) / PAGE_BYTES, MAP_SHARED);
    for (size_t i = 0; base && i < pages; i++)
        region_bump_page(region, i);
}

void region_check_page(struct region *region, size_t index)
{
    /* A wrong page is written again: the next pass then tells of new damage, not of the same. */
    if (pattern_check(region->base + index * PAGE_BYTES, region->id, index, region->generation[index]))
        region_bump_page(region, index);
}

void region_bump_page(struct region *region, size_t index)
{
    pattern_fill(region->base + index * PAGE_BYTES, region->id, index, ++region->generation[index]);
}

void region_pass(struct region *region, uint64_t pass)
{
    for (size_t i = 0; i < region->pages; i++) {
        region_check_page(region, i);
        if (((i ^ pass) & 3) == 0)
            region_bump_page(region, i);
    }
    load.slot->passes++;
}
