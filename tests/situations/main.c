/*
 * main.c - build/bench/situations: the five situations of thread 000 with a verdict each; tables.
 *
 * Owns: the command line.
 * Invariants: I1  exit 0: every verdict is PASS (tables: everything was measured without a fault); 1: not so; 2: usage; 3: it could not be run.
 * Lock order: none.
 * Why: one command repeats what doc/SITUATIONS.md says.
 * Cost: see --help.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include "report.h"

static const char help[] =
    "usage: situations [options]\n"
    "The five situations of thread 000 on a system that has been running, each with a verdict.\n"
    "  --situation N       only this one (1 to 5; may be repeated)\n"
    "  --seed S            default 1; the same seed does the same, page by page\n"
    "  --short             a machine of 512 MiB with 2 nodes (seconds) instead of 2 GiB with 4 (a minute)\n"
    "  --policy P          where kernel blocks come from: clear (default), next, largest\n"
    "  --baseline B        alike: no mobility grouping; lumpy: no compaction\n"
    "  --json              one JSON object for each situation on a line\n"
    "  --movable           instead: the comparison with movable zones and nodes (thread 004), as a table\n"
    "  --tables            instead: all tables of doc/SITUATIONS.md as markdown (minutes; with --short, thread 002 up to 1 GiB)\n"
    "Exit status: 0 every verdict is PASS; 1 one is FAIL; 2 usage; 3 it could not be run.\n";

struct options { uint64_t seed; bool small, json, tables, movable, alike, lumpy; unsigned situations; enum claim_policy policy; };

static int usage(const char *what, const char *value)
{
    fprintf(stderr, "situations: %s \"%s\"; --help tells what there is\n", what, value);
    return 2;
}

static bool parse_number(const char *text, uint64_t *out)
{
    char *end = NULL;

    *out = strtoull(text, &end, 0);
    return end != text && *end == '\0' && text[0] != '-';
}

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        { "situation", 1, NULL, 'n' }, { "seed", 1, NULL, 's' }, { "short", 0, NULL, 'k' }, { "policy", 1, NULL, 'p' }, { "baseline", 1, NULL, 'b' },
        { "json", 0, NULL, 'j' }, { "movable", 0, NULL, 'm' }, { "tables", 0, NULL, 't' }, { "help", 0, NULL, 'h' }, { NULL, 0, NULL, 0 },
    };
    static const char *const policies[] = { "largest", "next", "clear" };
    uint64_t n;
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 'n':
            if (!parse_number(optarg, &n) || n < 1 || n > SITUATIONS) {
                return usage("no such situation (1 to 5):", optarg);
            }
            o->situations |= 1u << n;
            break;
        case 's':
            if (!parse_number(optarg, &o->seed)) {
                return usage("not a number:", optarg);
            }
            break;
        case 'p':
            for (n = 0; n < FS_ARRAY_SIZE(policies) && strcmp(optarg, policies[n]) != 0;) {
                n++;
            }
            if (n == FS_ARRAY_SIZE(policies)) {
                return usage("no such policy (clear, next, largest):", optarg);
            }
            o->policy = (enum claim_policy)n;
            break;
        case 'b':
            o->alike = strcmp(optarg, "alike") == 0;
            o->lumpy = strcmp(optarg, "lumpy") == 0;
            if (!o->alike && !o->lumpy) {
                return usage("no such baseline (alike, lumpy):", optarg);
            }
            break;
        case 'k': o->small = true; break;
        case 'j': o->json = true; break;
        case 'm': o->movable = true; break;
        case 't': o->tables = true; break;
        case 'h': fputs(help, stdout); return 0;
        default: return 2;
        }
    }
    return optind < argc ? usage("what is", argv[optind]) : -1;
}

static int run(const struct options *o)
{
    static struct outcome out;
    int failed = 0;

    for (unsigned n = 1; n <= SITUATIONS; n++) {
        struct aged_config c = aged_for(n, o->seed, o->small);

        if (o->situations != 0 && (o->situations & 1u << n) == 0) {
            continue;
        }
        c.site.policy = o->policy;
        c.site.alike = o->alike;
        c.site.lumpy = o->lumpy;
        if (!outcome_get(&c, n, &out)) {
            return 3;
        }
        if (o->json) {
            json_t *j = outcome_json(&out);

            json_object_set_new(j, "seed", json_integer((json_int_t)o->seed));
            (void)json_dumpf(j, stdout, JSON_COMPACT);
            puts("");
            json_decref(j);
        } else {
            outcome_print(&out, stdout);
        }
        fflush(stdout);
        failed |= !out.verdict.pass;
    }
    return failed;
}

int main(int argc, char **argv)
{
    struct options o = { .seed = 1, .policy = CLAIM_CLEAR_FIRST };
    int status = parse(argc, argv, &o);

    if (status >= 0) {
        return status;
    }
    if (o.tables || o.movable) {
        char command[80];
        uint64_t faults = 0;

        snprintf(command, sizeof(command), "build/bench/situations %s%s --seed %llu", o.tables ? "--tables" : "--movable", o.small ? " --short" : "",
                 (unsigned long long)o.seed);
        struct table_options t = { .seed = o.seed, .small = o.small, .command = command };
        return o.tables ? !tables_print(&t, stdout) : !table_movable(&t, stdout, &faults) || faults != 0;
    }
    return run(&o);
}
