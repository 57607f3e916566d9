/*
 * vm_world.c - processes, and a naive model of every byte that they own.
 *
 * Owns: struct world.
 * Invariants:
 *   I1  an operation that the core refuses for lack of memory has changed nothing, or only what its contract allows; the model follows.
 * Why: the model copies all bytes at fork and knows no page: whatever the core shares, moves or defers must not show.
 * Cost: a fork copies up to a megabyte.
 */
#include "vm_world.h"
#include "arch_hosted.h"
#include "reclaim.h"
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static const unsigned char zeros[FS_PAGE_BYTES];
/* The end of one table and the beginning of the next; one that shares nothing but the root; one in between. */
static const uint64_t bases[WORLD_WINDOWS] = { 0x40000000ull - 40 * 4096, 0x7f0000000000ull, 0x40800000ull };

#define THP_BASE  0x60000000ull
#define POOL_BASE 0x80000000ull

uint64_t world_va(uint32_t page)
{
    if (page >= POOL_FIRST) {
        return POOL_BASE + (uint64_t)(page - POOL_FIRST) * FS_PAGE_BYTES;
    }
    if (page >= THP_FIRST) {
        return THP_BASE - THP_EDGE * (uint64_t)FS_PAGE_BYTES + (uint64_t)(page - THP_FIRST) * FS_PAGE_BYTES;
    }
    return bases[page / WINDOW_PAGES] + (uint64_t)(page % WINDOW_PAGES) * FS_PAGE_BYTES;
}

static uint32_t window_of(uint32_t page)
{
    return page >= POOL_FIRST ? WORLD_WINDOWS + 1 : page >= THP_FIRST ? WORLD_WINDOWS : page / WINDOW_PAGES;
}

static uint32_t all_pages(const struct world *w)
{
    return w->pool ? ALL_PAGES : w->huge ? POOL_FIRST : PROCESS_PAGES;
}

/* Half of the time in the small windows, which are few pages. */
static uint32_t some_page(struct world *w)
{
    return w->huge && rng_below(&w->r, 2) == 0 ? THP_FIRST + (uint32_t)rng_below(&w->r, all_pages(w) - THP_FIRST)
                                               : (uint32_t)rng_below(&w->r, PROCESS_PAGES);
}

/* ---- what a page's bytes should be ---- */

static unsigned char *file_page(struct world *w, const struct world_page *m)
{
    return w->file_bytes[m->file] + (size_t)m->index * FS_PAGE_BYTES;
}

static const unsigned char *should_be(struct world *w, const struct world_page *m)
{
    return m->bytes != NULL ? m->bytes : m->file >= 0 ? file_page(w, m) : zeros;
}

static void own_copy(struct world *w, struct world_page *m)
{
    if (m->bytes == NULL && !m->shared) {
        unsigned char *bytes = malloc(FS_PAGE_BYTES);

        assert_non_null(bytes);
        memcpy(bytes, should_be(w, m), FS_PAGE_BYTES);
        m->bytes = bytes;
    }
}

static unsigned char *to_write(struct world *w, struct world_page *m)
{
    own_copy(w, m);
    return m->shared ? file_page(w, m) : m->bytes;
}

static void forget(struct world_page *m)
{
    free(m->bytes);
    *m = (struct world_page){ .file = -1 };
}

/* ---- choosing ---- */

static struct world_process *some_process(struct world *w)
{
    struct world_process *p = &w->processes[rng_below(&w->r, WORLD_PROCESSES)];

    return p->mm != NULL ? p : &w->processes[0];
}

struct range { uint32_t first, pages; };

/* Of the window over huge pages: one of them, both, or anything. */
static struct range some_huge_range(struct world *w, uint32_t most)
{
    uint32_t first = (uint32_t)rng_below(&w->r, THP_PAGES), n = 1 + (uint32_t)rng_below(&w->r, most * 4);

