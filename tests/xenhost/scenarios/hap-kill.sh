# shellcheck shell=sh
# kill -9 at random moments of an evacuation of PVH guests, in pauses too: `recover` must put each guest in order.
#   --env HAP_KILLS=N  how many kills (default 12)
# After each: recover ends well, no guest is left paused, every guest finds its bytes, scratch gfns are empty (as many
# pages as before the kill), and the next evacuation can begin. Result: kills (moment, whether in a pause).
# shellcheck disable=SC3043  # busybox ash has local

random_ms() { od -An -N2 -tu2 /dev/urandom | awk -v n="$1" '{ print $1 % n }'; }
paused() { xl list "$1" | awk 'NR == 2 { print substr($5, 3, 1) == "p" }'; }
pages() { xl list "$1" | awk 'NR == 2 { print $3 }'; }
node_of() {
    local node best=0 on most=-1
    for node in 0 1 2 3; do
        on=$(guest_node_pages "$1" $node | cut -d ' ' -f 1)
        [ "$on" -gt "$most" ] && { most=$on best=$node; }
    done
    echo "$best"
}

guests_up 300 || fail "guests did not come up"
first=$(guests | head -n 1)
for name in $(guests); do eval "pages_$name=$(pages "$name")"; done
kills=0 within=0
: >$STATE/kills
while [ $kills -lt "${HAP_KILLS:-12}" ]; do
    node=$(node_of "$first")
    frameshift evacuate "node:$node" --json >$STATE/evacuate.jsonl 2>$STATE/evacuate.err &
    pid=$!
    # The move begins after the plan and the marking; from then on at any moment of the next seconds.
    while ! grep -q '"event":"pause"' $STATE/evacuate.jsonl && kill -0 $pid 2>/dev/null; do sleep 0.05; done
    ms=$(random_ms "${HAP_SPREAD_MS:-5000}")
    usleep $((ms * 1000))
    if ! kill -9 $pid 2>/dev/null; then
        wait $pid
        run frameshift online "node:$node" >>$STATE/dom0.log 2>&1 || fail "online"
        continue
    fi
    wait $pid
    kills=$((kills + 1))
    was=0
    for name in $(guests); do [ "$(paused "$name")" = 1 ] && was=1; done
    within=$((within + was))
    moved=$(grep -c '"event":"pause"' $STATE/evacuate.jsonl)
    run frameshift recover >$STATE/recover.txt 2>&1 || { cat $STATE/recover.txt >>$STATE/dom0.log; fail "recover after kill $kills"; }
    for name in $(guests); do
        [ "$(paused "$name")" = 0 ] || fail "$name is still paused after kill $kills"
        eval "want=\$pages_$name"
        [ "$(pages "$name")" = "$want" ] || fail "$name has $(pages "$name") MiB after kill $kills, not $want"
    done
    guests_ok 120 || fail "a guest is not well after kill $kills (at $ms ms, after $moved pauses, in a pause: $was)"
    log "kill $kills: $ms ms after the first pause, after $moved pauses, in a pause: $was"
    echo "$ms $moved $was" >>$STATE/kills
done
result $STATE/kills
[ $within -gt 0 ] || log "no kill fell into a pause: not what this is for; run it again"
log "$kills kills, $within of them in a pause"
