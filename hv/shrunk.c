/*
 * shrunk.c - which guests were shrunk, and what they had before.
 *
 * Owns: STATE_DIR/shrunk: a first line that names the format, then one line a domain: uuid, its limit and its pages before it was shrunk
 * for the first time, the limit that we set, and what it had before it made room for an evacuation (0: it did not).
 * Invariants:
 *   I1  the file is replaced as a whole (written beside, synced, renamed): a reader sees the old one or the new one.
 *   I2  a line is taken only if the domain's limit is the one that we set.
 *   I3  a file that is not understood is refused with its name, never guessed at.
 * Lock order: the journal's lock is held.
 * Why a file: the tool that grows a guest is not the one that shrank it, and what the guest says about itself is no ground for a limit.
 * Cost: O(entries); at most ENTRIES_MAX.
 */
#include "shrunk.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "state_dir.h"

#define FILE_NAME   "shrunk"
#define FILE_NEW    "shrunk.new"
#define FIRST_LINE  "frameshift-shrunk 2\n"
#define LINE_BYTES  128u
#define ENTRIES_MAX 1024u

struct entry { uint8_t uuid[16]; uint64_t max_pages, tot_pages, limit_pages, back_pages; };
struct list { struct entry entries[ENTRIES_MAX]; size_t count; };

static fs_status_t no_good(const char *dir, const char *why, struct fs_error *err)
{
    return fs_fail(err, FS_BAD_INPUT, "%s/" FILE_NAME " %s: it tells how large guests were before they were shrunk; remove it, and guests keep the limits "
                   "that they have now", dir, why);
}

static bool nibble(char c, uint8_t *out)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = strchr(digits, tolower((unsigned char)c));
    *out = at != NULL ? (uint8_t)(at - digits) : 0;
    return at != NULL && *at != '\0';
}

/* A space and a number. */
static bool number(const char **at, uint64_t *out)
{
    char *end;
    if (**at != ' ' || !isdigit((unsigned char)(*at)[1])) {
        return false;
    }
    errno = 0;
    *out = strtoull(*at + 1, &end, 10);
    *at = end;
    return errno == 0;
}

static bool parse_line(const char *line, struct entry *e)
{
    for (unsigned i = 0; i < sizeof(e->uuid); i++) {
        uint8_t high, low;
        if (!nibble(line[i * 2], &high) || !nibble(line[i * 2 + 1], &low)) {
            return false;
        }
        e->uuid[i] = (uint8_t)(high << 4 | low);
    }
    const char *at = line + 2 * sizeof(e->uuid);
    return number(&at, &e->max_pages) && number(&at, &e->tot_pages) && number(&at, &e->limit_pages) && number(&at, &e->back_pages) &&
           at[0] == '\n' && at[1] == '\0';
}

static fs_status_t read_list(const char *dir, int dir_fd, struct list *out, struct fs_error *err)
{
    char line[LINE_BYTES];
    struct fs_error words;
    int fd;
    fs_status_t s = state_dir_file(dir_fd, dir, FILE_NAME, O_RDONLY, &fd, &words);

    out->count = 0;
    if (s == FS_NOT_FOUND) {
        return FS_OK;
    }
    if (s != FS_OK) {
        return fs_fail(err, s, "%s", words.text);
    }
    FILE *f = fdopen(fd, "r");
    if (f == NULL) {
        close(fd);
        return fs_fail(err, FS_NO_MEMORY, "no memory for %s/" FILE_NAME, dir);
    }
    s = fgets(line, sizeof(line), f) != NULL && strcmp(line, FIRST_LINE) == 0 ? FS_OK : no_good(dir, "is of a form that this version does not know", err);
    while (s == FS_OK && fgets(line, sizeof(line), f) != NULL) {
        bool ok = out->count < ENTRIES_MAX && strchr(line, '\n') != NULL && parse_line(line, &out->entries[out->count]);
        out->count += ok;
        s = ok ? FS_OK : no_good(dir, "is damaged", err);                       /* I3 */
    }
    if (s == FS_OK && ferror(f)) {
        s = fs_fail(err, FS_IO, "cannot read %s/" FILE_NAME ": %s", dir, strerror(errno));
    }
    (void)fclose(f);
    return s;
}

static fs_status_t io_fail(const char *dir, const char *what, struct fs_error *err)
{
    int e = errno;
    return fs_fail(err, state_dir_errno(e), "cannot %s %s/" FILE_NAME ": %s", what, dir, strerror(e));
}

