/*
 * arch_hosted.c - the machine of the memory core where it is a process: threads are CPUs.
 *
 * Owns: which CPU a thread is, and where page contents are.
 * Invariants: I1  the memory and the hook are set before threads start.
 * Lock order: none.
 * Why: tests and benches run the very objects that the PV kernel links.
 * Cost: a CPU number is one thread-local read.
 */
#include "arch_hosted.h"
#include "hosted_priv.h"
#include "frameshift/assert.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

static _Thread_local unsigned this_cpu;
static unsigned char *memory_base;
static uint64_t memory_pages;
static void (*on_copy)(void *ctx, pfn_t to, pfn_t from);
static void *on_copy_ctx;

void arch_hosted_set_cpu(unsigned cpu)
{
    ASSERT_CMP(cpu, <, ARCH_CPUS_MAX);
    this_cpu = cpu;
}

void arch_hosted_set_memory(void *base, uint64_t pages)
{
    memory_base = base;
    memory_pages = pages;
    hosted_mmu_reset(base != NULL ? pages : 0);
}

uint64_t hosted_memory_pages(void)
{
    return memory_pages;
}

unsigned arch_cpu_id(void)
{
    return this_cpu;
}

void arch_cpu_relax(void)
{
    hosted_pause();
    arch_hosted_safepoint();
}

static unsigned char *page_bytes(pfn_t pfn)
{
    ASSERT_CMP(pfn.n, <, memory_pages);
    return memory_base + pfn.n * FS_PAGE_BYTES;
}

void *arch_page_address(pfn_t pfn)
{
    ASSERT(memory_base != NULL);
    return page_bytes(pfn);
}

void arch_page_clear(pfn_t pfn)
{
    arch_hosted_safepoint();
    if (memory_base != NULL) {
        memset(page_bytes(pfn), 0, FS_PAGE_BYTES);
    }
}

void arch_hosted_on_copy(void (*fn)(void *ctx, pfn_t to, pfn_t from), void *ctx)
{
    on_copy = fn;
    on_copy_ctx = ctx;
}

void arch_page_copy(pfn_t to, pfn_t from)
{
    arch_hosted_safepoint();
    if (on_copy != NULL) {
        on_copy(on_copy_ctx, to, from);
    }
    if (memory_base != NULL) {
        memcpy(page_bytes(to), page_bytes(from), FS_PAGE_BYTES);
    }
}

uint64_t arch_time_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

void arch_console_write(const char *text, size_t bytes)
{
    fwrite(text, 1, bytes, stdout);
}
