/*
 * test_opts.c - what the command line may say, and what it may not.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "../../tools/opts.h"

static const struct verb verbs[] = {
    { "status", "", "s", "h", 0, 0, 0, NULL },
    { "evacuate", "TARGET", "s", "h", OPTS_EVACUATE, 1, 1, NULL },
    { "drill", "", "s", "h", OPTS_DRILL, 0, 0, NULL },
    { "fsck", "[DOMAIN]", "s", "h", OPTS_FSCK, 0, 1, NULL },
    { "shrink", "GUEST", "s", "h", OPTS_SHRINK, 1, 1, NULL },
    { "meminfo", "GUEST", "s", "h", OPTS_MEMINFO, 1, 1, NULL },
};

static struct tool_options parsed;
static struct fs_error error;

/* Splits line at blanks; "_" stands for an empty word. */
static fs_status_t parse(const char *line)
{
    static char copy[8192];
    static char *argv[1024];
    int argc = 0;

    assert_true(strlen(line) < sizeof(copy));
    strcpy(copy, line);
    argv[argc++] = (char *)(uintptr_t)"frameshift";
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " ")) {
        argv[argc++] = strcmp(word, "_") == 0 ? word + 1 : word;
    }
    argv[argc] = NULL;
    error.text[0] = '\0';
    return opts_parse(argc, argv, verbs, FS_ARRAY_SIZE(verbs), &parsed, &error);
}

static void assert_refused(const char *line, const char *words)
{
    assert_int_equal(parse(line), FS_USAGE);
    if (!strstr(error.text, words)) {
        fail_msg("'%s' was refused with '%s', not with '%s'", line, error.text, words);
    }
}

static void test_defaults(void **state)
{
    (void)state;
    assert_int_equal(parse("evacuate NODE1"), FS_OK);
    assert_string_equal(parsed.verb->name, "evacuate");
    assert_string_equal(parsed.argument, "NODE1");
    assert_string_equal(parsed.machine, "xen");
    assert_null(parsed.map_file);
    assert_null(parsed.state_dir);
    assert_false(parsed.json || parsed.quiet || parsed.debug || parsed.dry_run || parsed.verify || parsed.evict || parsed.pause);
    assert_int_equal(parsed.max_blackout_ns, 0);
    assert_int_equal(parsed.exclude_count, 0);
    assert_int_equal(parsed.crash_at, 0);
}

static void test_everything(void **state)
{
    (void)state;
    assert_int_equal(parse("--json evacuate -n --verify NODE1 --evict --evict-dir /e --max-blackout 250 --max-pause=2ms "
                           "--suspend-timeout 90 --exclude pv1 --exclude 7 --map m --state-dir d --debug -q --machine embedded "
                           "--crash-at 17"), FS_OK);
    assert_true(parsed.json && parsed.dry_run && parsed.verify && parsed.evict && parsed.debug && parsed.quiet);
    assert_string_equal(parsed.argument, "NODE1");
    assert_string_equal(parsed.evict_dir, "/e");
    assert_int_equal(parsed.max_blackout_ns, 250000000);
    assert_int_equal(parsed.max_pause_ns, 2000000);
    assert_int_equal(parsed.suspend_timeout_ns, 90000000000);
    assert_int_equal(parsed.exclude_count, 2);
    assert_string_equal(parsed.exclude[0], "pv1");
    assert_string_equal(parsed.exclude[1], "7");
    assert_string_equal(parsed.map_file, "m");
    assert_string_equal(parsed.state_dir, "d");
    assert_string_equal(parsed.machine, "embedded");
    assert_int_equal(parsed.crash_at, 17);
}

