/*
 * main_ldt_guest.c - the first process of a guest whose processes use a local descriptor table all the time.
 *
 * Owns: nothing but itself; built static, it is the whole initial ram disk (see ldt_guest.sh).
 * One process per vCPU, bound to it, fills its table with segments over its own buffer, and reads and writes through them for
 * ever.  So at any suspend each vCPU has a table loaded, and Xen has mapped its pages.
 * Prints what the other loads print: BEAT seq= ... wrong_bytes= ... end.
 */
#include <asm/ldt.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ENTRIES 1024            /* two pages of table */
#define SLICE   64

struct shared {
    _Atomic uint64_t rounds[64], wrong[64];
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t read_through(unsigned entry, unsigned offset)
{
    uint64_t v;
    uint16_t selector = (uint16_t)(entry << 3 | 7);
    __asm__ volatile("mov %w1, %%gs\n\tmov %%gs:(%q2), %0" : "=r"(v) : "r"(selector), "r"((uint64_t)offset) : "memory");
    return v;
}

static void work(struct shared *s, int cpu)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    sched_setaffinity(0, sizeof one, &one);
    /* A segment's base has 32 bits. */
    uint8_t *buffer = mmap((void *)0x10000000, ENTRIES * SLICE, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_POPULATE, -1, 0);
    for (unsigned i = 0; i < ENTRIES; i++) {
        struct user_desc d = { .entry_number = i, .base_addr = (unsigned)(uintptr_t)buffer + i * SLICE, .limit = SLICE - 1, .seg_32bit = 1,
                               .useable = 1 };
        if (syscall(SYS_modify_ldt, 1, &d, sizeof d) != 0) {
            s->wrong[cpu] += 1000000;
        }
    }
    for (uint64_t round = 1;; round++) {
        for (unsigned i = 0; i < ENTRIES; i++) {
            uint64_t want = round << 20 ^ i * 0x9e3779b97f4a7c15ull;
            memcpy(buffer + i * SLICE + 8, &want, 8);
            if (read_through(i, 8) != want) {
                s->wrong[cpu]++;
            }
        }
        s->rounds[cpu] = round;
    }
}

int main(void)
{
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    for (int i = 0; i < cpus && i < 64; i++) {
        if (fork() == 0) {
            work(s, i);
        }
    }
    uint64_t last = now_ns(), max_gap = 0, beat = last;
    for (uint64_t seq = 1;;) {
        usleep(20000);
        uint64_t now = now_ns(), wrong = 0, rounds = 0;
        if (now - last > max_gap) {
            max_gap = now - last;
        }
        last = now;
        if (now - beat < 1000000000u) {
            continue;
        }
        for (int i = 0; i < cpus && i < 64; i++) {
            wrong += s->wrong[i];
            rounds += s->rounds[i];
        }
        printf("BEAT seq=%llu t_ns=%llu checked_bytes=%llu wrong_bytes=%llu fpu_bad=0 gap_ns=%llu end\n", (unsigned long long)seq++,
               (unsigned long long)now, (unsigned long long)rounds * ENTRIES * 8, (unsigned long long)wrong, (unsigned long long)max_gap);
        fflush(stdout);
        beat = now;
        max_gap = 0;
    }
}
