/*
 * refs.c - the owner and the reference count of any frame, in Xen's own words.
 *
 * Owns: xen_refs_query(), and the guest log level while we scan.
 * Xen 4.17 has no query for a frame's reference count.  But when a PV domain looks up a
 * frame that is not its own, Xen logs the refusal with the frame's owner, count and type words:
 *      d0v1 Error mfn 4a2f1: rd=d0 od=d3 caf=8000000000000002 taf=e000000000000001
 * The lookup is getpageframeinfo3 on our own domain, which changes nothing; the
 * line is of level "info" for guests, which is off by default and can be switched on while
 * Xen runs (its file system's /params/guest_loglvl).
 * Invariants:
 *  I1  an entry is known only if exactly one line of Xen's own names its frame: no line (our
 *      own frame, or the line was lost) means not known, never "no references".
 *  I2  the log level is put back on every path.
 *  I3  the count is the one without the reference that the lookup itself took (Xen
 *      subtracts it before it prints).
 * Why not for every frame of a range: each line goes over the serial console, 100 bytes
 * at 115200 baud take 9 ms, during which Xen holds its console lock.  Candidates are tens.
 * Cost: one hypercall and one line of log a frame; two hypercalls to switch the level.
 */
#include "xen_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEVEL_PATH "/params/guest_loglvl"
#define QUIET_FOR_NS 10000000000ull
#define REFS_BATCH 64u                  /* lines at a time: about 7 KiB of a ring of at least 16 */

/* Xen's count_info and type_info words (arch/x86/include/asm/mm.h); the same since 4.15. */
#define COUNT_MASK ((1ull << 57) - 1)
#define COUNT_XEN_HEAP (1ull << 62)
#define TYPE_COUNT_MASK ((1ull << 55) - 1)

static bool hypfs_open(struct xen_be *x)
{
    if (!x->hypfs) {
        x->hypfs = xenhypfs_open(x->log, 0);
    }
    return x->hypfs != NULL;
}

static bool level_read(struct xen_be *x, char *out, size_t bytes)
{
    char *text = hypfs_open(x) ? xenhypfs_read(x->hypfs, LEVEL_PATH) : NULL;
    bool ok = text && strlen(text) < bytes;
    if (ok) {
        strcpy(out, text);
    }
    free(text);
    return ok;
}

static bool level_write(struct xen_be *x, const char *value)
{
    return hypfs_open(x) && xenhypfs_write(x->hypfs, LEVEL_PATH, value) == 0;
}

/* The part before the slash is what is printed always. */
static bool level_prints_lookups(const char *level)
{
    return strncmp(level, "info", 4) == 0 || strncmp(level, "debug", 5) == 0 || strncmp(level, "all", 3) == 0;
}

void xen_quiet_begin(struct xen_be *x, struct xen_quiet *q)
{
    uint64_t now = xen_clock_ns(NULL);
    q->changed = false;
    if (x->quiet_until_ns > now) {
        return;                         /* it was quiet a moment ago: a scan within a guest's stop must not wait for the file system */
    }
    q->changed = level_read(x, q->saved, sizeof q->saved) && level_prints_lookups(q->saved) && level_write(x, "none/warning");
    x->quiet_until_ns = q->changed ? 0 : now + QUIET_FOR_NS;
}

void xen_quiet_end(struct xen_be *x, struct xen_quiet *q)
{
    if (q->changed) {
        (void)level_write(x, q->saved);
    }
    q->changed = false;
}

