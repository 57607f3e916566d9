/*
 * files.h - files as a kernel has them: an inode and dentries in slabs, pages in the page cache, a disk behind them.
 *
 * The inode holds the file's address space.  Reclaim may drop a dentry that nobody has open, and an inode whose pages can all be dropped; the
 * file is still on the disk then, and the next access brings the inode back.  Every byte of a page follows from file, index and version.
 */
#ifndef TESTS_SITUATIONS_FILES_H
#define TESTS_SITUATIONS_FILES_H

#include "site.h"
#include "../../guest/mm/slab.h"

struct file {
    bool exists, open;              /* on the disk; open: its dentry and inode stay */
    uint32_t pages, busy;
    uint64_t key;
    uint8_t *version;               /* [pages], what the page should be: counts up with each write */
    uint8_t *stored;                /* [pages], what the disk has */
    struct inode *inode;            /* NULL: not in memory */
    struct dentry *dentry;
};

struct files {
    struct site *site;
    struct kmem_cache *inodes, *dentries;
    struct file *file;
    uint32_t capacity, hand_inode, hand_dentry;     /* clock hands of reclaim */
    uint64_t asked, refused;        /* kernel objects: inodes, dentries */
    uint64_t pages_refused;         /* pages of the page cache */
    uint64_t verified, wrong;       /* pages */
};

bool files_init(struct files *f, struct site *s, uint32_t capacity);
/* A new file in an empty slot, written page by page into the page cache (dirty). MM_ENOMEM: not even its inode; it does not exist then.
 * Fewer pages than wanted where the page cache is refused. */
bool files_create(struct files *f, uint32_t slot, uint32_t pages);
/* The same without its pages: versions are all 0 until files_write(). */
bool files_begin(struct files *f, uint32_t slot, uint32_t pages);
/* Its inode and dentry are brought into memory, as by somebody who lists directories. */
void files_look_up(struct files *f, uint32_t slot);
void files_delete(struct files *f, uint32_t slot);
/* Read and verify a page, or write it anew. Nothing where memory is refused. */
void files_read(struct files *f, uint32_t slot, uint32_t index);
void files_write(struct files *f, uint32_t slot, uint32_t index);
/* Write back what is dirty of the file. */
void files_sync(struct files *f, uint32_t slot);
/* Verify every page that is cached, and (all) every page of every file; the faults found so far. */
uint64_t files_verify(struct files *f, bool all);
void files_end(struct files *f);

#endif
