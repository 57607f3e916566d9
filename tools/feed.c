/*
 * feed.c - events on their way to the reader, never waiting for him.
 *
 * Owns: the ring of events, the thread that writes them, the progress line.
 * Invariants:
 *  I1 feed_event() takes the lock and nothing else that can wait: no output, no malloc.
 *     A pipe that nobody empties, or a terminal stopped by ^S, must not keep a
 *     suspended guest waiting;
 *  I2 what the ring has no room for is counted and the count is written: a reader
 *     knows that he missed events, and how many;
 *  I3 the thread takes no signal: the handlers run in the engine's thread, whose
 *     system calls they are to interrupt;
 *  I4 the terminal shows the progress line, or text, never a mix: shown says which.
 * Lock order: output, then lock.  lock guards the ring, progress and names (never held
 * over output); output guards the streams.
 * Cost: 4096 events of 160 bytes; at most ten progress lines a second.
 */
#include "feed.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include "json.h"
#include "progress.h"
#include "text.h"

#define RING_EVENTS 4096u               /* a power of two */
#define NOTE_BYTES 120
#define TICK_NS 100000000               /* ten lines a second */

_Static_assert((RING_EVENTS & (RING_EVENTS - 1)) == 0, "indices wrap by a mask");

struct entry {
    struct fs_event event;              /* note points nowhere here */
    bool has_note;
    char note[NOTE_BYTES];
};

struct name {
    uint16_t domid;
    char name[HV_NAME_BYTES];
};

struct feed {
    struct feed_config config;
    pthread_t thread;
    pthread_mutex_t lock, output;
    pthread_cond_t wake, drained;
    struct entry *ring;
    uint64_t head, tail, dropped;       /* [lock] entries tail .. head - 1 wait */
    bool stop, busy;                    /* [lock] busy: the thread is writing an entry */
    struct progress progress;           /* [lock] */
    struct name *names;                 /* [lock] */
    size_t name_count;
    bool shown;                         /* [output] a progress line is on the terminal */
    uint64_t begin_ns;                  /* of the feed; debug lines count from here */
};

static uint64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* ---- the engine's side ---- */

void feed_event(void *arg, const struct fs_event *event)
{
    struct feed *feed = arg;

    pthread_mutex_lock(&feed->lock);
    progress_event(&feed->progress, event, now_ns());
    if (feed->head - feed->tail == RING_EVENTS) {
        feed->dropped++;                                        /* I2 */
    } else {
        struct entry *e = &feed->ring[feed->head++ & (RING_EVENTS - 1)];
        e->event = *event;
        e->event.note = NULL;
        e->has_note = event->note != NULL;
        (void)snprintf(e->note, sizeof(e->note), "%s", event->note ? event->note : "");
    }
    pthread_cond_signal(&feed->wake);
    pthread_mutex_unlock(&feed->lock);
}

/* ---- the reader's side ---- */

/* pre: output held, lock not. The name of a domain into out, raw; NULL if none is known. */
static const char *name_of(struct feed *feed, uint16_t domid, char out[HV_NAME_BYTES])
{
    const char *found = NULL;

    pthread_mutex_lock(&feed->lock);
    for (size_t i = 0; i < feed->name_count; i++) {
        if (feed->names[i].domid == domid) {
            memcpy(out, feed->names[i].name, HV_NAME_BYTES);
            found = out;
            break;
        }
    }
    pthread_mutex_unlock(&feed->lock);
    return found;
}

static void owner_text(struct feed *feed, uint16_t domid, char *out, size_t bytes)
{
    char raw[HV_NAME_BYTES];
    const char *name = domid == FS_DOMID_NONE ? NULL : name_of(feed, domid, raw);

    out[0] = '\0';
    if (name && name[0] != '\0') {
        text_clean(out, bytes, name, HV_NAME_BYTES, 24);
    } else if (domid != FS_DOMID_NONE) {
        (void)snprintf(out, bytes, "domain %u", domid);
    }
}

/* pre: output held. */
static void progress_hide(struct feed *feed)
{
    if (feed->shown) {
        fputs("\r\033[K", feed->config.terminal);
        (void)fflush(feed->config.terminal);
        feed->shown = false;
    }
}

