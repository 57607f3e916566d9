/*
 * main.c - the verb table, and one run of one verb.
 *
 * Owns: the list of verbs; the exit code.
 * Invariants:
 *  I1 the exit code is that of one fs_status_t (status.h): 0 only where everything that
 *     was asked for was done, and told;
 *  I2 output that could not be written is an error, but only once the work is done:
 *     a full disk under `> log` must not end an evacuation half-way;
 *  I3 whatever a verb returns, the machine is closed and the lock released.
 * Why no global state: every verb gets struct tool; the signal handler is in session.c.
 */
#include "tool.h"

static const struct verb verbs[] = {
    { "topology", "", "the DIMMs and the machine frames that each holds",
      "Lists the DIMMs with size, node, interleaving and machine frame ranges, from the firmware's SMBIOS\n"
      "tables, else from Xen's NUMA nodes, or from --map FILE. The names are what evacuate and online take.",
      0, 0, 0, verb_topology },
    { "status", "", "what every DIMM holds: free, guests, dom0, offlined; a map",
      "Shows per DIMM how much is free or Xen's, owned by guests, by dom0, offlined or about to be, and a\n"
      "map of 64 cells. Says so if an evacuation was cut off and `frameshift recover` is due.",
      0, 0, 0, verb_status },
    { "evacuate", "TARGET", "empty a DIMM under running guests; it ends offlined",
      "Moves every frame of TARGET that can be moved to other memory while the guests run, and takes\n"
      "TARGET out of use. Shows the plan first and a report at the end. Frames that cannot move are\n"
      "listed with owner and reason. TARGET is a DIMM's name, set:N, node:N, or mfn:START-END (hex,\n"
      "END not included). PV guests are suspended once for well under a second in most cases; PVH and\n"
      "HVM guests see short pauses. ^C stops at the next safe point and rolls back what is under way;\n"
      "what has moved stays moved, and TARGET is back in use.",
      OPTS_EVACUATE, 1, 1, verb_evacuate },
    { "online", "TARGET", "give a range back to Xen",
      "Takes the offline marks off TARGET: Xen may use the memory again.",
      OPTS_ONLINE, 1, 1, verb_online },
    { "shrink", "GUEST", "a guest gives memory back to Xen while it runs",
      "Asks GUEST (name or domid) to give back what it has beyond --to SIZE, step by step: whole sections of 128 MiB\n"
      "first, then blocks of 2 MiB, the highest first. The guest moves out of them what it needs; it does not stand\n"
      "still. Its limit follows, so that it cannot take memory again before `grow`. SIZE is met to 2 MiB. ^C stops\n"
      "after a step, and the same command goes on. For guests that speak abi.h (doc/ABI.md); others have their own\n"
      "balloon (`xl mem-set`).",
      OPTS_SHRINK, 1, 1, verb_shrink },
    { "grow", "GUEST", "a guest takes that memory again",
      "Lets GUEST take again what it gave, up to --to SIZE and never beyond what it had before it was first shrunk.\n"
      "With that size its old limit is restored.",
      OPTS_SHRINK, 1, 1, verb_grow },
    { "meminfo", "GUEST", "a guest's memory as its own kernel sees it, and its settings",
      "Asks GUEST (name or domid) for its free lists by order and migratetype, how fragmented it is, its counters and settings,\n"
      "in the shape of Linux's buddyinfo, pagetypeinfo, unusable_index, extfrag_index and vmstat. --set makes settings\n"
      "first, all or none: extfrag_threshold, compaction_proactiveness, claim_policy and others; compact_memory=1 and\n"
      "compact_node=N compact. For guests that speak abi.h (doc/ABI.md).",
      OPTS_MEMINFO, 1, 1, verb_meminfo },
    { "fsck", "[DOMAIN]", "check that p2m, M2P, page types and owners agree",
      "Checks one domain (name or domid) or all of them; changes nothing. Without --pause a running guest\n"
      "may change tables while they are read, which can look like a fault.",
      OPTS_FSCK, 0, 1, verb_fsck },
    { "recover", "", "finish or undo an evacuation that was killed",
      "Reads the journal of an evacuation that was cut off (kill -9, dom0's out-of-memory killer, a lost\n"
      "process) and finishes or rolls back each guest. Safe to run at any time and more than once.",
      0, 0, 0, verb_recover },
    { "drill", "", "rehearse it all on a machine inside this program",
      "Boots a machine of several DIMMs inside this program, with PV and PVH guests and one that moves its own\n"
      "pages, all of them writing. That one gives a quarter of its memory back and takes it again. Evacuates the DIMM\n"
      "with most of them, brings it back, evacuates another. After each step every byte and page-table entry of\n"
      "every guest is compared with what the guest wrote, every count of the machine and every table is checked,\n"
      "and at the end the free frames. Needs no Xen and no root, and touches nothing outside itself. Exit code 0: all\n"
      "of it was right; 12: a fault was found; others: what a step said.",
      OPTS_DRILL, 0, 0, verb_drill },
    { "version", "", "the version of this program and of the machine",
      "Prints both; works without Xen too, and then says what is missing.",
      0, 0, 0, verb_version },
};

/* Whether a stream took all that was written to it; a file of our own is closed. */
static bool stream_ends(FILE *f, bool ours)
{
    bool ok = fflush(f) == 0 && !ferror(f);

    return !(ours && fclose(f) != 0) && ok;
}

static int finish_output(struct tool *tool, int code)
{
    bool file = tool->json && tool->json != tool->out;
    bool ok = stream_ends(tool->out, false);

    ok = (!file || stream_ends(tool->json, true)) && ok;
    if (ok) {
        return code;
    }
    fprintf(tool->err, "frameshift: the output could not be written (a full disk or a closed pipe?); the work itself ended with exit code %d\n",
            code);
    return code == 0 ? fs_status_exit_code(FS_IO) : code;
}

int main(int argc, char **argv)
{
    struct tool_options options;
    struct tool tool = { .opt = &options, .out = stdout, .err = stderr };
    struct fs_error err = { "" };
    fs_status_t s = opts_parse(argc, argv, verbs, FS_ARRAY_SIZE(verbs), &options, &err);

    if (s != FS_OK) {
        tool.json = options.json ? tool.out : NULL;
        return fs_status_exit_code(tool_fail(&tool, s, &err));
    }
    if (options.help) {
        opts_help(tool.out, verbs, FS_ARRAY_SIZE(verbs), options.verb);
        return finish_output(&tool, 0);
    }
    if (options.version) {
        fprintf(tool.out, "frameshift %s\n", FRAMESHIFT_VERSION);
        return finish_output(&tool, 0);
    }
    s = tool_begin(&tool, &err);
    s = s == FS_OK ? options.verb->run(&tool) : tool_fail(&tool, s, &err);
    tool_close(&tool);
    return finish_output(&tool, fs_status_exit_code(s));
}
