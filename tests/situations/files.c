/*
 * files.c - files as a kernel has them: inodes and dentries in slabs, pages in the page cache, a disk behind them.
 *
 * Owns: struct files.
 * Invariants:
 *   I1  an inode or dentry in use says its slot; a free one says NONE, as it was constructed.
 *   I2  a file that is being worked on is busy, so reclaim on its behalf leaves its inode alone.
 *   I3  what is written back is what the file should be, and what is read is what was written last: compared page by page.
 * Lock order: none of its own; one thread.  Reclaim calls scan and evict from any allocation.
 * Why: metadata that comes between the pages of the cache is what thread 002's first test is about, and what thread 004 says a movable
 *   zone cannot hold.
 * Cost: each page written, read or verified is 4096 bytes of pattern.
 */
#include "files.h"
#include <stdlib.h>
#include <string.h>

#define NONE UINT32_MAX
#define PAGE_WORDS (FS_PAGE_BYTES / sizeof(uint64_t))

struct inode {
    uint32_t slot;                  /* I1 */
    struct address_space as;
    uint64_t words[32];
};

struct dentry {
    uint32_t slot;
    uint64_t words[20];
};

static void construct_inode(void *object) { ((struct inode *)object)->slot = NONE; }
static void construct_dentry(void *object) { ((struct dentry *)object)->slot = NONE; }

/* ---- patterns ---- */

static void fill_words(uint64_t *words, size_t n, uint64_t seed)
{
    uint64_t x = site_mix(seed);

    for (size_t i = 0; i < n; i++) {
        words[i] = x * (2 * i + 1);
    }
}

static bool words_are(const uint64_t *words, size_t n, uint64_t seed)
{
    uint64_t x = site_mix(seed), wrong = 0;

    for (size_t i = 0; i < n; i++) {
        wrong |= words[i] ^ x * (2 * i + 1);
    }
    return wrong == 0;
}

static uint64_t page_seed(const struct file *file, uint64_t index, uint8_t version) { return file->key ^ index << 16 ^ version; }

/* ---- the disk ---- */

static mm_status_t disk_read(void *ctx, uint64_t index, void *bytes)
{
    const struct file *file = ctx;

    if (index >= file->pages) {
        return MM_EIO;
    }
    fill_words(bytes, PAGE_WORDS, page_seed(file, index, file->stored[index]));
    return MM_OK;
}

/* What comes must be what the file should be: anything else reads back as another version, and is found. */
static mm_status_t disk_write(void *ctx, uint64_t index, const void *bytes)
{
    struct file *file = ctx;

    if (index >= file->pages) {
        return MM_EIO;
    }
    if (words_are(bytes, PAGE_WORDS, page_seed(file, index, file->version[index]))) {
        file->stored[index] = file->version[index];                                         /* I3 */
    } else {
        file->stored[index] = (uint8_t)(file->version[index] + 1);
    }
    return MM_OK;
}

static const struct backing_ops disk = { disk_read, disk_write };

/* ---- in and out of memory ---- */

static void free_inode(struct files *f, struct file *file)
{
    struct inode *inode = file->inode;

    f->wrong += !words_are(inode->words, FS_ARRAY_SIZE(inode->words), file->key);
    address_space_destroy(&inode->as);
    inode->slot = NONE;
    file->inode = NULL;
    kmem_cache_free(f->inodes, inode);
}

static void free_dentry(struct files *f, struct file *file)
{
    struct dentry *dentry = file->dentry;

    f->wrong += !words_are(dentry->words, FS_ARRAY_SIZE(dentry->words), ~file->key);
    dentry->slot = NONE;
    file->dentry = NULL;
    kmem_cache_free(f->dentries, dentry);
}

/* Reclaim wants the inode: its pages go first, if they all can. */
static bool drop_inode(struct files *f, struct file *file)
{
    if (file->inode == NULL || file->busy != 0 || file->open || file->inode->as.dirty != 0) {
        return false;                                                                       /* I2 */
    }
    for (uint32_t i = 0; i < file->pages && file->inode->as.pages > 0; i++) {
        if (pagecache_drop(&file->inode->as, i) != MM_OK) {
            return false;
        }
    }
    free_inode(f, file);
    return true;
}