/* pre: output held. */
static void progress_show(struct feed *feed)
{
    FILE *f = feed->config.terminal;
    char owner[64], line[256];
    struct winsize size;
    int columns = 80;

    if (!f) {
        return;
    }
    if (ioctl(fileno(f), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) {
        columns = size.ws_col;
    }
    pthread_mutex_lock(&feed->lock);
    uint16_t domid = feed->progress.domid;
    pthread_mutex_unlock(&feed->lock);
    owner_text(feed, domid, owner, sizeof(owner));
    pthread_mutex_lock(&feed->lock);
    progress_line(&feed->progress, owner, now_ns(), line, sizeof(line));
    pthread_mutex_unlock(&feed->lock);
    /* A line that wraps could not be rewritten. Bytes are at least columns, so this never cuts too late. */
    fprintf(f, "\r%.*s\033[K", columns - 1, line);
    (void)fflush(f);
    feed->shown = true;
}

/* pre: output held. */
static void write_text(struct feed *feed, const struct entry *e, const char *note)
{
    FILE *f = feed->config.text;
    const struct fs_event *event = &e->event;
    char owner[64], clean[4 * NOTE_BYTES];

    if (!f || (event->id != EV_WARNING && !feed->config.debug)) {
        return;
    }
    progress_hide(feed);
    owner_text(feed, event->domid, owner, sizeof(owner));
    text_clean(clean, sizeof(clean), note ? note : "", NOTE_BYTES, 0);
    if (feed->config.debug) {
        fprintf(f, "%10.6f  %-16s %-12s %s=%" PRIu64 " %s=%" PRIu64 "%s%s\n", (double)(now_ns() - feed->begin_ns) / 1e9,
                fs_event_name(event->id), owner, fs_event_arg(event->id, 0), event->a, fs_event_arg(event->id, 1), event->b,
                clean[0] ? "  " : "", clean);
    } else {
        fprintf(f, "frameshift: warning: %s%s%s\n", owner, owner[0] ? ": " : "", clean);
    }
    (void)fflush(f);
}

static void write_entry(struct feed *feed, const struct entry *e)
{
    char raw[HV_NAME_BYTES];
    struct fs_event event = e->event;

    event.note = e->has_note ? e->note : NULL;
    if (feed->config.json) {
        const char *name = event.domid == FS_DOMID_NONE ? NULL : name_of(feed, event.domid, raw);
        (void)json_event(feed->config.json, &event, name);
    }
    write_text(feed, e, event.note);
}

static void write_dropped(struct feed *feed, uint64_t dropped)
{
    if (feed->config.json) {
        (void)json_events_dropped(feed->config.json, dropped);
    }
    if (feed->config.text && feed->config.debug) {
        progress_hide(feed);
        fprintf(feed->config.text, "(%" PRIu64 " events were not written: the reader was too slow)\n", dropped);
    }
}

/* Waits for an entry, for the end, or, where progress is shown, for a tenth of a second. pre: lock held. */
static void wait_for_work(struct feed *feed)
{
    struct timespec until;

    if (!feed->config.terminal) {
        pthread_cond_wait(&feed->wake, &feed->lock);
        return;
    }
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += TICK_NS;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    (void)pthread_cond_timedwait(&feed->wake, &feed->lock, &until);
}

static void *feed_main(void *arg)
{
    struct feed *feed = arg;
    uint64_t shown_ns = now_ns();       /* what is over in a tenth of a second needs no progress */
    struct entry entry;

    pthread_mutex_lock(&feed->lock);
    for (;;) {
        bool have = feed->tail != feed->head;
        uint64_t dropped = have ? 0 : feed->dropped;    /* told once the ring is empty: in its place in time */
        if (have) {
            entry = feed->ring[feed->tail++ & (RING_EVENTS - 1)];
        } else if (dropped > 0) {
            feed->dropped = 0;
        } else if (feed->stop) {
            break;
        }
        feed->busy = have || dropped > 0;
        if (!feed->busy) {
            pthread_cond_broadcast(&feed->drained);
            wait_for_work(feed);
        }
        bool due = feed->config.terminal && !feed->stop && now_ns() - shown_ns >= TICK_NS;
        pthread_mutex_unlock(&feed->lock);

        pthread_mutex_lock(&feed->output);
        if (have) {
            write_entry(feed, &entry);
        } else if (dropped > 0) {
            write_dropped(feed, dropped);
        }
        if (due) {
            progress_show(feed);
            shown_ns = now_ns();
        }
        pthread_mutex_unlock(&feed->output);
        pthread_mutex_lock(&feed->lock);
    }
    feed->busy = false;
    pthread_cond_broadcast(&feed->drained);
    pthread_mutex_unlock(&feed->lock);
    return NULL;
}

/* ---- control ---- */

static fs_status_t feed_init(struct feed *feed)
{
    pthread_condattr_t attr;
    sigset_t all, before;
    int rc;

    if (pthread_condattr_init(&attr) != 0) {
        return FS_NO_MEMORY;
    }
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&feed->lock, NULL);        /* on Linux these do not fail without attributes */
    (void)pthread_mutex_init(&feed->output, NULL);
    (void)pthread_cond_init(&feed->wake, &attr);
    (void)pthread_cond_init(&feed->drained, NULL);
    (void)pthread_condattr_destroy(&attr);
    (void)sigfillset(&all);                             /* I3: inherited by the thread */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&feed->thread, NULL, feed_main, feed);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc == 0 ? FS_OK : FS_NO_MEMORY;
}

