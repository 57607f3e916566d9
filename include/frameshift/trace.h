/*
 * trace.h - the one list of events; counters, trace lines and JSON share its names.
 *
 * X(name, text): name is the enum (EV_<name>), text what progress lines and the
 * JSON member "event" say.  a and b are the event's two numbers, named in the text.
 */
#ifndef FRAMESHIFT_TRACE_H
#define FRAMESHIFT_TRACE_H

#include <stdint.h>

#define FS_EVENT_LIST(X)                                                             \
    X(PLAN_BEGIN,        "plan-begin",        "frames", "domains")                   \
    X(PLAN_END,          "plan-end",          "movable", "blocked")                  \
    X(OFFLINE_FREE,      "offline-free",      "offlined", "pending")                 \
    X(RESERVE,           "reserve",           "frames", "node")                      \
    X(SUSPEND,           "suspend",           "vcpus", "handshake_ns")               \
    X(PROBE,             "probe",             "frames", "held")                      \
    X(DROP,              "drop-references",   "tables", "vcpus")                     \
    X(COPY,              "copy",              "frames", "total")                     \
    X(REWRITE,           "rewrite",           "tables", "entries")                   \
    X(P2M,               "p2m",               "entries", "pages")                    \
    X(M2P,               "m2p",               "entries", "total")                    \
    X(PIN,               "pin",               "tables", "vcpus")                     \
    X(RESUME,            "resume",            "blackout_ns", "moved")                \
    X(PAUSE,             "pause",             "pause_ns", "frames")                  \
    X(SUPERPAGE,         "superpage",         "moved", "split")                      \
    X(SWAP,              "swap",              "frames", "total")                     \
    X(RELEASE,           "release",           "frames", "offlined")                  \
    X(VERIFY,            "verify",            "frames", "mismatches")                \
    X(EVICT,             "evict",             "domain", "new_domain")                \
    X(ROLLBACK,          "rollback",          "domain", "frames")                    \
    X(RECOVER,           "recover",           "domain", "frames")                    \
    X(SWEEP,             "sweep",             "offlined", "left")                    \
    X(SHRINK,            "shrink",            "given", "total")                     \
    X(GROW,              "grow",              "taken", "total")                     \
    X(WARNING,           "warning",           "a", "b")

enum fs_event_id {
#define X(name, text, a, b) EV_##name,
    FS_EVENT_LIST(X)
#undef X
    EV_COUNT
};

struct fs_event {
    enum fs_event_id id;
    uint16_t domid;             /* FS_DOMID_NONE where no domain is meant */
    uint64_t time_ns;           /* backend clock */
    uint64_t a, b;
    const char *note;           /* words, valid during the callback; or NULL */
};

const char *fs_event_name(enum fs_event_id id);
const char *fs_event_arg(enum fs_event_id id, int which);   /* 0: a, 1: b */

#endif
