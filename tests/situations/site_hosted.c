/*
 * site_hosted.c - a site on the hosted machine: nodes of whole sections, host memory as pages, a host that remembers what it was given.
 *
 * Owns: the memory under the pages, boot memory, swap, the record of given pages; the baselines' changes to the core.
 * Invariants:
 *   I1  gone has a bit for each page that was given and not taken again; giving twice, or taking what was not given, is a host fault.
 *   I2  a page that is given is overwritten: nobody has anything to look for there.
 * Lock order: none; one thread.
 * Why: the two baselines need no code in the core.  "alike": the allocator's two entries are wrapped (--wrap) and every request asks for
 *   the same type, so all of memory is one list.  "lumpy": the hooks of compaction are taken away, and direct reclaim of a high order
 *   frees the block of the oldest page.
 * Cost: 68 bytes a page at once; pages when they are touched.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "site.h"
#include "../../guest/arch/hosted/arch_hosted.h"
#include "../../guest/mm/cache_fsck.h"
#include "../../guest/mm/hugetlb.h"
#include "../../guest/mm/migrate.h"
#include "../../guest/mm/mm_fsck.h"
#include "../../guest/mm/pcp.h"
#include "../../guest/mm/reclaim.h"
#include "../../guest/mm/slab_fsck.h"
#include "../../guest/mm/vm_fsck.h"

#define LUMPY_TRIES 8u

struct hosted {
    struct mm mm;
    struct vm vm;
    struct lru lru;
    struct pagecache pagecache;
    struct swap swap;
    struct hugetlb hugetlb;
    void **boot;
    size_t boot_count;
    unsigned char *memory, *swap_bytes;
    uint64_t pages, free_at_start;
    uint8_t *gone;                      /* a byte a page */
    FILE *out;
    uint64_t printed;
    bool alike;
};

/* ---- the baseline without grouping ---- */

static bool all_alike;                  /* of the one site that is open: wrapped functions have no other way to know */

struct page *__real_alloc_pages(struct mm *mm, gfp_t gfp, unsigned order);
struct page *__wrap_alloc_pages(struct mm *mm, gfp_t gfp, unsigned order);
struct page *__real_alloc_pages_node(struct mm *mm, uint32_t node, gfp_t gfp, unsigned order);
struct page *__wrap_alloc_pages_node(struct mm *mm, uint32_t node, gfp_t gfp, unsigned order);

static gfp_t as_asked(gfp_t gfp)
{
    return all_alike ? (gfp & ~(gfp_t)(__GFP_RECLAIMABLE | __GFP_ACCOUNT)) | __GFP_MOVABLE : gfp;
}

struct page *__wrap_alloc_pages(struct mm *mm, gfp_t gfp, unsigned order)
{
    return __real_alloc_pages(mm, as_asked(gfp), order);
}

struct page *__wrap_alloc_pages_node(struct mm *mm, uint32_t node, gfp_t gfp, unsigned order)
{
    return __real_alloc_pages_node(mm, node, as_asked(gfp), order);
}

/* ---- the baseline without compaction ---- */

/* The oldest page of a zone that reclaim would look at next. */
static struct page *oldest(struct lru *l, const struct zone *z)
{
    static const enum lru_list lists[] = { LRU_INACTIVE_FILE, LRU_INACTIVE_ANON, LRU_ACTIVE_FILE, LRU_ACTIVE_ANON };

    for (unsigned i = 0; i < FS_ARRAY_SIZE(lists); i++) {
        if (l->zones[z->id].last[lists[i]] != NULL) {
            return l->zones[z->id].last[lists[i]];
        }
    }
    return NULL;
}

static uint64_t lumpy_reclaim(struct mm *mm, struct zone *z, unsigned order, gfp_t gfp)
{
    uint64_t total = 0;

    if (order <= 3) {
        return reclaim_zone(mm->vm, z, 32, gfp);
    }
    lru_count(mm->vm->lru, LC_allocstall, 1);
    for (unsigned i = 0; i < LUMPY_TRIES; i++) {
        const struct page *p = oldest(mm->vm->lru, z);
        uint32_t block;

        if (p == NULL) {
            break;
        }
        block = page_block(p);
        total += reclaim_range(mm->vm, block_pfn(block), block_pfn(block + 1), 0);
        pcp_drain(mm, z);
        if (mm_block(mm, block)->free_pages == PAGEBLOCK_PAGES) {
            return total > 0 ? total : 1;
        }
    }
    return total;
}

/* ---- the host ---- */

static mm_status_t host_give(void *ctx, pfn_t pfn, unsigned order)
{
    struct site *s = ctx;
    struct hosted *h = s->impl;

    for (uint64_t i = pfn.n; i < pfn.n + (1ull << order); i++) {
        s->host_faults += h->gone[i] != 0;                          /* I1 */
        h->gone[i] = 1;
    }
    memset(h->memory + pfn.n * FS_PAGE_BYTES, 0xee, (size_t)FS_PAGE_BYTES << order);    /* I2 */
    return MM_OK;
}

