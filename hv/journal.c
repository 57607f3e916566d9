/*
 * journal.c - what was intended, on disk before it is done.
 *
 * Owns: STATE_DIR/journal.
 *   file   = header { magic "FSHIFTJ\n", format, crc32 of both }, then records
 *   record = header { magic, type, seq, bytes, header_crc, crc }, payload, zeroes up to 8 bytes
 *   header_crc covers the four members before it, crc the header up to itself and the payload (zlib's crc32).
 * Invariants:
 *  I1 an appended record is durable, and so is every one before it;
 *  I2 seq counts from 1 without a gap; records start at multiples of 8;
 *  I3 the file ends after the last whole record; a failed append is cut off
 *     again, and where that fails, or a sync fails, the journal takes no more;
 *  I4 the file exists only while something is unfinished: it is made by the
 *     first append and removed by journal_finish();
 *  I5 only the process that opened a journal may write to it.
 * Lock order: state_dir's lock is held from open to close.
 * Why two checksums: with one over everything, a flipped bit in `bytes` of a
 * record in the middle would look like a torn tail and take the records after it
 * along.  A write that a kill cut short leaves a first part; a host that lost
 * power may leave zeroes.  Nothing else is a torn tail.
 * Why records are mapped and not kept: the moves of a 64 GiB guest are 400 MB,
 * dom0 may have less; page cache can be reclaimed.
 * Why a stream is asked for twice: the checksum stands before the payload, and a header written last would leave, after a kill,
 * something that is no torn tail.
 * Cost: one write and one fdatasync an append (a write for each 64 KiB of a stream); open reads the file once.
 */
#include "journal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <zlib.h>

#include "frameshift/assert.h"
#include "state_dir.h"

#define JOURNAL_NAME    "journal"
#define FORMAT          1u
#define RECORD_MAGIC    0x4c4e524au             /* "JRNL" */
#define READ_BYTES      (1u << 20)
#define PIECE_BYTES     (64u << 10)             /* of a streamed record */
#define MAP_STEP_BYTES  (64ull << 20)
#define MAPPINGS_MAX    40                      /* each at least doubles the one before */

static const char file_magic[8] = "FSHIFTJ\n";

struct file_header {
    char magic[8];
    uint32_t format;
    uint32_t crc;
};

struct record_header {
    uint32_t magic, type;
    uint64_t seq, bytes;
    uint32_t header_crc, crc;
};
_Static_assert(sizeof(struct file_header) == 16, "file format");
_Static_assert(sizeof(struct record_header) == 32 && offsetof(struct record_header, header_crc) == 24, "file format");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the file is little endian, as Xen's only PV architecture");

struct record {
    uint64_t offset;                            /* of the payload */
    uint64_t bytes;
    enum journal_type type;
};

struct journal {
    char *path;                                 /* of the state directory, for words */
    pid_t pid;                                  /* I5 */
    int dir_fd, lock_fd, fd;                    /* fd is -1 while there is no file (I4) */
    uint64_t end;                               /* where the next record goes (I3) */
    struct record *records;
    size_t count, capacity;
    uint32_t crash_at;
    bool broken;                                /* I3 */
    struct { void *addr; size_t bytes; } maps[MAPPINGS_MAX];
    size_t map_count;
    bool map_current;                           /* the last mapping is of this file, not of a finished one */
};

const char *journal_type_name(unsigned type)
{
    switch (type) {
#define X(name, number) case number: return #name;
    JOURNAL_RECORD_LIST(X)
#undef X
    default:
        return "unknown";
    }
}

static bool type_known(uint32_t type)
{
    switch (type) {
#define X(name, number) case number:
    JOURNAL_RECORD_LIST(X)
#undef X
        return true;
    default:
        return false;
    }
}

static uint32_t crc_of(uint32_t crc, const void *data, uint64_t bytes)
{
    return (uint32_t)crc32_z(crc, data, (size_t)bytes);
}

static uint64_t padded(uint64_t bytes)
{
    return (bytes + 7) & ~7ull;
}

static struct file_header file_header_make(void)
{
    struct file_header h = { .format = FORMAT };

