/*
 * test_journal.c - the journal against every cut, every flipped bit, kills and full disks; strangers: test_journal_dir.c.
 *
 * Files are damaged byte by byte on disk and opened as recovery would; kills are
 * real (SIGKILL in a forked child).  Children answer through their exit status,
 * never through the test framework.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#include "journal.h"
#include "journal_place.h"

#define FILE_HEADER   16u
#define RECORD_HEADER 32u

static const char *const dir = journal_place.dir, *const file = journal_place.file;

/* ---- the file's bytes ------------------------------------------------------- */

static uint8_t *read_file(const char *path, size_t *bytes)
{
    FILE *f = fopen(path, "rb");
    struct stat st;

    if (!f || fstat(fileno(f), &st)) {
        fail_msg("cannot read %s", path);
        return NULL;
    }
    uint8_t *p = malloc((size_t)st.st_size + 1);
    assert_non_null(p);
    *bytes = fread(p, 1, (size_t)st.st_size, f);
    assert_int_equal(*bytes, st.st_size);
    fclose(f);
    return p;
}

static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}

/* Makes the checksums of a record right again after a change of its header. */
static void reseal(uint8_t *record)
{
    uint64_t bytes;

    memcpy(&bytes, record + 16, 8);
    put32(record + 24, (uint32_t)crc32(0, record, 24));
    uint32_t crc = (uint32_t)crc32(0, record, 28);
    put32(record + 28, bytes < 4096 ? (uint32_t)crc32(crc, record + 32, (uInt)bytes) : crc);
}

/* ---- a journal of known content --------------------------------------------- */

static const size_t sizes[] = { 13, 0, 8, 24, 1 };
static const enum journal_type types[] = { JR_BEGIN, JR_MARK_INTENT, JR_PV_RESERVED, JR_HAP_DIRTY_LOG, JR_END };
#define RECORDS (sizeof(sizes) / sizeof(sizes[0]))

static uint8_t content(size_t record, size_t at)
{
    return (uint8_t)(record * 101 + at * 7 + 3);
}

static void fill(uint8_t *p, size_t record, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        p[i] = content(record, i);
    }
}

static void append_known(struct journal *j, size_t record)
{
    uint8_t data[64];

    fill(data, record, sizes[record]);
    assert_int_equal(journal_append(j, types[record], data, sizes[record], NULL), FS_OK);
}

static void check_known(const struct journal *j, size_t count)
{
    assert_int_equal(journal_count(j), count);
    for (size_t i = 0; i < count; i++) {
        const uint8_t *data;
        size_t bytes;

        assert_int_equal(journal_record(j, i, (const void **)&data, &bytes), types[i]);
        assert_int_equal(bytes, sizes[i]);
        assert_int_equal((uintptr_t)data % 8, 0);
        for (size_t k = 0; k < bytes; k++) {
            assert_int_equal(data[k], content(i, k));
        }
    }
}

static size_t record_start(size_t record)
{
    size_t at = FILE_HEADER;

    for (size_t i = 0; i < record; i++) {
        at += RECORD_HEADER + (sizes[i] + 7) / 8 * 8;
    }
    return at;
}

static void make_known(void)
{
    struct journal *j;

    assert_int_equal(journal_open(dir, false, &j, NULL), FS_OK);
    for (size_t i = 0; i < RECORDS; i++) {
        append_known(j, i);
    }
    journal_close(j);
}

/* ---- tests -------------------------------------------------------------------- */

