/*
 * conform.h - one suite for every implementation of hv/backend.h.
 *
 * Owns: what the checks share.  A check uses struct hv_backend_ops only, so that it
 * holds for any machine; main_<machine>.c opens the backend and says which guests are there.
 * A check that cannot run on this machine (no such guest, one CPU) is skipped by name and
 * counted: a skipped check is no passed one.
 */
#ifndef FRAMESHIFT_TESTS_CONFORM_H
#define FRAMESHIFT_TESTS_CONFORM_H

#include "backend.h"
#include "range.h"

struct conform {
    struct hv_backend *be;
    const struct hv_backend_ops *ops;
    const char *pv_name, *hap_name;     /* guests to test with; NULL: none */
    const char *coop_name;              /* one that publishes abi.h; NULL: none */
    const char *only;                   /* run checks whose name begins so; NULL: all that are not heavy */
    const char *work_dir;               /* for saved guests */
    struct hv_domain pv, hap;           /* valid where the name is set; refreshed before each check */
    unsigned run, failed, skipped;
    bool check_failed, check_skipped;
    struct fs_error err;
};

typedef void (*conform_fn)(struct conform *c);
struct conform_check {
    const char *name;
    conform_fn fn;
    bool needs_pv, needs_hap;
    bool heavy;                         /* only when asked for by name: it destroys or replaces a guest */
};
extern const struct conform_check conform_host_checks[], conform_pv_checks[], conform_hap_checks[], conform_offline_checks[];

/* Runs everything; the number of failed checks. */
unsigned conform_run(struct conform *c);

/* A failed expectation: says where and what, and ends nothing by itself. */
FS_PRINTF(4, 5) void conform_fail(struct conform *c, const char *file, int line, const char *fmt, ...);
FS_PRINTF(2, 3) void conform_skip(struct conform *c, const char *fmt, ...);
FS_PRINTF(2, 3) void conform_note(struct conform *c, const char *fmt, ...);

/* Both end the check (return) when they fail. */
#define EXPECT(c, e, ...)                                                       \
    do {                                                                        \
        if (!(e)) {                                                             \
            conform_fail((c), __FILE__, __LINE__, #e " -- " __VA_ARGS__);       \
            return;                                                             \
        }                                                                       \
    } while (0)
#define EXPECT_OK(c, call)                                                      \
    do {                                                                        \
        fs_status_t expect_s_ = (call);                                         \
        if (expect_s_ != FS_OK) {                                               \
            conform_fail((c), __FILE__, __LINE__, "%s: %s: %s", #call, fs_status_name(expect_s_), (c)->err.text); \
            return;                                                             \
        }                                                                       \
    } while (0)
/* The same inside a check that must clean up: notes the failure, goes to out. */
#define WANT(c, e, ...)                                                         \
    do {                                                                        \
        if (!(e)) {                                                             \
            conform_fail((c), __FILE__, __LINE__, #e " -- " __VA_ARGS__);       \
            goto out;                                                           \
        }                                                                       \
    } while (0)
#define WANT_OK(c, call)                                                        \
    do {                                                                        \
        fs_status_t expect_s_ = (call);                                         \
        if (expect_s_ != FS_OK) {                                               \
            conform_fail((c), __FILE__, __LINE__, "%s: %s: %s", #call, fs_status_name(expect_s_), (c)->err.text); \
            goto out;                                                           \
        }                                                                       \
    } while (0)

/* ---- helpers over ops ---- */
/* Every RAM frame of the machine, described; *out malloc'd with one entry per frame of [0, max_mfn). NULL on failure (noted). */
struct hv_frame *conform_all_frames(struct conform *c, uint64_t *max_mfn);
/* Frames of one domain, sorted; malloc'd. NULL on failure (noted). */
mfn_t *conform_frames_of(struct conform *c, uint16_t domid, size_t *count);
/* An aligned run of unowned frames of that length; none: start == end. */
struct mfn_range conform_unowned_run(struct conform *c, uint64_t pages, uint64_t align);
/* A node with at least that many free pages; UINT32_MAX: none. */
uint32_t conform_node_with(struct conform *c, uint64_t pages);
uint64_t conform_free_pages(struct conform *c);
bool conform_refresh(struct conform *c, uint16_t domid, struct hv_domain *out);

#endif