    switch (rng_below(&w->r, 6)) {
    case 0: return (struct range){ THP_FIRST, THP_PAGES };
    case 1: return (struct range){ THP_FIRST + THP_EDGE, 2 * HUGE_PAGES };
    case 2: return (struct range){ THP_FIRST + THP_EDGE + (uint32_t)rng_below(&w->r, 2) * HUGE_PAGES, HUGE_PAGES };
    default: return (struct range){ THP_FIRST + first, first + n > THP_PAGES ? THP_PAGES - first : n };
    }
}

static struct range some_range(struct world *w, uint32_t most)
{
    if (w->huge && rng_below(&w->r, 3) == 0) {
        return some_huge_range(w, most);
    }
    uint32_t window = (uint32_t)rng_below(&w->r, WORLD_WINDOWS) * WINDOW_PAGES, first = (uint32_t)rng_below(&w->r, WINDOW_PAGES);
    uint32_t n = 1 + (uint32_t)rng_below(&w->r, most);

    return (struct range){ window + first, first + n > WINDOW_PAGES ? WINDOW_PAGES - first : n };
}

/* MM_OK is what should come; false: refused for lack of memory, which is counted. */
static bool went(struct world *w, mm_status_t status)
{
    if (w->may_fail && status == MM_ENOMEM) {
        w->refused++;
        return false;
    }
    assert_int_equal(status, MM_OK);
    return true;
}

/* ---- operations ---- */

static void op_mmap(struct world *w, struct world_process *p)
{
    struct range range = some_range(w, 40);
    int file = w->files == 0 || range.pages > FILE_PAGES || rng_below(&w->r, 2) == 0 ? -1 : (int)rng_below(&w->r, w->files);
    bool shared = file >= 0 && rng_below(&w->r, 2) == 0;
    unsigned access = rng_below(&w->r, 8) == 0 ? (unsigned)rng_below(&w->r, 3) : VM_ACCESS;
    uint32_t index = file >= 0 ? (uint32_t)rng_below(&w->r, FILE_PAGES - range.pages + 1) : 0;
    uint64_t va = world_va(range.first);

    access = access == VM_WRITE ? VM_ACCESS : access;
    if (!went(w, vm_mmap(p->mm, &va, range.pages * (uint64_t)FS_PAGE_BYTES, access | (shared ? VM_SHARED : 0),
                         file >= 0 ? &w->as[file] : NULL, index))) {
        return;
    }
    assert_int_equal(va, world_va(range.first));
    for (uint32_t i = 0; i < range.pages; i++) {
        struct world_page *m = &p->pages[range.first + i];

        forget(m);
        *m = (struct world_page){ .mapped = true, .access = access, .file = file, .index = index + i, .shared = shared };
    }
}

static void op_munmap(struct world *w, struct world_process *p)
{
    struct range range = some_range(w, 30);

    if (went(w, vm_munmap(p->mm, world_va(range.first), range.pages * (uint64_t)FS_PAGE_BYTES))) {
        for (uint32_t i = 0; i < range.pages; i++) {
            forget(&p->pages[range.first + i]);
        }
    }
}

static bool has_hole(const struct world_process *p, struct range range)
{
    for (uint32_t i = 0; i < range.pages; i++) {
        if (!p->pages[range.first + i].mapped) {
            return true;
        }
    }
    return false;
}

static void op_mprotect(struct world *w, struct world_process *p)
{
    static const unsigned accesses[] = { 0, VM_READ, VM_ACCESS, VM_ACCESS };
    struct range range = some_range(w, 20);
    unsigned access = accesses[rng_below(&w->r, 4)];
    mm_status_t status = vm_mprotect(p->mm, world_va(range.first), range.pages * (uint64_t)FS_PAGE_BYTES, access);

    if (has_hole(p, range)) {
        assert_int_equal(status, MM_EINVAL);
        return;
    }
    if (went(w, status)) {
        for (uint32_t i = 0; i < range.pages; i++) {
            p->pages[range.first + i].access = access;
        }
    }
}

/* mlock that failed half-way: it has made some of the copies. */
static void follow_copies(struct world *w, struct world_process *p, struct range range)
{
    for (uint32_t i = 0; i < range.pages; i++) {
        struct page *page = follow_page(p->mm, world_va(range.first + i));

        if (page != NULL && page_test(page, PG_ANON)) {
            own_copy(w, &p->pages[range.first + i]);
        }
        if (page != NULL) {
            page_put(&w->g->f.mm, page);
        }
    }
}