static void round_trip(void **state)
{
    struct fs_error err;
    struct journal *j;
    struct stat st;

    (void)state;
    assert_false(journal_pending(dir));
    assert_int_equal(journal_open(dir, false, &j, &err), FS_OK);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_false(journal_pending(dir));         /* opened, nothing intended yet */
    assert_int_equal(access(file, F_OK), -1);
    for (size_t i = 0; i < RECORDS; i++) {
        append_known(j, i);
        check_known(j, i + 1);
        assert_true(journal_pending(dir));
    }
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(st.st_size, record_start(RECORDS));
    journal_close(j);

    assert_int_equal(journal_open(dir, false, &j, &err), FS_BUSY);
    assert_null(j);
    assert_non_null(strstr(err.text, "frameshift recover"));
    assert_non_null(strstr(err.text, "END"));
    assert_int_equal(journal_open(dir, true, &j, &err), FS_OK);
    check_known(j, RECORDS);
    assert_int_equal(journal_append(j, JR_SWEEP, "x", 1, &err), FS_OK);
    assert_int_equal(journal_count(j), RECORDS + 1);
    journal_close(j);
    assert_int_equal(journal_open(dir, true, &j, &err), FS_OK);
    assert_int_equal(journal_count(j), RECORDS + 1);
    assert_int_equal(journal_finish(j, &err), FS_OK);
    assert_false(journal_pending(dir));
    assert_int_equal(journal_count(j), 0);
    append_known(j, 0);                         /* the next one starts over */
    check_known(j, 1);
    journal_close(j);
    assert_int_equal(journal_open(dir, true, &j, &err), FS_OK);
    check_known(j, 1);
    assert_int_equal(journal_finish(j, &err), FS_OK);
    assert_int_equal(journal_finish(j, &err), FS_OK);
    journal_close(j);
    assert_int_equal(journal_open(dir, true, &j, &err), FS_OK);     /* nothing to recover */
    assert_int_equal(journal_count(j), 0);
    journal_close(j);
    assert_int_equal(journal_open(dir, false, &j, &err), FS_OK);
    journal_close(j);
    journal_close(NULL);
}

static void type_names(void **state)
{
    (void)state;
    assert_string_equal(journal_type_name(JR_PV_MOVES), "PV_MOVES");
    assert_string_equal(journal_type_name(22), "PV_MOVES");         /* the number is the file format */
    assert_string_equal(journal_type_name(63), "END");
    assert_string_equal(journal_type_name(0), "unknown");
    assert_string_equal(journal_type_name(~0u), "unknown");
}

static void every_truncation_is_cut(void **state)
{
    size_t bytes, count = 0;

    (void)state;
    make_known();
    uint8_t *whole = read_file(file, &bytes);
    assert_int_equal(bytes, record_start(RECORDS));
    for (size_t length = 0; length <= bytes; length++) {
        struct fs_error err = { "" };
        struct journal *j;
        struct stat st;

        while (count < RECORDS && record_start(count + 1) <= length) {
            count++;
        }
        write_file(file, whole, length);
        assert_int_equal(journal_pending(dir), count > 0);
        fs_status_t s = journal_open(dir, true, &j, &err);
        if (s) {
            fail_msg("length %zu: %s", length, err.text);
        }
        check_known(j, count);
        if (!count) {
            assert_int_equal(access(file, F_OK), -1);
        } else {
            assert_int_equal(stat(file, &st), 0);
            assert_int_equal(st.st_size, record_start(count));
        }
        if (count < RECORDS) {                  /* and it goes on from there */
            append_known(j, count);
            journal_close(j);
            assert_int_equal(journal_open(dir, true, &j, &err), FS_OK);
            check_known(j, count + 1);
        }
        journal_close(j);
    }
    free(whole);
}

static void expect_damage(size_t offset, const char *what, size_t where)
{
    struct fs_error err = { "" };
    struct journal *j;
    char want[64];
    fs_status_t s = journal_open(dir, true, &j, &err);

    snprintf(want, sizeof(want), "damaged at offset %zu ", offset);
    if (s != FS_BAD_INPUT || !strstr(err.text, want)) {
        fail_msg("%s %zu: status %s, \"%s\", wanted \"%s\"", what, where, fs_status_name(s), err.text, want);
    }
    if (!journal_pending(dir)) {
        fail_msg("%s %zu: not pending", what, where);
    }
    if (journal_open(dir, false, &j, &err) != FS_BUSY) {
        fail_msg("%s %zu: a new run would start", what, where);
    }
}

static void every_flipped_bit_is_found(void **state)
{
    size_t bytes, after;

    (void)state;
    make_known();
    uint8_t *p = read_file(file, &bytes);
    for (size_t bit = 0; bit < bytes * 8; bit++) {
        size_t record = 0, at = bit / 8;

        while (at >= FILE_HEADER && record_start(record + 1) <= at) {
            record++;
        }
        p[at] ^= (uint8_t)(1u << bit % 8);
        write_file(file, p, bytes);
        expect_damage(at < FILE_HEADER ? 0 : record_start(record), "bit", bit);
        uint8_t *q = read_file(file, &after);   /* refused means untouched */
        assert_int_equal(after, bytes);
        assert_memory_equal(p, q, bytes);
        free(q);
        p[at] ^= (uint8_t)(1u << bit % 8);
    }
    free(p);
}

