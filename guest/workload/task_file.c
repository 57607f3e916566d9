/*
 * task_file.c - a file: read and written through the page cache, and through a shared mapping.
 *
 * Owns: struct file_task, and the store behind the file, which keeps versions instead of bytes.
 * Invariants:
 *   I1  what the page cache writes back is, line by line, what the task has written last, or (of the line that is being written at this
 *       moment) any mixture; the store checks that.
 *   I2  what the store gives back is the version that was written to it last, and the task checks that it is the newest: nothing that was
 *       written is lost by reclaim, migration or sync.
 *   I3  a line that was written through the mapping is in the page before the task notes its version, and nothing makes the page dirty after
 *       that: so the store is told beforehand which version comes (next), or it would keep the one before for good.
 * Lock order: the store runs under the page lock, on any CPU that reclaims; it writes its versions and two counters only.
 * Why: the store needs no memory to speak of, so that a file may be larger than what the machine has.
 * Cost: a page that is read or written back costs the generation of its 4096 bytes.
 */
#include "workload_priv.h"
#include "../mm/page_alloc.h"

#define CHECK_PAGES 2u
#define LOOKS       2u

static uint16_t version_load(const uint16_t *v) { return __atomic_load_n(v, __ATOMIC_RELAXED); }
static void version_store(uint16_t *v, uint16_t to) { __atomic_store_n(v, to, __ATOMIC_RELAXED); }

static mm_status_t store_read(void *ctx, uint64_t index, void *bytes)
{
    struct workload_task *t = ctx;

    if (index >= t->pages) {
        return MM_EIO;
    }
    for (uint32_t line = 0; line < LINES; line++) {
        pattern_fill(t->key, index, line, version_load(&t->u.file.stored.at[index * LINES + line]), false,
                     (unsigned char *)bytes + line * LINE_BYTES);
    }
    return MM_OK;
}

/* Compared word by word with what the line should be: there is little stack, and the bytes may be changed meanwhile. */
static bool line_is(uint64_t key, uint64_t page, uint32_t line, uint16_t version, const unsigned char *bytes)
{
    unsigned char should[LINE_BYTES];

    pattern_fill(key, page, line, version, false, should);
    return memcmp(bytes, should, LINE_BYTES) == 0;
}

/* Which version of the line do these bytes hold? The task goes on meanwhile: where it has, they are looked at again. */
static uint16_t line_version(struct workload_task *t, uint64_t index, uint32_t line, const unsigned char *bytes)
{
    struct file_task *f = &t->u.file;
    uint64_t at = index * LINES + line;

    for (unsigned i = 0;; i++) {
        uint16_t version = version_load(&f->expected.at[at]);
        bool writing = atomic_load(&f->writing) == at + 1;
        uint16_t next = version_load(&f->next);

        if (line_is(t->key, index, line, version, bytes)) {
            return version;
        }
        if (writing && line_is(t->key, index, line, next, bytes)) {
            return next;                            /* I3 */
        }
        if (!writing && atomic_load(&f->writing) != at + 1 && version_load(&f->expected.at[at]) == version) {
            atomic_fetch_add(&f->store_wrong, 1);   /* I1 */
            atomic_store(&f->store_page, index);
            return version;
        }
        if (i == LOOKS) {
            return version;                         /* in the middle of a line: the page is dirty again after it */
        }
    }
}

static mm_status_t store_write(void *ctx, uint64_t index, const void *bytes)
{
    struct workload_task *t = ctx;
    struct file_task *f = &t->u.file;

    if (index >= t->pages) {
        return MM_EIO;
    }
    for (uint32_t line = 0; line < LINES; line++) {
        version_store(&f->stored.at[index * LINES + line], line_version(t, index, line, (const unsigned char *)bytes + line * LINE_BYTES));
    }
    return MM_OK;
}

static const struct backing_ops store_ops = { store_read, store_write };

static mm_status_t file_start(struct workload_task *t)
{
    struct file_task *f = &t->u.file;
    mm_status_t status = versions_init(&f->expected, task_mm(t), t->pages);

    if (status == MM_OK) {
        status = versions_init(&f->stored, task_mm(t), t->pages);
    }
    if (status == MM_OK) {
        status = address_space_init(task_vm(t), &f->as, GFP_HIGH_MOVABLE, &store_ops, t);
        f->made = status == MM_OK;
    }
    if (status == MM_OK) {
        status = mm_create(task_vm(t), &f->mm);
        f->mm = status == MM_OK ? f->mm : NULL;
    }
    if (status == MM_OK) {
        status = vm_mmap(f->mm, &f->va, (uint64_t)t->pages * FS_PAGE_BYTES, VM_ACCESS | VM_SHARED, &f->as, 0);
    }
    return status;
}

