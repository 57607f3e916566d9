/*
 * Owns: the loads whose bytes live in the kernel: page cache (tmpfs) and pipe buffers.
 * Invariants: what is written is read back, by read and by a mapping; a pipe is kept full between writer and reader.
 */
#define _GNU_SOURCE
#include "load.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PIPE_PAGES 16u /* a pipe's default capacity */

static int file_open(uint64_t id)
{
    char name[32];
    int fd;

    snprintf(name, sizeof(name), "/tmp/file%llu", (unsigned long long)id);
    unlink(name);
    fd = open(name, O_CREAT | O_RDWR | O_TRUNC, 0600);
    if (fd < 0)
        give_up(name);
    return fd;
}

static void file_write_page(int fd, struct region *region, size_t index, void *buffer)
{
    pattern_fill(buffer, region->id, index, ++region->generation[index]);
    if (pwrite(fd, buffer, PAGE_BYTES, (off_t)(index * PAGE_BYTES)) != (ssize_t)PAGE_BYTES)
        give_up("file write");
}

_Noreturn void run_file(uint64_t id, size_t pages)
{
    struct region region;
    unsigned char *buffer = pages_map(1, MAP_PRIVATE);

    region_open(&region, id, NULL, pages);
    for (uint64_t life = 0;; life++) {
        int fd = file_open(id);
        const unsigned char *mapped;

        for (size_t i = 0; i < pages; i++)
            file_write_page(fd, &region, i, buffer);
        mapped = mmap(NULL, pages * PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
        if (mapped == MAP_FAILED)
            give_up("file mmap");
        for (uint64_t pass = 0; pass < 16; pass++) {
            for (size_t i = 0; i < pages; i++) {
                if (pass & 1) {
                    pattern_check(mapped + i * PAGE_BYTES, id, i, region.generation[i]);
                } else {
                    if (pread(fd, buffer, PAGE_BYTES, (off_t)(i * PAGE_BYTES)) != (ssize_t)PAGE_BYTES)
                        give_up("file read");
                    pattern_check(buffer, id, i, region.generation[i]);
                }
                if (((i ^ pass) & 3) == 0)
                    file_write_page(fd, &region, i, buffer);
            }
            load.slot->passes++;
        }
        munmap((void *)(uintptr_t)mapped, pages * PAGE_BYTES);
        close(fd);
    }
}

static _Noreturn void pipe_writer(int fd, uint64_t id)
{
    unsigned char *buffer = pages_map(1, MAP_PRIVATE);

    for (size_t n = 0;; n++) {
        pattern_fill(buffer, id, n, 1);
        if (write(fd, buffer, PAGE_BYTES) != (ssize_t)PAGE_BYTES)
            give_up("pipe write");
    }
}

_Noreturn void run_pipe(uint64_t id, size_t pages)
{
    unsigned char *buffer = pages_map(1, MAP_PRIVATE);
    int ends[2];

    (void)pages;
    if (pipe(ends))
        give_up("pipe");
    if (fork() == 0)
        pipe_writer(ends[1], id);
    for (size_t n = 0;; n++) {
        size_t have = 0;

        /* The writer fills the pipe meanwhile: data stays in flight nearly always. */
        if (n % (PIPE_PAGES / 2) == 0) {
            load.slot->passes++;
            pause_us(20000);
        }
        while (have < PAGE_BYTES) {
            ssize_t got = read(ends[0], buffer + have, PAGE_BYTES - have);

            if (got <= 0)
                give_up("pipe read");
            have += (size_t)got;
        }
        pattern_check(buffer, id, n, 1);
    }
}
