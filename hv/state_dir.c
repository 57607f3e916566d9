/*
 * state_dir.c - the directory where one frameshift at a time keeps its state.
 *
 * Owns: STATE_DIR itself (0700) and STATE_DIR/lock.
 * Invariants:
 *  I1 nobody but our own user can write to the directory or to a file of it: it
 *     is ours, not writable by group or others, and reached by no symbolic link
 *     in its last component; files are regular, ours, and have one name;
 *  I2 the lock is an flock() on an open file: it goes with its holder however
 *     the holder ends, it also keeps out a second open in the same process, and
 *     the file is never removed (a removed lock file can be held twice);
 *  I3 every descriptor is close-on-exec, so that a toolstack command that we
 *     start and that outlives us does not keep the lock.
 * Lock order: this lock is taken before anything is asked of the machine.
 * Why: the tool runs as root and acts on what it reads here after a crash; a
 * journal that somebody else could write would be a way to have frames of any
 * guest rewritten.
 */
#include "state_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

fs_status_t state_dir_errno(int e)
{
    switch (e) {
    case EACCES:
    case EPERM:
        return FS_NO_PERMISSION;
    case ENOMEM:
        return FS_NO_MEMORY;
    default:
        return FS_IO;
    }
}

int state_dir_sync(int dir_fd)
{
    /* EINVAL: a file system without such a thing; it keeps names in its own order. */
    return fsync(dir_fd) && errno != EINVAL ? -1 : 0;
}

/* The entry of a new directory is durable once its parent is synced. */
static int sync_parent(const char *path)
{
    char *copy = strdup(path);
    if (!copy) {
        return -1;
    }
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/') {
        copy[--n] = '\0';
    }
    char *slash = strrchr(copy, '/');
    const char *parent = ".";
    if (slash) {
        slash[slash == copy] = '\0';
        parent = copy;
    }
    int fd = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    free(copy);
    if (fd < 0) {
        return -1;
    }
    int rc = state_dir_sync(fd);
    int saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

/* mkdir -p: parents as anybody would make them, the last one private. */
static fs_status_t make_path(const char *path, struct fs_error *err)
{
    char *copy = strdup(path);
    fs_status_t s = FS_OK;

    if (!copy) {
        return fs_fail(err, FS_NO_MEMORY, "no memory for the path %s", path);
    }
    size_t n = strlen(copy);
    while (n > 1 && copy[n - 1] == '/') {
        copy[--n] = '\0';
    }
    for (size_t i = 1; i <= n && !s; i++) {
        if (copy[i] != '/' && copy[i] != '\0') {
            continue;
        }
        copy[i] = '\0';
        if (!mkdir(copy, i < n ? 0755 : 0700)) {
            if (sync_parent(copy)) {
                s = fs_fail(err, state_dir_errno(errno), "cannot sync the parent of %s: %s", copy, strerror(errno));
            }
        } else if (errno != EEXIST) {
            s = fs_fail(err, state_dir_errno(errno), "cannot create the state directory %s: %s", copy, strerror(errno));
        }
        copy[i] = i < n ? '/' : '\0';
    }
    free(copy);
    return s;
}

fs_status_t state_dir_open(const char *path, int *fd, struct fs_error *err)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    struct stat st;

    *fd = -1;
    if (!*path) {
        return fs_fail(err, FS_NOT_FOUND, "the state directory's name is empty");
    }
    int d = open(path, flags);
    if (d < 0 && errno == ENOENT) {
        fs_status_t s = make_path(path, err);
        if (s) {
            return s;
        }
        d = open(path, flags);
    }
    if (d < 0) {
        int e = errno;

        if (!lstat(path, &st) && S_ISLNK(st.st_mode)) {
            return fs_fail(err, FS_NO_PERMISSION, "the state directory %s is a symbolic link: name the directory itself", path);
        }
        return fs_fail(err, state_dir_errno(e), "cannot open the state directory %s: %s", path, strerror(e));
    }
    if (fstat(d, &st)) {
        int e = errno;

        close(d);
        return fs_fail(err, state_dir_errno(e), "cannot stat the state directory %s: %s", path, strerror(e));
    }
    if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH))) {
        close(d);
        return fs_fail(err, FS_NO_PERMISSION,
                       "the state directory %s belongs to user %u and has mode %04o: others could forge the journal in it; "
                       "make it yours with mode 0700, or name another",
                       path, (unsigned)st.st_uid, (unsigned)(st.st_mode & 07777));
    }
    *fd = d;
    return FS_OK;
}