static void op_mlock(struct world *w, struct world_process *p, bool lock)
{
    struct range range = some_range(w, 12);
    uint64_t va = world_va(range.first), bytes = range.pages * (uint64_t)FS_PAGE_BYTES;
    mm_status_t status = lock ? vm_mlock(p->mm, va, bytes) : vm_munlock(p->mm, va, bytes);

    if (lock && w->may_fail && status == MM_ENOMEM) {   /* some pages may be private copies by now: then all of them */
        w->refused++;
        status = vm_mlock(p->mm, va, bytes);
    }
    if (has_hole(p, range)) {
        assert_int_equal(status, MM_EINVAL);
        return;
    }
    if (!went(w, status)) {
        follow_copies(w, p, range);
        return;
    }
    for (uint32_t i = 0; i < range.pages; i++) {
        struct world_page *m = &p->pages[range.first + i];

        m->locked = lock;
        if (lock && m->access == VM_ACCESS) {
            own_copy(w, m);                     /* mlock makes the private copy of a page that may be written */
        }
    }
}

/* What an access of the bytes [at, at + n) must come to, page by page: the bytes that get through. */
static uint64_t allowed(const struct world_process *p, uint32_t page, uint64_t offset, uint64_t n, unsigned access)
{
    uint64_t done = 0;

    while (done < n) {
        uint32_t i = page + (uint32_t)((offset + done) / FS_PAGE_BYTES);
        uint64_t part = FS_PAGE_BYTES - (offset + done) % FS_PAGE_BYTES;

        if (i >= ALL_PAGES || window_of(i) != window_of(page) || !p->pages[i].mapped || (p->pages[i].access & access) == 0) {
            break;
        }
        done += part < n - done ? part : n - done;
    }
    return done;
}

/* A child's copy of a page of the pool can be refused for as long as the pool has none. */
static bool pool_lacks(struct world *w, uint32_t page, mm_status_t status)
{
    return w->may_fail && page >= POOL_FIRST && status == MM_ENOMEM;
}

static void op_write(struct world *w, struct world_process *p)
{
    uint32_t page = some_page(w);
    uint64_t offset = rng_below(&w->r, FS_PAGE_BYTES), n = 1 + rng_below(&w->r, rng_below(&w->r, 4) == 0 ? 9000 : 64);
    unsigned char buf[9064];

    if (page >= POOL_FIRST && (page - POOL_FIRST) % HUGE_PAGES + (offset + n) / FS_PAGE_BYTES >= HUGE_PAGES) {
        n = 1;
    }

    uint64_t through = allowed(p, page, offset, n, VM_WRITE), word = rng_next(&w->r);
    mm_status_t status;

    for (uint64_t i = 0; i < n; i++) {
        buf[i] = (unsigned char)(word >> i % 8 * 8 ^ i);
    }
    status = vm_user_write(p->mm, world_va(page) + offset, buf, n);
    if (w->may_fail && status == MM_ENOMEM) {   /* what came before the page that failed was written: do it once more */
        w->refused++;
        status = vm_user_write(p->mm, world_va(page) + offset, buf, n);
    }
    if (pool_lacks(w, page, status)) {
        return;                                 /* all in one unit: nothing was written */
    }
    assert_int_equal(status, through == n ? MM_OK : MM_EINVAL);
    for (uint64_t i = 0; i < through; i++) {
        to_write(w, &p->pages[page + (offset + i) / FS_PAGE_BYTES])[(offset + i) % FS_PAGE_BYTES] = buf[i];
    }
}