    memcpy(h.magic, file_magic, sizeof(h.magic));
    h.crc = crc_of(0, &h, offsetof(struct file_header, crc));
    return h;
}

/* -1 where the file holds more than one can read, or less than was asked. */
static int read_at(int fd, uint64_t offset, void *out, uint64_t bytes)
{
    char *p = out;

    while (bytes) {
        ssize_t n = pread(fd, p, (size_t)bytes, (off_t)offset);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            errno = n ? errno : EIO;
            return -1;
        }
        p += n;
        offset += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return 0;
}

static int write_all(int fd, uint64_t offset, struct iovec *v, int count)
{
    while (count) {
        ssize_t n = pwritev(fd, v, count, (off_t)offset);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -1;
        }
        offset += (uint64_t)n;
        while (count && (size_t)n >= v->iov_len) {
            n -= (ssize_t)v->iov_len;
            v++;
            count--;
        }
        if (count) {
            v->iov_base = (char *)v->iov_base + n;
            v->iov_len -= (size_t)n;
        }
    }
    return 0;
}

static fs_status_t remember(struct journal *j, enum journal_type type, uint64_t offset, uint64_t bytes)
{
    if (j->count == j->capacity) {
        size_t capacity = j->capacity ? j->capacity * 2 : 64;
        struct record *grown = realloc(j->records, capacity * sizeof(*grown));

        if (!grown) {
            return FS_NO_MEMORY;
        }
        j->records = grown;
        j->capacity = capacity;
    }
    j->records[j->count++] = (struct record){ .offset = offset, .bytes = bytes, .type = type };
    return FS_OK;
}

/* ---- reading what a crash left -------------------------------------------- */

static fs_status_t io_fail(const struct journal *j, const char *what, struct fs_error *err)
{
    int e = errno;

    return fs_fail(err, state_dir_errno(e), "cannot %s %s/%s: %s", what, j->path, JOURNAL_NAME, strerror(e));
}

static fs_status_t damaged(const struct journal *j, uint64_t offset, const char *what, struct fs_error *err)
{
    return fs_fail(err, FS_BAD_INPUT,
                   "%s/%s is damaged at offset %llu (record %zu): %s. Nothing was done. If the host was rebooted since, no guest "
                   "of it is left: remove the file. Else keep it and look at the guests by hand",
                   j->path, JOURNAL_NAME, (unsigned long long)offset, j->count + 1, what);
}

/* crc32 over part of the file, and whether it was all zeroes. */
static fs_status_t scan(const struct journal *j, uint64_t offset, uint64_t bytes, uint32_t *crc, bool *zero, struct fs_error *err)
{
    *zero = true;
    if (!bytes) {
        return FS_OK;
    }
    unsigned char *buffer = malloc(bytes < READ_BYTES ? (size_t)bytes : READ_BYTES);
    if (!buffer) {
        return fs_fail(err, FS_NO_MEMORY, "no memory to read %s/%s", j->path, JOURNAL_NAME);
    }
    while (bytes) {
        uint64_t n = bytes < READ_BYTES ? bytes : READ_BYTES;

        if (read_at(j->fd, offset, buffer, n)) {
            free(buffer);
            return io_fail(j, "read", err);
        }
        *crc = crc_of(*crc, buffer, n);
        if (*zero && (buffer[0] || memcmp(buffer, buffer + 1, (size_t)n - 1) != 0)) {
            *zero = false;
        }
        offset += n;
        bytes -= n;
    }
    free(buffer);
    return FS_OK;
}