/* I1 */
static fs_status_t write_list(const char *dir, int dir_fd, const struct list *l, struct fs_error *err)
{
    if (l->count == 0) {
        return unlinkat(dir_fd, FILE_NAME, 0) == 0 || errno == ENOENT ? FS_OK : io_fail(dir, "remove", err);
    }
    (void)unlinkat(dir_fd, FILE_NEW, 0);
    int fd = openat(dir_fd, FILE_NEW, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    FILE *f = fd >= 0 ? fdopen(fd, "w") : NULL;
    if (f == NULL) {
        fs_status_t s = io_fail(dir, "write", err);
        if (fd >= 0) {
            close(fd);
        }
        return s;
    }
    bool ok = fputs(FIRST_LINE, f) >= 0;
    for (size_t i = 0; i < l->count && ok; i++) {
        const struct entry *e = &l->entries[i];
        for (unsigned k = 0; k < sizeof(e->uuid); k++) {
            ok = fprintf(f, "%02x", e->uuid[k]) > 0 && ok;
        }
        ok = fprintf(f, " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", e->max_pages, e->tot_pages, e->limit_pages, e->back_pages) > 0 && ok;
    }
    ok = fflush(f) == 0 && fsync(fd) == 0 && ok;
    ok = fclose(f) == 0 && ok;
    if (!ok || renameat(dir_fd, FILE_NEW, dir_fd, FILE_NAME) != 0 || state_dir_sync(dir_fd) != 0) {
        return io_fail(dir, "write", err);
    }
    return FS_OK;
}

static struct entry *find(struct list *l, const struct hv_domain *dom)
{
    for (size_t i = 0; i < l->count; i++) {
        if (memcmp(l->entries[i].uuid, dom->uuid, sizeof(dom->uuid)) == 0) {
            return &l->entries[i];
        }
    }
    return NULL;
}

static fs_status_t load(const char *dir, int *dir_fd, struct list **out, struct fs_error *err)
{
    *dir_fd = -1;
    *out = malloc(sizeof(**out));
    if (*out == NULL) {
        return fs_fail(err, FS_NO_MEMORY, "no memory for %s/" FILE_NAME, dir);
    }
    fs_status_t s = state_dir_open(dir, dir_fd, err);
    return s == FS_OK ? read_list(dir, *dir_fd, *out, err) : s;
}

static void unload(int dir_fd, struct list *l)
{
    if (dir_fd >= 0) {
        close(dir_fd);
    }
    free(l);
}

fs_status_t shrunk_find(const char *state_dir, const struct hv_domain *dom, struct shrunk *out, struct fs_error *err)
{
    struct list *l;
    int dir_fd;
    fs_status_t s = load(state_dir, &dir_fd, &l, err);
    const struct entry *e = s == FS_OK ? find(l, dom) : NULL;

    *out = (struct shrunk){ .max_pages = dom->max_pages, .tot_pages = dom->tot_pages };
    if (e != NULL && e->limit_pages == dom->max_pages) {                        /* I2 */
        *out = (struct shrunk){ .max_pages = e->max_pages, .tot_pages = e->tot_pages, .back_pages = e->back_pages };
    }
    unload(dir_fd, l);
    return s;
}

/* Of domains that are gone nothing is kept. */
static void forget_the_gone(struct hv_backend *be, struct list *l)
{
    struct hv_domain *domains = NULL;
    size_t count = 0, kept = 0;

    if (be->ops->domains(be, &domains, &count, NULL) != FS_OK) {
        return;
    }
    for (size_t i = 0; i < l->count; i++) {
        bool lives = false;
        for (size_t k = 0; k < count && !lives; k++) {
            lives = memcmp(l->entries[i].uuid, domains[k].uuid, sizeof(domains[k].uuid)) == 0;
        }
        if (lives) {
            l->entries[kept++] = l->entries[i];
        }
    }
    l->count = kept;
    free(domains);
}

fs_status_t shrunk_set(const char *state_dir, struct hv_backend *be, const struct hv_domain *dom, uint64_t limit_pages, const struct shrunk *entry,
                       struct fs_error *err)
{
    struct list *l;
    int dir_fd;
    fs_status_t s = load(state_dir, &dir_fd, &l, err);

    if (s == FS_OK) {
        forget_the_gone(be, l);
        struct entry *e = find(l, dom);
        if (entry == NULL && e != NULL) {
            *e = l->entries[--l->count];
        } else if (entry != NULL && e == NULL && l->count == ENTRIES_MAX) {
            s = fs_fail(err, FS_NO_MEMORY, "%s/" FILE_NAME " has %u guests already", state_dir, ENTRIES_MAX);
        } else if (entry != NULL) {
            e = e != NULL ? e : &l->entries[l->count++];
            memcpy(e->uuid, dom->uuid, sizeof(e->uuid));
            e->max_pages = entry->max_pages;
            e->tot_pages = entry->tot_pages;
            e->limit_pages = limit_pages;
            e->back_pages = entry->back_pages > dom->tot_pages ? entry->back_pages : 0;
        }
    }
    if (s == FS_OK) {
        s = write_list(state_dir, dir_fd, l, err);
    }
    unload(dir_fd, l);
    return s;
}
