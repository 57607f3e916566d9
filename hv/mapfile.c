/*
 * mapfile.c - DIMMs from a file that the user wrote.
 *
 * Owns: the map file's grammar (doc/TOPOLOGY.md):
 *   dimm NAME [RANGE ...] [bank=NAME] [size=SIZE] [node=N] [set=NAME]
 * Invariants:
 *  I1 every error names the file, the line and the word that is wrong;
 *  I2 two DIMMs share frames only where both lines say set=, with the same name:
 *     an overlap by a slip of the pen must not become an interleave set;
 *  I3 a DIMM without RAM is refused: the map is for another machine.
 * Lock order: none; pure.
 * Why a file at all: firmware lies (topology_smbios.c), boards differ, and a
 * vendor's manual or the error log of the memory controller often knows better.
 * Cost: O(lines^2) for the sets.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "frameshift/assert.h"
#include "range.h"
#include "topology_priv.h"

/* What a line said beside the DIMM; by index of the DIMM. */
struct line_info {
    unsigned number;
    char set[HV_NAME_BYTES];
};

struct map {
    struct hv_topology *t;
    const struct hv_host *host;
    const char *name;
    unsigned line;
    struct line_info *infos;
    struct fs_error *err;
};

#define BAD(m, ...) bad_line(m, (m)->line, __VA_ARGS__)

