/*
 * opts.c - the command line: options, numbers, help.
 *
 * Owns: the table of options; getopt's list, the help text and the check of which
 * verb takes what all come from it.
 * Invariants:
 *  I1 a number is the whole string, or it is refused: no sign, no blank, no overflow;
 *  I2 an option that the verb does not take is refused, never ignored: who writes
 *     `status --evict` believes something that is not so;
 *  I3 nothing outside out and err is changed but argv's order and getopt's own state.
 * Why getopt_long: options may stand before or after the verb, as admins type them.
 */
#include "opts.h"

#include <ctype.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

enum option_id {
    OPT_JSON = 256, OPT_MACHINE, OPT_MAP, OPT_STATE_DIR, OPT_VERSION, OPT_VERIFY, OPT_EVICT, OPT_EVICT_DIR,
    OPT_MAX_BLACKOUT, OPT_MAX_PAUSE, OPT_SUSPEND_TIMEOUT, OPT_EXCLUDE, OPT_CRASH_AT, OPT_PAUSE, OPT_SEED, OPT_SEEDS, OPT_DIMMS, OPT_GUEST,
    OPT_THREADS, OPT_FAIL_CALL, OPT_HTML, OPT_TO, OPT_SET, OPT_MAKE_ROOM, OPT_GROW_BACK,
    OPT_DEBUG = 'd', OPT_HELP = 'h', OPT_DRY_RUN = 'n', OPT_QUIET = 'q',
};

static const struct option_spec {
    const char *name;
    const char *arg;                /* NULL: none; "[=X]": may be left out */
    int id;
    unsigned verbs;                 /* OPTS_*; 0: every verb takes it */
    const char *help;               /* NULL: not shown (a hook for tests) */
} specs[] = {
    { "json", "[=FILE]", OPT_JSON, 0, "JSON lines instead of text; with a file, both" },
    { "quiet", NULL, OPT_QUIET, 0, "no progress, no events, no warnings: only the result" },
    { "debug", NULL, OPT_DEBUG, 0, "every event and every refused call, on standard error" },
    { "machine", "NAME", OPT_MACHINE, 0, "xen, or embedded[:SPEC] for a machine inside this program (xen)" },
    { "map", "FILE", OPT_MAP, 0, "which frames each DIMM holds, instead of the firmware's tables" },
    { "state-dir", "DIR", OPT_STATE_DIR, 0, "journal and lock (/var/lib/frameshift)" },
    { "help", NULL, OPT_HELP, 0, "this help; after a verb, the verb's" },
    { "version", NULL, OPT_VERSION, 0, "the version of this program" },
    { "dry-run", NULL, OPT_DRY_RUN, OPTS_EVACUATE | OPTS_SHRINK, "plan only: change nothing" },
    { "verify", NULL, OPT_VERIFY, OPTS_EVACUATE, "hash every moved page before and after (stops last longer)" },
    { "make-room", NULL, OPT_MAKE_ROOM, OPTS_EVACUATE, "where room is missing, guests that can (abi.h) shrink first" },
    { "grow-back", NULL, OPT_GROW_BACK, OPTS_ONLINE, "guests that made room for an evacuation take their memory again" },
    { "evict", NULL, OPT_EVICT, OPTS_EVACUATE | OPTS_DRILL, "save and restore guests that have frames which cannot move" },
    { "evict-dir", "DIR", OPT_EVICT_DIR, OPTS_EVACUATE, "where --evict saves them (the state directory)" },
    { "max-blackout", "MS", OPT_MAX_BLACKOUT, OPTS_EVACUATE | OPTS_DRILL, "PV: split a guest's share over stops of about this length" },
    { "max-pause", "MS", OPT_MAX_PAUSE, OPTS_EVACUATE | OPTS_DRILL, "PVH/HVM: longest single pause to aim at (10 ms)" },
    { "suspend-timeout", "S", OPT_SUSPEND_TIMEOUT, OPTS_EVACUATE | OPTS_SHRINK, "how long a guest may take to suspend or to answer (60 s)" },
    { "exclude", "DOMAIN", OPT_EXCLUDE, OPTS_EVACUATE, "leave this domain alone (name or domid; repeatable)" },
    { "crash-at", "N", OPT_CRASH_AT, OPTS_EVACUATE | OPTS_SHRINK, NULL },
    { "to", "SIZE", OPT_TO, OPTS_SHRINK, "the size to reach: 512M, 1G" },
    { "set", "NAME=VALUE", OPT_SET, OPTS_MEMINFO, "make a setting of the guest's kernel first (repeatable)" },
    { "seed", "N", OPT_SEED, OPTS_DRILL, "what the guests look like and do; the same run for the same seed (1)" },
    { "seeds", "N", OPT_SEEDS, OPTS_DRILL, "so many drills, each with the next seed (1)" },
    { "dimms", "COUNTxMIB", OPT_DIMMS, OPTS_DRILL, "the machine's DIMMs (4x64)" },
    { "guest", "KIND=WORDS", OPT_GUEST, OPTS_DRILL, "pv=NAME,MIB,VCPUS,DIMM, pvh= or coop=...; repeatable (some of each)" },
    { "threads", NULL, OPT_THREADS, OPTS_DRILL, "guests run beside the engine, in real time" },
    { "fail-call", "N", OPT_FAIL_CALL, OPTS_DRILL, "the engine's N-th call to the machine fails once" },
    { "html", "FILE", OPT_HTML, OPTS_DRILL, "the report as one HTML file, too" },
    { "pause", NULL, OPT_PAUSE, OPTS_FSCK, "stop each domain while it is checked: exact, no races" },
};

