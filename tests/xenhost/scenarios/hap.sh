# shellcheck shell=sh
# Moves PVH guests under load from node to node and judges the guests, the frames that stayed, and the pauses, the
# pauses against `xl save` + `xl restore` of the same guest in the same boot.
#   --env HAP_NODES="1 2"  which nodes are emptied, one after the other (default 1); the guests begin on the first
#   --env HAP_OPTIONS=...  options of evacuate, e.g. --verify
# A guest named balloon... is ballooned down to three quarters first.
#   --env HAP_SAVE=1       save and restore the first guest at the end, and hold the pauses against it
# Results: evacuate-N.jsonl for each step, peers.
# shellcheck disable=SC2086,SC3043  # HAP_OPTIONS and HAP_NODES are lists; busybox ash has local

now_ms() { awk '{ printf "%d\n", $1 * 1000 }' /proc/uptime; }

# member NAME FILE: a number of the final report's first domain.
member() { tail -n 1 "$2" | sed -n "s/.*\"domains\":\[{.*\"$1\":\([0-9]*\).*/\1/p"; }

step() {
    local node=$1 file=$STATE/evacuate-$1.jsonl name
    for name in $(guests); do eval "seq_$name=$(guest_seq "$name")"; done
    frameshift evacuate "node:$node" $HAP_OPTIONS --json >"$file" 2>$STATE/evacuate.err
    local status=$?
    result "$file"
    cat $STATE/evacuate.err >>$STATE/dom0.log
    # 1: done, and some frames stay. Xen's own always do.
    [ $status -le 1 ] || fail "evacuate of node $node ended with $status"
    guests_ok 120 || fail "a guest is not well after node $node"
    for name in $(guests); do eval "log \"node $node: $name: largest gap \$(guest_max_gap $name \$seq_$name) ns\""; done
    log "node $node: moved $(member moved "$file"), stay $(member blocked "$file"), superpages $(member superpages_before "$file")" \
        "to $(member superpages_after "$file"), pause p99 $(member p99_pause_ns "$file") max $(member max_pause_ns "$file") ns"
    [ "$(member mismatches "$file")" = 0 ] || fail "mismatches"
}

guests_up 300 || fail "guests did not come up"
for name in $(guests); do
    case $name in
    balloon*)
        memory=$(xl list "$name" | awk 'NR == 2 { print $3 }')
        guest_balloon "$name" $((memory * 3 / 4)) 120 || fail "$name did not balloon down"
        ;;
    esac
done
for node in ${HAP_NODES:-1}; do
    step "$node"
    case ${HAP_NODES:-1} in *" "*) run frameshift online "node:$node" >>$STATE/dom0.log 2>&1 || fail "online of node $node" ;; esac
done

[ -n "$HAP_SAVE" ] || exit 0
first=$(guests | head -n 1)
begin=$(now_ms)
run xl save "$first" /run/saved >>$STATE/dom0.log 2>&1 || fail "xl save"
run xl restore /run/saved >>$STATE/dom0.log 2>&1 || fail "xl restore"
end=$(now_ms)
guest_wait "$first" 120 "$(guest_seq "$first")" || fail "restored guest is not well"
ms=$((end - begin))
log "xl save + restore of $first: $ms ms"
echo "save_restore_ms $ms" >$STATE/peers
result $STATE/peers
for node in ${HAP_NODES:-1}; do
    file=$STATE/evacuate-$node.jsonl
    p99=$(member p99_pause_ns "$file") max=$(member max_pause_ns "$file")
    log "node $node: pauses of $first: p99 1/$((ms * 1000000 / p99)), max 1/$((ms * 1000000 / max)) of save + restore"
    [ $((p99 * 500)) -le $((ms * 1000000)) ] || fail "p99 of the pauses is above 1/500 of save + restore"
    [ $((max * 100)) -le $((ms * 1000000)) ] || fail "the longest pause is above 1/100 of save + restore"
done
