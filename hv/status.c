/*
 * status.c - names, texts and exit codes of statuses and reasons; fs_fail().
 *
 * Owns: the tables that the X-macros of status.h expand to.
 * Invariants:
 *  I1 every status and reason has a name that is its own (JSON users key on it);
 *  I2 fs_fail() always leaves a terminated text, never longer than the struct,
 *     and marks a cut with "...";
 *  I3 the arguments of fs_fail() may point into err->text, so that a caller can
 *     put its own words before its callee's.
 * Lock order: none; everything here is pure or writes only to err.
 * Why numbers outside the enum are answered and not asserted: reasons travel in
 * one byte of a blocker that may have come from a journal on disk.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "frameshift/status.h"

static const char *const status_names[] = {
#define X(name, code, text) [FS_##name] = #name,
    FS_STATUS_LIST(X)
#undef X
};

static const char *const status_texts[] = {
#define X(name, code, text) [FS_##name] = text,
    FS_STATUS_LIST(X)
#undef X
};

static const int status_codes[] = {
#define X(name, code, text) [FS_##name] = code,
    FS_STATUS_LIST(X)
#undef X
};

static const struct {
    const char *name;
    enum fs_verdict verdict;
} reasons[] = {
#define X(name, text, verdict) [FS_REASON_##name] = { text, FS_VERDICT_##verdict },
    FS_REASON_LIST(X)
#undef X
};

_Static_assert(FS_OK == 0, "a zeroed status is success");
_Static_assert(FS_ARRAY_SIZE(status_codes) == FS_STATUS_COUNT, "one exit code for each status");
_Static_assert(FS_REASON_COUNT <= UINT8_MAX, "a blocker keeps its reason in one byte");
_Static_assert(sizeof(struct fs_blocker) == 16, "blockers are counted in millions");

const char *fs_status_name(fs_status_t s)
{
    return (unsigned)s < FS_STATUS_COUNT ? status_names[s] : "UNKNOWN";
}

const char *fs_status_text(fs_status_t s)
{
    return (unsigned)s < FS_STATUS_COUNT ? status_texts[s] : "unknown status";
}

int fs_status_exit_code(fs_status_t s)
{
    /* 70 is EX_SOFTWARE of sysexits.h: only a defect of ours leads here. */
    return (unsigned)s < FS_STATUS_COUNT ? status_codes[s] : 70;
}

fs_status_t (fs_fail)(struct fs_error *err, fs_status_t s, const char *fmt, ...)
{
    char text[sizeof(err->text)];       /* I3 */
    va_list ap;

    if (!err) {
        return s;
    }
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    if (n < 0) {
        (void)snprintf(text, sizeof(text), "%s", fs_status_text(s));
    } else if ((size_t)n >= sizeof(text)) {
        memcpy(text + sizeof(text) - 4, "...", 4);
    }
    memcpy(err->text, text, strlen(text) + 1);
    return s;
}

const char *fs_reason_name(enum fs_reason r)
{
    return (unsigned)r < FS_REASON_COUNT ? reasons[r].name : "unknown";
}

enum fs_verdict fs_reason_verdict(enum fs_reason r)
{
    return (unsigned)r < FS_REASON_COUNT ? reasons[r].verdict : FS_VERDICT_UNKNOWN;
}
