/*
 * Owns: the loads on the guest's disk (/dev/xvda): direct and cached, each on its own half.
 * Invariants: every block read was written by this process in this life; the generation of each block is kept in memory.
 * Why: blkfront grants guest frames to dom0 (persistent grants stay granted); direct I/O makes those frames change hands all the time.
 */
#define _GNU_SOURCE
#include "load.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define DISK "/dev/xvda"
#define EXTENT_PAGES 16u /* one request: more than one segment */

static int disk_open(int flags)
{
    for (int tries = 0; tries < 600; tries++) {
        int fd = open(DISK, O_RDWR | flags);

        if (fd >= 0)
            return fd;
        pause_us(100000);
    }
    give_up(DISK);
}

static void disk_write(int fd, struct region *region, size_t first, off_t start)
{
    for (size_t i = 0; i < EXTENT_PAGES; i++)
        pattern_fill(region->base + i * PAGE_BYTES, region->id, first + i, ++region->generation[first + i]);
    if (pwrite(fd, region->base, EXTENT_PAGES * PAGE_BYTES, start + (off_t)(first * PAGE_BYTES)) != (ssize_t)(EXTENT_PAGES * PAGE_BYTES))
        give_up("disk write");
}

static void disk_check(int fd, struct region *region, size_t first, off_t start)
{
    /* What an I/O that never came would leave behind must not look right. */
    for (size_t i = 0; i < EXTENT_PAGES * PAGE_WORDS; i++)
        ((uint64_t *)(void *)region->base)[i] = 0xdeadbeefdeadbeefull;
    if (pread(fd, region->base, EXTENT_PAGES * PAGE_BYTES, start + (off_t)(first * PAGE_BYTES)) != (ssize_t)(EXTENT_PAGES * PAGE_BYTES))
        give_up("disk read");
    for (size_t i = 0; i < EXTENT_PAGES; i++)
        pattern_check(region->base + i * PAGE_BYTES, region->id, first + i, region->generation[first + i]);
}

static _Noreturn void disk_run(uint64_t id, int flags, off_t start, size_t pages)
{
    struct region region;
    int fd = disk_open(flags);
    uint64_t state = id;

    pages -= pages % EXTENT_PAGES;
    region_open(&region, id, NULL, pages);
    region.base = pages_map(EXTENT_PAGES, MAP_PRIVATE);
    for (size_t first = 0; first < pages; first += EXTENT_PAGES)
        disk_write(fd, &region, first, start);
    for (;;) {
        for (size_t n = 0; n < pages / EXTENT_PAGES; n++) {
            size_t first = (size_t)next_random(&state, pages / EXTENT_PAGES) * EXTENT_PAGES;

            disk_check(fd, &region, first, start);
            if (n & 1)
                disk_write(fd, &region, first, start);
        }
        if (!(flags & O_DIRECT) && (fsync(fd) || posix_fadvise(fd, start, (off_t)(pages * PAGE_BYTES), POSIX_FADV_DONTNEED)))
            give_up("disk sync");
        load.slot->passes++;
    }
}

_Noreturn void run_disk_direct(uint64_t id, size_t pages) { disk_run(id, O_DIRECT, 0, pages); }
_Noreturn void run_disk_cached(uint64_t id, size_t pages) { disk_run(id, 0, (off_t)(pages * PAGE_BYTES), pages); }
