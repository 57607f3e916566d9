#!/bin/bash
# Malformed input: descriptions of the embedded machine, ranges, sizes, times, numbers, settings, map files, a damaged state directory.
# Each row: exit code (frameshift(1)), words that the error must have (the thing, and what to do), arguments.  Nothing may be changed: the
# state directory is as it was.  usage: test_malformed.sh BUILD
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$0")/lib.sh"
TOOL=$BUILD/frameshift
[[ -x $TOOL ]] || { echo "no $TOOL; run make"; exit 1; }
printf 'garbage\n' >"$WORK/map1"
printf 'dimm A 0x-5-zz\n' >"$WORK/map2"
mkdir -m 700 "$WORK/empty" "$WORK/journal" "$WORK/shrunk"
printf 'no journal at all' >"$WORK/journal/journal"
printf 'junk\n' >"$WORK/shrunk/shrunk"
chmod 600 "$WORK/journal/journal" "$WORK/shrunk/shrunk"

state_of() { (cd "$1" && find . -type f ! -name lock -exec sha256sum {} + | sort); }

# refused CODE WORDS DIR ARGUMENT...; WORDS is an extended regular expression
refused() {
    local want=$1 words=$2 dir=$WORK/$3 before
    shift 3
    before=$(state_of "$dir")
    timeout -k 5 60 "$TOOL" --state-dir "$dir" "$@" >"$WORK/out" 2>"$WORK/err" </dev/null
    code=$?
    check "$*: exit code $code, should be $want" code_is "$want"
    check "$*: the error has /$words/" grep -qE -- "$words" "$WORK/err"
    check "$*: the error names the tool" grep -q '^frameshift: ' "$WORK/err"
    check "$*: the state directory is as it was" test "$before" == "$(state_of "$dir")"
}

while IFS='|' read -r want words spec; do
    refused "$want" "$words" empty --machine "$spec" status
done <<'END'
2|"nodes=4x".*nodes=COUNTxMIB|embedded:nodes=4x
2|not understood|embedded:nodes=99999999999999999999x1
2|not understood|embedded:nodes=4x128 pv=
2|"pv=a,-5,1,1"|embedded:nodes=4x128 pv=a,-5,1,1
2|not understood|embedded:nodes=4x128 pv=a,99999999999999999999999,1,1
2|not understood|embedded:nodes=4x128 hap=a,32,99,1
2|"c" needs 16 MiB|embedded:nodes=4x128 coop=c,8,1,1
2|on node 9.*nodes 0 to 3|embedded:nodes=4x128 pv=a,32,1,9
2|on node 3.*nodes 0 to 1|embedded:coop=a,32,1,3 nodes=2x128
2|two domains are named "a"|embedded:nodes=4x128 pv=a,32,1,1 hap=a,32,1,2
2|"a" of 64 MiB.*larger DIMMs|embedded:nodes=2x32 pv=a,64,1,0
2|nodes=COUNTxMIB is missing|embedded:pv=a,32,1,1
2|"seed=x"|embedded:seed=x
2|"pcpus=0"|embedded:pcpus=0
2|"pcpus=-1"|embedded:pcpus=-1
2|"nonsense"|embedded:nonsense
2|there are xen and embedded|xen:foo
2|empty|
END

while IFS='|' read -r want words dir arguments; do
    read -ra list <<<"${arguments//WORK/$WORK}"
    refused "$want" "$words" "$dir" "${list[@]}"
done <<'END'
2|mfn:START-END, both hexadecimal|empty|--machine embedded evacuate mfn:zz-10
3|mfn:10-5 is empty|empty|--machine embedded evacuate mfn:10-5
2|not a range of frames|empty|--machine embedded evacuate mfn:ffffffffffffffff-ffffffffffffffffff
3|no node 99 .*nodes: 0, 1|empty|--machine embedded evacuate node:99
3|"node:-1"; known:|empty|--machine embedded evacuate node:-1
3|"NOPE"; known: NODE0|empty|--machine embedded evacuate NOPE
3|"set:x"; known:|empty|--machine embedded online set:x
3|no domain "nobody"; there are|empty|--machine embedded evacuate NODE1 --exclude nobody
2|'-1ms' is no time; write|empty|--machine embedded evacuate NODE1 --max-pause -1ms
2|is no time; write|empty|--machine embedded evacuate NODE1 --max-blackout 3parsecs
10|map1:1: a line begins with "dimm"|empty|--machine embedded --map WORK/map1 status
10|map2:1: "0x-5-zz" is neither|empty|--machine embedded --map WORK/map2 status
3|map file /nonexistent|empty|--machine embedded --map /nonexistent status
2|'0' is no size; write|empty|--machine embedded shrink coop1 --to 0
2|'-5M' is no size; write|empty|--machine embedded shrink coop1 --to -5M
2|'5Q' is no size; write|empty|--machine embedded shrink coop1 --to 5Q
2|too large; at most|empty|--machine embedded shrink coop1 --to 99999999999999999999G
3|no domain "nobody"|empty|--machine embedded shrink nobody --to 16M
9|does not speak abi.h.*xl mem-set|empty|--machine embedded shrink pv1 --to 16M
2|'x' is not NAME=VALUE; write|empty|--machine embedded meminfo coop1 --set x
2|'=1' is not NAME=VALUE|empty|--machine embedded meminfo coop1 --set =1
9|no setting called x;.*nothing was set|empty|--machine embedded meminfo coop1 --set x=1
2|'-1' is no number|empty|--machine embedded meminfo coop1 --set extfrag_threshold=-1
2|too large; at most|empty|--machine embedded meminfo coop1 --set extfrag_threshold=99999999999999999999
9|takes 0 to 1000, not 1001; nothing was set|empty|--machine embedded meminfo coop1 --set extfrag_threshold=1001
2|--seed: 'x' is no number|empty|drill --seed x
2|--seed: '-1' is no number|empty|drill --seed -1
2|between 1 and 1000000|empty|drill --seeds 0
2|--dimms|empty|drill --dimms 4x
2|between 2 and 16|empty|drill --dimms 1x16
2|"pv=a" is not understood; write KIND=NAME|empty|drill --guest pv=a
2|--fail-call: 'x' is no number|empty|drill --fail-call x
7|journal is left.*run `frameshift recover` first|journal|--machine embedded evacuate NODE1
10|damaged at offset 0.*Nothing was done.*remove the file|journal|--machine embedded recover
10|shrunk.*remove it|shrunk|--machine embedded shrink coop1 --to 24M
END
finish
