#!/bin/bash
# Runs every unit test and CLI test of a build; none of them needs Xen, root or a network.
# usage: run-unit.sh BUILD     (JOBS=N runs N tests side by side; as many as there are processors otherwise)
# Invariants:
#   U1  a test passes only by exit status 0 within its time limit; nothing is skipped.
#   U2  the last line is "N passed, N failed"; the exit status is 0 only where nothing failed and something ran.
#   U3  tests share no file but the build: each has its own temporary folder, and its log.
# The output of each test is in BUILD/test-logs/NAME.log; of a failed one its end is shown.
set -uo pipefail

export BUILD=${1:?usage: run-unit.sh BUILD}
# Emulated and sanitized builds on a loaded machine are ten times slower than usual; a hang is what this is to catch.
readonly LIMIT_S=${TEST_LIMIT_S:-600}
readonly JOBS=${JOBS:-$(nproc)}
[[ $JOBS =~ ^[1-9][0-9]*$ ]] || { echo "run-unit.sh: JOBS=$JOBS is no number of tests" >&2; exit 2; }

cd "$(dirname "$(readlink -f "$0")")/.." || exit 1
LOGS=$BUILD/test-logs
mkdir -p "$LOGS" || exit 1
passed=0 failed=0 running=0
declare -A name_of start_of

# reap: takes the next test that ends and prints its line.
reap() {
    local pid status name log seconds
    wait -n -p pid
    status=$?
    running=$((running - 1))
    name=${name_of[$pid]} log=$LOGS/${name_of[$pid]//\//_}.log
    seconds=$(awk -v a="${start_of[$pid]}" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.2f", b - a }')
    if ((status == 0)); then
        printf 'ok      %-40s %8s s\n' "$name" "$seconds"
        passed=$((passed + 1))
        return
    fi
    failed=$((failed + 1))
    if ((status == 124 || status == 137)); then
        printf 'FAILED  %-40s %8s s  time limit or killed (status %d), see %s\n' "$name" "$seconds" "$status" "$log"
    else
        printf 'FAILED  %-40s %8s s  status %d, see %s\n' "$name" "$seconds" "$status" "$log"
    fi
    tail -n 25 "$log" | sed 's/^/        | /'
}

run_one() {
    local name=$1
    shift
    while ((running >= JOBS)); do reap; done
    timeout -k 10 "$LIMIT_S" "$@" </dev/null >"$LOGS/${name//\//_}.log" 2>&1 &
    name_of[$!]=$name start_of[$!]=$EPOCHREALTIME
    running=$((running + 1))
}

shopt -s nullglob
# The long ones first, so that none of them runs alone at the end.
for test in "$BUILD"/tests/{drill,hv,tools,conform,guest,prop}/test_*; do
    [[ -f $test && -x $test && $test != *.* ]] || continue
    run_one "${test#"$BUILD"/tests/}" "$test"
done
for test in "$BUILD"/tests/fuzz/fuzz_*; do
    [[ -f $test && -x $test && $test != *.* ]] || continue
    run_one "fuzz/${test##*/fuzz_} (corpus)" "$test" "tests/fuzz/corpus/${test##*/fuzz_}"
done
run_one guest-symbols make --no-print-directory BUILD="$BUILD" guest-symbols
for test in tests/cli/test_*.sh; do
    run_one "${test#tests/}" bash "$test" "$BUILD"
done
while ((running > 0)); do reap; done

echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