static void check_page(struct world *w, struct world_process *p, uint32_t page)
{
    struct world_page *m = &p->pages[page];
    unsigned char buf[FS_PAGE_BYTES];
    mm_status_t status = vm_user_read(p->mm, world_va(page), buf, FS_PAGE_BYTES);

    if (w->may_fail && status == MM_ENOMEM) {
        w->refused++;
        status = vm_user_read(p->mm, world_va(page), buf, FS_PAGE_BYTES);
    }
    if (pool_lacks(w, page, status)) {
        return;
    }
    assert_int_equal(status, m->mapped && m->access != 0 ? MM_OK : MM_EINVAL);
    if (status == MM_OK && memcmp(buf, should_be(w, m), FS_PAGE_BYTES) != 0) {
        print_error("seed %llu: wrong bytes in page %u (%#llx) of process %ld\n", (unsigned long long)w->seed, page,
                    (unsigned long long)world_va(page), (long)(p - w->processes));
        assert_memory_equal(buf, should_be(w, m), FS_PAGE_BYTES);
    }
}

static void op_fork(struct world *w, struct world_process *p)
{
    struct world_process *child = &w->processes[rng_below(&w->r, WORLD_PROCESSES)];

    if (child->mm != NULL || !went(w, mm_fork(p->mm, &child->mm))) {
        return;
    }
    child->policy = p->policy;
    for (uint32_t i = 0; i < ALL_PAGES; i++) {
        struct world_page *from = &p->pages[i], *to = &child->pages[i];

        *to = *from;
        to->locked = false;
        to->bytes = NULL;
        if (from->bytes != NULL) {
            to->bytes = malloc(FS_PAGE_BYTES);
            assert_non_null(to->bytes);
            memcpy(to->bytes, from->bytes, FS_PAGE_BYTES);
        }
    }
}

static void process_end(struct world_process *p)
{
    mm_put(p->mm);
    p->mm = NULL;
    p->policy = (struct world_policy){ MPOL_DEFAULT, 0 };
    for (uint32_t i = 0; i < ALL_PAGES; i++) {
        forget(&p->pages[i]);
    }
}

static struct page *new_target(void *ctx, struct page *from, size_t i)
{
    struct world *w = ctx;

    (void)i;
    if (page_order(from) != 0) {                /* half of the time the whole moves, if it can */
        return !page_test(from, PG_HUGE) && rng_below(&w->r, 4) == 0 ? NULL : alloc_pages(&w->g->f.mm, GFP_TRANSHUGE, page_order(from));
    }
    return alloc_pages(&w->g->f.mm, GFP_HIGH_MOVABLE, 0);
}

/* What is there, huge or not; only the model's own thread looks. */
static struct page *some_unit(struct world *w)
{
    uint64_t pages;
    struct mm_struct *mm = some_process(w)->mm;
    uint64_t va = world_va(some_page(w));

    return follow_unit(mm, va, &pages);         /* follow_page() would wait for our own references on what it is to split */
}

uint64_t world_migrate(struct world *w)
{
    struct migrate_item items[16];
    struct migrate_result result;
    size_t n = 0;
    mm_status_t status;

    for (size_t tries = 0; tries < 16; tries++) {
        struct page *page = n < 4 || !w->huge ? follow_page(some_process(w)->mm, world_va(some_page(w))) : some_unit(w);
        bool twice = false;

        for (size_t i = 0; i < n; i++) {
            twice |= items[i].from == page;
        }
        if (page != NULL && twice) {
            page_put(&w->g->f.mm, page);
        } else if (page != NULL) {
            items[n++] = (struct migrate_item){ .from = page };
        }
    }
    status = migrate_pages(&w->g->vm, items, n, new_target, w, MIGRATE_SYNC, &result);
    assert_int_equal(result.moved + result.gone + result.failed, n);
    assert_int_equal(status == MM_OK, result.failed == 0);
    for (size_t i = 0; i < n; i++) {
        if (items[i].status != MM_OK) {
            page_put(&w->g->f.mm, items[i].from);
        }
    }
    return result.moved;
}

/* ---- what reclaim does to a page, step by step ---- */