fs_status_t feed_start(const struct feed_config *config, struct feed **out, struct fs_error *err)
{
    struct feed *feed = calloc(1, sizeof(*feed));
    struct entry *ring = calloc(RING_EVENTS, sizeof(*ring));

    *out = NULL;
    if (feed && ring) {
        feed->config = *config;
        feed->ring = ring;
        feed->progress.domid = FS_DOMID_NONE;
        feed->begin_ns = now_ns();
        if (feed_init(feed) == FS_OK) {
            *out = feed;
            return FS_OK;
        }
    }
    free(ring);
    free(feed);
    return fs_fail(err, FS_NO_MEMORY, "cannot start the thread that shows progress: out of memory; free some and try again");
}

void feed_plan(struct feed *feed, const struct hv_plan *plan)
{
    uint64_t movable = 0;
    struct name *names = calloc(plan->domain_count + 1, sizeof(*names));

    if (!names) {
        return;                         /* lines then say "domain 3" */
    }
    for (size_t i = 0; i < plan->domain_count; i++) {
        names[i].domid = plan->domains[i].domid;
        memcpy(names[i].name, plan->domains[i].name, sizeof(names[i].name));
        movable += plan->domains[i].pages_movable;
    }
    pthread_mutex_lock(&feed->lock);
    feed->progress.total_frames = movable;      /* the event told the room: what a mover needs beside its frames included */
    struct name *old = feed->names;
    feed->names = names;
    feed->name_count = plan->domain_count;
    pthread_mutex_unlock(&feed->lock);
    free(old);
}

void feed_pause(struct feed *feed)
{
    pthread_mutex_lock(&feed->lock);
    while (feed->tail != feed->head || feed->dropped > 0 || feed->busy) {
        pthread_cond_signal(&feed->wake);
        pthread_cond_wait(&feed->drained, &feed->lock);
    }
    pthread_mutex_unlock(&feed->lock);
    pthread_mutex_lock(&feed->output);
    progress_hide(feed);
}

void feed_resume(struct feed *feed)
{
    pthread_mutex_unlock(&feed->output);
}

void feed_stop(struct feed *feed)
{
    if (!feed) {
        return;
    }
    pthread_mutex_lock(&feed->lock);
    feed->stop = true;
    pthread_cond_signal(&feed->wake);
    pthread_mutex_unlock(&feed->lock);
    (void)pthread_join(feed->thread, NULL);
    progress_hide(feed);
    pthread_cond_destroy(&feed->wake);
    pthread_cond_destroy(&feed->drained);
    pthread_mutex_destroy(&feed->lock);
    pthread_mutex_destroy(&feed->output);
    free(feed->names);
    free(feed->ring);
    free(feed);
}