static void test_drill(void **state)
{
    (void)state;
    assert_int_equal(parse("drill --seed 7 --seeds 1000 --dimms 3x16 --guest pv=a,8,2,1 --guest pvh=b,8,1,1 --threads --fail-call 12 --html f "
                           "--evict --max-blackout 2ms --max-pause 1ms"), FS_OK);
    assert_int_equal(parsed.seed, 7);
    assert_int_equal(parsed.seeds, 1000);
    assert_int_equal(parsed.dimms, 3);
    assert_int_equal(parsed.dimm_mib, 16);
    assert_int_equal(parsed.guest_count, 2);
    assert_string_equal(parsed.guests[1], "pvh=b,8,1,1");
    assert_int_equal(parsed.fail_call, 12);
    assert_string_equal(parsed.html_file, "f");
    assert_true(parsed.threads && parsed.evict && !parsed.machine_given);
    assert_int_equal(parse("drill --machine embedded"), FS_OK);
    assert_true(parsed.machine_given);
    assert_refused("drill NODE1", "unexpected word 'NODE1'");
    assert_refused("drill --seed 0", "out of range");
    assert_refused("drill --dimms 4", "write 4x64");
    assert_refused("drill --dimms 1x64", "between 2 and 16");
    assert_refused("drill --dimms 4x", "a number is missing");
    assert_refused("drill --dimms 4x8", "between 16 and");
    assert_refused("drill --dimms 4x64x2", "no number");
    assert_refused("drill --guest=", "--guest: it is empty");
    assert_refused("drill --verify", "does not take --verify");
    assert_refused("evacuate NODE1 --seed 3", "does not take --seed");
}

static void test_sizes(void **state)
{
    static const struct { const char *text; uint64_t pages; } good[] = {
        { "512M", 131072 }, { "1G", 262144 }, { "24MiB", 6144 }, { "4K", 1 }, { "1t", UINT64_C(1) << 28 }, { "1024T", UINT64_C(1) << 38 },
    };
    static const char *const bad[] = { "512", "M", "", "1.5G", "-1M", "+1M", "1MB", "1 M", "5K", "0M", "2000T", "99999999999999999999G", "1MiBs",
                                       "000000000000000000000000000001M", "0x10M" };

    (void)state;
    for (size_t i = 0; i < FS_ARRAY_SIZE(good); i++) {
        uint64_t pages = 0;
        if (opts_size(good[i].text, &pages, &error) != FS_OK || pages != good[i].pages) {
            fail_msg("%s: %llu pages, %s", good[i].text, (unsigned long long)pages, error.text);
        }
    }
    for (size_t i = 0; i < FS_ARRAY_SIZE(bad); i++) {
        uint64_t pages;
        if (opts_size(bad[i], &pages, &error) != FS_USAGE) {
            fail_msg("'%s' was taken", bad[i]);
        }
    }
    assert_int_equal(parse("shrink mail --to 512M --dry-run"), FS_OK);
    assert_int_equal(parsed.to_pages, 131072);
    assert_string_equal(parsed.argument, "mail");
    assert_refused("shrink mail", "--to");
    assert_refused("shrink mail --to 5", "size");
    assert_refused("shrink --to 5M", "GUEST");
    assert_refused("evacuate NODE1 --to 5M", "--to");
    assert_refused("shrink mail --to 5M --evict", "--evict");
}

static void test_settings(void **state)
{
    static const char *const bad[] = { "x", "=5", "x=", "x=-1", "x=5x", "X=5", "a b=5", "x= 5", "a_name_that_is_longer_than_32_bytes=1",
                                        "x=99999999999999999999" };
    static const char *const one = "meminfo mail --set x_1=7";

    (void)state;
    assert_int_equal(parse(one), FS_OK);
    assert_int_equal(parsed.set_count, 1);
    assert_string_equal(parsed.sets[0].name, "x_1");
    assert_int_equal(parsed.sets[0].value, 7);
    assert_int_equal(parse("meminfo mail --set a=1 --set b=2"), FS_OK);
    assert_int_equal(parsed.set_count, 2);
    assert_string_equal(parsed.sets[1].name, "b");
    for (size_t i = 0; i < FS_ARRAY_SIZE(bad); i++) {
        char *words[] = { (char *)(uintptr_t)"frameshift", (char *)(uintptr_t)"meminfo", (char *)(uintptr_t)"mail", (char *)(uintptr_t)"--set",
                          (char *)(uintptr_t)bad[i], NULL };
        if (opts_parse(5, words, verbs, FS_ARRAY_SIZE(verbs), &parsed, &error) != FS_USAGE) {
            fail_msg("'%s' was taken", bad[i]);
        }
    }
    assert_refused("meminfo", "GUEST");
    assert_refused("shrink mail --to 5M --set a=1", "--set");
    assert_refused("meminfo mail --to 5M", "--to");
}

