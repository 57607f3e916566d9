# shellcheck shell=sh
# The tool is killed (kill -9) after its n-th journal record, for every n until an evacuation runs through; each time
# `recover` must succeed and every guest live on, untouched. Environment: KILL_FROM (1), KILL_STEP (1).
. /usr/lib/drill/lib.sh
guests_up 300 || fail "the guests did not come up"
first=$(guests | head -n 1)
n=${KILL_FROM:-1} killed=0
while :; do
    node=$(node_of "$first")
    # 137: killed. Whatever else it ends with, it was not killed any more: all records were written.
    fs "0 1 137" evacuate "NODE$node" --crash-at "$n" --verify
    [ "$FS_STATUS" -eq 137 ] || break
    killed=$((killed + 1))
    [ "$killed" -gt 1 ] || fs 7 evacuate "NODE$node"        # nothing else may begin before recovery
    fs 0 recover
    drill_well
    n=$((n + ${KILL_STEP:-1}))
done
[ "$killed" -ge 5 ] || fail "only $killed kills: the journal has more records than that"
drill_well
log "killed at $killed records, recovered each time"
echo "kills=$killed" >$RESULTS/verdict.txt
