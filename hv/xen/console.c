/*
 * console.c - Xen's own words: debug keys and the text that they print.
 *
 * Owns: reading the console ring from a mark, pressing debug keys.
 * Invariants:
 *  I1  text that came before the mark is never returned: the mark is the ring's index, which
 *      Xen counts on for ever.
 *  I2  if the ring was overwritten at the mark, the answer is FS_UNSUPPORTED and
 *      not a part of the text.
 *  I3  only lines that Xen itself begins ("(XEN) ") come back: a guest's console lines carry its own
 *      prefix, and what a guest prints is no evidence.
 * Why no waiting: Xen 4.17 handles a key pressed by a hypercall before that
 * returns (only keys from the serial line are deferred).
 * Cost: reading is a copy; printing goes to the serial line too, at its speed.
 */
#include "xen_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define READ_STEP  32768u
#define TEXT_LIMIT (16u << 20)

fs_status_t xen_console_mark(struct xen_be *x, struct xen_console_mark *mark, struct fs_error *err)
{
    char *skip = malloc(READ_STEP);
    if (!skip) {
        return fs_fail(err, FS_NO_MEMORY, "no memory for Xen's console");
    }
    fs_status_t s = FS_OK;
    uint32_t index = 0;
    bool first = true;
    for (;;) {
        unsigned n = READ_STEP;
        if (xc_readconsolering(x->xch, skip, &n, 0, first ? 0 : 1, &index) != 0) {
            s = xen_fail(err, errno, "cannot read Xen's console");
            break;
        }
        first = false;
        if (n < READ_STEP) {
            break;
        }
    }
    mark->index = index;
    free(skip);
    return s;
}

static char *only_xen_lines(char *text)
{
    char *to = text;
    for (char *line = text; *line;) {
        char *end = strchr(line, '\n');
        size_t n = end ? (size_t)(end - line) + 1 : strlen(line);
        if (strncmp(line, "(XEN) ", 6) == 0) {          /* I3 */
            memmove(to, line + 6, n - 6);
            to += n - 6;
        }
        line += n;
    }
    *to = '\0';
    return text;
}

fs_status_t xen_console_since(struct xen_be *x, const struct xen_console_mark *mark, char **text, struct fs_error *err)
{
    /* A byte before the mark tells whether the ring still holds the mark: Xen goes on from there only if it does. */
    uint32_t index = mark->index, expected = mark->index;
    char *all = NULL;
    size_t size = 0;
    fs_status_t s = FS_OK;
    for (;;) {
        char *bigger = size + READ_STEP + 1 > TEXT_LIMIT ? NULL : realloc(all, size + READ_STEP + 1);
        if (!bigger) {
            s = fs_fail(err, FS_NO_MEMORY, "no memory for Xen's console");
            goto out;
        }
        all = bigger;
        unsigned n = READ_STEP;
        if (xc_readconsolering(x->xch, all + size, &n, 0, 1, &index) != 0) {
            s = xen_fail(err, errno, "cannot read Xen's console");
            goto out;
        }
        if (index != expected + n) {                    /* I2: it began somewhere else */
            s = fs_fail(err, FS_UNSUPPORTED, "Xen's console ring is too small for its answer; boot Xen with conring_size=1M");
            goto out;
        }
        expected = index;
        size += n;
        if (n == 0) {
            break;
        }
    }
    for (size_t i = 0; i < size; i++) {
        if (all[i] == '\0') {
            all[i] = '?';
        }
    }
    all[size] = '\0';
    *text = only_xen_lines(all);
    all = NULL;
out:
    free(all);
    return s;
}

fs_status_t xen_debug_key(struct xen_be *x, char key, char **text, struct fs_error *err)
{
    struct xen_console_mark mark;
    fs_status_t s = xen_console_mark(x, &mark, err);
    if (s != FS_OK) {
        return s;
    }
    char keys[2] = { key, '\0' };
    if (xc_send_debug_keys(x->xch, keys) != 0) {
        return xen_fail(err, errno, "cannot press Xen's debug key '%c'", key);
    }
    return xen_console_since(x, &mark, text, err);
}
