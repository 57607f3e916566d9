/*
 * status.h - the one status enum, verdicts of moves, and blockers.
 *
 * Owns: every answer that crosses a module boundary above a backend.  No errno
 * travels higher than a backend; a refusal names its reason in a blocker or in
 * a struct fs_error whose text says what, why and what to do.
 */
#ifndef FRAMESHIFT_STATUS_H
#define FRAMESHIFT_STATUS_H

#include <stdint.h>
#include "assert.h"
#include "compiler.h"
#include "frame.h"

/* X(name, exit code of the CLI, text) - exit codes are documented in frameshift(1). */
#define FS_STATUS_LIST(X)                                                            \
    X(OK,             0, "success")                                                  \
    X(PARTIAL,        1, "done, but some frames stay (see blockers)")                \
    X(USAGE,          2, "bad command line")                                         \
    X(NOT_FOUND,      3, "no such DIMM, domain or file")                             \
    X(BAD_RANGE,      3, "not a range of RAM")                                       \
    X(NO_PERMISSION,  4, "not allowed (root in dom0 is needed)")                     \
    X(NO_XEN,         5, "not under Xen, or its control interface is missing")       \
    X(BAD_VERSION,    5, "this Xen version is not supported")                        \
    X(NO_ROOM,        6, "not enough free frames outside the range")                 \
    X(BUSY,           7, "another frameshift runs, or recovery is due")              \
    X(TIMEOUT,        8, "a guest did not suspend in time; rolled back")             \
    X(GUEST_GONE,     8, "the guest died, was destroyed or left during the move")    \
    X(REFUSED,        9, "Xen refused; nothing was changed or it was rolled back")   \
    X(UNSUPPORTED,    9, "this host cannot do it safely")                            \
    X(BAD_INPUT,     10, "malformed table, map, journal or message")                 \
    X(IO,            11, "file or device error")                                     \
    X(NO_MEMORY,     11, "out of memory in dom0")                                    \
    X(CORRUPT,       12, "verification failed: bytes or tables differ")              \
    X(NEEDS_RECOVER, 13, "stopped after the switch: run `frameshift recover`")       \
    X(INTERRUPTED,   14, "stopped by a signal; rolled back")

enum fs_status {
#define X(name, code, text) FS_##name,
    FS_STATUS_LIST(X)
#undef X
    FS_STATUS_COUNT
};
typedef enum fs_status fs_status_t;

const char *fs_status_name(fs_status_t s);      /* "NO_ROOM" */
const char *fs_status_text(fs_status_t s);
int fs_status_exit_code(fs_status_t s);

/* A refusal in words: what, why, what to do.  Filled by the callee when it
 * returns anything but FS_OK; err may be NULL. */
struct fs_error {
    char text[512];
};
FS_PRINTF(3, 4) fs_status_t fs_fail(struct fs_error *err, fs_status_t s, const char *fmt, ...);
#ifdef __clang_analyzer__       /* which does not see that the answer is s */
#define fs_fail(err, s, ...) ((void)fs_fail(err, s, __VA_ARGS__), (s))
#endif

/* The verdict of one attempted move. */
enum fs_verdict {
    FS_VERDICT_UNKNOWN,     /* not tried yet */
    FS_VERDICT_DONE,
    FS_VERDICT_NOT_NEEDED,  /* free, or went away by itself */
    FS_VERDICT_LATER,       /* cannot move now, may move at another time */
    FS_VERDICT_NEVER,       /* cannot move while its owner lives here */
};

/* Why a frame stays.  X(name, JSON/text name, verdict) */
#define FS_REASON_LIST(X)                                                            \
    X(NONE,            "none",             DONE)                                     \
    X(DOM0,            "dom0",             NEVER)   /* owned by the control domain */ \
    X(XEN,             "xen",              NEVER)   /* Xen heap, image, pools */     \
    X(XEN_SHARED,      "xen-shared",       NEVER)   /* shared_info, grant-table pages of a domain */ \
    X(XENSTORE_RING,   "xenstore-ring",    NEVER)                                    \
    X(CONSOLE_RING,    "console-ring",     NEVER)                                    \
    X(IOREQ,           "ioreq-page",       NEVER)                                    \
    X(VCPU_INFO,       "vcpu-info",        NEVER)                                    \
    X(EVTCHN_ARRAY,    "event-array",      NEVER)   /* FIFO event array page */      \
    X(EVTCHN_CONTROL,  "event-control",    NEVER)   /* FIFO control block */         \
    X(EVTCHN_SUSPECT,  "event-suspect",    LATER)   /* has the shape of one of the three above */ \
    X(GRANTED,         "granted",          LATER)   /* an active grant names it */   \
    X(FOREIGN_REF,     "foreign-reference", LATER)  /* the probe found another holder */ \
    X(LDT,             "ldt",              LATER)   /* Xen has it mapped as descriptor table of a vCPU */ \
    X(NO_MOVER,        "no-mover",         NEVER)   /* e.g. 32-bit PV */             \
    X(NOT_IN_P2M,      "not-in-p2m",       LATER)   /* owned, but no pfn leads to it */ \
    X(GUEST_REFUSED,   "guest-refused",    LATER)   /* would not suspend, or is paused */ \
    X(GUEST_EXCLUDED,  "guest-excluded",   LATER)   /* the user excluded it */       \
    X(XEN_REFUSED,     "xen-refused",      LATER)                                    \
    X(ONE_PCPU,        "one-pcpu",         NEVER)   /* marking would hang Xen */     \
    X(BROKEN,          "broken",           NEVER)                                    \
    X(OWNER_UNKNOWN,   "owner-unknown",    LATER)                                    \
    X(GUEST_BUSY,      "guest-busy",       LATER)   /* its guest, which moves its own pages, had it in use each time */ \
    X(GUEST_ABI,       "guest-abi",        LATER)   /* such a guest did not answer as frameshift/abi.h wants */ \
    X(NO_ROOM,         "no-room",          LATER)   /* no free frame outside the range to move it to */

enum fs_reason {
#define X(name, text, verdict) FS_REASON_##name,
    FS_REASON_LIST(X)
#undef X
    FS_REASON_COUNT
};
const char *fs_reason_name(enum fs_reason r);
enum fs_verdict fs_reason_verdict(enum fs_reason r);

#define FS_DOMID_NONE 0x7ff4u   /* DOMID_INVALID of xen/xen.h */
#define FS_DOMID_XEN  0x7ff2u   /* DOMID_XEN */

/* One frame of the range that stays, and why. */
struct fs_blocker {
    uint64_t frame : 40;        /* fs_blocker_mfn(); an x86-64 physical address has 52 bits */
    uint64_t domid : 16;        /* owner, FS_DOMID_XEN, or FS_DOMID_NONE */
    uint64_t reason : 8;        /* enum fs_reason */
    uint64_t gfn;               /* pfn or gfn in its owner, FS_FRAME_NONE if it has none */
};

static inline mfn_t fs_blocker_mfn(const struct fs_blocker *b)
{
    return mfn_make(b->frame);
}

/* pre: the frame has at most 40 bits. */
static inline struct fs_blocker fs_blocker_make(mfn_t mfn, uint64_t gfn, uint16_t domid, enum fs_reason reason)
{
    ASSERT_CMP(mfn.n >> 40, ==, 0);
    return (struct fs_blocker){ .frame = mfn.n & 0xffffffffffull, .domid = domid, .reason = (uint8_t)reason, .gfn = gfn };
}

#endif
