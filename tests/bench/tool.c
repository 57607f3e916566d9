/*
 * tool.c - the tool on an embedded machine, as the benches use it.
 *
 * Owns: the state directory.
 */
#include "tool.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "embedded/embedded.h"

static char state_dir[] = "/dev/shm/frameshift-bench-XXXXXX";
static const char *name = "bench";

void tool_begin(const char *program)
{
    name = program;
    if (mkdtemp(state_dir) == NULL) {
        tool_die("no folder in /dev/shm");
    }
}

void tool_end(void)
{
    char lock[64];
    (void)snprintf(lock, sizeof(lock), "%s/lock", state_dir);
    (void)unlink(lock);
    (void)rmdir(state_dir);
}

void tool_die(const char *what)
{
    fprintf(stderr, "%s: %s\n", name, what);
    exit(2);
}

struct hv *tool_handle(struct emb_machine *m, hv_event_fn on_event, void *arg)
{
    struct hv *hv = NULL;
    struct hv_config config = { .state_dir = state_dir, .on_event = on_event, .event_arg = arg };
    struct hv_backend *be = emb_backend(m);
    if (be == NULL || hv_open_backend(&config, be, &hv) != FS_OK) {
        tool_die("no handle");
    }
    return hv;
}

void tool_evacuate(struct emb_machine *m, const char *target, bool dry_run, bool verify, struct hv_report *r)
{
    struct hv *hv = tool_handle(m, NULL, NULL);
    struct hv_evacuate_options o = { .target = target, .dry_run = dry_run, .verify = verify };
    struct fs_error err = { "" };
    fs_status_t s = hv_evacuate(hv, &o, r, &err);
    if (s != FS_OK && s != FS_PARTIAL) {
        tool_die(err.text);
    }
    hv_close(hv);
}

void tool_online(struct emb_machine *m, const char *target)
{
    struct hv *hv = tool_handle(m, NULL, NULL);
    struct fs_error err = { "" };
    uint64_t pages;
    if (hv_online(hv, target, &pages, &err) != FS_OK) {
        tool_die(err.text);
    }
    hv_close(hv);
}

int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}