static void zeroes_are_a_torn_tail(void **state)
{
    struct journal *j;
    size_t bytes;

    (void)state;
    make_known();
    uint8_t *p = read_file(file, &bytes);
    p = realloc(p, bytes + 200);
    assert_non_null(p);
    memset(p + bytes, 0, 200);
    for (size_t more = 1; more < 100; more++) {
        write_file(file, p, bytes + more);
        assert_int_equal(journal_open(dir, true, &j, NULL), FS_OK);
        check_known(j, RECORDS);
        journal_close(j);
    }
    p[bytes + 150] = 1;                         /* zeroes, then something: not a tail */
    write_file(file, p, bytes + 200);
    expect_damage(bytes, "zeroes", 0);
    memset(p, 0, FILE_HEADER);                  /* a zeroed start before records */
    write_file(file, p, bytes);
    expect_damage(0, "zeroed start", 0);
    memset(p, 0, bytes);
    for (size_t length = 1; length < bytes; length += 17) {
        write_file(file, p, length);
        assert_false(journal_pending(dir));
        assert_int_equal(journal_open(dir, false, &j, NULL), FS_OK);
        journal_close(j);
    }
    free(p);
}

static void other_versions_are_refused(void **state)
{
    struct fs_error err;
    struct journal *j;
    size_t bytes;

    (void)state;
    make_known();
    uint8_t *p = read_file(file, &bytes);
    put32(p + 8, 7);
    put32(p + 12, (uint32_t)crc32(0, p, 12));
    write_file(file, p, bytes);
    assert_true(journal_pending(dir));
    assert_int_equal(journal_open(dir, true, &j, &err), FS_BAD_INPUT);
    assert_non_null(strstr(err.text, "format 7"));
    assert_non_null(strstr(err.text, "version that wrote it"));
    assert_int_equal(journal_open(dir, false, &j, &err), FS_BUSY);
    free(p);

    assert_int_equal(unlink(file), 0);
    make_known();
    p = read_file(file, &bytes);
    put32(p + record_start(2) + 4, 200);        /* a type of the future */
    reseal(p + record_start(2));
    write_file(file, p, bytes);
    assert_int_equal(journal_open(dir, true, &j, &err), FS_BAD_INPUT);
    assert_non_null(strstr(err.text, "type 200"));
    free(p);
}

static void sealed_nonsense_is_refused(void **state)
{
    size_t bytes, start = record_start(1), end = record_start(2);
    uint64_t huge = JOURNAL_RECORD_MAX_BYTES + 1;

    (void)state;
    make_known();
    uint8_t *p = read_file(file, &bytes);
    uint8_t *q = malloc(bytes);
    assert_non_null(q);

    memcpy(q, p, start);                        /* a record taken out */
    memcpy(q + start, p + end, bytes - end);
    write_file(file, q, bytes - (end - start));
    expect_damage(start, "gap", 0);
    memcpy(q, p, bytes);                        /* a length beyond the limit */
    memcpy(q + start + 16, &huge, 8);
    reseal(q + start);
    write_file(file, q, bytes);
    expect_damage(start, "length", 0);
    memcpy(q, p, bytes);                        /* lengths whose sum with the offset wraps */
    memset(q + start + 16, 0xff, 8);
    reseal(q + start);
    write_file(file, q, bytes);
    expect_damage(start, "length", 1);
    free(p);
    free(q);
}

static void big_records(void **state)
{
    const size_t big = 64u << 20;
    const uint8_t *data, *kept;
    struct journal *j;
    size_t bytes;

    (void)state;
    uint8_t *p = malloc(big);
    assert_non_null(p);
    for (size_t i = 0; i < big; i++) {
        p[i] = (uint8_t)(i ^ (i >> 9) ^ (i >> 17));
    }
    assert_int_equal(journal_open(dir, false, &j, NULL), FS_OK);
    append_known(j, 0);
    assert_int_equal(journal_record(j, 0, (const void **)&kept, &bytes), JR_BEGIN);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(journal_append(j, JR_PV_MOVES, p, big - (size_t)i, NULL), FS_OK);
        assert_int_equal(journal_record(j, (size_t)i + 1, (const void **)&data, &bytes), JR_PV_MOVES);
        assert_int_equal(bytes, big - (size_t)i);
        assert_int_equal(memcmp(data, p, bytes), 0);
    }
    for (size_t i = 0; i < sizes[0]; i++) {     /* valid until close, whatever came after it */
        assert_int_equal(kept[i], content(0, i));
    }
    journal_close(j);
    assert_int_equal(journal_open(dir, true, &j, NULL), FS_OK);
    assert_int_equal(journal_count(j), 4);
    for (size_t i = 1; i < 4; i++) {
        assert_int_equal(journal_record(j, i, (const void **)&data, &bytes), JR_PV_MOVES);
        assert_int_equal(bytes, big - i + 1);
        assert_int_equal(memcmp(data, p, bytes), 0);
    }
    assert_int_equal(journal_finish(j, NULL), FS_OK);
    journal_close(j);
    free(p);
}