static const struct option_spec *spec_of(int id)
{
    for (size_t i = 0; i < FS_ARRAY_SIZE(specs); i++) {
        if (specs[i].id == id) {
            return &specs[i];
        }
    }
    return NULL;
}

fs_status_t opts_number(const char *text, uint64_t min, uint64_t max, uint64_t *n, struct fs_error *err)
{
    uint64_t value = 0;
    const char *s = text;

    for (; isdigit((unsigned char)*s); s++) {
        unsigned digit = (unsigned)(*s - '0');
        if (value > (UINT64_MAX - digit) / 10) {
            return fs_fail(err, FS_USAGE, "'%s' is too large; at most %" PRIu64, text, max);
        }
        value = value * 10 + digit;
    }
    if (*text == '\0') {
        return fs_fail(err, FS_USAGE, "a number is missing; write decimal digits");
    }
    if (s == text || *s != '\0') {
        return fs_fail(err, FS_USAGE, "'%s' is no number; write decimal digits only", text);
    }
    if (value < min || value > max) {
        return fs_fail(err, FS_USAGE, "%s is out of range; it must lie between %" PRIu64 " and %" PRIu64, text, min, max);
    }
    *n = value;
    return FS_OK;
}

fs_status_t opts_size(const char *text, uint64_t *pages, struct fs_error *err)
{
    static const struct { char name; unsigned shift; } units[] = { { 'K', 10 }, { 'M', 20 }, { 'G', 30 }, { 'T', 40 } };
    char digits[24];
    size_t n = strspn(text, "0123456789");
    uint64_t value = 0;

    for (size_t i = 0; i < FS_ARRAY_SIZE(units) && n > 0 && n < sizeof(digits); i++) {
        bool unit = toupper((unsigned char)text[n]) == units[i].name && (text[n + 1] == '\0' || strcmp(text + n + 1, "iB") == 0);
        if (!unit) {
            continue;
        }
        (void)snprintf(digits, sizeof(digits), "%.*s", (int)n, text);
        fs_status_t s = opts_number(digits, 1, (UINT64_C(1) << 50) >> units[i].shift, &value, err);
        if (s == FS_OK && (value << units[i].shift) % 4096 != 0) {
            s = fs_fail(err, FS_USAGE, "'%s' is no whole number of pages of 4K", text);
        }
        *pages = value << units[i].shift >> 12;
        return s;
    }
    return fs_fail(err, FS_USAGE, "'%s' is no size; write a whole number with K, M, G or T behind it, as 512M", text);
}

