/*
 * events.c - names of the events of trace.h.
 *
 * Owns: the tables that FS_EVENT_LIST expands to; progress lines, traces and
 * JSON take their names from here and from nowhere else.
 * Invariants: I1 every event has a name of its own; I2 unknown numbers are
 * answered, since a trace file may come from a newer version.
 */
#include "frameshift/trace.h"

#include "frameshift/compiler.h"

static const struct {
    const char *name;
    const char *args[2];
} events[] = {
#define X(name, text, a, b) [EV_##name] = { text, { a, b } },
    FS_EVENT_LIST(X)
#undef X
};

_Static_assert(FS_ARRAY_SIZE(events) == EV_COUNT, "one entry for each event");

const char *fs_event_name(enum fs_event_id id)
{
    return (unsigned)id < EV_COUNT ? events[id].name : "unknown";
}

const char *fs_event_arg(enum fs_event_id id, int which)
{
    if ((unsigned)id >= EV_COUNT || which < 0 || which > 1) {
        return "unknown";
    }
    return events[id].args[which];
}
