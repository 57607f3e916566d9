/*
 * opts.h - the command line: verbs, options, and what each may be given.
 *
 * Owns: struct tool_options and its parser.  The verbs themselves are a table that
 * the caller passes, so that tests need not link them.
 */
#ifndef FRAMESHIFT_TOOLS_OPTS_H
#define FRAMESHIFT_TOOLS_OPTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include "frameshift/status.h"

struct tool;

/* What a verb takes beside the options that all of them take. */
#define OPTS_EVACUATE 0x1u
#define OPTS_FSCK     0x2u
#define OPTS_DRILL    0x4u
#define OPTS_SHRINK   0x8u
#define OPTS_MEMINFO  0x10u
#define OPTS_ONLINE   0x80u

struct verb {
    const char *name;
    const char *args;               /* as in the usage line: "TARGET", "[DOMAIN]", "" */
    const char *summary;            /* one line */
    const char *help;               /* a paragraph */
    unsigned options;               /* OPTS_* */
    int args_min, args_max;
    fs_status_t (*run)(struct tool *tool);
};

#define OPTS_EXCLUDE_MAX 256
#define OPTS_GUESTS_MAX 16
#define OPTS_SETS_MAX 16

struct tool_options {
    const struct verb *verb;        /* NULL where only --help or --version was asked */
    const char *argument;           /* TARGET or DOMAIN; NULL if none */
    const char *machine, *map_file, *state_dir;
    bool json;                      /* JSON lines on standard output, instead of text */
    const char *json_file;          /* JSON lines into this file, beside the text; or NULL */
    bool quiet, debug, help, version;
    bool dry_run, verify, evict, pause, make_room, grow_back;
    const char *evict_dir;
    uint64_t max_blackout_ns, max_pause_ns, suspend_timeout_ns;
    const char *exclude[OPTS_EXCLUDE_MAX];
    size_t exclude_count;
    uint32_t crash_at;
    uint64_t to_pages;              /* of OPTS_SHRINK, which must give it */
    struct { char name[32]; uint64_t value; } sets[OPTS_SETS_MAX];     /* of OPTS_MEMINFO */
    size_t set_count;
    bool machine_given, threads;
    uint64_t seed, dimm_mib, fail_call;     /* 0: not given */
    uint32_t seeds, dimms;
    const char *guests[OPTS_GUESTS_MAX];
    size_t guest_count;
    const char *html_file;
};

/* FS_USAGE with words, or FS_OK. out->json and out->help are right even on FS_USAGE, as far as parsing came.
 * argv is permuted; the strings in out are argv's. */
fs_status_t opts_parse(int argc, char **argv, const struct verb *verbs, size_t verb_count,
                       struct tool_options *out, struct fs_error *err) FS_MUST_CHECK;

/* "250", "250ms", "1.5s", "100us" -> ns; a bare number counts in unit_ns. Zero and more than a day are refused. */
fs_status_t opts_duration(const char *text, uint64_t unit_ns, uint64_t *ns, struct fs_error *err) FS_MUST_CHECK;
/* "512M", "1G", "262144K" -> pages. A bare number is refused, and what is no whole number of pages. */
fs_status_t opts_size(const char *text, uint64_t *pages, struct fs_error *err) FS_MUST_CHECK;
/* Decimal, whole string, no sign, min <= n <= max. */
fs_status_t opts_number(const char *text, uint64_t min, uint64_t max, uint64_t *n, struct fs_error *err) FS_MUST_CHECK;

/* verb NULL: the general help. Exit codes are printed from FS_STATUS_LIST. */
void opts_help(FILE *f, const struct verb *verbs, size_t verb_count, const struct verb *verb);

#endif
