/*
 * text.c - strings, numbers and tables for people who read a terminal.
 *
 * Owns: escaping, the spelling of numbers, the layout of tables.
 * Invariants:
 *  I1 what text_clean() leaves holds no byte below 0x20, no 0x7f, no C1 control, no
 *     invalid UTF-8 and none of the characters that reorder or hide the text beside
 *     them: a guest's name cannot move the cursor, nor make one domain look like another;
 *  I2 escaping never splits: a sequence that does not fit is left out whole;
 *  I3 a table's rows are complete when it is printed (cells % columns == 0).
 * Why cells have a fixed size: a table of a host with a thousand guests is one
 * array, and a cell that is too long is cut instead of breaking the page.
 * Cost: tables are O(cells); nothing here runs while a guest is stopped.
 */
#include "text.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include "frameshift/assert.h"

size_t text_utf8(const char *s, size_t left, uint32_t *code)
{
    static const uint32_t smallest[5] = { 0, 0, 0x80, 0x800, 0x10000 };
    const unsigned char *u = (const unsigned char *)s;
    uint32_t c = u[0];
    size_t length = c < 0x80 ? 1 : (c >> 5) == 6 ? 2 : (c >> 4) == 14 ? 3 : (c >> 3) == 30 ? 4 : 0;

    if (length == 0 || length > left) {
        return 0;
    }
    if (length > 1) {
        c &= 0x7fu >> length;
    }
    for (size_t i = 1; i < length; i++) {
        if ((u[i] & 0xc0u) != 0x80u) {
            return 0;
        }
        c = (c << 6) | (u[i] & 0x3fu);
    }
    if (c < smallest[length] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
        return 0;
    }
    *code = c;
    return length;
}

/* I1: controls of C0 and C1, marks of direction, invisible joiners and fillers, line separators. */
static bool code_is_safe(uint32_t c)
{
    if (c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c || c == 0xfeff) {
        return false;
    }
    return !(c >= 0x200b && c <= 0x200f) && !(c >= 0x2028 && c <= 0x202e) && !(c >= 0x2060 && c <= 0x206f) &&
           !(c >= 0xfff9 && c <= 0xfffb) && !(c >= 0xe0000 && c <= 0xe0fff);
}

/* One unit of cleaned text from s: its bytes in unit, its columns; returns the bytes of s used. */
static size_t clean_unit(const char *s, size_t left, bool keep_newline, char unit[16], size_t *columns)
{
    uint32_t code = 0;
    size_t used = text_utf8(s, left, &code);

    if (used == 0) {
        *columns = (size_t)snprintf(unit, 16, "\\x%02x", (unsigned)(unsigned char)s[0]);
        return 1;
    }
    if ((keep_newline && code == '\n') || code_is_safe(code)) {
        memcpy(unit, s, used);
        unit[used] = '\0';
        *columns = 1;
    } else if (code < 0x80) {
        *columns = (size_t)snprintf(unit, 16, "\\x%02x", (unsigned)code);
    } else {
        *columns = (size_t)snprintf(unit, 16, "\\u{%x}", (unsigned)code);
    }
    return used;
}

static void clean(char *out, size_t bytes, const char *in, size_t in_bytes, size_t max_columns, bool keep_newline)
{
    size_t length = strnlen(in, in_bytes), at = 0, columns = 0;

    ASSERT_CMP(bytes, >, 1);
    for (size_t i = 0; i < length;) {
        char unit[16];
        size_t wide = 0, used = clean_unit(in + i, length - i, keep_newline, unit, &wide);
        bool last = i + used == length;

        /* Room for the "~" is kept while more may follow. */
        if (at + strlen(unit) + (last ? 1 : 2) > bytes || (max_columns > 0 && columns + wide + (last ? 0 : 1) > max_columns)) {
            out[at++] = '~';
            break;
        }
        memcpy(out + at, unit, strlen(unit));
        at += strlen(unit);
        columns += wide;
        i += used;
    }
    out[at] = '\0';
}

void text_clean(char *out, size_t bytes, const char *in, size_t in_bytes, size_t max_columns)
{
    clean(out, bytes, in, in_bytes, max_columns, false);
}

void text_clean_lines(char *out, size_t bytes, const char *in, size_t in_bytes)
{
    clean(out, bytes, in, in_bytes, 0, true);
}

size_t text_columns(const char *s)
{
    size_t columns = 0;

    for (; *s != '\0'; s++) {
        columns += ((unsigned char)*s & 0xc0u) != 0x80u;
    }
    return columns;
}

struct text_number text_count(uint64_t n)
{
    struct text_number out;
    char digits[TEXT_NUMBER_BYTES];
    int length = snprintf(digits, sizeof(digits), "%" PRIu64, n);
    size_t at = 0;

    for (int i = 0; i < length; i++) {
        if (i > 0 && (length - i) % 3 == 0) {
            out.s[at++] = ',';
        }
        out.s[at++] = digits[i];
    }
    out.s[at] = '\0';
    return out;
}