/* The record at j->end.  *whole false: from here on the file is a torn tail. */
static fs_status_t load_record(struct journal *j, uint64_t size, bool *whole, struct fs_error *err)
{
    const uint64_t at = j->end;
    struct record_header h;
    uint32_t crc = 0;
    bool zero;

    *whole = false;
    if (size - at < sizeof(h)) {
        return FS_OK;
    }
    if (read_at(j->fd, at, &h, sizeof(h))) {
        return io_fail(j, "read", err);
    }
    if (h.magic != RECORD_MAGIC || h.header_crc != crc_of(0, &h, offsetof(struct record_header, header_crc))) {
        fs_status_t s = scan(j, at, size - at, &crc, &zero, err);

        if (s || zero) {
            return s;
        }
        return damaged(j, at, "the record's header is wrong", err);
    }
    if (h.seq != j->count + 1) {
        return damaged(j, at, "records are missing before it", err);
    }
    if (!type_known(h.type)) {
        return fs_fail(err, FS_BAD_INPUT, "%s/%s: record %zu is of type %u, which this version does not know: recover with the "
                       "version that wrote it", j->path, JOURNAL_NAME, j->count + 1, (unsigned)h.type);
    }
    if (h.bytes > JOURNAL_RECORD_MAX_BYTES) {
        return damaged(j, at, "the record is too long", err);
    }
    if (padded(h.bytes) > size - at - sizeof(h)) {
        return FS_OK;
    }
    crc = crc_of(0, &h, offsetof(struct record_header, crc));
    fs_status_t s = scan(j, at + sizeof(h), h.bytes, &crc, &zero, err);
    if (s) {
        return s;
    }
    if (crc != h.crc) {
        return damaged(j, at, "the record's content is wrong", err);
    }
    uint32_t ignored = 0;
    s = scan(j, at + sizeof(h) + h.bytes, padded(h.bytes) - h.bytes, &ignored, &zero, err);
    if (s || !zero) {
        return s ? s : damaged(j, at, "the record's padding is wrong", err);
    }
    s = remember(j, (enum journal_type)h.type, at + sizeof(h), h.bytes);
    if (s) {
        return fs_fail(err, s, "no memory for the records of %s/%s", j->path, JOURNAL_NAME);
    }
    j->end = at + sizeof(h) + padded(h.bytes);
    *whole = true;
    return FS_OK;
}

static fs_status_t load_file_header(struct journal *j, struct fs_error *err)
{
    const struct file_header want = file_header_make();
    struct file_header h;

    if (read_at(j->fd, 0, &h, sizeof(h))) {
        return io_fail(j, "read", err);
    }
    if (memcmp(h.magic, want.magic, sizeof(h.magic)) != 0 || h.crc != crc_of(0, &h, offsetof(struct file_header, crc))) {
        return damaged(j, 0, "the file's header is wrong", err);
    }
    if (h.format != FORMAT) {
        return fs_fail(err, FS_BAD_INPUT, "%s/%s has format %u, this version reads %u: recover with the version that wrote it",
                       j->path, JOURNAL_NAME, (unsigned)h.format, FORMAT);
    }
    j->end = sizeof(h);
    return FS_OK;
}

static fs_status_t remove_file(struct journal *j, struct fs_error *err)
{
    if (unlinkat(j->dir_fd, JOURNAL_NAME, 0)) {
        return io_fail(j, "remove", err);
    }
    close(j->fd);
    j->fd = -1;
    j->map_current = false;
    if (state_dir_sync(j->dir_fd)) {
        return io_fail(j, "make durable the removal of", err);
    }
    return FS_OK;
}

/* pre: j->fd is open.  post: the whole records are remembered, j->end is where they end.
 * A file without a whole first record is no journal (I4): nothing was done after it. */
static fs_status_t load(struct journal *j, uint64_t *size, struct fs_error *err)
{
    struct stat st;
    bool whole = true, zero;
    uint32_t crc = 0;

    if (fstat(j->fd, &st)) {
        return io_fail(j, "stat", err);
    }
    *size = (uint64_t)st.st_size;
    if (*size < sizeof(struct file_header)) {
        return FS_OK;
    }
    fs_status_t s = scan(j, 0, sizeof(struct file_header), &crc, &zero, err);
    if (!s && zero) {
        s = scan(j, 0, *size, &crc, &zero, err);
        if (!s && zero) {
            return FS_OK;
        }
    }
    if (!s) {
        s = load_file_header(j, err);
    }
    while (!s && whole && j->end < *size) {
        s = load_record(j, *size, &whole, err);
    }
    return s;
}

