#!/bin/bash
# Every verb with every kind of answer: exit code, where the words go, which JSON lines come.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

# ---- exit codes ----
while read -r want scenario arguments; do
    # shellcheck disable=SC2086  # words are arguments
    fake "$scenario" $arguments
    check "exit code of '$arguments' ($scenario): $want, not $code" code_is "$want"
done <<'TABLE'
1 partial evacuate NODE1
0 ok evacuate NODE1
0 ok evacuate NODE1 --dry-run
6 refuse evacuate NODE1
6 refuse evacuate NODE1 --dry-run
12 corrupt evacuate NODE1 --verify
3 ok evacuate NODE7
3 ok evacuate NODE1 --exclude nobody
0 ok evacuate NODE1 --exclude pv1 --exclude 1
5 noxen evacuate NODE1
5 noxen topology
5 noxen status
0 noxen version
9 ok --machine embedded status
0 ok topology
0 ok status
0 ok online NODE1
3 ok online NODE9
0 ok fsck
0 ok fsck pv1 --pause
3 ok fsck nobody
12 corrupt fsck
0 ok recover
0 killed recover
0 ok drill
12 corrupt drill
0 ok drill --seeds 3 --machine embedded
2 ok drill --machine xen
2 ok drill --map x
2 ok drill NODE1
2 ok drill --guest
2 ok
2 ok evacuate
2 ok frobnicate
2 ok status --evict
2 ok evacuate NODE1 --max-pause 0
0 ok --help
0 ok evacuate --help
0 ok --version
TABLE

# ---- text: results on stdout, the rest on stderr ----
fake partial evacuate NODE1
check "plan comes before the report" out_has "Plan for NODE1"
check "report" out_has "NODE1: done, but some frames stay"
check "a warning goes to stderr, cleaned" err_has 'warning: evil\x1b[2J\xff\u{202e}~: bad \x1b[31m words'
check "no raw escape on stderr" bash -c "! grep -q \$'\\x1b' '$WORK/err'"
check "no progress where stderr is no terminal" bash -c "! grep -q '%' '$WORK/err'"
fake ok evacuate NODE1 --quiet
check "--quiet: nothing on stderr" err_empty
check "--quiet: no plan" bash -c "! grep -q Plan '$WORK/out'"
check "--quiet: one line of result" out_has "NODE1: success"
fake refuse evacuate NODE1
check "a refusal says what to do" err_has "shrink guests"
check "a refusal shows the plan" out_has "Cannot run:"
fake noxen status
check "no Xen: why and what to do" err_has "boot Xen"
check "no Xen: nothing on stdout" bash -c "[[ ! -s '$WORK/out' ]]"
fake recover-due status
check "status tells of a due recovery" out_has "frameshift recover"
fake ok --help
check "help lists exit codes" out_has "run \`frameshift recover\`"
check "help hides the crash hook" bash -c "! grep -q crash-at '$WORK/out'"
fake ok evacuate NODE1 --debug
check "--debug shows events with names" err_has "resume           pv1          blackout_ns=654321000 moved=65524"

fake ok drill
check "a drill shows plan, report, step and verdict" bash -c "grep -q 'Plan for NODE1' '$WORK/out' && grep -q '^evacuate NODE1 .*no fault' '$WORK/out' && grep -q '^Drill: passed' '$WORK/out'"
check "and no advice about what to do next" bash -c "! grep -q 'Next:' '$WORK/out'"
fake ok drill --seeds 3
check "many drills: one line each" bash -c "[[ \$(grep -cE '^seed [123] ' '$WORK/out') == 3 ]] && ! grep -q 'Plan for' '$WORK/out'"
fake ok drill --quiet
check "--quiet: one line" bash -c "[[ \$(wc -l <'$WORK/out') == 1 ]]"
fake corrupt drill --html "$WORK/page.html"
check "a fault: the words, cleaned" out_has '<b>pv1</b> & \x1b[31mpage 7 differs'
check "a fault: how to repeat it" out_has '--seed 1'
check "a page is written all the same" bash -c "tail -n 1 '$WORK/page.html' | grep -q '</html>' && grep -q '>failed<' '$WORK/page.html'"
fake ok drill --html "$WORK/none/x"
check "--html FILE that cannot be written: 11, not $code" code_is 11
check "--html FILE that cannot be written: nothing was done" bash -c "[[ ! -s '$WORK/out' ]] && grep -q 'nothing was done' '$WORK/err'"
fake ok drill --html /dev/full
check "--html FILE on a full disk: 11, not $code" code_is 11

# ---- JSON lines ----
for scenario in partial ok refuse corrupt noxen; do
    fake "$scenario" evacuate NODE1 --json
    check "$scenario: every line is an object" all_lines_are_objects
    check "$scenario: the last line is the report" last_is report
    check "$scenario: one report" count_is report 1
done
fake partial evacuate NODE1 --json
check "one plan" count_is plan 1
check "events" bash -c "[[ \$(grep -c '\"event\":\"resume\"' '$WORK/out') == 1 ]]"
check "the plan comes before what follows it" bash -c "[[ \$(grep -n '\"type\":\"plan\"' '$WORK/out' | cut -d: -f1) -lt \$(grep -n '\"event\":\"resume\"' '$WORK/out' | cut -d: -f1) ]]"
check "an event carries its domain's name" bash -c "grep -q '\"event\":\"resume\".*\"domain\":1,\"name\":\"pv1\"' '$WORK/out'"
fake ok evacuate NODE7 --json
check "unknown DIMM: a report with the names there are" bash -c "grep -q '^{\"type\":\"report\",\"status\":\"NOT_FOUND\",\"exit_code\":3,\"error\":\"no DIMM .NODE7.; there are NODE0, NODE1\"' '$WORK/out'"
fake ok evacuate NODE1 --json --dry-run
check "dry run: plan and report" count_is plan 1
check "dry run: says so" bash -c "tail -n 1 '$WORK/out' | grep -q '\"dry_run\":true'"
fake ok evacuate NODE1 --json --quiet
check "--json --quiet: the report alone" bash -c "[[ \$(wc -l <'$WORK/out') == 1 ]]"
while read -r type scenario arguments; do
    # shellcheck disable=SC2086
    fake "$scenario" $arguments --json
    check "$arguments: the last line is $type" last_is "$type"
done <<'TABLE'
topology ok topology
status ok status
fsck corrupt fsck
recover killed recover
online ok online NODE1
drill ok drill
drill corrupt drill
error ok drill --machine xen
version ok version
version noxen version
error noxen status
error ok online NODE9
error ok status --evict
error ok frobnicate
TABLE

# ---- --json=FILE: both ----
fake partial evacuate NODE1 --json="$WORK/lines"
check "--json=FILE: text on stdout" out_has "NODE1: done, but some frames stay"
check "--json=FILE: no JSON there" bash -c "! grep -q '^{' '$WORK/out'"
cp "$WORK/lines" "$WORK/out"
check "--json=FILE: objects in the file" all_lines_are_objects
check "--json=FILE: the report comes last" last_is report
fake ok evacuate NODE1 --json="$WORK/none/x"
check "--json=FILE that cannot be written: 11, not $code" code_is 11
check "--json=FILE that cannot be written: nothing was done" bash -c "[[ ! -s '$WORK/out' ]] && grep -q 'nothing was done' '$WORK/err'"
fake ok evacuate NODE1 --json=/dev/full
check "--json=FILE on a full disk: 11, not $code" code_is 11
finish