struct text_number text_size_bytes(uint64_t size_bytes)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    struct text_number out;
    size_t unit = 0;

    while (unit + 1 < FS_ARRAY_SIZE(units) && (size_bytes >> (10 * unit)) >= 1024) {
        unit++;
    }
    uint64_t whole = size_bytes >> (10 * unit), rest = size_bytes & ((UINT64_C(1) << (10 * unit)) - 1);
    if (rest == 0) {
        (void)snprintf(out.s, sizeof(out.s), "%" PRIu64 " %s", whole, units[unit]);
    } else {
        /* Cut, not rounded: 1023.99 MiB free must not read as 1024. */
        unsigned hundredths = (unsigned)((rest >> (10 * (unit - 1))) * 100 / 1024);
        (void)snprintf(out.s, sizeof(out.s), "%" PRIu64 ".%02u %s", whole, hundredths, units[unit]);
    }
    return out;
}

struct text_number text_size(uint64_t pages)
{
    /* Numbers near 2^64 are "unknown" in hv.h and never a size. */
    return text_size_bytes(pages > (UINT64_MAX >> 12) ? UINT64_MAX : pages << 12);
}

struct text_number text_time(uint64_t ns)
{
    static const struct { uint64_t unit_ns; const char *name; } units[] = {
        { 1000000000u, "s" }, { 1000000u, "ms" }, { 1000u, "us" }, { 1u, "ns" },
    };
    struct text_number out;

    size_t i = 0;

    while (i + 1 < FS_ARRAY_SIZE(units) && ns < units[i].unit_ns) {
        i++;
    }
    double value = (double)ns / (double)units[i].unit_ns;
    (void)snprintf(out.s, sizeof(out.s), value < 10 && units[i].unit_ns > 1 ? "%.1f %s" : "%.0f %s", value, units[i].name);
    return out;
}

void table_begin(struct table *t, const char *const *headings, size_t columns)
{
    ASSERT_CMP(columns, <=, TABLE_COLUMNS_MAX);
    *t = (struct table){ .headings = headings, .columns = columns };
}

void table_cell(struct table *t, const char *fmt, ...)
{
    va_list ap;

    if (t->cells == t->capacity) {
        size_t capacity = t->capacity == 0 ? 8 * t->columns : 2 * t->capacity;
        void *grown = t->failed ? NULL : realloc(t->cell, capacity * sizeof(t->cell[0]));
        if (!grown) {
            t->failed = true;
            return;
        }
        t->cell = grown;
        t->capacity = capacity;
    }
    va_start(ap, fmt);
    (void)vsnprintf(t->cell[t->cells++], TABLE_CELL_BYTES, fmt, ap);
    va_end(ap);
}

static void print_padded(FILE *f, const char *s, size_t width, bool right, bool last)
{
    size_t columns = text_columns(s), pad = columns < width ? width - columns : 0;

    if (right) {
        fprintf(f, "%*s", (int)pad, "");
    }
    fputs(s, f);
    if (!right && !last) {
        fprintf(f, "%*s", (int)pad, "");
    }
}

/* Widths of the columns that say something; 0 for one that does not. */
static void table_widths(const struct table *t, size_t rows, size_t width[TABLE_COLUMNS_MAX], size_t *last)
{
    *last = 0;
    for (size_t c = 0; c < t->columns; c++) {
        bool said = false;
        width[c] = text_columns(t->headings[c] + (t->headings[c][0] == '>'));
        for (size_t r = 0; r < rows; r++) {
            const char *s = t->cell[r * t->columns + c];
            said = said || (s[0] != '\0' && strcmp(s, "-") != 0);
            width[c] = text_columns(s) > width[c] ? text_columns(s) : width[c];
        }
        if (said) {
            *last = c;
        } else {
            width[c] = 0;
        }
    }
}

void table_print(struct table *t, FILE *f, const char *indent)
{
    size_t rows = t->cells / t->columns, width[TABLE_COLUMNS_MAX], last;

    ASSERT(t->failed || t->cells % t->columns == 0);     /* I3 */
    table_widths(t, rows, width, &last);
    for (size_t r = 0; rows > 0 && r <= rows; r++) {
        bool first = true;
        fputs(indent, f);
        for (size_t c = 0; c < t->columns; c++) {
            bool right = t->headings[c][0] == '>';
            const char *s = r == 0 ? t->headings[c] + right : t->cell[(r - 1) * t->columns + c];
            if (width[c] > 0) {
                fputs(first ? "" : "  ", f);
                print_padded(f, s, width[c], right, c == last);
                first = false;
            }
        }
        fputc('\n', f);
    }
    if (t->failed) {
        fprintf(f, "%s(out of memory: the rest of this table is not shown)\n", indent);
    }
    free(t->cell);
    *t = (struct table){ .headings = t->headings, .columns = t->columns };
}
