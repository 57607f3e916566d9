/*
 * Owns: pid 1 of a guest under load: parameters from the kernel command line, modules, the worker processes, one BEAT line a second.
 * Invariants:
 *   I1  init itself owns no checked memory and never ends.
 *   I2  a worker that ends is told (DEAD) and stays dead: the beats go on and say how many are left.
 *   I3  a BEAT line is complete when it ends with " end": a reader may see a half line.
 * Parameters: seed= share=PERCENT fork=MS sample=US load=verifier|disk rest=US (after each MiB that a worker checked)
 *             skip=BITMASK of kinds that are left out; ldt=N processes with an LDT entry, which run without a rest if N > 1
 */
#define _GNU_SOURCE
#include "load.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct load load = {.seed = 1, .share_percent = 45, .fork_ms = 20, .sample_us = 2000, .rest_us = 50000, .ldt_workers = 1};
static int slots_used;

static size_t file_read(const char *name, char *buffer, size_t size)
{
    int fd = open(name, O_RDONLY);
    ssize_t length = fd < 0 ? 0 : read(fd, buffer, size - 1);

    if (fd >= 0)
        close(fd);
    buffer[length > 0 ? length : 0] = '\0';
    return strlen(buffer);
}

static void file_write(const char *name, const char *text)
{
    int fd = open(name, O_WRONLY);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        say("NOTE cannot write %s: %m\n", name);
    if (fd >= 0)
        close(fd);
}

/* The value after " NAME=", or NULL. */
static const char *parameter(const char *line, const char *name)
{
    size_t length = strlen(name);

    for (const char *at = line; (at = strstr(at, name)); at += length)
        if ((at == line || at[-1] == ' ') && at[length] == '=')
            return at + length + 1;
    return NULL;
}

static void parameter_number(const char *line, const char *name, uint64_t *value)
{
    const char *text = parameter(line, name);

    if (text)
        *value = strtoull(text, NULL, 0);
}

static void parameters_read(void)
{
    static char line[4096];
    const char *kind;

    file_read("/proc/cmdline", line, sizeof(line));
    parameter_number(line, "seed", &load.seed);
    parameter_number(line, "share", &load.share_percent);
    parameter_number(line, "fork", &load.fork_ms);
    parameter_number(line, "sample", &load.sample_us);
    parameter_number(line, "rest", &load.rest_us);
    parameter_number(line, "skip", &load.skip);
    parameter_number(line, "ldt", &load.ldt_workers);
    kind = parameter(line, "load");
    load.disk = kind && strncmp(kind, "disk", 4) == 0;
}

static size_t memory_available_pages(void)
{
    static char text[4096];
    const char *at;

    file_read("/proc/meminfo", text, sizeof(text));
    at = strstr(text, "MemAvailable:");
    return at ? strtoull(at + strlen("MemAvailable:"), NULL, 10) / 4 : 0;
}

static void modules_load(void)
{
    static char order[4096];
    char *rest = order, *name;

    file_read("/lib/modules/order", order, sizeof(order));
    while ((name = strsep(&rest, "\n"))) {
        char path[128];
        int fd;

        if (!*name)
            continue;
        snprintf(path, sizeof(path), "/lib/modules/%s", name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
            say("NOTE cannot load %s: %m\n", path);
        if (fd >= 0)
            close(fd);
    }
}

static uint64_t disk_pages(void)
{
    char text[32];

    for (int tries = 0; tries < 600 && !file_read("/sys/block/xvda/size", text, sizeof(text)); tries++)
        pause_us(100000);
    return strtoull(text, NULL, 10) / (PAGE_BYTES / 512);
}

static void worker_start(enum kind kind, uint64_t id, void (*run)(uint64_t, size_t), size_t pages)
{
    struct slot *slot = &load.shared->slots[slots_used];
    pid_t pid;

    if (load.skip >> kind & 1)
        return;
    if (slots_used == MAX_SLOTS)
        give_up("too many workers");
    slots_used++;
    slot->kind = kind;
    pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid == 0) {
        load.slot = slot;
        run(id, pages);
    }
    slot->pid = pid;
}

