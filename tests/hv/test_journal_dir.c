/*
 * test_journal_dir.c - where the journal lies: directories that are not ours, links, strangers, parents that are missing.
 *
 * Nothing is opened, made or followed that somebody else could have put there; the words name the path and what is wrong with it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "journal.h"
#include "journal_place.h"

static const char *const base = journal_place.base, *const dir = journal_place.dir, *const file = journal_place.file;

static int open_as_nobody(void *arg)
{
    struct fs_error err = { "" };
    struct journal *j;

    if (!geteuid() && setuid(65534)) {
        return 98;
    }
    fs_status_t s = journal_open(dir, false, &j, &err);
    if (s != *(fs_status_t *)arg || !*err.text || !strstr(err.text, dir)) {
        return 1;
    }
    return 0;
}

static void read_only_directory(void **state)
{
    fs_status_t want = FS_NO_PERMISSION;

    (void)state;
    assert_int_equal(chmod(base, 0755), 0);
    assert_int_equal(mkdir(dir, 0500), 0);
    if (!geteuid()) {
        assert_int_equal(chown(dir, 65534, 65534), 0);
    }
    assert_int_equal(run_child(open_as_nobody, &want), 0);      /* exists, the lock cannot be made */
    assert_int_equal(rmdir(dir), 0);
    if (!geteuid()) {                                           /* cannot be made at all */
        assert_int_equal(run_child(open_as_nobody, &want), 0);
    }
}

static void refuse_open(const char *path, fs_status_t want, const char *words)
{
    struct fs_error err = { "" };
    struct journal *j;
    fs_status_t s = journal_open(path, false, &j, &err);

    if (s != want || !strstr(err.text, words)) {
        fail_msg("%s: %s \"%s\", wanted %s \"%s\"", path, fs_status_name(s), err.text, fs_status_name(want), words);
    }
}

static void strangers_and_links(void **state)
{
    struct journal *j;
    char other[128], target[192], lock[192];

    (void)state;
    snprintf(other, sizeof(other), "%s/other", base);
    snprintf(target, sizeof(target), "%s/target", other);
    snprintf(lock, sizeof(lock), "%s/lock", dir);
    refuse_open("", FS_NOT_FOUND, "empty");
    assert_int_equal(mkdir(other, 0700), 0);
    assert_int_equal(symlink(other, dir), 0);
    refuse_open(dir, FS_NO_PERMISSION, "symbolic link");
    assert_int_equal(unlink(dir), 0);
    write_file(dir, "x", 1);
    refuse_open(dir, FS_IO, "cannot open");                     /* a file where the directory should be */
    assert_int_equal(unlink(dir), 0);

    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(chmod(dir, 0770), 0);
    refuse_open(dir, FS_NO_PERMISSION, "mode 0770");
    assert_int_equal(chmod(dir, 0755), 0);                      /* readable is no danger */
    assert_int_equal(journal_open(dir, false, &j, NULL), FS_OK);
    journal_close(j);
    if (!geteuid()) {
        assert_int_equal(chown(dir, 65534, 65534), 0);
        refuse_open(dir, FS_NO_PERMISSION, "user 65534");
        assert_int_equal(chown(dir, 0, 0), 0);
    }

    write_file(target, "keep", 4);
    assert_int_equal(symlink(target, file), 0);
    refuse_open(dir, FS_NO_PERMISSION, "symbolic link");
    assert_true(journal_pending(dir));
    assert_int_equal(unlink(file), 0);
    assert_int_equal(link(target, file), 0);
    refuse_open(dir, FS_NO_PERMISSION, "second name");
    assert_int_equal(unlink(file), 0);
    assert_int_equal(mkfifo(file, 0600), 0);
    refuse_open(dir, FS_NO_PERMISSION, "regular file");
    assert_int_equal(unlink(file), 0);
    assert_int_equal(unlink(lock), 0);
    assert_int_equal(symlink(target, lock), 0);
    refuse_open(dir, FS_NO_PERMISSION, "symbolic link");
    assert_int_equal(unlink(lock), 0);
    assert_int_equal(journal_open(dir, false, &j, NULL), FS_OK);
    journal_close(j);
}

static void parents_are_made(void **state)
{
    struct journal *j;
    struct stat st;
    char deep[192];

    (void)state;
    snprintf(deep, sizeof(deep), "%s/a/b//state/", base);
    assert_int_equal(journal_open(deep, false, &j, NULL), FS_OK);
    assert_int_equal(journal_append(j, JR_BEGIN, "begin", 5, NULL), FS_OK);
    journal_close(j);
    assert_true(journal_pending(deep));
    assert_int_equal(stat(deep, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    snprintf(deep, sizeof(deep), "%s/a/b/state/journal", base);
    assert_int_equal(access(deep, F_OK), 0);
    assert_false(journal_pending("/nonexistent/state"));
}

#define T(f) cmocka_unit_test_setup_teardown(f, journal_place_make, journal_place_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(read_only_directory), T(strangers_and_links), T(parents_are_made),
    };
    umask(0022);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
