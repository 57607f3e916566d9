/*
 * check_space.c - processes: demand faults, fork and copy-on-write, files, rights, migration, swap.
 *
 * Owns: two processes and what becomes of them, a file of FILE_PAGES, a swap area of SWAP_SLOTS, all in pages of its own.
 * Invariants:
 *   I1  what a process reads from a page is what it, or its parent before the fork, wrote there last: model[] has the stamp of each
 *       page of each process, 0 where nobody has written.
 *   I2  between two steps mm_fsck(), slab_fsck() and vm_fsck() find nothing.
 * Lock order: none (one vCPU).
 * Why: the same core runs on a hosted machine whose page tables allow what they are told; here Xen refuses a page table that is
 *   mapped writable, an entry that names a frame of another type, or a table that is freed while it is in use.
 * Cost: a few thousand page accesses, each a whole page.
 */
#include "check.h"
#include "../../mm/compaction.h"
#include "../../mm/fault.h"
#include "../../mm/isolation.h"
#include "../../mm/lru.h"
#include "../../mm/migrate.h"
#include "../../mm/pagecache.h"
#include "../../mm/reclaim.h"
#include "../../mm/slab_fsck.h"
#include "../../mm/swap.h"
#include "../../mm/vm_fsck.h"
#include "../../mm/vma.h"

#define PROCESSES  3u
#define SPACE_PAGES 600u                /* at most: more than one table of the last level */
#define SPACE_MIN   260u
#define SHARE       12u                 /* ... of free memory, where that is less */
#define FILE_PAGES 32u
#define SWAP_SLOTS 512u                 /* the same */
#define WORDS      (FS_PAGE_BYTES / 8)

static struct vm vm;
static struct lru lru;
static struct pagecache pagecache;
static struct swap swap;
static struct address_space file;
static struct page *file_store[FILE_PAGES], *swap_store[SWAP_SLOTS];
static struct mm_struct *process[PROCESSES];
static uint32_t model[PROCESSES][SPACE_PAGES];
static uint64_t base, shared_base[PROCESSES], stamps, page_buffer[WORDS];
static uint32_t space_pages, swap_slots;

/* ---- backing stores: pages of the kernel's own ---- */

static mm_status_t store_read(struct page *p, void *bytes)
{
    __builtin_memcpy(bytes, arch_page_address(page_pfn(p)), FS_PAGE_BYTES);
    return MM_OK;
}

static mm_status_t store_write(struct page *p, const void *bytes)
{
    __builtin_memcpy(arch_page_address(page_pfn(p)), bytes, FS_PAGE_BYTES);
    return MM_OK;
}

static mm_status_t file_read(void *ctx, uint64_t index, void *bytes)
{
    (void)ctx;
    return index < FILE_PAGES ? store_read(file_store[index], bytes) : MM_EIO;
}

static mm_status_t file_write(void *ctx, uint64_t index, const void *bytes)
{
    (void)ctx;
    return index < FILE_PAGES ? store_write(file_store[index], bytes) : MM_EIO;
}

static mm_status_t swap_read(void *ctx, uint32_t slot, void *bytes)
{
    (void)ctx;
    return slot < swap_slots ? store_read(swap_store[slot], bytes) : MM_EIO;
}

static mm_status_t swap_write(void *ctx, uint32_t slot, const void *bytes)
{
    (void)ctx;
    return slot < swap_slots ? store_write(swap_store[slot], bytes) : MM_EIO;
}

static const struct backing_ops file_ops = { file_read, file_write };
static const struct swap_backing swap_ops = { swap_read, swap_write };

static void store_make(struct check *c, struct page **pages, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        pages[i] = alloc_zeroed_page(&c->mm, GFP_KERNEL);
        CHECK(pages[i] != NULL, "no page for a backing store", i);
    }
}

static void store_free(struct check *c, struct page **pages, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        page_put(&c->mm, pages[i]);
    }
}

/* ---- the model (I1) ---- */