/* The unit after a number; 0 where it is none. */
static uint64_t unit_of(const char *s, uint64_t bare_ns)
{
    static const struct { const char *name; uint64_t ns; } units[] = {
        { "us", 1000u }, { "ms", 1000000u }, { "s", 1000000000u }, { "m", 60000000000u },
    };

    if (*s == '\0') {
        return bare_ns;
    }
    for (size_t i = 0; i < FS_ARRAY_SIZE(units); i++) {
        if (strcmp(s, units[i].name) == 0) {
            return units[i].ns;
        }
    }
    return 0;
}

fs_status_t opts_duration(const char *text, uint64_t unit_ns, uint64_t *ns, struct fs_error *err)
{
    static const uint64_t day_ns = UINT64_C(86400) * 1000000000;
    uint64_t whole = 0, fraction = 0, scale = 1, unit;
    const char *s = text;

    for (; isdigit((unsigned char)*s) && whole < day_ns; s++) {
        whole = whole * 10 + (unsigned)(*s - '0');
    }
    bool digits = s != text;
    if (digits && *s == '.' && isdigit((unsigned char)s[1])) {
        for (s++; isdigit((unsigned char)*s) && scale < 1000000000u; s++) {
            fraction = fraction * 10 + (unsigned)(*s - '0');
            scale *= 10;
        }
    }
    if (digits && isdigit((unsigned char)*s)) {
        return fs_fail(err, FS_USAGE, "'%s' has too many digits; the longest time is one day, the shortest step a nanosecond", text);
    }
    unit = digits ? unit_of(s, unit_ns) : 0;
    if (unit == 0) {
        return fs_fail(err, FS_USAGE, "'%s' is no time; write a number, with us, ms, s or m behind it (a bare one counts in %s)",
                       text, unit_ns == 1000000u ? "ms" : "s");
    }
    if (whole > day_ns / unit) {
        return fs_fail(err, FS_USAGE, "'%s' is more than a day", text);
    }
    *ns = whole * unit + (fraction * unit) / scale;     /* fraction < 1e9, unit <= 6e10: no overflow */
    if (*ns == 0 || *ns > day_ns) {
        return fs_fail(err, FS_USAGE, "'%s' must be more than 0 and at most one day; leave the option out for no limit", text);
    }
    return FS_OK;
}

static const struct verb *verb_named(const struct verb *verbs, size_t count, const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(verbs[i].name, name) == 0) {
            return &verbs[i];
        }
    }
    return NULL;
}

static fs_status_t option_time(int id, const char *text, struct tool_options *out, struct fs_error *err)
{
    const uint64_t ms = 1000000u, s = 1000000000u;

    switch (id) {
    case OPT_MAX_BLACKOUT: return opts_duration(text, ms, &out->max_blackout_ns, err);
    case OPT_MAX_PAUSE:    return opts_duration(text, ms, &out->max_pause_ns, err);
    default:               return opts_duration(text, s, &out->suspend_timeout_ns, err);
    }
}

