/*
 * evict.c - saving a guest to a file and restoring it elsewhere, by the toolstack.
 *
 * Owns: save(), restore(), running xl.
 * Invariants:
 *  I1  xl is run by its argument vector, never through a shell: a guest's name or a path is
 *      nobody's command.
 *  I2  a failure comes back in xl's own last words.
 *  I3  restore() names exactly one new domain: one that was not there before and is
 *      there after; the caller compares its UUID with the saved one.
 *  I4  no frame of a domain that goes away is marked while it goes: Xen counts such a page as waiting for
 *      scrubbing for ever (scrub.c).  Its marks are taken off before the save, and put on again when the
 *      domain is gone and its memory scrubbed, or when the save failed.
 * Why xl and not libxenlight: devices, their backends' scripts, bootloader and the
 * kept configuration are the toolstack's, and the user's xl is the one that knows his setup.
 * Cost: the guest's memory written and read once; scrubbing of the frames that were marked.
 */
#include "cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define GONE_NS 30000000000ull          /* giving back a large guest takes seconds */

/* The last words of a program, without its progress lines' line feeds. */
static void last_words(int fd, char *out, size_t bytes)
{
    off_t size = lseek(fd, 0, SEEK_END);
    off_t start = size > (off_t)bytes - 1 ? size - (off_t)bytes + 1 : 0;
    ssize_t n = pread(fd, out, bytes - 1, start);
    n = n < 0 ? 0 : n;
    out[n] = '\0';
    for (ssize_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)out[i];
        if (c < 0x20 || c == 0x7f) {
            out[i] = ' ';
        }
    }
}

static fs_status_t run_xl(char *const argv[], const char *what, struct fs_error *err)
{
    int log = memfd_create("xl", MFD_CLOEXEC);
    if (log < 0) {
        return xen_fail(err, errno, "cannot keep the output of xl");
    }
    fs_status_t s = FS_OK;
    pid_t pid = fork();
    if (pid < 0) {
        s = xen_fail(err, errno, "cannot start xl");
        goto out;
    }
    if (pid == 0) {
        int null = open("/dev/null", O_RDONLY);
        if (null >= 0) {
            dup2(null, 0);
        }
        dup2(log, 1);
        dup2(log, 2);
        const char *xl = getenv("XL");
        execvp(xl && *xl ? xl : "xl", argv);
        dprintf(2, "cannot run xl: %s", strerror(errno));
        _exit(127);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            s = xen_fail(err, errno, "lost sight of xl");
            goto out;
        }
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        char words[300];
        last_words(log, words, sizeof words);
        s = fs_fail(err, FS_REFUSED, "%s failed (%s %d): %s", what, WIFEXITED(status) ? "exit" : "signal",
                    WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status), words);
    }
out:
    close(log);
    return s;
}

/* ---- I4 ---- */

#define LOOK_STEP 4096u

/* Runs of pending frames of that domain. */
static fs_status_t pending_of(struct hv_backend *be, uint16_t domid, struct mfn_range_set *out, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    struct hv_frame *f = calloc(LOOK_STEP, sizeof *f);
    uint8_t *flags = calloc(LOOK_STEP, 1);
    fs_status_t s = f && flags ? xen_ram_load(x, err) : fs_fail(err, FS_NO_MEMORY, "no memory to look for marked frames");
    for (uint64_t m = 0; m < x->max_mfn && s == FS_OK; m += LOOK_STEP) {
        struct mfn_range r = { mfn_make(m), mfn_make(m + LOOK_STEP < x->max_mfn ? m + LOOK_STEP : x->max_mfn) };
        bool any = false;
        s = xen_query_offline(be, r, flags, err);
        for (uint64_t i = 0; i < mfn_range_pages(r) && s == FS_OK; i++) {
            any = any || (flags[i] & 2u);
        }
        if (s == FS_OK && any) {
            s = xen_frames(be, r, f, err);
        }
        for (uint64_t i = 0; i < mfn_range_pages(r) && s == FS_OK && any; i++) {
            if (f[i].owner == HV_FRAME_DOMAIN && f[i].domid == domid && (f[i].flags & HV_FRAME_PENDING)) {
                s = mfn_set_add(out, (struct mfn_range){ mfn_make(m + i), mfn_make(m + i + 1) });
            }
        }
    }
    free(f);
    free(flags);
    return s;
}