static uint64_t word_of(uint32_t stamp, uint32_t word)
{
    return stamp == 0 ? 0 : stamp * 0x9e3779b97f4a7c15ull + word;
}

static void page_write(unsigned p, uint32_t page)
{
    uint32_t stamp = (uint32_t)++stamps;
    mm_status_t status;

    for (uint32_t w = 0; w < WORDS; w++) {
        page_buffer[w] = word_of(stamp, w);
    }
    status = vm_user_write(process[p], base + page * (uint64_t)FS_PAGE_BYTES, page_buffer, FS_PAGE_BYTES);
    CHECK(status == MM_OK, "a process cannot write its page", status);
    model[p][page] = stamp;
}

static void page_verify(struct check *c, unsigned p, uint32_t page)
{
    mm_status_t status = vm_user_read(process[p], base + page * (uint64_t)FS_PAGE_BYTES, page_buffer, FS_PAGE_BYTES);

    CHECK(status == MM_OK, "a process cannot read its page", status);
    for (uint32_t w = 0; w < WORDS; w++) {
        CHECK(page_buffer[w] == word_of(model[p][page], w), "a process reads wrong bytes in its page", page);
    }
    c->checked_pages++;
}

static void verify_all(struct check *c)
{
    for (unsigned p = 0; p < PROCESSES; p++) {
        for (uint32_t page = 0; process[p] != NULL && page < space_pages; page++) {
            page_verify(c, p, page);
        }
    }
}

static void print_slab_fault(void *ctx, enum slab_fault fault, const struct kmem_cache *cache, pfn_t pfn, uint64_t is, uint64_t should_be)
{
    (void)ctx;
    (void)cache;
    print("  slab fsck: ");
    print(slab_fault_name(fault));
    print_number(" pfn", pfn.n);
    print_number(" is", is);
    print_number(" should be", should_be);
    print_line("");
}

static void print_vm_fault(void *ctx, enum vm_fsck_fault fault, const struct vm_fsck_place *place, uint64_t is, uint64_t should_be)
{
    (void)ctx;
    print("  vm fsck: ");
    print(vm_fsck_name(fault));
    print_number(" va", place->va);
    print_number(" pfn", place->pfn.n);
    print_number(" is", is);
    print_number(" should be", should_be);
    print_line("");
}

static void fsck_all(struct check *c, const char *after)        /* I2 */
{
    uint64_t faults;

    check_fsck(c, after);
    faults = slab_fsck(&c->mm, print_slab_fault, NULL) + vm_fsck(&vm, print_vm_fault, NULL);
    CHECK(faults == 0, after, faults);
}

static void counted(enum vm_counter n, const char *what)
{
    CHECK(vm_counter(&vm, n) > 0, what, n);
}

/* ---- steps ---- */

static void space_start(struct check *c)
{
    uint64_t share = c->start_free / SHARE;
    mm_status_t status = vm_init(&vm, &c->mm);

    space_pages = share < SPACE_PAGES ? (uint32_t)share : SPACE_PAGES;
    swap_slots = share < SWAP_SLOTS ? (uint32_t)share : SWAP_SLOTS;
    CHECK(space_pages >= SPACE_MIN, "memory is too small for processes; free pages", c->start_free);
    CHECK(status == MM_OK, "vm_init", status);
    lru_init(&lru, &c->mm);
    vm.lru = &lru;
    status = pagecache_init(&pagecache, &vm);
    CHECK(status == MM_OK, "pagecache_init", status);
    swap_init(&swap, &vm);
    store_make(c, file_store, FILE_PAGES);
    store_make(c, swap_store, swap_slots);
    status = swap_add_area(&swap, swap_slots, &swap_ops, NULL);
    CHECK(status == MM_OK, "swap_add_area", status);
    status = address_space_init(&vm, &file, GFP_HIGH_MOVABLE, &file_ops, NULL);
    CHECK(status == MM_OK, "address_space_init", status);
    vm_install_migrate(&vm);
    reclaim_init(&vm);
}