static void file_stop(struct workload_task *t)
{
    struct file_task *f = &t->u.file;

    if (f->mm != NULL) {
        mm_put(f->mm);
    }
    if (f->made) {
        address_space_destroy(&f->as);
    }
    versions_free(&f->expected);
    versions_free(&f->stored);
}

/* ---- what a step does ---- */

static void check_page(struct workload_task *t, uint32_t page, bool mapped)
{
    struct file_task *f = &t->u.file;
    struct page *p = NULL;

    if (mapped) {
        task_user_check(t, f->mm, f->va, t->key, &f->expected, page, false);
    } else if (task_went(t, pagecache_get(&f->as, page, &p), page)) {
        for (uint32_t line = 0; line < LINES; line++) {
            task_check_line(t, p->pfn, t->key, page, line, f->expected.at[page * LINES + line], false,
                            (unsigned char *)arch_page_address(page_pfn(p)) + line * LINE_BYTES);
        }
        page_put(task_mm(t), p);
    }
}

/* Write a line. The store must not take the old version for lost while this goes on: writing says so. */
static void write_line(struct workload_task *t, uint32_t page, uint32_t line, bool mapped)
{
    struct file_task *f = &t->u.file;
    uint64_t at = (uint64_t)page * LINES + line;
    uint16_t version = task_next_version(t);
    struct page *p = NULL;
    mm_status_t status;

    pattern_fill(t->key, page, line, version, false, t->line);
    if (!mapped) {
        status = pagecache_get(&f->as, page, &p);
    } else {
        status = MM_OK;
    }
    if (!task_went(t, status, page)) {
        return;
    }
    version_store(&f->next, version);
    atomic_store(&f->writing, at + 1);
    if (mapped) {
        status = vm_user_write(f->mm, f->va + at * LINE_BYTES, t->line, LINE_BYTES);
    } else {
        memcpy((unsigned char *)arch_page_address(page_pfn(p)) + line * LINE_BYTES, t->line, LINE_BYTES);
    }
    if (task_went(t, status, page)) {
        version_store(&f->expected.at[at], version);
        t->stats.bytes_written += LINE_BYTES;
    }
    if (!mapped) {
        pagecache_dirty(p);
        page_put(task_mm(t), p);
    }
    atomic_store(&f->writing, 0);
}

/* Everything is in the store afterwards. */
static void sync_file(struct workload_task *t)
{
    struct file_task *f = &t->u.file;

    if (!task_went(t, pagecache_sync(&f->as), 0)) {
        return;
    }
    for (uint32_t i = 0; i < t->pages * LINES; i++) {
        if (version_load(&f->stored.at[i]) != f->expected.at[i]) {
            task_wrong(t, WORKLOAD_STORE, i / LINES, i % LINES * LINE_BYTES, version_load(&f->stored.at[i]), f->expected.at[i]);
        }
    }
}

static void check_store(struct workload_task *t)
{
    uint64_t wrong = atomic_exchange(&t->u.file.store_wrong, 0);

    if (wrong != 0) {
        task_wrong(t, WORKLOAD_STORE, atomic_load(&t->u.file.store_page), 0, wrong, 0);
    }
}

static void file_step(struct workload_task *t)
{
    uint32_t what = (uint32_t)task_random(t, 100), page = (uint32_t)task_random(t, t->pages);

    if (what < 1) {
        sync_file(t);
    } else if (what < 5) {
        (void)pagecache_drop(&t->u.file.as, page);      /* MM_EBUSY is an answer */
    } else if (what < 50) {
        write_line(t, page, (uint32_t)task_random(t, LINES), what % 2 == 0);
    }
    for (uint32_t i = 0; i < CHECK_PAGES; i++) {
        t->cursor = (t->cursor + 1) % t->pages;
        check_page(t, t->cursor, what % 2 == 0);
    }
    check_store(t);
}

static void file_verify(struct workload_task *t)
{
    for (uint32_t page = 0; page < t->pages; page++) {
        check_page(t, page, page % 2 == 0);
    }
    sync_file(t);
    check_store(t);
}

const struct workload_ops workload_file_ops = { file_start, file_stop, file_step, file_verify };
