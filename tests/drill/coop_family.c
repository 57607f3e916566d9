/*
 * coop_family.c - processes that verify every byte that they own.
 *
 * Owns: struct family: up to four processes that fork from each other, each with anonymous pages of its own contents, and a
 * file and shared memory that all of them map.
 * Why seeds: a page's bytes follow from one number, so a fork copies numbers and a check needs no copy of the bytes.
 */
#include "coop_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../guest/mm/fault.h"
#include "../../guest/mm/vma.h"

static const uint64_t anon_base = 0x40000000ull - 20 * 4096ull, file_base[2] = { 0x7f0000000000ull, 0x50000000ull };

static void page_bytes(uint64_t seed, uint64_t *out)
{
    for (unsigned i = 0; i < 512; i++) {
        out[i] = seed == 0 ? 0 : (seed + i) * 0x9e3779b97f4a7c15ull;
    }
}

static mm_status_t store_read(void *ctx, uint64_t index, void *bytes)
{
    memcpy(bytes, (unsigned char *)ctx + index * FS_PAGE_BYTES, FS_PAGE_BYTES);
    return MM_OK;
}

static mm_status_t store_write(void *ctx, uint64_t index, const void *bytes)
{
    memcpy((unsigned char *)ctx + index * FS_PAGE_BYTES, bytes, FS_PAGE_BYTES);
    return MM_OK;
}

static const struct backing_ops store_ops = { store_read, store_write };

static void map_all(struct family *f, struct member *m)
{
    uint64_t va = anon_base;

    assert_int_equal(vm_mmap(m->mm, &va, FAMILY_PAGES * (uint64_t)FS_PAGE_BYTES, VM_ACCESS, NULL, 0), MM_OK);
    for (unsigned i = 0; i < 2; i++) {
        va = file_base[i];
        assert_int_equal(vm_mmap(m->mm, &va, FAMILY_FILE_PAGES * (uint64_t)FS_PAGE_BYTES, VM_ACCESS | VM_SHARED, f->file[i], 0), MM_OK);
    }
}

void family_init(struct family *f, struct guest *g)
{
    /* The address spaces are the kernel's: they lie in its memory. */
    struct page *home = alloc_pages(g->mm, GFP_KERNEL | __GFP_ZERO, 0);

    assert_non_null(home);
    *f = (struct family){ .store = calloc(FAMILY_FILE_PAGES, FS_PAGE_BYTES) };
    assert_non_null(f->store);
    for (unsigned i = 0; i < 2; i++) {
        f->file[i] = (struct address_space *)arch_page_address(page_pfn(home)) + i;
        assert_int_equal(address_space_init(g->vm, f->file[i], GFP_HIGH_MOVABLE, i == 0 ? &store_ops : NULL, f->store), MM_OK);
    }
    assert_int_equal(mm_create(g->vm, &f->members[0].mm), MM_OK);
    map_all(f, &f->members[0]);
}

/* MM_ENOMEM is an answer where calls fail on purpose. */
static bool went(struct family *f, mm_status_t s)
{
    f->refused += s == MM_ENOMEM;
    f->wrong += s != MM_OK && s != MM_ENOMEM;
    return s == MM_OK;
}

static void check_page(struct family *f, struct mm_struct *mm, uint64_t va, uint64_t seed)
{
    uint64_t is[512], should_be[512];

    if (went(f, vm_user_read(mm, va, is, sizeof(is)))) {
        page_bytes(seed, should_be);
        if (memcmp(is, should_be, sizeof(is)) != 0) {
            if (f->wrong == 0) {
                print_error("wrong bytes at va %#llx: word 0 is %#llx, should be %#llx\n", (unsigned long long)va, (unsigned long long)is[0],
                            (unsigned long long)should_be[0]);
            }
            f->wrong++;
        }
        f->checks++;
    }
}

static void write_anon(struct family *f, struct member *m, unsigned page, uint64_t seed)
{
    uint64_t bytes[512];

    page_bytes(seed, bytes);
    if (went(f, vm_user_write(m->mm, anon_base + page * (uint64_t)FS_PAGE_BYTES, bytes, sizeof(bytes)))) {
        m->seed[page] = seed;
    }
}