static uint64_t scan_inodes(void *ctx, uint64_t objects)
{
    struct files *f = ctx;
    uint64_t gone = 0;

    for (uint32_t i = 0; i < f->capacity && gone < objects; i++) {
        f->hand_inode = (f->hand_inode + 1) % f->capacity;
        gone += drop_inode(f, &f->file[f->hand_inode]);
    }
    return gone;
}

static bool evict_inode(void *ctx, void *object)
{
    struct files *f = ctx;
    const struct inode *inode = object;

    return inode->slot < f->capacity && drop_inode(f, &f->file[inode->slot]);
}

static bool drop_dentry(struct files *f, struct file *file)
{
    if (file->dentry == NULL || file->busy != 0 || file->open) {
        return false;
    }
    free_dentry(f, file);
    return true;
}

static uint64_t scan_dentries(void *ctx, uint64_t objects)
{
    struct files *f = ctx;
    uint64_t gone = 0;

    for (uint32_t i = 0; i < f->capacity && gone < objects; i++) {
        f->hand_dentry = (f->hand_dentry + 1) % f->capacity;
        gone += drop_dentry(f, &f->file[f->hand_dentry]);
    }
    return gone;
}

static bool evict_dentry(void *ctx, void *object)
{
    struct files *f = ctx;
    const struct dentry *dentry = object;

    return dentry->slot < f->capacity && drop_dentry(f, &f->file[dentry->slot]);
}

bool files_init(struct files *f, struct site *s, uint32_t capacity)
{
    const struct kmem_reclaim inodes = { .scan = scan_inodes, .evict = evict_inode, .ctx = f };
    const struct kmem_reclaim dentries = { .scan = scan_dentries, .evict = evict_dentry, .ctx = f };

    *f = (struct files){ .site = s, .capacity = capacity, .file = calloc(capacity, sizeof(struct file)) };
    f->inodes = kmem_cache_create(s->mm, "inode", sizeof(struct inode), 0, KMEM_RECLAIMABLE, construct_inode, &inodes);
    f->dentries = kmem_cache_create(s->mm, "dentry", sizeof(struct dentry), 0, KMEM_RECLAIMABLE, construct_dentry, &dentries);
    return f->file != NULL && f->inodes != NULL && f->dentries != NULL;
}

/* The inode and the dentry are in memory afterwards, or false. pre: busy */
static bool bring(struct files *f, uint32_t slot)
{
    struct file *file = &f->file[slot];

    if (file->dentry == NULL) {
        f->asked++;
        file->dentry = kmem_cache_alloc(f->dentries, GFP_KERNEL);
        if (file->dentry != NULL) {
            f->wrong += file->dentry->slot != NONE;
            file->dentry->slot = slot;
            fill_words(file->dentry->words, FS_ARRAY_SIZE(file->dentry->words), ~file->key);
        }
    }
    if (file->dentry != NULL && file->inode == NULL) {
        struct inode *inode = kmem_cache_alloc(f->inodes, GFP_KERNEL);

        f->asked++;
        if (inode != NULL) {
            f->wrong += inode->slot != NONE;
            fill_words(inode->words, FS_ARRAY_SIZE(inode->words), file->key);
            if (address_space_init(f->site->vm, &inode->as, GFP_HIGH_MOVABLE, &disk, file) != MM_OK) {
                kmem_cache_free(f->inodes, inode);
                inode = NULL;
            }
        }
        if (inode != NULL) {
            inode->slot = slot;
            file->inode = inode;
        }
    }
    f->refused += file->inode == NULL || file->dentry == NULL;
    return file->inode != NULL && file->dentry != NULL;
}

/* ---- what is done with files ---- */

static struct page *get(struct files *f, uint32_t slot, uint32_t index)
{
    struct page *p = NULL;

    if (bring(f, slot) && pagecache_get(&f->file[slot].inode->as, index, &p) != MM_OK) {
        f->pages_refused++;
        p = NULL;
    }
    return p;
}

