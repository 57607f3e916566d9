/*
 * text.h - formatting without a C library: numbers and words into a fixed line.
 */
#ifndef GUEST_LIB_TEXT_H
#define GUEST_LIB_TEXT_H

#include <stddef.h>
#include <stdint.h>

#define TEXT_LINE_BYTES 256u

struct text {
    char line[TEXT_LINE_BYTES];     /* always terminated */
    size_t bytes;
};

void text_clear(struct text *t);
/* What does not fit is cut off. */
void text_word(struct text *t, const char *word);
void text_number(struct text *t, uint64_t n);
/* Padded on the left to width with blanks. */
void text_column(struct text *t, uint64_t n, size_t width);
void text_pad(struct text *t, size_t column);       /* blanks up to a column */
void text_hex(struct text *t, uint64_t n);          /* with 0x */

#endif
