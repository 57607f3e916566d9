/*
 * abi.h - the interface between a guest kernel and the hypervisor side (the tool in dom0), version 1.
 *
 * Owns: the layout of the pages that both share, the requests, and every status that crosses.  doc/ABI.md is the prose.
 *
 * The guest publishes two values, on Xen in xenstore below its own node data/frameshift, on the embedded machine in a table:
 *     version    FS_ABI_VERSION in decimal
 *     control    the pfn of the control page in decimal
 * All other numbers are in the control page.  Pages are named by pfn, never by machine frame: the guest's p2m says where a
 * page is now, so that the shared pages can move like any other.
 *
 * The hypervisor side ("hv") writes requests and the guest answers them in order.  Each side keeps its own copy of every
 * index, length and list entry that it has checked, reads each shared word once, and trusts nothing but what it can see
 * by itself: the guest looks its frames up in its p2m and in the M2P; hv looks at p2m, M2P and owner after an answer.
 *
 * Order of writes: a producer index is stored with release after everything that it publishes, and loaded with acquire.
 * All words are little-endian.  No header of ours or of libc is needed but <stdint.h>.
 */
#ifndef FRAMESHIFT_ABI_H
#define FRAMESHIFT_ABI_H

#include <stdint.h>

#define FS_ABI_MAGIC     0x3149424154465346ull      /* "FSFTABI1" */
#define FS_ABI_VERSION   1u
#define FS_ABI_SLOTS     4u                         /* requests in flight */
#define FS_ABI_LIST_MAX  128u                       /* entries of a slot's list page */
#define FS_ABI_KEY_VERSION "version"
#define FS_ABI_KEY_CONTROL "control"

/* X(name, number): what is asked.  Numbers never change. */
#define FS_ABI_OP_LIST(X)                                                                                  \
    X(QUERY,   1)   /* answer: enum fs_abi_query; with FS_ABI_QUERY_EXPORT the page state is written anew */ \
    X(MOVE,    2)   /* same pfn, new machine frame, for each entry of the slot's list */                    \
    X(COMPACT, 3)   /* argument 0: whole pageblocks wanted, 0 as many as can be */                          \
    X(SHRINK,  4)   /* argument 0: pages that the guest shall give back, whole pageblocks where it can */   \
    X(GROW,    5)   /* argument 0: pages that the guest shall take again of what it gave */                  \
    X(INFO,    6)   /* with FS_ABI_FEATURE_INFO. argument 0: enum fs_abi_table, 1: its first entry wanted; the guest fills the list page */ \
    X(TUNE,    7)   /* with FS_ABI_FEATURE_INFO: set the tunable that the list page names */
enum fs_abi_op {
#define X(name, number) FS_ABI_##name = number,
    FS_ABI_OP_LIST(X)
#undef X
};

/* X(name, number): the answer to a request as a whole. */
#define FS_ABI_STATUS_LIST(X)                                                        \
    X(OK,          0)                                                                \
    X(PARTIAL,     1)   /* done in part; the values and the list tell */             \
    X(INVALID,     2)   /* a field of the request is out of bounds; nothing done */  \
    X(UNSUPPORTED, 3)   /* no such request here */                                   \
    X(AGAIN,       4)   /* not now */                                                \
    X(NO_MEMORY,   5)
enum fs_abi_status {
#define X(name, number) FS_ABI_STATUS_##name = number,
    FS_ABI_STATUS_LIST(X)
#undef X
};

/* X(name, number): the answer to one entry of a MOVE.  Below 16: moved, and how. */
#define FS_ABI_ENTRY_LIST(X)                                                                       \
    X(NONE,    0)   /* not looked at */                                                            \
    X(FREE,    1)   /* the page was free: nothing was copied */                                    \
    X(USER,    2)   /* unmapped through the reverse map, copied and mapped again; no stop */       \
    X(KERNEL,  3)   /* copied while every CPU stood still */                                       \
    X(TABLE,   4)   /* a page table, moved while every CPU stood still */                          \
    X(BUSY,    16)  /* in use for the moment: may move later */                                    \
    X(DMA,     17)  /* a device, or Xen, holds its frame: stays */                                 \
    X(STALE,   18)  /* the p2m does not say `from` for this pfn */                                 \
    X(BAD,     19)  /* the pfn is none of the guest's, or `to` is in use, or no frame of the guest */ \
    X(REFUSED, 20)  /* the machine refused a step; the page is where it was */
enum fs_abi_entry {
#define X(name, number) FS_ABI_ENTRY_##name = number,
    FS_ABI_ENTRY_LIST(X)
#undef X
};
static inline int fs_abi_entry_moved(uint32_t status) { return status >= FS_ABI_ENTRY_FREE && status <= FS_ABI_ENTRY_TABLE; }

struct fs_abi_move {
    uint64_t pfn;
    uint64_t from;              /* the machine frame that hv believes the page to be in */
    uint64_t to;                /* a frame that the guest owns and that no pfn leads to; hv has had it added */
    uint32_t status;            /* guest: enum fs_abi_entry; hv writes NONE */
    uint32_t reserved;          /* 0 */
};
_Static_assert(sizeof(struct fs_abi_move) * FS_ABI_LIST_MAX == 4096, "a list is one page");