static fs_status_t open_existing(struct journal *j, struct fs_error *err)
{
    uint64_t size = 0;
    fs_status_t s = state_dir_file(j->dir_fd, j->path, JOURNAL_NAME, O_RDWR, &j->fd, err);

    if (s) {
        return s == FS_NOT_FOUND ? FS_OK : s;
    }
    s = load(j, &size, err);
    if (!s && !j->count) {
        return remove_file(j, err);
    }
    if (!s && j->end < size && (ftruncate(j->fd, (off_t)j->end) || fdatasync(j->fd))) {
        return io_fail(j, "cut the torn tail of", err);
    }
    return s;
}

/* ---- the interface --------------------------------------------------------- */

fs_status_t journal_open(const char *state_dir, bool for_recovery, struct journal **out, struct fs_error *err)
{
    fs_status_t s;

    *out = NULL;
    struct journal *j = calloc(1, sizeof(*j));
    if (!j) {
        return fs_fail(err, FS_NO_MEMORY, "no memory for the journal");
    }
    j->pid = getpid();
    j->dir_fd = j->lock_fd = j->fd = -1;
    j->path = strdup(state_dir);
    if (!j->path) {
        s = fs_fail(err, FS_NO_MEMORY, "no memory for the journal");
        goto out;
    }
    s = state_dir_open(state_dir, &j->dir_fd, err);
    if (s) {
        goto out;
    }
    s = state_dir_lock(j->dir_fd, state_dir, &j->lock_fd, err);
    if (s) {
        goto out;
    }
    s = open_existing(j, err);
    if (!for_recovery && (s == FS_BAD_INPUT || (!s && j->count))) {
        s = fs_fail(err, FS_BUSY, "an earlier run did not end (%s/%s%s%s is left): run `frameshift recover` first", state_dir,
                    JOURNAL_NAME, j->count ? ", last record " : "", j->count ? journal_type_name(j->records[j->count - 1].type) : "");
    }
out:
    if (s) {
        journal_close(j);
        return s;
    }
    *out = j;
    return FS_OK;
}

bool journal_pending(const char *state_dir)
{
    struct journal j = { .path = (char *)(uintptr_t)state_dir, .fd = -1 };
    bool pending = false;
    uint64_t size;

    int dir = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) {
        return false;
    }
    j.fd = openat(dir, JOURNAL_NAME, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (j.fd >= 0) {
        /* What cannot be read or is damaged is for recovery to explain. */
        pending = load(&j, &size, NULL) || j.count;
        close(j.fd);
    } else {
        pending = errno != ENOENT;
    }
    free(j.records);
    close(dir);
    return pending;
}

/* I4: the file comes with its first record; a file header alone is never left to be taken for a journal. */
static fs_status_t create_file(struct journal *j, struct fs_error *err)
{
    struct file_header h = file_header_make();
    struct iovec v = { .iov_base = &h, .iov_len = sizeof(h) };
    fs_status_t s = state_dir_file(j->dir_fd, j->path, JOURNAL_NAME, O_RDWR | O_CREAT | O_EXCL, &j->fd, err);

    if (s) {
        return s;
    }
    j->count = 0;
    j->end = sizeof(h);
    if (write_all(j->fd, 0, &v, 1) || state_dir_sync(j->dir_fd)) {
        s = io_fail(j, "write", err);
        (void)unlinkat(j->dir_fd, JOURNAL_NAME, 0);
        close(j->fd);
        j->fd = -1;
    }
    return s;
}

/* What a record holds: bytes in one piece, or a stream of them. */
struct content {
    const void *data;
    journal_fill_fn fill;                       /* NULL: data */
    void *arg;
    size_t bytes;
};

/* Up to room bytes of a stream from offset on: as many as there are. */
static size_t next_piece(const struct content *c, uint64_t offset, void *buffer, size_t room)
{
    size_t n = 0;
    while (n < room && offset + n < c->bytes) {
        size_t left = c->bytes - (size_t)offset - n, most = room - n < left ? room - n : left;
        size_t got = c->fill(c->arg, offset + n, (char *)buffer + n, most);

        ASSERT(got <= most);
        if (!got) {
            break;                              /* an element does not fit into what is left of the buffer */
        }
        n += got;
    }
    ASSERT(n > 0);
    return n;
}

