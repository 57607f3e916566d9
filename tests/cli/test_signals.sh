#!/bin/bash
# Signals while guests may be suspended: the tool asks the engine to stop, and neither dies nor stands still.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
set -m  # background jobs keep SIGINT

start() {
    rm -f "$WORK/out"       # what the last run wrote must not pass for this one's
    FAKE_HV=slow "$FAKE" evacuate NODE1 --json >"$WORK/out" 2>"$WORK/err" </dev/null &
    tool=$!
    for _ in {1..200}; do
        grep -qs '"event":"copy"' "$WORK/out" && return 0
        sleep 0.05
    done
    echo "FAULT: the tool did not start"
    exit 1
}

for signal in INT TERM HUP QUIT; do
    start
    kill -s "$signal" "$tool"
    wait "$tool"
    code=$?
    check "$signal: exit code 14, not $code" code_is 14
    check "$signal: the report tells" bash -c "tail -n 1 '$WORK/out' | grep -q '^{\"type\":\"report\",\"status\":\"INTERRUPTED\",\"exit_code\":14'"
done

# A shrink stops after a step and tells how far it came.
rm -f "$WORK/out"
FAKE_HV=slow "$FAKE" shrink pv1 --to 128M --json >"$WORK/out" 2>"$WORK/err" </dev/null &
tool=$!
for _ in {1..200}; do grep -qs '"event":"shrink"' "$WORK/out" && break; sleep 0.05; done
kill -s INT "$tool"
wait "$tool"
code=$?
check "shrink: INT: exit code 14, not $code" code_is 14
check "shrink: INT: the report tells" bash -c "tail -n 1 '$WORK/out' | grep -q '^{\"type\":\"shrink\",\"status\":\"INTERRUPTED\",\"exit_code\":14'"

# ^Z and writing from the background would leave a suspended guest to nobody.
for signal in TSTP TTOU PIPE; do
    start
    kill -s "$signal" "$tool"
    sleep 0.3
    state=$(awk '/^State:/ { print $2 }' "/proc/$tool/status" 2>/dev/null)
    check "$signal: goes on (state '$state')" test "$state" = S -o "$state" = R
    kill -s TERM "$tool"
    wait "$tool"
    code=$?
    check "$signal: ends as asked, not $code" code_is 14
done

# Two signals: the second one says that the first was heard.
start
kill -s TERM "$tool"
kill -s INT "$tool"
wait "$tool"
code=$?
check "twice: exit code 14, not $code" code_is 14

# A signal that the parent ignores on purpose (nohup) stays ignored.
rm -f "$WORK/out"
(trap '' HUP; FAKE_HV=slow exec "$FAKE" evacuate NODE1 --json >"$WORK/out" 2>"$WORK/err" </dev/null) &
tool=$!
for _ in {1..200}; do grep -qs '"event":"copy"' "$WORK/out" && break; sleep 0.05; done
kill -s HUP "$tool"
sleep 0.3
check "nohup: still running" kill -0 "$tool"
kill -s TERM "$tool"
wait "$tool"
code=$?
check "nohup: ends by TERM with 14, not $code" code_is 14

# kill -9 is what the journal is for: nothing here may survive it.
start
kill -s KILL "$tool"
wait "$tool"
code=$?
check "KILL: 137, not $code" code_is 137
finish