static void space_end(struct check *c)
{
    for (unsigned p = 0; p < PROCESSES; p++) {
        if (process[p] != NULL) {
            mm_put(process[p]);
        }
    }
    CHECK(arch_space_enter(PFN_NONE) == 0, "Xen does not leave a space", 0);
    address_space_destroy(&file);
    fsck_all(c, "faults after the last process");
    swap_destroy(&swap);
    pagecache_destroy(&pagecache);
    vm_destroy(&vm);
    c->mm.hooks.reclaim = NULL;
    c->mm.migrate = (struct migrate_ops){ .move = NULL };
    store_free(c, file_store, FILE_PAGES);
    store_free(c, swap_store, swap_slots);
}

static void anonymous(struct check *c)
{
    mm_status_t status = mm_create(&vm, &process[0]);

    CHECK(status == MM_OK, "no process", status);
    base = 0;
    status = vm_mmap(process[0], &base, space_pages * FS_PAGE_BYTES, VM_READ | VM_WRITE, NULL, 0);
    CHECK(status == MM_OK, "mmap", status);
    for (uint32_t i = 0; i < space_pages * 2 / 3; i++) {
        page_write(0, (uint32_t)check_random(c, space_pages));
    }
    verify_all(c);
    counted(VMC_fault_zero, "no demand fault");
    fsck_all(c, "faults after demand paging");
}

/* A child, and a child of it; each writes to what it shares with the others; then the one between them goes. */
static void forks(struct check *c)
{
    for (unsigned p = 1; p < PROCESSES; p++) {
        mm_status_t status = mm_fork(process[p - 1], &process[p]);

        CHECK(status == MM_OK, "fork", status);
        for (uint32_t i = 0; i < space_pages; i++) {
            model[p][i] = model[p - 1][i];
        }
        for (uint32_t i = 0; i < space_pages / 3; i++) {
            page_write((unsigned)check_random(c, p + 1), (uint32_t)check_random(c, space_pages));
        }
    }
    verify_all(c);
    counted(VMC_fault_cow, "nobody copied on write");
    fsck_all(c, "faults after fork");
    mm_put(process[1]);
    process[1] = NULL;
    for (uint32_t i = 0; i < space_pages / 3; i++) {
        page_write(i % 2 == 0 ? 0 : 2, (uint32_t)check_random(c, space_pages));
    }
    verify_all(c);
    fsck_all(c, "faults after a process ended");
}

/* One writes to a shared file, the other reads it, the backing store gets it; a private mapping keeps its own copy. */
static void files(struct check *c)
{
    uint64_t word = 0, private_va = 0, mine = 77;
    mm_status_t status;

    for (unsigned p = 0; p < PROCESSES; p += 2) {
        shared_base[p] = 0;
        status = vm_mmap(process[p], &shared_base[p], FILE_PAGES * FS_PAGE_BYTES, VM_READ | VM_WRITE | VM_SHARED, &file, 0);
        CHECK(status == MM_OK, "mmap of a file", status);
    }
    status = vm_mmap(process[2], &private_va, FILE_PAGES * FS_PAGE_BYTES, VM_READ | VM_WRITE, &file, 0);
    CHECK(status == MM_OK && vm_user_write(process[2], private_va + 8, &mine, 8) == MM_OK, "a private mapping of a file", status);
    for (uint64_t i = 0; i < FILE_PAGES; i++) {
        word = 1000 + i;
        status = vm_user_write(process[0], shared_base[0] + i * FS_PAGE_BYTES + 8, &word, 8);
        CHECK(status == MM_OK, "a shared file page cannot be written", i);
        status = vm_user_read(process[2], shared_base[2] + i * FS_PAGE_BYTES + 8, &word, 8);
        CHECK(status == MM_OK && word == 1000 + i, "the other process reads something else from a shared file", word);
    }
    status = vm_user_read(process[2], private_va + 8, &word, 8);
    CHECK(status == MM_OK && word == mine, "a private copy changed with the file", word);
    status = pagecache_sync(&file);
    CHECK(status == MM_OK, "sync", status);
    for (uint64_t i = 0; i < FILE_PAGES; i++) {
        word = ((const uint64_t *)arch_page_address(page_pfn(file_store[i])))[1];
        CHECK(word == 1000 + i, "sync did not write a page", i);
    }
    fsck_all(c, "faults with a file mapped");
    status = vm_munmap(process[2], private_va, FILE_PAGES * FS_PAGE_BYTES);
    CHECK(status == MM_OK && vm_user_read(process[2], private_va, &word, 8) == MM_EINVAL, "memory that was unmapped can be read", status);
}