static void swap_out(struct world *w, struct page *page)
{
    struct swap *swap = &w->g->swap;
    swp_entry_t slot;

    if (!page_test(page, PG_SWAPCACHE)) {
        if (swap_alloc(swap, &slot) != MM_OK) {
            return;
        }
        if (swapcache_add(swap, page, slot) != MM_OK) {
            swap_free(swap, slot);
            return;
        }
    }
    if (try_to_unmap(&w->g->vm, page, UNMAP_SWAP) == MM_OK && rng_below(&w->r, 4) != 0) {
        assert_int_equal(swapcache_write_page(swap, page), MM_OK);
        if (rng_below(&w->r, 2) == 0 && swapcache_reclaim(swap, page, 1)) {
            w->swapped_out++;                   /* nothing is left of it but the slot */
        }
    }
}

static void drop_file_page(struct world *w, struct page *page)
{
    const struct address_space *as = page_address_space(page);

    if (as == NULL || as->backing == NULL || try_to_unmap(&w->g->vm, page, UNMAP_FILE) != MM_OK) {
        return;
    }
    assert_int_equal(pagecache_write_page(page), MM_OK);
    w->dropped += pagecache_remove(page, 1);
}

static void op_reclaim(struct world *w, struct world_process *p)
{
    struct page *page = follow_page(p->mm, world_va(some_page(w)));
    bool mlocked = false;

    if (page == NULL) {
        return;
    }
    if (page_test(page, PG_HUGE) || rng_below(&w->r, 3) == 0) {     /* the real one */
        page_put(&w->g->f.mm, page);
        w->reclaimed += reclaim_zone(&w->g->vm, &w->g->f.mm.zones[0], 1 + rng_below(&w->r, 40), GFP_KERNEL);
        return;
    }
    page_lock(page);
    (void)page_referenced(&w->g->vm, page, &mlocked);
    if (rng_below(&w->r, 8) == 0) {
        (void)page_mkclean(&w->g->vm, page);
    } else if (page_test(page, PG_ANON)) {
        swap_out(w, page);
    } else {
        drop_file_page(w, page);
    }
    assert_true(!mlocked || page_mapped(page));
    page_unlock(page);
    page_put(&w->g->f.mm, page);
}

/* ---- huge pages ---- */

static void op_madvise(struct world *w, struct world_process *p)
{
    struct range range = some_huge_range(w, 40);
    mm_status_t status = vm_madvise(p->mm, world_va(range.first), range.pages * (uint64_t)FS_PAGE_BYTES,
                                    rng_below(&w->r, 3) == 0 ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);

    if (has_hole(p, range)) {
        assert_int_equal(status, MM_EINVAL);
    } else {
        (void)went(w, status);
    }
}

/* One huge page or two, mapped anew and wanted, and a part of it written, huge or one by one. */
static void op_huge_map(struct world *w, struct world_process *p)
{
    uint32_t units = 1 + (uint32_t)rng_below(&w->r, 2), unit = units == 2 ? 0 : (uint32_t)rng_below(&w->r, 2);
    struct range range = { THP_FIRST + THP_EDGE + unit * HUGE_PAGES, units * HUGE_PAGES };
    uint64_t va = world_va(range.first), bytes = units * HUGE_BYTES;
    bool small = rng_below(&w->r, 3) == 0;

    if (!went(w, vm_mmap(p->mm, &va, bytes, VM_ACCESS, NULL, 0))) {
        return;
    }
    for (uint32_t i = 0; i < range.pages; i++) {
        forget(&p->pages[range.first + i]);
        p->pages[range.first + i] = (struct world_page){ .mapped = true, .access = VM_ACCESS, .file = -1 };
    }
    (void)went(w, vm_madvise(p->mm, va, bytes, small ? MADV_NOHUGEPAGE : MADV_HUGEPAGE));
    for (uint32_t i = 0; i < (small ? 2 * THP_COLLAPSE_PRESENT : 4); i++) {
        uint32_t page = range.first + (uint32_t)rng_below(&w->r, range.pages);
        unsigned char byte = (unsigned char)rng_next(&w->r);

        if (went(w, vm_user_write(p->mm, world_va(page) + i, &byte, 1))) {
            to_write(w, &p->pages[page])[i] = byte;
        }
    }
    if (small) {
        (void)went(w, vm_madvise(p->mm, va, bytes, MADV_HUGEPAGE));
    }
}

