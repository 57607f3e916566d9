# shellcheck shell=sh
# LDT pages that Xen holds while a PV guest stands still: the guest has many processes with an LDT entry, of which a vCPU mostly ran one last.
# Xen maps such a page for the vCPU and does not let go in the stop, so it cannot move then; the mover gives it a short round of its own.
# Owns: the proof that this round happens and that no LDT page stays. The guest goes from node to node until it was seen, LDT_TRIES times at most.
# Environment: LDT_TRIES (6).
. /usr/lib/drill/lib.sh
guests_up 300 || fail "the guests did not come up"
name=$(guests | head -n 1)
vcpus=$(xl list "$name" | awk 'NR == 2 { print $4 }')
try=1 seen=0
while [ $try -le "${LDT_TRIES:-6}" ] && [ $seen -lt 1 ]; do
    node=$(node_of "$name")
    fs "0 1" evacuate "NODE$node" --verify "--json=$RESULTS/round-$try.jsonl"
    grep '"type":"report"' "$RESULTS/round-$try.jsonl" | tail -n 1 >"$RESULTS/report-$try.json"
    suspends=$(grep -o '"suspends":[0-9]*' "$RESULTS/report-$try.json" | cut -d : -f 2 | sort -n | tail -n 1)
    blocked=$(number "$RESULTS/report-$try.json" frames_blocked)
    ldt=$(grep -o '"reason":"ldt[^"]*"' "$RESULTS/report-$try.json" | wc -l)
    echo "try $try from NODE$node: suspends=${suspends:-?} blocked=${blocked:-?} ldt_pages_left=$ldt" >>"$RESULTS/verdict.txt"
    [ "$ldt" = 0 ] || fail "an LDT page stayed"
    few_stay "$RESULTS/round-$try.jsonl"
    drill_well
    [ "${suspends:-1}" -gt 1 ] && seen=$((seen + 1))
    fs 0 online "NODE$node"
    try=$((try + 1))
done
[ $seen -gt 0 ] || fail "in $((try - 1)) evacuations Xen held no LDT page: the round for them was not seen"
log "LDT rounds seen: $seen in $((try - 1)) evacuations, $vcpus vCPUs"