static void rights(struct check *c)
{
    uint64_t word = 0;
    mm_status_t status = vm_mprotect(process[0], base, 100 * FS_PAGE_BYTES, VM_READ);

    CHECK(status == MM_OK, "mprotect", status);
    status = vm_user_write(process[0], base + 99 * FS_PAGE_BYTES, &word, 8);
    CHECK(status == MM_EINVAL, "a read-only page was written", status);
    page_verify(c, 0, 99);
    status = vm_mprotect(process[0], base, 100 * FS_PAGE_BYTES, VM_READ | VM_WRITE);
    CHECK(status == MM_OK, "mprotect back", status);
    page_write(0, 99);
    status = vm_mlock(process[2], base + 200 * FS_PAGE_BYTES, 50 * FS_PAGE_BYTES);
    CHECK(status == MM_OK, "mlock", status);
    fsck_all(c, "faults after rights changed");
}

/* Every user page out of the block of a locked one: other locked ones, shared ones, file pages. */
static void migration(struct check *c)
{
    struct page *locked = follow_page(process[2], base + 210 * FS_PAGE_BYTES);
    uint64_t moved = vm_counter(&vm, VMC_migrate_success);
    struct compact_result r;
    mm_status_t status;
    uint32_t block;

    CHECK(locked != NULL, "a locked page is not there", 0);
    block = page_block(locked);
    page_put(&c->mm, locked);
    status = isolate_range(&c->mm, block_pfn(block), block_pfn(block + 1), ISOLATE_RESIDUAL, NULL);
    CHECK(status == MM_OK, "a block of user pages was not isolated", status);
    status = evacuate_range(&c->mm, block_pfn(block), block_pfn(block + 1), &r);
    CHECK(status == MM_OK, "a block of user pages was not emptied", status);
    CHECK(r.migrated_pages > 0, "a block of user pages was empty before", block);
    CHECK(vm_counter(&vm, VMC_migrate_success) - moved >= r.migrated_pages, "migration counts other pages", r.migrated_pages);
    c->moved_pages += r.migrated_pages;
    status = isolate_undo(&c->mm, block_pfn(block), block_pfn(block + 1));
    CHECK(status == MM_OK, "isolation was not undone", status);
    verify_all(c);
    fsck_all(c, "faults after user pages were migrated");
}

static void swapping(struct check *c)
{
    uint64_t got = reclaim_range(&vm, pfn_make(0), pfn_make(boot_memory.pages), 0);

    CHECK(got > 0 && lru_counter(&lru, LC_pswpout) > 0, "nothing was swapped out", got);
    fsck_all(c, "faults with pages in swap");
    verify_all(c);
    CHECK(lru_counter(&lru, LC_pswpin) > 0, "nothing was swapped in", got);
    for (uint32_t i = 0; i < space_pages / 3; i++) {
        page_write(i % 2 == 0 ? 0 : 2, (uint32_t)check_random(c, space_pages));
    }
    verify_all(c);
    fsck_all(c, "faults after pages came back from swap");
    c->swapped_pages = lru_counter(&lru, LC_pswpin);
}

void check_space(struct check *c)
{
    space_start(c);
    anonymous(c);
    forks(c);
    files(c);
    rights(c);
    migration(c);
    swapping(c);
    c->faults = vm_counter(&vm, VMC_fault_zero) + vm_counter(&vm, VMC_fault_cow) + vm_counter(&vm, VMC_fault_file) + vm_counter(&vm, VMC_fault_swapin);
    space_end(c);
}