static mm_status_t host_take(void *ctx, pfn_t pfn, unsigned order)
{
    struct site *s = ctx;
    struct hosted *h = s->impl;

    for (uint64_t i = pfn.n; i < pfn.n + (1ull << order); i++) {
        s->host_faults += h->gone[i] != 1;
        h->gone[i] = 0;
    }
    return MM_OK;
}

static uint64_t host_gone(const struct site *s, uint64_t start, uint64_t end)
{
    const struct hosted *h = s->impl;
    uint64_t n = 0;

    for (uint64_t i = start; i < end; i++) {
        n += h->gone[i];
    }
    return n;
}

/* ---- checks ---- */

static void say(struct hosted *h, const char *what, uint64_t pfn, uint64_t is, uint64_t should_be)
{
    if (h->out != NULL && h->printed++ < 10) {
        fprintf(h->out, "fsck: %s: pfn %#llx is %#llx should be %#llx\n", what, (unsigned long long)pfn, (unsigned long long)is,
                (unsigned long long)should_be);
    }
}

static void on_mm(void *ctx, enum mm_fault f, pfn_t pfn, uint64_t is, uint64_t should_be) { say(ctx, mm_fault_text(f), pfn.n, is, should_be); }
static void on_cache(void *ctx, enum cache_fault f, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    say(ctx, cache_fault_text(f), pfn.n, is, should_be);
}
static void on_vm(void *ctx, enum vm_fsck_fault f, const struct vm_fsck_place *place, uint64_t is, uint64_t should_be)
{
    say(ctx, vm_fsck_text(f), place->pfn.n, is, should_be);
}

struct slab_sieve { struct hosted *h; uint64_t passed; };

/* Where every request is alike, slabs are not in blocks of their caches' type: that is the baseline, not a fault. */
static void on_slab(void *ctx, enum slab_fault f, const struct kmem_cache *c, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    struct slab_sieve *sieve = ctx;

    (void)c;
    if (sieve->h->alike && f == SLAB_FAULT_TYPE) {
        sieve->passed++;
    } else {
        say(sieve->h, slab_fault_text(f), pfn.n, is, should_be);
    }
}

static uint64_t hosted_fsck(struct site *s, FILE *out)
{
    struct hosted *h = s->impl;
    struct slab_sieve sieve = { h, 0 };
    uint64_t faults;

    h->out = out;
    h->printed = 0;
    faults = mm_fsck(&h->mm, on_mm, h) + vm_fsck(&h->vm, on_vm, h) + cache_fsck(&h->vm, on_cache, h) + slab_fsck(&h->mm, on_slab, &sieve);
    return faults - sieve.passed + s->host_faults;
}

/* ---- building ---- */

static void *boot_alloc(void *ctx, size_t bytes, size_t align)
{
    struct hosted *h = ctx;
    void **more = realloc(h->boot, sizeof(void *) * (h->boot_count + 1));
    void *p = more != NULL ? aligned_alloc(align, (bytes + align - 1) / align * align) : NULL;

    h->boot = more != NULL ? more : h->boot;
    if (p != NULL) {
        memset(p, 0, bytes);
        h->boot[h->boot_count++] = p;
    }
    return p;
}

static mm_status_t swap_read(void *ctx, uint32_t slot, void *bytes)
{
    memcpy(bytes, ((struct hosted *)ctx)->swap_bytes + slot * (size_t)FS_PAGE_BYTES, FS_PAGE_BYTES);
    return MM_OK;
}

static mm_status_t swap_write(void *ctx, uint32_t slot, const void *bytes)
{
    memcpy(((struct hosted *)ctx)->swap_bytes + slot * (size_t)FS_PAGE_BYTES, bytes, FS_PAGE_BYTES);
    return MM_OK;
}

static const struct swap_backing swap_ops = { swap_read, swap_write };

