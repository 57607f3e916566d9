/*
 * linux_baseline.h - what the recorded kernel (Debian's 6.1) achieved in the runs that the traces come from.
 */
#ifndef BENCH_LINUX_BASELINE_H
#define BENCH_LINUX_BASELINE_H

#include <jansson.h>

/* The row of a trace as the object "linux"; NULL: there is none of that name. */
json_t *linux_baseline(const char *trace);

#endif