FS_PRINTF(3, 4) static fs_status_t bad_line(const struct map *m, unsigned line, const char *fmt, ...)
{
    char text[256];
    va_list ap;

    va_start(ap, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return fs_fail(m->err, FS_BAD_INPUT, "%s:%u: %s", m->name, line, text);
}

/* The next word of a line, quotes taken off; NULL at its end.  *text moves on.  *bad: a quote is not closed. */
static char *next_word(char **text, bool *bad)
{
    char *from = *text, *to, *word;
    bool quoted = false;

    while (*from == ' ' || *from == '\t' || *from == '\r') {
        from++;
    }
    if (!*from || *from == '#') {
        return NULL;
    }
    word = to = from;
    for (; *from && (quoted || (*from != ' ' && *from != '\t' && *from != '\r')); from++) {
        if (*from == '"') {
            quoted = !quoted;
        } else {
            *to++ = *from;
        }
    }
    *bad = quoted;
    if (*from) {
        from++;
    }
    *to = '\0';
    *text = from;
    return word;
}

/* 0x hexadecimal or decimal, then K, M, G or T; *end behind it.  False where there is no number or it does not fit. */
static bool parse_bytes(const char *s, char **end, uint64_t *out)
{
    const bool hex = s[0] == '0' && (s[1] == 'x' || s[1] == 'X');
    uint64_t value = 0;
    const char *p = hex ? s + 2 : s, *first = p;

    for (;; p++) {
        unsigned digit;
        const uint64_t radix = hex ? 16 : 10;

        if (*p >= '0' && *p <= '9') {
            digit = (unsigned)(*p - '0');
        } else if (hex && ((*p | 32) >= 'a' && (*p | 32) <= 'f')) {
            digit = (unsigned)((*p | 32) - 'a') + 10;
        } else {
            break;
        }
        if (value > (UINT64_MAX - digit) / radix) {
            return false;
        }
        value = value * radix + digit;
    }
    if (p == first) {
        return false;
    }
    unsigned shift = 0;
    switch (*p | 32) {                  /* in either case */
    case 't': shift = 40; break;
    case 'g': shift = 30; break;
    case 'm': shift = 20; break;
    case 'k': shift = 10; break;
    default: break;
    }
    if (value > UINT64_MAX >> shift) {
        return false;
    }
    value <<= shift;
    p += shift > 0;
    *end = (char *)(uintptr_t)p;
    *out = value;
    return true;
}

/* START-END or START+SIZE in bytes, mfn:START-END in hexadecimal frames; half-open. */
static fs_status_t parse_range(const struct map *m, const char *word, struct mfn_range *out)
{
    uint64_t start, end;
    char *p;

    if (!strncasecmp(word, "mfn:", 4)) {
        if (!topology_parse_frames(word + 4, &start, &end)) {
            return BAD(m, "\"%.60s\" is not mfn:START-END in hexadecimal", word);
        }
    } else {
        if (!parse_bytes(word, &p, &start) || (*p != '-' && *p != '+')) {
            return BAD(m, "\"%.60s\" is neither a range (START-END, START+SIZE, mfn:START-END) nor bank=, size=, node=, set=", word);
        }
        const bool sized = *p == '+';
        if (!parse_bytes(p + 1, &p, &end) || *p) {
            return BAD(m, "the range \"%.60s\" has no valid end", word);
        }
        if (sized && end > UINT64_MAX - start) {
            return BAD(m, "the range \"%.60s\" ends beyond all memory", word);
        }
        end = sized ? start + end : end;
        if (start % FS_PAGE_BYTES || end % FS_PAGE_BYTES) {
            return BAD(m, "the range \"%.60s\" does not consist of 4 KiB frames (its end is the first byte behind it)", word);
        }
        start /= FS_PAGE_BYTES;
        end /= FS_PAGE_BYTES;
    }
    if (start >= end) {
        return BAD(m, "the range \"%.60s\" is empty or turned round (its end is the first byte behind it)", word);
    }
    *out = (struct mfn_range){ mfn_make(start), mfn_make(end) };
    return FS_OK;
}

static bool host_has_node(const struct hv_host *host, uint64_t node)
{
    for (uint32_t i = 0; i < host->node_count && i < HV_NODES_MAX; i++) {
        if (host->nodes[i].id == node) {
            return true;
        }
    }
    return false;
}

/* A name is for the command line and for JSON: printable, and short enough to be told apart. */
static fs_status_t parse_name(const struct map *m, const char *what, const char *value, char out[HV_NAME_BYTES])
{
    size_t length = strlen(value);

    if (!length || length >= HV_NAME_BYTES) {
        return BAD(m, "the %s must have 1 to %d characters", what, HV_NAME_BYTES - 1);
    }
    for (size_t i = 0; i < length; i++) {
        if (value[i] < ' ' || value[i] > '~') {
            return BAD(m, "the %s holds a character that is not printable ASCII", what);
        }
    }
    memcpy(out, value, length + 1);
    return FS_OK;
}

/* One word of a line behind the DIMM's name. */
static fs_status_t parse_word(struct map *m, const char *word)
{
    struct hv_dimm *d = &m->t->dimms[m->t->count - 1];
    struct mfn_range range = { MFN_NONE, MFN_NONE };
    uint64_t number;
    char *end;

    if (!strncasecmp(word, "bank=", 5)) {
        return parse_name(m, "bank", word + 5, d->bank);
    }
    if (!strncasecmp(word, "set=", 4)) {
        return parse_name(m, "set", word + 4, m->infos[m->t->count - 1].set);
    }
    if (!strncasecmp(word, "size=", 5)) {
        if (!parse_bytes(word + 5, &end, &d->size_bytes) || *end || !d->size_bytes) {
            return BAD(m, "\"%.60s\" is not a size such as size=16G", word);
        }
        return FS_OK;
    }
    if (!strncasecmp(word, "node=", 5)) {
        if (!parse_bytes(word + 5, &end, &number) || *end || !host_has_node(m->host, number)) {
            return BAD(m, "\"%.60s\" names no NUMA node of this host", word);
        }
        d->node = (uint32_t)number;
        return FS_OK;
    }
    fs_status_t s = parse_range(m, word, &range);
    if (s) {
        return s;
    }
    s = mfn_set_add(&d->ranges, range);
    return s ? fs_fail(m->err, s, "no memory for the map") : FS_OK;
}

static fs_status_t parse_line(struct map *m, char *text)
{
    char name[HV_NAME_BYTES];
    bool bad = false;
    char *word = next_word(&text, &bad);

    if (!word) {
        return FS_OK;
    }
    if (strcasecmp(word, "dimm") != 0) {
        return BAD(m, "a line begins with \"dimm\" or \"#\", not with \"%.60s\"", word);
    }
    word = next_word(&text, &bad);
    if (!word || bad) {
        return BAD(m, "the name of the DIMM is missing, or its quote is not closed");
    }
    fs_status_t s = parse_name(m, "name", word, name);
    if (s) {
        return s;
    }
    size_t count = m->t->count;
    struct line_info *infos = realloc(m->infos, (count + 1) * sizeof(*infos));
    if (!infos) {
        return fs_fail(m->err, FS_NO_MEMORY, "no memory for the map");
    }
    m->infos = infos;
    infos[count] = (struct line_info){ .number = m->line };
    if (!topology_add_dimm(m->t, name, "")) {
        return fs_fail(m->err, FS_NO_MEMORY, "no memory for the map");
    }
    while (!s && (word = next_word(&text, &bad))) {
        s = bad ? BAD(m, "a quote is not closed") : parse_word(m, word);
    }
    for (size_t i = 0; i < count && !s; i++) {
        if (!strcasecmp(m->t->dimms[i].name, name) && !strcasecmp(m->t->dimms[i].bank, m->t->dimms[count].bank)) {
            s = BAD(m, "\"%s\" is in line %u already; tell them apart by bank=", name, infos[i].number);
        }
    }
    return s;
}

static fs_status_t parse_text(struct map *m, const char *text, size_t bytes)
{
    fs_status_t s = FS_OK;

    if (memchr(text, 0, bytes)) {
        return fs_fail(m->err, FS_BAD_INPUT, "%s is not a text file", m->name);
    }
    char *copy = malloc(bytes + 1);
    if (!copy) {
        return fs_fail(m->err, FS_NO_MEMORY, "no memory for the map");
    }
    memcpy(copy, text, bytes);
    copy[bytes] = '\0';
    for (char *line = copy, *next; line && !s; line = next) {
        next = strchr(line, '\n');
        if (next) {
            *next++ = '\0';
        }
        m->line++;
        s = parse_line(m, line);
    }
    free(copy);
    if (!s && !m->t->count) {
        return fs_fail(m->err, FS_BAD_INPUT, "%s names no DIMM (a line such as: dimm DIMM_A1 0-16G)", m->name);
    }
    return s;
}

/* I2, and one node a set. */
static fs_status_t group(struct map *m)
{
    struct hv_topology *t = m->t;

    ASSERT(m->infos && t->dimms);
    for (size_t i = 0; i < t->count; i++) {
        for (size_t k = 0; k < i; k++) {
            const bool same = *m->infos[i].set && !strcasecmp(m->infos[i].set, m->infos[k].set);

            if (same) {
                topology_merge_sets(t, t->dimms[k].set, t->dimms[i].set);
                if (t->dimms[i].node != t->dimms[k].node) {
                    return bad_line(m, m->infos[i].number, "one set, but not the node= of line %u", m->infos[k].number);
                }
            } else if (mfn_set_overlaps(&t->dimms[i].ranges, &t->dimms[k].ranges)) {
                return bad_line(m, m->infos[i].number, "%s overlaps with %s (line %u); if they are interleaved, give both the same set=",
                                t->dimms[i].name, t->dimms[k].name, m->infos[k].number);
            }
        }
    }
    return FS_OK;
}

/* I3, and the sizes that were left out. */
static fs_status_t check_ranges(struct map *m)
{
    struct hv_topology *t = m->t;

    ASSERT(m->infos && t->dimms);
    for (size_t i = 0; i < t->count; i++) {
        struct hv_dimm *d = &t->dimms[i];
        uint64_t members = 0;

        if (!d->ranges.count) {
            return bad_line(m, m->infos[i].number, "%s has no range, or no RAM is there on this host", d->name);
        }
        for (size_t k = 0; k < t->count; k++) {
            members += t->dimms[k].set == d->set;
        }
        if (!d->size_bytes) {
            d->size_bytes = mfn_set_pages(&d->ranges) * FS_PAGE_BYTES / members;
        }
    }
    return FS_OK;
}

/* What the map says of nodes, as t->nodes. */
static fs_status_t nodes_of_map(struct map *m)
{
    struct hv_topology *t = m->t;

    if (m->host->node_count <= 1) {
        return topology_add_nodes(t, NULL, 0, m->host, m->err);
    }
    t->nodes = calloc(HV_NODES_MAX, sizeof(*t->nodes));
    if (!t->nodes) {
        return fs_fail(m->err, FS_NO_MEMORY, "no memory for the map");
    }
    for (uint32_t node = 0; node < HV_NODES_MAX; node++) {
        struct hv_node_ranges *n = &t->nodes[t->node_count];

        *n = (struct hv_node_ranges){ .node = node };
        for (size_t i = 0; i < t->count; i++) {
            for (size_t k = 0; t->dimms[i].node == node && k < t->dimms[i].ranges.count; k++) {
                if (mfn_set_add(&n->ranges, t->dimms[i].ranges.ranges[k])) {
                    mfn_set_free(&n->ranges);
                    return fs_fail(m->err, FS_NO_MEMORY, "no memory for the map");
                }
            }
        }
        t->node_count += n->ranges.count > 0;
    }
    return FS_OK;
}

fs_status_t topology_from_map(const char *text, size_t bytes, const char *name, const struct mfn_range_set *ram,
                              const struct hv_host *host, struct hv_topology *out, struct fs_error *err)
{
    struct map m = { .t = out, .host = host, .name = name, .err = err };
    fs_status_t s = topology_begin(out, ram);

    out->source = HV_TOPO_MAP;
    if (s) {
        (void)fs_fail(err, s, "no memory for the map");
        goto out;
    }
    s = parse_text(&m, text, bytes);
    if (!s) {
        s = group(&m);
    }
    if (s) {
        goto out;
    }
    s = topology_share_ranges(out);
    if (s) {
        (void)fs_fail(err, s, "no memory for the map");
        goto out;
    }
    s = check_ranges(&m);
    if (s) {
        goto out;
    }
    s = topology_finish(out);           /* sorts: infos are of no use behind it */
    if (s) {
        (void)fs_fail(err, s, "no memory for the map");
        goto out;
    }
    s = nodes_of_map(&m);
out:
    free(m.infos);
    if (s) {
        hv_topology_free(out);
    }
    return s;
}
