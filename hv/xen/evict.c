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
 * Why xl and not libxenlight: devices, their backends' scripts, bootloader and the
 * kept configuration are the toolstack's, and the user's xl is the one that knows his setup.
 * Cost: the guest's memory written and read once.
 */
#include "cpu.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

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

fs_status_t xen_save(struct hv_backend *be, uint16_t domid, const char *path, struct fs_error *err)
{
    struct hv_domain dom;
    xen_cpu_release(xen_be(be));        /* xl would inherit the affinity */
    fs_status_t s = xen_domain(be, domid, &dom, err);
    if (s != FS_OK) {
        return s;
    }
    char id[8], file[4096];
    snprintf(id, sizeof id, "%u", domid);
    if (snprintf(file, sizeof file, "%s", path) >= (int)sizeof file) {
        return fs_fail(err, FS_USAGE, "path too long");
    }
    char *argv[] = { "xl", "save", id, file, NULL };
    s = run_xl(argv, "xl save", err);
    if (s != FS_OK) {
        (void)unlink(path);             /* half a guest is no guest; the guest itself still runs */
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
