/*
 * session.c - one run of a verb: the open machine, its events, signals, failures.
 *
 * Owns: struct tool's machine and feed; the signal handlers.
 * Invariants:
 *  I1 once tool_guard_signals() ran, no signal that a user or a terminal sends by habit
 *     (INT, TERM, HUP, QUIT, PIPE, TSTP, TTOU) can end or stop this process: a guest
 *     may be suspended, and only we can resume it.  kill -9 can, and the journal is
 *     for that;
 *  I2 the first of those signals asks the engine to stop, the next ones say that it was
 *     asked; a signal that comes before the machine is open is not lost;
 *  I3 every failure is told once as text, and once as JSON where JSON was asked for.
 * Lock order: none here; feed.c has its own.
 * Why a static pointer: a signal handler has no argument to carry it.
 */
#include "tool.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
#include "drill/coop_rig.h"
#include "feed.h"
#include "json.h"
#include "text.h"

static struct hv *volatile interrupt_target;
static volatile sig_atomic_t interrupts;
_Static_assert(sizeof(sig_atomic_t) == sizeof(int), "tool_interrupted() hands it out as an int");

/* Async-signal-safe: a flag, a counter, write(). */
static void on_signal(int number)
{
    static const char again[] = "\nframeshift: stopping at the next safe point, guests first. "
                                "(kill -9 is survivable: `frameshift recover`)\n";
    struct hv *hv = interrupt_target;

    (void)number;
    interrupts = interrupts < 100 ? interrupts + 1 : interrupts;
    if (hv) {
        hv_interrupt(hv);
    }
    if (interrupts > 1) {
        ssize_t ignored = write(STDERR_FILENO, again, sizeof(again) - 1);
        (void)ignored;
    }
}

const volatile int *tool_interrupted(void) { return &interrupts; }

void tool_guard_signals(struct tool *tool)
{
    static const int asked[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };
    static const int ignored[] = { SIGPIPE, SIGTSTP, SIGTTOU };
    struct sigaction sa = { .sa_handler = on_signal };

    (void)tool;
    (void)sigfillset(&sa.sa_mask);      /* no SA_RESTART: a wait for a guest is to end */
    for (size_t i = 0; i < FS_ARRAY_SIZE(asked); i++) {
        struct sigaction before;
        /* nohup and background shells ignore some of them on purpose: leave that so. */
        if (sigaction(asked[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN) {
            (void)sigaction(asked[i], &sa, NULL);
        }
    }
    sa.sa_handler = SIG_IGN;
    for (size_t i = 0; i < FS_ARRAY_SIZE(ignored); i++) {
        (void)sigaction(ignored[i], &sa, NULL);
    }
}

fs_status_t tool_feed(struct tool *tool, bool progress, struct fs_error *err)
{
    const struct tool_options *o = tool->opt;
    struct feed_config config = {
        .json = o->quiet ? NULL : tool->json,
        .text = o->quiet && !o->debug ? NULL : tool->err,
        .terminal = progress && !o->quiet && !o->debug && isatty(fileno(tool->err)) ? tool->err : NULL,
        .debug = o->debug,
    };

    return feed_start(&config, &tool->feed, err);
}

fs_status_t tool_begin(struct tool *tool, struct fs_error *err)
{
    const struct tool_options *o = tool->opt;

    tool->text = !o->json;
    tool->json = o->json ? tool->out : NULL;
    if (!o->json_file) {
        return FS_OK;
    }
    tool->json = fopen(o->json_file, "we");
    if (!tool->json) {
        return fs_fail(err, FS_IO, "cannot write %s: %s; nothing was done", o->json_file, strerror(errno));
    }
    return FS_OK;
}

fs_status_t tool_open(struct tool *tool, struct fs_error *err)
{
    const struct tool_options *o = tool->opt;
    struct hv_config config = {
        .machine = o->machine, .map_file = o->map_file, .state_dir = o->state_dir, .debug = o->debug,
        .kernel = coop_rig_ops(),
        .on_event = tool->feed ? feed_event : NULL, .event_arg = tool->feed,
    };
    fs_status_t s = hv_open(&config, &tool->hv, err);

    if (s != FS_OK) {
        tool->hv = NULL;
        return s;
    }
    interrupt_target = tool->hv;
    if (interrupts > 0) {               /* I2 */
        hv_interrupt(tool->hv);
    }
    return FS_OK;
}

void tool_close(struct tool *tool)
{
    interrupt_target = NULL;
    if (tool->hv) {
        hv_close(tool->hv);
        tool->hv = NULL;
    }
    feed_stop(tool->feed);
    tool->feed = NULL;
}

void tool_print_error(struct tool *tool, fs_status_t status, const char *text)
{
    char clean[4 * sizeof(((struct fs_error *)0)->text)];

    text_clean_lines(clean, sizeof(clean), text && *text ? text : fs_status_text(status), sizeof(((struct fs_error *)0)->text));
    fprintf(tool->err, "frameshift: %s\n", clean);
    (void)fflush(tool->err);
}

fs_status_t tool_fail(struct tool *tool, fs_status_t status, const struct fs_error *err)
{
    const char *text = err->text[0] ? err->text : fs_status_text(status);

    if (tool->feed) {
        feed_pause(tool->feed);
    }
    tool_print_error(tool, status, text);
    if (tool->json) {
        (void)json_error(tool->json, tool->opt->verb ? tool->opt->verb->name : NULL, status, text);
    }
    if (tool->feed) {
        feed_resume(tool->feed);
    }
    return status;
}

fs_status_t tool_told(struct tool *tool, bool ok, fs_status_t status)
{
    if (ok || ferror(tool->json)) {
        return status;
    }
    tool_print_error(tool, FS_NO_MEMORY, "out of memory while the result was written; it is not complete");
    return status == FS_OK ? FS_NO_MEMORY : status;
}
