/*
 * journal_place.c - a place of its own for each test of the journal.
 *
 * Owns: journal_place, and the folder that it names.
 */
#include "journal_place.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

struct journal_place journal_place;

int journal_place_make(void **state)
{
    struct journal_place *p = &journal_place;

    (void)state;
    snprintf(p->base, sizeof(p->base), "/tmp/fs-journal-XXXXXX");
    if (!mkdtemp(p->base)) {
        return -1;
    }
    return snprintf(p->dir, sizeof(p->dir), "%s/state", p->base) < (int)sizeof(p->dir) &&
           snprintf(p->file, sizeof(p->file), "%s/journal", p->dir) < (int)sizeof(p->file) ? 0 : -1;
}

int journal_place_remove(void **state)
{
    char command[192];

    (void)state;
    snprintf(command, sizeof(command), "chmod -R u+rwx %s && rm -rf %s", journal_place.base, journal_place.base);
    return system(command);
}

void write_file(const char *path, const void *data, size_t bytes)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, bytes), (ssize_t)bytes);
    close(fd);
}

int run_child(int (*fn)(void *), void *arg)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        _exit(fn(arg));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}
