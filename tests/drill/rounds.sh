# shellcheck shell=sh
# Each guest evacuated three times in a row to different nodes; then, for comparison in the same boot, saved and restored.
# Environment: ROUND_OPTIONS (more options of evacuate), BASELINE (1: with xl save and restore),
# ONLINE (0: a node that was left stays offline, so that no round moves to frames that a guest's code once ran in: the emulator has to
# throw its translation of that code away when it is overwritten, which makes copying up to six times as slow as on fresh frames).
. /usr/lib/drill/lib.sh
guests_up 300 || fail "the guests did not come up"
first=$(guests | head -n 1)
round=1
: >$RESULTS/verdict.txt
while [ $round -le 3 ]; do
    node=$(node_of "$first")
    for name in $(guests); do eval "before_$name=$(guest_seq "$name")"; done
    # shellcheck disable=SC2086
    fs "0 1" evacuate "NODE$node" "--json=$RESULTS/round-$round.jsonl" ${ROUND_OPTIONS:-}
    few_stay "$RESULTS/round-$round.jsonl"
    drill_well
    for name in $(guests); do
        eval "seq=\$before_$name"
        echo "round $round from NODE$node: $name: largest gap $(($(guest_max_gap "$name" "$seq") / 1000000)) ms" >>$RESULTS/verdict.txt
    done
    left="${left:-} NODE$node"
    [ "${ONLINE:-1}" = 0 ] || fs 0 online "NODE$node"
    round=$((round + 1))
done
[ "${ONLINE:-1}" = 0 ] && for node in $left; do fs 0 online "$node"; done
if [ "${BASELINE:-0}" = 1 ]; then
    for name in $(guests); do
        seq=$(guest_seq "$name")
        start=$(uptime_s)
        run xl save "$name" /run/"$name".save || fail "xl save $name"
        run xl restore /run/"$name".save || fail "xl restore $name"
        end=$(uptime_s)
        rm -f /run/"$name".save
        guest_wait "$name" 120 "$seq" || fail "$name does not beat after restore"
        echo "baseline $name: xl save + restore $(awk -v a="$start" -v b="$end" 'BEGIN { printf "%.2f", b - a }') s, largest gap $(($(guest_max_gap "$name" "$seq") / 1000000)) ms" >>$RESULTS/verdict.txt
    done
fi