void files_read(struct files *f, uint32_t slot, uint32_t index)
{
    struct file *file = &f->file[slot];
    struct page *p;

    if (!file->exists || index >= file->pages) {
        return;
    }
    file->busy++;
    p = get(f, slot, index);
    if (p != NULL) {
        f->verified++;
        f->wrong += !words_are(arch_page_address(page_pfn(p)), PAGE_WORDS, page_seed(file, index, file->version[index]));
        page_put(f->site->mm, p);
    }
    file->busy--;
}

void files_write(struct files *f, uint32_t slot, uint32_t index)
{
    struct file *file = &f->file[slot];
    struct page *p;

    if (!file->exists || index >= file->pages) {
        return;
    }
    file->busy++;
    p = get(f, slot, index);
    if (p != NULL) {
        file->version[index]++;
        fill_words(arch_page_address(page_pfn(p)), PAGE_WORDS, page_seed(file, index, file->version[index]));
        pagecache_dirty(p);
        page_put(f->site->mm, p);
    }
    file->busy--;
}

void files_sync(struct files *f, uint32_t slot)
{
    struct file *file = &f->file[slot];

    if (file->exists && file->inode != NULL) {
        file->busy++;
        f->wrong += pagecache_sync(&file->inode->as) != MM_OK;
        file->busy--;
    }
}

bool files_begin(struct files *f, uint32_t slot, uint32_t pages)
{
    struct file *file = &f->file[slot];
    bool went;

    *file = (struct file){ .exists = true, .pages = pages, .busy = 1, .key = site_random(f->site, UINT64_MAX) | 1, .version = calloc(pages, 1),
                           .stored = calloc(pages, 1) };
    went = file->version != NULL && file->stored != NULL && bring(f, slot);
    file->busy = 0;
    if (!went) {
        files_delete(f, slot);
    }
    return went;
}

void files_look_up(struct files *f, uint32_t slot)
{
    if (f->file[slot].exists) {
        f->file[slot].busy++;
        (void)bring(f, slot);
        f->file[slot].busy--;
    }
}

bool files_create(struct files *f, uint32_t slot, uint32_t pages)
{
    if (!files_begin(f, slot, pages)) {
        return false;
    }
    f->file[slot].busy++;
    for (uint32_t i = 0; i < pages; i++) {
        files_write(f, slot, i);
        if (i % 32 == 31) {
            files_sync(f, slot);                    /* the flusher is not far behind */
        }
    }
    files_sync(f, slot);
    f->file[slot].busy--;
    return true;
}

void files_delete(struct files *f, uint32_t slot)
{
    struct file *file = &f->file[slot];

    if (!file->exists) {
        return;
    }
    if (file->inode != NULL) {
        free_inode(f, file);
    }
    if (file->dentry != NULL) {
        free_dentry(f, file);
    }
    free(file->version);
    free(file->stored);
    *file = (struct file){ .exists = false };
}

uint64_t files_verify(struct files *f, bool all)
{
    for (uint32_t slot = 0; slot < f->capacity; slot++) {
        struct file *file = &f->file[slot];

        for (uint32_t i = 0; file->exists && i < file->pages; i++) {
            struct page *p = file->inode != NULL ? pagecache_find(&file->inode->as, i) : NULL;

            if (p != NULL) {
                page_put(f->site->mm, p);
            }
            if (p != NULL || all) {
                files_read(f, slot, i);
            } else {
                f->wrong += file->stored[i] != file->version[i];        /* the disk has what was written last */
            }
        }
        if (file->exists && file->inode != NULL) {
            f->wrong += file->inode->slot != slot || !words_are(file->inode->words, FS_ARRAY_SIZE(file->inode->words), file->key);
        }
        if (file->exists && file->dentry != NULL) {
            f->wrong += file->dentry->slot != slot || !words_are(file->dentry->words, FS_ARRAY_SIZE(file->dentry->words), ~file->key);
        }
    }
    return f->wrong;
}

void files_end(struct files *f)
{
    for (uint32_t slot = 0; slot < f->capacity; slot++) {
        files_delete(f, slot);
    }
    f->wrong += f->inodes != NULL && kmem_cache_destroy(f->inodes) != MM_OK;
    f->wrong += f->dentries != NULL && kmem_cache_destroy(f->dentries) != MM_OK;
    free(f->file);
    f->file = NULL;
}
