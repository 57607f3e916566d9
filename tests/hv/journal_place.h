/*
 * journal_place.h - a place of its own for each test of the journal, and what those tests do with files and children.
 */
#ifndef TESTS_HV_JOURNAL_PLACE_H
#define TESTS_HV_JOURNAL_PLACE_H

#include <stddef.h>

/* base: a new folder; dir: the state directory in it, not made yet; file: the journal. Valid between setup and teardown. */
struct journal_place { char base[64], dir[128], file[160]; };
extern struct journal_place journal_place;

/* For cmocka_unit_test_setup_teardown(). */
int journal_place_make(void **state);
int journal_place_remove(void **state);

void write_file(const char *path, const void *data, size_t bytes);
/* fn in a child; it answers through its exit status, never through the test framework. The status, as waitpid() gives it. */
int run_child(int (*fn)(void *), void *arg);

#endif
