/*
 * text.h - strings, numbers and tables for people who read a terminal.
 *
 * Owns: the escaping of strings that come from guests, firmware and files; the
 * way numbers, sizes and times are written; aligned tables.
 * Contract: every function that fills a buffer terminates it and never writes
 * past bytes; input lengths are bounds, so a field without a terminator is safe.
 */
#ifndef FRAMESHIFT_TOOLS_TEXT_H
#define FRAMESHIFT_TOOLS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "frameshift/compiler.h"

/* Decodes one UTF-8 sequence of at most left bytes. Its length, or 0 where the bytes are no valid UTF-8
 * (overlong forms, surrogates and numbers past U+10FFFF included). pre: left > 0. */
size_t text_utf8(const char *s, size_t left, uint32_t *code);

/* in (at most in_bytes, ends at a NUL) made safe for a terminal: control characters, invalid UTF-8 and characters that
 * turn or hide text become \xNN or \u{...}; a string that needs more than max_columns ends in "~" (0: no limit). */
void text_clean(char *out, size_t bytes, const char *in, size_t in_bytes, size_t max_columns);
/* The same for a message of several lines: \n stays. */
void text_clean_lines(char *out, size_t bytes, const char *in, size_t in_bytes);
/* Columns of a cleaned string: one for each code point. */
size_t text_columns(const char *s);

#define TEXT_NUMBER_BYTES 32
struct text_number { char s[TEXT_NUMBER_BYTES]; };
struct text_number text_count(uint64_t n);                     /* "65,530" */
struct text_number text_size(uint64_t pages);                  /* "1 GiB", "255.9 MiB", "12 KiB" */
struct text_number text_size_bytes(uint64_t size_bytes);
struct text_number text_time(uint64_t ns);                     /* "710 ms", "4.1 ms", "12.5 s", "850 ns" */

/* ---- tables ---- */

#define TABLE_COLUMNS_MAX 13
#define TABLE_CELL_BYTES 72
struct table {
    size_t columns, cells, capacity;
    const char *const *headings;            /* columns of them; a heading that begins with '>' is right-aligned */
    char (*cell)[TABLE_CELL_BYTES];
    bool failed;                            /* out of memory: printed in place of the rest */
};
void table_begin(struct table *t, const char *const *headings, size_t columns);
/* The next cell, left to right, row after row. The text must be clean already. */
FS_PRINTF(2, 3) void table_cell(struct table *t, const char *fmt, ...);
/* Prints what there is, each line after indent, drops columns whose cells are all "" or "-", and frees the table. */
void table_print(struct table *t, FILE *f, const char *indent);

#endif