/* ---- other processes ------------------------------------------------------------ */

static int append_five(void *arg)
{
    struct journal *j;
    uint8_t data[64];

    if (journal_open(dir, true, &j, NULL)) {
        return 1;
    }
    journal_crash_at(j, *(uint32_t *)arg);
    for (size_t i = journal_count(j); i < RECORDS; i++) {
        fill(data, i, sizes[i]);
        if (journal_append(j, types[i], data, sizes[i], NULL)) {
            return 2;
        }
    }
    return 0;
}

static void a_kill_at_each_record(void **state)
{
    struct journal *j;

    (void)state;
    for (uint32_t n = 0; n <= RECORDS + 1; n++) {
        int status = run_child(append_five, &n);

        if (n == 0 || n > RECORDS) {
            assert_true(WIFEXITED(status));
            assert_int_equal(WEXITSTATUS(status), 0);
        } else {
            assert_true(WIFSIGNALED(status));
            assert_int_equal(WTERMSIG(status), SIGKILL);
        }
        assert_true(journal_pending(dir));
        assert_int_equal(journal_open(dir, true, &j, NULL), FS_OK);     /* the lock went with it */
        check_known(j, n && n <= RECORDS ? n : RECORDS);
        assert_int_equal(journal_finish(j, NULL), FS_OK);
        journal_close(j);
    }
    /* Counted over what was found: recovery can be killed at its own records. */
    uint32_t n = 2;
    (void)run_child(append_five, &n);
    n = 4;
    assert_true(WIFSIGNALED(run_child(append_five, &n)));
    assert_int_equal(journal_open(dir, true, &j, NULL), FS_OK);
    check_known(j, 4);
    journal_close(j);
}

struct holder {
    pid_t pid, grandchild;
    int pipe[2];
};

/* A process that holds the journal until it is killed; with_exec: beside a program that it started and that outlives it. */
static void start_holder(struct holder *h, bool with_exec)
{
    assert_int_equal(pipe(h->pipe), 0);
    h->pid = fork();
    assert_true(h->pid >= 0);
    if (!h->pid) {
        struct journal *j;
        pid_t sleeper = 0;

        alarm(60);                              /* should the test fail before it kills us */
        if (journal_open(dir, false, &j, NULL)) {
            _exit(1);
        }
        if (with_exec) {
            sleeper = fork();
            if (!sleeper) {
                execlp("sleep", "sleep", "60", (char *)NULL);
                _exit(1);
            }
        }
        if (write(h->pipe[1], &sleeper, sizeof(sleeper)) != sizeof(sleeper)) {
            _exit(1);
        }
        pause();
        _exit(0);
    }
    assert_int_equal(read(h->pipe[0], &h->grandchild, sizeof(h->grandchild)), sizeof(h->grandchild));
    close(h->pipe[0]);
    close(h->pipe[1]);
}

static void two_tools_at_once(void **state)
{
    struct fs_error err;
    struct holder h;
    struct journal *j;
    char want[64];

    (void)state;
    for (int with_exec = 0; with_exec < 2; with_exec++) {
        start_holder(&h, with_exec);
        assert_int_equal(journal_open(dir, false, &j, &err), FS_BUSY);
        snprintf(want, sizeof(want), "pid %ld ", (long)h.pid);
        assert_non_null(strstr(err.text, want));
        assert_int_equal(journal_open(dir, true, &j, &err), FS_BUSY);
        assert_non_null(strstr(err.text, want));
        kill(h.pid, SIGKILL);
        assert_int_equal(waitpid(h.pid, NULL, 0), h.pid);
        if (with_exec) {
            usleep(200000);                     /* until the program has replaced its copy of us */
            assert_int_equal(kill(h.grandchild, 0), 0);
        }
        fs_status_t s = journal_open(dir, false, &j, &err);
        if (with_exec) {
            kill(h.grandchild, SIGKILL);
        }
        assert_int_equal(s, FS_OK);
        assert_int_equal(journal_open(dir, false, (struct journal *[]){ NULL }, &err), FS_BUSY);   /* this process, too */
        snprintf(want, sizeof(want), "pid %ld ", (long)getpid());
        assert_non_null(strstr(err.text, want));
        journal_close(j);
    }
}