/* One line; false if it is not such a line. */
static bool parse_line(const char *line, uint64_t *mfn, struct xen_refs *r)
{
    const char *p = strstr(line, " Error mfn ");
    unsigned long long m, caf, taf;
    char owner[16];
    int end = 0;
    if (!p || sscanf(p, " Error mfn %llx: rd=d%*u od=%15s caf=%llx taf=%llx%n", &m, owner, &caf, &taf, &end) != 4 || end == 0) {
        return false;
    }
    *mfn = m;
    *r = (struct xen_refs){ .known = true, .domid = FS_DOMID_NONE, .count = caf & COUNT_MASK, .type_count = taf & TYPE_COUNT_MASK, .type = (uint8_t)(taf >> 61),
                            .xen_heap = (caf & COUNT_XEN_HEAP) != 0 };
    uint64_t id;
    if (owner[0] == 'd' && xen_parse_u64(owner + 1, DOMID_FIRST_RESERVED - 1, &id)) {
        r->domid = (uint16_t)id;
    } else if (strcmp(owner, "d[XEN]") == 0) {
        r->domid = FS_DOMID_XEN;
    }
    return true;
}

static void collect(const mfn_t *mfns, size_t count, struct xen_refs *out, char *text)
{
    uint8_t seen[REFS_BATCH] = { 0 };
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        uint64_t mfn;
        struct xen_refs r;
        if (!parse_line(line, &mfn, &r)) {
            continue;
        }
        for (size_t i = 0; i < count; i++) {
            if (mfns[i].n == mfn) {
                out[i] = r;
                seen[i] = (uint8_t)(seen[i] + (seen[i] < 2));
            }
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (seen[i] != 1) {                             /* I1 */
            out[i] = (struct xen_refs){ .domid = FS_DOMID_NONE };
        }
    }
}

static fs_status_t query_batch(struct xen_be *x, const mfn_t *mfns, size_t count, struct xen_refs *out, struct fs_error *err)
{
    struct xen_console_mark mark;
    fs_status_t s = xen_console_mark(x, &mark, err);
    if (s != FS_OK) {
        return s;
    }
    uint64_t info[REFS_BATCH];
    memcpy(info, mfns, count * sizeof *info);
    if (xen_page_info(x, x->self, info, count) != 0) {
        return xen_fail(err, errno, "cannot look up frame %#llx", (unsigned long long)mfns[0].n);
    }
    char *text = NULL;
    s = xen_console_since(x, &mark, &text, err);
    if (s == FS_OK) {
        collect(mfns, count, out, text);
    }
    free(text);
    return s;
}

fs_status_t xen_refs_query(struct xen_be *x, const mfn_t *mfns, size_t count, struct xen_refs *out, struct fs_error *err)
{
    char saved[32];
    if (!level_read(x, saved, sizeof saved)) {
        return fs_fail(err, FS_UNSUPPORTED, "this Xen has no run-time parameters (its file system is off): reference counts cannot be had");
    }
    bool change = !level_prints_lookups(saved);
    if (change && !level_write(x, "info")) {
        return fs_fail(err, FS_UNSUPPORTED, "Xen does not let us set guest_loglvl: reference counts cannot be had");
    }
    fs_status_t s = FS_OK;
    for (size_t at = 0; at < count && s == FS_OK; at += REFS_BATCH) {
        size_t n = count - at < REFS_BATCH ? count - at : REFS_BATCH;
        s = query_batch(x, &mfns[at], n, &out[at], err);
    }
    if (change) {
        (void)level_write(x, saved);                    /* I2 */
    }
    return s;
}

fs_status_t xen_frame_refs(struct hv_backend *be, const mfn_t *mfns, size_t count, struct hv_frame_refs *out, struct fs_error *err)
{
    struct xen_refs refs[REFS_BATCH];
    fs_status_t s = FS_OK;

    for (size_t at = 0; at < count && s == FS_OK; at += REFS_BATCH) {
        size_t n = count - at < REFS_BATCH ? count - at : REFS_BATCH;
        s = xen_refs_query(xen_be(be), &mfns[at], n, refs, err);
        for (size_t i = 0; i < n && s == FS_OK; i++) {
            out[at + i] = (struct hv_frame_refs){ .known = refs[i].known, .xen_heap = refs[i].xen_heap, .domid = refs[i].domid,
                                                  .count = refs[i].count, .type_count = refs[i].type_count,
                                                  .type = refs[i].type };
        }
    }
    return s;
}
