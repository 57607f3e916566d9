# shellcheck shell=sh
# The drill, in dom0: guests up, plan, evacuate NODE1, report, guests checked for 20 s more, tables checked.
# Owns: what the drill proves. Everything is judged from the report, the machine (status, fsck) and the guests' consoles.
# Environment: DRILL_NODE (NODE1), DRILL_OPTIONS (more options of evacuate), DRILL_CHECK_S (20).

node=${DRILL_NODE:-NODE1}
check_s=${DRILL_CHECK_S:-20}

guests_up 240 || fail "the guests did not come up"
for name in $(guests); do eval "before_$name=$(guest_seq "$name")"; done

run frameshift evacuate "$node" --dry-run >$RESULTS/plan.txt 2>&1 || { cat $RESULTS/plan.txt >>$STATE/dom0.log; fail "the plan failed"; }
stage planned

# shellcheck disable=SC2086
frameshift evacuate "$node" --verify "--json=$RESULTS/events.jsonl" ${DRILL_OPTIONS:-} >$RESULTS/report.txt 2>$RESULTS/evacuate.err
status=$?
stage evacuated
grep '"type":"report"' $RESULTS/events.jsonl | tail -n 1 >$RESULTS/report.json
[ $status -eq 0 ] || [ $status -eq 1 ] || { cat $RESULTS/evacuate.err >>$STATE/dom0.log; fail "evacuate ended with $status"; }
[ -s $RESULTS/report.json ] || fail "evacuate wrote no report"

sleep "$check_s"
guests_ok 60 || fail "a guest is not well after the evacuation"
run frameshift status >$RESULTS/status.txt 2>&1 || fail "status failed"
run frameshift fsck --pause >$RESULTS/fsck.txt 2>&1 || { cat $RESULTS/fsck.txt >>$STATE/dom0.log; fail "fsck found faults"; }
{
    for name in $(guests); do
        eval "seq=\$before_$name"
        echo "guest $name: wrong bytes $(guest_field "$name" wrong_bytes), largest gap $(($(guest_max_gap "$name" "$seq") / 1000000)) ms"
    done
} >$RESULTS/verdict.txt
stage checked