static int use_parents(void *arg)
{
    struct journal *j = arg;

    if (journal_append(j, JR_END, NULL, 0, NULL) != FS_BUSY || journal_finish(j, NULL) != FS_BUSY) {
        return 1;
    }
    journal_close(j);
    return 0;
}

static void a_forked_child_cannot_write(void **state)
{
    struct fs_error err;
    struct journal *j, *second;
    char want[64];

    (void)state;
    assert_int_equal(journal_open(dir, false, &j, NULL), FS_OK);
    append_known(j, 0);
    int status = run_child(use_parents, j);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(journal_open(dir, false, &second, &err), FS_BUSY);     /* its close did not give our lock away */
    snprintf(want, sizeof(want), "pid %ld ", (long)getpid());
    assert_non_null(strstr(err.text, want));
    append_known(j, 1);
    check_known(j, 2);
    journal_close(j);
}

/* ---- a world that says no --------------------------------------------------------- */

static void limit_file_size(rlim_t bytes)
{
    struct rlimit l = { bytes, bytes };

    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &l)) {
        _exit(99);
    }
}

static int append_to_full_disk(void *arg)
{
    struct fs_error err = { "" };
    struct journal *j;
    uint8_t data[4096];
    struct stat st;

    (void)arg;
    if (journal_open(dir, false, &j, NULL)) {
        return 1;
    }
    fill(data, 0, sizes[0]);
    limit_file_size(RECORD_HEADER);             /* not even the first record fits: no file stays */
    if (journal_append(j, types[0], data, sizes[0], &err) != FS_IO || !strstr(err.text, "journal") || !access(file, F_OK) ||
        journal_pending(dir) || journal_count(j)) {
        return 2;
    }
    journal_close(j);
    return journal_open(dir, false, &j, NULL) ? 3 : (int)(stat(file, &st) == 0);
}

static int append_until_full(void *arg)
{
    struct fs_error err = { "" };
    struct journal *j;
    uint8_t data[4096] = { 0 };
    struct stat st;

    (void)arg;
    if (journal_open(dir, false, &j, NULL)) {
        return 1;
    }
    limit_file_size((rlim_t)record_start(3) + 20);
    for (size_t i = 0; i < 3; i++) {
        if (i == 1 || i == 2) {                 /* what does not fit leaves no trace ... */
            if (journal_append(j, JR_PV_MOVES, data, sizeof(data), &err) != FS_IO || !*err.text) {
                return 2;
            }
            if (journal_count(j) != i || stat(file, &st) || (size_t)st.st_size != record_start(i)) {
                return 3;
            }
        }
        fill(data, i, sizes[i]);                /* ... and what fits still goes in */
        if (journal_append(j, types[i], data, sizes[i], &err)) {
            return 4;
        }
        memset(data, 0, sizeof(data));
    }
    return 0;
}

static void full_disk(void **state)
{
    struct journal *j;

    (void)state;
    assert_int_equal(run_child(append_to_full_disk, NULL), 0);
    assert_int_equal(run_child(append_until_full, NULL), 0);
    assert_int_equal(journal_open(dir, true, &j, NULL), FS_OK);
    check_known(j, 3);
    journal_close(j);
}

#define T(f) cmocka_unit_test_setup_teardown(f, journal_place_make, journal_place_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(round_trip), T(type_names), T(every_truncation_is_cut), T(every_flipped_bit_is_found), T(zeroes_are_a_torn_tail),
        T(other_versions_are_refused), T(sealed_nonsense_is_refused), T(big_records), T(a_kill_at_each_record),
        T(two_tools_at_once), T(a_forked_child_cannot_write), T(full_disk),
    };
    umask(0022);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
