#!/bin/bash
# Every test: layers, unit and CLI tests, and the scenarios on real Xen under QEMU.
# usage: run-all.sh BUILD
# Scenarios are the lines "name: command" of tests/xenhost/tests.list, run from the top folder. "name/1": the machine is emulated by one
# thread, so where the host has two processors two such scenarios that follow each other run side by side; all others run alone.
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

# reap_scenario: waits for one of those that run and reports it.
declare -A name_of start_of
running=0
reap_scenario() {
    local pid status name
    wait -n -p pid
    status=$?
    running=$((running - 1))
    name=${name_of[$pid]}
    report "xen/$name" "$status" "${start_of[$pid]}" "$LOGS/xen-$name.log"
}

# start_scenario NAME COMMAND
start_scenario() {
    mkdir -p "$LOGS/$1"
    TEST_OUT=$LOGS/$1 timeout -k 30 "$SCENARIO_LIMIT_S" bash -c "$2" </dev/null >"$LOGS/xen-$1.log" 2>&1 &
    name_of[$!]=$1 start_of[$!]=$EPOCHREALTIME
    running=$((running + 1))
}

run_scenarios() {
    local line side_by_side at_once
    [[ -f $LIST ]] || return 0
    at_once=$(($(nproc) < 2 ? 1 : 2))
    while IFS= read -r line || [[ -n $line ]]; do
        [[ $line =~ ^[[:space:]]*(#|$) ]] && continue
        if ! [[ $line =~ ^([A-Za-z0-9._-]+)(/1)?:[[:space:]]+(.+)$ ]]; then
            echo "FAILED  $LIST: malformed line '$line'"
            failed=$((failed + 1))
            continue
        fi
        side_by_side=${BASH_REMATCH[2]:+$at_once}
        while ((running >= ${side_by_side:-1})); do reap_scenario; done
        start_scenario "${BASH_REMATCH[1]}" "${BASH_REMATCH[3]}"
        # A machine with an emulating thread for each processor has the host for itself.
        while [[ -z $side_by_side ]] && ((running > 0)); do reap_scenario; done
    done <"$LIST"
    while ((running > 0)); do reap_scenario; done
}

run_layers
run_units
run_scenarios
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