static int write_stream(struct journal *j, const struct content *c, struct record_header *h, char *buffer)
{
    size_t first = next_piece(c, 0, buffer, PIECE_BYTES), n = first;
    uint32_t crc = crc_of(h->crc, buffer, n);

    for (uint64_t at = n; at < c->bytes; at += n) {
        n = next_piece(c, at, buffer, PIECE_BYTES);
        crc = crc_of(crc, buffer, n);
    }
    h->crc = crc;
    /* A stream that was one piece is in the buffer still; a longer one is made once more. */
    n = first == c->bytes ? first : next_piece(c, 0, buffer, PIECE_BYTES);
    struct iovec v[2] = { { .iov_base = h, .iov_len = sizeof(*h) }, { .iov_base = buffer, .iov_len = n } };
    int rc = write_all(j->fd, j->end, v, 2);
    crc = crc_of(0, h, offsetof(struct record_header, crc));
    crc = crc_of(crc, buffer, n);
    for (uint64_t at = n; at < c->bytes && !rc; at += n) {
        n = next_piece(c, at, buffer, PIECE_BYTES);
        crc = crc_of(crc, buffer, n);
        struct iovec piece = { .iov_base = buffer, .iov_len = n };
        rc = write_all(j->fd, j->end + sizeof(*h) + at, &piece, 1);
    }
    ASSERT(rc || crc == h->crc);                /* the stream said the same twice */
    return rc;
}

static int write_content(struct journal *j, const struct content *c, struct record_header *h)
{
    static const char zeroes[8];
    char buffer[PIECE_BYTES];
    /* writev does not write to them */
    struct iovec pad = { .iov_base = (void *)(uintptr_t)zeroes, .iov_len = (size_t)(padded(c->bytes) - c->bytes) };

    h->header_crc = crc_of(0, h, offsetof(struct record_header, header_crc));
    h->crc = crc_of(0, h, offsetof(struct record_header, crc));
    if (c->fill && c->bytes) {
        int rc = write_stream(j, c, h, buffer);

        return rc || !pad.iov_len ? rc : write_all(j->fd, j->end + sizeof(*h) + c->bytes, &pad, 1);
    }
    if (c->bytes) {
        h->crc = crc_of(h->crc, c->data, c->bytes);
    }
    struct iovec v[3] = { { .iov_base = h, .iov_len = sizeof(*h) }, { .iov_base = (void *)(uintptr_t)c->data, .iov_len = c->bytes }, pad };
    return write_all(j->fd, j->end, v, 3);
}

static fs_status_t write_record(struct journal *j, enum journal_type type, const struct content *c, struct fs_error *err)
{
    struct record_header h = { .magic = RECORD_MAGIC, .type = (uint32_t)type, .seq = j->count + 1, .bytes = c->bytes };

    if (write_content(j, c, &h)) {
        fs_status_t s = io_fail(j, "write", err);

        j->broken = ftruncate(j->fd, (off_t)j->end) || fdatasync(j->fd);
        return s;
    }
    if (fdatasync(j->fd)) {
        /* Whether it is on disk cannot be known after a failed sync, nor by a second one. */
        j->broken = true;
        return io_fail(j, "sync", err);
    }
    return FS_OK;
}

static fs_status_t check_writer(const struct journal *j, struct fs_error *err)
{
    if (j->pid != getpid()) {
        return fs_fail(err, FS_BUSY, "%s/%s belongs to process %ld", j->path, JOURNAL_NAME, (long)j->pid);
    }
    return FS_OK;
}

