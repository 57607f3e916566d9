/*
 * feed.h - events on their way to the reader, never waiting for him.
 *
 * Owns: the queue between the engine's callback and the output, and the thread that
 * empties it.
 * Contract: feed_event() never blocks on output: a guest may stand still while the
 * engine calls it.  Everything else may take its time.
 */
#ifndef FRAMESHIFT_TOOLS_FEED_H
#define FRAMESHIFT_TOOLS_FEED_H

#include <stdbool.h>
#include <stdio.h>
#include "hv.h"

struct feed;

struct feed_config {
    FILE *json;                     /* events as JSON lines, or NULL */
    FILE *text;                     /* warnings (and all events, with debug) as lines, or NULL */
    FILE *terminal;                 /* progress, one line rewritten, or NULL */
    bool debug;
};

/* Starts the thread. FS_NO_MEMORY where that fails. */
fs_status_t feed_start(const struct feed_config *config, struct feed **out, struct fs_error *err) FS_MUST_CHECK;
/* An hv_event_fn; arg is the feed. */
void feed_event(void *arg, const struct fs_event *event);
/* The plan's names and number of frames, for lines that follow. */
void feed_plan(struct feed *feed, const struct hv_plan *plan);
/* Everything that came is written, the progress line is off the terminal, and the output is the caller's until
 * feed_resume(). */
void feed_pause(struct feed *feed);
void feed_resume(struct feed *feed);
/* Writes what is left and frees it; NULL does nothing. */
void feed_stop(struct feed *feed);

#endif
