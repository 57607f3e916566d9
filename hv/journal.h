/*
 * journal.h - what was intended, on disk before it is done.
 *
 * Owns: the state directory (lock file and journal file), the record format and
 * its checks.  What records mean is their writers' business (evacuate.c, movers).
 * Rules: journal_append() returns only when the record is on disk (fsync of the
 * file, and of the directory when the file is new); a torn tail (the first part of
 * a record, or zeroes) is cut at the last whole record; a record that is there in
 * full and wrong is FS_BAD_INPUT, the last one too: it may have been acted upon.
 * A journal belongs to the process that opened it; a forked child's calls are refused.
 */
#ifndef FRAMESHIFT_HV_JOURNAL_H
#define FRAMESHIFT_HV_JOURNAL_H

#include "frameshift/status.h"

struct journal;

/* X(name, number): numbers are the file format and never change. */
#define JOURNAL_RECORD_LIST(X)                                                       \
    X(BEGIN,              1)  /* struct journal_begin: target, options */            \
    X(RANGES,             2)  /* struct mfn_range[] */                               \
    X(MARK_INTENT,        3)  /* the free frames of the ranges are about to be marked */ \
    X(MARKED,             4)                                                         \
    X(DOMAIN_BEGIN,       5)  /* struct journal_domain */                            \
    X(DOMAIN_END,         6)  /* nothing of this domain is left to undo */           \
    X(PV_RESERVE_INTENT, 16)                                                         \
    X(PV_RESERVED,       17)  /* uint32_t[], ascending: new frames, owned, outside the p2m */      \
    X(PV_SUSPEND_INTENT, 18)                                                         \
    X(PV_SUSPENDED,      19)                                                         \
    X(PV_STATE,          20)  /* vCPU states, pinned tables */                       \
    X(PV_DROP_INTENT,    21)  /* unused: PV_STATE is the intent to drop references */ \
    X(PV_MOVES,          22)  /* moves, tables, where the p2m lives: enough to undo the switch */ \
    X(PV_SWITCHED,       23)  /* tables, p2m, M2P, pins, vCPUs in place: from here only forward */    \
    X(PV_RESUMED,        24)                                                         \
    X(PV_RELEASED,       25)                                                         \
    X(HAP_RESERVE_INTENT, 32)                                                        \
    X(HAP_SCRATCH,       33)                                                         \
    X(HAP_BATCH_INTENT,  34)                                                         \
    X(HAP_BATCH_DONE,    35)                                                         \
    X(HAP_EXTENT_INTENT, 36)                                                         \
    X(HAP_EXTENT_DONE,   37)                                                         \
    X(HAP_CANDIDATE,     38)                                                         \
    X(HAP_DIRTY_LOG,     39)                                                         \
    X(HAP_CLEANED,       40)                                                         \
    X(EVICT_INTENT,      48)                                                         \
    X(EVICT_SAVED,       49)                                                         \
    X(EVICT_RESTORED,    50)                                                         \
    X(COOP_REQUEST,      56)  /* struct coop_move[]: what the guest is asked to move */ \
    X(COOP_DONE,         57)  /* the round: nothing of it is left to give back */    \
    X(COOP_RESERVE,      58)  /* struct coop_reserve: frames are about to be added */ \
    X(COOP_RESERVED,     59)  /* mfn_t[]: new frames, owned, outside the p2m */      \
    X(SWEEP,             60)                                                         \
    X(SHRINK,            61)  /* struct shrink_record: a guest is about to be asked for memory, or to take some */ \
    X(END,               63)

enum journal_type {
#define X(name, number) JR_##name = number,
    JOURNAL_RECORD_LIST(X)
#undef X
};
const char *journal_type_name(unsigned type);

#define JOURNAL_RECORD_MAX_BYTES (1ull << 32)

/* Takes the lock (FS_BUSY: another tool runs, its pid named). A journal left by a crash: FS_BUSY with
 * "run frameshift recover", unless for_recovery. */
fs_status_t journal_open(const char *state_dir, bool for_recovery, struct journal **out, struct fs_error *err) FS_MUST_CHECK;
/* True if state_dir holds an unfinished journal; takes no lock, changes nothing. */
bool journal_pending(const char *state_dir);
/* data may be NULL where bytes == 0. On disk when it returns FS_OK. */
fs_status_t journal_append(struct journal *j, enum journal_type type, const void *data, size_t bytes, struct fs_error *err) FS_MUST_CHECK;
/* The same for a record of bytes that need not be in one piece: fill puts up to room of them into buffer, from offset on, and says
 * how many (at least one).  It is called for ascending offsets that continue where it left off, and once or twice for all:
 * offset 0 begins anew.  Both times the bytes must be the same. */
typedef size_t (*journal_fill_fn)(void *arg, uint64_t offset, void *buffer, size_t room);
fs_status_t journal_append_from(struct journal *j, enum journal_type type, journal_fill_fn fill, void *arg, size_t bytes, struct fs_error *err) FS_MUST_CHECK;
/* Number of records so far; data of record i stays valid until journal_close(). For recovery: what was found.
 * *data is 8-byte aligned. Should dom0 lack the memory to map it, *data is NULL and *bytes 0: check sizes as always. */
size_t journal_count(const struct journal *j);
enum journal_type journal_record(const struct journal *j, size_t i, const void **data, size_t *bytes);
/* Test hook: raise SIGKILL once record number n (1-based, found ones included) is on disk; 0 never. */
void journal_crash_at(struct journal *j, uint32_t n);
/* All is done: the journal is removed (fsynced), the lock kept until close. */
fs_status_t journal_finish(struct journal *j, struct fs_error *err) FS_MUST_CHECK;
void journal_close(struct journal *j);

#endif