static void op_collapse(struct world *w, struct world_process *p)
{
    mm_status_t status = thp_collapse(p->mm, THP_BASE + rng_below(&w->r, 2 * HUGE_BYTES));

    assert_true(status == MM_OK || status == MM_EINVAL || status == MM_EAGAIN || status == MM_ENOMEM);
    w->collapsed += status == MM_OK;
}

/* Map, protect or unmap units of the pool. */
static void op_pool(struct world *w, struct world_process *p)
{
    uint32_t unit = (uint32_t)rng_below(&w->r, POOL_UNITS), units = 1 + (uint32_t)rng_below(&w->r, POOL_UNITS - unit);
    struct range range = { POOL_FIRST + unit * HUGE_PAGES, units * HUGE_PAGES };
    uint64_t va = world_va(range.first), bytes = units * HUGE_BYTES, what = rng_below(&w->r, 8);
    bool shared = rng_below(&w->r, 2) == 0;
    unsigned access = rng_below(&w->r, 2) == 0 ? VM_READ : VM_ACCESS;
    mm_status_t status;

    if (what < 4) {
        uint32_t index = (uint32_t)rng_below(&w->r, POOL_UNITS - units + 1) * HUGE_PAGES;

        if (went(w, vm_mmap(p->mm, &va, bytes, VM_ACCESS | VM_HUGETLB | (shared ? VM_SHARED : 0), shared ? &w->pool_file.as : NULL,
                            shared ? index : 0))) {
            for (uint32_t i = 0; i < range.pages; i++) {
                forget(&p->pages[range.first + i]);
                p->pages[range.first + i] = (struct world_page){ .mapped = true, .access = VM_ACCESS, .file = shared ? POOL_FILE : -1,
                                                                 .index = index + i, .shared = shared };
            }
        }
    } else if (what == 4) {
        if (went(w, vm_munmap(p->mm, va, bytes))) {
            for (uint32_t i = 0; i < range.pages; i++) {
                forget(&p->pages[range.first + i]);
            }
        }
    } else if (what == 5) {                     /* not whole units */
        va += FS_PAGE_BYTES;
        status = vm_munmap(p->mm, va, FS_PAGE_BYTES);
        assert_int_equal(status, p->pages[range.first].mapped ? MM_EINVAL : MM_OK);
        if (p->pages[range.first].mapped) {
            assert_int_equal(vm_mprotect(p->mm, va, FS_PAGE_BYTES, access), MM_EINVAL);
        }
    } else {
        status = vm_mprotect(p->mm, va, bytes, access);
        if (has_hole(p, range)) {
            assert_int_equal(status, MM_EINVAL);
        } else if (went(w, status)) {
            for (uint32_t i = 0; i < range.pages; i++) {
                p->pages[range.first + i].access = access;
            }
        }
    }
}

static void huge_step(struct world *w, struct world_process *p)
{
    uint64_t what = rng_below(&w->r, 12);

    if (what < 2) {
        op_madvise(w, p);
    } else if (what < 5) {
        op_huge_map(w, p);
    } else if (what < 8) {
        op_collapse(w, p);
    } else if (w->pool) {
        op_pool(w, p);
    }
}

void world_step(struct world *w)
{
    struct world_process *p = some_process(w);
    uint64_t what = rng_below(&w->r, 100);

    if (w->cpus > 1) {
        arch_hosted_set_cpu(w->first_cpu + (unsigned)rng_below(&w->r, w->cpus));
    }
    if (w->huge && rng_below(&w->r, 5) == 0) {
        huge_step(w, p);
    }
    if (what < 9) {
        op_mmap(w, p);
    } else if (what < 12) {
        op_munmap(w, p);
    } else if (what < 15) {
        op_mprotect(w, p);
    } else if (what < 20) {
        op_mlock(w, p, rng_below(&w->r, 2) == 0);
    } else if (what < 26) {
        op_reclaim(w, p);
    } else if (what < 60) {
        op_write(w, p);
    } else if (what < 90) {
        check_page(w, p, some_page(w));
    } else if (what < 93) {
        op_fork(w, p);
    } else if (what < 95) {
        if (p != &w->processes[0]) {
            process_end(p);
        }
    } else {
        (void)world_migrate(w);
    }
}

