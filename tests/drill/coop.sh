# shellcheck shell=sh
. /usr/lib/drill/lib.sh
guests_up 300 || fail "the guests did not come up"
xenstore-ls -f /local/domain >$RESULTS/xenstore.txt 2>&1
fs 0 status
fs "0 1" evacuate NODE1 --dry-run
fs "0 1" evacuate NODE1 --verify "--json=$RESULTS/coop-1.jsonl"
drill_well
fs 0 status
xl shutdown coop1
sleep 8
xl list >$RESULTS/list.txt