static void test_words(void **state)
{
    (void)state;
    assert_refused("_", "unknown verb ''");
    assert_refused("", "no verb");
    assert_refused("evacuate", "needs TARGET");
    assert_refused("evacuate _", "TARGET is empty");
    assert_refused("evacuate a b", "unexpected word 'b'");
    assert_refused("status a", "unexpected word 'a'");
    assert_refused("frobnicate", "unknown verb 'frobnicate'");
    assert_refused("status --frobnicate", "unknown option '--frobnicate'");
    assert_refused("status --quiet=yes", "'--quiet=yes'");
    assert_refused("status --json=", "--json: it is empty");
    assert_refused("status --json --json=f", "give one of them");
    assert_refused("status -z", "unknown option '-z'");
    assert_refused("evacuate NODE1 --map", "--map needs a value");
    assert_int_equal(parse("fsck"), FS_OK);
    assert_null(parsed.argument);
    assert_int_equal(parse("fsck pv1 --pause"), FS_OK);
    assert_true(parsed.pause);
    assert_int_equal(parse("evacuate -- --odd-name"), FS_OK);
    assert_string_equal(parsed.argument, "--odd-name");
}

/* I2: what a verb does not take is refused. */
static void test_foreign_options(void **state)
{
    static const char *const lines[] = {
        "status --dry-run", "status --evict", "status --verify", "status --max-pause 1", "fsck --crash-at 1", "fsck --exclude 1",
        "fsck --max-blackout 1", "fsck --suspend-timeout 1", "fsck --evict-dir d", "evacuate NODE1 --pause", "status --pause",
    };

    (void)state;
    for (size_t i = 0; i < FS_ARRAY_SIZE(lines); i++) {
        assert_refused(lines[i], "does not take");
    }
    assert_refused("evacuate NODE1 --evict-dir d", "give --evict too");
}

static void test_help(void **state)
{
    (void)state;
    assert_int_equal(parse("--help"), FS_OK);
    assert_true(parsed.help && !parsed.verb);
    assert_int_equal(parse("evacuate --help"), FS_OK);
    assert_true(parsed.help && parsed.verb == &verbs[1]);
    assert_int_equal(parse("--version"), FS_OK);
    assert_true(parsed.version && !parsed.verb);
}

/* A reader of JSON learns of a wrong command line as JSON: the flag is known even where parsing stops before it. */
static void test_json_is_seen_first(void **state)
{
    (void)state;
    assert_refused("status --frobnicate --json", "unknown option");
    assert_true(parsed.json);
    assert_refused("evacuate a -- b --json", "unexpected word");
    assert_false(parsed.json);
}

static void test_json_file(void **state)
{
    (void)state;
    assert_int_equal(parse("evacuate --json=f NODE1"), FS_OK);
    assert_false(parsed.json);
    assert_string_equal(parsed.json_file, "f");
    assert_int_equal(parse("evacuate --json NODE1"), FS_OK);    /* the file is never a word of its own */
    assert_true(parsed.json);
    assert_null(parsed.json_file);
    assert_string_equal(parsed.argument, "NODE1");
}

static void test_strings(void **state)
{
    (void)state;
    assert_int_equal(parse("status --machine embedded:dimms=4"), FS_OK);
    assert_string_equal(parsed.machine, "embedded:dimms=4");
    assert_refused("status --machine embedded4", "is no machine");
    assert_refused("status --map _", "--map: it is empty");
    assert_refused("status --state-dir _", "--state-dir: it is empty");
    assert_refused("evacuate a --exclude _", "--exclude: it is empty");
    assert_refused("status --machine vmware", "'vmware' is no machine");
}

static void test_exclude_limit(void **state)
{
    static char line[8192];
    size_t at = (size_t)sprintf(line, "evacuate NODE1");

    (void)state;
    for (int i = 0; i < OPTS_EXCLUDE_MAX; i++) {
        at += (size_t)sprintf(line + at, " --exclude %d", i);
    }
    assert_int_equal(parse(line), FS_OK);
    assert_int_equal(parsed.exclude_count, OPTS_EXCLUDE_MAX);
    strcpy(line + at, " --exclude x");
    assert_refused(line, "are excluded");
}

