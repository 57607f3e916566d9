# shellcheck shell=bash
# Shared by the CLI tests: the tool under test, a folder of its own, checks that count.
# usage: . lib.sh BUILD   Invariant: a test that ends without finish() has failed.
set -uo pipefail
BUILD=${1:?usage: TEST BUILD}
TOP=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.." && pwd)
cd "$TOP" || exit 1
FAKE=$BUILD/tests/tools/frameshift-fake
[[ -x $FAKE ]] || { echo "no $FAKE; run make tests"; exit 1; }
WORK=$(mktemp -d) || exit 1
trap 'rm -rf "$WORK"' EXIT
checks=0 faults=0 code=0

check() {  # WORDS COMMAND...: the command must succeed
    local words=$1
    shift
    checks=$((checks + 1))
    if ! "$@"; then
        faults=$((faults + 1))
        echo "FAULT: $words"
        echo "  output: $(head -c 600 "$WORK/out" 2>/dev/null)"
        echo "  errors: $(head -c 600 "$WORK/err" 2>/dev/null)"
    fi
}

# fake SCENARIO ARGUMENT...: runs the tool; $code, $WORK/out, $WORK/err.
fake() {
    local scenario=$1
    shift
    FAKE_HV=$scenario timeout -k 5 60 "$FAKE" "$@" >"$WORK/out" 2>"$WORK/err" </dev/null
    code=$?
}

code_is() { [[ $code == "$1" ]]; }
out_has() { grep -qF -- "$1" "$WORK/out"; }
err_has() { grep -qF -- "$1" "$WORK/err"; }
err_empty() { [[ ! -s $WORK/err ]]; }
last_is() { [[ $(tail -n 1 "$WORK/out") == "{\"type\":\"$1\""*'}' ]]; }
count_is() { [[ $(grep -c "^{\"type\":\"$1\"" "$WORK/out") == "$2" ]]; }
all_lines_are_objects() { [[ -s $WORK/out ]] && ! grep -qvE '^\{"type":"[a-z]+".*\}$' "$WORK/out"; }

finish() {
    echo "$checks checks, $faults faults"
    ((faults == 0 && checks > 0))
    exit
}