static void workers_start(void)
{
    size_t budget = memory_available_pages() * load.share_percent / 100;
    uint64_t id = 1;

    for (int cpu = 0; cpu < load.cpus; cpu++)
        worker_start(KIND_SAMPLER, (uint64_t)cpu, run_sampler, 0);
    /* Of the budget: 35 anonymous, 10 shared, 25 files, 5 locked, 15 copied on write (counted twice: the child's copies), 5 sparse, 5 churn. */
    for (int cpu = 0; cpu < load.cpus; cpu++)
        worker_start(KIND_ANON, id++, run_anon, budget * 35 / 100 / (size_t)load.cpus);
    worker_start(KIND_SHARED, id++, run_shared, budget * 10 / 100);
    for (int cpu = 0; cpu < load.cpus; cpu++)
        worker_start(KIND_FILE, id++, run_file, budget * 25 / 100 / (size_t)load.cpus);
    worker_start(KIND_PIPE, id++, run_pipe, 0);
    worker_start(KIND_LOCKED, id++, run_locked, budget * 5 / 100);
    worker_start(KIND_COW, id++, run_cow, budget * 15 / 100 * 2 / 3);
    worker_start(KIND_SPARSE, id++, run_sparse, budget * 5 / 100);
    worker_start(KIND_CHURN, id++, run_churn, budget * 5 / 100);
    for (uint64_t i = 0; i < load.ldt_workers; i++)
        worker_start(KIND_LDT, id++, run_ldt, 0);
    worker_start(KIND_VECTOR, id++, run_vector, 0);
    if (load.disk) {
        size_t half = disk_pages() / 2;

        if (half < 64)
            give_up("the disk is missing or too small");
        worker_start(KIND_DISK_DIRECT, id++, run_disk_direct, half);
        worker_start(KIND_DISK_CACHED, id++, run_disk_cached, half);
    }
    say("LOAD seed=%llu cpus=%d budget_pages=%zu workers=%d disk=%d\n", (unsigned long long)load.seed, load.cpus, budget, slots_used,
        load.disk);
}

static void children_reap(void)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (int i = 0; i < slots_used; i++)
            if (load.shared->slots[i].pid == pid) {
                say("DEAD kind=%d pid=%d status=0x%x\n", load.shared->slots[i].kind, (int)pid, (unsigned int)status);
                load.shared->slots[i].pid = 0;
            }
}

static void beat(uint64_t seq, uint64_t *largest)
{
    uint64_t checked = 0, wrong = 0, bad = 0, boot = 0, mono = 0;
    int alive = 0;

    for (int i = 0; i < slots_used; i++) {
        struct slot *slot = &load.shared->slots[i];

        checked += slot->checked_bytes;
        wrong += slot->wrong_bytes;
        bad += slot->fpu_bad;
        alive += slot->pid != 0;
    }
    for (int cpu = 0; cpu < load.cpus; cpu++) {
        uint64_t b = __atomic_exchange_n(&load.shared->gaps[cpu].boot_ns, 0, __ATOMIC_RELAXED);
        uint64_t m = __atomic_exchange_n(&load.shared->gaps[cpu].mono_ns, 0, __ATOMIC_RELAXED);

        boot = b > boot ? b : boot;
        mono = m > mono ? m : mono;
    }
    *largest = boot > *largest ? boot : *largest;
    say("BEAT seq=%llu t_ns=%llu checked_bytes=%llu wrong_bytes=%llu fpu_bad=%llu gap_ns=%llu mono_gap_ns=%llu max_gap_ns=%llu procs=%d "
        "workers=%d end\n",
        (unsigned long long)seq, (unsigned long long)clock_boot_ns(), (unsigned long long)checked, (unsigned long long)wrong,
        (unsigned long long)bad, (unsigned long long)boot, (unsigned long long)mono, (unsigned long long)*largest, alive, slots_used);
}

/* Passes of each worker since the last such line: shows that no kind of load stands still. */
static void kinds_tell(void)
{
    static uint64_t before[MAX_SLOTS];
    char line[400];
    int length = 0;

    for (int i = 0; i < slots_used && length < (int)sizeof(line) - 40; i++) {
        uint64_t passes = load.shared->slots[i].passes;

        length += snprintf(line + length, sizeof(line) - (size_t)length, " %d:%llu", load.shared->slots[i].kind,
                           (unsigned long long)(passes - before[i]));
        before[i] = passes;
    }
    say("PASSES%s end\n", line);
}

int main(void)
{
    uint64_t largest = 0, next;

    mount("proc", "/proc", "proc", 0, NULL);
    mount("sysfs", "/sys", "sysfs", 0, NULL);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    mount("tmp", "/tmp", "tmpfs", 0, "size=90%");
    parameters_read();
    file_write("/proc/self/oom_score_adj", "-1000");
    /* Real-time tasks may otherwise be stopped for 50 ms a second, which would look like a gap. */
    file_write("/proc/sys/kernel/sched_rt_runtime_us", "-1");
    modules_load();
    load.cpus = (int)sysconf(_SC_NPROCESSORS_ONLN);
    load.cpus = load.cpus < 1 ? 1 : load.cpus > MAX_CPUS ? MAX_CPUS : load.cpus;
    load.shared = pages_map((sizeof(*load.shared) + PAGE_BYTES - 1) / PAGE_BYTES, MAP_SHARED);
    workers_start();
    next = clock_boot_ns();
    for (uint64_t seq = 1;; seq++) {
        uint64_t now;

        while ((now = clock_boot_ns()) < next)
            pause_us((next - now) / 1000 + 1);
        next = now + 1000000000u;
        children_reap();
        beat(seq, &largest);
        if (seq % 10 == 0)
            kinds_tell();
    }
}
