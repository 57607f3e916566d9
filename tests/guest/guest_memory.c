/*
 * guest_memory.c - a fixture whose pages have contents, and checks of what lies above the allocator.
 *
 * Owns: the memory under the pages of the one fixture that uses it.
 * Why: the machine has one memory, whoever builds it.
 * Cost: the pages are mapped and not touched.
 */
#include "guest_memory.h"
#include "arch_hosted.h"
#include "compaction.h"
#include "slab_fsck.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <sys/mman.h>
#include <cmocka.h>

static void *base;
static size_t base_bytes;
static uint64_t free_at_start;

void memory_init(struct fixture *f, uint64_t pages, uint64_t reserved, unsigned cpus)
{
    memory_init_nodes(f, pages, reserved, cpus, 1, 0);
}

void memory_init_nodes(struct fixture *f, uint64_t pages, uint64_t reserved, unsigned cpus, uint32_t nodes, uint64_t more_frames)
{
    struct mm_range ram[MM_NODES_MAX];
    struct mm_config config = { .ram = ram, .ram_count = nodes, .cpus = cpus };

    for (uint32_t n = 0; n < nodes; n++) {
        ram[n] = (struct mm_range){ pfn_make(pages / nodes * n), pfn_make(n + 1 < nodes ? pages / nodes * (n + 1) : pages), n };
    }
    assert_null(base);
    base_bytes = (pages + more_frames) * FS_PAGE_BYTES;
    base = mmap(NULL, base_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(base != MAP_FAILED);
    arch_hosted_set_memory(base, pages + more_frames);
    fixture_init_config(f, &config, reserved);
    free_at_start = mm_free_pages(&f->mm);
}

/* ---- boot memory out of the pages ---- */

static uint64_t boot_at;

static void *boot_alloc(void *ctx, size_t bytes, size_t align)
{
    uint64_t at = (boot_at + align - 1) / align * align;

    (void)ctx;
    if (at + bytes > base_bytes) {
        return NULL;
    }
    boot_at = at + bytes;
    return (unsigned char *)base + at;
}

void memory_init_direct(struct fixture *f, uint64_t pages, unsigned cpus, uint32_t nodes)
{
    struct mm_range ram[MM_NODES_MAX];
    struct mm_config config = { .ram = ram, .ram_count = nodes, .cpus = cpus, .policy = CLAIM_CLEAR_FIRST, .boot_alloc = boot_alloc };

    for (uint32_t n = 0; n < nodes; n++) {
        ram[n] = (struct mm_range){ pfn_make(pages / nodes * n), pfn_make(pages / nodes * (n + 1)), n };
    }
    assert_null(base);
    base_bytes = pages * FS_PAGE_BYTES;
    base = mmap(NULL, base_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_true(base != MAP_FAILED);
    arch_hosted_set_memory(base, pages);
    config.direct_map = base;
    boot_at = 3 * FS_PAGE_BYTES;                /* nothing begins at a pageblock by luck */
    *f = (struct fixture){ .boot = NULL };
    assert_int_equal(mm_init(&f->mm, &config), MM_OK);
    assert_int_equal(compaction_init(&f->mm, &config), MM_OK);
    mm_free_boot(&f->mm, pfn_make((boot_at + FS_PAGE_BYTES - 1) / FS_PAGE_BYTES), pfn_make(pages));
    mm_boot_done(&f->mm);
    free_at_start = mm_free_pages(&f->mm);
}

void *memory_base(void) { return base; }

void memory_check_all_free(struct fixture *f)
{
    mm_drain(&f->mm);
    assert_int_equal(mm_free_pages(&f->mm), free_at_start);
}

void memory_free(struct fixture *f)
{
    fixture_free(f);
    arch_hosted_set_memory(NULL, 0);
    munmap(base, base_bytes);
    base = NULL;
}

static void print_fault(void *ctx, enum slab_fault fault, const struct kmem_cache *c, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    fprintf(stderr, "seed %llu: %s in cache %s at pfn %#llx: %s (is %#llx, should be %#llx)\n", *(unsigned long long *)ctx,
            slab_fault_name(fault), c != NULL ? c->name : "-", (unsigned long long)pfn.n, slab_fault_text(fault),
            (unsigned long long)is, (unsigned long long)should_be);
}

void check_slab(const struct mm *mm, uint64_t seed)
{
    unsigned long long s = seed;
    uint64_t faults = slab_fsck(mm, print_fault, &s);

    assert_int_equal(faults, 0);
}