static void write_file(struct family *f, struct member *m, unsigned which, unsigned page, uint64_t seed)
{
    uint64_t bytes[512];

    page_bytes(seed, bytes);
    if (went(f, vm_user_write(m->mm, file_base[which] + page * (uint64_t)FS_PAGE_BYTES, bytes, sizeof(bytes)))) {
        f->file_seed[which][page] = seed;
    }
}

static void fork_one(struct family *f, struct member *m, struct member *child)
{
    struct mm_struct *mm;

    if (child->mm == NULL && went(f, mm_fork(m->mm, &mm))) {
        *child = *m;
        child->mm = mm;
        memset(child->locked, 0, sizeof(child->locked));
        f->forks++;
    }
}

static void lock_some(struct family *f, struct member *m, unsigned page)
{
    uint64_t va = anon_base + page * (uint64_t)FS_PAGE_BYTES;
    bool lock = !m->locked[page];

    if (went(f, lock ? vm_mlock(m->mm, va, FS_PAGE_BYTES) : vm_munlock(m->mm, va, FS_PAGE_BYTES))) {
        m->locked[page] = lock;
    }
}

/* Other addresses: the pages there are forgotten, and tables come and go. */
static void remap_some(struct family *f, struct member *m, unsigned page)
{
    unsigned n = FAMILY_PAGES - page < 12 ? FAMILY_PAGES - page : 12;
    uint64_t va = anon_base + page * (uint64_t)FS_PAGE_BYTES;

    if (went(f, vm_mmap(m->mm, &va, n * (uint64_t)FS_PAGE_BYTES, VM_ACCESS, NULL, 0))) {
        for (unsigned i = page; i < page + n; i++) {
            m->seed[i] = 0;
            m->locked[i] = false;
        }
    }
}

void family_step(void *arg, struct guest *g, uint64_t random)
{
    struct family *f = arg;
    struct member *m = &f->members[random % FAMILY_MEMBERS];
    unsigned page = (unsigned)(random >> 8) % FAMILY_PAGES, in_file = (unsigned)(random >> 16) % FAMILY_FILE_PAGES, which = random >> 24 & 1;
    unsigned what = (unsigned)(random >> 32) % 100;

    (void)g;
    m = m->mm != NULL ? m : &f->members[0];
    if (what < 35) {
        write_anon(f, m, page, random);
    } else if (what < 65) {
        check_page(f, m->mm, anon_base + page * (uint64_t)FS_PAGE_BYTES, m->seed[page]);
    } else if (what < 75) {
        write_file(f, m, which, in_file, random);
    } else if (what < 86) {
        check_page(f, m->mm, file_base[which] + in_file * (uint64_t)FS_PAGE_BYTES, f->file_seed[which][in_file]);
    } else if (what < 90) {
        lock_some(f, m, page);
    } else if (what < 93) {
        remap_some(f, m, page);
    } else if (what < 96) {
        fork_one(f, m, &f->members[1 + (random >> 40) % (FAMILY_MEMBERS - 1)]);
    } else if (what < 98 && m != &f->members[0]) {
        mm_put(m->mm);
        m->mm = NULL;
    } else if (what == 99) {
        f->wrong += pagecache_sync(f->file[0]) != MM_OK;
    }
}

void family_verify(struct family *f)
{
    for (unsigned i = 0; i < FAMILY_MEMBERS; i++) {
        for (unsigned p = 0; p < FAMILY_PAGES && f->members[i].mm != NULL; p++) {
            check_page(f, f->members[i].mm, anon_base + p * (uint64_t)FS_PAGE_BYTES, f->members[i].seed[p]);
        }
        for (unsigned p = 0; p < FAMILY_FILE_PAGES && f->members[i].mm != NULL; p++) {
            check_page(f, f->members[i].mm, file_base[0] + p * (uint64_t)FS_PAGE_BYTES, f->file_seed[0][p]);
            check_page(f, f->members[i].mm, file_base[1] + p * (uint64_t)FS_PAGE_BYTES, f->file_seed[1][p]);
        }
    }
}

void family_end(struct family *f)
{
    for (unsigned i = 0; i < FAMILY_MEMBERS; i++) {
        if (f->members[i].mm != NULL) {
            mm_put(f->members[i].mm);
            f->members[i].mm = NULL;
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        address_space_destroy(f->file[i]);
    }
    free(f->store);
}