/* A string that must say something: an empty one is most often an unset variable of a script. */
static fs_status_t option_string(int id, const char *text, struct tool_options *out, struct fs_error *err)
{
    if (*text == '\0') {
        return fs_fail(err, FS_USAGE, "it is empty");
    }
    switch (id) {
    case OPT_MAP:       out->map_file = text; break;
    case OPT_STATE_DIR: out->state_dir = text; break;
    case OPT_EVICT_DIR: out->evict_dir = text; break;
    case OPT_JSON:      out->json_file = text; break;
    case OPT_HTML:      out->html_file = text; break;
    case OPT_GUEST:
        if (out->guest_count == OPTS_GUESTS_MAX) {
            return fs_fail(err, FS_USAGE, "more than %d guests", OPTS_GUESTS_MAX);
        }
        out->guests[out->guest_count++] = text;
        break;
    case OPT_MACHINE:
        if (strcmp(text, "xen") != 0 && strcmp(text, "embedded") != 0 && strncmp(text, "embedded:", 9) != 0) {
            return fs_fail(err, FS_USAGE, "'%s' is no machine; there are xen and embedded", text);
        }
        out->machine = text;
        out->machine_given = true;
        break;
    default:
        if (out->exclude_count == OPTS_EXCLUDE_MAX) {
            return fs_fail(err, FS_USAGE, "more than %d domains are excluded", OPTS_EXCLUDE_MAX);
        }
        out->exclude[out->exclude_count++] = text;
    }
    return FS_OK;
}

/* "4x64" */
static fs_status_t option_dimms(const char *text, struct tool_options *out, struct fs_error *err)
{
    char count[24];
    uint64_t n = 0;
    const char *x = strchr(text, 'x');

    if (!x || (size_t)(x - text) >= sizeof(count)) {
        return fs_fail(err, FS_USAGE, "'%s' is not COUNTxMIB; write 4x64 for four DIMMs of 64 MiB", text);
    }
    (void)snprintf(count, sizeof(count), "%.*s", (int)(x - text), text);
    fs_status_t s = opts_number(count, 2, 16, &n, err);
    out->dimms = (uint32_t)n;
    return s == FS_OK ? opts_number(x + 1, 16, 1u << 20, &out->dimm_mib, err) : s;
}

/* "extfrag_threshold=300" */
static fs_status_t option_set(const char *text, struct tool_options *out, struct fs_error *err)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_");

    if (n == 0 || n >= sizeof(out->sets[0].name) || text[n] != '=') {
        return fs_fail(err, FS_USAGE, "'%s' is not NAME=VALUE; write extfrag_threshold=300", text);
    }
    if (out->set_count == OPTS_SETS_MAX) {
        return fs_fail(err, FS_USAGE, "more than %d settings", OPTS_SETS_MAX);
    }
    fs_status_t s = opts_number(text + n + 1, 0, UINT64_MAX / 2, &out->sets[out->set_count].value, err);
    if (s == FS_OK) {
        (void)snprintf(out->sets[out->set_count].name, sizeof(out->sets[0].name), "%.*s", (int)n, text);
        out->set_count++;
    }
    return s;
}

static fs_status_t option_value(int id, const char *text, struct tool_options *out, struct fs_error *err)
{
    uint64_t n = 0;
    fs_status_t s;

    switch (id) {
    case OPT_MAX_BLACKOUT:
    case OPT_MAX_PAUSE:
    case OPT_SUSPEND_TIMEOUT:
        return option_time(id, text, out, err);
    case OPT_CRASH_AT:
        s = opts_number(text, 1, UINT32_MAX, &n, err);
        out->crash_at = (uint32_t)n;
        return s;
    case OPT_SET: return option_set(text, out, err);
    case OPT_TO: return opts_size(text, &out->to_pages, err);
    case OPT_SEEDS:
        s = opts_number(text, 1, 1000000, &n, err);
        out->seeds = (uint32_t)n;
        return s;
    case OPT_SEED:      return opts_number(text, 1, UINT64_MAX / 2, &out->seed, err);
    case OPT_FAIL_CALL: return opts_number(text, 1, UINT64_MAX / 2, &out->fail_call, err);
    case OPT_DIMMS:     return option_dimms(text, out, err);
    default:
        return option_string(id, text, out, err);
    }
}