fs_status_t state_dir_file(int dir_fd, const char *path, const char *name, int flags, int *fd, struct fs_error *err)
{
    struct stat st;

    /* O_NONBLOCK: a FIFO in the place of the file must not hang us before it is refused. */
    *fd = openat(dir_fd, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    if (*fd < 0) {
        int e = errno;

        if (e == ENOENT) {
            return fs_fail(err, FS_NOT_FOUND, "%s/%s does not exist", path, name);
        }
        if (e == ELOOP) {
            return fs_fail(err, FS_NO_PERMISSION, "%s/%s is a symbolic link: not ours; remove it", path, name);
        }
        return fs_fail(err, state_dir_errno(e), "cannot open %s/%s: %s", path, name, strerror(e));
    }
    int rc = fstat(*fd, &st);
    if (rc || !S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink != 1 || (st.st_mode & (S_IWGRP | S_IWOTH))) {
        close(*fd);
        *fd = -1;
        return fs_fail(err, FS_NO_PERMISSION, "%s/%s is not a regular file of ours that only we can write to (or has a second name)",
                       path, name);
    }
    return FS_OK;
}

/* Who holds the lock, by what he wrote into it; 0 if he has not written yet. */
static long lock_holder(int fd)
{
    char text[32] = "";
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);

    if (n <= 0) {
        return 0;
    }
    return strtol(text, NULL, 10);
}

fs_status_t state_dir_lock(int dir_fd, const char *path, int *lock_fd, struct fs_error *err)
{
    char text[32];
    int fd;
    fs_status_t s = state_dir_file(dir_fd, path, STATE_LOCK_NAME, O_RDWR | O_CREAT, &fd, err);

    *lock_fd = -1;
    if (s) {
        return s;
    }
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        int e = errno;
        long pid = lock_holder(fd);

        close(fd);
        if (e != EWOULDBLOCK) {
            return fs_fail(err, state_dir_errno(e), "cannot lock %s/%s: %s", path, STATE_LOCK_NAME, strerror(e));
        }
        if (pid > 0) {
            return fs_fail(err, FS_BUSY, "another frameshift runs (pid %ld holds %s/%s): wait for it to end", pid, path,
                           STATE_LOCK_NAME);
        }
        return fs_fail(err, FS_BUSY, "another frameshift runs (it holds %s/%s): wait for it to end", path, STATE_LOCK_NAME);
    }
    int n = snprintf(text, sizeof(text), "%ld\n", (long)getpid());
    /* The pid is for people: a full disk must not keep recovery from running. */
    if (ftruncate(fd, 0) == 0 && pwrite(fd, text, (size_t)n, 0) != n && ftruncate(fd, 0)) {
        s = fs_fail(err, FS_IO, "cannot write %s/%s: %s", path, STATE_LOCK_NAME, strerror(errno));
        close(fd);
        return s;
    }
    *lock_fd = fd;
    return FS_OK;
}

void state_dir_unlock(int lock_fd)
{
    if (lock_fd < 0) {
        return;
    }
    /* Emptied first: whoever finds it taken next must not read our pid. */
    if (ftruncate(lock_fd, 0)) {
        /* A stale pid in a free lock misleads nobody. */
    }
    (void)flock(lock_fd, LOCK_UN);      /* also for a copy that a forked child holds */
    close(lock_fd);
}
