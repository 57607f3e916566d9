/*
 * pagekinds.c - what each page frame held at the end of a trace.
 *
 * Owns: nothing that outlives a call.
 * Invariants: I1  every run lies inside the frames; what no run names is KIND_UNKNOWN.
 * Lock order: none.
 * Why: whether a page of the page cache could have been dropped is not in the trace.
 * Cost: one pass.
 */
#include "pagetrace.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[KIND_COUNT] = {
    "", "free", "slab", "pgtable", "anon", "thp", "lru", "unevict", "hugetlb", "resv", "hole", "other",
};

static bool parse_line(const char *line, uint64_t pfns, uint8_t *kinds)
{
    uint64_t first, pages;
    char word[16];

    if (sscanf(line, "%" SCNu64 " %" SCNu64 " %15s", &first, &pages, word) != 3 || first > pfns || pages > pfns - first) {
        return false;
    }
    for (unsigned k = 1; k < KIND_COUNT; k++) {
        if (strcmp(word, names[k]) == 0) {
            memset(kinds + first, (int)k, pages);
            return true;
        }
    }
    return false;
}

bool pagekinds_read(const char *path, uint64_t pfns, uint8_t **out, char *error, size_t error_bytes)
{
    uint8_t *text = NULL, *kinds;
    size_t bytes;
    unsigned number = 0;

    if (!read_compressed(path, &text, &bytes, error, error_bytes)) {
        return false;
    }
    kinds = calloc(pfns, 1);
    for (char *line = (char *)text, *end; kinds != NULL && *line != '\0'; line = end) {
        end = strchr(line, '\n');
        end = end != NULL ? end + 1 : line + strlen(line);
        number++;
        if (*line != '#' && !parse_line(line, pfns, kinds)) {
            snprintf(error, error_bytes, "%s: line %u is not \"pfn pages kind\" inside the memory", path, number);
            free(kinds);
            free(text);
            return false;
        }
    }
    free(text);
    if (kinds == NULL) {
        snprintf(error, error_bytes, "%s: out of memory", path);
        return false;
    }
    *out = kinds;
    return true;
}