static void option_flag(int id, struct tool_options *out)
{
    switch (id) {
    case OPT_JSON:    out->json = true; break;
    case OPT_QUIET:   out->quiet = true; break;
    case OPT_DEBUG:   out->debug = true; break;
    case OPT_HELP:    out->help = true; break;
    case OPT_VERSION: out->version = true; break;
    case OPT_DRY_RUN: out->dry_run = true; break;
    case OPT_VERIFY:  out->verify = true; break;
    case OPT_EVICT:   out->evict = true; break;
    case OPT_PAUSE:   out->pause = true; break;
    case OPT_MAKE_ROOM: out->make_room = true; break;
    case OPT_GROW_BACK: out->grow_back = true; break;
    case OPT_THREADS: out->threads = true; break;
    default: break;
    }
}

/* The verb and its argument from what getopt left; which options it takes (I2). */
static fs_status_t check_words(int argc, char **argv, const struct verb *verbs, size_t verb_count, const int *seen, size_t seen_count,
                               struct tool_options *out, struct fs_error *err)
{
    int words = argc - optind;

    if (words == 0) {
        return out->help || out->version ? FS_OK : fs_fail(err, FS_USAGE, "no verb; try `frameshift --help`");
    }
    out->verb = verb_named(verbs, verb_count, argv[optind]);
    if (!out->verb) {
        return fs_fail(err, FS_USAGE, "unknown verb '%s'; try `frameshift --help`", argv[optind]);
    }
    if (out->help) {
        return FS_OK;
    }
    for (size_t i = 0; i < seen_count; i++) {
        const struct option_spec *o = spec_of(seen[i]);
        if (o->verbs != 0 && !(o->verbs & out->verb->options)) {
            return fs_fail(err, FS_USAGE, "%s does not take --%s; try `frameshift %s --help`", out->verb->name, o->name, out->verb->name);
        }
    }
    if (words - 1 < out->verb->args_min) {
        return fs_fail(err, FS_USAGE, "%s needs %s; try `frameshift %s --help`", out->verb->name, out->verb->args, out->verb->name);
    }
    if (words - 1 > out->verb->args_max) {
        return fs_fail(err, FS_USAGE, "%s: unexpected word '%s'; try `frameshift %s --help`", out->verb->name,
                       argv[optind + 1 + out->verb->args_max], out->verb->name);
    }
    out->argument = words > 1 ? argv[optind + 1] : NULL;
    if (out->argument && *out->argument == '\0') {
        return fs_fail(err, FS_USAGE, "%s: %s is empty", out->verb->name, out->verb->args);
    }
    return FS_OK;
}

fs_status_t opts_parse(int argc, char **argv, const struct verb *verbs, size_t verb_count, struct tool_options *out,
                       struct fs_error *err)
{
    struct option list[FS_ARRAY_SIZE(specs) + 1] = { { 0 } };
    int seen[FS_ARRAY_SIZE(specs)], id;
    size_t seen_count = 0;

    *out = (struct tool_options){ .machine = "xen" };
    for (size_t i = 0; i < FS_ARRAY_SIZE(specs); i++) {
        const char *arg = specs[i].arg;
        list[i] = (struct option){ specs[i].name, !arg ? no_argument : arg[0] == '[' ? optional_argument : required_argument, NULL,
                                   specs[i].id };
    }
    /* A caller that reads JSON gets its errors as JSON too, wherever on the line the option stands. */
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        out->json = out->json || strcmp(argv[i], "--json") == 0;
    }
    optind = 0;                     /* GNU: start over, also after an earlier parse */
    opterr = 0;
    while ((id = getopt_long(argc, argv, ":dhnq", list, NULL)) != -1) {
        const struct option_spec *o = spec_of(id);
        struct fs_error why;
        if (!o) {
            const char *word = argv[optind - 1 > 0 ? optind - 1 : 0];
            return fs_fail(err, FS_USAGE, id == ':' ? "%s needs a value; try `frameshift --help`" :
                           "unknown option '%s' (or a value that it does not take); try `frameshift --help`", word);
        }
        bool again = false;
        for (size_t i = 0; i < seen_count; i++) {
            again = again || seen[i] == id;
        }
        if (!again) {
            seen[seen_count++] = id;
        }
        if (!optarg) {
            option_flag(id, out);
        } else if (option_value(id, optarg, out, &why) != FS_OK) {
            return fs_fail(err, FS_USAGE, "--%s: %s", o->name, why.text);
        }
    }
    fs_status_t s = check_words(argc, argv, verbs, verb_count, seen, seen_count, out, err);
    if (s == FS_OK && out->json && out->json_file) {
        return fs_fail(err, FS_USAGE, "--json and --json=FILE: give one of them");
    }
    if (s == FS_OK && out->evict_dir && !out->evict) {
        return fs_fail(err, FS_USAGE, "--evict-dir says where --evict saves guests; give --evict too");
    }
    if (s == FS_OK && out->verb && out->verb->options & OPTS_SHRINK && out->to_pages == 0 && !out->help) {
        return fs_fail(err, FS_USAGE, "%s needs --to SIZE; try `frameshift %s --help`", out->verb->name, out->verb->name);
    }
    return s;
}

