/*
 * workload_priv.h - what the tasks share: patterns, version tables, reporting.
 *
 * A page has LINES lines of LINE_BYTES.  A line was written as a whole, with a version that counts up; its bytes follow from the
 * task's key, the page, the line and the version, so two bytes a line are all that a task has to remember.
 */
#ifndef GUEST_WORKLOAD_PRIV_H
#define GUEST_WORKLOAD_PRIV_H

#include "workload.h"
#include "../mm/contiguous.h"
#include "../mm/fault.h"
#include "../mm/mempolicy.h"
#include "../mm/pagecache.h"
#include "../mm/slab.h"
#include "../mm/thp.h"
#include "../mm/vma.h"

void *memset(void *to, int c, size_t bytes);
void *memcpy(void *restrict to, const void *restrict from, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

#define LINE_BYTES 512u
#define LINES      (FS_PAGE_BYTES / LINE_BYTES)
#define LINE_WORDS (LINE_BYTES / sizeof(uint64_t))

#define VERSION_HOLE 0xffffu        /* of user memory: the page is not mapped, for lack of memory */

/* Versions of lines: 0 is the content at the beginning. Each write of a task has another number. */
struct versions {
    struct mm *mm;
    struct page *unit;              /* NULL: none */
    uint16_t *at;                   /* [pages * LINES] */
    uint32_t pages;
};
mm_status_t versions_init(struct versions *v, struct mm *mm, uint32_t pages) FS_MUST_CHECK;
void versions_free(struct versions *v);
void versions_copy(struct versions *to, const struct versions *from);      /* pre: the same size */

enum family { FAMILY_MAX = 4 };

struct user_task {                  /* ANON, FORK, SHM, MLOCK */
    struct mm_struct *mm[FAMILY_MAX];       /* NULL: none */
    struct versions expected[FAMILY_MAX];   /* SHM: the first is everybody's */
    uint64_t va;
    struct address_space shm;
    bool shm_made;
    uint32_t read_only;             /* the page that must not be written now, + 1 */
};

struct file_task {
    struct address_space as;
    bool made;
    struct mm_struct *mm;           /* maps the file */
    uint64_t va;
    struct versions expected, stored;
    uint16_t next;                  /* the version that is being written; set before writing */
    _Atomic uint64_t writing;       /* the line that is being written, + 1: the store may see any part of it */
    _Atomic uint64_t store_wrong;   /* found by the store, which may run on any CPU; the page is the last one */
    _Atomic uint64_t store_page;
};

struct node {                       /* an object of the slab task */
    struct spinlock lock;           /* constructed; evict() may look at an object that is free */
    uint32_t slot;                  /* SLAB_FREE: in nobody's hands */
    uint32_t version;
    struct node *next, *prev;       /* a ring */
    uint64_t words[10];
};
#define SLAB_FREE UINT32_MAX

struct slab_task {
    struct kmem_cache *nodes;
    struct page *table_unit;
    struct node **table;            /* [capacity] */
    uint32_t capacity, count;
    struct node *ring;
    _Atomic uint64_t evicted;
};

struct unit {
    struct page *page;              /* NULL: none */
    unsigned order;
    mfn_t frame;                    /* where it was when the device was told */
    uint16_t version;               /* of every line */
};
#define UNITS_MAX 64u

struct region_part {                /* DMA, with config.regions */
    struct contiguous region;
    uint16_t version;               /* of every line */
};
#define REGION_PAGES_MAX 32u

struct unit_task {                  /* HUGE, DMA */
    struct unit units[UNITS_MAX];
    uint32_t count;                 /* slots in use at most */
    struct mm_struct *mm;           /* DMA: user pages pinned for a device */
    uint64_t va;
    struct versions expected;
    struct page *pinned;
    uint32_t pinned_page;
    struct region_part region;
};
_Static_assert(UNITS_MAX * 4 + 1 + REGION_PAGES_MAX == WORKLOAD_DEVICE_PAGES_MAX, "what a device can have");

#define DEVICE_PAGES 8u

struct policy_device {              /* frames that are mapped without their struct pages */
    struct mm *mm;
    struct spinlock lock;
    struct page *pages[DEVICE_PAGES];
    uint32_t moving;                /* bit i: index i */
};

struct policy_task {                /* POLICY */
    struct mm_struct *mm;
    uint64_t va, device_va;
    struct versions expected;       /* the window, and behind it the device's pages */
    nodemask_t nodes[3];            /* of the interleaved and the bound part; 0: nothing is sure about its pages */
    uint64_t misses;                /* VMC_policy_miss when every interleaved page was in place */
    uint64_t away[3];               /* ZC_evacuate_away when the part was in place */
    struct policy_device device;
    struct address_space as;
    bool made;
};

struct huge_task {                  /* THP, POOL */
    struct mm_struct *mm[2];        /* the second one is the child, or NULL */
    struct versions expected[2];
    uint64_t va;
    uint32_t units;
    uint64_t gained;                /* POOL: by how much it made the pool larger */
};

struct workload_task {
    struct workload *w;
    uint32_t number, pages, cursor; /* cursor: what is verified next */
    enum workload_kind kind;
    uint64_t key, rng;
    uint16_t serial;                /* of the last write */
    struct workload_stats stats;
    union {
        struct user_task user;
        struct file_task file;
        struct slab_task slab;
        struct unit_task unit;
        struct policy_task policy;
        struct huge_task huge;
    } u;
    unsigned char line[LINE_BYTES], should[LINE_BYTES];
};

/* The functions of a kind. start may fail, and then stop is called all the same. */
struct workload_ops {
    mm_status_t (*start)(struct workload_task *t);
    void (*stop)(struct workload_task *t);
    void (*step)(struct workload_task *t);
    void (*verify)(struct workload_task *t);            /* everything */
};
/* Of a task of kind DMA. */
uint32_t unit_device_pages(const struct workload_task *t, pfn_t *list, uint32_t max);
extern const struct workload_ops workload_user_ops, workload_file_ops, workload_slab_ops, workload_unit_ops, workload_policy_ops, workload_huge_ops;

void units_restored(struct workload_task *t);           /* task_unit.c: other frames are under the units */
/* task_region.c: the part of a DMA task. */
void region_step(struct workload_task *t);
void region_verify(struct workload_task *t);
void region_restored(struct workload_task *t);
void region_stop(struct workload_task *t);

static inline struct vm *task_vm(const struct workload_task *t) { return t->w->config.vm; }
static inline struct mm *task_mm(const struct workload_task *t) { return t->w->config.vm->mm; }
uint64_t task_random(struct workload_task *t, uint64_t below);
/* The version of the next write: neither 0 nor VERSION_HOLE. */
uint16_t task_next_version(struct workload_task *t);
void task_wrong(struct workload_task *t, enum workload_fault fault, uint64_t page, uint64_t byte, uint64_t is, uint64_t should_be);
/* The same where it is known which page of the guest it is. */
void task_wrong_at(struct workload_task *t, enum workload_fault fault, uint64_t pfn, uint64_t page, uint64_t byte, uint64_t is, uint64_t should_be);
/* Count an answer; false: refused for lack of memory. Any other than MM_OK is a fault of the core. */
bool task_went(struct workload_task *t, mm_status_t status, uint64_t page);

/* The words of a line. zero: version 0 is all zeros (memory that nobody has written). */
void pattern_fill(uint64_t key, uint64_t page, uint32_t line, uint16_t version, bool zero, unsigned char *to);
/* Compare bytes with what the line should be; reports the first that is wrong. */
void task_check_line(struct workload_task *t, uint64_t pfn, uint64_t key, uint64_t page, uint32_t line, uint16_t version, bool zero,
                     const unsigned char *bytes);

/* User memory, a line at a time; versions of 0 are zeros. */
void task_user_write(struct workload_task *t, struct mm_struct *mm, uint64_t va, uint64_t key, struct versions *v, uint32_t page, uint32_t line);
void task_user_check(struct workload_task *t, struct mm_struct *mm, uint64_t va, uint64_t key, const struct versions *v, uint32_t page,
                     bool zero);

#endif
