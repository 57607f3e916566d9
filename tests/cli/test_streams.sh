#!/bin/bash
# Readers that go away, do not read, or are full: none of them may stop an evacuation half-way.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"

FAKE_HV=ok "$FAKE" evacuate NODE1 >/dev/full 2>"$WORK/err"
code=$?
check "a full disk is an error, after the work" code_is 11
check "and is told" err_has "the output could not be written"

# A reader that leaves after one line: the tool must live on to its end.
FAKE_HV=partial,flood "$FAKE" evacuate NODE1 --json 2>"$WORK/err" | head -n 1 >"$WORK/out"
code=${PIPESTATUS[0]}
check "a closed pipe does not kill (code $code)" code_is 1

# A reader that sleeps: 100,000 events do not fit into pipe and ring, so some must be dropped, and counted, while the
# engine went on; what was written and what was dropped add up.
mkfifo "$WORK/pipe"
{ sleep 2; cat; } <"$WORK/pipe" >"$WORK/out" &
reader=$!
FAKE_HV=partial,flood "$FAKE" evacuate NODE1 --json >"$WORK/pipe" 2>"$WORK/err"
code=$?
wait "$reader"
check "a slow reader: exit code as ever (code $code)" code_is 1
check "a slow reader: every line whole" all_lines_are_objects
check "a slow reader: report comes last" last_is report
written=$(grep -c '"event":"pause"' "$WORK/out")
dropped=$(sed -n 's/.*"event":"dropped","events":\([0-9]*\).*/\1/p' "$WORK/out" | awk '{ n += $1 } END { print n + 0 }')
others=$(grep '"type":"event"' "$WORK/out" | grep -cvE '"event":"(pause|dropped)"')
# Four other events: plan-begin, plan-end, warning, resume; any of them may be among the dropped.
check "a slow reader: written $written + $others + dropped $dropped" test $((written + others + dropped)) -eq 100004
check "a slow reader: something was dropped" test "$dropped" -gt 0

# A terminal gets progress on one line, rewritten and taken away again, and no control characters of a guest's name.
FAKE_HV=slow timeout -k 5 60 script -qec "timeout -s TERM 3 $FAKE evacuate NODE1" /dev/null >"$WORK/out" 2>&1 </dev/null
check "progress: percent, count, rate, time left" bash -c "grep -aqE '[0-9]+%  [0-9,]+ of 196,578 frames  [0-9,]+/s  [0-9]+:[0-9]{2} left  pv1: copying' '$WORK/out'"
lines=$(tr '\r' '\n' <"$WORK/out" | grep -ac 'of 196,578 frames')
check "progress: at most ten lines a second ($lines in three)" test "$lines" -le 35 -a "$lines" -ge 5
check "progress: the line is cleared" bash -c "grep -aq \$'\\r\\x1b\\\\[K' '$WORK/out'"
check "progress: the plan is whole" bash -c "grep -aq 'Plan for NODE1: mfn' '$WORK/out'"
finish
