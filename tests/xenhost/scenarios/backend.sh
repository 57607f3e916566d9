# shellcheck shell=sh
# The backend suite on real Xen: wants a PV guest pv1 and a PVH guest hvm1, and conform-xen in dom0.
#   tests/xenhost/xenhost --out build/x --scenario tests/xenhost/scenarios/backend.sh --time-limit 600 \
#       --guest pv1,pv,256,2,node=1 --guest hvm1,pvh,256,2,node=2 --file build/conform-xen:/usr/bin/conform-xen
# CONFORM_ONLY (--env): checks whose name begins so. CONFORM_CYCLES: how often the offline checks are repeated (marking parts of
# free memory again and again is what once brought Xen down). The guests must be well after every group of checks.
guests_up 300 || fail "guests did not come up"
if [ -n "${CONFORM_ONLY:-}" ]; then
    groups=$CONFORM_ONLY
else
    groups="host ram tables domains frames m2p specials pause max-pages monitor oracles hap- pv- offline- leave-marked evict"
fi
bad=0
for group in $groups; do
    run conform-xen --pv pv1 --hap hvm1 --only "$group" --dir /run >>"$STATE/dom0.log" 2>&1 || bad=1
    [ "$group" = evict ] || guests_ok 90 || fail "a guest is not well after $group"
done
i=0
while [ $i -lt "${CONFORM_CYCLES:-0}" ]; do
    run conform-xen --pv pv1 --hap hvm1 --only offline- >>"$STATE/dom0.log" 2>&1 || bad=1
    i=$((i + 1))
done
# No page may be left that Xen counts as waiting for scrubbing for ever: its idle loop would never sleep again.
if [ -z "${CONFORM_ONLY:-}" ]; then
    i=0
    while [ $i -lt 60 ]; do
        xl dmesg -c >/dev/null && xl debug-keys H && left=$(xl dmesg | sed -n 's/.*has \([0-9]*\) unscrubbed.*/\1/p' | sort -n | tail -n 1)
        [ "${left:-0}" -lt 64 ] && break
        sleep 1
        i=$((i + 1))
    done
    [ "${left:-0}" -lt 64 ] || fail "$left pages wait for scrubbing for ever"
fi
# A guest that was replaced has a new console log; its load goes on where it was.
case " $groups " in *" evict "*) guests_ok 90 || fail "a guest is not well after evict" ;; esac
for name in $(guests); do log "$(guest_beat "$name")"; done
[ $bad = 0 ] || fail "the suite found faults"