static fs_status_t append(struct journal *j, enum journal_type type, const struct content *c, struct fs_error *err)
{
    const size_t bytes = c->bytes;

    ASSERT(type_known((uint32_t)type));
    fs_status_t s = check_writer(j, err);
    if (s) {
        return s;
    }
    if (j->broken) {
        return fs_fail(err, FS_IO, "%s/%s failed before and takes no more records", j->path, JOURNAL_NAME);
    }
    if (bytes > JOURNAL_RECORD_MAX_BYTES) {
        return fs_fail(err, FS_BAD_INPUT, "a journal record of %zu bytes is too long", bytes);
    }
    const bool fresh = j->fd < 0;
    if (fresh) {
        s = create_file(j, err);
        if (s) {
            return s;
        }
    }
    /* Remembered first: once it is on disk nothing may fail any more. */
    s = remember(j, type, j->end + sizeof(struct record_header), bytes);
    if (s) {
        s = fs_fail(err, s, "no memory for a journal record");
    } else {
        j->count--;
        s = write_record(j, type, c, err);
    }
    if (s) {
        struct fs_error ignored;

        /* A file without a record is none (I4), and what is wrong with its removal shows at the next open. */
        if (fresh && !j->broken && remove_file(j, &ignored)) {
            j->broken = true;
        }
        return s;
    }
    j->count++;
    j->end += sizeof(struct record_header) + padded(bytes);
    if (j->crash_at && j->count == j->crash_at) {
        (void)raise(SIGKILL);
    }
    return FS_OK;
}

fs_status_t journal_append(struct journal *j, enum journal_type type, const void *data, size_t bytes, struct fs_error *err)
{
    ASSERT(data || !bytes);
    return append(j, type, &(struct content){ .data = data, .bytes = bytes }, err);
}

fs_status_t journal_append_from(struct journal *j, enum journal_type type, journal_fill_fn fill, void *arg, size_t bytes, struct fs_error *err)
{
    ASSERT(fill);
    return append(j, type, &(struct content){ .fill = fill, .arg = arg, .bytes = bytes }, err);
}

size_t journal_count(const struct journal *j)
{
    return j->count;
}

/* A mapping of the file that covers [0, end).  It may reach beyond the file's end: what is appended later appears in it. */
static const unsigned char *map_up_to(struct journal *j, uint64_t end)
{
    if (j->map_current && j->maps[j->map_count - 1].bytes >= end) {
        return j->maps[j->map_count - 1].addr;
    }
    if (j->map_count == MAPPINGS_MAX) {
        return NULL;
    }
    uint64_t bytes = (2 * end + MAP_STEP_BYTES - 1) / MAP_STEP_BYTES * MAP_STEP_BYTES;
    void *addr = mmap(NULL, (size_t)bytes, PROT_READ, MAP_SHARED, j->fd, 0);
    if (addr == MAP_FAILED) {
        return NULL;
    }
    j->maps[j->map_count].addr = addr;
    j->maps[j->map_count++].bytes = (size_t)bytes;
    j->map_current = true;
    return addr;
}

enum journal_type journal_record(const struct journal *j, size_t i, const void **data, size_t *bytes)
{
    ASSERT_CMP(i, <, j->count);
    const struct record *r = &j->records[i];

    *data = NULL;
    *bytes = 0;
    if (r->bytes) {
        /* The mappings are a cache: the records are the same before and after. */
        const unsigned char *base = map_up_to((struct journal *)(uintptr_t)j, r->offset + r->bytes);

        if (base) {
            *data = base + r->offset;
            *bytes = (size_t)r->bytes;
        }
    }
    return r->type;
}

void journal_crash_at(struct journal *j, uint32_t n)
{
    j->crash_at = n;
}

fs_status_t journal_finish(struct journal *j, struct fs_error *err)
{
    fs_status_t s = check_writer(j, err);

    if (s || j->fd < 0) {
        return s;
    }
    s = remove_file(j, err);
    if (j->fd < 0) {                    /* the name is gone, even where the sync failed */
        j->count = 0;
        j->broken = false;
    }
    return s;
}

void journal_close(struct journal *j)
{
    if (!j) {
        return;
    }
    for (size_t i = 0; i < j->map_count; i++) {
        munmap(j->maps[i].addr, j->maps[i].bytes);
    }
    if (j->fd >= 0) {
        close(j->fd);
    }
    if (j->lock_fd >= 0 && j->pid != getpid()) {
        close(j->lock_fd);              /* a forked child's copy: the lock stays with the parent */
    } else {
        state_dir_unlock(j->lock_fd);
    }
    if (j->dir_fd >= 0) {
        close(j->dir_fd);
    }
    free(j->records);
    free(j->path);
    free(j);
}
