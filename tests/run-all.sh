#!/bin/bash
# Every test: layers, unit and CLI tests, and the scenarios on real Xen under QEMU.
# usage: run-all.sh BUILD
# Scenarios are the lines "name: command" of tests/xenhost/tests.list, run from the top folder, one boot at a time.
# A command finds BUILD and TEST_OUT (a folder of its own for results) in its environment.
# Invariants:
#   A1  the last line is "N passed, N failed", over everything; the exit status is 0 only where nothing failed.
#   A2  nothing is skipped: a scenario that cannot boot has failed.
set -uo pipefail

export BUILD=${1:?usage: run-all.sh BUILD}
# A boot takes four times as long where the machine is busy; a scenario has a limit of its own below this one.
readonly SCENARIO_LIMIT_S=${SCENARIO_LIMIT_S:-1800}

cd "$(dirname "$(readlink -f "$0")")/.." || exit 1
LIST=tests/xenhost/tests.list
LOGS=$BUILD/test-logs
mkdir -p "$LOGS" || exit 1
passed=0 failed=0

report() {  # NAME STATUS START LOG
    local seconds
    seconds=$(awk -v a="$3" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }')
    if (($2 == 0)); then
        printf 'ok      %-40s %8s s\n' "$1" "$seconds"
        passed=$((passed + 1))
    else
        printf 'FAILED  %-40s %8s s  status %d, see %s\n' "$1" "$seconds" "$2" "$4"
        tail -n 40 "$4" | sed 's/^/        | /'
        failed=$((failed + 1))
    fi
}

run_layers() {
    local start=$EPOCHREALTIME
    tests/layers.sh >"$LOGS/layers.log" 2>&1
    report layers $? "$start" "$LOGS/layers.log"
}

# The unit runner prints its own lines; its totals are added to ours.
run_units() {
    local last='' line
    while IFS= read -r line; do
        [[ -z $last ]] || printf '%s\n' "$last"
        last=$line
    done < <(tests/run-unit.sh "$BUILD" 2>&1)
    if [[ $last =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]] && ((BASH_REMATCH[1] + BASH_REMATCH[2] > 0)); then
        passed=$((passed + BASH_REMATCH[1]))
        failed=$((failed + BASH_REMATCH[2]))
    else
        echo "FAILED  unit tests: the runner ended with '$last'"
        failed=$((failed + 1))
    fi
}

run_scenarios() {
    local line name command start
    [[ -f $LIST ]] || return 0
    while IFS= read -r line || [[ -n $line ]]; do
        [[ $line =~ ^[[:space:]]*(#|$) ]] && continue
        if ! [[ $line =~ ^([A-Za-z0-9._-]+):[[:space:]]+(.+)$ ]]; then
            echo "FAILED  $LIST: malformed line '$line'"
            failed=$((failed + 1))
            continue
        fi
        name=${BASH_REMATCH[1]} command=${BASH_REMATCH[2]}
        start=$EPOCHREALTIME
        mkdir -p "$LOGS/$name"
        TEST_OUT=$LOGS/$name timeout -k 30 "$SCENARIO_LIMIT_S" bash -c "$command" </dev/null >"$LOGS/xen-$name.log" 2>&1
        report "xen/$name" $? "$start" "$LOGS/xen-$name.log"
    done <"$LIST"
}

run_layers
run_units
run_scenarios
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
