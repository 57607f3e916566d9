# shellcheck shell=sh
# The backend suite on real Xen: wants a PV guest pv1 and a PVH guest hvm1, and conform-xen in dom0.
#   tests/xenhost/xenhost --out build/x --scenario tests/xenhost/scenarios/backend.sh --time-limit 600 \
#       --guest pv1,pv,256,2,node=1 --guest hvm1,pvh,256,2,node=2 --file build/conform-xen:/usr/bin/conform-xen
# CONFORM_ONLY (--env): checks whose name begins so. The guests must be well after every group of checks.
guests_up 300 || fail "guests did not come up"
if [ -n "${CONFORM_ONLY:-}" ]; then
    groups=$CONFORM_ONLY
else
    groups="host ram tables domains frames m2p specials pause max-pages monitor oracles hap- pv- offline- evict"
fi
bad=0
for group in $groups; do
    run conform-xen --pv pv1 --hap hvm1 --only "$group" --dir /run >>"$STATE/dom0.log" 2>&1 || bad=1
    [ "$group" = evict ] || guests_ok 90 || fail "a guest is not well after $group"
done
# A guest that was replaced has a new console log; its load goes on where it was.
case " $groups " in *" evict "*) guests_ok 90 || fail "a guest is not well after evict" ;; esac
for name in $(guests); do log "$(guest_beat "$name")"; done
[ $bad = 0 ] || fail "the suite found faults"