static fs_status_t take_marks_off(struct hv_backend *be, const struct mfn_range_set *set, struct fs_error *err)
{
    fs_status_t s = FS_OK;
    for (size_t i = 0; i < set->count && s == FS_OK; i++) {
        uint64_t pages;
        s = xen_mark_online(be, set->ranges[i], &pages, err);
    }
    return s;
}

/* Top down, as the frames are free now; or owned still, where the save failed. */
static fs_status_t put_marks_on(struct hv_backend *be, const struct mfn_range_set *set, struct fs_error *err)
{
    fs_status_t s = FS_OK;
    for (size_t i = set->count; i-- > 0 && s == FS_OK;) {
        uint64_t pages = mfn_range_pages(set->ranges[i]);
        struct hv_mark_result *r = calloc(pages, sizeof *r);
        s = r ? xen_mark_offline(be, set->ranges[i], r, err) : fs_fail(err, FS_NO_MEMORY, "no memory to mark %llu frames", (unsigned long long)pages);
        free(r);
    }
    return s;
}

static void wait_until_gone(struct xen_be *x, uint16_t domid)
{
    xc_domaininfo_t info;
    uint64_t limit = xen_clock_ns(NULL) + GONE_NS;
    while (xen_domain_info(x, domid, &info) && xen_clock_ns(NULL) < limit) {
        nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
    }
}

fs_status_t xen_save(struct hv_backend *be, uint16_t domid, const char *path, struct fs_error *err)
{
    struct xen_be *x = xen_be(be);
    struct hv_domain dom;
    struct mfn_range_set marked = { 0 };
    char id[8], file[4096];
    snprintf(id, sizeof id, "%u", domid);
    if (snprintf(file, sizeof file, "%s", path) >= (int)sizeof file) {
        return fs_fail(err, FS_USAGE, "path too long");
    }
    fs_status_t s = xen_domain(be, domid, &dom, err);
    if (s == FS_OK) {
        s = pending_of(be, domid, &marked, err);
    }
    if (s == FS_OK) {
        s = take_marks_off(be, &marked, err);
    }
    if (s == FS_OK) {
        char *argv[] = { "xl", "save", id, file, NULL };
        xen_cpu_release(x);             /* xl would inherit the affinity */
        s = run_xl(argv, "xl save", err);
        if (s != FS_OK) {
            (void)unlink(path);         /* half a guest is no guest; the guest itself still runs */
        } else {
            wait_until_gone(x, domid);
            x->scrub_looked_ns = 0;
        }
    }
    struct fs_error second = { "" };
    fs_status_t again = put_marks_on(be, &marked, &second);
    mfn_set_free(&marked);
    if (s == FS_OK && again != FS_OK) {
        s = fs_fail(err, again, "the guest is saved, but its frames could not be marked again: %s", second.text);
    }
    return s;
}

static bool listed(const struct hv_domain *list, size_t count, const struct hv_domain *d)
{
    for (size_t i = 0; i < count; i++) {
        if (list[i].domid == d->domid) {
            return true;
        }
    }
    return false;
}

fs_status_t xen_restore(struct hv_backend *be, const char *path, uint16_t *new_domid, struct fs_error *err)
{
    struct hv_domain *before = NULL, *after = NULL;
    size_t before_count = 0, after_count = 0, found = 0;
    char file[4096];
    *new_domid = FS_DOMID_NONE;
    xen_cpu_release(xen_be(be));
    if (snprintf(file, sizeof file, "%s", path) >= (int)sizeof file) {
        return fs_fail(err, FS_USAGE, "path too long");
    }
    fs_status_t s = xen_domains(be, &before, &before_count, err);
    if (s != FS_OK) {
        return s;
    }
    char *argv[] = { "xl", "restore", file, NULL };
    s = run_xl(argv, "xl restore", err);
    if (s == FS_OK) {
        s = xen_domains(be, &after, &after_count, err);
    }
    for (size_t i = 0; i < after_count && s == FS_OK; i++) {
        if (!listed(before, before_count, &after[i]) && !after[i].dying) {
            *new_domid = after[i].domid;
            found++;
        }
    }
    if (s == FS_OK && found != 1) {                     /* I3 */
        *new_domid = FS_DOMID_NONE;
        s = fs_fail(err, FS_NOT_FOUND, "xl restore succeeded, but %zu new domains are there: which one is meant cannot be told", found);
    }
    free(before);
    free(after);
    return s;
}
