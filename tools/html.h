/*
 * html.h - a drill as one HTML file that needs nothing else: no script, no font, no picture from elsewhere.
 *
 * Contract: html NULL does nothing, so that callers need not ask.  Errors of the stream stay in the stream (ferror).
 * What comes from the machine (names, words) is escaped.
 */
#ifndef FRAMESHIFT_TOOLS_HTML_H
#define FRAMESHIFT_TOOLS_HTML_H

#include <stdbool.h>
#include <stdio.h>
#include "hv.h"

struct html;

struct html *html_begin(FILE *f);                   /* NULL: no memory */
void html_step(struct html *h, const struct hv_drill_step *step);
void html_report(struct html *h, const char *dimm, const struct hv_report *report, fs_status_t status);
/* Ends the file and frees h. */
void html_end(struct html *h, const struct hv_drill_report *report, fs_status_t status, const char *error);

/* text with & < > " ' escaped, invalid UTF-8 and control characters replaced; for tests too. */
void html_escape(FILE *f, const char *text, size_t max_bytes);

#endif