static void test_numbers(void **state)
{
    static const char *const bad[] = { "", "-1", "+1", " 1", "1 ", "0x10", "1e3", "18446744073709551616", "99999999999999999999999", "a" };
    uint64_t n = 0;

    (void)state;
    for (size_t i = 0; i < FS_ARRAY_SIZE(bad); i++) {
        assert_int_equal(opts_number(bad[i], 0, UINT64_MAX, &n, &error), FS_USAGE);
    }
    assert_int_equal(opts_number("18446744073709551615", 0, UINT64_MAX, &n, &error), FS_OK);
    assert_true(n == UINT64_MAX);
    assert_int_equal(opts_number("00017", 0, 20, &n, &error), FS_OK);
    assert_int_equal(n, 17);
    assert_int_equal(opts_number("21", 0, 20, &n, &error), FS_USAGE);
    assert_int_equal(opts_number("0", 1, 20, &n, &error), FS_USAGE);
    assert_refused("evacuate a --crash-at 0", "--crash-at");
    assert_refused("evacuate a --crash-at 4294967296", "--crash-at");
}

static void test_durations(void **state)
{
    const struct { const char *text; uint64_t unit, ns; } good[] = {
        { "1", 1000000, 1000000 }, { "250ms", 1000000000, 250000000 }, { "1.5s", 1000000, 1500000000 }, { "100us", 1000000, 100000 },
        { "2m", 1000000, UINT64_C(120000000000) }, { "0.25", 1000000, 250000 }, { "0.000001s", 1, 1000 },
        { "86400s", 1, UINT64_C(86400000000000) }, { "86400", 1000000000, UINT64_C(86400000000000) },
    };
    static const char *const bad[] = { "", "0", "0ms", "0.0s", "-1", "+1", " 1", "1 ms", "1h", "1mss", "ms", ".5s", "1.s", "1..5s", "1e3",
                                       "86401s", "1441m", "99999999999999999999", "0.0000000001s", "1,5s", "infinity", "nan" };
    uint64_t ns;

    (void)state;
    for (size_t i = 0; i < FS_ARRAY_SIZE(good); i++) {
        ns = 0;
        assert_int_equal(opts_duration(good[i].text, good[i].unit, &ns, &error), FS_OK);
        assert_true(ns == good[i].ns);
    }
    for (size_t i = 0; i < FS_ARRAY_SIZE(bad); i++) {
        if (opts_duration(bad[i], 1000000, &ns, &error) != FS_USAGE) {
            fail_msg("'%s' was taken for %llu ns", bad[i], (unsigned long long)ns);
        }
    }
    assert_refused("evacuate a --max-blackout 0", "--max-blackout");
    assert_refused("evacuate a --max-pause x", "--max-pause");
    assert_refused("evacuate a --suspend-timeout 2d", "--suspend-timeout");
}

/* Help names every option of the verb that is not hidden, and all exit codes. */
static void test_help_text(void **state)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *f = open_memstream(&text, &bytes);

    (void)state;
    assert_non_null(f);
    opts_help(f, verbs, FS_ARRAY_SIZE(verbs), &verbs[1]);
    opts_help(f, verbs, FS_ARRAY_SIZE(verbs), NULL);
    assert_int_equal(fclose(f), 0);
    static const char *const words[] = { "--dry-run", "--max-blackout MS", "--exclude DOMAIN", "--json", "--map FILE", "evacuate TARGET" };
    for (size_t i = 0; i < FS_ARRAY_SIZE(words); i++) {
        assert_non_null(strstr(text, words[i]));
    }
    assert_null(strstr(text, "crash-at"));
    assert_null(strstr(text, "--pause"));
    for (int s = 0; s < FS_STATUS_COUNT; s++) {
        assert_non_null(strstr(text, fs_status_text((fs_status_t)s)));
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults), cmocka_unit_test(test_everything), cmocka_unit_test(test_drill), cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_settings), cmocka_unit_test(test_words),
        cmocka_unit_test(test_foreign_options), cmocka_unit_test(test_help), cmocka_unit_test(test_json_is_seen_first), cmocka_unit_test(test_json_file),
        cmocka_unit_test(test_strings), cmocka_unit_test(test_exclude_limit), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_durations), cmocka_unit_test(test_help_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
