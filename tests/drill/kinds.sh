# shellcheck shell=sh
# Guests of special kinds are evacuated together: one with a disk under checked I/O (active grants), one ballooned down.
# Then the last frames go with --evict: no frame of a guest may stay in the range.
# Environment: EVICT (1: also --evict).
. /usr/lib/drill/lib.sh
guests_up 300 || fail "the guests did not come up"
for name in $(guests); do
    case $name in
    balloon*)
        memory=$(xl list "$name" | awk 'NR == 2 { print $3 }')
        guest_balloon "$name" $((memory * 3 / 4)) 120 || fail "$name did not balloon down"
        ;;
    esac
done
node=$(node_of "$(guests | head -n 1)")
fs "0 1" evacuate "NODE$node" --verify "--json=$RESULTS/events.jsonl"
drill_well
if [ "${EVICT:-0}" = 1 ]; then
    fs "0 1" evacuate "NODE$node" --evict "--json=$RESULTS/evict.jsonl"
    drill_well 240
    for name in $(guests); do
        on=$(guest_node_pages "$name" "$node" | cut -d ' ' -f 1)
        [ "$on" = 0 ] || fail "$name still has $on frames on node $node"
    done
fi