/* ---- beginning, end, checks ---- */

void world_check(struct world *w, struct world_process *p)
{
    for (uint32_t i = 0; i < all_pages(w); i++) {
        check_page(w, p, i);
    }
}

void world_check_all(struct world *w)
{
    for (unsigned i = 0; i < WORLD_PROCESSES; i++) {
        if (w->processes[i].mm != NULL) {
            world_check(w, &w->processes[i]);
        }
    }
    for (unsigned f = 0; f < w->files; f++) {
        for (uint64_t i = 0; i < FILE_PAGES; i++) {
            struct page *page = pagecache_find(&w->as[f], i);

            if (page != NULL) {
                page_lock(page);                /* it may be on its way */
                if (page_test(page, PG_UPTODATE) && page->mapping == &w->as[f]) {
                    assert_memory_equal(arch_page_address(page_pfn(page)), w->file_bytes[f] + i * FS_PAGE_BYTES, FS_PAGE_BYTES);
                }
                page_unlock(page);
                page_put(&w->g->f.mm, page);
            }
        }
    }
}

static void file_init(struct world *w, unsigned f)
{
    size_t bytes = FILE_PAGES * (size_t)FS_PAGE_BYTES;
    bool backed = f + 1 < WORLD_FILES;

    w->file_bytes[f] = calloc(1, bytes);
    w->stores[f] = (struct store){ .bytes = calloc(1, bytes), .pages = FILE_PAGES };
    assert_true(w->file_bytes[f] != NULL && w->stores[f].bytes != NULL);
    for (size_t i = 0; backed && i < bytes; i++) {
        w->stores[f].bytes[i] = w->file_bytes[f][i] = (unsigned char)(rng_next(&w->r) >> 40);
    }
    assert_int_equal(address_space_init(&w->g->vm, &w->as[f], GFP_HIGH_MOVABLE, backed ? &store_ops : NULL, &w->stores[f]), MM_OK);
}

void world_init(struct world *w, struct guest *g, uint64_t seed, unsigned first_cpu, unsigned cpus, unsigned files)
{
    *w = (struct world){ .g = g, .r = { seed }, .seed = seed, .first_cpu = first_cpu, .cpus = cpus, .files = files };
    for (unsigned f = 0; f < files; f++) {
        file_init(w, f);
    }
    for (unsigned i = 0; i < WORLD_PROCESSES; i++) {
        for (uint32_t k = 0; k < ALL_PAGES; k++) {
            w->processes[i].pages[k].file = -1;
        }
    }
    assert_int_equal(mm_create(&g->vm, &w->processes[0].mm), MM_OK);
}

void world_end(struct world *w, unsigned process)
{
    if (w->processes[process].mm != NULL) {
        process_end(&w->processes[process]);
    }
}

void world_huge(struct world *w, bool pool)
{
    w->huge = true;
    w->pool = pool;
    if (pool) {
        w->file_bytes[POOL_FILE] = calloc(POOL_PAGES, FS_PAGE_BYTES);
        assert_non_null(w->file_bytes[POOL_FILE]);
        assert_int_equal(hugetlb_file_create(&w->g->vm, &w->pool_file, POOL_UNITS), MM_OK);
    }
}

void world_free(struct world *w)
{
    for (unsigned i = 0; i < WORLD_PROCESSES; i++) {
        world_end(w, i);
    }
    if (w->pool) {
        hugetlb_file_destroy(&w->pool_file);
        free(w->file_bytes[POOL_FILE]);
    }
    for (unsigned f = 0; f < w->files; f++) {
        if (w->as[f].backing != NULL) {         /* every write has reached the store */
            assert_int_equal(pagecache_sync(&w->as[f]), MM_OK);
            assert_memory_equal(w->stores[f].bytes, w->file_bytes[f], FILE_PAGES * (size_t)FS_PAGE_BYTES);
        }
        address_space_destroy(&w->as[f]);
        free(w->file_bytes[f]);
        free(w->stores[f].bytes);
    }
}
