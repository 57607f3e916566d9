/*
 * state_dir.h - the directory where one frameshift at a time keeps its state.
 *
 * Owns: creation and checks of the directory, and the lock in it.
 */
#ifndef FRAMESHIFT_HV_STATE_DIR_H
#define FRAMESHIFT_HV_STATE_DIR_H

#include <sys/types.h>

#include "frameshift/status.h"

#define STATE_LOCK_NAME "lock"

/* Opens the directory, created 0700 with its parents where missing.
 * post: *fd is a directory that only we can write to.  FS_NO_PERMISSION names what is wrong with it, FS_IO the call. */
fs_status_t state_dir_open(const char *path, int *fd, struct fs_error *err) FS_MUST_CHECK;
/* Takes the lock, our pid inside.  FS_BUSY names the pid that holds it.  Closing *lock_fd gives it back. */
fs_status_t state_dir_lock(int dir_fd, const char *path, int *lock_fd, struct fs_error *err) FS_MUST_CHECK;
/* For the process that took it only.  -1 is accepted. */
void state_dir_unlock(int lock_fd);
/* A regular file of the directory, ours, with one name; flags as for open(2).  *fd is -1 with FS_NOT_FOUND where it is missing. */
fs_status_t state_dir_file(int dir_fd, const char *path, const char *name, int flags, int *fd, struct fs_error *err) FS_MUST_CHECK;
/* Makes new and removed names durable; -1 and errno where that failed. */
int state_dir_sync(int dir_fd);
/* The status of an errno, for words of the caller's. */
fs_status_t state_dir_errno(int e);

#endif