#define FS_ABI_FEATURE_SHRINK_VALUES 0x1u   /* SHRINK and GROW tell enum fs_abi_shrink_value, QUERY tells SHRINK_PAGES */

#define FS_ABI_FEATURE_INFO          0x2u   /* INFO and TUNE are served */

/* INFO: what the list page holds afterwards, answer.count entries of the table from the first one wanted on (as many as fit a page);
 * value[FS_ABI_INFO_TOTAL] says how many the table has. A page of numbers that belong together as well as an unlocked look allows. */
#define FS_ABI_TABLE_LIST(X)                                                  \
    X(COUNTERS, 1)  /* struct fs_abi_value: counts (nr_...) and counters */   \
    X(ZONES,    2)  /* struct fs_abi_zone */                                  \
    X(TUNABLES, 3)  /* struct fs_abi_value, with limits */
enum fs_abi_table {
#define X(name, number) FS_ABI_TABLE_##name = number,
    FS_ABI_TABLE_LIST(X)
#undef X
};
#define FS_ABI_INFO_TOTAL 0u

#define FS_ABI_NAME_BYTES 32u
#define FS_ABI_VALUE_ACTION 0x1u    /* of a tunable: setting it does something; it has no value to read */
/* An entry of COUNTERS or TUNABLES; for TUNE, entry 0 of the list page is what to set: name and value, the rest 0. */
struct fs_abi_value {
    char name[FS_ABI_NAME_BYTES];   /* a-z, 0-9, _; ends with a 0, the rest 0 */
    uint64_t value;
    uint64_t least, most;           /* of a tunable: what it may be set to */
    uint32_t flags;
    uint32_t reserved;              /* 0 */
};
#define FS_ABI_VALUES_PER_PAGE 64u
_Static_assert(sizeof(struct fs_abi_value) * FS_ABI_VALUES_PER_PAGE == 4096, "values fill a page");

#define FS_ABI_ORDERS 11u           /* 0 to 10 */
#define FS_ABI_TYPES  6u            /* migratetypes: unmovable, movable, reclaimable, accounted, highatomic, isolate */
struct fs_abi_zone {
    uint32_t node, kind;            /* kind: 0 DMA, 1 Normal, 2 Movable */
    uint64_t present_pages, managed_pages, free_pages, isolated_pages;
    uint64_t watermark[3];          /* min, low, high */
    uint32_t blocks[FS_ABI_TYPES];  /* pageblocks of each type */
    uint32_t free[FS_ABI_TYPES][FS_ABI_ORDERS];     /* free units */
    uint16_t unusable[FS_ABI_ORDERS];   /* unusable index, 0 to 1000 */
    int16_t extfrag[FS_ABI_ORDERS];     /* fragmentation index, 0 to 1000; -1000: a unit is there */
    uint32_t score;                 /* fragmentation score in percent */
    uint32_t reserved[28];          /* 0 */
};
#define FS_ABI_ZONES_PER_PAGE 8u
_Static_assert(sizeof(struct fs_abi_zone) * FS_ABI_ZONES_PER_PAGE == 4096, "zones fill a page");

/* TUNE: value[] of the answer. INVALID: FS_ABI_TUNED_WHY says why, nothing was set. */
enum fs_abi_tuned { FS_ABI_TUNED_BEFORE, FS_ABI_TUNED_AFTER, FS_ABI_TUNED_WHY };
#define FS_ABI_TUNE_UNKNOWN 1u      /* no tunable has that name */
#define FS_ABI_TUNE_RANGE   2u      /* the value is not between least and most */

#define FS_ABI_QUERY_EXPORT 0x1u    /* QUERY: write the exported page state anew before answering */
#define FS_ABI_MOVE_VERIFY  0x1u    /* MOVE: compare each copy with its source before it is used */

struct fs_abi_request {             /* hv writes */
    uint32_t id;                    /* any; comes back */
    uint16_t op;                    /* enum fs_abi_op */
    uint16_t flags;                 /* of the op; others 0 */
    uint32_t count;                 /* MOVE: entries of the list, 1 to FS_ABI_LIST_MAX; TUNE: 1; else 0 */
    uint32_t reserved;              /* 0 */
    uint64_t argument[2];           /* 0 where not used */
};

/* X(name): values of the answers, by index.  Times in ns; stops are those of this request, but in QUERY: of all. */
#define FS_ABI_MOVE_VALUES(X) \
    X(FREE) X(USER) X(KERNEL) X(TABLE) X(FAILED) X(STOPS) X(STOP_MAX_NS) X(STOP_SUM_NS) X(VERIFIED) X(USER_IN_STOP)
#define FS_ABI_QUERY_VALUES(X) \
    X(PAGES) X(FREE_PAGES) X(FREE_BLOCKS) X(GIVEN_PAGES) X(STOP_COUNT) X(STOP_LONGEST_NS) X(STOP_P99_NS) X(EXPORT_SEQUENCE) X(SHRINK_PAGES) \
    X(STOP_P50_NS)