static void *host_memory(uint64_t pages)
{
    void *p = mmap(NULL, pages * FS_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return p != MAP_FAILED ? p : NULL;
}

static mm_status_t build_mm(struct hosted *h, const struct site_config *c)
{
    struct mm_range ram[MM_NODES_MAX];
    struct mm_config config = { .ram = ram, .ram_count = c->nodes, .cpus = c->cpus, .policy = c->policy, .kernelcore_pages = c->kernelcore_pages,
                                .movable_nodes = c->movable_nodes, .boot_alloc = boot_alloc, .boot_ctx = h };
    uint64_t node_pages = (uint64_t)c->node_sections * SECTION_PAGES;
    mm_status_t status;

    for (uint32_t n = 0; n < c->nodes; n++) {
        ram[n] = (struct mm_range){ pfn_make(n * node_pages), pfn_make((n + 1) * node_pages), n };
    }
    status = mm_init(&h->mm, &config);
    status = status == MM_OK ? compaction_init(&h->mm, &config) : status;
    if (status == MM_OK) {
        (void)mm_free_boot(&h->mm, pfn_make(c->boot_pages), pfn_make(h->pages));
        mm_boot_done(&h->mm);
        h->free_at_start = mm_free_pages(&h->mm);
    }
    return status;
}

static mm_status_t build_vm(struct hosted *h, const struct site_config *c)
{
    mm_status_t status = vm_init(&h->vm, &h->mm);

    if (status != MM_OK) {
        return status;
    }
    lru_init(&h->lru, &h->mm);
    h->vm.lru = &h->lru;
    status = pagecache_init(&h->pagecache, &h->vm);
    if (status != MM_OK) {
        return status;
    }
    swap_init(&h->swap, &h->vm);
    if (c->swap_slots != 0) {
        status = swap_add_area(&h->swap, c->swap_slots, &swap_ops, h);
    }
    vm_install_migrate(&h->vm);
    hugetlb_init(&h->hugetlb, &h->vm);
    reclaim_init(&h->vm);
    if (c->lumpy || c->alike) {
        h->mm.hooks.compact = NULL;
        h->mm.hooks.clear_block = NULL;
        h->mm.hooks.reclaim = lumpy_reclaim;
    }
    return status;
}

static void hosted_become(struct site *s, unsigned cpu)
{
    (void)s;
    arch_hosted_set_cpu(cpu);
}

bool site_open(struct site *s, const struct site_config *c, uint64_t seed)
{
    struct hosted *h = calloc(1, sizeof(*h));

    *s = (struct site){ .config = *c, .cpus = c->cpus, .random = seed, .become = hosted_become, .fsck = hosted_fsck, .gone = host_gone,
                        .host = { .give = host_give, .take = host_take, .ctx = s }, .impl = h };
    if (h == NULL) {
        return false;
    }
    h->pages = (uint64_t)c->nodes * c->node_sections * SECTION_PAGES;
    h->memory = host_memory(h->pages);
    h->swap_bytes = c->swap_slots != 0 ? host_memory(c->swap_slots) : NULL;
    h->gone = calloc(h->pages, 1);
    h->alike = c->alike;
    if (h->memory == NULL || h->gone == NULL || (c->swap_slots != 0 && h->swap_bytes == NULL)) {
        fprintf(stderr, "no host memory for a machine of %llu MiB\n", (unsigned long long)(h->pages >> 8));
        return false;
    }
    arch_hosted_set_memory(h->memory, h->pages);
    arch_hosted_set_cpu(0);
    all_alike = c->alike;
    if (build_mm(h, c) != MM_OK || build_vm(h, c) != MM_OK) {
        fprintf(stderr, "the core refuses this configuration of %u nodes\n", c->nodes);
        return false;
    }
    s->mm = &h->mm;
    s->vm = &h->vm;
    s->lru = &h->lru;
    s->pagecache = &h->pagecache;
    return true;
}

/* Slots whose page was locked when its last owner left: reclaim would find them. */
static void drop_swap_cache(struct hosted *h)
{
    for (uint64_t pfn = 0; pfn < h->pages; pfn++) {
        struct page *p = mm_page(&h->mm, pfn_make(pfn));

        if (page_state(p) == PAGE_USED && page_test(p, PG_SWAPCACHE) && page_try_get(p)) {
            page_lock(p);
            (void)swapcache_try_free(&h->swap, p);
            page_unlock(p);
            page_put(&h->mm, p);
        }
    }
}

void site_abandon(struct site *s)
{
    struct hosted *h = s->impl;

    arch_hosted_set_memory(NULL, 0);
    all_alike = false;
    if (h == NULL) {
        return;
    }
    if (h->memory != NULL) {
        (void)munmap(h->memory, h->pages * FS_PAGE_BYTES);
    }
    if (h->swap_bytes != NULL) {
        (void)munmap(h->swap_bytes, s->config.swap_slots * (size_t)FS_PAGE_BYTES);
    }
    for (size_t i = 0; i < h->boot_count; i++) {
        free(h->boot[i]);
    }
    free(h->boot);
    free(h->gone);
    free(h);
    s->impl = NULL;
}

uint64_t site_close(struct site *s)
{
    struct hosted *h = s->impl;
    uint64_t faults = s->fsck(s, stderr), free_now;

    drop_swap_cache(h);
    hugetlb_destroy(&h->hugetlb);
    swap_destroy(&h->swap);
    pagecache_destroy(&h->pagecache);
    vm_destroy(&h->vm);
    mm_drain(&h->mm);
    free_now = mm_free_pages(&h->mm);
    faults += free_now > h->free_at_start ? free_now - h->free_at_start : h->free_at_start - free_now;
    site_abandon(s);
    return faults;
}
