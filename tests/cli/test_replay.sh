#!/bin/bash
# build/bench/replay: traces and kinds that are bad, cut off or missing are refused by name with exit code 2, mistakes on the command line with 64.
# shellcheck source=tests/cli/lib.sh
. "$(dirname "$(readlink -f "$0")")/lib.sh"
REPLAY=$BUILD/bench/replay

replay() {
    timeout -k 5 60 "$REPLAY" "$@" >"$WORK/out" 2>"$WORK/err" </dev/null
    code=$?
}
out_empty() { [[ ! -s $WORK/out ]]; }
# made FILE COUNT PREFIX: a trace without records whose header says COUNT of them; PREFIX before it.
made() {
    local header='{"name":"made","memory_mib":16,"pageblock_order":9,"max_order":10,"pfns":4096,"complete":true,"records":'$2',"counts":{"alloc":'$2'},'
    header+='"inferred":{},"init_alloc_runs":[[0,100]],"hole_runs":[],"gfp_table":[3264],"zones":[{"name":"DMA32","start_pfn":0,"spanned":4096,'
    header+='"present":4096,"managed":3996,"min":8,"low":10,"high":12}]}'
    printf '%sPAGETRACE 1\n%d\n%s\n' "$3" "${#header}" "$header" >"$1"
}

made "$WORK/good" 0 ''
printf '0 100 resv\n100 3996 free\n' >"$WORK/kinds"
replay --trace "$WORK/good" --kinds "$WORK/kinds" --json
check "a good trace" code_is 0
for member in '"compaction"' '"compaction_movable_holes"' '"pages_migrated_least"' '"least_is"' '"kernel_demand"' '"units_per_order"' '"unusable_index"' \
              '"huge"' '"huge_reclaim"' '"huge_cache_dropped"' '"steps"' '"offline_128_mib"' '"residual_frames"' '"polluted"' '"times_packed"'; do
    check "the report has $member" out_has "$member"
done
replay "$WORK/good" "$WORK/good" --policies --json
check "policies of several traces" code_is 0
check "policies: the best" out_has '"best": "clear"'

made "$WORK/short" 5 ''
replay --trace "$WORK/short"
check "records are missing" code_is 2
check "records are missing: named" err_has "$(basename "$WORK/short")"
check "records are missing: no report" out_empty
made "$WORK/magic" 0 x
head -c 100 "$WORK/good" >"$WORK/cut"
head -c 300 /dev/zero >"$WORK/zeros"
: >"$WORK/empty"
{ cat "$WORK/good"; printf 'xyz'; } >"$WORK/behind"
for file in magic cut zeros empty behind missing; do
    replay --trace "$WORK/$file"
    check "$file: refused (code $code)" code_is 2
    check "$file: named" err_has "$WORK/$file"
    check "$file: no report" out_empty
done
printf '0 5000 lru\n' >"$WORK/k-outside"
printf '0 100 resv\n100 x free\n' >"$WORK/k-words"
printf '0 100 nonsense\n' >"$WORK/k-kind"
for file in k-outside k-words k-kind k-missing; do
    replay --trace "$WORK/good" --kinds "$WORK/$file"
    check "$file: refused (code $code)" code_is 2
    check "$file: named" err_has "$WORK/$file"
    check "$file: no report" out_empty
done
printf '\x28\xb5\x2f\xfd\x24\x10' >"$WORK/half.zst"
replay --trace "$WORK/half.zst"
check "compressed data that end early" code_is 2
check "compressed data that end early: named" err_has "$WORK/half.zst"

for words in '' '--trace' '--policy best --trace x' '--proactiveness 101 --trace x' '--window x --trace x' '--nonsense' 'a b'; do
    # shellcheck disable=SC2086
    replay $words
    check "usage: $words (code $code)" code_is 64
    check "usage: $words: no report" out_empty
done
FULL=$(FAKE_HV=ok "$REPLAY" --trace "$WORK/good" --no-trials 2>&1 >/dev/full)
check "a full disk is told" test "$FULL" = "replay: the report cannot be written"
finish