static void print_options(FILE *f, const struct verb *verb, bool own)
{
    for (size_t i = 0; i < FS_ARRAY_SIZE(specs); i++) {
        const struct option_spec *o = &specs[i];
        char left[40];
        bool mine = o->verbs != 0;
        if (!o->help || mine != own || (mine && verb && !(o->verbs & verb->options))) {
            continue;
        }
        int n = o->id < 256 ? snprintf(left, sizeof(left), "-%c, --%s", o->id, o->name)
                            : snprintf(left, sizeof(left), "    --%s", o->name);
        if (o->arg && n > 0 && (size_t)n < sizeof(left)) {
            (void)snprintf(left + n, sizeof(left) - (size_t)n, "%s%s", o->arg[0] == '[' ? "" : " ", o->arg);
        }
        fprintf(f, "  %-28s %s\n", left, o->help);
    }
}

static void print_exit_codes(FILE *f)
{
    int highest = 0;

    fputs("\nExit codes:\n", f);
    for (int s = 0; s < FS_STATUS_COUNT; s++) {
        int code = fs_status_exit_code((fs_status_t)s);
        highest = code > highest ? code : highest;
    }
    for (int code = 0; code <= highest; code++) {
        bool first = true;
        for (int i = 0; i < FS_STATUS_COUNT; i++) {
            if (fs_status_exit_code((fs_status_t)i) != code) {
                continue;
            }
            if (first) {
                fprintf(f, "  %-3d %s", code, fs_status_text((fs_status_t)i));
            } else {
                fprintf(f, "; %s", fs_status_text((fs_status_t)i));
            }
            first = false;
        }
        if (!first) {
            fputc('\n', f);
        }
    }
}

void opts_help(FILE *f, const struct verb *verbs, size_t verb_count, const struct verb *verb)
{
    if (verb) {
        fprintf(f, "usage: frameshift %s%s%s [option]...\n\n%s\n", verb->name, *verb->args ? " " : "", verb->args, verb->help);
        if (verb->options != 0) {
            fprintf(f, "\nOptions of %s:\n", verb->name);
            print_options(f, verb, true);
        }
        fputs("\nOptions of every verb:\n", f);
        print_options(f, verb, false);
        fputs("\nTimes may carry a unit: 250ms, 1.5s. frameshift(1) has the whole story, exit codes included.\n", f);
        return;
    }
    fputs("usage: frameshift VERB [argument] [option]...\n"
          "Moves machine frames under running Xen guests: empties a DIMM while they run.\n\nVerbs:\n", f);
    for (size_t i = 0; i < verb_count; i++) {
        char left[40];
        (void)snprintf(left, sizeof(left), "%s %s", verbs[i].name, verbs[i].args);
        fprintf(f, "  %-28s %s\n", left, verbs[i].summary);
    }
    fputs("\nOptions of every verb:\n", f);
    print_options(f, NULL, false);
    fputs("\n`frameshift VERB --help` tells what a verb does and which options it has.\n", f);
    print_exit_codes(f);
}
