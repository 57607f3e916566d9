/*
 * report.h - results of the situations as text and as JSON; the generated tables.
 */
#ifndef TESTS_SITUATIONS_REPORT_H
#define TESTS_SITUATIONS_REPORT_H

#include <jansson.h>
#include "situations.h"

struct outcome {                    /* of one situation */
    struct verdict verdict;
    struct census aged;
    struct ager_refused refused;
    union { struct atomic_result atomic; struct huge_result huge; struct leave_result leave; } u;
};

/* Age a system for the situation and drill it. False: it could not be built. */
bool outcome_get(const struct aged_config *config, unsigned situation, struct outcome *out);
void outcome_print(const struct outcome *o, FILE *out);
json_t *outcome_json(const struct outcome *o);

struct table_options { uint64_t seed; bool small; const char *command; };
/* Markdown on stdout: the five situations by policy and baseline, thread 004, thread 002. False: something could not be measured. */
bool tables_print(const struct table_options *options, FILE *out);
/* Only the comparison of thread 004. */
bool table_movable(const struct table_options *options, FILE *out, uint64_t *faults);

#endif