enum fs_abi_move_value {
#define X(name) FS_ABI_MOVED_##name,
    FS_ABI_MOVE_VALUES(X)
#undef X
    FS_ABI_MOVED_VALUES
};
enum fs_abi_query_value {
#define X(name) FS_ABI_QUERIED_##name,
    FS_ABI_QUERY_VALUES(X)
#undef X
    FS_ABI_QUERIED_VALUES
};
/* SHRINK and GROW, with FS_ABI_FEATURE_SHRINK_VALUES: of what this request gave or took. */
#define FS_ABI_SHRINK_VALUES(X) \
    X(BLOCKS)           /* whole pageblocks */                                              \
    X(SINGLE_PAGES)     /* pages of blocks of which something stays */                       \
    X(EXTENTS)          /* of the blocks: one 2 MiB extent of machine frames each */          \
    X(SECTIONS)         /* of 128 MiB, of which the last page went, or the first came back */ \
    X(MIGRATED)         /* pages moved inside the guest for it */                             \
    X(RESIDUAL_BLOCKS)  /* left behind by it, and the pages in them that stay, by reason: */  \
    X(STAYS_DMA) X(STAYS_BOOT) X(STAYS_TABLE) X(STAYS_KERNEL) X(STAYS_BUSY)                   \
    X(MEMMAP)           /* pages of struct pages that the guest's allocator got from sections that left, or took for those that came back */
enum fs_abi_shrink_value {
#define X(name) FS_ABI_SHRUNK_##name,
    FS_ABI_SHRINK_VALUES(X)
#undef X
    FS_ABI_SHRUNK_VALUES
};
#define FS_ABI_VALUES 12u
_Static_assert((int)FS_ABI_MOVED_VALUES <= (int)FS_ABI_VALUES && (int)FS_ABI_QUERIED_VALUES <= (int)FS_ABI_VALUES
               && (int)FS_ABI_SHRUNK_VALUES <= (int)FS_ABI_VALUES, "they fit into an answer");

struct fs_abi_response {            /* guest writes */
    uint32_t id;
    uint16_t op;
    uint16_t status;                /* enum fs_abi_status */
    uint32_t count;                 /* MOVE: entries looked at; INFO: entries of the page; COMPACT: blocks made; SHRINK, GROW: pages given, taken (saturated) */
    uint32_t reserved;              /* 0 */
    uint64_t value[FS_ABI_VALUES];
};

/* The control page. */
struct fs_abi_control {
    /* Written by the guest before it publishes; constant after. */
    uint64_t magic;
    uint32_t version;
    uint32_t features;              /* FS_ABI_FEATURE_*; hv passes over bits that it does not know */
    uint64_t pfn_end;               /* every pfn of the guest is below */
    uint64_t list_pfn[FS_ABI_SLOTS];    /* the list page of each slot */
    uint64_t export_pfn;            /* first of export_pages adjacent pfns, read-only for hv; 0 pages: no export */
    uint32_t export_pages;
    uint32_t block_pages;           /* pages of a pageblock: FS_ABI_BLOCK_PAGES */
    /* A session: hv stores a number other than the guest's, the guest gives up what it was asked, clears the ring and
     * stores the same number.  From then on it is idle and both indices are 0. */
    uint32_t session_hv;            /* hv writes */
    uint32_t session_guest;         /* guest writes */
    uint32_t broken;                /* guest: the ring's indices made no sense; it serves nothing until the next session */
    uint32_t pad0;
    /* The ring: request n and its answer are in slot n % FS_ABI_SLOTS. */
    uint32_t request_produced;      /* hv writes, free-running */
    uint32_t pad1[15];
    uint32_t response_produced;     /* guest writes, free-running; never ahead of request_produced */
    uint32_t pad2[15];
    struct fs_abi_request request[FS_ABI_SLOTS];
    struct fs_abi_response response[FS_ABI_SLOTS];
};
_Static_assert(sizeof(struct fs_abi_control) <= 4096, "the control page is one page");
_Static_assert(__builtin_offsetof(struct fs_abi_control, session_hv) == 72, "layout of version 1");
_Static_assert(__builtin_offsetof(struct fs_abi_control, request) == 216, "layout of version 1");
_Static_assert(sizeof(struct fs_abi_request) == 32 && sizeof(struct fs_abi_response) == 112, "layout of version 1");

/* The exported page state: what was free at one moment, by pageblock.  A hint: it is old as soon as it is written. */
#define FS_ABI_BLOCK_PAGES 512u
struct fs_abi_block {
    uint8_t type;                   /* migratetype, as guest/mm/page.h numbers them */
    uint8_t flags;                  /* FS_ABI_BLOCK_* */
    uint16_t free_pages;
    uint32_t reserved;
    uint64_t free[FS_ABI_BLOCK_PAGES / 64];     /* bit n: page n of the block is free */
};
#define FS_ABI_BLOCK_ABSENT  0x1u   /* not memory of the guest, or given back as a whole */
#define FS_ABI_BLOCKS_PER_PAGE 56u
_Static_assert(sizeof(struct fs_abi_block) * FS_ABI_BLOCKS_PER_PAGE <= 4096, "blocks do not straddle pages");

#endif
